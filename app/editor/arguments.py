"""Parsers of the arguments of edits and requests. The annotation of an argument names its parser,
which takes an operations.Editor and a JSON value, and returns what the function is called with, or
raises a UserError that says what is expected."""
import inspect
import json

import numpy as np

from app.common.config import parse_label
from app.common.errors import UserError, did_you_mean

FAR = 1 << 20                           # pixels; more than the side of any picture


def parse_arguments(function, values, editor):
    """Return {name: parsed value} of the arguments of a function; values: {name: JSON value}."""
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
    text = json.dumps(value)
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


def list_between(low, high, item, expected):
    """Return a parser of lists of low to high values, which the parser `item` reads."""
    check = checked(lambda x: isinstance(x, list) and low <= len(x) <= high, expected)
    return lambda editor, value: [item(editor, x) for x in check(editor, value)]


boolean = checked(lambda x: isinstance(x, bool), 'true or false')
string = checked(lambda x: isinstance(x, str), 'a string')
edit_list = checked(lambda x: isinstance(x, list) and 0 < len(x) <= 1000,
                    'a list of 1 to 1000 edits')
pixels = number_between(-FAR, FAR, whole=True)
offset = list_between(2, 2, pixels, '[dx, dy]')
rectangle = list_between(4, 4, pixels, 'a rectangle [x0, y0, x1, y1]')


def point(editor, value):
    """A pixel [x, y] of the picture."""
    pair = list_between(2, 2, pixels, 'a point [x, y]')(editor, value)
    return [number_between(0, side - 1, whole=True)(editor, x)
            for x, side in zip(pair, editor.state.label.shape[::-1])]


def stroke(editor, value):
    """Points [[x, y], ...], which may lie outside the picture; returned as tuples."""
    side = max(editor.state.label.shape)
    pair = list_between(2, 2, number_between(-2 * side, 3 * side), 'a point [x, y]')
    points = list_between(1, 100_000, pair, '1 to 100000 points [[x, y], ...]')(editor, value)
    return [tuple(x) for x in points]


def object_id(editor, value):
    """The id of an object, or a point [x, y] on it; returned as the id."""
    if isinstance(value, list):
        x, y = point(editor, value)
        return int(editor.state.inst[y, x])
    number_between(-(1 << 31), (1 << 31) - 1, whole=True)(editor, value)
    ids, labels = (x[-3:].tolist() for x in editor.objects[:2])
    known = ', '.join(f'{i} ({editor.label_names[label]})' for i, label in zip(ids, labels))
    return checked(lambda x: x in editor.objects.ids, 'the number of an object in the picture, as '
                   f'{known}, or a point [x, y] on it')(editor, value)


def paint_target(editor, value):
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
        feat = editor.config.feat
        features = list_between(feat, feat, number_between(-1e6, 1e6), f'{feat} features')
        return tuple(np.float32(features(editor, value)).tolist())
    return number_between(0, 10 ** 6, whole=True)(editor, value)
