"""The HTTP server of the editor: GET / returns the page; POST /<request>, with arguments in JSON,
calls one of REQUESTS. Pages of other sites get nothing: Host and Origin must be names of this
server, and every request needs the token of the printed address."""
import base64
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
import glob
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import io
import ipaddress
import json
import os
from pathlib import Path
import re
import secrets
import socket
import sys
import tempfile
import threading
from urllib.parse import parse_qs
import webbrowser

import numpy as np
from PIL import Image

from app.common.config import ALLOWED_HOST
from app.common.console import log_info, warn, warn_on_error
from app.common.errors import UserError, is_out_of_memory, one_line
from app.datasets.scenes import read_photo
from app.editor import scene_files
from app.editor.operations import (boolean, edit_list, number_between, object_id,
                                   parse_arguments, string, style_choice)
from app.runs import pictures
import generate

MAX_REQUEST_BYTES = 96 << 20            # enough for a scene or a photograph
MAX_THREADS = 200                       # of this process; a client takes one
THUMBNAIL_PIXELS = 1 << 16              # the network computes at most so many for a thumbnail
MAX_REPORTED = 10                       # addresses of which refused requests are printed
PAGE = Path(__file__).with_name('page.html')


class Refused(Exception):
    """A request that is refused; arguments: HTTP status, message."""


class Session:
    """An Editor and the requests of the page, for a scene <folder>/<name>. They run with `lock`.
    One that needs a picture returns a function, which waits without it for the thread `painter`."""

    def __init__(self, editor, folder, name, title):
        self.editor, self.folder, self.name, self.title = editor, folder, name, title
        self.lock, self.saved_version = threading.RLock(), editor.version
        self.painter, self.keeper = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.recovery = folder / f'.{name}-unsaved.npz'
        if self.recovery.exists():                  # of an earlier session: keep it under a number
            name = scene_files.free_name(folder, self.recovery.stem)
            self.recovery.replace(folder / f'{name}.npz')
        self.unsaved = sorted(folder.glob(f'{glob.escape(self.recovery.stem)}-[0-9][0-9][0-9].npz'))
        self.pictures = {}                          # {version: picture}, the last two
        self.computing, self.layers_done, self.closing = None, 0, False
        self.hooks = [module.register_forward_pre_hook(self.before_layer)
                      for module in editor.run.G.modules() if not list(module.children())]

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
        labels = zip(e.label_names, pictures.label_colours(e.config).tolist(),
                     (counts > 0).sum(1).tolist())
        numbers = {key: style.number for key, style in e.state.styles.items()}
        return {
            'title': self.title, 'version': e.version, 'maps_version': e.maps_version,
            'size': e.state.label.shape[::-1],
            'labels': [{'label': i, 'name': name, 'colour': colour, 'thing': i in e.things,
                        'styles': n} for i, (name, colour, n) in enumerate(labels)],
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
        """Return the picture of this version or of the scene as opened; preview: at half size."""
        e, step = self.editor, 2 if preview else 1
        inputs = e.inputs(e.reset() if opened else e.state, np.s_[::step, ::step])
        key = None if preview else e.opened.version if opened else version
        return lambda: png(self.compute(version, inputs, key))

    def progress(self):
        """Return the share of the layers that are computed, 0 to 1, or null between pictures."""
        return {'progress': self.computing and min(self.layers_done / len(self.hooks), 1)}

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
        e.opened.photo = self.read_files(
            lambda photo: read_photo(e.config, photo, e.inputs()[0]), {'photo': name}, photo=data)
        return self.state()

    def open(self, label: string, inst: string = None, styles: string = None,
             label_name: string = None, inst_name: string = None, styles_name: string = None):
        """Open the scene of a label map, an instance map and styles (base64), from files of these
        names. Return the state."""
        names = {'label_path': label_name, 'inst_path': inst_name, 'styles_path': styles_name}
        e = self.editor
        new = self.read_files(lambda **paths: scene_files.open_scene(e.run, e.clusters, **paths),
                              names, label_path=label, inst_path=inst, styles_path=styles)
        e.open(new.state, noise=new.opened.noise, size=new.opened.size)
        return self.changed()

    def read_files(self, read, names, **files):
        """Write files (base64, or None) to a temporary folder; return read(role=path, ...).
        names: {role: name of the file, or None}, for errors."""
        with tempfile.TemporaryDirectory(prefix='.upload-', dir=self.folder) as temporary:
            try:
                for role, encoded in files.items():
                    if encoded is not None:
                        content = base64.b64decode(encoded, validate=True)
                        # The readers know pictures by their content, but arrays by their suffix.
                        suffix = '.npy' if content.startswith(b'\x93NUMPY') else '.png'
                        files[role] = Path(temporary, f'{role}{suffix}')
                        files[role].write_bytes(content)
                return read(**files)
            except ValueError as error:             # the user does not know the temporary folder
                text = str(error)
                for role, name in names.items():
                    if name and files.get(role):
                        text = text.replace(str(files[role]), name)
                raise UserError(text.replace(f'{temporary}/', '')) from None

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
        """Restore or delete the unsaved edits of the last earlier session. Return the state."""
        if self.unsaved and restore:
            state, noise = scene_files.read_recovery(self.unsaved[-1], self.editor)
            if state.label.shape == self.editor.state.label.shape:
                self.editor.push(state)
            else:
                self.editor.open(state, noise=noise)
            self.changed()
        if self.unsaved:        # the keeper writes the new recovery file before it deletes this one
            self.keeper.submit(self.unsaved.pop().unlink, missing_ok=True).result()
        return self.state()

    def close(self):
        self.closing = True
        self.keeper.shutdown()


REQUESTS = {f'/{f.__name__}': f for f in (
    Session.state, Session.maps, Session.edit, Session.picture, Session.progress,
    Session.thumbnail, Session.photo, Session.open, Session.save, Session.recover)}


def png(image):
    """Return content type and body of an answer with a picture (1, C, H, W) in [-1, 1]."""
    file = io.BytesIO()
    picture = pictures.to_rgb(pictures.to_uint8_hwc(image))
    Image.fromarray(picture).save(file, 'PNG', compress_level=1)
    return 'image/png', file.getvalue()


class Server(ThreadingHTTPServer):
    """Serves a Session to clients that know `token`; names: the Host headers that are accepted.
    allowed: further ones, of a tunnel or a proxy."""
    request_queue_size = 128

    def __init__(self, session, host, port, allowed=()):
        self.session, self.token, self.page = session, secrets.token_urlsafe(24), PAGE.read_bytes()
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
        return threading.active_count() < MAX_THREADS

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
        body = json.dumps({'error': message or self.responses[code][0]}).encode()
        self.answer('application/json', body, code)

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


def serve(editor, folder, name, title, host='127.0.0.1', port=0, browser=True, allowed=()):
    """Serve the page of an Editor until Ctrl-C; see Session, Server. Return the exit code."""
    session = Session(editor, folder, name, title)
    try:
        server = Server(session, host, port, allowed)
    except (OSError, UnicodeError) as error:
        raise UserError(f'--host {host} --port {port}: cannot be served there ({one_line(error)}); '
                        'choose others, or leave them out') from None
    with server:
        scene_files.warn_about_styles(editor)
        log_info(f'{server.address}\nCtrl-C ends it; scenes are saved in {folder}')
        has_window = os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')
        if browser and (sys.platform != 'linux' or has_window):
            with suppress(webbrowser.Error, OSError):           # never one in the terminal
                webbrowser.open(server.address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
        session.close()
        if session.recovery.exists():
            log_info(f'\nthe edits are not saved; they are kept in {session.recovery}')
        return 0
