"""Examine a part: run all checks, count its costs, and show both next to those of parts of the study."""

import random
import textwrap
import timeit
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from refstudy.analysis.examination.bench import FAULT, LOOK, NONE, SOUND, Bench, Finding
from refstudy.analysis.examination.checks import CHECKS, meaning
from refstudy.analysis.examination.subject import KINDS, find
from refstudy.base.allocation import added_megabytes
from refstudy.base.errors import StudyError
from refstudy.models.build import count_parameters
from refstudy.study import FILE_NAME
from refstudy.study.file import Study
from refstudy.study.load import load_study

# The parts of the study that a part is compared to, by kind: label -> fusion module, decoder or whole model.
REFERENCES = {
    "fusion": {"Tile & Concat": "tile_concat", "S²RM": "s2rm"},
    "decoder": {"FPN": "fpn", "CASG": "casg"},
    "whole": {"LAVT": "lavt", "SLViT": "slvit"},
}
LIMITS = (
    "Nothing was trained: a sound module may bring no gain (refstudy compare trains it). Inputs and weights are "
    "random; what a fault costs after training is not measured. A fault may be meant: then say so where you publish."
)
COSTS = ("M parameters", "M multiply-adds", "ms", "MiB in training")
# The study's own modules in ``examinations``: label -> part and options.
EXAMINED: dict[str, tuple[str, dict[str, Any]]] = {
    "Tile & Concat": ("tile_concat", {}),
    "S²RM": ("s2rm", {}),
    "S²RM, products not scaled": ("s2rm", {"scale": False}),
    "ACM": ("acm", {}),
    "PWAM": ("pwam", {}),
    "PWAM, V₄ plus gated cells": ("pwam", {"decoded": "residual"}),
    "FPN": ("fpn", {}),
    "CASG": ("casg", {}),
    "CASG, S_i not scaled": ("casg", {"scale": False}),
    "LAVT": ("lavt", {}),
    "SLViT": ("slvit", {}),
}


@dataclass(frozen=True)
class Examination:
    """The findings about the part ``name`` by check; ``references``: label -> the same of parts of the study. ``costs``
    has a row for each of ``COSTS``, a column for the part and for each reference. A notebook shows it as a table;
    ``str`` is the text of the terminal."""

    name: str
    kind: str
    image_size: int
    found: dict[str, Finding]
    references: dict[str, dict[str, Finding]]
    costs: pd.DataFrame

    @property
    def sound(self) -> bool:
        """Tell whether no check found a fault."""
        return all(one.verdict != FAULT for one in self.found.values())

    @property
    def table(self) -> pd.DataFrame:
        """A line for each check that applies: check, meaning, measured, the same of each reference, verdict, and where
        the fault is; then a line for each cost."""
        lines = [
            {"check": check, "meaning": meaning(check), "measured": shown(one)}
            | {label: shown(of[check]) for label, of in self.references.items()}
            | {"verdict": one.verdict, "where": one.detail}
            for check, one in self.found.items()
            if one.verdict != NONE
        ]
        costs = self.costs.map("{:.3g}".format).rename(columns={"own": "measured"}).rename_axis("check").reset_index()
        return pd.concat([pd.DataFrame(lines), costs], ignore_index=True).fillna("")

    def __str__(self) -> str:
        wrong = [
            f"{one.verdict}: {check}. Wanted: {meaning(check)}. Found: {one.detail}."
            for check, one in self.found.items()
            if one.verdict in (FAULT, LOOK)
        ]
        wrong = wrong or [f"No fault among {sum(one.verdict != NONE for one in self.found.values())} checks."]
        about = f"{self.name}: a {self.kind}, examined at {self.image_size} px"
        table = self.table.drop(columns=["meaning", "where"]).to_string(index=False)
        return "\n".join([about, table, "", *(textwrap.fill(line, 110) for line in (*wrong, LIMITS))])

    def _repr_html_(self) -> str:
        shade = {FAULT: "background:#f5c6c0", LOOK: "background:#fbe8b8", SOUND: "background:#d5ebd3"}
        style = self.table.style.hide(axis="index").map(shade.get, subset=["verdict"])
        style = style.set_properties(**{"text-align": "left", "vertical-align": "top"})
        head = f"<p><b>{self.name}</b>, a {self.kind}, examined at {self.image_size} px</p>"
        return head + style.to_html() + f"<p>{LIMITS}</p>"


