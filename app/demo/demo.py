"""The demo: train, finetune, cluster and generate on the built-in street scenes."""
import shlex

from PIL import Image, ImageDraw

from app.common.console import log_info, quote
from app.common.errors import UserError
from app.common.files import make_folder
from app.datasets.layouts import CITYSCAPES, find_pairs
from app.demo import streets
from app.runs import folders

SIZE, N_SAMPLES, CAPTION = (256, 128), 4, 14        # CAPTION: height in pixels


def run_demo(folder, seed, device, run_words):
    """Draw the scenes, run the subcommands as a user types them, and write `folder`/demo.png.
    run_words: runs a command line, a list of words, and returns its exit code. Return 0, or the
    exit code of the first one that fails. UserError if a folder of the demo exists."""
    scenes, finetuned = folder / 'scenes', folders.sibling_folder(folder, '-256x128')
    for path in (folder, finetuned):
        if path.exists():
            raise UserError(f'{path}: already exists; use --run DIR to put the demo elsewhere')
    make_folder(scenes)
    log_info(f'drawing street scenes into {scenes}; the demo takes about five minutes on two CPU '
             'cores if nothing else runs')
    streets.write_dataset(scenes, 'train', 80, SIZE, seed=seed)
    streets.write_dataset(scenes, 'val', 1, SIZE, seed=seed + 1)
    pair = find_pairs(scenes, 'val')[1][0]
    generate = (f'generate --run {quote(finetuned)} --label {quote(pair.label)} '
                f'--inst {quote(pair.inst)}')
    stages = [
        f'train --data {quote(scenes)} --run {quote(folder)} --size 128x64 --steps 1200 --ngf 24 '
        '--n-down 3 --n-blocks 3 --ndf 24 --n-scales 2 --n-down-encoder 3 --lr 5e-4 '
        '--log-every 100',
        f'finetune --from {quote(folder)} --run {quote(finetuned)} --steps 550 --fix-global 1 '
        '--lr 5e-4 --log-every 100',
        f'cluster --run {quote(finetuned)} --data {quote(scenes)} --k 5',
        generate, f'{generate} --sample --n {N_SAMPLES}']
    for number, stage in enumerate(stages, 1):
        stage = f'{stage} --seed {seed} --device {device}'
        log_info(f'\nstage {number} of {len(stages)}\n$ python p2phd.py {stage}')
        if code := run_words(shlex.split(stage)):
            return code
    write_demo_sheet(folder / 'demo.png', pair, finetuned / 'generated', seed)
    log_info('\nlabel map, synthesised and drawn picture, and four samples of the same map:\n'
             f'{folder / "demo.png"}')
    return 0


def write_demo_sheet(path, pair, generated, seed):
    """Write the label map, the synthesised and the drawn picture, and below them the samples."""
    label = Image.open(pair.label)
    label.putpalette([value for _, colour in CITYSCAPES for value in colour])
    synthesised = generated / f'{pair.name}_generated.png'
    rows = [[('label map', label), ('synthesised', Image.open(synthesised)),
             ('drawn', Image.open(pair.image))],
            [(f'sample {i}', Image.open(generated / f'{pair.name}_seed{seed}_{i}.png'))
             for i in range(1, N_SAMPLES + 1)]]
    w, h = SIZE
    sheet = Image.new('RGB', (4 * w, 2 * (h + CAPTION)), 'white')
    for y, row in enumerate(rows):
        for i, (title, picture) in enumerate(row):
            ImageDraw.Draw(sheet).text((i * w + 4, y * (h + CAPTION) + 1), title, 'black')
            sheet.paste(picture, (i * w, y * (h + CAPTION) + CAPTION))
    sheet.save(path)
