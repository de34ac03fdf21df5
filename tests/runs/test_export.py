"""A generator exported for other programs, and runs exchanged with the official code."""
import os
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import torch

from app.common import files
from app.common.errors import UserError
from app.runs import checkpoints, export, pictures, run_styles, runs
from conftest import make_run
import generate

CPU = torch.device('cpu')
SMALL = {'ngf': 8, 'n_down': 1, 'n_blocks': 1, 'n_blocks_local': 1, 'ndf': 8, 'nef': 4,
         'n_down_encoder': 2}


BARE = {'features': False, 'instances': 'none'}
LABEL_STYLES = {'model': 'local', 'n_enhancers': 1, 'up': 'bilinear', 'features_of': 'label'}
# tests/cli/test_docs.py exports the usual network. ONNX takes long.
NETWORKS = {'pt2': [BARE, {'model': 'local', 'n_enhancers': 1}, {'features': False}, LABEL_STYLES],
            'onnx': [BARE, LABEL_STYLES]}

# Programs that use exported files without this project, several because importing torch is slow.
PROGRAMS = {
    'pt2': """
import sys, numpy, torch
for path in sys.argv[1:]:
    program = torch.export.load(f'{path}.pt2').module()
    for i in '01':
        maps = numpy.load(f'{path}_maps{i}.npz')
        maps = [torch.from_numpy(maps[name]) for name in ('label', 'inst', 'style')]
        numpy.save(f'{path}_picture{i}.npy', program(*maps).numpy())
""",
    'onnx': """
import sys, numpy, onnxruntime
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(f'{path}.onnx')
    for i in '01':
        maps = numpy.load(f'{path}_maps{i}.npz')
        maps = {given.name: maps[given.name] for given in session.get_inputs()}
        numpy.save(f'{path}_picture{i}.npy', session.run(None, maps)[0])
"""}


def write_maps(path, run, size):
    """Write maps of blocks for an exported file: label, inst and style."""
    rng = np.random.default_rng(0)
    h, w = size[0] // 8, size[1] // 8
    label = rng.integers(0, 35, (h, w))
    style = label % 3 if run.config.features_of == 'label' else rng.integers(0, 3, (h, w))
    maps = {'label': label, 'inst': np.arange(h * w).reshape(h, w), 'style': style}
    np.savez(path, **{name: blocks.repeat(8, 0).repeat(8, 1) for name, blocks in maps.items()})


def expected_picture(run, clusters, maps):
    """Return the picture that `generate` makes of the maps."""
    label, inst, style = (torch.from_numpy(maps[name]) for name in ('label', 'inst', 'style'))
    scene = generate.make_scene(run.config, label[None, None],
                                None if run.config.instances == 'none' else inst[None, None])
    vectors = None
    if run.E:
        ids = label if run.config.features_of == 'label' else inst
        numbers = style.flatten()[np.unique(ids, return_index=True)[1]]
        vectors = torch.from_numpy(clusters['centres'])[scene.labels, numbers]
    return pictures.to_uint8_hwc(generate.synthesise(run, scene, vectors))


@pytest.mark.parametrize('kind', PROGRAMS)
def test_exported_programs_make_the_picture(kind, tmp_path):
    """Exported files make the same pictures as `generate`, at two sizes, without this project."""
    if kind == 'onnx':
        for package in ('onnx', 'onnxscript', 'onnxruntime'):
            pytest.importorskip(package)
    clusters = {'centres': torch.randn(35, 3, 3).numpy(), 'counts': np.full((35, 3), 2),
                'mean': np.zeros(3, np.float32)}
    runs_to_export = [make_run(CPU, **SMALL, **network) for network in NETWORKS[kind]]
    for n, run in enumerate(runs_to_export):
        line = export.export_program(tmp_path, run, clusters if run.E else None, kind, (64, 32),
                                     tmp_path / f'{n}.{kind}')
        assert 'multiples of' in line                       # the program takes other sizes too
        for i, size in enumerate(((32, 64), (48, 96))):
            write_maps(tmp_path / f'{n}_maps{i}.npz', run, size)
    numbers = map(str, range(len(runs_to_export)))
    subprocess.run([sys.executable, '-c', PROGRAMS[kind], *numbers], cwd=tmp_path, check=True,
                   env={**os.environ, 'PYTHONPATH': ''})
    for n, run in enumerate(runs_to_export):
        for i in range(2):
            expected = expected_picture(run, clusters, np.load(tmp_path / f'{n}_maps{i}.npz'))
            made = np.load(tmp_path / f'{n}_picture{i}.npy')
            assert made.shape == expected.shape and made.dtype == np.uint8
            assert np.abs(made.astype(int) - expected).max() <= 1, NETWORKS[kind][n]


def test_exported_program_takes_the_ids_of_the_data_set(tmp_path):
    run = make_run(CPU, **SMALL, features=False, label_table={0: 1, 7: 2, 255: 34})
    label = torch.tensor([0, 7, 255, 7]).repeat_interleave(16)[None].expand(32, 64).contiguous()
    trained_as = torch.tensor([1, 2, 34, 2]).repeat_interleave(16)[None].expand(32, 64).contiguous()
    with torch.no_grad():
        made = export.ExportedGenerator(run, None)(label, label, label)
    scene = generate.make_scene(run.config, trained_as[None, None], label[None, None])
    expected = pictures.to_uint8_hwc(generate.synthesise(run, scene))
    assert np.abs(made.numpy().astype(int) - expected).max() <= 1


