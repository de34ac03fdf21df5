"""The demo, with a program that does nothing."""
from functools import partial

from PIL import Image
import pytest

from app.cli import parser
from app.common import console
from app.common.errors import UserError
from app.demo import streets


def test_demo(tmp_path, monkeypatch):
    """It types commands that parse, stops at the first that fails, and puts its pictures on a
    sheet."""
    write = streets.write_dataset
    monkeypatch.setattr(streets, 'write_dataset', lambda folder, split, count, size, seed: write(
        folder, split, 1, size, seed))
    commands = []

    def run_words(words):
        args = parser.parse(words, '')
        assert args.quiet == is_quiet
        commands.append(args.command)
        return 0

    is_quiet = True
    monkeypatch.setattr(console, 'quiet', True)

    generated = tmp_path / 'demo-256x128' / 'generated'
    endings = ['generated', *(f'seed3_{i}' for i in range(1, 5))]

    def run_and_generate(words):
        generated.mkdir(parents=True, exist_ok=True)
        for ending in endings:
            Image.new('RGB', (256, 128)).save(generated / f'toy_0000_{ending}.png')
        return run_words(words)

    run_demo = partial(streets.run_demo, seed=3, device='cpu')
    assert run_demo(tmp_path / 'failed', run_words=lambda words: run_words(words) or 2) == 2
    assert commands == ['train']
    is_quiet = False
    monkeypatch.setattr(console, 'quiet', False)
    assert run_demo(tmp_path / 'demo', run_words=run_and_generate) == 0
    assert commands[1:] == ['train', 'finetune', 'cluster', 'generate', 'generate']
    assert Image.open(tmp_path / 'demo' / 'demo.png').size == (4 * 256, 2 * (128 + 14))
    with pytest.raises(UserError, match='demo: already exists; use --run DIR'):
        run_demo(tmp_path / 'demo', run_words=run_words)
