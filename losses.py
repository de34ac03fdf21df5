"""The objective of pix2pixHD, paper equations 1 to 5: pure functions of what the discriminators and
VGG-19 return.

Discriminator outputs are lists over scales of lists over layers, as nets.MultiscaleDiscriminator
returns them; the last layer is the map of raw scores. Losses are 0-dimensional float tensors."""
import torch
import torch.nn.functional as F

VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)     # official VGGLoss, relu1_1 ... relu5_1


def lsgan(scores, real):
    """The mean least-squares loss of raw scores of any shape with the target `real` (bool): Mao et
    al., 2017 (paper section 4)."""
    return F.mse_loss(scores, torch.full_like(scores, float(real)))


def vanilla(scores, real):
    """Cross-entropy, paper eq. 2; otherwise as lsgan."""
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))


def hinge(scores, real):
    """The hinge loss of D (Lim and Ye, 2017); otherwise as lsgan. For G see generator_gan_loss."""
    return F.relu(1 - scores if real else 1 + scores).mean()


GAN_LOSSES = {'lsgan': lsgan, 'vanilla': vanilla, 'hinge': hinge}


def gan_loss(scales, real, mode='lsgan'):
    """The GAN loss of the scores with the target `real` (bool): paper eqs. 1 and 2, summed over D1,
    D2 and D3 as in eq. 3. mode: a key of GAN_LOSSES."""
    return sum(GAN_LOSSES[mode](layers[-1].float(), real) for layers in scales)


def generator_gan_loss(scales, mode='lsgan'):
    """The adversarial loss of G: D should score its fakes as real (eq. 1, non-saturating). With
    hinge it is the negative mean score."""
    if mode == 'hinge':
        return -sum(layers[-1].float().mean() for layers in scales)
    return gan_loss(scales, True, mode)


def mean_difference(fake, real):
    """The mean absolute difference of two maps of one shape, summed in float32."""
    return (fake - real).abs().mean(dtype=torch.float32)


def feature_matching(fake_scales, real_scales, n_layers=3):
    """Feature matching, paper eq. 4: the mean absolute difference (1 / N_i) of D's features for the
    fake and the real picture, summed over layers i and scales k.

    The weights are the official ones, which the paper lacks (docs/differences.md, 2): 1 / n_scales
    for a scale, and 4 / (n_layers + 1) for a layer, so 1 by default. n_layers: strided layers of a
    discriminator. No gradient reaches the real features."""
    weight = 4 / (n_layers + 1) / len(fake_scales)
    total = 0
    for fake_layers, real_layers in zip(fake_scales, real_scales):
        for fake, real in zip(fake_layers[:-1], real_layers[:-1]):
            total = total + weight * mean_difference(fake, real.detach())
    return total


def vgg_loss(fake_features, real_features):
    """Weighted mean absolute difference of VGG-19 features (Johnson et al., 2016): the optional
    term of paper section 4. The layers have the official weights (docs/differences.md, 2)."""
    return sum(weight * mean_difference(fake, real.detach())
               for weight, fake, real in zip(VGG_WEIGHTS, fake_features, real_features))


def generator_loss(fake_scales, real_scales, n_layers=3, mode='lsgan', vgg_features=None,
                   pictures=None, lambda_feature=10, lambda_vgg=10, lambda_l1=0):
    """The weighted terms of paper eq. 5 for G and E. The loss is their sum.

    fake_scales, real_scales: what D returns for fakes and photographs.
    n_layers: see feature_matching. mode: a key of GAN_LOSSES.
    vgg_features: (fake, real), what nets.VGG19 returns, or None for no `vgg`.
    pictures: (fake, real), each (N, C, H, W), for the L1 term of pix2pix; not needed without it.
    Returns a dict: `gan`; `feature_matching`, `vgg` and `l1` where their weights are not 0."""
    terms = {'gan': generator_gan_loss(fake_scales, mode)}
    if lambda_feature:
        terms['feature_matching'] = lambda_feature * feature_matching(fake_scales, real_scales,
                                                                      n_layers)
    if lambda_vgg and vgg_features:
        terms['vgg'] = lambda_vgg * vgg_loss(*vgg_features)
    if lambda_l1:
        terms['l1'] = lambda_l1 * mean_difference(*pictures)
    return terms


def discriminator_loss(fake_scales, real_scales, mode='lsgan'):
    """The terms of the discriminators' loss, paper eq. 3: a dict of `d_fake` and `d_real`. train.py
    minimises half their sum, as the official code does."""
    return {'d_fake': gan_loss(fake_scales, False, mode),
            'd_real': gan_loss(real_scales, True, mode)}
