"""From a scene on disk to a picture: the way that generate, the training sheets and the demo go."""
from collections import namedtuple
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
import torch

from app.common import config as configuration
import data
from app.runs import devices
from app.common.console import quote, log_info, warn
from app.common.errors import UserError, warn_on_error, as_user_error
from app.common.files import read_json, write_text, write_atomically
from app.datasets import layouts
from app.runs import report
from app.runs import runs
import styles
from app.datasets import inspection

CLUSTERED = 200             # training pictures, at most, whose styles are looked at while training
GAPLESS = 2048 * 1024       # pixels of the largest picture for which freed memory is kept

# label (1, 1, H, W) integer (pictures to pictures: (1, C, H, W)); inst (1, 1, H, W) integer, or
# None where the run has no instances; ids (K,) of the regions that have a style each, slot
# (1, 1, H, W), the number 0 ... K - 1 of each pixel's, and labels (K,), the label of each, or None
# where it has no encoder; there (L,), the labels that occur, see data.find_present_labels; size, the (width,
# height) that its label map has in its file, None where that is not known.
Scene = namedtuple('Scene', 'label inst ids slot labels there size')


def read_scene(config, label_path, inst_path=None, size=None):
    """A label map and its instance map, resized to (width, height) -> Scene. Without an instance
    map the connected components of each label serve. UserError names a file of no use."""
    readers = layouts.config_readers(config)
    if config.n_labels:
        inspection.check_jpeg(Path(label_path), config.jpeg_labels)
    label, stored = readers.label(label_path, size), layouts.read_header(label_path)[:2]
    if config.n_labels:
        data.check_labels(label, label_path, config.n_labels)
    inst = None
    if config.instances != 'none' and inst_path:
        inspection.check_same_view(inst_path, label_path, stored)
        inst = readers.inst(inst_path, label.shape[1::-1])
    elif config.instances != 'none':
        inst = data.connected_components(label)
    label, inst = (x if x is None else data.to_tensor(x)[None] for x in (label, inst))
    return make_scene(config, label, inst, stored)


def make_scene(config, label, inst, size=None):
    ids = slot = labels = None
    if config.features:
        regions = styles.style_regions(config, label, inst)
        ids, slot, labels, _ = data.describe_instances(label, regions, config.n_labels)
    there = data.find_present_labels(label, config.n_labels) if config.n_labels else None
    return Scene(label, inst, ids, slot, labels, there, size)


def warn_about_size(folder, config, path, scene):
    """Say so where the map in `path` is far larger or smaller than what the run in `folder` learned
    -> whether."""
    if not config.size:
        return False
    h, w = scene.label.shape[-2:]
    far = not 0.7 < (w * h / (config.size[0] * config.size[1])) ** 0.5 < 1.5
    if far:
        size = configuration.format_value(config.size)
        warn(f'note: {path}: {w}x{h}, and {folder} learned at {size}; --size {size} would suit it '
             'better')
    return far


def read_photo(config, path, scene):
    """A photograph of a scene, resized to its map's size -> (1, C, H, W) in [-1, 1]."""
    h, w = scene.label.shape[-2:]
    inspection.check_same_view(path, 'its label map', scene.size or (w, h))
    photo = layouts.config_readers(config).image(path, (w, h))
    return data.to_float(data.to_tensor(photo)[None])


@torch.no_grad()                            # not inference_mode: some styles may be replaced
def encode_image(run, image, scene):
    """The styles of a scene's instances in a picture (1, C, H, W) in [-1, 1] of it -> (K, feat)."""
    h, w = scene.label.shape[-2:]
    regions = styles.style_regions(run.config, scene.label, scene.inst).long()
    image, regions = pad(run, image, regions)
    regions[..., h:, :] = regions[..., w:] = regions.max() + 1      # what was padded is of none
    features = styles.encode(run, image, regions)[..., :h, :w]
    return styles.gather_instances(features, scene.slot.to(run.device)).cpu()


def choose_vectors(run, scene, known, photo=None, seed=None, chosen=None):
    """The styles of a scene's instances -> (K, feat), or None without an encoder: those of the
    photograph in the file `photo`; else of those `known` (a dict as styles.cluster returns) drawn
    ones where there is a seed, else the main ones. chosen: {label: number of the style of all its
    instances}, whatever the others have."""
    if not run.E:
        return None
    if photo:
        vectors = encode_image(run, read_photo(run.config, photo, scene), scene)
    else:
        drawn = None if seed is None else torch.Generator().manual_seed(seed)
        vectors = styles.choose(scene.labels, known, drawn)
    for label, k in (chosen or {}).items():
        vectors[scene.labels == label] = styles.cluster_centre(known, label, k)
    return vectors


