"""Tile & Concat, the baseline of S²RM's Table IV: the mean word is tiled over the grid and mixed in by one layer."""

import torch
from torch import Tensor, nn

from refstudy.models.layers import conv_bn_relu, mean_word, position_planes, tile


class TileConcat(nn.Module):
    """1x1 Conv-BN-ReLU over V_4, the tiled mean word and the position planes: Eq. (1) used as the whole fusion.

    Within S²RM the same layer makes the query Q.
    """

    def __init__(self, channels: int, text_width: int, grid: tuple[int, int]):
        super().__init__()
        self.mix = conv_bn_relu(channels + text_width + 8, channels, kernel=1)

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W), words (E, L, D), mask (E, L) to (E, C, H, W)."""
        count, _, height, width = vision.shape
        planes = position_planes(height, width, vision.device, vision.dtype).expand(count, -1, -1, -1)
        sentence = tile(mean_word(words, word_mask), height, width)
        return self.mix(torch.cat([vision, sentence, planes], dim=1))  # Eq. (1)
