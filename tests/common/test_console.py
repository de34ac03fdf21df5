"""What a command writes to a terminal, and what it does without one."""
import os
import pty
import re
import select
import subprocess
import sys

import pytest

from app.common import console
from app.common.errors import UserError
from app.runs import checkpoints
from conftest import MINUTES, ROOT, TINY


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


def run_in_shell(words, redirection, folder):
    """Run Python in a shell with streams closed; return (exit code, stdout, stderr)."""
    done = subprocess.run(['sh', '-c', f'exec "$@" {redirection}', 'sh', sys.executable,
                           *map(str, words)], cwd=folder, capture_output=True, text=True,
                          timeout=60 * MINUTES, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    return done.returncode, done.stdout, done.stderr


def test_training_while_stderr_is_closed(scenes, tmp_path):
    """As daemons are started."""
    words = ['train', '--data', scenes, *TINY, '--device', 'cpu', '--run', 'run', '--steps', 3]
    code, out, err = run_in_shell([ROOT / 'p2phd.py', *words], '2>&-', tmp_path)
    assert code == 0 and 'step 3/3' in out and not err
    assert checkpoints.newest_checkpoint(tmp_path / 'run')[1]['step'] == 3
    assert run_in_shell([ROOT / 'p2phd.py', 'train', '--lr', 9], '2>&-', tmp_path) == (2, '', '')


def test_files_do_not_take_the_place_of_closed_streams(tmp_path):
    program = ('import os, subprocess, sys\n'
               'from app.common import console\n'
               'console.open_closed_streams()\n'
               'with open("file", "wb", buffering=0) as file:\n'
               '    for write in (lambda: os.write(2, b"lost"), lambda: sys.stderr.write("lost"),\n'
               '                  lambda: subprocess.run(["sh", "-c", "echo lost >&2"])):\n'
               '        write()\n'
               '    file.write(b"kept")\n')
    for redirection in ('2>&-', '<&- >&- 2>&-'):
        assert run_in_shell(['-c', program], redirection, tmp_path) == (0, '', '')
        assert (tmp_path / 'file').read_bytes() == b'kept'


@pytest.mark.parametrize('stream', [None, 'closed'])
def test_streams_that_are_none_or_closed(monkeypatch, stream):
    """Also where the program is imported, nothing is raised."""
    if stream:
        stream = open(os.devnull, 'w')
        stream.close()
    monkeypatch.setattr(sys, 'stdout', stream)
    monkeypatch.setattr(sys, 'stderr', stream)
    console.log_info('one')
    console.warn('two')
    console.status_line('three')
    progress = console.Progress('pictures', 2)
    progress.started -= 60
    progress.printed -= 60
    progress(1)
    progress(2)


def test_warnings_do_not_go_to_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stderr', None)
    console.warn('something')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('system, path, expected', [
    ('posix', 'runs/a b', "'runs/a b'"), ('posix', 'runs/street', 'runs/street'),
    ('nt', 'runs\\street', 'runs\\street'), ('nt', 'runs\\a b', '"runs\\a b"')])
def test_paths_are_quoted_as_a_terminal_of_the_system_takes_them(system, path, expected,
                                                                 monkeypatch):
    monkeypatch.setattr(console.os, 'name', system)
    assert console.quote(path) == expected


def test_only_the_first_process_prints():
    program = ('from app.common import console\n'
               'console.log_info("said")\nconsole.warn("warned")\n')
    for environment, expected in (({}, 'said\n'), ({'WORLD_SIZE': '2', 'RANK': '0'}, 'said\n'),
                                  ({'WORLD_SIZE': '2', 'RANK': '1'}, ''),
                                  ({'WORLD_SIZE': '1', 'RANK': '1'}, 'said\n')):
        done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True,
                              text=True, env={**os.environ, **environment})
        assert (done.stdout, done.stderr) == (expected, 'warned\n'), environment


def test_what_cannot_be_written_is_a_warning(capsys):
    def fail():
        raise UserError('sheet.png: cannot be written')

    console.warn_on_error(fail, 'training goes on')
    assert capsys.readouterr().err == ('warning: sheet.png: cannot be written; training goes on\n')


def test_long_lines_are_wrapped():
    """Numbers keep the word beside them, flags their value, and paths are whole."""
    text = console.wrap(f'  trained in  {"batches of 1, " * 8}--steps 550 --lr 0.1 from '
                        f'/{"x" * 90}', 14)
    assert ' '.join(text.split()).count('batches of 1,') == 8
    lines = text.splitlines()
    assert all(line.startswith(' ' * 14) for line in lines[1:])
    assert lines[-1].strip() == '/' + 'x' * 90
    assert max(map(len, lines[:-1])) <= 80
    assert not [line for line in lines if line.endswith(('of', '--steps', '--lr'))]
