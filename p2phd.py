"""pix2pixHD from label map to photograph.

    python p2phd.py demo                                             # the whole chain on built-in street scenes
    python p2phd.py train --data cityscapes/                         # G1 and the encoder at 1024x512
    python p2phd.py finetune --from runs/cityscapes                  # G2 around it at 2048x1024, then G3 at 4096x2048
    python p2phd.py cluster --run runs/cityscapes --data cityscapes/
    python p2phd.py generate --label map.png --sample

Read downwards: the parser, the networks of a run and their checkpoint, one training step, the training loop, then one
function for each subcommand.
"""
import argparse
from contextlib import suppress
import csv
from datetime import timedelta
import io
import json
import math
from pathlib import Path
import re
import reprlib
import shlex
import signal
import sys
import time
from types import SimpleNamespace
import zlib


# ---------------------------------------------------------------------------------------------- the command line

class Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f'{self.prog}: {message} (see {self.prog} --help)\n')


class ShowDefaults(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def size(text):
    """'1024x512' -> (1024, 512), width first."""
    w, h = (int(number) for number in text.lower().split('x'))
    if not 1 <= min(w, h) <= max(w, h) <= 1 << 15:
        raise ValueError
    return w, h


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def natural(text):
    if not 0 <= int(text) < 1 << 32:
        raise ValueError
    return int(text)


def rate(text):
    if not 0 < float(text) < 1:
        raise ValueError
    return float(text)


def size_or_native(text):
    return text if text == 'native' else size(text)


for function, name in ((size, 'WIDTHxHEIGHT'), (size_or_native, 'WIDTHxHEIGHT or native'),
                       (positive, 'positive whole number'), (natural, 'whole number'),
                       (rate, 'number between 0 and 1')):
    function.__name__ = name                                # what argparse says was expected


def make_parser():
    common = Parser(add_help=False)
    common.add_argument('--device', choices=['auto', 'cpu', 'cuda'], default='auto',
                        help='auto: CUDA where there is any')
    common.add_argument('--seed', type=natural, default=0, help='of every random draw')

    def training(inherit):
        """The flags of train; with `inherit`, most of them without a default, for finetune goes on as --from did."""
        default = (lambda value: None) if inherit else (lambda value: value)
        parent = Parser(add_help=False)
        add = parent.add_argument_group('data').add_argument
        add('--run', metavar='DIR', help='run folder to write (default: runs/<name of ' + (
            '--from>-<size>)' if inherit else 'the data folder>)'))
        add('--size', type=size_or_native, metavar='WxH',
            help='resize pictures to this; `native`: as they are (default: ' + (
                'twice the size of --from)' if inherit else
                'the most frequent size of the data set, at most 1024 wide)'))
        add('--crop', type=size, metavar='WxH', help='train on random sections of this size')
        add('--jitter', type=float, default=default(1.0), metavar='FACTOR', help='resize up by this factor, 1 to 2, '
            'and crop back at random')
        add('--flip', action=argparse.BooleanOptionalAction, default=default(True),
            help='mirror with a probability of one half')
        add('--cache', nargs='?', const='', metavar='DIR', help='keep decoded, resized pictures in memory-mapped files '
            '(DIR if not given: the run folder with -cache behind its name)')
        add('--workers', type=natural, default=default(4), help='processes that load data')
        add = parent.add_argument_group('schedule').add_argument
        add('--epochs', type=natural, default=100, help='epochs at the full learning rate')
        add('--decay-epochs', type=natural, default=100, help='further epochs in which it decays linearly to zero')
        add('--steps', type=positive, help='so many steps, whatever the epochs: half at the full rate, half decaying')
        add('--batch', type=positive, default=default(1), help='pictures per step')
        add('--lr', type=rate, default=default(2e-4), help='learning rate of Adam, betas (0.5, 0.999)')
        add = parent.add_argument_group('objective').add_argument
        add('--gan', choices=['lsgan', 'vanilla'], default=default('lsgan'), help='least squares or cross-entropy')
        add('--vgg', nargs='?', const='fetch', metavar='PATH', help='add the VGG-19 perceptual loss, from the weights '
            'that torchvision publishes; without PATH they are fetched')
        add('--pool-size', type=natural, default=default(0), help='past fakes that the discriminator is also shown')
        add = parent.add_argument_group('running').add_argument
        add('--bf16', action=argparse.BooleanOptionalAction, default=default(False),
            help='bfloat16 arithmetic in the networks: faster where the hardware has it')
        add('--log-every', type=positive, default=50, metavar='STEPS', help='a line and a row of log.csv')
        add('--sample-every', type=positive, default=500, metavar='STEPS', help='a picture: label | synthesised | real')
        add('--save-every', type=positive, default=1000, metavar='STEPS',
            help='a checkpoint; there is one at the end of an epoch, too')
        add('--keep', type=positive, default=2, metavar='N', help='the newest N checkpoints, older ones are deleted')
        add('--max-bad-steps', type=positive, default=20, metavar='N',
            help='steps whose loss or gradient is not finite are skipped; after N in a row the run stops')
        add('--resume', nargs='?', const='', metavar='RUN', help='go on with this run (default: the newest), with its '
            'own settings')
        return parent

    source = Parser(add_help=False)
    add = source.add_argument_group('data set').add_argument
    add('--data', metavar='DIR', help='Cityscapes, ADE20K, NYU Depth v2 or Helen as downloaded; or train_label/ '
        'train_img/ and perhaps train_inst/; or train_A/ train_B/')
    add('--split', default='train', help='which part of the data set')
    add('--instances', choices=['auto', 'components', 'none'], default='auto', help='auto: instance maps where there '
        'are any; components: the connected components of each label; none: no boundary map and no features')
    add('--palette', metavar='FILE', help='label maps are stored as colours: lines R,G,B,id[,name]')
    add('--n-labels', type=positive, metavar='N', help='how many, where the layout does not say and the training maps '
        'lack some (default: 1 + the largest)')
    add('--ignore-label', type=natural, metavar='ID', help='this id means unknown: it gets a channel of its own')
    add('--labels', type=int, choices=[40],
        help="NYU Depth v2: the usual 40 labels, by the data folder's classMapping40.mat")
    add('--jpeg-labels', action='store_true', help='accept label maps that JPEG has changed')
    add('--skip-bad', action='store_true', help='train: read everything first, and leave out what cannot be used')

    parser = Parser(prog='p2phd.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND', parser_class=Parser)

    def command(name, *parents, text):
        return commands.add_parser(name, parents=parents, help=text, description=text, formatter_class=ShowDefaults)

    command('check', source, common, text='read a data set through and report what it holds and what is wrong with it')

    sub = command('train', source, training(False), common,
                  text='train the generator, the discriminators and the encoder')
    add = sub.add_argument_group('networks').add_argument
    add('--model', choices=['global', 'local'], default='global',
        help='G1, or local enhancers around it from the start')
    add('--ngf', type=positive, help='channels of the (outermost) first layer (default: as many as give G1 64)')
    add('--n-down', type=positive, default=4, help='downsamplings of G1')
    add('--n-blocks', type=natural, default=9, help='residual blocks of G1')
    add('--n-enhancers', type=positive, default=1, help='local enhancers of --model local')
    add('--n-blocks-local', type=natural, default=3, help='residual blocks of each local enhancer')
    add('--ndf', type=positive, default=64, help='width of the discriminators')
    add('--n-layers', type=positive, default=3, help='strided layers of each discriminator')
    add('--n-scales', type=positive, default=3, help='discriminators')
    add('--features', action=argparse.BooleanOptionalAction,
        help='train the encoder along (default: if there are instances)')
    add('--feat', type=positive, default=3, help='features per instance')
    add('--nef', type=positive, default=16, help='width of the encoder')
    add('--n-down-encoder', type=positive, default=4, help='downsamplings of the encoder')

    sub = command('finetune', training(True), common, text='add a local enhancer at twice the size to a trained run. '
                  'Flags without a default stay as they were in --from.')
    sub.add_argument('--from', dest='base', metavar='RUN', help='the run whose networks to start from')
    sub.add_argument('--data', metavar='DIR', help='(default: the data of --from)')
    sub.add_argument('--fix-global', type=natural, default=10, metavar='EPOCHS',
                     help='epochs in which only the new enhancer learns')
    sub.add_argument('--n-blocks-local', type=natural,
                     help='residual blocks of the new enhancer (default: 3, or as in --from)')

    sub = command('cluster', common, text="cluster the training set's instance features into styles, label by label")
    sub.add_argument('--run', metavar='DIR', help='(default: the newest run in runs/)')
    sub.add_argument('--data', metavar='DIR', help='(default: the data of the run)')
    sub.add_argument('--k', type=positive, default=10, help='styles per label')
    sub.add_argument('--min-pixels', type=positive, default=1, help='leave out instances with fewer pixels')

    sub = command('generate', common, text='turn label maps into photographs')
    sub.add_argument('--label', nargs='+', required=True, metavar='PATH', help='label maps, or folders of them')
    sub.add_argument('--inst', nargs='+', metavar='PATH', help='their instance maps, or folders of them (default: the '
                     'connected components of each label)')
    sub.add_argument('--run', metavar='DIR', help='(default: the newest run in runs/)')
    sub.add_argument('--out', metavar='DIR', help='(default: <run>/generated)')
    sub.add_argument('--size', type=size, metavar='WxH',
                     help="resize the maps to this first (default: the maps' own size)")
    sub.add_argument('--sample', action='store_true', help="draw every instance's style at random (default: its "
                     "label's most frequent style)")
    sub.add_argument('--n', type=positive, default=1, help='pictures per label map, with --sample')
    sub.add_argument('--style', nargs='+', default=[], metavar='LABEL=K',
                     help='style K for all instances of LABEL (name or number)')
    sub.add_argument('--encode', nargs='+', metavar='PATH',
                     help='take the styles from these photographs of the same scenes')

    sub = command('demo', common,
                  text='train, finetune, cluster and generate on built-in street scenes, in a few minutes')
    sub.add_argument('--run', metavar='DIR', default='runs/demo',
                     help='folder for the scenes, the runs and the picture')
    return parser


def parse(words):
    """The command line as a namespace; `given` are the names in it of the flags that were written out."""
    args = make_parser().parse_args(words)
    flags = (word.split('=')[0].removeprefix('--').removeprefix('no-') for word in words if word.startswith('--'))
    args.given = {'base' if flag == 'from' else flag.replace('-', '_') for flag in flags}
    return args


# Parsed before torch is imported, so that --help answers at once.
ARGS = parse(sys.argv[1:]) if __name__ == '__main__' else None

import numpy as np                                          # noqa: E402
from PIL import Image, ImageDraw                            # noqa: E402
import torch                                                # noqa: E402

import checkpoints                                          # noqa: E402
import data                                                 # noqa: E402
from files import UserError, append, attempt, blame, brief, check_folder, lock, say, write_whole   # noqa: E402
import layouts                                              # noqa: E402
import losses                                               # noqa: E402
import nets                                                 # noqa: E402
import official                                             # noqa: E402
import styles                                               # noqa: E402
import survey                                               # noqa: E402
import synthesis                                            # noqa: E402

# MKL sets up its vector functions at the first call. Where two threads make that call, one of them may get coarser ones
# (errors of 4e-5): here it is one thread, and a run that is repeated is repeated to the bit.
torch.zeros(1).tanh()


# ------------------------------------------------------------------------------------- a run's networks and checkpoint

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
    return max(2 * styles.network_multiple(config), 1 << config.n_scales)


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
        weights = official.read_weights(run)
        with blame(run, 'not the networks of an official pix2pixHD run'):
            config = {**settings(parse(['train'])), **official.configuration(**weights)}
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


# ------------------------------------------------------------------------------------------------------- training

def learning_rate(step, config):
    """Constant, then linear to zero at the last step: a pure function of the step."""
    decaying = config.total_steps - config.decay_start
    return config.lr * (1 if step < config.decay_start else (config.total_steps - step) / decaying)


def train_step(state, label, inst, image):
    """One optimisation step: one forward, then G's (and E's) step and D's, which does not depend on it.

    label: (N, 1, H, W) integer, or (N, 3, H, W) uint8 where config.n_labels is 0; inst: (N, 1, H, W) integer or None;
    image: (N, 3, H, W) float in [-1, 1]. Returns {name: 0-dimensional tensor}, still on the device: the terms of the
    losses; `map_min` and `map_max`, the range of G's last feature map (before its ReLU: a peak that grows there becomes
    a bright blob); `skipped`, 1 where a loss or a gradient was not finite and nothing was learned, else 0.
    """
    c, G, D = state.config, state.G, state.D
    for optimizer in (state.opt_G, state.opt_D):
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(state.step, c)
    if c.fix_global_steps:
        for parameter in G.inner_parameters():
            parameter.requires_grad_(state.step >= c.fix_global_steps)

    with torch.autocast(state.device.type, torch.bfloat16, enabled=c.bf16):
        condition = data.condition(label, inst, c.n_labels)
        features = [styles.encode(state, image, inst)] if c.features else []
        fake = G(torch.cat([condition, *features], 1))
        fake_scores = D(torch.cat([condition, fake], 1))
        real_scores = D(torch.cat([condition, image], 1))
        # In [-1, 1] as they are: an official quirk, VGG-19 was trained on ImageNet's means.
        taps = [state.vgg(fake), state.vgg(image)] if state.vgg else []
        g_terms = losses.generator_loss(fake_scores, real_scores, c.n_layers, c.gan, *taps)
        if c.pool_size:
            *maps, old = state.history.query(
                [x for x in (label, inst, fake.nan_to_num()) if x is not None], f'{c.seed} {state.step}')
            shown = torch.cat([data.condition(maps[0], maps[1] if len(maps) > 1 else None, c.n_labels), old], 1)
            d_terms = losses.discriminator_loss(D(shown), real_scores, c.gan)
        else:
            # The official code runs D once more on a detached fake; the graph at hand gives D the same gradients.
            d_terms = losses.discriminator_loss(fake_scores, real_scores, c.gan)

    # `inputs` spares the gradients that nobody uses: of D's weights here, of the fake below. D's loss keeps its graph.
    learning = [p for group in state.opt_G.param_groups for p in group['params'] if p.requires_grad]
    state.opt_G.zero_grad()
    g_loss, d_loss = sum(g_terms.values()), sum(d_terms.values()) / 2
    g_loss.backward(inputs=learning, retain_graph=True)
    state.opt_D.zero_grad()
    d_loss.backward(inputs=list(D.parameters()))
    norm = torch.nn.utils.get_total_norm([p.grad for p in (*learning, *D.parameters())])
    skipped = (~torch.isfinite(g_loss.detach() + d_loss.detach() + norm)).float()
    state.bad_steps = torch.where((skipped > 0) | (state.bad_steps >= c.max_bad_steps), state.bad_steps + skipped, 0)
    for optimizer in (state.opt_G, state.opt_D):
        optimizer.found_inf = skipped                       # decided on the device: a fused step that changes nothing
        optimizer.step()
    state.step += 1
    low, high = (extreme.float() for extreme in state.last_map)
    return {**{name: term.detach() for name, term in {**g_terms, **d_terms}.items()},
            'map_min': low, 'map_max': high, 'skipped': skipped}


WON_STEPS = 1000                                            # a discriminator that is right so long has won


def prepare(state, run, pairs):
    """Load what a run trains with and is not in its checkpoint: VGG-19 into `state`, and the data.Pictures, which is
    returned. UserError where one of them is of no use."""
    c = state.config
    if c.vgg:
        state.vgg = load_vgg(c.vgg).to(state.device)
    cache = c.cache or run.with_name(f'{run.name}-cache') if c.cache is not None else None
    dataset = data.Pictures(pairs, layouts.readers(c), c.n_labels, c.size, c.crop, c.flip, c.jitter,
                            styles.network_multiple(c), c.instances, c.seed, cache)
    dataset[0, 0]
    return dataset


def fit(state, run, dataset):
    """The training loop, from state.step to the end, to Ctrl-C or SIGTERM, or to a UserError -> exit code. Writes the
    folder `run`, which the caller has locked."""
    c, started, pictures = state.config, state.step, len(dataset)
    torch.backends.cudnn.benchmark = bool(c.crop or c.size)  # pays where sizes stay the same from step to step
    for left in (*run.glob('*.partial'), *(run / 'samples').glob('*.partial')):   # by a trainer that was killed
        if re.fullmatch(r'(checkpoint-\d+\.pt|log\.csv|config\.json|\d+\.png)\.\d+\.partial', left.name):
            left.unlink()
    write_whole(run / 'config.json', lambda file: file.write(json.dumps(vars(c), indent=1).encode()))
    write_whole(run / 'log.csv', lambda file: file.write(state.rows.encode()))     # rows past the checkpoint go
    if not started:                                         # that it can be saved is known before days are spent on it
        checkpoints.write(run, contents(state), c.keep)

    stop = []
    handlers = {number: signal.signal(number, lambda number, frame: stop.append(number))
                for number in (signal.SIGINT, signal.SIGTERM)}
    batches = data.batches(dataset, c.workers, state.device,
                           batch_sampler=data.Order(pictures, c.batch, state.step, c.total_steps, c.seed))
    writer, due = checkpoints.Writer(run, c.keep), False
    before = SimpleNamespace(step=state.step, time=time.monotonic())
    try:
        for batch in batches:
            terms = train_step(state, *data.to_device(batch, state.device))
            state.log = tally(state.log, terms)

            last = state.step == c.total_steps
            row = last or state.step % c.log_every == 0
            epoch_ended = state.step * c.batch // pictures > (state.step - 1) * c.batch // pictures
            due |= state.step % c.save_every == 0 or epoch_ended and writer.rested
            save = last or stop or due and not writer.busy
            bad_steps = int(state.bad_steps) if row or save else 0                  # waits for the device
            if bad_steps >= c.max_bad_steps:
                raise UserError(
                    f'{run}: stopped at step {state.step}, for loss or gradient were not finite {bad_steps} times in a '
                    'row; its checkpoints are from before. If losses or map_max grew in log.csv, train anew with a '
                    'lower --lr; if not, without --bf16; and let check read the data')
            if row:
                report(state, run, terms, pictures, before)
            if last or state.step % c.sample_every == 0:
                attempt(lambda: save_sheet(state, dataset, run / 'samples' / f'{state.step:07d}.png'),
                        'training goes on')
            if last or stop:
                break
            if save and not bad_steps:                      # what is from before the trouble stays
                writer.save(contents(state))
                due = False
    except UserError:                                       # of a picture: the step before it is whole
        if started < state.step and int(state.bad_steps) < c.max_bad_steps:
            writer.wait()
            attempt(lambda: checkpoints.write(run, contents(state), c.keep), 'nothing later than the last one is kept')
        raise
    else:
        writer.wait()
        checkpoints.write(run, contents(state), c.keep)
    finally:
        batches.close()
        writer.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if state.step < c.total_steps:
        say(f'stopped at step {state.step} of {c.total_steps}, all saved; to go on: '
            f'python p2phd.py train --resume {run}')
        return 128 + stop[0]
    say(f'done: {checkpoints.numbered(run)[-1]}, pictures in {run / "samples"}')
    return 0


def tally(log, terms):
    """Add what train_step returned to what was tallied since the last report (None: nothing) -> float tensor: the sums
    of the losses, the number of steps, the number of those that were skipped, and the largest -map_min and map_max.
    A skipped step adds to the last number alone."""
    *sums, low, high, skipped = terms.values()
    sums = torch.where(skipped > 0, 0, torch.stack([*sums, torch.ones_like(skipped)]))
    sums = torch.cat([sums, skipped[None]])
    extremes = torch.where(skipped > 0, -math.inf, torch.stack([-low, high]))
    if log is not None:
        sums, extremes = log[:-2] + sums, torch.maximum(log[-2:], extremes)
    return torch.cat([sums, extremes])


def report(state, run, terms, pictures, before):
    """Add what was tallied to log.csv and say it: means of the losses, extremes of the last feature map. terms: of the
    last step, for their names. before: step and time of the last report."""
    c = state.config
    *sums, learned, skipped, low, high = state.log.tolist()
    means = {name: total / learned if learned else math.nan for name, total in zip(terms, sums)}
    state.log = None
    add_row(state, {**means, 'map_min': -low, 'map_max': high, 'skipped': skipped})
    attempt(lambda: append(run / 'log.csv', state.rows), 'training goes on')

    last_step, rate = before.step, (state.step - before.step) / (time.monotonic() - before.time)
    before.step, before.time = state.step, time.monotonic()
    say(f'step {state.step}/{c.total_steps}  epoch {state.step * c.batch / pictures:.1f}  '
        + '  '.join(f'{name} {value:.3f}' for name, value in means.items()) + f'  map {-low:.1f} to {high:.1f}'
        + (f'  skipped {skipped:.0f}' if skipped else '')
        + f'  {rate:.2f} steps/s  {timedelta(seconds=round((c.total_steps - state.step) / rate))} left')

    won = means['d_fake'] + means['d_real'] < 0.05 * losses.undecided(c.n_scales, c.gan)
    state.won_since = (state.won_since or state.step) if won else None
    if won and state.step - state.won_since >= WON_STEPS > last_step - state.won_since:
        say(f'warning: {run}: for {WON_STEPS} steps the discriminator has been right about nearly everything, and the '
            'generator learns little from it now; more data, a smaller --ndf or --pool-size 50 help', sys.stderr)


def add_row(state, means):
    """Append a line, and before the first one the names, to state.rows, the text of log.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    if not state.rows:
        writer.writerow(['step', 'pictures', 'lr', *means])
    rate = learning_rate(state.step - 1, state.config)
    writer.writerow([state.step, state.step * state.config.batch, f'{rate:.6g}',
                     *(f'{value:.6g}' for value in means.values())])
    state.rows += text.getvalue()


def load_vgg(source):
    """nets.VGG19 filled from a file, or from torchvision's site where `source` is 'fetch' (the hash is checked)."""
    try:
        state = (torch.hub.load_state_dict_from_url(
                     nets.VGG19.URL, map_location='cpu', check_hash=True, weights_only=True)
                 if source == 'fetch' else torch.load(source, map_location='cpu', weights_only=True))
        return nets.VGG19(state)
    except Exception as error:
        raise UserError(f'--vgg {source}: {brief(error)}; give the path of {nets.VGG19.URL.split("/")[-1]} as '
                        'torchvision publishes it') from None


@torch.inference_mode()
def save_sheet(state, dataset, path):
    """Write what the first two training pictures look like now: label | synthesised | real."""
    strips = []
    for index in range(min(2, len(dataset))):
        batch = {role: tensor[None] for role, tensor in dataset[0, index].items()}
        label, inst, image = data.to_device(batch, state.device)
        features = [styles.encode(state, image, inst)] if state.E else []
        with torch.autocast(state.device.type, torch.bfloat16, enabled=state.config.bf16):
            fake = state.G(torch.cat([data.condition(label, inst, state.config.n_labels), *features], 1))
        shown = [synthesis.show_label(state.config, batch['label'][0]),
                 *(synthesis.as_rgb(synthesis.to_picture(x)) for x in (fake, image))]
        strips.append(np.concatenate(shown, 1))
    width = max(strip.shape[1] for strip in strips)
    path.parent.mkdir(exist_ok=True)
    sheet = Image.fromarray(np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0))) for s in strips]))
    write_whole(path, lambda file: sheet.save(file, 'PNG'))


