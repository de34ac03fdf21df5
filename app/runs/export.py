"""Runs for use without this program: the generator as one program (torch.export or ONNX), or files
as the official code reads them."""
from functools import partial
import io
import logging
from pathlib import Path
import warnings

import numpy as np
import torch

from app.common.console import warn
from app.common.errors import UserError, as_user_error
from app.common.files import make_folder, write_atomically
from app.datasets.pairs import lookup_array
from app.runs import configurations, folders
from app.runs.checkpoints import copy_tree, list_checkpoints
import data
from nets import min_input_side, input_multiple
import nets


class ExportedGenerator(torch.nn.Module):
    """The generator with all that comes before and after it. forward takes three (H, W) int64 maps
    and returns the picture (H, W, C) uint8; multiples: docs/differences.md, 13.
    label: ids as in the label maps of the data set, or labels where those maps are colours.
    inst: ids of instances; ignored if the run has none.
    style: of each pixel, the index of its style among those of its label, 0 for those that the
        label does not have; ignored without an encoder."""

    def __init__(self, run, clusters):
        super().__init__()
        self.config, self.G = run.config, run.G
        if run.config.label_table:                      # ids that are not in it are label 0
            table = torch.from_numpy(lookup_array(run.config.label_table)).long()
            self.register_buffer('table', table.clamp(min=0))
        if run.E:
            exists = torch.from_numpy(clusters['counts'] > 0)
            centres = torch.from_numpy(clusters['centres'])
            mean = torch.from_numpy(clusters['mean']).expand_as(centres)
            first = torch.where(exists.any(1)[:, None, None], centres[:, :1], mean)
            self.register_buffer('centres', torch.where(exists[..., None], centres, first))

    def forward(self, label, inst, style):
        c = self.config
        if c.label_table:
            label = self.table[label.clamp(0, len(self.table) - 1)]
        inst = inst[None, None] if c.instances != 'none' else None
        x = data.condition(label[None, None], inst, c.n_labels, c.boundary)
        if c.features:
            style = style.clamp(0, self.centres.shape[1] - 1)
            x = data.concat_channels(x, self.centres[label, style].permute(2, 0, 1)[None])
        return data.to_uint8(self.G(x)[0]).permute(1, 2, 0)


