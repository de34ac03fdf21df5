"""Measure how much faster this program is than a plain implementation.

    python benchmarks/bench.py [--rounds 3] [--only step] [--large] [--json bench.json]

It needs what the tests need: pip install -r tests/requirements.txt.
Both are measured in turns; on a CPU, networks run in a process of their own each time. A ratio is
the median over the rounds, with its minimum and maximum. The plain implementation trains and
generates as the official code does: in float32, with all label channels, without keeping memory,
with three passes of the discriminators, with gradients of everything, and with a loop over the
instances. On CUDA it tunes cuDNN, and its convolutions compute in tf32, which is PyTorch's default.
"""
import argparse
from concurrent.futures import ThreadPoolExecutor
import gc
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests' / 'editor'))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from conftest import REAL, ROOT, examine, make_run                          # imports p2phd first
import torch

from app.datasets.pairs import PairReader, open_dataset
from app.demo import streets
from app.editor import operations
from app.runs import cuda_graphs, devices, fast_layers, memory, runs
import data
import generate
from kmeans import kmeans
import losses
import nets
import train


# ------------------------------------------------------------------- the plain implementation

def plain_instance_mean(features, inst):
    """Return instance means as the official encoder: with a loop over pictures, instances and
    channels."""
    out = features.clone()
    for n in range(len(inst)):
        for i in inst[n].unique():
            where = (inst[n, 0] == i).nonzero(as_tuple=True)
            for c in range(features.shape[1]):
                out[n, c][where] = features[n, c][where].mean()
    return out


def plain_boundary_map(inst):
    """Return the boundary map from a loop over the instances."""
    boundary = torch.zeros_like(inst, dtype=torch.uint8)
    for i in inst.unique():
        outside = torch.nn.functional.pad((inst != i).float(), (1, 1, 1, 1))
        around = (outside[..., 1:-1, 2:] + outside[..., 1:-1, :-2] + outside[..., 2:, 1:-1]
                  + outside[..., :-2, 1:-1])
        boundary |= ((inst == i) & (around > 0)).to(torch.uint8)
    return boundary


def make_plain(net):
    """Give a network torch's own layers and memory layout."""
    for module in net.modules():
        if type(module) in fast_layers.FASTER.values():
            module.__class__ = type(module).__base__
    return net.to(memory_format=torch.contiguous_format)


def plain_generator(G, x):
    if not isinstance(G, nets.LocalEnhancer):
        return G.model(x)
    down, up = G.model1_1, G.model1_2               # G2
    return up(down(x) + G.model(nets.half_size(x)))


def plain_discriminator(D, x):
    scales = []
    for scale in reversed(range(D.n_scales)):
        features = [x]
        for j in range(D.n_layers + 2):
            features.append(getattr(D, f'scale{scale}_layer{j}')(features[-1]))
        scales.append(features[1:])
        x = nets.half_size(x)
    return scales


def plain_inputs(run, label, inst, image):
    """Return the condition of D and the input of G."""
    one_hot = torch.zeros(1, run.config.n_labels, *label.shape[2:], device=label.device)
    condition = torch.cat([one_hot.scatter_(1, label.long(), 1.0),
                           data.boundary_map(inst).float()], 1)
    features = plain_instance_mean(run.E.model(image), inst)
    return condition, torch.cat([condition, features], 1)


def plain_step(run, label, inst, image):
    condition, generator_input = plain_inputs(run, label, inst, image)
    fake = plain_generator(run.G, generator_input)

    def score(picture):
        return plain_discriminator(run.D, torch.cat([condition, picture], 1))

    d_terms = losses.discriminator_loss(score(fake.detach()), real := score(image))
    g_terms = losses.generator_loss(score(fake), real)
    run.opt_G.zero_grad()
    sum(g_terms.values()).backward(retain_graph=True)
    run.opt_G.step()
    run.opt_D.zero_grad()
    (sum(d_terms.values()) / 2).backward()
    run.opt_D.step()


@torch.no_grad()
def plain_picture(run, label, inst, image):
    return plain_generator(run.G, plain_inputs(run, label, inst, image)[1])


