"""Styles and synthesis: from a label map, an instance map and a style for every instance to a picture.

A style is a feature vector: what the encoder makes of an instance, or a centre of the clusters of its label. Functions
take the state of a run, as p2phd.load returns it, of which they use G, E, device and config.
"""
from pathlib import Path
import sys
from types import SimpleNamespace
import zipfile

import numpy as np
import torch
import torch.nn.functional as F

import data
from files import UserError, attempt, blame, say, write_whole
from kmeans import kmeans
import layouts
import official
import runs
import survey


def encode(state, image, inst):
    """Per-instance features: image (N, 3, H, W) in [-1, 1], inst (N, 1, H, W) -> (N, feat, H, W).

    In a finetuned run the encoder, which is not trained further, sees the picture at the size it was trained at; its
    vectors are painted on the large instance map.
    """
    scale = state.config.encoder_scale
    if scale == 1:
        return state.E(image, inst)
    with torch.no_grad():
        return state.E(F.interpolate(image, scale_factor=1 / scale, mode='bicubic', antialias=True), inst)


def paint(vectors, slot):
    """vectors (K, feat), slot (1, 1, H, W) int64 in 0 ... K - 1 -> (1, feat, H, W)."""
    return vectors[slot[:, 0]].permute(0, 3, 1, 2)


def unpaint(features, slot):
    """The inverse: features (1, feat, H, W) that are constant over each of the K instances -> (K, feat)."""
    vectors = features.new_empty(int(slot.max()) + 1, features.shape[1])
    vectors[slot.flatten()] = features[0].flatten(1).T
    return vectors


@torch.inference_mode()
def encode_training_set(state, root, min_pixels):
    """Features of every instance of the training set at least `min_pixels` large -> vectors (T, feat), labels (T,)."""
    c = SimpleNamespace(**vars(state.config))
    if c.data is None or Path(root).resolve() != Path(c.data):
        c.data, c.left_out = root, []
    dataset = data.Pictures(survey.known_pairs(c)[0], layouts.readers(c), c.n_labels, c.size,
                            multiple=runs.network_multiple(c), instances=c.instances)
    vectors, labels = [], []
    for batch in data.batches(dataset, c.workers, state.device, sampler=[(0, i) for i in range(len(dataset))]):
        label, inst, image = data.to_device(batch, state.device)
        slot, instance_labels, pixels = data.describe_instances(label, inst, c.n_labels)
        vectors.append(unpaint(encode(state, image, inst), slot)[pixels >= min_pixels])
        labels.append(instance_labels[pixels >= min_pixels])
    return torch.cat(vectors), torch.cat(labels)


def make(state, run, root, k, min_pixels, seed):
    """Cluster the training set's features label by label -> what run/styles.npz holds: centres (n_labels, k, feat)
    float32, counts (n_labels, k) int64, largest first (0 where a label has fewer), mean (feat,), label_names,
    min_pixels, and the step of the networks they belong to."""
    vectors, labels = encode_training_set(state, root, min_pixels)
    if not len(vectors):
        raise UserError(f'--min-pixels {min_pixels}: no instance in {root} is that large')
    counts = labels.bincount(minlength=state.config.n_labels)                               # (n_labels,)
    order = labels.argsort(stable=True)
    rank = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels[order]]
    points = vectors.new_zeros(len(counts), int(counts.max()), vectors.shape[1])
    points[labels[order], rank] = vectors[order]
    centres, sizes, _ = kmeans(points, counts, k, seed=seed)
    sizes, order = sizes.sort(dim=1, descending=True, stable=True)                      # style 0 is the most frequent
    centres = centres.gather(1, order[..., None].expand_as(centres))
    found = (sizes > 0).sum(1)
    say(f'{run}: {found.sum()} styles of {(found > 0).sum()} labels from {len(vectors)} instances')
    return {'centres': centres.cpu().numpy(), 'counts': sizes.cpu().numpy(), 'mean': vectors.mean(0).cpu().numpy(),
            'step': np.array(state.step), 'min_pixels': np.array(min_pixels),
            'label_names': np.array(state.config.label_names or [], np.str_)}


def save(styles, run):
    """Write run/styles.npz; UserError where that is not possible."""
    write_whole(run / 'styles.npz', lambda file: np.savez(file, **styles))


