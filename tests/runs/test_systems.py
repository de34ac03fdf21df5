"""Systems that lack what Linux has."""
import multiprocessing

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from app.common import files
from app.runs import devices
from conftest import TINY, make_run
import data
import generate
import nets
import styles
import train

CPU = torch.device('cpu')
SMALL = {'ngf': 8, 'n_down': 2, 'n_blocks': 1, 'ndf': 8, 'nef': 4, 'n_down_encoder': 2}


def test_without_fork_the_training_process_loads_the_pictures(command, scenes, monkeypatch):
    """Windows cannot fork, and on macOS it is not safe."""
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


def test_without_mallopt_training_goes_on(monkeypatch):
    def no_name(name):                                      # what Windows does
        raise TypeError("argument of type 'NoneType' is not iterable")
    monkeypatch.setattr(devices.ctypes, 'CDLL', no_name)
    devices.keep_memory()


def test_instance_means_without_float64(monkeypatch):
    """MPS lacks float64; the CPU computes these means for it."""
    calls = []
    monkeypatch.setattr(nets, 'lacks_float64', lambda device: calls.append(device) or (
        len(calls) == 1))
    features, inst = torch.randn(1, 2, 8, 8), torch.arange(64).view(1, 1, 8, 8) // 20
    means = nets.instance_mean(features, inst)
    assert calls
    for i in range(4):
        assert torch.allclose(means[0, :, inst[0, 0] == i].mean(1),
                              features[0, :, inst[0, 0] == i].mean(1), atol=1e-6)


def test_training_clustering_and_generating_need_no_float64_on_the_device(monkeypatch):
    """Only what the CPU computes for MPS uses float64 tensors."""
    class Watch(TorchDispatchMode):
        allowed, seen = False, []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if not self.allowed and isinstance(made, torch.Tensor) and made.dtype == torch.float64:
                self.seen.append(str(function))
            return made

    def allow(function):                                    # runs on the CPU
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
