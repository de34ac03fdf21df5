#!/usr/bin/env python3
"""pix2pixHD from label map to photograph.

    python p2phd.py demo                                 # the whole chain on built-in street scenes
    python p2phd.py train --data cityscapes/             # G1 and the encoder at 1024x512
    python p2phd.py finetune --from runs/cityscapes      # G2 around it at 2048x1024, then G3
    python p2phd.py cluster --run runs/cityscapes-2048x1024
    python p2phd.py generate --label map.png --sample

Read downwards: one function for each subcommand, then what calls them.
"""
from contextlib import nullcontext
import json
import os
from pathlib import Path
import re
import signal
import sys
from types import SimpleNamespace

# The rest, and torch with it, is imported by the subcommand that needs it: --help answers at once.
from app.cli import checks, command_line
from app.cli.command_line import given_fields, remembered_flags, seed_of
from app.common import config as configuration
from app.common import console, errors
from app.common.config import DATA, NETWORK, TRAINING
from app.common.console import log_info, warn
from app.common.errors import UserError
from app.common.files import lock_folder, make_folder, require_regular_file, resolve_path

# Threads that wait for one another on the CPU give their core away soon. Otherwise they keep it
# 300 times as long from a second program or a loader process. Set before torch is imported.
os.environ.setdefault('GOMP_SPINCOUNT', '1000')


# ------------------------------------------------------------------------------------- training

def check(args):
    """Read everything in a data set, and report what it holds and what is wrong."""
    from app.datasets import inspection
    source = source_of(args)
    found = inspection.inspect_dataset(source, thorough=True,
                                       progress=inspection.progress_reporter())
    inspection.warn_about_assumptions(source, found)
    inspection.print_report(source, found)
    return 2 if found.problems else 0


def source_of(args):
    """The fields of the data set that the command line names, a namespace."""
    if not hasattr(args, 'data'):
        raise UserError(f'{args.command} needs --data DIR, the folder of the data set')
    return SimpleNamespace(**{**configuration.default_values(DATA), **given_fields(args, DATA),
                              'data': args.data})


def train(args):
    """Train G1, or G2 around it (paper section 3.2), D1 to D3 and, where there are instances, the
    encoder (section 3.4); or the U-Net of pix2pix in place of G."""
    if args.resume is not None:
        return resume(args)
    from app.datasets import inspection
    from app.runs import devices, runs
    import train as training
    command_line.log_preset(args)
    source = source_of(args)
    found = inspection.inspect_dataset(source, thorough=source.skip_bad,
                                       progress=inspection.progress_reporter())
    folder = runs.new_folder(args.run, resolve_path(args.data).name or 'root', args.dry_run)
    device = devices.pick_device(args.device)
    inspection.warn_about_assumptions(source, found)
    inspection.require_usable(source, found)

    config = runs.make_config({
        **given_fields(args, {**NETWORK, **TRAINING}), 'flags': remembered_flags(args),
        'left_out': sorted(found.problems), 'pictures': inspection.fingerprint(found.pairs)}, found)
    runs.check_sizes(config, {pair.name: found.sizes[pair.name] for pair in found.pairs})
    trained_on, heldout = inspection.hold_out(found.pairs, config.training.hold_out)
    config.training.held = [pair.name for pair in heldout]
    training.set_schedule(config, len(trained_on))
    configuration.check_config(config)
    devices.set_precision(config, device, getattr(args, 'precision', None))
    log_info(inspection.summarise(found, 'training')
             + (', encoder trained along' if config.features else ''))
    return start(args, config, folder, device, found.pairs)


def finetune(args):
    """Coarse to fine (paper section 3.2, figure 3): put a local enhancer around a trained generator
    at twice the size, train it alone for --fix-global epochs, then everything together."""
    if args.resume is not None:
        return resume(args)
    checks.check_finetune(args)
    from app.datasets import inspection
    from app.runs import devices, runs
    import train as training
    command_line.log_preset(args)
    device = devices.pick_device(args.device)
    path, base = runs.read_run(args.base, n_labels=args.official_labels)
    config = runs.make_finetune_config(base['config'], args.base, getattr(args, 'data', None), {
        **given_fields(args, {**NETWORK, **TRAINING}), 'flags': remembered_flags(args)})
    t = config.training
    config.layout, pairs, sizes = inspection.pairs_for_config(config, t.data, t.left_out, t.split)
    t.pictures = inspection.fingerprint(pairs)
    runs.check_sizes(config, sizes)
    training.set_schedule(config, len(inspection.train_and_heldout(config, pairs)[0]))
    configuration.check_flags_used(given_fields(args, {**NETWORK, **TRAINING}), config)
    configuration.check_config(config)
    before = base['config'].training
    devices.set_precision(config, device, getattr(args, 'precision', None),
                          vars(before) if before else {})
    name = re.sub(r'-(\d+x\d+|native)$', '', resolve_path(args.base).name) or 'root'
    folder = runs.new_folder(
        args.run, f'{name}-{configuration.format_value(config.size or "native")}', args.dry_run)

    def load_base(run):
        runs.init_from_base(run, path, {**base['weights'], **base['average']})
        runs.log_unfreezing(run, args.base)
    return start(args, config, folder, device, pairs, load_base)


