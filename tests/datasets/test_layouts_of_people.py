"""Data sets as people lay them out: other folders, other names, other ids. Each row compares the
pairs and the arrays that networks get with those that were written, or applies the remedy that a
message names and looks whether it helps."""
from pathlib import Path
import re
import unicodedata

import numpy as np
from PIL import Image, PngImagePlugin
import pytest

from app.common.errors import UserError
from app.datasets import layouts
from app.datasets.pairs import PairReader
from app.runs import generation
from conftest import BARE, examine

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
    """Write a label map, a photograph and perhaps an instance map (label_map(i) + 7 * i) for each
    name, to the paths that patterns give."""
    for i, name in enumerate(names):
        write(root / label.format(name), label_map(i, labels))
        write(root / image.format(name), photo(i))
        if inst:
            write(root / inst.format(name), label_map(i) + 7 * i)


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
        assert all(np.array_equal(arrays[name]['inst'], label_map(i) + 7 * i)
                   for i, name in enumerate(NAMES))


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
    ('leftside', 'leftsides'), ('1', '0001'), ('img_7', 'img-007_mask'),
    ('seq1/f', 'seq1/f_mask'), ('seq1/f', 'seq2/f')])
@pytest.mark.parametrize('label, image', [('train_label/{}.png', 'train_img/{}.png'),
                                          ('images/{}.png', 'masks/{}.png')])
def test_the_name_that_pairs_is_named(tmp_path, label, image, name, other):
    """Renaming the file as the message says makes a pair of the two."""
    is_label = label.startswith('train')
    write(tmp_path / label.format(name), label_map(0) if is_label else photo(0))
    write(tmp_path / image.format(other), photo(0) if is_label else label_map(0))
    # Names of folders matter if files are the same; with a pair, endings alone make none.
    for scene in ('seq1/more', 'seq2/more') if '/' in name else ('more',):
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


# ------------------------------------------------------------------------ flags come before guesses

@pytest.mark.parametrize('labels, flags, n', [
    ((0, 1, 2, 4500), {'n_labels': 4600}, 4600),
    ((0, 5000, 6000, 9999), {'n_labels': 10000}, 10000),
    ((0, 1, 2, 65535), {'ignore_label': 65535}, 4), ((0, 1, 2, 65535), {'n_labels': 65536}, 65536),
    ((0, 1, 2, 5000), {'ignore_label': 5000, 'n_labels': 3}, 4),
    ((4000, 4999, 5000, 65535), {'ignore_label': 65535, 'n_labels': 5001}, 5002),
    ((0, 4095, 1, 255), {}, 4096), ((0, 1, 2, 255), {'ignore_label': 'none'}, 256),
    ((0, 1, 2, 255), {'n_labels': 256}, 256), ((0, 1, 2, 255), {'n_labels': 300}, 300)])
@pytest.mark.parametrize('label, image', [('train_label/{}.png', 'train_img/{}.png'),
                                          ('masks/{}.png', 'images/{}.png')])
def test_flags_for_labels_come_before_guesses(tmp_path, label, image, labels, flags, n):
    write_dataset(tmp_path, label, image, labels=labels)
    arrays, found = read(tmp_path, **flags)
    assert found.n_labels == n
    unknown = flags.get('ignore_label', 255 if flags.get('n_labels') == 3 else None)
    table = {k: n - 1 if k == unknown else k for k in labels}
    check_arrays(arrays, labels=labels, table=table)


@pytest.mark.parametrize('labels, expected', [
    ((0, 1, 2, 4500), ['--n-labels 4501', '--ignore-label 4500']),
    ((0, 1, 2, 65535), ['--n-labels 65536', '--ignore-label 65535']),
    ((0, 5000, 6000, 9999), ['--n-labels 10000']),
    ((7, 8, 9, 4096), ['--n-labels 4097', '--ignore-label 4096']),
    ((0, 26001, 26002, 11), ['--n-labels 26003'])])
