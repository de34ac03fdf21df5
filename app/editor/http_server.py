"""The HTTP server of the editor. GET / returns the page; POST /<request>, with the arguments as a
JSON object, calls one of session.REQUESTS.

Pages of other sites get nothing: Host and Origin must be names of this server, so a foreign name
that resolves to this machine is refused, and every request needs the token of the printed address.
A request changes the scene completely or not at all.
"""
import base64
from contextlib import suppress
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

from app.common.console import log_info, warn
from app.common.errors import UserError, is_out_of_memory, one_line
from app.editor.arguments import parse_arguments
from app.editor.session import REQUESTS, Session, Superseded

MAX_REQUEST_BYTES = 96 << 20            # enough for a scene or a photograph
REQUEST_SECONDS = 30                    # a client must send its whole request in this time
MAX_THREADS = 200                       # of this process; a client takes up to two
PAGE = Path(__file__).with_name('page.html')


class Server(ThreadingHTTPServer):
    """Serves a Session on host:port to clients that know `token`.
    address: the URL of the page; names: the Host headers that are accepted.
    Raises OSError or UnicodeError if host:port cannot be used, UserError for 0.0.0.0."""
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, session, host, port):
        self.session, self.token = session, secrets.token_urlsafe(24)
        self.page = PAGE.read_bytes()
        self.policy = content_security_policy(self.page)
        if ':' in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)
        bound, port = self.server_address[:2]
        if ipaddress.ip_address(bound).is_unspecified:      # its names are not known
            self.server_close()
            raise UserError(f'--host {host}: expected a single address of this machine')
        hosts = [f'[{bound}]'] if ':' in bound else [host.lower(), bound]
        hosts += ['localhost'] if ipaddress.ip_address(bound).is_loopback else []
        self.names = [f'{name}:{port}' for name in hosts]
        self.address = f'http://{self.names[0]}/?token={self.token}'
        self.names += hosts if port == 80 else []           # browsers leave out port 80

    def verify_request(self, request, client_address):
        """Return whether to serve one more client."""
        return threading.active_count() < MAX_THREADS

    def handle_error(self, request, client_address):
        """Print nothing when a client goes away."""


