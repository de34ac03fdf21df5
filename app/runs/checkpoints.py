"""Checkpoints: files that hold all of a run, to use it and to resume it: checkpoint-0001000.pt ...,
numbered by steps. Each is what torch.save writes, tensors and builtins only, followed by a seal of
two lines, which reveals damage. torch.load(path, weights_only=True) reads it as it is."""
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

from app.common.console import warn, warn_on_error
from app.common.errors import UserError, as_user_error, did_you_mean
from app.common.files import write_atomically
from app.runs.folders import list_checkpoints

FORMAT = 6                                          # raised when what is in a checkpoint changes
READABLE = (5, 6)                                   # the formats that this version reads

# The lines of a seal, without the 64 digits of their hashes. SEAL hashes all bytes before its
# digits; GENERATOR the SEAL and all that generating uses, without a range of bytes: the optimizers,
# the discriminators, and weights that have a moving average. Files of format 5 lack GENERATOR.
GENERATOR = '\ngenerator: all bytes but {} to {}, sha256 of 4 MiB blocks '
SEAL = '\np2phd checkpoint, format {:4d}, sha256 '
SEAL_BYTES = len(SEAL.format(0)) + 64 + 1
BLOCK = 1 << 22


class Damaged(UserError):
    """A file is not what was written: it is cut short, or some of its bits have changed."""


def copy_tree(tree, device):
    """Return nested dicts with every tensor copied to `device`."""
    if isinstance(tree, dict):
        return {key: copy_tree(value, device) for key, value in tree.items()}
    if not isinstance(tree, torch.Tensor):
        return tree
    if tree.is_cuda and device == 'cpu':            # into pinned memory, which is faster
        return torch.empty_like(tree, device='cpu', pin_memory=True).copy_(tree.detach())
    return tree.detach().to(device, copy=True)


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


def check_tensors(tree, path):
    """Raise ValueError for tensors read from a file that claim to be larger than the file."""
    tensors = list(iterate_tensors(tree))
    if any(tensor.layout != torch.strided or tensor.device.type != 'cpu' for tensor in tensors) or (
            sum(tensor.nbytes for tensor in tensors) > os.path.getsize(path)):
        raise ValueError('tensors that are not dense, or larger than the file')


def generator_part(checkpoint):
    """Return what generating needs of a checkpoint, in the same form: configuration, step, and as
    weights of G and E the moving averages, or the weights themselves where there are none."""
    weights = {**checkpoint['weights'], **checkpoint['average']}
    return {'config': checkpoint['config'], 'step': checkpoint['step'], 'average': {},
            'weights': {name: weights[name] for name in 'GE' if name in weights}}


