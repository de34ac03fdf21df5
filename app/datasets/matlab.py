"""MATLAB's .mat files: version 7.3 is HDF5, read with h5py; version 5 is read here."""
from pathlib import Path
import struct
import zlib

import numpy as np

from app.common.errors import UserError, as_user_error
from app.common.files import require_regular_file


def open_hdf5(path):
    try:
        import h5py
    except ImportError:
        raise UserError(f'{path}: MATLAB 7.3 files are read with h5py, which is not installed: '
                        'pip install h5py') from None
    require_regular_file(path)
    with as_user_error(path, 'cannot be read as MATLAB 7.3'):
        return h5py.File(path, 'r')


def read_mat(path):
    """The numeric arrays of a MATLAB 5 file -> {name: ndarray}. (MATLAB 7.3 files are HDF5.)"""
    kinds = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8',
             13: 'u8'}

    def elements(blob):
        while blob:
            kind, size = struct.unpack('<II', blob[:8])
            if kind >> 16:                                  # small: size and type share a word
                yield kind & 0xffff, blob[4:4 + (kind >> 16)]
                blob = blob[8:]
            else:
                yield kind, blob[8:8 + size]
                blob = blob[8 + (size if kind == 15 else -(-size // 8) * 8):]

    arrays = {}
    for kind, blob in elements(Path(path).read_bytes()[128:]):
        if kind == 15:                                      # compressed
            kind, blob = next(elements(zlib.decompress(blob)))
        parts = list(elements(blob)) if kind == 14 else []  # flags, dimensions, name, values
        if len(parts) == 4 and parts[3][0] in kinds:
            shape = np.frombuffer(parts[1][1], '<i4')
            values = np.frombuffer(parts[3][1], '<' + kinds[parts[3][0]])
            arrays[parts[2][1].decode()] = values.reshape(shape, order='F')
    return arrays
