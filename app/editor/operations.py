"""The editor without its page: a scene, the operations that change it, and its picture (paper
sections 3.4 and 4). An edit is a dict as in JSON, as {"do": "relabel", "object": 26003, "label":
"bus"}: a method in OPERATIONS and its arguments, whose annotations are parsers of arguments.py."""
from collections import namedtuple
import copy
import pickle
from types import SimpleNamespace
import zlib

import numpy as np
from PIL import Image, ImageDraw
import torch

from app.common.errors import UserError
from app.datasets import layouts
from app.editor.arguments import (FAR, as_json, boolean, corners, label_number, number_between,
                                  object_id, object_ids, offset, paint_target, parse_arguments,
                                  point, position, rectangle, scale_factors, stroke, style_choice)
import data
import generate
from styles import choose_clusters

# label: (H, W) integer ndarray; inst: (H, W) int32 ndarray; styles: {id: Style} of the regions
# that styles.style_regions names, {} without an encoder. Edits make new arrays and dicts.
State = namedtuple('State', 'label inst styles')
# number: index among the styles of its label, None if it is none of them; features: floats.
Style = namedtuple('Style', 'number features')
# ids, labels, pixels: (K,) ndarrays, ids ascending; boxes: (K, 4), as x0, y0, x1, y1.
Objects = namedtuple('Objects', 'ids labels pixels boxes')
# A State in the history. maps: both, as compressed bytes; opened: the scene it comes from, by its
# `position` in the history and the `version` of the editor then, with photo, noise and size, and
# `saved`, the Entries that are in files. moved: a Moved if a move made this State, else None. name:
# what made it, in words. edits: dicts that make it of the State before (an opened one: of the scene
# in its files), or None.
Entry = namedtuple('Entry', 'maps styles opened moved name edits')
# What moves in a row have made of `objects`, from the objects `sources` (before a copy: the
# originals; ids ascend) in the State at the position `base`: x becomes across[0] * x + across[1],
# and y the same by `down`. behind: the objects that cover them.
Moved = namedtuple('Moved', 'objects sources base across down behind')


def nearest_pixels(hole, sources):
    """Return row and column of the pixel of a mask `sources` nearest to each pixel of `hole`."""
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


def cluster_style(clusters, label, number):
    """Return a Style of a label by its number; None: the mean of all features."""
    features = clusters['mean'] if number is None else clusters['centres'][label, number]
    return Style(number, tuple(features.tolist()))


def main_styles(clusters, labels):
    """Return the most frequent Style of each label, as styles.choose_styles chooses it."""
    numbers = choose_clusters(torch.tensor(labels, dtype=torch.long), clusters).tolist()
    return [cluster_style(clusters, label, number if number >= 0 else None)
            for label, number in zip(labels, numbers)]


