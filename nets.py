"""The networks of pix2pixHD (Wang et al., "High-Resolution Image Synthesis and Semantic
Manipulation with Conditional GANs", CVPR 2018), in plain PyTorch.

Parameters carry the names of the official state dicts, so official weights load as they are. Every
network is fully convolutional and normalises with InstanceNorm without affine parameters or running
statistics: it behaves alike in training and in use, and no picture of a batch sees another.
"""
import re

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def init_weights(net):
    """Draw every convolution's weights from N(0, 0.02) (paper appendix A); biases keep PyTorch's
    default, as in the official code. Weights without memory, which are about to be loaded, are left
    alone: drawing them would import torch's compiler, which takes a second."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not module.weight.is_meta:
            nn.init.normal_(module.weight, 0.0, 0.02)
    return net


def check_size(x, multiple, smallest, who):
    """x (N, C, H, W), in the channels-last layout, in which convolutions are fastest. ValueError
    unless height and width are multiples of `multiple` and at least `smallest`."""
    h, w = x.shape[-2:]
    if h % multiple or w % multiple or min(h, w) < smallest:
        raise ValueError(f'{who} needs a width and a height that are multiples of {multiple} and '
                         f'at least {smallest}, and got {w}x{h}')
    return x.contiguous(memory_format=torch.channels_last)


class InstanceNorm(nn.InstanceNorm2d):
    """nn.InstanceNorm2d, which in the channels-last layout is several times as fast as the norm of
    a batch of one picture."""

    def forward(self, x):
        if len(x) > 1:
            return torch.cat([self(picture) for picture in x.split(1)])
        if x.dtype == torch.float32 and x.device.type == 'cpu':
            y = CPUInstanceNorm.apply(x, self.eps)
            return y * self.weight[:, None, None] + self.bias[:, None, None] if self.affine else y
        return F.batch_norm(x, None, None, self.weight, self.bias, True, eps=self.eps)


class CPUInstanceNorm(torch.autograd.Function):
    """The norm of one picture (1, C, H, W) float32 on the CPU, where the sum of squares of
    F.batch_norm loses three digits in the channels-last layout."""

    @staticmethod
    def forward(ctx, x, eps):
        mean = x.mean((0, 2, 3))
        y = x - mean[:, None, None]
        scale = (y.mul_(y).mean((0, 2, 3)) + eps).rsqrt()
        ctx.save_for_backward(x, mean, scale)
        return torch.sub(x, mean[:, None, None], out=y).mul_(scale[:, None, None])

    @staticmethod
    def backward(ctx, gradient):
        x, mean, scale = ctx.saved_tensors
        centred = x - mean[:, None, None]
        along = (gradient * centred).mean((0, 2, 3)) * scale ** 2
        # y's share, and the mean's, taken out of the gradient; mostly in place.
        centred.mul_(-along[:, None, None]).add_(gradient)
        centred.sub_(gradient.mean((0, 2, 3))[:, None, None])
        return centred.mul_(scale[:, None, None]), None


def see(conv, x, labels):
    """The first convolution of a network, on an input that has only the one-hot channels of some
    labels: those of labels that occur nowhere are zero, and leaving them out changes nothing.

    labels: (K,) int64, the labels of the first K channels of x (N, K + rest, H, W); None: x has the
    channels of all. The weights of labels left out get a gradient of zero.
    """
    weight = conv.weight                    # (c_out, n_labels + rest, h, w)
    if labels is not None:
        everything = torch.arange(weight.shape[1], device=labels.device)
        kept = torch.cat([labels, everything[weight.shape[1] - x.shape[1] + len(labels):]])
        weight = weight.index_select(1, kept)
    return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)


def conv_block(c_in, c_out, kernel, **kwargs):
    return [nn.Conv2d(c_in, c_out, kernel, **kwargs), InstanceNorm(c_out), nn.ReLU(True)]


class ResizeConv(nn.Conv2d):
    """A map made twice as large, then a 3x3 convolution: (N, c_in, H, W) -> (N, c_out, 2H, 2W). In
    place of a transposed convolution, whose pixels see one, two or four of its weights, which can
    show as a grid (Odena et al., 2016)."""

    def __init__(self, c_in, c_out, mode):
        super().__init__(c_in, c_out, 3, padding=1, padding_mode='reflect')
        self.mode = mode                    # 'nearest' or 'bilinear'

    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=2, mode=self.mode))


def up_block(c_in, c_out, up):
    """Twice the size, by a transposed convolution as in the paper (up 'transposed') or ResizeConv
    ('nearest', 'bilinear')."""
    if up == 'transposed':
        conv = nn.ConvTranspose2d(c_in, c_out, 3, stride=2, padding=1, output_padding=1)
    else:
        conv = ResizeConv(c_in, c_out, up)
    return [conv, InstanceNorm(c_out), nn.ReLU(True)]


def half_size(x):
    """(N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)): the 3x3 average pooling of the official image
    pyramids."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


