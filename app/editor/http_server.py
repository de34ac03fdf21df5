"""The HTTP server of the editor: GET / returns the page; POST /<request>, with arguments in JSON,
calls one of session.REQUESTS. Pages of other sites get nothing: Host and Origin must be names of
this server, and every request needs the token of the printed address."""
import base64
from contextlib import suppress
import hashlib
import hmac
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import ipaddress
import json
import os
from pathlib import Path
import secrets
import socket
import sys
import threading
from urllib.parse import parse_qs
import webbrowser

from app.common.console import log_info, warn
from app.common.errors import UserError, is_out_of_memory, one_line
from app.editor import scene_files
from app.editor.arguments import parse_arguments
from app.editor.session import REQUESTS, Refused, Session

MAX_REQUEST_BYTES = 96 << 20            # enough for a scene or a photograph
MAX_THREADS = 200                       # of this process; a client takes one
PAGE = Path(__file__).with_name('page.html')


class Server(ThreadingHTTPServer):
    """Serves a Session to clients that know `token`; names: the Host headers that are accepted.
    Raises OSError or UnicodeError if host:port cannot be used, UserError for 0.0.0.0."""
    request_queue_size = 128

    def __init__(self, session, host, port):
        self.session, self.token, self.page = session, secrets.token_urlsafe(24), PAGE.read_bytes()
        script, style = (hashlib.sha256(self.page.split(b'<%s>' % tag)[1].split(b'</%s>' % tag)[0])
                         for tag in (b'script', b'style'))
        script, style = (base64.b64encode(x.digest()).decode() for x in (script, style))
        self.policy = (                                     # no other script or style sheet
            f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
            "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'")
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
        if len(hosts) != 1 or hosts[0] not in server.names:
            raise Refused(403, 'the Host header is not a name of this server')
        if not {*origins} <= {f'http://{name}' for name in server.names}:
            raise Refused(403, 'the page of another site made this request')
        (path, _, query), paths = self.path.partition('?'), ['/'] if is_get else REQUESTS
        if path not in paths:
            raise Refused(404, f'no such address; expected one of {" ".join(paths)}')
        token = (parse_qs(query).get('token', [''])[-1] if is_get else
                 self.headers.get('X-Token', ''))
        if not hmac.compare_digest(token.encode(errors='replace'), server.token.encode()):
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
        if not isinstance(values, dict):
            raise Refused(400, 'expected a JSON object')
        request, session = REQUESTS[path], server.session
        with session.lock:
            answer = request(session, **parse_arguments(request, values, session.editor))
        answer = answer() if callable(answer) else answer
        return answer if isinstance(answer, tuple) else (
            'application/json', json.dumps(answer).encode())

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


def serve(editor, folder, name, title, host='127.0.0.1', port=0, browser=True):
    """Serve the page of an Editor until Ctrl-C, and return the exit code.
    folder, name, title: see Session. Raises UserError if the address cannot be used."""
    session = Session(editor, folder, name, title)
    try:
        server = Server(session, host, port)
    except (OSError, UnicodeError) as error:
        raise UserError(f'--host {host} --port {port}: cannot be served there ({one_line(error)}); '
                        'choose others, or leave them out') from None
    with server:
        scene_files.warn_about_styles(editor)
        log_info(f'{server.address}\nCtrl-C ends it; scenes are saved in {folder}')
        has_window = os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')
        if browser and (has_window or not sys.platform.startswith('linux')):
            with suppress(webbrowser.Error, OSError):           # never one in the terminal
                webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            session.close()
            if session.recovery.exists():
                log_info(f'\nthe edits are not saved; they are kept in {session.recovery}')
        return 0
