"""Files: written whole or not at all, and folders held by one process."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
import errno
import json
import os
from pathlib import Path
import socket
import stat
import time

from app.common.console import warn
from app.common.errors import UserError, as_user_error, one_line, is_out_of_memory

try:
    import fcntl
except ImportError:                                 # Windows has no such locks
    fcntl = None


# -------------------------------------------------------------------------------------- reading

def resolve_path(path):
    """A path from the root, links followed, as Path.resolve; a loop of links stays as it is."""
    return Path(os.path.realpath(path))


def require_regular_file(path):
    """UserError where `path` is no file, as a pipe, which would be waited for."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not os.path.lexists(path):
            raise UserError(f'{path}: no such file') from None
        raise UserError(f'{path}: a link to a file that is not there') from None
    except (OSError, ValueError) as error:          # a loop of links; a name with a null byte
        raise UserError(f'{path}: cannot be read ({one_line(error)})') from None
    if stat.S_ISDIR(mode):
        raise UserError(f'{path}: is a folder, expected a file')
    if not stat.S_ISREG(mode):
        raise UserError(f'{path}: not a regular file (a pipe or a device)')


def read_text(path):
    """The text of a small file: UTF-8 or UTF-16 where a byte order mark says so, UTF-8 where it
    can be that, else Latin-1. UserError where it cannot be read."""
    require_regular_file(path)
    with as_user_error(path):
        blob = Path(path).read_bytes()
        if blob[:2] in (b'\xff\xfe', b'\xfe\xff'):
            return blob.decode('utf-16', 'replace')
        try:
            return blob.decode('utf-8-sig')
        except UnicodeDecodeError:
            return blob.decode('latin-1')


def read_json(path):
    """What is in a JSON file of at most 64 MiB. UserError where it cannot be read."""
    require_regular_file(path)
    with as_user_error(path, 'cannot be read as JSON'):
        if os.path.getsize(path) > 1 << 26:
            raise ValueError('larger than 64 MiB')
        return json.loads(Path(path).read_bytes())


# -------------------------------------------------------------------------------------- writing

def write_atomically(path, write):
    """Call write(file) on a temporary file that takes the place of `path` only once it is complete
    on the disk. UserError, with what was there before untouched, where that fails."""
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        with open(partial, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        if os.name == 'posix':                      # the new name must be on the disk as well
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException as error:                  # torch has errors of its own for a full disk
        with suppress(OSError):
            partial.unlink()
        if not isinstance(error, Exception) or is_out_of_memory(error):
            raise
        raise UserError(f'{path}: cannot be written ({one_line(error)}); what was there before is '
                        'untouched') from None


def write_text(path, text):
    """The same of a text, as UTF-8."""
    write_atomically(Path(path), lambda file: file.write(text.encode()))


def append_text(path, text):
    """Write what the file lacks of `text`, whose beginning it is."""
    with open(path, 'ab') as file:
        file.write(text.encode()[file.tell():])


def require_folder(path):
    """UserError where what is to be a folder is a file."""
    if path.exists() and not path.is_dir():
        raise UserError(f'{path}: is a file, not a folder; choose another')


def make_folder(path):
    """Make a folder where there is none. UserError where that is not possible."""
    require_folder(path)
    with as_user_error(path, 'cannot be made'):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def lock_folder(folder, wait=False, flag='--run', name='.lock'):
    """Hold `folder` against other processes. One that holds it already is waited for; or else a
    UserError names it and its host; flag: what names another folder. The system drops the lock of
    a process that dies, and a forked process does not inherit it. name: of the file, which a
    process must not open a second time, for that drops its lock."""
    path = folder / name
    number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_NOFOLLOW', 0), 0o666)
    try:
        try:
            if fcntl:
                fcntl.lockf(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(f'{folder}: {lock_holder(number)} is at work there; wait for it or '
                                f'stop it, or choose another folder with {flag}') from None
            warn(f'warning: {folder}: cannot be locked against a second process ({error})')
        with suppress(OSError):                     # a full disk; the lock holds without the name
            os.truncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)
            os.write(number, f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
        yield
    finally:
        os.close(number)


def lock_holder(number):
    """Who holds a lock, by the name in its open file, which that process may be about to write."""
    for _ in range(20):
        if name := os.pread(number, 300, 0).decode(errors='replace').strip():
            return name
        time.sleep(0.05)
    return 'another process'


# ------------------------------------------------------------------------------ while it computes

def read_ahead(function, items):
    """Yield every item and a future of function(item), the next of which is computed in a thread
    meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        last = None
        for item in items:
            future = pool.submit(function, item)
            if last:
                yield last
            last = item, future
        if last:
            yield last


class BackgroundQueue:
    """Called with a function and its arguments, has a thread call it, one after the other. Waits
    where two are not done yet, so that memory stays constant."""

    def __init__(self):
        self.pool, self.pending = ThreadPoolExecutor(1), deque()

    def __call__(self, function, *args):
        self.pending.append(self.pool.submit(function, *args))
        self.end(but=2)

    def end(self, but=0):
        """Wait for all, but for the last few."""
        while len(self.pending) > but:
            self.pending.popleft().result()
