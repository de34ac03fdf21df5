"""Find out before training what is in a data set and what is wrong with it."""
from collections import Counter
from contextlib import suppress
from pathlib import Path
import sys
from types import SimpleNamespace
import zlib

import numpy as np

from app.common.console import Progress, log_info, plural, warn
from app.common.errors import UserError
from app.datasets import decoding, findings, labels, layouts, recognition
from app.datasets.pairs import DECODER, IGNORED, PairReader

INSTANCES = {'files': 'instance maps', 'components': 'connected components as instances',
             'none': 'no instances'}
MOST_COLOURS = 256          # that check prints
FEW_PICTURES = 400          # up to here --from and --augment help, see docs/results.md


def check_same_view(path, other, other_size, header=None):
    """Raise UserError unless a file has the proportions of another, to a pixel and to 2 %."""
    (w, h), (other_w, other_h) = (header or decoding.read_header(path)).size, other_size
    difference = abs(w * other_h - h * other_w)
    if difference > min(max(w, h, other_w, other_h), 0.02 * max(w * other_h, h * other_w)):
        raise UserError(f'{path} is {w}x{h} and {other} is {other_w}x{other_h}: not the same view')


def check_headers(pair, config, label_header=None, inst_header=None):
    """Return the decoding.Headers of a pair's label map and photograph, if they fit together."""
    label = label_header or decoding.read_header(pair.label)
    image = decoding.read_header(pair.image)
    if config.n_labels != 0:
        decoding.check_lossy(label, pair.label, config.jpeg_labels)
    check_same_view(pair.label, pair.image, image.size, label)
    if config.instances == 'files' and pair.inst:
        inst = inst_header or decoding.read_header(pair.inst)
        decoding.check_lossy(inst, pair.inst, config.jpeg_labels or config.decoder == 1, True)
        check_same_view(pair.inst, pair.image, image.size, inst)
    return label, image


def keep_usable(function, pairs, problems, what='headers'):
    """Return {pair: function(pair)}, computed in threads, of the pairs for which it succeeds. The
    UserErrors of the others go into `problems`, {scene: message}."""
    def attempt(pair):
        try:
            return function(pair)
        except UserError as error:
            return str(error)

    results = dict(zip(pairs, decoding.map_in_threads(
        attempt, pairs, Progress(f'reading {what}', len(pairs)))))
    problems |= {pair.name: error for pair, error in results.items() if isinstance(error, str)}
    return {pair: result for pair, result in results.items() if pair.name not in problems}


def inspect_dataset(source, thorough=False):
    """Find out what training must know about a data set: read the headers of its files and, if
    nothing else tells the labels, the label maps; if thorough, decode everything. Warn of guesses.
    source: a namespace with the fields of config.DATA.
    Returns a namespace with the fields of config.NETWORK that depend on the data, and
        pairs: [layouts.Pair] that can be used. problems: {scene: message} of the others
        sizes: {scene: (width, height)}
        histogram, instances_per_picture: if thorough, the pixels of each label, and a list
        colours: if thorough, the colours [R, G, B] of label maps that the palette lacks"""
    layout, pairs, problems, headers = recognition.find_pairs_by_flags(source)
    instances = source.instances if source.instances != 'auto' else (
        'files' if pairs and pairs[0].inst else 'none')
    contents = SimpleNamespace(
        layout=layout.name, n_labels=layout.n_labels, label_table=None, palette=None,
        in_channels=3, out_channels=3, instances=instances,
        jpeg_labels=source.jpeg_labels or source.palette_nearest,
        palette_nearest=source.palette_nearest, decoder=DECODER, index_colours=None,
        inst_per_label=False, present=None, problems=problems)
    reader, reads_values = PairReader(contents), layout.n_labels is None and not source.palette
    looked_at = set() if layout.sparse else set(decoding.spread(pairs, findings.LOOKED_AT))
    borders, shared = [], []
    unknown = IGNORED if source.ignore_label is None else source.ignore_label

    def inspect_pair(pair):
        ids, header, inst_header = (), headers.get(pair), None
        if reads_values:
            label, header = reader.read_label(pair.label)
            ids = np.unique(label).tolist()
            if not layout.sparse:
                labels.check_range(pair.label, ids, source)
            if pair in looked_at:
                borders.append(findings.count_borders(label))
            if pair in looked_at and contents.instances == 'files':
                inst, inst_header = reader.decode_instances(pair.inst, label.shape[1::-1])
                shared.append(findings.count_shared_ids(label, inst, [unknown]))
        return ids, *check_headers(pair, contents, header, inst_header)

    facts = keep_usable(inspect_pair, pairs, problems)
    ids, maps, images = zip(*facts.values()) if facts else ((), (), ())
    contents.pairs = list(facts)
    contents.sizes = {pair.name: image.size for pair, (*_, image) in facts.items()}
    contents.out_channels = max((image.channels for image in images), default=3)
    if layout.n_labels == 0:
        contents.in_channels = max((header.channels for header in maps), default=3)
    elif (lossy := {header.lossy for header in maps} - {''}) and not source.palette_nearest:
        warn(f'warning: {source.data}: {" and ".join(sorted(lossy))} changes the values of labels; '
             'expect wrong edges')
    vars(contents).update(labels.find_labels(source, layout, set().union(*ids)))
    if thorough or source.skip_bad or not problems:         # else nothing comes of it but an error
        findings.add_findings(source, contents, facts, borders, shared)
    if thorough:
        count_pixels(contents)
        unusable = [pair for pair in pairs if pair.name in problems]
        contents.colours = findings.find_colours(
            unusable if reads_values or source.palette else [], contents.palette or [])
    return contents


