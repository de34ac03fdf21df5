"""The method stands alone: the eight scripts, copied into an empty folder, train, cluster and
generate on tensors made up there."""
import shutil
import subprocess
import sys

from conftest import ROOT

SCRIPTS = ['p2phd', 'nets', 'losses', 'data', 'kmeans', 'styles', 'train', 'generate']
PROGRAM = '''
from types import SimpleNamespace
import numpy as np
import torch
import data, generate, losses, nets, styles, train

rng = np.random.default_rng(0)

def make_scene(i):
    """A map of blocks of 4 labels, each block an instance; its photograph has a colour a label."""
    inst = (np.arange(64) // 16 + 4 * (np.arange(32)[:, None] // 16) + i).astype(np.int32)
    label = (inst % 4).astype(np.uint8)
    image = (label[..., None] * 60 + rng.integers(0, 10, (32, 64, 3))).astype(np.uint8)
    return {'label': label, 'inst': inst, 'image': image}

training = SimpleNamespace(
    steps=4, epochs=0, decay_epochs=0, fix_global=0, total_steps=0, decay_start=0,
    fix_global_steps=0, batch=2, accumulate=1, lr=2e-4, seed=0, ema=0.999, gan='lsgan',
    lambda_feature=10, lambda_vgg=10, lambda_l1=0, precision='fp32', recompute=False,
    augment=False, max_bad_steps=20)
config = SimpleNamespace(
    model='global', ngf=8, n_down=2, n_blocks=1, n_enhancers=0, n_blocks_local=3,
    up='transposed', up_encoder=None, ndf=8, n_layers=3, n_scales=2, spectral_norm=False,
    n_labels=4, in_channels=3, out_channels=3, instances='files', boundary=True, features=True,
    features_of='instance', feat=3, nef=4, n_down_encoder=2, encoder_scale=1, training=training)

device = torch.device('cpu')
dataset = data.PairedDataset([0, 1, 2], make_scene, n_labels=4, flip=True)
train.set_schedule(config, len(dataset))
run = train.make_run(config, device)
before = run.G.model[1].weight.clone()
sampler = data.ResumableBatchSampler(len(dataset), 2, 0, training.total_steps, seed=0)
rows = []
train.fit(run, data.batches(dataset, device, batch_sampler=sampler),
          [lambda run, terms, stop: rows.append(terms)])
assert run.step == len(rows) == 4 and not torch.equal(before, run.G.model[1].weight)
assert all(value.isfinite() for terms in rows for value in terms.values())

run = train.with_averages(run)
vectors, labels = styles.encode_all(run, dataset)
clusters = styles.cluster(vectors, labels, n_labels=4, k=2)
assert clusters['counts'].sum() == len(vectors) == 24

item = dataset[0, 0]
scene = generate.make_scene(config, item['label'][None], item['inst'][None])
pictures = [generate.synthesise(run, scene, generate.scene_styles(run, scene, clusters, seed=i))
            for i in range(2)]
assert pictures[0].shape == (1, 3, 32, 64) and pictures[0].abs().max() <= 1
assert not torch.equal(*pictures)
'''


def test_the_eight_scripts_train_cluster_and_generate(tmp_path):
    for name in SCRIPTS:
        shutil.copy(ROOT / f'{name}.py', tmp_path)
    done = subprocess.run([sys.executable, '-E', '-c', PROGRAM], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
