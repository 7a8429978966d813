"""The ranges of a model's gates: a gate that stays at one of its ends lets all or nothing through and hardly learns."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from refstudy.models.layers import Gate

ENDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
NEAR = 0.05  # a weight so close to an end counts as saturated
RANGES = ("gate", "low", "mean", "high", "saturated")
TOTALS = ("gate", "low", "sum", "high", "near", "count")


class GateRanges:
    """Collects the ranges of a model's gates. Nothing waits for the device before ``totals`` is asked for."""

    def __init__(self) -> None:
        self._seen: list[tuple[tuple[str, ...], Tensor, int]] = []

    @torch.no_grad()
    def see(self, names: tuple[str, ...], gate: Gate, inputs: Any, weights: Tensor) -> None:
        """Collect the weights of one call, (..., parts) where the gate has named parts. With ``names`` bound (the
        gate's, or those of its parts) this is a forward hook."""
        low, high = ENDS[gate.kind]
        columns = weights.reshape(-1, len(names))
        near = (columns < low + NEAR) | (columns > high - NEAR)
        numbers = (columns.amin(0), columns.sum(0, dtype=torch.float64), columns.amax(0), near.sum(0))
        self._seen.append((names, torch.stack([each.double() for each in numbers], dim=1), len(columns)))

    def totals(self) -> pd.DataFrame:
        """The columns ``TOTALS``, a row per gate, or part of one, and call; ``gate_ranges`` adds them up."""
        rows = [
            (name, *column, count)
            for names, numbers, count in self._seen
            for name, column in zip(names, numbers.tolist(), strict=True)
        ]
        return pd.DataFrame(rows, columns=list(TOTALS))


def gate_ranges(totals: pd.DataFrame) -> pd.DataFrame:
    """Add up ``GateRanges.totals``, those of several processes concatenated. A row per gate or part of one, in the
    order of their calls; columns ``RANGES``: the lowest, mean and highest weight, and the share of ``saturated``
    weights, within ``NEAR`` of an end of the gate's range. NaN stays NaN."""
    rows = []
    for gate, some in totals.groupby("gate", sort=False):
        each = {name: some[name].to_numpy() for name in TOTALS[1:]}  # pandas would skip NaN
        count = each["count"].sum()
        mean, saturated = each["sum"].sum() / count, each["near"].sum() / count
        rows.append((gate, each["low"].min(), mean, each["high"].max(), saturated))
    return pd.DataFrame(rows, columns=list(RANGES))


@contextmanager
def watched_gates(model: nn.Module) -> Iterator[GateRanges]:
    """Give the ranges of every ``Gate`` of the model over all its forward passes within the block. There, call
    the model itself and not its form from ``torch.compile``, which does not see such hooks."""
    ranges = GateRanges()
    gates = {name: module for name, module in model.named_modules() if isinstance(module, Gate)}
    handles = [
        gate.register_forward_hook(partial(ranges.see, tuple(f"{name}: {part}" for part in gate.parts) or (name,)))
        for name, gate in gates.items()
    ]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()
