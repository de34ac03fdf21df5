"""The configuration of a run: every field with its default and its bounds, written here and nowhere
else.

The command line takes its flags' types, defaults and help from here, and what a checkpoint says of
itself is held against the same bounds. A configuration is a SimpleNamespace of the fields of
NETWORK, what a picture is made with, and of `training`, a SimpleNamespace of the fields of
TRAINING, which is None in runs of the official code. Imports nothing heavy, so that --help answers
at once.
"""
import argparse
from collections import namedtuple
import math
import re
import reprlib
from types import SimpleNamespace

from app.common.errors import UserError


# --------------------------------------------------------------------------------------- bounds

class Bound:
    """What values a field may have: `parse` makes one of the words of a command line, `holds` tells
    whether it is within bounds, `expected` says so in words, `metavar` in one."""

    def __init__(self, expected, parse, holds, metavar='N', choices=None):
        self.expected, self.parse, self.holds = expected, parse, holds
        self.metavar, self.choices = metavar, choices

    def __call__(self, text):
        """As a type of argparse."""
        try:
            value = self.parse(text)
        except ValueError:
            value = None
        if value is None or not self.holds(value):
            raise argparse.ArgumentTypeError(f'{text!r}: expected {self.expected}')
        return value


def whole(least, most, metavar='N'):
    return Bound(f'a whole number from {least} to {most}', int,
                 lambda value: type(value) is int and least <= value <= most, metavar)


def number(expected, holds, metavar):
    return Bound(expected, float, lambda value: (
        type(value) in (int, float) and math.isfinite(value) and holds(value)), metavar)


def choice(*values):
    return Bound('one of ' + ', '.join(map(str, values)), str,
                 lambda value: type(value) in (str, bool) and value in values, choices=values)


def path(metavar):
    return Bound('a path', str, lambda value: is_text(value) and value != '', metavar)


def optional(bound):
    return Bound(bound.expected, bound.parse, lambda value: value is None or bound.holds(value),
                 bound.metavar, bound.choices)


def opaque(expected, holds, metavar=None):
    """A field of a kind that words of a command line do not have, or text."""
    return Bound(expected, str, holds, metavar)


def list_of(holds, length=None):
    return lambda value: (isinstance(value, (list, tuple)) and all(map(holds, value))
                          and length in (None, len(value)))


def is_text(value):
    return isinstance(value, str) and '\0' not in value


def is_plain(value):
    return value is None or isinstance(value, (bool, int, float, str))


def width_and_height(text):
    w, h = (int(side) for side in text.lower().split('x'))
    return w, h


FLAG, WIDTH, DEPTH = choice(True, False), whole(1, 4096), whole(1, 12)
BLOCKS, SCALE, COUNT = whole(0, 256), whole(1, 256), whole(0, 1 << 40)
POSITIVE, STEPS, NATURAL = whole(1, 1 << 40), whole(1, 1 << 40, 'STEPS'), whole(0, (1 << 32) - 1)
EPOCHS = whole(0, 10 ** 6, 'EPOCHS')
FOLDER, FILE = path('DIR'), path('FILE')
FOLDER_OR_BESIDE = opaque('a path', is_text, 'DIR')     # '': beside the run
SIZE = Bound('WIDTHxHEIGHT, each from 1 to 32768', width_and_height,
             list_of(whole(1, 1 << 15).holds, 2), 'WxH')
SIZE_OR_NATIVE = Bound(f'{SIZE.expected}, or native',
                       lambda text: text if text == 'native' else width_and_height(text),
                       lambda value: value == 'native' or SIZE.holds(value), 'WxH')
MODEL = choice('global', 'local', 'unet')
LABEL = whole(0, (1 << 16) - 1)                     # a label, before and after tables
LABEL_OR_NONE = Bound(f'{LABEL.expected}, or none',
                      lambda text: text if text == 'none' else int(text),
                      lambda value: value == 'none' or LABEL.holds(value), 'ID')
