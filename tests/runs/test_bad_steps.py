"""Training that goes wrong: losses that are not finite, a discriminator that has won."""
import math
from pathlib import Path
import re

import numpy as np
import pytest
import torch

from app.runs import hooks, runs
from conftest import TINY
import data

CPU = torch.device('cpu')


@pytest.fixture
def spoiled(command, scenes, monkeypatch):
    """Return a function that trains on photographs that are not finite at the steps in `bad`:
    spoiled(bad, *flags) -> (exit code, stdout, stderr)."""
    to_device = data.to_device

    def run(bad, *flags):
        step = 0

        def spoil(batch, device):
            nonlocal step
            step += 1
            label, inst, image, labels = to_device(batch, device)
            return label, inst, image * float('nan') if step in bad else image, labels
        monkeypatch.setattr(data, 'to_device', spoil)
        result = command('train', '--data', scenes, *TINY, '--log-every', 1, '--device', 'cpu',
                         '--sample-every', 99, *flags)
        monkeypatch.setattr(data, 'to_device', to_device)
        return result
    return run


def read_log(run):
    """Return the rows of log.csv: [{name: number}]."""
    names, *lines = (line.split(',') for line in (Path(run) / 'log.csv').read_text().splitlines())
    return [dict(zip(names, map(float, line))) for line in lines]


def test_bad_steps_are_skipped_and_counted_in_the_log(spoiled):
    code, out, err = spoiled({3, 4}, '--steps', 4, '--run', 'bad')
    assert code == 0 and 'skipped 1' in out
    assert [row['skipped'] for row in read_log('bad')] == [0, 0, 1, 1]
    assert all(np.isfinite(row['gan']) == (row['skipped'] == 0) for row in read_log('bad'))

    spoiled((), '--steps', 4, '--run', 'good')
    good, bad = read_log('good'), read_log('bad')
    assert good[:2] == bad[:2]
    assert all(row['map_min'] < -2 and row['map_max'] > 2 for row in good)

    after = runs.load_run('bad', CPU)
    assert all(torch.isfinite(value).all()
               for net in (after.G, after.D, after.E) for value in net.parameters())
    assert {float(moment['step']) for moment in after.opt_G.state_dict()['state'].values()} == {2}


def test_after_many_bad_steps_in_a_row_the_run_stops(spoiled, tmp_path):
    code, out, err = spoiled(range(8, 100), '--steps', 30, '--run', 'run', '--max-bad-steps', 5,
                             '--save-every', 1)
    assert code == 2 and err.count('\n') == 1
    assert re.search('run: stopped at step 12, .* not finite 5 times in a row; its checkpoints are '
                     'from before.*--lr', err), err
    assert runs.load_run('run', CPU).step <= 7

    # Four in a row, twice, do not stop it.
    code, out, err = spoiled({1, 2, 3, 4, 6, 7, 8, 9}, '--steps', 10, '--run', 'other',
                             '--max-bad-steps', 5)
    assert code == 0 and sum(row['skipped'] for row in read_log('other')) == 8


def test_one_warning_of_a_discriminator_that_has_won(spoiled, monkeypatch):
    monkeypatch.setattr(hooks, 'SATURATED_STEPS', 4)
    code, out, err = spoiled((), '--steps', 12, '--run', 'fair')
    assert code == 0 and err == ''

    levels = [hooks.chance_level_loss(2, mode) for mode in ('lsgan', 'vanilla', 'hinge')]
    assert levels == pytest.approx([1, 4 * math.log(2), 4])
    monkeypatch.setattr(hooks, 'chance_level_loss', lambda n_scales, mode: 1e6)
    code, out, err = spoiled((), '--steps', 12, '--run', 'won')
    assert code == 0
    assert err.count('warning: won: for 4 steps the discriminator has been right about') == 1
