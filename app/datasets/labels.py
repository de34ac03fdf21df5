"""What the ids in the label maps of a data set stand for: flags, --palette, labels.csv, and guesses
where nothing else tells."""
import csv
from pathlib import Path

from app.common.config import COLOURS
from app.common.console import warn
from app.common.errors import UserError, as_user_error
from app.common.files import read_text
from app.datasets.pairs import IGNORED

IGNORED_GAP = 32        # 255 is taken for that mark if so many labels below it do not occur
FEW_IDS = 16            # of which a gap between them is noted
MAX_LABELS = 4096       # a label map with higher ids is taken for an instance map
LISTED = 'id', 'name', 'r', 'g', 'b', 'void'        # the columns of labels.csv
VOID_NAMES = ('void', 'unlabeled', 'unlabelled', 'unknown', 'ignored')


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


def split_table(path):
    """Return (number, cells) of the lines of a table. Commas separate the cells, or semicolons or
    tabs, if the first line has more of them. # begins a comment."""
    lines = [(number, line) for number, line in enumerate(read_text(path).splitlines(), 1)
             if line.strip() and not line.startswith('#')]
    delimiter = max(',;\t', key=lines[0][1].count) if lines else ','
    with as_user_error(path):
        return [(number, [cell.strip() for cell in cells]) for number, line in lines
                for cells in csv.reader([line], delimiter=delimiter, skipinitialspace=True)]


def is_void(name, mark):
    """Whether scores leave a label out. mark: text of the column void; None without it."""
    return mark == '1' if mark is not None else name.lower() in VOID_NAMES


def read_palette(path):
    """Return the rows [R, G, B, label, name] of lines R,G,B,id[,name], and the void labels. If the
    first line names other columns, these are read, as in labels.csv; without the column id, the
    labels are 0, 1, 2 ..."""
    lines, columns, expected = split_table(path), [*'rgb', 'id', 'name'], 'R,G,B,id[,name]'
    if lines and {*'rgb'} <= set(header := [cell.lower() for cell in lines[0][1]]):
        lines, columns, expected = lines[1:], header, ','.join(header)
    rows, void, labels = [], [], {}
    for number, cells in lines:
        last = len(columns) - 1                             # a name may have commas
        row = dict(zip(columns, [*cells[:last], ', '.join(cells[last:])]))
        try:
            r, g, b, label = (int(row[column]) if column in columns else len(rows)
                              for column in (*'rgb', 'id'))
            rows.append([r, g, b, label, row.get('name') or str(label)])
            if not COLOURS.is_valid(rows[-1:]):
                raise ValueError
        except (KeyError, ValueError):
            raise UserError(f'{path}, line {number}: expected {expected}, got '
                            f'{",".join(cells)[:80]!r}') from None
        if label != (above := labels.setdefault((r, g, b), label)):
            raise UserError(f'{path}, line {number}: {r},{g},{b} is {label}, but {above} above')
        void += [label] * is_void(rows[-1][-1], row.get('void'))
    if not rows:
        raise UserError(f'{path}: no colours in it; expected lines {expected}')
    return rows, sorted(set(void))


def read_label_list(path):
    """Read a labels.csv, which has the column id and perhaps name; r, g and b; void (1: scores
    leave it out). Returns {label: name}, rows [R, G, B, label, name] and the void labels, all empty
    without the file."""
    names, colours, void = {}, [], []
    if not path.exists():
        return names, colours, void
    (_, header), *lines = split_table(path) or [(1, [])]
    header = [column.lower() for column in header]
    if 'id' not in header or not set(header) <= set(LISTED) or len({*'rgb'} & {*header}) in (1, 2):
        raise UserError(f'{path}, line 1: expected the columns {",".join(LISTED)}, or some of them '
                        f'with id; got {",".join(header)[:80]!r}')
    for number, cells in lines:
        row = dict(zip(header, cells))
        if not any(row.values()):
            continue
        try:
            label, *rgb = (int(row[column]) for column in ('id', *'rgb') if row.get(column))
            name, mark = row.get('name') or str(label), row.get('void')
            if not (len(cells) == len(header) and 0 <= label < MAX_LABELS and mark in (
                    None, '', '0', '1') and (not rgb or COLOURS.is_valid([[*rgb, label, name]]))):
                raise ValueError
        except ValueError:
            raise UserError(f'{path}, line {number}: expected {",".join(header)}, ids below '
                            f'{MAX_LABELS}, colours up to 255, void 0 or 1; got '
                            f'{",".join(cells)[:80]!r}') from None
        if label in names or name in names.values():
            what = f'the id {label}' if label in names else f'the name {name!r}'
            raise UserError(f'{path}, line {number}: {what} is on a line above, too')
        names[label] = name
        colours += [[*rgb, label, name]] if rgb else []
        void += [label] * is_void(name, mark)
    return names, colours, void


