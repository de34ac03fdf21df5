"""Read the scene of a label map, with its instance map and its photograph."""
from app.common.config import format_value
from app.common.console import warn
from app.datasets import inspection
from app.datasets.pairs import PairReader
import data
import generate


def read_scene(config, label_path, inst_path=None, size=None):
    """Read a label map and its instance map, or connected components, as a generate.Scene."""
    reader = PairReader(config)
    label, header = reader.read_label(label_path, size)
    inst = None
    if config.instances != 'none' and inst_path:
        inspection.check_same_view(inst_path, label_path, header.size)
        inst = reader.read_instances(inst_path, label.shape[1::-1])
    elif config.instances != 'none':
        inst = data.connected_components(label)
    label, inst = (None if ids is None else data.to_tensor(ids)[None] for ids in (label, inst))
    return generate.make_scene(config, label, inst, header.size)


def read_photo(config, path, scene):
    """Read a photograph of a scene, resized to its label map: (1, C, H, W) in [-1, 1]."""
    h, w = scene.label.shape[-2:]
    inspection.check_same_view(path, 'its label map', scene.size or (w, h))
    photo = PairReader(config).read_photo(path, (w, h))
    return data.to_float(data.to_tensor(photo)[None])


def warn_about_size(folder, config, path, scene):
    """Warn if a map has a far other size than those that a run was trained on, and return so."""
    h, w = scene.label.shape[-2:]
    if not config.size or 0.7 < (w * h / (config.size[0] * config.size[1])) ** 0.5 < 1.5:
        return False
    file_w, file_h = scene.size or (w, h)
    scale = (config.size[0] * config.size[1] / (file_w * file_h)) ** 0.5
    warn(f'note: {path} is read at {w}x{h}, {folder} was trained at {format_value(config.size)}; '
         f'try --size {max(1, round(file_w * scale))}x{max(1, round(file_h * scale))}')
    return True
