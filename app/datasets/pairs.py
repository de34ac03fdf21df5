"""From pairs of files to a data.PairedDataset: decoded, resized, checked, kept where they fit."""
from pathlib import Path

import numpy as np

from app.common.errors import UserError
from app.datasets import layouts
from app.datasets.cache import open_cache
from app.datasets.decoding import map_in_threads
import data

IN_MEMORY_BYTES = 1 << 30                           # decoded data sets below this stay in memory


class PairReader:
    """Reads the files of a layouts.Pair: {'label', 'image', 'inst': (H, W[, C]) ndarray}.

    Labels are uint8, above 256 labels int32; where n_labels is 0 the label map is a picture.
    Instances are int32, or missing where instances is 'none'.
    Raises UserError, which names the file.
    """

    def __init__(self,
                 readers,                   # layouts.Readers
                 n_labels,
                 size=None,                 # resize to (width, height)
                 instances='files'):        # 'files', 'components' of each label, or 'none'
        self.readers, self.n_labels, self.size = readers, n_labels, size
        self.instances = instances

    def __call__(self, pair):
        image = self.readers.image(pair.image, self.size)
        size = image.shape[1::-1]
        label = self.readers.label(pair.label, size)
        if self.n_labels == 0:
            return {'label': label, 'image': image}
        check_labels(label, pair.label, self.n_labels)
        label = label.astype(np.uint8 if self.n_labels <= 256 else np.int32)
        arrays = {'label': label, 'image': image}
        if self.instances == 'files':
            arrays['inst'] = self.readers.inst(pair.inst, size)
        elif self.instances == 'components':
            arrays['inst'] = data.connected_components(label)
        return arrays


def check_labels(label, path, n_labels):
    """Raise UserError, which names the first pixel, unless all labels (H, W) are in
    0 ... n_labels - 1."""
    invalid = (label < 0) | (label >= n_labels)
    if invalid.any():
        y, x = np.argwhere(invalid)[0]
        raise UserError(f'{path}: label {label[y, x]} at x={x}, y={y}; this run has {n_labels} '
                        f'labels (0 to {n_labels - 1}). Was this map made for another data set?')


def pair_reader(config, size=None, instances=None):
    """The PairReader of a run's configuration. instances: in place of the configuration's."""
    return PairReader(layouts.config_readers(config), config.n_labels, size,
                      instances or config.instances)


def open_dataset(pairs, read, cache=None, keep=True, **augmentation):
    """Make a data.PairedDataset.

    read: a PairReader.
    cache: a folder of decoded pictures, see cache.open_cache.
    keep: decode small data sets of one size once, into memory.
    augmentation: the other arguments of data.PairedDataset.
    """
    decoded = None
    if cache:
        decoded = open_cache(Path(cache), pairs, read)
    elif keep and read.size and len(pairs) * read.size[0] * read.size[1] * 8 <= IN_MEMORY_BYTES:
        decoded = map_in_threads(read, pairs)
    return data.PairedDataset(pairs, read, read.n_labels, decoded=decoded, **augmentation)
