"""What a run is: its configuration, its networks, its folder."""
from contextlib import suppress
from pathlib import Path
import re
import reprlib
from types import SimpleNamespace

import torch

import checkpoints
from files import UserError, blame, check_folder
import layouts
import losses
import nets
import official


def network_multiple(config):
    """The number that width and height of a picture must be multiples of."""
    enhancers = config.n_enhancers if config.model == 'local' else 0
    encoder = config.encoder_scale << config.n_down_encoder if config.features else 1
    return max(1 << config.n_down + enhancers, encoder)


def pick_device(name):
    """'auto', 'cpu' or 'cuda' -> torch.device, UserError where there is no such device."""
    if name == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: PyTorch finds no CUDA device here; leave the flag out to use the CPU')
    if name == 'cpu' or not torch.cuda.is_available():
        return torch.device('cpu')
    return torch.device('cuda')


def check_config(c, path=None):
    """UserError unless a run's configuration has all that the program asks of it, of the right types and within bounds.
    path: the file it comes from; None: the command line."""
    def whole(least, most):
        def fits(value):
            return type(value) is int and least <= value <= most
        fits.expected = f'expected a whole number from {least} to {most}'
        return fits

    def among(*values):
        return lambda value: type(value) in (str, bool) and value in values

    def each(fits, length=None):
        return lambda value: (isinstance(value, (list, tuple)) and (length is None or len(value) == length)
                              and all(map(fits, value)))

    def maybe(fits):
        return lambda value: value is None or fits(value)

    def text(value):
        return isinstance(value, str) and '\0' not in value

    def plain(value):
        return value is None or isinstance(value, (bool, int, float, str))

    flag, width, depth, count = among(True, False), whole(1, 4096), whole(1, 12), whole(0, 1 << 40)
    sides, label = maybe(each(whole(1, 1 << 15), 2)), whole(0, (c.n_labels or 1) - 1)
    fields = {
        'model': among('global', 'local'), 'ngf': width, 'n_down': depth, 'n_blocks': whole(0, 256),
        'n_enhancers': whole(0, 8), 'n_blocks_local': whole(0, 256), 'ndf': width, 'n_layers': depth, 'n_scales': depth,
        'features': flag, 'feat': whole(1, 256), 'nef': width, 'n_down_encoder': depth, 'encoder_scale': whole(1, 256),
        'n_labels': whole(0, 1 << 16), 'in_channels': width, 'out_channels': width,
        'layout': among(*layouts.LAYOUTS), 'split': lambda value: text(value) and re.fullmatch(r'[\w-]+', value),
        'label_names': maybe(each(text, c.n_labels)), 'instances': among('files', 'components', 'none'),
        'label_table': maybe(lambda table: isinstance(table, dict) and all(map(whole(0, 1 << 16), table))
                             and all(map(label, table.values()))),
        'palette': maybe(each(lambda row: len(row) == 5 and each(whole(0, 255))(row[:3]) and label(row[3]))),
        'data': maybe(text), 'left_out': each(text), 'pictures': each(count, 2), 'jpeg_labels': flag,
        'size': sides, 'crop': sides, 'jitter': lambda value: 1 <= value <= 2, 'flip': flag, 'cache': maybe(text),
        'batch': whole(1, 1 << 16), 'lr': lambda value: 0 < value < 1, 'gan': among('lsgan', 'vanilla'),
        'vgg': maybe(text), 'pool_size': whole(0, 1 << 16), 'bf16': flag, 'seed': whole(0, (1 << 32) - 1),
        'flags': lambda value: isinstance(value, dict) and all(plain(x) or each(plain, 2)(x) for x in value.values()),
        'steps': maybe(count), 'fix_global_steps': lambda value: count(value) and (not value or c.model == 'local'),
        **dict.fromkeys(('epochs', 'decay_epochs', 'total_steps', 'decay_start', 'workers'), count),
        **dict.fromkeys(('log_every', 'sample_every', 'save_every', 'keep', 'max_bad_steps'), whole(1, 1 << 40))}
    for name in vars(c).keys() - fields.keys():             # those of subcommands, of which nothing is made here
        fields[name] = plain
    for name, fits in fields.items():
        value = getattr(c, name, 'nothing')
        if not hasattr(c, name) or not fits(value):
            what = f'--{name.replace("_", "-")}' if name in c.flags else name
            raise UserError(f'{path}: not a checkpoint of this program ({reprlib.repr(value)} for {name})' if path else
                            f'{what} {value}: {getattr(fits, "expected", "not possible")}')


