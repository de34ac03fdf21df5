"""From a folder on disk to batches on the device: layouts, decoding, augmentation, one-hot labels, boundary maps.

Maps and photographs travel as integers (uint8 where the values fit) and become float one-hot channels and [-1, 1]
pictures on the device. Sizes are (width, height) as in Pillow; tensors are (N, C, H, W).
"""
from collections import Counter, namedtuple
from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path

import numpy as np
from PIL import Image
import torch
import torch.nn.functional as F

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
ROLE_ENDINGS = ('_gtFine_labelIds', '_gtFine_instanceIds', '_leftImg8bit')  # of Cityscapes, to be dropped from names
CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
IN_MEMORY_BYTES = 1 << 30                                # a data set that is smaller when decoded is decoded only once

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

Pair = namedtuple('Pair', 'name label inst image')       # paths; inst and image may be None
Source = namedtuple('Source', 'layout pairs n_labels label_names')
# layout: its name for the user. n_labels: 0 for RGB to RGB, None where only the maps can tell. label_names: list or None.


class UserError(Exception):
    """What the user can mend: one line that names the file, the value and the remedy."""


# ---------------------------------------------------------------------------------------------------- folders

def scene_name(path):
    """What the label map, the instance map and the photograph of one scene share: the stem less what tells them apart."""
    name = path.stem
    for role in ROLE_ENDINGS:
        name = name.removesuffix(role)
    return name


def pictures_in(folder, ending=''):
    """{scene_name: path} of the pictures below `folder` whose stem ends in `ending`. UserError if two share a name."""
    found = {}
    for path in sorted(Path(folder).rglob('*')):
        if path.suffix.lower() in SUFFIXES and path.stem.endswith(ending):
            if found.setdefault(name := scene_name(path), path) != path:
                raise UserError(f'{path} and {found[name]} have the same name: remove or rename one of them')
    return found


def find_pairs(root, split='train', need_images=True):
    """Recognise the layout of the folder `root` and pair its files by name -> Source.

    Known layouts: Cityscapes as downloaded; flat `<split>_label`, `<split>_img` and perhaps `<split>_inst`; RGB to RGB
    `<split>_A`, `<split>_B`. UserError for anything that has no partner; photographs may be missing
    where not `need_images`.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root}: no such folder')
    names = None
    if (root / 'gtFine').is_dir():
        layout, n_labels, names = 'Cityscapes', len(CITYSCAPES), [name for name, _ in CITYSCAPES]
        maps = root / 'gtFine' / split
        roles = {'label': (maps, '_labelIds'), 'inst': (maps, '_instanceIds'),
                 'image': (root / 'leftImg8bit' / split, '_leftImg8bit')}
    elif (root / f'{split}_A').is_dir():
        layout, n_labels = 'A to B', 0
        roles = {'label': (root / f'{split}_A', ''), 'image': (root / f'{split}_B', '')}
    else:
        layout, n_labels = 'flat', None
        roles = {role: (root / f'{split}_{folder}', '')
                 for role, folder in (('label', 'label'), ('inst', 'inst'), ('image', 'img'))}
        if not roles['label'][0].is_dir():
            raise UserError(f'{root}: expected {split}_label/ and {split}_img/ (and perhaps {split}_inst/), or {split}_A/ '
                            f'and {split}_B/, or gtFine/ and leftImg8bit/ as Cityscapes is downloaded')
    files = {role: pictures_in(*place) for role, place in roles.items()}
    files.setdefault('inst', {})
    labels = files['label']
    if not labels:
        raise UserError(f'{roles["label"][0]}: no label maps there ({" ".join(SUFFIXES)})')
    for role, others in files.items():
        if not others and not (role == 'image' and need_images):
            continue
        partner = 'label map' if role != 'label' else 'photograph'
        extra = sorted(others.keys() - labels.keys())
        missing = sorted(labels.keys() - others.keys()) if role != 'image' or need_images else []
        if extra or missing:
            path, lacks = ((others[extra[0]], 'label map') if extra else
                           (labels[missing[0]], {'inst': 'instance map', 'image': 'photograph'}[role]))
            raise UserError(f'{path}: no {lacks} of the same name in {roles["label" if extra else role][0]} '
                            f'({len(extra) + len(missing)} such); add it or remove this one')
    return Source(layout, [Pair(name, labels[name], files['inst'].get(name), files['image'].get(name))
                           for name in sorted(labels)], n_labels, names)


# --------------------------------------------------------------------------------------------------- decoding

def open_picture(path):
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise UserError(f'{path}: no such file') from None
    except Exception as error:
        raise UserError(f'{path}: cannot be read as a picture ({error})') from None


def decode(picture, path, size, resample):
    """Resize to `size` (width, height), or leave as is where None, and decode."""
    try:
        return np.asarray(picture if size in (None, picture.size) else picture.resize(size, resample))
    except Exception as error:
        raise UserError(f'{path}: damaged ({error})') from None


def read_map(path, size=None):
    """A label or instance map -> (H, W) int32, resized by nearest neighbour. One channel of 8, 16 or 32 bits, or
    a palette picture (`P`), whose indices are the values. UserError otherwise."""
    picture = open_picture(path)
    if picture.mode not in ('1', 'L', 'P', 'I') and not picture.mode.startswith('I;16'):
        raise UserError(f'{path}: a map of ids has one channel of integers, this picture is {picture.mode}')
    return decode(picture, path, size, Image.Resampling.NEAREST).astype(np.int32)


def read_photo(path, size=None):
    """A photograph -> (H, W, 3) uint8 RGB, resized with antialiasing."""
    with open_picture(path) as picture:
        picture.draft('RGB', size)                       # JPEG: decode at a half, a quarter ... where that is enough
        try:
            picture = picture.convert('RGB')
        except Exception as error:
            raise UserError(f'{path}: damaged ({error})') from None
        return decode(picture, path, size, Image.Resampling.BICUBIC)


def picture_size(path):
    """(width, height), from the file's header."""
    with open_picture(path) as picture:
        return picture.size