FRACTION = number('a number between 0 and 1', lambda value: 0 < value < 1, 'RATE')
WEIGHT = number('a number from 0 to 1e6', lambda value: 0 <= value <= 1e6, 'WEIGHT')
DECAY = number('a number from 0 to below 1', lambda value: 0 <= value < 1, 'DECAY')
FACTOR = number('a factor from 1 to 2', lambda value: 1 <= value <= 2, 'FACTOR')
HOURS = number('a number of hours above 0', lambda value: 0 < value < 1e5, 'H')
NAME = Bound('letters, digits, _ and -', str,
             lambda value: is_text(value) and re.fullmatch(r'[\w-]+', value), 'NAME')
NAMES = opaque('names', list_of(is_text))
TABLE = opaque('labels by id', lambda table: (
    isinstance(table, dict) and len(table) <= 1 << 16
    and all(map(LABEL.holds, [*table, *table.values()]))))
COLOURS = opaque('colours', list_of(lambda row: (         # rows [R, G, B, label, name]
    list_of(is_plain, 5)(row) and list_of(whole(0, 255).holds)(row[:3]) and LABEL.holds(row[3])
    and is_text(row[4]))))


# --------------------------------------------------------------------------------------- fields

Field = namedtuple('Field', 'bound default help', defaults=[None])
REQUIRED = object()                                   # stands for a default where there is none


def table(**fields):
    return {name: Field(*field) for name, field in fields.items()}


# What a picture is made with: the networks, what they were taught to see, how maps are read. Those
# without a text for --help follow from the data.
NETWORK = table(
    model=(MODEL, 'global',                                 # paper section 3.2
           'global: G1; local: local enhancers around it from the start; unet: the U-Net of '
           'pix2pix in its place; pix2pix: that baseline as a whole'),
    ngf=(WIDTH, 64, 'channels of the (outermost) first layer (default: as many as give G1 64)'),
    n_down=(DEPTH, 4, 'downsamplings of G1; levels of the U-Net, as many as the size allows by '
                      'default'),
    n_blocks=(BLOCKS, 9, 'residual blocks of G1'),
    n_enhancers=(whole(0, 8), 1, 'local enhancers of --model local'),
    n_blocks_local=(BLOCKS, 3, 'residual blocks of each local enhancer'),
    ndf=(WIDTH, 64, 'width of the discriminators'),
    n_layers=(DEPTH, 3, 'strided layers of each discriminator'),
    n_scales=(DEPTH, 3, 'discriminators'),                  # paper section 3.2: D1, D2, D3
    spectral_norm=(FLAG, False, 'spectral normalisation of the discriminators'),
    up=(choice('transposed', 'nearest', 'bilinear'), 'transposed',
        'upsampling of generator and encoder: transposed convolutions as in the paper, or resizing '
        'and a 3x3 convolution'),
    boundary=(FLAG, True, 'instance boundary map'),         # paper section 3.3
    features=(FLAG, REQUIRED, 'train the encoder along (default: if there are instances)'),
    features_of=(choice('instance', 'label'), 'instance',
                 'what has a style of its own; label: also without instance maps'),
    feat=(SCALE, 3, 'features per instance'),               # paper section 4
    nef=(WIDTH, 16, 'width of the encoder'),
    n_down_encoder=(DEPTH, 4, 'downsamplings of the encoder'),
    encoder_scale=(SCALE, 1),                               # G's size in sizes of the encoder
    n_labels=(whole(0, 1 << 16), REQUIRED),                   # 0: pictures to pictures
    in_channels=(WIDTH, 3),                                 # of the maps, where n_labels is 0
    out_channels=(WIDTH, 3),
    instances=(choice('files', 'components', 'none'), REQUIRED),
    layout=(opaque('text', is_text), 'flat'),                   # a name of layouts.LAYOUTS
    label_names=(optional(NAMES), None),
    label_table=(optional(TABLE), None),
    palette=(optional(COLOURS), None),
    void=(opaque('labels', list_of(LABEL.holds)), ()),            # which scores leave out
    jpeg_labels=(FLAG, False, 'accept label maps that JPEG has changed'),
    size=(optional(SIZE), None, 'pictures are resized to this'))       # None: native

