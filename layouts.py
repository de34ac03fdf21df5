"""From a folder as a data set's site hands it out to label maps, instance maps and photographs paired by name.

Each layout is one function that looks at a folder and returns None where it does not know it.
"""
from collections import namedtuple
import csv
import functools
import os
from pathlib import Path
import re
import struct
import zlib

import numpy as np

import data
from data import SUFFIXES
from files import UserError, blame

# What tells the files of a scene apart.
ROLE_ENDINGS = ('_gtFine_labelIds', '_gtFine_instanceIds', '_leftImg8bit', '_seg')
LONG_SPLITS = {'train': 'training', 'val': 'validation'}     # as ADE20K calls them

Pair = namedtuple('Pair', 'name label inst image')
# Paths; inst may be None. A path may name a part of a file (NYU) or a folder (Helen): the readers know.
Source = namedtuple('Source', 'layout pairs n_labels label_names problems')
# layout: its name. n_labels: 0 for pictures to pictures, None where only the maps can tell. label_names: list or None.
# problems: {name: one line} for the scenes that lack a partner; they are not among the pairs.


def scene_name(path):
    """What the label map, the instance map and the photograph of one scene share: the stem less what tells them
    apart."""
    name = Path(path).stem
    for ending in ROLE_ENDINGS:
        name = name.removesuffix(ending)
    return name


def files_below(folder):
    """All files below `folder`, sorted. Links are followed, each folder is visited once. None where it does not
    exist."""
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
        found += [Path(place, name) for name in names]
    return sorted(found)


def pictures_in(folder, ending='', suffixes=SUFFIXES):
    """{scene_name: path} of the pictures below `folder` whose stem ends in `ending`. UserError if two share a name."""
    found = {}
    for path in files_below(folder):
        if path.suffix.lower() in suffixes and path.stem.endswith(ending):
            if found.setdefault(name := scene_name(path), path) != path:
                raise UserError(f'{path} and {found[name]} have the same name: remove or rename one of them')
    return found


# ---------------------------------------------------------------------------------------------------- the layouts
# Each: (root, split) -> None, or the layout's name, {role: {scene name: path}}, n_labels, label_names.

def cityscapes(root, split):
    if (root / 'gtFine').is_dir():
        maps = root / 'gtFine' / split
        return 'Cityscapes', {'label': pictures_in(maps, '_labelIds'), 'inst': pictures_in(maps, '_instanceIds'),
                              'image': pictures_in(root / 'leftImg8bit' / split, '_leftImg8bit')}, \
            len(CITYSCAPES), [name for name, _ in CITYSCAPES]


def ade20k_scene_parsing(root, split):
    """ADEChallengeData2016; with annotations_instance/ of the 2017 challenge beside it, instances too."""
    if (root / 'annotations').is_dir() and (root / 'images').is_dir():
        split, names = LONG_SPLITS.get(split, split), None
        for table in (root / 'objectInfo150.csv', root / 'objectInfo150.txt'):
            if table.is_file():
                lines = table.read_text().splitlines()
                rows = csv.DictReader(lines, delimiter='\t' if '\t' in lines[0] else ',')
                names = ['other'] + [re.split('[;,]', row['Name'])[0].strip() for row in rows]
                names = names if len(names) == 151 else None
        folders = {'label': 'annotations', 'inst': 'annotations_instance', 'image': 'images'}
        return 'ADE20K scene parsing', {role: pictures_in(root / place / split)
                                        for role, place in folders.items()}, 151, names


def ade20k_full(root, split):
    """The full release: beside every photograph a *_seg.png that holds its classes and instances."""
    for images in (root / 'images' / 'ADE', root / 'images'):
        if images.is_dir():
            folder = images / LONG_SPLITS.get(split, split)
            maps = pictures_in(folder, '_seg', ('.png',))
            if maps:
                return 'ADE20K full', {'label': maps, 'inst': maps,
                                       'image': pictures_in(folder, suffixes=('.jpg',))}, None, None


