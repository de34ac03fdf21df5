"""Odd data sets as fresh users bring them: each row is read as it was meant, or a line says what is
wrong and what helps. The helpers are those of test_peoples_files."""
import json

import numpy as np
from PIL import Image
import pytest

from app.common.errors import UserError
from app.datasets import layouts
from app.datasets.pairs import colours_to_labels
from app.runs import generation
from conftest import BARE, examine
from test_peoples_files import flat, labels, photo, read, save

GREY = labels().astype(np.uint8)


def grey(*values):
    return labels(values).astype(np.uint16 if max(values) > 255 else np.uint8)


# ------------------------------------------------------------------ ids that are far from 0, 1, 2

@pytest.mark.parametrize('values, flags, n, table, text', [
    ((0, 254), {}, 2, {0: 0, 254: 1}, '--n-labels 255 keeps the numbers'),
    ((1, 254), {}, 2, {1: 0, 254: 1}, '--n-labels 255 keeps'),
    ((0, 128), {}, 2, {0: 0, 128: 1}, '--n-labels 129 keeps'),
    ((50, 200), {}, 2, {50: 0, 200: 1}, '--n-labels 201 keeps'),
    ((0, 1000), {}, 2, {0: 0, 1000: 1}, '--n-labels 1001 keeps'),
    ((0, 255), {}, 2, {0: 0, 255: 1}, '--ignore-label 255 takes 255 as unknown'),
    ((0, 254), {'n_labels': 255}, 255, {0: 0, 254: 254}, ''),
    ((0, 254), {'n_labels': 2}, 2, {0: 0, 254: 1}, 'two labels'),
    ((0, 254), {'ignore_label': 254}, 2, {0: 0, 254: 1}, 'nothing but the label 0'),
    ((0, 20), {}, 21, {0: 0, 20: 20}, ''), ((0, 1), {}, 2, {0: 0, 1: 1}, ''),
    ((1, 2), {}, 3, {1: 1, 2: 2}, ''),
    ((0, 85, 170), {}, 171, None, 'hold only 0, 85, 170 of 171 labels; --palette FILE'),
    ((0, 128, 255), {}, 130, {0: 0, 128: 128, 255: 129}, 'hold only 0, 128 of 129 labels'),
    ((0, 100, 200, 250), {}, 251, None, 'grey 250 is 250,250,250'),
    ((0, 256, 512, 768), {}, 769, None, 'hold only 0, 256, 512, 768 of 769 labels'),
    ((0, 5, 60), {'n_labels': 61}, 61, None, ''), (range(0, 60, 4), {}, 53, None, ''),
    ((128,), {}, 129, None, 'nothing but the label 128'), ((0,), {}, 1, None, 'but the label 0'),
    ((255,), {}, 2, {255: 1}, 'nothing but 255; --ignore-label none')])
def test_ids_with_gaps(values, flags, n, table, text, tmp_path, capsys):
    items, contents = read(flat(tmp_path, grey(*values)), **flags)
    err = capsys.readouterr().err
    assert text in err if text else 'note' not in err
    assert contents.n_labels == n
    expected = np.vectorize((table or {i: i for i in values}).get)(labels(values))
    assert all(np.array_equal(item['label'], expected) for item in items)


