"""The command line: a parser, with a method for the flags of each subcommand. The settings of a
run, with their bounds, defaults and help, are in app/common/config.py."""
import argparse
from argparse import SUPPRESS
import os
import re
import time

from app.cli import settings
from app.common import config, console
from app.common.config import (BOOL, FILE, FOLDER, NETWORK, SIZE, TRAINING, Kind, choice, integer,
                               path, string)
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
OR_BUILT_IN = f'{NEWEST}, or else the built-in one'
BUILT_IN_SCENE = 'with the built-in run its scene'


def wait_for_main_process():
    """Let the first process report the error that this one has, too: torchrun ends all others as
    soon as one of them has ended."""
    time.sleep(10)


class Parser(argparse.ArgumentParser):
    """A parser that describes an error in one line and suggests what was meant."""

    def error(self, message):
        if wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message += did_you_mean(wrong[1], re.findall(r'[\w-]+', wrong[2]))
        if os.environ.get('LOCAL_RANK', '0') != '0':    # of the processes, one says it
            wait_for_main_process()
            self.exit(2)
        self.exit(2, f'{self.prog}: {" ".join(message.split())} (see {self.prog} --help)\n')

    def flag(self, names, text, kind=None, default=None, shown=None, group=None, **more):
        """Add a flag. Only this method writes defaults into --help. text: the help. kind: a
        config.Kind; None: a switch. shown: what --help calls the default, if not by its value."""
        shown = default if shown is None else shown
        if shown not in (None, SUPPRESS, config.REQUIRED, []):
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
            self.flag(config.flag_name(name), field.help, field.kind, SUPPRESS,
                      shown.get(name, field.computed or field.default), group,
                      **WITHOUT_VALUE.get(name, {}))
        return group

    def add_official(self, name='--n-labels', group=None):
        self.flag(name, 'labels of a run of the official code, if its files do not say it; 0: '
                  'pictures in place of labels', integer(0, 1 << 16), group=group,
                  dest='official_labels')

    def add_trained_run(self, text='folder of the run', out='', shown=NEWEST, **more):
        """Add the flags of subcommands that use a run. out: the default of --out, in its folder."""
        self.flag('--run', text, FOLDER, shown=shown, **more)
        self.add_official()
        self.flag('--checkpoint', 'best: the one that --evaluate-every scored best',
                  choice('newest', 'best'), 'newest')
        self.flag('--average', 'use the moving average of the weights, if there is one', BOOL, True)
        if out:
            self.flag('--out', 'folder for what is made', FOLDER, shown=f'<run>/{out}')
            self.flag('--size', 'resize the maps to this size first', SIZE, shown='their own size')
            self.flag('--precision', 'arithmetic of the networks; auto: as in training',
                      FIELDS['precision'].kind, SUPPRESS, 'auto')

    def add_palette_nearest(self):
        self.flag('--palette-nearest', 'a colour that the palette of the run lacks gets the label '
                  'of the nearest colour', shown='as in training')

    def add_training(self, folder, **shown):
        self.flag('--run', 'folder to write', FOLDER, shown=folder)
        self.flag('--resume', 'continue a run, with its own settings; without RUN: the newest one',
                  string('RUN'), nargs='?', const='')
        self.flag('--preset', 'settings for a purpose; other flags override them. ' + '. '.join(
            f'{name}: {preset.text}' for name, preset in settings.PRESETS.items()),
            choice(*settings.PRESETS))
        self.flag('--dry-run', 'only report what would be trained and what it takes')
        self.flag('--hours', 'train for so long, in place of --epochs', config.HOURS)
        self.fields('pictures', 'size crop jitter flip augment hold_out cache workers', **shown)
        self.fields('schedule', 'epochs decay_epochs steps batch accumulate lr ema', **shown)
        group = self.fields('objective', 'gan lambda_feature vgg lambda_vgg vgg_input '
                            'lambda_l1', **shown)
        group.add_argument('--no-vgg', dest='vgg', action='store_const', const=None,
                           default=SUPPRESS, help='train without the perceptual loss')
        self.fields('running', 'precision threads compile cuda_graphs recompute seed log_every '
                    'sample_every evaluate_every save_every keep max_bad_steps', **shown)

    def add_check(self, more=''):
        self.fields('data', 'data split layout instances palette palette_nearest n_labels '
                    'ignore_label jpeg_labels' + more)

    def add_train(self):
        self.add_check(' skip_bad')
        group = self.add_argument_group('the weights of another run')
        self.flag('--from', 'begin with the weights of this run; its networks, size and loss are '
                  'the defaults', FOLDER, SUPPRESS, group=group, dest='base')
        self.flag('--match-labels', 'match the labels with those of --from by name or by id',
                  choice('name', 'id'), SUPPRESS, 'name', group)
        self.add_official('--from-n-labels', group)
        self.add_training('runs/<name of the data folder>',
                          size='the most frequent one in the data set, at most 1024 wide')
        self.fields('networks', 'model ngf n_down n_blocks n_enhancers n_blocks_local up ndf '
                    'n_layers n_scales spectral_norm boundary')
        self.fields('encoder', 'features features_of feat nef n_down_encoder')

    def add_finetune(self):
        self.flag('--from', 'folder of the run to start from', FOLDER, SUPPRESS, dest='base')
        self.add_official()
        self.fields('data', 'data', data='the data of --from')
        shown = dict.fromkeys(config.INHERITED, 'as in --from')
        self.add_training('runs/<name of --from>-<size>', **shown, size='twice the size of --from')
        self.fields('enhancer', 'fix_global n_blocks_local up', n_blocks_local='3, or as in --from',
                    up='as in --from')

    def add_cluster(self):
        self.add_trained_run()
        self.flag('--data', 'data set to cluster', FOLDER, shown='the training data of the run')
        self.flag('--k', 'styles per label', integer(1, 1000), config.STYLES)
        self.flag('--min-pixels', 'leave out instances with fewer pixels', config.POSITIVE, 1)
        self.fields('running', 'seed', seed='that of the run')

    def add_generate(self):
        self.flag('--label', 'label maps, or folders of them', PATH, shown=BUILT_IN_SCENE,
                  **SEVERAL)
        self.flag('--inst', 'their instance maps, or folders', PATH, shown=COMPONENTS, **SEVERAL)
        self.add_trained_run(out='generated', shown=OR_BUILT_IN)
        self.flag('--sample', 'draw styles at random, in place of the most frequent of each label')
        self.flag('--n', 'pictures per label map, with --sample', integer(1, 10 ** 6), 1)
        self.flag('--style', 'give all instances of LABEL, a name or a number, the style K',
                  string('LABEL=K'), [], **SEVERAL)
        self.flag('--encode', 'take the styles of these photographs of the scenes', PATH, **SEVERAL)
        self.flag('--styles', 'take the styles from this file, which edit saved', FILE)
        self.add_palette_nearest()
        self.fields('running', 'compile seed')

    def add_edit(self):
        self.flag('--label', 'the label map, or a folder: the page lists its scenes', PATH,
                  shown=BUILT_IN_SCENE)
        self.flag('--inst', 'its instance map, or a folder', PATH, shown=COMPONENTS)
        self.flag('--styles', 'its styles, a file that edit saved', FILE, shown='the most frequent')
        self.flag('--photo', 'begin with the styles of this photograph of the scene, or of those '
                  'in a folder', PATH)
        self.flag('--blank', 'begin with a scene of nothing but this label, a name or a number, of '
                  '--size or the size of the training', string('LABEL'))
        self.add_trained_run(out='edited', shown=OR_BUILT_IN)
        self.add_palette_nearest()
        self.flag('--script', 'apply the edits in this JSON file, and open no page', FILE)
        self.flag('--final-only', 'with --script: write the final picture only, not all of them')
        self.flag('--host', 'address of the page, by default local', string('HOST'),
                  config.LOCAL_HOST)
        self.flag('--port', 'port of the page', integer(0, 65535), 0, 'any free one')
        self.flag('--allow-host', 'further addresses that the page may be opened at, of a tunnel '
                  'or a proxy, like localhost:9000', config.HOST, **SEVERAL)
        self.flag('--browser', 'open the page in the browser', BOOL, True)
        self.fields('running', 'seed')

    def add_evaluate(self):
        self.add_trained_run('folders of the runs', **SEVERAL)
        self.flag('--data', 'the data set', FOLDER, shown='the data of the first run')
        self.flag('--split', 'part of the data set; held: the pictures of --hold-out', config.NAME,
                  shown='held if there are any, else val')
        self.flag('--styles', 'styles of the instances: the most frequent of their label, random, '
                  'or those of the photograph', choice('main', 'sampled', 'encoded'), 'main')
        self.flag('--size', 'size to compare pictures at', SIZE,
                  shown='the smallest of the runs, or else the most frequent of the photographs')
        self.flag('--void', 'labels (names or ids) that do not count, or none', string('LABEL'),
                  shown='those of the data set and --ignore-label', **SEVERAL)
        self.flag('--judge', 'segmentation network that recognises the pictures; trained and saved '
                  'there if it does not exist; none: no segmentation scores', FILE,
                  shown='a file beside the run')
        self.flag('--predictions', 'label maps that another network predicted for the pictures of '
                  '--write, under the same names', FOLDER)
        self.flag('--write', 'folder for the pictures: real/ and fake/, paired by name', FOLDER)
        self.flag('--out', 'for scores.json and sheet.png', FOLDER, shown='<first run>/evaluation')
        self.flag('--vgg', 'compare the features of VGG-19 as well; PATH as for train --vgg',
                  string('PATH'), **WITHOUT_VALUE['vgg'])
        self.fields('running', 'seed')

    def add_demo(self):
        self.flag('--run', 'folder for the scenes, the runs and the picture', FOLDER, 'runs/demo')
        self.fields('running', 'seed')

    def add_info(self):
        self.flag('run', 'a run folder, a checkpoint, or a run of the official code', path('RUN'),
                  shown=OR_BUILT_IN, nargs='?')
        self.add_official()
        self.flag('--json', 'print JSON')

    def add_export(self):
        self.add_trained_run(shown=OR_BUILT_IN)
        self.flag('--format', 'pt2: torch.export; onnx: needs pip install onnx onnxscript',
                  choice('pt2', 'onnx'), shown='pt2')
        self.flag('--official', 'write the files of the official code into this folder', FOLDER)
        self.flag('--size', 'size of maps; some files take others', SIZE, shown='that of the run')
        self.flag('--out', 'file to write', FILE, shown='<run>/exported.pt2 or .onnx')


