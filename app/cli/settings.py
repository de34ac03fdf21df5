"""What flags mean: the settings that they give, what --preset stands for, which go together."""
from collections import namedtuple
from types import SimpleNamespace

from app.common.config import (DATA, LOCAL_HOST, NETWORK, PIX2PIX, TRAINING, as_flag,
                               default_values, flag_name, unused_fields)
from app.common.console import log_info, wrap
from app.common.errors import UserError
from app.common.files import resolve_path


def given_fields(args):
    """Return {field: value} of the fields of a configuration that the command line gives. The last
    one, `flags`, has all that the run stores of the command line."""
    fields = {*NETWORK, *TRAINING}
    remembered = {*fields, *DATA, 'base', 'match_labels'}
    flags = {name: value for name, value in vars(args).items()
             if name in remembered and (name, value) != ('precision', 'auto')}
    values = {name: value for name, value in flags.items() if name in fields}
    for name in ('data', 'vgg', 'cache'):               # the run may go on in another folder
        if values.get(name) and values[name] != 'fetch':
            values[name] = str(resolve_path(values[name]))
    if values.get('size') == 'native':
        values['size'] = None
    return {**values, 'flags': flags}


def seed_of(args, default=TRAINING['seed'].default):
    return getattr(args, 'seed', default)


def dataset_fields(args):
    """Return a namespace of the fields of config.DATA. Raises UserError without --data."""
    if not hasattr(args, 'data'):
        raise UserError(f'{args.command} needs --data DIR, the folder of the data set')
    return SimpleNamespace(**{name: getattr(args, name, DATA[name].default) for name in DATA})


def check_flags(args):
    """Check flags that exclude each other, or that need another one."""
    given = {name for name, value in vars(args).items()
             if value is not None and value is not False and value != []}
    if 'resume' in given:
        of_new_runs = {'hours': '--hours', 'dry_run': '--dry-run', 'preset': '--preset',
                       'official_labels': '--from-n-labels' if args.command == 'train' else
                       '--n-labels'}
        for name, flag in of_new_runs.items():
            if name in given:
                raise UserError(f'{flag}: applies only to new runs; leave it out. --steps or '
                                '--epochs extends this one')
    elif args.command == 'finetune' and 'base' not in given:
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
    elif args.command == 'train' and 'base' not in given and (
            {'match_labels', 'official_labels'} & given):
        raise UserError('--match-labels and --from-n-labels: apply only with --from RUN; add it, '
                        'or leave them out')
    if args.command == 'generate' and args.n > 1 and not args.sample:
        remedy = 'leave it out' if {'encode', 'styles'} & given else 'add --sample'
        raise UserError(f'--n {args.n}: the pictures would all be the same; {remedy}')
    if args.command == 'edit' and args.final_only and not args.script:
        raise UserError('--final-only: applies only to --script FILE; add it, or leave this out')
    if args.command in ('generate', 'edit') and not args.label:
        for name in ('inst', 'styles', 'encode', 'photo'):
            if name in given:
                remedy = 'leave it out' if 'blank' in given else 'name it with --label'
                raise UserError(f'--{name}: belongs to a label map; {remedy}')
    if args.command == 'edit' and args.script:
        for name, default in (('allow_host', None), ('host', LOCAL_HOST), ('port', 0)):
            if getattr(args, name) != default:
                raise UserError(f'{flag_name(name)}: applies only to the page; leave it out with '
                                '--script')
    for commands, flag, others, why in (
            ('train finetune', 'hours', 'steps', 'both say how long to train'),
            ('train finetune', 'steps', 'epochs decay_epochs', 'both say how long to train'),
            ('generate', 'sample', 'encode', 'styles are either random or from photographs'),
            ('generate', 'styles', 'sample style encode', 'the file has a style for every object'),
            ('edit', 'styles', 'photo', 'both set the styles'),
            ('edit', 'blank', 'label', 'either of them is the scene'),
            ('evaluate', 'judge', 'predictions', 'either of them recognises the pictures'),
            ('export', 'official', 'format size out', 'the official code has its own files')):
        for other in others.split():
            if args.command in commands.split() and {flag, other} <= given:
                raise UserError(f'--{flag} and {flag_name(other)}: {why}; leave one of them out')


# The settings of the paper for Cityscapes, and settings that need less memory or time.
Preset = namedtuple('Preset', 'text fields')
STAGE = {'epochs': 50, 'decay_epochs': 50, 'fix_global': 10,    # as the official train_1024p_24G.sh
         'model': 'local'}
PRESETS = {
    'small': Preset('a first look, minutes on a CPU or GPU', {
        'size': (256, 128), 'ngf': 32, 'n_down': 3, 'n_blocks': 6, 'ndf': 32}),
    'city512': Preset('half as large, two discriminators', {'size': (512, 256), 'n_scales': 2}),
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
    flags = ' '.join(as_flag(name, value) for name, value in used.items())
    log_info(wrap(f'--preset {args.preset}: {flags or "other flags override all of it"}'))