def in_parallel(function, items):
    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(function, items))


def common_size(pairs):
    """The most frequent (width, height) of the photographs; UserError where a map's proportions differ from its photograph's."""
    def check(pair):
        w, h = picture_size(pair.image)
        for path in filter(None, (pair.label, pair.inst)):
            mw, mh = picture_size(path)
            if abs(mw * h - mh * w) > max(w, h, mw, mh):
                raise UserError(f'{path} is {mw}x{mh} and {pair.image} is {w}x{h}: they must show the same section')
        return w, h
    return Counter(in_parallel(check, pairs)).most_common(1)[0][0]


def count_labels(pairs):
    """1 + the largest label in the label maps."""
    return 1 + max(in_parallel(lambda pair: int(read_map(pair.label).max()), pairs))


def connected_components(label):
    """Number the 4-connected regions of equal label: (H, W) integer ndarray -> (H, W) int32, 0, 1, 2 ...

    Horizontal runs of equal labels are the nodes of a graph, vertical contacts its edges; every root is
    hooked to the smallest root it touches and paths are halved until nothing changes (Shiloach and Vishkin, 1982).
    """
    starts = np.ones(label.shape, bool)
    starts[:, 1:] = label[:, 1:] != label[:, :-1]
    run = starts.cumsum().reshape(label.shape) - 1
    touching = label[1:] == label[:-1]
    nodes = run[-1, -1] + 1
    above, below = divmod(np.unique(run[:-1][touching] * nodes + run[1:][touching]), nodes)
    root = np.arange(nodes)
    while (root[above] != root[below]).any():
        a, b = root[above], root[below]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root != root[root]).any():
            root = root[root]
    return np.unique(root, return_inverse=True)[1].astype(np.int32)[run]


# ---------------------------------------------------------------------------------------------------- batches

class Pictures(torch.utils.data.Dataset):
    """The pairs as tensors, augmented. A key is (epoch, index); what it gives is a pure function of (seed, epoch, index):
    `label` (1, H, W) uint8 (int32 above 256 labels; (3, H, W) uint8 for RGB to RGB), `image` (3, H, W) uint8 and,
    where there are instances, `inst` (1, H, W) int32."""

    def __init__(self, pairs, n_labels, size=None, crop=None, flip=False, multiple=1, instances='files', seed=0):
        """size: resize to (width, height), None: as is. crop: random section of (width, height). multiple: without a
        crop, pictures are trimmed at the right and the bottom to a multiple of this. instances: 'files', 'components', 'none'."""
        self.pairs, self.n_labels, self.size, self.crop = pairs, n_labels, size, crop
        self.flip, self.multiple, self.instances, self.seed = flip, multiple, instances, seed
        self.decoded = None
        width, height = size or picture_size(pairs[0].image)
        if len(pairs) * width * height * 8 <= IN_MEMORY_BYTES:
            self.decoded = in_parallel(self.read, pairs)

    def __len__(self):
        return len(self.pairs)

    def read(self, pair):
        """Decode and resize -> {role: (H, W[, 3]) ndarray}; UserError names what is wrong."""
        image = read_photo(pair.image, self.size)
        size = image.shape[1::-1]
        if self.n_labels == 0:
            return {'label': read_photo(pair.label, size), 'image': image}
        label = check_labels(read_map(pair.label, size), pair.label, self.n_labels)
        maps = {'label': label.astype(np.uint8 if self.n_labels <= 256 else np.int32), 'image': image}
        if self.instances == 'files':
            maps['inst'] = read_map(pair.inst, size)
        elif self.instances == 'components':
            maps['inst'] = connected_components(label)
        return maps

    def __getitem__(self, key):
        epoch, index = key
        arrays = self.decoded[index] if self.decoded else self.read(self.pairs[index])
        rng = np.random.default_rng((self.seed, epoch, index))
        h, w = arrays['label'].shape[:2]
        cw, ch = self.crop or (w - w % self.multiple, h - h % self.multiple)
        if cw > w or ch > h or not (cw and ch):
            raise UserError(f'{self.pairs[index].image}: {w}x{h} is too small to take {cw or self.multiple}x{ch or self.multiple} from it')
        x, y = (rng.integers(w - cw + 1), rng.integers(h - ch + 1)) if self.crop else (0, 0)
        mirror = -1 if self.flip and rng.random() < 0.5 else 1
        return {role: to_tensor(array[y:y + ch, x:x + cw][:, ::mirror]) for role, array in arrays.items()}


