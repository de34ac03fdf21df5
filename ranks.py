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

from files import UserError

SIZE = int(os.environ.get('WORLD_SIZE') or 1)       # processes
RANK = int(os.environ.get('RANK') or 0)             # which of them this is
FIRST = RANK == 0
notes = None                                        # a group on the CPU, for numbers
if SIZE > 1 and 'MASTER_ADDR' not in os.environ:
    raise UserError(f'WORLD_SIZE is {SIZE}, and MASTER_ADDR is not set: start the command with '
                    'torchrun, which sets both, or unset WORLD_SIZE')


def start(device):
    """Meet the others -> the torch.device of this process."""
    global notes
    if SIZE > 1 and notes is None:
        if device.type == 'cuda':
            device = torch.device('cuda', int(os.environ['LOCAL_RANK']))
            torch.cuda.set_device(device)
        # The first trains a judge, or clusters, while the others wait.
        patience = timedelta(hours=12)
        distributed.init_process_group('nccl' if device.type == 'cuda' else 'gloo',
                                       timeout=patience)
        notes = distributed.new_group(backend='gloo', timeout=patience)
        if not FIRST:
            sys.stdout = sys.stderr = open(os.devnull, 'w')
    return device


def lost(error):
    """Whether an exception says that another process is gone. Gloo has only words for it."""
    words = ('gloo', 'NCCL', 'Connection', 'Broken pipe')
    return type(error).__name__.startswith('Dist') or any(word in str(error) for word in words)


def end():
    """Wait for the others, and part from them."""
    global notes
    if notes is not None:
        distributed.barrier(notes)
        distributed.destroy_process_group()
        notes = None


def share(items):
    """Those of the items, of a list as long as a multiple of SIZE or for any process to do, that
    fall to this process."""
    each = -(-len(items) // SIZE)
    return items[RANK * each:(RANK + 1) * each]


@contextmanager
def first_goes_first():
    """What is within is done by the first process, and then by the others, who find what it has
    left on the disk."""
    if SIZE > 1 and not FIRST:
        distributed.barrier(notes)
    try:
        yield
    finally:
        if SIZE > 1 and FIRST:
            distributed.barrier(notes)


def of_first(value):
    """The value that the first process has, in all of them."""
    values = [value]
    if SIZE > 1:
        distributed.broadcast_object_list(values, group=notes, device=torch.device('cpu'))
    return values[0]


def gathered(value):
    """The values of all processes, in all of them -> list."""
    values = [value] * SIZE
    if SIZE > 1:
        distributed.all_gather_object(values, value, group=notes)
    return values


def alike(tensors):
    """Put the first process's numbers into the tensors of all."""
    if SIZE > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), 0)


def average(tensors):
    """Put the mean over all processes into each tensor. The device goes on meanwhile."""
    if SIZE > 1:
        for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()                             # on CUDA, the device waits and not the host
        torch._foreach_div_(tensors, SIZE)


def extreme(value, largest):
    """The least or the largest of a 0-dimensional tensor over all processes."""
    if SIZE > 1:
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
        if SIZE == 1:
            return number
        agreed = 0
        if self.work:
            self.work.wait()
            agreed = int(self.number)
        self.number = torch.tensor(number)
        self.work = distributed.all_reduce(self.number, distributed.ReduceOp.MAX, notes, True)
        return agreed

    def end(self):
        if self.work:
            self.work.wait()
