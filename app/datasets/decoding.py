"""Decode pictures, .npy arrays and parts of .mat files into ndarrays. Sizes: (width, height)."""
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import importlib
from pathlib import Path
import warnings

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from app.common.errors import UserError, as_user_error
from app.common.files import require_regular_file
from data import count_cores, resize

FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP')    # for EPS, Pillow would run another program
SUFFIXES = ('.png', '.jpg', '.jpeg', '.jfif', '.jpe', '.bmp', '.tif', '.tiff', '.webp', '.npy')
# Endings of pictures that are not read, and how files of such formats begin, from which byte on.
OTHER_SUFFIXES = ('.heic .heif .avif .jp2 .j2k .jpx .jxl .gif .ppm .pgm .pbm .pnm .psd .svg .eps '
                  '.pdf .exr .hdr .dng .cr2 .cr3 .nef .arw .raw .tga .ico .dcm .nii .gz .xcf '
                  '.dds').split()
SIGNATURES = ((4, b'ftypavif', 'AVIF'), (4, b'ftypavis', 'AVIF'), (4, b'ftyphe', 'HEIC'),
              (4, b'ftypmif1', 'HEIC'), (4, b'ftypmsf1', 'HEIC'), (4, b'jP  ', 'JPEG 2000'),
              (0, b'\xff\x4f\xff\x51', 'JPEG 2000'), (0, b'GIF8', 'GIF'), (0, b'8BPS', 'Photoshop'),
              (0, b'\xff\x0a', 'JPEG XL'), (4, b'JXL ', 'JPEG XL'), (0, b'%PDF', 'PDF'),
              (0, b'%!PS', 'EPS'), (0, b'<svg', 'SVG'), (0, b'v/1\x01', 'OpenEXR'),
              (0, b'gimp xcf', 'GIMP'), (128, b'DICM', 'DICOM'),
              *((0, b'P%d' % i, 'PPM') for i in range(1, 8)), (0, b'\x00\x00\x01\x00', 'ICO'))
NOT_READ = 'format not read: convert it to PNG or JPEG'
EXIF_ORIENTATION = 0x0112
SAVED_MAP_KEY = 'p2phd'             # a text in PNG files that marks maps saved by `edit`

Image.MAX_IMAGE_PIXELS = 1 << 27    # Pillow refuses pictures with more than twice as many pixels
warnings.filterwarnings('ignore', module='PIL')     # whatever matters raises an exception



def skip_large_texts(name):
    """Let Pillow leave out a text or profile of a PNG that is too large for it, not the picture."""
    original = getattr(PngImagePlugin.PngStream, name)

    def read_chunk(stream, position, length):
        try:
            return original(stream, position, length)
        except ValueError:
            stream.fp.seek(position)
            return stream.fp.read(length)
    setattr(PngImagePlugin.PngStream, name, read_chunk)


for _name in ('chunk_iCCP', 'chunk_tEXt', 'chunk_zTXt', 'chunk_iTXt'):
    skip_large_texts(_name)

# What a file tells without being decoded. size: of the upright picture. is_jpeg: whether JPEG has
# changed its values. is_saved_map: whether `edit` saved it, so that it holds labels.
Header = namedtuple('Header', 'size channels is_jpeg is_saved_map', defaults=(False, False))


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


def is_mat_part(path):
    """Whether a path names a part of NYU's .mat file: <file>.mat/<labels|instances|images>/<n>."""
    return path.parent.parent.suffix == '.mat'


def half_of(path):
    """Return 'left' or 'right' if a path names a half of a picture, like 1.jpg/left; else None."""
    if path.name in ('left', 'right') and path.parent.suffix.lower() in SUFFIXES:
        return path.name
    return None


def real_path(path):
    """Return the path of the file that a path names or that it names a part of."""
    return path.parents[1] if is_mat_part(path) else path.parent if half_of(path) else path


def refuse_other_format(path):
    """Raise UserError if a file begins like a picture of a format that is not read."""
    with as_user_error(path), open(path, 'rb') as file:
        start = file.read(200)
    for offset, signature, name in SIGNATURES:
        if start[offset:].startswith(signature):
            raise UserError(f'{path}: {name}, {NOT_READ}')


