"""What surrounds a run: its page, the gallery, what a terminal shows, presets, info, export, and
systems that lack what Linux has."""
from importlib import import_module
import json
import multiprocessing
import os
from pathlib import Path
import pty
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import make_run
from app.runs import checkpoints
from app.common import config
from conftest import ROOT, TINY
import data
from app.runs import devices
from app.runs import export
from app.common import console, files
import nets
from app.cli import command_line
from app.runs import report
from app.runs import runs
import styles
import generate
import train

CPU = torch.device('cpu')
SMALL = {'ngf': 8, 'n_down': 2, 'n_blocks': 1, 'ndf': 8, 'nef': 4, 'n_down_encoder': 2}


# ------------------------------------------------------------------------------------- pages

def test_page_of_a_run(trained, tmp_path):
    """With 5,000 rows and 100 sheets it stays small, and shows what there is."""
    folder = tmp_path / 'run'
    shutil.copytree(trained, folder)
    step = np.arange(50, 250_001, 50)
    rng = np.random.default_rng(0)
    rows = np.stack([step, step, 2e-4 + 0 * step, *rng.random((4, len(step))), -1 - 0 * step,
                     1 + step / 1000, 0 * step], 1)
    (folder / 'log.csv').write_text(
        'step,pictures,lr,gan,feature_matching,d_fake,d_real,map_min,map_max,skipped\n'
        + '\n'.join(','.join(f'{x:g}' if i else str(int(x)) for i, x in enumerate(row))
                    for row in rows.tolist()) + '\n250050,25')      # killed in mid-line
    (folder / 'scores.csv').write_text('step,mean_iou\n100,0.25\n200,0.375\n')
    for i in range(100):
        (folder / 'samples' / f'{i:07d}.png').write_bytes(b'')
    c = runs.read_run(folder)[1]['config']
    run_styles.load_or_cluster_styles(runs.load_run(folder, CPU, False), folder)
    c.training.fix_global_steps = 100
    report.write_run_page(folder, c)
    text = (folder / 'index.html').read_text()
    assert len(text) < 200_000 and not re.search(r'https?://', text)
    assert 'step 250000 of 6' in text and text.count('<svg') >= 10
    assert '0000099.png' in text and 'all of the generator learns, step 100' in text
    assert 'its peak grows' in text and '<td>0.375</td>' in text
    assert '<tr class=own><th>ngf</th><td>8</td><td class="help">' in text
    names = config.NETWORK['ngf'], c.label_names[7]
    assert f'<th>{names[1]}</th>' in text                   # its styles
    (folder / 'evaluation').mkdir()
    for broken in ('', '[]', '{"protocol": "", "rows": [{}]}',
                   '{"protocol": "", "rows": [{"name": "a", "l1": ""}]}',
                   '{"protocol": "", "rows": [{"name": "a", "l1": 1%s}]}' % ('0' * 400),
                   '{"protocol": "", "rows": [{"name": "a", "iou": 1}]}'):
        (folder / 'evaluation' / 'scores.json').write_text(broken)
        assert report.evaluation_in(folder) is None
    stored = (folder / 'styles.npz').read_bytes()
    for path in folder.glob('styles-*.npz'):                # made by other tests
        path.unlink()
    for broken in (b'', stored[:300]):
        (folder / 'styles.npz').write_bytes(broken)
        assert report.styles_in(folder, c) == []
    for broken in ('', 'step\n', 'step,gan\nx,y\n', 'a,b\n1,2\n'):
        (folder / 'log.csv').write_text(broken)
        report.write_run_page(folder, c)
    assert (folder / 'index.html').read_text().count('<svg') >= 1


def test_page_is_made_while_training_and_opens(trained):
    text = (trained / 'index.html').read_text()
    assert 'step 6 of 6' in text and 'steps a second' in text
    assert (trained / 'speed.csv').read_text().count('\n') == 4


