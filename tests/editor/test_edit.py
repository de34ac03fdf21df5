"""The editor: every operation on small maps by hand, histories, scripts, and saved scenes that
`generate` takes."""
import json
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
import torch

from conftest import make_run
import data
from app.editor import operations
from app.editor.operations import State, Style
from app.common.errors import UserError
from app.runs import runs
from app.editor import scenes as saved_scenes
import generate
from app.runs import run_styles
from app.datasets import scenes

CPU = torch.device('cpu')
SMALL = {'ngf': 8, 'n_down': 2, 'n_blocks': 1, 'ndf': 8, 'nef': 4, 'n_down_encoder': 2}
ROAD, BUILDING, SKY, PERSON, CAR, TRUCK = 7, 11, 23, 24, 26, 27

# Sky over a building over road; two cars on the road, and a person before the first.
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


def styles_known(n_labels=35, k=3):
    """Three styles of each label but of trucks, which have none."""
    centres = np.arange(n_labels * k * 3, dtype=np.float32).reshape(n_labels, k, 3) / 100
    counts = np.tile(np.array([5, 3, 2]), (n_labels, 1))
    counts[TRUCK] = 0
    return {'centres': centres, 'counts': counts, 'mean': np.full(3, 0.5, np.float32)}


@pytest.fixture(scope='module')
def run():
    return make_run(CPU, **SMALL, layout='Cityscapes', label_names=names())


def names():
    from app.datasets import layouts
    return [name for name, _ in layouts.CITYSCAPES]


@pytest.fixture
def editor(run):
    return make_editor(run)


def make_editor(run, **more):
    known = styles_known()
    own = {i: operations.main_styles(known, [int(LABEL[INST == i][0])])[0]
           for i in np.unique(INST).tolist()}
    return operations.Editor(run, known, State(LABEL, INST, own), **more)


def do(editor, name, **arguments):
    editor.edit([{'do': name, **arguments}])
    check(editor)
    return editor.state


def check(editor):
    """Label, instances and styles agree: every object has one label and one style."""
    label, inst, own = editor.state
    assert label.shape == inst.shape and inst.dtype == np.int32
    ids = np.unique(inst)
    pairs = np.unique(inst.astype(np.int64).ravel() * 1000 + label.ravel())
    assert len(pairs) == len(ids)
    assert own.keys() == set(ids.tolist())
    assert editor.objects.ids.tolist() == ids.tolist()
    for i, of, pixels, (x0, y0, x1, y1) in zip(*(x.tolist() for x in editor.objects)):
        y, x = (inst == i).nonzero()
        assert (x.min(), y.min(), x.max() + 1, y.max() + 1, len(x)) == (x0, y0, x1, y1, pixels)
        assert (label[inst == i] == of).all()
        style = own[i]
        if style.number is not None:
            assert style == operations.known_style(editor.known, of, style.number)


# -------------------------------------------------------------------------------- operations

def test_remove_fills_from_what_is_around(editor):
    """Each pixel becomes what is nearest and no thing: building above, road below."""
    label, inst, own = do(editor, 'remove', object=26000)
    assert label[3, 1:3].tolist() == [BUILDING, BUILDING] and label[4, 1:3].tolist() == [ROAD, ROAD]
    assert inst[3, 1:3].tolist() == [11, 11] and inst[4, 1:3].tolist() == [7, 7]
    untouched = INST != 26000
    assert (label[untouched] == LABEL[untouched]).all() and (inst == 24000).sum() == 2
    assert 26000 not in own


