"""Files: written whole or not at all, folders held by one process, and what goes wrong said in one line."""
from contextlib import contextmanager, suppress
import errno
import os
import socket
import sys

import torch

try:
    import fcntl
except ImportError:                                         # Windows has no such locks
    fcntl = None


class UserError(Exception):
    """What the user can mend: one line that names the file, the value and the remedy."""

    def __init__(self, message):
        # A loader process wraps its error into a traceback, as text, whose last line is the message.
        super().__init__(message.strip().splitlines()[-1].removeprefix('files.UserError: '))


@contextmanager
def blame(path, what='cannot be read'):
    """Whatever goes wrong inside is said in one line about `path`, but for a device that is too small."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UserError(f'{path}: {what} ({brief(error)})') from None


def brief(error):
    """An exception's message in one line."""
    return ' '.join(str(error).split())[:300] or type(error).__name__


def say(text, file=None):
    """Print, and go on without where that is not possible: to a file on a full disk, to a terminal that is gone."""
    file = file or sys.stdout
    try:
        print(text, file=file, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())    # or Python would complain when it ends


def attempt(write, otherwise):
    """Call write(); where the disk does not let it, warn of that and of what comes of it, the text `otherwise`."""
    try:
        write()
    except (UserError, OSError) as error:
        say(f'warning: {error}; {otherwise}', sys.stderr)


def write_whole(path, write):
    """Call write(file) on a temporary file that takes the place of `path` only once it is complete on the disk.
    UserError, with what was there before untouched, where that fails."""
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        with open(partial, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        if os.name == 'posix':                              # the new name must be on the disk as well
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except Exception as error:                              # torch has errors of its own for a full disk
        with suppress(OSError):
            partial.unlink()
        raise UserError(f'{path}: cannot be written ({brief(error)}); what was there before is untouched') from None


@contextmanager
def lock(folder, wait=False):
    """Hold `folder` against other processes. One that holds it already is waited for; or else a UserError names it and
    its host. The system drops the lock of a process that dies, and a forked process does not inherit it."""
    path = folder / '.lock'
    number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_NOFOLLOW', 0), 0o666)
    try:
        try:
            if fcntl:
                fcntl.lockf(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = os.pread(number, 300, 0).decode(errors='replace').strip() or 'another process'
                raise UserError(f'{folder}: {holder} is at work there; wait for it or stop it, or choose another '
                                'folder with --run') from None
            say(f'warning: {folder}: cannot be locked against a second process ({error})', sys.stderr)
        with suppress(OSError):                             # a full disk; the lock holds without the name
            os.truncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)
            os.write(number, f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
        yield
    finally:
        os.close(number)


def check_folder(path):
    """UserError where a folder cannot be made since a file has its name."""
    if path.exists() and not path.is_dir():
        raise UserError(f'{path}: is a file, not a folder; choose another')


def append(path, text):
    """Write what the file lacks of `text`, whose beginning it is."""
    with open(path, 'ab') as file:
        file.write(text.encode()[file.tell():])
