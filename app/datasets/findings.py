"""What the files of a data set hold that a new run must know, or its user: found before training.
The functions warn of what they find."""
from functools import partial

import numpy as np

from app.common.console import plural, warn
from app.datasets import decoding, layouts
from app.datasets.pairs import PairReader, colour_codes

LOOKED_AT = 50          # pictures at most, spread evenly, where some of them tell enough
MOST_IDS = 20000        # an instance map with more of them has no objects
NEARLY_BLACK = 64       # a condition of 8 bits with nothing above this
MANY_GREYS = 12         # drawn conditions have fewer greys, or smooth ones


def add_findings(source, contents, facts, borders, shared):
    """Add to the result of inspection.inspect_dataset what a new run keeps, and warn of the rest.
    facts: {pair: (the ids of its label map, its Header, that of the photograph)}. borders, shared:
    what count_borders and count_shared_ids return of some pairs."""
    root, pictures, looked_at = source.data, contents.n_labels == 0, decoding.spread(
        list(facts), LOOKED_AT)
    labels, images = ({getattr(pair, role): fact[number] for pair, fact in facts.items()}
                      for number, role in ((1, 'label'), (2, 'image')))
    contents.image_max = look_at_pictures(root, images, 'photographs')
    if pictures:
        contents.condition_max = look_at_pictures(root, labels, 'the pictures in place of label '
                                                  'maps')
        look_at_conditions(root, [pair.label for pair in looked_at], PairReader(contents))
        return
    contents.index_colours = compare_tables([
        (path, ids, header) for (ids, *_), (path, header) in zip(facts.values(), labels.items())
        if not header.is_saved_map])
    look_for_smoothed_maps(root, borders)
    if source.palette_nearest:
        warn_of_nearest(source, contents)
    if source.palette and contents.instances == 'files' and (
            layouts.LAYOUTS[contents.layout].n_labels is None):
        def count(pair):
            reader = PairReader(contents)
            label, _ = reader.read_label(pair.label)
            inst = reader.read_instances(pair.inst, label.shape[1::-1])
            return count_shared_ids(label, inst, contents.void)
        shared = decoding.map_usable(count, looked_at, 'instances')
    contents.inst_per_label = ids_restart(root, shared)


def look_at_pictures(root, headers, what):
    """Say once that pictures are transparent, and return what find_ranges does. headers: {path:
    decoding.Header}. what: what messages call them, such as 'photographs'."""
    white = find_ranges(root, [path for path in headers if headers[path].is_deep], what)
    note_half_range(root, [path for path in headers if path.suffix.lower() == '.npy'], what)
    alpha = [path for path in headers if headers[path].has_alpha]
    decoding.map_usable(partial(decoding.read_photo, white=white),
                        decoding.spread(alpha, LOOKED_AT), 'transparency')
    return white


def note_half_range(root, paths, what):
    """Say that arrays of floats hold 0 to 1, and so are grey to white. The rest: of find_ranges."""
    def bounds(path):
        with decoding.open_file(path) as (array, _):
            return array.dtype.kind, float(array.min()), float(array.max())

    kinds, lows, highs = zip(*decoding.map_usable(bounds, decoding.spread(paths, LOOKED_AT),
                                                  'values') or [('', 0, 0)])
    if set(kinds) == {'f'} and 0 <= min(lows) and 0.5 < max(highs) <= 1:
        warn(f'note: {root}: {what} of floats hold {min(lows):g} to {max(highs):g}, and -1 is '
             'black; if 0 is black there, store 2 * x - 1')


def find_ranges(root, paths, what):
    """Return what is white in pictures of 16 bits: their maximum, or None where all bits count.
    paths: of those pictures. what: as for look_at_pictures."""
    def maxima(path):
        values = decoding.read_deep(path)
        return int(values.max()), int(np.where(values == 65535, 0, values).max())

    largest, below = np.max([(0, 0), *decoding.map_usable(maxima, paths, 'values')], 0).tolist()
    if largest == 65535 and 0 < below < decoding.DARK:
        warn(f'note: {root}: {what} of 16 bits hold values up to {below}, which is nearly black, '
             'and 65535; if that means no value, store .npy arrays of floats in [-1, 1]')
    if not 0 < largest < 1 << 15:
        return None
    warn(f'note: {root}: {what} of 16 bits hold values up to {largest}, which becomes white, in '
         'all of them; store .npy arrays of floats in [-1, 1] for another range')
    return largest