def labels_of_palette(source):
    """Return the number of labels, their names, those that are void, and the rows of --palette."""
    (palette, void), n = read_palette(source.palette), source.n_labels
    name_of = {label: name for *_, label, name in palette}
    if n and n <= max(name_of):
        raise UserError(f'--n-labels {n}: {source.palette} has the label {max(name_of)}')
    n, path = n or 1 + max(name_of), Path(source.data) / 'labels.csv'
    if path.exists() and not path.samefile(source.palette):
        warn(f'note: {path}: not read; names and colours are those of {source.palette}')
    return n, [name_of.get(label, str(label)) for label in range(n)], void, palette


def holds_two_values(ids, listed):
    """Return whether all that maps and labels.csv hold is two ids far apart, as in masks."""
    return len(ids) == 2 and set(listed) <= ids and (
        max(ids) == IGNORED or max(ids) - min(ids) > IGNORED_GAP)


def mask_labels(root, ids, listed, label_colours, void):
    """Return what find_labels does for maps with holds_two_values. The rest: of read_label_list."""
    low, high = sorted(ids)
    warn(f'note: {root}: the maps hold {low} and {high} and nothing else, so they are two labels; '
         + (f'--ignore-label {IGNORED} takes {IGNORED} as unknown' if high == IGNORED
            else f'--n-labels {high + 1} keeps the numbers'))
    table = {low: 0, high: 1}
    return dict(n_labels=2, label_names=[listed.get(label, str(label)) for label in table],
                label_table=table, palette=None, void=[table[label] for label in void],
                label_colours=[[*rgb, table[label], name]
                               for *rgb, label, name in label_colours] or None)


def note_gaps(root, ids, n):
    """Say that maps hold few of `n` labels, with a large gap between them, as masks of 0, 128 and
    255 do."""
    ids = sorted(ids)
    gap = max((b - a for a, b in zip([-1, *ids], ids)), default=0)
    if not ids:
        warn(f'note: {root}: the maps hold nothing but {IGNORED}; --ignore-label none takes it as '
             'a label')
    elif len(ids) == 1:
        warn(f'note: {root}: the maps hold nothing but the label {ids[0]}')
    elif len(ids) <= FEW_IDS and n > 8 * len(ids) and gap > IGNORED_GAP:
        warn(f'note: {root}: the maps hold only {", ".join(map(str, ids))} of {n} labels; '
             '--palette FILE numbers them anew, with a line R,G,B,label for each colour'
             + f' (grey {ids[-1]} is {ids[-1]},{ids[-1]},{ids[-1]})' * (ids[-1] < 256))


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
        n, names, void, palette = labels_of_palette(source)
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
        if not n:
            n = 1 + max((ids | listed.keys()) - {ignored}, default=0)
            if ids:                             # else no map is usable
                note_gaps(source.data, (ids | listed.keys()) - {ignored}, n)
        names = [listed.get(label, str(label)) for label in range(n)] if listed else None
    if table is not None:
        void = [table[label] for label in void if label in table]
    if isinstance(ignored, int):                # it becomes one more label, the last
        table = {**(table or {i: i for i in range(n)}), ignored: n}
        names, void, n = names and [*names, 'ignored'], [*void, n], n + 1
    return dict(n_labels=n, label_names=names, label_table=table, palette=palette, void=void,
                label_colours=label_colours or None)
