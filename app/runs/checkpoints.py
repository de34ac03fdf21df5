"""Checkpoints: the files that days of training are in, and that strangers send one another.

A run folder holds checkpoint-0001000.pt, checkpoint-0002000.pt ..., numbered by their steps. Each
is what torch.save writes, tensors and builtins only, and after it one line that seals it: the
format's version and the SHA-256 of all before. torch.load(path, weights_only=True) reads it as it
is.
"""
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
import hashlib
import os
from pathlib import Path
import re
import shutil
import time
import zipfile

import torch

from app.common.console import warn
from app.common.errors import UserError, warn_on_error, as_user_error, did_you_mean
from app.common.files import write_atomically

FORMAT = 5                                          # raised when what is in a checkpoint changes
SEAL = '\np2phd checkpoint, format {:4d}, sha256 '  # and 64 hexadecimal digits, and the line's end
SEAL_BYTES = len(SEAL.format(0)) + 64 + 1


class Damaged(Exception):
    """A file that is not what was written: cut short, or with other bits in it."""


def list_checkpoints(folder):
    """The checkpoints in a run's folder, oldest first."""
    steps = {path: re.fullmatch(r'checkpoint-(\d{7,18})', path.stem)
             for path in Path(folder).glob('checkpoint-*.pt')}
    return sorted((path for path, step in steps.items() if step),
                  key=lambda path: int(steps[path][1]))


# -------------------------------------------------------------------------------------- writing

def copy_tree(tree, device):
    """A nest of dicts, lists and tensors with every tensor copied to `device`."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().to(device, copy=True)
    if isinstance(tree, dict):
        return {key: copy_tree(value, device) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(copy_tree(value, device) for value in tree)
    return tree


def iterate_tensors(tree):
    """All tensors of a nest of dicts and lists; what is there twice, once."""
    seen, ahead = set(), [tree]
    while ahead:
        item = ahead.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, (dict, list, tuple)):
            ahead.extend(item.values() if isinstance(item, dict) else item)


class HashingFile:
    """A file to write to that keeps the SHA-256 of what it was given."""

    def __init__(self, file):
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, block):
        self.sha256.update(block)
        return self.file.write(block)

    def flush(self):
        self.file.flush()


def write_sealed(checkpoint, file):
    """Write a checkpoint and its seal to a file that is open for writing."""
    digesting = HashingFile(file)
    torch.save(checkpoint, digesting)
    digesting.write(SEAL.format(FORMAT).encode())
    file.write(f'{digesting.sha256.hexdigest()}\n'.encode())


def write_checkpoint(folder, checkpoint, keep):
    """Write folder/checkpoint-<checkpoint['step']>.pt, and when it is whole on the disk delete all
    but the newest `keep`. UserError, with what was there untouched, where it cannot be written."""
    path = folder / f'checkpoint-{checkpoint["step"]:07d}.pt'
    write_checkpoint_file(path, checkpoint)
    for old in list_checkpoints(folder)[:-keep]:
        if old != path:
            old.unlink(missing_ok=True)


def write_checkpoint_file(path, checkpoint):
    """Write one file, whole or not at all. UserError where there is no room."""
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)       # moved away, it is no reason to lose anything
    needed = sum(tensor.nbytes + 512 for tensor in iterate_tensors(checkpoint))     # 512: for its header
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f'{path}: not written, it needs {needed / 1e6:.1f} MB and {free / 1e6:.1f} '
                        'MB are free there; make room, or keep fewer with --keep')
    write_atomically(path, lambda file: write_sealed(checkpoint, file))


class BackgroundWriter:
    """Writes checkpoints in a thread of its own: training waits for their copy to host memory
    alone."""

    def __init__(self, folder, keep):
        self.folder, self.keep = folder, keep
        self.pool, self.pending, self.took, self.ended = ThreadPoolExecutor(1), None, 0, 0

    def save(self, checkpoint):
        """Begin to write a copy. Where that fails a warning says so."""
        self.pending = self.pool.submit(self.write, copy_tree(checkpoint, 'cpu'))

    def write(self, checkpoint):
        started = time.monotonic()
        warn_on_error(lambda: write_checkpoint(self.folder, checkpoint, self.keep), 'training goes on')
        self.ended = time.monotonic()
        self.took = self.ended - started

    def wait(self):
        """Wait for what has begun."""
        if self.pending:
            self.pending.result()

    @property
    def busy(self):
        return self.pending is not None and not self.pending.done()

    @property
    def rested(self):
        """Whether one more save would leave the disk alone for nineteen twentieths of the time."""
        return time.monotonic() - self.ended > 20 * self.took


# -------------------------------------------------------------------------------------- reading

def read_checkpoint(path):
    """The contents of a checkpoint, its tensors mapped from the file. Damaged where it cannot be
    read or the seal does not fit, UserError where it fits and the contents are not what `write`
    writes."""
    try:
        check_seal(path)
    except OSError as error:
        raise Damaged(error.strerror) from None
    with as_user_error(path, 'not a checkpoint of this program'):
        # torch.save does not compress; what expands may do so a lot.
        with zipfile.ZipFile(path) as archive:
            if any(item.compress_type for item in archive.infolist()):
                raise ValueError('compressed')
        checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        check_tensors(checkpoint, path)
    return checkpoint


def check_seal(path):
    """Damaged unless a checkpoint ends with a seal that fits; UserError if it is of another
    format."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise Damaged('not a regular file')         # a pipe would be waited for
    with open(path, 'rb') as file:
        length = os.fstat(file.fileno()).st_size - SEAL_BYTES
        if length < 0:
            raise Damaged('cut short')
        sha256, left = hashlib.sha256(), length + SEAL_BYTES - 65
        while left:
            block = file.read(min(left, 1 << 22))
            if not block:
                raise Damaged('cut short')
            sha256.update(block)
            left -= len(block)
        digest = file.read()
        if digest != f'{sha256.hexdigest()}\n'.encode():
            raise Damaged('damaged or cut short, for its checksum does not fit')
        file.seek(length)
        seal = re.match(SEAL.replace('{:4d}', r' *(\d+)').encode(), file.read())
    if not seal:
        raise Damaged('not sealed by this program')
    if int(seal[1]) != FORMAT:
        raise UserError(f'{path}: of format {int(seal[1])}, and this version of the program reads '
                        f'format {FORMAT}; use it with the version that wrote it')


