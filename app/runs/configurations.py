"""The configuration of a new run: flags, what the data set holds, and what follows from both."""
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from app.common import config as configuration
from app.common.config import NETWORK, TRAINING, as_flag, format_value
from app.common.console import warn
from app.common.errors import UserError
from app.common.files import resolve_path
from app.datasets import inspection
from nets import min_input_side, input_multiple
import train


def select(values, table):
    """Return those of {field: value} that are in a table of fields."""
    return {name: value for name, value in values.items() if name in table}


def make_config(given, found, inherited=()):
    """Make the configuration of a new run, without its schedule. given: {field: value} of the
    command line. found: see inspection.inspect_dataset. inherited: {field: value} in place of
    defaults. Raises UserError for useless flags."""
    wishes = {**dict(inherited), **given}
    if given.get('model') == 'pix2pix':
        wishes = {**wishes, **configuration.PIX2PIX, **given, 'model': 'unet'}
    network = {**configuration.default_values(NETWORK), **select(wishes, NETWORK),
               **{name: getattr(found, name) for name in NETWORK if hasattr(found, name)}}
    if network['model'] != 'local':
        network['n_enhancers'] = 0
    picks_levels = network['model'] == 'unet' and 'n_down' not in wishes
    if picks_levels:
        network['n_down'] = 5                       # until the size is known
    if 'ngf' not in wishes:
        network['ngf'] = max(1, network['ngf'] >> network['n_enhancers'])
    regions = found.instances != 'none' or network['features_of'] == 'label'
    if network.setdefault('features', regions) and not regions:
        if not found.n_labels:
            raise UserError(f'--features: {given["data"]} holds pictures, not label maps; leave it '
                            'out')
        raise UserError('--features: ' + (
            '--instances none leaves no instances to encode; leave out one of the two'
            if given.get('instances') == 'none' else
            f'{given["data"]} has no instance maps; --instances components makes them from the '
            'labels, --features-of label needs none'))
    config = configuration.with_defaults(network, {
        'fix_global': 0, **select(wishes, TRAINING),
        'left_out': sorted(found.problems), 'pictures': inspection.fingerprint(found.pairs)})
    _, held = inspection.hold_out(found.pairs, config.training.hold_out)
    config.training.held = [pair.name for pair in held]
    configuration.check_flags_used(given, config)
    if 'size' not in wishes:
        config.size = default_size(config, list(found.sizes.values()))
    if picks_levels:                                # as the size allows, 8 at most as in pix2pix
        w, h = config.training.crop or config.size or (32, 32)
        config.n_down = max(n for n in range(2, 9) if n == 2 or w % (1 << n) == h % (1 << n) == 0)
    return config


def make_config_from(base, given, found):
    """Make the configuration of a new run that begins with the weights of another one, without a
    schedule. Where no flag says otherwise, networks, size and loss are those of the other run.
    base: see transfer.read_base. given, found: see make_config. Raises UserError."""
    b, before, data = base.config, base.training, given['data']
    if (found.n_labels == 0) != (b.n_labels == 0):
        raise UserError(f'{data}: its layout is {found.layout}, and {base.folder} was trained on '
                        f'{b.layout}; one of them has pictures in place of labels')
    for name in ('in_channels', 'out_channels'):
        channels, expected = getattr(found, name), getattr(b, name)
        if channels != expected and (channels, expected) != (1, 3):     # grey is read as RGB
            raise UserError(f'{data}: its pictures have {channels} channels, those of '
                            f'{base.folder} have {expected}; take another --from or --data')
        setattr(found, name, expected)
    if (found.n_labels and found.instances == 'none' and b.instances == 'components'
            and given.get('instances') != 'none'):
        found.instances = 'components'
    frozen = b.features and b.encoder_scale > 1         # E, after finetune
    regions = found.instances != 'none' or given.get('features_of', b.features_of) == 'label'
    inherited = {**select(vars(b), NETWORK), 'features': b.features and regions,
                 'encoder_scale': b.encoder_scale if b.features else 1,     # 1: E is trained
                 'up_encoder': (b.up_encoder or b.up) if frozen else None,
                 **select(before, configuration.OF_TRAINING)}
    if not (before or b.size):                      # the official code does not save its size
        del inherited['size']
    elif 'size' not in given:
        inherited['crop'] = before.get('crop')
    config = make_config(given, found, inherited)
    require_same_networks(config, base)
    t = config.training
    if (t.data, t.split) == (before.get('data'), before.get('split')) and not (
            set(t.held) <= set(before['held'])):
        warn(f'note: --hold-out {t.hold_out}: {base.folder} was trained on some of these pictures')
    return config


