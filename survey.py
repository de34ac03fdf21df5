"""What is in a data set and what is wrong with it."""
from collections import Counter
from pathlib import Path
import sys
import time
from types import SimpleNamespace
import zlib

import numpy as np

import data
from files import UserError, say
import layouts


MOST_LABELS = 4096                                           # a label map with more is taken for an instance map


def is_jpeg(path):
    return Path(path).suffix.lower() in ('.jpg', '.jpeg')


def check_jpeg(path, c):
    """UserError if a label map is a JPEG file and `c` does not allow that."""
    if is_jpeg(path) and c.n_labels != 0 and not c.jpeg_labels:
        raise UserError(f'{path}: JPEG changes the values of labels; make PNG files of the originals, or force it by '
                        'training with --jpeg-labels')


def check_section(path, other, size):
    """The channels of `path`; UserError unless it has, to a pixel, the proportions of `other`, whose (width, height) is
    `size`."""
    w, h, channels = layouts.header(path)
    if abs(w * size[1] - h * size[0]) > max(*size, w, h):
        raise UserError(f'{path} is {w}x{h} and {other} is {size[0]}x{size[1]}: they must show the same section')
    return channels


def check_headers(pair, c):
    """What the headers of a pair's files tell -> (width, height), channels of the label map, of the photograph.
    UserError where they do not belong together."""
    check_jpeg(pair.label, c)
    *size, channels = layouts.header(pair.image)
    in_channels = check_section(pair.label, pair.image, size)
    if c.instances == 'files' and pair.inst:
        check_section(pair.inst, pair.image, size)
    return tuple(size), in_channels, channels


def known_pairs(c):
    """The pairs that a run of configuration `c` is trained on -> pairs, [(width, height) of each]. UserError if they
    are not all there, or by their headers of no use. Notes the layout in `c`."""
    source = layouts.find_pairs(c.data, c.split)
    c.layout = source.layout
    for name, problem in source.problems.items():
        if name not in c.left_out:
            raise UserError(problem)
    pairs = [pair for pair in source.pairs if pair.name not in c.left_out]
    if not pairs:
        raise UserError(f'{c.data}: no pictures of the split {c.split!r}')
    if c.instances == 'files' and not pairs[0].inst:
        raise UserError(f'{c.data}: has no instance maps, and the run was trained with them')
    return pairs, [size for size, _, _ in data.in_parallel(lambda pair: check_headers(pair, c), pairs)]


def examine(root, split='train', palette=None, ignore_label=None, forty=False, jpeg_labels=False, instances='auto',
           n_labels=None, thorough=False, progress=None):
    """All that has to be known of a data set before training: what `find_pairs` finds, the headers of all files and,
    where only they can tell, the values of the label maps; with `thorough` the pixels of everything.

    palette: file of read_palette. ignore_label: this id gets a channel of its own, the last. forty: NYU's 40 labels.
    jpeg_labels: accept label maps that JPEG has changed. instances: as --instances. n_labels: where only the maps could
    tell it. progress(step, done, total) is called along the way.

    Returns a SimpleNamespace: the fields of Source, where `problems` has every file that cannot be used and `pairs` is
    the rest; the fields of a run's configuration that `readers` needs; `instances`, 'files', 'components' or 'none';
    `unknown`, whether 255 looks like a mark of unlabelled pixels; `sizes`, a Counter of (width, height);
    `histogram` (n_labels,) and `instances_per_picture`, both None unless thorough.
    """
    source = layouts.find_pairs(root, split)
    c = SimpleNamespace(**source._asdict(), sizes=Counter(), palette=layouts.read_palette(palette) if palette else None,
                        label_table=None, in_channels=3, out_channels=3, unknown=False, histogram=None,
                        instances_per_picture=None, jpeg_labels=jpeg_labels)
    c.problems = dict(c.problems)
    if instances == 'auto':
        c.instances = 'files' if c.pairs and c.pairs[0].inst else 'none'
    else:
        c.instances = instances

    def each(function, step):
        """function(pair) of every pair; where it raises a UserError the pair becomes a problem."""
        def guarded(pair):
            try:
                return pair, function(pair), None
            except UserError as error:
                return pair, None, str(error)
        done = data.in_parallel(guarded, c.pairs, progress and (lambda n: progress(step, n, len(c.pairs))))
        c.problems |= {pair.name: error for pair, _, error in done if error}
        c.pairs = [pair for pair, _, error in done if not error]
        return [result for _, result, error in done if not error]

    headers = each(lambda pair: check_headers(pair, c), 'headers')
    c.sizes = Counter(size for size, _, _ in headers)
    if headers:
        c.in_channels, c.out_channels = (max(header[i] for header in headers) for i in (1, 2))

    if c.palette:
        c.n_labels = 1 + max(row[3] for row in c.palette)
        names = {row[3]: row[4] for row in c.palette}
        c.label_names = [names.get(i, str(i)) for i in range(c.n_labels)]
    elif forty:
        c.label_table, c.n_labels = layouts.forty_labels(Path(root)), 41
    elif c.n_labels is None:
        c.n_labels = -1                                      # not yet known; `readers` asks whether it is 0
        read = layouts.readers(c).label


        def labels_of(pair):
            labels = set(np.unique(read(pair.label, None)).tolist()) - {ignore_label}
            if c.layout != 'ADE20K full' and labels and not 0 <= min(labels) <= max(labels) < MOST_LABELS:
                raise UserError(f'{pair.label}: values from {min(labels)} to {max(labels)}; labels are numbers '
                                f'from 0 to {MOST_LABELS - 1} (is this an instance map?)')
            return labels

        seen = set().union(*each(labels_of, 'labels'))
        if c.layout == 'ADE20K full':
            c.label_table = {label: i for i, label in enumerate(sorted(seen))}
            c.n_labels = len(seen)
        else:
            c.n_labels = n_labels or 1 + max(seen, default=0)
            c.unknown = 255 in seen and 254 not in seen      # a common mark of pixels without a label
    if ignore_label is not None and c.n_labels:
        c.label_table = {**(c.label_table or {i: i for i in range(c.n_labels)}), ignore_label: c.n_labels}
        c.n_labels += 1
        c.label_names = c.label_names and [*c.label_names, 'ignored']

    if thorough:
        dataset = data.Pictures([], layouts.readers(c), c.n_labels, None, instances=c.instances)

        def decode(pair):
            arrays = dataset.read(pair)
            counts = np.bincount(arrays['label'].ravel(), minlength=c.n_labels) if c.n_labels else None
            return counts, len(np.unique(arrays['inst'])) if 'inst' in arrays else 0

        decoded = each(decode, 'pixels')
        c.histogram = sum(counts for counts, _ in decoded) if c.n_labels else None
        c.instances_per_picture = [instances for _, instances in decoded]
    return c


