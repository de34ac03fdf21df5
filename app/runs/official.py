"""Runs of the official code of 2018 (github.com/NVIDIA/pix2pixHD): state dicts without a
configuration, and clustered features in a pickle."""
import pickle
import re

import numpy as np
import torch

from app.common.errors import UserError, as_user_error
from app.common.files import read_text, require_regular_file
from app.datasets.layouts import CITYSCAPES, LAYOUTS
from app.runs import checkpoints


def read_checkpoint(folder, n_labels=None):
    """Return a run as runs.checkpoint_dict does, without what only training needs. E and D may be
    missing. n_labels: see infer_config. UserError if it cannot be read."""
    weights = {}
    for name in 'GDE':
        path = folder / f'latest_net_{name}.pth'
        if path.exists():
            require_regular_file(path)
            with as_user_error(path):
                state = torch.load(path, map_location='cpu', weights_only=True)
                checkpoints.check_tensors(state, path)
                # PyTorch before 0.4 wrote statistics of InstanceNorm, which are not used.
                weights[name] = {key: tensor for key, tensor in state.items()
                                 if not re.search(r'running_(mean|var)$', key)}
    with as_user_error(folder, 'not the networks of an official pix2pixHD run'):
        network = infer_config(folder, **weights, n_labels=n_labels)
    return {'config': {**network, 'training': None}, 'step': 0, 'weights': weights, 'average': {}}


