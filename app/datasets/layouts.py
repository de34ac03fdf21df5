"""From a folder as a data set's site hands it out to label maps, instance maps and photographs
paired by name.

LAYOUTS, below, is a table with a row for each layout: how it is recognised, how its files are read,
its labels and their colours. To add a data set is to add a row.
"""
from collections import namedtuple
from collections.abc import Callable
import csv
from dataclasses import dataclass, field
import functools
import os
from pathlib import Path
import re

import numpy as np

import data
from app.datasets import decoding
from app.datasets.decoding import SUFFIXES
from app.common.errors import UserError, as_user_error
from app.common.files import require_regular_file, read_text
from app.datasets.matlab import open_hdf5, read_mat
from app.datasets import palettes

# The files of one scene have one name, but for these endings, which tell what they are.
ENDINGS = {'_gtFine_labelIds': 'label', '_labelIds': 'label', '_gtFine_instanceIds': 'inst',
           '_instanceIds': 'inst', '_leftImg8bit': 'image', '_seg': 'label inst'}
OTHERS = r'_gtFine_(color|labelTrainIds)|_parts_\d+'        # files that nobody reads
LONG_SPLITS = {'train': 'training', 'val': 'validation'}    # as ADE20K calls them

# Functions (path, size or None) -> (H, W[, C]) ndarray, and a text that changes when what they
# return does.
Readers = namedtuple('Readers', 'label inst image signature')

# Paths; inst may be None. One may name a part of a file (NYU) or a folder (Helen), as the readers
# of its layout know.
Pair = namedtuple('Pair', 'name label inst image')


# ------------------------------------------------------------------------------------ file names

def scene_name(path):
    """What the files of a scene share: the stem less what tells them apart."""
    stem = Path(path).stem
    return next((stem.removesuffix(ending) for ending in ENDINGS if stem.endswith(ending)), stem)


def roles_by_name(path):
    """What a picture's name says it is, as 'label inst'; '' for what this program does not read,
    None where the name says nothing."""
    stem = Path(path).stem
    if re.search(f'({OTHERS})$', stem):
        return ''
    return next((role for ending, role in ENDINGS.items() if stem.endswith(ending)), None)


def files_below(folder):
    """All files below `folder`, sorted. Links are followed, each folder is visited once; macOS's
    notes on files (._*) are left out. UserError where a folder cannot be read."""
    def fail(error):
        if not isinstance(error, FileNotFoundError):
            raise UserError(f'{error.filename}: cannot be read ({error.strerror})')

    found, visited = [], set()
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        found += [Path(place, name) for name in names if not name.startswith('._')]
    return sorted(found)


def pictures_in(folder, ending='', suffixes=SUFFIXES):
    """{scene_name: path} of the pictures below `folder` whose stem ends in `ending`. UserError if
    two share a name."""
    return unique(path for path in files_below(folder)
                  if path.suffix.lower() in suffixes and path.stem.endswith(ending))


def unique(paths):
    """{scene_name: path}; UserError where two paths share a name."""
    found = {}
    for path in paths:
        if found.setdefault(name := scene_name(path), path) != path:
            raise UserError(f'{path} and {found[name]} have the same name: remove or rename one of '
                            'them')
    return found


# ----------------------------------------------------------------------------------- recognising
# Each: (root, split) -> None where the folder `root` is another layout, or {role: {scene: path}}.

def find_cityscapes(root, split):
    if (root / 'gtFine').is_dir():
        maps = root / 'gtFine' / split
        return {'label': pictures_in(maps, '_labelIds'), 'inst': pictures_in(maps, '_instanceIds'),
                'image': pictures_in(root / 'leftImg8bit' / split, '_leftImg8bit')}


def find_ade_scenes(root, split):
    """ADEChallengeData2016; with annotations_instance/ of the 2017 challenge, instances too."""
    if (root / 'annotations').is_dir() and (root / 'images').is_dir():
        folders = {'label': 'annotations', 'inst': 'annotations_instance', 'image': 'images'}
        return {role: pictures_in(root / place / LONG_SPLITS.get(split, split))
                for role, place in folders.items()}


def find_ade_full(root, split):
    """Beside every photograph a *_seg.png that holds its classes and its instances."""
    for images in (root / 'images' / 'ADE', root / 'images'):
        folder = images / LONG_SPLITS.get(split, split)
        maps = pictures_in(folder, '_seg', ('.png',)) if images.is_dir() else None
        if maps:
            return {'label': maps, 'inst': maps, 'image': pictures_in(folder, suffixes=('.jpg',))}


