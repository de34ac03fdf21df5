"""K-means in torch: k-means++ seeding (Arthur and Vassilvitskii, 2007), then Lloyd's iterations,
from many seedings at once. Paper section 3.4 clusters the features of each class of objects."""
import math

import torch

SUBSAMPLE = 4096    # points on which the restarts compete; the best is then refined on all points


def kmeans(points, k, restarts=24, seed=0, max_iterations=300, tolerance=1e-5):
    """Cluster points into at most k clusters.

    The restarts compete on a random sample of at most 4096 points. Lloyd's iterations then go on
    from the best one on all points, until no centre moves by more than `tolerance` of the points'
    variance. An empty cluster restarts at the point farthest from its centre. The draws depend on
    `seed` alone, so results repeat, on another device as well.

    points: (M, D) float, M >= 1.
    Returns centres (k, D) float32, sizes (k,) int64 and inertia () float32, the sum of squared
    distances. Clusters beyond the number of distinct points have size 0.
    """
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
    """k-means++: draw each centre among the points, with a probability proportional to its squared
    distance to the centres before it. Of a few draws, take the one that lowers the sum of squared
    distances most.

    points: (M, D) float. Returns (restarts, k, D).
    """
    tries = 2 + int(math.log(k))
    rows = torch.arange(restarts, device=points.device)
    distance = points.new_ones(restarts, len(points))       # the first centre: all alike
    centres = []
    for i in range(k):
        cumulative = distance.cumsum(1, dtype=torch.float64)
        uniform = torch.rand(restarts, tries, generator=generator, dtype=torch.float64)
        target = uniform.to(points.device) * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, target, right=True).clamp(max=len(points) - 1)
        candidates = points[index]                                          # (R, tries, D)
        distances = torch.cdist(candidates, points[None]).square()          # (R, tries, M)
        if i:
            distances = torch.minimum(distances, distance[:, None])
        best = distances.sum(-1).argmin(1)
        distance = distances[rows, best]
        centres.append(candidates[rows, best])
    return torch.stack(centres, 1)


def assign(points, centres):
    """Find the nearest of the centres (R, k, D) for each point (M, D).

    Returns the squared distances (R, M) and the indices of the centres (R, M).
    """
    scores = torch.baddbmm(centres.square().sum(-1, keepdim=True), centres,
                           points.T.expand(len(centres), -1, -1), alpha=-2)  # (R, k, M)
    score, index = scores.min(1)
    return (score + points.square().sum(-1)).clamp(min=0), index


def lloyd(points, centres, max_iterations, tolerance):
    """Lloyd's iterations from `centres` (R, k, D), until all squared movements are at most
    `tolerance`.

    points: (M, D) float. Returns centres (R, k, D), sizes (R, k) int64 and inertia (R,).
    """
    k = centres.shape[1]
    clusters = torch.arange(k, device=points.device)[:, None]               # (k, 1)
    for _ in range(max_iterations):
        distance, index = assign(points, centres)
        member = (index[:, None] == clusters).float()                       # (R, k, M)
        sizes = member.sum(-1, keepdim=True)                                # (R, k, 1)
        moved = torch.where(sizes > 0, member @ points / sizes.clamp(min=1), centres)

        # The j-th empty cluster takes the j-th farthest point, unless that lies on a centre.
        empty = sizes[..., 0] == 0
        farthest, point = distance.topk(min(k, len(points)), dim=1)
        rank = (empty.cumsum(1) - 1).clamp(0, farthest.shape[1] - 1)
        reseed = empty & (farthest.gather(1, rank) > tolerance)
        moved = torch.where(reseed[..., None], points[point.gather(1, rank)], moved)

        movement = (moved - centres).square().sum(-1).max()
        centres = moved
        if movement <= tolerance:
            break
    distance, index = assign(points, centres)
    return centres, (index[:, None] == clusters).sum(-1), distance.sum(1)
