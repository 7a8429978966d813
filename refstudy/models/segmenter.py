"""What all models of the study have in common, and the one with late fusion that S²RM and its ablations are."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from refstudy.models.layers import mean_word


class ImageFeatures(NamedTuple):
    """What ``encode_image`` keeps of B images: feature ``maps`` and the ``size`` (H, W) of the images."""

    maps: tuple[Tensor, ...]
    size: tuple[int, int]


class Segmenter(nn.Module):
    """A referring segmenter: images and expressions to mask logits, in two halves.

    ``encode_image`` is what depends on the images alone, and ``segment`` the rest, for any number of expressions.
    ``late_fusion`` says that the whole image encoder belongs to the first half.
    """

    late_fusion: bool
    image_encoder: nn.Module
    text_encoder: nn.Module

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, H, W), normalised with ImageNet's mean and deviation, to the features of B images."""
        raise NotImplementedError

    def segment(
        self, features: ImageFeatures, token_ids: Tensor, token_mask: Tensor, image_index: Tensor | None = None
    ) -> Tensor:
        """Mask logits (E, H, W) for E expressions: ids (E, L), bool mask (E, L).

        ``image_index`` (E,) names the image of each expression; without it, expression k belongs to image k.
        """
        raise NotImplementedError

    def forward(
        self, images: Tensor, token_ids: Tensor, token_mask: Tensor, image_index: Tensor | None = None
    ) -> Tensor:
        """Images (B, 3, H, W) and expressions to mask logits (E, H, W), as in ``segment``."""
        return self.segment(self.encode_image(images), token_ids, token_mask, image_index)


class ReferringSegmenter(Segmenter):
    """Image encoder, text encoder, a fusion module on the deepest map, and a decoder. Source: S²RM, Fig. 1.

    ``encode_image`` keeps V_1 ... V_4.
    """

    late_fusion = True

    def __init__(self, image_encoder: nn.Module, text_encoder: nn.Module, fusion: nn.Module, decoder: nn.Module):
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.fusion, self.decoder = fusion, decoder

    def encode_image(self, images: Tensor) -> ImageFeatures:
        return ImageFeatures(self.image_encoder(images), (images.shape[-2], images.shape[-1]))

    def segment(
        self, features: ImageFeatures, token_ids: Tensor, token_mask: Tensor, image_index: Tensor | None = None
    ) -> Tensor:
        if image_index is None:
            image_index = torch.arange(len(token_ids), device=token_ids.device)
        words = self.text_encoder(token_ids, token_mask)
        fused = self.fusion(features.maps[3][image_index], words, token_mask)
        logits = self.decoder(features.maps[:3], fused, mean_word(words, token_mask), image_index)
        return interpolate(logits, size=features.size, mode="bilinear", align_corners=False).squeeze(1)
