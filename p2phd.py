"""pix2pixHD from label map to photograph.

    python p2phd.py demo                                 # the whole chain on built-in street scenes
    python p2phd.py train --data cityscapes/             # G1 and the encoder at 1024x512
    python p2phd.py finetune --from runs/cityscapes      # G2 around it at 2048x1024, then G3
    python p2phd.py cluster --run runs/cityscapes-2048x1024
    python p2phd.py generate --label map.png --sample

Read downwards: the parser, then one function for each subcommand.
"""
import argparse
from contextlib import contextmanager, nullcontext
import os
from pathlib import Path
import re
import sys
import traceback
from types import SimpleNamespace

# The rest, and torch with it, is imported by the subcommand that needs it: --help answers at once.
import config as configuration
from config import DATA, FILE, FLAG, FOLDER, NEEDED, NETWORK, POSITIVE, SIZE, STYLES, TRAINING
from files import (InBackground, UserError, lock, make_folder, out_of_memory, read_ahead, resolved,
                   say, warn)

PYTHON, TORCH = (3, 11), (2, 6)                             # older ones lack what is used here


# ----------------------------------------------------------------------------- the command line

class Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f'{self.prog}: {" ".join(message.split())} (see {self.prog} --help)\n')


def add_fields(parser, title, fields, names, stay=(), **texts):
    """Flags for the fields `names` of a configuration, whose types, defaults and help are in
    config.py. Only those that are given get into the namespace.

    stay: fields whose default is another run's. texts: other help than there.
    """
    group = parser.add_argument_group(title)
    for name in names.split():
        bound, default, text = fields[name]
        bound = configuration.ON_THE_LINE.get(name, bound)
        text = texts.get(name, text)
        if default not in (None, False, NEEDED) and name not in stay and 'default' not in text:
            text += ' (default: yes)' if default is True else f' (default: {default})'
        kind = {'type': bound, 'metavar': bound.metavar}
        if bound is FLAG:
            kind = {'action': argparse.BooleanOptionalAction}
        elif bound.choices:
            kind = {'choices': bound.choices}
        if name in ('cache', 'vgg'):                        # their path may be left out
            kind |= {'nargs': '?', 'const': {'cache': '', 'vgg': 'fetch'}[name]}
        group.add_argument(configuration.flag(name), default=argparse.SUPPRESS, help=text, **kind)
    return group


def add_training(parser, run, size, own=None):
    """The flags that train and finetune share. run, size: what those are by default. own: the
    fields whose default is not that of finetune's --from; None: all."""
    stay = [] if own is None else set(TRAINING) - set(own.split())
    group = parser.add_argument_group('run')
    group.add_argument('--run', type=FOLDER, metavar='DIR',
                       help=f'folder to write (default: runs/{run})')
    group.add_argument('--resume', nargs='?', const='', metavar='RUN',
                       help='go on with this run (default: the newest), with its own settings')

    add_fields(parser, 'pictures', {**TRAINING, 'size': NETWORK['size']},
               'size crop jitter flip hold_out cache workers', stay,
               size=f'resize pictures to this; `native`: as they are (default: {size})')
    add_fields(parser, 'schedule', TRAINING, 'epochs decay_epochs steps batch accumulate lr ema',
               stay)
    group = add_fields(parser, 'objective', TRAINING,
                       'gan lambda_feature vgg lambda_vgg lambda_l1', stay)
    group.add_argument('--no-vgg', dest='vgg', action='store_const', const=None,
                        default=argparse.SUPPRESS, help='without the perceptual loss')
    add_fields(parser, 'running', TRAINING,
               'precision compile recompute seed log_every sample_every evaluate_every save_every '
               'keep max_bad_steps', stay)


