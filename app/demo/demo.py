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
    Return 0, or the exit code of the first subcommand that fails.

    run_words: runs a command line, a list of words, and returns its exit code.
    Raises: UserError if `folder`, or that of the finetuned run beside it, exists.
    """
    scenes, finetuned = folder / 'scenes', folders.sibling_folder(folder, '-256x128')
    for path in (folder, finetuned):
        if path.exists():
            raise UserError(f'{path}: already exists; use --run DIR to put the demo elsewhere')
    make_folder(scenes)
    log_info(f'drawing street scenes into {scenes}')
    streets.write_dataset(scenes, 'train', 80, SIZE, seed=seed)
    streets.write_dataset(scenes, 'val', 1, SIZE, seed=seed + 1)
    pair = find_pairs(scenes, 'val')[1][0]
    for line in command_lines(folder, scenes, finetuned, pair, f'--seed {seed} --device {device}'):
        log_info(f'\n$ python p2phd.py {line}')
        if code := run_words(shlex.split(line)):
            return code
    write_demo_sheet(folder / 'demo.png', pair, finetuned / 'generated', seed)
    log_info('\nlabel map, synthesised and real picture, and four samples of the same map:\n'
             f'{folder / "demo.png"}')
    return 0


def command_lines(folder, scenes, finetuned, pair, common):
    """Return the command lines of the demo. common: the flags that all of them take."""
    scenes, run, finetuned, label, inst = map(quote, (scenes, folder, finetuned, pair.label,
                                                      pair.inst))
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


def write_demo_sheet(path, pair, generated, seed):
    """Write the label map, the synthesised and the real picture, and below them the samples."""
    label = Image.open(pair.label)
    label.putpalette([value for _, colour in CITYSCAPES for value in colour])
    above = [('label map', label),
             ('synthesised', Image.open(generated / f'{pair.name}_generated.png')),
             ('real', Image.open(pair.image))]
    below = [(f'sample {i}', Image.open(generated / f'{pair.name}_seed{seed}_{i}.png'))
             for i in range(1, N_SAMPLES + 1)]
    w, h = SIZE
    sheet = Image.new('RGB', (4 * w, 2 * (h + CAPTION)), 'white')
    for y, row in ((0, above), (h + CAPTION, below)):
        for i, (title, picture) in enumerate(row):
            ImageDraw.Draw(sheet).text((i * w + 4, y + 1), title, 'black')
            sheet.paste(picture, (i * w, y + CAPTION))
    sheet.save(path)
