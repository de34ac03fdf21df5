"""Find out before training what is in a data set and what is wrong with it."""
from collections import Counter
from contextlib import suppress
import csv
from functools import partial
from pathlib import Path
import sys
from types import SimpleNamespace
import zlib

import numpy as np

from app.common.config import COLOURS
from app.common.console import Progress, log_info, plural, warn
from app.common.errors import UserError
from app.common.files import read_text
from app.datasets import decoding, findings, layouts
from app.datasets.pairs import DECODER, IGNORED, PairReader

IGNORED_GAP = 32        # 255 is taken for that mark if so many labels below it do not occur
SAMPLED_MAPS = 4        # label maps that tell whether the labels are those of a data set
MAX_LABELS = 4096       # a label map with higher ids is taken for an instance map
INSTANCES = {'files': 'instance maps', 'components': 'connected components as instances',
             'none': 'no instances'}
VOID_NAMES = ('void', 'unlabeled', 'unlabelled', 'unknown', 'ignored')


def check_same_view(path, other, other_size, header=None):
    """Raise UserError unless a file has the proportions of another, to a pixel or to 2 %."""
    (w, h), (other_w, other_h) = (header or decoding.read_header(path)).size, other_size
    difference = abs(w * other_h - h * other_w)
    if difference > min(max(w, h, other_w, other_h), 0.02 * max(w * other_h, h * other_w)):
        raise UserError(f'{path} is {w}x{h} and {other} is {other_w}x{other_h}: not the same view')


def check_headers(pair, config, label_header=None, inst_header=None):
    """Return the decoding.Headers of a pair's label map and photograph, if they fit together."""
    label = label_header or decoding.read_header(pair.label)
    image = decoding.read_header(pair.image)
    if config.n_labels != 0:
        decoding.check_jpeg(label, pair.label, config.jpeg_labels)
    check_same_view(pair.label, pair.image, image.size, label)
    if config.instances == 'files' and pair.inst:
        check_same_view(pair.inst, pair.image, image.size, inst_header)
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


def check_range(path, ids, source):
    """Raise UserError if the ids of a map, ascending, are none of labels. Flags come before
    guesses. source: see inspect_dataset."""
    unknown = source.ignore_label
    ids = [i for i in ids if i != unknown] or [0]
    if ids[0] < 0:
        raise UserError(f'{path}: values from {ids[0]} to {ids[-1]}; labels are numbers from 0 up. '
                        f'Fix the map: write {IGNORED} for unknown pixels')
    if ids[-1] >= max(MAX_LABELS, source.n_labels or 0):
        ways = [f'--n-labels {ids[-1] + 1} takes these as labels'] * (ids[-1] < 1 << 16) + [
            f'--ignore-label {ids[-1]} takes that one as unknown'] * (
                unknown is None and ids[-1] < 1 << 16 and ids[-2:][0] < MAX_LABELS)
        raise UserError(f'{path}: values from {ids[0]} to {ids[-1]}; labels are numbers from 0 to '
                        f'{MAX_LABELS - 1} (is this an instance map?)'
                        + ''.join(f'; {way}' for way in ways))


def layout_by_flag(source):
    """Return the name of the Layout that --layout chooses, or None. Raises UserError if the files
    are not there."""
    root, flag = Path(source.data), source.layout
    if flag == 'auto':
        return None
    side = flag.removeprefix('map-') if flag.startswith('map-') else None
    if flag == 'side-by-side':
        side = layouts.side_of_maps(root, source.split, certain=True) or 'left'
    name = layouts.SIDE_BY_SIDE[side] if side else layouts.OWN
    if not (layouts.LAYOUTS['flat'] if not side else layouts.LAYOUTS[name]).find(
            root, source.split) and not layouts.LAYOUTS[name].find(root, source.split):
        raise UserError(f'--layout {flag}: {root} has no such pictures of the split '
                        f'{source.split!r}; expected '
                        + (f'{source.split}/*' if side else f'{source.split}_label/ and the like'))
    return name


