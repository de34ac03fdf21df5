"""The settings of a run: every field with its bounds, its default and its help, for the flags and
to check the checkpoint of a stranger. It imports nothing heavy, so that --help answers at once."""
import argparse
from collections import namedtuple
from contextlib import suppress
from functools import partial
import math
import re
import reprlib
from types import SimpleNamespace

from app.common.errors import UserError


class Kind(namedtuple('Kind', 'expected is_valid parse metavar choices', defaults=(str, 'N', ()))):
    """The type and the bounds of a field.
    expected: the allowed values, in words. choices: all of them, if they are few. is_valid: whether
    a value, of any type, is allowed. parse: makes a value of a word, or raises ValueError.
    metavar: what --help calls a value."""

    def __call__(self, word):
        """Return the value of a word of the command line. argparse calls this."""
        with suppress(ValueError):
            value = self.parse(word)
            if self.is_valid(value):
                return value
        raise argparse.ArgumentTypeError(f'{word!r}: expected {self.expected}')


def integer(low, high=None, metavar='N'):
    return Kind(f'a whole number from {low} {f"to {high}" if high else "up"}', lambda value: (
        type(value) is int and low <= value <= (high or 1 << 40)), int, metavar)


def real(expected, in_bounds, metavar):
    return Kind(expected, lambda value: type(value) in (int, float) and math.isfinite(value)
                and in_bounds(value), float, metavar)


def choice(*values):
    return Kind(f'one of {values}', lambda value: type(value) in (str, bool) and value in values,
                choices=values)


def string(metavar, expected='text', pattern=r'[^\0]*'):
    return Kind(expected, lambda value: isinstance(value, str) and re.fullmatch(pattern, value),
                metavar=metavar)


def list_of(is_valid, length=None):
    """Return a function that returns whether a value is a list of valid items."""
    return lambda value: (isinstance(value, (list, tuple)) and length in (None, len(value))
                          and all(map(is_valid, value)))


path = partial(string, expected='a path', pattern=r'[^\0]+')
BOOL = choice(True, False)
CHANNELS, DEPTH, BLOCKS, SCALE = integer(1, 4096), integer(1, 12), integer(0, 256), integer(1, 256)
COUNT, POSITIVE = integer(0), integer(1)
UPSAMPLING = choice('transposed', 'filtered', 'nearest', 'bilinear')
STEPS, EPOCHS = integer(1, metavar='STEPS'), integer(0, 10 ** 6, 'EPOCHS')
WEIGHT = real('a number from 0 to 1e6', lambda x: 0 <= x <= 1e6, 'WEIGHT')
HOURS = real('a number of hours above 0 and below 100000', lambda x: 0 < x < 1e5, 'H')
FOLDER, FILE = path('DIR'), path('FILE')
SIZE = Kind('WIDTHxHEIGHT, each from 1 to 32768', list_of(integer(1, 1 << 15).is_valid, 2),
            lambda word: tuple(map(int, word.lower().split('x'))), 'WxH')
NAME = string('NAME', 'letters, digits, _, - and dots inside', r'[\w-]+(\.+[\w-]+)*')
TEXT = string('TEXT')
ALLOWED_HOST = re.compile(r'[a-zA-Z0-9_.-]{1,200}(:[0-9]{1,5})?|'
                          r'\[[0-9a-fA-F:.]{2,60}\](:[0-9]{1,5})?')
LOCAL_HOST = '127.0.0.1'
HOST = string('HOST:PORT', 'a host and a port, like localhost:9000', ALLOWED_HOST.pattern)
NAMES = Kind('names', list_of(TEXT.is_valid))
LABEL = integer(0, (1 << 16) - 1, 'ID')
LABEL_TABLE = Kind('labels by id', lambda table: (
    isinstance(table, dict) and all(map(LABEL.is_valid, [*table, *table.values()]))))
COLOURS = Kind('rows [R, G, B, label, name]', list_of(lambda row: (
    isinstance(row, (list, tuple)) and len(row) == 5 and TEXT.is_valid(row[4])
    and LABEL.is_valid(row[3]) and list_of(integer(0, 255).is_valid)(row[:3]))))
