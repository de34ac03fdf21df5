"""The session of the editor: what the page asks of an opened scene, a method a request."""
import base64
from concurrent.futures import ThreadPoolExecutor
import io
import itertools
import math
from pathlib import Path
import re
import tempfile
import threading
import time
import zipfile

import numpy as np
from PIL import Image

from app.common.console import collect_warnings, warn, warn_on_error
from app.common.errors import UserError, one_line
from app.datasets.decoding import read_header
from app.datasets.layouts import roles_by_name, scene_name
from app.datasets.pairs import PairReader
from app.datasets.scenes import half_for_run, read_photo, warn_about_size
from app.editor import scene_files
from app.editor.arguments import (as_json, boolean, checked, edit_list, label_number, list_between,
                                  number_between, object_id, string, style_choice)
from app.runs import pictures
import generate

MAX_PIXELS = 1 << 24                    # of a picture or a map that the page sends
THUMBNAIL_PIXELS = 1 << 16              # the network computes at most so many for a thumbnail
MAP_WIDTH = 240                         # at most, of the small map of a scene that can be opened

version_number = number_between(0, 1 << 53, whole=True)
file_role = checked(lambda x: x in ('picture', 'label', 'inst', 'styles', 'edits', 'all'),
                    'picture, label, inst, styles, edits or all')


def file_name(editor, value):
    """A name for the files of a scene."""
    name = checked(lambda x: isinstance(x, str) and re.fullmatch(
        r'[\w(][\w .,()+-]{0,48}[\w)+]|\w', x), 'a name of 1 to 50 letters, digits, spaces and '
        '. , ( ) + - _, which begins with a letter or a digit and ends with one')(editor, value)
    if roles_by_name(name + '.png') is not None:
        raise UserError(f'{name}: {name}.png would be taken for a map; choose another name')
    return name


def blank_size(editor, value):
    """A size [width, height] of a scene that the page can show."""
    pair = list_between(2, 2, number_between(16, 1 << 15, whole=True), 'a size [width, height]')
    w, h = pair(editor, value)
    if w * h > MAX_PIXELS:
        raise UserError(f'{w} x {h}: expected at most {MAX_PIXELS >> 20} million pixels')
    return w, h


class Refused(Exception):
    """A request that is refused; arguments: HTTP status, message."""


