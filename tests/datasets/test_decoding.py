"""Decoding, checks of labels, the cache."""
import os
import shutil
import struct
import subprocess
import sys
from types import SimpleNamespace
import zlib

import numpy as np
from PIL import Image
import pytest
import torch

from app.common import files
from app.common.errors import UserError
from app.datasets import decoding, formats, layouts, pairs
from app.datasets.pairs import PairReader, check_labels, open_dataset
from conftest import ROOT


def make_reader(n_labels, size=None):
    """A PairReader of the flat layout."""
    return PairReader(SimpleNamespace(
        layout='flat', n_labels=n_labels, in_channels=3, out_channels=3, palette=None,
        label_table=None, jpeg_labels=False, instances='files'), size)


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

    write(tmp_path / 'colour.png', np.full((2, 2, 3), (9, 0, 0), np.uint8))
    with pytest.raises(UserError, match='colour.png: .* RGB'):
        decoding.read_map(tmp_path / 'colour.png')


def test_a_header_is_read_without_decoding(tmp_path):
    """Nor do EXIF data behind the pixels turn a picture later, when it is decoded."""
    photo, exif = tmp_path / 'photo.png', Image.Exif()
    exif[formats.EXIF_ORIENTATION] = 6
    write(photo, np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    blob, turned = photo.read_bytes(), exif.tobytes().removeprefix(b'Exif\0\0')
    end = blob.index(b'IEND') - 4
    chunk = b'eXIf' + turned
    photo.write_bytes(blob[:end] + struct.pack('>I', len(turned)) + chunk
                      + struct.pack('>I', zlib.crc32(chunk)) + blob[end:])
    assert decoding.read_header(photo).size == (60, 40)
    assert decoding.read_photo(photo).shape == (40, 60, 3)

    photo.write_bytes(blob[:len(blob) // 2])
    assert decoding.read_header(photo)[:4] == ((60, 40), 3, '', False)
    with pytest.raises(UserError, match='photo.png: damaged'):
        decoding.read_photo(photo)


def test_a_label_out_of_range_is_named(flat):
    with pytest.raises(UserError, match=r'label 4 at x=\d, y=\d; this run has 4 labels \(0 to 3\)'):
        make_reader(4)(layouts.find_pairs(flat)[1][0])


def test_the_cache_gives_the_same_pictures_and_notices_changes(flat, tmp_path):
    pairs = layouts.find_pairs(flat)[1]

    def make(cache):
        return open_dataset(pairs, make_reader(6, (4, 4)), cache, flip=True)

    def items(dataset):
        return [dataset[epoch, i] for epoch in range(3) for i in range(3)]

    def same(a, b):
        return all(torch.equal(x[role], y[role]) for x, y in zip(items(a), items(b)) for role in x)

    cache = tmp_path / 'cache'
    assert same(make(None), make(cache)) and make(cache).decoded[0]['label'].dtype == np.uint8
    built = (cache / 'image.npy').stat().st_mtime_ns
    make(cache)
    # Nothing changed, so nothing is built.
    assert (cache / 'image.npy').stat().st_mtime_ns == built

    write(flat / 'train_label' / 'a.png', np.full((6, 8), 5, np.uint8))
    assert same(make(None), make(cache)) and (make(cache)[0, 0]['label'] == 5).all()


def test_255_is_unknown_only_where_no_other_label_is_wrong(tmp_path):
    for other, remedy in ((0, '--ignore-label 255'), (9, '--n-labels 256')):
        with pytest.raises(UserError, match=remedy):
            check_labels(np.array([[255, other]]), tmp_path, 5)


def test_a_png_with_a_wrong_checksum_is_damaged(flat):
    pair = layouts.find_pairs(flat)[1][0]
    decoding.verify(pair.label)
    content = bytearray(pair.label.read_bytes())
    content[content.index(b'IEND') - 8] ^= 1                # the checksum of the pixels
    pair.label.write_bytes(content)
    with pytest.raises(UserError, match='damaged'):
        decoding.verify(pair.label)


def test_a_cache_replaces_only_files_of_caches(flat, tmp_path):
    pairs = layouts.find_pairs(flat)[1]
    for name in ('index.json', 'label.npy'):
        (tmp_path / 'cache').mkdir()
        (tmp_path / 'cache' / name).write_text('[1]')
        with pytest.raises(UserError, match=f'{name}: would be overwritten'):
            open_dataset(pairs, make_reader(6, (4, 4)), tmp_path / 'cache')
        shutil.rmtree(tmp_path / 'cache')
    for name in ('.cache-lock', 'index.json'):              # caches of before had no such lock
        open_dataset(pairs, make_reader(6, (4, 4)), tmp_path / 'cache')
        (tmp_path / 'cache' / name).unlink()
    open_dataset(pairs, make_reader(5, (4, 4)), tmp_path / 'cache')


def test_a_cache_that_does_not_fit_is_refused(flat, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=100))
    with pytest.raises(UserError, match='--cache .*cache: needs 0 MiB, more than is free there'):
        open_dataset(layouts.find_pairs(flat)[1], make_reader(5, (4, 4)),
                     tmp_path / 'cache')


def test_a_cache_holds_photographs_of_one_type(flat, tmp_path):
    pairs = layouts.find_pairs(flat)[1]
    np.save(tmp_path / 'one.npy', np.zeros((6, 8, 3), np.float32))
    pairs = [pairs[0]._replace(image=tmp_path / 'one.npy'), *pairs]
    with pytest.raises(UserError, match='is uint8, and others are float32'):
        open_dataset(pairs, make_reader(5, (4, 4)), tmp_path / 'cache')


def test_a_cache_in_the_folder_of_a_run_leaves_its_lock(flat, tmp_path):
    other = [sys.executable, '-c', 'import pathlib, sys\nfrom app.common import files\n'
             'with files.lock_folder(pathlib.Path(sys.argv[1])): pass', tmp_path]
    with files.lock_folder(tmp_path):
        open_dataset(layouts.find_pairs(flat)[1], make_reader(5, (4, 4)), tmp_path)
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


def test_every_pixel_of_a_label_map_is_checked_before_it_is_resized(flat):
    path = flat / 'train_label' / 'a.png'
    label = np.asarray(Image.open(path)).copy()
    label[3, 5] = 9                                         # no pixel of the smaller map
    write(path, label)
    with pytest.raises(UserError, match='a.png: label 9 at x=5, y=3; this run has 5 labels'):
        make_reader(5).read_label(path, (2, 2))
    labels, _ = make_reader(10).read_label(path, (2, 2))
    assert labels.dtype == np.int32 and 9 not in labels
    usual = Image.fromarray(label).resize((2, 2), Image.Resampling.NEAREST)
    assert np.array_equal(labels, np.asarray(usual))
