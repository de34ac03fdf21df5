"""However a step is computed, the result is the same: in parts, with recomputed activations,
compiled, in bfloat16, with the present labels only. Devices, arithmetic and memory."""
import copy
import functools
import math
from pathlib import Path
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn
import torch.nn.functional as F

from app.common.errors import UserError
from app.demo import streets
from app.runs import devices, fast_layers, memory, runs
from conftest import SIMULATED, TINY, equal, make_run
import data
import nets
import train

CPU = torch.device('cpu')
SMALL = {'ngf': 8, 'n_down': 2, 'n_blocks': 2, 'ndf': 8, 'nef': 4, 'n_down_encoder': 2}


def batch(n=1, size=(64, 32)):
    """Return label, inst and image of n scenes."""
    scenes = [streets.draw_scene(i, size) for i in range(n)]
    label, inst, image = (torch.stack([data.to_tensor(scene[i]) for scene in scenes])
                          for i in range(3))
    return label, inst, data.to_float(image)


def gradients(run, maps, labels=None):
    """Return the terms and gradients of one step, {name: tensor}."""
    terms = train.train_step(run, *maps, labels)
    return {**terms, **{f'{name}.{key}': p.grad for name in 'GDE'
                        for key, p in getattr(run, name).named_parameters()}}


def assert_same_step(run, other, maps, labels=None, tolerance=1e-5):
    a, b = gradients(run, maps), gradients(other, maps, labels)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance)


def test_the_present_labels_are_enough():
    """With the channels of 12 of 35 labels, terms and gradients are those with all channels."""
    maps = batch()
    labels = data.find_present_labels(maps[0], 35)
    assert len(labels) == 12
    assert_same_step(make_run(CPU, **SMALL), make_run(CPU, **SMALL), maps, labels)


def test_a_batch_in_parts_has_the_gradients_of_the_whole():
    whole, parts = make_run(CPU, **SMALL), make_run(CPU, **SMALL)
    whole.config.training.batch = parts.config.training.batch = 4
    parts.config.training.accumulate = 2
    assert_same_step(whole, parts, batch(4))


@pytest.mark.parametrize('network', [{}, {'model': 'local', 'n_enhancers': 1}])
def test_recomputed_activations_are_the_same(network):
    plain, again = make_run(CPU, **SMALL, **network), make_run(CPU, **SMALL, **network)
    again.G.recompute = True
    calls = []
    again.G.model[1].register_forward_hook(lambda *_: calls.append(1))
    assert_same_step(plain, again, batch(size=(64, 64)), tolerance=0)
    assert len(calls) == 2                                  # forward and backward
    assert memory.memory_needed(plain) is None              # pictures keep their own sizes
    for run in (plain, again):
        run.config.size = (256, 256)
    assert memory.memory_needed(again) < 0.9 * memory.memory_needed(plain)


def test_memory_needed_is_about_what_a_step_takes():
    run = make_run(CPU, **SMALL)
    run.config.size = (64, 32)
    needed = memory.memory_needed(run)
    with memory.PeakMemory() as counted:
        train.train_step(run, *batch())
    assert counted.peak < needed < 3 * counted.peak


def test_networks_that_cannot_fit_are_refused_before_they_are_made(monkeypatch):
    """Also where only another process lacks the memory."""
    config = make_run(CPU, **SMALL).config
    monkeypatch.setattr(memory, 'free_memory', lambda device: 1 << 30)
    memory.check_weights(config, CPU)
    for name, others in ('ngf', []), ('ndf', [True]):
        with monkeypatch.context() as patch:
            patch.setattr(memory.distributed, 'all_gather', lambda own, more=others: [own, *more])
            setattr(config, name, 8 if others else 1 << 12)
            with pytest.raises(UserError, match=r'^--ngf \d+ --ndf 8 --nef 4: .* GiB .* smaller'):
                memory.check_weights(config, CPU)
            config.ngf = 8


def test_each_process_needs_memory_for_its_share_of_the_batch(monkeypatch):
    run = make_run(CPU, training={'batch': 8}, **SMALL)
    run.config.size = (64, 64)

    @functools.cache
    def needed(batch, processes, here):
        """Of a batch shared by some processes, some of which are on this machine."""
        run.config.training.batch = batch
        monkeypatch.setattr(memory.distributed, 'WORLD_SIZE', processes)
        monkeypatch.setattr(memory.distributed, 'LOCAL_WORLD_SIZE', here)
        return memory.memory_needed(run)

    assert needed(8, 8, 1) == needed(1, 1, 1) < 0.5 * needed(8, 1, 1)
    copy = 2 * needed(1, 1, 1) - needed(2, 2, 2)            # for the checkpoint, made once
    assert copy > 0 and needed(8, 8, 8) == 8 * needed(1, 1, 1) - 7 * copy


