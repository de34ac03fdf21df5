"""Scenes on the disk: open a scene to edit it, save it for `generate`, recover unsaved edits, and
apply a script of edits."""
import glob
import json
import math
import zipfile

import numpy as np
from PIL import Image, PngImagePlugin

from app.common.errors import UserError, as_user_error
from app.common.files import read_json, require_regular_file, write_atomically
from app.datasets import decoding, layouts
from app.datasets.pairs import check_labels
from app.datasets.scenes import read_photo, read_scene
from app.editor.operations import Editor, State, Style
from app.runs.pictures import write_picture
from app.runs.run_styles import picture_seed, read_scene_styles, write_scene_styles
import data
import generate
from styles import choose


def open_scene(run, clusters, label_path, inst_path=None, size=None, styles_path=None,
               photo_path=None, seed=0):
    """Return an Editor of a scene in files as `generate` takes them.
    clusters: see Editor.
    inst_path: default: the connected components of each label; ids below 0 or of more than 16 bits
        are replaced by 0, 1, 2 ...
    size: (width, height) to resize the maps to.
    styles_path, photo_path: where the styles come from (default: the main style of each label).
    seed: for the dropout of a U-Net.
    Raises UserError if a file cannot be used, or does not fit the run or the other files."""
    if not run.config.n_labels:
        raise UserError('this run turns pictures into pictures: it has no labels to edit')
    if inst_path and run.config.instances == 'none':
        raise UserError('--inst: the run was trained without instances; leave it out')
    if photo_path and not run.E:
        raise UserError('--photo: the run was trained without --features, so it takes no styles '
                        'from a photograph; leave it out')
    if styles_path and photo_path:
        raise UserError('--styles and --photo: both set the styles of the scene; leave out one of '
                        'them')
    scene = read_scene(run.config, label_path, inst_path, size)
    label = scene.label[0, 0].numpy()
    inst = data.connected_components(label) if scene.inst is None else scene.inst[0, 0].numpy()

    photo, vectors, noise = None, None, picture_seed(seed, layouts.scene_name(label_path), 0)
    if photo_path:
        photo = read_photo(run.config, photo_path, scene)
        vectors = generate.encode_image(run, photo, scene)
    elif styles_path:
        vectors, noise = read_scene_styles(styles_path, run, scene)
    elif run.E:
        vectors = choose(scene.labels, clusters)
    styles = {}
    if run.E:
        styles = {i: style_of(vector, region_label, clusters) for i, region_label, vector in zip(
            scene.ids.tolist(), scene.labels.tolist(), vectors.tolist())}
    if inst.min() < 0 or inst.max() >= 1 << 16:
        ids, inst = np.unique(inst, return_inverse=True)
        if run.config.features_of != 'label':
            styles = {new: styles[old] for new, old in enumerate(ids.tolist()) if old in styles}
    inst = inst.reshape(label.shape).astype(np.int32)
    return Editor(run, clusters, State(label, inst, styles), photo, noise, scene.size)


def style_of(vector, label, clusters):
    """Return the Style of a vector (a list); it has a number if a style of the label is equal."""
    same = (clusters['centres'][label] == np.float32(vector)).all(1) & (
        clusters['counts'][label] > 0)
    return Style(int(same.argmax()) if same.any() else None, tuple(vector))


# ---------------------------------------------------------------------------------------- saving

def free_name(folder, name):
    """Return `name` with the first number that no file in the folder has yet."""
    n = 1
    while any(folder.glob(f'{glob.escape(name)}-{n:03d}[._]*')):
        n += 1
    return f'{name}-{n:03d}'


def save(editor, folder, name, image):
    """Write a scene and its picture (1, C, H, W); `generate` makes the same picture of the files.
    Returns the paths: <name>_labelIds.png, <name>_instanceIds.png if the run has instances (.npy if
    an id has more than 16 bits), <name>_styles.json, <name>.png."""
    label, inst, styles = editor.state
    paths = [write_map(folder / f'{name}_labelIds.png', label)]
    if editor.config.instances != 'none':
        paths.append(write_map(folder / f'{name}_instanceIds.png', inst))
    paths.append(folder / f'{name}_styles.json')
    write_scene_styles(paths[-1], editor.config, styles, editor.opened.noise)
    return [*paths, write_picture(folder / f'{name}.png', image)]


def write_map(path, ids):
    """Write a map of ids (H, W) as PNG of 8 or 16 bits, or as .npy if they do not fit.
    decoding.SAVED_MAP_KEY in the PNG tells the readers of every layout that its values are ids.
    Returns the path written."""
    if ids.max() >= 1 << 16 or ids.min() < 0:
        path = path.with_suffix('.npy')
        write_atomically(path, lambda file: np.save(file, ids))
        return path
    picture = Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16))
    info = PngImagePlugin.PngInfo()
    info.add_text(decoding.SAVED_MAP_KEY, 'ids')
    write_atomically(path, lambda file: picture.save(file, 'PNG', pnginfo=info))
    return path


def write_recovery(file, state, noise):
    """Write a State and its noise to an open file."""
    text = json.dumps({str(key): style for key, style in state.styles.items()})
    np.savez_compressed(file, label=state.label, inst=state.inst, styles=np.array(text),
                        noise=np.array(noise))


def read_recovery(path, editor):
    """Return the State and the noise in a file of write_recovery.
    Raises UserError if the file is damaged or does not fit the run of the Editor."""
    require_regular_file(path)
    with as_user_error(path, 'the unsaved edits cannot be read; delete it'):
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > 1 << 28:
                raise ValueError('too large')
        with np.load(path, allow_pickle=False) as file:
            label, inst, text, noise = (file[name] for name in ('label', 'inst', 'styles', 'noise'))
        if label.ndim != 2 or not label.size or label.shape != inst.shape or noise.shape or (
                label.dtype not in (np.uint8, np.int32) or inst.dtype != np.int32
                or noise.dtype.kind not in 'iu' or not 0 <= noise < 1 << 63
                or not 0 <= inst.min() <= inst.max() < (1 << 17) + 2 * inst.size):
            raise ValueError('maps or noise of another form')
        check_labels(label, path, editor.config.n_labels)
        styles = {int(key): Style(number, tuple(map(float, features)))
                  for key, (number, features) in json.loads(str(text)).items()}
        ids = np.unique(label if editor.by_label else inst).tolist() if editor.run.E else []
        if styles.keys() != set(ids) or not all(
                len(features) == editor.config.feat and all(map(math.isfinite, features))
                and (number is None or type(number) is int
                     and 0 <= number < editor.clusters['counts'].shape[1])
                for number, features in styles.values()):
            raise ValueError('styles of other objects')
    return State(label, inst, styles), int(noise)


# --------------------------------------------------------------------------------------- scripts

def run_script(editor, path, folder, name, final_only=False):
    """Apply the edits in a JSON file and save the scene; yield the path of each file written.
    A picture is written after each edit, or with `final_only` only of the final scene.
    Raises UserError at the first edit that is not possible. The pictures before it stay."""
    edits, name = read_json(path), free_name(folder, name)
    if not isinstance(edits, list) or not edits:
        raise UserError(f'{path}: expected a list of edits [{{"do": ...}}, ...]')
    for i, edit in enumerate(edits, 1):
        try:
            editor.edit([edit])
        except UserError as error:
            raise UserError(f'{path}: edit {i} of {len(edits)}: {error}') from None
        if not final_only:
            image = editor.picture()
            yield write_picture(folder / f'{name}_{i:03d}.png', image)
    yield from save(editor, folder, name, editor.picture() if final_only else image)