def build(config, device, training=True, weights=None):
    """A run's networks and optimizers -> SimpleNamespace(config, device, G, D, E, vgg, opt_G, opt_D, history, step,
    log, rows, won_since, bad_steps).

    weights: {'G': state dict, 'D': ..., 'E': ...}, loaded by strict names and shapes before there is memory for more
    than they hold; what is not in it is freshly initialised from config.seed. E is None without features, vgg without
    the perceptual loss; not for `training`, so are D, the optimizers and the history.
    """
    def network(name, constructor, *args):
        if name not in (weights or {}):
            return constructor(*args).to(device)
        with torch.device('meta'):                          # shapes without memory
            net = constructor(*args)
        net.load_state_dict(checkpoints.copied(weights[name], device), strict=True, assign=True)
        return net.float()

    torch.manual_seed(config.seed)
    c = config
    condition = (c.n_labels or c.in_channels) + (c.instances != 'none')
    inputs = condition + c.feat * c.features
    state = SimpleNamespace(config=c, device=device, step=0, log=None, rows='', won_since=None, D=None, E=None,
                            vgg=None, opt_G=None, opt_D=None, history=None, bad_steps=torch.zeros((), device=device))
    if c.model == 'global':
        state.G = network('G', nets.GlobalGenerator, inputs, c.out_channels, c.ngf, c.n_down, c.n_blocks)
    else:
        state.G = network('G', nets.LocalEnhancer, inputs, c.out_channels, c.ngf, c.n_down, c.n_blocks, c.n_enhancers,
                          c.n_blocks_local)
    if c.features:
        state.E = network('E', nets.Encoder, c.out_channels, c.feat, c.nef, c.n_down_encoder)
    if training:
        state.D = network('D', nets.MultiscaleDiscriminator, condition + c.out_channels, c.ndf, c.n_layers, c.n_scales)
        learning = [*state.G.parameters(), *(state.E.parameters() if c.features and c.encoder_scale == 1 else ())]
        adam = dict(lr=c.lr, betas=(0.5, 0.999), fused=True)
        state.opt_G, state.opt_D = torch.optim.Adam(learning, **adam), torch.optim.Adam(state.D.parameters(), **adam)
        state.history = losses.FakeHistory(c.pool_size)
        last = [module for module in state.G.modules() if isinstance(module, torch.nn.InstanceNorm2d)][-1]

        def note_range(module, inputs, output):             # without the graph, which would live on with it
            state.last_map = output.detach().aminmax()

        last.register_forward_hook(note_range)
    return state


def smallest_side(config):
    """The least width and height of a picture to train on."""
    return max(2 * network_multiple(config), 1 << config.n_scales)


def contents(state):
    """What a checkpoint holds: tensors and builtins only, all that is needed to use the networks and to go on
    training."""
    return {'config': vars(state.config), 'step': state.step, 'rows': state.rows, 'log': state.log,
            'won_since': state.won_since, 'bad_steps': state.bad_steps, 'history': state.history.pictures,
            'weights': {name: getattr(state, name).state_dict() for name in 'GDE' if getattr(state, name)},
            'optimizers': {name: getattr(state, f'opt_{name}').state_dict()['state'] for name in 'GD'}}


def read_run(run, set_aside=False):
    """The newest checkpoint of the run in folder `run`, or what is known of an official run -> path, contents as above.
    UserError where there is none."""
    if (Path(run) / 'latest_net_G.pth').is_file():
        import p2phd
        weights = official.read_weights(run)
        with blame(run, 'not the networks of an official pix2pixHD run'):
            config = {**settings(p2phd.parse(['train'])), **official.configuration(**weights)}
        path, checkpoint = Path(run), {'config': config, 'step': 0, 'weights': weights}
        optional = {'D'}
    else:
        path, checkpoint = checkpoints.newest(run, set_aside)
        optional = set()
    with blame(path, 'not a checkpoint of this program'):
        checkpoint['config'] = c = SimpleNamespace(**checkpoint['config'])
        check_config(c, path)
        weights = checkpoint['weights']
        if set(weights) | optional != {'G', 'D', *['E'] * c.features} or not all(
                isinstance(value, torch.Tensor) and value.is_floating_point()
                for state in weights.values() for value in state.values()):
            raise ValueError('weights')
        if type(checkpoint['step']) is not int or checkpoint['step'] < 0:
            raise ValueError(f'step {reprlib.repr(checkpoint["step"])}')
    return path, checkpoint


def load(run, device, training=True, set_aside=False):
    """The state of the run in folder `run`, as build returns it and as `contents` left it; or of an official run.
    UserError where there is none. set_aside: as in checkpoints.newest."""
    path, checkpoint = read_run(run, set_aside)
    with blame(path, 'not a checkpoint of this program'):
        state = build(checkpoint['config'], device, training, checkpoint['weights'])
        state.step = checkpoint['step']
        if training and state.config.total_steps:           # an official run has none
            restore(state, checkpoint)
    return state


