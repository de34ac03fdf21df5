"""pix2pixHD from label map to photograph.

    python p2phd.py demo                                  # the whole chain on built-in street scenes
    python p2phd.py train --data cityscapes/              # G1 and the encoder at 1024x512
    python p2phd.py finetune --from runs/cityscapes       # G2 around it at 2048x1024, then G3
    python p2phd.py cluster --run runs/cityscapes --data cityscapes/
    python p2phd.py generate --label map.png --sample

Read downwards: the parser, then one function for each subcommand.
"""
import argparse
from pathlib import Path
import re
import sys
from types import SimpleNamespace
import zlib

# The rest, and torch with it, is imported by the subcommand that needs it: so --help answers at once.
import config as configuration
from config import DATA, FLAG, NETWORK, PATH, POSITIVE, SIZE, SIZE_OR_NATIVE, TRAINING
from files import UserError, lock, make_folder, out_of_memory, say, warn

PYTHON, TORCH = (3, 11), (2, 6)                             # older ones lack what is used here


# ----------------------------------------------------------------------------- the command line

class Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f'{self.prog}: {" ".join(message.split())} (see {self.prog} --help)\n')


def add_fields(parser, title, fields, texts, stay=()):
    """Flags for fields of a configuration, whose bounds and defaults config.py knows. Only those
    that are given get into the namespace. texts: {field: what it is, or (metavar, what it is)}.
    stay: fields whose default is another run's."""
    group = parser.add_argument_group(title)
    for name, text in texts.items():
        metavar, text = text if isinstance(text, tuple) else (None, text)
        bound, default = fields[name]
        bound = SIZE_OR_NATIVE if name == 'size' else bound
        kind = {'type': bound, 'metavar': metavar or 'N'}
        if bound is FLAG:
            kind = {'action': argparse.BooleanOptionalAction}
        elif hasattr(bound, 'choices'):
            kind = {'choices': bound.choices}
        if name in stay:
            default = None
        if default not in (None, False, configuration.NEEDED) and 'default' not in text:
            text += ' (default: yes)' if default is True else f' (default: {default})'
        if name in ('cache', 'vgg'):
            kind['nargs'], kind['const'] = '?', {'cache': '', 'vgg': 'fetch'}[name]
        group.add_argument(configuration.flag(name), default=argparse.SUPPRESS, help=text, **kind)


def add_training(parser, finetune):
    """The flags that train and finetune share; most of those of finetune stay as they were."""
    stay = [name for name in TRAINING if finetune and name not in (
        'epochs', 'decay_epochs', 'fix_global', 'log_every', 'sample_every', 'save_every', 'keep',
        'max_bad_steps')]
    name = '<name of --from>-<size>' if finetune else '<name of the data folder>'
    size = ('twice the size of --from' if finetune else
            'the most frequent size of the data set, at most 1024 wide')
    group = parser.add_argument_group('run')
    group.add_argument('--run', type=PATH, metavar='DIR',
                       help=f'folder to write (default: runs/{name})')
    group.add_argument('--resume', nargs='?', const='', metavar='RUN',
                       help='go on with this run (default: the newest), with its own settings')
    add_fields(parser, 'pictures', {**TRAINING, 'size': NETWORK['size']}, {
        'size': ('WxH', f'resize pictures to this; `native`: as they are (default: {size})'),
        'crop': ('WxH', 'train on random sections of this size'),
        'jitter': ('FACTOR', 'resize up by this factor, 1 to 2, and crop back at random'),
        'flip': 'mirror with a probability of one half',
        'cache': ('DIR', 'keep decoded, resized pictures in memory-mapped files (default: DIR is '
                         'the run folder with -cache behind its name)'),
        'workers': 'processes that load data'}, stay)
    add_fields(parser, 'schedule', TRAINING, {
        'epochs': 'epochs at the full learning rate',
        'decay_epochs': 'further epochs in which it decays linearly to zero',
        'steps': 'so many steps, whatever the epochs: half at the full rate, half decaying',
        **({'fix_global': ('EPOCHS', 'epochs in which only the new enhancer learns')}
           if finetune else {}),
        'batch': 'pictures per step',
        'lr': ('RATE', 'learning rate of Adam, betas (0.5, 0.999)')}, stay)
    add_fields(parser, 'objective', TRAINING, {
        'gan': 'least squares or cross-entropy',
        'vgg': ('PATH', 'add the VGG-19 perceptual loss, from the weights that torchvision '
                        'publishes; without PATH they are fetched')}, stay)
    parser.add_argument('--no-vgg', dest='vgg', action='store_const', const=None,
                        default=argparse.SUPPRESS, help='without the perceptual loss')
    add_fields(parser, 'running', TRAINING, {
        'bf16': 'bfloat16 arithmetic in the networks: faster where the hardware has it',
        'seed': 'of every random draw',
        'log_every': ('STEPS', 'a line and a row of log.csv'),
        'sample_every': ('STEPS', 'a picture: label | synthesised | real'),
        'save_every': ('STEPS', 'a checkpoint; there is one at the end of an epoch, too'),
        'keep': 'the newest N checkpoints, older ones are deleted',
        'max_bad_steps': 'steps whose loss or gradient is not finite are skipped; after N in a row '
                         'the run stops'}, stay)