def check_labels(label, path, n_labels):
    """Return `label` (H, W); UserError naming the first pixel that is not in 0 ... n_labels - 1."""
    wrong = (label < 0) | (label >= n_labels)
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        raise UserError(f'{path}: label {label[y, x]} at x={x}, y={y}, but labels go from 0 to {n_labels - 1}')
    return label


def to_tensor(array):
    """(H, W) or (H, W, C) ndarray -> (C, H, W) tensor of the same type."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.atleast_3d(array), -1, 0)))


class Order(torch.utils.data.Sampler):
    """Batches of (epoch, index) keys for the steps start ... stop - 1.

    The epochs' shuffled orders, each a pure function of (seed, epoch), follow one another without a gap and are cut
    into full batches: every step's keys are known without the steps before it.
    """

    def __init__(self, n, batch, start, stop, seed):
        self.n, self.batch, self.start, self.stop, self.seed = n, batch, start, stop, seed

    def __len__(self):
        return self.stop - self.start

    def __iter__(self):
        shuffled = {}
        for step in range(self.start, self.stop):
            keys = []
            for position in range(step * self.batch, (step + 1) * self.batch):
                epoch, i = divmod(position, self.n)
                if epoch not in shuffled:
                    shuffled = {epoch: np.random.default_rng((self.seed, epoch)).permutation(self.n).tolist()}
                keys.append((epoch, shuffled[epoch][i]))
            yield keys


# -------------------------------------------------------------------------------------------------- on the device

def boundary_map(inst):
    """Instance boundary map, paper section 3.3: 1 where any of the 4 neighbours belongs to another instance.

    inst: (..., H, W) integer -> the same shape, uint8.
    """
    boundary = torch.zeros(inst.shape, dtype=torch.bool, device=inst.device)
    across = inst[..., :, 1:] != inst[..., :, :-1]
    down = inst[..., 1:, :] != inst[..., :-1, :]
    boundary[..., :, 1:] |= across
    boundary[..., :, :-1] |= across
    boundary[..., 1:, :] |= down
    boundary[..., :-1, :] |= down
    return boundary.to(torch.uint8)


def one_hot(label, n_labels):
    """(N, 1, H, W) integer in 0 ... n_labels - 1 -> (N, n_labels, H, W) float32."""
    n, _, h, w = label.shape
    return torch.zeros(n, n_labels, h, w, device=label.device).scatter_(1, label.long(), 1.0)


def to_float(image):
    """uint8 picture -> float32 in [-1, 1], any shape."""
    return image.float() / 127.5 - 1


def to_uint8(image):
    """Float picture in [-1, 1] -> uint8, any shape."""
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def condition(label, inst, n_labels):
    """What generator and discriminator are told: (N, n_labels [+ 1], H, W) float32.

    label: (N, 1, H, W) integer, made one-hot; or, where n_labels is 0, (N, 3, H, W) uint8, made [-1, 1].
    inst: (N, 1, H, W) integer, whose boundary map is appended; or None.
    """
    channels = one_hot(label, n_labels) if n_labels else to_float(label)
    return channels if inst is None else torch.cat([channels, boundary_map(inst).float()], 1)


def describe_instances(label, inst, n_labels):
    """label, inst: (N, 1, H, W) integer -> slot (N, 1, H, W) int64, the number 0 ... K - 1 of each pixel's instance, and per
    instance its label (K,), the most frequent one under it, and its pixels (K,), both int64. Ids are shared by the batch."""
    _, slot, pixels = inst.unique(return_inverse=True, return_counts=True)
    votes = (slot * n_labels + label).flatten().bincount(minlength=len(pixels) * n_labels)
    return slot, votes.view(len(pixels), n_labels).argmax(1), pixels


def pad_to_multiple(x, multiple, smallest=1):
    """(N, C, H, W) of any type -> its right and lower edge repeated until both sides are multiples of `multiple` and
    at least `smallest`."""
    h, w = (max(-(-side // multiple) * multiple, smallest) for side in x.shape[-2:])
    rows = torch.arange(h, device=x.device).clamp(max=x.shape[-2] - 1)
    columns = torch.arange(w, device=x.device).clamp(max=x.shape[-1] - 1)
    return x[..., rows[:, None], columns]


# ------------------------------------------------------------------------------------------------------- display

def palette(n_labels, layout):
    """(n_labels, 3) uint8 colours to show labels in: Cityscapes' own, else the bit-reversed colours of PASCAL VOC."""
    if layout == 'Cityscapes':
        return np.array([colour for _, colour in CITYSCAPES], np.uint8)
    ids = np.arange(n_labels)[:, None]
    return sum(((ids >> 3 * bit + np.arange(3)) & 1) << 7 - bit for bit in range(3)).astype(np.uint8)
