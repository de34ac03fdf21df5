"""Decode the files of pairs, keep them decoded, and open pairs as a data.PairedDataset."""
import json
import os
from pathlib import Path
import shutil

import numpy as np

from app.common.console import Progress
from app.common.errors import UserError, as_user_error
from app.common.files import lock_folder, make_folder, require_own, require_regular_file, write_text
from app.datasets import decoding, layouts
import data

IGNORED = 255                       # the usual mark of pixels without a label
# How a new run decodes its files. Runs keep what they began with:
# 1: as version 1.0.0. Pillow inverts ids in a TIFF where 0 is white, and takes signed bytes for
#    unsigned ones. Alpha is left out, so that transparent pixels show their hidden colours.
# 2: the ids are the numbers in the file. Pictures are composited on white; label maps in colours
#    must be opaque. All 16 bits of a channel are read.
DECODER = 2
CACHE_LOCK = '.cache-lock'
IN_MEMORY_BYTES = 1 << 30           # decoded data sets below this stay in memory


class PairReader:
    """Decodes a layouts.Pair: returns {role: ndarray} of one size (width, height). UserErrors name
    the file. instances: in place of those of `config`.
    image: (H, W, C) uint8, or float32 in [-1, 1]. inst: (H, W) int32, where there are instances.
    label: (H, W) uint8, above 256 labels int32; where n_labels is 0, a picture (H, W, C)."""

    def __init__(self, config, size=None, instances=None):
        self.config, self.n_labels, self.size = config, config.n_labels, size
        self.instances = instances or config.instances
        self.layout = layouts.LAYOUTS[config.layout]
        self.decoder = getattr(config, 'decoder', 1)
        self.whites = [getattr(config, name, None) for name in ('condition_max', 'image_max')]

    def __call__(self, pair):
        image = self.read_photo(pair.image, self.size)
        size = image.shape[1::-1]
        label, _ = self.read_label(pair.label, size)
        arrays = {'label': label.astype(np.uint8) if 0 < self.n_labels <= 256 else label,
                  'image': image}
        if self.instances == 'files' and self.n_labels:
            arrays['inst'] = self.read_instances(pair.inst, size, label)
        elif self.instances == 'components' and self.n_labels:
            arrays['inst'] = data.connected_components(label)
        return arrays

    def read_label(self, path, size=None):
        """Open a label map once, check all of it, resize it. Return its labels, (H, W) int32, and
        its decoding.Header. Where n_labels is 0, it is a picture; if it is None, any int32."""
        c, to_ids = self.config, self.layout.label_of_colours
        if c.n_labels == 0:
            return (decoding.read_photo(path, size, c.in_channels, self.decoder,
                                        self.whites[0]),
                    decoding.read_header(path))
        label, header = self.layout.decode_map(
            path, colours=bool(c.palette or to_ids), jpeg_allowed=c.jpeg_labels,
            decoder=self.decoder)
        label = decoding.labels_as_int32(label, path)
        if label.ndim == 3:
            label = (colours_to_labels(label, c.palette, path, c.palette_nearest) if c.palette
                     else to_ids(label))
        if c.label_table and not header.is_saved_map:       # saved maps hold labels
            label = ids_to_labels(label, c.label_table, path)
        if c.n_labels:
            check_labels(label, path, c.n_labels,
                         self.layout.n_labels is None or self.layout.may_be_own)
        return decoding.resize_labels(label, size, path), header

    def decode_instances(self, path, size=None):
        """Return the ids of an instance map, (H, W) of up to 64 bits, and its decoding.Header."""
        to_ids = self.layout.inst_of_colours
        colours = to_ids and decoding.as_path(path).suffix.lower() != '.npy'    # arrays hold ids
        inst, header = decoding.decode_map(
            path, size, colours, jpeg_allowed=self.config.jpeg_labels or self.decoder == 1,
            colours_are_ids=True, decoder=self.decoder)
        return to_ids(inst) if inst.ndim == 3 else inst, header

    def read_instances(self, path, size=None, label=None):
        """Return the ids of an instance map, (H, W) int32. label: the label map, of the same size;
        where the run has inst_per_label, the ids of each label are numbered anew."""
        inst, header = self.decode_instances(path, size)
        if inst.dtype.itemsize > 4:                                 # number ids of 64 bits anew
            inst = np.unique(inst, return_inverse=True)[1].reshape(inst.shape)
        if getattr(self.config, 'inst_per_label', False) and not header.is_saved_map:
            code = label.astype(np.int64) << 32 | inst.astype(np.uint32)
            inst = np.unique(code, return_inverse=True)[1].reshape(inst.shape)
        return inst.astype(np.int32)

    def read_photo(self, path, size=None):
        return decoding.read_photo(path, size, self.config.out_channels, self.decoder,
                                   self.whites[1])


def check_labels(label, path, n_labels, can_have_more=True):
    """Raise UserError for the first pixel whose label is not in 0 ... n_labels - 1."""
    if label.min() < 0 or label.max() >= n_labels:
        wrong = (label < 0) | (label >= n_labels)
        y, x = np.argwhere(wrong)[0]
        remedy = (f', or train with --n-labels {label.max() + 1} in place of {n_labels}'
                  if can_have_more and label.max() >= n_labels else '')
        if (label[wrong] == IGNORED).all() and IGNORED > n_labels:  # perhaps no training map has it
            remedy = f', or train with --ignore-label {IGNORED} if it means unknown'
        raise UserError(f'{path}: label {label[y, x]} at x={x}, y={y}; this run has {n_labels} '
                        f'labels (0 to {n_labels - 1}). Fix the map{remedy}')


