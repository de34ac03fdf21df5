"""Runs for use without this project: the generator with what comes before and after it as one
program, by torch.export or as ONNX; or files as the official code reads them."""
import logging
from pathlib import Path
import warnings

import numpy as np
import torch
from torch import nn

from app.runs import checkpoints
import data
from generate import min_input_side, network_multiple
from app.common.console import warn
from app.common.errors import UserError, as_user_error
from app.common.files import make_folder, write_text, write_atomically
from app.datasets import palettes
from app.runs import configurations, runs


class ExportedGenerator(nn.Module):
    """label, inst, style (H, W) int64 -> picture (H, W, C) uint8.

    label: as in the maps of the data set; where those are colours, what the palette makes of them.
    style: for every pixel the number of its instance's style among its label's; ignored without an
    encoder. inst is ignored where the run has no instances. H and W are multiples of what the
    generator needs (README, deviation 13).
    """

    def __init__(self, run, known):
        super().__init__()
        self.config, self.G = run.config, run.G
        if run.config.label_table:                      # ids that are not in it are label 0
            table = torch.from_numpy(palettes.lookup_array(run.config.label_table)).long()
            self.register_buffer('table', table.clamp(min=0))
        if run.E:
            there = torch.from_numpy(known['counts'] > 0)
            centres = torch.from_numpy(known['centres'])
            mean = torch.from_numpy(known['mean']).expand_as(centres)
            first = torch.where(there.any(1)[:, None, None], centres[:, :1], mean)
            # A number beyond a label's styles is its main one.
            self.register_buffer('centres', torch.where(there[..., None], centres, first))

    def forward(self, label, inst, style):
        c = self.config
        if c.label_table:
            label = self.table[label.clamp(0, len(self.table) - 1)]
        inst = inst[None, None] if c.instances != 'none' else None
        told = data.condition(label[None, None], inst, c.n_labels, c.boundary)
        if c.features:
            style = style.clamp(0, self.centres.shape[1] - 1)
            told = data.concat_channels(told, self.centres[label, style].permute(2, 0, 1)[None])
        return data.to_uint8(self.G(told)[0]).permute(1, 2, 0)