def find_nyu(root, split):
    """nyu_depth_v2_labeled.mat, with the usual splits.mat (trainNdxs, testNdxs) beside it."""
    mat = root if root.suffix == '.mat' else root / 'nyu_depth_v2_labeled.mat'
    if not mat.is_file():
        return None
    with open_hdf5(mat) as file, as_user_error(mat, 'not the labelled pictures of NYU Depth v2'):
        lengths = {len(file[key]) for key in ('labels', 'instances', 'images')}
        if len(lengths) > 1:
            raise ValueError('not as many labels, instances and images')
        for key, kinds, shape in (('labels', 'iu', 3), ('instances', 'iu', 3), ('images', 'u', 4)):
            part = file[key]
            if part.dtype.kind not in kinds or part.ndim != shape or key == 'images' and (
                    part.dtype.itemsize > 1 or part.shape[1] != 3):
                raise ValueError(f'{key}: {part.dtype} of shape {part.shape}')
    numbers = range(1, lengths.pop() + 1)
    splits = mat.parent / 'splits.mat'
    if splits.is_file():
        key = {'train': 'trainNdxs', 'test': 'testNdxs', 'val': 'testNdxs'}.get(split)
        with as_user_error(splits):
            chosen = read_mat(splits)[key].flatten().astype(int).tolist() if key else []
            if not set(chosen) <= set(numbers):
                raise ValueError(f'{key}: numbers beyond {max(numbers)}')
        numbers = chosen
    return {role: {f'{n:04d}': mat / key / str(n) for n in numbers} for role, key in
            (('label', 'labels'), ('inst', 'instances'), ('image', 'images'))}


def helen_masks(root):
    """{face: folder of its masks}"""
    return {path.parent.name: path.parent for path in files_below(root)
            if path.stem.endswith('_lbl00')}


def find_helen(root, split):
    """The face-parsing release: eleven soft masks for each photograph, and lists of the splits."""
    masks = helen_masks(root / 'labels')
    if not masks or not (root / 'images').is_dir():
        return None
    images = pictures_in(root / 'images')
    lists = {'train': 'exemplars.txt', 'val': 'tuning.txt', 'test': 'testing.txt'}
    listed = root / lists.get(split, f'{split}.txt')
    if listed.is_file():
        names = {line.split(',')[-1].strip() for line in read_text(listed).splitlines()}
        masks, images = ({name: path for name, path in found.items() if name in names}
                         for found in (masks, images))
    return {'label': masks, 'image': images}


def find_flat(root, split):
    if (root / f'{split}_label').is_dir():
        return {role: pictures_in(root / f'{split}_{place}') for role, place in
                (('label', 'label'), ('inst', 'inst'), ('image', 'img'))}


def find_pictures(root, split):
    if (root / f'{split}_A').is_dir():
        return {'label': pictures_in(root / f'{split}_A'),
                'image': pictures_in(root / f'{split}_B')}


# --------------------------------------------------------------------------------------- readers
# Each: (path, (width, height) or None) -> (H, W) int32, by nearest neighbour; of photographs,
# (path, size, channels) -> (H, W, channels) uint8 or float32.

def read_ade_instances(path, size):
    rgb = decoding.read_bands(path, size)
    return rgb[..., 0] * 256 + rgb[..., 1]                  # class, and instance of that class


def seg_classes(rgb):
    return rgb[..., 0] // 10 * 256 + rgb[..., 1]


def read_seg_classes(path, size):
    return seg_classes(decoding.read_bands(path, size))


def read_seg_instances(path, size):
    """Blue numbers the instances of the whole picture; without objects it is 0, and the class tells
    things apart."""
    rgb = decoding.read_bands(path, size)
    return seg_classes(rgb) * 256 + rgb[..., 2]


def is_mat_part(path):
    """Whether a path names a part of a .mat file: <file>.mat/<labels|instances|images>/<n>."""
    return path.parent.parent.suffix == '.mat'


def read_nyu(path, size):
    """A part of a .mat file, n from 1, whose order of axes is the reverse of numpy's; or a map in
    a file of its own."""
    if not is_mat_part(path):
        return decoding.read_map(path, size)
    return data.resize(read_part(path).astype(np.int32), size, nearest=True)


