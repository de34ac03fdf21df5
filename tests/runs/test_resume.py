"""A run that is stopped and resumed is the run that was never stopped, to the bit: after kills,
signals, full disks and damaged files. `pytest --long` kills more often."""
import errno
import os
from pathlib import Path
import random
import re
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch

from app.common import files
from app.common.errors import UserError
from app.runs import checkpoints, hooks, runs
from app.runs.folders import list_checkpoints
from conftest import MINUTES, TINY, equal

CPU = torch.device('cpu')


def read_output(folder):
    """Return all that launched commands have printed."""
    return (folder / 'out.txt').read_text() if (folder / 'out.txt').exists() else ''


@pytest.fixture
def finish(launch, tmp_path):
    """Return a function that runs the command in a process to its end: finish(*words, code=0,
    threads=1) -> what it printed."""
    def run(*words, code=0, threads=1):
        before = len(read_output(tmp_path))
        process = launch(words, tmp_path, threads)
        process.join(60 * MINUTES)
        printed = read_output(tmp_path)[before:]
        assert process.exitcode == code, (process.exitcode, printed)
        assert 'Traceback' not in printed, printed
        return printed
    return run


def assert_same_run(a, b):
    """Assert that two run folders have the same weights, moments, log and pictures, to the bit."""
    (_, left), (_, right) = checkpoints.newest_checkpoint(a), checkpoints.newest_checkpoint(b)
    for kind in ('step', 'weights', 'optimizers', 'sums', 'bad_steps', 'won_since', 'rows'):
        same = equal(left[kind], right[kind])               # pytest would print all the numbers
        assert same, kind
    assert (a / 'log.csv').read_text() == (b / 'log.csv').read_text() == left['rows'] != ''
    pictures = [{path.name: path.read_bytes() for path in (run / 'samples').iterdir()}
                for run in (a, b)]
    assert pictures[0] == pictures[1] != {}


# Crops, and batches that cross epochs; a cache; loader processes, because pictures of native size
# are not decoded in advance; the step at which the inner generator starts to be trained.
KINDS = {
    'crops': ('train', *TINY, '--steps', 12, '--batch', 2, '--crop', '48x32', '--workers', 0,
              '--augment'),
    'cache': ('train', *TINY, '--epochs', 1, '--decay-epochs', 1, '--cache', '--jitter', 1.2),
    'workers': ('train', *TINY, '--size', 'native', '--steps', 12, '--workers', 2),
    'finetune': ('finetune', '--steps', 10, '--fix-global', 1, '--n-blocks-local', 1,
                 '--log-every', 3)}


@pytest.fixture
def words(request, scenes, trained):
    kind = KINDS[request.param]
    source = ('--from', trained) if kind[0] == 'finetune' else ('--data', scenes)
    return [*kind, *source, '--sample-every', 7]


@pytest.mark.parametrize('words', KINDS, indirect=True)
def test_killed_at_random_and_resumed_is_never_stopped(words, launch, finish, tmp_path,
                                                       pytestconfig):
    """kill -9 at random moments, while saving too: all checkpoints stay readable, and the run ends
    as the one that was not killed."""
    kills = 25 if pytestconfig.getoption('--long') else 3
    straight, threads = tmp_path / 'straight', 2 if '--crop' in words else 1    # of torch
    started = time.monotonic()
    finish(*words, '--run', straight, threads=threads)
    duration = time.monotonic() - started

    rng, killed, n_runs = random.Random(0), 0, 0
    while killed < kills:
        run, code = tmp_path / f'killed{n_runs}', None
        while code != 0:
            process = launch(['train', '--resume', run] if list_checkpoints(run) else
                             [*words, '--run', run, '--save-every', 1], tmp_path, threads)
            process.join(rng.uniform(0, duration) if killed < kills or code is None else None)
            process.kill()
            process.join()
            code = process.exitcode
            assert code in (0, -signal.SIGKILL), read_output(tmp_path)
            killed += code != 0
            for path in list_checkpoints(run):
                checkpoints.read_checkpoint(path)           # raises if it is damaged
        assert_same_run(straight, run)
        n_runs += 1
    print(f'{killed} kills in {n_runs} runs')


