"""Checkpoints: files that hold all of a run, to use it and to resume it: checkpoint-0001000.pt ...,
numbered by steps. Each is what torch.save writes, tensors and builtins only, followed by a seal
(seals.py); torch.load(path, weights_only=True) reads it as it is."""
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
import os
from pathlib import Path
import shutil
import sys
import time
import zipfile

import torch

from app.common.console import warn, warn_on_error
from app.common.errors import UserError, as_user_error, did_you_mean
from app.common.files import write_atomically
from app.runs import seals
from app.runs.folders import list_checkpoints
from app.runs.seals import Damaged


def copy_tree(tree, device):
    """Return nested dicts with every tensor copied to `device`."""
    if isinstance(tree, dict):
        return {key: copy_tree(value, device) for key, value in tree.items()}
    return tree.detach().to(device, copy=True) if isinstance(tree, torch.Tensor) else tree


def iterate_tensors(tree):
    """Yield all tensors in nested dicts and lists, in the order in which torch.save meets them."""
    seen, stack = set(), [tree]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, (dict, list, tuple)):
            stack.extend(reversed(item.values() if isinstance(item, dict) else item))


def generator_part(checkpoint):
    """Return what generating needs of a checkpoint, in the same form: configuration, step, and as
    weights of G and E the moving averages, or the weights themselves where there are none."""
    weights = {**checkpoint['weights'], **checkpoint['average']}
    return {'config': checkpoint['config'], 'step': checkpoint['step'], 'average': {},
            'weights': {name: weights[name] for name in 'GE' if name in weights}}


# -------------------------------------------------------------------------------------- writing

def write_sealed(checkpoint, file):
    """Write a checkpoint and its seal to a file that is open for writing."""
    def storages(tree):
        return [tensor.untyped_storage()._cdata for tensor in iterate_tensors(tree)]

    hashing = seals.HashingFile(file)
    torch.save(checkpoint, hashing)
    n_storages = sys.maxsize                        # all, if it is not a whole checkpoint
    with suppress(AttributeError, KeyError, NotImplementedError, TypeError, ValueError):
        in_order = list(dict.fromkeys(storages(checkpoint)))
        n_storages = 1 + max(map(in_order.index, storages(generator_part(checkpoint))))
    seals.write_seal(hashing, n_storages)


def write_checkpoint(folder, checkpoint, keep):
    """Write folder/checkpoint-<step>.pt; once it is complete on the disk, delete all but the newest
    `keep`. UserError if it cannot be written; older ones are then untouched."""
    path = folder / f'checkpoint-{checkpoint["step"]:07d}.pt'
    write_checkpoint_file(path, checkpoint)
    for old in list_checkpoints(folder)[:-keep]:
        if old != path:
            old.unlink(missing_ok=True)


def write_checkpoint_file(path, checkpoint):
    """Write a checkpoint to `path`, whole or not at all. UserError if there is no room."""
    path.parent.mkdir(parents=True, exist_ok=True)  # the folder may have been moved away
    needed = sum(tensor.nbytes + 512 for tensor in iterate_tensors(checkpoint))     # 512: a header
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(f'{path}: not written, it needs {needed / 1e6:.1f} MB and {free / 1e6:.1f} '
                        'MB are free there; make room, or keep fewer with --keep')
    write_atomically(path, lambda file: write_sealed(checkpoint, file))


class BackgroundWriter:
    """Writes checkpoints in a thread. Training waits only until they are copied to host memory."""

    def __init__(self, folder, keep):
        self.folder, self.keep = folder, keep
        self.pool, self.pending, self.duration, self.ended = ThreadPoolExecutor(1), None, 0, 0

    def save(self, checkpoint):
        """Start to write a copy. If that fails, a warning says so."""
        def write(copy):
            started = time.monotonic()
            warn_on_error(lambda: write_checkpoint(self.folder, copy, self.keep),
                          'training goes on')
            self.ended = time.monotonic()
            self.duration = self.ended - started
        self.pending = self.pool.submit(write, copy_tree(checkpoint, 'cpu'))

    def wait(self):
        """Wait until the last checkpoint is written."""
        if self.pending:
            self.pending.result()

    @property
    def busy(self):
        return self.pending and not self.pending.done()

    @property
    def rested(self):
        """Whether another save now would still keep the disk idle 95 % of the time."""
        return time.monotonic() - self.ended > 20 * self.duration