class Editor:
    """A State that is edited, its history, and the run that makes its picture. photo: (1, C, H, W)
    in [-1, 1]. clusters, size: see styles.cluster and generate.Scene. noise: the noise_seed of
    generate.synthesise."""

    def __init__(self, run, clusters, state, photo=None, noise=0, size=None):
        self.run, self.config, self.clusters = run, run.config, clusters
        self.label_names = run.config.label_names or [*map(str, range(run.config.n_labels))]
        self.things = layouts.LAYOUTS[run.config.layout].things
        self.by_label = run.config.features_of == 'label'       # a style for each label
        self.version = self.maps_version = 0        # count all changes, and changes of the maps
        self.state, self.history, self.now = State(None, None, {}), [], -1
        self.described = None, None                 # see describe
        self.moved = None                           # the Moved of the edit that is applied
        self.open(state, photo, noise, size)

    def open(self, state, photo=None, noise=0, size=None, edits=()):
        """Continue with another scene, to which `reset` returns from then on. edits: see Entry."""
        opened = SimpleNamespace(position=self.now + 1, version=self.version + 1, photo=photo,
                                 noise=noise, size=size)
        self.push(state, 'open', opened, edits=edits)
        self.opened.saved = [self.history[self.now]]

    def push(self, state, name, opened=None, moved=None, edits=()):
        """Add `state` to the history after the present state; the states after it are dropped. A
        move replaces the present state if that is a move of the same objects and not saved.
        name, edits: see Entry."""
        maps = (self.history[self.now].maps if state.label is self.state.label else
                zlib.compress(pickle.dumps(state[:2]), 1))
        last, position = self.history[self.now:self.now + 1], self.now + 1
        if (moved and last[0].moved and moved[:3] == last[0].moved[:3]
                and all(last[0] is not entry for entry in self.opened.saved)
                and not self.is_copy(self.now)):
            position, edits = self.now, [*last[0].edits, *edits]
        self.history[position:] = [
            Entry(maps, state.styles, opened or self.opened, moved, name, edits)]
        self.show(position, state)

    def is_copy(self, position):
        """Return whether the state at a position is the copy of objects, before it is moved."""
        moved = self.history[position].moved
        return bool(moved) and moved.objects != moved.sources and position == moved.base + 1

    def is_saved(self):
        """Return whether the present state is in files: as it was opened, or as it was saved."""
        return any(entry[:2] == self.history[self.now][:2] for entry in self.opened.saved)

    def show(self, position, state):
        self.maps_version += state.label is not self.state.label
        self.objects = self.describe(state.label, state.inst)
        self.now, self.state, self.version = position, state, self.version + 1
        self.opened = self.history[position].opened

    def state_at(self, position):
        entry = self.history[position]
        if entry.maps is self.history[self.now].maps:
            return self.state._replace(styles=entry.styles)
        return State(*pickle.loads(zlib.decompress(entry.maps)), entry.styles)

    def at(self, position):
        """Return a copy of this Editor that shows the state at a position of the history."""
        other = copy.copy(self)
        other.history = list(self.history)
        if position != self.now:
            other.show(position, self.state_at(position))
        return other

    def edit(self, edits):
        """Apply a list of edits in order. If one of them raises a UserError, nothing changes."""
        trial = self.at(self.now)
        for edit in edits:
            name = edit.get('do') if isinstance(edit, dict) else None
            if not isinstance(name, str) or name not in OPERATIONS | STEPS:
                raise UserError(f'{as_json(edit)}: expected {{"do": ...}} with one of '
                                f'{", ".join(OPERATIONS | STEPS)}')
            values = {key: value for key, value in edit.items() if key != 'do'}
            try:
                values = parse_arguments((OPERATIONS | STEPS)[name], values, trial)
                if name in STEPS:
                    position = STEPS[name](trial, **values)
                    trial.show(position, trial.state_at(position))
                    continue
                trial.moved = None
                state = OPERATIONS[name](trial, **values)
                trial.push(state, trial.in_words(name, **values), moved=trial.moved,
                           edits=trial.without_photo(edit, state))
            except UserError as error:
                raise UserError(f'{name}: {error}') from None
        vars(self).update(vars(trial))

    def without_photo(self, edit, state):
        """Return edits that make `state` of the present one as `edit` does, but need no photo."""
        if edit.get('style') != 'photo':
            return [edit]
        return [{'do': 'style', 'label' if self.by_label else 'object': key,
                 'style': list(style.features)}
                for key, style in state.styles.items() if style is not self.state.styles[key]]

    def edits_since_opened(self):
        """Return the edits that make the present state of the opened scene, as run_script does;
        None if they are not known."""
        parts, edits = [x.edits for x in self.history[self.opened.position:self.now + 1]], []
        if None in parts:
            return None
        for part in parts:
            is_reset = part[:1] == [{'do': 'reset'}]
            edits = [*parts[0], *part[1:]] if is_reset else [*edits, *part]
        return edits

    def separate_moves(self):
        """If the last edit is a move, add an edit that changes nothing. Otherwise a script that
        repeats them would join the next move to it."""
        entry, (ids, labels, *_) = self.history[self.now], self.objects
        if entry.edits and entry.edits[-1]['do'] == 'move':
            label, object = int(labels[0]), int(ids[0])
            at = (self.state.inst == object) & (self.state.label == label)
            y, x = np.argwhere(at)[0].tolist()
            nothing = {'do': 'paint', 'label': label, 'to': object, 'rectangle': [x, y, x, y]}
            self.history[self.now] = entry._replace(edits=[*entry.edits, nothing])

    def in_words(self, name, object=None, objects=(), label=None, **others):
        """Return an edit in few words, as the history lists it: 'relabel car to bus'."""
        style = others.get('style')
        if style is not None:
            name = f'style {"of its own" if isinstance(style, tuple) else style}:'
        elif name == 'move':
            kinds = {'copy': 'copy', 'behind': 'send back', 'flip': 'mirror', 'scale': 'scale'}
            name = next((word for key, word in kinds.items() if others.get(key)), 'move')
        elif name in ('paint', 'erase'):
            shape = next((key for key in SHAPES if key in others), '')
            name = shape if name == 'paint' else f'erase {shape}'
        ids = {*([object] if object is not None else objects or ())}
        what = f'{len(ids)} objects' if len(ids) > 1 else ''.join(
            self.label_names[self.label_of(i)] for i in ids)
        words = [name, what]
        if label is not None:
            words += ['to' * (name == 'relabel'), self.label_names[label]]
        return ' '.join(filter(None, words))

    def undo(self):
        return self.position_of_step(self.now - 1, 'nothing to undo')

    def redo(self):
        return self.position_of_step(self.now + 1, 'nothing to redo')

    def goto(self, state: number_between(0, FAR, whole=True)):
        last = len(self.history) - 1
        return self.position_of_step(state, f'{state}: expected a state from 0 to {last}')

    def position_of_step(self, position, error):
        """Return a position if the history has it, else raise a UserError."""
        if not 0 <= position < len(self.history):
            raise UserError(error)
        return position

    def inputs(self, state=None, window=np.s_[:, :]):
        """Return what generate.synthesise takes for a state (default: the present one)."""
        state = state or self.state
        label, inst = (torch.from_numpy(x[window].copy())[None, None] for x in state[:2])
        inst = None if self.config.instances == 'none' else inst
        scene, vectors = generate.make_scene(self.config, label, inst, self.opened.size), None
        if self.run.E:
            vectors = torch.tensor([state.styles[i].features for i in scene.ids.tolist()])
        return scene, vectors, self.opened.noise

    def describe(self, label, inst):
        """Return the Objects of two maps; those of the last two maps are kept."""
        if self.described[0] is not label:
            maps = (torch.from_numpy(x)[None, None] for x in (label, inst))
            ids, index, labels, pixels = (x.numpy() for x in data.describe_instances(
                *maps, self.config.n_labels))
            order, first = index.argsort(axis=None, kind='stable'), pixels.cumsum() - pixels
            y, x = np.divmod(order, index.shape[-1])     # of the pixels, one object after the other
            low, high = np.minimum.reduceat, np.maximum.reduceat
            boxes = [low(x, first), low(y, first), high(x, first) + 1, high(y, first) + 1]
            self.described = label, Objects(ids, labels, pixels, np.stack(boxes, 1))
        return self.described[1]

    def style(self, style: style_choice, object: object_id = None, label: label_number = None,
              seed: number_between(0, (1 << 32) - 1, whole=True) = 0,
              objects: object_ids = None):
        """Give a style, see style_choice, to an object, several, or all objects of a label."""
        self.require_encoder()
        ids, labels = self.objects[:2]
        chosen = np.isin(ids, self.chosen(object=object, objects=objects, label=label))
        if style == 'photo':
            if self.opened.photo is None:
                raise UserError('no photograph is loaded; use --photo, or drop it onto the page')
            scene = self.inputs()[0]
            vectors = generate.encode_image(self.run, self.opened.photo, scene)
        keys = (labels if self.by_label else ids)[chosen].tolist()          # of State.styles
        new, generator = dict(self.state.styles), torch.Generator().manual_seed(seed)
        for key, label in dict(zip(keys, labels[chosen].tolist())).items():
            counts = torch.from_numpy(self.clusters['counts'][label]).float()
            n_styles, number = int((counts > 0).sum()), style
            if style == 'random' and n_styles:
                if new[key].number is not None and n_styles > 1:
                    counts[new[key].number] = 0
                number = int(counts.multinomial(1, generator=generator))
            if style == 'photo':
                new[key] = Style(None, tuple(vectors[scene.ids == key][0].tolist()))
            elif isinstance(style, tuple):
                new[key] = Style(None, style)
            elif number in ('main', 'random'):
                new[key], = main_styles(self.clusters, [label])
            elif number < n_styles:
                new[key] = cluster_style(self.clusters, label, number)
            else:
                raise UserError(f'{style}: {self.label_names[label]} has '
                                + (f'the styles 0 to {n_styles - 1}' if n_styles else 'no styles'))
        return self.state._replace(styles=new)

    def like(self, other: object_id, object: object_id = None, label: label_number = None,
             objects: object_ids = None):
        """Give an object, several, or all objects of a label the label and style of another."""
        chosen = self.chosen(object=object, objects=objects, label=label)
        label, style = self.label_of(other), self.state.styles.get(other)
        mask, labels = np.isin(self.state.inst, chosen), self.state.label.copy()
        labels[mask] = label
        return self.with_maps(labels, self.state.inst, dict.fromkeys(chosen, style))

    def relabel(self, label: label_number, object: object_id = None, objects: object_ids = None):
        """Give objects another label and the main style of that label; those that have it already
        keep their style."""
        labels = self.state.label.copy()
        labels[np.isin(self.state.inst, self.chosen(object=object, objects=objects))] = label
        return self.with_maps(labels, self.state.inst)

    def split(self, at: point):
        """Turn the connected part of an object around a point into a new object."""
        label, old = (int(x[at[1], at[0]]) for x in self.state[:2])
        part = self.connected_part(*at)
        if part.sum() == (self.state.inst == old).sum():
            raise UserError(f'{at}: that object is in one piece')
        new = self.free_id(label)
        return self.with_object(part, label, new, {new: self.state.styles.get(old)})

    def remove(self, object: object_id = None, objects: object_ids = None):
        """Remove objects and fill the hole from its surroundings, see `filled`."""
        chosen = self.chosen(object=object, objects=objects)
        return self.with_maps(*self.filled(np.isin(self.state.inst, chosen)))

    def move(self, object: object_id = None, by: offset = (0, 0), scale: scale_factors = (1, 1),
             flip: boolean = False, copy: boolean = False, objects: object_ids = None,
             about: position = None, behind: object_ids = ()):
        """Scale objects about a point (default: their centre), mirror and move them, or with `copy`
        new objects; other objects may stay in front of them. Moves of the same objects in a row
        begin with the objects and the scene before the first of them."""
        ids, last = self.chosen(object=object, objects=objects), self.history[self.now].moved
        if copy or not last or {*last.objects} != {*ids}:
            last = Moved(self.free_ids(ids) if copy else ids, ids, self.now, (1, 0), (1, 0), ())
        if both := {*behind} & {*last.objects}:
            raise UserError(f'object {min(both)} cannot be behind itself')
        base = self.at(last.base)
        boxes = base.objects.boxes[np.isin(base.objects.ids, last.sources)]
        centre = (boxes[:, :2].min(0) + boxes[:, 2:].max(0)) / 2
        maps = []
        for axis, (factor, shift) in enumerate((last.across, last.down)):
            change = -scale[axis] if flip and axis == 0 else scale[axis]
            fixed = about[axis] if about else factor * float(centre[axis]) + shift
            maps.append((change * factor, fixed + change * (shift - fixed) + by[axis]))
            if abs(change * factor) > FAR:
                raise UserError('the objects would be too large')
        self.moved = last._replace(across=maps[0], down=maps[1], behind=(*last.behind, *behind))
        state = base.transformed(self.moved)
        self.described = base.described
        return state

    def transformed(self, moved):
        """Return the present State with objects moved, see Moved."""
        (across, x), (down, y) = moved.across, moved.down
        mask = np.isin(self.state.inst, moved.sources)
        pixels = np.arange(1, mask.size + 1, dtype=np.int32).reshape(mask.shape)
        image = Image.fromarray(np.where(mask, pixels, 0))     # 0 for the pixels around them
        image = np.asarray(image.transform(image.size, Image.Transform.AFFINE, (
            1 / across, 0, -x / across, 0, 1 / down, -y / down)))
        target = (image > 0) & ~np.isin(self.state.inst, moved.behind)
        labels, inst = (x.ravel()[image[target] - 1] for x in self.state[:2])
        if lost := {*moved.sources} - {*np.unique(inst).tolist()}:
            raise UserError(f'object {min(lost)} would lie outside the picture or behind others, '
                            'or be too small to see')
        inst = np.array(moved.objects, np.int32)[np.searchsorted(moved.sources, inst)]
        keep = moved.objects != moved.sources or (mask <= target).all()
        return self.with_object(target, labels, inst, {
            new: self.state.styles.get(old) for new, old in zip(moved.objects, moved.sources)},
            None if keep else self.filled(mask))

    def paint(self, label: label_number, to: paint_target = 'new', brush: stroke = None,
              width: number_between(0.5, 10_000) = 1, rectangle: rectangle = None,
              polygon: corners = None, fill: point = None, within: object_ids = None):
        """Paint a label, see draw_mask, as part of an object, as a 'new' one, or as part of the
        'same' one: that of the label which the shape touches or covers most, else the largest."""
        mask = self.draw_mask(width, within, brush=brush, rectangle=rectangle, polygon=polygon,
                              fill=fill)
        if to == 'same':
            ids, labels, pixels, _ = self.objects
            ids, pixels = ids[labels == label], pixels[labels == label]
            near = mask | (data.boundary_map(torch.tensor(mask)).numpy() > 0)
            touched = self.state.inst[near & (self.state.label == label)]
            touched, counts = np.unique(touched[np.isin(touched, ids)], return_counts=True)
            if not len(touched):
                touched, counts = ids, pixels
            to = int(touched[counts.argmax()]) if len(ids) else 'new'
        if to == 'new':
            to = self.free_id(label)
        elif self.label_of(to) != label:
            raise UserError(f'object {to} has the label {self.label_names[self.label_of(to)]}, not '
                            f'{self.label_names[label]}')
        return self.with_object(mask, label, to, {to: self.state.styles.get(to)})

    def erase(self, brush: stroke = None, width: number_between(0.5, 10_000) = 1,
              rectangle: rectangle = None, polygon: corners = None, fill: point = None,
              within: object_ids = None):
        """Remove the things in a shape, see draw_mask; where there are none, everything."""
        mask = self.draw_mask(width, within, brush=brush, rectangle=rectangle, polygon=polygon,
                              fill=fill)
        things = mask & np.isin(self.state.label, self.things)
        return self.with_maps(*self.filled(things if things.any() else mask, erased=True))

    def reset(self):
        """Return to the scene as it was opened; this can be undone."""
        return self.state_at(self.opened.position)

    def chosen(self, **ways):
        """Return the ids of the objects that an edit is for, ascending. ways: `object`, `objects`
        or all of a `label`, of which one must be given."""
        (way, value), *more = [item for item in ways.items() if item[1] is not None] or [(0, 0)]
        if more or not way:
            raise UserError(f'expected one of {quoted(ways)}')
        if way == 'label':
            ids = self.objects.ids[self.objects.labels == value].tolist()
            if not ids:
                raise UserError(f'no object of the label {self.label_names[value]} in the picture')
            return tuple(ids)
        return (value,) if way == 'object' else tuple(sorted({*value}))

    def connected_part(self, x, y):
        """Return the (H, W) mask of the pixels of the same object and label connected to (x, y)."""
        label, inst = self.state[:2]
        parts = data.connected_components((inst == inst[y, x]) & (label == label[y, x]))
        return parts == parts[y, x]

    def require_encoder(self):
        if not self.run.E:
            raise UserError('the run was trained without --features, so there are no styles')

    def label_of(self, object):
        return int(self.objects.labels[self.objects.ids == object][0])

    def free_id(self, label, others=()):
        """Return an id that no object and none of `others` has; for a thing of Cityscapes, in that
        data set's form."""
        start, ids = label * 1000 if label in self.things else 0, [*self.objects.ids, *others]
        taken = np.isin(np.arange(start, start + len(ids) + 1), ids)
        return start + int(taken.argmin())

    def free_ids(self, sources):
        """Return an id that no object has for the copy of each object."""
        ids = []
        for source in sources:
            ids.append(self.free_id(self.label_of(source), ids))
        return tuple(ids)

    def with_maps(self, label, inst, styles=()):
        """Return the State of new maps. An object keeps its style if its label stays, else it gets
        the main one. styles: {id: Style} of objects that get another (None: main)."""
        if not self.run.E:
            return State(label, inst, {})
        if self.by_label:
            labels = old_labels = {i: i for i in np.unique(label).tolist()}
            styles = ()
        else:
            labels, old_labels = (dict(zip(x.ids.tolist(), x.labels.tolist()))
                                  for x in (self.describe(label, inst), self.objects))
        kept = {key: style for key, style in self.state.styles.items()
                if labels.get(key) == old_labels.get(key)} | dict(styles)
        return State(label, inst, {
            key: kept.get(key) or main_styles(self.clusters, [label])[0]
            for key, label in labels.items()})

    def with_object(self, mask, label, object, styles, maps=None):
        """Give the pixels of a mask a label and an object, or each its own; see with_maps."""
        labels, inst = (x.copy() for x in maps or self.state[:2])
        labels[mask], inst[mask] = label, object
        return self.with_maps(labels, inst, styles)

    def filled(self, hole, erased=False):
        """Return both maps with each pixel of a hole replaced by the nearest one whose label is no
        thing and not void; if there is none, of others. The most frequent label of the hole is
        avoided where it was erased, and in data sets that do not tell things from stuff."""
        label, inst = (x.copy() for x in self.state[:2])
        others = ~hole & (label != np.bincount(label[hole]).argmax())
        stuff = (others if erased or not self.things else ~hole) & ~np.isin(label, self.things)
        sources = (stuff & ~np.isin(label, self.config.void), stuff, others, ~hole)
        if hole.all():
            raise UserError('nothing would be left to fill the picture with')
        y, x = nearest_pixels(hole, next(mask for mask in sources if mask.any()))
        label[hole], inst[hole] = label[y, x], inst[y, x]
        return label, inst

    def draw_mask(self, width, within, **shapes):
        """Return the (H, W) bool mask of a brush's stroke, a rectangle, a polygon or a connected
        part; of these, the pixels that lie `within` some objects."""
        (shape, value), *more = [item for item in shapes.items() if item[1]] or [(0, 0)]
        if more or not shape:
            raise UserError(f'expected one of {quoted(shapes)}')
        if shape == 'fill':
            mask = self.connected_part(*value)
        else:
            mask = np.asarray(draw_shape(self.state.label.shape[::-1], shape, value, width))
        if not mask.any():
            raise UserError('the shape lies outside the picture')
        if within:
            mask = mask & np.isin(self.state.inst, within)
            if not mask.any():
                raise UserError('the shape lies outside the objects in "within"')
        return mask


