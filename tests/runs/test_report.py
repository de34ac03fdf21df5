"""The pages of a run and of its pictures."""
import os
from pathlib import Path
import re
import shutil

import numpy as np
import pytest
import torch

from app.runs import report, run_styles, runs

CPU = torch.device('cpu')


def test_page_of_a_run(trained, tmp_path, capsys):
    """With 5,000 rows and 100 sheets it stays small and shows everything. Damaged files are left
    out of it."""
    folder = tmp_path / 'run'
    shutil.copytree(trained, folder)
    step = np.arange(50, 250_001, 50)
    rng = np.random.default_rng(0)
    rows = np.stack([step, step, 2e-4 + 0 * step, *rng.random((4, len(step))), -1 - 0 * step,
                     1 + step / 1000, 0 * step], 1)
    (folder / 'log.csv').write_text(
        'step,pictures,lr,gan,feature_matching,d_fake,d_real,map_min,map_max,skipped\n'
        + '\n'.join(','.join(f'{x:g}' if i else str(int(x)) for i, x in enumerate(row))
                    for row in rows.tolist()) + '\n250050,25')      # killed within a line
    (folder / 'scores.csv').write_text('step,mean_iou\n100,0.25\n200,0.375\n')
    for i in range(100):
        (folder / 'samples' / f'{i:07d}.png').write_bytes(b'')
    c = runs.read_run(folder)[1]['config']
    run_styles.load_or_cluster_styles(runs.load_run(folder, CPU, False), folder)
    c.training.fix_global_steps = 100
    c.training.crop = (32, 32)                              # then the rows may have two widths
    report.try_write_run_page(folder, c)
    assert 'From left to right: label map, picture in' in (folder / 'index.html').read_text()
    c.training.crop = None
    report.try_write_run_page(folder, c)
    text = (folder / 'index.html').read_text()
    assert len(text) < 200_000 and not re.search(r'https?://', text)
    assert 'step 250000 of 6' in text and text.count('<svg') >= 10
    assert '0000099.png' in text and 'all of the generator is trained, step 100' in text
    assert '<span>50</span><span>125025</span><span>250000</span>' in text      # under a curve
    assert ('<div class="heads"><span>label map</span><span>picture in the styles of the photograph'
            '</span><span>picture in the most frequent styles</span><span>photograph</span></div>'
            ) in text
    assert 'its peak grows' in text and '<td>0.375</td>' in text
    assert '<tr class=given><th>ngf</th><td>8</td><td class="help">' in text
    assert f'<th>{c.label_names[7]}</th>' in text           # of the styles
    (folder / 'evaluation').mkdir()
    for broken in ('', '[]', '{"protocol": "", "rows": [{}]}',
                   '{"protocol": "", "rows": [{"name": "a", "l1": ""}]}',
                   '{"protocol": "", "rows": [{"name": "a", "l1": 1%s}]}' % ('0' * 400),
                   '{"protocol": "", "rows": [{"name": "a", "iou": 1}]}'):
        (folder / 'evaluation' / 'scores.json').write_text(broken)
        assert report.read_evaluation(folder) is None
    stored = (folder / 'styles.npz').read_bytes()
    for path in folder.glob('styles-*.npz'):                # of other tests
        path.unlink()
    for broken in (b'', stored[:300]):
        (folder / 'styles.npz').write_bytes(broken)
        assert report.styles_section(folder, c) == ''
    for broken in ('', 'step\n', 'step,gan\nx,y\n', 'a,b\n1,2\n'):
        (folder / 'log.csv').write_text(broken)
        report.try_write_run_page(folder, c)
    assert capsys.readouterr().err == ''
    assert (folder / 'index.html').read_text().count('<svg') >= 1


def test_training_writes_the_page(trained):
    text = (trained / 'index.html').read_text()
    assert 'step 6 of 6' in text and 'steps per second' in text
    assert (trained / 'speed.csv').read_text().count('\n') == 4


def test_gallery(command, trained, scenes, tmp_path):
    code, out, err = command('generate', '--run', trained, '--label', scenes / 'gtFine' / 'val',
                             '--sample', '--n', 2, '--out', 'out')
    assert code == 0, err
    assert out.endswith('out/index.html\n')
    text = (tmp_path / 'out' / 'index.html').read_text()
    pictures = re.findall(r'<a href="([^"]*)">', text)
    assert len(pictures) == 4 and all((tmp_path / 'out' / name).is_file() for name in pictures)
    assert text.count('data:image/png') == 2
    code, _, _ = command('generate', '--run', trained, '--label',
                         next((scenes / 'gtFine' / 'val').rglob('*labelIds.png')), '--out', 'one')
    assert code == 0 and not (tmp_path / 'one' / 'index.html').exists()
    page = (trained / 'index.html').read_bytes()            # a gallery does not replace it
    code, _, err = command('generate', '--run', trained, '--label', scenes / 'gtFine' / 'val',
                           '--out', trained)
    assert code == 0 and 'is the folder of a run, whose page stays' in err
    assert (trained / 'index.html').read_bytes() == page


@pytest.mark.parametrize('words, name', [
    ('generate --run RUN --label MAPS --out mine', 'index.html'),
    ('evaluate --run RUN --judge none --out mine', 'scores.json'),
    *(('train --data DATA --run mine --steps 1', name) for name in (
        'index.html', 'config.json', 'log.csv'))])
def test_files_of_other_programs_stay(command, trained, scenes, words, name):
    places = {'RUN': trained, 'DATA': scenes, 'MAPS': scenes / 'gtFine' / 'val'}
    mine = Path('mine', name)
    mine.parent.mkdir()
    mine.write_text('{"mine": 1}')
    code, _, err = command(*(places.get(word, word) for word in words.split()))
    assert code == 2 and f'{mine}: would be overwritten' in err and err.count('\n') == 1
    assert [*mine.parent.iterdir()] == [mine] and mine.read_text() == '{"mine": 1}'


def test_pages_of_odd_names(tmp_path):
    folder = tmp_path / 'BODY'
    folder.mkdir()
    odd = os.fsdecode(b'caf\xe9')
    report.write_gallery(folder, [('TITLE', '', ['a&b.png', odd])])
    text = (folder / 'index.html').read_text()
    assert '<title>BODY</title>' in text and '<h3>TITLE</h3>' in text
    assert 'src="a%26b.png"' in text and 'src="caf%E9"' in text
