"""An embedded data set, so that the whole chain can be tried without downloading anything.

Every scene is a street, drawn from a seed: a label map, an instance map and a photograph-like
picture of them. Label ids are those of Cityscapes. An instance is `label * 1000 + k` for cars,
persons and buildings, and the label itself for everything else. The paint of every car and building
comes from a short list and is drawn independently of both maps: nothing in them tells it, and the
list is the known truth for the clusters of features.
"""
from collections import namedtuple
from math import cos, exp, pi, sin
from pathlib import Path
import shlex

import numpy as np
from PIL import Image, ImageDraw

from app.common.console import quote, log_info
from app.common.errors import UserError
from app.common.files import make_folder
from app.datasets.layouts import CITYSCAPES
from app.runs import runs

EGO, ROAD, SIDEWALK, BUILDING, POLE, TRAFFIC_LIGHT, SIGN = 1, 7, 8, 11, 17, 19, 20
VEGETATION, TERRAIN, SKY, PERSON, CAR = 21, 22, 23, 24, 26

CAR_COLOURS = np.array([(196, 32, 36), (36, 84, 190), (226, 228, 230), (238, 190, 36),
                        (22, 58, 42)], 'uint8')
BUILDING_COLOURS = np.array([(228, 210, 176), (166, 80, 60), (112, 140, 182), (214, 154, 64),
                             (138, 172, 126)], 'uint8')
GLASS, RUBBER, METAL, HAZE = (52, 62, 76), (32, 32, 34), (92, 94, 98), np.array((206, 214, 224))

FOCAL, EYE = 0.9, 1.7               # camera: focal length in picture widths, height in metres
SUPERSAMPLE = 3                     # odd: the middle sample is the centre of the pixel

Scene = namedtuple('Scene', 'label inst image colours')


def upsample(grid, size):
    """A coarse float grid (h, w) as a smooth map of `size` (width, height): the same pattern
    whatever the size."""
    grid = Image.fromarray(grid.astype(np.float32))
    return np.asarray(grid.resize(size, Image.Resampling.BICUBIC))


class Painter:
    """Fills polygons in the picture and in the instance map, later ones over earlier ones.

    Points are (x, y, z) in metres: to the right of the camera, above the road, away from the
    camera.
    """

    def __init__(self, size, rng):
        self.w, self.h = (SUPERSAMPLE * n for n in size)
        self.vanish, self.horizon = rng.uniform(0.43, 0.57), rng.uniform(0.44, 0.5)

        height = np.linspace(1, 0, 24)[:, None, None]
        clouds = (1.3 * upsample(rng.random((5, 6)), (48, 24)) - 0.35).clip(0, 0.9)[..., None]
        sky = (1 - clouds) * (height * (92, 148, 214) + (1 - height) * (196, 216, 234))
        sky = Image.fromarray((sky + clouds * 246).astype(np.uint8))

        self.image = sky.resize((self.w, self.h), Image.Resampling.BICUBIC)
        self.inst = Image.new('I', (self.w, self.h), SKY)

    def polygon(self, points, colour, inst=None, light=1):
        """Without `inst` the instance map stays as it is; `light` scales the colour, and the
        distance fades it."""
        xy = [(self.w * (self.vanish + FOCAL * x / z),
               self.h * (self.horizon + 2 * FOCAL * (EYE - y) / z)) for x, y, z in points]
        clear = exp(-min(z for _, _, z in points) / 160)
        ink = clear * light * np.asarray(colour) + (1 - clear) * HAZE
        ImageDraw.Draw(self.image).polygon(xy, tuple(ink.clip(0, 255).astype(int)))
        if inst is not None:
            ImageDraw.Draw(self.inst).polygon(xy, int(inst))

    def rect(self, x, y, z, *args, **kwargs):
        """The rectangle with opposite corners (x[0], y[0], z[0]) and (x[1], y[1], z[1]).

        Upright along the street where both x agree; otherwise its edges at y[0] and at y[1] run
        from left to right.
        """
        start, end = (x[0], y[0], z[0]), (x[1], y[1], z[1])
        if x[0] == x[1]:
            corners = (x[0], y[1], z[0]), (x[0], y[0], z[1])
        else:
            corners = (x[1], y[0], z[0]), (x[0], y[1], z[1])
        self.polygon([start, corners[0], end, corners[1]], *args, **kwargs)

    def disc(self, x, y, z, radii, *args, **kwargs):
        """The ellipse with `radii` (first, second axis) around (x, y, z); one of the three has
        radius 0."""
        turns = ((cos(pi * i / 10), sin(pi * i / 10)) for i in range(20))
        a, b, c = radii
        points = [(x + a * u, y + b * v, z + c * (u if a == 0 else v)) for u, v in turns]
        self.polygon(points, *args, **kwargs)


