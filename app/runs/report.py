"""A page for each run: index.html in its folder, from what lies there, without outside addresses.

Curves of log.csv, speed.csv and scores.csv, the sheets by step, the settings in words, the styles.
It is made anew while the run is trained, from the files alone, so that any folder can have one.
"""
import base64
from contextlib import suppress
import csv
from html import escape
import io
import json
import math
import os
from pathlib import Path
import re
from urllib.parse import quote

import numpy as np
from PIL import Image

from app.runs import checkpoints
from app.common import config as configuration
from app.common.console import format_duration, plural, warn_on_error
from app.common.errors import UserError, as_user_error
from app.common.files import read_json, read_text, write_text
from app.runs import runs
from app.runs import run_styles

WIDE, HIGH, BESIDE = 360, 130, 46                   # of a plot and its numbers, in its own units
POINTS = 300                                        # of a curve at most; others are averaged
GROWN = 1.5                                         # times its earlier peak: the last map grows

# What is measured, as scores.json calls it: title, factor, format.
MEASURES = {'pixel_accuracy': ('pixel accuracy %', 100, '.1f'),
            'class_accuracy': ('class accuracy %', 100, '.1f'),
            'mean_iou': ('mean IoU %', 100, '.1f'),
            'pixel_accuracy_with_void': ('with void', 100, '.1f'),
            'l1': ('L1', 1, '.1f'), 'psnr': ('PSNR', 1, '.2f'), 'ssim': ('SSIM', 1, '.3f'),
            'diversity': ('diversity', 1, '.1f'), 'vgg_diversity': ('in VGG-19', 1, '.3f')}


# ------------------------------------------------------------------------------------ the files

def read_csv_columns(path):
    """A .csv of numbers -> {name: ndarray}, {} where there is none. Rows that are not whole do not
    count; of rows of the same step the last one does."""
    if not path.is_file():
        return {}
    rows, text = {}, read_text(path)
    for row in csv.DictReader(io.StringIO(text)):
        try:
            rows[int(row['step'])] = [float(value) for value in row.values()]
        except (KeyError, TypeError, ValueError):           # the last line of a run that was killed
            continue
    names = text.split('\n', 1)[0].strip().split(',')
    whole = [rows[step] for step in sorted(rows) if len(rows[step]) == len(names)]
    return dict(zip(names, np.array(whole).T)) if whole else {}


def styles_in(folder, config):
    """[(label's name, centres (k, feat), counts (k,))] of the newest styles that can be read."""
    names = config.label_names or range(config.n_labels)
    for path in sorted(folder.glob('styles*.npz'), key=lambda path: -path.stat().st_mtime):
        with suppress(UserError):
            known = run_styles.load_styles(folder, config, path.stem.removeprefix('styles'))
            return [(str(names[i]), known['centres'][i], known['counts'][i])
                    for i in known['counts'].any(1).nonzero()[0]]
    return []


def evaluation_in(folder):
    """What `evaluate` wrote into a run's folder: {'protocol': text, 'rows': [{'name', ...}]}; None
    where there is nothing, or what somebody else wrote."""
    try:
        found = read_json(folder / 'evaluation' / 'scores.json')
        evaluation_section(found)                                    # whether it can be shown
        return found
    except Exception:                                       # whatever somebody wrote there
        return None


def as_table(rows):
    """Rows of scores.json -> lists of texts, all of one length: the titles of what any of them has,
    then what each has, bounds in brackets."""
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


# ------------------------------------------------------------------------------------- the plots

def plot(title, step, curves, marks=(), note='', noisy=True):
    """A small plot as SVG. curves: [(name, values)]; marks: [(step, what begins there)]. Values are
    averaged where there are too many, and where they are noisy drawn raw and smoothed."""
    finite = [values[np.isfinite(values)] for _, values in curves]
    if len(step) < 2 or not sum(map(len, finite)):
        return ''
    low, high = min(v.min() for v in finite if len(v)), max(v.max() for v in finite if len(v))
    high = high if high > low else low + (abs(low) or 1)
    first, last = step[0], max(step[-1], step[0] + 1)

    def x(value):
        return (value - first) / (last - first) * WIDE

    def y(value):
        return HIGH - (value - low) / (high - low) * HIGH

    drawn = []
    for i, (_, values) in enumerate(curves):
        at, shown = thinned(step, values)
        for kind, line in (('raw', shown), ('smooth', smoothed(shown) if noisy else shown)):
            points = ' '.join(f'{x(a):.1f},{y(b):.1f}' for a, b in zip(at, line)
                              if math.isfinite(b))
            drawn.append(f'<polyline class="{kind} c{i}" points="{points}"/>')
    drawn += [f'<line class="mark" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="0" y2="{HIGH}">'
              f'<title>{escape(what)}, step {at}</title></line>'
              for at, what in marks if first <= at <= last]
    now = ', '.join(f'{name} {number(values[np.isfinite(values)][-1])}'.strip()
                    for name, values in curves if np.isfinite(values).any())
    return (f'<figure><figcaption><b>{escape(title)}</b> {escape(now)}{note}</figcaption>'
            f'<svg viewBox="{-BESIDE} -6 {WIDE + BESIDE + 1} {HIGH + 12}" role="img" '
            f'aria-label="{escape(title)}">{"".join(drawn)}<text x="-5" y="6">{number(high)}</text>'
            f'<text x="-5" y="{HIGH}">{number(low)}</text></svg></figure>')


