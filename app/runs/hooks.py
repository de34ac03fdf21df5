"""The hook of the training loop: status line, log, sheets of pictures, scores, checkpoints."""
import json
import math
import re
import time
from types import SimpleNamespace

import numpy as np
import torch

from app.common import config as configuration
from app.common.console import (format_duration, log_info, quote, status_line, warn,
                                warn_on_error)
from app.common.errors import UserError
from app.common.files import append_text, write_text
from app.datasets.decoding import spread
from app.runs import checkpoints, distributed, memory, pictures, report, run_styles, runs
import data
import generate
import losses
import styles
import train

MOST_SHOWN = 32                             # pictures on sheets that are not trained on
MOST_CLUSTERED = 200                        # training pictures whose styles are clustered for them
SATURATED_STEPS = 1000                      # D wins for so many steps before a warning


def prepare_run_folder(run, folder):
    """Bring the files in a run's folder to the step of its checkpoint; save a new run at once."""
    for path in (*folder.glob('*.partial'), *folder.glob('samples/*.partial')):
        if re.fullmatch(r'.+\.(pt|csv|json|html|npz|png)\.\d+\.partial', path.name):
            path.unlink()                       # of a trainer that was killed
    write_text(folder / 'config.json', json.dumps(configuration.to_dict(run.config), indent=1))
    write_text(folder / 'log.csv', run.log.rows)            # without rows past the checkpoint
    if run.log.scores or (folder / 'scores.csv').exists():
        write_text(folder / 'scores.csv', run.log.scores)
    if not checkpoints.list_checkpoints(folder):        # a new run
        for path in (folder / 'best.pt', folder / 'speed.csv', *folder.glob('styles*.npz'),
                     folder / 'evaluation' / 'scores.json'):    # of an earlier run there
            path.unlink(missing_ok=True)
        checkpoints.write_checkpoint(folder, runs.checkpoint_dict(run), run.config.training.keep)