def look_at_conditions(root, paths, reader):
    """Warn of pictures in place of label maps that hold ids: nearly black ones, and those whose
    grey levels are areas of a value each, side by side without transitions."""
    def facts(path):
        picture, _ = reader.read_label(path)
        if picture.dtype != np.uint8 or (picture != picture[..., :1]).any():
            return 255, 0, 0, ()
        grey = picture[..., 0]
        steps = np.abs(np.diff(grey.astype(int))).ravel()
        steps, (low, high) = steps[steps > 0], neighbourhood(grey)
        return (grey.max(), 1 - len(steps) / grey.size, np.median(steps) if len(steps) else 0,
                np.unique(grey[low == high]).tolist())

    found = decoding.map_usable(facts, paths, 'conditions')
    if not found:
        return
    largest, flat, steps, greys = zip(*found)
    greys = sorted(set().union(*greys) - {255})
    look_like_ids = (np.mean(flat) > 0.9 and np.median(steps) > 2 and len(greys) >= MANY_GREYS
                     and np.median(np.diff(greys)) == 1)
    if max(largest) < NEARLY_BLACK or look_like_ids:
        which = 'are nearly black' if max(largest) < NEARLY_BLACK else 'look like maps of ids'
        warn(f'note: {root}: the pictures in place of label maps hold values from 0 to '
             f'{max(largest)} of 255 and {which}; if they are ids of labels, rename the folders '
             'from A and B to train_label and train_img')


def compare_tables(maps):
    """Return the colours of indices as rows [R, G, B, id, ''], or None without colour tables. Warn
    if maps show one index in different colours, and of ids that are transparent. maps: (path, ids,
    decoding.Header)."""
    known, different, clear = {}, None, None
    for path, ids, header in maps:
        for i in ids:
            colour = tuple((header.table or b'')[3 * i:3 * i + 3])
            if colour and known.setdefault(i, (colour, path))[0] != colour and not different:
                different = (f'{path}: its index {i} has the colour '
                             f'{decoding.format_colour(colour)}, and in {known[i][1]} it has '
                             f'{decoding.format_colour(known[i][0])}')
        clear = clear or next(((path, i) for i in ids if i in header.clear), None)
    if different:
        warn(f'warning: {different}; indices are taken as ids of labels. If the colours stand for '
             'labels, use --palette FILE')
    if clear:
        warn(f'note: {clear[0]}: its id {clear[1]} is transparent, and a label all the same; '
             f'--ignore-label {clear[1]} takes it as unknown')
    return [[*colour, i, ''] for i, (colour, _) in sorted(known.items())] or None


def neighbourhood(label):
    """Return the smallest and the largest value of the 3x3 pixels around each pixel of (H, W)."""
    h, w = label.shape
    padded = np.pad(label, 1, mode='edge')
    columns = [padded[:, x:x + w] for x in range(3)]
    low, high = np.minimum.reduce(columns), np.maximum.reduce(columns)
    return (np.minimum.reduce([low[y:y + h] for y in range(3)]),
            np.maximum.reduce([high[y:y + h] for y in range(3)]))


def count_borders(label):
    """Return the ids of a label map (H, W), ascending, and for each the number of its pixels, of
    those inside (all 8 neighbours are equal) and of those between smaller and larger neighbours:
    (3, ids)."""
    low, high = neighbourhood(label)
    ids, place = np.unique(label, return_inverse=True)
    place = place.reshape(label.shape)
    return ids, np.array([np.bincount(place[where], minlength=len(ids)) for where in (
        label >= low, low == high, (low < label) & (label < high))])


