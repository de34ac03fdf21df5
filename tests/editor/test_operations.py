"""Every operation of the editor on maps that are easy to check by hand, undo, redo, and errors."""
import contextlib
import json

import numpy as np
import pytest
import torch

from app.common.errors import UserError
from app.datasets import layouts
from app.editor import operations
from app.editor.operations import State, Style
from conftest import make_run
import generate

CPU = torch.device('cpu')
SMALL = {'ngf': 8, 'n_down': 2, 'n_blocks': 1, 'ndf': 8, 'nef': 4, 'n_down_encoder': 2}
NAMES = [name for name, _ in layouts.CITYSCAPES]
ROAD, BUILDING, SKY, PERSON, CAR, TRUCK = 7, 11, 23, 24, 26, 27

# Sky, a building, a road; on the road two cars, and a person beside the first.
LABEL = np.array([[23, 23, 23, 23, 23, 23, 23, 23],
                  [11, 11, 11, 11, 11, 11, 11, 11],
                  [11, 11, 11, 11, 11, 11, 11, 11],
                  [11, 26, 26, 24, 11, 11, 26, 11],
                  [7, 26, 26, 24, 7, 7, 26, 7],
                  [7, 7, 7, 7, 7, 7, 7, 7]], np.uint8)
INST = np.array([[23, 23, 23, 23, 23, 23, 23, 23],
                 [11, 11, 11, 11, 11, 11, 11, 11],
                 [11, 11, 11, 11, 11, 11, 11, 11],
                 [11, 26000, 26000, 24000, 11, 11, 26001, 11],
                 [7, 26000, 26000, 24000, 7, 7, 26001, 7],
                 [7, 7, 7, 7, 7, 7, 7, 7]], np.int32)


def make_clusters(n_labels=35, k=3):
    """Three styles for each label except trucks, which have none."""
    centres = np.arange(n_labels * k * 3, dtype=np.float32).reshape(n_labels, k, 3) / 100
    counts = np.tile(np.array([5, 3, 2]), (n_labels, 1))
    counts[TRUCK] = 0
    return {'centres': centres, 'counts': counts, 'mean': np.full(3, 0.5, np.float32)}


@pytest.fixture(scope='module')
def run():
    return make_run(CPU, **SMALL, layout='Cityscapes', label_names=NAMES)


@pytest.fixture
def editor(run):
    return make_editor(run)


def make_editor(run, **more):
    clusters = make_clusters()
    styles = {i: operations.main_styles(clusters, [int(LABEL[INST == i][0])])[0]
              for i in np.unique(INST).tolist()}
    return operations.Editor(run, clusters, State(LABEL, INST, styles), **more)


def do(editor, name, **arguments):
    editor.edit([{'do': name, **arguments}])
    assert_consistent(editor)
    return editor.state


def assert_consistent(editor):
    """Every object has one label, one style and the right box."""
    label, inst, styles = editor.state
    assert label.shape == inst.shape and inst.dtype == np.int32
    ids = np.unique(inst)
    pairs = np.unique(inst.astype(np.int64).ravel() * 1000 + label.ravel())
    assert len(pairs) == len(ids)
    assert styles.keys() == set(ids.tolist())
    assert editor.objects.ids.tolist() == ids.tolist()
    for i, majority, pixels, (x0, y0, x1, y1) in zip(*(x.tolist() for x in editor.objects)):
        y, x = (inst == i).nonzero()
        assert (x.min(), y.min(), x.max() + 1, y.max() + 1, len(x)) == (x0, y0, x1, y1, pixels)
        assert (label[inst == i] == majority).all()
        style = styles[i]
        if style.number is not None:
            assert style == operations.cluster_style(editor.clusters, majority, style.number)


# -------------------------------------------------------------------------------- operations

def test_remove_fills_the_hole_from_the_nearest_stuff(editor):
    """Building above, road below."""
    label, inst, styles = do(editor, 'remove', object=26000)
    assert label[3, 1:3].tolist() == [BUILDING, BUILDING] and label[4, 1:3].tolist() == [ROAD, ROAD]
    assert inst[3, 1:3].tolist() == [11, 11] and inst[4, 1:3].tolist() == [7, 7]
    untouched = INST != 26000
    assert (label[untouched] == LABEL[untouched]).all() and (inst == 24000).sum() == 2
    assert 26000 not in styles


