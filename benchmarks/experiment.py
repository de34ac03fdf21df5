"""The paper's ablations on real street pictures: what each part of the method contributes.

    python benchmarks/experiment.py --data camvid/ --out experiment/

Trains with three seeds each: the pix2pix baseline (a), one scale without feature matching (b),
three scales with feature matching (c), the same with bilinear upsampling (e), and a local enhancer
around c (f). Scores them without and with the moving average of the weights (d is c with it), and
prints a table: mean over the seeds, minimum and maximum. Started again, it continues: what is
finished is not repeated.
"""
import argparse
from concurrent.futures import ThreadPoolExecutor
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from app.runs import report

ROOT = Path(__file__).resolve().parent.parent
MEASURES = {name: report.MEASURES[name]
            for name in ('pixel_accuracy', 'class_accuracy', 'mean_iou', 'l1', 'ssim')}


def variants(cuda):
    """Return {letter: (title, flags of train, or of finetune)}."""
    network = '' if cuda else '--ngf 24 --ndf 24 --n-down 3 --n-blocks 6'
    return {
        'a': ('pix2pix', '--model pix2pix' + ('' if cuda else ' --ngf 24 --ndf 24')),
        'b': ('one scale, no feature matching', f'{network} --n-scales 1 --lambda-feature 0'),
        'c': ('three scales, feature matching', network),
        'e': ('c with bilinear upsampling', f'{network} --up bilinear'),
        'f': ('c with a local enhancer around it', '--fix-global 1')}


# ---------------------------------------------- what troubles.py and few_pictures.py use as well

def parse_arguments(description, steps, steps_help, **more):
    """Parse the command line and make the output folder. steps: the default of --steps. more:
    {name: keyword arguments of add_argument} of further flags."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='CamVid in the flat layout')
    parser.add_argument('--out', type=Path, required=True, help='folder for runs and scores')
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds (default: 3)')
    parser.add_argument('--steps', type=int, default=steps, help=steps_help)
    parser.add_argument('--jobs', type=int, default=os.cpu_count(),
                        help='runs to train at the same time (default: one per core)')
    for name, settings in more.items():
        parser.add_argument(f'--{name}', **settings)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def copy_few_pictures(source, folder, choose):
    """Make the data set `folder` of the training pictures that choose(list of paths) returns and
    the whole split val of the data set `source`."""
    for role in ('img', 'label'):
        (folder / f'train_{role}').mkdir(parents=True, exist_ok=True)
        for path in choose(sorted((source / f'train_{role}').iterdir())):
            shutil.copy(path, folder / f'train_{role}')
        shutil.copytree(source / f'val_{role}', folder / f'val_{role}', dirs_exist_ok=True)
    if (source / 'labels.csv').exists():
        shutil.copy(source / 'labels.csv', folder)


def run_program(words, log, threads=1):
    """Run p2phd.py with its output in the file `log`, and return the exit code. threads: of the
    CPU, None for all; with one, as many runs as cores train at the same time."""
    environment = {**os.environ, **({'OMP_NUM_THREADS': str(threads)} if threads else {})}
    with open(log, 'a') as file:
        return subprocess.run([sys.executable, ROOT / 'p2phd.py', *map(str, words)], stdout=file,
                              stderr=subprocess.STDOUT, env=environment).returncode


def train_to_end(folder, steps, words):
    """Train the run in `folder` with this command line, or resume it if it was stopped."""
    log = folder.with_name(f'{folder.name}.log')
    if any(folder.glob('checkpoint-*')):
        words = ['train', '--resume', folder]
    if not (folder / f'checkpoint-{steps:07d}.pt').exists() and run_program(words, log):
        sys.exit(f'{folder}: training failed; see {log}')
    print(f'{folder}: trained', flush=True)


def score_runs(words, out, threads=1):
    """Evaluate runs into the folder `out`, unless that is done. Return {name of a run: its row of
    scores.json}."""
    log = out.with_name('evaluate.log')
    if not (out / 'scores.json').exists() and run_program(
            ['evaluate', *words, '--out', out], log, threads):
        sys.exit(f'{out}: evaluation failed; see {log}')
    rows = json.loads((out / 'scores.json').read_text())['rows']
    return {row['name'].split(',')[0]: row for row in rows}


# --------------------------------------------------------------------------------- the experiment

def train_variant(letter, seed, args, cuda):
    """Train one run."""
    folder, steps = args.out / f'{letter}{seed}', args.steps
    words = ['train', '--data', args.data, '--size', '480x352' if cuda else '128x96',
             '--ignore-label', 11, '--seed', seed]
    if letter == 'f':
        steps = args.steps // 3
        words = ['finetune', '--from', args.out / f'c{seed}']
    words += ['--run', folder, '--steps', steps, '--log-every', 100, '--workers', 0,
              *variants(cuda)[letter][1].split()]
    train_to_end(folder, steps, words)


def table_row(title, rows):
    """Return a line of the Markdown table from the rows of scores.json of one variant."""
    cells = []
    for name, (_, factor, form) in MEASURES.items():
        values = [factor * row[name] for row in rows]
        cells.append(f'{sum(values) / len(values):{form}}' + (
            f' ({min(values):{form}} to {max(values):{form}})' if len(rows) > 1 else ''))
    return f'| {title} | ' + ' | '.join(cells) + ' |'


def main():
    args = parse_arguments(__doc__, 3000, 'steps of each run; a third for f (default: 3000)')
    import torch
    cuda, seeds = torch.cuda.is_available(), range(args.seeds)

    jobs = [(letter, seed) for seed in seeds for letter in 'cbea']
    for part in (jobs, [('f', seed) for seed in seeds]):            # f starts from c
        with ThreadPoolExecutor(1 if cuda else args.jobs) as pool:
            list(pool.map(lambda job: train_variant(*job, args, cuda), part))

    folders = [args.out / f'{letter}{seed}' for letter in 'abcef' for seed in seeds]
    plain, average = (score_runs(['--run', *folders, flag], args.out / f'scores-{name}')
                      for flag, name in (('--no-average', 'weights'), ('--average', 'average')))
    print('| | ' + ' | '.join(title for title, _, _ in MEASURES.values()) + ' |')
    print('|---' * (1 + len(MEASURES)) + '|')
    print(table_row('real photographs', [plain['real photographs']]))
    for letter, (title, _) in variants(cuda).items():
        for rows, name in ((plain, f'{letter}. {title}'),
                           (average, f'{"d. c" if letter == "c" else letter}, moving average')):
            print(table_row(name, [rows[f'{letter}{seed}'] for seed in seeds]))
    print(table_row('flat mean colours', [plain['flat mean colours']]))


if __name__ == '__main__':
    main()
