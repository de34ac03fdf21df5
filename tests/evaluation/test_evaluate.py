"""Measures computed by hand, and the command that writes them."""
import csv
import json
import os
from pathlib import Path
import shutil
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
import torch

from app.datasets import inspection, layouts
from app.evaluation import measures, scoring
from app.runs import checkpoints, runs
from conftest import BARE, TINY, random_vgg_weights
import data
import generate
import nets


# --------------------------------------------------------------------------------------- by hand

LABEL = torch.tensor([[0, 0, 1, 1],
                      [0, 0, 1, 3]])        # 3 is void
PREDICTED = torch.tensor([[0, 1, 1, 1],
                          [0, 0, 2, 0]])


def test_segmentation_scores_by_hand():
    counts = measures.count_pixels(PREDICTED, LABEL, {3}, 4)
    assert counts.tolist() == [[3, 2, 0, 0], [4, 3, 0, 0], [3, 3, 1, 0], [5, 8, 0, 0]]
    scores = measures.segmentation_scores([counts], 'abcd')
    assert scores['pixel_accuracy'] == pytest.approx(5 / 7)
    assert scores['pixel_accuracy_with_void'] == pytest.approx(5 / 8)
    assert scores['class_accuracy'] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert scores['iou'] == pytest.approx({'a': 3 / 4, 'b': 2 / 4})     # c is in no true map
    assert scores['mean_iou'] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert [*scores['bounds']] == ['pixel_accuracy', 'class_accuracy', 'mean_iou']
    assert all(low == high for low, high in scores['bounds'].values())  # of one picture


def test_names_of_labels_and_void():
    """Unknown pixels stay void; ids are those of the files; no two labels have the same name."""
    config = SimpleNamespace(label_names=None, n_labels=4, void=[3],
                             label_table={0: 0, 1: 1, 2: 2, 255: 3})
    assert scoring.label_names(config) == ['0', '1', '2', '255']
    for words, expected in ((None, {3}), (['1'], {1, 3}), (['255'], {3}), (['none'], set())):
        assert scoring.void_labels(config, words) == expected
    config.label_names = ['road', 'screen', 'screen', 'ignored']
    assert scoring.label_names(config) == ['road', 'screen (1)', 'screen (2)', 'ignored']
    assert scoring.void_labels(config, ['road']) == {0, 3}
    config.label_table = {10: 0, 0: 1, 20: 2, 255: 3}       # a name is no id
    assert scoring.void_labels(config, ['road']) == scoring.void_labels(config, ['10']) == {0, 3}


def test_bounds_of_the_bootstrap():
    """They hold the score, and are as wide as the spread of means of so many pictures."""
    rng = np.random.default_rng(0)
    correct = rng.random(400) < 0.7
    counts = [measures.count_pixels(torch.tensor([[int(x)]]), torch.tensor([[1]]), set(), 2)
              for x in correct]
    scores = measures.segmentation_scores(counts, 'ab')
    low, high = scores['bounds']['pixel_accuracy']
    assert low < scores['pixel_accuracy'] < high
    assert high - low == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 400) ** 0.5, rel=0.15)


def test_reconstruction_by_hand():
    rng = np.random.default_rng(0)
    real = torch.from_numpy(rng.integers(0, 255, (3, 20, 24), np.uint8))
    assert measures.reconstruction(real, real) == pytest.approx(
        {'l1': 0, 'psnr': np.inf, 'ssim': 1})
    fake = torch.from_numpy(rng.integers(0, 255, (3, 20, 24), np.uint8))
    found = measures.reconstruction(fake, real)
    x, y = fake.numpy().astype(float), real.numpy().astype(float)
    assert found['l1'] == pytest.approx(np.abs(x - y).mean(), rel=1e-4)
    assert found['psnr'] == pytest.approx(20 * np.log10(255 / np.sqrt(((x - y) ** 2).mean())),
                                          rel=1e-4)

    gaussian = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5 ** 2))
    window = np.outer(gaussian, gaussian) / gaussian.sum() ** 2
    values = []
    for c in range(3):
        for i in range(10):
            for j in range(14):
                a, b = x[c, i:i + 11, j:j + 11], y[c, i:i + 11, j:j + 11]
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                cov = (window * (a - ma) * (b - mb)).sum()
                values.append((2 * ma * mb + 6.5025) * (2 * cov + 58.5225)
                              / ((ma ** 2 + mb ** 2 + 6.5025) * (va + vb + 58.5225)))
    assert found['ssim'] == pytest.approx(np.mean(values), rel=1e-4)
    assert measures.reconstruction(fake[:, :3, :3], real[:, :3, :3])['l1'] > 0  # below the window


