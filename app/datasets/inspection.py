"""What is in a data set and what is wrong with it: read before training, and printed by `check`."""
from collections import Counter
from pathlib import Path
import sys
from types import SimpleNamespace
import zlib

import numpy as np

from app.datasets import decoding
from app.common.console import Progress, log_info, warn
from app.common.errors import UserError
from app.datasets import layouts
from app.datasets import palettes
from app.datasets.pairs import pair_reader

UNKNOWN = 255           # the usual mark of pixels without a label
VOID_NAMES = ('void', 'unlabeled', 'unlabelled', 'unknown', 'ignored')
UNKNOWN_GAP = 32        # so many labels below it are absent where it is taken for that


# ------------------------------------------------------------------------------ of a single pair

def check_same_view(path, other, size):
    """The channels of `path`; UserError unless it has, to a pixel and to 2 %, the proportions of
    `other`, whose (width, height) is `size`."""
    w, h, channels = layouts.read_header(path)
    apart = abs(w * size[1] - h * size[0])
    if apart > min(max(*size, w, h), 0.02 * max(w * size[1], h * size[0])):
        raise UserError(f'{path} is {w}x{h} and {other} is {size[0]}x{size[1]}: they must show the '
                        'same section')
    return channels


def check_jpeg(path, jpeg_labels):
    """UserError if a label map went through JPEG and that is not allowed."""
    if not jpeg_labels and path.is_file() and decoding.is_jpeg(path):
        raise UserError(f'{path}: JPEG changes the values of labels; make PNG files of the '
                        'originals, or force it by training with --jpeg-labels')


def check_headers(pair, config):
    """What the headers of a pair's files tell -> (width, height), channels of the label map, of the
    photograph. UserError where they do not belong together. Of the configuration `instances`,
    `n_labels` and `jpeg_labels` count."""
    if config.n_labels != 0:
        check_jpeg(pair.label, config.jpeg_labels)
    *size, channels = layouts.read_header(pair.image)
    in_channels = check_same_view(pair.label, pair.image, size)
    if config.instances == 'files' and pair.inst:
        check_same_view(pair.inst, pair.image, size)
    return tuple(size), in_channels, channels


# -------------------------------------------------------------------------------- of a data set

class Checked:
    """Pairs that functions are called on: where one raises a UserError the pair leaves `pairs`, and
    `problems`, {scene: one line}, says why."""

    def __init__(self, pairs, problems, progress=None):
        self.pairs, self.problems = pairs, dict(problems)
        self.progress = progress            # progress(step, done, total) is called along the way

    def each(self, function, step):
        """[function(pair) of every pair that remains]"""
        def guarded(pair):
            try:
                return pair, function(pair), None
            except UserError as error:
                return pair, None, str(error)

        total, progress = len(self.pairs), self.progress
        done = decoding.map_in_threads(guarded, self.pairs, progress and (
            lambda n: progress(step, n, total)))
        self.problems |= {pair.name: error for pair, _, error in done if error}
        self.pairs = [pair for pair, _, error in done if not error]
        return [result for _, result, error in done if not error]


