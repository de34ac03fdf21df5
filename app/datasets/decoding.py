"""Decode pictures, .npy arrays and parts of .mat files into ndarrays. Sizes: (width, height)."""
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import importlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from app.common.console import Progress, warn_once
from app.common.errors import UserError, as_user_error
from app.common.files import require_regular_file
from app.datasets import formats
from data import count_cores, resize

DARK = 1 << 13                      # 16 bits with nothing above this look black
SAVED_MAP_KEY = 'p2phd'             # a text in PNG files that marks maps saved by `edit`

# What a file tells without being decoded. size: of the upright picture. lossy: 'JPEG' or 'lossy
# WebP' if the file has this format, which changes pixel values; otherwise ''. is_saved_map: whether
# `edit` saved it, so that it holds labels. is_deep: whether it has 16 bits a channel. has_alpha:
# whether pixels may be transparent. table: the colours of the indices of a decoded map, R, G, B
# after R, G, B. clear: its transparent ids.
Header = namedtuple('Header', 'size channels lossy is_saved_map is_deep has_alpha table clear',
                    defaults=('', False, False, False, None, ()))


def open_mat(path, function, version):
    """Open a MATLAB file by a function of an optional package, such as 'h5py.File'."""
    module, _, name = function.rpartition('.')
    try:
        opener = getattr(importlib.import_module(module), name)
    except ImportError:
        raise UserError(f'{path}: needs pip install {module.split(".")[0]}') from None
    require_regular_file(path)
    with as_user_error(path, f'cannot be read as MATLAB {version}'):
        return opener(path)


def as_path(path):
    """Return a path as a Path. A Path stays as it is: to parse it again takes as long as to read a
    part of the header."""
    return path if isinstance(path, Path) else Path(path)


def is_mat_part(path):
    """Whether a path names a part of NYU's .mat file: <file>.mat/<labels|instances|images>/<n>."""
    return path.parent.parent.suffix == '.mat'


def half_of(path):
    """Return 'left' or 'right' if a path names a half of a picture, like 1.jpg/left; else None."""
    is_half = path.name in ('left', 'right') and path.parent.suffix.lower() in formats.SUFFIXES
    return path.name if is_half else None