@contextmanager
def open_half(path):
    """Open half a picture as open_file does. It is decoded at once."""
    with open_file(path.parent) as (file, header):
        w, h = header.size
        start = w - w // 2 if path.name == 'right' else 0
        if isinstance(file, np.ndarray):
            half = file[:, start:start + w // 2]
        else:
            with as_user_error(path.parent, 'damaged'):
                half = apply_orientation(file).crop((start, 0, start + w // 2, h))
            half.info, half.tile = {}, []           # else it is turned again
        yield half, header._replace(size=(w // 2, h))


@contextmanager
def open_file(path):
    """Open a picture or an array once. Yield a PIL.Image that is not decoded yet, or an (H, W, C)
    ndarray, which a .npy file maps into memory; and its Header. Raises UserError."""
    path = Path(path)
    if half_of(path):
        with open_half(path) as opened:
            yield opened
        return
    if is_mat_part(path):
        with open_mat(path.parents[1], 'h5py.File', '7.3') as file, as_user_error(path):
            key, n = path.parent.name, int(path.name)
            if not 1 <= n <= len(file['labels']):
                raise ValueError(f'the file holds {len(file["labels"])} scenes')
            array = file[key][n - 1].T              # MATLAB stores axes in the reverse order
            if key == 'instances':                  # they are numbered within each class
                array = file['labels'][n - 1].T.astype(np.int32) * 256 + array
    else:
        require_regular_file(path)
        if path.suffix.lower() != '.npy':
            with as_user_error(path, 'cannot be read as a picture'):
                try:
                    picture = Image.open(path, formats=FORMATS)
                except UnidentifiedImageError:
                    refuse_other_format(path)
                    raise
                kind, info, mode = picture.format, picture.info, picture.mode
                channels = 1 if mode in ('1', 'L', 'LA', 'I', 'F') or 'I;16' in mode else 3
                rotated = is_rotated(picture) and kind != 'TIFF'        # TIFF has the upright size
                is_jpeg = kind in ('JPEG', 'MPO') or 'jpeg' in str(info.get('compression'))
                header = Header(picture.size[::-1] if rotated else picture.size, channels, is_jpeg,
                                kind == 'PNG' and info.get(SAVED_MAP_KEY) == 'ids')
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


def read_header(path):
    """Return the Header of a picture or an array without decoding it."""
    if half_of(Path(path)):
        header = read_header(Path(path).parent)
        return header._replace(size=(header.size[0] // 2, header.size[1]))
    with open_file(path) as (_, header):
        return header


def is_rotated(picture):
    """Whether the EXIF orientation of a picture swaps width and height."""
    # PngImageFile.getexif would decode the picture, to look for EXIF data behind the pixels.
    return Image.Image.getexif(picture).get(EXIF_ORIENTATION) in (5, 6, 7, 8)


def apply_orientation(picture):
    """Decode a picture and turn it as its EXIF data says."""
    if picture.format != 'TIFF':
        return ImageOps.exif_transpose(picture)
    upright_size = picture.size
    picture.filename = ''                           # else it is mapped into memory, and not turned
    picture.load()
    if picture.size != upright_size:
        raise ValueError('an orientation that Pillow cannot apply')
    return picture


def decode_map(path, size=None, colours=False, jpeg_allowed=True, colours_are_ids=False):
    """Open a label or instance map once, resize it by nearest neighbour, return it and its Header:
    ids, (H, W) integers of 1 to 64 bits, where a palette picture (mode P) stores ids as indices.
    colours: return colours, (H, W, 3) int32, unless `edit` saved the map. colours_are_ids: return
    the ids R << 16 | G << 8 | B of a map in colours. Raises UserError."""
    wrong = f'{path}: a map of ids has one channel of integers, this'
    with open_file(path) as (file, header):
        check_jpeg(header, path, jpeg_allowed)
        if colours and not header.is_saved_map:
            return photo_pixels(file, path, size, nearest=True).astype(np.int32), header
        if isinstance(file, np.ndarray):
            if file.shape[2] not in (1, 3) or file.dtype.kind not in 'iubf':
                raise UserError(f'{wrong} array has {file.shape[2]} of {file.dtype}')
            ids = one_channel(np.asarray(file), path, colours_are_ids)
            if ids is None:
                raise UserError(f'{wrong} array has {file.shape[2]} of {file.dtype}')
            return resize(ids, size, nearest=True), header
        if file.mode in ('RGB', 'RGBA', 'LA', 'F'):
            check_jpeg(header, path, jpeg_allowed and not colours_are_ids)
            with as_user_error(path, 'damaged'):
                pixels = np.atleast_3d(np.asarray(apply_orientation(file)))
            if (ids := one_channel(pixels, path, colours_are_ids)) is not None:
                return resize_labels(ids, size, path), header
        if file.mode not in ('1', 'L', 'P', 'I') and not file.mode.startswith('I;16'):
            raise UserError(f'{wrong} picture is {file.mode}; if its colours stand for labels, '
                            'train with --palette FILE')
        with as_user_error(path, 'damaged'):
            # Pillow stretches grey of 2 and 4 bits to 8, and only the mode in the file tells.
            stored_mode = str(file.tile[0].args) if file.tile and file.mode == 'L' else ''
            stretch = 85 if 'L;2' in stored_mode else 17 if 'L;4' in stored_mode else 1
            picture = apply_orientation(file)
            ids = np.asarray(picture.resize(size or picture.size, Image.Resampling.NEAREST))
            return ids // stretch if stretch > 1 else ids, header


def one_channel(pixels, path, colours_are_ids=False):
    """Return the ids (H, W) of pixels (H, W, C), int32, if they lose nothing by it: grey, opaque,
    or floats that are whole numbers; else None. colours_are_ids: see decode_map. Raises
    UserError."""
    if pixels.shape[2] in (2, 4):
        if (pixels[..., -1] != 255).any():
            return None
        pixels = pixels[..., :-1]
    if pixels.dtype.kind == 'f':
        low, high = float(pixels.min()), float(pixels.max())
        if not -2.0 ** 31 <= low <= high < 2.0 ** 31 or (pixels != np.floor(pixels)).any():
            raise UserError(f'{path}: a map of ids holds whole numbers, this one others, from '
                            f'{low:g} to {high:g}; write ids in place of measures')
        pixels = pixels.astype(np.int32)
    if pixels.shape[2] == 1 or (pixels == pixels[..., :1]).all():
        ids = pixels[..., 0]
    elif colours_are_ids and pixels.dtype == np.uint8:
        ids = pixels @ np.array([1 << 16, 1 << 8, 1], np.int32)
    else:
        return None
    return ids if ids.dtype.itemsize > 4 or ids.dtype == np.uint32 else ids.astype(np.int32)


def check_jpeg(header, path, allowed):
    """Raise UserError if a label map is stored as JPEG and that is not allowed."""
    if header.is_jpeg and not allowed:
        raise UserError(f'{path}: JPEG changes the values of labels; use PNG, or train with '
                        '--jpeg-labels, or with --palette FILE --palette-nearest for colours')


def read_map(path, size=None):
    """Return a label map that stores ids, (H, W) int32, resized by nearest neighbour."""
    return labels_as_int32(decode_map(path, size)[0], path)


def resize_labels(label, size, path):
    """Resize a label map (H, W) int32, read from `path`, to the same pixels as decode_map does."""
    if size is None or Path(path).suffix.lower() == '.npy':
        return resize(label, size, nearest=True)
    return np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))


def labels_as_int32(ids, path):
    """Return labels as int32. Raises UserError if one of them does not fit."""
    labels = ids.astype(np.int32)
    if not np.can_cast(ids.dtype, np.int32) and (labels != ids).any():
        raise UserError(f'{path}: ids from {ids.min()} to {ids.max()}; labels have at most 31 bits')
    return labels


def read_photo(path, size=None, channels=3):
    """Return a photograph, (H, W, channels), upright and resized bicubically with antialiasing:
    uint8, RGB or grey; or an array, uint8 or float32 in [-1, 1]. Raises UserError."""
    with open_file(path) as (file, _):
        return photo_pixels(file, path, size, channels)


def photo_pixels(file, path, size, channels=3, nearest=False):
    """Return the pixels of an open file as read_photo does; nearest: resize without blending."""
    if isinstance(file, np.ndarray):
        dtype = np.uint8 if file.dtype == np.uint8 else np.float32
        if file.shape[2] != channels or dtype == np.float32 and file.dtype.kind != 'f':
            raise UserError(f'{path}: {file.shape[2]} channels of {file.dtype}, expected '
                            f'{channels} of uint8, or float in [-1, 1]')
        with as_user_error(path), np.errstate(over='ignore'):       # infinity is refused below
            pixels = resize(np.array(file, dtype), size, nearest)
        if dtype == np.float32 and not np.abs(pixels).max() <= 1:
            raise UserError(f'{path}: float values must lie in [-1, 1]')
        return pixels
    if channels not in (1, 3):
        raise UserError(f'{path}: a picture, and only .npy files have {channels} channels')
    with as_user_error(path, 'damaged'):
        if size:                                    # JPEG: decode at a fraction where that suffices
            file.draft(None, size[::-1] if is_rotated(file) else size)
        picture = apply_orientation(file)
        if picture.mode in ('I', 'F') or picture.mode.startswith('I;16'):
            values, mode = np.asarray(picture), picture.mode
            low, high = values.min(), values.max()
            if mode == 'F' and 0 <= low <= high <= 1:
                values = (values * 255).round()
            elif mode.startswith('I;16') or (       # older Pillow opens PNG of 16 bits as 'I'
                    mode == 'I' and file.format != 'TIFF' and 0 <= low <= high < 1 << 16):
                values = values >> 8
            else:
                raise UserError(f'{path}: a photograph with {low:g} to {high:g}, not 8 or 16 bits')
            picture = Image.fromarray(values.astype(np.uint8))
        picture = picture.convert('RGB' if channels == 3 else 'L')
        method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
        return np.atleast_3d(np.asarray(picture.resize(size or picture.size, method)))


def map_in_threads(function, items, progress=lambda done: None):
    """Return [function(item) for item in items], in a thread per core; call progress(done)."""
    results = []
    with ThreadPoolExecutor(count_cores()) as pool:
        for result in pool.map(function, items):
            results.append(result)
            progress(len(results))
    return results
