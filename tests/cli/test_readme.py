"""What the README says can be done, done: its commands parse, its programs run."""
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from conftest import ROOT
from app.editor import operations
from app.cli import command_line

README = (ROOT / 'README.md').read_text()
COMMANDS = [*re.findall(r'python p2phd\.py ((?!COMMAND)[a-z][^`\n]*)', README),
            *re.findall(r'-- p2phd\.py ([^\n]*)', README),
            *re.findall(r'\| `((?:train|check) --[^`]*)` \|', README)]


def block(words):
    """The indented lines of the README that begin with these words."""
    text = README[README.index(f'    {words}'):]
    return ''.join(line.removeprefix('    ') for line in text[:text.index('\n\n') + 1].splitlines(
        keepends=True))


@pytest.mark.parametrize('words', COMMANDS)
def test_commands(words):
    command_line.parse(shlex.split(words), '')


def test_flags_and_files():
    """Flags and files that the README names are there."""
    parser = command_line.make_parser('')
    known = {flag for sub in parser.commands.values() for action in sub._actions
             for flag in action.option_strings}
    theirs = {'--out', '--nproc_per_node', '--long', '--input1', '--standalone', '--large', '--do'}
    for text in re.findall(r'`([^`\n]*)`', README):
        for flag in re.findall(r'(?<![\w-])--[a-z][\w-]*', text):
            assert flag in known | theirs, text
    for name in re.findall(r'`((?:tests/)?\w+\.(?:py|html))`', README):
        assert (any((ROOT / folder / name).is_file() for folder in ('', 'tests'))
                or name in ('lpips_of.py', 'index.html')), name
    for name in re.findall(r'\]\((docs/[^)]*)\)', README):
        assert (ROOT / name).is_file()


def test_imports_run_downwards():
    """In the order of the table of files."""
    table = README[README.index('| file | what is in it |'):README.index('| `tests/` |')]
    order = re.findall(r'`(\w+)\.py`', ''.join(row.split('|')[1] for row in table.splitlines()))
    assert {path.stem for path in ROOT.glob('*.py')} == set(order)
    for i, name in enumerate(order):
        found = re.findall(r'^ *(?:import|from) (\w+)', (ROOT / f'{name}.py').read_text(), re.M)
        assert not set(found) & set(order[:i]), name


def test_presets_are_listed():
    from app.common import config
    listed = re.findall(r'^\| `([\w-]+)` \| [^|]* \| [\d.]+(?: GiB)? \|$', README, re.M)
    assert listed == list(config.PRESETS)


def test_edits():
    """The list of edits is of operations that there are, and so is the table."""
    for one in json.loads(block('[{"do"')):
        assert set(one) - {'do'} <= set(operations.OPERATIONS[one['do']].parsers)
    table = README[README.index('| `do` |'):README.index('The page does nothing else')]
    rows = [row.split('|')[1] for row in table.strip().splitlines()[2:]]
    told = {name for row in rows for name in re.findall(r'`(\w+)`', row)}
    assert told - {'undo', 'redo', 'reset'} == set(operations.OPERATIONS) - {'undo', 'redo', 'reset'}


@pytest.mark.parametrize('kind, words', [
    ('pt2', 'import numpy as np, torch\n'), ('onnx', 'import numpy as np, onnxruntime\n')])
def test_programs_of_strangers(kind, words, command, trained, scenes, tmp_path):
    """The few lines that use an exported file, in a process without this project."""
    if kind == 'onnx':
        pytest.importorskip('onnxruntime')
    path = tmp_path / 'runs' / 'cityscapes' / f'exported.{kind}'
    path.parent.mkdir(parents=True)
    code, _, err = command('export', '--run', trained, '--format', kind, '--out', path)
    assert code == 0, err
    for name, role in (('label', 'labelIds'), ('inst', 'instanceIds')):
        picture = Image.open(next((scenes / 'gtFine' / 'val').rglob(f'*{role}.png')))
        picture.save(tmp_path / f'{name}.png')
    subprocess.run([sys.executable, '-c', block(words)], cwd=tmp_path, check=True,
                   env={**os.environ, 'PYTHONPATH': ''})
    made = np.asarray(Image.open(tmp_path / 'picture.png'))
    assert made.shape == (*np.asarray(picture).shape, 3)
    command('generate', '--run', trained, '--label', 'label.png', '--inst', 'inst.png', '--out',
            'out')
    expected = np.asarray(Image.open(tmp_path / 'out' / 'label_generated.png'))
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_program_for_lpips():
    compile(block('import glob, os, lpips'), 'lpips_of.py', 'exec')
