"""Shapes, size rules and gradients of the networks; instance pooling by hand."""
import os
from pathlib import Path
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import random_vgg_weights
import data
import nets
import styles


@pytest.mark.parametrize('net, shape', [
    (nets.GlobalGenerator(5, 3, 8, n_down=2, n_blocks=1), (2, 3, 24, 40)),
    (nets.LocalEnhancer(5, 3, 4, 2, 1, n_enhancers=1, n_blocks_local=1), (2, 3, 24, 40)),
    (nets.LocalEnhancer(5, 3, 4, 1, 1, n_enhancers=2, n_blocks_local=1), (2, 3, 24, 40))])
def test_generators_keep_the_size_and_name_the_multiple(net, shape):
    x = torch.randn(2, 5, *shape[2:])
    y = net(x)
    assert y.shape == shape and y.abs().max() <= 1
    with pytest.raises(ValueError, match=f'multiples of {net.multiple} .* got 42x24'):
        net(torch.randn(1, 5, 24, 42))
    with pytest.raises(ValueError, match='at least'):
        net(torch.randn(1, 5, net.multiple, 40))
    for channels in (4, 6):
        with pytest.raises(RuntimeError, match=f'to have 5 channels, but got {channels} channels'):
            net(torch.randn(1, channels, 24, 40))


@pytest.mark.parametrize('net', [
    nets.GlobalGenerator(14, 3, 4, n_down=2, n_blocks=1),
    nets.LocalEnhancer(14, 3, 4, 1, 1, n_enhancers=2, n_blocks_local=1),
    nets.MultiscaleDiscriminator(14, ndf=4, n_layers=1, n_scales=2),
    nets.MultiscaleDiscriminator(14, ndf=4, n_layers=1, n_scales=2, spectral_norm=True).eval(),
    nets.UNet(14, 3, 4, n_down=3, dropout=0)])
def test_leaving_out_labels_that_occur_nowhere_changes_nothing(net):
    """Outputs and gradients; those of the weights left out are zero, not missing."""
    net.double()
    there = torch.tensor([1, 4, 5, 9])
    label = there[torch.randint(4, (1, 1, 16, 24))]
    rest = torch.randn(1, 4, 16, 24, dtype=torch.double)        # of 10 labels

    results = []
    for labels in (None, torch.tensor([1, 3, 4, 5, 9])):
        nets.set_present_labels(labels, net)
        y = net(torch.cat([data.one_hot(label, 10, labels), rest], 1))
        y = y if isinstance(y, torch.Tensor) else y[0][-1]
        net.zero_grad()
        y.square().sum().backward(inputs=list(net.parameters()))
        results.append([y, *(p.grad for p in net.parameters() if p.grad is not None)])
    torch.testing.assert_close(*results)
    for name, p in net.named_parameters():
        if p.shape[1:2] == (14,) and 'original' not in name:    # the norm spreads over all
            assert p.grad is None or not p.grad[:, [0, 2, 6, 7, 8]].any()


def test_local_enhancer_contains_the_network_it_was_made_from():
    inner = nets.GlobalGenerator(5, 3, 16, n_down=2, n_blocks=1)
    middle = nets.LocalEnhancer(5, 3, 8, 2, 1, n_enhancers=1, n_blocks_local=1)
    outer = nets.LocalEnhancer(5, 3, 4, 2, 1, n_enhancers=2, n_blocks_local=1)
    middle.load_inner(inner.state_dict())
    assert torch.equal(middle.model[1].weight, inner.model[1].weight)
    outer.load_inner(middle.state_dict())
    assert torch.equal(outer.model1_1[1].weight, middle.model1_1[1].weight)
    inside = {id(p) for p in outer.inner_parameters()}
    assert {name.split('.')[0] for name, p in outer.named_parameters()
            if id(p) not in inside} == {'model2_1', 'model2_2'}
    with pytest.raises(ValueError, match='does not fit'):
        outer.load_inner(inner.state_dict())
    with pytest.raises(ValueError, match='does not fit'):
        middle.load_inner(nets.GlobalGenerator(5, 3, 16, n_down=3, n_blocks=1).state_dict())


def test_instance_mean_by_hand():
    features = torch.arange(16.).reshape(1, 1, 4, 4).repeat(2, 1, 1, 1)
    features[1] += 100
    # 7 is two parts of one instance.
    inst = torch.tensor([[7, 7, 3, 3],
                         [7, 7, 3, 3],
                         [9, 9, 9, 9],
                         [7, 2**40, 2**40, -1]]).repeat(2, 1, 1, 1)
    expected = torch.tensor([[4.4, 4.4, 4.5, 4.5],
                             [4.4, 4.4, 4.5, 4.5],
                             [9.5, 9.5, 9.5, 9.5],
                             [4.4, 13.5, 13.5, 15.]])
    means = nets.instance_mean(features, inst)
    torch.testing.assert_close(means[0, 0], expected)
    # The same ids in another picture are other instances.
    torch.testing.assert_close(means[1, 0], expected + 100)


