"""The colours of labels: how far they differ, also for people who confuse red and green."""
from types import SimpleNamespace

import numpy as np
import pytest

from app.datasets import layouts
from app.runs.pictures import distinct_colours, label_colours

# What people without the cones for green see, in linear RGB (Machado, Oliveira, Fernandes, 2009).
DEUTERANOPIA = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                         [-0.011820, 0.042940, 0.968881]])
NORMAL = np.eye(3)
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])
WHITE = 0.95047, 1, 1.08883


def cielab(rgb, seen=NORMAL):
    """Convert colours (N, 3), 0 to 255, of which `seen` is seen, to CIELAB (N, 3)."""
    rgb = np.asarray(rgb) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = (linear @ seen.T).clip(0, 1) @ XYZ.T / WHITE
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def ciede2000(first, second):
    """Return the difference between colours of CIELAB (N, 3) (Sharma, Wu and Dalal, 2005)."""
    (l1, a1, b1), (l2, a2, b2) = first.T, second.T
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(chroma ** 7 / (chroma ** 7 + 25 ** 7))
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = np.where(c1 * c2 > 0, (h2 - h1 + 180) % 360 - 180, 0)
    hue = np.where(c1 * c2 > 0, np.where(abs(h1 - h2) > 180, h1 + h2 + np.where(
        h1 + h2 < 360, 360, -360), h1 + h2) / 2, h1 + h2)
    light, c = (l1 + l2) / 2, (c1 + c2) / 2
    cos = [np.cos(np.radians(k * hue - at)) for k, at in ((1, 30), (2, 0), (3, -6), (4, 63))]
    by_light = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    by_hue = 1 + 0.015 * c * (1 + np.dot([-0.17, 0.24, 0.32, -0.20], cos))
    dl, dc = (l2 - l1) / by_light, (c2 - c1) / (1 + 0.045 * c)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / by_hue
    turned = np.radians(60 * np.exp(-((hue - 275) / 25) ** 2))
    both = -2 * np.sqrt(c ** 7 / (c ** 7 + 25 ** 7)) * np.sin(turned)
    return np.sqrt(dl ** 2 + dc ** 2 + dh ** 2 + both * dc * dh)


def smallest(colours):
    """Return the smallest difference between two colours as most people see them, and without the
    cones for green."""
    i, j = np.triu_indices(len(colours), 1)
    return [ciede2000(lab[i], lab[j]).min()
            for lab in (cielab(colours), cielab(colours, DEUTERANOPIA))]


def test_the_difference_of_colours():
    """Pairs of the paper's table, with other hues and a grey."""
    first, second, expected = np.array([
        ([50, 2.6772, -79.7751], [50, 0, -82.7485], [2.0425] * 3),
        ([50, -1.3802, -84.2814], [50, 0, -82.7485], [1.0] * 3),
        ([50, 2.49, -0.001], [50, -2.49, 0.0011], [7.2195] * 3),
        ([50, 0, 0], [50, -1, 2], [2.3669] * 3),
        ([2.0776, 0.0795, -1.135], [0.9033, -0.0636, -0.5514], [0.9082] * 3)]).transpose(1, 0, 2)
    assert ciede2000(first, second) == pytest.approx(expected[:, 0], abs=1e-4)


@pytest.mark.parametrize('n, normal, deuteranopia', [
    (2, 40, 40), (5, 22, 18), (12, 14, 13), (20, 10, 8), (35, 7, 5)])
def test_generated_colours_are_told_apart(n, normal, deuteranopia):
    differences = smallest(distinct_colours(n))
    assert (np.array(differences) > (normal, deuteranopia)).all(), differences


def test_which_labels_get_generated_colours():
    config = SimpleNamespace(n_labels=8, palette=None, label_colours=None, layout='own folders')
    assert (label_colours(config) == distinct_colours(8)).all()
    assert not label_colours(config)[0].any()               # black is the first
    config.label_colours = [[128, 128, 128, 2, 'two'], [250, 200, 0, 5, 'five']]
    colours = label_colours(config)
    assert colours[[2, 5]].tolist() == [[128, 128, 128], [250, 200, 0]]
    assert min(smallest(colours)) > 9                       # also from those
    assert len(np.unique(distinct_colours(1000), axis=0)) == 1000
    assert distinct_colours(5000).shape == (5000, 3)


def test_cityscapes_keeps_its_colours():
    """They are a convention. People who do not see green confuse persons with vegetation."""
    layout = layouts.LAYOUTS['Cityscapes']
    config = SimpleNamespace(n_labels=35, palette=None, label_colours=None, layout='Cityscapes')
    assert label_colours(config).tolist() == [list(rgb) for rgb in layout.colours]
    scored = [i for i in range(35) if i not in layout.void]
    normal, deuteranopia = smallest(label_colours(config)[scored])
    assert normal > 11 and deuteranopia < 3