def test_the_flags_that_take_large_ids_work(tmp_path, labels, expected):
    write_dataset(tmp_path, labels=labels)
    problem = next(iter(examine(tmp_path).problems.values()))
    remedies = re.findall(r'(--[a-z-]+) (\d+)', problem)
    assert [' '.join(remedy) for remedy in remedies] == expected
    for flag, value in remedies:
        assert not examine(tmp_path, thorough=True,
                           **{flag.strip('-').replace('-', '_'): int(value)}).problems


@pytest.mark.parametrize('kind', [np.int8, np.int16, np.int32, np.int64])
def test_ids_below_zero(tmp_path, kind):
    write_dataset(tmp_path)
    (tmp_path / 'train_label' / 'x.png').unlink()
    array = label_map(0).astype(kind)
    array[array == 3] = -1
    np.save(tmp_path / 'train_label' / 'x.npy', array)
    assert 'write 255 for unknown pixels' in examine(tmp_path).problems['x']
    np.save(tmp_path / 'train_label' / 'x.npy', np.where(array < 0, 255, array.astype(np.int16)))
    found = examine(tmp_path)
    assert not found.problems and found.n_labels == 5


@pytest.mark.parametrize('form', ['{}_label/{{}}.png {}_img/{{}}.png',
                                  'masks/{}/{{}}.png images/{}/{{}}.png',
                                  '{0}/masks/{{}}.png {0}/images/{{}}.png'])
@pytest.mark.parametrize('labels', [(0, 1, 2, 255), (255, 1, 0, 2), (3, 255, 255, 255)])
def test_255_in_the_validation_maps_alone(tmp_path, form, labels):
    write_dataset(tmp_path, *form.format(*['train'] * 2).split())
    write_dataset(tmp_path, *form.format(*['val'] * 2).split(), labels=labels)
    found = examine(tmp_path)
    with pytest.raises(UserError, match='train with --ignore-label 255 if it means unknown'):
        PairReader(found)(examine(tmp_path, 'val').pairs[0])
    found = examine(tmp_path, ignore_label=255)
    label = PairReader(found)(examine(tmp_path, 'val').pairs[0])['label']
    assert np.array_equal(label, np.where(label_map(0, labels) == 255, 4, label_map(0, labels)))


# ----------------------------------------------------------------- the remedy must be the right one

@pytest.mark.parametrize('split', ['v1.0', 'v1.0-mini', 'fold.2', '2017.val', 'a..b', 'train'])
@pytest.mark.parametrize('form', ['{}_label/{{}}.png {}_img/{{}}.png',
                                  '{0}/masks/{{}}.png {0}/images/{{}}.png'])
def test_names_of_splits_may_hold_dots(p2phd, tmp_path, split, form):
    write_dataset(tmp_path / 'own', *form.format(*[split] * 2).split())
    assert f'3 pairs of the split {split}, 4 labels' in p2phd(
        'check', '--data', 'own', '--split', split)


@pytest.mark.parametrize('split', ['..', '.', '.hidden', 'a/b', '../own', 'v1.', ''])
def test_a_split_is_no_path(command, tmp_path, split):
    assert command('check', '--data', tmp_path, '--split', split)[0] == 2


def grey_rgb(array):
    return np.stack([array] * 3, 2).astype(np.uint8)


def opaque(array):
    return np.dstack([array, np.full(array.shape[:2], 255)]).astype(np.uint8)


LOSSLESS = {
    'grey in three channels': lambda ids: Image.fromarray(grey_rgb(ids)),
    'grey and opaque alpha': lambda ids: Image.fromarray(opaque(ids)),
    'grey in RGB with opaque alpha': lambda ids: Image.fromarray(opaque(grey_rgb(ids))),
    'float': lambda ids: Image.fromarray(ids.astype(np.float32)),
    'float array': lambda ids: ids.astype(np.float32),
    'double array': lambda ids: ids.astype(np.float64),
    'half array': lambda ids: ids.astype(np.float16),
    'array of one channel': lambda ids: ids[..., None].astype(np.float32),
    'grey in three channels of an array': grey_rgb}


