"""CUDA graphs: launch all kernels of a step's forward and backward pass at once.

A step has more than a thousand kernels. A fast GPU computes them sooner than Python launches them
one by one. The results are the same with and without graphs."""
from contextlib import suppress

import torch

from app.common.console import warn
from app.common.errors import one_line
from app.runs import distributed, memory
import train


def use_graphs(run):
    """Let the training steps of a run use CUDA graphs: on one GPU, for pictures of one size. Not
    with the U-Net and --augment, whose random numbers are set on the CPU, nor with --recompute and
    --compile."""
    t = run.config.training
    if (run.device.type == 'cuda' and distributed.WORLD_SIZE == 1 and t.cuda_graphs
            and (t.crop or run.config.size) and run.config.model != 'unet'
            and not (t.augment or t.recompute or t.compile)):
        run.graphed_forward_backward = GraphedPass()


class GraphedPass:
    """train.forward_backward, with a graph for each shape of its inputs. A graph adds the gradients
    to p.grad in place, so these tensors must not be replaced."""

    def __init__(self):
        self.graphs, self.pool, self.largest = {}, None, 0

    def __call__(self, run, label, inst, image, present_labels, noise_seed):
        inputs = label, inst, image, present_labels
        if run.graphed_forward_backward is not self:    # the first part of this batch failed
            return train.forward_backward(run, *inputs, noise_seed)
        trained = train.trainable_parameters(run)           # fewer while a part of G is frozen
        key = (len(trained), *(None if x is None else (x.shape, x.dtype) for x in inputs))
        if key not in self.graphs and not self.try_capture(key, run, inputs, trained):
            return train.forward_backward(run, *inputs, noise_seed)
        graph, copies, names, values = self.graphs[key]
        for copy, x in zip(copies, inputs):
            if x is not None:
                copy.copy_(x, non_blocking=True)
        graph.replay()
        return dict(zip(names, values.clone().unbind()))

    def try_capture(self, key, run, inputs, trained):
        """Capture a graph and return True, or let the run go on without graphs."""
        stream = torch.cuda.current_stream()
        try:
            self.graphs[key] = self.capture(run, inputs, trained)
            return True
        except RuntimeError as error:
            reason = one_line(error)
        # Not in the except clause: its traceback keeps the tensors of the failed pass alive.
        torch.cuda.set_stream(stream)               # a failed capture may leave its own
        warn(f'note: training goes on without CUDA graphs, which is slower ({reason})')
        run.graphed_forward_backward, run.last_map = None, ()
        self.graphs.clear()
        for p in trained:
            p.grad = None
        with suppress(RuntimeError):                # PyTorch may refuse after a failed capture
            torch.cuda.empty_cache()
        return False

    def capture(self, run, inputs, trained):
        """Return the graph of a pass, its inputs, and its terms: their names and one tensor. Raises
        RuntimeError where that is not possible."""
        graph = torch.cuda.CUDAGraph()
        copies = [None if x is None else x.clone() for x in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        gradients = [p.grad for p in trained]
        run.D.eval()                                # spectral norm keeps its state
        try:
            with torch.cuda.stream(stream):
                for _ in range(2):                  # the first pass tunes cuDNN, in more memory
                    memory.peak_memory(run.device)          # keeps the maximum so far
                    torch.cuda.reset_peak_memory_stats()
                    for p in trained:
                        p.grad = None
                    train.forward_backward(run, *copies, 0)
        finally:
            run.D.train()
        torch.cuda.current_stream().wait_stream(stream)
        for p, gradient in zip(trained, gradients):
            p.grad = torch.zeros_like(p) if gradient is None else gradient
        self.require_memory(run, trained)
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        # Threads that load pictures and write checkpoints may go on meanwhile.
        with torch.cuda.graph(graph, self.pool, capture_error_mode='thread_local'):
            terms = train.forward_backward(run, *copies, 0)
            values = torch.stack(list(terms.values()))
        run.last_map = ()
        return graph, copies, list(terms), values

    def require_memory(self, run, trained):
        """Raise RuntimeError if there is not enough memory for the graph of a pass, beside a pass
        without one, and for the moments that Adam has not made yet. All graphs share their memory.
        """
        torch.cuda.synchronize()
        size = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
        torch.cuda.empty_cache()
        states = {**run.opt_G.state, **run.opt_D.state}
        needed = size + max(0, size - self.largest) + sum(
            8 * p.numel() for p in trained if p not in states)
        self.largest = max(size, self.largest)
        if needed > (free := torch.cuda.mem_get_info(run.device)[0]):
            raise RuntimeError(f'{needed / 2 ** 30:.1f} GiB more would be needed, '
                               f'{free / 2 ** 30:.1f} GiB are free')