def add_data(parser):
    add_fields(parser, 'data set', DATA,
               'data split instances palette n_labels ignore_label jpeg_labels skip_bad')


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

    def folder(sub, flag, text, **more):
        sub.add_argument(flag, type=FOLDER, metavar='DIR', help=text, **more)

    def trained(sub):
        sub.add_argument('--checkpoint', choices=['newest', 'best'], default='newest',
                         help='best: of those that train --evaluate-every scored (default: newest)')
        sub.add_argument('--average', action=argparse.BooleanOptionalAction, default=True,
                         help='with the moving average of the weights, where there is one '
                              '(default: yes)')

    sub = command('check', 'read a data set through and report what it holds and what is wrong '
                           'with it')
    add_data(sub)
    add_fields(sub, 'running', TRAINING, 'seed')

    sub = command('train', 'train the generator, the discriminators and the encoder')
    add_data(sub)
    add_training(sub, '<name of the data folder>',
                 'the most frequent size of the data set, at most 1024 wide')
    add_fields(sub, 'networks', NETWORK,
               'model ngf n_down n_blocks n_enhancers n_blocks_local up ndf n_layers n_scales '
               'spectral_norm boundary features features_of feat nef n_down_encoder')

    sub = command('finetune', 'add a local enhancer at twice the size to a trained run. Flags '
                              'without a default stay as they were in --from, but for --crop, '
                              '--cache, --steps and --evaluate-every.')
    folder(sub, '--from', 'the run whose networks to start from', dest='base',
           default=argparse.SUPPRESS)
    folder(sub, '--data', '(default: the data of --from)', default=argparse.SUPPRESS)
    add_training(sub, '<name of --from>-<size>', 'twice the size of --from',
                 'epochs decay_epochs log_every sample_every save_every keep max_bad_steps')
    add_fields(sub, 'enhancer', {**TRAINING, **NETWORK}, 'fix_global n_blocks_local',
               n_blocks_local='residual blocks of the new enhancer (default: 3, or as in --from)')

    sub = command('cluster', "cluster the training set's instance features into styles, label by "
                             'label')
    folder(sub, '--run', '(default: the newest run in runs/)')
    folder(sub, '--data', '(default: the data of the run)')
    trained(sub)
    sub.add_argument('--k', type=configuration.whole(1, 1000), default=STYLES, metavar='N',
                     help=f'styles per label (default: {STYLES})')
    sub.add_argument('--min-pixels', type=POSITIVE, default=1, metavar='N',
                     help='leave out instances with fewer pixels (default: 1)')
    add_fields(sub, 'running', TRAINING, 'seed')

    sub = command('generate', 'turn label maps into photographs')
    more = {'nargs': '+', 'action': 'extend', 'metavar': 'PATH', 'type': FILE}
    sub.add_argument('--label', required=True, help='label maps, or folders of them', **more)
    sub.add_argument('--inst', help='their instance maps, or folders of them (default: the '
                                    'connected components of each label)', **more)
    folder(sub, '--run', '(default: the newest run in runs/)')
    folder(sub, '--out', '(default: <run>/generated)')
    trained(sub)
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
    sub.add_argument('--styles', type=FILE, metavar='PATH',
                     help='the styles of the scene, as edit saved them')
    add_fields(sub, 'running', TRAINING, 'precision compile seed',
               precision='arithmetic of the networks (default: as trained)')

    sub = command('edit', 'change a scene object by object: its styles, labels and shapes, on a '
                          'page in the browser or by a script')
    one = {'type': FILE, 'metavar': 'PATH'}
    sub.add_argument('--label', required=True, help='the label map', **one)
    sub.add_argument('--inst', help='its instance map (default: the connected components of each '
                                    'label)', **one)
    sub.add_argument('--styles', help='its styles, as saved here (default: the main ones)', **one)
    sub.add_argument('--photo', help='a photograph of it, whose styles to begin with', **one)
    folder(sub, '--run', '(default: the newest run in runs/)')
    folder(sub, '--out', 'for what is saved (default: <run>/edited)')
    trained(sub)
    sub.add_argument('--size', type=SIZE, metavar='WxH',
                     help="resize the maps to this first (default: the maps' own size)")
    sub.add_argument('--script', help='apply the edits in this JSON file, and open no page', **one)
    sub.add_argument('--last', action='store_true',
                     help='with --script, a picture of the result alone, not of every edit')
    sub.add_argument('--host', default='127.0.0.1',
                     help='address to serve the page at (default: 127.0.0.1, which this machine '
                          'alone reaches)')
    sub.add_argument('--port', type=configuration.whole(0, 65535), default=0, metavar='N',
                     help='port to serve it at (default: one that is free)')
    sub.add_argument('--browser', action=argparse.BooleanOptionalAction, default=True,
                     help='open the page in the browser (default: yes)')
    add_fields(sub, 'running', TRAINING, 'precision seed',
               precision='arithmetic of the networks (default: as trained)')

    sub = command('evaluate', 'score runs side by side on pictures that they were not trained on')
    sub.add_argument('--run', help='(default: the newest run in runs/)',
                     **{**more, 'metavar': 'DIR'})
    folder(sub, '--data', '(default: the data of the first run)')
    sub.add_argument('--split', type=configuration.NAME, metavar='NAME',
                     help='part of the data set (default: val, or what --hold-out left out: held)')
    trained(sub)
    sub.add_argument('--styles', choices=['main', 'sampled', 'encoded'], default='main',
                     help="of the instances: their label's most frequent, drawn at random, or "
                          'those of the photograph (default: main)')
    sub.add_argument('--size', type=SIZE, metavar='WxH',
                     help='to compare pictures at (default: the smallest that a run learned)')
    sub.add_argument('--void', nargs='+', action='extend', metavar='LABEL',
                     help='labels (names or numbers) that do not count, or none (default: as the '
                          'data set has it, and --ignore-label)')
    sub.add_argument('--judge', type=FILE, metavar='FILE',
                     help='segmentation network that recognises the pictures; trained and kept '
                          'there if need be (default: one beside the run)')
    folder(sub, '--predictions', 'label maps that another network predicted for what --write '
                                 'wrote, under the same names')
    folder(sub, '--write', 'write the pictures, real/ and fake/, paired by name')
    folder(sub, '--out', 'for scores.json and sheet.png (default: <first run>/evaluation)')
    sub.add_argument('--vgg', nargs='?', const='fetch', metavar='PATH',
                     help='diversity over the features of VGG-19 as well, see train --vgg')
    add_fields(sub, 'running', TRAINING, 'seed')

    sub = command('demo', 'train, finetune, cluster and generate on built-in street scenes, in a '
                          'few minutes')
    folder(sub, '--run', 'for the scenes, the runs and the picture (default: runs/demo)',
           default='runs/demo')
    add_fields(sub, 'running', TRAINING, 'seed')
    return parser


