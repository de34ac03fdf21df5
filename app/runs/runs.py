"""A run in memory and on the disk: networks that are made, filled and saved."""
from dataclasses import dataclass, field
from pathlib import Path
import reprlib

import torch

from app.common import config as configuration
from app.common.console import log_info, warn
from app.common.errors import UserError, as_user_error, one_line
from app.common.files import require_regular_file
from app.datasets import layouts
from app.runs import checkpoints, official
import nets
import train


@dataclass
class Log:
    """What is kept of a run beside its networks: train.Run.log."""
    sums: dict = field(default_factory=dict)        # see hooks.accumulate_terms
    rows: str = ''                          # the text of log.csv
    scores: str = ''                        # the text of scores.csv
    best: float | None = None               # the best score in it
    d_saturated_since: int | None = None    # step since which D has been right about everything
    variant: str = ''                       # '-best', '-raw': not the newest, not the averages


# ------------------------------------------------------------------------------------- networks

def build_run(config, device, training=True, weights=None, average=None):
    """Make the networks and optimizers of a run, see train.make_run, and load their weights.

    weights: {'G', 'E', 'D': state dict}, which must fit by names and shapes. Networks that are not
        among them get new weights. No memory is taken before their sizes are checked.
    average: {'G', 'E': state dict} of the moving averages.
    """
    def make(name, constructor):
        if name not in (weights or {}):
            return constructor()
        with torch.device('meta'):
            net = constructor()
        # Weights that only generate are not copied: they stay mapped from the file.
        state = (checkpoints.copy_tree(weights[name], device) if training else
                 {key: value.to(device) for key, value in weights[name].items()})
        net.load_state_dict(state, strict=True, assign=True)
        return net.to(torch.float32)

    run = train.make_run(config, device, training, make)
    run.log = Log()
    for name, state in (average or {}).items() if run.average else ():
        run.average[name].load_state_dict(state)
    return run


def log_unfreezing(run, base):
    """Say from which step on everything is trained. base: the folder of the run inside."""
    t = run.config.training
    if t.fix_global_steps < t.total_steps:
        log_info(f'{base}: enhancer {run.config.n_enhancers} around it; the rest is trained too '
                 f'from step {t.fix_global_steps} on')
    else:
        warn(f'warning: --fix-global {t.fix_global} is {t.fix_global_steps} steps, all of this '
             'run: only the new enhancer will be trained')


def init_from_base(run, path, weights):
    """Fill a new local enhancer's inner network, D and E with the weights of the run around which
    it was put.

    weights: {'G', 'D', 'E': state dict}, read from `path`.
    Raises UserError where they do not fit.
    """
    with as_user_error(path, 'not a checkpoint of this program'):
        run.G.load_inner(weights['G'])
        for name in 'DE':
            if name in weights:                     # the official code may leave D out
                getattr(run, name).load_state_dict(weights[name])
        if run.average:
            train.init_averages(run)


def load_vgg(source):
    """Load nets.VGG19 from the file `source`; 'fetch' downloads it from torchvision's site and
    checks its hash. Raises UserError where that is not possible."""
    try:
        if source != 'fetch':
            require_regular_file(source)
        state = (torch.hub.load_state_dict_from_url(
                     nets.VGG19.URL, map_location='cpu', check_hash=True, weights_only=True)
                 if source == 'fetch' else
                 torch.load(source, map_location='cpu', weights_only=True))
        return nets.VGG19(state)
    except Exception as error:
        named = '--vgg' if source == 'fetch' else f'--vgg {source}'
        raise UserError(f'{named}: {one_line(error)}; give the path of '
                        f'{nets.VGG19.URL.split("/")[-1]} as torchvision publishes it, also to '
                        'go on with a run where it is elsewhere now') from None


def has_boundary(config):
    """Return whether G and D get an instance boundary map."""
    return config.boundary and config.instances != 'none'


# ----------------------------------------------------------------------------------- on the disk

def checkpoint_dict(run):
    """Return the contents of a checkpoint, all that is needed to use a run and to resume it. They
    are tensors and builtins only."""
    return {'config': configuration.to_dict(run.config), 'step': run.step,
            'rows': run.log.rows, 'sums': run.log.sums, 'won_since': run.log.d_saturated_since,
            'bad_steps': run.bad_steps, 'scores': run.log.scores, 'best': run.log.best,
            # What generating uses comes first, see seals.py.
            'average': {name: module.state_dict() for name, module in run.average.items()},
            'weights': {name: getattr(run, name).state_dict() for name in 'GED'
                        if getattr(run, name)},
            'optimizers': {name: getattr(run, f'opt_{name}').state_dict()['state']
                           for name in 'GD'}}


