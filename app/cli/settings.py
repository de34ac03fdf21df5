"""The settings that a command line gives: its flags, and what --preset stands for."""
from collections import namedtuple
from types import SimpleNamespace

from app.common.config import (DATA, NETWORK, PIX2PIX, TRAINING, as_flag, default_values,
                               unused_fields)
from app.common.console import log_info
from app.common.errors import UserError
from app.common.files import resolve_path


def given_fields(args, fields):
    """Return {field: value} of those fields of a configuration that the command line gives."""
    values = {name: value for name, value in vars(args).items() if name in fields}
    for name in ('data', 'vgg', 'cache'):               # the run may go on in another folder
        if values.get(name) and values[name] != 'fetch':
            values[name] = str(resolve_path(values[name]))
    if values.get('size') == 'native':
        values['size'] = None
    return values


def remembered_flags(args):
    """Return {name: value} of the flags that a run keeps in its configuration."""
    kept = {*NETWORK, *TRAINING, *DATA, 'base'}
    return {name: value for name, value in vars(args).items() if name in kept}


def seed_of(args):
    return getattr(args, 'seed', TRAINING['seed'].default)


def dataset_fields(args):
    """Return a namespace of the fields of config.DATA. Raises UserError without --data."""
    if not hasattr(args, 'data'):
        raise UserError(f'{args.command} needs --data DIR, the folder of the data set')
    return SimpleNamespace(**default_values(DATA) | given_fields(args, DATA) | {'data': args.data})


# The settings of the paper for Cityscapes, and settings that need less memory or time.
Preset = namedtuple('Preset', 'text fields')
STAGE = {'epochs': 50, 'decay_epochs': 50, 'fix_global': 10,    # as the official train_1024p_24G.sh
         'model': 'local', 'recompute': True}
PRESETS = {
    'small': Preset('a first look, minutes on a CPU', {
        'size': (256, 128), 'ngf': 32, 'n_down': 3, 'n_blocks': 6, 'ndf': 32, 'n_scales': 2}),
    'city512': Preset('half the size of the paper, two discriminators', {
        'size': (512, 256), 'n_scales': 2}),
    'city1024': Preset('the first stage of the paper', {'size': (1024, 512)}),
    'city1024-12g': Preset('the same in less memory', {
        'size': (1024, 512), 'recompute': True, 'n_scales': 2}),
    'city2048': Preset('the second stage of the paper; with train, both stages at once', {
        'size': (2048, 1024), 'n_enhancers': 1, **STAGE}),
    'city4096': Preset('a third stage, on crops', {
        'size': (4096, 2048), 'crop': (2048, 1024), 'n_enhancers': 2, **STAGE}),
    'faces': Preset('Helen and other label maps of faces without instances', {
        'size': (512, 512), 'jitter': 1.1, 'features': True, 'features_of': 'label'})}


def apply_preset(args, names):
    """Put the fields of --preset into the namespace of a command line, except for those that its
    flags set or make useless, and print them. names: what the subcommand has flags for."""
    if not getattr(args, 'preset', None):
        return
    given, fields = vars(args), PRESETS[args.preset].fields
    baseline = PIX2PIX if given.get('model') == 'pix2pix' else {}
    settings = {**default_values(NETWORK), **default_values(TRAINING), 'instances': 'files',
                'features': True, **fields, **baseline, **given}
    skipped = {*given, *baseline, *unused_fields(settings)}
    used = {name: fields[name] for name in fields if name in names and name not in skipped}
    given.update(used)
    if not args.quiet:
        flags = ' '.join(as_flag(name, value) for name, value in used.items())
        log_info(f'--preset {args.preset}: {flags or "other flags override all of it"}')