def warn_of_nearest(source, contents, reader):
    """Say in what share of the pixels --palette-nearest has replaced a colour, in a few maps."""
    off, pairs = [], contents.pairs[::-(-len(contents.pairs) // 8) or 1]
    codes = [row[:3] for row in contents.palette]
    for pair in pairs:
        with suppress(UserError):                   # it is reported later
            colours, _ = reader.layout.decode_map(pair.label, colours=True)
            exact = (colours[..., None, :] == codes).all(-1).any(-1)
            off.append(1 - exact.mean())
    if off:
        warn(f'note: {source.data}: {100 * np.mean(off):.3g} % of the pixels in '
             f'{plural(len(off), "map")} have colours beside those of {source.palette}, and take '
             'the label of the nearest')


def flag_for_own_labels(source, layout):
    """Return the flag by which the labels in the folders of a data set are a user's own, or None.
    source: see inspect_dataset."""
    if layout.may_be_own and source.palette and not layout.inst_of_colours:
        return f'--palette {source.palette}'
    n = source.n_labels
    if layout.may_be_own and n not in (None, layout.n_labels, *layout.tables):
        return f'--n-labels {n}'
    return None


def sample_labels(layout, pairs):
    """Look whether the label maps of a few pairs hold labels of a data set. Return a label that it
    lacks if most of these maps hold such, else None; and {pair: decoding.Header}."""
    found, headers = [], {}
    for pair in pairs[::-(-len(pairs) // SAMPLED_MAPS)] if (
            layout.may_be_own and layout.n_labels and pairs) else ():
        with suppress(UserError):                   # it is reported later
            ids, headers[pair] = layout.decode_map(pair.label)
            found += [int(ids.max())]
    beyond = [label for label in found if label >= layout.n_labels]
    return (max(beyond) if 2 * len(beyond) > len(found) else None), headers


def find_pairs_by_flags(source):
    """Return the Layout of a data set, its pairs and problems, see layouts.find_pairs, and
    {pair: decoding.Header} of the label maps that were read. source: see inspect_dataset."""
    chosen = layout_by_flag(source)
    layout, pairs, problems = layouts.find_pairs(source.data, source.split, chosen=chosen)
    flag = flag_for_own_labels(source, layout)
    beyond, samples = (None, {}) if flag else sample_labels(layout, pairs)
    if layout.name in layouts.SIDE_BY_SIDE.values():
        if not chosen or source.layout == 'side-by-side':
            warn(f'note: {source.data}: pairs in one picture; the {pairs[0].label.name} half is '
                 f'taken for the map, --layout map-{pairs[0].image.name} takes the other one')
        layout = layout._replace(n_labels=None) if flag else layout
    elif flag or beyond is not None:
        warn(f'note: {source.data}: '
             + (flag or f'label maps with the label {beyond}, which {layout.name} lacks')
             + f': these labels are taken for your own, not for those of {layout.name}')
        layout, pairs, problems = layouts.find_pairs(source.data, source.split, chosen=layouts.OWN)
    return layout, pairs, problems, samples


def inspect_dataset(source, thorough=False):
    """Find out what training must know about a data set: read the headers of its files and, if
    nothing else tells the labels, the label maps; if thorough, decode everything. Warn of guesses.
    source: a namespace with the fields of config.DATA.
    Returns a namespace with the fields of config.NETWORK that depend on the data, and
        pairs: [layouts.Pair] that can be used. problems: {scene: message} of the others
        sizes: {scene: (width, height)}
        histogram, instances_per_picture: if thorough, the pixels of each label, and a list"""
    layout, pairs, problems, samples = find_pairs_by_flags(source)
    instances = source.instances if source.instances != 'auto' else (
        'files' if pairs and pairs[0].inst else 'none')
    contents = SimpleNamespace(
        layout=layout.name, n_labels=layout.n_labels, label_table=None, palette=None,
        in_channels=3, out_channels=3, instances=instances,
        jpeg_labels=source.jpeg_labels or source.palette_nearest,
        palette_nearest=source.palette_nearest, decoder=DECODER, index_colours=None,
        inst_per_label=False, present=None, problems=problems)
    reader, reads_values = PairReader(contents), layout.n_labels is None and not source.palette

    borders, shared, sample = {}, {}, set(findings.spread(pairs))
    unknown = IGNORED if source.ignore_label is None else source.ignore_label

    def inspect_pair(pair):
        ids, header, inst_header = (), None, None
        if reads_values:
            label, header = reader.read_label(pair.label)
            ids = np.unique(label).tolist()
            if not layout.sparse:
                check_range(pair.label, ids, source)
            if pair in sample and not layout.sparse:
                borders[pair] = findings.count_borders(label)
                if contents.instances == 'files':
                    inst, inst_header = decoding.decode_map(pair.inst, label.shape[1::-1],
                                                            colours_are_ids=True)
                    shared[pair] = findings.count_shared_ids(label, inst, [unknown])
        return ids, *check_headers(pair, contents, header or samples.get(pair), inst_header)

    facts = keep_usable(inspect_pair, pairs, problems)
    ids, labels, images = zip(*facts.values()) if facts else ((), (), ())
    contents.pairs = list(facts)
    contents.sizes = {pair.name: image.size for pair, (*_, image) in facts.items()}
    contents.out_channels = max((image.channels for image in images), default=3)
    if layout.n_labels == 0:
        contents.in_channels = max((label.channels for label in labels), default=3)
    elif any(label.is_jpeg for label in labels) and not source.palette_nearest:
        warn(f'warning: {source.data}: JPEG changes the values of labels; expect wrong edges')
    vars(contents).update(find_labels(source, layout, set().union(*ids)))
    if source.palette_nearest:
        warn_of_nearest(source, contents, reader)
    if thorough or not problems:                    # else nothing comes of it but an error
        find_findings(source, contents, facts, list(borders.values()), list(shared.values()))
    if thorough:
        read, n = PairReader(contents), contents.n_labels

        def count(pair):
            arrays = read(pair)
            pixels = np.bincount(arrays['label'].ravel(), minlength=n) if n else 0
            return pixels, len(np.unique(arrays['inst'])) if 'inst' in arrays else 0

        counts = keep_usable(count, contents.pairs, problems, 'pixels')
        contents.pairs = list(counts)
        contents.histogram = sum(pixels for pixels, _ in counts.values())
        contents.instances_per_picture = [instances for _, instances in counts.values()]
    return contents


def find_findings(source, contents, facts, borders, shared):
    """Add to the result of inspect_dataset what findings.py finds. facts: {pair: (the ids of its
    label map, its Header, that of the photograph)}. borders, shared: what its functions count."""
    root, pictures = source.data, contents.n_labels == 0
    for field, what, role, is_read in (
            ('condition_max', 'the pictures in place of label maps', 'label', pictures),
            ('image_max', 'photographs', 'image', True)):
        headers = {getattr(pair, role): fact[1 if role == 'label' else 2]
                   for pair, fact in facts.items() if is_read}
        deep = [path for path, header in headers.items() if header.is_deep]
        white = findings.find_ranges(root, deep, what)
        setattr(contents, field, white)
        alpha = findings.spread([path for path, header in headers.items() if header.has_alpha])
        findings.compute(partial(decoding.read_photo, white=white), alpha, 'transparency')
    reader = PairReader(contents)
    if pictures:
        findings.look_at_conditions(root, [pair.label for pair in facts],
                                    lambda path: reader.read_label(path)[0])
        return
    contents.index_colours = findings.compare_tables(root, [
        (pair.label, ids, header.table) for pair, (ids, header, _) in facts.items()
        if header.table and not header.is_saved_map])
    findings.look_for_smoothed_maps(root, borders)
    if source.palette and contents.instances == 'files' and contents.layout == 'flat':
        def count(pair):
            label, _ = reader.read_label(pair.label)
            return findings.count_shared_ids(
                label, reader.read_instances(pair.inst, label.shape[1::-1]), contents.void)
        shared = findings.compute(count, findings.spread(list(facts)), 'instances')
    contents.inst_per_label = findings.ids_restart(root, shared)


def read_palette(path):
    """Return the rows [R, G, B, label, name] of lines R,G,B,id[,name]; # begins a comment."""
    rows, labels = [], {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        try:
            *values, name = [*line.split(',', 4), ''][:5]
            r, g, b, label = map(int, values)
            rows.append([r, g, b, label, name.strip() or str(label)])
            if not COLOURS.is_valid(rows[-1:]):
                raise ValueError
        except ValueError:
            raise UserError(f'{path}, line {number}: expected R,G,B,id[,name], got '
                            f'{line[:80]!r}') from None
        if label != (above := labels.setdefault((r, g, b), label)):
            raise UserError(f'{path}, line {number}: {r},{g},{b} is {label}, but {above} above')
    if not rows:
        raise UserError(f'{path}: no colours in it; expected lines R,G,B,id[,name]')
    return rows


LISTED = 'id', 'name', 'r', 'g', 'b', 'void'      # the columns of labels.csv


def read_label_list(path):
    """Read a labels.csv, which has the column id and perhaps name; r, g and b; void (1: scores
    leave it out). Returns {label: name}, rows [R, G, B, label, name] and the void labels, all empty
    without the file."""
    names, colours, void = {}, [], []
    if not path.exists():
        return names, colours, void
    text = read_text(path)
    lines = csv.reader(text.splitlines(), delimiter=';' if ';' in text.partition('\n')[0] else ',',
                       skipinitialspace=True)
    header = [column.strip().lower() for column in next(lines, [])]
    if 'id' not in header or not set(header) <= set(LISTED) or len({*'rgb'} & {*header}) in (1, 2):
        raise UserError(f'{path}, line 1: expected the columns {",".join(LISTED)}, or some of them '
                        f'with id; got {",".join(header)[:80]!r}')
    for number, texts in enumerate(lines, 2):
        row = dict(zip(header, map(str.strip, texts)))
        if not any(row.values()):
            continue
        try:
            label, *rgb = (int(row[column]) for column in ('id', *'rgb') if row.get(column))
            name, is_void = row.get('name') or str(label), row.get('void')
            if not (len(texts) == len(header) and 0 <= label < MAX_LABELS and is_void in (
                    None, '', '0', '1') and (not rgb or COLOURS.is_valid([[*rgb, label, name]]))):
                raise ValueError
        except ValueError:
            raise UserError(f'{path}, line {number}: expected {",".join(header)}, ids below '
                            f'{MAX_LABELS}, colours up to 255, void 0 or 1; got '
                            f'{",".join(texts)[:80]!r}') from None
        if label in names or name in names.values():
            raise UserError(f'{path}, line {number}: {label} or {name!r} is on a line above, too')
        names[label] = name
        colours += [[*rgb, label, name]] if rgb else []
        if is_void == '1' or is_void is None and name.lower() in VOID_NAMES:
            void.append(label)
    return names, colours, void


def holds_two_values(ids, listed):
    """Return whether maps are masks: their ids, and those of labels.csv, are 255 and a smaller one.
    """
    return len(ids) == 2 and max(ids) == IGNORED and set(listed) <= ids


def mask_labels(root, ids, listed, label_colours, void):
    """Return what find_labels does for maps with holds_two_values. The rest: of read_label_list."""
    warn(f'note: {root}: the maps hold {min(ids)} and {IGNORED} and nothing else, so {IGNORED} is '
         f'a label; --ignore-label {IGNORED} takes it as unknown')
    table = {min(ids): 0, IGNORED: 1}
    return dict(n_labels=2, label_names=[listed.get(label, str(label)) for label in table],
                label_table=table, palette=None, void=[table[label] for label in void],
                label_colours=[[*rgb, table[label], name]
                               for *rgb, label, name in label_colours] or None)


def find_labels(source, layout, ids):
    """Return {field: value} of config.NETWORK for labels. ids: all that occur in the maps."""
    def refuse(flag, value, why):
        raise UserError(f'--{flag} {value}: {why}; leave it out')

    label_colours = None
    n, ignored, void = source.n_labels, source.ignore_label, list(layout.void)
    names = palette = table = None
    for flag, value in (('palette', source.palette), ('ignore-label', ignored),
                        ('instances', source.instances)):
        if layout.n_labels == 0 and value not in (None, 'none', 'auto'):
            refuse(flag, value, f'{source.data} holds pictures, not label maps')
    if source.palette_nearest and not source.palette:
        raise UserError('--palette-nearest: applies only with --palette FILE; add it, or leave '
                        'this out')
    if source.palette:
        if isinstance(ignored, int):
            refuse('ignore-label', ignored, 'by --palette, every colour has a label')
        palette = read_palette(source.palette)
        name_of = {label: name for *_, label, name in palette}
        if n and n <= max(name_of):
            raise UserError(f'--n-labels {n}: {source.palette} has the label {max(name_of)}')
        n = n or 1 + max(name_of)
        names = [name_of.get(label, str(label)) for label in range(n)]
        void = sorted(label for label, name in name_of.items() if name.lower() in VOID_NAMES)
        if (path := Path(source.data) / 'labels.csv').exists():
            warn(f'note: {path}: not read; names and colours are those of {source.palette}')
    elif n in layout.tables:
        table = layout.tables[n](Path(source.data))
        n += 1
    elif layout.n_labels is not None:
        if n not in (None, layout.n_labels):
            choices = ' or '.join(map(str, [layout.n_labels or 'no', *layout.tables]))
            refuse('n-labels', n, f'{layout.name} has {choices}')
        n, names = layout.n_labels, layout.names(Path(source.data))
    elif layout.sparse:
        if n:
            refuse('n-labels', n, f'{layout.name} has as many labels as occur')
        table = {label: i for i, label in enumerate(sorted(ids - {ignored}))}
        n = len(table)
    else:
        path = Path(source.data) / 'labels.csv'
        listed, label_colours, void = read_label_list(path)
        if n and n <= max(listed, default=0):
            raise UserError(f'--n-labels {n}: {path} has the label {max(listed)}')
        if ignored is None and n in (None, 2) and holds_two_values(ids, listed):
            return mask_labels(source.data, ids, listed, label_colours, void)
        if (ignored is None and IGNORED in ids - listed.keys() and (n or 0) <= IGNORED
                and max(ids - {IGNORED}, default=0) < IGNORED - IGNORED_GAP):
            ignored = IGNORED
            warn(f'note: {source.data}: label {IGNORED} is taken as unknown; --ignore-label none '
                 'keeps it')
        n = n or 1 + max((ids | listed.keys()) - {ignored}, default=0)
        names = [listed.get(label, str(label)) for label in range(n)] if listed else None
    if table is not None:
        void = [table[label] for label in void if label in table]
    if isinstance(ignored, int):                # it becomes one more label, the last
        table = {**(table or {i: i for i in range(n)}), ignored: n}
        names, void, n = names and [*names, 'ignored'], [*void, n], n + 1
    return dict(n_labels=n, label_names=names, label_table=table, palette=palette, void=void,
                label_colours=label_colours or None)


def require_usable(source, contents):
    """Raise UserError for a data set with problems; with --skip-bad only if no pair is left."""
    problems = list(contents.problems.values())
    if problems and not source.skip_bad or not contents.pairs:
        more = f' (and {len(problems) - 1} more; check lists them)' if problems[1:] else ''
        rest = '; --skip-bad trains on the rest' if contents.pairs else ''
        raise UserError(problems[0] + more + rest)
    for problem in problems:
        log_info(f'left out: {problem}')


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
    if config.instances == 'files' and pairs and not pairs[0].inst:
        raise UserError(f'{root}: has no instance maps, and the run was trained with them')
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
    return (f'{contents.layout}: {plural(len(contents.pairs), "pair")} of the split {split}, '
            f'{contents.n_labels or "no"} labels, {INSTANCES[contents.instances]}')


def print_report(source, contents):
    n, n_problems = len(contents.pairs), len(contents.problems)
    log_info(summarise(contents, source.split))
    splits = layouts.find_splits(Path(source.data))
    log_info('splits: ' + ', '.join(f'{split} ({count})' for split, count in splits.items())
             + f'; only {source.split} was read; use --split for another' * (len(splits) > 1))
    sizes = Counter(f'{w}x{h}' for w, h in contents.sizes.values())
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
    for problem in contents.problems.values():
        log_info(problem, sys.stdout)                       # -q does not silence it
    log_info(f'{plural(n_problems, "problem")}: {n} of {n + n_problems} scenes can be used'
             if n_problems else 'no problems')