def start(args, config, folder, device, pairs, prepare=lambda run: None):
    """Make a new run and train it. prepare: called with the run before its first step."""
    from app.evaluation.scoring import training_scorer
    from app.runs import distributed, runs, training
    if args.dry_run:
        config.training.cache = None                        # nothing is written
    with distributed.main_process_first():
        loaded = training.load_training_data(config, folder, pairs)
    if args.hours:
        training.set_steps_for_hours(args.hours, config, device, loaded)
    run = runs.build_run(config, device)
    run.log.board = training.import_tensorboard() if args.tensorboard else None
    prepare(run)
    return training.start(run, folder, loaded,
                          lambda: training_scorer(config, pairs, folder, device), args.dry_run)


def resume(args):
    """Continue a run as it was configured, to the bit as if it had never been stopped."""
    checks.check_resume(args)
    from app.datasets import inspection
    from app.evaluation.scoring import training_scorer
    from app.runs import devices, distributed, runs, training
    import train as method
    folder = runs.resumed_folder(args.resume, args.run, getattr(args, 'data', ''))
    device = devices.pick_device(args.device)
    runs.require_resumable(folder)
    with lock_folder(folder) if distributed.IS_MAIN else nullcontext():
        with distributed.main_process_first():
            run = runs.load_run(folder, device, set_aside=True)
        run.log.board = training.import_tensorboard() if args.tensorboard else None
        c, t = run.config, run.config.training
        configuration.apply_resume_overrides(
            c, {**remembered_flags(args), **given_fields(args, {**NETWORK, **TRAINING})}, folder)
        runs.check_cache_folder(c, folder, hasattr(args, 'cache'))
        pairs, sizes = inspection.pairs_of_run(c, folder)
        runs.check_sizes(c, sizes)
        method.set_schedule(c, len(inspection.train_and_heldout(c, pairs)[0]))
        configuration.check_config(c)
        if run.step >= t.total_steps:
            log_info(f'{folder}: trained to the end, {run.step} steps; --epochs or --steps makes '
                     'it longer')
            return 0
        with distributed.main_process_first():
            loaded = training.load_training_data(c, folder, pairs)
        log_info(f'{folder}: going on at step {run.step} of {t.total_steps}')
        run.vgg = loaded.vgg and loaded.vgg.to(device)
        score = None
        try:
            if distributed.IS_MAIN:
                score = training_scorer(c, pairs, folder, device)
        except UserError as error:                          # its pictures may be gone
            warn(f'warning: {error}; going on without scores')
        return training.fit(run, folder, loaded, score)


# ------------------------------------------------------------------------------------- pictures

def load_trained_run(args):
    """Load the run that --run names, or the newest. Returns its folder and the run."""
    from app.runs import devices, runs
    folder = Path(args.run) if args.run else runs.newest_run()
    run = runs.load_run(folder, devices.pick_device(args.device), False, which=args.checkpoint,
                        average=args.average, n_labels=args.official_labels)
    run.precision = getattr(args, 'precision', run.precision)
    return folder, run


def load_styles(run, folder):
    """Load the styles of a run, or cluster them now. The run's page then shows them."""
    from app.runs import distributed, report, run_styles
    with distributed.main_process_first():
        return run_styles.load_or_cluster_styles(run, folder,
                                                 after_save=report.try_write_run_page)


def cluster(args):
    """Cluster the features of the training set's instances, label by label (paper section 3.4)."""
    from app.runs import distributed, report, run_styles
    folder, run = load_trained_run(args)
    if not run.E:
        raise UserError(f'{folder}: trained without --features, there are no styles to cluster')
    clusters = run_styles.cluster_run(run, folder, args.data, args.k, args.min_pixels,
                                      seed_of(args), shared=True)
    if distributed.IS_MAIN:
        log_info(run_styles.save_styles(clusters, folder, run.log.variant))
        if run.config.training:
            report.try_write_run_page(folder, run.config, 'the styles are there')
    return 0


def generate(args):
    """Turn label maps into pictures: G(s, styles), each instance in the most frequent style of its
    label, in one drawn at random, in one chosen, or in that of a photograph (paper section 3.4)."""
    from app.runs import devices, generation, run_styles
    folder, run = load_trained_run(args)
    checks.check_generate(args, folder, run.config)
    if getattr(args, 'compile', False):
        devices.compile_generator(run)
    files = generation.pair_files(run.config, args.label, args.inst, args.encode)
    out = Path(args.out) if args.out else folder / 'generated'
    generation.check_output_folder(out, list(map(Path, args.label)))
    if args.styles and len(files.labels) > 1:
        raise UserError(f'--styles {args.styles}: of one scene, and there are {len(files.labels)} '
                        'label maps')
    clusters = None
    if run.E and (args.style or not files.photos) and not args.styles:
        clusters = load_styles(run, folder)
    choice = generation.StyleChoice(seed_of(args), args.sample, args.n, clusters,
                                    run_styles.parse_style_flags(args.style, clusters), args.styles)
    make_folder(out)
    return 2 if generation.make_pictures(run, folder, files, out, choice, args.size) else 0


