"""The requests of the editor's page, which many threads make at once."""
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

from app.common.console import warn
from app.common.errors import UserError, warn_on_error
from app.common.files import write_atomically
from app.datasets.scenes import read_photo
from app.editor import scene_files
from app.editor.arguments import (boolean, edit_list, number, object_id, string, style_choice,
                                  takes)
from app.runs import pictures
import generate

THUMBNAIL_PIXELS = 1 << 16              # the network computes at most so many for a thumbnail


class Superseded(Exception):
    """The scene has changed since a picture of it was requested."""


class Session:
    """An operations.Editor and what the page asks of it.
    A request runs while its thread holds `lock`. One that needs a picture returns a function, which
    is called without the lock and waits for the one thread that computes pictures.
    folder, name: scenes are saved as <folder>/<name>-<number>; the recovery file, with the edits
        that are not saved, is there too."""

    def __init__(self, editor, folder, name, title):
        self.editor, self.folder, self.name, self.title = editor, folder, name, title
        self.lock = threading.RLock()
        self.painter, self.keeper = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.saved = editor.version                 # the last version that needs no saving
        self.recovery = folder / f'.{name}-unsaved.npz'
        if self.recovery.exists():                  # of an earlier session: keep it under a number
            n = 1 + max((int(path.stem[-3:]) for path in self.old_recoveries()), default=0)
            self.recovery.replace(folder / f'.{name}-unsaved-{n:03d}.npz')
        self.unsaved = self.read_old_recovery()
        self.computing, self.layers_done, self.seconds = None, 0, 0.0
        self.pictures = {}                          # {version: picture}, the present and the opened
        self.closing = False
        layers = [module for module in editor.run.G.modules() if not list(module.children())]
        self.n_layers = len(layers)
        for layer in layers:                        # a picture is given up between two layers
            layer.register_forward_pre_hook(self.before_layer)

    def old_recoveries(self):
        """Return the recovery files of earlier sessions, the newest first."""
        return sorted(self.folder.glob(f'.{glob.escape(self.name)}-unsaved-[0-9][0-9][0-9].npz'),
                      reverse=True)

    def read_old_recovery(self):
        """Return path, State and noise of the newest file that can be read, or None."""
        for path in self.old_recoveries():
            try:
                return path, *scene_files.read_recovery(path, self.editor.config, self.editor.clusters)
            except UserError as error:
                warn(f'warning: {error}')
                path.replace(path.with_suffix('.damaged'))
        return None

    # ------------------------------------------------ pictures, computed in one thread

    def before_layer(self, *hook_arguments):
        self.layers_done += 1
        if self.closing or self.computing not in (None, self.editor.version):
            raise Superseded

    def compute(self, version, make_inputs, key=None):
        """Return the picture of make_inputs(), which returns what generate.synthesise takes.
        key: the version under which the picture is kept; None: it is not kept.
        Raises:     Superseded: if the scene is no longer at `version`."""
        def job():
            self.computing, self.layers_done = version, 0
            try:
                with self.lock:
                    self.before_layer()
                    if key in self.pictures:
                        return self.pictures[key]
                    inputs, kept = make_inputs(), (version, self.editor.opened.version)
                started = time.perf_counter()
                image = generate.synthesise(self.editor.run, *inputs).cpu()
                if key is not None:
                    self.pictures = {of: picture for of, picture in self.pictures.items()
                                     if of in kept} | {key: image}
                    self.seconds = time.perf_counter() - started
                return image
            finally:
                self.computing = None
        return self.painter.submit(job).result()

    # ------------------------------------------------ the requests

    @takes()
    def state(self):
        """Return labels, objects with their boxes and styles, and what is possible now."""
        e, names = self.editor, self.editor.config.label_names
        colours = pictures.label_colours(e.config).tolist()
        counts = e.clusters['counts'] if e.clusters else np.zeros((e.config.n_labels, 1))
        numbers = {key: style.number for key, style in e.state.styles.items()}
        return {
            'title': self.title, 'version': e.version, 'maps_version': e.maps_version,
            'size': e.state.label.shape[::-1],
            'labels': [{'label': i, 'name': names[i] if names else str(i), 'colour': colours[i],
                        'thing': i in e.things, 'styles': int((counts[i] > 0).sum())}
                       for i in range(e.config.n_labels)],
            'objects': [{'id': i, 'label': label, 'pixels': pixels, 'box': box,
                         'style': numbers.get(label if e.by_label else i)}
                        for i, label, pixels, box in zip(*(x.tolist() for x in e.objects))],
            'undo': e.now, 'redo': len(e.history) - 1 - e.now, 'unsaved': self.saved != e.version,
            'encoder': e.run.E is not None, 'by_label': e.by_label,
            'photo': e.opened.photo is not None, 'opened': e.opened.version,
            'seconds': self.seconds, 'unsaved_found': self.unsaved is not None,
            'folder': str(self.folder)}

    @takes()
    def maps(self):
        """Return the label of every pixel as uint16, row by row, then its instance as int32."""
        label, inst, _ = self.editor.state
        return ('application/octet-stream', label.astype('<u2').tobytes()
                + inst.astype('<i4').tobytes())

    @takes(edits=edit_list)
    def edit(self, edits):
        """Apply a list of edits, all or none. Return the state."""
        self.editor.edit(edits)
        return self.changed()

    def changed(self):
        """Write the recovery file in the background. Return the state."""
        version, state, noise = self.editor.version, self.editor.state, self.editor.opened.noise

        def keep():
            if version == self.editor.version:      # otherwise a newer one is written soon
                warn_on_error(lambda: write_atomically(
                    self.recovery, lambda file: scene_files.write_recovery(file, state, noise)),
                    'editing goes on')
        self.keeper.submit(keep)
        return self.state()

    @takes(version=number(0, 1 << 53, whole=True), preview=boolean, opened=boolean)
    def picture(self, version, preview=False, opened=False):
        """Return the picture of the present version as PNG.
        preview: at half the size, which is faster and a different picture.
        opened: of the scene as it was opened."""
        e = self.editor
        if version != e.version:
            raise Superseded
        key, make_inputs = version, e.inputs
        if opened:
            key, make_inputs = e.opened.version, lambda: e.inputs(e.state_at(e.opened.position))
        elif preview:
            key, make_inputs = None, lambda: e.inputs(window=np.s_[::2, ::2])
        return lambda: png(self.compute(version, make_inputs, key))

    @takes()
    def progress(self):
        """Return the share of the layers that are computed, 0 to 1, or null between pictures."""
        return {'version': self.editor.version, 'progress': None if self.computing is None else
                min(self.layers_done / self.n_layers, 1)}

    @takes(object=object_id, style=style_choice)
    def thumbnail(self, object, style):
        """Return a PNG of an object in a style; only its surroundings are computed."""
        e = self.editor
        e.require_encoder()
        version = e.version
        state = e.state._replace(styles={
            **e.state.styles, **e.choose_styles([e.style_key(object)], style)})
        (h, w), box = state.label.shape, e.objects.boxes[e.objects.ids == object][0]
        x0, y0, x1, y1 = box.tolist()
        # The network sees the surroundings; the object alone is shown.
        edge = max(16, (x1 - x0) // 4, (y1 - y0) // 4)
        left, top, right, bottom = (max(0, x0 - edge), max(0, y0 - edge), min(w, x1 + edge),
                                    min(h, y1 + edge))
        step = int(np.ceil(((right - left) * (bottom - top) / THUMBNAIL_PIXELS) ** 0.5))
        window = np.s_[top:bottom:step, left:right:step]
        return lambda: png(self.compute(version, lambda: e.inputs(state, window))[
            ..., (y0 - top) // step:-(-(y1 - top) // step),
            (x0 - left) // step:-(-(x1 - left) // step)])

    @takes(data=string)
    def photo(self, data):
        """Use a photograph of the scene (base64) for the style 'photo'. Return the state."""
        e = self.editor
        e.require_encoder()
        with uploaded_files(self.folder, photo=data) as paths:
            e.opened.photo = read_photo(e.config, paths['photo'], e.inputs()[0])
        return self.state()

    @takes(label=string, inst=string, styles=string)
    def open(self, label, inst=None, styles=None):
        """Open the scene of a label map, an instance map and styles (base64). Return the state."""
        e = self.editor
        with uploaded_files(self.folder, label=label, inst=inst, styles=styles) as paths:
            new = scene_files.open_scene(e.run, e.clusters, paths['label'], paths.get('inst'), None,
                                    paths.get('styles'))
        e.open(new.state, noise=new.opened.noise, size=new.opened.size)
        return self.changed()

    @takes()
    def save(self):
        """Write the scene and its picture under a free name. Return the state and the paths."""
        version = self.editor.version

        def write():
            image = self.compute(version, self.editor.inputs, version)
            with self.lock:
                if version != self.editor.version:
                    raise Superseded
                name = scene_files.free_name(self.folder, self.name)
                paths = scene_files.save(self.editor, self.folder, name, image)
                self.saved = version
                self.keeper.submit(lambda: self.recovery.unlink(missing_ok=True))
                return {**self.state(), 'files': [str(path) for path in paths]}
        return write

    @takes(restore=boolean)
    def recover(self, restore):
        """Restore the unsaved edits of an earlier session, or delete them. Return the state."""
        if not self.unsaved:
            return self.state()
        path, state, noise = self.unsaved
        if restore and state.label.shape == self.editor.state.label.shape:
            self.editor.push(state)
        elif restore:
            self.editor.open(state, noise=noise)
        if restore:
            self.changed()
        # After the new recovery file is written.
        self.keeper.submit(path.unlink, missing_ok=True).result()
        self.unsaved = self.read_old_recovery()
        return self.state()

    def close(self):
        self.closing = True
        self.keeper.shutdown()


REQUESTS = {f'/{f.__name__}': f for f in (
    Session.state, Session.maps, Session.edit, Session.picture, Session.progress,
    Session.thumbnail, Session.photo, Session.open, Session.save, Session.recover)}


@contextmanager
def uploaded_files(folder, **files):
    """Write the files of a request, base64 or None, to a temporary folder; yield {role: path}."""
    with tempfile.TemporaryDirectory(prefix='.upload-', dir=folder) as temporary:
        paths = {}
        for role, encoded in files.items():
            if encoded is None:
                continue
            try:
                content = base64.b64decode(encoded, validate=True)
            except ValueError:
                raise UserError(f'"{role}": not base64') from None
            # The readers recognise pictures by their content, and arrays by their suffix.
            suffix = '.npy' if content.startswith(b'\x93NUMPY') else '.png'
            paths[role] = Path(temporary, f'{role}{suffix}')
            paths[role].write_bytes(content)
        try:
            yield paths
        except UserError as error:                  # the user does not know the temporary folder
            raise UserError(str(error).replace(f'{temporary}/', '')) from None


def png(image):
    """Return an answer with a picture (1, C, H, W) in [-1, 1]."""
    file = io.BytesIO()
    picture = pictures.to_rgb(pictures.to_uint8_hwc(image))
    Image.fromarray(picture).save(file, 'PNG', compress_level=1)
    return 'image/png', file.getvalue()
