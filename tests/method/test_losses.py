"""The objective on numbers small enough for mental arithmetic. (test_golden.py compares it with the
official one.)"""
import pytest
import torch

import losses


def scales(*scores):
    """One picture, a feature layer of zeros and a score map for each scale."""
    return [[torch.zeros(1, 2, 2, 2), torch.tensor([[[score]]])] for score in scores]


def test_gan_loss_sums_over_scales():
    assert losses.gan_loss(scales([3.0], [0.5]), real=True).item() == 2.0 ** 2 + 0.5 ** 2
    assert losses.gan_loss(scales([3.0], [0.5]), real=False).item() == 3.0 ** 2 + 0.5 ** 2
    undecided = losses.gan_loss(scales([0.0]), True, 'vanilla')
    torch.testing.assert_close(undecided, torch.tensor(2.0).log())


def test_feature_matching_leaves_the_scores_out_and_the_real_features_alone():
    fake, real = scales([1.0], [1.0]), scales([9.0], [9.0])
    fake[0][0] = torch.full((1, 2, 2, 2), 3.0, requires_grad=True)
    real[0][0].requires_grad_()
    value = losses.feature_matching(fake, real)
    assert value.item() == 3.0 / 2                          # weight 4 / 4, two scales
    value.backward()
    assert fake[0][0].grad is not None and real[0][0].grad is None


def test_terms_have_names_and_weights():
    fake = scales([1.0])
    fake[0][0] += 1
    taps = [[torch.full((1, 1, 2, 2), float(value))] * 5 for value in (1, 0)]
    terms = losses.generator_loss(fake, scales([1.0]), 3, 'lsgan', taps)
    assert {name: round(term.item(), 5) for name, term in terms.items()} == {
        'gan': 0, 'feature_matching': 10,
        'vgg': round(10 * (1 / 32 + 1 / 16 + 1 / 8 + 1 / 4 + 1), 5)}
    assert losses.discriminator_loss(fake, scales([1.0])).keys() == {'d_fake', 'd_real'}


def test_hinge_by_hand():
    scales = [[torch.tensor([0.5, 2.0])], [torch.tensor([-3.0])]]
    assert float(losses.gan_loss(scales, True, 'hinge')) == pytest.approx(0.25 + 4)
    assert float(losses.gan_loss(scales, False, 'hinge')) == pytest.approx(2.25 + 0)
    assert float(losses.generator_gan_loss(scales, 'hinge')) == pytest.approx(-1.25 + 3)


def test_weights_of_the_terms_and_l1():
    fake, real = ([[torch.tensor([value]), torch.tensor([0.0])]] for value in (1.0, 3.0))
    pictures = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    terms = losses.generator_loss(fake, real, lambda_feature=2, lambda_l1=100, pictures=pictures)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        {'gan': 1, 'feature_matching': 4, 'l1': 50})
    assert list(losses.generator_loss(fake, real, lambda_feature=0)) == ['gan']
