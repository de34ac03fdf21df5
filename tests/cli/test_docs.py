"""What README.md, CONTRIBUTING.md and docs/ say is true: commands parse and run, programs run, and
the files, functions, flags and links that they name exist."""
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from conftest import ROOT, TINY
from app.cli import parser, settings
from app.datasets.layouts import CITYSCAPES
from app.demo import builtin, streets
from app.editor import operations
from app.runs import folders

PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (
    ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md',
    *sorted((ROOT / 'docs').glob('*.md')))}
README = PAGES['README.md']
METHOD = {path.stem for path in ROOT.glob('*.py')}


def blocks(page, language):
    """The code blocks of a page in this language."""
    return re.findall(rf'^```{language}\n(.*?)^```$', PAGES[page], re.M | re.S)


def block(page, language, start):
    """The code block of a page that begins with `start`."""
    return next(text for text in blocks(page, language) if text.startswith(start))


def table(page, heading):
    """The rows of the table whose first line begins with `heading` -> [[cell]]."""
    lines = PAGES[page].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f'| {heading} |'))
    rows = []
    for line in lines[start + 2:]:
        if not line.startswith('|'):
            break
        rows.append([cell.strip() for cell in line.strip('|').split('|')])
    return rows


# ------------------------------------------------------------------------------------- commands

def written_commands(text):
    """The command lines in a text, without `python p2phd.py`."""
    return [*re.findall(r'python p2phd\.py ((?!COMMAND)[a-z][^`\n]*)', text),
            *re.findall(r'-- p2phd\.py ([^`\n]*)', text),
            *re.findall(r'`((?:train|check|generate|evaluate) --[^`]*)`', text)]


@pytest.mark.parametrize('words', sorted({
    words for text in PAGES.values() for words in written_commands(text)}))
def test_commands_parse(words):
    if words.startswith('generate') and '--label' not in words:
        words += ' --label map.png'
    parser.parse(shlex.split(words), '')


def write_workspace(folder):
    """Write small versions of the files that the docs name: data sets, a scene, predictions of
    another network."""
    streets.write_dataset(folder / 'cityscapes', 'train', 4, (64, 32))
    streets.write_dataset(folder / 'cityscapes', 'val', 2, (64, 32), seed=1)
    for pattern, place in (('gtFine/train/toy/*labelIds.png', 'own/train_label'),
                           ('leftImg8bit/train/toy/*.png', 'own/train_img'),
                           ('gtFine/val/toy/*labelIds.png', 'predicted/real'),
                           ('gtFine/val/toy/*labelIds.png', 'predicted/fake')):
        (folder / place).mkdir(parents=True)
        for path in (folder / 'cityscapes').glob(pattern):
            shutil.copy(path, folder / place / f'{path.name[:len("toy_0000")]}.png')
    (folder / 'own' / 'labels.csv').write_text('id,name\n' + ''.join(
        f'{i},{name}\n' for i, (name, _) in enumerate(CITYSCAPES)))
    scene = streets.draw_scene(2, (512, 256))                   # which has the object 26003
    for name in ('map', 'label', 'street'):
        Image.fromarray(scene.label).save(folder / f'{name}.png')
    Image.fromarray(scene.inst.astype(np.uint16)).save(folder / 'inst.png')
    Image.fromarray(scene.image).save(folder / 'photo.jpg')
    (folder / 'edits.json').write_text(block('docs/editor.md', 'json', '[{"do"'))


@pytest.fixture
def workspace(command, shared_folder, trained, tmp_path, brief_judge):
    """The current folder, with the files of write_workspace and a trained run."""
    shutil.copytree(shared_folder('workspace', write_workspace), tmp_path, dirs_exist_ok=True)
    shutil.copytree(trained, 'runs/cityscapes')
    return tmp_path


# Long ones, which other tests run in small, one that needs weights, and a server, which never ends.
NOT_RUN = r'demo|train .*--(preset|vgg)|edit(?!.*--script)|export .*--(size|format)'