def read_nyu_instances(path, size):
    """Instances are numbered within each class."""
    if not is_mat_part(path):
        return decoding.read_instances(path, size)
    return read_nyu(path.parents[1] / 'labels' / path.name, size) * 256 + read_nyu(path, size)


def read_nyu_photo(path, size, channels=3):
    return (data.resize(read_part(path), size) if is_mat_part(path) else
            decoding.read_photo(path, size, channels))


def read_part(path):
    """<file>.mat/<key>/<n> -> (H, W) or (H, W, 3) ndarray."""
    mat, key, n = path.parents[1], path.parent.name, path.name
    with open_hdf5(mat) as file, as_user_error(path):
        if not 1 <= int(n) <= len(file[key]):
            raise ValueError(f'there are {len(file[key])}')
        return np.ascontiguousarray(file[key][int(n) - 1].T)


def read_helen(path, size):
    """A folder of <id>_lbl00 ... lbl10, soft masks: the label is the strongest. Or a label map."""
    if not path.is_dir():
        return decoding.read_map(path, size)
    masks = [file for file in files_below(path) if re.search(r'_lbl\d\d$', file.stem)]
    if len(masks) != len(HELEN):
        raise UserError(f'{path}: {len(masks)} masks there, expected {len(HELEN)}')
    with as_user_error(path, 'its masks do not fit together'):
        strongest = np.stack([decoding.read_map(file) for file in masks]).argmax(0)
    return data.resize(strongest.astype(np.int32), size, nearest=True)


def read_header(path):
    """(width, height, channels) of what a pair's path names, without decoding."""
    if is_mat_part(path):
        with open_hdf5(path.parents[1]) as file, as_user_error(path):
            shape = file[path.parent.name].shape
            return (*shape[-2:], shape[1] if len(shape) == 4 else 1)
    if path.is_dir():
        pictures = (file for file in files_below(path) if file.suffix.lower() in SUFFIXES)
        return decoding.read_header(next(pictures, path))
    return decoding.read_header(path)


# ---------------------------------------------------------------------------------- their labels

# Cityscapes' names and colours of the ids 0 ... 33; the official models' 35th stands for id -1.
CITYSCAPES = [
    ('unlabeled', (0, 0, 0)), ('ego vehicle', (0, 0, 0)), ('rectification border', (0, 0, 0)),
    ('out of roi', (0, 0, 0)), ('static', (0, 0, 0)), ('dynamic', (111, 74, 0)),
    ('ground', (81, 0, 81)), ('road', (128, 64, 128)), ('sidewalk', (244, 35, 232)),
    ('parking', (250, 170, 160)), ('rail track', (230, 150, 140)), ('building', (70, 70, 70)),
    ('wall', (102, 102, 156)), ('fence', (190, 153, 153)), ('guard rail', (180, 165, 180)),
    ('bridge', (150, 100, 100)), ('tunnel', (150, 120, 90)), ('pole', (153, 153, 153)),
    ('polegroup', (153, 153, 153)), ('traffic light', (250, 170, 30)),
    ('traffic sign', (220, 220, 0)), ('vegetation', (107, 142, 35)), ('terrain', (152, 251, 152)),
    ('sky', (70, 130, 180)), ('person', (220, 20, 60)), ('rider', (255, 0, 0)),
    ('car', (0, 0, 142)), ('truck', (0, 0, 70)), ('bus', (0, 60, 100)), ('caravan', (0, 0, 90)),
    ('trailer', (0, 0, 110)), ('train', (0, 80, 100)), ('motorcycle', (0, 0, 230)),
    ('bicycle', (119, 11, 32)), ('license plate', (0, 0, 142))]

HELEN = ['background', 'face skin', 'left eyebrow', 'right eyebrow', 'left eye', 'right eye',
         'nose', 'upper lip', 'inner mouth', 'lower lip', 'hair']


def ade_names(root):
    """The names of objectInfo150.csv or .txt, if there is one of 150 rows; else None."""
    for table in (root / 'objectInfo150.csv', root / 'objectInfo150.txt'):
        if table.is_file():
            lines = read_text(table).splitlines()
            rows = csv.DictReader(lines, delimiter='\t' if '\t' in ''.join(lines[:1]) else ',')
            names = [re.split('[;,]', row.get('Name') or '')[0].strip() for row in rows]
            if len(names) == 150 and all(names):
                return ['other', *names]
    return None