def restore(state, checkpoint):
    """Put what only training needs where it was. ValueError, or whatever else comes of it, where it does not fit."""
    c = state.config
    for name in 'GD':
        optimizer, moments = getattr(state, f'opt_{name}'), checkpoint['optimizers'][name]
        parameters = optimizer.param_groups[0]['params']
        for i, values in moments.items():
            if {key: value.shape for key, value in values.items()} != {
                    'step': (), 'exp_avg': parameters[i].shape, 'exp_avg_sq': parameters[i].shape}:
                raise ValueError(f'moments of parameter {i} of {name}')
        optimizer.load_state_dict({**optimizer.state_dict(), 'state': checkpoints.copied(moments, state.device)})
    for label, *inst, fake in checkpoint['history']:
        if (len(label) != (1 if c.n_labels else c.in_channels) or len(inst) != (c.instances != 'none')
                or len(fake) != c.out_channels or fake.ndim != 3 or min(fake.shape[1:]) < smallest_side(c)
                or any(x.shape[1:] != fake.shape[1:] for x in (label, *inst))
                or c.n_labels and not 0 <= label.min() <= label.max() < c.n_labels):
            raise ValueError('the history of fakes')
    if len(checkpoint['history']) > c.pool_size:
        raise ValueError('the history of fakes')
    state.history.pictures = checkpoints.copied(checkpoint['history'], state.device)
    for name, shape in (('log', (8 + bool(c.vgg),)), ('bad_steps', ())):        # as tally and train_step make them
        value = checkpoint[name]
        if not (value is None and name == 'log' or value.dtype == torch.float32 and value.shape == shape):
            raise ValueError(name)
        setattr(state, name, checkpoints.copied(value, state.device))
    state.rows, state.won_since = checkpoint['rows'], checkpoint['won_since']
    if not isinstance(state.rows, str) or not 0 <= state.bad_steps < c.max_bad_steps or not (
            state.won_since is None or type(state.won_since) is int):
        raise ValueError('the log')


def newest_run():
    def saved(run):
        with suppress(FileNotFoundError):                   # a trainer may be replacing it
            return max((path.stat().st_mtime for path in checkpoints.numbered(run)), default=0)

    runs = {run: saved(run) or 0 for run in Path('runs').glob('*')}
    if not any(runs.values()):
        raise UserError('runs/: no trained run there; train one, or name one with --run')
    return max(runs, key=runs.get)


def settings(args):
    """The flags that belong into a run's configuration."""
    return {name: value for name, value in vars(args).items()
            if name not in ('command', 'given', 'device', 'run', 'resume')}


def check_sizes(c, sizes):
    """UserError where --size, --crop or the pictures themselves, sizes (width, height), do not suit the networks."""
    multiple, least = network_multiple(c), smallest_side(c)
    for flag, value in (('--size', c.size), ('--crop', c.crop)):
        if value and (flag == '--crop' or not c.crop):
            w, h = value
            if w % multiple or h % multiple or min(w, h) < least:
                fits = 'x'.join(str(max(-(-least // multiple), round(side / multiple)) * multiple) for side in value)
                raise UserError(f'{flag} {w}x{h}: these networks need multiples of {multiple}, at least {least}; '
                                f'{fits} fits')
    smallest = min(sizes, key=min)
    if min(smallest) < least:
        raise UserError(f'{c.data}: holds a picture of {smallest[0]}x{smallest[1]}, too small for these networks '
                        f'(at least {least}x{least}); leave it out')
    if c.crop and c.size and (c.crop[0] > c.size[0] or c.crop[1] > c.size[1]):
        raise UserError(f'--crop {c.crop[0]}x{c.crop[1]} is larger than --size {c.size[0]}x{c.size[1]}')
    if c.batch > 1 and not (c.size or c.crop) and len(sizes) > 1:
        raise UserError(f'--batch {c.batch}: the pictures of {c.data} differ in size; add --crop, '
                        'or --size instead of native')
    if not 1 <= c.jitter <= 2:
        raise UserError(f'--jitter {c.jitter}: a factor from 1 to 2')
    if c.cache is not None and not c.size:
        raise UserError('--cache keeps pictures of one size: say which with --size')
    if c.vgg and c.out_channels != 3:
        raise UserError(f'--vgg: VGG-19 looks at RGB, these pictures have {c.out_channels} channels')


def new_run(args, default):
    """The folder of a run to be made; UserError if it holds one already."""
    run = Path(args.run or Path('runs') / default)
    check_folder(run)
    check_new(run)
    return run


def check_new(run):
    """UserError if folder `run` holds a run."""
    if checkpoints.numbered(run):
        raise UserError(f'{run}: holds a trained run already; --resume {run} goes on with it, --run DIR makes another')