FLAGS = Kind('flags', lambda flags: isinstance(flags, dict) and all(
    value is None or isinstance(value, (bool, int, float, str)) or SIZE.is_valid(value)
    for value in flags.values()))


# A configuration is a SimpleNamespace with the fields of NETWORK and with `training`, which has
# those of TRAINING (None for a run of the official code).
# Where the default is None, None is allowed. computed: in words, a default that the program works
# out. Fields without help are no flags: they follow from the data.
Field = namedtuple('Field', 'kind default help computed', defaults=['', None])
REQUIRED = object()                                 # in place of a default


def fields(**rows):
    return {name: Field(*row) for name, row in rows.items()}


# The networks, and how maps are read: what it takes to make pictures.
NETWORK = fields(
    model=(choice('global', 'local', 'unet'), 'global',     # paper section 3.2
           'global: G1; local: with local enhancers; unet: a U-Net; pix2pix: the whole baseline'),
    ngf=(CHANNELS, 64, 'channels of the outermost layer of G', '64, halved by each enhancer'),
    n_down=(DEPTH, 4, 'downsamplings of G1, or levels of the U-Net', '4; U-Net: up to 8'),
    n_blocks=(BLOCKS, 9, 'residual blocks of G1'),
    n_enhancers=(integer(0, 8), 1, 'local enhancers, with --model local'),
    n_blocks_local=(BLOCKS, 3, 'residual blocks of each local enhancer'),
    ndf=(CHANNELS, 64, 'channels of the first layer of each discriminator'),
    n_layers=(DEPTH, 3, 'strided layers of each discriminator'),
    n_scales=(DEPTH, 3, 'discriminators; each sees half the size of the one before'),
    spectral_norm=(BOOL, False, 'spectral normalisation in the discriminators'),
    up=(UPSAMPLING, 'transposed',
        'upsampling in G and E; filtered: transposed, with a filter against the grid'),
    # Upsampling of E where it differs from `up`: finetune may change G's, but does not train E.
    up_encoder=(UPSAMPLING, None),
    boundary=(BOOL, True, 'give the networks the instance boundary map'),   # paper section 3.3
    features=(BOOL, REQUIRED, 'train the encoder as well', 'yes, if there are instances'),
    features_of=(choice('instance', 'label'), 'instance', 'what has a style of its own'),
    feat=(SCALE, 3, 'features per instance'),               # paper section 4
    nef=(CHANNELS, 16, 'channels of the first layer of the encoder'),
    n_down_encoder=(DEPTH, 4, 'downsamplings of the encoder'),
    encoder_scale=(SCALE, 1),                               # the size of G in sizes of the encoder
    n_labels=(integer(0, 1 << 16), REQUIRED),               # 0: pictures in place of label maps
    in_channels=(CHANNELS, 3),                              # of these pictures
    out_channels=(CHANNELS, 3),
    instances=(choice('files', 'components', 'none'), REQUIRED),
    layout=(TEXT, 'flat'),                                  # a name in layouts.LAYOUTS
    label_names=(NAMES, None),
    label_table=(LABEL_TABLE, None),
    palette=(COLOURS, None),                                # of label maps that hold colours
    palette_nearest=(BOOL, False, 'with --palette: colours that it lacks, as JPEG makes them, have '
                     'the label of the nearest one'),
    label_colours=(COLOURS, None),                          # to show labels; see labels.csv
    void=(Kind('labels', list_of(LABEL.is_valid)), ()),     # labels that scores leave out
    jpeg_labels=(BOOL, False, 'accept maps that JPEG or lossy WebP has changed'),
    decoder=(integer(1, 2), 1),                             # see pairs.DECODER
    image_max=(integer(1, 65535), None),    # white in photographs of 16 bits; None: all 16 count
    condition_max=(integer(1, 65535), None),                # and in the pictures in place of labels
    index_colours=(COLOURS, None),                          # of label maps with a colour table
    inst_per_label=(BOOL, False),       # an instance is a pair of a label and an id
    present=(Kind('labels', list_of(LABEL.is_valid)), None),    # in training maps; None: unknown
    size=(SIZE, None, 'resize pictures to this size; native: keep their size'))     # None: native