def look_for_smoothed_maps(root, counts):
    """Warn if most labels lie only between two others, as where maps were resized with blending.
    counts: what count_borders returns of each map."""
    ids = np.array(sorted(set().union(*(own.tolist() for own, _ in counts))))
    if len(ids) < 8:
        return
    total, inside, between = sums = np.zeros((3, len(ids)))
    for own, numbers in counts:
        sums[:, np.searchsorted(ids, own)] += numbers
    if len(ids) > 64 and inside.sum() < 0.1 * total.sum():
        warn(f'warning: {root}: {len(ids)} labels, and hardly any pixel has the label of its '
             'neighbours, as in photographs. Are label maps and photographs in the wrong folders?')
        return
    slivers = inside <= 0.05 * total                # labels that occur in no other place, too
    pixels = total[slivers].sum()
    share = pixels / total.sum()
    if slivers.sum() > max(4, len(ids) / 2) and share < 0.6 and between[slivers].sum() > pixels / 2:
        true = [str(i) for i in ids[~slivers].tolist()]
        warn(f'warning: {root}: {slivers.sum()} of {len(ids)} labels cover {100 * share:.2g} % of '
             'the pixels, all along borders, with values between those on both sides, as where '
             f'maps were resized or drawn with blending. The true labels may be '
             f'{", ".join(true[:30])}{" ..." * (len(true) > 30)}; make the maps by nearest '
             'neighbour')


def count_shared_ids(label, inst, unknown=()):
    """Return how many ids an instance map has, and how many of them are objects of several labels:
    parts with an inside of their own, not only borders that differ a little. unknown: labels."""
    known, inst = ~np.isin(label, list(unknown)), inst.astype(np.int64)
    labels, place = np.unique(label, return_inverse=True)
    ids, index = np.unique(np.where(known, inst, inst.min() - 1), return_inverse=True)
    if len(ids) > MOST_IDS:                         # no objects
        return len(ids), 0
    code = (index * len(labels) + place.reshape(index.shape)).reshape(label.shape)
    low, high = neighbourhood(code)
    n = len(ids) * len(labels)
    pixels, inside = (np.bincount(code[where], minlength=n).reshape(len(ids), len(labels))
                      for where in (known, known & (low == high)))
    objects = (pixels >= 0.2 * pixels.sum(1, keepdims=True)) & (pixels > 4)
    objects |= (inside >= 0.3 * pixels) & (inside >= 4)
    return len(ids), int((objects.sum(1) > 1).sum())


def ids_restart(root, counts):
    """Return whether instance ids begin anew in each label, and say so: then an instance is a pair
    of a label and an id. counts: what count_shared_ids returns of each pair."""
    total, shared = np.sum(counts, 0).tolist() if counts else (0, 0)
    if not shared or shared < 0.05 * total:
        return False
    warn(f'note: {root}: {plural(shared, "instance id")} of {total} in '
         f'{plural(len(counts), "picture")} mean objects of several labels; the pixels of one '
         'label and one id are an instance')
    return True


def warn_of_nearest(source, contents):
    """Say in what share of the pixels --palette-nearest replaces a colour, in some of the maps."""
    def share(pair):
        colours, _ = decoding.decode_map(pair.label, colours=True)
        return 1 - np.isin(colour_codes(colours), codes).mean()

    codes = colour_codes(np.array([row[:3] for row in contents.palette]))
    off = decoding.map_usable(share, decoding.spread(contents.pairs, 8), 'colours')
    if off:
        warn(f'note: {source.data}: {100 * np.mean(off):.3g} % of the pixels in '
             f'{plural(len(off), "map")} have colours beside those of {source.palette}, and take '
             'the label of the nearest')


def find_colours(pairs, palette):
    """Return the colours [R, G, B] that label maps hold and a palette lacks, the most frequent
    first. pairs: of unusable maps; some of them are read. palette: rows [R, G, B, label, name]."""
    def count(pair):
        colours, _ = decoding.decode_map(pair.label, colours=True)
        if (colours == colours[..., :1]).all():     # grey: it is another problem
            return None
        return np.unique(colour_codes(colours), return_counts=True)

    counted = decoding.map_usable(count, decoding.spread(pairs, LOOKED_AT), 'colours')
    if not counted:
        return []
    codes, counts = map(np.concatenate, zip(*counted))
    codes, place = np.unique(codes, return_inverse=True)
    codes = codes[(-np.bincount(place, counts)).argsort(kind='stable')]
    codes = codes[~np.isin(codes, [colour_codes(np.array(row[:3])) for row in palette])]
    return (codes[:, None] >> np.array([16, 8, 0]) & 255).tolist()
