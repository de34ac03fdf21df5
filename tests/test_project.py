"""Rules of the project: which file may import which, how long functions and the README may be."""
import ast
import sys

import pytest

from app.cli import parser
from conftest import ROOT

METHOD = ['nets', 'losses', 'data', 'kmeans', 'styles', 'generate', 'train']
PACKAGES = ['numpy', 'torch', 'PIL']
# A folder of app/ imports from the lines above its own.
FLOORS = ['common', 'datasets', 'runs', 'evaluation editor demo', 'cli']
SOURCES = [*ROOT.glob('*.py'), *(ROOT / 'app').rglob('*.py')]


def imported_modules(path):
    """Return the full names of all modules that a file imports, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def test_the_top_level_is_the_method_and_the_command():
    assert {path.stem for path in ROOT.glob('*.py')} == {*METHOD, 'p2phd'}


@pytest.mark.parametrize('name', METHOD)
def test_the_method_imports_three_packages_and_itself(name):
    modules = {module.split('.')[0] for module in imported_modules(ROOT / f'{name}.py')}
    assert modules <= {*METHOD, *PACKAGES, *sys.stdlib_module_names}


def test_folders_of_the_application_import_downwards():
    levels = {folder: i for i, floor in enumerate(FLOORS) for folder in floor.split()}
    upwards = []
    for path in (ROOT / 'app').glob('*/*.py'):
        folder = path.parent.name
        for module in imported_modules(path):
            top, *rest = module.split('.')
            if top == 'p2phd' or top == 'app' and not (
                    rest[0] == folder or levels[rest[0]] < levels[folder]):
                upwards.append(f'{path.relative_to(ROOT)} imports {module}')
    assert upwards == []


def test_functions_are_at_most_60_lines_long():
    functions = {f'{path.relative_to(ROOT)}: {node.name}': node.end_lineno - node.lineno + 1
                 for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.FunctionDef)}
    assert {name: n for name, n in functions.items() if n > 60} == {}


def test_the_readme_is_at_most_10_kibibytes_long():
    assert (ROOT / 'README.md').stat().st_size <= 10240


def test_the_version_is_in_the_changelog_and_the_citation():
    for name in ('CHANGELOG.md', 'CITATION.cff'):
        assert parser.VERSION in (ROOT / name).read_text()
    assert (ROOT / 'LICENSE').stat().st_size > 200
