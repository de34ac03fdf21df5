"""Decode pictures, .npy arrays and parts of .mat files into ndarrays. Sizes: (width, height)."""
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
import importlib
import logging
from pathlib import Path
import re
import sys
import warnings

import numpy as np
from PIL import (Image, ImageOps, ImagePalette, PngImagePlugin, TiffImagePlugin,
                 UnidentifiedImageError)

from app.common.console import plural, warn_once
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
# Fields of TIFF.
SUBFILE_TAG, BITS_TAG, PHOTOMETRIC_TAG, BANDS_TAG = 254, 258, 262, 277
EXTRA_SAMPLES_TAG, SAMPLE_FORMAT_TAG, SIGNED = 338, 339, 2
LOW_BYTE = {'B': 'L', 'L': 'B', 'N': 'B' if sys.byteorder == 'little' else 'L'}
DARK = 1 << 13                      # 16 bits with nothing above this look black
SAVED_MAP_KEY = 'p2phd'             # a text in PNG files that marks maps saved by `edit`

Image.MAX_IMAGE_PIXELS = 1 << 27    # Pillow refuses pictures with more than twice as many pixels
warnings.filterwarnings('ignore', module='PIL')     # whatever matters raises an exception
logging.getLogger('PIL').addHandler(logging.NullHandler())      # or it prints to stderr



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
# changed its values. is_saved_map: whether `edit` saved it, so that it holds labels. is_deep:
# whether it has 16 bits a channel. has_alpha: whether pixels may be transparent. table: the
# colours of the indices of a decoded map, R, G, B after R, G, B.
Header = namedtuple('Header', 'size channels is_jpeg is_saved_map is_deep has_alpha table',
                    defaults=(*(False,) * 4, None))


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
                    require_known_tiff(path)
                    refuse_other_format(path)
                    raise
                if picture.format == 'BMP':
                    keep_bmp_indices(picture)
                note_what_is_left_out(path, picture)
                kind, info, mode = picture.format, picture.info, picture.mode
                channels = 1 if mode in ('1', 'L', 'LA', 'I', 'F') or 'I;16' in mode else 3
                rotated = is_rotated(picture) and kind != 'TIFF'        # TIFF has the upright size
                is_jpeg = kind in ('JPEG', 'MPO') or 'jpeg' in str(info.get('compression'))
                header = Header(picture.size[::-1] if rotated else picture.size, channels, is_jpeg,
                                kind == 'PNG' and info.get(SAVED_MAP_KEY) == 'ids',
                                is_deep(picture), has_alpha(picture))
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


def raw_mode(picture):
    """Return Pillow's name of how a picture that is not decoded yet stores its pixels: 'L;2I'."""
    args = picture.tile[0].args if picture.tile else ''
    return args if isinstance(args, str) else str((args or [''])[0])


def is_deep(picture):
    """Whether an open picture, not decoded yet, has 16 unsigned bits a channel."""
    return picture.mode.startswith('I;16') or (
        picture.mode in ('RGB', 'RGBA') and ';16' in raw_mode(picture))


def deep_pixels(path, picture):
    """Return the pixels of a picture with is_deep, upright: (H, W, C) uint16, where C is 1, 2 (with
    alpha), 3 or 4 (with alpha)."""
    raw = raw_mode(picture)
    if picture.mode.startswith('I;16'):
        return np.asarray(apply_orientation(picture)).astype(np.uint16)[..., None]
    if raw == 'LA;16B':                             # the same bytes
        replace_raw_mode(picture, 'RGBA')
        pixels = np.asarray(apply_orientation(picture)).astype(np.uint16)
        return pixels[..., ::2] << 8 | pixels[..., 1::2]
    high = low = np.asarray(apply_orientation(picture)).astype(np.uint16)   # all that Pillow takes
    if 'a;' not in raw:                             # not premultiplied
        with Image.open(path, formats=FORMATS) as second:
            replace_raw_mode(second, raw[:-1] + LOW_BYTE[raw[-1]])
            low = np.asarray(apply_orientation(second))
    return high << 8 | low


def require_known_tiff(path):
    """Raise UserError if a file is a TIFF. Pillow does not read it, which is said, and why."""
    with open(path, 'rb') as file:
        start = file.read(16)
        if start[:4] not in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
            return
        tags = TiffImagePlugin.ImageFileDirectory_v2(start if b'+' in start[:4] else start[:8])
        file.seek(tags.next)
        tags.load(file)
    bands, bits, kind = (np.atleast_1d(tags.get(tag, 1))[0] for tag in (
        BANDS_TAG, BITS_TAG, SAMPLE_FORMAT_TAG))
    kind = {1: '', 2: ' with a sign', 3: ', floats'}.get(int(kind), '')
    raise UserError(f'{path}: a TIFF with {plural(int(bands), "band")} of {bits} bits{kind}, which '
                    'Pillow does not read; save it as .npy, an array (height, width, channels)')


