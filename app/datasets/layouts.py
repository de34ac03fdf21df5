"""Find the label maps, instance maps and photographs of a data set and pair them by name.
To support another data set, add a row to the table LAYOUTS."""
from collections import namedtuple
from collections.abc import Callable
from contextlib import contextmanager, suppress
import csv
import os
from pathlib import Path
import re
from typing import NamedTuple

import numpy as np

from app.common.console import warn
from app.common.errors import UserError, as_user_error
from app.common.files import read_text, require_regular_file, resolve_path
from app.datasets import decoding, formats, own_folders, scene_names

# Endings of file names that tell the roles of files; those without a role are not used.
ROLES = {r'(_gtFine|_gtCoarse)?_labelIds': 'label', r'(_gtFine|_gtCoarse)?_instanceIds': 'inst',
         '_leftImg8bit': 'image', '_seg': 'label inst', '_lbl00': 'label',
         r'(_gtFine|_gtCoarse)_(color|labelTrainIds)|_parts_\d+|_lbl(0[1-9]|10)': ''}
SIDE_BY_SIDE = {side: f'side by side, map {side}' for side in ('left', 'right')}
OWN = 'own folders'                                 # the name of the last layout
CITYSCAPES_PARTS = 'gtFine', 'leftImg8bit'
ARCHIVES = '.zip', '.tar', '.gz', '.tgz', '.bz2', '.xz', '.7z', '.rar'
LONG_SPLITS = {'train': 'training', 'val': 'validation'}    # their names in ADE20K

# The name of a scene and three paths; inst may be None. A path may also name a part of a .mat file
# (NYU) or the first of several masks (Helen).
Pair = namedtuple('Pair', 'name label inst image')


def scene_name(path):
    """Return the name that the files of a scene share: the stem without an ending of ROLES."""
    endings = '|'.join(ending for ending, roles in ROLES.items() if roles)
    path = Path(path)
    return re.sub(rf'({endings})\Z', '', (path.parent if decoding.half_of(path) else path).stem)


def roles_by_name(path):
    """Return the roles that a file's name tells; '' if it is not used, None if it tells nothing."""
    return next((roles for ending, roles in ROLES.items()
                 if re.search(rf'({ending})\Z', Path(path).stem)), None)


# Folders that file servers, operating systems and programs make beside people's files, in lower
# case; besides those whose names begin with a dot, @ (QNAP, Synology), # or $.
SERVICE_FOLDERS = {'__macosx', 'lost+found', 'system volume information', 'recycler', 'recycled',
                   'network trash folder', 'temporary items', 'thevolumesettingsfolder',
                   '__pycache__', 'cvs', '_vti_cnf', '[originals]', '~snapshot'}
skips_service_files = True


def is_service_name(name, is_folder=False):
    """Whether a file or a folder is not people's data, but what programs leave beside it."""
    if not skips_service_files:
        return not is_folder and name.startswith('._')
    return name.startswith(('.', '~$')) or is_folder and (
        name.startswith(('@', '#', '$')) or name.lower() in SERVICE_FOLDERS
        or re.fullmatch(r'found\.\d{3}', name.lower()) is not None)


@contextmanager
def with_service_files():
    """Find hidden files and those in service folders, too, as version 1.0.0 did."""
    global skips_service_files
    skips_service_files = False
    try:
        yield
    finally:
        skips_service_files = True


def files_below(folder):
    """Return all files below a folder and its links, sorted, without hidden files and what programs
    leave there, see is_service_name."""
    def fail(error):
        if not isinstance(error, FileNotFoundError):
            raise UserError(f'{error.filename}: cannot be read ({error.strerror})')

    files, visited = [], set()
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (place := os.path.realpath(parent)) in visited:
            folders.clear()                         # links that form a loop
        else:
            visited.add(place)
            folders[:] = [name for name in folders if not is_service_name(name, is_folder=True)]
            files += [Path(parent, name) for name in names if not is_service_name(name)]
    return sorted(files)


