"""A simulated CUDA device, to test on a machine without a GPU what the program does on CUDA.

    P2PHD_SIMULATED_CUDA=1 python -m pytest tests/method/test_cuda.py       # tests run on it
    with device.record() as events: ...                         # Event(kind, operation, line)

PyTorch's CPU build gets a device cuda:0. Each tensor there wraps a CPU tensor, and every operation
runs for real. What CUDA refuses fails: mixing CPU and CUDA tensors, numpy(), CPU generators,
integer matrix products. Events record what the program should avoid:
    wait        the host waits for the device, or a size depends on the data
    unpinned    an asynchronous upload from memory that is not pinned
    unsafe      an asynchronous download
    random      sums in no fixed order, so the result does not repeat
    layout      a copy to another memory layout
    tf32        a float32 convolution that runs in TF32
    saved       a pickled tensor that can only be loaded where there is CUDA
torch.cuda.set_sync_debug_mode('error') works. Speed, memory, rounding, streams, NCCL and triton are
not simulated. device.cpp is compiled once, with g++, in a few seconds.
"""
from collections import namedtuple
from contextlib import contextmanager, nullcontext
from functools import partial
import os
from pathlib import Path
import subprocess
import sys
import tempfile
from zlib import crc32

import torch
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device('cuda', 0)
TORCH = str(Path(torch.__file__).parent)
Event = namedtuple('Event', 'kind operation line')
events, operations, sync_debug_mode = [], [0], 'default'

# Operations whose output size, or whose Python number, depends on the values in a tensor.
WAITING = set('_local_scalar_dense nonzero masked_select equal bincount _unique2 unique_dim '
              'unique_consecutive multinomial linalg_eigh _linalg_svd'.split())
# From the documentation of torch.use_deterministic_algorithms. Max pooling is not in this list: it
# adds to each input once per window that it won, and the windows of VGG-19 do not overlap.
RANDOM = set('scatter_add scatter_add_ scatter_reduce scatter_reduce_ put_ histc '
             'kthvalue nll_loss2d_forward reflection_pad2d_backward grid_sampler_2d_backward '
             'replication_pad2d_backward upsample_bilinear2d_backward upsample_bicubic2d_backward '
             'adaptive_avg_pool2d_backward'.split())
FLOATS_ONLY = set('mm bmm addmm baddbmm mv dot convolution avg_pool2d upsample_bilinear2d '
                  'upsample_bicubic2d _upsample_bicubic2d_aa'.split())


def add_event(kind, operation):
    """Record an event with the innermost line of the program, or 'backward' if it has none."""
    frame, line = sys._getframe(1), 'backward'
    while frame and line == 'backward':
        name = frame.f_code.co_filename
        if not name.startswith((TORCH, '<')) and '/lib/python3' not in name and name != __file__:
            line = f'{Path(name).name}:{frame.f_lineno}'
        frame = frame.f_back
    events.append(Event(kind, str(operation).removeprefix('aten.'), line))
    if sync_debug_mode == 'error' and kind == 'wait':
        raise RuntimeError(f'called a synchronizing CUDA operation: {operation} at {line}')


@contextmanager
def record():
    """Yield a list that holds the events of the block when it has ended."""
    recorded, start = [], len(events)
    yield recorded
    recorded += events[start:]


class SimulatedTensor(torch.Tensor):
    """A tensor on the simulated device. `inner` is the CPU tensor with its values."""
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        self = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=CUDA)
        self.inner = inner.detach() if inner.requires_grad else inner
        return self

    def __repr__(self):
        return f'SimulatedTensor({self.inner})'

    def __format__(self, spec):
        return format(self.item() if spec else repr(self), spec)

    def __reduce_ex__(self, protocol):
        add_event('saved', 'pickle')
        return self.inner.__reduce_ex__(protocol)

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.removeprefix('aten::')
        fake_mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
        if fake_mode:                               # only shapes are computed
            args, kwargs = tree_map_only(cls, lambda x: to_fake(x, fake_mode), (args, kwargs))
            with fake_mode:
                return func(*args, **kwargs)
        parts = func.decompose(*args, **kwargs)     # inference_mode passes composite operations
        if parts is not NotImplemented:
            return parts
        operations[0] += 1
        check(func, name, args, kwargs)
        inner_args, inner_kwargs = tree_map_only(cls, lambda x: x.inner, (args, kwargs))
        target = torch.device(inner_kwargs.pop('device', None) or CUDA)
        if name.startswith('native_batch_norm'):    # inaccurate on the CPU in channels-last
            result = func(*tree_map_only(torch.Tensor, torch.Tensor.double, inner_args))
            result = [y if y is None else y.to(args[0].dtype if i == 0 else torch.float32)
                      for i, y in enumerate(result)]
        else:
            result = func(*inner_args, **inner_kwargs)
        if name.startswith('reflection_pad2d'):     # on CUDA its output is never channels-last
            result = result.contiguous()
        if target.type == 'cpu' or name == 'copy_' and not isinstance(args[0], cls):
            return result
        return return_and_correct_aliasing(func, args, kwargs,
                                           tree_map_only(torch.Tensor, cls, result))


def to_fake(x, fake_mode):
    from torch._subclasses.fake_tensor import FakeTensor
    with torch._C._DisableTorchDispatch():
        meta = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device='meta')
    return FakeTensor(fake_mode, meta, CUDA)


