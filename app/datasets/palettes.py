"""Tables that make labels of the ids or colours in label maps."""
import numpy as np

from app.common.config import COLOURS
from app.common.errors import UserError
from app.common.files import read_text


def lookup_array(table):
    """Return the int32 labels of the ids 0, 1, 2 ... by {id: label}; -1 for others and at last."""
    lookup = np.full(max(table) + 2, -1, np.int32)
    lookup[list(table)] = list(table.values())
    return lookup


def ids_to_labels(ids, table, path):
    """Return the labels of ids (H, W) by a table {id: label}. Raises UserError if it lacks one."""
    lookup = lookup_array(table)
    labels = lookup[np.where((ids >= 0) & (ids < len(lookup)), ids, -1)]
    if (labels < 0).any():
        y, x = np.argwhere(labels < 0)[0]
        raise UserError(f'{path}: label {ids[y, x]} at x={x}, y={y} is not one of the '
                        f'{len(table)} of this run; fix the map, or train with more --n-labels')
    return labels


def colours_to_labels(colours, palette, path):
    """Return the labels (H, W) int32 of colours (H, W, 3) by the rows of read_palette."""
    codes = np.array([r << 16 | g << 8 | b for r, g, b, *_ in palette])
    order = codes.argsort()
    code = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
    row = order[np.searchsorted(codes[order], code).clip(max=len(codes) - 1)]
    missing = codes[row] != code
    if missing.any():
        y, x = np.argwhere(missing)[0]
        raise UserError(f'{path}: colour {",".join(map(str, colours[y, x]))} at x={x}, y={y} is '
                        'not in the palette; add it there or fix the map')
    return np.array([label for *_, label, _ in palette], np.int32)[row]


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
