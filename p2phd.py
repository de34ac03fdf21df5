"""pix2pixHD from label map to photograph.

    python p2phd.py demo                                             # the whole chain on built-in street scenes
    python p2phd.py train --data cityscapes/                         # G1 and the encoder at 1024x512
    python p2phd.py finetune --from runs/cityscapes                  # G2 around it at 2048x1024, then G3 at 4096x2048
    python p2phd.py cluster --run runs/cityscapes --data cityscapes/
    python p2phd.py generate --label map.png --sample

Read downwards: the parser, the networks of a run and their checkpoint, one training step, the training loop, then one
function for each subcommand.
"""
import argparse
from pathlib import Path
import re
import sys
from types import SimpleNamespace
import zlib


# ---------------------------------------------------------------------------------------------- the command line

class Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f'{self.prog}: {message} (see {self.prog} --help)\n')


class ShowDefaults(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def size(text):
    """'1024x512' -> (1024, 512), width first."""
    w, h = (int(number) for number in text.lower().split('x'))
    if not 1 <= min(w, h) <= max(w, h) <= 1 << 15:
        raise ValueError
    return w, h


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def natural(text):
    if not 0 <= int(text) < 1 << 32:
        raise ValueError
    return int(text)


def rate(text):
    if not 0 < float(text) < 1:
        raise ValueError
    return float(text)


def size_or_native(text):
    return text if text == 'native' else size(text)


for function, name in ((size, 'WIDTHxHEIGHT'), (size_or_native, 'WIDTHxHEIGHT or native'),
                       (positive, 'positive whole number'), (natural, 'whole number'),
                       (rate, 'number between 0 and 1')):
    function.__name__ = name                                # what argparse says was expected


def make_parser():
    common = Parser(add_help=False)
    common.add_argument('--device', choices=['auto', 'cpu', 'cuda'], default='auto',
                        help='auto: CUDA where there is any')
    common.add_argument('--seed', type=natural, default=0, help='of every random draw')

    def training(inherit):
        """The flags of train; with `inherit`, most of them without a default, for finetune goes on as --from did."""
        default = (lambda value: None) if inherit else (lambda value: value)
        parent = Parser(add_help=False)
        add = parent.add_argument_group('data').add_argument
        add('--run', metavar='DIR', help='run folder to write (default: runs/<name of ' + (
            '--from>-<size>)' if inherit else 'the data folder>)'))
        add('--size', type=size_or_native, metavar='WxH',
            help='resize pictures to this; `native`: as they are (default: ' + (
                'twice the size of --from)' if inherit else
                'the most frequent size of the data set, at most 1024 wide)'))
        add('--crop', type=size, metavar='WxH', help='train on random sections of this size')
        add('--jitter', type=float, default=default(1.0), metavar='FACTOR', help='resize up by this factor, 1 to 2, '
            'and crop back at random')
        add('--flip', action=argparse.BooleanOptionalAction, default=default(True),
            help='mirror with a probability of one half')
        add('--cache', nargs='?', const='', metavar='DIR', help='keep decoded, resized pictures in memory-mapped files '
            '(DIR if not given: the run folder with -cache behind its name)')
        add('--workers', type=natural, default=default(4), help='processes that load data')
        add = parent.add_argument_group('schedule').add_argument
        add('--epochs', type=natural, default=100, help='epochs at the full learning rate')
        add('--decay-epochs', type=natural, default=100, help='further epochs in which it decays linearly to zero')
        add('--steps', type=positive, help='so many steps, whatever the epochs: half at the full rate, half decaying')
        add('--batch', type=positive, default=default(1), help='pictures per step')
        add('--lr', type=rate, default=default(2e-4), help='learning rate of Adam, betas (0.5, 0.999)')
        add = parent.add_argument_group('objective').add_argument
        add('--gan', choices=['lsgan', 'vanilla'], default=default('lsgan'), help='least squares or cross-entropy')
        add('--vgg', nargs='?', const='fetch', metavar='PATH', help='add the VGG-19 perceptual loss, from the weights '
            'that torchvision publishes; without PATH they are fetched')
        add('--pool-size', type=natural, default=default(0), help='past fakes that the discriminator is also shown')
        add = parent.add_argument_group('running').add_argument
        add('--bf16', action=argparse.BooleanOptionalAction, default=default(False),
            help='bfloat16 arithmetic in the networks: faster where the hardware has it')
        add('--log-every', type=positive, default=50, metavar='STEPS', help='a line and a row of log.csv')
        add('--sample-every', type=positive, default=500, metavar='STEPS', help='a picture: label | synthesised | real')
        add('--save-every', type=positive, default=1000, metavar='STEPS',
            help='a checkpoint; there is one at the end of an epoch, too')
        add('--keep', type=positive, default=2, metavar='N', help='the newest N checkpoints, older ones are deleted')
        add('--max-bad-steps', type=positive, default=20, metavar='N',
            help='steps whose loss or gradient is not finite are skipped; after N in a row the run stops')
        add('--resume', nargs='?', const='', metavar='RUN', help='go on with this run (default: the newest), with its '
            'own settings')
        return parent

    source = Parser(add_help=False)
    add = source.add_argument_group('data set').add_argument
    add('--data', metavar='DIR', help='Cityscapes, ADE20K, NYU Depth v2 or Helen as downloaded; or train_label/ '
        'train_img/ and perhaps train_inst/; or train_A/ train_B/')
    add('--split', default='train', help='which part of the data set')
    add('--instances', choices=['auto', 'components', 'none'], default='auto', help='auto: instance maps where there '
        'are any; components: the connected components of each label; none: no boundary map and no features')
    add('--palette', metavar='FILE', help='label maps are stored as colours: lines R,G,B,id[,name]')
    add('--n-labels', type=positive, metavar='N', help='how many, where the layout does not say and the training maps '
        'lack some (default: 1 + the largest)')
    add('--ignore-label', type=natural, metavar='ID', help='this id means unknown: it gets a channel of its own')
    add('--labels', type=int, choices=[40],
        help="NYU Depth v2: the usual 40 labels, by the data folder's classMapping40.mat")
    add('--jpeg-labels', action='store_true', help='accept label maps that JPEG has changed')
    add('--skip-bad', action='store_true', help='train: read everything first, and leave out what cannot be used')

    parser = Parser(prog='p2phd.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND', parser_class=Parser)

    def command(name, *parents, text):
        return commands.add_parser(name, parents=parents, help=text, description=text, formatter_class=ShowDefaults)

    command('check', source, common, text='read a data set through and report what it holds and what is wrong with it')

    sub = command('train', source, training(False), common,
                  text='train the generator, the discriminators and the encoder')
    add = sub.add_argument_group('networks').add_argument
    add('--model', choices=['global', 'local'], default='global',
        help='G1, or local enhancers around it from the start')
    add('--ngf', type=positive, help='channels of the (outermost) first layer (default: as many as give G1 64)')
    add('--n-down', type=positive, default=4, help='downsamplings of G1')
    add('--n-blocks', type=natural, default=9, help='residual blocks of G1')
    add('--n-enhancers', type=positive, default=1, help='local enhancers of --model local')
    add('--n-blocks-local', type=natural, default=3, help='residual blocks of each local enhancer')
    add('--ndf', type=positive, default=64, help='width of the discriminators')
    add('--n-layers', type=positive, default=3, help='strided layers of each discriminator')
    add('--n-scales', type=positive, default=3, help='discriminators')
    add('--features', action=argparse.BooleanOptionalAction,
        help='train the encoder along (default: if there are instances)')
    add('--feat', type=positive, default=3, help='features per instance')
    add('--nef', type=positive, default=16, help='width of the encoder')
    add('--n-down-encoder', type=positive, default=4, help='downsamplings of the encoder')

    sub = command('finetune', training(True), common, text='add a local enhancer at twice the size to a trained run. '
                  'Flags without a default stay as they were in --from.')
    sub.add_argument('--from', dest='base', metavar='RUN', help='the run whose networks to start from')
    sub.add_argument('--data', metavar='DIR', help='(default: the data of --from)')
    sub.add_argument('--fix-global', type=natural, default=10, metavar='EPOCHS',
                     help='epochs in which only the new enhancer learns')
    sub.add_argument('--n-blocks-local', type=natural,
                     help='residual blocks of the new enhancer (default: 3, or as in --from)')

    sub = command('cluster', common, text="cluster the training set's instance features into styles, label by label")
    sub.add_argument('--run', metavar='DIR', help='(default: the newest run in runs/)')
    sub.add_argument('--data', metavar='DIR', help='(default: the data of the run)')
    sub.add_argument('--k', type=positive, default=10, help='styles per label')
    sub.add_argument('--min-pixels', type=positive, default=1, help='leave out instances with fewer pixels')

    sub = command('generate', common, text='turn label maps into photographs')
    sub.add_argument('--label', nargs='+', required=True, metavar='PATH', help='label maps, or folders of them')
    sub.add_argument('--inst', nargs='+', metavar='PATH', help='their instance maps, or folders of them (default: the '
                     'connected components of each label)')
    sub.add_argument('--run', metavar='DIR', help='(default: the newest run in runs/)')
    sub.add_argument('--out', metavar='DIR', help='(default: <run>/generated)')
    sub.add_argument('--size', type=size, metavar='WxH',
                     help="resize the maps to this first (default: the maps' own size)")
    sub.add_argument('--sample', action='store_true', help="draw every instance's style at random (default: its "
                     "label's most frequent style)")
    sub.add_argument('--n', type=positive, default=1, help='pictures per label map, with --sample')
    sub.add_argument('--style', nargs='+', default=[], metavar='LABEL=K',
                     help='style K for all instances of LABEL (name or number)')
    sub.add_argument('--encode', nargs='+', metavar='PATH',
                     help='take the styles from these photographs of the same scenes')

    sub = command('demo', common,
                  text='train, finetune, cluster and generate on built-in street scenes, in a few minutes')
    sub.add_argument('--run', metavar='DIR', default='runs/demo',
                     help='folder for the scenes, the runs and the picture')
    return parser


def parse(words):
    """The command line as a namespace; `given` are the names in it of the flags that were written out."""
    args = make_parser().parse_args(words)
    flags = (word.split('=')[0].removeprefix('--').removeprefix('no-') for word in words if word.startswith('--'))
    args.given = {'base' if flag == 'from' else flag.replace('-', '_') for flag in flags}
    return args


# Parsed before torch is imported, so that --help answers at once.
ARGS = parse(sys.argv[1:]) if __name__ == '__main__' else None

import numpy as np                                          # noqa: E402
import torch                                                # noqa: E402

import checkpoints                                          # noqa: E402
import data                                                 # noqa: E402
from files import UserError, blame, check_folder, lock, say   # noqa: E402
import layouts                                              # noqa: E402
import runs                                                 # noqa: E402
import styles                                               # noqa: E402
import survey                                               # noqa: E402
import synthesis                                            # noqa: E402
import toy                                                  # noqa: E402
import training                                             # noqa: E402

# MKL sets up its vector functions at the first call. Where two threads make that call, one of them may get coarser ones
# (errors of 4e-5): here it is one thread, and a run that is repeated is repeated to the bit.
torch.zeros(1).tanh()


# ------------------------------------------------------------------------------------- a run's networks and checkpoint


# ------------------------------------------------------------------------------------------------------- training


# ---------------------------------------------------------------------------------------------------- subcommands


# What leaves the result as it is, or lengthens the run, or says where the data set is now.
MAY_CHANGE = ('epochs', 'decay_epochs', 'steps', 'workers', 'cache', 'save_every', 'keep', 'max_bad_steps', 'data')


def resume(args):
    """Go on with a run as it was configured."""
    run = args.resume or args.run or args.data and Path('runs') / Path(args.data).resolve().name or runs.newest_run()
    run, device = Path(run), runs.pick_device(args.device)
    if args.resume and args.run and Path(args.run).resolve() != run.resolve():
        raise UserError(f'--run {args.run}: --resume {run} goes on in its own folder; leave --run out')
    if not checkpoints.numbered(run):
        runs.read_run(run)                                       # says what is wrong with it
        raise UserError(f'{run}: a run of the official code cannot be resumed; finetune --from starts from it')
    with lock(run):
        state = runs.load(run, device, set_aside=True)
        c = state.config
        for name in sorted(args.given - {'resume', 'run', 'device'}):
            value, was = (tuple(x) if isinstance(x, list) else x for x in (
                vars(args)[name], c.flags.get(name) or getattr(c, name, None)))
            if name in MAY_CHANGE:
                setattr(c, name, str(Path(value).resolve()) if name == 'data' else value)
            elif value != was:
                flag = 'from' if name == 'base' else name.replace('_', '-')
                value, was = ('x'.join(map(str, x)) if isinstance(x, tuple) else x for x in (value, was))
                started = 'without it' if was is None else f'with {was}'
                raise UserError(f'--{flag} {value}: {run} was started {started}, and that cannot change now')
        if c.cache and 'cache' not in args.given and not (Path(c.cache) / 'index.json').is_file():
            # A stranger's file does not choose the folder that is written to.
            say(f'note: {c.cache} holds no cache; one is made beside {run}, or where --cache DIR says', sys.stderr)
            c.cache = ''
        if args.given & {'epochs', 'decay_epochs'} and 'steps' not in args.given:
            c.steps = None
        if not c.data:
            raise UserError(f'{run}: does not say what it was trained on; name it with --data DIR')
        pairs, sizes = survey.known_pairs(c)
        runs.check_sizes(c, set(sizes))
        if list(c.pictures) != survey.fingerprint(pairs):
            raise UserError(f'{c.data}: holds {len(pairs)} pictures, and {run} was started with {c.pictures[0]}, or '
                            'with others; put back what was there, or start another run')
        training.schedule(c, len(pairs))
        runs.check_config(c)
        if state.step >= c.total_steps:
            say(f'{run}: trained to the end, {state.step} steps; --epochs or --steps makes it longer')
            return 0
        say(f'{run}: going on at step {state.step} of {c.total_steps}')
        return training.fit(state, run, training.prepare(state, run, pairs))


def train(args):
    if args.resume is not None:
        return resume(args)
    found = survey.survey(args, thorough=args.skip_bad)
    run = runs.new_run(args, Path(args.data).resolve().name)
    device = runs.pick_device(args.device)
    if found.problems and not args.skip_bad or not found.pairs:
        raise UserError(next(iter(found.problems.values())) + (
            f' (and {len(found.problems) - 1} more like it; check lists them)' if len(found.problems) > 1 else '')
            + ('; --skip-bad trains on the rest' if found.pairs else ''))
    for problem in found.problems.values():
        say(f'left out: {problem}')
    c = SimpleNamespace(**runs.settings(args), flags=runs.settings(args))
    for name in ('layout', 'n_labels', 'label_names', 'label_table', 'palette', 'in_channels', 'out_channels',
                 'instances'):
        setattr(c, name, getattr(found, name))
    c.data, c.left_out = str(Path(args.data).resolve()), sorted(found.problems)
    if c.features is None:
        c.features = c.instances != 'none'
    if c.features and c.instances == 'none':
        raise UserError(f'--features: {args.data} has no instance maps; '
                        '--instances components makes them from the labels')
    if c.instances == 'components' and not c.n_labels:
        raise UserError(f'--instances components: {args.data} holds pictures, not label maps')
    if c.model == 'global':
        c.n_enhancers = 0
    c.ngf = c.ngf or max(1, 64 >> c.n_enhancers)
    c.encoder_scale = 1
    if c.size is None:
        frequent, multiple = found.sizes.most_common(1)[0][0], runs.network_multiple(c)
        shrink = min(1, 1024 / frequent[0])
        c.size = tuple(max(-(-runs.smallest_side(c) // multiple), round(side * shrink / multiple)) * multiple
                       for side in frequent)
    elif c.size == 'native':
        c.size = None
    runs.check_sizes(c, found.sizes)
    c.pictures = survey.fingerprint(found.pairs)
    training.schedule(c, len(found.pairs))
    say(survey.in_words(found, 'training') + (', encoder trained along' if c.features else ''))
    runs.check_config(c)
    return start(runs.build(c, device), run, found.pairs)


def start(state, run, pairs):
    """Say what is about to be trained, and train."""
    c = state.config
    dataset = training.prepare(state, run, pairs)                    # what does not fit is found before anything is written
    weights = ', '.join(f'{name} {sum(p.numel() for p in getattr(state, name).parameters()) / 1e6:.1f}M'
                        for name in 'GDE' if getattr(state, name))
    run.mkdir(parents=True, exist_ok=True)
    with lock(run):
        runs.check_new(run)                                      # by now another process may have trained into it
        say(f'{run}: {"native size" if c.size is None else "%dx%d" % tuple(c.size)}, {c.total_steps} steps of '
            f'{c.batch} on {state.device}, weights {weights}')
        return training.fit(state, run, dataset)


def finetune(args):
    if args.resume is not None:
        return resume(args)
    if not args.base:
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
    device = runs.pick_device(args.device)
    path, base = runs.read_run(args.base)
    b, flags = base['config'], runs.settings(args)
    if not (args.data or b.data):
        raise UserError(f'{args.base}: does not say what it was trained on; name it with --data DIR')
    # Schedule, size and crop are this stage's own; whatever else is not given stays as it was.
    own = ('epochs', 'decay_epochs', 'steps', 'size', 'crop', 'cache')
    c = SimpleNamespace(**{**vars(b), **{name: value for name, value in flags.items()
                                         if value is not None or name in own}})
    c.flags, c.data = flags, str(Path(args.data or b.data).resolve())
    c.model, c.n_enhancers, c.ngf, c.encoder_scale = 'local', b.n_enhancers + 1, b.ngf // 2, 2 * b.encoder_scale
    if b.ngf % 2:
        raise UserError(f'{args.base}: --ngf {b.ngf} is odd; the enhancer around it has half as many channels')
    if b.model == 'local' and c.n_blocks_local != b.n_blocks_local:
        raise UserError(f'--n-blocks-local {c.n_blocks_local}: {args.base} has {b.n_blocks_local}, '
                        'and all its enhancers are alike')
    if c.size is None:
        if not b.size:
            raise UserError(f'{args.base} was trained at native size; say with --size WxH (or native) '
                            'what to finetune at')
        c.size = tuple(2 * side for side in b.size)
    elif c.size == 'native':
        c.size = None
    pairs, sizes = survey.known_pairs(c)
    runs.check_sizes(c, set(sizes))
    name = re.sub(r'-(\d+x\d+|native)$', '', Path(args.base).resolve().name)
    run = runs.new_run(args, f'{name}-{"%dx%d" % tuple(c.size) if c.size else "native"}')
    c.pictures = survey.fingerprint(pairs)
    training.schedule(c, len(pairs))
    runs.check_config(c)
    state = runs.build(c, device)
    with blame(path, 'not a checkpoint of this program'):
        state.G.load_inner(base['weights']['G'])
        for name in 'DE':
            if name in base['weights']:                     # the official code may leave D out
                getattr(state, name).load_state_dict(base['weights'][name])
    if c.fix_global_steps < c.total_steps:
        say(f'{args.base}: enhancer {c.n_enhancers} around it; '
              f'the rest learns along from step {c.fix_global_steps} on')
    else:
        say(f'warning: --fix-global {c.fix_global} is {c.fix_global_steps} steps, all of this run: '
              'only the new enhancer will learn', file=sys.stderr)
    del base
    return start(state, run, pairs)


def cluster(args):
    run = Path(args.run) if args.run else runs.newest_run()
    state = runs.load(run, runs.pick_device(args.device), training=False)
    if not state.E:
        raise UserError(f'{run}: trained without --features, there are no styles to cluster')
    if not (args.data or state.config.data):
        raise UserError(f'{run}: does not say what it was trained on; name it with --data DIR')
    styles.save(styles.make(state, run, args.data or state.config.data, args.k, args.min_pixels, args.seed), run)
    say(run / 'styles.npz')
    return 0


@torch.inference_mode()
def generate(args):
    run = Path(args.run) if args.run else runs.newest_run()
    state = runs.load(run, runs.pick_device(args.device), training=False)
    c = state.config
    if (args.sample or args.style or args.encode) and not state.E:
        raise UserError(f'{run}: trained without --features, so it has one style only; '
                        'leave out --sample, --style and --encode')
    if args.inst and c.instances == 'none':
        raise UserError(f'--inst: {run} was trained without instances; leave it out')
    if args.sample and args.encode:
        raise UserError('--sample and --encode: the styles are either drawn or taken from photographs')
    if args.n > 1 and not args.sample:
        raise UserError(f'--n {args.n}: the pictures would all be the same; add --sample')
    labels = layouts.files_by_name(args.label, '_labelIds', c.layout)
    insts = layouts.partners(args.inst, '_instanceIds', c.layout, labels) if args.inst else {}
    photos = layouts.partners(args.encode, '_leftImg8bit', c.layout, labels) if args.encode else {}
    out = Path(args.out) if args.out else run / 'generated'
    for path in map(Path, args.label):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f'--out {out} lies in {path}: its pictures would be taken for label maps next time; '
                            'choose another')
    known = styles.read(state, run) if state.E else None
    fixed = styles.fixed(args.style, known) if state.E else {}
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    unknown = set()
    for name, path in labels.items():
        label, inst = synthesis.read_scene(c, path, insts.get(name), args.size)
        h, w = label.shape[-2:]
        if path == next(iter(labels.values())) and c.size and not 0.7 < (w * h / (c.size[0] * c.size[1])) ** 0.5 < 1.5:
            say(f'note: {path} is {w}x{h} and {run} learned at {c.size[0]}x{c.size[1]}; '
                  f'--size {c.size[0]}x{c.size[1]} would suit it better', file=sys.stderr)
        if not state.E:
            synthesis.write_picture(out / f'{name}_generated.png', synthesis.synthesise(state, label, inst, None))
            continue
        slot, instance_labels, _ = data.describe_instances(label, inst, c.n_labels)
        if not photos:
            unknown.update(i for i in instance_labels.unique().tolist() if not known['counts'][i].any())
        for i in range(args.n):
            # The draws depend on the map's name, not on what other maps are there.
            draw = np.random.SeedSequence((args.seed, zlib.crc32(name.encode()), i)).generate_state(1)[0]
            vectors = (styles.encode_photo(state, photos[name], inst, slot) if photos else styles.choose(
                instance_labels, known, torch.Generator().manual_seed(int(draw)) if args.sample else None))
            for which, k in fixed.items():
                vectors[instance_labels == which] = torch.from_numpy(known['centres'][which, k])
            ending = f'seed{args.seed}_{i + 1}' if args.sample else 'encoded' if photos else 'generated'
            synthesis.write_picture(out / f'{name}_{ending}.png',
                          synthesis.synthesise(state, label, inst, styles.paint(vectors, slot)))
    if unknown:
        names = ', '.join(c.label_names[i] if c.label_names else str(i) for i in sorted(unknown))
        say(f'warning: no styles for {names}, which the training data lacks; the mean of all features stood in',
              file=sys.stderr)
    return 0


def main(args):
    """Run a subcommand; what the user can mend is one line on stderr, and exit code 2."""
    try:
        return COMMANDS[args.command](args)
    except (UserError, OSError) as error:
        say(f'p2phd {args.command}: {error}', file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if 'DataLoader worker' in str(error):
            say(f'p2phd {args.command}: a process that loads pictures has died, perhaps of too little (shared) memory; '
                'train --resume RUN --workers 0 loads them in the trainer', sys.stderr)
            return 2
        # On the CPU, PyTorch raises a RuntimeError for want of memory.
        if not (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)):
            raise
        say(f'p2phd {args.command}: the device has not enough memory; try --bf16, --crop, a smaller --size, or fewer '
              'channels', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        say(f'p2phd {args.command}: interrupted', file=sys.stderr)
        return 130


COMMANDS = {'check': survey.check, 'train': train, 'finetune': finetune, 'cluster': cluster, 'generate': generate,
            'demo': toy.demo}

if __name__ == '__main__':
    sys.exit(main(ARGS))
