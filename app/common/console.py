"""What is said on the terminal."""
from contextlib import suppress
import os
import shlex
import shutil
import sys
import time



def quote(path):
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def plural(n, thing):
    """'1 thing', '2 things'"""
    return f'{n} {thing}{"s" * (n != 1)}'
quiet = False                                       # -q: warnings alone are said
status_text = ''                                      # what stands in the last line of the terminal


def log_info(text, file=None):
    """Print, and go on without where that is not possible: to a file on a full disk, to a terminal
    that is gone. What its encoding lacks is escaped."""
    if quiet and file is None:
        return
    file, live = file or sys.stdout, status_text
    status_line('')
    print_safely(text, file)
    status_line(live)


def print_safely(text, file):
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
    log_info(text, sys.stderr)


def status_line(text):
    """Have a text stand in the last line of a terminal, below what is said; '': none. Nowhere else,
    and not with -q."""
    global status_text
    if text == status_text or quiet or not sys.stderr.isatty() or os.environ.get('TERM') == 'dumb':
        return
    status_text = text
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
            left = format_duration(took / done * (self.total - done))
            text = f'{self.what}: {done} of {self.total}, {left} left'
            if sys.stderr.isatty():
                status_line(text)
            elif now - self.said > 10:
                warn(text)
                self.said = now
        if done >= self.total:
            status_line('')


def format_duration(seconds):
    """1 h 5 min, 12 min, 40 s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min' if minutes else f'{seconds} s'
