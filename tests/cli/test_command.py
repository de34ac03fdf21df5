"""The command as a user runs it, on built-in scenes and on real pictures."""
import csv
import functools
import json

import numpy as np
from PIL import Image
import pytest
import torch

from app.datasets import decoding, layouts
from app.datasets.pairs import PairReader, open_dataset
from app.demo import streets
from app.runs import checkpoints, memory, pictures, run_styles, runs
from conftest import BARE, SIMULATED, TINY, equal
import data
import generate
import styles

CPU = torch.device('cpu')


def weights(run):
    return checkpoints.newest_checkpoint(run)[1]['weights']


def test_train_writes_the_run_folder(p2phd, scenes, tmp_path):
    log = p2phd('train', '--data', f'{scenes}/', '--steps', 6, '--sample-every', 4, *TINY)
    run = tmp_path / 'runs' / 'street'
    assert ('6 pairs of the split train, 35 labels, instance maps, the encoder is trained as well'
            in ' '.join(log.split()))
    assert 'step 6/6' in log
    config = json.loads((run / 'config.json').read_text())
    assert config['size'] == [64, 32] and config['features'] is True
    assert config['n_labels'] == 35 and config['training']['lr'] == 2e-4

    rows = list(csv.DictReader(open(run / 'log.csv')))
    assert [row['step'] for row in rows] == ['2', '4', '6']
    assert all(float(row['feature_matching']) > 0 for row in rows)
    assert [float(row['lr']) for row in rows] == pytest.approx([2e-4, 2e-4, 2e-4 / 3], rel=1e-4)
    for step in (4, 6):
        assert Image.open(run / 'samples' / f'{step:07d}.png').size == (4 * 64, 4 * 32)
    assert 'holds a trained run already' in p2phd('train', '--data', scenes, *TINY, code=2)


@pytest.mark.skipif(SIMULATED, reason='test_log_means... makes styles on the simulated device')
def test_train_and_generate_alone_make_styles(shell, scenes, tmp_path):
    """The two shortest commands; `generate` clusters the styles by itself."""
    (tmp_path / 'street').symlink_to(scenes)
    label = layouts.find_pairs(scenes, 'val')[1][0].label
    (tmp_path / 'map.png').write_bytes(label.read_bytes())
    shell('train', '--data', 'street/', '--steps', 2, *TINY)
    out = shell('generate', '--label', 'map.png', '--sample')
    assert 'clustering' in out
    assert Image.open(tmp_path / out.splitlines()[-1]).size == (64, 32)


def test_cluster_counts_every_instance(p2phd, trained, scenes):
    p2phd('cluster', '--run', trained, '--data', scenes, '--k', 4)
    made = np.load(trained / 'styles.npz', allow_pickle=False)
    assert made['centres'].shape == (35, 4, 3) and made['label_names'][26] == 'car'

    expected = np.zeros(35, int)
    for pair in layouts.find_pairs(scenes)[1]:
        label, inst = decoding.read_map(pair.label), decoding.read_map(pair.inst)
        for i in np.unique(inst):
            expected[np.bincount(label[inst == i]).argmax()] += 1
    assert made['counts'].sum(1).tolist() == expected.tolist()
    assert ((made['counts'] > 0).sum(1) <= np.minimum(expected, 4)).all()
    assert 'is that large' in p2phd('cluster', '--run', trained, '--data', scenes,
                                    '--min-pixels', 10 ** 6, code=2)


def test_cluster_has_the_seed_of_the_run(command, scenes):
    for words in (['train', '--data', scenes, *TINY, '--steps', 1, '--seed', 5, '--run', 'run'],
                  ['cluster', '--run', 'run']):
        code, _, err = command(*words)
        assert code == 0, err
    assert np.load('run/styles.npz')['seed'] == 5