def read_run(folder, set_aside=False, which='newest', n_labels=None, generator_only=False):
    """Read and check the checkpoint of a run: (path, dict as of checkpoint_dict), with the
    configuration as a namespace.

    folder: of a run, also of the official code.
    set_aside: rename damaged checkpoints, see checkpoints.newest_checkpoint.
    which: 'newest' or 'best' checkpoint, or 'file' if `folder` is itself a checkpoint.
    n_labels: see official.infer_labels.
    generator_only: read no more than checkpoints.generator_part.
    Raises UserError where there is no whole checkpoint.
    """
    folder, optional = Path(folder), {'D'} if generator_only else set()
    if (folder / 'latest_net_G.pth').is_file():
        path, optional = folder, {'D'}
        weights = official.read_weights(folder)
        with as_user_error(folder, 'not the networks of an official pix2pixHD run'):
            network = official.infer_config(folder, **weights, n_labels=n_labels)
        checkpoint = {'config': {**network, 'training': None}, 'step': 0, 'weights': weights,
                      'average': {}}
    elif n_labels is not None:
        raise UserError(f'--n-labels {n_labels}: {folder} is no run of the official code, and says '
                        'itself how many labels it has; leave it out')
    elif which == 'file':
        try:
            path, checkpoint = folder, checkpoints.read_checkpoint(folder, generator_only)
        except checkpoints.Damaged as error:
            raise UserError(f'{folder}: {error}, or no checkpoint at all') from None
    elif which == 'best':
        path, checkpoint = checkpoints.best_checkpoint(folder, generator_only)
    else:
        path, checkpoint = checkpoints.newest_checkpoint(folder, set_aside, generator_only)
    with as_user_error(path, 'not a checkpoint of this program'):
        checkpoint['config'] = config = configuration.from_dict(checkpoint['config'], path)
        if config.layout not in layouts.LAYOUTS:
            raise ValueError(f'layout {reprlib.repr(config.layout)}')
        if type(checkpoint['step']) is not int or checkpoint['step'] < 0:
            raise ValueError(f'step {reprlib.repr(checkpoint["step"])}')
        networks = {'G', *['E'] * config.features}
        averaged = not generator_only and config.training and config.training.ema > 0
        check_weights(checkpoint['weights'], {'D', *networks}, optional, path)
        check_weights(checkpoint['average'], networks if averaged else set(), set(), path)
    return path, checkpoint


def check_weights(states, networks, optional, path):
    """Raise ValueError unless `states` holds state dicts of the networks, and UserError unless all
    their values are finite."""
    if set(states) | optional != networks | optional or not all(
            isinstance(value, torch.Tensor) and value.is_floating_point()
            for state in states.values() for value in state.values()):
        raise ValueError('weights')
    for name, state in states.items():
        # If the sum is finite, so are all values; it is computed faster.
        if not all(value.sum().isfinite() or value.isfinite().all() for value in state.values()):
            raise UserError(f'{path}: weights of {name} are not finite; if there is an earlier '
                            'checkpoint, remove this one')


def load_run(folder, device, training=True, set_aside=False, which='newest', average=True,
             n_labels=None):
    """Load the run in `folder`: a train.Run. The arguments are those of read_run and
    run_from_checkpoint."""
    path, checkpoint = read_run(folder, set_aside, which, n_labels,
                                generator_only=average and not training)
    return run_from_checkpoint(path, checkpoint, device, training, which, average)


def run_from_checkpoint(path, checkpoint, device, training=True, which='newest', average=True):
    """Make a train.Run of what read_run returned.

    training: restore what training needs, too. Otherwise G and E are the moving averages.
    average: False takes the weights themselves in place of the averages.
    Raises UserError where networks and weights do not fit.
    """
    with as_user_error(path, 'not a checkpoint of this program'):
        weights, averages = checkpoint['weights'], checkpoint['average']
        if not training and average:
            weights = {**weights, **averages}
        run = build_run(checkpoint['config'], device, training, weights, averages)
        run.step = checkpoint['step']
        run.log.variant = ('-best' * (which == 'best')
                           + '-raw' * bool(averages and not average and not training))
        if training and run.config.training:
            restore_training(run, checkpoint)
    return run


def restore_training(run, checkpoint):
    """Restore what only training needs: optimizers, log and counters. Any exception can arise from
    a checkpoint that does not fit."""
    def is_number(value):
        return (isinstance(value, torch.Tensor) and value.dtype == torch.float32
                and value.shape == ())

    for name in 'GD':
        optimizer, moments = getattr(run, f'opt_{name}'), checkpoint['optimizers'][name]
        parameters = optimizer.param_groups[0]['params']
        for i, values in moments.items():
            if {key: value.shape for key, value in values.items()} != {
                    'step': (), 'exp_avg': parameters[i].shape, 'exp_avg_sq': parameters[i].shape}:
                raise ValueError(f'moments of parameter {i} of {name}')
        moments = checkpoints.copy_tree(moments, run.device)
        optimizer.load_state_dict({**optimizer.state_dict(), 'state': moments})

    for name, value in checkpoint['sums'].items():
        if not isinstance(name, str) or not is_number(value):
            raise ValueError('sums')
    if not is_number(checkpoint['bad_steps']):
        raise ValueError('bad_steps')
    run.log.sums = checkpoints.copy_tree(checkpoint['sums'], run.device)
    run.bad_steps = checkpoints.copy_tree(checkpoint['bad_steps'], run.device)
    for name, kind in (('rows', str), ('scores', str), ('best', float), ('won_since', int)):
        value = checkpoint[name]
        if type(value) is not kind and not (value is None and kind is not str):
            raise ValueError(name)
        setattr(run.log, {'won_since': 'd_saturated_since'}.get(name, name), value)
    if not 0 <= run.bad_steps < run.config.training.max_bad_steps:
        raise ValueError('bad_steps')


def require_resumable(folder):
    """Raise UserError unless `folder` holds checkpoints of this program."""
    if not checkpoints.list_checkpoints(folder):
        read_run(folder)                            # raises a UserError that says more
        raise UserError(f'{folder}: a run of the official code cannot be resumed; finetune --from '
                        'starts from it')
