"""The requests of the editor's page, which many threads make at once."""
import base64
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import glob
import io
from pathlib import Path
import tempfile
import threading

import numpy as np
from PIL import Image

from app.common.console import warn_on_error
from app.common.errors import UserError
from app.datasets.scenes import read_photo
from app.editor import scene_files
from app.editor.arguments import (boolean, edit_list, number_between, object_id, string,
                                  style_choice)
from app.runs import pictures
import generate

THUMBNAIL_PIXELS = 1 << 16              # the network computes at most so many for a thumbnail


class Refused(Exception):
    """A request that is refused; arguments: HTTP status, message."""


class Session:
    """An operations.Editor and the requests of the page. They run with `lock`; one that needs a
    picture returns a function, which runs without it and waits for the one thread that computes
    pictures. Scenes are saved as <folder>/<name>-<number>, unsaved edits in a recovery file."""

    def __init__(self, editor, folder, name, title):
        self.editor, self.folder, self.name, self.title = editor, folder, name, title
        self.lock = threading.RLock()
        self.painter, self.keeper = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.saved_version = editor.version
        self.recovery = folder / f'.{name}-unsaved.npz'
        if self.recovery.exists():                  # of an earlier session: keep it under a number
            numbered = scene_files.free_name(folder, self.recovery.stem)
            self.recovery.replace(folder / f'{numbered}.npz')
        pattern = f'{glob.escape(self.recovery.stem)}-[0-9][0-9][0-9].npz'
        self.unsaved = sorted(folder.glob(pattern))             # of earlier sessions
        self.pictures = {}                          # {version: picture}, the last two
        self.computing, self.layers_done, self.closing = None, 0, False
        layers = [module for module in editor.run.G.modules() if not list(module.children())]
        self.n_layers = len(layers)
        for layer in layers:
            layer.register_forward_pre_hook(self.before_layer)

    def before_layer(self, *hook_arguments):
        """Stop the computation of a picture that nobody needs any more."""
        self.layers_done += 1
        if self.closing or self.computing not in (None, self.editor.version):
            raise Refused(409, 'the scene has changed since')

    def compute(self, version, inputs, key=None):
        """Return the picture of what generate.synthesise takes, and keep it as `key`. Raises
        Refused if the scene is no longer at `version`."""
        def job():
            self.computing, self.layers_done = version, 0
            try:
                self.before_layer()
                if key in self.pictures:
                    return self.pictures[key]
                image = generate.synthesise(self.editor.run, *inputs).cpu()
                if key is not None:
                    self.pictures = dict([*self.pictures.items(), (key, image)][-2:])
                return image
            finally:
                self.computing = None
        return self.painter.submit(job).result()

    def state(self):
        """Return labels, objects with their boxes and styles, and what is possible now."""
        e = self.editor
        colours = pictures.label_colours(e.config).tolist()
        counts = e.clusters['counts'] if e.clusters else np.zeros((e.config.n_labels, 1))
        numbers = {key: style.number for key, style in e.state.styles.items()}
        return {
            'title': self.title, 'version': e.version, 'maps_version': e.maps_version,
            'size': e.state.label.shape[::-1],
            'labels': [{'label': i, 'name': e.label_names[i], 'colour': colours[i],
                        'thing': i in e.things, 'styles': int((counts[i] > 0).sum())}
                       for i in range(e.config.n_labels)],
            'objects': [{'id': i, 'label': label, 'pixels': pixels, 'box': box,
                         'style': numbers.get(label if e.by_label else i)}
                        for i, label, pixels, box in zip(*(x.tolist() for x in e.objects))],
            'undo': e.now, 'redo': len(e.history) - 1 - e.now,
            'unsaved': self.saved_version != e.version, 'unsaved_found': bool(self.unsaved),
            'encoder': e.run.E is not None, 'photo': e.opened.photo is not None,
            'opened': e.opened.version}

    def maps(self):
        """Return the label of every pixel as uint16, row by row, then its instance as int32."""
        label, inst = self.editor.state.label.astype('<u2'), self.editor.state.inst.astype('<i4')
        return 'application/octet-stream', label.tobytes() + inst.tobytes()

    def edit(self, edits: edit_list):
        """Apply a list of edits, all or none. Return the state."""
        self.editor.edit(edits)
        return self.changed()

    def changed(self):
        """Write the recovery file in the background. Return the state."""
        version = self.editor.version

        def keep():
            if version == self.editor.version:      # otherwise a newer one is written soon
                scene_files.write_recovery(self.recovery, self.editor)
        self.keeper.submit(warn_on_error, keep, 'editing goes on')
        return self.state()

    def picture(self, version: number_between(0, 1 << 53, whole=True), preview: boolean = False,
                opened: boolean = False):
        """Return the picture of the present version as PNG, or that of the scene as it was opened.
        preview: at half the size, which is faster and a different picture."""
        e = self.editor
        step = 2 if preview else 1
        inputs = e.inputs(e.reset() if opened else e.state, np.s_[::step, ::step])
        key = None if preview else e.opened.version if opened else version
        return lambda: png(self.compute(version, inputs, key))

    def progress(self):
        """Return the share of the layers that are computed, 0 to 1, or null between pictures."""
        share = min(self.layers_done / self.n_layers, 1)
        return {'progress': None if self.computing is None else share}

    def thumbnail(self, object: object_id, style: style_choice):
        """Return a PNG of an object in a style; only its surroundings are computed."""
        e = self.editor
        version, state = e.version, e.style(style, object)
        x0, y0, x1, y1 = e.objects.boxes[e.objects.ids == object][0].tolist()
        # The network sees the surroundings; the object alone is shown.
        edge = max(16, (x1 - x0) // 4, (y1 - y0) // 4)
        left, top = max(0, x0 - edge), max(0, y0 - edge)
        step = int(np.ceil(((x1 + edge - left) * (y1 + edge - top) / THUMBNAIL_PIXELS) ** 0.5))
        inputs = e.inputs(state, np.s_[top:y1 + edge:step, left:x1 + edge:step])
        shown = np.s_[..., (y0 - top) // step:-(-(y1 - top) // step),
                      (x0 - left) // step:-(-(x1 - left) // step)]
        return lambda: png(self.compute(version, inputs)[shown])

    def photo(self, data: string):
        """Use a photograph of the scene (base64) for the style 'photo'. Return the state."""
        e = self.editor
        e.require_encoder()
        with uploaded_files(self.folder, {'photo': data}) as paths:
            e.opened.photo = read_photo(e.config, paths['photo'], e.inputs()[0])
        return self.state()

    def open(self, label: string, inst: string = None, styles: string = None):
        """Open the scene of a label map, an instance map and styles (base64). Return the state."""
        e = self.editor
        files = {'label_path': label, 'inst_path': inst, 'styles_path': styles}
        with uploaded_files(self.folder, files) as paths:
            new = scene_files.open_scene(e.run, e.clusters, **paths)
        e.open(new.state, noise=new.opened.noise, size=new.opened.size)
        return self.changed()

    def save(self):
        """Write the scene and its picture under a free name. Return the state and the paths."""
        version, inputs = self.editor.version, self.editor.inputs()

        def write():
            image = self.compute(version, inputs, version)
            with self.lock:
                if version != self.editor.version:
                    raise Refused(409, 'the scene has changed since')
                name = scene_files.free_name(self.folder, self.name)
                paths = scene_files.save(self.editor, self.folder, name, image)
                self.saved_version = version
                self.keeper.submit(self.recovery.unlink, missing_ok=True)
                return {**self.state(), 'files': [str(path) for path in paths]}
        return write

    def recover(self, restore: boolean):
        """Restore the unsaved edits of the last earlier session that has some, or delete them.
        Return the state."""
        if self.unsaved and restore:
            state, noise = scene_files.read_recovery(self.unsaved[-1], self.editor)
            if state.label.shape == self.editor.state.label.shape:
                self.editor.push(state)
            else:
                self.editor.open(state, noise=noise)
            self.changed()
        if self.unsaved:
            # The keeper writes the new recovery file before it deletes the old one.
            self.keeper.submit(self.unsaved.pop().unlink, missing_ok=True).result()
        return self.state()

    def close(self):
        self.closing = True
        self.keeper.shutdown()


REQUESTS = {f'/{f.__name__}': f for f in (
    Session.state, Session.maps, Session.edit, Session.picture, Session.progress,
    Session.thumbnail, Session.photo, Session.open, Session.save, Session.recover)}


@contextmanager
def uploaded_files(folder, files):
    """Write {role: file in base64, or None} to a temporary folder; yield {role: path or None}."""
    with tempfile.TemporaryDirectory(prefix='.upload-', dir=folder) as temporary:
        try:
            paths = dict.fromkeys(files)
            for role, encoded in files.items():
                if encoded is not None:
                    content = base64.b64decode(encoded, validate=True)
                    # The readers recognise pictures by their content, but arrays by their suffix.
                    suffix = '.npy' if content.startswith(b'\x93NUMPY') else '.png'
                    paths[role] = Path(temporary, f'{role}{suffix}')
                    paths[role].write_bytes(content)
            yield paths
        except ValueError as error:                 # the user does not know the temporary folder
            raise UserError(str(error).replace(f'{temporary}/', '')) from None


def png(image):
    """Return content type and body of an answer with a picture (1, C, H, W) in [-1, 1]."""
    file = io.BytesIO()
    picture = pictures.to_rgb(pictures.to_uint8_hwc(image))
    Image.fromarray(picture).save(file, 'PNG', compress_level=1)
    return 'image/png', file.getvalue()
