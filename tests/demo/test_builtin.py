"""The built-in run: packing it, and commands that use it where there is no other."""
import json
import os
from pathlib import Path
import shutil

import numpy as np
from PIL import Image
import pytest
import torch

from app.common.errors import UserError
from app.demo import builtin, streets
from app.runs import folders, run_styles, runs
from benchmarks import paints

REAL = folders.BUILT_IN                     # before a fixture of conftest.py hides it
CPU = torch.device('cpu')


@pytest.fixture
def built_in(trained, p2phd):
    """The folder of a built-in run that was made of the smallest trained run. Nothing may change
    it: its folder is read-only, and its files are compared at the end."""
    p2phd('cluster', '--run', trained, '--k', 3)
    folder = folders.BUILT_IN
    builtin.pack(trained, folder)
    os.chmod(folder, 0o555)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    os.chmod(folder, 0o755)


def test_pack(built_in, trained, scenes, monkeypatch, tmp_path):
    """It holds the moving averages in float16 and the styles, and no path of a data set."""
    path, small = runs.read_run(built_in)
    _, whole = runs.read_run(trained)
    assert small['weights'].keys() == {'G', 'E'} and small['step'] == 6
    for name, state in whole['average'].items():
        for key, value in state.items():
            assert torch.equal(small['weights'][name][key], value.half())
    assert str(scenes).encode() not in path.read_bytes()
    n = sum(value.numel() for state in small['weights'].values() for value in state.values())
    assert path.stat().st_size < 2 * n + 30_000
    run = runs.load_run(built_in, CPU, training=False)
    assert {p.dtype for net in (run.G, run.E) for p in net.parameters()} == {torch.float32}
    styles = [run_styles.load_styles(folder, run.config) for folder in (trained, built_in)]
    assert all(np.array_equal(styles[0][name], styles[1][name]) for name in styles[0])

    monkeypatch.setattr(builtin, 'LARGEST', 2 * n - 1)
    with pytest.raises(UserError, match='MB in float16, and at most .* smaller networks'):
        builtin.pack(trained, tmp_path / 'packed')
    (trained / 'styles.npz').unlink()
    with pytest.raises(UserError, match='no styles of step 6; run python p2phd.py cluster'):
        builtin.pack(trained, tmp_path / 'packed')


def test_commands_without_a_run(built_in, command, tmp_path):
    """They take the built-in run, say so, and write into the current folder."""
    note = f'note: no trained run in runs/, so the built-in one is used: {built_in}\n'
    code, out, err = command('generate', '--sample', '--n', 2, '--seed', 5)
    assert (code, err) == (0, note), err
    names = [f'generated/street_seed5_{i}.png' for i in (1, 2)]
    assert out.splitlines() == names
    assert [Image.open(name).size for name in names] == [(64, 32)] * 2
    code, _, err = command('generate', '--seed', 5)
    assert code == 2 and '--seed 5: nothing is random here; add --sample' in err
    maps = ['--label', 'generated/street_labelIds.png', '--inst',
            'generated/street_instanceIds.png']
    scene = streets.draw_scene(builtin.SCENE, (64, 32), builtin.SCENE_SEED)
    for path, ids in zip(maps[1::2], (scene.label, scene.inst)):
        assert np.array_equal(np.array(Image.open(path)), ids)
    code, out, err = command('generate', *maps)             # the maps that it wrote
    assert code == 0 and out == 'generated/street_generated.png\n' and err == note
    code, out, err = command('generate', *maps, '--size', '128x64', '--out', 'large')
    assert code == 0 and Image.open('large/street_generated.png').size == (128, 64), err
    assert sorted(os.listdir('.')) == ['built-in', 'generated', 'large']

    Image.new('L', (64, 32), 7).save(maps[1])               # maps of a user stay
    code, out, err = command('generate')
    assert code == 2 and 'street_labelIds.png: is another map than that of the built-in' in err
    assert Image.open(maps[1]).getpixel((0, 0)) == 7
    shutil.rmtree('generated')

    Path('edits.json').write_text('[{"do": "style", "label": "car", "style": 1}]')
    code, out, err = command('edit', '--script', 'edits.json')
    assert (code, err) == (0, note) and 'edited/street-001.png' in out.splitlines()
    code, out, err = command('export', '--official', 'theirs')
    assert code == 0 and not Path('theirs/latest_net_D.pth').exists(), err
    code, out, err = command('info')
    text = ' '.join(out.split())
    assert (code, err) == (0, note) and 'step 6; only makes pictures' in text
    assert 'styles' in out and 'trained in' not in out
    code, out, err = command('info', '--json')
    facts = json.loads(out)
    assert not facts['official'] and facts['parameters'].keys() == {'G', 'E'}
    assert facts['styles']['instances'] > 6


