"""FiLM (Perez et al., AAAI 2018) as a fusion module: the sentence scales and shifts every channel of the map."""

from torch import Tensor, nn

from refstudy.models.layers import conv_bn_relu, mean_word


class FiLM(nn.Module):
    """Conv-BN-ReLU of V_4, its channels scaled by 1 + gamma and shifted by beta, added to V_4.

    Gamma and beta are linear in the mean word. ``kernel`` is the convolution's size, and an option of the study file.
    """

    def __init__(self, channels: int, text_width: int, grid: tuple[int, int], kernel: int = 1):
        super().__init__()
        self.mix = conv_bn_relu(channels, channels, kernel=kernel)
        self.film = nn.Linear(text_width, 2 * channels)

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W), words (E, L, D), mask (E, L) to (E, C, H, W)."""
        gamma, beta = self.film(mean_word(words, word_mask))[:, :, None, None].chunk(2, dim=1)
        return vision + (1 + gamma) * self.mix(vision) + beta
