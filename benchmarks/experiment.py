"""The paper's argument on real street pictures: what each part of the method is worth.

    python benchmarks/experiment.py --data camvid/ --out experiment/

Trains the pix2pix baseline (a), one scale without feature matching (b), three scales with feature
matching (c) and the same with bilinear resizing (e), and puts a local enhancer around c (f), with
three seeds each; scores them with and without the moving average of the weights (d is c with it),
and prints a table: the mean over the seeds and their extremes. What has been done already is not
done again: it goes on where it was stopped.
"""
import argparse
from concurrent.futures import ThreadPoolExecutor
import json
import os
from pathlib import Path
import subprocess
import sys

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from app.runs import report

PROGRAM = Path(__file__).resolve().parent.parent / 'p2phd.py'
MEASURES = {name: report.MEASURES[name]
            for name in ('pixel_accuracy', 'class_accuracy', 'mean_iou', 'l1', 'ssim')}


def variants(cuda):
    """{letter: (what it is, flags of train, or of finetune)}"""
    network = '' if cuda else '--ngf 24 --ndf 24 --n-down 3 --n-blocks 6'
    return {
        'a': ('pix2pix', '--model pix2pix' + ('' if cuda else ' --ngf 24 --ndf 24')),
        'b': ('one scale, no feature matching', f'{network} --n-scales 1 --lambda-feature 0'),
        'c': ('three scales, feature matching', network),
        'e': ('c with bilinear resizing', f'{network} --up bilinear'),
        'f': ('c with a local enhancer around it', '--fix-global 1')}


def command(words, log, threads=1):
    """Run the program, its output into the file `log`; one thread on the CPU, so that as many as
    there are cores can run at once; None: all."""
    environment = {**os.environ, **({'OMP_NUM_THREADS': str(threads)} if threads else {})}
    with open(log, 'a') as file:
        return subprocess.run([sys.executable, PROGRAM, *map(str, words)], stdout=file,
                              stderr=subprocess.STDOUT, env=environment).returncode


def finish(folder, steps, words):
    """Train the run in `folder` to its end: by a command line, or on from where it was stopped."""
    log = folder.with_name(f'{folder.name}.log')
    if any(folder.glob('checkpoint-*')):
        words = ['train', '--resume', folder]
    if not (folder / f'checkpoint-{steps:07d}.pt').exists() and command(words, log):
        sys.exit(f'{folder}: see {log}')
    print(f'{folder}: trained', flush=True)


def scored(words, out, threads=1):
    """{name of a run: its row of scores.json} of an evaluation into `out`, made unless it is
    there."""
    log = out.with_name('evaluate.log')
    if not (out / 'scores.json').exists() and command(
            ['evaluate', *words, '--out', out], log, threads):
        sys.exit(f'{out}: see {log}')
    rows = json.loads((out / 'scores.json').read_text())['rows']
    return {row['name'].split(',')[0]: row for row in rows}


def arguments(description, steps, of):
    """The command line of such a script, whose folder is made. steps: how many, by default, `of`
    what."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='CamVid in the flat layout')
    parser.add_argument('--out', type=Path, required=True, help='folder for runs and scores')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=steps, help=of)
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='runs at once')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def train(letter, seed, args, cuda):
    """Train one run to its end, also from where it was stopped."""
    folder, steps = args.out / f'{letter}{seed}', args.steps
    words = ['train', '--data', args.data, '--size', '480x352' if cuda else '128x96',
             '--ignore-label', 11, '--seed', seed]
    if letter == 'f':
        steps = args.steps // 3
        words = ['finetune', '--from', args.out / f'c{seed}']
    words += ['--run', folder, '--steps', steps, '--log-every', 100, '--workers', 0,
              *variants(cuda)[letter][1].split()]
    finish(folder, steps, words)


def evaluate(folders, args, average):
    """{name of a run: its row of scores.json}, ceiling and floor among them."""
    return scored(['--run', *folders, '--average' if average else '--no-average'],
                  args.out / f'scores-{"average" if average else "weights"}')


def line(title, rows):
    """A row of the table in Markdown: means over the seeds, and extremes."""
    cells = []
    for name, (_, factor, form) in MEASURES.items():
        values = [factor * row[name] for row in rows]
        cells.append(f'{sum(values) / len(values):{form}}' + (
            f' ({min(values):{form}} to {max(values):{form}})' if len(rows) > 1 else ''))
    return f'| {title} | ' + ' | '.join(cells) + ' |'


def main():
    args = arguments(__doc__, 3000, 'of each run; a third for f')
    import torch
    cuda = torch.cuda.is_available()

    jobs = [(letter, seed) for seed in range(args.seeds) for letter in 'cbea']
    for some in (jobs, [('f', seed) for seed in range(args.seeds)]):        # f starts from c
        with ThreadPoolExecutor(1 if cuda else args.jobs) as pool:
            list(pool.map(lambda job: train(*job, args, cuda), some))

    folders = [args.out / f'{letter}{seed}' for letter in 'abcef' for seed in range(args.seeds)]
    plain, average = (evaluate(folders, args, average) for average in (False, True))
    print('| | ' + ' | '.join(title for title, _, _ in MEASURES.values()) + ' |')
    print('|---' * (1 + len(MEASURES)) + '|')
    print(line('real photographs', [plain['real photographs']]))
    for letter, (title, _) in variants(cuda).items():
        for rows, name in ((plain, f'{letter}. {title}'),
                           (average, f'{"d. c" if letter == "c" else letter}, moving average')):
            print(line(name, [rows[f'{letter}{seed}'] for seed in range(args.seeds)]))
    print(line('flat mean colours', [plain['flat mean colours']]))


if __name__ == '__main__':
    main()
