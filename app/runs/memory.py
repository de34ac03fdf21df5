"""Memory: how much training needs, how much is free, and how freed memory is kept."""
from contextlib import suppress
import ctypes
from pathlib import Path
import sys
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from app.common.errors import UserError
from app.runs import distributed
import generate
import nets
import train

# With larger maps than this, keeping freed memory wastes too much of it.
KEPT_PIXELS = 2048 * 1024
LARGE_PIXELS = 4096 * 4096              # see check_picture
largest_peak = 0                        # see peak_memory


def keep_memory(keep=True):
    """Let this process keep the memory that it frees (Linux), which saves a fifth of the time."""
    with suppress(OSError, AttributeError, TypeError):      # other systems; TypeError: Windows
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0 if keep else 1 << 16)    # M_MMAP_MAX, and its default
        libc.mallopt(-1, (1 << 31) - 1)             # M_TRIM_THRESHOLD


def free_memory(device):
    """Return the bytes that a process can still take; None if the system does not say."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path('/proc/meminfo').read_text().splitlines()
        line = next(line for line in lines if line.startswith('MemAvailable'))
        return int(line.split()[1]) << 10


def peak_memory(device):
    """Return the most bytes that this process has had so far; None if the system does not say."""
    global largest_peak
    if device.type == 'cuda':
        # With the memory of CUDA graphs, whose capture resets PyTorch's own maximum.
        largest_peak = max(largest_peak, torch.cuda.max_memory_reserved(device))
        return largest_peak
    with suppress(ImportError):
        import resource                             # not on Windows
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class PeakMemory(TorchDispatchMode):
    """A context that counts the bytes of the tensors made in it, also fake ones: `now` those that
    are alive, `peak` the most that were alive at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            storage = x.untyped_storage() if isinstance(x, torch.Tensor) else None
            if storage is not None and storage not in self.seen:
                self.seen.add(storage)
                self.add(storage.nbytes())
                weakref.finalize(storage, self.add, -storage.nbytes())
        return result

    def add(self, n):
        self.now += n
        self.peak = max(self.peak, self.now)


def weight_bytes(*networks):
    return sum(p.nbytes for network in networks if network for p in network.parameters())


def check_weights(config, device):
    """Raise UserError if the networks of a new run need more memory than is free: for the weights,
    their gradients and averages, and the two moments of Adam. The networks are not made."""
    with torch.device('meta'):
        built = {name: constructor() for name, constructor in nets.constructors(config).items()}
    averaged = weight_bytes(*(built[name] for name in built if name != 'D'))
    needed = 4 * weight_bytes(*built.values()) + averaged * bool(config.training.ema)
    if device.type == 'cpu':
        needed *= distributed.LOCAL_WORLD_SIZE
    free = free_memory(device)
    if any(distributed.all_gather(free is not None and needed > free)):
        flags = ' '.join(f'--{flag} {getattr(config, flag)}' for name, flag in (
            ('G', 'ngf'), ('D', 'ndf'), ('E', 'nef')) if name in built)
        raise UserError(f'{flags}: training these networks needs {needed / 2 ** 30:.1f} GiB of '
                        f'memory, and {(free or 0) / 2 ** 30:.1f} GiB are free; choose smaller '
                        'networks')


def checkpoint_bytes(run):
    """Return the size of a checkpoint: weights, their averages, and two moments of Adam."""
    return (weight_bytes(run.G, run.D, run.E, *run.average.values())
            + 2 * sum(p.nbytes for p in train.trainable_parameters(run)))


def bytes_in_use(run):
    """Return the bytes of what memory_needed counts and a run has already."""
    moments = [x for optimizer in (run.opt_G, run.opt_D) for state in optimizer.state.values()
               for x in state.values()]
    bytes_here = weight_bytes(run.G, run.D, run.E, run.vgg, *run.average.values()) + sum(
        x.nbytes for x in moments)
    return bytes_here * (distributed.LOCAL_WORLD_SIZE if run.device.type == 'cpu' else 1)


