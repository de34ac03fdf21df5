"""What is printed on the terminal."""
from contextlib import contextmanager, suppress
from contextvars import ContextVar
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time


def several_processes():
    """Whether torchrun has started this process together with others."""
    return os.environ.get('WORLD_SIZE', '') not in ('', '1')


# Of these, only the first one prints, except for warnings.
IS_MAIN = not several_processes() or os.environ.get('RANK') == '0'
quiet = False                                       # -q: print only warnings
status_text = ''                                    # what the last line of the terminal shows
warned_subjects = set()                             # by warn_once
warning_collector = ContextVar('warning_collector', default=None)   # see collect_warnings


def open_closed_streams():
    """Open /dev/null in place of each closed standard stream, or the next file that is opened would
    get its text."""
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        try:
            os.fstat(number)
        except OSError:                             # the new file gets the lowest free number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'r' if name == 'stdin' else 'w'))


def log_info(text, file=None):
    """Print a line on stdout, except with -q. With `file`, print it there in any case."""
    if file or IS_MAIN and not quiet:
        print_line(text, file or sys.stdout)


def warn(text):
    if warning_collector.get() is not None:
        texts, rewrite = warning_collector.get()
        text = rewrite(text)
        texts.append(text)
    print_line(text, sys.stderr)


@contextmanager
def collect_warnings(rewrite=str):
    """Return a list, to which the texts of the warnings that this thread prints are added. rewrite:
    a function that returns what is to be printed of a text."""
    before = warning_collector.set(([], rewrite))
    try:
        yield warning_collector.get()[0]
    finally:
        warning_collector.reset(before)


def warn_once(subject, text):
    """Print a warning unless this process, or the one that it was forked off, has printed one on
    this subject."""
    if subject not in warned_subjects:
        warned_subjects.add(subject)
        warn(text)


def warn_on_error(write, consequence):
    """Call write(). If it cannot write, print only a warning, which ends with `consequence`."""
    try:
        write()
    except (ValueError, OSError) as error:          # UserErrors are ValueErrors
        named = getattr(error, 'filename', None)
        warn(f'warning: {f"{named}: {error.strerror}" if named else error}; {consequence}')


def print_line(text, file):
    """Print a line above the status line, with escapes for characters that the encoding lacks.
    Nothing happens if the file is None or closed, on a full disk, or a terminal that is gone."""
    status = status_text
    status_line('')
    if file:
        try:
            encoding = getattr(file, 'encoding', None) or 'utf-8'
            text = str(text).encode(encoding, 'backslashreplace').decode(encoding)
            print(text, file=file, flush=True)
        except (OSError, ValueError):               # ValueError: it is closed
            with suppress(OSError, ValueError):     # or Python complains when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    status_line(status)


def status_line(text):
    """Show a text in the last line of a terminal, below what is printed; '' removes it. Return
    whether stderr is a terminal that this process may draw on."""
    global status_text
    with suppress(AttributeError, ValueError, OSError):     # stderr is None, closed, or gone
        if IS_MAIN and not quiet and sys.stderr.isatty() and os.environ.get('TERM') != 'dumb':
            if text != status_text:
                status_text = text
                shown = text[:shutil.get_terminal_size().columns - 1]
                print(f'\r\x1b[2K{shown}', end='', file=sys.stderr, flush=True)   # clears the line
            return True
    return False


class Progress:
    """Shows how much of `total` is done and the time left, once the work `what` takes more than two
    seconds: in the status line of a terminal, else as a line on stderr every ten seconds."""

    def __init__(self, what, total):
        self.what, self.total = what, total
        self.started = self.printed = time.monotonic()

    def __call__(self, done):
        now = time.monotonic()
        seconds = now - self.started
        if seconds > 2 and done and IS_MAIN and not quiet:
            text = (f'{self.what}: {done} of {self.total}, '
                    f'{format_duration(seconds / done * (self.total - done))} left')
            if not status_line(text) and now - self.printed > 10:
                warn(text)
                self.printed = now
        if done >= self.total:
            status_line('')


def format_duration(seconds):
    """Return seconds in words: '1 h 5 min', '12 min', '40 s'."""
    minutes = round(seconds) // 60
    if minutes >= 60:
        return f'{minutes // 60} h {minutes % 60} min'
    return f'{minutes} min' if minutes else f'{round(seconds)} s'


def wrap(text, indent=2):
    """Wrap a line at 80 columns, not beside a number, nor between a flag and its value. Further
    lines begin with `indent` spaces."""
    text = re.sub(r'(--\S+) (?!-)', '\\1\0', text)
    text = re.sub(r'(?<=\d) (?=[a-z])|(?<=[a-z]) (?=\d)', '\0', text)
    return textwrap.fill(text, 80, subsequent_indent=' ' * indent, break_long_words=False,
                         break_on_hyphens=False).replace('\0', ' ')


def quote(path):
    """Return a path as it is typed in a command line."""
    return subprocess.list2cmdline([str(path)]) if os.name == 'nt' else shlex.quote(str(path))


def plural(n, noun):
    """Return '1 noun' or '2 nouns'."""
    return f'{n} {noun}{"s" * (n != 1)}'
