"""Folders of runs: their names, the checkpoints in them, and whether a run may begin there.
This module does not import torch."""
from contextlib import suppress
import os
from pathlib import Path
import re

from app.common.console import quote, warn
from app.common.errors import UserError
from app.common.files import lock_folder, require_folder, require_own, resolve_path


# The run that comes with the program, if it does, see app/demo/builtin.py. Nothing writes there.
BUILT_IN = Path(__file__).resolve().parents[1] / 'demo' / 'built-in'
# The page of a run or gallery, and a colour of its style, which pages of other programs lack.
PAGE = 'index.html', '--back'


def list_checkpoints(folder):
    """Return the paths of the checkpoints in a run's folder, oldest first."""
    paths = [path for path in Path(folder).glob('checkpoint-*.pt')
             if re.fullmatch(r'checkpoint-\d{7,18}', path.stem)]
    return sorted(paths, key=lambda path: int(path.stem.removeprefix('checkpoint-')))


def newest_run(built_in=False):
    """Return the folder in runs/ that was trained last. UserError if there is none.
    built_in: return the built-in run in that case, and say so."""
    times = {}
    for folder in Path('runs').iterdir() if os.path.isdir('runs') else ():
        for path in list_checkpoints(folder):
            with suppress(FileNotFoundError):       # a trainer may be replacing it
                times[path.stat().st_mtime] = folder
    if not times and built_in and list_checkpoints(BUILT_IN):
        warn(f'note: no trained run in runs/, so the built-in one is used: {BUILT_IN}')
        return BUILT_IN
    if not times:
        raise UserError('runs/: no trained run there; train one, or name one with --run')
    return times[max(times)]


def is_built_in(folder):
    """Return whether a folder is that of the built-in run."""
    return resolve_path(folder) == resolve_path(BUILT_IN)


def output_folder(folder):
    """Return where files that are made of a run go by default: into its folder, or, if it is the
    built-in run, into the current one."""
    return Path() if is_built_in(folder) else folder


def new_folder(folder, name, dry_run=False):
    """Return `folder`, or runs/<name>. UserError if it holds a run already, unless dry_run."""
    folder = Path(folder or Path('runs') / name)
    if not dry_run:
        check_new(folder)
    return folder


def check_new(folder):
    """Raise UserError if a folder holds a run, or cannot hold one."""
    require_folder(folder)
    above = next(path for path in (folder, *resolve_path(folder).parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f'{folder}: cannot be made, because {above} is no folder to write to; '
                        'choose another with --run')
    if str(folder).encode(errors='replace').decode() != str(folder):
        raise UserError(f'{folder}: this name is no valid text; choose another with --run')
    if list_checkpoints(folder):
        with suppress(OSError), lock_folder(folder):    # its error names who is at work there
            pass
        raise UserError(f'{folder}: holds a trained run already; --resume {quote(folder)} goes on '
                        'with it, --run DIR makes another')
    if (folder / 'latest_net_G.pth').exists():
        raise UserError(f'{folder}: holds a run of the official code; --run DIR makes another, '
                        f'finetune --from {quote(folder)} starts from it')
    for name, mark in (('config.json', '"training"'), ('log.csv', 'step,'), PAGE):
        require_own(folder / name, mark, '--run')


def resumed_folder(resume, folder, data):
    """Return the folder of the run to continue: of --resume or --run, of --data, the newest."""
    if resume and folder and resolve_path(folder) != resolve_path(resume):
        raise UserError(f'--run {folder}: --resume {resume} has its own folder; leave --run out')
    if resume or folder:
        return Path(resume or folder)
    of_data = data and Path('runs') / resolve_path(data).name
    return of_data if of_data and list_checkpoints(of_data) else newest_run()


def sibling_folder(folder, ending):
    """Return the folder beside a run's whose name has this ending: runs/x-cache for runs/x."""
    folder = folder if folder.name else resolve_path(folder)
    if not folder.name:
        raise UserError(f'{folder}: there is no folder beside it; name one')
    return folder.with_name(f'{folder.name}{ending}')
