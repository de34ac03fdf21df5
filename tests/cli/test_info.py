"""The command `info`."""
import json
import shutil

from app.runs import checkpoints


def assert_fits_80_columns(out):
    """A path may be longer, on a line of its own."""
    assert not [line for line in out.splitlines() if len(line) > 80 and ' ' in line.strip()], out


def test_info_describes_runs_and_checkpoints(command, trained, golden, tmp_path):
    code, out, _ = command('info', trained)
    assert code == 0 and 'checkpoint-0000006.pt: whole' in out
    assert 'step 6 of 6' in ' '.join(out.split())
    assert_fits_80_columns(out)
    code, out, _ = command('info', trained, '--json')
    found = json.loads(out)
    assert found['step'] == 6 and found['parameters'].keys() == {'G', 'D', 'E'}
    code, out, _ = command('info', next(trained.glob('checkpoint-*.pt')))
    assert code == 0 and 'step 6' in ' '.join(out.split())

    shutil.copytree(trained, tmp_path / 'damaged')
    newest = checkpoints.list_checkpoints(tmp_path / 'damaged')[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    code, out, err = command('info', 'damaged')
    if len(checkpoints.list_checkpoints(tmp_path / 'damaged')) > 1:
        assert code == 0 and f'{newest.name}: damaged' in out and 'going back to' in err
    code, _, err = command('info', newest)
    assert code == 2 and 'damaged or cut short' in err
    (tmp_path / 'empty').mkdir()
    code, _, err = command('info', 'empty')
    assert code == 2 and 'no checkpoint there' in err and err.count('\n') == 1
    code, out, _ = command('info', golden('official_run'))
    assert code == 0 and 'a run of the official code' in ' '.join(out.split())
    assert 'from' not in out.split('styles')[1]