def pictures_below(folder, pattern='*'):
    """Return the pictures below a folder whose names match a pattern."""
    return [path for path in files_below(folder)
            if path.suffix.lower() in formats.SUFFIXES and path.match(pattern)]


def other_formats(folders):
    """Return {scene: path} of the pictures below some folders in formats that are not read."""
    return {scene_name(path): path for folder in folders for path in files_below(folder)
            if path.suffix.lower() in formats.OTHER_SUFFIXES}


def refuse_other_files(root, split):
    """Raise UserError for a file of a format that is not read, and for labels that are no maps, in
    a folder for the split."""
    folders = sorted(
        path for path in root.glob('*/') if {split, LONG_SPLITS.get(split)} & {
            path.name, path.name.partition('_')[0]} or path.name in (
                'annotations', 'masks', 'labels', 'gtFine', 'images'))
    for path in other_formats(folders).values():
        raise UserError(f'{path}: {formats.NOT_READ}')
    own_folders.refuse_shapes([path for folder in folders for path in files_below(folder)], split)


# The functions find_... take the folder of a data set and the name of a split. They return None if
# the folder has another layout, else {role: [path]}.

def folder_finder(**patterns):
    """Return such a function of patterns for each role, like 'gtFine/{split}/*_labelIds.*'."""
    def find(root, split):
        places = {role: root / pattern.format(split=split, long_split=LONG_SPLITS.get(split, split))
                  for role, pattern in patterns.items()}
        if places['label'].parent.is_dir():
            return {role: pictures_below(path.parent, path.name) for role, path in places.items()}
    return find


def find_cityscapes(root, split):
    """gtFine/, or gtCoarse/ if the split is not there, and leftImg8bit/."""
    for folder in 'gtFine', 'gtCoarse':
        files = folder_finder(
            label=folder + '/{split}/*_labelIds.*', inst=folder + '/{split}/*_instanceIds.*',
            image='leftImg8bit/{split}/*_leftImg8bit.*')(root, split)
        if files and files['label']:
            if not files['image']:
                refuse_other_photographs(root, split)
            return files
    return None


def refuse_other_photographs(root, split):
    """Raise UserError for photographs of Cityscapes' relatives: in fog or rain, of the right."""
    for path in (path for folder in sorted(root.glob(f'*Img8bit*/{split}/'))
                 for path in pictures_below(folder)):
        raise UserError(f'{path}: photographs are looked for as leftImg8bit/{split}/*_leftImg8bit.*'
                        '; put one for each label map there, under that ending')


def refuse_other_endings(root, split):
    """Raise UserError for label maps of Cityscapes and its relatives under other endings."""
    folder = root / 'gtFine' / split
    for path in pictures_below(folder) if folder.is_dir() else ():
        if found := re.search(r'_(label\w*ids|color)\Z', path.stem, re.IGNORECASE):
            raise UserError(f'{path}: label maps in gtFine/ have the ending _labelIds, photographs '
                            f'in leftImg8bit/ _leftImg8bit; rename {found[0]} to _labelIds, or put '
                            'the files into train_label/ and train_img/ under equal names')


def find_ade_full(root, split):
    """Each photograph has a *_seg.png beside it, which holds labels and instances."""
    for images in (root / 'images' / 'ADE', root / 'images'):
        folder = images / LONG_SPLITS.get(split, split)
        if folder.is_dir() and (maps := pictures_below(folder, '*_seg.png')):
            return {'label': maps, 'inst': maps, 'image': pictures_below(folder, '*.jpg')}


