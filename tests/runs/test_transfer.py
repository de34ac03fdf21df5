"""`train --from RUN`: a new run on another data set that begins with the weights of RUN."""
from pathlib import Path
import shutil
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
import torch

from app.common.errors import UserError
from app.datasets import decoding, layouts
from app.runs import checkpoints, configurations, runs, transfer
from conftest import TINY, equal, examine
import data
import generate
import nets

CPU = torch.device('cpu')
SHORT = ['--workers', 0, '--device', 'cpu']
# The labels of the new data set: its names, and the ids of Cityscapes that they replace.
LABELS = {'Car': 26, 'dragon': 8, ' road': 7, 'sky': 23, 'building': 11}
MATCHED = {0: 26, 2: 7, 3: 23, 4: 11}


@pytest.fixture(scope='session')
def own(scenes, shared_folder):
    """The folder of two data sets in the flat layout, of the pictures of `scenes` with the labels
    LABELS: named/ with names and instance maps, plain/ without both."""
    def fill(folder):
        for pair in layouts.find_pairs(scenes)[1]:
            ids, label = decoding.read_map(pair.label), np.zeros((32, 64), np.uint8)
            for i, old in enumerate(LABELS.values()):
                label[ids == old] = i
            for kind in ('named', 'plain'):
                for role in ('label', 'inst', 'img')[::1 if kind == 'named' else 2]:
                    (folder / kind / f'train_{role}').mkdir(parents=True, exist_ok=True)
                Image.fromarray(label).save(folder / kind / 'train_label' / f'{pair.name}.png')
                shutil.copy(pair.image, folder / kind / 'train_img' / f'{pair.name}.png')
            shutil.copy(pair.inst, folder / 'named' / 'train_inst' / f'{pair.name}.png')
        (folder / 'named' / 'labels.csv').write_text('id,name\n' + ''.join(
            f'{i},{name}\n' for i, name in enumerate(LABELS)))
    return shared_folder('own', fill)


def first_step(folder):
    """Return the configuration and the checkpoint of a run before its first step."""
    path = checkpoints.list_checkpoints(folder)[0]
    assert path.stem == 'checkpoint-0000000'
    _, checkpoint = runs.read_run(path, which='file')
    return checkpoint['config'], checkpoint


def networks(checkpoint):
    """Return a run with what a checkpoint begins with or ends with: the averages of G and E, D."""
    return runs.build_run(checkpoint['config'], CPU, True, {
        **checkpoint['weights'], **checkpoint['average']})


def outputs(run, label, inst, features, image):
    """Return G's picture and D's scores of a label map (1, 1, H, W)."""
    c = run.config
    with torch.no_grad():
        features = features if c.features else None
        inst = inst if c.instances != 'none' else None
        fake, condition = generate.run_generator(run, label, inst, features)
        return [fake, *(scale[-1] for scale in run.D(data.concat_channels(condition, image)))]


def assert_same_function(new, old, matched, inst_of_old=None, features_of_old=True):
    """Assert that the networks of a new run do with a label map what those of the old run do with
    the map of the labels that are `matched`, {label: old label}."""
    torch.manual_seed(0)
    label = torch.tensor(list(matched))[torch.randint(len(matched), (1, 1, 32, 64))]
    table = torch.zeros(99, dtype=torch.long)
    for i, j in matched.items():
        table[i] = j
    inst = torch.randint(4, (1, 1, 32, 64))
    features, image = torch.randn(1, 3, 32, 64), torch.rand(1, 3, 32, 64)
    new.D.eval(), old.D.eval()                              # spectral norm changes in training
    made = outputs(new, label, inst, features, image)
    expected = outputs(old, table[label], inst if inst_of_old is None else inst_of_old,
                       features * features_of_old, image)
    assert len(made) == len(expected) == 1 + old.config.n_scales
    for a, b in zip(made, expected):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
        if new.config.spectral_norm:                        # D's weights are divided anew
            break


def flags_of(words):
    """TINY without the flags that a U-Net and the baseline do not take, and these words."""
    words = words.split()
    unused = ({'--n-down', '--n-blocks'} if {'unet', 'pix2pix'} & {*words} else set()) | (
        {'--nef', '--n-down-encoder'} if {'pix2pix', '--no-features'} & {*words} else set())
    return [word for i, word in enumerate(TINY)
            if unused.isdisjoint(TINY[max(i - 1, 0):i + 1])] + words


@pytest.mark.parametrize('flags', [
    '', '--model unet --n-down 3', '--model pix2pix', '--model local --n-blocks-local 1',
    '--gan hinge --spectral-norm', '--up nearest --no-boundary', '--features-of label',
    '--no-features', '--ema 0'])
