"""The seal at the end of a checkpoint: hashes that reveal damage.

This module does not import torch, so that a file can be checked while torch is imported.
"""
from concurrent.futures import ThreadPoolExecutor
import hashlib
import os
import re
import zipfile

from app.common.errors import UserError

FORMAT = 6                                          # raised when what is in a checkpoint changes
READABLE = (5, 6)                                   # the formats that this version reads

# A checkpoint is what torch.save writes, followed by two lines, which end in 64 hexadecimal digits.
# SEAL hashes all bytes before the digits. GENERATOR hashes the seal and all that generating uses,
# without the range of bytes that it names: optimizer states, discriminators, and weights that have
# a moving average. Files of format 5 lack the line GENERATOR.
GENERATOR = '\ngenerator: all bytes but {} to {}, sha256 of 4 MiB blocks '
SEAL = '\np2phd checkpoint, format {:4d}, sha256 '
SEAL_BYTES = len(SEAL.format(0)) + 64 + 1
BLOCK = 1 << 22


class Damaged(UserError):
    """A file is not what was written: it is cut short, or some of its bits have changed."""


class HashingFile:
    """A file that computes the SHA-256 of all that is written to it."""

    def __init__(self, file):
        self.file, self.flush, self.sha256 = file, file.flush, hashlib.sha256()

    def write(self, block):
        self.sha256.update(block)
        return self.file.write(block)


def write_seal(hashing, n_storages):
    """Seal a HashingFile that torch.save has written. Generating uses its first n_storages."""
    hashing.flush()
    path = hashing.file.name
    with zipfile.ZipFile(path) as archive:
        records = sorted(archive.infolist(), key=lambda record: record.header_offset)
    numbers = [re.fullmatch(r'.*/data/(\d+)', record.filename) for record in records]
    unused = [i for i, number in enumerate(numbers) if number and int(number[1]) >= n_storages]
    start = stop = 0
    if unused and unused == list(range(unused[0], unused[-1] + 1)):     # nothing lies between them
        start, stop = (records[i].header_offset for i in (unused[0], unused[-1] + 1))
    line, seal = GENERATOR.format(start, stop).encode(), SEAL.format(FORMAT).encode()
    digest = hash_generator(path, start, stop, os.path.getsize(path), line + seal)
    hashing.write(line + digest + seal)
    hashing.file.write(f'{hashing.sha256.hexdigest()}\n'.encode())


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


# ------------------------------------------------------------------------------------- checking

def check_seal(path):
    """Raise Damaged if a checkpoint is not as it was written, UserError for another format."""
    check_regular(path)
    with open(path, 'rb') as file:
        size, sha256 = os.fstat(file.fileno()).st_size, hashlib.sha256()
        sealed = size - 65                          # all but the digits and the line's end
        for at in range(0, sealed, BLOCK):
            sha256.update(file.read(min(BLOCK, sealed - at)))
        if size < SEAL_BYTES or file.read() != f'{sha256.hexdigest()}\n'.encode():
            raise Damaged(f'{path}: damaged or cut short, or no checkpoint: its checksum does not '
                          'match')
        file.seek(size - SEAL_BYTES)
        seal = re.match(SEAL.replace('{:4d}', r' *(\d+)').encode(), file.read())
    if not seal:
        raise Damaged(f'{path}: not sealed by this program')
    if int(seal[1]) not in READABLE:
        raise UserError(f'{path}: is of format {int(seal[1])}; this version of the program reads '
                        f'formats {READABLE[0]} to {FORMAT}. Use the version that wrote it')


def check_regular(path):
    """Raise Damaged for a pipe or a device, which a reader would wait for."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise Damaged(f'{path}: not a regular file')


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
        tail_start = file.seek(max(0, os.fstat(file.fileno()).st_size - 400))
        match = re.search(f'({GENERATOR.format("([0-9]+)", "([0-9]+)")})([0-9a-f]{{64}})'
                          f'({SEAL.format(FORMAT)})[0-9a-f]{{64}}\n$'.encode(), file.read())
    if not match:
        return False
    line, start, stop, digest, seal = match.groups()
    start, stop, end = int(start), int(stop), tail_start + match.start()
    return start <= stop <= end and digest == hash_generator(path, start, stop, end, line + seal)
