"""Data sets as people lay them out: other folders, other names, other ids. Each row compares the
pairs and the arrays that networks get with those that were written, or applies the remedy that a
message names and looks whether it helps."""
from pathlib import Path
import re
import unicodedata

import numpy as np
from PIL import Image
import pytest

from app.common.errors import UserError
from app.datasets import layouts
from app.datasets.pairs import PairReader
from app.runs import generation
from conftest import examine

NAMES = 'x', 'y', 'z'


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)


def label_map(i, labels=(0, 1, 2, 3)):
    """Blocks of labels, 16x12, other ones for each i."""
    blocks = np.array([labels[(k + i) % len(labels)] for k in range(12)]).reshape(3, 4)
    return np.kron(blocks, np.ones((4, 4), int)).astype(np.uint16 if max(labels) > 255
                                                        else np.uint8)


def photo(i):
    return np.random.default_rng(i).integers(0, 255, (12, 16, 3), np.uint8)


def write_dataset(root, label='train_label/{}.png', image='train_img/{}.png', names=NAMES,
                  labels=(0, 1, 2, 3), inst=None):
    """Write a label map and a photograph for each name, to the paths that two patterns give."""
    for i, name in enumerate(names):
        write(root / label.format(name), label_map(i, labels))
        write(root / image.format(name), photo(i))
        if inst:
            write(root / inst.format(name), np.full((12, 16), 7 * i, np.uint8))


def read(root, split='train', **flags):
    """Return {scene: arrays} as the networks get them, and what examine tells."""
    found = examine(root, split, **flags)
    assert not found.problems, found.problems
    reader = PairReader(found)
    return {pair.name: reader(pair) for pair in found.pairs}, found


def check_arrays(arrays, n=3, labels=(0, 1, 2, 3), table=None):
    """Assert that the scenes hold what write_dataset has written, in its order."""
    assert len(arrays) == n
    for i, name in enumerate(sorted(arrays)):
        expected = label_map(i, labels).astype(int)
        expected = np.vectorize(table.get)(expected) if table else expected
        assert np.array_equal(arrays[name]['label'], expected), name
        assert np.array_equal(arrays[name]['image'], photo(i)), name


# ------------------------------------------------------- folders with the names of other data sets

@pytest.mark.parametrize('label, image, inst', [
    ('annotations/training/{}.png', 'images/training/{}.png', None),
    ('annotations/training/{}.png', 'images/training/{}.png',
     'annotations_instance/training/{}.png'),
    ('annotations/train/{}.png', 'images/train/{}.png', None),
    ('annotations/{}.png', 'images/{}.jpg', None),
    ('annotations/trimaps/{}.png', 'images/{}.png', None),
    ('masks/{}.png', 'images/{}.png', None),
    ('labels/train/{}.png', 'images/train/{}.png', None),
    ('train/labels/{}.png', 'train/images/{}.png', 'train/instances/{}.png'),
    ('train/masks/{}.png', 'train/images/{}.png', None),
    ('train_masks/{}.png', 'train_images/{}.png', None),
    ('Masks_train/{}.png', 'Images_train/{}.png', None),
    ('ann_dir/train/{}.png', 'img_dir/train/{}.png', None),
    ('SegmentationClass/{}.png', 'JPEGImages/{}.png', 'SegmentationObject/{}.png'),
    ('gtFine/train/{}_labelIds.png', 'leftImg8bit/train/{}_leftImg8bit.png',
     'gtFine/train/{}_instanceIds.png'),
    ('gtFine/train/{}.png', 'leftImg8bit/train/{}.png', None),
    ('images/training/{}_seg.png', 'images/training/{}.jpg', None)])
def test_labels_of_your_own_in_folders_of_other_names(tmp_path, label, image, inst):
    image = image.replace('.jpg', '.png') if 'seg' not in label else image
    flags = {'n_labels': 4} if '_labelIds' in label else {}
    write_dataset(tmp_path, label, image, inst=inst)
    arrays, found = read(tmp_path, **flags)
    if image.endswith('.jpg'):
        arrays = {name: {**arrays[name], 'image': photo(i)} for i, name in enumerate(NAMES)}
    check_arrays(arrays)
    assert found.n_labels == 4 and not found.void and not found.label_names
    assert found.instances == ('files' if inst else 'none')
    if inst:
        assert [int(arrays[name]['inst'][0, 0]) for name in NAMES] == [0, 7, 14]


@pytest.mark.parametrize('folder', ['annotations/training/{}.png|images/training/{}.png',
                                    'annotations/training/ADE_{}.png|images/training/ADE_{}.png',
                                    'gtFine/train/{}_labelIds.png|'
                                    'leftImg8bit/train/{}_leftImg8bit.png'])
