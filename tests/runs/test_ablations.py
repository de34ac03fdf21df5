"""Baseline, ablations and moving average: each trains, generates and resumes exactly."""
import shutil

import numpy as np
from PIL import Image
import pytest
import torch

from app.datasets import layouts
from app.datasets.scenes import read_photo, read_scene
from app.runs import checkpoints, run_styles, runs
from conftest import BARE, TINY, equal
import generate

CPU = torch.device('cpu')
SHORT = ['--steps', '4', '--save-every', '2', '--keep', '3', '--sample-every', '4', '--workers',
         '0', '--device', 'cpu']
ABLATIONS = ['--model pix2pix', '--model unet --n-down 3', '--model local --n-blocks-local 1',
             '--gan hinge --spectral-norm', '--gan vanilla --up bilinear', '--up nearest',
             '--up filtered', '--no-boundary', '--features-of label',
             '--instances none --features-of label',
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

    # A run resumed in the middle ends as the straight one.
    shutil.copytree('run', 'again')
    checkpoints.list_checkpoints('again')[-1].unlink()
    code, out, err = command('train', '--resume', 'again', '--device', 'cpu')
    assert code == 0 and 'going on at step 2 of 4' in out, err
    (_, left), (_, right) = map(checkpoints.newest_checkpoint, ('run', 'again'))
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


def test_features_of_labels_are_constant_over_labels(trained, scenes):
    run = runs.load_run(trained, CPU)
    run.config.features_of = 'label'
    pair = layouts.find_pairs(scenes, 'val')[1][0]
    scene = read_scene(run.config, pair.label, pair.inst)
    assert scene.labels.tolist() == scene.label.unique().tolist()
    photo = read_photo(run.config, pair.image, scene)
    vectors = generate.encode_image(run, photo, scene)
    with pytest.raises(ValueError, match='photograph is 16x16, the label map is '):
        generate.encode_image(run, photo[..., :16, :16], scene)
    assert vectors.shape == (len(scene.labels), 3)


def test_pictures_are_made_with_the_average(command, trained, scenes):
    averaged, raw, both = (runs.load_run(trained, CPU, training, average=average)
                           for training, average in ((False, True), (False, False), (True, True)))
    assert equal(averaged.G.state_dict(), both.average['G'].state_dict())
    assert equal(averaged.E.state_dict(), both.average['E'].state_dict())
    assert equal(raw.G.state_dict(), both.G.state_dict())
    assert not equal(raw.G.state_dict(), averaged.G.state_dict())
    assert (averaged.log.variant, raw.log.variant) == ('', '-raw')
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
    assert run.average == {} and run.log.variant == ''
    assert run_styles.load_styles(golden('official_run'), run.config)['counts'].any()

