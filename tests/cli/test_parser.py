"""Help, defaults and checks of flags, and the configuration that they make."""
import re
import subprocess
import sys

import pytest

from app.cli import parser, settings
from app.common import config
from app.common.errors import UserError
from app.runs import runs
from conftest import ROOT, TINY


@pytest.mark.parametrize('command', [None, *parser.SUBCOMMANDS])
def test_help_fits_and_needs_no_torch(command):
    done = subprocess.run([sys.executable, '-X', 'importtime', ROOT / 'p2phd.py', *filter(
        None, [command]), '--help'], capture_output=True, text=True, env={'COLUMNS': '80'})
    assert done.returncode == 0 and 'usage: p2phd.py' in done.stdout
    imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
    assert not {'torch', 'numpy', 'PIL'} & imported
    text = done.stdout[done.stdout.index('\n\n'):]          # after the usage, which has long words
    if command:
        assert max(map(len, text.splitlines())) <= 80
    assert 'None' not in text and 'SUPPRESS' not in text


def test_help_shows_every_default_once():
    for name, sub in parser.make_parser('').commands.items():
        for action in sub._actions:
            assert (action.help or '').count('(default: ') <= 1, (name, action.dest)
            field = parser.FIELDS.get(action.dest)
            if field and field.default not in (None, config.REQUIRED) and action.option_strings[
                    0] == config.flag_name(action.dest) and action.dest != 'n_labels':
                assert '(default: ' in action.help, (name, action.dest)


def parse(words):
    return parser.parse(words.split(), '')


@pytest.mark.parametrize('words, message', [
    ('train --data x --hours 1 --steps 5', '--hours and --steps'),
    ('train --data x --steps 4 --decay-epochs 7', '--steps and --decay-epochs'),
    ('finetune', 'finetune needs --from RUN'),
    ('finetune --from x --hours 1 --steps 5', '--hours and --steps'),
    ('train --data x --match-labels id', '--match-labels and --from-n-labels: .* --from RUN'),
    ('train --data x --from-n-labels 0', '--match-labels and --from-n-labels: .* --from RUN'),
    ('train --resume --from-n-labels 2', '--from-n-labels: applies only to new runs'),
    ('train --resume --hours 1', '--hours: applies only to new runs'),
    ('train --resume --dry-run', '--dry-run: .* --steps or --epochs'),
    ('train --resume --preset small', '--preset'),
    ('finetune --resume --n-labels 0', '--n-labels'),
    ('generate --label x --n 2', '--n 2: .*--sample'),
    ('generate --label x --sample --encode y', '--sample and --encode'),
    ('generate --label x --styles y --style 1=0', '--styles and --style'),
    ('edit --label x --final-only', '--final-only: .*--script'),
    ('evaluate --judge a --predictions b', '--judge and --predictions'),
    ('export --official a --out b', '--official and --out'),
    ('export --official a --size 8x8', '--official and --size')])
def test_flags_that_exclude_each_other(words, message):
    with pytest.raises(UserError, match=message):
        settings.check_flags(parse(words))


@pytest.mark.parametrize('words', [
    'train --data x --steps 5', 'train --data x --hours 2 --epochs 3', 'finetune --from x',
    'train --data x --from y --match-labels id --from-n-labels 3',
    'train --resume runs/a --steps 9', 'edit --label x --final-only --script y',
    'generate --label x --n 2 --sample', 'generate --label x --encode y --style 1=0',
    'evaluate --predictions b', 'export --official a', 'check', 'info', 'demo'])
def test_flags_that_go_together(words):
    settings.check_flags(parse(words))


def test_flags_that_a_command_does_not_use_are_not_in_its_help():
    commands = parser.make_parser('').commands
    assert '--device' in commands['train'].format_help()
    for name in ('check', 'info'):
        assert '--device' not in commands[name].format_help()
        assert parse(f'{name} --device cpu').device == 'cpu'
    assert '--skip-bad' not in commands['check'].format_help()


def test_a_flag_without_a_use():
    """One table says so for flags that are given, which are refused, and for presets, whose
    fields are left out."""
    c = config.with_defaults({'model': 'unet', 'features': False, 'n_labels': 3, 'n_enhancers': 0,
                              'instances': 'none'}, {'data': 'x', 'pictures': [1, 0]})
    for name in ('recompute', 'n_blocks', 'n_enhancers', 'feat', 'boundary', 'lambda_vgg'):
        with pytest.raises(UserError, match=f'--{config.flag_name(name)[2:]}.*leave it out'):
            config.check_flags_used({name: 1}, c)
    config.check_flags_used({'n_scales': 2, 'lambda_l1': 1}, c)
    args = parse('train --data x --preset city1024-12g --model unet')
    assert not hasattr(args, 'recompute') and args.n_scales == 2
    assert settings.given_fields(args)['flags'] == {
        'data': 'x', 'size': (1024, 512), 'n_scales': 2, 'model': 'unet'}


def test_epochs_in_place_of_steps(command, trained, scenes, tmp_path):
    """A run of --steps that goes on with --epochs: its steps are no longer among its flags."""
    words = ['train', '--data', scenes, *TINY, '--device', 'cpu', '--run', 'run']
    assert command(*words, '--steps', 2)[0] == 0
    assert re.search(r'; .*--steps 2\b', command('info', 'run')[1], re.S)
    code, out, err = command('train', '--resume', 'run', '--epochs', 1, '--decay-epochs', 0,
                             '--workers', 0)
    assert code == 0, err
    training = runs.read_run(tmp_path / 'run')[1]['config'].training
    assert training.steps is None and training.total_steps == 6
    assert training.flags['epochs'] == 1 and 'steps' not in training.flags
    out = ' '.join(command('info', 'run')[1].split())       # it breaks lines
    assert '--epochs 1' in out and '--workers 0' in out and '--steps' not in out
    code, out, err = command('train', '--resume', 'run', '--steps', 7)
    assert code == 0 and '--steps 7' in ' '.join(command('info', 'run')[1].split()), err


def test_defaults_are_not_shared_by_runs():
    """A change to the flags of one run leaves those of others as they are."""
    first, second = (config.with_defaults({'n_labels': 3, 'features': False, 'instances': 'none'},
                                          {'data': 'x'}) for _ in range(2))
    config.apply_resume_overrides(first, {'workers': 2}, 'run')
    assert first.training.flags == {'workers': 2} and second.training.flags == {}
