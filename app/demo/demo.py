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
    run_words: runs a list of words and returns its exit code. Return 0, or the first other one."""
    scenes, finetuned = folder / 'scenes', folders.sibling_folder(folder, '-256x128')
    for path in (folder, finetuned):
        if path.exists():
            raise UserError(f'{path}: already exists; use --run DIR to put the demo elsewhere')
    make_folder(scenes)
    log_info(f'drawing street scenes into {scenes}; on two CPU cores the demo takes five minutes')
    streets.write_dataset(scenes, 'train', 80, SIZE, seed=seed)
    streets.write_dataset(scenes, 'val', 1, SIZE, seed=seed + 1)
    pair = find_pairs(scenes, 'val')[1][0]
    data, run, fine, label, inst = map(quote, (scenes, folder, finetuned, pair.label, pair.inst))
    generate = f'generate --run {fine} --label {label} --inst {inst}'
    stages = [
        f'train --data {data} --run {run} --size 128x64 --steps 1200 --ngf 24 --n-down 3 '
        '--n-blocks 3 --ndf 24 --n-scales 2 --n-down-encoder 3 --lr 5e-4 --log-every 100',
        f'finetune --from {run} --run {fine} --steps 550 --fix-global 1 --lr 5e-4 --log-every 100',
        f'cluster --run {fine} --data {data} --k 5', generate,
        f'{generate} --sample --n {N_SAMPLES}']
    for number, stage in enumerate(stages, 1):
        stage = f'{stage} --seed {seed} --device {device}'
        log_info(f'\nstage {number} of {len(stages)}\n$ python p2phd.py {stage}')
        if code := run_words(shlex.split(stage)):
            return code
    generated, (w, h) = finetuned / 'generated', SIZE
    rows = [{'label map': pair.label,
             'synthesised': generated / f'{pair.name}_generated.png', 'drawn': pair.image},
            {f'sample {i}': generated / f'{pair.name}_seed{seed}_{i}.png'
             for i in range(1, N_SAMPLES + 1)}]
    sheet = Image.new('RGB', (N_SAMPLES * w, 2 * (h + CAPTION)), 'white')
    for y, row in zip((0, h + CAPTION), rows):
        for i, (title, path) in enumerate(row.items()):
            picture = Image.open(path)
            if path == pair.label:
                picture.putpalette([value for _, colour in CITYSCAPES for value in colour])
            ImageDraw.Draw(sheet).text((i * w + 4, y + 1), title, 'black')
            sheet.paste(picture, (i * w, y + CAPTION))
    sheet.save(folder / 'demo.png')
    log_info('\nlabel map, synthesised and drawn picture, and four samples of the same map:\n'
             f'{folder / "demo.png"}')
    return 0