def fingerprint(pairs):
    """[number, checksum of the names] of the pictures of a data set."""
    return [len(pairs), zlib.crc32('\n'.join(str(pair.name) for pair in pairs).encode(errors='surrogateescape'))]


def survey(args, **kwargs):
    """examine, of what the command line names."""
    if not args.data:
        raise UserError(f'{args.command} needs --data DIR, the folder of the data set')
    found = examine(args.data, args.split, args.palette, args.ignore_label, args.labels == 40, args.jpeg_labels,
                           args.instances, args.n_labels, **kwargs)
    if found.n_labels and any(is_jpeg(pair.label) for pair in found.pairs):
        say(f'warning: {args.data}: JPEG changes the values of labels; expect wrong ones along all edges',
              file=sys.stderr)
    if found.unknown:
        say(f'note: {args.data}: if label 255 means unknown, --ignore-label 255 --n-labels N saves the channels '
              'up to it', file=sys.stderr)
    return found


def in_words(found, which):
    """'Cityscapes: 2975 training pairs, 35 labels, instance maps'"""
    instances = {'files': 'instance maps', 'components': 'connected components as instances', 'none': 'no instances'}
    return (f'{found.layout}: {len(found.pairs)} {which} pairs, {found.n_labels or "no"} labels, '
            f'{instances[found.instances]}')


def check(args):
    last = time.monotonic()

    def progress(step, done, total):
        nonlocal last
        if done == total or time.monotonic() - last > 2:
            say(f'{step}: {done} of {total}', file=sys.stderr)
            last = time.monotonic()

    found = survey(args, thorough=True, progress=progress)
    say(in_words(found, args.split))
    say('splits: ' + ', '.join(f'{split} ({n})' for split, n in layouts.splits(Path(args.data)).items()))
    say('sizes: ' + ', '.join(f'{w}x{h} ({n})' for (w, h), n in found.sizes.most_common(5))
          + (f' and {len(found.sizes) - 5} more' if len(found.sizes) > 5 else ''))
    if found.n_labels and found.pairs:
        names = found.label_names or [str(i) for i in range(found.n_labels)]
        share = found.histogram / found.histogram.sum()
        say('labels: ' + ', '.join(f'{names[i]} {100 * share[i]:.2g}%' for i in (-share).argsort(kind='stable')
                                     if share[i]))
    if found.instances != 'none' and found.pairs:
        counts = found.instances_per_picture
        say(f'instances per picture: {min(counts)} to {max(counts)}, {sum(counts) / len(counts):.1f} on average')
    for problem in found.problems.values():
        say(problem)
    say(f'{len(found.problems) or "no"} problem{"s" * (len(found.problems) != 1)}')
    return 2 if found.problems else 0
