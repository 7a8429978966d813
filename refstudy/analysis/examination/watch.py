"""Looks into a module while it computes, without its author's help: gates and attentions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from refstudy.analysis.examination.subject import Subject
from refstudy.base.errors import StudyError
from refstudy.models.gates import NEAR

SIGMOIDS, TANHS = ("sigmoid", "sigmoid_", "hardsigmoid"), ("tanh", "tanh_", "hardtanh")
RELUS, SOFTMAXES = ("relu", "relu_", "clamp_min", "clamp_min_"), ("_softmax", "_safe_softmax", "_log_softmax")


@dataclass(frozen=True)
class Seen:
    """One call of a sigmoid, tanh, softmax or ReLU: the ``module`` it is in, its ``kind``, the length of a softmax's
    axis (else 0), its other axes, and the share that is ``saturated``: weights within 0.05 of an end of a gate's range,
    rows of an attention with more than 0.95 on one entry, zeros of a ReLU."""

    module: str
    kind: str
    axis: int
    others: tuple[int, ...]
    saturated: float


class Watch(TorchDispatchMode):
    """Notes every sigmoid, tanh and softmax, also those within functions of PyTorch, an ``exp`` that is divided, and
    ReLUs, whose saturated outputs are zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self.inside = [""]  # the modules that are being called, outermost first, after their caller
        self._exp = False

    def __torch_dispatch__(self, function, types, given=(), named=None):
        made = function(*given, **(named or {}))
        operation = function.overloadpacket.__name__
        with torch.no_grad():
            self._look(operation, given, made)
        return made

    def _look(self, operation: str, given: tuple, made: Any) -> None:
        if operation in ("exp", "exp_"):
            self._exp = True
        elif operation in SIGMOIDS:
            self._note("sigmoid", near(made, 0.0))
        elif operation in TANHS:
            self._note("tanh", near(made, -1.0))
        elif operation in RELUS:
            self._note("relu", (made == 0).double().mean().item())
        elif operation in SOFTMAXES:
            self._attention(made.exp() if operation == "_log_softmax" else made, given[1])
        elif operation in ("div", "div_", "reciprocal") and self._exp and made.is_floating_point():
            self._by_hand(given, made)

    def _by_hand(self, given: tuple, made: Tensor) -> None:
        """Note the quotient that follows an ``exp``, where it is a sigmoid or a softmax."""
        if made.numel() < 2 or not (made.min() >= 0 and made.max() <= 1):
            return
        self._exp = False
        below = given[1] if len(given) > 1 and isinstance(given[1], Tensor) else None
        if below is None or below.shape == made.shape:
            return self._note("sigmoid", near(made, 0.0))
        summed = [k for k, (one, all_) in enumerate(zip(below.shape, made.shape, strict=False)) if one == 1 < all_]
        if below.ndim == made.ndim and len(summed) == 1:
            self._attention(made, summed[0])

    def _attention(self, weights: Tensor, axis: int) -> None:
        if weights.ndim and weights.shape[axis] > 1:
            others = tuple(size for k, size in enumerate(weights.shape) if k != axis % weights.ndim)
            alone = (weights.amax(axis) > 1 - NEAR).double().mean().item()
            self.seen.append(Seen(self.inside[-1], "softmax", weights.shape[axis], others, alone))

    def _note(self, kind: str, saturated: float) -> None:
        self.seen.append(Seen(self.inside[-1], kind, 0, (), saturated))


def near(weights: Tensor, low: float) -> float:
    """The share of weights within ``NEAR`` of an end, which are ``low`` and 1."""
    return ((weights < low + NEAR) | (weights > 1 - NEAR)).double().mean().item()


@contextmanager
def watched(model: nn.Module) -> Iterator[Watch]:
    """Note all gates and attentions of the calls of ``model`` within the block."""
    names = {id(module): name for name, module in model.named_modules()}
    watch = Watch()
    before = [
        module.register_forward_pre_hook(lambda module, _: watch.inside.append(names[id(module)]))
        for module in model.modules()
    ]
    after = [module.register_forward_hook(lambda *_: watch.inside.__delitem__(-1)) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), watch:
            yield watch
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in (*before, *after):
            handle.remove()


def seen_gates(subject: Subject) -> tuple[list[Seen], int]:
    """The gates and attentions of a call in training, each with the mean share over its calls and, of a fusion module,
    over three draws of the weights; and the number of cells. Raises StudyError where the class fails at this size."""
    calls: dict[Seen, list[float]] = {}
    fusion = subject.kind == "fusion"
    inputs = subject.draw() if fusion else subject.draw().of([1, 2])
    for seed in range(3 if fusion else 1):
        module = subject.make(seed=seed).train()
        with watched(module) as watch, torch.no_grad():
            output = subject.run(module, inputs)
        if wrong := subject.right_shape(inputs, output):
            raise StudyError(wrong)
        for one in watch.seen:
            calls.setdefault(replace(one, saturated=0.0), []).append(one.saturated)
        if all(one.kind == "relu" for one in watch.seen):
            break  # no gate: other weights have none either
    mean = [replace(one, saturated=sum(shares) / len(shares)) for one, shares in calls.items()]
    return mean, list(inputs.pictures.values())[-1][0, 0].numel()