def write_map(path, content):
    if isinstance(content, np.ndarray):
        np.save(path.with_suffix('.npy'), content)
    else:
        content.save(path.with_suffix('.tif'))
    path.unlink()


@pytest.mark.parametrize('kind', LOSSLESS)
@pytest.mark.parametrize('labels', [(0, 1, 2, 3), (0, 1, 2, 255), (5, 0, 150, 77)])
def test_maps_that_lose_nothing_are_read(tmp_path, kind, labels):
    write_dataset(tmp_path, labels=labels, inst='train_inst/{}.png')
    for i, name in enumerate(NAMES):
        write_map(tmp_path / 'train_label' / f'{name}.png', LOSSLESS[kind](label_map(i, labels)))
        write_map(tmp_path / 'train_inst' / f'{name}.png', LOSSLESS[kind](label_map(i, labels)))
    arrays, found = read(tmp_path)
    n = found.n_labels
    check_arrays(arrays, labels=labels, table={k: n - 1 if k == 255 else k for k in labels})
    for i, name in enumerate(NAMES):
        regions, ids = arrays[name]['inst'], label_map(i, labels)
        assert all(len({*regions[ids == k]}) == 1 for k in labels)
        assert len({*regions.flat}) == 4


@pytest.mark.parametrize('values, words', [
    (0.5, 'whole numbers'), (np.nan, 'whole numbers'), (np.inf, 'whole numbers'),
    (-0.25, 'whole numbers'), (2.0 ** 40, 'whole numbers')])
@pytest.mark.parametrize('ending', ['.npy', '.tif'])
def test_maps_of_fractions_are_refused_for_what_they_are(tmp_path, values, words, ending):
    write_dataset(tmp_path)
    array = label_map(0).astype(np.float32)
    array[2, 2] = values
    write_map(tmp_path / 'train_label' / 'x.png',
              array if ending == '.npy' else Image.fromarray(array))
    problem = examine(tmp_path).problems['x']
    assert words in problem and '--palette' not in problem


@pytest.mark.parametrize('channels', [3, 4])
@pytest.mark.parametrize('folder', ['train_inst', 'instances'])
def test_instance_maps_in_colours_are_ids(tmp_path, channels, folder):
    write_dataset(tmp_path, *(() if folder == 'train_inst' else ('masks/{}.png', 'images/{}.png')))
    colours = np.array([[0, 0, 0], [250, 50, 83], [50, 183, 250], [0, 0, 1]], np.uint8)
    for i, name in enumerate(NAMES):
        pixels = colours[label_map(i)]
        pixels = opaque(pixels) if channels == 4 else pixels
        write(tmp_path / folder / f'{name}.png', pixels)
    arrays, _ = read(tmp_path)
    for i, name in enumerate(NAMES):
        same = label_map(i)[:, :, None, None] == label_map(i)
        inst = arrays[name]['inst']
        assert np.array_equal(inst[:, :, None, None] == inst, same)


def test_instance_maps_in_colours_of_jpeg_are_refused(tmp_path):
    write_dataset(tmp_path)
    for i, name in enumerate(NAMES):
        write(tmp_path / 'train_inst' / f'{name}.jpg', photo(i))
    problems = examine(tmp_path).problems
    assert set(problems) == {*NAMES}
    assert all(re.search('JPEG changes .*PNG', problem) for problem in problems.values())
    problems = examine(tmp_path, jpeg_labels=True).problems
    assert all('changes colours: use PNG' in problem for problem in problems.values())
    assert set(problems) == {*NAMES}


def test_maps_in_colours_name_the_palette_only_where_there_is_none(tmp_path):
    write_dataset(tmp_path)
    write(tmp_path / 'train_label' / 'x.png', photo(0))
    assert '--palette FILE' in examine(tmp_path).problems['x']
    (tmp_path / 'palette.txt').write_text('0,0,0,0')
    np.save(tmp_path / 'train_label' / 'y.npy', np.zeros((12, 16, 5), np.uint8))
    (tmp_path / 'train_label' / 'y.png').unlink()
    problems = examine(tmp_path, thorough=True, palette=str(tmp_path / 'palette.txt')).problems
    assert set(problems) == {'x', 'y', 'z'}
    assert not any('--palette' in problem.replace('--palette-nearest', '')
                   for problem in problems.values())


