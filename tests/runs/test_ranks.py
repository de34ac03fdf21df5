"""Many processes that work as one, by torchrun on the CPU."""
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from app.runs import checkpoints
from conftest import ROOT, TINY
from app.runs import runs
from test_golden import normalised_biases

PROGRAM = str(ROOT / 'p2phd.py')
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
            '--', PROGRAM]


def torchrun(words, folder, wait=True):
    process = subprocess.Popen([*TORCHRUN, *map(str, words)], cwd=folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    if wait:
        out, _ = process.communicate(timeout=300)
        return process.returncode, out
    return process


def weights(folder):
    """The weights of a run and their averages, but for biases whose gradient is rounding noise."""
    run = runs.load_run(folder, torch.device('cpu'))
    networks = {**{name: getattr(run, name) for name in 'GDE'}, 'average': run.average['G']}
    return torch.cat([value.flatten() for net in networks.values()
                      for name, value in net.state_dict().items()
                      if name not in normalised_biases(net)])


def assert_same(a, b):
    """To 1e-5, but for a few weights in 10,000: where a gradient is nearly zero, Adam makes a whole
    step of its rounding."""
    assert ((a - b).abs() > 1e-5).float().mean() < 2e-4 and (a - b).abs().mean() < 1e-6


def test_two_processes_are_one(p2phd, scenes, tmp_path):
    """With the same batch, to 1e-5; the run of two goes on with one; styles are clustered and
    pictures made by two."""
    words = ['train', '--data', scenes, *TINY, '--batch', 2, '--device', 'cpu', '--steps', 4]
    p2phd(*words, '--run', 'one')
    code, out = torchrun([*words, '--run', 'two'], tmp_path)
    assert code == 0, out
    assert out.count('step 4/4') == 1 and out.count('done: ') == 1, out     # the first one speaks
    assert_same(weights(tmp_path / 'one'), weights(tmp_path / 'two'))
    assert (tmp_path / 'one' / 'log.csv').read_text().splitlines()[0] == (
        tmp_path / 'two' / 'log.csv').read_text().splitlines()[0]

    for run in ('one', 'two'):
        p2phd('train', '--resume', run, '--steps', 6)
    assert_same(weights(tmp_path / 'one'), weights(tmp_path / 'two'))

    code, out = torchrun(['cluster', '--run', 'two'], tmp_path)
    assert code == 0 and out.count('styles.npz') == 1, out
    code, out = torchrun(['generate', '--run', 'two', '--label', scenes / 'gtFine' / 'val'],
                         tmp_path)
    assert code == 0 and len(list((tmp_path / 'two' / 'generated').glob('*.png'))) == 2, out

    maps = tmp_path / 'maps'                                # what the second one cannot read
    maps.mkdir()
    for i, path in enumerate(sorted((scenes / 'gtFine').rglob('*labelIds.png'))[:4]):
        (maps / f'{i}.png').write_bytes(path.read_bytes() if i < 3 else b'no picture')
    code, out = torchrun(['generate', '--run', 'two', '--label', maps, '--out', 'some'], tmp_path)
    assert code and out.count('3.png: cannot be read') == out.count('1 of 4 label maps') == 1, out

    words = ['evaluate', '--run', 'two', '--write', 'scored', '--out']
    code, out = torchrun([*words, 'by-two'], tmp_path)
    assert code == 0 and out.count('training a judge') == out.count('protocol') == 1, out
    p2phd(*words, 'by-one')
    for name in ('scores.json', 'sheet.png'):
        assert (tmp_path / 'by-one' / name).read_bytes() == (
            tmp_path / 'by-two' / name).read_bytes()


def test_a_batch_that_cannot_be_shared(scenes, tmp_path):
    code, out = torchrun(['train', '--data', scenes, *TINY, '--steps', 1], tmp_path)
    assert code and 'process 0: --batch 1: 2 processes share a batch; take a multiple of 2' in out
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_one_process_ends_all(scenes, tmp_path, number):
    """SIGTERM: all stop after the same step, and it is saved. SIGKILL: the other does not wait for
    the dead one."""
    process = torchrun(['train', '--data', scenes, *TINY, '--batch', 2, '--device', 'cpu',
                        '--steps', 100000, '--run', 'run'], tmp_path, wait=False)
    try:
        until = time.monotonic() + 120
        while not (tmp_path / 'run' / 'log.csv').exists() or (
                (tmp_path / 'run' / 'log.csv').read_text().count(chr(10)) < 3):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.1)
        children = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True)
        os.kill(int(children.stdout.split()[-1]), number)
        out, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if number == signal.SIGTERM:
        assert 'all saved; to go on' in out, out
        assert checkpoints.newest_checkpoint(tmp_path / 'run')[1]['step'] > 2
    else:
        assert 'another process of this run has ended' in out or 'Signal 9' in out, out
    assert f'File "{PROGRAM}' not in out, out           # torchrun itself prints a traceback
