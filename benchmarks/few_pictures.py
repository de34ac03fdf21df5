"""What helps where there are few pictures: mirroring and jitter, --augment, or both.

    python benchmarks/few_pictures.py --data camvid/ --out few/

Trains small runs on 20, 100 and 367 pictures of CamVid in the flat layout, with three seeds and
equal steps. Scores them on the whole split val, with a judge that was trained on all training
pictures, and prints a table: mean over the seeds, minimum and maximum. The sheets are in
few/scores-*. Started again, it continues: what is finished is not repeated.
"""
from experiment import (copy_few_pictures, parse_arguments, print_head, score_runs, table_row,
                        train_all, train_to_end)

N_LABELS, VOID = 12, 11
NETWORK = '--size 128x96 --ngf 24 --ndf 24 --n-down 3 --n-blocks 6 --n-scales 2 --precision fp32'
FLAGS = {                                   # name of a run: its flags of train
    'plain': '--no-flip',                   # the default is to flip
    'jitter': '--flip --jitter 1.3',
    'augment': '--no-flip --augment',
    'both': '--flip --jitter 1.3 --augment'}


def train_run(name, n, seed, args):
    """Train a run on n pictures."""
    folder = args.out / f'{name}-{n}-{seed}'
    train_to_end(folder, [
        'train', '--data', args.out / f'camvid-{n}', '--run', folder, '--n-labels', N_LABELS,
        '--steps', args.steps, '--seed', seed, '--log-every', 50, '--workers', 0,
        *NETWORK.split(), *FLAGS[name].split()])


def main():
    args = parse_arguments(__doc__, 1000, 'steps of each run (default: 1000)', pictures={
        'type': int, 'nargs': '+', 'default': [20, 100, 367],
        'help': 'how many pictures to train on (default: 20 100 367)'})
    for n in args.pictures:                 # spread over all, for neighbours are nearly the same
        copy_few_pictures(args.data, args.out / f'camvid-{n}', lambda paths: [
            paths[i * len(paths) // n] for i in range(n)])
    seeds = range(args.seeds)
    train_all(train_run, [(name, n, seed) for seed in seeds for n in args.pictures
                          for name in FLAGS], args)
    print_head('')
    for n in args.pictures:
        rows, _ = score_runs(
            ['--run', *(args.out / f'{name}-{n}-{seed}' for name in FLAGS for seed in seeds),
             '--data', args.data, '--void', VOID], args.out / f'scores-{n}-{args.seeds}')
        if n == args.pictures[0]:
            print(table_row('real photographs', [rows['real photographs']]))
        for name, flags in FLAGS.items():
            print(table_row(f'{n} pictures, `{flags}`',
                            [rows[f'{name}-{n}-{seed}'] for seed in seeds]))


if __name__ == '__main__':
    main()
