"""The command line: a parser, with a function for the flags of each subcommand. The settings of a
run, with their bounds, defaults and help, are in app/common/config.py."""
import argparse
import re

from app.cli import settings
from app.common import config
from app.common.config import (BOOL, FILE, FOLDER, NETWORK, SIZE, TRAINING, Kind, choice, integer,
                               path, string)
from app.common.console import open_closed_streams
from app.common.errors import did_you_mean

VERSION = '1.1.0'

# The settings that have flags. Three flags take more than a configuration holds.
FIELDS = {**NETWORK, **TRAINING, **config.DATA}
for _name, _kind in (
        ('model', choice(*NETWORK['model'].kind.choices, 'pix2pix')),
        ('precision', choice('auto', *TRAINING['precision'].kind.choices)),
        ('size', Kind(f'{SIZE.expected}, or native',
                      lambda value: value == 'native' or SIZE.is_valid(value),
                      lambda word: word if word == 'native' else SIZE.parse(word), 'WxH'))):
    FIELDS[_name] = FIELDS[_name]._replace(kind=_kind)

PATH = path('PATH')
SEVERAL = {'nargs': '+', 'action': 'extend'}
WITHOUT_VALUE = {'cache': {'nargs': '?', 'const': ''}, 'vgg': {'nargs': '?', 'const': 'fetch'}}
NEWEST, COMPONENTS = 'the newest run in runs/', 'the connected components of each label'


class Parser(argparse.ArgumentParser):
    """A parser that describes an error in one line and suggests what was meant."""

    def error(self, message):
        wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if wrong:
            message += did_you_mean(wrong[1], re.findall(r'[\w-]+', wrong[2]))
        self.exit(2, f'{self.prog}: {" ".join(message.split())} (see {self.prog} --help)\n')

    def flag(self, names, text, kind=None, default=None, shown=None, group=None, **more):
        """Add a flag. Only this method writes defaults into --help. text: the help. kind: a
        config.Kind; None: a switch. shown: what --help calls the default, if not by its value."""
        shown = default if shown is None else shown
        if shown not in (None, argparse.SUPPRESS, []):
            shown = ('no', 'yes')[shown] if isinstance(shown, bool) else shown
            text = f'{text} (default: {config.format_value(shown)})'
        if kind is None:
            default, more['action'] = False, 'store_true'
        elif kind is BOOL:
            more['action'] = argparse.BooleanOptionalAction
        elif kind.choices:
            more['choices'] = kind.choices
        else:
            more |= {'type': kind, 'metavar': kind.metavar}
        (group or self).add_argument(*names.split(), default=default, help=text, **more)

    def fields(self, title, names, **shown):
        """Add a group of flags for the settings `names`. The namespace holds only those that are
        given. shown: {name: what --help calls the default}."""
        group = self.add_argument_group(title)
        for name in names.split():
            field = FIELDS[name]
            default = None if field.default is config.REQUIRED else field.default
            self.flag(config.flag_name(name), field.help, field.kind, argparse.SUPPRESS,
                      shown.get(name, field.computed or default), group,
                      **WITHOUT_VALUE.get(name, {}))
        return group


def add_official(sub):
    sub.flag('--n-labels', 'number of labels of a run of the official code, if its files do not '
             'say it; 0: pictures in place of labels', integer(0, 1 << 16), dest='official_labels')


def add_trained_run(sub, text='folder of the run', out='', **more):
    """Add the flags of subcommands that use a run. out: the default of --out, in its folder."""
    sub.flag('--run', text, FOLDER, shown=NEWEST, **more)
    add_official(sub)
    sub.flag('--checkpoint', 'best: the one that train --evaluate-every scored best',
             choice('newest', 'best'), 'newest')
    sub.flag('--average', 'use the moving average of the weights, if there is one', BOOL, True)
    if out:
        sub.flag('--out', 'folder for what is made', FOLDER, shown=f'<run>/{out}')
        sub.flag('--size', 'resize the maps to this size first', SIZE, shown='their own size')
        sub.flag('--precision', 'arithmetic of the networks; auto: as in training',
                 FIELDS['precision'].kind, argparse.SUPPRESS, 'auto')


