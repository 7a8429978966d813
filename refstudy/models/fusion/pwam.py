"""PWAM, the pixel-word attention of LAVT (Yang et al., CVPR 2022), and its use as the fusion on V_4."""

import math

from torch import Tensor, nn

from refstudy.models.fusion.language_gate import LanguageGate
from refstudy.models.layers import InstanceNorm


class PWAM(nn.Module):
    """Every cell gathers the words that matter to it, and what it gathers multiplies its own projection.

    The 1x1 convolutions of the paper are linear maps over cells. Those of query, key, value and gathered words have no
    bias: the norm over cells takes away what all cells share, and the softmax what all words share, so that a bias
    would change nothing and get no gradient.

    ``norm_gathered=False`` leaves out the norm of the gathered words, which takes away what a sentence tells all cells
    alike; it is no variant of a paper (biases of value and gathered words would count then; it has none either).
    """

    def __init__(self, channels: int, text_width: int, norm_gathered: bool = True):
        super().__init__()
        self.norm = InstanceNorm()
        self.norm_gathered = norm_gathered
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
        gathered = self.gathered(attention @ self.value(words))
        return self._over_cells(gathered) if self.norm_gathered else gathered, attention

    def _over_cells(self, cells: Tensor) -> Tensor:
        return self.norm(cells.transpose(1, 2)).transpose(1, 2)

    def forward(self, cells: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """Cells (E, N, C), words (E, L, D), bool mask (E, L) to the multi-modal cells (E, N, C)."""
        gathered, _ = self.gather(cells, words, word_mask)
        return self.output(self.visual(cells) * gathered)


class PWAMFusion(nn.Module):
    """LAVT's last stage as the fusion of S²RM's Table VII: V_4 plus what PWAM makes of it, weighted by the gate."""

    def __init__(self, channels: int, text_width: int, grid: tuple[int, int], norm_gathered: bool = True):
        super().__init__()
        self.attention = PWAM(channels, text_width, norm_gathered)
        self.gate = LanguageGate(channels)

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W), words (E, L, D), mask (E, L) to (E, C, H, W)."""
        cells = vision.flatten(2).transpose(1, 2)
        attended = self.attention(cells, words, word_mask)
        fused = cells + self.gate(attended) * attended
        return fused.transpose(1, 2).unflatten(2, vision.shape[-2:])
