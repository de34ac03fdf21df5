#!/usr/bin/env python3
"""pix2pixHD from label map to photograph.

    python p2phd.py demo                                 # the whole chain on built-in street scenes
    python p2phd.py train --data cityscapes/             # G1 and the encoder at 1024x512
    python p2phd.py finetune --from runs/cityscapes      # G2 around it at 2048x1024, then G3
    python p2phd.py cluster --run runs/cityscapes-2048x1024
    python p2phd.py generate --label map.png --sample

Read downwards: one function for each subcommand, then what calls them. The parser is in options.py.
"""
from contextlib import contextmanager, nullcontext
import json
import os
from pathlib import Path
import re
import sys
import traceback
from types import SimpleNamespace

# The rest, and torch with it, is imported by the subcommand that needs it: --help answers at once.
from app.common import config as configuration
from app.common.config import DATA, NETWORK, TRAINING
from app.common import console, errors, files
from app.common.console import Progress, status_line, log_info, warn
from app.common.errors import UserError, warn_on_error, is_out_of_memory
from app.common.files import BackgroundQueue, lock_folder, make_folder, read_ahead, resolve_path
from app.cli.command_line import remembered_flags, given_fields, seed_of
from app.cli import command_line

# CPU threads that wait for one another give their core away soon, before torch is imported: they
# would keep a second program, or a process that loads pictures, from it 300 times as long.
os.environ.setdefault('GOMP_SPINCOUNT', '1000')


# --------------------------------------------------------------------------------- subcommands

def check(args):
    """Read everything in a data set, and say what there is and what is wrong."""
    from app.datasets import inspection
    source = source_of(args)
    found = inspection.inspect_dataset(source, thorough=True, progress=inspection.progress_reporter())
    inspection.warn_about_assumptions(source, found)
    inspection.print_report(source, found)
    return 2 if found.problems else 0


def source_of(args):
    """The data set that the command line names."""
    if not hasattr(args, 'data'):
        raise UserError(f'{args.command} needs --data DIR, the folder of the data set')
    return SimpleNamespace(**{**configuration.default_values(DATA), **given_fields(args, DATA),
                              'data': args.data})


def train(args):
    """Train G1, or G2 around it (paper section 3.2), D1 to D3 and, where there are instances, the
    encoder (section 3.4); or the U-Net of pix2pix in place of G."""
    if args.resume is not None:
        return resume(args)
    from app.runs import devices
    from app.evaluation import evaluate as scores
    from app.runs import loop
    from app.runs import runs
    from app.datasets import inspection
    import train

    command_line.log_preset(args)

    # What is there to see.
    source = source_of(args)
    found = inspection.inspect_dataset(source, thorough=source.skip_bad, progress=inspection.progress_reporter())
    folder = runs.new_folder(args.run, resolve_path(args.data).name or 'root', args.dry_run)
    device = devices.pick_device(args.device)
    inspection.warn_about_assumptions(source, found)
    if found.problems and not source.skip_bad or not found.pairs:
        others = len(found.problems) - 1
        raise UserError(next(iter(found.problems.values()))
                        + (f' (and {others} more like it; check lists them)' if others else '')
                        + ('; --skip-bad trains on the rest' if found.pairs else ''))
    for problem in found.problems.values():
        log_info(f'left out: {problem}')

    # What is made of it.
    config = runs.make_config({
        **given_fields(args, {**NETWORK, **TRAINING}), 'flags': remembered_flags(args),
        'left_out': sorted(found.problems), 'pictures': inspection.fingerprint(found.pairs)}, found)
    runs.check_sizes(config, {pair.name: found.sizes[pair.name] for pair in found.pairs})
    seen, held = inspection.hold_out(found.pairs, config.training.hold_out)
    config.training.held = [pair.name for pair in held]
    train.schedule(config, len(seen))
    configuration.check_config(config)
    devices.set_precision(config, device, getattr(args, 'precision', None))
    log_info(inspection.summarise(found, 'training')
        + (', encoder trained along' if config.features else ''))
    loop.steps_for_hours(args.hours, config, device, folder, found.pairs, args.dry_run)
    run = runs.build_run(config, device)
    run.board = loop.board() if args.tensorboard else None
    return loop.start_training(run, folder, found.pairs, scores.scorer(config, found.pairs, folder, device),
                      args.dry_run)


