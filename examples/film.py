"""FiLM (Perez et al., AAAI 2018) as a fusion module: the sentence scales and shifts every channel of the map."""

from torch import Tensor, nn

from refstudy.models.layers import conv_bn_relu, mean_word


class FiLM(nn.Module):
    """Conv-BN-ReLU of V_4, its channels scaled by 1 + gamma and shifted by beta, added to V_4.

    Gamma and beta are linear in the mean word. ``channels`` C of V_4, ``text_width`` D of a word, ``grid`` (H, W) of
    V_4. Arguments after these are options of the study file; ``kernel``, the convolution's size, is one.
    """

    def __init__(self, channels: int, text_width: int, grid: tuple[int, int], kernel: int = 1):
        super().__init__()
        self.mix = conv_bn_relu(channels, channels, kernel=kernel)
        self.film = nn.Linear(text_width, 2 * channels)

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W) of E expressions, words (E, L, D), bool mask (E, L), false at padding, to (E, C, H, W)."""
        gamma, beta = self.film(mean_word(words, word_mask))[:, :, None, None].chunk(2, dim=1)
        return vision + (1 + gamma) * self.mix(vision) + beta
