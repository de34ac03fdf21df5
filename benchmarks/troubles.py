"""What the README advises when pictures are not what one hoped for, tried on real street pictures.

    python benchmarks/troubles.py --data camvid/ --out troubles/

Trains small runs on CamVid in the flat layout, three seeds of each, and prints a table of Markdown:
what was measured without the remedy and with it, the mean over the seeds and their extremes. What
has been done already is not done again: it goes on where it was stopped.
"""
from concurrent.futures import ThreadPoolExecutor
import re
import shutil
import sys

import numpy as np
from PIL import Image
import torch

from experiment import PROGRAM, arguments, finish, scored

sys.path.insert(0, str(PROGRAM.parent))
import data
from app.evaluation import judge
from app.datasets import layouts
from app.datasets.pairs import PairReader
from app.runs import runs

SIZE, LARGER, FEW, VOID = '128x96', '256x192', 20, 11
NETWORK = '--ngf 24 --ndf 24 --n-down 3 --n-blocks 6 --n-down-encoder 3'
RUNS = {                                            # name: its flags of train
    'plain': '',
    'bilinear': '--up bilinear',
    'few': '--no-flip',                             # on a few pictures
    'few-more': '--flip --jitter 1.3'}              # the default is to flip


def few(args):
    """A data set of the first few training pictures, and all to look at -> its folder."""
    folder = args.out / 'few'
    for role in ('img', 'label'):
        (folder / f'train_{role}').mkdir(parents=True, exist_ok=True)
        for path in sorted((args.data / f'train_{role}').iterdir())[:FEW]:
            shutil.copy(path, folder / f'train_{role}')
        if not (folder / f'val_{role}').exists():
            shutil.copytree(args.data / f'val_{role}', folder / f'val_{role}')
    return folder


def train(name, seed, args):
    folder = args.out / f'{name}{seed}'
    words = ['train', '--data', few(args) if name.startswith('few') else args.data, '--run', folder,
             '--size', SIZE, '--n-labels', 12, '--instances', 'components', '--steps', args.steps,
             '--seed', seed, '--log-every', 50, '--workers', 0, '--precision', 'fp32',
             *NETWORK.split(), *RUNS[name].split()]
    finish(folder, args.steps, words)


def evaluate(names, args, *words):
    """What evaluate says of all runs of these names on the pictures that they were not trained on
    -> {name: [a row of scores.json for each seed]}, the folder of the pictures."""
    folders = [args.out / f'{name}{seed}' for name in names for seed in range(args.seeds)]
    out = args.out / '-'.join(['scores', *(str(word).strip('-') for word in words[:2])])
    rows = scored(['--run', *folders, '--data', args.data, '--void', VOID, '--write',
                   out / 'pictures', *words], out, threads=None)
    return {name: [rows[f'{name}{seed}'] for seed in range(args.seeds)] for name in names}, (
        out / 'pictures')


def shrunk(folder, args):
    """Mean IoU in per cent of pictures that were made larger, by the judge of the others: shrunk to
    the size of the training, with the label maps of that size."""
    config = runs.read_run(args.out / 'plain0')[1]['config']
    path = next(args.out.glob('judge-*.pt'))
    recognise, size = judge.read_judge(path, config, torch.device('cpu')), config.size
    reader, tallies = PairReader(config), []
    for pair in layouts.find_pairs(args.data, 'val')[1]:
        image = data.to_tensor(reader.read_photo(folder / f'{pair.name}.png', size))[None]
        label = data.to_tensor(reader.read_label(pair.label, size)[0])[0]
        tallies.append(judge.count_pixels(recognise(image, {VOID})[0], label, {VOID}, config.n_labels))
    return 100 * judge.Scores(tallies).mean_iou


def grid(folder):
    """How much of a picture alternates from pixel to pixel, in grey levels: the mean over pictures
    of |sum of (-1)^x or (-1)^y times the pixels| / 64 over the 8x8 squares of each."""
    sign = np.where(np.arange(8) % 2, -1, 1)
    found = []
    for path in sorted(folder.glob('*.png')):
        grey = np.asarray(Image.open(path).convert('L'), float)
        h, w = (side // 8 * 8 for side in grey.shape)
        squares = grey[:h, :w].reshape(h // 8, 8, w // 8, 8).swapaxes(1, 2)
        across, down = squares.mean(-2) @ sign / 8, squares.mean(-1) @ sign / 8
        found.append(np.abs([across, down]).mean())
    return np.mean(found)


def told(args):
    """What train says at its end of pictures that it was not trained on: their distances from the
    photographs in main styles, and in the photographs' own."""
    text = [(args.out / f'plain{seed}.log').read_text() for seed in range(args.seeds)]
    found = [re.search(r'not trained on.* ([\d.]+) styles of the photograph, ([\d.]+) main', one)
             for one in text]
    return ([float(one[2]) for one in found], '--encode', [float(one[1]) for one in found])


def cell(values):
    return f'{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})'


def main():
    args = arguments(__doc__, 2000, 'of each run')
    few(args)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda job: train(*job, args),
                      [(name, seed) for seed in range(args.seeds) for name in RUNS]))

    def iou(rows):
        return [100 * row['mean_iou'] for row in rows]

    def far(rows):
        return [row['l1'] for row in rows]

    seeds = range(args.seeds)
    usual, pictures = evaluate(RUNS, args)
    own = next(args.out.glob('judge-*.pt'))                 # not asked, but one would be trained
    _, larger = evaluate(['plain'], args, '--size', LARGER, '--judge', own)
    grids = {name: [grid(pictures / f'fake-{name}{seed}') for seed in seeds]
             for name in ('plain', 'bilinear')}
    print('| what is wrong | what is measured | so | with |  |')
    print('|---|---|---|---|---|')
    for wrong, measure, before, remedy, after in (
            ('maps twice as large as in training', f'mean IoU % at {SIZE}',
             [shrunk(larger / f'fake-plain{seed}', args) for seed in seeds], f'--size {SIZE}',
             iou(usual['plain'])),
            ('other colours than the photograph', 'L1', *told(args)),
            ('a grid', f'grey levels (photographs {grid(pictures / "real"):.2f})', grids['plain'],
             RUNS['bilinear'], grids['bilinear']),
            (f'{FEW} pictures', 'L1', far(usual['few']), RUNS['few-more'], far(usual['few-more'])),
            ('', 'mean IoU %', iou(usual['few']), RUNS['few-more'], iou(usual['few-more'])),
            ('', 'L1', far(usual['few']), '367 pictures', far(usual['plain'])),
            ('', 'mean IoU %', iou(usual['few']), '367 pictures', iou(usual['plain']))):
        print(f'| {wrong} | {measure} | {cell(before)} | `{remedy}` | {cell(after)} |')


if __name__ == '__main__':
    main()