def edit(args):
    """Change a scene object by object, by a script or on a page (paper section 3.4 and its
    interactive object editing)."""
    from app.datasets import layouts
    from app.editor import http_server, scenes
    folder, run = load_trained_run(args)
    out = Path(args.out) if args.out else folder / 'edited'
    clusters = load_styles(run, folder)
    label, inst, styles, photo = (path and Path(path) for path in (
        args.label, args.inst, args.styles, args.photo))
    editor = scenes.opened(run, clusters, label, inst, args.size, styles, photo, seed_of(args))
    checks.check_edit(args)
    if args.script:
        require_regular_file(args.script)
    make_folder(out)
    name = layouts.scene_name(label)
    if args.script:
        for path in scenes.run_script(editor, args.script, out, name, args.last):
            log_info(path)
        return 0
    with lock_folder(out, flag='--out'):
        return http_server.serve(editor, out, name, f'{name}, {folder.name}', args.host, args.port,
                                 args.browser)


# ----------------------------------------------------------------------------- what one has of them

def evaluate(args):
    """Score runs on pictures that they were not trained on (paper section 4.1): how well a
    segmentation network recognises what they make, how near it is, how much samples differ."""
    checks.check_evaluate(args)
    from app.evaluation.evaluate import evaluate_runs
    from app.runs import devices, runs
    device = devices.pick_device(args.device)
    vgg = runs.load_vgg(args.vgg).to(device) if args.vgg else None
    folders = [Path(folder) for folder in args.run or [runs.newest_run()]]
    evaluate_runs(
        folders, device, which=args.checkpoint, average=args.average, root=args.data,
        split=args.split, size=args.size, style_source=args.styles, void=args.void,
        judge=args.judge, predictions=args.predictions, seed=seed_of(args), vgg=vgg,
        write=args.write, out=args.out, n_labels=args.official_labels)
    return 0


def info(args):
    """Say what a run is."""
    from app.runs import report, runs
    facts = report.run_facts(args.run or runs.newest_run(), args.official_labels)
    for line in [json.dumps(facts, indent=1)] if args.json else report.describe_facts(facts):
        log_info(line, sys.stdout)                          # with -q, too
    return 0


def export(args):
    """Write a run for use without this program."""
    from app.runs import export as exporting
    from app.runs import runs
    folder, run = load_trained_run(args)
    clusters = load_styles(run, folder)
    if args.official:
        _, checkpoint = runs.read_run(folder, which=args.checkpoint, n_labels=args.official_labels)
        D = checkpoint['weights'].get('D')
        for path in exporting.export_official(folder, run, D, clusters, Path(args.official)):
            log_info(path)
        return 0
    size = args.size or run.config.size
    if not size:
        raise UserError(f'{folder}: trained at native size; say with --size WxH')
    kind = args.format or 'pt2'
    path = Path(args.out or folder / f'exported.{kind}')
    log_info(exporting.export_program(run, clusters, kind, size, path))
    return 0


def demo(args):
    """Run the subcommands one after the other on built-in scenes."""
    from app.demo.demo import run_demo
    return run_demo(Path(args.run), seed_of(args), args.device, lambda words: main(parse(words)))


# ----------------------------------------------------------------------------------------- main

COMMANDS = {'check': check, 'train': train, 'finetune': finetune, 'cluster': cluster,
            'generate': generate, 'edit': edit, 'evaluate': evaluate, 'info': info,
            'export': export, 'demo': demo}


def parse(words):
    """Parse the words of a command line: a namespace. Exits with code 2 where they are wrong."""
    return command_line.parse(words, __doc__)


def main(args):
    """Run a subcommand. Returns the exit code: 2 where the user can mend what went wrong, which one
    line on stderr says."""
    console.quiet = args.quiet
    several = os.environ.get('WORLD_SIZE', '') not in ('', '1')     # see app/runs/distributed.py
    try:
        command_line.check_versions()
        if several:
            from app.runs import distributed
        code = COMMANDS[args.command](args)
        if several:
            distributed.shut_down()
        return code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)        # pressed more than once
        warn(f'p2phd {args.command}: interrupted')
        return 130
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        message = errors.explain(error, several)
        if message is None:
            raise
        if several:
            sys.stderr = sys.__stderr__
            message = f'process {os.environ.get("RANK")}: {message}'
        warn(f'p2phd {args.command}: {message}')
        if several:                                         # threads may wait for the others
            os._exit(2)
        return 2


if __name__ == '__main__':
    sys.exit(main(parse(sys.argv[1:])))