def add_data(parser):
    add_fields(parser, 'data set', DATA, {
        'data': ('DIR', 'Cityscapes, ADE20K, NYU Depth v2 or Helen as downloaded; or train_label/ '
                        'train_img/ and perhaps train_inst/; or train_A/ train_B/'),
        'split': ('NAME', 'which part of the data set'),
        'instances': 'auto: instance maps where there are any; components: the connected '
                     'components of each label; none: no boundary map and no features',
        'palette': ('FILE', 'label maps are stored as colours: lines R,G,B,id[,name]'),
        'n_labels': 'how many, where the layout does not say and the training maps lack some '
                    "(default: 1 + the largest); 40: NYU's usual ones, by classMapping40.mat",
        'ignore_label': ('ID', 'this id means unknown: it gets a channel of its own; `none`: every '
                               'id is a label (default: 255, where the others stop far below)'),
        'jpeg_labels': 'accept label maps that JPEG has changed',
        'skip_bad': 'train: read everything first, and leave out what cannot be used'})


def add_seed(parser):
    add_fields(parser, 'running', TRAINING, {'seed': 'of every random draw'})


def make_parser():
    parser = Parser(prog='p2phd.py', description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND',
                                     parser_class=Parser)

    def command(name, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument('--device', choices=['auto', 'cpu', 'cuda'], default='auto',
                         help='auto: CUDA where there is any (default: auto)')
        return sub

    sub = command('check', 'read a data set through and report what it holds and what is wrong '
                           'with it')
    add_data(sub)
    add_seed(sub)

    sub = command('train', 'train the generator, the discriminators and the encoder')
    add_data(sub)
    add_training(sub, finetune=False)
    add_fields(sub, 'networks', NETWORK, {
        'model': 'G1, or local enhancers around it from the start',
        'ngf': 'channels of the (outermost) first layer (default: as many as give G1 64)',
        'n_down': 'downsamplings of G1',
        'n_blocks': 'residual blocks of G1',
        'n_enhancers': 'local enhancers of --model local',
        'n_blocks_local': 'residual blocks of each local enhancer',
        'ndf': 'width of the discriminators',
        'n_layers': 'strided layers of each discriminator',
        'n_scales': 'discriminators',
        'features': 'train the encoder along (default: if there are instances)',
        'feat': 'features per instance',
        'nef': 'width of the encoder',
        'n_down_encoder': 'downsamplings of the encoder'})

    sub = command('finetune', 'add a local enhancer at twice the size to a trained run. Flags '
                              'without a default stay as they were in --from.')
    sub.add_argument('--from', dest='base', type=PATH, metavar='RUN', default=argparse.SUPPRESS,
                     help='the run whose networks to start from')
    sub.add_argument('--data', type=PATH, metavar='DIR', default=argparse.SUPPRESS,
                     help='(default: the data of --from)')
    add_training(sub, finetune=True)
    add_fields(sub, 'networks', NETWORK, {
        'n_blocks_local': 'residual blocks of the new enhancer (default: 3, or as in --from)'})

    sub = command('cluster', "cluster the training set's instance features into styles, label by "
                             'label')
    sub.add_argument('--run', type=PATH, metavar='DIR', help='(default: the newest run in runs/)')
    sub.add_argument('--data', type=PATH, metavar='DIR', help='(default: the data of the run)')
    sub.add_argument('--k', type=configuration.whole(1, 1000), default=STYLES, metavar='N',
                     help=f'styles per label (default: {STYLES})')
    sub.add_argument('--min-pixels', type=POSITIVE, default=1, metavar='N',
                     help='leave out instances with fewer pixels (default: 1)')
    add_seed(sub)

    sub = command('generate', 'turn label maps into photographs')
    more = {'nargs': '+', 'action': 'extend', 'metavar': 'PATH', 'type': PATH}
    sub.add_argument('--label', required=True, help='label maps, or folders of them', **more)
    sub.add_argument('--inst', help='their instance maps, or folders of them (default: the '
                                    'connected components of each label)', **more)
    sub.add_argument('--run', type=PATH, metavar='DIR', help='(default: the newest run in runs/)')
    sub.add_argument('--out', type=PATH, metavar='DIR', help='(default: <run>/generated)')
    sub.add_argument('--size', type=SIZE, metavar='WxH',
                     help="resize the maps to this first (default: the maps' own size)")
    sub.add_argument('--sample', action='store_true', help="draw every instance's style at random "
                     "(default: its label's most frequent style)")
    sub.add_argument('--n', type=configuration.whole(1, 10 ** 6), default=1, metavar='N',
                     help='pictures per label map, with --sample (default: 1)')
    sub.add_argument('--style', **{**more, 'type': str, 'metavar': 'LABEL=K'}, default=[],
                     help='style K for all instances of LABEL (name or number)')
    sub.add_argument('--encode', help='take the styles from these photographs of the same scenes',
                     **more)
    add_seed(sub)

    sub = command('demo', 'train, finetune, cluster and generate on built-in street scenes, in a '
                          'few minutes')
    sub.add_argument('--run', type=PATH, metavar='DIR', default='runs/demo',
                     help='folder for the scenes, the runs and the picture (default: runs/demo)')
    add_seed(sub)
    return parser


STYLES = 10                                                 # paper section 4: K = 10


def given(args, fields):
    """The fields of a configuration that were written out on the command line."""
    values = {name: value for name, value in vars(args).items() if name in fields}
    for name in ('data', 'vgg', 'cache'):                   # paths outlive the folder one is in
        if values.get(name) and values[name] != 'fetch':
            values[name] = str(Path(values[name]).resolve())
    if values.get('size') == 'native':
        values['size'] = None
    return values


# --------------------------------------------------------------------------------- subcommands

def check(args):
    """Read everything in a data set, and say what there is and what is wrong."""
    import survey
    source = source_of(args)
    found = survey.survey(source, thorough=True, progress=survey.ticker())
    survey.announce(source, found)
    survey.report(source, found)
    return 2 if found.problems else 0


def source_of(args):
    """The data set that the command line names."""
    if not hasattr(args, 'data'):
        raise UserError(f'{args.command} needs --data DIR, the folder of the data set')
    return SimpleNamespace(**{**configuration.defaults(DATA), **given(args, DATA),
                              'data': args.data})


def train(args):
    """Train G1, or G2 around it (paper section 3.2), D1 to D3 and, where there are instances, the
    encoder (section 3.4)."""
    if args.resume is not None:
        return resume(args)
    import runs
    import survey
    import training

    # What is there to see.
    source = source_of(args)
    found = survey.survey(source, thorough=source.skip_bad)
    folder = new_folder(args, Path(args.data).resolve().name or 'root')
    device = runs.pick_device(args.device)
    survey.announce(source, found)
    if found.problems and not source.skip_bad or not found.pairs:
        others = len(found.problems) - 1
        raise UserError(next(iter(found.problems.values()))
                        + (f' (and {others} more like it; check lists them)' if others else '')
                        + ('; --skip-bad trains on the rest' if found.pairs else ''))
    for problem in found.problems.values():
        say(f'left out: {problem}')

    # What is made of it: the networks ...
    network = {**configuration.defaults(NETWORK), **given(args, NETWORK),
               **{name: getattr(found, name) for name in NETWORK if hasattr(found, name)}}
    if network['model'] == 'global':
        network['n_enhancers'] = 0
    if not hasattr(args, 'ngf'):
        network['ngf'] = max(1, network['ngf'] >> network['n_enhancers'])
    network.setdefault('features', found.instances != 'none')
    if network['features'] and found.instances == 'none':
        raise UserError(f'--features: {args.data} has no instance maps; --instances components '
                        'makes them from the labels')
    check_effect(args, network)

    # ... and how they are trained.
    config = configuration.make(network, {
        **given(args, TRAINING), 'fix_global': 0, 'flags': flags(args),
        'left_out': sorted(found.problems), 'pictures': survey.fingerprint(found.pairs)})
    if not hasattr(args, 'size'):
        config.size = runs.usual_size(config, list(found.sizes.values()))
    runs.check_sizes(config, {pair.name: found.sizes[pair.name] for pair in found.pairs})
    training.schedule(config, len(found.pairs))
    configuration.check(config)
    say(survey.in_words(found, 'training')
        + (', encoder trained along' if config.features else ''))
    return start(runs.build(config, device), folder, found.pairs)


def check_effect(args, network):
    """UserError for a flag that would have no effect."""
    local, features = network['model'] == 'local', network['features']
    for names, effective, why in (
            (('n_enhancers', 'n_blocks_local'), local, '--model global has no local enhancers'),
            (('feat', 'nef', 'n_down_encoder'), features, 'without instances and --features '
                                                          'there is no encoder')):
        for name in names:
            if hasattr(args, name) and not effective:
                raise UserError(f'{configuration.flag(name)} {getattr(args, name)}: {why}; leave it '
                                'out')


def flags(args):
    """What was written out on the command line, for a run to remember."""
    return {name: value for name, value in vars(args).items()
            if name not in ('command', 'device', 'run', 'resume')}


def new_folder(args, name):
    """The folder of a run to be made; UserError if it holds one already."""
    import runs
    folder = Path(args.run or Path('runs') / name)
    runs.check_new(folder)
    return folder


def start(run, folder, pairs):
    """Say what is about to be trained, and train."""
    import runs
    import training
    c, t = run.config, run.config.training
    dataset = training.prepare(run, folder, pairs)          # before anything is written
    make_folder(folder)
    with lock(folder):
        runs.check_new(folder)                              # another process may have come first
        weights = ', '.join(
            f'{name} {sum(p.numel() for p in getattr(run, name).parameters()) / 1e6:.1f}M'
            for name in 'GDE' if getattr(run, name))
        size = configuration.in_words(c.size) if c.size else 'native size'
        say(f'{folder}: {size}, {t.total_steps} steps of {t.batch} on {run.device}, weights '
            f'{weights}')
        return training.fit(run, folder, dataset)


def finetune(args):
    """Coarse to fine (paper section 3.2, figure 3): put a local enhancer around a trained generator
    at twice the size, train it alone for --fix-global epochs, then everything together."""
    if args.resume is not None:
        return resume(args)
    if not hasattr(args, 'base'):
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
    import runs
    import survey
    import training
    device = runs.pick_device(args.device)
    path, base = runs.read(args.base)
    b = base['config']
    before = vars(b.training) if b.training else {}
    root = getattr(args, 'data', before.get('data'))
    if not root:
        raise UserError(f'{args.base}: does not say what it was trained on; name it with --data '
                        'DIR')

    # The network around the one that there is: half as wide, at twice the size.
    if b.ngf % 2:
        raise UserError(f'{args.base}: --ngf {b.ngf} is odd; the enhancer around it has half as '
                        'many channels')
    network = {**vars(b), **given(args, NETWORK), 'model': 'local', 'ngf': b.ngf // 2,
               'n_enhancers': b.n_enhancers + 1, 'encoder_scale': 2 * b.encoder_scale}
    del network['training']
    if b.model == 'local' and network['n_blocks_local'] != b.n_blocks_local:
        raise UserError(f'--n-blocks-local {network["n_blocks_local"]}: {args.base} has '
                        f'{b.n_blocks_local}, and all its enhancers are alike')
    if not hasattr(args, 'size'):
        if not b.size:
            raise UserError(f'{args.base} was trained at native size; say with --size WxH (or '
                            'native) what to finetune at')
        network['size'] = tuple(2 * side for side in b.size)

    # Schedule, crop, log and cache are this stage's own; whatever else is not given stays.
    stay = {name: before[name] for name in ('split', 'jitter', 'flip', 'workers', 'batch', 'lr',
                                            'gan', 'vgg', 'bf16', 'seed') if name in before}
    config = configuration.make(network, {
        **stay, **given(args, TRAINING), 'data': str(Path(root).resolve()), 'flags': flags(args)})
    t = config.training
    t.left_out = survey.still_bad(config, root, before.get('left_out', ()), t.split)
    config.layout, pairs, sizes = survey.known_pairs(config, root, t.left_out, t.split)
    t.pictures = survey.fingerprint(pairs)
    runs.check_sizes(config, sizes)
    training.schedule(config, len(pairs))
    configuration.check(config)
    name = re.sub(r'-(\d+x\d+|native)$', '', Path(args.base).resolve().name) or 'root'
    folder = new_folder(args, f'{name}-{configuration.in_words(config.size or "native")}')

    run = runs.build(config, device)
    runs.take_over(run, path, base['weights'])
    if t.fix_global_steps < t.total_steps:
        say(f'{args.base}: enhancer {config.n_enhancers} around it; the rest learns along from '
            f'step {t.fix_global_steps} on')
    else:
        warn(f'warning: --fix-global {t.fix_global} is {t.fix_global_steps} steps, all of this '
             'run: only the new enhancer will learn')
    del base
    return start(run, folder, pairs)


def resume(args):
    """Go on with a run as it was configured, to the bit as if it had never been stopped."""
    import checkpoints
    import runs
    import survey
    import training
    folder, device = resumed_folder(args), runs.pick_device(args.device)
    if not checkpoints.numbered(folder):
        runs.read(folder)                                   # says what is wrong with it
        raise UserError(f'{folder}: a run of the official code cannot be resumed; finetune --from '
                        'starts from it')
    with lock(folder):
        run = runs.load(folder, device, set_aside=True)
        c, t = run.config, run.config.training
        configuration.amend(c, {**flags(args), **given(args, {**NETWORK, **TRAINING})}, folder)
        if t.cache and not hasattr(args, 'cache') and not (Path(t.cache) / 'index.json').is_file():
            # A stranger's file does not choose the folder that is written to.
            warn(f'note: {t.cache} holds no cache; one is made beside {folder}, or where --cache '
                 'DIR says')
            t.cache = ''
        if not Path(t.data).exists():
            raise UserError(f'{t.data}: the data set of {folder} is not there; say with --data DIR '
                            'where it is now')
        _, pairs, sizes = survey.known_pairs(c, t.data, t.left_out, t.split)
        runs.check_sizes(c, sizes)
        if list(t.pictures) != survey.fingerprint(pairs):
            raise UserError(f'{t.data}: holds {len(pairs)} pictures, and {folder} was started with '
                            f'{t.pictures[0]}, or with others; put back what was there, or start '
                            'another run')
        training.schedule(c, len(pairs))
        configuration.check(c)
        if run.step >= t.total_steps:
            say(f'{folder}: trained to the end, {run.step} steps; --epochs or --steps makes it '
                'longer')
            return 0
        dataset = training.prepare(run, folder, pairs)
        say(f'{folder}: going on at step {run.step} of {t.total_steps}')
        return training.fit(run, folder, dataset)


def resumed_folder(args):
    """The folder of the run to go on with: the one named, or that of the data set named, or the
    newest."""
    import checkpoints
    import runs
    if args.resume and args.run and Path(args.run).resolve() != Path(args.resume).resolve():
        raise UserError(f'--run {args.run}: --resume {args.resume} goes on in its own folder; leave '
                        '--run out')
    if args.resume or args.run:
        return Path(args.resume or args.run)
    named = Path('runs') / Path(getattr(args, 'data', '.')).resolve().name
    return named if checkpoints.numbered(named) else runs.newest()


def cluster(args):
    """Cluster the features of the training set's instances, label by label (paper section 3.4)."""
    import runs
    import styles
    import synthesis
    folder = Path(args.run) if args.run else runs.newest()
    run = runs.load(folder, runs.pick_device(args.device), training=False)
    if not run.E:
        raise UserError(f'{folder}: trained without --features, there are no styles to cluster')
    seed = getattr(args, 'seed', TRAINING['seed'].default)
    found = synthesis.cluster(run, folder, args.data, args.k, args.min_pixels, seed)
    styles.save(found, folder)
    say(folder / 'styles.npz')
    return 0


def generate(args):
    """Turn label maps into pictures: G(s, styles), each instance in the most frequent style of its
    label, in one drawn at random, in one chosen, or in that of a photograph (paper section 3.4)."""
    import layouts
    import runs
    import styles
    import synthesis
    folder = Path(args.run) if args.run else runs.newest()
    run = runs.load(folder, runs.pick_device(args.device), training=False)
    check_wishes(args, folder, run)

    # What belongs together, by name.
    layout = run.config.layout
    labels = layouts.files_by_name(args.label, 'label', layout)
    insts = layouts.partners(args.inst, 'inst', layout, labels) if args.inst else {}
    photos = layouts.partners(args.encode, 'image', layout, labels) if args.encode else {}
    out = Path(args.out) if args.out else folder / 'generated'
    for path in map(Path, args.label):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f'--out {out} lies in {path}: its pictures would be taken for label '
                            'maps next time; choose another')
    known = synthesis.ready_styles(run, folder, STYLES) if run.E else None
    chosen = styles.chosen_by_hand(args.style, known) if run.E else {}
    make_folder(out)

    ending = 'encoded' if photos else 'generated'
    unknown, failed, noted = set(), 0, False
    for name, path in labels.items():
        try:
            scene = synthesis.read_scene(run.config, path, insts.get(name), args.size)
            noted = noted or note_size(folder, run.config, path, scene)
            if run.E and not photos:
                unknown |= styles.unknown(scene.labels, known)
            for i in range(args.n):
                if args.sample:
                    ending = f'seed{getattr(args, "seed", 0)}_{i + 1}'
                vectors = None
                if photos:
                    vectors = synthesis.encode_photo(run, photos[name], scene)
                elif run.E:
                    vectors = styles.choose(scene.labels, known, draw(args, name, i))
                for label, k in chosen.items():
                    vectors[scene.labels == label] = styles.centre(known, label, k)
                picture = synthesis.synthesise(run, scene, vectors)
                say(synthesis.write_picture(out / f'{name}_{ending}.png', picture))
        except UserError as error:
            if len(labels) == 1:
                raise
            failed += 1
            warn(f'p2phd generate: {error}')
    if unknown:
        names = run.config.label_names or range(run.config.n_labels)
        warn(f'warning: no styles for {", ".join(str(names[i]) for i in sorted(unknown))}, which '
             'the training data lacks; the mean of all features stood in')
    if failed:
        warn(f'p2phd generate: {failed} of {len(labels)} label maps could not be used')
    return 2 if failed else 0


