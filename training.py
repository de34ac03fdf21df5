"""The training step, and the loop around it."""
import csv
from datetime import timedelta
import io
import json
import math
import re
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
from PIL import Image
import torch

import checkpoints
import data
from files import UserError, append, attempt, brief, say, write_whole
import layouts
import losses
import nets
import runs
import styles
import synthesis


def learning_rate(step, config):
    """Constant, then linear to zero at the last step: a pure function of the step."""
    decaying = config.total_steps - config.decay_start
    return config.lr * (1 if step < config.decay_start else (config.total_steps - step) / decaying)


def train_step(state, label, inst, image):
    """One optimisation step: one forward, then G's (and E's) step and D's, which does not depend on it.

    label: (N, 1, H, W) integer, or (N, 3, H, W) uint8 where config.n_labels is 0; inst: (N, 1, H, W) integer or None;
    image: (N, 3, H, W) float in [-1, 1]. Returns {name: 0-dimensional tensor}, still on the device: the terms of the
    losses; `map_min` and `map_max`, the range of G's last feature map (before its ReLU: a peak that grows there becomes
    a bright blob); `skipped`, 1 where a loss or a gradient was not finite and nothing was learned, else 0.
    """
    c, G, D = state.config, state.G, state.D
    for optimizer in (state.opt_G, state.opt_D):
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(state.step, c)
    if c.fix_global_steps:
        for parameter in G.inner_parameters():
            parameter.requires_grad_(state.step >= c.fix_global_steps)

    with torch.autocast(state.device.type, torch.bfloat16, enabled=c.bf16):
        condition = data.condition(label, inst, c.n_labels)
        features = [styles.encode(state, image, inst)] if c.features else []
        fake = G(torch.cat([condition, *features], 1))
        fake_scores = D(torch.cat([condition, fake], 1))
        real_scores = D(torch.cat([condition, image], 1))
        # In [-1, 1] as they are: an official quirk, VGG-19 was trained on ImageNet's means.
        taps = [state.vgg(fake), state.vgg(image)] if state.vgg else []
        g_terms = losses.generator_loss(fake_scores, real_scores, c.n_layers, c.gan, *taps)
        if c.pool_size:
            *maps, old = state.history.query(
                [x for x in (label, inst, fake.nan_to_num()) if x is not None], f'{c.seed} {state.step}')
            shown = torch.cat([data.condition(maps[0], maps[1] if len(maps) > 1 else None, c.n_labels), old], 1)
            d_terms = losses.discriminator_loss(D(shown), real_scores, c.gan)
        else:
            # The official code runs D once more on a detached fake; the graph at hand gives D the same gradients.
            d_terms = losses.discriminator_loss(fake_scores, real_scores, c.gan)

    # `inputs` spares the gradients that nobody uses: of D's weights here, of the fake below. D's loss keeps its graph.
    learning = [p for group in state.opt_G.param_groups for p in group['params'] if p.requires_grad]
    state.opt_G.zero_grad()
    g_loss, d_loss = sum(g_terms.values()), sum(d_terms.values()) / 2
    g_loss.backward(inputs=learning, retain_graph=True)
    state.opt_D.zero_grad()
    d_loss.backward(inputs=list(D.parameters()))
    norm = torch.nn.utils.get_total_norm([p.grad for p in (*learning, *D.parameters())])
    skipped = (~torch.isfinite(g_loss.detach() + d_loss.detach() + norm)).float()
    state.bad_steps = torch.where((skipped > 0) | (state.bad_steps >= c.max_bad_steps), state.bad_steps + skipped, 0)
    for optimizer in (state.opt_G, state.opt_D):
        optimizer.found_inf = skipped                       # decided on the device: a fused step that changes nothing
        optimizer.step()
    state.step += 1
    low, high = (extreme.float() for extreme in state.last_map)
    return {**{name: term.detach() for name, term in {**g_terms, **d_terms}.items()},
            'map_min': low, 'map_max': high, 'skipped': skipped}


WON_STEPS = 1000                                            # a discriminator that is right so long has won