def given(args, fields):
    """The fields of a configuration that were written out on the command line."""
    values = {name: value for name, value in vars(args).items() if name in fields}
    for name in ('data', 'vgg', 'cache'):                   # paths outlive the folder one is in
        if values.get(name) and values[name] != 'fetch':
            values[name] = str(resolved(values[name]))
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
    encoder (section 3.4); or the U-Net of pix2pix in place of G."""
    if args.resume is not None:
        return resume(args)
    import devices
    import runs
    import survey
    import training

    # What is there to see.
    source = source_of(args)
    found = survey.survey(source, thorough=source.skip_bad)
    folder = runs.new_folder(args.run, resolved(args.data).name or 'root')
    device = devices.pick_device(args.device)
    survey.announce(source, found)
    if found.problems and not source.skip_bad or not found.pairs:
        others = len(found.problems) - 1
        raise UserError(next(iter(found.problems.values()))
                        + (f' (and {others} more like it; check lists them)' if others else '')
                        + ('; --skip-bad trains on the rest' if found.pairs else ''))
    for problem in found.problems.values():
        say(f'left out: {problem}')

    # What is made of it.
    config = runs.design({
        **given(args, {**NETWORK, **TRAINING}), 'flags': flags(args),
        'left_out': sorted(found.problems), 'pictures': survey.fingerprint(found.pairs)}, found)
    runs.check_sizes(config, {pair.name: found.sizes[pair.name] for pair in found.pairs})
    seen, held = survey.hold_out(found.pairs, config.training.hold_out)
    config.training.held = [pair.name for pair in held]
    training.schedule(config, len(seen))
    configuration.check(config)
    settle_precision(args, config, device)
    say(survey.in_words(found, 'training')
        + (', encoder trained along' if config.features else ''))
    return training.start(runs.build(config, device), folder, found.pairs,
                          scorer(config, found.pairs, folder, device))


def settle_precision(args, config, device, before=()):
    """Put into the configuration the arithmetic that the command line, or the run before, asks for;
    else the one that is faster."""
    import devices
    import ranks
    wish = getattr(args, 'precision', None)
    if wish == 'tf32' and device.type != 'cuda':
        raise UserError('--precision tf32: the CPU has no such arithmetic; fp32, or bf16')
    if wish is None and 'precision' not in before:
        config.training.precision = ranks.of_first(devices.pick_precision(config, device))


def scorer(config, pairs, folder, device):
    """A function that makes what scores a run while it is trained; None without
    --evaluate-every."""
    def make():
        import evaluate
        import survey
        return evaluate.WhileTraining(config, *survey.seen_and_held(config, pairs), device, folder)

    return make if config.training.evaluate_every else None


def flags(args):
    """What was written out on the command line, for a run to remember."""
    return {name: value for name, value in vars(args).items()
            if name not in ('command', 'device', 'run', 'resume')}


def finetune(args):
    """Coarse to fine (paper section 3.2, figure 3): put a local enhancer around a trained generator
    at twice the size, train it alone for --fix-global epochs, then everything together."""
    if args.resume is not None:
        return resume(args)
    if not hasattr(args, 'base'):
        raise UserError('finetune needs --from RUN, the folder of the run to start from')
    import devices
    import runs
    import survey
    import training
    device = devices.pick_device(args.device)
    path, base = runs.read(args.base)
    before = vars(base['config'].training) if base['config'].training else {}
    root = getattr(args, 'data', before.get('data'))
    if not root:
        raise UserError(f'{args.base}: does not say what it was trained on; name it with --data '
                        'DIR')
    if not Path(root).exists():
        raise UserError(f'{root}: the data set of {args.base} is not there; say with --data DIR '
                        'where it is now')

    # A network around the one that there is. Schedule, crop, log and cache are this stage's own;
    # whatever else is not given stays.
    stay = {name: before[name] for name in (
        'split', 'jitter', 'flip', 'workers', 'batch', 'accumulate', 'lr', 'gan', 'vgg',
        'precision', 'compile', 'recompute', 'seed', 'ema', 'hold_out', 'held',
        'lambda_feature', 'lambda_vgg', 'lambda_l1') if name in before}
    if hasattr(args, 'hold_out') and args.hold_out != before.get('hold_out', 0):
        raise UserError(f'--hold-out {args.hold_out}: {args.base} was trained with --hold-out '
                        f'{before.get("hold_out", 0)}, and has seen the others; leave it out')
    network = runs.enlarged(base['config'], args.base, given(args, NETWORK))
    config = configuration.make(network, {
        **stay, **given(args, TRAINING), 'data': str(resolved(root)), 'flags': flags(args)})
    t = config.training
    t.left_out = survey.still_bad(config, root, before.get('left_out', ()), t.split)
    config.layout, pairs, sizes = survey.known_pairs(config, root, t.left_out, t.split)
    t.pictures = survey.fingerprint(pairs)
    runs.check_sizes(config, sizes)
    training.schedule(config, len(survey.seen_and_held(config, pairs)[0]))
    configuration.check_effect(given(args, {**NETWORK, **TRAINING}), config)
    configuration.check(config)
    settle_precision(args, config, device, before)
    name = re.sub(r'-(\d+x\d+|native)$', '', resolved(args.base).name) or 'root'
    folder = runs.new_folder(args.run, f'{name}-{configuration.in_words(config.size or "native")}')

    run = runs.build(config, device)
    runs.take_over(run, path, {**base['weights'], **base['average']})
    if t.fix_global_steps < t.total_steps:
        say(f'{args.base}: enhancer {config.n_enhancers} around it; the rest learns along from '
            f'step {t.fix_global_steps} on')
    else:
        warn(f'warning: --fix-global {t.fix_global} is {t.fix_global_steps} steps, all of this '
             'run: only the new enhancer will learn')
    del base
    return training.start(run, folder, pairs, scorer(config, pairs, folder, device))


def resume(args):
    """Go on with a run as it was configured, to the bit as if it had never been stopped."""
    import checkpoints
    import devices
    import ranks
    import runs
    import survey
    import training
    folder = runs.resumed_folder(args.resume, args.run, getattr(args, 'data', ''))
    device = devices.pick_device(args.device)
    if not checkpoints.numbered(folder):
        runs.read(folder)                                   # says what is wrong with it
        raise UserError(f'{folder}: a run of the official code cannot be resumed; finetune --from '
                        'starts from it')
    with lock(folder) if ranks.FIRST else nullcontext():
        with ranks.first_goes_first():
            run = runs.load(folder, device, set_aside=True)
        c, t = run.config, run.config.training
        configuration.amend(c, {**flags(args), **given(args, {**NETWORK, **TRAINING})}, folder)
        if t.cache and not hasattr(args, 'cache') and not (Path(t.cache) / 'index.json').is_file():
            # A stranger's file does not choose the folder that is written to.
            warn(f'note: {t.cache} holds no cache; one is made beside {folder}, or where --cache '
                 'DIR says')
            t.cache = ''
        pairs, sizes = survey.same_pairs(c, folder)
        runs.check_sizes(c, sizes)
        training.schedule(c, len(survey.seen_and_held(c, pairs)[0]))
        configuration.check(c)
        if run.step >= t.total_steps:
            say(f'{folder}: trained to the end, {run.step} steps; --epochs or --steps makes it '
                'longer')
            return 0
        with ranks.first_goes_first():
            dataset, shown = training.prepare(run, folder, pairs)
        say(f'{folder}: going on at step {run.step} of {t.total_steps}')
        make, score = scorer(c, pairs, folder, device) if ranks.FIRST else None, None
        try:
            score = make and make()
        except UserError as error:                          # its pictures may be gone since
            warn(f'warning: {error}; going on without scores')
        return training.fit(run, folder, dataset, shown, score)


def cluster(args):
    """Cluster the features of the training set's instances, label by label (paper section 3.4)."""
    import ranks
    import styles
    import synthesis
    folder, run = trained_run(args)
    if not run.E:
        raise UserError(f'{folder}: trained without --features, there are no styles to cluster')
    seed = getattr(args, 'seed', TRAINING['seed'].default)
    found = synthesis.cluster(run, folder, args.data, args.k, args.min_pixels, seed, True)
    if ranks.FIRST:
        say(styles.save(found, folder, run.variant))
    return 0


