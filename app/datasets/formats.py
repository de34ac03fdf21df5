"""File formats of pictures: those that are read, and what Pillow changes or leaves out of them."""
from contextlib import suppress
import logging
import re
import sys
import warnings

import numpy as np
from PIL import Image, ImageOps, ImagePalette, PngImagePlugin, TiffImagePlugin

from app.common.console import plural, warn_once
from app.common.errors import UserError

FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP')    # for EPS, Pillow would run another program
SUFFIXES = ('.png', '.jpg', '.jpeg', '.jfif', '.jpe', '.bmp', '.tif', '.tiff', '.webp', '.npy')
# Endings of pictures that are not read, and how files of such formats begin, from which byte on.
OTHER_SUFFIXES = ('.heic .heif .avif .jp2 .j2k .jpx .jxl .gif .ppm .pgm .pbm .pnm .psd .svg .eps '
                  '.pdf .exr .hdr .dng .cr2 .cr3 .nef .arw .raw .tga .ico .dcm .nii .gz .xcf '
                  '.dds .mat .npz').split()
SIGNATURES = ((4, b'ftypavif', 'AVIF'), (4, b'ftypavis', 'AVIF'), (4, b'ftyphe', 'HEIC'),
              (4, b'ftypmif1', 'HEIC'), (4, b'ftypmsf1', 'HEIC'), (4, b'jP  ', 'JPEG 2000'),
              (0, b'\xff\x4f\xff\x51', 'JPEG 2000'), (0, b'GIF8', 'GIF'), (0, b'8BPS', 'Photoshop'),
              (0, b'\xff\x0a', 'JPEG XL'), (4, b'JXL ', 'JPEG XL'), (0, b'%PDF', 'PDF'),
              (0, b'%!PS', 'EPS'), (0, b'<svg', 'SVG'), (0, b'v/1\x01', 'OpenEXR'),
              (0, b'gimp xcf', 'GIMP'), (128, b'DICM', 'DICOM'),
              *((0, b'P%d' % i, 'PPM') for i in range(1, 8)), (0, b'\x00\x00\x01\x00', 'ICO'))
NOT_READ = 'format not read: convert it to PNG (photographs: or to JPEG)'
EXIF_ORIENTATION = 0x0112
# Fields of TIFF.
SUBFILE_TAG, BITS_TAG, PHOTOMETRIC_TAG, BANDS_TAG = 254, 258, 262, 277
EXTRA_SAMPLES_TAG, SAMPLE_FORMAT_TAG, SIGNED = 338, 339, 2
LOW_BYTE = {'B': 'L', 'L': 'B', 'N': 'B' if sys.byteorder == 'little' else 'L'}

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


def refuse_known(path):
    """Raise UserError for a file that Pillow does not read if its beginning tells what it is."""
    with open(path, 'rb') as file:
        start = file.read(200)
        if start[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
            refuse_tiff(path, file, start)
    if not start.strip(b'\0'):
        raise UserError(f'{path}: cannot be read as a picture (the file '
                        f'{"begins with zeros" if start else "is empty"}); copy it again')
    if start.startswith(b'version https://git-lfs'):
        raise UserError(f'{path}: only the pointer of Git LFS; git lfs pull fetches the picture')
    if re.match(rb'\s*<(!doctype html|html)', start, re.IGNORECASE):
        raise UserError(f'{path}: a web page, not a picture; download it again')
    for offset, signature, name in SIGNATURES:
        if start[offset:].startswith(signature):
            raise UserError(f'{path}: {name}, {NOT_READ}')


def refuse_tiff(path, file, start):
    """Raise UserError for an open TIFF that begins with `start`: what is in it."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(start[:16] if b'+' in start[:4] else start[:8])
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


def keep_bmp_indices(picture):
    """Let Pillow read the indices of an open BMP of 4 or 8 bits whose palette is grey. It takes
    them for pixels of 1 or 8 bits."""
    if picture.format != 'BMP' or picture.mode not in ('1', 'L') or not picture.tile:
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


def is_rotated(picture):
    """Whether the EXIF orientation of a picture swaps width and height."""
    # PngImageFile.getexif would decode the picture, to look for EXIF data behind the pixels.
    return Image.Image.getexif(picture).get(EXIF_ORIENTATION) in (5, 6, 7, 8)


def has_alpha(picture):
    """Whether pixels of an open picture may be transparent."""
    if picture.format == 'TIFF' and EXTRA_SAMPLES_TAG not in picture.tag_v2:
        return False                                # a fourth band need not be alpha
    return picture.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in picture.info


def raw_mode(picture):
    """Return Pillow's name of how a picture that is not decoded yet stores its pixels: 'L;2I'."""
    args = picture.tile[0].args if picture.tile else ''
    return args if isinstance(args, str) else str((args or [''])[0])


def replace_raw_mode(picture, raw):
    """Let Pillow decode an open picture as if it stored its pixels in another way."""
    picture.tile = [tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:]))
                    for tile in picture.tile]


def is_deep(picture):
    """Whether an open picture, not decoded yet, has 16 unsigned bits a channel."""
    return picture.mode.startswith('I;16') or (
        picture.mode in ('RGB', 'RGBA') and ';16' in raw_mode(picture))


def apply_orientation(picture):
    """Decode a picture and turn it as its EXIF data says."""
    if picture.format != 'TIFF':
        ImageOps.exif_transpose(picture, in_place=True)         # without a copy
        return picture
    upright_size = picture.size
    picture.filename = ''                           # else it is mapped into memory, and not turned
    picture.load()
    if picture.size != upright_size:
        raise ValueError('an orientation that Pillow cannot apply')
    return picture


def deep_pixels(picture):
    """Return the pixels of a picture with is_deep, upright: (H, W, C) uint16, where C is 1, 2 (with
    alpha), 3 or 4 (with alpha)."""
    raw, path = raw_mode(picture), picture.filename
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


def stored_ids(picture, decoder=2):
    """Return a function that turns the pixels of Pillow into the numbers that a file stores, for a
    picture of one channel that is not decoded yet. decoder: see pairs.DECODER."""
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


def transparent_ids(picture):
    """Return the stored numbers of an open picture of one channel that are transparent, a tuple."""
    alpha = picture.info.get('transparency', ())
    return (alpha,) if isinstance(alpha, int) else tuple(
        i for i, value in enumerate(alpha) if value == 0)


def is_white_zero(picture):
    """Whether an open picture is a TIFF where 0 is white."""
    return picture.format == 'TIFF' and picture.tag_v2.get(PHOTOMETRIC_TAG) == 0


def lossy_format(path, picture):
    """Return 'JPEG' or 'lossy WebP' if an open picture has this format, which changes pixel values;
    otherwise ''. A TIFF may contain JPEG."""
    if picture.format != 'WEBP':
        compression = str(picture.info.get('compression'))
        return 'JPEG' * (picture.format in ('JPEG', 'MPO') or 'jpeg' in compression)
    with open(path, 'rb') as file:
        file.seek(12)
        while len(start := file.read(8)) == 8 and start[:4] not in (b'VP8 ', b'VP8L'):
            size = int.from_bytes(start[4:], 'little')
            file.seek(16 if start[:4] == b'ANMF' else size + size % 2, 1)   # a frame holds chunks
    return 'lossy WebP' * (start[:4] != b'VP8L')