@pytest.mark.parametrize('values', [(0, 128, 255), (0, 85, 170), (0, 256 * 60, 256 * 250)])
def test_the_palette_that_a_note_names_numbers_grey_labels(values, tmp_path):
    palette = tmp_path / 'palette.txt'
    palette.write_text('\n'.join(f'{v},{v},{v},{i}' for i, v in enumerate(
        v if v < 256 else v // 256 for v in values)))
    items, contents = read(flat(tmp_path, grey(*values)), palette=str(palette))
    assert contents.n_labels == 3
    assert all(np.array_equal(item['label'], labels((0, 1, 2))) for item in items)


@pytest.mark.parametrize('names', [['back', 'front'], ['back']])
def test_names_in_labels_csv_for_far_ids(names, tmp_path, capsys):
    ids = [0, 254][:len(names)]
    (tmp_path / 'labels.csv').write_text('id,name\n' + ''.join(
        f'{i},{name}\n' for i, name in zip(ids, names)))
    _, contents = read(flat(tmp_path, grey(0, 254)))
    assert contents.label_names == [*names, '254'][:2]


def noise():
    return np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


@pytest.mark.parametrize('label, noted', [
    (noise(), True), (np.asarray(Image.fromarray(photo()).convert('L')), True),
    (photo()[..., 0], False), (np.kron(noise()[:16, :16], np.ones((4, 4), np.uint8)), False),
    (GREY, False)])
def test_photographs_in_place_of_label_maps_are_noticed(label, noted, tmp_path, capsys):
    read(flat(tmp_path, label), ignore_label='none')
    assert ('in the wrong folders' in capsys.readouterr().err) == noted


# ------------------------------------------------------------------------------ files that are none

@pytest.mark.parametrize('content, text', [
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'git lfs pull'),
    (b'<!DOCTYPE html><html>403</html>', 'a web page'), (b'\n <HTML><body>', 'a web page'),
    (b'', '(the file is empty); copy it again'), (bytes(5000), 'begins with zeros'),
    (b'hello', 'cannot be read as a picture'), (b'PK\3\4' + bytes(99), 'cannot be read'),
    (b'<?xml version="1.0"?><svg/>', 'cannot be read')])
@pytest.mark.parametrize('role', ['label', 'img', 'inst'])
def test_files_that_are_no_pictures(content, text, role, tmp_path):
    flat(tmp_path, GREY, inst=GREY)
    (tmp_path / f'train_{role}' / 'a.png').write_bytes(content)
    problems = examine(tmp_path).problems
    assert list(problems) == ['a'] and text in problems['a'] and f'train_{role}' in problems['a']


@pytest.mark.parametrize('array, text', [
    (np.eye(4, dtype=np.uint8)[labels()], 'of a one-hot map store the argmax'),
    (np.eye(4, dtype=bool)[labels()], 'argmax'), (np.zeros((64, 64, 7), np.float32), 'argmax'),
    (np.zeros((2, 64, 64, 1), np.uint8), 'expected (height, width, channels)'),
    (np.zeros(64, np.uint8), 'expected (height, width, channels)'),
    (np.zeros((64, 64), complex), 'of complex128'), (np.zeros((64, 64), 'U3'), 'of <U3'),
    (np.array([[{}] * 64] * 64), 'cannot be read as an array'),
    (np.full((64, 64), 1 << 40), 'labels have at most 31 bits')])
def test_arrays_that_are_no_label_maps(array, text, tmp_path):
    flat(tmp_path, GREY)
    (tmp_path / 'train_label' / 'a.png').unlink()
    np.save(tmp_path / 'train_label' / 'a.npy', array)
    problems = examine(tmp_path).problems
    assert list(problems) == ['a'] and text in problems['a']


@pytest.mark.parametrize('array', [
    labels().astype('>u2'), labels().astype('>i4'), np.asfortranarray(labels().astype(np.uint8)),
    labels().astype(np.int64)[..., None], labels().astype(np.uint64), labels().astype(np.int8),
    labels()[::-1][::-1]])
def test_arrays_of_any_integers_are_label_maps(array, tmp_path):
    flat(tmp_path, array, endings=('.npy', '.png'))
    assert all(np.array_equal(item['label'], labels()) for item in read(tmp_path)[0])


@pytest.mark.parametrize('role', 'AB')
@pytest.mark.parametrize('low, high, dtype, noted', [
    (0, 1, np.float32, True), (0, 0.9, np.float64, True), (0.1, 0.8, np.float16, True),
    (-1, 1, np.float32, False), (-0.2, 1, np.float32, False), (0, 0.2, np.float32, False),
    (0, 255, np.uint8, False)])
def test_arrays_of_0_to_1(low, high, dtype, noted, role, tmp_path, capsys):
    array = (low + (high - low) * (photo() / 255)).astype(dtype)
    for name in 'ab':
        for other in 'AB':
            save(tmp_path / f'train_{other}' / f'{name}.{"npy" if other == role else "png"}',
                 array if other == role else photo())
    read(tmp_path)
    assert ('store 2 * x - 1' in capsys.readouterr().err) == noted


@pytest.mark.parametrize('suffix, flags, text', [
    ('.webp', {}, 'lossy WebP changes the values of labels'),
    ('.jpg', {}, 'JPEG changes the values of labels')])
def test_the_warning_of_lossy_maps_names_their_format(suffix, flags, text, tmp_path, capsys):
    flat(tmp_path, GREY, endings=(suffix, '.png'))
    read(tmp_path, jpeg_labels=True)
    assert f'warning: {tmp_path}: {text}; expect' in capsys.readouterr().err


# ----------------------------------------------------------------------- names that differ in words

PAIRING = [                                         # label maps, photographs
    ('{}_mask', '{}_sat'), ('{}_label', '{}'), ('{}', '{}_rgb'), ('{}_gt', '{}_img'),
    ('{}_Mask', '{}'), ('{}-seg', '{}-photo'), ('mask_{}', 'image_{}'), ('label {}', 'photo {}'),
    ('{}.jpg', '{}'), ('{}_segmentation', '{}'), ('{}_A', '{}_B'), ('{}.png_mask', '{}'),
    ('{}_seg_mask', '{}_image'), ('{}', '{}.tif'), ('seq/{}_mask', 'seq/{}_sat')]


@pytest.mark.parametrize('form, other', PAIRING)
@pytest.mark.parametrize('names', [('1', '2'), ('10', '1', '0'), ('a_1', 'a_2', 'b_1'), ('x',)])
def test_names_that_differ_in_one_ending_are_pairs(form, other, names, tmp_path, capsys):
    for i, name in enumerate(names):
        save(tmp_path / 'train_label' / f'{form.format(name)}.png', np.roll(GREY, 16 * i, 1))
        save(tmp_path / 'train_img' / f'{other.format(name)}.png', np.roll(photo(), i, 1))
    items, contents = read(tmp_path)
    assert 'are taken for one scene' in capsys.readouterr().err
    assert len(items) == len(names)
    for item, pair in zip(items, contents.pairs):
        i = next(i for i, name in enumerate(names) if pair.label.stem == form.format(name)
                 .rpartition('/')[2])
        assert np.array_equal(item['label'], np.roll(labels(), 16 * i, 1))
        assert np.array_equal(item['image'], np.roll(photo(), i, 1))
    files = generation.pair_files([tmp_path / 'train_label'], [], [tmp_path / 'train_img'],
                                  tmp_path / 'out')
    assert files.photos.keys() == files.labels.keys()


@pytest.mark.parametrize('maps, photos', [
    (['1_mask', '2_gt'], ['1', '2']), (['1_mask', '2'], ['1', '3']), (['1_mask'], ['2_sat']),
    (['1_mask', '2_mask', '3_mask'], ['1_sat', '8_sat', '9_sat']), (['mask'], ['image'])])
def test_names_that_do_not_tell_stay_unpaired(maps, photos, tmp_path):
    for role, names in ('label', maps), ('img', photos):
        for name in names:
            save(tmp_path / f'train_{role}' / f'{name}.png', GREY)
    contents = examine(tmp_path)
    assert len(contents.pairs) == len({*maps} & {*photos})
    assert contents.problems


def test_a_photograph_too_many_is_a_problem_beside_pairs_by_ending(tmp_path):
    flat(tmp_path, GREY, names=('1_mask', '2_mask', '3_mask'))
    for path in sorted((tmp_path / 'train_img').iterdir()):
        path.rename(path.with_name(path.name.replace('mask', 'sat')))
    save(tmp_path / 'train_img' / '4_sat.png', photo())
    contents = examine(tmp_path)
    assert len(contents.pairs) == 3 and list(contents.problems) == ['4_sat']
    assert 'no label map' in contents.problems['4_sat']


# ------------------------------------------------------------------------------------ more folders

@pytest.mark.parametrize('label, image', [
    ('train_masks/{}_mask', 'train/{}'), ('trainannot/{}', 'train/{}'),
    ('training/semantic/{}', 'training/image_2/{}'),
    ('SegmentationClassPNG/{}', 'JPEGImages/{}'), ('masks/{}_mask', 'images/{}'),
    ('train/labels/{}_seg', 'train/images/{}')])
def test_more_folders_of_people(label, image, tmp_path):
    for name in 'ab':
        save(tmp_path / f'{label.format(name)}.png', GREY)
        save(tmp_path / f'{image.format(name)}.png', photo())
    items, contents = read(tmp_path)
    assert contents.layout == layouts.OWN and len(items) == 2
    assert all(np.array_equal(item['label'], labels()) for item in items)
    assert all(np.array_equal(item['image'], photo()) for item in items)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_and_b_above_the_splits(split, tmp_path):
    for folder, array in ('A', photo()), ('B', 255 - photo()):
        for part in 'train', 'val':
            save(tmp_path / folder / part / '1.png', array)
    items, contents = read(tmp_path, split=split)
    assert contents.layout == 'A to B' and list(layouts.find_splits(tmp_path)) == ['train', 'val']
    assert np.array_equal(items[0]['label'], photo())
    assert np.array_equal(items[0]['image'], 255 - photo())


SHAPES = {
    'Labelme': ('.json', json.dumps({'version': '5', 'shapes': [{'label': 'a', 'points': [[1, 2]]}],
                                     'imagePath': 'a.png'}), 'polygons of Labelme'),
    'COCO': ('.json', json.dumps({'info': {}, 'images': [{'file_name': 'a.png', 'id': 1}],
                                  'annotations': []}), 'annotations of COCO'),
    'VIA': ('.json', json.dumps({'a.png': {'regions': [{'shape_attributes': {}}]}}), 'of VIA'),
    'Cityscapes': ('.json', json.dumps({'imgHeight': 9, 'objects': [{'polygon': []}]}),
                   'polygons of Cityscapes'),
    'Supervisely': ('.json', json.dumps({'objects': [{'classTitle': 'a'}]}), 'of Supervisely'),
    'YOLO': ('.txt', '0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.3 0.4\n', 'boxes of YOLO'),
    'YOLO polygons': ('.txt', '3 0.1 0.1 0.9 0.1 0.9 0.9\n', 'polygons of YOLO'),
    'CVAT': ('.xml', '<annotations><image><polygon points=""/></image></annotations>', 'of CVAT'),
    'VOC': ('.xml', '<annotation><object><bndbox></bndbox></object></annotation>', 'of Pascal VOC'),
    'Kaggle': ('.csv', 'ImageId,EncodedPixels\na,1 3\n', 'run lengths'),
    'GIS': ('.geojson', '{"type": "FeatureCollection"}', 'shapes of a GIS'),
    'MATLAB': ('.mat', 'MATLAB 5.0', 'format not read'), 'NumPy': ('.npz', 'PK', 'not read')}


@pytest.mark.parametrize('folder', ['train_label train_img', 'labels images', 'annotations images',
                                    'labels/train images/train', 'train/labels train/images'])
@pytest.mark.parametrize('kind', SHAPES)
def test_labels_that_are_shapes_are_called_so(kind, folder, tmp_path):
    ending, text, words = SHAPES[kind]
    annotations, images = folder.split()
    for name in 'ab':
        path = tmp_path / annotations / (name + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        save(tmp_path / images / f'{name}.png', photo())
    with pytest.raises(UserError) as error:
        examine(tmp_path)
    assert words in str(error.value) and str(tmp_path / annotations / 'a') in str(error.value)
    assert 'PNG' in str(error.value)


@pytest.mark.parametrize('name', ['readme.txt', 'classes.txt', 'a.json', 'list.csv', 'a.xml'])
def test_other_texts_are_no_shapes(name, tmp_path):
    (tmp_path / 'train_label').mkdir()
    (tmp_path / 'train_label' / name).write_text('{"a": 1}\n12 34')
    save(tmp_path / 'train_img' / 'a.png', photo())
    with pytest.raises(UserError, match='there are no label maps'):
        examine(tmp_path)


@pytest.mark.parametrize('flag', ['own', 'map-left'])
def test_a_layout_by_flag_is_searched_once(flag, tmp_path, monkeypatch):
    flat(tmp_path, GREY)
    save(tmp_path / 'train' / 'a.png', np.hstack([photo(), photo()]))
    name = layouts.OWN if flag == 'own' else layouts.SIDE_BY_SIDE['left']
    calls, layout = [], layouts.LAYOUTS[name]
    monkeypatch.setitem(layouts.LAYOUTS, name, layout._replace(
        find=lambda *words: calls.append(words) or layout.find(*words)))
    assert examine(tmp_path, layout=flag).layout == name and len(calls) == 1
    with pytest.raises(UserError, match=f'--layout {flag}: .* of the split .val.; expected val'):
        examine(tmp_path, 'val', layout=flag)


def test_nearest_colours_need_little_memory():
    """Every pixel of another colour, 35 labels."""
    import tracemalloc
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (256, 512, 3), np.uint8).astype(np.int32)
    palette = [[*rng.integers(0, 256, 3).tolist(), i, ''] for i in range(35)]
    tracemalloc.start()
    found = colours_to_labels(colours, palette, 'x', nearest=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 256 * 512                   # bytes, so 200 MB at 2048x1024
    rows = np.array([row[:3] for row in palette])
    assert np.array_equal(found[::16, ::16], np.square(
        colours[::16, ::16, None] - rows).sum(-1).argmin(-1))


def test_a_run_on_odd_data(tmp_path, p2phd):
    """Masks of 0 and 254 under other endings than the photographs: a run is trained on them, goes
    on, and makes pictures of them."""
    for i in '123':
        save(tmp_path / 'own' / 'train_label' / f'{i}_mask.png', grey(0, 254))
        save(tmp_path / 'own' / 'train_img' / f'{i}_sat.png', photo())
    p2phd('train', '--data', 'own', '--steps', 1, '--run', 'run', *BARE, '--device', 'cpu')
    p2phd('train', '--resume', 'run', '--steps', 2, '--device', 'cpu')
    p2phd('generate', '--run', 'run', '--label', 'own/train_label', '--encode', 'own/train_img',
          '--out', 'made', '--device', 'cpu', code=2)
    p2phd('generate', '--run', 'run', '--label', 'own/train_label', '--out', 'made', '--device',
          'cpu')
    assert len(list((tmp_path / 'made').glob('*.png'))) == 3