def count_pixels(contents):
    """Decode all pairs of inspect_dataset's result and add the pixels of each label and the number
    of instances in each picture."""
    read, n = PairReader(contents), contents.n_labels

    def count(pair):
        for path in filter(None, pair[1:]):
            decoding.verify(path)
        arrays = read(pair)
        pixels = np.bincount(arrays['label'].ravel(), minlength=n) if n else 0
        return pixels, len(np.unique(arrays['inst'])) if 'inst' in arrays else 0

    counts = keep_usable(count, contents.pairs, contents.problems, 'pixels')
    contents.pairs = list(counts)
    contents.histogram = sum(pixels for pixels, _ in counts.values())
    contents.instances_per_picture = [instances for _, instances in counts.values()]


def require_usable(source, contents):
    """Raise UserError for a data set with problems; with --skip-bad only if no pair is left."""
    problems = list(contents.problems.values())
    if problems and not source.skip_bad or not contents.pairs:
        more = f' (and {len(problems) - 1} more; check lists them)' if problems[1:] else ''
        rest = '; --skip-bad trains on the rest' if contents.pairs else ''
        raise UserError(problems[0] + more + rest)
    for problem in problems:
        log_info(f'left out: {problem}')


def require_instance_maps(config, pairs, root, run):
    """Raise UserError if pairs of the data set in `root` lack instance maps that a run needs."""
    if config.instances == 'files' and pairs and not pairs[0].inst:
        raise UserError(f'{root}: has no instance maps, and {run} was trained with them')


def pairs_for_config(config, root, left_out, split='train'):
    """Return the name of a folder's layout, its pairs without the scenes `left_out`, and
    {scene: (width, height)}. Raises UserError if their headers do not suit the configuration."""
    layout, pairs, problems = layouts.find_pairs(root, split, config)
    pairs = [pair for pair in pairs if pair.name not in left_out]
    trained_on = config.training and getattr(config.training, 'pictures', None)
    if config.decoder == 1 and trained_on and list(trained_on) != fingerprint(pairs):
        with layouts.with_service_files():          # a run of before may have been trained on them
            _, more, more_problems = layouts.find_pairs(root, split, config)
        more = [pair for pair in more if pair.name not in left_out]
        if list(trained_on) == fingerprint(more):
            pairs, problems = more, more_problems
    if not pairs and not problems.keys() - set(left_out):
        raise UserError(f'{root}: no pictures of the split {split!r}')
    require_instance_maps(config, pairs, root, 'the run')
    headers = keep_usable(lambda pair: check_headers(pair, config), pairs, problems)
    for scene, problem in problems.items():
        if scene not in left_out:
            raise UserError(problem)
    return layout.name, list(headers), {
        pair.name: image.size for pair, (_, image) in headers.items()}


def pairs_of_run(config, folder):
    """Return the pairs that the run in `folder` was started with, and {scene: (width, height)}."""
    t = config.training
    if not Path(t.data).exists():
        raise UserError(f'{t.data}: no data set of {folder}; say with --data DIR where it is now')
    _, pairs, sizes = pairs_for_config(config, t.data, t.left_out, t.split)
    if list(t.pictures) != fingerprint(pairs):
        raise UserError(f'{t.data}: holds {len(pairs)} pictures, and {folder} was started with '
                        f'{t.pictures[0]}, or with others; put them back, or start another run')
    return pairs, sizes


def fingerprint(pairs):
    """Return [number, checksum of the names] of pairs."""
    names = '\n'.join(pair.name for pair in pairs)
    return [len(pairs), zlib.crc32(names.encode(errors='surrogateescape'))]


