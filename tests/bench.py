"""What the design gains, as ratios measured in one run: python tests/bench.py [--device cuda]

Each row compares this project's way with the plain way on the same inputs; the best of three
repetitions counts.
"""
import argparse
from pathlib import Path
import sys
import tempfile
import time

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch

from conftest import REAL, examine
import checkpoints
import config
import data
import devices
from kmeans import kmeans
import layouts
import losses
import nets
import training
import runs
import toy


def seconds(function, device, repeat=3):
    best = float('inf')
    for _ in range(repeat + 1):                             # the first time warms up
        started = time.perf_counter()
        function()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def row(name, ours, plain, device):
    a, b = seconds(ours, device), seconds(plain, device)
    print(f'{name:70s} {a:8.3f} s {b:8.3f} s   {b / a:5.1f} times faster', flush=True)


def plain_instance_mean(features, inst):
    """As the official encoder pools: a loop over pictures, instances and channels."""
    out = features.clone()
    for n in range(len(inst)):
        for i in inst[n].unique():
            where = (inst[n, 0] == i).nonzero(as_tuple=True)
            for c in range(features.shape[1]):
                out[n, c][where] = features[n, c][where].mean()
    return out


def plain_step(run, label, inst, image):
    """As the official step runs: the discriminator three times, gradients of everything."""
    G, D, E = run.G, run.D, run.E
    condition = data.condition(label, inst, run.config.n_labels)
    fake = G(torch.cat([condition, E(image, inst)], 1))
    d_terms = losses.discriminator_loss(D(torch.cat([condition, fake.detach()], 1)),

                                        real := D(torch.cat([condition, image], 1)))
    g_terms = losses.generator_loss(D(torch.cat([condition, fake], 1)), real)
    run.opt_G.zero_grad()
    sum(g_terms.values()).backward(retain_graph=True)
    run.opt_G.step()
    run.opt_D.zero_grad()
    (sum(d_terms.values()) / 2).backward()
    run.opt_D.step()


def loading():
    """Pictures per second and core on the way in: 2048x1024 PNG files to a training picture of
    1024x512, and from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        root = REAL / 'cityscapes'
        if not root.is_dir():
            root = Path(folder) / 'scenes'
            toy.write(root, 'train', 5, (2048, 1024))
        found = examine(root)

        rates = []
        for cache in (None, Path(folder) / 'cache'):
            dataset = data.Pictures(found.pairs, layouts.readers_of(found), found.n_labels,
                                    (1024, 512), flip=True, cache=cache)
            if not cache:
                dataset.decoded = None      # as with a data set too large for memory
            keys = [(epoch, i) for epoch in range(4) for i in range(len(dataset))]
            took = seconds(lambda: [dataset[key] for key in keys], torch.device('cpu'))
            rates.append(4 * len(dataset) / took)
    print(f'{f"loading {root.name} at 1024x512, one core: from PNG, from the cache":70s} '
          f'{rates[0]:8.1f} /s {rates[1]:7.1f} /s   {rates[1] / rates[0]:5.1f} times faster',
          flush=True)


def saving(run, device):
    """How long a training step waits for a save, and how long it would without a thread for
    writing."""
    contents = runs.contents(run)
    megabytes = sum(tensor.nbytes for tensor in checkpoints.tensors(contents)) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        row(f'a step waits for a save of {megabytes:.0f} MB, and without a thread to write',
            lambda: checkpoints.copied(contents, 'cpu'),
            lambda: checkpoints.write(Path(folder), contents, 1), device)


def make_run(device, precision='fp32', **network):
    """A run of 35 labels with instances and features, of no folder."""
    c = config.make({'n_labels': 35, 'instances': 'files', 'features': True, 'n_enhancers': 0,
                     **network},
                    {'data': '.', 'pictures': [1, 0], 'total_steps': 10 ** 6,
                     'decay_start': 10 ** 6, 'precision': precision})
    return runs.build(c, device)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', default='auto')
    device = devices.pick_device(parser.parse_args().device)
    cuda = device.type == 'cuda'
    print(f'{torch.__version__} on '
          f'{torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} CPU threads"}')

    torch.manual_seed(0)
    centres = torch.rand(10, 3)[torch.randint(10, (200_000,))]
    points = (torch.randn(200_000, 3) * 0.15 + centres)[None].to(device)
    n = torch.tensor([200_000])
    print(f'{"K-means, 200,000 points, 3 dimensions, 10 centres, 24 restarts":70s} '
          f'{seconds(lambda: kmeans(points, n, 10), device):8.3f} s')
    separate = torch.rand(35, 2000, 3, device=device)
    counts = torch.full((35,), 2000)
    row('K-means of 35 labels in one run, and one by one', lambda: kmeans(separate, counts, 10),
        lambda: [kmeans(separate[i:i + 1], counts[:1], 10) for i in range(35)], device)

    loading()

    size = (1024, 512)
    scene = toy.scene(0, size)
    label, inst, image = (data.to_tensor(array)[None].to(device) for array in scene[:3])
    image = data.to_float(image)
    features = torch.randn(1, 3, *size[::-1], device=device, requires_grad=True)
    parts = data.to_tensor(data.connected_components(scene.inst))[None].to(device)
    row(f'pooling of {len(parts.unique())} instances at 1024x512 and its gradient, and a loop',
        lambda: nets.instance_mean(features, parts).sum().backward(),
        lambda: plain_instance_mean(features, parts).sum().backward(), device)

    ngf, w = (64, size) if cuda else (16, (256, 128))
    if not cuda:
        scene = toy.scene(0, w)
        label, inst, image = (data.to_tensor(array)[None] for array in scene[:3])
        image = data.to_float(image)
    widths = dict(ngf=ngf, ndf=ngf, n_blocks=9 if cuda else 3)
    made = [make_run(device, **widths), make_run(device, **widths),
            make_run(device, True, **widths)]
    row(f'training step at {w[0]}x{w[1]}, and with the official passes',
        lambda: training.train_step(made[0], label, inst, image),
        lambda: plain_step(made[1], label, inst, image), device)
    saving(made[0], device)
    row('the same with --bf16', lambda: training.train_step(made[2], label, inst, image),
        lambda: plain_step(made[1], label, inst, image), device)


if __name__ == '__main__':
    main()