@pytest.mark.parametrize('flag', ['--n-down', '--n-scales', '--n-enhancers'])
@pytest.mark.parametrize('value', [8, 12])
def test_networks_that_ask_for_too_large_pictures(command, tmp_path, flag, value):
    """The flag is named, not the picture; with what is named instead it works."""
    value = min(value, 8) if flag == '--n-enhancers' else value
    write_dataset(tmp_path / 'own')
    model = ['--model', 'local'] if flag == '--n-enhancers' else []
    words = ['train', '--data', 'own', '--size', 'native', '--steps', '1', *model, '--ngf', 8,
             '--ndf', '8', '--n-blocks', '1', '--dry-run', '--device', 'cpu']
    code, _, err = command(*words, flag, value)
    assert code == 2 and err.count('\n') == 1
    assert 'leave it out' not in err and '16x12' in err
    remedies = re.findall(r'(--n-\w+) \d+ to (\d+)', err)
    assert 'lower' in err and flag in {name for name, _ in remedies}
    code, _, err = command(*words, *sum(remedies, ()))
    assert code == 0, err


# ------------------------------------------------------------------------- layouts of pix2pix

COLOURS = np.array([[10, 20, 250], [250, 240, 0], [0, 200, 30], [200, 0, 0]], np.uint8)
SMOOTH = np.add.outer(np.arange(32), np.arange(32)) * 4


def smooth_photo(i):
    """A photograph that JPEG changes little, of more colours than a map."""
    return np.stack([SMOOTH, 255 - SMOOTH, np.roll(SMOOTH, 5 * i + 9, 1)], 2).astype(np.uint8)


def drawing(i):
    return COLOURS[np.kron(np.roll([[0, 1], [2, 3]], i), np.ones((16, 16), int))]


def write_side_by_side(root, side, folder='train', suffix='.png', names=NAMES):
    for i, name in enumerate(names):
        halves = [drawing(i), smooth_photo(i)][::1 if side == 'left' else -1]
        write(root / folder / f'{name}{suffix}', np.concatenate(halves, 1),
              **{'quality': 95} if suffix != '.png' else {})


def write_palette(path, first=0):
    path.write_text('\n'.join(f'{r},{g},{b},{i}' for i, (r, g, b) in enumerate(COLOURS, first)))
    return str(path)


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp', '.bmp'])
@pytest.mark.parametrize('flag', ['auto', 'side-by-side', 'map-{}'])
def test_side_by_side(tmp_path, capsys, side, suffix, flag):
    write_side_by_side(tmp_path, side, suffix=suffix)
    arrays, found = read(tmp_path, layout=flag.format(side))
    assert found.layout == f'side by side, map {side}' and found.n_labels == 0
    assert (f'the {side} half is taken for the map' in capsys.readouterr().err) == (
        'map' not in flag)
    tolerance = 0 if suffix in ('.png', '.bmp') else 40
    for i, name in enumerate(NAMES):
        for role, expected in ('label', drawing(i)), ('image', smooth_photo(i)):
            difference = np.abs(arrays[name][role].astype(int) - expected)
            assert arrays[name][role].shape == (32, 32, 3)
            assert difference.mean() <= tolerance / 4 and (tolerance or not difference.any())


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('names', [['a/f', 'b/f'], ['1', '2', '10'], ['a b', 'é']])
def test_the_other_half_by_flag(tmp_path, side, names):
    write_side_by_side(tmp_path, side, names=names)
    other = 'right' if side == 'left' else 'left'
    arrays, _ = read(tmp_path, layout=f'map-{other}')
    assert sorted(arrays) == sorted(names)
    for i, name in enumerate(names):
        assert np.array_equal(arrays[name]['image'], drawing(i))


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp'])
@pytest.mark.parametrize('first', [0, 3])
def test_colours_of_side_by_side_are_labels(tmp_path, capsys, side, suffix, first):
    """JPEG changes colours, which the nearest ones replace; the share of such pixels is said."""
    write_side_by_side(tmp_path, side, suffix=suffix)
    palette = write_palette(tmp_path / 'palette.txt', first)
    if suffix == '.jpg':
        problem = next(iter(examine(tmp_path, thorough=True, palette=palette).problems.values()))
        assert '--palette-nearest' in problem
    arrays, found = read(tmp_path, palette=palette, palette_nearest=True)
    share = float(re.search(r'([\d.e+-]+) % of the pixels', capsys.readouterr().err)[1])
    assert (share == 0) == (suffix == '.png') and found.n_labels == 4 + first
    for i, name in enumerate(NAMES):
        expected = np.kron(np.roll([[0, 1], [2, 3]], i), np.ones((16, 16), int)) + first
        inner = (arrays[name]['label'] == expected)[:, np.r_[:12, 20:32]][np.r_[:12, 20:32]]
        assert inner.all()
        assert np.array_equal(arrays[name]['label'], expected) or suffix != '.png'


