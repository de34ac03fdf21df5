"""A table of odd commands, and one test that runs each of them.

A row says what the answer must contain: the file, the value and the remedy, not the sentence. A
user's error is one line on stderr with exit code 2, and every file stays as it was. A command that
only looks odd succeeds.
"""
import errno
import os
from pathlib import Path
import re
import shlex
import shutil
import stat
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image
import pytest
import torch

from app.common import files
from app.datasets import formats
from conftest import remember_estimates
import nets
from odd_files import BARE, LONG_NAME, TINIEST, make_odd_files

# Words that stand for several: tiny networks and one step, the same without an encoder, and a
# picture by the run that most rows use.
SHORT = {'TINY': TINIEST, 'BARE': BARE,
         'TRAIN': f'train --data own {TINIEST}', 'CACHED': f'train --data own {TINIEST} --cache c',
         'USE': 'generate --label maps/fine.png --run',
         'PICTURE': 'generate --run run --out made --label',
         'ENCODE': 'generate --run run --out made --label maps/fine.png --encode'}


# ------------------------------------------------------------------------------------- the table

PROBLEMS = '2, and stdout lists the problems'
SOME_MAPS = '2, with a line for each bad map and one for their number'
STOPPED = '2, and the files written until then stay'

# The bounds of whole numbers, and the flags that have them.
BOUNDS = {
    (1,): 'train --steps, train --log-every, train --sample-every, train --save-every, '
               'train --keep, train --max-bad-steps, train --evaluate-every, '
               'cluster --min-pixels',
    (0, 1000000): 'train --epochs, train --decay-epochs, finetune --fix-global',
    (1, 1000000): 'generate --label maps --n',
    (1, 65536): 'train --batch, train --accumulate, check --n-labels',
    (0, 65535): 'check --ignore-label',
    (0, 4294967295): 'train --seed, demo --seed',
    (1, 4096): 'train --ngf, train --ndf, train --nef',
    (1, 1000): 'cluster --k',
    (0, 1024): 'train --workers',
    (1, 256): 'train --feat',
    (0, 256): 'train --n-blocks, train --n-blocks-local',
    (1, 12): 'train --n-down, train --n-layers, train --n-scales, train --n-down-encoder',
    (0, 8): 'train --n-enhancers',
}
NOT_WHOLE = ['', 'nan', 'inf', '1.5', '1e3', '0x10', '9' * 20, 'one', '½', '--3']


def each(command, code, facts, values):
    """Return a row for each value. It replaces {} in the command and in the facts; {flag} in the
    facts is the value without its equals sign."""
    return [(command.replace('{}', value), code,
             facts.replace('{}', value).replace('{flag}', value.replace('=', ' ')))
            for value in values.split()]


def whole_numbers():
    """Return rows for each flag in BOUNDS: the numbers just outside, and two that are not whole."""
    rows = []
    for bounds, flags in BOUNDS.items():
        for flag in flags.split(', '):
            outside = [str(bounds[0] - 1), *(str(high + 1) for high in bounds[1:])]
            odd = [NOT_WHOLE[(len(rows) + i) % len(NOT_WHOLE)] for i in (0, 1)]
            for value in outside + odd:
                facts = [flag.split()[-1], repr(value), *map(str, bounds)]
                rows.append((f'{flag}={value}', 2, ', '.join(facts)))
    return rows


