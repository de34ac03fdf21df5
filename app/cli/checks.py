"""What the flags of a command mean together: UserError where they contradict each other."""
from app.common.errors import UserError


def check_generate(args, folder, config):
    """Check the flags of generate against each other and the run in `folder`."""
    draws_styles = args.sample and config.model != 'unet'       # whose dropout draws
    if (draws_styles or args.style or args.encode) and not config.features:
        raise UserError(f'{folder}: trained without --features, so it has one style only; leave '
                        'out --sample, --style and --encode')
    if args.inst and config.instances == 'none':
        raise UserError(f'--inst: {folder} was trained without instances; leave it out')
    if args.sample and args.encode:
        raise UserError('--sample and --encode: the styles are either drawn or taken from '
                        'photographs')
    if args.styles and (args.sample or args.style or args.encode):
        raise UserError('--styles: has the style of every object; leave out --sample, --style and '
                        '--encode')
    if args.n > 1 and not args.sample:
        raise UserError(f'--n {args.n}: the pictures would all be the same; add --sample')


def check_edit(args):
    if args.last and not args.script:
        raise UserError('--last: of a script; add --script, or leave it out')


def check_evaluate(args):
    if args.judge and args.predictions:
        raise UserError('--judge and --predictions: one of them recognises the pictures')


def check_resume(args):
    if args.hours or args.dry_run or args.preset or hasattr(args, 'official_labels') and \
            args.official_labels is not None:
        raise UserError('--hours, --dry-run, --preset and --n-labels apply only to new runs; use '
                        '--steps or --epochs to extend this one')


def check_finetune(args):
    if not hasattr(args, 'base'):
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
