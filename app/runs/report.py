"""What is told of a run: `info`, and its page index.html, made from the files in its folder. And
galleries of pictures. Pages need no server and no network."""
import base64
from contextlib import suppress
from html import escape
import io
import os
from pathlib import Path
import re
from urllib.parse import quote

import numpy as np
from PIL import Image

from app.common import config as configuration
from app.common.console import plural, warn_on_error
from app.common.errors import UserError, as_user_error
from app.common.files import read_json, read_text, write_text
from app.datasets.inspection import INSTANCES
from app.runs import checkpoints, run_styles, runs
from app.runs.folders import list_checkpoints

TEMPLATE = Path(__file__).with_suffix('.html')
POINTS = 300                            # in a curve, at most; more are averaged
PEAK_GROWTH = 1.5                       # warn of a last feature map that exceeds its early peak
COLUMNS = {'lr': 'learning rate', 'map_min': 'last feature map, minimum',
           'map_max': 'last feature map, maximum', 'memory': 'memory, GiB'}

# Scores as scores.json names them: title, factor, format.
MEASURES = {'pixel_accuracy': ('pixel accuracy %', 100, '.1f'),
            'class_accuracy': ('class accuracy %', 100, '.1f'),
            'mean_iou': ('mean IoU %', 100, '.1f'),
            'pixel_accuracy_with_void': ('with void', 100, '.1f'),
            'l1': ('L1', 1, '.1f'), 'psnr': ('PSNR', 1, '.2f'), 'ssim': ('SSIM', 1, '.3f'),
            'frechet': ('Fréchet', 1, '.1f'), 'diversity': ('diversity', 1, '.1f'),
            'vgg_diversity': ('in VGG-19', 1, '.3f')}


def read_csv_columns(path):
    """Return the columns of a .csv of numbers, {name: ndarray}; {} without the file. Incomplete
    rows are skipped; of several rows of a step the last one counts."""
    names, *lines = read_text(path).split('\n') if path.is_file() else ['']
    names, rows = names.strip().split(','), {}
    for line in lines:
        with suppress(ValueError):                          # of a trainer that was killed
            row = [float(value) for value in line.split(',')]
            if names[0] == 'step' and len(row) == len(names):
                rows[int(row[0])] = row
    return dict(zip(names, np.array([rows[step] for step in sorted(rows)]).T)) if rows else {}


def read_evaluation(folder):
    """Return what `evaluate` wrote into a run's folder, {'protocol': text, 'rows': [{'name'}]};
    None if it is missing or cannot be shown."""
    with suppress(Exception):                               # anybody may have written anything
        evaluation = read_json(folder / 'evaluation' / 'scores.json')
        evaluation_section(evaluation)
        return evaluation


def score_table(rows):
    """Return the rows of scores.json as lists of texts, titles first; 95 % bounds in brackets."""
    names = [name for name in MEASURES if any(name in row for row in rows)]

    def cell(row, name):
        _, factor, form = MEASURES[name]
        if row.get(name) is None:
            return '-'
        low, high = row.get('bounds', {}).get(name, (None, None))
        return f'{factor * row[name]:{form}}' + (
            f' ({factor * low:{form}} to {factor * high:{form}})' if low is not None else '')
    return [['', *(MEASURES[name][0] for name in names)],
            *([row['name'], *(cell(row, name) for name in names)] for row in rows)]


def finite_or_none(value):
    """Return a number as JSON knows it: None for inf and nan."""
    return float(value) if np.isfinite(value) else None


def format_number(value):
    return f'{value:.3g}' if abs(value) < 1e5 else f'{value:.2e}'


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
        'run': str(path), 'checkpoint': str(newest), 'official': newest.is_dir(),
        'step': checkpoint['step'], 'of_steps': t and t.total_steps, 'data': t and t.data,
        'layout': c.layout, 'labels': c.n_labels, 'label_names': c.label_names,
        'void': list(c.void), 'instances': c.instances,
        'size': c.size and list(c.size),
        'model': {'global': 'G1', 'local': f'G1 and {plural(c.n_enhancers, "enhancer")}',
                  'unet': 'U-Net'}[c.model],
        'parameters': {name: sum(x.numel() for x in checkpoint['weights'][name].values())
                       for name in 'GDE' if name in checkpoint['weights']},
        'precision': t and t.precision, 'average': t and t.ema, 'batch': t and t.batch,
        'given': {name: value for name, value in t.flags.items() if name != 'data'} if t else {},
        'styles': clusters and {
            'labels': int((counts > 0).any(1).sum()), 'styles': int((counts > 0).sum()),
            'instances': None if newest.is_dir() else int(counts.sum())},     # official: no counts
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
    yield f'{facts["run"]}: ' + (
        'a run of the official code' if facts['official'] else
        f'step {facts["step"]} of {facts["of_steps"]}' if facts['of_steps'] else
        f'step {facts["step"]}; only makes pictures, cannot be trained')
    yield '  pictures    ' + ', '.join(filter(None, [
        facts['layout'], configuration.format_value(facts['size'] or 'native size'),
        f'{facts["labels"]} labels', INSTANCES[facts['instances']], facts['data']]))
    if names := facts['label_names']:
        void = ', '.join(names[label] for label in facts['void'])
        yield f'  labels      {", ".join(names)}' + f'; not scored: {void}' * bool(void)
    yield f'  networks    {facts["model"]}; ' + ', '.join(
        f'{name} {n / 1e6:.1f}M' for name, n in facts['parameters'].items())
    if facts['of_steps']:
        known = {*configuration.NETWORK, *configuration.TRAINING, 'base', 'match_labels'}
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


