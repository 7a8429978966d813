"""The bench of the checks: a part with its inputs, outputs and copies, made once for all of them."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from refstudy.analysis.examination.reach import reach
from refstudy.analysis.examination.subject import Inputs, Subject
from refstudy.analysis.examination.watch import Seen, seen_gates
from refstudy.base.errors import StudyError
from refstudy.models.build import STRIDE
from refstudy.models.first_bad import FirstBad
from refstudy.models.own_parts import last_line
from refstudy.study.parts import PROFILES

SOUND, LOOK, FAULT, NONE = "sound", "look", "fault", "does not apply"
low_precision = partial(torch.autocast, "cpu", torch.bfloat16)
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Finding:
    """The result of a check: verdict, number (None where it has none) and, unless sound, the fault and its place."""

    verdict: str
    value: float | None = None
    detail: str = ""


class Bench:
    """A subject on the bench: the module as made with seed 0, its inputs, and what earlier checks ``found``.

    Every call is of a copy of the module, on copies of the inputs, with one seed: what a module changes or draws in one
    call cannot pass for a fault of another kind.
    """

    def __init__(self, subject: Subject):
        self.subject, self.module, self.inputs = subject, subject.make().eval(), subject.draw()
        self.found: dict[str, Finding] = {}
        self.steady = True  # calls of one kind repeat, so that calls of two kinds can be compared

    @cached_property
    def output(self) -> Tensor:
        """The output in evaluation. Raises StudyError where it has a wrong shape, or is not finite."""
        output = self.call(self.inputs)
        about = self.subject.source or self.subject.part.name
        if wrong := self.subject.right_shape(self.inputs, output):
            raise StudyError(f"{about}: {self.subject.part.name} {wrong}; correct what forward returns")
        if not output.isfinite().all():
            place = self.first_bad(self.inputs) or about
            remedy = "scale or guard what is computed there"
            raise StudyError(f"{place}: first NaN or infinity for inputs of unit size; {remedy}")
        return output

    @cached_property
    def spread(self) -> float:
        return max(self.output.double().std().item(), 1e-12)

    @cached_property
    def reach(self) -> dict[str, tuple[float, float]]:
        """The reach of the borders, see ``reach``; on 8 x 8 cells or more, where the module can be made for it."""
        side = self.subject.config().image_size
        side *= 1 if side >= 8 * STRIDE else 2
        try:
            return reach(self.subject, self.subject.make((side, side)).eval(), self.subject.draw((side, side)))
        except StudyError:  # the check of sizes says so
            return reach(self.subject, self.fresh(), self.inputs)

    @cached_property
    def papers(self) -> tuple[list[Seen], int, str]:
        """Gates and attentions at the papers' size, its cells, and why it does not work there (then, at this size)."""
        try:
            return *seen_gates(replace(self.subject, profile=PROFILES["papers"])), ""
        except StudyError as error:
            return *seen_gates(self.subject), str(error)

    def faulty(self, check: str) -> bool:
        """Tell whether an earlier check found a fault."""
        return check in self.found and self.found[check].verdict == FAULT

    def fresh(self, train: bool = False, frozen: bool = True) -> nn.Module:
        """A copy of the module; ``frozen``: with batch normalisation as in evaluation, also in training."""
        try:
            module = copy.deepcopy(self.module)
        except Exception:  # what holds a result of autograd cannot be copied
            module = self.subject.make()
        module.train(train)
        for part in module.modules():
            if train and frozen and isinstance(part, BATCH_NORMS):
                part.eval()
        return module

    @torch.no_grad()
    def call(self, inputs: Inputs, train: bool = False, frozen: bool = True) -> Tensor:
        return self.subject.run(self.fresh(train, frozen), inputs)

    def moved(self, inputs: Inputs, train: bool = False) -> Tensor:
        """The largest change of each expression's output when the inputs become these, over the spread, (E,)."""
        before = self.trained if train else self.output
        return (self.call(inputs, train) - before).abs().flatten(1).amax(1) / self.spread

    def apart(self, one: Tensor, other: Tensor) -> float:
        """The largest difference of two outputs, over the spread."""
        return (one - other).abs().max().item() / self.spread

    @cached_property
    def first(self) -> Tensor:
        """The output at the first update: in training, batches normalised."""
        return self.call(self.inputs, train=True, frozen=False)

    @cached_property
    def trained(self) -> Tensor:
        """The output in training, batch normalisation frozen."""
        return self.call(self.inputs, train=True)

    def first_bad(self, inputs: Inputs, lowered: bool = False) -> str:
        """The line of the class's file, or the operation, that first gives NaN or infinity; empty where none does."""
        source = self.subject.source
        try:
            with FirstBad(), low_precision(enabled=lowered):
                self.call(inputs, train=True)
        except (StudyError, FloatingPointError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, FloatingPointError):
                line = last_line(cause, [source] if source else [])
                return f"{line[0].name}:{line[1]}" if line else str(cause)
        return ""