def forty_labels(root):
    """NYU's usual mapping of 894 classes to 40 -> {id: label}, from classMapping40.mat (mapClass)
    or a text file of 894 numbers."""
    folder = root if root.is_dir() else root.parent
    for name in ('classMapping40.mat', 'classMapping40.txt'):
        path = folder / name
        if path.is_file():
            with as_user_error(path):
                numbers = (read_mat(path)['mapClass'].flatten().astype(int).tolist()
                           if name.endswith('mat') else
                           [int(word) for word in read_text(path).replace(',', ' ').split()])
            if len(numbers) != 894 or not 1 <= min(numbers) <= max(numbers) <= 40:
                raise UserError(f'{path}: expected 894 numbers from 1 to 40, got {len(numbers)}')
            return dict(enumerate([0, *numbers]))
    raise UserError(f'--n-labels 40: no classMapping40.mat (or .txt with its 894 numbers) in '
                    f'{folder}')


# ------------------------------------------------------------------------------------- the table

@dataclass(frozen=True)
class Layout:
    """A row of the table."""
    name: str
    find: Callable                          # how it is recognised, as above
    n_labels: int | None = None             # 0: pictures to pictures; None: its maps tell
    read_label: Callable = decoding.read_map
    read_inst: Callable = decoding.read_instances
    read_image: Callable = decoding.read_photo
    names: Callable = lambda root: None     # root -> the labels' names, or None
    colours: tuple = ()                     # (R, G, B) of the labels 0, 1, 2 ...
    void: tuple = ()                        # ids of its maps that its benchmark does not count
    things: tuple = ()                      # labels that are things, which are counted, not stuff
    sparse: bool = False                    # its maps hold ids, of which those that occur count
    tables: dict = field(default_factory=dict)      # {--n-labels: root -> {id: label}}
    folders: Callable = lambda folder: {}   # folder -> {scene: path}, where a map is a folder


LAYOUTS = {layout.name: layout for layout in (
    Layout('Cityscapes', find_cityscapes, len(CITYSCAPES),
           names=lambda root: [name for name, _ in CITYSCAPES],
           colours=tuple(colour for _, colour in CITYSCAPES),
           void=(0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 34),
           things=tuple(range(24, 34))),
    Layout('ADE20K scene parsing', find_ade_scenes, 151, read_inst=read_ade_instances,
           names=ade_names, void=(0,)),
    Layout('ADE20K full', find_ade_full, read_label=read_seg_classes, read_inst=read_seg_instances,
           void=(0,), sparse=True),
    Layout('NYU Depth v2', find_nyu, 895, read_nyu, read_nyu_instances, read_nyu_photo,
           void=(0,), tables={40: forty_labels}),
    Layout('Helen', find_helen, len(HELEN), read_helen, names=lambda root: HELEN,
           folders=helen_masks),
    Layout('flat', find_flat),
    Layout('A to B', find_pictures, 0))}


def recognise_layout(root, split):
    """The first layout that knows the folder `root`, and its files -> Layout, {role: {scene:
    path}}; or None, {}."""
    for layout in LAYOUTS.values():
        found = layout.find(root, split)
        if found:
            return layout, found
    return None, {}


def splits(root):
    """{split: number of label maps} of the splits that the folder `root` has."""
    own = sorted({re.sub('_(label|A)$', '', path.name) for path in root.glob('*_*')
                  if re.search('_(label|A)$', path.name)})
    found = {}
    for split in dict.fromkeys(['train', 'val', 'test', *own]):
        try:
            labels = recognise_layout(root, split)[1].get('label')
        except UserError:                           # of a split that nobody asked for
            continue
        if labels and labels not in found.values():     # without lists, all is training data
            found[split] = labels
    return {split: len(labels) for split, labels in found.items()}


