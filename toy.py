"""An embedded data set, so that the whole chain can be tried without downloading anything.

Every scene is a street, drawn from a seed: a label map, an instance map and a photograph-like picture of them.
Label ids are those of Cityscapes. An instance is `label * 1000 + k` for cars, persons and buildings, and the
label itself for everything else. The paint of every car and building comes from a short list and is drawn
independently of both maps: nothing in them tells it, and the list is the known truth for the feature clusters.
"""
from collections import namedtuple
from math import cos, exp, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

EGO, STATIC, ROAD, SIDEWALK, BUILDING, POLE, TRAFFIC_LIGHT, SIGN = 1, 4, 7, 8, 11, 17, 19, 20
VEGETATION, TERRAIN, SKY, PERSON, CAR = 21, 22, 23, 24, 26

CAR_COLOURS = np.array([(196, 32, 36), (36, 84, 190), (226, 228, 230), (238, 190, 36), (22, 58, 42)], np.uint8)
BUILDING_COLOURS = np.array([(226, 208, 172), (166, 84, 64), (122, 146, 178), (212, 156, 74), (142, 170, 132)], np.uint8)

SUPERSAMPLE = 3                                            # odd: the middle sample is the centre of the pixel
FOCAL, EYE = 0.9, 1.7                                      # camera: focal length in picture widths, height in metres
HAZE, GLASS, METAL = (206, 214, 224), (52, 62, 76), (92, 94, 98)

Scene = namedtuple('Scene', 'label inst image colours')


def facing(x0, x1, y0, y1, z):
    """An upright rectangle that faces the camera: metres to the right, above the road, and away."""
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


def sideways(x, y0, y1, z0, z1):
    """An upright rectangle along the street."""
    return [(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)]


def flat(x0, x1, z0, z1, y=0):
    """A level rectangle."""
    return [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]


def disc(x, y, z, rx, ry=0, rz=0):
    """An ellipse around (x, y, z): upright with `ry`, level with `rz`."""
    turns = [2 * pi * i / 16 for i in range(16)]
    return [(x + rx * cos(t), y + ry * sin(t), z + rz * sin(t)) for t in turns]


class Painter:
    """Fills polygons in the picture and the instance map alike, later ones over earlier ones."""

    def __init__(self, size, rng):
        self.w, self.h = (SUPERSAMPLE * n for n in size)
        self.vanish, self.horizon = rng.uniform(0.43, 0.57), rng.uniform(0.44, 0.5)
        height = np.linspace(1, 0, 24)[:, None, None]
        clouds = np.clip(1.3 * upsample(rng.random((5, 6)), (48, 24)) - 0.35, 0, 0.9)[..., None]
        sky = height * (92, 148, 214) + (1 - height) * (196, 216, 234)
        sky = sky + clouds * ((246, 246, 248) - sky)
        self.image = Image.fromarray(sky.astype(np.uint8)).resize((self.w, self.h), Image.Resampling.BICUBIC)
        self.inst = Image.new('I', (self.w, self.h), SKY)
        self.pens = ImageDraw.Draw(self.image), ImageDraw.Draw(self.inst)

    def __call__(self, points, colour, inst=None):
        """Fill the polygon with corners `points` (metres); without `inst` the instance map stays as it is."""
        xy = [(self.w * (self.vanish + FOCAL * x / z), self.h * (self.horizon + 2 * FOCAL * (EYE - y) / z))
              for x, y, z in points]
        haze = 1 - exp(-min(z for _, _, z in points) / 110)
        self.pens[0].polygon(xy, tuple(min(255, int((1 - haze) * c + haze * f)) for c, f in zip(colour, HAZE)))
        if inst is not None:
            self.pens[1].polygon(xy, int(inst))


