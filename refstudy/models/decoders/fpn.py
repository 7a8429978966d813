"""FPN, the decoder of S²RM's Table IV (Lin et al., 2017): laterals, top-down sum, smoothing."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from refstudy.models.layers import of_each


class FPN(nn.Module):
    """Predicts from the finest level of the pyramid. ``width`` is the number of channels of every level."""

    def __init__(self, channels: Sequence[int], text_width: int, width: int = 256):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, kernel_size=1) for count in channels)
        self.smooth = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.predict = nn.Conv2d(width, 1, kernel_size=3, padding=1)

    def forward(self, maps: Sequence[Tensor], fused: Tensor, sentence: Tensor, image_index: Tensor) -> Tensor:
        """Mask logits (E, 1, H/4, W/4); arguments as for ``interfaces.Decoder``. The sentence is not used.

        The laterals depend on the image alone and are computed once for all of its expressions.
        """
        level = self.laterals[3](fused)
        for stage in (2, 1, 0):
            lateral = of_each(self.laterals[stage](maps[stage]), image_index)
            level = lateral + interpolate(level, size=lateral.shape[-2:], mode="nearest")
        return self.predict(self.smooth(level).relu())