def test_export_writes_the_weights_that_were_chosen(command, trained, tmp_path):
    shutil.copytree(trained, 'run')
    shutil.copy(checkpoints.list_checkpoints('run')[-1], 'run/best.pt')
    for kind, more in (('newest', ()), ('best', ('--checkpoint', 'best'))):
        states = []
        for i, average in enumerate(('--average', '--no-average')):
            code, _, err = command('export', '--run', 'run', '--official', f'{kind}{i}',
                                   average, *more)
            assert code == 0, err
            states.append(torch.load(f'{kind}{i}/latest_net_G.pth'))
        assert not all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize('more', [{}, {'model': 'local', 'n_enhancers': 1}])
def test_grey_pictures_to_the_official_code_and_back(tmp_path, more):
    run = make_run(CPU, **SMALL, **more, out_channels=1)
    export.export_official(tmp_path, run, run.D.state_dict(), None, tmp_path / 'there')
    back = runs.load_run(tmp_path / 'there', CPU, False)
    assert back.config.out_channels == 1 and back.config.encoder_scale == 1
    a, b = run.G.state_dict(), back.G.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_export_names_the_package_that_is_missing(command, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    code, _, err = command('export', '--run', trained, '--format', 'onnx', '--out', 'run.onnx')
    assert code == 2 and 'pip install onnx onnxscript' in err and err.count('\n') == 1


def test_export_to_the_official_code_and_back(command, trained, scenes, tmp_path):
    for more in (('--format', 'onnx'), ('--size', '7x7'), ('--out', 'x')):
        code, _, err = command('export', '--run', trained, '--official', 'there', *more)
        assert code == 2 and f'--official and {more[0]}' in err
    code, _, err = command('export', '--run', trained, '--official', trained)
    assert code == 2 and 'holds a run already' in err
    code, out, err = command('export', '--run', trained, '--official', 'there')
    assert code == 0, err
    assert {path.name for path in (tmp_path / 'there').iterdir()} == {
        'opt.txt', 'latest_net_G.pth', 'latest_net_D.pth', 'latest_net_E.pth',
        next((tmp_path / 'there').glob('features_clustered_0??.npy')).name}
    ours, back = (runs.load_run(folder, CPU, False) for folder in (trained, tmp_path / 'there'))
    for name in 'GE':
        a, b = (getattr(run, name).state_dict() for run in (ours, back))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    clusters, again = (run_styles.load_or_cluster_styles(run, folder)
                       for run, folder in ((ours, trained), (back, tmp_path / 'there')))
    for label in range(35):
        assert np.array_equal(clusters['centres'][label][clusters['counts'][label] > 0],
                              again['centres'][label][again['counts'][label] > 0])
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    for folder, run in (('a', trained), ('b', tmp_path / 'there')):
        command('generate', '--run', run, '--label', label, '--out', folder)
    a, b = (np.asarray(Image.open(next((tmp_path / name).glob('*.png')))) for name in 'ab')
    assert np.array_equal(a, b)


def test_an_export_that_fails_leaves_no_files(command, trained, monkeypatch, tmp_path):
    def write(path, write):                                 # of a disk that is full at last
        if path.name.startswith('features_clustered'):
            raise UserError(f'{path}: cannot be written')
        files.write_atomically(path, write)

    monkeypatch.setattr(export, 'write_atomically', write)
    assert command('export', '--run', trained, '--official', 'there')[0] == 2
    assert not list((tmp_path / 'there').iterdir())


@pytest.mark.parametrize('network, channels, flags', [
    ({'n_labels': 19}, 20, '--n-labels 19'), ({'n_labels': 35}, 36, ''),
    ({'n_labels': 19, 'boundary': False}, 19, '--n-labels 19'),
    ({'n_labels': 36, 'boundary': False}, 36, '--n-labels 36'),
    ({'n_labels': 0, 'instances': 'none'}, 3, ''), ({'n_labels': 2}, 3, '--n-labels 2')])
def test_labels_and_boundary_of_an_official_run(command, network, channels, flags, tmp_path):
    """They come from opt.txt or --n-labels; without both only the two sets of channels of the
    official scripts are understood."""
    run = make_run(CPU, **{**SMALL, 'features': False, **network})
    export.export_official(tmp_path, run, run.D.state_dict(), None, tmp_path / 'run')

    def labels_and_boundary(config):
        return config.n_labels, config.boundary and config.instances != 'none'

    def read(n_labels=None):
        checkpoint = runs.read_run(tmp_path / 'run', n_labels=n_labels)[1]
        return labels_and_boundary(checkpoint['config'])

    expected = labels_and_boundary(run.config)
    assert read() == expected
    (tmp_path / 'run' / 'opt.txt').unlink()
    assert read(run.config.n_labels) == expected
    code, out, err = command('info', 'run', *flags.split())
    assert code == 0 and f'{expected[0]} labels' in out if expected[0] else 'A to B' in out
    code, out, err = command('info', 'run')
    if channels in (3, 36):
        assert code == 0, err
    else:
        assert code == 2 and err.count('\n') == 1
        for n in (channels, channels - 1):
            assert f'--n-labels {n}' in err
    code, out, err = command('info', 'run', '--n-labels', 1000)
    assert code == 2 and f'not 1000 labels: {channels} labels' in err


def test_export_overwrites_no_file_of_another_kind(command, trained, tmp_path):
    (tmp_path / 'README.md').write_text('mine')
    code, _, err = command('export', '--run', trained, '--out', 'README.md')
    assert code == 2 and 'README.md: is a folder or no .pt2 file' in err
    assert (tmp_path / 'README.md').read_text() == 'mine'
