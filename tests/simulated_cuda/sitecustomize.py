"""Python runs this file when it starts, if its folder is on PYTHONPATH. With P2PHD_SIMULATED_CUDA
set, every process simulates a CUDA device as soon as torch is imported."""
import importlib.abc
import importlib.machinery
import importlib.util
import os
from pathlib import Path
import sys


class TorchFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != 'torch':
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def execute_and_simulate(module):
            execute(module)
            sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
            from simulated_cuda import device
            sys.path.pop(0)
            device.start()
        spec.loader.exec_module = execute_and_simulate
        return spec


if os.environ.get('P2PHD_SIMULATED_CUDA'):
    sys.meta_path.insert(0, TorchFinder())
