"""Flags: presets, --dry-run, --hours, -q, and words that are nearly right."""
import itertools
from pathlib import Path
import re
import shutil
from types import SimpleNamespace

from PIL import Image
import pytest
import torch

from app.cli import parser, settings
from app.common import config
from app.runs import memory, runs, training
from conftest import TINY
import nets
from test_info import assert_fits_80_columns
import train


@pytest.mark.parametrize('name', settings.PRESETS)
def test_a_preset_is_a_valid_configuration(name):
    """Its generator runs on meta tensors, and flags beside it win."""
    args = parser.parse(['train', '--data', 'x', '--preset', name, '--lr', '1e-4'], '')
    fields = settings.PRESETS[name].fields
    assert all(getattr(args, key) == value for key, value in fields.items()
               if key != 'fix_global')                      # a flag of finetune
    network = {key: value for key, value in fields.items() if key in config.NETWORK}
    training = {key: value for key, value in fields.items() if key in config.TRAINING}
    c = config.with_defaults(
        {'n_labels': 35, 'instances': 'files', 'features': True, 'n_enhancers': 0, **network},
        {'data': '.', 'pictures': [1, 0], 'total_steps': 10, 'decay_start': 10, **training})
    config.check_config(c)
    w, h = c.training.crop or c.size
    with torch.device('meta'):
        if c.model == 'local':
            G = nets.LocalEnhancer(39, 3, c.ngf, c.n_down, c.n_blocks, c.n_enhancers)
        else:
            G = nets.GlobalGenerator(39, 3, c.ngf, c.n_down, c.n_blocks)
        assert G(torch.empty(1, 39, h, w)).shape == (1, 3, h, w)
    args = parser.parse(['train', '--data', 'x', '--preset', name, '--size', '64x32'], '')
    assert args.size == (64, 32)


def test_dry_run_and_hours(command, scenes, tmp_path):
    words = ['train', '--data', scenes, *TINY, '--device', 'cpu']
    code, out, err = command(*words, '--steps', 7, '--dry-run')
    assert code == 0, err
    for text in ('7 steps of 1 on 1 CPU thread in fp32', 'pictures 6 to train on, 2 others',
                 'schedule 1.2 epochs; learning rate 0.0002 until step 3, then falling to 0 at',
                 'writes a checkpoint of', 'GB at the end', 'memory about', 's a step'):
        assert text in ' '.join(out.split()), out
    assert_fits_80_columns(out)
    assert not list(tmp_path.iterdir())                     # nothing is written
    code, out, err = command(*words, '--preset', 'city512', '--steps', 1, '--dry-run')
    assert code == 0 and '--preset city512: other flags override all of it\n' in out, err
    for more in ('city1024-12g --model unet', 'city2048 --model pix2pix --n-down 5',
                 'faces --no-features', 'faces --model pix2pix'):
        code, out, err = command('train', '--data', scenes, '--size', '64x32', '--steps', 1,
                                 '--preset', *more.split(), '--dry-run', '--ngf', 4, '--ndf', 4)
        assert code == 0 and 's a step' in out, err
    code, out, err = command(*words, '--hours', 0.0005, '--cache', 'kept', '--dry-run')
    assert code == 0 and not list(tmp_path.iterdir()), err
    code, out, err = command(*words, '--hours', 0.0005, '--run', 'run')
    assert code == 0, err
    steps = int(re.search(r'--hours 0.0005: (\d+) steps', out)[1])
    assert runs.read_run(tmp_path / 'run')[1]['step'] == steps
    code, out, err = command(*words, '--steps', 1, '--dry-run')
    assert code == 0 and ' 0 s a step' not in out, err
    code, out, err = command(*words, '--epochs', 1, '--decay-epochs', 0, '--batch', 6, '--hours',
                             0.0001, '--run', 'short')
    assert code == 0, err
    code, _, err = command(*words, '--hours', 1, '--steps', 5)
    assert code == 2 and '--hours and --steps' in err
    code, _, err = command('train', '--resume', 'run', '--hours', 1)
    assert code == 2 and '--hours' in err and 'only to new runs' in err


