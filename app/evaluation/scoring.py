"""Scores of runs side by side, and of one run during its training (paper section 4.1)."""
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import partial
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from app.common.config import format_value, parse_label
from app.common.console import Progress, log_info, plural, warn
from app.common.errors import UserError, did_you_mean
from app.common.files import make_folder, require_folder, require_own, resolve_path, write_text
from app.datasets import inspection, layouts, scenes
from app.datasets.decoding import spread
from app.datasets.pairs import PairReader
from app.evaluation import measures
from app.evaluation.judge import load_or_train_judge, read_prediction
from app.runs import configurations, distributed, report, runs
from app.runs.folders import is_built_in, output_folder
from app.runs.pictures import strip, write_picture, write_png
from app.runs.run_styles import load_or_cluster_styles, picture_seed
from app.runs.transfer import ids_of_labels
import data
import generate

N_SAMPLES = 3                               # of each label map, to measure diversity
SHEET_ROWS = 6                              # at most
FLAT_PICTURES = 200                         # at most, to compute mean colours
TRAINING_SCORE_PICTURES = 100               # at most, to score during training


@dataclass
class Evaluation:
    """The readable pairs of a split, at one size, and how pictures of them are scored. UserError if
    the data set does not fit the configuration, or no pair is readable."""
    config: object                          # of a run with the same labels
    root: str                               # the data set
    split: str
    size: tuple | None                      # (width, height) to compare at; None: the most frequent
    void: set                               # labels whose pixels do not count
    pairs: list | None = None               # of the split; None: find them
    shared: bool = False                    # each process of torchrun takes a part of the pairs
    style_source: str = 'main'              # 'main', 'sampled' or 'encoded' (from the photograph)
    seed: int = 0
    n_samples: int = 0                      # of each map, to measure diversity
    vgg: torch.nn.Module | None = None      # to compare the features of VGG-19, too
    photo_features: dict = field(default_factory=dict)      # {name: those of a photograph}
    write: Path | None = None               # folder that receives the pictures
    recognise: Callable | None = None       # (picture, its name) -> label map (H, W)
    recogniser: str = 'none'                # what that is

    def __post_init__(self):
        config, root, split, pairs, problems = self.config, self.root, self.split, self.pairs, {}
        self.label_names = label_names(config)
        if pairs is None:
            _, pairs, problems = layouts.find_pairs(root, split, config)
        headers = inspection.keep_usable(
            lambda pair: inspection.check_headers(pair, config), pairs, problems)
        self.size = self.size or configurations.default_size(
            config, [image.size for _, image in headers.values()] or [(1, 1)])
        self.reader = PairReader(config, self.size, 'none')
        self.pairs = list(inspection.keep_usable(lambda pair: bool(self.reader(pair)), headers,
                                                 problems, 'pixels'))
        problem = next(iter(problems.values()), None)
        if not self.pairs:
            raise UserError(f'{root}: no picture of the split {split!r} can be used: {problem}')
        if problem:
            warn(f'note: {root}: {len(problems)} of the split {split!r} left out: {problem}')
        self.shown = {pair.name for pair in spread(self.pairs, SHEET_ROWS)}     # on the sheet

    def read(self, pair):
        """Return the label map (1, H, W), or a picture as such, and the photograph of a pair."""
        return [data.to_tensor(array) for array in self.reader(pair).values()]


def score_pictures(evaluation, title, folder, render):
    """Score a picture for each pair. Return a row of scores.json, {'name': title, measure: mean},
    and {name: picture} of those on the sheet. render(pair, label, photograph) returns the picture,
    (C, H, W) like the photograph, and {measure: number}. folder: in evaluation.write, or ''."""
    e = evaluation
    pairs = distributed.shard(e.pairs) if e.shared else e.pairs
    results, progress = [], Progress('scoring pictures', len(pairs))
    for done, pair in enumerate(pairs, 1):
        label, photo = e.read(pair)
        label = label.squeeze(0)
        picture, values = render(pair, label, photo)
        counts = e.recognise and measures.count_pixels(
            e.recognise(picture, f'{folder}/{pair.name}'), label, e.void, e.config.n_labels)
        if e.vgg and pair.name not in e.photo_features:
            e.photo_features[pair.name] = measures.mean_features(e.vgg, photo)
        features = e.vgg and (e.photo_features[pair.name] if picture is photo else
                              measures.mean_features(e.vgg, picture), e.photo_features[pair.name])
        results.append((values, counts, features, pair.name,
                        picture if pair.name in e.shown else None))
        if e.write and folder:
            path = e.write / folder / f'{pair.name}.png'
            make_folder(path.parent)
            write_picture(path, data.to_float(picture[None]))
        progress(done)
    if e.shared:
        results = sum(distributed.all_gather(results), [])
    values, counts, features, names, shown = zip(*results)
    row = {'name': title, **{key: float(np.mean([x[key] for x in values])) for key in values[0]}}
    if e.recognise:
        row |= measures.segmentation_scores(counts, e.label_names)
    if e.vgg:
        row['frechet'] = measures.frechet_distance(*map(torch.stack, zip(*features)))
    return row, dict(zip(names, shown))


