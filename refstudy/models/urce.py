"""URCE, Uncertain Region Cross-Scale Enhancement (SLViT, IJCAI 2023, Sec. 3.4)."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, scaled_dot_product_attention

from refstudy.base.errors import StudyError
from refstudy.models.layers import at_least_float32

SCORE_SOURCES = ("raw", "softmax")
STAGES = (1, 2, 3, 4)


class Enhanced(NamedTuple):
    """The output of URCE: the ``maps`` F~_1 ... F~_4, map_U (E, h, w), and the flat indices (E, K) of the chosen
    cells."""

    maps: tuple[Tensor, ...]
    uncertainty: Tensor
    cells: Tensor


def patch_side(stage: int) -> int:
    """Cells of stage 1, 2, 3 or 4 along one side of a region: 8, 4, 2, 1."""
    return 2 ** (4 - stage)


def to_patches(x: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """Cut (E, C, H, W) into the patches of a grid of regions, (E, regions, side * side, C), all in row-major order.

    Patches that reach over the right or lower border are filled with zeros.
    """
    height, width = x.shape[-2:]
    rows, columns = grid
    x = pad(x.permute(0, 2, 3, 1), (0, 0, 0, columns * side - width, 0, rows * side - height))
    x = x.unflatten(2, (columns, side)).unflatten(1, (rows, side))  # (E, rows, side, columns, side, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def from_patches(patches: Tensor, side: int, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of ``to_patches`` for a map of ``size`` (H, W)."""
    x = patches.unflatten(2, (side, side)).unflatten(1, grid).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : size[0], : size[1]].permute(0, 3, 1, 2)


