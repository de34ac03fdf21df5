"""Decoding, augmentation, the cache; boundary maps and connected components by hand."""
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
import torch

from app.datasets import cache
from conftest import ROOT
import data
from app.datasets import decoding
from app.common import files
from app.common.errors import UserError
from app.datasets import layouts
from app.runs import distributed

PLAIN = data.Readers(decoding.read_map, decoding.read_map, decoding.read_photo, '')


def write(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(array))
    (picture.convert(mode) if mode else picture).save(path)


@pytest.fixture
def flat(tmp_path):
    """Three 8x6 scenes in the flat layout, with a file extension of its own for each role."""
    rng = np.random.default_rng(0)
    for name in ('b', 'a', 'c d'):
        write(tmp_path / 'train_label' / f'{name}.png', rng.integers(0, 5, (6, 8), np.uint8))
        inst = rng.integers(0, 60000, (6, 8)).astype(np.uint16)
        write(tmp_path / 'train_inst' / f'{name}.png', inst)
        write(tmp_path / 'train_img' / f'{name}.bmp', rng.integers(0, 255, (6, 8, 3), np.uint8))
    return tmp_path


def test_boundary_map_by_hand():
    inst = torch.tensor([[1, 1, 2, 2],
                         [1, 1, 2, 2],
                         [1, 1, 1, 1],
                         [1, 1, 1, 5]])
    expected = [[0, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 0, 1, 1],
                [0, 0, 1, 1]]
    assert data.boundary_map(inst).tolist() == expected
    batch = data.boundary_map(torch.stack([inst, inst * 70000])[:, None])
    assert batch.shape == (2, 1, 4, 4) and batch.dtype == torch.uint8
    assert batch[1, 0].tolist() == expected


def test_connected_components_by_hand():
    label = np.array([[0, 0, 1, 0],
                      [1, 0, 1, 0],
                      [1, 0, 0, 0],
                      [1, 1, 2, 1]])
    assert data.connected_components(label).tolist() == [[0, 0, 1, 0],
                                                         [2, 0, 1, 0],
                                                         [2, 0, 0, 0],
                                                         [2, 2, 3, 4]]


def test_connected_components_of_a_spiral():
    label = np.zeros((41, 41), np.int32)
    top, left, bottom, right = 0, 0, 40, 40
    while top < bottom:                                     # one wall that winds inwards
        label[top, left:right + 1] = label[top:bottom + 1, right] = 1
        label[bottom, left + 2:right + 1] = 1
        label[top + 2:bottom + 1, left + 2] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2

    components = data.connected_components(label)
    for value in (0, 1):
        flood = np.zeros_like(label, bool)
        flood[tuple(np.argwhere(label == value)[0])] = True
        for _ in range(label.size):                         # grow until nothing changes
            grown = flood.copy()
            grown[1:] |= flood[:-1]
            grown[:-1] |= flood[1:]
            grown[:, 1:] |= flood[:, :-1]
            grown[:, :-1] |= flood[:, 1:]
            grown &= label == value
            if (grown == flood).all():
                break
            flood = grown
        assert len(np.unique(components[flood])) == 1
        assert not np.isin(components[~flood], components[flood]).any()


def test_labels_of_a_batch():
    label = torch.tensor([[[3, 250], [3, 17]]], dtype=torch.uint8)
    assert data.find_present_labels(label, 256).tolist() == [0, 1, 2, 3, 4, 5, 17, 250]
    assert data.find_present_labels(label[..., :1], 8) is None            # all are needed
    batch = data.collate([{'label': label, 'image': label}] * 2, 256)
    assert len(batch['labels']) == 8 and batch['label'].shape == (2, 1, 2, 2)
    assert torch.equal(data.one_hot(label[None], 256)[:, batch['labels']],
                       data.one_hot(label[None], 256, batch['labels']))


def test_condition_is_one_hot_and_boundary():
    label, inst = torch.tensor([[[[0, 2]]]], dtype=torch.uint8), torch.tensor([[[[4, 5]]]])
    assert data.condition(label, inst, 3)[0, :, 0].tolist() == [[1, 0], [0, 0], [0, 1], [1, 1]]
    rgb = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1)
    torch.testing.assert_close(data.condition(rgb, None, 0).flatten(), torch.tensor([-1, 1, -0.6]))


def test_pictures_survive_the_way_to_float_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.to_uint8(data.to_float(values)), values)


