"""LAVT (Yang et al., CVPR 2022): the expression enters between the stages of the image encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from refstudy.models.encoders import ImageEncoder, TextEncoder
from refstudy.models.fusion.pwam import PWAM, LanguageGate
from refstudy.models.layers import conv_bn_relu, of_each
from refstudy.models.segmenter import ImageFeatures, Segmenter


class LAVTDecoder(nn.Module):
    """Upsample, join the next finer map, two convolutions, three times; ``width`` channels in between.

    LAVT predicts two planes and trains them with cross-entropy. Here it is one plane, as for every decoder of the
    study, which trains with dice loss. Upsampling aligns the corners, as LAVT's public code does.
    """

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        joined = [channels[3] + channels[2], width + channels[1], width + channels[0]]
        stages = (nn.Sequential(conv_bn_relu(count, width), conv_bn_relu(width, width)) for count in joined)
        self.stages = nn.ModuleList(stages)
        self.predict = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps P_1 ... P_4, each (E, C_i, h_i, w_i), to mask logits (E, 1, h_1, w_1)."""
        level = maps[3]
        for finer, stage in zip(reversed(maps[:3]), self.stages, strict=True):
            level = interpolate(level, size=finer.shape[-2:], mode="bilinear", align_corners=True)
            level = stage(torch.cat([level, finer], dim=1))
        return self.predict(level)


class LAVT(Segmenter):
    """Swin with a pixel-word attention after each stage, and LAVT's decoder.

    The next stage gets the stage's output plus the gated multi-modal cells; the decoder gets the multi-modal cells
    themselves, layer-normalised by the image encoder's norms. There is no gate after the last stage, since no stage
    follows. ``width`` is the decoder's; 0 stands for half the channels of the last stage.

    Called as ``ReferringSegmenter`` is. Only the patch embedding and the blocks of the first stage come before any
    word: ``encode_image`` runs these once per image. The other three stages, all attentions and the decoder run once
    per expression.
    """

    image_encoder: ImageEncoder
    align_corners = True

    def __init__(self, image_encoder: ImageEncoder, text_encoder: TextEncoder, width: int = 0):
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        channels = image_encoder.channels
        self.attentions = nn.ModuleList(PWAM(count, text_encoder.width) for count in channels)
        self.gates = nn.ModuleList(LanguageGate(count) for count in channels[:3])
        self.decoder = LAVTDecoder(channels, width or channels[3] // 2)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, H, W), normalised with ImageNet's mean and deviation, to the first stage's output of B images.

        That is the one map of the features, (B, C_1, H/4, W/4), before its attention and without a norm.
        """
        patches = self.image_encoder.backbone.get_submodule("patch_embed")(images)
        return ImageFeatures((self._stage(0, patches).permute(0, 3, 1, 2),), (images.shape[-2], images.shape[-1]))

    def logits(self, features: ImageFeatures, token_ids: Tensor, token_mask: Tensor, image_index: Tensor) -> Tensor:
        words = self.text_encoder(token_ids, token_mask)
        stream = of_each(features.maps[0], image_index).permute(0, 2, 3, 1)  # (E, H/4, W/4, C_1)
        maps = []
        for k, (attention, norm) in enumerate(zip(self.attentions, self.image_encoder.norms, strict=True)):
            cells = stream.flatten(1, 2)
            attended = attention(cells, words, token_mask)
            maps.append(norm(attended).transpose(1, 2).unflatten(2, stream.shape[1:3]))
            if k < len(self.gates):
                cells = cells + self.gates[k](attended) * attended
                stream = self._stage(k + 1, cells.unflatten(1, stream.shape[1:3]))
        return self.decoder(maps)

    def _stage(self, number: int, stream: Tensor) -> Tensor:
        """Patch merging, from the second stage on, and the blocks of a Swin stage: (B, h, w, C) to (B, h', w', C')."""
        return self.image_encoder.backbone.get_submodule(f"layers_{number}")(stream)
