"""Parsers for the arguments of edits and requests, which arrive as JSON values.

A parser takes an operations.Editor and a value. It returns what the operation or the request is
called with, or raises a UserError that says what is expected.
"""
import inspect
import json

import numpy as np

from app.common.config import parse_label
from app.common.errors import UserError, did_you_mean

FAR = 1 << 20                           # pixels; more than the side of any picture


def takes(**parsers):
    """Decorate an operation or a request with a parser for each of its arguments."""
    def decorate(function):
        function.parsers = parsers
        return function
    return decorate


def parse_arguments(function, values, editor):
    """Return {name: parsed value} for a function with `takes`; values: {name: JSON value}.
    Raises: UserError if a name is unknown, an argument is missing or a value is invalid."""
    try:
        inspect.signature(function).bind(None, **values)
    except TypeError as error:
        raise UserError(f'{error}; expected {", ".join(function.parsers) or "none"}') from None
    return {name: function.parsers[name](editor, value) for name, value in values.items()}


def short_json(value):
    """Return a value as JSON of at most 60 characters, for an error message."""
    try:
        text = json.dumps(value, default=str)
    except RecursionError:
        text = '[[[[...'
    return text if len(text) < 60 else f'{text[:57]}...'


def expect(value, valid, expected):
    """Return the value if `valid`. Raises: UserError that says what is expected, otherwise."""
    if not valid:
        raise UserError(f'{short_json(value)}: expected {expected}')
    return value


def is_list(value, length):
    return isinstance(value, list) and len(value) == length


def number(low, high, whole=False):
    """Return a parser of numbers from low to high."""
    def parse(editor, value):
        valid = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        return expect(value, valid and low <= value <= high,
                      f'a {"whole " * whole}number from {low} to {high}')
    return parse


whole_number = number(-FAR, FAR, whole=True)


def boolean(editor, value):
    return expect(value, isinstance(value, bool), 'true or false')


def string(editor, value):
    return expect(value, isinstance(value, str), 'a string')


def edit_list(editor, value):
    return expect(value, isinstance(value, list) and 0 < len(value) <= 1000,
                  'a list of 1 to 1000 edits')


def point(editor, value):
    """A pixel [x, y] of the picture."""
    expect(value, is_list(value, 2), 'a point [x, y]')
    return tuple(number(0, side - 1, whole=True)(editor, x)
                 for x, side in zip(value, editor.state.label.shape[::-1]))


def offset(editor, value):
    """[dx, dy] in pixels."""
    expect(value, is_list(value, 2), '[dx, dy]')
    return tuple(whole_number(editor, x) for x in value)


def rectangle(editor, value):
    """Two opposite corners [x0, y0, x1, y1]; returned as (left, top, right, bottom)."""
    expect(value, is_list(value, 4), 'a rectangle [x0, y0, x1, y1]')
    x0, y0, x1, y1 = (whole_number(editor, x) for x in value)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def stroke(editor, value):
    """Points [[x, y], ...], which may lie outside the picture."""
    expect(value, isinstance(value, list) and 0 < len(value) <= 100_000
           and all(is_list(pair, 2) for pair in value), '1 to 100000 points [[x, y], ...]')
    side = max(editor.state.label.shape)
    coordinate = number(-2 * side, 3 * side)
    return [tuple(coordinate(editor, x) for x in pair) for pair in value]


def object_id(editor, value):
    """The id of an object, or a point [x, y] on it; returned as the id."""
    if isinstance(value, list):
        x, y = point(editor, value)
        return int(editor.state.inst[y, x])
    value = number(-(1 << 31), (1 << 31) - 1, whole=True)(editor, value)
    return expect(value, value in editor.objects.ids,
                  'the number of an object in the picture, or a point [x, y] on it')


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
        expect(value, len(value) == editor.config.feat, f'{editor.config.feat} features')
        return tuple(float(np.float32(number(-1e6, 1e6)(editor, x))) for x in value)
    return number(0, 10 ** 6, whole=True)(editor, value)
