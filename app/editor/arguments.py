"""The arguments of edits and requests, as JSON has them. A reader takes an edit.Editor and a
value, and gives what the function is called with; or a UserError says what was expected."""
import inspect
import json

import numpy as np

from app.common.config import parse_label
from app.common.errors import UserError, did_you_mean

FAR = 1 << 20                                       # more than the side of any picture


def number(low, high, whole=False):
    """A reader of numbers within bounds."""
    def read(editor, value):
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or (
                not low <= value <= high):
            raise UserError(f'{shown(value)}: expected a {"whole " * whole}number from {low} to '
                            f'{high}')
        return value
    return read


def flag(editor, value):
    if not isinstance(value, bool):
        raise UserError(f'{shown(value)}: expected true or false')
    return value


def shown(value):
    """A value of an edit as it is told of."""
    try:
        text = json.dumps(value, default=str)
    except RecursionError:
        text = '[[[[...'
    return text if len(text) < 60 else f'{text[:57]}...'


def point(editor, value):
    """[x, y] within the picture."""
    h, w = editor.state.label.shape
    if not isinstance(value, list) or len(value) != 2:
        raise UserError(f'{shown(value)}: expected a point [x, y]')
    return tuple(number(0, most - 1, whole=True)(editor, one) for one, most in zip(value, (w, h)))


def shift(editor, value):
    """[dx, dy] in pixels."""
    if not isinstance(value, list) or len(value) != 2:
        raise UserError(f'{shown(value)}: expected [dx, dy]')
    return tuple(number(-FAR, FAR, whole=True)(editor, one) for one in value)


def an_object(editor, value):
    """The id of an object, or a point [x, y] on it -> its id."""
    if isinstance(value, list):
        x, y = point(editor, value)
        return int(editor.state.inst[y, x])
    value = number(-(1 << 31), (1 << 31) - 1, whole=True)(editor, value)
    if value not in editor.objects.ids:
        raise UserError(f'{value}: no object of that number in the picture')
    return value


def a_label(editor, value):
    """The name or the number of a label -> its number."""
    names, n = editor.config.label_names, editor.config.n_labels
    label = parse_label(str(value), names) if type(value) in (int, str) else -1
    if not 0 <= label < n:
        raise UserError(f'{shown(value)}: no such label; expected a number from 0 to {n - 1}'
                        + ' or a name' * bool(names) + did_you_mean(str(value), names))
    return label


def a_style(editor, value):
    """'main', 'random', 'photo', the number of a style of the label, or features."""
    if value in ('main', 'random', 'photo'):
        return value
    if isinstance(value, list):
        if len(value) != editor.config.feat:
            raise UserError(f'{shown(value)}: expected {editor.config.feat} features')
        return tuple(float(np.float32(number(-1e6, 1e6)(editor, one))) for one in value)
    return number(0, 10 ** 6, whole=True)(editor, value)


def a_brush(editor, value):
    """Points [[x, y], ...] of a stroke, which may lie outside."""
    if not isinstance(value, list) or not 0 < len(value) <= 100_000 or not all(
            isinstance(one, list) and len(one) == 2 for one in value):
        raise UserError(f'{shown(value)}: expected 1 to 100000 points [[x, y], ...]')
    reach = number(-2 * max(editor.state.label.shape), 3 * max(editor.state.label.shape))
    return [tuple(reach(editor, one) for one in pair) for pair in value]


def a_box(editor, value):
    """[x0, y0, x1, y1], in any order."""
    if not isinstance(value, list) or len(value) != 4:
        raise UserError(f'{shown(value)}: expected a rectangle [x0, y0, x1, y1]')
    x0, y0, x1, y1 = (number(-FAR, FAR, whole=True)(editor, one) for one in value)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def an_owner(editor, value):
    """'new', 'same' or an object."""
    return value if value in ('new', 'same') else an_object(editor, value)


def taking(**readers):
    """Says how the arguments of an operation, or of a request, are read."""
    def marked(function):
        function.readers = readers
        return function
    return marked


def read_arguments(function, given, editor):
    """The arguments of a function marked by `taking` out of a JSON object -> {name: value}.
    UserError where there are others, one is missing, or one is of no use."""
    for name in given:
        if name not in function.readers:
            raise UserError(f'{shown(name)}: no such argument; there are '
                            f'{", ".join(function.readers) or "none"}')
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if name not in given and parameter.default is parameter.empty:
            raise UserError(f'"{name}" is missing')
    return {name: function.readers[name](editor, value) for name, value in given.items()}
