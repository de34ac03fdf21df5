"""The editor's page and its requests: edit.html, and JSON in POSTs that do all that the page does.

A browser's page from elsewhere gets nothing, whatever name it gives this machine: Host and Origin
are compared with what the server was told it is called, and every request needs the token of the
address that was printed. Requests change the scene as a whole or not at all.
"""
import base64
from concurrent.futures import ThreadPoolExecutor
import gzip
import hashlib
import hmac
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import io
import json
import os
from pathlib import Path
import re
import secrets
import socket
import sys
import tempfile
import threading
import time
from urllib.parse import parse_qs, urlsplit
import webbrowser

import numpy as np
from PIL import Image

from arguments import a_style, an_object, flag, number, read_arguments, shown, taking
import edit
from files import UserError, attempt, brief, out_of_memory, say, warn, write_whole
import synthesis

LARGEST = 96 << 20                      # bytes of a request: a scene, a photograph
PATIENCE = 30                           # seconds that a client has to say what it wants
CLIENTS = 64                            # at once
THUMBNAIL = 1 << 16                     # pixels that the network computes for one, at most
PAGE = Path(__file__).with_name('edit.html')


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

    def __init__(self, editor, folder, name, title, found=None):
        """folder: receives what is saved, under `name` and a number; found: a State that was edited
        before and not saved."""
        self.editor, self.folder, self.name, self.title, self.found = (
            editor, folder, name, title, found)
        self.lock, self.worker = threading.RLock(), ThreadPoolExecutor(1)
        self.keeper = ThreadPoolExecutor(1)         # writes the recovery file
        self.recovery = recovery_path(folder, name)
        self.saved = self.editor.version
        self.computing, self.done, self.passes, self.took = None, 0, None, 0.0
        self.image = None, None                     # version, picture of it
        self.closing = False
        for module in editor.run.G.modules():       # a picture is given up between two layers
            if not list(module.children()):
                module.register_forward_pre_hook(self.tick)

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
                image = synthesis.synthesise(self.editor.run, *scene, self.editor.noise).cpu()
                self.image, self.took = (version, image), time.perf_counter() - started
                self.passes = self.done
            return self.image[1]
        return self.compute(version, picture)

    # ------------------------------------------------ the requests

    @taking()
    def state(self):
        """What there is: labels, objects with their boxes and styles, and what can be done."""
        e, names = self.editor, self.editor.config.label_names
        colours = synthesis.label_colours(e.config).tolist()
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
            'photo': e.photo is not None, 'seconds': self.took,
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
        """Keep what is not saved in the recovery file -> state."""
        state, self.found = self.editor.state, None
        self.keeper.submit(lambda: attempt(
            lambda: write_whole(self.recovery, edit.recovery_of(state)), 'editing goes on'))
        return self.state()

    @taking(version=number(0, 1 << 53, whole=True), preview=flag)
    def picture(self, version, preview=False):
        """The picture of the state of that version as PNG; at half size, which is another picture
        and comes sooner, as a preview."""
        if not preview:
            return png(self.full(version))

        def half():
            with self.lock:
                self.tick(None, None)
                scene = self.editor.scene(step=2)
            return synthesis.synthesise(self.editor.run, *scene, self.editor.noise)
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
            if not e.run.E:
                raise UserError('the run was trained without --features, so there are no styles')
            key, version = e.style_key(object), e.version
            own = {**e.state.styles, **e.styles_for([key], style)}
            x0, y0, x1, y1 = e.objects.boxes[e.objects.ids == object][0].tolist()
            label, inst, _ = e.state
        edge = max(16, (x1 - x0) // 4, (y1 - y0) // 4)
        x0, y0, x1, y1 = max(0, x0 - edge), max(0, y0 - edge), x1 + edge, y1 + edge
        label, inst = label[y0:y1, x0:x1], inst[y0:y1, x0:x1]
        scene = edit.scene_of(e.config, label, inst,
                              int(np.ceil((label.size / THUMBNAIL) ** 0.5)))
        vectors = edit.vectors_of(scene.ids, own)
        return png(self.compute(version, lambda: synthesis.synthesise(
            e.run, scene, vectors, e.noise)))

    @taking(data=text)
    def photo(self, data):
        """Take a photograph of the scene (base64), whose styles the style 'photo' then has."""
        e = self.editor
        with Uploaded(self.folder, photo=data) as paths:
            e.photo = synthesis.read_photo(e.config, paths['photo'], e.scene()[0])
        return self.state()

    @taking(label=text, inst=text, styles=text)
    def open(self, label, inst=None, styles=None):
        """Take the scene of a label map, an instance map and styles, files as base64."""
        e = self.editor
        with Uploaded(self.folder, label=label, inst=inst, styles=styles) as paths:
            new = edit.opened(e.run, e.known, paths['label'], paths.get('inst'), None,
                              paths.get('styles'))
        e.photo, e.noise = None, new.noise
        e.push(new.state)
        return self.changed()

    @taking()
    def save(self):
        """Write picture, maps and styles into the folder, under a name that is free -> state and
        their paths."""
        n = 1
        while any(self.folder.glob(f'{self.name}-{n:03d}[._]*')):
            n += 1
        with self.lock:
            version = self.editor.version
        image = self.full(version)
        with self.lock:
            if version != self.editor.version:
                raise Superseded
            paths = edit.save(self.editor, self.folder, f'{self.name}-{n:03d}', image)
            self.saved = version
            self.keeper.submit(lambda: self.recovery.unlink(missing_ok=True))
            return {**self.state(), 'files': [str(path) for path in paths]}

    @taking(restore=flag)
    def recover(self, restore):
        """Go on with what was edited and not saved before, or forget it."""
        found, self.found = self.found, None
        if restore and found:
            self.editor.push(found)
            return self.changed()
        self.keeper.submit(lambda: self.recovery.unlink(missing_ok=True))
        return self.state()

    def close(self):
        self.closing = True
        self.keeper.shutdown()


REQUESTS = {f'/{f.__name__}': f for f in (
    Session.state, Session.maps, Session.edit, Session.picture, Session.progress,
    Session.thumbnail, Session.photo, Session.open, Session.save, Session.recover)}
UNLOCKED = Session.picture, Session.progress, Session.save, Session.thumbnail   # or partly


class Uploaded:
    """Files of a request, base64, on the disk while it is entered -> {role: path}."""

    def __init__(self, folder, **files):
        self.files, self.folder = files, folder

    def __enter__(self):
        self.place = tempfile.TemporaryDirectory(prefix='.upload-', dir=self.folder)
        paths = {}
        for role, data in self.files.items():
            if data is None:
                continue
            try:
                blob = base64.b64decode(data, validate=True)
            except ValueError:
                self.place.cleanup()
                raise UserError(f'"{role}": not base64') from None
            suffix = '.npy' if blob.startswith(b'\x93NUMPY') else '.png'    # or what it is
            paths[role] = Path(self.place.name) / f'{role}{suffix}'
            paths[role].write_bytes(blob)
        return paths

    def __exit__(self, *error):
        self.place.cleanup()


def recovery_path(folder, name):
    return folder / f'.{name}-unsaved.npz'


def png(image):
    """(1, C, H, W) in [-1, 1] -> a response."""
    picture = synthesis.as_rgb(synthesis.to_picture(image))
    file = io.BytesIO()
    Image.fromarray(picture).save(file, 'PNG', compress_level=1)
    return 'image/png', file.getvalue()


# ------------------------------------------------------------------------------------- over HTTP

class Server(ThreadingHTTPServer):
    """Serves a Session on host:port, to those who know `token`."""
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, session, host, port):
        self.session, self.token = session, secrets.token_urlsafe(24)
        self.clients = threading.BoundedSemaphore(CLIENTS)
        self.page = PAGE.read_bytes()
        self.policy = policy(self.page.decode())
        if ':' in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)
        port = self.server_address[1]
        host = f'[{host}]' if ':' in host else host
        own = [host, 'localhost'] if host in ('127.0.0.1', '[::1]') else [host]
        self.names = [f'{name}:{port}' for name in own]
        self.address = f'http://{self.names[0]}/?token={self.token}'

    def process_request(self, request, client_address):
        if self.clients.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)          # that many are being served

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.clients.release()

    def handle_error(self, request, client_address):
        """A client that went away is none of our business."""


