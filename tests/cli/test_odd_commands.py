"""Odd commands, and what each must say: a table with a row for each, and one test for them all.

A user's error is one line on stderr that names the file, the value and the remedy, with exit code
2, and leaves everything as it was. What only looks odd is done.
"""
import errno
import os
from pathlib import Path
import re
import shlex
import shutil
import stat
import struct
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image
import pytest
import torch

from conftest import TINY, ROOT
from app.runs import checkpoints
from app.datasets import decoding
from app.common import files
import nets

# Words that stand for several: tiny networks and one step, the same without an encoder, and a
# picture by the run that most rows use.
TINIEST = f'--size 16x16 {" ".join(TINY[2:])} --steps 1 --workers 0 --device cpu'
SHORT = {'TINY': TINIEST, 'BARE': re.sub('--(nef|n-down-encoder) . ?', '', TINIEST),
         'TRAIN': f'train --data own {TINIEST}', 'CACHED': f'train --data own {TINIEST} --cache c',
         'USE': 'generate --label maps/fine.png --run',
         'PICTURE': 'generate --run run --out made --label',
         'ENCODE': 'generate --run run --out made --label maps/fine.png --encode'}


# ------------------------------------------------------------------------------------- the table

PROBLEMS, SOME = '2, problems on stdout', '2, a line for each bad map, and their number'
STOPPED = '2, and what was written until then stays'

# What a flag expects, and the flags that do.
NUMBERS = {
    'a whole number from 1': 'train --steps, train --log-every, train --sample-every, '
                             'train --save-every, train --keep, train --max-bad-steps, '
                             'cluster --min-pixels',
    'a whole number from 0 to 1000000': 'train --epochs, train --decay-epochs, '
                                        'finetune --fix-global',
    'a whole number from 1 to 1000000': 'generate --label maps --n',
    'a whole number from 1 to 65536': 'train --batch, train --accumulate, check --n-labels',
    'a whole number from 0 to 65535, or none': 'check --ignore-label',
    'a whole number from 0 to 4294967295': 'train --seed, demo --seed',
    'a whole number from 1 to 4096': 'train --ngf, train --ndf, train --nef',
    'a whole number from 1 to 1000': 'cluster --k',
    'a whole number from 0 to 1024': 'train --workers',
    'a whole number from 1 to 256': 'train --feat',
    'a whole number from 0 to 256': 'train --n-blocks, train --n-blocks-local',
    'a whole number from 1 to 12': 'train --n-down, train --n-layers, train --n-scales, '
                                   'train --n-down-encoder',
    'a whole number from 0 to 8': 'train --n-enhancers',
}
NO_NUMBERS = ['', 'nan', 'inf', '1.5', '1e3', '0x10', '9' * 20, 'one', '½', '--3']


def each(command, code, says, values):
    """A row for each of the values, which stands for {}."""
    return [(command.replace('{}', value), code,
             says.replace('{}', re.escape(value.replace('=', ' '))))
            for value in values.split()]


def numbers():
    """For each flag that takes a whole number those just beyond its bounds, and two that are
    none."""
    rows = []
    for expected, flags in NUMBERS.items():
        low, *high = map(int, re.findall(r'\d+', expected))
        for flag in flags.split(', '):
            odd = [NO_NUMBERS[(len(rows) + i) % len(NO_NUMBERS)] for i in (0, 1)]
            for value in [str(low - 1), *(str(n + 1) for n in high), *odd]:
                said = f'{flag.split()[-1]}: {value!r}: expected {expected}'
                rows.append((f'{flag}={value}', 2, re.escape(said).replace('\\ ', ' ')))
    return rows