def lookup_array(table):
    """Return the int32 labels of the ids 0, 1, 2 ... by {id: label}; -1 for others and at last."""
    lookup = np.full(max(table) + 2, -1, np.int32)
    lookup[list(table)] = list(table.values())
    return lookup


def ids_to_labels(ids, table, path):
    """Return the labels of ids (H, W) by a table {id: label}. Raises UserError if it lacks one."""
    lookup = lookup_array(table)
    labels = lookup[np.where((ids >= 0) & (ids < len(lookup)), ids, -1)]
    if (labels < 0).any():
        y, x = np.argwhere(labels < 0)[0]
        raise UserError(f'{path}: label {ids[y, x]} at x={x}, y={y} is not one of the '
                        f'{len(table)} of this run; fix the map, or train with more --n-labels')
    return labels


def colour_codes(colours):
    """Return the numbers R << 16 | G << 8 | B of colours (..., 3), integers of 32 or 64 bits."""
    return colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]


def colours_to_labels(colours, palette, path, nearest=False):
    """Return the labels (H, W) int32 of colours (H, W, 3) by the rows of read_palette. nearest: a
    colour that they lack has the label of the nearest one. Raises UserError for it otherwise."""
    rows = np.array([row[:3] for row in palette])
    codes, code = colour_codes(rows), colour_codes(colours)
    order = codes.argsort()
    row = order[np.searchsorted(codes[order], code).clip(max=len(codes) - 1)]
    missing = codes[row] != code
    if nearest and missing.any():
        different, inverse = np.unique(code[missing], return_inverse=True)
        nearest_rows = np.concatenate([
            np.square((part[:, None, None] >> [16, 8, 0] & 255) - rows).sum(2).argmin(1)
            for part in np.array_split(different, -(-len(different) // 4096))])
        row[missing] = nearest_rows[inverse.ravel()]
    elif missing.any():
        y, x = np.argwhere(missing)[0]
        raise UserError(f'{path}: colour {decoding.format_colour(colours[y, x])} at x={x}, y={y} '
                        'is not in the palette; complete that before training, or fix the map, or '
                        'use --palette-nearest, which takes the nearest colour')
    return np.array([label for *_, label, _ in palette], np.int32)[row]


def open_dataset(pairs, reader, cache=None, keep=True, **augmentation):
    """Return a data.PairedDataset of [layouts.Pair] that a PairReader reads.
    cache: a folder for decoded pictures. keep: decode small data sets of one size into memory."""
    decoded, size = None, reader.size
    if cache:
        decoded = open_cache(Path(cache), pairs, reader)
    elif keep and size and len(pairs) * size[0] * size[1] * 8 <= IN_MEMORY_BYTES:
        decoded = decoding.map_in_threads(reader, pairs)
    return data.PairedDataset(pairs, reader, reader.n_labels, decoded=decoded, **augmentation)


def open_cache(folder, pairs, reader):
    """Return what a PairReader returns for each pair, mapped into memory from <role>.npy in a
    folder. They are made anew unless index.json there tells this way of reading these files."""
    def describe(pair):
        facts = []
        for path in filter(None, pair[1:]):
            with as_user_error(path):               # a path may name a part of a file
                status = os.stat(decoding.real_path(path))
            facts.append([os.fsdecode(path), status.st_size, status.st_mtime_ns])
        return facts

    c, (w, h) = reader.config, reader.size
    index = json.dumps({
        'readers': repr([c.layout, c.palette, c.label_table, c.in_channels, c.out_channels]
                        + ['nearest'] * bool(c.palette and c.palette_nearest)
                        + [reader.decoder, reader.whites, getattr(c, 'inst_per_label', False)]
                        * (reader.decoder > 1)),
        'size': [w, h], 'n_labels': c.n_labels, 'instances': reader.instances,
        'files': decoding.map_in_threads(describe, pairs)})
    roles = ['label', 'image'] + ['inst'] * (reader.instances != 'none')
    files, arrays = {role: folder / f'{role}.npy' for role in roles}, {}
    index_file = folder / 'index.json'
    make_folder(folder)
    if not (folder / CACHE_LOCK).exists():          # perhaps no cache
        require_own(index_file, '"readers"', '--cache')
        for path in () if index_file.exists() else filter(Path.exists, files.values()):
            raise UserError(f'{path}: would be overwritten; choose another folder with --cache')
    with lock_folder(folder, wait=True, name=CACHE_LOCK):       # another run may be filling it
        if not index_file.is_file() or index_file.read_bytes() != index.encode():
            for path in (index_file, *files.values()):
                with as_user_error(path, 'cannot be replaced; delete it'):
                    path.unlink(missing_ok=True)    # other processes keep what they have mapped
            fill_cache(folder, pairs, reader, files)
            write_text(index_file, index)
        with as_user_error(folder, 'not a whole cache; delete it'):
            for role, path in files.items():
                require_regular_file(path)          # a pipe would be waited for
                arrays[role] = array = np.load(path, mmap_mode='r')
                if array.shape[:3] != (len(pairs), h, w) or array.ndim > 3 + (role != 'inst'):
                    raise ValueError(f'{role} of shape {array.shape}')
        return [dict(zip(roles, rows)) for rows in zip(*arrays.values())]


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

    decoding.map_in_threads(fill, range(len(pairs)), Progress('keeping pictures', len(pairs)))
    for array in arrays.values():
        array.flush()