def test_remove_of_stuff_among_the_same_stuff_changes_nothing_else(editor):
    """A removed patch of road becomes road again; an erased part of the road becomes building."""
    first = editor.state
    do(editor, 'paint', label='road', rectangle=[4, 5, 5, 5])
    assert_same(do(editor, 'remove', object=[4, 5]), first)
    assert (do(editor, 'erase', rectangle=[4, 5, 5, 5]).label[5, 4:6] == BUILDING).all()


def test_nearest_pixels_equals_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(50):
        h, w = rng.integers(1, 12, 2)
        hole, sources = rng.random((h, w)) < 0.5, rng.random((h, w)) < 0.2
        hole &= ~sources
        if sources.any() and hole.any():
            y, x = hole.nonzero()
            row, column = operations.nearest_pixels(hole, sources)
            assert sources[row, column].all()
            distance = (np.subtract.outer(y, sources.nonzero()[0]) ** 2
                        + np.subtract.outer(x, sources.nonzero()[1]) ** 2).min(1)
            assert ((y - row) ** 2 + (x - column) ** 2 == distance).all()


def test_remove_all_stuff_and_then_all_objects(editor):
    for i in (7, 11, 23):                                   # only things are left to fill with
        do(editor, 'remove', object=i)
    assert set(np.unique(editor.state.inst)) == {24000, 26000, 26001}
    do(editor, 'remove', object=24000)
    assert (editor.state.label == CAR).all()
    with pytest.raises(UserError, match='erase: nothing would be left'):
        editor.edit([{'do': 'erase', 'rectangle': [0, 0, 7, 5]}])


def test_relabel(editor):
    label, inst, styles = do(editor, 'relabel', object=26000, label='bus')
    assert (label[INST == 26000] == 28).all() and (inst == INST).all()
    assert styles[26000] == operations.cluster_style(editor.clusters, 28, 0)
    label, inst, styles = do(editor, 'relabel', object=[6, 3], label=TRUCK)
    assert styles[26001] == Style(None, (0.5, 0.5, 0.5))       # trucks have no styles


def test_style_and_like(editor):
    assert do(editor, 'style', object=26000, style=2).styles[26000] == operations.cluster_style(
        editor.clusters, CAR, 2)
    assert editor.state.label is LABEL                      # the maps have not changed
    styles = do(editor, 'style', label='car', style=1).styles
    assert styles[26000] == styles[26001] == operations.cluster_style(editor.clusters, CAR, 1)
    assert do(editor, 'style', object=26000, style='main').styles[26000].number == 0
    for seed in range(20):
        before = editor.state.styles[26000].number
        assert do(editor, 'style', object=26000, style='random',
                  seed=seed).styles[26000].number != before
    styles = do(editor, 'style', object=24000, style=[0.1, 2, -3]).styles
    assert styles[24000] == Style(None, (float(np.float32(0.1)), 2.0, -3.0))
    styles = do(editor, 'like', object=26001, other=24000).styles
    assert styles[26001] == styles[24000] and (editor.state.label[INST == 26001] == PERSON).all()


def test_like_for_all_objects_of_a_label(editor):
    do(editor, 'style', object=24000, style=2)
    label, inst, styles = do(editor, 'like', label='car', other=24000)
    assert (label[INST >= 26000] == PERSON).all() and (inst == INST).all()
    assert styles[26000] == styles[26001] == styles[24000] and editor.now == 2
    for wrong in {'other': 7}, {'other': 7, 'object': 7, 'label': 7}, {'other': 7, 'label': 'bus'}:
        with pytest.raises(UserError, match='like: (expected one of|no object of the label bus)'):
            editor.edit([{'do': 'like', **wrong}])


def test_style_from_a_photograph(run):
    photo = torch.rand(1, 3, 6, 8) * 2 - 1
    editor = make_editor(run, photo=photo)
    styles = do(editor, 'style', object=26000, style='photo').styles
    scene = editor.inputs()[0]
    expected = generate.encode_image(run, photo, scene)[scene.ids == 26000][0]
    assert styles[26000] == Style(None, tuple(expected.tolist()))


def test_move(editor):
    """Two pixels to the right: the car hides the person; building and road fill the hole."""
    label, inst, styles = do(editor, 'move', object=26000, by=[2, 0])
    assert (inst[3:5, 3:5] == 26000).all() and (label[3:5, 3:5] == CAR).all()
    assert inst[3, 1:3].tolist() == [11, 11] and inst[4, 1:3].tolist() == [7, 7]
    assert 24000 not in styles                                 # hidden completely


