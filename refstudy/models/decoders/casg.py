"""CASG, Cross-scale Abstract Semantic Guided decoder (arXiv 2405.09006, Sec. III-C)."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, fold, interpolate

from refstudy.base.errors import StudyError
from refstudy.models.layers import GATES, Gate, conv_bn_relu, of_each

READINGS = ("lift", "double")


class UpsampledConv(nn.Conv2d):
    """A 3x3 convolution over the concatenation of maps that are first upsampled bilinearly to one size, Eqs. (13)-(15).

    Convolution and upsampling are both linear, and mixing channels commutes with upsampling each of them. So each map
    is mixed by the nine taps at its own low resolution, and upsampling and shifting the taps' planes, zero padding
    included, are two small matrix products: one along the rows of each map, one along the columns of all, which adds
    them up. The same function with the parameters of a plain convolution, for far fewer multiplications.
    """

    as_written = False  # True: never mix first, to count what the paper's own order costs

    def __init__(self, channels: Sequence[int], outputs: int):
        super().__init__(sum(channels), outputs, kernel_size=3, padding=1, bias=False)
        self.channels = tuple(channels)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        """Maps (E, C_j, h_j, w_j) to (E, outputs, *size), in the order of fewer multiplications."""
        if self.as_written or not self.mixing_is_less(maps, size):
            return self.upsampled_first(maps, size)
        return self.mixed_first(maps, size)

    def mixing_is_less(self, maps: Sequence[Tensor], size: tuple[int, int]) -> bool:
        """Tell if mixing first takes fewer multiplications; it does unless hardly anything is upsampled."""
        height, width = size
        mixing = sum(9 * x.shape[1] * x.shape[2] * x.shape[3] for x in maps)
        upsampling = sum(3 * x.shape[2] * width * (3 * x.shape[3] + height) for x in maps)
        return mixing + upsampling < 9 * self.in_channels * height * width

    def mixed_first(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Mix, upsample, shift and add."""
        rows, down = [], []
        for x, weight in zip(maps, self.weight.split(self.channels, dim=1), strict=True):
            height, width = x.shape[-2:]
            planes = conv2d(x, weight.permute(0, 2, 3, 1).reshape(-1, x.shape[1], 1, 1))  # all taps of all outputs
            planes = planes.unflatten(1, (self.out_channels, 3, 3)).transpose(3, 4)  # (E, outputs, row, h, column, w)
            across = shifted_upsampling(width, size[1], x.dtype, x.device)
            rows.append(planes.reshape(len(x), self.out_channels, 3 * height, 3 * width) @ across.T)
            down.append(shifted_upsampling(height, size[0], x.dtype, x.device))
        return torch.cat(down, dim=1) @ torch.cat(rows, dim=2)

    def upsampled_first(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The same as the paper writes it: upsample, concatenate, convolve. Reference for tests and benchmarks."""
        wide = [interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps]
        return super().forward(torch.cat(wide, dim=1))


def lifted_scores(cells: Tensor, lift: nn.Conv2d, sentence: Tensor) -> Tensor:
    """<lift(cells), sentence> in every cell, (E, h, w), without making the lifted map.

    The lift is linear, so the sentence (E, D) is taken into its kernel first: one 3x3 kernel with a single output per
    expression instead of D of them.
    """
    height, width = cells.shape[-2:]
    kernels = torch.einsum("ed,dcyx->eyxc", sentence, lift.weight.flip(2, 3)).flatten(1, 2)  # (E, 9, C)
    planes = kernels @ cells.flatten(2)
    scores = fold(planes, (height, width), kernel_size=3, padding=1).squeeze(1)  # shift the nine planes and add them
    return scores if lift.bias is None else scores + (sentence @ lift.bias)[:, None, None]


def lifted_first(cells: Tensor, lift: nn.Conv2d, sentence: Tensor) -> Tensor:
    """``lifted_scores`` as the paper writes it: lift, then the product. Reference for tests and the cost table."""
    return torch.einsum("edhw,ed->ehw", lift(cells), sentence)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for training too, even if the first call comes from inference
def shifted_upsampling(small: int, large: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix (large, 3 * small) that upsamples three sequences linearly, shifts them by 1, 0, -1 and adds them.

    Row r reads row r - 1, r and r + 1 of the upsampled sequences; beyond the border is zero padding.
    """
    cells, rows, taps = (
        torch.arange(*ends, dtype=torch.float64, device="cpu") for ends in ((0, small), (0, large), (-1, 2))
    )
    read = rows[:, None] + taps  # (large, 3)
    place = ((read + 0.5) * (small / large) - 0.5).clamp(0, small - 1)[..., None]  # on the small sequence
    weights = (1 - (place - cells).abs()).clamp(min=0) * ((read >= 0) & (read < large))[..., None]
    return weights.flatten(1).to(device, dtype)


class Steps(NamedTuple):
    """The steps of one decoding stage; an attention that is switched off is None."""

    semantics: Tensor  # I_i1 (E, C_i, h, w), Eqs. (13)-(15)
    channels: Tensor | None  # C_i (E, C_i, 1, 1), Eq. (11)
    detail: Tensor  # I_i2 (E, C_i, h, w), Eq. (12)
    places: Tensor | None  # S_i (E, 1, h, w), Eq. (11)
    refined: Tensor  # F_i (E, C_i, h, w), Eq. (12)


class CASGStage(nn.Module):
    """One decoding stage: deeper semantics tell which channels and which places of V_i to take in.

    ``reading`` settles what the paper leaves open: "lift" has one 3x3 Conv-BN-ReLU per Conv and lifts I_i1 to the
    sentence's width for S_i; "double" has two of them per Conv and brings the sentence to the width of I_i1. Without
    ``language`` a learned 3x3 kernel takes the sentence's place in S_i, and C_i sees I_i1 alone. ``scale`` divides the
    products of S_i by the square root of their number of terms, which the paper does not write.
    """

    as_written = False  # True: lift before the product of S_i, to count what the paper's own order costs

    def __init__(
        self,
        channels: int,
        deeper: Sequence[int],
        text_width: int,
        language: bool,
        channel: bool,
        spatial: bool,
        attention: str,
        reading: str,
        scale: bool = True,
    ):
        super().__init__()
        double = reading == "double"

        def second() -> list[nn.Module]:
            return [conv_bn_relu(channels, channels)] if double else []

        self.coordinate = UpsampledConv(deeper, channels)
        self.coordinate_tail = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True), *second())
        self.channel_gate, self.spatial_gate = Gate(attention), Gate(attention)
        self.language, self.scale = language, scale
        self.channel_mlp = self.lift = self.project = None
        if channel:
            inputs = channels + (text_width if language else 0)
            self.channel_mlp = nn.Sequential(nn.Linear(inputs, channels), nn.ReLU(), nn.Linear(channels, channels))
        if spatial and not language:
            self.lift = nn.Conv2d(channels, 1, kernel_size=3, padding=1)
        elif spatial and double:
            self.project = nn.Linear(text_width, channels)
        elif spatial:
            self.lift = nn.Conv2d(channels, text_width, kernel_size=3, padding=1)
        self.spatial = spatial
        convs = (nn.Sequential(conv_bn_relu(2 * channels, channels), *second()) for _ in range(2))
        self.take_in, self.refine = convs

    def channel_attention(self, semantics: Tensor, sentence: Tensor) -> Tensor:
        """C_i (E, C_i, 1, 1) from the sentence and the mean of I_i1, Eq. (11)."""
        mean = semantics.mean((2, 3))
        inputs = torch.cat([sentence, mean], dim=1) if self.language else mean
        return self.channel_gate(self.channel_mlp(inputs))[:, :, None, None]  # type: ignore[misc]

    def spatial_attention(self, semantics: Tensor, sentence: Tensor) -> Tensor:
        """S_i (E, 1, h, w): how well each cell of I_i1 agrees with the sentence, Eq. (11)."""
        if not self.language:
            return self.spatial_gate(self.lift(semantics))  # type: ignore[misc]
        if self.project is not None:
            scores, terms = torch.einsum("echw,ec->ehw", semantics, self.project(sentence)), semantics.shape[1]
        else:
            product = lifted_first if self.as_written else lifted_scores
            scores, terms = product(semantics, self.lift, sentence), sentence.shape[1]  # type: ignore[arg-type]
        return self.spatial_gate(scores / math.sqrt(terms) if self.scale else scores).unsqueeze(1)

    def steps(self, vision: Tensor, deeper: Sequence[Tensor], sentence: Tensor) -> Steps:
        """V_i (E, C_i, h, w), the fused map and the deeper F_j, sentence (E, D) to the steps of the stage."""
        semantics = self.coordinate_tail(self.coordinate(deeper, tuple(vision.shape[-2:])))  # Eqs. (13)-(15)
        channels = places = None
        if self.channel_mlp is not None:
            channels = self.channel_attention(semantics, sentence)
            vision = vision * channels
        detail = taken = self.take_in(torch.cat([vision, semantics], dim=1))  # Eq. (12)
        if self.spatial:
            places = self.spatial_attention(semantics, sentence)
            taken = detail * places
        return Steps(semantics, channels, detail, places, self.refine(torch.cat([taken, semantics], dim=1)))

    def forward(self, vision: Tensor, deeper: Sequence[Tensor], sentence: Tensor) -> Tensor:
        """V_i (E, C_i, h, w), the fused map and the deeper F_j, sentence (E, D) to F_i (E, C_i, h, w)."""
        return self.steps(vision, deeper, sentence).refined