def write_sealed(checkpoint, file):
    """Write a checkpoint and its seal to a file that is open for writing."""
    def storages(tree):
        return [tensor.untyped_storage()._cdata for tensor in iterate_tensors(tree)]

    torch.save(checkpoint, file)
    n_used = float('inf')                           # all storages, if it is not a whole checkpoint
    with suppress(AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
        in_order = list(dict.fromkeys(storages(checkpoint)))
        n_used = 1 + max(map(in_order.index, storages(generator_part(checkpoint))))
    with zipfile.ZipFile(file.name) as archive:         # torch.save has flushed the file
        records = sorted(archive.infolist(), key=lambda record: record.header_offset)
    numbers = [re.fullmatch(r'.*/data/(\d+)', record.filename) for record in records]
    unused = [i for i, number in enumerate(numbers) if number and int(number[1]) >= n_used]
    start = stop = 0
    if unused and unused == list(range(unused[0], unused[-1] + 1)):     # nothing lies between them
        start, stop = (records[i].header_offset for i in (unused[0], unused[-1] + 1))
    line, seal = GENERATOR.format(start, stop).encode(), SEAL.format(FORMAT).encode()
    digest = hash_generator(file.name, start, stop, os.path.getsize(file.name), line + seal)
    file.write(line + digest + seal)
    file.flush()
    with open(file.name, 'rb') as written:
        file.write(f'{hashlib.file_digest(written, "sha256").hexdigest()}\n'.encode())


def hash_generator(path, start, stop, end, seal):
    """Return the hash, as 64 digits, of a file's bytes up to `end`, without those from `start` to
    `stop`, and of the text of the seal. Blocks are hashed in several threads."""
    def hash_block(at, end):
        with open(path, 'rb') as file:
            file.seek(at)
            return hashlib.sha256(file.read(end - at)).digest()

    blocks = [(at, min(at + BLOCK, last)) for first, last in ((0, start), (stop, end))
              for at in range(first, last, BLOCK)]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(hash_block, *zip(*blocks))
        return hashlib.sha256(b''.join([*digests, seal])).hexdigest().encode()


def write_checkpoint(folder, checkpoint, keep=0, name='checkpoint-{:07d}.pt'):
    """Write folder/checkpoint-<step>.pt, or `name`. Once it is complete on the disk, delete all but
    the newest `keep`, or none if that is 0; if there is no room, do so before. UserError if that
    does not make enough room."""
    path = folder / name.format(checkpoint['step'])
    if any(tensor.is_cuda for tensor in iterate_tensors(checkpoint)):   # load without CUDA, too
        checkpoint = copy_tree(checkpoint, 'cpu')
    folder.mkdir(parents=True, exist_ok=True)       # it may have been moved away

    def delete_old():
        for old in {*list_checkpoints(folder)[:-keep]} - {path} if keep else ():
            old.unlink(missing_ok=True)

    needed = sum(tensor.nbytes + 512 for tensor in iterate_tensors(checkpoint))     # 512: a header
    if needed > shutil.disk_usage(folder).free:
        delete_old()
    if needed > (free := shutil.disk_usage(folder).free):
        fewer = ', or keep fewer with --keep' * (len(list_checkpoints(folder)) > 1)
        raise UserError(f'{path}: not written, it needs {needed / 1e6:.1f} MB and {free / 1e6:.1f} '
                        f'MB are free there; make room{fewer}')
    write_atomically(path, lambda file: write_sealed(checkpoint, file))
    delete_old()


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
        if self.pending:
            self.pending.result()

    @property
    def busy(self):
        return self.pending and not self.pending.done()

    @property
    def may_write(self):
        """Whether another save now would still keep the disk idle 95 % of the time."""
        return time.monotonic() - self.ended > 20 * self.duration


def check_seal(path, generator_only=False):
    """Raise Damaged if a checkpoint is not as it was written, UserError for another format. With
    generator_only, it is enough that the part which generating uses is as it was written."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise Damaged(f'{path}: not a regular file')        # a pipe, which a reader would wait for
    with open(path, 'rb') as file:
        size, sha256 = os.fstat(file.fileno()).st_size, hashlib.sha256()
        tail_start = file.seek(max(0, size - 400))
        match = re.search(f'({GENERATOR.format("([0-9]+)", "([0-9]+)")})([0-9a-f]{{64}})'
                          f'({SEAL.format(FORMAT)})[0-9a-f]{{64}}\n$'.encode(), file.read())
        if generator_only and match:
            line, start, stop, digest, seal = match.groups()
            start, stop, end = int(start), int(stop), tail_start + match.start()
            if start <= stop <= end and digest == hash_generator(path, start, stop, end,
                                                                 line + seal):
                return
        file.seek(0)
        sealed = size - 65                          # all but the digits and the line's end
        for at in range(0, sealed, BLOCK):
            sha256.update(file.read(min(BLOCK, sealed - at)))
        if size < SEAL_BYTES or file.read() != f'{sha256.hexdigest()}\n'.encode():
            raise Damaged(f'{path}: damaged or cut short, or not a checkpoint; the checksum at its '
                          'end is wrong')
        file.seek(size - SEAL_BYTES)
        seal = re.match(SEAL.replace('{:4d}', r' *(\d+)').encode(), file.read())
    if not seal:
        raise Damaged(f'{path}: not sealed by this program')
    if int(seal[1]) not in READABLE:
        raise UserError(f'{path}: is of format {int(seal[1])}; this version reads formats '
                        f'{READABLE[0]} to {FORMAT}. Use the version that wrote it')


def read_checkpoint(path, generator_only=False):
    """Return the contents of a checkpoint, its tensors mapped from the file. Raises Damaged if it
    is no file or its seal does not match, UserError if it cannot be opened or is no checkpoint.
    generator_only: check and return no more than generator_part."""
    try:
        check_seal(path, generator_only)
        try:
            with as_user_error(path, 'not a checkpoint of this program'):
                # torch.save does not compress; a compressed file may expand beyond the memory.
                with zipfile.ZipFile(path) as archive:
                    if any(record.compress_type for record in archive.infolist()):
                        raise ValueError('compressed')
                checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
                if not isinstance(checkpoint, dict):
                    raise ValueError(type(checkpoint).__name__)
                check_tensors(checkpoint, path)
                return generator_part(checkpoint) if generator_only else checkpoint
        except UserError:
            check_seal(path)                        # damage to other parts may be the reason
            raise
    except OSError as error:
        if os.path.isfile(path):                    # it may be whole
            raise UserError(f'{path}: cannot be read ({error.strerror})') from None
        raise Damaged(f'{path}: {error.strerror}') from None


def newest_checkpoint(folder, set_aside=False, generator_only=False):
    """Return path and contents of the newest whole checkpoint in a folder, or raise UserError.
    A warning names every newer one that is damaged; set_aside: rename it to .damaged, too."""
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
        raise UserError(f'{folder}: is a file; expected the folder of a run')
    log = folder / 'log.csv'
    if log.is_file() and not log.stat().st_size:    # as prepare_run_folder leaves it
        raise UserError(f'{folder}: no checkpoint there, because training stopped before its first '
                        'one; start it again as before')
    runs = {path.name: path for parent in (folder.parent, Path('runs'))
            for path in parent.glob('*') if list_checkpoints(path)}
    raise UserError(f'{folder}: no checkpoint there; expected the folder of a run'
                    + did_you_mean(folder.name, runs))
