"""The device that the networks of a run compute on, its arithmetic and its compiler."""
from contextlib import suppress
import os
import shutil
import sys
import time

import torch

from app.common.console import warn
from app.common.errors import UserError
from app.runs import distributed
from app.runs.memory import keep_memory
import nets


def pick_device(name):
    """Return the torch.device of this process and connect it to the others. name: 'auto' (CUDA if
    there is any), 'cpu' or 'cuda'. Raises UserError if there is no such device."""
    has_cuda = name != 'cpu' and torch.cuda.is_available()
    if name == 'cuda' and not has_cuda:
        raise UserError('--device cuda: PyTorch finds no CUDA device here; leave the flag out to '
                        'use the CPU')
    if not has_cuda:
        keep_memory()
    return distributed.initialise(torch.device('cuda' if has_cuda else 'cpu'))


def has_bf16(device):
    """Return whether a device computes in bf16. CPUs with AVX2 or less emulate it, slowly."""
    return device.type != 'cpu' or torch.backends.cpu.get_cpu_capability() not in (
        'AVX2', 'DEFAULT', 'NO AVX')


def pick_precision(config, device, clock=time.perf_counter):
    """Return 'bf16' if this network is at least 20 % faster in it on this device, else 'fp32': what
    first wins three turns. Turns, because other programs then slow down both."""
    if not has_bf16(device):
        return 'fp32'
    down = 3 if config.model == 'unet' else config.n_enhancers + config.n_down
    w, h = config.training.crop or config.size or (512, 256)
    x = torch.zeros(1, config.ngf << down, max(2, h >> down), max(2, w >> down), device=device)
    block = nets.ResidualBlock(x.shape[1]).to(device)

    def measure(precision, x=x, clock=clock):
        started = clock()
        with torch.no_grad(), nets.arithmetic(device, precision):
            block(x).flatten()[0].item()            # waits for the device
        return clock() - started

    wins = {'fp32': 0, 'bf16': 0}
    for precision in wins:                          # the first call of each takes longer
        measure(precision, x[..., :2, :2], time.perf_counter)
    while max(wins.values()) < 3:
        fp32, bf16 = measure('fp32'), measure('bf16')
        wins['bf16' if bf16 <= 0.8 * fp32 else 'fp32'] += 1
    return max(wins, key=wins.get)


def set_precision(config, device, given=None, before=()):
    """Set the arithmetic of a new run to the faster one, unless `given` or `before` has one."""
    if given == 'tf32' and device.type != 'cuda':
        raise UserError('--precision tf32: the CPU has no such arithmetic; fp32, or bf16')
    if given is None and 'precision' not in before:
        config.training.precision = distributed.all_gather(pick_precision(config, device))[0]


def compile_generator(run):
    """Compile run.G with torch.compile, or print a note that there is no compiler."""
    compiler = os.environ.get('CXX', 'g++')
    with suppress(ImportError):
        if run.device.type == 'cuda':
            import triton                           # noqa: F401
            compiler = sys.executable
    if not shutil.which(compiler):
        warn(f'note: --compile: no compiler here ({compiler}); going on without')
        return
    run.G.compile()
