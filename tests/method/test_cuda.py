"""On CUDA: the step of the CPU, and nothing in it that makes the host wait. Without a GPU these
tests run on a simulated one with P2PHD_SIMULATED_CUDA=1, see simulated_cuda/device.py."""
import pytest
import torch
import torch.nn.functional as F

from conftest import SIMULATED, make_run
import data
import generate
import styles
import train
from app.demo import streets
from app.runs import cuda_graphs, fast_layers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
CPU, CUDA = torch.device('cpu'), torch.device('cuda')
if SIMULATED:
    from simulated_cuda.device import record

only_simulated = pytest.mark.skipif(not SIMULATED, reason='needs P2PHD_SIMULATED_CUDA=1')
SMALL = {'ngf': 8, 'n_down': 2, 'n_blocks': 1, 'ndf': 8, 'nef': 4, 'n_down_encoder': 2}


def scene_tensors(size=(64, 64), batch=1):
    """Return label, inst and image, (N, 1 or 3, H, W), uint8 or int32."""
    scenes = [streets.draw_scene(i, size)[:3] for i in range(batch)]
    return [torch.stack(list(map(data.to_tensor, arrays))) for arrays in zip(*scenes)]


def make_step(device, batch=1, **changes):
    """Return a run and a function that trains it for a step."""
    run = make_run(device, **{**SMALL, **changes})
    label, inst, image = (tensor.to(device) for tensor in scene_tensors(batch=batch))
    present = data.find_present_labels(label.cpu(), 35).to(device)
    image = data.to_float(image)
    return run, lambda scale=1: train.train_step(run, label, inst, image * scale, present)


@pytest.fixture
def fail_if_host_waits():
    def switch(on):
        torch.cuda.set_sync_debug_mode('error' if on else 'default')
    yield switch
    switch(False)


def test_a_step_is_the_step_of_the_cpu():
    results = []
    for device in (CPU, CUDA):
        run, step = make_step(device)
        results.append([value.item() for value in step().values()])
    assert results[0] == pytest.approx(results[1], rel=1e-2)


class VGG(torch.nn.Module):
    """Stands for nets.VGG19, which takes too long here."""

    def forward(self, x):
        return [F.max_pool2d(x, 2)] * 5


LOCAL = {'model': 'local', 'n_enhancers': 1, 'n_blocks_local': 1}


@pytest.mark.parametrize('changes', [
    {'precision': 'fp32'}, {'precision': 'tf32'}, {'precision': 'bf16'},
    {'training': {'ema': 0.9}}, {'batch': 2, 'training': {'accumulate': 2, 'batch': 2}},
    {'batch': 2, 'training': {'batch': 2}}, {'training': {'recompute': True}}, {'vgg': True},
    {'model': 'unet', 'n_down': 4}, {**LOCAL, 'training': {'fix_global_steps': 10}}, LOCAL,
    {'spectral_norm': True}, {'features_of': 'label'}, {'up': 'nearest'}, {'up': 'filtered'},
    {'training': {'gan': 'hinge', 'lambda_l1': 1}}, {'training': {'augment': True}}])
def test_the_host_waits_for_no_step(changes, fail_if_host_waits):
    vgg = changes.pop('vgg', False) if isinstance(changes, dict) else False
    run, step = make_step(CUDA, **changes)
    run.vgg = VGG() if vgg else None
    step()
    fail_if_host_waits(True)
    step()
    before = [p.detach().clone() for p in (*run.G.parameters(), *run.D.parameters())]
    terms = step(float('nan'))              # the device decides that it is skipped
    fail_if_host_waits(False)
    assert terms['skipped'] == 1
    assert all(map(torch.equal, before, (*run.G.parameters(), *run.D.parameters())))


@pytest.mark.parametrize('changes', [
    {}, {'precision': 'bf16'}, {'spectral_norm': True}, {'vgg': True},
    {'batch': 2, 'training': {'accumulate': 2, 'batch': 2}},
    {**LOCAL, 'encoder_scale': 2, 'training': {'fix_global_steps': 2}}])