def plot(name, step, values, marks):
    """Return the plot of a column as HTML, '' if there is nothing to draw. At marks, a list of
    (step, what begins there), lines are dashed."""
    finite, title, note = np.isfinite(values), COLUMNS.get(name, name.replace('_', ' ')), ''
    step, values = step[finite], values[finite]
    if len(step) < 2:
        return ''
    early = values[:len(values) // 2]
    if name == 'map_max' and len(early) > 1 and values[-1] > PEAK_GROWTH * early.max():
        note = ' <em>its peak grows: bright blobs may follow</em>'
    n, first, last = min(len(step), POINTS), step[0], step[-1]
    means = [part.mean() for part in np.array_split(values, n)]
    ends = [part[-1] for part in np.array_split(step, n)]
    low, high = min(means), max(means)
    scale = 100 / ((high - low) or 1)
    points = ' '.join(f'{at - first:.0f},{scale * (high - y):.1f}' for at, y in zip(ends, means))
    lines = ''.join(f'<line x1="{at - first}" x2="{at - first}" y1="0" y2="100"><title>{what}, '
                    f'step {at}</title></line>' for at, what in marks if first <= at <= last)
    axis = ''.join(f'<span>{at:.0f}</span>' for at in (first, (first + last) / 2, last))
    # The script of the page reads the values under the pointer off the points.
    return (f'<figure data-first="{first:.0f}" data-high="{high:.9g}" data-scale="{scale:.9g}">'
            f'<figcaption><b>{escape(title)}</b> {format_number(values[-1])}{note}</figcaption>'
            f'<small class="axis">{format_number(high)}<output></output></small>'
            f'<svg preserveAspectRatio="none" viewBox="0 0 {last - first:.0f} 100" role="img" '
            f'tabindex="0" aria-label="{escape(title)}: {format_number(values[-1])} at step '
            f'{last:.0f}, between {format_number(low)} and {format_number(high)}">'
            f'<polyline points="{points}"/>{lines}</svg><small>{format_number(low)}</small>'
            f'<small class="axis">{axis}</small></figure>')


def html_table(rows):
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def text_table(rows):
    """Return lists of texts as a table, the first as its titles."""
    return html_table('<tr>' + ''.join(f'<{cell}>{escape(text)}</{cell}>' for text in row) + '</tr>'
                      for cell, row in zip(['th', *['td'] * len(rows)], rows))


def styles_section(folder, config):
    """Return the table of the newest styles in a run's folder that can be read, '' without any."""
    names, clusters = config.label_names or range(config.n_labels), None
    for path in sorted(folder.glob('styles*.npz'), key=lambda path: path.stat().st_mtime):
        with suppress(UserError):
            clusters = run_styles.load_styles(folder, config, path.stem.removeprefix('styles'))
    rows = []
    for label in clusters['counts'].any(1).nonzero()[0] if clusters else ():
        centres, counts = clusters['centres'][label], clusters['counts'][label]
        low, high = centres[counts > 0].min(0), centres[counts > 0].max(0)
        rgb = (centres - low) / np.where(high > low, high - low, 1) * 190 + 40
        rgb = rgb[:, np.arange(3) % rgb.shape[1]]           # there may be fewer features
        cells = ''.join(
            f'<i style="flex-grow:{count};background:rgb({r:.0f},{g:.0f},{b:.0f})" '
            f'title="style {k}: {count} instances"><b>{k}</b></i>'
            for k, ((r, g, b), count) in enumerate(zip(rgb, counts.tolist())) if count)
        rows.append(f'<tr><th>{escape(str(names[label]))}</th><td class="styles">{cells}</td>'
                    f'<td>{counts.sum()}</td></tr>')
    return ('<h2>Styles</h2><p>The styles of each label. The width of a style is its frequency; '
            f'its colour stands for its features.</p>{html_table(rows)}' if rows else '')


def evaluation_section(evaluation):
    """Return the tables of what read_evaluation returned."""
    rows = evaluation['rows']
    labels = dict.fromkeys(label for row in rows for label in row.get('iou', ()))
    per_label = text_table([['', *(row['name'] for row in rows)], *(
        [label, *(f'{100 * row["iou"][label]:.1f}' if label in row.get('iou', ()) else '-'
                  for row in rows)] for label in labels)])
    columns = ', '.join(['label map', *(row['name'] for row in rows)])
    return (f'<h2>Evaluation</h2><p>{escape(evaluation["protocol"])}; <a href="evaluation/sheet.png'
            f'">sheet</a> with the columns {escape(columns)}</p>{text_table(score_table(rows))}'
            + (f'<details><summary>IoU of each label, %</summary>{per_label}</details>' if labels
               else ''))


def run_page(folder, config):
    """Return the body of a run's page."""
    log, _, scores = tables = [read_csv_columns(folder / f'{name}.csv')
                               for name in ('log', 'speed', 'scores')]
    done, t = int(log['step'][-1]) if log else 0, config.training
    summary = [config.layout, configuration.format_value(config.size or 'native size'),
               *([f'{config.n_labels} labels'] if config.n_labels else []),
               f'step {done} of {t.total_steps}',
               *([f'began with the weights of {t.flags["base"]}'] if 'base' in t.flags else [])]
    parts = [f'<p>{escape(", ".join(summary))}</p>']
    if sheets := [path.name for path in sorted((folder / 'samples').glob('*.png'))
                  if path.stem.isdecimal()]:
        styled = ['picture in the styles of the photograph', 'picture in the most frequent styles']
        columns = ['label map', *(styled if config.features else ['picture']), 'photograph']
        heads = '<div class="heads"><span>' + '</span><span>'.join(columns) + '</span></div>'
        if t.crop or not config.size:           # rows of several sizes have no common columns
            heads = f'<p>From left to right: {", ".join(columns)}.</p>'
        parts.append('<h2>Sheets</h2><p>At most two training pictures and two others, one in each '
                     f'row.</p><div id="sheets" data-names="{" ".join(sheets)}">{heads}</div>')
    marks = [(step, what) for step, what in (
        (t.fix_global_steps, 'all of the generator is trained'),
        (t.decay_start, 'the learning rate decays')) if log and log['step'][0] <= step <= done]
    dashed = ''.join(f'; dashed at step {at}: {what}' for at, what in marks)
    if plots := ''.join(plot(name, table['step'], values, marks) for table in tables
                        for name, values in table.items() if name not in ('step', 'pictures')):
        parts.append(f'<h2>Curves</h2><p>Steps up to {done}{dashed}.</p>'
                     f'<div class="plots">{plots}</div>')
    if scores:
        parts.append('<h2>Scores while training</h2>' + text_table(
            [[name.replace('_', ' ') for name in scores],
             *([f'{value:.6g}' for value in row] for row in list(zip(*scores.values()))[-20:])]))
    if evaluation := read_evaluation(folder):
        parts.append(evaluation_section(evaluation))
    parts += styles_section(folder, config), '<h2>Settings</h2><p>Those given are bold.</p>'
    values, rows = {**vars(config), **vars(t)}, []
    for name, field in {**configuration.NETWORK, **configuration.TRAINING}.items():
        if field.help:
            value = values[name]
            text = (('no', 'yes')[value] if isinstance(value, bool) else
                    'none' if value is None else configuration.format_value(value))
            rows.append(f'<tr{" class=given" if name in t.flags else ""}>'
                        f'<th>{name.replace("_", " ")}</th><td>{escape(text)}</td>'
                        f'<td class="help">{escape(field.help)}</td></tr>')
    return ''.join([*parts, html_table(rows)])


def write_page(folder, body):
    """Write folder/index.html with this body and return its path. Names of files that are not text
    are escaped."""
    filled = {'TITLE': escape(folder.resolve().name), 'BODY': body}
    page = re.sub('TITLE|BODY', lambda match: filled[match[0]], TEMPLATE.read_text())
    write_text(folder / 'index.html', page.encode(errors='replace').decode())
    return folder / 'index.html'


def try_write_run_page(folder, config):
    """Write the page of the run in `folder`, or warn. Runs of the official code have none."""
    def write():
        with as_user_error(folder / 'index.html', 'cannot be made'):
            write_page(folder, run_page(folder, config))
    if config.training:
        warn_on_error(write, 'all else goes on')


def thumbnail(rgb, width=240):
    """Return a small PNG of (H, W, 3) uint8 pixels as the text of an address (data:)."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((width, width), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.quantize(64).save(file, 'PNG')
    return 'data:image/png;base64,' + base64.b64encode(file.getvalue()).decode()


def write_gallery(folder, rows):
    """Write folder/index.html with rows [(name of a label map, address of its picture, [names of
    picture files in the folder])]. Return its path. UserError if a run is in the folder."""
    if list_checkpoints(folder):
        raise UserError(f'{folder}: is the folder of a run, whose page stays; take another --out')
    parts = []
    for name, label, files in rows:
        pictures = ''.join(
            f'<a href="{address}"><img loading="lazy" src="{address}" alt="" '
            f'title="{escape(file)}"></a>' for file in files
            for address in [quote(os.fsencode(file))])
        parts.append(f'<section><h3>{escape(name)}</h3><div class="row"><img src="{label}" '
                     f'alt="label map">{pictures}</div></section>')
    return write_page(folder, f'<div class="rows">{"".join(parts)}</div>')
