"""The demo and its data set: street scenes with the labels of Cityscapes, to try everything without
a download. Cars and buildings take their colours from short lists, independently of both maps, so
these lists are the ground truth for the clusters of features."""
from collections import namedtuple
from math import cos, exp, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from app.common import console
from app.common.console import log_info, quote
from app.common.errors import UserError
from app.common.files import make_folder
from app.datasets.layouts import CITYSCAPES, find_pairs
from app.runs import folders

EGO, ROAD, SIDEWALK, BUILDING, POLE, TRAFFIC_LIGHT, SIGN = 1, 7, 8, 11, 17, 19, 20
VEGETATION, TERRAIN, SKY, PERSON, CAR = 21, 22, 23, 24, 26
# A row of a palette is a style. Rows are drawn independently of each other and of both maps.
CAR_COLOURS = np.array([(190, 28, 34), (30, 84, 184), (232, 233, 236), (242, 188, 38),
                        (22, 116, 68), (38, 40, 46), (104, 186, 196)], 'uint8')
BUILDING_COLOURS = np.array([(236, 216, 178), (172, 74, 54), (112, 144, 190), (226, 156, 60),
                             (134, 176, 122), (206, 128, 140)], 'uint8')
# Of each building style: trim and awning, width and height of a window in metres, shutters or not.
FACADES = [
    ((250, 242, 224), (150, 44, 48), 1.2, 1.9, 1), ((236, 226, 210), (40, 74, 66), 1.3, 1.8, 0),
    ((226, 232, 238), (34, 66, 122), 1.9, 1.7, 0), ((252, 240, 214), (96, 52, 40), 1.1, 2.0, 1),
    ((240, 240, 228), (206, 150, 40), 1.4, 1.7, 0), ((250, 236, 230), (72, 74, 84), 1.2, 1.9, 0)]
# Of persons: coat, trousers, hair and skin.
PERSON_COLOURS = np.array([[(178, 44, 52), (44, 50, 70), (52, 36, 28), (222, 178, 150)],
                           [(52, 92, 156), (70, 66, 62), (150, 112, 66), (230, 190, 164)],
                           [(214, 176, 70), (52, 70, 104), (36, 30, 28), (150, 104, 76)],
                           [(70, 122, 88), (58, 54, 52), (90, 56, 38), (214, 166, 138)],
                           [(226, 224, 218), (76, 92, 124), (40, 34, 32), (120, 82, 60)],
                           [(64, 58, 72), (40, 42, 50), (168, 132, 84), (226, 184, 156)]], 'uint8')
# Of the sky: zenith, horizon, share of clouds.
SKIES = [((74, 134, 208), (198, 220, 238), 0.35), ((58, 120, 204), (186, 214, 238), 0),
         ((116, 156, 204), (222, 228, 232), 0.75), ((110, 144, 196), (246, 218, 184), 0.3)]
LEAVES = np.array([(84, 134, 50), (58, 116, 66), (132, 148, 50)], 'uint8')
# Lengths of car, bonnet and boot, heights of bonnet and roof, in metres.
CAR_SHAPES = [(4.5, 1.15, 0.7, 0.98, 1.44), (4, 0.9, 0.12, 1, 1.5), (4.5, 1.05, 0.15, 1.14, 1.76),
              (4.9, 0.5, 0.06, 1.2, 2.08)]
