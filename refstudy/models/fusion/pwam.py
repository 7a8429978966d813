"""PWAM, the pixel-word attention of LAVT (Yang et al., CVPR 2022), its language gate, and both as the fusion on V_4."""

import math
from typing import Literal

from torch import Tensor, nn

from refstudy.models.layers import Gate, InstanceNorm


class PWAM(nn.Module):
    """Every cell gathers words by attention; the gathered words multiply the cell's own projection.

    The 1x1 convolutions of the paper are linear maps over cells. Those of query, key, value and gathered words have no
    bias: the norm over cells removes what all cells share, and the softmax what all words share, so a bias would change
    nothing and get no gradient.
    """

    def __init__(self, channels: int, text_width: int):
        super().__init__()
        self.norm = InstanceNorm()
        self.visual = nn.Sequential(nn.Linear(channels, channels), nn.GELU())
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(text_width, channels, bias=False)
        self.value = nn.Linear(text_width, channels, bias=False)
        self.gathered = nn.Linear(channels, channels, bias=False)
        self.output = nn.Sequential(nn.Linear(channels, channels), nn.GELU())

    def gather(self, cells: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The words gathered by each cell (E, N, C) and the word attention (E, N, L)."""
        query = self._over_cells(self.query(cells))
        scores = query @ self.key(words).transpose(1, 2) / math.sqrt(query.shape[-1])
        attention = scores.masked_fill(~word_mask[:, None, :], float("-inf")).softmax(-1)
        return self._over_cells(self.gathered(attention @ self.value(words))), attention

    def _over_cells(self, cells: Tensor) -> Tensor:
        return self.norm(cells.transpose(1, 2)).transpose(1, 2)

    def forward(self, cells: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """Cells (E, N, C), words (E, L, D), bool mask (E, L) to the multi-modal cells (E, N, C)."""
        gathered, _ = self.gather(cells, words, word_mask)
        return self.output(self.visual(cells) * gathered)


class LanguageGate(nn.Module):
    """LAVT's language gate: linear maps without bias, ReLU between, tanh after; a weight for each cell and channel."""

    def __init__(self, channels: int):
        super().__init__()
        first, second = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.weigh = nn.Sequential(first, nn.ReLU(), second, Gate("tanh"))

    def forward(self, cells: Tensor) -> Tensor:
        """The cells that PWAM made, (E, N, C), to their weights (E, N, C)."""
        return self.weigh(cells)


class PWAMFusion(nn.Module):
    """LAVT's last stage as the fusion of S²RM's Table VII.

    From that stage LAVT's decoder gets the multi-modal cells alone, layer-normalised: ``decoded`` "normed". With
    "residual" the fused map is V_4 plus these cells, weighted by the gate; LAVT gives such a sum to the next stage of
    the image encoder, not to the decoder. Then a sentence hardly changes the map: the cells are small compared to V_4,
    and the gate makes them smaller.
    """

    def __init__(
        self, channels: int, text_width: int, grid: tuple[int, int], decoded: Literal["normed", "residual"] = "normed"
    ):
        super().__init__()
        self.attention = PWAM(channels, text_width)
        self.norm = nn.LayerNorm(channels) if decoded == "normed" else None
        self.gate = LanguageGate(channels) if decoded == "residual" else None

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W), words (E, L, D), mask (E, L) to (E, C, H, W)."""
        cells = vision.flatten(2).transpose(1, 2)
        attended = self.attention(cells, words, word_mask)
        fused = self.norm(attended) if self.norm is not None else cells + self.gate(attended) * attended  # type: ignore
        return fused.transpose(1, 2).unflatten(2, vision.shape[-2:])