def draw_ground(paint, walk):
    """Grass, sidewalks up to `walk` metres from the middle, and the road."""
    edges = np.geomspace(90, 2, 18)         # strips, so that they fade with the distance
    for strip in zip(edges, edges[1:]):
        for x, colour, label in ((99, (118, 142, 84), TERRAIN), (walk, (176, 166, 162), SIDEWALK),
                                 (5.9, (206, 202, 198), SIDEWALK), (5.6, (98, 97, 102), ROAD)):
            paint.rect((-x, x), (0, 0), strip, colour, label)

    for z in range(3, 60, 6):
        for x, end in ((0, z + 3), (-3.4, z + 6), (3.4, z + 6)):
            paint.rect((x - 0.08, x + 0.08), (0, 0), (z, end), (222, 222, 218))


def draw_building(paint, rng, side, near, far, colour, inst):
    """A house along the street on `side` (-1 left, 1 right), between two distances."""
    x, top, storey, light = side * 9.5, rng.uniform(8, 18), rng.uniform(3, 3.8), 0.98 - 0.04 * side
    paint.rect((x, x + side * 12), (0, top), (near, near), colour, inst, 0.82)
    paint.rect((x, x), (0, top), (near, far), colour, inst, light)
    paint.rect((x, x), (0, 0.9), (near, far), colour, light=0.7)
    paint.rect((x, x), (top - 0.5, top), (near, far), colour, light=0.78)

    bays = np.linspace(near, far, max(1, round((far - near) / 4)) + 1)
    for y in np.arange(1.4, top - 2.2, storey):
        for z in bays[:-1]:
            paint.rect((x, x), (y, y + 1.8), (z + 1, z + bays[1] - bays[0] - 1), GLASS)


def draw_tree(paint, rng, x, z):
    paint.disc(x, 0, z, (1.6, 0, 1.2), (84, 86, 84))
    paint.rect((x - 0.17, x + 0.17), (0, 3), (z, z), (92, 72, 56), VEGETATION)
    for lit in np.linspace(0, 1, 9):        # from the dark inside to the bright top
        dx, dy, r = rng.uniform((-1.2, -0.9, 0.7), (1.2, 0.5, 1.3))
        leaves = (44 + 44 * lit, 84 + 50 * lit, 40 + 20 * lit)
        paint.disc(x + dx, 4 + dy + lit, z, (r, r, 0), leaves, VEGETATION)


def draw_post(paint, rng, x, z):
    """A pole with a traffic light or a sign."""
    paint.rect((x - 0.09, x + 0.09), (0, 4.6), (z, z), METAL, POLE)
    kind = rng.integers(5)
    if kind < 3:
        paint.rect((x - 0.32, x + 0.32), (3, 4.8), (z, z), (38, 40, 42), TRAFFIC_LIGHT)
        lamp = [(70, 225, 120), (250, 190, 60), (240, 60, 50)][kind]
        paint.disc(x, 3.4 + 0.5 * kind, z, (0.22, 0.22, 0), lamp)
    else:
        paint.disc(x, 3.9, z, (0.6, 0.6, 0), (236, 236, 236), SIGN)
        paint.disc(x, 3.9, z, (0.48, 0.48, 0), [(30, 90, 190), (200, 40, 44)][kind - 3])


def draw_person(paint, rng, x, z, inst):
    coat, step = rng.integers(40, 190, 3), rng.uniform(0.1, 0.3)
    paint.disc(x, 0, z, (0.5, 0, 0.4), (76, 74, 76))
    for foot in (x - step, x + step):
        leg = [(x - 0.18, 1, z), (x + 0.18, 1, z), (foot + 0.1, 0, z), (foot - 0.1, 0, z)]
        paint.polygon(leg, (48, 50, 66), inst)
    paint.disc(x, 1.15, z, (0.3, 0.42, 0), coat, inst)
    paint.disc(x, 1.64, z, (0.14, 0.17, 0), (206, 160, 132), inst)