class Session:
    """An Editor and the requests of the page, for a scene <folder>/<name>. They run with `lock`.
    One that takes long returns a function, which runs without it. Pictures are made by the thread
    `painter`.
    listed: a scene_files.SceneList of the scenes that the page can open."""

    def __init__(self, editor, folder, name, run_name, warnings=(), listed=scene_files.NO_SCENES):
        self.listed, self.borrowed = listed, []     # see borrow
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
        self.dropped = set()                        # of these, see offer_dropped
        self.name_scene(name, warnings, name if name in listed.files else None)
        self.pictures = {}                          # {version: picture}, the last two
        self.computing, self.layers_done, self.closing = None, 0, False
        self.hooks = [module.register_forward_pre_hook(self.before_layer)
                      for module in editor.run.G.modules() if not list(module.children())]

    def name_scene(self, name, warnings=(), listed_name=None):
        """Name the scene that was just opened, and the file that keeps its unsaved edits."""
        name = re.sub(r'[^\w .,()+-]', '_', name)[:50].strip(' .') or 'scene'
        paths = (self.folder / f'.{name}-unsaved{end}.npz' for end in
                 itertools.chain([''], (f'-{n:03d}' for n in itertools.count(1))))
        path = next(path for path in paths if path not in self.recoveries and not path.exists())
        self.recoveries.append(path)
        opened = self.editor.opened
        opened.name, opened.warnings, opened.recovery = name, list(warnings), path
        opened.recovered = 0                        # edits of earlier sessions
        # Of the scene that its edits begin from, and the path of its map if it is listed.
        opened.checksum = scene_files.checksum(self.editor.state, opened.noise)
        opened.source = listed_name and self.map_path(listed_name)
        opened.listed_name = listed_name            # in the list of scenes, or None

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
            'edits': len(edits) if (edits := e.edits_since_opened()) is not None else None,
            'history': [f'open {x.opened.name}' if x.name == 'open' else x.name for x in e.history],
            'unsaved': not e.is_saved(), 'unsaved_found': self.list_recoveries(saved=False),
            'saved_found': self.list_recoveries(saved=True),
            'warnings': e.opened.warnings, 'no_styles': scene_files.labels_without_styles(e),
            'instances': e.config.instances != 'none', 'encoder': e.run.E is not None,
            'photo': e.opened.photo is not None, 'borrowed': len(self.borrowed),
            'opened': e.opened.version, 'scenes': len(self.listed.files),
            'default_size': scene_files.default_size(e.config) or e.state.label.shape[::-1]}

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
        self.offer_dropped()
        return self.state()

    def offer_dropped(self):
        """Offer to restore the unsaved edits of scenes that the history has lost: an edit drops the
        states after it, and another scene may have been opened among them."""
        left = {entry.opened.recovery for entry in self.editor.history}
        dropped = {*self.recoveries} - left - self.dropped
        if dropped:
            self.keeper.submit(int).result()            # until all files are written
        for path in dropped:
            if path.exists() and not (about := scene_files.read_about(path))['saved']:
                self.unsaved[path.name] = about
        self.dropped |= dropped

    def keep(self):
        """Write the recovery file in the background, or delete it if nothing has changed. What is
        saved is kept until the end, too, for a page that outlives this server."""
        e = self.editor
        version, state, opened = e.version, e.state, e.opened
        session, is_new = e.edits_since_opened(), e.now == opened.position
        about = {'name': opened.name, 'edits': e.now - opened.position + opened.recovered,
                 'version': version, 'saved': e.is_saved(), 'opened': opened.checksum,
                 'source': opened.source}

        def write():
            if version != e.version and opened is e.opened:
                return                              # a newer one is written soon
            try:
                if is_new and about['saved']:
                    opened.recovery.unlink(missing_ok=True)
                else:
                    scene_files.write_recovery(opened.recovery, state, opened.noise, session,
                                               **about)
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
        # A small object needs surroundings: the norms of the network depend on all that it sees.
        side = max(x1 - x0, y1 - y0)
        edge = max(side // 4, (math.isqrt(THUMBNAIL_PIXELS) - side) // 2)
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
        e, name = self.editor, scene_name(label_name or 'scene.png')

        def open_files(label_path, **paths):
            new = scene_files.open_scene(e.run, e.clusters, label_path, size=self.listed.size,
                                         seed=self.listed.seed, name=name, **paths)
            warn_about_size(self.run_name, e.config, label_path, new.inputs()[0])
            return new

        def read():
            new, warnings = self.read_files(open_files, names, label_path=label, inst_path=inst,
                                            styles_path=styles)
            with self.lock:
                self.require_seen(version, page)
                return self.show_scene(new, page, name, warnings)
        return read

    def show_scene(self, new, page, name, warnings=(), listed_name=None):
        """Open the scene of another Editor. Return the state."""
        opened = new.opened
        self.editor.open(new.state, opened.photo, opened.noise, opened.size)
        self.name_scene(name, warnings, listed_name)
        return self.changed(page)

    def blank(self, label: label_number, size: blank_size, version: version_number = None,
              page: string = None):
        """Open a scene of one object of a label. Return the state. version, page: see edit."""
        self.require_seen(version, page)
        e = self.editor
        new = scene_files.blank_scene(e.run, e.clusters, label, size, self.listed.seed)
        return self.show_scene(new, page, scene_files.BLANK)

    def scenes(self):
        """Return the names of the scenes that can be opened, whether they have styles for others,
        see borrow, and the name of the one that is open."""
        return {'scenes': [{'name': name, 'styles': bool(files.photo or files.styles)}
                           for name, files in self.listed.files.items()],
                'open': self.editor.opened.listed_name}

    def scene_map(self, scene: string):
        """Return a small label map of a scene that can be opened, in colours."""
        config, label = self.editor.config, self.find_listed(scene).label
        def read():
            path = half_for_run(config, label)
            require_few_pixels(path)
            w, h = read_header(path).size
            scale = min(1, MAP_WIDTH / w)
            ids = PairReader(config).read_label(path, [max(1, round(x * scale)) for x in (w, h)])[0]
            return to_png(pictures.label_colours(config)[ids])
        return read

    def open_scene(self, scene: string, version: version_number = None, page: string = None):
        """Open a scene of the list; with its unsaved edits, if this session has some. Return the
        state. version, page: see edit."""
        self.require_seen(version, page)
        e, files = self.editor, self.find_listed(scene)
        last = next((i for i in [e.now, *reversed(range(len(e.history)))]
                     if e.history[i].opened.listed_name == scene), None)
        if last is not None and not (edited := e.at(last)).is_saved():
            return self.reopen(edited, page)
        if not self.listed.size:
            require_few_pixels(half_for_run(e.config, files.label))
        def read():
            with collect_warnings() as warnings:
                new = scene_files.open_listed(e.run, e.clusters, self.listed, scene,
                                              self.run_name)
            with self.lock:
                self.require_seen(version, page)
                return self.show_scene(new, page, scene, warnings, scene)
        return read

    def reopen(self, edited, page):
        """Continue with the unsaved edits of a scene that an Editor shows: one step after it."""
        e, opened, edits = self.editor, edited.opened, edited.edits_since_opened()
        before = edited.history[opened.position].edits          # of the scene as it was opened
        e.open(edited.reset(), opened.photo, opened.noise, opened.size, before)
        for name in 'name warnings recovery listed_name checksum source saved'.split():
            setattr(e.opened, name, getattr(opened, name))
        e.opened.recovered = edited.now - opened.position + opened.recovered - 1
        e.push(edited.state, 'restore', edits=edits and edits[len(before):])
        e.separate_moves()
        return self.changed(page)

    def borrow(self, scene: string = None, label: string = None, inst: string = None,
               styles: string = None, photo: string = None, label_name: string = None,
               inst_name: string = None, styles_name: string = None, photo_name: string = None):
        """Offer the styles that the objects of another scene have in its photograph, or in its file
        of styles: a scene of the list, or of files (base64) of these names. Return the state and
        `notes`, the warnings."""
        e = self.editor
        e.require_encoder()
        if (scene is None) == (label is None):
            raise UserError('expected either "scene" or "label"')
        if not any(self.find_listed(scene)[2:] if scene else (styles, photo)):
            raise UserError(f'{scene or label_name}: a photograph of that scene is missing'
                            + '; name a folder of them with --photo' * bool(scene))
        names = {'label_path': label_name, 'inst_path': inst_name, 'styles_path': styles_name,
                 'photo_path': photo_name}

        def open_files(label_path, inst_path, styles_path, photo_path):
            size = None if styles_path else scene_files.source_size(e.config, label_path)
            return scene_files.open_scene(e.run, e.clusters, label_path, inst_path, size,
                                          styles_path, photo_path)

        def encode():
            if scene is not None:
                with collect_warnings() as notes:
                    return open_files(*self.listed.files[scene]), notes
            return self.read_files(open_files, names, label_path=label, inst_path=inst,
                                   styles_path=styles, photo_path=photo)

        def read():
            source, notes = self.painter.submit(encode).result()
            found = {'name': scene or photo_name or styles_name or label_name or 'another scene',
                     'styles': scene_files.styles_of_objects(source)}
            with self.lock:
                self.borrowed.append(found)
                return {**self.state(), 'notes': notes}
        return read

    def offers(self):
        """Return what borrow has found."""
        return {'borrowed': self.borrowed}

    def features(self, object: object_id):
        """Return the features of an object, and those of the styles of its label."""
        e = self.editor
        e.require_encoder()
        label = e.label_of(object)
        n_styles = int((e.clusters['counts'][label] > 0).sum())
        return {'now': list(e.state.styles[label if e.by_label else object].features),
                'styles': e.clusters['centres'][label, :n_styles].tolist()}

    def find_listed(self, name):
        if name not in self.listed.files:
            raise UserError(f'{as_json(name)}: expected one of the names in scenes')
        return self.listed.files[name]

    def map_path(self, listed_name):
        """Return the absolute path, a str, of the label map of a scene of the list."""
        return str(self.listed.files[listed_name].label.resolve())

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
                        suffix = '.npy' if content.startswith(b'\x93NUMPY') else '.png'
                        paths[role] = Path(temporary, f'{role}{suffix}')
                        paths[role].write_bytes(content)
                        if role != 'styles_path':
                            require_few_pixels(paths[role])
                with collect_warnings(named) as warnings:
                    return read(**paths), warnings
            except ValueError as error:
                raise UserError(named(str(error))) from None
            except OSError as error:                # a full disk
                raise UserError(f'{self.folder}: {error.strerror}') from None

    def save(self, name: file_name = None, version: version_number = None, page: string = None):
        """Write the scene and its picture under a name that no file has, which becomes its name;
        by default under its name with a number. Return the state and the paths. version, page: see
        edit."""
        self.require_seen(version, page)
        if name is not None:
            scene_files.require_free_name(self.folder, name)
        version, inputs = self.editor.version, self.editor.inputs()
        def write():
            image = self.compute(version, inputs, version)
            with self.lock:
                if version != self.editor.version:
                    raise Refused(409, 'the scene has changed since')
                e = self.editor
                free = name or scene_files.free_name(self.folder, e.opened.name)
                scene_files.require_free_name(self.folder, free)
                paths = scene_files.save(e, self.folder, free, image)
                e.opened.name = name or e.opened.name
                e.opened.saved.append(e.history[e.now])
                self.keep()
                return {**self.state(), 'files': [str(path) for path in paths]}
        return write

    def download(self, file: file_role, name: file_name = None, version: version_number = None,
                 page: string = None):
        """Return a file of the scene, see scene_files.encode_scene, or 'all' of them in a .zip,
        under a name. version, page: see edit."""
        self.require_seen(version, page)
        scene, version, inputs = self.editor.at(self.editor.now), self.editor.version, None
        roles = scene_files.saved_roles(scene.config) + ['edits'] * bool(scene.edits_since_opened())
        if file not in (*roles, 'all'):
            raise UserError(f'{file}: this scene has none')
        if file in ('picture', 'all'):
            inputs = scene.inputs()
        def encode():
            image = inputs and self.compute(version, inputs, version)
            files = {(name or scene.opened.name) + ending: content for ending, content in (
                scene_files.encode_scene(scene, role, image)
                for role in (roles if file == 'all' else [file]))}
            if file != 'all':
                (path, content), = files.items()
                return CONTENT_TYPES[Path(path).suffix], content
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, 'w') as writer:
                for path, content in files.items():
                    writer.writestr(path, content)
            return 'application/zip', archive.getvalue()
        return encode

    def kept_picture(self, file: string):
        """Return a small picture of the unsaved edits in a recovery file."""
        e = self.editor
        state, noise, _ = scene_files.read_recovery(self.folder / self.require_recovery(file), e)
        step = int(np.ceil((state.label.size / THUMBNAIL_PIXELS) ** 0.5))
        scene, vectors, _ = e.inputs(state, np.s_[::step, ::step])
        version = e.version
        return lambda: png(self.compute(version, (scene, vectors, noise)))

    def list_recoveries(self, saved):
        """Return what read_about says of the recovery files that are offered."""
        return [about for about in self.unsaved.values() if about['saved'] == saved]

    def require_recovery(self, file):
        if file not in self.unsaved:
            raise UserError(f'{as_json(file)}: expected one of the files in unsaved_found')
        return file

    def recover(self, restore: boolean, file: string = None, version: version_number = None,
                page: string = None):
        """Restore the unsaved edits in a recovery file (default: the newest), or forget them: the
        file is then kept as .forgotten. Return the state. version, page: see edit."""
        self.require_seen(version, page)
        found = self.list_recoveries(saved=False)
        if not found and file is None:
            return self.state()
        file = found[-1]['file'] if file is None else self.require_recovery(file)
        about, e = self.unsaved[file], self.editor
        path = self.folder / file
        if restore:
            state, noise, edits = scene_files.read_recovery(path, e)
            name = about['name']
            is_in_files = e.history[e.opened.position].edits == ()
            if is_in_files and about['opened'] == e.opened.checksum:    # it is the one that is open
                e.push(state, 'restore', edits=edits and [{'do': 'reset'}, *edits])
                e.opened.name, e.opened.recovered = name, (about['edits'] or 1) - 1
            else:
                e.open(state, noise=noise, edits=edits)
                self.name_scene(name, listed_name=next(
                    (x for x in self.listed.files if self.map_path(x) == about['source']), None))
                e.opened.checksum, e.opened.source = about['opened'], about['source']
                e.opened.saved.clear()
                e.opened.recovered = about['edits'] or 1
            e.separate_moves()
            if about['saved']:
                e.opened.saved.append(e.history[e.now])
            self.changed(page)
        def put_away():
            if not restore:
                path.replace(self.folder / f'{scene_files.free_name(self.folder, path.stem)}'
                                           '.forgotten')
            elif self.keep_error is None:           # else these are the only ones that are kept
                path.unlink(missing_ok=True)
        self.keeper.submit(warn_on_error, put_away, 'it is offered again').result()
        del self.unsaved[file]
        return self.state()

    def close(self):
        self.closing = True
        self.keeper.shutdown()
        for path in {*self.recoveries, *(self.folder / file for file in self.unsaved)}:
            if path.exists() and scene_files.read_about(path)['saved']:
                path.unlink()
        self.painter.shutdown()
        for hook in self.hooks:
            hook.remove()


REQUESTS = {f'/{f.__name__}': f for f in (
    Session.state, Session.maps, Session.edit, Session.picture, Session.progress,
    Session.thumbnail, Session.photo, Session.open, Session.save, Session.download,
    Session.kept_picture, Session.recover, Session.blank, Session.scenes, Session.scene_map,
    Session.open_scene, Session.borrow, Session.offers, Session.features)}
CONTENT_TYPES = {'.png': 'image/png', '.json': 'application/json',
                 '.npy': 'application/octet-stream'}


def require_few_pixels(path):
    """Raise a UserError for a picture so large that reading it would take very long."""
    w, h = read_header(path).size
    if w * h > MAX_PIXELS:
        raise UserError(f'{path}: {w}x{h} is too large for the page, which opens at most '
                        f'{MAX_PIXELS >> 20} million pixels; make it smaller, or start edit with '
                        'it and --size')


def png(image):
    """Return content type and body of an answer with a picture (1, C, H, W) in [-1, 1]."""
    return to_png(pictures.to_rgb(pictures.to_uint8_hwc(image)))


def to_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG', compress_level=1)
    return 'image/png', file.getvalue()
