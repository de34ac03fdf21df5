"""How the command line trains a run: its data, its summary, the loop with its hook, signals, and
the last checkpoint."""
from collections import namedtuple
from contextlib import contextmanager, suppress
import os
import signal
import time

import torch

from app.common import config as configuration
from app.common.console import (format_duration, log_info, plural, quote, status_line, warn,
                                warn_on_error)
from app.common.errors import UserError
from app.common.files import lock_folder, make_folder
from app.datasets import inspection
from app.datasets.pairs import PairReader, open_dataset
from app.runs import (
    checkpoints, configurations, devices, distributed, folders, memory, report, runs)
from app.runs.hooks import MOST_SHOWN, make_hook, prepare_run_folder
import data
import generate
import train

# dataset: data.PairedDataset to train on. shown: items of one that are not trained on, for sheets.
# vgg: nets.VGG19 or None.
TrainingData = namedtuple('TrainingData', 'dataset shown vgg')


def load_training_data(config, folder, pairs):
    """Load the pictures of all layouts.Pairs of a data set and, where it is used, VGG-19:
    TrainingData. folder: of the run. Raises UserError."""
    c, t = config, config.training
    shares = distributed.WORLD_SIZE * t.accumulate
    if t.batch % shares:
        raise UserError(f'--batch {t.batch}: {distributed.WORLD_SIZE} processes share a batch; '
                        f'take a multiple of {shares}')
    vgg = runs.load_vgg(t.vgg) if t.vgg else None
    cache = folders.sibling_folder(folder, '-cache') if t.cache == '' else t.cache
    pairs, heldout = inspection.train_and_heldout(c, pairs)
    min_side = configurations.min_training_side(c)
    heldout = heldout or inspection.other_split_pairs(c, MOST_SHOWN, min_side)
    read, multiple = PairReader(c, c.size), generate.network_multiple(c)
    dataset = open_dataset(pairs, read, cache, crop=t.crop, flip=t.flip, jitter=t.jitter,
                           multiple=multiple, seed=t.seed, workers=t.workers)
    dataset[0, 0]                           # an error now, not after networks are built
    heldout = open_dataset(heldout[:MOST_SHOWN], read, keep=False, crop=t.crop, multiple=multiple)
    shown = []
    for i in range(len(heldout)):
        warn_on_error(lambda: shown.append(heldout[0, i]), 'the sheets are drawn without it')
    return TrainingData(dataset, shown, vgg)


def summarise_run(run, folder, loaded):
    """Print what is about to be trained."""
    c, t, n = run.config, run.config.training, len(loaded.dataset)
    weights = ', '.join(
        f'{name} {sum(p.numel() for p in getattr(run, name).parameters()) / 1e6:.1f}M'
        for name in 'GDE' if getattr(run, name))
    size = configuration.format_value(c.size) if c.size else 'native size'
    frozen = f'; all of G is trained from step {t.fix_global_steps}' if t.fix_global_steps else ''
    log_info(f'{folder}: {size}, {t.total_steps} steps of {t.batch} on {run.device} in '
             f'{t.precision}, weights {weights}')
    log_info(f'  pictures  {n} to train on, {plural(len(loaded.shown), "other")} to look at')
    log_info(f'  schedule  learning rate {t.lr:g}, which decays from step {t.decay_start}, '
             f'{t.total_steps * t.batch / n:.1f} epochs{frozen}')
    log_info(f'  writes    a checkpoint of {memory.checkpoint_bytes(run) / 1e9:.2g} GB every '
             f'{t.save_every} steps, {t.keep} of which stay; a sheet every {t.sample_every}; '
             'index.html')


def load_batches(run, loaded, start, stop):
    """Yield this process's batches of the steps start ... stop - 1."""
    t = run.config.training
    sampler = data.ResumableBatchSampler(len(loaded.dataset), t.batch, start, stop, t.seed,
                                         distributed.shard)
    return data.batches(loaded.dataset, run.device, batch_sampler=sampler)


def measure_step(run, loaded):
    """Measure the seconds of a step with loading, once everything is trained: the mean of three
    steps after one to warm up. The run cannot be used afterwards."""
    t, times = run.config.training, []
    for batch in load_batches(run, loaded, 0, 4):
        run.step = min(t.fix_global_steps, t.total_steps - 1)
        terms = train.train_step(run, *data.to_device(batch, run.device), distributed.all_reduce,
                                 distributed.RANK)
        float(terms['d_real'])                              # waits for the device
        times.append(time.monotonic())
    return (times[-1] - times[0]) / 3