def check(func, name, args, kwargs):
    """Record the events of an operation. Raises RuntimeError for what CUDA refuses."""
    leaves = tree_leaves((args, kwargs))
    on_device = [x for x in leaves if isinstance(x, SimulatedTensor)]
    on_host = [x for x in leaves if isinstance(x, torch.Tensor) and x.device.type == 'cpu']
    first = on_device[0]
    if name in ('copy_', '_to_copy'):
        blocking = not (kwargs.get('non_blocking') or args[2:] and args[2])
        if first is not args[0] or torch.device(kwargs.get('device') or CUDA).type == 'cpu':
            pinned = first is not args[0] and hasattr(args[0], 'pinned')
            if blocking or not pinned:
                add_event('wait' if blocking else 'unsafe', func)
        elif on_host and (blocking or not hasattr(on_host[0], 'pinned')):
            add_event('wait' if blocking else 'unpinned', func)
        return
    if name in ('index', 'index_put', 'index_put_', '_index_put_impl_'):
        indices = [x for x in args[1] if x is not None]
        on_host = [x for x in on_host if x is args[0]]
        is_masked_fill = args[2:] and args[2].numel() == 1
        if any(x.dim() and not isinstance(x, SimulatedTensor)
               or x.dtype == torch.bool and not is_masked_fill for x in indices):
            add_event('wait', func)
        if args[3:] and args[3]:                    # accumulate
            add_event('random', func)
    if any(x.dim() for x in on_host) or any(
            isinstance(x, torch.Generator) and x.device.type == 'cpu' for x in leaves):
        raise RuntimeError(f'Expected all tensors to be on the same device: {func} of ' + ', '.join(
            f'{x.device}{list(x.shape)}' for x in on_device + on_host))
    if name in FLOATS_ONLY and not first.is_floating_point():
        raise RuntimeError(f'{func} not implemented for {first.dtype}')
    if name in WAITING or name == 'repeat_interleave' and kwargs.get('output_size') is None or (
            name == 'isin' and args[1].numel() >= 10 * args[0].numel() ** 0.145):
        add_event('wait', func)
    # Nothing is added twice to a place where the indices differ.
    repeats = name.startswith('index_add') and args[2].inner.unique().numel() < args[2].numel()
    if name in RANDOM or repeats or name == 'bincount' and args[1:] and args[1] is not None or (
            name == 'cumsum' and first.is_floating_point()
            and first.numel() == first.shape[args[1]]):
        add_event('random', func)
    channels_last = [x.is_contiguous(memory_format=torch.channels_last)
                     for x in on_device if x.dim() == 4]
    if name.startswith('reflection_pad2d') and not first.is_contiguous() or (
            name in ('convolution', 'native_batch_norm_backward')
            and channels_last[0] != channels_last[1]):
        add_event('layout', func)
    if (name == 'convolution' and first.dtype == torch.float32
            and torch.backends.cudnn.allow_tf32):
        add_event('tf32', func)


def compile_library():
    """Compile device.cpp, unless that was done before, and load it. OSError without g++."""
    source = Path(__file__).with_suffix('.cpp')
    path = Path(tempfile.gettempdir(), f'{torch.__version__}-{crc32(source.read_bytes()):x}.so')
    if not path.exists():
        partial = path.with_suffix(f'.{os.getpid()}.so')
        subprocess.run(['g++', '-shared', '-fPIC', '-std=c++20', source, '-o', partial,
                        f'-I{TORCH}/include', f'-L{TORCH}/lib', '-ltorch_cpu', '-lc10'], check=True)
        partial.replace(path)
    torch.ops.load_library(path)


def make_tensor(function, *args, device=None, pin_memory=None, **more):
    return SimulatedTensor(function(*args, **more))


def pin_memory(x, *_):
    x = x.clone()
    x.pinned = True
    return x


def empty_like(x, *args, pin_memory=False, original=torch.empty_like, **more):
    y = original(x, *args, **more)
    if pin_memory:
        y.pinned = True
    return y


def start():
    """Simulate the device in this process from now on. Call it before the first tensor is made."""
    compile_library()
    start.library = torch.library.Library('aten', 'IMPL')
    for name in 'empty.memory_format empty_strided arange arange.start arange.start_step'.split():
        start.library.impl(name, partial(make_tensor, getattr(torch, name.split('.')[0])), 'CUDA')
    start.library.impl('copy_', lambda *args: SimulatedTensor.__torch_dispatch__(   # torch.tensor
        torch.ops.aten.copy_.default, (), args), 'CUDA')
    # In one thread, so that events of the backward pass have a line of the program.
    torch.autograd.set_multithreading_enabled(False)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _foreach_utils._foreach_supported_types.append(SimulatedTensor)

    for module, answers in (
            (torch.cuda, dict(
                is_available=True, device_count=2, current_device=0, is_bf16_supported=True,
                set_device=None, init=None, device=nullcontext(), mem_get_info=(80 << 30,) * 2,
                max_memory_reserved=1 << 30, synchronize=None, current_stream=None, set_stream=None,
                reset_peak_memory_stats=None, empty_cache=None, manual_seed_all=None,
                get_device_name='simulated', get_device_capability=(9, 0))),
            (torch.accelerator, dict(is_available=True, current_accelerator=CUDA,
                                     current_device_index=0, set_device_index=None))):
        for name, answer in answers.items():
            setattr(module, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.get_rng_state, torch.cuda._initialized = lambda *_: torch.get_rng_state(), True
    torch.cuda.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    torch.cuda.set_sync_debug_mode = lambda mode: globals().update(sync_debug_mode=mode)
    torch.Tensor.pin_memory = pin_memory
    torch.empty_like = empty_like
    initialise = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda _, **more: initialise('gloo', **more)  # not NCCL