# How the networks are, and were, trained.
TRAINING = fields(
    data=(FOLDER, REQUIRED, 'data set as downloaded, or folders as docs/datasets.md says'),
    split=(NAME, 'train', 'part of the data set to read'),
    left_out=(NAMES, ()),                                   # scenes that cannot be used
    hold_out=(integer(0, 1 << 20), 0, 'training pictures to hold out, in place of the split val'),
    held=(NAMES, ()),                                       # the scenes of these pictures
    pictures=(Kind('a number and a checksum', list_of(COUNT.is_valid, 2)), REQUIRED),
    crop=(SIZE, None, 'train on random crops of this size'),
    jitter=(real('a factor from 1 to 2', lambda x: 1 <= x <= 2, 'FACTOR'), 1.0,
            'enlarge pictures by this factor, 1 to 2, and crop them back at random'),
    flip=(BOOL, True, 'mirror half of the pictures, at random'),
    augment=(BOOL, False, 'change colours and place, at random, of what the discriminators see, '
             'and hide a part of it; for few pictures'),
    cache=(string('DIR'), None, 'folder for decoded pictures; without DIR: <run>-cache'),
    workers=(integer(0, 1024), None, 'processes that load pictures', '4, on CUDA up to 16'),
    epochs=(EPOCHS, 100, 'epochs at the full learning rate'),       # paper appendix: 100, 100
    decay_epochs=(EPOCHS, 100, 'further epochs, in which the rate decays linearly to zero'),
    steps=(STEPS, None, 'steps in place of epochs: half at the full rate, half with decay'),
    fix_global=(EPOCHS, 10, 'epochs that train only the new enhancer'),
    batch=(integer(1, 1 << 16), 1, 'pictures per step'),
    lr=(real('a number between 0 and 1', lambda x: 0 < x < 1, 'RATE'), 2e-4,    # paper appendix
        'learning rate of Adam, betas 0.5 and 0.999'),
    gan=(choice('lsgan', 'vanilla', 'hinge'), 'lsgan',      # paper section 4
         'GAN loss: least squares, cross-entropy or hinge'),
    lambda_feature=(WEIGHT, 10.0, 'weight of feature matching; 0: without'),
    lambda_vgg=(WEIGHT, 10.0, 'weight of the perceptual loss'),
    lambda_l1=(WEIGHT, 0.0, 'weight of the L1 loss of pix2pix'),
    vgg=(path('PATH'), None, 'add the VGG-19 perceptual loss, with the weights of torchvision in '
         'this file; without PATH they are downloaded'),
    vgg_input=(choice('official', 'imagenet'), 'official', 'pictures for VGG-19; official: from -1 '
               'to 1, as in the official code; imagenet: normalised as in its own training'),
    ema=(real('a number from 0 to below 1', lambda x: 0 <= x < 1, 'DECAY'), 0.999,
         'decay of the moving average of the weights of G and E, which makes pictures; 0: none'),
    precision=(choice('fp32', 'tf32', 'bf16'), 'fp32',
               'arithmetic of the networks; auto: bf16 if the device has it and it proves '
               'faster, else tf32 on CUDA, fp32 on a CPU', 'auto'),
    threads=(integer(1, 1024), None, 'threads that compute on the CPU',
             'OMP_NUM_THREADS, or the number that proves fastest'),
    recompute=(BOOL, False, 'compute the activations of G twice: less memory, more time'),
    compile=(BOOL, False, 'compile G with torch.compile, which takes a minute or more'),
    cuda_graphs=(BOOL, True, 'on one GPU, launch all kernels of a step at once: faster, but '
                 'activations take twice the memory'),
    accumulate=(integer(1, 1 << 16), 1, 'split a batch into so many parts, to save memory'),
    seed=(integer(0, (1 << 32) - 1), 0, 'seed of all random numbers'),
    log_every=(STEPS, 50, 'steps between rows of log.csv'),
    sample_every=(STEPS, 500, 'steps between sheets of pictures'),
    evaluate_every=(STEPS, None, 'steps between scores in scores.csv; best.pt keeps the best'),
    save_every=(STEPS, 1000, 'steps between checkpoints; each epoch ends with one, too'),
    keep=(POSITIVE, 2, 'keep the newest N checkpoints'),
    max_bad_steps=(POSITIVE, 20, 'stop after N steps in a row without finite loss and gradient'),
    total_steps=(POSITIVE, REQUIRED),
    decay_start=(COUNT, REQUIRED),                          # step from which the rate decays
    fix_global_steps=(COUNT, 0),                            # steps that train only the enhancer
    flags=(FLAGS, {}))                                      # the flags that were given