# What it was, and is, trained with.
TRAINING = table(
    data=(FOLDER, REQUIRED,
          'Cityscapes, ADE20K, NYU Depth v2 or Helen as downloaded; or train_label/ train_img/ and '
          'perhaps train_inst/; or train_A/ train_B/'),
    split=(NAME, 'train', 'which part of the data set'),
    left_out=(NAMES, ()),                                   # scenes that cannot be used
    hold_out=(whole(0, 1 << 20), 0,
              'pictures that are not trained on, but shown and scored, in place of those of the '
              'split val'),
    held=(NAMES, ()),                                       # their scenes
    pictures=(opaque('a number and a checksum', list_of(COUNT.holds, 2)), REQUIRED),
    crop=(optional(SIZE), None, 'train on random sections of this size'),
    jitter=(FACTOR, 1.0, 'resize up by this factor, 1 to 2, and crop back at random'),
    flip=(FLAG, True, 'mirror with a probability of one half'),
    cache=(optional(FOLDER_OR_BESIDE), None,
           'keep decoded, resized pictures in memory-mapped files (default: DIR is the run folder '
           'with -cache behind its name)'),
    workers=(whole(0, 1024), 4, 'processes that load data'),
    epochs=(EPOCHS, 100, 'epochs at the full learning rate'),       # paper appendix: 100, 100
    decay_epochs=(EPOCHS, 100, 'further epochs in which it decays linearly to zero'),
    steps=(optional(STEPS), None,
           'so many steps, whatever the epochs: half at the full rate, half decaying'),
    fix_global=(EPOCHS, 10, 'epochs in which only the new enhancer learns'),
    batch=(whole(1, 1 << 16), 1, 'pictures per step'),
    lr=(FRACTION, 2e-4, 'learning rate of Adam, betas (0.5, 0.999)'),       # paper appendix
    gan=(choice('lsgan', 'vanilla', 'hinge'), 'lsgan',      # paper section 4
         'least squares, cross-entropy or hinge'),
    lambda_feature=(WEIGHT, 10.0, 'weight of feature matching; 0: without'),        # section 4
    lambda_vgg=(WEIGHT, 10.0, 'weight of the perceptual loss'),
    lambda_l1=(WEIGHT, 0.0, 'weight of the L1 distance of pix2pix'),
    vgg=(optional(path('PATH')), None,
         'add the VGG-19 perceptual loss, from the weights that torchvision publishes; without '
         'PATH they are fetched'),
    ema=(DECAY, 0.999,
         'moving average of the weights of G and E, which is what makes pictures; 0: none'),
    precision=(choice('fp32', 'tf32', 'bf16'), 'fp32',
               'arithmetic of the networks; auto: bf16 where that is measured to be faster, else '
               'fp32 (default: auto)'),
    recompute=(FLAG, False,
               'compute activations of the generator once more on the way back instead of keeping '
               'them: less memory, more time'),
    compile=(FLAG, False, 'torch.compile the generator, which takes a minute or more at first'),
    accumulate=(whole(1, 1 << 16), 1,
                'parts that a batch is passed through the networks in, for less memory'),
    seed=(NATURAL, 0, 'of every random draw'),
    log_every=(STEPS, 50, 'a line and a row of log.csv'),
    sample_every=(STEPS, 500, 'a sheet of pictures, trained on and not'),
    evaluate_every=(optional(STEPS), None,
                    'scores of the pictures that are not trained on, in scores.csv; the best '
                    'checkpoint is kept as best.pt'),
    save_every=(STEPS, 1000, 'a checkpoint; there is one at the end of an epoch, too'),
    keep=(POSITIVE, 2, 'the newest N checkpoints, older ones are deleted'),
    max_bad_steps=(POSITIVE, 20, 'steps whose loss or gradient is not finite are skipped; after N '
                                 'in a row the run stops'),
    total_steps=(POSITIVE, REQUIRED),
    decay_start=(COUNT, REQUIRED),                            # step from which the rate decays
    fix_global_steps=(COUNT, 0),                            # steps for which the inside is frozen
    flags=(opaque('flags', lambda value: isinstance(value, dict) and all(
        is_plain(x) or list_of(is_plain, 2)(x) for x in value.values())), {}))