def test_move_behind_another_object(editor):
    """The person stays in front of the car, also in later moves, and of a copy."""
    first = editor.state
    do(editor, 'move', object=26000, by=[1, 0])
    assert (editor.state.inst == 24000).sum() == 0
    do(editor, 'undo')
    state = do(editor, 'move', object=26000, by=[1, 0], behind=[24000])
    assert (state.inst == 24000).sum() == 2 and (state.inst == 26000).sum() == 2
    assert state.inst[3:5, 1].tolist() == [11, 7]           # filled
    assert (do(editor, 'move', object=26000, by=[1, 0]).inst[3:5, 4] == 26000).all()
    assert (editor.state.inst == 24000).sum() == 2 and editor.now == 1
    with pytest.raises(UserError, match='outside the picture or behind others'):
        editor.edit([{'do': 'move', 'object': 24000, 'by': [1, 0], 'behind': [26000]}])
    do(editor, 'undo')
    copied = do(editor, 'move', object=26000, by=[2, 0], copy=True, behind=[26000, [3, 3]])
    assert (copied.inst == 26002).sum() == 2 and (copied.inst[3:5, 4] == 26002).all()
    do(editor, 'undo')
    assert_same(editor.state, first)


def test_move_partly_or_completely_outside(editor):
    label, inst, _ = do(editor, 'move', object=26000, by=[-2, 0])
    assert (inst == 26000).sum() == 2 and (inst[3:5, 0] == 26000).all()
    with pytest.raises(UserError, match='outside the picture'):
        editor.edit([{'do': 'move', 'object': 26000, 'by': [-5, 0]}])


def test_moves_in_a_row_begin_with_the_object_as_it_was(editor):
    """They destroy nothing, are one step to undo, and equal one move by their sum."""
    first = editor.state
    for by in ([2, 0], [4, 0], [-1, -2], [-5, 2]):          # over the person, half outside, back
        do(editor, 'move', object=26000, by=by)
    assert_same(editor.state, first)
    do(editor, 'move', object=26000, scale=2)
    do(editor, 'move', object=26000, by=[1, -1], flip=True)
    do(editor, 'move', object=26000, scale=0.5)
    assert editor.now == 1
    state = editor.state
    do(editor, 'undo')
    assert_same(editor.state, first)
    assert_same(do(editor, 'move', object=26000, by=[1, -1], flip=True), state)
    with pytest.raises(UserError, match='outside the picture'):
        editor.edit([{'do': 'move', 'object': 26000, 'by': [-9, 0]}])
    assert_same(editor.state, state)

    do(editor, 'style', object=7, style=1)                  # another edit begins anew
    do(editor, 'move', object=26000, by=[1, 0])
    assert editor.now == 3


def test_a_copy_is_moved_from_where_its_original_is(editor):
    first = editor.state
    copied = do(editor, 'move', object=26000, by=[2, 0], copy=True)
    assert 24000 not in copied.styles                       # hidden by the copy
    moved = do(editor, 'move', object=26002, by=[2, 0])
    assert (moved.inst[3:5, 3] == 24000).all() and (moved.inst[3:5, 1:3] == 26000).all()
    do(editor, 'move', object=26002, by=[0, -3])
    assert (editor.state.inst == 26002).sum() == 4 and (editor.state.inst == 26001).sum() == 2
    for state in copied, first:
        do(editor, 'undo')
        assert_same(editor.state, state)


def test_a_saved_state_is_not_replaced_by_a_further_move(editor):
    saved = do(editor, 'move', object=26000, by=[1, 0])
    editor.opened.saved.append(editor.history[editor.now])
    assert editor.is_saved()
    do(editor, 'move', object=26000, by=[1, 0])
    do(editor, 'move', object=26000, by=[1, 0])
    assert not editor.is_saved() and editor.now == 2
    do(editor, 'undo')
    assert_same(editor.state, saved)
    assert editor.is_saved()


