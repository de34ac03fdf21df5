"""Checkpoints: damage is always noticed, and older files stay readable. `pytest --long` damages
more often."""
import hashlib
import io
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
import zipfile

import pytest
import torch

from app.common.errors import UserError
from app.runs import checkpoints, runs
from app.runs.folders import list_checkpoints
from conftest import ROOT, TINY, equal

CPU = torch.device('cpu')


def damage(blob, rng):
    """Return a file cut short, with flipped bits, or with 4096 bytes of zeros, at random."""
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
    """A damaged checkpoint is replaced by the one before, with a warning that names it, or refused
    in one line. None is read other than it was written."""
    rng = random.Random(0)
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    written = [{**checkpoint, 'step': 5}, checkpoint]
    for contents in written:
        checkpoints.write_checkpoint(tmp_path, contents, 2)
    paths = list_checkpoints(tmp_path)
    whole = [path.read_bytes() for path in paths]

    counts = {'unharmed': 0, 'recovered': 0, 'refused': 0}
    for _ in range(1000 if pytestconfig.getoption('--long') else 100):
        both = rng.random() < 0.2
        blobs = [damage(whole[0], rng) if both else whole[0], damage(whole[1], rng)]
        for path, blob in zip(paths, blobs):
            path.write_bytes(blob)
        good = [i for i in (1, 0) if blobs[i] == whole[i]]  # zeros may replace zeros
        try:
            path, contents = checkpoints.newest_checkpoint(tmp_path)
        except UserError as error:
            assert not good, error
            assert re.search(r'checkpoint-0000006.pt: .*(cut short|checksum)', str(error)), error
            counts['refused'] += 1
            continue
        assert path == paths[good[0]]
        same = equal(contents, written[good[0]])
        assert same
        err = capsys.readouterr().err
        assert err.count('\n') == (good[0] == 0), err
        assert good[0] == 1 or f'warning: {paths[1]}: ' in err
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


def test_a_loaded_run_does_not_need_its_file(trained, tmp_path):
    """A process that reads mapped weights is killed once their file is shorter."""
    path = tmp_path / 'checkpoint-0000006.pt'
    shutil.copy(list_checkpoints(trained)[-1], path)
    run = runs.load_run(tmp_path, CPU, training=False)
    path.write_bytes(b'')
    assert all(weight.isfinite().all() for weight in run.G.state_dict().values())


def test_a_checkpoint_that_cannot_be_opened_is_not_damaged(trained, tmp_path, monkeypatch):
    def refuse(path, generator_only=False):
        raise PermissionError(13, 'Permission denied', str(path))

    folder = shutil.copytree(trained, tmp_path / 'run')
    monkeypatch.setattr(checkpoints, 'check_seal', refuse)
    with pytest.raises(UserError, match=r'0000006.pt: cannot be read \(Permission denied\)'):
        checkpoints.newest_checkpoint(folder, set_aside=True)
    assert list_checkpoints(folder) and not list(folder.glob('*.damaged'))


def test_old_checkpoints_make_room_on_a_full_disk(trained, tmp_path, monkeypatch):
    _, checkpoint = checkpoints.newest_checkpoint(trained)
    for step in (1, 2, 3):
        checkpoints.write_checkpoint(tmp_path, {**checkpoint, 'step': step}, 3)
    monkeypatch.setattr(checkpoints.shutil, 'disk_usage', lambda folder: SimpleNamespace(
        free=0 if len(list_checkpoints(folder)) > 2 else 1 << 40))
    with pytest.raises(UserError, match='make room, or keep fewer with --keep'):
        checkpoints.write_checkpoint(tmp_path, {**checkpoint, 'step': 4}, 3)
    checkpoints.write_checkpoint(tmp_path, {**checkpoint, 'step': 4}, 2)
    assert [path.stem[-1] for path in list_checkpoints(tmp_path)] == ['3', '4']


