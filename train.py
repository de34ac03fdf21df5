"""The method: paper section 3.2 to 3.4 and equations 1 to 5 in one training step; learning rate,
what is frozen when, the moving average, and the memory that it takes."""
import torch

import data
from app.runs import devices
from app.common.console import log_info, warn
from app.common.errors import UserError
import losses
from app.runs import distributed
import styles
import generate


def learning_rate(step, training):
    """Of the step after `step` steps: constant, then falling linearly towards the zero that it
    would reach after the last one (paper appendix A, by epochs there: README, deviation 2). A pure
    function of the step."""
    decaying = training.total_steps - training.decay_start
    left = training.total_steps - step
    return training.lr * (1 if step < training.decay_start else left / decaying)


def schedule(config, n):
    """Turn epochs of `n` pictures into the steps that learning rate and unfreezing are functions
    of. UserError where there are none."""
    t = config.training

    def steps(epochs):
        return -(-epochs * n // t.batch)

    t.total_steps = t.steps or steps(t.epochs + t.decay_epochs)
    t.decay_start = t.steps // 2 if t.steps else steps(t.epochs)
    t.fix_global_steps = steps(t.fix_global) if config.model == 'local' else 0
    if not t.total_steps:
        raise UserError('--epochs 0 --decay-epochs 0: nothing to train')


def freeze(run):
    """Joint fine-tuning (paper section 3.2): a new local enhancer is trained alone first, then
    everything together. What is inside it learns once the step has come, also in a run that was
    resumed past it (README, deviation 4)."""
    t = run.config.training
    if t.fix_global_steps:
        for parameter in run.G.inner_parameters():
            parameter.requires_grad_(run.step >= t.fix_global_steps)


def train_step(run, label, inst, image, labels=None):
    """One step of paper eq. 5: G's (and E's) step and the discriminators', which does not depend on
    it.

    label: (N, 1, H, W) integer, or (N, C, H, W) uint8 or float where config.n_labels is 0; inst:
    (N, 1, H, W) integer or None; image: (N, C, H, W) float in [-1, 1]; labels: see data.find_present_labels,
    None for all. Returns {name: 0-dimensional tensor}, still on the device: the terms of the
    losses; `map_min` and `map_max`, the range of G's last feature map (before its ReLU: a peak that
    grows there becomes a bright blob); `skipped`, 1 where a loss or a gradient was not finite and
    nothing was learned, else 0.
    """
    t = run.config.training
    for optimizer in (run.opt_G, run.opt_D):
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(run.step, t)
    freeze(run)

    # In parts, for less memory: their mean gradient is that of the whole batch.
    terms = {}
    parts = [(None,) * t.accumulate if maps is None else maps.chunk(t.accumulate)
             for maps in (label, inst, image)]
    for i, part in enumerate(zip(*parts)):
        noise = data.derive_seed(t.seed, run.step, distributed.RANK * t.accumulate + i)
        of_part = forward_backward(run, *part, labels, noise)
        terms = {name: merge_term(name, terms.get(name), value) for name, value in of_part.items()}
    terms = {name: value if name in MIN_MAX_TERMS else value / t.accumulate
             for name, value in terms.items()}
    gradient = [p.grad for p in trainable_parameters(run)]
    distributed.all_reduce_mean(gradient)
    terms = reduce_terms(terms)

    # A step that is not finite changes nothing, which is decided on the device.
    norm = torch.nn.utils.get_total_norm(gradient)
    finite = torch.isfinite(sum(value for name, value in terms.items() if name not in MIN_MAX_TERMS))
    skipped = (~(finite & torch.isfinite(norm))).float()
    run.bad_steps = torch.where((skipped > 0) | (run.bad_steps >= t.max_bad_steps),
                                run.bad_steps + skipped, 0)
    for optimizer in (run.opt_G, run.opt_D):
        optimizer.found_inf = skipped
        optimizer.step()
    run.step += 1
    update_ema(run, skipped)
    return {**terms, 'skipped': skipped}


def forward_backward(run, label, inst, image, labels, noise):
    """Both sides of paper eq. 5 for some pictures: adds the gradients, a share of
    1 / --accumulate, to those of G, E and D -> the terms, as train_step. noise: a seed of the
    U-Net's dropout."""
    c, t, D = run.config, run.config.training, run.D
    with devices.arithmetic(run):
        # The picture of label map s in the styles of the photograph x (section 3.4): G(s, E(x)).
        regions = styles.style_regions(c, label, inst)
        features = styles.encode(run, image, regions) if c.features else None
        made, condition = generate.run_generator(run, label, inst, features, noise, labels)
        # D1, D2 and D3 judge (s, G(s)) and (s, x).
        fake = made.detach().requires_grad_()       # where D's graph ends and G's begins
        fake_scores = D(data.concat_channels(condition, fake), labels)
        real_scores = D(data.concat_channels(condition, image), labels)
        # In [-1, 1] as they are: an official quirk, VGG-19 was trained on ImageNet's means.
        taps = (run.vgg(fake), run.vgg(image)) if run.vgg else None     # features of VGG-19
        # Equation 5, its two sides. The official code runs D once more on a detached fake; the
        # graph at hand gives D the same gradients (README, deviation 5).
        g_terms = losses.generator_loss(
            fake_scores, real_scores, c.n_layers, t.gan, taps, (fake, image), t.lambda_feature,
            t.lambda_vgg, t.lambda_l1)
        d_terms = losses.discriminator_loss(fake_scores, real_scores, t.gan)

    # `inputs` spares the gradients that nobody uses: of D's weights first, of the fake then. D's
    # graph is gone before G's is walked, which takes the most memory.
    g_loss, d_loss = sum(g_terms.values()), sum(d_terms.values()) / 2      # deviation 3
    to_fake, = torch.autograd.grad(g_loss / t.accumulate, fake, retain_graph=True)
    (d_loss / t.accumulate).backward(inputs=list(D.parameters()))
    del fake_scores, real_scores, taps
    made.backward(to_fake, inputs=trainable_parameters(run, 'G'))

    low, high = (extreme.float() for extreme in run.last_map)
    return {**{name: term.detach() for name, term in {**g_terms, **d_terms}.items()},
            'map_min': low, 'map_max': high}


def trainable_parameters(run, which='GD'):
    """The parameters that learn now: of G, with E while that learns, and of D."""
    return [p for name in which for group in getattr(run, f'opt_{name}').param_groups
            for p in group['params'] if p.requires_grad]


def reduce_terms(terms):
    """The terms of all processes: means of losses, extremes of extremes."""
    if distributed.WORLD_SIZE == 1:
        return terms
    means = torch.stack([value for name, value in terms.items() if name not in MIN_MAX_TERMS])
    distributed.all_reduce_mean([means])
    means = iter(means)
    return {name: distributed.all_reduce_extreme(value, name == 'map_max') if name in MIN_MAX_TERMS else next(means)
            for name, value in terms.items()}


# How terms are combined over pictures and steps: these by their extremes, losses by their sums.
MIN_MAX_TERMS = {'map_min': torch.minimum, 'map_max': torch.maximum}


def merge_term(name, so_far, value):
    return value if so_far is None else MIN_MAX_TERMS.get(name, torch.add)(so_far, value)


@torch.no_grad()
def update_ema(run, skipped):
    """Draw the moving averages (not in the paper) towards the weights, where the step was not
    skipped: with t.ema of them kept, or, while it is young, less."""
    keep = min(run.config.training.ema, (1 + run.step) / (10 + run.step))
    for name, average in run.average.items():
        for mean, weight in zip(average.parameters(), getattr(run, name).parameters()):
            mean.lerp_(weight, (1 - keep) * (1 - skipped))


def memory_needed(run):
    """About how many bytes of memory training takes at most, by a pass through the networks with
    tensors that have sizes only; None where pictures are of their own sizes."""
    from torch._subclasses.fake_tensor import FakeTensorMode     # takes a while to import
    c, t = run.config, run.config.training
    if not (t.crop or c.size):
        return None
    w, h = t.crop or c.size
    n = t.batch // t.accumulate
    sizes = (1 if c.n_labels else c.in_channels, torch.uint8), (1, torch.int32), (
        c.out_channels, torch.float32)
    step, run.step = run.step, t.total_steps        # when everything learns
    freeze(run)
    with FakeTensorMode(allow_non_fake_inputs=True), devices.PeakMemory() as memory:
        label, inst, image = (torch.empty(n, channels, h, w, dtype=dtype, device=run.device)
                              for channels, dtype in sizes)
        forward_backward(run, label, None if c.instances == 'none' else inst, image, None, 0)
        for optimizer in (run.opt_G, run.opt_D):
            optimizer.zero_grad()
    run.last_map = ()
    weights, learned = (sum(p.nbytes for p in parameters) for parameters in (
        (p for net in (run.G, run.D, run.E, run.vgg, *run.average.values()) if net
         for p in net.parameters()), trainable_parameters(run)))
    run.step = step
    freeze(run)
    # Adam keeps two moments; while a checkpoint is written there is a copy of all of it.
    return memory.peak + (weights + 2 * learned) * (2 if run.device.type == 'cpu' else 1)


def compare_memory(run):
    """Say how much memory a run will need, and warn where there is less -> whether there is enough,
    as far as one can say."""
    needed, there = memory_needed(run), devices.free_memory(run.device)
    if needed is None or there is None:
        return True
    message = f'memory: about {needed / 2 ** 30:.1f} GiB needed, {there / 2 ** 30:.1f} GiB free'
    if needed < there:
        log_info(message)
    else:
        warn(f'warning: {message}; --precision bf16, --recompute, --accumulate (of a larger '
             '--batch), --crop, a smaller --size or --ngf take less')
    return needed < there
