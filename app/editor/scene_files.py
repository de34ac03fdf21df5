"""Scenes on the disk: find and open scenes to edit them, or begin with a blank one; save them for
`generate`, recover unsaved edits, and apply a script of edits."""
from collections import namedtuple
from contextlib import suppress
import glob
import io
import itertools
import json
from pathlib import Path
import re
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

from app.common.console import warn
from app.common.errors import UserError, as_user_error
from app.common.files import lock_folder, make_folder, read_json, write_atomically
from app.datasets import decoding, formats, layouts
from app.datasets.pairs import check_labels
from app.datasets.scenes import (half_for_run, read_photo, read_scene, warn_about_size,
                                 with_area_of)
from app.editor.operations import Editor, State, Style, cluster_style, main_styles
from app.runs.pictures import encode_picture, write_picture
from app.runs.run_styles import format_scene_styles, picture_seed, read_scene_styles
import data
import generate

BLANK = 'blank'                         # the name of a blank scene
MOST_STYLES = 12                        # of a label, that another scene offers
# How the names of the files of a scene end, before the suffix; that of the picture is the name.
ENDINGS = {'label': '_labelIds', 'inst': '_instanceIds', 'styles': '_styles', 'edits': '_edits'}


# Paths of the files of a scene; all but `label` may be None.
SceneFiles = namedtuple('SceneFiles', 'label inst styles photo')
# The scenes that can be opened: {name: SceneFiles}; size: resize them to (width, height), or None;
# seed: see generate.
SceneList = namedtuple('SceneList', 'files size seed')
NO_SCENES = SceneList({}, None, 0)


def find_scenes(label, inst=None, styles=None, photo=None, instances=True):
    """Return {name: SceneFiles} of a label map, its instance map, its styles and its photograph, or
    of folders of these. In a folder, scenes that `save` wrote have their own styles and, with
    `instances`, their own instance map. UserError if a file is missing."""
    labels = layouts.files_by_name([label], 'label')
    insts, photos = (layouts.match_by_name([path], role, labels) if path else {}
                     for path, role in ((inst, 'inst'), (photo, 'image')))
    if styles and len(labels) > 1:
        raise UserError(f'--styles {styles} describes one scene, but there are {len(labels)} label '
                        f'maps in {label}; name one of them')

    def saved(path, role, suffixes):
        # Names are tried: to list a large folder for each of its scenes takes seconds.
        files = (path.with_name(f'{layouts.scene_name(path)}{ENDINGS[role]}{suffix}')
                 for suffix in suffixes if label.is_dir())
        return next(filter(Path.is_file, files), None)

    map_suffixes = sorted(formats.SUFFIXES) if instances else []
    return {name: SceneFiles(path, insts.get(name) or saved(path, 'inst', map_suffixes),
                             styles or saved(path, 'styles', ['.json']), photos.get(name))
            for name, path in labels.items()}


def open_listed(run, clusters, listed, name, run_name):
    """Return an Editor of a scene of a SceneList. run_name: for a note on the size of the scene."""
    label, inst, styles, photo = listed.files[name]
    editor = open_scene(run, clusters, label, inst, listed.size, styles, photo, listed.seed, name)
    warn_about_size(run_name, run.config, label, editor.inputs()[0])
    return editor


def blank_scene(run, clusters, label, size, seed=0):
    """Return an Editor of a scene of one object of a label, of size (width, height)."""
    require_labels(run)
    thing = label in layouts.LAYOUTS[run.config.layout].things
    ids, object = np.full(size[::-1], label, np.int32), label * 1000 if thing else label
    key = label if run.config.features_of == 'label' else object
    styles = {key: main_styles(clusters, [label])[0]} if run.E else {}
    return Editor(run, clusters, State(ids, np.full_like(ids, object), styles), None,
                  picture_seed(seed, BLANK, 0), tuple(size))


def default_size(config):
    """Return the (width, height) that a run was trained at, None if it was trained at many."""
    return config.size or config.training and config.training.crop or None


def source_size(config, path):
    """Return the (width, height) to read a scene of any size at, so that its objects are about as
    large as in the training and have comparable styles; None: its own size."""
    (w, h), trained = decoding.read_header(half_for_run(config, path)).size, default_size(config)
    if not trained or 0.7 < (trained[0] * trained[1] / (w * h)) ** 0.5 < 1.5:
        return None
    return with_area_of(trained, (w, h))


def styles_of_objects(editor):
    """Return the different styles of a scene, those of the largest objects of each label first, as
    dicts of `label` and `features`."""
    ids, labels, pixels, _ = editor.objects
    order, styles = (-pixels).argsort(kind='stable'), {}
    for key, label in zip((labels if editor.by_label else ids)[order].tolist(),
                          labels[order].tolist()):
        of_label = styles.setdefault(label, {})
        if len(of_label) < MOST_STYLES:
            of_label[editor.state.styles[key].features] = None
    return [{'label': label, 'features': list(features)}
            for label, of_label in styles.items() for features in of_label]


