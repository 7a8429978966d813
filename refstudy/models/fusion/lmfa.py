"""LMFA, Language-Guided Multi-Scale Fusion Attention (SLViT, IJCAI 2023, Sec. 3.3): the attention of every block."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from refstudy.base.errors import StudyError
from refstudy.models.layers import InstanceNorm


class Strip(nn.Conv2d):
    """A depth-wise convolution with one row or one column of taps that keeps the size: half of a strip pair.

    On a CPU a row of taps runs as a column of taps on the transposed map, which is faster
    (``benchmarks/bench_strips.py``), without the taps that lie outside the map for every cell. The result is the
    same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(E, C, H, W) to the same."""
        if x.device.type != "cpu":
            return super().forward(x)
        row = self.kernel_size[0] == 1
        turned = _turned(x) if row else x
        taps = self.weight.transpose(2, 3) if row else self.weight
        outside = max(0, taps.shape[2] // 2 - turned.shape[2] + 1)  # so many taps of each half lie outside
        taps = taps[:, :, outside : taps.shape[2] - outside]
        out = conv2d(turned, taps, self.bias, padding=(taps.shape[2] // 2, 0), groups=self.groups)
        return _turned(out) if row else out


def _turned(x: Tensor) -> Tensor:
    return x.transpose(2, 3).contiguous(memory_format=torch.channels_last)


def depthwise(channels: int, height: int, width: int, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    """A convolution of each channel by itself that keeps the size."""
    padding = (height // 2, width // 2)
    return kind(channels, channels, (height, width), padding=padding, groups=channels)


class CrossModalAttention(nn.Module):
    """Each cell gathers the words that fit it, Eqs. (3)-(6). ``gate`` is the last column of Table 2(b).

    Query and key have no bias: instance normalisation removes the one; the softmax over words removes the other from
    Eq. (6), and URCE, which reads the raw scores, passes it no gradient, so it would stay as random as it began.
    """

    def __init__(self, channels: int, text_width: int, gate: bool):
        super().__init__()
        query = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        self.query = nn.Sequential(query, InstanceNorm())
        self.key = nn.Linear(text_width, channels, bias=False)
        self.value = nn.Linear(text_width, channels)
        self.gate = nn.Sequential(nn.Conv2d(channels, channels, kernel_size=1), nn.GELU()) if gate else nn.Identity()

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Arguments as for ``LMFA.forward``; Att^cross (E, C, H, W) and the raw scores S (E, L, H, W)."""
        grid = vision.shape[-2:]
        query = self.query(vision).flatten(2)  # Eq. (3)
        key, value = self.key(words), self.value(words)  # Eq. (4)
        scores = key @ query  # Eq. (5), transposed: a plane for each word
        scaled = scores.transpose(1, 2) / math.sqrt(words.shape[-1])
        attention = scaled.masked_fill(~word_mask[:, None, :], float("-inf")).softmax(-1)
        gathered = (attention @ value).transpose(1, 2).unflatten(2, grid)
        return self.gate(gathered), scores.unflatten(2, grid)  # Eq. (6)


class LMFA(nn.Module):
    """The sum of convolutions and word attention, mixed by a 1x1 convolution, weighs the input.

    ``strips`` are the kernel sizes k_t of the strip pairs (Table 2a and b), any distinct odd numbers, none allowed.
    ``cross`` False leaves out the words: what remains is the attention of SegNeXt. ``gate`` is that of Table 2(b).
    """

    def __init__(
        self, channels: int, text_width: int, strips: Sequence[int] = (7, 11, 21), cross: bool = True, gate: bool = True
    ):
        super().__init__()
        if len(set(strips)) < len(strips) or any(size < 1 or size % 2 == 0 for size in strips):
            raise StudyError(f"lmfa: strips {list(strips)} must be distinct odd numbers")
        self.local = depthwise(channels, 5, 5)
        # Eq. (2) writes the vertical strip first. But for the bias between them, both orders are one function; this is
        # the order that the published weights were trained in.
        self.strips = nn.ModuleDict()
        for size in strips:
            row, column = depthwise(channels, 1, size, Strip), depthwise(channels, size, 1, Strip)
            self.strips[str(size)] = nn.Sequential(row, column)
        self.cross = CrossModalAttention(channels, text_width, gate) if cross else None
        self.mix = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """V_i (E, C, H, W), words (E, L, D), bool mask (E, L) to F_i (E, C, H, W) and the raw scores S_i of Eq. (5).

        The scores (E, L, H, W) have a plane for padding words too, which means nothing. Without ``cross``: None.
        """
        local = self.local(vision)
        activation = local
        for pair in self.strips.values():
            activation = activation + pair(local)  # Eq. (2)
        scores = None
        if self.cross is not None:
            gathered, scores = self.cross(vision, words, word_mask)  # Eqs. (3)-(6)
            activation = activation + gathered
        return self.mix(activation) * vision, scores  # Eq. (7)
