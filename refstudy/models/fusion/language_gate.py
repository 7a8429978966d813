"""The gate of LAVT's language pathway (Yang et al., CVPR 2022): how much of the gathered words goes on with a cell."""

from torch import Tensor, nn

from refstudy.models.layers import Gate


class LanguageGate(nn.Module):
    """Two linear maps without bias, ReLU between them, tanh at the end: one weight in (-1, 1) per cell and channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Linear(channels, channels, bias=False),
            nn.ReLU(),
            nn.Linear(channels, channels, bias=False),
            Gate("tanh"),
        )

    def forward(self, cells: Tensor) -> Tensor:
        """The cells that PWAM made, (E, N, C), to their weights (E, N, C)."""
        return self.weigh(cells)
