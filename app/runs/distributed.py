"""Several processes that train or generate as one, started by torchrun. Each computes its shard;
only the main process writes and logs. In a single process, the functions here do nothing."""
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
import os
import sys

import torch
import torch.distributed as dist

from app.common.errors import UserError

WORLD_SIZE = int(os.environ.get('WORLD_SIZE') or 1)     # number of processes
if WORLD_SIZE > 1 and not {'RANK', 'LOCAL_RANK', 'MASTER_ADDR'} <= os.environ.keys():
    raise UserError(f'WORLD_SIZE is {WORLD_SIZE}, and RANK, LOCAL_RANK or MASTER_ADDR is not set: '
                    'start the command with torchrun, which sets them, or unset WORLD_SIZE')
RANK = int(os.environ['RANK']) if WORLD_SIZE > 1 else 0     # number of this process
LOCAL_WORLD_SIZE = int(os.environ.get('LOCAL_WORLD_SIZE') or WORLD_SIZE)    # on this machine
IS_MAIN = RANK == 0
cpu_group = None                                        # for numbers and objects
works_apart = False     # before that, all processes do the same, and so fail with the same error


def initialise(device):
    """Connect to the other processes. Returns the torch.device of this process."""
    global cpu_group
    if WORLD_SIZE > 1 and cpu_group is None:
        if device.type == 'cuda':
            if LOCAL_WORLD_SIZE > (n := torch.cuda.device_count()):
                raise UserError(f'{LOCAL_WORLD_SIZE} processes on a machine with {n} GPUs; start '
                                f'torchrun with --nproc_per_node={n}')
            device = torch.device('cuda', int(os.environ['LOCAL_RANK']))
            torch.cuda.set_device(device)
        # The others wait while the main process trains a judge or clusters.
        timeout = timedelta(hours=12)
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo', timeout=timeout)
        cpu_group = dist.new_group(backend='gloo', timeout=timeout)
        dist.barrier(cpu_group)         # none may end with an error while another one connects
        if not IS_MAIN:
            sys.stdout = sys.stderr = open(os.devnull, 'w')
    return device


def shut_down():
    """Wait for the other processes and disconnect."""
    global cpu_group
    if cpu_group is not None:
        dist.barrier(cpu_group)
        dist.destroy_process_group()
        cpu_group = None


def shard(items):
    """Return the part of a list that this process takes."""
    global works_apart
    works_apart = True
    each = -(-len(items) // WORLD_SIZE)
    return items[RANK * each:(RANK + 1) * each]


@contextmanager
def main_process_first():
    """Run a block in the main process, then in the others, which find its files on the disk."""
    if WORLD_SIZE > 1 and not IS_MAIN:
        dist.barrier(cpu_group)
    try:
        yield
    finally:
        if WORLD_SIZE > 1 and IS_MAIN:
            dist.barrier(cpu_group)


def all_gather(value):
    """Return the list of all processes' values, in every process. Tensors must be on the CPU."""
    values = [value] * WORLD_SIZE
    if WORLD_SIZE > 1:
        dist.all_gather_object(values, value, group=cpu_group)
    return values


def broadcast(tensors):
    """Copy the main process's tensors into those of every process."""
    for tensor in tensors if WORLD_SIZE > 1 else ():
        dist.broadcast(tensor.detach(), 0)


def all_reduce(tensors, operation='mean'):
    """Combine each tensor over all processes, in place, by 'mean', 'min' or 'max'."""
    if WORLD_SIZE > 1:
        kind = {'mean': dist.ReduceOp.SUM, 'min': dist.ReduceOp.MIN, 'max': dist.ReduceOp.MAX}
        for work in [dist.all_reduce(tensor, kind[operation], async_op=True) for tensor in tensors]:
            work.wait()
        if operation == 'mean':
            torch._foreach_div_(tensors, WORLD_SIZE)


class GradientReducer:
    """Averages gradients over all processes while the backward pass still computes others.

    Each parameter reports when its gradient is complete, after `parts` backward passes. Complete
    gradients are collected, and every BUCKET bytes of them are sent as one tensor."""
    BUCKET = 25 << 20

    def __init__(self, parameters, parts):
        self.parts, self.counts, self.bucket, self.sent = parts, Counter(), [], []
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self.add)

    def add(self, parameter):
        self.counts[id(parameter)] += 1
        if self.counts[id(parameter)] == self.parts:
            self.bucket.append(parameter.grad)
            if sum(gradient.nbytes for gradient in self.bucket) >= self.BUCKET:
                self.send()

    def send(self):
        flat = torch.cat([gradient.flatten() for gradient in self.bucket])
        self.sent.append((dist.all_reduce(flat, async_op=True), flat, self.bucket))
        self.bucket = []

    def __call__(self, tensors, operation):
        """As all_reduce. The first call after a backward pass is for all gradients."""
        if not self.counts:
            return all_reduce(tensors, operation)
        if self.bucket:
            self.send()
        for work, flat, gradients in self.sent:
            work.wait()
            parts = flat.div_(WORLD_SIZE).split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [part.view(gradient.shape)
                                             for part, gradient in zip(parts, gradients)])
        self.counts.clear()
        self.sent.clear()


class Agreement:
    """Called with a number, returns the largest number that any process gave at the call before:
    nobody waits for it, and all processes get the same."""
    work, number = None, 0

    def __call__(self, number):
        if WORLD_SIZE == 1:
            return number
        agreed = self.end()
        self.number = torch.tensor(number)
        self.work = dist.all_reduce(self.number, dist.ReduceOp.MAX, cpu_group, True)
        return agreed

    def end(self):
        if self.work:
            self.work.wait()
        return int(self.number)