def test_what_a_run_has_already_is_not_needed_once_more(monkeypatch):
    """A run that has made a step needs as much more as its passes and copies take."""
    run = make_run(CPU, **SMALL)
    run.config.size = (64, 64)
    weights = memory.bytes_in_use(run)
    assert weights == memory.weight_bytes(run.G, run.D, run.E, *run.average.values())
    train.train_step(run, *batch())
    moments = memory.bytes_in_use(run) - weights
    assert moments == pytest.approx(2 * memory.weight_bytes(run.G, run.D, run.E), rel=0.01)
    missing = memory.memory_needed(run) - memory.bytes_in_use(run)
    for free, enough in ((missing - 1, False), (missing + 1, True)):
        monkeypatch.setattr(memory, 'free_memory', lambda device, free=free: free)
        assert memory.compare_memory(run)[0] == enough
    monkeypatch.setattr(memory, 'free_memory', lambda device: 0)
    assert memory.compare_memory(run)[1].endswith('--recompute takes less')


def test_gradients_are_finite_after_a_step():
    run = make_run(CPU, **SMALL)
    train.train_step(run, *batch())
    assert all(p.grad is None or p.grad.isfinite().all() for p in run.G.parameters())


@pytest.mark.parametrize('turns, faster', [
    ([(1, 0.5)], 'bf16'), ([(1, 0.95)], 'fp32'), ([(1, 2)], 'fp32'),
    ([(0.3, 0.1), (0.1, 0.3), (0.1, 0.2)], 'fp32'),         # other programs ran in between
    ([(0.2, 0.1), (0.1, 0.3), (0.1, 0.09), (0.1, 0.1)], 'bf16')])
def test_the_precision_with_the_least_seconds_is_chosen(turns, faster, monkeypatch):
    """turns: the seconds that fp32 and bf16 take in each turn, by a fake clock."""
    def times():
        now = 0
        for seconds in sum(turns, ()):
            yield now
            now += seconds
            yield now

    config = make_run(CPU, **SMALL).config
    monkeypatch.setattr(nets, 'ResidualBlock', lambda channels: torch.nn.Identity())
    monkeypatch.setattr(devices, 'has_bf16', lambda device: True)
    assert devices.pick_precision(config, CPU, clock=times().__next__) == faster
    monkeypatch.setattr(devices, 'has_bf16', lambda device: False)
    assert devices.pick_precision(config, CPU, clock=None) == 'fp32'


@pytest.mark.parametrize('given, free, recomputes', [
    ({}, 1 << 40, False), ({}, 1 << 20, True), ({'recompute': False}, 1 << 20, False)])
def test_activations_are_recomputed_where_memory_lacks(given, free, recomputes, monkeypatch):
    run = make_run(CPU, **SMALL, size=(64, 32), training={'flags': given})
    monkeypatch.setattr(memory, 'free_memory', lambda device: free)
    enough, message = memory.compare_memory(run)
    assert enough == (free > 1 << 30) and ' GiB free' in message
    assert run.config.training.recompute == run.G.recompute == recomputes


@pytest.fixture
def recompute_of_passes(monkeypatch):
    """The list that gets run.G.recompute at each forward and backward pass."""
    seen, forward_backward = [], train.forward_backward
    monkeypatch.setattr(train, 'forward_backward', lambda run, *args: (
        seen.append(run.G.recompute), forward_backward(run, *args))[1])
    return seen


def test_memory_is_compared_before_it_is_used(command, scenes, monkeypatch, recompute_of_passes):
    """--hours and the number of threads are measured with steps that recompute, too."""
    monkeypatch.setattr(memory, 'free_memory', lambda device: 1 << 22)
    monkeypatch.delenv('OMP_NUM_THREADS')
    code, out, err = command('train', '--data', scenes, *TINY, '--hours', 0.0001)
    assert code == 0 and err.count('GiB needed with --recompute, ') == 1, err
    # memory_needed estimates without --recompute first.
    assert len(recompute_of_passes) > 4 and recompute_of_passes.count(False) <= 1


def test_a_resumed_run_recomputes_from_its_first_step_on(command, trained, recompute_of_passes):
    shutil.copytree(trained, 'run')
    code, _, err = command('train', '--resume', 'run', '--steps', 8, '--recompute')
    assert code == 0 and recompute_of_passes and all(recompute_of_passes), err