def note_what_is_left_out(path, picture):
    """Say once that pages or bands of an open picture are not read. Smaller copies of the first
    page, and masks, are no pages."""
    if picture.format in ('JPEG', 'MPO', 'BMP'):    # MPO: of phones, with a second view
        return
    pages = getattr(picture, 'n_frames', 1) if picture.format != 'TIFF' else 1
    if picture.format == 'TIFF' and picture.tag_v2.next:     # a second page, perhaps damaged
        with suppress(Exception), Image.open(path, formats=FORMATS) as other:
            for i in range(1, other.n_frames):
                other.seek(i)
                pages += not other.tag_v2.get(SUBFILE_TAG, 0) & 5
    if pages > 1:
        warn_once('pages', f'note: {path}: the first of {pages} pages is read; a .npy array of '
                  'shape (height, width, channels) holds all')
    if picture.format != 'TIFF':
        return
    read, bands = len(picture.getbands()), picture.tag_v2.get(BANDS_TAG, 1)
    if picture.mode == 'RGBA' and not has_alpha(picture):
        read = 3                                    # the fourth is not said to be alpha
    if bands > read:
        warn_once('bands', f'note: {path}: the first {read} of {bands} bands are read; a .npy '
                  'array of shape (height, width, channels) holds all')


def split_alpha(pixels):
    """Return the first 1 or 3 channels of (H, W, 1 to 4), and alpha, (H, W, 0 or 1)."""
    channels = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    return pixels[..., :channels], pixels[..., channels:]


def replace_raw_mode(picture, raw):
    """Let Pillow decode an open picture as if it stored its pixels in another way."""
    picture.tile = [tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:]))
                    for tile in picture.tile]


def keep_bmp_indices(picture):
    """Let Pillow read the indices of an open BMP of 4 or 8 bits whose palette is grey. It takes
    them for pixels of 1 or 8 bits."""
    if picture.mode not in ('1', 'L') or not picture.tile:
        return
    picture.fp.seek(14)
    header = picture.fp.read(18)
    bits = header[10 if header[0] == 12 else 14]            # of OS/2, and of Windows
    if bits == 4 or bits == 8 and picture.mode == '1':
        tile, greys = picture.tile[0], [0, 255] if picture.mode == '1' else range(16)
        picture._mode = 'P'
        picture.palette = ImagePalette.raw('RGB', bytes(v for v in greys for _ in 'RGB'))
        if tile.codec_name == 'raw':
            picture.tile = [tile._replace(args=({4: 'P;4', 8: 'P'}[bits], *tile.args[1:]))]


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


def decode_map(path, size=None, colours=False, jpeg_allowed=True, colours_are_ids=False,
               decoder=2):
    """Open a label or instance map once, resize it by nearest neighbour, return it and its Header:
    ids, (H, W) integers of 1 to 64 bits, where a palette picture (mode P) stores ids as indices.
    colours: return colours, (H, W, 3) int32, unless `edit` saved the map. colours_are_ids: return
    the ids R << 16 | G << 8 | B of a map in colours. decoder: see pairs.DECODER. Raises
    UserError."""
    wrong = f'{path}: a map of ids has one channel of integers, this'
    with open_file(path) as (file, header):
        check_jpeg(header, path, jpeg_allowed)
        if colours and not header.is_saved_map:
            return photo_pixels(file, path, size, nearest=True,
                                decoder=decoder).astype(np.int32), header
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
            restore = stored_ids(file, decoder)
            picture = apply_orientation(file)
            ids = np.asarray(picture.resize(size or picture.size, Image.Resampling.NEAREST))
            if picture.mode == 'P':
                header = header._replace(table=bytes(picture.getpalette() or ()))
            return restore(ids), header


