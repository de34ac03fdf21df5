"""From pairs of files to batches on the device: augmentation, one-hot labels, boundary maps.

Maps and photographs travel as integers (uint8 where the values fit) and become float one-hot
channels and [-1, 1] pictures on the device. Sizes are (width, height) as in Pillow; tensors are
(N, C, H, W).
"""
from collections import namedtuple
import copy
from functools import partial
import multiprocessing
from pathlib import Path
import signal
import sys

import numpy as np
import torch

from app.datasets.cache import open_cache
from app.datasets.decoding import CORES, map_in_threads, resize
from app.common.errors import UserError
from app.runs import distributed

IN_MEMORY_BYTES = 1 << 30                           # what is smaller decoded is decoded only once

# Functions (path, size or None) -> (H, W[, C]) ndarray, and a text that changes when what they
# return does.
Readers = namedtuple('Readers', 'label inst image signature')


def derive_seed(*numbers):
    """One seed of many numbers (whole, 0 or more), as (seed, step): all draws are functions of such
    numbers alone."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def connected_components(label):
    """Number the 4-connected regions of equal label: (H, W) integer ndarray -> (H, W) int32, 0, 1,
    2 ...

    Horizontal runs of equal labels are the nodes of a graph, vertical contacts its edges; every
    root is hooked to the smallest root it touches and paths are halved until nothing changes
    (Shiloach and Vishkin, 1982).
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


# -------------------------------------------------------------------------------------- batches

class PairedDataset(torch.utils.data.Dataset):
    """Pairs as tensors, augmented. A key is (epoch, index); what it gives is a pure function of
    (seed, epoch, index): `label` (1, H, W) uint8 (int32 above 256 labels; (C, H, W) where n_labels
    is 0), `image` (C, H, W) uint8 (or float32 in [-1, 1]) and, where there are instances, `inst`
    (1, H, W) int32. UserError names a file that cannot be used."""

    def __init__(self, pairs, readers, n_labels, size=None, crop=None, flip=False, jitter=1,
                 multiple=1, instances='files', seed=0, cache=None, workers=0, keep=True):
        self.pairs, self.readers, self.n_labels = pairs, readers, n_labels
        self.size = size                            # resize to (width, height); None: as is
        self.crop = crop                            # random section of (width, height)
        self.flip = flip                            # mirror half of them
        self.jitter = jitter                        # resize up by this, and crop back at random
        self.multiple = multiple                    # without a crop, trim to multiples of this
        self.instances = instances                  # 'files', 'components', 'none'
        self.seed = seed
        self.workers = workers                      # processes that load, see batches
        self.decoded = None                         # if kept, a list of what `read` returns
        if cache:                                   # a folder of decoded pictures, see open_cache
            self.decoded = open_cache(Path(cache), self)
        elif keep and size and len(pairs) * size[0] * size[1] * 8 <= IN_MEMORY_BYTES:
            self.decoded = map_in_threads(self.read, pairs)

    def __len__(self):
        return len(self.pairs)

    def plain(self):
        """The same pictures as they are, whole and without augmentation."""
        pictures = copy.copy(self)
        pictures.crop, pictures.flip, pictures.jitter = None, False, 1
        return pictures

    def read(self, pair):
        """Decode and resize -> {role: (H, W[, C]) ndarray}; UserError names what is wrong."""
        image = self.readers.image(pair.image, self.size)
        size = image.shape[1::-1]
        label = self.readers.label(pair.label, size)
        if self.n_labels == 0:
            return {'label': label, 'image': image}
        check_labels(label, pair.label, self.n_labels)
        small = np.uint8 if self.n_labels <= 256 else np.int32
        arrays = {'label': label.astype(small), 'image': image}
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
            maps = ('inst', 'label') if self.n_labels else ()
            arrays = {role: resize(array, (w, h), nearest=role in maps)
                      for role, array in arrays.items()}
        x, y = 0, 0
        if self.crop or self.jitter > 1:
            x, y = rng.integers(w - cw + 1), rng.integers(h - ch + 1)
        mirror = -1 if self.flip and rng.random() < 0.5 else 1
        return {role: to_tensor(array[y:y + ch, x:x + cw][:, ::mirror])
                for role, array in arrays.items()}


