"""The light Hamburger head of SLViT (IJCAI 2023, Sec. 3.5), after Geng et al. (2021) and SegNeXt."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, normalize

from refstudy.models.layers import at_least_float32, full_precision

EPSILON = 1e-6


class NMF(nn.Module):
    """Rebuilds a non-negative map from ``rank`` bases by multiplicative updates (Lee and Seung).

    In training the first bases are drawn from torch's generator for every map. In evaluation they are one fixed draw,
    kept with the weights, so that a mask is the same every time and in every batch. The updates run in float32, also
    under autocast, and without gradients, except for the last update of the codes: the one-step gradient of Geng et
    al., who show that the gradient through all steps is unstable. It needs the memory of one step alone.
    """

    def __init__(self, width: int, rank: int, train_steps: int, eval_steps: int):
        super().__init__()
        self.train_steps, self.eval_steps = train_steps, eval_steps
        self.bases: Tensor
        self.register_buffer("bases", torch.rand(width, rank, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        """Non-negative cells (E, width, N) to their approximation of rank ``rank``, at least in float32."""
        with full_precision(x.device):
            x = at_least_float32(x)
            bases = self.bases.to(x.dtype).expand(len(x), -1, -1)
            steps = self.eval_steps
            if self.training:
                bases, steps = torch.rand_like(bases), self.train_steps
            with torch.no_grad():
                bases, codes = factorise(x, normalize(bases, dim=1), steps)
            return bases @ update_codes(x, bases, codes)


def factorise(x: Tensor, bases: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Bases (E, D, R) and codes (E, R, N) whose product approaches x (E, D, N), from the given bases."""
    codes = (bases.transpose(1, 2) @ x).softmax(1)
    for _ in range(steps):
        codes = update_codes(x, bases, codes)
        bases = bases * (x @ codes.transpose(1, 2)) / (bases @ (codes @ codes.transpose(1, 2)) + EPSILON)
    return bases, codes


def update_codes(x: Tensor, bases: Tensor, codes: Tensor) -> Tensor:
    """One multiplicative update of the codes."""
    transposed = bases.transpose(1, 2)
    return codes * (transposed @ x) / ((transposed @ bases) @ codes + EPSILON)


class Hamburger(nn.Module):
    """Maps at the first one's size, joined and squeezed; NMF between two 1x1 convolutions; one plane of logits."""

    as_written = False  # True: upsample before mixing, to count what the paper's own order costs

    def __init__(self, channels: Sequence[int], width: int = 512, rank: int = 64):
        super().__init__()
        self.channels = tuple(channels)
        self.squeeze = nn.Conv2d(sum(channels), width, kernel_size=1, bias=False)
        self.squeeze_tail = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.lower = nn.Sequential(nn.Conv2d(width, width, kernel_size=1), nn.ReLU())
        self.nmf = NMF(width, rank, train_steps=6, eval_steps=7)
        self.upper = nn.Conv2d(width, width, kernel_size=1)
        self.predict = nn.Conv2d(width, 1, kernel_size=1)

    def join(self, maps: Sequence[Tensor]) -> Tensor:
        """The maps upsampled to the first one's size, concatenated, and mixed by a 1x1 convolution (E, width, h, w).

        Mixing commutes with upsampling, so each map is mixed at its own size: the same function, far less work.
        """
        size = (maps[0].shape[-2], maps[0].shape[-1])
        weights = self.squeeze.weight.split(self.channels, dim=1)
        total = conv2d(maps[0], weights[0])
        for x, weight in zip(maps[1:], weights[1:], strict=True):
            total += interpolate(conv2d(x, weight), size=size, mode="bilinear", align_corners=False)
        return total

    def upsampled_first(self, maps: Sequence[Tensor]) -> Tensor:
        """``join`` as the paper writes it. Reference for tests and the cost table."""
        size = (maps[0].shape[-2], maps[0].shape[-1])
        wide = [maps[0], *(interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[1:])]
        return self.squeeze(torch.cat(wide, dim=1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (E, C_i, h_i, w_i), the finest first, to mask logits (E, 1, h_1, w_1), Eq. (13)."""
        x = self.squeeze_tail(self.upsampled_first(maps) if self.as_written else self.join(maps))
        common = self.nmf(self.lower(x).flatten(2)).unflatten(2, x.shape[-2:])
        return self.predict((x + self.upper(common)).relu())
