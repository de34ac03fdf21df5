"""Scores that anyone can recompute (paper section 4.1): how well a segmentation network recognises
the synthesised pictures, how near they are to the photographs, and how much samples differ."""
from collections import namedtuple
from contextlib import suppress
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from app.common.config import parse_label
import data
from app.common.console import Progress, plural, log_info, warn
from app.common.errors import UserError, did_you_mean
from app.common.files import require_folder, make_folder, resolve_path, write_text
from app.evaluation import judge as judging
from app.datasets import layouts
import losses
from app.runs import distributed
from app.runs import report as reporting
from app.runs import runs
from app.datasets import inspection
import generate
from app.runs import run_styles
from app.runs.pictures import strip, to_uint8_hwc, write_picture, write_png
from app.datasets import scenes
from app.datasets.pairs import IN_MEMORY_BYTES, PairReader, open_dataset

SAMPLES = 3                                 # of each map, whose distances are its diversity
ON_THE_SHEET = 6                            # maps
FLAT_PICTURES = 200                         # training pictures that the flat colours are means of
SCORED_WHILE_TRAINING = 100                 # pictures, at most

# name; judge.Scores, or None for pictures to pictures; {measure: number} of the rest
Row = namedtuple('Row', 'name scores measures')


# ------------------------------------------------------------------------------- what is scored

class Split:
    """The pairs of a split that are whole, at one size: their photographs and label maps. shared:
    the processes of torchrun, all of which score it, go through a part each."""

    def __init__(self, config, root, split, size, pairs=None, shared=False):
        self.config, self.shared, problems = config, shared, {}
        if pairs is None:
            layout, pairs, problems = layouts.find_pairs(root, split)
            if (layout.n_labels == 0) != (config.n_labels == 0):
                raise UserError(f'{root}: {layout.name}, and the run was trained on '
                                f'{config.layout}')
        pairs, headers = inspection.keep_usable(
            lambda pair: inspection.check_headers(pair, config), pairs, problems)
        self.size = size or runs.default_size(
            config, [image.size for _, image in headers] or [(1, 1)])
        self.pictures = self.at_size(pairs)
        w, h = self.size
        small = len(pairs) * w * h * (config.out_channels + 1) <= IN_MEMORY_BYTES
        self.pairs, decoded = inspection.keep_usable(lambda pair: (
            self.pictures.read(pair) if small else bool(self.pictures.read(pair))), pairs, problems,
            'pixels')
        self.pictures.items, self.pictures.decoded = self.pairs, decoded if small else None
        if not self.pairs:
            raise UserError(f'{root}: no picture of the split {split!r} can be used: '
                            + next(iter(problems.values())))
        if problems:
            warn(f'note: {root}: {len(problems)} of the split {split!r} left out: '
                 f'{next(iter(problems.values()))}')

    def at_size(self, pairs):
        """-> data.PairedDataset of them."""
        return open_dataset(pairs, PairReader(self.config, self.size, 'none'), keep=False)

    def regions(self, pair, label):
        """What the diversity is a mean over: the data set's instances, or where there are none its
        labels, whatever a run makes of them -> (H, W) integer tensor."""
        if self.config.n_labels == 0:
            return torch.zeros(label.shape[-2:], dtype=torch.long)
        if pair.inst is None:
            return label
        return torch.from_numpy(PairReader(self.config).read_instances(pair.inst, self.size))

    def __iter__(self):
        """(Pair, label (H, W) or (C, H, W), photograph (C, H, W) uint8 or float) one by one, of
        this process's part."""
        pairs = list(enumerate(self.pairs))
        pairs = distributed.shard(pairs) if self.shared else pairs
        progress = Progress('scoring pictures', len(pairs))
        for done, (i, pair) in enumerate(pairs, 1):
            item = self.pictures[0, i]
            yield pair, item['label'].squeeze(0), item['image']
            progress(done)

    def all_of(self, found):
        """What was found for every pair of this process's part -> of all pairs, in their order."""
        return sum(distributed.all_gather(found), []) if self.shared else found


def void_of(config, words):
    """The labels that do not count, as --void names them, else as the run knows them. UserError for
    a label that it has not."""
    if words is None:
        return set(config.void)
    names, n = config.label_names, config.n_labels
    void = {word: parse_label(word, names) for word in words if word != 'none'}
    wrong = [word for word, label in void.items() if not 0 <= label < n]
    if wrong or len(set(void.values())) == n:
        raise UserError(f'--void {" ".join(words)}: expected numbers from 0 to {n - 1}'
                        f'{" or names of labels" * bool(names)}, not all of them, or none'
                        + (did_you_mean(wrong[0], names) if wrong else ''))
    return set(void.values())


