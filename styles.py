"""Styles: what makes one picture of a label map differ from another.

A style is a feature vector for every instance (paper section 3.4): what the encoder makes of an
instance, or a centre of the clusters of its label. Clusters are kept in the run's styles.npz.
"""
from functools import partial
import zipfile
import zlib

import numpy as np
import torch
import torch.nn.functional as F

from app.common.config import STYLES, parse_label
import data
from app.common.console import Progress
from app.common.errors import UserError, as_user_error, did_you_mean
from app.common.files import require_regular_file, write_atomically
from kmeans import kmeans
import nets
from app.runs import official
from app.runs import distributed

# --------------------------------------------------------------------------------- the encoder

def style_regions(config, label, inst):
    """The map (N, 1, H, W) whose regions have a style each: the instances, or with --features-of
    label the labels."""
    return label if config.features_of == 'label' else inst


def encode(run, image, regions):
    """Per-instance features (paper section 3.4): image (N, C, H, W) in [-1, 1], regions (N, 1, H,
    W), see `styled` -> (N, feat, H, W).

    In a finetuned run the encoder, which is not trained further, sees the picture at the size it
    was trained at; its vectors are painted on the large instance map.
    """
    scale = run.config.encoder_scale
    if scale == 1:
        return run.E(image, regions)
    with torch.no_grad():
        small = F.interpolate(image, scale_factor=1 / scale, mode='bicubic', antialias=True)
        return run.E(small, regions)


def broadcast_to_pixels(vectors, slot):
    """vectors (K, feat), slot (1, 1, H, W) int64 in 0 ... K - 1 -> (1, feat, H, W)."""
    return vectors[slot[:, 0]].permute(0, 3, 1, 2)


def gather_instances(features, slot):
    """The inverse: features (N, feat, H, W) that are constant over each of the K instances ->
    (K, feat)."""
    vectors = features.new_empty(int(slot.max()) + 1, features.shape[1])
    vectors[slot.flatten()] = features.permute(0, 2, 3, 1).flatten(0, 2)
    return vectors


# ------------------------------------------------------------------------------------ clusters

@torch.inference_mode()
def encode_all(run, dataset, min_pixels, indices=None, shared=False):
    """Features of every instance of a data.PairedDataset, or of those of the given indices, at least
    `min_pixels` large -> vectors (T, feat), labels (T,) int64. shared: the processes of torchrun,
    all of which call this, encode a part each."""
    vectors, labels = [], []
    keys = [(0, i) for i in indices or range(len(dataset))]
    keys = distributed.shard(keys) if shared else keys
    progress = Progress('encoding pictures', len(keys))
    for i, batch in enumerate(data.batches(dataset, run.device, sampler=keys), 1):
        label, inst, image, _ = data.to_device(batch, run.device)
        regions = style_regions(run.config, label, inst)
        _, slot, instance_labels, pixels = data.describe_instances(label, regions,
                                                                   run.config.n_labels)
        vectors.append(gather_instances(encode(run, image, regions), slot)[pixels >= min_pixels])
        labels.append(instance_labels[pixels >= min_pixels])
        progress(i)
    parts = distributed.all_gather((vectors, labels)) if shared else [(vectors, labels)]
    return tuple(torch.cat([item.to(run.device) for part in parts for item in part[i]])
                 for i in (0, 1))


def cluster(run, dataset, k=STYLES, min_pixels=1, seed=0, indices=None, shared=False):
    """K-means on the features of each label (paper section 3.4; K = 10 in section 4) -> what
    styles.npz holds: centres (n_labels, k, feat) float32; counts (n_labels, k) int64, largest
    first, 0 where a label has fewer; mean (feat,) of all features; label_names; min_pixels; and
    the step of the networks they belong to. shared: see encode_all. UserError where no instance is
    that large."""
    vectors, labels = encode_all(run, dataset, min_pixels, indices, shared)
    if nets.lacks_float64(vectors.device):          # which K-means draws its centres with
        vectors, labels = vectors.cpu(), labels.cpu()
    if not len(vectors):
        raise UserError(f'--min-pixels {min_pixels}: no instance of the training set is that large')

    # Each label's features are a row of their own: (n_labels, most of them, feat).
    counts = labels.bincount(minlength=run.config.n_labels)
    order = labels.argsort(stable=True)
    place = torch.arange(len(labels), device=labels.device)
    place -= (counts.cumsum(0) - counts)[labels[order]]
    points = vectors.new_zeros(len(counts), int(counts.max()), vectors.shape[1])
    points[labels[order], place] = vectors[order]

    centres, sizes, _ = kmeans(points, counts, k, seed=seed)
    sizes, order = sizes.sort(dim=1, descending=True, stable=True)  # style 0: the most frequent
    centres = centres.gather(1, order[..., None].expand_as(centres))
    return {'centres': centres.cpu().numpy(), 'counts': sizes.cpu().numpy(),
            'mean': vectors.mean(0).cpu().numpy(), 'step': np.array(run.step),
            'min_pixels': np.array(min_pixels),
            'label_names': np.array(run.config.label_names or [], np.str_)}


