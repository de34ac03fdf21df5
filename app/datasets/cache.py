"""Keep a decoded data set on the disk, in memory-mapped arrays."""
import json
import os
import shutil

import numpy as np

from app.common.console import Progress
from app.common.errors import UserError, as_user_error
from app.common.files import lock_folder, make_folder, require_regular_file, write_text
from app.datasets.decoding import map_in_threads


def describe_files(pair):
    """Return [path, size, modification time] of each file of a pair."""
    facts = []
    for path in filter(None, pair[1:]):
        with as_user_error(path):                   # a path may name a part of a file
            status = os.stat(path if os.path.lexists(path) else path.parents[1])
        facts.append([os.fsdecode(path), status.st_size, status.st_mtime_ns])
    return facts


def open_cache(folder, pairs, reader):
    """Return what a pairs.PairReader returns for each pair, mapped into memory from the files
    <role>.npy of a folder. They are decoded anew if index.json there does not describe this way of
    reading, with this size, and these files."""
    c, (w, h) = reader.config, reader.size
    index = json.dumps({
        'readers': repr([c.layout, c.palette, c.label_table, c.in_channels, c.out_channels]),
        'size': [w, h], 'n_labels': c.n_labels, 'instances': reader.instances,
        'files': map_in_threads(describe_files, pairs)}).encode()
    roles = ['label', 'image'] + ['inst'] * (reader.instances != 'none')
    index_file, files = folder / 'index.json', {role: folder / f'{role}.npy' for role in roles}
    make_folder(folder)
    with lock_folder(folder, wait=True, name='.cache-lock'):    # another run may be filling it
        if not index_file.is_file() or index_file.read_bytes() != index:
            for path in (index_file, *files.values()):
                with as_user_error(path, 'cannot be replaced; delete it'):
                    path.unlink(missing_ok=True)    # other processes keep what they have mapped
            fill_cache(folder, pairs, reader, files)
            write_text(index_file, index.decode())
        arrays = []
        for role, path in files.items():
            require_regular_file(path)              # a pipe would be waited for
            with as_user_error(folder, 'not a whole cache; delete it'):
                array = np.load(path, mmap_mode='r')
                if array.shape[:3] != (len(pairs), h, w) or array.ndim > 3 + (role != 'inst'):
                    raise ValueError(f'{role} of shape {array.shape}')
            arrays.append(array)
        return [dict(zip(roles, rows)) for rows in zip(*arrays)]


def fill_cache(folder, pairs, reader, files):
    """Decode pairs into the files {role: path} of a cache."""
    first = reader(pairs[0])
    needed = len(pairs) * sum(first[role].nbytes for role in files)
    if needed > shutil.disk_usage(folder).free:     # a full disk would kill the process (SIGBUS)
        raise UserError(f'--cache {folder}: needs {needed >> 20} MiB, more than is free there')
    arrays = {role: np.lib.format.open_memmap(path, 'w+', first[role].dtype,
                                              (len(pairs), *first[role].shape))
              for role, path in files.items()}

    def fill(i):
        for role, array in reader(pairs[i]).items():
            if array.dtype != first[role].dtype:
                raise UserError(f'--cache {folder}: {getattr(pairs[i], role)} is {array.dtype}, '
                                f'and others are {first[role].dtype}; leave --cache out')
            arrays[role][i] = array

    map_in_threads(fill, range(len(pairs)), Progress('keeping pictures', len(pairs)))
    for array in arrays.values():
        array.flush()
