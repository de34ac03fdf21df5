"""Convolutions that train faster on the CPU in float32."""
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

COPIED = 1 << 23        # numbers that are copied at a time for a matrix product


class Convolution(torch.autograd.Function):
    """The forward pass of a layer, a convolution or a transposed one. The gradient of its weights
    is a matrix product, which PyTorch computes more slowly."""

    @staticmethod
    def forward(ctx, x, weight, bias, layer):
        ctx.layer = layer
        ctx.save_for_backward(x)
        return torch.convolution(x, weight, bias, *options(layer))

    @staticmethod
    def backward(ctx, gradient):
        (x,), layer = ctx.saved_tensors, ctx.layer
        grad_x = torch.ops.aten.convolution_backward(
            gradient, x, layer.weight, None, *options(layer),
            (ctx.needs_input_grad[0], False, False))[0]
        if not layer.weight.requires_grad:          # see train.forward_backward
            return grad_x, None, None, None
        large, small = (gradient, x) if layer.transposed else (x, gradient)
        (k, _), (stride, _), (h, w) = layer.kernel_size, layer.stride, small.shape[2:]
        padded = F.pad(large, 4 * [layer.padding[0]])
        # What the kernel sees from each pixel of `small`: (N, h, w, k, k, C), a view of `large`.
        seen = padded.unfold(2, k, stride).unfold(3, k, stride).permute(0, 2, 3, 4, 5, 1)
        rows = max(1, COPIED // seen[:, :1, :w].numel())
        product = gradient.new_zeros(small.shape[1], k * k * large.shape[1])
        for a, b in zip(small.split(rows, 2), seen[:, :h, :w].split(rows, 1)):
            product.addmm_(a.movedim(1, 0).flatten(1), b.flatten(3).flatten(0, 2))
        grad_weight = product.unflatten(1, (k, k, -1)).permute(0, 3, 1, 2)
        return grad_x, grad_weight, gradient.sum((0, 2, 3)), None


def options(layer):
    return (layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding,
            layer.groups)


def convolve(layer, usual, x):
    if torch.is_grad_enabled() and layer.weight.requires_grad:
        return Convolution.apply(x, layer.weight, layer.bias, layer)
    return usual(x)


def speed_up(*networks):
    """Let those layers use Convolution for which it is faster: small kernels, many channels."""
    for layer in [layer for net in networks for layer in net.modules()]:
        if (type(layer) in (nn.Conv2d, nn.ConvTranspose2d) and layer.kernel_size[0] <= 4
                and min(layer.in_channels, layer.out_channels) >= 32):
            layer.forward = partial(convolve, layer, layer.forward)
