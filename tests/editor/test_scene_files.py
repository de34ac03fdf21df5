"""Scenes that are opened, saved for `generate`, recovered, and edited by a script."""
import json
from pathlib import Path
import shutil
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
import torch

from app.common.errors import UserError
from app.datasets import layouts
from app.datasets.pairs import PairReader
from app.datasets.scenes import read_scene
from app.editor import scene_files
from app.runs import run_styles, runs
import data
import generate
from test_operations import CPU, assert_same, do, make_editor, run      # noqa: F401, a fixture


def first_scene(scenes):
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    return label, label.with_name(label.name.replace('labelIds', 'instanceIds'))


def test_generate_makes_the_same_picture_of_a_saved_scene(command, trained, scenes, tmp_path):
    """To the byte; the scene is edited by a script, and can be opened again."""
    label, inst = first_scene(scenes)
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
    assert sorted(path.name for path in (tmp_path / 'out').glob('[!.]*')) == sorted(
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
                           '--styles', saved[2], '--script', 'edits.json', '--final-only',
                           '--out', 'b')
    assert code == 0 and len(list((tmp_path / 'b').glob('[!.]*'))) == 4, err
    assert (tmp_path / 'b' / f'{stem}-001.png').read_bytes() == again.read_bytes()

    # Saving into the folder of the scene overwrites nothing.
    before = {path: path.read_bytes() for path in (tmp_path / 'out').glob('[!.]*')}
    code, out, err = command('edit', '--run', trained, '--label', saved[0], '--inst', saved[1],
                             '--script', 'edits.json', '--final-only', '--out', 'out')
    assert code == 0, err
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list((tmp_path / 'out').glob('[!.]*'))) == len(before) + 4


def test_styles_of_another_encoder_are_noticed(command, trained, scenes, tmp_path):
    label, inst = first_scene(scenes)
    (tmp_path / 'edits.json').write_text('[{"do": "style", "label": "road", "style": 0}]')
    shutil.copytree(trained, 'older')
    command('edit', '--run', 'older', '--label', label, '--inst', inst, '--script', 'edits.json',
            '--out', 'out')
    command('train', '--resume', 'older', '--steps', 9, '--device', 'cpu')
    styles, = (tmp_path / 'out').glob('*styles.json')
    for folder, is_other in ((trained, False), ('older', True)):
        code, _, err = command('generate', '--run', folder, '--label', label, '--inst', inst,
                               '--styles', styles)
        assert code == 0 and (f'{styles}: styles of another encoder' in err) == is_other, err


def test_styles_of_another_scene_are_refused(command, trained, scenes, tmp_path):
    label, inst = first_scene(scenes)
    (tmp_path / 'edits.json').write_text('[{"do": "paint", "label": "car", "brush": [[1, 1]]}]')
    command('edit', '--run', trained, '--label', label, '--inst', inst, '--script', 'edits.json',
            '--out', 'out')
    styles, = (tmp_path / 'out').glob('*styles.json')
    for path, message in ((styles, 'the styles of another scene or run'),
                          (label, 'cannot be read as JSON'), ('none.json', 'no such file'),
                          (tmp_path / 'edits.json', 'edits.json: not the styles of a scene; give '
                           'a NAME_styles.json of edit (')):
        code, _, err = command('generate', '--run', trained, '--label', label, '--inst', inst,
                               '--styles', path)
        assert code == 2 and message in err and err.count('\n') == 1