@pytest.mark.parametrize('words, signals', [
    ('crops', [signal.SIGINT]), ('workers', [signal.SIGTERM, signal.SIGUSR1])],
                         indirect=['words'])
def test_stopped_by_a_signal_and_resumed_is_never_stopped(words, signals, launch, finish, tmp_path):
    """Ctrl-C; SIGTERM and SIGUSR1 to all processes of the job, as Slurm sends them."""
    words = [*words, '--steps', 24]
    finish(*words, '--run', 'straight')
    for number in signals:
        run = number.name
        process = launch([*words, '--run', run], tmp_path)
        while '\nstep ' not in read_output(tmp_path).partition(f'{run}:')[2]:
            assert process.is_alive()
            time.sleep(0.01)
        os.killpg(process.pid, number)
        process.join(60 * MINUTES)
        assert process.exitcode == 128 + number
        assert f'to go on: python p2phd.py train --resume {run}' in read_output(tmp_path)
        assert 0 < checkpoints.newest_checkpoint(tmp_path / run)[1]['step'] < 24
        finish('train', '--resume', run, '--workers', 1)
        assert_same_run(tmp_path / 'straight', tmp_path / run)


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a file system of that size, or resizes it:
    small_disk(megabytes) -> its folder."""
    folder = tmp_path / 'disk'
    folder.mkdir()

    def resize(megabytes, *again):
        options = ','.join([f'size={megabytes}m', *again])
        done = subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder],
                              capture_output=True)
        if done.returncode:
            pytest.skip('no right to mount a file system here')
        return folder
    yield resize
    subprocess.run(['umount', folder], capture_output=True)


@pytest.mark.parametrize('words', ['crops'], indirect=True)
def test_a_full_disk(words, finish, small_disk, tmp_path):
    """The disk is full after a few checkpoints: a warning says so and training goes on. The last
    checkpoint is whole; with more room the run ends as it would have."""
    finish(*words, '--run', 'straight')
    run = small_disk(5) / 'run'
    printed = finish(*words, '--run', run, '--save-every', 2, code=2)
    assert re.search(r'warning: .*checkpoint-\d+.pt: not written, it needs \d.\d MB and \d.\d MB '
                     'are free there; .*; training goes on', printed)
    assert 'step 12/12' in printed
    assert re.match('p2phd train: .*0000012.pt: not written', printed.splitlines()[-1])
    step = runs.load_run(run, CPU).step
    assert 0 <= step < 12

    small_disk(40, 'remount')
    assert f'going on at step {step} of 12' in finish('train', '--resume', run)
    assert_same_run(tmp_path / 'straight', run)


def test_a_disk_that_fills_while_it_is_written_to(trained, small_disk, monkeypatch):
    """The system had reported more room: older files stay whole, and no half-written file stays."""
    folder = small_disk(3)
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    checkpoints.write_checkpoint(folder, {**checkpoint, 'step': 1}, 2)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=1 << 40))
    with pytest.raises(UserError, match='checkpoint-0000002.pt: cannot be written .*; '
                                        'what was there before is unt'):
        checkpoints.write_checkpoint(folder, {**checkpoint, 'step': 2}, 2)
    assert [path.name for path in folder.iterdir()] == ['checkpoint-0000001.pt']
    assert checkpoints.newest_checkpoint(folder)[1]['step'] == 1

    room = os.statvfs(folder)
    (folder / 'ballast').write_bytes(bytes(room.f_bavail * room.f_frsize))
    with pytest.raises(OSError) as full:
        files.append_text(folder / 'log.csv', 'step\n' * 10000)
    assert full.value.errno == errno.ENOSPC
    (folder / 'ballast').unlink()
    # What did not fit before is written now.
    files.append_text(folder / 'log.csv', 'step\n' * 10000)
    assert (folder / 'log.csv').read_text() == 'step\n' * 10000


def test_without_room_for_the_first_checkpoint_training_does_not_start(p2phd, scenes, small_disk):
    assert 'checkpoint-0000000.pt: not written, it needs' in p2phd(
        'train', '--data', scenes, '--run', small_disk(1) / 'run', *TINY, '--ngf', 64, code=2)


def test_the_last_step_is_saved_where_its_pictures_fail(command, scenes, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(hooks, 'report_distances', fail)
    code, _, err = command('train', '--data', scenes, *TINY, '--steps', 3, '--run', 'run')
    assert code == 2 and 'not enough memory' in err
    assert checkpoints.newest_checkpoint('run')[1]['step'] == 3


def test_flags_that_contradict_the_run(p2phd, trained, scenes, tmp_path):
    def refuse(*words):
        return p2phd(*words, code=2)

    run = tmp_path / 'run'
    shutil.copytree(trained, run)
    for flags, name in (
            (('--lr', 0.1), 'lr'), (('--size', '128x64'), 'size'), (('--batch', 2), 'batch'),
            (('--no-flip',), 'flip'), (('--ngf', 16), 'ngf'), (('--seed', 1), 'seed'),
            (('--augment',), 'augment'),
            (('--precision', 'bf16'), 'precision'), (('--log-every', 3), 'log-every'),
            (('--ignore-label', 255), 'ignore-label'),
            (('--n-scales', 3, '--epochs', 9), 'n-scales')):
        assert re.search(f'--(no-)?{name}.*: .*run was started with.*, and that cannot change now',
                         refuse('train', '--resume', run, *flags))
    assert "--keep: '20000000000000': expected a whole number" in refuse(
        'train', '--resume', run, '--keep', 2 * 10 ** 13)
    assert '--from other: ' in refuse('finetune', '--resume', run, '--from', 'other')
    assert '--run other: --resume' in refuse('train', '--resume', run, '--run', 'other')
    assert 'other: no checkpoint there' in refuse('train', '--resume', 'other')

    same = ['--lr', 2e-4, *TINY, '--features', '--precision', 'auto']
    assert 'trained to the end, 6 steps' in p2phd('train', '--resume', run, *same)
    assert 'other: no checkpoint there' in refuse('train', '--resume', 'other')
    assert not (tmp_path / 'other').exists() and not list(Path().glob('*lock'))

    moved = tmp_path / 'moved'
    shutil.copytree(scenes, moved)
    printed = p2phd('train', '--resume', run, '--epochs', 1, '--decay-epochs', 1, '--workers', 0,
                    '--save-every', 3, '--device', 'cpu', '--keep', 3, '--data', f'{moved}/')
    assert 'going on at step 6 of 12' in printed
    assert list_checkpoints(run)[-1].stem[-2:] == '12'
    for path in list(moved.rglob('toy_0000_*')):
        if 'train' in path.parts:
            path.unlink()
    assert re.search('moved: holds 5 pictures, and .*run was started with 6',
                     refuse('train', '--resume', run, '--epochs', 2))


def test_a_damaged_checkpoint_is_set_aside_and_made_again(p2phd, scenes, tmp_path):
    p2phd('train', '--data', scenes, '--steps', 8, '--run', 'straight', *TINY)
    p2phd('train', '--data', scenes, '--steps', 8, '--run', 'run', *TINY)
    run = tmp_path / 'run'
    older, newer = list_checkpoints(run)
    newer.write_bytes(newer.read_bytes()[:-1000])
    label = next((scenes / 'gtFine' / 'val' / 'toy').glob('*labelIds.png'))
    p2phd('generate', '--run', run, '--label', label)
    assert newer.exists()                                   # generate renames nothing
    p2phd('train', '--resume', run)
    assert newer.with_suffix('.damaged').exists()
    assert_same_run(tmp_path / 'straight', run)