def score_run(evaluation, run, title, folder, clusters):
    """Score what a run makes, see score_pictures: at its own size, or at that of each label map if
    it was trained at many, then resized. The segmentation scores and the Fréchet distance are of
    pictures in the styles that evaluation.style_source names. If there is an encoder, L1, PSNR and
    SSIM are of pictures in the styles of the photographs. clusters: the run's styles, or None."""
    config, size, reader = run.config, evaluation.size, evaluation.reader

    def render(pair, label, photo):
        inst = pair.inst if config.instances == 'files' else None
        scene = scenes.read_scene(config, pair.label, inst, config.size, paired=True)

        def synthesise(style_source, number=0):
            encoded = scenes.read_photo(config, pair.image, scene) if (
                style_source == 'encoded') else None
            seed = picture_seed(evaluation.seed, pair.name, number)
            vectors = generate.scene_styles(run, scene, clusters, encoded,
                                            seed if style_source == 'sampled' else None)
            fake = generate.synthesise(run, scene, vectors, seed)
            fake = fake if photo.is_floating_point() else data.to_uint8(fake)
            return data.to_tensor(data.resize(fake[0].permute(1, 2, 0).cpu().numpy(), size))

        picture = synthesise(evaluation.style_source)
        values = measures.reconstruction(synthesise('encoded') if (
            run.E and evaluation.style_source != 'encoded') else picture, photo)
        if evaluation.n_samples and (run.E or config.model == 'unet'):
            samples = [synthesise('sampled', number) for number in range(evaluation.n_samples)]
            regions = label if config.n_labels else torch.zeros(label.shape[-2:])
            if config.n_labels and pair.inst:
                regions = torch.from_numpy(reader.read_instances(
                    pair.inst, size, label.squeeze(0).numpy()))
            values |= measures.diversity(samples, regions, evaluation.vgg)
        return picture, values
    return score_pictures(evaluation, title, folder, render)


def score_flat_colours(evaluation, training_pairs):
    """Score label maps painted in the mean colours of their labels, see score_pictures. A label
    that is in no training picture gets the mean colour of all."""
    config = evaluation.config
    sums = torch.zeros(config.n_labels, config.out_channels + 1).double()   # colours, pixels
    for pair in spread(training_pairs, FLAT_PICTURES):
        with suppress(ValueError):                  # training may have left this picture out
            label, image = (tensor.flatten(1) for tensor in evaluation.read(pair))
            sums.index_add_(0, label[0].long(), F.pad(image.T.double(), (0, 1), value=1))
    sums[sums[:, -1] == 0] = sums.sum(0)
    colours = sums[:, :-1] / sums[:, -1:].clamp(min=1)

    def render(pair, label, photo):
        picture = colours[label.long()].permute(2, 0, 1)
        picture = (picture if photo.is_floating_point() else picture.round()).to(photo.dtype)
        return picture, measures.reconstruction(picture, photo)
    return score_pictures(evaluation, 'flat mean colours', '', render)


def training_scorer(config, pairs, folder, device):
    """Return score(run, clusters), which returns {measure: number} during training; the first
    measure chooses best.pt. None without --evaluate-every. pairs: all of the training split.
    folder: the run's. UserError if there are no pictures to score."""
    if not config.training.evaluate_every:
        return None
    trained, held = inspection.train_and_heldout(config, pairs)
    scored = held or inspection.other_split_pairs(config, TRAINING_SCORE_PICTURES,
                                                  configurations.min_training_side(config))
    if not scored:
        raise UserError(f'{config.training.data}: no split val or test to score; use --hold-out N '
                        'to keep N pictures from training')
    evaluation = Evaluation(config, config.training.data, 'held' if held else 'val', config.size,
                            set(config.void), scored)
    names = 'psnr', 'l1', 'ssim'
    if config.n_labels:
        names = 'mean_iou', 'pixel_accuracy', 'class_accuracy', 'l1', 'psnr', 'ssim'
        evaluation.recognise, _ = load_or_train_judge(
            evaluation, trained, device, folder.parent,
            remedy='leave --evaluate-every out, or hold fewer out')

    def score(run, clusters):
        if run.vgg:
            evaluation.vgg = copy(run.vgg)                  # of the perceptual loss
            evaluation.vgg.normalise = True                 # as in `evaluate`
        row, _ = score_run(evaluation, run, '', '', clusters)
        return {name: row[name] for name in ('frechet', *names) if name in row}
    return score


