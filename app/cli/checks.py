"""Checks of what the flags of a subcommand mean together. Each raises a UserError that names the
flags and the remedy."""
import sys

from app.common.errors import UserError


def check_versions():
    """Check the versions of Python and PyTorch."""
    if sys.version_info < (3, 11):                          # noqa: UP036
        raise UserError(f'Python {sys.version.split()[0]}: this program needs 3.11 or newer')
    try:
        import numpy, PIL, torch                            # noqa: E401, F401
    except ImportError as error:
        raise UserError(f'{error}; pip install -r requirements.txt installs it') from None
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        raise UserError(f'PyTorch {torch.__version__}: this program needs 2.6 or newer')


def check_flags(args):
    """Check flags that exclude each other, or that need another one."""
    given = {name for name, value in vars(args).items() if value not in (None, False, [])}
    if vars(args).get('resume') is not None:
        if {'hours', 'dry_run', 'preset'} & given or (
                vars(args).get('official_labels') is not None):
            raise UserError('--hours, --dry-run, --preset and --n-labels apply only to new runs; '
                            'use --steps or --epochs to extend this one')
    elif args.command == 'finetune' and 'base' not in given:
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
    if args.command == 'generate' and args.n > 1 and not args.sample:
        raise UserError(f'--n {args.n}: the pictures would all be the same; add --sample')
    if args.command == 'edit' and args.final_only and not args.script:
        raise UserError('--final-only: applies only to --script FILE; add it, or leave this out')
    for commands, flag, others, why in (
            ('train finetune', 'hours', 'steps', 'both say how long to train'),
            ('generate', 'sample', 'encode', 'styles are either random or from photographs'),
            ('generate', 'styles', 'sample style encode', 'the file has a style for every object'),
            ('evaluate', 'judge', 'predictions', 'either of them recognises the pictures'),
            ('export', 'official', 'format size out', 'the official code has its own files')):
        for other in others.split():
            if args.command in commands.split() and {flag, other} <= given:
                raise UserError(f'--{flag} and --{other}: {why}; leave one of them out')


def check_generate(args, folder, config):
    """Check the flags of generate against the configuration of the run in `folder`."""
    draws_styles = args.sample and config.model != 'unet'       # a U-Net draws dropout masks
    if (draws_styles or args.style or args.encode) and not config.features:
        raise UserError(f'{folder}: trained without --features, so it has only one style; leave '
                        'out --sample, --style and --encode')
    if args.inst and config.instances == 'none':
        raise UserError(f'--inst: {folder} was trained without instances; leave it out')