SUBCOMMANDS = {
    'check': 'read a whole data set and report what it holds and what is wrong',
    'train': 'train the generator, the discriminators and the encoder',
    'finetune': 'add a local enhancer, at twice the size, to a trained run',
    'cluster': 'cluster the features of the instances of each label into styles',
    'generate': 'turn label maps into photographs',
    'edit': 'change the objects of a scene, in the browser or by a script',
    'evaluate': 'score runs side by side on pictures that they were not trained on',
    'demo': 'train, finetune, cluster and generate on built-in scenes, in minutes',
    'info': 'show the data, progress, styles, scores and checkpoints of a run',
    'export': 'write the generator of a run for use without this program'}


def make_parser(description):
    """Return the parser of all subcommands; `commands` is {name: parser of the subcommand}."""
    parser = Parser(prog='p2phd.py', description=description, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=f'p2phd {VERSION}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND',
                                     parser_class=Parser)
    for name, text in SUBCOMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        hidden = SUPPRESS if name in ('check', 'info') else None   # they need no device
        sub.flag('--device', hidden or 'auto: CUDA if there is a GPU, else the CPU',
                 choice('auto', 'cpu', 'cuda'), 'auto', hidden)
        sub.flag('-q --quiet', 'print only warnings')
        getattr(sub, f'add_{name}')()
    parser.commands = commands.choices
    return parser


def parse(words, description):
    """Return the namespace of the words of a command line. Exits with code 2 if they are wrong."""
    console.open_closed_streams()
    parser = make_parser(description)
    args, unknown = parser.parse_known_args(words)
    sub = parser.commands[args.command]
    if unknown:
        flags = [flag for action in sub._actions for flag in action.option_strings]
        sub.error('unrecognized arguments: ' + ' '.join(unknown) + (
            f'; write it after {args.command}' if unknown[0] in flags else
            did_you_mean(unknown[0], flags)))
    console.quiet = args.quiet
    settings.apply_preset(args, {action.dest for action in sub._actions})
    return args