def check_wishes(args, folder, run):
    """UserError for flags that the run, or other flags, leave without a meaning."""
    if (args.sample or args.style or args.encode) and not run.E:
        raise UserError(f'{folder}: trained without --features, so it has one style only; leave '
                        'out --sample, --style and --encode')
    if args.inst and run.config.instances == 'none':
        raise UserError(f'--inst: {folder} was trained without instances; leave it out')
    if args.sample and args.encode:
        raise UserError('--sample and --encode: the styles are either drawn or taken from '
                        'photographs')
    if args.n > 1 and not args.sample:
        raise UserError(f'--n {args.n}: the pictures would all be the same; add --sample')


def note_size(folder, config, path, scene):
    """Say so where a label map is far larger or smaller than what the run learned -> whether."""
    if not config.size:
        return False
    h, w = scene.label.shape[-2:]
    size = '%dx%d' % tuple(config.size)
    far = not 0.7 < (w * h / (config.size[0] * config.size[1])) ** 0.5 < 1.5
    if far:
        warn(f'note: {path} is {w}x{h} and {folder} learned at {size}; --size {size} would suit it '
             'better')
    return far


def draw(args, name, i):
    """With --sample a generator for the styles of picture i of a map, whose draws depend on the
    map's name, not on what other maps are there; else None."""
    if not args.sample:
        return None
    import numpy as np
    import torch
    entropy = (getattr(args, 'seed', 0), zlib.crc32(name.encode(errors='surrogateescape')), i)
    seed = np.random.SeedSequence(entropy).generate_state(1)[0]
    return torch.Generator().manual_seed(int(seed))


