"""The editor without its page: a label map, an instance map and a style for every object,
operations on them, and the picture that `generate` makes of them (semantic manipulation: paper
section 3.4, and "interactive object editing" in section 4).

An edit is a dict, as JSON has it: {"do": "relabel", "object": 26003, "label": "bus"}. `do` names
one of the functions in OPERATIONS, whose arguments are the rest.
"""
from collections import namedtuple
import copy
import zlib

import numpy as np
from PIL import Image, ImageDraw
import torch

from app.editor.arguments import (FAR, a_box, a_brush, a_label, a_style, an_object, an_owner, flag, number,
                       point, read_arguments, shift, shown, taking)
import data
from app.common.errors import UserError
from app.datasets import layouts
import styles
import generate

# label (H, W) integer ndarray, inst (H, W) int32 ndarray, styles {id: Style} of every region that
# has one (styles.style_regions), {} without an encoder. Arrays are never written to: edits make new ones.
State = namedtuple('State', 'label inst styles')
Style = namedtuple('Style', 'number features')      # which of its label's, or None; tuple of floats

# The state number `number` of the history, which became it in version `version`; a photograph
# (1, C, H, W) of it or None; noise: a seed of a U-Net's dropout; size: as of synthesis.Scene.
Opened = namedtuple('Opened', 'number version photo noise size')

# ids (K,) in the instance map, label of each, its pixels, its box (x0, y0, x1, y1), as ndarrays.
Objects = namedtuple('Objects', 'ids labels pixels boxes')


# -------------------------------------------------------------------------------- maps of pixels

def objects_of(label, inst, n_labels):
    """The objects of a label map and an instance map (H, W) -> Objects, ids ascending."""
    label, inst = (torch.from_numpy(x)[None, None] for x in (label, inst))
    ids, slot, labels, pixels = data.describe_instances(label, inst, n_labels)
    slot, boxes = slot[0, 0], []
    for side, extreme in ((1, 'amin'), (0, 'amin'), (1, 'amax'), (0, 'amax')):
        places = torch.arange(slot.shape[side]).unsqueeze(1 - side).expand_as(slot)
        boxes.append(torch.zeros(len(ids), dtype=torch.long).scatter_reduce(
            0, slot.flatten(), places.flatten(), extreme, include_self=False))
    boxes[2] += 1
    boxes[3] += 1
    return Objects(*(x.numpy() for x in (ids, labels, pixels, torch.stack(boxes, 1))))


