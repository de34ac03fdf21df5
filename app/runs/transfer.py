"""Begin a run with the weights of another one, on another data set: `train --from RUN`."""
from types import SimpleNamespace

import torch

from app.common.config import format_value
from app.common.console import log_info, warn
from app.common.errors import UserError, as_user_error
from app.runs import runs
import nets
import train

MOST_NAMED = 8              # labels that a line of the log names
POWER_ITERATIONS = 15       # PyTorch's spectral norm makes as many for new weights


def read_base(folder, n_labels=None):
    """Read the run that --from names. Returns a namespace of its `folder`; `path`, that of its
    checkpoint; `config`; `training`, {field: value}, empty for a run of the official code; and
    `weights`, {'G', 'D', 'E': state dict}. If the run has moving averages, they are G and E.
    n_labels: see official.infer_config. Raises UserError."""
    try:
        path, checkpoint = runs.read_run(folder, n_labels=n_labels)
    except UserError as error:                  # in train, --n-labels describes the new data set
        raise UserError(str(error).replace('--n-labels', '--from-n-labels')) from None
    config = checkpoint['config']
    # dict, because load_state_dict would remember `assign` in the metadata of a state dict.
    weights = {name: dict(state) for part in ('weights', 'average')
               for name, state in checkpoint[part].items()}
    with as_user_error(path, 'not a checkpoint of this program'), torch.device('meta'):
        for name, constructor in nets.constructors(config).items():
            if name in weights:                 # all of it must fit
                constructor().load_state_dict(weights[name], assign=True)
    return SimpleNamespace(folder=folder, path=path, config=config, weights=weights,
                           training=vars(config.training) if config.training else {})


def match_labels(config, base, by):
    """Return {label: label of the run `base` with the same meaning}. Other labels are new.
    by: 'name' or 'id'. Raises UserError where the labels have no names."""
    c, b = config, base.config
    if not c.n_labels:
        if by:
            raise UserError(f'--match-labels {by}: there are no labels in {c.training.data}; '
                            'leave it out')
        return {}
    keys = ids_of_labels if by == 'id' else names_of_labels
    for source, names in ((base.folder, b.label_names), (c.training.data, c.label_names)):
        if by != 'id' and not names:
            raise UserError(f'{source}: its labels have no names that --from could match; '
                            '--match-labels id matches the ids')
    found = {}                                      # the old labels of a name or an id
    for label, key in enumerate(keys(b)):
        found.setdefault(key, []).append(label)
    found.pop(None, None)
    # Some data sets use a name twice: its first label is matched with the first one, and so on.
    return {label: found[key].pop(0) for label, key in enumerate(keys(c)) if found.get(key)}


def ids_of_labels(config):
    """Return what the pixels of each label are in the label maps of the data set."""
    ids = {label: i for i, label in (config.label_table or {}).items()}
    return [ids.get(label, label) for label in range(config.n_labels)]


def names_of_labels(config):
    """Return the names of all labels in lower case, None for a label that is named by its number,
    because its data set does not name it."""
    return [None if name == str(label) else ' '.join(name.lower().split())
            for label, name in enumerate(config.label_names)]


def input_channels(config, labels, network):
    """Return what the input channels of 'G' or 'D' show, in the order of nets.constructors.
    labels: what the label channels show; pictures in their place are numbered."""
    c = config
    channels = list(labels) if c.n_labels else [f'picture {i}' for i in range(c.in_channels)]
    if nets.has_boundary(c):
        channels.append('boundary map')
    if network == 'D':
        return channels + [f'photograph {i}' for i in range(c.out_channels)]
    return channels + [f'feature {i}' for i in range(c.feat * c.features)]


def weights_loader(config, base, by):
    """Return a function that fills the networks of a new run with the weights of `base`, which it
    releases, and that says what it did. by: see match_labels. Raises UserError."""
    c, b, labels = config, base.config, match_labels(config, base, by)

    def load(run):
        for name, state in base.weights.items():
            if name == 'E' and run.E:                       # it sees the photograph alone
                run.E.load_state_dict(state)
            elif name != 'E':
                load_matched(getattr(run, name), state,
                             input_channels(c, map(labels.get, range(c.n_labels)), name),
                             input_channels(b, range(b.n_labels), name))
        if run.average:
            train.init_averages(run)
        describe(run, base, labels, by or 'name')
        base.weights.clear()
    return load


def load_matched(net, state, channels, old_channels):
    """Load the state dict of a network with other input channels, see input_channels. In the first
    convolutions, a channel that is not among old_channels keeps the weights that it has."""
    if channels == old_channels:
        net.load_state_dict(state)
        return
    matched = [i for i, channel in enumerate(channels) if channel in old_channels]
    sources = [old_channels.index(channels[i]) for i in matched]
    own = net.state_dict()
    layers = {name: module for name, module in net.named_modules()
              if isinstance(module, nets.OneHotConv2d)}
    for key in [key for key in own if key.startswith(tuple(f'{name}.' for name in layers))]:
        if own[key].ndim == 4:                              # (c_out, c_in, height, width)
            weight = own[key].clone()
            weight[:, matched] = state[key][:, sources].to(weight)
            state[key] = weight
        elif own[key].shape != state[key].shape:            # spectral norm's vector over c_in
            state[key] = own[key]
    net.load_state_dict(state)
    for _ in range(POWER_ITERATIONS):                       # of spectral norm, if there is any
        for layer in layers.values():
            layer.weight                                    # noqa: B018


def describe(run, base, labels, by):
    """Print what a new run has of the weights of `base` and what it has not."""
    c, b = run.config, base.config
    networks = [name for name in 'GED' if getattr(run, name)]
    loaded = ', '.join(name for name in networks if name in base.weights)
    new = ', '.join(name for name in networks if name not in base.weights)
    log_info(f'{base.path}: {loaded} begin with its weights' + f', {new} with new ones' * bool(new))
    if c.n_labels:
        names = c.label_names or range(c.n_labels)
        anew = [str(names[label]) for label in range(c.n_labels) if label not in labels]
        more = f' and {len(anew) - MOST_NAMED} more' * (len(anew) > MOST_NAMED)
        log_info(f'  labels    {len(labels)} of {c.n_labels} matched by {by}'
                 + f'; new: {", ".join(anew[:MOST_NAMED])}{more}' * bool(anew))
        if not labels:
            warn(f'warning: no label of {c.training.data} has the {by} of one of {base.folder}')
    for what, ours, theirs in (('boundary map', nets.has_boundary(c), nets.has_boundary(b)),
                               (f'{c.feat} features', c.features, b.features)):
        if ours != theirs:
            log_info(f'  inputs    {what}: {"new" if ours else "left out"}')
    if b.features and not c.features and 'features' not in c.training.flags:
        log_info('  encoder   left out, because there are no instances; --features-of label, or '
                 '--instances components, keeps it')
    if run.E and c.encoder_scale > 1:
        log_info(f'  encoder   not trained, as in {base.folder}')
    if (b.training or b.size) and b.size != c.size:
        log_info(f'  size      {format_value(c.size or "native")}; {base.folder} has '
                 f'{format_value(b.size or "native")}')
