"""The networks of pix2pixHD (Wang et al., "High-Resolution Image Synthesis and Semantic
Manipulation with Conditional GANs", CVPR 2018), in plain PyTorch: generators, encoder,
discriminators, VGG-19, and the U-Net of pix2pix, the paper's baseline.

G1, G2, G3, E and D use the official parameter names, so official checkpoints load unchanged; VGG19
uses torchvision's. Networks behave the same in training and in use: InstanceNorm keeps no
statistics. The pictures of a batch are independent."""
from functools import partial
import math
import re

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

# MKL initialises its vector functions at the first call. If two threads make that call at the same
# time, one may use less accurate functions (errors of 4e-5), and runs would not repeat. So one
# thread makes it here.
torch.zeros(1).tanh()


def init_weights(net):
    """Draw the weights of every convolution from a normal distribution with mean 0 and standard
    deviation 0.02 (paper appendix A). Biases keep PyTorch's default, as in the official code."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not module.weight.is_meta:
            nn.init.normal_(module.weight, 0.0, 0.02)
    return net


def prepare_input(x, multiple, smallest, network):
    """Check the size of a network's input (N, C, H, W), and return it in the channels-last memory
    layout, in which convolutions are faster. Raises ValueError unless H and W are multiples of
    `multiple` and at least `smallest`."""
    h, w = x.shape[-2:]
    if h % multiple or w % multiple or min(h, w) < smallest:
        raise ValueError(f'{network} needs a width and a height that are multiples of {multiple} '
                         f'and at least {smallest}, but got {w}x{h}')
    return x.contiguous(memory_format=torch.channels_last)


def autocast(device, precision, cudnn_benchmark=False):
    """Return the autocast context in which the networks compute, and set cuDNN's global flags. The
    flags hold until the next call, so also in the backward pass.

    precision: 'fp32'; 'tf32' for convolutions; 'bf16' for convolutions and the maps between them.
        Weights and sums of losses are float32.
    cudnn_benchmark: time cuDNN's algorithms at the first input of each size, which pays where few
        sizes occur."""
    torch.backends.cudnn.allow_tf32 = precision == 'tf32'
    torch.backends.cudnn.benchmark = cudnn_benchmark
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16')


# ------------------------------------------------------------------------------------ the layers

class OneHotConv2d(nn.Conv2d):
    """The first convolution of a network. Its first input channels are one-hot labels. In E, and
    where label maps are pictures, there are none, and no channel is omitted.

    If a label does not occur in a batch, its channel is zero, so the input may omit it. Then
    `present`, (L,) int64, lists the labels of the first L channels (see set_present_labels), and
    the weights of omitted labels get a gradient of zero."""
    present = None

    def forward(self, x):
        weight = self.weight                # (c_out, n_labels + other channels, height, width)
        n_omitted = weight.shape[1] - x.shape[1]
        if n_omitted > 0 and self.present is not None:
            n_labels = n_omitted + len(self.present)
            others = torch.arange(n_labels, weight.shape[1], device=x.device)
            weight = weight.index_select(1, torch.cat([self.present, others]))
            weight = weight.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def set_present_labels(labels, *networks):
    """Set which labels the one-hot channels of the networks' next inputs represent: (L,) int64, see
    data.find_present_labels, or None for all labels."""
    for net in networks:
        for module in net.modules():
            if isinstance(module, OneHotConv2d):
                module.present = labels


class ResizeConv(nn.Conv2d):
    """Double the size of a map, then apply a 3x3 convolution. In a transposed convolution, output
    pixels depend on different numbers of weights, which can show as a grid (Odena et al., 2016)."""

    def __init__(self, c_in, c_out, mode):
        super().__init__(c_in, c_out, 3)
        self.mode, self.pad = mode, nn.ReflectionPad2d(1)   # mode: 'nearest' or 'bilinear'

    def forward(self, x):
        return super().forward(self.pad(F.interpolate(x, scale_factor=2, mode=self.mode)))


class FilteredConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution, then the filter [1 2 1] / 4 along columns and rows, which removes
    the grid. StyleGAN has this filter after each upsampling (Karras et al., 2019). The parameters
    are the same as without the filter."""

    def forward(self, x):
        x = super().forward(x)
        # Two averages of neighbours are the filter. Pixels at a border have fewer neighbours.
        return F.avg_pool2d(F.avg_pool2d(x, 2, 1, 1, count_include_pad=False), 2, 1)