def test_a_script_stops_at_the_first_edit_that_fails(command, trained, scenes, tmp_path):
    label, inst = first_scene(scenes)
    script = tmp_path / 'edits.json'
    script.write_text(json.dumps([{'do': 'style', 'label': 'road', 'style': 0},
                                  {'do': 'remove', 'object': 12345},
                                  {'do': 'style', 'label': 'sky', 'style': 0}]))
    words = ['edit', '--run', trained, '--label', label, '--inst', inst, '--out', 'out',
             '--script', script]
    code, _, err = command(*words)
    ids = np.unique(Image.open(inst))[-3:].tolist()
    names = [layouts.CITYSCAPES[i // 1000 if i >= 1000 else i][0] for i in ids]
    known = ', '.join(f'{i} ({name})' for i, name in zip(ids, names))
    assert code == 2 and err == (f'p2phd edit: {script}: edit 2 of 3: remove: "object": 12345: '
                                 'expected the number of an object in the picture, as '
                                 f'{known}, or a point [x, y] on it\n')
    assert len(list((tmp_path / 'out').glob('[!.]*'))) == 1
    for text, message in (('{}', 'expected a list of edits'), ('[', 'cannot be read as JSON'),
                          ('[' * 100_000, 'cannot be read as JSON'), ('[[]]', 'edit 1 of 1')):
        script.write_text(text)
        code, _, err = command(*words)
        assert code == 2 and message in err and err.count('\n') == 1


def test_blank_scenes_and_folders(command, trained, scenes, tmp_path):
    """The edits of a blank scene can be repeated; a folder is for the page; saved scenes are whole.
    """
    Path('edits.json').write_text('[{"do": "paint", "label": "car", "rectangle": [2, 8, 20, 20]}]')
    words = ['edit', '--run', trained, '--script', 'edits.json', '--out', 'out', '--final-only']
    code, out, err = command(*words, '--blank', 'road')
    assert code == 0, err
    saved = sorted(path.name for path in (tmp_path / 'out').glob('[!.]*'))
    assert saved == [f'blank-001{ending}' for ending in (
        '.png', '_instanceIds.png', '_labelIds.png', '_styles.json')]
    label = np.asarray(Image.open(tmp_path / 'out' / 'blank-001_labelIds.png'))
    assert label.shape == (32, 64) and (label != 7).sum() == 19 * 13
    code, _, err = command(*words, '--blank', '7', '--size', '40x20')
    assert code == 0 and Image.open(tmp_path / 'out' / 'blank-002.png').size == (40, 20), err

    found = scene_files.find_scenes(tmp_path / 'out')
    assert [*found] == ['blank-001', 'blank-002']
    assert [path.name for path in found['blank-001'][:3]] == [
        'blank-001_labelIds.png', 'blank-001_instanceIds.png', 'blank-001_styles.json']
    trained_run, folder = runs.load_run(trained, CPU, False), scenes / 'gtFine' / 'val'
    listed = scene_files.SceneList(found, None, 0)
    clusters = run_styles.load_or_cluster_styles(trained_run, trained)
    whole = scene_files.open_listed(trained_run, clusters, listed, 'blank-001', 'a run')
    assert whole.state.inst.max() == 26000
    found = scene_files.find_scenes(folder, folder, None, scenes / 'leftImg8bit' / 'val')
    assert len(found) == 2 and all(
        files.inst.name == files.label.name.replace('labelIds', 'instanceIds')
        and files.photo.name.startswith(name) for name, files in found.items())

    for more, message in (
            (['--blank', 'raod'], '--blank "raod": expected a label from 0 to 34 or its name; did '
             'you mean road?'),
            (['--blank', 'road', '--label', folder], '--blank and --label: either of them is'),
            (['--blank', 'road', '--inst', folder], '--inst: belongs to a label map; leave it out'),
            (['--blank', 'road', '--port', 9], '--port: applies only to the page'),
            (['--label', folder], f'there are 2 label maps in {folder}; name one of them'),
            (['--label', folder, '--inst', tmp_path / 'out'], 'no file of the same name in'),
            (['--label', folder, '--styles', tmp_path / 'out' / 'blank-001_styles.json'],
             'describes one scene, but there are 2 label maps'),
            (['--label', tmp_path / 'none'], 'none: no such file')):
        code, _, err = command(*words, *more)
        assert code == 2 and message in err and err.count('\n') == 1, err

    (tmp_path / 'out' / 'blank-001_styles.json').unlink()
    shutil.copy(tmp_path / 'out' / 'blank-001.png', tmp_path / 'out' / 'blank-001_002.png')
    label, inst, styles, photo = scene_files.find_scenes(tmp_path / 'out')['blank-001']
    assert [*scene_files.find_scenes(tmp_path / 'out')] == ['blank-001', 'blank-002']
    assert inst.name == 'blank-001_instanceIds.png' and not styles
    without = scene_files.find_scenes(tmp_path / 'out', instances=False)
    assert not without['blank-001'].inst


def test_refused_scripts_leave_no_folder(command, trained, scenes, tmp_path):
    label, inst = first_scene(scenes)
    Path('edits.json').write_text('[{"do": "remove", "object": 12345}]')
    for flags in ((), ('--final-only',)):
        code, _, _ = command('edit', '--run', trained, '--label', label, '--inst', inst, '--out',
                             'out', '--script', 'edits.json', *flags)
        assert code == 2 and not Path('out').exists()


def test_warnings_as_those_of_generate(command, trained, scenes, tmp_path):
    """A map much larger than those of the training, and a label that these do not have."""
    label, inst = first_scene(scenes)
    Path('edits.json').write_text('[{"do": "relabel", "object": [3, 20], "label": "bus"}]')
    code, _, err = command('edit', '--run', trained, '--label', label, '--inst', inst, '--out',
                           'out', '--script', 'edits.json', '--size', '128x64')
    assert code == 0, err
    assert f'{label} is read at 128x64, {trained} was trained at 64x32; use --size' in err
    assert 'warning: no styles for bus, which the training data lacks; they get the mean' in err


@pytest.mark.parametrize('name', ['generate', 'edit'])
def test_instance_maps_of_other_scenes(command, trained, scenes, tmp_path, name):
    """One of another size is refused, one whose instances cross labels brings a warning."""
    label, inst = first_scene(scenes)
    Path('edits.json').write_text('[{"do": "remove", "object": [3, 20]}]')
    script = ('--script', 'edits.json', '--final-only') if name == 'edit' else ()

    def outcome(other):
        return command(name, '--run', trained, '--label', label, '--inst', other, *script)

    large = tmp_path / 'large.png'
    Image.open(inst).resize((128, 64), Image.Resampling.NEAREST).save(large)
    code, _, err = outcome(large)
    assert code == 2 and err.count('\n') == 1
    assert f'{large} is 128x64 and {label} is 64x32: not the instance map of that label map' in err
    code, _, err = outcome(inst)
    assert code == 0 and 'instance map' not in err, err
    other = tmp_path / 'other.png'
    Image.open(inst).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(other)
    code, _, err = outcome(other)
    assert code == 0 and 'is it the instance map of another scene?' in err, err


def test_ids_of_more_than_16_bits_are_replaced(trained, scenes, tmp_path):
    label, _ = first_scene(scenes)
    inst = np.arange(64 * 32, dtype=np.int32).reshape(32, 64) // 500 * 100_000 - 7
    np.save(tmp_path / 'inst.npy', inst)
    trained_run = runs.load_run(trained, CPU, False)
    clusters = run_styles.load_or_cluster_styles(trained_run, trained)
    editor = scene_files.open_scene(trained_run, clusters, label, tmp_path / 'inst.npy')
    assert np.unique(editor.state.inst).tolist() == [0, 1, 2, 3, 4]
    scene = read_scene(trained_run.config, label, tmp_path / 'inst.npy')
    vectors = generate.scene_styles(trained_run, scene, clusters)
    assert torch.equal(generate.synthesise(trained_run, *editor.inputs()),
                       generate.synthesise(trained_run, scene, vectors, editor.opened.noise))


def test_damaged_recovery_files(run, tmp_path):                  # noqa: F811
    editor = make_editor(run, noise=5)
    do(editor, 'remove', object=26000)
    path = tmp_path / 'unsaved.npz'
    scene_files.write_recovery(path, editor.state, 5, editor.edits_since_opened(), name='a scene',
                               edits=1, version=2)
    state, noise, session = scene_files.read_recovery(path, editor)
    assert_same(state, editor.state)
    assert noise == 5 and session == [{'do': 'remove', 'object': 26000}]
    about = scene_files.read_about(path)
    assert about.pop('time') > 0 and about == {
        'file': 'unsaved.npz', 'name': 'a scene', 'saved': False, 'edits': 1, 'version': 2,
        'opened': None, 'source': None}
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(200):                # either the same state or an error in one line
        broken = bytearray(whole[:rng.integers(len(whole))] if i % 2 else whole)
        if broken:
            broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        assert scene_files.read_about(path)['name'] in ('a scene', 'unsaved')
        try:
            state, *_ = scene_files.read_recovery(path, editor)
            assert_same(state, editor.state)
        except UserError as error:
            assert '\n' not in str(error) and str(path) in str(error)


def pair_reader(layout, **fields):
    """A reader of that layout's maps, of any labels."""
    return PairReader(SimpleNamespace(**{
        'layout': layout, 'n_labels': None, 'in_channels': 3, 'out_channels': 3, 'palette': None,
        'label_table': None, 'jpeg_labels': False, 'instances': 'files', **fields}))


def test_every_layout_reads_saved_maps(tmp_path):
    """Although its own maps are colours, pairs of bytes or ids of a table."""
    def write(ids):
        suffix, content = scene_files.encode_map(np.array(ids, np.int32))
        path = tmp_path / f'map{suffix}'
        path.write_bytes(content)
        return path

    path = write([[0, 3], [300, 9]])
    for layout, more in (('ADE20K scene parsing', {}), ('ADE20K full', {'label_table': {7: 1}}),
                         ('flat', {'palette': [[1, 2, 3, 0, 'a']]}), ('NYU Depth v2', {})):
        reader = pair_reader(layout, **more)
        label, inst = reader.read_label(path)[0], reader.read_instances(path)
        assert label.tolist() == inst.tolist() == [[0, 3], [300, 9]]
    assert data.connected_components(label).max() == 3
    large = write([[0, 1 << 17]])
    assert large.suffix == '.npy'
    assert pair_reader('ADE20K scene parsing').read_instances(large).tolist() == [[0, 1 << 17]]