def finetune(args):
    """Coarse to fine (paper section 3.2, figure 3): put a local enhancer around a trained generator
    at twice the size, train it alone for --fix-global epochs, then everything together."""
    if args.resume is not None:
        return resume(args)
    if not hasattr(args, 'base'):
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
    from app.runs import devices
    from app.evaluation import evaluate as scores
    from app.runs import loop
    from app.runs import runs
    from app.datasets import inspection
    import train
    command_line.log_preset(args)
    device = devices.pick_device(args.device)
    path, base = runs.read_run(args.base, n_labels=args.official_labels)
    before = vars(base['config'].training) if base['config'].training else {}
    root = getattr(args, 'data', before.get('data'))
    if not root:
        raise UserError(f'{args.base}: does not say what it was trained on; name it with --data '
                        'DIR')
    if not Path(root).exists():
        raise UserError(f'{root}: the data set of {args.base} is not there; say with --data DIR '
                        'where it is now')

    # A network around the one that there is. Schedule, crop, log and cache are this stage's own;
    # whatever else is not given stays.
    stay = {name: before[name] for name in (
        'split', 'jitter', 'flip', 'workers', 'batch', 'accumulate', 'lr', 'gan', 'vgg',
        'precision', 'compile', 'recompute', 'seed', 'ema', 'hold_out', 'held',
        'lambda_feature', 'lambda_vgg', 'lambda_l1') if name in before}
    if hasattr(args, 'hold_out') and args.hold_out != before.get('hold_out', 0):
        raise UserError(f'--hold-out {args.hold_out}: {args.base} was trained with --hold-out '
                        f'{before.get("hold_out", 0)}, and has seen the others; leave it out')
    network = runs.enhancer_config(base['config'], args.base, given_fields(args, NETWORK))
    config = configuration.make_config(network, {
        **stay, **given_fields(args, TRAINING), 'data': str(resolve_path(root)), 'flags': remembered_flags(args)})
    t = config.training
    t.left_out = inspection.recheck_skipped(config, root, before.get('left_out', ()), t.split)
    config.layout, pairs, sizes = inspection.pairs_for_config(config, root, t.left_out, t.split)
    t.pictures = inspection.fingerprint(pairs)
    runs.check_sizes(config, sizes)
    train.schedule(config, len(inspection.train_and_heldout(config, pairs)[0]))
    configuration.check_flags_used(given_fields(args, {**NETWORK, **TRAINING}), config)
    configuration.check_config(config)
    devices.set_precision(config, device, getattr(args, 'precision', None), before)
    name = re.sub(r'-(\d+x\d+|native)$', '', resolve_path(args.base).name) or 'root'
    folder = runs.new_folder(
        args.run, f'{name}-{configuration.format_value(config.size or "native")}', args.dry_run)

    loop.steps_for_hours(args.hours, config, device, folder, pairs, args.dry_run)
    run = runs.build_run(config, device)
    run.board = loop.board() if args.tensorboard else None
    runs.init_from_base(run, path, {**base['weights'], **base['average']})
    if t.fix_global_steps < t.total_steps:
        log_info(f'{args.base}: enhancer {config.n_enhancers} around it; the rest learns along from '
            f'step {t.fix_global_steps} on')
    else:
        warn(f'warning: --fix-global {t.fix_global} is {t.fix_global_steps} steps, all of this '
             'run: only the new enhancer will learn')
    del base
    return loop.start_training(run, folder, pairs, scores.scorer(config, pairs, folder, device),
                      args.dry_run)


