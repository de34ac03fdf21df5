"""Pictures and arrays on the disk -> ndarrays. Sizes are (width, height) as in Pillow."""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import warnings

import numpy as np
from PIL import Image, ImageOps

from app.common.errors import UserError, as_user_error
from data import CORES, resize
from app.common.files import require_regular_file

FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP')    # Pillow has more: for EPS it runs a program
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.npy')
ORIENTATION = 0x0112                                # EXIF
SAVED_MAP_KEY = 'p2phd'                                       # key of a text in PNG files of our own ids

Image.MAX_IMAGE_PIXELS = 1 << 27                    # twice as many are refused undecoded
warnings.filterwarnings('ignore', module='PIL')     # what matters about a file is an exception


def open_picture(path):
    """The PIL.Image of a file, not yet decoded. UserError where it is none."""
    require_regular_file(path)
    with as_user_error(path, 'cannot be read as a picture'):
        return Image.open(path, formats=FORMATS)


def open_array(path):
    """A .npy file -> (H, W, C) ndarray, mapped into memory. UserError where it is none."""
    require_regular_file(path)
    with as_user_error(path, 'cannot be read as an array'):
        array = np.lib.format.open_memmap(path, mode='r')
    if array.ndim not in (2, 3) or 0 in array.shape or max(array.shape) > 1 << 15:
        raise UserError(f'{path}: an array of shape {array.shape}, expected (height, width) or '
                        '(height, width, channels)')
    return array if array.ndim == 3 else array[..., None]


def is_array(path):
    return Path(path).suffix.lower() == '.npy'


def is_rotated(picture):
    """Whether a picture's EXIF orientation exchanges width and height."""
    return picture.getexif().get(ORIENTATION) in (5, 6, 7, 8)


def apply_orientation(picture):
    """A picture turned as its EXIF orientation says."""
    if picture.format != 'TIFF':
        return ImageOps.exif_transpose(picture)
    size = picture.size                             # what it is once Pillow has turned it
    picture.filename = ''                           # it does not turn what it maps into memory
    picture.load()
    if picture.size != size:
        raise ValueError('an orientation that Pillow cannot apply')
    return picture


def read_header(path):
    """(width, height, channels) as read_map and read_photo see them, without decoding."""
    if is_array(path):
        h, w, channels = open_array(path).shape
        return w, h, channels
    with open_picture(path) as picture, as_user_error(path):
        one = picture.mode in ('1', 'L', 'LA', 'I', 'F') or picture.mode.startswith('I;16')
        # Pillow gives the size of a TIFF as it is once it has been turned.
        size = picture.size[::-1] if is_rotated(picture) and picture.format != 'TIFF' else picture.size
        return *size, 1 if one else 3


def is_saved_map(path):
    """Whether a picture is a map of ids that `edit` wrote, whatever the layout's maps are like.
    Of arrays nothing tells."""
    if is_array(path) or not Path(path).is_file():      # a part of a file, a folder of masks
        return False
    with open_picture(path) as picture:
        return picture.format == 'PNG' and picture.info.get(SAVED_MAP_KEY) == 'ids'


def is_jpeg(path):
    """Whether what is in a file went through JPEG, whatever its name."""
    if is_array(path):
        return False
    with open_picture(path) as picture:
        return picture.format in ('JPEG', 'MPO') or 'jpeg' in str(picture.info.get('compression'))


def read_ids(path, size=None):
    """A map of ids -> (H, W) integer ndarray of any type, resized by nearest neighbour. One channel
    of 1 to 32 bits, a palette picture (`P`), whose indices are the ids, or a .npy array of integers
    up to 64 bits. UserError otherwise."""
    if is_array(path):
        array = open_array(path)
        if array.shape[2] > 1 or array.dtype.kind not in 'iub':
            raise UserError(f'{path}: a map of ids has one channel of integers, this array has '
                            f'{array.shape[2]} of {array.dtype}')
        with as_user_error(path):
            return resize(array[..., 0], size, nearest=True)
    with open_picture(path) as picture:
        mode = picture.mode
        if mode not in ('1', 'L', 'P', 'I') and not mode.startswith('I;16'):
            raise UserError(f'{path}: a map of ids has one channel of integers, this picture is '
                            f'{mode}; if its colours stand for labels, train with --palette FILE')
        with as_user_error(path, 'damaged'):
            # Pillow stretches grey of 2 and 4 bits to 8, and only the file's own mode tells.
            stored = picture.tile[0].args if picture.tile else ''
            stored = stored if isinstance(stored, str) else stored[0]
            stretched = {'L;2': 85, 'L;4': 17}.get(stored[:3], 1) if mode == 'L' else 1
            picture = apply_orientation(picture)
            if size and tuple(size) != picture.size:
                picture = picture.resize(size, Image.Resampling.NEAREST)
            ids = np.asarray(picture)
            return ids // stretched if stretched > 1 else ids


