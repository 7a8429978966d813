"""The few layers that several parts share."""

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.amp import is_autocast_available
from torch.nn.functional import layer_norm

GATES = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps the size, batch normalisation, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def full_precision(device: torch.device) -> AbstractContextManager:
    """A context in which autocast is off on this kind of device."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext()  # none for meta


def at_least_float32(x: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 where they are in float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Gate(nn.Module):
    """Logits to weights by "tanh" or "sigmoid", computed and differentiated in float32, also under autocast.

    In bfloat16 a sigmoid of 6.5 and a tanh of 3.5 round to 1, and their gradients, y (1 - y) and 1 - y^2, to 0: a gate
    that gets there could never come back. ``parts`` names the last dimension's entries, where they are gates of their
    own (see ``refstudy.models.gates``).
    """

    def __init__(self, kind: str, parts: Sequence[str] = ()):
        super().__init__()
        self.kind, self.parts = kind, tuple(parts)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits of any shape to weights of the same shape and type."""
        return GATES[self.kind](at_least_float32(logits)).to(logits.dtype)


class InstanceNorm(nn.Module):
    """Each channel to mean 0 and variance 1 over its cells, without scale and shift.

    Over a single cell the variance is 0 and the formula gives 0. PyTorch's own instance norm refuses that grid while
    training and gives 0 in evaluation; here it is 0 in both.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(E, C, N) or (E, C, H, W) to the same shape."""
        cells = maps.flatten(2)
        return layer_norm(cells, cells.shape[2:]).view(maps.shape)


def mean_word(words: Tensor, word_mask: Tensor) -> Tensor:
    """Average of the words that are there: (E, L, D) and bool (E, L) to (E, D)."""
    weights = word_mask.to(words.dtype).unsqueeze(-1)
    return (words * weights).sum(1) / weights.sum(1).clamp(min=1)


def of_each(maps: Tensor, image_index: Tensor) -> Tensor:
    """The maps of each expression's image: (B, C, H, W) and indices (E,) to (E, C, H, W), a channels-last view.

    Indexing would do the same, but with several threads its gradient is added up in no fixed order, and no training
    would be the same twice.
    """
    return maps.permute(0, 2, 3, 1).index_select(0, image_index).permute(0, 3, 1, 2)


def tile(vectors: Tensor, height: int, width: int) -> Tensor:
    """(E, D) to (E, D, height, width), the same vector in every cell."""
    return vectors[:, :, None, None].expand(-1, -1, height, width)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept for training too, even if the first call comes from inference
def position_planes(
    height: int, width: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """The eight position planes P of Eq. (1), (1, 8, height, width), as CMSA and BRINet define them.

    Left, top, right, bottom border and centre x, y of each cell in [-1, 1], then 1/width and 1/height.
    """
    cells = (torch.arange(side, device="cpu") for side in (height, width))
    rows, columns = torch.meshgrid(*cells, indexing="ij")
    left, right = columns / width * 2 - 1, (columns + 1) / width * 2 - 1
    top, bottom = rows / height * 2 - 1, (rows + 1) / height * 2 - 1
    flat = torch.ones(height, width, device="cpu")
    planes = [left, top, right, bottom, (left + right) / 2, (top + bottom) / 2, flat / width, flat / height]
    return torch.stack(planes).unsqueeze(0).to(device, dtype)
