"""The paper's ablations on real street pictures, and what makes better pictures in the same time.

    python benchmarks/experiment.py --data cityscapes/ --out experiment/

Trains the variants below with several seeds each, one core a run, and scores them with one judge.
Prints a row for each run, and for each variant the mean over its seeds, minimum and maximum. With
--hours, all variants get the same time in place of the same number of steps. Started again, it
continues: what is finished is not repeated. Names joined by + are one variant: lr5+hinge.
"""
import argparse
from concurrent.futures import ThreadPoolExecutor
import csv
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from app.runs import report

ROOT = Path(__file__).resolve().parent.parent
JUDGE = {'help': 'as for evaluate; none: no segmentation scores'}
MEASURES = {name: report.MEASURES[name] for name in (
    'pixel_accuracy', 'class_accuracy', 'mean_iou', 'l1', 'ssim', 'frechet')}
NETWORK = '--ngf 32 --n-down 3 --n-blocks 6 --ndf 32 --n-scales 2'     # of all but a
ENCODER = '--n-down-encoder 3'                                          # of all but a and h
VARIANTS = {                            # name: (what it is, its flags of train)
    'a': ('pix2pix', '--model pix2pix --ngf 32 --ndf 32'),
    'b': ('one scale, no feature matching', '--n-scales 1 --lambda-feature 0'),
    'c': ('two scales, feature matching', ''),
    'c3': ('c with three scales', '--n-scales 3'),
    'd': ('c with the perceptual loss', '--vgg {vgg}'),
    'dn': ('c with the perceptual loss of normalised pictures', '--vgg {vgg} --vgg-input imagenet'),
    'e': ('c with bilinear upsampling', '--up bilinear'),
    'f': ('c from coarse to fine', ''),                 # see train_variant
    'g': ('c without instance boundaries', '--no-boundary'),
    'h': ('c without the encoder', '--no-features'),
    # What the paper does not compare.
    'lr5': ('c, learning rate 5e-4', '--lr 5e-4'),
    'lr10': ('c, learning rate 1e-3', '--lr 1e-3'),
    'hinge': ('c, hinge loss, spectral norm', '--gan hinge --spectral-norm'),
    'wide': ('c, wider', '--ngf 48 --ndf 48'),
    'narrow': ('c, narrower', '--ngf 24 --ndf 24'),
    'deep': ('c, nine residual blocks', '--n-blocks 9'),
    'shallow': ('c, three residual blocks', '--n-blocks 3'),
    'fm5': ('c, feature matching 5', '--lambda-feature 5'),
    'fm20': ('c, feature matching 20', '--lambda-feature 20'),
    'batch2': ('c, batch of 2', '--batch 2'),
    'batch4': ('c, batch of 4', '--batch 4'),
    'filtered': ('c, filtered upsampling', '--up filtered'),
    'ema99': ('c, moving average 0.99', '--ema 0.99'),
    'ema9998': ('c, moving average 0.9998', '--ema 0.9998')}


# ---------------------------------------------- what troubles.py and few_pictures.py use as well