def check_labels(label, path, n_labels):
    """UserError naming the first pixel of `label` (H, W) that is not in 0 ... n_labels - 1."""
    wrong = (label < 0) | (label >= n_labels)
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        raise UserError(f'{path}: label {label[y, x]} at x={x}, y={y}, but labels go from 0 to '
                        f'{n_labels - 1}; was this map made for another data set?')


def to_tensor(array):
    """(H, W) or (H, W, C) ndarray -> (C, H, W) tensor of the same type."""
    return torch.from_numpy(np.array(np.moveaxis(np.atleast_3d(array), -1, 0), order='C'))


class ResumableBatchSampler(torch.utils.data.Sampler):
    """Batches of (epoch, index) keys for the steps start ... stop - 1.

    The epochs' shuffled orders, each a pure function of (seed, epoch), follow one another without a
    gap and are cut into full batches: every step's keys are known without the steps before it.
    Where many processes share a batch (see ranks), each gets its part, unless the whole is for this
    one.
    """

    def __init__(self, n, batch, start, stop, seed, shared=True):
        self.n, self.batch, self.start, self.stop, self.seed = n, batch, start, stop, seed
        self.shared = shared

    def __len__(self):
        return self.stop - self.start

    def __iter__(self):
        shuffled = {}
        for step in range(self.start, self.stop):
            keys = []
            for position in range(step * self.batch, (step + 1) * self.batch):
                epoch, i = divmod(position, self.n)
                if epoch not in shuffled:
                    rng = np.random.default_rng((self.seed, epoch))
                    shuffled = {epoch: rng.permutation(self.n).tolist()}
                keys.append((epoch, shuffled[epoch][i]))
            yield distributed.shard(keys) if self.shared else keys


SIGNALS = [number for name in ('SIGINT', 'SIGTERM', 'SIGHUP')       # Windows has no SIGHUP
           if (number := getattr(signal, name, None))]


def ignore_signals(worker):
    """Ctrl-C, a SIGTERM of Slurm and a closed terminal reach loader processes too; it is the
    trainer who ends them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def collate(items, n_labels):
    """What a Pictures gives for the keys of a batch -> the batch, and with it the `labels` in it
    (see labels_in), so that the device need not be asked."""
    batch = torch.utils.data.default_collate(items)
    labels = find_present_labels(batch['label'], n_labels) if n_labels else None
    return batch if labels is None else {**batch, 'labels': labels}


def batches(dataset, device, **order):
    """The batches of a Pictures in the given sampler's order, loaded by `dataset.workers`
    processes, which end with this generator; by none where the pictures are decoded already."""
    # Forked, whatever Python's default: nothing has to be pickled, and children notice when the
    # trainer is killed. Windows cannot, and macOS should not: the trainer loads them itself.
    can_fork = 'fork' in multiprocessing.get_all_start_methods() and sys.platform != 'darwin'
    workers = 0 if dataset.decoded or not can_fork else min(dataset.workers, CORES)
    fork = 'fork' if workers else None
    iterator = iter(torch.utils.data.DataLoader(
        dataset, num_workers=workers, multiprocessing_context=fork,
        collate_fn=partial(collate, n_labels=dataset.n_labels), worker_init_fn=ignore_signals,
        pin_memory=device.type == 'cuda', **order))
    processes = getattr(iterator, '_workers', ())
    try:
        yield from iterator
    except (ConnectionError, EOFError) as error:    # amid a picture; else torch says the same
        raise RuntimeError('DataLoader worker is dead') from error
    except KeyboardInterrupt:                       # one of them may hang
        for process in processes:
            process.kill()
        raise
    finally:
        if processes:
            iterator._shutdown_workers()            # waits for a few seconds
        for process in processes:
            process.kill()


def find_present_labels(label, n_labels):
    """The labels whose one-hot channels a batch needs: those that occur in the map (integer, any
    shape, on the CPU), and others up to a multiple of 8, so that sizes recur -> (K,) int64, or None
    where that is all of them."""
    counts = label.flatten().bincount(minlength=n_labels)
    needed = -(-int((counts > 0).sum()) // 8) * 8
    if needed >= n_labels:
        return None
    return counts.argsort(descending=True, stable=True)[:needed].sort().values


# -------------------------------------------------------------------------------- on the device

def boundary_map(inst):
    """Instance boundary map, paper section 3.3: 1 where any of the 4 neighbours belongs to another
    instance.

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


