"""The training loop around the method's step: what is said before it, the loop, the log, the sheets
of pictures."""
from contextlib import suppress
import csv
from datetime import timedelta
import io
import json
import math
import os
import re
import signal
import time
from types import SimpleNamespace

import numpy as np
import torch

from app.runs import checkpoints
from app.common import config as configuration
import data
from app.runs import devices
from app.common.console import format_duration, status_line, plural, quote, log_info, warn
from app.common.errors import UserError, warn_on_error
from app.common.files import append_text, lock_folder, make_folder, write_text
from app.datasets import layouts
import losses
from app.runs import distributed
from app.runs import report
from app.runs import runs
import styles
from app.datasets import inspection
import generate
from train import merge_term, compare_memory, trainable_parameters, learning_rate, schedule, train_step

MOST_SHOWN = 32                             # pictures that are looked at and not trained on
WON_STEPS = 1000                            # a discriminator that is right so long has won


def start_training(run, folder, pairs, scorer=None, dry=False):
    """Say what is about to be trained, make its folder and train -> exit code. scorer: a function
    without arguments that makes `score`, see `fit`. dry: only say it, with an estimate of the
    time."""
    if dry:
        run.config.training.cache = None            # would be written
    with distributed.main_process_first():
        dataset, shown = load_training_data(run, folder, pairs)        # before anything is written
    for line in summary(run, folder, dataset, shown):
        log_info(line)
    if dry:
        if not compare_memory(run):
            return 0                                # the steps would not fit either
        seconds = seconds_of_step(run, dataset)
        total = run.config.training.total_steps
        log_info(f'  time      {seconds:.3g} s a step, {format_duration(total * seconds)} for {total}')
        return 0
    if not distributed.IS_MAIN:
        return fit(run, folder, dataset, shown)
    score = scorer and scorer()
    make_folder(folder)
    with lock_folder(folder):
        runs.check_new(folder)                      # another trainer may have come first
        return fit(run, folder, dataset, shown, score)


def summary(run, folder, dataset, shown):
    """What is about to be trained, in a few lines."""
    c, t = run.config, run.config.training
    weights = ', '.join(
        f'{name} {sum(p.numel() for p in getattr(run, name).parameters()) / 1e6:.1f}M'
        for name in 'GDE' if getattr(run, name))
    size = configuration.format_value(c.size) if c.size else 'native size'
    yield (f'{folder}: {size}, {t.total_steps} steps of {t.batch} on {run.device} in '
           f'{t.precision}, weights {weights}')
    yield f'  pictures  {len(dataset)} to train on, {plural(len(shown), "other")} to look at'
    frozen = (f'; all of G learns from step {t.fix_global_steps}' if t.fix_global_steps else '')
    yield (f'  schedule  learning rate {t.lr:g}, which falls from step {t.decay_start} on, '
           f'{t.total_steps * t.batch / len(dataset):.1f} epochs{frozen}')
    stored = sum(p.nbytes for net in (run.G, run.D, run.E, *run.average.values()) if net
                 for p in net.parameters()) + 2 * sum(p.nbytes for p in trainable_parameters(run))
    yield (f'  writes    a checkpoint of {stored / 1e9:.2g} GB every {t.save_every} steps, '
           f'{t.keep} of which stay; a sheet every {t.sample_every}; index.html')


def seconds_of_step(run, dataset):
    """How long a step takes once all that will learn does, with loading: the mean of three, after
    one to warm up. They are taken, so that the run is of no use afterwards."""
    t = run.config.training
    order = data.ResumableBatchSampler(len(dataset), t.batch, 0, 4, t.seed)
    batches = data.batches(dataset, run.device, batch_sampler=order)
    times = []
    for batch in batches:
        run.step = min(t.fix_global_steps, t.total_steps - 1)
        float(train_step(run, *data.to_device(batch, run.device))['d_real'])    # waits for it
        times.append(time.monotonic())
    batches.close()
    return (times[-1] - times[0]) / (len(times) - 1)