def content_security_policy(page):
    """Return the policy that allows only the one script and the one style sheet in the page."""
    def source(tag):
        text = page.split(b'<%s>' % tag)[1].split(b'</%s>' % tag)[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
    return (f"default-src 'none'; script-src {source(b'script')}; style-src {source(b'style')}; "
            "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'")


class Refused(Exception):
    """A request that is refused; arguments: HTTP status, message."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server_version, sys_version = 'p2phd', ''
    timeout = REQUEST_SECONDS           # of one read

    def handle_one_request(self):
        # A client that sends a byte now and then would never reach the timeout of one read.
        self.alarm = threading.Timer(REQUEST_SECONDS, self.hang_up)
        self.alarm.daemon = True
        self.alarm.start()
        try:
            super().handle_one_request()
        except OSError:                             # the client has gone away
            self.close_connection = True
        finally:
            self.alarm.cancel()

    def hang_up(self):
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self):
        try:
            path, token = self.path_and_token()
            if path != '/':
                raise Refused(404, 'no such page')
            self.check_token(token)
        except Refused as refused:
            return self.send_error(*refused.args)
        self.answer(200, 'text/html; charset=utf-8', self.server.page)

    def do_POST(self):
        try:
            path, _ = self.path_and_token()
            if path not in REQUESTS:
                raise Refused(404, f'no such request; expected one of {" ".join(REQUESTS)}')
            self.check_token(self.headers.get('X-Token', ''))
            values = self.read_json_body()
        except Refused as refused:
            return self.send_error(*refused.args)
        self.alarm.cancel()                         # the request is complete
        session, request = self.server.session, REQUESTS[path]
        try:
            with session.lock:
                answer = request(session, **parse_arguments(request, values, session.editor))
            answer = answer() if callable(answer) else answer
        except Superseded:
            return self.answer_json({'error': 'the scene has changed since'}, 409)
        except (UserError, OSError) as error:
            return self.answer_json({'error': one_line(error)}, 400)
        except Exception as error:                  # a bug: the server continues
            message = f'{type(error).__name__}: {one_line(error)}'
            if is_out_of_memory(error):
                message = 'there is not enough memory'
            else:
                warn(f'p2phd edit: {path}: {message}')
            return self.answer_json({'error': message}, 500)
        if isinstance(answer, dict):
            return self.answer_json(answer)
        self.answer(200, *answer)

    def path_and_token(self):
        """Return the path and the token of the URL.
        Raises Refused unless Host, and Origin if there is one, are names of this server."""
        hosts, origins = (self.headers.get_all(name) or [] for name in ('Host', 'Origin'))
        if len(hosts) != 1 or hosts[0] not in self.server.names:
            raise Refused(403, 'the Host header is not a name of this server')
        if not {*origins} <= {f'http://{name}' for name in self.server.names}:
            raise Refused(403, 'the page of another site made this request')
        try:
            url = urlsplit(self.path)
            return url.path, parse_qs(url.query).get('token', [''])[-1]
        except ValueError:
            raise Refused(400, 'the URL is not valid') from None

    def check_token(self, token):
        if not hmac.compare_digest(token.encode(errors='replace'), self.server.token.encode()):
            raise Refused(403, 'the token is missing or wrong; open the address that was printed')

    def read_json_body(self):
        """Return the JSON object in the body of the request."""
        if self.headers.get_content_type() != 'application/json' or (
                len(self.headers.get_all('Content-Type')) > 1):
            raise Refused(415, 'expected application/json')
        lengths = self.headers.get_all('Content-Length') or ['']
        if self.headers.get('Transfer-Encoding') or len(lengths) > 1 or not re.fullmatch(
                r'[0-9]{1,12}', lengths[0]):
            raise Refused(411, 'expected one Content-Length')
        length = int(lengths[0])
        if length > MAX_REQUEST_BYTES:
            raise Refused(413, f'more than {MAX_REQUEST_BYTES >> 20} MiB')
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refused(400, 'the body is shorter than Content-Length')
        try:
            values = json.loads(body.decode(), parse_constant=refuse_constant)
        except (ValueError, RecursionError):
            raise Refused(400, 'not JSON') from None
        if not isinstance(values, dict):
            raise Refused(400, 'expected a JSON object')
        return values

    def send_error(self, code, message=None, explain=None):
        """Refuse a request; the standard library calls this too, for requests that it rejects."""
        self.close_connection = True                # the rest of the request is not read
        if not hasattr(self, 'headers'):
            self.headers = {}
        self.answer_json({'error': message or self.responses.get(code, ('', ''))[0]}, code)

    def answer_json(self, value, status=200):
        self.answer(status, 'application/json', json.dumps(value).encode())

    def answer(self, status, content_type, body):
        headers = {'Content-Type': content_type,
                   'Content-Security-Policy': self.server.policy, 'Cache-Control': 'no-store',
                   'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
                   'Cross-Origin-Resource-Policy': 'same-origin',
                   'Cross-Origin-Opener-Policy': 'same-origin'}
        if len(body) > 1000 and content_type != 'image/png' and (
                'gzip' in self.headers.get('Accept-Encoding', '')):
            body, headers['Content-Encoding'] = gzip.compress(body, 1), 'gzip'
        if self.close_connection:
            headers['Connection'] = 'close'
        self.send_response(status)
        for name, value in {**headers, 'Content-Length': str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Do not log requests."""


def refuse_constant(name):
    """Called for NaN and Infinity, which Python reads but JSON does not have."""
    raise ValueError(name)


def serve(editor, folder, name, title, host='127.0.0.1', port=0, browser=True):
    """Serve the page of an Editor until Ctrl-C, and return the exit code.
    folder, name, title: see Session.
    Raises UserError if the address cannot be used."""
    session = Session(editor, folder, name, title)
    try:
        server = Server(session, host, port)
    except (OSError, UnicodeError) as error:
        raise UserError(f'--host {host} --port {port}: cannot be served there ({one_line(error)}); '
                        'choose others, or leave them out') from None
    with server:
        log_info(f'{server.address}\nCtrl-C ends it; scenes are saved in {folder}')
        if session.unsaved:
            log_info('there are unsaved edits of this scene: the page offers them')
        if browser and not open_browser(server.address):
            log_info('no browser could be opened: open the address yourself')
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            session.close()
            if session.recovery.exists():
                log_info(f'\nthe edits are not saved; they are kept for the next time in '
                         f'{session.recovery}')
        return 0


def open_browser(address):
    """Open the address in a browser with a window; return whether that worked."""
    window = os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')
    if sys.platform.startswith('linux') and not window:
        return False                    # a browser in the terminal would take the terminal over
    try:
        return webbrowser.open(address)
    except (webbrowser.Error, OSError):
        return False