def in_small(words):
    """A command of the docs with the networks and sizes of the tests."""
    words = words.replace('1024x512', '64x32').replace('2048x1024', '128x64')
    more = []
    if words.startswith('train --data') and '--from' not in words:
        more = [*TINY, '--steps', '1', '--run', 'runs/cityscapes']
    elif words.startswith(('train --data', 'finetune')):
        more = ['--steps', '1']
    return [*shlex.split(words), *more]


@pytest.mark.parametrize('page', [page for page in PAGES if any(
    'python p2phd.py ' in text for text in blocks(page, 'sh'))])
def test_commands_run(page, workspace, trained, command):
    """The commands of a page, one after the other."""
    commands = re.findall(r'^python p2phd\.py (.*)', '\n'.join(blocks(page, 'sh')), re.M)
    if any(words.startswith('train --data') for words in commands):
        shutil.rmtree('runs')
    if page == 'README.md':                                 # its first commands need no run
        command('cluster', '--run', trained)
        builtin.pack(trained, folders.BUILT_IN)
    if page == 'docs/editor.md':                            # saves what its first command reads
        command('edit', '--label', 'street.png', '--inst', 'inst.png', '--script', 'edits.json',
                '--out', '.')
    for words in commands:
        if not re.match(NOT_RUN, words):
            code, out, err = command(*in_small(words))
            assert code == 0, (words, out, err)


# ------------------------------------------------------------------------------------- programs

def run_program(text, folder, path=''):
    subprocess.run([sys.executable, '-c', text], cwd=folder, check=True,
                   env={**os.environ, 'PYTHONPATH': str(path)})


@pytest.mark.parametrize('kind, start', [
    ('pt2', 'import numpy as np, torch\n'), ('onnx', 'import numpy as np, onnxruntime\n')])
def test_exported_file_without_this_project(kind, start, command, workspace):
    """The program of docs/export.md makes the picture that generate makes."""
    if kind == 'onnx':
        pytest.importorskip('onnxruntime')
    code, _, err = command('export', '--run', 'runs/cityscapes', '--format', kind)
    assert code == 0, err
    run_program(block('docs/export.md', 'python', start), workspace)
    made = np.asarray(Image.open('picture.png'))
    command('generate', '--run', 'runs/cityscapes', '--label', 'label.png', '--inst', 'inst.png',
            '--out', 'out')
    expected = np.asarray(Image.open('out/label_generated.png'))
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_python(command, workspace):
    """The program of docs/python.md makes pictures, each with other styles; the scene of tensors is
    that of the files."""
    program, tensors = blocks('docs/python.md', 'python')
    check = ('from_files = scene\n{}\n'
             'assert torch.equal(scene.region_index, from_files.region_index)')
    run_program(program + check.format(tensors), workspace, ROOT)
    pictures = [Path(f'picture_{i}.png').read_bytes() for i in range(4)]
    assert len(set(pictures)) == 4


def test_program_for_lpips():
    compile(block('docs/evaluation.md', 'python', 'import glob, os, lpips'), 'lpips_of.py', 'exec')


# --------------------------------------------------------------------------- names, links, tables

@pytest.mark.parametrize('page', sorted(PAGES.keys() - {'CHANGELOG.md'}))
def test_names_exist(page):
    """Flags, files and functions between backticks."""
    subparsers = parser.make_parser('').commands
    flags = {flag for sub in subparsers.values() for action in sub._actions
             for flag in action.option_strings}
    flags |= {'--nproc_per_node', '--signals-to-handle',    # of other programs
              '--long', '--large', '--out', '--do'}
    for text in re.findall(r'`([^`\n]+)`', PAGES[page]):
        for flag in re.findall(r'(?<![\w-])--[a-z][\w-]*', text):
            assert flag in flags, text
        if re.fullmatch(r'((app|tests|benchmarks|docs)/[\w/.-]*|[\w/]+\.(py|html))', text):
            assert (ROOT / text).exists() or text in ('lpips_of.py', 'index.html'), text
        name = re.fullmatch(r'([\w.]+)\.(\w+)', text)
        if name and (name[1] in METHOD or name[1].startswith('app.')) and (
                    name[2] not in ('py', 'npz')):
            assert hasattr(import_module(name[1]), name[2]), text


