"""On a CUDA device: the same step as on the CPU, and no synchronisation hidden in it."""
import pytest
import torch

from conftest import make_run
import data
import train
from app.demo import streets

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')


def step(device, **changes):
    run = make_run(device, ngf=8, n_down=2, n_blocks=1, ndf=8, nef=4, n_down_encoder=2, **changes)
    scene = streets.draw_scene(0, (64, 64))
    label, inst, image = (data.to_tensor(array)[None].to(device) for array in scene[:3])
    return run, (label, inst, data.to_float(image))


def test_a_step_is_the_step_of_the_cpu():
    results = []
    for device in map(torch.device, ('cpu', 'cuda')):
        run, batch = step(device)
        results.append([value.item() for value in train.train_step(run, *batch).values()])
    assert results[0] == pytest.approx(results[1], rel=1e-2)


@pytest.mark.parametrize('precision', ['fp32', 'tf32', 'bf16'])
def test_a_step_does_not_wait_for_the_device(precision):
    run, batch = step(torch.device('cuda'), precision=precision)

    train.train_step(run, *batch)
    torch.cuda.set_sync_debug_mode('error')
    try:
        train.train_step(run, *batch)
        before = [parameter.detach().clone()
                  for parameter in (*run.G.parameters(), *run.D.parameters())]
        label, inst, image = batch
        # A step that is skipped, which is decided there.
        terms = train.train_step(run, label, inst, image * float('nan'))
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert terms['skipped'] == 1
    assert all(map(torch.equal, before, (*run.G.parameters(), *run.D.parameters())))
