"""What a run is: its configuration, the networks and optimizers that follow from it, and the folder
from which everything comes back as it was."""
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
import re
import reprlib

import torch

from app.common import config as configuration
from app.common.config import NETWORK, TRAINING
from app.common.console import log_info, quote, warn
from app.common.errors import UserError, as_user_error, one_line
from app.common.files import require_folder, require_regular_file, resolve_path
from app.datasets import inspection, layouts
from app.runs import checkpoints, official
from generate import min_input_side, network_multiple
import nets
import train


@dataclass
class Log:
    """What is kept of a run beside its networks: train.Run.log."""
    sums: dict = field(default_factory=dict)        # see hooks.accumulate_terms
    rows: str = ''                          # the text of log.csv
    scores: str = ''                        # the text of scores.csv
    best: float | None = None               # the best score in it
    d_saturated_since: int | None = None    # step since which D has been right about everything
    board: object | None = None             # TensorBoard's SummaryWriter
    variant: str = ''                       # '-best', '-raw': not the newest, not the averages


# ---------------------------------------------------------------------------- configurations

def make_config(given, found):
    """Make the configuration of a new run, without its schedule.

    given: {field: value} of the command line. found: what inspection.inspect_dataset returned.
    Raises UserError for flags that have no effect or contradict each other.
    """
    wishes = given
    if given.get('model') == 'pix2pix':
        wishes = {**configuration.PIX2PIX, **given, 'model': 'unet'}
    network = {**configuration.default_values(NETWORK),
               **{name: value for name, value in wishes.items() if name in NETWORK},
               **{name: getattr(found, name) for name in NETWORK if hasattr(found, name)}}

    unet = network['model'] == 'unet'
    if network['model'] != 'local':
        network['n_enhancers'] = 0
    if unet and 'n_down' not in given:
        network['n_down'] = 5                       # until the size is known
    if 'ngf' not in given:
        network['ngf'] = max(1, network['ngf'] >> network['n_enhancers'])
    regions = found.instances != 'none' or network['features_of'] == 'label'
    network.setdefault('features', regions)
    if network['features'] and not regions:
        raise UserError(f'--features: {given["data"]} has no instance maps; --instances components '
                        'makes them from the labels, --features-of label needs none')

    config = configuration.make_config(network, {
        'fix_global': 0, **{name: value for name, value in wishes.items() if name in TRAINING},
        'left_out': sorted(found.problems), 'pictures': inspection.fingerprint(found.pairs)})
    _, heldout = inspection.hold_out(found.pairs, config.training.hold_out)
    config.training.held = [pair.name for pair in heldout]
    configuration.check_flags_used(given, config)
    if 'size' not in given:
        config.size = default_size(config, list(found.sizes.values()))
    if unet and 'n_down' not in given:
        config.n_down = unet_levels(config)
    return config


# ------------------------------------------------------------------------------------- networks

def build_run(config, device, training=True, weights=None, average=None):
    """Make the networks and optimizers of a run, see train.make_run, and load their weights.

    weights: {'G', 'E', 'D': state dict}, which must fit by names and shapes. Networks that are not
        among them get new weights. No memory is taken before their sizes are checked.
    average: {'G', 'E': state dict} of the moving averages.
    """
    def make(name, constructor):
        if name not in (weights or {}):
            return constructor()
        with torch.device('meta'):
            net = constructor()
        net.load_state_dict(checkpoints.copy_tree(weights[name], device), strict=True, assign=True)
        return net.to(torch.float32)

    run = train.make_run(config, device, training, make)
    run.log = Log()
    for name, state in (average or {}).items() if run.average else ():
        run.average[name].load_state_dict(checkpoints.copy_tree(state, device))
    return run


