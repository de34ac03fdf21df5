"""The subcommands around the method, and what all subcommands share."""
import gc
import json
import os
from pathlib import Path
import sys
import traceback

# Other modules, and torch, are imported inside the subcommands, so that --help is fast.
from app.cli.settings import dataset_fields, seed_of
from app.common.console import collect_warnings, log_info, several_processes, wrap
from app.common.errors import UserError, is_out_of_memory, one_line
from app.common.files import lock_folder, make_folder


def check_versions():
    if sys.version_info < (3, 11):                          # noqa: UP036
        raise UserError(f'Python {sys.version.split()[0]}: this program needs 3.11 or newer')
    if 'torch' not in sys.modules:
        gc.disable()
    try:
        import numpy, PIL, torch                            # noqa: E401, F401
    except ImportError as error:
        raise UserError(f'{error}; pip install -r requirements.txt installs it') from None
    if not gc.isenabled():          # Python does not look for garbage in these packages, neither
        gc.freeze()                 # now nor at its end, which saves half a second
        gc.enable()
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):
        raise UserError(f'PyTorch {torch.__version__}: this program needs 2.6 or newer')


def load_trained_run(args, built_in=False):
    """Load the run that --run names, or the newest one; built_in: or the one that comes with the
    program. Return its folder and the run."""
    from app.runs import devices, folders, runs
    folder = Path(args.run) if args.run else folders.newest_run(built_in)
    run = runs.load_run(folder, devices.pick_device(args.device), False, which=args.checkpoint,
                        average=args.average, n_labels=args.official_labels)
    if (given := getattr(args, 'precision', 'auto')) != 'auto':
        run.precision = given
    if getattr(args, 'palette_nearest', False):
        if not run.config.palette:
            raise UserError(f'--palette-nearest: {folder} was trained without --palette; leave it '
                            'out')
        run.config.palette_nearest = True
    return folder, run


def load_clusters(run, folder):
    """Load the styles of a run, or cluster them now and show them on the page of the run."""
    from app.runs import report, run_styles
    return run_styles.load_or_cluster_styles(run, folder, after_save=report.try_write_run_page)


def built_in_scene(folder, run, out):
    """Return the paths of the label map and the instance map of the built-in scene, drawn into
    `out`. UserError if the run in `folder` is not the built-in one, which was trained on such."""
    from app.runs import folders
    if not folders.is_built_in(folder):
        raise UserError(f'--label is missing: name a label map for {folder}')
    from app.demo import builtin
    return builtin.write_scene(out, run.config.size)


def explain(error, args):
    """Return the line that tells a user what went wrong, or None for a fault of the program. args:
    of the command."""
    text, trains = str(error), args.command in ('train', 'finetune')
    if is_out_of_memory(error):
        return 'not enough memory; ' + (
            'use --recompute' if getattr(args, 'resume', None) is not None else
            'use --precision bf16, --recompute, --crop or a smaller --size' if trains else
            'use a smaller --size' if hasattr(args, 'size') else 'end other programs')
    if isinstance(error, UserError):
        return text
    if isinstance(error, OSError) and error.filename is not None:
        path = Path(os.fsdecode(error.filename))
        while path.parent != path and not os.access(path.parent, os.X_OK):
            path = path.parent                      # a folder that may not be entered
        return f'{path}: {error.strerror}; check that it exists and may be used'
    if 'DataLoader worker' in text:
        return ('a process that loads pictures has died, perhaps of too little (shared) memory; '
                + ('start again with --workers 0, which needs no such process' if trains else
                   'end other programs'))
    from data import InputError
    if isinstance(error, (OSError, InputError)):
        return one_line(error)
    if not several_processes():
        return None
    # That another process has ended, gloo only says in words.
    if type(error).__name__.startswith('Dist') or any(
            word in text for word in ('gloo', 'NCCL', 'Connection', 'Broken pipe')):
        return 'another process of this run has ended, see its message; train --resume RUN goes on'
    return traceback.format_exc()


def main_process_reports(error):
    """Whether the first process on this machine reports the same error: all do the same until they
    take their parts of the work."""
    distributed = sys.modules.get('app.runs.distributed')
    return (isinstance(error, UserError) and os.environ.get('LOCAL_RANK', '0') != '0'
            and not (distributed and distributed.works_apart))