def upsample(grid, size):
    """A grid (h, w) as a smooth float map of `size` (width, height): the same pattern whatever the size."""
    return np.asarray(Image.fromarray(grid.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def shade(colour, factor):
    return [float(c) * factor for c in colour]


def ground(paint, verge):
    """Road, sidewalks and `verge` (label), in strips so that they fade with the distance."""
    edges = np.geomspace(90, 3, 18)
    for far, near in zip(edges, edges[1:]):
        paint(flat(-99, 99, near, far), (118, 142, 84) if verge == TERRAIN else (168, 160, 156), verge)
        paint(flat(-9, 9, near, far), (176, 166, 162), SIDEWALK)
        paint(flat(-5.9, 5.9, near, far), (206, 202, 198), SIDEWALK)      # kerb
        paint(flat(-5.6, 5.6, near, far), (98, 97, 102), ROAD)
    for z in range(3, 60, 6):
        paint(flat(-0.1, 0.1, z, z + 3), (232, 232, 228))
        for x in (-3.4, 3.4):
            paint(flat(x - 0.07, x + 0.07, z, z + 6), (204, 204, 202))


def building(paint, rng, side, near, far, colour, inst):
    """A house along the street on `side` (-1 left, 1 right), between two distances."""
    x, top, storey = side * 9.5, rng.uniform(8, 18), rng.uniform(3, 3.8)
    paint(facing(x, x + side * 12, 0, top, near), shade(colour, 0.82), inst)
    paint(sideways(x, 0, top, near, far), shade(colour, 1.04 if side < 0 else 0.94), inst)
    paint(sideways(x, 0, 0.9, near, far), shade(colour, 0.7))
    paint(sideways(x, top - 0.5, top, near, far), shade(colour, 0.78))
    columns = max(1, round((far - near) / 4))
    bay = (far - near) / columns
    for y in np.arange(1.4, top - 2.2, storey):
        for z in near + bay * np.arange(columns)[::-1]:
            paint(sideways(x, y, y + 1.8, z + 0.25 * bay, z + 0.75 * bay), GLASS)


def tree(paint, rng, x, z):
    paint(disc(x, 0, z, 1.6, rz=1.2), (84, 86, 84))
    paint(facing(x - 0.17, x + 0.17, 0, 3, z), (92, 72, 56), VEGETATION)
    for level in np.linspace(0, 1, 9):                     # from the dark inside to the lit top
        dx, dy, r = rng.uniform(-1.2, 1.2), rng.uniform(-0.9, 0.5), rng.uniform(0.7, 1.3)
        paint(disc(x + dx, 4 + dy + level, z, r, r), (44 + 44 * level, 84 + 50 * level, 40 + 20 * level), VEGETATION)


def post(paint, rng, x, z):
    """A pole with a traffic light or a sign."""
    paint(facing(x - 0.09, x + 0.09, 0, 4.6, z), METAL, POLE)
    if rng.random() < 0.5:
        paint(facing(x - 0.32, x + 0.32, 3, 4.8, z), (38, 40, 42), TRAFFIC_LIGHT)
        lit = rng.integers(3)
        for i, colour in enumerate([(70, 225, 120), (250, 190, 60), (240, 60, 50)]):
            paint(disc(x, 3.4 + 0.5 * i, z, 0.2, 0.2), colour if i == lit else (66, 66, 66))
    else:
        paint(disc(x, 3.9, z, 0.6, 0.6), (236, 236, 236), SIGN)
        paint(disc(x, 3.9, z, 0.48, 0.48), [(30, 90, 190), (200, 40, 44)][rng.integers(2)])


def person(paint, rng, x, z, inst):
    coat, step = rng.integers(40, 190, 3), rng.uniform(0.1, 0.3)
    paint(disc(x, 0, z, 0.5, rz=0.4), (76, 74, 76))
    for foot in (-step, step):
        paint([(x - 0.18, 0.9, z), (x + 0.18, 0.9, z), (x + foot + 0.1, 0, z), (x + foot - 0.1, 0, z)], (48, 50, 66), inst)
    paint([(x - 0.2, 0.75, z), (x - 0.32, 0.9, z), (x - 0.26, 1.45, z), (x, 1.52, z), (x + 0.26, 1.45, z),
           (x + 0.32, 0.9, z), (x + 0.2, 0.75, z)], coat, inst)
    paint(disc(x, 1.64, z, 0.14, 0.17), (206, 160, 132), inst)


def car(paint, rng, x, z, colour, inst):
    """A car in the direction of the street; those left of the middle (x < 0) show their front."""
    high, side = rng.uniform(1.4, 1.7), (-0.9 if x > 0 else 0.9)
    for grow, grey in ((0.5, 84), (0.2, 58)):
        paint(disc(x, 0, z + 2.1, 1.1 + grow, rz=2.4 + grow), (grey, grey, grey + 3))
    for wheel in (3.3, 0.9):                               # the far one first
        paint([(x + side, y, z) for _, y, z in disc(0, 0.33, z + wheel, 0, 0.33, 0.4)], (30, 30, 32), inst)
    for tyre in (-0.72, 0.72):
        paint(facing(x + tyre - 0.14, x + tyre + 0.14, 0, 0.4, z), (30, 30, 32), inst)
    paint(sideways(x + side, 0.3, 0.92, z, z + 4.2), shade(colour, 0.86), inst)
    for wheel in (3.3, 0.9):
        paint([(x + side, y, z) for _, y, z in disc(0, 0.3, z + wheel, 0, 0.3, 0.36)] , (34, 34, 36), inst)
    paint(flat(x - 0.9, x + 0.9, z, z + 4.2, 0.92), shade(colour, 1.08), inst)
    (b, t), lip = ((z + 1.2, z + 1.9) if x < 0 else (z + 0.3, z + 0.7)), 0.94
    paint([(x + side * lip, 0.92, b), (x + side * lip, 0.92, z + 3.6), (x + side * 0.75, high, z + 3), (x + side * 0.75, high, t)],
          GLASS, inst)
    paint(flat(x - 0.68, x + 0.68, t, z + 3, high), shade(colour, 1.08), inst)
    paint([(x - 0.85, 0.92, b), (x + 0.85, 0.92, b), (x + 0.68, high, t), (x - 0.68, high, t)], colour, inst)
    paint([(x - 0.7, 1, b), (x + 0.7, 1, b), (x + 0.57, high - 0.1, t), (x - 0.57, high - 0.1, t)], GLASS)
    paint(facing(x - 0.9, x + 0.9, 0.28, 0.92, z), colour, inst)
    paint(facing(x - 0.9, x + 0.9, 0.28, 0.42, z), (56, 56, 60))
    for lamp in (-0.7, 0.7):
        paint(facing(x + lamp - 0.16, x + lamp + 0.16, 0.66, 0.84, z), (250, 246, 214) if x < 0 else (214, 24, 30))
    paint(facing(x - 0.25, x + 0.25, 0.5, 0.62, z), (232, 232, 226))


def scene(index, size=(256, 128), seed=0, colour_seed=None):
    """Draw scene `index` of the data set `seed`.

    Parameters
    ----------
    index, seed : int >= 0
    size : (int, int)
        Width and height, at least 32 each. Another size shows the same scene in more or less detail.
    colour_seed : int >= 0, optional
        Stands in for `seed` in the paint of cars and buildings. The maps do not depend on it.

    Returns
    -------
    Scene
        label : uint8 (H, W), Cityscapes ids; inst : int32 (H, W); image : uint8 (H, W, 3), RGB;
        colours : dict from every visible car and building (its instance id) to its row of CAR_COLOURS or
        BUILDING_COLOURS.
    """
    if min(size) < 32:
        raise ValueError(f'a scene needs a width and a height of at least 32, and got {size[0]}x{size[1]}')
    rng = np.random.default_rng([seed, index, 0])          # no draw may depend on the size or on a colour
    paint_rng = np.random.default_rng([seed if colour_seed is None else colour_seed, index, 1])
    paint, colours = Painter(size, rng), {}

    def new(label, palette):
        inst = label * 1000 + sum(i // 1000 == label for i in colours)
        colours[inst] = int(paint_rng.integers(len(palette)))
        return palette[colours[inst]], inst

    ground(paint, rng.choice([TERRAIN, SIDEWALK]))
    paint(facing(-40, 40, 0, rng.uniform(9, 14), 85), *new(BUILDING, BUILDING_COLOURS))
    for x in np.arange(-12, 13, 3):
        tree(paint, rng, x + rng.uniform(-1, 1), 75)
    for side in (-1, 1):
        ends = 5 + np.cumsum(rng.uniform(9, 15, 6))
        for near, far in list(zip(ends, ends[1:]))[::-1]:
            building(paint, rng, side, near, far - rng.choice([0, 3]), *new(BUILDING, BUILDING_COLOURS))

    things = []                                            # (distance, painter of the thing)
    for side in (-1, 1):
        for z in rng.uniform(13, 45, rng.integers(1, 4)):
            things.append((z, lambda z=z, x=side * 7.9: tree(paint, rng, x, z)))
        for z in rng.uniform(12, 30, rng.integers(0, 3)):
            things.append((z, lambda z=z, x=side * 6.2: post(paint, rng, x, z)))
    for k in range(rng.integers(1, 4)):
        x, z = rng.choice([-1, 1]) * rng.choice([2.9, 6.8, 7.2]), rng.uniform(12, 18)
        things.append((z, lambda x=x, z=z, k=k: person(paint, rng, x, z, PERSON * 1000 + k)))
    spots = np.array([(-4.5, 10.5), (-1.9, 7.5), (1.7, 6.5), (4.4, 10)])      # the near end of a car: two lanes, two kerbs
    shifts = rng.uniform((0, 0), (0.2, 3), (4, 2))
    for x, z in rng.permutation(spots + shifts)[:rng.integers(2, 5)]:
        things.append((z, lambda x=x, z=z: car(paint, rng, x, z, *new(CAR, CAR_COLOURS))))
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()

    middle = slice(SUPERSAMPLE // 2, None, SUPERSAMPLE)
    inst = np.asarray(paint.inst, np.int32)[middle, middle].copy()
    label = np.where(inst < 1000, inst, inst // 1000).astype(np.uint8)
    coarse, fine = (upsample(rng.uniform(-1, 1, (n, 2 * n)), size) for n in (10, 28))
    leafy = np.isin(label, (VEGETATION, TERRAIN))
    grain = np.where(label == SKY, 0, np.where(leafy, 0.22, 0.04) * fine + 0.06 * coarse)
    image = np.asarray(paint.image.reduce(SUPERSAMPLE)) * (1 + grain[..., None])
    return Scene(label, inst, image.clip(0, 255).astype(np.uint8),
                 {int(i): colours[int(i)] for i in np.unique(inst) if i in colours})


def write(folder, split, count, size, seed=0):
    """Write scenes 0 ... count - 1 as PNG files in the layout of Cityscapes: `<folder>/gtFine/<split>/toy/toy_0000_gtFine_labelIds.png`
    (8 bits) and `..._instanceIds.png` (16 bits), `<folder>/leftImg8bit/<split>/toy/toy_0000_leftImg8bit.png`.

    `seed` is what tells two splits apart: give each its own. `scene(i, size, seed).colours` has the truth of file i.
    """
    for index in range(count):
        drawn = scene(index, size, seed)
        for kind, ending, pixels in (('gtFine', 'gtFine_labelIds', drawn.label), ('leftImg8bit', 'leftImg8bit', drawn.image),
                                     ('gtFine', 'gtFine_instanceIds', drawn.inst.astype(np.uint16))):
            path = Path(folder, kind, split, 'toy', f'toy_{index:04d}_{ending}.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