def test_diversity_by_hand():
    """An object of two pixels counts as much as the rest."""
    regions = torch.tensor([[5, 5, 5, 9], [5, 5, 5, 9]])
    black, other = torch.zeros(3, 2, 4, dtype=torch.uint8), torch.zeros(3, 2, 4, dtype=torch.uint8)
    other[:, :, 3] = 30
    assert measures.diversity([black, other], regions) == pytest.approx(
        {'diversity': 15}, abs=1e-3)
    assert measures.diversity([black, other, other], regions) == pytest.approx(
        {'diversity': 10}, abs=1e-3)


@pytest.mark.parametrize('n, m', [(40, 30), (3, 2)])        # more and fewer vectors than features
def test_frechet_distance_by_hand(n, m):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 5)) * rng.random(5), rng.normal(size=(m, 5)) + 0.3
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(cov_x @ cov_y).astype(complex)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y) - 2 * roots.sum()
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    assert measures.frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert measures.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert measures.frechet_distance(x[:1], y[:1]) == pytest.approx(
        float((x[0] - y[0]).square().sum()))                # one picture has no covariance


def test_held_out_pictures_are_spread():
    seen, held = inspection.hold_out(list(range(10)), 2)
    assert held == [2, 7] and sorted(seen + held) == list(range(10))
    assert inspection.hold_out([1, 2], 0) == ([1, 2], [])


# -------------------------------------------------------------------------------------- commands

@pytest.fixture
def run(trained, tmp_path):
    """A copy of a trained run that may be written to, in runs/street."""
    shutil.copytree(trained, tmp_path / 'runs' / 'street')
    return tmp_path / 'runs' / 'street'


def refused(command, *words):
    code, out, err = command(*words)
    assert code == 2, (out, err)
    lines = [line for line in err.splitlines() if not line.startswith('note: ')]
    assert len(lines) == 1, err
    return lines[0]


def test_evaluate(brief_judge, command, run, scenes, tmp_path):
    code, out, err = command('evaluate', '--run', run, '--write', 'pictures')
    assert code == 0, err
    lines = out[out.index('protocol: '):].splitlines()
    assert '64x32; void unlabeled, ' in lines[0] and 'styles main' in lines[0]
    assert [line.split('  ')[0] for line in lines[2:5]] == [
        'real photographs', 'street, step 6, average', 'flat mean colours']
    scores = json.loads((run / 'evaluation' / 'scores.json').read_text())
    real, made, flat = scores['rows']
    assert real['l1'] == 0 and made['l1'] > 0 and made['diversity'] > 0
    assert flat['l1'] < made['l1']                          # which is untrained
    assert Image.open(run / 'evaluation' / 'sheet.png').size == (4 * 64, 2 * 32)
    page = (run / 'index.html').read_text()                 # the scores, and the styles made for it
    assert f'<td>{made["l1"]:.1f}</td>' in page and 'IoU of each label' in page
    assert '<h2>Styles' in page
    found = json.loads(command('info', run, '--json')[1])
    assert found['evaluation'] == scores and f'L1 {made["l1"]:.1f}' in ' '.join(
        command('info', run)[1].split())
    for place in ('real', 'fake'):
        assert [path.name for path in sorted((tmp_path / 'pictures' / place).iterdir())] == [
            'toy_0000.png', 'toy_0001.png']

    # The judge is kept; styles change the picture, and so does the average.
    looks = [(tmp_path / 'pictures' / 'fake' / 'toy_0000.png').read_bytes()]
    for flags in (('--styles', 'encoded'), ('--styles', 'sampled'), ('--no-average',)):
        code, out, err = command('evaluate', '--run', run, *flags, '--write', 'other')
        assert code == 0 and 'training a judge' not in out, err
        looks.append((tmp_path / 'other' / 'fake' / 'toy_0000.png').read_bytes())
    assert len({*looks}) == 4
    code, _, err = command('evaluate', '--run', run, '--split', 'train', '--write', 'other')
    assert code == 0 and 'has 4 pictures of another evaluation' in refused(
        command, 'evaluate', '--run', run, '--write', 'other'), err
    shutil.copytree(run, tmp_path / 'runs' / 'other')
    code, out, err = command('evaluate', '--run', run, 'runs/other', '--write', 'more', '--void',
                             'none', '--size', '32x16')
    assert code == 0 and 'void none' in out and 'other, step 6' in out, err
    assert (tmp_path / 'more' / 'fake-other' / 'toy_0001.png').exists()


