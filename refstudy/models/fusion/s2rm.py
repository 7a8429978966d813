"""S²RM, Spatial Semantic Recurrent Mining (arXiv 2405.09006, Sec. III-B): distribute, coparse, balance."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from refstudy.base.errors import StudyError
from refstudy.models.fusion.tile_concat import TileConcat
from refstudy.models.layers import Gate, at_least_float32, conv_bn_relu, full_precision

DIRECTIONS = ("l2v", "v2l")


def coparse(parsed: Tensor, generator: Tensor, shift: bool = True) -> tuple[Tensor, Tensor]:
    """Parse each cell of one context with cyclically shifted columns and rows of the other, Eqs. (5)-(8).

    Both are (B, C, H, W). With ``shift`` the result is the column map (B, H*W, H, W), channel h*W + w being
    <parsed[i, j], generator[(i - h) mod H, w]>, and the row map (B, W*H, H, W), channel w*H + k being
    <parsed[i, j], generator[k, (j - w) mod W]>. Without, only h = 0 and w = 0 are left: (B, W, H, W) and (B, H, H, W).

    Every entry is one entry of the Gram matrix of the two contexts, so that matrix is computed once and re-indexed;
    no shifted copy is ever made (``coparse_literal`` makes them, as the paper writes it, and is equal).

    Raises ValueError when the shapes differ.
    """
    if parsed.shape != generator.shape:
        raise ValueError(f"coparse needs equal shapes, got {tuple(parsed.shape)} and {tuple(generator.shape)}")
    height, width = parsed.shape[-2:]
    return maps_of_gram(gram(parsed, generator), height, width, shift)


def coparse_literal(parsed: Tensor, generator: Tensor, shift: bool = True) -> tuple[Tensor, Tensor]:
    """``coparse`` as the paper writes it, from H and W rolled copies of ``generator``. For tests and teaching only."""
    height, width = parsed.shape[-2:]
    columns, rows = [], []
    for h in range(height if shift else 1):
        rolled = generator.roll(h, dims=2)  # its row i is row (i - h) mod H
        columns.append(torch.einsum("bcij,bciw->bwij", parsed, rolled))  # Eqs. (5)-(6)
    for w in range(width if shift else 1):
        rolled = generator.roll(w, dims=3)  # its column j is column (j - w) mod W
        rows.append(torch.einsum("bcij,bckj->bkij", parsed, rolled))  # Eqs. (7)-(8)
    return torch.cat(columns, dim=1), torch.cat(rows, dim=1)


def gram(parsed: Tensor, generator: Tensor) -> Tensor:
    """Inner products of all cells: two (B, C, H, W) to (B, H*W, H*W), entry [p, q] = <parsed[p], generator[q]>.

    They are computed at least in float32, also under autocast: gates are computed from sums of hundreds of them.
    """
    with full_precision(parsed.device):
        return at_least_float32(parsed).flatten(2).transpose(1, 2) @ at_least_float32(generator).flatten(2)


def maps_of_gram(products: Tensor, height: int, width: int, shift: bool = True) -> tuple[Tensor, Tensor]:
    """Column and row map of Eqs. (5)-(8) from the Gram matrix (B, H*W, H*W) of the two contexts."""
    indices = coparse_indices(height, width, shift, products.device)
    column, row = (
        (Reordered.apply(products, index) if shift else products.gather(2, index.expand(len(products), -1, -1)))
        .transpose(1, 2)
        .unflatten(2, (height, width))
        for index in indices
    )
    return column, row


class Reordered(torch.autograd.Function):
    """Each row of (B, N, N) in its own order, (N, N). The gradient is a second gather; that of ``gather`` itself would
    add up entry by entry, since it does not know that no entry is read twice."""

    @staticmethod
    def forward(context, products: Tensor, order: Tensor) -> Tensor:
        context.save_for_backward(order)
        return products.gather(2, order.expand(len(products), -1, -1))

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        (order,) = context.saved_tensors
        places = torch.arange(order.shape[1], device=order.device).expand_as(order)
        return Reordered.apply(gradient, torch.empty_like(order).scatter_(1, order, places)), None


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept for training too, even if the first call comes from inference
def coparse_indices(height: int, width: int, shift: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each cell p of the parsed context (rows) and each map channel: which cell q of the generator it meets."""
    i = torch.arange(height, device="cpu")[:, None, None, None]
    j = torch.arange(width, device="cpu")[None, :, None, None]
    h, w = torch.arange(height if shift else 1, device="cpu"), torch.arange(width, device="cpu")
    column = ((i - h[:, None]) % height) * width + w + 0 * j  # Eqs. (5)-(6): channels (h, w)
    w, k = torch.arange(width if shift else 1, device="cpu"), torch.arange(height, device="cpu")
    row = k * width + (j - w[:, None]) % width + 0 * i  # Eqs. (7)-(8): channels (w, k)
    cells = height * width
    return column.reshape(cells, -1).to(device), row.reshape(cells, -1).to(device)


