"""A run in memory and on the disk: networks that are made, filled and saved."""
from dataclasses import dataclass, field
from pathlib import Path

import torch

from app.common import config as configuration
from app.common.console import log_info, warn
from app.common.errors import UserError, as_user_error, one_line
from app.common.files import require_regular_file
from app.datasets import layouts
from app.runs import checkpoints, devices, fast_layers, official
import nets
import train


@dataclass
class Log:
    """What is kept of a run beside its networks: train.Run.log."""
    sums: dict = field(default_factory=dict)        # see hooks.accumulate_terms
    rows: str = ''                          # the text of log.csv
    scores: str = ''                        # the text of scores.csv
    best: float | None = None               # the best score in it
    won_since: int | None = None            # step since which D has been right about everything
    variant: str = ''                       # '-best', '-raw': not the newest, not the averages


def build_run(config, device, training=True, weights=None, average=None):
    """Make the networks and optimizers of a run, see train.make_run, and load their weights.
    weights: {'G', 'E', 'D': state dict}, which must fit by names and shapes. Networks that are not
        among them get new weights. average: {'G', 'E': state dict} of the moving averages."""
    def make(name, constructor):
        if name not in (weights or {}):
            return constructor()
        with torch.device('meta'):
            net = constructor()
        # Copied: weights that stay mapped from a file would be lost if it was overwritten.
        net.load_state_dict(checkpoints.copy_tree(weights[name], device), assign=True)
        return net.to(torch.float32)

    run = train.make_run(config, device, training, make)
    t = config.training
    compiles = training and t and t.compile
    fast_layers.speed_up(*filter(None, (run.G, run.D, run.E, *run.average.values())),
                         weights_change=training,
                         convolutions=device.type == 'cpu' and not compiles)
    run.log = Log()
    for name, state in (average or {}).items() if run.average else ():
        run.average[name].load_state_dict(state)
    return run


def init_from_base(run, path, weights):
    """Fill a new local enhancer's inner network, D and E with the weights of the run around which
    it was put, {'G', 'D', 'E': state dict}, read from `path`. UserError where they do not fit."""
    with as_user_error(path, 'not a checkpoint of this program'):
        run.G.load_inner(weights['G'])
        for name in weights.keys() - {'G'}:         # the official code may leave D out
            getattr(run, name).load_state_dict(weights[name])
        if run.average:
            train.init_averages(run)
    t = run.config.training
    if t.fix_global_steps < t.total_steps:
        log_info(f'{path}: enhancer {run.config.n_enhancers} around it; the rest is trained too '
                 f'from step {t.fix_global_steps} on')
    else:
        warn(f'warning: --fix-global {t.fix_global} is {t.fix_global_steps} steps, all of this '
             'run: only the new enhancer will be trained')


def load_vgg(source, vgg_input='official'):
    """Load nets.VGG19 from the file `source`; 'fetch' downloads it and checks its hash."""
    try:
        if source == 'fetch':
            state = torch.hub.load_state_dict_from_url(
                nets.VGG19.URL, map_location='cpu', check_hash=True, weights_only=True)
        else:
            require_regular_file(source)
            state = torch.load(source, map_location='cpu', weights_only=True)
        return nets.VGG19(state, normalise=vgg_input == 'imagenet')
    except Exception as error:
        named = f'--vgg {source}'.removesuffix(' fetch')
        raise UserError(f"{named}: {one_line(error)}; give the path of torchvision's "
                        f'{nets.VGG19.URL.split("/")[-1]}, also to go on with a run') from None


def checkpoint_dict(run):
    """Return the contents of a checkpoint, tensors and builtins, to use a run and to resume it."""
    return {'config': configuration.to_dict(run.config), 'step': run.step,
            'rows': run.log.rows, 'sums': run.log.sums, 'won_since': run.log.won_since,
            'bad_steps': run.bad_steps, 'scores': run.log.scores, 'best': run.log.best,
            # What generating uses comes first, see checkpoints.GENERATOR.
            'average': {name: module.state_dict() for name, module in run.average.items()},
            'weights': {name: net.state_dict() for name in 'GED' if (net := getattr(run, name))},
            'optimizers': {'G': run.opt_G.state_dict()['state'],
                           'D': run.opt_D.state_dict()['state']}}