def read_map(path, size=None):
    """A label map -> (H, W) int32, as read_ids. UserError where an id is beyond 32 bits."""
    ids = read_ids(path, size)
    if ids.dtype.itemsize > 4 or ids.dtype == np.uint32:
        low, high = int(ids.min()), int(ids.max())
        if not -(1 << 31) <= low <= high < 1 << 31:
            raise UserError(f'{path}: ids from {low} to {high}; labels have at most 31 bits')
    return ids.astype(np.int32)


def read_instances(path, size=None):
    """An instance map -> (H, W) int32, as read_ids; ids of more than 32 bits are numbered anew."""
    ids = read_ids(path, size)
    if ids.dtype.itemsize > 4:
        ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    return ids.astype(np.int32)


def read_photo(path, size=None, channels=3, nearest=False):
    """A photograph -> (H, W, channels), turned as its EXIF orientation says and resized with
    antialiasing: uint8, RGB or grey; or the values of a .npy array, uint8 or float32 in [-1, 1], of
    any number of channels. UserError otherwise."""
    if is_array(path):
        array = open_array(path)
        numbers = array.dtype == np.uint8 or array.dtype.kind == 'f'
        if array.shape[2] != channels or not numbers:
            raise UserError(f'{path}: {array.shape[2]} channels of {array.dtype}, expected '
                            f'{channels} of uint8, or float in [-1, 1]')
        with as_user_error(path), np.errstate(over='ignore'):           # what is too large is told below
            dtype = np.uint8 if array.dtype == np.uint8 else np.float32
            array = resize(np.array(array, dtype), size, nearest)
            if dtype != np.uint8 and not np.abs(array).max() <= 1:
                raise UserError(f'{path}: float values must lie in [-1, 1]')
            return array
    if channels not in (1, 3):
        raise UserError(f'{path}: a picture file has 1 or 3 channels, expected {channels}; more '
                        'are read from .npy')
    with open_picture(path) as picture, as_user_error(path, 'damaged'):
        if size:                                    # JPEG: decode at a half where that is enough
            picture.draft(None, size[::-1] if is_rotated(picture) else size)
        picture = to_eight_bits(apply_orientation(picture), path).convert('RGB' if channels == 3 else 'L')
        if size and tuple(size) != picture.size:
            kind = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
            picture = picture.resize(size, kind)
        return np.atleast_3d(np.asarray(picture))


def read_bands(path, size):
    """A map whose channels mean different things -> (H, W, 3) int32."""
    return read_photo(path, size, nearest=True).astype(np.int32)


def to_eight_bits(picture, path):
    """Grey of 16 bits, or floats from 0 to 1, as grey of 8 bits; other pictures as they are.
    UserError where the range is anybody's guess."""
    if picture.mode not in ('I', 'F') and not picture.mode.startswith('I;16'):
        return picture
    values = np.asarray(picture)
    low, high = values.min(), values.max()
    if picture.mode == 'F' and 0 <= low <= high <= 1:
        values = (values * 255).round()
    elif picture.mode.startswith('I;16') or (       # older Pillow has PNG of 16 bits as 'I'
            picture.mode == 'I' and picture.format != 'TIFF' and 0 <= low <= high < 1 << 16):
        values = values >> 8
    else:
        raise UserError(f'{path}: a photograph with values from {low:g} to {high:g}; expected 8 or '
                        '16 bits, or floats from 0 to 1')
    return Image.fromarray(values.astype(np.uint8))


def map_in_threads(function, items, progress=None):
    """[function(item) for item in items], in as many threads as there are cores; decoding frees
    them to run at once. `progress(done)` is called after each."""
    with ThreadPoolExecutor(CORES) as pool:
        results = []
        for result in pool.map(function, items):
            results.append(result)
            if progress:
                progress(len(results))
        return results