def test_the_new_networks_do_what_the_old_ones_did(flags, p2phd, scenes, own, tmp_path):
    """Whatever they are. No flag is repeated; a label that the old run does not know is drawn anew;
    the averages begin where the weights do; and the new run resumes exactly, without the old."""
    p2phd('train', '--data', scenes, '--run', 'old', '--steps', 2, *flags_of(flags), *SHORT)
    out = p2phd('train', '--data', own / 'named', '--from', 'old', '--run', 'new', '--steps', 4,
                '--save-every', 2, '--keep', 9, '--log-every', 2, *SHORT)
    loaded = 'G, D' if 'pix2pix' in flags or '--no-f' in flags else 'G, E, D'
    assert f'old/checkpoint-0000002.pt: {loaded} begin with its weights\n' in out
    assert '  labels    4 of 5 matched by name; new: dragon\n' in out
    assert 'inputs' not in out and 'encoder  ' not in out and 'size  ' not in out
    config, checkpoint = first_step(tmp_path / 'new')
    new, (_, old) = networks(checkpoint), runs.read_run(tmp_path / 'old')
    assert_same_function(new, networks(old), MATCHED)
    if config.spectral_norm:                # its vectors belong to the weights put together
        weight = new.D.scale0_layer0[0].weight.flatten(1)
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.02)
    for name, average in checkpoint['average'].items():
        assert equal(average, checkpoint['weights'][name])
    for name in 'GD':
        assert not checkpoint['optimizers'][name] and checkpoint['step'] == 0
    before = old['config'].training
    for name in ('gan', 'ema', 'lambda_l1', 'lambda_feature', 'lr', 'precision'):
        assert getattr(config.training, name) == getattr(before, name)
    assert config.training.flags['base'] == 'old'

    if not flags:
        p2phd('train', '--data', scenes, '--from', 'old', '--run', 'filtered', '--steps', 1,
              '--up', 'filtered', *SHORT)
        assert runs.read_run(tmp_path / 'filtered')[1]['config'].up == 'filtered'
        assert '--up nearest' in p2phd('train', '--data', scenes, '--from', 'old', '--steps', 1,
                                       '--up', 'nearest', *SHORT, code=2)

    # What is drawn anew is what a run from nothing begins with.
    drawn = runs.build_run(config, CPU)
    first = {'unet': 'down.0.0.weight', 'pix2pix': 'down.0.0.weight'}.get(
        (flags.split() + [''] * 2)[1], 'model.1.weight')
    weight = checkpoint['weights']['G'][first]
    assert torch.equal(weight[:, 1], drawn.G.state_dict()[first][:, 1])
    assert not torch.equal(weight[:, 0], drawn.G.state_dict()[first][:, 0])

    # All of it is trained, and the run goes on without the old one.
    shutil.rmtree('old')
    end = checkpoints.newest_checkpoint(tmp_path / 'new')[1]
    assert all(not torch.equal(end['weights'][name][key], checkpoint['weights'][name][key])
               for name in end['weights'] for key in end['weights'][name] if key.endswith('weight'))
    shutil.copytree('new', 'again')
    checkpoints.list_checkpoints('again')[-1].unlink()
    assert 'going on at step 2 of 4' in p2phd('train', '--resume', 'again', '--device', 'cpu')
    again = checkpoints.newest_checkpoint(tmp_path / 'again')[1]
    assert all(equal(end[kind], again[kind]) for kind in ('weights', 'average', 'optimizers'))
    assert end['rows'] == again['rows']


def test_the_same_data_set_begins_with_all_weights(p2phd, trained, scenes, tmp_path):
    out = p2phd('train', '--data', scenes, '--from', trained, '--run', 'new', '--steps', 1, *SHORT)
    assert '  labels    35 of 35 matched by name\n' in out
    _, checkpoint = first_step(tmp_path / 'new')
    _, old = checkpoints.newest_checkpoint(trained)
    assert equal(checkpoint['weights'], {**old['weights'], **old['average']})


