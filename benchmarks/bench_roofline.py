"""Rooflines of an update on one core: how near each part of a model comes, forward and backward, to the rate of a plain
product of matrices, and how near its operators could come, one after the other, by their operations and bytes.

Operations are those of products and convolutions, a multiply-add counting two. Bytes are the sizes of all that an
operator is given and makes, parameters included, views left out.
"""

import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from measure import DEVICE, seconds, small_training, write
from torch import Tensor, nn
from torch.autograd.variable import Variable
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

from refstudy.base.allocation import keep_freed_memory
from refstudy.data.batches import Batch
from refstudy.training.evaluation import precision_on
from refstudy.training.trainer import Trainer

STEPS, SIDE, COPIED = 7, 2048, 2**24  # COPIED: bytes, about a large map of these models
REST, NOBODY = "loss, optimizer and rest", ""


class Parts(TorchDispatchMode):
    """Divides the seconds of an update among the parts of a model, forward and backward; while it is entered, also
    operations, bytes, the seconds of the roofline, and the seconds that products and convolutions took.

    A node of the backward pass belongs to the part that made it: PyTorch numbers nodes as it makes them.
    """

    def __init__(self, model: nn.Module, rates: tuple[float, float]):
        super().__init__()
        self.model, self.rates, self.sums = model, rates, np.zeros(5)

    def of(self, update: Callable[[], object]) -> dict[str, np.ndarray]:
        """The five sums over an update, by part and pass."""
        self.found: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(5))
        self.makers = [(0, REST)]  # the number of a node, and who makes it and the next ones
        self.within, self.now, self.since = [REST], NOBODY, self.sums
        hooks = [self.model.register_forward_hook(lambda module, given, logits: self._follow(logits))]
        for name, module in self.model.named_modules():
            if part := name.split(".")[0]:
                hooks.append(module.register_forward_pre_hook(lambda *_, part=part: self._mark([*self.within, part])))
                hooks.append(module.register_forward_hook(lambda *_: self._mark(self.within[:-1])))
        self._turn(REST)
        update()
        self._turn(NOBODY)
        for hook in hooks:
            hook.remove()
        del self.found[NOBODY]
        return self.found

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, operations, moved, start = kwargs or {}, 0, 0, time.process_time()
        made = func(*args, **kwargs)
        taken, packet = time.process_time() - start, func.overloadpacket
        if packet is torch.ops.aten.convolution_backward:  # the library's formula leaves the groups out
            once = conv_flop_count(args[1].shape, args[2].shape, args[0].shape, transposed=args[7])
            operations = once * sum(args[10][:2])  # the gradients that are wanted, of the inputs and the weights
        elif packet in flop_registry:
            operations = flop_registry[packet](*args, **kwargs, out_val=made)
        if not (func.is_view or packet is torch.ops.aten._unsafe_view or "empty" in func.name()):
            moved = _bytes((args, kwargs)) + _bytes(args[0] if made is None else made)  # None: changed in place
        least = max(operations / self.rates[0], moved / self.rates[1])
        self.sums = np.add(self.sums, (0, operations, moved, least, taken * bool(operations)))
        return made

    def _turn(self, to: str) -> None:
        if to != self.now:
            self.sums = np.array([time.process_time(), *self.sums[1:]])
            self.found[self.now] += self.sums - self.since
            self.now, self.since = to, self.sums

    def _mark(self, within: list[str]) -> None:
        self.within = within
        self._turn(within[-1] if within[-1] == REST else f"{within[-1]}, forward")
        self.makers.append((torch._C._autograd._get_sequence_nr(), within[-1]))

    def _follow(self, logits: Tensor) -> None:
        """Have every node that led to the logits tell when it begins, and the backward pass when it ends."""
        self._turn(NOBODY)
        nodes: list[Any] = [logits.grad_fn]
        known = {None, *nodes}
        for node in nodes:
            if not hasattr(node, "variable"):  # what adds to a parameter's gradient is of the part before it
                maker = self.makers[bisect(self.makers, node._sequence_nr(), key=itemgetter(0)) - 1][1]
                part = maker if maker == REST else f"{maker}, backward"
                node.register_prehook(lambda *_, part=part: self._turn(part))
            further = {next_node for next_node, _ in node.next_functions} - known
            nodes += further
            known |= further
        logits.register_hook(lambda _: Variable._execution_engine.queue_callback(lambda: self._turn(REST)))
        self._turn(REST)


def _bytes(tree: Any) -> int:
    tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)  # less where expanded


def row(model: str, part: str, rate: float, sums: Sequence[float]) -> dict:
    """A row of the five sums and the rate of a product of matrices."""
    taken, operations, moved, least, inside = map(float, sums)
    row = {"ms": 1e3 * taken, "GFLOP": operations / 1e9, "MB": moved / 1e6, "in_products": inside / taken}
    row |= {"of_matrix_rate": operations / rate / taken, "roof": operations / rate / least, "of_roof": least / taken}
    return {"model": model, "part": part} | {name: round(x, 2 if x < 10 else None) for name, x in row.items()}


def machine_rows(kind: str) -> tuple[tuple[float, float], list[dict]]:
    """Operations a second of a product of matrices and bytes a second of a copy, and their rows."""
    a, b = torch.randn(2, SIDE, SIDE).to(getattr(torch, kind))
    old, new = torch.ones(2, COPIED, dtype=torch.uint8)
    product, copy = (seconds(way, 20, clock=time.process_time) for way in (lambda: a @ b, lambda: new.copy_(old)))
    rate, speed = 2 * SIDE**3 / product, 2 * COPIED / copy
    whats = (
        f"product of matrices of {SIDE}: {rate / 1e9:.0f} GFLOP/s",
        f"copy of {COPIED >> 20} MiB: {speed / 1e9:.1f} GB/s",
    )
    sums = (product, 2 * SIDE**3, 3 * a.nbytes, product, product), (copy, 0, 2 * COPIED, copy, 0)
    return (rate, speed), [row(f"none, {kind}", *one) for one in zip(whats, (rate, rate), sums, strict=True)]


def model_rows(name: str, trainer: Trainer, batch: Batch, rates: tuple[float, float], steps: int = STEPS) -> list[dict]:
    """A row of each part and pass, of the rest, and of the whole update, which is timed without hooks."""
    whole = seconds(lambda: trainer.step(batch), steps, clock=time.process_time)
    parts = Parts(trainer.model, rates)
    timed = [parts.of(lambda: trainer.step(batch)) for _ in range(steps)]
    with parts:
        counted = [parts.of(lambda: trainer.step(batch)) for _ in range(min(steps, 3))]
    found = {}
    for part in sorted(counted[0], key=REST.__eq__):  # in the order of the update, the rest behind
        seconds_, sums = (np.median([one[part] for one in some], axis=0) for some in (timed, counted))
        found[part] = [seconds_[0], *sums[1:]]
    found["whole update"] = [whole, *np.sum(list(found.values()), axis=0)[1:]]
    return [row(name, part, rates[0], sums) for part, sums in found.items()]


def main() -> None:
    if DEVICE.type != "cpu":
        raise SystemExit("of CPUs only: it counts the time of the process")
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for kind in dict.fromkeys(("float32", precision_on(DEVICE, "bfloat16"))):
        rates, machine = machine_rows(kind)
        rows += machine
        for variant in ("s2rm_casg", "lavt", "slvit"):
            rows += model_rows(f"{variant}, {kind}", *small_training(variant, kind), rates)
    write("roofline", rows)


if __name__ == "__main__":
    main()
