"""Styles: what makes one picture of a label map differ from another (paper section 3.4).

A style is the feature vector of an instance. The encoder computes it from a photograph. K-means on
the features of all instances of a label finds the label's clusters. Their centres are the styles to
choose from. `clusters` is the dict of all labels' clusters that `cluster` returns."""
import torch
import torch.nn.functional as F

import data
import nets
from kmeans import kmeans


def style_regions(config, label, inst):
    """The map (N, 1, H, W) of the regions that have one style each: the instance map, or the label
    map if config.features_of is 'label'."""
    return label if config.features_of == 'label' else inst


def encode(E, image, regions, scale=1):
    """Encode the features of each region: paper section 3.4.

    image: (N, C, H, W) float in [-1, 1].
    regions: (N, 1, H, W) integer, see style_regions.
    scale: more than 1 if E was trained at 1 / scale of this size. Then the image is reduced for E,
        and E gets no gradient.
    Returns (N, feat, H, W) float32, constant over each region."""
    if scale == 1:
        return E(image, regions)
    with torch.no_grad():
        small = F.interpolate(image, scale_factor=1 / scale, mode='bicubic', antialias=True)
        return E(small.clamp(-1, 1), regions)


def broadcast_to_pixels(vectors, region_index):
    """Give every pixel the vector of its region: vectors (I, feat) and region_index (1, 1, H, W)
    integer to (1, feat, H, W)."""
    return vectors[region_index[:, 0]].permute(0, 3, 1, 2)


def gather_instances(features, region_index, n):
    """Take the vector of each of n regions, the inverse of broadcast_to_pixels: features (1, feat,
    H, W), constant over each region, and region_index (1, 1, H, W) integer to (n, feat)."""
    vectors = features.new_empty(n, features.shape[1])
    vectors[region_index.flatten()] = features.permute(0, 2, 3, 1).flatten(0, 2)
    return vectors


@torch.inference_mode()
def encode_all(run, dataset, min_pixels=1, indices=None, progress=None):
    """Encode every instance of a data.PairedDataset with an area of at least `min_pixels`.

    run: any object with `config`, `E` and `device`, as train.Run.
    dataset: without augmentation, with `multiple` as in nets.input_multiple.
    indices: of the pictures to encode, or None for all.
    progress: called with the number of pictures done.
    Returns vectors (T, feat) float32 and labels (T,) int64, on the CPU."""
    vectors, labels = [torch.empty(0, run.config.feat)], [torch.empty(0, dtype=torch.long)]
    keys = [(0, i) for i in (range(len(dataset)) if indices is None else indices)]
    for i, batch in enumerate(data.batches(dataset, run.device, sampler=keys), 1):
        label, inst, image, _ = data.to_device(batch, run.device)
        regions = style_regions(run.config, label, inst)
        _, region_index, region_labels, areas = data.describe_instances(
            label, regions, run.config.n_labels)
        with nets.autocast(run.device, 'fp32'):
            features = encode(run.E, image, regions, run.config.encoder_scale)
        large = areas >= min_pixels
        vectors.append(gather_instances(features, region_index, len(areas))[large].cpu())
        labels.append(region_labels[large].cpu())
        if progress:
            progress(i)
    return torch.cat(vectors), torch.cat(labels)


def cluster(vectors, labels, n_labels, k=10, seed=0, device='cpu'):
    """Cluster the features of each label with K-means (paper section 3.4; K = 10 in section 4).

    vectors: (T, feat) float, T >= 1. labels: (T,) int64, the label of each vector.
    Returns a dict of ndarrays: centres (n_labels, k, feat) float32; counts (n_labels, k) int64, the
    instances of each cluster, largest first, 0 for unused clusters; mean (feat,) of all vectors."""
    centres = torch.zeros(n_labels, k, vectors.shape[1])
    counts = torch.zeros(n_labels, k, dtype=torch.long)
    for label in labels.unique().tolist():
        points = vectors[labels == label].to(device)
        label_centres, sizes, _ = kmeans(points, k, seed=data.derive_seed(seed, label))
        sizes, order = sizes.cpu().sort(descending=True, stable=True)
        centres[label], counts[label] = label_centres.cpu()[order], sizes
    return {'centres': centres.numpy(), 'counts': counts.numpy(), 'mean': vectors.mean(0).numpy()}


def choose_clusters(labels, clusters, generator=None):
    """Choose for each instance a cluster of its label: the most frequent one. With a
    torch.Generator, draw one with a probability proportional to its count.

    labels: (I,) int64. Returns (I,) int64, -1 for labels without clusters."""
    counts = torch.from_numpy(clusters['counts'])[labels].float()                   # (I, k)
    has_clusters = counts.any(1)
    chosen = counts.argmax(1)
    if generator:
        # multinomial needs a positive number in each row.
        chosen = torch.multinomial(counts + ~has_clusters[:, None], 1, generator=generator)[:, 0]
    return torch.where(has_clusters, chosen, -1)


def choose_styles(labels, clusters, generator=None):
    """Choose a style for each instance, see choose_clusters. Labels without clusters get the mean
    of all features (docs/differences.md, 9).

    labels: (I,) int64. Returns (I, feat) float32."""
    chosen = choose_clusters(labels, clusters, generator)
    return torch.where(chosen[:, None] >= 0, torch.from_numpy(clusters['centres'])[labels, chosen],
                       torch.from_numpy(clusters['mean']))