def require_labels(run):
    if not run.config.n_labels:
        raise UserError('this run turns pictures into pictures: it has no labels to edit')


def open_scene(run, clusters, label_path, inst_path=None, size=None, styles_path=None,
               photo_path=None, seed=0, name=None):
    """Return an Editor of a scene in files as `generate` takes them. Ids below 0 or of more than 16
    bits are replaced by 0, 1, 2 ... name: of the scene (default: that of the label map). UserError
    if a file does not fit the run or the others."""
    require_labels(run)
    if inst_path and run.config.instances == 'none':
        raise UserError('--inst: the run was trained without instances; leave it out')
    if photo_path and not run.E:
        raise UserError('--photo: the run was trained without --features; leave it out')
    scene = read_scene(run.config, label_path, inst_path, size)
    photo = read_photo(run.config, photo_path, scene) if photo_path else None
    vectors, noise = read_scene_styles(styles_path, run, scene) if styles_path else (
        generate.scene_styles(run, scene, clusters, photo),
        picture_seed(seed, name or layouts.scene_name(label_path), 0))
    styles = {}
    for i, label, vector in zip(*(x.tolist() for x in (scene.ids, scene.labels, vectors) if run.E)):
        same = (clusters['centres'][label] == np.float32(vector)).all(1)
        same &= clusters['counts'][label] > 0
        styles[i] = Style(int(same.argmax()) if same.any() else None, tuple(vector))
    label = scene.label[0, 0].numpy()
    inst = data.connected_components(label) if scene.inst is None else scene.inst[0, 0].numpy()
    if inst.min() < 0 or inst.max() >= 1 << 16:
        inst = np.unique(inst, return_inverse=True)[1].reshape(label.shape)
        if run.config.features_of != 'label':
            styles = dict(enumerate(styles.values()))
    return Editor(run, clusters, State(label, inst.astype(np.int32), styles), photo, noise,
                  scene.size)


def free_name(folder, name):
    """Return `name` with the first number that no file in the folder has yet."""
    names = (f'{name}-{n:03d}' for n in itertools.count(1))
    return next(x for x in names if not any(folder.glob(f'{glob.escape(x)}[._]*')))


def encode_scene(editor, role, image=None):
    """Return the ending of its name and the content of a file of a scene. role: 'label', 'inst',
    'styles', 'picture' (`image`) or 'edits', which run_script takes."""
    if role == 'picture':
        return encode_picture(image)
    if role == 'styles':
        text = format_scene_styles(editor.run, editor.state.styles, editor.opened.noise)
        return ENDINGS[role] + '.json', text.encode()
    if role == 'edits':
        edits = ',\n '.join(map(json.dumps, editor.edits_since_opened()))
        return ENDINGS[role] + '.json', f'[{edits}]\n'.encode()
    suffix, content = encode_map(getattr(editor.state, role))
    return ENDINGS[role] + suffix, content


def saved_roles(config):
    """Return the roles (see encode_scene) of the files that are saved: what `generate` needs to
    make the picture again, and the picture."""
    return ['label', *['inst'] * (config.instances != 'none'), 'styles', 'picture']


def save(editor, folder, name, image):
    """Write the files of a scene and its picture; `generate` makes the same picture of them. If one
    of them cannot be written, none is left. Return the paths."""
    paths = []
    try:
        for role in saved_roles(editor.config):
            ending, content = encode_scene(editor, role, image)
            paths.append(folder / (name + ending))
            write_atomically(paths[-1], lambda file, content=content: file.write(content))
        return paths
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def encode_map(ids):
    """Return suffix and content of a file of a map of ids: PNG, or .npy if 16 bits are too few."""
    file = io.BytesIO()
    if ids.max() >= 1 << 16:
        np.save(file, ids)
        return '.npy', file.getvalue()
    info = PngImagePlugin.PngInfo()
    info.add_text(decoding.SAVED_MAP_KEY, 'ids')            # for the readers of every layout
    picture = Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16))
    picture.save(file, 'PNG', pnginfo=info)
    return '.png', file.getvalue()


def require_free_name(folder, name):
    """Raise UserError if a scene of that name would overwrite a file of the folder."""
    endings = ['', *(ENDINGS[role] for role in ('label', 'inst', 'styles'))]
    if any((folder / f'{name}{ending}{suffix}').exists()
           for ending in endings for suffix in ('.png', '.npy', '.json')):
        raise UserError(f'{name}: {folder} has files of that name; choose another, for example '
                        f'{free_name(folder, name[:46])}')