def export_program(folder, run, clusters, kind=None, size=None, path=None):
    """Write the program of the run in `folder` into a file. Returns a line that says what the
    program takes. UserError where the run cannot be exported. kind: 'pt2' (torch.export), the
    default, or 'onnx'. clusters: see run_styles.cluster_dataset; None without an encoder.
    size: (width, height) to trace it with, by default the run's; most programs take others, too.
    path: of the file, by default exported.<kind> in folders.output_folder(folder)."""
    size, kind = size or run.config.size, kind or 'pt2'
    path = Path(path or folders.output_folder(folder) / f'exported.{kind}')
    if not size:
        raise UserError(f'{folder}: trained at native size; say with --size WxH')
    if run.config.n_labels == 0 or run.config.model == 'unet':
        raise UserError(f'{path}: a U-Net, or a run without label maps, cannot be exported')
    multiple, least = input_multiple(run.config), min_input_side(run.config)
    if any(side % multiple or side < least for side in size):
        nearest = 'x'.join(map(str, configurations.round_size(size, multiple, least)))
        raise UserError(f'--size {size[0]}x{size[1]}: the networks need multiples of {multiple}, '
                        f'at least {least}; {nearest} fits; pad the maps and crop the picture')
    if path.exists() and (path.is_dir() or path.suffix != f'.{kind}'):
        raise UserError(f'--out {path}: is a folder or no .{kind} file; choose another file')
    make_folder(path.parent)
    model = ExportedGenerator(run, clusters).eval().to('cpu').requires_grad_(False)
    maps = tuple(torch.zeros(size[::-1], dtype=torch.int64) for _ in range(3))
    bounds = {'min': -(-least // multiple), 'max': (1 << 15) // multiple}
    shapes = ({i: multiple * torch.export.Dim(name, **bounds)
               for i, name in enumerate(('rows', 'columns'))},) * 3
    sizes = f'sizes that are multiples of {multiple}'
    with torch.no_grad(), as_user_error(path, 'cannot be exported'), warnings.catch_warnings():
        warnings.simplefilter('ignore')             # of PyTorch about itself
        try:
            program = torch.export.export(model, maps, dynamic_shapes=shapes)
        except torch._dynamo.exc.UserError:         # the rules differ between versions of PyTorch
            program, sizes = torch.export.export(model, maps), f'{size[0]}x{size[1]}'
        if kind == 'pt2':
            write_atomically(path, partial(save_whole, torch.export.save, program))
        else:
            logging.disable(logging.WARNING)        # it warns that torchvision is missing
            try:
                import onnx, onnxscript             # noqa: E401, F401
                converted = torch.onnx.export(program, (), dynamo=True, verbose=False,
                                              input_names=['label', 'inst', 'style'],
                                              output_names=['picture'])
            except ImportError as error:
                raise UserError(f'--format onnx: {error}; pip install onnx onnxscript') from None
            finally:
                logging.disable(logging.NOTSET)
            write_atomically(path, lambda file: file.write(
                converted.model_proto.SerializeToString()))
    return (f'{path}: label, inst, style (rows, columns) int64 -> picture (rows, columns, '
            f'channels) uint8; {sizes}')


def save_whole(save, content, file):
    """Call save(content, file) of PyTorch in memory, then write to the file. On a full disk it
    would end the process."""
    buffer = io.BytesIO()
    save(content, buffer)
    file.write(buffer.getbuffer())


def export_official(folder, run, D, clusters, out):
    """Write a run into the folder `out` as the official code reads it, with an opt.txt of the
    options that it needs. Returns the paths. UserError if the official code has no such network, or
    if the files cannot be written; then none is there.
    D: the discriminators' state dict, or None. clusters: as in export_program."""
    c, out = run.config, Path(out)
    boundary, of_instances = nets.has_boundary(c), c.features_of == 'instance'
    for lacks, what in (
            (c.model == 'unet', 'U-Net'), (c.up != 'transposed', f'--up {c.up}'),
            (c.features and c.up_encoder not in (None, 'transposed'),
             f'encoder with --up {c.up_encoder}'),
            (c.spectral_norm, '--spectral-norm'),
            (not c.n_labels and c.in_channels != 3, f'maps of {c.in_channels} channels'),
            (c.features and of_instances and not boundary, 'instances without boundary map')):
        if lacks:
            raise UserError(f'{folder}: the official code has no {what}; use --format or generate')
    if c.label_table:
        warn(f'note: the official code takes labels from 0 to {c.n_labels - 1}: map the ids first')
    if list_checkpoints(out) or any(out.glob('latest_net_*.pth')):
        raise UserError(f'--official {out}: holds a run already; choose another folder')
    make_folder(out)
    options = {
        'label_nc': c.n_labels, 'no_instance': not boundary, 'output_nc': c.out_channels,
        'instance_feat': c.features and of_instances,
        'label_feat': c.features and not of_instances, 'feat_num': c.feat,
        'netG': c.model, 'ngf': c.ngf, 'n_downsample_global': c.n_down,
        'n_blocks_global': c.n_blocks, 'n_local_enhancers': c.n_enhancers,
        'n_blocks_local': c.n_blocks_local, 'nef': c.nef, 'n_downsample_E': c.n_down_encoder,
        'encoder_scale': c.encoder_scale,               # not of the official code; see infer_config
        'ndf': c.ndf, 'num_D': c.n_scales, 'n_layers_D': c.n_layers}
    text = ''.join(f'{name}: {value}\n' for name, value in options.items())
    files = {'opt.txt': lambda file: file.write(text.encode())}
    for name, state in (('G', run.G.state_dict()), ('D', D), ('E', run.E and run.E.state_dict())):
        if state is not None:
            files[f'latest_net_{name}.pth'] = partial(save_whole, torch.save,
                                                      copy_tree(state, 'cpu'))
    if clusters:
        centres = {label: clusters['centres'][label][counts > 0]
                   for label, counts in enumerate(clusters['counts']) if counts.any()}
        files[f'features_clustered_{clusters["counts"].shape[1]:03d}.npy'] = (
            lambda file: np.save(file, centres, allow_pickle=True))
    try:
        for name, write in files.items():
            write_atomically(out / name, write)
    except UserError:
        for name in files:
            (out / name).unlink(missing_ok=True)
        raise
    return [out / name for name in files]