@pytest.mark.parametrize('heading', ['module in 1.0.0', 'name in 1.0.0'])
def test_new_names_exist(heading):
    """What CHANGELOG.md says that old modules and names became."""
    for _, names in table('CHANGELOG.md', heading):
        for name in re.findall(r'`([\w.]+)`', names):
            module, _, attribute = name.rpartition('.')
            assert find_spec(name) if heading.startswith('module') else hasattr(
                import_module(module), attribute), name


def anchors(page):
    headings = re.findall(r'^#+ (.*)', PAGES[page], re.M)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES)
def test_links(page):
    for target in re.findall(r'\]\(([^)]*)\)', PAGES[page]):
        if target.startswith(('https://', 'http://')):
            continue
        name, _, anchor = target.partition('#')
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.is_file(), target
        if anchor:
            assert anchor in anchors(os.path.relpath(path, ROOT)), target


def test_every_page_is_linked():
    assert set(re.findall(r'\]\((docs/\w+\.md)\)', README)) == {
        page for page in PAGES if page.startswith('docs/')}


def test_map_of_the_files():
    scripts = [row[0].strip('`') for row in table('README.md', 'script')]
    assert sorted(scripts) == sorted(f'{name}.py' for name in METHOD)
    folders = [row[0].strip('`/') for row in table('README.md', 'folder')]
    assert sorted(folders) == sorted(f'app/{path.parent.name}'
                                     for path in ROOT.glob('app/*/__init__.py'))


def test_reading_order():
    """Each script of the method imports only those above it in the README's table."""
    above = set()
    for name in [row[0].strip('`').removesuffix('.py') for row in table('README.md', 'script')]:
        text = (ROOT / f'{name}.py').read_text()
        assert set(re.findall(r'^(?:import|from) (\w+)', text, re.M)) & METHOD <= above, name
        above.add(name)


def test_presets_are_listed():
    rows = table('docs/training.md', '`--preset`')
    assert [row[0].strip('`') for row in rows] == list(settings.PRESETS)


def test_commands_are_listed():
    """The README names every subcommand."""
    commands = parser.make_parser('').commands
    assert all(re.search(rf'`(python p2phd\.py )?{name}\b', README) for name in commands)


def test_edits_are_listed():
    """The table of edits has every operation with its arguments; the example has no others."""
    arguments = {name: set(signature(function).parameters) - {'self'}
                 for name, function in (operations.OPERATIONS | operations.STEPS).items()}
    written = {name: set(re.findall(r'`(\w+)`', cell))
               for names, cell in table('docs/editor.md', '`do`')
               for name in re.findall(r'`(\w+)`', names)}
    assert written.keys() == arguments.keys()
    written['erase'].add('width')                           # which is `as above`
    assert written == arguments
    for edit in json.loads(block('docs/editor.md', 'json', '[{"do"')):
        assert set(edit) - {'do'} <= arguments[edit['do']]


def test_numbers_of_differences():
    """The code names differences by numbers that docs/differences.md has."""
    numbers = re.findall(r'^(\d+)\. ', PAGES['docs/differences.md'], re.M)
    assert numbers == [str(i + 1) for i in range(len(numbers))]
    sources = [path.read_text() for path in (*ROOT.glob('*.py'), *ROOT.glob('app/**/*.py'))]
    assert not any(re.search('README, deviation', text) for text in sources)
    named = {number for text in sources
             for number in re.findall(r'docs/differences\.md,\s+(?:#\s+)?(\d+)', text)}
    assert named and named <= set(numbers)
