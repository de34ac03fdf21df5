"""The configuration of a run: every field with its default and its bounds, written here and nowhere
else.

The command line takes its flags' types and defaults from here, and what a checkpoint says of itself
is held against the same bounds. A configuration is a SimpleNamespace of the fields of NETWORK, what
a picture is made with, and of `training`, a SimpleNamespace of the fields of TRAINING, which is None
in runs of the official code. Imports nothing heavy, so that --help answers at once.
"""
import argparse
from collections import namedtuple
import math
import re
import reprlib
from types import SimpleNamespace

from files import UserError


# --------------------------------------------------------------------------------------- bounds

class Bound:
    """What values a field may have: `parse` makes one of the words of a command line, `holds` tells
    whether it is within bounds, `expected` says so in words."""

    def __init__(self, expected, parse, holds):
        self.expected, self.parse, self.holds = expected, parse, holds

    def __call__(self, text):
        """As a type of argparse."""
        try:
            value = self.parse(text)
        except ValueError:
            value = None
        if value is None or not self.holds(value):
            raise argparse.ArgumentTypeError(f'{text!r}: expected {self.expected}')
        return value


def whole(least, most):
    return Bound(f'a whole number from {least} to {most}', int,
                 lambda value: type(value) is int and least <= value <= most)


def number(expected, holds):
    return Bound(expected, float, lambda value: (
        type(value) in (int, float) and math.isfinite(value) and holds(value)))


def choice(*values):
    bound = Bound('one of ' + ', '.join(map(str, values)), str,
                  lambda value: type(value) in (str, bool) and value in values)
    bound.choices = values
    return bound


def maybe(bound):
    return Bound(bound.expected, bound.parse, lambda value: value is None or bound.holds(value))


def of(expected, holds):
    """A field that no word of a command line becomes as it is."""
    return Bound(expected, str, holds)


def every(holds, length=None):
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
POSITIVE, NATURAL, EPOCHS = whole(1, 1 << 40), whole(0, (1 << 32) - 1), whole(0, 10 ** 6)
TEXT = of('text', is_text)
PATH = Bound('a path', str, lambda value: is_text(value) and value != '')
SIZE = Bound('WIDTHxHEIGHT, each from 1 to 32768', width_and_height,
             every(whole(1, 1 << 15).holds, 2))
SIZE_OR_NATIVE = Bound(f'{SIZE.expected}, or native',
                       lambda text: text if text == 'native' else width_and_height(text),
                       lambda value: value == 'native' or SIZE.holds(value))
LABEL = whole(0, (1 << 16) - 1)                     # a label, before and after tables
LABEL_OR_NONE = Bound(f'{LABEL.expected}, or none',
                      lambda text: text if text == 'none' else int(text),
                      lambda value: value == 'none' or LABEL.holds(value))
FRACTION = number('a number between 0 and 1', lambda value: 0 < value < 1)


# --------------------------------------------------------------------------------------- fields

Field = namedtuple('Field', 'bound default')
NEEDED = object()                                   # stands for a default where there is none

# What a picture is made with: the networks, what they were taught to see, how maps are read.
NETWORK = {name: Field(*field) for name, field in {
    'model': (choice('global', 'local'), 'global'),         # paper section 3.2: G1, or G2 around it
    'ngf': (WIDTH, 64),
    'n_down': (DEPTH, 4),
    'n_blocks': (BLOCKS, 9),
    'n_enhancers': (whole(0, 8), 1),
    'n_blocks_local': (BLOCKS, 3),
    'ndf': (WIDTH, 64),
    'n_layers': (DEPTH, 3),
    'n_scales': (DEPTH, 3),                                 # paper section 3.2: D1, D2, D3
    'features': (FLAG, NEEDED),
    'feat': (SCALE, 3),                                     # paper section 4: 3 per instance
    'nef': (WIDTH, 16),
    'n_down_encoder': (DEPTH, 4),
    'encoder_scale': (SCALE, 1),                            # G's size in sizes of the encoder
    'n_labels': (whole(0, 1 << 16), NEEDED),                # 0: pictures to pictures
    'in_channels': (WIDTH, 3),                              # of the maps, where n_labels is 0
    'out_channels': (WIDTH, 3),
    'instances': (choice('files', 'components', 'none'), NEEDED),
    'layout': (TEXT, 'flat'),                               # a name of layouts.LAYOUTS
    'label_names': (maybe(of('names', every(is_text))), None),
    'label_table': (maybe(of('labels by id', lambda table: (
        isinstance(table, dict) and len(table) <= 1 << 16
        and all(map(LABEL.holds, [*table, *table.values()]))))), None),
    'palette': (maybe(of('colours', every(lambda row: (
        every(is_plain, 5)(row) and every(whole(0, 255).holds)(row[:3]) and LABEL.holds(row[3])
        and is_text(row[4]))))), None),                     # rows [R, G, B, label, name]
    'jpeg_labels': (FLAG, False),
    'size': (maybe(SIZE), None),                            # None: native
}.items()}

