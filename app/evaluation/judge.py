"""The judge of synthesised pictures (paper section 4.1): a segmentation network that has seen real
photographs alone, and how well it finds the label map in a picture."""
import json
from pathlib import Path
import zlib

import numpy as np
import torch
import torch.nn.functional as F

from app.runs import checkpoints
import data
from app.datasets import decoding
from app.common.console import Progress, log_info, warn
from app.common.errors import UserError, warn_on_error, as_user_error
from app.common.files import require_regular_file, make_folder, write_atomically
from app.datasets import palettes
from app.datasets import inspection
from nets import UNet
from app.datasets.pairs import PairReader, check_labels, open_dataset

VERSION = 1                                 # raised when a judge would come out otherwise
WIDTH, BATCH, RATE = 32, 4, 1e-3
EPOCH_STEPS, MOST_EPOCHS, HALVINGS = 100, 60, 4
RESAMPLES = 1000                            # of the bootstrap


class Judge:
    """A trained network, and what it was trained on: `net`, `about` (a dict of plain values)."""

    def __init__(self, net, about):
        self.net, self.about = net, about

    @torch.inference_mode()
    def __call__(self, image, void):
        """image (N, C, H, W) uint8 or float, void: labels that are no answer -> the label map that
        is recognised, (N, H, W) int64."""
        h, w = image.shape[-2:]
        image = data.to_float(image.to(next(self.net.parameters()).device))
        scores = self.net(data.pad_to_multiple(image, self.net.multiple))[..., :h, :w]
        scores[:, sorted(void)] = -torch.inf
        return scores.argmax(1)


def unet_levels(size):
    """Levels of the judge's U-Net: down to a few pixels."""
    return max(2, min(7, int(np.log2(min(size) / 3))))


def describe_judge(config, pairs, size, void):
    """What a judge depends on -> a dict of plain values."""
    return {'version': VERSION, 'layout': config.layout, 'n_labels': config.n_labels,
            'channels': config.out_channels, 'label_names': config.label_names,
            'label_table': config.label_table and sorted(config.label_table.items()),
            'palette': config.palette, 'size': list(size), 'void': sorted(void),
            'pictures': len(pairs), 'checksum': zlib.crc32(json.dumps(
                [(pair.name, pair.image.is_file() and pair.image.stat().st_size)
                 for pair in pairs]).encode())}


def find_or_train(config, root, pairs, size, void, device, folder, path=None):
    """The judge that is trained on the photographs `pairs` of the data set `root` at `size` (width,
    height), read where there is one already: in `path`, else in `folder` -> Judge, path. UserError
    where the file is of no use, or there is too little to train on."""
    wanted = describe_judge(config, pairs, size, void)
    own = folder / f'judge-{zlib.crc32(json.dumps(wanted).encode()):08x}.pt'
    path = Path(path) if path else own
    if path.exists():
        found = read_judge(path, config, device, wanted)
        for name, what in (('size', 'pictures of another size'), ('void', 'other void labels'),
                           ('checksum', 'other photographs than those of the training split here')):
            if found.about[name] != wanted[name]:
                warn(f'note: {path}: a judge that was trained with {what}')
        return found, path
    if len(pairs) < 2:
        raise UserError(f'{root}: photographs to train a judge on: {len(pairs)}, and it takes 2; '
                        'name one with --judge FILE, or --predictions DIR')
    make_folder(path.parent)
    log_info(f'training a judge on {len(pairs)} photographs, once: {path}')
    net, scores = train_judge(config, pairs, size, void, device)
    stored = {'about': {**wanted, **scores}, 'weights': net.state_dict()}
    warn_on_error(lambda: write_atomically(path, lambda file: torch.save(stored, file)),
            'the judge is not kept')
    return Judge(net, stored['about']), path