# The data set as flags name it; app.datasets.inspection works out the rest.
DATA = {'data': TRAINING['data'], 'split': TRAINING['split'], **fields(
    instances=(choice('auto', 'components', 'none'), 'auto', 'auto: instance maps, if there are '
               'any; components: connected pixels of one label; none: no boundary map'),
    palette=(FILE, None, 'the label maps hold colours, which this file lists: R,G,B,id[,name]'),
    layout=(choice('auto', 'own', 'side-by-side', 'map-left', 'map-right'), 'auto',
            'auto: recognise it; own: labels of your own, whatever the folders are called; the '
            'others: a map and its photograph are halves of one picture'),
    palette_nearest=NETWORK['palette_nearest'],
    n_labels=(integer(1, 1 << 16), None, 'number of labels, if the maps lack some; 40: for NYU',
              '1 + the largest in the maps'),
    ignore_label=(Kind(f'{LABEL.expected}, or none',
                       lambda value: value == 'none' or LABEL.is_valid(value),
                       lambda word: word if word == 'none' else int(word), 'ID'), None,
                  'id of unknown pixels; none: every id is a label', '255, if it is far above'),
    jpeg_labels=NETWORK['jpeg_labels'],
    skip_bad=(BOOL, False, 'read everything first, and leave out what cannot be used'))}

STYLES = 10                                         # paper section 4: K = 10

# What --model pix2pix stands for (Isola et al., CVPR 2017).
PIX2PIX = {'model': 'unet', 'n_scales': 1, 'boundary': False, 'features': False, 'gan': 'vanilla',
           'lambda_feature': 0.0, 'lambda_l1': 100.0}

# What finetune and train --from take over from the run they start from, unless a flag says
# otherwise. finetune stays with the data set, so it takes over what concerns its pictures, too.
OF_TRAINING = ('jitter flip augment workers batch accumulate lr gan vgg ema lambda_feature '
               'lambda_vgg vgg_input lambda_l1 precision compile cuda_graphs recompute '
               'seed').split()
INHERITED = ['split', 'left_out', 'hold_out', 'held', *OF_TRAINING]

# The weights depend on these fields, so train --from cannot change them; but see has_same_weights.
ARCHITECTURE = {'G': 'model ngf n_down n_blocks n_enhancers n_blocks_local up'.split(),
                'E': 'feat nef n_down_encoder'.split(),
                'D': 'ndf n_layers n_scales spectral_norm'.split()}

# What --resume may change: the result stays as it is, or the run gets longer, or files have moved.
MAY_CHANGE = ('epochs decay_epochs steps workers threads cache save_every keep max_bad_steps data '
              'vgg recompute compile cuda_graphs').split()


def has_same_weights(name, value, other):
    """Whether networks with these two values of a field of ARCHITECTURE have weights of the same
    meaning. Transposed convolutions have, with and without the filter."""
    return value == other or name == 'up' and {value, other} == {'transposed', 'filtered'}


def default_values(table):
    return {name: field.default for name, field in table.items() if field.default is not REQUIRED}


def with_defaults(network, training=None):
    """Return a configuration of two dicts {field: value}. Fields that they lack get the default."""
    if training is not None:
        training = SimpleNamespace(**{**default_values(TRAINING), **training})
    return SimpleNamespace(**{**default_values(NETWORK), **network, 'training': training})


def to_dict(config):
    """Return a configuration as nested dicts of builtins."""
    return {**vars(config), 'training': config.training and dict(vars(config.training))}


