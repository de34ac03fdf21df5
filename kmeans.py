"""K-means in torch: k-means++ seeding (Arthur and Vassilvitskii, 2007), then Lloyd's iterations,
from many seedings at once. Paper section 3.4 clusters the features of each class of objects."""
import math

import torch

SUBSAMPLE = 4096    # points from which the best restart is chosen


def kmeans(points, k, restarts=24, seed=0, max_iterations=300, tolerance=1e-5):
    """Cluster points into at most k clusters.

    The restarts compete on a random sample of at most 4096 points. Lloyd's iterations then continue
    from the best one on all points, until the squared movement of every centre is at most
    `tolerance` times the variance. An empty cluster moves to the point whose nearest centre is
    farthest away. The random numbers depend on `seed` alone and are the same on every device.

    points: (M, D) float, M >= 1.
    Returns centres (k, D) float32, sizes (k,) int64 and inertia () float32, the sum of squared
    distances, on the device of the points. Unused clusters have size 0."""
    generator = torch.Generator().manual_seed(seed)
    # Distances are computed as |x|^2 - 2xc + |c|^2, which loses digits far from the origin.
    mean = points.float().mean(0)
    points = points.float() - mean
    tolerance = tolerance * points.square().sum(1).mean()

    sample = points
    if len(points) > SUBSAMPLE:
        chosen = torch.randperm(len(points), generator=generator)[:SUBSAMPLE]
        sample = points[chosen.to(points.device)]
    centres = seed_centres(sample, k, restarts, generator)
    centres, _, inertia = lloyd(sample, centres, max_iterations, tolerance)
    best = inertia.argmin()
    centres, sizes, inertia = lloyd(points, centres[best][None], max_iterations, tolerance)
    return centres[0] + mean, sizes[0], inertia[0]


def seed_centres(points, k, restarts, generator):
    """Greedy k-means++: draw a few candidates for each centre among the points, with a probability
    proportional to the squared distance to the nearest centre so far. Keep the candidate that
    lowers the sum of squared distances most.

    points: (M, D) float. Returns (restarts, k, D). R: restarts."""
    tries = 2 + int(math.log(k))
    restart = torch.arange(restarts, device=points.device)
    squared = points.new_ones(restarts, len(points))        # first centre: uniform probability
    centres = []
    for i in range(k):
        cumulative = squared.cumsum(1, dtype=torch.float64)
        uniform = torch.rand(restarts, tries, generator=generator, dtype=torch.float64)
        target = uniform.to(points.device) * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, target, right=True).clamp(max=len(points) - 1)
        candidates = points[index]                                          # (R, tries, D)
        new_squared = torch.cdist(candidates, points[None]).square()        # (R, tries, M)
        if i:
            new_squared = torch.minimum(new_squared, squared[:, None])
        best = new_squared.sum(-1).argmin(1)
        squared = new_squared[restart, best]
        centres.append(candidates[restart, best])
    return torch.stack(centres, 1)


def assign(points, centres):
    """Find the nearest of the centres (R, k, D) for each point (M, D).

    Returns the squared distances (R, M) and the indices of the centres (R, M) int64."""
    scores = torch.baddbmm(centres.square().sum(-1, keepdim=True), centres,
                           points.T.expand(len(centres), -1, -1), alpha=-2)  # (R, k, M)
    score, index = scores.min(1)
    return (score + points.square().sum(-1)).clamp(min=0), index


def lloyd(points, centres, max_iterations, tolerance):
    """Lloyd's iterations from `centres` (R, k, D): at most max_iterations, or until all squared
    movements are at most `tolerance`.

    points: (M, D) float. Returns centres (R, k, D), sizes (R, k) int64 and inertia (R,)."""
    k = centres.shape[1]
    clusters = torch.arange(k, device=points.device)[:, None]               # (k, 1)
    for _ in range(max_iterations):
        squared, index = assign(points, centres)
        member = (index[:, None] == clusters).float()                       # (R, k, M)
        sizes = member.sum(-1, keepdim=True)                                # (R, k, 1)
        new_centres = torch.where(sizes > 0, member @ points / sizes.clamp(min=1), centres)

        # The j-th empty cluster moves to the j-th farthest point, unless that is near a centre.
        empty = sizes[..., 0] == 0
        farthest, farthest_index = squared.topk(min(k, len(points)), dim=1)
        rank = (empty.cumsum(1) - 1).clamp(0, farthest.shape[1] - 1)
        reseed = empty & (farthest.gather(1, rank) > tolerance)
        new_centres = torch.where(reseed[..., None], points[farthest_index.gather(1, rank)],
                                  new_centres)

        movement = (new_centres - centres).square().sum(-1).max()
        centres = new_centres
        if movement <= tolerance:
            break
    squared, index = assign(points, centres)
    return centres, (index[:, None] == clusters).sum(-1), squared.sum(1)