def read_judge(path, config, device, wanted):
    """UserError unless the file is a judge for the labels of a configuration. wanted: see about."""
    require_regular_file(path)
    with as_user_error(path, 'not a judge that evaluate has made; delete it, or name another'):
        stored = torch.load(path, map_location='cpu', weights_only=True)
        checkpoints.check_tensors(stored, path)
        found = stored['about']
        if found['version'] != VERSION or not isinstance(found['held_out'], float):
            raise ValueError(f'version {found["version"]}')
        if missing := wanted.keys() - found.keys():
            raise ValueError(f'without {", ".join(sorted(missing))}')
        if min(found['size']) < 1:
            raise ValueError(f'size {found["size"]}')
        if (found['n_labels'], found['label_names'], found['channels']) != (
                config.n_labels, config.label_names, config.out_channels):
            raise UserError(f'{path}: a judge of {found["n_labels"]} labels of {found["layout"]}, '
                            f'and the run has {config.n_labels} of {config.layout}; leave --judge '
                            'out, or name the right one')
        net = make_network(config, found['size'])
        net.load_state_dict(stored['weights'])
    return Judge(net.to(device).eval(), found)


def make_network(config, size):
    return UNet(config.out_channels, config.n_labels, WIDTH, unet_levels(size), 'bilinear',
                     dropout=0, tanh=False)