def test_frechet_distance_of_pictures(brief_judge, command, run, tmp_path):
    """It is that of the features of the pictures which --write writes."""
    state = random_vgg_weights()
    torch.save(state, 'vgg.pth')
    code, out, err = command('evaluate', '--run', run, '--vgg', 'vgg.pth', '--write', 'pictures')
    assert code == 0 and 'Fréchet' in out, err
    rows = json.loads((run / 'evaluation' / 'scores.json').read_text())['rows']
    assert rows[0]['frechet'] == pytest.approx(0, abs=1e-6) and rows[2]['frechet'] > 0
    vgg = nets.VGG19(state, normalise=True)
    real, fake = (torch.stack([
        measures.mean_features(vgg, data.to_tensor(np.asarray(Image.open(path))))
        for path in sorted(Path('pictures', place).iterdir())]) for place in ('real', 'fake'))
    assert rows[1]['frechet'] == pytest.approx(measures.frechet_distance(fake, real), rel=1e-3)
    code, out, err = command('evaluate', '--run', run, '--vgg', 'vgg.pth', '--judge', 'none')
    assert code == 0 and 'judge none' in out and 'mean IoU' not in out, err
    again = json.loads((run / 'evaluation' / 'scores.json').read_text())['rows']
    assert again[1]['frechet'] == rows[1]['frechet'] and 'mean_iou' not in again[1]


def test_size_may_change_the_proportions(brief_judge, command, scenes, tmp_path):
    """Photographs are checked against the files of the maps, not what those are resized to."""
    code, out, err = command('train', '--data', scenes, *TINY, '--size', '32x32', '--steps', 2,
                             '--evaluate-every', 2, '--run', 'square')
    assert code == 0 and 'mean_iou' in Path('square/scores.csv').read_text(), err
    assert '2 others to look at' in out
    code, out, err = command('evaluate', '--run', 'square')
    assert code == 0 and 'L1' in out, err
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    photo = next((scenes / 'leftImg8bit' / 'val').rglob('*0000*.png'))
    code, out, err = command('generate', '--run', 'square', '--label', label, '--encode', photo,
                             '--size', '32x32', '--out', 'out')
    assert code == 0, err
    Image.new('RGB', (32, 32)).save('other.png')
    assert 'other.png is 32x32 and its label map is 64x32' in refused(
        command, 'generate', '--run', 'square', '--label', label, '--encode', 'other.png',
        '--size', '32x32')
    Path('edits.json').write_text('[{"do": "style", "label": "car", "style": "photo"}]')
    words = ['edit', '--run', 'square', '--label', label, '--size', '32x32', '--script',
             'edits.json', '--out', 'edited', '--photo']
    code, out, err = command(*words, photo)
    assert code == 0, err
    assert 'its label map is 64x32' in refused(command, *words, 'other.png')
    code, out, err = command('train', '--data', scenes, *BARE, '--no-features', '--steps', 1,
                             '--run', 'bare')
    assert code == 0 and 'trained without --features' in refused(
        command, 'evaluate', '--run', 'bare', '--styles', 'sampled'), err


