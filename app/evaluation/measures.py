"""Measures of a picture, of samples, and of a recognised label map (paper section 4.1)."""
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F

from app.common.errors import UserError
import data
import losses
import nets

RESAMPLES = 1000                            # of the bootstrap


def reconstruction(picture, photo):
    """Compare a picture and its photograph, (C, H, W) uint8 or float in [-1, 1]: {'l1': in grey
    levels, 'psnr': in dB, inf if they are equal, 'ssim': of Wang et al. (2004) with 11x11 Gaussian
    windows, 1x1 if the picture is smaller}."""
    x, y = ((data.to_float(image).cpu()[:, None].double() + 1) * 127.5
            for image in (picture, photo))
    difference = (x - y).abs()
    psnr = 10 * torch.log10(255 ** 2 / difference.square().mean())
    gaussian = torch.exp(-(torch.arange(11.).double() - 5).square() / (2 * 1.5 ** 2))
    window = gaussian[None, None, :, None] / gaussian.sum()
    if min(x.shape[-2:]) < 11:
        window = torch.ones(1, 1, 1, 1).double()
    mean_x, mean_y, xx, yy, xy = (F.conv2d(F.conv2d(z, window), window.mT)
                                  for z in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = ((2 * mean_x * mean_y + c1) * (2 * (xy - mean_x * mean_y) + c2)
            / (mean_x ** 2 + mean_y ** 2 + c1)
            / (xx - mean_x ** 2 + yy - mean_y ** 2 + c2))
    return {'l1': float(difference.mean()), 'psnr': float(psnr), 'ssim': float(ssim.mean())}


def diversity(samples, regions, vgg=None):
    """Return the mean distance over all pairs of samples of one label map: {'diversity': in grey
    levels}, with a nets.VGG19 also 'vgg_diversity', by losses.vgg_loss. samples: at least two
    pictures (C, H, W), uint8 or float in [-1, 1]. regions: (H, W) ids, of equal weight each."""
    _, index, pixels = regions.unique(return_inverse=True, return_counts=True)
    images = [data.to_float(sample)[None] for sample in samples]
    differences = [(a - b).abs().mean((0, 1)).cpu().flatten() * 127.5
                   for a, b in combinations(images, 2)]
    distances = {'diversity': [(index.flatten().bincount(difference) / pixels).mean()
                               for difference in differences]}
    if vgg:
        features = [vgg_features(vgg, image) for image in images]
        distances['vgg_diversity'] = [losses.vgg_loss(a, b) for a, b in combinations(features, 2)]
    return {name: float(torch.stack(values).mean()) for name, values in distances.items()}


def vgg_features(vgg, image):
    """Return what a nets.VGG19 returns for a picture (1, 3, H, W), float in [-1, 1]."""
    device = next(vgg.parameters()).device
    with nets.autocast(device, 'fp32'):                     # whatever the run computes in
        return vgg(image.to(device))


def mean_features(vgg, picture):
    """Return the means over positions of the last layer of a nets.VGG19, a tensor (512,) on the
    CPU, for a picture (3, H, W), uint8 or float in [-1, 1]."""
    return vgg_features(vgg, data.to_float(picture[None]))[-1].mean((0, 2, 3)).cpu()


def frechet_distance(x, y):
    """Return the Fréchet distance of normal distributions with the means and covariances of two
    sets of feature vectors, (N, C) and (M, C) float (Heusel et al., 2017, section 2):
    |mean x - mean y|^2 + trace(cov x + cov y - 2 (cov x cov y)^(1/2))."""
    x, y = x.double(), y.double()
    # With cov = A^T A, the trace of the root is the sum of the singular values of A_x A_y^T.
    a, b = (torch.linalg.qr(z - z.mean(0), mode='r').R / max(1, len(z) - 1) ** 0.5 for z in (x, y))
    distance = ((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum()
                - 2 * torch.linalg.matrix_norm(a @ b.T, 'nuc'))
    return max(0.0, float(distance))                        # rounding can make it negative


def count_pixels(predicted, label, void, n_labels):
    """Compare two label maps, (H, W) integer tensors. Return the correct, true and predicted pixels
    of each label, without those whose true label is in the set `void`; in the last row the correct
    and all pixels, with void ones: (4, max(n_labels, 2)) int64 ndarray."""
    predicted, label = predicted.long().cpu(), label.long().cpu()
    correct = predicted == label
    counted = ~torch.isin(label, torch.tensor(sorted(void), dtype=torch.long))
    counts = np.zeros((4, max(n_labels, 2)), np.int64)
    for row, ids in enumerate((label[counted & correct], label[counted], predicted[counted])):
        counts[row, :n_labels] = ids.bincount(minlength=n_labels)[:n_labels]
    counts[3, :2] = int(correct.sum()), correct.numel()
    return counts


def segmentation_scores(counts, label_names):
    """Return the scores of count_pixels' arrays, one for each picture: {'pixel_accuracy',
    'class_accuracy', 'mean_iou', 'pixel_accuracy_with_void': 0 to 1, 'bounds': {score: 95 %
    interval of a bootstrap over the pictures}, 'iou': {label name: IoU}}. A label that occurs in no
    true map does not count. A resample does not count the labels that it lacks, so the bounds are
    too high if there are few pictures. UserError if no label occurs."""
    counts, n = np.stack(counts).astype(np.float64), len(counts)    # (pictures, 4, labels)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    weights = np.concatenate([np.ones((1, n)), weights])    # first all pictures, then the resamples
    sums = (weights @ counts.reshape(n, -1)).reshape(len(weights), *counts.shape[1:])
    correct, true, predicted, with_void = sums.transpose(1, 0, 2)
    if not true[0].any():
        raise UserError('every pixel of the label maps is void; name fewer labels with --void')
    recall, iou = correct / np.maximum(true, 1), correct / np.maximum(true + predicted - correct, 1)
    n_present = np.maximum((true > 0).sum(1), 1)
    with np.errstate(invalid='ignore'):                     # all pixels of a resample may be void
        scores = {'pixel_accuracy': correct.sum(1) / true.sum(1),
                  'class_accuracy': recall.sum(1) / n_present, 'mean_iou': iou.sum(1) / n_present}
    return {**{name: float(values[0]) for name, values in scores.items()},
            'pixel_accuracy_with_void': float(with_void[0, 0] / with_void[0, 1]),
            'bounds': {name: np.nanpercentile(values[1:], (2.5, 97.5)).tolist()
                       for name, values in scores.items()},
            'iou': {name: float(iou[0, i]) for i, name in enumerate(label_names) if true[0, i]}}
