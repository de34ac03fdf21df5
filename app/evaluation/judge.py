"""The judge (paper section 4.1): a segmentation network, trained on real photographs only."""
import json
import math
from pathlib import Path
import zlib

import numpy as np
import torch
import torch.nn.functional as F

from app.common.config import format_value
from app.common.console import Progress, log_info, plural, warn, warn_on_error
from app.common.errors import UserError, as_user_error
from app.common.files import make_folder, require_regular_file, write_atomically
from app.datasets import decoding, inspection
from app.datasets.pairs import PairReader, ids_to_labels, open_dataset
from app.evaluation.measures import count_pixels
from app.runs import checkpoints
from app.runs.transfer import ids_of_labels
import data
import nets

VERSION = 1                                 # raise it when the same photographs give another judge
WIDTH, BATCH, LEARNING_RATE = 32, 4, 1e-3
EPOCH_STEPS, MAX_EPOCHS, MAX_HALVINGS = 100, 60, 4


class Judge:
    """A segmentation network that recognises the label map of a picture. void: set of labels that
    it never answers, nor is trained on. about: what it was trained on."""

    def __init__(self, config, void, about):
        n_levels = max(2, min(7, int(math.log2(min(about['size']) / 3))))   # leave a few pixels
        self.net = nets.UNet(config.out_channels, config.n_labels, WIDTH, n_levels, 'bilinear',
                             dropout=0, tanh=False)
        self.void, self.about = void, about

    def logits(self, image):
        """Return (N, n_labels, H, W) for pictures (N, C, H, W) of any size, float in [-1, 1]."""
        h, w = image.shape[-2:]
        with nets.autocast(image.device, 'fp32'):           # whatever the run computes in
            return self.net(data.pad_to_multiple(image, self.net.multiple))[..., :h, :w]

    @torch.inference_mode()
    def __call__(self, picture, name=None):
        """Return the label map (H, W) int64 of a picture (C, H, W), uint8 or float in [-1, 1]."""
        device = next(self.net.parameters()).device
        logits = self.logits(data.to_float(picture[None].to(device)))
        logits[:, sorted(self.void)] = -torch.inf
        return logits.argmax(1)[0]

    def cross_entropy(self, label, image):
        """Return the mean cross-entropy over the pixels that are not void; 0 if all are void."""
        target = label[:, 0].long()
        void = torch.tensor(sorted(self.void), dtype=torch.long, device=target.device)
        target = target.masked_fill(torch.isin(target, void), -100)         # -100: ignored
        total = F.cross_entropy(self.logits(image), target, reduction='sum')
        return total / (target >= 0).sum().clamp(min=1)


def load_or_train_judge(evaluation, pairs, device, folder, path=None,
                        remedy='use --judge FILE, --judge none or --predictions DIR'):
    """Return the Judge of a scoring.Evaluation and a description of it. If its file (`path`, or one
    in `folder`) is missing, train it on `pairs`. UserError for a bad file, or for too few pairs,
    with a remedy."""
    config, size, void = evaluation.config, evaluation.size, evaluation.void
    # All that a judge depends on. A checksum of it names the file, so keys and order must stay.
    files = [(pair.name, pair.image.is_file() and pair.image.stat().st_size) for pair in pairs]
    about = {'version': VERSION, 'layout': config.layout, 'n_labels': config.n_labels,
             'channels': config.out_channels, 'label_names': config.label_names,
             'label_table': config.label_table and sorted(config.label_table.items()),
             'palette': config.palette, 'size': list(size), 'void': sorted(void),
             'pictures': len(pairs), 'checksum': zlib.crc32(json.dumps(files).encode())}
    path = Path(path or folder / f'judge-{zlib.crc32(json.dumps(about).encode()):08x}.pt')
    if path.exists():
        judge = read_judge(path, config, void, device)
        for name, what in (('size', 'pictures of another size'), ('void', 'other void labels'),
                           ('checksum', 'other photographs than those here')):
            if judge.about[name] != about[name]:
                warn(f'note: {path}: this judge was trained with {what}')
    elif len(pairs) < 2:
        raise UserError(f'{evaluation.root}: {plural(len(pairs), "training photograph")}, a judge '
                        f'needs 2; {remedy}')
    else:
        make_folder(path.parent)
        log_info(f'training a judge on {len(pairs)} photographs, once, for {path}')
        torch.manual_seed(0)
        judge = Judge(config, void, about)
        train_judge(judge, config, pairs, size, device)
        stored = {'about': about, 'weights': checkpoints.copy_tree(judge.net.state_dict(), 'cpu')}
        warn_on_error(lambda: write_atomically(path, lambda file: torch.save(stored, file)),
                      'the judge is not saved')
    return judge, (f'{path}, trained at {format_value(judge.about["size"])} on '
                   f'{judge.about["pictures"]} photographs')