def test_generate(p2phd, trained, scenes, tmp_path):
    maps = scenes / 'gtFine' / 'val'

    def pictures(*words):
        out = p2phd('generate', '--run', trained, '--out', tmp_path / 'out', *words)
        return [np.asarray(Image.open(line)) for line in out.splitlines() if line.endswith('.png')]

    first = pictures('--label', maps, '--inst', maps, '--sample', '--n', 3, '--seed', 7)
    assert len(first) == 6 and all(picture.shape == (32, 64, 3) for picture in first)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[1], first[2])
    again = pictures('--label', maps, '--inst', maps, '--sample', '--n', 3, '--seed', 7)
    assert all(map(np.array_equal, first, again))
    other = pictures('--label', maps, '--inst', maps, '--sample', '--n', 3, '--seed', 8)
    assert not np.array_equal(first[0], other[0])

    one = maps / 'toy' / 'toy_0000_gtFine_labelIds.png'
    plain, = pictures('--label', one)
    styled, = pictures('--label', one, '--style', 'road=1', '11=0')
    assert not np.array_equal(plain, styled)
    photo = scenes / 'leftImg8bit' / 'val' / 'toy' / 'toy_0000_leftImg8bit.png'
    encoded, = pictures('--label', one, '--encode', photo)
    assert not np.array_equal(plain, encoded)
    both, = pictures('--label', one, '--encode', photo, '--style', 'building=0')
    assert not np.array_equal(both, encoded)
    small, = pictures('--label', one, '--size', '40x24')
    assert small.shape == (24, 40, 3)

    for w, h in ((75, 41), (1, 1), (3, 200)):               # not multiples of 4, and tiny
        odd = tmp_path / 'odd.png'
        Image.open(one).resize((w, h), 0).save(odd)
        picture, = pictures('--label', odd, '--sample')
        assert picture.shape == (h, w, 3)


