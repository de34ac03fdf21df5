"""From label maps and photographs to batches on the device: augmentation, one-hot labels, instance
boundary maps.

Maps and photographs of 8 bits are loaded and transferred as integers. On the device they become
one-hot channels and pictures in [-1, 1]. Sizes are (width, height) as in Pillow; tensors are
(N, C, H, W).
"""
import atexit
from collections import namedtuple
import copy
from functools import partial
import multiprocessing
import os
import signal
import sys

import numpy as np
import torch
import torch.nn.functional as F

# What stops a run: Ctrl-C, and what a terminal or a cluster sends. Windows has only two of them.
SIGNALS = [number for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2')
           if (number := getattr(signal, name, None))]


class InputError(ValueError):
    """An input that cannot be used. The message is one line that says why."""

    def __init__(self, message):
        # A loader process raises with the text of a traceback, whose last line is the message.
        if message.startswith('Caught InputError in '):
            message = message.strip().splitlines()[-1].partition(': ')[2]
        super().__init__(message)


def derive_seed(*numbers):
    """Derive one seed from whole numbers >= 0, for example from (seed, step). All random draws
    depend on such numbers alone, so a resumed run repeats them."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


# ------------------------------------------------------------------------------------- the maps

def connected_components(label):
    """Number the 4-connected regions of equal label, in the order of their first pixels: (H, W)
    integer ndarray to (H, W) int32.

    Horizontal runs of equal labels are the nodes of a graph, vertical contacts its edges. Link each
    root to the smallest root that it touches, compress the paths, and repeat until nothing changes
    (Shiloach and Vishkin, 1982)."""
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


def resize(array, size, nearest=False):
    """Resize an (H, W) or (H, W, C) ndarray to `size` (width, height). An array of this size is
    returned as it is, and so is any if `size` is None.

    nearest: take nearest neighbours; any dtype. Otherwise the resize is bicubic with antialiasing,
        of uint8 or of floats in [-1, 1], and returns (H, W, C)."""
    if size is None or tuple(size) == array.shape[1::-1]:
        return array
    if nearest:
        rows, columns = ((np.arange(n) + 0.5) * old / n for n, old in zip(size[::-1], array.shape))
        return array[rows.astype(int)[:, None], columns.astype(int)]
    pixels = torch.from_numpy(np.moveaxis(np.atleast_3d(array), -1, 0).copy())[None]
    pixels = F.interpolate(pixels, size[::-1], mode='bicubic', antialias=True)
    pixels = pixels.clamp(-1, 1) if pixels.is_floating_point() else pixels
    return np.moveaxis(pixels[0].numpy(), 0, -1)


def to_tensor(array):
    """Convert (H, W) or (H, W, C) ndarray to (C, H, W) tensor of the same type."""
    return torch.from_numpy(np.array(np.moveaxis(np.atleast_3d(array), -1, 0), order='C'))


# ids: (I,) integer, ascending. region_index: (1, 1, H, W) int64, the position of each pixel's id in
# ids.
# labels: (I,) int64, the most frequent label of each instance. areas: (I,) int64, in pixels.
Instances = namedtuple('Instances', 'ids region_index labels areas')


def describe_instances(label, inst, n_labels):
    """List the instances of a label map and an instance map, (1, 1, H, W) integer. Labels are below
    n_labels. Returns Instances."""
    if inst.device.type == 'cpu' and 0 <= int(inst.min()) and int(inst.max()) < 1 << 16:
        inst = inst.long()                          # counting is faster than sorting
        areas = inst.flatten().bincount()
        ids = areas.nonzero()[:, 0]
        region_index, areas = ((areas > 0).cumsum(0) - 1)[inst], areas[ids]
    else:
        ids, region_index, areas = inst.unique(return_inverse=True, return_counts=True)
    votes = (region_index * n_labels + label).flatten().bincount(minlength=len(areas) * n_labels)
    return Instances(ids, region_index, votes.view(len(areas), n_labels).argmax(1), areas)


# -------------------------------------------------------------------------------------- batches

class PairedDataset(torch.utils.data.Dataset):
    """Label maps, instance maps and photographs as augmented tensors.

    A key is (epoch, index). Its item is a pure function of (seed, epoch, index): `label`
    (1, H, W) uint8 or int32 ((C, H, W) where n_labels is 0), `image` (C, H, W) uint8 or float32 in
    [-1, 1], and `inst` (1, H, W) int32 where there are instances.
    Raises InputError where a picture is too small, and whatever `read` raises."""

    def __init__(self,
                 items,                     # what `read` takes, one for each picture
                 read,                      # item -> {'label', 'image', 'inst': (H, W[, C]) array}
                 n_labels,                  # 0: the label maps are pictures
                 crop=None,                 # random crop of (width, height)
                 flip=False,                # mirror half of the pictures
                 jitter=1,                  # enlarge by this factor, then crop to the old size
                 multiple=1,                # without a crop, trim to multiples of this
                 seed=0,
                 decoded=None,              # what `read` returns, by index; None: read each time
                 workers=None):             # loader processes; None: 4, for a GPU 16
        self.items, self.read, self.n_labels, self.decoded = items, read, n_labels, decoded
        self.crop, self.flip, self.jitter, self.multiple = crop, flip, jitter, multiple
        self.seed, self.workers = seed, workers

    def __len__(self):
        return len(self.items)

    def without_augmentation(self):
        """The same data set without crop, mirroring and jitter."""
        plain = copy.copy(self)
        plain.crop, plain.flip, plain.jitter = None, False, 1
        return plain

    def __getitem__(self, key):
        epoch, index = key
        item = self.items[index]
        arrays = self.decoded[index] if self.decoded else self.read(item)
        rng = np.random.default_rng((self.seed, epoch, index))

        h, w = arrays['label'].shape[:2]
        ch, cw = self.crop[::-1] if self.crop else (h - h % self.multiple, w - w % self.multiple)
        if cw > w or ch > h or not (cw and ch):
            raise InputError(f'{getattr(item, "image", item)}: {w}x{h} is too small to train on, '
                             f'which needs {cw or self.multiple}x{ch or self.multiple}')
        if self.jitter > 1:
            h, w = round(h * self.jitter), round(w * self.jitter)
            maps = ('inst', 'label') if self.n_labels else ('inst',)
            arrays = {role: resize(array, (w, h), nearest=role in maps)
                      for role, array in arrays.items()}
        x, y = 0, 0
        if self.crop or self.jitter > 1:
            x, y = rng.integers(w - cw + 1), rng.integers(h - ch + 1)
        mirror = -1 if self.flip and rng.random() < 0.5 else 1
        return {role: to_tensor(array[y:y + ch, x:x + cw][:, ::mirror])
                for role, array in arrays.items()}


class ResumableBatchSampler(torch.utils.data.Sampler):
    """The (epoch, index) keys of the batches of the steps start ... stop - 1.

    Each epoch is shuffled by (seed, epoch). Epochs are concatenated, then split into full batches,
    so the keys of a step do not depend on where a run was resumed. `shard` picks this process's
    part of a batch where several processes share it."""

    def __init__(self, n, batch, start, stop, seed, shard=lambda keys: keys):
        self.n, self.batch, self.start, self.stop, self.seed = n, batch, start, stop, seed
        self.shard = shard

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
            yield self.shard(keys)


def find_present_labels(label, n_labels):
    """Choose the labels whose one-hot channels a batch gets: all that occur, filled up with absent
    ones to 4, 12, 20 ... labels. Then few different tensor shapes occur. With a boundary map and
    3 features or colours these are 8, 16, 24 ... channels, as GPUs prefer them.

    label: integer tensor of any shape on the CPU. Returns (L,) int64, or None for all labels."""
    counts = label.flatten().bincount(minlength=n_labels)
    needed = -(-(int((counts > 0).sum()) + 4) // 8) * 8 - 4
    if needed >= n_labels:
        return None
    return counts.argsort(descending=True, stable=True)[:needed].sort().values


def collate(items, n_labels):
    """Stack items of a PairedDataset, and find the batch's present labels here, on the CPU, which
    avoids a GPU synchronisation."""
    batch = torch.utils.data.default_collate(items)
    present = find_present_labels(batch['label'], n_labels) if n_labels else None
    return batch if present is None else {**batch, 'present_labels': present}


def count_cores():
    """The number of cores that this process may use now. taskset may change it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def prepare_loader(worker, parent):
    """Ignore Ctrl-C and the like in a loader process: only the main process, `parent`, stops it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() != parent:      # it was killed before PyTorch began to watch it
        os._exit(1)


def batches(dataset, device, **order):
    """Yield the batches of a PairedDataset, loaded by `dataset.workers` processes. If the pictures
    are already decoded and the device is the CPU, this process loads them. The processes stop when
    this generator is closed.

    order: `sampler` or `batch_sampler` of torch.utils.data.DataLoader.
    Raises what the dataset raises, and RuntimeError where a loader process dies."""
    # Forked, whatever Python's default is: nothing has to be pickled, and children notice when this
    # process is killed. Windows cannot fork, and macOS should not: there this process loads.
    can_fork = 'fork' in multiprocessing.get_all_start_methods() and sys.platform != 'darwin'
    prepared = dataset.decoded and device.type == 'cpu'     # a GPU should not wait for augmentation
    workers = (16 if device.type == 'cuda' else 4) if dataset.workers is None else dataset.workers
    workers = 0 if prepared or not can_fork else min(workers, count_cores())
    iterator = iter(torch.utils.data.DataLoader(
        dataset, num_workers=workers, multiprocessing_context='fork' if workers else None,
        collate_fn=partial(collate, n_labels=dataset.n_labels),
        worker_init_fn=partial(prepare_loader, parent=os.getpid()),
        pin_memory=device.type == 'cuda', **order))
    processes = getattr(iterator, '_workers', ())

    def kill():
        for process in processes:
            process.kill()

    atexit.register(kill)       # or Python would wait for them at its end: they ignore signals
    try:
        yield from iterator
    except (ConnectionError, EOFError) as error:    # a worker was killed during a transfer
        raise RuntimeError('DataLoader worker is dead') from error
    except KeyboardInterrupt:                       # do not wait for a worker that may hang
        kill()
        raise
    finally:
        if processes:
            iterator._shutdown_workers()            # waits for a few seconds
        kill()
        atexit.unregister(kill)


# -------------------------------------------------------------------------------- on the device

def to_device(batch, device):
    """Move a batch to the device.

    Returns what train.train_step takes: label; inst or None; image as float in [-1, 1];
    present_labels or None."""
    batch = {role: tensor.to(device, non_blocking=True) for role, tensor in batch.items()}
    return batch['label'], batch.get('inst'), to_float(batch['image']), batch.get('present_labels')


def upload(tensor, device):
    """Copy a tensor to the device. On CUDA it passes through pinned memory, so the host does not
    wait."""
    if device.type == 'cuda' and tensor.device.type == 'cpu':
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def boundary_map(inst):
    """The instance boundary map, paper section 3.3: 1 where any of the 4 neighbours belongs to
    another instance.

    inst: (..., H, W) integer. Returns the same shape, uint8."""
    boundary = torch.zeros(inst.shape, dtype=torch.bool, device=inst.device)
    across = inst[..., :, 1:] != inst[..., :, :-1]
    down = inst[..., 1:, :] != inst[..., :-1, :]
    boundary[..., :, 1:] |= across
    boundary[..., :, :-1] |= across
    boundary[..., 1:, :] |= down
    boundary[..., :-1, :] |= down
    return boundary.to(torch.uint8)


def one_hot(label, n_labels, present_labels=None):
    """One-hot channels of a label map (N, 1, H, W) integer: (N, n_labels, H, W) float32, or only
    those of present_labels (L,). The memory layout is channels-last."""
    if present_labels is None:
        present_labels = torch.arange(n_labels, device=label.device)
    return (label.movedim(1, -1) == present_labels).float().movedim(-1, 1)


def condition(label, inst, n_labels, boundary=True, present_labels=None):
    """Build s, the condition that G and D see (paper sections 3.1 and 3.3): one-hot label map and
    instance boundary map.

    label: (N, 1, H, W) integer; where n_labels is 0, a picture (N, C, H, W) uint8 or float.
    inst: (N, 1, H, W) integer, or None for no boundary map.
    present_labels: (L,), see find_present_labels, or None for all labels.
    Returns (N, K, H, W) float32. K is n_labels, L or C; one more with a boundary map."""
    channels = one_hot(label, n_labels, present_labels) if n_labels else to_float(label)
    if inst is None or not boundary:
        return channels
    return concat_channels(channels, boundary_map(inst))


def concat_channels(*maps):
    """Concatenate (N, C, H, W) tensors along C, in the channels-last layout."""
    return torch.cat([x.movedim(1, -1) for x in maps], -1).movedim(-1, 1)


def to_float(image):
    """Convert a uint8 picture of any shape to float32 in [-1, 1]. Floats stay as they are."""
    return image if image.is_floating_point() else image.float() / 127.5 - 1


def to_uint8(image):
    """Convert a float picture in [-1, 1], of any shape, to uint8."""
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pad_to_multiple(x, multiple, smallest=1):
    """Pad (N, C, H, W) of any type at the right and bottom with its edge values, until both sides
    are multiples of `multiple` and at least `smallest`, which is such a multiple, too."""
    h, w = (max(-(-side // multiple) * multiple, smallest) for side in x.shape[-2:])
    rows = torch.arange(h, device=x.device).clamp(max=x.shape[-2] - 1)
    columns = torch.arange(w, device=x.device).clamp(max=x.shape[-1] - 1)
    return x[..., rows[:, None], columns]