def stored_ids(picture, decoder=2):
    """Return a function that turns the pixels of Pillow into the numbers that a file stores, for
    a picture of one channel that is not decoded yet. decoder: see pairs.DECODER."""
    mode, raw = picture.mode, raw_mode(picture)
    # Pillow stretches grey of 2 and 4 bits to 8, and only the mode in the file tells.
    stretch = 85 if raw.startswith('L;2') else 17 if raw.startswith('L;4') else 1
    if decoder > 1 and picture.format == 'TIFF':
        if re.fullmatch(r'[1L];[24]?IR?', raw):             # 0 is white
            return (lambda ids: ~ids) if mode == '1' else lambda ids: (255 - ids) // stretch
        signed = SIGNED in np.atleast_1d(picture.tag_v2.get(SAMPLE_FORMAT_TAG, 1))
        if mode == 'L' and signed:
            return lambda ids: ids.view(np.int8)
        if raw == 'I;32N' and not signed:
            return lambda ids: ids.view(np.uint32)
    return lambda ids: ids // stretch if stretch > 1 else ids


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


def read_photo(path, size=None, channels=3, decoder=2, white=None):
    """Return a photograph, (H, W, channels), upright and resized bicubically with antialiasing:
    uint8, RGB or grey; or an array, uint8 or float32 in [-1, 1]. decoder: see pairs.DECODER.
    white: what is white in a picture of 16 bits; None: 65535. Raises UserError."""
    with open_file(path) as (file, _):
        return photo_pixels(file, path, size, channels, decoder=decoder, white=white)


def read_deep(path):
    """Return the values of a picture whose Header says is_deep, (H, W, 1 or 3) uint16."""
    with open_file(path) as (file, _), as_user_error(path, 'damaged'):
        return split_alpha(deep_pixels(path, file))[0]


def deep_to_bytes(path, picture, white):
    """Return a picture with is_deep as a PIL.Image of 8 bits. white: see read_photo."""
    inverted = getattr(picture, 'tag_v2', {}).get(PHOTOMETRIC_TAG) == 0
    pixels = deep_pixels(path, picture)
    values, alpha = split_alpha(pixels)
    if white is None:
        if values.max() < DARK:
            warn_once('dark', f'note: {path}: its 16 bits hold 0 to {values.max()}, which is '
                      'nearly black; store it so that white is 65535, or as .npy')
        values = values >> 8
    else:
        if values.max() > white:
            warn_once('bright', f'note: {path}: its 16 bits hold values up to {values.max()}; all '
                      f'above {white}, the maximum of the training pictures, become white')
        values = (np.minimum(values, white).astype(np.float32) * (255 / white)).round()
    values = 255 - values if inverted else values
    if alpha.shape[2]:
        values = np.concatenate([np.broadcast_to(values, (*values.shape[:2], 3)), alpha >> 8], 2)
    values = values.astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def has_alpha(picture):
    """Whether pixels of an open picture may be transparent."""
    if picture.format == 'TIFF' and EXTRA_SAMPLES_TAG not in picture.tag_v2:
        return False                                # a fourth band need not be alpha
    return picture.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in picture.info


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


def deep_colours(path, picture):
    """Return the colours of a label map with is_deep as (H, W, 3 or 4) uint8, of the one byte that
    tells all of them. Raises UserError where there is none."""
    pixels = deep_pixels(path, picture)
    values, alpha = split_alpha(pixels)
    high, low = values >> 8, values & 255
    if (high == low).all() or not low.any():
        colours = high
    elif not high.any():
        colours = low
    else:
        y, x = np.argwhere((high != low).any(2) & low.any(2))[0]
        raise UserError(f'{path}: colours of 16 bits, {",".join(map(str, values[y, x]))} at x={x}, '
                        f'y={y}; save the map with 8 bits, or its ids with one channel of 16')
    colours = np.broadcast_to(colours, (*colours.shape[:2], 3))
    return np.concatenate([colours, alpha >> 8], 2).astype(np.uint8)


def require_opaque(picture, path):
    """Raise UserError where pixels of a decoded label map are transparent. The same transparency
    everywhere is only how it is shown."""
    alpha = np.asarray(picture.convert('RGBA'))[..., 3]
    if not alpha.min() == alpha.max() > 0:
        y, x = np.argwhere(alpha == alpha.min())[0]
        raise UserError(f'{path}: transparent at x={x}, y={y}; paint these pixels in the colour '
                        'of their label, or in one for unknown ones that the palette lists')


def photo_pixels(file, path, size, channels=3, nearest=False, decoder=2, white=None):
    """Return the pixels of an open file as read_photo does; nearest: of a label map in colours,
    which is resized without blending."""
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
        if decoder > 1 and is_deep(file):
            picture = (Image.fromarray(deep_colours(path, file)) if nearest
                       else deep_to_bytes(path, file, white))
        else:
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
        if decoder > 1 and has_alpha(picture):
            if nearest:
                require_opaque(picture, path)
            else:
                picture = composite_on_white(picture, path)
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
