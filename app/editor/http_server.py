"""The HTTP server of the editor: GET / returns the page; POST /<request>, with arguments in JSON,
calls one of REQUESTS. Pages of other sites get nothing: Host and Origin must be names of this
server, and every request needs the token of the printed address."""
import base64
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
import hashlib
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import io
import ipaddress
import itertools
import json
import os
from pathlib import Path
import re
import secrets
import socket
import stat
import sys
import tempfile
import threading
import time
from urllib.parse import parse_qs
import webbrowser

import numpy as np
from PIL import Image

from app.common.config import ALLOWED_HOST
from app.common.console import collect_warnings, log_info, warn, warn_on_error
from app.common.errors import UserError, is_out_of_memory, one_line
from app.datasets.decoding import read_header
from app.datasets.layouts import scene_name
from app.datasets.scenes import read_photo, warn_about_size
from app.editor import scene_files
from app.editor.operations import (boolean, edit_list, number_between, object_id,
                                   parse_arguments, string, style_choice)
from app.runs import pictures
import generate

MAX_REQUEST_BYTES = 96 << 20            # enough for a scene or a photograph
MAX_PIXELS = 1 << 24                    # of a picture or a map that the page sends
MAX_THREADS = 200                       # of this process; a client takes one
MAX_WAITING = 32                        # clients that have not sent their request yet
THUMBNAIL_PIXELS = 1 << 16              # the network computes at most so many for a thumbnail
MAX_REPORTED = 10                       # addresses of which refused requests are printed
PAGE = Path(__file__).parent / 'page'
SCRIPTS = 'scene drawing panels pointer files keys start'.split()     # in this order


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
                e.push(state)
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


def read_page():
    """Return the page with its style sheet and its scripts inside, so that it is one request."""
    page = (PAGE / 'page.html').read_text('utf-8')
    style = (PAGE / 'page.css').read_text('utf-8')
    scripts = ["'use strict';", *((PAGE / f'{name}.js').read_text('utf-8') for name in SCRIPTS)]
    page = page.replace('<style></style>', f'<style>\n{style}</style>')
    script = '\n'.join(scripts)
    return page.replace('<script></script>', f'<script>\n{script}</script>').encode()


