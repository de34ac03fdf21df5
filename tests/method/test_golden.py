"""Parity with the official implementation, in numbers that its own networks, losses and update rule
computed."""
import json

import numpy as np
from PIL import Image
import pytest
import torch

from app.common import config
from app.datasets import scenes
from app.runs import run_styles, runs
from conftest import normalised_biases
import data
import generate
import losses
import nets
import styles
import train


def read(path):
    """A parity file -> (its arrays as tensors, its config)."""
    arrays = np.load(path)
    tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != 'config'}
    return tensors, json.loads(str(arrays['config']))


def within(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()
            if name.startswith(prefix)}


def assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.detach().float(), expected.float(), atol=tolerance, rtol=0)


@pytest.mark.parametrize('file, network', [('generator_global', nets.GlobalGenerator),
                                           ('generator_local1', nets.LocalEnhancer),
                                           ('generator_local2', nets.LocalEnhancer)])
def test_generators(golden, file, network):
    tensors, config = read(golden(f'{file}.npz'))
    net = network(**config)
    net.load_state_dict(within(tensors, 'param/'), strict=True)
    # The exact output is up to 1.1e-5 from the official float32 numbers, and so is ours, each CPU
    # rounding its own way.
    assert_close(net.double()(tensors['input'].double()), tensors['output'], 2e-5)


def test_encoder(golden):
    tensors, config = read(golden('encoder.npz'))
    net = nets.Encoder(**config)
    net.load_state_dict(within(tensors, 'param/'), strict=True)
    assert_close(net.model(tensors['input']), tensors['raw'], 1e-5)
    assert_close(net(tensors['input'], tensors['inst']), tensors['output'], 1e-5)


def test_discriminator(golden):
    tensors, config = read(golden('discriminator.npz'))
    net = nets.MultiscaleDiscriminator(**config)
    net.load_state_dict(within(tensors, 'param/'), strict=True)
    scales = net(tensors['input'])
    assert len(scales) == config['n_scales']
    assert all(len(layers) == config['n_layers'] + 2 for layers in scales)
    for i, layers in enumerate(scales):
        for j, features in enumerate(layers):
            assert_close(features, tensors[f'scale{i}/layer{j}'], 1e-5)


def test_losses(golden):
    tensors, config = read(golden('losses.npz'))

    def scales(kind):
        layers = len(within(tensors, f'{kind}/scale0/'))
        return [[tensors[f'{kind}/scale{i}/layer{j}'] for j in range(layers)]
                for i in range(config['n_scales'])]

    fake, real = scales('fake'), scales('real')
    for mode in ('lsgan', 'vanilla'):
        g = losses.generator_loss(fake, real, config['n_layers'], mode)
        d = losses.discriminator_loss(fake, real, mode)
        for actual, name in ((g['gan'], 'generator'), (d['d_fake'], 'discriminator_fake'),
                             (d['d_real'], 'discriminator_real')):
            torch.testing.assert_close(actual, tensors[f'{mode}_{name}'], rtol=1e-5, atol=0)

    matched = losses.feature_matching(fake, real, config['n_layers'])
    torch.testing.assert_close(matched, tensors['feature_matching'], rtol=1e-5, atol=0)


def test_boundary_map(golden):
    tensors, _ = read(golden('boundary.npz'))
    assert torch.equal(data.boundary_map(tensors['inst']), tensors['boundary'])


def test_training_steps(golden):
    """Five steps of train.train_step from the official starting weights."""
    tensors, parameters = read(golden('train_steps.npz'))
    assert parameters['betas'] == [0.5, 0.999]
    assert parameters['lambda_feat'] == config.default_values(config.TRAINING)['lambda_feature']
    steps = parameters['steps']
    network, of_training = ({name: value for name, value in parameters.items() if name in fields}
                            for fields in (config.NETWORK, config.TRAINING))
    c = config.with_defaults(
        {**network, 'features': True, 'instances': 'files', 'n_enhancers': 0},
        {**of_training, 'data': '.', 'pictures': [1, 0], 'total_steps': steps,
         'decay_start': steps})
    config.check_config(c)
    run = runs.build_run(c, torch.device('cpu'))

    for name in 'GDE':
        getattr(run, name).load_state_dict(within(tensors, f'before/{name}/'), strict=True)

    names = {'G_GAN': 'gan', 'G_GAN_Feat': 'feature_matching', 'D_real': 'd_real',
             'D_fake': 'd_fake'}
    columns = [names[name] for name in parameters['loss_columns']]
    for expected in tensors['losses']:
        terms = train.train_step(run, tensors['label'], tensors['inst'], tensors['image'])
        actual = torch.stack([terms[name] for name in columns]).double()
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)

    for name in 'GDE':
        net, after = getattr(run, name), within(tensors, f'after/{name}/')
        assert after.keys() == net.state_dict().keys()
        for parameter, weight in net.state_dict().items():
            if parameter not in normalised_biases(net):
                assert_close(weight, after[parameter], 1e-5)


def test_official_run(golden):
    """A folder that the official code wrote: architecture from the shapes, styles from its pickle,
    the same picture."""
    folder = golden('official_run')
    expected = np.load(folder / 'expected.npz')
    run = runs.load_run(folder, torch.device('cpu'))
    assert run.config.training is None and run.config.layout == 'Cityscapes'
    known = run_styles.load_styles(folder, run.config)
    scene = scenes.read_scene(run.config, folder / 'label.png', folder / 'inst.png')
    assert scene.label.shape[-2:] == Image.open(folder / 'label.png').size[::-1]
    assert np.array_equal(data.boundary_map(scene.inst)[0, 0], expected['boundary'])
    vectors = styles.choose_styles(scene.labels, known)
    assert_close(styles.broadcast_to_pixels(vectors, scene.region_index)[0],
                 torch.from_numpy(expected['features']), 1e-4)
    assert_close(generate.synthesise(run, scene, vectors)[0], torch.from_numpy(expected['image']),
                 1e-4)
