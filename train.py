"""Training, paper sections 3.2 to 3.4: what is trained, what happens when, one step, the loop.

A configuration c is a namespace of what the networks are (`n_labels`, `n_enhancers` ...), with a
namespace t = c.training of how they are trained (`lr`, `batch` ...), None for a run of the official
code, which only makes pictures. app/common/config.py lists all fields and their defaults."""
from collections.abc import Callable
import copy
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import data
import generate
import losses
import nets
import styles


# --------------------------------------------------------------------------------- what is trained

@dataclass
class Run:
    """Networks, and the state of their training."""
    config: SimpleNamespace
    device: torch.device
    G: nn.Module                            # GlobalGenerator, LocalEnhancer or UNet
    E: nn.Module | None = None              # Encoder, where there are features
    precision: str = 'fp32'                 # see nets.autocast
    average: dict = field(default_factory=dict)     # {'G': module, 'E': module}, see init_averages
    # The rest is used only in training.
    D: nn.Module | None = None              # MultiscaleDiscriminator
    vgg: nn.Module | None = None            # VGG19, for the perceptual loss
    opt_G: torch.optim.Optimizer | None = None      # of G, and of E if that is trained
    opt_D: torch.optim.Optimizer | None = None
    cudnn_benchmark: bool = False           # see nets.autocast
    step: int = 0                           # steps done
    bad_steps: torch.Tensor | None = None   # () float on the device: steps skipped in a row. From
    #                                         t.max_bad_steps on it stays: hooks look seldom
    last_map: tuple = ()                    # minimum and maximum of G's last feature map
    log: object | None = None               # for the hooks of the loop
    graphed_forward_backward: Callable | None = None    # forward_backward with CUDA graphs


def make_run(config, device, training=True, make=lambda name, constructor: constructor()):
    """Make the networks of a configuration and, for training, optimizers and averages: a Run.

    make: make(name, constructor) returns the network 'G', 'E' or 'D'. The constructor draws its
        weights from the seed; `make` may load others."""
    t = config.training
    torch.manual_seed(t.seed if t else 0)
    built = {name: make(name, constructor).to(device, memory_format=torch.channels_last)
             for name, constructor in nets.constructors(config).items() if training or name != 'D'}
    run = Run(config, device, **built, precision=t.precision if t else 'fp32',
              bad_steps=torch.zeros((), device=device))
    if t and config.model != 'unet':
        run.G.recompute = t.recompute
    if training and t:
        trained = [*run.G.parameters(), *(run.E.parameters() if encoder_is_trained(config) else ())]
        # Paper appendix A; the betas are those of the official code.
        adam = dict(lr=t.lr, betas=(0.5, 0.999), fused=True)
        run.opt_G = Adam(trained, **adam)
        run.opt_D = Adam(run.D.parameters(), **adam)
        watch_last_map(run)
        if t.ema:
            init_averages(run)
    return run


class Adam(torch.optim.Adam):
    """torch.optim.Adam without copies. Its fused kernel for the CPU copies tensors that are not
    contiguous, as those in the channels-last layout. Seen as (c_out, height, width, c_in) they are
    contiguous."""

    def _init_group(self, group, *lists):       # of parameters, gradients, moments, steps
        result = super()._init_group(group, *lists)
        for tensors in lists:
            tensors[:] = [x.movedim(1, -1) if x.ndim == 4 and x.device.type == 'cpu' and
                          x.is_contiguous(memory_format=torch.channels_last) else x
                          for x in tensors]
        return result


def encoder_is_trained(config):
    """Whether E is trained together with G (paper section 3.4). The encoder of a finetuned run,
    whose encoder_scale is above 1, is not."""
    return config.features and config.encoder_scale == 1


def watch_last_map(run):
    """Record the range of G's last normalised feature map in run.last_map, at every forward pass.
    Large values there appear as bright blobs in the picture."""
    def record(module, inputs, output):     # detached, or it would keep the graph in memory
        run.last_map = output.detach().aminmax()

    last = [module for module in run.G.modules() if isinstance(module, nn.InstanceNorm2d)][-1]
    last.register_forward_hook(record)