def inspect_dataset(source, thorough=False, progress=None):
    """All that has to be known of a data set before training: its layout, the headers of all files
    and, where only they can tell, the values of the label maps; with `thorough` the pixels of
    everything. UserError where none of it can be used.

    source: a namespace of the fields of config.DATA. progress(step, done, total) is called along
    the way.

    Returns a SimpleNamespace: those fields of config.NETWORK that depend on the data (layout,
    n_labels, label_names, label_table, palette, void, in_channels, out_channels, instances,
    jpeg_labels); pairs that can be used and `problems`, {scene: one line} for the rest; `unknown`,
    whether label 255 was taken for pixels without a label; `sizes`, {scene: (width, height)};
    `histogram` (n_labels,) and `instances_per_picture`, both None unless thorough.
    """
    root = Path(source.data)
    layout, pairs, problems = layouts.find_pairs(root, source.split)
    checked = Checked(pairs, problems, progress)
    instances = source.instances
    if instances == 'auto':
        instances = 'files' if pairs and pairs[0].inst else 'none'
    if instances == 'components' and layout.n_labels == 0:
        raise UserError(f'--instances components: {root} holds pictures, not label maps')

    known = SimpleNamespace(instances=instances, n_labels=layout.n_labels,
                            jpeg_labels=source.jpeg_labels)
    headers = checked.each(lambda pair: check_headers(pair, known), 'headers')
    sizes = {pair.name: size for pair, (size, _, _) in zip(checked.pairs, headers)}
    in_channels, out_channels = (max((header[i] for header in headers), default=3) for i in (1, 2))
    if layout.n_labels != 0:
        in_channels = 3                     # of no use, and the same whatever the files are

    labels = find_labels(source, layout, checked)
    found = SimpleNamespace(layout=layout.name, in_channels=in_channels, out_channels=out_channels,
                            instances=instances, jpeg_labels=source.jpeg_labels, sizes=sizes,
                            histogram=None, instances_per_picture=None, **labels)
    if thorough:
        read_through(found, checked)
    found.pairs, found.problems = checked.pairs, checked.problems
    return found


def find_labels(source, layout, checked):
    """What the labels of a data set are -> {n_labels, label_names, label_table, palette, void,
    unknown}. Reads the label maps where nothing else tells."""
    root, n_labels, ignored = Path(source.data), source.n_labels, source.ignore_label
    names = palette = table = None
    unknown = False
    if source.palette:
        if layout.n_labels == 0:
            raise UserError(f'--palette {source.palette}: {root} holds pictures, not label maps; '
                            'leave it out')
        palette = palettes.read_palette(source.palette)
        known = {row[3]: row[4] for row in palette}
        own = 1 + max(known)
        if n_labels and n_labels < own:
            raise UserError(f'--n-labels {n_labels}: {source.palette} has the label {own - 1}')
        n_labels = n_labels or own
        names = [known.get(i, str(i)) for i in range(n_labels)]
    elif n_labels in layout.tables:
        table, n_labels = layout.tables[n_labels](root), n_labels + 1
    elif layout.n_labels is not None:
        if n_labels not in (None, layout.n_labels):
            also = ''.join(f' or {n}' for n in layout.tables)
            raise UserError(f'--n-labels {n_labels}: {layout.name} has '
                            f'{layout.n_labels or "no"}{also}; leave it out')
        n_labels, names = layout.n_labels, layout.names(root)
    else:
        read = layouts.readers(layout.name)
        if layout.sparse and n_labels:
            raise UserError(f'--n-labels {n_labels}: {layout.name} has as many labels as occur; '
                            'leave it out')

        def labels_of(pair):
            ids = read.label(pair.label, None)
            if not layout.sparse:
                check_ids(ids, pair.label)
            return set(np.unique(ids).tolist())

        seen = set().union(*checked.each(labels_of, 'labels'))
        below = max(seen - {UNKNOWN}, default=0)
        unknown = (ignored is None and UNKNOWN in seen and below < UNKNOWN - UNKNOWN_GAP
                   and (n_labels or 0) <= UNKNOWN and not layout.sparse)
        ignored = UNKNOWN if unknown else ignored
        if layout.sparse:
            table = {label: i for i, label in enumerate(sorted(seen - {ignored}))}
            n_labels = len(table)
        else:
            n_labels = n_labels or 1 + max(seen - {ignored}, default=0)
    void = [table[i] if table else i for i in layout.void if not table or i in table]
    void += [row[3] for row in palette or [] if row[4].lower() in VOID_NAMES]
    if isinstance(ignored, int):
        if n_labels == 0:
            raise UserError(f'--ignore-label {ignored}: {root} holds pictures, not label maps')
        if palette:
            raise UserError(f'--ignore-label {ignored}: has no effect beside --palette, which says '
                            'what every colour means; leave it out')
        table = {**(table or {i: i for i in range(n_labels)}), ignored: n_labels}
        n_labels, names, void = n_labels + 1, names and [*names, 'ignored'], [*void, n_labels]
    return {'n_labels': n_labels, 'label_names': names, 'label_table': table, 'palette': palette,
            'void': sorted(set(void)), 'unknown': unknown}


