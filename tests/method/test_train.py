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
    {'training': {'augment': True, 'batch': 2}},
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


# ------------------------------------------------------------------ augmentation of what D sees

STILL = {'brightness': 0, 'saturation': 1, 'contrast': 1, 'shift': (0, 0), 'hole': (5, 5)}


def visible(hole, h, w):
    """Return a mask (h, w) that is 0 in the rectangle of half the size around `hole`."""
    near = [(torch.arange(side)[None] - centre).div(side // 2).add(0.5).floor() == 0
            for side, centre in ((h, hole[0]), (w, hole[1]))]
    return 1 - (near[0].T & near[1]).float()


def test_adam_is_torchs():
    """Also for tensors in the channels-last layout, which it sees in another order."""
    torch.manual_seed(0)
    shapes, results = ((6, 5, 3, 3), (5,), (4, 3, 1, 1)), []
    values, *gradients = [[torch.randn(shape) for shape in shapes] for _ in range(5)]
    for make, layout in ((torch.optim.Adam, torch.contiguous_format),
                         (train.Adam, torch.channels_last)):
        def copy(x):
            return x.clone(memory_format=layout if x.ndim == 4 else torch.contiguous_format)

        weights = [torch.nn.Parameter(copy(value)) for value in values]
        optimizer = make(weights, lr=0.1, betas=(0.5, 0.999), fused=True)
        for row in gradients:
            for weight, gradient in zip(weights, row):
                weight.grad = copy(gradient)
            optimizer.found_inf = torch.zeros(())
            optimizer.step()
        results.append([*weights, *(optimizer.state[weight][name] for weight in weights
                                    for name in ('exp_avg', 'exp_avg_sq', 'step'))])
    torch.testing.assert_close(*results)
    assert all(a.shape == b.shape for a, b in zip(*results))


def test_augmentation_by_hand():
    """The condition and the picture move alike and have the same hole; only the picture changes its
    colours."""
    condition, picture = torch.rand(1, 4, 12, 20), torch.rand(1, 3, 12, 20) * 2 - 1
    whole = torch.cat([condition, picture], 1)
    mask = visible((5, 5), 12, 20)
    torch.testing.assert_close(train.augment(condition, picture, **STILL), whole * mask)
    for down, right, hole in ((1, -2, (11, 19)), (-1, 2, (0, 0)), (0, 1, (6, 3))):
        moved = torch.zeros_like(whole)
        for y in range(12):
            for x in range(20):
                if 0 <= y - down < 12 and 0 <= x - right < 20:
                    moved[..., y, x] = whole[..., y - down, x - right]
        seen = train.augment(condition, picture, **{**STILL, 'shift': (down, right), 'hole': hole})
        torch.testing.assert_close(seen, moved * visible(hole, 12, 20))

    grey = picture.mean(1, keepdim=True)
    for name, value, expected in (
            ('brightness', 0.25, picture + 0.25), ('saturation', 0, grey.expand(1, 3, 12, 20)),
            ('saturation', 2, 2 * picture - grey),
            ('contrast', 0.5, (picture + picture.mean()) / 2)):
        seen = train.augment(condition, picture, **{**STILL, name: value})
        torch.testing.assert_close(seen, torch.cat([condition, expected], 1) * mask)
    strong = {**STILL, 'saturation': 1.7, 'contrast': 1.4}
    fake = picture.bfloat16()                           # the sums are in float32
    torch.testing.assert_close(train.augment(condition, fake, **strong),
                               train.augment(condition, fake.float(), **strong))


def test_augmentation_is_drawn_from_the_published_ranges():
    draws = train.draw_augmentations(2000, 33, 20, seed=5)
    assert draws == train.draw_augmentations(2000, 33, 20, seed=5)
    assert draws != train.draw_augmentations(2000, 33, 20, seed=6)
    for name, low, high in (('brightness', -0.5, 0.5), ('saturation', 0, 2), ('contrast', .5, 1.5)):
        values = torch.tensor([draw[name] for draw in draws])
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low)
    for name, i, every in (('shift', 0, range(-4, 5)), ('shift', 1, range(-2, 3)),
                           ('hole', 0, range(33)), ('hole', 1, range(20))):
        counts = torch.tensor([[draw[name][i] == value for draw in draws] for value in every])
        assert counts.sum() == 2000 and counts.float().mean(1).min() > 0.5 / len(every)