# What belongs to the data set, which `survey.survey` resolves.
DATA = {
    'data': TRAINING['data'], 'split': TRAINING['split'],
    **table(
        instances=(choice('auto', 'components', 'none'), 'auto',
                   'auto: instance maps where there are any; components: the connected components '
                   'of each label; none: no boundary map and no features'),
        palette=(optional(FILE), None, 'label maps are stored as colours: lines R,G,B,id[,name]'),
        n_labels=(optional(whole(1, 1 << 16)), None,
                  'how many, where the layout does not say and the training maps lack some '
                  "(default: 1 + the largest); 40: NYU's usual ones, by classMapping40.mat"),
        ignore_label=(optional(LABEL_OR_NONE), None,
                      'this id means unknown: it gets a channel of its own; `none`: every id is a '
                      'label (default: 255, where the others stop far below)')),
    'jpeg_labels': NETWORK['jpeg_labels'],
    **table(skip_bad=(FLAG, False,
                      'train: read everything first, and leave out what cannot be used'))}


STYLES = 10                                         # paper section 4: K = 10

# Where a command line may say more than a configuration holds.
ON_THE_LINE = {'size': SIZE_OR_NATIVE, 'model': choice(*MODEL.choices, 'pix2pix'),
               'precision': choice('auto', 'fp32', 'tf32', 'bf16')}

# What --model pix2pix stands for (Isola et al., CVPR 2017): U-Net, one discriminator, cross-entropy
# and 100 times the L1 distance, the label map alone.
PIX2PIX = {'model': 'unet', 'n_scales': 1, 'boundary': False, 'features': False, 'gan': 'vanilla',
           'lambda_feature': 0.0, 'lambda_l1': 100.0}


# --preset: what it is for, and the fields it stands for. Those of the paper, for Cityscapes, and
# the same methods in less memory or time.
Preset = namedtuple('Preset', 'text fields')
STAGE = {'epochs': 50, 'decay_epochs': 50}          # as the official train_1024p_24G.sh
PRESETS = {
    'small': Preset('a first look, minutes on a CPU', {
        'size': (256, 128), 'ngf': 32, 'n_down': 3, 'n_blocks': 6, 'ndf': 32, 'n_scales': 2}),
    'city512': Preset('half the size of the paper, two discriminators', {
        'size': (512, 256), 'n_scales': 2}),
    'city1024': Preset("the paper's first stage", {'size': (1024, 512)}),
    'city1024-12g': Preset('the same in less memory', {
        'size': (1024, 512), 'recompute': True, 'n_scales': 2}),
    'city2048': Preset("the paper's second stage; with train, all at once", {
        'size': (2048, 1024), **STAGE, 'fix_global': 10, 'model': 'local', 'n_enhancers': 1,
        'recompute': True}),
    'city4096': Preset('a third stage, on sections', {
        'size': (4096, 2048), 'crop': (2048, 1024), **STAGE, 'fix_global': 10, 'model': 'local',
        'n_enhancers': 2, 'recompute': True}),
    'faces': Preset('Helen and other label maps of faces without instances', {
        'size': (512, 512), 'jitter': 1.1, 'features': True, 'features_of': 'label'})}


def default_values(fields):
    return {name: field.default for name, field in fields.items() if field.default is not REQUIRED}


def flag_name(name):
    """'n_down' -> '--n-down'"""
    return '--from' if name == 'base' else '--' + name.replace('_', '-')


# ---------------------------------------------------------------------------------------- a whole

def make_config(network, training=None):
    """Two dicts -> a configuration; what they lack and has a default is that."""
    if training is not None:
        training = SimpleNamespace(**{**default_values(TRAINING), **training})
    return SimpleNamespace(**{**default_values(NETWORK), **network}, training=training)