def nearest(hole, sources):
    """For every pixel of a mask, in the order of hole.nonzero(), the nearest one of another mask
    (both (H, W) bool) -> its row and column, exact in Euclidean distance."""
    rows, columns = np.arange(len(hole))[:, None], np.arange(hole.shape[1])
    above = np.maximum.accumulate(np.where(sources, rows, -FAR))
    below = np.minimum.accumulate(np.where(sources, rows, FAR)[::-1])[::-1]
    row = np.where(rows - above <= below - rows, above, below)      # the nearest in each column
    squared = (row - rows) ** 2

    y, x = hole.nonzero()
    column = np.empty_like(x)
    for part in np.array_split(np.arange(len(x)), len(x) * len(columns) // (1 << 22) + 1):
        column[part] = (squared[y[part]] + (x[part, None] - columns) ** 2).argmin(1)
    return row[y, column], column


def carried(mask, dx, dy, scale, flip):
    """A mask moved by (dx, dy) pixels, made `scale` times as large about its centre and mirrored
    where `flip` -> the mask of where it is then, and for each of its pixels the row and column that
    it came from."""
    y, x = mask.nonzero()
    middle_y, middle_x = (y.min() + y.max()) / 2, (x.min() + x.max()) / 2
    rows, columns = np.indices(mask.shape)
    y = np.floor((rows - middle_y - dy) / scale + middle_y + 0.5).astype(int)
    x = np.floor((columns - middle_x - dx) / scale * (-1 if flip else 1) + middle_x + 0.5)
    x = x.astype(int)
    inside = (y >= 0) & (y < len(mask)) & (x >= 0) & (x < mask.shape[1])
    target = inside & mask[np.where(inside, y, 0), np.where(inside, x, 0)]
    return target, y[target], x[target]


def connected(state, x, y):
    """The pixels around (x, y) that are of its instance and label and hang together -> (H, W)
    bool."""
    same = (state.inst == state.inst[y, x]) & (state.label == state.label[y, x])
    parts = data.connected_components(same)
    return parts == parts[y, x]


# ----------------------------------------------------------------------------------- operations

@taking(object=an_object, label=a_label, style=a_style, seed=number(0, (1 << 32) - 1, whole=True))
def style(editor, style, object=None, label=None, seed=0):
    """Give an object, or all of a label, a style: the number of one of its label's, 'main',
    'random' (another than now, drawn as often as it occurs; `seed`), 'photo' (that of the
    photograph) or features."""
    editor.check_encoder()
    if (object is None) == (label is None):
        raise UserError('expected either "object" or "label"')
    chosen = editor.objects.ids == object if label is None else editor.objects.labels == label
    ids = dict.fromkeys(editor.style_key(i) for i in editor.objects.ids[chosen].tolist())
    if not ids:
        raise UserError(f'no object of the label {editor.name_of(label)} in the picture')
    return editor.state._replace(styles={
        **editor.state.styles, **editor.styles_for(list(ids), style, seed)})


@taking(object=an_object, other=an_object)
def like(editor, object, other):
    """Give an object the label and the style of another."""
    state = relabel(editor, object, editor.label_of(other))
    if not editor.run.E or editor.config.features_of == 'label':
        return state
    return state._replace(styles={**state.styles, object: state.styles[other]})


@taking(object=an_object, label=a_label)
def relabel(editor, object, label):
    """Give an object another label; its style becomes the main one of that."""
    state = editor.state
    painted = np.where(state.inst == object, label, state.label).astype(state.label.dtype)
    return editor.settled(painted, state.inst, anew=[object])


@taking(at=point)
def split(editor, at):
    """Make the part of an object that hangs together around a point an object of its own."""
    x, y = at
    part = connected(editor.state, x, y)
    if part.sum() == (editor.state.inst == editor.state.inst[y, x]).sum():
        raise UserError(f'{list(at)}: that object is in one piece')
    label = int(editor.state.label[y, x])
    return editor.painted(part, label, editor.free_id(label),
                          editor.state.styles.get(int(editor.state.inst[y, x])))


@taking(object=an_object)
def remove(editor, object):
    """Take an object away. What surrounds it closes the hole: each pixel becomes as the nearest one
    of the labels that are no things (see Editor.sources)."""
    return editor.settled(*editor.closed(editor.state.inst == object))


@taking(object=an_object, by=shift, scale=number(0.05, 20), flip=flag, copy=flag)
def move(editor, object, by=(0, 0), scale=1, flip=False, copy=False):
    """Move an object by [dx, dy] pixels, scale it about its centre, mirror it; with `copy` a new
    one, and the old one stays. What it leaves is filled as by remove; it hides what it covers."""
    mask = editor.state.inst == object
    target, y, x = carried(mask, *by, scale, flip)
    if not target.any():
        raise UserError('it would lie outside the picture')
    own = editor.state.styles.get(object)
    label = editor.state.label[y, x]                # of each pixel
    if copy or (mask <= target).all():
        maps = editor.state[:2]
    else:
        maps = editor.closed(mask)
    owner = editor.free_id(editor.label_of(object)) if copy else object
    return editor.painted(target, label, owner, own, maps)


@taking(label=a_label, to=an_owner, brush=a_brush, width=number(0.5, 10_000), rectangle=a_box,
        fill=point)
def paint(editor, label, to='new', brush=None, width=1, rectangle=None, fill=None):
    """Paint a label along a `brush` [[x, y], ...] of some `width`, in a `rectangle`
    [x0, y0, x1, y1] or over the part that hangs together around a point (`fill`): as a new object,
    as more of the `same` (the object of that label that is touched most, else the largest) or of
    the object `to`, which has to have that label."""
    mask = editor.shape(brush, width, rectangle, fill)
    if to == 'same':
        to = editor.touched(mask, label)
    if to == 'new':
        to = editor.free_id(label)
    elif editor.label_of(to) != label:
        raise UserError(f'object {to} is of the label {editor.name_of(editor.label_of(to))}, not '
                        f'{editor.name_of(label)}')
    return editor.painted(mask, label, to, editor.state.styles.get(to))


@taking(brush=a_brush, width=number(0.5, 10_000), rectangle=a_box, fill=point)
def erase(editor, brush=None, width=1, rectangle=None, fill=None):
    """Take away what is under a brush, in a rectangle or around a point, as by remove: things, if
    there are any, else all."""
    mask = editor.shape(brush, width, rectangle, fill)
    things = mask & np.isin(editor.state.label, editor.things)
    return editor.settled(*editor.closed(things if things.any() else mask))


OPERATIONS = {f.__name__: f for f in (style, like, relabel, split, remove, move, paint, erase)}


# ----------------------------------------------------------------------------------- the editor

class Editor:
    """A scene that is edited: its state, those before and after (for undo and redo), and what
    pictures are made with.

    run: runs.Run; known: the styles to choose from (styles.cluster's dict), or None without an
    encoder; state: a State to start from; photo: (1, C, H, W) float or None, that of the scene;
    noise: see synthesis.synthesise; size: see synthesis.Scene.
    """

    def __init__(self, run, known, state, photo=None, noise=0, size=None):
        self.run, self.config, self.known = run, run.config, known
        self.things = layouts.LAYOUTS[run.config.layout].things
        self.version = self.maps_version = 0        # grow with every change, and one of the maps
        self.history, self.now, self.looked = [], -1, (None, None, None)
        self.begin(state, photo, noise, size)

    # ------------------------------------------------ what there is

    def begin(self, state, photo=None, noise=0, size=None):
        """Go on with another scene, which a reset leads back to. photo, noise, size: as of the
        class."""
        self.push(state, Opened(self.now + 1, self.version + 1, photo, noise, size))

    def push(self, state, opened=None):
        """Make `state` the present one; what had been undone is gone."""
        maps = state.label, state.inst
        same = self.history and all(a is b for a, b in zip(maps, self.state[:2]))
        packed = self.history[self.now][0] if same else pack(maps)
        self.history[self.now + 1:] = [(packed, state.styles, opened or self.opened)]
        self.show(len(self.history) - 1, state)

    @property
    def opened(self):
        """The scene that the present state was made of -> Opened."""
        return self.history[self.now][2]

    def take_photo(self, photo):
        """Have a photograph (1, C, H, W) of the scene at hand."""
        old, new = self.opened, self.opened._replace(photo=photo)
        self.history = [(packed, own, new if opened is old else opened)
                        for packed, own, opened in self.history]

    def at(self, now):
        """The state number `now` of the history."""
        packed, own, _ = self.history[now]
        same = packed is self.history[self.now][0]
        return State(*(self.state[:2] if same else unpack(packed)), own)

    def show(self, now, state=None):
        """Make the state number `now` of the history the present one."""
        state = state or self.at(now)
        if self.now < 0 or state.label is not self.state.label or state.inst is not self.state.inst:
            self.objects = self.look(state.label, state.inst)
            self.maps_version += 1
        self.now, self.state = now, state
        self.version += 1

    def look(self, label, inst):
        """objects_of maps, of the last ones at once."""
        if self.looked[0] is not label or self.looked[1] is not inst:
            self.looked = label, inst, objects_of(label, inst, self.config.n_labels)
        return self.looked[2]

    def scene(self, state=None, step=1):
        """What the picture of a state (default: the present one) is made of, or of every step-th
        row and column: the scene as `generate` reads it, the styles of its regions (K, feat) or
        None, and noise: what synthesis.synthesise takes."""
        state = state or self.state
        scene = scene_of(self.config, *state[:2], step, self.opened.size)
        return (scene, vectors_of(scene.ids, state.styles) if self.run.E else None,
                self.opened.noise)

    def picture(self):
        """The picture of the present state (1, C, H, W) in [-1, 1]."""
        return generate.synthesise(self.run, *self.scene())

    def check_encoder(self):
        """UserError where there is none."""
        if not self.run.E:
            raise UserError('the run was trained without --features, so there are no styles')

    def name_of(self, label):
        return self.config.label_names[label] if self.config.label_names else str(label)

    def label_of(self, object):
        return int(self.objects.labels[self.objects.ids == object][0])

    def style_key(self, object):
        """What the styles of the state call the region of an object."""
        return self.label_of(object) if self.config.features_of == 'label' else object

    def free_id(self, label):
        """An id that no object has; for a thing of Cityscapes one as that data set has them."""
        start = label * 1000 if label in self.things else int(self.state.inst.max()) + 1
        start = start if 0 <= start < 1 << 16 else 0
        taken = np.isin(np.arange(start, start + len(self.objects.ids) + 1), self.objects.ids)
        return start + int(taken.argmin())

    # ------------------------------------------------ what edits do

    def edit(self, edits):
        """Apply edits, one after the other, or none of them: a UserError names the one that cannot
        be done, and nothing has changed."""
        trial = copy.copy(self)
        trial.history = list(self.history)
        for edit in edits:
            trial.apply(edit)
        vars(self).update(vars(trial))

    def apply(self, edit):
        name = edit.get('do') if isinstance(edit, dict) else None
        if name in ('undo', 'redo', 'reset') and len(edit) == 1:
            if name == 'reset':
                return self.push(self.at(self.opened.number))
            now = self.now + (1 if name == 'redo' else -1)
            if not 0 <= now < len(self.history):
                raise UserError(f'{name}: nothing to {name}')
            return self.show(now)
        operation = OPERATIONS.get(name) if isinstance(name, str) else None
        if not operation:
            raise UserError(f'{shown(edit)}: expected {{"do": ...}} with one of '
                            f'{", ".join(OPERATIONS)}, undo, redo, reset')
        given = {key: value for key, value in edit.items() if key != 'do'}
        try:
            state = operation(self, **read_arguments(operation, given, self))
        except UserError as error:
            raise UserError(f'{name}: {error}') from None
        self.push(state)

    def settled(self, label, inst, anew=(), own=None):
        """The state of new maps: styles of objects that are gone are dropped, those of objects that
        are new, or `anew`, become their label's main one. own: {id: Style} that some shall have."""
        found = self.look(label, inst)
        if not self.run.E:
            return State(label, inst, {})
        if self.config.features_of == 'label':
            labels = before = {i: i for i in np.unique(label).tolist()}
            anew = ()
        else:
            labels = dict(zip(found.ids.tolist(), found.labels.tolist()))
            before = dict(zip(self.objects.ids.tolist(), self.objects.labels.tolist()))
        own = own or {}
        kept = {**self.state.styles, **own}
        fresh = [key for key in labels if key not in kept or key in anew or (
            key not in own and before.get(key) != labels[key])]
        main = main_styles(self.known, [labels[key] for key in fresh])
        return State(label, inst, {**{key: kept[key] for key in labels if key not in fresh},
                                   **dict(zip(fresh, main))})

    def painted(self, mask, label, owner, style=None, maps=None):
        """The state with an object on a mask; label: a number, or one for each pixel; maps: those
        to paint on (default: the present ones)."""
        labels, inst = (x.copy() for x in maps or self.state[:2])
        labels[mask], inst[mask] = label, owner
        own = {owner: style} if style and self.config.features_of != 'label' else {}
        return self.settled(labels, inst, own=own)

    def sources(self, hole):
        """What a hole is filled from: what is neither a thing nor void, where the layout of the run
        says what is, and not of the label that most of the hole has; if there is such."""
        label, outside = self.state.label, ~hole
        others = outside & (label != np.bincount(label[hole]).argmax())
        stuff = others & ~np.isin(label, self.things)
        for sources in (stuff & ~np.isin(label, self.config.void), stuff, others, outside):
            if sources.any():
                return sources
        raise UserError('nothing would be left to fill the picture with')

    def closed(self, hole):
        """The maps with a hole closed: each of its pixels becomes as the nearest one of sources."""
        y, x = nearest(hole, self.sources(hole))
        maps = []
        for old in self.state[:2]:
            maps.append(old.copy())
            maps[-1][hole] = old[y, x]
        return maps

    def shape(self, brush, width, rectangle, fill):
        """The mask (H, W) of one of three: a stroke, a rectangle, a part."""
        if sum(one is not None for one in (brush, rectangle, fill)) != 1:
            raise UserError('expected one of "brush", "rectangle" and "fill"')
        if fill:
            return connected(self.state, *fill)
        mask = Image.new('1', self.state.label.shape[::-1])
        draw = ImageDraw.Draw(mask)
        if rectangle:
            x0, y0, x1, y1 = rectangle
            draw.rectangle((x0, y0, x1, y1), fill=1)
        else:
            radius = max(0, (width - 1) / 2)
            if len(brush) > 1:
                draw.line(brush, fill=1, width=max(1, round(width)))
            draw.point(brush, fill=1)               # what is one wide has no inside
            for x, y in brush:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
        mask = np.asarray(mask)
        if not mask.any():
            raise UserError('it lies outside the picture')
        return mask

    def touched(self, mask, label):
        """The object of a label that a mask touches or covers most, else the largest, else a new
        one."""
        near = np.pad(mask, 1)
        near = (near[1:-1, 1:-1] | near[2:, 1:-1] | near[:-2, 1:-1] | near[1:-1, 2:]
                | near[1:-1, :-2])
        near &= self.state.label == label
        ids, pixels = np.unique(self.state.inst[near], return_counts=True)
        own = self.objects.labels == label
        there = np.isin(ids, self.objects.ids[own])
        if there.any():
            return int(ids[there][pixels[there].argmax()])
        if own.any():
            return int(self.objects.ids[own][self.objects.pixels[own].argmax()])
        return 'new'

    def styles_for(self, keys, wish, seed=0):
        """Styles {key: Style} for regions of the present state, as the operation `style` has it."""
        if wish == 'photo':
            if self.opened.photo is None:
                raise UserError('no photograph is at hand')
            scene = self.scene()[0]
            vectors = generate.encode_image(self.run, self.opened.photo, scene)
            return {key: Style(None, tuple(vectors[scene.ids == key][0].tolist())) for key in keys}
        if isinstance(wish, tuple):
            return dict.fromkeys(keys, Style(None, wish))

        labels = keys if self.config.features_of == 'label' else [self.label_of(k) for k in keys]
        if wish == 'main':
            return dict(zip(keys, main_styles(self.known, labels)))
        counts = torch.from_numpy(self.known['counts'])[labels].float()             # (K, k)
        generator, found = torch.Generator().manual_seed(seed), {}
        for key, label, weights in zip(keys, labels, counts):
            there = int((weights > 0).sum())
            if wish != 'random' and wish >= there:
                raise UserError(f'{wish}: {self.name_of(label)} has '
                                + (f'the styles 0 to {there - 1}' if there else 'no styles'))
            k = wish
            if wish == 'random':
                now = self.state.styles[key].number
                if now is not None and there > 1:
                    weights[now] = 0
                k = int(torch.multinomial(weights, 1, generator=generator)) if there else None
            found[key] = known_style(self.known, label, k)
        return found


def scene_of(config, label, inst, step=1, size=None):
    """The synthesis.Scene of maps (H, W), or of every step-th row and column of them."""
    label, inst = (torch.from_numpy(x[::step, ::step].copy())[None, None] for x in (label, inst))
    return generate.make_scene(config, label, None if config.instances == 'none' else inst, size)


def known_style(known, label, k):
    """Style k of a label, or of None the mean of all -> Style."""
    features = known['mean'] if k is None else known['centres'][label, k]
    return Style(k, tuple(features.tolist()))


def main_styles(known, labels):
    """The main Style of each of some labels, as styles.choose has it."""
    chosen = styles.choose_indices(torch.tensor(labels, dtype=torch.long), known).tolist()
    return [known_style(known, label, k if k >= 0 else None) for label, k in zip(labels, chosen)]


def vectors_of(ids, own):
    """The styles {id: Style} of regions ids (K,) -> (K, feat) float32."""
    return torch.tensor([own[i].features for i in ids.tolist()])


def pack(maps):
    return [(x.shape, x.dtype, zlib.compress(x.tobytes(), 1)) for x in maps]


def unpack(packed):
    return [np.frombuffer(bytearray(zlib.decompress(raw)), dtype).reshape(shape)
            for shape, dtype, raw in packed]