def resume(args):
    """Go on with a run as it was configured, to the bit as if it had never been stopped."""
    from app.runs import checkpoints
    from app.runs import devices
    from app.evaluation import evaluate as scores
    from app.runs import loop
    from app.runs import distributed
    from app.runs import runs
    from app.datasets import inspection
    import train
    n_labels = getattr(args, 'official_labels', None)
    if args.hours or args.dry_run or args.preset or n_labels is not None:
        raise UserError('--hours, --dry-run, --preset and --n-labels: of a new run; --steps or '
                        '--epochs lengthens one')
    folder = runs.resumed_folder(args.resume, args.run, getattr(args, 'data', ''))
    device = devices.pick_device(args.device)
    if not checkpoints.list_checkpoints(folder):
        runs.read_run(folder)                                   # says what is wrong with it
        raise UserError(f'{folder}: a run of the official code cannot be resumed; finetune --from '
                        'starts from it')
    with lock_folder(folder) if distributed.IS_MAIN else nullcontext():
        with distributed.main_process_first():
            run = runs.load_run(folder, device, set_aside=True)
        run.board = loop.board() if args.tensorboard else None
        c, t = run.config, run.config.training
        configuration.apply_resume_overrides(c, {**remembered_flags(args), **given_fields(args, {**NETWORK, **TRAINING})}, folder)
        if t.cache and not hasattr(args, 'cache') and not (Path(t.cache) / 'index.json').is_file():
            # A stranger's file does not choose the folder that is written to.
            warn(f'note: {t.cache} holds no cache; one is made beside {folder}, or where --cache '
                 'DIR says')
            t.cache = ''
        pairs, sizes = inspection.pairs_of_run(c, folder)
        runs.check_sizes(c, sizes)
        train.schedule(c, len(inspection.train_and_heldout(c, pairs)[0]))
        configuration.check_config(c)
        if run.step >= t.total_steps:
            log_info(f'{folder}: trained to the end, {run.step} steps; --epochs or --steps makes it '
                'longer')
            return 0
        with distributed.main_process_first():
            dataset, shown = loop.load_training_data(run, folder, pairs)
        log_info(f'{folder}: going on at step {run.step} of {t.total_steps}')
        make = scores.scorer(c, pairs, folder, device) if distributed.IS_MAIN else None
        score = None
        try:
            score = make and make()
        except UserError as error:                          # its pictures may be gone since
            warn(f'warning: {error}; going on without scores')
        return loop.fit(run, folder, dataset, shown, score)


def cluster(args):
    """Cluster the features of the training set's instances, label by label (paper section 3.4)."""
    from app.runs import distributed
    import generate
    folder, run = trained_run(args)
    if not run.E:
        raise UserError(f'{folder}: trained without --features, there are no styles to cluster')
    seed = seed_of(args)
    found = generate.cluster_run(run, folder, args.data, args.k, args.min_pixels, seed, True)
    if distributed.IS_MAIN:
        log_info(generate.save_run_styles(found, folder, run))
    return 0


def trained_run(args):
    """The run that --run names, or the newest, as --checkpoint, --average and --precision say ->
    folder, Run."""
    from app.runs import devices
    from app.runs import runs
    folder = Path(args.run) if args.run else runs.newest_run()
    run = runs.load_run(folder, devices.pick_device(args.device), False, which=args.checkpoint,
                    average=args.average, n_labels=args.official_labels)
    run.precision = getattr(args, 'precision', run.precision)
    return folder, run