MOST_LABELS = 4096      # a label map with higher ones is taken for an instance map


def check_ids(ids, path):
    """UserError unless the values of a map can be labels."""
    low, high = int(ids.min()), int(ids.max())
    if not 0 <= low <= high < MOST_LABELS:
        raise UserError(f'{path}: values from {low} to {high}; labels are numbers from 0 to '
                        f'{MOST_LABELS - 1} (is this an instance map?)')


def read_through(found, checked):
    """Decode everything: `found.histogram` and `found.instances_per_picture`."""
    read = pair_reader(found)

    def decode(pair):
        arrays = read(pair)
        counts = None
        if found.n_labels:
            counts = np.bincount(arrays['label'].ravel(), minlength=found.n_labels)
        return counts, len(np.unique(arrays['inst'])) if 'inst' in arrays else 0

    decoded = checked.each(decode, 'pixels')
    found.histogram = sum(counts for counts, _ in decoded) if found.n_labels else None
    found.instances_per_picture = [instances for _, instances in decoded]


def pairs_for_config(config, root, left_out, split='train'):
    """The pairs in the folder `root` that fit a run's configuration, less the scenes `left_out` ->
    layout's name, [Pair], {scene: (width, height)}. UserError if they are not all there, or by
    their headers of no use."""
    layout, pairs, problems = layouts.find_pairs(root, split)
    for name, problem in problems.items():
        if name not in left_out:
            raise UserError(problem)
    pairs = [pair for pair in pairs if pair.name not in left_out]
    if not pairs:
        raise UserError(f'{root}: no pictures of the split {split!r}')
    if (layout.n_labels == 0) != (config.n_labels == 0):
        raise UserError(f'{root}: {layout.name}, and the run was trained on {config.layout}')
    if config.instances == 'files' and not pairs[0].inst:
        raise UserError(f'{root}: has no instance maps, and the run was trained with them')
    headers = decoding.map_in_threads(lambda pair: check_headers(pair, config), pairs,
                                   Progress('reading headers', len(pairs)))
    return layout.name, pairs, {pair.name: size for pair, (size, _, _) in zip(pairs, headers)}


def pairs_of_run(config, folder):
    """The pairs that the run in `folder` was started with -> [Pair], {scene: (width, height)}.
    UserError where they are not there, or others are."""
    t = config.training
    if not Path(t.data).exists():
        raise UserError(f'{t.data}: the data set of {folder} is not there; say with --data DIR '
                        'where it is now')
    _, pairs, sizes = pairs_for_config(config, t.data, t.left_out, t.split)
    if list(t.pictures) != fingerprint(pairs):
        raise UserError(f'{t.data}: holds {len(pairs)} pictures, and {folder} was started with '
                        f'{t.pictures[0]}, or with others; put back what was there, or start '
                        'another run')
    return pairs, sizes


