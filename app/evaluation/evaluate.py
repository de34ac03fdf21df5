"""Scores of runs side by side, which anyone can recompute (paper section 4.1)."""
from contextlib import suppress
from functools import partial
import json
from pathlib import Path

import numpy as np

from app.common.config import parse_label
from app.common.console import log_info, plural, warn
from app.common.errors import UserError, did_you_mean
from app.common.files import make_folder, require_folder, resolve_path, write_text
from app.datasets import inspection, layouts
from app.evaluation import measures, scoring
from app.evaluation.judge import load_or_train_judge, read_prediction
from app.runs import distributed, report, runs
from app.runs.pictures import strip, write_png
from app.runs.run_styles import load_or_cluster_styles
import data

N_SAMPLES = 3                               # of each label map, to measure diversity
SHEET_ROWS = 6


def evaluate_runs(folders, device, which, average, root, split, size, style_source, void, judge,
                  predictions, seed, vgg, write, out, n_labels):
    """Score the runs in `folders` side by side, between real photographs and flat colours. Print
    the table; write scores.json and sheet.png into `out` (default: <first run>/evaluation).

    The arguments are the flags of the command. which: --checkpoint. root: --data. style_source:
    --styles. n_labels: --official-labels. vgg: nets.VGG19 or None.
    Raises: UserError if runs, data set, judge and flags do not go together.
    """
    out, write = Path(out or folders[0] / 'evaluation'), write and Path(write)
    require_folder(out)
    names = unique_names(folders)
    opened = [runs.read_run(folder, which=which, n_labels=n_labels, generator_only=average)
              for folder in folders]
    configs = [checkpoint['config'] for _, checkpoint in opened]
    config = configs[0]
    check_flags(folders, configs, style_source, void, judge, predictions)
    root = root or (config.training and config.training.data)
    if not root:
        raise UserError(f'{folders[0]}: its data set is not known; name it with --data DIR')
    void = void_labels(config, void)
    trained, held = training_pairs(config, root)
    split = split or ('held' if held else 'val')
    size = size or min((config.size for config in configs if config.size), default=None)
    pictures = scoring.EvaluationSet(config, root, split, size,
                                     (split == 'held' and held) or None, shared=True)
    if vgg and (config.out_channels != 3 or min(pictures.size) < 16):
        raise UserError('--vgg: VGG-19 needs RGB pictures of 16x16 or more; leave it out')
    warn_about_trained_pictures(folders, configs, root, pictures)
    if write:
        check_write_folder(write, pictures)
    recognise, recogniser = choose_recogniser(config, root, trained, pictures.size, void, device,
                                              folders[0], judge, predictions)
    shown = np.linspace(0, len(pictures.pairs) - 1, SHEET_ROWS).astype(int)
    protocol = scoring.Protocol(pictures, void, recognise, style_source, seed, N_SAMPLES, vgg,
                                write, {pictures.pairs[i].name for i in shown})

    results = [scoring.score_pictures(
        protocol, 'real photographs', 'real',
        lambda pair, label, photo: (photo, measures.reconstruction(photo, photo)))]
    for name, folder, (path, checkpoint) in zip(names, folders, opened):
        run = runs.run_from_checkpoint(path, checkpoint, device, False, which, average)
        with distributed.main_process_first():
            clusters = load_or_cluster_styles(run, folder, root)
        averaged = average and run.config.training and run.config.training.ema
        results.append(scoring.score_run(
            protocol, run, f'{name}, step {run.step}' + ', average' * bool(averaged),
            'fake' if len(folders) == 1 else f'fake-{name}', clusters))
    if config.n_labels and not predictions and trained:
        results.append(scoring.score_flat_colours(protocol, trained))
    if distributed.IS_MAIN:
        write_results(out, protocol, results, recogniser, which)
        if config.training and out == folders[0] / 'evaluation':
            report.try_write_run_page(folders[0], config, 'the scores are written')


def choose_recogniser(config, root, trained, size, void, device, folder, judge, predictions):
    """Return Protocol.recognise and its name: predictions, or a judge, which is trained if there is
    none; None and 'none' without labels. folder: the first run, beside which judges are kept."""
    if not config.n_labels:
        return None, 'none'
    if predictions:
        return partial(read_prediction, Path(predictions), config), predictions
    with distributed.main_process_first():
        judge, path = load_or_train_judge(config, root, trained, size, void, device,
                                          folder.absolute().parent, judge)
    w, h = judge.about['size']
    return judge, f'{path}, trained at {w}x{h} on {judge.about["pictures"]} photographs'


def unique_names(folders):
    """Return a name for each run: its folder's, or the whole path if two have the same name."""
    paths = [resolve_path(folder) for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f'--run: {path} is named twice; name it once')
    names = [path.name for path in paths]
    return names if len({*names}) == len(names) else ['-'.join(path.parts[1:]) for path in paths]