def trainable_parameters(run, optimizers='GD'):
    """The parameters that are trained at this step: G's, with E's if it is trained, and D's."""
    return [p for name in optimizers for group in getattr(run, f'opt_{name}').param_groups
            for p in group['params'] if p.requires_grad]


# ------------------------------------------------------------------------------- what happens when

def set_schedule(config, n):
    """Convert epochs of n pictures into steps: t.total_steps, t.decay_start, t.fix_global_steps.
    Raises InputError where there is nothing to train."""
    t = config.training

    def steps(epochs):
        return -(-epochs * n // t.batch)

    t.total_steps = t.steps or steps(t.epochs + t.decay_epochs)
    t.decay_start = t.steps // 2 if t.steps else steps(t.epochs)
    t.fix_global_steps = steps(t.fix_global) if config.model == 'local' else 0
    if not t.total_steps:
        raise data.InputError('--epochs 0 --decay-epochs 0: nothing to train; use --steps or '
                              '--epochs')


def learning_rate(step, t):
    """The learning rate at `step`: constant, then linear decay to zero (paper appendix A). It
    changes at each step, in the official code at each epoch (docs/differences.md, 3)."""
    decaying = t.total_steps - t.decay_start
    return t.lr * (1 if step < t.decay_start else (t.total_steps - step) / decaying)


def freeze_inner(run):
    """Freeze what is inside a new local enhancer in the first phase, unfreeze it afterwards (paper
    section 3.2). Only the step decides, also after a resume (docs/differences.md, 4)."""
    t = run.config.training
    if t.fix_global_steps:
        for parameter in run.G.inner_parameters():
            parameter.requires_grad_(run.step >= t.fix_global_steps)


# -------------------------------------------------------------------------------------- one step

def train_step(run, label, inst, image, present_labels=None, reduce=None, rank=0):
    """Train G, E and D for one step on paper eq. 5. They share one forward pass.

    label: (N, 1, H, W) integer, or (N, C, H, W) uint8 or float where c.n_labels is 0.
    inst: (N, 1, H, W) integer, or None.
    image: (N, C, H, W) float in [-1, 1].
    present_labels: (L,), see data.find_present_labels, or None for all labels.
    reduce: reduce(tensors, 'mean', 'min' or 'max') combines tensors over processes, in place; rank
        is the number of this process.
    Returns {name: 0-dimensional tensor} on the device, without GPU synchronisation: the terms of
    the losses; `map_min` and `map_max`, the range of G's last feature map before its ReLU;
    `skipped`, 1 if a loss or a gradient was not finite and the weights stay as they were, else 0.
    """
    t, compute = run.config.training, run.graphed_forward_backward or forward_backward
    for optimizer in (run.opt_G, run.opt_D):    # CUDA graphs need the gradients at fixed addresses
        optimizer.zero_grad(set_to_none=compute is forward_backward)
        for group in optimizer.param_groups:
            group['lr'] = learning_rate(run.step, t)
    freeze_inner(run)

    # Gradient accumulation over t.accumulate equal parts of the batch, which takes less memory.
    terms = {}
    parts = [(None,) * t.accumulate if maps is None else maps.chunk(t.accumulate)
             for maps in (label, inst, image)]
    for i, part in enumerate(zip(*parts)):
        noise_seed = data.derive_seed(t.seed, run.step, rank * t.accumulate + i)
        part_terms = compute(run, *part, present_labels, noise_seed)
        terms = {name: merge_term(name, terms.get(name), value)
                 for name, value in part_terms.items()}
    terms = {name: value if name in MIN_MAX_TERMS else value / t.accumulate
             for name, value in terms.items()}
    gradients = [p.grad for p in trainable_parameters(run)]
    if reduce:
        reduce(gradients, 'mean')
        reduce_terms(terms, reduce)

    # A step that is not finite leaves the weights as they are: fused Adam skips the update where
    # found_inf is 1, without GPU synchronisation.
    norm = torch.nn.utils.get_total_norm(gradients)
    finite = torch.isfinite(sum(value for name, value in terms.items()
                                if name not in MIN_MAX_TERMS))
    skipped = (~(finite & torch.isfinite(norm))).float()
    run.bad_steps = torch.where((skipped > 0) | (run.bad_steps >= t.max_bad_steps),
                                run.bad_steps + skipped, 0)
    for optimizer in (run.opt_G, run.opt_D):
        optimizer.found_inf = skipped
        optimizer.step()
    run.step += 1
    update_ema(run)
    return {**terms, 'skipped': skipped}


def forward_backward(run, label, inst, image, present_labels, noise_seed):
    """Compute the losses of G and D, paper eq. 5, for a part of a batch, and add their gradients,
    times 1 / t.accumulate, to the parameters. See train_step for arguments and terms.

    noise_seed: seed of the U-Net's dropout and of augmentation."""
    c, t, D = run.config, run.config.training, run.D
    with nets.autocast(run.device, run.precision, run.cudnn_benchmark):
        # The picture of label map s in the styles of the photograph x (section 3.4): G(s, E(x)).
        features = None
        if c.features:
            regions = styles.style_regions(c, label, inst)
            features = styles.encode(run.E, image, regions, c.encoder_scale)
        fake, condition = generate.run_generator(run, label, inst, features, noise_seed,
                                                 present_labels)
        # D1, D2 and D3 score (s, G(s)) and (s, x).
        fake_leaf = fake.detach().requires_grad_()      # separates the graphs of G and D
        nets.set_present_labels(present_labels, D)
        draws = draw_augmentations(len(image), *image.shape[-2:], noise_seed) if t.augment else None
        fake_scales = D(discriminator_input(condition, fake_leaf, draws))
        real_scales = D(discriminator_input(condition, image, draws))
        vgg_features = (run.vgg(fake_leaf), run.vgg(image)) if run.vgg else None
        # Eq. 5. The official code runs D once more on a detached fake; one graph gives D the same
        # gradients (docs/differences.md, 5).
        g_terms = losses.generator_loss(
            fake_scales, real_scales, c.n_layers, t.gan, vgg_features, (fake_leaf, image),
            t.lambda_feature, t.lambda_vgg, t.lambda_l1)
        d_terms = losses.discriminator_loss(fake_scales, real_scales, t.gan)

    # There are three backward passes: from G's loss to the fake, from D's loss to D's weights, and
    # from the fake to G's weights. The graphs of VGG and D are freed before the third. The first
    # needs no gradients of D's weights. PyTorch's layers see that by themselves; the layers of
    # app/runs/fast_layers.py look at requires_grad.
    g_loss, d_loss = sum(g_terms.values()), sum(d_terms.values()) / 2   # docs/differences.md, 2
    terms = {name: term.detach() for name, term in {**g_terms, **d_terms}.items()}
    D.requires_grad_(False)
    grad_fake, = torch.autograd.grad(g_loss / t.accumulate, fake_leaf, retain_graph=True)
    D.requires_grad_(True)
    del g_terms, g_loss, d_terms, vgg_features
    (d_loss / t.accumulate).backward(inputs=list(D.parameters()))
    del fake_scales, real_scales, d_loss
    fake.backward(grad_fake, inputs=trainable_parameters(run, 'G'))

    terms['map_min'], terms['map_max'] = (extreme.float() for extreme in run.last_map)
    return terms


# How these terms are merged over parts of a batch, steps and processes. Losses are added, and the
# caller of merge_term divides the sum.
MIN_MAX_TERMS = {'map_min': torch.minimum, 'map_max': torch.maximum}


def merge_term(name, total, value):
    """Add a term's value to its total, which is None at first. Keep extremes of MIN_MAX_TERMS."""
    return value if total is None else MIN_MAX_TERMS.get(name, torch.add)(total, value)


def reduce_terms(terms, reduce):
    """Combine the terms of all processes, in place: means of losses, extremes of extremes."""
    for operation, names in (('mean', terms.keys() - MIN_MAX_TERMS.keys()),
                             ('min', {'map_min'}), ('max', {'map_max'})):
        names = sorted(names)
        stacked = torch.stack([terms[name] for name in names])
        reduce([stacked], operation)
        terms.update(zip(names, stacked))


# ------------------------------------------------------------------ augmentation of what D sees

def draw_augmentations(n, h, w, seed):
    """Draw how D sees n pictures of (h, w) pixels: a list of keyword arguments of `augment`. The
    ranges are those of Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training",
    NeurIPS 2020. They are numbers on the CPU, so a GPU need not wait for them."""
    rng = np.random.default_rng(seed)
    return [{'brightness': rng.uniform(-0.5, 0.5), 'saturation': rng.uniform(0, 2),
             'contrast': rng.uniform(0.5, 1.5),
             'shift': rng.integers((-(h // 8), -(w // 8)), (h // 8 + 1, w // 8 + 1)).tolist(),
             'hole': rng.integers((h, w)).tolist()} for _ in range(n)]


def discriminator_input(condition, picture, draws=None):
    """Concatenate the condition s and a real or fake picture for D: (N, C, H, W) float32. With
    `draws` (see draw_augmentations; docs/differences.md, 15), D sees each of them altered."""
    if draws is None:
        return data.concat_channels(condition, picture)
    return torch.cat([augment(*pair, **draw) for *pair, draw in zip(
        condition.split(1), picture.split(1), draws)])


def augment(condition, picture, brightness, saturation, contrast, shift, hole):
    """Change the colours of a picture, then move it together with its condition and cut a hole into
    both. Differentiable, so that G learns through it.

    condition: (1, K, H, W) float. picture: (1, C, H, W) float in [-1, 1].
    brightness: is added. saturation, contrast: multiply the distance of each pixel from its grey,
        and of the picture from its mean.
    shift: pixels (down, right). What comes in from outside is zero in all channels.
    hole: the centre (y, x) of a rectangle of zeros, half as high and wide as the picture.
    Returns the input of D, (1, K + C, H, W) float32."""
    (h, w), (down, right), (y, x) = picture.shape[-2:], shift, hole
    picture = picture.float() + brightness
    grey = picture.mean(1, keepdim=True)
    picture = grey + saturation * (picture - grey)
    mean = picture.mean()
    picture = mean + contrast * (picture - mean)
    # Padding by a negative number of pixels cuts them off.
    result = F.pad(data.concat_channels(condition, picture), (right, -right, down, -down))
    top, left = y - h // 4, x - w // 4
    result[..., max(top, 0):top + h // 2, max(left, 0):left + w // 2] = 0
    return result


# ------------------------------------------------------------------- moving average of the weights

def init_averages(run):
    """Start the moving averages of the weights of G and E at the weights."""
    run.average = {name: copy.deepcopy(getattr(run, name)).requires_grad_(False)
                   for name in 'GE' if getattr(run, name)}


@torch.no_grad()
def update_ema(run):
    """Update the averages (not in the paper): average = keep * average + (1 - keep) * weight, where
    `keep` is t.ema, and less in the first steps."""
    keep = min(run.config.training.ema, (1 + run.step) / (10 + run.step))
    for name, average in run.average.items():
        torch._foreach_lerp_(list(average.parameters()), list(getattr(run, name).parameters()),
                             1 - keep)


def with_averages(run):
    """Return a copy of the run for generating: with the averages, if there are any, as G and E."""
    return replace(run, **run.average)


# -------------------------------------------------------------------------------------- the loop

def fit(run, batches, hooks=(), interrupted=lambda: 0, reduce=None, rank=0):
    """The training loop, from run.step to the last step.

    batches: see data.batches.
    hooks: functions hook(run, terms, stop) that are called after each step with what train_step
        returned: log, pictures, checkpoints.
    interrupted: returns a number other than 0 to end the loop after this step; the hooks get it.
    reduce, rank: see train_step.
    Returns the last number of `interrupted`, so 0 after an undisturbed training."""
    for batch in batches:
        terms = train_step(run, *data.to_device(batch, run.device), reduce, rank)
        stop = interrupted()
        for hook in hooks:
            hook(run, terms, stop)
        if stop or run.step == run.config.training.total_steps:
            return stop
    return 0