def require_same_networks(config, base):
    """Raise UserError unless the networks of a configuration are those whose weights `base` has,
    see transfer.read_base, but for their first convolutions."""
    for network, names in configuration.ARCHITECTURE.items():
        is_loaded = network in base.weights and (network != 'E' or config.features)
        for name in names if is_loaded else ():
            value, expected = getattr(config, name), getattr(base.config, name)
            if not configuration.has_same_weights(name, value, expected):
                raise UserError(f'{as_flag(name, value)}: {base.folder} has '
                                f'{as_flag(name, expected)}, and its weights fit nothing else; '
                                'leave it out, or the --preset that sets it')


def make_finetune_config(base, path, given):
    """Make the configuration of a local enhancer around a generator, with half its channels and at
    twice its size (paper section 3.2), without its schedule. base: the generator's configuration,
    read from `path`. given: {field: value} of the command line. Raises UserError."""
    before = vars(base.training) if base.training else {}
    root, held_out = given.get('data', before.get('data')), before.get('hold_out', 0)
    network = {**select(vars(base), NETWORK),
               'size': base.size and tuple(2 * side for side in base.size),
               **select(given, NETWORK), 'model': 'local', 'ngf': base.ngf // 2,
               'n_enhancers': base.n_enhancers + 1, 'encoder_scale': 2 * base.encoder_scale,
               'up_encoder': base.up_encoder or base.up}
    hold_out, n_blocks = given.get('hold_out', held_out), network['n_blocks_local']
    for is_wrong, problem in (
            (not root or not Path(root).exists(),
             f'{root or path}: the data set of {path} is not there; name it with --data DIR'),
            (hold_out != held_out, f'--hold-out {hold_out}: {path} was trained with --hold-out '
             f'{held_out}, and has seen the others; leave it out'),
            (base.model == 'unet', f'{path}: local enhancers cannot go around its U-Net'),
            (base.ngf % 2, f'{path}: --ngf {base.ngf} is odd; an enhancer has half of it'),
            ('size' not in given and not base.size,
             f'{path} was trained at native size; add --size WxH (or native)'),
            (base.model == 'local' and n_blocks != base.n_blocks_local,
             f'--n-blocks-local {n_blocks}: {path} has {base.n_blocks_local}; leave it out'),
            (not configuration.has_same_weights('up', network['up'], base.up),
             f'--up {network["up"]}: {path} has --up {base.up}; leave it out')):
        if is_wrong:
            raise UserError(problem)
    return configuration.with_defaults(network, {
        **select(before, configuration.INHERITED), **select(given, TRAINING),
        'data': str(resolve_path(root))})


