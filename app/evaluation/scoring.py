"""Scores of the pictures that a run makes for the label maps of a data set, and of others to
compare them with."""
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from app.common.console import Progress, warn
from app.common.errors import UserError
from app.common.files import make_folder
from app.datasets import inspection, layouts, scenes
from app.datasets.pairs import IN_MEMORY_BYTES, PairReader
from app.evaluation import measures
from app.evaluation.judge import load_or_train_judge
from app.runs import configurations, distributed
from app.runs.pictures import to_uint8_hwc, write_picture
from app.runs.run_styles import picture_seed
import data
import generate

FLAT_PICTURES = 200                         # at most, to compute mean colours
TRAINING_SCORE_PICTURES = 100               # at most, to score during training


class EvaluationSet:
    """The readable pairs of a split, at one size. Iterating gives (layouts.Pair, label map (H, W)
    or (C, H, W), photograph (C, H, W) uint8 or float in [-1, 1])."""

    def __init__(self, config, root, split, size, pairs=None, shared=False):
        """config: the configuration of a run with the same labels.
        size: (width, height), or None for the most frequent one.
        pairs: the pairs of the split, or None to find them.
        shared: whether each process of torchrun takes a part of them.
        Raises: UserError if the data set does not fit the run, or no pair is readable.
        """
        self.config, self.root, self.split, self.shared = config, root, split, shared
        problems = {}
        if pairs is None:
            layout, pairs, problems = layouts.find_pairs(root, split)
            if (layout.n_labels == 0) != (config.n_labels == 0):
                raise UserError(f'{root}: its layout is {layout.name}, the run was trained on '
                                f'{config.layout}; choose another --data DIR')
        pairs, headers = inspection.keep_usable(
            lambda pair: inspection.check_headers(pair, config), pairs, problems)
        self.size = size or configurations.default_size(
            config, [image.size for _, image in headers] or [(1, 1)])
        self.reader, (w, h) = PairReader(config, self.size, 'none'), self.size
        keep = len(pairs) * w * h * (config.out_channels + 1) <= IN_MEMORY_BYTES
        self.pairs, decoded = inspection.keep_usable(
            lambda pair: self.reader(pair) if keep else bool(self.reader(pair)), pairs, problems,
            'pixels')
        problem = next(iter(problems.values()), None)
        if not self.pairs:
            raise UserError(f'{root}: no picture of the split {split!r} can be used: {problem}')
        if problem:
            warn(f'note: {root}: {len(problems)} of the split {split!r} left out: {problem}')
        self.dataset = data.PairedDataset(self.pairs, self.reader, config.n_labels,
                                          decoded=decoded if keep else None)

    def __iter__(self):
        numbers = list(range(len(self.pairs)))
        numbers = distributed.shard(numbers) if self.shared else numbers
        progress = Progress('scoring pictures', len(numbers))
        for done, i in enumerate(numbers, 1):
            item = self.dataset[0, i]
            yield self.pairs[i], item['label'].squeeze(0), item['image']
            progress(done)


@dataclass
class Protocol:
    """How pictures are scored: the same for all that are compared."""
    pictures: EvaluationSet
    void: set                               # labels whose pixels do not count
    recognise: Callable | None              # (picture, its name) -> label map (H, W)
    style_source: str = 'main'              # 'main', 'sampled' or 'encoded' (from the photograph)
    seed: int = 0
    n_samples: int = 0                      # of each map, to measure diversity
    vgg: torch.nn.Module | None = None      # to measure it in the features of VGG-19, too
    write: Path | None = None               # folder that receives the pictures
    shown: set = frozenset()                # names of the pictures for the sheet


def score_pictures(protocol, title, folder, render):
    """Score a picture for each pair.

    render: a function (pair, label, photograph) that returns the picture (C, H, W), of the
        photograph's dtype, and {measure: number}.
    folder: the subfolder of protocol.write for the pictures, '' to write none.
    Returns a row of scores.json, {'name': title, measure: mean, ...}, and {name: picture} of the
    pictures for the sheet.
    """
    config, results = protocol.pictures.config, []
    for pair, label, photo in protocol.pictures:
        picture, values = render(pair, label, photo)
        counts = protocol.recognise and measures.count_pixels(
            protocol.recognise(picture, f'{folder}/{pair.name}'), label, protocol.void,
            config.n_labels)
        shown = {pair.name: picture} if pair.name in protocol.shown else {}
        results.append((values, counts, shown))
        if protocol.write and folder:
            make_folder(protocol.write / folder)
            write_picture(protocol.write / folder / f'{pair.name}.png',
                          data.to_float(picture[None]))
    if protocol.pictures.shared:
        results = sum(distributed.all_gather(results), [])
    values, counts, shown = zip(*results)
    row = {'name': title, **{name: float(np.mean([value[name] for value in values]))
                             for name in values[0]}}
    if protocol.recognise:
        row |= measures.segmentation_scores(counts, label_names(config))
    return row, {name: picture for pictures in shown for name, picture in pictures.items()}