def find_nyu(root, split):
    """nyu_depth_v2_labeled.mat, and perhaps splits.mat (trainNdxs, testNdxs) beside it."""
    mat = root if root.suffix == '.mat' else root / 'nyu_depth_v2_labeled.mat'
    if not mat.is_file():
        return None
    with decoding.open_mat(mat, 'h5py.File', '7.3') as file, as_user_error(mat, 'not NYU Depth v2'):
        n, w, h = file['labels'].shape
        for key, shape in ('labels', (n, w, h)), ('instances', (n, w, h)), ('images', (n, 3, w, h)):
            if file[key].dtype.kind not in 'iu' or file[key].shape != shape:
                raise ValueError(f'{key}: {file[key].dtype} of shape {file[key].shape}')
    numbers, splits = range(1, n + 1), mat.parent / 'splits.mat'
    if splits.is_file():
        key = {'train': 'trainNdxs', 'test': 'testNdxs', 'val': 'testNdxs'}.get(split)
        numbers = read_mat_numbers(splits, key) if key else []
        if not set(numbers) <= set(range(1, n + 1)):
            raise UserError(f'{splits}: cannot be read ({key}: numbers beyond {n})')
    return {role: [mat / key / f'{n:04d}' for n in numbers] for role, key in (
        ('label', 'labels'), ('inst', 'instances'), ('image', 'images'))}


def find_helen(root, split):
    """The release for face parsing: eleven soft masks for each photograph, and lists of splits."""
    files = {'label': pictures_below(root / 'labels', '*_lbl00.*'),
             'image': pictures_below(root / 'images')}
    if not files['label'] or not (root / 'images').is_dir():
        return None
    lists = {'train': 'exemplars', 'val': 'tuning', 'test': 'testing'}
    scene_list = root / f'{lists.get(split, split)}.txt'
    if scene_list.is_file():
        scenes = {line.split(',')[-1].strip() for line in read_text(scene_list).splitlines()}
        files = {role: [path for path in paths if scene_name(path) in scenes]
                 for role, paths in files.items()}
    return files


def find_own(root, split):
    """Folders of any names that tell the roles, and those of other layouts if their labels are a
    user's own."""
    for name in ('flat', 'Cityscapes', 'ADE20K scene parsing', 'ADE20K full', 'A to B'):
        files = LAYOUTS[name].find(root, split)
        if files and files['label']:
            return {role: paths for role, paths in files.items()
                    if role != 'inst' or paths and paths != files['label']}
    refuse_other_endings(root, split)
    if find_helen(root, split) is not None:             # its masks are no label maps
        return None
    return own_folders.find_labelled(root, split, LONG_SPLITS.get(split, split), lambda folder: [
        path for path in pictures_below(folder) if roles_by_name(path) != ''])


def find_a_to_b(root, split):
    """train_A/ and train_B/, trainA/ and trainB/, or A/train/ and B/train/."""
    for form in '{split}_%s/*', '{split}%s/*', '%s/{split}/*':
        if files := folder_finder(label=form % 'A', image=form % 'B')(root, split):
            return files
    return None


def side_by_side_finder(side):
    """Return a function that finds pictures of which one half is the map: train/1.jpg/left."""
    def find(root, split):
        folder = root / split
        if not folder.is_dir() or not (paths := pictures_below(folder)):
            return None
        halves = {half: [path / half for path in paths] for half in SIDE_BY_SIDE}
        return {'label': halves[side], 'image': halves['right' if side == 'left' else 'left']}
    return find