def test_padding_repeats_the_edge():
    x = torch.arange(6).reshape(1, 1, 2, 3)
    assert data.pad_to_multiple(x, 4)[0, 0].tolist() == [[0, 1, 2, 2],
                                                         [3, 4, 5, 5],
                                                         [3, 4, 5, 5],
                                                         [3, 4, 5, 5]]
    assert data.pad_to_multiple(x, 1, smallest=3).shape == (1, 1, 3, 3)


def test_an_instance_has_the_label_of_its_majority():
    label = torch.tensor([[3, 3, 1, 0]])[None, None]
    inst = torch.tensor([[50, 50, 50, 2]])[None, None]      # ids that do not encode the label
    ids, slot, labels, pixels = data.describe_instances(label, inst, 4)
    assert slot.flatten().tolist() == [1, 1, 1, 0]
    assert labels.tolist() == [0, 3] and pixels.tolist() == [1, 3]


def test_maps_of_all_depths(tmp_path):
    ids = np.array([[0, 1], [2, 255]])
    write(tmp_path / 'grey.png', ids.astype(np.uint8))
    write(tmp_path / 'deep.png', (ids * 256).astype(np.uint16))
    write(tmp_path / 'deepest.tif', (ids * 2 ** 20).astype(np.int32))
    palette = Image.new('P', (2, 2))
    palette.putdata(ids.flatten().tolist())
    palette.putpalette([9, 8, 7] * 256)
    palette.save(tmp_path / 'palette.png')

    for name, factor in (('grey.png', 1), ('deep.png', 256), ('deepest.tif', 2 ** 20),
                         ('palette.png', 1)):
        expected = (ids * factor).tolist()
        assert decoding.read_map(tmp_path / name).tolist() == expected, name
        larger = decoding.read_map(tmp_path / name, (4, 4))
        assert larger[::2, ::2].tolist() == expected, name

    write(tmp_path / 'colour.png', np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(UserError, match='colour.png: .* RGB'):
        decoding.read_map(tmp_path / 'colour.png')


def test_items_are_a_function_of_seed_epoch_and_index(flat):
    pairs = layouts.find_pairs(flat)[1]
    one, other = (data.PairedDataset(pairs, PLAIN, 5, (8, 6), crop=(4, 4), flip=True, seed=1)
                  for _ in range(2))
    other.decoded = None                                    # read anew each time

    views = set()
    for epoch in range(12):
        item, again = one[epoch, 2], other[epoch, 2]
        assert all(torch.equal(item[role], again[role]) for role in item)
        assert (item['label'].shape == (1, 4, 4) and item['image'].shape == (3, 4, 4)
                and item['inst'].dtype == torch.int32)
        views.add(item['image'].numpy().tobytes())
    assert len(views) > 6


@pytest.mark.parametrize('jitter', [1, 1.5])
def test_maps_and_photograph_move_together(tmp_path, jitter):
    ids = np.arange(48, dtype=np.uint8).reshape(6, 8)
    write(tmp_path / 'train_label' / 'x.png', ids)
    write(tmp_path / 'train_inst' / 'x.png', ids)
    write(tmp_path / 'train_img' / 'x.png', np.repeat(ids[..., None], 3, 2))
    dataset = data.PairedDataset(layouts.find_pairs(tmp_path)[1], PLAIN, 48, crop=(5, 3), flip=True,
                            jitter=jitter)
    for epoch in range(20):
        item = dataset[epoch, 0]
        assert torch.equal(item['label'].int(), item['inst']) and item['label'].shape == (1, 3, 5)
        if jitter == 1:
            assert torch.equal(item['image'][:1], item['label'])


def test_order_covers_every_picture_once_an_epoch_and_starts_anywhere():
    whole = list(data.ResumableBatchSampler(5, 2, 0, 10, seed=3))
    keys = [key for batch in whole for key in batch]
    for epoch in range(4):
        assert sorted(index for e, index in keys if e == epoch) == [0, 1, 2, 3, 4]
    assert list(data.ResumableBatchSampler(5, 2, 7, 10, seed=3)) == whole[7:]


def test_processes_share_a_batch_but_for_that_of_one_alone(monkeypatch):
    whole = list(data.ResumableBatchSampler(8, 4, 0, 4, seed=3))
    for rank in range(2):
        monkeypatch.setattr(distributed, 'WORLD_SIZE', 2)
        monkeypatch.setattr(distributed, 'RANK', rank)
        assert list(data.ResumableBatchSampler(8, 4, 0, 4, 3)) == [keys[2 * rank:][:2] for keys in whole]
        assert list(data.ResumableBatchSampler(8, 4, 0, 4, 3, shared=False)) == whole


def test_a_label_out_of_range_is_named(flat):
    with pytest.raises(UserError, match=r'label 4 at x=\d, y=\d, but labels go from 0 to 3'):
        data.PairedDataset(layouts.find_pairs(flat)[1], PLAIN, 4)[0, 0]


def test_the_cache_gives_the_same_pictures_and_notices_changes(flat, tmp_path):
    pairs = layouts.find_pairs(flat)[1]

    def make(cache):
        return data.PairedDataset(pairs, PLAIN, 6, (4, 4), flip=True, cache=cache)

    def items(dataset):
        return [dataset[epoch, i] for epoch in range(3) for i in range(3)]

    def same(a, b):
        return all(torch.equal(x[role], y[role]) for x, y in zip(items(a), items(b)) for role in x)

    cache = tmp_path / 'cache'
    assert same(make(None), make(cache)) and make(cache).decoded.arrays['label'].dtype == np.uint8
    built = (cache / 'image.npy').stat().st_mtime_ns
    make(cache)
    # Nothing changed, so nothing is built.
    assert (cache / 'image.npy').stat().st_mtime_ns == built

    write(flat / 'train_label' / 'a.png', np.full((6, 8), 5, np.uint8))
    assert same(make(None), make(cache)) and (make(cache)[0, 0]['label'] == 5).all()


def test_a_cache_that_does_not_fit_is_refused(flat, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=100))
    with pytest.raises(UserError, match='--cache .*cache: needs 0 MiB, more than is free there'):
        data.PairedDataset(layouts.find_pairs(flat)[1], PLAIN, 5, (4, 4), cache=tmp_path / 'cache')