def steps_for_hours(hours, config, device, folder, pairs, dry):
    """Set the schedule of a configuration to as many steps as fit into some hours, by the time
    that a few take. None: leave it as it is. dry: write nothing."""
    if hours is None:
        return
    if dry:
        config.training.cache = None
    run = runs.build_run(config, device)
    seconds = seconds_of_step(run, load_training_data(run, folder, pairs)[0])
    t = config.training
    t.steps = distributed.broadcast_object(max(1, int(hours * 3600 / seconds)))
    t.flags['steps'] = t.steps
    log_info(f'--hours {hours:g}: {t.steps} steps of {seconds:.3g} s')
    schedule(config, len(inspection.train_and_heldout(config, pairs)[0]))
    configuration.check_config(config)


def board():
    """What makes a writer of events for TensorBoard. UserError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError('--tensorboard: needs the package: pip install tensorboard') from None
    return SummaryWriter


def load_training_data(run, folder, pairs):
    """Load what a run trains with and is not in its checkpoint: VGG-19, and its pictures. UserError
    where one of them is of no use.

    Returns the data.PairedDataset to train on, and what is not trained on and can be read, as a list of
    what data.PairedDataset gives.
    """
    c, t = run.config, run.config.training
    if t.batch % (distributed.WORLD_SIZE * t.accumulate):
        raise UserError(f'--batch {t.batch}: {distributed.WORLD_SIZE} processes share a batch'
                        + (f' in {t.accumulate} parts' if t.accumulate > 1 else '')
                        + f'; take a multiple of {distributed.WORLD_SIZE * t.accumulate}')
    if t.vgg:
        run.vgg = runs.load_vgg(t.vgg).to(run.device)
    cache = None
    if t.cache is not None:
        cache = t.cache or runs.sibling_folder(folder, '-cache')
    pairs, others = inspection.train_and_heldout(c, pairs)
    others = others or inspection.other_split_pairs(c, MOST_SHOWN, runs.min_training_side(c))
    readers, multiple = layouts.config_readers(c), runs.network_multiple(c)
    dataset = data.PairedDataset(pairs, readers, c.n_labels, c.size, t.crop, t.flip, t.jitter, multiple,
                            c.instances, t.seed, cache, t.workers)
    dataset[0, 0]

    readable = data.PairedDataset(others[:MOST_SHOWN], readers, c.n_labels, c.size, t.crop,
                             multiple=multiple, instances=c.instances, keep=False)
    shown, unreadable = [], []
    for i in range(len(readable)):
        try:
            shown.append(readable[0, i])
        except UserError as error:
            unreadable.append(error)
    if unreadable:
        warn(f'note: {len(unreadable)} of {len(readable)} pictures to look at are left out: '
             f'{unreadable[0]}')
    return dataset, shown


class Signals:
    """While it is entered, the first Ctrl-C, SIGTERM or SIGHUP only notes its number in `caught`,
    so that a step can end and be saved; the next one interrupts (KeyboardInterrupt). A signal that
    was ignored, as under nohup, stays ignored."""

    def __enter__(self):
        self.caught = None
        self.before = {number: signal.signal(number, self.note) for number in data.SIGNALS
                       if signal.getsignal(number) != signal.SIG_IGN}
        return self

    def note(self, number, frame):
        if self.caught:
            raise KeyboardInterrupt
        self.caught = number
        with suppress(OSError):                     # print() may be at work already
            os.write(2, b'stopping after this step; once more stops at once, unsaved\n')

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def fit(run, folder, dataset, shown, score=None):
    """The training loop, from run.step to the end, to a signal, or to a UserError -> exit code.
    Writes `folder`, which the caller holds locked.

    shown: pictures that are not trained on, for the sheets. score: a function of a run and
    styles -> {name: number}, called every t.evaluate_every steps; the first number is the one to be
    largest.
    """
    t, started, pictures = run.config.training, run.step, len(dataset)
    torch.backends.cudnn.benchmark = bool(t.crop or run.config.size)    # pays where sizes stay
    if distributed.IS_MAIN:
        prepare_run_folder(run, folder)
        compare_memory(run)
    distributed.broadcast(trainable_parameters(run) + [p for net in run.average.values() for p in net.parameters()])
    if t.compile:
        devices.compile_generator(run)

    order = data.ResumableBatchSampler(pictures, t.batch, run.step, t.total_steps, t.seed)
    batches = data.batches(dataset, run.device, batch_sampler=order)
    writer, due, agree = checkpoints.BackgroundWriter(folder, t.keep), False, distributed.Agreement()
    before = SimpleNamespace(step=run.step, time=time.monotonic(), text='', live=0)
    with Signals() as signals:
        try:
            for batch in batches:
                terms = train_step(run, *data.to_device(batch, run.device))
                run.sums = accumulate_terms(run.sums, terms)

                show_step(run, pictures, before)
                last, stop = run.step == t.total_steps, agree(signals.caught or 0)
                row = last or run.step % t.log_every == 0
                due |= run.step % t.save_every == 0 or epoch_ended(run, pictures) and writer.rested
                save = last or stop or due and not writer.busy
                bad_steps = check_bad_steps(run, folder) if (
                    row or distributed.IS_MAIN and save) else 0
                if not distributed.IS_MAIN:
                    if last or stop:
                        break
                    continue
                if row:
                    log(run, folder, pictures, before)
                draw = last or run.step % t.sample_every == 0
                judge = score and (last or run.step % t.evaluate_every == 0)
                if draw or judge:
                    average, known = sample_and_score(run, folder, dataset, shown, draw, judge and score)
                if last or stop:
                    break
                if save and not bad_steps:          # what is from before the trouble stays
                    writer.save(runs.checkpoint_dict(run))
                    due = False
        except UserError:                           # of a picture: the step before it is whole
            if distributed.IS_MAIN and started < run.step and int(run.bad_steps) < t.max_bad_steps:
                writer.wait()
                warn_on_error(lambda: checkpoints.write_checkpoint(folder, runs.checkpoint_dict(run), t.keep),
                        'nothing later than the last one is kept')
            raise
        else:
            writer.wait()
            if distributed.IS_MAIN:
                checkpoints.write_checkpoint(folder, runs.checkpoint_dict(run), t.keep)
        finally:
            batches.close()
            writer.wait()
            status_line('')
    agree.end()
    if not distributed.IS_MAIN:
        return 0 if last else 128 + stop
    if run.step < t.total_steps:
        report.try_write_run_page(folder, run.config)
        log_info(f'stopped at step {run.step} of {t.total_steps}, all saved; to go on: '
            f'python p2phd.py train --resume {quote(folder)}')
        return 128 + stop
    report_train_val_l1(average, known, dataset, shown, (run.step - started) // 20)     # of the last sheet
    if peak := devices.peak_memory(run.device):
        log_info(f'memory: {peak / 2 ** 30:.1f} GiB at most')
    log_info(f'done: {checkpoints.list_checkpoints(folder)[-1]}, pictures in {folder / "samples"}')
    return 0


def sample_and_score(run, folder, dataset, shown, draw, score):
    """See what a run makes at this moment: where wished, a sheet and scores (see `fit`) -> the run
    as it generates, and the styles that it would choose from."""
    average = runs.with_averages(run)
    known = generate.current_styles(average, dataset)
    if draw:
        warn_on_error(lambda: save_sheet(average, known, dataset, shown, folder), 'training goes on')
    if score:
        warn_on_error(lambda: add_scores(run, folder, score(average, known)),
                'training goes on without that score')
    report.try_write_run_page(folder, run.config)
    return average, known


def prepare_run_folder(run, folder):
    """Bring the folder of a run to where its checkpoint is."""
    ours = (r'((checkpoint-\d+|best)\.pt|(log|scores)\.csv|config\.json|index\.html|styles.*\.npz|'
            r'\d+\.png)\.\d+\.partial')
    for left in (*folder.glob('*.partial'), *(folder / 'samples').glob('*.partial')):
        if re.fullmatch(ours, left.name) and left.is_file():    # by a trainer that was killed
            left.unlink()
    write_text(folder / 'config.json', json.dumps(configuration.to_dict(run.config), indent=1))
    write_text(folder / 'log.csv', run.rows)                # rows past the checkpoint go
    if run.scores or (folder / 'scores.csv').exists():
        write_text(folder / 'scores.csv', run.scores)
    if run.board:
        run.board = run.board(folder / 'tensorboard')
    if not run.step:                    # that it can be saved is known before days are spent on it
        for path in (folder / 'best.pt', folder / 'speed.csv', *folder.glob('styles*.npz'),
                     folder / 'evaluation' / 'scores.json'):    # of an earlier run there
            path.unlink(missing_ok=True)
        checkpoints.write_checkpoint(folder, runs.checkpoint_dict(run), run.config.training.keep)


def epoch_ended(run, pictures):
    """Whether the last step went into another epoch."""
    batch = run.config.training.batch
    return run.step * batch // pictures > (run.step - 1) * batch // pictures


def check_bad_steps(run, folder):
    """How many steps in a row were not finite; UserError where that is too many. Waits for the
    device."""
    bad_steps = int(run.bad_steps)
    if bad_steps >= run.config.training.max_bad_steps:
        raise UserError(f'{folder}: stopped at step {run.step}, for loss or gradient were not '
                        f'finite {bad_steps} times in a row; its checkpoints are from before. If '
                        'losses or map_max grew in log.csv, train anew with a lower --lr; if not, '
                        'with --precision fp32; and let check read the data')
    return bad_steps


# -------------------------------------------------------------------------------------- the log

def accumulate_terms(sums, terms):
    """Add what train_step returned to what was tallied since the last row of the log ({}: nothing):
    {name: tensor}, the sums of the losses, the extremes `map_min` and `map_max`, and how many steps
    were `learned` and `skipped`. A skipped step adds to the last number alone."""
    nothing = {'map_min': math.inf, 'map_max': -math.inf}
    skipped, added = terms['skipped'], {}
    for name, value in {**terms, 'learned': torch.ones_like(skipped)}.items():
        if name != 'skipped':
            value = torch.where(skipped > 0, nothing.get(name, 0.0), value.float())
        added[name] = merge_term(name, sums.get(name), value)
    return {**sums, **added}


def show_step(run, pictures, before):
    """Show in a terminal's last line how far a run is. Asks nothing of the device: losses are those
    of the last report."""
    now, t = time.monotonic(), run.config.training
    if now - before.live < 0.2 or now == before.time:
        return
    before.live = now
    rate = (run.step - before.step) / (now - before.time)
    left = f', {format_duration((t.total_steps - run.step) / rate)} left' if rate else ''
    peak = devices.peak_memory(run.device)
    status_line(f'step {run.step}/{t.total_steps}, epoch {run.step * t.batch / pictures:.1f}{left}, '
              f'{rate:.2f} steps/s'
              + (f', {peak / 2 ** 30:.1f} GiB' if peak else '') + f'  {before.text}')


def log(run, folder, pictures, before):
    """Add what was tallied to log.csv and say it: means of the losses, extremes of the last feature
    map. before: step and time of the last time."""
    c, t = run.config, run.config.training
    means = dict(zip(run.sums, torch.stack(list(run.sums.values())).tolist()))
    learned = means.pop('learned')
    extremes = {name: means.pop(name) for name in ('map_min', 'map_max', 'skipped')}
    means = {name: total / learned if learned else math.nan for name, total in means.items()}
    run.sums = {}
    add_row(run, {**means, **extremes})
    warn_on_error(lambda: append_text(folder / 'log.csv', run.rows), 'training goes on')

    last_step, rate = before.step, (run.step - before.step) / (time.monotonic() - before.time)
    before.step, before.time = run.step, time.monotonic()
    before.text = '  '.join(f'{name} {value:.3f}' for name, value in means.items())
    left = timedelta(seconds=round((t.total_steps - run.step) / rate))
    warn_on_error(lambda: add_speed(run, folder, rate), 'training goes on')
    if run.board:
        for name, value in {**means, **extremes}.items():
            run.board.add_scalar(name, value, run.step)
    log_info(f'step {run.step}/{t.total_steps}  epoch {run.step * t.batch / pictures:.1f}  '
        + f'{before.text}  map {extremes["map_min"]:.1f} to {extremes["map_max"]:.1f}'
        + (f'  skipped {extremes["skipped"]:.0f}' if extremes['skipped'] else '')
        + f'  {rate:.2f} steps/s  {left} left')

    won = means['d_fake'] + means['d_real'] < 0.05 * losses.chance_level_loss(c.n_scales, t.gan)
    run.won_since = (run.won_since or run.step) if won else None
    if won and run.step - run.won_since >= WON_STEPS > last_step - run.won_since:
        warn(f'warning: {folder}: for {WON_STEPS} steps the discriminator has been right about '
             'nearly everything, and the generator learns little from it now; more data or a '
             'smaller --ndf help')


def add_speed(run, folder, rate):
    """Append to speed.csv: what is not the same the next time, and so not part of the run."""
    path = folder / 'speed.csv'
    peak = (devices.peak_memory(run.device) or math.nan) / 2 ** 30
    with open(path, 'a') as file:
        if not file.tell():
            file.write('step,steps_per_second,memory\n')
        file.write(f'{run.step},{rate:.6g},{peak:.4g}\n')


def add_row(run, means):
    """Append to run.rows, the text of log.csv."""
    run.rows = with_row(run.rows, {
        'step': run.step, 'pictures': run.step * run.config.training.batch,
        'lr': learning_rate(run.step - 1, run.config.training), **means})


def add_scores(run, folder, scores):
    """Append to run.scores, the text of scores.csv, and keep the best checkpoint."""
    run.scores = with_row(run.scores, {'step': run.step, **scores})
    warn_on_error(lambda: append_text(folder / 'scores.csv', run.scores), 'training goes on')
    log_info(f'step {run.step}: ' + '  '.join(f'{name} {value:.4g}' for name, value in scores.items()))
    score = float(next(iter(scores.values())))
    if run.best is None or math.isnan(run.best) or score > run.best:
        run.best = score
        best = {name: value for name, value in runs.checkpoint_dict(run).items() if name != 'optimizers'}
        warn_on_error(lambda: checkpoints.write_checkpoint_file(folder / 'best.pt', best), 'training goes on')


def with_row(text, values):
    """The text of a .csv with one more line, and before the first one the names. What its first
    line does not name, a term of a later version of the program, is left out."""
    names = text.splitlines()[0].split(',') if text else list(values)
    more = io.StringIO()
    writer = csv.writer(more, lineterminator='\n')
    if not text:
        writer.writerow(names)
    writer.writerow([value if isinstance(value, int) else f'{value:.6g}'
                     for value in (values.get(name, math.nan) for name in names)])
    return text + more.getvalue()


# ----------------------------------------------------------------------------------- the sheets

@torch.inference_mode()
def render(run, item, known):
    """What a run makes of a picture's maps -> [(1, C, H, W)]: with the styles of the photograph and
    with the main ones among those `known`; without an encoder the one that there is. item: as
    data.PairedDataset gives it."""
    label, inst, image, _ = data.to_device(
        {role: tensor[None] for role, tensor in item.items()}, torch.device('cpu'))
    scene = generate.make_scene(run.config, label, inst)
    chosen = [None]
    if run.E:
        chosen = [generate.encode_image(run, image, scene),
                  styles.choose(scene.labels, known)]
    return [generate.synthesise(run, scene, vectors, run.step) for vectors in chosen]


def save_sheet(run, known, dataset, shown, folder):
    """Write what two training pictures and two others look like now, a row each: label | with the
    styles of the photograph | with those that `generate` would choose (of `known`) | real."""
    path = folder / 'samples' / f'{run.step:07d}.png'
    items = [*(dataset[0, i] for i in evenly_spaced(len(dataset), 2)),
             *(shown[i] for i in evenly_spaced(len(shown), 2))]
    strips = [generate.strip(run.config, item['label'], [
        *render(run, item, known), data.to_float(item['image'][None])]) for item in items]
    width = max(strip.shape[1] for strip in strips)
    strips = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    path.parent.mkdir(exist_ok=True)
    generate.write_png(path, np.concatenate(strips))


def report_train_val_l1(run, known, dataset, shown, most):
    """Say how far pictures are from their photographs, those trained on and others: at most so many
    of each. known: the styles to choose from."""
    most = min(most, MOST_SHOWN)
    if not most or not shown:
        return
    plain = dataset.plain()
    names = ['styles of the photograph', 'main styles'] if run.E else ['']
    for which, items in (('trained on', (plain[0, i] for i in evenly_spaced(len(plain), most))),
                         ('not trained on', (shown[i] for i in evenly_spaced(len(shown), most)))):
        distances = np.mean([[
            float((fake.cpu().float() - data.to_float(item['image'])).abs().mean()) * 127.5
            for fake in render(run, item, known)] for item in items], 0)
        log_info(f'pictures {which}: mean distance from the photograph in grey levels '
            + ', '.join(f'{value:.1f} {name}'.strip() for value, name in zip(distances, names)))


def evenly_spaced(n, most):
    """At most so many of the indices 0 ... n - 1, spread evenly; the first is the first."""
    return range(0, n, -(-n // most)) if n else ()
