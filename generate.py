"""Make a picture from a scene and its styles: G(s, E(x)), paper sections 3.3 and 3.4.

A run is any object with `config`, `G`, `E` (or None), `device` and `precision`, as train.Run."""
from collections import namedtuple

import torch

import data
import nets
import styles

# A scene to make pictures of.
# label: (1, 1, H, W) integer, or a picture (1, C, H, W) where n_labels is 0.
# inst: (1, 1, H, W) integer, or None where the run has no instances.
# ids, region_index, labels: of the style regions, see data.Instances; None without an encoder.
# present_labels: (L,) int64, see data.find_present_labels.
# size: (width, height) of the label map before it was resized, or None.
Scene = namedtuple('Scene', 'label inst ids region_index labels present_labels size')


def make_scene(config, label, inst, size=None):
    """Make a Scene on the CPU.

    label: (1, 1, H, W) integer, below n_labels, or a picture (1, C, H, W) where n_labels is 0.
    inst: (1, 1, H, W) integer, or None where the run has no instances.
    size: see Scene."""
    ids = region_index = labels = None
    if config.features:
        regions = styles.style_regions(config, label, inst)
        ids, region_index, labels, _ = data.describe_instances(label, regions, config.n_labels)
    present = data.find_present_labels(label, config.n_labels) if config.n_labels else None
    return Scene(label, inst, ids, region_index, labels, present, size)


@torch.no_grad()            # scene_styles changes the result, which inference_mode would forbid
def encode_image(run, image, scene):
    """Encode the styles of a scene's regions from its photograph.

    image: (1, C, H, W) float in [-1, 1], of the size of the scene's maps.
    Returns (I, feat) float32 on the CPU. Raises ValueError for a photograph of another size."""
    h, w = scene.label.shape[-2:]
    if image.shape[-2:] != (h, w):
        raise ValueError(f'the photograph is {image.shape[-1]}x{image.shape[-2]}, the label map is '
                         f'{w}x{h}')
    regions = styles.style_regions(run.config, scene.label, scene.inst).long()
    image, regions = pad(run, image, regions)
    regions[..., h:, :] = regions[..., w:] = regions.max() + 1      # the padding: a separate region
    with nets.autocast(run.device, 'fp32'):
        features = styles.encode(run.E, image, regions, run.config.encoder_scale)
    region_index = data.upload(scene.region_index, run.device)
    return styles.gather_instances(features[..., :h, :w], region_index, len(scene.labels)).cpu()


def scene_styles(run, scene, clusters=None, photo=None, seed=None, chosen=None):
    """Choose the style of each region of a scene: paper section 3.4.

    clusters: see styles.cluster; needed without a photo, and for `chosen`. Each region gets the
        most frequent style of its label. With a seed, the style is drawn.
    photo: (1, C, H, W) in [-1, 1]. If it is given, the styles are encoded from it, see
        encode_image.
    chosen: {label: index of a cluster}, which overrides the style of all regions of these labels.
    Returns (I, feat), or None for a run without an encoder."""
    if not run.E:
        return None
    if photo is not None:
        vectors = encode_image(run, photo, scene)
    else:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        vectors = styles.choose_styles(scene.labels, clusters, generator)
    for label, k in (chosen or {}).items():
        vectors[scene.labels == label] = torch.from_numpy(clusters['centres'][label, k])
    return vectors


def pad(run, *maps):
    """Move (1, C, H, W) tensors (or None) to the run's device, and pad them to a size that its
    networks take (docs/differences.md, 13)."""
    multiple, smallest = nets.input_multiple(run.config), nets.min_input_side(run.config)
    return [x if x is None else data.pad_to_multiple(data.upload(x, run.device), multiple, smallest)
            for x in maps]


def run_generator(run, label, inst, features, noise_seed=0, present_labels=None):
    """Make pictures with G. Its input is built here, in training too: one-hot label map,
    boundary map and features (paper sections 3.3 and 3.4).

    label: (N, 1, H, W) integer, or (N, C, H, W) where n_labels is 0; on the run's device, padded
        (see pad).
    inst: (N, 1, H, W) integer, or None.
    features: (N, feat, H, W), or None.
    noise_seed: of the U-Net's dropout.
    present_labels: (L,), see data.find_present_labels, or None for all labels.
    Returns the pictures (N, C, H, W) in [-1, 1] and what data.condition returns, for D."""
    c = run.config
    condition = data.condition(label, inst, c.n_labels, nets.has_boundary(c), present_labels)
    generator_input = condition
    if features is not None:
        generator_input = data.concat_channels(condition, features)
        condition = generator_input[:, :condition.shape[1]].detach()        # a view: no second copy
    if c.model == 'unet':
        torch.manual_seed(noise_seed)
    nets.set_present_labels(present_labels, run.G)
    return run.G(generator_input), condition


@torch.inference_mode()
def synthesise(run, scene, vectors=None, noise_seed=0):
    """Make one picture of a scene of any size.

    vectors: (I, feat), the style of each region, or None without an encoder.
    noise_seed: of the U-Net's dropout.
    Returns (1, C, H, W) float32 in [-1, 1]."""
    h, w = scene.label.shape[-2:]
    label, inst, region_index = pad(run, scene.label, scene.inst,
                                    None if vectors is None else scene.region_index.int())
    features = None if vectors is None else styles.broadcast_to_pixels(
        data.upload(vectors, run.device), region_index)
    present = scene.present_labels
    present = present if present is None else data.upload(present, run.device)
    with nets.autocast(run.device, run.precision):
        picture, _ = run_generator(run, label, inst, features, noise_seed, present)
    return picture[..., :h, :w].float()