def evaluate_runs(folders, flags, device, seed, vgg):
    """Score the runs in `folders` side by side, between real photographs and flat colours. Print
    the table; write scores.json and sheet.png. UserError if they cannot be compared. flags: a
    namespace of the flags of evaluate. vgg: nets.VGG19 or None."""
    which, average = flags.checkpoint, flags.average
    out = Path(flags.out or output_folder(folders[0]) / 'evaluation')
    require_folder(out)
    require_own(out / 'scores.json', '"protocol"', '--out')
    paths = [resolve_path(folder) for folder in folders]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f'--run: {twice[0]} is named twice; name it once')
    same_names = len({path.name for path in paths}) < len(paths)
    names = ['-'.join(path.parts[1:]) if same_names else path.name for path in paths]
    opened = [runs.read_run(folder, which=which, n_labels=flags.official_labels,
                            generator_only=average) for folder in folders]
    configs = [checkpoint['config'] for _, checkpoint in opened]
    config = configs[0]
    check_flags(folders, configs, flags)
    root = flags.data or (config.training and config.training.data)
    if not root or not (flags.data or Path(root).exists()):
        missing = f'{root} is not there' if root else 'is not known'
        raise UserError(f'{folders[0]}: its data set {missing}; name it with --data DIR')
    for flag, path in ('--out', flags.out), ('--write', flags.write):
        if path:
            layouts.check_outside(path, flag, root, config.layout)
    of_training = [training_pairs(config, root) for config in configs]
    trained, held = of_training[0], []
    if is_data_of(config, root, trained):                   # else only names are the same
        trained, held = inspection.train_and_heldout(config, trained)
    split = flags.split or ('held' if held else 'val')
    size = flags.size or min((config.size for config in configs if config.size), default=None)
    evaluation = Evaluation(
        config, root, split, size, void_labels(config, flags.void),
        (split == 'held' and held) or None, shared=True, style_source=flags.styles, seed=seed,
        n_samples=N_SAMPLES, vgg=vgg, write=flags.write and Path(flags.write))
    check_pictures(evaluation, folders, configs, of_training)
    if flags.predictions:
        evaluation.recogniser = flags.predictions
        evaluation.recognise = partial(read_prediction, Path(flags.predictions), config)
    elif config.n_labels and flags.judge != 'none':
        beside = Path() if is_built_in(folders[0]) else folders[0].absolute().parent
        with distributed.main_process_first():
            evaluation.recognise, evaluation.recogniser = load_or_train_judge(
                evaluation, trained, device, beside, flags.judge)
    results = [score_pictures(
        evaluation, 'real photographs', 'real',
        lambda pair, label, photo: (photo, measures.reconstruction(photo, photo)))]
    for name, folder, (path, checkpoint) in zip(names, folders, opened):
        run = runs.run_from_checkpoint(path, checkpoint, device, False, which, average)
        clusters = load_or_cluster_styles(run, folder, root)
        averaged = average and run.config.training and run.config.training.ema
        results.append(score_run(
            evaluation, run, f'{name}, step {run.step}' + ', average' * bool(averaged),
            'fake' if len(folders) == 1 else f'fake-{name}', clusters))
    if config.n_labels and not flags.predictions and trained:
        results.append(score_flat_colours(evaluation, trained))
    if distributed.IS_MAIN:
        write_results(out, evaluation, results, which)
        if not flags.out:
            report.try_write_run_page(folders[0], config)


def check_flags(folders, configs, flags):
    """Raise UserError if the runs cannot be compared, or a flag has no effect on them."""
    for folder, config in zip(folders, configs):
        if any(getattr(config, name) != getattr(configs[0], name) for name in (
                'n_labels', 'label_names', 'label_table', 'palette', 'out_channels')):
            raise UserError(f'{folder}: its labels or channels differ from those of {folders[0]}; '
                            'compare runs of the same data set')
    if not configs[0].n_labels and (flags.void or flags.judge or flags.predictions):
        raise UserError(f'{folders[0]}: turns pictures into pictures and has no labels; leave '
                        '--void, --judge and --predictions out')
    if flags.judge == 'none' and flags.void:
        raise UserError('--void and --judge none: without segmentation scores, all pixels count; '
                        'leave one of them out')
    if flags.size and max(flags.size) < 2:
        raise UserError('--size 1x1: too small to compare pictures; take a larger one')
    if flags.styles != 'main' and not any(config.features for config in configs):
        raise UserError(f'--styles {flags.styles}: {folders[0]} was trained without --features and '
                        'has one style only; leave it out')


def label_names(config):
    """Return the names of all labels, each different. If the data set has no names, they are the
    ids in its files. If two labels have the same name, their numbers are added."""
    names = config.label_names or [*map(str, ids_of_labels(config))]
    return [f'{name} ({i})' if names.count(name) > 1 else name for i, name in enumerate(names)]


