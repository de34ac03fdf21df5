"""What is printed on the terminal."""
from contextlib import suppress
import os
import shlex
import shutil
import sys
import time

# Of the processes that torchrun starts, only the first one prints, except for warnings.
IS_MAIN = os.environ.get('WORLD_SIZE', '1') in ('', '1') or os.environ.get('RANK') == '0'
quiet = False                                       # -q: print only warnings
status_text = ''                                    # what the last line of the terminal shows


def open_closed_streams():
    """Open /dev/null in place of the standard streams that are closed, as daemons start a program.

    Otherwise sys.stderr is None, and what libraries print to it goes into the next file.
    """
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        try:
            os.fstat(number)
        except OSError:                             # the new file gets the lowest free number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'r' if name == 'stdin' else 'w'))


# ---------------------------------------------------------------------------------------- lines

def log_info(text, file=None):
    """Print a line on stdout, except with -q. With `file`, print it there in any case."""
    if file or IS_MAIN and not quiet:
        print_line(text, file or sys.stdout)


def warn(text):
    """Print a line on stderr."""
    print_line(text, sys.stderr)


def warn_on_error(write, consequence):
    """Call write(). If it cannot write, print only a warning, which ends with `consequence`."""
    try:
        write()
    except (ValueError, OSError) as error:          # UserErrors are ValueErrors
        warn(f'warning: {error}; {consequence}')


def print_line(text, file):
    """Print a line above the status line. Characters that the encoding of the file lacks are
    escaped. Nothing happens if the file is None or closed, on a full disk, or a terminal that is
    gone."""
    status = status_text
    status_line('')
    if file:
        try:
            try:
                print(text, file=file, flush=True)
            except UnicodeEncodeError:
                encoding = file.encoding or 'ascii'
                text = str(text).encode(encoding, 'backslashreplace').decode(encoding)
                print(text, file=file, flush=True)
        except (OSError, ValueError):               # ValueError: it is closed
            with suppress(OSError, ValueError):     # or Python complains when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    status_line(status)


# ------------------------------------------------------------------------------------- progress

def is_terminal():
    """Return whether stderr is a terminal that this process may draw a status line on."""
    with suppress(AttributeError, ValueError):      # stderr is None, or closed
        return IS_MAIN and not quiet and sys.stderr.isatty()
    return False


def status_line(text):
    """Show a text in the last line of a terminal, below what is printed; '' removes it."""
    global status_text
    if text != status_text and is_terminal() and os.environ.get('TERM') != 'dumb':
        status_text = text
        text = text[:shutil.get_terminal_size().columns - 1]
        with suppress(OSError, ValueError):
            print(f'\r\x1b[2K{text}', end='', file=sys.stderr, flush=True)    # clears the line


class Progress:
    """Shows how much is done and the time left, once the work takes more than two seconds: in the
    status line of a terminal, else as a line on stderr every ten seconds.

    what: a name for the work. total: how much there is to do.
    """

    def __init__(self, what, total):
        self.what, self.total = what, total
        self.started = self.printed = time.monotonic()

    def __call__(self, done):
        """Tell how much is done."""
        now = time.monotonic()
        seconds = now - self.started
        if seconds > 2 and done and IS_MAIN and not quiet:
            left = format_duration(seconds / done * (self.total - done))
            text = f'{self.what}: {done} of {self.total}, {left} left'
            if is_terminal():
                status_line(text)
            elif now - self.printed > 10:
                warn(text)
                self.printed = now
        if done >= self.total:
            status_line('')


# ---------------------------------------------------------------------------------------- words

def format_duration(seconds):
    """Return seconds in words: '1 h 5 min', '12 min', '40 s'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min' if minutes else f'{seconds} s'


def quote(path):
    """Return a path as a shell needs it."""
    return shlex.quote(str(path))


def plural(n, noun):
    """Return '1 noun' or '2 nouns'."""
    return f'{n} {noun}{"s" * (n != 1)}'