# ------------------------------------------------------------------------------ the generators

def run_layers(layers, x, recompute=False, labels=None):
    """x through a Sequential; with labels (see `see`), one that begins with padding and a
    convolution. With recompute, activations are not kept for the way back, but for the inputs of
    the stretches before, between and after the residual blocks: each is computed once more when its
    turn comes."""
    stretches = [[]]
    for layer in layers:
        alone = isinstance(layer, ResidualBlock)
        stretches += [[layer], []] if alone else []
        if not alone:
            stretches[-1].append(layer)

    def run(stretch, x, labels):
        if labels is not None:
            pad, conv, *stretch = stretch
            x = see(conv, pad(x), labels)
        for layer in stretch:
            x = layer(x)
        return x

    for stretch in filter(None, stretches):
        if recompute and torch.is_grad_enabled():
            x = checkpoint(run, stretch, x, labels, use_reentrant=False)
        else:
            x = run(stretch, x, labels)
        labels = None                       # the first convolution alone sees them
    return x


class ResidualBlock(nn.Module):
    """x + f(x), f: two reflect-padded 3x3 convolutions. (N, C, H, W) -> the same."""

    def __init__(self, channels):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), *conv_block(channels, channels, 3),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), InstanceNorm(channels))

    def forward(self, x):
        return x + self.conv_block(x)


class GlobalGenerator(nn.Module):
    """G1, the global generator: paper section 3.2 and appendix A (c7s1-64, d128, d256, d512, d1024,
    R1024 x 9, u512, u256, u128, u64, c7s1-3).

    forward: (N, in_channels, H, W) float -> (N, out_channels, H, W) float in [-1, 1]; labels: see
    `see`. H and W must be multiples of 2 ** n_down and at least twice that (ValueError), else the
    output's size would differ.
    """

    def __init__(self,
                 in_channels,               # one-hot labels + boundary + features
                 out_channels=3,            # RGB
                 ngf=64,                    # channels after the stem, doubled by each downsampling
                 n_down=4,                  # strided convolutions
                 n_blocks=9,                # residual blocks at the coarsest size
                 up='transposed'):          # see up_block
        super().__init__()
        self.multiple, self.recompute = 2 ** n_down, False      # see `through`

        layers = [nn.ReflectionPad2d(3), *conv_block(in_channels, ngf, 7)]
        for i in range(n_down):
            layers += conv_block(ngf << i, ngf << i + 1, 3, stride=2, padding=1)
        layers += [ResidualBlock(ngf << n_down) for _ in range(n_blocks)]
        for i in reversed(range(n_down)):
            layers += up_block(ngf << i + 1, ngf << i, up)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, out_channels, 7), nn.Tanh()]

        self.model = nn.Sequential(*layers)
        init_weights(self)

    def forward(self, x, labels=None):
        x = check_size(x, self.multiple, 2 * self.multiple, 'the global generator')
        return run_layers(self.model, x, self.recompute, labels)   # (N, out_channels, H, W)


