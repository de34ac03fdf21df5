"""Scores of the pictures that a run makes for the label maps of a data set, and of others to
compare them with."""
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from app.common.console import Progress, warn
from app.common.errors import UserError
from app.common.files import make_folder
from app.datasets import inspection, layouts, scenes
from app.datasets.pairs import IN_MEMORY_BYTES, PairReader, open_dataset
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
        self.dataset = self.make_dataset(pairs)
        w, h = self.size
        keep = len(pairs) * w * h * (config.out_channels + 1) <= IN_MEMORY_BYTES
        self.pairs, decoded = inspection.keep_usable(lambda pair: (
            self.dataset.read(pair) if keep else bool(self.dataset.read(pair))), pairs, problems,
            'pixels')
        self.dataset.items, self.dataset.decoded = self.pairs, decoded if keep else None
        problem = next(iter(problems.values()), None)
        if not self.pairs:
            raise UserError(f'{root}: no picture of the split {split!r} can be used: {problem}')
        if problem:
            warn(f'note: {root}: {len(problems)} of the split {split!r} left out: '
                 f'{problem}')

    def make_dataset(self, pairs):
        """Return a data.PairedDataset of `pairs` at this size, without instance maps."""
        return open_dataset(pairs, PairReader(self.config, self.size, 'none'), keep=False)

    def regions(self, pair, label):
        """Return the regions (H, W) that count equally in measures.diversity: instances, if there
        are none labels, if there are none the whole picture."""
        if self.config.n_labels == 0:
            return torch.zeros(label.shape[-2:], dtype=torch.long)
        if pair.inst is None:
            return label
        return torch.from_numpy(PairReader(self.config).read_instances(pair.inst, self.size))

    def __iter__(self):
        pairs = list(enumerate(self.pairs))
        pairs = distributed.shard(pairs) if self.shared else pairs
        progress = Progress('scoring pictures', len(pairs))
        for done, (i, pair) in enumerate(pairs, 1):
            item = self.dataset[0, i]
            yield pair, item['label'].squeeze(0), item['image']
            progress(done)

    def gather(self, results):
        """Return the results for all pairs, in order, from those for this process's pairs."""
        return sum(distributed.all_gather(results), []) if self.shared else results


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
    values, counts, shown = zip(*protocol.pictures.gather(results))
    row = {'name': title, **{name: float(np.mean([value[name] for value in values]))
                             for name in values[0]}}
    if protocol.recognise:
        row |= measures.segmentation_scores(counts, label_names(config))
    return row, {name: picture for pictures in shown for name, picture in pictures.items()}


def score_run(protocol, run, title, folder, clusters):
    """Score what a run makes, see score_pictures. With an encoder, L1, PSNR and SSIM are those of
    pictures in the styles of the photographs. clusters: the run's styles, None without encoder."""
    config, size = run.config, protocol.pictures.size

    def synthesise(scene, pair, photo, style_source, number=0):
        seed, style_photo = picture_seed(protocol.seed, pair.name, number), None
        if run.E and style_source == 'encoded':
            style_photo = scenes.read_photo(config, pair.image, scene)
        vectors = generate.choose_vectors(run, scene, clusters, style_photo,
                                          seed if style_source == 'sampled' else None)
        fake = generate.synthesise(run, scene, vectors, seed)
        array = to_uint8_hwc(fake) if photo.dtype == torch.uint8 else (
            fake[0].permute(1, 2, 0).cpu().numpy())
        return data.to_tensor(data.resize(array, size))

    def render(pair, label, photo):
        inst = pair.inst if config.instances == 'files' else None
        scene = scenes.read_scene(config, pair.label, inst, config.size or size)
        make = partial(synthesise, scene, pair, photo)
        picture = make(protocol.style_source)
        encoded = make('encoded') if run.E and protocol.style_source != 'encoded' else picture
        values = measures.reconstruction(encoded, photo)
        if protocol.n_samples and (run.E or config.model == 'unet'):
            samples = [make('sampled', number) for number in range(protocol.n_samples)]
            regions = protocol.pictures.regions(pair, label)
            values |= measures.diversity(samples, regions, protocol.vgg)
        return picture, values

    return score_pictures(protocol, title, folder, render)


def score_flat_colours(protocol, training_pairs):
    """Score label maps painted in the mean colours of their labels, see score_pictures. A label
    that is in no training picture gets the mean colour of all."""
    config, dtype = protocol.pictures.config, torch.uint8
    sums = torch.zeros(config.n_labels, config.out_channels, dtype=torch.float64)
    counts = torch.zeros(config.n_labels, dtype=torch.float64)
    dataset = protocol.pictures.make_dataset(
        training_pairs[::-(-len(training_pairs) // FLAT_PICTURES)])
    for i in range(len(dataset)):
        with suppress(ValueError):                  # training may have left this picture out
            item = dataset[0, i]
            label, dtype = item['label'].flatten().long(), item['image'].dtype
            sums.index_add_(0, label, item['image'].flatten(1).T.double())
            counts += label.bincount(minlength=config.n_labels)
    colours = sums / counts.clamp(min=1)[:, None]
    colours[counts == 0] = sums.sum(0) / counts.sum().clamp(min=1)
    colours = colours.round().to(dtype) if dtype == torch.uint8 else colours.float()

    def render(pair, label, photo):
        picture = colours[label.long()].permute(2, 0, 1)
        return picture, measures.reconstruction(picture, photo)
    return score_pictures(protocol, 'flat mean colours', '', render)


def label_names(config):
    """Return a name for each label: its number if it has no other."""
    return config.label_names or [str(i) for i in range(config.n_labels)]


def training_scorer(config, pairs, folder, device):
    """Return score(run, clusters), which scores a run during training and returns {measure:
    number}; the checkpoint with the highest first number is the best. None without
    --evaluate-every.

    pairs: all pairs of the training split; folder: the run's folder.
    Raises: UserError if there are no pictures to score.
    """
    if not config.training.evaluate_every:
        return None
    root, void = config.training.data, set(config.void)
    trained, held = inspection.train_and_heldout(config, pairs)
    scored = held or inspection.other_split_pairs(config, TRAINING_SCORE_PICTURES,
                                                  configurations.min_training_side(config))
    if not scored:
        raise UserError(f'{root}: no split val or test to score; use --hold-out N to keep N '
                        'pictures from training')
    pictures = EvaluationSet(config, root, 'held' if held else 'val', config.size, scored)
    names, judge = ('psnr', 'l1', 'ssim'), None
    if config.n_labels:
        names = ('mean_iou', 'pixel_accuracy', 'class_accuracy', 'l1', 'psnr', 'ssim')
        judge, _ = load_or_train_judge(config, root, trained, pictures.size, void, device,
                                       folder.parent)
    protocol = Protocol(pictures, void, judge)

    def score(run, clusters):
        row, _ = score_run(protocol, run, '', '', clusters)
        return {name: row[name] for name in names}
    return score