def nyu_depth(root, split):
    """nyu_depth_v2_labeled.mat, with the usual splits.mat (trainNdxs, testNdxs) if that is beside it."""
    mat = root if root.suffix == '.mat' else root / 'nyu_depth_v2_labeled.mat'
    if mat.is_file():
        with open_hdf5(mat) as file:
            numbers = range(1, len(file['labels']) + 1)
        if (mat.parent / 'splits.mat').is_file():
            with blame(mat.parent / 'splits.mat'):
                key = {'train': 'trainNdxs', 'test': 'testNdxs', 'val': 'testNdxs'}[split]
                numbers = read_mat(mat.parent / 'splits.mat')[key].flatten().astype(int).tolist()
        return 'NYU Depth v2', {role: {f'{n:04d}': mat / key / str(n) for n in numbers} for role, key in
                                (('label', 'labels'), ('inst', 'instances'), ('image', 'images'))}, 895, None


HELEN = ['background', 'face skin', 'left eyebrow', 'right eyebrow', 'left eye', 'right eye', 'nose', 'upper lip',
         'inner mouth', 'lower lip', 'hair']


def helen_masks(root):
    """{face: folder of its masks}"""
    return {path.parent.name: path.parent for path in files_below(root) if path.stem.endswith('_lbl00')}


def helen(root, split):
    """The face-parsing release of Helen: eleven soft masks for each photograph."""
    if (root / 'labels').is_dir() and (root / 'images').is_dir():
        masks = helen_masks(root / 'labels')
        images = pictures_in(root / 'images')
        listed = root / {'train': 'exemplars.txt', 'val': 'tuning.txt', 'test': 'testing.txt'}.get(
            split, f'{split}.txt')
        if listed.is_file():
            names = {line.split(',')[-1].strip() for line in listed.read_text().splitlines()}
            masks, images = ({name: path for name, path in files.items() if name in names} for files in (masks, images))
        return 'Helen', {'label': masks, 'image': images}, len(HELEN), HELEN


def flat(root, split):
    if (root / f'{split}_label').is_dir():
        return 'flat', {role: pictures_in(root / f'{split}_{place}')
                        for role, place in (('label', 'label'), ('inst', 'inst'), ('image', 'img'))}, None, None


def pictures_to_pictures(root, split):
    if (root / f'{split}_A').is_dir():
        return 'A to B', {'label': pictures_in(root / f'{split}_A'), 'image': pictures_in(root / f'{split}_B')}, 0, None


def recognise(root, split):
    """What the first layout that knows the folder `root` returns, or None."""
    for layout in (cityscapes, ade20k_scene_parsing, ade20k_full, nyu_depth, helen, flat, pictures_to_pictures):
        found = layout(root, split)
        if found:
            return found


def splits(root):
    """{split: number of label maps} of the splits that the folder `root` has."""
    own = sorted({re.sub('_(label|A)$', '', path.name) for path in root.glob('*_*')
                  if re.search('_(label|A)$', path.name)})
    found = {}
    for split in dict.fromkeys(['train', 'val', 'test', *own]):
        try:
            labels = (recognise(root, split) or (None, {'label': {}}))[1]['label']
        except UserError:                                    # of a split that nobody asked for
            continue
        if labels and labels not in found.values():          # where no file says otherwise, all is training data
            found[split] = labels
    return {split: len(labels) for split, labels in found.items()}


def find_pairs(root, split='train'):
    """Recognise the layout of the folder `root` and pair its files by name -> Source. UserError where the layout is
    unknown or the split is empty."""
    root = Path(root)
    if not root.exists():
        raise UserError(f'{root}: no such folder')
    found = recognise(root, split)
    if not found or not found[1]['label']:
        others = splits(root)
        if others:
            raise UserError(f'{root}: no label maps of the split {split!r}, but of {", ".join(others)}; '
                            'choose with --split')
        if found:
            raise UserError(f'{root}: {found[0]}, but there are no label maps')
        raise UserError(f'{root}: expected {split}_label/ and {split}_img/ (and perhaps {split}_inst/), or {split}_A/ '
                        f'and {split}_B/, or Cityscapes, ADE20K, NYU Depth v2 or Helen as they are downloaded')
    name, files, n_labels, label_names = found
    labels, images, insts = files['label'], files['image'], files.get('inst', {})
    problems = {}
    for scene in sorted(labels.keys() | images.keys() | insts.keys()):
        if scene not in labels:
            problems[scene] = f'{images.get(scene) or insts[scene]}: no label map of the same name'
        elif insts and scene not in insts:
            problems[scene] = f'{labels[scene]}: no instance map of the same name'
        elif scene not in images:
            problems[scene] = f'{labels[scene]}: no photograph of the same name'
    return Source(name, [Pair(scene, labels[scene], insts.get(scene), images[scene])
                         for scene in sorted(labels.keys() - problems.keys())], n_labels, label_names, problems)