def write_recovery(path, state, noise, session, **about):
    """Write a State with its noise, and Editor.edits_since_opened. about: see read_about."""
    label, inst, styles = state
    write_atomically(path, lambda file: np.savez_compressed(
        file, label=label, inst=inst, noise=noise, styles=json.dumps(styles),
        session=json.dumps(session), about=json.dumps(about)))


def checksum(state, noise):
    """Return a number that tells a scene from others: of a State and its noise. Features are left
    out, whose last bits depend on the machine."""
    numbers = sorted((key, style.number) for key, style in state.styles.items())
    text = json.dumps([noise, state.label.shape, numbers])
    return zlib.crc32(state.inst.tobytes(), zlib.crc32(state.label.tobytes(), zlib.crc32(
        text.encode())))


def read_about(path):
    """Return what the page tells of a recovery file: its `file`; the `name` of its scene; the
    `time` of the last edit, in seconds since 1970; whether they are `saved` as well; the number of
    `edits`, the `version` of the editor, the checksum of the scene on which they were made,
    `opened`, and the path of its map, `source`, None if they are not known."""
    found = {}
    with suppress(Exception), np.load(path, allow_pickle=False) as file:    # it may be damaged
        found = dict(json.loads(str(file['about'])))
    name = re.sub(r'-unsaved(-\d+)?\Z', '', path.stem.removeprefix('.'))
    about = {'file': path.name, 'name': name, 'saved': False, 'time': path.stat().st_mtime}
    for key, kind in (('name', str), ('edits', int), ('version', int), ('saved', bool),
                      ('opened', int), ('source', str)):
        about[key] = found[key] if type(found.get(key)) is kind else about.get(key)
    return about


def read_recovery(path, editor):
    """Return State, noise and session of write_recovery. UserError if they are damaged or do not
    fit."""
    with as_user_error(path, 'the unsaved edits cannot be read; delete it'):
        with np.load(path, allow_pickle=False) as file:
            label, inst, text, noise = (file[name] for name in ('label', 'inst', 'styles', 'noise'))
            session = json.loads(str(file['session'])) if 'session' in file else None
        if session is not None and not all('do' in edit for edit in session):
            raise ValueError('edits without a name')
        check_labels(label, path, editor.config.n_labels)
        styles = {int(key): Style(number, tuple(features))
                  for key, (number, features) in json.loads(str(text)).items()}
        ids = np.unique(label if editor.by_label else inst).tolist() if editor.run.E else []
        if (label.ndim != 2 or label.shape != inst.shape or inst.dtype != np.int32
                or label.dtype not in (np.uint8, np.int32) or styles.keys() != set(ids)
                or any(len(style.features) != editor.config.feat
                       or (style.number or 0) >= editor.clusters['counts'].shape[1]
                       for style in styles.values())):
            raise ValueError('maps or styles of another run')
    return State(label, inst, styles), int(noise), session


def labels_without_styles(editor):
    """Return the names of the labels whose objects get the mean of all features."""
    mean = editor.clusters and cluster_style(editor.clusters, 0, None)
    label_of = dict(zip(*(x.tolist() for x in editor.objects[:2])))
    return [editor.label_names[i] for i in sorted({
        key if editor.by_label else label_of[key]
        for key, style in editor.state.styles.items() if style == mean})]


def warn_about_styles(editor):
    """Warn about labels without styles, as `generate` does."""
    if names := labels_without_styles(editor):
        warn(f'warning: no styles for {", ".join(names)}, which the training data lacks; they get '
             'the mean of all features')


def run_script(editor, path, folder, name, final_only=False):
    """Apply the edits in a JSON file and save the scene; yield the path of each file written, with
    the picture after each edit unless `final_only`. UserError at the first edit that fails."""
    edits, saved_name = read_json(path), None
    if not isinstance(edits, list) or not edits:
        raise UserError(f'{path}: expected a list of edits [{{"do": ...}}, ...]')
    for i, edit in enumerate(edits, 1):
        try:
            editor.edit([edit])
        except UserError as error:
            raise UserError(f'{path}: edit {i} of {len(edits)}: {error}') from None
        if i < len(edits) and final_only:
            continue
        image = generate.synthesise(editor.run, *editor.inputs())
        make_folder(folder)
        # A second script must not take the same name before there is a file of it.
        with lock_folder(folder, wait=True, name='.script-lock'):
            saved_name = saved_name or free_name(folder, name)
            paths = (save(editor, folder, saved_name, image) if final_only else
                     [write_picture(folder / f'{saved_name}_{i:03d}.png', image)])
        yield from paths
    warn_about_styles(editor)
    if not final_only:
        yield from save(editor, folder, saved_name, image)