# (command, exit code, facts). The facts are separated by ', '. Each must be in what the command
# prints or in the list of the files it makes, with the sizes of pictures; one behind a ! must not.
# A fact that begins or ends with a digit does not match in a longer number. In the commands,
# `A && B` is B after A has succeeded; `$ C` is C in a shell; [..] is a circumstance, see below. The
# shell must replace files, never write into them: they are links.
ROWS = [
    # ---- no such command
    ('', 2, 'COMMAND, p2phd.py --help'),
    ('frobnicate', 2, "'frobnicate', train, generate"),
    ('trai --data own', 2, "'trai', did you mean train?"),
    ('train check --data own', 2, 'check, p2phd.py train --help'),
    ('--data own train', 2, "'own', train, generate"),
    ("''", 2, "'', train, generate"),
    ("'two\nlines'", 2, r"'two\nlines', train, generate"),
    ('check', 2, '--data DIR'),
    ('train', 2, '--data DIR'),
    ('finetune', 2, '--from RUN'),
    ('cluster', 2, 'runs/, --run'),
    ('generate', 2, 'runs/, --run'),
    ('generate --label maps/fine.png', 2, 'runs/, --run'),
    ('$ mkdir runs && generate --label maps/fine.png', 2, 'runs/, --run'),
    ('$ touch runs && cluster', 2, 'runs/, --run'),
    ('train --resume', 2, 'runs/, --run'),
    ('[old PyTorch] check --data own', 2, 'PyTorch 2.5.1, 2.6'),

    # ---- flags without a value, twice, abbreviated, unknown, of another command
    ('train --data', 2, '--data, one argument'),
    ("train --data ''", 2, "--data, '', path"),
    ("check --data ' '", 2, ' : , folder'),
    ('train --data own --palette', 2, '--palette, one argument'),
    ("train --data own --run ''", 2, "--run, '', path"),
    ('generate --label', 2, '--label, one argument'),
    ("generate --label ''", 2, "--label, '', path"),
    ('PICTURE maps/fine.png --inst', 2, '--inst, one argument'),
    ("PICTURE maps/fine.png --out ''", 2, "--out, '', path"),
    ('PICTURE maps/fine.png --sample 3', 2, 'unrecognized, 3'),
    ('train --dat own', 2, '--dat own, did you mean --data?'),
    ('train --data own --no-size', 2, '--no-size, did you mean --size?'),
    ('finetune --from run --ngf 8', 2, '--ngf 8, p2phd.py finetune --help'),
    ('generate --label maps/fine.png --data own', 2, '--data own, p2phd.py generate --help'),
    ('train --data own --n_down 2', 2, '--n_down 2, did you mean --n-down?'),
    ('check --data own --device gpu', 2, "--device, 'gpu', cpu, cuda"),
    ('check --data own --data plain', 0, 'flat: 3, 5 labels, no instances'),
    ('TRAIN --steps 0 --steps 1', 2, "--steps, '0', 1"),
    ('PICTURE maps/fine.png --label maps/bmp.bmp', 0,
     'made/bmp_generated.png 24x20, made/fine_generated.png 24x20'),
    ('PICTURE maps/fine.png --style 0=0 --style 1=99', 2, '--style 1=99, 0'),
    ('PICTURE maps/fine.png maps/bmp.bmp --encode photos/fine.png --encode photos/bmp.png',
     SOME_MAPS, 'photos/bmp.png, 1 of 2, made/fine_encoded.png'),
    ('PICTURE maps/fine.png --inst insts/fine.png --inst insts/other.png', 0,
     'made/fine_generated.png'),
    ('PICTURE insts/fine.png insts/other.png --inst insts/fine.png --inst insts/fine.png', 2,
     'insts/fine.png and insts/fine.png, same name'),
    ('PICTURE maps/fine.png --label maps/fine.png', 2,
     'maps/fine.png and maps/fine.png, same name'),

    # ---- choices and switches
    ('train --data own --model huge', 2, "--model, 'huge', local"),
    ('train --data own --gan wgan', 2, "--gan, 'wgan', lsgan"),
    ('check --data own --instances all', 2, "--instances, 'all', components"),
    ('TRAIN --flip no', 2, 'unrecognized, no, p2phd.py train --help'),
    ('TRAIN --no-cache', 2, '--no-cache, did you mean --cache?'),
    ('check --data own --split ../val', 2, "--split, '../val', letters"),
    ("check --data own --split ''", 2, "--split, '', letters"),
    ("check --data own --split 'train\n'", 2, r"--split, 'train\n', letters"),
    ('check --data own --split nowhere', 2, "own, 'nowhere', train, --split"),
    ('check --data val_only', 2, "val_only, 'train', val, --split"),
    ('check --data street --split test', 2, "street, 'test', train, val, --split"),
    ('check --data street --split val', 0, 'Cityscapes: 2, 35 labels, instance maps'),
    ('train --data street TINY --split val', 0, 'Cityscapes: 2, runs/street/'),

    # ---- sizes and crops
    ('train --data own --size -16x16', 2, '--size, one argument'),
    ('train --data own --size Native', 2, "--size, 'Native', WIDTHxHEIGHT, or native"),
    ('TRAIN --size 16X16', 0, 'runs/own: 16x16, 1 steps'),
    ("TRAIN --size ' 16 x 16 '", 0, 'runs/own: 16x16, 1 steps'),
    ('TRAIN --size ١٦x١٦', 0, 'runs/own: 16x16, 1 steps'),
    ('TRAIN --size 18x16', 2, '--size 18x16, multiples of 4, 8, 16x16'),
    ('TRAIN --size 4x4', 2, '--size 4x4, at least 8, 8x8'),
    ('TRAIN --crop 8x10', 2, '--crop 8x10, multiples of 4, 8x8'),
    ('TRAIN --crop 32x8', 2, '--crop 32x8, --size 16x16'),
    ('TRAIN --crop 8x8', 0, 'runs/own: 16x16, 1 steps'),
    ('TRAIN --size native --crop 32x16', 2, '--crop 32x16, /own, 24x20, --size'),
    ('train --data mixed BARE --size native --crop 40x16', 2,
     '--crop 40x16, small, /mixed, 24x20, --size'),
    ('train --data mixed BARE --size native --crop 24x16', 0, 'runs/mixed: native size, 1 steps'),
    ('train --data mixed BARE --size native --batch 2', 2, '--batch 2, /mixed, --crop, --size'),
    ('train --data mixed BARE --batch 2', 0, 'runs/mixed: 16x16, 1 steps of 2'),
    ('TRAIN --size native', 0, 'runs/own: native size'),
    ('train --data one_pixel BARE --size native', 2, 'one_pixel, a , 1x1, 8x8'),
    ('TRAIN --size native --n-down 4', 2, '/own, a , 24x20, 32x32'),
    ('TRAIN --n-scales 6', 2, '--size 16x16, at least 64, 64x64'),
    ('TRAIN --n-down 12', 2, '--size 16x16, multiples of 4096, 8192x8192'),
    ('TRAIN --n-down-encoder 5', 2, '--size 16x16, multiples of 32, at least 64, 64x64'),
    ('TRAIN --jitter 2', 0, 'runs/own/checkpoint-0000001.pt'),
    ('PICTURE maps/fine.png --size 7x9', 0,
     'note: maps/fine.png, 7x9, run, 16x16, --size 18x15, made/fine_generated.png 7x9'),
    ('PICTURE maps/fine.png --size 1x1', 0, 'made/fine_generated.png 1x1'),

    # ---- contradictions
    ('TRAIN --n-enhancers 1', 2, '--n-enhancers 1, --model global'),
    ('TRAIN --model local --n-enhancers 0', 2, '--n-enhancers 0, local'),
    ('TRAIN --model local --n-enhancers 2 --size native', 2, '/own, a , 24x20, 32x32'),
    ('train --data own BARE --no-features --feat 3', 2, '--feat 3, --features, encoder'),
    ('train --data plain TINY', 2, '--nef 4, --features, encoder'),
    ('train --data plain BARE --features', 2,
     '--features, /plain, --instances components, --features-of label'),
    ('train --data own BARE --instances none', 0, 'flat: 3, 5 labels, no instances'),
    ('train --data plain TINY --instances components', 0, 'components as instances, encoder'),
    ('train --data own BARE --no-features', 0, '5 labels, instance maps'),
    ('train --data pairs BARE --instances components', 2, '--instances components, pairs, label'),
    ('train --data pairs BARE --n-labels 3', 2, '--n-labels 3, A to B'),
    ('train --data pairs BARE --ignore-label 0', 2, '--ignore-label 0, pairs, label maps'),
    ('train --data pairs BARE --palette palettes/fine', 2, '--palette palettes/fine, pairs, label'),
    ('train --data mixed --n-down 2 --n-scales 2 --epochs 0 --decay-epochs 0', 2,
     '--epochs 0, --decay-epochs 0'),
    ('TRAIN --size native --cache c', 2, '--cache, --size'),
    ('train --data street TINY --n-labels 40', 0,
     'note: street: --n-labels 40: , your own, 35 of Cityscapes, own folders: 6, 40 labels'),
    ('train --data street TINY --n-labels 35', 0, 'Cityscapes: 6, 35 labels, !your own'),
    ('check --data ade --n-labels 3', PROBLEMS,
     'note: ade: --n-labels 3: , your own, 151 of ADE20K, ADE_train_1.png, label 3 at x=0, y=1, '
     '0 to 2, --n-labels 5'),
    ('check --data nyu --n-labels 41', 2, '--n-labels 41, NYU Depth v2, 895, 40'),
    ('check --data nyu --n-labels 40', 2, '--n-labels 40, nyu, classMapping40.mat, 894'),
    ('PICTURE maps/fine.png --n 3', 2, '--n 3, --sample'),
    ('PICTURE maps/fine.png --sample --encode photos/fine.png', 2, '--sample, --encode'),
    ('USE bare --sample', 2, 'bare, without --features, --sample'),
    ('USE bare --inst insts/fine.png', 2, '--inst, bare, without instances'),
    ('USE bare --encode photos/fine.png', 2, 'bare, without --features, --encode'),
    ('cluster --run bare', 2, 'bare, without --features'),

    # ---- the data folder
    ('check --data nowhere', 2, 'nowhere: , folder'),
    ('check --data empty', 2, 'empty, train_label/, train_A/, Cityscapes'),
    ('check --data file', 2, 'file: , a file, folder'),
    ('check --data loop', 2, 'loop: , folder'),
    ('check --data linked', 0, 'flat: 3'),
    ('check --data /dev/null', 2, '/dev/null: , a file, folder'),
    ('check --data own/train_label/a.png', 2, 'own/train_label/a.png: , a file, folder'),
    ('cd own && check --data .', 0, 'flat: 3'),
    ("check --data 'two words'", 0, 'flat: 1'),
    ("train --data 'two words' BARE", 0, 'runs/two words: 16x16'),
    ('cd own && train --data . TINY', 0, 'runs/own: 16x16'),
    ('check --data no_maps', 2, 'no_maps: flat, no label maps'),
    ('check --data no_photos', PROBLEMS, 'no_photos/train_label/a.png, photograph, same name'),
    ('train --data no_photos BARE --skip-bad', 2,
     'no_photos/train_label/a.png, photograph, same name'),
    ('check --data img_is_file', 2, 'img_is_file/train_img, Not a directory'),
    ('check --data inst_is_empty', 0, 'flat: 1, 5 labels, no instances'),
    ('check --data partly', PROBLEMS, 'partly/train_label/b.png, instance map, 1 problem'),
    ('train --data partly TINY', 2, 'partly/train_label/b.png, instance map, --skip-bad'),
    ('train --data partly TINY --skip-bad', 0, 'partly/train_label/b.png, instance map, flat: 1'),
    ('check --data same_names', PROBLEMS,
     'flat: 1, same_names/train_img/more/a.jpg, no label map, same name, folder more/, 1 of 2'),
    ('check --data endless', 0, 'flat: 1'),
    ('check --data macos', 0, 'flat: 1, 5 labels, no instances, no problems'),
    ('check --data uppercase', 0, 'flat: 1'),
    ('check --data other_suffix', PROBLEMS,
     'other_suffix/train_img/a.gif, format not read, convert, PNG, JPEG, 0 of 1'),
    ('check --data pipes', PROBLEMS, 'pipes/train_img/b.png, regular file'),
    ('train --data pipes BARE --skip-bad', 0, 'pipes/train_img/b.png, regular file, flat: 1'),
    ('check --data channels', PROBLEMS, 'channels/train_A/b.npy, 4 channels, float64, 5'),
    ('check --data outside', PROBLEMS, 'outside/train_A/a.npy, [-1, 1]'),
    ('check --data not_helen', 0, 'own folders: 1, 5 labels, !Helen, no problems'),
    ('[no rights to list] check --data own', 2, 'own/, Permission denied'),
    ("[ASCII terminal] check --data 'naïve'", 2, r'na\xefve, folder'),

    # ---- pictures and maps that look odd and are fine
    *each('check --data {}', 0, 'flat: 1, 20x24, no problems', 'exif exif_tiff'),
    ('check --data exif_ignored', PROBLEMS, 'train_label/a.png, 24x20, train_img/a.jpg, 20x24'),
    ('train --data exif BARE --size native', 0, 'runs/exif/checkpoint-0000001.pt'),
    ('check --data grey1', 0, '2 labels, 0 60%, 1 40%'),
    ('check --data grey2', 0, '4 labels, 0 40%, 1 20%, 2 20%, 3 20%'),
    ('check --data grey4', 0, '5 labels, 0 20%, 1 20%, 2 20%, 3 20%, 4 20%'),
    ('train --data unit BARE', 0, 'runs/unit/checkpoint-0000001.pt'),
    ('check --data beyond_inst', 0,
     'note: beyond_inst: 7, 7 in 1, label and one id, instances per picture: 29 to 29'),
    ('check --data one_label', 0, '1 label, 0 100%'),
    ('check --data rare', 0, '0 99.8%, 1 0.208%'),
    ('check --data one_pixel', 0, 'flat: 1, 1x1, no problems'),

    # ---- pictures and maps that cannot be used
    ('check --data beyond', PROBLEMS, 'a.npy, 4294967296, 4294967300, 31 bits'),
    ('check --data negative', PROBLEMS, 'a.npy, -1 to 3, numbers from 0 up, 255'),
    ('check --data float_labels', 0, 'flat: 1, 5 labels, 0 20%, no problems'),
    ('check --data half_labels', PROBLEMS, 'a.npy, whole numbers, 0 to 2, ids'),
    ('check --data float255', PROBLEMS, 'a.tif, photograph, 0 to 254, 8 or 16 bits'),
    ('check --data grey32', PROBLEMS, 'a.tif, photograph, 8 or 16 bits'),
    ('check --data jpeg_png', PROBLEMS, 'a.png, JPEG, PNG, --jpeg-labels'),
    ('check --data jpeg_png --jpeg-labels', 0, 'warning: jpeg_png, JPEG'),
    ('check --data 1x1', PROBLEMS, 'train_label/a.png, 1x1, train_img/a.png, 96x72'),
    ('check --data wide_inst', PROBLEMS, 'train_inst/a.png, 24x10, train_img/a.png, 24x20'),
    ('train --data jpeg_inst TINY', 2,
     'x_9_gtFine_instanceIds.png: JPEG , PNG, --jpeg-labels, !--palette, --skip-bad'),
    ('train --data jpeg_inst TINY --skip-bad', 0,
     'x_9_gtFine_instanceIds.png: JPEG , Cityscapes: 1'),
    ('train --data jpeg_inst TINY --jpeg-labels', 0, 'Cityscapes: 2'),
    ('check --data rgb', PROBLEMS, 'a.png, integers, RGB, --palette FILE'),
    ('check --data ids', PROBLEMS, 'a.png, 0 to 6000, instance map'),
    ('check --data bad_b', PROBLEMS, 'bad_b/train_label/b.png, picture'),
    ('train --data bad_b TINY', 2, 'bad_b/train_label/b.png, picture, --skip-bad'),
    ('train --data bad_b TINY --skip-bad', 0, 'bad_b/train_label/b.png, flat: 2'),
    ('train --data bad_b TINY --skip-bad && $ cp own/train_label/b.png x.png && $ mv x.png '
     'bad_b/train_label/b.png && finetune --from runs/bad_b --data bad_b --steps 1', 0,
     'runs/bad_b-32x32: 32x32, runs/bad_b-32x32/checkpoint-0000001.pt'),
    ('train --data bad_b TINY --skip-bad && finetune --from runs/bad_b --steps 1', 0,
     'runs/bad_b-32x32/checkpoint-0000001.pt'),
    ('train --data bad_b TINY --skip-bad && $ cp own/train_label/b.png x.png && $ mv x.png '
     'bad_b/train_label/b.png && train --resume runs/bad_b --steps 2', 0,
     'runs/bad_b/checkpoint-0000002.pt'),
    ('train --data bad_b TINY --skip-bad && cluster --run runs/bad_b', 0, 'runs/bad_b/styles.npz'),
    ('[no memory] TRAIN', 2, 'p2phd train: , memory, --precision bf16, --crop, --size'),
    ('[no memory] PICTURE maps/fine.png', 2, 'p2phd generate: , memory, --size'),
    ('[no memory to map] PICTURE maps/fine.npy', 2, 'p2phd generate: , memory, --size'),
    ('[no memory for networks] TRAIN', STOPPED, 'memory, --precision bf16, --crop, --size'),
    ('[no memory for networks] PICTURE some_bad', 2, 'memory, --size'),

    # ---- unknown labels
    ('check --data unknown', 0,
     'note: unknown, 255, --ignore-label none, flat: 1, 5 labels, 0 20%'),
    ('check --data unknown --ignore-label none', 0, '256 labels, 0 20%, 1 20%, 255 20%'),
    ('check --data unknown --ignore-label 0', 0, '257 labels'),
    ('check --data unknown --n-labels 4', 0, '255, 5 labels'),
    ('check --data unknown --n-labels 3', PROBLEMS, 'a.png, label 3 at x=0, y=1'),
    ('check --data only_unknown', 0, '2 labels, 100%'),
    ('check --data high_labels', 0, '245 labels'),
    ('check --data own --ignore-label 4', 0, '5 labels'),
    ('check --data own --ignore-label None', 2, "--ignore-label, 'None', or none"),
    ('check --data rgb --palette palettes/fine --ignore-label 3', 2, '--ignore-label 3, --palette'),
    ('check --data own --n-labels 2', PROBLEMS, 'train_label/a.png, label 2 at x=16, y=0, 0 to 1'),
    ('TRAIN --n-labels 2', 2, 'own/train_label/a.png, label 2 at x=, y=0, 0 to 1'),
    ('check --data own --n-labels 4000', 0, 'flat: 3, 4000 labels'),

    # ---- palettes
    *each('check --data rgb --palette palettes/{}', 0, 'flat: 1, 5 labels',
          'fine bom windows spaces utf16 twice_same'),
    ('check --data rgb --palette palettes/latin', 0, 'café'),
    ('[ASCII terminal] check --data rgb --palette palettes/latin', 0, r'caf\xe9'),
    ('check --data rgb --palette palettes/names', 0, 'thing, or so 20%'),
    ('check --data rgb --palette palettes/gaps', 0, '15 labels, 14 33.3%'),
    ('check --data rgb --palette palettes/twice', 2, 'palettes/twice, line 2, 1,2,3, 1, 0'),
    ('check --data rgb --palette palettes/few', PROBLEMS, 'a.png, colour, palette'),
    *each('check --data rgb --palette palettes/{}', 2, 'palettes/{}, no colours, R,G,B',
          'empty comments'),
    *each('check --data rgb --palette palettes/{}', 2, 'palettes/{}, line 1, R,G,B,id[,name]',
          'short words high_colour negative high_id float hex huge binary'),
    ('check --data rgb --palette palettes/pipe', 2, 'palettes/pipe, regular file'),
    ('check --data rgb --palette palettes', 2, 'palettes: , folder, file'),
    ('check --data rgb --palette nowhere', 2, 'nowhere: , no such file'),
    ('check --data rgb --palette loop', 2, 'loop: , symbolic links'),
    ('check --data rgb --palette palettes/fine --n-labels 3', 2, '--n-labels 3, palettes/fine, 4'),
    ('check --data rgb --palette palettes/fine --n-labels 9', 0, '9 labels'),

    # ---- Cityscapes, ADE20K, Helen, NYU
    ('check --data city', 0, 'Cityscapes: 1, 35 labels, instance maps'),
    ('check --data city_no_photos', 2, 'city_no_photos: gtFine/, leftImg8bit/ is not, one folder'),
    ('check --data city_high', 0,
     'note: city_high: , label 44, your own, 35 of Cityscapes, own folders: 1, 45 labels'),
    ('check --data city_one_high', PROBLEMS,
     'Cityscapes: 2, x_1_gtFine_labelIds.png, label 40 at x=0, y=0, 0 to 34, 2 of 3'),
    ('check --data city_zip', 2, 'city_zip, train_label/, Cityscapes'),
    ('check --data ade', 0, '151 labels, other 20%, caf'),
    *each('check --data ade_{}', 0, '151 labels, 0 20%, 1 20%', 'empty nameless short folder'),
    *each('check --data ade_{}', 0, 'other 20%, café 20%, thing1 20%', 'latin utf16'),
    ('check --data ade --split val', 2, "ade, 'val', train, --split"),
    ('check --data ade_full', 0, 'ADE20K full: 1'),
    ('check --data ade_seg_only', PROBLEMS, 'A_seg.png, photograph, same name'),
    ('check --data helen', 0, 'Helen: 2, 11 labels, no instances'),
    ('check --data helen_latin', 0, 'Helen: 1'),
    ('check --data helen_sizes', PROBLEMS, 'helen_sizes/labels/1_1, masks'),
    ('check --data helen_ten', PROBLEMS, 'helen_ten/labels/1_1, 10 masks, 11'),
    ('check --data helen_rgb', PROBLEMS, '1_1_lbl03.png, RGB'),
    *each('check --data {}', 2, "{}, 'train', val, --split", 'helen_binary helen_nobody'),
    ('generate --run face --label helen/labels/1_1', 0, '1_1_generated.png 24x20'),
    ('generate --run face --out made --label helen_ten/labels/1_1', 2,
     'helen_ten/labels/1_1, 10 masks, 11'),
    ('check --data nyu', 0, 'NYU Depth v2: 2, 895 labels, instance maps'),
    ('train --data nyu/nyu_depth_v2_labeled.mat TINY', 0, 'runs/nyu_depth_v2_labeled.mat: 16x16'),
    ('[no h5py] check --data nyu', 2, 'nyu/nyu_depth_v2_labeled.mat, h5py, pip install h5py'),
    ('check --data nyu --split test', 0, 'NYU Depth v2: 2'),
    *each('check --data nyu_{}', 2, 'nyu_{}/nyu_depth_v2_labeled.mat, NYU Depth v2',
          'no_keys no_images lengths flat line text float number group float_images'),
    ('check --data nyu_empty', 2, 'nyu_empty, NYU Depth v2, no label maps'),
    *each('check --data nyu_{}', 2, 'nyu_{}/nyu_depth_v2_labeled.mat, MATLAB 7.3',
          'not_hdf5 old_matlab no_bytes'),
    ('check --data nyu_folder', 2, 'nyu_folder, train_label/'),
    ('check --data nyu_splits', 0, 'NYU Depth v2: 1'),
    ('check --data nyu_splits --split test', 2, 'nyu_splits/splits.mat, testNdxs'),
    ('check --data nyu_splits --split other', 2, "nyu_splits, 'other', train, --split"),
    *each('check --data nyu_splits_{}', 2, 'nyu_splits_{}/splits.mat', 'text far other empty'),
    ('check --data nyu_splits_pipe', 0, 'NYU Depth v2: 2'),
    ('check --data nyu_40 --n-labels 40', 0, '41 labels'),
    ('check --data nyu_40_few --n-labels 40', 2, 'nyu_40_few/classMapping40.mat, 894, 3'),
    ('check --data nyu_40_high --n-labels 40', 2, 'nyu_40_high/classMapping40.mat, 894, 1 to 40'),
    ('check --data nyu_40_text --n-labels 40', 2, 'nyu_40_text/classMapping40.mat, cannot be read'),

    # ---- training: the folder it writes into
    ('TRAIN --run run', 2, 'run: , --resume run, --run DIR'),
    ('TRAIN --run link_pt', 2, 'link_pt: , --resume link_pt, --run DIR'),
    ('TRAIN --run official', 2, 'official: , official code, --run DIR, finetune --from official'),
    ('TRAIN --run file', 2, 'file: , a file, folder'),
    ('TRAIN --run file/x', 2, 'file/x: , no folder to write to, --run'),
    ('TRAIN --run /proc/x', 2, '/proc/x: '),
    ('TRAIN --run loop', 2, 'loop: , File exists'),
    ('TRAIN --run empty', 0, 'empty/checkpoint-0000001.pt'),
    ("TRAIN --run 'x\ny'", 0, 'x\ny/checkpoint-0000001.pt'),
    ('TRAIN --run=-x', 0, '-x/checkpoint-0000001.pt'),
    (f'TRAIN --run {"x" * 300}', 2, 'xxx: , File name too long'),
    ('TRAIN --run .', 0, 'checkpoint-0000001.pt'),
    ('$ mkdir d && cd d && train --data ../own TINY --run . --cache', 0, 'd-cache/index.json'),
    ('TRAIN --run / --cache', 2, '/: , folder'),
    ('train --data / TINY', 2, '/: , train_label/'),
    ('$ touch runs && TRAIN', 2, 'runs/own: , no folder to write to, --run'),
    ('$ mkdir -p runs; touch runs/own && TRAIN', 2, 'runs/own: , a file, folder'),
    ('[no rights] TRAIN', 2, 'runs/own: , Permission denied'),
    ('[no room] TRAIN --run new', STOPPED, 'new/checkpoint-0000000.pt, 0.0 MB, make room'),
    ('[full disk] TRAIN --run new', STOPPED, 'new/config.json, No space left'),
    ('[busy] TRAIN --run empty', 2, 'empty: , process, --run'),
    ('[no locks] TRAIN --run new', 0, 'warning: new: , locked, new/checkpoint-0000001.pt'),
    ('TRAIN --run other_name', 0, 'other_name/checkpoint-0000001.pt'),
    ('TRAIN --cache file', 2, 'file: , a file, folder'),
    ('TRAIN --cache', 0, 'runs/own-cache/index.json'),
    ('TRAIN --cache own', 0, 'own/index.json'),
    ('[no room] CACHED', STOPPED, '--cache, /c: , 0 MiB'),
    ('[full disk] CACHED', STOPPED, '/c/index.json: , No space left'),
    ('CACHED --run x && $ printf x > c/y; mv c/y c/label.npy && CACHED', 2, '/c: , cache, delete'),
    ('CACHED --run x && $ cp maps/fine.npy c/label.npy && CACHED', 2, '/c: , delete, (20, 24)'),
    ('CACHED --run x && $ rm c/image.npy && CACHED', 2, 'c/image.npy: , no such file'),
    ('CACHED --run x && $ echo x > c/y; mv c/y c/index.json && CACHED', 0,
     'runs/own/checkpoint-0000001.pt'),
    ('CACHED --run x && $ rm c/index.json; mkdir c/index.json && CACHED', 2,
     'c/index.json: , delete'),
    ('CACHED --run x && $ rm c/image.npy; mkfifo c/image.npy && CACHED', 2,
     'c/image.npy: , regular file'),
    ('[one core] TRAIN --size native --workers 1024', 0, 'runs/own/checkpoint-0000001.pt'),
    ('TRAIN --size native --workers 1024', 0, 'runs/own/checkpoint-0000001.pt'),
    ('TRAIN --precision bf16', 0, 'on 1 CPU thread in bf16'),
    ('TRAIN --precision tf32', 2, 'p2phd train: --precision tf32, CPU, fp32, bf16'),
    ('TRAIN --precision auto', 0, 'on 1 CPU thread in '),
    ('TRAIN --accumulate 2', 2, 'p2phd train: --accumulate 2, --batch 1'),
    ('TRAIN --batch 2 --accumulate 2', 0, 'runs/own/checkpoint-0000001.pt'),
    ('TRAIN --recompute', 0, 'memory, GiB needed, GiB free'),
    ('train --data own --size 16x16 --model unet --n-down 2 --n-scales 2 --recompute', 2,
     '--recompute, U-Net, residual blocks'),
    ('PICTURE maps/fine.png --precision bf16', 0, 'made/fine_generated.png 24x20'),
    ('PICTURE maps/fine.png --precision half', 2, "--precision, 'half', bf16"),

    # ---- the weights of VGG-19
    ('TRAIN --vgg', 2, '--vgg: , vgg19-dcbb9e9d.pth'),
    ('TRAIN --vgg vgg.pth', 0, 'vgg 0.000'),
    ('TRAIN --vgg nowhere.pth', 2, '--vgg, /nowhere.pth, no such file, vgg19-dcbb9e9d.pth'),
    *each('TRAIN --vgg vgg_{}.pth', 2, '--vgg, /vgg_{}.pth, vgg19-dcbb9e9d.pth',
          'part shape list text empty pipe'),
    ('TRAIN --vgg own', 2, '--vgg, /own: , folder, vgg19-dcbb9e9d.pth'),
    ("TRAIN --vgg ''", 2, "--vgg, '', path"),
    ('TRAIN --vgg vgg.pth --no-vgg', 0, 'runs/own/checkpoint-0000001.pt, !vgg 0'),
    ('TRAIN --size 8x8 --vgg vgg.pth', 2, '--size 8x8, at least 16, 16x16'),
    ('train --resume vgg_gone --steps 2', 2, '--vgg, gone.pth, no such file, vgg19-dcbb9e9d.pth'),
    ('train --resume vgg_gone --steps 2 --vgg vgg.pth', 0, 'step 1 of 2, step 2/2'),
    ('train --resume with_vgg --steps 2', 0, 'step 2/2, vgg 0.000'),
    ('$ mkdir d && cd d && train --resume ../with_vgg --steps 2', 0, 'step 2/2, vgg 0.000'),
    ('train --resume with_vgg --steps 2 --no-vgg', 2, '--no-vgg, with_vgg, vgg.pth'),
    ('train --resume run --steps 2 --vgg vgg.pth', 2, '--vgg, vgg.pth, run'),
    ('finetune --from with_vgg --steps 1 --no-vgg', 0, 'step 1/1, !vgg 0'),
    ('finetune --from with_vgg --steps 1', 0, 'step 1/1, vgg 0.000'),
    ('finetune --from vgg_gone --steps 1', 2, '--vgg, gone.pth, no such file, vgg19-dcbb9e9d.pth'),
    ('finetune --from vgg_gone --steps 1 --no-vgg', 0, 'step 1/1'),
    ('cluster --run vgg_gone', 0, 'vgg_gone/styles.npz'),

    # ---- resuming
    ('train --resume run', 0, 'run, 1 steps, --epochs, --steps'),
    ('train --resume run --steps 3', 0, 'run: , step 1 of 3, run/checkpoint-0000003.pt'),
    ('cd run && train --resume . --steps 3', 0, 'step 1 of 3, run/checkpoint-0000003.pt'),
    ('train --run run --resume run/../run --steps 3', 0, 'step 1 of 3, run/checkpoint-0000003.pt'),
    ('train --run bare --resume run', 2, '--run bare, --resume run'),
    ('finetune --resume run --steps 3', 0, 'step 1 of 3, run/checkpoint-0000003.pt'),
    *each('train --resume {}', 2, '{}: , no checkpoint, folder of a run',
          'nowhere own . / other_name'),
    *each('train --resume {}', 2, '{}: , a file, folder of a run',
          'file run/checkpoint-0000001.pt'),
    ("train --resume ''", 2, 'runs/, --run'),
    ('train --resume loop', 2, 'loop: '),
    ('train --resume official', 2, 'official: , official code, finetune --from'),
    ('[busy] train --resume run --steps 2', 2, 'run: , process, --run'),
    *each('train --resume {} --steps 2', 2, '{}/.lock', 'lock_folder lock_link'),
    ('train --resume log_folder --steps 2', STOPPED, 'log_folder/log.csv, directory'),
    ('train --resume config_folder --steps 2', 2, 'config_folder/config.json, directory'),
    ('train --resume samples_file --steps 2', 0,
     'warning: , samples_file/samples, samples_file/checkpoint-0000002.pt'),
    ('train --resume log_damaged --steps 2', 0, 'step 1 of 2, log_damaged/checkpoint-0000002.pt'),
    ('train --resume later_bad --steps 2', 0, 'later_bad/checkpoint-0000002.pt: , damaged'),
    *each('train --resume run {}', 2, '{flag}: , run',
          '--lr=0.1 --size=32x32 --size=native --ngf=9 --model=local --n-enhancers=2 '
          '--gan=vanilla --crop=8x8 --split=val --palette=palettes/fine --ignore-label=3 '
          '--n-labels=6 --instances=none --seed=1 --no-flip --no-features --skip-bad'),
    ('train --resume native --size native --steps 2', 0, 'step 1 of 2'),
    ('train --resume run --epochs 1 --decay-epochs 0', 0, 'step 1 of 3'),
    ('train --resume run --workers 2 --keep 9 --save-every 1 --steps 2', 0,
     'run/checkpoint-0000002.pt'),
    ('train --resume gone --steps 2', 2, '/moved_away: , gone, --data DIR'),
    ('train --resume gone --steps 2 --data own', 0, 'step 1 of 2, gone/checkpoint-0000002.pt'),
    ('train --resume run --steps 2 --data street', 2, '/street: , 6 pictures, run, 3'),
    ('train --resume run --steps 2 --data plain', 2, '/plain: , instance maps, run'),
    ('train --resume run --steps 2 --data pairs', 2, '/pairs: , A to B, flat'),
    ('train --resume run --steps 2 --data nowhere', 2, '/nowhere: , run, --data DIR'),
    ('train --resume run --steps 2 --data bad_b', 2, 'bad_b/train_label/b.png: , picture'),
    ('train --resume cached --steps 2', 0, 'note: , /gone_cache, --cache, cached'),
    ('train --resume cached --steps 2 --cache c', 0, 'c/index.json'),
    ('[full disk] train --resume run --steps 2', 2, 'run/config.json: , No space left'),

    # ---- damaged and foreign checkpoints
    *each('USE {}', 2, '{}/checkpoint-0000001.pt: , damaged', 'cut flipped unsealed'),
    ('USE empty_pt', 2, 'empty_pt/checkpoint-0000001.pt: , cut short'),
    ('USE folder_pt', 2, 'folder_pt/checkpoint-0000001.pt: , directory'),
    ('USE pipe_pt', 2, 'pipe_pt/checkpoint-0000001.pt: , regular file'),
    ('USE link_pt', 2, 'link_pt/checkpoint-0000001.pt: , No such file'),
    ('USE later_bad', 0, 'later_bad/checkpoint-0000002.pt: , checkpoint-0000001.pt'),
    *each('USE {}', 2, '{}/checkpoint-0000001.pt: , not a checkpoint of this program',
          'is_list is_number is_tensor is_nothing'),
    ('USE nan', 2, 'nan/checkpoint-0000001.pt: , weights of E, finite, earlier checkpoint'),
    ('finetune --from nan --steps 1', 2, 'nan/checkpoint-0000001.pt: , weights of E, finite'),
    *each('cluster --run {}', 2, '{}/checkpoint-0000001.pt: , not a checkpoint of this program (',
          'text_weights text_step minus no_step no_layout wide_feat wide_ngf '
          'infinite text_config long_names number_data table nul native_large'),
    *each('cluster --run {}', 0, '{}/styles.npz', 'no_weights no_D odd_optimizers'),
    *each('train --resume {} --steps 2', 2,
          '{}/checkpoint-0000001.pt: , not a checkpoint of this program (',
          'no_weights no_D odd_optimizers no_optimizers odd_rows odd_sums odd_bad'),

    # ---- finetuning
    ('finetune --from nowhere', 2, 'nowhere: , no checkpoint'),
    ('finetune --from run --steps 1', 0,
     'runs/run-32x32: 32x32, 1 steps, warning: , --fix-global 10, 30 steps'),
    ('finetune --from run --steps 1 --fix-global 0', 0, 'step 0, runs/run-32x32/'),
    ('finetune --from odd_ngf --steps 1', 2, 'odd_ngf: , --ngf 9, half'),
    ('finetune --from run --steps 1 --up filtered', 0, 'runs/run-32x32/checkpoint-0000001.pt'),
    ('finetune --from run --steps 1 --up nearest', 2, '--up nearest: run, --up transposed'),
    ('finetune --from native --steps 1', 2, 'native , native size, --size WxH'),
    ('finetune --from native --steps 1 --size native', 0, 'runs/native-native: native size'),
    ('finetune --from native --steps 1 --size 32x32', 0, 'runs/native-32x32: 32x32'),
    ('finetune --from run --steps 1 --size 20x20', 2, '--size 20x20, multiples of 8, 16x16'),
    ('finetune --from run --steps 1 --run run', 2, 'run: , --resume run, --run DIR'),
    ('finetune --from gone --steps 1', 2, '/moved_away: , gone, --data DIR'),
    ('finetune --from skipped --steps 1', 0, 'runs/skipped-32x32/checkpoint-0000001.pt'),
    ('finetune --from local --steps 1', 2, '/own: , a , 24x20, 32x32'),
    ('finetune --from local --steps 1 --n-blocks-local 2', 2, '--n-blocks-local 2, local, 1'),
    ('finetune --from run --steps 1 --data plain', 2, 'plain: , instance maps, run'),
    ('finetune --from run --steps 1 --data street', 2, 'labelIds.png: , label , x=0, y=0, 0 to 4'),
    ('finetune --from bare --steps 1 --data own', 0, 'runs/bare-32x32/checkpoint-0000001.pt'),
    ('finetune --from official --steps 1', 2, 'official: , --data DIR'),
    ('finetune --from official_no_E --steps 1 --data own --size 64x64', 2,
     'official_no_E: , 39 channels, 3, latest_net_E.pth'),
    ('cd run && finetune --from . --steps 1', 0, 'runs/run-32x32/checkpoint-0000001.pt'),
    ('finetune --from run --data nowhere', 2, 'nowhere: , run, --data DIR'),

    # ---- the weights of another run
    ('train --data own --from run --workers 0', 2, 'run: , no names, --match-labels id'),
    ('train --data own --from face', 2, '/own: , no names, --match-labels id'),
    ('train --data own --from run --match-labels id --steps 1', 0,
     'run/checkpoint-0000001.pt: , 5 of 5 matched by id, runs/own/checkpoint-0000001.pt'),
    ('train --data own --from run --match-labels is', 2, "--match-labels, 'is', name, id"),
    ('train --data own --match-labels id', 2, '--match-labels, --from RUN'),
    ('train --data own --from', 2, '--from, one argument'),
    ('train --data own --from nowhere', 2, 'nowhere: , no checkpoint'),
    ('train --data nowhere --from run', 2, 'nowhere: , folder'),
    ('train --from run', 2, '--data DIR'),
    *each('train --data own --from run --match-labels id {}', 2, '{flag}: run has ',
          '--model=unet --model=local --ngf=9 --n-down=3 --n-blocks=2 --ndf=9 --n-layers=2 '
          '--n-scales=1 --spectral-norm --up=nearest --feat=4 --nef=5 --n-down-encoder=1'),
    ('train --data own --from run --preset small', 2, '--ngf 32: run, --ngf 8, --preset'),
    ('train --data own --from run --model pix2pix', 2, '--model unet, --model global'),
    ('train --data own --from local --n-blocks-local 2', 2, '--n-blocks-local 2: local, 1'),
    ('train --data own --from run --n-enhancers 2', 2, '--n-enhancers 2, no local enhancers'),
    ('train --data own --from bare --match-labels id --nef 9', 2, '--nef 9, --features'),
    ('train --data own --from bare --match-labels id --features --nef 9 --n-down-encoder 2 '
     '--steps 1', 0, 'D begin with its weights, E with new ones, 3 features: new, map: new'),
    ('train --data own --from run --match-labels id --size 18x16', 2, '--size 18x16, 4, 16x16'),
    ('train --data own --from native --match-labels id --steps 1', 0, 'runs/own: native size'),
    ('train --data own --from native --match-labels id --steps 1 --size 16x16', 0,
     'size , 16x16, native'),
    ('train --data plain --from run --match-labels id --features --steps 1', 2,
     '--features: , plain, --instances components'),
    ('train --data plain --from run --match-labels id --no-features --steps 1', 0,
     '3 features: left out, !--features-of'),
    ('train --data plain --from run --match-labels id --no-boundary', 2,
     '--no-boundary, no instances'),
    ('train --data pairs --from run', 2, '/pairs: , A to B, run , flat, pictures'),
    ('train --data own --from ab', 2, '/own: , flat, ab , A to B, pictures'),
    ('train --data pairs --from ab --match-labels id', 2, '--match-labels id, no labels, /pairs'),
    ('train --data pairs --from ab --steps 1', 0, 'D begin, !labels  , !inputs'),
    ('train --data channels --from ab', 2, '/channels: , 5 channels, ab have 1'),
    ('train --data own --from gone --match-labels id --steps 1', 0, '5 of 5, runs/own: 16x16'),
    ('train --data own --from vgg_gone --match-labels id', 2, '--vgg, gone.pth, vgg19-dcbb9e9d'),
    ('train --data own --from vgg_gone --match-labels id --no-vgg --steps 1', 0, 'step 1/1'),
    ('train --data own --from nan --match-labels id', 2, 'weights of E, finite'),
    *each('train --data own --from {} --match-labels id', 2,
          '{}/checkpoint-0000001.pt: , not a checkpoint of this program (',
          'no_D wide_feat wide_ngf no_weights'),
    ('train --data own --from run --from-n-labels 3', 2, '--from-n-labels 3: run , leave it out'),
    ('train --data own --from run --match-labels id --run run', 2, 'run: , --resume run, --run'),
    ('train --resume run --from run --steps 2', 2, '--from run: run , without it'),
    ('train --resume run --match-labels id --steps 2', 2, '--match-labels id: run , without it'),
    ('train --data street --from official --steps 1 --size 64x64', 0,
     '35 of 35 matched by name, runs/street: 64x64'),
    ('train --data street --from official --from-n-labels 99', 2,
     'official: , 36 channels, 99, --from-n-labels 35'),
    ('train --data street --from official --size 63x64', 2, '--size 63x64, multiples'),
    ('train --data street --from official_no_E', 2, 'official_no_E: , latest_net_E.pth'),

    # ---- clustering
    *each('cluster --run {}', 2, '{}: , no checkpoint, folder of a run',
          'nowhere . / /dev/null own'),
    *each('cluster --run {}', 2, '{}: , a file, folder of a run', 'file run/checkpoint-0000001.pt'),
    ('cd run && cluster --run .', 0, 'styles.npz'),
    ('cluster --run run --k 30', 0, 'run/styles.npz'),
    ('cluster --run run --min-pixels 99999', 2, '--min-pixels 99999, no instance'),
    ('cluster --run gone', 2, 'gone: , /moved_away, cluster --run gone --data DIR'),
    ('cluster --run gone --data own', 0, 'gone/styles.npz'),
    ('cluster --run run --data bad_b', 2, 'bad_b/train_label/b.png: , picture'),
    ('cluster --run run --data plain', 2, 'plain: , instance maps, run'),
    ('cluster --run run --data nowhere', 2, 'run: , nowhere, cluster --run run --data DIR'),
    ('cluster --run run --data street', 2, 'labelIds.png: , label , x=0, y=0, 0 to 4'),
    ('cluster --run native --data one_pixel', 2, 'one_pixel: , instance maps'),
    ('cluster --run official', 2, 'official: , cluster --run official --data DIR'),
    ('[full disk] cluster --run run', 2, 'run/styles.npz: , No space left'),
    ('cluster --run styles_folder', 2, 'styles_folder/styles.npz: , directory'),
    *each('cluster --run {}', 0, '{}/styles.npz', 'styles_text skipped'),

    # ---- files of styles
    *each('USE styles_{}', 2, 'styles_{}/styles.npz: , delete, cluster',
          'text empty cut nan shape minus words many object'),
    ('USE styles_pipe', 2, 'styles_pipe/styles.npz: , regular file'),
    ('USE styles_folder', 2, 'styles_folder/styles.npz: , folder, file'),
    ('USE styles_link', 0, 'styles_link: clustering, fine_generated.png 24x20'),
    ('USE styles_old', 0, 'styles_old: , step 0, step 1, clustering'),
    ('USE gone', 0, 'fine_generated.png 24x20'),
    ('$ rm gone/styles.npz && USE gone', 2, 'gone: , /moved_away, cluster --run gone --data DIR'),
    ('[full disk] PICTURE maps/fine.png', 2, 'made/fine_generated.png: , No space left'),
    ('$ mkdir made; echo old > made/fine_generated.png && [full disk] PICTURE maps/fine.png', 2,
     'made/fine_generated.png: , No space left'),
    ("PICTURE maps/fine.png --style ''", 2, '--style : , LABEL=K'),
    ('PICTURE maps/fine.png --style 1', 2, '--style 1: , LABEL=K'),
    ('PICTURE maps/fine.png --style =', 2, "--style =: , '', 0, 1, 4"),
    *each('PICTURE maps/fine.png --style {}', 2, '--style {}: , 1, 0',
          '1= 1=-1 1=one 1=² 1=99999999999999999999'),
    ('PICTURE maps/fine.png --style 1=٠', 0, 'fine_generated.png'),
    ('PICTURE maps/fine.png --style 99=0', 2, "--style 99=0: , '99', 0, 1, 4"),
    ('PICTURE maps/fine.png --style -1=0', 2, '--style, one argument'),
    ('PICTURE maps/fine.png --style a=b=c', 2, "--style a=b=c: , 'a=b', 0, 1, 4"),
    ("PICTURE maps/fine.png --style 'a\nb=0'", 2, r"--style a\nb=0: , 'a\nb', 0, 1, 4"),
    ('USE street_run --out made --style car=99', 2, '--style car=99: , car, 0, 9'),
    ('USE street_run --out made --style Car=0', 2, "--style Car=0: , 'Car', did you mean car?"),
    ('USE street_run --out made --style train=0', 2, '--style train=0: , train, training data'),
    ('PICTURE maps/fine.png --sample --style 1=0', 0, 'made/fine_seed0_1.png 24x20'),
    ('PICTURE maps/fine.png --sample --n 2', 0, 'made/fine_seed0_1.png, made/fine_seed0_2.png'),
    ('PICTURE maps/fine.png --sample --seed 4294967295', 0, 'made/fine_seed4294967295_1.png'),

    # ---- label maps
    *each('PICTURE maps/{}', 0, '_generated.png 24x20',
          'UPPER.PNG =.png .png.png no_suffix bmp.bmp pages.tif interlaced_palette.png '
          'one_colour_palette.png transparent_palette.png transparent_grey.png grey1.png '
          'grey2.png grey4.png bit.tif i16.png i16b.tif i32.tif deflate.tif link.png fine.npy '
          'bool.npy fortran.npy big_endian.npy channel.npy i64.npy lossless.webp float.tif '
          'float.npy half.npy'),
    ("PICTURE 'maps/two words.png'", 0, 'made/two words_generated.png 24x20'),
    ("PICTURE 'maps/two\nlines.png'", 0, 'made/two\nlines_generated.png 24x20'),
    ("PICTURE 'maps/gone\ngone.png'", 2, r'maps/gone\ngone.png: , no such file'),
    ('PICTURE "maps/quotes\'\\".png"', 0, 'made/quotes\'"_generated.png 24x20'),
    ('cd maps && generate --run ../run --out ../made --label=-dash.png', 0,
     'made/-dash_generated.png 24x20'),
    (r'PICTURE maps/naïve\ 名.png', 0, 'made/naïve 名_generated.png 24x20'),
    (r'[ASCII terminal] PICTURE maps/naïve\ 名.png', 0, r'made/na\xefve \u540d_generated.png'),
    ('PICTURE maps/latin\udce9.png', 0, 'made/latin\udce9_generated.png 24x20'),
    ('PICTURE maps/gone\udce9.png', 2, r'maps/gone\udce9.png: , no such file'),
    (f'PICTURE maps/{LONG_NAME}.png', 2, 'x_generated.png: , File name too long'),
    (f'PICTURE maps/{"y" * 300}.png', 2, 'yyy.png: , File name too long'),
    *each('PICTURE maps/{}', 2, 'maps/{}: , picture',
          'text.png empty.png bomb.png wide.png no_width.png odd_depth.png'),
    ('PICTURE maps/gif.gif', 2, 'maps/gif.gif: GIF, format not read, convert, PNG'),
    ('PICTURE maps/eps.png', 2, 'maps/eps.png: EPS, format not read, convert, PNG'),
    ('PICTURE maps/svg.png', 2, 'maps/svg.png: SVG, format not read, convert, PNG'),
    *each('PICTURE maps/{}', 2, 'maps/{}: , damaged', 'cut.png checksum.png'),
    *each('PICTURE maps/{}', 2, 'maps/{}: , integers, picture, --palette FILE',
          'rgb.png rgba.png lab.tif'),
    ('PICTURE maps/la.png', 2, 'maps/la.png: transparent at x=0, y=0, label'),
    ('PICTURE maps/parts.tif', 2, 'maps/parts.tif: , whole numbers, 0 to 2, ids'),
    *each('PICTURE maps/{}', 2, 'maps/{}: JPEG , PNG, --jpeg-labels',
          'cmyk.jpg jpeg.png jpeg.tif'),
    ('PICTURE maps/animated.webp', 2, 'maps/animated.webp: lossy WebP , PNG, --jpeg-labels'),
    ('PICTURE maps/turned.tif', 0, 'made/turned_generated.png 20x24'),
    ('PICTURE maps/1x1.png', 0, 'made/1x1_generated.png 1x1'),
    ('PICTURE maps/2x1.png', 0, 'made/2x1_generated.png 2x1'),
    ('PICTURE maps/1x300.png', 0, 'made/1x300_generated.png 1x300'),
    ('PICTURE maps/large.png', 0, 'note: maps/large.png, 72x96, run, 16x16, --size 14x18'),
    ('PICTURE maps/high.png', 2, 'maps/high.png: , label 77 at x=0, y=0, 0 to 4'),
    ('PICTURE maps/unknown.png', 2, 'maps/unknown.png: , label 255 at x=8, y=1, 0 to 4'),
    *each('PICTURE maps/{}', 2, 'maps/{}: , no pictures', 'folder.png none text_only'),
    *each('PICTURE maps/{}', 2, 'maps/{}: , regular file',
          'pipe.png pipe.npy device.png device.npy'),
    ('PICTURE maps/loop.png', 2, 'maps/loop.png: , symbolic links'),
    ('PICTURE maps/nowhere.png', 2, 'maps/nowhere.png: , link'),
    ('PICTURE maps/gone.png', 2, 'maps/gone.png: , no such file'),
    ('PICTURE maps/fine.png/x.png', 2, 'maps/fine.png/x.png: , Not a directory'),
    ('PICTURE http://example.org/map.png', 2, 'example.org/map.png: , no such file'),
    ("PICTURE 'maps/*.png'", 2, 'maps/*.png: , no such file'),
    ('PICTURE maps/u64.npy', 2, 'maps/u64.npy: , 18446744073709551615, 31 bits'),
    ('PICTURE maps/beyond.npy', 2, 'maps/beyond.npy: , 4294967296, 4294967300, 31 bits'),
    ('PICTURE maps/negative.npy', 2, 'maps/negative.npy: , label -2 at x=0, y=0, 0 to 4'),
    ('PICTURE maps/least.npy', 2, 'maps/least.npy: , -9223372036854775808, 31 bits'),
    *each('PICTURE maps/{}.npy', 2, 'maps/{}.npy: , one channel, integers, array',
          'complex text time records bands'),
    ('PICTURE maps/parts.npy', 2, 'maps/parts.npy: , whole numbers, 0 to 2, ids'),
    *each('PICTURE maps/{}.npy', 2, 'maps/{}.npy: , array',
          'object zip cut header no_bytes lie version'),
    *each('PICTURE maps/{}.npy', 2, 'maps/{}.npy: , array, shape (, height, width',
          'empty nothing line number four long'),

    # ---- several label maps, and folders of them
    ('PICTURE some_bad', SOME_MAPS, 'some_bad/b.png: , 1 of 3, made/a_generated, made/c_generated'),
    ('PICTURE all_bad', SOME_MAPS, 'all_bad/a.png: , all_bad/c.png: , 3 of 3'),
    ('PICTURE maps/fine.png maps/gone.png', SOME_MAPS, 'maps/gone.png: , 1 of 2, made/fine_'),
    ('PICTURE maps/pipe.png maps/fine.png maps/loop.png', SOME_MAPS,
     'maps/pipe.png: , maps/loop.png: , 2 of 3, made/fine_'),
    ('PICTURE some_named', 0, 'made/x_generated.png 24x20, made/y_generated.png 24x20'),
    ('PICTURE some_named --inst some_named', 2, 'some_named/y.png: , same name, in some_named'),
    *each('PICTURE {}', 0, 'made/a_generated.png 24x20', 'with_macos deep'),
    ('PICTURE twice', 2, 'twice/a.tif and twice/a.png, same name'),
    ('PICTURE some_bad twice/a.png', SOME_MAPS,
     'some_bad/b.png: , 1 of 4, made/some_bad/a_generated.png 24x20, '
     'made/twice/a_generated.png 24x20, !made/a_'),
    ('PICTURE maps/fine.png --inst maps/large.png', 2,
     'maps/large.png, 72x96, maps/fine.png, 24x20'),
    ('PICTURE maps/fine.png --inst maps/rgb.png', 0, 'made/fine_generated.png 24x20'),
    ('PICTURE maps/fine.png --inst maps/cmyk.jpg', 2,
     'maps/cmyk.jpg: JPEG , instance ids, PNG, --jpeg-labels, !--palette'),
    ('PICTURE maps/fine.png --inst maps/lab.tif', 2, 'maps/lab.tif: , integers, LAB'),
    ('PICTURE maps/fine.png --inst maps/none', 2, 'maps/none: , no pictures'),
    ('PICTURE maps/fine.png --inst gone', 2, 'gone: , no pictures'),
    *each('PICTURE maps/fine.png --inst {}', 0, 'made/fine_generated.png',
          'maps/u64.npy maps/negative.npy insts'),
    ('PICTURE maps/bmp.bmp --inst insts', 2, 'maps/bmp.bmp: , same name, in insts'),
    ('PICTURE maps/fine.png maps/bmp.bmp --inst insts/fine.png', 2, 'maps/bmp.bmp: , same name'),
    ('PICTURE maps/fine.png maps/bmp.bmp --encode photos/fine.png', 2, 'maps/bmp.bmp: , same name'),
    *each('PICTURE some_bad --out {}', 2, '--out {} , some_bad',
          'some_bad some_bad/../some_bad/x'),
    ('cd some_bad && generate --run ../run --label . --out made', 2, '--out made , label maps'),
    ('generate --run run --label run', 2, '--out run/generated , label maps'),
    ('PICTURE maps/fine.png --out file', 2, 'file: , a file, folder'),
    ('PICTURE maps/fine.png --out file/x', 2, 'file/x: , Not a directory'),
    ('PICTURE maps/fine.png --out /dev/null', 2, '/dev/null: , a file, folder'),
    ('PICTURE maps/fine.png --out loop', 2, 'loop: , File exists'),
    ('PICTURE maps/fine.png --out x/y/z', 0, 'x/y/z/fine_generated.png 24x20'),
    ('[no rights] PICTURE maps/fine.png', 2, 'made: , Permission denied'),
    ('$ mkdir -p made/fine_generated.png && PICTURE maps/fine.png', 2,
     'made/fine_generated.png: , directory'),

    # ---- photographs to take the styles from
    *each('ENCODE photos/{}', 0, 'made/fine_encoded.png 24x20',
          'fine.png grey.png la.png rgba.png palette.png bit.png cmyk.jpg ycc.tif animated.webp '
          'png.jpg 16.png 16.tif unit.tif turned.jpg turned.tif upside.jpg odd_turn.jpg '
          'double.png nearly.png unit.npy minus.npy eight.npy half.npy long.npy big_endian.npy '
          'fortran.npy'),
    ('ENCODE photos', 2, 'photos/16.tif and photos/16.png, same name'),
    ('ENCODE insts', 0, 'made/fine_encoded.png 24x20'),
    ('ENCODE photos/fine.png --style 0=0', 0, 'made/fine_encoded.png 24x20'),
    *each('ENCODE photos/{}', 2, 'photos/{}: , photograph, 8 or 16 bits',
          '32.tif 255.tif nan.tif inf.tif'),
    ('ENCODE photos/sideways.png', 2, 'photos/sideways.png, 20x24, label map, 24x20'),
    *each('ENCODE photos/{}', 2, 'photos/{}: , picture', 'cut.jpg text.jpg'),
    ('ENCODE photos/pipe.jpg', 2, 'photos/pipe.jpg: , regular file'),
    ('ENCODE photos/gone.jpg', 2, 'photos/gone.jpg: , no such file'),
    ('ENCODE maps/none', 2, 'maps/none: , no pictures'),
    *each('ENCODE photos/{}', 2, 'photos/{}: , float, [-1, 1]', '255.npy nan.npy huge.npy'),
    *each('ENCODE photos/{}', 2, 'photos/{}: , channels, 3, uint8, float',
          'int.npy i8.npy complex.npy grey.npy five.npy'),
    ('PICTURE maps/1x1.png --encode photos/fine.png', 2, 'photos/fine.png, 24x20, label map, 1x1'),

    # ---- pictures to pictures
    ('generate --run ab --out made --label pairs/train_A/a.png', 0, 'made/a_generated.png 24x20'),
    ('generate --run ab --out made --label photos/fine.png', 0, 'made/fine_generated.png 24x20'),
    ('generate --run ab --out made --label photos/turned.jpg', 0, 'made/turned_generated.png'),
    ('generate --run ab --out made --label photos/five.npy', 2, 'photos/five.npy: , 5 channels, 1'),
    ('generate --run ab --out made --label photos/nan.npy', 2, 'photos/nan.npy: , 3 channels, 1'),
    ('generate --run ab --out made --label photos/pipe.jpg', 2, 'photos/pipe.jpg: , regular file'),

    # ---- runs
    ('USE loop', 2, 'loop: '),
    ('cd run && generate --run . --label ../maps/fine.png', 0, 'generated/fine_generated.png'),
    ('$ mkdir runs; cp -r run runs/x && generate --label maps/fine.png', 0,
     'runs/x/generated/fine_generated.png'),
    ('$ mkdir runs; cp -r run runs/x; touch runs/y && generate --label maps/fine.png', 0,
     'runs/x/generated/fine_generated.png'),
    ('USE street_run --out made', 0, 'warning: , no styles for unlabeled'),
    ('generate --run native --label maps/1x300.png', 0, 'native/generated/1x300_generated.png'),
    ('USE local', 0, 'local/generated/fine_generated.png 24x20'),

    # ---- runs of the official code
    ('USE official --out made', 0, 'made/fine_generated.png 24x20'),
    ('USE official_no_E --out made', 2, 'official_no_E: , 39 channels, 3, latest_net_E.pth'),
    *each('USE {}', 2, '{}: , official pix2pixHD', 'official_bad_G official_bad_E'),
    ('USE official_text', 2, 'official_text/latest_net_G.pth: , tensors'),
    ('USE official_folder', 2, 'official_folder/latest_net_D.pth: , folder, file'),
    ('USE official_nan', 2, 'official_nan: , weights of G, finite'),
    ('USE official_pipe', 2, 'official_pipe: '),
    ('USE official_styles', 2, 'official_styles/features_clustered_010.npy: , official code'),
    ('cluster --run official --data street', 0, 'official/styles.npz'),
    ('[one core] cluster --run official --data street', 0, 'official/styles.npz'),
    ('finetune --from official --data street --steps 1 --size 64x64', 0,
     'runs/official-64x64: 64x64'),

    # ---- the baseline and the ablations
    ('TRAIN --model pix2pix', 2, '--n-blocks 1, U-Net, residual blocks'),
    ('TRAIN --model pix', 2, "--model, 'pix', pix2pix"),
    ('train --data own --size 16x16 --n-down-encoder 2 --model unet --n-down 1 --n-scales 2', 2,
     '--n-down 1, at least 2, U-Net'),
    ('train --data own --model unet --size 33x32', 2, '--size 33x32, multiples of 16, 32x32'),
    ('train --data own --model pix2pix --n-enhancers 2', 2, '--n-enhancers 2, --model pix2pix'),
    ('train --data plain BARE --no-boundary', 2, '--no-boundary, no instances'),
    ('train --data plain TINY --features-of label', 0, 'no instances, encoder'),
    ('train --data pairs TINY --features-of label', 2, '--features-of, label maps, pictures'),
    ('TRAIN --no-features --features-of label', 2, '--nef 4, --features'),
    ('TRAIN --instances none --features', 2, '--features: , --instances none, leave out'),
    ('PICTURE maps/fine.png --palette-nearest', 2, '--palette-nearest: run, --palette'),
    ('$ mkdir c; echo {} > c/index.json && CACHED', 2, 'c/index.json: , overwritten, --cache'),
    ('export --run run --official off && export --run run --official off', 2,
     '--official off: , another folder'),
    ('TRAIN --lambda-vgg 3', 2, '--lambda-vgg 3.0, --vgg'),
    ('TRAIN --vgg-input imagenet', 2, '--vgg-input imagenet, --vgg'),
    ('TRAIN --vgg w.pth --vgg-input caffe', 2, '--vgg-input, caffe, imagenet'),
    ('TRAIN --lambda-feature -1', 2, "--lambda-feature, '-1', 0, 1e6"),
    ('TRAIN --lambda-l1 nan', 2, "--lambda-l1, 'nan', 0, 1e6"),
    *each('TRAIN --ema {}', 2, "--ema, '{}', 0, 1", '1 -0.1'),
    ('TRAIN --up cubic', 2, "--up, 'cubic', bilinear"),
    ('TRAIN --hold-out 99', 2, '--hold-out 99, 3 pictures'),
    ('TRAIN --hold-out 1', 0, 'runs/own/checkpoint-0000001.pt'),
    ('TRAIN --evaluate-every 1', 2, '/own: , val, test, --hold-out N'),
    ('train --resume run --up nearest --steps 9', 2, '--up nearest: , run, transposed'),
    ('train --resume run --ema 0.5 --steps 9', 2, '--ema 0.5: , run, 0.999'),

    # ---- scores
    ('evaluate', 2, 'runs/, --run'),
    ('evaluate --run nowhere', 2, 'nowhere: , no checkpoint'),
    ('evaluate --run run --split val --data own', 2, "own: , 'val', train, --split"),
    ('$ mkdir zip; mv own zip && check --data zip', 2, 'zip: , did you mean zip/own?'),
    ('$ mkdir -p n/leftImg8bit/train && check --data n', 2,
     'n: leftImg8bit/, gtFine/ is not, one folder'),
    ('$ mkdir -p n/a/leftImg8bit n/b/gtFine && check --data n', 2,
     'n: , n/b/gtFine/, n/a/leftImg8bit/, one folder'),
    *each('check --data street/{}', 2, 'street/{}: , in it, street', 'gtFine leftImg8bit'),
    ('$ touch set.zip && check --data set.zip', 2, 'set.zip: , unpack'),
    ('$ mkdir n; touch n/set.zip && check --data n', 2, 'n: , unpack set.zip'),
    ('evaluate --run run --split ../x', 2, "--split, '../x', letters"),
    ('evaluate --run run --data nowhere', 2, 'nowhere: , folder'),
    ('evaluate --run run --split train --data pairs', 2, 'pairs: , A to B, flat'),
    ('evaluate --run run --checkpoint best', 2, 'run/best.pt: , train --evaluate-every N'),
    ('evaluate --run run --checkpoint worst', 2, "--checkpoint, 'worst', best"),
    *each('evaluate --run run --void {}', 2, '--void {}, 0 to 4, none', 'dragon 35 1e9'),
    ('evaluate --run run --split train --judge maps/fine.png', 2, 'maps/fine.png: , judge, name'),
    ('evaluate --run run --split train --judge maps', 2, 'maps: , folder, file'),
    ('evaluate --run run --judge a --predictions b', 2, '--judge, --predictions'),
    ('evaluate --run run --judge none --size 1x1', 2, '--size 1x1: , larger'),
    ('evaluate --run run --split train --predictions maps', 2, 'maps/real/, prediction, .png'),
    ('evaluate --run run --vgg nowhere.pth', 2, '--vgg nowhere.pth, vgg19-dcbb9e9d.pth'),
    ('evaluate --run run --styles random', 2, "--styles, 'random', sampled"),
    ('evaluate --run run --size 0x0', 2, "--size, '0x0', WIDTHxHEIGHT"),
    ('PICTURE maps/fine.png --checkpoint best', 2, 'run/best.pt: , train --evaluate-every N'),
    ('PICTURE maps/fine.png --no-average', 0, 'made/fine_generated.png'),
    ('PICTURE maps/fine.png --styles x.json --n 3', 2, '--n 3: , leave it out'),
    ('cluster --run run --checkpoint best', 2, 'run/best.pt: , train --evaluate-every N'),
    ('evaluate --run official', 2, 'official: , --data DIR'),

    # ---- the demo
    ("demo --run ''", 2, "--run, '', path"),
    *each('demo --run {}', 2, '{}: , --run DIR', 'own file .'),
    ('demo --run file/x', 2, 'file/x/scenes: , Not a directory'),
    ('demo --run /', 2, '/: , folder'),
    ('demo own', 2, 'unrecognized, own'),
    ('$ mkdir x-256x128 && demo --run x', 2, 'x-256x128: , --run DIR'),

    # ---- numbers
    *whole_numbers(),
    *each('train --lr={}', 2, "--lr, '{}', 0, 1", 'nan inf -inf -1 0 1 1e400 0x1p-3 one ½'),
    *each('train --jitter={}', 2, "--jitter, '{}', 1, 2", 'nan inf 0.99 2.01 1e400 one'),
    *each('train --size={}', 2, "--size, '{}', WIDTHxHEIGHT",
          'nan 16 x 9x 1e3x16 -16x16 0x10 1.5x2 16*16 16x16x3 99999x16'),
    *each('train --crop={}', 2, "--crop, '{}', WIDTHxHEIGHT",
          'x9 16x1e3 16x-16 0x0 ½x16 native'),
    *each('generate --label maps --size={}', 2, "--size, '{}', WIDTHxHEIGHT",
          'native 16 16by16 16x99999'),
]


