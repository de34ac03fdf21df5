"""Read the scene of a label map, with its instance map and its photograph."""
from pathlib import Path

import numpy as np

from app.common.config import format_value
from app.common.console import warn, warn_once
from app.common.errors import UserError
from app.datasets import decoding, inspection
from app.datasets.decoding import format_colour
from app.datasets.layouts import SIDE_BY_SIDE
from app.datasets.pairs import PairReader
import data
import generate

CROSSING = 0.1          # a larger share of pixels with another label than their instance is suspect
OTHER_IDS = 'Does the map use other ids than the training data, as trainIds in place of labelIds?'


def half_for_run(config, path, is_map=True):
    """Return the half of a picture that holds the map (or the photograph), if a run was trained on
    pictures side by side and this one is as wide as two; else its path."""
    sides = [side for side, name in SIDE_BY_SIDE.items() if (name == config.layout) == is_map]
    if (config.layout not in SIDE_BY_SIDE.values() or not config.size
            or decoding.half_of(Path(path))):
        return path
    (w, h), (run_w, run_h) = decoding.read_header(path).size, config.size
    return Path(path, sides[0]) if 0.95 < w * run_h / (2 * run_w * h) < 1.05 else path


def read_scene(config, label_path, inst_path=None, size=None, paired=False):
    """Read a label map and its instance map, or connected components, as a generate.Scene.
    paired: they are of one scene of a data set. Else a UserError if they have different sizes, and
    a warning if their shapes hardly belong together."""
    reader, label_path = PairReader(config), half_for_run(config, label_path)
    label, header = reader.read_label(label_path, size)
    warn_about_map(config, label_path, label, header)
    inst = None
    if config.instances != 'none' and inst_path:
        inst_header = decoding.read_header(inst_path)
        inspection.check_same_view(inst_path, label_path, header.size, inst_header)
        w, h = inst_header.size
        if (w, h) != tuple(header.size) and not paired:
            raise UserError(f'{inst_path} is {w}x{h} and {label_path} is {header.size[0]}x'
                            f'{header.size[1]}: not the instance map of that label map')
        inst = reader.read_instances(inst_path, label.shape[1::-1], label)
        if not paired:
            warn_about_instances(inst_path, label_path, label, inst)
    elif config.instances != 'none':
        inst = data.connected_components(label)
    label, inst = (None if ids is None else data.to_tensor(ids)[None] for ids in (label, inst))
    return generate.make_scene(config, label, inst, header.size)


def name_labels(config, labels):
    """Return the names of labels, or their numbers if they have no names, separated by commas."""
    names = config.label_names or range(config.n_labels)
    return ', '.join(str(names[label]) for label in sorted(labels))


def warn_about_instances(inst_path, label_path, label, inst):
    """Warn of an instance map, (H, W) as its label map, whose instances cross the borders of labels
    in many pixels. Id 0 often means that there is no instance, so it may have many labels."""
    code, counts = np.unique(inst.astype(np.int64) << 32 | label, return_counts=True)
    counts = counts[code >> 32 != 0]
    first = np.unique(code[code >> 32 != 0] >> 32, return_index=True)[1]
    if not len(first):
        return
    share = 1 - np.maximum.reduceat(counts, first).sum() / counts.sum()
    if share > CROSSING:
        warn(f'warning: {inst_path}: {share:.0%} of the pixels of its instances have another label '
             f'in {label_path} than the rest of the instance; is it the instance map of another '
             'scene?')


def warn_about_map(config, path, label, header):
    """Warn once of a map whose colour table differs from those of the training maps, and, in a run
    without an encoder, of labels that no training picture had."""
    if not config.n_labels:
        return
    labels = np.unique(label).tolist()
    if header.table and config.index_colours and not header.is_saved_map:
        id_of = {i: id_ for id_, i in (config.label_table or {}).items()}
        trained = {row[3]: row[:3] for row in config.index_colours}
        for i in (id_of.get(number, number) for number in labels):
            colour = list(header.table[3 * i:3 * i + 3])
            if colour and list(trained.get(i, colour)) != colour:
                warn_once('table', f'warning: {path}: its index {i} has the colour '
                          f'{format_colour(colour)}, and {format_colour(trained[i])} in the '
                          'training maps; indices are taken as ids of labels. Does the map have '
                          'another colour table?')
    missing = set(labels) - set(config.present) if config.present is not None else set()
    if missing and not config.features:
        warn_once(('untrained', *sorted(missing)),
                  f'warning: {path}: no training picture had the label '
                  f'{name_labels(config, missing)}, so the networks know nothing of it. '
                  + OTHER_IDS)


def read_photo(config, path, scene):
    """Read a photograph of a scene, resized to its label map: (1, C, H, W) in [-1, 1]."""
    h, w = scene.label.shape[-2:]
    path = half_for_run(config, path, is_map=False)
    inspection.check_same_view(path, 'its label map', scene.size or (w, h))
    photo = PairReader(config).read_photo(path, (w, h))
    return data.to_float(data.to_tensor(photo)[None])


def warn_about_size(folder, config, path, scene):
    """Warn if a map has a far other size than those that a run was trained on, and return so."""
    h, w = scene.label.shape[-2:]
    if not config.size or 0.7 < (w * h / (config.size[0] * config.size[1])) ** 0.5 < 1.5:
        return False
    warn(f'note: {path} is read at {w}x{h}, {folder} was trained at {format_value(config.size)}; '
         f'use --size {format_value(with_area_of(config.size, scene.size or (w, h)))}')
    return True


def with_area_of(other, size):
    """Return the size (width, height) with the proportions of `size` and the area of another."""
    w, h = size
    scale = (other[0] * other[1] / (w * h)) ** 0.5
    return max(1, round(w * scale)), max(1, round(h * scale))
