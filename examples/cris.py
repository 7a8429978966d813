"""CRIS's vision-language decoder (Wang et al., CVPR 2022, Sec. 3.3) as a fusion module: a transformer over the cells.

There it stands on a map of stride 16 with three layers, made from CLIP's features. Here it stands on V_4, and the words
are brought to its width. What the paper leaves open is as in its public code: sine positions are added to queries and
keys, not to values, and a norm ends the last layer. That code also has a norm behind each attention and within the MLP,
which the equations do not; those are left out.
"""

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """Attention of the cells to one another, to the words, and an MLP; a norm before each, a sum behind."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.cells, self.words = (nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, cells: Tensor, places: Tensor, words: Tensor, order: Tensor, absent: Tensor) -> Tensor:
        """Cells (E, N, C) with positions (N, C), words (E, L, C) with theirs (L, C), bool (E, L), which are padding."""
        normed = self.norms[0](cells)
        asked = normed + places
        cells = cells + self.cells(asked, asked, normed, need_weights=False)[0]
        asked = self.norms[1](cells) + places
        cells = cells + self.words(asked, words + order, words, key_padding_mask=absent, need_weights=False)[0]
        return cells + self.mlp(self.norms[2](cells))


class CRIS(nn.Module):
    """``layers`` layers of ``heads`` heads, each head of C / heads channels; C is a multiple of 4 and of ``heads``."""

    def __init__(self, channels: int, text_width: int, grid: tuple[int, int], layers: int = 3, heads: int = 8):
        super().__init__()
        self.project = nn.Linear(text_width, channels)
        self.layers = nn.ModuleList(Layer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W) of E expressions, words (E, L, D), bool mask (E, L), false at padding, to (E, C, H, W)."""
        channels, height, width = vision.shape[1:]
        rows, columns = (sines(side, channels // 2).to(vision) for side in (height, width))
        places = torch.cat([columns.repeat(height, 1), rows.repeat_interleave(width, 0)], dim=1)
        cells, words = vision.flatten(2).transpose(1, 2), self.project(words)
        order = sines(words.shape[1], channels).to(words)
        for layer in self.layers:
            cells = layer(cells, places, words, order, ~word_mask)
        return self.norm(cells).transpose(1, 2).unflatten(2, (height, width))


def sines(count: int, width: int) -> Tensor:
    """Positions 0 to count - 1 as sines and cosines in turn (Vaswani et al., 2017, Sec. 3.5), (count, width)."""
    rates = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
