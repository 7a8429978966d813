"""The gradient of an output in training, and the same from differences of the output."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from refstudy.analysis.examination.bench import Bench, low_precision


class Slope:
    """A weighted sum of the output in training, computed in the type ``dtype``, for inputs ``scale`` times as large, or
    ``lowered`` to bfloat16 by autocast; its ``gradients`` at the ``inputs`` and parameters, by name (None: not
    reached), and how many learned tensors outside the parameters it depends on: ``strangers``.

    Raises StudyError where the module fails, RuntimeError where it has no gradient.
    """

    def __init__(self, bench: Bench, dtype: torch.dtype, scale: float = 1.0, lowered: bool = False):
        self.bench, self.module = bench, bench.fresh(train=True, frozen=False).to(dtype)
        self.inputs = {name: (scale * x).to(dtype).requires_grad_() for name, x in bench.inputs.floats.items()}
        self.steps = (1e-6, 1e-8) if dtype == torch.float64 else (1e-2, 1e-3)
        with low_precision(enabled=lowered):
            value = self.value()
        named = self.inputs | self._parameters()
        known = {id(x) for x in named.values()}
        self.strangers = sum(id(leaf) not in known for leaf in leaves(value))
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        self.gradients: dict[str, Tensor | None] = dict(zip(named, found, strict=True))

    def _parameters(self) -> dict[str, Tensor]:
        return {name: x for name, x in self.module.named_parameters() if x.requires_grad}

    def value(self) -> Tensor:
        """The weighted sum."""
        given = self.bench.inputs
        pictures, language = (
            {name: self.inputs.get(name, x) for name, x in group.items()} for group in (given.pictures, given.language)
        )
        output = self.bench.subject.run(self.module, replace(given, pictures=pictures, language=language))
        signs = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return (output.double() * signs).sum() / output.numel() ** 0.5

    @torch.no_grad()
    def heard(self, name: str) -> bool:
        """Tell whether the output depends on an input at all."""
        before, kept = self.value(), self.inputs[name].clone()
        self.inputs[name].copy_(kept.flip(-1) + 1)
        after = self.value()
        self.inputs[name].copy_(kept)
        return bool(before != after)

    @torch.no_grad()
    def error(self, bound: float) -> tuple[float, float]:
        """The gradients' error against differences of the output, over their size, and 0; where it is above the bound,
        that of the better of two steps, and how far these lie apart. The worst of pictures, words and parameters."""
        given = (self.bench.inputs.pictures, self.bench.inputs.language)
        groups = [{name: self.inputs[name] for name in part if name in self.inputs} for part in given]
        groups.append(self._parameters())
        found, random = [], torch.Generator().manual_seed(0)
        for group in filter(None, groups):
            true, ways = [], []
            for _ in range(1 if self.bench.subject.kind == "whole" else 2):
                drawn = {name: torch.randn(x.shape, generator=random, dtype=x.dtype) for name, x in group.items()}
                way = {name: drawn[name] * (x.square().mean().sqrt() + 0.01) for name, x in group.items()}
                reached = {name: x for name in way if (x := self.gradients[name]) is not None}
                true.append(sum((way[name] * x).sum().item() for name, x in reached.items()))
                ways.append(way)
            first = self._differences(group, ways, self.steps[0])
            size = max(math.hypot(*first), 1e-3)  # a difference's own rounding is 1e-7
            off, doubt = math.dist(true, first) / size, 0.0
            if off > bound:
                second = self._differences(group, ways, self.steps[1])
                off, doubt = min(off, math.dist(true, second) / size), math.dist(first, second) / size
            found.append((off, doubt))
        return max(found, key=lambda one: (one[0] > max(bound, one[1]), one[0] - one[1]))

    def _differences(self, group: dict[str, Tensor], ways: list[dict[str, Tensor]], step: float) -> list[float]:
        found = []
        for way in ways:
            values = []
            for sign in (1, -1):
                for name, x in group.items():
                    x.add_(way[name], alpha=sign * step)
                values.append(self.value().item())
                for name, x in group.items():
                    x.add_(way[name], alpha=-sign * step)
            found.append((values[0] - values[1]) / (2 * step))
        return found


def leaves(value: Tensor) -> list[Tensor]:
    """The tensors that a value's gradient reaches in the end."""
    found, waiting, seen = [], [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found