def one_hot(label, n_labels, labels=None):
    """(N, 1, H, W) integer in 0 ... n_labels - 1 -> (N, n_labels, H, W) float32; or with labels
    (K,) integer their K channels alone."""
    if labels is None:
        labels = torch.arange(n_labels, device=label.device)
    # Channels last, as the networks like them.
    return (label.movedim(1, -1) == labels).float().movedim(-1, 1)


def condition(label, inst, n_labels, boundary=True, labels=None):
    """s, what generator and discriminators are told (paper sections 3.1 and 3.3): (N, n_labels
    [+ 1], H, W) float32.

    label: (N, 1, H, W) integer, made one-hot; or, where n_labels is 0, (N, C, H, W) uint8 or float,
    made [-1, 1]. inst: (N, 1, H, W) integer, whose boundary map is appended; or None. labels: (K,),
    see `labels_in`: K channels in place of n_labels.
    """
    channels = one_hot(label, n_labels, labels) if n_labels else to_float(label)
    if inst is None or not boundary:
        return channels
    return concat_channels(channels, boundary_map(inst))


def concat_channels(*maps):
    """(N, C, H, W) tensors -> one of all their channels, in the layout channels-last, as the
    networks take it."""
    return torch.cat([x.movedim(1, -1) for x in maps], -1).movedim(-1, 1)


def to_float(image):
    """uint8 picture -> float32 in [-1, 1], any shape; one that is float already stays as it is."""
    return image if image.is_floating_point() else image.float() / 127.5 - 1


def to_uint8(image):
    """Float picture in [-1, 1] -> uint8, any shape."""
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_device(batch, device):
    """A loader's batch -> the tensors that a training step takes: label, inst (or None), image as
    float in [-1, 1], and labels (or None), see `labels_in`."""
    batch = {role: tensor.to(device, non_blocking=True) for role, tensor in batch.items()}
    return batch['label'], batch.get('inst'), to_float(batch['image']), batch.get('labels')


def describe_instances(label, inst, n_labels):
    """label, inst: (N, 1, H, W) integer -> the ids (K,) of the instances, ascending; slot
    (N, 1, H, W) int64, the number 0 ... K - 1 of each pixel's; and per instance its label (K,), the
    most frequent one under it, and its pixels (K,), both int64. Ids are shared by the batch."""
    if inst.device.type == 'cpu' and 0 <= int(inst.min()) and int(inst.max()) < 1 << 16:
        inst = inst.long()                          # counting is several times as fast as sorting
        pixels = inst.flatten().bincount()
        ids = pixels.nonzero()[:, 0]
        slot, pixels = ((pixels > 0).cumsum(0) - 1)[inst], pixels[ids]
    else:
        ids, slot, pixels = inst.unique(return_inverse=True, return_counts=True)
    votes = (slot * n_labels + label).flatten().bincount(minlength=len(pixels) * n_labels)
    return ids, slot, votes.view(len(pixels), n_labels).argmax(1), pixels


def pad_to_multiple(x, multiple, smallest=1):
    """(N, C, H, W) of any type -> its right and lower edge repeated until both sides are multiples
    of `multiple` and at least `smallest`."""
    h, w = (max(-(-side // multiple) * multiple, smallest) for side in x.shape[-2:])
    rows = torch.arange(h, device=x.device).clamp(max=x.shape[-2] - 1)
    columns = torch.arange(w, device=x.device).clamp(max=x.shape[-1] - 1)
    return x[..., rows[:, None], columns]
