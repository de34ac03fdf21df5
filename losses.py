"""The objective of pix2pixHD, paper equations 1 to 5: pure functions of what the discriminators and
VGG-19 return.

Discriminator outputs are lists over scales of lists over layers, as nets.MultiscaleDiscriminator
returns them; the last layer is the map of raw scores. Every function returns 0-dimensional float
tensors, or a dict of them by name.
"""
import math

import torch
import torch.nn.functional as F

LAMBDA_FEATURE = 10                         # paper section 4: weight of feature matching
LAMBDA_VGG = 10                             # and of the perceptual loss
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)     # official VGGLoss, relu1_1 ... relu5_1


def gan_loss(scales, real, mode='lsgan'):
    """How far the scores are from calling the picture `real` (bool): paper eqs. 1 and 2 for one
    discriminator, summed over D1, D2, D3 as in eq. 3.

    mode 'lsgan': mean squared distance to 1 or 0 (Mao et al., 2017; paper section 4); 'vanilla':
    binary cross-entropy on the raw scores, eq. 2 itself. G minimises its distance to `real`, which
    is eq. 1 with the usual non-saturating loss.
    """
    distance = {'lsgan': F.mse_loss, 'vanilla': F.binary_cross_entropy_with_logits}[mode]
    total = 0
    for layers in scales:                   # eq. 3: the sum over k = 1, 2, 3
        scores = layers[-1].float()
        total = total + distance(scores, torch.full_like(scores, float(real)))
    return total


def feature_matching(fake_scales, real_scales, n_layers=3):
    """Mean absolute difference of the discriminators' features for the fake and the real picture:
    paper eq. 4, summed over layers i and scales k.

    With the official weights: 1 / n_scales for a scale (README, deviation 3: the paper does not
    divide) and 4 / (n_layers + 1) for a layer, where n_layers is the number of the discriminator's
    strided layers. No gradient reaches the real features.
    """
    weight = 4 / (n_layers + 1) / len(fake_scales)
    total = 0
    for fake_layers, real_layers in zip(fake_scales, real_scales):
        for fake, real in zip(fake_layers[:-1], real_layers[:-1]):
            total = total + weight * F.l1_loss(fake.float(), real.detach().float())
    return total


def vgg_loss(fake_taps, real_taps):
    """Weighted mean absolute difference of VGG-19 features (Johnson et al., 2016): the optional
    term of paper section 4."""
    return sum(weight * F.l1_loss(fake.float(), real.detach().float())
               for weight, fake, real in zip(VGG_WEIGHTS, fake_taps, real_taps))


def generator_loss(fake_scales, real_scales, n_layers=3, mode='lsgan', fake_taps=None,
                   real_taps=None):
    """The generator's and the encoder's side of paper eq. 5: a dict of weighted terms, to be
    summed.

    `gan` and `feature_matching`, and `vgg` where the taps of nets.VGG19 are given.
    """
    terms = {'gan': gan_loss(fake_scales, True, mode),
             'feature_matching':
                 LAMBDA_FEATURE * feature_matching(fake_scales, real_scales, n_layers)}
    if fake_taps is not None:
        terms['vgg'] = LAMBDA_VGG * vgg_loss(fake_taps, real_taps)
    return terms


def discriminator_loss(fake_scales, real_scales, mode='lsgan'):
    """The discriminators' side of paper eq. 5, which is eq. 3: a dict of `d_fake` and `d_real`; the
    official code descends half their sum."""
    return {'d_fake': gan_loss(fake_scales, False, mode),
            'd_real': gan_loss(real_scales, True, mode)}


def undecided(n_scales, mode='lsgan'):
    """The sum of the terms of discriminator_loss where every score is halfway between real and fake
    (float)."""
    return n_scales * {'lsgan': 2 * 0.5 ** 2, 'vanilla': 2 * math.log(2)}[mode]