def test_boundary_map_and_features_of_one_run_only(p2phd, trained, own, tmp_path):
    """A channel that the new run lacks is left out, as if it was zero. One that the old run lacks
    is drawn anew. `--features-of label` keeps the encoder."""
    _, old = runs.read_run(trained)
    out = p2phd('train', '--data', own / 'plain', '--from', trained, '--match-labels', 'id',
                '--run', 'bare', '--steps', 1, *SHORT)
    for line in (': G, D begin with its weights\n', '5 of 5 matched by id\n',
                 '  inputs    boundary map: left out\n', '  inputs    3 features: left out\n',
                 '  encoder   left out, because there are no instances; --features-of label'):
        assert line in out, out
    bare = networks(first_step(tmp_path / 'bare')[1])
    assert bare.E is None
    same, none = {i: i for i in range(5)}, torch.zeros(1, 1, 32, 64)
    assert_same_function(bare, networks(old), same, none, 0)

    out = p2phd('train', '--data', own / 'plain', '--from', trained, '--match-labels', 'id',
                '--features-of', 'label', '--run', 'styled', '--steps', 1, *SHORT)
    assert 'encoder is trained' in out and 'features' not in out and 'boundary map: left' in out
    styled = networks(first_step(tmp_path / 'styled')[1])
    assert_same_function(styled, networks(old), same, none)
    assert equal(styled.E.state_dict(), networks(old).E.state_dict())

    # The other way round.
    out = p2phd('train', '--data', own / 'named', '--from', 'bare', '--match-labels', 'id',
                '--run', 'full', '--steps', 1, *SHORT, '--features')
    assert ': G, D begin with its weights, E with new ones\n' in out
    assert '  inputs    boundary map: new\n' in out and '  inputs    3 features: new\n' in out
    config, checkpoint = first_step(tmp_path / 'full')
    drawn = runs.build_run(config, CPU).G.state_dict()['model.1.weight']
    weight = checkpoint['weights']['G']['model.1.weight']
    assert torch.equal(weight[:, 5:], drawn[:, 5:]) and weight.shape[1] == 5 + 1 + 3
    bare = runs.read_run(tmp_path / 'bare')[1]['average']['G']['model.1.weight']
    assert torch.equal(weight[:, :5], bare)
    out = p2phd('train', '--data', own / 'named', '--from', 'bare', '--match-labels', 'id',
                '--dry-run', *SHORT)
    assert 'boundary map: new' in out and 'features' not in out     # as in the old run


def test_components_stay_components_and_a_finetuned_encoder_stays_as_it_is(p2phd, own, tmp_path):
    p2phd('train', '--data', own / 'plain', '--instances', 'components', '--run', 'old', '--steps',
          1, *TINY, *SHORT)
    words = ['train', '--data', own / 'plain', '--match-labels', 'id', '--steps', 1, *SHORT]
    assert 'connected components as instances,\n  the encoder is trained' in p2phd(
        *words, '--from', 'old', '--dry-run')
    assert 'no instances' in p2phd(*words, '--from', 'old', '--dry-run', '--instances', 'none')

    _, checkpoint = checkpoints.newest_checkpoint(tmp_path / 'old')
    checkpoint['config']['encoder_scale'] = 2               # as after finetune
    checkpoints.write_checkpoint(tmp_path / 'fine', checkpoint)
    out = p2phd(*words, '--from', 'fine', '--run', 'new')
    assert '  encoder   not trained, as in fine\n' in out and 'encoder is trained' not in out
    first, last = first_step(tmp_path / 'new')[1], runs.read_run(tmp_path / 'new')[1]
    assert equal(first['weights']['E'], last['weights']['E'])
    assert not equal(first['weights']['G'], last['weights']['G'])


def test_settings_that_are_given(p2phd, trained, own, tmp_path):
    """Another size; what belongs to the data set is not taken over; crops are."""
    words = ['train', '--data', own / 'named', '--steps', 1, '--dry-run', *SHORT]
    out = p2phd(*words, '--from', trained, '--size', '48x32', '--lr', 1e-3, '--no-flip')
    assert f'  size      48x32; {trained} has 64x32\n' in out and 'learning rate 0.001' in out
    p2phd('train', '--data', own / 'named', '--hold-out', 2, '--crop', '32x32', '--batch', 2,
          '--run', 'old', '--steps', 1, *TINY, *SHORT)
    base = transfer.read_base('old')
    given = {'data': str(own / 'named'), 'flags': {}}
    t = configurations.make_config_from(base, given, examine(own / 'named')).training
    assert (t.hold_out, t.held, t.crop, t.batch) == (0, [], (32, 32), 2)
    given['size'] = (48, 32)
    c = configurations.make_config_from(base, given, examine(own / 'named'))
    assert c.size == (48, 32) and c.training.crop is None
    code = 'note: --hold-out 3: old was trained on some of these pictures'
    assert not p2phd(*words, '--from', 'old', '--hold-out', 2).count('note')
    with pytest.MonkeyPatch.context() as patch:
        notes = []
        patch.setattr(configurations, 'warn', notes.append)
        configurations.make_config_from(base, {**given, 'hold_out': 3}, examine(own / 'named'))
        configurations.make_config_from(base, {**given, 'hold_out': 2}, examine(own / 'named'))
    assert notes == [code]


def test_what_info_and_the_page_say(p2phd, trained, own):
    p2phd('train', '--data', own / 'plain', '--from', trained, '--match-labels', 'id', '--run',
          'new', '--steps', 1, *SHORT)
    facts = ' '.join(p2phd('info', 'new').split())          # it breaks lines
    assert f'; --from {trained} --match-labels id --steps 1 ' in facts
    assert f'began with the weights of {trained}' in Path('new/index.html').read_text()


