"""Label maps whose values or colours a table turns into labels."""
import numpy as np

from app.common.config import LABEL
from app.datasets import decoding
from app.common.errors import UserError
from app.common.files import read_text


def lookup_array(table):
    """{id: label} -> an ndarray of the labels of the ids 0, 1, 2 ...; -1 for others, and last."""
    lookup = np.full(max(table) + 2, -1, np.int32)
    lookup[list(table)] = list(table.values())
    return lookup


def table_reader(read, table):
    """Let a reader's ids go through {id: label}. An id that is not in it is a UserError that names
    the first such pixel."""
    lookup = lookup_array(table)

    def reader(path, size):
        ids = read(path, size)
        label = lookup[np.where((ids >= 0) & (ids < len(lookup)), ids, -1)]
        if (label < 0).any():
            y, x = np.argwhere(label < 0)[0]
            raise UserError(f'{path}: label {ids[y, x]} at x={x}, y={y} is none of the '
                            f'{len(table)} that are known; train with --n-labels to have more')
        return label
    return reader


def colour_reader(palette):
    """A reader of label maps stored as colours; palette: rows [R, G, B, label, name]."""
    codes = np.array([r << 16 | g << 8 | b for r, g, b, *_ in palette])
    order = codes.argsort()

    def reader(path, size):
        rgb = decoding.read_bands(path, size)
        code = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        at = order[np.searchsorted(codes[order], code).clip(max=len(codes) - 1)]
        wrong = codes[at] != code
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            raise UserError(f'{path}: colour {",".join(map(str, rgb[y, x]))} at x={x}, y={y} is '
                            'not in the palette')
        return np.array([row[3] for row in palette], np.int32)[at]
    return reader


def read_palette(path):
    """Lines R,G,B,id[,name] -> rows [R, G, B, id, name]; blank lines and lines that begin with #
    are passed over. UserError that names the line."""
    rows, known = [], {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith('#'):
            try:
                *values, name = [*line.split(',', 4), ''][:5]
                r, g, b, label = map(int, values)
                if not (0 <= min(r, g, b) <= max(r, g, b) <= 255 and LABEL.holds(label)):
                    raise ValueError
            except ValueError:
                raise UserError(f'{path}, line {number}: expected R,G,B,id[,name], got '
                                f'{line[:80]!r}') from None
            if label != known.setdefault((r, g, b), label):
                raise UserError(f'{path}, line {number}: {r},{g},{b} stands for {label}, and for '
                                f'{known[r, g, b]} above; leave one out')
            rows.append([r, g, b, label, name.strip() or str(label)])
    if not rows:
        raise UserError(f'{path}: no colours in it; expected lines R,G,B,id[,name]')
    return rows
