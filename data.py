"""From files to batches on the device: decoding, augmentation, one-hot labels, boundary maps.

Maps and photographs travel as integers (uint8 where the values fit) and become float one-hot channels and [-1, 1]
pictures on the device. Sizes are (width, height) as in Pillow; tensors are (N, C, H, W).
"""
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
import json
import multiprocessing
import os
from pathlib import Path
import shutil
import signal
import warnings

import numpy as np
from PIL import Image
import torch
import torch.nn.functional as F

from files import UserError, blame, lock, write_whole

FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP')            # Pillow has more: for EPS it would run a program
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.npy')
CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
IN_MEMORY_BYTES = 1 << 30                                # a data set that is smaller when decoded is decoded only once

Image.MAX_IMAGE_PIXELS = 1 << 27                           # twice as many are refused before they are decoded
warnings.filterwarnings('ignore', module='PIL')          # what matters about a file is an exception


# Functions (path, size or None) -> (H, W[, C]) ndarray, and a text that changes when what they return does.
Readers = namedtuple('Readers', 'label inst image signature')


# --------------------------------------------------------------------------------------------------- decoding


def open_picture(path):
    """The PIL.Image of a file, not yet decoded."""
    if not os.path.lexists(path):
        raise UserError(f'{path}: no such file')
    with blame(path, 'cannot be read as a picture'):
        return Image.open(path, formats=FORMATS)


def open_array(path):
    """A .npy file -> (H, W, C) ndarray, mapped into memory."""
    with blame(path, 'cannot be read as an array'):
        array = np.lib.format.open_memmap(path, mode='r')
    if array.ndim not in (2, 3) or 0 in array.shape or max(array.shape) > 1 << 15:
        raise UserError(f'{path}: an array of shape {array.shape}, expected (height, width) or '
                        '(height, width, channels)')
    return array if array.ndim == 3 else array[..., None]


def resize(array, size, nearest=False):
    """(H, W) or (H, W, C) ndarray -> the same of `size` (width, height), by nearest neighbour or, antialiased,
    bicubic."""
    if size is None or tuple(size) == array.shape[1::-1]:
        return array
    if nearest:
        rows, columns = ((np.arange(n) + 0.5) * old / n for n, old in zip(size[::-1], array.shape))
        return array[rows.astype(int)[:, None], columns.astype(int)]
    pixels = to_tensor(array)[None]
    pixels = F.interpolate(pixels, size[::-1], mode='bicubic', antialias=True)
    return np.moveaxis((pixels.clamp(-1, 1) if pixels.is_floating_point() else pixels)[0].numpy(), 0, -1)


def read_map(path, size=None):
    """A label or instance map -> (H, W) int32, resized by nearest neighbour. One channel of 8, 16 or 32 bits, a palette
    picture (`P`), whose indices are the values, or a .npy array of integers. UserError otherwise."""
    if str(path).endswith('.npy'):
        array = open_array(path)
        if array.shape[2] > 1 or array.dtype.kind not in 'iub':
            raise UserError(f'{path}: a map of ids has one channel of integers, this array has {array.shape[2]} of '
                            f'{array.dtype}')
        with blame(path):
            return resize(array[..., 0], size, nearest=True).astype(np.int32)
    with open_picture(path) as picture:
        if picture.mode not in ('1', 'L', 'P', 'I') and not picture.mode.startswith('I;16'):
            raise UserError(f'{path}: a map of ids has one channel of integers, this picture is {picture.mode}; '
                            'if its colours stand for labels, train with --palette FILE')
        with blame(path, 'damaged'):
            if size and tuple(size) != picture.size:
                picture = picture.resize(size, Image.Resampling.NEAREST)
            return np.asarray(picture).astype(np.int32)


def read_photo(path, size=None, channels=3, nearest=False):
    """A photograph -> (H, W, channels), resized with antialiasing: uint8, RGB or grey; or the values of a .npy array,
    uint8 or float in [-1, 1], of any number of channels. UserError otherwise."""
    if str(path).endswith('.npy'):
        array = open_array(path)
        if array.shape[2] != channels or not (array.dtype == np.uint8 or array.dtype.kind == 'f'):
            raise UserError(f'{path}: {array.shape[2]} channels of {array.dtype}, expected {channels} of uint8, '
                            'or float in [-1, 1]')
        with blame(path):
            array = resize(np.array(array, np.uint8 if array.dtype == np.uint8 else np.float32), size, nearest)
            if array.dtype != np.uint8 and not np.abs(array).max() <= 1:
                raise UserError(f'{path}: float values must lie in [-1, 1]')
            return array
    if channels not in (1, 3):
        raise UserError(f'{path}: a picture file has 1 or 3 channels, expected {channels}; more are read from .npy')
    with open_picture(path) as picture, blame(path, 'damaged'):
        picture.draft(None, size)                        # JPEG: decode at a half, a quarter ... where that is enough
        if picture.mode.startswith('I;16'):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        picture = picture.convert('RGB' if channels == 3 else 'L')
        if size and tuple(size) != picture.size:
            picture = picture.resize(size, Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC)
        return np.atleast_3d(np.asarray(picture))