def test_generate_names_file_value_and_remedy(p2phd, trained, scenes, tmp_path):
    one = scenes / 'gtFine' / 'val' / 'toy' / 'toy_0000_gtFine_labelIds.png'
    Image.new('L', (8, 8), 77).save(tmp_path / 'high.png')
    Image.new('RGB', (8, 8), (9, 0, 0)).save(tmp_path / 'rgb.png')
    (tmp_path / 'text.png').write_text('no picture')
    (tmp_path / 'cut.png').write_bytes(one.read_bytes()[:200])
    (tmp_path / 'broken').mkdir()
    newest = checkpoints.list_checkpoints(trained)[-1]
    (tmp_path / 'broken' / newest.name).write_bytes(newest.read_bytes()[:5000])
    for name in ('a/map.png', 'b/map.png', 'empty/checkpoint-0000006.pt'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(one.read_bytes() if name.endswith('png') else b'')
    Image.new('L', (64, 64)).save(tmp_path / 'square.png')

    for words, facts in (
            (('--label', 'none.png'), ['none.png']),
            (('--label', 'high.png'), ['high.png', 'label 77', 'x=0, y=0']),
            (('--label', 'rgb.png'), ['rgb.png', 'RGB', '--palette FILE']),
            (('--label', 'text.png'), ['text.png', 'picture']),
            (('--label', 'cut.png'), ['cut.png', 'damaged']),
            (('--label', one, '--n', '2'), ['--n 2', '--sample']),
            (('--label', one, '--style', 'car=99'), ['--style car=99', 'car', '0 to']),
            (('--label', one, '--style', 'dragon=1'), ['--style dragon=1', 'car']),
            (('--label', one, '--run', 'nowhere'), ['nowhere', 'no checkpoint']),
            (('--label', one, '--run', 'broken'), ['broken/checkpoint-0000006.pt', 'damaged']),
            (('--label', one, '--run', 'empty'), ['empty/checkpoint-0000006.pt', 'cut short']),
            (('--label', one, '--style', 'car'), ['--style car', 'LABEL=K']),
            (('--label', one, '--inst', 'square.png'), ['square.png', '64x64', '64x32']),
            (('--label', one, '--encode', 'square.png'), ['square.png', '64x64', '64x32']),
            (('--label', 'a', 'a'), [' a/map.png and a/map.png', 'same name']),
            (('--label', 'a', '--out', 'a'), ['--out a']),
            (('--label', one, '--out', 'text.png'), ['text.png', 'folder']),
            (('--label', one, '--device', 'cuda'), ['--device cuda', 'CPU'])):
        if 'cuda' in words and torch.cuda.is_available():
            continue
        stderr = p2phd('generate', '--run', trained, *words, code=2)
        assert all(fact in stderr for fact in facts), stderr

    p2phd('generate', '--run', trained, '--label', 'a', 'b', '--out', 'both')
    assert sorted(path.relative_to(tmp_path / 'both').as_posix()
                  for path in (tmp_path / 'both').rglob('*.png')) == [
        'a/map_generated.png', 'b/map_generated.png']


def test_labels_without_styles_are_named(command, trained, tmp_path):
    label = np.full((32, 64), 7, np.uint8)
    label[:8] = 31
    Image.fromarray(label).save(tmp_path / 'train.png')
    code, _, err = command('generate', '--run', trained, '--label', 'train.png', '--out', '.')
    assert code == 0
    assert 'train.png: no styles for train, which the training data lacks' in err
    assert 'other ids' in err


def test_pictures_that_need_more_memory_than_is_free(p2phd, trained, scenes, monkeypatch):
    label = next(scenes.rglob('*labelIds.png'))
    words = ['generate', '--run', trained, '--label', label, '--out', 'made']
    assert '--size 32000x32000: a picture of 32000x32000 takes about ' in p2phd(
        *words, '--size', '32000x32000', code=2)
    monkeypatch.setattr(memory, 'LARGE_PIXELS', 0)
    p2phd(*words)                                           # enough memory
    monkeypatch.setattr(memory, 'free_memory', lambda device: 1000)
    assert f'{label}: a picture of 64x32 takes about 0 GiB' in p2phd(*words, code=2)


def test_log_means_are_of_the_steps_since_the_last_row(p2phd, scenes, tmp_path):
    """Also when a run ends in the middle of the rows and is lengthened; and styles made before that
    are made again."""
    words = ['--data', scenes, '--size', '64x32', *TINY[2:-2], '--save-every', 100]
    p2phd('train', *words, '--steps', 4, '--run', 'a', '--log-every', 1)
    p2phd('train', *words, '--steps', 4, '--run', 'b', '--log-every', 3)
    a, b = (list(csv.DictReader(open(tmp_path / run / 'log.csv'))) for run in 'ab')
    assert [row['step'] for row in b] == ['3', '4'] and b[1]['gan'] == a[3]['gan']
    mean = sum(float(row['gan']) for row in a[:3]) / 3
    assert float(b[0]['gan']) == pytest.approx(mean, rel=1e-4)

    maps = ['--label', scenes / 'gtFine' / 'val', '--run', 'a']
    assert 'clustering' in p2phd('generate', *maps) and 'clustering' not in p2phd('generate', *maps)
    p2phd('train', '--resume', '--run', 'a', '--steps', 6)
    assert 'clustering' in p2phd('generate', *maps)


def test_finetune_goes_on_as_the_run_did(p2phd, scenes, tmp_path):
    p2phd('train', '--data', scenes, '--steps', 2, '--gan', 'vanilla', '--lr', 1e-4, '--batch', 2,
          '--no-flip', *TINY)
    p2phd('finetune', '--from', 'runs/street', '--steps', 2, '--batch', 1, '--fix-global', 0)
    # It resumes the newest run.
    out = p2phd('train', '--resume', '--steps', 4)
    assert 'runs/street-128x64: going on at step 2 of 4' in out
    config = json.loads((tmp_path / 'runs' / 'street-128x64' / 'config.json').read_text())
    training = config['training']
    assert [training[name] for name in ('gan', 'lr', 'batch', 'flip', 'log_every')] == [
        'vanilla', 1e-4, 1, False, 50]


def moved(before, after, name):
    return not torch.equal(before['G'][name], after['G'][name])


def test_finetuning_moves_the_global_generator_once_it_is_unfrozen(p2phd, trained, scenes,
                                                                          tmp_path):
    """Frozen for one epoch (six steps), trained jointly from then on, also when the run is resumed
    after that step."""
    before = checkpoints.newest_checkpoint(trained)[1]['average']      # which it starts from
    words = ['finetune', '--from', trained, '--fix-global', 1, '--n-blocks-local', 1,
             '--log-every', 2]
    p2phd(*words, '--steps', 6, '--run', 'frozen')
    p2phd(*words, '--steps', 8, '--run', 'joint')
    frozen, joint = weights(tmp_path / 'frozen'), weights(tmp_path / 'joint')
    inner = [name for name in joint['G'] if name.startswith('model.') and name.endswith('weight')]
    assert inner and not any(moved(before, frozen, name) for name in inner)
    assert all(moved(before, joint, name) for name in inner)
    assert moved(frozen, joint, 'model1_1.1.weight')
    assert equal(before['E'], joint['E'])                   # the encoder stays as it was trained
    config = json.loads((tmp_path / 'joint' / 'config.json').read_text())
    assert config['size'] == [128, 64] and config['encoder_scale'] == 2

    # Longer: now past the frozen epoch.
    p2phd('finetune', '--resume', '--run', 'frozen', '--steps', 8)
    later = weights(tmp_path / 'frozen')
    assert all(moved(before, later, name) for name in inner)

    p2phd('finetune', '--from', 'joint', '--steps', 1, '--fix-global', 0, '--run', 'third',
          '--log-every', 1)
    assert json.loads((tmp_path / 'third' / 'config.json').read_text())['n_enhancers'] == 2
    out = p2phd('generate', '--run', 'third', '--label', scenes / 'gtFine' / 'val', '--sample',
                '--size', '256x128')
    assert Image.open(tmp_path / out.splitlines()[-2]).size == (256, 128)


def test_finetuned_encoder_paints_the_vectors_of_its_own_size(trained, scenes):
    """What the large stage sees of an instance is what the encoder makes of it at the size it was
    trained at."""
    state = runs.load_run(trained, CPU)
    dataset = open_dataset(layouts.find_pairs(scenes)[1], PairReader(state.config, (128, 64)))
    item = {role: tensor[None] for role, tensor in dataset[0, 0].items()}
    label, inst, image, _ = data.to_device(item, CPU)
    painted = styles.encode(state.E, image, inst, scale=2)
    small = torch.nn.functional.interpolate(image, scale_factor=0.5, mode='bicubic', antialias=True)
    at_its_size = state.E(small, inst[..., ::2, ::2])
    assert painted.shape == (1, 3, 64, 128)
    # Nearest pixels against shares of pixels.
    assert (painted[..., ::2, ::2] - at_its_size).abs().mean() < 2e-3
    at_full_size = state.E(image, inst)
    assert (painted - at_full_size).abs().mean() > 5e-3
    for i in inst.unique():
        assert painted[:, :, inst[0, 0] == i].std(2).nan_to_num().max() < 1e-6


def test_other_kinds_of_data(p2phd, tmp_path):
    """Pictures to pictures; label maps without instances; components of the labels as instances;
    native size."""
    rng = np.random.default_rng(0)
    for i in range(2):
        for folder, pixels in (('train_A', (48, 64, 3)), ('train_B', (48, 64, 3))):
            path = tmp_path / 'pairs' / folder / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, pixels, np.uint8)).save(path)
        for folder, pixels in (('train_label', rng.integers(0, 4, (6, 8), np.uint8)),
                               ('train_img', rng.integers(0, 255, (6, 8, 3), np.uint8))):
            path = tmp_path / 'flat' / folder / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((66 + 4 * i, 50), 0).save(path)

    assert 'no labels, no instances' in p2phd('train', '--data', 'pairs', '--steps', 2, *BARE)
    p2phd('generate', '--label', tmp_path / 'pairs' / 'train_A', '--run', 'runs/pairs')

    assert '4 labels, no instances' in p2phd('train', '--data', 'flat', '--steps', 2, *BARE)
    out = p2phd('generate', '--label', tmp_path / 'flat' / 'train_label' / '1.png',
                '--run', 'runs/flat')
    assert Image.open(tmp_path / out.splitlines()[-1]).size == (70, 50)
    assert 'trained without --features' in p2phd(
        'generate', '--label', 'flat/train_label', '--run', 'runs/flat', '--sample', code=2)
    assert 'has no instance maps' in p2phd('train', '--data', 'flat', '--features', *TINY,
                                           '--run', 'x', code=2)

    native = [*TINY]
    native[native.index('--size') + 1] = 'native'
    log = p2phd('train', '--data', 'flat', '--instances', 'components', '--steps', 3, *native,
                '--run', 'runs/components')
    assert 'connected components as instances, the encoder is trained as well' in ' '.join(
        log.split())
    p2phd('generate', '--label', 'flat/train_label', '--run', 'runs/components', '--sample')

    p2phd('train', '--data', 'flat', '--steps', 2, '--model', 'local', '--n-blocks-local', 1,
          '--gan', 'vanilla', *BARE, '--precision', 'bf16', '--run', 'runs/local')