def variations(run, scene, name, seed, n=1, sample=False, known=None, photo=None, chosen=None,
               own=None):
    """The pictures of a scene that `generate` is asked for: yields how the names of their files
    end, and synthesise's tensors on the CPU.

    name, seed: what its draws depend on. sample: n pictures in drawn styles; known, photo, chosen:
    as in choose_styles; own: a file of styles that `edit` saved, in place of those.
    """
    for i in range(n):
        noise = styles.picture_seed(seed, name, i)
        if own:
            vectors, noise = read_styles(own, run, scene)
        else:
            vectors = choose_vectors(run, scene, known, photo, noise if sample else None, chosen)
        ending = f'seed{seed}_{i + 1}' if sample else 'encoded' if photo else 'generated'
        yield ending, synthesise(run, scene, vectors, noise).cpu()


def pad(run, *maps):
    """(1, C, H, W) tensors, or None -> on the device of the run, the edge repeated until they have
    a size that its networks take (README, deviation 13)."""
    multiple, least = runs.network_multiple(run.config), runs.min_input_side(run.config)
    return [x if x is None else data.pad_to_multiple(x.to(run.device), multiple, least)
            for x in maps]


def run_generator(run, label, inst, features, noise=0, labels=None):
    """G(s): the one place where G's input is put together, the label map one-hot, the boundary map
    and the features (paper sections 3.3 and 3.4).

    label (N, 1, H, W), inst (N, 1, H, W) or None, features (N, feat, H, W) or None, of a size that
    the networks take, on the run's device; noise: a seed of the U-Net's dropout; labels: those
    whose channels are needed, see data.find_present_labels, None for all -> picture (N, C, H, W) in [-1, 1],
    and the condition (N, n_labels or K [+ 1], H, W), which D sees as well.
    """
    c = run.config
    told = condition = data.condition(label, inst, c.n_labels, c.boundary, labels)
    if features is not None:
        told = data.concat_channels(condition, features)
        condition = told[:, :condition.shape[1]].detach()       # the same memory
    if c.model == 'unet':
        torch.manual_seed(noise)
    return run.G(told, labels), condition


@torch.inference_mode()
def synthesise(run, scene, vectors=None, noise=0):
    """One picture of one scene, of any size: vectors (K, feat), a style for each of its instances,
    or None without an encoder; noise: a seed of the U-Net's dropout -> (1, C, H, W) in [-1, 1]."""
    h, w = scene.label.shape[-2:]
    features = None if vectors is None else styles.broadcast_to_pixels(vectors, scene.slot)
    maps = pad(run, scene.label, scene.inst, features)
    there = scene.there if scene.there is None else scene.there.to(run.device)
    if run.device.type == 'cpu':
        devices.keep_memory(h * w <= GAPLESS)
    with devices.arithmetic(run):
        return run_generator(run, *maps, noise, there)[0][..., :h, :w].float()


# ------------------------------------------------------------------------- the styles of a scene

def write_styles(path, config, own, noise):
    """Write the styles of a scene: own {id of a region: (number among its label's or None,
    features)}; noise: as in `synthesise`."""
    text = json.dumps({'format': 1, 'styles_of': config.features_of, 'noise': noise, 'styles': {
        str(i): {'style': k, 'features': list(features)} for i, (k, features) in own.items()}},
        indent=1)
    write_text(path, text)


def read_styles(path, run, scene):
    """The styles of a scene in a file that write_styles wrote -> (K, feat), or None without an
    encoder; and noise. UserError where it is of another scene or kind of run."""
    found = read_json(path)
    with as_user_error(path, 'not the styles of a scene as edit saves them'):
        if found['format'] != 1 or type(found['noise']) is not int or not (
                0 <= found['noise'] < 1 << 63):
            raise ValueError('another format')
        own = {int(i): torch.tensor(style['features'], dtype=torch.float32)
               for i, style in found['styles'].items()}
        if not all(vector.shape == (run.config.feat,) and vector.isfinite().all()
                   for vector in own.values()):
            raise ValueError(f'expected {run.config.feat} features of each')
        kind = found['styles_of']
    ids = scene.ids.tolist() if run.E else []
    if own.keys() != set(ids) or ids and kind != run.config.features_of:
        wrong = sorted(own.keys() ^ set(ids))
        raise UserError(f'{path}: the styles of another scene or run'
                        + (f', for {wrong[0]} is not in both' if wrong else '')
                        + '; take the maps that were saved with it, and its run')
    return torch.stack([own[i] for i in ids]) if run.E else None, found['noise']


# ---------------------------------------------------------------------------- the styles of a run

def cluster_run(run, folder, root, k, min_pixels, seed, shared=False):
    """The styles of the pictures in the folder `root`, or None: of those that the run was trained
    on -> as styles.cluster. shared: see styles.encode_all. UserError where they are not at hand."""
    c = run.config
    t = SimpleNamespace(**(vars(c.training) if c.training else
                           {**configuration.default_values(configuration.TRAINING), 'data': None}))
    t.data, t.crop, t.cache, t.batch = root or t.data, None, None, 1    # whole, one at a time
    if not t.data:
        raise UserError(f'{folder}: does not say what it was trained on; run python p2phd.py '
                        f'cluster --run {quote(folder)} --data DIR')
    if not Path(t.data).exists():
        raise UserError(f'{folder}: its training data is not at hand at {t.data}; run python '
                        f'p2phd.py cluster --run {quote(folder)} --data DIR')
    layout, pairs, sizes = inspection.pairs_for_config(c, t.data, t.left_out, t.split)
    pairs, _ = inspection.train_and_heldout(c, pairs)
    if not c.size:
        runs.check_sizes(SimpleNamespace(**{**vars(c), 'training': t}), sizes)
    readers = layouts.readers(layout, c.in_channels, c.out_channels, c.palette, c.label_table)
    dataset = data.PairedDataset(pairs, readers, c.n_labels, c.size,
                            multiple=runs.network_multiple(c), instances=c.instances,
                            workers=t.workers)

    found = styles.cluster(run, dataset, k, min_pixels, seed, shared=shared)
    there = (found['counts'] > 0).sum(1)
    log_info(f'{folder}: {there.sum()} styles of {(there > 0).sum()} labels from '
        f'{found["counts"].sum()} instances')
    return found