def trained_run(args):
    """The run that --run names, or the newest, as --checkpoint and --average say -> folder, Run."""
    import devices
    import runs
    folder = Path(args.run) if args.run else runs.newest()
    return folder, runs.load(folder, devices.pick_device(args.device), False, which=args.checkpoint,
                             average=args.average)


def generate(args):
    """Turn label maps into pictures: G(s, styles), each instance in the most frequent style of its
    label, in one drawn at random, in one chosen, or in that of a photograph (paper section 3.4)."""
    import devices
    import layouts
    import ranks
    import styles
    import synthesis
    folder, run = trained_run(args)
    check_wishes(args, folder, run)
    run.precision = getattr(args, 'precision', run.precision)
    if getattr(args, 'compile', False):
        devices.compile_generator(run)

    # What belongs together, by name.
    layout = run.config.layout
    labels = layouts.files_by_name(args.label, 'label', layout)
    insts = layouts.partners(args.inst, 'inst', layout, labels) if args.inst else {}
    photos = layouts.partners(args.encode, 'image', layout, labels) if args.encode else {}
    out = Path(args.out) if args.out else folder / 'generated'
    for path in map(Path, args.label):
        if path.is_dir() and resolved(out).is_relative_to(resolved(path)):
            raise UserError(f'--out {out} lies in {path}: its pictures would be taken for label '
                            'maps next time; choose another')
    if args.styles and len(labels) > 1:
        raise UserError(f'--styles {args.styles}: of one scene, and there are {len(labels)} label '
                        'maps')
    known = None
    if run.E and (args.style or not photos) and not args.styles:
        with ranks.first_goes_first():
            known = synthesis.ready_styles(run, folder)
    chosen = styles.chosen_by_hand(args.style, known)
    make_folder(out)

    ending = 'encoded' if photos else 'generated'
    seed = getattr(args, 'seed', TRAINING['seed'].default)
    unknown, failed, noted = set(), set(), False

    @contextmanager
    def trying(name):                                       # the other maps go on
        try:
            yield
        except UserError as error:
            failed.add(name)
            warn(f'p2phd generate: {error}')

    def read(name):
        return synthesis.read_scene(run.config, labels[name], insts.get(name), args.size)

    def write(name, path, picture):
        with trying(name):
            say(synthesis.write_picture(path, picture))

    # The next map is read and the last pictures are written while the networks compute.
    in_background = InBackground()
    for name, scene in read_ahead(read, ranks.share(list(labels))):
        with trying(name):
            scene = scene.result()
            noted = noted or synthesis.note_size(folder, run.config, labels[name], scene)
            if known:
                unknown |= styles.unknown(scene.labels, known)
            for i in range(args.n):
                if args.sample:
                    ending = f'seed{seed}_{i + 1}'
                noise = styles.noise_of(seed, name, i)
                if args.styles:
                    vectors, noise = synthesis.read_styles(args.styles, run, scene)
                else:
                    vectors = synthesis.choose_styles(run, scene, known, photos.get(name),
                                                      noise if args.sample else None, chosen)
                picture = synthesis.synthesise(run, scene, vectors, noise).cpu()
                in_background(write, name, out / f'{name}_{ending}.png', picture)
    in_background.end()
    if unknown:
        names = run.config.label_names or range(run.config.n_labels)
        warn(f'warning: no styles for {", ".join(str(names[i]) for i in sorted(unknown))}, which '
             'the training data lacks; the mean of all features stood in')
    if failed and len(labels) > 1:
        warn(f'p2phd generate: {len(failed)} of {len(labels)} label maps could not be used')
    return 2 if failed else 0


