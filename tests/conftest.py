"""What the tests share: the project's folder on the import path, data sets, runs, and ways to run
the command."""
import hashlib
import json
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
import p2phd as program                     # before torch: it sets how torch's threads wait
import torch

SIMULATED = bool(os.environ.get('P2PHD_SIMULATED_CUDA'))
if SIMULATED:                               # see simulated_cuda/device.py
    from simulated_cuda import device
    # The folder's sitecustomize.py does the same in the processes that this one starts.
    os.environ['PYTHONPATH'] = str(Path(device.__file__).parent)
    if not torch.cuda.is_available():
        device.start()

try:
    import fcntl
except ImportError:                         # Windows
    fcntl = None

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = [Path(folder) for folder in (os.environ.get('P2PHD_GOLDEN'), ROOT / 'tests' / 'golden',
                                      ROOT.parent / 'shared' / 'golden') if folder]
REAL = Path(os.environ.get('P2PHD_DATA', ROOT.parent / 'shared' / 'data'))
MINUTES = 15                                # that a test or a command may take on a busy machine

# The smallest networks that have every part, for tests that train.
TINY = ('--size 64x32 --ngf 8 --n-down 2 --n-blocks 1 --ndf 8 --n-scales 2 --nef 4 '
        '--n-down-encoder 2 --precision fp32 --log-every 2').split()
# The same without an encoder.
BARE = [word for i, word in enumerate(TINY)
        if {'--nef', '--n-down-encoder'}.isdisjoint(TINY[max(i - 1, 0):i + 1])]


def pytest_configure(config):
    """Use one thread of torch in each process: the networks are tiny, and pytest-xdist runs a
    process on each core."""
    os.environ['OMP_NUM_THREADS'] = '1'                     # for the processes of tests
    torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption('--long', action='store_true',
                     help='the long versions of the tests that have one')


@pytest.fixture(autouse=True)
def time_limit():
    """Fail a test that waits in vain."""
    def fail(number, frame):
        pytest.fail(f'takes more than {MINUTES} minutes')

    if hasattr(signal, 'SIGALRM'):                          # not on Windows
        signal.signal(signal.SIGALRM, fail)
        signal.alarm(60 * MINUTES)
    yield
    if hasattr(signal, 'SIGALRM'):
        signal.alarm(0)


# ------------------------------------------------------------------------------------------- data

@pytest.fixture
def golden():
    """Return a function: golden(name) -> the path of a parity file or folder."""
    def find(name):
        paths = [folder / name for folder in GOLDEN if (folder / name).exists()]
        return paths[0] if paths else pytest.skip(f'no parity file {name} here')
    return find


@pytest.fixture
def real():
    """The folder of real data sets."""
    if not REAL.is_dir():
        pytest.skip(f'no real pictures at {REAL} (P2PHD_DATA names their folder)')
    return REAL


@pytest.fixture(autouse=True)
def no_built_in_run(monkeypatch, tmp_path):
    """Hide the run that comes with the program, so that a test without a run has none."""
    monkeypatch.setattr('app.runs.folders.BUILT_IN', tmp_path / 'built-in')


@pytest.fixture(scope='session')
def shared_folder(tmp_path_factory):
    """Return a function that fills a folder once for all processes of pytest-xdist:
    shared_folder(name, fill) -> the folder, after fill(folder). Nothing may change it then."""
    root = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        root = root.parent

    def fill_once(name, fill):
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
    return fill_once


@pytest.fixture(scope='session')
def scenes(shared_folder):
    """A data set of six scenes to train on and two for validation, 64x32."""
    def fill(folder):
        from app.demo import streets
        streets.write_dataset(folder / 'street', 'train', 6, (64, 32))
        streets.write_dataset(folder / 'street', 'val', 2, (64, 32))
    return shared_folder('scenes', fill) / 'street'


