"""What helps where there are few pictures: mirroring and jitter, --augment, or both.

    python benchmarks/few_pictures.py --data camvid/ --n-labels 12 --void 11 --out few/

Trains small runs on 20, 100 and 367 pictures of CamVid, or of another data set in the flat layout,
with three seeds and equal steps. With --base RUN, a run with the same networks on other pictures,
also runs that begin with its weights (train --from). Scores them on the whole split val, with a
judge that was trained on all training pictures, and prints a table: mean over the seeds, minimum
and maximum. The sheets are in few/scores-*. Started again, it continues: what is finished is not
repeated.
"""
from experiment import (JUDGE, NETWORK, copy_few_pictures, given, parse_arguments, print_head,
                        score_runs, table_row, train_all, train_to_end)

FLAGS = {                                   # name of a run: its flags of train
    'plain': '--no-flip',                   # the default is to flip
    'jitter': '--flip --jitter 1.3',
    'augment': '--no-flip --augment',
    'both': '--flip --jitter 1.3 --augment',
    'from': '--no-flip --from {base}',      # with --base
    'from-augment': '--no-flip --augment --from {base}'}


def train_run(name, n, seed, args):
    """Train a run on n pictures."""
    folder = args.out / f'{name}-{n}-{seed}'
    train_to_end(folder, [
        'train', '--data', args.out / f'{args.data.name}-{n}', '--run', folder, '--size', args.size,
        '--precision', args.precision, '--steps', args.steps, '--seed', seed, '--log-every', 50,
        '--workers', 0, *given('--n-labels', args.n_labels),
        *([] if '--from' in FLAGS[name] else NETWORK.split()),
        *FLAGS[name].format(base=args.base).split()])


def main():
    args = parse_arguments(__doc__, 1000, 'steps of each run (default: 1000)', pictures={
        'type': int, 'nargs': '+', 'default': [20, 100, 367],
        'help': 'how many pictures to train on (default: 20 100 367)'},
        only={'nargs': '+', 'choices': FLAGS, 'default': list(FLAGS), 'metavar': 'NAME',
              'help': f'which runs (default: {" ".join(FLAGS)})'},
        size={'default': '128x96', 'metavar': 'WxH', 'help': 'default: 128x96'},
        n_labels={'type': int, 'help': 'as for train'},
        void={'type': int, 'help': 'label that does not count'},
        judge=JUDGE,
        base={'metavar': 'RUN', 'help': 'run for train --from; without it, this is left out'})
    names = [name for name in args.only if args.base or 'base' not in FLAGS[name]]
    for n in args.pictures:                 # spread over all, for neighbours are nearly the same
        copy_few_pictures(args.data, args.out / f'{args.data.name}-{n}', lambda paths: [
            paths[i * len(paths) // n] for i in range(n)])
    seeds = range(args.seeds)
    train_all(train_run, [(name, n, seed) for seed in seeds for n in args.pictures
                          for name in names], args)
    print_head('')
    for n in args.pictures:
        folders = [args.out / f'{name}-{n}-{seed}' for name in names for seed in seeds]
        rows, _ = score_runs(['--run', *folders, '--data', args.data, *given('--void', args.void),
                              *given('--judge', args.judge)],
                             args.out / f'scores-{n}-{"-".join(names)}-{args.seeds}', args.vgg)
        if n == args.pictures[0]:
            print(table_row('real photographs', [rows['real photographs']]))
        for name in names:
            print(table_row(f'{n} pictures, `{FLAGS[name].format(base="RUN")}`',
                            [rows[f'{name}-{n}-{seed}'] for seed in seeds]))


if __name__ == '__main__':
    main()