def set_steps_for_hours(hours, config, device, loaded):
    """Set the schedule of a configuration to as many steps as fit into some hours."""
    t = config.training
    run = runs.build_run(config, device)
    run.vgg = loaded.vgg and loaded.vgg.to(device)
    seconds = measure_step(run, loaded)
    t.steps = distributed.broadcast_object(max(1, int(hours * 3600 / seconds)))
    t.flags['steps'] = t.steps
    log_info(f'--hours {hours:g}: {t.steps} steps of {seconds:.3g} s')
    train.set_schedule(config, len(loaded.dataset))
    configuration.check_config(config)


def start(run, folder, loaded, make_score, dry_run=False):
    """Say what is about to be trained, make its folder and train. Returns the exit code.

    make_score: makes `score`, see fit, or returns None.
    dry_run: only say it, with an estimate of memory and time.
    """
    run.vgg = loaded.vgg and loaded.vgg.to(run.device)
    summarise_run(run, folder, loaded)
    if dry_run:
        if distributed.broadcast_object(memory.compare_memory(run)):    # or steps may not fit
            seconds, total = measure_step(run, loaded), run.config.training.total_steps
            log_info(f'  time      {seconds:.3g} s a step, {format_duration(total * seconds)} for '
                     f'{total}')
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
    run.vgg = loaded.vgg and loaded.vgg.to(run.device)
    try:
        score = distributed.IS_MAIN and make_score()
    except UserError as error:                              # its pictures may be gone
        warn(f'warning: {error}; going on without scores')
        score = None
    return fit(run, folder, loaded, score)


@contextmanager
def catch_signals():
    """Catch Ctrl-C, SIGTERM and SIGHUP: yields the list of their numbers, so that the step ends and
    is saved. The second one interrupts (KeyboardInterrupt), and any more are ignored. A signal that
    was ignored before, as under nohup, stays ignored."""
    caught = []

    def handle(number, frame):
        caught.append(number)
        if len(caught) == 2:
            raise KeyboardInterrupt
        if len(caught) == 1:
            with suppress(OSError):                 # print() may be interrupted itself
                os.write(2, b'stopping after this step; once more stops at once, unsaved\n')

    before = {number: signal.signal(number, handle) for number in data.SIGNALS
              if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield caught
    finally:
        if len(caught) < 2:                         # otherwise the process is about to end
            for number, handler in before.items():
                signal.signal(number, handler)


def fit(run, folder, loaded, score=None):
    """Train from run.step to the end, to a signal, or to an error. Returns the exit code.

    score: score(run, clusters) returns {name: number} every t.evaluate_every steps. The checkpoint
        with the largest first number is kept. The caller holds the folder locked.
    """
    t, started = run.config.training, run.step
    torch.backends.cudnn.benchmark = bool(t.crop or run.config.size)    # pays where sizes recur
    if distributed.IS_MAIN:
        prepare_run_folder(run, folder)
        memory.compare_memory(run)
    distributed.broadcast(train.trainable_parameters(run) + [
        p for net in run.average.values() for p in net.parameters()])
    if t.compile:
        devices.compile_generator(run)
    batches = load_batches(run, loaded, run.step, t.total_steps)
    writer, agree = checkpoints.BackgroundWriter(folder, t.keep), distributed.Agreement()
    hook = make_hook(run, folder, loaded, writer, score)

    def save():
        writer.wait()
        checkpoints.write_checkpoint(folder, runs.checkpoint_dict(run), t.keep)

    with catch_signals() as caught:
        try:
            stop = train.fit(run, batches, [hook], lambda: agree(caught[0] if caught else 0),
                             distributed.all_reduce if distributed.WORLD_SIZE > 1 else None,
                             distributed.RANK)
            if distributed.IS_MAIN:
                save()
        except ValueError:                          # of a picture; the step before it is whole
            if distributed.IS_MAIN and started < run.step and int(run.bad_steps) < t.max_bad_steps:
                warn_on_error(save, 'nothing later than the last checkpoint is kept')
            raise
        finally:
            batches.close()
            writer.wait()
            status_line('')
    agree.end()
    exit_code = 128 + stop if run.step < t.total_steps else 0
    if exit_code and distributed.IS_MAIN:
        report.try_write_run_page(folder, run.config)
        log_info(f'stopped at step {run.step} of {t.total_steps}, all saved; to go on: '
                 f'python p2phd.py train --resume {quote(folder)}')
    elif distributed.IS_MAIN:
        if peak := memory.peak_memory(run.device):
            log_info(f'memory: {peak / 2 ** 30:.1f} GiB at most')
        log_info(f'done: {checkpoints.list_checkpoints(folder)[-1]}, pictures in '
                 f'{folder / "samples"}')
    return exit_code
