"""The demo: train, finetune, cluster and generate on the built-in street scenes."""
import shlex

import numpy as np
from PIL import Image, ImageDraw

from app.common.console import log_info, quote
from app.common.errors import UserError
from app.common.files import make_folder
from app.datasets.layouts import CITYSCAPES
from app.demo import streets
from app.runs import folders

SIZE, N_SAMPLES = (256, 128), 4
NAME = 'toy_0000'                           # of the scene that the demo generates


def run_demo(folder, seed, device, run_words):
    """Draw the scenes, run the subcommands as a user types them, and write `folder`/demo.png.

    folder: for the scenes, the first run and the picture; the finetuned run is beside it.
    run_words: a function that runs a command line, given as a list of words, and returns its exit
    code.

    Returns the exit code: 0, or that of the first subcommand that fails.
    Raises: UserError if one of the folders exists.
    """
    scenes, finetuned = folder / 'scenes', folders.sibling_folder(folder, '-256x128')
    for path in (folder, finetuned):
        if path.exists():
            raise UserError(f'{path}: already exists; use --run DIR to put the demo elsewhere')
    make_folder(scenes)
    log_info(f'drawing street scenes into {scenes}')
    streets.write_dataset(scenes, 'train', 80, SIZE, seed=seed)
    streets.write_dataset(scenes, 'val', 1, SIZE, seed=seed + 1)

    for line in command_lines(folder, scenes, finetuned, f'--seed {seed} --device {device}'):
        log_info(f'\n$ python p2phd.py {line}')
        code = run_words(shlex.split(line))
        if code:
            return code

    write_demo_sheet(folder / 'demo.png', scenes, finetuned / 'generated', seed)
    log_info('\nlabel map, synthesised and real picture, and four samples of the same map:\n'
             f'{folder / "demo.png"}')
    return 0


def command_lines(folder, scenes, finetuned, common):
    """Return the command lines of the demo. common: the flags that all of them take."""
    maps = scenes / 'gtFine' / 'val' / 'toy'
    label, inst = (quote(maps / f'{NAME}_gtFine_{kind}Ids.png') for kind in ('label', 'instance'))
    scenes, run, finetuned = map(quote, (scenes, folder, finetuned))
    generate = f'generate --run {finetuned} --label {label} --inst {inst} {common}'
    return [
        f'train --data {scenes} --run {run} --size 128x64 --steps 1200 --ngf 24 --n-down 3 '
        '--n-blocks 3 --ndf 24 --n-scales 2 --n-down-encoder 3 --lr 5e-4 --log-every 100 '
        f'{common}',
        f'finetune --from {run} --run {finetuned} --steps 550 --fix-global 1 --lr 5e-4 '
        f'--log-every 100 {common}',
        f'cluster --run {finetuned} --data {scenes} --k 5 {common}',
        generate,
        f'{generate} --sample --n {N_SAMPLES}']


def write_demo_sheet(path, scenes, generated, seed):
    """Write one picture of the label map, the synthesised and the real picture, and below them the
    samples. generated: the folder of the synthesised pictures."""
    label = Image.open(scenes / 'gtFine' / 'val' / 'toy' / f'{NAME}_gtFine_labelIds.png')
    colours = np.array([colour for _, colour in CITYSCAPES], np.uint8)
    pictures = [('label map', Image.fromarray(colours[np.asarray(label)])),
                ('synthesised', Image.open(generated / f'{NAME}_generated.png')),
                ('real', Image.open(scenes / 'leftImg8bit' / 'val' / 'toy'
                                    / f'{NAME}_leftImg8bit.png'))]
    pictures += [(f'sample {i}', Image.open(generated / f'{NAME}_seed{seed}_{i}.png'))
                 for i in range(1, N_SAMPLES + 1)]
    (w, h), caption = SIZE, 14
    sheet = Image.new('RGB', (4 * w, 2 * (h + caption)), 'white')
    for i, (title, picture) in enumerate(pictures):
        row, column = (0, i) if i < 3 else (1, i - 3)
        ImageDraw.Draw(sheet).text((column * w + 4, row * (h + caption) + 1), title, 'black')
        sheet.paste(picture, (column * w, row * (h + caption) + caption))
    sheet.save(path)
