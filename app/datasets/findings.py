"""What the files of a data set hold that a new run must know, or its user: found before training.
The functions warn of what they find."""
import numpy as np

from app.common.console import Progress, plural, warn
from app.common.errors import UserError
from app.datasets import decoding

LOOKED_AT = 50          # pictures at most, spread evenly, where some of them tell enough
MOST_IDS = 20000        # an instance map with more of them has no objects
NEARLY_BLACK = 64       # a condition of 8 bits with nothing above this


def spread(items, count=LOOKED_AT):
    """Return at most `count` items, spread evenly over all."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items


def compute(function, items, what):
    """Return [function(item)], computed in threads, without the items that raise a UserError:
    whatever reads them next reports it."""
    def attempt(item):
        try:
            return function(item)
        except UserError:
            return None

    results = decoding.map_in_threads(attempt, items, Progress(f'reading {what}', len(items)))
    return [result for result in results if result is not None]


def find_ranges(root, paths, what):
    """Return what is white in pictures of 16 bits: their maximum, or None where all bits count.
    paths: of those pictures. what: they are called so."""
    largest = max(compute(lambda path: int(decoding.read_deep(path).max()), paths, 'values'),
                  default=0)
    if not 0 < largest < 1 << 15:
        return None
    warn(f'note: {root}: {what} of 16 bits hold values up to {largest}, which becomes white, in '
         'all of them; store .npy arrays of floats in [-1, 1] for another range')
    return largest


def look_at_conditions(root, paths, read):
    """Warn of pictures in place of label maps that are nearly black, as maps of ids are."""
    def largest_value(path):
        picture = read(path)
        return int(picture.max()) if picture.dtype == np.uint8 else 255

    largest = max(compute(largest_value, spread(paths), 'conditions'), default=255)
    if largest < NEARLY_BLACK:
        warn(f'note: {root}: the pictures in place of label maps hold values from 0 to {largest} '
             'of 255, which is nearly black; if they are ids of labels, rename the folders from _A '
             'and _B to _label and _img')


def compare_tables(root, tables):
    """Return the colours of indices as rows [R, G, B, id, ''], or None without colour tables. Warn
    if maps show one index in different colours. tables: (path, ids, colours (256 * 3 bytes))."""
    known, different = {}, None
    for path, ids, table in tables:
        for i in ids:
            colour = tuple(table[3 * i:3 * i + 3])
            if colour and known.setdefault(i, (colour, path))[0] != colour and not different:
                different = (f'{path}: its index {i} has the colour {show(colour)}, and in '
                             f'{known[i][1]} it has {show(known[i][0])}')
    if different:
        warn(f'warning: {different}; indices are taken as ids of labels. If the colours stand for '
             'labels, use --palette FILE')
    return [[*colour, i, ''] for i, (colour, _) in sorted(known.items())] or None


def show(colour):
    return ','.join(map(str, colour))


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
