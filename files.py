"""Files: written whole or not at all, folders held by one process, and what goes wrong said in one
line."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
import difflib
import errno
import json
import os
from pathlib import Path
import shlex
import shutil
import socket
import stat
import sys
import time

try:
    import fcntl
except ImportError:                                 # Windows has no such locks
    fcntl = None


# ------------------------------------------------------------------------------ what goes wrong

class UserError(Exception):
    """What the user can mend: one line that names the file, the value and the remedy."""

    def __init__(self, message):
        # A loader process wraps its error into a traceback, as text; the message ends it.
        if message.startswith('Caught UserError in '):
            message = message.strip().splitlines()[-1].removeprefix('files.UserError: ')
        # The name of a file may have line ends in it.
        super().__init__(r'\n'.join(message.splitlines()))


def out_of_memory(error):
    """Whether an exception says that host or device have not enough memory. On the CPU, PyTorch
    has only words for it."""
    words = ("can't allocate memory", 'not enough memory', 'Cannot allocate memory',
             'out of memory')
    return (isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError'
            or getattr(error, 'errno', None) == errno.ENOMEM
            or any(text in str(error) for text in words))


@contextmanager
def blame(path, what='cannot be read'):
    """Whatever goes wrong inside is said in one line about `path` (UserError). Want of memory is
    not the fault of a file, and stays what it is."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        raise UserError(f'{path}: {what} ({brief(error)})') from None


def brief(error):
    """An exception's message in one line. PyTorch's advice to load what may be dangerous is not
    passed on."""
    if 'Weights only load failed' in str(error):
        return 'no file of tensors'
    return ' '.join(str(error).split())[:300] or type(error).__name__


def quote(path):
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def plural(n, thing):
    """'1 thing', '2 things'"""
    return f'{n} {thing}{"s" * (n != 1)}'


def of_system(error):
    """The line for an OSError that nothing has put into words."""
    if error.filename is None:
        return brief(error)
    remedy = ('give yourself the rights to it, or choose another'
              if isinstance(error, PermissionError) else 'see that it is there and can be used')
    return f'{os.fsdecode(error.filename)}: {error.strerror}; {remedy}'


def nearest(word, words):
    """What may have been meant, as the end of a message. words: a list, {word: what to say},
    or None."""
    found = difflib.get_close_matches(word, words or (), 1)
    said = words[found[0]] if found and isinstance(words, dict) else ''.join(found)
    return f'; did you mean {said}?' if found else ''


quiet = False                                       # -q: warnings alone are said
live_text = ''                                      # what stands in the last line of the terminal


def say(text, file=None):
    """Print, and go on without where that is not possible: to a file on a full disk, to a terminal
    that is gone. What its encoding lacks is escaped."""
    if quiet and file is None:
        return
    file, live = file or sys.stdout, live_text
    live_line('')
    printed(text, file)
    live_line(live)


def printed(text, file):
    try:
        try:
            print(text, file=file, flush=True)
        except UnicodeEncodeError:
            encoding = file.encoding or 'ascii'
            print(str(text).encode(encoding, 'backslashreplace').decode(encoding), file=file,
                  flush=True)
    except (OSError, ValueError):                   # ValueError: closed
        with suppress(OSError, ValueError):         # or Python would complain when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def warn(text):
    """Say something on stderr."""
    say(text, sys.stderr)


def live_line(text):
    """Have a text stand in the last line of a terminal, below what is said; '': none. Nowhere else,
    and not with -q."""
    global live_text
    if text == live_text or quiet or not sys.stderr.isatty() or os.environ.get('TERM') == 'dumb':
        return
    live_text = text
    with suppress(OSError, ValueError, UnicodeEncodeError):
        # To the beginning of the line, which is cleared.
        print(f'\r\x1b[2K{text[:shutil.get_terminal_size().columns - 1]}', end='',
              file=sys.stderr, flush=True)