def load(path, c):
    """A styles.npz as a dict, for a run of configuration `c`. ValueError, or whatever else comes of it, where it is not
    one, before there is memory for more than one can be."""
    with zipfile.ZipFile(path) as archive:
        if sum(item.file_size for item in archive.infolist()) > 1 << 28:
            raise ValueError('too large')
    with np.load(path, allow_pickle=False) as file:
        styles = {name: file[name] for name in ('centres', 'counts', 'mean', 'label_names', 'step', 'min_pixels')}
    k = styles['counts'].shape[-1]
    for name, kind, shape in (('centres', 'f', (c.n_labels, k, c.feat)), ('counts', 'i', (c.n_labels, k)),
                              ('mean', 'f', (c.feat,)), ('label_names', 'U', (len(c.label_names or []),)),
                              ('step', 'i', ()), ('min_pixels', 'i', ())):
        value = styles[name]
        if value.shape != shape or not k or value.size and value.dtype.kind != kind or (
                kind == 'f' and not np.isfinite(value).all() or kind == 'i' and (value < 0).any()):
            raise ValueError(f'{name}: {value.dtype} of shape {value.shape}')
    return {name: value.astype(np.float32) if value.dtype.kind == 'f' else value for name, value in styles.items()}


def read(state, run):
    """run/styles.npz as a dict, made from the run's training data where it is not there yet or the run has gone on
    since."""
    path, k, min_pixels = run / 'styles.npz', 10, 1
    clustered = sorted(run.glob('features_clustered_*.npy'))
    if clustered:
        return official.read_styles(clustered[-1], state.config)
    root = state.config.data
    available = root and Path(root).is_dir()
    if path.exists():
        with blame(path, 'not a whole file of styles; delete it and run cluster again'):
            styles = load(path, state.config)
            k, min_pixels = styles['counts'].shape[1], int(styles['min_pixels'])
        if styles['step'] == state.step:
            return styles
        say(f'note: {path} is of step {styles["step"]}, the run has gone on to step {state.step}: '
              + ('clustering again' if available else 'run cluster again'), file=sys.stderr)
        if not available:
            return styles
    if not available:
        raise UserError(f'{run}: no styles yet, and its training data is not at hand{f" at {root}" if root else ""}; '
                        f'run python p2phd.py cluster --run {run} --data DIR')
    say(f'{run}: clustering {root}')
    styles = make(state, run, root, k, min_pixels, state.config.seed)
    attempt(lambda: save(styles, run), 'the styles are not kept')     # as in a folder that may only be read
    return styles


def fixed(choices, styles):
    """['car=3', '11=0'] -> {label: centre}."""
    names, fixed = styles['label_names'].tolist(), {}
    for choice in choices:
        name, equals, k = choice.rpartition('=')
        if not equals:
            raise UserError(f'--style {choice}: expected LABEL=K, a label and the number of one of its styles')
        label = names.index(name) if name in names else int(name) if name.isdecimal() else -1
        if not 0 <= label < len(styles['counts']):
            known = [names[i] if names else str(i) for i in styles['counts'].any(1).nonzero()[0]]
            raise UserError(f'--style {choice}: no label {name!r}; there are styles of {", ".join(known)}')
        there = int((styles['counts'][label] > 0).sum())
        if not k.isdecimal() or int(k) >= there:
            raise UserError(f'--style {choice}: {name} has the styles 0 to {there - 1}' if there else
                            f'--style {choice}: {name} has no styles, it is not in the training data')
        fixed[label] = int(k)
    return fixed


def choose(labels, styles, generator=None):
    """A style for each instance: labels (K,) int64 -> (K, feat) float32. The most frequent centre of its label, or
    with a generator one drawn with probability proportional to its count; the mean of all features where the label has
    none."""
    counts = torch.from_numpy(styles['counts'])[labels].float()                             # (K, k)
    known = counts.any(1)
    chosen = counts.argmax(1)
    if generator:
        chosen = torch.multinomial(counts + ~known[:, None], 1, generator=generator)[:, 0]
    return torch.where(known[:, None], torch.from_numpy(styles['centres'])[labels, chosen],
                       torch.from_numpy(styles['mean']))


@torch.inference_mode()
def encode_photo(state, path, inst, slot):
    """The features of a photograph's instances: inst, slot (1, 1, H, W) -> (K, feat). It is resized to the map's
    size."""
    h, w = inst.shape[-2:]
    multiple = runs.network_multiple(state.config)
    survey.check_section(path, 'its label map', (w, h))
    image = data.to_float(data.to_tensor(data.read_photo(path, (w, h), state.config.out_channels))[None])
    image, inst = (data.pad_to_multiple(x.to(state.device), multiple, 2 * multiple) for x in (image, inst))
    inst[..., h:, :] = inst[..., w:] = inst.max() + 1       # what was padded belongs to none of them
    return unpaint(encode(state, image, inst)[..., :h, :w], slot.to(state.device)).cpu()