class Steps(NamedTuple):
    """The steps of S²RM for E expressions of L words on a grid of H x W cells."""

    attention: Tensor  # of each cell to each word, (E, H*W, L), Eq. (3)
    language: Tensor  # T^dist (E, C, H, W), Eq. (4)
    groups: list[Tensor]  # maps (E, planes, H, W), column then row for each direction, Eqs. (5)-(8)
    weights: Tensor  # one of each group, (E, groups), Eq. (9)
    fused: Tensor  # (E, C, H, W), Eq. (10)


class S2RM(nn.Module):
    """Spatial Semantic Recurrent Mining on the deepest vision map.

    ``shift``, ``directions`` (any of "l2v", "v2l") and ``balance`` are the switches of Table IV. ``scale`` divides the
    products of Eqs. (5)-(8) by sqrt(C), which the paper does not write. The maps have H*W channels, so the grid
    (height, width) is fixed when the module is made.
    """

    def __init__(
        self,
        channels: int,
        text_width: int,
        grid: tuple[int, int],
        shift: bool = True,
        directions: tuple[str, ...] = DIRECTIONS,
        balance: bool = True,
        scale: bool = False,
    ):
        super().__init__()
        if not directions or set(directions) - set(DIRECTIONS) or len(set(directions)) < len(directions):
            raise StudyError(f"s2rm: directions {list(directions)} must be one or both of {list(DIRECTIONS)}")
        self.grid, self.shift, self.directions = grid, shift, tuple(directions)
        self.factor = 1 / math.sqrt(channels) if scale else 1.0
        self.query = TileConcat(channels, text_width, grid)
        self.key = nn.Sequential(nn.Linear(text_width, channels), nn.LayerNorm(channels), nn.ReLU())
        self.value = nn.Sequential(nn.Linear(text_width, channels), nn.LayerNorm(channels), nn.ReLU())
        height, width = grid
        planes = 2 * height * width if shift else height + width
        groups = 2 * len(self.directions)
        self.gate = nn.Conv2d(len(self.directions) * planes, groups, kernel_size=1) if balance else None
        self.balance = Gate("sigmoid", [f"{way} {map_}" for way in self.directions for map_ in ("column", "row")])
        self.compress = conv_bn_relu(len(self.directions) * planes, channels, kernel=1)

    def distribute(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The distributed language feature T^dist (E, C, H, W) and the word attention (E, H*W, L), Eqs. (1)-(4)."""
        query = self.query(vision, words, word_mask).flatten(2).transpose(1, 2)  # Eq. (1)
        key, value = self.key(words), self.value(words)  # Eq. (2)
        with full_precision(vision.device):  # what differs from cell to cell is small compared to what all cells share
            query, key, value = (at_least_float32(x) for x in (query, key, value))
            scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
            attention = scores.masked_fill(~word_mask[:, None, :], float("-inf")).softmax(-1)  # Eq. (3)
            return (attention @ value).transpose(1, 2).unflatten(2, vision.shape[-2:]), attention  # Eq. (4)

    def coparse(self, vision: Tensor, language: Tensor) -> list[Tensor]:
        """The groups of maps, column then row for each direction; one Gram matrix serves both directions."""
        products = gram(vision, language) * self.factor
        by_direction = {"l2v": products, "v2l": products.transpose(1, 2)}
        height, width = vision.shape[-2:]
        pairs = [maps_of_gram(by_direction[way], height, width, self.shift) for way in self.directions]
        return [group for pair in pairs for group in pair]

    def weights(self, groups: list[Tensor]) -> Tensor:
        """One weight in (0, 1) per group, (E, groups), Eq. (9); ones when balancing is off."""
        if self.gate is None:
            return groups[0].new_ones(len(groups[0]), len(groups))
        with full_precision(groups[0].device):
            return self.balance(self.gate(torch.cat(groups, dim=1)).mean((2, 3)))

    def steps(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Steps:
        """Everything between V_4 (E, C, H, W), words (E, L, D), bool mask (E, L) and the fused map.

        Raises ValueError when V_4 is not on the grid that the module was made for.
        """
        if tuple(vision.shape[-2:]) != tuple(self.grid):
            raise ValueError(f"S²RM was made for a grid of {self.grid}, V_4 has {tuple(vision.shape[-2:])}")
        language, attention = self.distribute(vision, words, word_mask)
        groups = self.coparse(vision, language)  # Eqs. (5)-(8)
        weights, weighed = self.weights(groups), groups
        if self.gate is not None:
            weighed = [group * weights[:, k, None, None, None] for k, group in enumerate(groups)]
        fused = vision + self.compress(torch.cat(weighed, dim=1))  # Eq. (10), added to V_4
        return Steps(attention, language, groups, weights, fused)

    def forward(self, vision: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        """V_4 (E, C, H, W), words (E, L, D), bool mask (E, L) to the fused map (E, C, H, W); raises as ``steps``."""
        return self.steps(vision, words, word_mask).fused
