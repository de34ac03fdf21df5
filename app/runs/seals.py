"""The seal at the end of a checkpoint: hashes that reveal damage.

A checkpoint is what torch.save writes, followed by two lines:

    generator: all bytes but 12345 to 67890, sha256 of 4 MiB blocks <64 digits>
    p2phd checkpoint, format    6, sha256 <64 digits>

The last hash covers all bytes before it. The first one covers the seal and everything that
generating uses; the bytes that it leaves out are optimizer states, the discriminators, and weights
that have a moving average. Files of format 5 lack the first line.

This module does not import torch, so that a file can be checked while torch is imported.
"""
from concurrent.futures import ThreadPoolExecutor
import hashlib
import os
import re
from threading import Lock
import zipfile

from app.common.errors import UserError

FORMAT = 6                                          # raised when what is in a checkpoint changes
READABLE = (5, 6)                                   # the formats that this version reads
SEAL = '\np2phd checkpoint, format {:4d}, sha256 '  # and 64 hexadecimal digits, and the line's end
SEAL_BYTES = len(SEAL.format(0)) + 64 + 1
GENERATOR = '\ngenerator: all bytes but {} to {}, sha256 of 4 MiB blocks '
BLOCK = 1 << 22


class Damaged(Exception):
    """A file is not what was written: it is cut short, or some of its bits have changed."""


class HashingFile:
    """A file that computes the SHA-256 of all that is written to it."""

    def __init__(self, file):
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, block):
        self.sha256.update(block)
        return self.file.write(block)

    def flush(self):
        self.file.flush()


def write_seal(hashing, n_storages):
    """Seal a file that torch.save has written.

    hashing: the HashingFile. n_storages: how many storages generating uses, from the first one on.
    """
    hashing.flush()
    path = hashing.file.name
    unused = unused_bytes(path, n_storages)
    line, seal = GENERATOR.format(*unused).encode(), SEAL.format(FORMAT).encode()
    digest = hash_generator(path, unused, os.path.getsize(path), line + seal)
    hashing.write(line + digest + seal)
    hashing.file.write(f'{hashing.sha256.hexdigest()}\n'.encode())


def unused_bytes(path, n_storages):
    """Return (start, stop): the bytes of a torch.save file that hold the storages from number
    `n_storages` on; (0, 0) if other records lie between them."""
    with zipfile.ZipFile(path) as archive:
        records = sorted(archive.infolist(), key=lambda record: record.header_offset)
    numbers = [re.fullmatch(r'.*/data/(\d+)', record.filename) for record in records]
    unused = [i for i, number in enumerate(numbers) if number and int(number[1]) >= n_storages]
    if not unused or unused != list(range(unused[0], unused[-1] + 1)):
        return 0, 0
    return records[unused[0]].header_offset, records[unused[-1] + 1].header_offset


def hash_generator(path, unused, stop, seal):
    """Return the hash of what generating uses, as 64 digits: the bytes up to `stop` without the
    range `unused`, and the text of the seal. Blocks are hashed in several threads."""
    blocks = [(at, min(at + BLOCK, end)) for start, end in ((0, unused[0]), (unused[1], stop))
              for at in range(start, end, BLOCK)]
    lock = Lock()

    def hash_block(at, end):
        with lock:
            file.seek(at)
            block = file.read(end - at)
        return hashlib.sha256(block).digest()

    with open(path, 'rb') as file, ThreadPoolExecutor() as pool:
        digests = pool.map(hash_block, *zip(*blocks))
        return hashlib.sha256(b''.join([*digests, seal])).hexdigest().encode()


# ------------------------------------------------------------------------------------- checking

def check_seal(path):
    """Check all of a checkpoint.

    Raises: Damaged if a hash does not match, UserError for an unknown format.
    """
    check_regular(path)
    with open(path, 'rb') as file:
        length = os.fstat(file.fileno()).st_size - SEAL_BYTES
        if length < 0:
            raise Damaged('cut short')
        sha256, left = hashlib.sha256(), length + SEAL_BYTES - 65
        while left:
            block = file.read(min(left, BLOCK))
            if not block:
                raise Damaged('cut short')
            sha256.update(block)
            left -= len(block)
        if file.read() != f'{sha256.hexdigest()}\n'.encode():
            raise Damaged('damaged or cut short: its checksum does not match')
        file.seek(length)
        seal = re.match(SEAL.replace('{:4d}', r' *(\d+)').encode(), file.read())
    if not seal:
        raise Damaged('not sealed by this program')
    if int(seal[1]) not in READABLE:
        raise UserError(f'{path}: is of format {int(seal[1])}; this version of the program reads '
                        f'formats {READABLE[0]} to {FORMAT}. Use the version that wrote it')


def check_regular(path):
    """Raise Damaged for a pipe or a device, which a reader would wait for."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise Damaged('not a regular file')


checks = {}                                         # {file_state(path): future of a check}


def check_ahead(path):
    """Start a thread that checks what generating uses of a checkpoint. generator_is_whole then
    waits for its result, unless the file has changed."""
    checks[file_state(path)] = ThreadPoolExecutor(1).submit(check_generator, path)


def generator_is_whole(path):
    """Return whether the part that generating uses is as it was written. False where the file has
    no hash of it: then check_seal decides."""
    check = checks.pop(file_state(path), None)
    return check.result() if check else check_generator(path)


def file_state(path):
    """Return numbers that differ once the file is replaced or written to."""
    state = os.stat(path)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def check_generator(path):
    """Return what generator_is_whole does, from the file itself."""
    check_regular(path)
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        at = file.seek(max(0, size - 400))
        end = file.read()
    digest = '([0-9a-f]{64})'
    match = re.search(f'({GENERATOR.format("([0-9]+)", "([0-9]+)")}){digest}'
                      f'({SEAL.format(FORMAT)}){digest}\n$'.encode(), end)
    if not match:
        return False
    line, start, stop, expected, seal, _ = match.groups()
    unused, sealed = (int(start), int(stop)), at + match.start()
    return unused[0] <= unused[1] <= sealed and expected == hash_generator(
        path, unused, sealed, line + seal)