def test_nearest_is_nearest():
    """As by looking at every pixel."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        h, w = rng.integers(1, 12, 2)
        hole, sources = rng.random((h, w)) < 0.5, rng.random((h, w)) < 0.2
        hole &= ~sources
        if sources.any() and hole.any():
            y, x = hole.nonzero()
            row, column = operations.nearest(hole, sources)
            assert sources[row, column].all()
            distance = (np.subtract.outer(y, sources.nonzero()[0]) ** 2
                        + np.subtract.outer(x, sources.nonzero()[1]) ** 2).min(1)
            assert ((y - row) ** 2 + (x - column) ** 2 == distance).all()


def test_removing_the_last_stuff_and_the_last_object(editor):
    for i in (7, 11, 23):                                   # things fill where nothing else is
        do(editor, 'remove', object=i)
    assert set(np.unique(editor.state.inst)) == {24000, 26000, 26001}
    do(editor, 'remove', object=24000)
    assert (editor.state.label == CAR).all()
    with pytest.raises(UserError, match='erase: nothing would be left'):
        editor.edit([{'do': 'erase', 'rectangle': [0, 0, 7, 5]}])


def test_relabel(editor):
    label, inst, own = do(editor, 'relabel', object=26000, label='bus')
    assert (label[INST == 26000] == 28).all() and (inst == INST).all()
    assert own[26000] == operations.known_style(editor.known, 28, 0)
    label, inst, own = do(editor, 'relabel', object=[6, 3], label=TRUCK)
    assert own[26001] == Style(None, (0.5, 0.5, 0.5))       # trucks have no styles


def test_styles(editor):
    assert do(editor, 'style', object=26000, style=2).styles[26000] == operations.known_style(
        editor.known, CAR, 2)
    assert editor.state.label is LABEL                      # the maps are the same
    own = do(editor, 'style', label='car', style=1).styles
    assert own[26000] == own[26001] == operations.known_style(editor.known, CAR, 1)
    assert do(editor, 'style', object=26000, style='main').styles[26000].number == 0
    for seed in range(20):
        before = editor.state.styles[26000].number
        assert do(editor, 'style', object=26000, style='random',
                  seed=seed).styles[26000].number != before
    own = do(editor, 'style', object=24000, style=[0.1, 2, -3]).styles
    assert own[24000] == Style(None, (float(np.float32(0.1)), 2.0, -3.0))
    own = do(editor, 'like', object=26001, other=24000).styles
    assert own[26001] == own[24000] and (editor.state.label[INST == 26001] == PERSON).all()


def test_style_of_a_photograph(run):
    photo = torch.rand(1, 3, 6, 8) * 2 - 1
    editor = make_editor(run, photo=photo)
    own = do(editor, 'style', object=26000, style='photo').styles
    scene = editor.scene()[0]
    expected = generate.encode_image(run, photo, scene)[scene.ids == 26000][0]
    assert own[26000] == Style(None, tuple(expected.tolist()))


def test_move(editor):
    """Two to the right: the car covers the person, and building and road close the hole."""
    label, inst, own = do(editor, 'move', object=26000, by=[2, 0])
    assert (inst[3:5, 3:5] == 26000).all() and (label[3:5, 3:5] == CAR).all()
    assert inst[3, 1:3].tolist() == [11, 11] and inst[4, 1:3].tolist() == [7, 7]
    assert 24000 not in own                                 # hidden altogether


def test_move_partly_outside_and_altogether(editor):
    label, inst, _ = do(editor, 'move', object=26000, by=[-2, 0])
    assert (inst == 26000).sum() == 2 and (inst[3:5, 0] == 26000).all()
    with pytest.raises(UserError, match='outside the picture'):
        editor.edit([{'do': 'move', 'object': 26000, 'by': [-5, 0]}])


def test_copy_scale_flip(editor):
    label, inst, own = do(editor, 'move', object=26000, by=[0, -3], copy=True)
    new = int(inst[0, 1])
    assert new == 26002 and (inst == 26000).sum() == 4 and (inst == new).sum() == 4
    assert own[new] == own[26000]
    assert (do(editor, 'move', object=new, scale=2).inst == new).sum() > 8
    painted = do(editor, 'paint', label='sky', brush=[[1, 3]], to='same')
    assert painted.inst[3, 1] == 23                         # a corner of the car is gone
    flipped = do(editor, 'move', object=26000, flip=True)
    assert flipped.inst[3, 1] == 26000 and flipped.inst[3, 2] != 26000


def test_paint(editor):
    label, inst, own = do(editor, 'paint', label='truck', rectangle=[7, 5, 6, 4])
    new = int(inst[5, 7])
    assert (inst[4:6, 6:8] == new).all() and (label[4:6, 6:8] == TRUCK).all() and new == 27000
    assert do(editor, 'paint', label='road', rectangle=[6, 4, 7, 5], to='same').inst[5, 7] == 7
    assert do(editor, 'paint', label='car', brush=[[0, 0]], to=26001).inst[0, 0] == 26001
    assert do(editor, 'paint', label='car', brush=[[0, 5]], to='same').inst[5, 0] == 26000
    filled = do(editor, 'paint', label='wall', fill=[4, 1])
    assert (filled.label[1:3] == 12).all() and filled.label[3, 0] == 12
    with pytest.raises(UserError, match="paint: object 26000 is of the label car, not road"):
        editor.edit([{'do': 'paint', 'label': 'road', 'brush': [[1, 1]], 'to': 26000}])


def test_brush_has_its_width(run):
    label, inst = np.full((64, 64), ROAD, np.uint8), np.full((64, 64), 7, np.int32)
    known = styles_known()
    editor = operations.Editor(run, known, State(label, inst, {7: operations.known_style(known, 7, 0)}))
    state = do(editor, 'paint', label='car', brush=[[10, 32], [50, 32]], width=9)
    thin = do(editor, 'paint', label='truck', brush=[[5, 5]], width=0.5)
    assert (thin.label == TRUCK).sum() == 1 and thin.label[5, 5] == TRUCK
    assert (state.label[:, 30] == CAR).sum() == 9
    assert (state.label[32] == CAR).nonzero()[0][[0, -1]].tolist() == [6, 54]


def test_erase_and_split(editor):
    state = do(editor, 'erase', rectangle=[1, 3, 1, 4])
    assert state.inst[3, 1] == 11 and state.inst[4, 1] == 7 and (state.inst == 26000).sum() == 2
    do(editor, 'paint', label='sky', rectangle=[3, 0, 3, 5], to='same')
    state = do(editor, 'split', at=[7, 5])                  # the road on the right
    assert state.inst[5, 7] != state.inst[5, 0] == 7
    assert state.styles[int(state.inst[5, 7])] == state.styles[7]
    with pytest.raises(UserError, match='in one piece'):
        editor.edit([{'do': 'split', 'at': [7, 5]}])


def test_erase_takes_things_and_leaves_the_ground(editor):
    label, inst, _ = do(editor, 'erase', rectangle=[0, 3, 2, 5])
    assert label[3:, :3].tolist() == [[11, 11, 11], [7, 7, 7], [7, 7, 7]]
    before = editor.state.label
    label, _, _ = do(editor, 'erase', rectangle=[0, 5, 2, 5])      # no thing: the road itself
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
    do(editor, 'undo')                                      # a reset can be undone, too
    assert editor.state.label[0, 0] == CAR


def assert_same(a, b):
    assert a.label.dtype == b.label.dtype and (a.label == b.label).all()
    assert (a.inst == b.inst).all() and a.styles == b.styles


def random_edit(rng, editor):
    ids = editor.objects.ids.tolist()
    one, other = (int(rng.choice(ids)) for _ in range(2))
    x, y = int(rng.integers(8)), int(rng.integers(6))
    label = int(rng.integers(35))
    shape = [{'brush': [[x, y], [float(rng.uniform(-2, 9)), 3]], 'width': 2},
             {'rectangle': [x, y, int(rng.integers(8)), 2]}, {'fill': [x, y]}][rng.integers(3)]
    return [{'do': 'style', 'object': one, 'style': int(rng.integers(3))},
            {'do': 'style', 'object': one, 'style': 'random', 'seed': label},
            {'do': 'like', 'object': one, 'other': other},
            {'do': 'relabel', 'object': one, 'label': label}, {'do': 'split', 'at': [x, y]},
            {'do': 'remove', 'object': one},
            {'do': 'move', 'object': one, 'by': [x - 4, y - 3], 'scale': float(rng.uniform(.4, 2)),
             'flip': bool(x % 2), 'copy': bool(y % 2)},
            {'do': 'paint', 'label': label, 'to': ['new', 'same'][x % 2], **shape},
            {'do': 'erase', **shape}][rng.integers(9)]


def test_a_thousand_edits_undone(editor):
    """What cannot be done changes nothing; what was done is undone to the bit."""
    rng, first, done = np.random.default_rng(0), editor.state, 0
    states = [first]
    for _ in range(1000):
        before = editor.state
        try:
            editor.edit([random_edit(rng, editor)])
        except UserError:
            assert_same(editor.state, before)
        else:
            states.append(editor.state)
            done += 1
        check(editor)
    assert done > 700
    for state in reversed(states[:-1]):
        editor.edit([{'do': 'undo'}])
        assert_same(editor.state, state)
    for state in states[1:]:
        editor.edit([{'do': 'redo'}])
        assert_same(editor.state, state)


def test_edits_are_done_together_or_not_at_all(editor):
    before, history, version = editor.state, list(editor.history), editor.version
    with pytest.raises(UserError, match='relabel: "no-such": no such label'):
        editor.edit([{'do': 'remove', 'object': 26000}, {'do': 'undo'},
                     {'do': 'relabel', 'object': 11, 'label': 'no-such'}])
    assert editor.state is before and editor.history == history and editor.version == version
    check(editor)


@pytest.mark.parametrize('wrong, message', [
    ({'do': 'vanish'}, 'expected {"do": ...} with one of style, like'),
    (['do'], 'expected {"do": ...}'),
    ({'do': ['remove']}, 'expected {"do": ...}'),
    ({'do': 'remove'}, 'remove: "object" is missing'),
    ({'do': 'remove', 'object': 5}, 'remove: 5: no object of that number'),
    ({'do': 'remove', 'object': True}, 'true: expected a whole number'),
    ({'do': 'remove', 'object': [9, 0]}, 'remove: 9: expected a whole number from 0 to 7'),
    ({'do': 'remove', 'object': 7, 'label': 3}, 'remove: "label": no such argument; there are obj'),
    ({'do': 'style', 'object': 7, 'style': 3}, 'style: 3: road has the styles 0 to 2'),
    ({'do': 'style', 'label': 'truck', 'style': 0}, 'style: no object of the label truck'),
    ({'do': 'style', 'style': 0}, 'expected either "object" or "label"'),
    ({'do': 'style', 'object': 7, 'style': [1, 2]}, 'expected 3 features'),
    ({'do': 'style', 'object': 7, 'style': [1, 2, float('nan')]}, 'expected a number from'),
    ({'do': 'style', 'object': 7, 'style': 'photo'}, 'no photograph is at hand'),
    ({'do': 'paint', 'label': 'car'}, 'expected one of "brush", "rectangle" and "fill"'),
    ({'do': 'paint', 'label': 'car', 'brush': []}, 'expected 1 to 100000 points'),
    ({'do': 'paint', 'label': 'car', 'brush': [[-9, -9]]}, 'outside the picture'),
    ({'do': 'move', 'object': 7, 'scale': 0}, '0: expected a number from 0.05 to 20'),
    ({'do': 'remove', 'object': json.loads('[' * 900 + ']' * 900)}, 'expected a point [x, y]')])
def test_wrong_edits_are_named(editor, wrong, message):
    before = editor.state
    with pytest.raises(UserError) as error:
        editor.edit([wrong])
    assert message in str(error.value) and editor.state is before


def test_reset_leads_to_the_scene_that_was_opened(editor):
    """Also after an undo past it, and with its own photograph and noise."""
    first = editor.state
    do(editor, 'remove', object=26000)
    other = State(*(x[:4].copy() for x in first[:2]), {
        i: first.styles[i] for i in np.unique(INST[:4]).tolist()})
    editor.begin(other, noise=7)
    editor.take_photo(torch.zeros(1, 3, 4, 8))
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


def test_an_object_of_many_labels(run):
    """Its style is that of its majority, and another one's once that changes."""
    inst = np.where(INST > 1000, INST, 0).astype(np.int32)
    known = styles_known()
    ids = np.unique(inst).tolist()
    labels = operations.objects_of(LABEL, inst, 35).labels.tolist()
    editor = operations.Editor(run, known, State(LABEL, inst, dict(zip(
        ids, operations.main_styles(known, labels)))))
    assert editor.label_of(0) == BUILDING
    editor.edit([{'do': 'paint', 'label': 'building', 'rectangle': [0, 0, 7, 0]},
                 {'do': 'paint', 'label': 'wall', 'rectangle': [0, 1, 7, 2]}])
    now = editor.label_of(0)
    assert now == ROAD and editor.state.styles[0] == operations.known_style(known, ROAD, 0)