def enhancer_config(base, path, given):
    """Coarse to fine (paper section 3.2): the network part of a configuration -> that of a local
    enhancer around it, half as wide, at twice the size. path: the run it is of, for UserErrors.
    given: {field: value} of the command line."""
    if base.model == 'unet':
        raise UserError(f'{path}: its generator is a U-Net; local enhancers go around a global '
                        'generator')
    if base.ngf % 2:
        raise UserError(f'{path}: --ngf {base.ngf} is odd; the enhancer around it has half as many '
                        'channels')
    network = {name: value for name, value in vars(base).items() if name != 'training'}
    network |= {**given, 'model': 'local', 'ngf': base.ngf // 2,
                'n_enhancers': base.n_enhancers + 1, 'encoder_scale': 2 * base.encoder_scale}
    if base.model == 'local' and network['n_blocks_local'] != base.n_blocks_local:
        raise UserError(f'--n-blocks-local {network["n_blocks_local"]}: {path} has '
                        f'{base.n_blocks_local}, and all its enhancers are alike')
    if 'size' not in given:
        if not base.size:
            raise UserError(f'{path} was trained at native size; say with --size WxH (or native) '
                            'what to finetune at')
        network['size'] = tuple(2 * side for side in base.size)
    return network


# Of the run before, if not given: schedule, crop, log and cache are each stage's own.
KEPT_BY_FINETUNE = ('split', 'jitter', 'flip', 'workers', 'batch', 'accumulate', 'lr', 'gan', 'vgg',
                    'precision', 'compile', 'recompute', 'seed', 'ema', 'hold_out', 'held',
                    'left_out', 'lambda_feature', 'lambda_vgg', 'lambda_l1')


def make_finetune_config(base, path, given):
    """Make the configuration of the stage around a trained run, without its schedule.

    base: the configuration of that run, read from `path`.
    given: {field: value} of the command line.
    """
    before = vars(base.training) if base.training else {}
    root = given.get('data', before.get('data'))
    if not root:
        raise UserError(f'{path}: does not say what it was trained on; name it with --data DIR')
    if not Path(root).exists():
        raise UserError(f'{root}: the data set of {path} is not there; say with --data DIR where it '
                        'is now')
    if given.get('hold_out', before.get('hold_out', 0)) != before.get('hold_out', 0):
        raise UserError(f'--hold-out {given["hold_out"]}: {path} was trained with --hold-out '
                        f'{before.get("hold_out", 0)}, and has seen the others; leave it out')
    network = enhancer_config(base, path, {name: value for name, value in given.items()
                                           if name in NETWORK})
    config = configuration.make_config(network, {
        **{name: before[name] for name in KEPT_BY_FINETUNE if name in before},
        **{name: value for name, value in given.items() if name in TRAINING},
        'data': str(resolve_path(root))})
    return config


def finetune_name(base, config):
    """The name of the run folder of the stage around `base`: <name of base>-<size>."""
    name = re.sub(r'-(\d+x\d+|native)$', '', resolve_path(base).name) or 'root'
    return f'{name}-{configuration.format_value(config.size or "native")}'


def complete_config(config, pairs, sizes):
    """Check the sizes of the pictures, set the schedule, and check the configuration as a whole.

    pairs: [layouts.Pair] of the data set. sizes: {scene: (width, height)}.
    """
    check_sizes(config, {pair.name: sizes[pair.name] for pair in pairs})
    trained_on, _ = inspection.train_and_heldout(config, pairs)
    train.set_schedule(config, len(trained_on))
    configuration.check_config(config)


def log_unfreezing(run, base):
    """Say from which step on everything is trained. base: the folder of the run inside."""
    t = run.config.training
    if t.fix_global_steps < t.total_steps:
        log_info(f'{base}: enhancer {run.config.n_enhancers} around it; the rest is trained too '
                 f'from step {t.fix_global_steps} on')
    else:
        warn(f'warning: --fix-global {t.fix_global} is {t.fix_global_steps} steps, all of this '
             'run: only the new enhancer will be trained')


def init_from_base(run, path, weights):
    """Fill what is inside a new local enhancer, and D and E, from the state dicts of the run that
    it was put around, read from `path`. UserError where they do not fit."""
    with as_user_error(path, 'not a checkpoint of this program'):
        run.G.load_inner(weights['G'])
        for name in 'DE':
            if name in weights:                     # the official code may leave D out
                getattr(run, name).load_state_dict(weights[name])
        if run.average:
            train.init_averages(run)