def test_training_uses_the_precision_that_was_picked(monkeypatch):
    config = make_run(CPU, **SMALL).config
    for precision in ('bf16', 'fp32'):
        monkeypatch.setattr(devices, 'pick_precision', lambda *_, picked=precision: picked)
        devices.set_precision(config, CPU, SimpleNamespace())
        assert config.training.precision == precision


def test_what_is_inherited_stays_unless_another_precision_is_asked_for(monkeypatch):
    config = make_run(CPU, **SMALL).config
    monkeypatch.setattr(devices, 'pick_precision', lambda *_: 'fp32')
    for given, has_bf16, expected in (({}, True, 'bf16'), ({'precision': 'auto'}, True, 'fp32'),
                                      ({}, False, 'fp32')):
        monkeypatch.setattr(devices, 'has_bf16', lambda device, has=has_bf16: has)
        config.training.precision = 'bf16'
        devices.set_precision(config, CPU, SimpleNamespace(**given), vars(config.training))
        assert config.training.precision == expected


def test_a_device_without_bf16_makes_pictures_in_float32(trained, tmp_path, monkeypatch):
    """Emulated bf16 is several times slower. A run that goes on keeps what it was trained in."""
    monkeypatch.setattr(devices, 'has_bf16', lambda device: False)
    path, checkpoint = runs.read_run(shutil.copytree(trained, tmp_path / 'run'))
    checkpoint['config'].training.precision = 'bf16'
    assert runs.run_from_checkpoint(path, checkpoint, CPU, False).precision == 'fp32'
    assert runs.run_from_checkpoint(path, checkpoint, CPU).precision == 'bf16'


@pytest.mark.skipif(not shutil.which('g++'), reason='no compiler (g++) here')
def test_compiled_generator_is_the_generator():
    run = make_run(CPU, **SMALL)
    names = list(run.G.state_dict())
    label, inst, _ = batch()
    labels = data.find_present_labels(label, 35)
    x = torch.cat([data.condition(label, inst, 35, True, labels), torch.zeros(1, 3, 32, 64)], 1)
    with torch.no_grad():
        nets.set_present_labels(labels, run.G)
        expected = run.G(x)
        devices.compile_generator(run)
        torch.testing.assert_close(run.G(x), expected, rtol=0, atol=1e-4)
    assert list(run.G.state_dict()) == names
    assert_same_step(make_run(CPU, **SMALL), run, batch(), labels, 1e-4)


@pytest.mark.parametrize('layer', [
    nn.Conv2d(32, 48, 3), nn.Conv2d(33, 32, 3, 2, 1), nn.Conv2d(32, 40, 4, 2, 2),
    nn.Conv2d(64, 32, 4, 1, 2), nn.ConvTranspose2d(32, 40, 3, 2, 1, 1),
    nn.ConvTranspose2d(40, 32, 4, 2, 1), nn.Conv2d(128, 136, 3)], ids=repr)
def test_faster_convolutions_have_the_same_gradients(layer):
    torch.manual_seed(0)
    layer.double()
    large = min(layer.in_channels, layer.out_channels) >= 128       # for Winograd's algorithm
    size = (49, 46) if large else (9, 6)
    x = torch.randn(2, layer.in_channels, *size, dtype=torch.double, requires_grad=True)
    expected = layer(x)
    gradient = torch.randn_like(expected)
    inputs = [x, *layer.parameters()]
    usual = torch.autograd.grad(expected, inputs, gradient)
    fast_layers.speed_up(layer, weights_change=True)
    y = layer(x)
    faster = fast_layers.FastTraining._backward_cls
    torch.testing.assert_close(y, expected)
    assert torch.equal(y, expected) != large and isinstance(y.grad_fn, faster)
    for a, b in zip(torch.autograd.grad(y, inputs, gradient), usual):
        torch.testing.assert_close(a, b)

    y = layer(x)
    layer.requires_grad_(False)                     # no gradient of the weights, as train_step does
    torch.testing.assert_close(torch.autograd.grad(y, x, gradient)[0], usual[0])
    assert not isinstance(layer(x).grad_fn, faster)


@pytest.mark.parametrize('layer', [nn.Conv2d(256, 128, 3), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1)],
                         ids=repr)
def test_faster_gradients_in_bfloat16_are_as_accurate(layer):
    torch.manual_seed(0)
    exact, x = copy.deepcopy(layer).double(), torch.randn(1, layer.in_channels, 18, 34)
    gradient = torch.randn_like(exact(x.double()))
    expected = torch.autograd.grad(exact(x.double()), exact.parameters(), gradient)
    errors = []
    for faster in (False, True):
        if faster:
            fast_layers.speed_up(layer, weights_change=True)
        with torch.autocast('cpu', torch.bfloat16):
            y = layer(x)
        assert isinstance(y.grad_fn, fast_layers.FastTraining._backward_cls) == faster
        found = torch.autograd.grad(y, layer.parameters(), gradient.bfloat16())
        assert all(a.dtype == torch.float32 for a in found)
        errors.append([(a - b).norm().item() / b.norm().item() for a, b in zip(found, expected)])
    assert all(fast <= max(1.2 * usual, 0.003) for usual, fast in zip(*errors)), errors


