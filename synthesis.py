"""From a scene on disk to a picture."""
import numpy as np
from PIL import Image
import torch

import data
from files import say
import layouts
import runs
import survey


def read_scene(c, label_path, inst_path, size):
    """A label map and its instances for a run of configuration `c` -> label (1, 1, H, W) (RGB: (1, 3, H, W)), inst or
    None."""
    readers = layouts.readers(c)
    survey.check_jpeg(label_path, c)
    label = readers.label(label_path, size)
    if c.n_labels:
        data.check_labels(label, label_path, c.n_labels)
    if c.instances == 'none':
        return data.to_tensor(label)[None], None
    if inst_path:
        survey.check_section(inst_path, label_path, label.shape[1::-1])
        inst = readers.inst(inst_path, label.shape[1::-1])
    else:
        inst = data.connected_components(label)
    return data.to_tensor(label)[None], data.to_tensor(inst)[None]


@torch.inference_mode()
def synthesise(state, label, inst, features):
    """label, inst and painted features (N, feat, H, W) (None without an encoder), of any size -> pictures (N, 3, H, W)
    in [-1, 1] of exactly that size: padded by repeating the edge for the networks, then cropped."""
    h, w = label.shape[-2:]
    multiple = runs.network_multiple(state.config)
    label, inst, features = (x if x is None else data.pad_to_multiple(x.to(state.device), multiple, 2 * multiple)
                             for x in (label, inst, features))
    condition = data.condition(label, inst, state.config.n_labels)
    return state.G(condition if features is None else torch.cat([condition, features], 1))[..., :h, :w]


def to_picture(image):
    """(1, C, H, W) float in [-1, 1] -> (H, W, C) uint8 ndarray."""
    return data.to_uint8(image[0]).permute(1, 2, 0).cpu().numpy()


def as_rgb(picture):
    """(H, W, C) uint8 -> (H, W, 3): grey in all three channels, or the first three of many."""
    return np.repeat(picture[..., :1], 3, 2) if picture.shape[2] < 3 else picture[..., :3]


def show_label(c, label):
    """(1, H, W) labels in their colours, or (C, H, W) pictures -> (H, W, 3) uint8 ndarray."""
    return layouts.label_colours(c)[label[0].numpy()] if c.n_labels else as_rgb(to_picture(data.to_float(label)[None]))


def write_picture(path, image):
    """image: (1, C, H, W) float in [-1, 1]. PNG, or .npy (H, W, C) float32 where there are neither 1 nor 3 channels."""
    if image.shape[1] in (1, 3):
        picture = to_picture(image)
        Image.fromarray(picture if image.shape[1] == 3 else picture[..., 0]).save(path)
    else:
        path = path.with_suffix('.npy')
        np.save(path, image[0].permute(1, 2, 0).cpu().numpy())
    say(path)
