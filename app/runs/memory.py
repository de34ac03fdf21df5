"""The memory that training takes."""
import torch

from app.common.console import log_info, warn
from app.runs import devices, distributed
import train


def memory_needed(run):
    """Estimate the bytes of memory that training takes in this process, by a pass through the
    networks with tensors that have sizes and no values. None where pictures differ in size."""
    from torch._subclasses.fake_tensor import FakeTensorMode     # takes a while to import
    c, t = run.config, run.config.training
    if not (t.crop or c.size):
        return None
    w, h = t.crop or c.size
    n = t.batch // t.accumulate // distributed.WORLD_SIZE
    sizes = (1 if c.n_labels else c.in_channels, torch.uint8), (1, torch.int32), (
        c.out_channels, torch.float32)
    step, run.step = run.step, t.total_steps        # when everything is trained
    train.freeze_inner(run)
    with FakeTensorMode(allow_non_fake_inputs=True), devices.PeakMemory() as memory:
        label, inst, image = (torch.empty(n, channels, h, w, dtype=dtype, device=run.device)
                              for channels, dtype in sizes)
        train.forward_backward(run, label, None if c.instances == 'none' else inst, image, None, 0)
        for optimizer in (run.opt_G, run.opt_D):
            optimizer.zero_grad()
    run.last_map = ()
    weights, trained = (sum(p.nbytes for p in parameters) for parameters in (
        (p for net in (run.G, run.D, run.E, run.vgg, *run.average.values()) if net
         for p in net.parameters()), train.trainable_parameters(run)))
    run.step = step
    train.freeze_inner(run)
    # Adam keeps two moments; while a checkpoint is written there is a copy of all of it.
    return memory.peak + (weights + 2 * trained) * (2 if run.device.type == 'cpu' else 1)


def compare_memory(run):
    """Print how much memory a run will need, and warn where less is free. Returns whether there is
    enough, as far as can be known."""
    needed, free = memory_needed(run), devices.free_memory(run.device)
    if needed is None or free is None:
        return True
    message = f'memory: about {needed / 2 ** 30:.1f} GiB needed, {free / 2 ** 30:.1f} GiB free'
    if needed < free:
        log_info(message)
    else:
        warn(f'warning: {message}; --precision bf16, --recompute, --accumulate (of a larger '
             '--batch), --crop, a smaller --size or --ngf take less')
    return needed < free
