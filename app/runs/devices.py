"""The device that the networks of a run compute on, its arithmetic and its compiler."""
import time

import torch

from app.common.console import warn
from app.common.errors import UserError, one_line
from app.runs import distributed
from app.runs.fast_layers import speed_up
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
    """Whether a device computes in bf16. AVX2 and GPUs before Ampere only emulate it."""
    if device.type == 'cuda':
        return torch.cuda.get_device_capability(device)[0] >= 8
    return torch.backends.cpu.get_cpu_capability() not in ('AVX2', 'DEFAULT', 'NO AVX')


def pick_precision(config, device, clock=time.perf_counter):
    """Return 'bf16' if this network is at least 10 % faster in it on this device, else 'tf32' on a
    GPU and 'fp32' on a CPU; 'fp32' where the device has no bf16. Both compute a residual block in
    turns, and the least seconds count."""
    if not has_bf16(device):
        return 'fp32'
    exact = 'tf32' if device.type == 'cuda' else 'fp32'
    down = 3 if config.model == 'unet' else config.n_enhancers + config.n_down
    w, h = config.training.crop or config.size or (512, 256)
    h, w = (min(max(2, side >> down), 128) for side in (h, w))      # large maps take minutes
    x = torch.zeros(1, config.ngf << down, h, w, device=device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    block = nets.ResidualBlock(x.shape[1]).to(device, memory_format=torch.channels_last)
    speed_up(block, weights_change=True, convolutions=device.type == 'cpu')

    one_size = bool(config.size or config.training.crop)

    def measure(precision, clock=clock):
        started = clock()
        with nets.autocast(device, precision, cudnn_benchmark=one_size):
            y = block(x)
        torch.autograd.grad(y.float().sum(), x)[0].flatten()[0].item()      # waits for the device
        return clock() - started

    seconds, threads = {exact: [], 'bf16': []}, torch.get_num_threads()
    torch.set_num_threads(1)                        # other programs disturb several threads more
    for precision in seconds:                       # the first call of each takes longer
        measure(precision, time.perf_counter)
    while sum(map(sum, seconds.values())) < 1:
        for precision in seconds:
            seconds[precision].append(measure(precision))
    torch.set_num_threads(threads)
    return 'bf16' if min(seconds['bf16']) <= 0.9 * min(seconds[exact]) else exact


def pick_threads(measure, cores):
    """Return the number of threads with which measure(threads) returns the fewest seconds: that of
    the cores, halved as long as this saves a tenth. Slow steps are long enough for all cores."""
    threads, seconds = cores, measure(cores)
    while threads > 1 and seconds < 5:
        fewer = measure(threads // 2)
        if fewer > 0.9 * seconds:
            break
        threads, seconds = threads // 2, fewer
    return threads


def usable_precision(precision, device):
    """Return the precision of a run that makes pictures on this device: 'fp32' where it would only
    emulate bf16, which is several times slower."""
    return 'fp32' if precision == 'bf16' and not has_bf16(device) else precision


def set_precision(config, device, args, inherited=None):
    """Set the arithmetic of a new run to the faster one, unless the command line or the other run
    from which it inherits has one. inherited: {field: value} of that run, if any."""
    given, t = getattr(args, 'precision', None), config.training
    if given == 'tf32' and device.type != 'cuda':
        raise UserError('--precision tf32: the CPU has no such arithmetic; fp32, or bf16')
    keep = given is None and 'precision' in (inherited or ()) and (
        usable_precision(t.precision, device) == t.precision)
    if given in (None, 'auto') and not keep:
        t.precision = distributed.all_gather(pick_precision(config, device))[0]


def compile_generator(run):
    """Compile run.G with torch.compile, or print a note that the compiler does not work."""
    # A small function first, with a size that no earlier run has left in the compiler's cache.
    try:
        torch.compile(torch.sin)(torch.ones(8 + time.time_ns() % 100_000, device=run.device))
    except Exception as error:                      # without triton, headers, a C compiler ...
        warn(f'note: --compile: PyTorch cannot compile here ({one_line(error)}); going on without')
        return
    run.G.compile()