def test_gradient_of_instance_mean_is_shared_by_the_instance():
    features = torch.randn(1, 2, 4, 4, requires_grad=True)
    inst = torch.tensor([[0, 0, 1, 1]]).repeat(4, 1)[None, None]
    nets.instance_mean(features, inst)[0, 0, 0, 0].backward()
    expected = torch.zeros(1, 2, 4, 4)
    expected[0, 0, :, :2] = 1 / 8
    torch.testing.assert_close(features.grad, expected)


def test_encoder_paints_small_vectors_on_a_large_instance_map():
    net = nets.Encoder(3, 3, nef=4, n_down=2)
    image, inst = torch.randn(1, 3, 16, 24), torch.randint(0, 5, (1, 1, 16, 24))
    large = inst.repeat_interleave(2, 2).repeat_interleave(2, 3)
    thin = large.clone()
    thin[0, 0, :, 1] = 99                   # one pixel wide: gone at the small size
    assert net(image, inst).shape == (1, 3, 16, 24)
    torch.testing.assert_close(net(image, large)[..., ::2, ::2], net(image, inst))
    painted = net(image, thin)
    assert painted.shape == (1, 3, 32, 48) and painted[0, :, :, 1].std(1).max() < 1e-6
    raw = net.model(image)[0, :, :, 0].mean(1)
    torch.testing.assert_close(painted[0, :, 0, 1], raw)


def test_discriminator_lists_scales_of_layers():
    net = nets.MultiscaleDiscriminator(7, ndf=8, n_layers=3, n_scales=2)
    full, half = net(torch.randn(2, 7, 32, 64))
    assert [tuple(x.shape) for x in full] == [
        (2, 8, 17, 33), (2, 16, 9, 17), (2, 32, 5, 9), (2, 64, 6, 10), (2, 1, 7, 11)]
    assert [tuple(x.shape) for x in half] == [
        (2, 8, 9, 17), (2, 16, 5, 9), (2, 32, 3, 5), (2, 64, 4, 6), (2, 1, 5, 7)]
    wide = nets.MultiscaleDiscriminator(7, ndf=600, n_layers=2, n_scales=1)
    assert [layer.shape[1] for layer in wide(torch.randn(1, 7, 8, 8))[0]] == [600, 512, 512, 1]


def test_a_score_sees_70x70_pixels():
    net = nets.MultiscaleDiscriminator(1, ndf=4, n_scales=1).double()
    for module in net.modules():            # InstanceNorm would let a pixel see all others
        if isinstance(module, torch.nn.Sequential) and len(module) == 3:
            module[1] = torch.nn.Identity()
    x = torch.randn(1, 1, 160, 160, dtype=torch.double, requires_grad=True)
    net(x)[0][-1][0, 0, 10, 10].backward()
    seen = x.grad[0, 0].nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]


def test_the_encoder_gets_reduced_pictures_in_their_range():
    """Bicubic resizing overshoots at edges."""
    ranges = []
    image = torch.ones(1, 3, 32, 32)
    image[..., :16] = -1
    styles.encode(lambda small, regions: ranges.append((small.shape, small.aminmax())), image,
                  None, scale=2)
    (shape, (low, high)), = ranges
    assert shape == (1, 3, 16, 16) and low >= -1 and high <= 1


def test_vgg19_taps_and_strict_weights():
    state = random_vgg_weights()
    net = nets.VGG19(state)
    x = torch.randn(1, 3, 32, 48)
    taps = net(x)
    assert [tuple(t.shape) for t in taps] == [
        (1, 64, 32, 48), (1, 128, 16, 24), (1, 256, 8, 12), (1, 512, 4, 6), (1, 512, 2, 3)]
    weight, bias = state['features.0.weight'], state['features.0.bias']
    first = torch.nn.functional.conv2d(x, weight, bias, padding=1).relu()
    torch.testing.assert_close(taps[0], first)
    assert not any(p.requires_grad for p in net.parameters())
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    normalised = ((x + 1) / 2 - mean[:, None, None]) / deviation[:, None, None]
    assert torch.equal(nets.VGG19(state, normalise=True)(x)[4], net(normalised)[4])
    del state['features.28.bias']           # of the layer of relu5_1
    with pytest.raises(RuntimeError, match='features.28.bias'):
        nets.VGG19(state)


