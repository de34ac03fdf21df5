"""Layers that are faster than PyTorch's, with the same parameters and results."""
import torch
import torch.nn.functional as F
from torch import nn

from app.runs.memory import free_memory
import nets

COPIED = 1 << 23        # numbers that are copied at a time for a matrix product
SMALL_MAP = 1024        # pixels; on larger ones, PyTorch's convolutions in bfloat16 are fast


def speed_up(*networks, weights_change, convolutions=True):
    """Give the layers of networks the faster methods where these pay. weights_change: whether the
    networks may be trained further. convolutions: whether those of the CPU are used."""
    for layer in [layer for net in networks for layer in net.modules()]:
        kind = type(layer)
        if kind in FASTER and (kind not in CONVOLUTIONS or convolutions and min(
                layer.in_channels, layer.out_channels) >= 32):
            layer.__class__, layer.weights_change = FASTER[kind], weights_change


# ------------------------------------------------------------------------------ norm and padding

class FastInstanceNorm(nn.InstanceNorm2d):
    """nn.InstanceNorm2d, computed as a batch norm of one picture at a time, which is faster in the
    channels-last layout."""

    def forward(self, x):
        if x.dtype == torch.float32 and x.device.type == 'cpu':
            y = CPUInstanceNorm.apply(x, self.eps)
            return y * self.weight[:, None, None] + self.bias[:, None, None] if self.affine else y
        if len(x) > 1:
            return torch.cat([self(picture) for picture in x.split(1)])
        return F.batch_norm(x, None, None, self.weight, self.bias, True, eps=self.eps)


class CPUInstanceNorm(torch.autograd.Function):
    """The norm of (N, C, H, W) float32 on the CPU. F.batch_norm is 1000 times less accurate there
    in the channels-last layout."""

    @staticmethod
    def forward(ctx, x, eps):
        mean = x.mean((2, 3), keepdim=True)
        y = x - mean
        scale = (y.mul_(y).mean((2, 3), keepdim=True) + eps).rsqrt()
        ctx.save_for_backward(x, mean, scale)
        return torch.sub(x, mean, out=y).mul_(scale)

    @staticmethod
    def backward(ctx, gradient):
        x, mean, scale = ctx.saved_tensors
        centred = x - mean
        slope = (gradient * centred).mean((2, 3), keepdim=True) * scale ** 2
        # scale * (g - mean(g) - y * mean(g * y)), with y = centred * scale; mostly in place.
        centred.mul_(-slope).add_(gradient).sub_(gradient.mean((2, 3), keepdim=True))
        return centred.mul_(scale), None


class FastReflectionPad(nn.ReflectionPad2d):
    """nn.ReflectionPad2d. On CUDA, PyTorch's version converts the memory layout twice and sums
    gradients in no fixed order, so MirrorPad replaces it."""

    def forward(self, x):
        return MirrorPad.apply(x, self.padding[0]) if x.is_cuda else super().forward(x)


class MirrorPad(torch.autograd.Function):
    """Reflection padding of (N, C, H, W) by p pixels, in the channels-last layout: copy the map
    into the middle, then mirror columns and rows. The backward pass adds them in reverse."""

    @staticmethod
    def forward(ctx, x, p):
        ctx.p, (n, c, h, w) = p, x.shape
        y = x.new_empty(n, h + 2 * p, w + 2 * p, c).movedim(-1, 1)
        y[..., p:-p, p:-p] = x
        for dim, border, inside in mirrored_strips(y, p)[::-1]:     # rows last, with the corners
            border.copy_(inside.flip(dim) if p > 1 else inside)
        return y

    @staticmethod
    def backward(ctx, gradient):
        p, gradient = ctx.p, gradient.clone(memory_format=torch.channels_last)
        for dim, border, inside in mirrored_strips(gradient, p):
            inside.add_(border.flip(dim) if p > 1 else border)
        return gradient[..., p:-p, p:-p], None


def mirrored_strips(x, p):
    """Return [(dimension, border, what it mirrors)]: views of the borders of x, p pixels wide."""
    return [(dim, x.narrow(dim, start, p), x.narrow(dim, inside, p)) for dim in (-2, -1)
            for start, inside in ((0, p + 1), (x.shape[dim] - p, x.shape[dim] - 2 * p - 1))]


# ------------------------------------------------------------------------ convolutions on the CPU

class FastConv2d(nn.Conv2d):
    used, kept = False, None                        # see kept_weight

    def forward(self, x):
        if trains(self, x):
            return FastTraining.apply(*cast_like_autocast(x, self.weight, self.bias), self)
        if suits_winograd(self, x, 512) and not torch.is_grad_enabled():
            return winograd_convolution(x, kept_weight(self), self.bias)
        return super().forward(x)


class FastConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x):
        if trains(self, x):
            return FastTraining.apply(*cast_like_autocast(x, self.weight, self.bias), self)
        return super().forward(x)


class FastFilteredConvTranspose2d(nets.FilteredConvTranspose2d, FastConvTranspose2d):
    pass


CONVOLUTIONS = {nn.Conv2d: FastConv2d, nn.ConvTranspose2d: FastConvTranspose2d,
                nets.FilteredConvTranspose2d: FastFilteredConvTranspose2d}
FASTER = {nn.InstanceNorm2d: FastInstanceNorm, nn.ReflectionPad2d: FastReflectionPad,
          **CONVOLUTIONS}


# -------------------------------------------------------------------------------------- training

def trains(layer, x):
    """Whether FastTraining is faster for a layer and its input."""
    pixels = x.shape[2] * x.shape[3] // layer.stride[0] ** 2
    return (torch.is_grad_enabled() and layer.weight.requires_grad and layer.kernel_size[0] <= 4
            and (layer.transposed or pixels <= SMALL_MAP or not torch.is_autocast_enabled('cpu')))


