"""Checkpoints: the files that days of training are in, and that strangers send one another.

A run folder holds checkpoint-0001000.pt, checkpoint-0002000.pt ..., numbered by their steps. Each is what torch.save
writes, tensors and builtins only, and after it one line that seals it: the format's version and the SHA-256 of all
before. torch.load(path, weights_only=True) reads it as it is.
"""
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import errno
import hashlib
import os
from pathlib import Path
import re
import shutil
import socket
import sys
import time

import torch

import data
from data import UserError

try:
    import fcntl
except ImportError:                                         # Windows has no such locks
    fcntl = None

FORMAT = 2                                                  # raised when the contents of a checkpoint change
SEAL = '\np2phd checkpoint, format {:4d}, sha256 '          # and 64 hexadecimal digits, and the end of the line
SEAL_BYTES = len(SEAL.format(0)) + 64 + 1


class Damaged(Exception):
    """A file that is not what was written: cut short, or with other bits in it."""


def numbered(run):
    """The checkpoints in folder `run`, oldest first."""
    return sorted(path for path in Path(run).glob('checkpoint-*.pt') if re.fullmatch(r'checkpoint-\d{7,}', path.stem))


# --------------------------------------------------------------------------------------------------------- writing

def copied(tree, device):
    """A nest of dicts, lists and tensors with every tensor copied to `device`."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().to(device, copy=True)
    if isinstance(tree, dict):
        return {key: copied(value, device) for key, value in tree.items()}
    return type(tree)(copied(value, device) for value in tree) if isinstance(tree, (list, tuple)) else tree


def tensors(tree):
    """All tensors of a nest of dicts and lists."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (dict, list, tuple)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors(value)


class Digesting:
    """A file to write to that keeps the SHA-256 of what it was given."""

    def __init__(self, file):
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, block):
        self.sha256.update(block)
        return self.file.write(block)

    def flush(self):
        self.file.flush()


def dump(checkpoint, file):
    """Write a checkpoint and its seal to a file that is open for writing."""
    digesting = Digesting(file)
    torch.save(checkpoint, digesting)
    digesting.write(SEAL.format(FORMAT).encode())
    file.write(f'{digesting.sha256.hexdigest()}\n'.encode())


def write(run, checkpoint, keep):
    """Write run/checkpoint-<checkpoint['step']>.pt, and when it is whole on the disk delete all but the newest `keep`.
    UserError, with what was there untouched, where it cannot be written."""
    path = run / f'checkpoint-{checkpoint["step"]:07d}.pt'
    needed = sum(tensor.nbytes + 512 for tensor in tensors(checkpoint))     # a tensor's headers are some 300 bytes
    free = shutil.disk_usage(run).free
    if needed > free:
        raise UserError(f'{path}: not written, it needs {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free there')
    data.write_whole(path, lambda file: dump(checkpoint, file))
    for old in numbered(run)[:-keep]:
        old.unlink(missing_ok=True)


class Writer:
    """Writes checkpoints in a thread of its own: training waits for their copy to host memory alone."""

    def __init__(self, run, keep):
        self.run, self.keep = run, keep
        self.pool, self.pending, self.took, self.ended = ThreadPoolExecutor(1), None, 0, 0

    def save(self, checkpoint):
        """Begin to write a copy. Where that fails a warning says so."""
        self.wait()
        self.pending = self.pool.submit(self.attempt, copied(checkpoint, 'cpu'))

    def attempt(self, checkpoint):
        started = time.monotonic()
        try:
            write(self.run, checkpoint, self.keep)
        except (UserError, OSError) as error:
            data.say(f'warning: {error}; training goes on', sys.stderr)
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


# --------------------------------------------------------------------------------------------------------- reading

def read(path):
    """The contents of a checkpoint, its tensors mapped from the file. Damaged where the seal does not fit, UserError
    where it fits and the contents are not what `write` writes."""
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
    with data.blame(path, 'not a checkpoint of this program'):
        if int(seal[1]) != FORMAT:
            raise UserError(f'{path}: of format {int(seal[1])}, and this version of the program reads format {FORMAT}')
        checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        check_tensors(checkpoint, path)
    return checkpoint


def check_tensors(tree, path):
    """ValueError where tensors read from a file pretend to be larger than it is."""
    if not all(tensor.layout == torch.strided and tensor.device.type == 'cpu' for tensor in tensors(tree)):
        raise ValueError('a tensor that is not dense')
    if sum(tensor.nbytes for tensor in tensors(tree)) > os.path.getsize(path):
        raise ValueError('tensors larger than the file')


def newest(run, set_aside=False):
    """The newest whole checkpoint in folder `run` -> path, contents. A damaged one is named, and the one before is read
    instead; with `set_aside`, it is renamed to .damaged. UserError where there is none."""
    damaged = {}
    for path in reversed(numbered(run)):
        try:
            checkpoint = read(path)
        except Damaged as error:
            damaged[path] = error
            continue
        for broken, error in damaged.items():
            data.say(f'warning: {broken}: {error}; going back to {path.name}', sys.stderr)
            if set_aside:
                broken.rename(broken.with_suffix('.damaged'))
        return path, checkpoint
    for path, error in damaged.items():
        raise UserError(f'{path}: {error}' + (', and so are those before it' if len(damaged) > 1 else
                                              ', and there is none before it'))
    raise UserError(f'{run}: no checkpoint there; expected the folder of a run that train has made')


# --------------------------------------------------------------------------------------------------------- the lock

@contextmanager
def lock(run):
    """Hold folder `run` against other trainers: UserError naming the process and the host of one that is at work. The
    system drops the lock of a process that dies, and a loader process does not inherit it."""
    with open(run / 'lock', 'a+b', buffering=0) as file:
        try:
            if fcntl:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read(300).decode(errors='replace').strip() or 'another process'
                raise UserError(f'{run}: {holder} trains into it; wait for it or stop it, or choose another folder '
                                'with --run') from None
            data.say(f'warning: {run}: cannot be locked against a second trainer ({error})', sys.stderr)
        file.truncate(0)
        try:
            file.write(f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
        except OSError:                                     # a full disk; the lock holds without the name
            pass
        yield