# (the command, its exit code, what it says or makes). `A && B`: B, after A has succeeded;
# `$ C`: C in a shell; [..]: a circumstance, see below. Steps of the shell replace files, never
# write into them: they are links.
ROWS = [
    # ---- no command, or none that there is
    ('', 2, 'the following arguments are required: COMMAND .see p2phd.py --help'),
    ('frobnicate', 2, "invalid choice: 'frobnicate'"),
    ('trai --data own', 2, "invalid choice: 'trai'"),
    ('train check --data own', 2, 'unrecognized arguments: check'),
    ('--data own train', 2, "invalid choice: 'own'|unrecognized|required"),
    ("''", 2, "invalid choice: ''"),
    ("'two\nlines'", 2, r"invalid choice: 'two\\nlines'"),
    ('check', 2, 'p2phd check: check needs --data DIR, the folder of the data set$'),
    ('train', 2, 'train needs --data DIR'),
    ('finetune', 2, 'finetune needs --from RUN, the folder of the run to start from'),
    ('cluster', 2, 'runs/: no trained run there; train one, or name one with --run'),
    ('generate', 2, 'required: --label'),
    ('generate --label maps/fine.png', 2, 'runs/: no trained run there'),
    ('$ mkdir runs && generate --label maps/fine.png', 2, 'runs/: no trained run there'),
    ('$ touch runs && cluster', 2, 'runs/: no trained run there'),
    ('train --resume', 2, 'runs/: no trained run there'),
    ('[old PyTorch] check --data own', 2, 'PyTorch 2.5.1: this program needs 2.6 or newer'),

    # ---- flags without a value, twice, abbreviated, unknown, of another command
    ('train --data', 2, '--data: expected one argument'),
    ("train --data ''", 2, "--data: '': expected a path"),
    ("check --data ' '", 2, ' : no such folder'),
    ('train --data own --palette', 2, '--palette: expected one argument'),
    ("train --data own --run ''", 2, "--run: '': expected a path"),
    ('generate --label', 2, '--label: expected at least one argument'),
    ("generate --label ''", 2, "--label: '': expected a path"),
    ('PICTURE maps/fine.png --inst', 2, '--inst: expected at least one argument'),
    ("PICTURE maps/fine.png --out ''", 2, "--out: '': expected a path"),
    ('PICTURE maps/fine.png --sample 3', 2, 'unrecognized arguments: 3'),
    ('train --dat own', 2, 'unrecognized arguments: --dat own'),
    ('train --data own --no-size', 2, 'unrecognized arguments: --no-size'),
    ('finetune --from run --ngf 8', 2, 'unrecognized arguments: --ngf 8'),
    ('generate --label maps/fine.png --data own', 2, 'unrecognized arguments: --data own'),
    ('train --data own --n_down 2', 2, 'unrecognized arguments: --n_down 2'),
    ('check --data own --device gpu', 2, "--device: invalid choice: 'gpu'"),
    ('check --data own --data plain', 0, 'flat: 3 train pairs, 5 labels, no instances'),
    ('TRAIN --steps 0 --steps 1', 2, "--steps: '0': expected a whole number from 1"),
    ('PICTURE maps/fine.png --label maps/bmp.bmp', 0, 'made/bmp_generated.png 24x20\n.*made/fine_'),
    ('PICTURE maps/fine.png --style 0=0 --style 1=99', 2, '--style 1=99: 1 has the styles 0 to'),
    ('PICTURE maps/fine.png maps/bmp.bmp --encode photos/fine.png --encode photos/bmp.png', SOME,
     'photos/bmp.png: no such file'),
    ('PICTURE maps/fine.png --inst insts/fine.png --inst insts/other.png', 0, 'fine_generated.png'),
    ('PICTURE insts/fine.png insts/other.png --inst insts/fine.png --inst insts/fine.png', 2,
     'insts/fine.png and insts/fine.png have the same name|other.png: no file of the same name'),
    ('PICTURE maps/fine.png --label maps/fine.png', 2, 'have the same name: take them one at a'),

    # ---- choices and switches
    ('train --data own --model huge', 2, "--model: invalid choice: 'huge'"),
    ('train --data own --gan wgan', 2, "--gan: invalid choice: 'wgan'"),
    ('check --data own --instances all', 2, "--instances: invalid choice: 'all'"),
    ('TRAIN --flip no', 2, 'unrecognized arguments: no'),
    ('TRAIN --no-cache', 2, 'unrecognized arguments: --no-cache'),
    ('check --data own --split ../val', 2, "--split: '../val': expected letters, digits, _ and -"),
    ("check --data own --split ''", 2, "--split: '': expected letters, digits, _ and -"),
    ("check --data own --split 'train\n'", 2, r"--split: 'train\\n': expected letters"),
    ('check --data own --split nowhere', 2,
     "own: no label maps of the split 'nowhere', but of train; choose with --split"),
    ('check --data val_only', 2, "no label maps of the split 'train', but of val; choose with"),
    ('check --data street --split test', 2, "of the split 'test', but of train, val; choose"),
    ('check --data street --split val', 0, 'Cityscapes: 2 val pairs, 35 labels, instance maps'),
    ('train --data street TINY --split val', 0, 'Cityscapes: 2 training pairs'),

    # ---- sizes and crops
    ('train --data own --size -16x16', 2, 'expected (one argument|WIDTHxHEIGHT)'),
    ('train --data own --size Native', 2, "--size: 'Native': expected WIDTHxHEIGHT, .*or native"),
    ('TRAIN --size 16X16', 0, 'runs/own: 16x16, 1 steps'),
    ("TRAIN --size ' 16 x 16 '", 0, 'runs/own: 16x16, 1 steps'),
    ('TRAIN --size ١٦x١٦', 0, 'runs/own: 16x16, 1 steps'),
    ('TRAIN --size 18x16', 2, '--size 18x16: these networks need multiples of 4, at least 8'),
    ('TRAIN --size 4x4', 2, '--size 4x4: .*at least 8; 8x8 fits'),
    ('TRAIN --crop 8x10', 2, '--crop 8x10: these networks need multiples of 4'),
    ('TRAIN --crop 32x8', 2, '--crop 32x8 is larger than --size 16x16'),
    ('TRAIN --crop 8x8', 0, 'own: 16x16, 1 steps'),
    ('TRAIN --size native --crop 32x16', 2,
     '--crop 32x16: a in .*own is only 24x20; leave it out, or take a smaller --crop or a --size'),
    ('train --data mixed BARE --size native --crop 40x16', 2, '--crop 40x16: small in .*only'),
    ('train --data mixed BARE --size native --crop 24x16', 0, 'mixed: native size, 1 steps'),
    ('train --data mixed BARE --size native --batch 2', 2,
     '--batch 2: the pictures of .*mixed differ in size; add --crop, or --size instead of native'),
    ('train --data mixed BARE --batch 2', 0, 'mixed: 16x16, 1 steps of 2'),
    ('TRAIN --size native', 0, 'own: native size'),
    ('train --data one_pixel BARE --size native', 2,
     'one_pixel: a is a picture of 1x1, too small for these networks .at least 8x8.; leave it out'),
    ('TRAIN --size native --n-down 4', 2, 'a picture of 24x20, too small .*32x32'),
    ('TRAIN --n-scales 6', 2, '--size 16x16: .*at least 64; 64x64 fits'),
    ('TRAIN --n-down 12', 2, '--size 16x16: .*multiples of 4096'),
    ('TRAIN --n-down-encoder 5', 2, '--size 16x16: .*multiples of 32, at least 64'),
    ('TRAIN --jitter 2', 0, 'step 1/1'),
    ('PICTURE maps/fine.png --size 7x9', 0, 'made/fine_generated.png 7x9'),
    ('PICTURE maps/fine.png --size 1x1', 0, 'made/fine_generated.png 1x1'),

    # ---- contradictions
    ('TRAIN --n-enhancers 1', 2, '--n-enhancers 1: --model global has no local enhancers; leave'),
    ('TRAIN --model local --n-enhancers 0', 2, '--n-enhancers 0: expected'),
    ('TRAIN --model local --n-enhancers 2 --size native', 2,
     'a picture of 24x20, too small for these networks .at least 32x32.; leave it out'),
    ('train --data own BARE --no-features --feat 3', 2, '--feat 3: without instances and'),
    ('train --data plain TINY', 2, '--nef 4: without instances and --features there is no encoder'),
    ('train --data plain BARE --features', 2,
     '--features: .*plain has no instance maps; --instances components makes them from the labels'),
    ('train --data own BARE --instances none', 0, 'flat: 3 training pairs, 5 labels, no instances'),
    ('train --data plain TINY --instances components', 0, 'components as instances, encoder'),
    ('train --data own BARE --no-features', 0, '5 labels, instance maps\n'),
    ('train --data pairs BARE --instances components', 2,
     '--instances components: pairs holds pictures, not label maps'),
    ('train --data pairs BARE --n-labels 3', 2, '--n-labels 3: A to B has no; leave it out'),
    ('train --data pairs BARE --ignore-label 0', 2, '--ignore-label 0: pairs holds pictures'),
    ('train --data pairs BARE --palette palettes/fine', 2,
     '--palette palettes/fine: pairs holds pictures, not label maps; leave it out'),
    ('train --data mixed --n-down 2 --n-scales 2 --epochs 0 --decay-epochs 0', 2,
     '--epochs 0 --decay-epochs 0: nothing to'),
    ('TRAIN --size native --cache c', 2, '--cache keeps pictures of one size: say'),
    ('train --data street TINY --n-labels 40', 2, '--n-labels 40: Cityscapes has 35; leave it out'),
    ('train --data street TINY --n-labels 35', 0, 'Cityscapes: 6 training pairs, 35 labels'),
    ('check --data ade --n-labels 3', 2, '--n-labels 3: ADE20K scene parsing has 151; leave it'),
    ('check --data nyu --n-labels 41', 2, '--n-labels 41: NYU Depth v2 has 895 or 40; leave it'),
    ('check --data nyu --n-labels 40', 2, 'no classMapping40.mat .or .txt with its 894'),
    ('PICTURE maps/fine.png --n 3', 2, '--n 3: the pictures would all be the same; add --sample'),
    ('PICTURE maps/fine.png --sample --encode photos/fine.png', 2, '--sample and --encode: the'),
    ('USE bare --sample', 2, 'bare: trained without --features, so it has one style only; leave'),
    ('USE bare --inst insts/fine.png', 2, '--inst: bare was trained without instances; leave it'),
    ('USE bare --encode photos/fine.png', 2, 'without --features'),
    ('cluster --run bare', 2, 'bare: trained without --features, there are no styles to cluster'),

    # ---- the data folder
    ('check --data nowhere', 2, 'nowhere: no such folder'),
    ('check --data empty', 2, 'empty: expected train_label/ and train_img/ .*or train_A/ and'),
    ('check --data file', 2, 'file: is a file, expected the folder of a data set'),
    ('check --data loop', 2, 'loop: no such folder'),
    ('check --data linked', 0, 'flat: 3 train pairs'),
    ('check --data /dev/null', 2, '/dev/null: is a file, expected the folder of a data set'),
    ('check --data own/train_label/a.png', 2, 'own/train_label/a.png: is a file, expected the'),
    ('cd own && check --data .', 0, 'flat: 3 train pairs'),
    ("check --data 'two words'", 0, 'flat: 1 train pairs'),
    ("train --data 'two words' BARE", 0, 'runs/two words: 16x16'),
    ('cd own && train --data . TINY', 0, 'runs/own: 16x16'),
    ('check --data no_maps', 2, 'no_maps: flat, but there are no label maps'),
    ('check --data no_photos', PROBLEMS, 'a.png: no photograph of the same name'),
    ('train --data no_photos BARE --skip-bad', 2, 'a.png: no photograph of the same name$'),
    ('check --data img_is_file', 2, 'img_is_file/train_img: cannot be read .Not a directory'),
    ('check --data inst_is_empty', 0, 'flat: 1 train pairs, 5 labels, no instances'),
    ('check --data partly', PROBLEMS, 'b.png: no instance map of the same name\n1 problem$'),
    ('train --data partly TINY', 2, 'b.png: no instance map of the same name; --skip-bad trains'),
    ('train --data partly TINY --skip-bad', 0, 'left out: .*b.png: no instance map'),
    ('check --data same_names', 2, 'a.jpg and .*a.png have the same name: remove or rename one'),
    ('check --data endless', 0, 'flat: 1 train pairs'),
    ('check --data macos', 0, 'flat: 1 train pairs, 5 labels, no instances\n.*\n.*\n.*\nno'),
    ('check --data uppercase', 0, 'flat: 1 train pairs'),
    ('check --data other_suffix', PROBLEMS, 'a.png: no photograph of the same name'),
    ('check --data pipes', PROBLEMS, 'b.png: not a regular file .a pipe or a device.'),
    ('train --data pipes BARE --skip-bad', 0, 'left out: .*b.png: not a regular file'),
    ('check --data channels', PROBLEMS, 'b.npy: 4 channels of float64, expected 5'),
    ('check --data outside', PROBLEMS, r'a.npy: float values must lie in \[-1, 1\]'),
    ('check --data not_helen', 2, 'not_helen: expected train_label/'),
    ('[no rights to list] check --data own', 2, 'cannot be read .Permission denied'),
    ("[ASCII terminal] check --data 'naïve'", 2, r'na\\xefve: no such folder'),

    # ---- pictures and maps that look odd and are fine
    ('check --data exif', 0, 'sizes: 20x24 .1.'),
    ('check --data exif_tiff', 0, 'sizes: 20x24 .1.'),
    ('check --data exif_ignored', PROBLEMS, 'a.png is 24x20 and .*a.jpg is 20x24: they must show'),
    ('train --data exif BARE --size native', 0, 'step 1/1'),
    ('check --data grey1', 0, '2 labels, (.*\n)*labels: 0 60%, 1 40%'),
    ('check --data grey2', 0, '4 labels, (.*\n)*labels: 0 40%, 1 20%, 2 20%, 3 20%'),
    ('check --data grey4', 0, '5 labels, (.*\n)*labels: 0 20%, 1 20%, 2 20%, 3 20%, 4 20%'),
    ('train --data unit BARE', 0, 'step 1/1'),
    ('check --data beyond_inst', 0, 'instances per picture: 7 to 7'),
    ('check --data one_label', 0, '1 labels(.*\n)*labels: 0 100%'),
    ('check --data rare', 0, r'labels: 0 99\.8%, 1 0\.208%'),
    ('check --data one_pixel', 0, 'sizes: 1x1 .1.'),

    # ---- pictures and maps that cannot be used
    ('check --data beyond', PROBLEMS, 'a.npy: ids from 4294967296 to 4294967300; labels have at'),
    ('check --data negative', PROBLEMS, 'a.npy: values from -1 to 3; labels are numbers from 0'),
    ('check --data float_labels', PROBLEMS, 'a.npy: .*one channel of integers, this array'),
    ('check --data float255', PROBLEMS, 'a.tif: a photograph with values from 0 to 254; expected'),
    ('check --data grey32', PROBLEMS, 'a.tif: a photograph with values from .*; expected 8 or 16'),
    ('check --data jpeg_png', PROBLEMS, 'a.png: JPEG changes the values of labels; make PNG files'),
    ('check --data jpeg_png --jpeg-labels', 0, 'warning: jpeg_png: JPEG changes the values of'),
    ('check --data 1x1', PROBLEMS, 'a.png is 1x1 and .*a.png is 96x72: they must show the same'),
    ('check --data wide_inst', PROBLEMS, 'a.png is 24x10 and .*a.png is 24x20: they must show'),
    ('check --data rgb', PROBLEMS, 'a.png: .* this picture is RGB; .*train with --palette FILE'),
    ('check --data ids', PROBLEMS, 'a.png: values from 0 to 6000; .* .is this an instance map'),
    ('check --data bad_b', PROBLEMS, 'b.png: cannot be read as a picture'),
    ('train --data bad_b TINY', 2, 'b.png: cannot be read as a picture .*; --skip-bad trains on'),
    ('train --data bad_b TINY --skip-bad', 0, 'left out: .*b.png: (.*\n)*flat: 2 training pairs'),
    ('train --data bad_b TINY --skip-bad && $ cp own/train_label/b.png x.png && $ mv x.png '
     'bad_b/train_label/b.png && finetune --from runs/bad_b --data bad_b --steps 1', 0,
     'runs/bad_b-32x32: 32x32, 1 steps(.*\n)*step 1/1'),
    ('train --data bad_b TINY --skip-bad && finetune --from runs/bad_b --steps 1', 0, 'step 1/1'),
    ('train --data bad_b TINY --skip-bad && $ cp own/train_label/b.png x.png && $ mv x.png '
     'bad_b/train_label/b.png && train --resume runs/bad_b --steps 2', 0, 'going on at'),
    ('train --data bad_b TINY --skip-bad && cluster --run runs/bad_b', 0, 'instances\n'),
    ('[no memory] TRAIN', 2, 'p2phd train: there is not enough memory; try --precision bf16'),
    ('[no memory] PICTURE maps/fine.png', 2, 'p2phd generate: there is not enough memory'),
    ('[no memory to map] PICTURE maps/fine.npy', 2, 'p2phd generate: there is not enough memory'),
    ('[no memory for networks] TRAIN', STOPPED, 'there is not enough memory'),
    ('[no memory for networks] PICTURE some_bad', 2, 'there is not enough memory'),

    # ---- labels that are unknown
    ('check --data unknown', 0, 'note: unknown: label 255 is taken as unknown, .*--ignore-label'),
    ('check --data unknown', 0, 'flat: 1 train pairs, 5 labels(.*\n)*labels: 0 20%'),
    ('check --data unknown --ignore-label none', 0, '256 labels(.*\n)*labels: 0 20%, 1 20%.*255'),
    ('check --data unknown --ignore-label 0', 0, '257 labels'),
    ('check --data unknown --n-labels 4', 0, 'label 255 is taken as unknown(.*\n)*.*5 labels'),
    ('check --data unknown --n-labels 3', PROBLEMS, 'a.png: label 3 at x=0, y=1 is not one of the 4 labels'),
    ('check --data only_unknown', 0, '2 labels(.*\n)*labels: ignored 100%|1 100%'),
    ('check --data high_labels', 0, '245 labels'),
    ('check --data own --ignore-label 4', 0, '5 labels'),
    ('check --data own --ignore-label None', 2, "--ignore-label: 'None': expected .*, or none"),
    ('check --data rgb --palette palettes/fine --ignore-label 3', 2,
     '--ignore-label 3: has no effect beside --palette, .*; leave it out'),
    ('check --data own --n-labels 2', PROBLEMS, 'a.png: label 2 at x=16, y=0; this run has 2 '),
    ('TRAIN --n-labels 2', 2, r'own/train_label/a.png: label 2 at x=\d+, y=0'),
    ('check --data own --n-labels 4000', 0, 'flat: 3 train pairs, 4000 labels'),

    # ---- palettes
    *each('check --data rgb --palette palettes/{}', 0, 'flat: 1 train pairs, 5 labels',
          'fine bom windows spaces utf16 twice_same'),
    ('check --data rgb --palette palettes/latin', 0, 'café'),
    ('[ASCII terminal] check --data rgb --palette palettes/latin', 0, r'caf\\xe9'),
    ('check --data rgb --palette palettes/names', 0, 'thing, or so 2'),
    ('check --data rgb --palette palettes/gaps', 0, '15 labels(.*\n)*labels: .*14 3'),
    ('check --data rgb --palette palettes/twice', 2,
     'palettes/twice, line 2: 1,2,3 stands for 1, and for 0 above; leave one out'),
    ('check --data rgb --palette palettes/few', PROBLEMS, 'a.png: colour .* is not in the palette'),
    *each('check --data rgb --palette palettes/{}', 2,
          'palettes/{}: no colours in it; expected lines R,G,B', 'empty comments'),
    *each('check --data rgb --palette palettes/{}', 2,
          r'palettes/{}, line 1: expected R,G,B,id\[,name\], got',
          'short words high_colour negative high_id float tabs hex huge binary'),
    ('check --data rgb --palette palettes/pipe', 2, 'palettes/pipe: not a regular file'),
    ('check --data rgb --palette palettes', 2, 'palettes: is a folder, expected a file'),
    ('check --data rgb --palette nowhere', 2, 'nowhere: no such file'),
    ('check --data rgb --palette loop', 2, 'loop: cannot be read .*symbolic links'),
    ('check --data rgb --palette palettes/fine --n-labels 3', 2, '--n-labels 3: .*has the label 4'),
    ('check --data rgb --palette palettes/fine --n-labels 9', 0, '9 labels'),

    # ---- Cityscapes, ADE20K, Helen, NYU
    ('check --data city', 0, 'Cityscapes: 1 train pairs, 35 labels, instance maps'),
    ('check --data city_no_photos', PROBLEMS, 'labelIds.png: no photograph of the same name'),
    ('check --data city_high', PROBLEMS, r'label 40 at x=0, y=0; this run has 35 labels .0 to 34.'),
    ('check --data city_zip', 2, 'city_zip: expected train_label/'),
    ('check --data ade', 0, '151 labels(.*\n)*labels: other 20%, .*caf'),
    *each('check --data ade_{}', 0, r'151 labels(.*\n)*labels: 0 20%, 1 20%',
          'empty nameless short folder'),
    ('check --data ade_latin', 0, 'labels: other 20%, café 20%, thing1 20%'),
    ('check --data ade_utf16', 0, 'labels: other 20%, café 20%, thing1 20%'),
    ('check --data ade --split val', 2, "of the split 'val', but of train; choose with --split"),
    ('check --data ade_full', 0, 'ADE20K full: 1 train pairs'),
    ('check --data ade_seg_only', PROBLEMS, 'A_seg.png: no photograph of the same name'),
    ('check --data helen', 0, 'Helen: 2 train pairs, 11 labels, no instances'),
    ('check --data helen_latin', 0, 'Helen: 1 train pairs'),
    ('check --data helen_sizes', PROBLEMS, '1_1: its masks do not fit together'),
    ('check --data helen_ten', PROBLEMS, '1_1: 10 masks there, expected 11'),
    ('check --data helen_rgb', PROBLEMS, '1_1_lbl03.png: .*this picture is RGB'),
    ('check --data helen_binary', 2, 'helen_binary: (no label maps|Helen, but)'),
    ('check --data helen_nobody', 2, 'helen_nobody: (no label maps|Helen, but there are no label)'),
    ('generate --run face --label helen/labels/1_1', 0, '1_1_generated.png 24x20'),
    ('generate --run face --out made --label helen_ten/labels/1_1', 2,
     '1_1: 10 masks there, expected 11'),
    ('check --data nyu', 0, 'NYU Depth v2: 2 train pairs, 895 labels, instance maps'),
    ('train --data nyu/nyu_depth_v2_labeled.mat TINY', 0, 'runs/nyu_depth_v2_labeled.mat: 16x16'),
    ('[no h5py] check --data nyu', 2, 'nyu_depth_v2_labeled.mat: .*h5py.*: pip install h5py'),
    ('check --data nyu --split test', 0, 'NYU Depth v2: 2 test pairs'),
    *each('check --data nyu_{}', 2, 'labeled.mat: not the labelled pictures of NYU Depth v2 .',
          'no_keys no_images lengths flat line text float number group float_images'),
    ('check --data nyu_empty', 2, 'nyu_empty: NYU Depth v2, but there are no label'),
    *each('check --data nyu_{}', 2, 'labeled.mat: cannot be read as MATLAB 7.3',
          'not_hdf5 old_matlab no_bytes'),
    ('check --data nyu_folder', 2, 'nyu_folder: expected train_label/'),
    ('check --data nyu_splits', 0, 'NYU Depth v2: 1 train pairs'),
    ('check --data nyu_splits --split test', 2, 'splits.mat: cannot be read .*testNdxs'),
    ('check --data nyu_splits --split other', 2, "no label maps of the split 'other', but of"),
    *each('check --data nyu_splits_{}', 2, 'splits.mat: cannot be read', 'text far other empty'),
    ('check --data nyu_splits_pipe', 0, '2 train pairs'),
    ('check --data nyu_40 --n-labels 40', 0, '41 labels'),
    ('check --data nyu_40_few --n-labels 40', 2, 'classMapping40.txt: expected 894 numbers .*got'),
    ('check --data nyu_40_high --n-labels 40', 2, 'classMapping40.txt: expected 894 numbers from'),
    ('check --data nyu_40_text --n-labels 40', 2, "classMapping40.txt: cannot be read .*'one'"),

    # ---- training: where to
    ('TRAIN --run run', 2, 'run: holds a trained run already; --resume run goes on'),
    ('TRAIN --run link_pt', 2, 'link_pt: holds a trained run already'),
    ('TRAIN --run official', 2, 'official: holds a run of the official code'),
    ('TRAIN --run file', 2, 'file: is a file, not a folder; choose another'),
    ('TRAIN --run file/x', 2, 'file/x: cannot be made .*Not a directory'),
    ('TRAIN --run /proc/x', 2, '/proc/x: cannot be made'),
    ('TRAIN --run loop', 2, 'loop: cannot be made .*File exists'),
    ('TRAIN --run empty', 0, 'empty/checkpoint-0000001.pt'),
    ("TRAIN --run 'x\ny'", 0, 'step 1/1'),
    ('TRAIN --run=-x', 0, '-x/checkpoint-0000001.pt'),
    (f'TRAIN --run {"x" * 300}', 2, 'xxx: File name too long'),
    ('TRAIN --run .', 0, 'checkpoint-0000001.pt'),
    ('$ mkdir d && cd d && train --data ../own TINY --run . --cache', 0, 'd-cache/index.json'),
    ('TRAIN --run / --cache', 2, '/: there is no folder beside it; name one'),
    ('train --data / TINY', 2, '/: expected train_label/'),
    ('$ touch runs && TRAIN', 2, 'runs/own: cannot be made .*Not a directory|exists'),
    ('$ mkdir -p runs; touch runs/own && TRAIN', 2, 'runs/own: is a file, not'),
    ('[no rights] TRAIN', 2, 'runs/own: cannot be made .*Permission denied'),
    ('[no room] TRAIN --run new', STOPPED, 'checkpoint-0000000.pt: not written, it needs'),
    ('[full disk] TRAIN --run new', STOPPED, 'new.*: cannot be written .*No space left'),
    ('[busy] TRAIN --run empty', 2, 'empty: another process is at work there; wait for it'),
    ('[no locks] TRAIN --run new', 0, 'warning: new: cannot be locked against'),
    ('TRAIN --run other_name', 0, 'other_name/checkpoint-0000001.pt'),
    ('TRAIN --cache file', 2, 'file: is a file, not a folder; choose another'),
    ('TRAIN --cache', 0, 'runs/own-cache/index.json'),
    ('TRAIN --cache own', 0, 'own/index.json'),
    ('[no room] CACHED', STOPPED, '--cache .*c: needs 0 MiB, more than is free'),
    ('[full disk] CACHED', STOPPED, 'index.json: cannot be written .*No space left'),
    ('CACHED --run x && $ printf x > c/y; mv c/y c/label.npy && CACHED', 2,
     'c: not a whole cache; delete it'),
    ('CACHED --run x && $ cp maps/fine.npy c/label.npy && CACHED', 2,
     r'c: not a whole cache; .*label of shape \(20, 24\)'),
    ('CACHED --run x && $ rm c/image.npy && CACHED', 2, 'c.image.npy: no such file'),
    ('CACHED --run x && $ echo x > c/y; mv c/y c/index.json && CACHED', 0, 'step 1/1'),
    ('CACHED --run x && $ rm c/index.json; mkdir c/index.json && CACHED', 2,
     'c/index.json: cannot be replaced; delete it'),
    ('CACHED --run x && $ rm c/image.npy; mkfifo c/image.npy && CACHED', 2,
     'c.image.npy: not a regular file'),
    ('TRAIN --size native --workers 1024', 0, 'step 1/1'),
    ('TRAIN --precision bf16', 0, 'in bf16'),
    ('TRAIN --precision tf32', 2, 'p2phd train: --precision tf32: the CPU has no'),
    ('TRAIN --precision auto', 0, 'on cpu in fp32'),
    ('TRAIN --accumulate 2', 2, 'p2phd train: --accumulate 2: expected a divisor of --batch 1'),
    ('TRAIN --batch 2 --accumulate 2', 0, 'step 1/1'),
    ('TRAIN --recompute', 0, 'memory: about .* GiB needed, .* GiB free'),
    ('train --data own --size 16x16 --model unet --n-down 2 --n-scales 2 --recompute', 2,
     '--recompute: a U-Net has no residual blocks; leave it out'),
    ('PICTURE maps/fine.png --precision bf16', 0, 'fine_generated.png'),
    ('PICTURE maps/fine.png --precision half', 2, "--precision: invalid choice: 'half'"),

    # ---- the weights of VGG-19
    ('TRAIN --vgg', 2, '--vgg: .*give the path of vgg19-dcbb9e9d.pth'),
    ('TRAIN --vgg vgg.pth', 0, 'vgg 0.000'),
    ('TRAIN --vgg nowhere.pth', 2, '--vgg .*nowhere.pth: .*no such file; give the path'),
    *each('TRAIN --vgg vgg_{}.pth', 2, '--vgg .*vgg_{}.pth: .*; give the path of',
          'part shape list text empty pipe'),
    ('TRAIN --vgg own', 2, '--vgg .*own: .*is a folder'),
    ("TRAIN --vgg ''", 2, "--vgg: '': expected a path"),
    ('TRAIN --vgg vgg.pth --no-vgg', 0, 'step 1/1 .*matching [^v]* d_fake'),
    ('TRAIN --size 8x8 --vgg vgg.pth', 2, '--size 8x8: .*at least 16; 16x16 fits'),
    ('train --resume vgg_gone --steps 2', 2, '--vgg .*gone.pth: .*no such file; .*to go on with a'),
    ('train --resume vgg_gone --steps 2 --vgg vgg.pth', 0, 'going on at step 1 of 2'),
    ('train --resume with_vgg --steps 2', 0, 'step 2/2 .*vgg'),
    ('$ mkdir d && cd d && train --resume ../with_vgg --steps 2', 0, 'step 2/2 .*vgg'),
    ('train --resume with_vgg --steps 2 --no-vgg', 2, '--no-vgg: with_vgg was started with'),
    ('train --resume run --steps 2 --vgg vgg.pth', 2, '--vgg .*: run was started without it'),
    ('finetune --from with_vgg --steps 1 --no-vgg', 0, 'step 1/1 .*matching [^v]* d_fake'),
    ('finetune --from with_vgg --steps 1', 0, 'step 1/1 .*vgg'),
    ('finetune --from vgg_gone --steps 1', 2, '--vgg .*gone.pth: .*no such file; give the path'),
    ('finetune --from vgg_gone --steps 1 --no-vgg', 0, 'step 1/1'),
    ('cluster --run vgg_gone', 0, 'vgg_gone/styles.npz'),

    # ---- going on
    ('train --resume run', 0, 'run: trained to the end, 1 steps; --epochs or --steps makes it'),
    ('train --resume run --steps 3', 0, 'run: going on at step 1 of 3'),
    ('cd run && train --resume . --steps 3', 0, 'going on at step 1 of 3'),
    ('train --run run --resume run/../run --steps 3', 0, 'going on at step 1 of 3'),
    ('train --run bare --resume run', 2, '--run bare: --resume run goes on in its own folder'),
    ('finetune --resume run --steps 3', 0, 'run: going on at step 1 of 3'),
    *each('train --resume {}', 2, '{}: no checkpoint there; expected the folder of a run',
          'nowhere own . / other_name'),
    *each('train --resume {}', 2, '{}: is a file; expected the folder of a run',
          'file run/checkpoint-0000001.pt'),
    ("train --resume ''", 2, 'runs/: no trained run there'),
    ('train --resume loop', 2, 'loop: '),
    ('train --resume official', 2, 'official: a run of the official code cannot be resumed'),
    ('[busy] train --resume run --steps 2', 2, 'run: .* is at work there; wait for it or stop it'),
    ('train --resume lock_folder --steps 2', 2, 'lock_folder/.lock'),
    ('train --resume lock_link --steps 2', 2, 'lock_link/.lock'),
    ('train --resume log_folder --steps 2', STOPPED, 'log_folder/log.csv: cannot be written'),
    ('train --resume config_folder --steps 2', 2, 'config_folder/config.json: cannot be written'),
    ('train --resume samples_file --steps 2', 0, 'warning: .*samples.*; training goes on'),
    ('train --resume log_damaged --steps 2', 0, 'going on at step 1 of 2'),
    ('train --resume later_bad --steps 2', 0, 'checkpoint-0000002.pt: damaged or cut'),
    *each('train --resume run {}', 2, '{}: run was started with',
          '--lr=0.1 --size=32x32 --size=native --ngf=9 --model=local --n-enhancers=2 '
          '--gan=vanilla --crop=8x8 --split=val --palette=palettes/fine --ignore-label=3 '
          '--n-labels=6 --instances=none --seed=1'),
    ('train --resume native --size native --steps 2', 0, 'going on at step 1'),
    ('train --resume run --no-flip', 2, '--no-flip: run was started with it'),
    ('train --resume run --no-features', 2, '--no-features: run was started with it'),
    ('train --resume run --skip-bad', 2, '--skip-bad: run was started without it'),
    ('train --resume run --epochs 1 --decay-epochs 0', 0, 'going on at step 1 of 3'),
    ('train --resume run --workers 2 --keep 9 --save-every 1 --steps 2', 0, 'step 2/2'),
    ('train --resume gone --steps 2', 2, 'moved_away: the data set of gone is not there; say with'),
    ('train --resume gone --steps 2 --data own', 0, 'going on at step 1 of 2'),
    ('train --resume run --steps 2 --data street', 2,
     'street: holds 6 pictures, and run was started with 3|street: Cityscapes'),
    ('train --resume run --steps 2 --data plain', 2, 'plain: has no instance maps, and the run'),
    ('train --resume run --steps 2 --data pairs', 2, 'pairs: A to B, and the run was trained on'),
    ('train --resume run --steps 2 --data nowhere', 2, 'nowhere: the data set of run is not there'),
    ('train --resume run --steps 2 --data bad_b', 2, 'b.png: cannot be read as a picture'),
    ('train --resume cached --steps 2', 0, 'note: .*gone_cache holds no cache; one is made beside'),
    ('train --resume cached --steps 2 --cache c', 0, 'c/index.json'),
    ('[full disk] train --resume run --steps 2', 2, 'cannot be written .*No space left.*untouched'),

    # ---- checkpoints that are none
    *each('USE {}', 2, '{}/checkpoint-0000001.pt: damaged or cut short|{}.*: not sealed',
          'cut flipped unsealed'),
    ('USE empty_pt', 2, 'empty_pt/checkpoint-0000001.pt: cut short'),
    ('USE folder_pt', 2, 'checkpoint-0000001.pt: Is a directory'),
    ('USE pipe_pt', 2, 'checkpoint-0000001.pt: not a regular file'),
    ('USE link_pt', 2, 'link_pt.*: No such file'),
    ('USE later_bad', 0, 'checkpoint-0000002.pt: .*; going back to'),
    *each('USE {}', 2, '{}/checkpoint-0000001.pt: not a checkpoint of this program',
          'is_list is_number is_tensor is_nothing'),
    ('USE nan', 2,
     'nan/checkpoint-0000001.pt: weights of E are not finite; if there is an earlier checkpoint, '
     'remove this one'),
    ('finetune --from nan --steps 1', 2, 'weights of E are not finite'),
    *each('cluster --run {}', 2, '{}/checkpoint-0000001.pt: not a checkpoint of this program .',
          'no_weights no_D text_weights text_step minus no_step no_layout wide_feat wide_ngf '
          'infinite text_config long_names number_data table nul'),
    ('cluster --run odd_optimizers', 0, 'odd_optimizers/styles.npz'),
    *each('train --resume {} --steps 2', 2,
          '{}/checkpoint-0000001.pt: not a checkpoint of this program .',
          'odd_optimizers no_optimizers odd_rows odd_sums odd_bad'),

    # ---- finetuning
    ('finetune --from nowhere', 2, 'nowhere: no checkpoint there'),
    ('finetune --from run --steps 1', 0, 'runs/run-32x32: 32x32, 1 steps'),
    ('finetune --from run --steps 1 --fix-global 0', 0, 'the rest learns along from step 0 on'),
    ('finetune --from run --steps 1', 0, 'warning: --fix-global 10 is 30 steps, all of this run:'),
    ('finetune --from odd_ngf --steps 1', 2, 'odd_ngf: --ngf 9 is odd; the enhancer around it has'),
    ('finetune --from native --steps 1', 2, 'native was trained at native size; say with --size'),
    ('finetune --from native --steps 1 --size native', 0, 'runs/native-native: native size'),
    ('finetune --from native --steps 1 --size 32x32', 0, 'runs/native-32x32: 32x32'),
    ('finetune --from run --steps 1 --size 20x20', 2, '--size 20x20: these networks need'),
    ('finetune --from run --steps 1 --run run', 2, 'run: holds a trained run already'),
    ('finetune --from gone --steps 1', 2, 'moved_away: the data set of gone is not there; say'),
    ('finetune --from skipped --steps 1', 0, 'step 1/1'),
    ('finetune --from local --steps 1', 2, 'a picture of 24x20, too small .*at least 32x32'),
    ('finetune --from local --steps 1 --n-blocks-local 2', 2,
     '--n-blocks-local 2: local has 1, and all its enhancers are alike'),
    ('finetune --from run --steps 1 --data plain', 2, 'plain: has no instance maps, and the run'),
    ('finetune --from run --steps 1 --data street', 2, 'label .* this run has 5 labels .0 to 4.'),
    ('finetune --from bare --steps 1 --data own', 0, 'bare-32x32'),
    ('finetune --from official --steps 1', 2,
     'official: does not say what it was trained on; name it with --data DIR'),
    ('finetune --from official_no_E --steps 1 --data own --size 64x64', 2,
     'official_no_E: G takes .* channels, 3 more than .*: features; copy latest_net_E.pth of'),
    ('cd run && finetune --from . --steps 1', 0, 'runs/run-32x32'),
    ('finetune --from run --data nowhere', 2, 'nowhere: the data set of run is not there; say'),

    # ---- clustering
    *each('cluster --run {}', 2, '{}: no checkpoint there; expected the folder of a run',
          'nowhere . / /dev/null own'),
    *each('cluster --run {}', 2, '{}: is a file; expected the folder of a run',
          'file run/checkpoint-0000001.pt'),
    ('cd run && cluster --run .', 0, 'styles.npz'),
    ('cluster --run run --k 30', 0, 'run/styles.npz'),
    ('cluster --run run --min-pixels 99999', 2, '--min-pixels 99999: no instance .* is that large'),
    ('cluster --run gone', 2, 'gone: its training data is not at hand at .*moved_away; run'),
    ('cluster --run gone --data own', 0, 'gone/styles.npz'),
    ('cluster --run run --data bad_b', 2, 'b.png: cannot be read as a picture'),
    ('cluster --run run --data plain', 2, 'plain: has no instance maps, and the run was trained'),
    ('cluster --run run --data nowhere', 2, 'run: its training data is not at hand at nowhere'),
    ('cluster --run run --data street', 2, 'label .* this run has 5 labels .0 to 4.'),
    ('cluster --run native_large', 2, 'a picture of 24x20, too small|not a checkpoint'),
    ('cluster --run native --data one_pixel', 2, 'one_pixel: has no instance maps'),
    ('cluster --run official', 2, 'official: does not say what it was trained on; run .*cluster'),
    ('[full disk] cluster --run run', 2, 'styles.npz: cannot be written .*No space'),
    ('cluster --run styles_folder', 2, 'styles.npz: cannot be written'),
    ('cluster --run styles_text', 0, 'styles_text/styles.npz'),
    ('cluster --run skipped', 0, 'skipped/styles.npz'),

    # ---- styles that are none
    *each('USE styles_{}', 2, 'styles_{}/styles.npz: not a whole file of styles; delete it',
          'text empty cut nan shape minus words many object'),
    ('USE styles_pipe', 2, 'styles.npz: not a regular file'),
    ('USE styles_folder', 2, 'styles.npz: is a folder, expected a file'),
    ('USE styles_link', 0, 'clustering(.*\n)*.*fine_generated.png'),
    ('USE styles_old', 0, 'its styles are of step 0, and the run is at step 1: clustering'),
    ('USE gone', 0, 'fine_generated.png 24x20'),
    ('$ rm gone/styles.npz && USE gone', 2,
     'gone: its training data is not at hand at .*; run .*cluster --run gone --data DIR'),
    ('[full disk] PICTURE maps/fine.png', 2, 'made/fine_generated.png: cannot be written .*No'),
    ('$ mkdir made; echo old > made/fine_generated.png && [full disk] PICTURE maps/fine.png', 2,
     'fine_generated.png: cannot be written .*No space left.*; what was there before is untouched'),
    ("PICTURE maps/fine.png --style ''", 2, '--style : expected LABEL=K'),
    ('PICTURE maps/fine.png --style 1', 2, '--style 1: expected LABEL=K, a label and the number'),
    ('PICTURE maps/fine.png --style =', 2, "--style =: no label ''; there are styles of"),
    ('PICTURE maps/fine.png --style 1=', 2, '--style 1=: 1 has the styles 0 to'),
    *each('PICTURE maps/fine.png --style 1={}', 2, '--style 1={}: 1 has the styles 0 to',
          '-1 one ² 99999999999999999999'),
    ('PICTURE maps/fine.png --style 1=٠', 0, 'fine_generated.png'),
    ('PICTURE maps/fine.png --style 99=0', 2, "--style 99=0: no label '99'; there are styles of 0"),
    ('PICTURE maps/fine.png --style -1=0', 2, "expected at least one|no label '-1'"),
    ('PICTURE maps/fine.png --style a=b=c', 2, "--style a=b=c: no label 'a=b'"),
    ("PICTURE maps/fine.png --style 'a\nb=0'", 2, r"no label 'a\\nb'"),
    ('USE street_run --out made --style car=99', 2, 'car has the styles'),
    ('USE street_run --out made --style Car=0', 2, "no label 'Car'"),
    ('USE street_run --out made --style train=0', 2,
     '--style train=0: train has no styles, it is not in the training data'),
    ('PICTURE maps/fine.png --sample --style 1=0', 0, 'fine_seed0_1.png 24x20'),
    ('PICTURE maps/fine.png --sample --n 2', 0, 'fine_seed0_2.png'),
    ('PICTURE maps/fine.png --sample --seed 4294967295', 0, 'fine_seed4294967295_1.png'),

    # ---- label maps
    *each('PICTURE maps/{}', 0, 'made/.*_generated.png 24x20$',
          'UPPER.PNG =.png .png.png no_suffix bmp.bmp pages.tif interlaced_palette.png '
          'one_colour_palette.png transparent_palette.png transparent_grey.png grey1.png '
          'grey2.png grey4.png bit.tif i16.png i16b.tif i32.tif deflate.tif link.png fine.npy '
          'bool.npy fortran.npy big_endian.npy channel.npy i64.npy'),
    ("PICTURE 'maps/two words.png'", 0, 'made/two words_generated.png 24x20'),
    ("PICTURE 'maps/two\nlines.png'", 0, 'made/two\nlines_generated.png 24x20'),
    ("PICTURE 'maps/gone\ngone.png'", 2, r'maps/gone\\ngone.png: no such file'),
    ('PICTURE "maps/quotes\'\\".png"', 0, 'made/quotes\'"_generated.png 24x20'),
    ('cd maps && generate --run ../run --out ../made --label=-dash.png', 0,
     'made/-dash_generated.png'),
    (r'PICTURE maps/naïve\ 名.png', 0, 'made/naïve 名_generated.png 24x20'),
    (r'[ASCII terminal] PICTURE maps/naïve\ 名.png', 0, r'made/na\\xefve \\u540d_generated.png'),
    ('PICTURE maps/latin\udce9.png', 0, 'made/latin.*_generated.png'),
    ('PICTURE maps/gone\udce9.png', 2, r'maps/gone\\udce9.png: no such file'),
    (f'PICTURE maps/{"x" * 240}.png', 2, 'x_generated.png: cannot be written .*File name too long'),
    (f'PICTURE maps/{"y" * 300}.png', 2, 'yyy.png: File name too long'),
    *each('PICTURE maps/{}', 2, 'maps/{}: (cannot be read as a picture|damaged)',
          'gif.gif text.png empty.png cut.png checksum.png bomb.png wide.png no_width.png '
          'odd_depth.png eps.png svg.png'),
    *each('PICTURE maps/{}', 2, 'maps/{}: a map of ids .* this picture is .*--palette FILE',
          'lossless.webp animated.webp la.png rgb.png rgba.png lab.tif float.tif'),
    *each('PICTURE maps/{}', 2, 'maps/{}: JPEG changes the values of labels; make PNG files',
          'cmyk.jpg jpeg.png jpeg.tif'),
    ('PICTURE maps/turned.tif', 0, 'made/turned_generated.png 20x24'),
    ('PICTURE maps/1x1.png', 0, 'made/1x1_generated.png 1x1'),
    ('PICTURE maps/2x1.png', 0, 'made/2x1_generated.png 2x1'),
    ('PICTURE maps/1x300.png', 0, 'made/1x300_generated.png 1x300'),
    ('PICTURE maps/large.png', 0, 'note: maps/large.png: 72x96, and run learned at 16x16; --size'),
    ('PICTURE maps/high.png', 2, 'maps/high.png: label 77 at x=0, y=0; this run has 5 labels'),
    ('PICTURE maps/unknown.png', 2, 'maps/unknown.png: label 255 at x=8, y=1; this run has 5'),
    *each('PICTURE maps/{}', 2, 'maps/{}: no pictures there', 'folder.png none text_only'),
    *each('PICTURE maps/{}', 2, 'maps/{}: not a regular file .a pipe or a device',
          'pipe.png pipe.npy device.png device.npy'),
    ('PICTURE maps/loop.png', 2, 'maps/loop.png: cannot be read .*symbolic links'),
    ('PICTURE maps/nowhere.png', 2, 'maps/nowhere.png: a link to a file that is not there'),
    ('PICTURE maps/gone.png', 2, 'maps/gone.png: no such file'),
    ('PICTURE maps/fine.png/x.png', 2, 'maps/fine.png/x.png: (no such file|cannot be read)'),
    ('PICTURE http://example.org/map.png', 2, 'http:/+example.org/map.png: no such file'),
    ("PICTURE 'maps/*.png'", 2, r'maps/\*.png: no such file'),
    ('PICTURE maps/u64.npy', 2, 'maps/u64.npy: ids from 18446744073709551615 to'),
    ('PICTURE maps/beyond.npy', 2, 'maps/beyond.npy: ids from 4294967296 to 4294967300'),
    ('PICTURE maps/negative.npy', 2, 'maps/negative.npy: label -2 at x=0, y=0'),
    ('PICTURE maps/least.npy', 2, 'maps/least.npy: ids from -9223372036854775808 to'),
    *each('PICTURE maps/{}.npy', 2,
          r'maps/{}.npy: a map of ids has one channel of integers, this array has \d of',
          'float half complex text time records bands'),
    *each('PICTURE maps/{}.npy', 2, 'maps/{}.npy: cannot be read as an array',
          'object zip cut header no_bytes lie version'),
    *each('PICTURE maps/{}.npy', 2,
          r'maps/{}.npy: an array of shape \(.*\), expected .height, width',
          'empty nothing line number four long'),

    # ---- several, and folders of them
    ('PICTURE some_bad', SOME,
     'b.png: cannot be read (.*\n)*.*1 of 3 label maps(.*\n)*made/c_generated'),
    ('PICTURE all_bad', SOME, '3 of 3 label maps could not be used'),
    ('PICTURE maps/fine.png maps/gone.png', SOME, 'gone.png: no such file\n(.*\n)*.*1 of 2 label'),
    ('PICTURE maps/pipe.png maps/fine.png maps/loop.png', SOME, '2 of 3 label maps could not be'),
    ('PICTURE some_named', 0, 'made/x_generated.png 24x20\nmade/y_generated.png 24x20'),
    ('PICTURE some_named --inst some_named', 2, 'y.png: no file of the same name in some_named'),
    ('PICTURE with_macos', 0, 'made/a_generated.png 24x20$'),
    ('PICTURE twice', 2, 'twice/a.tif and twice/a.png have the same name: remove or rename one'),
    ('PICTURE deep', 0, 'made/a_generated.png 24x20$'),
    ('PICTURE some_bad twice/a.png', 2, 'a.png and .*a.png have the same name: take them one at a'),
    ('PICTURE maps/fine.png --inst maps/large.png', 2, 'maps/large.png is 72x96 and maps/fine.png'),
    ('PICTURE maps/fine.png --inst maps/rgb.png', 2, 'maps/rgb.png: .*RGB'),
    ('PICTURE maps/fine.png --inst maps/none', 2, 'maps/none: no pictures there'),
    ('PICTURE maps/fine.png --inst gone', 2, 'gone: '),
    ('PICTURE maps/fine.png --inst maps/u64.npy', 0, 'made/fine_generated.png'),
    ('PICTURE maps/fine.png --inst maps/negative.npy', 0, 'made/fine_generated.png'),
    ('PICTURE maps/fine.png --inst insts', 0, 'made/fine_generated.png'),
    ('PICTURE maps/bmp.bmp --inst insts', 2, 'maps/bmp.bmp: no file of the same name in insts'),
    ('PICTURE maps/fine.png maps/bmp.bmp --inst insts/fine.png', 2, 'bmp.bmp: no file of the same'),
    ('PICTURE maps/fine.png maps/bmp.bmp --encode photos/fine.png', 2,
     'bmp.bmp: no file of the same'),
    ('PICTURE some_bad --out some_bad', 2, '--out some_bad lies in some_bad: its pictures would'),
    ('PICTURE some_bad --out some_bad/../some_bad/x', 2, 'lies in some_bad'),
    ('cd some_bad && generate --run ../run --label . --out made', 2, r'--out made lies in \.'),
    ('generate --run run --label run', 2, 'lies in run: |run: no pictures there'),
    ('PICTURE maps/fine.png --out file', 2, 'file: is a file, not a folder; choose another'),
    ('PICTURE maps/fine.png --out file/x', 2, 'file/x: cannot be made .*Not a directory'),
    ('PICTURE maps/fine.png --out /dev/null', 2, '/dev/null: is a file, not a folder'),
    ('PICTURE maps/fine.png --out loop', 2, 'loop: cannot be made .*File exists'),
    ('PICTURE maps/fine.png --out x/y/z', 0, 'x/y/z/fine_generated.png 24x20'),
    ('[no rights] PICTURE maps/fine.png', 2, 'made: cannot be made .*Permission denied'),
    ('$ mkdir -p made/fine_generated.png && PICTURE maps/fine.png', 2,
     'fine_generated.png: cannot be written .*directory'),

    # ---- photographs to take the styles from
    *each('ENCODE photos/{}', 0, 'made/fine_encoded.png 24x20$',
          'fine.png grey.png la.png rgba.png palette.png bit.png cmyk.jpg ycc.tif animated.webp '
          'png.jpg 16.png 16.tif unit.tif turned.jpg turned.tif upside.jpg odd_turn.jpg '
          'double.png nearly.png unit.npy minus.npy eight.npy half.npy long.npy big_endian.npy '
          'fortran.npy'),
    ('ENCODE photos', 2, '16.tif and photos/16.png have the same name: remove or rename one'),
    ('ENCODE insts', 0, 'made/fine_encoded.png 24x20'),
    ('ENCODE photos/fine.png --style 0=0', 0, 'made/fine_encoded.png 24x20'),
    *each('ENCODE photos/{}', 2,
          'photos/{}: a photograph with values from .*; expected 8 or 16 bits',
          '32.tif 255.tif nan.tif inf.tif'),
    ('ENCODE photos/sideways.png', 2, 'photos/sideways.png is 20x24 and its label map is 24x20:'),
    ('ENCODE photos/cut.jpg', 2, 'photos/cut.jpg: (cannot be read|damaged)'),
    ('ENCODE photos/text.jpg', 2, 'photos/text.jpg: cannot be read as a picture'),
    ('ENCODE photos/pipe.jpg', 2, 'photos/pipe.jpg: not a regular file'),
    ('ENCODE photos/gone.jpg', 2, 'photos/gone.jpg: no such file'),
    ('ENCODE maps/none', 2, 'maps/none: no pictures there'),
    *each('ENCODE photos/{}', 2, r'photos/{}: float values must lie in \[-1, 1\]',
          '255.npy nan.npy huge.npy'),
    *each('ENCODE photos/{}', 2, r'photos/{}: \d channels of .*, expected 3 of uint8, or float',
          'int.npy i8.npy complex.npy grey.npy five.npy'),
    ('PICTURE maps/1x1.png --encode photos/fine.png', 2, 'photos/fine.png is 24x20 and its label'),

    # ---- pictures to pictures
    ('generate --run ab --out made --label pairs/train_A/a.png', 0, 'made/a_generated.png 24x20'),
    ('generate --run ab --out made --label photos/fine.png', 0, 'made/fine_generated.png 24x20'),
    ('generate --run ab --out made --label photos/turned.jpg', 0, 'made/turned_generated.png'),
    ('generate --run ab --out made --label photos/five.npy', 2, 'five.npy: 5 channels .*expected'),
    ('generate --run ab --out made --label photos/nan.npy', 2, 'nan.npy: .*'),
    ('generate --run ab --out made --label photos/pipe.jpg', 2, 'pipe.jpg: not a regular file'),

    # ---- runs
    ('USE loop', 2, 'loop: '),
    ('cd run && generate --run . --label ../maps/fine.png', 0, 'generated/fine_generated.png'),
    ('$ mkdir runs; cp -r run runs/x && generate --label maps/fine.png', 0,
     'runs/x/generated/fine_gen'),
    ('$ mkdir runs; cp -r run runs/x; touch runs/y && generate --label maps/fine.png', 0,
     'runs/x/gen'),
    ('USE street_run --out made', 0, 'warning: no styles for .*dynamic|no styles for unlabeled'),
    ('generate --run native --label maps/1x300.png', 0, 'native/generated/1x300_generated.png'),
    ('USE local', 0, 'local/generated/fine_generated.png 24x20'),

    # ---- runs of the official code
    ('USE official --out made', 0, 'made/fine_generated.png 24x20'),
    ('USE official_no_E --out made', 2,
     'official_no_E: G takes .* copy latest_net_E.pth of the run that its encoder comes from into'),
    ('USE official_bad_G', 2, 'official_bad_G: not the networks of an'),
    ('USE official_bad_E', 2, 'official_bad_E: '),
    ('USE official_text', 2, 'latest_net_G.pth: cannot be read'),
    ('USE official_folder', 2, 'latest_net_D.pth: is a folder'),
    ('USE official_nan', 2, 'official_nan: weights of G are not finite'),
    ('USE official_pipe', 2, 'official_pipe.*: '),
    ('USE official_styles', 2, 'features_clustered_010.npy: not clustered features of the'),
    ('cluster --run official --data street', 0, 'official/styles.npz'),
    ('finetune --from official --data street --steps 1 --size 64x64', 0,
     'runs/official-64x64: 64x64'),

    # ---- the baseline and the ablations
    ('TRAIN --model pix2pix', 2, '--n-blocks 1: a U-Net has no residual blocks; leave it out'),
    ('TRAIN --model pix', 2, "--model: invalid choice: 'pix'"),
    ('train --data own --size 16x16 --n-down-encoder 2 --model unet --n-down 1 --n-scales 2', 2,
     '--n-down 1: expected at least 2 levels'),
    ('train --data own --model unet --size 33x32', 2, '--size 33x32: these networks need'),
    ('train --data own --model pix2pix --n-enhancers 2', 2, '--model pix2pix has no local enhanc'),
    ('train --data plain BARE --no-boundary', 2, '--no-boundary: there are no instances; leave it'),
    ('train --data plain TINY --features-of label', 0, 'no instances, encoder trained along'),
    ('train --data pairs TINY --features-of label', 2, "--features-of 'label': expected label m"),
    ('TRAIN --no-features --features-of label', 2, '--n.*: without instances and --features'),
    ('TRAIN --lambda-vgg 3', 2, '--lambda-vgg 3.0: there is no --vgg; leave it out'),
    ('TRAIN --lambda-feature -1', 2, "--lambda-feature: '-1': expected a number from 0 to 1e6"),
    ('TRAIN --lambda-l1 nan', 2, "--lambda-l1: 'nan': expected a number from 0 to 1e6"),
    ('TRAIN --ema 1', 2, "--ema: '1': expected a number from 0 to below 1"),
    ('TRAIN --ema -0.1', 2, "--ema: '-0.1': expected a number"),
    ('TRAIN --gan wgan', 2, "--gan: invalid choice: 'wgan'"),
    ('TRAIN --up cubic', 2, "--up: invalid choice: 'cubic'"),
    ('TRAIN --hold-out 99', 2, '--hold-out 99: there are 3 pictures; leave some to train on'),
    ('TRAIN --hold-out 1', 0, 'step 1/1'),
    ('TRAIN --evaluate-every 0', 2, "--evaluate-every: '0': expected a whole number from 1"),
    ('TRAIN --evaluate-every 1', 2, 'own: no split val or test to score; use --hold-out N'),
    ('train --resume run --up nearest --steps 9', 2, '--up nearest: run was started with transp'),
    ('train --resume run --ema 0.5 --steps 9', 2, '--ema 0.5: run was started with 0.999'),

    # ---- scores
    ('evaluate', 2, 'runs/: no trained run there; train one, or name one with --run'),
    ('evaluate --run nowhere', 2, 'nowhere: no checkpoint there'),
    ('evaluate --run run --split val --data own', 2, "own: no label maps of the split 'val', but"),
    ('evaluate --run run --split ../x', 2, "--split: '../x': expected letters, digits"),
    ('evaluate --run run --data nowhere', 2, 'nowhere: no such folder'),
    ('evaluate --run run --split train --data pairs', 2, 'pairs: its layout is A to B, the run was trained on'),
    ('evaluate --run run --checkpoint best', 2, 'run/best.pt: not there; train --evaluate-every N'),
    ('evaluate --run run --checkpoint worst', 2, "--checkpoint: invalid choice: 'worst'"),
    ('evaluate --run run --void dragon', 2, '--void dragon: no such label; expected numbers from 0 to 4'),
    ('evaluate --run run --void 35', 2, '--void 35: no such label; expected numbers from 0 to 4'),
    ('evaluate --run run --void 1e9', 2, '--void 1e9: no such label; expected numbers'),
    ('evaluate --run run --split train --judge maps/fine.png', 2,
     'maps/fine.png: not a judge written by evaluate; delete it, or name another'),
    ('evaluate --run run --split train --judge maps', 2, 'maps: is a folder, expected a file'),
    ('evaluate --run run --judge a --predictions b', 2, '--judge and --predictions: one of them'),
    ('evaluate --run run --split train --predictions maps', 2,
     'maps/real/.*png: no such prediction; name it as its picture'),
    ('evaluate --run run --vgg nowhere.pth', 2, '--vgg nowhere.pth: nowhere.pth: no such file'),
    ('evaluate --run run --styles random', 2, "--styles: invalid choice: 'random'"),
    ('evaluate --run run --size 0x0', 2, "--size: '0x0': expected WIDTHxHEIGHT"),
    ('PICTURE maps/fine.png --checkpoint best', 2, 'run/best.pt: not there; train --evaluate-ev'),
    ('PICTURE maps/fine.png --no-average', 0, 'fine_generated.png'),
    ('cluster --run run --checkpoint best', 2, 'run/best.pt: not there'),
    ('evaluate --run official', 2, 'official: its data set is not known; name it with --data DIR'),

    # ---- the demo
    ("demo --run ''", 2, "--run: '': expected a path"),
    ('demo --run own', 2, 'own: already exists; use --run DIR'),
    ('demo --run file', 2, 'file: already exists'),
    ('demo --run file/x', 2, 'file/x/scenes: cannot be made .*Not a directory'),
    ('demo --run .', 2, r'\.: already exists; use --run DIR'),
    ('demo --run /', 2, '/: there is no folder beside it; name one'),
    ('demo own', 2, 'unrecognized arguments: own'),
    ('$ mkdir x-256x128 && demo --run x', 2, 'x-256x128: already exists; use --run DIR'),

    # ---- numbers
    *numbers(),
    *each('train --lr={}', 2, '--lr: .{}.: expected a number between 0 and 1',
          'nan inf -inf -1 0 1 1e400 0x1p-3 one ½'),
    *each('train --jitter={}', 2, '--jitter: .{}.: expected a factor from 1 to 2',
          'nan inf 0.99 2.01 1e400 one'),
    *each('train --size={}', 2, '--size: .{}.: expected WIDTHxHEIGHT',
          'nan 16 x 9x 1e3x16 -16x16 0x10 1.5x2 16*16 16x16x3 99999x16'),
    *each('train --crop={}', 2, '--crop: .{}.: expected WIDTHxHEIGHT',
          'x9 16x1e3 16x-16 0x0 ½x16 native'),
    *each('generate --label maps --size={}', 2, '--size: .{}.: expected WIDTHxHEIGHT',
          'native 16 16by16 16x99999'),
]