def test_a_new_run_in_a_folder_takes_nothing_from_an_old_one(brief_judge, command, run, scenes):
    command('evaluate', '--run', run)
    for path in checkpoints.list_checkpoints(run):
        path.unlink()
    code, _, err = command('train', '--data', scenes, '--run', run, *TINY, '--steps', 1)
    assert code == 0 and not list(run.glob('styles*')), err
    found = json.loads(command('info', run, '--json')[1])
    assert found['evaluation'] is None and found['styles'] is None


def test_outside_predictions(command, run, scenes, tmp_path):
    """Label maps that somebody's network predicted: true ones have all pixels right."""
    pairs = layouts.find_pairs(scenes, 'val')[1]
    for place in ('real', 'fake'):
        (tmp_path / 'found' / place).mkdir(parents=True)
        for pair in pairs:
            shutil.copy(pair.label, tmp_path / 'found' / place / f'{pair.name}.png')
    words = ['evaluate', '--run', run, '--predictions', 'found']
    code, out, err = command(*words)
    assert code == 0, err
    rows = json.loads((run / 'evaluation' / 'scores.json').read_text())['rows']
    assert [row['mean_iou'] for row in rows] == [1, 1]      # no floor: nobody predicted its labels

    one = tmp_path / 'found' / 'fake' / 'toy_0001.png'
    Image.new('L', (8, 8)).save(one)
    assert 'toy_0001.png: is 8x8, the pictures are 64x32' in refused(command, *words)
    Image.new('L', (64, 32), 99).save(one)
    assert 'toy_0001.png: 99 at x=0, y=0: predictions hold' in refused(command, *words)
    one.unlink()
    assert 'fake/toy_0001.png: no such prediction' in refused(command, *words)
    shutil.rmtree(tmp_path / 'found' / 'real')
    assert 'real/toy_0000.png: no such prediction' in refused(command, *words)