@pytest.mark.parametrize('labels, flags, n', [
    ((0, 1, 2, 3), {'n_labels': 9}, 9),             # a flag wins
    ((0, 1, 2, 255), {'n_labels': 3}, 4),           # and 255 is unknown, as in flat folders
    ((0, 70, 200, 3), {}, 201), ((5, 180, 160, 255), {}, 182),     # the data set lacks these ids
    ((0, 1, 2, 255), {'n_labels': 3, 'ignore_label': 255}, 4),
    ((0, 300, 2, 3), {}, 301), ((0, 300, 2, 3), {'n_labels': 400}, 400)])
def test_ids_and_flags_tell_whose_labels_these_are(tmp_path, folder, labels, flags, n):
    write_dataset(tmp_path, *folder.split('|'), labels=labels)
    arrays, found = read(tmp_path, **flags)
    assert found.n_labels == n and 0 not in found.void
    table = {label: label for label in labels} | ({255: n - 1} if 255 in labels else {})
    check_arrays(arrays, labels=labels, table=table)


@pytest.mark.parametrize('label, image', [
    ('annotations/training/ADE_{}.png', 'images/training/ADE_{}.png'),
    ('annotations/training/{}.png', 'images/training/{}.png'),
    ('gtFine/train/{}_labelIds.png', 'leftImg8bit/train/{}_leftImg8bit.png'),
    ('train_A/{}.png', 'train_B/{}.png'), ('masks/{}.png', 'images/{}.png')])