class URCE(nn.Module):
    """Refines the patches of all scales together, in regions where adjacent stages disagree about the words.

    A region is one cell of stage 4 with the 2x2, 4x4 and 8x8 cells of stages 3, 2 and 1 that lie under it (fewer at a
    border that cuts through it; Eq. 8 averages over, and the attention sees, those that exist).

    ``regions`` is K, at most all cells are taken. ``stages`` are those whose patches are joined (Table 2d), and
    ``restored``, by default the same, those of them whose patches are put back (Table 2e). ``score_source`` "softmax"
    sums the scores after the softmax over words, as the authors' public code does: every sum is 1, map_U is zero, all
    cells are equal, and the first K are chosen. ``skip`` joins F_i and the output of Eq. (12) by a linear map,
    LayerNorm and ReLU, as that code does too; in the paper the output replaces F_i.
    """

    def __init__(
        self,
        channels: Sequence[int],
        regions: int = 32,
        stages: Sequence[int] = STAGES,
        restored: Sequence[int] | None = None,
        score_source: str = "raw",
        width: int = 256,
        heads: int = 8,
        skip: bool = False,
    ):
        super().__init__()
        self.stages = tuple(stages)
        self.restored = self.stages if restored is None else tuple(restored)
        if not set(self.restored) <= set(self.stages) <= set(STAGES) or not self.restored:
            raise StudyError(f"urce: stages {list(self.stages)} must be of {list(STAGES)}, and one be restored")
        if score_source not in SCORE_SOURCES or regions < 1 or width % heads:
            sizes = f"regions {regions} is positive, and heads {heads} divides width {width}"
            raise StudyError(f"urce: score_source '{score_source}' is one of {list(SCORE_SOURCES)}, {sizes}")
        self.regions, self.score_source, self.heads = regions, score_source, heads
        self.unify = nn.ModuleDict({str(stage): nn.Linear(channels[stage - 1], width) for stage in self.stages})
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.reverse = nn.ModuleDict({str(stage): nn.Linear(width, channels[stage - 1]) for stage in self.restored})
        self.joins = nn.ModuleDict()
        for stage in self.restored if skip else ():
            count = channels[stage - 1]
            self.joins[str(stage)] = nn.Sequential(nn.Linear(2 * count, count), nn.LayerNorm(count), nn.ReLU())

    def correlation(self, scores: Tensor, word_mask: Tensor) -> Tensor:
        """R_i (E, h_i, w_i): the scores S_i (E, L, h_i, w_i) summed over the words that are there, in float32."""
        scores = at_least_float32(scores)
        absent = ~word_mask[:, :, None, None]
        if self.score_source == "softmax":
            return scores.masked_fill(absent, float("-inf")).softmax(1).sum(1)  # 1 at whatever scale
        return scores.masked_fill(absent, 0).sum(1)

    @torch.no_grad()
    def uncertainty(self, scores: Sequence[Tensor], word_mask: Tensor) -> Tensor:
        """map_U (E, h_4, w_4) from S_1 ... S_4, Eq. (8); ``Down`` is the mean over a region.

        A disagreement below 1e-5 of the largest correlation is round-off and counts as none; otherwise the choice among
        equal cells would depend on the machine.
        """
        correlations = [self.correlation(one, word_mask).unsqueeze(1) for one in scores]
        down = partial(avg_pool2d, ceil_mode=True, count_include_pad=False)
        levels = [down(x, patch_side(stage)) for stage, x in zip(STAGES, correlations, strict=True)]
        pooled = torch.cat(levels, dim=1)  # (E, 4, h_4, w_4)
        uncertainty = pooled.diff(dim=1).abs().sum(1)  # Eq. (8)
        largest = pooled.abs().amax((1, 2, 3))[:, None, None]
        return uncertainty.masked_fill(uncertainty < 1e-5 * largest, 0)

    def choose(self, uncertainty: Tensor) -> Tensor:
        """The flat indices (E, K) of the most uncertain cells, the first of equal ones first, Eq. (9)."""
        order = uncertainty.flatten(1).sort(dim=1, descending=True, stable=True).indices
        return order[:, : self.regions]

    def attend(self, sequence: Tensor, present: Tensor) -> Tensor:
        """Eq. (11) on sequences (N, T, C_f); tokens that are not ``present``, bool (N, T), are not looked at."""
        heads = self.query_key_value(self.norm(sequence)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=present[:, None, None, :])
        return sequence + self.output(mixed.transpose(1, 2).flatten(2))

    def sequences(self, maps: Sequence[Tensor], cells: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """The tokens of the chosen ``cells`` (E, K) in one width, (E, K, T, C_f), Eq. (10); bool (E, K, T), which of
        them lie in the image; and how many of the T each stage has."""
        tokens, present = [], []
        grid = (maps[3].shape[-2], maps[3].shape[-1])
        for stage in self.stages:
            x, side = maps[stage - 1], patch_side(stage)
            index = cells[:, :, None, None].expand(-1, -1, side**2, x.shape[1])
            tokens.append(self.unify[str(stage)](to_patches(x, side, grid).gather(1, index)))
            exists = to_patches(x.new_ones(1, 1, *x.shape[-2:]), side, grid)[0, :, :, 0] > 0
            present.append(exists[cells])
        return torch.cat(tokens, dim=2), torch.cat(present, dim=2), [token.shape[2] for token in tokens]

    def enhance(self, maps: Sequence[Tensor], cells: Tensor) -> tuple[Tensor, ...]:
        """F_1 ... F_4 with the patches of the chosen ``cells`` (E, K) replaced, Eqs. (10)-(12)."""
        grid = (maps[3].shape[-2], maps[3].shape[-1])
        sequences, present, lengths = self.sequences(maps, cells)
        attended = self.attend(sequences.flatten(0, 1), present.flatten(0, 1)).unflatten(0, cells.shape)  # Eq. (11)
        split = dict(zip(self.stages, attended.split(lengths, dim=2), strict=True))
        enhanced = list(maps)
        for stage in self.restored:
            x, side = maps[stage - 1], patch_side(stage)
            refined = self.reverse[str(stage)](split[stage]).to(x.dtype)  # Eq. (12)
            index = cells[:, :, None, None].expand_as(refined)
            replaced = to_patches(x, side, grid).scatter(1, index, refined)
            enhanced[stage - 1] = from_patches(replaced, side, grid, (x.shape[-2], x.shape[-1]))
            if str(stage) in self.joins:
                both = torch.cat([enhanced[stage - 1], x], dim=1).permute(0, 2, 3, 1)
                enhanced[stage - 1] = self.joins[str(stage)](both).permute(0, 3, 1, 2)
        return tuple(enhanced)

    def forward(self, maps: Sequence[Tensor], scores: Sequence[Tensor], word_mask: Tensor) -> Enhanced:
        """F_1 ... F_4 (E, C_i, h_i, w_i), S_1 ... S_4 (E, L, h_i, w_i) and the bool mask (E, L) to ``Enhanced``.

        Each stage's sides are half of those of the stage before, rounded up.
        """
        uncertainty = self.uncertainty(scores, word_mask)
        cells = self.choose(uncertainty)
        return Enhanced(self.enhance(maps, cells), uncertainty, cells)