def test_evaluate_says_what_is_wrong(brief_judge, command, run, scenes, tmp_path):
    words = ['evaluate', '--run', run]
    assert "no label maps of the split 'nights'" in refused(command, *words, '--split', 'nights')
    assert 'nowhere: no such folder' in refused(command, *words, '--data', 'nowhere')
    assert '--void 99: no such label; expected numbers from 0 to 34' in refused(
        command, *words, '--void', '99')
    assert '--void and --judge none' in refused(command, *words, '--judge', 'none', '--void', '7')
    assert '--judge and --predictions' in refused(command, *words, '--judge', 'a', '--predictions',
                                                  'b')
    (tmp_path / 'text.pt').write_text('no judge')
    assert 'text.pt: not a judge' in refused(command, *words, '--judge', 'text.pt')
    said = refused(command, *words, '--checkpoint', 'best')
    assert 'street/best.pt: ' in said and 'train --evaluate-every N' in said

    rng = np.random.default_rng(0)
    for split, number in (('train', 1), ('val', 2)):
        for i in range(number):
            for kind, pixels in (('label', rng.integers(0, 3, (32, 64), np.uint8)),
                                 ('img', rng.integers(0, 255, (32, 64, 3), np.uint8))):
                path = tmp_path / 'own' / f'{split}_{kind}' / f'{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    code, _, err = command('train', '--data', 'own', '--instances', 'components', '--run', 'one',
                           '--steps', 1, *TINY, '--workers', 0)
    assert code == 0, err
    assert 'own: 1 training photograph, a judge needs 2' in refused(
        command, 'evaluate', '--run', 'one')
    assert 'one: its labels or channels differ from those of' in refused(
        command, 'evaluate', '--run', run, 'one')
    command('evaluate', '--run', run, '--judge', 'street.pt')
    _, _, err = command('evaluate', '--run', run, '--judge', 'street.pt', '--void', 'none',
                        '--split', 'train')
    assert 'note: street.pt: this judge was trained with other void labels' in err
    stored = torch.load('street.pt')
    del stored['about']['checksum']
    torch.save(stored, 'less.pt')
    assert 'less.pt: not a judge written by evaluate' in refused(command, *words, '--judge',
                                                                    'less.pt')
    assert 'was trained on 6 of the 6 pictures that are scored' in err
    moved = shutil.copytree(scenes, tmp_path / 'moved')
    _, _, err = command('evaluate', '--run', run, '--judge', 'none', '--data', moved, '--split',
                        'train')
    assert 'was trained on 6 of the 6 pictures that are scored' in err
    for path in moved.glob('gtFine/val/*/*_instanceIds.png'):
        path.unlink()
    assert 'moved: has no instance maps, and ' in refused(
        command, 'evaluate', '--run', run, '--judge', 'none', '--data', moved)
    assert '--run: ' in refused(command, 'evaluate', '--run', run, run)
    every = [str(i) for i in range(35)]
    assert 'all 35 labels are void' in refused(command, 'evaluate', '--run', run, '--void', *every)
    assert '--vgg' in refused(command, 'evaluate', '--run', run, '--vgg', 'nowhere.pth')
    assert 'street.pt: this judge has 35 labels of Cityscapes, the run has 3 of flat' in refused(
        command, 'evaluate', '--run', 'one', '--judge', 'street.pt')
    assert not (tmp_path / 'one' / 'evaluation').exists()