def inputs_of_D(run, *batch, **more):
    """Train for a step; return the inputs of D, fake and real in turns, and the terms."""
    seen = []
    handle = run.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    terms = train.train_step(run, *batch, **more)
    handle.remove()
    return seen, terms


@pytest.mark.parametrize('changes', [
    {}, {'precision': 'bf16'}, {'training': {'accumulate': 2, 'batch': 4}}, {'n_labels': 0},
    {'model': 'unet', 'n_down': 4, 'features': False},
    {'model': 'local', 'n_enhancers': 1, 'n_blocks_local': 1}])
def test_augmented_inputs_keep_shape_type_and_layout(changes):
    training, seen = changes.pop('training', {}), {}
    n = training.get('batch', 2)
    label = torch.randint(35, (n, 1, 32, 48), generator=torch.Generator().manual_seed(0))
    present = data.find_present_labels(label % 5, 35) if changes.get('n_labels') != 0 else None
    maps = label % 5 if present is not None else torch.rand(n, 3, 32, 48)
    image = torch.rand(n, 3, 32, 48) * 2 - 1
    for augment in (False, True):
        run = make_run(CPU, training={**training, 'augment': augment}, **{**SMALL, **changes})
        seen[augment], terms = inputs_of_D(run, maps, label, image, present)
        assert terms['skipped'] == 0
    assert len(seen[True]) == len(seen[False]) > 0
    for plain, altered in zip(seen[False], seen[True]):
        assert plain.shape == altered.shape and plain.dtype == altered.dtype
        assert plain.stride() == altered.stride() and not torch.equal(plain, altered)


def test_D_sees_fake_and_real_with_the_same_draw():
    """It depends on nothing but seed, step, part of the batch and process."""
    label, image = torch.randint(0, 4, (2, 1, 16, 24)), torch.rand(2, 3, 16, 24) * 2 - 1

    def inputs(step, seed=0, rank=0):
        run = make_run(CPU, n_labels=4, instances='none', features=False, ngf=4, n_down=1,
                       n_blocks=1, ndf=4, n_scales=1, training={
                           'augment': True, 'batch': 2, 'accumulate': 2, 'seed': seed})
        pictures = iter(image.split(1))                 # G makes the photographs
        run.G.forward = lambda x: type(run.G).forward(run.G, x) * 0 + next(pictures)
        run.step = step
        seen, terms = inputs_of_D(run, label, None, image, rank=rank)
        assert terms['feature_matching'] < 1e-4
        torch.testing.assert_close(seen[::2], seen[1::2])
        return seen[::2]

    assert all(map(torch.equal, inputs(step=7), inputs(step=7)))
    drawn = [x for step, seed, rank in ((7, 0, 0), (8, 0, 0), (7, 1, 0), (7, 0, 1))
             for x in inputs(step, seed, rank)]
    holes = {tuple((x == 0).all(1).flatten().tolist()) for x in drawn}
    assert len(holes) == len(drawn) == 8


def test_G_learns_through_the_augmentation():
    """The gradient comes back from where the pixels went; none from the hole and from outside."""
    condition, picture = torch.rand(1, 2, 16, 24), torch.rand(1, 3, 16, 24, requires_grad=True)
    weight = torch.rand(1, 5, 16, 24)
    seen = train.augment(condition, picture, **{**STILL, 'shift': (2, -3), 'hole': (8, 12)})
    gradient, = torch.autograd.grad((seen * weight).sum(), picture)
    expected = torch.zeros(1, 3, 16, 24)
    expected[..., :-2, 3:] = (weight * visible((8, 12), 16, 24))[:, 2:, 2:, :-3]
    torch.testing.assert_close(gradient, expected)
    assert expected.count_nonzero() < 0.8 * expected.numel()