def make_hook(run, folder, loaded, writer, score=None):
    """Make the hook of train.fit; its caller saves the last step. loaded: training.TrainingData.
    writer: checkpoints.BackgroundWriter. score: see training.fit."""
    t, n, started = run.config.training, len(loaded.dataset), run.step
    state = SimpleNamespace(step=run.step, time=time.perf_counter(), losses='',    # of the last row
                            status_time=0, save_is_due=False)

    def hook(run, terms, stop):
        is_last = run.step == t.total_steps
        is_row = is_last or run.step % t.log_every == 0
        epoch_ended = run.step * t.batch // n > (run.step - 1) * t.batch // n
        state.save_is_due |= run.step % t.save_every == 0 or epoch_ended and writer.may_write
        save = is_last or stop or state.save_is_due and not writer.busy
        now = time.perf_counter()
        if now - state.status_time > 0.2 and now > state.time and run.step > state.step:
            state.status_time, rate = now, (run.step - state.step) / (now - state.time)
            left = format_duration((t.total_steps - run.step) / rate)
            status_line(f'step {run.step}/{t.total_steps}, epoch {run.step * t.batch / n:.1f}, '
                        f'{left} left, {rate:.2f} steps/s  {state.losses}')
        # int() waits for the device, so it is not called at every step.
        bad_steps = int(run.bad_steps) if is_row or distributed.IS_MAIN and save else 0
        if bad_steps >= t.max_bad_steps:
            raise UserError(
                f'{folder}: stopped at step {run.step}, because loss or gradient were not finite '
                f'{bad_steps} times in a row; its checkpoints are from before. Run check; then '
                f'begin a new run with train --data DIR --from {quote(folder)}: if losses or '
                'map_max grew in log.csv, with a lower --lr; if not, with --precision fp32')
        if not distributed.IS_MAIN:
            return
        run.log.sums = accumulate_terms(run.log.sums, terms)
        if is_row:
            log_row(run, folder, n, state)
        draw = is_last or run.step % t.sample_every == 0
        evaluate = score and (is_last or run.step % t.evaluate_every == 0)
        if draw or evaluate:
            average = train.with_averages(run)
            clusters = run.E and run_styles.cluster_dataset(
                average, loaded.dataset.without_augmentation(),
                indices=spread(range(n), MOST_CLUSTERED))
            if draw:
                warn_on_error(lambda: save_sheet(average, clusters, loaded, folder),
                              'training goes on')
            if evaluate:
                warn_on_error(lambda: add_scores(run, folder, score(average, clusters)),
                              'training goes on without that score')
            report.try_write_run_page(folder, run.config)
        if is_last:
            report_distances(average, clusters, loaded, min(MOST_SHOWN, (run.step - started) // 20))
        if save and not (is_last or stop or bad_steps):     # checkpoints from before bad steps stay
            writer.save(runs.checkpoint_dict(run))
            state.save_is_due = False
    return hook


def accumulate_terms(sums, terms):
    """Return `sums`, {name: tensor} since the last row of the log, with the terms of a step; if it
    was skipped, that is only counted."""
    skipped, neutral = terms['skipped'], {'map_min': math.inf, 'map_max': -math.inf}
    terms = {name: torch.where(skipped > 0, neutral.get(name, 0.0), value.float())
             for name, value in terms.items()} | {'skipped': skipped, 'learned': 1 - skipped}
    return sums | {name: train.merge_term(name, sums.get(name), value)
                   for name, value in terms.items()}


def log_row(run, folder, n, state):
    """Write and print a row of the log: mean losses since the last row, extremes, speed."""
    t, log = run.config.training, run.log
    sums = dict(zip(log.sums, torch.stack(list(log.sums.values())).tolist()))
    log.sums = {}
    learned = sums.pop('learned')
    extremes = {name: sums.pop(name) for name in ('map_min', 'map_max', 'skipped')}
    means = {name: total / learned if learned else math.nan for name, total in sums.items()}
    log.rows = add_csv_row(folder / 'log.csv', log.rows, {
        'step': run.step, 'pictures': run.step * t.batch,
        'lr': train.learning_rate(run.step - 1, t), **means, **extremes})
    last_step, now = state.step, time.perf_counter()
    rate = (run.step - last_step) / (now - state.time)
    state.step, state.time = run.step, now
    state.losses = '  '.join(f'{name} {value:.3f}' for name, value in means.items())
    speed = folder / 'speed.csv'        # a file of its own: it differs when a run is repeated
    warn_on_error(lambda: add_csv_row(speed, speed.read_text() if speed.exists() else '', {
        'step': run.step, 'steps_per_second': rate,
        'memory': (memory.peak_memory(run.device) or math.nan) / 2 ** 30}), 'training goes on')
    log_info(f'step {run.step}/{t.total_steps}  epoch {run.step * t.batch / n:.1f}  '
             f'{state.losses}  map {extremes["map_min"]:.1f} to {extremes["map_max"]:.1f}'
             + (f'  skipped {extremes["skipped"]:.0f}' if extremes['skipped'] else '')
             + f'  {rate:.2f} steps/s  {format_duration((t.total_steps - run.step) / rate)} left')

    saturated = means['d_fake'] + means['d_real'] < 0.05 * chance_level_loss(
        run.config.n_scales, t.gan)
    log.won_since = (log.won_since or run.step) if saturated else None
    if saturated and last_step - log.won_since < SATURATED_STEPS <= run.step - log.won_since:
        warn(f'warning: {folder}: for {SATURATED_STEPS} steps the discriminator has been right '
             'about nearly everything; more data or a smaller --ndf help the generator')


def chance_level_loss(n_scales, mode):
    """Return what d_fake + d_real is where the discriminators cannot tell real from fake."""
    scales = [[torch.full((1,), 0.5 if mode == 'lsgan' else 0.0)]] * n_scales
    return float(sum(losses.discriminator_loss(scales, scales, mode).values()))


def add_csv_row(path, text, values):
    """Append a row {name: number} to the file `path`, which holds `text`. Return its new text."""
    names = text.splitlines()[0].split(',') if text else list(values)   # others are left out
    numbers = (values.get(name, math.nan) for name in names)
    row = [str(value) if isinstance(value, int) else f'{value:.6g}' for value in numbers]
    text = (text or ','.join(names) + '\n') + ','.join(row) + '\n'
    warn_on_error(lambda: append_text(path, text), 'training goes on')
    return text


def add_scores(run, folder, scores):
    """Write a row of scores.csv, and best.pt if its first score is the best so far."""
    run.log.scores = add_csv_row(folder / 'scores.csv', run.log.scores,
                                 {'step': run.step, **scores})
    log_info(f'step {run.step}: '
             + '  '.join(f'{name} {value:.4g}' for name, value in scores.items()))
    names = run.log.scores.splitlines()[0].split(',')       # of the first row, which may be older
    first = min(scores.keys() & names, key=names.index)
    score = -scores[first] if first == 'frechet' else scores[first]
    if run.log.best is None or math.isnan(run.log.best) or score > run.log.best:
        run.log.best = score
        best = runs.checkpoint_dict(run)
        del best['optimizers']
        warn_on_error(lambda: checkpoints.write_checkpoint(folder, best, name='best.pt'),
                      'training goes on')


@torch.inference_mode()
def render(run, item, clusters):
    """Make the pictures [(1, C, H, W)] of an item of a data.PairedDataset: with the styles of its
    photograph and with the most frequent ones; without an encoder the only one."""
    label, inst, image, _ = data.to_device(
        {role: tensor[None] for role, tensor in item.items()}, torch.device('cpu'))
    scene = generate.make_scene(run.config, label, inst)
    choices = [generate.encode_image(run, image, scene),
               styles.choose_styles(scene.labels, clusters)] if run.E else [None]
    return [generate.synthesise(run, scene, vectors, run.step) for vectors in choices]


def save_sheet(run, clusters, loaded, folder):
    """Write samples/<step>.png: two training pictures and two others, a row each: label map |
    picture with the styles of the photograph | with the most frequent ones | photograph."""
    items = [*(loaded.dataset[0, i] for i in spread(range(len(loaded.dataset)), 2)),
             *spread(loaded.shown, 2)]
    strips = [pictures.strip(run.config, item['label'], [
        *render(run, item, clusters), data.to_float(item['image'][None])]) for item in items]
    width = max(strip.shape[1] for strip in strips)
    strips = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    (folder / 'samples').mkdir(exist_ok=True)
    pictures.write_png(folder / 'samples' / f'{run.step:07d}.png', np.concatenate(strips))


def report_distances(run, clusters, loaded, most):
    """Print how far at most `most` training pictures and others are from their photographs."""
    if not most or not loaded.shown:
        return
    log_info('mean difference of the pixels of pictures and photographs, from 0 to 255:')
    plain = loaded.dataset.without_augmentation()
    trained = [plain[0, i] for i in spread(range(len(plain)), most)]
    for which, items in (('training pictures', trained),
                         ('other pictures', spread(loaded.shown, most))):
        distances = np.mean([[
            float((fake.cpu().float() - data.to_float(item['image'])).abs().mean()) * 127.5
            for fake in render(run, item, clusters)] for item in items], 0).round(1)
        log_info(f'  {len(items)} {which}: ' + (
            '{} with the styles of the photograph, {} with the most frequent styles' if run.E else
            '{}').format(*distances))