def side_of_maps(root, split, certain=False):
    """Return 'left' or 'right', the half of the pictures <split>/* that looks drawn, or None if
    they are not twice as wide as high. certain: they are side by side, whatever their size. Raises
    UserError if the halves do not differ."""
    def entropies(path):
        """Return how many bits tell the colour of a pixel of each half; () of another shape."""
        header = decoding.read_header(path)
        w, h = header.size
        if not certain and not 1.9 * h <= w <= 2.1 * h:
            return ()
        white = max(1, int(decoding.read_deep(path).max())) if header.is_deep else None
        halves = [decoding.read_photo(path / side, white=white) // 32 for side in SIDE_BY_SIDE]
        counts = [np.bincount((half @ np.array([64, 8, 1])).ravel()) for half in halves]
        shares = [count[count > 0] / count.sum() for count in counts]
        return [-(share * np.log2(share)).sum() for share in shares]

    paths = pictures_below(root / split) if (root / split).is_dir() else []
    bits = decoding.map_usable(entropies, decoding.spread(paths, 8), 'halves')
    if not all(bits) or not bits:
        return None
    left, right = np.mean(bits, 0)
    if abs(left - right) < 0.3:
        raise UserError(f'{root / split}: pictures like pairs side by side, whose halves look '
                        'alike; say which half is the map with --layout map-left or --layout '
                        'map-right')
    return 'left' if left < right else 'right'


def is_named_ade(root, files):
    """Whether files or their folder are named as in ADE20K, or its list of labels lies beside."""
    return ade_names(root) is not None or any(
        path.name.startswith('ADE_') or path.is_relative_to(root / 'images' / 'ADE')
        for path in files['label'])


def ade_class(colours):
    """Red and green hold the class of the full ADE20K."""
    return colours[..., 0] // 10 * 256 + colours[..., 1]


def read_mat_numbers(path, key):
    """Return the numbers in the array `key` of a MATLAB 5 file, a list of int."""
    with as_user_error(path):
        return decoding.open_mat(path, 'scipy.io.loadmat', '5')[key].flatten().astype(int).tolist()


def decode_helen_masks(path, **options):
    """Decode as decoding.decode_map does; of the masks _lbl00 (`path`) to _lbl10 the strongest."""
    if not Path(path).stem.endswith('_lbl00'):
        return decoding.decode_map(path, **options)
    folder = Path(path).parent
    masks = [file for file in files_below(folder) if re.search(r'_lbl\d\d$', file.stem)]
    if len(masks) != len(HELEN):
        raise UserError(f'{folder}: {len(masks)} masks there, expected {len(HELEN)}')
    with as_user_error(folder, 'its masks do not fit together'):
        strengths, headers = zip(*(decoding.decode_map(file, **options) for file in masks))
        return np.stack(strengths).argmax(0), headers[0]


# The ids 0 ... 33; the official models have a 35th label for the id -1.
CITYSCAPES_ROWS = list(csv.DictReader(
    read_text(Path(__file__).with_name('cityscapes.csv')).splitlines()))
CITYSCAPES = [(row['name'], (int(row['red']), int(row['green']), int(row['blue'])))
              for row in CITYSCAPES_ROWS]

HELEN = ['background', 'face skin', 'left eyebrow', 'right eyebrow', 'left eye', 'right eye',
         'nose', 'upper lip', 'inner mouth', 'lower lip', 'hair']


def ade_names(root):
    """Return the 151 names of ADE20K's labels by objectInfo150.csv or .txt, or None."""
    for path in (root / 'objectInfo150.csv', root / 'objectInfo150.txt'):
        if path.is_file():
            lines = read_text(path).splitlines()
            rows = csv.DictReader(lines, delimiter='\t' if '\t' in ''.join(lines[:1]) else ',')
            names = [re.split('[;,]', row.get('Name') or '')[0].strip() for row in rows]
            if len(names) == 150 and all(names):
                return ['other', *names]


def nyu_40_labels(root):
    """Return {class: label}, the usual mapping of NYU's 894 classes to 40 labels."""
    path = (root if root.is_dir() else root.parent) / 'classMapping40.mat'
    if not path.is_file():
        raise UserError(f'--n-labels 40: needs {path}, with the labels of the 894 classes')
    labels = read_mat_numbers(path, 'mapClass')
    if len(labels) != 894 or not 1 <= min(labels) <= max(labels) <= 40:
        raise UserError(f'{path}: expected 894 numbers from 1 to 40, got {len(labels)}')
    return dict(enumerate([0, *labels]))


class Layout(NamedTuple):
    """A row of the table below."""
    name: str
    find: Callable                          # recognises its folder, see above
    n_labels: int | None = None             # 0: pictures to pictures; None: its maps tell
    decode_map: Callable = decoding.decode_map      # decodes a label map
    label_of_colours: Callable | None = None        # its label maps are colours: (H, W, 3) to ids
    inst_of_colours: Callable | None = None         # its instance maps are
    names: Callable = lambda root: None     # returns the names of the labels, or None
    colours: tuple = ()                     # (R, G, B) of the labels 0, 1, 2 ...
    void: tuple = ()                        # ids that its benchmark does not count
    things: tuple = ()                      # labels of objects that can be counted
    sparse: bool = False                    # its ids have gaps: those that occur become 0, 1, 2 ...
    tables: dict = {}                       # {--n-labels: function(root), {id: label}}
    fits: Callable = lambda root, files: True       # whether the files found are of this data set
    may_be_own: bool = False                # people use its folders for labels of their own


LAYOUTS = {layout.name: layout for layout in (
    Layout('Cityscapes', find_cityscapes, len(CITYSCAPES),
           names=lambda root: [name for name, _ in CITYSCAPES],
           colours=tuple(colour for _, colour in CITYSCAPES),
           void=tuple(int(row['id']) for row in CITYSCAPES_ROWS if row['void'] == '1'),
           things=tuple(int(row['id']) for row in CITYSCAPES_ROWS if row['thing'] == '1'),
           may_be_own=True),
    Layout('ADE20K scene parsing',
           folder_finder(label='annotations/{long_split}/*', image='images/{long_split}/*',
                         inst='annotations_instance/{long_split}/*'),   # in the challenge of 2017
           151, names=ade_names, void=(0,),     # red is the class, green numbers its instances
           inst_of_colours=lambda colours: colours[..., 0] * 256 + colours[..., 1],
           fits=is_named_ade, may_be_own=True),
    Layout('ADE20K full', find_ade_full, label_of_colours=ade_class, void=(0,), sparse=True,
           fits=is_named_ade,
           # Blue numbers the instances. It is 0 without objects; then the class tells things apart.
           inst_of_colours=lambda colours: ade_class(colours) * 256 + colours[..., 2]),
    Layout('NYU Depth v2', find_nyu, 895, void=(0,), tables={40: nyu_40_labels}),
    Layout('Helen', find_helen, len(HELEN), decode_helen_masks, names=lambda root: HELEN),
    Layout('flat', folder_finder(label='{split}_label/*', inst='{split}_inst/*',
                                 image='{split}_img/*')),
    Layout('A to B', find_a_to_b, 0, may_be_own=True),
    Layout(OWN, find_own),
    *(Layout(name, side_by_side_finder(side), 0, may_be_own=True,
             fits=lambda root, files, side=side: side == side_of_maps(
                 root, decoding.real_path(files['label'][0]).relative_to(root).parts[0]))
      for side, name in SIDE_BY_SIDE.items()))}


def recognise_layout(root, split, chosen=None):
    """Return the first Layout that recognises a folder with label maps, or else one without any,
    and its files; None and {} for other folders.
    chosen: the name of one that need not fit, and comes first."""
    if chosen and (files := LAYOUTS[chosen].find(root, split)) and files['label']:
        return LAYOUTS[chosen], files
    empty = None, {}
    for layout in LAYOUTS.values():
        files = layout.find(root, split)
        if files and files['label'] and layout.fits(root, files):
            return layout, files
        if files and not files['label'] and not empty[0]:
            empty = layout, files
    return empty


def find_splits(root, chosen=None):
    """Return {split: {role: [path]}} of the splits of a data set. chosen: see recognise_layout."""
    named = [folder.name.removesuffix(end) for end in ('_label', '_A', 'A')
             for folder in root.glob('*' + end)]
    splits = {}
    for split in ['train', 'val', 'test', *filter(None, sorted(named))]:
        with suppress(UserError):                       # of a split that nobody asked for
            files = recognise_layout(root, split, chosen)[1]
            # Without lists, each split is the whole data set.
            if files.get('label') and files['label'] not in [f['label'] for f in splits.values()]:
                splits[split] = files
    return splits


def find_pairs(root, split='train', config=None, chosen=None, refusal=None):
    """Recognise the layout of a folder and pair its files by name. Return the Layout, [Pair] and
    {scene: message} for scenes that lack a file. Raises UserError if there are no label maps, or
    if the run of `config` takes pictures in their place or the other way round. chosen: the name
    of the Layout to try first (default: that of the run). refusal: the message of the UserError if
    the folder has another layout."""
    root = Path(root)
    if not root.is_dir() and root.suffix != '.mat':
        raise UserError(f'{root}: {"a file, not a" if root.exists() else "no such"} folder'
                        + '; unpack it first' * (root.suffix.lower() in ARCHIVES))
    if resolve_path(root).name in CITYSCAPES_PARTS:
        refuse_parts_of_cityscapes(root)
    layout, files = recognise_layout(root, split, chosen or config and config.layout)
    if refusal and (not layout or layout.name != chosen):
        raise UserError(refusal)
    if not files.get('image'):
        refuse_parts_of_cityscapes(root)
    if not files.get('label'):
        own_folders.refuse_panoptic(root)
        if not (splits := ', '.join(find_splits(root))):
            refuse_other_files(root, split)
        folders = sorted(root.glob('*/'))
        inner = not (splits or layout) and len(folders) < 4 and next(
            filter(find_splits, folders), None)
        raise UserError(f'{root}: ' + (
            f'no label maps of the split {split!r}, but of {splits}; choose with --split' if splits
            else f'{layout.name}, but there are no label maps' if layout
            else f'expected {split}_label/ and {split}_img/, or {split}_A/ and {split}_B/, or '
            'Cityscapes, ADE20K, NYU Depth v2 or Helen as downloaded; it has '
            + (', '.join(folder.name + '/' for folder in folders[:6]) or 'no folders')
            + next((f'; unpack {path.name} first' for path in sorted(root.glob('*.*'))
                    if path.suffix.lower() in ARCHIVES), '')
            + (f'; did you mean {inner}?' if inner else '')))
    if config and layout.name not in SIDE_BY_SIDE.values() and (
            (layout.n_labels == 0) != (config.n_labels == 0)):
        raise UserError(f'{root}: its layout is {layout.name}, the run was trained on '
                        f'{config.layout}; choose another --data DIR')
    if config and config.n_labels and layout.name != config.layout:
        warn(f'note: {root}: its layout is {layout.name}, the run was trained on {config.layout}; '
             'the ids must mean the same labels')
    files = {role: [Path(path) for path in paths] for role, paths in files.items()}
    pairs, problems = pair_by_name(root, split, files)
    if not pairs and layout.name == 'A to B' and not any('nearest' in x for x in problems.values()):
        raise UserError(f'{root}: {files["label"][0].parent.name}/ and its partner share no names, '
                        'as those of CycleGAN, which are not pairs; this program needs pairs: a '
                        'map and its photograph under the same name')
    return layout, pairs, problems


def refuse_parts_of_cityscapes(root):
    """Raise UserError if `root` has, or is, only one of the two parts of Cityscapes: the labels or
    the photographs. Each part is an archive of its own."""
    if all((root / part).is_dir() for part in CITYSCAPES_PARTS):
        return
    is_part = any(part in resolve_path(root).name for part in CITYSCAPES_PARTS)
    places = [root, root.parent] if is_part else [root]
    found = {name: next((folder for place in places for folder in (
        place, place / name, *sorted(place.glob(f'*/{name}')))
        if resolve_path(folder).name == name and folder.is_dir()), None)
        for name in CITYSCAPES_PARTS}
    here = [folder for folder in found.values() if folder and folder.is_relative_to(root)]
    if not here:
        return
    if None in found.values():
        missing = next(name for name, folder in found.items() if not folder)
        raise UserError(f'{root}: {here[0].name}/ of Cityscapes is there, and {missing}/ is not; '
                        'put both into one folder, and name that')
    first, second = found.values()
    if first.parent == second.parent:
        raise UserError(f'{root}: name the folder with gtFine/ and leftImg8bit/ in it, '
                        f'{first.parent}')
    raise UserError(f'{root}: move {first}/ and {second}/ into one folder, and name that')


def pair_by_name(root, split, files):
    """Return [Pair] of {role: [path]}, and {scene: message} of the scenes that lack a file, with
    what would pair them."""
    named = scene_names.name_files(files, scene_name)
    labels = named['label']
    images = scene_names.respell(named['image'], labels)
    insts = scene_names.respell(named.get('inst', {}), labels) or dict.fromkeys(labels)
    kinds = {'label map': labels, 'instance map': insts, 'photograph': images}
    pairs, unpaired = [], {}
    for scene in sorted({*labels, *insts, *images}):
        if kind := next((kind for kind, paths in kinds.items() if scene not in paths), None):
            unpaired[scene] = kind
        else:
            pairs.append(Pair(scene, labels[scene], insts[scene], images[scene]))
    if not unpaired:
        return pairs, {}
    candidates = {kind: scene_names.Candidates({
        scene: paths[scene] for scene in unpaired if paths.get(scene)})
        for kind, paths in kinds.items()}
    folders = {root / path.relative_to(root).parts[0] for paths in files.values() for path in paths}
    folders |= {folder for folder in root.glob('*/') if folder.name.startswith(split)
                or folder.name.lower() in own_folders.FOLDERS['image']}
    others, problems = other_formats(folders), {}
    for scene, kind in unpaired.items():
        path = labels.get(scene) or images.get(scene) or insts[scene]
        folder, _, name = scene.rpartition('/')
        other, place = others.get(name), f' in a folder {folder}/' if folder else ''
        problems[scene] = (
            f'{other}: {formats.NOT_READ}' if other else
            f'{path}: no {kind} of the same name' + (candidates[kind].advice(scene) or place))
    return pairs, problems


def check_outside(folder, flag, root, chosen=None):
    """Raise UserError if a folder that is to be written lies in one of the pictures in `root`,
    where it would be taken for data next time. chosen: see recognise_layout."""
    folder, root = resolve_path(folder), Path(root)
    tops = [top for top in root.glob('*/') if folder.is_relative_to(resolve_path(top))]
    splits = find_splits(root, chosen).values() if tops else ()
    for paths in (paths for files in splits for paths in files.values()):
        for top in tops:
            if any(Path(path).is_relative_to(top) for path in paths):
                raise UserError(f'{flag} {folder}: lies in {top}, so what is written there would '
                                'be taken for data; choose a folder outside')


def files_by_name(paths, role, below_folders=False):
    """Return {scene: path} of files, and of the pictures in folders: not of those named for other
    roles ('label', 'inst', 'image'), nor unnamed ones if another of their scene is named for it
    (NAME.png, and NAME_001.png, which a script of `edit` writes, beside NAME_labelIds.png).
    Names are those of paths below the folders if others are the same, or if below_folders."""
    files, folders = [], []
    for path in map(Path, paths):
        if path.is_dir():
            roles = {file: roles_by_name(file) for file in pictures_below(path)}
            named = [file for file in roles if role in (roles[file] or '').split()]
            scenes = set(map(scene_name, named))
            others = [file for file in roles if roles[file] is None and not scenes & {
                scene_name(file), re.sub(r'_\d{3,}\Z', '', scene_name(file))}]
            files += sorted(named + others, key=scene_name)
            folders.append(path)
        else:
            if len(paths) == 1 and not decoding.is_mat_part(path):
                require_regular_file(decoding.real_path(path))  # before computing anything
            files.append(path)
            folders.append(path.parent)
    if not files:
        raise UserError(f'{paths[0]}: no pictures there')
    if below_folders or len({*map(scene_name, files)}) < len(files):
        depth = scene_names.common_parts(folders)
        return scene_names.name_files({role: files}, scene_name, depth)[role]
    return scene_names.name_files({role: files}, scene_name)[role]


def match_by_name(paths, role, labels):
    """Return files_by_name for all scenes of `labels`, {scene: path}; one file fits one map."""
    files = files_by_name(paths, role, any('/' in scene for scene in labels))
    if len(files) == len(labels) == 1:
        return dict(zip(labels, files.values()))
    files = scene_names.respell(files, labels)
    for scene, path in labels.items():
        if scene not in files or files[scene] == path and roles_by_name(path) is None:
            advice = scene_names.Candidates({name: file for name, file in files.items()
                                             if name not in labels}).advice(scene)
            raise UserError(f'{path}: no file of the same name in '
                            f'{" ".join(map(str, paths))}{advice}')
    return files