def test_halves_that_look_alike_and_pictures_that_are_not_pairs(tmp_path):
    write_side_by_side(tmp_path / 'alike', 'left')
    for i, name in enumerate(NAMES):
        write(tmp_path / 'alike' / 'train' / f'{name}.png',
              np.concatenate([smooth_photo(i), smooth_photo(i)[::-1]], 1))
        write(tmp_path / 'photos' / 'train' / f'{name}.png', smooth_photo(i))
    with pytest.raises(UserError, match='--layout map-left or --layout map-right'):
        examine(tmp_path / 'alike')
    assert examine(tmp_path / 'alike', layout='map-left').pairs[0].label.name == 'left'
    with pytest.raises(UserError, match='expected train_label/'):
        examine(tmp_path / 'photos')
    with pytest.raises(UserError, match='--layout map-left: .* expected val/'):
        examine(tmp_path / 'photos', 'val', layout='map-left')


@pytest.mark.parametrize('form', ['{}A', '{}_A'])
@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_a_to_b_of_equal_names(tmp_path, form, split):
    a = form.format(split)
    write_dataset(tmp_path, f'{a}/{{}}.png', f'{a[:-1]}B/{{}}.png')
    arrays, found = read(tmp_path, split)
    assert found.layout == 'A to B' and found.n_labels == 0
    for i, name in enumerate(NAMES):
        assert np.array_equal(arrays[name]['label'][..., 0], label_map(i))
        assert np.array_equal(arrays[name]['image'], photo(i))


@pytest.mark.parametrize('a, b', [
    (['n02381460_2', 'n02381460_3'], ['n02391049_2', 'n02391049_77']), (['2014-08-01'], ['x']),
    (['horse'], ['zebra']), (['1', '3'], ['8', '9']), (['apple_a1'], ['orange.k'])])
@pytest.mark.parametrize('form', ['train{}', 'train_{}'])
def test_sets_of_cyclegan_are_no_pairs(tmp_path, form, a, b):
    for role, names in ('A', a), ('B', b):
        for name in names:
            write(tmp_path / form.format(role) / f'{name}.jpg', photo(0))
    try:
        problems = ' '.join(examine(tmp_path).problems.values())
        assert 'no photograph of the same name; the nearest' in problems
    except UserError as error:
        assert 'CycleGAN' in str(error) and 'under the same name' in str(error)


def test_a_run_on_pictures_side_by_side(p2phd, tmp_path):
    """It trains, goes on, and takes the half of each picture that it was trained on."""
    write_side_by_side(tmp_path / 'own', 'right', suffix='.jpg')
    palette = write_palette(tmp_path / 'palette.txt')
    words = [*BARE[2:], '--size', '32x32', '--device', 'cpu', '--workers', '0']
    p2phd('train', '--data', 'own', '--palette', palette, '--palette-nearest', '--steps', 1,
          '--run', 'run', *words)
    p2phd('train', '--resume', 'run', '--steps', 2, '--device', 'cpu')
    for given in 'own/train', 'own/train/x.jpg', 'own/train/x.jpg/right':
        p2phd('generate', '--run', 'run', '--label', given, '--device', 'cpu', '--out', 'made')
        path = Path('made', 'x_generated.png')
        assert Image.open(path).size == (32, 32)
        path.unlink()