def load_or_cluster_styles(run, folder, root=None):
    """The styles of the run in `folder`; clustered now where there are none yet, or where they are
    of an earlier step; None without an encoder. root: the data set, where that of the run is not at
    hand."""
    if not run.E:
        return None
    t = run.config.training
    there = t and Path(t.data).exists()
    known = styles.load_styles(folder, run.config, run.variant)
    k, min_pixels = configuration.STYLES, 1
    if known and known.get('step', run.step) == run.step:
        return known
    if known:
        warn(f'note: {folder}: its styles are of step {known["step"]}, and the run is at '
             f'step {run.step}: ' + ('clustering again' if there else 'run cluster again'))
        if not there:
            return known
        k, min_pixels = known['counts'].shape[1], int(known['min_pixels'])
    if there:
        log_info(f'{folder}: clustering {t.data}')
    known = cluster_run(run, folder, None if there else root, k, min_pixels, t.seed if t else 0)
    warn_on_error(lambda: save_run_styles(known, folder, run), 'the styles are not kept')   # a folder to read only
    return known


def save_run_styles(known, folder, run):
    """Write the styles of the run in `folder`, and its page with them -> path."""
    path = styles.save_styles(known, folder, run.variant)
    if run.config.training:
        report.try_write_run_page(folder, run.config, 'the styles are there')
    return path


def current_styles(run, dataset):
    """The styles that `generate` would choose from at this moment of training, of a few hundred
    pictures of the data.PairedDataset; None without an encoder."""
    if not run.E:
        return None
    some = range(0, len(dataset), -(-len(dataset) // CLUSTERED))
    return styles.cluster(run, dataset.plain(), indices=some)


# -------------------------------------------------------------------------------------- showing

def write_picture(path, image):
    """image: (1, C, H, W) float in [-1, 1]. PNG, or .npy (H, W, C) float32 where there are neither
    1 nor 3 channels; whole or not at all -> the path written."""
    if image.shape[1] not in (1, 3):
        path = path.with_suffix('.npy')
        array = image[0].permute(1, 2, 0).cpu().numpy()
        write_atomically(path, lambda file: np.save(file, array))
    else:
        write_png(path, to_uint8_hwc(image))
    return path


def write_png(path, picture):
    """picture: (H, W, 3) or (H, W, 1) uint8 ndarray."""
    picture = Image.fromarray(picture if picture.shape[2] == 3 else picture[..., 0])
    write_atomically(path, lambda file: picture.save(file, 'PNG'))


def to_uint8_hwc(image):
    """(1, C, H, W) float in [-1, 1] -> (H, W, C) uint8 ndarray."""
    return data.to_uint8(image[0]).permute(1, 2, 0).cpu().numpy()


def as_rgb(picture):
    """(H, W, C) uint8 -> (H, W, 3): grey in all three channels, or the first three of many."""
    return np.repeat(picture[..., :1], 3, 2) if picture.shape[2] < 3 else picture[..., :3]


def label_to_rgb(config, label):
    """(1, H, W) labels in their colours, or (C, H, W) pictures -> (H, W, 3) uint8 ndarray."""
    if config.n_labels:
        return label_colours(config)[label[0].cpu().numpy()]
    return as_rgb(to_uint8_hwc(data.to_float(label)[None]))


def strip(config, label, pictures):
    """A label map as data.PairedDataset gives it and pictures [(1, C, H, W)] side by side -> (H, W', 3)
    uint8 ndarray."""
    return np.concatenate([label_to_rgb(config, label),
                           *(as_rgb(to_uint8_hwc(picture)) for picture in pictures)], 1)


def label_colours(config):
    """(n_labels, 3) uint8 colours in which a run's labels are shown: its palette's, its layout's
    own, else those of PASCAL VOC, an id's bits dealt out to the channels."""
    ids = np.arange(config.n_labels)[:, None]
    colours = sum(((ids >> 3 * bit + np.arange(3)) & 1) << 7 - bit for bit in range(8))
    colours = colours.astype(np.uint8)
    own = layouts.LAYOUTS[config.layout].colours[:config.n_labels]
    if config.palette:
        for r, g, b, label, _ in config.palette:
            colours[label] = r, g, b
    elif own:
        colours[:len(own)] = own
    return colours