def test_gallery(command, trained, scenes, tmp_path):
    code, _, err = command('generate', '--run', trained, '--label', scenes / 'gtFine' / 'val',
                           '--sample', '--n', 2, '--out', 'out')
    assert code == 0, err
    text = (tmp_path / 'out' / 'index.html').read_text()
    pictures = re.findall(r'<a href="([^"]*)">', text)
    assert len(pictures) == 4 and all((tmp_path / 'out' / name).is_file() for name in pictures)
    assert text.count('data:image/png') == 2
    code, _, _ = command('generate', '--run', trained, '--label',
                         next((scenes / 'gtFine' / 'val').rglob('*labelIds.png')), '--out', 'one')
    assert code == 0 and not (tmp_path / 'one' / 'index.html').exists()
    page = (trained / 'index.html').read_bytes()            # which no gallery replaces
    code, _, err = command('generate', '--run', trained, '--label', scenes / 'gtFine' / 'val',
                           '--out', trained)
    assert code == 0 and 'is the folder of a run, whose page stays' in err
    assert (trained / 'index.html').read_bytes() == page


def test_pages_of_odd_names(tmp_path):
    folder = tmp_path / 'BODY'
    folder.mkdir()
    odd = os.fsdecode(b'caf\xe9')
    report.write_gallery(folder, [('TITLE', '', ['a&b.png', odd])])
    text = (folder / 'index.html').read_text()
    assert '<title>BODY</title>' in text and '<h3>TITLE</h3>' in text
    assert 'src="a%26b.png"' in text and 'src="caf%E9"' in text


# ---------------------------------------------------------------------------------- terminals