def test_scores_while_training(brief_judge, command, scenes, tmp_path):
    words = ['train', '--data', scenes, '--steps', 6, '--evaluate-every', 2, '--save-every', 2,
             '--keep', 9, *TINY, '--workers', 0, '--device', 'cpu']
    code, out, err = command(*words, '--run', 'runs/a')
    assert code == 0 and 'other pictures: ' not in out, err      # of so short a run
    rows = list(csv.DictReader(open('runs/a/scores.csv')))
    assert [row['step'] for row in rows] == ['2', '4', '6']
    best = max(rows, key=lambda row: (float(row['mean_iou']), -int(row['step'])))
    _, kept = runs.read_run(tmp_path / 'runs' / 'a', which='best')
    assert kept['step'] == int(best['step']) and 'optimizers' not in kept
    one = scenes / 'gtFine' / 'val' / 'toy' / 'toy_0000_gtFine_labelIds.png'
    code, out, err = command('generate', '--run', 'runs/a', '--checkpoint', 'best', '--label', one)
    assert code == 0 and (tmp_path / 'runs' / 'a' / 'styles-best.npz').exists(), err

    shutil.copytree('runs/a', 'runs/b')
    for path in checkpoints.list_checkpoints('runs/b')[-2:]:
        path.unlink()
    code, out, err = command('train', '--resume', 'runs/b', '--device', 'cpu')
    assert code == 0 and 'going on at step 2' in out, err
    assert open('runs/b/scores.csv').read() == open('runs/a/scores.csv').read()

    torch.save(random_vgg_weights(), 'vgg.pth')
    code, out, err = command(*words, '--vgg', 'vgg.pth', '--run', 'runs/vgg')
    rows = list(csv.DictReader(open('runs/vgg/scores.csv')))
    assert code == 0 and 'mean_iou' in rows[0], err
    best = min(rows, key=lambda row: (float(row['frechet']), int(row['step'])))
    assert runs.read_run('runs/vgg', which='best')[1]['step'] == int(best['step'])
    code, out, err = command('evaluate', '--run', 'runs/vgg', '--vgg', 'vgg.pth', '--out', 'out')
    last = json.loads(Path('out/scores.json').read_text())['rows'][1]
    assert code == 0 and last['frechet'] == pytest.approx(float(rows[-1]['frechet']), rel=1e-3)

    assert '--hold-out 6: there are 6 pictures' in refused(
        command, *words, '--hold-out', 6, '--run', 'runs/c')
    assert '1 training photograph, a judge needs 2; leave --evaluate-every out' in refused(
        command, *words, '--hold-out', 5, '--run', 'runs/c')
    code, out, err = command(*words, '--hold-out', 3, '--run', 'vgg.pth/run')
    assert code == 2 and 'vgg.pth/run: cannot be made' in err and err.count('\n') == 1
    shutil.copytree(scenes, 'alone')
    shutil.rmtree('alone/gtFine/val')
    words[2] = 'alone'
    assert 'alone: no split val or test to score; use --hold-out' in refused(
        command, *words, '--run', 'x')
    code, out, err = command(*words, '--hold-out', 2, '--run', 'runs/d')
    assert code == 0, err
    code, out, err = command('evaluate', '--run', 'runs/d')
    assert code == 0 and 'split held' in out and ' 2 pictures' in out, err
    others = shutil.copytree(scenes, tmp_path / 'others')
    next(others.glob('leftImg8bit/train/*/*')).unlink()
    next(others.glob('gtFine/train/*/*_labelIds.png')).unlink()
    code, out, err = command('evaluate', '--run', 'runs/d', '--data', others, '--judge', 'none')
    assert code == 0 and 'split val' in out, err            # only names are those held out
    assert '--hold-out 3: runs/d was trained with --hold-out 2' in refused(
        command, 'finetune', '--from', 'runs/d', '--hold-out', 3)
    code, out, err = command('cluster', '--run', 'runs/d')
    counted = np.load('runs/d/styles.npz')['counts'].sum()
    held = checkpoints.newest_checkpoint('runs/d')[1]['config']['training']['held']
    assert len(held) == 2
    for path in Path('alone').rglob('*'):
        if path.is_file() and any(path.name.startswith(name) for name in held):
            path.unlink()                                   # they make no difference
    code, out, err = command('cluster', '--run', 'runs/d')
    assert code == 0 and np.load('runs/d/styles.npz')['counts'].sum() == counted, err
    os.rename('alone', 'elsewhere')
    assert 'runs/d: its data set' in (err := refused(command, 'evaluate', '--run', 'runs/d'))
    assert 'alone is not there; name it with --data DIR' in err


def test_a_run_of_many_sizes_makes_pictures_at_their_own(command, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for i, (w, h) in enumerate([(64, 32), (48, 48), (64, 32)]):
            for role, shape in (('label', (h, w)), ('img', (h, w, 3))):
                path = tmp_path / 'own' / f'{split}_{role}' / f'{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 3, shape, np.uint8)).save(path)
    code, _, err = command('train', '--data', 'own', '--steps', 1, *BARE, '--size', 'native',
                           '--crop', '32x32', '--workers', 0)
    assert code == 0, err
    shapes, synthesise = [], generate.synthesise
    monkeypatch.setattr(generate, 'synthesise', lambda run, scene, *more: (
        shapes.append(scene.label.shape[-2:]), synthesise(run, scene, *more))[1])
    code, out, err = command('evaluate', '--judge', 'none')
    assert code == 0 and '64x32' in out and {*shapes} == {(32, 64), (48, 48)}, err


def test_pictures_to_pictures_are_only_compared(command, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ('train_A', 'train_B', 'val_A', 'val_B'):
        for i in range(2):
            path = tmp_path / 'ab' / folder / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 64, 3), np.uint8)).save(path)
    code, _, err = command('train', '--data', 'ab', '--steps', 2, '--evaluate-every', 2, *BARE,
                           '--workers', 0)
    assert code == 0 and 'psnr' in open('runs/ab/scores.csv').readline(), err
    code, out, err = command('evaluate')
    assert code == 0 and 'judge none' in out and 'flat' not in out, err