def up_conv(c_in, c_out, kernel, up, output_padding=0):
    """Return a convolution that doubles the size.

    kernel, output_padding: of a transposed convolution; the others have 3x3 kernels.
    up: 'transposed' (paper appendix A), 'filtered', 'nearest' or 'bilinear'."""
    if up in ('nearest', 'bilinear'):
        return ResizeConv(c_in, c_out, up)
    kind = FilteredConvTranspose2d if up == 'filtered' else nn.ConvTranspose2d
    return kind(c_in, c_out, kernel, stride=2, padding=1, output_padding=output_padding)


def conv_block(c_in, c_out, kernel, conv=nn.Conv2d, **kwargs):
    """Return a list of layers: a convolution, instance norm and ReLU."""
    return [conv(c_in, c_out, kernel, **kwargs), nn.InstanceNorm2d(c_out), nn.ReLU(True)]


def up_block(c_in, c_out, up):
    """Return a list of layers that double the size: up_conv, instance norm and ReLU."""
    return conv_block(c_in, c_out, 3, up_conv, up=up, output_padding=1)


def half_size(x):
    """Halve a map by the 3x3 average pooling with which the official code reduces the inputs of G
    and D: (N, C, H, W) to (N, C, ceil(H/2), ceil(W/2))."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


class ResidualBlock(nn.Module):
    """x + f(x), where f is two reflect-padded 3x3 convolutions. Keeps the shape (N, C, H, W)."""

    def __init__(self, channels):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), *conv_block(channels, channels, 3),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels))

    def forward(self, x):
        return x + self.conv_block(x)


def run_layers(layers, x, recompute=False):
    """Pass x through a Sequential. With recompute (gradient checkpointing), keep only the input of
    each segment: a residual block, or the layers between two. The backward pass recomputes it."""
    if not (recompute and torch.is_grad_enabled()):
        return layers(x)
    segments = [[]]
    for layer in layers:
        if isinstance(layer, ResidualBlock):
            segments += [[layer], []]
        else:
            segments[-1].append(layer)
    for segment in filter(None, segments):
        x = checkpoint(nn.Sequential(*segment), x, use_reentrant=False)
    return x


# ------------------------------------------------------------------------------- the generators

class GlobalGenerator(nn.Module):
    """G1, the global generator: paper section 3.2 and appendix A (c7s1-64, d128, d256, d512, d1024,
    R1024 x 9, u512, u256, u128, u64, c7s1-3).

    forward: (N, in_channels, H, W) float to (N, out_channels, H, W) float in [-1, 1]. The input may
    omit channels of absent labels, see OneHotConv2d. Raises ValueError unless H and W are multiples
    of 2 ** n_down and at least twice that."""

    def __init__(self,
                 in_channels,               # one-hot labels + boundary + features
                 out_channels=3,            # RGB
                 ngf=64,                    # channels of the first layer; each halving doubles them
                 n_down=4,                  # strided convolutions, at least 1
                 n_blocks=9,                # residual blocks at the coarsest size
                 up='transposed'):          # see up_conv
        super().__init__()
        self.multiple, self.recompute = 2 ** n_down, False      # see run_layers

        layers = [nn.ReflectionPad2d(3), *conv_block(in_channels, ngf, 7, OneHotConv2d)]
        for i in range(n_down):
            layers += conv_block(ngf * 2 ** i, ngf * 2 ** (i + 1), 3, stride=2, padding=1)
        layers += [ResidualBlock(ngf * 2 ** n_down) for _ in range(n_blocks)]
        for i in reversed(range(n_down)):
            layers += up_block(ngf * 2 ** (i + 1), ngf * 2 ** i, up)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, out_channels, 7), nn.Tanh()]

        self.model = nn.Sequential(*layers)
        init_weights(self)

    def forward(self, x):
        x = prepare_input(x, self.multiple, 2 * self.multiple, 'the global generator')
        return run_layers(self.model, x, self.recompute)        # (N, out_channels, H, W)


class LocalEnhancer(nn.Module):
    """The generator {G1, G2} or {G1, G2, G3}: `n_enhancers` local enhancers around G1. Each works
    at twice the resolution of the network inside it; paper section 3.2.

    Each adds its downsampled features to the last feature map of the network inside (figure 3). In
    appendix A's notation, G2 is c7s1-32, d64, this sum, R64 three times, u32, c7s1-3.
    Enhancer 1 is the innermost; only the outermost has an output layer. Submodules: `model` (G1
    without its output layer), with ngf * 2 ** n_enhancers channels; `model{n}_1` and `model{n}_2`,
    the layers of enhancer n before and after the sum (the paper's G2^(F); G2^(R) and G2^(B)).

    forward: as GlobalGenerator's, with the multiple 2 ** (n_down + n_enhancers)."""

    def __init__(self, in_channels, out_channels=3,
                 ngf=32,                    # channels of the outermost enhancer
                 n_down=4,                  # downsamplings inside G1
                 n_blocks=9,                # residual blocks inside G1
                 n_enhancers=1,             # 1: G2 (2048x1024 in the paper), 2: and G3
                 n_blocks_local=3,          # residual blocks of each enhancer
                 up='transposed'):          # see up_conv
        super().__init__()
        self.n_enhancers, self.recompute = n_enhancers, False   # see run_layers
        self.multiple = 2 ** (n_down + n_enhancers)
        self.model = GlobalGenerator(in_channels, out_channels, ngf * 2 ** n_enhancers,
                                     n_down, n_blocks, up).model[:-3]

        for n in range(1, n_enhancers + 1):
            width = ngf * 2 ** (n_enhancers - n)
            before = [nn.ReflectionPad2d(3), *conv_block(in_channels, width, 7, OneHotConv2d),
                      *conv_block(width, 2 * width, 3, stride=2, padding=1)]
            after = [ResidualBlock(2 * width) for _ in range(n_blocks_local)]
            after += up_block(2 * width, width, up)
            if n == n_enhancers:
                after += [nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh()]
            self.add_module(f'model{n}_1', nn.Sequential(*before))
            self.add_module(f'model{n}_2', nn.Sequential(*after))
        init_weights(self)

    def forward(self, x):
        x = prepare_input(x, self.multiple, 2 * self.multiple, 'the local enhancer')
        pyramid = [x]                       # full size first
        for _ in range(self.n_enhancers):
            pyramid.append(half_size(pyramid[-1]))

        y = run_layers(self.model, pyramid.pop(), self.recompute)
        for n in range(1, self.n_enhancers + 1):    # y: (N, 2 * width of enhancer n, h, w)
            before, after = getattr(self, f'model{n}_1'), getattr(self, f'model{n}_2')
            y = y + run_layers(before, pyramid.pop(), self.recompute)       # paper figure 3
            y = run_layers(after, y, self.recompute)                        # twice the size
        return y                            # (N, out_channels, H, W)

    def inner_parameters(self):
        """The parameters inside the outermost enhancer. Fine-tuning freezes them at first."""
        return [p for name, p in self.named_parameters()
                if not name.startswith(f'model{self.n_enhancers}_')]

    def load_inner(self, state):
        """Load the network inside the outermost enhancer from its state dict. Its output layer is
        dropped, and the outermost enhancer keeps its weights. Raises ValueError, which names a
        parameter, where the architectures differ."""
        n = self.n_enhancers
        output = 'model' if n == 1 else f'model{n - 1}_2'
        try:
            missing, left_over = self.load_state_dict(state, strict=False)
        except RuntimeError as error:               # a parameter has another shape
            raise ValueError(f'the inner network does not fit this enhancer: {error}') from None
        misfits = [name for name in missing if not name.startswith(f'model{n}_')]
        misfits += [name for name in left_over
                    if not re.fullmatch(rf'{output}\.\d+\.(weight|bias)', name)]
        if misfits or len(left_over) != 2:
            raise ValueError('the inner network does not fit this enhancer: see '
                             f'{(misfits or left_over or ["its output layer"])[0]}')


class UNet(nn.Module):
    """The U-Net, generator of pix2pix, the paper's baseline (Isola et al., CVPR 2017, section
    6.1.1): 4x4 convolutions of stride 2 down to a few pixels and up again (C64, C128, C256,
    C512 ...), with a skip connection at every level.

    Its noise z is dropout in the three innermost layers of the way up, also when generating.
    pix2pix has batch norm with batches of one picture. That equals instance norm, used here.

    forward: as GlobalGenerator's, but H and W may be 2 ** n_down."""

    def __init__(self, in_channels, out_channels=3,
                 ngf=64,                    # channels of the first level, doubled up to 8 * ngf
                 n_down=8,                  # levels
                 up='transposed',           # see up_conv
                 dropout=0.5,               # share of features that dropout sets to zero
                 tanh=True):                # False: return the raw map
        super().__init__()
        self.multiple, self.dropout, self.tanh = 2 ** n_down, dropout, tanh
        widths = [in_channels] + [ngf * 2 ** min(i, 3) for i in range(n_down)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()   # in the order of the forward pass
        for i in range(n_down):
            c_in, c_out, innermost = widths[i], widths[i + 1], i == n_down - 1
            c_back = c_out if innermost else 2 * c_out          # with the skip connection
            c_up = widths[i] if i else out_channels
            self.down.append(nn.Sequential(
                (nn.Conv2d if i else OneHotConv2d)(c_in, c_out, 4, stride=2, padding=1),
                nn.Identity() if i == 0 or innermost else nn.InstanceNorm2d(c_out, affine=True)))
            self.up.insert(0, nn.Sequential(
                up_conv(c_back, c_up, 4, up),
                nn.InstanceNorm2d(c_up, affine=True) if i else nn.Identity()))
        init_weights(self)

    def forward(self, x):
        x = prepare_input(x, self.multiple, self.multiple, 'the U-Net')
        skips = []
        for i, layer in enumerate(self.down):
            x = layer(F.leaky_relu(x, 0.2) if i else x)
            skips.append(x)                 # (N, ngf * min(2^i, 8), H / 2^(i+1), W / 2^(i+1))

        x = skips.pop()
        for i, layer in enumerate(self.up):
            x = layer(F.relu(x))
            if skips:                       # all but the outermost level
                x = F.dropout(x, self.dropout) if i < 3 else x
                x = torch.cat([x, skips.pop()], 1)
        return x.tanh() if self.tanh else x     # (N, out_channels, H, W)


# --------------------------------------------------------------------------------- the encoder

class InstanceMean(torch.autograd.Function):
    """Replace each value by the mean over its instance, see segment_means. This linear map is
    symmetric, so the backward pass is the same operation."""

    @staticmethod
    def forward(ctx, values, order, start, end):
        ctx.save_for_backward(order, start, end)
        return segment_means(values, order, start, end)

    @staticmethod
    def backward(ctx, gradient):
        return segment_means(gradient, *ctx.saved_tensors), None, None, None


def segment_means(values, order, start, end):
    """Compute the mean of each instance, which is a segment of the pixels sorted by id, from
    cumulative sums. There are no atomic additions, so the result repeats on a GPU.

    values: (N, C, P) float. order: (N, P) int64, the pixels sorted by id. start, end: (N, P) int64,
    of the segment at each sorted position; `end` is exclusive. Returns (N, C, P) float32."""
    order, start, end = (index[:, None].expand_as(values) for index in (order, start, end))
    # float32 is too inaccurate for an instance of a million pixels.
    sums = F.pad(cumulative_sum(values.gather(2, order).double()), (1, 0))
    means = (sums.gather(2, end) - sums.gather(2, start)) / (end - start)
    return torch.empty_like(values, dtype=torch.float32).scatter_(2, order, means.float())


def cumulative_sum(x):
    """x.cumsum(-1) of (N, C, P), computed in rows of 1024 first: a GPU would sum each of the N * C
    long rows in a single block of threads."""
    rows = F.pad(x, (0, -x.shape[-1] % 1024)).unflatten(-1, (-1, 1024)).cumsum(-1)
    totals = rows[..., -1]
    return (rows + (totals.cumsum(-1) - totals)[..., None]).flatten(-2)[..., :x.shape[-1]]


def instance_mean(features, inst):
    """Replace every pixel's features by their mean over the pixel's instance: the instance-wise
    average pooling of paper section 3.4. Causes no GPU synchronisation.

    features: (N, C, H, W) float. inst: (N, 1, H, W) integer ids of any value; equal ids in two
    pictures are two instances. Returns (N, C, H, W) float32."""
    ids, order = inst.flatten(1).sort(dim=1)
    start, end = torch.searchsorted(ids, ids), torch.searchsorted(ids, ids, right=True)
    return InstanceMean.apply(features.flatten(2), order, start, end).view(features.shape)


class Encoder(nn.Module):
    """E, the feature encoder: paper section 3.4. A small encoder-decoder, then instance-wise
    average pooling.

    The paper does not give its layers; these are the official ones.
    forward: image (N, in_channels, H, W) float in [-1, 1] and inst (N, 1, H, W) integer to
    (N, feat, H, W) float in [-1, 1], constant over each instance. The instance map may be larger
    than the image; features are then upsampled before pooling. So an encoder trained at 1024x512
    serves a generator at 2048x1024, and thin instances are not lost. Raises ValueError as
    GlobalGenerator.
    """

    def __init__(self,
                 in_channels=3,
                 feat=3,                    # features per instance
                 nef=16,                    # channels after the first convolution
                 n_down=4,                  # strided convolutions
                 up='transposed'):          # see up_conv
        super().__init__()
        self.multiple = 2 ** n_down
        self.model = GlobalGenerator(in_channels, feat, nef, n_down, 0, up).model

    def forward(self, image, inst):
        image = prepare_input(image, self.multiple, 2 * self.multiple, 'the encoder')
        raw = self.model(image)             # (N, feat, h, w)
        if raw.shape[-2:] != inst.shape[-2:]:
            raw = F.interpolate(raw, inst.shape[-2:], mode='nearest')       # (N, feat, H, W)
        return instance_mean(raw, inst)     # (N, feat, H, W)


# -------------------------------------------------------------------------- the discriminators

class MultiscaleDiscriminator(nn.Module):
    """D1, D2, D3: PatchGANs of the same architecture on the picture at full, half and quarter size;
    paper section 3.2 and appendix A: C64, C128, C256, C512. C512 has stride 1, as in the official
    code. With stride 2, its receptive field would be larger than the paper's 70x70 pixels.

    forward: (N, in_channels, H, W) float, condition and picture concatenated along the channels.
    Returns result[scale][layer], full size first: feature maps (N, c, h, w), which feature matching
    compares, and last the raw scores (N, 1, h, w). The input may omit channels of absent labels,
    see OneHotConv2d. Parameter names, as in the official code, count the other way: `scale0` is the
    smallest. Raises ValueError unless H and W are at least 2 ** n_scales."""

    def __init__(self,
                 in_channels,               # one-hot labels + boundary + RGB
                 ndf=64,                    # channels of the first layer; each later one
                 #                            has twice as many, up to 512
                 n_layers=3,                # strided convolutions; 3: a receptive field of 70x70
                 n_scales=3,                # discriminators
                 spectral_norm=False):      # divide weights by their largest singular value
        super().__init__()
        self.n_scales, self.n_layers = n_scales, n_layers
        widths = [ndf] + [min(ndf * 2 ** i, 512) for i in range(1, n_layers + 1)]

        for scale in range(n_scales):
            layers = [[OneHotConv2d(in_channels, ndf, 4, stride=2, padding=2),
                       nn.LeakyReLU(0.2, True)]]
            for i in range(1, n_layers + 1):
                stride = 2 if i < n_layers else 1
                layers.append([
                    nn.Conv2d(widths[i - 1], widths[i], 4, stride=stride, padding=2),
                    nn.InstanceNorm2d(widths[i]), nn.LeakyReLU(0.2, True)])
            layers.append([nn.Conv2d(widths[-1], 1, 4, padding=2)])
            for j, layer in enumerate(layers):
                self.add_module(f'scale{scale}_layer{j}', nn.Sequential(*layer))
        init_weights(self)
        if spectral_norm:                   # Miyato et al., 2018; not in the paper
            for module in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
                nn.utils.parametrizations.spectral_norm(module)

    def forward(self, x):
        x = prepare_input(x, 1, 2 ** self.n_scales, 'the discriminator')
        scales = []
        for scale in reversed(range(self.n_scales)):
            if scales:
                x = half_size(x)
            h, layers = x, []
            for j in range(self.n_layers + 2):
                h = getattr(self, f'scale{scale}_layer{j}')(h)
                layers.append(h)
            scales.append(layers)
        return scales


class VGG19(nn.Module):
    """VGG-19 up to relu5_1 (Simonyan and Zisserman, 2015), with fixed weights: the perceptual loss
    compares its features.

    state: torchvision's state dict. Entries past relu5_1 are not needed. Raises RuntimeError where
    a needed entry is missing or has another shape.
    normalise: convert pictures to ImageNet's mean and deviation, for which the weights were
    trained. The official code passes [-1, 1].
    forward: (N, 3, H, W) float, at least 16x16, to the list of relu1_1, relu2_1 ... relu5_1."""
    LAYERS = [64, 64, 'M', 128, 128, 'M', 256, 256, 256, 256, 'M', 512, 512, 512, 512, 'M', 512]
    FEATURE_LAYERS = 1, 6, 11, 20, 29       # relu1_1 ... relu5_1
    MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)      # of RGB in [0, 1]
    # dcbb9e9d is the start of the file's SHA-256, which is checked after the download.
    URL = 'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth'

    def __init__(self, state, normalise=False):
        super().__init__()
        layers, channels = [], 3
        for width in self.LAYERS:
            if width == 'M':
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.normalise = normalise
        for name, rgb in (('mean', self.MEAN), ('deviation', self.DEVIATION)):
            self.register_buffer(name, torch.tensor(rgb)[:, None, None], persistent=False)
        self.load_state_dict({name: state[name] for name in self.state_dict() if name in state})
        self.requires_grad_(False)

    def forward(self, x):
        if self.normalise:
            x = ((x + 1) / 2 - self.mean) / self.deviation
        features, x = [], x.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.FEATURE_LAYERS:
                features.append(x)
        return features


# --------------------------------------------------------------- the networks of a configuration

def has_boundary(config):
    """Whether G and D see the instance boundary map (paper section 3.3)."""
    return config.boundary and config.instances != 'none'


def min_input_side(config):
    """The smallest width and height that G and E take."""
    encoder = 2 * config.encoder_scale * 2 ** config.n_down_encoder if config.features else 1
    generator = 2 ** (config.n_down + config.n_enhancers)
    return max(generator if config.model == 'unet' else 2 * generator, encoder)


def input_multiple(config):
    """The number that width and height must be multiples of for G and E."""
    encoder = config.encoder_scale * 2 ** config.n_down_encoder if config.features else 1
    return math.lcm(2 ** (config.n_down + config.n_enhancers), encoder)


def constructors(config):
    """Return a dict of functions without arguments that make the networks 'G', 'E' (only with
    features) and 'D'. They draw their weights in this order."""
    c = config
    c_condition = (c.n_labels or c.in_channels) + has_boundary(c)
    c_in = c_condition + c.feat * c.features
    networks = {'G': {
        'global': partial(GlobalGenerator, c_in, c.out_channels, c.ngf, c.n_down, c.n_blocks, c.up),
        'local': partial(LocalEnhancer, c_in, c.out_channels, c.ngf, c.n_down, c.n_blocks,
                         c.n_enhancers, c.n_blocks_local, c.up),
        'unet': partial(UNet, c_in, c.out_channels, c.ngf, c.n_down, c.up)}[c.model]}
    if c.features:
        networks['E'] = partial(Encoder, c.out_channels, c.feat, c.nef, c.n_down_encoder,
                                c.up_encoder or c.up)
    networks['D'] = partial(MultiscaleDiscriminator, c_condition + c.out_channels, c.ndf,
                            c.n_layers, c.n_scales, c.spectral_norm)
    return networks