def in_terminal(words, folder, **environment):
    """What a command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, ROOT / 'p2phd.py', *map(str, words)], cwd=folder,
                               stdout=theirs, stderr=theirs,
                               env={**os.environ, 'TERM': 'xterm', **environment})
    os.close(theirs)
    text = b''
    try:
        while part := os.read(ours, 4096):
            text += part
    except OSError:                                         # it has ended
        pass
    os.close(ours)
    assert process.wait() == 0
    return text.decode()


def test_live_line(scenes, tmp_path):
    words = ['train', '--data', scenes, *TINY, '--steps', 40, '--log-every', 20, '--device', 'cpu']
    text = in_terminal([*words, '--run', 'a'], tmp_path)
    assert re.search(r'\r\x1b\[2Kstep \d+/40, epoch [\d.]+, \d+ s left, [\d.]+ steps/s', text)
    lines = [line.split('\x1b[2K')[-1] for line in text.split('\r\n')]
    assert any(line.startswith('step 40/40  epoch') for line in lines)      # whole, above it
    assert '\x1b' not in in_terminal([*words, '--run', 'b'], tmp_path, TERM='dumb')
    assert in_terminal([*words, '--run', 'c', '-q'], tmp_path) == ''


def test_progress(monkeypatch, capsys):
    """Nothing within two seconds; then a line every ten."""
    now = [0.0]
    monkeypatch.setattr(files.time, 'monotonic', lambda: now[0])
    progress = console.Progress('pictures', 100)
    for i in range(1, 101):
        now[0] += 0.5
        progress(i)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'pictures: 21 of 100, 40 s left' and len(lines) == 4


# ------------------------------------------------------------------------------- settings

@pytest.mark.parametrize('name', config.PRESETS)
def test_presets(name):
    """Each is a configuration that can be: its generator on tensors without numbers."""
    args = command_line.parse(['train', '--data', 'x', '--preset', name, '--lr', '1e-4'], '')
    fields = config.PRESETS[name].fields
    assert all(getattr(args, key) == value for key, value in fields.items()
               if key != 'fix_global')                      # a flag of finetune
    network = {key: value for key, value in fields.items() if key in config.NETWORK}
    c = config.make_config({'n_labels': 35, 'instances': 'files', 'features': True, 'n_enhancers': 0,
                     **network}, {'data': '.', 'pictures': [1, 0], 'total_steps': 10,
                                  'decay_start': 10,
                                  **{key: value for key, value in fields.items()
                                     if key in config.TRAINING}})
    config.check_config(c)
    w, h = c.training.crop or c.size
    with torch.device('meta'):
        if c.model == 'local':
            G = nets.LocalEnhancer(39, 3, c.ngf, c.n_down, c.n_blocks, c.n_enhancers)
        else:
            G = nets.GlobalGenerator(39, 3, c.ngf, c.n_down, c.n_blocks)
        assert G(torch.empty(1, 39, h, w)).shape == (1, 3, h, w)
    assert command_line.parse(['train', '--data', 'x', '--preset', name, '--size', '64x32'],
                         '').size == (64, 32)


def test_dry_run_and_hours(command, scenes, tmp_path):
    words = ['train', '--data', scenes, *TINY, '--device', 'cpu']
    code, out, err = command(*words, '--steps', 7, '--dry-run')
    assert code == 0, err
    for line in ('7 steps of 1 on cpu in fp32', 'pictures  6 to train on, 2 others', 'schedule ',
                 'a checkpoint of', 'memory: about', 's a step'):
        assert line in out, out
    assert not list(tmp_path.iterdir())                     # nothing is written
    code, out, err = command(*words, '--preset', 'city512', '--steps', 1, '--dry-run')
    assert code == 0 and ('--preset city512:; flags beside it win over its --size, --n-scales\n'
                          in out), err
    for more in ('city1024-12g --model unet', 'city2048 --model pix2pix --n-down 5',
                 'faces --no-features', 'faces --model pix2pix'):
        code, out, err = command('train', '--data', scenes, '--size', '64x32', '--steps', 1,
                                 '--preset', *more.split(), '--dry-run', '--ngf', 4, '--ndf', 4)
        assert code == 0 and 's a step' in out, err
    code, out, err = command(*words, '--hours', 0.0005, '--cache', 'kept', '--dry-run')
    assert code == 0 and not list(tmp_path.iterdir()), err
    code, out, err = command(*words, '--hours', 0.0005, '--run', 'run')
    assert code == 0, err
    steps = int(re.search(r'--hours 0.0005: (\d+) steps', out)[1])
    assert runs.read_run(tmp_path / 'run')[1]['step'] == steps
    code, out, err = command(*words, '--steps', 1, '--dry-run')
    assert code == 0 and ' 0 s a step' not in out, err
    code, out, err = command(*words, '--epochs', 1, '--decay-epochs', 0, '--batch', 6, '--hours',
                             0.0001, '--run', 'short')
    assert code == 0, err
    code, _, err = command(*words, '--hours', 1, '--steps', 5)
    assert code == 2 and '--hours 1 and --steps 5' in err
    code, _, err = command('train', '--resume', 'run', '--hours', 1)
    assert code == 2 and 'of a new run' in err


def test_dry_run_beside_a_run_and_what_a_resumed_run_refuses(command, scenes, trained):
    words = ['train', '--data', scenes, *TINY, '--device', 'cpu']
    code, out, err = command(*words, '--run', trained, '--steps', 1, '--dry-run')
    assert code == 0 and 's a step' in out, err
    code, _, err = command(*words, '--run', trained, '--steps', 1)
    assert code == 2 and 'holds a trained run already' in err
    code, _, err = command('finetune', '--resume', trained, '--n-labels', 5)
    assert code == 2 and '--n-labels: of a new run' in err
    code, _, err = command('train', '--resume', trained, '--preset', 'small')
    assert code == 2 and '--preset' in err and err.count('\n') == 1


def test_memory_that_is_not_there(command, scenes, monkeypatch):
    """Steps that would not fit are not tried."""
    monkeypatch.setattr(devices, 'free_memory', lambda device: 1 << 20)
    code, out, err = command('train', '--data', scenes, *TINY, '--steps', 7, '--dry-run')
    assert code == 0 and 'GiB free; --precision bf16' in err and 's a step' not in out


def test_quiet_says_what_was_asked_for(command, trained, tmp_path):
    code, out, _ = command('info', trained, '-q')
    assert code == 0 and 'step 6 of 6' in out
    code, _, err = command('-q', 'info', trained)
    assert code == 2 and 'behind info it is known' in err
    (tmp_path / 'own' / 'train_label').mkdir(parents=True)
    (tmp_path / 'own' / 'train_img').mkdir()
    Image.new('L', (32, 32)).save(tmp_path / 'own' / 'train_label' / 'a.png')
    code, out, err = command('check', '--data', 'own', '-q')
    assert code == 2 and 'a.png: no photograph of the same name' in out + err


def test_tensorboard(command, scenes, monkeypatch):
    """Every row of the log goes there; without the package, nothing begins."""
    words = ['train', '--data', scenes, *TINY, '--steps', 2, '--log-every', 1, '--tensorboard',
             '--run', 'run']
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    code, _, err = command(*words)
    assert code == 2 and 'pip install tensorboard' in err and err.count('\n') == 1
    assert not Path('run').exists()

    class Writer:
        folders, rows = [], []

        def __init__(self, folder):
            self.folders.append(folder)

        def add_scalar(self, name, value, step):
            self.rows.append((name, step))

    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', SimpleNamespace(
        SummaryWriter=Writer))
    code, _, err = command(*words)
    assert code == 0, err
    assert Writer.folders == [Path('run/tensorboard')]
    assert {('gan', 1), ('gan', 2), ('d_real', 2), ('map_max', 2)} <= set(Writer.rows)


@pytest.mark.parametrize('words, meant', [
    (['trian'], 'train'), (['train', '--n-scale', '2'], '--n-scales'),
    (['train', '--gan', 'lsgun'], 'lsgan'), (['generate', '--label', 'x', '--sampel'], '--sample')])
def test_what_may_have_been_meant(command, words, meant):
    code, _, err = command(*words)
    assert code == 2 and f'did you mean {meant}?' in err and err.count('\n') == 1


def test_labels_and_runs_that_may_have_been_meant(command, trained, scenes):
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    shutil.copytree(trained, 'runs/cityscapes')
    for words, meant in (
            (['generate', '--label', label, '--run', 'citiscapes'], 'runs/cityscapes'),
            (['info', 'runs/cityscape'], 'runs/cityscapes'),
            (['finetune', '--from', 'runs/cityscpaes'], 'runs/cityscapes'),
            (['generate', '--label', label, '--style', 'cra=1'], 'car'),
            (['evaluate', '--void', 'bulding'], 'building')):
        code, _, err = command(*words)
        assert code == 2 and f'did you mean {meant}?' in err and err.count('\n') == 1, err
    Path('edits.json').write_text('[{"do": "style", "label": "rode", "style": 0}]')
    code, _, err = command('edit', '--label', label, '--script', 'edits.json')
    assert code == 2 and 'did you mean road?' in err


def test_version_and_completion(command):
    code, out, _ = command('--version')
    assert code == 0 and re.fullmatch(r'p2phd \d+\.\d+\.\d+\n', out)
    for shell in ('bash', 'zsh', 'fish'):
        code, out, _ = command('completion', shell)
        assert code == 0 and 'n-scales' in out and 'lsgan' in out
        if shutil.which(shell) and shell != 'fish':
            done = subprocess.run([shell, '-n'], input=out, text=True, capture_output=True)
            assert done.returncode == 0, done.stderr
    code, out, _ = command('completion', 'bash')
    asked = out + '\nCOMP_WORDS=(p2phd.py train --gan ""); COMP_CWORD=3; _p2phd; ' \
                  'echo "${COMPREPLY[@]}"'
    done = subprocess.run(['bash', '-c', asked], text=True, capture_output=True)
    assert done.stdout == 'lsgan vanilla hinge\n'


def test_the_newest_run_is_resumed(trained, tmp_path, monkeypatch):
    (tmp_path / 'street').mkdir()
    monkeypatch.chdir(tmp_path / 'street')                  # called as one of the runs in it
    for name in ('street', 'newer'):
        shutil.copytree(trained, Path('runs') / name)
        for path in Path('runs', name).glob('checkpoint-*'):
            os.utime(path)
    assert runs.resumed_folder('', None, None) == Path('runs/newer')
    assert runs.resumed_folder('', None, 'somewhere/street') == Path('runs/street')


def test_info(command, trained, golden, tmp_path):
    code, out, _ = command('info', trained)
    assert code == 0 and 'step 6 of 6' in out and 'checkpoint-0000006.pt: whole' in out
    code, out, _ = command('info', trained, '--json')
    found = json.loads(out)
    assert found['step'] == 6 and found['parameters'].keys() == {'G', 'D', 'E'}
    code, out, _ = command('info', next(trained.glob('checkpoint-*.pt')))
    assert code == 0 and 'step ' in out

    shutil.copytree(trained, tmp_path / 'damaged')
    newest = checkpoints.list_checkpoints(tmp_path / 'damaged')[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    code, out, err = command('info', 'damaged')
    if len(checkpoints.list_checkpoints(tmp_path / 'damaged')) > 1:
        assert code == 0 and f'{newest.name}: damaged' in out and 'going back to' in err
    code, _, err = command('info', newest)
    assert code == 2 and 'damaged or cut short' in err
    (tmp_path / 'empty').mkdir()
    code, _, err = command('info', 'empty')
    assert code == 2 and 'no checkpoint there' in err and err.count('\n') == 1
    code, out, _ = command('info', golden('official_run'))
    assert code == 0 and 'a run of the official code' in out
    assert 'from' not in out.split('styles')[1]


# ---------------------------------------------------------------------------------- export

STRANGERS = {                                               # programs that have nothing of this one
    'pt2': """
