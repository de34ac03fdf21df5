"""The arguments of edits and of requests, as JSON has them: parsers, which are annotations of the
functions that take them. A parser makes an argument of an Editor and a value, or a UserError."""
import inspect
import json

import numpy as np

from app.common.config import parse_label
from app.common.errors import UserError, did_you_mean

FAR = 1 << 20                           # pixels; more than the side of any picture


def parse_arguments(function, values, editor):
    """Return {name: parsed value} of the arguments of a function; values: {name: JSON value}."""
    parsers = function.__annotations__
    try:
        inspect.signature(function).bind(None, **values)
    except TypeError as error:
        raise UserError(f'{error}; expected {", ".join(parsers) or "none"}') from None
    parsed = {}
    for name, value in values.items():
        try:
            parsed[name] = parsers[name](editor, value)
        except UserError as error:
            raise UserError(f'"{name}": {error}') from None
    return parsed


def as_json(value):
    """Return a value as JSON text of at most 60 characters, for error messages."""
    text = json.dumps(value, ensure_ascii=False)
    return (text if text.isprintable() else json.dumps(value))[:60]


def checked(is_valid, expected):
    """Return a parser that returns the values for which is_valid(value) and refuses the others."""
    def parse(editor, value):
        if not is_valid(value):
            raise UserError(f'{as_json(value)}: expected {expected}')
        return value
    return parse


def number_between(low, high, whole=False):
    return checked(lambda x: isinstance(x, int if whole else (int, float)) and low <= x <= high
                   and not isinstance(x, bool), f'a {"whole " * whole}number from {low} to {high}')


def list_between(low, high, item, expected):
    """Return a parser of lists of low to high values, which the parser `item` reads: a tuple."""
    def parse(editor, value):
        if not isinstance(value, list) or not low <= len(value) <= high:
            what = f'a list of {len(value)}' if isinstance(value, list) else as_json(value)
            raise UserError(f'{what}: expected {expected}')
        return tuple(item(editor, x) for x in value)
    return parse


boolean = checked(lambda x: isinstance(x, bool), 'true or false')
string = checked(lambda x: isinstance(x, str), 'a string')
edit_list = list_between(1, 100_000, lambda editor, edit: edit, 'a list of 1 to 100000 edits')
pixels = number_between(-FAR, FAR, whole=True)
offset = list_between(2, 2, pixels, '[dx, dy]')
rectangle = list_between(4, 4, pixels, 'a rectangle [x0, y0, x1, y1]')


def point(editor, value):
    """A pixel [x, y] of the picture."""
    pair = list_between(2, 2, pixels, 'a point [x, y]')(editor, value)
    return [number_between(0, side - 1, whole=True)(editor, x)
            for x, side in zip(pair, editor.state.label.shape[::-1])]


def position(editor, value):
    """A point [x, y], which may lie between pixels and outside the picture."""
    side = max(editor.state.label.shape)
    return list_between(2, 2, number_between(-2 * side, 3 * side), 'a point [x, y]')(editor, value)


stroke = list_between(1, 100_000, position, '1 to 100000 points [[x, y], ...]')
corners = list_between(3, 100_000, position, '3 to 100000 points [[x, y], ...]')


def object_id(editor, value):
    """The id of an object, or a point [x, y] on it; returned as the id."""
    if isinstance(value, list):
        x, y = point(editor, value)
        return int(editor.state.inst[y, x])
    known = ', '.join(f'{i} ({editor.label_names[label]})' for i, label in
                      zip(*(x[-3:] for x in editor.objects[:2])))
    return checked(lambda x: type(x) is int and x in editor.objects.ids.tolist(), 'the number of '
                   f'an object in the picture, as {known}, or a point [x, y] on it')(editor, value)


object_ids = list_between(1, 10_000, object_id, 'a list of 1 to 10000 objects')


def scale_factors(editor, value):
    """A factor or [across, down], of which a negative one mirrors; returned as the pair."""
    pair = value if isinstance(value, list) else [value, value]
    return list_between(2, 2, checked(
        lambda x: type(x) in (int, float) and 0.05 <= abs(x) <= 20,
        'a number from 0.05 to 20, or from -20 to -0.05 to mirror'), '[across, down]')(
            editor, pair)


def paint_target(editor, value):
    return value if value in ('new', 'same') else object_id(editor, value)


def label_number(editor, value):
    """The name or the number of a label; returned as the number."""
    names, n = editor.config.label_names, editor.config.n_labels
    word = str(value) if type(value) in (int, str) else ''
    label = parse_label(word, names)
    if not 0 <= label < n:
        raise UserError(f'{as_json(value)}: expected a label from 0 to {n - 1}'
                        + ' or its name' * bool(names) + did_you_mean(word, names))
    return label


def style_choice(editor, value):
    """'main', the most frequent one; 'random', another one, drawn; 'photo', the photograph's; the
    number of a style; or a list of features, returned as a tuple."""
    if value in ('main', 'random', 'photo'):
        return value
    if isinstance(value, list):
        feat = editor.config.feat
        features = list_between(feat, feat, number_between(-1e6, 1e6), f'{feat} features')
        return tuple(np.float32(features(editor, value)).tolist())
    return number_between(0, 10 ** 6, whole=True)(editor, value)
