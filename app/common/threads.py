"""How long the CPU threads of PyTorch wait for work before they sleep."""
from contextlib import suppress
import os
from pathlib import Path
import time

from app.common.console import several_processes


def set_waiting():
    """Set how long a waiting thread keeps its core. Call this before torch is imported. Where
    nothing else computes, threads wait until the next operation, because waking them takes a fifth
    of the time (docs/performance.md). Otherwise they sleep soon, so that other programs get the
    core."""
    alone = not several_processes() and count_running() <= 1
    os.environ.setdefault('GOMP_SPINCOUNT', '5000' if alone else '1000')


def count_running(looks=3):
    """Return how many threads of this machine compute, this one included: the least of a few looks,
    because some compute only for a moment. Where the system does not say (not Linux), 2."""
    with suppress(OSError, ValueError, IndexError):
        running = []
        for _ in range(looks):
            text = Path('/proc/loadavg').read_text()        # as '0.2 0.4 0.5 1/123 4567'
            running.append(int(text.split()[3].split('/')[0]))
            time.sleep(0.002)
        return min(running)
    return 2