# ----------------------------------------------------------------------------- the circumstances

def raising(error):
    def fail(*args, **kwargs):
        raise error
    return fail


# What may be said before a command in brackets.
CIRCUMSTANCES = {
    'no memory': lambda patch: patch.setattr(decoding, 'apply_orientation', raising(MemoryError())),
    'no memory for networks': lambda patch: patch.setattr(
        nets.GlobalGenerator, 'forward', raising(RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))),
    'no memory to map': lambda patch: patch.setattr(
        np.lib.format, 'open_memmap', raising(OSError(errno.ENOMEM, 'Cannot allocate memory'))),
    'full disk': lambda patch: patch.setattr(
        files.os, 'fsync', raising(OSError(errno.ENOSPC, 'No space left on device'))),
    'no room': lambda patch: patch.setattr(
        shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(1, 1, 0)),
    'no rights': lambda patch: patch.setattr(
        Path, 'mkdir', raising(PermissionError(errno.EACCES, 'Permission denied', 'made'))),
    'no rights to list': lambda patch: patch.setattr(
        os, 'scandir', lambda path: raising(PermissionError(13, 'Permission denied', path))()),
    'no h5py': lambda patch: patch.setitem(sys.modules, 'h5py', None),
    'ASCII terminal': lambda patch: [
        stream.reconfigure(encoding='ascii') for stream in (sys.stdout, sys.stderr)],
    'old PyTorch': lambda patch: patch.setattr(torch, '__version__', '2.5.1'),
    'no locks': lambda patch: patch.setattr(
        files.fcntl, 'lockf', raising(OSError(errno.ENOLCK, 'No locks available'))),
    'busy': lambda patch: patch.setattr(
        files.fcntl, 'lockf', raising(OSError(errno.EAGAIN, 'Resource temporarily unavailable'))),
}


