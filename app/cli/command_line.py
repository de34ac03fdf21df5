"""The command line: one parser for all subcommands. Types, bounds, defaults and help of the fields
of a configuration are in config.py.
"""
import argparse
import re
import sys
from types import SimpleNamespace

from app.common import config as configuration
from app.common.config import (DATA, FILE, FLAG, FOLDER, HOURS, REQUIRED, NETWORK, POSITIVE, PRESETS, SIZE,
                    STYLES, TRAINING)
from app.common.console import log_info
from app.common.errors import UserError, did_you_mean
from app.common.files import resolve_path


class Parser(argparse.ArgumentParser):
    """Errors in one line, with what may have been meant."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice:
            message += did_you_mean(choice[1], re.findall(r"[\w-]+", choice[2]))
        self.exit(2, f'{self.prog}: {" ".join(message.split())} (see {self.prog} --help)\n')


VERSION = '1.0.0'
PYTHON, TORCH = (3, 11), (2, 6)                     # older ones lack what is used here


def add_fields(parser, title, fields, names, stay=(), **texts):
    """Flags for the fields `names` of a configuration, whose types, defaults and help are in
    config.py. Only those that are given get into the namespace.

    stay: fields whose default is another run's. texts: other help than there.
    """
    group = parser.add_argument_group(title)
    for name in names.split():
        bound, default, text = fields[name]
        bound = configuration.ON_THE_LINE.get(name, bound)
        text = texts.get(name, text)
        if default not in (None, False, REQUIRED) and name not in stay and 'default' not in text:
            text += ' (default: yes)' if default is True else f' (default: {default})'
        kind = {'type': bound, 'metavar': bound.metavar}
        if bound is FLAG:
            kind = {'action': argparse.BooleanOptionalAction}
        elif bound.choices:
            kind = {'choices': bound.choices}
        if name in ('cache', 'vgg'):                        # their path may be left out
            kind |= {'nargs': '?', 'const': {'cache': '', 'vgg': 'fetch'}[name]}
        group.add_argument(configuration.flag_name(name), default=argparse.SUPPRESS, help=text, **kind)
    return group


def add_training(parser, run, size, own=None):
    """The flags that train and finetune share. run, size: what those are by default. own: the
    fields whose default is not that of finetune's --from; None: all."""
    stay = [] if own is None else set(TRAINING) - set(own.split())
    group = parser.add_argument_group('run')
    group.add_argument('--run', type=FOLDER, metavar='DIR',
                       help=f'folder to write (default: runs/{run})')
    group.add_argument('--resume', nargs='?', const='', metavar='RUN',
                       help='go on with this run (default: the newest), with its own settings')

    group.add_argument('--preset', choices=PRESETS, help='settings for a purpose, over which '
                       'single flags win. ' + '. '.join(
                           f'{name}: {preset.text}' for name, preset in PRESETS.items()))
    group.add_argument('--dry-run', action='store_true',
                       help='say what would be trained, what memory and time it takes, and end')
    group.add_argument('--hours', type=HOURS, metavar='H',
                       help='as many steps as fit into this time, in place of --epochs or --steps')
    group.add_argument('--tensorboard', action='store_true',
                       help='events for TensorBoard in the run folder (needs pip install '
                            'tensorboard)')

    add_fields(parser, 'pictures', {**TRAINING, 'size': NETWORK['size']},
               'size crop jitter flip hold_out cache workers', stay,
               size=f'resize pictures to this; `native`: as they are (default: {size})')
    add_fields(parser, 'schedule', TRAINING, 'epochs decay_epochs steps batch accumulate lr ema',
               stay)
    group = add_fields(parser, 'objective', TRAINING,
                       'gan lambda_feature vgg lambda_vgg lambda_l1', stay)
    group.add_argument('--no-vgg', dest='vgg', action='store_const', const=None,
                        default=argparse.SUPPRESS, help='without the perceptual loss')
    add_fields(parser, 'running', TRAINING,
               'precision compile recompute seed log_every sample_every evaluate_every save_every '
               'keep max_bad_steps', stay)


def add_data(parser):
    add_fields(parser, 'data set', DATA,
               'data split instances palette n_labels ignore_label jpeg_labels skip_bad')


