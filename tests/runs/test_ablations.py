"""The baseline, the ablations, the moving average: each trains, generates, resumes exactly."""
import shutil

import numpy as np
from PIL import Image
import pytest
import torch

from conftest import BARE, TINY, equal
from app.runs import checkpoints
from app.common import config as configuration
import data
import losses
import nets
from app.runs import runs
import generate
import train
from nets import UNet
from app.runs import run_styles

CPU = torch.device('cpu')
SHORT = ['--steps', '4', '--save-every', '2', '--keep', '3', '--sample-every', '4', '--workers',
         '0', '--device', 'cpu']


# ------------------------------------------------------------------------------------- networks

def test_the_unet_of_pix2pix():
    net = UNet(3, 3)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 54.4     # as published
    net = UNet(5, 3, 8, n_down=5)
    x = torch.randn(2, 5, 32, 64)
    torch.manual_seed(1)
    y = net.eval()(x)                                   # its noise is there in use as well
    assert y.shape == (2, 3, 32, 64) and y.abs().max() <= 1
    assert not torch.equal(y, net(x))
    torch.manual_seed(1)
    assert torch.equal(y, net(x))
    with pytest.raises(ValueError, match='multiples of 32'):
        net(torch.randn(1, 5, 32, 48))
    raw = UNet(5, 3, 8, n_down=5, dropout=0, tanh=False)
    assert torch.equal(raw(x), raw(x))


@pytest.mark.parametrize('up', ['nearest', 'bilinear'])
def test_resizing_in_place_of_transposed_convolutions(up):
    """Same names of weights, same sizes, no transposed convolution left."""
    for make in (lambda up: nets.GlobalGenerator(5, 3, 8, 2, 1, up),
                 lambda up: nets.LocalEnhancer(5, 3, 4, 2, 1, 1, 1, up),
                 lambda up: UNet(5, 3, 8, 3, up)):
        net, plain = make(up), make('transposed')
        assert net.state_dict().keys() == plain.state_dict().keys()
        assert not any(isinstance(m, torch.nn.ConvTranspose2d) for m in net.modules())
        assert net(torch.randn(1, 5, 24, 40)).shape == (1, 3, 24, 40)
    encoder = nets.Encoder(3, 3, 4, 2, up)
    inst = torch.zeros(1, 1, 16, 16, dtype=torch.int32)
    assert encoder(torch.randn(1, 3, 16, 16), inst).shape == (1, 3, 16, 16)


def test_spectral_norm():
    net = nets.MultiscaleDiscriminator(5, 8, n_scales=1, spectral_norm=True)
    for _ in range(100):
        net(torch.randn(1, 5, 32, 32))
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(
                1, abs=0.02)


# --------------------------------------------------------------------------------------- losses

def test_hinge_by_hand():
    scales = [[torch.tensor([0.5, 2.0])], [torch.tensor([-3.0])]]
    assert float(losses.gan_loss(scales, True, 'hinge')) == pytest.approx(0.25 + 4)
    assert float(losses.gan_loss(scales, False, 'hinge')) == pytest.approx(2.25 + 0)
    assert float(losses.generator_gan_loss(scales, 'hinge')) == pytest.approx(-1.25 + 3)
    assert [losses.chance_level_loss(2, mode) for mode in ('lsgan', 'vanilla', 'hinge')] == pytest.approx(
        [1, 4 * np.log(2), 4])


def test_terms_with_their_weights():
    fake, real = ([[torch.tensor([value]), torch.tensor([0.0])]] for value in (1.0, 3.0))
    pictures = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    terms = losses.generator_loss(fake, real, 3, lambda_feature=2, lambda_l1=100, pictures=pictures)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        {'gan': 1, 'feature_matching': 4, 'l1': 50})
    assert list(losses.generator_loss(fake, real, 3, lambda_feature=0)) == ['gan']


# ---------------------------------------------------------------------------------- each by flag