def memory_needed(run):
    """Estimate the bytes that training takes, by a step on tensors without values: on the CPU of
    all processes here, on a GPU of this one. None if the pictures keep their own sizes."""
    from torch._subclasses.fake_tensor import FakeTensorMode     # takes long to import
    c, t = run.config, run.config.training
    if not (t.crop or c.size):
        return None
    (w, h), n = t.crop or c.size, t.batch // t.accumulate // distributed.WORLD_SIZE
    step, run.step = run.step, t.total_steps        # when everything is trained
    train.freeze_inner(run)
    with FakeTensorMode(allow_non_fake_inputs=True), PeakMemory() as memory:
        label, inst, image = (
            torch.empty(n, channels, h, w, dtype=dtype, device=run.device) for channels, dtype in (
                (1 if c.n_labels else c.in_channels, torch.uint8), (1, torch.int32),
                (c.out_channels, torch.float32)))
        train.forward_backward(run, label, None if c.instances == 'none' else inst, image, None, 0)
        run.opt_G.zero_grad()
        run.opt_D.zero_grad()
    kept = checkpoint_bytes(run)
    needed = memory.peak + kept + weight_bytes(run.vgg)
    run.step, run.last_map = step, ()
    if run.device.type == 'cpu':                    # and the main process copies each checkpoint
        needed = distributed.LOCAL_WORLD_SIZE * needed + kept
    return needed


def check_picture(run, size, name):
    """Raise UserError, which begins with `name`, where a picture of `size` (width, height) takes
    more memory than is free. Only for large ones, because the estimate takes a second."""
    (w, h), c = size, run.config
    if w * h <= LARGE_PIXELS:
        return
    if run.device.type == 'cuda':
        torch.cuda.empty_cache()                    # of what an earlier picture took
    if (free := free_memory(run.device)) is None:
        return
    from torch._subclasses.fake_tensor import FakeTensorMode     # takes long to import
    multiple = nets.input_multiple(c)
    shape = -(-h // multiple) * multiple, -(-w // multiple) * multiple
    with (torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), PeakMemory() as memory,
          nets.autocast(run.device, run.precision)):
        label, inst, features = (
            torch.empty(1, channels, *shape, dtype=dtype, device=run.device)
            for channels, dtype in ((1 if c.n_labels else c.in_channels, torch.uint8),
                                    (1, torch.int32), (c.feat, torch.float32)))
        present = torch.arange(12, device=run.device) if c.n_labels > 12 else None      # at least
        generate.run_generator(run, label, None if c.instances == 'none' else inst,
                               features if c.features else None, 0, present)
    if memory.peak > free:
        raise UserError(f'{name}: a picture of {w}x{h} takes about {memory.peak / 2 ** 30:.0f} GiB '
                        f'of memory, and {free / 2 ** 30:.0f} GiB are free; take a smaller --size')


def compare_memory(run):
    """Return whether the memory that a run needs is free, and a line that says so, None where that
    is not known. A new run that lacks memory recomputes activations, unless the command line
    decides that."""
    t, needed, free = run.config.training, memory_needed(run), free_memory(run.device)
    if needed is None or free is None:
        return True, None
    free += bytes_in_use(run)
    enough = all(distributed.all_gather(needed < free))
    if not (enough or run.step or t.recompute or 'recompute' in t.flags
            or run.config.model == 'unet'):
        t.recompute = run.G.recompute = True
        return compare_memory(run)
    message = (f'about {needed / 2 ** 30:.1f} GiB needed{" with --recompute" * t.recompute}, '
               f'{free / 2 ** 30:.1f} GiB free')
    return enough, f'  memory    {message}' if enough else f'warning: memory: {message}; ' + (
        '--recompute takes less' if run.step else '--precision bf16, --recompute, --accumulate (of '
        'a larger --batch), --crop, a smaller --size or --ngf take less')
