"""The files that test_odd_commands.py names: label maps, photographs, data sets and runs, each
whole, odd or damaged."""
import io
import os
from pathlib import Path
import re
import shlex
import shutil
import struct
import warnings
import zlib

import numpy as np
from PIL import Image
import pytest
import scipy.io
import torch

from app.runs import checkpoints
from conftest import ROOT, TINY
import nets
import p2phd

# Tiny networks and one step; the same without an encoder.
TINIEST = f'--size 16x16 {" ".join(TINY[2:])} --steps 1 --workers 0 --device cpu'
BARE = re.sub('--(nef|n-down-encoder) . ?', '', TINIEST)
LONG_NAME = 'x' * 240

H, W = 20, 24
LABEL = (np.arange(H * W).reshape(H, W) // 8 % 5).astype(np.uint8)
INST = (np.arange(H * W).reshape(H, W) // 6 % 7).astype(np.uint16)
PHOTO = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
GREY = PHOTO[..., 0]


def save(path, what, **kwargs):
    """Write an array, a PIL.Image, bytes or text into a file; kwargs are those of Image.save."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(what, str):
        path.write_text(what, encoding='utf-8')
    elif isinstance(what, bytes):
        path.write_bytes(what)
    elif path.suffix.lower() == '.npy':
        np.save(path, what)
    else:
        what = Image.fromarray(what) if isinstance(what, np.ndarray) else what
        what.save(path, **kwargs)


def flat(root, label=LABEL, image=PHOTO, inst=None, name='a', ends=('.png', '.png', '.png'),
         **kwargs):
    """Add a scene in the flat layout, of the files that are not None; kwargs are for the
    photograph."""
    for role, content, end in zip(('label', 'img', 'inst'), (label, image, inst), ends):
        if content is not None:
            save(root / f'train_{role}' / f'{name}{end}', content,
                 **(kwargs if role == 'img' else {}))


def png(array, depth=8, kind=0, w=W, h=H):
    """Return the bytes of a PNG that Pillow does not write: grey with `depth` bits, or of a colour
    type `kind`, with a header that claims w x h pixels."""
    def chunk(name, blob):
        blob = name + blob
        return struct.pack('>I', len(blob) - 4) + blob + struct.pack('>I', zlib.crc32(blob))

    bits = np.unpackbits(np.asarray(array, np.uint8)[..., None], -1)[..., -depth:]
    rows = np.packbits(bits.reshape(len(array), -1), 1)
    rows = np.pad(rows, ((0, 0), (1, 0)))
    head = struct.pack('>IIBBBBB', w, h, depth, kind, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head)
            + chunk(b'IDAT', zlib.compress(rows.tobytes())) + chunk(b'IEND', b''))


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def matlab5(name, values):
    """Return the bytes of a MATLAB 5 file with one vector."""
    file = io.BytesIO()
    scipy.io.savemat(file, {name: values})
    return file.getvalue()


def altered(source, target, drop=(), **changes):
    """Copy a run; its checkpoint lacks the fields in `drop` and has other values in `changes`."""
    target.mkdir(exist_ok=True)
    if (source / 'styles.npz').exists():
        os.link(source / 'styles.npz', target / 'styles.npz')
    _, checkpoint = checkpoints.newest_checkpoint(source)
    for name, value in changes.items():
        for part in (checkpoint, checkpoint['config'], checkpoint['config']['training']):
            if name in part:
                part[name] = value
                break
    write_checkpoint(target, {name: checkpoint[name] for name in checkpoint if name not in drop})


def write_checkpoint(folder, content):
    """Write a checkpoint with this content, whatever it is, and a seal that fits."""
    with (open(folder / 'checkpoint-0000001.pt', 'wb') as file,
          warnings.catch_warnings(action='ignore')):        # of a tensor in place of a dict
        checkpoints.write_sealed(content, file)


def copy_without(run, target, *missing):
    """Copy a run, by links, without some of its files; return the path of the first of them."""
    shutil.copytree(run, target, copy_function=os.link,
                    ignore=lambda folder, names: missing if Path(folder) == run else [])
    return target / missing[0]


def make_maps(maps):
    """Write label maps of one scene; unless their names say otherwise 24x20 with labels 0 to 4."""
    picture = Image.fromarray(LABEL)
    for name in ('fine.png', 'UPPER.PNG', 'two words.png', 'two\nlines.png', "quotes'\".png",
                 '-dash.png', '=.png', 'naïve 名.png', '.png.png', 'gif.gif', 'bmp.bmp',
                 os.fsdecode(b'latin\xe9.png'), f'{LONG_NAME}.png'):
        save(maps / name, LABEL)
    save(maps / 'no_suffix', LABEL, format='PNG')
    save(maps / 'lossless.webp', picture.convert('RGB'), lossless=True)
    save(maps / 'animated.webp', picture.convert('RGB'), save_all=True,
         append_images=[picture.convert('RGB')])
    save(maps / 'pages.tif', picture, save_all=True, append_images=[picture] * 2)
    save(maps / 'interlaced_palette.png', picture.convert('P'))
    indexed = Image.fromarray(LABEL)
    indexed.putpalette([200, 0, 0] * 256)
    save(maps / 'one_colour_palette.png', indexed)
    save(maps / 'transparent_palette.png', indexed, transparency=0)
    save(maps / 'transparent_grey.png', picture, transparency=3)
    save(maps / 'grey1.png', png(LABEL % 2, 1))
    save(maps / 'grey2.png', png(LABEL % 4, 2))
    save(maps / 'grey4.png', png(LABEL, 4))
    save(maps / 'bit.tif', Image.fromarray(LABEL > 2))
    save(maps / 'la.png', Image.merge('LA', [picture, picture]))
    save(maps / 'rgb.png', PHOTO)
    save(maps / 'rgba.png', Image.fromarray(PHOTO).convert('RGBA'))
    save(maps / 'cmyk.jpg', Image.fromarray(PHOTO).convert('CMYK'))
    save(maps / 'lab.tif', Image.fromarray(PHOTO).convert('LAB'))
    save(maps / 'i16.png', LABEL.astype(np.uint16))
    save(maps / 'i16b.tif', Image.frombytes('I;16B', (W, H), LABEL.astype('>u2').tobytes()))
    save(maps / 'i32.tif', LABEL.astype(np.int32))
    save(maps / 'float.tif', LABEL.astype(np.float32))
    save(maps / 'parts.tif', LABEL.astype(np.float32) / 2)
    save(maps / 'jpeg.png', LABEL, format='JPEG')
    save(maps / 'jpeg.tif', LABEL, compression='jpeg')
    save(maps / 'deflate.tif', LABEL, compression='tiff_adobe_deflate')
    save(maps / 'turned.tif', LABEL, exif=turned(6))
    save(maps / 'text.png', 'this is no picture')
    save(maps / 'empty.png', b'')
    save(maps / 'cut.png', (maps / 'fine.png').read_bytes()[:60])
    save(maps / 'checksum.png', (maps / 'fine.png').read_bytes().replace(b'IDAT', b'IDAT\1', 1))
    save(maps / 'bomb.png', png(LABEL, w=30000, h=30000))
    save(maps / 'wide.png', png(np.zeros((1, 1), np.uint8), w=1 << 30, h=1))
    save(maps / 'no_width.png', png(LABEL, w=0))
    save(maps / 'odd_depth.png', png(LABEL, kind=7))
    save(maps / 'eps.png', '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    save(maps / 'svg.png', '<svg xmlns="http://www.w3.org/2000/svg"/>')
    save(maps / '1x1.png', LABEL[:1, :1])
    save(maps / '2x1.png', LABEL[:1, :2])
    save(maps / '1x300.png', np.zeros((300, 1), np.uint8))
    save(maps / 'large.png', np.zeros((96, 72), np.uint8))
    save(maps / 'high.png', np.full((H, W), 77, np.uint8))
    save(maps / 'unknown.png', np.where(LABEL == 4, 255, LABEL).astype(np.uint8))
    (maps / 'folder.png').mkdir()
    (maps / 'none').mkdir()
    save(maps / 'text_only' / 'readme.txt', 'nothing')
    os.mkfifo(maps / 'pipe.png')
    os.mkfifo(maps / 'pipe.npy')
    (maps / 'loop.png').symlink_to('loop.png')
    (maps / 'nowhere.png').symlink_to('gone.png')
    (maps / 'link.png').symlink_to('fine.png')
    (maps / 'device.png').symlink_to('/dev/zero')
    (maps / 'device.npy').symlink_to('/dev/zero')

    for name, array in {
            'fine': LABEL, 'bool': LABEL > 2, 'fortran': np.asfortranarray(LABEL),
            'big_endian': LABEL.astype('>i4'), 'channel': LABEL[..., None],
            'i64': LABEL.astype(int),
            'u64': np.full((H, W), 2 ** 64 - 1, np.uint64), 'beyond': LABEL.astype(int) + 2 ** 32,
            'negative': LABEL.astype(int) - 2, 'least': np.full((H, W), -2 ** 63),
            'float': LABEL.astype(float), 'complex': LABEL.astype(complex),
            'half': LABEL.astype('f2'), 'parts': LABEL / 2,
            'text': LABEL.astype(str), 'time': LABEL.astype('M8[s]'), 'bands': PHOTO,
            'empty': LABEL[:0], 'line': LABEL[0], 'number': np.array(3), 'four': PHOTO[None],
            'records': np.zeros((H, W), [('id', int)]), 'long': np.zeros((1, 40000), np.uint8),
            'nothing': np.zeros((H, W, 0), np.uint8)}.items():
        save(maps / f'{name}.npy', array)
    np.save(maps / 'object.npy', LABEL.astype(object), allow_pickle=True)
    np.savez(maps / 'zip.npz', LABEL)
    (maps / 'zip.npz').rename(maps / 'zip.npy')
    whole = (maps / 'i64.npy').read_bytes()
    save(maps / 'cut.npy', whole[:200])
    save(maps / 'no_bytes.npy', b'')
    save(maps / 'header.npy', whole[:9])
    save(maps / 'lie.npy', whole.replace(b'(20, 24)', b'(99, 24)'))
    save(maps / 'version.npy', whole[:6] + b'\x09' + whole[7:])

    # Folders of maps.
    root = maps.parent
    for name in ('a.png', 'b.png', 'c.png'):
        save(root / 'some_bad' / name, b'' if name == 'b.png' else LABEL)
        save(root / 'all_bad' / name, b'')
    save(root / 'some_named' / 'x_labelIds.png', LABEL)
    save(root / 'some_named' / 'x_instanceIds.png', INST)
    save(root / 'some_named' / 'x_gtFine_color.png', PHOTO)
    save(root / 'some_named' / 'x_leftImg8bit.png', PHOTO)
    save(root / 'some_named' / 'y.png', LABEL)
    save(root / 'with_macos' / 'a.png', LABEL)
    save(root / 'with_macos' / '._a.png', b'\0\5\x16\7')
    save(root / 'with_macos' / '.DS_Store', b'\0')
    save(root / 'twice' / 'a.png', LABEL)
    save(root / 'twice' / 'a.tif', LABEL)
    save(root / 'deep' / 'one' / 'two' / 'a.png', LABEL)
    (root / 'deep' / 'one' / 'again').symlink_to('..')
    save(root / 'insts' / 'fine.png', INST)
    save(root / 'insts' / 'other.png', INST)


def make_photos(photos):
    """Write photographs of the scene of maps/fine.png."""
    picture = Image.fromarray(PHOTO)
    save(photos / 'fine.png', PHOTO)
    for name, mode in (('grey', 'L'), ('la', 'LA'), ('rgba', 'RGBA'), ('palette', 'P'),
                       ('bit', '1')):
        save(photos / f'{name}.png', picture.convert(mode))
    save(photos / 'cmyk.jpg', picture.convert('CMYK'))
    save(photos / 'ycc.tif', picture.convert('YCbCr'))
    save(photos / 'animated.webp', picture, save_all=True, append_images=[picture])
    save(photos / 'png.jpg', picture, format='PNG')
    save(photos / '16.png', GREY.astype(np.uint16) * 257)
    save(photos / '16.tif', GREY.astype(np.uint16) * 257)
    save(photos / '32.tif', GREY.astype(np.int32) << 20)
    save(photos / 'unit.tif', (GREY / 255).astype(np.float32))
    save(photos / '255.tif', GREY.astype(np.float32))
    save(photos / 'nan.tif', np.full((H, W), np.nan, np.float32))
    save(photos / 'inf.tif', np.where(GREY > 9, np.inf, 0).astype(np.float32))
    sideways = Image.fromarray(np.ascontiguousarray(PHOTO.transpose(1, 0, 2)))
    save(photos / 'turned.jpg', sideways, exif=turned(6))
    save(photos / 'turned.tif', sideways, exif=turned(8))
    save(photos / 'upside.jpg', picture, exif=turned(3))
    save(photos / 'odd_turn.jpg', picture, exif=turned(99))
    save(photos / 'sideways.png', sideways)
    save(photos / 'double.png', picture.resize((2 * W, 2 * H)))
    save(photos / 'nearly.png', picture.resize((W * 10 + 1, H * 10)))
    save(photos / 'cut.jpg', b'\xff\xd8\xff\xe0' + bytes(20))
    save(photos / 'text.jpg', 'no picture')
    os.mkfifo(photos / 'pipe.jpg')
    for name, array in {
            'unit': PHOTO / 255, 'minus': PHOTO / 127.5 - 1, 'eight': PHOTO, '255': PHOTO * 1.0,
            'nan': np.full((H, W, 3), np.nan), 'int': PHOTO.astype(int),
            'i8': PHOTO.astype(np.int8),
            'grey': GREY / 255, 'five': np.zeros((H, W, 5)), 'complex': PHOTO.astype(complex),
            'huge': np.full((H, W, 3), 1e300), 'half': (PHOTO / 255).astype('f2'),
            'long': (PHOTO / 255).astype(np.longdouble), 'big_endian': (PHOTO / 255).astype('>f4'),
            'fortran': np.asfortranarray(PHOTO)}.items():
        save(photos / f'{name}.npy', array)


def make_sets(root):
    """Write data sets, each odd in one way."""
    for name in 'abc':
        flat(root / 'own', inst=INST, name=name)
        flat(root / 'plain', name=name)
        flat(root / 'bad_b', inst=INST, name=name, label=b'' if name == 'b' else LABEL)
    save(root / 'pairs' / 'train_A' / 'a.png', GREY)
    save(root / 'pairs' / 'train_B' / 'a.png', PHOTO)
    upright = np.ascontiguousarray(LABEL.T)
    flat(root / 'exif', upright, exif=turned(6), ends=('.png', '.jpg'))
    flat(root / 'exif_tiff', upright, exif=turned(6), ends=('.png', '.tif'))
    flat(root / 'exif_ignored', exif=turned(6), ends=('.png', '.jpg'))
    flat(root / 'grey2', png(LABEL % 4, 2))
    flat(root / 'grey4', png(LABEL, 4))
    flat(root / 'grey1', png(LABEL % 2, 1))
    flat(root / 'beyond', LABEL.astype(int) + 2 ** 32, ends=('.npy', '.png'))
    flat(root / 'beyond_inst', inst=INST.astype(int) + 2 ** 40, ends=('.png', '.png', '.npy'))
    flat(root / 'negative', LABEL.astype(int) - 1, ends=('.npy', '.png'))
    flat(root / 'unit', image=(GREY / 255).astype(np.float32), ends=('.png', '.tif'))
    flat(root / 'float255', image=GREY.astype(np.float32), ends=('.png', '.tif'))
    flat(root / 'grey32', image=GREY.astype(np.int32) << 20, ends=('.png', '.tif'))
    flat(root / 'unknown', np.where(LABEL == 4, 255, LABEL).astype(np.uint8))
    flat(root / 'only_unknown', np.full((H, W), 255, np.uint8))
    flat(root / 'high_labels', (LABEL + 240).astype(np.uint8))
    flat(root / 'one_label', LABEL * 0)
    flat(root / 'rare', np.where(np.arange(H * W).reshape(H, W) == 0, 1, 0).astype(np.uint8))
    flat(root / 'one_pixel', LABEL[:1, :1], PHOTO[:1, :1])
    flat(root / '1x1', LABEL[:1, :1], np.zeros((72, 96, 3), np.uint8))
    flat(root / 'wide_inst', inst=INST[:10])
    flat(root / 'rgb', PHOTO)
    flat(root / 'jpeg_png', label=None)
    save(root / 'jpeg_png' / 'train_label' / 'a.png', LABEL, format='JPEG')
    flat(root / 'ids', INST * 1000)
    flat(root / 'float_labels', LABEL.astype(float), ends=('.npy', '.png'))
    flat(root / 'half_labels', LABEL / 2, ends=('.npy', '.png'))
    flat(root / 'mixed', name='small')
    flat(root / 'mixed', np.repeat(LABEL, 3, 1), np.repeat(PHOTO, 3, 1), name='wide')
    flat(root / 'macos')
    save(root / 'macos' / 'train_label' / '._a.png', b'\0\5\x16\7')
    save(root / 'macos' / 'train_img' / '._a.png', b'\0\5\x16\7')
    save(root / 'macos' / '.DS_Store', b'\0')
    flat(root / 'two words', name='a b')
    flat(root / 'uppercase', ends=('.PNG', '.PNG'))
    flat(root / 'other_suffix', image=PHOTO, ends=('.png', '.gif'))
    flat(root / 'pipes')
    os.mkfifo(root / 'pipes' / 'train_img' / 'b.png')
    save(root / 'pipes' / 'train_label' / 'b.png', LABEL)
    flat(root / 'val_only')
    for place in ('label', 'img'):
        (root / 'val_only' / f'train_{place}').rename(root / 'val_only' / f'val_{place}')
    (root / 'no_maps' / 'train_label').mkdir(parents=True)
    (root / 'empty').mkdir()
    save(root / 'file', 'not a folder')
    flat(root / 'no_photos', image=None)
    flat(root / 'img_is_file', image=None)
    save(root / 'img_is_file' / 'train_img', 'a file')
    flat(root / 'inst_is_empty')
    (root / 'inst_is_empty' / 'train_inst').mkdir()
    flat(root / 'partly', inst=INST)
    flat(root / 'partly', name='b')
    flat(root / 'same_names')
    save(root / 'same_names' / 'train_img' / 'more' / 'a.jpg', PHOTO)
    (root / 'loop').symlink_to('loop')
    (root / 'linked').symlink_to('own')
    flat(root / 'endless')
    (root / 'endless' / 'train_label' / 'again').symlink_to('.')
    for name, array in (('a', np.zeros((H, W, 5))), ('b', np.zeros((H, W, 4)))):
        save(root / 'channels' / 'train_A' / f'{name}.npy', array)
        save(root / 'channels' / 'train_B' / f'{name}.png', PHOTO)
    save(root / 'outside' / 'train_A' / 'a.npy', PHOTO / 10.)
    save(root / 'outside' / 'train_B' / 'a.png', PHOTO)

    # Colours, for `rgb`.
    colours = sorted({tuple(map(int, colour)) for colour in PHOTO.reshape(-1, 3)})
    lines = [f'{r},{g},{b},{i % 5}' for i, (r, g, b) in enumerate(colours)]
    for name, text in {
            'fine': '\n'.join(lines), 'bom': '\ufeff' + '\n'.join(lines),
            'windows': '\r\n'.join(lines),
            'spaces': '\n'.join(line.replace(',', ' , ') for line in lines), 'empty': '',
            'comments': '# nothing\n\n# at all\n', 'short': '1,2,3\n',
            'words': 'red,green,blue,1\n',
            'high_colour': '256,0,0,1\n', 'negative': '0,0,0,-1\n', 'high_id': '0,0,0,70000\n',
            'float': '0.5,0,0,1\n', 'twice': '1,2,3,0\n1,2,3,1\n',
            'twice_same': '\n'.join(lines + lines), 'hex': '0x10,0,0,1\n',
            'few': '\n'.join(lines[1:]),
            'names': '\n'.join(f'{line},thing, or so' for line in lines),
            'huge': '9' * 5000 + ',0,0,1\n',
            'gaps': '\n'.join(f'{r},{g},{b},{7 * (i % 3)}'
                              for i, (r, g, b) in enumerate(colours))}.items():
        save(root / 'palettes' / name, text)
    save(root / 'palettes' / 'latin', ('\n'.join(lines) + ',caf\xe9').encode('latin-1'))
    save(root / 'palettes' / 'utf16', '\n'.join(lines).encode('utf-16'))
    save(root / 'palettes' / 'binary', bytes(range(256)))
    os.mkfifo(root / 'palettes' / 'pipe')


def make_layouts(root):
    """Write data sets in the layouts of their authors, each odd in one way."""
    for name in ('ade', 'ade_empty', 'ade_latin', 'ade_utf16', 'ade_nameless', 'ade_short',
                 'ade_folder'):
        save(root / name / 'annotations' / 'training' / 'ADE_train_1.png', LABEL)
        save(root / name / 'images' / 'training' / 'ADE_train_1.jpg', PHOTO)
    table = 'Idx,Ratio,Train,Val,Stuff,Name\n' + ''.join(
        f'{i + 1},0,0,0,0,thing{i};other\n' for i in range(150)).replace('thing0', 'caf\xe9')
    save(root / 'ade' / 'objectInfo150.csv', table)
    save(root / 'ade_empty' / 'objectInfo150.csv', '')
    save(root / 'ade_latin' / 'objectInfo150.csv', table.encode('latin-1'))
    save(root / 'ade_utf16' / 'objectInfo150.csv', table.encode('utf-16'))
    save(root / 'ade_nameless' / 'objectInfo150.csv', table.replace('Name', 'Wort'))
    save(root / 'ade_short' / 'objectInfo150.csv', '\n'.join(table.splitlines()[:9]))
    (root / 'ade_folder' / 'objectInfo150.csv').mkdir()
    save(root / 'ade_full' / 'images' / 'ADE' / 'training' / 'x' / 'A_seg.png', PHOTO)
    save(root / 'ade_full' / 'images' / 'ADE' / 'training' / 'x' / 'A.jpg', PHOTO)
    save(root / 'ade_seg_only' / 'images' / 'ADE' / 'training' / 'x' / 'A_seg.png', PHOTO)

    for name in ('helen', 'helen_latin', 'helen_sizes', 'helen_ten', 'helen_rgb', 'helen_binary',
                 'helen_nobody'):
        for face in ('1_1', 'caf\xe9_1'):
            save(root / name / 'images' / f'{face}.jpg', PHOTO)
            for i in range(11):
                save(root / name / 'labels' / face / f'{face}_lbl{i:02d}.png', LABEL * (i % 5))
    save(root / 'helen_latin' / 'exemplars.txt', '1 , caf\xe9_1\n'.encode('latin-1'))
    save(root / 'helen_binary' / 'exemplars.txt', bytes(range(256)))
    save(root / 'helen_nobody' / 'exemplars.txt', '1 , nobody\n')
    save(root / 'helen_sizes' / 'labels' / '1_1' / '1_1_lbl03.png', LABEL[:10])
    save(root / 'helen_rgb' / 'labels' / '1_1' / '1_1_lbl03.png', PHOTO)
    (root / 'helen_ten' / 'labels' / '1_1' / '1_1_lbl07.png').unlink()
    for place, what in (('images', PHOTO), ('labels', LABEL)):
        save(root / 'not_helen' / place / 'a.png', what)

    city = root / 'city' / 'gtFine' / 'train' / 'x'
    save(city / 'x_1_gtFine_labelIds.png', LABEL)
    save(city / 'x_1_gtFine_instanceIds.png', INST)
    save(city / 'x_1_gtFine_labelTrainIds.png', LABEL)
    save(city / 'x_1_gtFine_polygons.json', '{}')
    save(root / 'city' / 'leftImg8bit' / 'train' / 'x' / 'x_1_leftImg8bit.png', PHOTO)
    shutil.copytree(root / 'city', root / 'city_no_photos')
    shutil.rmtree(root / 'city_no_photos' / 'leftImg8bit')
    shutil.copytree(root / 'city', root / 'city_high')
    save(root / 'city_high' / 'gtFine' / 'train' / 'x' / 'x_1_gtFine_labelIds.png', LABEL + 40)
    shutil.copytree(root / 'city_high', root / 'city_one_high')
    shutil.copytree(root / 'city', root / 'jpeg_inst')
    for name, target in ('x_2', 'city_one_high'), ('x_3', 'city_one_high'), ('x_9', 'jpeg_inst'):
        for source in sorted((root / 'city').rglob('x_1*.png')):
            shutil.copyfile(source, root / target / source.relative_to(
                root / 'city').with_name(source.name.replace('x_1', name)))
    save(root / 'jpeg_inst' / 'gtFine' / 'train' / 'x' / 'x_9_gtFine_instanceIds.png',
         INST.astype(np.uint8), format='JPEG')
    save(root / 'city_zip' / 'gtFine_trainvaltest.zip', b'PK')

    h5py = pytest.importorskip('h5py', reason='h5py is not installed')
    parts = {'labels': np.stack([LABEL.T] * 2).astype(np.uint16),
             'instances': np.stack([LABEL.T] * 2),
             'images': np.stack([PHOTO.transpose(2, 1, 0)] * 2)}
    for name, change in {
            'nyu': {}, 'nyu_no_keys': dict.fromkeys(parts), 'nyu_no_images': {'images': None},
            'nyu_lengths': {'images': parts['images'][:1]},
            'nyu_flat': {'labels': parts['labels'][0]},
            'nyu_line': {'labels': np.zeros(2, np.uint16)}, 'nyu_text': {'labels': [b'a', b'b']},
            'nyu_float': {'labels': parts['labels'] + 0.5}, 'nyu_number': {'labels': 3},
            'nyu_group': {'labels': {}},
            'nyu_empty': {key: value[:0] for key, value in parts.items()},
            'nyu_float_images': {'images': parts['images'] / 255}, 'nyu_splits': {},
            'nyu_splits_text': {}, 'nyu_splits_far': {}, 'nyu_splits_other': {},
            'nyu_splits_pipe': {},
            'nyu_splits_empty': {}, 'nyu_40_few': {}, 'nyu_40_high': {}, 'nyu_40_text': {},
            'nyu_40': {}}.items():
        (root / name).mkdir()
        with h5py.File(root / name / 'nyu_depth_v2_labeled.mat', 'w') as file:
            for key, value in {**parts, **change}.items():
                if isinstance(value, dict):
                    file.create_group(key)
                elif value is not None:
                    file[key] = value
    save(root / 'nyu_splits' / 'splits.mat', matlab5('trainNdxs', [2]))
    save(root / 'nyu_splits_text' / 'splits.mat', 'not MATLAB')
    save(root / 'nyu_splits_far' / 'splits.mat', matlab5('trainNdxs', [1, 3]))
    save(root / 'nyu_splits_other' / 'splits.mat', matlab5('anything', [1]))
    save(root / 'nyu_splits_empty' / 'splits.mat', b'')
    os.mkfifo(root / 'nyu_splits_pipe' / 'splits.mat')
    save(root / 'nyu_40_few' / 'classMapping40.mat', matlab5('mapClass', [1, 2, 3]))
    save(root / 'nyu_40_high' / 'classMapping40.mat', matlab5('mapClass', [41] * 894))
    save(root / 'nyu_40_text' / 'classMapping40.mat', 'one two three')
    save(root / 'nyu_40' / 'classMapping40.mat', matlab5('mapClass', [1, 2] * 447))
    save(root / 'nyu_not_hdf5' / 'nyu_depth_v2_labeled.mat', 'not HDF5')
    save(root / 'nyu_old_matlab' / 'nyu_depth_v2_labeled.mat', matlab5('labels', [1]))
    save(root / 'nyu_no_bytes' / 'nyu_depth_v2_labeled.mat', b'')
    (root / 'nyu_folder' / 'nyu_depth_v2_labeled.mat').mkdir(parents=True)


def make_runs(root, command, official):
    """Train runs, and derive odd and damaged ones from them."""
    command(f'train --data own --run run {TINIEST}')
    command('cluster --run run --k 3 --device cpu')
    command(f'train --data plain --run bare {BARE}')
    command(f'train --data pairs --run ab {BARE}')
    command(f'train --data own --run native {TINIEST} --size native')
    command(f'train --data own --run local {TINIEST} --model local --n-blocks-local 1')
    command(f'train --data helen --run face {BARE}')
    command('cluster --run street_run --device cpu')
    run = root / 'run'
    altered(run, root / 'skipped', left_out=['z'])
    altered(run, root / 'gone', data=str(root / 'moved_away'))
    altered(run, root / 'odd_ngf', ngf=9)
    altered(root / 'native', root / 'native_large', n_down=3)
    altered(run, root / 'vgg_gone', vgg=str(root / 'gone.pth'))
    altered(run, root / 'cached', cache=str(root / 'gone_cache'))
    state, i = {}, 0
    channels = 3
    for width in nets.VGG19.LAYERS:
        if width != 'M':
            state[f'features.{i}.weight'] = torch.zeros(1).expand(width, channels, 3, 3)
            state[f'features.{i}.bias'] = torch.zeros(1).expand(width)
            channels, i = width, i + 1
        i += 1
    torch.save(state, root / 'vgg.pth')
    torch.save(dict(list(state.items())[:5]), root / 'vgg_part.pth')
    torch.save({**state, 'features.0.weight': torch.zeros(2)}, root / 'vgg_shape.pth')
    torch.save([1], root / 'vgg_list.pth')
    save(root / 'vgg_text.pth', 'no weights')
    save(root / 'vgg_empty.pth', b'')
    os.mkfifo(root / 'vgg_pipe.pth')
    command(f'train --data own --run with_vgg {TINIEST} --vgg vgg.pth')

    # Missing or foreign checkpoints.
    whole = checkpoints.newest_checkpoint(run)[1]
    weights = whole['weights']
    damaged = {part: {**whole[part], 'E': {key: value * np.nan
                                           for key, value in whole[part]['E'].items()}}
               for part in ('weights', 'average')}
    for name, change in {
            'nan': damaged,
            'no_weights': {'weights': {}}, 'no_D': {'weights': {k: weights[k] for k in 'GE'}},
            'text_weights': {'weights': 'none'}, 'text_step': {'step': 'six'},
            'minus': {'step': -1},
            'no_layout': {'layout': 'Mars'}, 'wide_feat': {'feat': 7}, 'wide_ngf': {'ngf': 4096},
            'infinite': {'lr': float('inf')}, 'long_names': {'label_names': ['x']},
            'number_data': {'data': 3}, 'odd_rows': {'rows': 7}, 'odd_sums': {'sums': {'gan': 'x'}},
            'odd_bad': {'bad_steps': 3}, 'odd_optimizers': {'optimizers': {}},
            'table': {'label_table': {0: 99}}, 'nul': {'data': 'a\0b'}}.items():
        altered(run, root / name, **change)
    altered(run, root / 'no_step', drop=['step'])
    altered(run, root / 'no_optimizers', drop=['optimizers'])
    for name, content in {'is_list': [1, 2], 'is_number': 3, 'is_tensor': torch.zeros(3),
                          'is_nothing': None, 'text_config': {'config': 'none', 'step': 1}}.items():
        (root / name).mkdir()
        write_checkpoint(root / name, content)
    sealed = (run / 'checkpoint-0000001.pt').read_bytes()
    save(root / 'cut' / 'checkpoint-0000001.pt', sealed[:-1])
    save(root / 'flipped' / 'checkpoint-0000001.pt', b'X' + sealed[1:])
    save(root / 'unsealed' / 'checkpoint-0000001.pt', sealed[:-checkpoints.SEAL_BYTES])
    save(root / 'empty_pt' / 'checkpoint-0000001.pt', b'')
    save(root / 'other_name' / 'model.pt', sealed)
    (root / 'folder_pt' / 'checkpoint-0000001.pt').mkdir(parents=True)
    (root / 'pipe_pt').mkdir()
    os.mkfifo(root / 'pipe_pt' / 'checkpoint-0000001.pt')
    (root / 'link_pt').mkdir()
    (root / 'link_pt' / 'checkpoint-0000001.pt').symlink_to('nowhere')
    save(copy_without(run, root / 'later_bad', 'checkpoint-0000002.pt'), sealed[:-9])

    # Files of styles.
    with np.load(run / 'styles.npz') as file:
        styles = dict(file)
    for name, change in {
            'nan': {'mean': styles['mean'] * np.nan}, 'shape': {'centres': np.zeros((2, 2))},
            'minus': {'counts': styles['counts'] - 99}, 'words': {'step': np.array('x')},
            'old': {'step': np.array(0)}, 'many': {'label_names': np.array(['a'])},
            'object': {'mean': np.array([None, 1], object)}}.items():
        np.savez(copy_without(run, root / f'styles_{name}', 'styles.npz'), **{**styles, **change})
    whole = (run / 'styles.npz').read_bytes()
    for name, content in (('text', b'no'), ('empty', b''), ('cut', whole[:300])):
        save(copy_without(run, root / f'styles_{name}', 'styles.npz'), content)
    os.mkfifo(copy_without(run, root / 'styles_pipe', 'styles.npz'))
    copy_without(run, root / 'styles_folder', 'styles.npz').mkdir()
    copy_without(run, root / 'styles_link', 'styles.npz').symlink_to('nowhere')

    # The other files of a run.
    for name, file in (('log', 'log.csv'), ('config', 'config.json'), ('lock', '.lock')):
        copy_without(run, root / f'{name}_folder', file).mkdir()
    copy_without(run, root / 'lock_link', '.lock').symlink_to('nowhere/x')
    save(copy_without(run, root / 'samples_file', 'samples'), 'a file')
    copy_without(run, root / 'log_damaged', 'log.csv', 'config.json')
    for file in ('log.csv', 'config.json'):
        save(root / 'log_damaged' / file, b'\xff\xfe\0nothing')

    # Runs of the official code.
    for name in ('official', 'official_no_E', 'official_bad_G', 'official_bad_E', 'official_text',
                 'official_styles', 'official_folder', 'official_nan', 'official_pipe'):
        shutil.copytree(official, root / name)
    G = torch.load(official / 'latest_net_G.pth', weights_only=True)
    (root / 'official_no_E' / 'latest_net_E.pth').unlink()
    torch.save({'model.1.weight': torch.zeros(3)}, root / 'official_bad_G' / 'latest_net_G.pth')
    torch.save({'x': torch.zeros(3)}, root / 'official_bad_E' / 'latest_net_E.pth')
    save(root / 'official_text' / 'latest_net_G.pth', 'no weights')
    save(root / 'official_styles' / 'features_clustered_010.npy', 'no features')
    (root / 'official_folder' / 'latest_net_D.pth').unlink()
    (root / 'official_folder' / 'latest_net_D.pth').mkdir()
    torch.save({key: value * np.nan for key, value in G.items()},
               root / 'official_nan' / 'latest_net_G.pth')
    (root / 'official_pipe' / 'latest_net_G.pth').unlink()
    os.mkfifo(root / 'official_pipe' / 'latest_net_G.pth')


def make_odd_files(root, scenes, trained):
    """Fill the folder `root` with everything that test_odd_commands.py names. scenes, trained: a
    data set and a run of it."""
    def command(words):
        assert p2phd.main(shlex.split(words)) == 0, words

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_maps(root / 'maps')
        make_photos(root / 'photos')
        make_sets(root)
        make_layouts(root)
        (root / 'street').symlink_to(scenes)
        shutil.copytree(trained, root / 'street_run')
        make_runs(root, command, ROOT / 'tests' / 'golden' / 'official_run')
