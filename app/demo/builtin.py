"""The built-in run: networks and styles of the built-in street scenes, for pictures without any
training. It lies in folders.BUILT_IN and holds, in float16, only what makes pictures. It is made by

    python -m app.demo.builtin scenes streets/          # draw the scenes to train on
    python p2phd.py train --data streets/ --run runs/half --size 256x128 --ngf 24 --n-down 3 \\
        --n-blocks 5 --nef 24 --n-down-encoder 2 --ndf 32 --n-scales 2 --lr 5e-4 --ema 0.998 \\
        --steps 3000
    python p2phd.py train --data streets/ --from runs/half --run runs/streets --size 512x256 \\
        --crop 256x128 --no-flip --lr 4e-4 --steps 3500
    python p2phd.py train --data streets/ --from runs/streets --run runs/filtered --up filtered \\
        --no-flip --lr 4e-4 --steps 1500
    python p2phd.py train --data streets/ --from runs/filtered --run runs/clear --vgg \\
        --vgg-input imagenet --no-flip --lr 2e-4 --steps 4500
    python p2phd.py cluster --run runs/clear --k 7      # as many styles as cars have paints
    python -m app.demo.builtin pack runs/clear          # into folders.BUILT_IN
    python -m app.demo.builtin show docs/street.png     # draw a sheet of its pictures

The four trainings take 3.8 hours on one core. The run that is built in saw 600 other scenes in the
first one, and its fourth began with new discriminators. The sun always shines from the same side,
so the other trainings do not mirror them. The third one removes the grid of the transposed
convolutions; with the perceptual loss of the fourth, walls and windows become clear.
"""
from functools import partial
import io
from pathlib import Path
import sys

import numpy as np
from PIL import Image
import torch

from app.common import config as configuration
from app.common.errors import UserError
from app.common.files import make_folder, write_atomically
from app.demo.streets import draw_scene, write_dataset
from app.runs import checkpoints, folders, run_styles, runs
from app.runs.pictures import strip, to_uint8_hwc, write_png
import data
import generate

LARGEST = 8_000_000                         # bytes of all weights
SIZE, SPLITS = (512, 256), {'train': (1000, 1), 'val': (50, 2)}     # number of scenes, seed
SCENE, SCENE_SEED = 7, 22                   # the scene to begin with, which is not among those


def pack(source, folder=folders.BUILT_IN):
    """Write what makes pictures of the trained run in `source` into `folder`: the configuration of
    the networks, G and E (the moving averages) in float16, and the styles. Returns the path of the
    checkpoint. Raises UserError without styles of its last step, or where it gets too large."""
    path, checkpoint = runs.read_run(source, generator_only=True)
    config = checkpoint['config']
    clusters = run_styles.load_styles(Path(source), config)
    if not clusters or clusters.get('step') != checkpoint['step']:
        raise UserError(f'{source}: no styles of step {checkpoint["step"]}; run python p2phd.py '
                        f'cluster --run {source} first')
    weights = {name: {key: value.half() for key, value in state.items()}
               for name, state in checkpoint['weights'].items()}
    tensors = list(checkpoints.iterate_tensors(weights))
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise UserError(f'{path}: has weights that are too large for float16')
    if (size := sum(tensor.nbytes for tensor in tensors)) > LARGEST:
        raise UserError(f'{path}: its weights take {size / 1e6:.2f} MB in float16, and at most '
                        f'{LARGEST / 1e6:g} MB are built in; train smaller networks')
    checkpoints.write_checkpoint(folder, {
        'config': {**configuration.to_dict(config), 'training': None}, 'weights': weights,
        'average': {}, 'step': checkpoint['step']}, keep=1)
    write_atomically(folder / 'styles.npz', partial(np.savez, **clusters))
    return folders.list_checkpoints(folder)[-1]


def write_scene(folder, size):
    """Draw the built-in scene at `size` (width, height). Write its maps, street_labelIds.png and
    street_instanceIds.png, into `folder` and return both paths. UserError where other maps have
    these names."""
    scene = draw_scene(SCENE, size, SCENE_SEED)
    make_folder(folder)
    paths = []
    for name, ids in (('label', scene.label), ('instance', scene.inst.astype(np.uint16))):
        paths.append(folder / f'street_{name}Ids.png')
        Image.fromarray(ids).save(png := io.BytesIO(), format='PNG')
        if not paths[-1].exists():
            write_atomically(paths[-1], lambda file, png=png: file.write(png.getvalue()))
        elif paths[-1].read_bytes() != png.getvalue():
            raise UserError(f'{paths[-1]}: is another map than that of the built-in scene, which '
                            'would overwrite it; name it with --label, or choose another --out')
    return paths


def show(path):
    """Write a sheet of the built-in scene: its label map, and three pictures of it, each in random
    styles, as generate --sample --n 3 makes them."""
    run = runs.load_run(folders.BUILT_IN, torch.device('cpu'), training=False)
    clusters = run_styles.load_styles(folders.BUILT_IN, run.config)
    drawn = draw_scene(SCENE, run.config.size, SCENE_SEED)
    label, inst = (data.to_tensor(ids)[None] for ids in (drawn.label, drawn.inst))
    scene = generate.make_scene(run.config, label, inst)
    made = [generate.synthesise(run, scene, generate.scene_styles(
        run, scene, clusters, seed=run_styles.picture_seed(0, 'street', i))) for i in range(3)]
    write_png(path, np.concatenate([strip(run.config, label[0], made[:1]), np.concatenate(
        [to_uint8_hwc(picture) for picture in made[1:]], 1)]))


def main(words):
    """Run one of the commands above. Return the exit code."""
    if len(words) != 2 or words[0] not in ('scenes', 'pack', 'show'):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if words[0] == 'pack':
            path = pack(Path(words[1]))
            print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')
        elif words[0] == 'show':
            show(Path(words[1]))
        else:
            for split, (count, seed) in SPLITS.items():
                write_dataset(words[1], split, count, SIZE, seed)
    except UserError as error:
        print(f'builtin: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