def void_labels(config, words):
    """Return the set of labels that do not count. words: of --void, names or ids in the files; the
    label of unknown pixels is added, unless one of them is 'none'. None: the labels of the run."""
    if words is None:
        return set(config.void)
    names, n, table = config.label_names, config.n_labels, config.label_table or {}

    def label_of(word):
        label = parse_label(word, names)
        return label if word in (names or ()) else table.get(label, label)

    labels = {label_of(word): word for word in words if word != 'none'}
    for label, word in labels.items():
        if not 0 <= label < n:
            raise UserError(f'--void {word}: no such label; expected numbers from 0 to {n - 1}'
                            f'{", names" * bool(names)}, or none{did_you_mean(word, names)}')
    if len(labels) == n:
        raise UserError(f'--void {" ".join(words)}: all {n} labels are void; name fewer')
    unknown = {n - 1} & {*config.void} if table and 'none' not in words else set()
    return {*labels} | unknown                              # see labels.find_labels


def training_pairs(config, root):
    """Return the pairs in `root` of the split that a run is trained on, [] where unknown."""
    t = config.training
    with suppress(UserError):
        pairs = layouts.find_pairs(root, t.split if t else 'train', chosen=config.layout)[1]
        return [pair for pair in pairs if not t or pair.name not in t.left_out]
    return []


def is_data_of(config, root, pairs):
    """Whether the data set in `root` is the one that a run was trained on, which may have moved.
    pairs: of its training split."""
    t = config.training
    return bool(t) and (resolve_path(t.data) == resolve_path(root)
                        or list(t.pictures) == inspection.fingerprint(pairs))


def check_pictures(evaluation, folders, configs, of_training):
    """Warn about runs trained on scored pictures. UserError if they do not suit VGG-19, if instance
    maps are missing, or if --write has other pictures. of_training: training_pairs of each run."""
    if evaluation.vgg and (evaluation.config.out_channels != 3 or min(evaluation.size) < 16):
        raise UserError('--vgg: VGG-19 needs RGB pictures of 16x16 or more; leave it out')
    scored = {pair.image for pair in evaluation.pairs}
    for folder, config, pairs in zip(folders, configs, of_training):
        inspection.require_instance_maps(config, evaluation.pairs, evaluation.root, folder)
        if is_data_of(config, evaluation.root, pairs):
            trained, _ = inspection.train_and_heldout(config, pairs)
            if n := len(scored & {pair.image for pair in trained}):
                warn(f'warning: {folder}: was trained on {n} of the {len(scored)} pictures that '
                     'are scored')
    names, write = {pair.name for pair in evaluation.pairs}, evaluation.write
    if others := write and [path for path in write.glob('real/**/*.png') if path.relative_to(
            write / 'real').as_posix().removesuffix('.png') not in names]:
        raise UserError(f'--write {write}: has {plural(len(others), "picture")} of another '
                        f'evaluation, such as {min(others)}; choose another folder')


def write_results(out, evaluation, results, which):
    """Print the table; write scores.json and sheet.png, with a row for each shown label map: the
    map, the photograph, the picture of each run, flat colours. results: of score_pictures."""
    rows = [{name: report.finite_or_none(value) if isinstance(value, float) else value
             for name, value in row.items()} for row, _ in results]
    e, void = evaluation, [evaluation.label_names[i] for i in sorted(evaluation.void)]
    void = f'; void {", ".join(void) or "none"}' if e.recognise else ''
    description = (f'judge {e.recogniser}; {format_value(e.size)}{void}'
                   + '; the best checkpoint, selected by such scores' * (which == 'best')
                   + f'; styles {e.style_source}, for runs with an encoder; split {e.split} of '
                   f'{e.root}, {plural(len(e.pairs), "picture")}')
    log_info(f'protocol: {description}')
    table = report.score_table(rows)
    widths = [max(map(len, column)) for column in zip(*table)]
    for title, *cells in table:
        log_info('  '.join([title.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))
    if e.recognise:
        log_info(f'in brackets: 95 % interval of {measures.RESAMPLES} resamples of the pictures; '
                 f'{e.config.n_labels - len(rows[0]["iou"])} labels, void or in no map, do not '
                 'count')
    log_info('L1, PSNR and SSIM: in the styles of the photographs if a run has an encoder')
    make_folder(out)
    write_text(out / 'scores.json', json.dumps({'protocol': description, 'rows': rows}, indent=1))
    write_png(out / 'sheet.png', np.concatenate([
        strip(e.config, e.read(pair)[0],
              [data.to_float(shown[pair.name])[None] for _, shown in results])
        for pair in e.pairs if pair.name in e.shown]))
    log_info(f'{out / "scores.json"}\n{out / "sheet.png"}')