ABLATIONS = ['--model pix2pix', '--model unet --n-down 3', '--model local --n-blocks-local 1',
             '--gan hinge --spectral-norm', '--gan vanilla --up bilinear', '--up nearest',
             '--no-boundary', '--features-of label', '--instances none --features-of label',
             '--lambda-feature 0 --n-scales 1', '--lambda-feature 3 --lambda-l1 5 --ema 0.5',
             '--ema 0', '--hold-out 2']


@pytest.mark.parametrize('flags', ABLATIONS)
def test_each_trains_generates_and_resumes(command, scenes, tmp_path, flags):
    flags = flags.split()
    tiny = TINY if 'pix2pix' not in flags else BARE
    if 'unet' in flags or 'pix2pix' in flags:
        tiny = [word for i, word in enumerate(tiny)
                if {'--n-down', '--n-blocks'}.isdisjoint(tiny[max(i - 1, 0):i + 1])]
    code, out, err = command('train', '--data', scenes, '--run', 'run', *tiny, *flags, *SHORT)
    assert code == 0, err

    # Resumed in the middle, it comes to the same.
    shutil.copytree('run', 'again')
    checkpoints.list_checkpoints('again')[-1].unlink()
    code, out, err = command('train', '--resume', 'again')
    assert code == 0 and 'going on at step 2 of 4' in out, err
    (_, left), (_, right) = checkpoints.newest_checkpoint('run'), checkpoints.newest_checkpoint('again')
    assert all(equal(left[kind], right[kind]) for kind in ('weights', 'average', 'optimizers'))
    assert left['rows'] == right['rows']
    sheets = [(tmp_path / run / 'samples' / '0000004.png').read_bytes() for run in ('run', 'again')]
    assert sheets[0] == sheets[1]

    one = scenes / 'gtFine' / 'val' / 'toy' / 'toy_0000_gtFine_labelIds.png'
    code, out, err = command('generate', '--run', 'run', '--label', one)
    assert code == 0 and Image.open(out.splitlines()[-1]).size == (64, 32), err


def test_pix2pix_is_what_its_paper_says(command, scenes):
    code, _, err = command('train', '--data', scenes, '--run', 'run', '--model', 'pix2pix',
                           '--size', '64x32', '--ngf', 8, '--ndf', 8, *SHORT)
    assert code == 0, err
    c = runs.load_run('run', CPU).config
    assert (c.model, c.n_down, c.n_scales, c.features, c.boundary) == ('unet', 5, 1, False, False)
    t = c.training
    assert (t.gan, t.lambda_feature, t.lambda_l1) == ('vanilla', 0, 100)
    terms = open('run/log.csv').readline()
    assert 'l1' in terms and 'feature' not in terms

    # Its dropout is the noise of a sample.
    one = scenes / 'gtFine' / 'val' / 'toy' / 'toy_0000_gtFine_labelIds.png'
    made = []
    for _ in range(2):
        code, out, _ = command('generate', '--run', 'run', '--label', one, '--sample', '--n', 2)
        assert code == 0
        made.append([open(path, 'rb').read() for path in out.splitlines()])
    assert made[0] == made[1] and made[0][0] != made[0][1]
    code, _, err = command('finetune', '--from', 'run', '--steps', 1)
    assert code == 2 and 'U-Net' in err and err.count('\n') == 1, err


def test_without_a_boundary_map_there_is_a_channel_less():
    label, inst = (torch.randint(0, 4, (1, 1, 8, 8)) for _ in range(2))
    assert data.condition(label, inst, 4).shape[1] == 5
    assert torch.equal(data.condition(label, inst, 4, boundary=False), data.one_hot(label, 4))