@pytest.fixture(scope='session')
def trained(scenes, shared_folder, estimates, tmp_path_factory):
    """The folder of a run that was trained for six steps. Tests may add styles and pictures."""
    def fill(folder):
        with pytest.MonkeyPatch.context() as patch:
            remember_estimates(estimates, patch.setattr)
            assert program.main(['train', '--data', str(scenes), '--steps', '6', *TINY,
                                 '--run', str(folder / 'runs' / 'street')]) == 0
    run = tmp_path_factory.mktemp('trained') / 'runs' / 'street'
    shutil.copytree(shared_folder('trained', fill) / 'runs' / 'street', run)
    return run


def examine(root, split='train', thorough=False, **changes):
    """Return inspection.inspect_dataset of a folder; changes: of the default flags."""
    from app.common import config
    from app.datasets import inspection
    source = {**config.default_values(config.DATA), 'data': str(root), 'split': split, **changes}
    return inspection.inspect_dataset(SimpleNamespace(**source), thorough)


def make_run(device, precision='fp32', training=(), **network):
    """Return a run in memory, with 35 labels, instance maps and an encoder unless `network` says
    otherwise. training: fields of its training."""
    from app.common import config
    from app.runs import runs
    c = config.with_defaults(
        {'n_labels': 35, 'instances': 'files', 'features': True, 'n_enhancers': 0, **network},
        {'data': '.', 'pictures': [1, 0], 'total_steps': 10 ** 6, 'decay_start': 10 ** 6,
         'precision': precision, **dict(training)})
    return runs.build_run(c, device)


def equal(a, b):
    """Return whether two nests of dicts, lists and tensors are the same to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def normalised_biases(net):
    """Return the names of the biases of convolutions before an InstanceNorm. It takes them out
    again, so their true gradient is 0, and Adam makes whole steps of the rounding noise."""
    names = []
    for name, module in net.named_modules():
        children = list(module.named_children())
        names += [f'{name}.{child}.bias'.lstrip('.')
                  for (child, layer), (_, following) in zip(children, children[1:])
                  if hasattr(layer, 'bias') and isinstance(following, torch.nn.InstanceNorm2d)]
    return names


def random_vgg_weights():
    """Return random weights for nets.VGG19, {name: tensor}, and one that it does not need."""
    generator, layers = torch.Generator().manual_seed(0), [64, 64, 'M', 128, 128, 'M']
    layers += [*[256] * 4, 'M', *[512] * 4, 'M', *[512] * 4]
    channels, index, state = 3, 0, {'classifier.0.weight': torch.zeros(1)}
    for width in layers:
        if width != 'M':
            weight = torch.randn(width, channels, 3, 3, generator=generator)
            state[f'features.{index}.weight'] = weight * (2 / channels / 9) ** 0.5
            state[f'features.{index}.bias'] = torch.randn(width, generator=generator) * 0.1
            channels, index = width, index + 1
        index += 1
    return state


# ------------------------------------------------------------------------------------ the command

def remember_estimates(folder, setattr=setattr):
    """Let memory.memory_needed estimate the memory of equal runs only once, in all processes: in a
    short training this takes most of the time. folder: where the estimates are kept."""
    from app.runs import distributed, memory
    estimate = memory.memory_needed

    def remember(run):
        c = {name: value for name, value in vars(run.config).items()
             if name not in ('training', 'label_names', 'label_table', 'palette', 'present', 'void',
                             'layout', 'label_colours')}
        t = {name: getattr(run.config.training, name) for name in (
            'crop augment batch accumulate recompute gan ema lambda_feature lambda_vgg '
            'lambda_l1').split()}
        key = repr((c, t, run.precision, run.device, bool(run.vgg), distributed.WORLD_SIZE,
                    distributed.LOCAL_WORLD_SIZE, bool(run.D), len(run.average)))
        path = Path(folder) / hashlib.sha256(key.encode()).hexdigest()
        if not path.exists():
            partial = path.with_suffix(f'.{os.getpid()}')
            partial.write_text(json.dumps(estimate(run)))
            partial.replace(path)
        return json.loads(path.read_text())
    setattr(memory, 'memory_needed', remember)


@pytest.fixture(scope='session')
def estimates(shared_folder):
    """The folder of remember_estimates."""
    return shared_folder('estimates', lambda folder: None)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, estimates):
    """Return a function that runs the command in this process, which is faster:
    command('check', ...) -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    remember_estimates(estimates, monkeypatch.setattr)

    def run(*words):
        capsys.readouterr()
        try:
            code = program.main([str(word) for word in words])
        except SystemExit as stop:                          # the parser calls exit()
            code = stop.code
        return code, *capsys.readouterr()
    return run