def export_program(folder, run, known, kind=None, size=None, path=None):
    """Write the program of the run in `folder` into a file. Returns a line that says what the
    program takes.

    kind: 'pt2' (torch.export), the default, or 'onnx'.
    size: (width, height) of the maps to trace it with, by default the run's. Others may be used
        where the format allows it.
    path: of the file, by default <folder>/exported.<kind>.
    Raises UserError where the run cannot be exported.
    """
    size, kind = size or run.config.size, kind or 'pt2'
    path = Path(path or folder / f'exported.{kind}')
    if not size:
        raise UserError(f'{folder}: trained at native size; say with --size WxH')
    if run.config.n_labels == 0 or run.config.model == 'unet':
        raise UserError(f'{path}: only a generator of label maps can be exported; this run has '
                        'pictures for maps, or a U-Net, whose dropout draws; use generate')
    multiple, least = network_multiple(run.config), min_input_side(run.config)
    if any(side % multiple or side < least for side in size):
        raise UserError(f'--size {size[0]}x{size[1]}: the networks need multiples of {multiple}, '
                        f'at least {least}; {configurations.nearest_valid_size(size, multiple, least)} fits; pad the '
                        'maps and crop the picture')
    if path.is_dir():
        raise UserError(f'--out {path}: is a folder, expected a file to write')
    make_folder(path.parent)
    model = ExportedGenerator(run, known).eval().to('cpu').requires_grad_(False)
    maps = tuple(torch.zeros(size[::-1], dtype=torch.int64) for _ in range(3))
    h, w = (multiple * torch.export.Dim(name, min=-(-least // multiple), max=(1 << 15) // multiple)
            for name in ('rows', 'columns'))
    dynamic = ({0: h, 1: w},) * 3
    with torch.no_grad(), as_user_error(path, 'cannot be exported'), warnings.catch_warnings():
        warnings.simplefilter('ignore')             # of PyTorch about itself
        try:
            exported, free = torch.export.export(model, maps, dynamic_shapes=dynamic), True
        except torch._dynamo.exc.UserError:         # its rules differ between versions of PyTorch
            exported, free = torch.export.export(model, maps), False
        if kind == 'pt2':
            write_atomically(path, lambda file: torch.export.save(exported, file))
        else:
            write_onnx(exported, path)
    sizes = f'sizes that are multiples of {multiple}' if free else f'{size[0]}x{size[1]}'
    return (f'{path}: label, inst, style (rows, columns) int64 -> picture (rows, columns, channels) '
            f'uint8; {sizes}')


def write_onnx(exported, path):
    try:
        import onnx                                 # noqa: F401
        import onnxscript                           # noqa: F401
    except ImportError as error:
        raise UserError(f'--format onnx: {error}; pip install onnx onnxscript') from None
    names = ['label', 'inst', 'style']
    logging.disable(logging.WARNING)                # of what it would do with torchvision
    try:
        made = torch.onnx.export(exported, (), dynamo=True, input_names=names,
                                 output_names=['picture'], verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    write_atomically(path, lambda file: file.write(made.model_proto.SerializeToString()))


def export_official(folder, run, D, known, out):
    """Write latest_net_G.pth, _D.pth, _E.pth and features_clustered_<k>.npy of a run into a folder,
    as the official code reads them, and opt.txt, the flags that it needs for them -> [path].
    D: the discriminators' state dict, or None. UserError where it has no such network."""
    c = run.config
    boundary = runs.has_boundary(c)
    for wrong, what in ((c.model == 'unet', 'U-Net'), (c.up != 'transposed', f'--up {c.up}'),
                        (c.spectral_norm, '--spectral-norm'),
                        (not c.n_labels and c.in_channels != 3, f'maps of {c.in_channels} '
                         'channels'),
                        (c.features and c.features_of == 'instance' and not boundary,
                         'features of instances without their boundary map')):
        if wrong:
            raise UserError(f'{folder}: the official code has no {what}'
                            + ('; use generate' if c.model == 'unet' else
                               '; --format pt2 writes it'))
    if c.label_table:
        warn(f'note: the official code takes labels from 0 to {c.n_labels - 1}; ids of the maps '
             'that this run makes into those have to be mapped first')
    if checkpoints.list_checkpoints(out):
        raise UserError(f'--official {out}: holds a run of this program; choose another folder')
    make_folder(out)
    options = {
        'label_nc': c.n_labels, 'no_instance': not boundary, 'output_nc': c.out_channels,
        'instance_feat': c.features and c.features_of == 'instance',
        'label_feat': c.features and c.features_of == 'label', 'feat_num': c.feat,
        'netG': c.model, 'ngf': c.ngf, 'n_downsample_global': c.n_down,
        'n_blocks_global': c.n_blocks, 'n_local_enhancers': c.n_enhancers,
        'n_blocks_local': c.n_blocks_local, 'nef': c.nef, 'n_downsample_E': c.n_down_encoder,
        'ndf': c.ndf, 'num_D': c.n_scales, 'n_layers_D': c.n_layers}
    paths = [Path(out) / 'opt.txt']
    write_text(paths[0], ''.join(f'{name}: {value}\n' for name, value in options.items()))
    states = {'G': run.G.state_dict(), 'D': D, 'E': run.E and run.E.state_dict()}
    for name, state in states.items():
        if state is None:                               # the official code may leave D out
            continue
        paths.append(Path(out) / f'latest_net_{name}.pth')
        write_atomically(paths[-1], lambda file, state=state: torch.save(
            {key: value.clone() for key, value in state.items()}, file))
    if known:
        clusters = {label: known['centres'][label][counts > 0]
                    for label, counts in enumerate(known['counts']) if counts.any()}
        paths.append(Path(out) / f'features_clustered_{known["counts"].shape[1]:03d}.npy')
        write_atomically(paths[-1], lambda file: np.save(file, clusters, allow_pickle=True))
    return paths
