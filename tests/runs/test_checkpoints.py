"""Nothing lost, nothing let in: runs that are killed, disks that fill, files that are damaged or
hostile, training that goes wrong. `pytest --long` kills and damages more often."""
import errno
import hashlib
import io
import math
import os
from pathlib import Path
import pickle
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
import zipfile

import numpy as np
import pytest
import torch

from conftest import ROOT, TINY, equal
from app.runs import checkpoints
from app.common import config as configuration
import data
from app.common import files
from app.common.errors import UserError
from app.runs import loop
import losses
from app.runs import official
import p2phd as program
from app.runs import runs
from app.runs import seals

CPU = torch.device('cpu')


def outputs(folder):
    return (folder / 'out.txt').read_text() if (folder / 'out.txt').exists() else ''


@pytest.fixture
def finish(launch, tmp_path):
    """Run the command to its end in a process of its own: finish(words, code=0) -> what it
    printed."""
    def run(*words, code=0):
        before = len(outputs(tmp_path))
        process = launch(words, tmp_path)
        process.join(120)
        printed = outputs(tmp_path)[before:]
        assert process.exitcode == code, (process.exitcode, printed)
        assert 'Traceback' not in printed, printed
        return printed
    return run


def assert_same_run(a, b):
    """Weights, moments, history, log and pictures of two run folders, to the bit."""
    (_, left), (_, right) = checkpoints.newest_checkpoint(a), checkpoints.newest_checkpoint(b)
    for kind in ('step', 'weights', 'optimizers', 'sums', 'bad_steps', 'won_since', 'rows'):
        # pytest would spell out millions of numbers.
        same = equal(left[kind], right[kind])
        assert same, kind
    assert (a / 'log.csv').read_text() == (b / 'log.csv').read_text() == left['rows'] != ''
    pictures = [{path.name: path.read_bytes() for path in (run / 'samples').iterdir()}
                for run in (a, b)]
    assert pictures[0] == pictures[1] != {}


# ---------------------------------------------------------------------------------- exact resume

# With crops and batches across epochs; with a cache; with loader processes, as pictures of native
# size are not decoded beforehand; around the step at which the inner generator begins to learn.
# Half of it is decay.
KINDS = {
    'crops': ('train', *TINY, '--steps', 40, '--batch', 2, '--crop', '48x32', '--workers', 0),
    'cache': ('train', *TINY, '--epochs', 3, '--decay-epochs', 4, '--cache', '--jitter', 1.2),
    'workers': ('train', *TINY, '--size', 'native', '--steps', 40, '--workers', 2),
    'finetune': ('finetune', '--steps', 30, '--fix-global', 2, '--n-blocks-local', 1,
                 '--log-every', 3)}


@pytest.fixture
def words(request, scenes, trained):
    kind = KINDS[request.param]
    source = ('--from', trained) if kind[0] == 'finetune' else ('--data', scenes)
    return [*kind, *source, '--sample-every', 7]


@pytest.mark.parametrize('words', KINDS, indirect=True)
def test_killed_at_random_and_resumed_is_never_stopped(words, launch, finish, tmp_path,
                                                       pytestconfig):
    """kill -9 at random moments, saves included: nothing unreadable is ever found, and the run ends
    as the straight one."""
    kills = 25 if pytestconfig.getoption('--long') else 4
    straight = tmp_path / 'straight'
    started = time.monotonic()
    finish(*words, '--run', straight)
    took = time.monotonic() - started

    rng, killed, runs = random.Random(0), 0, 0
    while killed < kills:
        run, code = tmp_path / f'killed{runs}', None
        while code != 0:
            process = launch(['train', '--resume', run] if checkpoints.list_checkpoints(run) else
                             [*words, '--run', run, '--save-every', 1], tmp_path)
            process.join(rng.uniform(0, took) if killed < kills or code is None else None)
            process.kill()
            process.join()
            code = process.exitcode
            assert code in (0, -signal.SIGKILL), outputs(tmp_path)
            killed += code != 0
            for path in checkpoints.list_checkpoints(run):
                checkpoints.read_checkpoint(path)                      # raises where it is not whole
        assert_same_run(straight, run)
        runs += 1
    print(f'{killed} kills in {runs} runs')


@pytest.mark.parametrize('words, number', [('crops', signal.SIGINT), ('workers', signal.SIGTERM)],
                         indirect=['words'])
def test_stopped_by_a_signal_and_resumed_is_never_stopped(words, number, launch, finish, tmp_path):
    """Ctrl-C, and SIGTERM to all processes of the job, as Slurm sends it."""
    finish(*words, '--run', 'straight')
    process = launch([*words, '--run', 'stopped'], tmp_path)
    while '\nstep ' not in outputs(tmp_path).partition('stopped:')[2]:
        assert process.is_alive()
        time.sleep(0.01)
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    assert 'to go on: python p2phd.py train --resume stopped' in outputs(tmp_path)
    assert 0 < checkpoints.newest_checkpoint(tmp_path / 'stopped')[1]['step'] < 40
    finish('train', '--resume', 'stopped', '--workers', 1)
    assert_same_run(tmp_path / 'straight', tmp_path / 'stopped')