def test_objects_of_a_run_with_styles_of_labels():
    run = make_run(CPU, **SMALL, features_of='label')
    known = styles_known()
    labels = np.unique(LABEL).tolist()
    own = dict(zip(labels, operations.main_styles(known, labels)))
    editor = operations.Editor(run, known, State(LABEL, INST, own))
    editor.edit([{'do': 'style', 'object': 26000, 'style': 2}])
    assert editor.state.styles[CAR].number == 2
    editor.edit([{'do': 'relabel', 'object': 24000, 'label': 'bus'}
                 if run.config.label_names else
                 {'do': 'relabel', 'object': 24000, 'label': 28}])
    assert editor.state.styles.keys() == {7, 11, 23, 26, 28}
    assert editor.picture().shape == (1, 3, 6, 8)

    whole = np.zeros_like(INST)                             # one object of all labels
    editor = operations.Editor(run, known, State(LABEL, whole, own))
    editor.edit([{'do': 'paint', 'label': 30, 'brush': [[0, 0]]}])
    assert editor.state.styles.keys() == {*labels, 30} and editor.picture().isfinite().all()


# ------------------------------------------------------------------------------ on the disk

def scene_of(scenes):
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    return label, label.with_name(label.name.replace('labelIds', 'instanceIds'))


def test_saved_scene_is_generated_to_the_byte(command, trained, scenes, tmp_path):
    """By a script; and the scene can be opened again."""
    label, inst = scene_of(scenes)
    size = Image.open(label).size
    edits = [{'do': 'style', 'label': 'road', 'style': 0},
             {'do': 'paint', 'label': 'car', 'rectangle': [2, 18, 14, 26]},
             {'do': 'move', 'object': [3, 20], 'by': [20, 0], 'flip': True, 'copy': True},
             {'do': 'relabel', 'object': [3, 20], 'label': 'truck'},
             {'do': 'remove', 'object': [23, 20]}]
    (tmp_path / 'edits.json').write_text(json.dumps(edits))
    code, out, err = command('edit', '--run', trained, '--label', label, '--inst', inst,
                             '--script', 'edits.json', '--out', 'out')
    assert code == 0, err
    paths = out.split('\n')[-9:-1] if 'clustering' in out else out.splitlines()
    stem = label.stem.removesuffix('_gtFine_labelIds')
    stem += '-001'
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(
        [*(f'{stem}_{i:03d}.png' for i in range(1, 6)), f'{stem}_labelIds.png',
         f'{stem}_instanceIds.png', f'{stem}_styles.json', f'{stem}.png'])
    assert paths[-1].endswith(f'{stem}.png')
    assert Image.open(tmp_path / 'out' / f'{stem}.png').size == size

    saved = [tmp_path / 'out' / f'{stem}_{what}' for what in (
        'labelIds.png', 'instanceIds.png', 'styles.json')]
    code, _, err = command('generate', '--run', trained, '--label', saved[0], '--inst', saved[1],
                           '--styles', saved[2], '--out', 'again')
    assert code == 0, err
    again, = (tmp_path / 'again').iterdir()
    assert again.read_bytes() == (tmp_path / 'out' / f'{stem}.png').read_bytes()
    assert again.read_bytes() == (tmp_path / 'out' / f'{stem}_005.png').read_bytes()

    (tmp_path / 'edits.json').write_text(json.dumps([{'do': 'style', 'label': 'road', 'style': 0}]))
    code, _, err = command('edit', '--run', trained, '--label', saved[0], '--inst', saved[1],
                           '--styles', saved[2], '--script', 'edits.json', '--last', '--out', 'b')
    assert code == 0 and len(list((tmp_path / 'b').iterdir())) == 4, err
    assert (tmp_path / 'b' / f'{stem}-001.png').read_bytes() == again.read_bytes()

    # Into the folder of the scene itself: nothing that lies there is written over.
    before = {path: path.read_bytes() for path in (tmp_path / 'out').iterdir()}
    code, out, err = command('edit', '--run', trained, '--label', saved[0], '--inst', saved[1],
                             '--script', 'edits.json', '--last', '--out', 'out')
    assert code == 0, err
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list((tmp_path / 'out').iterdir())) == len(before) + 4


