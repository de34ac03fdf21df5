"""What `info` says of a run."""
from pathlib import Path

from app.common import config as configuration
from app.common.console import plural
from app.common.errors import UserError
from app.runs import checkpoints, run_styles, runs
from app.runs.folders import list_checkpoints
from app.runs.report import (
    finite_or_none, format_number, read_csv_columns, read_evaluation, score_table)


def run_facts(path, n_labels=None):
    """Return all facts about a run as a dict for JSON. UserError if there is no whole checkpoint.
    path: of a run, also of the official code, or of a checkpoint. n_labels: see infer_config."""
    path = Path(path)
    newest, checkpoint = runs.read_run(path, which='file' if path.is_file() else 'newest',
                                       n_labels=n_labels)
    c, t = checkpoint['config'], checkpoint['config'].training
    clusters = run_styles.load_styles(path, c)
    counts = clusters and clusters['counts']
    return {
        'run': str(path), 'checkpoint': str(newest), 'official': t is None,
        'step': checkpoint['step'], 'of_steps': t and t.total_steps, 'data': t and t.data,
        'layout': c.layout, 'labels': c.n_labels, 'instances': c.instances,
        'size': c.size and list(c.size),
        'model': {'global': 'G1', 'local': f'G1 and {plural(c.n_enhancers, "enhancer")}',
                  'unet': 'U-Net'}[c.model],
        'parameters': {name: sum(x.numel() for x in checkpoint['weights'][name].values())
                       for name in 'GDE' if name in checkpoint['weights']},
        'precision': t and t.precision, 'average': t and t.ema, 'batch': t and t.batch,
        'given': {name: value for name, value in t.flags.items() if name != 'data'} if t else {},
        'styles': clusters and {
            'labels': int((counts > 0).any(1).sum()), 'styles': int((counts > 0).sum()),
            'instances': int(counts.sum()) if t else None},     # the official code has no counts
        'scores': {name: finite_or_none(values[-1])
                   for name, values in read_csv_columns(path / 'scores.csv').items()},
        'evaluation': read_evaluation(path),
        'checkpoints': {file.name: 'whole' if file == newest else checkpoint_state(file)
                        for file in ([path] if path.is_file() else list_checkpoints(path))}}


def checkpoint_state(path):
    """Return 'whole', or what is wrong with a checkpoint."""
    try:
        checkpoints.check_seal(path)
    except (OSError, UserError) as error:
        return str(error).removeprefix(f'{path}: ')
    return 'whole'


def describe_facts(facts):
    """Yield the lines of what run_facts returned."""
    instances = {'files': 'instance maps', 'components': 'connected components as instances',
                 'none': 'no instances'}[facts['instances']]
    yield f'{facts["run"]}: ' + ('a run of the official code' if facts['official'] else
                                 f'step {facts["step"]} of {facts["of_steps"]}')
    yield '  pictures    ' + ', '.join([
        facts['layout'], configuration.format_value(facts['size'] or 'native size'),
        f'{facts["labels"]} labels', instances, *([facts['data']] if facts['data'] else [])])
    yield f'  networks    {facts["model"]}; ' + ', '.join(
        f'{name} {n / 1e6:.1f}M' for name, n in facts['parameters'].items())
    if not facts['official']:
        known = {**configuration.NETWORK, **configuration.TRAINING}
        flags = ' '.join(configuration.as_flag(name, value)
                         for name, value in facts['given'].items() if name in known)
        yield (f'  trained in  {facts["precision"]}, batches of {facts["batch"]}, moving average '
               f'{facts["average"]:g}; {flags or "with the defaults"}')
    if styles := facts['styles']:
        yield f'  styles      {styles["styles"]} of {styles["labels"]} labels' + (
            f', from {styles["instances"]} instances' if styles['instances'] else '')
    if facts['scores']:
        yield '  scores      ' + ', '.join(
            f'{name.replace("_", " ")} {format_number(value)}'
            for name, value in facts['scores'].items() if value is not None)
    if facts['evaluation']:
        yield f'  evaluation  {facts["evaluation"]["protocol"]}'
        titles, *rows = score_table(facts['evaluation']['rows'])
        for name, *cells in rows:
            yield f'    {name}: ' + ', '.join(
                f'{title} {cell}' for title, cell in zip(titles[1:], cells) if cell != '-')
    for name, state in facts['checkpoints'].items():
        yield f'  checkpoint  {name}: {state}'