@pytest.fixture
def small_disk(tmp_path):
    """A mounted file system: small_disk(megabytes) makes or resizes it -> its folder."""
    folder = tmp_path / 'disk'
    folder.mkdir()

    def resize(megabytes, *again):
        options = ','.join([f'size={megabytes}m', *again])
        done = subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder],
                              capture_output=True)
        if done.returncode:
            pytest.skip('may not mount a small file system here')
        return folder
    yield resize
    subprocess.run(['umount', folder], capture_output=True)


@pytest.mark.parametrize('words', ['crops'], indirect=True)
def test_a_full_disk(words, finish, small_disk, tmp_path):
    """The disk is full after a few checkpoints: the run says so and goes on; the last checkpoint
    loads, and with more room the run ends as it would have."""
    finish(*words, '--run', 'straight')
    run = small_disk(5) / 'run'
    printed = finish(*words, '--run', run, '--save-every', 2, code=2)
    assert re.search(r'warning: .*checkpoint-\d+.pt: not written, it needs \d.\d MB and \d.\d MB '
                     'are free there; .*; training goes on', printed)
    assert 'step 40/40' in printed
    assert re.match('p2phd train: .*0000040.pt: not written', printed.splitlines()[-1])
    step = runs.load_run(run, CPU).step
    assert 0 <= step < 40

    small_disk(40, 'remount')
    assert f'going on at step {step} of 40' in finish('train', '--resume', run)
    assert_same_run(tmp_path / 'straight', run)


def test_a_disk_that_fills_while_it_is_written_to(trained, small_disk, monkeypatch):
    """When the system had promised more: what was there is whole, and nothing half-written
    stays."""
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
    # Also what did not fit before.
    files.append_text(folder / 'log.csv', 'step\n' * 10000)
    assert (folder / 'log.csv').read_text() == 'step\n' * 10000


def test_no_room_for_the_first_checkpoint_is_known_at_once(p2phd, scenes, small_disk):
    assert 'checkpoint-0000000.pt: not written, it needs' in p2phd(
        'train', '--data', scenes, '--run', small_disk(1) / 'run', *TINY, '--ngf', 64, code=2)


@pytest.fixture
def refused(command):
    """refused(...) -> the one line in which the command says what is wrong."""
    def run(*words):
        code, out, err = command(*words)
        assert code == 2 and err.count('\n') == 1, (code, out, err)
        return err
    return run