def infer_config(folder, G, D=None, E=None, n_labels=None):
    """Return the network fields of a configuration, {field: value}, from the shapes of state dicts
    and from opt.txt. As in the official scripts, the encoder gets pictures at the size of G1,
    unless opt.txt, written by export_official, has another `encoder_scale`.
    n_labels: as the user says, 0 for a picture; if None, label_nc of opt.txt decides, then the
    defaults of the official scripts: 36 channels are Cityscapes' labels and a boundary map, 3 are a
    picture. UserError if the number is not known or does not fit G's channels."""
    def count(pattern, state):
        return len({match[0] for name in state if (match := re.match(pattern, name))})

    opt = folder / 'opt.txt'
    options = dict(re.findall(r'^(\w+): (.*?)\s*$', read_text(opt), re.M)) if opt.exists() else {}
    n_enhancers = count(r'model\d+', G)
    stem = G[f'model{n_enhancers}_1.1.weight' if n_enhancers else 'model.1.weight']
    out_channels = next(len(weight) for weight in reversed(G.values()) if weight.ndim == 4)
    layers = [weight for weight in (E or {}).values() if weight.ndim == 4]
    channels = stem.shape[1] - (len(layers[-1]) if E else 0)
    if D:                       # it gets all that G gets, except for features
        extra = channels - (D['scale0_layer0.0.weight'].shape[1] - out_channels)
    else:                       # 35 labels, boundary map and 3 features
        extra = 3 if channels == len(CITYSCAPES) + 1 + 3 else 0
    if extra < 0:
        raise UserError(f'{folder}: G, D and E are not of one run, as their channels tell; copy '
                        'the latest_net_*.pth of one run there')
    if extra:                   # the encoder is in the folder of another stage
        raise UserError(f'{folder}: G takes {stem.shape[1]} channels, {extra} of them features; '
                        'copy the latest_net_E.pth that it was trained with there')
    if n_labels is None:
        label_nc = options.get('label_nc', '')
        n_labels = (int(label_nc) if label_nc.isdecimal() and len(label_nc) < 10 else
                    {len(CITYSCAPES) + 1: len(CITYSCAPES), 3: 0}.get(channels))
    boundary = {channels: False, channels - 1: True, **({0: False} if channels == 3 else {})}
    if n_labels not in boundary:
        raise UserError(
            f'{folder}: G takes {channels} channels besides features, and '
            + ('nothing says what they are' if n_labels is None else f'not {n_labels} labels')
            + f': {channels} labels (--n-labels {channels}), or {channels - 1} and a boundary map '
            f'(--n-labels {channels - 1})' + ', or a picture (--n-labels 0)' * (channels == 3))
    layout = {0: 'A to B', len(CITYSCAPES): 'Cityscapes'}.get(n_labels, 'flat')
    config = {'model': 'local' if n_enhancers else 'global', 'n_enhancers': n_enhancers,
              'ngf': len(stem), 'n_down': (count(r'model\.\d+\.weight', G) - 1) // 2,
              'n_blocks': count(r'model\.\d+\.conv_block', G),
              'n_blocks_local': count(r'model1_2\.\d+\.conv_block', G),
              'out_channels': out_channels,
              'encoder_scale': int(options.get('encoder_scale', 1 << n_enhancers)),
              'features_of': 'label' if options.get('label_feat') == 'True' else 'instance',
              'features': E is not None, 'n_labels': n_labels, 'layout': layout,
              'instances': 'files' if boundary[n_labels] else 'none',
              'void': list(LAYOUTS[layout].void), 'label_names': LAYOUTS[layout].names(folder)}
    if E:
        config |= {'feat': len(layers[-1]), 'nef': len(layers[0]),
                   'n_down_encoder': (len(layers) - 1) // 2}
    if D:
        n_scales = count(r'scale\d+', D)
        config |= {'ndf': len(D['scale0_layer0.0.weight']), 'n_scales': n_scales,
                   'n_layers': count(r'scale\d+_layer\d+', D) // n_scales - 2}
    return config


class Dtype:
    """Replaces numpy.dtype while a pickle is read: the code of a type of numbers, or of objects."""

    def __init__(self, code, *flags):
        self.code, self.order = code, '='

    def __setstate__(self, state):
        self.order = state[1]

    def to_array(self, raw):
        if not re.fullmatch('[fiu][1248]', self.code):
            raise pickle.UnpicklingError(f'an array of {self.code}')
        raw = raw.encode('latin1') if isinstance(raw, str) else raw
        return np.frombuffer(raw, self.order + self.code)


class Array:
    """Replaces numpy.ndarray while a pickle is read: `values` is an array, or a list of objects."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        self.values = raw if isinstance(raw, list) else dtype.to_array(raw).reshape(
            shape, order='F' if fortran else 'C')


class ArraysOnly(pickle.Unpickler):
    """Reads the dicts, numbers and arrays of a pickle, and refuses to import anything else. It
    calls nothing of numpy: numpy.ndarray would make an object of any address."""
    ALLOWED = {('numpy', 'ndarray'): None, ('numpy', 'dtype'): Dtype,
               ('multiarray', '_reconstruct'): lambda *empty: Array(),
               ('multiarray', 'scalar'): lambda dtype, raw: dtype.to_array(raw)[0].item()}

    def find_class(self, module, name):
        key = re.sub(r'^numpy\._?core\.', '', module), name
        if key not in self.ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return self.ALLOWED[key]


def read_styles(path, config):
    """Read features_clustered_010.npy, a pickled {label: (k, feat) centres}: a dict as of
    styles.cluster. Every centre has the count 1, because the file has no counts. Raises UserError
    if the file holds anything else."""
    require_regular_file(path)
    with as_user_error(path, 'not clustered features of the official code'):
        with open(path, 'rb') as file:
            version, _ = np.lib.format.read_magic(file)
            getattr(np.lib.format, f'read_array_header_{version}_0')(file)
            pickled, = ArraysOnly(file, encoding='latin1').load().values
        clusters = {label: array.values for label, array in pickled.items()}
        if not set(clusters) <= set(range(config.n_labels)):
            raise ValueError(f'labels {min(clusters)} to {max(clusters)}')
        k = max(map(len, clusters.values()))
        centres = np.zeros((config.n_labels, k, config.feat), np.float32)
        counts = np.zeros((config.n_labels, k), np.int64)
        for label, values in clusters.items():
            centres[label, :len(values)] = values
            counts[label, :len(values)] = 1
        if not np.isfinite(centres).all():
            raise ValueError('centres that are not finite')
    return {'centres': centres, 'counts': counts, 'mean': centres[counts > 0].mean(0),
            'label_names': np.array(config.label_names or [], np.str_)}