def test_styles_of_a_later_step_stay(command, trained, scenes, tmp_path):
    """As where the newest checkpoint is damaged, and generate goes back to the one before."""
    folder = shutil.copytree(trained, tmp_path / 'run')
    assert command('cluster', '--run', folder)[0] == 0
    checkpoints.write_checkpoint(folder, {**checkpoints.newest_checkpoint(folder)[1], 'step': 5})
    list_checkpoints(folder)[-1].write_bytes(b'')
    before = (folder / 'styles.npz').read_bytes()
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    code, _, err = command('generate', '--run', folder, '--label', label)
    assert code == 0 and 'clustering again' in err
    assert (folder / 'styles.npz').read_bytes() == before


def test_numbered_checkpoints_are_kept(p2phd, scenes, tmp_path):
    p2phd('train', '--data', scenes, '--steps', 6, '--run', 'run', *TINY)
    assert [path.stem[-2:] for path in list_checkpoints(tmp_path / 'run')] == ['00', '06']
    p2phd('train', '--data', scenes, '--epochs', 1, '--decay-epochs', 1, '--run', 'epoch', *TINY)
    assert [path.stem[-2:] for path in list_checkpoints(tmp_path / 'epoch')] == ['06', '12']

    run = tmp_path / 'many'
    run.mkdir()
    for step in range(9_999_990, 10_000_002):               # up to eight digits
        checkpoints.write_checkpoint(run, {'step': step}, 3)
    steps = [checkpoints.read_checkpoint(path)['step'] for path in list_checkpoints(run)]
    assert steps == [9_999_999, 10 ** 7, 10 ** 7 + 1]


def with_seal(blob, number):
    """What torch.save has written, under a seal of another format that matches."""
    blob += checkpoints.SEAL.format(number).encode()
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


def test_odd_things_in_a_run_folder(command, trained, tmp_path):
    """What a trainer has not written there is named or left alone."""
    run = tmp_path / 'run'
    shutil.copytree(trained, run)
    (run / 'checkpoint-0000008.pt').mkdir()
    (run / 'checkpoint-0000009.pt').symlink_to('nowhere')
    (run / 'mine.partial').write_text('mine')
    (run / 'a.partial').mkdir()
    (run / 'checkpoint-0000007.pt.123.partial').write_text('half')
    assert runs.load_run(run, CPU).step == 6
    code, _, err = command('train', '--resume', run, '--steps', 8)
    assert code == 0
    assert 'checkpoint-0000008.pt: Is a directory; going back to checkpoint-0000006.pt' in err
    assert runs.load_run(run, CPU).step == 8
    assert sorted(path.name for path in run.glob('*.partial')) == ['a.partial', 'mine.partial']

    (tmp_path / 'precious').write_text('precious')
    (run / '.lock').unlink()
    (run / '.lock').symlink_to(tmp_path / 'precious')
    code, _, err = command('train', '--resume', run, '--steps', 10)
    assert code == 2 and err.count('\n') == 1 and '.lock' in err
    assert (tmp_path / 'precious').read_text() == 'precious'


def test_a_checkpoint_can_be_read_while_a_trainer_replaces_it(tmp_path):
    contents = {'config': {}, 'average': {}, 'weights': {'G': {'weight': torch.ones(9)}}}
    stop = threading.Event()

    def write():
        step = 0
        while not stop.is_set():
            checkpoints.write_checkpoint(tmp_path, {**contents, 'step': step}, 1)
            step += 1
    trainer = threading.Thread(target=write)
    trainer.start()
    try:
        while not list_checkpoints(tmp_path):
            time.sleep(0.01)
        for i in range(100):
            _, checkpoint = checkpoints.newest_checkpoint(tmp_path, generator_only=i % 2)
            assert checkpoint['weights']['G']['weight'].sum() == 9
    finally:
        stop.set()
        trainer.join()


def test_training_goes_on_where_output_cannot_be_written(scenes, tmp_path):
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
        release.wait(60)
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