@pytest.mark.parametrize('network', [
    {}, {'model': 'local', 'n_enhancers': 1}, {'model': 'unet', 'n_down': 5},
    {'spectral_norm': True}, {'up': 'bilinear'}, {'up': 'filtered'},
    {'precision': 'bf16'}], ids=str)
@pytest.mark.parametrize('recompute', [False, True])
def test_faster_convolutions_leave_a_step_as_it_is(network, recompute, monkeypatch):
    wide = {**SMALL, 'ngf': 32, 'ndf': 32, 'nef': 32, **network}
    faster = make_run(CPU, **wide)
    monkeypatch.setattr(fast_layers, 'CONVOLUTIONS', {})
    for kind in (nn.Conv2d, nn.ConvTranspose2d, nets.FilteredConvTranspose2d):
        monkeypatch.delitem(fast_layers.FASTER, kind)
    usual = make_run(CPU, **wide)
    faster.G.recompute = usual.G.recompute = recompute
    tolerance = 1e-2 if faster.precision == 'bf16' else 1e-4
    assert_same_step(faster, usual, batch(2), tolerance=tolerance)


@pytest.mark.parametrize('size', [(16, 32), (23, 25), (37, 33)])
@pytest.mark.parametrize('n', [1, 2])
def test_winograd_convolution(size, n):
    torch.manual_seed(0)
    layer = nn.Conv2d(130, 128, 3)
    x = torch.randn(n, 130, size[0] + 2, size[1] + 2)
    exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double())
    fast_layers.speed_up(layer, weights_change=True)
    with torch.no_grad():
        y = layer(x)
        assert y.shape == exact.shape and y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y.double(), exact, rtol=0, atol=5e-5 * exact.std().item())
        assert not torch.equal(y, F.conv2d(x, layer.weight, layer.bias))
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias))       # with gradients


def test_transformed_weights_are_kept_only_where_they_stay_as_they_are(monkeypatch):
    torch.manual_seed(0)
    x, layers = torch.randn(1, 128, 26, 26), [nn.Conv2d(128, 128, 3) for _ in range(3)]

    def check(layer):
        with torch.no_grad():
            torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias),
                                       rtol=0, atol=1e-4)

    for layer, weights_change in zip(layers, (False, True, False)):
        fast_layers.speed_up(layer, weights_change=weights_change)
    generating, training, large = layers
    for kept in (False, True, True):
        check(generating)
        assert (generating.kept is not None) == kept
    check(copy.deepcopy(generating))

    optimizer = torch.optim.Adam(training.parameters(), fused=True)
    for _ in range(3):
        training(x).square().mean().backward()
        optimizer.step()
        check(training)
    monkeypatch.setattr(fast_layers, 'free_memory', lambda device: 1000)
    for _ in range(3):
        check(large)
    assert training.kept is large.kept is None


def test_convolutions_are_faster_on_the_cpu_unless_they_are_compiled():
    def is_fast(net):
        return any(type(layer) in fast_layers.CONVOLUTIONS.values() for layer in net.modules())

    wide = {**SMALL, 'ngf': 32, 'ndf': 32}
    for precision in ('fp32', 'bf16'):
        run = make_run(CPU, precision, training={'ema': 0.5}, **wide)
        assert all(map(is_fast, (run.G, run.D, run.average['G'])))
        assert is_fast(runs.build_run(run.config, CPU, training=False).G)
    compiled = make_run(CPU, training={'compile': True}, **wide)
    assert not is_fast(compiled.G) and not is_fast(compiled.D)


