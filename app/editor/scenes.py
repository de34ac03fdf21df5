"""Scenes that are edited, on the disk: opened, saved as `generate` reads them, recovered, changed
by a script."""
import glob
import json
import math
import zipfile

import numpy as np
from PIL import Image, PngImagePlugin

import data
from app.datasets import decoding
from app.editor.operations import Editor, State, Style
from app.common.errors import UserError, as_user_error
from app.common.files import require_regular_file, read_json, write_atomically
from app.datasets import layouts
import styles
import generate
from app.runs import run_styles
from app.runs import pictures
from app.datasets.pairs import check_labels
from app.datasets.scenes import read_photo, read_scene


def opened(run, known, label_path, inst_path=None, size=None, styles_path=None, photo_path=None,
           seed=0):
    """The scene of a label map, an instance map, styles or a photograph as `generate` takes them
    -> Editor. Ids of instances beyond 16 bits are numbered anew. seed: of a U-Net's dropout."""
    if not run.config.n_labels:
        raise UserError('this run turns pictures into pictures: it has no labels to edit')
    if inst_path and run.config.instances == 'none':
        raise UserError('--inst: the run was trained without instances; leave it out')
    if photo_path and not run.E:
        raise UserError('--photo: the run was trained without --features, so it takes no styles '
                        'from a photograph; leave it out')
    if styles_path and photo_path:
        raise UserError('--styles and --photo: the styles are either those saved or those of the '
                        'photograph')
    scene = read_scene(run.config, label_path, inst_path, size)
    label = scene.label[0, 0].numpy()
    inst = data.connected_components(label) if scene.inst is None else scene.inst[0, 0].numpy()
    photo, vectors, noise = None, None, run_styles.picture_seed(seed, layouts.scene_name(label_path), 0)
    if photo_path:
        photo = read_photo(run.config, photo_path, scene)
        vectors = generate.encode_image(run, photo, scene)
    elif styles_path:
        vectors, noise = run_styles.read_scene_styles(styles_path, run, scene)
    elif run.E:
        vectors = styles.choose(scene.labels, known)
    own = {}
    if run.E:
        own = {i: recognised(known, of, vector) for i, of, vector in zip(
            scene.ids.tolist(), scene.labels.tolist(), vectors.tolist())}
    if inst.min() < 0 or inst.max() >= 1 << 16:
        ids, inst = np.unique(inst, return_inverse=True)
        if run.config.features_of != 'label':
            own = {new: own[old] for new, old in enumerate(ids.tolist()) if old in own}
    inst = inst.reshape(label.shape).astype(np.int32)
    return Editor(run, known, State(label, inst, own), photo, noise, scene.size)


def recognised(known, label, vector):
    """Features (a list) -> Style, with its number where it is one of the label's."""
    there = known['counts'][label] > 0
    same = (known['centres'][label] == np.float32(vector)).all(1) & there
    return Style(int(same.argmax()) if same.any() else None, tuple(vector))


def free_name(folder, name):
    """`name` and the first number under which nothing lies in a folder yet."""
    n = 1
    while any(folder.glob(f'{glob.escape(name)}-{n:03d}[._]*')):
        n += 1
    return f'{name}-{n:03d}'


def save(editor, folder, name, image):
    """Write the scene and its picture `image` (1, C, H, W) into a folder, as name_labelIds.png,
    name_instanceIds.png (.npy where ids are beyond 16 bits), name_styles.json and name.png, from
    which `generate` makes the same picture -> [path]."""
    label, inst, own = editor.state
    paths = [write_map(folder / f'{name}_labelIds.png', label)]
    if editor.config.instances != 'none':
        paths.append(write_map(folder / f'{name}_instanceIds.png', inst))
    paths.append(folder / f'{name}_styles.json')
    run_styles.write_scene_styles(paths[-1], editor.config, own, editor.opened.noise)
    return [*paths, pictures.write_picture(folder / f'{name}.png', image)]


def write_map(path, ids):
    """A map of ids (H, W) as PNG of 8 or 16 bits, that every layout's readers take for what it is
    (decoding.SAVED_MAP_KEY); as .npy where they are beyond -> the path written."""
    if ids.max() >= 1 << 16 or ids.min() < 0:
        path = path.with_suffix('.npy')
        write_atomically(path, lambda file: np.save(file, ids))
        return path
    picture = Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16))
    info = PngImagePlugin.PngInfo()
    info.add_text(decoding.SAVED_MAP_KEY, 'ids')
    write_atomically(path, lambda file: picture.save(file, 'PNG', pnginfo=info))
    return path


def recovery_of(state, noise):
    """A function that writes a state and its noise to a file, from which `recovered` reads it."""
    text = json.dumps({str(key): own for key, own in state.styles.items()})
    return lambda file: np.savez_compressed(file, label=state.label, inst=state.inst,
                                            styles=np.array(text), noise=np.array(noise))


def recovered(path, config, known):
    """What is in a file that recovery_of wrote -> State, noise. UserError where it is not of this
    run, or damaged. known: the styles of the run, None without an encoder."""
    require_regular_file(path)
    with as_user_error(path, 'no unsaved edits that can be read; delete it'):
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > 1 << 28:
                raise ValueError('too large')
        with np.load(path, allow_pickle=False) as file:
            label, inst, text, noise = (file[name] for name in (
                'label', 'inst', 'styles', 'noise'))
        if label.ndim != 2 or not label.size or label.shape != inst.shape or (
                label.dtype not in (np.uint8, np.int32) or inst.dtype != np.int32):
            raise ValueError(f'maps of shape {label.shape} and {inst.shape}')
        if noise.shape or noise.dtype.kind not in 'iu' or not 0 <= noise < 1 << 63 or not (
                0 <= inst.min() <= inst.max() < (1 << 17) + 2 * inst.size):
            raise ValueError('numbers out of range')
        check_labels(label, path, config.n_labels)
        own = {int(key): Style(k, tuple(map(float, vector)))
               for key, (k, vector) in json.loads(str(text)).items()}
        ids = (label if config.features_of == 'label' else inst)
        if own.keys() != set(np.unique(ids).tolist() if known else ()) or not all(
                len(one.features) == config.feat and all(map(math.isfinite, one.features))
                and (one.number is None or type(one.number) is int
                     and 0 <= one.number < known['counts'].shape[1]) for one in own.values()):
            raise ValueError('styles of other objects')
    return State(label, inst, own), int(noise)


def run_script(editor, path, folder, name, last=False):
    """Apply the edits in a JSON file, a list, and write a picture after each, or after the last
    alone, then the scene as it is -> [path]. UserError names the first that cannot be done; what
    was before it stays written, and nothing after it is done."""
    edits, name = read_json(path), free_name(folder, name)
    if not isinstance(edits, list) or not edits:
        raise UserError(f'{path}: expected a list of edits [{{"do": ...}}, ...]')
    for i, edit in enumerate(edits, 1):
        try:
            editor.edit([edit])
        except UserError as error:
            raise UserError(f'{path}: edit {i} of {len(edits)}: {error}') from None
        if not last or i == len(edits):
            image = editor.picture()
        if not last:
            yield pictures.write_picture(folder / f'{name}_{i:03d}.png', image)
    yield from save(editor, folder, name, image)