@pytest.mark.parametrize('with_D', [True, False])
def test_a_run_of_the_official_code(with_D, p2phd, golden, own, tmp_path):
    shutil.copytree(golden('official_run'), 'official')
    if not with_D:
        Path('official/latest_net_D.pth').unlink()
    small = [] if with_D else ['--ndf', 4, '--n-scales', 2]     # there is no D that must fit
    out = p2phd('train', '--data', own / 'named', '--from', 'official', '--run', 'new', '--steps',
                1, '--size', '64x64', *small, *SHORT)
    assert 'G, E' in out and (', D with new ones' in out) != with_D
    assert '4 of 5 matched by name; new: dragon' in out
    config, checkpoint = first_step(tmp_path / 'new')
    new, old = networks(checkpoint), transfer.read_base('official')
    assert equal(new.E.state_dict(), dict(old.weights['E']))
    if with_D:
        old = runs.build_run(old.config, CPU, True, old.weights)
        new.config.size = old.config.size
        assert_same_function(new, old, MATCHED)
    else:
        assert new.config.ndf == 4 and new.config.n_scales == 2


def make(names=None, n=None, table=None):
    """Return a configuration with these labels."""
    return SimpleNamespace(label_names=names, n_labels=n or len(names), label_table=table,
                           training=SimpleNamespace(data='own'))


@pytest.mark.parametrize('new, old, by, expected', [
    (make(['road', 'Traffic  Light']), make(['sky', 'traffic light', 'ROAD ']), None,
     {0: 2, 1: 1}),
    (make(['a', 'b']), make(['b', 'c']), 'name', {1: 0}),
    (make(['a', 'b']), make(['b', 'c']), 'id', {0: 0, 1: 1}),
    # A name that occurs twice; labels without a name, which are named by their numbers.
    (make(['door', 'door', 'x']), make(['x', 'door', 'door']), None, {0: 1, 1: 2, 2: 0}),
    (make(['door', 'door']), make(['door']), None, {0: 0}),
    (make(['0', 'a']), make(['0', 'a']), None, {1: 1}),
    (make(n=3), make(n=2), 'id', {0: 0, 1: 1}),
    # Ids of the files, where they are not the labels: 255 is unknown; classes with gaps.
    (make(n=3, table={0: 0, 1: 1, 255: 2}), make(n=5, table={0: 0, 1: 1, 2: 2, 3: 3, 255: 4}),
     'id', {0: 0, 1: 1, 2: 4}),
    (make(n=2, table={5: 0, 9: 1}), make(n=3, table={2: 0, 9: 1, 11: 2}), 'id', {1: 1}),
    (make(['a']), make(['b']), None, {})])
def test_labels_are_matched(new, old, by, expected):
    assert transfer.match_labels(new, SimpleNamespace(folder='old', config=old), by) == expected


@pytest.mark.parametrize('new, old, source', [
    (make(n=2), make(['a']), 'own'), (make(['a']), make(n=2), 'old')])
def test_labels_without_names(new, old, source):
    with pytest.raises(UserError, match=f'^{source}: its labels have no names.*--match-labels id'):
        transfer.match_labels(new, SimpleNamespace(folder='old', config=old), None)


def test_a_label_map_without_a_known_name_is_noticed(command, trained, own, tmp_path):
    shutil.copytree(own / 'named', 'other')
    Path('other/labels.csv').write_text('id,name\n0,Auto\n1,Drache\n')
    code, out, err = command('train', '--data', 'other', '--from', trained, '--dry-run', *SHORT)
    assert code == 0 and '0 of 5 matched by name; new: Auto, Drache, 2, 3, 4\n' in out
    assert f'warning: no label of {tmp_path / "other"} has the name of one of {trained}\n' in err


def test_finetune_keeps_the_encoder_as_it_was_trained(p2phd, trained, scenes, tmp_path):
    """E gives the same features before finetune --up filtered, after it, and after train --from."""
    p2phd('finetune', '--from', trained, '--run', 'fine', '--up', 'filtered', '--steps', 1, *SHORT)
    p2phd('train', '--data', scenes, '--from', 'fine', '--run', 'more', '--up', 'transposed',
          '--steps', 1, *SHORT)
    loaded = [runs.load_run(tmp_path / folder, CPU, training=False)
              for folder in (trained, 'fine', 'more')]
    image, inst = torch.rand(1, 3, 32, 64), torch.arange(2048).view(1, 1, 32, 64) // 512
    features = [run.E(image, inst) for run in loaded]
    assert equal(features, features[:1] * 3)
    assert [any(isinstance(module, nets.FilteredConvTranspose2d) for module in run.G.modules())
            for run in loaded] == [False, True, False]
