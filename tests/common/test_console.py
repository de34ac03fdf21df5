"""What a command writes to a terminal."""
import os
import pty
import re
import select

from app.common import console
from conftest import TINY


def run_in_terminal(launch, words, folder, term='xterm'):
    """Run a command in a terminal of its own; return what it writes there."""
    ours, theirs = pty.openpty()
    process = launch(words, folder, out=os.ttyname(theirs), environment={'TERM': term})
    text = b''
    while process.is_alive() or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            text += os.read(ours, 4096)
    os.close(ours), os.close(theirs)
    assert process.exitcode == 0, text
    return text.decode()


def test_the_status_line_is_below_the_rows(launch, scenes, tmp_path):
    words = ['train', '--data', scenes, *TINY, '--steps', 20, '--log-every', 10, '--device', 'cpu']
    text = run_in_terminal(launch, [*words, '--run', 'a'], tmp_path)
    assert re.search(r'\r\x1b\[2Kstep \d+/20, epoch [\d.]+, \d+ s left, [\d.]+ steps/s', text)
    lines = [line.split('\x1b[2K')[-1] for line in text.split('\r\n')]
    assert any(line.startswith('step 20/20  epoch') for line in lines)      # whole, above it
    assert '\x1b' not in run_in_terminal(launch, [*words, '--run', 'b'], tmp_path, 'dumb')
    assert run_in_terminal(launch, [*words, '--run', 'c', '-q'], tmp_path) == ''


def test_progress_is_reported_after_two_seconds_and_then_every_ten(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, 'monotonic', lambda: now[0])
    progress = console.Progress('pictures', 100)
    for i in range(1, 101):
        now[0] += 0.5
        progress(i)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'pictures: 21 of 100, 40 s left' and len(lines) == 4
