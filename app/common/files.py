"""Files that are written completely or not at all, and folders that one process holds."""
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
from app.common.errors import UserError, WriteError, as_user_error, is_out_of_memory, one_line

try:
    import fcntl
except ImportError:                                 # Windows has no such locks
    fcntl = None


def resolve_path(path):
    """Return an absolute Path without links. Path.resolve fails if links form a loop."""
    return Path(os.path.realpath(path))


def require_regular_file(path):
    """Raise a UserError unless `path` is a file. A pipe is none: reading it would wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise UserError(f'{path}: no such file (or a link to none)') from None
    except (OSError, ValueError) as error:          # a loop of links; a name with a null byte
        raise UserError(f'{path}: cannot be read ({one_line(error)})') from None
    if not os.access(path, os.R_OK):
        raise UserError(f'{path}: cannot be read ({os.strerror(errno.EACCES)})')
    if not stat.S_ISREG(mode):
        raise UserError(f'{path}: not a regular file (but a folder, a pipe or a device)')


def read_text(path):
    """Return the text of a small file in UTF-16 with a byte order mark, UTF-8 or else Latin-1."""
    require_regular_file(path)
    with as_user_error(path):
        blob = Path(path).read_bytes()
    if blob[:2] in (b'\xff\xfe', b'\xfe\xff'):
        return blob.decode('utf-16', 'replace')
    with suppress(UnicodeDecodeError):
        return blob.decode('utf-8-sig')
    return blob.decode('latin-1')


def read_json(path):
    """Return the content of a JSON file of at most 64 MiB. Raises UserError."""
    require_regular_file(path)
    with as_user_error(path, 'cannot be read as JSON'):
        if os.path.getsize(path) > 1 << 26:
            raise ValueError('larger than 64 MiB')
        return json.loads(Path(path).read_bytes())


def write_atomically(path, write):
    """Call write(file) on a temporary file, which replaces `path` once all is on the disk."""
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        with open(partial, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        if os.name == 'posix':                      # the new name must be on the disk, too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException as error:                  # PyTorch has its own errors for a full disk
        with suppress(OSError):
            partial.unlink()
        if not isinstance(error, Exception) or is_out_of_memory(error):
            raise
        reason = getattr(error, 'strerror', None) or one_line(error)    # without its partial file
        raise WriteError(f'{path}: cannot be written ({reason}); what was there before is untouched'
                         ) from None


def write_text(path, text):
    write_atomically(Path(path), lambda file: file.write(text.encode()))


def append_text(path, text):
    """Append the rest of `text` to a file, which holds its beginning."""
    with open(path, 'ab') as file:
        file.write(text.encode()[file.tell():])


def require_folder(path):
    """Raise a UserError if `path` is a file."""
    if path.exists() and not path.is_dir():
        raise UserError(f'{path}: is a file, not a folder; choose another')


def require_own(path, mark, flag):
    """Raise a UserError if a file that will be written exists without the text `mark`, which is in
    those of this program. An empty file may be overwritten. flag: what chooses another folder."""
    if path.is_file() and (content := path.read_bytes()) and mark.encode() not in content:
        raise UserError(f'{path}: would be overwritten, and was not made by this program; remove '
                        f'it, or choose another folder with {flag}')


def make_folder(path):
    require_folder(path)
    with as_user_error(path, 'cannot be made'):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def lock_folder(folder, wait=False, flag='--run', name='.lock'):
    """Hold the lock of a folder. The system releases it when the process ends, however it ends.
    Forked processes do not hold it. If this process opens and closes its file, it is lost, too.
    wait: whether to wait for a process that holds it. If not, a UserError names that process, and
    the flag that chooses another folder."""
    number = os.open(folder / name, os.O_RDWR | os.O_CREAT | getattr(os, 'O_NOFOLLOW', 0), 0o666)
    try:
        try:
            if fcntl:
                fcntl.lockf(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(f'{folder}: {lock_holder(number)} is at work there; wait for it '
                                f'or stop it, or choose another folder with {flag}') from None
            warn(f'warning: {folder}: cannot be locked against a second process ({error})')
        with suppress(OSError):                     # a full disk; the lock works without the name
            os.truncate(number, 0)
            os.write(number, f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
        yield
    finally:
        os.close(number)


def lock_holder(number):
    """Return the process that holds a lock, as its open file names it, perhaps in a moment."""
    for _ in range(20):
        os.lseek(number, 0, os.SEEK_SET)
        if name := os.read(number, 300).decode(errors='replace').strip():
            return name
        time.sleep(0.05)
    return 'another process'


def read_ahead(function, items):
    """Yield each item and a future of function(item); a thread computes the next one meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending = deque()
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > 1:
                yield pending.popleft()
        yield from pending
