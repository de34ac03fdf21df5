"""Whole commands on a simulated CUDA device, see simulated_cuda/device.py."""
import pytest
import torch

from conftest import SIMULATED, TINY

pytestmark = pytest.mark.skipif(not SIMULATED, reason='needs P2PHD_SIMULATED_CUDA=1')
if SIMULATED:
    from simulated_cuda.device import record


def kinds(events, kind):
    return {event.line for event in events if event.kind == kind}


def test_files_do_not_depend_on_the_device(p2phd, scenes, tmp_path, brief_judge):
    """Every checkpoint can be loaded where there is no CUDA; uploads are from pinned memory."""
    run = tmp_path / 'run'
    with record() as events:
        p2phd('train', '--data', scenes, *TINY, '--steps', 4, '--save-every', 2, '--evaluate-every',
              2, '--ema', 0.9, '--run', run)
        p2phd('export', '--run', run, '--official', tmp_path / 'official')
    assert {'checkpoint-0000002.pt', 'checkpoint-0000004.pt', 'best.pt'} <= {
        path.name for path in run.glob('*.pt')}
    assert kinds(events, 'saved') == set()
    assert kinds(events, 'unpinned') == kinds(events, 'unsafe') == set()


def test_a_run_in_fp32_computes_nothing_in_tf32(p2phd, scenes, brief_judge):
    """Not in its steps, and not in its judge, styles and pictures."""
    label = next(scenes.rglob('*_labelIds.png'))
    with record() as events:
        for words in (['train', '--data', scenes, *TINY, '--steps', 2], ['cluster'], ['evaluate'],
                      ['generate', '--label', label]):
            torch.backends.cudnn.allow_tf32 = True          # PyTorch's default
            p2phd(*words, '--run', 'run')
    assert kinds(events, 'tf32') == set()
