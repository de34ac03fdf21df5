"""K-means against brute force."""
import itertools

import pytest
import torch

from kmeans import kmeans


def lloyd(points, k, restarts=10):
    """The plainest K-means there is: the inertia of the best of ten starts from random points."""
    points, best = points.double(), float('inf')
    for _ in range(restarts):
        centres = points[torch.randperm(len(points))[:k]]
        for _ in range(300):
            nearest = torch.cdist(points, centres).argmin(1)
            moved = torch.stack([
                points[nearest == j].mean(0) if (nearest == j).any() else centres[j]
                for j in range(k)])
            if torch.equal(moved, centres):
                break
            centres = moved
        best = min(best, torch.cdist(points, centres).min(1).values.square().sum().item())
    return best


@pytest.mark.parametrize('k, n', [(2, 30), (4, 40), (10, 300), (10, 12), (5, 1000)])
def test_as_good_as_brute_force(k, n):
    torch.manual_seed(k * n)
    sets = [torch.rand(n, 3), torch.randn(n, 3),
            torch.randn(n, 3) * 0.05 + torch.rand(k, 3)[torch.randint(k, (n,))] + 50]
    centres, sizes, inertia = kmeans(torch.stack(sets), torch.full((3,), n), k)
    for i, points in enumerate(sets):
        assert inertia[i] <= 1.01 * lloyd(points, k)
        distance = torch.cdist(points.double(), centres[i].double())
        inertia_here = distance.min(1).values.square().sum().float()
        torch.testing.assert_close(inertia_here, inertia[i], rtol=1e-3, atol=1e-4)
        assert torch.equal(distance.argmin(1).bincount(minlength=k), sizes[i])


def test_the_best_of_all_partitions():
    points = torch.tensor([[0., 0], [0, 1], [4, 0], [4, 1], [9, 5], [0.5, 0.2], [4.2, 0.3]])

    def spread(members):
        return (members - members.mean(0)).square().sum().item() if len(members) else 0

    best = min(sum(spread(points[torch.tensor(labels) == j]) for j in range(3))
               for labels in itertools.product(range(3), repeat=7))
    inertia = kmeans(points[None], torch.tensor([7]), 3)[2]
    assert inertia.item() == pytest.approx(best, rel=1e-4)


def test_fewer_points_than_clusters_and_none():
    points = torch.full((4, 5, 2), float('nan'))            # padding is never read
    points[0, :3] = torch.tensor([[0., 0], [1, 0], [0, 1]])
    points[1, :4] = 0.3                                     # one point four times
    points[3] = torch.rand(5, 2)

    centres, sizes, inertia = kmeans(points, torch.tensor([3, 4, 0, 5]), 4)
    assert sorted(sizes[0].tolist()) == [0, 1, 1, 1]
    assert sorted(sizes[1].tolist()) == [0, 0, 0, 4]
    assert sizes[2].sum() == 0 and sizes[3].sum() == 5 and (sizes[3] > 0).all()
    torch.testing.assert_close(centres[1, sizes[1].argmax()], torch.tensor([0.3, 0.3]))
    assert inertia[:3].max() < 1e-8 and centres.isfinite().all()


def test_problems_do_not_mix_and_the_seed_decides():
    torch.manual_seed(0)
    points = torch.rand(6, 100, 3)
    counts = torch.tensor([100, 7, 50, 0, 100, 1])
    one = kmeans(points, counts, 5, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one, kmeans(points, counts, 5, seed=3)))
    assert one[1].sum(1).tolist() == counts.tolist()
    inside = [points[i, :n] for i, n in enumerate(counts)]
    for i, members in enumerate(inside):
        for centre in one[0][i][one[1][i] > 0]:
            assert (centre >= members.amin(0) - 1e-5).all()
            assert (centre <= members.amax(0) + 1e-5).all()


def test_empty_clusters_are_seeded_again():
    from kmeans import lloyd
    points = torch.tensor([[0., 0], [0, 1], [10, 0], [10, 1], [20, 0]])[None]
    # Two of the centres own nothing.
    start = torch.tensor([[[0., 0], [1000, 1000], [2000, 2000]]])
    own = torch.ones(1, 5, dtype=torch.bool)
    centres, sizes, inertia = lloyd(points, own, start, 100, torch.tensor([1e-6]))
    assert (sizes > 0).all() and inertia.item() == pytest.approx(1.0, abs=1e-3)