def hold_out(pairs, n):
    """Return pairs to train on and n held-out pairs, spread evenly over all."""
    if n >= len(pairs):
        raise UserError(f'--hold-out {n}: there are {len(pairs)} pictures; leave some to train on')
    held = {pairs[(2 * i + 1) * len(pairs) // (2 * n)] for i in range(n)}
    return [pair for pair in pairs if pair not in held], [pair for pair in pairs if pair in held]


def find_present_labels(dataset):
    """Return all labels in the maps of a data.PairedDataset that open_dataset opened."""
    def find(i):
        label = (dataset.decoded[i]['label'] if dataset.decoded
                 else dataset.read.read_label(dataset.items[i].label)[0])
        return np.unique(label).tolist()

    n = len(dataset)
    return sorted(set().union(*decoding.map_in_threads(
        find, range(n), Progress('reading labels', n))))


def train_and_heldout(config, pairs):
    """Return the pairs that a run is trained on and those that --hold-out keeps from it."""
    names = set(config.training.held) if config.training else ()
    held = [pair for pair in pairs if pair.name in names]
    return [pair for pair in pairs if pair.name not in names], held


def other_split_pairs(config, count, min_side):
    """Return at most `count` pairs of the split val or test, spread evenly, without photographs of
    the training split, files with unusable headers and pictures smaller than min_side."""
    t = config.training
    trained_on = {pair.image for pair in layouts.find_pairs(
        t.data, t.split, chosen=config.layout)[1]}
    for split in ('val', 'test'):
        with suppress(UserError):                   # there may be no such split
            _, pairs, problems = layouts.find_pairs(t.data, split, chosen=config.layout)
            pairs = [pair for pair in pairs if pair.image not in trained_on]
            if pairs and (config.instances != 'files' or pairs[0].inst):
                pairs = pairs if len(pairs) <= count else hold_out(pairs, count)[1]
                headers = keep_usable(lambda pair: check_headers(pair, config), pairs, problems)
                for problem in list(problems.values())[:3]:
                    warn(f'note: of the split {split}: {problem}')
                return [pair for pair, (_, image) in headers.items()
                        if config.size or min(image.size) >= min_side]
    return []


def summarise(contents, split):
    """Return a line like 'Cityscapes: 2975 pairs of the split train, 35 labels, instance maps'."""
    pairs, n = contents.pairs, contents.n_labels
    labels = f'{plural(n, "label") if n else "no labels"}, ' * bool(pairs)
    return (f'{contents.layout}: {plural(len(pairs), "pair")} of the split {split}, {labels}'
            f'{INSTANCES[contents.instances]}')


def print_palette(colours, first):
    """Print the colours [R, G, B] of label maps as lines of a palette, with ids from `first` on."""
    log_info(f'{plural(len(colours), "colour")} for a file for --palette, the most frequent first: '
             'copy these lines, change the ids as you like, and add names. Leave out what JPEG or '
             'blending made, and give --palette-nearest', sys.stdout)
    for i, (r, g, b) in enumerate(colours[:MOST_COLOURS], first):
        log_info(f'{r},{g},{b},{i}', sys.stdout)


def print_report(source, contents):
    n, n_problems = len(contents.pairs), len(contents.problems)
    log_info(summarise(contents, source.split))
    splits = layouts.find_splits(Path(source.data))
    log_info('splits: ' + ', '.join(f'{name} ({len(files["label"])})'
                                    for name, files in splits.items())
             + f'; only {source.split} was read; use --split for another' * (len(splits) > 1))
    sizes = Counter(f'{w}x{h}' for w, h in contents.sizes.values())
    if n:
        log_info('sizes: ' + ', '.join(f'{size} ({count})' for size, count in sizes.most_common(5))
                 + f' and {len(sizes) - 5} more' * (len(sizes) > 5))
    if contents.n_labels and n:
        names = contents.label_names or range(contents.n_labels)
        share = contents.histogram / contents.histogram.sum()
        log_info('labels: ' + ', '.join(f'{names[i]} {100 * share[i]:.3g}%'
                                        for i in (-share).argsort(kind='stable') if share[i]))
    if contents.instances != 'none' and n:
        counts = contents.instances_per_picture
        log_info(f'instances per picture: {min(counts)} to {max(counts)}, '
                 f'{sum(counts) / n:.1f} on average')
    if 0 < n <= FEW_PICTURES and source.split == 'train':
        log_info(f'{plural(n, "picture")}: with so few, begin with a trained run if you have one, '
                 'as train --from RUN --augment; see "few pictures" in docs/results.md')
    for problem in contents.problems.values():
        log_info(problem, sys.stdout)                       # -q does not silence it
    if contents.colours:
        print_palette(contents.colours, contents.n_labels if source.palette else 0)
    log_info(f'{plural(n_problems, "problem")}: {n} of {n + n_problems} scenes can be used'
             if n_problems else 'no problems')