def add_training(sub, folder, **shown):
    group = sub.add_argument_group('run')
    sub.flag('--run', 'folder to write', FOLDER, shown=folder, group=group)
    sub.flag('--resume', 'continue a run, with its own settings; without RUN: the newest one',
             string('RUN'), group=group, nargs='?', const='')
    sub.flag('--preset', 'settings for a purpose; other flags override them. ' + '. '.join(
        f'{name}: {preset.text}' for name, preset in settings.PRESETS.items()),
        choice(*settings.PRESETS), group=group)
    sub.flag('--dry-run', 'only report what would be trained and what it takes', group=group)
    sub.flag('--hours', 'train for so long, in place of --epochs', config.HOURS, group=group)
    sub.fields('pictures', 'size crop jitter flip hold_out cache workers', **shown)
    sub.fields('schedule', 'epochs decay_epochs steps batch accumulate lr ema', **shown)
    group = sub.fields('objective', 'gan lambda_feature vgg lambda_vgg lambda_l1', **shown)
    group.add_argument('--no-vgg', dest='vgg', action='store_const', const=None,
                       default=argparse.SUPPRESS, help='train without the perceptual loss')
    sub.fields('running', 'precision compile recompute seed log_every sample_every evaluate_every '
               'save_every keep max_bad_steps', **shown)


def add_check(sub, more=''):
    sub.fields('data set', 'data split instances palette n_labels ignore_label jpeg_labels' + more)


def add_train(sub):
    add_check(sub, ' skip_bad')
    add_training(sub, 'runs/<name of the data folder>',
                 size='the most frequent one in the data set, at most 1024 wide')
    sub.fields('networks', 'model ngf n_down n_blocks n_enhancers n_blocks_local up ndf n_layers '
               'n_scales spectral_norm boundary features features_of feat nef n_down_encoder')


def add_finetune(sub):
    sub.flag('--from', 'folder of the run to start from', FOLDER, argparse.SUPPRESS, dest='base')
    add_official(sub)
    sub.fields('data set', 'data', data='the data of --from')
    shown = dict.fromkeys(config.INHERITED, 'as in --from')
    add_training(sub, 'runs/<name of --from>-<size>', **shown, size='twice the size of --from')
    sub.fields('enhancer', 'fix_global n_blocks_local', n_blocks_local='3, or as in --from')


def add_cluster(sub):
    add_trained_run(sub)
    sub.flag('--data', 'data set to cluster', FOLDER, shown='the training data of the run')
    sub.flag('--k', 'styles per label', integer(1, 1000), config.STYLES)
    sub.flag('--min-pixels', 'leave out instances with fewer pixels', config.POSITIVE, 1)
    sub.fields('running', 'seed')


def add_generate(sub):
    sub.flag('--label', 'label maps, or folders of them', PATH, required=True, **SEVERAL)
    sub.flag('--inst', 'their instance maps, or folders of them', PATH, shown=COMPONENTS, **SEVERAL)
    add_trained_run(sub, out='generated')
    sub.flag('--sample', 'draw styles at random; otherwise each label has its most frequent style')
    sub.flag('--n', 'pictures per label map, with --sample', integer(1, 10 ** 6), 1)
    sub.flag('--style', 'give all instances of LABEL, a name or a number, the style K',
             string('LABEL=K'), [], **SEVERAL)
    sub.flag('--encode', 'take the styles from these photographs of the scenes', PATH, **SEVERAL)
    sub.flag('--styles', 'take the styles from this file, which edit saved', FILE)
    sub.fields('running', 'compile seed')


def add_edit(sub):
    sub.flag('--label', 'the label map', FILE, required=True)
    sub.flag('--inst', 'its instance map', FILE, shown=COMPONENTS)
    sub.flag('--styles', 'its styles, a file that edit saved', FILE, shown='the most frequent')
    sub.flag('--photo', 'begin with the styles of this photograph of the scene', FILE)
    add_trained_run(sub, out='edited')
    sub.flag('--script', 'apply the edits in this JSON file, and open no page', FILE)
    sub.flag('--final-only', 'with --script: write only the final picture, not one after each edit')
    sub.flag('--host', 'address of the page; only this machine reaches the default', string('HOST'),
             '127.0.0.1')
    sub.flag('--port', 'port of the page', integer(0, 65535), 0, 'any free one')
    sub.flag('--browser', 'open the page in the browser', BOOL, True)
    sub.fields('running', 'seed')


