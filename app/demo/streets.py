"""The demo and its data set: street scenes with the labels of Cityscapes, to try everything without
a download. Cars and buildings take their colours from short lists, independently of both maps, so
these lists are the ground truth for the clusters of features."""
from collections import namedtuple
from math import cos, exp, pi, sin
from pathlib import Path
import shlex

import numpy as np
from PIL import Image, ImageDraw

from app.common.console import log_info, quote
from app.common.errors import UserError
from app.common.files import make_folder
from app.datasets.layouts import CITYSCAPES, find_pairs
from app.runs import folders

EGO, ROAD, SIDEWALK, BUILDING, POLE, TRAFFIC_LIGHT, SIGN = 1, 7, 8, 11, 17, 19, 20
VEGETATION, TERRAIN, SKY, PERSON, CAR = 21, 22, 23, 24, 26
CAR_COLOURS = np.array([(196, 32, 36), (36, 84, 190), (226, 228, 230), (238, 190, 36),
                        (22, 58, 42)], 'uint8')
BUILDING_COLOURS = np.array([(228, 210, 176), (166, 80, 60), (112, 140, 182), (214, 154, 64),
                             (138, 172, 126)], 'uint8')
GLASS, RUBBER, METAL, HAZE = (52, 62, 76), (32, 32, 34), (92, 94, 98), np.array((206, 214, 224))
FOCAL_LENGTH, CAMERA_HEIGHT = 0.9, 1.7      # in picture widths; in metres
SUPERSAMPLE = 3                             # odd: the middle sample is the centre of the pixel
SIZE, N_SAMPLES, CAPTION = (256, 128), 4, 14        # of the demo; CAPTION: height in pixels

StreetScene = namedtuple('StreetScene', 'label inst image colours')


def upsample(grid, size):
    """Enlarge a coarse float grid (h, w) smoothly to `size` (width, height)."""
    grid = Image.fromarray(grid.astype(np.float32))
    return np.asarray(grid.resize(size, Image.Resampling.BICUBIC))


