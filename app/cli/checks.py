"""Checks of what the flags of a subcommand mean together. Each raises a UserError that names the
flags and the remedy."""
import re
import sys

from app.common.errors import UserError

PYTHON, TORCH = (3, 11), (2, 6)                     # the oldest versions that work


def check_versions():
    """Check the versions of Python and PyTorch."""
    def dotted(version):
        return '.'.join(map(str, version[:2]))

    if sys.version_info < PYTHON:
        raise UserError(f'Python {dotted(sys.version_info)}: this program needs {dotted(PYTHON)} '
                        'or newer')
    try:
        import numpy, PIL, torch                            # noqa: E401, F401
    except ImportError as error:
        raise UserError(f'{error}; pip install -r requirements.txt installs it') from None
    if tuple(map(int, re.findall(r'\d+', torch.__version__)[:2])) < TORCH:
        raise UserError(f'PyTorch {torch.__version__}: this program needs {dotted(TORCH)} or newer')


def check_train(args):
    if args.hours and hasattr(args, 'steps'):
        raise UserError(f'--hours {args.hours:g} and --steps {args.steps}: leave one of them out')


def check_finetune(args):
    if not hasattr(args, 'base'):
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
    check_train(args)


def check_resume(args):
    if args.hours or args.dry_run or args.preset or (
            getattr(args, 'official_labels', None) is not None):
        raise UserError('--hours, --dry-run, --preset and --n-labels apply only to new runs; use '
                        '--steps or --epochs to extend this one')


def check_generate(args, folder, config):
    """folder, config: of the run that makes the pictures."""
    draws_styles = args.sample and config.model != 'unet'       # a U-Net draws dropout masks
    if (draws_styles or args.style or args.encode) and not config.features:
        raise UserError(f'{folder}: trained without --features, so it has only one style; leave '
                        'out --sample, --style and --encode')
    if args.inst and config.instances == 'none':
        raise UserError(f'--inst: {folder} was trained without instances; leave it out')
    if args.sample and args.encode:
        raise UserError('--sample and --encode: styles are either random or taken from '
                        'photographs; leave one of them out')
    if args.styles and (args.sample or args.style or args.encode):
        raise UserError('--styles: the file has a style for every object; leave out --sample, '
                        '--style and --encode')
    if args.n > 1 and not args.sample:
        raise UserError(f'--n {args.n}: the pictures would all be the same; add --sample')


def check_edit(args):
    if args.final_only and not args.script:
        raise UserError('--final-only: applies only to --script FILE; add it, or leave this out')


def check_evaluate(args):
    if args.judge and args.predictions:
        raise UserError('--judge and --predictions: either of them recognises the pictures; leave '
                        'one of them out')


def check_export(args):
    for flag in ('format', 'size', 'out'):
        if args.official and getattr(args, flag):
            raise UserError(f'--official and --{flag}: the official code has its own files and '
                            f'folder; leave --{flag} out')
