"""The session of the editor: what the page asks of an opened scene, a method a request."""
import base64
from concurrent.futures import ThreadPoolExecutor
import io
import itertools
import json
from pathlib import Path
import re
import tempfile
import threading
import time

import numpy as np
from PIL import Image

from app.common.console import collect_warnings, warn, warn_on_error
from app.common.errors import UserError, one_line
from app.datasets.decoding import read_header
from app.datasets.layouts import scene_name
from app.datasets.scenes import read_photo, warn_about_size
from app.editor import scene_files
from app.editor.operations import (boolean, edit_list, number_between, object_id, string,
                                   style_choice)
from app.runs import pictures
import generate

MAX_PIXELS = 1 << 24                    # of a picture or a map that the page sends
THUMBNAIL_PIXELS = 1 << 16              # the network computes at most so many for a thumbnail

version_number = number_between(0, 1 << 53, whole=True)


class Refused(Exception):
    """A request that is refused; arguments: HTTP status, message."""


class Session:
    """An Editor and the requests of the page, for a scene <folder>/<name>. They run with `lock`.
    One that needs a picture returns a function, which waits without it for the thread `painter`."""

    def __init__(self, editor, folder, name, run_name, warnings=()):
        self.editor, self.folder, self.run_name, self.lock = (
            editor, folder, run_name, threading.RLock())
        self.painter, self.keeper = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        # Versions are higher than those of earlier sessions, whose pages may be open still.
        editor.version = editor.opened.version = self.first_version = int(time.time() * 1000)
        self.authors = {}                           # {page: version that it has made last}
        self.page = None                            # the one that has made the present version
        self.unsaved = {about['file']: about for about in sorted(
            map(scene_files.read_about, folder.glob('.*-unsaved*.npz')), key=lambda x: x['time'])}
        self.recoveries, self.keep_error = [], None     # files of this session; why there are none
        self.name_scene(name, warnings)
        self.pictures = {}                          # {version: picture}, the last two
        self.computing, self.layers_done, self.closing = None, 0, False
        self.hooks = [module.register_forward_pre_hook(self.before_layer)
                      for module in editor.run.G.modules() if not list(module.children())]

    def name_scene(self, name, warnings=()):
        """Name the scene that was just opened, and the file that keeps its unsaved edits."""
        name = re.sub(r'[^\w .,()+-]', '_', name)[:50].strip(' .') or 'scene'
        paths = (self.folder / f'.{name}-unsaved{end}.npz' for end in
                 itertools.chain([''], (f'-{n:03d}' for n in itertools.count(1))))
        path = next(path for path in paths if path not in self.recoveries and not path.exists())
        self.recoveries.append(path)
        opened = self.editor.opened
        opened.name, opened.warnings, opened.recovery = name, list(warnings), path
        opened.recovered = 0                        # edits of earlier sessions

    def before_layer(self, *hook_arguments):
        """Stop the computation of a picture that nobody needs any more."""
        self.layers_done += 1
        if self.closing or self.computing not in (None, self.editor.version):
            raise Refused(409, 'the scene has changed since')

    def compute(self, version, inputs, key=None):
        """Return the picture of what generate.synthesise takes, unless the version has changed."""
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
        counts = e.clusters['counts'] if e.clusters else np.zeros((e.config.n_labels, 1))
        learned = {*range(e.config.n_labels)}
        if e.clusters:
            learned = {*counts.any(1).nonzero()[0].tolist()}
        elif e.config.present is not None:
            learned = {*e.config.present}
        labels = zip(e.label_names, pictures.label_colours(e.config).tolist(),
                     (counts > 0).sum(1).tolist())
        numbers = {key: style.number for key, style in e.state.styles.items()}
        return {
            'title': f'{e.opened.name}, {self.run_name}', 'name': e.opened.name,
            'version': e.version, 'maps_version': e.maps_version, 'page': self.page,
            'session': self.first_version,
            'size': e.state.label.shape[::-1],
            'labels': [{'label': i, 'name': name, 'colour': colour, 'thing': i in e.things,
                        'styles': n, 'learned': i in learned}
                       for i, (name, colour, n) in enumerate(labels)],
            'objects': [{'id': i, 'label': label, 'pixels': pixels, 'box': box,
                         'style': numbers.get(label if e.by_label else i)}
                        for i, label, pixels, box in zip(*(x.tolist() for x in e.objects))],
            'undo': e.now, 'redo': len(e.history) - 1 - e.now,
            'history': [entry.name for entry in e.history],
            'unsaved': not e.is_saved(), 'unsaved_found': [*self.unsaved.values()],
            'warnings': e.opened.warnings, 'no_styles': scene_files.labels_without_styles(e),
            'encoder': e.run.E is not None, 'photo': e.opened.photo is not None,
            'opened': e.opened.version}

    def maps(self, opened: boolean = False):
        """Return the label of every pixel as uint16, row by row, then its instance as int32; of
        the scene as it was opened, on request."""
        state = self.editor.reset() if opened else self.editor.state
        return ('application/octet-stream',
                state.label.astype('<u2').tobytes() + state.inst.astype('<i4').tobytes())

    def edit(self, edits: edit_list, version: version_number = None, page: string = None):
        """Apply a list of edits, all or none. Return the state. version: of the state that the
        sender has seen; page: its name. If another page has changed the scene since, the request
        is refused."""
        self.require_seen(version, page)
        self.editor.edit(edits)
        return self.changed(page)

    def require_seen(self, version, page):
        if version is not None and version < self.first_version:
            raise Refused(409, 'the editor was started again')
        if version is not None and any(made > version for author, made in self.authors.items()
                                       if author != page):
            raise Refused(409, 'changed in another tab')

    def changed(self, page=None):
        """Note which page has made this version, and keep it. Return the state."""
        self.page, self.authors[page] = page, self.editor.version
        self.keep()
        return self.state()

    def keep(self):
        """Write the recovery file in the background, or delete it if all is saved."""
        e = self.editor
        version, state, opened, is_saved = e.version, e.state, e.opened, e.is_saved()
        about = {'name': opened.name, 'edits': e.now - opened.position + opened.recovered,
                 'version': version}

        def write():
            if version != e.version and opened is e.opened:
                return                              # a newer one is written soon
            try:
                if is_saved:
                    opened.recovery.unlink(missing_ok=True)
                else:
                    scene_files.write_recovery(opened.recovery, state, opened.noise, **about)
                self.keep_error = None
            except (ValueError, OSError) as error:
                self.keep_error = one_line(error)
                warn(f'warning: {self.keep_error}; editing goes on')
        self.keeper.submit(write)

    def picture(self, version: version_number, preview: boolean = False,
                opened: boolean = False):
        """Return the picture of this version or of the scene as opened; preview: at half size."""
        e, step = self.editor, 2 if preview else 1
        inputs = e.inputs(e.reset() if opened else e.state, np.s_[::step, ::step])
        key = None if preview else e.opened.version if opened else version
        return lambda: png(self.compute(version, inputs, key))

    def progress(self):
        """Return the share of the layers that are computed, 0 to 1, or null between pictures; the
        version; and why unsaved edits are not kept, or null."""
        return {'progress': self.computing and min(self.layers_done / len(self.hooks), 1),
                'version': self.editor.version, 'keep_error': self.keep_error}

    def thumbnail(self, object: object_id, style: style_choice):
        """Return a picture of an object in a style, of which the network sees the surroundings."""
        e = self.editor
        version, state = e.version, e.style(style, object)
        x0, y0, x1, y1 = e.objects.boxes[e.objects.ids == object][0].tolist()
        edge = max(16, (x1 - x0) // 4, (y1 - y0) // 4)
        left, top = max(0, x0 - edge), max(0, y0 - edge)
        step = int(np.ceil(((x1 + edge - left) * (y1 + edge - top) / THUMBNAIL_PIXELS) ** 0.5))
        inputs = e.inputs(state, np.s_[top:y1 + edge:step, left:x1 + edge:step])
        shown = np.s_[..., (y0 - top) // step:-(-(y1 - top) // step),
                      (x0 - left) // step:-(-(x1 - left) // step)]
        return lambda: png(self.compute(version, inputs)[shown])

    def photo(self, data: string, name: string = None):
        """Use a photograph of the scene (base64) for the style 'photo'. Return the state. name: of
        its file, for errors."""
        e = self.editor
        e.require_encoder()
        opened, scene = e.opened, e.inputs()[0]
        def read():
            photo, _ = self.read_files(lambda photo: read_photo(e.config, photo, scene),
                                       {'photo': name}, photo=data)
            with self.lock:
                opened.photo = photo
                return self.state()
        return read

    def open(self, label: string, inst: string = None, styles: string = None,
             label_name: string = None, inst_name: string = None, styles_name: string = None,
             version: version_number = None, page: string = None):
        """Open the scene of a label map, an instance map and styles (base64), from files of these
        names. Return the state. version, page: see edit."""
        names = {'label_path': label_name, 'inst_path': inst_name, 'styles_path': styles_name}
        e = self.editor

        def open_files(label_path, **paths):
            new = scene_files.open_scene(e.run, e.clusters, label_path, **paths)
            warn_about_size(self.run_name, e.config, label_path, new.inputs()[0])
            return new

        def read():
            new, warnings = self.read_files(open_files, names, label_path=label, inst_path=inst,
                                            styles_path=styles)
            with self.lock:
                self.require_seen(version, page)
                e.open(new.state, noise=new.opened.noise, size=new.opened.size)
                self.name_scene(scene_name(label_name or 'scene.png'), warnings)
                return self.changed(page)
        return read

    def read_files(self, read, names, **files):
        """Write files (base64, or None) to a temporary folder; return read(role=path, ...) and the
        warnings. names: {role: name of the file, or None}, for messages."""
        with tempfile.TemporaryDirectory(prefix='.upload-', dir=self.folder) as temporary:
            paths = dict.fromkeys(files)

            def named(text):                        # the user does not know the temporary folder
                text = text.replace(f'{temporary}/', '')
                for role, path in paths.items():
                    text = text.replace(path.name, names[role]) if path and names[role] else text
                return text
            try:
                for role, encoded in files.items():
                    if encoded is not None:
                        content = base64.b64decode(encoded, validate=True)
                        # The readers know pictures by their content, but arrays by their suffix.
                        suffix = '.npy' if content.startswith(b'\x93NUMPY') else '.png'
                        paths[role] = Path(temporary, f'{role}{suffix}')
                        paths[role].write_bytes(content)
                        if role != 'styles_path':
                            require_few_pixels(paths[role])
                with collect_warnings() as warnings:
                    return read(**paths), [*map(named, warnings)]
            except ValueError as error:
                raise UserError(named(str(error))) from None

    def save(self, version: version_number = None, page: string = None):
        """Write the scene and its picture under a free name. Return the state and the paths.
        version, page: see edit."""
        self.require_seen(version, page)
        version, inputs = self.editor.version, self.editor.inputs()
        def write():
            image = self.compute(version, inputs, version)
            with self.lock:
                if version != self.editor.version:
                    raise Refused(409, 'the scene has changed since')
                e = self.editor
                name = scene_files.free_name(self.folder, e.opened.name)
                paths = scene_files.save(e, self.folder, name, image)
                e.opened.saved.append(e.history[e.now])
                self.keep()
                return {**self.state(), 'files': [str(path) for path in paths]}
        return write

    def kept_picture(self, file: string):
        """Return a small picture of the unsaved edits in a recovery file."""
        e = self.editor
        state, noise = scene_files.read_recovery(self.folder / self.known(file), e)
        step = int(np.ceil((state.label.size / THUMBNAIL_PIXELS) ** 0.5))
        scene, vectors, _ = e.inputs(state, np.s_[::step, ::step])
        version = e.version
        return lambda: png(self.compute(version, (scene, vectors, noise)))

    def known(self, file):
        if file not in self.unsaved:
            raise UserError(f'{json.dumps(file)[:60]}: expected one of the files in unsaved_found')
        return file

    def recover(self, restore: boolean, file: string = None, version: version_number = None,
                page: string = None):
        """Restore the unsaved edits in a recovery file (default: the newest), or forget them: the
        file is then kept as .forgotten. Return the state. version, page: see edit."""
        self.require_seen(version, page)
        if not self.unsaved and file is None:
            return self.state()
        file = [*self.unsaved][-1] if file is None else self.known(file)
        about, e = self.unsaved[file], self.editor
        path = self.folder / about['file']
        if restore:
            state, noise = scene_files.read_recovery(path, e)
            if (about['name'], noise, state.label.shape) == (
                    e.opened.name, e.opened.noise, e.state.label.shape):
                e.push(state, 'restore')
                e.opened.recovered = (about['edits'] or 1) - 1
            else:
                e.open(state, noise=noise)
                self.name_scene(about['name'])
                e.opened.saved.clear()
                e.opened.recovered = about['edits'] or 1
            self.changed(page)
        def put_away():
            if not restore:
                path.replace(self.folder / f'{scene_files.free_name(self.folder, path.stem)}'
                                           '.forgotten')
            elif self.keep_error is None:           # else these are the only ones that are kept
                path.unlink(missing_ok=True)
        self.keeper.submit(warn_on_error, put_away, 'it is offered again').result()
        del self.unsaved[about['file']]
        return self.state()

    def close(self):
        self.closing = True
        self.keeper.shutdown()
        self.painter.shutdown()
        for hook in self.hooks:
            hook.remove()


REQUESTS = {f'/{f.__name__}': f for f in (
    Session.state, Session.maps, Session.edit, Session.picture, Session.progress,
    Session.thumbnail, Session.photo, Session.open, Session.save, Session.kept_picture,
    Session.recover)}


def require_few_pixels(path):
    """Raise a UserError for a picture so large that reading it would take very long."""
    w, h = read_header(path).size
    if w * h > MAX_PIXELS:
        raise UserError(f'{path}: {w}x{h} is too large for the page, which opens at most '
                        f'{MAX_PIXELS >> 20} million pixels; make it smaller, or start edit with '
                        'it and --size')


def png(image):
    """Return content type and body of an answer with a picture (1, C, H, W) in [-1, 1]."""
    file = io.BytesIO()
    picture = pictures.to_rgb(pictures.to_uint8_hwc(image))
    Image.fromarray(picture).save(file, 'PNG', compress_level=1)
    return 'image/png', file.getvalue()