class LocalEnhancer(nn.Module):
    """G2 (and G3): `n_enhancers` local enhancers around G1, each at twice the size of the one
    inside; paper section 3.2.

    Each adds its downsampled features to the last feature map of the network inside (figure 3);
    only the outermost ends in the 7x7 convolution to a picture. `ngf` is the width of the outermost
    enhancer; the global generator inside has ngf * 2 ** n_enhancers. Submodules: `model` (G1
    without its output layer), `model{n}_1` and `model{n}_2` (enhancer n's way down and way up).

    forward: (N, in_channels, H, W) float -> (N, out_channels, H, W) float in [-1, 1]; labels: see
    `see`. H and W must be multiples of 2 ** (n_down + n_enhancers) and at least twice that
    (ValueError).
    """

    def __init__(self, in_channels, out_channels=3,
                 ngf=32,                    # channels of the outermost enhancer's stem
                 n_down=4,                  # downsamplings inside G1
                 n_blocks=9,                # residual blocks inside G1
                 n_enhancers=1,             # 1: G2 (2048x1024), 2: G3 (4096x2048)
                 n_blocks_local=3,          # residual blocks of each enhancer
                 up='transposed'):          # see up_block
        super().__init__()
        self.n_enhancers, self.recompute = n_enhancers, False   # see `through`
        self.multiple = 2 ** (n_down + n_enhancers)
        self.model = GlobalGenerator(in_channels, out_channels, ngf << n_enhancers, n_down,
                                     n_blocks, up).model[:-3]

        for n in range(1, n_enhancers + 1):
            width = ngf << n_enhancers - n
            down = [nn.ReflectionPad2d(3), *conv_block(in_channels, width, 7),
                    *conv_block(width, 2 * width, 3, stride=2, padding=1)]
            rise = [ResidualBlock(2 * width) for _ in range(n_blocks_local)]
            rise += up_block(2 * width, width, up)
            if n == n_enhancers:
                rise += [nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh()]
            self.add_module(f'model{n}_1', nn.Sequential(*down))
            self.add_module(f'model{n}_2', nn.Sequential(*rise))
        init_weights(self)

    def forward(self, x, labels=None):
        x = check_size(x, self.multiple, 2 * self.multiple, 'the local enhancer')
        pyramid = [x]                       # full size first
        for _ in range(self.n_enhancers):
            pyramid.append(half_size(pyramid[-1]))

        # w: the width of the enhancer around it
        y = run_layers(self.model, pyramid.pop(), self.recompute, labels)
        for n in range(1, self.n_enhancers + 1):    # (N, 2w, H / 2^n_enhancers, W / 2^n_enhancers)
            down, up = getattr(self, f'model{n}_1'), getattr(self, f'model{n}_2')
            # Paper figure 3; doubles the size.
            y = y + run_layers(down, pyramid.pop(), self.recompute, labels)
            y = run_layers(up, y, self.recompute)
        return y                            # (N, out_channels, H, W)

    def inner_parameters(self):
        """The parameters of everything inside the outermost enhancer: what stays frozen while that
        one is trained."""
        return [p for name, p in self.named_parameters()
                if not name.startswith(f'model{self.n_enhancers}_')]

    def load_inner(self, state):
        """Fill everything but the outermost enhancer from the state dict of the network that was
        trained inside it.

        Only that network's output convolution may be left over, and only the outermost enhancer may
        go unfilled; anything else is a mismatched architecture (ValueError that names the first
        entry).
        """
        own = self.state_dict()
        outer = f'model{self.n_enhancers}_'
        last = 'model' if self.n_enhancers == 1 else f'model{self.n_enhancers - 1}_2'
        wanted = {name for name in own if not name.startswith(outer)}
        left_over = set(state) - wanted
        wrong = sorted(name for name in wanted
                       if name not in state or state[name].shape != own[name].shape)
        wrong += sorted(name for name in left_over
                        if not re.fullmatch(rf'{last}\.\d+\.(weight|bias)', name))
        if wrong or len(left_over) != 2:
            raise ValueError('the inner network does not fit this local enhancer: see '
                             f'{(wrong or sorted(left_over))[:1]}')
        self.load_state_dict({**own, **{name: state[name] for name in wanted}}, strict=True)


# --------------------------------------------------------------------------------- the encoder

class InstanceMean(torch.autograd.Function):
    """The mean of (N, C, P) values over each run of equal ids, in (N, P) sorted order, in place of
    every value.

    Sums are differences of a running sum: nothing is added atomically, so the result is the same
    every time on a GPU too. It is its own gradient, for "every value becomes the mean of its
    instance" is a symmetric matrix.
    """

    @staticmethod
    def forward(ctx, values, order, first, last):
        ctx.save_for_backward(order, first, last)
        return mean_of_runs(values, order, first, last)

    @staticmethod
    def backward(ctx, gradient):
        return mean_of_runs(gradient, *ctx.saved_tensors), None, None, None


def lacks_float64(device):
    return device.type == 'mps'


def mean_of_runs(values, order, first, last):
    """values (N, C, P) float; order (N, P), which pixel comes when; first and last (N, P), where in
    that order its run begins and ends -> (N, C, P) float32."""
    if lacks_float64(values.device):
        on_cpu = (x.cpu() for x in (values, order, first, last))
        return mean_of_runs(*on_cpu).to(values.device)
    order, first, last = (index[:, None].expand_as(values) for index in (order, first, last))
    # In float64: in float32 a road of a million pixels would lose digits.
    sums = F.pad(values.gather(2, order).double().cumsum(2), (1, 0))
    means = (sums.gather(2, last + 1) - sums.gather(2, first)) / (last + 1 - first)
    return torch.empty_like(values, dtype=torch.float32).scatter_(2, order, means.float())