def load_vgg(source):
    """nets.VGG19 filled from a file, or from torchvision's site where `source` is 'fetch' (the hash
    is checked). UserError where that is not possible."""
    try:
        if source != 'fetch':
            require_regular_file(source)
        state = (torch.hub.load_state_dict_from_url(
                     nets.VGG19.URL, map_location='cpu', check_hash=True, weights_only=True)
                 if source == 'fetch' else
                 torch.load(source, map_location='cpu', weights_only=True))
        return nets.VGG19(state)
    except Exception as error:
        named = '--vgg' if source == 'fetch' else f'--vgg {source}'
        raise UserError(f'{named}: {one_line(error)}; give the path of '
                        f'{nets.VGG19.URL.split("/")[-1]} as torchvision publishes it, also to '
                        'go on with a run where it is elsewhere now') from None


def has_boundary(config):
    """Whether G and D see an instance boundary map."""
    return config.boundary and config.instances != 'none'


def min_training_side(config):
    """The least width and height of a picture to train on."""
    vgg = 16 if config.training and config.training.vgg else 1      # it halves them four times
    return max(min_input_side(config), 1 << config.n_scales, vgg)


def unet_levels(config):
    """As many levels as the size of the pictures allows, at most pix2pix's 8; 5 for those of native
    size."""
    w, h = config.training.crop or config.size or (32, 32)
    return max((level for level in range(2, 9) if w % (1 << level) == h % (1 << level) == 0),
               default=2)


def check_sizes(config, sizes):
    """UserError where --size, --crop or the pictures themselves, sizes {scene: (width, height)}, do
    not suit the networks."""
    t, size = config.training, config.size
    if t.crop and size and (t.crop[0] > size[0] or t.crop[1] > size[1]):
        raise UserError(f'--crop {configuration.format_value(t.crop)} is larger than --size '
                        f'{configuration.format_value(size)}')
    multiple, least = network_multiple(config), min_training_side(config)
    for flag, value in (('--size', size), ('--crop', t.crop)):
        if value and (flag == '--crop' or not t.crop):
            w, h = value
            if w % multiple or h % multiple or min(w, h) < least:
                raise UserError(f'{flag} {w}x{h}: these networks need multiples of {multiple}, at '
                                f'least {least}; {nearest_valid_size(value, multiple, least)} fits')

    for scene, (w, h) in sizes.items():
        if min(w, h) < least:
            raise UserError(f'{t.data}: {scene} is a picture of {w}x{h}, too small for these '
                            f'networks (at least {least}x{least}); leave it out')
        if t.crop and not size and (t.crop[0] > w or t.crop[1] > h):
            raise UserError(f'--crop {configuration.format_value(t.crop)}: {scene} in {t.data} is only '
                            f'{w}x{h}; leave it out, or take a smaller --crop or a --size')
    if t.batch > 1 and not (size or t.crop) and len(set(sizes.values())) > 1:
        raise UserError(f'--batch {t.batch}: the pictures of {t.data} differ in size; add --crop, '
                        'or --size instead of native')
    if t.cache is not None and not size:
        raise UserError('--cache keeps pictures of one size: say which with --size')
    if t.vgg and config.out_channels != 3:
        raise UserError(f'--vgg: VGG-19 looks at RGB, these pictures have {config.out_channels} '
                        'channels')