def score_run(protocol, run, title, folder, clusters):
    """Score what a run makes, see score_pictures. With an encoder, L1, PSNR and SSIM are those of
    pictures in the styles of the photographs. clusters: the run's styles, None without encoder."""
    config, size, reader = run.config, protocol.pictures.size, protocol.pictures.reader

    def render(pair, label, photo):
        inst = pair.inst if config.instances == 'files' else None
        scene = scenes.read_scene(config, pair.label, inst, config.size or size)

        def synthesise(style_source, number=0):
            seed = picture_seed(protocol.seed, pair.name, number)
            vectors = generate.choose_vectors(
                run, scene, clusters,
                scenes.read_photo(config, pair.image, scene) if style_source == 'encoded' else None,
                seed if style_source == 'sampled' else None)
            fake = generate.synthesise(run, scene, vectors, seed)
            array = to_uint8_hwc(fake) if photo.dtype == torch.uint8 else (
                fake[0].permute(1, 2, 0).cpu().numpy())
            return data.to_tensor(data.resize(array, size))

        picture = synthesise(protocol.style_source)
        encoded = run.E and protocol.style_source != 'encoded'
        values = measures.reconstruction(synthesise('encoded') if encoded else picture, photo)
        if protocol.n_samples and (run.E or config.model == 'unet'):
            samples = [synthesise('sampled', number) for number in range(protocol.n_samples)]
            if config.n_labels == 0:
                regions = torch.zeros(label.shape[-2:], dtype=torch.long)
            else:                           # instances, or labels if there are none
                regions = (torch.from_numpy(reader.read_instances(pair.inst, size)) if pair.inst
                           else label)
            values |= measures.diversity(samples, regions, protocol.vgg)
        return picture, values

    return score_pictures(protocol, title, folder, render)


def score_flat_colours(protocol, training_pairs):
    """Score label maps painted in the mean colours of their labels, see score_pictures. A label
    that is in no training picture gets the mean colour of all."""
    config = protocol.pictures.config
    sums = torch.zeros(config.n_labels, config.out_channels + 1).double()   # colours, pixels
    for pair in training_pairs[::-(-len(training_pairs) // FLAT_PICTURES)]:
        with suppress(ValueError):                  # training may have left this picture out
            arrays = protocol.pictures.reader(pair)
            label, image = (data.to_tensor(arrays[role]).flatten(1) for role in ('label', 'image'))
            sums.index_add_(0, label[0].long(), F.pad(image.T.double(), (0, 1), value=1))
    sums[sums[:, -1] == 0] = sums.sum(0)
    colours = sums[:, :-1] / sums[:, -1:].clamp(min=1)

    def render(pair, label, photo):
        picture = colours[label.long()].permute(2, 0, 1)
        picture = (picture if photo.is_floating_point() else picture.round()).to(photo.dtype)
        return picture, measures.reconstruction(picture, photo)
    return score_pictures(protocol, 'flat mean colours', '', render)


def label_names(config):
    """Return a name for each label: its number if it has no other."""
    return config.label_names or [str(i) for i in range(config.n_labels)]


def training_scorer(config, pairs, folder, device):
    """Return score(run, clusters), which scores a run during training and returns {measure:
    number}; the checkpoint with the highest first number is the best. None without
    --evaluate-every. UserError if there are no pictures to score.

    pairs: all pairs of the training split. folder: the run's folder.
    """
    if not config.training.evaluate_every:
        return None
    root, void, judge = config.training.data, set(config.void), None
    trained, held = inspection.train_and_heldout(config, pairs)
    scored = held or inspection.other_split_pairs(config, TRAINING_SCORE_PICTURES,
                                                  configurations.min_training_side(config))
    if not scored:
        raise UserError(f'{root}: no split val or test to score; use --hold-out N to keep N '
                        'pictures from training')
    pictures = EvaluationSet(config, root, 'held' if held else 'val', config.size, scored)
    names = ('psnr', 'l1', 'ssim')
    if config.n_labels:
        names = ('mean_iou', 'pixel_accuracy', 'class_accuracy', 'l1', 'psnr', 'ssim')
        judge, _ = load_or_train_judge(config, root, trained, pictures.size, void, device,
                                       folder.parent)
    protocol = Protocol(pictures, void, judge)

    def score(run, clusters):
        row, _ = score_run(protocol, run, '', '', clusters)
        return {name: row[name] for name in names}
    return score