import numpy, torch
maps = numpy.load('maps.npz')
program = torch.export.load('run.pt2').module()
picture = program(*(torch.from_numpy(maps[name]) for name in ('label', 'inst', 'style'))).numpy()
numpy.save('picture.npy', picture)
""",
    'onnx': """
import numpy, onnxruntime
from app.runs import run_styles
from app.runs import pictures
maps = numpy.load('maps.npz')
session = onnxruntime.InferenceSession('run.onnx')
told = {one.name: maps[one.name] for one in session.get_inputs()}
numpy.save('picture.npy', session.run(None, told)[0])
"""}


@pytest.mark.parametrize('kind', STRANGERS)
@pytest.mark.parametrize('network', [
    {}, {'model': 'local', 'n_enhancers': 1}, {'features': False},
    {'model': 'local', 'n_enhancers': 1, 'up': 'bilinear', 'features_of': 'label'},
    {'features': False, 'instances': 'none'}])
def test_exported_program_makes_the_picture(kind, network, tmp_path):
    """In a process that has no part of this project, at another size too."""
    if kind == 'onnx':
        for package in ('onnx', 'onnxscript', 'onnxruntime'):
            pytest.importorskip(package)
    run = make_run(CPU, **SMALL, **network)
    known = {'centres': torch.randn(35, 3, 3).numpy(), 'counts': np.full((35, 3), 2),
             'mean': np.zeros(3, np.float32)} if run.E else None
    assert export.export_program(run, known, kind, (64, 32), tmp_path / f'run.{kind}')
    rng = np.random.default_rng(0)
    for h, w in (32, 64), (48, 96):
        label, style = (rng.integers(0, most, (h // 8, w // 8)).repeat(8, 0).repeat(8, 1)
                        for most in (35, 3))
        inst = np.arange(h * w // 64).reshape(h // 8, w // 8).repeat(8, 0).repeat(8, 1)
        if run.config.features_of == 'label':
            style = label % 3
        np.savez(tmp_path / 'maps.npz', label=label, inst=inst, style=style)
        subprocess.run([sys.executable, '-c', STRANGERS[kind]], cwd=tmp_path, check=True,
                       env={**os.environ, 'PYTHONPATH': ''})
        told = [torch.from_numpy(x)[None, None] for x in (label, inst)]
        scene = generate.make_scene(run.config, told[0], told[1] if run.config.instances != 'none'
                                     else None)
        vectors = None
        if run.E:
            ids = label if run.config.features_of == 'label' else inst
            numbers = torch.from_numpy(style.ravel()[np.unique(ids, return_index=True)[1]])
            vectors = torch.from_numpy(known['centres'])[scene.labels, numbers]
        expected = pictures.to_uint8_hwc(generate.synthesise(run, scene, vectors))
        made = np.load(tmp_path / 'picture.npy')
        assert made.shape == expected.shape and made.dtype == np.uint8
        assert np.abs(made.astype(int) - expected).max() <= 1


def test_exported_program_takes_the_ids_of_the_data_set(tmp_path):
    run = make_run(CPU, **SMALL, features=False, label_table={0: 1, 7: 2, 255: 34})
    label = torch.tensor([0, 7, 255, 7]).repeat_interleave(16)[None].expand(32, 64).contiguous()
    told = torch.tensor([1, 2, 34, 2]).repeat_interleave(16)[None].expand(32, 64).contiguous()
    with torch.no_grad():
        made = export.ExportedGenerator(run, None)(label, label, label)
    scene = generate.make_scene(run.config, told[None, None], label[None, None])
    expected = pictures.to_uint8_hwc(generate.synthesise(run, scene))
    assert np.abs(made.numpy().astype(int) - expected).max() <= 1


def test_exported_weights_are_those_asked_for(command, trained, tmp_path):
    shutil.copytree(trained, 'run')
    shutil.copy(checkpoints.list_checkpoints('run')[-1], 'run/best.pt')
    for more in ((), ('--checkpoint', 'best')):
        states = []
        for i, average in enumerate(('--average', '--no-average')):
            code, _, err = command('export', '--run', 'run', '--official', f'out{i}', average,
                                   *more)
            assert code == 0, err
            states.append(torch.load(f'out{i}/latest_net_G.pth'))
        assert not all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize('more', [{}, {'model': 'local', 'n_enhancers': 1}])
def test_grey_pictures_to_the_official_code_and_back(tmp_path, more):
    run = make_run(CPU, **SMALL, **more, out_channels=1)
    export.export_official(tmp_path, run, run.D.state_dict(), None, tmp_path / 'there')
    back = runs.load_run(tmp_path / 'there', CPU, False)
    assert back.config.out_channels == 1
    a, b = run.G.state_dict(), back.G.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_export_says_what_is_missing(command, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    code, _, err = command('export', '--run', trained, '--format', 'onnx', '--out', 'run.onnx')
    assert code == 2 and 'pip install onnx onnxscript' in err and err.count('\n') == 1


def test_export_to_the_official_code_and_back(command, trained, scenes, tmp_path):
    for more in (('--format', 'onnx'), ('--size', '7x7'), ('--out', 'x')):
        code, _, err = command('export', '--run', trained, '--official', 'there', *more)
        assert code == 2 and f'--official and {more[0]}' in err
    code, _, err = command('export', '--run', trained, '--official', trained)
    assert code == 2 and 'holds a run of this program' in err
    code, out, err = command('export', '--run', trained, '--official', 'there')
    assert code == 0, err
    assert {path.name for path in (tmp_path / 'there').iterdir()} == {
        'opt.txt', 'latest_net_G.pth', 'latest_net_D.pth', 'latest_net_E.pth',
        next((tmp_path / 'there').glob('features_clustered_0??.npy')).name}
    ours, back = (runs.load_run(folder, CPU, False) for folder in (trained, tmp_path / 'there'))
    for name in 'GE':
        a, b = (getattr(run, name).state_dict() for run in (ours, back))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    known, again = (run_styles.load_or_cluster_styles(run, folder)
                    for run, folder in ((ours, trained), (back, tmp_path / 'there')))
    for label in range(35):
        assert np.array_equal(known['centres'][label][known['counts'][label] > 0],
                              again['centres'][label][again['counts'][label] > 0])
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    for folder, run in (('a', trained), ('b', tmp_path / 'there')):
        command('generate', '--run', run, '--label', label, '--out', folder)
    a, b = (np.asarray(Image.open(next((tmp_path / name).glob('*.png')))) for name in 'ab')
    assert np.array_equal(a, b)


@pytest.mark.parametrize('network, channels, said', [
    ({'n_labels': 19}, 20, '--n-labels 19'), ({'n_labels': 35}, 36, ''),
    ({'n_labels': 19, 'boundary': False}, 19, '--n-labels 19'),
    ({'n_labels': 36, 'boundary': False}, 36, '--n-labels 36'),
    ({'n_labels': 0, 'instances': 'none'}, 3, ''), ({'n_labels': 2}, 3, '--n-labels 2')])
def test_what_channels_of_an_official_run_mean(command, network, channels, said, tmp_path):
    """opt.txt tells, or --n-labels; of neither, the two sets of the official scripts."""
    run = make_run(CPU, **{**SMALL, 'features': False, **network})
    export.export_official(tmp_path, run, run.D.state_dict(), None, tmp_path / 'run')
    wanted = run.config.n_labels, runs.has_boundary(run.config)

    def read(n_labels=None):
        c = runs.read_run(tmp_path / 'run', n_labels=n_labels)[1]['config']
        return c.n_labels, runs.has_boundary(c)

    assert read() == wanted
    (tmp_path / 'run' / 'opt.txt').unlink()
    assert read(run.config.n_labels) == wanted
    code, out, err = command('info', 'run', *said.split())
    assert code == 0 and f'{wanted[0]} labels' in out if wanted[0] else 'A to B' in out
    code, out, err = command('info', 'run')
    if channels in (3, 36):
        assert code == 0, err
    else:
        assert code == 2 and err.count('\n') == 1
        for n in (channels, channels - 1):
            assert f'--n-labels {n}' in err
    code, out, err = command('info', 'run', '--n-labels', 1000)
    assert code == 2 and f'not 1000 labels: {channels} labels' in err


# ------------------------------------------------------------------------------ other systems

def test_without_fork_pictures_are_loaded_in_the_trainer(command, scenes, monkeypatch):
    """As on Windows, and on macOS, where forking is not safe."""
    monkeypatch.setattr(multiprocessing, 'get_all_start_methods', lambda: ['spawn'])
    monkeypatch.setattr(data.multiprocessing, 'get_all_start_methods', lambda: ['spawn'])
    monkeypatch.setattr(files, 'fcntl', None)
    monkeypatch.setattr(data, 'IN_MEMORY_BYTES', 0)
    monkeypatch.delattr('signal.SIGHUP')
    real, workers = torch.utils.data.DataLoader, []
    monkeypatch.setattr(torch.utils.data, 'DataLoader', lambda *args, num_workers, **more: (
        workers.append(num_workers), real(*args, num_workers=num_workers, **more))[1])
    code, out, err = command('train', '--data', scenes, *TINY, '--steps', 2, '--workers', 2,
                             '--device', 'cpu', '--run', 'run')
    assert code == 0, err
    assert workers and not any(workers)


def test_memory_is_kept_where_there_is_mallopt(monkeypatch):
    def no_name(name):                                      # as on Windows
        raise TypeError("argument of type 'NoneType' is not iterable")
    monkeypatch.setattr(devices.ctypes, 'CDLL', no_name)
    devices.keep_memory()


def test_instance_means_without_float64(monkeypatch):
    """On MPS, which has none, they are computed on the CPU."""
    calls = []
    monkeypatch.setattr(nets, 'lacks_float64', lambda device: calls.append(device) or (
        len(calls) == 1))
    features, inst = torch.randn(1, 2, 8, 8), torch.arange(64).view(1, 1, 8, 8) // 20
    means = nets.instance_mean(features, inst)
    assert calls
    for i in range(4):
        assert torch.allclose(means[0, :, inst[0, 0] == i].mean(1),
                              features[0, :, inst[0, 0] == i].mean(1), atol=1e-6)


def test_no_float64_but_where_it_is_kept_from_the_device(monkeypatch):
    """What MPS would compute of a step, of a picture and of clustering makes no tensor of it."""
    class Watch(TorchDispatchMode):
        allowed, seen = False, []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if not self.allowed and isinstance(made, torch.Tensor) and made.dtype == torch.float64:
                self.seen.append(str(function))
            return made

    def allow(function):                                    # on the CPU there
        def called(*args, **kwargs):
            Watch.allowed = True
            try:
                return function(*args, **kwargs)
            finally:
                Watch.allowed = False
        return called

    monkeypatch.setattr(nets, 'mean_of_runs', allow(nets.mean_of_runs))
    monkeypatch.setattr(styles, 'kmeans', allow(styles.kmeans))
    run = make_run(CPU, **SMALL)
    label = torch.randint(0, 35, (1, 1, 32, 32)).to(torch.uint8)
    inst, image = label.int(), torch.rand(1, 3, 32, 32) * 2 - 1
    item = {'label': label[0], 'inst': inst[0], 'image': (image[0] * 127 + 128).to(torch.uint8)}
    monkeypatch.setattr(data, 'batches', lambda *args, **more: iter(
        [{role: tensor[None] for role, tensor in item.items()}]))
    with Watch():
        train.train_step(run, label, inst, image)
        known = styles.cluster(run, [0], k=2)
        scene = generate.make_scene(run.config, label, inst)
        generate.synthesise(run, scene, styles.choose(scene.labels, known))
    assert not Watch.seen, Watch.seen


# ----------------------------------------------------------------------------- a public project

def test_contributing_names_what_there_is():
    """Files and functions that CONTRIBUTING.md and the README's tables name exist."""
    for document in ('CONTRIBUTING.md', 'README.md'):
        text = (ROOT / document).read_text()
        for module, name in re.findall(r'`(\w+)\.(\w+)`', text):
            path = ROOT / f'{module}.py'
            if path.is_file() and name not in ('py', 'json', 'html', 'npz'):
                assert hasattr(import_module(module), name), f'{document}: {module}.{name}'
    for name in ('CHANGELOG.md', 'CITATION.cff', 'CONTRIBUTING.md', 'LICENSE'):
        assert (ROOT / name).stat().st_size > 200
    assert command_line.VERSION in (ROOT / 'CHANGELOG.md').read_text()
    assert command_line.VERSION in (ROOT / 'CITATION.cff').read_text()