def prepare(state, run, pairs):
    """Load what a run trains with and is not in its checkpoint: VGG-19 into `state`, and the data.Pictures, which is
    returned. UserError where one of them is of no use."""
    c = state.config
    if c.vgg:
        state.vgg = load_vgg(c.vgg).to(state.device)
    cache = c.cache or run.with_name(f'{run.name}-cache') if c.cache is not None else None
    dataset = data.Pictures(pairs, layouts.readers(c), c.n_labels, c.size, c.crop, c.flip, c.jitter,
                            runs.network_multiple(c), c.instances, c.seed, cache)
    dataset[0, 0]
    return dataset


def schedule(c, n):
    """Turn epochs of `n` pictures into the steps that learning rate and unfreezing are functions of."""
    steps = lambda epochs: -(-epochs * n // c.batch)
    c.total_steps, c.decay_start = (
        (c.steps, c.steps // 2) if c.steps else (steps(c.epochs + c.decay_epochs), steps(c.epochs)))
    c.fix_global_steps = steps(getattr(c, 'fix_global', 0))
    if not c.total_steps:
        raise UserError('--epochs 0 --decay-epochs 0: nothing to train')


def fit(state, run, dataset):
    """The training loop, from state.step to the end, to Ctrl-C or SIGTERM, or to a UserError -> exit code. Writes the
    folder `run`, which the caller has locked."""
    c, started, pictures = state.config, state.step, len(dataset)
    torch.backends.cudnn.benchmark = bool(c.crop or c.size)  # pays where sizes stay the same from step to step
    for left in (*run.glob('*.partial'), *(run / 'samples').glob('*.partial')):   # by a trainer that was killed
        if re.fullmatch(r'(checkpoint-\d+\.pt|log\.csv|config\.json|\d+\.png)\.\d+\.partial', left.name):
            left.unlink()
    write_whole(run / 'config.json', lambda file: file.write(json.dumps(vars(c), indent=1).encode()))
    write_whole(run / 'log.csv', lambda file: file.write(state.rows.encode()))     # rows past the checkpoint go
    if not started:                                         # that it can be saved is known before days are spent on it
        checkpoints.write(run, runs.contents(state), c.keep)

    stop = []
    handlers = {number: signal.signal(number, lambda number, frame: stop.append(number))
                for number in (signal.SIGINT, signal.SIGTERM)}
    batches = data.batches(dataset, c.workers, state.device,
                           batch_sampler=data.Order(pictures, c.batch, state.step, c.total_steps, c.seed))
    writer, due = checkpoints.Writer(run, c.keep), False
    before = SimpleNamespace(step=state.step, time=time.monotonic())
    try:
        for batch in batches:
            terms = train_step(state, *data.to_device(batch, state.device))
            state.log = tally(state.log, terms)

            last = state.step == c.total_steps
            row = last or state.step % c.log_every == 0
            epoch_ended = state.step * c.batch // pictures > (state.step - 1) * c.batch // pictures
            due |= state.step % c.save_every == 0 or epoch_ended and writer.rested
            save = last or stop or due and not writer.busy
            bad_steps = int(state.bad_steps) if row or save else 0                  # waits for the device
            if bad_steps >= c.max_bad_steps:
                raise UserError(
                    f'{run}: stopped at step {state.step}, for loss or gradient were not finite {bad_steps} times in a '
                    'row; its checkpoints are from before. If losses or map_max grew in log.csv, train anew with a '
                    'lower --lr; if not, without --bf16; and let check read the data')
            if row:
                report(state, run, terms, pictures, before)
            if last or state.step % c.sample_every == 0:
                attempt(lambda: save_sheet(state, dataset, run / 'samples' / f'{state.step:07d}.png'),
                        'training goes on')
            if last or stop:
                break
            if save and not bad_steps:                      # what is from before the trouble stays
                writer.save(runs.contents(state))
                due = False
    except UserError:                                       # of a picture: the step before it is whole
        if started < state.step and int(state.bad_steps) < c.max_bad_steps:
            writer.wait()
            attempt(lambda: checkpoints.write(run, runs.contents(state), c.keep), 'nothing later than the last one is kept')
        raise
    else:
        writer.wait()
        checkpoints.write(run, runs.contents(state), c.keep)
    finally:
        batches.close()
        writer.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if state.step < c.total_steps:
        say(f'stopped at step {state.step} of {c.total_steps}, all saved; to go on: '
            f'python p2phd.py train --resume {run}')
        return 128 + stop[0]
    say(f'done: {checkpoints.numbered(run)[-1]}, pictures in {run / "samples"}')
    return 0


def tally(log, terms):
    """Add what train_step returned to what was tallied since the last report (None: nothing) -> float tensor: the sums
    of the losses, the number of steps, the number of those that were skipped, and the largest -map_min and map_max.
    A skipped step adds to the last number alone."""
    *sums, low, high, skipped = terms.values()
    sums = torch.where(skipped > 0, 0, torch.stack([*sums, torch.ones_like(skipped)]))
    sums = torch.cat([sums, skipped[None]])
    extremes = torch.where(skipped > 0, -math.inf, torch.stack([-low, high]))
    if log is not None:
        sums, extremes = log[:-2] + sums, torch.maximum(log[-2:], extremes)
    return torch.cat([sums, extremes])


def report(state, run, terms, pictures, before):
    """Add what was tallied to log.csv and say it: means of the losses, extremes of the last feature map. terms: of the
    last step, for their names. before: step and time of the last report."""
    c = state.config
    *sums, learned, skipped, low, high = state.log.tolist()
    means = {name: total / learned if learned else math.nan for name, total in zip(terms, sums)}
    state.log = None
    add_row(state, {**means, 'map_min': -low, 'map_max': high, 'skipped': skipped})
    attempt(lambda: append(run / 'log.csv', state.rows), 'training goes on')

    last_step, rate = before.step, (state.step - before.step) / (time.monotonic() - before.time)
    before.step, before.time = state.step, time.monotonic()
    say(f'step {state.step}/{c.total_steps}  epoch {state.step * c.batch / pictures:.1f}  '
        + '  '.join(f'{name} {value:.3f}' for name, value in means.items()) + f'  map {-low:.1f} to {high:.1f}'
        + (f'  skipped {skipped:.0f}' if skipped else '')
        + f'  {rate:.2f} steps/s  {timedelta(seconds=round((c.total_steps - state.step) / rate))} left')

    won = means['d_fake'] + means['d_real'] < 0.05 * losses.undecided(c.n_scales, c.gan)
    state.won_since = (state.won_since or state.step) if won else None
    if won and state.step - state.won_since >= WON_STEPS > last_step - state.won_since:
        say(f'warning: {run}: for {WON_STEPS} steps the discriminator has been right about nearly everything, and the '
            'generator learns little from it now; more data, a smaller --ndf or --pool-size 50 help', sys.stderr)


def add_row(state, means):
    """Append a line, and before the first one the names, to state.rows, the text of log.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    if not state.rows:
        writer.writerow(['step', 'pictures', 'lr', *means])
    rate = learning_rate(state.step - 1, state.config)
    writer.writerow([state.step, state.step * state.config.batch, f'{rate:.6g}',
                     *(f'{value:.6g}' for value in means.values())])
    state.rows += text.getvalue()


def load_vgg(source):
    """nets.VGG19 filled from a file, or from torchvision's site where `source` is 'fetch' (the hash is checked)."""
    try:
        state = (torch.hub.load_state_dict_from_url(
                     nets.VGG19.URL, map_location='cpu', check_hash=True, weights_only=True)
                 if source == 'fetch' else torch.load(source, map_location='cpu', weights_only=True))
        return nets.VGG19(state)
    except Exception as error:
        raise UserError(f'--vgg {source}: {brief(error)}; give the path of {nets.VGG19.URL.split("/")[-1]} as '
                        'torchvision publishes it') from None


@torch.inference_mode()
def save_sheet(state, dataset, path):
    """Write what the first two training pictures look like now: label | synthesised | real."""
    strips = []
    for index in range(min(2, len(dataset))):
        batch = {role: tensor[None] for role, tensor in dataset[0, index].items()}
        label, inst, image = data.to_device(batch, state.device)
        features = [styles.encode(state, image, inst)] if state.E else []
        with torch.autocast(state.device.type, torch.bfloat16, enabled=state.config.bf16):
            fake = state.G(torch.cat([data.condition(label, inst, state.config.n_labels), *features], 1))
        shown = [synthesis.show_label(state.config, batch['label'][0]),
                 *(synthesis.as_rgb(synthesis.to_picture(x)) for x in (fake, image))]
        strips.append(np.concatenate(shown, 1))
    width = max(strip.shape[1] for strip in strips)
    path.parent.mkdir(exist_ok=True)
    sheet = Image.fromarray(np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0))) for s in strips]))
    write_whole(path, lambda file: sheet.save(file, 'PNG'))
