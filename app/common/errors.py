"""Errors that a user can mend, as one line."""
from contextlib import contextmanager
import difflib
import errno


class UserError(ValueError):
    """An error that the user can mend: one line that names the file, the value and the remedy."""

    def __init__(self, message):
        # A loader process passes on the text of a traceback, which ends in the message.
        if message.startswith('Caught UserError in '):
            message = message.strip().splitlines()[-1].partition(': ')[2]
        super().__init__(r'\n'.join(message.splitlines()))      # file names may have line ends


class WriteError(UserError):
    """A file cannot be written."""


def is_out_of_memory(error):
    """Return whether an exception says that the host or the device has too little memory."""
    return (isinstance(error, MemoryError) or getattr(error, 'errno', None) == errno.ENOMEM
            or any(text in str(error) for text in (         # all that PyTorch says
                'allocate memory', 'not enough memory', 'out of memory')))


@contextmanager
def as_user_error(path, what='cannot be read'):
    """Turn exceptions into UserErrors: '<path>: <what> (<message>)'. Out of memory stays so."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise UserError(f'{path}: {what} ({one_line(error)})') from None


def one_line(error):
    """Return the message of an exception in one line of at most 300 characters."""
    if 'Weights only load failed' in str(error):            # PyTorch advises to load it unsafely
        return 'no file of tensors'
    return ' '.join(str(error).split())[:300] or type(error).__name__


def did_you_mean(word, choices):
    """Return '; did you mean ...?' or ''. choices: words, {word: what to suggest}, or None."""
    for match in difflib.get_close_matches(word, choices or (), 1):
        return f'; did you mean {choices[match] if isinstance(choices, dict) else match}?'
    return ''
