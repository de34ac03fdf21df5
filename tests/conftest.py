"""What the tests share: the project's folder on the import path, folders of real data, scenes on disk, the command."""
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
GOLDEN = Path(os.environ.get('P2PHD_GOLDEN', ROOT.parent / 'shared' / 'golden'))
REAL = Path(os.environ.get('P2PHD_DATA', ROOT.parent / 'shared' / 'data'))

# The smallest networks that have every part, for tests that train.
TINY = ('--size 64x32 --ngf 8 --n-down 2 --n-blocks 1 --ndf 8 --n-scales 2 --nef 4 --n-down-encoder 2 '
        '--log-every 2').split()


@pytest.fixture
def golden():
    if not GOLDEN.is_dir():
        pytest.skip(f'no parity files at {GOLDEN} (P2PHD_GOLDEN names their folder)')
    return GOLDEN


@pytest.fixture
def real():
    if not REAL.is_dir():
        pytest.skip(f'no real pictures at {REAL} (P2PHD_DATA names their folder)')
    return REAL


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """A folder of six training scenes and two for validation."""
    import toy
    folder = tmp_path_factory.mktemp('scenes') / 'street'
    toy.write(folder, 'train', 6, (64, 32))
    toy.write(folder, 'val', 2, (64, 32))
    return folder


@pytest.fixture
def p2phd(tmp_path):
    """Run the command in an empty folder, as a user does: p2phd('train', ...) -> its standard output.

    `code` is the exit code to expect. With 2, the answer is one line on stderr, which is returned."""
    def run(*words, code=0, cwd=tmp_path):
        done = subprocess.run([sys.executable, ROOT / 'p2phd.py', *map(str, words)], cwd=cwd, capture_output=True,
                              text=True, timeout=600)
        assert done.returncode == code, done.stdout + done.stderr
        assert 'Traceback' not in done.stderr, done.stderr
        if code == 2:
            assert done.stderr.count('\n') == 1, done.stderr
            return done.stderr
        return done.stdout
    return run