def test_steps_are_the_same_with_graphs(changes, capsys):
    changes, losses = dict(changes), []
    vgg, batch = VGG() if changes.pop('vgg', False) else None, changes.pop('batch', 1)
    changes['training'] = {'lr': 0.002, **changes.get('training', {})}
    for graphs in (False, True):
        run = make_run(CUDA, **{**SMALL, 'size': (64, 64), **changes})
        run.vgg, run.cudnn_benchmark = vgg, True
        if graphs:
            cuda_graphs.use_graphs(run)
        for i in range(5):                      # the second one has fewer labels
            label, inst, image = (tensor.to(CUDA) for tensor in scene_tensors(batch=batch))
            label = label.clamp(max=3) if i == 1 else label
            present = data.find_present_labels(label.cpu(), 35).to(CUDA)
            terms = train.train_step(run, label, inst, data.to_float(image), present)
            losses.append({name: value.item() for name, value in terms.items()})
    for plain, graphed in zip(losses[:5], losses[5:]):      # in fp32, two plain runs differ too
        assert plain == pytest.approx(graphed, rel=1e-3, abs=1e-4)
    # Nothing can be captured on the simulated device.
    assert ('without CUDA graphs' in capsys.readouterr().err) == SIMULATED
    assert SIMULATED or len(run.graphed_forward_backward.graphs) == 2 + ('model' in changes)


@only_simulated
@pytest.mark.parametrize('changes', [{}, LOCAL, {'model': 'unet', 'n_down': 4}, {'up': 'nearest'},
                                     {'up': 'filtered'},
                                     {'batch': 2, 'training': {'batch': 2, 'augment': True}}])
def test_a_step_is_reproducible_and_keeps_the_memory_layout(changes):
    run, step = make_step(CUDA, **changes)
    step()
    with record() as events:
        step()
    assert {event for event in events if event.kind != 'layout'} == set()
    # Gradients of parts of a batch, or of one picture, are the only ones in another layout.
    assert not [event for event in events if event.kind == 'layout' and 'pad' in event.operation]


@only_simulated
def test_only_a_run_in_tf32_computes_in_tf32():
    label, inst, image = scene_tensors()
    for precision in ('fp32', 'bf16', 'tf32'):
        torch.backends.cudnn.allow_tf32 = True          # as PyTorch's default
        run, step = make_step(CUDA, precision=precision)
        scene = generate.make_scene(run.config, label, inst)
        with record() as events:
            step()
            vectors = generate.encode_image(run, data.to_float(image), scene)
            generate.synthesise(run, scene, vectors)
        assert any(event.kind == 'tf32' for event in events) == (precision == 'tf32')


@only_simulated
def test_a_picture_costs_one_wait():
    label, inst, image = scene_tensors()
    run = make_run(CUDA, **SMALL)
    scene = generate.make_scene(run.config, label, inst)
    with record() as events:
        vectors = generate.encode_image(run, data.to_float(image), scene)
    assert [event.kind for event in events] == ['wait']         # the features are downloaded
    with record() as events:
        picture = generate.synthesise(run, scene, vectors)
    assert events == []
    with record() as events:
        picture.cpu()
    assert [event.kind for event in events] == ['wait']


@only_simulated
def test_encoding_a_data_set_does_not_depend_on_the_device():
    label, inst, image = (tensor[0].permute(1, 2, 0).numpy() for tensor in scene_tensors())
    dataset = data.PairedDataset([0], lambda _: {'label': label[..., 0], 'inst': inst[..., 0],
                                                 'image': image}, 35)
    results = []
    for device in (CPU, CUDA):
        run = make_run(device, **SMALL)
        vectors, labels = styles.encode_all(run, dataset)
        assert vectors.device == labels.device == CPU       # processes send them to one another
        clusters = styles.cluster(vectors, labels, 35, 3, device=device)
        results.append((vectors, torch.from_numpy(clusters['centres'])))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@only_simulated
def test_batches_are_uploaded_from_pinned_memory():
    label, inst, image = (tensor[0].permute(1, 2, 0).numpy() for tensor in scene_tensors())
    item = {'label': label[..., 0], 'inst': inst[..., 0], 'image': image}
    dataset = data.PairedDataset([0] * 4, lambda _: item, 35, decoded=[item] * 4)
    with record() as events:
        for batch in data.batches(dataset, CUDA, sampler=[(0, i) for i in range(4)]):
            data.to_device(batch, CUDA)
    assert events == []


def test_mirror_pad_is_torchs_reflection_padding():
    x = torch.randn(2, 5, 9, 12, device=CUDA, requires_grad=True)
    weight = torch.randn(2, 5, 15, 18, device=CUDA)
    results = []
    pad = torch.nn.ReflectionPad2d(3)
    fast_layers.speed_up(pad, weights_change=True)
    for y in (pad(x), F.pad(x, (3,) * 4, mode='reflect')):
        results += [y, *torch.autograd.grad((y * weight).sum(), x)]
    assert torch.equal(results[0], results[2])
    assert results[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(results[1], results[3])
