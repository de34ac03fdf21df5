#!/usr/bin/env python3
"""pix2pixHD from label map to photograph.

    python p2phd.py generate --sample --n 4              # with the built-in run
    python p2phd.py demo                                 # the whole chain on built-in street scenes
    python p2phd.py train --data cityscapes/             # G1 and the encoder at 1024x512
    python p2phd.py finetune --from runs/cityscapes      # G2 at 2048x1024; run it again for G3
    python p2phd.py cluster --run runs/cityscapes-2048x1024
    python p2phd.py generate --label map.png --sample"""
# The other subcommands are in app/cli/commands.py. What a command adds to train.py, generate.py and
# styles.py (files, logs, messages) is in app/runs/: training.py, generation.py, run_styles.py.
from contextlib import nullcontext
import os
from pathlib import Path
import re
import signal
import sys

# Other modules, and torch, are imported inside the subcommands, so that --help is fast.
from app.cli import commands, parser
from app.cli.settings import check_flags, dataset_fields, given_fields, seed_of
from app.common import config as configuration, threads
from app.common.console import log_info, several_processes, warn, wrap
from app.common.errors import UserError
from app.common.files import lock_folder, make_folder, require_folder, resolve_path

threads.set_waiting()                               # before torch is imported


def train(args):
    """Train the discriminators, the generator and, where there are instances, the encoder (paper
    sections 3.2 and 3.4). The generator is G1; with --model local, unlike in the paper, G1 and G2
    from the start; with --model unet, the U-Net of pix2pix. With --from they begin with the weights
    of another run."""
    from app.datasets import inspection
    from app.runs import configurations, devices, folders, memory, transfer
    from train import encoder_is_trained
    source = dataset_fields(args)
    base = transfer.read_base(args.base, args.official_labels) if hasattr(args, 'base') else None
    found = inspection.inspect_dataset(source, thorough=source.skip_bad)
    folder = folders.new_folder(args.run, resolve_path(args.data).name or 'root', args.dry_run)
    device = devices.pick_device(args.device)
    inspection.require_usable(source, found)
    given = given_fields(args)
    if base:
        config = configurations.make_config_from(base, given, found)
        load_weights = transfer.weights_loader(config, base, getattr(args, 'match_labels', None))
    else:
        config, load_weights = configurations.make_config(given, found), None
    configurations.complete_config(config, found.pairs, found.sizes)
    memory.check_weights(config, device)
    devices.set_precision(config, device, args, base and base.training)
    log_info(wrap(inspection.summarise(found, source.split)
                  + ', the encoder is trained as well' * encoder_is_trained(config)))
    return start(args, config, folder, device, found.pairs, load_weights)


def finetune(args):
    """Coarse to fine (paper section 3.2, figure 3): put a local enhancer around a trained generator
    at twice the size, train it and D for --fix-global epochs, then all of G and D together."""
    from app.datasets import inspection
    from app.runs import configurations, devices, folders, memory, runs
    device = devices.pick_device(args.device)
    path, base = runs.read_run(args.base, n_labels=args.official_labels)
    runs.require_discriminators(path, base)
    given, before = given_fields(args), base['config'].training
    config = configurations.make_finetune_config(base['config'], args.base, given)
    t = config.training
    config.layout, pairs, sizes = inspection.pairs_for_config(config, t.data, t.left_out, t.split)
    t.pictures = inspection.fingerprint(pairs)
    configurations.complete_config(config, pairs, sizes)
    configuration.check_flags_used(given, config)
    memory.check_weights(config, device)
    devices.set_precision(config, device, args, before and vars(before))
    name = re.sub(r'-(\d+x\d+|native)$', '', resolve_path(args.base).name) or 'root'
    size = configuration.format_value(config.size or 'native')
    folder = folders.new_folder(args.run, f'{name}-{size}', args.dry_run)

    def load_base(run):
        runs.init_from_base(run, path, {**base['weights'], **base['average']})
        base.clear()                                        # frees its memory
    return start(args, config, folder, device, pairs, load_base)


def start(args, config, folder, device, pairs, load_weights=None):
    """Make a new run and train it. load_weights: called with the run before its first step."""
    from app.evaluation.scoring import training_scorer
    from app.runs import distributed, runs, training
    if args.dry_run:
        config.training.cache = None                        # nothing is written
    else:
        commands.check_outside('--run', folder, config)
        commands.check_outside('--cache', config.training.cache, config)
    with distributed.main_process_first():
        loaded = training.load_training_data(config, folder, pairs)
    if args.hours:
        training.set_steps_for_hours(args.hours, config, device, loaded)
    run = runs.build_run(config, device)
    if load_weights:
        load_weights(run)
    return training.start(run, folder, loaded,
                          lambda: training_scorer(config, pairs, folder, device), args.dry_run)