def test_the_unet_has_the_published_size_and_keeps_its_noise():
    net = nets.UNet(3, 3)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 54.4     # as published
    net = nets.UNet(5, 3, 8, n_down=5)
    x = torch.randn(2, 5, 32, 64)
    torch.manual_seed(1)
    y = net.eval()(x)                                   # dropout is on in use, too
    assert y.shape == (2, 3, 32, 64) and y.abs().max() <= 1
    assert not torch.equal(y, net(x))
    torch.manual_seed(1)
    assert torch.equal(y, net(x))
    with pytest.raises(ValueError, match='multiples of 32'):
        net(torch.randn(1, 5, 32, 48))
    raw = nets.UNet(5, 3, 8, n_down=5, dropout=0, tanh=False)
    assert torch.equal(raw(x), raw(x))


@pytest.mark.parametrize('up', ['nearest', 'bilinear'])
def test_resizing_in_place_of_transposed_convolutions(up):
    """Weights keep their names and pictures their size; no transposed convolution is left."""
    for make in (lambda up: nets.GlobalGenerator(5, 3, 8, 2, 1, up),
                 lambda up: nets.LocalEnhancer(5, 3, 4, 2, 1, 1, 1, up),
                 lambda up: nets.UNet(5, 3, 8, 3, up)):
        net, plain = make(up), make('transposed')
        assert net.state_dict().keys() == plain.state_dict().keys()
        assert not any(isinstance(m, torch.nn.ConvTranspose2d) for m in net.modules())
        assert net(torch.randn(1, 5, 24, 40)).shape == (1, 3, 24, 40)
    encoder = nets.Encoder(3, 3, 4, 2, up)
    inst = torch.zeros(1, 1, 16, 16, dtype=torch.int32)
    assert encoder(torch.randn(1, 3, 16, 16), inst).shape == (1, 3, 16, 16)


def test_filtered_transposed_convolutions():
    """The filter is [1 2 1] / 4 along columns and rows, and at a border the mean of what is there.
    It leaves constants as they are, and nothing of a pattern with a period of two pixels."""
    layer = nets.FilteredConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1)
    x = torch.randn(2, 2, 5, 7)
    plain = F.conv_transpose2d(x, layer.weight, layer.bias, 2, 1, 1)
    kernel = torch.tensor([[1., 2, 1], [2, 4, 2], [1, 2, 1]]).expand(3, 1, 3, 3) / 16
    expected = F.conv2d(F.pad(plain, (1, 1, 1, 1), 'replicate'), kernel, groups=3)
    torch.testing.assert_close(layer(x), expected)

    nn.init.zeros_(layer.weight)
    assert torch.equal(layer(x), layer.bias[:, None, None].expand(2, 3, 10, 14))
    nn.init.zeros_(layer.bias)
    layer.weight.data[0, 0, 1, 1] = 1       # the pixels in even rows and columns alone
    torch.testing.assert_close(layer(torch.ones(1, 2, 4, 4))[0, 0, 1:-1, 1:-1],
                               torch.full((6, 6), 1 / 4))

    for make in (lambda up: nets.GlobalGenerator(5, 3, 8, 2, 1, up),
                 lambda up: nets.UNet(5, 3, 8, 3, up)):
        net, plain = make('filtered'), make('transposed')
        plain.load_state_dict(net.state_dict())
        y = net.eval()(torch.randn(1, 5, 24, 40))
        assert y.shape == (1, 3, 24, 40)


def test_spectral_norm_bounds_the_largest_singular_value():
    net = nets.MultiscaleDiscriminator(5, 8, n_scales=1, spectral_norm=True)
    for _ in range(100):
        net(torch.randn(1, 5, 32, 32))
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(
                1, abs=0.02)


def test_the_first_output_of_a_process_is_as_precise_as_the_second():
    """If two threads set up the maths library at once, the first tanh may be less precise."""
    script = """
import os, torch, nets
different = 0
for _ in range(200):
    child = os.fork()
    if not child:
        torch.manual_seed(0)
        net, image = nets.Encoder(3, 3, 4, 2).model, torch.rand(1, 3, 32, 64)
        os._exit(not torch.equal(net(image), net(image)))
    different += os.waitpid(child, 0)[1] != 0
print(different)
"""
    done = subprocess.run([sys.executable, '-c', script], cwd=Path(nets.__file__).parent, text=True,
                          capture_output=True, env={**os.environ, 'OMP_NUM_THREADS': '2'})
    assert done.stdout == '0\n', done.stdout + done.stderr