class Server(ThreadingHTTPServer):
    """Serves a Session to clients that know `token`; names: the Host headers that are accepted.
    allowed: further ones, of a tunnel or a proxy."""
    request_queue_size = 128

    def __init__(self, session, host, port, allowed=(), token=None):
        self.session, self.page = session, read_page()
        self.token = token or secrets.token_urlsafe(24)
        style, script = (base64.b64encode(hashlib.sha256(text).digest()).decode() for _, text in
                         re.findall(rb'(?s)<(style|script)>(.*?)</\1>', self.page))
        self.policy = (                                     # no other script or style sheet
            f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
            "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'")
        if ':' in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)
        bound, port = self.server_address[:2]
        if ipaddress.ip_address(bound).is_unspecified:      # its names are not known
            raise UserError(f'--host {host}: expected a single address of this machine')
        hosts = [f'[{bound}]'] if ':' in bound else [host.lower(), bound]
        hosts += ['localhost'] if ipaddress.ip_address(bound).is_loopback else []
        self.names = [f'{name}:{port}' for name in hosts]
        self.address = f'http://{self.names[0]}/?token={self.token}'
        self.names += hosts if port == 80 else []           # browsers leave out port 80
        self.allowed = [name.lower() for name in allowed]
        self.names += self.allowed
        self.refused = set()                                # Host headers that are reported
        self.waiting = {}                                   # {connection: None}, the oldest first

    def refuse_host(self, hosts):
        """Return why a request with these Host headers is refused, and print it once."""
        message = f'expected the address {" or ".join(self.names)}'
        if len(hosts) == 1 and ALLOWED_HOST.fullmatch(hosts[0]):
            message = (f'{hosts[0]} is not an address of this server; open the one that was '
                       'printed, or if this is a tunnel of yours, start edit with --allow-host '
                       f'{hosts[0]}')
            if hosts[0] not in self.refused and len(self.refused) < MAX_REPORTED:
                self.refused.add(hosts[0])
                warn(f'p2phd edit: a request was refused: {message}')
        return message

    def verify_request(self, request, client_address):
        """Admit a client; if many send nothing, disconnect the one that has waited longest."""
        with suppress(OSError):
            for idle in [*self.waiting][:max(0, len(self.waiting) - MAX_WAITING + 1)]:
                self.waiting.pop(idle, None)
                idle.shutdown(socket.SHUT_RDWR)
        self.waiting[request] = None
        return threading.active_count() < MAX_THREADS

    def shutdown_request(self, request):
        self.waiting.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Print nothing when a client goes away."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request; the connection is closed after it (HTTP/1.0)."""
    server_version, sys_version = 'p2phd', ''
    timeout = 30                        # seconds, of a read or a write

    def do_POST(self):
        try:
            answer = self.get_answer()
        except Refused as refused:
            return self.send_error(*refused.args)
        except (UserError, OSError) as error:
            return self.send_error(400, one_line(error))
        except Exception as error:                  # no memory, or a bug: the server continues
            message = ('there is not enough memory' if is_out_of_memory(error) else
                       f'{type(error).__name__}: {one_line(error)}')
            warn(f'p2phd edit: {self.path!r}: {message}')
            return self.send_error(500, message)
        self.answer(*answer)

    do_GET = do_POST

    def get_answer(self):
        """Check the request and do what it asks for. Return content type and body."""
        server, is_get = self.server, self.command == 'GET'
        hosts, origins = (self.headers.get_all(name) or [] for name in ('Host', 'Origin'))
        if len(hosts) != 1 or hosts[0].lower() not in server.names:
            raise Refused(403, server.refuse_host(hosts))
        allowed = {f'http://{name}' for name in server.names} | {
            f'https://{name}' for name in server.allowed}       # a proxy may encrypt
        if not {*origins} <= allowed:
            raise Refused(403, 'the page of another site made this request')
        (path, _, query), paths = self.path.partition('?'), ['/'] if is_get else REQUESTS
        if path not in paths:
            raise Refused(404, f'no such address; expected one of {" ".join(paths)}')
        token = (parse_qs(query).get('token', [''])[-1] if is_get else
                 self.headers.get('X-Token', ''))
        if not secrets.compare_digest(token.encode(errors='replace'), server.token.encode()):
            raise Refused(403, 'the token is missing or wrong; open the address that was printed')
        server.waiting.pop(self.connection, None)   # it is no stranger
        if is_get:
            return 'text/html; charset=utf-8', server.page
        if self.headers.get_content_type() != 'application/json':
            raise Refused(415, 'expected application/json')
        length = self.headers.get('Content-Length', '')
        if 'Transfer-Encoding' in self.headers or not length.isdecimal() or len(length) > 12:
            raise Refused(411, 'expected a Content-Length')
        if int(length) > MAX_REQUEST_BYTES:
            raise Refused(413, f'more than {MAX_REQUEST_BYTES >> 20} MiB')
        try:
            values = json.loads(self.rfile.read(int(length)).decode())
        except (ValueError, RecursionError):        # also if the body is shorter
            raise Refused(400, 'not JSON') from None
        request, session = REQUESTS[path], server.session
        with session.lock:
            answer = request(session, **parse_arguments(request, values, session.editor))
        answer = answer() if callable(answer) else answer
        return (answer if isinstance(answer, tuple) else
                ('application/json', json.dumps(answer).encode()))

    def send_error(self, code, message=None, explain=None):
        """Answer with an error; the standard library calls this too, for what it rejects."""
        message = message or self.responses[code][0]
        if 'text/html' in getattr(self, 'headers', {}).get('Accept', ''):       # for a person
            page = f'<!doctype html><title>p2phd edit</title><h1>p2phd edit</h1>{escape(message)}'
            return self.answer('text/html; charset=utf-8', page.encode(), code)
        self.answer('application/json', json.dumps({'error': message}).encode(), code)

    def answer(self, content_type, body, status=200):
        self.send_response(status)
        for name, value in {
                'Content-Type': content_type, 'Content-Length': str(len(body)),
                'Content-Security-Policy': self.server.policy, 'Cache-Control': 'no-store',
                'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
                'Cross-Origin-Resource-Policy': 'same-origin',
                'Cross-Origin-Opener-Policy': 'same-origin'}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Do not log requests."""


def read_address(path):
    """Return port and token of the last server of a folder, so that its pages go on working when
    it is started again; 0 and None if only others than this user could have written them."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and (os.name != 'posix' or (
                status.st_uid == os.getuid() and not status.st_mode & 0o077)):
            stored = json.loads(path.read_text())
            if re.fullmatch(r'[\w-]{32}', stored['token']) and 0 < stored['port'] < 1 << 16:
                return int(stored['port']), stored['token']
    return 0, None


def write_address(path, server):
    """Write port and token of a server for read_address; only this user can read them."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'w') as file:
        json.dump({'port': server.server_address[1], 'token': server.token}, file)


def serve(editor, folder, name, run_name, host='127.0.0.1', port=0, browser=True, allowed=(),
          warnings=()):
    """Serve the page of an Editor until Ctrl-C; see Session, Server. Return the exit code.
    warnings: texts that the page shows, too."""
    session = Session(editor, folder, name, run_name, warnings)
    last_port, token = read_address(folder / '.address')
    try:
        try:
            server = Server(session, host, port or last_port, allowed, token)
        except OSError:
            if port or not last_port:
                raise
            server = Server(session, host, 0, allowed)
    except (OSError, UnicodeError) as error:
        raise UserError(f'--host {host} --port {port}: cannot be served there ({one_line(error)}); '
                        'choose others, or leave them out') from None
    with server:
        warn_on_error(lambda: write_address(folder / '.address', server),
                      'pages that are open now cannot go on after a restart')
        scene_files.warn_about_styles(editor)
        log_info(f'{server.address}\nCtrl-C ends it; scenes are saved in {folder}')
        has_window = os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')
        if browser and (sys.platform != 'linux' or has_window):
            with suppress(webbrowser.Error, OSError):           # never one in the terminal
                webbrowser.open(server.address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
        session.close()
        for path in filter(Path.exists, session.recoveries):
            log_info(f'\nthe edits are not saved; they are kept in {path}')
        return 0
