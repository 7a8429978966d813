"""The interfaces of a fusion module and of a decoder, for readers who write one.

Both are ``nn.Module``. Parameters of the constructor after the sizes are options of the study file; their type hints
are checked. Your own class is named ``file.py:Class`` or ``module:Class``; examples/ has one.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Fusion(Protocol):
    """Mixes an expression into the deepest map of its image.

    Made as ``Class(channels, text_width, grid, **options)``: the channels C of V_4, the width D of a word, and the grid
    (H, W) of V_4, a 32nd of the image's height and width.
    """

    def __call__(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W) of E expressions, words (E, L, D), bool mask (E, L), false at padding, to (E, C, H, W)."""
        ...


class Decoder(Protocol):
    """Draws the mask of each expression from the maps of its image and the fused map.

    Made as ``Class(channels, text_width, **options)``: the channels (C_1, C_2, C_3, C_4) and the width D of a word.
    """

    def __call__(self, maps: Sequence[Tensor], fused: Tensor, sentence: Tensor, image_index: Tensor) -> Tensor:
        """Mask logits (E, 1, H/4, W/4) for images of H x W pixels.

        ``maps`` are V_1, V_2, V_3 of B images, (B, C_k, H/2^(k+1), W/2^(k+1)); ``fused`` (E, C_4, H/32, W/32) is what
        the fusion made, ``sentence`` (E, D) the mean word, ``image_index`` (E,) the image of each expression.
        """
        ...
