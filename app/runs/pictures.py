"""Pictures that are written: photographs as PNG, label maps in colours, strips of both."""
import io

import numpy as np
from PIL import Image

from app.common.files import write_atomically
from app.datasets import layouts
import data


def encode_picture(image):
    """Return suffix and content of a file of a picture (1, C, H, W) float in [-1, 1]: PNG, or .npy
    (H, W, C) float32 where it has neither 1 nor 3 channels."""
    file, is_png = io.BytesIO(), image.shape[1] in (1, 3)
    if is_png:
        save_png(file, to_uint8_hwc(image))
    else:
        np.save(file, image[0].permute(1, 2, 0).cpu().numpy())
    return '.png' if is_png else '.npy', file.getvalue()


def write_picture(path, image):
    """Write a picture, see encode_picture, whole or not at all. Return the path written."""
    suffix, content = encode_picture(image)
    path = path.with_suffix(suffix)
    write_atomically(path, lambda file: file.write(content))
    return path


def write_png(path, pixels):
    """Write (H, W, 3) or (H, W, 1) uint8 as PNG, whole or not at all."""
    write_atomically(path, lambda file: save_png(file, pixels))


def save_png(file, pixels):
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    # Level 4 takes half the time of the default for 1 % more bytes.
    picture.save(file, 'PNG', compress_level=4)


def to_uint8_hwc(image):
    """Convert (1, C, H, W) float in [-1, 1], on any device, to an (H, W, C) uint8 ndarray."""
    return data.to_uint8(image[0]).permute(1, 2, 0).cpu().numpy()


def to_rgb(pixels):
    """Convert (H, W, C) uint8 to (H, W, 3): repeat grey, or keep the first three channels."""
    return np.repeat(pixels[..., :1], 3, 2) if pixels.shape[2] < 3 else pixels[..., :3]


def label_to_rgb(config, label):
    """Show a label map (1, H, W) in colours, or a picture (C, H, W): (H, W, 3) uint8 ndarray."""
    if config.n_labels:
        return label_colours(config)[label[0].cpu().numpy()]
    return to_rgb(to_uint8_hwc(data.to_float(label)[None]))


def strip(config, label, pictures):
    """Put a label map, see label_to_rgb, and pictures (1, C, H, W) side by side: (H, W', 3)."""
    return np.concatenate([label_to_rgb(config, label),
                           *(to_rgb(to_uint8_hwc(picture)) for picture in pictures)], 1)


def label_colours(config):
    """Return the colours (n_labels, 3) uint8 of a run's labels: those of its palette or labels.csv,
    else of its layout, else of PASCAL VOC, which deals the bits of an id to the channels."""
    ids = np.arange(config.n_labels)[:, None]
    colours = sum(((ids >> 3 * bit + np.arange(3)) & 1) << 7 - bit for bit in range(8))
    rows = config.palette or config.label_colours
    listed = {label: rgb for *rgb, label, _ in rows} if rows else dict(
        enumerate(layouts.LAYOUTS[config.layout].colours[:config.n_labels]))
    for label, rgb in listed.items():
        colours[label] = rgb
    return colours.astype(np.uint8)
