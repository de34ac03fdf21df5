"""Parsers for the arguments of edits and requests, which arrive as JSON values.

Operations and requests name a parser as the annotation of each argument. A parser takes an
operations.Editor and a value. It returns what the function is called with, or raises a UserError
that says what is expected.
"""
import inspect
import json

import numpy as np

from app.common.config import parse_label
from app.common.errors import UserError, did_you_mean

FAR = 1 << 20                           # pixels; more than the side of any picture


def parse_arguments(function, values, editor):
    """Return {name: parsed value} of the arguments of a function; values: {name: JSON value}.
    Raises UserError if a name is unknown, an argument is missing or a value is invalid."""
    signature = inspect.signature(function)
    try:
        signature.bind(None, **values)
    except TypeError as error:
        names = ', '.join(list(signature.parameters)[1:]) or 'none'
        raise UserError(f'{error}; expected {names}') from None
    return {name: signature.parameters[name].annotation(editor, value)
            for name, value in values.items()}


def short_json(value):
    """Return a value as JSON of at most 60 characters, for an error message."""
    try:
        text = json.dumps(value, default=str)
    except RecursionError:
        text = '[[[[...'
    return text if len(text) < 60 else f'{text[:57]}...'


def checked(is_valid, expected):
    """Return a parser that returns the values for which is_valid(value) and refuses the others."""
    def parse(editor, value):
        if not is_valid(value):
            raise UserError(f'{short_json(value)}: expected {expected}')
        return value
    return parse


def number_between(low, high, whole=False):
    """Return a parser of numbers from low to high."""
    return checked(lambda x: isinstance(x, int if whole else (int, float)) and low <= x <= high
                   and not isinstance(x, bool), f'a {"whole " * whole}number from {low} to {high}')


def json_list(length, expected):
    """Return a parser of lists of that length."""
    return checked(lambda x: isinstance(x, list) and len(x) == length, expected)


boolean = checked(lambda x: isinstance(x, bool), 'true or false')
string = checked(lambda x: isinstance(x, str), 'a string')
edit_list = checked(lambda x: isinstance(x, list) and 0 < len(x) <= 1000,
                    'a list of 1 to 1000 edits')
whole_number = number_between(-FAR, FAR, whole=True)


def point(editor, value):
    """A pixel [x, y] of the picture."""
    return tuple(number_between(0, side - 1, whole=True)(editor, x) for x, side in zip(
        json_list(2, 'a point [x, y]')(editor, value), editor.state.label.shape[::-1]))


def offset(editor, value):
    """[dx, dy] in pixels."""
    return tuple(whole_number(editor, x) for x in json_list(2, '[dx, dy]')(editor, value))


def rectangle(editor, value):
    """Two opposite corners [x0, y0, x1, y1]; returned as (left, top, right, bottom)."""
    x0, y0, x1, y1 = (whole_number(editor, x) for x in json_list(
        4, 'a rectangle [x0, y0, x1, y1]')(editor, value))
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def stroke(editor, value):
    """Points [[x, y], ...], which may lie outside the picture."""
    side = max(editor.state.label.shape)
    coordinate = number_between(-2 * side, 3 * side)
    pairs = checked(lambda x: isinstance(x, list) and 0 < len(x) <= 100_000 and all(
        isinstance(pair, list) and len(pair) == 2 for pair in x),
        '1 to 100000 points [[x, y], ...]')(editor, value)
    return [tuple(coordinate(editor, x) for x in pair) for pair in pairs]


def object_id(editor, value):
    """The id of an object, or a point [x, y] on it; returned as the id."""
    if isinstance(value, list):
        x, y = point(editor, value)
        return int(editor.state.inst[y, x])
    number_between(-(1 << 31), (1 << 31) - 1, whole=True)(editor, value)
    return checked(lambda x: x in editor.objects.ids, 'the number of an object in the picture, or '
                   'a point [x, y] on it')(editor, value)


def paint_target(editor, value):
    """'new', 'same' or an object."""
    return value if value in ('new', 'same') else object_id(editor, value)


def label_number(editor, value):
    """The name or the number of a label; returned as the number."""
    names, n = editor.config.label_names, editor.config.n_labels
    word = str(value) if type(value) in (int, str) else ''
    label = parse_label(word, names)
    if not 0 <= label < n:
        raise UserError(f'{short_json(value)}: expected a label from 0 to {n - 1}'
                        + ' or its name' * bool(names) + did_you_mean(word, names))
    return label


def style_choice(editor, value):
    """'main', 'random', 'photo', the number of a style, or a list of features (as a tuple)."""
    if value in ('main', 'random', 'photo'):
        return value
    if isinstance(value, list):
        features = json_list(editor.config.feat, f'{editor.config.feat} features')(editor, value)
        return tuple(float(np.float32(number_between(-1e6, 1e6)(editor, x))) for x in features)
    return number_between(0, 10 ** 6, whole=True)(editor, value)