def draw_car(paint, rng, x, z, colour, inst):
    """A car that begins at distance `z`: on the left its front faces the camera, on the right its
    rear."""
    side = 0.9 if x < 0 else -0.9           # towards the middle of the street
    roof = rng.uniform(1.42, 1.66)
    if x < 0:
        lamp, low, high = (250, 246, 214), z + 1.2, z + 1.9
    else:
        lamp, low, high = (224, 40, 30), z + 0.3, z + 0.7

    for grow, grey in ((0.5, 84), (0.2, 58)):               # the shadow stays road in the maps
        paint.disc(x, 0, z + 2.1, (1.1 + grow, 0, 2.4 + grow), (grey, grey, grey + 3))
    for tyre in (x - 0.72, x + 0.72):
        paint.rect((tyre - 0.13, tyre + 0.13), (0, 0.4), (z, z), RUBBER, inst)

    paint.rect((x + side, x + side), (0.26, 1), (z, z + 4.2), colour, inst, 0.9)
    for wheel in (z + 0.9, z + 3.3):
        paint.disc(x + side, 0.33, wheel, (0, 0.33, 0.33), RUBBER, inst)
    paint.rect((x - 0.9, x + 0.9), (1, 1), (z, z + 4.2), colour, inst, 1.08)
    paint.polygon([(x + 0.92 * side, 1, low), (x + 0.92 * side, 1, z + 3.8),
                   (x + 0.75 * side, roof, z + 3.2), (x + 0.75 * side, roof, high)], GLASS, inst)
    paint.rect((x - 0.7, x + 0.7), (roof, roof), (high, z + 3.2), colour, inst, 1.08)

    for x0, y0, x1, y1, ink in ((0.84, 1, 0.7, roof, colour),
                                (0.66, 1.08, 0.55, roof - 0.1, GLASS)):             # sloping
        paint.polygon([(x - x0, y0, low), (x + x0, y0, low),
                       (x + x1, y1, high), (x - x1, y1, high)], ink, inst)
    paint.rect((x - 0.9, x + 0.9), (0.24, 1), (z, z), colour, inst)
    paint.rect((x - 0.9, x + 0.9), (0.24, 0.33), (z, z), (56, 56, 60))
    for middle, width, y, ink in ((-0.73, 0.13, 0.8, lamp), (0.73, 0.13, 0.8, lamp),
                                  (0, 0.24, 0.56, (232, 232, 226))):
        across = x + middle - width, x + middle + width
        paint.rect(across, (y - 0.07, y + 0.07), (z, z), ink)


