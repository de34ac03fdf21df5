"""Train a run: load its data, print a summary, call the loop, handle signals."""
from collections import namedtuple
from contextlib import contextmanager, suppress
import gc
import os
import signal
import time

import torch

from app.common import config as configuration
from app.common.console import (format_duration, log_info, plural, quote, status_line, warn,
                                warn_on_error, wrap)
from app.common.errors import UserError
from app.common.files import lock_folder, make_folder
from app.datasets import inspection
from app.datasets.pairs import PairReader, open_dataset
from app.runs import (checkpoints, configurations, cuda_graphs, devices, distributed, folders,
                      memory, report, runs)
from app.runs.hooks import MOST_SHOWN, make_hook, prepare_run_folder
import data
import nets
import train

# A data.PairedDataset, items that are not trained on for sheets, and nets.VGG19 or None.
TrainingData = namedtuple('TrainingData', 'dataset shown vgg')


def load_training_data(config, folder, pairs):
    """Load the TrainingData of the run in `folder`. pairs: layouts.Pairs. Raises UserError."""
    t, shares = config.training, distributed.WORLD_SIZE * config.training.accumulate
    if t.batch % shares:
        raise UserError(f'--batch {t.batch}: {distributed.WORLD_SIZE} processes share a batch; '
                        f'take a multiple of {shares}')
    vgg = runs.load_vgg(t.vgg, t.vgg_input) if t.vgg else None
    cache = folders.sibling_folder(folder, '-cache') if t.cache == '' else t.cache
    pairs, heldout = inspection.train_and_heldout(config, pairs)
    heldout = heldout or inspection.other_split_pairs(config, MOST_SHOWN,
                                                      configurations.min_training_side(config))
    read = PairReader(config, config.size)
    same = {'crop': t.crop, 'multiple': nets.input_multiple(config)}
    dataset = open_dataset(pairs, read, cache, flip=t.flip, jitter=t.jitter, seed=t.seed,
                           workers=t.workers, **same)
    dataset[0, 0]                           # an error now, not after networks are built
    if config.n_labels and not config.features and config.present is None:
        config.present = inspection.find_present_labels(dataset)
    heldout, shown = open_dataset(heldout[:MOST_SHOWN], read, keep=False, **same), []
    for i in range(len(heldout)):
        warn_on_error(lambda: shown.append(heldout[0, i]), 'the sheets are drawn without it')
    return TrainingData(dataset, shown, vgg)


def load_batches(run, loaded, start, stop):
    """Yield this process's batches of the steps start ... stop - 1."""
    t = run.config.training
    return data.batches(loaded.dataset, run.device, batch_sampler=data.ResumableBatchSampler(
        len(loaded.dataset), t.batch, start, stop, t.seed, distributed.shard))


def prepare_steps(run, loaded):
    """Make a run ready for training steps: VGG-19, what saves memory, what makes them fast. Returns
    what memory.compare_memory does."""
    run.vgg = loaded.vgg and loaded.vgg.to(run.device)
    run.cudnn_benchmark = bool(run.config.training.crop or run.config.size)
    compared = memory.compare_memory(run)           # before the first step takes memory
    set_threads(run, loaded)
    return compared


def print_memory(enough, message):
    """Print what memory.compare_memory returned."""
    if message:
        (log_info if enough else warn)(message)