# ------------------------------------------------------------------------------ one measurement

def measure(task, way, size, ngf, n_labels, repeat=3):
    """Return the seconds of a task in this process, the least of a few after one to warm up, and
    the peak of its memory in bytes.

    task: 'step' of training or 'picture'.
    way: 'plain', or a precision.
    """
    cuda = torch.cuda.is_available()
    device = torch.device('cuda' if cuda else 'cpu')
    if cuda:
        gc.collect()                                        # a run is in a cycle with a hook of G
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        nets.autocast(device, 'tf32', cudnn_benchmark=True)            # for the plain way
    elif way != 'plain':
        memory.keep_memory()
    network = dict(model='local', n_enhancers=1, ngf=ngf // 2) if size[0] > 1024 else dict(ngf=ngf)
    run = make_run(device, 'fp32' if way == 'plain' else way, n_labels=n_labels, ndf=ngf, size=size,
                   **network)
    if way != 'plain':
        run.cudnn_benchmark = True                                     # as in training of one size
        cuda_graphs.use_graphs(run)
    if task == 'picture':
        run = runs.build_run(run.config, device, training=False)
    if way == 'plain':
        for net in filter(None, (run.G, run.D, run.E)):
            make_plain(net)
    label, inst, image = (data.to_tensor(array)[None] for array in streets.draw_scene(0, size)[:3])
    labels = data.find_present_labels(label, n_labels)
    scene = generate.make_scene(run.config, label, inst)
    label, inst, image = label.to(device), inst.to(device), data.to_float(image.to(device))
    vectors = torch.zeros(len(scene.labels), 3)
    run_task = {('step', True): lambda: plain_step(run, label, inst, image),
                ('step', False): lambda: train.train_step(
                    run, label, inst, image, labels if labels is None else labels.to(device)),
                ('picture', True): lambda: plain_picture(run, label, inst, image),
                ('picture', False): lambda: generate.synthesise(run, scene, vectors),
                }[task, way == 'plain']
    return seconds(run_task, repeat), memory.peak_memory(device)


def seconds(function, repeat=3):
    """Return the least seconds of a few calls, after one to warm up."""
    best = float('inf')
    for i in range(repeat + 1):
        started = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i:
            best = min(best, time.perf_counter() - started)
    return best


# -------------------------------------------------------------------------------------- tables

def row(results, name, numbers, unit='s'):
    """Print a row of the table and add it to the results. numbers: {way: [number of each round]},
    the plain way first, if there is one."""
    first, *others = numbers
    cells = [name, *[''] * (first != 'plain'), f'{statistics.median(numbers[first]):.3g} {unit}']
    for way in others:
        ratios = [a / b for a, b in zip(numbers[first], numbers[way])]
        cells.append(f'{statistics.median(numbers[way]):.3g} {unit}, '
                     f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})')
    print('| ' + ' | '.join(cells + [''] * (5 - len(cells))) + ' |', flush=True)
    results.append({'name': name, 'unit': unit, **numbers})


def networks(results, task, rounds, large):
    """Measure steps or pictures, and the peak of their memory."""
    device = devices.pick_device('auto')
    cuda = device.type == 'cuda'
    ways = ['plain', 'fp32'] + ['tf32'] * cuda + ['bf16'] * devices.has_bf16(device)
    sizes = {(1024, 512): 64, (2048, 1024): 64} if large else {(256, 128): 32, (512, 256): 32}
    for size, ngf in sizes.items():
        for n_labels in (35, 151):
            durations, peaks = {}, {}
            for _ in range(rounds):
                for way in ways:
                    if cuda:
                        measured = measure(task, way, size, ngf, n_labels, 10)
                    else:
                        words = [task, way, *map(str, (*size, ngf, n_labels))]
                        done = subprocess.run([sys.executable, __file__, '--measure', *words],
                                              check=True, stdout=subprocess.PIPE, text=True)
                        measured = json.loads(done.stdout)
                    for table, value in zip((durations, peaks), measured):
                        table.setdefault(way, []).append(value)
            name = f'{task}, {size[0]}x{size[1]}, {n_labels} labels'
            row(results, name, durations)
            peaks = {way: [value / 2 ** 30 for value in values] for way, values in peaks.items()}
            row(results, f'{name}: memory', peaks, 'GiB')