# What it was, and is, trained with.
TRAINING = {name: Field(*field) for name, field in {
    'data': (PATH, NEEDED),
    'split': (Bound('letters, digits, _ and -', str,
                    lambda value: is_text(value) and re.fullmatch(r'[\w-]+', value)), 'train'),
    'left_out': (of('names', every(is_text)), ()),          # scenes that cannot be used
    'pictures': (of('a number and a checksum', every(COUNT.holds, 2)), NEEDED),
    'crop': (maybe(SIZE), None),
    'jitter': (number('a factor from 1 to 2', lambda value: 1 <= value <= 2), 1.0),
    'flip': (FLAG, True),
    'cache': (maybe(TEXT), None),                           # '': beside the run
    'workers': (whole(0, 1024), 4),
    'epochs': (EPOCHS, 100),                                # paper appendix: 100, and 100 more
    'decay_epochs': (EPOCHS, 100),
    'steps': (maybe(POSITIVE), None),
    'fix_global': (EPOCHS, 10),                             # of finetune
    'batch': (whole(1, 1 << 16), 1),
    'lr': (FRACTION, 2e-4),                                 # paper appendix: Adam, 0.0002
    'gan': (choice('lsgan', 'vanilla'), 'lsgan'),           # paper section 4: least squares
    'vgg': (maybe(TEXT), None),
    'bf16': (FLAG, False),
    'seed': (NATURAL, 0),
    'log_every': (POSITIVE, 50),
    'sample_every': (POSITIVE, 500),
    'save_every': (POSITIVE, 1000),
    'keep': (POSITIVE, 2),
    'max_bad_steps': (POSITIVE, 20),
    'total_steps': (POSITIVE, NEEDED),
    'decay_start': (COUNT, NEEDED),                         # step from which the rate decays
    'fix_global_steps': (COUNT, 0),                         # steps for which the inside is frozen
    'flags': (of('flags', lambda value: isinstance(value, dict) and all(
        is_plain(x) or every(is_plain, 2)(x) for x in value.values())), {}),
}.items()}

# What belongs to the data set, which `survey.survey` resolves.
DATA = {name: Field(*field) for name, field in {
    'data': TRAINING['data'],
    'split': TRAINING['split'],
    'instances': (choice('auto', 'components', 'none'), 'auto'),
    'palette': (maybe(PATH), None),
    'n_labels': (maybe(whole(1, 1 << 16)), None),
    'ignore_label': (maybe(LABEL_OR_NONE), None),
    'jpeg_labels': NETWORK['jpeg_labels'],
    'skip_bad': (FLAG, False),
}.items()}


def defaults(fields):
    return {name: field.default for name, field in fields.items() if field.default is not NEEDED}


def flag(name):
    """'n_down' -> '--n-down'"""
    return '--from' if name == 'base' else '--' + name.replace('_', '-')


# ---------------------------------------------------------------------------------------- a whole

def make(network, training=None):
    """Two dicts -> a configuration; what they lack and has a default is that."""
    if training is not None:
        training = SimpleNamespace(**{**defaults(TRAINING), **training})
    return SimpleNamespace(**{**defaults(NETWORK), **network}, training=training)


def check(config, path=None):
    """UserError unless a configuration has all fields, of the right types, within bounds and in
    agreement. path: the file it comes from; None: the command line."""
    def refuse(name, value, expected):
        value = reprlib.repr(value)
        raise UserError(f'{path}: not a checkpoint of this program ({value} for {name})' if path
                        else f'{flag(name)} {value}: expected {expected}')

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

    labels = [*(config.label_table or {}).values(), *(row[3] for row in config.palette or [])]
    if config.n_labels and max(labels, default=0) >= config.n_labels:
        refuse('n_labels', config.n_labels, f'more than {max(labels)}')
    if config.label_names is not None and len(config.label_names) != config.n_labels:
        refuse('label_names', config.label_names, f'{config.n_labels} names')
    if config.features and config.instances == 'none':
        refuse('features', config.features, 'instances')
    if (config.model == 'local') != (config.n_enhancers > 0):
        refuse('n_enhancers', config.n_enhancers, 'enhancers in a local model alone')
    if config.training and config.training.fix_global_steps and config.model != 'local':
        refuse('fix_global_steps', config.training.fix_global_steps, '0')


def unpack(stored, path):
    """What `pack` made, read from the file `path` -> a configuration, checked."""
    network = dict(stored)
    config = make(training=network.pop('training'), network=network)
    check(config, path)
    return config


def pack(config):
    """A configuration -> nested dicts of builtins."""
    training = config.training
    return {**vars(config), 'training': None if training is None else dict(vars(training))}


# What leaves the result as it is, or lengthens the run, or says where its files are now.
MAY_CHANGE = ('epochs', 'decay_epochs', 'steps', 'workers', 'cache', 'save_every', 'keep',
              'max_bad_steps', 'data', 'vgg')


def amend(config, now, folder):
    """Take what a command line says, {field: value}, into the configuration of the run in `folder`,
    which goes on; UserError where it would be another run."""
    t = config.training
    for name, value in sorted(now.items()):
        was = t.flags.get(name, getattr(t, name, getattr(config, name, None)))
        on_or_off = name == 'vgg' and (value is None) != (was is None)
        if name in MAY_CHANGE and not on_or_off:
            setattr(t, name, value)
        elif in_words(value) != in_words(was):
            raise UserError(f'{flag(name)} {in_words(value)}: {folder} was started '
                            + (f'with {in_words(was)}' if was is not None else 'without it')
                            + ', and that cannot change now')
    if {'epochs', 'decay_epochs'} & now.keys() and 'steps' not in now:
        t.steps = None


def in_words(value):
    """(1024, 512) -> '1024x512', other values as they are."""
    return 'x'.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