# ---------------------------------------------------------------------------------------------------- subcommands

def settings(args):
    """The flags that belong into a run's configuration."""
    return {name: value for name, value in vars(args).items()
            if name not in ('command', 'given', 'device', 'run', 'resume')}


def schedule(c, n):
    """Turn epochs of `n` pictures into the steps that learning rate and unfreezing are functions of."""
    steps = lambda epochs: -(-epochs * n // c.batch)
    c.total_steps, c.decay_start = (
        (c.steps, c.steps // 2) if c.steps else (steps(c.epochs + c.decay_epochs), steps(c.epochs)))
    c.fix_global_steps = steps(getattr(c, 'fix_global', 0))
    if not c.total_steps:
        raise UserError('--epochs 0 --decay-epochs 0: nothing to train')


def check_sizes(c, sizes):
    """UserError where --size, --crop or the pictures themselves, sizes (width, height), do not suit the networks."""
    multiple, least = styles.network_multiple(c), smallest_side(c)
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


# What leaves the result as it is, or lengthens the run, or says where the data set is now.
MAY_CHANGE = ('epochs', 'decay_epochs', 'steps', 'workers', 'cache', 'save_every', 'keep', 'max_bad_steps', 'data')


def resume(args):
    """Go on with a run as it was configured."""
    run = args.resume or args.run or args.data and Path('runs') / Path(args.data).resolve().name or newest_run()
    run, device = Path(run), pick_device(args.device)
    if args.resume and args.run and Path(args.run).resolve() != run.resolve():
        raise UserError(f'--run {args.run}: --resume {run} goes on in its own folder; leave --run out')
    if not checkpoints.numbered(run):
        read_run(run)                                       # says what is wrong with it
        raise UserError(f'{run}: a run of the official code cannot be resumed; finetune --from starts from it')
    with lock(run):
        state = load(run, device, set_aside=True)
        c = state.config
        for name in sorted(args.given - {'resume', 'run', 'device'}):
            value, was = (tuple(x) if isinstance(x, list) else x for x in (
                vars(args)[name], c.flags.get(name) or getattr(c, name, None)))
            if name in MAY_CHANGE:
                setattr(c, name, str(Path(value).resolve()) if name == 'data' else value)
            elif value != was:
                flag = 'from' if name == 'base' else name.replace('_', '-')
                value, was = ('x'.join(map(str, x)) if isinstance(x, tuple) else x for x in (value, was))
                started = 'without it' if was is None else f'with {was}'
                raise UserError(f'--{flag} {value}: {run} was started {started}, and that cannot change now')
        if c.cache and 'cache' not in args.given and not (Path(c.cache) / 'index.json').is_file():
            # A stranger's file does not choose the folder that is written to.
            say(f'note: {c.cache} holds no cache; one is made beside {run}, or where --cache DIR says', sys.stderr)
            c.cache = ''
        if args.given & {'epochs', 'decay_epochs'} and 'steps' not in args.given:
            c.steps = None
        if not c.data:
            raise UserError(f'{run}: does not say what it was trained on; name it with --data DIR')
        pairs, sizes = survey.known_pairs(c)
        check_sizes(c, set(sizes))
        if list(c.pictures) != survey.fingerprint(pairs):
            raise UserError(f'{c.data}: holds {len(pairs)} pictures, and {run} was started with {c.pictures[0]}, or '
                            'with others; put back what was there, or start another run')
        schedule(c, len(pairs))
        check_config(c)
        if state.step >= c.total_steps:
            say(f'{run}: trained to the end, {state.step} steps; --epochs or --steps makes it longer')
            return 0
        say(f'{run}: going on at step {state.step} of {c.total_steps}')
        return fit(state, run, prepare(state, run, pairs))


def train(args):
    if args.resume is not None:
        return resume(args)
    found = survey.survey(args, thorough=args.skip_bad)
    run = new_run(args, Path(args.data).resolve().name)
    device = pick_device(args.device)
    if found.problems and not args.skip_bad or not found.pairs:
        raise UserError(next(iter(found.problems.values())) + (
            f' (and {len(found.problems) - 1} more like it; check lists them)' if len(found.problems) > 1 else '')
            + ('; --skip-bad trains on the rest' if found.pairs else ''))
    for problem in found.problems.values():
        say(f'left out: {problem}')
    c = SimpleNamespace(**settings(args), flags=settings(args))
    for name in ('layout', 'n_labels', 'label_names', 'label_table', 'palette', 'in_channels', 'out_channels',
                 'instances'):
        setattr(c, name, getattr(found, name))
    c.data, c.left_out = str(Path(args.data).resolve()), sorted(found.problems)
    if c.features is None:
        c.features = c.instances != 'none'
    if c.features and c.instances == 'none':
        raise UserError(f'--features: {args.data} has no instance maps; '
                        '--instances components makes them from the labels')
    if c.instances == 'components' and not c.n_labels:
        raise UserError(f'--instances components: {args.data} holds pictures, not label maps')
    if c.model == 'global':
        c.n_enhancers = 0
    c.ngf = c.ngf or max(1, 64 >> c.n_enhancers)
    c.encoder_scale = 1
    if c.size is None:
        frequent, multiple = found.sizes.most_common(1)[0][0], styles.network_multiple(c)
        shrink = min(1, 1024 / frequent[0])
        c.size = tuple(max(-(-smallest_side(c) // multiple), round(side * shrink / multiple)) * multiple
                       for side in frequent)
    elif c.size == 'native':
        c.size = None
    check_sizes(c, found.sizes)
    c.pictures = survey.fingerprint(found.pairs)
    schedule(c, len(found.pairs))
    say(survey.in_words(found, 'training') + (', encoder trained along' if c.features else ''))
    check_config(c)
    return start(build(c, device), run, found.pairs)


def start(state, run, pairs):
    """Say what is about to be trained, and train."""
    c = state.config
    dataset = prepare(state, run, pairs)                    # what does not fit is found before anything is written
    weights = ', '.join(f'{name} {sum(p.numel() for p in getattr(state, name).parameters()) / 1e6:.1f}M'
                        for name in 'GDE' if getattr(state, name))
    run.mkdir(parents=True, exist_ok=True)
    with lock(run):
        check_new(run)                                      # by now another process may have trained into it
        say(f'{run}: {"native size" if c.size is None else "%dx%d" % tuple(c.size)}, {c.total_steps} steps of '
            f'{c.batch} on {state.device}, weights {weights}')
        return fit(state, run, dataset)


def finetune(args):
    if args.resume is not None:
        return resume(args)
    if not args.base:
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
    device = pick_device(args.device)
    path, base = read_run(args.base)
    b, flags = base['config'], settings(args)
    if not (args.data or b.data):
        raise UserError(f'{args.base}: does not say what it was trained on; name it with --data DIR')
    # Schedule, size and crop are this stage's own; whatever else is not given stays as it was.
    own = ('epochs', 'decay_epochs', 'steps', 'size', 'crop', 'cache')
    c = SimpleNamespace(**{**vars(b), **{name: value for name, value in flags.items()
                                         if value is not None or name in own}})
    c.flags, c.data = flags, str(Path(args.data or b.data).resolve())
    c.model, c.n_enhancers, c.ngf, c.encoder_scale = 'local', b.n_enhancers + 1, b.ngf // 2, 2 * b.encoder_scale
    if b.ngf % 2:
        raise UserError(f'{args.base}: --ngf {b.ngf} is odd; the enhancer around it has half as many channels')
    if b.model == 'local' and c.n_blocks_local != b.n_blocks_local:
        raise UserError(f'--n-blocks-local {c.n_blocks_local}: {args.base} has {b.n_blocks_local}, '
                        'and all its enhancers are alike')
    if c.size is None:
        if not b.size:
            raise UserError(f'{args.base} was trained at native size; say with --size WxH (or native) '
                            'what to finetune at')
        c.size = tuple(2 * side for side in b.size)
    elif c.size == 'native':
        c.size = None
    pairs, sizes = survey.known_pairs(c)
    check_sizes(c, set(sizes))
    name = re.sub(r'-(\d+x\d+|native)$', '', Path(args.base).resolve().name)
    run = new_run(args, f'{name}-{"%dx%d" % tuple(c.size) if c.size else "native"}')
    c.pictures = survey.fingerprint(pairs)
    schedule(c, len(pairs))
    check_config(c)
    state = build(c, device)
    with blame(path, 'not a checkpoint of this program'):
        state.G.load_inner(base['weights']['G'])
        for name in 'DE':
            if name in base['weights']:                     # the official code may leave D out
                getattr(state, name).load_state_dict(base['weights'][name])
    if c.fix_global_steps < c.total_steps:
        say(f'{args.base}: enhancer {c.n_enhancers} around it; '
              f'the rest learns along from step {c.fix_global_steps} on')
    else:
        say(f'warning: --fix-global {c.fix_global} is {c.fix_global_steps} steps, all of this run: '
              'only the new enhancer will learn', file=sys.stderr)
    del base
    return start(state, run, pairs)


def cluster(args):
    run = Path(args.run) if args.run else newest_run()
    state = load(run, pick_device(args.device), training=False)
    if not state.E:
        raise UserError(f'{run}: trained without --features, there are no styles to cluster')
    if not (args.data or state.config.data):
        raise UserError(f'{run}: does not say what it was trained on; name it with --data DIR')
    styles.save(styles.make(state, run, args.data or state.config.data, args.k, args.min_pixels, args.seed), run)
    say(run / 'styles.npz')
    return 0


@torch.inference_mode()
def generate(args):
    run = Path(args.run) if args.run else newest_run()
    state = load(run, pick_device(args.device), training=False)
    c = state.config
    if (args.sample or args.style or args.encode) and not state.E:
        raise UserError(f'{run}: trained without --features, so it has one style only; '
                        'leave out --sample, --style and --encode')
    if args.inst and c.instances == 'none':
        raise UserError(f'--inst: {run} was trained without instances; leave it out')
    if args.sample and args.encode:
        raise UserError('--sample and --encode: the styles are either drawn or taken from photographs')
    if args.n > 1 and not args.sample:
        raise UserError(f'--n {args.n}: the pictures would all be the same; add --sample')
    labels = layouts.files_by_name(args.label, '_labelIds', c.layout)
    insts = layouts.partners(args.inst, '_instanceIds', c.layout, labels) if args.inst else {}
    photos = layouts.partners(args.encode, '_leftImg8bit', c.layout, labels) if args.encode else {}
    out = Path(args.out) if args.out else run / 'generated'
    for path in map(Path, args.label):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f'--out {out} lies in {path}: its pictures would be taken for label maps next time; '
                            'choose another')
    known = styles.read(state, run) if state.E else None
    fixed = styles.fixed(args.style, known) if state.E else {}
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    unknown = set()
    for name, path in labels.items():
        label, inst = synthesis.read_scene(c, path, insts.get(name), args.size)
        h, w = label.shape[-2:]
        if path == next(iter(labels.values())) and c.size and not 0.7 < (w * h / (c.size[0] * c.size[1])) ** 0.5 < 1.5:
            say(f'note: {path} is {w}x{h} and {run} learned at {c.size[0]}x{c.size[1]}; '
                  f'--size {c.size[0]}x{c.size[1]} would suit it better', file=sys.stderr)
        if not state.E:
            synthesis.write_picture(out / f'{name}_generated.png', synthesis.synthesise(state, label, inst, None))
            continue
        slot, instance_labels, _ = data.describe_instances(label, inst, c.n_labels)
        if not photos:
            unknown.update(i for i in instance_labels.unique().tolist() if not known['counts'][i].any())
        for i in range(args.n):
            # The draws depend on the map's name, not on what other maps are there.
            draw = np.random.SeedSequence((args.seed, zlib.crc32(name.encode()), i)).generate_state(1)[0]
            vectors = (styles.encode_photo(state, photos[name], inst, slot) if photos else styles.choose(
                instance_labels, known, torch.Generator().manual_seed(int(draw)) if args.sample else None))
            for which, k in fixed.items():
                vectors[instance_labels == which] = torch.from_numpy(known['centres'][which, k])
            ending = f'seed{args.seed}_{i + 1}' if args.sample else 'encoded' if photos else 'generated'
            synthesis.write_picture(out / f'{name}_{ending}.png',
                          synthesis.synthesise(state, label, inst, styles.paint(vectors, slot)))
    if unknown:
        names = ', '.join(c.label_names[i] if c.label_names else str(i) for i in sorted(unknown))
        say(f'warning: no styles for {names}, which the training data lacks; the mean of all features stood in',
              file=sys.stderr)
    return 0


def demo(args):
    """The subcommands one after the other, as a user would type them, and one picture of what came of it."""
    import toy
    run = Path(args.run)
    scenes, fine = run / 'scenes', run.with_name(f'{run.name}-256x128')
    for folder in (run, fine):
        if folder.exists():
            raise UserError(f'{folder}: there already; --run DIR puts another demo elsewhere')
    say(f'drawing street scenes into {scenes}')
    toy.write(scenes, 'train', 80, (256, 128), seed=args.seed)
    toy.write(scenes, 'val', 1, (256, 128), seed=args.seed + 1)
    scene = 'toy_0000'
    label, inst = (scenes / 'gtFine' / 'val' / 'toy' / f'{scene}_gtFine_{kind}Ids.png'
                   for kind in ('label', 'instance'))
    both = f'--seed {args.seed} --device {args.device}'
    scenes_, run_, fine_, label_, inst_ = (shlex.quote(str(path)) for path in (scenes, run, fine, label, inst))
    maps = f'--run {fine_} --label {label_} --inst {inst_} {both}'
    for words in (f'train --data {scenes_} --run {run_} --size 128x64 --steps 1200 --ngf 24 --n-down 3 --n-blocks 3 '
                  f'--ndf 24 --n-scales 2 --n-down-encoder 3 --lr 5e-4 --log-every 100 {both}',
                  f'finetune --from {run_} --run {fine_} --steps 550 --fix-global 1 --lr 5e-4 --log-every 100 {both}',
                  f'cluster --run {fine_} --data {scenes_} --k 5 {both}',
                  f'generate {maps}', f'generate {maps} --sample --n 4'):
        say(f'\n$ python p2phd.py {words}')
        code = main(parse(shlex.split(words)))
        if code:
            return code

    state = load(fine, torch.device('cpu'), training=False)
    made = fine / 'generated'
    pictures = {'label map': Image.fromarray(synthesis.show_label(state.config, data.to_tensor(data.read_map(label)))),
                'synthesised': Image.open(made / f'{scene}_generated.png'),
                'real': Image.open(scenes / 'leftImg8bit' / 'val' / 'toy' / f'{scene}_leftImg8bit.png')}
    pictures |= {f'sample {i}': Image.open(made / f'{scene}_seed{args.seed}_{i}.png') for i in range(1, 5)}
    w, h, caption = 256, 128, 14
    sheet = Image.new('RGB', (4 * w, 2 * (h + caption)), 'white')
    for i, (title, picture) in enumerate(pictures.items()):
        row, column = (0, i) if i < 3 else (1, i - 3)
        ImageDraw.Draw(sheet).text((column * w + 4, row * (h + caption) + 1), title, 'black')
        sheet.paste(picture, (column * w, row * (h + caption) + caption))
    sheet.save(run / 'demo.png')
    say(f'\nlabel map, synthesised and real picture, and four samples of the same map:\n{run / "demo.png"}')
    return 0


def main(args):
    """Run a subcommand; what the user can mend is one line on stderr, and exit code 2."""
    try:
        return COMMANDS[args.command](args)
    except (UserError, OSError) as error:
        say(f'p2phd {args.command}: {error}', file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if 'DataLoader worker' in str(error):
            say(f'p2phd {args.command}: a process that loads pictures has died, perhaps of too little (shared) memory; '
                'train --resume RUN --workers 0 loads them in the trainer', sys.stderr)
            return 2
        # On the CPU, PyTorch raises a RuntimeError for want of memory.
        if not (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)):
            raise
        say(f'p2phd {args.command}: the device has not enough memory; try --bf16, --crop, a smaller --size, or fewer '
              'channels', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        say(f'p2phd {args.command}: interrupted', file=sys.stderr)
        return 130


COMMANDS = {'check': survey.check, 'train': train, 'finetune': finetune, 'cluster': cluster, 'generate': generate,
            'demo': demo}

if __name__ == '__main__':
    sys.exit(main(ARGS))