def test_styles_of_another_scene_are_refused(command, trained, scenes, tmp_path):
    label, inst = scene_of(scenes)
    (tmp_path / 'edits.json').write_text('[{"do": "paint", "label": "car", "brush": [[1, 1]]}]')
    command('edit', '--run', trained, '--label', label, '--inst', inst, '--script', 'edits.json',
            '--out', 'out')
    styles, = (tmp_path / 'out').glob('*styles.json')
    for path, message in ((styles, 'the styles of another scene or run'),
                          (label, 'cannot be read as JSON'), ('none.json', 'no such file')):
        code, _, err = command('generate', '--run', trained, '--label', label, '--inst', inst,
                               '--styles', path)
        assert code == 2 and message in err and err.count('\n') == 1


def test_script_stops_at_what_cannot_be_done(command, trained, scenes, tmp_path):
    label, inst = scene_of(scenes)
    script = tmp_path / 'edits.json'
    script.write_text(json.dumps([{'do': 'style', 'label': 'road', 'style': 0},
                                  {'do': 'remove', 'object': 12345},
                                  {'do': 'style', 'label': 'sky', 'style': 0}]))
    words = ['edit', '--run', trained, '--label', label, '--inst', inst, '--out', 'out',
             '--script', script]
    code, _, err = command(*words)
    assert code == 2 and err == (f'p2phd edit: {script}: edit 2 of 3: remove: 12345: no object of '
                                 'that number in the picture\n')
    assert len(list((tmp_path / 'out').iterdir())) == 1
    for text, message in (('{}', 'expected a list of edits'), ('[', 'cannot be read as JSON'),
                          ('[' * 100_000, 'cannot be read as JSON'), ('[[]]', 'edit 1 of 1')):
        script.write_text(text)
        code, _, err = command(*words)
        assert code == 2 and message in err and err.count('\n') == 1


