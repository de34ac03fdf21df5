"""Scenes on the disk: a label map, its instance map, a photograph of it."""
from pathlib import Path

from app.common.console import warn
from app.common import config as configuration
from app.datasets import inspection, layouts
from app.datasets.pairs import check_labels
import data
import generate


def read_scene(config, label_path, inst_path=None, size=None):
    """Read a label map and its instance map, resized to (width, height).

    Without an instance map, the connected components of each label serve as instances.
    Returns generate.Scene. Raises UserError, which names a file that cannot be used.
    """
    readers = layouts.config_readers(config)
    if config.n_labels:
        inspection.check_jpeg(Path(label_path), config.jpeg_labels)
    label, stored = readers.label(label_path, size), layouts.read_header(label_path)[:2]
    if config.n_labels:
        check_labels(label, label_path, config.n_labels)
    inst = None
    if config.instances != 'none' and inst_path:
        inspection.check_same_view(inst_path, label_path, stored)
        inst = readers.inst(inst_path, label.shape[1::-1])
    elif config.instances != 'none':
        inst = data.connected_components(label)
    label, inst = (x if x is None else data.to_tensor(x)[None] for x in (label, inst))
    return generate.make_scene(config, label, inst, stored)


def warn_about_size(folder, config, path, scene):
    """Warn where a map is far larger or smaller than the pictures that the run in `folder` was
    trained on. Returns whether it is."""
    if not config.size:
        return False
    h, w = scene.label.shape[-2:]
    far = not 0.7 < (w * h / (config.size[0] * config.size[1])) ** 0.5 < 1.5
    if far:
        size = configuration.format_value(config.size)
        warn(f'note: {path} is {w}x{h}. {folder} was trained at {size}; try --size {size}')
    return far


def read_photo(config, path, scene):
    """Read a photograph of a scene, resized to the scene's label map: (1, C, H, W) in [-1, 1]."""
    h, w = scene.label.shape[-2:]
    inspection.check_same_view(path, 'its label map', scene.size or (w, h))
    photo = layouts.config_readers(config).image(path, (w, h))
    return data.to_float(data.to_tensor(photo)[None])