def check_config(config, path=None):
    """Raise UserError unless a configuration has all fields, within bounds and in agreement.
    path: the file that it was read from; None: it comes from the command line."""
    c, t = config, config.training

    def require(name, holds, expected):
        if not holds:
            value = getattr(c, name, getattr(t, name, None))
            raise UserError(f'{path}: not a checkpoint of this program ({reprlib.repr(value)} for '
                            f'{name})' if path else f'{as_flag(name, value)}: expected {expected}')

    for part, table in ((c, NETWORK), (t, TRAINING)):
        for name in {**table, **vars(part)} if part else ():
            field, value = table.get(name), getattr(part, name, None)
            if name != 'training':
                require(name, field and (field.kind.is_valid(value) or
                                         value is None and field.default is None),
                        field.kind.expected if field else 'a field of a configuration')

    highest = max([*(c.label_table or {}).values(), *c.void, *(c.present or []),
                   *(row[3] for row in [*(c.palette or []), *(c.label_colours or [])])],
                  default=0)
    require('n_labels', not c.n_labels or highest < c.n_labels, f'more than {highest}')
    require('label_names', c.label_names is None or len(c.label_names) == c.n_labels, 'one each')
    per_label = c.features_of == 'label'
    require('features', not c.features or c.instances != 'none' or per_label, 'instances')
    require('features_of', not c.features or c.n_labels or not per_label, 'label maps, no pictures')
    require('n_down', c.model != 'unet' or c.n_down >= 2, 'at least 2 levels of a U-Net')
    require('n_enhancers', (c.model == 'local') == (c.n_enhancers > 0), 'at least 1, if local')
    if t:
        require('accumulate', t.batch % t.accumulate == 0, f'a divisor of --batch {t.batch}')
        require('fix_global_steps', not t.fix_global_steps or c.model == 'local', '0')


def unused_fields(settings):
    """Return {field: why} of the fields that do nothing in a run of `settings`, {field: value}."""
    s = SimpleNamespace(**settings)
    return {name: why for names, is_used, why in (
        ('n_enhancers n_blocks_local fix_global', s.model == 'local',
         f'--model {s.model} has no local enhancers'),
        ('n_blocks recompute', s.model in ('global', 'local'), 'a U-Net has no residual blocks'),
        ('feat nef n_down_encoder features_of', s.features, 'no encoder without --features'),
        ('boundary', s.instances != 'none', 'there are no instances'),
        ('epochs decay_epochs', not s.steps, '--steps says how long to train'),
        ('lambda_vgg vgg_input', s.vgg, 'there is no --vgg'))
        if not is_used for name in names.split()}


def check_flags_used(given, config):
    """Raise a UserError if one of the flags, {field: value}, does nothing in a run."""
    settings = {**vars(config.training), **vars(config), 'model': given.get('model', config.model)}
    for name, why in unused_fields(settings).items():
        if name in given:
            raise UserError(f'{as_flag(name, given[name])}: {why}; leave it out')


def apply_resume_overrides(config, given, folder):
    """Change the configuration of a resumed run as `given`, {field: value}, says, or refuse it."""
    t = config.training
    for name, value in sorted(given.items()):
        before = t.flags.get(name, getattr(t, name, getattr(config, name, None)))
        if name == 'size':
            value, before = value or 'native', before or 'native'
        switches_vgg = name == 'vgg' and (value is None) != (before is None)
        if name in MAY_CHANGE and not switches_vgg:
            setattr(t, name, value)
            t.flags = {**t.flags, name: value}
        elif format_value(value) != format_value(before):
            start = 'without it' if before is None else f'with {as_flag(name, before)}'
            raise UserError(f'{as_flag(name, value)}: {folder} was started {start}, and that '
                            'cannot change now; leave it out')
    if {'epochs', 'decay_epochs'} & given.keys() and 'steps' not in given:
        t.steps = None
        t.flags.pop('steps', None)


def flag_name(name):
    """Return the flag of a field: '--n-down' for 'n_down'."""
    return '--from' if name == 'base' else '--' + name.replace('_', '-')


def as_flag(name, value):
    """Return what gives a field a value on the command line: '--n-down 4', '--flip', '--no-vgg'."""
    if value is None or value is False:
        return flag_name(name).replace('--', '--no-', 1)
    return flag_name(name) if value is True else f'{flag_name(name)} {format_value(value)}'


def format_value(value):
    """Return a value as the command line writes it: '1024x512' for (1024, 512)."""
    return 'x'.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def parse_label(word, names):
    """Return the label that a word means: one of `names` (may be None) or a number; -1: neither."""
    if names and word in names:
        return names.index(word)
    return int(word) if word.isdecimal() and len(word) < 10 else -1