def test_a_cache_holds_photographs_of_one_type(flat, tmp_path):
    pairs = layouts.find_pairs(flat)[1]
    np.save(tmp_path / 'one.npy', np.zeros((6, 8, 3), np.float32))
    pairs = [pairs[0]._replace(image=tmp_path / 'one.npy'), *pairs]
    with pytest.raises(UserError, match='is uint8, and others are float32'):
        data.PairedDataset(pairs, PLAIN, 5, (4, 4), cache=tmp_path / 'cache')


def test_a_cache_in_the_folder_of_a_run_leaves_its_lock(flat, tmp_path):
    other = [sys.executable, '-c', 'import files, pathlib, sys\n'
             'with files.lock(pathlib.Path(sys.argv[1])): pass', tmp_path]
    with files.lock_folder(tmp_path):
        data.PairedDataset(layouts.find_pairs(flat)[1], PLAIN, 5, (4, 4), cache=tmp_path)
        done = subprocess.run(other, cwd=ROOT, capture_output=True, text=True)
    assert f'process {os.getpid()} on ' in done.stderr
    assert subprocess.run(other, cwd=ROOT).returncode == 0


def test_arrays_of_any_number_of_channels(tmp_path):
    values = np.random.default_rng(0).uniform(-1, 1, (6, 8, 5)).astype(np.float32)
    np.save(tmp_path / 'five.npy', values)
    assert np.array_equal(decoding.read_photo(tmp_path / 'five.npy', channels=5), values)
    assert decoding.read_photo(tmp_path / 'five.npy', (4, 3), channels=5).shape == (3, 4, 5)
    np.save(tmp_path / 'ids.npy', np.arange(48).reshape(6, 8) * 100000)
    assert decoding.read_map(tmp_path / 'ids.npy')[5, 7] == 4700000
    write(tmp_path / 'grey.png', np.arange(48, dtype=np.uint8).reshape(6, 8))
    assert decoding.read_photo(tmp_path / 'grey.png', channels=1).shape == (6, 8, 1)
    assert decoding.read_photo(tmp_path / 'grey.png').shape == (6, 8, 3)
    for array, message in ((values * 2, r'must lie in \[-1, 1\]'), (values[..., :2], '2 channels'),
                           (values * np.nan, 'must lie'), (np.zeros((2, 2, 2, 2)), 'shape'),
                           (np.array([{}]), 'as an array')):
        np.save(tmp_path / 'bad.npy', array)
        with pytest.raises(UserError, match=message):
            decoding.read_photo(tmp_path / 'bad.npy', channels=5)


def test_resize_takes_the_nearest_pixel():
    ids = np.arange(16).reshape(4, 4)
    assert data.resize(ids, (2, 2), nearest=True).tolist() == [[5, 7], [13, 15]]
    assert data.resize(ids, (8, 8), nearest=True)[::2, ::2].tolist() == ids.tolist()
    assert np.array_equal(data.resize(ids, (2, 2), nearest=True),
                          np.asarray(Image.fromarray(ids.astype(np.uint8)).resize((2, 2), 0)))