def find_pairs(root, split='train'):
    """Recognise the layout of the folder `root` and pair its files by name -> Layout, [Pair],
    {scene: one line} for those that lack a partner. UserError where the layout is unknown or the
    split is empty."""
    root = Path(root)
    if not root.exists():
        raise UserError(f'{root}: no such folder')
    if not root.is_dir() and root.suffix != '.mat':
        raise UserError(f'{root}: is a file, expected the folder of a data set')
    layout, files = recognise_layout(root, split)
    if not files.get('label'):
        others = splits(root)
        if others:
            raise UserError(f'{root}: no label maps of the split {split!r}, but of '
                            f'{", ".join(others)}; choose with --split')
        if layout:
            raise UserError(f'{root}: {layout.name}, but there are no label maps')
        raise UserError(f'{root}: expected {split}_label/ and {split}_img/ (and perhaps '
                        f'{split}_inst/), or {split}_A/ and {split}_B/, or Cityscapes, ADE20K, NYU '
                        'Depth v2 or Helen as they are downloaded')

    labels, images, insts = files['label'], files['image'], files.get('inst', {})
    problems = {}
    for scene in sorted(labels.keys() | images.keys() | insts.keys()):
        if scene not in labels:
            path = images.get(scene) or insts[scene]
            problems[scene] = f'{path}: no label map of the same name'
        elif insts and scene not in insts:
            problems[scene] = f'{labels[scene]}: no instance map of the same name'
        elif scene not in images:
            problems[scene] = f'{labels[scene]}: no photograph of the same name'
    pairs = [Pair(scene, labels[scene], insts.get(scene), images[scene])
             for scene in sorted(labels.keys() - problems.keys())]
    return layout, pairs, problems


def files_by_name(paths, role, layout):
    """{scene: path} of the pictures that `paths` name, files or folders of them. Of a folder, those
    whose names say that they are of another role ('label', 'inst', 'image') are left out, and so is
    one whose name says nothing where another of that scene is named for the role."""
    found = {}
    for path in map(Path, paths):
        more = LAYOUTS[layout].folders(path) if role == 'label' and path.is_dir() else {}
        if path.is_dir() and not more:
            pictures = [file for file in files_below(path) if file.suffix.lower() in SUFFIXES]
            named = [file for file in pictures if role in (roles_by_name(file) or '').split()]
            scenes = set(map(scene_name, named))
            more = unique(sorted([*named, *(file for file in pictures if roles_by_name(file) is None
                                            and scene_name(file) not in scenes)]))
        elif not more:
            if len(paths) == 1 and not is_mat_part(path):    # told before anything is computed
                require_regular_file(path)
            more = {scene_name(path): path}
        for name in found.keys() & more.keys():
            raise UserError(f'{more[name]} and {found[name]} have the same name: take them one at '
                            'a time')
        found |= more
    if not found:
        raise UserError(f'{paths[0]}: no pictures there')
    return found


def match_by_name(paths, role, layout, labels):
    """{scene: path} with a partner for each scene in `labels`; a single file belongs to a single
    label map, whatever its name. UserError where one is missing."""
    found = files_by_name(paths, role, layout)
    if len(found) == len(labels) == 1:
        return dict(zip(labels, found.values()))
    for name, path in labels.items():
        if name not in found or found[name] == path and roles_by_name(path) is None:
            raise UserError(f'{path}: no file of the same name in {" ".join(map(str, paths))}')
    return found


# ----------------------------------------------------------------------------- reading and showing

def readers(layout, in_channels=3, out_channels=3, palette=None, label_table=None):
    """The Readers of a layout (its name), with the colours of `palette` (rows [R, G, B, label,
    name]) or the ids of `label_table` made into labels."""
    row = LAYOUTS[layout]
    label = row.read_label
    if row.n_labels == 0:
        label = functools.partial(decoding.read_photo, channels=in_channels)
    if palette:
        label = palettes.colour_reader(palette)
    if label_table:
        label = palettes.table_reader(label, label_table)
    signature = repr([layout, palette, label_table, in_channels, out_channels])
    return Readers(prefer_saved_maps(label) if row.n_labels != 0 else label,
                        prefer_saved_maps(row.read_inst, arrays=True),
                        functools.partial(row.read_image, channels=out_channels), signature)


def prefer_saved_maps(read, arrays=False):
    """A reader of maps that takes those that `edit` wrote, with `arrays` all .npy files, as they
    are, and others as `read`."""
    def choose(path, size=None):
        if arrays and decoding.is_array(path):
            return decoding.read_instances(path, size)
        return (decoding.read_map if decoding.is_saved_map(path) else read)(path, size)
    return choose


def config_readers(config):
    """The readers of a run's pictures."""
    return readers(config.layout, config.in_channels, config.out_channels, config.palette,
                   config.label_table)
