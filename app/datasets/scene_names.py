"""Names of scenes: which files belong together, and which name would pair one without a partner."""
from collections import defaultdict
import difflib
import os
from pathlib import Path
import re
import unicodedata

from app.common.console import warn_once
from app.common.errors import UserError
from app.datasets.decoding import real_path

# What people add to the names of files of one scene.
ROLE_WORDS = ('masks?|labels?|labelids|gt|seg|segmentation|segm|sat|satellite|images?|img|photo|'
              'rgb|inst|instances?|instanceids|annotations?|anno|maps?|colou?rs?|trimap|real|fake|a|b')
ENDING = re.compile(rf'[ _.-]+({ROLE_WORDS})$|\.(jpe?g|jfif|png|tiff?|bmp|webp|npy|gif)$',
                    re.IGNORECASE)
BEGINNING = re.compile(rf'^({ROLE_WORDS})[ _-]+', re.IGNORECASE)
MOST_COMPARED = 2000        # names that are compared letter by letter


def name_files(files, name_of, bases=None):
    """Return {role: {scene: path}} of {role: [path]}. name_of(path) is the name of its scene. Where
    files of one role share it, all scenes are named by their paths below the folder of the role:
    'seq1/frame_0000'. bases: a number of parts of absolute paths, in place of those that the files
    of each role have in common. Raises UserError where two files of a folder have the same name."""
    depth = bases
    if bases is None and any(len({*map(name_of, paths)}) < len(paths) for paths in files.values()):
        depth = min(common_parts(real_path(path).parent for path in paths)
                    for paths in files.values() if paths)
    named = {}
    for role, paths in files.items():
        named[role] = scenes = {}
        for path in paths:
            parts = [] if depth is None else absolute(real_path(path).parent).parts[depth:]
            name = '/'.join([*parts, name_of(path)])
            if name in scenes:
                raise UserError(
                    f'{path} and {scenes[name]} have the same name: take only one of them')
            scenes[name] = path
    return named


def absolute(folder):
    """Return an absolute Path, without '..'."""
    return Path(os.path.abspath(folder))


def common_parts(folders):
    """Return how many parts of their absolute paths some folders have in common."""
    return len(Path(os.path.commonpath([*map(absolute, folders)])).parts)


def respell(files, scenes):
    """Return {scene: path} under the names of `scenes`, {scene: path}, where Unicode has several
    spellings (macOS writes an accent as a character of its own), or else where all names differ in
    the same ending."""
    if files.keys() == scenes.keys():
        return files
    spelling = {unicodedata.normalize('NFC', name): name for name in scenes if name not in files}
    respelled = {}
    for name, path in files.items():
        other = spelling.get(unicodedata.normalize('NFC', name)) if name not in scenes else None
        respelled[name if other is None else other] = path
    if not respelled.keys() & scenes.keys():
        return pair_by_endings(files, scenes)
    return respelled if len(respelled) == len(files) else files


def without_endings(names):
    """Return {name: what is left of it} without what people add to the names of files of a role,
    '_mask' or '.jpg', if all names have the same."""
    left = {name: name for name in names}
    while True:
        found = [ENDING.search(text) or BEGINNING.search(text) for text in left.values()]
        if not all(found) or len({match[0] for match in found}) != 1:
            return left
        left = {name: text[:match.start()] + text[match.end():]
                for (name, text), match in zip(left.items(), found)}


def pair_by_endings(files, scenes):
    """Return what respell does for files none of which has the name of a scene: 1_sat.png belongs
    to 1_mask.png if all files of each role have that ending. Say so."""
    scene_of = {left: scene for scene, left in without_endings(scenes).items()}
    renamed = {scene_of.get(left, name): files[name]
               for name, left in without_endings(files).items()}
    common = sorted(renamed.keys() & scenes.keys())
    if 2 * len(common) <= min(len(files), len(scenes)):
        return files
    warn_once('endings', f'note: {scenes[common[0]]} and {renamed[common[0]]} are taken for one '
              'scene, as all files whose names differ in these words')
    return renamed


def loose_name(name):
    """Return what is left of a name without case, endings for roles and formats, signs, and zeros
    before numbers."""
    name = unicodedata.normalize('NFKC', name).casefold()
    while (shorter := BEGINNING.sub('', ENDING.sub('', name))) not in (name, ''):
        name = shorter
    return re.sub(r'[\W_]+|(?<!\d)0+(?=\d)', '', name)


class Candidates:
    """Files without a partner, {scene: path}, that may be the partner of another one."""

    def __init__(self, files):
        self.files, self.by_loose_name = files, defaultdict(list)
        for name in files:
            self.by_loose_name[loose_name(name)].append(name)

    def advice(self, scene):
        """Return '; the nearest is ...', or '' if no name is near."""
        names = self.by_loose_name.get(loose_name(scene)) or (
            difflib.get_close_matches(scene, self.files, 3, 0.75)
            if len(self.files) <= MOST_COMPARED else ())
        if not names:
            return ''
        path, own = self.files[names[0]], names[0].rpartition('/')[2]
        folder, _, last = scene.rpartition('/')
        last += path.name[len(own):] if path.name.startswith(own) else path.suffix
        if folder != names[0].rpartition('/')[0]:
            last = f'{folder}/{last}'
        others = f' (or {", ".join(map(str, names[1:3]))})' if names[1:] else ''
        return f'; the nearest is {path}{others}: it pairs if you rename it to {last}'