def check_flags(folders, configs, style_source, void, judge, predictions):
    """Raise UserError if the runs cannot be compared, or a flag has no effect on them."""
    for folder, config in zip(folders, configs):
        if any(getattr(config, name) != getattr(configs[0], name) for name in (
                'n_labels', 'label_names', 'label_table', 'palette', 'out_channels')):
            raise UserError(f'{folder}: its labels or channels differ from those of {folders[0]}; '
                            'compare runs of the same data set')
    if not configs[0].n_labels and (void or judge or predictions):
        raise UserError(f'{folders[0]}: turns pictures into pictures and has no labels; leave '
                        '--void, --judge and --predictions out')
    if style_source != 'main' and not any(config.features for config in configs):
        raise UserError(f'--styles {style_source}: {folders[0]} was trained without --features and '
                        'has one style only; leave it out')


def void_labels(config, words):
    """Return the set of labels that do not count: those of --void, or if `words` is None the run's.
    UserError for a label that the run does not have, or if all are void."""
    if words is None:
        return set(config.void)
    names, n = config.label_names, config.n_labels
    labels = {parse_label(word, names): word for word in words if word != 'none'}
    for label, word in labels.items():
        if not 0 <= label < n:
            raise UserError(f'--void {word}: no such label; expected numbers from 0 to {n - 1}'
                            f'{", names of labels" * bool(names)}, or none'
                            + did_you_mean(word, names))
    if len(labels) == n:
        raise UserError(f'--void {" ".join(words)}: all {n} labels are void; name fewer')
    return set(labels)


def training_pairs(config, root):
    """Return the pairs in the data set `root` that a run was (or would be) trained on, and those
    held out; two empty lists if there is no such split."""
    t = config.training
    with suppress(UserError):
        pairs = layouts.find_pairs(root, t.split if t else 'train')[1]
        return inspection.train_and_heldout(config, [
            pair for pair in pairs if not t or pair.name not in t.left_out])
    return [], []


def warn_about_trained_pictures(folders, configs, root, pictures):
    """Warn about runs that were trained on pictures that are scored."""
    scored = {pair.image for pair in pictures.pairs}
    for folder, config in zip(folders, configs):
        if config.training and resolve_path(config.training.data) == resolve_path(root):
            trained = scored & {pair.image for pair in training_pairs(config, root)[0]}
            if trained:
                warn(f'warning: {folder}: was trained on {len(trained)} of the {len(scored)} '
                     'pictures that are scored')


def check_write_folder(folder, pictures):
    """Raise UserError if the folder for --write has pictures of another evaluation."""
    names = {pair.name for pair in pictures.pairs}
    others = [path for path in sorted(folder.glob('real/*.png')) if path.stem not in names]
    if others:
        raise UserError(f'--write {folder}: has {plural(len(others), "picture")} of another '
                        f'evaluation, such as {others[0]}; choose another folder')


def write_results(out, protocol, results, recogniser, which):
    """Print the table; write scores.json and sheet.png, with a row for each shown label map: the
    map, the photograph, the picture of each run, flat colours. results: of score_pictures."""
    pictures, config = protocol.pictures, protocol.pictures.config
    rows, columns = zip(*results)
    rows = [{name: report.finite_or_none(value) if isinstance(value, float) else value
             for name, value in row.items()} for row in rows]
    (w, h), names = pictures.size, scoring.label_names(config)
    void = ', '.join(names[i] for i in sorted(protocol.void))
    description = (f'judge {recogniser}; {w}x{h}; '
                   f'void {f"{void}, whose pixels do not count" if void else "none"}'
                   + '; the best checkpoint, selected by such scores' * (which == 'best')
                   + f'; styles {protocol.style_source}, for runs with an encoder; split '
                   f'{pictures.split} of {pictures.root}, {plural(len(pictures.pairs), "picture")}')
    log_info(f'protocol: {description}')
    table = report.score_table(rows)
    widths = [max(map(len, column)) for column in zip(*table)]
    for title, *cells in table:
        log_info('  '.join([title.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))
    if config.n_labels:
        log_info(f'in brackets: 95 % interval of {measures.RESAMPLES} resamples of the pictures; '
                 f'{config.n_labels - len(rows[0]["iou"])} labels do not count: they are void or '
                 'in no map; L1, PSNR and SSIM: in the styles of the photographs if a run has an '
                 'encoder')
    make_folder(out)
    write_text(out / 'scores.json',
               json.dumps({'protocol': description, 'rows': rows}, indent=1))
    write_png(out / 'sheet.png', np.concatenate([
        strip(config, pictures.dataset[0, i]['label'],
              [data.to_float(column[pair.name])[None] for column in columns])
        for i, pair in enumerate(pictures.pairs) if pair.name in protocol.shown]))
    log_info(f'{out / "scores.json"}\n{out / "sheet.png"}')