def test_train_names_value_and_remedy_and_leaves_nothing_behind(p2phd, scenes, tmp_path):
    (tmp_path / 'empty').mkdir()
    for words, facts in (
            (('--data', 'missing'), ['missing', 'no such folder']),
            (('--data', 'empty'), ['empty', 'train_label/']),
            ((), ['--data']),
            (('--data', scenes, '--size', '62x32'), ['--size 62x32', 'multiples of 4', '64x32']),
            (('--data', scenes, '--size', 'big'), ["'big'", 'WIDTHxHEIGHT', 'native']),
            (('--data', scenes, '--steps', '0'), ["'0'", 'from 1']),
            (('--data', scenes, '--crop', '128x128'), ['--crop 128x128', '--size 64x32']),
            (('--data', scenes, '--lr', '-1'), ['--lr', "'-1'", 'between 0 and 1']),
            (('--data', scenes, '--seed', 10 ** 20), ['--seed', str(10 ** 20)]),
            (('--data', scenes, '--epochs', 0, '--decay-epochs', 0), ['--epochs 0', '--steps']),
            (('--data', scenes, '--n-scales', 8), ['--size 64x32', 'at least 256', '256x256']),
            (('--data', scenes, '--ngf', 10 ** 9), ['--ngf', "'1000000000'", '1 to 4096']),
            (('--data', scenes, '--vgg', 'missing.pth'), ['--vgg', 'missing.pth', 'vgg19'])):
        stderr = p2phd('train', *TINY, *words, code=2)
        assert all(fact in stderr for fact in facts), stderr
    assert not (tmp_path / 'runs').exists()