# ------------------------------------------------------------------------------------ the test

def contents(folder):
    """{path: checksum, or None where it is no file} of all that is below a folder."""
    found = {}
    for place, folders, names in os.walk(folder):
        found |= {os.path.join(place, name): None for name in folders}
        for path in (os.path.join(place, name) for name in set(names) - {'.lock'}):
            regular = stat.S_ISREG(os.lstat(path).st_mode)
            found[path] = zlib.crc32(Path(path).read_bytes()) if regular else None
    return found


def made(before, after):
    """The files that are new, and the sizes of pictures, as words."""
    for path in sorted(after.keys() - before.keys()):
        size = ''
        if path.endswith('.png'):
            with Image.open(path) as picture:
                size = f' {picture.width}x{picture.height}'
        yield os.path.relpath(path) + size


@pytest.fixture(scope='module')
def one_thread():
    """The networks are tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize('words, code, says', ROWS, ids=[row[0] for row in ROWS])
def test_odd_command(words, code, says, world, command, monkeypatch, tmp_path, recwarn):
    spelt = spelt_out(words)
    named = {*re.split(r'[^\w.-]+', spelt), *re.findall("'(.*?)'", spelt)}
    for thing in world.iterdir():
        if thing.name in named:
            lay(thing, tmp_path / thing.name)

    *before, last = words.split(' && ')
    for step in before:
        if step.startswith('$ '):
            subprocess.run(step[2:], shell=True, check=True, cwd=os.getcwd())
        elif step.startswith('cd '):
            monkeypatch.chdir(step[3:])
        else:
            assert command(*shlex.split(spelt_out(step)))[0] == 0
    there = contents(tmp_path)
    circumstance = re.match(r'\[(.*?)\] ', last)
    if circumstance:
        CIRCUMSTANCES[circumstance[1]](monkeypatch)
        last = last[circumstance.end():]
    got, out, err = command(*shlex.split(spelt_out(last)))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)

    now = contents(tmp_path)
    said = f'{err}{out}' + '\n'.join(made(there, now))
    assert got == (code if code == 0 else 2), said
    assert 'Traceback' not in said and re.search(says, said), said
    assert not recwarn.list                                         # they would be lines, too
    if code == PROBLEMS:
        assert re.fullmatch(r'\d+ problems?', out.splitlines()[-1])
    elif got == 2:
        bad = re.search(r'(\d+) of \d+ label maps could not be used\n$', err)
        lines = re.sub(r'(warning: .*|note: .*|(headers|labels|pixels): \d+ of \d+)\n', '', err)
        assert lines.count('\n') == 1 + (int(bad[1]) if code == SOME else 0), said
        assert there.keys() <= now.keys()                           # nothing is lost ...
        if code == 2:                                               # ... or changed, or left behind
            assert {path: now[path] for path in there} == there
            assert {os.path.relpath(path) for path in now.keys() - there.keys()} <= {'made'}


def lay(thing, place):
    """Make a thing of the world available: by links, but for the files that are written into."""
    def link(source, target):
        own = os.path.basename(target) in ('log.csv', '.lock')
        (shutil.copyfile if own else os.link)(source, target)

    if thing.is_symlink() or thing.is_file():
        place.symlink_to(thing)
    elif thing.is_dir():
        shutil.copytree(thing, place, symlinks=True, copy_function=link)
    else:                                                           # a pipe
        os.link(thing, place)


def spelt_out(words):
    return re.sub('|'.join(SHORT), lambda short: SHORT[short[0]], words)


# ------------------------------------------------------------------------------------- the world

H, W = 20, 24
LABEL = (np.arange(H * W).reshape(H, W) // 8 % 5).astype(np.uint8)
INST = (np.arange(H * W).reshape(H, W) // 6 % 7).astype(np.uint16)
PHOTO = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
GREY = PHOTO[..., 0]


def save(path, what, **kwargs):
    """An array, a PIL.Image, bytes or text, as a file."""
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
    """One scene more in the flat layout; kwargs go with the photograph."""
    save(root / 'train_label' / f'{name}{ends[0]}', label)
    save(root / 'train_img' / f'{name}{ends[1]}', image, **kwargs)
    if inst is not None:
        save(root / 'train_inst' / f'{name}{ends[2]}', inst)


def png(array, depth=8, kind=0, w=W, h=H):
    """The bytes of a PNG as Pillow does not write it: grey of so many bits, or another `kind`."""
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
    """The bytes of a MATLAB 5 file with one vector of doubles."""
    def element(kind, blob):
        return struct.pack('<II', kind, len(blob)) + blob + bytes(-len(blob) % 8)

    matrix = (element(6, struct.pack('<II', 6, 0)) + element(5, struct.pack('<ii', len(values), 1))
              + element(1, name.encode()) + element(9, struct.pack(f'<{len(values)}d', *values)))
    return bytes(124) + struct.pack('<HH', 0x100, 0x4d49) + element(14, matrix)


def altered(source, target, drop=(), **changes):
    """A run folder like `source`, whose checkpoint says otherwise in these fields."""
    target.mkdir(exist_ok=True)
    if (source / 'styles.npz').exists():
        os.link(source / 'styles.npz', target / 'styles.npz')
    _, checkpoint = checkpoints.newest_checkpoint(source)
    for name, value in changes.items():
        for part in (checkpoint, checkpoint['config'], checkpoint['config']['training']):
            if name in part:
                part[name] = value
                break
    checkpoint = {name: value for name, value in checkpoint.items() if name not in drop}
    with open(target / 'checkpoint-0000001.pt', 'wb') as file:
        checkpoints.write_sealed(checkpoint, file)
    return checkpoint


def make_maps(maps):
    """Label maps of one scene, 24x20 with the labels 0 to 4 where nothing else is said."""
    picture = Image.fromarray(LABEL)
    for name in ('fine.png', 'UPPER.PNG', 'two words.png', 'two\nlines.png', "quotes'\".png",
                 '-dash.png', '=.png', 'naïve 名.png', '.png.png', 'gif.gif', 'bmp.bmp',
                 os.fsdecode(b'latin\xe9.png'), f'{"x" * 240}.png'):
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
            'half': LABEL.astype('f2'),
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
    """Photographs of the scene maps/fine.png."""
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
    """Data sets with one odd thing each."""
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
    flat(root / 'grey16', image=GREY.astype(np.uint16) * 257)
    flat(root / 'grey32', image=GREY.astype(np.int32) << 20, ends=('.png', '.tif'))
    flat(root / 'unknown', np.where(LABEL == 4, 255, LABEL).astype(np.uint8))
    flat(root / 'only_unknown', np.full((H, W), 255, np.uint8))
    flat(root / 'high_labels', (LABEL + 240).astype(np.uint8))
    flat(root / 'one_label', LABEL * 0)
    flat(root / 'rare', np.where(np.arange(H * W).reshape(H, W) == 0, 1, 0).astype(np.uint8))
    flat(root / 'one_pixel', LABEL[:1, :1], PHOTO[:1, :1])
    flat(root / '1x1', LABEL[:1, :1], np.zeros((72, 96, 3), np.uint8))
    flat(root / '2x1', LABEL[:1, :2], np.zeros((72, 96, 3), np.uint8))
    flat(root / 'half_map', LABEL[::2, ::2])
    flat(root / 'wide_inst', inst=INST[:10])
    flat(root / 'rgb', PHOTO)
    flat(root / 'jpeg_tiff', LABEL, ends=('.png', '.png'))
    save(root / 'jpeg_tiff' / 'train_label' / 'a.tif', LABEL, compression='jpeg')
    (root / 'jpeg_tiff' / 'train_label' / 'a.png').unlink()
    flat(root / 'jpeg_png')
    save(root / 'jpeg_png' / 'train_label' / 'a.png', LABEL, format='JPEG')
    flat(root / 'ids', INST * 1000)
    flat(root / 'float_labels', LABEL.astype(float), ends=('.npy', '.png'))
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
    flat(root / 'no_photos')
    shutil.rmtree(root / 'no_photos' / 'train_img')
    flat(root / 'label_is_file')
    shutil.rmtree(root / 'label_is_file' / 'train_label')
    save(root / 'label_is_file' / 'train_label', 'a file')
    flat(root / 'img_is_file')
    shutil.rmtree(root / 'img_is_file' / 'train_img')
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
    (root / 'only_A' / 'train_A').mkdir(parents=True)
    save(root / 'only_A' / 'train_A' / 'a.png', PHOTO)
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
            'float': '0.5,0,0,1\n', 'tabs': '0\t0\t0\t1\n', 'twice': '1,2,3,0\n1,2,3,1\n',
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
    """Data sets as they are downloaded, with one odd thing each."""
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
            'nyu_40': {}, 'nyu_many': {}}.items():
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
    save(root / 'nyu_40_few' / 'classMapping40.txt', '1 2 3')
    save(root / 'nyu_40_high' / 'classMapping40.txt', '41 ' * 894)
    save(root / 'nyu_40_text' / 'classMapping40.txt', 'one two three')
    save(root / 'nyu_40' / 'classMapping40.txt', '1,2\n' * 447)
    save(root / 'nyu_not_hdf5' / 'nyu_depth_v2_labeled.mat', 'not HDF5')
    save(root / 'nyu_old_matlab' / 'nyu_depth_v2_labeled.mat', matlab5('labels', [1]))
    save(root / 'nyu_no_bytes' / 'nyu_depth_v2_labeled.mat', b'')
    (root / 'nyu_folder' / 'nyu_depth_v2_labeled.mat').mkdir(parents=True)


def make_runs(root, command, trained, official):
    """Runs, whole, odd and damaged."""
    command(f'train --data own --run run {SHORT["TINY"]}')
    command('cluster --run run --k 3 --device cpu')
    command(f'train --data plain --run bare {SHORT["BARE"]}')
    command(f'train --data pairs --run ab {SHORT["BARE"]}')
    command(f'train --data own --run native {SHORT["TINY"]} --size native')
    command(f'train --data own --run local {SHORT["TINY"]} --model local --n-blocks-local 1')
    command(f'train --data helen --run face {SHORT["BARE"]}')
    run, copy = root / 'run', shutil.copytree
    os.symlink(trained, root / 'street_run')
    altered(run, root / 'skipped', left_out=['z'])
    altered(run, root / 'gone', data=str(root / 'moved_away'))
    altered(run, root / 'odd_ngf', ngf=9)
    altered(root / 'native', root / 'native_large', n_down=3)
    altered(run, root / 'other_size', size=[32, 32])
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
    command(f'train --data own --run with_vgg {SHORT["TINY"]} --vgg vgg.pth')

    # What is not there, or not a checkpoint.
    weights = checkpoints.newest_checkpoint(run)[1]['weights']
    for name, change in {
            'nan': {'weights': {**weights, 'E': {
                key: value * np.nan for key, value in weights['E'].items()}}},
            'no_weights': {'weights': {}}, 'no_D': {'weights': {k: weights[k] for k in 'GE'}},
            'text_weights': {'weights': 'none'}, 'text_step': {'step': 'six'},
            'minus': {'step': -1},
            'no_layout': {'layout': 'Mars'}, 'wide_feat': {'feat': 7}, 'wide_ngf': {'ngf': 4096},
            'infinite': {'lr': float('inf')}, 'text_config': {'config': 'none'},
            'long_names': {'label_names': ['x']}, 'number_data': {'data': 3},
            'odd_rows': {'rows': 7}, 'odd_sums': {'sums': {'gan': 'x'}},
            'odd_bad': {'bad_steps': 3},
            'odd_optimizers': {'optimizers': {}}, 'table': {'label_table': {0: 99}},
            'nul': {'data': 'a\0b'}}.items():
        if name == 'text_config':
            (root / name).mkdir()
            with open(root / name / 'checkpoint-0000001.pt', 'wb') as file:
                checkpoints.write_sealed({'config': 'none', 'step': 1}, file)
            continue
        altered(run, root / name, **change)
    altered(run, root / 'no_step', drop=['step'])
    altered(run, root / 'no_optimizers', drop=['optimizers'])
    for name, content in {'list': [1, 2], 'number': 3, 'tensor': torch.zeros(3),
                          'nothing': None}.items():
        (root / f'is_{name}').mkdir()
        with open(root / f'is_{name}' / 'checkpoint-0000001.pt', 'wb') as file:
            checkpoints.write_sealed(content, file)
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
    copy(run, root / 'later_bad', copy_function=os.link)
    save(root / 'later_bad' / 'checkpoint-0000002.pt', sealed[:-9])

    # Styles.
    with np.load(run / 'styles.npz') as file:
        styles = dict(file)
    for name, change in {
            'styles_nan': {'mean': styles['mean'] * np.nan},
            'styles_shape': {'centres': np.zeros((2, 2))},
            'styles_minus': {'counts': styles['counts'] - 99},
            'styles_words': {'step': np.array('x')},
            'styles_old': {'step': np.array(0)}, 'styles_many': {'label_names': np.array(['a'])},
            'styles_object': {'mean': np.array([None, 1], object)}}.items():
        copy(run, root / name, copy_function=os.link)
        (root / name / 'styles.npz').unlink()
        np.savez(root / name / 'styles.npz', **{**styles, **change})
    for name, content in {'styles_text': b'no', 'styles_empty': b'', 'styles_cut':
                          (run / 'styles.npz').read_bytes()[:300]}.items():
        copy(run, root / name, copy_function=os.link)
        (root / name / 'styles.npz').unlink()
        save(root / name / 'styles.npz', content)
    for name, make in {'styles_pipe': os.mkfifo, 'styles_folder': os.mkdir,
                       'styles_link': lambda path: path.symlink_to('nowhere')}.items():
        copy(run, root / name, copy_function=os.link)
        (root / name / 'styles.npz').unlink()
        make(root / name / 'styles.npz')

    # The other files of a run.
    for name, file in (('log_folder', 'log.csv'), ('config_folder', 'config.json'),
                       ('samples_file', 'samples'), ('lock_folder', '.lock'),
                       ('lock_link', '.lock')):
        copy(run, root / name, copy_function=os.link)
        place = root / name / file
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        {'samples': lambda: save(place, 'a file'), '.lock': lambda: place.symlink_to('nowhere/x')
         if name == 'lock_link' else place.mkdir()}.get(file, place.mkdir)()
    copy(run, root / 'log_damaged', copy_function=os.link)
    for name in ('log.csv', 'config.json'):
        (root / 'log_damaged' / name).unlink()
        save(root / 'log_damaged' / name, b'\xff\xfe\0nothing')

    # Of the official code.
    for name in ('official', 'official_no_E', 'official_bad_G', 'official_bad_E', 'official_text',
                 'official_styles', 'official_folder', 'official_nan', 'official_pipe'):
        copy(official, root / name)
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


@pytest.fixture(scope='module')
def world(scenes, trained, one_thread, tmp_path_factory):
    """The folder of all odd things, to be left as it is."""
    import p2phd
    root = tmp_path_factory.mktemp('world')

    def command(words):
        assert p2phd.main(p2phd.parse(shlex.split(words))) == 0, words

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_maps(root / 'maps')
        make_photos(root / 'photos')
        make_sets(root)
        make_layouts(root)
        make_runs(root, command, trained, ROOT / 'tests' / 'golden' / 'official_run')
        (root / 'street').symlink_to(scenes)
    return root