def check_wishes(args, folder, run):
    """UserError for flags that the run, or other flags, leave without a meaning."""
    drawn = args.sample and run.config.model != 'unet'      # whose dropout draws
    if (drawn or args.style or args.encode) and not run.E:
        raise UserError(f'{folder}: trained without --features, so it has one style only; leave '
                        'out --sample, --style and --encode')
    if args.inst and run.config.instances == 'none':
        raise UserError(f'--inst: {folder} was trained without instances; leave it out')
    if args.sample and args.encode:
        raise UserError('--sample and --encode: the styles are either drawn or taken from '
                        'photographs')
    if args.styles and (args.sample or args.style or args.encode):
        raise UserError('--styles: has the style of every object; leave out --sample, --style and '
                        '--encode')
    if args.n > 1 and not args.sample:
        raise UserError(f'--n {args.n}: the pictures would all be the same; add --sample')


def edit(args):
    """Change a scene object by object, by a script or on a page (paper section 3.4 and its
    interactive object editing)."""
    import layouts
    import scenes
    import serve
    import synthesis
    folder, run = trained_run(args)
    run.precision = getattr(args, 'precision', run.precision)
    out = Path(args.out) if args.out else folder / 'edited'
    known = synthesis.ready_styles(run, folder) if run.E else None
    seed = getattr(args, 'seed', TRAINING['seed'].default)
    label, inst, own, photo = (path and Path(path) for path in (args.label, args.inst, args.styles,
                                                                args.photo))
    editor = scenes.opened(run, known, label, inst, args.size, own, photo, seed)
    make_folder(out)
    name = layouts.scene_name(label)
    if args.script:
        for path in scenes.run_script(editor, args.script, out, name, args.last):
            say(path)
        return 0
    with lock(out, flag='--out'):
        return serve.serve(editor, out, name, f'{name}, {folder.name}', args.host, args.port,
                           args.browser)


