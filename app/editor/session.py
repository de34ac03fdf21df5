"""What the editor's page asks for, request by request, in many threads at once."""
import base64
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import glob
import io
from pathlib import Path
import tempfile
import threading
import time

import numpy as np
from PIL import Image

from app.editor.arguments import a_style, an_object, flag, number, shown, taking
from app.editor import operations
from app.common.console import warn
from app.common.errors import UserError, warn_on_error
from app.common.files import write_atomically
from app.editor import scenes
import generate
from app.runs import pictures
from app.datasets.scenes import read_photo

THUMBNAIL = 1 << 16                     # pixels that the network computes for one, at most


class Superseded(Exception):
    """The scene has changed since a picture of it was asked for."""


def anything(editor, value):
    return value


def text(editor, value):
    if not isinstance(value, str):
        raise UserError(f'{shown(value)}: expected a text')
    return value


class Session:
    """An edit.Editor, of which requests come in many threads. One thread computes the pictures; the
    state is locked while it is looked at or changed."""

    def __init__(self, editor, folder, name, title):
        """folder: receives what is saved, under `name` and a number, and may hold what was edited
        before and not saved."""
        self.editor, self.folder, self.name, self.title = editor, folder, name, title
        self.lock, self.worker = threading.RLock(), ThreadPoolExecutor(1)
        self.keeper = ThreadPoolExecutor(1)         # writes the recovery file
        self.saved = self.editor.version
        self.recovery = folder / f'.{name}-unsaved.npz'
        if self.recovery.exists():                  # it stays until it is asked for, or not
            n = 1 + max((int(path.stem[-3:]) for path in self.earlier()), default=0)
            self.recovery.replace(folder / f'.{name}-unsaved-{n:03d}.npz')
        self.found = self.find()
        self.computing, self.done, self.passes, self.took = None, 0, None, 0.0
        self.image = self.original = None, None     # version, picture of it
        self.closing = False
        for module in editor.run.G.modules():       # a picture is given up between two layers
            if not list(module.children()):
                module.register_forward_pre_hook(self.tick)

    def earlier(self):
        """Files of what was edited before and not saved, the last one first."""
        return sorted(self.folder.glob(f'.{glob.escape(self.name)}-unsaved-[0-9][0-9][0-9].npz'),
                      reverse=True)

    def find(self):
        """The last of them that can be read -> path, State, noise; or None."""
        for path in self.earlier():
            try:
                return path, *scenes.recovered(path, self.editor.config, self.editor.known)
            except UserError as error:
                warn(f'warning: {error}')
                path.replace(path.with_suffix('.damaged'))
        return None

    # ------------------------------------------------ one thread computes

    def tick(self, module, args):
        self.done += 1
        if self.closing or self.computing not in (None, self.editor.version):
            raise Superseded

    def compute(self, version, function):
        """What function() returns, in the thread that computes; Superseded where the scene is
        another by then."""
        def job():
            self.computing, self.done = version, 0
            self.tick(None, None)
            try:
                return function()
            finally:
                self.computing = None
        return self.worker.submit(job).result()

    def full(self, version):
        """The picture of the present state, computed once -> (1, C, H, W)."""
        def picture():
            if self.image[0] != version:
                with self.lock:
                    self.tick(None, None)
                    scene = self.editor.scene()
                started = time.perf_counter()
                image = generate.synthesise(self.editor.run, *scene).cpu()
                self.image, self.took = (version, image), time.perf_counter() - started
                self.passes = self.done
            return self.image[1]
        return self.compute(version, picture)

    def opened(self, version):
        """The picture of the scene as it was opened, computed once -> (1, C, H, W)."""
        def picture():
            with self.lock:
                self.tick(None, None)
                e = self.editor
                scene = e.scene(e.at(e.opened.number))
                which = e.opened.version
            if e.now == e.opened.number and self.image[0] == version:
                self.original = which, self.image[1]
            elif self.original[0] != which:
                self.original = which, generate.synthesise(e.run, *scene).cpu()
            return self.original[1]
        return self.compute(version, picture)

    # ------------------------------------------------ the requests

    @taking()
    def state(self):
        """What there is: labels, objects with their boxes and styles, and what can be done."""
        e, names = self.editor, self.editor.config.label_names
        colours = pictures.label_colours(e.config).tolist()
        counts = e.known['counts'] if e.known else None
        own = {}
        if e.run.E:
            own = {i: e.state.styles[e.style_key(i)].number for i in e.objects.ids.tolist()}
        return {
            'title': self.title, 'version': e.version, 'maps_version': e.maps_version,
            'size': e.state.label.shape[::-1],
            'labels': [{'label': i, 'name': names[i] if names else str(i), 'colour': colours[i],
                        'thing': i in e.things,
                        'styles': int((counts[i] > 0).sum()) if e.known else 0}
                       for i in range(e.config.n_labels)],
            'objects': [{'id': i, 'label': label, 'pixels': pixels, 'box': box,
                         'style': own.get(i)}
                        for i, label, pixels, box in zip(*(x.tolist() for x in e.objects))],
            'undo': e.now, 'redo': len(e.history) - 1 - e.now, 'unsaved': self.saved != e.version,
            'encoder': e.run.E is not None, 'by_label': e.config.features_of == 'label',
            'photo': e.opened.photo is not None, 'opened': e.opened.version, 'seconds': self.took,
            'unsaved_found': self.found is not None, 'folder': str(self.folder)}

    @taking()
    def maps(self):
        """For every pixel its label, uint16, and then its instance, int32, row by row."""
        label, inst, _ = self.editor.state
        return ('application/octet-stream', label.astype('<u2').tobytes()
                + inst.astype('<i4').tobytes())

    @taking(edits=anything)
    def edit(self, edits):
        """Apply a list of edits, all or none -> state."""
        if not isinstance(edits, list) or not 0 < len(edits) <= 1000:
            raise UserError('"edits": expected a list of 1 to 1000 edits')
        self.editor.edit(edits)
        return self.changed()

    def changed(self):
        """Keep what is not saved in the recovery file, in the background -> state."""
        version, state, noise = self.editor.version, self.editor.state, self.editor.opened.noise

        def keep():
            if version == self.editor.version:      # else a later one follows
                warn_on_error(lambda: write_atomically(self.recovery, scenes.recovery_of(state, noise)),
                        'editing goes on')
        self.keeper.submit(keep)
        return self.state()

    @taking(version=number(0, 1 << 53, whole=True), preview=flag, opened=flag)
    def picture(self, version, preview=False, opened=False):
        """The picture of the state of that version as PNG; as a preview at half size, which is
        another picture and comes sooner; or that of the scene as it was opened."""
        if opened:
            return png(self.opened(version))
        if not preview:
            return png(self.full(version))

        def half():
            with self.lock:
                self.tick(None, None)
                scene = self.editor.scene(step=2)
            return generate.synthesise(self.editor.run, *scene)
        return png(self.compute(version, half))

    @taking()
    def progress(self):
        """How far the picture is that is being computed, 0 to 1; null where none is."""
        at_work = self.computing is not None
        return {'version': self.editor.version,
                'progress': min(self.done / (self.passes or 150), 1) if at_work else None}

    @taking(object=an_object, style=a_style)
    def thumbnail(self, object, style):
        """What an object would look like in a style: a PNG of what is around it, computed by
        itself."""
        e = self.editor
        with self.lock:
            e.check_encoder()
            if object not in e.objects.ids:         # it was there when the request came
                raise Superseded
            key, version, noise = e.style_key(object), e.version, e.opened.noise
            own = {**e.state.styles, **e.styles_for([key], style)}
            x0, y0, x1, y1 = e.objects.boxes[e.objects.ids == object][0].tolist()
            label, inst, _ = e.state
        # Around it, as the network needs to see; shown is the object alone.
        edge = max(16, (x1 - x0) // 4, (y1 - y0) // 4)
        left, top = max(0, x0 - edge), max(0, y0 - edge)
        label, inst = (x[top:y1 + edge, left:x1 + edge] for x in (label, inst))
        step = int(np.ceil((label.size / THUMBNAIL) ** 0.5))
        scene = operations.scene_of(e.config, label, inst, step)
        vectors = operations.vectors_of(scene.ids, own)
        image = self.compute(version, lambda: generate.synthesise(e.run, scene, vectors, noise))
        return png(image[..., (y0 - top) // step:-(-(y1 - top) // step),
                         (x0 - left) // step:-(-(x1 - left) // step)])

    @taking(data=text)
    def photo(self, data):
        """Take a photograph of the scene (base64), whose styles the style 'photo' then has."""
        e = self.editor
        e.check_encoder()
        with uploaded(self.folder, photo=data) as paths:
            e.take_photo(read_photo(e.config, paths['photo'], e.scene()[0]))
        return self.state()

    @taking(label=text, inst=text, styles=text)
    def open(self, label, inst=None, styles=None):
        """Take the scene of a label map, an instance map and styles, files as base64."""
        e = self.editor
        with uploaded(self.folder, label=label, inst=inst, styles=styles) as paths:
            new = scenes.opened(e.run, e.known, paths['label'], paths.get('inst'), None,
                              paths.get('styles'))
        e.begin(new.state, noise=new.opened.noise, size=new.opened.size)
        return self.changed()

    @taking()
    def save(self):
        """Write picture, maps and styles into the folder, under a name that is free -> state and
        their paths."""
        with self.lock:
            version = self.editor.version
        image = self.full(version)
        with self.lock:
            if version != self.editor.version:
                raise Superseded
            name = scenes.free_name(self.folder, self.name)
            paths = scenes.save(self.editor, self.folder, name, image)
            self.saved = version
            self.keeper.submit(lambda: self.recovery.unlink(missing_ok=True))
            return {**self.state(), 'files': [str(path) for path in paths]}

    @taking(restore=flag)
    def recover(self, restore):
        """Go on with what was edited and not saved before, or forget it."""
        if not self.found:
            return self.state()
        path, found, noise = self.found
        if restore and found.label.shape == self.editor.state.label.shape:
            self.editor.push(found)
        elif restore:
            self.editor.begin(found, noise=noise)
        if restore:
            self.changed()
        self.keeper.submit(path.unlink, missing_ok=True).result()   # after it is kept anew
        self.found = self.find()
        return self.state()

    def close(self):
        self.closing = True
        self.keeper.shutdown()


REQUESTS = {f'/{f.__name__}': f for f in (
    Session.state, Session.maps, Session.edit, Session.picture, Session.progress,
    Session.thumbnail, Session.photo, Session.open, Session.save, Session.recover)}
# They wait for the thread that computes, and lock the state only where they look at it.
WAITING = Session.picture, Session.progress, Session.save, Session.thumbnail


@contextmanager
def uploaded(folder, **files):
    """{role: path} of files of a request, base64 or None, which lie there while it is entered."""
    with tempfile.TemporaryDirectory(prefix='.upload-', dir=folder) as place:
        paths = {}
        for role, encoded in files.items():
            if encoded is None:
                continue
            try:
                blob = base64.b64decode(encoded, validate=True)
            except ValueError:
                raise UserError(f'"{role}": not base64') from None
            suffix = '.npy' if blob.startswith(b'\x93NUMPY') else '.png'    # or what it is
            paths[role] = Path(place) / f'{role}{suffix}'
            paths[role].write_bytes(blob)
        try:
            yield paths
        except UserError as error:                  # what was sent had no such path
            raise UserError(str(error).replace(f'{place}/', '')) from None


def png(image):
    """(1, C, H, W) in [-1, 1] -> a response."""
    picture = pictures.to_rgb(pictures.to_uint8_hwc(image))
    file = io.BytesIO()
    Image.fromarray(picture).save(file, 'PNG', compress_level=1)
    return 'image/png', file.getvalue()
