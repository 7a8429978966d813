"""Coparsing exactly as Eqs. (5)-(8) are written, with every shifted copy made. For tests and teaching only."""

import torch
from torch import Tensor


def coparse_literal(parsed: Tensor, generator: Tensor, shift: bool = True) -> tuple[Tensor, Tensor]:
    """The column and row maps of ``refstudy.models.s2rm.coparse``, from H and W rolled copies of ``generator``."""
    height, width = parsed.shape[-2:]
    columns, rows = [], []
    for h in range(height if shift else 1):
        rolled = generator.roll(h, dims=2)  # its row i is row (i - h) mod H
        columns.append(torch.einsum("bcij,bciw->bwij", parsed, rolled))  # Eqs. (5)-(6)
    for w in range(width if shift else 1):
        rolled = generator.roll(w, dims=3)  # its column j is column (j - w) mod W
        rows.append(torch.einsum("bcij,bckj->bkij", parsed, rolled))  # Eqs. (7)-(8)
    return torch.cat(columns, dim=1), torch.cat(rows, dim=1)
