"""Systems that lack what Linux has."""
import multiprocessing

import torch

from app.common import files
from app.datasets import pairs
from app.runs import memory
from conftest import TINY
import data

CPU = torch.device('cpu')
SMALL = {'ngf': 8, 'n_down': 2, 'n_blocks': 1, 'ndf': 8, 'nef': 4, 'n_down_encoder': 2}


def test_without_fork_the_training_process_loads_the_pictures(command, scenes, monkeypatch):
    """Windows cannot fork, and on macOS it is not safe."""
    monkeypatch.setattr(multiprocessing, 'get_all_start_methods', lambda: ['spawn'])
    monkeypatch.setattr(data.multiprocessing, 'get_all_start_methods', lambda: ['spawn'])
    monkeypatch.setattr(files, 'fcntl', None)
    monkeypatch.setattr(pairs, 'IN_MEMORY_BYTES', 0)
    for name in ('signal.SIGHUP', 'os.pread', 'os.pwrite', 'os.fork'):
        monkeypatch.delattr(name)
    real, workers = torch.utils.data.DataLoader, []
    monkeypatch.setattr(torch.utils.data, 'DataLoader', lambda *args, num_workers, **more: (
        workers.append(num_workers), real(*args, num_workers=num_workers, **more))[1])
    code, out, err = command('train', '--data', scenes, *TINY, '--steps', 2, '--workers', 2,
                             '--device', 'cpu', '--run', 'run')
    assert code == 0, err
    assert workers and not any(workers)


def test_without_mallopt_training_goes_on(monkeypatch):
    def no_name(name):                                      # what Windows does
        raise TypeError("argument of type 'NoneType' is not iterable")
    monkeypatch.setattr(memory.ctypes, 'CDLL', no_name)
    memory.keep_memory()
