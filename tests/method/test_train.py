"""One training step: the moving average of the weights, steps that are skipped, gradients."""
import pytest
import torch

from conftest import make_run
import data
import train

CPU = torch.device('cpu')
SMALL = {'ngf': 8, 'n_down': 2, 'n_blocks': 1, 'ndf': 8, 'nef': 4, 'n_down_encoder': 2}


def make_small_run(ema=0.999):
    """Return a run without instances, with 4 labels and the smallest networks."""
    return make_run(CPU, training={'ema': ema}, n_labels=4, instances='none', features=False,
                    ngf=4, n_down=1, n_blocks=1, ndf=4, n_scales=1)


def step(run, image=None):
    """Train on a random scene; return the terms."""
    image = torch.rand(1, 3, 16, 16) * 2 - 1 if image is None else image
    return train.train_step(run, torch.randint(0, 4, (1, 1, 16, 16)), None, image)



def test_the_moving_average_by_hand():
    run = make_small_run(ema=0.3)
    expected = [p.detach().clone() for p in run.G.parameters()]
    for i in range(1, 6):
        step(run)
        keep = min(0.3, (1 + i) / (10 + i))
        expected = [keep * a + (1 - keep) * p.detach()
                    for a, p in zip(expected, run.G.parameters())]
    for a, b in zip(run.average['G'].parameters(), expected):
        torch.testing.assert_close(a, b)
        assert not a.requires_grad
    assert make_small_run(ema=0).average == {}



def test_a_skipped_step_keeps_the_weights_and_moves_the_average_towards_them():
    run = make_small_run()
    step(run), step(run)
    weights, averages = ([p.detach().clone() for p in net.parameters()]
                         for net in (run.G, run.average['G']))
    terms = step(run, torch.full((1, 3, 16, 16), torch.nan))
    assert terms['skipped'] == 1
    assert all(map(torch.equal, weights, run.G.parameters()))
    for before, after, weight in zip(averages, run.average['G'].parameters(), weights):
        assert not torch.equal(before, after)
        assert ((after - weight).abs() <= (before - weight).abs()).all()


@pytest.mark.parametrize('changes', [
    {}, {'precision': 'bf16'}, {'training': {'accumulate': 2, 'batch': 2}},
    {'training': {'recompute': True}}, {'model': 'unet', 'n_down': 4}, {'spectral_norm': True},
    {'model': 'local', 'n_enhancers': 1, 'n_blocks_local': 1}])
def test_gradients_have_the_memory_layout_of_their_parameters(changes):
    """Otherwise PyTorch's fused Adam on the CPU computes wrong updates without a word."""
    def layout(x):                          # strides of sizes 1 mean nothing
        return [(size, stride) for size, stride in zip(x.shape, x.stride()) if size > 1]

    batch = changes.get('training', {}).get('batch', 1)
    run = make_run(CPU, **{**SMALL, **changes})
    label = torch.randint(35, (batch, 1, 32, 32))
    train.train_step(run, label, label, torch.rand(batch, 3, 32, 32) * 2 - 1,
                     data.find_present_labels(label, 35))
    for p in train.trainable_parameters(run):
        assert layout(p.grad) == layout(p)