def evaluate(args):
    """Score runs on pictures that they were not trained on (paper section 4.1): how well a
    segmentation network recognises what they make, how near it is, how much samples differ."""
    import devices
    import evaluate as scores
    import runs
    if args.judge and args.predictions:
        raise UserError('--judge and --predictions: one of them recognises the pictures')
    device = devices.pick_device(args.device)
    vgg = runs.load_vgg(args.vgg).to(device) if args.vgg else None
    folders = [Path(folder) for folder in args.run or [runs.newest()]]
    scores.compare(folders, device, which=args.checkpoint, average=args.average, root=args.data,
                   split=args.split, size=args.size, how=args.styles, void=args.void,
                   judge=args.judge, predictions=args.predictions, seed=getattr(args, 'seed', 0),
                   vgg=vgg, write=args.write, out=args.out)
    return 0


def demo(args):
    """The subcommands one after the other on built-in scenes."""
    import toy
    return toy.demo(Path(args.run), getattr(args, 'seed', 0), args.device,
                    lambda words: main(parse(words)))


# ----------------------------------------------------------------------------------------- main

COMMANDS = {'check': check, 'train': train, 'finetune': finetune, 'cluster': cluster,
            'generate': generate, 'edit': edit, 'evaluate': evaluate, 'demo': demo}