def cut(pixels, path):
    """Return the half of a decoded picture or of an array (H, W, ...) that a path names, or all of
    it if the path names no half."""
    half, is_array = half_of(path), isinstance(pixels, np.ndarray)
    if not half:
        return pixels
    w, h = pixels.shape[1::-1] if is_array else pixels.size
    start = w - w // 2 if half == 'right' else 0
    return (pixels[:, start:start + w // 2] if is_array
            else pixels.crop((start, 0, start + w // 2, h)))


def real_path(path):
    """Return the path of the file that a path names or that it names a part of."""
    return path.parents[1] if is_mat_part(path) else path.parent if half_of(path) else path


@contextmanager
def open_file(path):
    """Open a picture or an array once. Yield a PIL.Image that is not decoded yet, or an (H, W, C)
    ndarray, which a .npy file maps into memory; and its Header. Of a path that names a half, the
    Header is that of the half, and the rest of the whole picture. Raises UserError."""
    path = as_path(path)
    suffix = path.suffix.lower()
    if not suffix and half_of(path):
        with open_file(path.parent) as (file, header):
            yield file, header._replace(size=(header.size[0] // 2, header.size[1]))
        return
    if not suffix and is_mat_part(path):
        with open_mat(path.parents[1], 'h5py.File', '7.3') as file, as_user_error(path):
            key, n = path.parent.name, int(path.name)
            if not 1 <= n <= len(file['labels']):
                raise ValueError(f'the file holds {len(file["labels"])} scenes')
            array = file[key][n - 1].T              # MATLAB stores axes in the reverse order
            if key == 'instances':                  # they are numbered within each class
                array = file['labels'][n - 1].T.astype(np.int32) * 256 + array
    else:
        require_regular_file(path)
        if suffix != '.npy':
            with as_user_error(path, 'cannot be read as a picture'):
                picture, header = open_picture(path)
            with picture:
                yield picture, header
                return
        with as_user_error(path, 'cannot be read as an array'):
            array = np.lib.format.open_memmap(path, mode='r')
        if array.ndim not in (2, 3) or 0 in array.shape or max(array.shape) > 1 << 15:
            raise UserError(f'{path}: an array of shape {array.shape}, expected (height, width, '
                            'channels)')
    array = array if array.ndim == 3 else array[..., None]
    yield array, Header(array.shape[1::-1], array.shape[2])


def open_picture(path):
    """Open a picture: return a PIL.Image that is not decoded yet, and its Header."""
    try:
        picture = Image.open(path, formats=formats.FORMATS)
    except UnidentifiedImageError:
        formats.refuse_known(path)
        raise
    formats.keep_bmp_indices(picture)
    formats.note_what_is_left_out(path, picture)
    kind, info, mode = picture.format, picture.info, picture.mode
    channels = 1 if mode in ('1', 'L', 'LA', 'I', 'F') or 'I;16' in mode else 3
    rotated = formats.is_rotated(picture) and kind != 'TIFF'    # TIFF has the upright size
    return picture, Header(
        picture.size[::-1] if rotated else picture.size, channels,
        formats.lossy_format(path, picture), kind == 'PNG' and info.get(SAVED_MAP_KEY) == 'ids',
        formats.is_deep(picture), formats.has_alpha(picture))


def read_header(path):
    """Return the Header of a picture or an array without decoding it."""
    with open_file(path) as (_, header):
        return header


def verify(path):
    """Raise UserError for a PNG with a wrong checksum. To decode it does not find all of them."""
    with open(real_path(path), 'rb') as file, as_user_error(path, 'damaged'):
        if file.read(8) == b'\x89PNG\r\n\x1a\n':
            Image.open(file).verify()


def split_alpha(pixels):
    """Return the first 1 or 3 channels of (H, W, 1 to 4), and alpha, (H, W, 0 or 1)."""
    channels = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    return pixels[..., :channels], pixels[..., channels:]


def decode_map(path, size=None, colours=False, jpeg_allowed=True, colours_are_ids=False,
               decoder=2):
    """Open a label or instance map once, resize it by nearest neighbour, return it and its Header:
    ids, (H, W) integers of 1 to 64 bits, where a palette picture (mode P) stores ids as indices.
    colours: return colours, (H, W, 3) int32, unless `edit` saved the map. colours_are_ids: return
    the ids R << 16 | G << 8 | B of a map in colours. decoder: see pairs.DECODER. Raises
    UserError."""
    path, ids = as_path(path), None
    with open_file(path) as (file, header):
        check_lossy(header, path, jpeg_allowed, colours_are_ids)
        if colours and not header.is_saved_map:
            return photo_pixels(file, header, path, size, nearest=True,
                                decoder=decoder).astype(np.int32), header
        if isinstance(file, np.ndarray):
            kind = f'array has {file.shape[2]} of {file.dtype}; of a one-hot map store the argmax'
            if file.shape[2] in (1, 3) and file.dtype.kind in 'iubf':
                ids = lossless_ids(cut(np.asarray(file), path), path, colours_are_ids)
        elif file.mode in ('1', 'L', 'P', 'I') or file.mode.startswith('I;16'):
            with as_user_error(path, 'damaged'):
                restore, clear = formats.stored_ids(file, decoder), formats.transparent_ids(file)
                picture = cut(formats.apply_orientation(file), path)
                ids = np.asarray(picture.resize(size or picture.size, Image.Resampling.NEAREST))
                table = bytes(picture.getpalette() or ()) if picture.mode == 'P' else None
                return restore(ids), header._replace(table=table, clear=clear)
        else:
            colours_are_ids = colours_are_ids and not header.lossy
            kind = f'picture is {file.mode}; ' + (
                'its compression changes colours: use PNG' if header.lossy else
                'if its colours stand for labels, train with --palette FILE')
            if file.mode in ('RGB', 'RGBA', 'LA', 'PA', 'F'):
                with as_user_error(path, 'damaged'):
                    pixels = (formats.deep_pixels(file) if header.is_deep
                              else np.atleast_3d(formats.apply_orientation(file)))
                    ids = lossless_ids(cut(pixels, path), path, colours_are_ids)
        if ids is None:
            raise UserError(f'{path}: a map of ids has one channel of integers, this {kind}')
        return resize_labels(ids, size, path), header


def lossless_ids(pixels, path, colours_are_ids=False):
    """Return the ids (H, W) of pixels (H, W, C) if they lose nothing by it: grey, opaque, or floats
    that are whole numbers; else None. colours_are_ids: see decode_map. Raises UserError."""
    values, alpha = split_alpha(pixels)
    if values.dtype.kind == 'f':
        low, high = float(values.min()), float(values.max())
        if not -2.0 ** 31 <= low <= high < 2.0 ** 31 or (values != np.floor(values)).any():
            raise UserError(f'{path}: a map of ids holds whole numbers, this one others, from '
                            f'{low:g} to {high:g}; write ids in place of measures')
        values = values.astype(np.int32)
    if (values == values[..., :1]).all():
        ids = values[..., 0]
    elif colours_are_ids and values.dtype in (np.uint8, np.uint16):
        ids = as_bytes(values, path) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    else:
        return None
    require_opaque(alpha, path)
    return ids if ids.dtype.itemsize > 4 or ids.dtype == np.uint32 else ids.astype(np.int32)


def as_bytes(colours, path):
    """Return the colours (H, W, C) of a label map, uint8 or uint16, as uint8: of the one byte that
    tells all of them. Raises UserError where there is none."""
    if colours.dtype == np.uint8:
        return colours
    high, low = colours >> 8, colours & 255
    if high.any() and low.any() and (high != low).any():
        y, x = np.argwhere((high != low).any(2) & low.any(2))[0]
        raise UserError(f'{path}: colours of 16 bits, {format_colour(colours[y, x])} at x={x}, '
                        f'y={y}; save the map with 8 bits, or its ids with one channel of 16')
    return (high if high.any() else low).astype(np.uint8)


def format_colour(colour):
    """Return the text 'R,G,B'."""
    return ','.join(map(str, colour))


def require_opaque(alpha, path):
    """Raise UserError where pixels of a label map are transparent. alpha: (H, W, 0 or 1), of which
    the same value everywhere is only how the map is shown."""
    if alpha.size and not alpha.min() == alpha.max() > 0:
        y, x, _ = np.argwhere(alpha == alpha.min())[0]
        raise UserError(f'{path}: transparent at x={x}, y={y}; give these pixels the value of '
                        'their label, or one that means unknown')


def check_lossy(header, path, allowed, is_inst=False):
    """Raise UserError if a label map or an instance map is stored as JPEG or lossy WebP, and that
    is not allowed."""
    if header.lossy and not allowed:
        kind = 'instance ids' if is_inst else 'labels'
        raise UserError(
            f'{path}: {header.lossy} changes the values of {kind}; use PNG, or train with '
            '--jpeg-labels'
            + ', or with --palette FILE --palette-nearest for colours' * (not is_inst))


def read_map(path, size=None):
    """Return a label map that stores ids, (H, W) int32, resized by nearest neighbour."""
    return labels_as_int32(decode_map(path, size)[0], path)


def resize_labels(label, size, path):
    """Resize a label map (H, W) int32, read from `path`, to the same pixels as decode_map does."""
    if size in (None, label.shape[1::-1]) or as_path(path).suffix.lower() == '.npy':
        return resize(label, size, nearest=True)
    return np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))


def labels_as_int32(ids, path):
    """Return labels as int32. Raises UserError if one of them does not fit."""
    labels = ids.astype(np.int32)
    if not np.can_cast(ids.dtype, np.int32) and (labels != ids).any():
        raise UserError(f'{path}: ids from {ids.min()} to {ids.max()}; labels have at most 31 bits')
    return labels


def read_photo(path, size=None, channels=3, decoder=2, white=None):
    """Return a photograph, (H, W, channels), upright and resized bicubically with antialiasing:
    uint8, RGB or grey; or an array, uint8 or float32 in [-1, 1]. decoder: see pairs.DECODER.
    white: what is white in a picture of 16 bits; None: 65535. Raises UserError."""
    path = as_path(path)
    with open_file(path) as (file, header):
        return photo_pixels(file, header, path, size, channels, decoder=decoder, white=white)


def read_deep(path):
    """Return the values of a picture whose Header says is_deep, (H, W, 1 or 3) uint16."""
    with open_file(path) as (file, _), as_user_error(path, 'damaged'):
        return split_alpha(cut(formats.deep_pixels(file), path))[0]


def scale_to_bytes(values, path, white):
    """Return values of 16 bits, (H, W, C) uint16, as uint8. white: see read_photo."""
    largest = values.max()
    if white is None:
        if largest < DARK:
            warn_once('dark', f'note: {path}: its 16 bits hold 0 to {largest}, which is nearly '
                      'black; store it so that white is 65535, or as .npy')
        return (values >> 8).astype(np.uint8)
    if largest > white:
        warn_once('bright', f'note: {path}: its 16 bits hold values up to {largest}; all above '
                  f'{white}, the maximum of the training pictures, become white')
    scaled = np.minimum(values, white).astype(np.float32) * (255 / white)
    return scaled.round().astype(np.uint8)


def deep_to_bytes(file, path, nearest, white):
    """Return an open picture of 16 bits as a PIL.Image of 8, L, RGB or RGBA. The rest: see
    photo_pixels."""
    is_inverted = formats.is_white_zero(file)
    values, alpha = split_alpha(cut(formats.deep_pixels(file), path))
    values = as_bytes(values, path) if nearest else scale_to_bytes(values, path, white)
    values = ~values if is_inverted and not nearest else values
    if alpha.size:
        values = np.concatenate([values] * (3 // values.shape[2]) + [alpha >> 8], 2, dtype=np.uint8,
                                casting='unsafe')
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def composite_on_white(picture, path):
    """Return a decoded picture on a white ground, where it is transparent, and say so once."""
    colours = np.asarray(picture.convert('RGBA'))
    alpha = colours[..., 3:].astype(np.int32)
    if alpha.min() == 255:
        return picture
    warn_once('alpha', f'note: {path}: it is transparent in part, and shown on white, as all such '
              'pictures of the data set are')
    white = (colours[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return Image.fromarray(white.astype(np.uint8))


def photo_pixels(file, header, path, size, channels=3, nearest=False, decoder=2, white=None):
    """Return the pixels of an open file as read_photo does; nearest: of a label map in colours,
    which is resized without blending."""
    if isinstance(file, np.ndarray):
        dtype = np.uint8 if file.dtype == np.uint8 else np.float32
        if file.shape[2] != channels or dtype == np.float32 and file.dtype.kind != 'f':
            raise UserError(f'{path}: {file.shape[2]} channels of {file.dtype}, expected '
                            f'{channels} of uint8, or float in [-1, 1]')
        with as_user_error(path), np.errstate(over='ignore'):       # infinity is refused below
            pixels = resize(np.array(cut(file, path), dtype), size, nearest)
        if dtype == np.float32 and not np.abs(pixels).max() <= 1:
            raise UserError(f'{path}: float values must lie in [-1, 1]')
        return pixels
    if channels not in (1, 3):
        raise UserError(f'{path}: a picture, and only .npy files have {channels} channels')
    with as_user_error(path, 'damaged'):
        if size and not half_of(path):              # JPEG: decode at a fraction where that suffices
            file.draft(None, size[::-1] if formats.is_rotated(file) else size)
        if decoder > 1 and header.is_deep:
            picture = deep_to_bytes(file, path, nearest, white)
        else:
            picture = cut(formats.apply_orientation(file), path)
        if picture.mode in ('I', 'F') or picture.mode.startswith('I;16'):
            values, mode = np.asarray(picture), picture.mode
            low, high = values.min(), values.max()
            if mode == 'F' and 0 <= low <= high <= 1:
                values = (values * 255).round()
            elif mode.startswith('I;16') or (       # older Pillow opens PNG of 16 bits as 'I'
                    mode == 'I' and file.format != 'TIFF' and 0 <= low <= high < 1 << 16):
                values = values >> 8
            else:
                raise UserError(f'{path}: a photograph with {low:g} to {high:g}, not 8 or 16 bits; '
                                'save it so, or as .npy with floats in [-1, 1]')
            picture = Image.fromarray(values.astype(np.uint8))
        if decoder > 1 and header.has_alpha and nearest:
            require_opaque(np.asarray(picture.convert('RGBA'))[..., 3:], path)
        elif decoder > 1 and header.has_alpha:
            picture = composite_on_white(picture, path)
        picture = picture.convert('RGB' if channels == 3 else 'L')
        method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
        return np.atleast_3d(np.asarray(picture.resize(size or picture.size, method)))


def spread(items, count):
    """Return at most `count` items, spread evenly over all."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items


def map_in_threads(function, items, progress=lambda done: None):
    """Return [function(item) for item in items], in a thread per core; call progress(done)."""
    results = []
    with ThreadPoolExecutor(count_cores()) as pool:
        for result in pool.map(function, items):
            results.append(result)
            progress(len(results))
    return results


def map_usable(function, items, what):
    """Return [function(item)], computed in threads, without the items that raise a UserError:
    whatever reads them next reports it. what: for the display of the progress."""
    def attempt(item):
        try:
            return function(item)
        except UserError:
            return None

    results = map_in_threads(attempt, items, Progress(f'reading {what}', len(items)))
    return [result for result in results if result is not None]