def demo(args):
    """The subcommands one after the other on built-in scenes."""
    import toy
    return toy.demo(Path(args.run), getattr(args, 'seed', 0), args.device,
                    lambda words: main(parse(words)))


# ----------------------------------------------------------------------------------------- main

COMMANDS = {'check': check, 'train': train, 'finetune': finetune, 'cluster': cluster,
            'generate': generate, 'demo': demo}


def parse(words):
    """The words of a command line -> namespace. Exits with code 2 where they are wrong."""
    return make_parser().parse_args(words)


def check_versions():
    """UserError where Python or a package is missing or too old."""
    def number(version):
        return '.'.join(map(str, version[:2]))

    if sys.version_info < PYTHON:
        raise UserError(f'Python {number(sys.version_info)}: this program needs {number(PYTHON)} '
                        'or newer')
    try:
        import numpy, PIL, torch                            # noqa: E401, F401
    except ImportError as error:
        raise UserError(f'{error}; pip install -r requirements.txt brings what is needed') from None
    version = tuple(int(part) for part in re.findall(r'\d+', torch.__version__)[:2])
    if version < TORCH:
        raise UserError(f'PyTorch {torch.__version__}: this program needs {number(TORCH)} or newer')


def main(args):
    """Run a subcommand -> exit code: 2 where the user can mend what went wrong, said in one line on
    stderr."""
    try:
        check_versions()
        return COMMANDS[args.command](args)
    except (UserError, OSError, MemoryError, RuntimeError, ValueError) as error:
        if isinstance(error, (UserError, OSError)) and not out_of_memory(error):
            message = error
        elif 'DataLoader worker' in str(error):
            message = ('a process that loads pictures has died, perhaps of too little (shared) '
                       'memory; train --resume RUN --workers 0 loads them in the trainer')
        elif out_of_memory(error):
            message = 'there is not enough memory; try --bf16, --crop, a smaller --size, or ' \
                      'fewer channels'
        else:
            raise
        warn(f'p2phd {args.command}: {message}')
        return 2
    except KeyboardInterrupt:
        warn(f'p2phd {args.command}: interrupted')
        return 130


if __name__ == '__main__':
    sys.exit(main(parse(sys.argv[1:])))