def resume(args):
    """Continue a run with its own settings. On the CPU, with the same number of threads, the result
    is identical to that of an uninterrupted run, to the bit."""
    from app.datasets import inspection
    from app.evaluation.scoring import training_scorer
    from app.runs import configurations, devices, distributed, folders, runs, training
    folder = folders.resumed_folder(args.resume, args.run, getattr(args, 'data', ''))
    device = devices.pick_device(args.device)
    if not folders.list_checkpoints(folder):
        runs.read_run(folder)                               # raises a UserError that says more
        raise UserError(f'{folder}: a run of the official code; finetune --from starts from it')
    if folders.is_built_in(folder):                         # it may be read-only: no lock
        runs.require_discriminators(*runs.read_run(folder))
    with lock_folder(folder) if distributed.IS_MAIN else nullcontext():
        given = given_fields(args)
        with distributed.main_process_first():
            run = runs.load_run(folder, device, set_aside=True,
                                overrides=given.pop('flags') | given)
        cache = run.config.training.cache
        if cache and not hasattr(args, 'cache') and not Path(cache, 'index.json').is_file():
            # A checkpoint of a stranger must not choose the folder that is written to.
            warn(f'note: {cache} holds no cache; one is made beside {folder}, or in --cache DIR')
            run.config.training.cache = ''
        commands.check_outside('--cache', getattr(args, 'cache', ''), run.config)
        pairs, sizes = inspection.pairs_of_run(run.config, folder)
        configurations.complete_config(run.config, pairs, sizes)
        if run.step >= run.config.training.total_steps:
            log_info(f'{folder}: already trained to the end, {run.step} steps; use --epochs or '
                     '--steps to train longer')
            return 0
        with distributed.main_process_first():
            loaded = training.load_training_data(run.config, folder, pairs)
        return training.continue_run(run, folder, loaded,
                                     lambda: training_scorer(run.config, pairs, folder, device))


def cluster(args):
    """Cluster the features of the training set's instances, label by label (paper section 3.4)."""
    from app.runs import distributed, folders, report, run_styles
    folder, run = commands.load_trained_run(args)
    if folders.is_built_in(folder):
        raise UserError(f'{folder}: the built-in run keeps its styles; copy the folder to cluster '
                        'the copy')
    if not run.E:
        raise UserError(f'{folder}: trained without --features, so there are no styles to cluster')
    seed = seed_of(args, run_styles.default_seed(run))
    clusters = run_styles.cluster_run(run, folder, args.data, args.k, args.min_pixels, seed,
                                      shared=True)
    if distributed.IS_MAIN:
        log_info(run_styles.save_styles(clusters, folder, run))
        report.try_write_run_page(folder, run.config)


def generate(args):
    """Turn label maps into pictures (paper section 3.4). An instance has the most frequent style of
    its label. --sample draws it, --style chooses it, --encode takes it from a photograph."""
    from app.runs import devices, folders, generation, memory, run_styles
    folder, run = commands.load_trained_run(args, built_in=True)
    is_unet = run.config.model == 'unet'            # it draws dropout masks, not styles
    draws_styles = args.sample and not is_unet
    if hasattr(args, 'seed') and not (args.sample or is_unet):
        raise UserError(f'--seed {args.seed}: nothing is random here; add --sample, or leave it '
                        'out')
    if (draws_styles or args.style or args.encode) and not run.E:
        raise UserError(f'{folder}: trained without --features, so it has no styles; leave '
                        'out --sample, --style and --encode')
    if args.inst and run.config.instances == 'none':
        raise UserError(f'--inst: {folder} was trained without instances; leave it out')
    if getattr(args, 'compile', False):
        devices.compile_generator(run)
    commands.check_outside('--out', args.out, run.config)
    out = Path(args.out or folders.output_folder(folder) / 'generated')
    label, inst = args.label, args.inst
    if not label:
        label, inst = ([path] for path in commands.built_in_scene(folder, run, out))
    files = generation.pair_files(label, inst, args.encode, out)
    if args.styles and len(files.labels) > 1:
        raise UserError(f'--styles {args.styles} describes one scene, but there are '
                        f'{len(files.labels)} label maps; generate them one at a time')
    if args.size:
        memory.check_picture(run, args.size, f'--size {configuration.format_value(args.size)}')
    require_folder(out)                                         # before what takes long
    uses_clusters = (args.style or not files.photos) and not args.styles
    clusters = commands.load_clusters(run, folder) if uses_clusters else None
    choice = generation.StyleChoice(seed_of(args), args.sample, args.n, clusters,
                                    run_styles.parse_style_flags(args.style, clusters), args.styles)
    make_folder(out)
    return 2 if generation.make_pictures(run, folder, files, out, choice, args.size) else 0


COMMANDS = {'train': train, 'finetune': finetune, 'cluster': cluster, 'generate': generate,
            'check': commands.check, 'edit': commands.edit, 'evaluate': commands.evaluate,
            'info': commands.info, 'export': commands.export,
            'demo': lambda args: commands.demo(args, main)}


def main(words):
    """Run a command line, a list of words. Return the exit code; 2 is a user error, which one line
    on stderr explains. Exit with code 2 where the parser refuses the words."""
    args = parser.parse(words, __doc__)
    try:
        commands.check_versions()
        check_flags(args)
        from app.runs import distributed
        resumes = getattr(args, 'resume', None) is not None
        code = resume(args) if resumes else COMMANDS[args.command](args)
        distributed.shut_down()
        return code or 0
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)        # ignore further Ctrl-C
        warn(f'p2phd {args.command}: interrupted')
        return 130
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        message = commands.explain(error, args)
        if message is None:
            raise
        if several_processes():
            sys.stderr = sys.__stderr__     # app/runs/distributed.py silences all but one process
            message = f'process {os.environ.get("RANK", "?")}: {message}'
        if several_processes() and commands.main_process_reports(error):
            parser.wait_for_main_process()
        else:
            warn(f'p2phd {args.command}: {message}')
        if several_processes():                             # a normal exit could hang
            os._exit(2)
        return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