GLASS, RUBBER, METAL, HAZE = (48, 58, 72), (30, 30, 32), (84, 88, 94), (206, 214, 224)
# The sun is always behind the camera on the left: a point at a height of 1 m throws its shadow this
# far to the right and away. So the light needs no style, and styles of one picture fit together.
SUN, SHADED, LIT = (0.62, 0.4), 0.74, 1.06
FOCAL_LENGTH, CAMERA_HEIGHT = 0.9, 1.7      # in picture widths; in metres
SUPERSAMPLE = 3                             # odd: the middle sample is the centre of the pixel
CIRCLE = [(cos(pi * i / 12), sin(pi * i / 12)) for i in range(24)]
SIZE, N_SAMPLES, CAPTION = (256, 128), 4, 14        # of the demo; CAPTION: height in pixels
HOURS = 0.035               # of each of the demo's two trainings

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
        self.leaves, self.sky, self.light, self.sign = (
            int(colour_rng.integers(n)) for n in (len(LEAVES), len(SKIES), 3, 2))
        self.image = self.draw_sky()
        self.inst = Image.new('I', (self.w, self.h), SKY)
        self.shadow = Image.new('L', (self.w, self.h))
        self.pens = [ImageDraw.Draw(image) for image in (self.image, self.inst, self.shadow)]
        self.draw_ground(rng.choice([7.2, 9.5]))
        backdrop, inst = self.new_instance(BUILDING, BUILDING_COLOURS)
        top = rng.uniform(9, 14)
        buildings = []
        for side in (-1, 1):
            ends = 5 + rng.uniform(9, 15, 6).cumsum()[::-1]
            buildings += [(side, near, far - rng.choice([0, 3]), rng.integers(2, 5),
                           *self.new_instance(BUILDING, BUILDING_COLOURS))
                          for far, near in zip(ends, ends[1:])]
        for _, near, far, *_ in buildings[:5]:              # those on the left shade the sidewalk
            self.cast_shadow((-12, -9.5), (near, far), 6.6)
        objects = self.place_objects()
        for method, x, z, *more in objects:
            self.shadow_of(method.__name__, x, z, *more)
        soft = self.shadow.filter(ImageFilter.GaussianBlur(self.w / 500))
        dark = Image.fromarray((np.asarray(self.image) * (0.44, 0.46, 0.54)).astype(np.uint8))
        self.image.paste(dark, mask=soft)
        self.rectangle((-40, 40), (0, top), (85, 85), BUILDING_COLOURS[backdrop], inst)
        for y in np.arange(1, top - 2, 3.3):
            for x in np.arange(-30, 30, 3):
                self.rectangle((x, x + 1.6), (y, y + 1.9), (85, 85), GLASS)
        for x in np.arange(-12, 13, 3) + rng.uniform(-1, 1, 9):
            self.tree(x, 75)
        for building in buildings:
            self.building(*building)
        for method, *place in sorted(objects, key=lambda item: -item[2]):   # the farthest first
            method(*place)
        self.ellipse(0, 0.4, 2, (1.2, 0.76, 0), (36, 40, 47), EGO)
        self.ellipse(0, 0.37, 2, (1.1, 0.72, 0), (52, 57, 66))

    def draw_sky(self):
        zenith, horizon, cloudy = SKIES[self.sky]
        height = np.linspace(1, -1, 48).clip(0)[:, None, None]
        # Each kind of sky has its own clouds, which move with the vanishing point.
        clouds = upsample(np.random.default_rng(self.sky).random((12, 14)), (160, 48))
        left = 32 + round(96 * (0.5 - self.vanish))
        clouds = (2.4 * (clouds[:, left:left + 96, None] - 1 + cloudy)).clip(0, 0.95)
        sky = (1 - clouds) * (height * zenith + (1 - height) * horizon) + clouds * (250, 249, 247)
        sky = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
        return sky.resize((self.w, self.h), Image.Resampling.BICUBIC)

    def draw_ground(self, sidewalk_end):
        distances = np.geomspace(90, 2, 40)
        for strip in zip(distances, distances[1:]):         # so that haze grows with the distance
            for x, colour, label in (
                    (99, (126, 146, 84), TERRAIN), (sidewalk_end, (188, 178, 170), SIDEWALK),
                    (5.9, (214, 210, 204), SIDEWALK), (5.6, (116, 115, 118), ROAD)):
                self.rectangle((-x, x), (0, 0), strip, colour, label)
            for x, half, grey in ((-4.6, 0.9, 124), (-1.8, 0.9, 124), (1.8, 0.9, 124),
                                  (4.6, 0.9, 124), (-5.4, 0.2, 100), (5.4, 0.2, 100)):
                self.rectangle((x - half, x + half), (0, 0), strip, (grey, grey - 1, grey + 2))
        for z in np.arange(4, 50, 2):                       # joints of the paving stones
            for side in (-1, 1):
                self.rectangle((side * 5.9, side * sidewalk_end), (0, 0), (z, z + 0.07),
                               (158, 149, 143))
        for z in range(3, 60, 6):                           # lane markings
            for x, end in ((0, z + 3), (-3.4, z + 6), (3.4, z + 6)):
                self.rectangle((x - 0.08, x + 0.08), (0, 0), (z, end), (224, 223, 216))

    def place_objects(self):
        """Return [(method, x, z, its other arguments)] of all that stands in the street."""
        rng, objects = self.rng, []
        for side in (-1, 1):
            objects += [(self.tree, side * 8, z) for z in rng.uniform(13, 45, rng.integers(1, 4))]
            objects += [(self.post, side * 6.2, z, int(rng.integers(3)))
                        for z in rng.uniform(12, 34, rng.integers(1, 4))]
        persons = rng.choice([-6.9, -2.9, 2.9, 6.9], rng.integers(1, 4), replace=False)
        objects += [(self.person, x, rng.uniform(12, 18), rng.uniform(0.1, 0.3),
                     *self.new_instance(PERSON, PERSON_COLOURS)) for x in persons]
        cars = np.array([(-4.5, 10.5), (-1.9, 7.5), (1.7, 6.5), (4.4, 10),      # lanes and kerbs
                         (-4.5, 22), (4.4, 21), (-4.5, 31), (4.4, 30)])         # far away
        cars += rng.uniform((0, 0), (0.2, 3), cars.shape)
        shapes = rng.integers(len(CAR_SHAPES), size=len(cars))
        present = [*rng.permutation(4)[:rng.integers(2, 5)], *range(4, 4 + rng.integers(5))]
        objects += [(self.car, *cars[i], CAR_SHAPES[shapes[i]],
                     *self.new_instance(CAR, CAR_COLOURS)) for i in present]
        return objects

    def new_instance(self, label, palette):
        """Return a row of the palette and an id for an object with a style of its own."""
        inst = label * 1000 + sum(i // 1000 == label for i in self.colours)
        self.colours[inst] = int(self.colour_rng.integers(len(palette)))
        return self.colours[inst], inst

    def project(self, points):
        return [(self.w * (self.vanish + FOCAL_LENGTH * x / z),
                 self.h * (self.horizon + 2 * FOCAL_LENGTH * (CAMERA_HEIGHT - y) / z))
                for x, y, z in points]

    def polygon(self, points, colour, inst=None, light=1):
        """Fill a polygon, with haze if it is far away. Without `inst` the maps do not change."""
        # Python's floats: numpy takes five times as long for so few numbers.
        points = [(float(x), float(y), float(z)) for x, y, z in points]
        xy = self.project(points)
        clear, light = exp(-min(z for _, _, z in points) / 160), float(light)
        self.pens[0].polygon(xy, tuple(
            int(min(max(clear * light * float(c) + (1 - clear) * haze, 0), 255))
            for c, haze in zip(colour, HAZE)))
        if inst is not None:
            self.pens[1].polygon(xy, int(inst))

    def rectangle(self, x, y, z, *args, **kwargs):
        """Fill the rectangle between two corners: along the street if both x are equal."""
        second, last = reversed(z) if x[0] == x[1] else z
        self.polygon([(x[0], y[0], z[0]), (x[1], y[0], second), (x[1], y[1], z[1]),
                      (x[0], y[1], last)], *args, **kwargs)

    def ellipse(self, x, y, z, radii, *args, **kwargs):
        """Fill the ellipse around (x, y, z) with `radii` along the three axes, one of them 0."""
        x, y, z, a, b, c = map(float, (x, y, z, *radii))
        self.polygon([(x + a * u, y + b * v, z + c * (u if a == 0 else v)) for u, v in CIRCLE],
                     *args, **kwargs)

    def cast_shadow(self, x, z, height, ink=200):
        """Darken the ground where a box of this height keeps the sun away."""
        (left, end), (near, far), (right, away) = x, z, (height * step for step in SUN)
        self.pens[2].polygon(self.project([
            (left, 0, near), (end, 0, near), (end + right, 0, near + away),
            (end + right, 0, far + away), (left + right, 0, far + away), (left, 0, far)]), ink)

    def shadow_of(self, kind, x, z, *more):
        if kind == 'car':
            length, *_, belt, roof = more[0]
            self.cast_shadow((x - 0.9, x + 0.9), (z, z + length), belt)
            self.cast_shadow((x - 0.7, x + 0.7), (z + 1, z + length - 0.6), roof)
            self.cast_shadow((x - 1, x + 1), (z - 0.12, z + length), 0.15, ink=255)
            return
        thick, top = {'tree': (0.15, 3), 'post': (0.09, 5), 'person': (0.2, 1.6)}[kind]
        self.cast_shadow((x - thick, x + thick), (z - 0.1, z + 0.1), top)
        for dx, dz, r in ((2, 1.8, 1), (3.7, 2.3, 1.1), (3, 1.2, 1.2), (2.9, 2.9, 0.9)):
            if kind == 'tree':                              # its crown
                self.pens[2].polygon(self.project([
                    (x + dx + r * cos(i / 2), 0, z + dz + r * sin(i / 2)) for i in range(12)]), 200)

    def building(self, side, near, far, floors, row, inst):         # side: -1 left, 1 right
        colour, (trim, awning, width, height, shutters) = BUILDING_COLOURS[row], FACADES[row]
        light = LIT if side > 0 else SHADED
        x, storey, shop = side * 9.5, 3.3, 3.9
        top = shop + floors * storey + 0.6
        self.rectangle((x, x + side * 12), (0, top), (near, near), colour, inst, 0.92)
        edges = np.linspace(0, top, 15)
        for y, end in zip(edges, edges[1:]):                # darker towards the street
            self.rectangle((x, x), (y, end + 0.05), (near, far), colour, inst,
                           light * (0.88 + 0.12 * y / top))

        def panel(y, z, ink, shade=1, out=0):
            self.rectangle((x - side * out, x - side * out), y, z, ink, inst, light * shade)

        bays = np.linspace(near + 0.5, far - 0.5, max(1, round((far - near) / 3.1)) + 1)
        for y in shop + 0.7 + storey * np.arange(floors):
            for z in (bays[:-1] + bays[1:]) / 2:
                z = np.array((z - width / 2, z + width / 2))
                if shutters:
                    panel((y, y + height), z + (-0.5, 0.5), awning, 0.9)
                panel((y - 0.12, y + height + 0.1), z + (-0.12, 0.12), trim)
                panel((y, y + height), z, GLASS)
                panel((y + 0.5 * height, y + height), z, (86, 104, 126))       # the sky in it
                panel((y + 0.48 * height, y + 0.54 * height), z, trim)
        panel((top - 0.55, top), (near, far), trim, 0.95)
        panel((top - 0.75, top - 0.55), (near, far), colour, 0.7)
        panel((0, shop), (near, far), trim, 0.8)
        for z, end in zip(bays, bays[1:]):
            panel((0.5, 2.9), (z + 0.25, end - 0.25), (40, 48, 58))
            panel((0.7, 1.5), (z + 0.45, end - 0.45), (214, 184, 128), 0.8 / light)  # lit inside
            panel((1.5, 2.9), (z + 0.45, end - 0.45), (104, 100, 92), 0.9 / light)
        panel((3.05, shop - 0.15), (near + 0.3, far - 0.3), awning)
        for z, end in zip(bays, bays[1:]):
            slope = [(x, 3.05, z + 0.2), (x, 3.05, end - 0.2), (x - side, 2.45, end - 0.2),
                     (x - side, 2.45, z + 0.2)]
            self.polygon(slope, awning, inst, 1.25 * light)
            panel((2.2, 2.45), (z + 0.2, end - 0.2), (238, 232, 222), 0.95, out=1)

    def tree(self, x, z):
        self.rectangle((x - 0.19, x + 0.19), (0, 3), (z, z), (96, 76, 60), VEGETATION)
        self.rectangle((x, x + 0.19), (0, 3), (z, z), (70, 54, 44))
        angle, r, size = self.rng.uniform((0, 0, 0.3), (2 * pi, 1, 0.6),
                                          (15 if z > 60 else 60, 3)).T
        dx, dy = 1.5 * np.sqrt(r) * np.cos(angle), 1.35 * np.sqrt(r) * np.sin(angle)
        for i in (dy - dx).argsort():                       # the sunny leaves last
            for shift, grow, shine in ((0, 1, 0.88), (0.25, 0.6, 1.05)):
                self.ellipse(x + dx[i] - shift * size[i], 4.4 + dy[i] + shift * size[i], z,
                             (grow * size[i], grow * size[i], 0), LEAVES[self.leaves], VEGETATION,
                             shine * (0.8 + 0.2 * (dy[i] - dx[i])))

    def post(self, x, z, kind):
        top = 6.4 if kind == 2 else 4.6
        self.rectangle((x - 0.09, x + 0.09), (0, top), (z, z), METAL, POLE)
        self.rectangle((x, x + 0.09), (0, top), (z, z), METAL, light=0.7)
        if kind == 2:                                       # a street lamp
            arm = -1.5 if x > 0 else 1.5
            self.rectangle((x, x + arm), (top - 0.12, top), (z, z), METAL, POLE)
            self.ellipse(x + arm, top - 0.08, z, (0.4, 0.16, 0), (226, 224, 212), POLE)
        elif kind == 1:
            ink = [(70, 225, 120), (250, 190, 60), (240, 60, 50)][self.light]
            self.rectangle((x - 0.32, x + 0.32), (3, 4.8), (z, z), (34, 36, 38), TRAFFIC_LIGHT)
            for i in range(3):
                self.ellipse(x, 3.4 + 0.5 * i, z, (0.2, 0.2, 0),
                             ink if i == self.light else (62, 62, 62))
        else:
            ink = [(30, 90, 190), (200, 40, 44)][self.sign]
            self.ellipse(x, 3.9, z, (0.6, 0.6, 0), (240, 240, 238), SIGN)
            self.ellipse(x, 3.9, z, (0.5, 0.5, 0), ink)
            self.rectangle((x - 0.32, x + 0.32), (3.8, 4), (z, z), (240, 240, 238))

    def person(self, x, z, step, row, inst):
        coat, trousers, hair, skin = PERSON_COLOURS[row]
        light = 0.78 if x < -5.9 else 1                     # in the shade of the buildings
        for foot, shade in ((x - step, 1), (x + step, 0.8)):
            leg = [(x - 0.17, 0.95, z), (x + 0.17, 0.95, z), (foot + 0.09, 0, z),
                   (foot - 0.09, 0, z)]
            self.polygon(leg, trousers, inst, light * shade)
            self.ellipse(foot, 0.05, z, (0.13, 0.06, 0), (40, 36, 36), inst)
        for edge, shade in ((0.3, 0.78), (0.14, 1)):        # the shaded side of the coat
            self.polygon([(x + a, y, z) for a, y in (
                (-0.3, 0.8), (-0.28, 1.35), (-0.12, 1.48), (0.4 * edge, 1.48),
                (edge - 0.02, 1.35), (edge, 0.8))], coat, inst, light * shade)
        self.ellipse(x, 1.62, z, (0.14, 0.17, 0), hair, inst, light)
        self.ellipse(x, 1.58, z, (0.11, 0.13, 0), skin, inst, light)

    def car(self, x, z, shape, row, inst):
        # We see the front of cars on the left, the rear of others, and one side, towards the middle
        # of the street.
        colour, (length, bonnet, boot, belt, roof) = CAR_COLOURS[row], shape
        front, side = x < 0, 1 if x < 0 else -1
        near, far = (bonnet, boot) if front else (boot, bonnet)
        lamp = (250, 247, 226) if front else (206, 30, 30)
        light, edge = (SHADED if front else LIT), x + 0.9 * side
        low, back = z + near, z + length - far
        high, end = (low + (0.75 if front else 0.3)), back - (0.3 if front else 0.75)
        for tyre in (x - 0.72, x + 0.72):
            self.rectangle((tyre - 0.14, tyre + 0.14), (0, 0.4), (z + 0.1, z + 0.1), RUBBER, inst)
        for y, top, shade in ((0.22, 0.34, 0.5), (0.34, 0.62, 0.86), (0.62, belt, 1)):
            self.rectangle((edge, edge), (y, top), (z, z + length), colour, inst, light * shade)
        self.rectangle((edge, edge), (0.68, 0.72), (z + 0.1, z + length - 0.1), colour,
                       light=1.25 * light)
        for wheel in (z + 0.85, z + length - 0.85):
            self.ellipse(edge, 0.36, wheel, (0, 0.42, 0.42), (24, 24, 26), inst)
            self.ellipse(edge, 0.33, wheel, (0, 0.33, 0.33), RUBBER, inst)
            self.ellipse(edge, 0.33, wheel, (0, 0.2, 0.2), (168, 172, 178), light=light)
        self.rectangle((x - 0.9, x + 0.9), (belt, belt), (z, z + length), colour, inst, 1.12)
        cabin = [(0.9, belt, low), (0.9, belt, back), (0.74, roof, end), (0.74, roof, high)]
        self.polygon([(x + a * side, y, d) for a, y, d in cabin], colour, inst, 0.95 * light)
        pane, middle = roof - 0.1, (low + back) / 2
        for start, stop, up, down in ((low + 0.25, middle - 0.06, high + 0.1, middle - 0.06),
                                      (middle + 0.06, back - 0.25, middle + 0.06, end - 0.1)):
            self.polygon([(edge, belt + 0.06, start), (edge, belt + 0.06, stop),
                          (x + 0.76 * side, pane, down), (x + 0.76 * side, pane, up)], GLASS,
                         inst, 0.8 + 0.4 * light)
        self.rectangle((x - 0.72, x + 0.72), (roof, roof), (high, end), colour, inst, 1.15)

        def slope(a, y, b, top, *args):             # on the windscreen or the rear window
            d, e = (low + (high - low) * (level - belt) / (roof - belt) for level in (y, top))
            self.polygon([(x - a, y, d), (x + a, y, d), (x + b, top, e), (x - b, top, e)], *args)

        slope(0.9, belt, 0.74, roof, colour, inst, 1.02)
        half = (belt + roof) / 2
        slope(0.78, belt + 0.05, 0.65, pane, GLASS)
        slope(0.72, half, 0.65, pane, (98, 116, 138))               # the sky in it
        for y, top, a, b, shade in ((0.2, 0.32, 0.84, 0.88, 0.45), (0.32, 0.6, 0.9, 0.92, 0.86),
                                    (0.6, belt - 0.1, 0.92, 0.9, 0.98),
                                    (belt - 0.1, belt, 0.9, 0.84, 1.1)):
            self.polygon([(x - a, y, z), (x + a, y, z), (x + b, top, z), (x - b, top, z)],
                         colour, inst, shade)
        for centre in (x - 0.7, x + 0.7):
            self.ellipse(centre, belt - 0.24, z, (0.17, 0.1, 0), lamp)
            self.ellipse(centre + 0.21 * np.sign(centre - x), belt + 0.1, low,
                         (0.12, 0.09, 0), colour, inst, 0.8)        # a mirror
        if front:
            self.rectangle((x - 0.42, x + 0.42), (belt - 0.34, belt - 0.16), (z, z), (34, 36, 40))
        y = 0.4 if front else 0.62
        self.rectangle((x - 0.25, x + 0.25), (y, y + 0.13), (z, z), (236, 236, 230))


def draw_scene(index, size=(256, 128), seed=0, colour_rng=None):
    """Draw scene `index` of the data set `seed`; any size (width, height) shows the same. Returns
    label (H, W) uint8; inst (H, W) int32, `label * 1000 + k` for cars, persons and buildings, else
    the label; image (H, W, 3) uint8; and {id in inst: row of its palette, as CAR_COLOURS}.
    colour_rng: draws the rows of the palettes, in place of the generator of the seed."""
    if min(size) < 32:
        raise ValueError(f'a scene needs at least 32x32 pixels, not {size[0]}x{size[1]}')
    rng, default = (np.random.default_rng([seed, index, i]) for i in range(2))
    street = Street(size, rng, colour_rng or default)
    centres = slice(SUPERSAMPLE // 2, None, SUPERSAMPLE)
    inst = np.asarray(street.inst, np.int32)[centres, centres].copy()
    label = np.where(inst < 1000, inst, inst // 1000).astype(np.uint8)
    fine = upsample(rng.uniform(-1, 1, (28, 56)), size)
    leafy = np.isin(label, (VEGETATION, TERRAIN))
    grain = np.where(label == SKY, 0, np.where(leafy, 0.1, 0.015) * fine)
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
    log_info(f'drawing street scenes into {scenes}; the demo takes about five minutes')
    write_dataset(scenes, 'train', 80, SIZE, seed=seed)
    write_dataset(scenes, 'val', 1, SIZE, seed=seed + 1)
    pair = find_pairs(scenes, 'val')[1][0]
    generate = ['generate', '--run', finetuned, '--label', pair.label, '--inst', pair.inst]
    stages = [
        ['train', '--data', scenes, '--run', folder, '--hours', HOURS, *(
            '--size 128x64 --ngf 24 --n-down 3 --n-blocks 3 --ndf 24 --n-scales 2 '
            '--n-down-encoder 2 --lr 5e-4 --log-every 200').split()],
        ['finetune', '--from', folder, '--run', finetuned, '--hours', HOURS,
         *'--up filtered --fix-global 1 --lr 5e-4 --log-every 200'.split()],
        ['cluster', '--run', finetuned, '--data', scenes],
        generate, [*generate, '--sample', '--n', N_SAMPLES]]
    for number, stage in enumerate(stages, 1):
        words = [*stage, '--seed', seed, '--device', device, *['--quiet'] * console.quiet]
        log_info(f'\nstage {number} of {len(stages)}\n'
                 f'$ python p2phd.py {" ".join(map(quote, words))}')
        if code := run_words([str(word) for word in words]):
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