def policy(page):
    """The content security policy under which the page's own script and style alone are used."""
    def hashes(tag):
        return ' '.join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(f'<{tag}>(.*?)</{tag}>', page, re.DOTALL))
    return (f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
            "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'")


class Refused(Exception):
    """A request that is not for us, with its status."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server_version, sys_version = 'p2phd', ''
    timeout = PATIENCE

    def handle_one_request(self):
        self.watch = threading.Timer(PATIENCE, self.hang_up)    # who sends a byte now and then
        self.watch.daemon = True
        self.watch.start()
        try:
            super().handle_one_request()
        except OSError:                             # the client is gone
            self.close_connection = True
        finally:
            self.watch.cancel()

    def hang_up(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def do_GET(self):
        try:
            self.check()
            path, token = self.target()
            if path != '/':
                raise Refused(404, 'no such page')
            self.check_token(token)
        except Refused as refused:
            return self.refuse(*refused.args)
        self.answer(200, 'text/html; charset=utf-8', self.server.page)

    def do_POST(self):
        try:
            self.check()
            path, _ = self.target()
            if path not in REQUESTS:
                raise Refused(404, f'no such request; there are {" ".join(REQUESTS)}')
            self.check_token(self.headers.get('X-Token', ''))
            given = self.body()
        except Refused as refused:
            return self.refuse(*refused.args)
        self.watch.cancel()                         # from here on it waits for us
        try:
            answer = self.call(REQUESTS[path], given)
        except Superseded:
            return self.answer_json(409, {'error': 'the scene has changed since'})
        except (UserError, OSError) as error:
            return self.answer_json(400, {'error': brief(error)})
        except Exception as error:                  # a fault of this program; the server lives on
            if not out_of_memory(error):
                warn(f'p2phd edit: {path}: {type(error).__name__}: {brief(error)}')
            return self.answer_json(500, {'error': 'there is not enough memory' if out_of_memory(
                error) else f'{type(error).__name__}: {brief(error)}'})
        if isinstance(answer, dict):
            return self.answer_json(200, answer)
        self.answer(200, *answer)

    def call(self, function, given):
        session = self.server.session
        with session.lock:
            arguments = read_arguments(function, given, session.editor)
            if function not in UNLOCKED:
                return function(session, **arguments)
        return function(session, **arguments)

    # ------------------------------------------------ who may ask

    def check(self):
        """Refused unless Host, and Origin where there is one, are what this server is called."""
        if self.headers.get_all('Host') is None or len(self.headers.get_all('Host')) > 1 or (
                self.headers['Host'] not in self.server.names):
            raise Refused(403, 'another host')
        origins = self.headers.get_all('Origin') or []
        if any(origin not in [f'http://{name}' for name in self.server.names]
               for origin in origins):
            raise Refused(403, 'another origin')

    def target(self):
        """The path, and the token in its query."""
        try:
            parts = urlsplit(self.path)
            return parts.path, parse_qs(parts.query).get('token', [''])[-1]
        except ValueError:
            raise Refused(400, 'not a path') from None

    def check_token(self, token):
        if not hmac.compare_digest(token.encode(errors='replace'), self.server.token.encode()):
            raise Refused(403, 'open the address that was printed: it has the token')

    def body(self):
        """The JSON object that was sent."""
        if self.headers.get_content_type() != 'application/json' or (
                len(self.headers.get_all('Content-Type')) > 1):
            raise Refused(415, 'expected application/json')
        lengths = self.headers.get_all('Content-Length') or ['']
        if self.headers.get('Transfer-Encoding') or len(lengths) > 1 or not re.fullmatch(
                r'[0-9]{1,12}', lengths[0]):
            raise Refused(411, 'expected one Content-Length')
        length = int(lengths[0])
        if length > LARGEST:
            raise Refused(413, f'more than {LARGEST >> 20} MiB')
        raw = self.rfile.read(length)
        if len(raw) < length:
            raise Refused(400, 'cut short')
        try:
            given = json.loads(raw.decode(), parse_constant=not_json)
        except (ValueError, RecursionError):
            raise Refused(400, 'not JSON') from None
        if not isinstance(given, dict):
            raise Refused(400, 'expected a JSON object')
        return given

    # ------------------------------------------------ answers

    def refuse(self, status, message):
        self.close_connection = True                # what else was sent is not read
        self.answer_json(status, {'error': message})

    def answer_json(self, status, value):
        self.answer(status, 'application/json', json.dumps(value).encode())

    def answer(self, status, kind, body):
        squeezed = len(body) > 1000 and kind != 'image/png' and (
            'gzip' in self.headers.get('Accept-Encoding', ''))
        body = gzip.compress(body, 1) if squeezed else body
        self.send_response(status)
        for name, value in (
                ('Content-Type', kind), ('Content-Length', str(len(body))),
                ('Content-Security-Policy', self.server.policy), ('Cache-Control', 'no-store'),
                ('X-Content-Type-Options', 'nosniff'), ('Referrer-Policy', 'no-referrer'),
                ('Cross-Origin-Resource-Policy', 'same-origin'),
                ('Cross-Origin-Opener-Policy', 'same-origin'),
                *([('Content-Encoding', 'gzip')] if squeezed else []),
                *([('Connection', 'close')] if self.close_connection else [])):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code, message=None, explain=None):
        """What the standard library finds wrong with a request."""
        self.close_connection = True
        if not hasattr(self, 'headers'):
            self.headers = {}
        self.answer_json(code, {'error': message or self.responses.get(code, ('', ''))[0]})

    def log_message(self, *args):
        """Requests are not logged."""


def not_json(name):
    raise ValueError(name)


def serve(editor, folder, name, title, host='127.0.0.1', port=0, browser=True):
    """Serve the page of an editor until Ctrl-C -> exit code. folder, name: where and under what
    name scenes are saved. UserError where the address cannot be had."""
    recovery, found = recovery_path(folder, name), None
    if recovery.exists():
        try:
            found = edit.recovered(recovery, editor.config, editor.run.E is not None)
        except UserError as error:
            warn(f'warning: {error}')
            recovery.replace(recovery.with_suffix('.damaged'))
    if host in ('', '0.0.0.0', '::'):
        raise UserError(f'--host {host}: name the one address that the page is to be reached by')
    session = Session(editor, folder, name, title, found)
    try:
        server = Server(session, host, port)
    except OSError as error:
        raise UserError(f'--host {host} --port {port}: cannot be served there ({brief(error)}); '
                        'choose another --port, or leave it out') from None
    with server:
        say(f'{server.address}\nCtrl-C ends it; what is saved goes to {folder}')
        if found:
            say('there are edits of this scene that were not saved: the page offers them')
        if browser and not opened_in_browser(server.address):
            say('no browser could be opened: open the address yourself')
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            session.close()
            if session.saved != editor.version:
                say(f'\nnot saved, and kept for the next time: {recovery}')
        return 0


def opened_in_browser(address):
    """Whether a browser with a window opened the page."""
    window = os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')
    if sys.platform.startswith('linux') and not window:
        return False                                # one in the terminal would take it over
    try:
        return webbrowser.open(address)
    except (webbrowser.Error, OSError):
        return False
