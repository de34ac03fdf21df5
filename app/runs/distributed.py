"""Many processes, on one machine or several, that work as one: torchrun starts them, and each
computes its share of every batch, or of the pictures to be made.

All hold the same weights and take the same steps, for every gradient is averaged over them. The
first process alone writes, logs and draws. Without torchrun there is one process, and everything
here does nothing.
"""
from contextlib import contextmanager
from datetime import timedelta
import os
import sys

import torch
from torch import distributed

from app.common.errors import UserError

WORLD_SIZE = int(os.environ.get('WORLD_SIZE') or 1)       # processes
RANK = int(os.environ.get('RANK') or 0)             # which of them this is
IS_MAIN = RANK == 0
cpu_group = None                                        # a group on the CPU, for numbers
if WORLD_SIZE > 1 and 'MASTER_ADDR' not in os.environ:
    raise UserError(f'WORLD_SIZE is {WORLD_SIZE}, and MASTER_ADDR is not set: start the command with '
                    'torchrun, which sets both, or unset WORLD_SIZE')


def initialise(device):
    """Meet the others -> the torch.device of this process."""
    global cpu_group
    if WORLD_SIZE > 1 and cpu_group is None:
        if device.type == 'cuda':
            device = torch.device('cuda', int(os.environ['LOCAL_RANK']))
            torch.cuda.set_device(device)
        # The first trains a judge, or clusters, while the others wait.
        patience = timedelta(hours=12)
        distributed.init_process_group('nccl' if device.type == 'cuda' else 'gloo',
                                       timeout=patience)
        cpu_group = distributed.new_group(backend='gloo', timeout=patience)
        if not IS_MAIN:
            sys.stdout = sys.stderr = open(os.devnull, 'w')
    return device


def is_connection_error(error):
    """Whether an exception says that another process is gone. Gloo has only words for it."""
    words = ('gloo', 'NCCL', 'Connection', 'Broken pipe')
    return type(error).__name__.startswith('Dist') or any(word in str(error) for word in words)


def shut_down():
    """Wait for the others, and part from them."""
    global cpu_group
    if cpu_group is not None:
        distributed.barrier(cpu_group)
        distributed.destroy_process_group()
        cpu_group = None


def shard(items):
    """Those of the items, of a list as long as a multiple of SIZE or for any process to do, that
    fall to this process."""
    each = -(-len(items) // WORLD_SIZE)
    return items[RANK * each:(RANK + 1) * each]


@contextmanager
def main_process_first():
    """What is within is done by the first process, and then by the others, who find what it has
    left on the disk."""
    if WORLD_SIZE > 1 and not IS_MAIN:
        distributed.barrier(cpu_group)
    try:
        yield
    finally:
        if WORLD_SIZE > 1 and IS_MAIN:
            distributed.barrier(cpu_group)


def broadcast_object(value):
    """The value that the first process has, in all of them."""
    values = [value]
    if WORLD_SIZE > 1:
        distributed.broadcast_object_list(values, group=cpu_group, device=torch.device('cpu'))
    return values[0]


def all_gather(value):
    """The values of all processes, in all of them -> list."""
    values = [value] * WORLD_SIZE
    if WORLD_SIZE > 1:
        distributed.all_gather_object(values, value, group=cpu_group)
    return values


def broadcast(tensors):
    """Put the first process's numbers into the tensors of all."""
    if WORLD_SIZE > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), 0)


def all_reduce_mean(tensors):
    """Put the mean over all processes into each tensor. The device goes on meanwhile."""
    if WORLD_SIZE > 1:
        for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()                             # on CUDA, the device waits and not the host
        torch._foreach_div_(tensors, WORLD_SIZE)


def all_reduce_extreme(value, largest):
    """The least or the largest of a 0-dimensional tensor over all processes."""
    if WORLD_SIZE > 1:
        value = value.clone()
        operation = distributed.ReduceOp.MAX if largest else distributed.ReduceOp.MIN
        distributed.all_reduce(value, operation)
    return value


class Agreement:
    """A whole number that all processes agree upon: the largest that any of them had a call ago,
    so that nobody waits for it."""

    def __init__(self):
        self.work = None

    def __call__(self, number):
        if WORLD_SIZE == 1:
            return number
        agreed = 0
        if self.work:
            self.work.wait()
            agreed = int(self.number)
        self.number = torch.tensor(number)
        self.work = distributed.all_reduce(self.number, distributed.ReduceOp.MAX, cpu_group, True)
        return agreed

    def end(self):
        if self.work:
            self.work.wait()
