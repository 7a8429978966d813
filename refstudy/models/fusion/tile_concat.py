"""Tile & Concat, the baseline of S²RM's Table IV: the mean word is tiled over the grid and mixed in by one layer."""

import torch
from torch import Tensor, nn

from refstudy.models.layers import conv_bn_relu, mean_word, position_planes, tile


class TileConcat(nn.Module):
    """1x1 Conv-BN-ReLU over V_4, the tiled mean word and the position planes: Eq. (1) used as the whole fusion.

    Within S²RM the same layer makes the query Q. ``planes=False`` leaves the position planes out; whether the row of
    the table has them, the paper does not say.
    """

    def __init__(self, channels: int, text_width: int, grid: tuple[int, int], *, planes: bool = True):
        super().__init__()
        self.planes = planes
        self.mix = conv_bn_relu(channels + text_width + 8 * planes, channels, kernel=1)

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W), words (E, L, D), mask (E, L) to (E, C, H, W)."""
        count, _, height, width = vision.shape
        mixed = [vision, tile(mean_word(words, word_mask), height, width)]
        if self.planes:
            mixed.append(position_planes(height, width, vision.device, vision.dtype).expand(count, -1, -1, -1))
        return self.mix(torch.cat(mixed, dim=1))  # Eq. (1)