def generate(args):
    """Turn label maps into pictures: G(s, styles), each instance in the most frequent style of its
    label, in one drawn at random, in one chosen, or in that of a photograph (paper section 3.4)."""
    from app.runs import devices
    from app.datasets import layouts
    from app.runs import distributed
    from app.runs import report
    import styles
    import generate
    folder, run = trained_run(args)
    check_wishes(args, folder, run)
    if getattr(args, 'compile', False):
        devices.compile_generator(run)

    # What belongs together, by name.
    layout = run.config.layout
    labels = layouts.files_by_name(args.label, 'label', layout)
    insts = layouts.match_by_name(args.inst, 'inst', layout, labels) if args.inst else {}
    photos = layouts.match_by_name(args.encode, 'image', layout, labels) if args.encode else {}
    out = Path(args.out) if args.out else folder / 'generated'
    for path in map(Path, args.label):
        if path.is_dir() and resolve_path(out).is_relative_to(resolve_path(path)):
            raise UserError(f'--out {out} lies in {path}: its pictures would be taken for label '
                            'maps next time; choose another')
    if args.styles and len(labels) > 1:
        raise UserError(f'--styles {args.styles}: of one scene, and there are {len(labels)} label '
                        'maps')
    known = None
    if run.E and (args.style or not photos) and not args.styles:
        with distributed.main_process_first():
            known = generate.load_or_cluster_styles(run, folder)
    chosen = styles.parse_style_flags(args.style, known)
    make_folder(out)

    seed = seed_of(args)
    unknown, failed, noted, rows = set(), {}, False, {}

    @contextmanager
    def trying(name):                                       # the other maps go on
        try:
            yield
        except UserError as error:
            failed[name] = f'p2phd generate: {error}'
            warn(failed[name])

    def read(name):
        return generate.read_scene(run.config, labels[name], insts.get(name), args.size)

    def write(name, path, picture):
        with trying(name):
            path = generate.write_picture(path, picture)
            log_info(path)
            rows[name][1].append(path.name)

    # The next map is read and the last pictures are written while the networks compute.
    in_background = BackgroundQueue()
    progress, done = Progress('pictures', len(distributed.shard(list(labels))) * args.n), 0
    for name, scene in read_ahead(read, distributed.shard(list(labels))):
        with trying(name):
            scene = scene.result()
            noted = noted or generate.warn_about_size(folder, run.config, labels[name], scene)
            shown = generate.label_to_rgb(run.config, scene.label[0]) if len(labels) > 1 else None
            rows[name] = '' if shown is None else report.thumbnail(shown), []
            if known:
                unknown |= styles.labels_without_styles(scene.labels, known)
            for ending, picture in generate.variations(run, scene, name, seed, args.n, args.sample,
                                                        known, photos.get(name), chosen,
                                                        args.styles):
                in_background(write, name, out / f'{name}_{ending}.png', picture)
                progress(done := done + 1)
    in_background.end()
    status_line('')
    rows = [(name, *row) for part in distributed.all_gather(rows) for name, row in part.items() if row[1]]
    unknown = set().union(*distributed.all_gather(unknown))
    for others in distributed.all_gather(failed):                   # whose stderr nobody sees
        for name in others.keys() - failed.keys():
            warn(others[name])
        failed |= others
    if len(labels) > 1 and rows and distributed.IS_MAIN:
        warn_on_error(lambda: report.write_gallery(out, rows), 'the pictures are there')
    if unknown:
        names = run.config.label_names or range(run.config.n_labels)
        warn(f'warning: no styles for {", ".join(str(names[i]) for i in sorted(unknown))}, which '
             'the training data lacks; the mean of all features stood in')
    if failed and len(labels) > 1:
        warn(f'p2phd generate: {len(failed)} of {len(labels)} label maps could not be used')
    return 2 if failed else 0


def check_wishes(args, folder, run):
    """UserError for flags that the run, or other flags, leave without a meaning."""
    drawn = args.sample and run.config.model != 'unet'      # whose dropout draws
    if (drawn or args.style or args.encode) and not run.E:
        raise UserError(f'{folder}: trained without --features, so it has one style only; leave '
                        'out --sample, --style and --encode')
    if args.inst and run.config.instances == 'none':
        raise UserError(f'--inst: {folder} was trained without instances; leave it out')
    if args.sample and args.encode:
        raise UserError('--sample and --encode: the styles are either drawn or taken from '
                        'photographs')
    if args.styles and (args.sample or args.style or args.encode):
        raise UserError('--styles: has the style of every object; leave out --sample, --style and '
                        '--encode')
    if args.n > 1 and not args.sample:
        raise UserError(f'--n {args.n}: the pictures would all be the same; add --sample')


def edit(args):
    """Change a scene object by object, by a script or on a page (paper section 3.4 and its
    interactive object editing)."""
    from app.datasets import layouts
    from app.editor import scenes
    from app.editor import http_server
    import generate
    folder, run = trained_run(args)
    out = Path(args.out) if args.out else folder / 'edited'
    known = generate.load_or_cluster_styles(run, folder)
    seed = seed_of(args)
    label, inst, own, photo = (path and Path(path) for path in (args.label, args.inst, args.styles,
                                                                args.photo))
    editor = scenes.opened(run, known, label, inst, args.size, own, photo, seed)
    if args.script:
        files.require_regular_file(args.script)
    elif args.last:
        raise UserError('--last: of a script; add --script, or leave it out')
    make_folder(out)
    name = layouts.scene_name(label)
    if args.script:
        for path in scenes.run_script(editor, args.script, out, name, args.last):
            log_info(path)
        return 0
    with lock_folder(out, flag='--out'):
        return http_server.serve(editor, out, name, f'{name}, {folder.name}', args.host, args.port,
                           args.browser)


