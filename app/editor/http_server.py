"""The HTTP server of the editor: GET / returns the page; POST /<request>, with arguments in JSON,
calls one of REQUESTS of session.py. Pages of other sites get nothing: Host and Origin must be
names of this server, and every request needs the token of the printed address. Only the page is
served without it, because it holds no secret: its script takes the token out of the address bar
into the session storage of its tab, where a reload finds it."""
import base64
from contextlib import suppress
import hashlib
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import ipaddress
import json
import os
from pathlib import Path
import re
import secrets
import socket
import stat
import sys
import threading
from urllib.parse import parse_qs
import webbrowser

from app.common.config import ALLOWED_HOST, LOCAL_HOST
from app.common.console import log_info, warn, warn_on_error
from app.common.errors import UserError, is_out_of_memory, one_line
from app.editor import scene_files
from app.editor.arguments import parse_arguments
from app.editor.session import REQUESTS, Refused, Session

MAX_REQUEST_BYTES = 96 << 20            # enough for a scene or a photograph
MAX_THREADS = 200                       # of this process; a client takes one
MAX_WAITING = 32                        # clients that have not sent their request yet
MAX_REPORTED = 10                       # addresses of which refused requests are printed
PAGE = Path(__file__).parent / 'page'
SCRIPTS = ('scene selection shapes handles drawing panels styles pointer files scenes history menu '
           'keys access start').split()             # in this order


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
    allow_reuse_address = os.name == 'posix'    # on Windows two servers would share a port

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
        page = 'text/html; charset=utf-8', server.page
        if is_get and not query:
            return page
        token = (parse_qs(query).get('token', [''])[-1] if is_get else
                 self.headers.get('X-Token', ''))
        if not secrets.compare_digest(token.encode(errors='replace'), server.token.encode()):
            raise Refused(403, 'The token is missing or wrong. Open the address that was printed.')
        server.waiting.pop(self.connection, None)   # it is no stranger
        if is_get:
            return page
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


def serve(editor, folder, name, run_name, host=LOCAL_HOST, port=0, browser=True, allowed=(),
          warnings=(), listed=scene_files.NO_SCENES):
    """Serve the page of an Editor until Ctrl-C; see Session, Server. Return the exit code.
    warnings: texts that the page shows, too."""
    session = Session(editor, folder, name, run_name, warnings, listed)
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
        log_info(server.address, sys.stdout)                    # with -q, too
        log_info(f'Ctrl-C ends it; scenes are saved in {folder}')
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
