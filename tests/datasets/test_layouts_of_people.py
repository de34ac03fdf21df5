"""Data sets as people lay them out: other folders, other names, other ids. Each row compares the
pairs and the arrays that networks get with those that were written, or applies the remedy that a
message names and looks whether it helps."""
import numpy as np
from PIL import Image
import pytest

from app.common.errors import UserError
from app.datasets import layouts
from app.datasets.pairs import PairReader
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
