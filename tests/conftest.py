"""What the tests share: the project's folder on the import path, folders of real data, scenes on
disk, the command."""
import multiprocessing
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import p2phd as program                     # before torch: it says how the threads of torch wait
import torch

try:
    import fcntl
except ImportError:                         # Windows
    fcntl = None

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = [Path(folder) for folder in (os.environ.get('P2PHD_GOLDEN'), ROOT / 'tests' / 'golden',
                                      ROOT.parent / 'shared' / 'golden') if folder]
REAL = Path(os.environ.get('P2PHD_DATA', ROOT.parent / 'shared' / 'data'))

# The smallest networks that have every part, for tests that train.
TINY = ('--size 64x32 --ngf 8 --n-down 2 --n-blocks 1 --ndf 8 --n-scales 2 --nef 4 '
        '--n-down-encoder 2 --precision fp32 --log-every 2').split()
# The same without an encoder.
BARE = [word for i, word in enumerate(TINY)
        if {'--nef', '--n-down-encoder'}.isdisjoint(TINY[max(i - 1, 0):i + 1])]


def pytest_addoption(parser):
    parser.addoption('--long', action='store_true',
                     help='the long versions of the tests that have one')


@pytest.fixture(autouse=True)
def no_test_goes_on_for_ever():
    """Fails a test that waits in vain."""
    def too_long(number, frame):
        pytest.fail('takes more than 15 minutes')

    if hasattr(signal, 'SIGALRM'):                          # not on Windows
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(900)
    yield
    if hasattr(signal, 'SIGALRM'):
        signal.alarm(0)


@pytest.fixture
def golden():
    """golden(name) -> the path of a parity file or folder."""
    def find(name):
        found = [folder / name for folder in GOLDEN if (folder / name).exists()]
        return found[0] if found else pytest.skip(f'no parity file {name} here')
    return find


@pytest.fixture
def real():
    if not REAL.is_dir():
        pytest.skip(f'no real pictures at {REAL} (P2PHD_DATA names their folder)')
    return REAL


@pytest.fixture(scope='session')
def shared_folder(tmp_path_factory):
    """Return a function that makes a folder once for all processes of pytest-xdist:
    shared_folder(name, fill) -> the folder, which fill(folder) has filled and nothing may change.
    """
    root = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        root = root.parent

    def make_once(name, fill):
        folder, complete = root / name, root / f'{name}.complete'
        with open(root / f'{name}.lock', 'w') as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                complete.touch()
        return folder
    return make_once


@pytest.fixture(scope='session')
def scenes(shared_folder):
    """A folder of six training scenes and two for validation."""
    def fill(folder):
        from app.demo import toy
        toy.write_dataset(folder / 'street', 'train', 6, (64, 32))
        toy.write_dataset(folder / 'street', 'val', 2, (64, 32))
    return shared_folder('scenes', fill) / 'street'


def examine(root, split='train', thorough=False, progress=None, **changes):
    """inspection.inspect_dataset of a folder."""
    from app.common import config
    from app.datasets import inspection
    source = {**config.default_values(config.DATA), 'data': str(root), 'split': split, **changes}
    return inspection.inspect_dataset(SimpleNamespace(**source), thorough, progress)


def make_run(device, precision='fp32', **network):
    """A run of 35 labels with instances and features, of no folder."""
    from app.common import config
    from app.runs import runs
    c = config.make_config(
        {'n_labels': 35, 'instances': 'files', 'features': True, 'n_enhancers': 0, **network},
        {'data': '.', 'pictures': [1, 0], 'total_steps': 10 ** 6, 'decay_start': 10 ** 6,
         'precision': precision})
    return runs.build_run(c, device)


def equal(a, b):
    """Whether two nests of dicts, lists and tensors are the same to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command in this process, which is faster:
    command('check', ...) -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        try:
            code = program.main(program.parse([str(word) for word in words]))
        except SystemExit as stop:                          # of the parser
            code = stop.code
        return code, *capsys.readouterr()
    return run


def run_command(words, folder):
    """In a process of its own: the command in `folder`, its output added to out.txt there."""
    os.setpgrp()
    # It is ignored where the tests run in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    out = os.open('out.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1), os.dup2(out, 2)
    sys.exit(program.main(program.parse([str(word) for word in words])))


@pytest.fixture(scope='session')
def forks():
    """What forks processes off one that has imported torch, which saves seconds, and has not used
    it, which keeps its threads whole."""
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['conftest'])
    yield context
    del os.environ['PYTHONPATH']


@pytest.fixture
def launch(forks):
    """launch(words, folder) -> a multiprocessing.Process that runs the command. None outlives its
    test."""
    processes = []

    def start(words, folder):
        processes.append(forks.Process(target=run_command, args=(words, folder)))
        processes[-1].start()
        return processes[-1]
    yield start
    for process in processes:
        process.kill()
        process.join()


@pytest.fixture(scope='session')
def trained(scenes, shared_folder, tmp_path_factory):
    """The folder of a run that was trained for six steps. Tests may add styles and pictures."""
    def fill(folder):
        subprocess.run([sys.executable, ROOT / 'p2phd.py', 'train', '--data', scenes, '--steps',
                        '6', *TINY], cwd=folder, check=True)
    run = tmp_path_factory.mktemp('trained') / 'runs' / 'street'
    shutil.copytree(shared_folder('trained', fill) / 'runs' / 'street', run)
    return run


@pytest.fixture
def p2phd(tmp_path):
    """Run the command in an empty folder, as a user does: p2phd('train', ...) -> its standard
    output.

    `code` is the exit code to expect. With 2, the answer is one line on stderr, which is returned.
    """
    def run(*words, code=0, cwd=tmp_path):
        done = subprocess.run([sys.executable, ROOT / 'p2phd.py', *map(str, words)], cwd=cwd,
                              capture_output=True, text=True, timeout=600)
        assert done.returncode == code, done.stdout + done.stderr
        assert 'Traceback' not in done.stderr, done.stderr
        if code == 2:
            assert done.stderr.count('\n') == 1, done.stderr
            return done.stderr
        return done.stdout
    return run