def complete_config(config, pairs, sizes):
    """Set the schedule of a run on the layouts.Pairs `pairs`, of sizes {scene: (width, height)}.
    Raises UserError where the configuration, --size, --crop or a picture does not fit."""
    t, size, multiple = config.training, config.size, input_multiple(config)
    sizes, least = {pair.name: sizes[pair.name] for pair in pairs}, min_training_side(config)
    if t.crop or size:
        w, h = t.crop or size
        if w % multiple or h % multiple or min(w, h) < least:
            smaller = min(w, h) < least and smaller_networks(config, (w, h))
            raise UserError(f'{"--crop" if t.crop else "--size"} {w}x{h}: these networks need '
                            f'multiples of {multiple}, at least {least}; '
                            f'{format_value(round_size((w, h), multiple, least))} fits'
                            + (f', or {smaller}' if smaller else ''))
    require_large_pictures(config, t.data, sizes)
    for name, (w, h) in ({'--size': size} if size else sizes).items():
        if t.crop and (t.crop[0] > w or t.crop[1] > h):
            raise UserError(f'--crop {format_value(t.crop)}: larger than {name} {w}x{h} ({t.data});'
                            ' take a smaller --crop or another --size')
    if t.batch > 1 and not (size or t.crop) and len(set(sizes.values())) > 1:
        raise UserError(f'--batch {t.batch}: sizes in {t.data} differ; add --crop or --size')
    if t.cache is not None and not size:
        raise UserError('--cache keeps pictures of one size: say which with --size')
    if t.vgg and config.out_channels != 3:
        raise UserError(f'--vgg: expected RGB, the pictures have {config.out_channels} channels')
    train.set_schedule(config, len(inspection.train_and_heldout(config, pairs)[0]))
    configuration.check_config(config)


def min_training_side(config):
    """Return the smallest width and height of a picture that can be trained on."""
    vgg = 16 if config.training and config.training.vgg else 1      # VGG-19 halves it four times
    return max(min_input_side(config), 1 << config.n_scales, vgg)


def require_large_pictures(config, root, sizes):
    """Raise UserError where a picture, {scene: (width, height)}, is too small for the networks."""
    least = min_training_side(config)
    small = {scene: size for scene, size in sizes.items() if min(size) < least}
    for scene, (w, h) in small.items():
        remedy = ('leave it out' if 2 * len(small) <= len(sizes) else smaller_networks(
            config, [min(map(min, small.values()))]) or 'take larger pictures')
        raise UserError(f'{root}: {scene} is a picture of {w}x{h}, expected at least '
                        f'{least}x{least}; {remedy}')


def smaller_networks(config, sides):
    """Return which flags ask for more than a picture with these sides, and what suits it; '' if
    nothing does. sides: width and height, or the smaller one of a picture of native size."""
    side = min(sides)
    c, bits, flags = config, side.bit_length() - 1, []          # side >= 1 << bits
    depth, least = bits - (c.model != 'unet'), 2 if c.model == 'unet' else 1
    if c.n_down + c.n_enhancers > depth:
        flags.append(('n_down', max(least, depth - c.n_enhancers)))
        if depth - c.n_enhancers < least and c.n_enhancers:
            flags.append(('n_enhancers', max(1, depth - least)))
    if c.features and c.encoder_scale << c.n_down_encoder + 1 > side:
        flags.append(('n_down_encoder', max(1, (side // 2 // c.encoder_scale).bit_length() - 1)))
    if 1 << c.n_scales > side:
        flags.append(('n_scales', max(1, bits)))
    smaller = SimpleNamespace(**{**vars(c), **dict(flags)})
    multiple = input_multiple(smaller) if len(sides) > 1 else 1     # native sizes are trimmed
    if not flags or side < min_training_side(smaller) or any(side % multiple for side in sides):
        return ''
    return 'lower ' + ' and '.join(f'{as_flag(name, getattr(c, name))} to {value}'
                                   for name, value in flags)


def round_size(size, multiple, least):
    """Return (width, height) rounded to multiples of `multiple` that are not below `least`."""
    return tuple(max(-(-least // multiple), round(side / multiple)) * multiple for side in size)


def default_size(config, sizes):
    """Return the most frequent of `sizes`, at most 1024 pixels wide, as the networks take it."""
    (frequent, _), = Counter(sizes).most_common(1)
    shrink = min(1, 1024 / frequent[0])
    return round_size([side * shrink for side in frequent], input_multiple(config),
                      min_training_side(config))