def make_parser(description):
    parser = Parser(prog='p2phd.py', description=description,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=f'p2phd {VERSION}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND',
                                     parser_class=Parser)

    def command(name, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument('--device', choices=['auto', 'cpu', 'cuda'], default='auto',
                         help='auto: CUDA where there is any (default: auto)')
        sub.add_argument('-q', '--quiet', action='store_true', help='say warnings only')
        return sub

    def folder(sub, flag, text, **more):
        sub.add_argument(flag, type=FOLDER, metavar='DIR', help=text, **more)

    def official(sub):
        sub.add_argument('--n-labels', dest='official_labels', type=configuration.whole(0, 1 << 16),
                         metavar='N', help='labels of a run of the official code (0: pictures in '
                         'place of labels), where neither the run nor its opt.txt tells')

    def trained(sub):
        official(sub)
        sub.add_argument('--checkpoint', choices=['newest', 'best'], default='newest',
                         help='best: of those that train --evaluate-every scored (default: newest)')
        sub.add_argument('--average', action=argparse.BooleanOptionalAction, default=True,
                         help='with the moving average of the weights, where there is one '
                              '(default: yes)')

    sub = command('check', 'read a data set through and report what it holds and what is wrong '
                           'with it')
    add_data(sub)

    sub = command('train', 'train the generator, the discriminators and the encoder')
    add_data(sub)
    add_training(sub, '<name of the data folder>',
                 'the most frequent size of the data set, at most 1024 wide')
    add_fields(sub, 'networks', NETWORK,
               'model ngf n_down n_blocks n_enhancers n_blocks_local up ndf n_layers n_scales '
               'spectral_norm boundary features features_of feat nef n_down_encoder')

    sub = command('finetune', 'add a local enhancer at twice the size to a trained run. Flags '
                              'without a default stay as they were in --from, but for --crop, '
                              '--cache, --steps and --evaluate-every.')
    folder(sub, '--from', 'the run whose networks to start from', dest='base',
           default=argparse.SUPPRESS)
    folder(sub, '--data', '(default: the data of --from)', default=argparse.SUPPRESS)
    official(sub)
    add_training(sub, '<name of --from>-<size>', 'twice the size of --from',
                 'epochs decay_epochs log_every sample_every save_every keep max_bad_steps')
    add_fields(sub, 'enhancer', {**TRAINING, **NETWORK}, 'fix_global n_blocks_local',
               n_blocks_local='residual blocks of the new enhancer (default: 3, or as in --from)')

    sub = command('cluster', "cluster the training set's instance features into styles, label by "
                             'label')
    folder(sub, '--run', '(default: the newest run in runs/)')
    folder(sub, '--data', '(default: the data of the run)')
    trained(sub)
    sub.add_argument('--k', type=configuration.whole(1, 1000), default=STYLES, metavar='N',
                     help=f'styles per label (default: {STYLES})')
    sub.add_argument('--min-pixels', type=POSITIVE, default=1, metavar='N',
                     help='leave out instances with fewer pixels (default: 1)')
    add_fields(sub, 'running', TRAINING, 'seed')

    sub = command('generate', 'turn label maps into photographs')
    more = {'nargs': '+', 'action': 'extend', 'metavar': 'PATH', 'type': FILE}
    sub.add_argument('--label', required=True, help='label maps, or folders of them', **more)
    sub.add_argument('--inst', help='their instance maps, or folders of them (default: the '
                                    'connected components of each label)', **more)
    folder(sub, '--run', '(default: the newest run in runs/)')
    folder(sub, '--out', '(default: <run>/generated)')
    trained(sub)
    sub.add_argument('--size', type=SIZE, metavar='WxH',
                     help="resize the maps to this first (default: the maps' own size)")
    sub.add_argument('--sample', action='store_true', help="draw every instance's style at random "
                     "(default: its label's most frequent style)")
    sub.add_argument('--n', type=configuration.whole(1, 10 ** 6), default=1, metavar='N',
                     help='pictures per label map, with --sample (default: 1)')
    sub.add_argument('--style', **{**more, 'type': str, 'metavar': 'LABEL=K'}, default=[],
                     help='style K for all instances of LABEL (name or number)')
    sub.add_argument('--encode', help='take the styles from these photographs of the same scenes',
                     **more)
    sub.add_argument('--styles', type=FILE, metavar='PATH',
                     help='the styles of the scene, as edit saved them')
    add_fields(sub, 'running', TRAINING, 'precision compile seed',
               precision='arithmetic of the networks (default: as trained)')

    sub = command('edit', 'change a scene object by object: its styles, labels and shapes, on a '
                          'page in the browser or by a script')
    one = {'type': FILE, 'metavar': 'PATH'}
    sub.add_argument('--label', required=True, help='the label map', **one)
    sub.add_argument('--inst', help='its instance map (default: the connected components of each '
                                    'label)', **one)
    sub.add_argument('--styles', help='its styles, as saved here (default: the main ones)', **one)
    sub.add_argument('--photo', help='a photograph of it, whose styles to begin with', **one)
    folder(sub, '--run', '(default: the newest run in runs/)')
    folder(sub, '--out', 'for what is saved (default: <run>/edited)')
    trained(sub)
    sub.add_argument('--size', type=SIZE, metavar='WxH',
                     help="resize the maps to this first (default: the maps' own size)")
    sub.add_argument('--script', help='apply the edits in this JSON file, and open no page', **one)
    sub.add_argument('--last', action='store_true',
                     help='with --script, a picture of the result alone, not of every edit')
    sub.add_argument('--host', default='127.0.0.1',
                     help='address to serve the page at (default: 127.0.0.1, which this machine '
                          'alone reaches)')
    sub.add_argument('--port', type=configuration.whole(0, 65535), default=0, metavar='N',
                     help='port to serve it at (default: one that is free)')
    sub.add_argument('--browser', action=argparse.BooleanOptionalAction, default=True,
                     help='open the page in the browser (default: yes)')
    add_fields(sub, 'running', TRAINING, 'precision seed',
               precision='arithmetic of the networks (default: as trained)')

    sub = command('evaluate', 'score runs side by side on pictures that they were not trained on')
    sub.add_argument('--run', help='(default: the newest run in runs/)',
                     **{**more, 'metavar': 'DIR'})
    folder(sub, '--data', '(default: the data of the first run)')
    sub.add_argument('--split', type=configuration.NAME, metavar='NAME',
                     help='part of the data set (default: val, or what --hold-out left out: held)')
    trained(sub)
    sub.add_argument('--styles', choices=['main', 'sampled', 'encoded'], default='main',
                     help="of the instances: their label's most frequent, drawn at random, or "
                          'those of the photograph (default: main)')
    sub.add_argument('--size', type=SIZE, metavar='WxH',
                     help='to compare pictures at (default: the smallest that a run learned)')
    sub.add_argument('--void', nargs='+', action='extend', metavar='LABEL',
                     help='labels (names or numbers) that do not count, or none (default: as the '
                          'data set has it, and --ignore-label)')
    sub.add_argument('--judge', type=FILE, metavar='FILE',
                     help='segmentation network that recognises the pictures; trained and kept '
                          'there if need be (default: one beside the run)')
    folder(sub, '--predictions', 'label maps that another network predicted for what --write '
                                 'wrote, under the same names')
    folder(sub, '--write', 'write the pictures, real/ and fake/, paired by name')
    folder(sub, '--out', 'for scores.json and sheet.png (default: <first run>/evaluation)')
    sub.add_argument('--vgg', nargs='?', const='fetch', metavar='PATH',
                     help='diversity over the features of VGG-19 as well, see train --vgg')
    add_fields(sub, 'running', TRAINING, 'seed')

    sub = command('demo', 'train, finetune, cluster and generate on built-in street scenes, in a '
                          'few minutes')
    folder(sub, '--run', 'for the scenes, the runs and the picture (default: runs/demo)',
           default='runs/demo')
    add_fields(sub, 'running', TRAINING, 'seed')

    sub = command('info', 'say what a run is: what it was trained on, how far, its styles, scores '
                          'and checkpoints')
    sub.add_argument('run', nargs='?', type=FOLDER, metavar='RUN',
                     help='a run folder, a checkpoint, or a run of the official code (default: the '
                          'newest run in runs/)')
    official(sub)
    sub.add_argument('--json', action='store_true', help='as JSON')

    sub = command('export', 'write the generator of a run for use without this program')
    folder(sub, '--run', '(default: the newest run in runs/)')
    trained(sub)
    sub.add_argument('--format', choices=['pt2', 'onnx'],
                     help='pt2: torch.export; onnx: needs pip install onnx onnxscript (default: '
                          'pt2)')
    folder(sub, '--official', 'write latest_net_*.pth and the rest into this folder, as the '
                              'official code reads them, in place of one file')
    sub.add_argument('--size', type=SIZE, metavar='WxH',
                     help='of the maps (default: that of the run); others do, where the file says '
                          'so')
    sub.add_argument('--out', type=FILE, metavar='PATH',
                     help='file to write (default: <run>/exported.pt2 or .onnx)')

    sub = command('completion', 'print a completion file for a shell')
    sub.add_argument('shell', choices=['bash', 'zsh', 'fish'])
    parser.commands = commands.choices
    return parser


def given_fields(args, fields):
    """The fields of a configuration that were written out on the command line."""
    values = {name: value for name, value in vars(args).items() if name in fields}
    for name in ('data', 'vgg', 'cache'):                   # paths outlive the folder one is in
        if values.get(name) and values[name] != 'fetch':
            values[name] = str(resolve_path(values[name]))
    if values.get('size') == 'native':
        values['size'] = None
    return values


def dataset_fields(args):
    """The fields of the data set that the command line names, as a namespace. Raises UserError
    without --data."""
    if not hasattr(args, 'data'):
        raise UserError(f'{args.command} needs --data DIR, the folder of the data set')
    return SimpleNamespace(**{**configuration.default_values(DATA), **given_fields(args, DATA),
                              'data': args.data})


def seed_of(args):
    return getattr(args, 'seed', TRAINING['seed'].default)


# Of a command, not of the run.
ONCE = 'preset', 'of_preset', 'dry_run', 'hours', 'tensorboard', 'official_labels'


def remembered_flags(args):
    """What was written out on the command line, for a run to remember."""
    return {name: value for name, value in vars(args).items()
            if name not in ('command', 'device', 'run', 'resume', 'quiet', *ONCE)}


def preset_fields(args, known):
    """The fields that --preset stands for, of those `known` to the command, less those that the
    flags beside it set, or leave without effect -> {field: value}."""
    fields = PRESETS[args.preset].fields
    model = getattr(args, 'model', fields.get('model', 'global'))
    idle = set(vars(args))
    if model != 'local':
        idle |= {'n_enhancers', 'fix_global'}
    if model in ('unet', 'pix2pix'):
        idle |= {'recompute', 'n_blocks'}
    if model == 'pix2pix':
        idle |= {'features', *configuration.PIX2PIX}
    if not getattr(args, 'features', 'features' not in idle):
        idle.add('features_of')
    return {name: value for name, value in fields.items() if name in known and name not in idle}


def parse(words, description):
    """The words of a command line -> namespace. Exits with code 2 where they are wrong.
    description: what --help begins with."""
    parser = make_parser(description)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        sub = parser.commands[args.command]
        remembered_flags = [flag for action in sub._actions for flag in action.option_strings]
        sub.error('unrecognized arguments: ' + ' '.join(unknown) + (
            f'; behind {args.command} it is known' if unknown[0] in remembered_flags else
            did_you_mean(unknown[0], remembered_flags)))
    if getattr(args, 'hours', None) and hasattr(args, 'steps'):
        parser.commands[args.command].error(f'--hours {args.hours:g} and --steps {args.steps}: one '
                                            'of them says how long')
    for flag in ('format', 'size', 'out'):
        if getattr(args, 'official', None) and getattr(args, flag):
            parser.commands[args.command].error(f'--official and --{flag}: it writes the networks '
                                                'as they are, into its own folder')
    if getattr(args, 'preset', None):
        fields = preset_fields(args, {action.dest for action in parser.commands[args.command]._actions})
        args.of_preset = list(fields)
        vars(args).update(fields)
    if getattr(args, 'precision', None) == 'auto':
        del args.precision                                  # as if it had been left out
    return args


def log_preset(args):
    """Say what --preset stands for."""
    if args.preset:
        won = [configuration.flag_name(name) for name in PRESETS[args.preset].fields
               if name not in args.of_preset and hasattr(args, name)]
        log_info(' '.join([f'--preset {args.preset}:', *(
            configuration.as_flag(name, getattr(args, name)) for name in args.of_preset)])
            + f'; flags beside it win over its {", ".join(won)}' * bool(won))


def check_versions():
    """UserError where Python or a package is missing or too old."""
    def number(version):
        return '.'.join(map(str, version[:2]))

    if sys.version_info < PYTHON:
        raise UserError(f'Python {number(sys.version_info)}: this program needs {number(PYTHON)} '
                        'or newer')
    try:
        import numpy, PIL, torch                            # noqa: E401, F401
    except ImportError as error:
        raise UserError(f'{error}; pip install -r requirements.txt brings what is needed') from None
    version = tuple(int(part) for part in re.findall(r'\d+', torch.__version__)[:2])
    if version < TORCH:
        raise UserError(f'PyTorch {torch.__version__}: this program needs {number(TORCH)} or newer')