def cast_like_autocast(*tensors):
    """Convert the tensors of a layer as autocast does where it is on."""
    if not torch.is_autocast_enabled('cpu'):
        return tensors
    return [tensor.to(torch.get_autocast_dtype('cpu')) for tensor in tensors]


class FastTraining(torch.autograd.Function):
    """A layer, a convolution or a transposed one. The gradient of its weights is a matrix product;
    the rest takes Winograd's algorithm where the map is large."""

    @staticmethod
    def forward(ctx, x, weight, bias, layer):
        ctx.layer, ctx.winograd = layer, suits_winograd(layer, x, 2048)
        ctx.save_for_backward(x, weight)
        if ctx.winograd:
            return winograd_convolution(x, winograd_weight(weight), bias)
        return torch.convolution(x, weight, bias, *options(layer))

    @staticmethod
    def backward(ctx, gradient):
        (x, weight), layer = ctx.saved_tensors, ctx.layer
        if ctx.winograd and ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3).transpose(0, 1)
            grad_x = winograd_convolution(F.pad(gradient, 4 * [2]), winograd_weight(flipped))
        else:
            grad_x = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, *options(layer),
                (ctx.needs_input_grad[0], False, False))[0]
        if not layer.weight.requires_grad:          # see train.forward_backward
            return grad_x, None, None, None
        large, small = (gradient, x) if layer.transposed else (x, gradient)
        (k, _), (stride, _), (h, w) = layer.kernel_size, layer.stride, small.shape[2:]
        padded = F.pad(large, 4 * [layer.padding[0]])
        # What the kernel sees from each pixel of `small`: (N, h, w, k, k, C), a view of `large`.
        seen = padded.unfold(2, k, stride).unfold(3, k, stride).permute(0, 2, 3, 4, 5, 1)
        rows = max(1, COPIED // seen[:, :1, :w].numel())
        product = None
        for a, b in zip(small.split(rows, 2), seen[:, :h, :w].split(rows, 1)):
            part = a.movedim(1, 0).flatten(1) @ b.flatten(3).flatten(0, 2)
            product = part if product is None else part.float().add_(product)
        grad_weight = product.unflatten(1, (k, k, -1)).permute(0, 3, 1, 2)
        return grad_x, grad_weight, gradient.sum((0, 2, 3)), None


def options(layer):
    return (layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding,
            layer.groups)


# -------------------------------------------------------------------------- Winograd's algorithm

# 4x4 pixels of a 3x3 convolution w of the 6x6 pixels x: A ((G w G') * (B x B')) A', which takes 36
# multiplications in place of 144 (Lavin and Gray, 2016, section 4.3).
A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
B = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
     (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))
G = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
     (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))


def suits_winograd(layer, x, pixels):
    """Whether Winograd's algorithm is faster. pixels: how large a map makes up for the time that
    the transformation of the weights takes."""
    return (layer.kernel_size == (3, 3) and layer.stride == (1, 1) and layer.padding == (0, 0)
            and not torch.is_autocast_enabled('cpu')
            and min(layer.in_channels, layer.out_channels) >= 128
            and x.shape[2] * x.shape[3] >= pixels and not torch.compiler.is_compiling())


def winograd_convolution(x, transformed, bias=None):
    """Apply a 3x3 convolution without padding to x, (N, C, H, W). transformed: its winograd_weight.
    """
    h, w = x.shape[2] - 2, x.shape[3] - 2
    x = F.pad(x, (0, -w % 4, 0, -h % 4)).permute(0, 2, 3, 1)
    n_rows, n_columns = -(-h // 4), -(-w // 4)              # tiles of 4x4 pixels
    rows = weighted_sums(B, [x[:, i:][:, ::4][:, :n_rows] for i in range(6)])
    tiles = weighted_sums(B, [rows[:, :, :, i:][:, :, :, ::4][:, :, :, :n_columns]
                              for i in range(6)])           # (6, 6, N, n_rows, n_columns, C)
    y = tiles.flatten(2, 4).flatten(0, 1) @ transformed.mT
    y = y.view(*tiles.shape[:-1], -1)
    y = weighted_sums(A, weighted_sums(A, y).unbind(1))     # (4 rows, 4 columns, N, ...)
    y = y.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2)[:, :h, :w]
    return (y if bias is None else y + bias).permute(0, 3, 1, 2)


def weighted_sums(matrix, tensors):
    """Return the sums of tensors with the weights in each row of a matrix, stacked."""
    sums = tensors[0].new_zeros(len(matrix), *tensors[0].shape)
    for total, row in zip(sums, matrix):
        for weight, tensor in zip(row, tensors):
            if weight:
                total.add_(tensor, alpha=weight)
    return sums


def winograd_weight(weight):
    """Return G w G' of a weight w, (C out, C in, 3, 3): (6 * 6, C out, C in), columns first."""
    g, w = torch.tensor(G, dtype=weight.dtype), weight.permute(3, 2, 0, 1)
    return (torch.kron(g, g) @ w.reshape(9, -1)).unflatten(1, w.shape[2:])


def kept_weight(layer):
    """Return the winograd_weight of a layer. From the second picture on it is kept, if the weights
    do not change and there is memory for it. The first picture comes sooner without."""
    if layer.kept is not None:
        return layer.kept
    transformed, free = winograd_weight(layer.weight), free_memory(layer.weight.device)
    if (layer.used and not layer.weights_change and (free is None or 64 * transformed.nbytes < free)
            and type(transformed) is torch.Tensor):         # no fake one, see memory.check_picture
        layer.kept = transformed
    layer.used = True
    return transformed
