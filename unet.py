"""The U-Net: the generator of pix2pix, which is the paper's baseline, and the judge of synthesised
pictures."""
import torch
import torch.nn.functional as F
from torch import nn

from nets import InstanceNorm, ResizeConv, checked, init_weights, see


class UNet(nn.Module):
    """The generator of pix2pix, the paper's baseline (Isola et al., "Image-to-Image Translation
    with Conditional Adversarial Networks", CVPR 2017, section 6.1.1): 4x4 convolutions of stride 2
    down to a few pixels and up again (C64, C128, C256, C512 ...; dropout in the three innermost of
    the way up), every level with a skip connection to its counterpart.

    Its noise z is that dropout, when generating as well (section 3.1 there), drawn from torch's own
    generator: see `noise`. Its batch normalisation ran on batches of one picture; that is
    InstanceNorm, and what is used here whatever the batch.

    forward: (N, in_channels, H, W) float -> (N, out_channels, H, W) float, in [-1, 1] with tanh;
    labels: see nets.see. H and W must be multiples of 2 ** n_down (ValueError).
    """

    def __init__(self, in_channels, out_channels=3,
                 ngf=64,                    # channels after the first level, doubled up to 8 times
                 n_down=8,                  # levels
                 up='transposed',           # 'nearest', 'bilinear': see ResizeConv
                 dropout=0.5,               # share of features that it sets to zero
                 tanh=True):                # else it ends in the raw map
        super().__init__()
        self.multiple, self.dropout, self.tanh = 2 ** n_down, dropout, tanh
        widths = [in_channels] + [ngf << min(i, 3) for i in range(n_down)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()   # each as data passes them
        for i in range(n_down):
            c_in, c_out, innermost = widths[i], widths[i + 1], i == n_down - 1
            back = c_out if innermost else 2 * c_out            # with the skip connection
            self.down.append(nn.Sequential(
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1),
                nn.Identity() if i == 0 or innermost else InstanceNorm(c_out, affine=True)))
            to = widths[i] if i else out_channels
            self.up.insert(0, nn.Sequential(
                nn.ConvTranspose2d(back, to, 4, stride=2, padding=1) if up == 'transposed'
                else ResizeConv(back, to, up),
                InstanceNorm(to, affine=True) if i else nn.Identity()))
        init_weights(self)

    def forward(self, x, labels=None):
        x = checked(x, self.multiple, self.multiple, 'the U-Net')
        skips = []
        for i, (conv, norm) in enumerate(self.down):
            x = norm(conv(F.leaky_relu(x, 0.2)) if i else see(conv, x, labels))
            skips.append(x)                 # (N, ngf * min(2^i, 8), H / 2^(i+1), W / 2^(i+1))

        x = skips.pop()
        for i, layer in enumerate(self.up):
            x = layer(F.relu(x))
            if skips:                       # all but the outermost level
                x = F.dropout(x, self.dropout) if i < 3 else x
                x = torch.cat([x, skips.pop()], 1)
        return x.tanh() if self.tanh else x     # (N, out_channels, H, W)
