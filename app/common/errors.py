"""What goes wrong, said in one line."""
from contextlib import contextmanager
import difflib
import errno
import os
import traceback

from app.common.console import warn


class UserError(ValueError):
    """What the user can mend: one line that names the file, the value and the remedy."""

    def __init__(self, message):
        # A loader process passes an error on as the text of its traceback, which ends in the message.
        if message.startswith('Caught UserError in '):
            message = message.strip().splitlines()[-1].partition(': ')[2]
        # The name of a file may have line ends in it.
        super().__init__(r'\n'.join(message.splitlines()))


def is_out_of_memory(error):
    """Whether an exception says that host or device have not enough memory. On the CPU, PyTorch
    has only words for it."""
    words = ("can't allocate memory", 'not enough memory', 'Cannot allocate memory',
             'out of memory')
    return (isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError'
            or getattr(error, 'errno', None) == errno.ENOMEM
            or any(text in str(error) for text in words))


@contextmanager
def as_user_error(path, what='cannot be read'):
    """Whatever goes wrong inside is said in one line about `path` (UserError). Want of memory is
    not the fault of a file, and stays what it is."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise UserError(f'{path}: {what} ({one_line(error)})') from None


def one_line(error):
    """An exception's message in one line. PyTorch's advice to load what may be dangerous is not
    passed on."""
    if 'Weights only load failed' in str(error):
        return 'no file of tensors'
    return ' '.join(str(error).split())[:300] or type(error).__name__


def describe_os_error(error):
    """The line for an OSError that nothing has put into words."""
    if error.filename is None:
        return one_line(error)
    remedy = ('give yourself the rights to it, or choose another'
              if isinstance(error, PermissionError) else 'see that it is there and can be used')
    return f'{os.fsdecode(error.filename)}: {error.strerror}; {remedy}'


def did_you_mean(word, words):
    """What may have been meant, as the end of a message. words: a list, {word: what to say},
    or None."""
    found = difflib.get_close_matches(word, words or (), 1)
    said = words[found[0]] if found and isinstance(words, dict) else ''.join(found)
    return f'; did you mean {said}?' if found else ''


def warn_on_error(write, otherwise):
    """Call write(); where the disk does not let it, warn of that and of what comes of it, the text
    `otherwise`."""
    try:
        write()
    except (UserError, OSError) as error:
        warn(f'warning: {error}; {otherwise}')


def explain(error, several_processes=False):
    """The line that tells a user what went wrong, or None for an error of the program."""
    if is_out_of_memory(error):
        return ('there is not enough memory; try --precision bf16, --crop, a smaller --size, or '
                'fewer channels')
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return describe_os_error(error)
    if 'DataLoader worker' in str(error):
        return ('a process that loads pictures has died, perhaps of too little (shared) memory; '
                'train --resume RUN --workers 0 loads them in the trainer')
    from data import InputError                             # imports torch
    if isinstance(error, InputError):
        return one_line(error)
    if several_processes:
        from app.runs import distributed
        if distributed.is_connection_error(error):
            return 'another process of this run has ended, and says why; train --resume RUN goes on'
        return traceback.format_exc()
    return None