def examine(
    name: str,
    kind: str = "",
    size: str = "scenes",
    options: dict[str, Any] | None = None,
    study: Study | Path | str = FILE_NAME,
    progress: Callable[[str], None] = lambda _: None,
) -> Examination:
    """Examine a part: one of the study's by name, or a new class as ``file.py:Class`` or ``module:Class``.

    ``kind`` ("fusion", "decoder", "model") is needed where the signature of ``forward`` does not tell it; ``size`` is
    "scenes" or "papers"; ``options`` are those of a study file; ``progress`` gets a line before each step.

    Raises StudyError, a line with file and remedy, for an unknown name, a class that does not load or cannot be called,
    and an output of a wrong shape or with NaN.
    """
    study = study if isinstance(study, Study) else load_study(study)
    subject = find(name, study, kind, options, size)
    with _undisturbed():
        bench = Bench(subject)
        found, costs = inspect(bench, progress), {"own": cost_of(bench)}
        labels = REFERENCES[subject.kind]
        progress("the same of " + " and ".join(labels))
        others = {label: _reference(study, one, size) for label, one in labels.items()}
    place, _, own = name.rpartition(":")
    title = f"{Path(place).name}:{own}" if place else own
    references = {label: checked for label, (checked, _) in others.items()}
    table = pd.DataFrame(costs | {label: cost for label, (_, cost) in others.items()})
    return Examination(title, KINDS[subject.kind], subject.config().image_size, found, references, table)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave the random generators as they are, and show no warnings. On one thread meanwhile: the operations are small,
    and two threads that wait for each other on busy cores take ten times the CPU time."""
    states, threads = (random.getstate(), np.random.get_state()), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])


@cache
def _reference(study: Study, name: str, size: str) -> tuple[dict[str, Finding], pd.Series]:
    """Findings and costs of a part of the study, once a process."""
    bench = Bench(find(name, study, size=size))
    return inspect(bench), cost_of(bench)


def examinations(study: Study) -> pd.DataFrame:
    """Examine the study's own modules at RefScenes' sizes: module, then a column for each check, with its number where
    it has one, and the verdict where it is not sound; "-" where the check does not apply."""
    lines = []
    with _undisturbed():
        for label, (name, options) in EXAMINED.items():
            found = inspect(Bench(find(name, study, options=options)))
            lines.append({"module": label} | {check: cell(check, one) for check, one in found.items()})
    return pd.DataFrame(lines)


def cell(check: str, finding: Finding) -> str:
    """A finding in a word or two, with so many digits that another processor's rounding does not change them."""
    if finding.verdict == NONE:
        return "-"
    if check in ("gradients", "precision") or finding.value is None:  # errors of rounding
        return finding.verdict
    if finding.verdict == SOUND and check in ("repeats", "padding", "batch"):  # rounding, where it is anything
        return "0"
    text = f"{finding.value:.1f}".replace("-0.0", "0.0") if check in ("border", "place") else shown(finding)
    return text if finding.verdict == SOUND else f"{text} {finding.verdict}"


def inspect(bench: Bench, progress: Callable[[str], None] = lambda _: None) -> dict[str, Finding]:
    """Run all checks, in their order. Raises StudyError where the module cannot be called at all."""
    _ = bench.output
    for check, function in CHECKS.items():
        progress(meaning(check))
        try:
            bench.found[check] = function(bench)
        except (StudyError, RuntimeError) as error:  # it works in one way of calling it and not in another
            bench.found[check] = Finding(FAULT, None, " ".join(str(error).split()))
        if check in ("padding", "batch", "gradients", "precision") and not bench.steady:
            bench.found[check] = Finding(NONE, None, "cannot be measured while equal calls differ")
    return bench.found


def shown(finding: Finding) -> str:
    """The number with two digits, or yes or no where there is none."""
    if finding.verdict == NONE:
        return ""
    if finding.value is None:
        return "yes" if finding.verdict == SOUND else "no"
    return f"{finding.value:.2g}" if abs(finding.value) >= 1e-4 else "0"


def cost_of(bench: Bench) -> pd.Series:
    """``COSTS``: parameters in millions; of a forward pass of four expressions about three pictures multiply-adds in
    millions and the milliseconds (the median of five, on one thread of this CPU, now); the memory that a training step
    of them holds besides the weights. NaN where it fails."""
    module = bench.fresh()
    call = partial(bench.subject.run, module, bench.inputs)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
        with torch.inference_mode():
            seconds = timeit.repeat(call, number=1, repeat=6)
        module.train()
        held = added_megabytes(lambda: call().float().square().mean().backward())
    except (StudyError, RuntimeError):  # a fault that the checks name
        return pd.Series(float("nan"), index=COSTS)
    numbers = (count_parameters(module) / 1e6, counter.get_total_flops() / 2e6, 1e3 * median(seconds[1:]), held)
    return pd.Series(numbers, index=COSTS)
