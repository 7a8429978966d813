"""The decoder of LAVT (Yang et al., CVPR 2022): upsample, join the next finer map, two convolutions; three times."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from refstudy.models.layers import conv_bn_relu


class LAVTDecoder(nn.Module):
    """Makes one plane of mask logits from the four multi-modal maps; ``width`` channels in between.

    LAVT predicts two planes and trains them with cross-entropy. Here it is one plane, as for every decoder of the
    study, which trains with dice loss. Upsampling aligns the corners, as LAVT's public code does.
    """

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        joined = [channels[3] + channels[2], width + channels[1], width + channels[0]]
        self.stages = nn.ModuleList(
            nn.Sequential(conv_bn_relu(count, width), conv_bn_relu(width, width)) for count in joined
        )
        self.predict = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps P_1 ... P_4, each (E, C_i, h_i, w_i), to mask logits (E, 1, h_1, w_1)."""
        level = maps[3]
        for finer, stage in zip(reversed(maps[:3]), self.stages, strict=True):
            level = interpolate(level, size=finer.shape[-2:], mode="bilinear", align_corners=True)
            level = stage(torch.cat([level, finer], dim=1))
        return self.predict(level)
