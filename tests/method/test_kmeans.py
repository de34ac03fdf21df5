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
    for points in (torch.rand(n, 3), torch.randn(n, 3),
                   torch.randn(n, 3) * 0.05 + torch.rand(k, 3)[torch.randint(k, (n,))] + 50):
        centres, sizes, inertia = kmeans(points, k)
        assert inertia <= 1.01 * lloyd(points, k)
        distance = torch.cdist(points.double(), centres.double())
        torch.testing.assert_close(distance.min(1).values.square().sum().float(), inertia,
                                   rtol=1e-3, atol=1e-4)
        assert torch.equal(distance.argmin(1).bincount(minlength=k), sizes)


def test_the_best_of_all_partitions():
    points = torch.tensor([[0., 0], [0, 1], [4, 0], [4, 1], [9, 5], [0.5, 0.2], [4.2, 0.3]])

    def spread(members):
        return (members - members.mean(0)).square().sum().item() if len(members) else 0

    best = min(sum(spread(points[torch.tensor(labels) == j]) for j in range(3))
               for labels in itertools.product(range(3), repeat=7))
    assert kmeans(points, 3)[2].item() == pytest.approx(best, rel=1e-4)


def test_fewer_points_than_clusters():
    _, sizes, inertia = kmeans(torch.tensor([[0., 0], [1, 0], [0, 1]]), 4)
    assert sorted(sizes.tolist()) == [0, 1, 1, 1] and inertia < 1e-8
    centres, sizes, inertia = kmeans(torch.full((4, 2), 0.3), 4)        # one point four times
    assert sorted(sizes.tolist()) == [0, 0, 0, 4] and inertia < 1e-8
    torch.testing.assert_close(centres[sizes.argmax()], torch.tensor([0.3, 0.3]))
    assert centres.isfinite().all()
    assert (kmeans(torch.rand(5, 2), 4)[1] > 0).all()


def test_more_points_than_the_sample():
    """The restarts see a part of the points, the result belongs to all."""
    torch.manual_seed(0)
    points = torch.randn(10_000, 2) * 0.1 + torch.tensor([[0., 0], [5, 0], [0, 5]])[
        torch.randint(3, (10_000,))]
    centres, sizes, inertia = kmeans(points, 3)
    assert sizes.sum() == 10_000 and sizes.min() > 3000
    assert inertia.item() == pytest.approx(10_000 * 2 * 0.01, rel=0.05)


def test_the_seed_decides():
    torch.manual_seed(0)
    points = torch.rand(100, 3)
    result = kmeans(points, 5, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(result, kmeans(points, 5, seed=3)))
    assert not torch.equal(result[0], kmeans(points, 5, seed=4, restarts=1)[0])
    assert (result[0] >= points.amin(0) - 1e-5).all() and (result[0] <= points.amax(0) + 1e-5).all()


def test_labels_do_not_mix():
    """The clusters of a label do not depend on the other labels."""
    import styles
    torch.manual_seed(0)
    vectors, labels = torch.rand(200, 3), torch.randint(4, (200,))
    together = styles.cluster(vectors, labels, 6, k=5, seed=1)
    alone = styles.cluster(vectors[labels == 2], labels[labels == 2], 6, k=5, seed=1)
    assert (together['centres'][2] == alone['centres'][2]).all()
    assert together['counts'].sum(1).tolist() == [*labels.bincount().tolist(), 0, 0]
    assert (together['counts'][:, :-1] >= together['counts'][:, 1:]).all()


def test_empty_clusters_start_again_at_the_farthest_point():
    from kmeans import lloyd
    points = torch.tensor([[0., 0], [0, 1], [10, 0], [10, 1], [20, 0]])
    # Two of the centres are nearest to no point.
    start = torch.tensor([[[0., 0], [1000, 1000], [2000, 2000]]])
    _, sizes, inertia = lloyd(points, start, 100, 1e-6)
    assert (sizes > 0).all() and inertia.item() == pytest.approx(1.0, abs=1e-3)
