"""The editor's page and its requests: page.html, and JSON in POSTs that do all that the page does.

A browser's page from elsewhere gets nothing, whatever name it gives this machine: Host and Origin
are compared with what the server was told it is called, and every request needs the token of the
address that was printed. Requests change the scene as a whole or not at all.
"""
import base64
import gzip
import hashlib
import hmac
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import ipaddress
import json
import os
from pathlib import Path
import re
import secrets
import socket
import sys
import threading
from urllib.parse import parse_qs, urlsplit
import webbrowser

from app.editor.arguments import read_arguments
from app.common.console import log_info, warn
from app.common.errors import UserError, one_line, is_out_of_memory
from app.editor.session import REQUESTS, WAITING, Session, Superseded

LARGEST = 96 << 20                      # bytes of a request: a scene, a photograph
PATIENCE = 30                           # seconds that a client has to say what it wants
CLIENTS = 64                            # at once
PAGE = Path(__file__).with_name('page.html')


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
        bound, port = self.server_address[:2]
        if ipaddress.ip_address(bound).is_unspecified:      # any name would be right
            self.server_close()
            raise UserError(f'--host {host}: name the one address that the page is to be reached '
                            'by')
        own = [f'[{bound}]'] if ':' in bound else [host.lower(), bound]
        own += ['localhost'] if ipaddress.ip_address(bound).is_loopback else []
        self.names = [f'{name}:{port}' for name in own]
        self.address = f'http://{self.names[0]}/?token={self.token}'
        self.names += own if port == 80 else []             # which browsers leave out

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
            return self.answer_json(400, {'error': one_line(error)})
        except Exception as error:                  # a fault of this program; the server lives on
            if not is_out_of_memory(error):
                warn(f'p2phd edit: {path}: {type(error).__name__}: {one_line(error)}')
            return self.answer_json(500, {'error': 'there is not enough memory' if is_out_of_memory(
                error) else f'{type(error).__name__}: {one_line(error)}'})
        if isinstance(answer, dict):
            return self.answer_json(200, answer)
        self.answer(200, *answer)

    def call(self, function, given):
        session = self.server.session
        with session.lock:
            arguments = read_arguments(function, given, session.editor)
            if function not in WAITING:
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
    session = Session(editor, folder, name, title)
    try:
        server = Server(session, host, port)
    except (OSError, UnicodeError) as error:
        raise UserError(f'--host {host} --port {port}: cannot be served there ({one_line(error)}); '
                        'choose others, or leave them out') from None
    with server:
        log_info(f'{server.address}\nCtrl-C ends it; what is saved goes to {folder}')
        if session.found:
            log_info('there are edits of this scene that were not saved: the page offers them')
        if browser and not opened_in_browser(server.address):
            log_info('no browser could be opened: open the address yourself')
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            session.close()
            if session.recovery.exists():
                log_info(f'\nnot saved, and kept for the next time: {session.recovery}')
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