def save_styles(styles, folder, variant=''):
    """Write folder/styles.npz, or that of a variant of the run's networks (Run.variant) -> its
    path. UserError where that is not possible."""
    path = folder / f'styles{variant}.npz'
    write_atomically(path, partial(np.savez, **styles))
    return path


def load_styles(folder, config, variant=''):
    """The styles of a run's folder as a dict, as `cluster` returns it, or of the official code's
    features_clustered_*.npy, without a step; None where there are none. UserError where the file
    is not of this run, before there is memory for more than it can hold."""
    path = folder / f'styles{variant}.npz'
    if not path.exists():
        clustered = sorted(folder.glob('features_clustered_*.npy'))
        return official.read_styles(clustered[-1], config) if clustered else None
    require_regular_file(path)
    with as_user_error(path, 'not a whole file of styles; delete it and run cluster again'):
        return check(path, config)


def check(path, config):
    with zipfile.ZipFile(path) as archive:
        if sum(item.file_size for item in archive.infolist()) > 1 << 28:
            raise ValueError('too large')
    names = ('centres', 'counts', 'mean', 'label_names', 'step', 'min_pixels')
    with np.load(path, allow_pickle=False) as file:
        styles = {name: file[name] for name in names}
    k = styles['counts'].shape[-1]
    for name, kind, shape in (('centres', 'f', (config.n_labels, k, config.feat)),
                              ('counts', 'i', (config.n_labels, k)),
                              ('mean', 'f', (config.feat,)),
                              ('label_names', 'U', (len(config.label_names or []),)),
                              ('step', 'i', ()), ('min_pixels', 'i', ())):
        value = styles[name]
        if value.shape != shape or not k or value.size and value.dtype.kind != kind or (
                kind == 'f' and not np.isfinite(value).all() or kind == 'i' and (value < 0).any()):
            raise ValueError(f'{name}: {value.dtype} of shape {value.shape}')
        if kind == 'f':
            styles[name] = value.astype(np.float32)
    return styles


# ------------------------------------------------------------------------------------- choosing

def choose(labels, styles, generator=None):
    """A style for each instance: labels (K,) int64 -> (K, feat) float32. The most frequent centre
    of its label, or with a generator one drawn with probability proportional to its count; the mean
    of all features where the label has none (README, deviation 9)."""
    chosen = choose_indices(labels, styles, generator)
    return torch.where(chosen[:, None] >= 0, torch.from_numpy(styles['centres'])[labels, chosen],
                       torch.from_numpy(styles['mean']))


def choose_indices(labels, styles, generator=None):
    """Which of its label's styles `choose` takes for each instance: labels (K,) int64 -> (K,)
    int64, -1 where the label has none."""
    counts = torch.from_numpy(styles['counts'])[labels].float()                     # (K, k)
    known = counts.any(1)
    chosen = counts.argmax(1)
    if generator:
        chosen = torch.multinomial(counts + ~known[:, None], 1, generator=generator)[:, 0]
    return torch.where(known, chosen, -1)


def labels_without_styles(labels, styles):
    """The set of those among the labels (K,) that have no styles."""
    return {i for i in labels.unique().tolist() if not styles['counts'][i].any()}


def picture_seed(seed, name, i):
    """The seed of all that is random in picture i of the map of that name, whatever other maps
    there are."""
    return data.derive_seed(seed, zlib.crc32(name.encode(errors='surrogateescape')), i)


def cluster_centre(styles, label, k):
    """Style k of a label -> (feat,) tensor."""
    return torch.from_numpy(styles['centres'][label, k])


def parse_style_flags(choices, styles):
    """The words of --style, as ['car=3', '11=0'] -> {label: number of its style}. UserError where
    there is no such label or style."""
    if not choices:
        return {}
    names, chosen = styles['label_names'].tolist(), {}
    for choice in choices:
        name, equals, k = choice.rpartition('=')
        if not equals:
            raise UserError(f'--style {choice}: expected LABEL=K, a label and the number of one of '
                            'its styles')
        label = parse_label(name, names)
        if not 0 <= label < len(styles['counts']):
            known = styles['counts'].any(1).nonzero()[0]
            known = ', '.join(names[i] if names else str(i) for i in known)
            raise UserError(f'--style {choice}: no label {name!r}; there are styles of {known}'
                            + did_you_mean(name, names))
        there = int((styles['counts'][label] > 0).sum())
        if not k.isdecimal() or len(k) > 9 or int(k) >= there:
            raise UserError(f'--style {choice}: {name} has the styles 0 to {there - 1}' if there
                            else f'--style {choice}: {name} has no styles, it is not in the '
                            'training data')
        chosen[label] = int(k)
    return chosen
