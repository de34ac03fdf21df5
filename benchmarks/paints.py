"""Measure whether styles are what they seem to be: sampled cars of scenes that a run was not
trained on, each compared with the same car drawn in every paint.

    python benchmarks/paints.py --run runs/street

A car counts where the drawn car that is nearest to the picture has the paint of the car's style.
The paint of a style is that of most cars whose features are nearest to it.
"""
import argparse
from pathlib import Path
import sys

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from app.demo import streets
from app.runs import folders, pictures, run_styles, runs
import data
import generate

SEED = 1000                                 # of the scenes
LEAST = 1 / 640                             # the smallest car, as a share of the picture


class OnePaint:
    """A random generator that always draws row k."""

    def __init__(self, k):
        self.k = k

    def integers(self, n):
        return self.k % n


def cars(inst):
    """Return {id: (H, W) bool, where it is seen} of the cars of an instance map."""
    found = {i: inst == i for i in np.unique(inst).tolist() if i // 1000 == streets.CAR}
    return {i: seen for i, seen in found.items() if seen.mean() >= LEAST}


def paint_of_styles(run, clusters, size, n_scenes=100):
    """Count by its features how many cars of each paint are nearest to each style: (k, paints)."""
    centres = clusters['centres'][streets.CAR][clusters['counts'][streets.CAR] > 0]
    paints = np.zeros((len(centres), len(streets.CAR_COLOURS)), int)
    for i in range(n_scenes):
        drawn = streets.draw_scene(i, size, SEED + 1)
        label, inst, image = (data.to_tensor(array)[None] for array in drawn[:3])
        scene = generate.make_scene(run.config, label, inst)
        vectors = generate.encode_image(run, data.to_float(image), scene).numpy()
        for car in cars(drawn.inst):
            vector = vectors[scene.ids.tolist().index(car)]
            paints[np.square(centres - vector).sum(1).argmin(), drawn.colours[car]] += 1
    return paints


def compare(run, clusters, paint_of_style, size, n_scenes=50):
    """Sample styles for unseen scenes and count: (paint of a car's style, paint it is nearest to).
    """
    centres, counts = clusters['centres'][streets.CAR], np.zeros((len(streets.CAR_COLOURS),) * 2,
                                                                 int)
    for i in range(n_scenes):
        drawn = [streets.draw_scene(i, size, SEED, OnePaint(k))
                 for k in range(len(streets.CAR_COLOURS))]
        label, inst = (data.to_tensor(array)[None] for array in drawn[0][:2])
        scene = generate.make_scene(run.config, label, inst)
        vectors = generate.scene_styles(run, scene, clusters, seed=i)
        picture = pictures.to_uint8_hwc(generate.synthesise(run, scene, vectors)).astype(float)
        for car, seen in cars(drawn[0].inst).items():
            vector = vectors[scene.ids.tolist().index(car)].numpy()
            style = np.square(centres - vector).sum(1).argmin()
            errors = [np.square(picture[seen] - other.image[seen]).mean() for other in drawn]
            counts[paint_of_style[style], np.argmin(errors)] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', type=Path, default=folders.BUILT_IN)
    run_folder = parser.parse_args().run
    run = runs.load_run(run_folder, torch.device('cpu'), training=False)
    clusters = run_styles.load_or_cluster_styles(run, run_folder)
    paints = paint_of_styles(run, clusters, run.config.size)
    print(f'{paints.max(1).sum()} of {paints.sum()} cars have the paint of their style; styles x '
          f'paints:\n{paints}')
    counts = compare(run, clusters, paints.argmax(1), run.config.size)
    share = counts.trace() / counts.sum()
    print(f'{counts.trace()} of {counts.sum()} sampled cars ({100 * share:.1f} %) are nearest to '
          f'the paint of their style; paint of the style x nearest paint:\n{counts}')


if __name__ == '__main__':
    main()
