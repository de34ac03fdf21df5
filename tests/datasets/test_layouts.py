"""Data sets as they are downloaded, data sets of a user, and bad input.

NYU Depth v2, Helen and the full ADE20K are too large for tests: small folders of the same structure
are made here.
"""
from collections import Counter
from pathlib import Path
import random
import re
import shutil
import struct
import sys
import zlib

import h5py
import numpy as np
from PIL import Image
import pytest
import scipy.io
import torch

from app.common.errors import UserError
from app.datasets import decoding, labels, layouts
from app.datasets.pairs import PairReader, open_dataset
from app.runs import runs
from app.runs.pictures import label_colours
from conftest import BARE, TINY, examine
import data

TINIEST = ['--size', '16x16', *TINY[2:], '--workers', '0', '--device', 'cpu']
NO_ENCODER = ['--size', '16x16', *BARE[2:], '--workers', '0', '--device', 'cpu']


def write(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **kwargs)


@pytest.fixture
def flat(tmp_path):
    """Four 24x20 scenes in the flat layout."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'own'
    for name in ('a', 'b', 'c d', "é'\"x"):
        label = rng.integers(0, 5, (20, 24), np.uint8)
        label[0, 0] = 4
        write(root / 'train_label' / f'{name}.png', label)
        inst = rng.integers(0, 60000, (20, 24)).astype(np.uint16)
        write(root / 'train_inst' / f'{name}.png', inst)
        write(root / 'train_img' / f'{name}.bmp', rng.integers(0, 255, (20, 24, 3), np.uint8))
    return root


def train_and_generate(command, root, label, *flags, tiny=TINIEST):
    """Train twenty steps, then make a picture of `label`. Return what train printed."""
    code, out, err = command('train', '--data', root, '--steps', 20, '--run', 'run', *tiny, *flags)
    assert code == 0, err
    code, made, err = command('generate', '--run', 'run', '--label', label, '--device', 'cpu')
    assert code == 0, err
    assert Image.open(made.splitlines()[-1]).size == decoding.read_header(label).size
    return out


# --------------------------------------------------------------------------------------- layouts

def test_flat_layout_pairs_by_name(flat):
    layout, pairs, problems = layouts.find_pairs(flat)
    assert layout.name == 'flat' and not problems
    assert [pair.name for pair in pairs] == ['a', 'b', 'c d', "é'\"x"]
    assert all(pair.label.stem == pair.inst.stem == pair.image.stem == pair.name for pair in pairs)
    contents = examine(flat)
    assert contents.n_labels == 5 and contents.instances == 'files'
    assert set(contents.sizes.values()) == {(24, 20)}


def test_cityscapes_layout(command, scenes):
    contents = examine(scenes, 'val')
    assert (contents.layout, len(contents.pairs), contents.n_labels) == ('Cityscapes', 2, 35)
    assert contents.label_names[26] == 'car'

    code, out, err = command('check', '--data', scenes)
    assert code == 0 and 'no problems' in out
    assert 'Cityscapes: 6 pairs of the split train, 35 labels, instance maps' in out
    assert 'splits: train (6), val (2); only train was read; use --split for another' in out
    assert 'sizes: 64x32 (6)' in out
    assert re.search(r'labels: .*car \d', out)
    assert re.search(r'instances per picture: \d+ to \d+', out)
    assert '6 pictures: with so few, begin with a trained run' in out
    assert '--augment' not in command('check', '--data', scenes, '--split', 'val')[1]


def test_pictures_to_pictures_of_any_channels(command, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        write(tmp_path / 'ab' / 'train_A' / f'{i}.png', rng.integers(0, 255, (16, 16), np.uint8))
        (tmp_path / 'ab' / 'train_B').mkdir(exist_ok=True)
        values = rng.uniform(-1, 1, (16, 16, 5)).astype(np.float32)
        np.save(tmp_path / 'ab' / 'train_B' / f'{i}.npy', values)
    code, out, err = command('train', '--data', 'ab', '--steps', 2, *NO_ENCODER)
    assert code == 0 and 'A to B: 2 pairs of the split train, no labels, no instances' in out, err
    code, out, err = command('generate', '--label', tmp_path / 'ab' / 'train_A' / '0.png',
                             '--device', 'cpu')
    assert code == 0 and np.load(out.splitlines()[-1]).shape == (16, 16, 5), err


def ade(root, full, rng):
    for i in range(3):
        photo = rng.integers(0, 255, (40, 52, 3), np.uint8)
        if full:                            # classes 3 and 1000, instances 0, 1, 2
            seg = np.zeros((40, 52, 3), np.uint8)
            seg[..., 1] = 3
            seg[:20] = (1000 // 256 * 10, 1000 % 256, 1)
            seg[:10, ..., 2] = 2
            folder = root / 'images' / 'ADE' / 'training' / 'street'
            write(folder / f'ADE_train_{i}_seg.png', seg)
            write(folder / f'ADE_train_{i}.jpg', photo)
            # Parts of objects, not of this method.
            write(folder / f'ADE_train_{i}_parts_1.png', seg)
        else:
            label = rng.integers(0, 151, (40, 52), np.uint8)
            inst = np.stack([label, np.full_like(label, i), np.zeros_like(label)], 2)
            write(root / 'annotations' / 'training' / f'ADE_train_{i}.png', label)
            write(root / 'annotations_instance' / 'training' / f'ADE_train_{i}.png', inst)
            write(root / 'images' / 'training' / f'ADE_train_{i}.jpg', photo)


def test_ade20k_scene_parsing(command, tmp_path):
    ade(tmp_path / 'ade', False, np.random.default_rng(0))
    label = tmp_path / 'ade' / 'annotations' / 'training' / 'ADE_train_1.png'
    out = train_and_generate(command, 'ade', label)
    assert 'ADE20K scene parsing: 3 pairs of the split train, 151 labels, instance maps' in out
    reader = PairReader(runs.load_run(Path('run'), torch.device('cpu')).config)
    ids = reader.read_instances(
        tmp_path / 'ade' / 'annotations_instance' / 'training' / 'ADE_train_1.png')
    assert np.array_equal(ids, decoding.read_map(label) * 256 + 1)


def test_ade20k_full_release(command, tmp_path):
    ade(tmp_path / 'ade', True, np.random.default_rng(0))
    folder = tmp_path / 'ade' / 'images' / 'ADE' / 'training' / 'street'
    seg = folder / 'ADE_train_0_seg.png'
    out = train_and_generate(command, 'ade', seg)
    assert 'ADE20K full: 3 pairs of the split train, 2 labels, instance maps' in out

    c = runs.load_run(Path('run'), torch.device('cpu')).config
    assert c.label_table == {3: 0, 1000: 1}
    label, inst = PairReader(c).read_label(seg)[0], PairReader(c).read_instances(seg)
    assert label[0, 0] == 1 and label[-1, 0] == 0
    assert len({inst[0, 0], inst[15, 0], inst[-1, 0]}) == 3


def test_nyu_depth(command, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 895, (4, 20, 24), np.uint16)
    instances = rng.integers(0, 9, (4, 20, 24), np.uint8)
    images = rng.integers(0, 255, (4, 20, 24, 3), np.uint8)
    root = tmp_path / 'nyu'
    root.mkdir()
    # MATLAB's axes: W, H and 3, W, H.
    with h5py.File(root / 'nyu_depth_v2_labeled.mat', 'w') as file:
        file['labels'] = labels.transpose(0, 2, 1)
        file['instances'] = instances.transpose(0, 2, 1)
        file['images'] = images.transpose(0, 3, 2, 1)

    contents = examine(root)
    assert (contents.layout, len(contents.pairs), contents.n_labels) == ('NYU Depth v2', 4, 895)
    assert set(contents.sizes.values()) == {(24, 20)}
    reader, pair = PairReader(contents), contents.pairs[2]
    assert np.array_equal(reader.read_label(pair.label)[0], labels[2])
    assert np.array_equal(reader.read_photo(pair.image), images[2])
    assert np.array_equal(reader.read_instances(pair.inst),
                          labels[2].astype(int) * 256 + instances[2])
    assert reader.read_photo(pair.image, (16, 16)).shape == (16, 16, 3)
    with pytest.raises(UserError, match='one channel of integers, this array has 3'):
        reader.read_label(pair.image)

    scipy.io.savemat(root / 'splits.mat', {'trainNdxs': [[4.0], [1.0]]}, do_compression=True)
    assert sorted(pair.name for pair in layouts.find_pairs(root)[1]) == ['0001', '0004']
    with pytest.raises(UserError, match='classMapping40.mat'):
        examine(root, n_labels=40)
    scipy.io.savemat(root / 'classMapping40.mat',
                     {'mapClass': [[1 + i % 40 for i in range(894)]]})
    contents = examine(root, n_labels=40)
    label, _ = PairReader(contents).read_label(contents.pairs[0].label)
    assert contents.n_labels == 41
    assert np.array_equal(label, np.where(labels[0], 1 + (labels[0].astype(int) - 1) % 40, 0))
    out = train_and_generate(command, root, root / 'nyu_depth_v2_labeled.mat' / 'labels' / '1',
                             '--n-labels', 40)
    assert 'NYU Depth v2: 2 pairs of the split train, 41 labels, instance maps' in out

    for module in ('scipy.io', 'h5py'):
        monkeypatch.setitem(sys.modules, module, None)
        code, out, err = command('check', '--data', root)
        assert code == 2 and f'pip install {module.split(".")[0]}' in err


def test_helen(command, tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / 'helen'
    for face in ('11_1', '22_1', '33_1'):
        write(root / 'images' / f'{face}.jpg', rng.integers(0, 255, (32, 32, 3), np.uint8))
        strength = rng.integers(0, 200, (11, 32, 32)).astype(np.uint8)
        strength[5, :16] = 255                              # a right eye, so to speak
        for i, mask in enumerate(strength):
            write(root / 'labels' / face / f'{face}_lbl{i:02d}.png', mask)

    assert len(layouts.find_pairs(root)[1]) == 3
    dry = ['train', '--data', 'helen', *BARE, '--dry-run']
    assert '3 to train on, 0 others' in command(*dry)[1]    # every split is all of them
    (root / 'exemplars.txt').write_text('1 , 11_1\n2 , 22_1\n')
    (root / 'testing.txt').write_text('1 , 33_1\n')
    assert [pair.name for pair in layouts.find_pairs(root, 'test')[1]] == ['33_1']
    label = layouts.decode_helen_masks(root / 'labels' / '11_1' / '11_1_lbl00.png')[0]
    assert (label[:16] == 5).all() and label.max() == 10
    out = train_and_generate(command, root, root / 'labels' / '33_1' / '33_1_lbl00.png',
                             '--instances', 'components')
    assert '2 to train on, 1 other to look' in command(*dry)[1]
    assert 'Helen: 2 pairs of the split train, 11 labels, connected components as instances' in out


@pytest.mark.parametrize('folder, label, flags, words', [
    ('cityscapes', 'gtFine/val/frankfurt/frankfurt_000000_000576_gtFine_labelIds.png', (),
     'Cityscapes: 5 pairs of the split train, 35 labels, instance maps'),
    ('camvid', 'val_label/0016E5_07959.png', (),
     'flat: 367 pairs of the split train, 12 labels, no instances'),
    ('ade20k', 'annotations/validation/ADE_val_00000002.png', ('--split', 'val'),
     'ADE20K scene parsing: 3 pairs of the split val, 151 labels, no instances'),
    ('coco_stuff', 'val_label/000000000139.png', ('--n-labels', 182),
     'flat: 13 pairs of the split train, 183 labels, instance maps'),
    ('faces', 'train_label/2.png', ('--jitter', 1.2, '--cache', 'cache'),
     'flat: 4 pairs of the split train, 19 labels, no instances')])
def test_real_data(command, real, folder, label, flags, words):
    root, label = real / folder, real / folder / label
    if folder == 'camvid':
        label = min((root / 'val_label').iterdir())
    tiny = TINIEST if 'instance maps' in words else NO_ENCODER
    assert words in train_and_generate(command, root, label, *flags, tiny=tiny)


# ---------------------------------------------------------------------------------------- labels

def test_palette_of_colours(command, flat, tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [1, 2, 3], [128, 64, 128]],
                       np.uint8)
    ids = {}
    for path in (flat / 'train_label').iterdir():
        ids[path.stem] = decoding.read_map(path)
        write(path, colours[ids[path.stem]])
    code, out, err = command('check', '--data', flat)
    assert code == 2
    assert 'RGB; if its colours stand for labels, train with --palette FILE' in err + out
    (tmp_path / 'printed.txt').write_text(''.join(      # check prints a palette of these maps
        f'{line}\n' for line in out.splitlines() if re.fullmatch(r'\d+,\d+,\d+,\d+', line)))
    assert command('check', '--data', flat, '--palette', 'printed.txt')[0] == 0

    (tmp_path / 'palette.txt').write_text('# my colours\n' + '\n'.join(
        f'{r},{g},{b},{i},thing {i}' for i, (r, g, b) in enumerate(colours)))
    contents = examine(flat, palette='palette.txt')
    assert contents.n_labels == 5 and contents.label_names[3] == 'thing 3'
    assert all(np.array_equal(PairReader(contents).read_label(pair.label)[0], ids[pair.name])
               for pair in contents.pairs)
    train_and_generate(command, flat, flat / 'train_label' / 'a.png', '--palette', 'palette.txt')

    bad = colours[ids['a']]
    bad[3, 7] = (9, 9, 9)
    write(flat / 'train_label' / 'a.png', bad)
    code, out, _ = command('check', '--data', flat, '--palette', 'palette.txt')
    assert code == 2 and 'a.png: colour 9,9,9 at x=7, y=3 is not in the palette' in out
    (tmp_path / 'palette.txt').write_text('1,2,3\n')
    assert "palette.txt, line 1: expected R,G,B,id[,name], got '1,2,3'" in command(
        'check', '--data', flat, '--palette', 'palette.txt')[2]
    (tmp_path / 'palette.txt').write_text('0,0,0,0\n255,0,0,1\n')         # what it lacks
    out = command('check', '--data', flat, '--palette', 'palette.txt')[1]
    assert '4 colours for a file for --palette' in out and '9,9,9,5\n' in out


@pytest.mark.parametrize('text, rows, void', [
    ('1,2,3,7,road, wide\n4,5,6,7\n', [[1, 2, 3, 7, 'road, wide'], [4, 5, 6, 7, '7']], []),
    ('# ours\nname,r,g,b\nroad,1,2,3\nVoid,4,5,6\n', [[1, 2, 3, 0, 'road'],
                                                     [4, 5, 6, 1, 'Void']], [1]),
    ('ID;Name;R;G;B;void\n5;"a, b";1;2;3;1\n3;void;4;5;6;0\n', [[1, 2, 3, 5, 'a, b'],
                                                              [4, 5, 6, 3, 'void']], [5]),
    ('1\t2\t3\t4\n', [[1, 2, 3, 4, '4']], [])])
def test_the_tables_that_a_palette_may_be(tmp_path, text, rows, void):
    (tmp_path / 'palette.csv').write_text(text)
    assert labels.read_palette(tmp_path / 'palette.csv') == (rows, void)


@pytest.mark.parametrize('text, words', [
    ('name,r,g,b\nroad,1,2\n', "line 2: expected name,r,g,b, got 'road,1,2'"),
    ('id,r,g,b\n1,2,3,400\n', 'line 2'), ('id,r,g,b\n', 'no colours in it; expected lines id,r'),
    ('1,2,3,4\n1,2,3,5\n', 'line 2: 1,2,3 is 5, but 4 above'), ('1,2,3,-1\n', 'line 1'),
    ('id,name\n1,a\n', "line 1: expected R,G,B,id[,name], got 'id,name'"), ('', 'no colours')])
def test_what_is_no_palette(tmp_path, text, words):
    (tmp_path / 'palette.csv').write_text(text)
    with pytest.raises(UserError, match=re.escape(words)):
        labels.read_palette(tmp_path / 'palette.csv')


def test_labels_csv_names_colours_and_leaves_out(command, flat):
    (flat / 'labels.csv').write_text('id,name,r,g,b,void\n0,void,0,0,0,1\n3,"road, wide",9,8,7,0\n'
                                     '6,sky,,,,\n')
    assert command('train', '--data', flat, '--run', 'run', '--steps', 1, *TINIEST)[0] == 0
    config = runs.load_run(Path('run'), torch.device('cpu')).config
    assert config.label_names == ['void', '1', '2', 'road, wide', '4', '5', 'sky']
    assert config.n_labels == 7 and config.void == [0]
    assert label_colours(config)[[0, 3]].tolist() == [[0, 0, 0], [9, 8, 7]]
    (flat / 'labels.csv').unlink()                          # the run keeps it
    out = command('info', 'run')[1]
    assert 'labels      void, 1, 2, road, wide, 4, 5, sky; not scored: void\n' in out

    (flat / 'labels.csv').write_text('ID; Name\n2; Unlabeled\n')         # as a spreadsheet writes
    contents = examine(flat)
    assert contents.label_names == ['0', '1', 'Unlabeled', '3', '4'] and contents.void == [2]
    assert contents.label_colours is None
    contents = examine(flat, ignore_label=4)
    assert contents.label_names[-1] == 'ignored' and contents.void == [2, 4]
    (flat / 'palette.txt').write_text('0,0,0,0')
    assert 'labels.csv: not read' in command('check', '--data', flat, '--palette',
                                             flat / 'palette.txt')[2]


@pytest.mark.parametrize('text, message', [
    ('', "line 1: expected the columns id,name,r,g,b,void, or some of them with id; got ''"),
    ('name,r\n', 'line 1'), ('id,name,x\n', 'line 1'), ('id,r,g\n', 'line 1'),
    ('id,name\n1,a\n1,b\n', "line 3: the id 1 is on a line above, too"),
    ('id,name\n\n1,a\n2,a\n', "line 4: the name 'a' is on a line above, too"),
    ('id,r,g,b\n1,2,3,400\n', "colours up to 255, void 0 or 1; got '1,2,3,400'"),
    ('id,r,g,b\n1,2,,4\n', 'line 2'), ('id,void\n3,x\n', 'line 2'), ('id\n-1\n', 'line 2'),
    ('id\n5000\n', 'line 2'), ('id\nroad\n', 'line 2'), ('id,name\n1\n', 'line 2'),
    ('id,name\n1,a,b\n', 'line 2')])
def test_a_wrong_line_of_labels_csv_is_named(command, flat, text, message):
    (flat / 'labels.csv').write_text(text)
    code, _, err = command('check', '--data', flat)
    assert code == 2 and err.count('\n') == 1 and f'{flat / "labels.csv"}, ' in err
    assert message in err


def test_labels_csv_lists_255_or_more_labels_than_the_flag(command, flat):
    (flat / 'labels.csv').write_text('id\n255\n')
    assert examine(flat).n_labels == 256
    code, _, err = command('check', '--data', flat, '--n-labels', 9)
    assert code == 2 and 'labels.csv has the label 255' in err


def test_labels_csv_of_cityscapes(real):
    contents = examine(real / 'cityscapes_256x128')
    names, colours = zip(*layouts.CITYSCAPES)
    n = len(contents.label_names)
    assert contents.label_names == list(names[:n])
    assert label_colours(contents).tolist() == [list(colour) for colour in colours[:n]]
    assert set(contents.void) == set(layouts.LAYOUTS['Cityscapes'].void) - {34}


def test_an_ignored_label_gets_its_own_channel(flat):
    label = decoding.read_map(flat / 'train_label' / 'a.png')
    label[5] = 255
    write(flat / 'train_label' / 'a.png', label.astype(np.uint8))
    contents = examine(flat, ignore_label=255)
    assert contents.n_labels == 6
    assert examine(flat, ignore_label='none').n_labels == 256 and examine(flat).n_labels == 6
    assert (PairReader(contents).read_label(contents.pairs[0].label)[0][5] == 5).all()


# ------------------------------------------------------------------------------------- bad input

def truncate(path, keep=0.5):
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * keep)])


def bomb(path):
    """A PNG of 20000x20000 pixels in a few bytes."""
    def chunk(kind, blob):
        return (struct.pack('>I', len(blob)) + kind + blob
                + struct.pack('>I', zlib.crc32(kind + blob)))

    path.write_bytes(b'\x89PNG\r\n\x1a\n'
                     + chunk(b'IHDR', struct.pack('>IIBBBBB', 20000, 20000, 8, 0, 0, 0, 0))
                     + chunk(b'IDAT', zlib.compress(bytes(1000)))
                     + chunk(b'IEND', b''))


def loop(path):
    path.unlink()
    path.symlink_to(path)


# name: (function that damages the folder of `flat`, expected message)
BAD = {
    'a photograph is missing': (
        lambda r: (r / 'train_img' / 'a.bmp').unlink(),
        'a.png: no photograph of the same name'),
    'an instance map is missing': (
        lambda r: (r / 'train_inst' / 'b.png').unlink(),
        'b.png: no instance map of the same name'),
    'a label map is missing': (
        lambda r: (r / 'train_label' / 'a.png').unlink(),
        'a.bmp: no label map of the same name'),
    'two of a name': (
        lambda r: shutil.copy(r / 'train_img' / 'a.bmp', r / 'train_img' / 'a.tif'),
        'have the same name'),
    'no label maps': (
        lambda r: [p.unlink() for p in (r / 'train_label').iterdir()],
        'flat, but there are no label maps'),
    'another split': (
        lambda r: (r / 'train_label').rename(r / 'fold1_label'),
        "no label maps of the split 'train', but of fold1; choose with --split"),
    'another section': (
        lambda r: write(r / 'train_label' / 'a.png', np.zeros((20, 30), np.uint8)),
        'a.png is 30x20 and .* is 24x20'),
    'a truncated map': (
        lambda r: truncate(r / 'train_label' / 'a.png'),
        r'a.png: (damaged|cannot be read)'),
    'a truncated photograph': (
        lambda r: truncate(r / 'train_img' / 'a.bmp'),
        'a.bmp: damaged'),
    'a text file': (
        lambda r: (r / 'train_label' / 'a.png').write_text('hello'),
        'a.png: cannot be read as a picture'),
    'an empty file': (
        lambda r: (r / 'train_inst' / 'a.png').write_bytes(b''),
        'a.png: cannot be read as a picture .the file is empty'),
    'a JPEG label map': (
        lambda r: (write(r / 'train_label' / 'a.jpg', np.zeros((20, 24), np.uint8)),
                   (r / 'train_label' / 'a.png').unlink()),
        'a.jpg: JPEG changes the values of labels; .* --jpeg-labels'),
    'an RGB label map': (
        lambda r: write(r / 'train_label' / 'a.png', np.full((20, 24, 3), (9, 0, 0), np.uint8)),
        'a.png: .* RGB; .* --palette'),
    'instances as labels': (
        lambda r: write(r / 'train_label' / 'a.png', np.full((20, 24), 26001, np.uint16)),
        'a.png: values from 26001 to 26001; .* instance map'),
    'an alpha channel': (
        lambda r: write(r / 'train_inst' / 'a.png', np.zeros((20, 24, 2), np.uint8)),
        'a.png: transparent at x=0, y=0'),
    'a tiny picture': (
        lambda r: [write(r / f'train_{k}', np.zeros(s, np.uint8)) for k, s in (
            ('label/a.png', (1, 1)), ('inst/a.png', (1, 1)), ('img/a.bmp', (1, 1, 3)))],
        r'a picture of 1x1, expected at least \d+x\d+'),
    'a bomb': (
        lambda r: bomb(r / 'train_label' / 'a.png'),
        'a.png: cannot be read as a picture .*400000000 pixels'),
    'a loop of links': (
        lambda r: loop(r / 'train_label' / 'a.png'),
        'a.png: cannot be read .*symbolic links'),
}


@pytest.mark.parametrize('what', BAD)
def test_bad_input(command, flat, tmp_path, what):
    """train refuses it in one line, with exit code 2 and without a run folder; check reports it;
    finetune, cluster and generate refuse it with a run that was trained before."""
    assert command('train', '--data', flat, '--steps', 1, '--run', 'before', *TINIEST)[0] == 0
    break_it, message = BAD[what]
    break_it(flat)
    files = sorted(tmp_path.rglob('*'))
    for words in (['train', '--data', flat, '--steps', 2, '--run', 'run', *TINIEST],
                  ['finetune', '--from', 'before', '--steps', 1, '--fix-global', 0, '--run', 'run',
                   '--size', '16x16'],
                  ['cluster', '--run', 'before'], ['train', '--resume', 'before', '--steps', 2]):
        code, out, err = command(*words)
        if what == 'a tiny picture' and words[0] == 'cluster':              # it is resized
            assert code == 0
        else:
            assert code == 2 and err.count('\n') == 1, (words, out, err)
            if what != 'instances as labels' or 'label 26001 at x=0' not in err:
                assert re.search(message, err), err

    if what != 'a tiny picture':
        code, out, err = command('check', '--data', flat)
        assert code == 2 and re.search(message, out + err), out + err
    assert set(tmp_path.rglob('*')) - set(files) <= {tmp_path / 'before' / 'styles.npz'}

    code, out, err = command('generate', '--run', 'before', '--label', flat / 'train_label',
                             '--inst', flat / 'train_inst', '--encode', flat / 'train_img',
                             '--out', 'made')
    if what == 'a tiny picture':                            # a small map makes a small picture
        assert code == 0 and Image.open('made/a_encoded.png').size == (1, 1)
    elif what == 'a label map is missing':
        assert code == 0 and out.count('_encoded.png') == 3
    else:                                                   # the other maps are done, if any are
        assert code == 2 and str(flat) in err, (out, err)
        assert err.count('\n') == 1 or re.search(r'\d of \d label maps could not be used\n$', err)


def test_a_label_above_their_number(command, flat):
    code, out, err = command('train', '--data', flat, '--steps', 1, '--n-labels', 4, *TINIEST)
    assert code == 2 and 'a.png: label 4 at x=0, y=0; this run has 4 labels (0 to 3)' in err, err
    assert 'train with --n-labels 5 in place of 4' in err


@pytest.mark.parametrize('what', ['a photograph is missing', 'a truncated map', 'an RGB label map',
                                  'a bomb', 'another section'])
def test_skip_bad_trains_on_the_rest(command, flat, what):
    BAD[what][0](flat)
    code, out, err = command('train', '--data', flat, '--steps', 2, '--run', 'run', '--skip-bad',
                             *TINIEST)
    assert code == 0 and '3 pairs of the split train' in out, out + err
    assert re.search('left out: .*' + BAD[what][1], out), out + err
    code, out, err = command('train', '--resume', '--run', 'run', '--steps', 4, '--device', 'cpu')
    assert code == 0 and 'going on at step 2 of 4' in out, err


@pytest.fixture
def opens(monkeypatch):
    """A Counter of how often each picture file is opened."""
    counts, original = Counter(), Image.open

    def count(path, *args, **kwargs):
        counts[Path(path)] += 1
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Image, 'open', count)
    return counts


@pytest.mark.parametrize('name', ['flat', 'scenes'])
def test_training_opens_a_file_twice(command, request, opens, name):
    """Once to inspect the data set, once to decode the picture, whatever tells the labels."""
    root = request.getfixturevalue(name)
    code, _, err = command('train', '--data', root, '--steps', 1, *TINIEST)
    assert code == 0, err
    pair = layouts.find_pairs(root)[1][0]
    assert [opens[path] for path in (pair.label, pair.inst, pair.image)] == [2, 2, 2]


def test_generate_opens_a_label_map_once(command, flat, tmp_path, opens):
    assert command('train', '--data', flat, '--steps', 1, '--run', 'run', *TINIEST)[0] == 0
    assert command('cluster', '--run', 'run')[0] == 0
    label, inst, photo = (shutil.copy(flat / name, tmp_path / name.replace('/', '-'))
                          for name in ('train_label/a.png', 'train_inst/a.png', 'train_img/a.bmp'))
    code, _, err = command('generate', '--run', 'run', '--label', label, '--inst', inst,
                           '--encode', photo)
    assert code == 0, err
    assert (opens[label], opens[inst], opens[photo]) == (1, 2, 2)


def test_jpeg_labels_can_be_forced(command, flat):
    for path in list((flat / 'train_label').iterdir()):
        write(path.with_suffix('.jpg'), decoding.read_map(path).astype(np.uint8), quality=100)
        path.unlink()
    code, out, err = command('train', '--data', flat, '--steps', 1, '--jpeg-labels', *TINIEST)
    assert code == 0 and 'JPEG changes the values of labels' in err


def test_folders_that_cannot_be_read_and_loops_of_folders(flat, monkeypatch):
    (flat / 'train_label' / 'again').symlink_to(flat / 'train_label')
    assert len(layouts.find_pairs(flat)[1]) == 4            # each folder is visited once

    def refuse(path):
        raise PermissionError(13, 'Permission denied', str(path))
    monkeypatch.setattr(layouts.os, 'scandir', refuse)
    with pytest.raises(UserError, match='cannot be read .Permission denied'):
        layouts.find_pairs(flat)


def test_a_damaged_picture_in_a_worker_is_one_line(p2phd, flat):
    """A loader process raises the error, long after training has begun."""
    truncate(flat / 'train_img' / 'b.bmp')
    words = ['train', '--data', flat, '--epochs', 5, '--decay-epochs', 0, '--size', 'native',
             *TINY[2:], '--workers', 2]
    assert 'b.bmp: damaged' in p2phd(*words, code=2)


def test_the_number_of_workers_changes_no_picture(flat):
    contents = examine(flat)

    def batches(workers):
        dataset = open_dataset(contents.pairs, PairReader(contents, (16, 16)), keep=False,
                               flip=True, jitter=1.3, seed=5)
        return list(torch.utils.data.DataLoader(
            dataset, batch_sampler=data.ResumableBatchSampler(4, 3, 0, 6, 5), num_workers=workers))

    for one, other in zip(batches(0), batches(2)):
        assert all(torch.equal(one[role], other[role]) for role in one)


def test_random_damages(command, flat, pytestconfig):
    """Files are cut, changed, swapped, renamed and deleted. check and a training step read each
    such data set, the other commands every fourth: no traceback, no hang."""
    rng = random.Random(0)
    assert command('train', '--data', flat, '--steps', 1, '--run', 'before', *TINIEST)[0] == 0
    whole = flat.with_name('whole')
    flat.rename(whole)
    codes = []
    for i in range(2000 if pytestconfig.getoption('--long') else 120):
        shutil.rmtree(flat, ignore_errors=True)
        shutil.copytree(whole, flat)
        for _ in range(rng.randint(1, 3)):
            files = sorted(path for path in flat.rglob('*') if path.is_file())
            path, other = rng.choice(files), rng.choice(files)
            kind = rng.randrange(5)
            if kind == 0:
                truncate(path, rng.random())
            elif kind == 1:
                blob = bytearray(path.read_bytes())
                for _ in range(rng.choice([1, 1, 1, 5, 50]) if blob else 0):
                    index = rng.randrange(min(len(blob), rng.choice([64, 10 ** 9])))
                    blob[index] ^= 1 << rng.randrange(8)
                path.write_bytes(blob)
            elif kind == 2:
                a, b = path.read_bytes(), other.read_bytes()
                path.write_bytes(b)
                other.write_bytes(a)
            elif kind == 3:
                names = ['a.png', 'new.png', 'b.jpg', 'x.npy', 'y.txt', 'z.tif']
                path.rename(path.with_name(rng.choice(names)))
            else:
                path.unlink()

        often = [['check', '--data', flat],
                 ['train', '--data', flat, '--steps', 1, '--run', f'runs/{i}', *TINIEST]]
        seldom = [['cluster', '--run', 'before'],
                  ['finetune', '--from', 'before', '--steps', 1, '--fix-global', 0,
                   '--run', f'runs/fine{i}', '--size', '16x16'],
                  ['generate', '--run', 'before', '--label', flat / 'train_label',
                   '--inst', flat / 'train_inst', '--encode', flat / 'train_img',
                   '--out', 'runs/made']]
        for words in often + (seldom if i % 4 == 0 else []):
            code, out, err = command(*words)                # an exception would end the test here
            assert code in (0, 2), (i, words, out, err)
            assert code == 0 or words[0] in ('check', 'generate') or err.count('\n') == 1, (i, err)
            codes.append(code)
        shutil.rmtree('runs', ignore_errors=True)
    assert 0 < sum(codes) < 2 * len(codes)                  # some damage does no harm, some does