def thinned(step, values):
    """At most POINTS of a curve: means of stretches."""
    if len(step) <= POINTS:
        return step, values
    parts = np.array_split(np.arange(len(step)), POINTS)
    with np.errstate(invalid='ignore'):
        return (np.array([step[part[-1]] for part in parts]),
                np.array([values[part][np.isfinite(values[part])].mean()
                          if np.isfinite(values[part]).any() else np.nan for part in parts]))


def smoothed(values):
    """A moving average, over fewer where there are few; what is not finite is passed over."""
    keep = min(0.9, max(0, 1 - 3 / len(values)))
    result, mean, weight = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            mean, weight = keep * mean + (1 - keep) * value, keep * weight + 1 - keep
        result.append(mean / weight if weight else math.nan)
    return np.array(result)


def number(value):
    return f'{value:.3g}' if abs(value) < 1e5 else f'{value:.2e}'


def finite_or_none(value):
    """A number as JSON has it: None where it is infinite or none."""
    return float(value) if math.isfinite(value) else None


def marks_of(config):
    """[(step, what begins there)] of a run's schedule."""
    t, marks = config.training, []
    if t and t.fix_global_steps:
        marks.append((t.fix_global_steps, 'all of the generator learns'))
    if t and t.decay_start:
        marks.append((t.decay_start, 'the learning rate begins to fall'))
    return marks