def header(path):
    """(width, height, channels) without decoding."""
    if str(path).endswith('.npy'):
        h, w, channels = open_array(path).shape
        return w, h, channels
    with open_picture(path) as picture:
        return *picture.size, 1 if picture.mode in ('1', 'L', 'LA', 'I', 'F') or picture.mode.startswith('I;16') else 3


def in_parallel(function, items, progress=None):
    """[function(item) for item in items], in as many threads as there are cores; decoding frees them to run at once.
    `progress(done)` is called after each."""
    with ThreadPoolExecutor(CORES) as pool:
        results = []
        for result in pool.map(function, items):
            results.append(result)
            if progress:
                progress(len(results))
        return results


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
    """Pairs as tensors, augmented. A key is (epoch, index); what it gives is a pure function of (seed, epoch, index):
    `label` (1, H, W) uint8 (int32 above 256 labels; (C, H, W) where n_labels is 0), `image` (C, H, W) uint8 (or
    float32 in [-1, 1]) and, where there are instances, `inst` (1, H, W) int32."""

    def __init__(self, pairs, readers, n_labels, size=None, crop=None, flip=False, jitter=1, multiple=1,
                 instances='files', seed=0, cache=None):
        """size: resize to (width, height), None: as is. crop: random section of (width, height). jitter: resize up by
        this factor and crop back at random. multiple: without a crop, pictures are trimmed at the right and the bottom
        to a multiple of this. instances: 'files', 'components', 'none'. cache: folder of decoded pictures, see
        open_cache."""
        self.pairs, self.readers, self.n_labels, self.size, self.crop = pairs, readers, n_labels, size, crop
        self.flip, self.jitter, self.multiple, self.instances, self.seed = flip, jitter, multiple, instances, seed
        self.decoded = None
        if cache:
            self.decoded = open_cache(Path(cache), self)
        elif size and len(pairs) * size[0] * size[1] * 8 <= IN_MEMORY_BYTES:
            self.decoded = in_parallel(self.read, pairs)

    def __len__(self):
        return len(self.pairs)

    def read(self, pair):
        """Decode and resize -> {role: (H, W[, C]) ndarray}; UserError names what is wrong."""
        image = self.readers.image(pair.image, self.size)
        size = image.shape[1::-1]
        label = self.readers.label(pair.label, size)
        if self.n_labels == 0:
            return {'label': label, 'image': image}
        check_labels(label, pair.label, self.n_labels)
        arrays = {'label': label.astype(np.uint8 if self.n_labels <= 256 else np.int32), 'image': image}
        if self.instances == 'files':
            arrays['inst'] = self.readers.inst(pair.inst, size)
        elif self.instances == 'components':
            arrays['inst'] = connected_components(label)
        return arrays

    def __getitem__(self, key):
        epoch, index = key
        pair = self.pairs[index]
        arrays = self.decoded[index] if self.decoded else self.read(pair)
        rng = np.random.default_rng((self.seed, epoch, index))
        h, w = arrays['label'].shape[:2]
        ch, cw = self.crop[::-1] if self.crop else (h - h % self.multiple, w - w % self.multiple)
        if cw > w or ch > h or not (cw and ch):
            raise UserError(f'{pair.image}: {w}x{h} is too small to take '
                            f'{cw or self.multiple}x{ch or self.multiple} from it')
        if self.jitter > 1:
            h, w = round(h * self.jitter), round(w * self.jitter)
            arrays = {role: resize(array, (w, h), nearest=role == 'inst' or role == 'label' and self.n_labels > 0)
                      for role, array in arrays.items()}
        x, y = (rng.integers(w - cw + 1), rng.integers(h - ch + 1)) if self.crop or self.jitter > 1 else (0, 0)
        mirror = -1 if self.flip and rng.random() < 0.5 else 1
        return {role: to_tensor(array[y:y + ch, x:x + cw][:, ::mirror]) for role, array in arrays.items()}


class Cached:
    """Decoded pictures in memory-mapped arrays, read by index like a list of what Pictures.read returns."""

    def __init__(self, folder, roles):
        self.arrays = {role: np.load(folder / f'{role}.npy', mmap_mode='r') for role in roles}

    def __getitem__(self, index):
        return {role: array[index] for role, array in self.arrays.items()}


