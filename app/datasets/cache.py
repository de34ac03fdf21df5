"""A data set decoded once and for all: resized pictures in memory-mapped arrays."""
import json
import os
import shutil

import numpy as np

from app.datasets.decoding import map_in_threads
from app.common.console import Progress
from app.common.errors import UserError, as_user_error
from app.common.files import require_regular_file, lock_folder, make_folder, write_text


class Cached:
    """Decoded pictures in memory-mapped arrays, read by index like a list of what Pictures.read
    returns."""

    def __init__(self, folder, roles, n, size):
        for role in roles:                          # a pipe would be waited for
            require_regular_file(folder / f'{role}.npy')
        self.arrays = {role: np.load(folder / f'{role}.npy', mmap_mode='r') for role in roles}
        for role, array in self.arrays.items():
            if array.shape[:3] != (n, *size[::-1]) or array.ndim > 3 + (role != 'inst'):
                raise ValueError(f'{role} of shape {array.shape}')

    def __getitem__(self, index):
        return {role: array[index] for role, array in self.arrays.items()}


def open_cache(folder, pairs, read):
    """The pictures of layouts.Pair that the PairReader `read` decodes to one size, kept in
    folder/<role>.npy -> Cached.

    Built once, in parallel; built anew when a name, a size or a modification time of the files, or
    the way of reading them, is not what folder/index.json says.
    """
    def stamp(path):
        with as_user_error(path):
            status = os.stat(path if os.path.lexists(path) else path.parents[1])
            return [os.fsdecode(path), status.st_size, status.st_mtime_ns]

    index = {'readers': read.readers.signature, 'size': list(read.size),
             'n_labels': read.n_labels, 'instances': read.instances,
             'files': map_in_threads(lambda pair: [stamp(path) for path in pair[1:] if path],
                                  pairs)}
    roles = ['label', 'image'] + ['inst'] * (read.instances != 'none')
    make_folder(folder)
    with lock_folder(folder, wait=True, name='.cache-lock'):   # another run may be building it
        fill_cache(folder, pairs, read, roles, json.dumps(index))
        with as_user_error(folder, 'not a whole cache; delete it'):
            return Cached(folder, roles, len(pairs), read.size)


def fill_cache(folder, pairs, read, roles, text):
    """Write the arrays of a cache, and then `text` into folder/index.json, unless it says that
    already. Who has mapped older arrays keeps them."""
    listed = folder / 'index.json'
    if listed.is_file() and listed.read_bytes() == text.encode():
        return
    with as_user_error(listed, 'cannot be replaced; delete it'):
        listed.unlink(missing_ok=True)
    first = read(pairs[0])
    needed = len(pairs) * sum(first[role].nbytes for role in roles)
    if needed > shutil.disk_usage(folder).free:     # else writing would kill the process
        raise UserError(f'--cache {folder}: needs {needed >> 20} MiB, more than is free there')
    arrays = {role: np.lib.format.open_memmap(
        folder / f'{role}.partial', 'w+', first[role].dtype, (len(pairs), *first[role].shape))
        for role in roles}

    def fill(i):
        for role, array in read(pairs[i]).items():
            if array.dtype != first[role].dtype:
                raise UserError(f'--cache {folder}: {getattr(pairs[i], role)} is '
                                f'{array.dtype}, and others are {first[role].dtype}; leave '
                                '--cache out')
            arrays[role][i] = array

    map_in_threads(fill, range(len(pairs)), Progress('keeping pictures', len(pairs)))
    for role in roles:
        arrays.pop(role).flush()                    # Windows replaces no file that is mapped
        os.replace(folder / f'{role}.partial', folder / f'{role}.npy')
    write_text(listed, text)
