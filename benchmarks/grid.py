"""Measure the regular grid that transposed convolutions leave in pictures, against photographs.

    python benchmarks/grid.py --run runs/streets

For each sheet that the training wrote: the pattern of 2x2, 4x4 and 8x8 pixels that repeats within
blocks of 32x32 pixels, as its standard deviation in levels of 255. Median of the quarter of blocks
in which the photograph is the smoothest, such as road and sky, for there the eye sees it. The last
column compares the highest frequencies, with a period of two pixels along rows or columns: their
energy in the picture, divided by their energy in the photograph, is given as the median of the
pictures.
"""
import argparse
from pathlib import Path
import sys

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from app.runs import runs

BLOCK, PERIODS = 32, (2, 4, 8)


def flat_blocks(image):
    """Cut an image (H, W, 3) uint8 into blocks and take their mean and slope away: (n, pixels)."""
    grey = image.astype(float).mean(2)
    h, w = (side // BLOCK for side in grey.shape)
    blocks = grey[:h * BLOCK, :w * BLOCK].reshape(h, BLOCK, w, BLOCK).swapaxes(1, 2)
    y, x = np.indices((BLOCK, BLOCK)).reshape(2, -1)
    plane = np.stack([y, x, np.ones_like(x)], 1)
    blocks = blocks.reshape(h * w, -1)
    return blocks - blocks @ np.linalg.pinv(plane).T @ plane.T


def grid_levels(blocks, period):
    """Return the median strength of the pattern with this period in blocks of flat_blocks."""
    n = BLOCK // period
    return np.median(blocks.reshape(-1, n, period, n, period).mean((1, 3)).std((1, 2)))


def nyquist_energy(image):
    """Return the energy of an image (H, W, 3), of even height and width, at a period of two pixels
    along rows or columns."""
    grey = image.astype(float).mean(2)
    energy, (h, w) = np.abs(np.fft.fft2(grey)) ** 2, grey.shape
    return energy[h // 2].sum() + energy[:, w // 2].sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', type=Path, required=True)
    run = parser.parse_args().run
    config = runs.read_run(run)[1]['config']
    sheets = sorted((run / 'samples').glob('*.png'))
    size = config.training and (config.training.crop or config.size)
    if not (sheets and size):
        sys.exit(f'{run}: has no sheets of pictures of one size')
    width, height = size
    print('| steps | ' + ' | '.join(f'period {p} | of photographs' for p in PERIODS)
          + ' | Nyquist |')
    print('|---' * (2 + 2 * len(PERIODS)) + '|')
    for path in sheets:
        sheet = np.asarray(Image.open(path).convert('RGB'))
        rows = [sheet[y:y + height] for y in range(0, len(sheet), height)]
        images = [[row[:, x:x + width] for row in rows] for x in (width, sheet.shape[1] - width)]
        made, photo = (np.concatenate([*map(flat_blocks, column)]) for column in images)
        nyquist = np.median([nyquist_energy(a) / nyquist_energy(b) for a, b in zip(*images)])
        smooth = photo.std(1) <= np.quantile(photo.std(1), 0.25)
        print(f'| {int(path.stem)} | ' + ' | '.join(
            f'{grid_levels(blocks[smooth], p):.2f}' for p in PERIODS for blocks in (made, photo))
            + f' | {nyquist:.2f} |')


if __name__ == '__main__':
    main()
