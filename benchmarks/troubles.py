"""Measures the remedies of docs/troubleshooting.md on real street pictures.

    python benchmarks/troubles.py --data camvid/ --out troubles/

Trains small runs on CamVid in the flat layout, with three seeds each, and prints a Markdown table:
what was measured without and with the remedy, mean over the seeds, minimum and maximum. Started
again, it continues: what is finished is not repeated.
"""
import re
import sys

import numpy as np
from PIL import Image
import torch

from experiment import (ROOT, copy_few_pictures, parse_arguments, score_runs, train_all,
                        train_to_end)

sys.path.insert(0, str(ROOT))
from app.datasets import layouts
from app.datasets.pairs import PairReader
from app.evaluation.judge import read_judge
from app.evaluation.measures import count_pixels, segmentation_scores
from app.runs import runs
import data

SIZE, LARGER_SIZE, N_FEW, VOID = '128x96', '256x192', 20, 11
NETWORK = '--ngf 24 --ndf 24 --n-down 3 --n-blocks 6 --n-down-encoder 3'
RUNS = {                                            # name: its flags of train
    'plain': '',
    'bilinear': '--up bilinear',
    'few': '--no-flip',                             # on a few pictures
    'few-more': '--flip --jitter 1.3'}              # the default is to flip


def train_run(name, seed, args):
    """Train one run."""
    folder = args.out / f'{name}{seed}'
    source = args.out / 'few' if name.startswith('few') else args.data
    train_to_end(folder, [
        'train', '--data', source, '--run', folder, '--size', SIZE, '--n-labels', 12,
        '--instances', 'components', '--steps', args.steps, '--seed', seed, '--log-every', 50,
        '--workers', 0, '--precision', args.precision, *NETWORK.split(), *RUNS[name].split()])


def evaluate(names, args, *flags):
    """Evaluate all runs of these names. Return {name: [row of scores.json for each seed]} and the
    folder of the pictures."""
    folders = [args.out / f'{name}{seed}' for name in names for seed in range(args.seeds)]
    out = args.out / '-'.join(['scores', *(str(flag).strip('-') for flag in flags[:2])])
    rows, _ = score_runs(['--run', *folders, '--data', args.data, '--void', VOID, '--write',
                          out / 'pictures', *flags], out, args.vgg, threads=None)
    return ({name: [rows[f'{name}{seed}'] for seed in range(args.seeds)] for name in names},
            out / 'pictures')


def find_judge(args):
    """Return the path of the judge that the first evaluation trained."""
    return next(args.out.glob('judge-*.pt'))


def shrunk_mean_iou(folder, args):
    """Return the mean IoU in per cent of pictures that were made at LARGER_SIZE, shrunk to SIZE,
    with the label maps and the judge of that size."""
    config = runs.read_run(args.out / 'plain0')[1]['config']
    judge = read_judge(find_judge(args), config, {VOID}, torch.device('cpu'))
    reader, counts = PairReader(config), []
    for pair in layouts.find_pairs(args.data, 'val')[1]:
        image = data.to_tensor(reader.read_photo(folder / f'{pair.name}.png', config.size))
        label = data.to_tensor(reader.read_label(pair.label, config.size)[0])[0]
        counts.append(count_pixels(judge(image), label, {VOID}, config.n_labels))
    return 100 * segmentation_scores(counts, [])['mean_iou']


def grid_strength(folder):
    """Return how much pictures alternate from pixel to pixel, in grey levels: the mean over 8x8
    squares and pictures of |sum of (-1)^x or (-1)^y times the pixels| / 64."""
    sign = np.where(np.arange(8) % 2, -1, 1)
    strengths = []
    for path in sorted(folder.glob('*.png')):
        grey = np.asarray(Image.open(path).convert('L'), float)
        h, w = (side // 8 * 8 for side in grey.shape)
        squares = grey[:h, :w].reshape(h // 8, 8, w // 8, 8).swapaxes(1, 2)
        across, down = squares.mean(-2) @ sign / 8, squares.mean(-1) @ sign / 8
        strengths.append(np.abs([across, down]).mean())
    return np.mean(strengths)


def distances_in_logs(args):
    """Return the distances from the photographs that the logs of `plain` report for pictures that
    were not trained on: in main styles, and in the styles of the photographs, one for each seed."""
    pattern = (r'other pictures: ([\d.]+) with the styles of the photograph, ([\d.]+) with the '
               'most frequent')
    matches = [re.search(pattern, (args.out / f'plain{seed}.log').read_text())
               for seed in range(args.seeds)]
    return [float(match[2]) for match in matches], [float(match[1]) for match in matches]


def cell(values):
    """Return 'mean (minimum to maximum)'."""
    return f'{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})'


def main():
    args = parse_arguments(__doc__, 2000, 'steps of each run (default: 2000)')
    copy_few_pictures(args.data, args.out / 'few', lambda paths: paths[:N_FEW])
    train_all(train_run, [(name, seed) for seed in range(args.seeds) for name in RUNS], args)

    rows, pictures = evaluate(RUNS, args)
    # Named, because evaluate would train another judge for this size.
    _, larger = evaluate(['plain'], args, '--size', LARGER_SIZE, '--judge', find_judge(args))
    iou = {name: [100 * row['mean_iou'] for row in rows[name]] for name in RUNS}
    l1 = {name: [row['l1'] for row in rows[name]] for name in RUNS}
    grids = {name: [grid_strength(pictures / f'fake-{name}{seed}') for seed in range(args.seeds)]
             for name in ('plain', 'bilinear')}
    main_styles, encoded_styles = distances_in_logs(args)
    folders = [f'fake-plain{seed}' for seed in range(args.seeds)] if args.seeds > 1 else ['fake']
    shrunk = [shrunk_mean_iou(larger / folder, args) for folder in folders]
    print('| symptom | measure | without | remedy | with |')
    print('|---|---|---|---|---|')
    for symptom, measure, before, remedy, after in (
            ('maps twice as large as in training', f'mean IoU % at {SIZE}', shrunk,
             f'--size {SIZE}', iou['plain']),
            ('other colours than the photograph', 'L1', main_styles, '--encode', encoded_styles),
            ('a grid', f'grey levels (photographs {grid_strength(pictures / "real"):.2f})',
             grids['plain'], RUNS['bilinear'], grids['bilinear']),
            (f'{N_FEW} pictures', 'L1', l1['few'], RUNS['few-more'], l1['few-more']),
            ('', 'mean IoU %', iou['few'], RUNS['few-more'], iou['few-more']),
            ('', 'L1', l1['few'], '367 pictures', l1['plain']),
            ('', 'mean IoU %', iou['few'], '367 pictures', iou['plain'])):
        print(f'| {symptom} | {measure} | {cell(before)} | `{remedy}` | {cell(after)} |')


if __name__ == '__main__':
    main()
