"""Several processes that work as one, on the CPU."""
from collections import Counter
import importlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from app.runs import checkpoints, runs
from conftest import MINUTES, ROOT, TINY, normalised_biases

PROGRAM = str(ROOT / 'p2phd.py')
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
            '--', PROGRAM]


@pytest.fixture
def start_two(launch, tmp_path):
    """Return a function that starts a command in two processes: start_two(*words) -> processes,
    paths of their outputs. They have the environment that torchrun makes and start faster."""
    def start(*words):
        with socket.create_server(('127.0.0.1', 0)) as server:
            port = server.getsockname()[1]
        outputs = [tmp_path / f'output{rank}.txt' for rank in (0, 1)]
        processes = []
        for rank, path in enumerate(outputs):
            path.write_text('')
            environment = {'RANK': rank, 'LOCAL_RANK': rank, 'WORLD_SIZE': 2,
                           'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, 'BRIEF_JUDGE': 1}
            processes.append(launch(words, tmp_path, out=path, environment={
                name: str(value) for name, value in environment.items()}))
        return processes, outputs
    return start


@pytest.fixture
def run_two(start_two):
    """Return a function that runs a command in two processes to their end: run_two(*words) -> exit
    codes, output of both."""
    def run(*words):
        processes, outputs = start_two(*words)
        for process in processes:
            process.join(60 * MINUTES)
        return ([process.exitcode for process in processes],
                ''.join(path.read_text() for path in outputs))
    return run


def weights(folder):
    """Return the weights of a run and their averages, but for biases whose gradient is rounding
    noise."""
    run = runs.load_run(folder, torch.device('cpu'))
    networks = {**{name: getattr(run, name) for name in 'GDE'}, 'average': run.average['G']}
    return torch.cat([value.flatten() for net in networks.values()
                      for name, value in net.state_dict().items()
                      if name not in normalised_biases(net)])


def assert_same(a, b):
    """Assert that weights agree to 1e-5, but for a few in 10,000: where a gradient is nearly zero,
    Adam makes a whole step of its rounding."""
    assert ((a - b).abs() > 1e-5).float().mean() < 2e-4 and (a - b).abs().mean() < 1e-6


def test_two_processes_train_as_one(p2phd, run_two, scenes, tmp_path):
    """With the same batch, to 1e-5. A run of two processes goes on in one."""
    words = ['train', '--data', scenes, *TINY, '--batch', 2, '--device', 'cpu', '--steps', 4]
    p2phd(*words, '--run', 'one')
    codes, out = run_two(*words, '--run', 'two')
    assert codes == [0, 0], out
    assert out.count('step 4/4') == 1 and out.count('done: ') == 1, out     # of the main process
    assert_same(weights(tmp_path / 'one'), weights(tmp_path / 'two'))
    assert (tmp_path / 'one' / 'log.csv').read_text().splitlines()[0] == (
        tmp_path / 'two' / 'log.csv').read_text().splitlines()[0]

    for run in ('one', 'two'):
        p2phd('train', '--resume', run, '--steps', 6)
    assert_same(weights(tmp_path / 'one'), weights(tmp_path / 'two'))


def test_two_processes_begin_with_the_weights_of_another_run(p2phd, run_two, trained, scenes,
                                                             tmp_path):
    words = ['train', '--data', scenes, '--from', trained, '--batch', 2, '--device', 'cpu',
             '--steps', 2]
    p2phd(*words, '--run', 'one')
    codes, out = run_two(*words, '--run', 'two')
    assert codes == [0, 0] and out.count('35 of 35 matched by name') == 1, out
    assert_same(weights(tmp_path / 'one'), weights(tmp_path / 'two'))


def test_two_processes_finetune_as_one(p2phd, run_two, trained, tmp_path):
    """The inner generator is frozen in the first steps."""
    words = ['finetune', '--from', trained, '--batch', 2, '--device', 'cpu', '--steps', 5,
             '--fix-global', 1, '--n-blocks-local', 1]
    p2phd(*words, '--run', 'one')
    codes, out = run_two(*words, '--run', 'two')
    assert codes == [0, 0] and '; only the new enhancer until step 3' in out, out
    assert_same(weights(tmp_path / 'one'), weights(tmp_path / 'two'))


def record_reductions(rank, port, folder):
    """Compute gradients in one of two processes, by GradientReducer and plainly. Write to a file of
    the folder: how many gradients were complete when each all-reduce began, whether both agree."""
    os.environ.update(WORLD_SIZE='2', RANK=str(rank), LOCAL_RANK=str(rank),
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    from app.runs import distributed
    importlib.reload(distributed)                           # it reads the environment
    import torch.distributed as dist
    distributed.initialise(torch.device('cpu'))
    passes, seen = Counter(), []

    def step(reduce):
        net.zero_grad()
        for part in range(2):
            net(x[part]).square().sum().backward()
        gradients = [p.grad for p in net.parameters()]
        reduce(gradients, 'mean')
        return [gradient.clone() for gradient in gradients]

    torch.manual_seed(0)
    net = torch.nn.Sequential(*(torch.nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)))
    net.to(memory_format=torch.channels_last)
    x = torch.randn(2, 1, 4, 8, 8) * (1 + rank)
    plain = step(distributed.all_reduce)
    for p in net.parameters():
        p.register_post_accumulate_grad_hook(lambda p: passes.update([id(p)]))
    all_reduce = dist.all_reduce

    def record(*args, **more):
        seen.append(sum(n == 2 for n in passes.values()))
        return all_reduce(*args, **more)

    dist.all_reduce = record
    distributed.GradientReducer.BUCKET = 700                # a weight and a bias: 576 + 16 bytes
    reduce = distributed.GradientReducer(net.parameters(), 2)
    for _ in range(2):                                      # it can be used again
        passes.clear()
        overlapped = step(reduce)
    torch.save({'seen': seen, 'same': all(map(torch.allclose, plain, overlapped))},
               folder / f'{rank}.pt')
    distributed.shut_down()


def test_gradients_are_averaged_during_the_backward_pass(fork_server, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = str(server.getsockname()[1])
    processes = [fork_server.Process(target=record_reductions, args=(rank, port, tmp_path))
                 for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60 * MINUTES)
    for rank in (0, 1):
        result = torch.load(tmp_path / f'{rank}.pt')
        assert result['same'] and result['seen'][0] < 12 == result['seen'][-1]


def test_two_processes_cluster_generate_and_evaluate_as_one(p2phd, run_two, trained, scenes,
                                                            tmp_path, brief_judge):
    codes, out = run_two('cluster', '--run', trained, '--device', 'cpu')
    assert codes == [0, 0] and out.count('styles.npz') == 1, out
    words = ['generate', '--run', trained, '--device', 'cpu', '--label']
    codes, out = run_two(*words, scenes / 'gtFine' / 'val', '--out', 'all')
    assert codes == [0, 0] and len(list((tmp_path / 'all').glob('*.png'))) == 2, out

    maps = tmp_path / 'maps'                                # the second process cannot read one
    maps.mkdir()
    for i, path in enumerate(sorted((scenes / 'gtFine').rglob('*labelIds.png'))[:4]):
        (maps / f'{i}.png').write_bytes(path.read_bytes() if i < 3 else b'no picture')
    codes, out = run_two(*words, maps, '--out', 'some')
    assert 2 in codes and out.count('3.png: ') == out.count('1 of 4 label maps') == 1, out
    assert len(list((tmp_path / 'some').glob('*.png'))) == 3

    words = ['evaluate', '--run', trained, '--write', 'scored', '--device', 'cpu', '--out']
    codes, out = run_two(*words, 'by-two')
    assert codes == [0, 0] and out.count('training a judge') == out.count('protocol') == 1, out
    p2phd(*words, 'by-one')
    for name in ('scores.json', 'sheet.png'):
        assert (tmp_path / 'by-one' / name).read_bytes() == (
            tmp_path / 'by-two' / name).read_bytes()


def test_a_batch_that_cannot_be_shared(run_two, scenes, tmp_path):
    codes, out = run_two('train', '--data', scenes, *TINY, '--steps', 1)
    assert codes == [2, 2] and 'process 0: --batch 1: ' in out and 'a multiple of 2' in out, out
    assert out.count('--batch 1: ') == 1                    # not once for each process
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('words, message', [
    (['train', '--data', 'nowhere'], 'nowhere: no such folder'),
    (['train', '--batch', 'x'], "argument --batch: 'x': expected"),
    (['train', '--resume', 'nowhere'], 'nowhere'), (['cluster', '--run', 'nowhere'], 'nowhere'),
    (['train'], 'train needs --data'),
    (['generate', '--label', 'x.png', '--n', '2'], '--n 2: the pictures would all be the same'),
    (['train', '--data', 'nowhere', '--steps', '2', '--hours', '3'], 'both say how long')])
def test_an_error_of_all_processes_is_one_line(run_two, words, message):
    codes, out = run_two(*words)
    assert codes == [2, 2] and out.count(message) == 1, out
    assert out.count('\n') == 1


def test_several_processes_without_torchrun(tmp_path):
    done = subprocess.run([sys.executable, PROGRAM, 'info'], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, 'WORLD_SIZE': '2'})
    assert done.returncode == 2 and 'WORLD_SIZE is 2, and RANK, LOCAL_RANK' in done.stderr
    assert done.stderr.count('\n') == 1


TWO = ['--batch', 2, '--device', 'cpu', '--steps', 100000, '--run', 'run']


def wait_for_steps(run, is_alive):
    """Wait until two rows are in the log of a run that is being trained."""
    log = run / 'log.csv'
    while not log.exists() or log.read_text().count('\n') < 3:
        assert is_alive()
        time.sleep(0.05)


def test_torchrun_and_a_signal_to_one_process(scenes, tmp_path):
    """All stop at the same step, and it is saved."""
    process = subprocess.Popen(
        [*TORCHRUN, *map(str, ['train', '--data', scenes, *TINY, *TWO])], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for_steps(tmp_path / 'run', lambda: process.poll() is None)
        children = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True)
        os.kill(int(children.stdout.split()[-1]), signal.SIGTERM)
        out, _ = process.communicate(timeout=60 * MINUTES)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert 'all saved; to go on' in out, out
    assert checkpoints.newest_checkpoint(tmp_path / 'run')[1]['step'] > 2
    assert f'File "{PROGRAM}' not in out, out           # torchrun itself prints a traceback


def test_the_other_process_does_not_wait_for_a_dead_one(start_two, scenes, tmp_path):
    (main, other), (output, _) = start_two('train', '--data', scenes, *TINY, *TWO)
    wait_for_steps(tmp_path / 'run', main.is_alive)
    other.kill()
    main.join(60 * MINUTES)
    out = output.read_text()
    assert main.exitcode == 2 and 'another process of this run has ended' in out, out
    assert 'Traceback' not in out