def files_by_name(paths, ending, layout):
    """{name: path} of picture files and of folders of them; of a folder's Cityscapes files only those of the kind
    `ending`."""
    found = {}
    for path in map(Path, paths):
        if path.is_dir() and layout == 'Helen' and ending == '_labelIds':
            more = helen_masks(path)
        elif path.is_dir():
            more = pictures_in(path, ending) or pictures_in(path)
        else:
            more = {scene_name(path): path}
        for name in found.keys() & more.keys():
            raise UserError(f'{more[name]} and {found[name]} have the same name: take them one at a time')
        found |= more
    if not found:
        raise UserError(f'{paths[0]}: no pictures there')
    return found


def partners(paths, ending, layout, labels):
    """{name: path} with a partner for each name in `labels`; a single file belongs to a single label map, whatever its
    name."""
    found = files_by_name(paths, ending, layout)
    if len(found) == len(labels) == 1:
        return dict(zip(labels, found.values()))
    for name, path in labels.items():
        if name not in found:
            raise UserError(f'{path}: no file of the same name in {" ".join(map(str, paths))}')
    return found


# ---------------------------------------------------------------------------------------------------- their readers

def read_bands(path, size):
    """A map whose channels mean different things -> (H, W, 3) int32, by nearest neighbour."""
    return data.read_photo(path, size, nearest=True).astype(np.int32)


def read_ade_instances(path, size):
    rgb = read_bands(path, size)
    return rgb[..., 0] * 256 + rgb[..., 1]                               # the class, and the instance of that class


def seg_classes(rgb):
    return rgb[..., 0] // 10 * 256 + rgb[..., 1]


def read_seg_classes(path, size):
    return seg_classes(read_bands(path, size))


def read_seg_instances(path, size):
    """Blue numbers the instances of the whole picture; without objects it is 0, and the class tells things apart."""
    rgb = read_bands(path, size)
    return seg_classes(rgb) * 256 + rgb[..., 2]


def open_hdf5(path):
    try:
        import h5py
    except ImportError:
        raise UserError(f'{path}: MATLAB 7.3 files are read with h5py, which is not installed: '
                        'pip install h5py') from None
    with blame(path):
        return h5py.File(path, 'r')


def in_mat(path):
    """Whether a path names a part of a .mat file, as `<file>.mat/<labels|instances|images>/<n>` does."""
    return path.parent.parent.suffix == '.mat'


def read_nyu(path, size, nearest=True):
    """A part of a .mat file, n from 1; MATLAB's order of axes is the reverse of numpy's. A map or photograph in a file
    of its own is read as such."""
    if not in_mat(path):
        return data.read_map(path, size) if nearest else data.read_photo(path, size)
    mat, key, n = path.parents[1], path.parent.name, int(path.name)
    with open_hdf5(mat) as file, blame(path):
        array = np.ascontiguousarray(file[key][n - 1].T)                 # (H, W) or (H, W, 3)
    return data.resize(array.astype(np.int32) if nearest else array, size, nearest)


def read_nyu_instances(path, size):
    """Instances are numbered within each class."""
    if not in_mat(path):
        return data.read_map(path, size)
    return read_nyu(path.parents[1] / 'labels' / path.name, size) * 256 + read_nyu(path, size)


def read_helen(path, size):
    """A folder of <id>_lbl00 ... lbl10, soft masks: the label is the strongest. Or a label map."""
    if path.is_file():
        return data.read_map(path, size)
    masks = sorted(file for file in files_below(path) if re.search(r'_lbl\d\d$', file.stem))
    if len(masks) != len(HELEN):
        raise UserError(f'{path}: {len(masks)} masks there, expected {len(HELEN)}')
    return data.resize(np.stack([data.read_map(file) for file in masks]).argmax(0).astype(np.int32), size, nearest=True)