def test_features_of_labels_are_constant_over_labels(trained, scenes):
    run = runs.load_run(trained, CPU)
    run.config.features_of = 'label'
    from app.datasets import layouts
    pair = layouts.find_pairs(scenes, 'val')[1][0]
    scene = scenes.read_scene(run.config, pair.label, pair.inst)
    assert scene.labels.tolist() == scene.label.unique().tolist()
    photo = scenes.read_photo(run.config, pair.image, scene)
    vectors = generate.encode_image(run, photo, scene)
    assert vectors.shape == (len(scene.labels), 3)


# ----------------------------------------------------------------------------- the moving average

def make(**changes):
    c = configuration.make_config(
        {'n_labels': 4, 'instances': 'none', 'features': False, 'n_enhancers': 0, 'ngf': 4,
         'n_down': 1, 'n_blocks': 1, 'ndf': 4, 'n_scales': 1},
        {'data': '.', 'pictures': [1, 0], 'total_steps': 9, 'decay_start': 9, **changes})
    return runs.build_run(c, CPU)


def step(run, image=None):
    image = torch.rand(1, 3, 16, 16) * 2 - 1 if image is None else image
    return train.train_step(run, torch.randint(0, 4, (1, 1, 16, 16)), None, image)


def test_the_moving_average_by_hand():
    run = make(ema=0.3)
    expected = [p.detach().clone() for p in run.G.parameters()]
    for i in range(1, 6):
        step(run)
        keep = min(0.3, (1 + i) / (10 + i))
        expected = [keep * a + (1 - keep) * p.detach()
                    for a, p in zip(expected, run.G.parameters())]
    for a, b in zip(run.average['G'].parameters(), expected):
        torch.testing.assert_close(a, b)
        assert not a.requires_grad
    assert make(ema=0).average == {}


def test_a_skipped_step_leaves_the_average_as_it_was():
    run = make()
    step(run), step(run)
    before = [p.clone() for p in run.average['G'].parameters()]
    terms = step(run, torch.full((1, 3, 16, 16), torch.nan))
    assert terms['skipped'] == 1
    assert all(map(torch.equal, before, run.average['G'].parameters()))
    step(run)
    assert not all(map(torch.equal, before, run.average['G'].parameters()))


def test_pictures_are_made_with_the_average(command, trained, scenes):
    averaged, raw, both = (runs.load_run(trained, CPU, training, average=average)
                           for training, average in ((False, True), (False, False), (True, True)))
    assert equal(averaged.G.state_dict(), both.average['G'].state_dict())
    assert equal(averaged.E.state_dict(), both.average['E'].state_dict())
    assert equal(raw.G.state_dict(), both.G.state_dict())
    assert not equal(raw.G.state_dict(), averaged.G.state_dict())
    assert (averaged.variant, raw.variant) == ('', '-raw')
    one = scenes / 'gtFine' / 'val' / 'toy' / 'toy_0000_gtFine_labelIds.png'
    pictures = []
    for flag in ('--average', '--no-average'):
        code, out, err = command('generate', '--run', trained, '--label', one, flag, '--out',
                                 f'out{flag}')
        assert code == 0, err
        pictures.append(np.asarray(Image.open(out.splitlines()[-1])))
    assert not np.array_equal(*pictures)


def test_finetune_starts_from_the_average(command, trained):
    code, _, err = command('finetune', '--from', trained, '--steps', 2, '--fix-global', 9,
                           '--n-blocks-local', 1, '--run', 'fine', '--workers', 0)
    assert code == 0, err
    averages = checkpoints.newest_checkpoint(trained)[1]['average']
    made = checkpoints.newest_checkpoint('fine')[1]
    for states in (made['weights'], made['average']):
        assert torch.equal(states['G']['model.1.weight'], averages['G']['model.1.weight'])
        assert equal(states['E'], averages['E'])


def test_an_official_run_has_no_average(golden):
    run = runs.load_run(golden('official_run'), CPU, training=False)
    assert run.average == {} and run.variant == ''
    assert run_styles.load_styles(golden('official_run'), run.config)['counts'].any()