def test_show(built_in, command):
    """The sheet holds the pictures that generate makes."""
    assert builtin.main(['show', 'sheet.png']) == 0
    code, _, err = command('generate', '--sample', '--n', 3)
    assert code == 0, err
    sheet = np.asarray(Image.open('sheet.png'))
    for i, part in enumerate((sheet[:32, 64:], sheet[32:, :64], sheet[32:, 64:]), 1):
        picture = Image.open(f'generated/street_seed0_{i}.png').convert('RGB')
        assert np.array_equal(part, picture), i


def test_export_without_a_run(built_in, command, monkeypatch):
    """It writes into the current folder. tests/runs/test_export.py looks at what PyTorch makes."""
    monkeypatch.setattr(torch.export, 'export', lambda *_, **__: b'a program')
    monkeypatch.setattr(torch.export, 'save', lambda program, file: file.write(program))
    code, out, err = command('export')
    assert code == 0 and out.startswith('exported.pt2: '), err
    assert Path('exported.pt2').read_bytes() == b'a program'


def test_errors(built_in, p2phd, command, scenes):
    """What the built-in run cannot do is said in one line."""
    Image.fromarray(np.full((32, 64), 40, 'uint8')).save('map.png')
    code, _, err = command('generate', '--label', 'map.png')
    assert code == 2 and err.splitlines()[1:] == [
        'p2phd generate: map.png: label 40 at x=0, y=0; this run has 35 labels (0 to 34). Fix the '
        'map, or train with --n-labels 41 in place of 35']
    for words in (['train', '--resume', built_in], ['finetune', '--from', built_in]):
        assert 'no discriminators to train with' in p2phd(*words, code=2)
    assert 'keeps its styles; copy' in p2phd('cluster', '--run', built_in, '--data', scenes, code=2)
    for flag in ('--inst', '--encode', '--styles'):
        assert f'{flag}: belongs to a label map' in p2phd('generate', flag, 'map.png', code=2)
    assert '--photo: belongs to a label map' in p2phd('edit', '--photo', 'map.png', code=2)
    for words in (['train', '--resume'], ['evaluate'], ['cluster']):        # they need another run
        assert 'no trained run there' in p2phd(*words, code=2)


def test_a_run_begins_with_its_weights_and_size(built_in, command, scenes):
    code, out, err = command('train', '--data', scenes, '--from', built_in, '--size', '32x32',
                             '--dry-run')
    assert code == 0 and f'size      32x32; {built_in} has 64x32' in out, err
    code, out, err = command('train', '--data', scenes, '--from', built_in, '--dry-run')
    assert code == 0 and ': 64x32, ' in out, err


def test_a_trained_run_comes_first(built_in, trained, command):
    os.makedirs('runs')
    os.symlink(trained, 'runs/street')
    Image.fromarray(np.zeros((32, 64), 'uint8')).save('map.png')
    code, out, err = command('generate', '--label', 'map.png')
    assert code == 0 and out == 'runs/street/generated/map_generated.png\n'
    assert 'built-in' not in err
    for name in ('generate', 'edit'):
        code, _, err = command(name)
        assert code == 2 and err == (
            f'p2phd {name}: --label is missing: name a label map for runs/street\n')


def test_evaluate_writes_nothing_into_it(built_in, command, scenes, brief_judge):
    code, _, err = command('evaluate', '--run', built_in, '--data', scenes)
    assert code == 0, err
    assert Path('evaluation/scores.json').exists() and list(Path().glob('judge*'))


def test_paints(trained, p2phd):
    """Cars that are drawn in the paint of their styles count, all others do not."""
    p2phd('cluster', '--run', trained, '--k', 3)
    run = runs.load_run(trained, CPU, training=False)
    clusters = run_styles.load_styles(trained, run.config)
    of_styles = paints.paint_of_styles(run, clusters, (64, 32), n_scenes=4)
    assert of_styles.shape == (3, len(streets.CAR_COLOURS)) and of_styles.sum() > 4
    counts = paints.compare(run, clusters, [0, 1, 2], (64, 32), n_scenes=3)
    assert counts.sum() > 3 and not counts[3:].any()


@pytest.mark.skipif(not folders.list_checkpoints(REAL), reason='no run is built in')
def test_the_built_in_run():
    """It is small, knows nothing of its training, and its cars have the paints of their styles."""
    assert sum(path.stat().st_size for path in REAL.iterdir()) <= 8_100_000
    run = runs.load_run(REAL, CPU, training=False)
    assert run.config.size == (512, 256) and not run.config.training
    clusters = run_styles.load_styles(REAL, run.config)
    of_styles = paints.paint_of_styles(run, clusters, run.config.size, n_scenes=8)
    assert of_styles.max(1).sum() >= 0.9 * of_styles.sum(), of_styles
    counts = paints.compare(run, clusters, of_styles.argmax(1), run.config.size, n_scenes=3)
    assert counts.trace() >= 0.8 * counts.sum(), counts