def evaluate(args):
    """Score runs on pictures that they were not trained on (paper section 4.1): how well a
    segmentation network recognises what they make, how near it is, how much samples differ."""
    from app.runs import devices
    from app.evaluation import evaluate as scores
    from app.runs import runs
    if args.judge and args.predictions:
        raise UserError('--judge and --predictions: one of them recognises the pictures')
    device = devices.pick_device(args.device)
    vgg = runs.load_vgg(args.vgg).to(device) if args.vgg else None
    folders = [Path(folder) for folder in args.run or [runs.newest_run()]]
    scores.evaluate_runs(folders, device, which=args.checkpoint, average=args.average, root=args.data,
                   split=args.split, size=args.size, how=args.styles, void=args.void,
                   judge=args.judge, predictions=args.predictions, seed=seed_of(args),
                   vgg=vgg, write=args.write, out=args.out, n_labels=args.official_labels)
    return 0


def info(args):
    """Say what a run is."""
    from app.runs import report
    from app.runs import runs
    found = report.run_facts(args.run or runs.newest_run(), args.official_labels)
    for line in [json.dumps(found, indent=1)] if args.json else report.describe_facts(found):
        log_info(line, sys.stdout)                               # with -q, too
    return 0


def export(args):
    """Write a run for use without this program."""
    from app.runs import export as exporting
    from app.runs import runs
    import generate
    folder, run = trained_run(args)
    known = generate.load_or_cluster_styles(run, folder)
    if args.official:
        _, checkpoint = runs.read_run(folder, which=args.checkpoint, n_labels=args.official_labels)
        D = checkpoint['weights'].get('D')
        for path in exporting.export_official(folder, run, D, known, Path(args.official)):
            log_info(path)
        return 0
    size = args.size or run.config.size
    if not size:
        raise UserError(f'{folder}: trained at native size; say with --size WxH')
    form = args.format or 'pt2'
    path = Path(args.out or folder / f'exported.{form}')
    free = exporting.export_program(run, known, form, size, path)
    log_info(f'{path}: label, inst, style (rows, columns) int64 -> picture (rows, columns, channels) '
        f'uint8; ' + ('sizes that are multiples of '
                      f'{runs.network_multiple(run.config)}' if free else f'{size[0]}x{size[1]}'))
    return 0


def completion(args):
    """Print a completion file: source <(./p2phd.py completion bash)."""
    from app.cli import completion as completing
    log_info(completing.script(args.shell, command_line.make_parser(__doc__)))
    return 0


def demo(args):
    """The subcommands one after the other on built-in scenes."""
    from app.demo import toy
    return toy.run_demo(Path(args.run), seed_of(args), args.device,
                    lambda words: main(parse(words)))


# ----------------------------------------------------------------------------------------- main

COMMANDS = {'check': check, 'train': train, 'finetune': finetune, 'cluster': cluster,
            'generate': generate, 'edit': edit, 'evaluate': evaluate, 'info': info,
            'export': export, 'completion': completion, 'demo': demo}


def parse(words):
    """The words of a command line -> namespace. Exits with code 2 where they are wrong."""
    return command_line.parse(words, __doc__)


def main(args):
    """Run a subcommand -> exit code: 2 where the user can mend what went wrong, said in one line on
    stderr."""
    console.quiet = args.quiet
    many = os.environ.get('WORLD_SIZE', '') not in ('', '1')    # see ranks
    try:
        command_line.check_versions()
        if many:
            from app.runs import distributed
        code = COMMANDS[args.command](args)
        if many:
            distributed.shut_down()
        return code
    except (UserError, OSError, MemoryError, RuntimeError, ValueError) as error:
        if isinstance(error, (UserError, OSError)) and not is_out_of_memory(error):
            message = error if isinstance(error, UserError) else errors.describe_os_error(error)
        elif 'DataLoader worker' in str(error):
            message = ('a process that loads pictures has died, perhaps of too little (shared) '
                       'memory; train --resume RUN --workers 0 loads them in the trainer')
        elif is_out_of_memory(error):
            message = 'there is not enough memory; try --precision bf16, --crop, a smaller ' \
                      '--size, or fewer channels'
        elif many:
            message = ('another process of this run has ended, and says why; train --resume RUN '
                       'goes on') if distributed.is_connection_error(error) else traceback.format_exc()
        else:
            raise
        if many:
            sys.stderr = sys.__stderr__
            message = f'process {os.environ.get("RANK")}: {message}'
        warn(f'p2phd {args.command}: {message}')
        if many:                                            # threads may wait for the others
            os._exit(2)
        return 2
    except KeyboardInterrupt:
        warn(f'p2phd {args.command}: interrupted')
        return 130


if __name__ == '__main__':
    sys.exit(main(parse(sys.argv[1:])))
