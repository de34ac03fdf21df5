"""How long threads wait."""
import itertools
import os
from pathlib import Path

import pytest

from app.common import threads


@pytest.mark.parametrize('looks, processes, expected', [
    ('111', '1', '5000'), ('121', '', '5000'), ('232', '', '1000'), ('111', '2', '1000'),
    ('x', '', '1000')])
def test_threads_wait_longer_where_nothing_else_computes(looks, processes, expected, monkeypatch):
    """looks: how many threads of the machine compute, at each look."""
    texts = itertools.cycle(looks)
    monkeypatch.setattr(Path, 'read_text', lambda path: f'0.2 0.4 0.5 {next(texts)}/123 4567')
    monkeypatch.setenv('WORLD_SIZE', processes)
    monkeypatch.delenv('GOMP_SPINCOUNT', raising=False)
    threads.set_waiting()
    assert os.environ['GOMP_SPINCOUNT'] == expected
    threads.set_waiting()                           # what is set stays
    assert os.environ['GOMP_SPINCOUNT'] == expected