def header(path):
    """(width, height, channels) of what a pair's path names, without decoding."""
    if in_mat(path):
        with open_hdf5(path.parents[1]) as file, blame(path):
            shape = file[path.parent.name].shape
            return (*shape[-2:], shape[1] if len(shape) == 4 else 1)
    if path.is_dir():
        return data.header(next((file for file in files_below(path) if file.suffix.lower() in SUFFIXES), path))
    return data.header(path)


def by_table(read, table):
    """Let a reader's ids go through {id: label}. An id that is not in it is a UserError that names the first such
    pixel."""
    lookup = np.full(max(table) + 2, -1, np.int32)
    lookup[list(table)] = list(table.values())

    def reader(path, size):
        ids = read(path, size)
        label = lookup[np.where((ids >= 0) & (ids < len(lookup)), ids, -1)]
        if (label < 0).any():
            y, x = np.argwhere(label < 0)[0]
            raise UserError(f'{path}: label {ids[y, x]} at x={x}, y={y} is none of the {len(table)} that are known')
        return label
    return reader


def by_colour(palette):
    """A reader of label maps stored as colours; palette: rows [R, G, B, label, name]."""
    codes = np.array([r << 16 | g << 8 | b for r, g, b, *_ in palette])
    order = codes.argsort()

    def reader(path, size):
        rgb = read_bands(path, size)
        code = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        at = order[np.searchsorted(codes[order], code).clip(max=len(codes) - 1)]
        wrong = codes[at] != code
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            raise UserError(f'{path}: colour {",".join(map(str, rgb[y, x]))} at x={x}, y={y} is not in the palette')
        return np.array([row[3] for row in palette], np.int32)[at]
    return reader


def readers(c):
    """The data.Readers for the pictures of a run's configuration: its layout, palette, table of labels, channels."""
    label, inst, image = {'ADE20K scene parsing': (data.read_map, read_ade_instances, data.read_photo),
                          'ADE20K full': (read_seg_classes, read_seg_instances, data.read_photo),
                          'NYU Depth v2': (read_nyu, read_nyu_instances, functools.partial(read_nyu, nearest=False)),
                          'Helen': (read_helen, data.read_map, data.read_photo),
                          }.get(c.layout, (data.read_map, data.read_map, data.read_photo))
    if image is data.read_photo:
        image = functools.partial(data.read_photo, channels=c.out_channels)
    if c.n_labels == 0:
        label = functools.partial(data.read_photo, channels=c.in_channels)
    if c.palette:
        label = by_colour(c.palette)
    if c.label_table:
        label = by_table(label, c.label_table)
    signature = repr([c.layout, c.palette, c.label_table, c.in_channels, c.out_channels])
    return data.Readers(label, inst, image, signature)


# ------------------------------------------------------------------------------------------------ palettes, tables

def read_palette(path):
    """Lines R,G,B,id[,name] -> rows [R, G, B, id, name]; blank lines and lines that begin with # are passed over."""
    rows = []
    with blame(path):
        lines = Path(path).read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith('#'):
            try:
                *values, name = [*line.split(',', 4), ''][:5]
                r, g, b, label = map(int, values)
                if not (0 <= min(r, g, b) <= max(r, g, b) <= 255 and 0 <= label < 1 << 16):
                    raise ValueError
            except ValueError:
                raise UserError(f'{path}, line {number}: expected R,G,B,id[,name], got {line!r}') from None
            rows.append([r, g, b, label, name.strip() or str(label)])
    if not rows:
        raise UserError(f'{path}: no colours in it; expected lines R,G,B,id[,name]')
    return rows


