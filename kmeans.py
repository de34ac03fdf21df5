"""K-means in torch: k-means++ seeding (Arthur and Vassilvitskii, 2007) and Lloyd's iterations, many
problems at once. Paper section 3.4 clusters the features of every class of objects: each class is a
problem."""
import math

import torch

SUBSAMPLE = 4096    # points on which the restarts compete; the winner is then refined on all points


def kmeans(points, counts, k, restarts=24, seed=0, max_iterations=300, tolerance=1e-5):
    """Cluster the first counts[i] rows of points[i] into at most k clusters, for every i.

    points: (B, M, D) float. counts: (B,) integer, 0 <= counts[i] <= M; the rows behind are padding
    and never read. Restarts compete on a random sample of at most 4096 points of each problem;
    Lloyd's iterations then go on from the best on all of them, until no centre moves by more than
    `tolerance` of the points' spread. An empty cluster is re-seeded at the point farthest from its
    centre. Reproducible: draws depend on `seed` alone.

    Returns centres (B, k, D) float32, sizes (B, k) int64 and inertia (B,) float32, the sum of
    squared distances, on the device of `points`. A problem with fewer distinct points than k gets
    as many clusters; the others have size 0.
    """
    b, m, d = points.shape
    generator = torch.Generator().manual_seed(seed)
    centres = points.new_zeros(b, k, d, dtype=torch.float32)
    sizes = torch.zeros(b, k, dtype=torch.int64, device=points.device)
    inertia = points.new_zeros(b, dtype=torch.float32)

    # Problems of similar size run together, as many as the working memory holds; on the CPU that is
    # its cache.
    memory = 1 << 19 if points.device.type == 'cpu' else 1 << 26
    waiting = sorted((n, i) for i, n in enumerate(counts.tolist()) if n)
    while waiting:
        n = waiting[-1][0]
        together = max(1, memory // (k * max(n, restarts * min(n, SUBSAMPLE))))
        group = torch.tensor([i for _, i in waiting[-together:]], device=points.device)
        del waiting[-together:]
        centres[group], sizes[group], inertia[group] = cluster_group(
            points[group, :n].float(), counts.to(points.device)[group], k, restarts, generator,
            max_iterations, tolerance)
    return centres, sizes, inertia


def cluster_group(points, counts, k, restarts, generator, max_iterations, tolerance):
    """kmeans for problems that run side by side."""
    b, m, d = points.shape
    valid = torch.arange(m, device=points.device) < counts[:, None]         # (B, M)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator).to(points.device)

    # Distances are expanded into |x|^2 - 2xc + |c|^2 below, which loses digits unless the points
    # lie around the origin.
    points = torch.where(valid[..., None], points, 0)
    mean = points.sum(1, keepdim=True) / counts[:, None, None]
    points = torch.where(valid[..., None], points - mean, 0)
    spread = points.square().sum((1, 2)) / counts                           # (B,)

    # The restarts compete on a sample ...
    sample, sample_valid = points, valid
    if m > SUBSAMPLE:                                                       # padding comes last
        chosen = (uniform(b, m) - valid.float()).topk(SUBSAMPLE, largest=False).indices
        sample = points.gather(1, chosen[..., None].expand(-1, -1, d))
        sample_valid = valid.gather(1, chosen)
    sample, sample_valid = (x.repeat_interleave(restarts, 0) for x in (sample, sample_valid))
    centres = seed_centres(sample, sample_valid, k, uniform)
    centres, _, inertia = lloyd(sample, sample_valid, centres, max_iterations,
                                tolerance * spread.repeat_interleave(restarts))

    # ... and the best one goes on, on all points.
    best = inertia.view(b, restarts).argmin(1) + torch.arange(b, device=points.device) * restarts
    centres, sizes, inertia = lloyd(points, valid, centres[best], max_iterations,
                                    tolerance * spread)
    return centres + mean, sizes, inertia


def seed_centres(points, valid, k, uniform):
    """k-means++: each centre a point drawn with probability proportional to its squared distance to
    those before; of a few draws, the one that lowers the sum of distances most.

    points: (B, M, D) float, valid: (B, M) bool -> (B, k, D). `uniform(*shape)` draws from [0, 1).
    """
    rows = torch.arange(len(points), device=points.device)[:, None]
    tries = 2 + int(math.log(k))
    weight, centres = None, []
    for _ in range(k):
        total = (valid.float() if weight is None else weight).cumsum(1, dtype=torch.float64)
        target = uniform(len(points), tries).double() * total[:, -1:]
        index = torch.searchsorted(total, target, right=True).clamp(max=points.shape[1] - 1)
        candidates = points[rows, index]                                    # (B, tries, D)
        distance = torch.cdist(candidates, points).square() * valid[:, None]    # (B, tries, M)
        if weight is not None:
            distance = torch.minimum(distance, weight[:, None])
        best = distance.sum(-1).argmin(1, keepdim=True)
        weight = distance[rows, best][:, 0]
        centres.append(candidates[rows, best][:, 0])
    return torch.stack(centres, 1)


def nearest(points, valid, centres):
    """Squared distance (B, M) to each point's nearest centre, 0 at padding; its index (B, M)."""
    scores = torch.baddbmm(centres.square().sum(-1, keepdim=True), centres, points.mT, alpha=-2)
    score, index = scores.min(1)                                            # of (B, k, M)
    return (score + points.square().sum(-1)).clamp(min=0) * valid, index


def lloyd(points, valid, centres, max_iterations, tolerance):
    """Lloyd's iterations from `centres` (B, k, D) until all squared movements are <= tolerance
    (B,).

    Returns centres, sizes (B, k) int64 and inertia (B,), the latter two belonging to the centres
    returned.
    """
    b, k, d = centres.shape
    labels = torch.arange(k, device=points.device)[:, None]                 # (k, 1)
    for _ in range(max_iterations):
        distance, index = nearest(points, valid, centres)
        member = ((index[:, None] == labels) & valid[:, None]).float()      # (B, k, M)
        sizes = member.sum(-1, keepdim=True)
        moved = member @ points / sizes.clamp(min=1)

        # The j-th empty cluster takes the j-th farthest point, unless all points already lie on
        # centres.
        empty = sizes[..., 0] == 0
        far, far_index = distance.topk(min(k, points.shape[1]), dim=1)
        rank = (empty.cumsum(1) - 1).clamp(0, far.shape[1] - 1)
        seeds = points.gather(1, far_index.gather(1, rank)[..., None].expand(-1, -1, d))
        useful = empty & (far.gather(1, rank) > tolerance[:, None])
        moved = torch.where(useful[..., None], seeds,
                            torch.where(empty[..., None], centres, moved))

        movement = (moved - centres).square().sum(-1).amax(1)
        centres = moved
        if (movement <= tolerance).all():
            break
    distance, index = nearest(points, valid, centres)
    sizes = ((index[:, None] == labels) & valid[:, None]).sum(-1)
    return centres, sizes, distance.sum(1)
