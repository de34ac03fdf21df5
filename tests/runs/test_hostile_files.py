"""Files from strangers: nothing in them is executed, and what does not fit is refused in one line.
`pytest --long` uses every damaged configuration."""
import hashlib
import io
import math
import os
import pickle
import re
import shutil
from types import SimpleNamespace
import zipfile

import numpy as np
import pytest
import torch

from app.common import config as configuration
from app.common.errors import UserError
from app.runs import checkpoints, official, runs
from app.runs.folders import list_checkpoints
from conftest import TINY, equal

CPU = torch.device('cpu')


class Malice:
    """Its pickle makes the file `executed` in the working folder when pickle.load reads it."""

    def __reduce__(self):
        return os.system, ('touch executed',)


@pytest.fixture
def label(scenes):
    return next((scenes / 'gtFine' / 'val' / 'toy').glob('*labelIds.png'))


def make_run_folder(folder, checkpoint):
    """Write a checkpoint, whatever it holds, with a seal that matches. Returns the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with open(folder / 'checkpoint-0000006.pt', 'wb') as file:
        checkpoints.write_sealed(checkpoint, file)
    return folder


def add_seal(blob):
    """Return bytes with a seal that matches."""
    blob += checkpoints.SEAL.format(checkpoints.FORMAT).encode()
    return blob + f'{hashlib.sha256(blob).hexdigest()}\n'.encode()


def test_pickles_are_not_executed(p2phd, trained, scenes, label, tmp_path):
    """Wherever a file is read."""
    def refuse(*words):
        return p2phd(*words, code=2)

    _, checkpoint = checkpoints.newest_checkpoint(trained)
    run = tmp_path / 'run'
    for bad in ({'config': Malice()}, {**checkpoint, 'weights': {'G': Malice()}},
                {**checkpoint, 'rows': Malice()}):
        make_run_folder(run, bad)
        for words in (('generate', '--run', run, '--label', label), ('cluster', '--run', run),
                      ('train', '--resume', run), ('finetune', '--from', run)):
            assert 'not a checkpoint of this program' in refuse(*words)

    torch.save(Malice(), tmp_path / 'legacy.pt', _use_new_zipfile_serialization=False)
    blob = (tmp_path / 'legacy.pt').read_bytes()
    list_checkpoints(run)[0].write_bytes(add_seal(blob))
    assert 'not a checkpoint of this program' in refuse('generate', '--run', run, '--label', label)

    make_run_folder(run, checkpoint)
    np.savez(run / 'styles.npz', centres=np.array([Malice()], object))
    assert 'not a whole file of styles' in refuse('generate', '--run', run, '--label', label)

    theirs = tmp_path / 'official'
    theirs.mkdir()
    for zipped in (True, False):
        torch.save(Malice(), theirs / 'latest_net_G.pth', _use_new_zipfile_serialization=zipped)
        assert 'latest_net_G.pth: cannot be read' in refuse(
            'generate', '--run', theirs, '--label', label)
        torch.save(Malice(), tmp_path / 'vgg.pth', _use_new_zipfile_serialization=zipped)
        assert '--vgg' in refuse('train', '--data', scenes, '--vgg', 'vgg.pth', *TINY)

    config = SimpleNamespace(n_labels=35, feat=3, label_names=None)
    for content, message in (({1: Malice()}, 'asks for posix.system'),
                             (Malice(), 'asks for posix.system'), ([[1]], 'not clustered')):
        np.save(tmp_path / 'features.npy', np.array(content, object), allow_pickle=True)
        with pytest.raises(UserError, match=message):
            official.read_styles(tmp_path / 'features.npy', config)

    array = np.empty((32, 64), object)
    array[:] = Malice()
    np.save(tmp_path / 'map.npy', array, allow_pickle=True)
    np.savez(tmp_path / 'archive.npz', array=array)
    (tmp_path / 'archive.npz').rename(tmp_path / 'zip.npy')
    for name in ('map.npy', 'zip.npy'):
        assert f'{name}: cannot be read as an array' in refuse(
            'generate', '--run', trained, '--label', name)
        for role in ('--inst', '--encode'):
            assert f'{name}: cannot be read as an array' in refuse(
                'generate', '--run', trained, '--label', label, role, name)

    words = ['train', '--data', scenes, '--steps', 1, '--cache', 'cache', *TINY]
    p2phd(*words, '--run', 'one')
    np.save(tmp_path / 'cache' / 'image.npy', array, allow_pickle=True)
    assert 'cache: not a whole cache' in refuse(*words, '--run', 'two')
    assert not list(tmp_path.rglob('executed'))


def test_numpy_itself_is_not_called_with_what_a_pickle_holds():
    """numpy.ndarray(shape, dtype, buffer) would make an object of any address."""
    class Address:
        def __reduce__(self):
            return np.ndarray, ((1,), 'O', b'A' * 8)

    class Dtype:
        def __reduce__(self):
            return np.dtype, ('O',)
    with pytest.raises(TypeError):
        official.ArraysOnly(io.BytesIO(pickle.dumps(Address()))).load()
    assert type(official.ArraysOnly(io.BytesIO(pickle.dumps(Dtype()))).load()) is official.Dtype


def test_an_eps_file_is_no_picture(p2phd, trained, tmp_path):
    """Pillow would run Ghostscript on it, whatever its name."""
    (tmp_path / 'map.png').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 32\n'
                                      '%%EndComments\nshowpage\n')
    assert 'map.png: EPS, format not read: convert it to PNG' in p2phd(
        'generate', '--run', trained, '--label', 'map.png', code=2)


def test_names_never_reach_a_shell(p2phd, scenes, label, tmp_path):
    evil = '$(touch executed); touch executed; `touch executed` & "'
    shutil.copytree(scenes, tmp_path / evil)
    p2phd('train', '--data', evil, '--steps', 1, *TINY)
    shutil.copy(label, tmp_path / f'{evil}.png')
    p2phd('generate', '--label', f'{evil}.png', '--sample')
    config = tmp_path / 'runs' / evil / 'config.json'
    config.write_text(config.read_text().replace('Cityscapes', 'x"; touch executed; "'))
    p2phd('train', '--resume', '--steps', 2)
    assert not list(tmp_path.rglob('executed'))


def test_hostile_configurations(command, trained, label, tmp_path, pytestconfig):
    """Every value of a checkpoint's configuration is replaced by every kind of nonsense: it is
    refused or harmless, and no more memory is taken than the file holds."""
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    checkpoint = {**checkpoints.copy_tree(checkpoint, 'cpu'),
                  'optimizers': {'G': {}, 'D': {}}}         # fewer tensors take less time
    whole = checkpoint['config']
    fields = [(None, name) for name in whole] + [('training', name) for name in whole['training']]

    def changed(part, change):
        if part is None:
            return change(dict(whole))
        return {**whole, 'training': change(dict(whole['training']))}

    for part, name in fields:
        for nonsense in (10 ** 9, -1, 2 ** 70, 1e300, None, 'x', [], [10 ** 9] * 2, {'x': 1}, b'x'):
            config = changed(part, lambda fields: {**fields, name: nonsense})
            try:
                folder = make_run_folder(tmp_path / 'run', {**checkpoint, 'config': config})
                run = runs.load_run(folder, CPU)
            except UserError as error:
                assert re.search(r'checkpoint-0000006.pt: not a checkpoint of this program \(',
                                 str(error)), error
                continue
            same = equal(dict(run.G.state_dict()), dict(checkpoint['weights']['G']))
            assert same, (name, nonsense)
            if pytestconfig.getoption('--long'):
                assert command('generate', '--run', 'run', '--label', label,
                               '--size', '16x16')[0] in (0, 2)
                # Others would take long.
                if name not in ('size', 'crop', 'batch', 'epochs', 'decay_epochs'):
                    assert command('train', '--resume', 'run', '--steps', 8)[0] in (0, 2)

        missing = changed(part, lambda fields: {key: fields[key] for key in fields if key != name})
        required = configuration.REQUIRED
        if name == 'training' or (configuration.TRAINING if part else
                                  configuration.NETWORK)[name].default is required:
            with pytest.raises(UserError, match='not a checkpoint of this program'):
                folder = make_run_folder(tmp_path / 'run', {**checkpoint, 'config': missing})
                runs.load_run(folder, CPU)


def test_hostile_tensors(trained, tmp_path):
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    checkpoint = checkpoints.copy_tree(checkpoint, 'cpu')
    weights, moments = checkpoint['weights']['G'], checkpoint['optimizers']['G']
    first = next(iter(weights))
    giant = torch.zeros(1).expand(1 << 40)
    laughs = 'ha'
    for _ in range(30):
        laughs = [laughs] * 10              # 10 ** 30 of them

    def of_weights(G):
        return {'weights': {**checkpoint['weights'], 'G': G}}

    def of_moments(G):
        return {'optimizers': {**checkpoint['optimizers'], 'G': G}}

    def of_config(**changes):
        return {'config': {**checkpoint['config'], **changes}}

    def of_training(**changes):
        return of_config(training={**checkpoint['config']['training'], **changes})

    for change in (
            of_weights({**weights, first: giant}),
            of_weights({**weights, first: weights[first][:1]}),
            of_weights({**weights, first: weights[first].to_sparse()}),
            of_weights({**weights, 'more': torch.zeros(1)}),
            of_weights(dict(list(weights.items())[1:])),
            of_weights('none'),
            {'weights': [1, 2]}, {'weights': {}}, {'weights': {'G': weights}}, {'optimizers': {}},
            {'optimizers': {'G': moments}}, {'step': 1.5}, {'step': -1}, {'step': 'x'},
            {'rows': 5}, {'sums': 'x'}, {'sums': {'gan': torch.zeros(99)}},
            {'sums': {1: torch.zeros(())}}, {'bad_steps': torch.zeros(3)},
            {'bad_steps': torch.tensor(30.)}, {'bad_steps': laughs}, {'sums': laughs},
            {'weights': laughs}, {'rows': laughs}, {'won_since': 'x'},
            of_config(more=laughs), of_training(flags=laughs), of_training(left_out=laughs),
            of_config(training=laughs), of_config(training={}),
            {**of_config(training=None), 'weights': {}},
            of_weights({**weights, first: weights[first] * math.nan}),
            of_weights({**weights, first: weights[first].cfloat()}),
            of_weights({**weights, first: laughs}),
            of_moments({**moments, 0: {**moments[0], 'exp_avg': giant[:3]}}),
            of_moments({**moments, 10 ** 9: moments[0]})):
        with pytest.raises(UserError, match='not a checkpoint of this program|G are not finite'):
            runs.load_run(make_run_folder(tmp_path / 'run', {**checkpoint, **change}), CPU)


def test_hostile_styles(p2phd, trained, label, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(trained, run)
    words = ('generate', '--run', run, '--label', label, '--sample', '--style', 'car=0')
    p2phd('cluster', '--run', run)
    p2phd(*words)
    good = dict(np.load(run / 'styles.npz'))
    for change in (
            {'counts': good['counts'][:5]}, {'counts': -good['counts']},
            {'counts': good['counts'] * np.nan},
            {'counts': good['counts'][:, :0], 'centres': good['centres'][:, :0]},
            {'mean': np.zeros(7, 'f')}, {'centres': good['centres'].astype(str)},
            {'centres': np.full_like(good['centres'], np.inf)}, {'step': np.zeros((2, 2), int)},
            {'label_names': np.full((3, 3), 'x')}, {'min_pixels': np.array('x')},
            {'mean': np.zeros(10 ** 8, 'f')}):
        np.savez_compressed(run / 'styles.npz', **{**good, **change})
        assert 'styles.npz: not a whole file of styles' in p2phd(*words, code=2)

    checkpoint, deflated = list_checkpoints(run)[-1], run / 'deflated'
    with (zipfile.ZipFile(checkpoint) as archive,
          zipfile.ZipFile(deflated, 'w', zipfile.ZIP_DEFLATED) as small):
        for name in archive.namelist():
            small.writestr(name, archive.read(name))
    checkpoint.write_bytes(add_seal(deflated.read_bytes()))
    assert 'not a checkpoint of this program (compressed)' in p2phd(*words, code=2)