def nearest_valid_size(size, multiple, least):
    """The nearest size to a (width, height) that the networks take, in words."""
    return 'x'.join(str(max(-(-least // multiple), round(side / multiple)) * multiple)
                    for side in size)


def default_size(config, sizes):
    """The most frequent of `sizes`, reduced to 1024 pixels of width, to a multiple that the
    networks take."""
    frequent = max(dict.fromkeys(sizes), key=sizes.count)
    multiple, least = network_multiple(config), min_training_side(config)
    shrink = min(1, 1024 / frequent[0])
    return tuple(max(-(-least // multiple), round(side * shrink / multiple)) * multiple
                 for side in frequent)


# ----------------------------------------------------------------------------------- on the disk

def checkpoint_dict(run):
    """What a checkpoint holds: tensors and builtins only, all that is needed to use the networks
    and to go on training."""
    return {'config': configuration.to_dict(run.config), 'step': run.step,
            'rows': run.log.rows, 'sums': run.log.sums, 'won_since': run.log.d_saturated_since,
            'bad_steps': run.bad_steps, 'scores': run.log.scores, 'best': run.log.best,
            'weights': {name: getattr(run, name).state_dict() for name in 'GDE'
                        if getattr(run, name)},
            'average': {name: module.state_dict() for name, module in run.average.items()},
            'optimizers': {name: getattr(run, f'opt_{name}').state_dict()['state']
                           for name in 'GD'}}


def read_run(folder, set_aside=False, which='newest', n_labels=None):
    """The newest checkpoint in `folder`, or the best, or with 'file' the one that it is itself; or
    what is known of a run of the official code -> path, contents as above, its configuration
    unpacked. n_labels: of a run of the official code that does not tell, see official.infer_labels.
    UserError where there is none."""
    folder, optional = Path(folder), set()
    if (folder / 'latest_net_G.pth').is_file():
        path, optional = folder, {'D'}
        weights = official.read_weights(folder)
        with as_user_error(folder, 'not the networks of an official pix2pixHD run'):
            found = official.infer_config(folder, **weights, n_labels=n_labels)
        checkpoint = {'config': {**found, 'training': None}, 'step': 0, 'weights': weights,
                      'average': {}}
    elif n_labels is not None:
        raise UserError(f'--n-labels {n_labels}: {folder} is no run of the official code, and says '
                        'itself how many labels it has; leave it out')
    elif which == 'file':
        try:
            path, checkpoint = folder, checkpoints.read_checkpoint(folder)
        except checkpoints.Damaged as error:
            raise UserError(f'{folder}: {error}, or no checkpoint at all') from None
    elif which == 'best':
        path, checkpoint = checkpoints.best_checkpoint(folder)
    else:
        path, checkpoint = checkpoints.newest_checkpoint(folder, set_aside)
    with as_user_error(path, 'not a checkpoint of this program'):
        if not isinstance(checkpoint, dict):
            raise ValueError(type(checkpoint).__name__)
        checkpoint['config'] = config = configuration.from_dict(checkpoint['config'], path)
        if config.layout not in layouts.LAYOUTS:
            raise ValueError(f'layout {reprlib.repr(config.layout)}')
        if type(checkpoint['step']) is not int or checkpoint['step'] < 0:
            raise ValueError(f'step {reprlib.repr(checkpoint["step"])}')
        networks = {'G', 'D', *['E'] * config.features}
        has_average = config.training is not None and config.training.ema > 0
        check_weights(checkpoint['weights'], networks, optional, path)
        check_weights(checkpoint['average'], networks - {'D'} if has_average else set(), set(),
                      path)
    return path, checkpoint


def check_weights(states, networks, optional, path):
    """ValueError unless `states` holds state dicts of the networks, UserError unless finite."""
    if set(states) | optional != networks | optional or not all(
            isinstance(value, torch.Tensor) and value.is_floating_point()
            for state in states.values() for value in state.values()):
        raise ValueError('weights')
    for name, state in states.items():
        if not all(value.isfinite().all() for value in state.values()):
            raise UserError(f'{path}: weights of {name} are not finite; if there is an earlier '
                            'checkpoint, remove this one')


def load_run(folder, device, training=True, set_aside=False, which='newest', average=True,
             n_labels=None):
    """Return the run in `folder`. The arguments are those of read_run and run_from_checkpoint."""
    path, checkpoint = read_run(folder, set_aside, which, n_labels)
    return run_from_checkpoint(path, checkpoint, device, training, which, average)


def run_from_checkpoint(path, checkpoint, device, training=True, which='newest', average=True):
    """Return the run of what read_run returned. Not for training, the moving averages replace the
    weights of G and E, unless `average` is false.

    Raises: UserError if networks and weights do not fit.
    """
    with as_user_error(path, 'not a checkpoint of this program'):
        weights, averages = checkpoint['weights'], checkpoint['average']
        if not training and average:
            weights = {**weights, **averages}
        run = build_run(checkpoint['config'], device, training, weights, averages)
        run.step = checkpoint['step']
        run.log.variant = ('-best' * (which == 'best')
                       + '-raw' * bool(averages and not average and not training))
        if training and run.config.training:
            restore(run, checkpoint)
    return run


def restore(run, checkpoint):
    """Put what only training needs where it was. ValueError, or whatever else comes of it, where it
    does not fit."""
    def is_number(value):
        return (isinstance(value, torch.Tensor) and value.dtype == torch.float32
                and value.shape == ())

    for name in 'GD':
        optimizer, moments = getattr(run, f'opt_{name}'), checkpoint['optimizers'][name]
        parameters = optimizer.param_groups[0]['params']
        for i, values in moments.items():
            if {key: value.shape for key, value in values.items()} != {
                    'step': (), 'exp_avg': parameters[i].shape, 'exp_avg_sq': parameters[i].shape}:
                raise ValueError(f'moments of parameter {i} of {name}')
        moments = checkpoints.copy_tree(moments, run.device)
        optimizer.load_state_dict({**optimizer.state_dict(), 'state': moments})

    # By name, so that a term that this version knows and the checkpoint does not begins at 0.
    for name, value in checkpoint['sums'].items():
        if not isinstance(name, str) or not is_number(value):
            raise ValueError('sums')
    if not is_number(checkpoint['bad_steps']):
        raise ValueError('bad_steps')
    run.log.sums = checkpoints.copy_tree(checkpoint['sums'], run.device)
    run.bad_steps = checkpoints.copy_tree(checkpoint['bad_steps'], run.device)
    for name, kind in (('rows', str), ('scores', str), ('best', float), ('won_since', int)):
        value = checkpoint[name]
        if type(value) is not kind and not (value is None and kind is not str):
            raise ValueError(name)
        setattr(run.log, {'won_since': 'd_saturated_since'}.get(name, name), value)
    if not 0 <= run.bad_steps < run.config.training.max_bad_steps:
        raise ValueError('bad_steps')


# ----------------------------------------------------------------------------------- the folder

def newest_run():
    """The folder in runs/ that was trained last. UserError where there is none."""
    def saved(folder):
        with suppress(FileNotFoundError):           # a trainer may be replacing it
            return max((path.stat().st_mtime for path in checkpoints.list_checkpoints(folder)), default=0)
        return 0

    times = {folder: saved(folder) for folder in Path('runs').glob('*')}
    if not any(times.values()):
        raise UserError('runs/: no trained run there; train one, or name one with --run')
    return max(times, key=times.get)


def new_folder(named, name, dry=False):
    """The folder of a run to be made: the one `named`, else runs/<name>. UserError if it holds one
    already; dry: nothing will be written."""
    folder = Path(named or Path('runs') / name)
    if not dry:
        check_new(folder)
    return folder


def resumed_folder(resume, named, data):
    """The folder of the run to go on with: the one named by --resume or --run, or that of the data
    set named, or the newest."""
    if resume and named and resolve_path(named) != resolve_path(resume):
        raise UserError(f'--run {named}: --resume {resume} goes on in its own folder; leave --run '
                        'out')
    if resume or named:
        return Path(resume or named)
    of_data = data and Path('runs') / resolve_path(data).name
    return of_data if of_data and checkpoints.list_checkpoints(of_data) else newest_run()


def check_new(folder):
    """UserError if a folder holds a run, or cannot be one."""
    require_folder(folder)
    if str(folder).encode(errors='replace').decode() != str(folder):
        raise UserError(f'{folder}: its name is no text, and PyTorch opens no file there; choose '
                        'another with --run')
    if checkpoints.list_checkpoints(folder):
        raise UserError(f'{folder}: holds a trained run already; --resume {quote(folder)} goes on '
                        'with it, --run DIR makes another')
    if (folder / 'latest_net_G.pth').exists():
        raise UserError(f'{folder}: holds a run of the official code; --run DIR makes another, '
                        f'finetune --from {quote(folder)} starts from it')


def sibling_folder(folder, ending):
    """The folder beside a run's with `ending` behind its name: runs/x -> runs/x-cache."""
    folder = folder if folder.name else resolve_path(folder)
    if not folder.name:
        raise UserError(f'{folder}: there is no folder beside it; name one')
    return folder.with_name(f'{folder.name}{ending}')


def require_resumable(folder):
    """Raise UserError unless `folder` holds checkpoints of this program."""
    if not checkpoints.list_checkpoints(folder):
        read_run(folder)                            # says what is wrong with it
        raise UserError(f'{folder}: a run of the official code cannot be resumed; finetune --from '
                        'starts from it')


def check_cache_folder(config, folder, given):
    """Forget the cache that a checkpoint names where there is none, unless the command line gave
    it: a stranger's file must not choose the folder that is written to."""
    t = config.training
    if t.cache and not given and not (Path(t.cache) / 'index.json').is_file():
        warn(f'note: {t.cache} holds no cache; one is made beside {folder}, or where --cache DIR '
             'says')
        t.cache = ''