def test_ids_beyond_sixteen_bits_are_numbered_anew(trained, scenes, tmp_path):
    label, _ = scene_of(scenes)
    inst = np.arange(64 * 32, dtype=np.int32).reshape(32, 64) // 500 * 100_000 - 7
    np.save(tmp_path / 'inst.npy', inst)
    run = runs.load_run(trained, CPU, False)
    known = run_styles.load_or_cluster_styles(run, trained)
    editor = saved_scenes.opened(run, known, label, tmp_path / 'inst.npy')
    assert np.unique(editor.state.inst).tolist() == [0, 1, 2, 3, 4]
    scene = scenes.read_scene(run.config, label, tmp_path / 'inst.npy')
    vectors = generate.choose_vectors(run, scene, known)
    assert torch.equal(editor.picture(), generate.synthesise(run, scene, vectors,
                                                              editor.opened.noise))


def test_recovery_file(run, tmp_path):
    editor = make_editor(run)
    do(editor, 'remove', object=26000)
    path = tmp_path / 'unsaved.npz'
    with open(path, 'wb') as file:
        saved_scenes.recovery_of(editor.state, 5)(file)
    state, noise = saved_scenes.recovered(path, run.config, editor.known)
    assert_same(state, editor.state)
    assert noise == 5
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(200):                                    # the same state, or one line
        broken = bytearray(whole[:rng.integers(len(whole))] if i % 2 else whole)
        if broken:
            broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            assert_same(saved_scenes.recovered(path, run.config, editor.known)[0], editor.state)
        except UserError as error:
            assert '\n' not in str(error) and str(path) in str(error)