def instance_mean(features, inst):
    """Replace every pixel's features by their mean over the pixel's instance: the instance-wise
    average pooling of paper section 3.4.

    features: (N, C, H, W) float. inst: (N, 1, H, W) integer, ids of any value; equal ids in two
    pictures of the batch stay two instances. Returns (N, C, H, W) float32. The device is not asked
    how many instances there are.
    """
    ids, order = inst.flatten(1).sort(dim=1)
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    differs = ids[:, 1:] != ids[:, :-1]
    first = torch.where(F.pad(differs, (1, 0), value=True), places, 0).cummax(1).values
    last = torch.where(F.pad(differs, (0, 1), value=True), places, ids.shape[1])
    last = last.flip(1).cummin(1).values.flip(1)
    means = InstanceMean.apply(features.flatten(2), order, first, last)
    return means.view(features.shape)


class Encoder(nn.Module):
    """E, the feature encoder: paper section 3.4. A small encoder-decoder, then instance-wise
    average pooling.

    forward: image (N, in_channels, H, W) float in [-1, 1] and inst (N, 1, H, W) integer ->
    (N, feat, H, W) float, constant over each instance. H and W must be multiples of 2 ** n_down and
    at least twice that (ValueError). An instance map some whole number of times larger than the
    image is painted at its own size: so an encoder trained at 1024x512 serves a generator at
    2048x1024, and an instance too thin to survive the reduction of the image still gets the mean of
    what lies under it.
    """

    def __init__(self,
                 in_channels=3,
                 feat=3,                    # features per instance
                 nef=16,                    # channels after the stem
                 n_down=4,                  # strided convolutions
                 up='transposed'):          # see up_block
        super().__init__()
        self.multiple = 2 ** n_down
        self.model = GlobalGenerator(in_channels, feat, nef, n_down, 0, up).model

    def forward(self, image, inst):
        image = check_size(image, self.multiple, 2 * self.multiple, 'the encoder')
        raw = self.model(image)             # (N, feat, h, w)
        if raw.shape[-2:] != inst.shape[-2:]:
            raw = F.interpolate(raw, inst.shape[-2:], mode='nearest')       # (N, feat, H, W)
        return instance_mean(raw, inst)     # (N, feat, H, W)


# ------------------------------------------------------------------------------------ the U-Net

class UNet(nn.Module):
    """The generator of pix2pix, the paper's baseline (Isola et al., "Image-to-Image Translation
    with Conditional Adversarial Networks", CVPR 2017, section 6.1.1): 4x4 convolutions of stride 2
    down to a few pixels and up again (C64, C128, C256, C512 ...; dropout in the three innermost of
    the way up), every level with a skip connection to its counterpart.

    Its noise z is that dropout, when generating as well (section 3.1 there), drawn from torch's own
    generator: see `noise`. Its batch normalisation ran on batches of one picture; that is
    InstanceNorm, and what is used here whatever the batch.

    forward: (N, in_channels, H, W) float -> (N, out_channels, H, W) float, in [-1, 1] with tanh;
    labels: see nets.see. H and W must be multiples of 2 ** n_down (ValueError).
    """

    def __init__(self, in_channels, out_channels=3,
                 ngf=64,                    # channels after the first level, doubled up to 8 times
                 n_down=8,                  # levels
                 up='transposed',           # 'nearest', 'bilinear': see ResizeConv
                 dropout=0.5,               # share of features that it sets to zero
                 tanh=True):                # else it ends in the raw map
        super().__init__()
        self.multiple, self.dropout, self.tanh = 2 ** n_down, dropout, tanh
        widths = [in_channels] + [ngf << min(i, 3) for i in range(n_down)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()   # each as data passes them
        for i in range(n_down):
            c_in, c_out, innermost = widths[i], widths[i + 1], i == n_down - 1
            back = c_out if innermost else 2 * c_out            # with the skip connection
            self.down.append(nn.Sequential(
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1),
                nn.Identity() if i == 0 or innermost else InstanceNorm(c_out, affine=True)))
            to = widths[i] if i else out_channels
            self.up.insert(0, nn.Sequential(
                nn.ConvTranspose2d(back, to, 4, stride=2, padding=1) if up == 'transposed'
                else ResizeConv(back, to, up),
                InstanceNorm(to, affine=True) if i else nn.Identity()))
        init_weights(self)

    def forward(self, x, labels=None):
        x = check_size(x, self.multiple, self.multiple, 'the U-Net')
        skips = []
        for i, (conv, norm) in enumerate(self.down):
            x = norm(conv(F.leaky_relu(x, 0.2)) if i else see(conv, x, labels))
            skips.append(x)                 # (N, ngf * min(2^i, 8), H / 2^(i+1), W / 2^(i+1))

        x = skips.pop()
        for i, layer in enumerate(self.up):
            x = layer(F.relu(x))
            if skips:                       # all but the outermost level
                x = F.dropout(x, self.dropout) if i < 3 else x
                x = torch.cat([x, skips.pop()], 1)
        return x.tanh() if self.tanh else x     # (N, out_channels, H, W)