def check_config(config, path=None):
    """UserError unless a configuration has all fields, of the right types, within bounds and in
    agreement. path: the file it comes from; None: the command line."""
    def refuse(name, value, expected):
        value = reprlib.repr(value)
        raise UserError(f'{path}: not a checkpoint of this program ({value} for {name})' if path
                        else f'{flag_name(name)} {value}: expected {expected}')

    parts = [(config, {**NETWORK, 'training': None})]
    if config.training is not None:
        parts.append((config.training, TRAINING))
    for part, fields in parts:
        for name in (vars(part).keys() ^ fields.keys()):
            refuse(name, getattr(part, name, 'nothing'), 'a field of a configuration')
        for name in fields.keys() - {'training'}:
            value = getattr(part, name)
            if not fields[name].bound.holds(value):
                refuse(name, value, fields[name].bound.expected)

    labels = [*(config.label_table or {}).values(), *(row[3] for row in config.palette or []),
              *config.void]
    if config.n_labels and max(labels, default=0) >= config.n_labels:
        refuse('n_labels', config.n_labels, f'more than {max(labels)}')
    if config.label_names is not None and len(config.label_names) != config.n_labels:
        refuse('label_names', config.label_names, f'{config.n_labels} names')
    if config.features and config.instances == 'none' and config.features_of == 'instance':
        refuse('features', config.features, 'instances')
    if config.features and config.n_labels == 0 and config.features_of == 'label':
        refuse('features_of', config.features_of, 'label maps, not pictures')
    if config.training and config.training.batch % config.training.accumulate:
        refuse('accumulate', config.training.accumulate,
               f'a divisor of --batch {config.training.batch}')
    if config.model == 'unet' and config.n_down < 2:
        refuse('n_down', config.n_down, 'at least 2 levels of a U-Net')
    if (config.model == 'local') != (config.n_enhancers > 0):
        refuse('n_enhancers', config.n_enhancers, 'enhancers in a local model alone')
    if config.training and config.training.fix_global_steps and config.model != 'local':
        refuse('fix_global_steps', config.training.fix_global_steps, '0')


def check_flags_used(given, config):
    """UserError for a flag, of those given, that a configuration makes no use of."""
    for names, effective, why in (
            (('n_enhancers', 'n_blocks_local'), config.model == 'local',
             f'--model {given.get("model", config.model)} has no local enhancers'),
            (('n_blocks', 'recompute'), config.model != 'unet', 'a U-Net has no residual blocks'),
            (('feat', 'nef', 'n_down_encoder', 'features_of'), config.features,
             'without instances and --features there is no encoder'),
            (('boundary',), config.instances != 'none', 'there are no instances'),
            (('lambda_vgg',), config.training.vgg, 'there is no --vgg')):
        for name in names:
            if name in given and not effective:
                raise UserError(f'{as_flag(name, given[name])}: {why}; leave it out')


def from_dict(stored, path):
    """What `pack` made, read from the file `path` -> a configuration, checked."""
    network = dict(stored)
    config = make_config(training=network.pop('training'), network=network)
    check_config(config, path)
    return config


def to_dict(config):
    """A configuration -> nested dicts of builtins."""
    training = config.training
    return {**vars(config), 'training': None if training is None else dict(vars(training))}


# What leaves the result as it is, or lengthens the run, or says where its files are now.
MAY_CHANGE = ('epochs', 'decay_epochs', 'steps', 'workers', 'cache', 'save_every', 'keep',
              'max_bad_steps', 'data', 'vgg', 'recompute', 'compile')


def apply_resume_overrides(config, now, folder):
    """Take what a command line says, {field: value}, into the configuration of the run in `folder`,
    which goes on; UserError where it would be another run."""
    t = config.training
    for name, value in sorted(now.items()):
        was = t.flags.get(name, getattr(t, name, getattr(config, name, None)))
        on_or_off = name == 'vgg' and (value is None) != (was is None)
        if name == 'size':
            value, was = value or 'native', was or 'native'
        if name in MAY_CHANGE and not on_or_off:
            setattr(t, name, value)
            if name in t.flags:
                t.flags[name] = value
        elif format_value(value) != format_value(was):
            before = 'without it' if was is None or was is False else (
                'with it' if was is True else f'with {format_value(was)}')
            raise UserError(f'{as_flag(name, value)}: {folder} was started {before}, and that '
                            'cannot change now')
    if {'epochs', 'decay_epochs'} & now.keys() and 'steps' not in now:
        t.steps = None


def parse_label(word, names):
    """The number of the label that a word of a command line names: one of `names` (or None), or a
    number; -1 where it is neither."""
    if names and word in names:
        return names.index(word)
    return int(word) if word.isdecimal() and len(word) < 10 else -1


def as_flag(name, value):
    """What a command line says to give a field a value: '--n-down 4', '--flip', '--no-vgg'."""
    if value is None or value is False:
        return flag_name(name).replace('--', '--no-', 1)
    return flag_name(name) if value is True else f'{flag_name(name)} {format_value(value)}'


def format_value(value):
    """(1024, 512) -> '1024x512', other values as they are."""
    return 'x'.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
