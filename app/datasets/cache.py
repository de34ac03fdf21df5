"""Keep a decoded data set on the disk, in memory-mapped arrays."""
import json
import os
import shutil

import numpy as np

from app.common.console import Progress
from app.common.errors import UserError, as_user_error
from app.common.files import lock_folder, make_folder, require_regular_file, write_text
from app.datasets.decoding import map_in_threads


def open_cache(folder, pairs, reader):
    """Return what a pairs.PairReader returns for each of the pairs, decoded to one size and mapped
    into memory from the files <role>.npy of a folder.

    They are decoded anew if index.json in the folder does not describe this way of reading and
    these files, with their sizes and modification times.
    """
    def describe_file(path):
        with as_user_error(path):
            # The path may name a part of a file.
            status = os.stat(path if os.path.lexists(path) else path.parents[1])
            return [os.fsdecode(path), status.st_size, status.st_mtime_ns]

    c, (w, h) = reader.config, reader.size
    index = {'readers': repr([c.layout, c.palette, c.label_table, c.in_channels, c.out_channels]),
             'size': [w, h], 'n_labels': c.n_labels, 'instances': reader.instances,
             'files': map_in_threads(
                 lambda pair: [describe_file(path) for path in pair[1:] if path], pairs)}
    roles = ['label', 'image'] + ['inst'] * (reader.instances != 'none')
    make_folder(folder)
    with lock_folder(folder, wait=True, name='.cache-lock'):    # another run may be filling it
        fill_cache(folder, pairs, reader, roles, json.dumps(index))
        with as_user_error(folder, 'not a whole cache; delete it'):
            arrays = []
            for role in roles:
                require_regular_file(folder / f'{role}.npy')    # a pipe would be waited for
                array = np.load(folder / f'{role}.npy', mmap_mode='r')
                if array.shape[:3] != (len(pairs), h, w) or array.ndim > 3 + (role != 'inst'):
                    raise ValueError(f'{role} of shape {array.shape}')
                arrays.append(array)
            return [dict(zip(roles, rows)) for rows in zip(*arrays)]


def fill_cache(folder, pairs, reader, roles, index):
    """Decode pairs into the files of a cache and write the text `index` into index.json, unless it
    is there already."""
    index_file = folder / 'index.json'
    if index_file.is_file() and index_file.read_bytes() == index.encode():
        return
    for path in (index_file, *(folder / f'{role}.npy' for role in roles)):
        with as_user_error(path, 'cannot be replaced; delete it'):
            path.unlink(missing_ok=True)            # other processes keep what they have mapped
    first = reader(pairs[0])
    needed = len(pairs) * sum(first[role].nbytes for role in roles)
    if needed > shutil.disk_usage(folder).free:     # a full disk would kill the process (SIGBUS)
        raise UserError(f'--cache {folder}: needs {needed >> 20} MiB, more than is free there')
    arrays = {role: np.lib.format.open_memmap(
        folder / f'{role}.npy', 'w+', first[role].dtype, (len(pairs), *first[role].shape))
        for role in roles}

    def fill(i):
        for role, array in reader(pairs[i]).items():
            if array.dtype != first[role].dtype:
                raise UserError(f'--cache {folder}: {getattr(pairs[i], role)} is {array.dtype}, '
                                f'and others are {first[role].dtype}; leave --cache out')
            arrays[role][i] = array

    map_in_threads(fill, range(len(pairs)), Progress('keeping pictures', len(pairs)))
    for array in arrays.values():
        array.flush()
    write_text(index_file, index)