def draw_scene(index, size=(256, 128), seed=0, colour_seed=None):
    """Draw scene `index` of the data set `seed`, `size` (width, height) large, at least 32 each:
    another size shows the same scene in more or less detail. `colour_seed` stands in for `seed` in
    the paint of cars and buildings; the maps do not depend on it.

    -> Scene: label (H, W) uint8, Cityscapes ids; inst (H, W) int32; image (H, W, 3) uint8, RGB;
    colours {int: int}, from the instance id of every car and building in `inst` to its row of
    CAR_COLOURS or BUILDING_COLOURS. ValueError where the size is too small.
    """
    if min(size) < 32:
        raise ValueError('a scene needs a width and a height of at least 32, and got '
                         f'{size[0]}x{size[1]}')
    # No draw of `rng` may depend on the size or on a colour.
    rng = np.random.default_rng([seed, index, 0])
    colour_rng = np.random.default_rng([seed if colour_seed is None else colour_seed, index, 1])
    paint, colours = Painter(size, rng), {}

    def new(label, palette):
        inst = label * 1000 + sum(i // 1000 == label for i in colours)
        colours[inst] = int(colour_rng.integers(len(palette)))
        return palette[colours[inst]], inst

    draw_ground(paint, rng.choice([7.2, 9.5]))
    paint.rect((-40, 40), (0, rng.uniform(9, 14)), (85, 85), *new(BUILDING, BUILDING_COLOURS))
    for x in np.arange(-12, 13, 3) + rng.uniform(-1, 1, 9):
        draw_tree(paint, rng, x, 75)
    for side in (-1, 1):
        ends = 5 + rng.uniform(9, 15, 6).cumsum()
        for near, far in zip(ends[-2::-1], ends[:0:-1]):
            far -= rng.choice([0, 3])
            draw_building(paint, rng, side, near, far, *new(BUILDING, BUILDING_COLOURS))

    things = []                                             # (draw, x, z, ...)
    for side in (-1, 1):
        things += [(draw_tree, side * 8, z) for z in rng.uniform(13, 45, rng.integers(1, 4))]
        things += [(draw_post, side * 6.2, z) for z in rng.uniform(12, 30, rng.integers(0, 3))]
    for k, x in enumerate(rng.choice([-6.9, -2.9, 2.9, 6.9], rng.integers(1, 4), replace=False)):
        things.append((draw_person, x, rng.uniform(12, 18), PERSON * 1000 + k))
    spots = np.array([(-4.5, 10.5), (-1.9, 7.5), (1.7, 6.5), (4.4, 10)])    # two lanes, two kerbs
    spots = rng.permutation(spots + rng.uniform((0, 0), (0.2, 3), (4, 2)))
    things += [(draw_car, x, z, *new(CAR, CAR_COLOURS)) for x, z in spots[:rng.integers(2, 5)]]

    for draw, *where in sorted(things, key=lambda thing: -thing[2]):
        draw(paint, rng, *where)
    paint.disc(0, 0.4, 2, (1.2, 0.76, 0), (44, 48, 56), EGO)

    middles = slice(SUPERSAMPLE // 2, None, SUPERSAMPLE)
    inst = np.asarray(paint.inst, np.int32)[middles, middles].copy()
    label = np.where(inst < 1000, inst, inst // 1000).astype(np.uint8)

    coarse, fine = (upsample(rng.uniform(-1, 1, (n, 2 * n)), size) for n in (10, 28))
    leafy = np.isin(label, (VEGETATION, TERRAIN))
    grain = np.where(label == SKY, 0, 0.04 * coarse + np.where(leafy, 0.22, 0.03) * fine)
    image = np.asarray(paint.image.reduce(SUPERSAMPLE)) * (1 + grain[..., None])
    return Scene(label, inst, image.clip(0, 255).astype(np.uint8),
                 {int(i): colours[int(i)] for i in np.unique(inst) if int(i) in colours})


def write_dataset(folder, split, count, size, seed=0):
    """Write scenes 0 ... count - 1 in the layout of Cityscapes:
    `<folder>/gtFine/<split>/toy/toy_0000_gtFine_labelIds.png` (8 bits) and
    `..._instanceIds.png` (16 bits), and
    `<folder>/leftImg8bit/<split>/toy/toy_0000_leftImg8bit.png`.

    Only `seed` tells two splits apart: give each its own. `scene(i, size, seed).colours` has the
    truth of file i.
    """
    for index in range(count):
        drawn = draw_scene(index, size, seed)
        inst = drawn.inst.astype(np.uint16)
        for kind, ending, pixels in (('gtFine', 'gtFine_labelIds', drawn.label),
                                     ('leftImg8bit', 'leftImg8bit', drawn.image),
                                     ('gtFine', 'gtFine_instanceIds', inst)):
            path = Path(folder, kind, split, 'toy', f'toy_{index:04d}_{ending}.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def run_demo(folder, seed, device, command):
    """The subcommands one after the other, as a user would type them, and one picture of what came
    of it -> exit code. command: a function of the words of a command line -> exit code. UserError
    where the folder is there already."""
    scenes, fine = folder / 'scenes', runs.sibling_folder(folder, '-256x128')
    for there in (folder, fine):
        if there.exists():
            raise UserError(f'{there}: there already; --run DIR puts another demo elsewhere')
    make_folder(scenes)
    log_info(f'drawing street scenes into {scenes}')
    write_dataset(scenes, 'train', 80, (256, 128), seed=seed)
    write_dataset(scenes, 'val', 1, (256, 128), seed=seed + 1)
    draw_scene, maps = 'toy_0000', scenes / 'gtFine' / 'val' / 'toy'
    label, inst = (maps / f'{draw_scene}_gtFine_{kind}Ids.png' for kind in ('label', 'instance'))

    both = f'--seed {seed} --device {device}'
    scenes_, run_, fine_, label_, inst_ = map(quote, (scenes, folder, fine, label, inst))
    generate = f'generate --run {fine_} --label {label_} --inst {inst_} {both}'
    for words in (
            f'train --data {scenes_} --run {run_} --size 128x64 --steps 1200 --ngf 24 --n-down 3 '
            '--n-blocks 3 --ndf 24 --n-scales 2 --n-down-encoder 3 --lr 5e-4 --log-every 100 '
            f'{both}',
            f'finetune --from {run_} --run {fine_} --steps 550 --fix-global 1 --lr 5e-4 '
            f'--log-every 100 {both}',
            f'cluster --run {fine_} --data {scenes_} --k 5 {both}',
            generate, f'{generate} --sample --n 4'):
        log_info(f'\n$ python p2phd.py {words}')
        code = command(shlex.split(words))
        if code:
            return code

    colours = np.array([colour for _, colour in CITYSCAPES], np.uint8)
    made = fine / 'generated'
    real = scenes / 'leftImg8bit' / 'val' / 'toy' / f'{draw_scene}_leftImg8bit.png'
    pictures = {'label map': Image.fromarray(colours[np.asarray(Image.open(label))]),
                'synthesised': Image.open(made / f'{draw_scene}_generated.png'),
                'real': Image.open(real)}
    pictures |= {f'sample {i}': Image.open(made / f'{draw_scene}_seed{seed}_{i}.png')
                 for i in range(1, 5)}
    w, h, caption = 256, 128, 14
    sheet = Image.new('RGB', (4 * w, 2 * (h + caption)), 'white')
    for i, (title, picture) in enumerate(pictures.items()):
        row, column = (0, i) if i < 3 else (1, i - 3)
        ImageDraw.Draw(sheet).text((column * w + 4, row * (h + caption) + 1), title, 'black')
        sheet.paste(picture, (column * w, row * (h + caption) + caption))
    sheet.save(folder / 'demo.png')
    log_info('\nlabel map, synthesised and real picture, and four samples of the same map:\n'
        f'{folder / "demo.png"}')
    return 0