def test_the_number_of_threads_that_is_fastest_is_chosen():
    for best in (1, 2, 4, 8, 16):
        asked = []

        def measure(threads):
            asked.append(threads)
            return 0.1 + abs(math.log2(threads / best))
        assert devices.pick_threads(measure, 16) == best
        assert asked == [n for n in (16, 8, 4, 2, 1) if n >= best // 2]
    assert devices.pick_threads(lambda threads: 6 / threads ** 0.1 + threads, 12) == 12     # slow
    assert devices.pick_threads(lambda threads: threads, 3) == 1
    assert devices.pick_threads(lambda threads: 1 + 0.01 * threads, 4) == 4         # noise


def test_measuring_the_threads_leaves_a_run_as_it_is(command, scenes, monkeypatch):
    """Also where a batch takes more pictures than there are."""
    monkeypatch.delenv('OMP_NUM_THREADS')
    monkeypatch.setattr(devices, 'pick_threads', lambda measure, cores: 1 if measure(1) > 0 else 0)
    words = ['train', '--data', scenes, '--steps', 2, '--spectral-norm', '--device', 'cpu',
             '--batch', 7, *TINY]
    assert command(*words, '--run', 'measured')[0] == 0
    assert command(*words, '--run', 'told', '--threads', 1)[0] == 0
    measured, told = (runs.load_run(Path(name), CPU) for name in ('measured', 'told'))
    assert measured.config.training.threads == 1
    for name in 'GDE':
        assert equal(*(getattr(run, name).state_dict() for run in (measured, told)))


def test_a_run_keeps_its_number_of_threads(command, scenes, monkeypatch):
    """--threads comes first, then OMP_NUM_THREADS, then the number of the run that goes on."""
    picked = []

    def train_for(steps, *flags):
        words = (['--resume', 'run'] if picked else ['--data', scenes, '--run', 'run', *TINY])
        words += ['--device', 'cpu']
        picked.append(devices.pick_threads)
        assert command('train', *words, '--steps', steps, *flags)[0] == 0
        checkpoint = runs.load_run(Path('run'), CPU)
        assert torch.get_num_threads() == checkpoint.config.training.threads
        return torch.get_num_threads()

    monkeypatch.delenv('OMP_NUM_THREADS')
    monkeypatch.setattr(devices, 'pick_threads', lambda measure, cores: 2 if measure(3) > 0 else 0)
    try:
        assert train_for(2) == 2
        monkeypatch.setattr(devices, 'pick_threads', None)
        torch.set_num_threads(1)
        assert train_for(3) == 2
        assert train_for(4, '--threads', 1) == 1
        monkeypatch.setenv('OMP_NUM_THREADS', '2')
        assert train_for(5) == 1                            # --threads stays with the run
    finally:
        torch.set_num_threads(1)
    assert command('train', '--data', scenes, '--run', 'other', '--steps', 1, *TINY)[0] == 0
    assert runs.load_run(Path('other'), CPU).config.training.threads == 1       # torch's own


@pytest.mark.skipif(SIMULATED, reason='torch.compile cannot be simulated')
def test_without_a_compiler_training_goes_on(monkeypatch, capsys, tmp_path):
    broken = tmp_path / 'broken-compiler'
    broken.write_text('#!/bin/sh\nexit 1\n')
    broken.chmod(0o755)
    for compiler in ('no-such-compiler', str(broken)):
        monkeypatch.setattr('torch._inductor.config.cpp.cxx', (None, compiler))
        run = make_run(CPU, **SMALL)
        devices.compile_generator(run)
        err = capsys.readouterr().err
        assert err.startswith('note: --compile: PyTorch cannot compile here (')
        assert compiler in err and err.endswith('; going on without\n') and err.count('\n') == 1
        assert run.G._compiled_call_impl is None


def test_bfloat16_follows_float32():
    """The losses of twenty steps differ by less than a tenth."""
    curves = []
    for precision in ('fp32', 'bf16'):
        run, maps = make_run(CPU, precision, **SMALL), batch()
        curves.append(torch.stack([torch.stack([
            terms['gan'] + terms['feature_matching'], terms['d_real'] + terms['d_fake']])
            for terms in (train.train_step(run, *maps) for _ in range(20))]))
    fp32, bf16 = curves
    assert fp32[-1, 0] < 0.9 * fp32[0, 0]                   # it learns
    torch.testing.assert_close(bf16, fp32, rtol=0.1, atol=0.02)


@pytest.mark.parametrize('affine', [False, True])
def test_norm_in_channels_last(affine):
    """Values and gradients equal those of torch's norm, also where the mean is far from zero."""
    x = torch.randn(2, 6, 128, 256) * 2 + 20
    theirs, ours = [torch.nn.InstanceNorm2d(6, affine=affine) for _ in range(2)]
    fast_layers.speed_up(ours, weights_change=True)
    results = []
    for norm, layout in ((theirs, torch.contiguous_format), (ours, torch.channels_last)):
        leaf = x.clone(memory_format=layout).requires_grad_()
        y = norm(leaf)
        (y * y * torch.linspace(0, 1, 256)).sum().backward()
        results.append((y, leaf.grad))
    torch.testing.assert_close(*results, rtol=0, atol=2e-5)
    assert ours(x.contiguous(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last)