def compare(results, name, rounds, slow, fast):
    """Measure two functions in turns, in this process."""
    numbers = {'plain': [], 'ours': []}
    for _ in range(rounds):
        numbers['plain'].append(seconds(slow, 1))
        numbers['ours'].append(seconds(fast, 1))
    row(results, name, numbers)


def parts(results, rounds, device):
    """Measure instance means, the boundary map and K-means."""
    scene = streets.draw_scene(0, (1024, 512))
    inst = data.to_tensor(data.connected_components(scene.inst))[None].to(device)
    features = torch.randn(1, 3, 512, 1024, device=device, requires_grad=True)
    n = len(inst.unique())
    compare(results, f'means of {n} instances, 1024x512, and their gradient; a loop', rounds,
         lambda: plain_instance_mean(features, inst).sum().backward(),
         lambda: nets.instance_mean(features, inst).sum().backward())
    compare(results, f'boundary map of {n} instances, 1024x512; a loop', rounds,
         lambda: plain_boundary_map(inst), lambda: data.boundary_map(inst))

    torch.manual_seed(0)
    labels = torch.rand(35, 2000, 3, device=device)
    row(results, 'K-means of 35 labels with 2,000 points each, 10 centres, 24 restarts',
        {'ours': [seconds(lambda: [kmeans(points, 10) for points in labels], 1)
                  for _ in range(rounds)]})
    points = torch.rand(200_000, 3, device=device)
    row(results, 'K-means, 10 centres, 24 restarts: points a second',
        {'ours': [200_000 / seconds(lambda: kmeans(points, 10), 1) for _ in range(rounds)]}, '/s')