def hold_out(pairs, n):
    """n pairs out of all, spread evenly -> those to train on, those to look at. UserError where
    none would be left."""
    if n >= len(pairs):
        raise UserError(f'--hold-out {n}: there are {len(pairs)} pictures; leave some to train on')
    held = {(2 * i + 1) * len(pairs) // (2 * n) for i in range(n)}
    return ([pair for i, pair in enumerate(pairs) if i not in held],
            [pair for i, pair in enumerate(pairs) if i in held])


def train_and_heldout(config, pairs):
    """Of pairs those that a run may be trained on, and those that --hold-out has left out."""
    held = set(config.training.held) if config.training else ()
    return ([pair for pair in pairs if pair.name not in held],
            [pair for pair in pairs if pair.name in held])


def other_split_pairs(config, most, least):
    """At most so many pairs of another split, spread evenly, whose photographs are not of that
    trained on; whatever is too small (least: width and height) or cannot be used by its headers is
    left out."""
    t = config.training
    seen = {pair.image for pair in layouts.find_pairs(t.data, t.split)[1]}
    for split in ('val', 'test'):
        try:
            _, pairs, _ = layouts.find_pairs(t.data, split)
        except UserError:
            continue
        pairs = [pair for pair in pairs if pair.image not in seen]
        if not pairs or config.instances == 'files' and not pairs[0].inst:
            continue
        pairs = pairs if len(pairs) <= most else hold_out(pairs, most)[1]
        checked = Checked(pairs, {})
        headers = checked.each(lambda pair: check_headers(pair, config), 'headers')
        return [pair for pair, (size, _, _) in zip(checked.pairs, headers)
                if config.size or min(size) >= least]
    return []


def recheck_skipped(config, root, left_out, split='train'):
    """Those of the scenes `left_out` that cannot be used today either."""
    layout, pairs, problems = layouts.find_pairs(root, split)
    checked = Checked([pair for pair in pairs if pair.name in left_out], {})
    checked.each(lambda pair: check_headers(pair, config), 'headers')
    checked.each(pair_reader(config), 'pixels')
    return sorted({name for name in left_out if name in problems} | checked.problems.keys())


def fingerprint(pairs):
    """[number, checksum of the names] of the pictures of a data set."""
    names = '\n'.join(str(pair.name) for pair in pairs)
    return [len(pairs), zlib.crc32(names.encode(errors='surrogateescape'))]


def require_usable(source, found):
    """Raise UserError where pictures have problems, unless --skip-bad leaves them out; then name
    them."""
    if found.problems and not source.skip_bad or not found.pairs:
        others = len(found.problems) - 1
        raise UserError(next(iter(found.problems.values()))
                        + (f' (and {others} more like it; check lists them)' if others else '')
                        + ('; --skip-bad trains on the rest' if found.pairs else ''))
    for problem in found.problems.values():
        log_info(f'left out: {problem}')


# -------------------------------------------------------------------------------------- in words

def warn_about_assumptions(source, found):
    """Say what a survey took upon itself."""
    if found.n_labels and source.jpeg_labels and any(
            decoding.is_jpeg(pair.label) for pair in found.pairs if pair.label.is_file()):
        warn(f'warning: {source.data}: JPEG changes the values of labels; expect wrong ones along '
             'all edges')
    if found.unknown:
        warn(f'note: {source.data}: label {UNKNOWN} is taken as unknown, a label of its own after '
             f'the other {found.n_labels - 1}; --ignore-label none reads it as the label {UNKNOWN}')


def summarise(found, which):
    """'Cityscapes: 2975 training pairs, 35 labels, instance maps'"""
    instances = {'files': 'instance maps', 'components': 'connected components as instances',
                 'none': 'no instances'}
    return (f'{found.layout}: {len(found.pairs)} {which} pairs, {found.n_labels or "no"} labels, '
            f'{instances[found.instances]}')


def print_report(source, found):
    """Print what a thorough survey found."""
    log_info(summarise(found, source.split))
    log_info('splits: ' + ', '.join(f'{split} ({n})' for split, n in
                               layouts.splits(Path(source.data)).items()))
    sizes = Counter(found.sizes.values())
    log_info('sizes: ' + ', '.join(f'{w}x{h} ({n})' for (w, h), n in sizes.most_common(5))
        + (f' and {len(sizes) - 5} more' if len(sizes) > 5 else ''))
    if found.n_labels and found.pairs:
        names = found.label_names or [str(i) for i in range(found.n_labels)]
        share = found.histogram / found.histogram.sum()
        log_info('labels: ' + ', '.join(f'{names[i]} {100 * share[i]:.3g}%'
                                   for i in (-share).argsort(kind='stable') if share[i]))
    if found.instances != 'none' and found.pairs:
        counts = found.instances_per_picture
        log_info(f'instances per picture: {min(counts)} to {max(counts)}, '
            f'{sum(counts) / len(counts):.1f} on average')
    for problem in found.problems.values():
        log_info(problem, sys.stdout)                            # with -q, too
    log_info(f'{len(found.problems) or "no"} problem{"s" * (len(found.problems) != 1)}')


def progress_reporter():
    """A progress function that shows each step's, see console.Progress."""
    steps = {}

    def progress(step, done, total):
        steps.setdefault(step, Progress(f'reading {step}', total))(done)
    return progress
