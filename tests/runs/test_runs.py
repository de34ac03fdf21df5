"""The folders of runs."""
import os
from pathlib import Path
import shutil

from app.runs import folders


def test_the_newest_run_is_resumed(trained, tmp_path, monkeypatch):
    (tmp_path / 'street').mkdir()
    monkeypatch.chdir(tmp_path / 'street')                  # has the name of a run in it
    for name in ('street', 'newer'):
        shutil.copytree(trained, Path('runs') / name)
        for path in Path('runs', name).glob('checkpoint-*'):
            os.utime(path)
    assert folders.resumed_folder('', None, None) == Path('runs/newer')
    assert folders.resumed_folder('', None, 'somewhere/street') == Path('runs/street')


def test_a_run_that_stopped_before_its_first_checkpoint(command, tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'log.csv').write_text('')           # as prepare_run_folder leaves it
    for words in (('train', '--resume', 'run'), ('info', 'run')):
        code, _, err = command(*words)
        assert code == 2 and err.count('\n') == 1
        assert 'training stopped before its first one; start it again' in err
    folders.check_new(tmp_path / 'run')                     # raises nothing: it can start again