def quoted(names):
    """Return names as an error lists them: "a", "b" and "c"."""
    *names, last = (f'"{name}"' for name in names)
    return f'{", ".join(names)} and {last}'


def draw_shape(size, shape, points, width):
    """Return a picture of 1 bit of a shape: a brush's stroke of a width, a rectangle, a polygon."""
    mask = Image.new('1', size)
    draw, radius = ImageDraw.Draw(mask), max(0, (width - 1) / 2)
    if shape == 'rectangle':
        draw.rectangle([*zip(sorted(points[::2]), sorted(points[1::2]))], fill=1)
    elif shape == 'polygon':
        draw.polygon(points, fill=1)
    else:
        for ends in zip(points, points[1:]):        # left and up, so that even widths fit the ends
            draw.line(sorted(ends, reverse=True), fill=1, width=max(1, round(width)))
        draw.point(points, fill=1)                  # an ellipse one pixel wide draws nothing
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return mask


OPERATIONS = {f.__name__: f for f in (
    Editor.style, Editor.like, Editor.relabel, Editor.split, Editor.remove, Editor.move,
    Editor.paint, Editor.erase, Editor.reset)}
SHAPES = 'brush', 'rectangle', 'polygon', 'fill'
# They return the position of another state in the history, to which `edit` then goes.
STEPS = {f.__name__: f for f in (Editor.undo, Editor.redo, Editor.goto)}
