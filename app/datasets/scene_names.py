"""Names of scenes: which files belong together, and which name would pair one without a partner."""
from collections import defaultdict
import difflib
import os
from pathlib import Path
import re
import unicodedata

from app.common.errors import UserError
from app.datasets.decoding import real_path

# What people add to the names of files of one scene.
ROLE_WORDS = ('masks?|labels?|labelids|gt|seg|segmentation|segm|sat|satellite|images?|img|photo|'
              'rgb|inst|instances?|instanceids|annotations?|anno|maps?|colou?rs?|trimap|real|fake|a|b')
ADDED = re.compile(rf'[ _.-]+({ROLE_WORDS})$|^({ROLE_WORDS})[ _-]+|'
                   r'\.(jpe?g|jfif|png|tiff?|bmp|webp|npy|gif)$')
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
    """Return {scene: path} under the spelling of `scenes` where Unicode has several: macOS writes
    an accent as a character of its own."""
    if files.keys() == scenes.keys():
        return files
    spelling = {unicodedata.normalize('NFC', name): name for name in scenes if name not in files}
    respelled = {}
    for name, path in files.items():
        other = spelling.get(unicodedata.normalize('NFC', name)) if name not in scenes else None
        respelled[name if other is None else other] = path
    return respelled if len(respelled) == len(files) else files


def loose_name(name):
    """Return what is left of a name without case, endings for roles and formats, signs, and zeros
    before numbers."""
    name = unicodedata.normalize('NFKC', name).casefold()
    while (shorter := ADDED.sub('', name)) not in (name, ''):
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