def test_maps_of_other_layouts_are_read_back(tmp_path):
    """Whatever a layout's own maps are like: colours, pairs of bytes, another table of ids."""
    from app.datasets import pairs
    fields = {'n_labels': None, 'in_channels': 3, 'out_channels': 3, 'palette': None,
              'label_table': None, 'jpeg_labels': False, 'instances': 'files'}
    path = tmp_path / 'map.png'
    saved_scenes.write_map(path, np.array([[0, 3], [300, 9]], np.int32))
    for layout, more in (('ADE20K scene parsing', {}), ('ADE20K full', {'label_table': {7: 1}}),
                         ('flat', {'palette': [[1, 2, 3, 0, 'a']]}), ('NYU Depth v2', {})):
        reader = pairs.PairReader(SimpleNamespace(**{**fields, 'layout': layout, **more}))
        for ids in (reader.read_label(path)[0], reader.read_instances(path)):
            assert ids.tolist() == [[0, 3], [300, 9]]
    assert data.connected_components(reader.read_label(path)[0]).max() == 3
    large = saved_scenes.write_map(path, np.array([[0, 1 << 17]], np.int32))
    assert large.suffix == '.npy'
    reader = pairs.PairReader(SimpleNamespace(**{**fields, 'layout': 'ADE20K scene parsing'}))
    assert reader.read_instances(large).tolist() == [[0, 1 << 17]]
