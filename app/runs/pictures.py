"""Pictures that are written: photographs as PNG, label maps in colours, strips of both."""
from functools import lru_cache
import io

import numpy as np
from PIL import Image

from app.common.files import write_atomically
from app.datasets import layouts
import data

# The matrices of OKLab. How much its three axes count in distinct_colours, and which lightness.
TO_CONES = np.array([[0.4122214708, 0.2119034982, 0.0883024619],
                     [0.5363325363, 0.6806995451, 0.2817188376],
                     [0.0514459929, 0.1073969566, 0.6299787005]])
FROM_CONES = np.array([[0.2104542553, 1.9779984951, 0.0259040371],
                       [0.7936177850, -2.4285922050, 0.7827717662],
                       [-0.0040720468, 0.4505937099, -0.8086757660]])
RED_GREEN, DARKEST = (1, 0.15, 1), 0.35


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
    else of its layout; labels without one get distinct_colours."""
    rows = config.palette or config.label_colours
    listed = {label: tuple(rgb) for *rgb, label, _ in rows} if rows else dict(
        enumerate(layouts.LAYOUTS[config.layout].colours[:config.n_labels]))
    others = [label for label in range(config.n_labels) if label not in listed]
    colours = np.zeros((config.n_labels, 3), np.uint8)
    colours[others] = distinct_colours(len(others), tuple(listed.values()))
    for label, rgb in listed.items():
        colours[label] = rgb
    return colours


@lru_cache
def distinct_colours(n, taken=()):
    """Return n colours (n, 3) uint8. Each one is the farthest from white, from those `taken` and
    from those before it. Red against green counts little, because many people do not see it."""
    levels = np.linspace(0, 255, 11)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), -1).reshape(-1, 3).round()
    # What is nearly black looks black.
    candidates = np.concatenate([grid[:1], grid[oklab(grid)[:, 0] > DARKEST]])
    places, chosen = oklab(candidates) * RED_GREEN, []

    def squared_distance(place):                # rounded: the same on every machine
        return ((places - place) ** 2).sum(1).round(6)
    far = np.min([squared_distance(oklab(np.float64(rgb)) * RED_GREEN)
                  for rgb in ((255, 255, 255), *taken)], 0)
    for _ in range(min(n, len(places))):
        chosen.append(int(far.argmax()))
        far = np.minimum(far, squared_distance(places[chosen[-1]]))
    return np.resize(candidates[chosen].astype(np.uint8), (n, 3))


def oklab(rgb):
    """Convert colours (..., 3), 0 to 255, to the space OKLab (Ottosson, 2020), in which distances
    are about as people see them: lightness from 0 to 1, green to red, blue to yellow."""
    rgb = rgb / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_CONES) @ FROM_CONES