def test_flags_that_contradict_the_run(command, refused, trained, scenes, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(trained, run)
    for flags, name in (
            (('--lr', 0.1), 'lr'), (('--size', '128x64'), 'size'), (('--batch', 2), 'batch'),
            (('--no-flip',), 'flip'), (('--ngf', 16), 'ngf'), (('--seed', 1), 'seed'),
            (('--precision', 'bf16'), 'precision'), (('--log-every', 3), 'log-every'),
            (('--ignore-label', 255), 'ignore-label'),
            (('--n-scales', 3, '--epochs', 9), 'n-scales')):
        assert re.search(f'--(no-)?{name}.*: .*run was started with.*, and that cannot change now',
                         refused('train', '--resume', run, *flags))
    assert "--keep: '20000000000000': expected a whole number" in refused(
        'train', '--resume', run, '--keep', 2 * 10 ** 13)
    assert '--from other: ' in refused('finetune', '--resume', run, '--from', 'other')
    assert '--run other: --resume' in refused('train', '--resume', run, '--run', 'other')
    assert 'other: no checkpoint there' in refused('train', '--resume', 'other')

    same = ['--lr', 2e-4, *TINY, '--features', '--precision', 'auto']
    assert 'trained to the end, 6 steps' in command('train', '--resume', run, *same)[1]
    assert 'other: no checkpoint there' in refused('train', '--resume', 'other')
    assert not (tmp_path / 'other').exists() and not list(Path().glob('*lock'))

    moved = tmp_path / 'moved'
    shutil.copytree(scenes, moved)
    code, out, err = command('train', '--resume', run, '--epochs', 1, '--decay-epochs', 1,
                             '--workers', 0, '--save-every', 3, '--device', 'cpu', '--keep', 3,
                             '--data', f'{moved}/')
    assert code == 0 and 'going on at step 6 of 12' in out
    assert checkpoints.list_checkpoints(run)[-1].stem[-2:] == '12'
    for path in list(moved.rglob('toy_0000_*')):
        if 'train' in path.parts:
            path.unlink()
    assert re.search('moved: holds 5 pictures, and .*run was started with 6',
                     refused('train', '--resume', run, '--epochs', 2))


# ----------------------------------------------------------------------------------- checkpoints

def damage(blob, rng):
    """Cut at random, with flipped bits, or with a zeroed page."""
    blob, kind = bytearray(blob), rng.randrange(3)
    if kind == 0:
        return blob[:rng.randrange(len(blob))]
    if kind == 1:
        for _ in range(rng.choice([1, 1, 8])):
            place = rng.choice([rng.randrange(len(blob)), -1 - rng.randrange(200)])
            blob[place] ^= 1 << rng.randrange(8)
    else:
        start = rng.randrange(len(blob)) & ~4095
        blob[start:start + 4096] = bytes(len(blob[start:start + 4096]))
    return blob


def test_damaged_checkpoints(trained, tmp_path, capsys, pytestconfig):
    """Each is recovered from the one before with a warning that names it, or refused in one line if
    that is damaged, too; none loads otherwise than as it was written."""
    rng = random.Random(0)
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    checkpoints.write_checkpoint(tmp_path, {**checkpoint, 'step': 5}, 2)
    checkpoints.write_checkpoint(tmp_path, checkpoint, 2)
    files = checkpoints.list_checkpoints(tmp_path)
    whole = [path.read_bytes() for path in files]

    counts = {'unharmed': 0, 'recovered': 0, 'refused': 0}
    for _ in range(1000 if pytestconfig.getoption('--long') else 100):
        both = rng.random() < 0.2
        now = [damage(whole[0], rng) if both else whole[0], damage(whole[1], rng)]
        for path, blob in zip(files, now):
            path.write_bytes(blob)
        # A zeroed page may have been zero.
        good = [i for i in (1, 0) if now[i] == whole[i]]
        try:
            state = runs.load_run(tmp_path, CPU)
        except UserError as error:
            assert not good, error
            assert re.search(r'checkpoint-0000006.pt: .*(cut short|checksum)', str(error)), error
            counts['refused'] += 1
            continue

        assert state.step == (5, 6)[good[0]]
        loaded = checkpoints.copy_tree(state.G.state_dict(), 'cpu')
        assert equal(loaded, dict(checkpoint['weights']['G']))
        warned = capsys.readouterr().err
        assert (good[0] == 1) == (warned == '') and warned.count('\n') == (good[0] == 0), warned
        assert good[0] == 1 or f'warning: {files[1]}: ' in warned
        counts['recovered' if good[0] == 0 else 'unharmed'] += 1
    print(counts)
    assert counts['recovered'] > 10 * counts['unharmed'] and counts['refused'] > 5


def test_damage_to_what_generating_uses(trained, tmp_path, pytestconfig):
    """It is always noticed. Other damage is noticed when all of the file is read."""
    rng, path = random.Random(0), tmp_path / 'checkpoint-0000006.pt'
    newest, checkpoint = checkpoints.newest_checkpoint(trained)
    expected, whole = checkpoints.generator_part(checkpoint), newest.read_bytes()
    start, stop = map(int, re.search(rb'all bytes but (\d+) to (\d+),', whole).groups())
    assert stop - start > 0.7 * len(whole)                  # most of the file is not used

    counts = {'read': 0, 'refused': 0}
    for i in range(1000 if pytestconfig.getoption('--long') else 100):
        blob = damage(whole, rng)
        if i % 2 and len(blob) == len(whole):               # only to what is used
            blob[start:stop] = whole[start:stop]
        path.write_bytes(blob)
        used_is_whole = len(blob) == len(whole) and blob[:start] + blob[stop:-65] == (
            whole[:start] + whole[stop:-65])
        try:
            same = equal(checkpoints.read_checkpoint(path, generator_only=True), expected)
            assert same and used_is_whole
            counts['read'] += 1
        except checkpoints.Damaged:
            counts['refused'] += 1
        if blob != whole:
            with pytest.raises(checkpoints.Damaged):
                checkpoints.read_checkpoint(path)
    print(counts)
    assert min(counts.values()) > 10


def test_generating_reads_nothing_else(trained, tmp_path):
    """Without the weights that it does not use, the rest is read as before."""
    newest, checkpoint = checkpoints.newest_checkpoint(trained)
    blob, path = bytearray(newest.read_bytes()), tmp_path / 'checkpoint-0000006.pt'
    start, stop = map(int, re.search(rb'all bytes but (\d+) to (\d+),', blob).groups())
    with zipfile.ZipFile(newest) as archive:
        for record in archive.infolist():
            if start <= record.header_offset < stop:
                data = record.header_offset + 128           # past the record's header
                blob[data:data + record.file_size - 128] = bytes(max(0, record.file_size - 128))
    path.write_bytes(blob)
    same = equal(checkpoints.read_checkpoint(path, generator_only=True),
                 checkpoints.generator_part(checkpoint))
    assert same
    with pytest.raises(checkpoints.Damaged):
        checkpoints.read_checkpoint(path)


def test_a_check_ahead_is_used_unless_the_file_changes(trained, tmp_path):
    path = tmp_path / 'checkpoint-0000006.pt'
    shutil.copy(checkpoints.list_checkpoints(trained)[-1], path)
    seals.check_ahead(path)
    assert seals.generator_is_whole(path) and not seals.checks
    seals.check_ahead(path)
    path.write_bytes(b'X' + path.read_bytes()[1:])
    assert not seals.generator_is_whole(path)


def test_a_damaged_checkpoint_is_set_aside_and_made_again(p2phd, scenes, tmp_path):
    p2phd('train', '--data', scenes, '--steps', 8, '--run', 'straight', *TINY)
    p2phd('train', '--data', scenes, '--steps', 8, '--run', 'run', *TINY)
    run = tmp_path / 'run'
    older, newer = checkpoints.list_checkpoints(run)
    newer.write_bytes(newer.read_bytes()[:-1000])
    one = next((scenes / 'gtFine' / 'val' / 'toy').glob('*labelIds.png'))
    p2phd('generate', '--run', run, '--label', one)
    assert newer.exists()
    p2phd('train', '--resume', run)
    assert newer.with_suffix('.damaged').exists()
    assert_same_run(tmp_path / 'straight', run)


def test_numbered_checkpoints_are_kept(p2phd, scenes, tmp_path):
    p2phd('train', '--data', scenes, '--steps', 6, '--run', 'run', *TINY)
    assert [path.stem[-2:] for path in checkpoints.list_checkpoints(tmp_path / 'run')] == ['00', '06']
    p2phd('train', '--data', scenes, '--epochs', 1, '--decay-epochs', 1, '--run', 'epoch', *TINY)
    assert [path.stem[-2:] for path in checkpoints.list_checkpoints(tmp_path / 'epoch')] == ['06', '12']

    run = tmp_path / 'many'
    run.mkdir()
    for step in range(9_999_990, 10_000_002):               # also beyond seven digits
        checkpoints.write_checkpoint(run, {'step': step}, 3)
    steps = [checkpoints.read_checkpoint(path)['step'] for path in checkpoints.list_checkpoints(run)]
    assert steps == [9_999_999, 10 ** 7, 10 ** 7 + 1]



def with_seal(blob, number):
    """What torch.save has written, under a seal of another format that matches."""
    blob += seals.SEAL.format(number).encode()
    return blob + f'{hashlib.sha256(blob).hexdigest()}\n'.encode()


@pytest.mark.parametrize('generator_only', [False, True])
def test_other_formats(trained, tmp_path, generator_only):
    """Format 5, without a hash of the part that generates, is read; a later one is refused, and
    no earlier checkpoint is taken in its place."""
    _, whole = checkpoints.newest_checkpoint(trained, generator_only=generator_only)
    saved = io.BytesIO()
    torch.save(checkpoints.newest_checkpoint(trained)[1], saved)
    (tmp_path / 'checkpoint-0000006.pt').write_bytes(with_seal(saved.getvalue(), 5))
    _, old = checkpoints.newest_checkpoint(tmp_path, generator_only=generator_only)
    same = equal(old, whole)
    assert same
    (tmp_path / 'checkpoint-0000007.pt').write_bytes(with_seal(saved.getvalue(), 7))
    with pytest.raises(UserError, match='0000007.pt: is of format 7; this version .* 5 to 6'):
        checkpoints.newest_checkpoint(tmp_path, generator_only=generator_only)


def test_odd_things_in_a_run_folder(command, refused, trained, scenes, tmp_path):
    """What is not a checkpoint and not a trainer's own is named or left alone."""
    run = tmp_path / 'run'
    shutil.copytree(trained, run)
    (run / 'checkpoint-0000008.pt').mkdir()
    (run / 'checkpoint-0000009.pt').symlink_to('nowhere')
    (run / 'mine.partial').write_text('mine')
    (run / 'a.partial').mkdir()
    (run / 'checkpoint-0000007.pt.123.partial').write_text('half')
    assert runs.load_run(run, CPU).step == 6
    code, out, err = command('train', '--resume', run, '--steps', 8)
    assert code == 0
    assert 'checkpoint-0000008.pt: Is a directory; going back to checkpoint-0000006.pt' in err
    assert runs.load_run(run, CPU).step == 8
    assert sorted(path.name for path in run.glob('*.partial')) == ['a.partial', 'mine.partial']

    (tmp_path / 'precious').write_text('precious')
    (run / '.lock').unlink()
    (run / '.lock').symlink_to(tmp_path / 'precious')
    assert '.lock' in refused('train', '--resume', run, '--steps', 10)
    assert (tmp_path / 'precious').read_text() == 'precious'


def test_a_checkpoint_can_be_read_while_a_trainer_replaces_it(trained, tmp_path):
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    stop = threading.Event()

    def trainer():
        step = 0
        while not stop.is_set():
            checkpoints.write_checkpoint(tmp_path, {**checkpoint, 'step': step}, 1)
            step += 1
    thread = threading.Thread(target=trainer)
    thread.start()
    try:
        while not checkpoints.list_checkpoints(tmp_path):
            time.sleep(0.01)
        for _ in range(100):
            checkpoints.newest_checkpoint(tmp_path)
    finally:
        stop.set()
        thread.join()


def test_output_that_cannot_be_written_is_no_reason_to_stop(scenes, tmp_path):
    words = ' '.join(map(str, ['train', '--data', scenes, '--steps', 4, *TINY]))
    for run, pipe in (('full', '> /dev/full 2> /dev/full'), ('head', '| head -1')):
        program = f'{sys.executable} {ROOT / "p2phd.py"}'
        done = subprocess.run(f'set -o pipefail; {program} {words} --run {run} {pipe}',
                              shell=True, executable='/bin/bash', cwd=tmp_path,
                              capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert runs.load_run(tmp_path / run, CPU).step == 4


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    written, release = [], threading.Event()

    def slow_write(run, checkpoint, keep):
        release.wait(20)
        written.append(checkpoint)
    monkeypatch.setattr(checkpoints, 'write_checkpoint', slow_write)
    weight = torch.zeros(3)
    writer = checkpoints.BackgroundWriter(tmp_path, 2)
    writer.save({'step': 1, 'weight': weight})
    weight += 1                                             # a step
    assert writer.busy and not written
    release.set()
    writer.wait()
    assert not writer.busy and torch.equal(written[0]['weight'], torch.zeros(3))


# -------------------------------------------------------------------------------------- the lock

def children(process):
    """The process ids of a process's children, where the system tells."""
    listed = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []


def test_two_trainers_on_one_folder(p2phd, launch, scenes, tmp_path):
    words = ['train', '--data', scenes, '--steps', 10 ** 6, '--run', 'run', '--save-every', 5,
             *TINY, '--size', 'native', '--workers', 2]
    both = [launch(words, tmp_path) for _ in range(2)]
    while all(process.is_alive() for process in both):
        time.sleep(0.05)
    loser, winner = sorted(both, key=lambda process: process.is_alive())
    assert loser.exitcode == 2
    holder = f'process {winner.pid} on {socket.gethostname()}'

    assert holder in outputs(tmp_path)
    while not checkpoints.list_checkpoints(tmp_path / 'run'):
        time.sleep(0.05)

    assert f'run: {holder} is at work there' in p2phd('train', '--resume', 'run', code=2)
    loaders = children(winner)
    # Its loader processes live on for seconds, and hold nothing.
    winner.kill()
    winner.join()
    last = launch(['train', '--resume', 'run'], tmp_path)
    while f'process {last.pid} ' not in (tmp_path / 'run' / '.lock').read_text():
        assert last.is_alive()
        time.sleep(0.05)
    os.killpg(last.pid, signal.SIGTERM)
    last.join()

    deadline = time.monotonic() + 60
    while any(Path(f'/proc/{pid}').exists() for pid in loaders):
        assert time.monotonic() < deadline, 'loader processes of a trainer that was killed live on'
        time.sleep(0.1)


def test_a_loader_process_that_dies_is_one_line(launch, scenes, tmp_path):
    """As where there is too little memory: the checkpoint before is whole, and the way on is
    named."""
    process = launch(['train', '--data', scenes, '--steps', 10 ** 6, '--run', 'run', *TINY,
                      '--size', 'native', '--workers', 1], tmp_path)
    while '\nstep ' not in outputs(tmp_path):
        assert process.is_alive()
        time.sleep(0.05)
    if not children(process):
        pytest.skip('the system does not tell which the loader process is')
    os.kill(children(process)[0], signal.SIGKILL)
    process.join(60)
    assert process.exitcode == 2 and 'Traceback' not in outputs(tmp_path)
    assert re.match('p2phd train: a process that loads pictures has died.*--workers 0',
                    outputs(tmp_path).splitlines()[-1])
    runs.load_run(tmp_path / 'run', CPU)


def test_a_loader_process_that_dies_amid_a_picture(command, scenes, monkeypatch):
    def cut_off(iterator):
        raise ConnectionResetError('Connection reset by peer')
    monkeypatch.setattr(torch.utils.data.dataloader._BaseDataLoaderIter, '__next__', cut_off)
    code, _, err = command('train', '--data', scenes, *TINY, '--steps', 2, '--run', 'run')
    assert code == 2 and 'a process that loads pictures has died' in err


def test_the_holder_of_a_lock_may_be_about_to_write_its_name(tmp_path):
    with open(tmp_path / '.lock', 'w+b', buffering=0) as file:
        writing = threading.Timer(0.2, file.write, [b'process 1 on here\n'])
        writing.start()
        assert files.lock_holder(file.fileno()) == 'process 1 on here'
        writing.join()


# -------------------------------------------------------------------------- files from strangers

class Malice:
    """A pickle of it touches `executed` in the working folder when it is read as pickles are."""

    def __reduce__(self):
        return os.system, ('touch executed',)


def seal(run, checkpoint):
    """Make `run` a folder with this checkpoint, whatever it holds, under a seal that fits."""
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    with open(run / 'checkpoint-0000006.pt', 'wb') as file:
        checkpoints.write_sealed(checkpoint, file)
    return run


def test_a_pickle_is_not_executed(command, refused, trained, scenes, tmp_path):
    """In every place where a file is read."""
    label = next((scenes / 'gtFine' / 'val' / 'toy').glob('*labelIds.png'))
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    run = tmp_path / 'run'
    for bad in ({'config': Malice()}, {**checkpoint, 'weights': {'G': Malice()}},
                {**checkpoint, 'rows': Malice()}):
        seal(run, bad)
        for words in (('generate', '--run', run, '--label', label), ('cluster', '--run', run),
                      ('train', '--resume', run), ('finetune', '--from', run)):
            assert 'not a checkpoint of this program' in refused(*words)

    torch.save(Malice(), tmp_path / 'legacy.pt', _use_new_zipfile_serialization=False)
    blob = (tmp_path / 'legacy.pt').read_bytes()
    checkpoints.list_checkpoints(run)[0].write_bytes(with_seal(blob, seals.FORMAT))
    assert 'not a checkpoint of this program' in refused('generate', '--run', run, '--label', label)

    seal(run, checkpoint)
    np.savez(run / 'styles.npz', centres=np.array([Malice()], object))
    assert 'not a whole file of styles' in refused('generate', '--run', run, '--label', label)

    theirs = tmp_path / 'official'
    theirs.mkdir()
    for zipped in (True, False):
        torch.save(Malice(), theirs / 'latest_net_G.pth', _use_new_zipfile_serialization=zipped)
        assert 'latest_net_G.pth: cannot be read' in refused(
            'generate', '--run', theirs, '--label', label)
        torch.save(Malice(), tmp_path / 'vgg.pth', _use_new_zipfile_serialization=zipped)
        assert '--vgg' in refused('train', '--data', scenes, '--vgg', 'vgg.pth', *TINY)

    config = SimpleNamespace(n_labels=35, feat=3, label_names=None)
    for content, message in (({1: Malice()}, 'asks for posix.system'),
                             (Malice(), 'asks for posix.system'), ([[1]], 'not clustered')):
        np.save(tmp_path / 'features.npy', np.array(content, object), allow_pickle=True)
        with pytest.raises(UserError, match=message):
            official.read_styles(tmp_path / 'features.npy', config)

    array = np.empty((32, 64), object)
    array[:] = Malice()
    np.save(tmp_path / 'map.npy', array, allow_pickle=True)
    np.savez(tmp_path / 'archive.npz', array=array)
    (tmp_path / 'archive.npz').rename(tmp_path / 'zip.npy')
    for name in ('map.npy', 'zip.npy'):
        assert f'{name}: cannot be read as an array' in refused(
            'generate', '--run', trained, '--label', name)
        for role in ('--inst', '--encode'):
            assert f'{name}: cannot be read as an array' in refused(
                'generate', '--run', trained, '--label', label, role, name)

    words = ['train', '--data', scenes, '--steps', 1, '--cache', 'cache', *TINY]
    assert command(*words, '--run', 'one')[0] == 0
    np.save(tmp_path / 'cache' / 'image.npy', array, allow_pickle=True)
    assert 'cache: not a whole cache' in refused(*words, '--run', 'two')
    assert not list(tmp_path.rglob('executed'))


def test_numpy_itself_is_not_called_with_what_a_pickle_holds():
    """numpy.ndarray(shape, dtype, buffer) would make an object of any address."""
    class Address:
        def __reduce__(self):
            return np.ndarray, ((1,), 'O', b'A' * 8)

    class Dtype:
        def __reduce__(self):
            return np.dtype, ('O',)
    with pytest.raises(TypeError):
        official.ArraysOnly(io.BytesIO(pickle.dumps(Address()))).load()
    assert type(official.ArraysOnly(io.BytesIO(pickle.dumps(Dtype()))).load()) is official.Dtype


def test_an_eps_file_is_no_picture(refused, trained, tmp_path):
    """Whatever its name: Pillow would run Ghostscript on it."""
    (tmp_path / 'map.png').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 32\n'
                                      '%%EndComments\nshowpage\n')
    assert 'map.png: cannot be read as a picture' in refused(
        'generate', '--run', trained, '--label', 'map.png')


def test_names_never_reach_a_shell(command, scenes, tmp_path):
    evil = '$(touch executed); touch executed; `touch executed` & "'
    shutil.copytree(scenes, tmp_path / evil)
    assert command('train', '--data', evil, '--steps', 1, *TINY)[0] == 0
    label = next((scenes / 'gtFine' / 'val' / 'toy').glob('*labelIds.png'))
    shutil.copy(label, tmp_path / f'{evil}.png')
    assert command('generate', '--label', f'{evil}.png', '--sample')[0] == 0
    config = tmp_path / 'runs' / evil / 'config.json'
    config.write_text(config.read_text().replace('Cityscapes', 'x"; touch executed; "'))
    assert command('train', '--resume', '--steps', 2)[0] == 0
    assert not list(tmp_path.rglob('executed'))


def test_hostile_configurations(command, trained, scenes, tmp_path, pytestconfig):
    """Every value of a checkpoint's configuration exchanged for every kind of nonsense: refused, or
    harmless; and never memory for more than the file holds."""
    label = next((scenes / 'gtFine' / 'val' / 'toy').glob('*labelIds.png'))
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    checkpoint = checkpoints.copy_tree(checkpoint, 'cpu')
    whole = checkpoint['config']
    fields = [(None, name) for name in whole] + [('training', name) for name in whole['training']]

    def changed(part, change):
        if part is None:
            return change(dict(whole))
        return {**whole, 'training': change(dict(whole['training']))}

    for part, name in fields:
        for nonsense in (10 ** 9, -1, 2 ** 70, 1e300, None, 'x', [], [10 ** 9] * 2, {'x': 1}, b'x'):
            config = changed(part, lambda fields: {**fields, name: nonsense})
            try:
                run = runs.load_run(seal(tmp_path / 'run', {**checkpoint, 'config': config}), CPU)
            except UserError as error:
                assert re.search(r'checkpoint-0000006.pt: not a checkpoint of this program \(',
                                 str(error)), error
                continue
            same = equal(dict(run.G.state_dict()), dict(checkpoint['weights']['G']))
            assert same, (name, nonsense)
            if pytestconfig.getoption('--long'):
                assert command('generate', '--run', 'run', '--label', label,
                               '--size', '16x16')[0] in (0, 2)
                # Those would last.
                if name not in ('size', 'crop', 'batch', 'epochs', 'decay_epochs'):
                    assert command('train', '--resume', 'run', '--steps', 8)[0] in (0, 2)

        missing = changed(part, lambda fields: {key: fields[key] for key in fields if key != name})
        known = {**configuration.NETWORK,
                 'training': configuration.Field(None, configuration.REQUIRED)}
        if (configuration.TRAINING if part else known)[name].default is configuration.REQUIRED:
            with pytest.raises(UserError, match='not a checkpoint of this program'):
                runs.load_run(seal(tmp_path / 'run', {**checkpoint, 'config': missing}), CPU)


def test_hostile_tensors(trained, tmp_path):
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    checkpoint = checkpoints.copy_tree(checkpoint, 'cpu')
    weights, moments = checkpoint['weights']['G'], checkpoint['optimizers']['G']
    first = next(iter(weights))
    giant = torch.zeros(1).expand(1 << 40)
    laughs = 'ha'
    for _ in range(30):
        laughs = [laughs] * 10              # 10 ** 30 of them

    def of_weights(G):
        return {'weights': {**checkpoint['weights'], 'G': G}}

    def of_moments(G):
        return {'optimizers': {**checkpoint['optimizers'], 'G': G}}

    def of_config(**changes):
        return {'config': {**checkpoint['config'], **changes}}

    def of_training(**changes):
        return of_config(training={**checkpoint['config']['training'], **changes})

    for change in (
            of_weights({**weights, first: giant}),
            of_weights({**weights, first: weights[first][:1]}),
            of_weights({**weights, first: weights[first].to_sparse()}),
            of_weights({**weights, 'more': torch.zeros(1)}),
            of_weights(dict(list(weights.items())[1:])),
            of_weights('none'),
            {'weights': [1, 2]}, {'weights': {}}, {'weights': {'G': weights}}, {'optimizers': {}},
            {'optimizers': {'G': moments}}, {'step': 1.5}, {'step': -1}, {'step': 'x'},
            {'rows': 5}, {'sums': 'x'}, {'sums': {'gan': torch.zeros(99)}},
            {'sums': {1: torch.zeros(())}}, {'bad_steps': torch.zeros(3)},
            {'bad_steps': torch.tensor(30.)}, {'bad_steps': laughs}, {'sums': laughs},
            {'weights': laughs}, {'rows': laughs}, {'won_since': 'x'},
            of_config(more=laughs), of_training(flags=laughs), of_training(left_out=laughs),
            of_config(training=laughs), of_config(training={}),
            {**of_config(training=None), 'weights': {}},
            of_weights({**weights, first: weights[first] * math.nan}),
            of_weights({**weights, first: weights[first].cfloat()}),
            of_weights({**weights, first: laughs}),
            of_moments({**moments, 0: {**moments[0], 'exp_avg': giant[:3]}}),
            of_moments({**moments, 10 ** 9: moments[0]})):
        with pytest.raises(UserError, match='not a checkpoint of this program|G are not finite'):
            runs.load_run(seal(tmp_path / 'run', {**checkpoint, **change}), CPU)


def test_hostile_styles(command, refused, trained, scenes, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(trained, run)
    label = next((scenes / 'gtFine' / 'val' / 'toy').glob('*labelIds.png'))
    words = ('generate', '--run', run, '--label', label, '--sample', '--style', 'car=0')
    assert command('cluster', '--run', run)[0] == 0 == command(*words)[0]
    good = dict(np.load(run / 'styles.npz'))
    for change in (
            {'counts': good['counts'][:5]}, {'counts': -good['counts']},
            {'counts': good['counts'] * np.nan},
            {'counts': good['counts'][:, :0], 'centres': good['centres'][:, :0]},
            {'mean': np.zeros(7, 'f')}, {'centres': good['centres'].astype(str)},
            {'centres': np.full_like(good['centres'], np.inf)}, {'step': np.zeros((2, 2), int)},
            {'label_names': np.full((3, 3), 'x')}, {'min_pixels': np.array('x')},
            {'mean': np.zeros(10 ** 8, 'f')}):
        np.savez_compressed(run / 'styles.npz', **{**good, **change})
        assert 'styles.npz: not a whole file of styles' in refused(*words)

    checkpoint, = checkpoints.list_checkpoints(run)[-1:]
    deflated = run / 'deflated'
    with (zipfile.ZipFile(checkpoint) as archive,
          zipfile.ZipFile(deflated, 'w', zipfile.ZIP_DEFLATED) as small):
        for name in archive.namelist():
            small.writestr(name, archive.read(name))
    checkpoint.write_bytes(with_seal(deflated.read_bytes(), seals.FORMAT))
    assert 'not a checkpoint of this program (compressed)' in refused(*words)


# -------------------------------------------------------------------- training that goes wrong

@pytest.fixture
def spoiled(scenes, tmp_path, monkeypatch, capsys):
    """Train in this process, with photographs that are not finite at the steps in `bad`:
    spoiled(bad, *flags) -> exit code, stdout, stderr, rows of the log."""
    monkeypatch.chdir(tmp_path)
    to_device = data.to_device

    def run(bad, *flags):
        step = 0

        def spoil(batch, device):
            nonlocal step
            step += 1
            label, inst, image, labels = to_device(batch, device)
            return label, inst, image * float('nan') if step in bad else image, labels
        monkeypatch.setattr(data, 'to_device', spoil)
        code = program.main(program.parse([str(word) for word in (
            'train', '--data', scenes, *TINY, '--log-every', 1, '--device', 'cpu',
            '--sample-every', 99, *flags)]))
        monkeypatch.setattr(data, 'to_device', to_device)
        return code, *capsys.readouterr()
    return run


def rows(run):
    names, *lines = (line.split(',') for line in (Path(run) / 'log.csv').read_text().splitlines())
    return [dict(zip(names, map(float, line))) for line in lines]


def test_a_step_that_is_not_finite_is_skipped_counted_and_logged(spoiled):
    code, out, err = spoiled({3, 4}, '--steps', 4, '--run', 'bad')
    assert code == 0 and 'skipped 1' in out
    assert [row['skipped'] for row in rows('bad')] == [0, 0, 1, 1]
    assert all(np.isfinite(row['gan']) == (row['skipped'] == 0) for row in rows('bad'))

    spoiled((), '--steps', 4, '--run', 'good')
    good, bad = rows('good'), rows('bad')
    assert good[:2] == [{**row} for row in bad[:2]]
    assert all(row['map_min'] < -2 and row['map_max'] > 2 for row in good)

    after = runs.load_run('bad', CPU)
    assert all(torch.isfinite(value).all()
               for net in (after.G, after.D, after.E) for value in net.parameters())
    assert {float(moment['step']) for moment in after.opt_G.state_dict()['state'].values()} == {2}


def test_after_many_bad_steps_in_a_row_the_run_stops(spoiled, tmp_path):
    code, out, err = spoiled(range(8, 100), '--steps', 30, '--run', 'run', '--max-bad-steps', 5,
                             '--save-every', 1)
    assert code == 2 and err.count('\n') == 1
    assert re.search('run: stopped at step 12, .* not finite 5 times in a row; its checkpoints are '
                     'from before.*--lr', err), err
    assert runs.load_run('run', CPU).step <= 7

    # Four in a row, twice.
    code, out, err = spoiled({1, 2, 3, 4, 6, 7, 8, 9}, '--steps', 10, '--run', 'other',
                             '--max-bad-steps', 5)
    assert code == 0 and sum(row['skipped'] for row in rows('other')) == 8


def test_a_discriminator_that_has_won_is_warned_of_once(spoiled, monkeypatch):
    monkeypatch.setattr(loop, 'WON_STEPS', 4)
    code, out, err = spoiled((), '--steps', 12, '--run', 'fair')
    assert code == 0 and err == ''

    monkeypatch.setattr(losses, 'chance_level_loss', lambda n_scales, mode: 1e6)
    code, out, err = spoiled((), '--steps', 12, '--run', 'won')
    assert code == 0
    said = 'warning: won: for 4 steps the discriminator has been right about'
    assert err.count(said) == 1