def parse(words):
    """The words of a command line -> namespace. Exits with code 2 where they are wrong."""
    args = make_parser().parse_args(words)
    if getattr(args, 'precision', None) == 'auto':
        del args.precision                                  # as if it had been left out
    return args


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
    many = int(os.environ.get('WORLD_SIZE', 1)) > 1         # see ranks
    try:
        check_versions()
        if many:
            import ranks
        code = COMMANDS[args.command](args)
        if many:
            ranks.end()
        return code
    except (UserError, OSError, MemoryError, RuntimeError, ValueError) as error:
        if isinstance(error, (UserError, OSError)) and not out_of_memory(error):
            message = error
        elif 'DataLoader worker' in str(error):
            message = ('a process that loads pictures has died, perhaps of too little (shared) '
                       'memory; train --resume RUN --workers 0 loads them in the trainer')
        elif out_of_memory(error):
            message = 'there is not enough memory; try --precision bf16, --crop, a smaller ' \
                      '--size, or fewer channels'
        elif many:
            message = ('another process of this run has ended, and says why; train --resume RUN '
                       'goes on') if ranks.lost(error) else traceback.format_exc()
        else:
            raise
        if many:
            sys.stderr = sys.__stderr__
            message = f'process {os.environ["RANK"]}: {message}'
        warn(f'p2phd {args.command}: {message}')
        if many:                                            # threads may wait for the others
            os._exit(2)
        return 2
    except KeyboardInterrupt:
        warn(f'p2phd {args.command}: interrupted')
        return 130


if __name__ == '__main__':
    sys.exit(main(parse(sys.argv[1:])))