def train_judge(config, pairs, size, void, device):
    """Cross-entropy on all but a tenth of the photographs. When an epoch does not lower that of the
    tenth, the best weights come back at half the rate; after some halvings they stay -> network,
    {'held_out': pixel accuracy on the tenth, 'epochs': ...}."""
    seen, held = inspection.hold_out(pairs, max(1, len(pairs) // 10))
    read = PairReader(config, size, 'none')
    workers = config.training.workers if config.training else 0
    dataset = open_dataset(seen, read, flip=True, jitter=1.2, workers=workers)
    tenth = open_dataset(held, read, workers=workers)

    torch.manual_seed(0)
    net = make_network(config, size).to(device)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    batch = min(BATCH, len(seen))
    steps = max(EPOCH_STEPS, len(seen) // batch)
    order = data.ResumableBatchSampler(len(seen), batch, 0, steps * MOST_EPOCHS, 0)
    batches = data.batches(dataset, device, batch_sampler=order)
    best, halvings, epoch = None, 0, 0
    while halvings < HALVINGS and epoch < MOST_EPOCHS:
        progress = Progress(f'judge: steps of epoch {epoch + 1}', steps)
        for done in range(steps):
            label, _, image, _ = data.to_device(next(batches), device)
            optimizer.zero_grad()
            cross_entropy(net, label, image, void).backward()
            optimizer.step()
            progress(done + 1)
        epoch += 1
        score, accuracy = validate(net, tenth, config.n_labels, void, device)
        log_info(f'judge: epoch {epoch}, cross-entropy {score:.3f} and {100 * accuracy:.1f} % of the '
            f'pixels right on {len(held)} photographs it was not trained on')
        if best is None or score < best[0]:
            best = score, accuracy, checkpoints.copy_tree(net.state_dict(), 'cpu')
            continue
        halvings += 1
        net.load_state_dict(best[2])
        for group in optimizer.param_groups:
            group['lr'] /= 2
    batches.close()
    net.load_state_dict(best[2])
    return net.eval(), {'held_out': best[1], 'epochs': epoch}


def is_counted(label, void):
    """Where the labels (int64) are none of the void ones -> bool of the same shape."""
    return ~torch.isin(label, torch.tensor(sorted(void), dtype=torch.long, device=label.device))


def cross_entropy(net, label, image, void):
    """Cross-entropy of what a judge says, less the pixels of `void` labels; 0 where all are."""
    target = label[:, 0].long()
    target = target.masked_fill(~is_counted(target, void), -100)
    h, w = target.shape[-2:]
    scores = net(data.pad_to_multiple(image, net.multiple))[..., :h, :w]
    return F.cross_entropy(scores, target, reduction='sum') / (target >= 0).sum().clamp(min=1)


@torch.inference_mode()
def validate(net, dataset, n_labels, void, device):
    """Mean cross-entropy and pixel accuracy on a data.PairedDataset."""
    judge, losses, tallies = Judge(net, {}), [], []
    for batch in data.batches(dataset, device, sampler=[(0, i) for i in range(len(dataset))]):
        label, _, image, _ = data.to_device(batch, device)
        losses.append(cross_entropy(net, label, image, void))
        tallies.append(count_pixels(judge(image, void)[0], label[0, 0], void, n_labels))
    return float(torch.stack(losses).mean()), Scores(tallies).pixel_accuracy


# -------------------------------------------------------------------------------------- scores

def count_pixels(predicted, label, void, n_labels):
    """Count the pixels of one picture: predicted and label (H, W) integer -> (4, max(n_labels, 2))
    int64 ndarray. Less pixels whose true label is void: those that are right, of each true
    label, of each predicted label; last, void pixels and all: right ones and all, in the first two
    places."""
    predicted, label = predicted.long().cpu(), label.long().cpu()
    right = predicted == label
    counted = is_counted(label, void)
    counts = np.zeros((4, max(n_labels, 2)), np.int64)
    for row, ids in enumerate((label[counted & right], label[counted], predicted[counted])):
        counts[row, :n_labels] = ids.bincount(minlength=n_labels)[:n_labels]
    counts[3, :2] = int(right.sum()), right.numel()
    return counts


class Scores:
    """Pixel accuracy, mean class accuracy and mean IoU of many tallies, with the bounds of 95 % of
    the bootstrap's resamples of the pictures. Labels that no true map has do not count; one that no
    map of a resample has drops out of it, so of few pictures the bounds lie high."""

    def __init__(self, tallies):
        counts = np.stack(tallies).astype(np.float64)       # (pictures, 4, n_labels)
        self.occurs = counts[:, 1].sum(0) > 0
        if not self.occurs.any():
            raise UserError('nothing to score: every pixel of the maps is void; name fewer labels '
                            'with --void')
        whole = self.measure(counts.sum(0)[None])
        self.pixel_accuracy, self.class_accuracy, self.mean_iou, self.with_void = (
            float(value[0]) for value in whole)
        right, true, predicted, _ = counts.sum(0)
        self.iou = np.where(self.occurs, right / np.maximum(true + predicted - right, 1), np.nan)

        n = len(counts)
        shares = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
        resampled = (shares @ counts.reshape(n, -1)).reshape(RESAMPLES, *counts.shape[1:])
        self.bounds = [np.nanpercentile(value, (2.5, 97.5)).tolist()
                       for value in self.measure(resampled)]

    def measure(self, sums):
        """(B, 4, n_labels) -> four (B,)."""
        right, true, predicted, everything = sums.transpose(1, 0, 2)
        with np.errstate(invalid='ignore', divide='ignore'):
            accuracy = right.sum(1) / true.sum(1)
            classes = np.where(true > 0, right / true, np.nan)[:, self.occurs]
            union = true + predicted - right
            iou = np.where(true > 0, right / union, np.nan)[:, self.occurs]
            with_void = everything[:, 0] / everything[:, 1]
        return accuracy, nan_mean(classes), nan_mean(iou), with_void


def nan_mean(values):
    """(B, n) -> (B,), the mean of what is a number."""
    there = ~np.isnan(values)
    return np.where(there, values, 0).sum(1) / np.maximum(there.sum(1), 1)


# ------------------------------------------------------------------------- outside predictions

def read_prediction(folder, name, shape, config):
    """The label map that somebody's network predicted for a picture: <folder>/<name>.png (or .npy)
    with the ids of the data set's own label maps -> (H, W) int64 tensor. UserError where it is not
    there, of another size or with labels out of range."""
    path = next((folder / f'{name}{suffix}' for suffix in ('.png', '.npy')
                 if (folder / f'{name}{suffix}').exists()), None)
    if path is None:
        raise UserError(f'{folder}: no prediction {name}.png for the picture of that name')
    label = decoding.read_map(path)
    if config.label_table:
        label = palettes.ids_to_labels(label, config.label_table, path)
    if label.shape != tuple(shape):
        raise UserError(f'{path}: {label.shape[1]}x{label.shape[0]}, and the pictures are '
                        f'{shape[1]}x{shape[0]}; predict at that size, or say another --size')
    check_labels(label, path, config.n_labels)
    return torch.from_numpy(label).long()
