"""Choose the layout of a data set by flags, by names and by what its label maps hold."""
from pathlib import Path

from app.common.console import warn
from app.datasets import decoding, layouts

SAMPLED_MAPS = 4        # label maps that tell whether the labels are those of a data set


def layout_by_flag(source):
    """Return the name of the Layout that --layout chooses, and which files it expects; or None and
    None."""
    root, flag, split = Path(source.data), source.layout, source.split
    if flag == 'auto':
        return None, None
    if flag == 'own':
        return layouts.OWN, f'{split}_label/ and the like'
    side = (layouts.side_of_maps(root, split, certain=True) or 'left' if flag == 'side-by-side'
            else flag.removeprefix('map-'))
    return layouts.SIDE_BY_SIDE[side], f'{split}/*'


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
    def largest(pair):
        ids, header = layout.decode_map(pair.label)
        return pair, header, int(ids.max())

    if not layout.may_be_own or not layout.n_labels:
        return None, {}
    found = decoding.map_usable(largest, decoding.spread(pairs, SAMPLED_MAPS), 'labels')
    beyond = [label for *_, label in found if label >= layout.n_labels]
    return (max(beyond) if 2 * len(beyond) > len(found) else None), {
        pair: header for pair, header, _ in found}


def find_pairs_by_flags(source):
    """Return the Layout of a data set, its pairs and problems, see layouts.find_pairs, and
    {pair: decoding.Header} of the label maps that were read. source: see inspect_dataset."""
    chosen, expected = layout_by_flag(source)
    layout, pairs, problems = layouts.find_pairs(
        source.data, source.split, chosen=chosen, refusal=expected and (
            f'--layout {source.layout}: {source.data} has no such pictures of the split '
            f'{source.split!r}; expected {expected}'))
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
             + ': these labels are taken for your own, not for the '
             + f'{layout.n_labels or "pictures"} of {layout.name}')
        layout, pairs, problems = layouts.find_pairs(source.data, source.split, chosen=layouts.OWN)
    return layout, pairs, problems, samples