def test_a_step_is_measured_for_one_per_cent_of_the_hours(command, scenes, monkeypatch):
    step, taken, clock = train.train_step, [], itertools.count(0, 0.5)
    monkeypatch.setattr(train, 'train_step', lambda *args: taken.append(1) or step(*args))
    monkeypatch.setattr(training, 'time', SimpleNamespace(perf_counter=clock.__next__))
    code, out, err = command('train', '--data', scenes, *TINY, '--device', 'cpu', '--hours', 0.1,
                             '--dry-run')
    assert code == 0 and len(taken) == 4 + 7 + 4, err   # at first; in 3.6 s; for the summary


def test_a_dry_run_beside_a_run_and_flags_that_only_new_runs_take(command, scenes, trained):
    words = ['train', '--data', scenes, *TINY, '--device', 'cpu']
    code, out, err = command(*words, '--run', trained, '--steps', 1, '--dry-run')
    assert code == 0 and 's a step' in out, err
    code, _, err = command(*words, '--run', trained, '--steps', 1)
    assert code == 2 and 'holds a trained run already' in err
    code, _, err = command('finetune', '--resume', trained, '--n-labels', 5)
    assert code == 2 and '--n-labels: applies only to new runs' in err
    code, _, err = command('train', '--resume', trained, '--preset', 'small')
    assert code == 2 and '--preset' in err and err.count('\n') == 1


def test_a_dry_run_without_enough_memory(command, scenes, monkeypatch):
    """It warns and takes no steps."""
    monkeypatch.setattr(memory, 'free_memory', lambda device: 1 << 22)
    code, out, err = command('train', '--data', scenes, *TINY, '--steps', 7, '--dry-run')
    assert code == 0 and 'GiB free; --precision bf16' in err and 's a step' not in out


def test_quiet_commands_still_answer(command, trained, tmp_path):
    code, out, _ = command('info', trained, '-q')
    assert code == 0 and 'step 6 of 6' in ' '.join(out.split())
    code, _, err = command('-q', 'info', trained)
    assert code == 2 and '-q; write it after info' in err
    (tmp_path / 'own' / 'train_label').mkdir(parents=True)
    (tmp_path / 'own' / 'train_img').mkdir()
    Image.new('L', (32, 32)).save(tmp_path / 'own' / 'train_label' / 'a.png')
    code, out, err = command('check', '--data', 'own', '-q')
    assert code == 2 and 'a.png: no photograph of the same name' in out + err


@pytest.mark.parametrize('words, similar', [
    (['trian'], 'train'), (['train', '--n-scale', '2'], '--n-scales'),
    (['train', '--gan', 'lsgun'], 'lsgan'), (['generate', '--label', 'x', '--sampel'], '--sample')])
def test_a_similar_word_is_suggested(command, words, similar):
    code, _, err = command(*words)
    assert code == 2 and f'did you mean {similar}?' in err and err.count('\n') == 1


def test_a_similar_label_or_run_is_suggested(command, trained, scenes):
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    shutil.copytree(trained, 'runs/cityscapes')
    for words, similar in (
            (['generate', '--label', label, '--run', 'citiscapes'], 'runs/cityscapes'),
            (['info', 'runs/cityscape'], 'runs/cityscapes'),
            (['finetune', '--from', 'runs/cityscpaes'], 'runs/cityscapes'),
            (['generate', '--label', label, '--style', 'cra=1'], 'car'),
            (['evaluate', '--void', 'bulding'], 'building')):
        code, _, err = command(*words)
        assert code == 2 and f'did you mean {similar}?' in err and err.count('\n') == 1, err
    Path('edits.json').write_text('[{"do": "style", "label": "rode", "style": 0}]')
    code, _, err = command('edit', '--label', label, '--script', 'edits.json')
    assert code == 2 and 'did you mean road?' in err


def test_version(command):
    code, out, _ = command('--version')
    assert code == 0 and re.fullmatch(r'p2phd \d+\.\d+\.\d+\n', out)
