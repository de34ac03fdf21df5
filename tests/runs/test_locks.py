"""One trainer a folder; processes that die."""
import multiprocessing
import os
from pathlib import Path
import re
import signal
import socket
import threading
import time

import pytest
import torch

from app.common import files
from app.runs import runs
from app.runs.folders import list_checkpoints
from conftest import MINUTES, TINY
import data

CPU = torch.device('cpu')


def read_output(folder):
    """Return all that launched commands have printed."""
    return (folder / 'out.txt').read_text() if (folder / 'out.txt').exists() else ''


def children(process):
    """Return the ids of a process's child processes; [] where the system does not tell."""
    listed = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []


def test_two_trainers_on_one_folder(p2phd, launch, scenes, tmp_path):
    words = ['train', '--data', scenes, '--steps', 10 ** 6, '--run', 'run', '--save-every', 5,
             *TINY, '--size', 'native', '--workers', 2]
    both = [launch(words, tmp_path) for _ in range(2)]
    while all(process.is_alive() for process in both):
        time.sleep(0.05)
    loser, winner = sorted(both, key=lambda process: process.is_alive())
    assert loser.exitcode == 2
    holder = f'process {winner.pid} on {socket.gethostname()}'

    assert holder in read_output(tmp_path)          # also after the winner's first checkpoint
    while not list_checkpoints(tmp_path / 'run'):
        time.sleep(0.05)

    for more in (('--resume', 'run'), ('--data', scenes, '--run', 'run')):
        assert f'run: {holder} is at work there' in p2phd('train', *more, code=2)
    loaders = children(winner)
    # Its loader processes live for seconds more, without the lock.
    winner.kill()
    winner.join()
    last = launch(['train', '--resume', 'run'], tmp_path)
    while f'process {last.pid} ' not in (tmp_path / 'run' / '.lock').read_text():
        assert last.is_alive()
        time.sleep(0.05)
    os.killpg(last.pid, signal.SIGTERM)
    last.join()

    deadline = time.monotonic() + 300
    while any(Path(f'/proc/{pid}').exists() for pid in loaders):
        assert time.monotonic() < deadline, 'loader processes of a trainer that was killed live on'
        time.sleep(0.1)


def test_a_loader_process_whose_trainer_was_killed_first_ends():
    """PyTorch compares its parent's number with that at its start, which may be too late."""
    fork = multiprocessing.get_context('fork')
    for parent, exitcode in ((os.getpid(), 0), (os.getpid() + 1, 1)):
        process = fork.Process(target=data.prepare_loader, args=(0, parent))
        process.start()
        process.join()
        assert process.exitcode == exitcode


def test_a_loader_process_that_dies_is_one_line(launch, scenes, tmp_path):
    """The system may kill it for want of memory: the checkpoint before is whole, and the message
    says how to go on."""
    process = launch(['train', '--data', scenes, '--steps', 10 ** 6, '--run', 'run', *TINY,
                      '--size', 'native', '--workers', 1], tmp_path)
    while '\nstep ' not in read_output(tmp_path):
        assert process.is_alive()
        time.sleep(0.05)
    if not children(process):
        pytest.skip('the system does not tell which the loader process is')
    os.kill(children(process)[0], signal.SIGKILL)
    process.join(60 * MINUTES)
    assert process.exitcode == 2 and 'Traceback' not in read_output(tmp_path)
    assert re.match('p2phd train: a process that loads pictures has died.*--workers 0',
                    read_output(tmp_path).splitlines()[-1])
    runs.load_run(tmp_path / 'run', CPU)


def test_a_loader_process_that_dies_while_it_sends_a_picture(command, scenes, monkeypatch):
    def cut_off(iterator):
        raise ConnectionResetError('Connection reset by peer')
    monkeypatch.setattr(torch.utils.data.dataloader._BaseDataLoaderIter, '__next__', cut_off)
    code, _, err = command('train', '--data', scenes, *TINY, '--steps', 2, '--run', 'run')
    assert code == 2 and 'a process that loads pictures has died' in err


def test_the_name_in_a_lock_is_waited_for(tmp_path):
    with open(tmp_path / '.lock', 'w+b', buffering=0) as file:
        writing = threading.Timer(0.2, file.write, [b'process 1 on here\n'])
        writing.start()
        assert files.lock_holder(file.fileno()) == 'process 1 on here'
        writing.join()