class Progress:
    """Called with how many of `total` are done, says so with the time left, once it takes more than
    two seconds: in a terminal in its last line, else now and then on stderr."""

    def __init__(self, what, total):
        self.what, self.total = what, total
        self.started = self.said = time.monotonic()

    def __call__(self, done):
        now = time.monotonic()
        took = now - self.started
        if took > 2 and done and not quiet:
            left = duration(took / done * (self.total - done))
            text = f'{self.what}: {done} of {self.total}, {left} left'
            if sys.stderr.isatty():
                live_line(text)
            elif now - self.said > 10:
                warn(text)
                self.said = now
        if done >= self.total:
            live_line('')


def duration(seconds):
    """1 h 5 min, 12 min, 40 s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min' if minutes else f'{seconds} s'


def attempt(write, otherwise):
    """Call write(); where the disk does not let it, warn of that and of what comes of it, the text
    `otherwise`."""
    try:
        write()
    except (UserError, OSError) as error:
        warn(f'warning: {error}; {otherwise}')


# -------------------------------------------------------------------------------------- reading

def resolved(path):
    """A path from the root, links followed, as Path.resolve; a loop of links stays as it is."""
    return Path(os.path.realpath(path))


def check_regular(path):
    """UserError where `path` is no file, as a pipe, which would be waited for."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not os.path.lexists(path):
            raise UserError(f'{path}: no such file') from None
        raise UserError(f'{path}: a link to a file that is not there') from None
    except (OSError, ValueError) as error:          # a loop of links; a name with a null byte
        raise UserError(f'{path}: cannot be read ({brief(error)})') from None
    if stat.S_ISDIR(mode):
        raise UserError(f'{path}: is a folder, expected a file')
    if not stat.S_ISREG(mode):
        raise UserError(f'{path}: not a regular file (a pipe or a device)')


def read_text(path):
    """The text of a small file: UTF-8 or UTF-16 where a byte order mark says so, UTF-8 where it
    can be that, else Latin-1. UserError where it cannot be read."""
    check_regular(path)
    with blame(path):
        blob = Path(path).read_bytes()
        if blob[:2] in (b'\xff\xfe', b'\xfe\xff'):
            return blob.decode('utf-16', 'replace')
        try:
            return blob.decode('utf-8-sig')
        except UnicodeDecodeError:
            return blob.decode('latin-1')


def read_json(path):
    """What is in a JSON file of at most 64 MiB. UserError where it cannot be read."""
    check_regular(path)
    with blame(path, 'cannot be read as JSON'):
        if os.path.getsize(path) > 1 << 26:
            raise ValueError('larger than 64 MiB')
        return json.loads(Path(path).read_bytes())


# -------------------------------------------------------------------------------------- writing

def write_whole(path, write):
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
        if not isinstance(error, Exception) or out_of_memory(error):
            raise
        raise UserError(f'{path}: cannot be written ({brief(error)}); what was there before is '
                        'untouched') from None


def write_text(path, text):
    """The same of a text, as UTF-8."""
    write_whole(Path(path), lambda file: file.write(text.encode()))


def append(path, text):
    """Write what the file lacks of `text`, whose beginning it is."""
    with open(path, 'ab') as file:
        file.write(text.encode()[file.tell():])


def check_folder(path):
    """UserError where what is to be a folder is a file."""
    if path.exists() and not path.is_dir():
        raise UserError(f'{path}: is a file, not a folder; choose another')


def make_folder(path):
    """Make a folder where there is none. UserError where that is not possible."""
    check_folder(path)
    with blame(path, 'cannot be made'):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def lock(folder, wait=False, flag='--run', name='.lock'):
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
                raise UserError(f'{folder}: {holder(number)} is at work there; wait for it or '
                                f'stop it, or choose another folder with {flag}') from None
            warn(f'warning: {folder}: cannot be locked against a second process ({error})')
        with suppress(OSError):                     # a full disk; the lock holds without the name
            os.truncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)
            os.write(number, f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
        yield
    finally:
        os.close(number)


def holder(number):
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


class InBackground:
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
