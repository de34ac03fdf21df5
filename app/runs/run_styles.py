"""The styles of a run: clusters of its training set's features, kept as styles.npz; and the styles
of one scene, as the editor saves them."""
from functools import partial
import json
from pathlib import Path
from types import SimpleNamespace
import zipfile
import zlib

import numpy as np
import torch

from app.common import config as configuration
from app.common.console import Progress, log_info, quote, warn, warn_on_error
from app.common.errors import UserError, as_user_error, did_you_mean
from app.common.files import read_json, require_regular_file, write_atomically
from app.datasets import inspection
from app.datasets.pairs import PairReader, open_dataset
from app.runs import configurations, distributed, official
import data
import nets
import styles


def cluster_dataset(run, dataset, k=configuration.STYLES, min_pixels=1, seed=0, indices=None,
                    shared=False):
    """Encode and cluster the instances of a data.PairedDataset: styles.cluster's dict, with
    label_names, step (of the run), min_pixels and seed, all ndarrays. indices: of the pictures, or
    None for all. shared: all processes of torchrun call this, and each encodes a part."""
    indices = indices or range(len(dataset))
    indices = distributed.shard(indices) if shared else indices
    part = styles.encode_all(run, dataset, min_pixels, indices,
                             Progress('encoding pictures', len(indices)))
    parts = distributed.all_gather(part) if shared else [part]
    vectors, labels = (torch.cat(tensors) for tensors in zip(*parts))
    if not len(vectors):
        raise UserError(f'--min-pixels {min_pixels}: no instance is that large; take a smaller one')
    clusters = styles.cluster(vectors, labels, run.config.n_labels, k, seed, run.device)
    return {**clusters, 'step': np.array(run.step), 'min_pixels': np.array(min_pixels),
            'seed': np.array(seed), 'label_names': np.array(run.config.label_names or [], np.str_)}


def cluster_run(run, folder, root, k, min_pixels, seed, shared=False):
    """Cluster the styles of a run, see cluster_dataset. root: the data set, if it has moved."""
    c = run.config
    t = c.training or configuration.with_defaults({}, {'data': None}).training
    root = root or t.data
    if not root or not Path(root).exists():
        variant = (' --checkpoint best' * ('-best' in run.log.variant)
                   + ' --no-average' * ('-raw' in run.log.variant))
        raise UserError(f'{folder}: its training data is not at {root or "a known place"}; run '
                        f'python p2phd.py cluster --run {quote(folder)} --data DIR{variant}')
    layout, pairs, sizes = inspection.pairs_for_config(c, root, t.left_out, t.split)
    if not c.size:
        configurations.require_large_pictures(c, root, sizes)
    dataset = open_dataset(inspection.train_and_heldout(c, pairs)[0],
                           PairReader(SimpleNamespace(**{**vars(c), 'layout': layout}), c.size),
                           multiple=nets.input_multiple(c), workers=t.workers)
    clusters = cluster_dataset(run, dataset, k, min_pixels, seed, shared=shared)
    counts = clusters['counts']
    log_info(f'{folder}: {(counts > 0).sum()} styles of {counts.any(1).sum()} labels from '
             f'{counts.sum()} instances')
    return clusters


def default_seed(run):
    return run.config.training.seed if run.config.training else 0


@distributed.main_process_first()
def load_or_cluster_styles(run, folder, root=None, after_save=lambda folder, config: None):
    """Load the styles of the run in `folder`; None without an encoder. Where there are none, or
    those of another step, cluster and save them; but those of a later step stay in their file.
    root: the data set, if it has moved."""
    if not run.E:
        return None
    t = run.config.training
    k, min_pixels, seed = configuration.STYLES, 1, default_seed(run)
    data_is_there, are_newer = t and Path(t.data).exists(), False
    if clusters := load_styles(folder, run.config, run.log.variant):
        if clusters.get('step', run.step) == run.step:
            return clusters
        warn(f'note: {folder}: its styles are of step {clusters["step"]}, and the run is at '
             f'step {run.step}: ' + ('clustering again' if data_is_there else 'run cluster again'))
        if not data_is_there:
            return clusters
        k, min_pixels = clusters['counts'].shape[1], int(clusters['min_pixels'])
        are_newer = clusters['step'] > run.step
        seed = int(clusters.get('seed', seed))
    if data_is_there:
        log_info(f'{folder}: clustering {t.data}')
    clusters = cluster_run(run, folder, t.data if data_is_there else root, k, min_pixels, seed)
    if not are_newer:
        warn_on_error(lambda: save_styles(clusters, folder, run), 'the styles are not kept')
        after_save(folder, run.config)
    return clusters


def save_styles(clusters, folder, run):
    """Write styles.npz, or styles-<variant>.npz, into a run's folder. Return the path."""
    path = folder / f'styles{run.log.variant}.npz'
    write_atomically(path, partial(np.savez, **clusters))
    return path