def curves_of(marks, log, speed, scores):
    """The plots of a run, one after the other."""
    found = []
    step = log.get('step', np.array([]))
    special = ('step', 'pictures', 'lr', 'map_min', 'map_max', 'skipped')
    found += [plot(name.replace('_', ' '), step, [('', log[name])], marks)
              for name in log if name not in special]
    if 'map_max' in log:
        peak = log['map_max']
        grown = len(step) > 3 and peak[-1] > GROWN * np.nanmax(peak[:len(step) // 2])
        found.append(plot('last feature map', step, [('', log['map_min']), ('to', peak)], marks,
                          ' <em>its peak grows: bright blobs may follow</em>' if grown else ''))
    for table, name, title in ((log, 'lr', 'learning rate'), (log, 'skipped', 'skipped steps'),
                               (speed, 'steps_per_second', 'steps a second'),
                               (speed, 'memory', 'memory, GiB'),
                               *((scores, name, name.replace('_', ' ')) for name in scores)):
        if name in table and name != 'step':
            found.append(plot(title, table['step'], [('', table[name])], marks,
                              noisy=table is speed))
    return ''.join(found)


# -------------------------------------------------------------------------------------- the page

def settings_of(config):
    """Rows (name, value, whether the command line said so, what it is) of a table."""
    given = config.training.flags if config.training else {}
    for fields, values in ((configuration.NETWORK, config),
                           (configuration.TRAINING, config.training)):
        for name, field in fields.items():
            value = getattr(values, name, None)
            if field.help and values is not None:
                text = (('no', 'yes')[value] if isinstance(value, bool) else 'none'
                        if value is None else configuration.format_value(value))
                yield name.replace('_', ' '), text, name in given, field.help


def style_swatches(found):
    """A row for each label: its styles, as wide as they are frequent, in a colour each."""
    rows = []
    for name, centres, counts in found:
        there = counts > 0
        low, high = centres[there].min(0), centres[there].max(0)
        rgb = (centres - low) / np.where(high > low, high - low, 1) * 190 + 40
        rgb = np.resize(rgb[:, :3], (len(rgb), 3)) if rgb.shape[1] < 3 else rgb[:, :3]
        cells = ''.join(
            f'<i data-grow="{count}" data-colour="{",".join(str(int(c)) for c in colour)}" '
            f'title="style {k}: {count} instances">{k}</i>'
            for k, (colour, count) in enumerate(zip(rgb, counts.tolist())) if count)
        rows.append(f'<tr><th>{escape(name)}</th><td class="styles">{cells}</td>'
                    f'<td>{counts.sum()}</td></tr>')
    return ''.join(rows)


def evaluation_section(found):
    """The section of what evaluation_in() gives."""
    rows = found['rows']
    labels = dict.fromkeys(label for row in rows for label in row.get('iou', ()))
    each = html_table([['', *(row['name'] for row in rows)], *(
        [label, *(f'{100 * row["iou"][label]:.1f}' if label in row.get('iou', ()) else '-'
                  for row in rows)] for label in labels)])
    return (f'<h2>Evaluation</h2><p>{escape(found["protocol"])}; '
            f'<a href="evaluation/sheet.png">sheet</a></p>{html_table(as_table(rows))}'
            + (f'<details><summary>IoU of each label, %</summary>{each}</details>' if labels
               else ''))


def html_table(rows):
    """Lists of texts -> a table that scrolls where it is too wide; the first row is of titles."""
    return '<div class="wide"><table>' + ''.join(
        '<tr>' + ''.join(f'<{cell}>{escape(text)}</{cell}>' for text in row) + '</tr>'
        for cell, row in zip(['th', *['td'] * len(rows)], rows)) + '</table></div>'


def page_of(folder, config):
    """The text of a run's page."""
    log, speed, scores = (read_csv_columns(folder / f'{name}.csv')
                          for name in ('log', 'speed', 'scores'))
    sheets = sorted(path.name for path in (folder / 'samples').glob('*.png')
                    if path.stem.isdecimal())
    size = configuration.format_value(config.size) if config.size else 'native size'
    total = config.training.total_steps if config.training else 0
    done = int(log['step'][-1]) if log else 0
    left = ''
    if speed and done < total and np.isfinite(speed['steps_per_second'][-1]):
        left = f', {format_duration((total - done) / max(speed["steps_per_second"][-1], 1e-9))} left'
    about = (f'{config.layout}, {size}, {config.n_labels} labels, step {done} of {total}{left}'
             if config.n_labels else f'{config.layout}, {size}, step {done} of {total}{left}')
    parts = [f'<p>{escape(about)}</p>']
    if sheets:
        parts.append(SHEETS.replace('NAMES', json.dumps(sheets).replace('<', '\\u003c')).replace(
            'COLUMNS', 'in the styles of the photograph, as generate would choose them'
            if config.features else 'as generate makes it'))
    marks = marks_of(config)
    curves = curves_of(marks, log, speed, scores)
    if curves:
        told = ''.join(f'; dashed at step {at}: {what}' for at, what in marks if at <= done)
        parts.append(f'<h2>Curves</h2><p>From left to right, steps up to {done}{told}.</p>'
                     f'<div class="plots">{curves}</div>')
    if scores:
        parts.append('<h2>Scores while training</h2>' + html_table(
            [[name.replace('_', ' ') for name in scores],
             *([f'{value:.6g}' for value in row] for row in list(zip(*scores.values()))[-20:])]))
    found = evaluation_in(folder)
    if found:
        parts.append(evaluation_section(found))
    found = styles_in(folder, config)
    if found:
        parts.append('<h2>Styles</h2><p>Of each label, as wide as they are frequent; the colours '
                     'are their features.</p><div class="wide"><table>'
                     f'{style_swatches(found)}</table></div>')
    rows = ''.join(f'<tr{" class=own" if own else ""}><th>{escape(name)}</th>'
                   f'<td>{escape(value)}</td><td class="help">{escape(text)}</td></tr>'
                   for name, value, own, text in settings_of(config))
    parts.append('<h2>Settings</h2><p>In bold what was asked for.</p><div class="wide">'
                 f'<table>{rows}</table></div>')
    return ''.join(parts)


def write_page(folder, body):
    """Write folder/index.html around its body. Names of files may not be text."""
    filled = {'TITLE': escape(folder.resolve().name), 'BODY': body}
    text = re.sub('TITLE|BODY', lambda found: filled[found[0]], PAGE)
    write_text(folder / 'index.html', text.encode(errors='replace').decode())


def write_run_page(folder, config):
    """Write the page of the run in `folder`. UserError where that is not possible."""
    write_page(Path(folder), page_of(Path(folder), config))


def try_write_run_page(folder, config, otherwise='training goes on'):
    """`write`, or a warning."""
    def tried():
        with as_user_error(Path(folder) / 'index.html', 'cannot be made'):  # of files somebody has changed
            write_run_page(folder, config)
    warn_on_error(tried, otherwise)


# ------------------------------------------------------------------------------------ the gallery

def thumbnail(rgb, widest=240):
    """(H, W, 3) uint8 ndarray -> the address of a small PNG of few colours that holds itself."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((widest, widest), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.quantize(64).save(file, 'PNG')
    return 'data:image/png;base64,' + base64.b64encode(file.getvalue()).decode()


def write_gallery(folder, rows):
    """Write folder/index.html: a row for each map, its label map and the pictures made of it.

    rows: [(name, address of the label map's picture, [names of files in the folder])]. UserError
    where it is the folder of a run.
    """
    if checkpoints.list_checkpoints(folder):
        raise UserError(f'{folder}: is the folder of a run, whose page stays; --out names another '
                        'for a gallery')
    parts = []
    for name, label, files in rows:
        pictures = ''.join(
            f'<a href="{address}"><img loading="lazy" src="{address}" alt="{escape(file)}" '
            f'title="{escape(file)}"></a>' for file in files
            for address in [quote(os.fsencode(file))])
        parts.append(f'<section><h3>{escape(name)}</h3><div class="row"><img src="{label}" '
                     f'alt="label map">{pictures}</div></section>')
    write_page(folder, f'<div class="rows">{"".join(parts)}</div>')


# ------------------------------------------------------------------------------------- in words

def run_facts(folder, n_labels=None):
    """What there is to know of a run: its folder, a single checkpoint, or a run of the official
    code -> dict of what JSON has. n_labels: as in runs.read_run. UserError where there is none."""
    folder = Path(folder)
    path, checkpoint = runs.read_run(folder, which='file' if folder.is_file() else 'newest',
                                 n_labels=n_labels)
    c, known = checkpoint['config'], None
    t = c.training
    if folder.is_dir():
        known = run_styles.load_styles(folder, c)
    states = {}
    for file in checkpoints.list_checkpoints(folder) if folder.is_dir() else [folder]:
        try:
            checkpoints.check_seal(file)
            states[file.name] = 'whole'
        except (checkpoints.Damaged, OSError, UserError) as error:
            states[file.name] = str(error)
    scores = read_csv_columns(folder / 'scores.csv')
    return {
        'run': str(folder), 'checkpoint': str(path), 'official': t is None,
        'step': checkpoint['step'], 'of_steps': t.total_steps if t else None,
        'data': t.data if t else None, 'layout': c.layout, 'labels': c.n_labels,
        'instances': c.instances, 'size': c.size and list(c.size),
        'model': {'global': 'G1', 'local': f'G1 and {plural(c.n_enhancers, "enhancer")}',
                  'unet': 'U-Net'}[c.model],
        'parameters': {name: sum(x.numel() for x in state.values())
                       for name, state in checkpoint['weights'].items()},
        'precision': t.precision if t else None, 'average': t.ema if t else None,
        'batch': t.batch if t else None,
        'given': {name: value for name, value in t.flags.items() if name != 'data'} if t else {},
        'styles': {'labels': int((known['counts'] > 0).any(1).sum()),
                   'styles': int((known['counts'] > 0).sum()),
                   'instances': int(known['counts'].sum()) if t else None} if known else None,
        'scores': {name: finite_or_none(values[-1]) for name, values in scores.items()},
        'evaluation': evaluation_in(folder) if folder.is_dir() else None,
        'checkpoints': states}


def describe_facts(found):
    """The lines of what facts() gives."""
    size = configuration.format_value(found['size']) if found['size'] else 'native size'
    yield f'{found["run"]}: ' + ('a run of the official code' if found['official'] else
                                 f'step {found["step"]} of {found["of_steps"]}')
    yield (f'  pictures    {found["layout"]}, {size}, {found["labels"]} labels, instances '
           f'{found["instances"]}' + (f', {found["data"]}' if found['data'] else ''))
    yield f'  networks    {found["model"]}; ' + ', '.join(
        f'{name} {n / 1e6:.1f}M' for name, n in found['parameters'].items())
    if not found['official']:
        yield (f'  trained in  {found["precision"]}, batches of {found["batch"]}, moving average '
               f'{found["average"]:g}; ' + (' '.join(
                   configuration.as_flag(name, value) for name, value in found['given'].items()
                   if name in configuration.TRAINING or name in configuration.NETWORK)
                   or 'with the defaults'))
    if found['styles']:
        s = found['styles']
        yield f'  styles      {s["styles"]} of {s["labels"]} labels' + (
            f', from {s["instances"]} instances' if s['instances'] else '')
    if found['scores']:
        yield '  scores      ' + ', '.join(
            f'{name.replace("_", " ")} {number(value)}' for name, value in found['scores'].items()
            if value is not None)
    if found['evaluation']:
        yield f'  evaluation  {found["evaluation"]["protocol"]}'
        titles, *rows = as_table(found['evaluation']['rows'])
        for name, *cells in rows:
            yield f'    {name}: ' + ', '.join(
                f'{title} {cell}' for title, cell in zip(titles[1:], cells) if cell != '-')
    for name, state in found['checkpoints'].items():
        yield f'  checkpoint  {name}: {state}'


PAGE = '''<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>TITLE</title>
<style>
:root { --back: #fff; --text: #1c1f24; --dim: #6b7280; --line: #e2e5ea; --panel: #f6f7f9;
  --c0: #2563eb; --c1: #d97706; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --back: #16181c; --text: #e6e8eb; --dim: #9aa1ac;
  --line: #343941; --panel: #1f2227; --c0: #6fb3ff; --c1: #ffc46b; } }
body { margin: 0 auto; padding: 20px clamp(12px, 4vw, 48px); max-width: 1500px;
  background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 24px; } h2 { margin: 34px 0 8px; font-size: 17px; }
p { margin: 4px 0 10px; color: var(--dim); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr));
  gap: 14px; }
figure { margin: 0; padding: 10px 12px; background: var(--panel); border-radius: 8px; }
figcaption { font-size: 13px; color: var(--dim); } figcaption b { color: var(--text); }
figcaption em { color: #e05252; display: block; }
svg { width: 100%; display: block; margin-top: 6px; overflow: visible; }
polyline { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.raw { stroke-width: 1; opacity: .3; } .smooth { stroke-width: 1.8; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); }
.mark { stroke: var(--dim); stroke-dasharray: 3 3; vector-effect: non-scaling-stroke; }
text { font: 9px system-ui, sans-serif; fill: var(--dim); text-anchor: end; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: 3px 16px 3px 0; border-bottom: 1px solid var(--line);
  font-weight: 400; vertical-align: top; } .own th, .own td { font-weight: 700; }
td.help, .own td.help { color: var(--dim); font-weight: 400; min-width: 16em; }
@media (max-width: 640px) { td.help { display: none; } }
.styles { display: flex; min-width: 340px; width: 40vw; } .styles i { font: 11px system-ui;
  color: #fff; text-shadow: 0 0 2px #000, 0 0 3px #000; padding: 3px 4px; overflow: hidden;
  min-width: 8px; }
#sheet { max-width: 100%; min-width: min(100%, 700px); border-radius: 6px; display: block; }
.rows { display: grid; gap: 16px; } h3 { margin: 0 0 6px; font-size: 14px; font-weight: 600; }
.row { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); }
.row img { width: 100%; border-radius: 6px; display: block; }
.control { display: flex; gap: 10px; align-items: center; margin: 8px 0; }
.control input { flex: 1; max-width: 640px; accent-color: var(--c0); }
button { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; padding: 2px 10px; cursor: pointer; }
</style></head><body><h1>TITLE</h1>BODY
<script>
for (const cell of document.querySelectorAll('.styles i')) {
  cell.style.flexGrow = cell.dataset.grow;
  cell.style.background = `rgb(${cell.dataset.colour})`;
}
</script>
</body></html>
'''

SHEETS = '''<h2>Sheets</h2><p>At most two training pictures and two others, a row each: label,
COLUMNS, real. Arrow keys turn the pages.</p>
<div class="control"><button id="less" aria-label="Earlier">&larr;</button><input id="which"
type="range" min="0" aria-label="Sheet"><button id="more" aria-label="Later">&rarr;</button>
<output id="step"></output></div><a id="whole"><img id="sheet" alt="sheet of pictures"></a>
<script>
const sheets = NAMES, which = document.getElementById('which');
which.max = sheets.length - 1; which.value = which.max;
function turn(by = 0) {
  which.value = +which.value + by;
  const name = sheets[which.value];
  document.getElementById('sheet').src = document.getElementById('whole').href = `samples/${name}`;
  document.getElementById('step').textContent = `step ${parseInt(name)}`;
}
which.oninput = () => turn();
document.getElementById('less').onclick = () => turn(-1);
document.getElementById('more').onclick = () => turn(1);
document.onkeydown = event => {
  if (event.target !== which) turn({ArrowLeft: -1, ArrowRight: 1}[event.key] || 0);
};
turn();
</script>'''
