"""Where, in what arithmetic and with how much memory the networks of a run compute."""
from contextlib import suppress
import ctypes
import os
from pathlib import Path
import shutil
import sys
import time
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from app.common.console import warn
from app.common.errors import UserError
import nets
from app.runs import distributed


def pick_device(name):
    """'auto', 'cpu', 'cuda' or 'mps' -> torch.device, UserError where there is no such device."""
    if name == 'mps':
        if not torch.backends.mps.is_available():
            raise UserError('--device mps: PyTorch finds none here; leave the flag out to use the '
                            'CPU')
        return distributed.initialise(torch.device('mps'))
    if name == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: PyTorch finds no CUDA device here; leave the flag out to '
                        'use the CPU')
    if name == 'cpu' or not torch.cuda.is_available():
        keep_memory()
        return distributed.initialise(torch.device('cpu'))
    return distributed.initialise(torch.device('cuda'))


# ---------------------------------------------------------------------------------- arithmetic

def arithmetic(run):
    """The context in which a run's networks compute: float32, TF32 or, for convolutions, bfloat16
    (norms sum up in float32 there)."""
    torch.backends.cudnn.allow_tf32 = run.precision == 'tf32'
    return torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == 'bf16')


def has_bf16(device):
    """Return whether a device computes in bf16. A CPU that has only AVX2, or no vector unit that
    PyTorch knows, emulates it, which takes a hundred times as long."""
    return device.type != 'cpu' or torch.backends.cpu.get_cpu_capability() not in (
        'AVX2', 'DEFAULT', 'NO AVX')


def pick_precision(config, device, clock=time.perf_counter):
    """Return 'bf16' if this network is at least 20 % faster in it on this device, else 'fp32'.

    Both compute a residual block (or a convolution as wide, for a U-Net) in turns, so that another
    program slows down both. The first to win three turns is chosen.
    """
    if not has_bf16(device):
        return 'fp32'
    down = 3 if config.model == 'unet' else config.n_enhancers + config.n_down
    w, h = config.training.crop or config.size or (512, 256)
    x = torch.zeros(1, config.ngf << down, max(2, h >> down), max(2, w >> down), device=device)
    block = nets.ResidualBlock(x.shape[1]).to(device)

    def run_block(x, precision):
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, precision == 'bf16'):
            block(x).flatten()[0].item()

    def measure(precision):
        started = clock()
        run_block(x, precision)
        return clock() - started

    wins = {'fp32': 0, 'bf16': 0}
    for precision in wins:                          # the first call of each takes longer
        run_block(x[..., :2, :2], precision)
    while max(wins.values()) < 3:
        fp32, bf16 = measure('fp32'), measure('bf16')
        wins['bf16' if bf16 <= 0.8 * fp32 else 'fp32'] += 1
    return max(wins, key=wins.get)


def set_precision(config, device, wish=None, before=()):
    """Put into the configuration the arithmetic that the command line, or the run before ({field:
    value}), asks for; else the one that is faster. UserError where the device has it not."""
    if wish == 'tf32' and device.type != 'cuda':
        raise UserError('--precision tf32: the CPU has no such arithmetic; fp32, or bf16')
    if wish is None and 'precision' not in before:
        config.training.precision = distributed.broadcast_object(pick_precision(config, device))


def compile_generator(run):
    """Have run.G compiled by torch.compile, which its weights' names do not show; say so where
    there is no compiler."""
    compiler = os.environ.get('CXX', 'g++')
    with suppress(ImportError):
        if run.device.type == 'cuda':
            import triton                           # noqa: F401
            compiler = sys.executable
    if not shutil.which(compiler):
        warn(f'note: --compile: no compiler here ({compiler}); going on without')
        return
    run.G.compile()


# -------------------------------------------------------------------------------------- memory

def keep_memory(keep=True):
    """Have freed memory stay with the process, on Linux: maps of the size of a picture, which come
    and go with every layer, would be given back and fetched anew, page by page, for a fifth of the
    time of a step. Or not, where pictures are so large that the gaps between them matter."""
    with suppress(OSError, AttributeError, TypeError):      # another system; TypeError: Windows
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0 if keep else 1 << 16)    # M_MMAP_MAX, and its default
        libc.mallopt(-1, (1 << 31) - 1)             # M_TRIM_THRESHOLD


def free_memory(device):
    """Bytes that a process can have there; None where the system does not say."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path('/proc/meminfo').read_text().splitlines()
        line = next(line for line in lines if line.startswith('MemAvailable'))
        return int(line.split()[1]) << 10
    return None


def peak_memory(device):
    """The most bytes that this process has had there; None where the system does not say."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    with suppress(ImportError):
        import resource                             # not on Windows
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


class PeakMemory(TorchDispatchMode):
    """While it is entered, counts the bytes of all tensors that are made and have not been freed:
    `now`, and `peak`, the most there were. On the device 'meta' that costs no memory."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor) and x.untyped_storage() not in self.seen:
                storage = x.untyped_storage()
                self.seen.add(storage)
                weakref.finalize(storage, self.freed, storage.nbytes())
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
        return result

    def freed(self, n):
        self.now -= n


GAPLESS = 2048 * 1024       # pixels of the largest map for which freed memory is kept


def keep_memory_for(label):
    """Keep freed memory on the CPU for maps (..., H, W) up to 2048x1024. Larger ones leave gaps
    that matter, and give it back."""
    keep_memory(label.shape[-2] * label.shape[-1] <= GAPLESS)