class Street:
    """A picture and its instance map. Points (x, y, z) are in metres: right of the camera, above
    the road, away from the camera. No draw of `rng` may depend on the size or on a colour."""

    def __init__(self, size, rng, colour_rng):
        self.rng, self.colour_rng, self.colours = rng, colour_rng, {}
        self.w, self.h = (SUPERSAMPLE * n for n in size)
        self.vanish, self.horizon = rng.uniform(0.43, 0.57), rng.uniform(0.44, 0.5)
        height = np.linspace(1, 0, 24)[:, None, None]
        clouds = (1.3 * upsample(rng.random((5, 6)), (48, 24)) - 0.35).clip(0, 0.9)[..., None]
        sky = (1 - clouds) * (height * (92, 148, 214) + (1 - height) * (196, 216, 234))
        sky = Image.fromarray((sky + clouds * 246).astype(np.uint8))
        self.image = sky.resize((self.w, self.h), Image.Resampling.BICUBIC)
        self.inst = Image.new('I', (self.w, self.h), SKY)
        sidewalk_end, distances = rng.choice([7.2, 9.5]), np.geomspace(90, 2, 18)
        for strip in zip(distances, distances[1:]):         # so that haze grows with the distance
            for x, colour, label in ((99, (118, 142, 84), TERRAIN),
                                     (sidewalk_end, (176, 166, 162), SIDEWALK),
                                     (5.9, (206, 202, 198), SIDEWALK), (5.6, (98, 97, 102), ROAD)):
                self.rectangle((-x, x), (0, 0), strip, colour, label)
        for z in range(3, 60, 6):                           # lane markings
            for x, end in ((0, z + 3), (-3.4, z + 6), (3.4, z + 6)):
                self.rectangle((x - 0.08, x + 0.08), (0, 0), (z, end), (222, 222, 218))
        self.rectangle((-40, 40), (0, rng.uniform(9, 14)), (85, 85),
                       *self.new_instance(BUILDING, BUILDING_COLOURS))
        for x in np.arange(-12, 13, 3) + rng.uniform(-1, 1, 9):
            self.tree(x, 75)
        for side in (-1, 1):
            ends = 5 + rng.uniform(9, 15, 6).cumsum()[::-1]
            for far, near in zip(ends, ends[1:]):
                self.building(side, near, far - rng.choice([0, 3]))
        objects = []                                # (method, x, z, its other arguments)
        for side in (-1, 1):
            objects += [(self.tree, side * 8, z) for z in rng.uniform(13, 45, rng.integers(1, 4))]
            objects += [(self.post, side * 6.2, z) for z in rng.uniform(12, 30, rng.integers(3))]
        persons = rng.choice([-6.9, -2.9, 2.9, 6.9], rng.integers(1, 4), replace=False)
        objects += [(self.person, x, rng.uniform(12, 18), i)
                    for i, x in enumerate(persons, PERSON * 1000)]
        cars = np.array([(-4.5, 10.5), (-1.9, 7.5), (1.7, 6.5), (4.4, 10)])     # lanes and kerbs
        cars = rng.permutation(cars + rng.uniform((0, 0), (0.2, 3), (4, 2)))[:rng.integers(2, 5)]
        objects += [(self.car, x, z, *self.new_instance(CAR, CAR_COLOURS)) for x, z in cars]
        for method, *place in sorted(objects, key=lambda item: -item[2]):   # the farthest first
            method(*place)
        self.ellipse(0, 0.4, 2, (1.2, 0.76, 0), (44, 48, 56), EGO)

    def new_instance(self, label, palette):
        """Return a colour of the palette and an id for a car or a building."""
        inst = label * 1000 + sum(i // 1000 == label for i in self.colours)
        self.colours[inst] = int(self.colour_rng.integers(len(palette)))
        return palette[self.colours[inst]], inst

    def polygon(self, points, colour, inst=None, light=1):
        """Fill a polygon, with haze if it is far away. Without `inst` the maps do not change."""
        xy = [(self.w * (self.vanish + FOCAL_LENGTH * x / z),
               self.h * (self.horizon + 2 * FOCAL_LENGTH * (CAMERA_HEIGHT - y) / z))
              for x, y, z in points]
        clear = exp(-min(z for _, _, z in points) / 160)
        ink = clear * light * np.asarray(colour) + (1 - clear) * HAZE
        ImageDraw.Draw(self.image).polygon(xy, tuple(ink.clip(0, 255).astype(int)))
        if inst is not None:
            ImageDraw.Draw(self.inst).polygon(xy, int(inst))

    def rectangle(self, x, y, z, *args, **kwargs):
        """Fill the rectangle between two corners: along the street if both x are equal."""
        second, last = reversed(z) if x[0] == x[1] else z
        self.polygon([(x[0], y[0], z[0]), (x[1], y[0], second), (x[1], y[1], z[1]),
                      (x[0], y[1], last)], *args, **kwargs)

    def ellipse(self, x, y, z, radii, *args, **kwargs):
        """Fill the ellipse around (x, y, z) with `radii` along the three axes, one of them 0."""
        a, b, c = radii
        circle = ((cos(pi * i / 10), sin(pi * i / 10)) for i in range(20))
        self.polygon([(x + a * u, y + b * v, z + c * (u if a == 0 else v)) for u, v in circle],
                     *args, **kwargs)

    def building(self, side, near, far):            # side: -1 left, 1 right
        colour, inst = self.new_instance(BUILDING, BUILDING_COLOURS)
        x, top, storey = side * 9.5, self.rng.uniform(8, 18), self.rng.uniform(3, 3.8)
        self.rectangle((x, x + side * 12), (0, top), (near, near), colour, inst, 0.82)
        self.rectangle((x, x), (0, top), (near, far), colour, inst, 0.98 - 0.04 * side)
        self.rectangle((x, x), (0, 0.9), (near, far), colour, light=0.7)
        self.rectangle((x, x), (top - 0.5, top), (near, far), colour, light=0.78)
        bays = np.linspace(near, far, max(1, round((far - near) / 4)) + 1)
        for y in np.arange(1.4, top - 2.2, storey):
            for z in bays[:-1]:
                self.rectangle((x, x), (y, y + 1.8), (z + 1, z + bays[1] - bays[0] - 1), GLASS)

    def tree(self, x, z):
        self.ellipse(x, 0, z, (1.6, 0, 1.2), (84, 86, 84))
        self.rectangle((x - 0.17, x + 0.17), (0, 3), (z, z), (92, 72, 56), VEGETATION)
        for light in np.linspace(0, 1, 9):      # from the dark inside to the bright top
            dx, dy, r = self.rng.uniform((-1.2, -0.9, 0.7), (1.2, 0.5, 1.3))
            leaves = (44 + 44 * light, 84 + 50 * light, 40 + 20 * light)
            self.ellipse(x + dx, 4 + dy + light, z, (r, r, 0), leaves, VEGETATION)

    def post(self, x, z):
        self.rectangle((x - 0.09, x + 0.09), (0, 4.6), (z, z), METAL, POLE)
        kind = self.rng.integers(5)
        ink = [(70, 225, 120), (250, 190, 60), (240, 60, 50), (30, 90, 190), (200, 40, 44)][kind]
        if kind < 3:
            self.rectangle((x - 0.32, x + 0.32), (3, 4.8), (z, z), (38, 40, 42), TRAFFIC_LIGHT)
            self.ellipse(x, 3.4 + 0.5 * kind, z, (0.22, 0.22, 0), ink)
        else:
            self.ellipse(x, 3.9, z, (0.6, 0.6, 0), (236, 236, 236), SIGN)
            self.ellipse(x, 3.9, z, (0.48, 0.48, 0), ink)

    def person(self, x, z, inst):
        coat, step = self.rng.integers(40, 190, 3), self.rng.uniform(0.1, 0.3)
        self.ellipse(x, 0, z, (0.5, 0, 0.4), (76, 74, 76))
        for foot in (x - step, x + step):
            leg = [(x - 0.18, 1, z), (x + 0.18, 1, z), (foot + 0.1, 0, z), (foot - 0.1, 0, z)]
            self.polygon(leg, (48, 50, 66), inst)
        self.ellipse(x, 1.15, z, (0.3, 0.42, 0), coat, inst)
        self.ellipse(x, 1.64, z, (0.14, 0.17, 0), (206, 160, 132), inst)

    def car(self, x, z, colour, inst):
        # We see the front of cars on the left, the rear of others, and one side, towards the middle
        # of the street. low, high: the ends of the near window.
        side, lamp, low, high = ((0.9, (250, 246, 214), z + 1.2, z + 1.9) if x < 0 else
                                 (-0.9, (224, 40, 30), z + 0.3, z + 0.7))
        roof = self.rng.uniform(1.42, 1.66)
        for grow, grey in ((0.5, 84), (0.2, 58)):               # in the maps the shadow is road
            self.ellipse(x, 0, z + 2.1, (1.1 + grow, 0, 2.4 + grow), (grey, grey, grey + 3))
        for tyre in (x - 0.72, x + 0.72):
            self.rectangle((tyre - 0.13, tyre + 0.13), (0, 0.4), (z, z), RUBBER, inst)
        self.rectangle((x + side, x + side), (0.26, 1), (z, z + 4.2), colour, inst, 0.9)
        for wheel in (z + 0.9, z + 3.3):
            self.ellipse(x + side, 0.33, wheel, (0, 0.33, 0.33), RUBBER, inst)
        self.rectangle((x - 0.9, x + 0.9), (1, 1), (z, z + 4.2), colour, inst, 1.08)
        window = [(0.92, 1, low), (0.92, 1, z + 3.8), (0.75, roof, z + 3.2), (0.75, roof, high)]
        self.polygon([(x + a * side, *point) for a, *point in window], GLASS, inst)
        self.rectangle((x - 0.7, x + 0.7), (roof, roof), (high, z + 3.2), colour, inst, 1.08)
        for a, y, b, top, ink in ((0.84, 1, 0.7, roof, colour),             # the sloping end
                                  (0.66, 1.08, 0.55, roof - 0.1, GLASS)):
            self.polygon([(x - a, y, low), (x + a, y, low), (x + b, top, high), (x - b, top, high)],
                         ink, inst)
        self.rectangle((x - 0.9, x + 0.9), (0.24, 1), (z, z), colour, inst)
        self.rectangle((x - 0.9, x + 0.9), (0.24, 0.33), (z, z), (56, 56, 60))
        for middle, a, y, ink in ((x - 0.73, 0.13, 0.8, lamp), (x + 0.73, 0.13, 0.8, lamp),
                                  (x, 0.24, 0.56, (232, 232, 226))):        # lamps, number plate
            self.rectangle((middle - a, middle + a), (y - 0.07, y + 0.07), (z, z), ink)


def draw_scene(index, size=(256, 128), seed=0):
    """Draw scene `index` of the data set `seed`; any size (width, height) shows the same. Returns
    label (H, W) uint8; inst (H, W) int32, `label * 1000 + k` for cars, persons and buildings, else
    the label; image (H, W, 3) uint8; and {id in inst: row of CAR_COLOURS or BUILDING_COLOURS}."""
    if min(size) < 32:
        raise ValueError(f'a scene needs at least 32x32 pixels, not {size[0]}x{size[1]}')
    rng, colour_rng = (np.random.default_rng([seed, index, i]) for i in range(2))
    street = Street(size, rng, colour_rng)
    centres = slice(SUPERSAMPLE // 2, None, SUPERSAMPLE)
    inst = np.asarray(street.inst, np.int32)[centres, centres].copy()
    label = np.where(inst < 1000, inst, inst // 1000).astype(np.uint8)
    coarse, fine = (upsample(rng.uniform(-1, 1, (n, 2 * n)), size) for n in (10, 28))
    leafy = np.isin(label, (VEGETATION, TERRAIN))
    grain = np.where(label == SKY, 0, 0.04 * coarse + np.where(leafy, 0.22, 0.03) * fine)
    image = np.asarray(street.image.reduce(SUPERSAMPLE)) * (1 + grain[..., None])
    return StreetScene(label, inst, image.clip(0, 255).astype(np.uint8),
                       {i: k for i, k in street.colours.items() if i in inst})


def write_dataset(folder, split, count, size, seed=0):
    """Write `count` scenes in the layout of Cityscapes. Give each split a seed of its own."""
    for index in range(count):
        label, inst, image, _ = draw_scene(index, size, seed)
        for kind, ending, pixels in (('gtFine', '_labelIds', label), ('leftImg8bit', '', image),
                                     ('gtFine', '_instanceIds', inst.astype(np.uint16))):
            path = Path(folder, kind, split, 'toy', f'toy_{index:04d}_{kind}{ending}.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def run_demo(folder, seed, device, run_words):
    """Draw the scenes, run the subcommands as a user types them, and write `folder`/demo.png.
    run_words: runs a list of words and returns its exit code. Return 0, or the first other one."""
    scenes, finetuned = folder / 'scenes', folders.sibling_folder(folder, '-256x128')
    for path in (folder, finetuned):
        if path.exists():
            raise UserError(f'{path}: already exists; use --run DIR to put the demo elsewhere')
    make_folder(scenes)
    log_info(f'drawing street scenes into {scenes}; the demo takes 5 to 8 minutes on two cores')
    write_dataset(scenes, 'train', 80, SIZE, seed=seed)
    write_dataset(scenes, 'val', 1, SIZE, seed=seed + 1)
    pair = find_pairs(scenes, 'val')[1][0]
    data, run, fine, label, inst = map(quote, (scenes, folder, finetuned, pair.label, pair.inst))
    generate = f'generate --run {fine} --label {label} --inst {inst}'
    stages = [
        f'train --data {data} --run {run} --size 128x64 --steps 1200 --ngf 24 --n-down 3 '
        '--n-blocks 3 --ndf 24 --n-scales 2 --n-down-encoder 3 --lr 5e-4 --log-every 100',
        f'finetune --from {run} --run {fine} --steps 550 --fix-global 1 --lr 5e-4 --log-every 100',
        f'cluster --run {fine} --data {data} --k 5', generate,
        f'{generate} --sample --n {N_SAMPLES}']
    for number, stage in enumerate(stages, 1):
        stage = f'{stage} --seed {seed} --device {device}'
        log_info(f'\nstage {number} of {len(stages)}\n$ python p2phd.py {stage}')
        if code := run_words(shlex.split(stage)):
            return code
    generated, (w, h) = finetuned / 'generated', SIZE
    rows = [{'label map': pair.label,
             'synthesised': generated / f'{pair.name}_generated.png', 'drawn': pair.image},
            {f'sample {i}': generated / f'{pair.name}_seed{seed}_{i}.png'
             for i in range(1, N_SAMPLES + 1)}]
    sheet = Image.new('RGB', (N_SAMPLES * w, 2 * (h + CAPTION)), 'white')
    for y, row in zip((0, h + CAPTION), rows):
        for i, (title, path) in enumerate(row.items()):
            picture = Image.open(path)
            if path == pair.label:
                picture.putpalette([value for _, colour in CITYSCAPES for value in colour])
            ImageDraw.Draw(sheet).text((i * w + 4, y + 1), title, 'black')
            sheet.paste(picture, (i * w, y + CAPTION))
    sheet.save(folder / 'demo.png')
    log_info('\nlabel map, synthesised and drawn picture, and four samples of the same map:\n'
             f'{folder / "demo.png"}')
    return 0