def parse_arguments(description, steps, steps_help, seeds=3, **more):
    """Parse the command line and make the output folder. steps, seeds: defaults. more: {name:
    keyword arguments of add_argument} of further flags."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='folder of the data set')
    parser.add_argument('--out', type=Path, required=True, help='folder for runs and scores')
    parser.add_argument('--seeds', type=int, default=seeds,
                        help=f'number of seeds (default: {seeds})')
    parser.add_argument('--steps', type=int, default=steps, help=steps_help)
    parser.add_argument('--jobs', type=int, default=os.cpu_count(),
                        help='runs to train at the same time (default: one per core)')
    parser.add_argument('--precision', default='fp32', choices=('fp32', 'tf32', 'bf16'),
                        help='arithmetic of all runs (default: fp32)')
    parser.add_argument('--vgg', metavar='PATH',
                        help='weights of VGG-19, to measure the Fréchet distance as well')
    for name, settings in more.items():
        parser.add_argument(f'--{name.replace("_", "-")}', **settings)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def copy_few_pictures(source, folder, choose):
    """Make the data set `folder` of the training pictures that choose(list of paths) returns and
    the whole split val of the data set `source`."""
    for role in ('img', 'label', 'inst'):
        if not (source / f'train_{role}').exists():     # instance maps are not needed
            continue
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


def train_to_end(folder, words):
    """Train the run in `folder` with this command line, or resume it if it was stopped."""
    log, done = folder.with_name(f'{folder.name}.log'), folder.with_name(f'{folder.name}.done')
    if any(folder.glob('checkpoint-*')):
        words = ['train', '--resume', folder]
    if not done.exists():
        if run_program(words, log):
            sys.exit(f'{folder}: training failed; see {log}')
        done.touch()
    print(f'{folder}: trained', flush=True)


def train_all(train_one, jobs, args):
    """Call train_one(*job, args) for each of the jobs, args.jobs of them at the same time."""
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda job: train_one(*job, args), jobs))


def given(flag, value):
    """Return the words of a flag, none without a value."""
    return [] if value is None else [flag, value]


def score_runs(words, out, vgg=None, threads=1):
    """Evaluate runs into the folder `out`, unless that is done. Return {name of a run: its row of
    scores.json}, and the protocol. vgg: path of the weights of VGG-19, or None."""
    log, words = out.with_name('evaluate.log'), [*words, *given('--vgg', vgg)]
    if not (out / 'scores.json').exists() and run_program(
            ['evaluate', *words, '--out', out], log, threads):
        sys.exit(f'{out}: evaluation failed; see {log}')
    scores = json.loads((out / 'scores.json').read_text())
    return {row['name'].split(',')[0]: row for row in scores['rows']}, scores['protocol']


def print_head(*columns):
    """Print the head of a Markdown table: these columns, then the measures."""
    titles = [*columns, *(title for title, _, _ in MEASURES.values())]
    print('| ' + ' | '.join(titles) + ' |')
    print('|---' * len(titles) + '|')


def table_row(title, rows):
    """Return a line of the Markdown table from the rows of scores.json of one variant."""
    cells = []
    for name, (_, factor, form) in MEASURES.items():
        values = [factor * row[name] for row in rows if row.get(name) is not None]
        mean = f'{sum(values) / len(values):{form}}' if values else ''
        several = len(values) > 1
        cells.append(mean + several * f' ({min(values):{form}} to {max(values):{form}})')
    return f'| {title} | ' + ' | '.join(cells) + ' |'


# --------------------------------------------------------------------------------- the experiment

def variant(name):
    """Return what a variant is, and its flags of train. Raises ArgumentTypeError for an unknown
    name."""
    parts = name.split('+')
    if not set(parts) <= set(VARIANTS):
        raise argparse.ArgumentTypeError(f'{name!r}: the variants are {", ".join(VARIANTS)}, and '
                                         'these joined by +')
    network = '' if 'a' in parts else NETWORK if 'h' in parts else f'{NETWORK} {ENCODER}'
    first, *others = (VARIANTS[part][0] for part in parts)
    title = ', '.join([first, *(other.removeprefix('c, ') for other in others)])
    return title, ' '.join([network, *(VARIANTS[part][1] for part in parts)])


def train_variant(name, seed, args):
    """Train one run. f has two stages of half the length: G1 at half the size, then the enhancer
    around it together with it."""
    folder, length, size = args.out / f'{name}-{seed}', args.hours or args.steps, args.size
    coarse_to_fine = 'f' in name.split('+')
    if coarse_to_fine:
        length = length / 2 if args.hours else length // 2
        size = 'x'.join(str(int(side) // 2) for side in size.split('x'))
    words = ['--hours' if args.hours else '--steps', length, '--seed', seed, '--log-every', 100,
             '--workers', 0, '--precision', args.precision]
    first = folder.with_name(f'{folder.name}-inner') if coarse_to_fine else folder
    train_to_end(first, ['train', '--data', args.data, '--run', first, '--size', size,
                         *variant(name)[1].format(vgg=args.vgg).split(), *words])
    if coarse_to_fine:
        train_to_end(folder, ['finetune', '--from', first, '--run', folder, '--fix-global', 0,
                              *words])


def read_log(folder):
    """Return the steps of a run and its hours, from its speed.csv."""
    steps, hours = 0, 0
    with open(folder / 'speed.csv') as file:
        for row in csv.DictReader(file):
            hours += (int(row['step']) - steps) / float(row['steps_per_second']) / 3600
            steps = int(row['step'])
    return steps, hours


def main():
    args = parse_arguments(
        __doc__, 9000, 'steps of each run (default: 9000)', seeds=2,
        hours={'type': float, 'metavar': 'H', 'help': 'train each run for so long instead'},
        size={'default': '256x128', 'metavar': 'WxH', 'help': 'default: 256x128'},
        only={'nargs': '+', 'type': lambda name: variant(name) and name, 'metavar': 'NAME',
              'default': list('abcdefgh'),
              'help': 'variants (default: a to h; without --vgg, d and dn are left out): '
                      f'{", ".join(VARIANTS)}'},
        judge=JUDGE)
    names = [name for name in dict.fromkeys(args.only)
             if args.vgg or '--vgg' not in variant(name)[1]]
    runs = [(name, seed) for seed in range(args.seeds) for name in names]
    train_all(train_variant, runs, args)
    folders = {run: args.out / '{}-{}'.format(*run) for run in runs}
    rows, protocol = score_runs(['--run', *folders.values(), *given('--judge', args.judge)],
                                args.out / f'scores-{"-".join(names)}-{args.seeds}', args.vgg)
    print(f'\n{protocol}\n')
    print_head('', 'steps, hours')
    print(table_row('real photographs | ', [rows['real photographs']]))
    for name in names:
        lines = [(seed, folders[name, seed]) for seed in range(args.seeds)]
        for seed, folder in lines:
            steps, hours = read_log(folder)
            print(table_row(f'{name}, seed {seed} | {steps}, {hours:.2f}', [rows[folder.name]]))
        print(table_row(f'{name}. {variant(name)[0]} | ',
                        [rows[folder.name] for _, folder in lines]))
    print(table_row('flat mean colours | ', [rows['flat mean colours']]))


if __name__ == '__main__':
    main()
