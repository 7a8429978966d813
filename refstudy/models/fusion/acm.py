"""ACM, the asymmetric co-attention of CEFNet (Feng et al., CVPR 2021), in the block that CEFNet builds around it."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from refstudy.models.layers import conv_bn_relu, mean_word, position_planes, tile

ANCHOR_GRIDS = (1, 3, 6, 8)  # 1 + 9 + 36 + 64 = 110 anchors


def anchors(maps: Tensor) -> Tensor:
    """Averages over the cells of four coarse grids: (E, C, H, W) to (E, C, 110), also on a grid finer than the map."""
    return torch.cat([adaptive_avg_pool2d(maps, side).flatten(2) for side in ANCHOR_GRIDS], dim=2)


def unit(vectors: Tensor, dim: int = 1) -> Tensor:
    """Divide vectors by their length along ``dim``; a length counts as at least 1e-6, which half precision can hold."""
    return normalize(vectors, dim=dim, eps=1e-6)


class CoAttention(nn.Module):
    """ACM itself: both modalities are mixed by one attention of the cells over 110 pooled anchors.

    It is asymmetric in that every cell asks, but only anchors answer: H*W x 110 scores instead of H*W x H*W.
    """

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.inner = inner
        self.queries = nn.ModuleList(conv_bn_relu(width, inner, kernel=1) for _ in range(2))
        self.keys = nn.ModuleList(conv_bn_relu(width, inner, kernel=1) for _ in range(2))
        self.values = nn.ModuleList(nn.Conv2d(width, inner, kernel_size=1) for _ in range(2))
        self.outputs = nn.ModuleList(nn.Conv2d(inner, width, kernel_size=1) for _ in range(2))

    def attention(self, vision: Tensor, language: Tensor) -> Tensor:
        """(E, H*W, 110): the scores within vision and within language are added before the one softmax."""
        within_vision, within_language = (
            query(maps).flatten(2).transpose(1, 2) @ anchors(key(maps))
            for query, key, maps in zip(self.queries, self.keys, (vision, language), strict=True)
        )
        return ((within_vision + within_language) / math.sqrt(self.inner)).softmax(-1)

    def forward(self, vision: Tensor, language: Tensor) -> tuple[Tensor, Tensor]:
        """Vision and language maps, both (E, width, H, W), to the contexts of the two, of the same shape."""
        attention = self.attention(vision, language).transpose(1, 2)
        vision_context, language_context = (
            output((anchors(value(maps)) @ attention).unflatten(2, maps.shape[-2:]))
            for output, value, maps in zip(self.outputs, self.values, (vision, language), strict=True)
        )
        return vision_context, language_context


class ACM(nn.Module):
    """CEFNet's block for its deepest stage, as the fusion of S²RM's Table VII on V_4.

    Vision meets the sentence and the position planes; each cell then gathers its words into a language map; ACM mixes
    both; the contexts come back to C channels and are added to V_4. Maps have unit vectors in their cells where
    CEFNet's have. As there, a 3x3 convolution with BatchNorm comes between the sum of two such maps and the decoder,
    and brings its entries, whose deviation is about 1.4 / sqrt(C), to the usual size.

    CEFNet's recurrent text encoder is not part of the block: words and sentence (here the mean word) come to ``width``
    by a linear layer each, with LayerNorm where CEFNet has BatchNorm, so that padding has no influence.
    """

    def __init__(self, channels: int, text_width: int, grid: tuple[int, int], width: int = 512, inner: int = 256):
        super().__init__()

        def convolve(inputs: int, outputs: int) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.PReLU())

        self.word = nn.Sequential(nn.Linear(text_width, width), nn.LayerNorm(width), nn.ReLU())
        self.sentence = nn.Sequential(nn.Linear(text_width, width), nn.LayerNorm(width), nn.ReLU())
        self.reduce = convolve(channels, width)
        self.mix = convolve(2 * width + 8, width)
        self.query = nn.Conv2d(width, width, kernel_size=1)
        self.attention = CoAttention(width, inner)
        self.restore = convolve(2 * width, channels)
        self.output = convolve(channels, channels)

    def mixed(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 with the sentence and the position planes, (E, width, H, W)."""
        count, _, height, width = vision.shape
        sentence = tile(unit(self.sentence(mean_word(words, word_mask))), height, width)
        planes = position_planes(height, width, vision.device, vision.dtype).expand(count, -1, -1, -1)
        return unit(self.mix(torch.cat([unit(self.reduce(vision)), sentence, planes], dim=1)))

    def language(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The words that each cell of the mixed map gathers (E, width, H, W), and the word attention (E, H*W, L)."""
        words = unit(self.word(words), dim=2)
        scores = self.query(vision).flatten(2).transpose(1, 2) @ words.transpose(1, 2)
        attention = scores.masked_fill(~word_mask[:, None, :], float("-inf")).softmax(-1)
        return (attention @ words).transpose(1, 2).unflatten(2, vision.shape[-2:]), attention

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W), words (E, L, D), mask (E, L) to (E, C, H, W)."""
        mixed = self.mixed(vision, words, word_mask)
        language, _ = self.language(mixed, words, word_mask)
        vision_context, language_context = self.attention(mixed, language)
        contexts = unit(torch.cat([language_context, vision_context], dim=1))
        return self.output(unit(vision) + unit(self.restore(contexts)))