# ----------------------------------------------------------------------------- the circumstances

def raising(error):
    def fail(*args, **kwargs):
        raise error
    return fail


# What may stand in brackets before a command.
CIRCUMSTANCES = {
    'no memory': lambda patch: patch.setattr(formats, 'apply_orientation', raising(MemoryError())),
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
    'one core': lambda patch: patch.setattr(os, 'sched_getaffinity', lambda process: {0}),
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
    """Return {path: checksum, or None if it is no file} of all that is below a folder."""
    sums = {}
    for place, folders, names in os.walk(folder):
        sums |= {os.path.join(place, name): None for name in folders}
        for path in (os.path.join(place, name) for name in set(names) - {'.lock'}):
            regular = stat.S_ISREG(os.lstat(path).st_mode)
            sums[path] = zlib.crc32(Path(path).read_bytes()) if regular else None
    return sums


def describe_new_files(before, after):
    """Yield the names of new files, with the sizes of pictures."""
    for path in sorted(after.keys() - before.keys()):
        size = ''
        if path.endswith('.png'):
            with Image.open(path) as picture:
                size = f' {picture.width}x{picture.height}'
        yield os.path.relpath(path) + size


def contains(text, fact):
    """Return whether the text has the fact, or lacks it if a ! stands before it."""
    pattern = re.escape(fact.removeprefix('!'))
    pattern = r'(?<!\d)' * fact[0].isdigit() + pattern + r'(?!\d)' * fact[-1].isdigit()
    return bool(re.search(pattern, text)) != fact.startswith('!')


@pytest.fixture(scope='module')
def odd_files(shared_folder, scenes, trained, estimates):
    """Return the folder of all odd files, which must stay as it is."""
    with pytest.MonkeyPatch.context() as patch:
        remember_estimates(estimates, patch.setattr)
        return shared_folder('odd', lambda root: make_odd_files(root, scenes, trained))


@pytest.mark.parametrize('words, code, facts', ROWS, ids=[row[0] for row in ROWS])
def test_odd_command(words, code, facts, odd_files, command, monkeypatch, tmp_path, recwarn):
    full = spell_out(words)
    named = {*re.split(r'[^\w.-]+', full), *re.findall("'(.*?)'", full)}
    for source in odd_files.iterdir():
        if source.name in named:
            link(source, tmp_path / source.name)

    *steps, last = words.split(' && ')
    for step in steps:
        if step.startswith('$ '):
            subprocess.run(step[2:], shell=True, check=True, cwd=os.getcwd())
        elif step.startswith('cd '):
            monkeypatch.chdir(step[3:])
        else:
            assert command(*shlex.split(spell_out(step)))[0] == 0
    before = contents(tmp_path)
    circumstance = re.match(r'\[(.*?)\] ', last)
    if circumstance:
        CIRCUMSTANCES[circumstance[1]](monkeypatch)
        last = last[circumstance.end():]
    exit_code, out, err = command(*shlex.split(spell_out(last)))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)

    after = contents(tmp_path)
    answer = f'{err}{out}' + '\n'.join(describe_new_files(before, after))
    assert exit_code == (code if code == 0 else 2), answer
    assert 'Traceback' not in answer
    missing = [fact for fact in facts.split(', ') if not contains(answer, fact)]
    assert not missing, answer
    assert not recwarn.list                                         # they would be lines, too
    if code == PROBLEMS:
        assert re.fullmatch(r'\d+ problems?: .*', out.splitlines()[-1])
    elif exit_code == 2:
        lines = [line for line in err.splitlines() if not re.match(
            r'warning: |note: |(headers|labels|pixels): \d+ of \d+$', line)]
        assert all(line.startswith('p2phd') for line in lines), answer
        n_bad = re.search(r'(\d+) of \d+', lines[-1])
        assert len(lines) == 1 + (int(n_bad[1]) if code == SOME_MAPS else 0), answer
        assert before.keys() <= after.keys()                        # nothing is lost ...
        if code == 2:                                               # ... or changed, or left behind
            assert {path: after[path] for path in before} == before
            assert {os.path.relpath(path) for path in after.keys() - before.keys()} <= {'made'}


def link(source, target):
    """Make an odd file or folder available at `target`: links, but copies of what runs write to."""
    def link_or_copy(source, target):
        copy = os.path.basename(target) in ('log.csv', 'speed.csv', '.lock')
        (shutil.copyfile if copy else os.link)(source, target)

    if source.is_symlink() or source.is_file():
        target.symlink_to(source)
    elif source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=link_or_copy)
    else:                                                           # a pipe
        os.link(source, target)


def spell_out(words):
    return re.sub('|'.join(SHORT), lambda short: SHORT[short[0]], words)