def set_threads(run, loaded, clock=time.perf_counter):
    """Set the number of threads on the CPU: that of --threads, of OMP_NUM_THREADS, of a run that
    goes on, or the one with which this run's forward and backward pass are fastest."""
    t = run.config.training

    def measure(threads):
        torch.set_num_threads(threads)
        seconds = []
        while sum(seconds) < (5 if len(seconds) < 4 else 1):       # the first one is slower
            started = clock()
            train.forward_backward(run, *batch, 0)
            seconds.append(clock() - started)
        return min(seconds)

    measures = t.threads is None and not run.step and run.device.type == 'cpu'
    if 'OMP_NUM_THREADS' in os.environ and 'threads' not in t.flags:
        t.threads = torch.get_num_threads()
    elif measures:
        items = [loaded.dataset[0, i % len(loaded.dataset)] for i in range(t.batch // t.accumulate)]
        batch = data.to_device(data.collate(items, run.config.n_labels), run.device)
        run.D.eval()                                # spectral norm keeps its state
        t.threads = distributed.all_gather(devices.pick_threads(measure, data.count_cores()))[0]
        run.D.train()
        run.opt_G.zero_grad()
        run.opt_D.zero_grad()
    t.threads = t.threads or torch.get_num_threads()
    torch.set_num_threads(t.threads)


def measure_step(run, loaded, budget=0, n=None):
    """Return the mean seconds of a step, with loading, over the later ones of n steps, or of so
    many as fit into `budget` seconds. The run cannot be used afterwards."""
    on_gpu = run.device.type == 'cuda'
    t, n, times = run.config.training, n or (40 if on_gpu else 4), []
    cuda_graphs.use_graphs(run)
    for batch in load_batches(run, loaded, 0, n):
        run.step = min(t.fix_global_steps, t.total_steps - 1)       # when everything is trained
        terms = train.train_step(run, *data.to_device(batch, run.device), distributed.all_reduce,
                                 distributed.RANK)
        float(terms['d_real'])                              # waits for the device
        times.append(time.perf_counter())
    skipped = n // 2 if on_gpu else 1       # the first ones are slower, on a GPU many of the first
    seconds = (times[-1] - times[skipped - 1]) / (n - skipped)
    fitting = distributed.all_gather(int(budget / seconds))[0]
    return seconds if fitting <= n else measure_step(run, loaded, n=fitting)


def set_steps_for_hours(hours, config, device, loaded):
    """Set the schedule of a configuration to as many steps as fit into some hours."""
    t = config.training
    run = runs.build_run(config, device)
    prepare_steps(run, loaded)
    seconds = measure_step(run, loaded, budget=min(30, 36 * hours))     # one per cent of the time
    t.steps = distributed.all_gather(max(1, int(hours * 3600 / seconds)))[0]
    t.flags['steps'] = t.steps
    log_info(f'--hours {hours:g}: {t.steps} steps of {seconds:.3g} s')
    del run
    gc.collect()                                # the run is in a cycle with a hook of its G
    if device.type == 'cuda':
        torch.cuda.empty_cache()
    train.set_schedule(config, len(loaded.dataset))
    configuration.check_config(config)


def start(run, folder, loaded, make_score, dry_run=False):
    """Print a summary, make the folder of a new run and train. Returns the exit code. make_score:
    makes `score`, see fit, or returns None. dry_run: only estimate memory and time."""
    c, t, n = run.config, run.config.training, len(loaded.dataset)
    enough, message = prepare_steps(run, loaded)
    where = run.device if run.device.type == 'cuda' else plural(t.threads, 'CPU thread')
    weights = ', '.join(
        f'{name} {sum(p.numel() for p in getattr(run, name).parameters()) / 1e6:.1f}M'
        for name in 'GDE' if getattr(run, name))
    size = configuration.format_value(c.size) if c.size else 'native size'
    decay = ', then falling to 0 at the end' if t.decay_start < t.total_steps else ''
    frozen = f'; only the new enhancer until step {t.fix_global_steps}' * bool(t.fix_global_steps)
    saved, drawn = ('at the end' if often >= t.total_steps else f'every {often} steps'
                    for often in (t.save_every, t.sample_every))
    advice = ['  losses    without the perceptual loss; with --vgg, pictures are clearer after the '
              'same time'] if not t.vgg and c.out_channels == 3 and c.model != 'unet' else []
    for line in (f'{folder}: {size}, {t.total_steps} steps of {t.batch} on {where} in '
                 f'{t.precision}, weights {weights}',
                 f'  pictures  {n} to train on, {plural(len(loaded.shown), "other")} to look at',
                 f'  schedule  {t.total_steps * t.batch / n:.1f} epochs; learning rate {t.lr:g} '
                 f'until step {t.decay_start}{decay}{frozen}',
                 *advice,
                 f'  writes    a checkpoint of {memory.checkpoint_bytes(run) / 1e9:.2g} GB {saved} '
                 f'(the newest {t.keep} stay); a sheet of pictures {drawn}; index.html'):
        log_info(wrap(line, 12))
    print_memory(enough, message)
    if dry_run:
        if enough:                                  # otherwise steps may not fit
            seconds = measure_step(run, loaded)
            log_info(f'  time      {seconds:.3g} s a step, '
                     f'{format_duration(t.total_steps * seconds)} for {t.total_steps}')
        return 0
    if not distributed.IS_MAIN:
        return fit(run, folder, loaded)
    score = make_score()
    make_folder(folder)
    with lock_folder(folder):
        folders.check_new(folder)                      # another trainer may have come first
        return fit(run, folder, loaded, score)


def continue_run(run, folder, loaded, make_score):
    """Continue to train a loaded run. make_score: see start. Returns the exit code."""
    log_info(f'{folder}: going on at step {run.step} of {run.config.training.total_steps}')
    score = None
    print_memory(*prepare_steps(run, loaded))
    try:
        score = distributed.IS_MAIN and make_score()
    except UserError as error:                              # its pictures may be gone
        warn(f'warning: {error}; going on without scores')
    return fit(run, folder, loaded, score)


@contextmanager
def catch_signals():
    """Catch Ctrl-C, SIGTERM and SIGHUP, unless they are ignored, as under nohup. Yields the list of
    those caught; the second one raises KeyboardInterrupt, further ones do nothing."""
    caught = []

    def handle(number, frame):
        caught.append(number)
        if len(caught) == 1:
            with suppress(OSError):                 # print() may be interrupted itself
                os.write(2, b'stopping after this step; once more stops at once, unsaved\n')
        elif len(caught) == 2:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in data.SIGNALS
              if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield caught
    finally:
        if len(caught) < 2:                         # otherwise the process is about to end
            for number, handler in before.items():
                signal.signal(number, handler)


def fit(run, folder, loaded, score=None):
    """Train from run.step to the end, to a signal, or to an error, in a folder that the caller has
    locked. Returns the exit code. score: score(run, clusters) returns {name: number} every
    t.evaluate_every steps. The checkpoint with the best first number is kept."""
    t, started, is_main = run.config.training, run.step, distributed.IS_MAIN
    cuda_graphs.use_graphs(run)
    if run.graphed_forward_backward:
        log_info('  graphs    CUDA graphs, if there is memory for them')
    if is_main:
        prepare_run_folder(run, folder)
    distributed.broadcast(train.trainable_parameters(run) + [
        p for net in run.average.values() for p in net.parameters()])
    if t.compile:
        devices.compile_generator(run)
    batches = load_batches(run, loaded, run.step, t.total_steps)
    writer, agree = checkpoints.BackgroundWriter(folder, t.keep), distributed.Agreement()
    hook = make_hook(run, folder, loaded, writer, score)
    reduce = distributed.WORLD_SIZE > 1 and distributed.GradientReducer(
        [*run.G.parameters(), *run.D.parameters(), *(run.E.parameters() if run.E else ())],
        t.accumulate)

    def save():
        writer.wait()
        checkpoints.write_checkpoint(folder, runs.checkpoint_dict(run), t.keep)

    with catch_signals() as caught:
        try:
            # If one process gets a signal, all stop after the same step.
            stop = train.fit(
                run, batches, [hook], lambda: agree(max(caught, default=0)), reduce,
                distributed.RANK)
            if is_main:
                save()
        except (ValueError, RuntimeError) as error:
            # The step is whole before a picture that cannot be read, and where the last sheet or
            # score fails for lack of memory.
            whole = isinstance(error, ValueError) or run.step == t.total_steps
            if is_main and whole and started < run.step and int(run.bad_steps) < t.max_bad_steps:
                warn_on_error(save, 'nothing later than the last checkpoint is kept')
            raise
        finally:
            batches.close()
            writer.wait()
            status_line('')
    agree.end()
    if run.step < t.total_steps:
        if is_main:
            report.try_write_run_page(folder, run.config)
            log_info(f'stopped at step {run.step} of {t.total_steps}, all saved; to go on: '
                     f'python p2phd.py train --resume {quote(folder)}')
        return 128 + stop
    peak = memory.peak_memory(run.device)
    used = f'; {peak / 2 ** 30:.1f} GiB of memory were used at most' if peak else ''
    if is_main:
        log_info(f'done: {checkpoints.list_checkpoints(folder)[-1]}, pictures in '
                 f'{folder / "samples"}{used}')
    return 0
