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