def test_move_with_copy_scale_and_flip(editor):
    label, inst, styles = do(editor, 'move', object=26000, by=[0, -3], copy=True)
    new = int(inst[0, 1])
    assert new == 26002 and (inst == 26000).sum() == 4 and (inst == new).sum() == 4
    assert styles[new] == styles[26000]
    assert (do(editor, 'move', object=new, scale=2).inst == new).sum() > 8
    painted = do(editor, 'paint', label='sky', brush=[[1, 3]], to='same')
    assert painted.inst[3, 1] == 23                         # this corner of the car is painted over
    flipped = do(editor, 'move', object=26000, flip=True)
    assert flipped.inst[3, 1] == 26000 and flipped.inst[3, 2] != 26000


def test_move_scales_about_a_point_and_mirrors(run):
    """Each direction by its own factor; a series of moves equals one, also about other points."""
    label, inst = np.full((40, 60), ROAD, np.uint8), np.full((40, 60), 7, np.int32)
    label[10:20, 20:30], inst[10:20, 20:30] = CAR, 26000
    label[10:15, 20:22] = PERSON
    styles = {i: operations.cluster_style(make_clusters(), i // 1000 or i, 0) for i in (7, 26000)}
    editor = operations.Editor(run, make_clusters(), State(label, inst, styles))

    def box(**arguments):
        editor.edit([{'do': 'move', 'object': 26000, **arguments}])
        return editor.objects.boxes[1].tolist()
    assert box(scale=[2, 0.5], about=[20, 20]) == [20, 15, 40, 20]
    assert box(scale=[0.5, 3], about=[40, 15]) == [30, 15, 40, 30]
    assert box(scale=[-1, 1], about=[40, 15], by=[-10, 0]) == [30, 15, 40, 30]
    assert (editor.state.label[15:22, 38:40] == PERSON).all()       # mirrored
    assert box(scale=-1) == box(scale=[-1, 1]) == [30, 15, 40, 30]
    assert (editor.state.label[23:30, 38:40] == PERSON).all()
    assert editor.now == 1 and (editor.state.inst == 26000).sum() == 150
    box(scale=[-1, -2 / 3], about=[30, 15])
    box(by=[0, 5])
    assert_same(editor.state, State(label, inst, styles))
    with pytest.raises(UserError, match='too large'):
        for _ in range(9):
            box(scale=[20, 1])


def test_edits_of_several_objects(editor):
    """Each is one step; objects are given by numbers or by points on them."""
    first, both = editor.state, [[6, 4], 26000, 26001]
    moved = do(editor, 'move', objects=both, by=[1, -3])
    assert (moved.inst[0:2, 2:4] == 26000).all() and (moved.inst[0:2, 7] == 26001).all()
    assert_same(do(editor, 'move', objects=[26001, 26000], by=[-1, 3]), first)
    assert editor.now == 1
    do(editor, 'move', object=26000, by=[0, -1])                # another choice: another step
    assert editor.now == 2
    do(editor, 'goto', state=0)

    mirrored = do(editor, 'move', objects=both, flip=True)      # about the middle of them all
    assert (mirrored.inst[3:5, 1] == 26001).all() and (mirrored.inst[3:5, 5:7] == 26000).all()
    do(editor, 'undo')
    do(editor, 'style', object=26001, style=2)
    copied = do(editor, 'move', objects=both, by=[0, -3], copy=True)
    assert (copied.inst[0, 1:3] == 26002).all() and copied.inst[0, 6] == 26003
    assert copied.styles[26003] == copied.styles[26001] != copied.styles[26002]
    assert (copied.inst[3:5] == INST[3:5]).all()

    styles = do(editor, 'style', objects=[24000, 26003], style=1).styles
    assert styles[24000].number == styles[26003].number == 1 and styles[26002].number == 0
    state = do(editor, 'relabel', objects=[24000, 26003, 26002], label='person')
    assert (state.label[np.isin(state.inst, [24000, 26003, 26002])] == PERSON).all()
    assert state.styles[24000].number == 1 and state.styles[26003].number == 0
    state = do(editor, 'like', objects=both, other=24000)
    assert state.styles[26000] == state.styles[26001] == state.styles[24000]
    now = editor.now
    label, inst, _ = do(editor, 'remove', objects=[26000, 26001, 24000, 26002, 26003])
    assert editor.now == now + 1 and np.unique(inst).tolist() == [7, 11, 23]


def test_history_has_names(editor):
    for edit in ({'do': 'relabel', 'object': 26000, 'label': 'bus'},
                 {'do': 'style', 'label': 'car', 'style': 1},
                 {'do': 'move', 'objects': [26001, 26000, [6, 3]], 'by': [0, -1], 'copy': True},
                 {'do': 'paint', 'label': 'road', 'fill': [0, 0]}):
        editor.edit([edit])
    assert editor.history[-1].name == 'fill road'
    do(editor, 'goto', state=3)
    do(editor, 'reset')
    assert [entry.name for entry in editor.history] == [
        'open', 'relabel car to bus', 'style 1: car', 'copy 2 objects', 'reset']


def test_paint_a_polygon_and_within_objects(editor):
    label, inst, _ = do(editor, 'paint', label='truck', polygon=[[4, 0], [7, 3], [4, 3]])
    assert [(row == TRUCK).sum() for row in label] == [1, 2, 3, 4, 0, 0]
    assert label[0, 4] == label[3, 7] == TRUCK
    do(editor, 'undo')
    label, _, _ = do(editor, 'paint', label='truck', polygon=[[4, 0], [7, 3], [4, 3]],
                     within=[26001, 23])
    assert [x.tolist() for x in (label == TRUCK).nonzero()] == [[0, 3], [4, 6]]
    do(editor, 'undo')
    label, _, _ = do(editor, 'erase', polygon=[[0, 2], [7.5, 2], [7.5, 5], [0, 5]], within=[[1, 3]])
    assert (label[INST != 26000] == LABEL[INST != 26000]).all() and (label[3, 1:3] == 11).all()


def test_paint(editor):
    label, inst, styles = do(editor, 'paint', label='truck', rectangle=[7, 5, 6, 4])
    new = int(inst[5, 7])
    assert (inst[4:6, 6:8] == new).all() and (label[4:6, 6:8] == TRUCK).all() and new == 27000
    assert do(editor, 'paint', label='road', rectangle=[6, 4, 7, 5], to='same').inst[5, 7] == 7
    assert do(editor, 'paint', label='car', brush=[[0, 0]], to=26001).inst[0, 0] == 26001
    assert do(editor, 'paint', label='car', brush=[[0, 5]], to='same').inst[5, 0] == 26000
    filled = do(editor, 'paint', label='wall', fill=[4, 1])
    assert (filled.label[1:3] == 12).all() and filled.label[3, 0] == 12
    with pytest.raises(UserError, match="paint: object 26000 has the label car, not road"):
        editor.edit([{'do': 'paint', 'label': 'road', 'brush': [[1, 1]], 'to': 26000}])


def test_width_of_a_brush(run):
    label, inst = np.full((64, 64), ROAD, np.uint8), np.full((64, 64), 7, np.int32)
    clusters = make_clusters()
    styles = {7: operations.cluster_style(clusters, 7, 0)}
    editor = operations.Editor(run, clusters, State(label, inst, styles))
    state = do(editor, 'paint', label='car', brush=[[10, 32], [50, 32]], width=9)
    thin = do(editor, 'paint', label='truck', brush=[[5, 5]], width=0.5)
    assert (thin.label == TRUCK).sum() == 1 and thin.label[5, 5] == TRUCK
    assert (state.label[:, 30] == CAR).sum() == 9
    assert (state.label[32] == CAR).nonzero()[0][[0, -1]].tolist() == [6, 54]
    for ends in ([12, 30], [48, 30]), ([48, 30], [12, 30]), ([30, 12], [30, 48]):
        mask = np.asarray(operations.draw_shape((60, 60), 'brush', ends, 6))
        assert sorted(len(x) for x in map(np.unique, mask.nonzero())) == [6, 42]


def test_erase_and_split(editor):
    state = do(editor, 'erase', rectangle=[1, 3, 1, 4])
    assert state.inst[3, 1] == 11 and state.inst[4, 1] == 7 and (state.inst == 26000).sum() == 2
    do(editor, 'paint', label='sky', rectangle=[3, 0, 3, 5], to='same')
    state = do(editor, 'split', at=[7, 5])                  # the road on the right
    assert state.inst[5, 7] != state.inst[5, 0] == 7
    assert state.styles[int(state.inst[5, 7])] == state.styles[7]
    with pytest.raises(UserError, match='in one piece'):
        editor.edit([{'do': 'split', 'at': [7, 5]}])


def test_erase_removes_only_things_if_there_are_any(editor):
    label, inst, _ = do(editor, 'erase', rectangle=[0, 3, 2, 5])
    assert label[3:, :3].tolist() == [[11, 11, 11], [7, 7, 7], [7, 7, 7]]
    before = editor.state.label
    label, _, _ = do(editor, 'erase', rectangle=[0, 5, 2, 5])      # no thing there: erases the road
    assert (label[5, :3] == BUILDING).all() and (label[:5] == before[:5]).all()


def test_undo_redo_reset(editor):
    first = editor.state
    do(editor, 'remove', object=26000)
    second = editor.state
    do(editor, 'style', object=11, style=1)
    for _ in range(2):
        do(editor, 'undo')
    assert_same(editor.state, first)
    do(editor, 'redo')
    assert_same(editor.state, second)
    do(editor, 'paint', label='car', brush=[[0, 0]])
    with pytest.raises(UserError, match='redo: nothing to redo'):
        editor.edit([{'do': 'redo'}])
    do(editor, 'reset')
    assert_same(editor.state, first)
    do(editor, 'undo')                                      # a reset can be undone
    assert editor.state.label[0, 0] == CAR


def assert_same(a, b):
    assert a.label.dtype == b.label.dtype and (a.label == b.label).all()
    assert (a.inst == b.inst).all() and a.styles == b.styles


def random_edit(rng, editor):
    ids = editor.objects.ids.tolist()
    first, second = (int(rng.choice(ids)) for _ in range(2))
    x, y = int(rng.integers(8)), int(rng.integers(6))
    label = int(rng.integers(35))
    shape = [{'brush': [[x, y], [float(rng.uniform(-2, 9)), 3]], 'width': 2},
             {'rectangle': [x, y, int(rng.integers(8)), 2]}, {'fill': [x, y]},
             {'polygon': [[x, y], [float(rng.uniform(-2, 9)), 3], [4, 0]]}][rng.integers(4)]
    shape |= {'within': [first, second]} if x == 3 else {}
    chosen = {'object': first} if y % 2 else {'objects': [first, second, [x, y]]}
    scale = float(rng.uniform(.4, 2))
    return [{'do': 'style', **chosen, 'style': int(rng.integers(3))},
            {'do': 'style', **chosen, 'style': 'random', 'seed': label},
            {'do': 'like', **chosen, 'other': second},
            {'do': 'relabel', **chosen, 'label': label}, {'do': 'split', 'at': [x, y]},
            {'do': 'remove', **chosen},
            {'do': 'move', **chosen, 'by': [x - 4, y - 3], 'flip': bool(x % 2),
             'scale': [scale, -scale / 2] if label % 2 else scale, 'copy': bool(label % 3),
             **({'about': [x, y]} if label % 5 else {})},
            {'do': 'paint', 'label': label, 'to': ['new', 'same'][x % 2], **shape},
            {'do': 'erase', **shape}][rng.integers(9)]


def test_undo_and_redo_of_a_thousand_edits(editor):
    """An edit that fails changes nothing; undo and redo are exact to the bit."""
    rng, first, n_applied = np.random.default_rng(0), editor.state, 0
    states = [first]
    for _ in range(1000):
        before = editor.state
        try:
            editor.edit([random_edit(rng, editor)])
        except UserError:
            assert_same(editor.state, before)
        else:
            states[editor.now:] = [editor.state]        # a further move of an object: replaces one
            n_applied += 1
        assert_consistent(editor)
    assert n_applied > 700 and len(states) > 600
    for state in reversed(states[:-1]):
        editor.edit([{'do': 'undo'}])
        assert_same(editor.state, state)
    for state in states[1:]:
        editor.edit([{'do': 'redo'}])
        assert_same(editor.state, state)
    for i in rng.integers(len(states), size=50).tolist():
        editor.edit([{'do': 'goto', 'state': i}])
        assert_same(editor.state, states[i])
        assert editor.now == i and len(editor.history) == len(states)


def test_a_list_of_edits_is_applied_completely_or_not_at_all(editor):
    before, history, version = editor.state, list(editor.history), editor.version
    with pytest.raises(UserError, match='relabel: "label": "no-such": expected a label'):
        editor.edit([{'do': 'remove', 'object': 26000}, {'do': 'undo'},
                     {'do': 'relabel', 'object': 11, 'label': 'no-such'}])
    assert editor.state is before and editor.history == history and editor.version == version
    assert_consistent(editor)


@pytest.mark.parametrize('wrong, message', [
    ({'do': 'vanish'}, 'expected {"do": ...} with one of style, like'),
    (['do'], 'expected {"do": ...}'),
    ({'do': ['remove']}, 'expected {"do": ...}'),
    ({'do': 'remove'}, 'remove: expected one of "object" and "objects"'),
    ({'do': 'remove', 'object': 5}, 'remove: "object": 5: expected the number of an object'),
    ({'do': 'remove', 'object': True}, 'true: expected the number'),
    ({'do': 'remove', 'object': [9, 0]}, '"object": 9: expected a whole number from 0 to 7'),
    ({'do': 'remove', 'object': 7, 'label': 3}, "argument 'label'; expected object, objects"),
    ({'do': 'remove', 'object': 7, 'objects': [7]}, 'expected one of "object" and "objects"'),
    ({'do': 'remove', 'objects': []}, 'expected a list of 1 to 10000 objects'),
    ({'do': 'remove', 'objects': [7, 5]}, 'remove: "objects": 5: expected the number of an object'),
    ({'do': 'move', 'objects': [26000, 24000], 'by': [-3, 0]}, 'object 26000 would lie outside'),
    ({'do': 'move', 'object': 7, 'scale': [1, 0.01]}, 'from -20 to -0.05 to mirror'),
    ({'do': 'move', 'object': 7, 'scale': [1, 1, 1]}, 'expected [across, down]'),
    ({'do': 'move', 'object': 7, 'behind': [7]}, 'object 7 cannot be behind itself'),
    ({'do': 'remove', 'object': 'Stra\u00dfe'}, '"Stra\u00dfe": expected the number'),
    ({'do': 'goto', 'state': 1}, 'goto: 1: expected a state from 0 to 0'),
    ({'do': 'goto'}, "goto: missing a required argument: 'state'"),
    ({'do': 'undo', 'steps': 2}, "undo: got an unexpected keyword argument 'steps'"),
    ({'do': 'paint', 'label': 'car', 'polygon': [[0, 0], [1, 1]]}, 'expected 3 to 100000 points'),
    ({'do': 'erase', 'fill': [0, 0], 'rectangle': [0, 0, 1, 1]}, 'expected one of "brush"'),
    ({'do': 'erase', 'fill': [0, 0], 'within': [7]}, 'outside the objects in "within"'),
    ({'do': 'style', 'object': 7, 'style': 3}, 'style: 3: road has the styles 0 to 2'),
    ({'do': 'style', 'label': 'truck', 'style': 0}, 'style: no object of the label truck'),
    ({'do': 'style', 'style': 0}, 'expected one of "object", "objects" and "label"'),
    ({'do': 'style', 'object': 7, 'style': [1, 2]}, 'expected 3 features'),
    ({'do': 'style', 'object': 7, 'style': [1, 2, float('nan')]}, 'expected a number from'),
    ({'do': 'style', 'object': 7, 'style': 'photo'}, 'no photograph is loaded'),
    ({'do': 'paint', 'label': 'car'}, 'expected one of "brush", "rectangle", "polygon" and "fill"'),
    ({'do': 'paint', 'label': 'car', 'brush': []}, 'expected 1 to 100000 points'),
    ({'do': 'paint', 'label': 'car', 'brush': [[-9, -9]]}, 'outside the picture'),
    ({'do': 'move', 'object': 7, 'scale': 0}, '0: expected a number from 0.05 to 20'),
    ({'do': 'remove', 'object': json.loads('[' * 900 + ']' * 900)}, 'expected a point [x, y]')])
def test_errors_of_edits(editor, wrong, message):
    before = editor.state
    with pytest.raises(UserError) as error:
        editor.edit([wrong])
    assert message in str(error.value) and editor.state is before


def test_reset_returns_to_the_opened_scene(editor):
    """With its photograph and noise; after an undo past it, to the scene opened before."""
    first = editor.state
    do(editor, 'remove', object=26000)
    other = State(*(x[:4].copy() for x in first[:2]), {
        i: first.styles[i] for i in np.unique(INST[:4]).tolist()})
    editor.open(other, noise=7)
    editor.opened.photo = torch.zeros(1, 3, 4, 8)
    do(editor, 'relabel', object=11, label='wall')
    assert editor.opened.noise == 7 and editor.opened.photo is not None
    do(editor, 'reset')
    assert_same(editor.state, other)
    for _ in range(3):
        do(editor, 'undo')
    assert editor.opened.photo is None and editor.opened.noise == 0
    for label in ('bus', 'truck', 'wall'):
        do(editor, 'relabel', object=26001, label=label)
    do(editor, 'reset')
    assert_same(editor.state, first)


def test_an_object_with_many_labels(run):
    """Its style is that of its most frequent label, also when that label changes."""
    inst = np.where(INST > 1000, INST, 0).astype(np.int32)
    clusters = make_clusters()
    ids = np.unique(inst).tolist()
    labels = make_editor(run).describe(LABEL.copy(), inst).labels.tolist()
    editor = operations.Editor(run, clusters, State(LABEL, inst, dict(zip(
        ids, operations.main_styles(clusters, labels)))))
    assert editor.label_of(0) == BUILDING
    editor.edit([{'do': 'paint', 'label': 'building', 'rectangle': [0, 0, 7, 0]},
                 {'do': 'paint', 'label': 'wall', 'rectangle': [0, 1, 7, 2]}])
    now = editor.label_of(0)
    assert now == ROAD and editor.state.styles[0] == operations.cluster_style(clusters, ROAD, 0)


def test_a_run_with_one_style_per_label():
    run = make_run(CPU, **SMALL, features_of='label')
    clusters = make_clusters()
    labels = np.unique(LABEL).tolist()
    styles = dict(zip(labels, operations.main_styles(clusters, labels)))
    editor = operations.Editor(run, clusters, State(LABEL, INST, styles))
    editor.edit([{'do': 'style', 'object': 26000, 'style': 2}])
    assert editor.state.styles[CAR].number == 2
    editor.edit([{'do': 'relabel', 'object': 24000, 'label': 'bus'}
                 if run.config.label_names else
                 {'do': 'relabel', 'object': 24000, 'label': 28}])
    assert editor.state.styles.keys() == {7, 11, 23, 26, 28}
    assert generate.synthesise(run, *editor.inputs()).shape == (1, 3, 6, 8)

    whole = np.zeros_like(INST)                             # one object with all labels
    editor = operations.Editor(run, clusters, State(LABEL, whole, styles))
    editor.edit([{'do': 'paint', 'label': 30, 'brush': [[0, 0]]}])
    assert editor.state.styles.keys() == {*labels, 30}
    assert generate.synthesise(run, *editor.inputs()).isfinite().all()


def test_a_session_repeats_itself(run):
    """The edits since the scene was opened make it again: after undo, reset, moves that are added
    up, styles at random and of a photograph; also of edits that were restored."""
    photo = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    rng = np.random.default_rng(0)
    move = {'do': 'move', 'object': 26000, 'by': [1, 0], 'scale': 1.3}
    choices = [{'do': 'style', 'object': 26000, 'style': 'random', 'seed': 5},
               {'do': 'style', 'label': 'car', 'style': 'photo'},
               {'do': 'style', 'object': 26001, 'style': [0.1, 0.2, 1 / 3]}, move, move,
               {'do': 'move', 'object': 26000, 'by': [0, 1], 'flip': True},
               {'do': 'move', 'object': 26000, 'by': [-1, 0], 'copy': True},
               {'do': 'paint', 'label': 'bus', 'brush': [[1, 2], [3, 2]]},
               {'do': 'undo'}, {'do': 'undo'}, {'do': 'redo'}, {'do': 'reset'}]
    for i in range(16):
        editor = make_editor(run, photo=photo)
        for edit in [choices[k] for k in rng.integers(len(choices), size=12)] + [move] * (i % 2):
            with contextlib.suppress(UserError):            # nothing to undo, no such object
                editor.edit([edit])
        session = json.loads(json.dumps(editor.edits_since_opened()))
        state, editor = editor.state, make_editor(run, photo=photo)
        if i % 4 < 2:                                       # as if it was stopped and restored
            editor.push(state, 'restore', edits=[{'do': 'reset'}, *session])
        else:
            editor.open(state, photo, edits=session)
        editor.separate_moves()
        for edit in (move, move, choices[1], {'do': 'undo'}):
            with contextlib.suppress(UserError):
                editor.edit([edit])
        for made, edits in ((state, session), (editor.state, editor.edits_since_opened())):
            again = make_editor(run)                        # without the photograph
            for edit in json.loads(json.dumps(edits)):
                again.edit([edit])
            assert_same(again.state, made)
    editor.push(editor.state, 'restore', edits=None)
    assert editor.edits_since_opened() is None