# -------------------------------------------------------------------------- pictures and measures

def picture(run, pair, image, size, how, known, seed=0, number=0):
    """One picture of a pair's label map, made at the size that the run learned (else `size`), in
    styles that are 'main', 'sampled' or 'encoded' (of the photograph), resized to `size`
    (width, height) -> (C, H, W) uint8, or float where the photograph `image` is."""
    inst = pair.inst if run.config.instances == 'files' else None
    scene = scenes.read_scene(run.config, pair.label, inst, run.config.size or size)
    noise = run_styles.picture_seed(seed, pair.name, number)
    photo = scenes.read_photo(run.config, pair.image, scene) if how == 'encoded' and run.E else None
    vectors = generate.choose_vectors(run, scene, known, photo,
                                      noise if how == 'sampled' else None)
    fake = generate.synthesise(run, scene, vectors, noise)
    array = to_uint8_hwc(fake) if image.dtype == torch.uint8 else (
        fake[0].permute(1, 2, 0).cpu().numpy())
    return data.to_tensor(data.resize(array, size))


def reconstruction(fake, real):
    """How far a picture is from its photograph, both (C, H, W) uint8 or float -> mean absolute
    difference in grey levels, PSNR in dB and SSIM (Wang et al., 2004: 11x11 Gaussian windows of 1.5
    pixels, mean over the channels)."""
    x, y = ((data.to_float(image).cpu()[:, None].double() + 1) * 127.5 for image in (fake, real))
    apart = (x - y).abs()
    psnr = 10 * torch.log10(255 ** 2 / apart.square().mean())       # inf where they are the same

    taps = torch.exp(-(torch.arange(11.).double() - 5).square() / (2 * 1.5 ** 2))
    window = (taps[:, None] * taps / taps.sum() ** 2)[None, None]
    if min(x.shape[-2:]) < 11:
        window = torch.ones(1, 1, 1, 1).double()
    mean_x, mean_y, xx, yy, xy = (F.conv2d(z, window) for z in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = ((2 * mean_x * mean_y + c1) * (2 * (xy - mean_x * mean_y) + c2)
            / (mean_x ** 2 + mean_y ** 2 + c1)
            / (xx - mean_x ** 2 + yy - mean_y ** 2 + c2))
    return float(apart.mean()), float(psnr), float(ssim.mean())


def diversity(samples, regions, vgg=None):
    """Mean distance of all pairs of samples (C, H, W) of one map -> in grey levels, the mean over
    the instances `regions` (H, W); and over VGG-19's features, weighted as in losses.vgg_loss (None
    without)."""
    _, slot, pixels = regions.unique(return_inverse=True, return_counts=True)
    levels, features = [], []
    for i, one in enumerate(samples):
        for other in samples[:i]:
            one_, other_ = (data.to_float(sample) for sample in (one, other))
            apart = (one_ - other_).abs().mean(0).cpu().flatten() * 127.5
            levels.append((slot.flatten().bincount(apart) / pixels).mean())
            if vgg:
                device = next(vgg.parameters()).device
                features.append(losses.vgg_loss(vgg(one_[None].to(device)),
                                                vgg(other_[None].to(device))))
    return float(torch.stack(levels).mean()), float(torch.stack(features).mean()) if vgg else None


def flat_colours(config, pairs, split):
    """Each label's mean colour in the training photographs -> (n_labels, C) of their type, the mean
    of all where a label does not occur: what no network is needed for."""
    sums = torch.zeros(config.n_labels, config.out_channels, dtype=torch.float64)
    counts = torch.zeros(config.n_labels, dtype=torch.float64)
    pictures, whole = split.at_size(pairs[::-(-len(pairs) // FLAT_PICTURES)]), True
    for i in range(len(pictures)):
        with suppress(UserError):                   # of a picture that training left out
            item = pictures[0, i]
            label = item['label'].flatten().long()
            sums.index_add_(0, label, item['image'].flatten(1).T.double())
            counts += label.bincount(minlength=config.n_labels)
            whole = not item['image'].is_floating_point()
    means = sums / counts.clamp(min=1)[:, None]
    means[counts == 0] = sums.sum(0) / counts.sum().clamp(min=1)
    return means.round().to(torch.uint8) if whole else means.float()


# --------------------------------------------------------------------------------------- a row

class Recogniser:
    """Judges pictures, by our own judge or by somebody's predictions."""

    def __init__(self, config, void, judge=None, predictions=None):
        self.config, self.void = config, void
        self.judge, self.predictions = judge, predictions

    def tally(self, image, label, place, name):
        """judge.count_pixels of one picture; place: the folder that --write puts it into."""
        if self.predictions:
            found = judging.read_prediction(self.predictions / place, name, label.shape,
                                            self.config)
        else:
            found = self.judge(image[None], self.void)[0]
        return judging.count_pixels(found, label, self.void, self.config.n_labels)


def score_pictures(name, split, make, recogniser, place, write=None, keep=()):
    """Score the pictures make(pair, label, photograph) -> Row, {scene: picture} of those to keep.
    write: a folder that receives them as <place>/<scene>.png."""
    found = []
    for pair, label, real in split:
        image = make(pair, label, real)
        found.append((recogniser and recogniser.tally(image, label, place, pair.name),
                      reconstruction(image, real),
                      (pair.name, image) if pair.name in keep else None))
        if write:
            make_folder(write / place)
            write_picture(write / place / f'{pair.name}.png',
                                    data.to_float(image[None]))
    tallies, measures, kept = zip(*split.all_of(found))
    means = dict(zip(('l1', 'psnr', 'ssim'), np.mean(measures, 0).tolist()))
    return (Row(name, judging.Scores(tallies) if recogniser else None, means),
            dict(filter(None, kept)))


def score_run(run, name, split, recogniser, known, how='main', seed=0, place='', write=None,
              keep=()):
    """`score` of what a run makes, its nearness measured with the styles of the photographs."""
    def make(how):
        return lambda pair, label, real: picture(run, pair, real, split.size, how, known, seed)

    row, kept = score_pictures(name, split, make(how), recogniser, place, write, keep)
    if run.E and how != 'encoded':
        near = score_pictures(name, split, make('encoded'), None, place)[0]
        row = row._replace(measures=near.measures)
    return row, kept


def score_samples(run, split, known, seed, vgg):
    """Measures of how much the samples of a run differ; none where it draws nothing."""
    if not run.E and run.config.model != 'unet':
        return {}
    distances = []
    for pair, label, real in split:
        samples = [picture(run, pair, real, split.size, 'sampled', known, seed, i)
                   for i in range(SAMPLES)]
        distances.append(diversity(samples, split.regions(pair, label), vgg))
    levels, features = zip(*split.all_of(distances))
    measures = {'diversity': float(np.mean(levels))}
    return {**measures, 'vgg_diversity': float(np.mean(features))} if vgg else measures


def scorer(config, pairs, folder, device):
    """A function that makes the WhileTraining of a run; None without --evaluate-every."""
    def make():
        return WhileTraining(config, *inspection.train_and_heldout(config, pairs), device, folder)

    return make if config.training.evaluate_every else None


class WhileTraining:
    """The scores of a run as it is trained, on pictures that it does not see: called with the run
    and styles, -> {'mean_iou', 'pixel_accuracy', 'class_accuracy', 'l1', 'psnr', 'ssim': number};
    of pictures to pictures 'psnr' and the two others."""

    def __init__(self, config, pairs, held, device, folder):
        """pairs: those trained on; held: [Pair] held out of them, or []: another split serves."""
        split = 'held' if held else 'val'
        held = held or inspection.other_split_pairs(config, SCORED_WHILE_TRAINING, runs.min_training_side(config))
        if not held:
            raise UserError(f'{config.training.data}: no split val or test to score; hold some '
                            'pictures out of those trained on with --hold-out N')
        self.split = Split(config, config.training.data, split, config.size, held)
        self.recogniser = None
        if config.n_labels:
            void = set(config.void)
            judge, _ = judging.find_or_train(config, config.training.data, pairs, self.split.size, void,
                                    device, folder.parent)
            self.recogniser = Recogniser(config, void, judge)

    def __call__(self, run, known):
        (_, scores, near), _ = score_run(run, '', self.split, self.recogniser, known)
        if not scores:
            return {'psnr': near['psnr'], 'l1': near['l1'], 'ssim': near['ssim']}
        return {'mean_iou': scores.mean_iou, 'pixel_accuracy': scores.pixel_accuracy,
                'class_accuracy': scores.class_accuracy, **near}


# ------------------------------------------------------------------------------------ the table

def evaluate_runs(folders, device, which='newest', average=True, root=None, split=None, size=None,
            how='main', void=None, judge=None, predictions=None, seed=0, vgg=None, write=None,
            out=None, n_labels=None):
    """Score the runs in `folders` side by side, the ceiling first and the floor last; say the table
    and write scores.json and a sheet of pictures into `out`. UserError where they, the data or the
    judge do not go together.

    which, average, n_labels: as in runs.load_run. root, split, size: the data set, a part of it and
    (width, height), by default those of the first run, `val` (or `held`, what --hold-out left out)
    and the smallest of the runs'. how: 'main', 'sampled' or 'encoded'. void: see void_of. judge:
    the file of one. predictions: a folder of somebody's label maps. vgg: nets.VGG19. write:
    receives the pictures.
    """
    write, predictions = (path and Path(path) for path in (write, predictions))
    out = Path(out or folders[0] / 'evaluation')
    require_folder(out)
    names = unique_names(folders)
    configs = read_configs(folders, which, n_labels)
    config, t = configs[0], configs[0].training
    check_wishes(folders[0], configs, how, void, judge, predictions)
    root = root or (t and t.data)
    if not root:
        raise UserError(f'{folders[0]}: does not say what it was trained on; name it with --data '
                        'DIR')
    size = size or min((other.size for other in configs if other.size), default=None)
    void = void_of(config, void)

    # The pictures, and who recognises them.
    trained, held = training_photographs(config, root)
    split = split or ('held' if held else 'val')
    pictures = Split(config, root, split, size, held if split == 'held' and held else None, True)
    if vgg and (config.out_channels != 3 or min(pictures.size) < 16):
        raise UserError('--vgg: VGG-19 looks at RGB pictures of at least 16x16')
    warn_of_seen(folders, configs, root, pictures)
    if write:
        check_write(write, pictures)
    recogniser, who = None, 'none'
    if config.n_labels and predictions:
        recogniser, who = Recogniser(config, void, predictions=predictions), predictions
    elif config.n_labels:
        with distributed.main_process_first():
            own, path = judging.find_or_train(config, root, trained, pictures.size, void, device,
                                     folders[0].absolute().parent, judge)
        recogniser = Recogniser(config, void, own)
        about = own.about
        who = (f'{path}, trained at {about["size"][0]}x{about["size"][1]} on '
               f'{about["pictures"]} photographs')

    # Ceiling, runs, floor.
    shown = [pictures.pairs[i].name for i in np.unique(
        np.linspace(0, len(pictures.pairs) - 1, ON_THE_SHEET).astype(int))]
    made = [score_pictures('real photographs', pictures, lambda pair, label, real: real, recogniser, 'real',
                  write, shown)]
    for name, folder in zip(names, folders):
        run = runs.load_run(folder, device, training=False, which=which, average=average,
                        n_labels=n_labels)
        place = 'fake' if len(folders) == 1 else f'fake-{name}'
        with distributed.main_process_first():
            known = run_styles.load_or_cluster_styles(run, folder, root)
        t = run.config.training
        title = f'{name}, step {run.step}' + ', average' * bool(t and t.ema and average)
        row, kept = score_run(run, title, pictures, recogniser, known, how, seed, place, write,
                              shown)
        row.measures.update(score_samples(run, pictures, known, seed, vgg))
        made.append((row, kept))
    if config.n_labels and not predictions and trained:
        colours = flat_colours(config, trained, pictures)
        made.append(score_pictures('flat mean colours', pictures, lambda pair, label, real: (
            colours[label.long()].permute(2, 0, 1)), recogniser, '', None, shown))

    if distributed.IS_MAIN:
        named = config.label_names or [str(i) for i in range(config.n_labels)]
        left_out = (f'{", ".join(named[i] for i in sorted(void))}, whose pixels are left out'
                    if void else 'none')
        report(out, config, pictures, made, named,
               f'judge {who}; {pictures.size[0]}x{pictures.size[1]}; void {left_out}'
               + ('; the best checkpoint, chosen by such scores' if which == 'best' else '')
               + f'; styles {how}, where there are any; split {split} of {root}, '
                 f'{plural(len(pictures.pairs), "picture")}')
        if config.training and out == folders[0] / 'evaluation':
            reporting.try_write_run_page(folders[0], config, 'the scores are there')


def check_wishes(folder, configs, how, void, judge, predictions):
    """UserError for what is asked for, as of compare, and has no meaning for the runs, the first of
    which is in `folder`."""
    for flag, value in (('--void', ' '.join(void or ())), ('--judge', judge),
                        ('--predictions', predictions)):
        if value and not configs[0].n_labels:
            raise UserError(f'{flag} {value}: the runs turn pictures into pictures, which have no '
                            'labels; leave it out')
    if how != 'main' and not any(config.features for config in configs):
        raise UserError(f'--styles {how}: {folder} was trained without --features, so it has one '
                        'style only; leave it out')


def read_configs(folders, which, n_labels):
    """The configurations of runs, as runs.read_run has them. UserError where they have other labels."""
    configs = [runs.read_run(folder, which=which, n_labels=n_labels)[1]['config'] for folder in folders]
    for folder, other in zip(folders, configs):
        if any(getattr(other, name) != getattr(configs[0], name) for name in (
                'n_labels', 'label_names', 'label_table', 'palette', 'out_channels')):
            raise UserError(f'{folder}: of other labels than {folders[0]}; compare runs of one '
                            'data set')
    return configs


def report(out, config, pictures, made, named, protocol):
    """Say what was measured, made: [(Row, {scene: picture})], and write it into the folder `out`.
    named: what the labels are called."""
    rows, columns = zip(*made)
    log_info(f'protocol: {protocol}')
    for line in table(rows, named):
        log_info(line)
    make_folder(out)
    write_text(out / 'scores.json', json.dumps(
        {'protocol': protocol, 'rows': [row_to_dict(row, named) for row in rows]}, indent=1))
    write_sheet(out / 'sheet.png', config, pictures, columns)
    log_info(f'{out / "scores.json"}\n{out / "sheet.png"}')


def warn_of_seen(folders, configs, root, pictures):
    """Say which runs were trained on pictures that are scored."""
    scored = {pair.image for pair in pictures.pairs}
    for folder, config in zip(folders, configs):
        t = config.training
        if t and resolve_path(t.data) == resolve_path(root):
            seen = scored & {pair.image for pair in training_photographs(config, root)[0]}
            if seen:
                warn(f'warning: {folder}: {len(seen)} of the {len(scored)} pictures that are '
                     'scored are among those that it was trained on')


def check_write(folder, pictures):
    """UserError where the folder has pictures of another evaluation, among which these would be."""
    names = {pair.name for pair in pictures.pairs}
    for place in (folder / 'real', *folder.glob('fake*')):
        others = [path for path in place.glob('*.png') if path.stem not in names]
        if others:
            raise UserError(f'--write {folder}: {len(others)} pictures of another evaluation are '
                            f'there, as {others[0]}; choose another folder')


def unique_names(folders):
    """What runs are called: the names of their folders, with those above where two are alike.
    UserError where a run is named twice."""
    paths = [resolve_path(folder) for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f'--run: {path} is named twice')
    names = [path.name for path in paths]
    return names if len({*names}) == len(names) else ['-'.join(path.parts[1:]) for path in paths]


def training_photographs(config, root):
    """The pairs in the folder `root` that a run was trained on, or would have been, and those that
    were held out. None of either where there is no such split."""
    t = config.training
    with suppress(UserError):
        pairs = layouts.find_pairs(root, t.split if t else 'train')[1]
        return inspection.train_and_heldout(config, [
            pair for pair in pairs if not t or pair.name not in t.left_out])
    return [], []


def table(rows, named):
    """The lines of a table: what was measured in the columns, a row each."""
    lines = reporting.as_table([row_to_dict(row, named) for row in rows])
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        yield '  '.join([line[0].ljust(widths[0]), *(
            cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
    if rows[0].scores:
        missing = int((~rows[0].scores.occurs).sum())
        yield (f'in brackets: 95 % of {judging.RESAMPLES} resamples of the pictures; '
               f'{missing} labels that no map here has, or that are void, do not count; L1, PSNR '
               'and SSIM with the styles of the photographs, where there is an encoder')


def row_to_dict(row, named):
    values = {'name': row.name, **{name: reporting.finite_or_none(value)
                                   for name, value in row.measures.items()}}
    if row.scores:
        s = row.scores
        values |= {
            'pixel_accuracy': s.pixel_accuracy, 'class_accuracy': s.class_accuracy,
            'mean_iou': s.mean_iou, 'pixel_accuracy_with_void': s.with_void,
            'bounds': dict(zip(('pixel_accuracy', 'class_accuracy', 'mean_iou'), s.bounds)),
            'iou': {name: float(value) for name, value in zip(named, s.iou)
                    if not np.isnan(value)}}
    return values


def write_sheet(path, config, pictures, columns):
    """A row for each map: label | real photograph | each run's picture | flat colours."""
    rows = []
    for i, pair in enumerate(pictures.pairs):
        if pair.name in columns[0]:
            rows.append(strip(
                config, pictures.pictures[0, i]['label'],
                [data.to_float(column[pair.name])[None] for column in columns]))
    write_png(path, np.concatenate(rows))