def test_a_palette_tells_what_is_void(tmp_path, label, image):
    colours = np.array([[9, 9, 9], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    write_dataset(tmp_path, label, image)
    for i, name in enumerate(NAMES):
        write(tmp_path / label.format(name), colours[label_map(i)])
    for names, void in (('abcd', []), (('void', *'bcd'), [0])):
        (tmp_path / 'palette.txt').write_text('\n'.join(
            f'{r},{g},{b},{k},{names[k]}' for k, (r, g, b) in enumerate(colours)))
        arrays, found = read(tmp_path, palette=str(tmp_path / 'palette.txt'))
        check_arrays(arrays)
        assert found.n_labels == 4 and found.void == void


def test_ade20k_and_cityscapes_stay_what_they_are(tmp_path):
    write_dataset(tmp_path / 'ade', 'annotations/training/ADE_train_{}.png',
                  'images/training/ADE_train_{}.png')
    found = examine(tmp_path / 'ade')
    assert (found.layout, found.n_labels, found.void) == ('ADE20K scene parsing', 151, [0])
    write_dataset(tmp_path / 'city', 'gtFine/train/{}_labelIds.png',
                  'leftImg8bit/train/{}_leftImg8bit.png', labels=(0, 7, 26, 255))
    write_dataset(tmp_path / 'city', 'gtFine/train/{}_labelIds.png',
                  'leftImg8bit/train/{}_leftImg8bit.png', names='abcd')
    found = examine(tmp_path / 'city')
    assert (found.layout, found.n_labels) == ('Cityscapes', 35)     # 3 of 7 maps have 255
    with pytest.raises(UserError, match='--ignore-label 255 if it means unknown'):
        read_all(found)
    read_all(examine(tmp_path / 'city', ignore_label=255))


def read_all(found):
    return [PairReader(found)(pair) for pair in found.pairs]


def test_runs_of_before_read_their_folders_as_before(tmp_path):
    """A folder that was taken for ADE20K is read so, for a run that was trained then."""
    write_dataset(tmp_path, 'annotations/training/{}.png', 'images/training/{}.png')
    found = examine(tmp_path)
    assert found.layout == layouts.OWN
    found.layout, found.n_labels = 'ADE20K scene parsing', 151
    assert layouts.find_pairs(tmp_path, config=found)[0].name == 'ADE20K scene parsing'


@pytest.mark.parametrize('form', ['{}.txt', 'ImageSets/Segmentation/{}.txt', 'splits/{}.txt',
                                  'annotations/{}.txt'])
@pytest.mark.parametrize('split, listed', [('train', 'x z'), ('val', 'y'), ('trainval', 'x y')])
def test_lists_of_splits(tmp_path, form, split, listed):
    """Photographs without a map are not missed if a list leaves them out."""
    write_dataset(tmp_path, 'SegmentationClass/{}.png', 'JPEGImages/{}.png')
    write(tmp_path / 'JPEGImages' / 'more.png', photo(9))
    path = tmp_path / form.format(split)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('# names\n' + ''.join(f'{name} 1 1\n' for name in listed.split()))
    assert list(read(tmp_path, split)[0]) == listed.split()


@pytest.mark.parametrize('where', ['train2017', 'images/train2017', 'images'])
def test_coco_panoptic(tmp_path, where):
    """The remedy works: categories to train_label/, numbers of segments to train_inst/."""
    maps = tmp_path / 'annotations' / 'panoptic_train2017'
    maps.with_suffix('.json').parent.mkdir()
    maps.with_suffix('.json').write_text('{}')
    for i, name in enumerate(NAMES):
        write(maps / f'{name}.png', np.full((12, 16, 3), (i, 5, 1), np.uint8))
        write(tmp_path / where / f'{name}.jpg', photo(i))
    with pytest.raises(UserError, match='COCO panoptic.* train_label/.* train_inst/'):
        examine(tmp_path)
    write_dataset(tmp_path, inst='train_inst/{}.png')
    check_arrays(read(tmp_path)[0])


@pytest.mark.parametrize('folders', [('a', 'b'), ('pictures', 'stuff'), ('train', 'extra'), ('x',)])
def test_folders_that_tell_nothing(tmp_path, folders):
    for folder in folders:
        write(tmp_path / folder / 'x.png', label_map(0))
    with pytest.raises(UserError) as error:
        examine(tmp_path)
    assert 'train_label/ and train_img/' in str(error.value)
    assert ', '.join(f'{folder}/' for folder in sorted(folders)) in str(error.value)


# ------------------------------------------------------------------------------- names of scenes

def nfd(name):
    return unicodedata.normalize('NFD', name)


@pytest.mark.parametrize('label, image', [
    ('train_label/{}.png', 'train_img/{}.png'), ('train_img/{}.png', 'train_label/{}.png'),
    ('masks/{}.png', 'images/{}.png'), ('annotations/training/{}.png', 'images/training/{}.png'),
    ('gtFine/train/{}_labelIds.png', 'leftImg8bit/train/{}_leftImg8bit.png')])
@pytest.mark.parametrize('names', [['café'], ['Zürich', 'Ålesund'], ['한국', 'plain'],
                                   ['é', 'è', 'e']])
def test_spellings_of_unicode(tmp_path, label, image, names):
    """macOS stores é as e and an accent. The scene has the name of its label map."""
    names = sorted(names)
    swapped = label.startswith('train_img')
    for i, name in enumerate(names):
        first, second = (nfd(name), name) if swapped else (name, nfd(name))
        label_path, image_path = (image, label) if swapped else (label, image)
        write(tmp_path / label_path.format(first), label_map(i))
        write(tmp_path / image_path.format(second), photo(i))
        write(tmp_path / 'maps' / f'{first}.png', label_map(i))
        write(tmp_path / 'photos' / f'{second}.png', photo(i))
    arrays, _ = read(tmp_path)
    scenes = {nfd(name) if swapped else name: i for i, name in enumerate(names)}
    assert arrays.keys() == scenes.keys()
    for name, i in scenes.items():
        assert np.array_equal(arrays[name]['label'], label_map(i))
        assert np.array_equal(arrays[name]['image'], photo(i))
    files = generation.pair_files([tmp_path / 'maps'], [], [tmp_path / 'photos'], tmp_path / 'out')
    assert files.photos.keys() == files.labels.keys() == scenes.keys()


@pytest.mark.parametrize('label, image', [
    ('train_label/{}.png', 'train_img/{}.jpg'), ('masks/{}.png', 'images/{}.png'),
    ('train/masks/{}.png', 'train/images/{}.png'), ('train_A/{}.png', 'train_B/{}.png'),
    ('annotations/training/{}.png', 'images/training/{}.png'),
    ('gtFine/train/{}_labelIds.png', 'leftImg8bit/train/{}_leftImg8bit.png')])
@pytest.mark.parametrize('names', [
    ['seq1/f_0', 'seq2/f_0'], ['a/1/f', 'a/2/f', 'b/1/f'], ['f', 'seq/f'], ['a/f', 'b/f', 'b/g']])
def test_the_same_name_in_several_folders(tmp_path, label, image, names):
    image = image.replace('.jpg', '.png')
    write_dataset(tmp_path, label, image, names)
    arrays, found = read(tmp_path)
    assert sorted(arrays) == sorted(names)
    for i, name in enumerate(names):
        assert np.array_equal(arrays[name]['image'], photo(i))
        if found.n_labels:
            assert np.array_equal(arrays[name]['label'], label_map(i))


def test_a_folder_of_photographs_may_have_more_sequences(tmp_path):
    write_dataset(tmp_path, names=['seq1/f', 'seq1/g'])
    write(tmp_path / 'train_img' / 'seq2' / 'f.png', photo(8))
    _, pairs, problems = layouts.find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ['seq1/f', 'seq1/g']
    assert list(problems) == ['seq2/f'] and 'no label map' in problems['seq2/f']


@pytest.mark.parametrize('given', [['maps'], ['maps/seq1', 'maps/seq2'], ['maps/seq2', 'maps/seq1'],
                                   ['maps/seq1/f.png', 'maps/seq2/f.png'],
                                   ['maps/seq1', 'maps/seq2/f.png']])
def test_pictures_keep_the_paths_of_their_label_maps(p2phd, trained, tmp_path, given):
    for folder, kind in ('maps', np.zeros), ('insts', np.ones):
        for seq in 'seq1', 'seq2':
            write(tmp_path / folder / seq / 'f.png', kind((32, 64), np.uint8))
    insts = [name.replace('maps', 'insts') for name in given]
    p2phd('generate', '--run', trained, '--label', *given, '--inst', *insts, '--out', 'made',
          '--device', 'cpu')
    made = sorted(path.relative_to('made').as_posix() for path in Path('made').rglob('*.png'))
    assert made == ['seq1/f_generated.png', 'seq2/f_generated.png']
    page = Path('made', 'index.html').read_text()
    assert all(f'src="{path}"' in page for path in made)


def test_plain_names_are_what_they_were(trained, p2phd, tmp_path):
    """A map alone, in a folder and beside others makes the same picture, to the byte."""
    for name in 'x', 'y':
        write(tmp_path / 'maps' / 'seq1' / f'{name}.png', label_map(0, (0, 7, 26)).repeat(2, 0))
    pictures = []
    for i, given in enumerate((['maps'], ['maps/seq1/x.png'], ['maps/seq1'])):
        p2phd('generate', '--run', trained, '--label', *given, '--sample', '--out', f'made{i}',
              '--device', 'cpu')
        pictures.append(Path(f'made{i}', 'x_seed0_1.png').read_bytes())
    assert len({*pictures}) == 1


@pytest.mark.parametrize('name, other', [
    ('1', '1_mask'), ('1_sat', '1_mask'), ('1_label', '1'), ('a', 'A'), ('a.jpg', 'a'),
    ('frame_1_gt', 'frame_1_rgb'), ('street 01', 'street-01'), ('IMG_0001', 'img_0001_seg'),
    ('1_A', '1_B'), ('mask_7', 'image_7'), ('photo 3', 'label 3'), ('x1.png', 'X1_labels'),
    ('leftside', 'leftsides'), ('seq1/f', 'seq1/f_mask'), ('seq1/f', 'seq2/f')])
@pytest.mark.parametrize('label, image', [('train_label/{}.png', 'train_img/{}.png'),
                                          ('images/{}.png', 'masks/{}.png')])
def test_the_name_that_pairs_is_named(tmp_path, label, image, name, other):
    """Renaming the file as the message says makes a pair of the two."""
    is_label = label.startswith('train')
    write(tmp_path / label.format(name), label_map(0) if is_label else photo(0))
    write(tmp_path / image.format(other), photo(0) if is_label else label_map(0))
    if '/' in name:                                 # names of folders matter if files are the same
        for scene in ('seq1/more', 'seq2/more'):
            write(tmp_path / label.format(scene), label_map(0) if is_label else photo(0))
            write(tmp_path / image.format(scene), photo(0) if is_label else label_map(0))
    _, pairs, problems = layouts.find_pairs(tmp_path)
    assert len(problems) == 2, problems
    for problem in problems.values():
        assert 'of the same name; the nearest is ' in problem
    path, new = re.search(r'nearest is (.*?): it pairs if you rename it to (.*)',
                          min(problems.values())).groups()
    role_folder = next(folder for folder in Path(path).parents if folder.parent == tmp_path)
    target = role_folder / new if '/' in new else Path(path).with_name(new)
    Path(path).rename(target)
    _, renamed, problems = layouts.find_pairs(tmp_path)
    assert len(renamed) == len(pairs) + 1 and not problems


def test_two_files_of_a_name_in_one_folder(tmp_path):
    write_dataset(tmp_path)
    for name in 'x.jpg', 'x.bmp':
        write(tmp_path / 'train_img' / name, photo(0))
        with pytest.raises(UserError, match='x.* and .*x.* have the same name: take only one'):
            layouts.find_pairs(tmp_path)
        (tmp_path / 'train_img' / name).unlink()
    check_arrays(read(tmp_path)[0])