def load_styles(folder, config, variant=''):
    """Load the styles in a run's folder, see cluster_dataset; those of the official code have no
    step. None where there are none. Raises UserError where the file does not fit the run."""
    path, clusters = folder / f'styles{variant}.npz', {}
    if not path.exists():
        clustered = sorted(folder.glob('features_clustered_*.npy'))
        return official.read_styles(clustered[-1], config) if clustered else None
    require_regular_file(path)
    with as_user_error(path, 'not a whole file of styles; delete it and run cluster again'):
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > 1 << 28:
                raise ValueError('too large')
        with np.load(path, allow_pickle=False) as file:
            k = file['counts'].shape[-1]
            for name, kind, shape in (
                    ('centres', 'f', (config.n_labels, k, config.feat)),
                    ('counts', 'i', (config.n_labels, k)), ('mean', 'f', (config.feat,)),
                    ('label_names', 'U', (len(config.label_names or []),)),
                    ('step', 'i', ()), ('min_pixels', 'i', ()), ('seed', 'i', ())):
                if name == 'seed' and name not in file:     # of an earlier version
                    continue
                value = file[name]
                if value.shape != shape or not k or value.size and value.dtype.kind != kind or (
                        kind == 'f' and not np.isfinite(value).all()
                        or kind == 'i' and (value < 0).any()):
                    raise ValueError(f'{name}: {value.dtype} of shape {value.shape}')
                clusters[name] = value.astype(np.float32) if kind == 'f' else value
    return clusters


def picture_seed(seed, name, i):
    """Return the seed of picture i of the scene of that name."""
    return data.derive_seed(seed, zlib.crc32(name.encode(errors='surrogateescape')), i)


def parse_style_flags(choices, clusters):
    """Parse the values of --style, as ['car=3', '11=0']: {label: index of its style}. Raises
    UserError where there is no such label or style."""
    chosen = {}
    for choice in choices or ():
        names, n_styles = clusters['label_names'].tolist(), (clusters['counts'] > 0).sum(1)
        name, equals, k = choice.rpartition('=')
        label = configuration.parse_label(name, names)
        if not equals:
            problem = 'expected LABEL=K, a label and the number of one of its styles'
        elif not 0 <= label < len(n_styles):
            styled = ', '.join(names[i] if names else str(i) for i, n in enumerate(n_styles) if n)
            problem = f'no label {name!r}; there are styles of {styled}{did_you_mean(name, names)}'
        elif not n_styles[label]:
            problem = f'{name} has no styles, because it is not in the training data'
        elif not k.isdecimal() or len(k) > 9 or int(k) >= n_styles[label]:
            problem = f'{name} has the styles 0 to {n_styles[label] - 1}'
        else:
            chosen[label] = int(k)
            continue
        raise UserError(f'--style {choice}: {problem}')
    return chosen


def encoder_checksum(run):
    """Return a checksum of the encoder's first weights, None without an encoder."""
    return zlib.crc32(next(run.E.parameters()).detach().cpu().numpy().tobytes()) if run.E else None


def format_scene_styles(run, region_styles, noise):
    """Return the styles of a scene as JSON. noise: noise_seed of generate.synthesise.
    region_styles: {id of a region: (index among its label's styles or None, features)}."""
    return json.dumps({
        'format': 1, 'styles_of': run.config.features_of, 'noise': noise,
        'encoder': encoder_checksum(run), 'styles': {
            str(i): {'style': k, 'features': list(features)}
            for i, (k, features) in region_styles.items()}}, indent=1)


def read_scene_styles(path, run, scene):
    """Read the styles of a scene that format_scene_styles made: (K, feat), or None without an
    encoder, and noise. Raises UserError where they are of another scene or kind of run."""
    stored = read_json(path)
    with as_user_error(path, 'not the styles of a scene; give a NAME_styles.json of edit'):
        vectors = {int(i): torch.tensor(style['features'], dtype=torch.float32)
                   for i, style in stored['styles'].items()}
        features_of, noise = stored['styles_of'], stored['noise']
        if not (stored['format'] == 1 and type(noise) is int and 0 <= noise < 1 << 63
                and all(vector.shape == (run.config.feat,) and vector.isfinite().all()
                        for vector in vectors.values())):
            raise ValueError('odd values')
    ids = scene.ids.tolist() if run.E else []
    if vectors.keys() != set(ids) or ids and features_of != run.config.features_of:
        raise UserError(f'{path}: the styles of another scene or run; take the maps that were '
                        'saved with it, and its run')
    if stored.get('encoder') not in (None, encoder_checksum(run)):
        warn(f'warning: {path}: styles of another encoder than that of this run, so they may look '
             'different; take the run that they were saved with')
    return torch.stack([vectors[i] for i in ids]) if run.E else None, noise