def test_cityscapes(p2phd, real, tmp_path):
    """The whole chain on real photographs."""
    city = real / 'cityscapes'
    networks = TINY[2:]
    log = p2phd('train', '--data', city, '--size', '128x64', '--steps', 4, *networks)
    assert 'Cityscapes: 5 pairs of the split train, 35 labels, instance maps' in log
    p2phd('finetune', '--from', 'runs/cityscapes', '--steps', 2, '--fix-global', 0,
          '--n-blocks-local', 1)
    p2phd('cluster', '--run', 'runs/cityscapes-256x128', '--data', city)

    maps = city / 'gtFine' / 'val' / 'frankfurt'
    out = p2phd('generate', '--run', 'runs/cityscapes-256x128', '--label', maps, '--inst', maps,
                '--sample', '--n', 2, '--size', '256x128')
    *made, gallery = out.splitlines()
    assert gallery.endswith('generated/index.html')
    assert len(made) == 14 and all(Image.open(tmp_path / path).size == (256, 128) for path in made)
    one = maps / 'frankfurt_000000_000576_gtFine_labelIds.png'
    out = p2phd('generate', '--run', 'runs/cityscapes', '--label', one)
    assert Image.open(tmp_path / out.splitlines()[-1]).size == (2048, 1024)


@pytest.mark.skipif(SIMULATED, reason='takes long on the simulated CUDA device')
def test_a_sampled_car_takes_the_colour_of_its_cluster(p2phd, tmp_path, monkeypatch):
    """The paint of a built-in car is in its photograph alone. So the clusters of the car label must
    be of one paint each, and a car in the style of a cluster must come out in that paint. Three of
    the paints, because so short a training does not tell all seven apart."""
    monkeypatch.setattr(streets, 'CAR_COLOURS', streets.CAR_COLOURS[[0, 1, 3]])
    monkeypatch.setattr(streets, 'draw_scene', functools.cache(streets.draw_scene))
    scenes, size, car = tmp_path / 'street', (64, 32), streets.CAR
    streets.write_dataset(scenes, 'train', 32, size)
    p2phd('train', '--data', scenes, '--size', '64x32', '--steps', 200, '--lr', 1e-3, '--ngf', 16,
          '--n-down', 2, '--n-blocks', 2, '--ndf', 16, '--n-scales', 2, '--nef', 8,
          '--n-down-encoder', 1, '--log-every', 100, '--precision', 'fp32')
    p2phd('cluster', '--run', 'runs/street', '--k', 6)
    state = runs.load_run(tmp_path / 'runs' / 'street', CPU, training=False)
    known = run_styles.load_styles(tmp_path / 'runs' / 'street', state.config)
    centres = torch.from_numpy(known['centres'][car])

    paints = np.zeros((len(centres), len(streets.CAR_COLOURS)), int)         # cluster, paint
    looks = [[] for _ in streets.CAR_COLOURS]   # what cars of a paint look like, glass and all
    for i in range(32):
        scene = streets.draw_scene(i, size, 0)
        label, inst, image = (data.to_tensor(array)[None] for array in scene[:3])
        with torch.inference_mode():
            features = styles.encode(state.E, data.to_float(image), inst)[0].numpy()
        for instance, paint in scene.colours.items():
            seen = scene.inst == instance
            if instance // 1000 == car and seen.sum() >= 33:
                vector = torch.from_numpy(features[:, seen].mean(1))
                paints[(centres - vector).square().sum(1).argmin(), paint] += 1
                looks[paint].append(scene.image[seen].mean(0))
    assert paints.max(1).sum() >= 0.9 * paints.sum(), paints

    colours = [[] for _ in centres]         # of the cars of scenes that were never seen
    for i in range(3):
        scene = streets.draw_scene(i, size, seed=1)
        label, inst = (data.to_tensor(array)[None] for array in scene[:2])
        at_hand = generate.make_scene(state.config, label, inst)
        vectors = styles.choose_styles(at_hand.labels, known)
        for k, centre in enumerate(centres):
            vectors[at_hand.labels == car] = centre
            picture = pictures.to_uint8_hwc(generate.synthesise(state, at_hand, vectors))
            colours[k].append(picture[scene.label == car].mean(0))

    # Glass, wheels and light are the same for all paints: what differs from the mean over the
    # paints is compared.
    of_paint = [[] for _ in streets.CAR_COLOURS]
    for seen, paint in zip(colours, paints.argmax(1)):
        of_paint[paint] += seen
    made, real = (np.array([np.mean(seen, 0) for seen in of]) for of in (of_paint, looks))
    made, real = made - made.mean(0), real - real.mean(0)
    alike = made @ real.T / np.linalg.norm(made, axis=1)[:, None] / np.linalg.norm(real, axis=1)
    assert alike.argmax(1).tolist() == list(range(len(alike))), (paints, alike.round(2))
    assert alike.diagonal().min() > 0.7, (paints, alike.round(2))