def check_tensors(tree, path):
    """ValueError where tensors read from a file pretend to be larger than it is."""
    if not all(tensor.layout == torch.strided and tensor.device.type == 'cpu'
               for tensor in iterate_tensors(tree)):
        raise ValueError('a tensor that is not dense')
    if sum(tensor.nbytes for tensor in iterate_tensors(tree)) > os.path.getsize(path):
        raise ValueError('tensors larger than the file')


def best_checkpoint(folder):
    """The best checkpoint in a run's folder -> path, contents. UserError where there is none, or it
    is damaged."""
    path = folder / 'best.pt'
    if not path.exists():
        raise UserError(f'{path}: not there; train --evaluate-every N keeps the best checkpoint')
    try:
        return path, read_checkpoint(path)
    except Damaged as error:
        raise UserError(f'{path}: {error}; leave out --checkpoint best') from None


def newest_checkpoint(folder, set_aside=False):
    """The newest whole checkpoint in a run's folder -> path, contents. A damaged one is named, and
    the one before is read instead; with `set_aside`, it is renamed to .damaged. UserError where
    there is none."""
    damaged = {}
    for path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = read_checkpoint(path)
        except (Damaged, UserError) as error:
            if not os.path.lexists(path):           # a trainer has replaced it since it was listed
                return newest_checkpoint(folder, set_aside)
            if isinstance(error, UserError):
                raise
            damaged[path] = error
            continue
        for broken, error in damaged.items():
            warn(f'warning: {broken}: {error}; going back to {path.name}')
            if set_aside:
                with suppress(OSError):
                    broken.rename(broken.with_suffix('.damaged'))
        return path, checkpoint
    for path, error in damaged.items():
        raise UserError(f'{path}: {error}' + (', and so are those before it' if len(damaged) > 1
                                              else ', and there is none before it'))
    if folder.is_file():
        raise UserError(f'{folder}: is a file; expected the folder of a run'
                        + (f', as {folder.parent}' if list_checkpoints(folder.parent) else ''))
    runs = {path.name: path for parent in (folder.parent, Path('runs'))
            for path in parent.glob('*') if list_checkpoints(path)}
    raise UserError(f'{folder}: no checkpoint there; expected the folder of a run that train has '
                    f'made{did_you_mean(folder.name, runs)}')