def expect(code, done, out, err):
    """Assert the exit code of a command; return its stdout, or the one line on stderr if it is 2.
    """
    assert done == code, out + err
    assert 'Traceback' not in err, err
    if code == 2:
        assert err.count('\n') == 1, err
    return err if code == 2 else out


@pytest.fixture
def p2phd(command):
    """Return a function that runs the command in this process, in an empty folder:
    p2phd('train', ..., code=0) -> its stdout, or its one line on stderr with code=2."""
    return lambda *words, code=0: expect(code, *command(*words))


@pytest.fixture
def shell(tmp_path):
    """Return the same as p2phd with a process for each command, as a user runs it."""
    def run(*words, code=0):
        done = subprocess.run([sys.executable, ROOT / 'p2phd.py', *map(str, words)], cwd=tmp_path,
                              capture_output=True, text=True, timeout=60 * MINUTES)
        return expect(code, done.returncode, done.stdout, done.stderr)
    return run


def train_judges_briefly(setattr=setattr):
    """Let a judge learn for few steps, in tests that do not look at what it learns."""
    from app.evaluation import judge
    setattr(judge, 'EPOCH_STEPS', 2)
    setattr(judge, 'MAX_EPOCHS', 2)


@pytest.fixture
def brief_judge(monkeypatch):
    """See train_judges_briefly."""
    train_judges_briefly(monkeypatch.setattr)


def run_command(words, folder, threads, out, err, environment, estimates):
    """Run the command in this process, which ends with it; append its output to the files `out` and
    `err`, or both kinds to `out`.
    The variable BRIEF_JUDGE in `environment`: see train_judges_briefly."""
    os.setpgrp()
    os.environ.update(environment)
    if 'BRIEF_JUDGE' in environment:
        train_judges_briefly()
    remember_estimates(estimates)
    # A process in the background may ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    os.chdir(folder)
    for stream, path in (1, out), (2, err or out):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY), stream)
    sys.exit(program.main([str(word) for word in words]))


@pytest.fixture(scope='session')
def fork_server():
    """A multiprocessing context whose processes are forked off one that has imported torch and what
    training uses, which saves seconds, and has not used it, so that its threads are whole."""
    before = os.environ.get('PYTHONPATH', '')
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), str(ROOT / 'tests'), before])
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['conftest', 'torch._dynamo', 'torch._subclasses.fake_tensor'])
    process = context.Process(target=len, args=('',))           # starts the one that is forked
    process.start()
    process.join()
    yield context
    os.environ['PYTHONPATH'] = before


@pytest.fixture
def launch(fork_server, estimates):
    """Return a function that starts the command in a folder: launch(words, folder) -> a
    multiprocessing.Process, which is killed after the test.

    threads: of torch. out: file that its output is appended to, or only stdout if there is another
    file for stderr, err. environment: variables.
    """
    processes = []

    def start(words, folder, threads=1, out='out.txt', err=None, environment=()):
        process = fork_server.Process(target=run_command, args=(
            words, folder, threads, out, err, dict(environment), estimates))
        processes.append(process)
        process.start()
        return process
    yield start
    for process in processes:
        process.kill()
        process.join()