def forty_labels(root):
    """The usual mapping of NYU's 894 classes to 40, from classMapping40.mat (mapClass) or a text file of 894
    numbers."""
    folder = root if root.is_dir() else root.parent
    for name in ('classMapping40.mat', 'classMapping40.txt'):
        path = folder / name
        if path.is_file():
            with blame(path):
                numbers = (read_mat(path)['mapClass'].flatten().astype(int).tolist() if name.endswith('mat') else
                           [int(word) for word in path.read_text().replace(',', ' ').split()])
            if len(numbers) != 894 or not 1 <= min(numbers) <= max(numbers) <= 40:
                raise UserError(f'{path}: expected 894 numbers from 1 to 40, got {len(numbers)}')
            return dict(enumerate([0, *numbers]))
    raise UserError(f'--labels 40: no classMapping40.mat (or .txt with its 894 numbers) in {folder}')


def read_mat(path):
    """The numeric arrays of a MATLAB 5 file -> {name: ndarray}. (MATLAB 7.3 files are HDF5.)"""
    kinds = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}

    def elements(blob):
        while blob:
            kind, size = struct.unpack('<II', blob[:8])
            if kind >> 16:                                               # small element: size and type share a word
                yield kind & 0xffff, blob[4:4 + (kind >> 16)]
                blob = blob[8:]
            else:
                yield kind, blob[8:8 + size]
                blob = blob[8 + (size if kind == 15 else -(-size // 8) * 8):]

    arrays = {}
    for kind, blob in elements(Path(path).read_bytes()[128:]):
        if kind == 15:                                                   # compressed
            kind, blob = next(elements(zlib.decompress(blob)))
        parts = list(elements(blob)) if kind == 14 else []               # flags, dimensions, name, values
        if len(parts) == 4 and parts[3][0] in kinds:
            shape = np.frombuffer(parts[1][1], '<i4')
            arrays[parts[2][1].decode()] = np.frombuffer(
                parts[3][1], '<' + kinds[parts[3][0]]).reshape(shape, order='F')
    return arrays


# --------------------------------------------------------------------------------------------------- the survey

LAYOUTS = ('Cityscapes', 'ADE20K scene parsing', 'ADE20K full', 'NYU Depth v2', 'Helen', 'flat', 'A to B')


# Cityscapes' names and colours of the label ids 0..33; the 35th label of the official models stands for id -1.
CITYSCAPES = [
    ('unlabeled', (0, 0, 0)), ('ego vehicle', (0, 0, 0)), ('rectification border', (0, 0, 0)),
    ('out of roi', (0, 0, 0)), ('static', (0, 0, 0)), ('dynamic', (111, 74, 0)), ('ground', (81, 0, 81)),
    ('road', (128, 64, 128)), ('sidewalk', (244, 35, 232)), ('parking', (250, 170, 160)),
    ('rail track', (230, 150, 140)), ('building', (70, 70, 70)), ('wall', (102, 102, 156)),
    ('fence', (190, 153, 153)), ('guard rail', (180, 165, 180)), ('bridge', (150, 100, 100)),
    ('tunnel', (150, 120, 90)), ('pole', (153, 153, 153)), ('polegroup', (153, 153, 153)),
    ('traffic light', (250, 170, 30)), ('traffic sign', (220, 220, 0)), ('vegetation', (107, 142, 35)),
    ('terrain', (152, 251, 152)), ('sky', (70, 130, 180)), ('person', (220, 20, 60)), ('rider', (255, 0, 0)),
    ('car', (0, 0, 142)), ('truck', (0, 0, 70)), ('bus', (0, 60, 100)), ('caravan', (0, 0, 90)),
    ('trailer', (0, 0, 110)), ('train', (0, 80, 100)), ('motorcycle', (0, 0, 230)), ('bicycle', (119, 11, 32)),
    ('license plate', (0, 0, 142))]


def label_colours(c):
    """(n_labels, 3) uint8 colours in which a run's labels are shown: its palette's, Cityscapes' own, else those of
    PASCAL VOC, an id's bits dealt out to the channels."""
    ids = np.arange(c.n_labels)[:, None]
    colours = sum(((ids >> 3 * bit + np.arange(3)) & 1) << 7 - bit for bit in range(3)).astype(np.uint8)
    if c.palette:
        for r, g, b, label, _ in c.palette:
            colours[label] = r, g, b
    elif c.layout == 'Cityscapes':
        colours[:len(CITYSCAPES)] = [colour for _, colour in CITYSCAPES]
    return colours