# -------------------------------------------------------------------------------------- reading

def read_checkpoint(path, generator_only=False):
    """Return the contents of a checkpoint, its tensors mapped from the file.

    generator_only: check and return no more than generator_part.
    Raises Damaged if it cannot be read or its seal does not match, UserError if the seal matches
    and the contents are no checkpoint.
    """
    try:
        if not (generator_only and seals.generator_is_whole(path)):
            seals.check_seal(path)
        try:
            with as_user_error(path, 'not a checkpoint of this program'):
                # torch.save does not compress; a compressed file may expand beyond the memory.
                with zipfile.ZipFile(path) as archive:
                    if any(record.compress_type for record in archive.infolist()):
                        raise ValueError('compressed')
                checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
                check_tensors(checkpoint, path)
                return generator_part(checkpoint) if generator_only else checkpoint
        except UserError:
            seals.check_seal(path)                  # damage to other parts may be the reason
            raise
    except OSError as error:
        raise Damaged(f'{path}: {error.strerror}') from None


def check_tensors(tree, path):
    """Raise ValueError for tensors read from a file that claim to be larger than the file."""
    if not all(tensor.layout == torch.strided and tensor.device.type == 'cpu'
               for tensor in iterate_tensors(tree)):
        raise ValueError('a tensor that is not dense')
    if sum(tensor.nbytes for tensor in iterate_tensors(tree)) > os.path.getsize(path):
        raise ValueError('tensors larger than the file')


def best_checkpoint(folder, generator_only=False):
    """Return path and contents of the best checkpoint in a run's folder. Raises UserError."""
    path = folder / 'best.pt'
    if not path.exists():
        raise UserError(f'{path}: no such file; train --evaluate-every N keeps the best checkpoint')
    try:
        return path, read_checkpoint(path, generator_only)
    except Damaged as error:
        raise UserError(f'{error}; leave out --checkpoint best') from None


def newest_checkpoint(folder, set_aside=False, generator_only=False):
    """Return path and contents of the newest whole checkpoint in a run's folder. A warning names
    every newer one that is damaged. UserError if there is no whole checkpoint.

    set_aside: rename the damaged ones to .damaged.
    """
    damaged = {}
    for path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = read_checkpoint(path, generator_only)
        except UserError as error:
            if not os.path.lexists(path):           # a trainer has just replaced it
                return newest_checkpoint(folder, set_aside, generator_only)
            if not isinstance(error, Damaged):
                raise
            damaged[path] = error
            continue
        for broken, error in damaged.items():
            warn(f'warning: {error}; going back to {path.name}')
            if set_aside:
                with suppress(OSError):
                    broken.rename(broken.with_suffix('.damaged'))
        return path, checkpoint
    for error in damaged.values():
        raise UserError(f'{error}, and there is no whole checkpoint before it')
    if folder.is_file():
        raise UserError(f'{folder}: is a file; expected the folder of a run'
                        + (f', as {folder.parent}' if list_checkpoints(folder.parent) else ''))
    log = folder / 'log.csv'
    if log.is_file() and not log.stat().st_size:    # as prepare_run_folder leaves it
        raise UserError(f'{folder}: no checkpoint there, because training stopped before its first '
                        'one; start it again as before')
    runs = {path.name: path for parent in (folder.parent, Path('runs'))
            for path in parent.glob('*') if list_checkpoints(path)}
    raise UserError(f'{folder}: no checkpoint there; expected the folder of a run that train has '
                    f'made{did_you_mean(folder.name, runs)}')