def check_outside(flag, folder, config):
    """Raise UserError if a flag names a folder of pictures of the data set of a run to write to."""
    from app.datasets import layouts
    if folder and config.training:
        layouts.check_outside(folder, flag, config.training.data, config.layout)


def check(args):
    """Read a whole data set and report what it holds and what is wrong."""
    from app.datasets import inspection
    source = dataset_fields(args)
    found = inspection.inspect_dataset(source, thorough=True)
    inspection.print_report(source, found)
    return 2 if found.problems else 0


def edit(args):
    """Change the objects of a scene, by a script or on a page (paper section 3.4)."""
    from app.editor import http_server, scene_files
    from app.runs import folders
    folder, run = load_trained_run(args, built_in=True)
    check_outside('--out', args.out, run.config)
    out = Path(args.out or folders.output_folder(folder) / 'edited')
    clusters = load_clusters(run, folder)
    label, inst, styles, photo = (path and Path(path) for path in (
        args.label, args.inst, args.styles, args.photo))
    files, name = {}, scene_files.BLANK
    if not args.blank:
        if not label:
            label, inst = built_in_scene(folder, run, out)
        files = scene_files.find_scenes(label, inst, styles, photo,
                                        run.config.instances != 'none')
        name = next(iter(files))
    listed = scene_files.SceneList(files, args.size, seed_of(args))
    if args.script and len(files) > 1:
        raise UserError(f'--script {args.script} changes one scene, but there are {len(files)} '
                        f'label maps in {label}; name one of them')
    with collect_warnings() as warnings:
        if args.blank:
            editor = blank_editor(args, run, clusters)
        else:
            editor = scene_files.open_listed(run, clusters, listed, name, folder)
    if args.script:
        for path in scene_files.run_script(editor, args.script, out, name, args.final_only):
            log_info(path)
        return 0
    make_folder(out)
    with lock_folder(out, flag='--out'):
        return http_server.serve(editor, out, name, folder.name, args.host, args.port,
                                 args.browser, args.allow_host or (), warnings, listed)


def blank_editor(args, run, clusters):
    """Return an Editor of the scene that --blank and --size describe."""
    from app.common.config import format_value
    from app.editor import arguments, scene_files
    from app.runs import memory
    size = args.size or scene_files.default_size(run.config)
    if not size:
        raise UserError('--blank: the run was trained at many sizes; name one with --size')
    memory.check_picture(run, size, f'--size {format_value(size)}')
    scene_files.require_labels(run)
    try:
        label = arguments.label_number(run, args.blank)
    except UserError as error:
        raise UserError(f'--blank {error}') from None
    return scene_files.blank_scene(run, clusters, label, size, seed_of(args))


def evaluate(args):
    """Score runs on pictures that they were not trained on (paper section 4.1)."""
    from app.evaluation.scoring import evaluate_runs
    from app.runs import devices, folders, runs
    device = devices.pick_device(args.device)
    vgg = runs.load_vgg(args.vgg, 'imagenet').to(device) if args.vgg else None
    evaluate_runs([Path(folder) for folder in args.run or [folders.newest_run()]], args, device,
                  seed_of(args), vgg)


def info(args):
    """Print the facts of a run."""
    from app.runs import folders, report
    facts = report.run_facts(args.run or folders.newest_run(built_in=True), args.official_labels)
    for line in [json.dumps(facts, indent=1)] if args.json else report.describe_facts(facts):
        log_info(line if args.json else wrap(line, 14), sys.stdout)     # with -q, too


def export(args):
    """Write the generator of a run for use without this program."""
    from app.runs import export as exporting, runs
    folder, run = load_trained_run(args, built_in=True)
    clusters = load_clusters(run, folder)
    if args.official:
        _, checkpoint = runs.read_run(folder, which=args.checkpoint, n_labels=args.official_labels)
        paths = exporting.export_official(folder, run, checkpoint['weights'].get('D'), clusters,
                                          Path(args.official))
    else:
        paths = [exporting.export_program(folder, run, clusters, args.format, args.size, args.out)]
    for path in paths:
        log_info(path)


def demo(args, run_words):
    """Run the subcommands one after the other on built-in scenes. run_words: see run_demo."""
    from app.demo.streets import run_demo
    return run_demo(Path(args.run), seed_of(args), args.device, run_words)