# -------------------------------------------------------------------------- the discriminators

class MultiscaleDiscriminator(nn.Module):
    """D1, D2, D3: identical 70x70 PatchGANs on the picture at full, half and quarter size; paper
    section 3.2 and appendix A (C64, C128, C256, C512).

    forward: (N, in_channels, H, W) float, the condition and the picture side by side -> list over
    scales, full size first, of lists over layers of (N, c, h, w): the features that feature
    matching compares, and last the (N, 1, h, w) map of raw scores; labels: see `see`. The official
    parameter names count scales from the smallest: `scale{n_scales-1}_layer{j}` sees the full size.
    """

    def __init__(self,
                 in_channels,               # one-hot labels + boundary + RGB
                 ndf=64,                    # channels of the first layer, doubled up to 512
                 n_layers=3,                # strided convolutions; 3: a receptive field of 70x70
                 n_scales=3,                # discriminators
                 spectral_norm=False):      # divide weights by their largest singular value
        super().__init__()
        self.n_scales, self.n_layers = n_scales, n_layers
        widths = [min(ndf << i, 512) for i in range(n_layers + 1)]

        for scale in range(n_scales):
            layers = [[nn.Conv2d(in_channels, ndf, 4, stride=2, padding=2),
                       nn.LeakyReLU(0.2, True)]]
            for i in range(1, n_layers + 1):
                stride = 2 if i < n_layers else 1
                layers.append([
                    nn.Conv2d(widths[i - 1], widths[i], 4, stride=stride, padding=2),
                    InstanceNorm(widths[i]), nn.LeakyReLU(0.2, True)])
            layers.append([nn.Conv2d(widths[-1], 1, 4, padding=2)])
            for j, layer in enumerate(layers):
                self.add_module(f'scale{scale}_layer{j}', nn.Sequential(*layer))
        init_weights(self)
        if spectral_norm:                   # Miyato et al., 2018; not in the paper
            for module in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
                nn.utils.parametrizations.spectral_norm(module)

    def forward(self, x, labels=None):
        x = check_size(x, 1, 2 ** self.n_scales, 'the discriminator')
        scales = []
        for scale in reversed(range(self.n_scales)):
            if scales:
                x = half_size(x)
            conv, activation = getattr(self, f'scale{scale}_layer0')
            features = [activation(see(conv, x, labels))]
            for j in range(1, self.n_layers + 2):
                features.append(getattr(self, f'scale{scale}_layer{j}')(features[-1]))
            scales.append(features)
        return scales


class VGG19(nn.Module):
    """VGG-19 up to relu5_1 (Simonyan and Zisserman, 2015), fixed: the features of the perceptual
    loss.

    forward: (N, 3, H, W) float, at least 16x16 -> the list of relu1_1, relu2_1, relu3_1, relu4_1,
    relu5_1. `state` is the state dict that torchvision publishes for its vgg19; entries of the
    classifier and past relu5_1 are not needed and may be absent; a missing or misshapen one of the
    rest is an error (RuntimeError).
    """
    LAYERS = [64, 64, 'M', 128, 128, 'M', 256, 256, 256, 256, 'M', 512, 512, 512, 512, 'M', 512]
    # The name ends in the hash that is checked.
    URL = 'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth'

    def __init__(self, state):
        super().__init__()
        layers, channels = [], 3
        self.taps = []                      # indices of relu{1..5}_1
        for before, width in zip(['M'] + self.LAYERS, self.LAYERS):
            if width == 'M':
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
            if before == 'M':
                self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.load_state_dict({name: state[name] for name in self.state_dict() if name in state})
        self.requires_grad_(False)

    def forward(self, x):
        taps, x = [], x.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                taps.append(x)
        return taps