class CASG(nn.Module):
    """The decoder with up to three attention-guided stages, at strides 16, 8 and 4 (D1, D2, D3 of Table VI).

    ``language``, ``channel``, ``spatial`` and ``attention`` ("tanh" or "sigmoid") are the switches of Table V;
    ``reading`` and ``scale`` are those of ``CASGStage``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        text_width: int,
        stages: int = 3,
        language: bool = True,
        channel: bool = True,
        spatial: bool = True,
        attention: str = "tanh",
        reading: str = "lift",
        scale: bool = True,
    ):
        super().__init__()
        if attention not in GATES or reading not in READINGS or stages not in range(4):
            given = f"attention '{attention}', reading '{reading}' or stages {stages}"
            known = f"{', '.join(GATES)}; {', '.join(READINGS)}; 0 to 3"
            raise StudyError(f"casg: {given} is unknown; known: {known}")
        options = (text_width, language, channel, spatial, attention, reading, scale)
        levels = [2, 1, 0][:stages]  # V_3, V_2, V_1
        self.levels = levels
        self.stages = nn.ModuleList(CASGStage(channels[k], channels[:k:-1], *options) for k in levels)
        self.predict = nn.Conv2d(channels[levels[-1] if levels else 3], 1, kernel_size=3, padding=1)

    def forward(self, maps: Sequence[Tensor], fused: Tensor, sentence: Tensor, image_index: Tensor) -> Tensor:
        """Mask logits (E, 1, h, w) at the last stage's stride; arguments as for ``interfaces.Decoder``."""
        deeper = [fused]  # F_4, then F_3, F_2: the order of ``channels[:k:-1]``
        for level, stage in zip(self.levels, self.stages, strict=True):
            deeper.append(stage(of_each(maps[level], image_index), deeper, sentence))
        return self.predict(deeper[-1])