def open_cache(folder, dataset):
    """The pictures of `dataset`, which has one size, decoded into folder/<role>.npy -> Cached.

    Built once, in parallel; built anew when a name, a size or a modification time of the files, or the way of
    reading them, is not what folder/index.json says.
    """
    def stamp(path):
        with blame(path):
            status = os.stat(path if os.path.lexists(path) else path.parents[1])
            return [str(path), status.st_size, status.st_mtime_ns]

    index = {'readers': dataset.readers.signature, 'size': list(dataset.size), 'n_labels': dataset.n_labels,
             'instances': dataset.instances,
             'files': in_parallel(lambda pair: [stamp(path) for path in pair[1:] if path], dataset.pairs)}
    text = json.dumps(index)
    roles = ['label', 'image'] + ['inst'] * (dataset.instances != 'none')
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder, wait=True):                           # another run may be building it
        fill_cache(folder, dataset, roles, text)
        with blame(folder, 'not a whole cache; delete it'):
            return Cached(folder, roles)


def fill_cache(folder, dataset, roles, text):
    """Write the arrays of a cache, and then `text` into folder/index.json, unless it says that already. Who has mapped
    older arrays keeps them."""
    listed = folder / 'index.json'
    if not listed.is_file() or listed.read_text() != text:
        listed.unlink(missing_ok=True)
        first = dataset.read(dataset.pairs[0])
        needed = len(dataset) * sum(first[role].nbytes for role in roles)
        if needed > shutil.disk_usage(folder).free:     # writing to a mapped file on a full disk would kill the process
            raise UserError(f'--cache {folder}: needs {needed >> 20} MiB, more than is free there')
        arrays = {role: np.lib.format.open_memmap(folder / f'{role}.partial', 'w+', first[role].dtype,
                                                  (len(dataset), *first[role].shape)) for role in roles}

        def fill(i):
            for role, array in dataset.read(dataset.pairs[i]).items():
                arrays[role][i] = array

        in_parallel(fill, range(len(dataset)))
        for role, array in arrays.items():
            array.flush()
            os.replace(folder / f'{role}.partial', folder / f'{role}.npy')
        write_whole(listed, lambda file: file.write(text.encode()))


def check_labels(label, path, n_labels):
    """UserError naming the first pixel of `label` (H, W) that is not in 0 ... n_labels - 1."""
    wrong = (label < 0) | (label >= n_labels)
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        raise UserError(f'{path}: label {label[y, x]} at x={x}, y={y}, but labels go from 0 to {n_labels - 1}; '
                        'was this map made for another data set?')


def to_tensor(array):
    """(H, W) or (H, W, C) ndarray -> (C, H, W) tensor of the same type."""
    return torch.from_numpy(np.array(np.moveaxis(np.atleast_3d(array), -1, 0), order='C'))


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


def ignore_signals(worker):
    """Ctrl-C, and a SIGTERM of Slurm, reach loader processes too; it is the trainer who ends them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def batches(dataset, workers, device, **order):
    """The batches of a Pictures in the given sampler's order, loaded by `workers` processes, which end with this
    generator; by none where the pictures are decoded already."""
    workers = 0 if dataset.decoded else min(workers, CORES)
    # Forked, whatever Python's default: nothing has to be pickled, and children notice when the trainer is killed.
    fork = 'fork' if workers and 'fork' in multiprocessing.get_all_start_methods() else None
    iterator = iter(torch.utils.data.DataLoader(
        dataset, num_workers=workers, multiprocessing_context=fork, worker_init_fn=ignore_signals,
        pin_memory=device.type == 'cuda', **order))
    try:
        yield from iterator
    finally:
        if hasattr(iterator, '_shutdown_workers'):          # else they would be ended by a SIGTERM at exit
            iterator._shutdown_workers()


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
    """uint8 picture -> float32 in [-1, 1], any shape; one that is float already stays as it is."""
    return image if image.is_floating_point() else image.float() / 127.5 - 1


def to_uint8(image):
    """Float picture in [-1, 1] -> uint8, any shape."""
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_device(batch, device):
    """A loader's batch -> the tensors that train_step takes: label, inst (or None), image as float in [-1, 1]."""
    batch = {role: tensor.to(device, non_blocking=True) for role, tensor in batch.items()}
    return batch['label'], batch.get('inst'), to_float(batch['image'])


def condition(label, inst, n_labels):
    """What generator and discriminator are told: (N, n_labels [+ 1], H, W) float32.

    label: (N, 1, H, W) integer, made one-hot; or, where n_labels is 0, (N, 3, H, W) uint8, made [-1, 1].
    inst: (N, 1, H, W) integer, whose boundary map is appended; or None.
    """
    channels = one_hot(label, n_labels) if n_labels else to_float(label)
    return channels if inst is None else torch.cat([channels, boundary_map(inst).float()], 1)


def describe_instances(label, inst, n_labels):
    """label, inst: (N, 1, H, W) integer -> slot (N, 1, H, W) int64, the number 0 ... K - 1 of each pixel's instance,
    and per instance its label (K,), the most frequent one under it, and its pixels (K,), both int64. Ids are shared by
    the batch."""
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