def read_judge(path, config, void, device):
    """Return the Judge in a file. UserError if it is none for the labels of `config`."""
    require_regular_file(path)
    remedy = 'delete it' if path.match('judge-*.pt') else 'name another'
    with as_user_error(path, f'not a judge written by evaluate; {remedy}'):
        stored = torch.load(path, map_location='cpu', weights_only=True)
        checkpoints.check_tensors(stored, path)
        about = stored['about']
        if about['version'] != VERSION or not {'void', 'pictures', 'checksum'} <= about.keys():
            raise ValueError(f'version {about["version"]}')
        if (about['n_labels'], about['label_names'], about['channels']) != (
                config.n_labels, config.label_names, config.out_channels):
            raise UserError(f'{path}: this judge has {about["n_labels"]} labels of '
                            f'{about["layout"]}, the run has {config.n_labels} of {config.layout}; '
                            'leave --judge out, or name another')
        judge = Judge(config, void, about)
        judge.net.load_state_dict(stored['weights'])
    judge.net.to(device).eval()
    return judge


def train_judge(judge, config, pairs, size, device):
    """Train on nine tenths of the photographs, and validate on one tenth. After an epoch without
    improvement go back to the best weights and halve the learning rate."""
    trained, held = inspection.hold_out(pairs, max(1, len(pairs) // 10))
    reader, workers = PairReader(config, size, 'none'), getattr(config.training, 'workers', 0)
    dataset = open_dataset(trained, reader, flip=True, jitter=1.2, workers=workers)
    validation = open_dataset(held, reader, workers=workers)
    optimizer = torch.optim.Adam(judge.net.to(device).parameters(), LEARNING_RATE)
    batch = min(BATCH, len(trained))
    steps = max(EPOCH_STEPS, len(trained) // batch)
    batches = data.batches(dataset, device, batch_sampler=data.ResumableBatchSampler(
        len(trained), batch, 0, steps * MAX_EPOCHS, 0))
    best_loss, halvings, epoch = None, 0, 0
    while epoch < MAX_EPOCHS and halvings < MAX_HALVINGS:
        epoch += 1
        progress = Progress(f'judge: steps of epoch {epoch}', steps)
        for step in range(1, steps + 1):
            label, _, image, _ = data.to_device(next(batches), device)
            optimizer.zero_grad()
            judge.cross_entropy(label, image).backward()
            optimizer.step()
            progress(step)
        losses, counts = [], []
        with torch.inference_mode():
            sampler = [(0, i) for i in range(len(held))]
            for pair in data.batches(validation, device, sampler=sampler):
                label, _, image, _ = data.to_device(pair, device)
                losses.append(judge.cross_entropy(label, image))
                counts.append(
                    count_pixels(judge(image[0]), label[0, 0], judge.void, config.n_labels))
        loss = float(torch.stack(losses).mean())
        correct, true, *_ = np.sum(counts, 0).sum(1).tolist()
        accuracy = correct / max(1, true)           # all of these photographs may be void
        log_info(f'judge: epoch {epoch}: cross-entropy {loss:.3f}, pixel accuracy '
                 f'{100 * accuracy:.1f} % on {plural(len(held), "photograph")} not trained on')
        if best_loss is None or loss < best_loss:
            best_loss, best_accuracy = loss, accuracy
            best_weights = checkpoints.copy_tree(judge.net.state_dict(), 'cpu')
        else:
            halvings += 1
            judge.net.load_state_dict(best_weights)
            optimizer.param_groups[0]['lr'] /= 2
    batches.close()
    judge.net.eval()
    judge.about |= {'held_out': best_accuracy, 'epochs': epoch}


def read_prediction(folder, config, picture, name):
    """Return the label map (H, W) int64 that another network predicted for a picture (C, H, W): the
    file <folder>/<name>.png or .npy, with the ids of the data set's own label maps."""
    paths = [folder / f'{name}{ending}' for ending in ('.png', '.npy')]
    path = next(filter(Path.exists, paths), None)
    if path is None:
        raise UserError(f'{paths[0]}: no such prediction; --predictions needs the folders and the '
                        'names of the pictures that --write makes')
    label, (h, w) = decoding.read_map(path), picture.shape[-2:]
    if not (known := np.isin(label, ids_of_labels(config))).all():
        y, x = np.argwhere(~known)[0]
        raise UserError(f'{path}: {label[y, x]} at x={x}, y={y}: predictions hold the ids of the '
                        f"data set's label maps, and {label[y, x]} is not one of them")
    if config.label_table:
        label = ids_to_labels(label, config.label_table, path)
    if label.shape != (h, w):
        raise UserError(f'{path}: is {label.shape[1]}x{label.shape[0]}, the pictures are {w}x{h}; '
                        'predict at that size, or choose another --size')
    return torch.from_numpy(label).long()
