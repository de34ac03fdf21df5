"""Files as people's programs write them: the networks get the values that were meant, or a line
says what is wrong. Each test is a table of cases and their relatives."""
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from app.common import console
from app.common.config import with_defaults
from app.datasets import inspection, layouts, scenes
from app.datasets.pairs import PairReader, open_dataset
from app.editor import scene_files
from conftest import BARE, TINY, examine
from data import connected_components

SIDE = 64


def labels(values=(0, 1, 2, 3)):
    """Blocks of 16x16 pixels with these values, (64, 64)."""
    blocks = np.resize(values, 17)[(np.arange(4)[:, None] * 5 + np.arange(4)) % 17]
    return np.kron(blocks, np.ones((16, 16), int))


def photo(channels=3):
    """A smooth picture, (64, 64, channels) uint8."""
    y, x = np.mgrid[:SIDE, :SIDE] * 255 / (SIDE - 1)
    return np.stack([x, y, (x + y) / 2, 255 - x][:channels], -1).round().astype(np.uint8)


def save(path, array, mode=None, **options):
    """Write an array by Pillow (as 'a.png'), or as .npy. mode: convert to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, array)
    else:
        picture = Image.fromarray(np.asarray(array))
        (picture.convert(mode) if mode else picture).save(path, **options)


def flat(root, label, image=None, inst=None, names='ab', endings=('.png', '.png', '.png')):
    """Write pairs into the flat layout. label, image, inst: arrays, the same for each name, or
    functions of a path that write it."""
    for name in names:
        for role, what, ending in zip(('label', 'img', 'inst'), (label, image, inst), endings):
            path = root / f'train_{role}' / f'{name}{ending}'
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(what):
                what(path)
            elif what is not None:
                save(path, what)
            elif role == 'img':
                save(path, photo())
    return root


def write_pictures(folder, role, ending, write):
    """Write two pairs of pictures into train_A/ and train_B/: those of one role, 'A' or 'B', with
    write(path), the others as photographs."""
    for n in 'ab':
        for other in 'AB':
            path = folder / f'train_{other}' / f'{n}{ending if other == role else ".png"}'
            path.parent.mkdir(exist_ok=True)
            write(path) if other == role else save(path, photo())


def read(root, **flags):
    """Return the arrays of each pair that a new run reads, and the result of inspect_dataset."""
    console.warned_subjects.clear()
    contents = examine(root, **flags)
    assert not contents.problems, contents.problems
    return [PairReader(contents)(pair) for pair in contents.pairs], contents


# ------------------------------------------------------------------------------------ file formats

def pack_bits(values, bits):
    """Pack (H, W[, C]) integers into rows of `bits` bits a value: (H, bytes) uint8."""
    values = np.asarray(values).reshape(len(values), -1)
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((values[..., None] >> places & 1).astype(np.uint8).reshape(len(values), -1),
                       axis=1)


def write_tiff(path, values, bits=8, photometric=1, sample_format=None, order='<', reverse=False,
               extra=None, colours=None, kind=None):
    """Write a TIFF without compression, as the fields of its format say. kind: numpy's, for whole
    bytes. reverse: FillOrder 2. extra: ExtraSamples. colours: (2 ** bits, 3), a colour map."""
    values = np.asarray(values)
    height, width, *samples = values.shape
    samples = samples[0] if samples else 1
    if kind:
        rows = values.astype(order + kind).tobytes()
    else:
        rows = pack_bits(values, bits)
        rows = (np.packbits(np.unpackbits(rows, axis=1).reshape(height, -1, 8)[..., ::-1])
                if reverse else rows).tobytes()
    tags = {256: [width], 257: [height], 258: [bits] * samples, 259: [1], 262: [photometric],
            273: [0], 277: [samples], 278: [height], 279: [len(rows)]}
    if reverse:
        tags[266] = [2]
    if colours is not None:
        tags[320] = (np.asarray(colours, int) * 257).T.ravel().tolist()
    if extra is not None:
        tags[338] = extra
    if sample_format:
        tags[339] = [sample_format] * samples
    place, outside, entries = 8 + 2 + 12 * len(tags) + 4, b'', b''
    for tag, numbers in sorted(tags.items()):
        kind = 'I' if tag in (273, 279) else 'H'
        blob = struct.pack(f'{order}{len(numbers)}{kind}', *numbers)
        if len(blob) > 4:
            blob, outside = struct.pack(order + 'I', place + len(outside)), outside + blob
        tags[tag] = (4 if kind == 'I' else 3, len(numbers), blob.ljust(4, b'\0'))
    tags[273] = (4, 1, struct.pack(order + 'I', place + len(outside)))
    for tag, (kind, count, blob) in sorted(tags.items()):
        entries += struct.pack(order + 'HHI', tag, kind, count) + blob
    path.write_bytes({'<': b'II', '>': b'MM'}[order] + struct.pack(order + 'HIH', 42, 8, len(tags))
                     + entries + bytes(4) + outside + rows)


def write_bmp(path, values, bits, palette):
    """Write a Windows BMP of indices into a palette of (R, G, B)."""
    rows = pack_bits(values, bits)[::-1]
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    colours = b''.join(bytes([b, g, r, 0]) for r, g, b in palette)
    path.write_bytes(b'BM' + struct.pack('<IHHI', 54 + len(colours) + len(rows), 0, 0,
                                         54 + len(colours))
                     + struct.pack('<IiiHHIIiiII', 40, values.shape[1], values.shape[0], 1, bits, 0,
                                   len(rows), 0, 0, len(palette), 0) + colours + rows)


def write_png(path, values, bits, colour_type, chunks=()):
    """Write a PNG. chunks: (name, bytes) before the pixels."""
    rows = pack_bits(values, bits)
    rows = np.pad(rows, ((0, 0), (1, 0))).tobytes()
    head = struct.pack('>IIBBBBB', values.shape[1], values.shape[0], bits, colour_type, 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(blob)) + name + blob + struct.pack('>I', zlib.crc32(name + blob))
        for name, blob in ((b'IHDR', head), *chunks, (b'IDAT', zlib.compress(rows)),
                           (b'IEND', b''))))


# ------------------------------------------------------------------- ids are what the files store

GREYS = [(i, i, i) for i in range(256)]
COLOURS = [(37 * i % 256, 91 * i % 256, 255 - i) for i in range(256)]


def tiff(**options):
    return lambda path, ids: write_tiff(path, ids, **options)


def inverted(**options):
    """Pillow turns the values over when it writes such a TIFF."""
    return lambda path, ids: save(path, (255 - ids).astype(np.uint8), tiffinfo={262: 0}, **options)


def inverted_bits(path, ids):
    Image.fromarray(ids == 0).save(path, tiffinfo={262: 0}, compression='group4')


def bmp(bits, palette):
    return lambda path, ids: write_bmp(path, ids, bits, palette)


def png(bits, colour_type, *chunks):
    return lambda path, ids: write_png(path, ids, bits, colour_type, chunks)


def plte(n, colours=COLOURS):
    return b'PLTE', bytes(value for colour in colours[:n] for value in colour)


GAMMA, PROFILE = (b'gAMA', struct.pack('>I', 100000)), (b'sRGB', b'\0')
STORED = {
    'tiff': (tiff(), 4), 'tiff white is 0': (tiff(photometric=0), 4),
    **{f'tiff {bits} bits{" white is 0" * (not p)}{" reversed" * r}{" MM" * (order == ">")}': (
        tiff(bits=bits, photometric=p, reverse=r, order=order), min(4, 1 << bits))
       for bits in (1, 2, 4, 8) for p in (0, 1) for r in (False, True) for order in '<>'
       if p or bits < 8 or not r},                  # Pillow refuses 8 bits reversed
    **{f'tiff palette {bits} bits{" reversed" * r}': (tiff(
        bits=bits, photometric=3, colours=COLOURS[:1 << bits], reverse=r), min(4, 1 << bits))
       for bits in (1, 2, 4, 8) for r in (False, True) if bits == 8 or not r},
    **{f'tiff white is 0 {name}': (inverted(compression=name), 4)
       for name in ('tiff_lzw', 'packbits', 'tiff_adobe_deflate', 'raw')},
    'tiff white is 0 group4': (inverted_bits, 2),
    'tiff 12 bits': (tiff(bits=12), 4),
    'tiff 16 bits': (tiff(bits=16, kind='u2'), 4),
    'tiff 16 bits MM': (tiff(bits=16, kind='u2', order='>'), 4),
    'tiff 16 bits white is 0': (tiff(bits=16, kind='u2', photometric=0), 4),
    'tiff 16 bits signed': (tiff(bits=16, kind='i2', sample_format=2), 4),
    'tiff 16 bits signed MM': (tiff(bits=16, kind='i2', sample_format=2, order='>'), 4),
    'tiff 8 bits signed': (tiff(kind='i1', sample_format=2), 4),
    'tiff 32 bits': (tiff(bits=32, kind='u4', sample_format=1), 4),
    'tiff 32 bits signed': (tiff(bits=32, kind='i4', sample_format=2), 4),
    'tiff 32 bits signed MM': (tiff(bits=32, kind='i4', sample_format=2, order='>'), 4),
    **{f'bmp {bits} bits, {n} {name}': (bmp(bits, palette[:n]), min(4, n))
       for bits in (1, 4, 8) for n in (2, 4, 16, 256) for name, palette in (
           ('greys', [(0,) * 3, (255,) * 3] if n == 2 else GREYS), ('colours', COLOURS),
           ('greys backwards', GREYS[::-1])) if n <= 1 << bits},
    **{f'png {bits} bits': (png(bits, 0), min(4, 1 << bits)) for bits in (1, 2, 4, 8, 16)},
    **{f'png {bits} bits, gamma': (png(bits, 0, GAMMA, PROFILE), min(4, 1 << bits))
       for bits in (1, 2, 4, 8, 16)},
    **{f'png {bits} bits, a transparent value': (png(bits, 0, (b'tRNS', b'\0\1')), 4)
       for bits in (2, 4, 8, 16)},
    **{f'png palette {bits} bits': (png(bits, 3, GAMMA, plte(1 << bits), (b'tRNS', b'\0\xff')),
                                    min(4, 1 << bits)) for bits in (1, 2, 4, 8)},
    'png palette of greys backwards': (png(8, 3, plte(256, GREYS[::-1])), 4)}


@pytest.mark.parametrize('name', STORED)
def test_ids_are_the_numbers_in_the_file(name, tmp_path):
    write, n = STORED[name]
    ids, ending = labels(range(n)), '.' + name.split()[0]
    flat(tmp_path, lambda path: write(path, ids), inst=lambda path: write(path, ids),
         endings=(ending, '.png', ending))
    items, contents = read(tmp_path)
    assert contents.n_labels == n
    for item in items:
        assert np.array_equal(item['label'], ids)
        assert np.array_equal(item['inst'], ids)
    larger = PairReader(contents, (128, 128))(contents.pairs[0])
    assert np.array_equal(larger['label'][1::2, 1::2], ids)


@pytest.mark.parametrize('options, ids', [
    (dict(bits=8, kind='i1', sample_format=2), (-1, 0, 1)),
    (dict(bits=16, kind='i2', sample_format=2), (-1, 0, 1)),
    (dict(bits=16, kind='i2', sample_format=2, order='>'), (-2, 0, 1)),
    (dict(bits=32, kind='i4', sample_format=2), (-1, 0, 1)),
    (dict(bits=32, kind='u4', sample_format=1), (1, 3 << 30)),
    (dict(bits=8, kind='i1', sample_format=2), (-128, 127))])
def test_ids_out_of_bounds_are_named_as_they_are(options, ids, tmp_path):
    flat(tmp_path, lambda path: write_tiff(path, labels(ids), **options), endings=('.tif', '.png'))
    problems = examine(tmp_path).problems
    assert len(problems) == 2
    for problem in problems.values():
        assert f'from {min(ids)} to {max(ids)}' in problem


@pytest.mark.parametrize('options', [
    dict(photometric=0), dict(bits=2, photometric=0), dict(bits=4, photometric=0),
    dict(bits=1, photometric=0), dict(kind='i1', sample_format=2)])
def test_a_run_of_before_keeps_its_ids(options, tmp_path):
    n = 2 if options.get('bits') == 1 else 4
    flat(tmp_path, lambda path: write_tiff(path, labels(range(n)), **options),
         endings=('.tif', '.png'))
    contents = examine(tmp_path, n_labels=256)
    contents.decoder = 1                            # what with_defaults gives to a run of before
    factor = {1: 1, 2: 85, 4: 17}.get(options.get('bits'), 1)
    largest = 1 if n == 2 else 255 // factor
    before = labels(range(n)) if 'kind' in options else (
        largest - labels(range(n)) if n == 2 else (255 - factor * labels()) // factor)
    item = PairReader(contents)(contents.pairs[0])
    assert np.array_equal(item['label'], before)


# ---------------------------------------------------------------------------------------- alpha

def strokes():
    """The alpha of drawn lines, (64, 64) uint8: some opaque, some half, most nothing."""
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[8:12], alpha[:, 30:33], alpha[40:44, 10:50] = 255, 255, 128
    return alpha


def on_white(colours, alpha):
    return np.rint(colours * (alpha[..., None] / 255) + 255 - alpha[..., None].astype(float))


def rgba(colours, alpha):
    return np.dstack([colours, alpha])


INK = np.zeros((SIDE, SIDE, 3), np.uint8)


def palette_with_alpha(path):
    picture = Image.fromarray(np.where(strokes() > 200, 1, 0).astype(np.uint8)).convert('P')
    picture.putpalette([0, 0, 0, 0, 0, 0])
    picture.save(path, transparency=0)


def grey_with_colour_key(path):
    Image.fromarray(np.where(strokes() > 200, 1, 0).astype(np.uint8)).save(path, transparency=0)


def deep_grey_alpha(path):
    pixels = np.dstack([np.zeros((SIDE, SIDE), int), strokes().astype(int) * 257])
    write_png(path, pixels, 16, 4)


BINARY = np.where(strokes() > 200, 255, 0)
DRAWN = {                                           # what writes it, the ending, what is seen
    'RGBA': (lambda path: save(path, rgba(INK, strokes())), '.png', on_white(INK, strokes())),
    'RGBA, hidden colours': (lambda path: save(path, rgba(photo(), strokes())), '.png',
                             on_white(photo(), strokes())),
    'opaque': (lambda path: save(path, rgba(photo(), np.full((SIDE, SIDE), 255, np.uint8))),
               '.png', photo()),
    'LA': (lambda path: save(path, np.dstack([INK[..., 0], strokes()])), '.png',
           on_white(INK, strokes())),
    'LA of 16 bits': (deep_grey_alpha, '.png', on_white(INK, strokes())),
    'palette': (palette_with_alpha, '.png', np.repeat(255 - BINARY[..., None], 3, 2)),
    'colour key': (grey_with_colour_key, '.png', np.where(BINARY[..., None], [1, 1, 1], 255)),
    'RGBA of 16 bits': (lambda path: write_png(path, rgba(photo(), strokes()).astype(int) * 257, 16,
                                               6), '.png', on_white(photo(), strokes())),
    'WebP': (lambda path: save(path, rgba(INK, strokes()), lossless=True, exact=True), '.webp',
             on_white(INK, strokes())),
    'TIFF': (lambda path: save(path, rgba(photo(), strokes())), '.tif',
             on_white(photo(), strokes())),
    'TIFF, LZW': (lambda path: save(path, rgba(photo(), strokes()), compression='tiff_lzw'), '.tif',
                  on_white(photo(), strokes()))}


@pytest.mark.parametrize('role', 'AB')
@pytest.mark.parametrize('name', DRAWN)
def test_transparent_pictures_show_white(name, role, tmp_path, capsys):
    write, ending, seen = DRAWN[name]
    write_pictures(tmp_path, role, ending, write)
    items, contents = read(tmp_path)
    for item in items:
        array = item['label' if role == 'A' else 'image']
        assert np.abs(array.astype(int) - seen).max() <= 1
    assert capsys.readouterr().err.count('shown on white') == (name != 'opaque')
    contents.decoder = 1                            # a run of before
    hidden = PairReader(contents)(contents.pairs[0])['label' if role == 'A' else 'image']
    assert name == 'opaque' or np.abs(hidden.astype(int) - seen).max() > 100


@pytest.mark.parametrize('mode, ending', [('RGBA', '.png'), ('LA', '.png'), ('RGBA', '.tif'),
                                          ('RGBA', '.webp'), ('P', '.png'), ('key', '.png')])
@pytest.mark.parametrize('alpha', [0, 100, 255, 'everywhere 100'])
def test_label_maps_in_colours_are_opaque(mode, ending, alpha, tmp_path):
    palette = tmp_path / 'palette.csv'
    palette.write_text('\n'.join(f'{60 * i},{60 * i},{60 * i},{i}' for i in range(4)))
    grey = (labels() * 60).astype(np.uint8)
    rubbed = np.full((SIDE, SIDE), 255, np.uint8)
    rubbed[() if alpha == 'everywhere 100' else np.s_[5:9, 5:9]] = 100 if isinstance(
        alpha, str) else alpha

    def write(path):
        if mode in ('P', 'key'):
            picture = Image.fromarray(grey) if mode == 'key' else Image.fromarray(
                labels().astype(np.uint8)).convert('P')
            if mode == 'P':
                picture.putpalette([60 * i for i in range(4) for _ in 'RGB'])
            picture.save(path, **({'transparency': 0} if alpha == 0 else {}))
        elif mode == 'LA':
            save(path, np.dstack([grey, rubbed]))
        else:
            options = {'lossless': True, 'exact': True} if ending == '.webp' else {}
            save(path, rgba(np.dstack([grey] * 3), rubbed), **options)

    flat(tmp_path, write, endings=(ending, '.png'))
    if alpha == 0 or alpha == 100 and mode not in ('P', 'key'):
        contents = examine(tmp_path, thorough=True, palette=str(palette))
        assert all('transparent at x=' in text for text in contents.problems.values())
        assert len(contents.problems) == 2
    else:
        items, _ = read(tmp_path, palette=str(palette))
        assert all(np.array_equal(item['label'], labels()) for item in items)


# ------------------------------------------------------------------------------- masks of 0 and 255

def two_values(a, b, **options):
    return lambda path: save(path, np.where(labels() > 1, b, a).astype(np.uint8), **options)


@pytest.mark.parametrize('name, write, flags, n, csv', [
    ('masks', two_values(0, 255), {}, 2, ''),
    ('compressed', two_values(0, 255, optimize=True), {}, 2, ''),
    ('another id', two_values(1, 255), {}, 2, ''),
    ('half', two_values(127, 255), {}, 2, ''),
    ('close', two_values(230, 255), {}, 2, ''),
    ('named', two_values(0, 255), {}, 2, 'id,name\n0,back\n255,front\n'),
    ('one named', two_values(0, 255), {}, 2, 'id,name\n0,back\n'),
    ('--n-labels', two_values(0, 255), {'n_labels': 2}, 2, ''),
    ('an empty mask among them', lambda path: save(path, np.where(
        (labels() > 1) & (path.stem == 'a'), 255, 0).astype(np.uint8)), {}, 2, ''),
    ('16 bits', lambda path: save(path, np.where(labels() > 1, 255, 0).astype(np.uint16)), {}, 2,
     '')])
def test_255_is_a_label_where_there_is_one_other(name, write, flags, n, csv, tmp_path):
    flat(tmp_path, write)
    if csv:
        (tmp_path / 'labels.csv').write_text(csv)
    items, contents = read(tmp_path, **flags)
    assert contents.n_labels == n and not contents.void
    assert np.array_equal(items[0]['label'], labels() > 1)
    if csv:
        assert contents.label_names == (['back', 'front'] if n == 2 and '255' in csv
                                        else ['back', '255'])


@pytest.mark.parametrize('values, flags, n, void', [
    ((0, 1, 255), {}, 3, [2]), ((0, 1, 2, 255), {}, 4, [3]), ((0, 255), {'ignore_label': 255}, 2,
                                                              [1]),
    ((0, 255), {'n_labels': 20}, 21, [20]), ((0, 255), {'ignore_label': 'none'}, 256, []),
    ((0, 1), {}, 2, [])])
def test_255_stays_unknown_elsewhere(values, flags, n, void, tmp_path):
    flat(tmp_path, labels(values).astype(np.uint8))
    items, contents = read(tmp_path, **flags)
    assert contents.n_labels == n and contents.void == void


# --------------------------------------------------------------------------- 10 and 12 bits in 16

def ramp(top, low=0):
    """Numbers from low to top, (64, 64)."""
    return np.rint(low + (top - low) * np.mgrid[:SIDE, :SIDE].sum(0) / (2 * SIDE - 2)).astype(int)


def deep_png(path, values):
    write_png(path, values, 16, 0)


def deep_png_alpha(path, values):
    write_png(path, np.dstack([values, np.full_like(values, 65535)]), 16, 4)


def deep_png_colours(path, values):
    write_png(path, np.dstack([values] * 3), 16, 2)


def deep_png_colours_alpha(path, values):
    write_png(path, np.dstack([values] * 3 + [np.full_like(values, 65535)]), 16, 6)


DEEP = {'PNG': (deep_png, '.png'), 'PNG, alpha': (deep_png_alpha, '.png'),
        'PNG, RGB': (deep_png_colours, '.png'), 'PNG, RGBA': (deep_png_colours_alpha, '.png'),
        'TIFF': (tiff(bits=16, kind='u2'), '.tif'),
        'TIFF MM': (tiff(bits=16, kind='u2', order='>'), '.tif'),
        'TIFF, RGB': (lambda path, values: write_tiff(path, np.dstack([values] * 3), 16, 2,
                                                      kind='u2'), '.tif'),
        'TIFF, RGB, MM': (lambda path, values: write_tiff(path, np.dstack([values] * 3), 16, 2,
                                                          kind='u2', order='>'), '.tif'),
        'TIFF, LZW': (lambda path, values: save(path, values.astype(np.uint16),
                                                compression='tiff_lzw'), '.tif')}


@pytest.mark.parametrize('role', 'AB')
@pytest.mark.parametrize('name', DEEP)
@pytest.mark.parametrize('top', [4095, 1023, 240, 65535])
def test_16_bits_have_the_range_of_the_data_set(top, name, role, tmp_path, capsys):
    write, ending = DEEP[name]
    pictures = {'a': ramp(top), 'b': ramp(top // 2)}
    for n, values in pictures.items():
        for other in 'AB':
            path = tmp_path / f'train_{other}' / f'{n}{ending if other == role else ".png"}'
            path.parent.mkdir(exist_ok=True)
            write(path, values) if other == role else save(path, photo())
    items, contents = read(tmp_path)
    for item, values in zip(items, pictures.values()):
        array = item['label' if role == 'A' else 'image'].astype(int)
        assert array.shape[:2] == (SIDE, SIDE)
        assert np.abs(array - values[..., None] * 255 / top).max() <= 1
    assert (f'values up to {top}' in capsys.readouterr().err) == (top < 1 << 15)
    assert {contents.image_max, contents.condition_max} == {None, top if top < 1 << 15 else None}


def test_12_bits_in_a_tiff_and_white_is_0(tmp_path):
    flat(tmp_path, labels().astype(np.uint8), lambda path: write_tiff(path, ramp(4095), bits=12),
         endings=('.png', '.tif'))
    assert np.abs(read(tmp_path)[0][0]['image'][..., 0] - ramp(4095) * 255 / 4095).max() <= 1
    flat(tmp_path / 'b', labels().astype(np.uint8), lambda path: write_tiff(
        path, ramp(4095), bits=16, kind='u2', photometric=0), endings=('.png', '.tif'))
    assert np.abs(read(tmp_path / 'b')[0][0]['image'][..., 0]
                  - (255 - ramp(4095) * 255 / 4095)).max() <= 1


@pytest.mark.parametrize('name', DEEP)
def test_a_run_of_before_shifts_16_bits(name, tmp_path):
    write, ending = DEEP[name]
    flat(tmp_path, labels().astype(np.uint8), lambda path: write(path, ramp(40000)),
         endings=('.png', ending))
    contents = examine(tmp_path)
    contents.decoder, contents.image_max = 1, None
    image = PairReader(contents)(contents.pairs[0])['image']
    assert np.array_equal(image[..., 0], ramp(40000) >> 8)


# --------------------------------------------------------------- 16 bits of colours in label maps

DEEP_COLOURS = {'high byte': lambda values: values << 8, 'low byte': lambda values: values,
                'both bytes': lambda values: values * 257}


@pytest.mark.parametrize('bytes_', DEEP_COLOURS)
@pytest.mark.parametrize('name', DEEP)
def test_the_colours_of_16_bits(name, bytes_, tmp_path):
    write, ending = DEEP[name]
    palette = tmp_path / 'palette.csv'
    palette.write_text('\n'.join(f'{60 * i},{60 * i},{60 * i},{i}' for i in range(4)))
    flat(tmp_path, lambda path: write(path, DEEP_COLOURS[bytes_](labels() * 60)),
         endings=(ending, '.png'))
    items, _ = read(tmp_path, palette=str(palette))
    assert all(np.array_equal(item['label'], labels()) for item in items)
    larger = labels() * 257 + 60 * 256
    flat(tmp_path / 'mixed', lambda path: write(path, larger + 7), endings=(ending, '.png'))
    problems = examine(tmp_path / 'mixed', thorough=True, palette=str(palette)).problems
    assert 'colours of 16 bits' in problems['a']


# ---------------------------------------------------------------------------- tables of colours

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def with_table(*colours, ending='.png'):
    """A function that writes labels() with the colours as the table of its indices."""
    def write(path):
        if ending == '.bmp':
            return write_bmp(path, labels(), 8, [*colours, *[WHITE] * 200])
        if ending == '.tif':
            return write_tiff(path, labels(), 8, 3, colours=[*colours, *[WHITE] * (
                256 - len(colours))])
        picture = Image.fromarray(labels().astype(np.uint8)).convert('P')
        picture.putpalette([value for colour in colours for value in colour])
        picture.save(path)
    return write


TABLE = [(0, 0, 0), RED, GREEN, BLUE]
TABLES = {'the same': (TABLE, False), 'permuted': ([(0, 0, 0), BLUE, RED, GREEN], True),
          'two swapped': ([(0, 0, 0), GREEN, RED, BLUE], True),
          'another first colour': ([WHITE, RED, GREEN, BLUE], True),
          'more colours': ([*TABLE, WHITE], False), 'backwards': (TABLE[::-1], True)}


@pytest.mark.parametrize('ending', ['.png', '.tif', '.bmp'])
@pytest.mark.parametrize('name', TABLES)
def test_tables_of_colours_that_differ_are_noticed(name, ending, tmp_path, capsys):
    table, differs = TABLES[name]
    flat(tmp_path, with_table(*TABLE, ending=ending), names='ab', endings=(ending, '.png'))
    flat(tmp_path, with_table(*table, ending=ending), names='c', endings=(ending, '.png'))
    items, contents = read(tmp_path)
    assert ('--palette FILE' in capsys.readouterr().err) == differs
    assert all(np.array_equal(item['label'], labels()) for item in items)
    assert [row[:3] for row in contents.index_colours] == [list(c) for c in TABLE]
    # A map that `generate` reads.
    scene_map = tmp_path / f'scene{ending}'
    with_table(*table, ending=ending)(scene_map)
    console.warned_subjects.clear()
    contents.features, contents.size = False, None
    scene = scenes.read_scene(contents, scene_map, tmp_path / 'train_label' / f'a{ending}')
    assert np.array_equal(scene.label[0, 0], labels())
    assert ('another colour table' in capsys.readouterr().err) == differs


# ------------------------------------------------------------ instance ids that begin in each label

def numbered(label):
    """Instances numbered from 1 within each label, and within all of them: (64, 64) each."""
    components = connected_components(label)
    within = np.zeros_like(components)
    for value in np.unique(label):
        parts = np.unique(components[label == value])
        within[label == value] = 1 + np.searchsorted(parts, components[label == value])
    return within, components


def same_partition(a, b):
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(a)) == len(np.unique(b))


SMALL = labels((0, 0, 1, 1)).copy()                 # a large object, and small ones far away
SMALL[2:8, 50:56], SMALL[20:24, 4:8] = 2, 3
RESTARTING = {'blocks': labels(), 'two labels': labels((0, 1)), 'large and small': SMALL,
              'five labels': labels((0, 3, 1, 4, 2)), 'unknown': labels((0, 1, 255, 2)),
              'gaps': labels((0, 7, 30))}


@pytest.mark.parametrize('offset', [0, 1000, 60000])
@pytest.mark.parametrize('name', RESTARTING)
def test_instance_ids_that_begin_anew_in_each_label(name, offset, tmp_path, capsys):
    label = RESTARTING[name]
    within, components = numbered(label)
    flat(tmp_path, label.astype(np.uint8), inst=(within + offset).astype(np.uint16))
    items, contents = read(tmp_path)
    assert contents.inst_per_label and 'of several labels' in capsys.readouterr().err
    assert all(same_partition(item['inst'], components) for item in items)
    contents.features, contents.size, contents.features_of = False, None, 'instance'
    pair = contents.pairs[0]
    scene = scenes.read_scene(contents, pair.label, pair.inst)
    assert same_partition(scene.inst[0, 0].numpy(), components)
    contents.inst_per_label = False                 # a run of before
    assert np.array_equal(PairReader(contents)(pair)['inst'], within + offset)


def sloppy(label):
    """Ids whose borders are a pixel off."""
    return np.roll(connected_components(label), 1, 1)


@pytest.mark.parametrize('name, inst', [
    ('ids of the whole picture', connected_components(labels())), ('the labels', labels()),
    ('Cityscapes', labels() * 1000 + numbered(labels())[0]), ('sloppy', sloppy(labels())),
    ('backwards', 99 - connected_components(labels())),
    ('all parts of a label', labels() + 50)])
def test_instance_ids_of_one_label_stay(name, inst, tmp_path, capsys):
    flat(tmp_path, labels().astype(np.uint8), inst=inst.astype(np.uint16))
    items, contents = read(tmp_path)
    assert not contents.inst_per_label and 'several labels' not in capsys.readouterr().err
    assert all(np.array_equal(item['inst'], inst) for item in items)


def test_maps_that_edit_saved_keep_their_ids(tmp_path):
    within, _ = numbered(labels())
    flat(tmp_path, labels().astype(np.uint8), inst=within.astype(np.uint16))
    _, contents = read(tmp_path)
    pair, reader = contents.pairs[0], PairReader(contents)
    inst = reader(pair)['inst']
    suffix, content = scene_files.encode_map(inst)
    saved = tmp_path / f'saved{suffix}'
    saved.write_bytes(content)
    assert np.array_equal(reader.read_instances(saved, None, labels()), inst)


# ------------------------------------------------------------------------- labels never trained on

@pytest.mark.parametrize('present, values, missing', [
    ([0, 1, 2, 3], (0, 1, 2, 3), ''), ([0, 1, 2], (0, 1, 2, 3), '3'), ([0], (0, 1, 2), '1, 2'),
    ([0, 3], (0, 1, 2), '1, 2'), (None, (0, 1, 2, 3), ''), ([1], (0,), '0')])
def test_a_label_that_no_training_picture_had(present, values, missing, tmp_path, capsys):
    _, contents = read(flat(tmp_path, labels().astype(np.uint8)))
    save(tmp_path / 'scene.png', labels(values).astype(np.uint8))
    contents.features, contents.size, contents.present = False, None, present
    console.warned_subjects.clear()
    capsys.readouterr()
    for _ in range(2):
        scene = scenes.read_scene(contents, tmp_path / 'scene.png')
    assert np.array_equal(scene.label[0, 0], labels(values))
    err = capsys.readouterr().err
    assert (f'no training picture had the label {missing},' in err) == bool(missing)
    assert err.count('warning') == bool(missing)


@pytest.mark.parametrize('keep', [True, False])
def test_the_labels_of_training_are_found(keep, tmp_path):
    flat(tmp_path, labels((0, 2)).astype(np.uint8), names='a')
    flat(tmp_path, labels((0, 5)).astype(np.uint8), names='b')
    _, contents = read(tmp_path)
    dataset = open_dataset(contents.pairs, PairReader(contents, (32, 32)), keep=keep)
    assert inspection.find_present_labels(dataset) == [0, 2, 5]


# --------------------------------------------------------------- hidden files and service folders

SERVICE = ['.ipynb_checkpoints/2-checkpoint.png', '._a.png', '.a.png', '.DS_Store.png',
           '@eaDir/a.png/SYNOPHOTO_THUMB_M.png', '.@__thumb/a.png', '#recycle/old.png',
           '@Recycle/old.png', '$RECYCLE.BIN/S-1-5/$R1.png', '.Trash-1000/files/old.png',
           '.Trashes/501/old.png', '__MACOSX/._a.png', '__MACOSX/train/x.png', '.thumbnails/x.png',
           '.xvpics/a.png', '.picasaoriginals/a.png', '[Originals]/a.png', '.snapshot/daily/a.png',
           '#snapshot/a.png', '~snapshot/a.png', 'lost+found/x.png', '.git/x.png', '.svn/a.png',
           'System Volume Information/x.png', '.AppleDouble/a.png', '.stversions/a.png',
           '.dropbox.cache/a.png', '~$a.png', 'RECYCLER/S-1/x.png', 'FOUND.000/x.png', '.nfs01.png',
           'Network Trash Folder/a2.png', '.sync/Archive/a.png', '__pycache__/x.png', 'CVS/x.png']


@pytest.mark.parametrize('name', SERVICE)
def test_what_programs_leave_beside_files_is_no_data(name, tmp_path):
    flat(tmp_path, labels().astype(np.uint8))
    for folder in 'train_label', 'train_img':
        save(tmp_path / folder / name, np.full((SIDE, SIDE), 9, np.uint8))
    items, contents = read(tmp_path)
    assert contents.n_labels == 4 and [pair.name for pair in contents.pairs] == ['a', 'b']
    assert list(layouts.files_by_name([tmp_path / 'train_label'], 'label')) == ['a', 'b']
    with layouts.with_service_files():              # a run of before finds what it was trained on
        found = layouts.files_below(tmp_path / 'train_label')
    assert len(found) == (2 if '._' in name else 3)


@pytest.mark.parametrize('folder, flag', [
    (folder, flag) for folder in ('train_label/run', 'train_img/run', 'train_inst', 'train_label',
                                  'train_label/seq/deep/run') for flag in ('--run', '--cache')])
def test_a_run_or_a_cache_among_the_maps_is_refused(folder, flag, tmp_path, p2phd):
    flat(tmp_path / 'own', labels().astype(np.uint8), inst=labels().astype(np.uint8))
    before = sorted((tmp_path / 'own').rglob('*'))
    others = ['--run', tmp_path / 'elsewhere'] if flag == '--cache' else []
    line = p2phd('train', '--data', tmp_path / 'own', flag, tmp_path / 'own' / folder, *others,
                 '--steps', 1, *TINY, code=2)
    assert f'{flag} ' in line and 'choose a folder outside' in line
    assert sorted((tmp_path / 'own').rglob('*')) == before


@pytest.mark.parametrize('folder', ['own/run', 'runs/x', 'train_label'])
def test_a_run_outside_is_allowed(folder, tmp_path):
    flat(tmp_path / 'own', labels().astype(np.uint8))
    layouts.check_outside(tmp_path / folder, '--run', tmp_path / 'own')


# ---------------------------------------------------------------------------------- pages and bands

def pages(*others, **options):
    return lambda path: Image.fromarray(photo()).save(path, save_all=True, append_images=[
        Image.fromarray(255 - photo()) for _ in others], **options)


def overview(path):
    small = Image.fromarray(photo()[::2, ::2])
    small.encoderinfo = {'tiffinfo': {254: 1}}
    Image.fromarray(photo()).save(path, save_all=True, append_images=[small])


FOUR = photo(4)
SEEN = photo()
LEFT_OUT = {                                        # ending, what writes it, the note
    'pages': ('.tif', pages(1, 2), 'the first of 3 pages'),
    'pages, LZW': ('.tif', pages(1, compression='tiff_lzw'), 'the first of 2 pages'),
    'an animated PNG': ('.png', pages(1, 2), 'the first of 3 pages'),
    'an animated WebP': ('.webp', pages(1, lossless=True), 'the first of 2 pages'),
    'one page': ('.tif', pages(), ''),
    'an overview': ('.tif', overview, ''),
    'infrared': ('.tif', lambda path: write_tiff(path, FOUR, 8, 2, extra=[0]),
                 'the first 3 of 4 bands'),
    'infrared MM': ('.tif', lambda path: write_tiff(path, FOUR, 8, 2, extra=[0], order='>'),
                    'the first 3 of 4 bands'),
    'a fourth band of no kind': ('.tif', lambda path: write_tiff(path, FOUR, 8, 2),
                                 'the first 3 of 4 bands'),
    'five bands': ('.tif', lambda path: write_tiff(path, np.dstack([FOUR, FOUR[..., :1]]), 8, 2,
                                                   extra=[0, 0]), 'the first 3 of 5 bands'),
    'infrared of 16 bits': ('.tif', lambda path: write_tiff(
        path, FOUR.astype(int) * 257, 16, 2, extra=[0], kind='u2'), 'the first 3 of 4 bands')}


@pytest.mark.parametrize('role', 'AB')
@pytest.mark.parametrize('name', LEFT_OUT)
def test_pages_and_bands_that_are_not_read_are_named(name, role, tmp_path, capsys):
    ending, write, note = LEFT_OUT[name]
    write_pictures(tmp_path, role, ending, write)
    items, _ = read(tmp_path)
    err = capsys.readouterr().err
    assert err.count('note') == bool(note) and note in err
    for item in items:
        assert np.abs(item['label' if role == 'A' else 'image'].astype(int) - SEEN).max() <= 1


@pytest.mark.parametrize('role', ['label', 'img'])
@pytest.mark.parametrize('bands, options, text', [
    (4, dict(bits=8, extra=[0, 0, 0]), '4 bands of 8 bits'),
    (8, dict(bits=8, extra=[0] * 7), '8 bands of 8 bits'),
    (13, dict(bits=16, kind='u2', extra=[0] * 12), '13 bands of 16 bits'),
    (3, dict(bits=32, kind='f4', photometric=2, sample_format=3), '3 bands of 32 bits, floats'),
    (2, dict(bits=16, kind='u2', extra=[0]), '2 bands of 16 bits'),
    (1, dict(bits=64, kind='f8', sample_format=3), '1 band of 64 bits, floats'),
    (1, dict(bits=32, kind='u4', order='>', sample_format=1), '1 band of 32 bits'),
    (3, dict(bits=8, kind='i1', photometric=2, sample_format=2), '3 bands of 8 bits with a sign')])
def test_a_tiff_that_pillow_does_not_read_is_described(bands, options, text, role, tmp_path, capfd):
    values = np.repeat(labels()[..., None], bands, 2) if bands > 1 else labels()
    flat(tmp_path, labels().astype(np.uint8))
    for name in 'ab':
        (tmp_path / f'train_{role}' / f'{name}.png').unlink()
        write_tiff(tmp_path / f'train_{role}' / f'{name}.tif', values, **options)
    problems = examine(tmp_path).problems
    assert len(problems) == 2 and capfd.readouterr().err == ''
    assert all(text in problem and '.npy' in problem for problem in problems.values())


# -------------------------------------------------------------- maps of ids in place of pictures

@pytest.mark.parametrize('name, condition, noted', [
    ('ids', labels().astype(np.uint8), True), ('35 ids', labels(range(34)).astype(np.uint8), True),
    ('one', (labels() > 1).astype(np.uint8), True), ('RGB', np.dstack([labels().astype(np.uint8)]
                                                                      * 3), True),
    ('all 0', labels((0,)).astype(np.uint8), True),
    ('colours', photo(), False), ('edges', ((labels() > 1) * 255).astype(np.uint8), False),
    ('dark', (photo() // 3), False), ('.npy', labels().astype(np.uint8)[..., None], True),
    ('.npy floats', photo().astype(np.float32) / 255, False)])
def test_conditions_that_look_like_ids_are_noticed(name, condition, noted, tmp_path, capsys):
    ending = '.npy' if 'npy' in name else '.png'
    for n in 'ab':
        save(tmp_path / 'train_A' / f'{n}{ending}', condition)
        save(tmp_path / 'train_B' / f'{n}.png', photo())
    items, _ = read(tmp_path)
    assert ('nearly black' in capsys.readouterr().err) == noted
    assert np.array_equal(items[0]['label'], condition if condition.ndim == 3 else np.repeat(
        condition[..., None], items[0]['label'].shape[2], 2))


# ---------------------------------------------------------------------------------- smoothed maps

def resized(values, method, side=48):
    """labels(values) made smaller, then larger again."""
    return np.asarray(Image.fromarray(labels(values).astype(np.uint8)).resize(
        (side, side), method).resize((SIDE, SIDE), method))


@pytest.mark.parametrize('values, method, side, noted', [
    ((0, 60, 120, 180), Image.Resampling.BILINEAR, 48, True),
    ((0, 60, 120, 180), Image.Resampling.BICUBIC, 48, True),
    ((0, 60, 120, 180), Image.Resampling.LANCZOS, 40, True),
    ((0, 60, 120, 180), Image.Resampling.HAMMING, 40, True),
    ((0, 180), Image.Resampling.BILINEAR, 48, True),
    ((0, 255), Image.Resampling.BILINEAR, 48, True),
    ((7, 26, 23, 11, 1), Image.Resampling.BILINEAR, 48, True),
    ((0, 60, 120, 180), Image.Resampling.NEAREST, 48, False),
    (range(30), Image.Resampling.NEAREST, 48, False),
    ((0, 1, 2, 3), Image.Resampling.BILINEAR, 48, False),
    ((7, 26, 23, 11, 1), Image.Resampling.NEAREST, 40, False)])
def test_smoothed_maps_are_noticed(values, method, side, noted, tmp_path, capsys):
    ids = resized(values, method, side)
    flat(tmp_path, ids)
    items, _ = read(tmp_path, ignore_label='none')
    err = capsys.readouterr().err
    true = ', '.join(map(str, np.unique(labels(values))))
    assert (f'may be {true};' in err) == noted
    assert ('warning' in err) == noted
    assert np.array_equal(items[0]['label'], ids)


def test_many_small_objects_are_no_smoothing(tmp_path, capsys):
    ids = np.zeros((SIDE, SIDE), np.uint8)
    rng = np.random.default_rng(0)
    for label in range(1, 60):
        x, y = rng.integers(0, 60, 2)
        ids[y:y + 2, x:x + 3] = label
    read(flat(tmp_path, ids))
    assert 'warning' not in capsys.readouterr().err


@pytest.mark.parametrize('decoder, names', [(1, ['2-checkpoint', 'a', 'b']), (2, ['a', 'b'])])
def test_a_run_of_before_keeps_the_copies_that_it_was_trained_on(decoder, names, tmp_path):
    flat(tmp_path, labels().astype(np.uint8))
    for role in 'label', 'img':
        save(tmp_path / f'train_{role}' / '.ipynb_checkpoints' / '2-checkpoint.png',
             labels().astype(np.uint8))
    with layouts.with_service_files():
        pictures = inspection.fingerprint(layouts.find_pairs(tmp_path)[1])
    config = with_defaults(
        {'n_labels': 4, 'features': False, 'instances': 'none', 'decoder': decoder},
        {'data': str(tmp_path), 'pictures': pictures, 'total_steps': 1, 'decay_start': 1})
    pairs = inspection.pairs_for_config(config, tmp_path, [])[1]
    assert [pair.name for pair in pairs] == names


def test_a_damaged_second_page_is_no_matter(tmp_path):
    flat(tmp_path, lambda path: write_tiff(path, labels()), endings=('.tif', '.png'))
    for name in 'ab':
        path = tmp_path / 'train_label' / f'{name}.tif'
        blob = bytearray(path.read_bytes())
        fields = struct.unpack('<H', blob[8:10])[0]
        blob[10 + 12 * fields:14 + 12 * fields] = struct.pack('<I', 10 ** 8)
        path.write_bytes(blob)
    assert all(np.array_equal(item['label'], labels()) for item in read(tmp_path)[0])


def test_instance_ids_in_colours_and_of_another_size(tmp_path):
    palette = tmp_path / 'palette.csv'
    palette.write_text('\n'.join(f'{60 * i},{60 * i},{60 * i},{i}' for i in range(4)))
    within, components = numbered(labels())
    larger = np.kron(within, np.ones((2, 2), int)).astype(np.uint8)
    for name, inst in ('same', within.astype(np.uint8)), ('larger', larger):
        grey = (labels() * 60).astype(np.uint8)
        items, contents = read(flat(tmp_path / name, np.dstack([grey] * 3), inst=inst),
                               palette=str(palette))
        assert contents.inst_per_label and same_partition(items[0]['inst'], components)
    items, _ = read(flat(tmp_path / 'ids', labels().astype(np.uint8), inst=larger))
    assert same_partition(items[0]['inst'], components)


# ----------------------------------------------------------------------------- between the kinds

def test_grey_label_maps_of_16_bits_a_channel_keep_all_bits(tmp_path):
    """In three channels as in one; with colours the byte that tells them is the id."""
    flat(tmp_path, lambda path: deep_png_colours(path, labels((0, 300, 2, 1000))),
         inst=lambda path: deep_png_colours_alpha(path, labels((7, 4464, 9, 65535))))
    items, contents = read(tmp_path)
    assert contents.n_labels == 1001
    for item in items:
        assert np.array_equal(item['label'], labels((0, 300, 2, 1000)))
        assert same_partition(item['inst'], labels((7, 4464, 9, 65535)))
    colours = np.dstack([labels(), 3 - labels(), labels() * 5])
    for name, factor in ('low', 1), ('high', 256), ('both', 257):
        flat(tmp_path / name, labels().astype(np.uint8),
             inst=lambda path: write_png(path, colours * factor, 16, 2))
        assert same_partition(read(tmp_path / name)[0][0]['inst'], labels())


@pytest.mark.parametrize('channels', [2, 4])
@pytest.mark.parametrize('role', ['label', 'inst'])
def test_grey_maps_that_are_transparent_in_part_are_refused(channels, role, tmp_path):
    alpha = np.full((SIDE, SIDE), 255)
    alpha[5:9, 7:9] = 0
    grey = np.dstack([labels()] * (channels - 1) + [alpha]).astype(np.uint8)
    flat(tmp_path, grey if role == 'label' else labels().astype(np.uint8),
         inst=grey if role == 'inst' else labels().astype(np.uint8))
    problems = examine(tmp_path).problems
    assert len(problems) == 2 and all('transparent at x=7, y=5' in p for p in problems.values())


@pytest.mark.parametrize('name, write, noted', [
    ('palette', png(8, 3, plte(4), (b'tRNS', b'\xff\xff\0')), True),
    ('palette, 2 bits', png(2, 3, plte(4), (b'tRNS', b'\xff\xff\0')), True),
    ('grey', png(8, 0, (b'tRNS', b'\0\2')), True), ('4 bits', png(4, 0, (b'tRNS', b'\0\2')), True),
    ('another id', png(8, 3, plte(9), (b'tRNS', b'\xff' * 7 + b'\0')), False),
    ('half', png(8, 3, plte(4), (b'tRNS', b'\xff\x80')), False)])
def test_ids_that_are_transparent_are_noted(name, write, noted, tmp_path, capsys):
    flat(tmp_path, lambda path: write(path, labels()))
    items, _ = read(tmp_path)
    err = capsys.readouterr().err
    assert ('its id 2 is transparent' in err and '--ignore-label 2' in err) == noted
    assert all(np.array_equal(item['label'], labels()) for item in items)
    if noted:
        items, contents = read(tmp_path, ignore_label=2)
        assert contents.void == [contents.n_labels - 1]


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('top', [4095, 65535])
@pytest.mark.parametrize('alpha', [False, True])
def test_halves_of_16_bits(side, top, alpha, tmp_path):
    """Both halves of a picture have the range of the data set, and transparent pixels are white."""
    smooth, drawn = np.dstack([ramp(top), ramp(top)[::-1], ramp(top // 2)]), np.dstack(
        [labels((0, top, top // 2))] * 3)
    halves = [drawn, smooth][::1 if side == 'left' else -1]
    whole = np.concatenate(halves, 1)
    if alpha:
        opacity = np.full(whole.shape[:2], 65535)
        opacity[:5] = 0
        whole = np.dstack([whole, opacity])
    for name in 'ab':
        (tmp_path / 'train').mkdir(exist_ok=True)
        write_png(tmp_path / 'train' / f'{name}.png', whole, 16, 6 if alpha else 2)
    items, contents = read(tmp_path)
    assert contents.layout == f'side by side, map {side}'
    for item in items:
        for array, values in (item['label'], drawn), (item['image'], smooth):
            seen = values * 255 / top
            seen[:5] = 255 if alpha else seen[:5]
            assert np.abs(array - seen).max() <= 1


@pytest.mark.parametrize('values, noted', [
    (range(100, 117), True), (range(64, 80), True), ((*range(60, 75), 255), True),
    (range(0, 255, 15), False), ((0, 128, 255), False)])
def test_conditions_of_large_ids_are_noticed(values, noted, tmp_path, capsys):
    for name in 'ab':
        save(tmp_path / 'train_A' / f'{name}.png', labels(np.random.default_rng(0).permutation(
            values)).astype(np.uint8))
        save(tmp_path / 'train_B' / f'{name}.png', photo())
    read(tmp_path)
    assert ('look like maps of ids' in capsys.readouterr().err) == noted


@pytest.mark.parametrize('what', ['blurred', 'posterised', 'gradient', 'drawing'])
def test_smooth_and_drawn_conditions_are_none_of_ids(what, tmp_path, capsys):
    y, x = np.mgrid[:256, :256]
    grey = {'blurred': 100 + x // 16 + y // 16, 'posterised': (x // 16 + y // 16) * 4,
            'gradient': (x + y) // 2, 'drawing': 255 - 255 * (abs(x - y) < 3)}[what]
    grey = grey.astype(np.uint8)
    if what == 'drawing':                           # with smooth edges
        grey = np.asarray(Image.fromarray(grey).rotate(30, Image.Resampling.BICUBIC))
    save(tmp_path / 'train_A' / 'a.png', grey)
    save(tmp_path / 'train_B' / 'a.png', np.repeat(grey[..., None], 3, 2))
    read(tmp_path)
    assert 'ids' not in capsys.readouterr().err


def test_jpeg_instance_maps_need_a_flag(tmp_path):
    flat(tmp_path, labels().astype(np.uint8), inst=(labels() * 60).astype(np.uint8),
         endings=('.png', '.png', '.jpg'))
    assert all('--jpeg-labels' in problem for problem in examine(tmp_path).problems.values())
    _, contents = read(tmp_path, jpeg_labels=True)
    contents.jpeg_labels, contents.decoder = False, 1           # a run of before
    PairReader(contents)(contents.pairs[0])


def test_the_range_is_found_where_bad_pictures_are_skipped(tmp_path):
    flat(tmp_path, labels().astype(np.uint8), lambda path: deep_png(path, ramp(4095)), names='abc')
    (tmp_path / 'train_img' / 'c.png').write_bytes(b'nothing')
    contents = examine(tmp_path, skip_bad=True)
    assert len(contents.problems) == 1 and contents.image_max == 4095


@pytest.mark.parametrize('words', [
    'generate --run run --label own/train_label/a.png --out own/train_img/made',
    'generate --run run --label other.png --out own/val_label',
    'edit --run run --label own/train_label/a.png --script edits.json --out own/train_label',
    'evaluate --run run --split train --write own/train_img/scored',
    'evaluate --run run --split train --out own/train_label/scored',
    'evaluate --run run --split train --out linked/scored',
    'train --resume run --steps 2 --cache own/train_label/cache',
    'train --data own --steps 1 --run own/val_img/run',
    'finetune --from run --run own/train_img/x'])
def test_nothing_is_written_among_the_pictures_of_a_data_set(words, tmp_path, p2phd):
    flat(tmp_path / 'own', labels().astype(np.uint8))
    save(tmp_path / 'linked' / 'a.png', photo())
    (tmp_path / 'own' / 'val_label').mkdir()
    save(tmp_path / 'own' / 'val_label' / 'a.png', labels().astype(np.uint8))
    (tmp_path / 'own' / 'val_img').symlink_to(tmp_path / 'linked')
    save(tmp_path / 'other.png', labels().astype(np.uint8))
    (tmp_path / 'edits.json').write_text('[]')
    p2phd('train', '--data', 'own', '--steps', 1, '--run', 'run', '--device', 'cpu', *BARE)
    before = sorted(tmp_path.rglob('*'))
    line = p2phd(*words.split(), '--device', 'cpu', code=2)
    assert 'would be taken for data; choose a folder outside' in line
    assert sorted(tmp_path.rglob('*')) == before


def test_a_folder_beside_the_pictures_receives_what_is_written(tmp_path, p2phd):
    flat(tmp_path / 'own', labels().astype(np.uint8))
    p2phd('train', '--data', 'own', '--steps', 1, '--run', 'own/runs/x', '--cache', 'own/cache',
          '--device', 'cpu', *BARE)
    p2phd('generate', '--run', 'own/runs/x', '--label', 'own/train_label/a.png', '--out',
          'own/made', '--device', 'cpu')
    assert len(examine(tmp_path / 'own').pairs) == 2


@pytest.mark.parametrize('options, is_lossy', [
    (dict(quality=80), True), (dict(quality=100), True), (dict(lossless=True), False),
    (dict(quality=80, icc_profile=b'x' * 99), True),
    (dict(lossless=True, icc_profile=b'x' * 99), False),
    (dict(lossless=True, exif=Image.Exif().tobytes()), False)])
@pytest.mark.parametrize('role', ['label', 'inst'])
def test_lossy_webp_maps_need_a_flag_as_jpeg_does(options, is_lossy, role, tmp_path):
    endings = ('.webp', '.png', '.png') if role == 'label' else ('.png', '.png', '.webp')
    grey = (labels() * 60).astype(np.uint8)
    flat(tmp_path, *[(lambda path: save(path, grey, **options)) if role == name else what
                     for name, what in (('label', grey), ('img', None), ('inst', grey))],
         endings=endings)
    problems = examine(tmp_path).problems.values()
    assert len(problems) == 2 * is_lossy
    assert all('lossy WebP' in text and '--jpeg-labels' in text for text in problems)
    items, _ = read(tmp_path, jpeg_labels=is_lossy)
    if not is_lossy:
        assert np.array_equal(items[0]['label'], grey)


@pytest.mark.parametrize('role', 'AB')
@pytest.mark.parametrize('top', [240, 4095, 8000, 30000])
def test_65535_for_no_value_beside_small_values(top, role, tmp_path, capsys):
    values = ramp(top)
    values[:4] = 65535
    for name in 'ab':
        for other in 'AB':
            path = tmp_path / f'train_{other}' / f'{name}.png'
            path.parent.mkdir(exist_ok=True)
            deep_png(path, values) if other == role else save(path, photo())
    read(tmp_path)
    assert (f'values up to {values[values < 65535].max()}, which is nearly black, and 65535'
            in capsys.readouterr().err) == (top < 8192)
