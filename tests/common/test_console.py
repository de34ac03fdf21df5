"""What a command writes to a terminal."""
import os
import pty
import re
import subprocess
import sys

from app.common import console
from conftest import ROOT, TINY


def in_terminal(words, folder, **environment):
    """Run a command in a terminal of its own; return what it writes there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, ROOT / 'p2phd.py', *map(str, words)], cwd=folder,
                               stdout=theirs, stderr=theirs,
                               env={**os.environ, 'TERM': 'xterm', **environment})
    os.close(theirs)
    text = b''
    try:
        while part := os.read(ours, 4096):
            text += part
    except OSError:                                         # the command has ended
        pass
    os.close(ours)
    assert process.wait() == 0
    return text.decode()


def test_the_status_line_is_below_the_rows(scenes, tmp_path):
    words = ['train', '--data', scenes, *TINY, '--steps', 40, '--log-every', 20, '--device', 'cpu']
    text = in_terminal([*words, '--run', 'a'], tmp_path)
    assert re.search(r'\r\x1b\[2Kstep \d+/40, epoch [\d.]+, \d+ s left, [\d.]+ steps/s', text)
    lines = [line.split('\x1b[2K')[-1] for line in text.split('\r\n')]
    assert any(line.startswith('step 40/40  epoch') for line in lines)      # whole, above it
    assert '\x1b' not in in_terminal([*words, '--run', 'b'], tmp_path, TERM='dumb')
    assert in_terminal([*words, '--run', 'c', '-q'], tmp_path) == ''


def test_progress_is_reported_after_two_seconds_and_then_every_ten(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, 'monotonic', lambda: now[0])
    progress = console.Progress('pictures', 100)
    for i in range(1, 101):
        now[0] += 0.5
        progress(i)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'pictures: 21 of 100, 40 s left' and len(lines) == 4