# --------------------------------------------------------------------- formats that are not read

@pytest.mark.parametrize('suffix', ['.heic', '.HEIC', '.jp2', '.gif', '.ppm', '.avif', '.psd'])
@pytest.mark.parametrize('role', ['train_label', 'train_img'])
@pytest.mark.parametrize('how_many', [1, 3])
def test_endings_that_are_not_read(tmp_path, suffix, role, how_many):
    """Converted to PNG, as the message says, the file is read."""
    write_dataset(tmp_path)
    for name in NAMES[:how_many]:
        (tmp_path / role / f'{name}.png').rename(tmp_path / role / f'{name}{suffix}')
    try:
        problem = min(examine(tmp_path).problems.values())
    except UserError as error:
        problem = str(error)
    assert problem == f'{tmp_path / role / NAMES[0]}{suffix}: ' \
                      'format not read: convert it to PNG (photographs: or to JPEG)'
    for name in NAMES[:how_many]:
        (tmp_path / role / f'{name}{suffix}').rename(tmp_path / role / f'{name}.png')
    check_arrays(read(tmp_path)[0])


@pytest.mark.parametrize('kind, name', [
    ('GIF', 'GIF'), ('PPM', 'PPM'), ('AVIF', 'AVIF'), ('ICO', 'ICO'), ('JPEG2000', 'JPEG 2000'),
    ('PDF', 'PDF'), ('EPS', 'EPS'), (b'\0\0\0\x18ftypheic', 'HEIC'), (b'8BPS\0\1', 'Photoshop'),
    (b'\xff\x0a\0', 'JPEG XL'), (b'<svg xmlns=""/>', 'SVG'), (b'v/1\1\2', 'OpenEXR')])
@pytest.mark.parametrize('role', ['train_label', 'train_img'])
def test_formats_under_another_ending(tmp_path, kind, name, role):
    write_dataset(tmp_path)
    path = tmp_path / role / 'x.png'
    if isinstance(kind, bytes):
        path.write_bytes(kind + bytes(100))
    else:
        try:
            Image.fromarray(photo(0)).save(path, kind)
        except (KeyError, OSError):
            pytest.skip('this Pillow cannot write it')
    assert examine(tmp_path).problems['x'] == (
        f'{path}: {name}, format not read: convert it to PNG (photographs: or to JPEG)')


@pytest.mark.parametrize('suffix', ['.jfif', '.JFIF', '.jpe', '.JPEG', '.jpg'])
def test_endings_of_jpeg(tmp_path, suffix):
    write_dataset(tmp_path)
    for i, name in enumerate(NAMES):
        (tmp_path / 'train_img' / f'{name}.png').unlink()
        Image.fromarray(photo(i)).save(tmp_path / 'train_img' / f'{name}{suffix}', 'JPEG')
    arrays, _ = read(tmp_path)
    for name in NAMES:
        expected = Image.open(tmp_path / 'train_img' / f'{name}{suffix}')
        assert np.array_equal(arrays[name]['image'], np.asarray(expected))


@pytest.mark.parametrize('kind', ['zTXt', 'iTXt', 'tEXt', 'profile', 'many', 'behind'])
@pytest.mark.parametrize('role', ['train_label', 'train_img'])
def test_pixels_of_a_png_with_large_texts(tmp_path, kind, role):
    write_dataset(tmp_path)
    path, large, options = tmp_path / role / 'x.png', 'x' * (3 << 20), {}
    info = PngImagePlugin.PngInfo()
    if kind in ('zTXt', 'tEXt', 'behind'):
        info.add_text('a', large, zip=kind != 'tEXt')
    elif kind == 'iTXt':
        info.add_itxt('a', large, zip=True)
    elif kind == 'many':
        for i in range(70):
            info.add_text(f'a{i}', large[:1 << 20], zip=True)
    else:
        options = {'icc_profile': large.encode()}
    with Image.open(path) as picture:
        picture.load()
    picture.save(path, pnginfo=info, **options)
    if kind == 'behind':
        blob = path.read_bytes()
        start = blob.index(b'zTXt') - 4
        end = start + 12 + int.from_bytes(blob[start:start + 4], 'big')
        last = blob.index(b'IEND') - 4
        path.write_bytes(blob[:start] + blob[end:last] + blob[start:end] + blob[last:])
    check_arrays(read(tmp_path)[0])