def loading(results, rounds):
    """Measure how long one core loads training pictures of 1024x512, from PNG files of 2048x1024
    and from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        root = REAL / 'cityscapes'
        if not root.is_dir():
            root = Path(folder) / 'scenes'
            streets.write_dataset(root, 'train', 5, (2048, 1024))
        contents = examine(root)
        cold, cached = (open_dataset(contents.pairs, PairReader(contents, (1024, 512)), cache,
                                     keep=False, flip=True)
                        for cache in (None, Path(folder) / 'cache'))
        keys = [(epoch, i) for epoch in range(4) for i in range(len(cold))]
        compare(results, f'loading {len(keys)} pictures of {root.name} on one core; from the cache',
             rounds, lambda: [cold[key] for key in keys], lambda: [cached[key] for key in keys])


def commands(results, rounds):
    """Measure two processes against one, two programs at once, and the time from a command to its
    picture."""
    program = str(ROOT / 'p2phd.py')
    os.environ.pop('GOMP_SPINCOUNT', None)      # set by the import of p2phd; each command sets it

    def run(*words, many=False, cwd, **environment):
        torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '--']
        started = time.perf_counter()
        subprocess.run([sys.executable, *(torchrun if many else []), program, *words], cwd=cwd,
                       check=True, capture_output=True,
                       env={**os.environ, **environment,
                            **({'OMP_NUM_THREADS': '1'} if many else {})})
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        streets.write_dataset(Path(folder) / 'street', 'train', 8, (256, 128))
        words = ('train --data street --ngf 32 --ndf 32 --n-down 3 --n-blocks 6 --batch 4 '
                 '--precision fp32 --steps').split()
        numbers = {'plain': [], 'ours': []}
        for i in range(rounds):
            for way in numbers:                     # less the time that starting takes
                short, long = (run(*words, str(steps), '--run', f'{way}{i}-{steps}', cwd=folder,
                                   many=way == 'ours') for steps in (1, 11))
                numbers[way].append((long - short) / 10)
        row(results, 'step of a batch of 4, 256x128; two processes', numbers)

        if not torch.cuda.is_available():
            words = ('train --data street --ngf 16 --ndf 16 --n-down 2 --n-blocks 2 --n-scales 2 '
                     '--size 128x64 --precision fp32 --steps').split()
            for count, name, other in ((1, 'alone; threads that wait briefly', '1000'),
                                       (2, 'beside a second training; threads that wait long',
                                        '300000')):
                numbers = {'plain': [], 'ours': []}
                for i in range(rounds):
                    for way, more in (('plain', {'GOMP_SPINCOUNT': other}), ('ours', {})):
                        with ThreadPoolExecutor(count) as pool:
                            numbers[way].append(sum(pool.map(lambda k: run(
                                *words, '200', '--run', f'{count}-{way}{i}-{k}', cwd=folder,
                                **more), range(count))) / count)
                row(results, f'200 steps at 128x64 {name}', numbers)

        label = next((Path(folder) / 'street').rglob('*labelIds.png'))
        run('cluster', '--run', 'plain0-1', cwd=folder)
        row(results, 'generate, from the command to the picture at 256x128', {'ours': [
            run('generate', '--run', 'plain0-1', '--label', str(label), cwd=folder)
            for _ in range(rounds)]})


def editor(results, rounds, device):
    """Measure over HTTP how long a change of a style takes to the preview and to the picture."""
    from test_http_server import ask, post, served
    for size in ((256, 128), (512, 256)) if device.type == 'cpu' else ((1024, 512),):
        label, inst = streets.draw_scene(0, size)[:2]
        inst = data.connected_components(inst)
        for precision in ('fp32', 'bf16'):
            run = make_run(device, precision, ngf=32)
            clusters = {'centres': np.random.default_rng(0).normal(size=(35, 10, 3)).astype('f'),
                        'counts': np.ones((35, 10), int), 'mean': np.zeros(3, 'f')}
            ids = np.unique(inst).tolist()
            styles = dict(zip(ids, operations.main_styles(clusters, [0] * len(ids))))
            editor = operations.Editor(run, clusters, operations.State(label, inst, styles))
            with (tempfile.TemporaryDirectory() as folder,
                  served(editor, Path(folder)) as server):
                durations = {True: [], False: []}
                for i in range(1 + rounds):
                    for preview in durations:
                        started = time.perf_counter()
                        edited = post(server, '/edit', {'edits': [
                            {'do': 'style', 'object': ids[0], 'style': 1 + i % 9}]})
                        ask(server, '/picture', {'version': edited['version'],
                                                 'preview': preview})
                        durations[preview].append(time.perf_counter() - started)
            for preview, name in ((True, 'preview'), (False, 'picture')):
                row(results, f'edit, from a click to the {name}, {size[0]}x{size[1]}, {precision}',
                    {'ours': durations[preview][1:]})


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--only', choices=['step', 'picture', 'parts', 'loading', 'commands',
                                           'editor'])
    parser.add_argument('--large', action=argparse.BooleanOptionalAction,
                        default=torch.cuda.is_available(),
                        help='1024x512 and 2048x1024 at full width, in place of smaller ones '
                             '(default: on CUDA)')
    parser.add_argument('--json', type=Path, metavar='FILE')
    parser.add_argument('--measure', nargs=6, help=argparse.SUPPRESS)   # see networks
    args = parser.parse_args()
    if args.measure:
        task, way, *numbers = args.measure
        w, h, ngf, n_labels = map(int, numbers)
        return print(json.dumps(measure(task, way, (w, h), ngf, n_labels)))

    device = devices.pick_device('auto')
    results, n = [], args.rounds
    where = f'{torch.get_num_threads()} CPU threads'
    if device.type == 'cuda':
        where = torch.cuda.get_device_name()
    print(f'PyTorch {torch.__version__} on {where}\n')
    print('| what | plain | float32 | tf32 (on a CPU: bfloat16) | bfloat16 |\n'
          '|---|---|---|---|---|')
    for name, run_part in (('step', lambda: networks(results, 'step', n, args.large)),
                           ('picture', lambda: networks(results, 'picture', n, args.large)),
                           ('parts', lambda: parts(results, n, device)),
                           ('loading', lambda: loading(results, n)),
                           ('commands', lambda: commands(results, n)),
                           ('editor', lambda: editor(results, n, device))):
        if args.only in (None, name):
            run_part()
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == '__main__':
    main()