def read_run(folder, set_aside=False, which='newest', n_labels=None, generator_only=False):
    """Read and check the checkpoint of a run: (path, dict as of checkpoint_dict), with the
    configuration as a namespace. UserError where there is no whole checkpoint.
    folder: of a run, also of the official code. set_aside: see checkpoints.newest_checkpoint.
    which: 'newest' or 'best' checkpoint, or 'file' if `folder` is itself a checkpoint.
    n_labels: see official.infer_config. generator_only: see checkpoints.generator_part."""
    folder = path = Path(folder)
    is_official = (folder / 'latest_net_G.pth').is_file()
    if is_official:
        checkpoint = official.read_checkpoint(folder, n_labels)
    elif n_labels is not None:
        raise UserError(f'--n-labels {n_labels}: {folder} is no official run; leave it out')
    elif which == 'newest':
        path, checkpoint = checkpoints.newest_checkpoint(folder, set_aside, generator_only)
    else:
        path = folder / 'best.pt' if which == 'best' else folder
        if not path.exists():
            raise UserError(f'{path}: no such file; train --evaluate-every N keeps the best')
        checkpoint = checkpoints.read_checkpoint(path, generator_only)
    with as_user_error(path, 'not a checkpoint of this program'):
        stored = checkpoint['config']
        checkpoint['config'] = config = configuration.with_defaults(stored, stored['training'])
        configuration.check_config(config, path)
        if (config.layout not in layouts.LAYOUTS or type(checkpoint['step']) is not int
                or checkpoint['step'] < 0):
            raise ValueError('layout or step')
        networks = {'G', 'E'} if config.features else {'G'}
        averaged = not generator_only and config.training and config.training.ema > 0
        optional = {'D'} if is_official or generator_only or not config.training else set()
        for part, names in {'weights': {'D', *networks},
                            'average': networks if averaged else set()}.items():
            states = checkpoint[part]
            if set(states) | optional != names | optional or not all(
                    isinstance(value, torch.Tensor) and value.is_floating_point()
                    for state in states.values() for value in state.values()):
                raise ValueError(part)
            for name, state in states.items():      # where a sum is finite, all values are
                if not all(value.sum().isfinite() or value.isfinite().all()
                           for value in state.values()):
                    raise UserError(f'{path}: weights of {name} are not finite; if there is an '
                                    'earlier checkpoint, remove this one')
    return path, checkpoint


def require_discriminators(path, checkpoint):
    """Raise UserError if a run of this program cannot be trained, as the built-in one."""
    if not checkpoint['config'].training and not path.is_dir():
        raise UserError(f'{path}: holds only what makes pictures, no discriminators to train with; '
                        f'train --data DIR --from {path.parent} begins a new run with its weights')


def load_run(folder, device, training=True, set_aside=False, which='newest', average=True,
             n_labels=None, overrides=None):
    """Load a train.Run. overrides: {field: value} of the command line, for the configuration. The
    other arguments are those of read_run and run_from_checkpoint."""
    path, checkpoint = read_run(folder, set_aside, which, n_labels,
                                generator_only=average and not training)
    if training:
        require_discriminators(path, checkpoint)
        configuration.apply_resume_overrides(checkpoint['config'], overrides or {}, folder)
    return run_from_checkpoint(path, checkpoint, device, training, which, average)


def run_from_checkpoint(path, checkpoint, device, training=True, which='newest', average=True):
    """Make a train.Run of what read_run returned. UserError where weights do not fit the networks.
    training: restore what training needs, too. Otherwise G and E are the moving averages, or with
        average=False the weights themselves."""
    with as_user_error(path, 'not a checkpoint of this program'):
        weights, averages = checkpoint['weights'], checkpoint['average']
        if not training and average:
            weights = {**weights, **averages}
        run = build_run(checkpoint['config'], device, training, weights, averages)
        run.step = checkpoint['step']
        run.log.variant = ('-best' * (which == 'best')
                           + '-raw' * bool(averages and not average and not training))
        if not training or not run.config.training:
            run.precision = devices.usable_precision(run.precision, device)
            return run
        for name in 'GD':
            optimizer, moments = getattr(run, f'opt_{name}'), checkpoint['optimizers'][name]
            shapes = [parameter.shape for parameter in optimizer.param_groups[0]['params']]
            for i, values in moments.items():
                if {key: value.shape for key, value in values.items()} != {
                        'step': (), 'exp_avg': shapes[i], 'exp_avg_sq': shapes[i]}:
                    raise ValueError(f'moments of parameter {i} of {name}')
            moments = checkpoints.copy_tree(moments, device)
            optimizer.load_state_dict({**optimizer.state_dict(), 'state': moments})
        numbers = {**checkpoint['sums'], 'bad_steps': checkpoint['bad_steps']}
        if not all(isinstance(name, str) and isinstance(value, torch.Tensor) and value.shape == ()
                   and value.dtype == torch.float32 for name, value in numbers.items()):
            raise ValueError('sums or bad_steps')
        run.log.sums = checkpoints.copy_tree(numbers, device)
        run.bad_steps = run.log.sums.pop('bad_steps')
        if not 0 <= run.bad_steps < run.config.training.max_bad_steps:
            raise ValueError('bad_steps')
        for name, kind in {'rows': str, 'scores': str, 'best': float | None,
                           'won_since': int | None}.items():
            if not isinstance(checkpoint[name], kind):
                raise ValueError(name)
            setattr(run.log, name, checkpoint[name])
    return run