# ------------------------------------------------------------------------ relatives of Cityscapes

@pytest.mark.parametrize('split', ['train', 'train_extra', 'val'])
@pytest.mark.parametrize('inst', [None, 'gtCoarse/{}/{{}}_gtCoarse_instanceIds.png'])
def test_coarse_maps_of_cityscapes(tmp_path, split, inst):
    write_dataset(tmp_path, f'gtCoarse/{split}/a/{{}}_gtCoarse_labelIds.png',
                  f'leftImg8bit/{split}/a/{{}}_leftImg8bit.png', inst=inst and inst.format(split))
    write(tmp_path / 'gtCoarse' / split / 'a' / 'x_gtCoarse_color.png', photo(0))
    arrays, found = read(tmp_path, split)
    check_arrays(arrays)
    assert (found.layout, found.n_labels) == ('Cityscapes', 35)
    write_dataset(tmp_path, f'gtFine/{split}/a/{{}}_gtFine_labelIds.png', names='x', image='y.png')
    assert 'gtFine' in layouts.find_pairs(tmp_path, split)[1][0].label.parts   # it comes first


@pytest.mark.parametrize('ending', ['_gtFine_labelTrainIds', '_gtFine_labelids', '_labelTrainIds',
                                    '_gtFine_labellevel3Ids', '_gtFine_labelcsTrainids'])
@pytest.mark.parametrize('labels', [(0, 1, 2, 18), (0, 7, 18, 255)])
def test_other_endings_in_folders_of_cityscapes(tmp_path, ending, labels):
    """Renamed as the message says, the maps are read."""
    write_dataset(tmp_path, f'gtFine/train/{{}}{ending}.png',
                  'leftImg8bit/train/{}_leftImg8bit.png', labels=labels)
    with pytest.raises(UserError) as error:
        examine(tmp_path)
    old, new = re.search('rename (\\S+) to (\\S+),', str(error.value)).groups()
    for path in sorted((tmp_path / 'gtFine').rglob('*.png')):
        path.rename(path.with_name(path.name.replace(old, new)))
    arrays, found = read(tmp_path)
    check_arrays(arrays, labels=labels, table={
        label: found.n_labels - 1 if label == 255 else label for label in labels})


@pytest.mark.parametrize('image', [
    'leftImg8bit_foggy/train/a/{}_leftImg8bit_foggy_beta_0.0{}.png',
    'leftImg8bit/train/a/{}_leftImg8bit_foggy_beta_0.0{}.png',
    'leftImg8bit_rain/train/a/{}_leftImg8bit_rain_{}.png', 'rightImg8bit/train/a/{}_{}.png'])
def test_several_photographs_of_a_map_of_cityscapes(tmp_path, image):
    """One of them in the place and under the ending that the message names is read."""
    for i, name in enumerate(NAMES):
        write(tmp_path / 'gtFine' / 'train' / 'a' / f'{name}_gtFine_labelIds.png', label_map(i))
        for beta in 1, 2:
            write(tmp_path / image.format(name, beta), photo(i))
    with pytest.raises(UserError) as error:
        examine(tmp_path)
    place = re.search(r'looked for as (\S+)/\*(\S+)\.\*;', str(error.value))
    for i, name in enumerate(NAMES):
        write(tmp_path / place[1] / f'{name}{place[2]}.png', photo(i))
    check_arrays(read(tmp_path)[0])