def add_evaluate(sub):
    add_trained_run(sub, 'folders of the runs', **SEVERAL)
    sub.flag('--data', 'the data set', FOLDER, shown='the data of the first run')
    sub.flag('--split', 'part of the data set; held: the pictures of --hold-out', config.NAME,
             shown='held if there are any, else val')
    sub.flag('--styles', 'styles of the instances: the most frequent of their label, random ones, '
             'or those of the photograph', choice('main', 'sampled', 'encoded'), 'main')
    sub.flag('--size', 'size to compare pictures at', SIZE, shown='the smallest among the runs')
    sub.flag('--void', 'labels (names or numbers) that do not count, or none', string('LABEL'),
             shown='those of the data set and --ignore-label', **SEVERAL)
    sub.flag('--judge', 'segmentation network that recognises the pictures; trained and saved '
             'there if it does not exist', FILE, shown='a file beside the run')
    sub.flag('--predictions', 'label maps that another network predicted for the pictures of '
             '--write, under the same names', FOLDER)
    sub.flag('--write', 'folder for the pictures: real/ and fake/, paired by name', FOLDER)
    sub.flag('--out', 'folder for scores.json, sheet.png', FOLDER, shown='<first run>/evaluation')
    sub.flag('--vgg', 'measure diversity with VGG-19 features, too; PATH as for train --vgg',
             string('PATH'), **WITHOUT_VALUE['vgg'])
    sub.fields('running', 'seed')


def add_demo(sub):
    sub.flag('--run', 'folder for the scenes, the runs and the picture', FOLDER, 'runs/demo')
    sub.fields('running', 'seed')


def add_info(sub):
    sub.flag('run', 'a run folder, a checkpoint, or a run of the official code', path('RUN'),
             shown=NEWEST, nargs='?')
    add_official(sub)
    sub.flag('--json', 'print JSON')


def add_export(sub):
    add_trained_run(sub)
    sub.flag('--format', 'pt2: torch.export; onnx: needs pip install onnx onnxscript',
             choice('pt2', 'onnx'), shown='pt2')
    sub.flag('--official', 'write the files of the official code into this folder', FOLDER)
    sub.flag('--size', 'size of the maps; some files take others', SIZE, shown='that of the run')
    sub.flag('--out', 'file to write', FILE, shown='<run>/exported.pt2 or .onnx')


SUBCOMMANDS = {
    'check': (add_check, 'read a whole data set and report what it holds and what is wrong'),
    'train': (add_train, 'train the generator, the discriminators and the encoder'),
    'finetune': (add_finetune, 'add a local enhancer, at twice the size, to a trained run'),
    'cluster': (add_cluster, 'cluster the features of the instances of each label into styles'),
    'generate': (add_generate, 'turn label maps into photographs'),
    'edit': (add_edit, 'change the objects of a scene, in the browser or by a script'),
    'evaluate': (add_evaluate, 'score runs side by side on pictures that they were not trained on'),
    'demo': (add_demo, 'train, finetune, cluster and generate on built-in scenes, in minutes'),
    'info': (add_info, 'show the data, progress, styles, scores and checkpoints of a run'),
    'export': (add_export, 'write the generator of a run for use without this program')}


def make_parser(description):
    """Return the parser of all subcommands; `commands` is {name: parser of the subcommand}."""
    parser = Parser(prog='p2phd.py', description=description, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=f'p2phd {VERSION}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND',
                                     parser_class=Parser)
    for name, (add_flags, text) in SUBCOMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        hidden = argparse.SUPPRESS if name in ('check', 'info') else None   # they need no device
        sub.flag('--device', hidden or 'auto: CUDA if there is a GPU, else the CPU',
                 choice('auto', 'cpu', 'cuda'), 'auto', hidden)
        sub.flag('-q --quiet', 'print only warnings')
        add_flags(sub)
    parser.commands = commands.choices
    return parser


def parse(words, description):
    """Return the namespace of a command line, a list of words. Exits with code 2 if they are wrong.
    description: what --help begins with."""
    open_closed_streams()
    parser = make_parser(description)
    args, unknown = parser.parse_known_args(words)
    sub = parser.commands[args.command]
    if unknown:
        flags = [flag for action in sub._actions for flag in action.option_strings]
        sub.error('unrecognized arguments: ' + ' '.join(unknown) + (
            f'; write it after {args.command}' if unknown[0] in flags else
            did_you_mean(unknown[0], flags)))
    settings.apply_preset(args, {action.dest for action in sub._actions})
    if getattr(args, 'precision', None) == 'auto':
        del args.precision                          # as if it were not given
    return args
