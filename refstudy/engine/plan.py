"""From the study file to steps: which notebooks would run, and why.

Whether a notebook is up to date is decided by content, never by dates: what it depends on now is compared with what the
journal of its last execution says (``refstudy.engine.journal``). Edited prose, outputs or layout re-execute nothing.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from refstudy.base.errors import StudyError
from refstudy.base.files import JOURNAL_SUFFIX, content_digest, path_digest
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.engine.journal import Journal, read_journal
from refstudy.engine.modules import Modules
from refstudy.study.cells import code_cells, declared_parameters, wrong_parameter
from refstudy.study.file import PAPERS_SWIN_B, PAPERS_SWIN_T, Case, Study, training_command

PLACES = ("study", "results")  # parameters that differ from machine to machine
COMMON = (*PLACES, "profile")  # parameters that every notebook is given
# What tables take from other profiles: which records fill which rows, and the models whose cost is counted.
OF_OTHERS = ("data", "model", "part_options", "special", "variants", "rows", "splits", "evaluation")
INPUT_CHANGED = "input changed"  # the reason of what read something that has another content now


@dataclass
class Step:
    """A notebook of the plan, and its state.

    ``settings`` are digests of what it may look up in the study file; ``data`` says whether it needs the profile's
    data. ``state`` is at first "to run", for the ``reason`` that is given, or "up to date", and at last "done" or
    "failed". ``estimate`` are the seconds of its last execution, ``seconds`` those of this one.
    """

    name: str
    notebook: Path
    output: Path
    parameters: dict[str, Any]
    settings: Mapping[str, str]
    data: bool = True
    state: Literal["to run", "up to date", "done", "failed"] = "to run"
    reason: str = ""
    estimate: float | None = None
    seconds: float = 0.0
    error: str = ""

    @property
    def journal(self) -> Path:
        """The journal of its last execution."""
        return self.output.with_suffix(JOURNAL_SUFFIX)

    @property
    def results(self) -> Path:
        """The results folder, which holds ``notebooks/``."""
        return self.output.parent.parent


def plan(
    study: Study,
    profile: str,
    only: Sequence[str] = (),
    fresh: bool = False,
    changes: Mapping[str, Any] | None = None,
    trainings: Collection[Case] = (),
) -> list[Step]:
    """Say for each notebook of the study file, or for those named in ``only``, whether it would run, and why.

    It runs if it is not up to date, if it reads a record that one of the ``trainings`` is about to make, or if
    ``fresh``. ``changes`` replaces parameters of all notebooks that declare them. Raises StudyError for an unknown name
    or parameter, and for a value of another type.
    """
    folder, settings = study.results(profile), _settings(study, profile)
    common = {"study": str(study.path), "profile": profile, "results": str(folder)}
    for name in only:
        if name not in study.runs:
            raise StudyError(f"--only {name}: no such run; known: {', '.join(study.runs)}")
    steps = []
    for name, run in study.runs.items():
        if not only or name in only:
            output = folder / "notebooks" / f"{name}.ipynb"
            steps.append(Step(name, study.root / run.notebook, output, common | run.parameters, settings, run.data))
    _change(steps, changes or {})
    coming = {study.record(case).resolve() for case in trainings}
    modules, digest = Modules(), cache(path_digest)  # each file is read once
    for step in steps:
        reasons = ["new"]
        journal = read_journal(step.journal)
        if journal and "code_cells" in journal.head:
            step.estimate = journal.end.get("seconds")
            reasons = _differences(step, journal, modules, digest, study.root)
            if awaited := sorted(path.name for path in coming.intersection(journal.read())):
                reasons.append(f"after training {_some(awaited)}")
        if fresh:
            reasons.append("forced")
        step.state = "to run" if reasons else "up to date"
        step.reason = "; ".join(reasons) or "up to date"
    return steps


def without_record(study: Study, profile: str) -> list[Case]:
    """Name the runs of a profile that have no record, the lowest seeds first."""
    return [case for case in study.cases(profile) if not (study.record(case) / "record.json").exists()]


def released(study: Study, *profiles: str) -> bool:
    """Tell if any of these profiles has released data, and not RefScenes."""
    return any(study.profile(name).data.dataset not in FLAVOURS for name in profiles)


def _change(steps: list[Step], changes: Mapping[str, Any]) -> None:
    declared = {step.name: declared_parameters(step.notebook) for step in steps if changes}
    known_names = sorted({key for own in declared.values() for key in own} - set(COMMON))
    for key, value in changes.items():
        if key not in known_names:
            raise StudyError(f"--set {key}: no selected run has this parameter; known: {', '.join(known_names)}")
        for step in (one for one in steps if key in declared[one.name]):
            if wrong := wrong_parameter(step.notebook, declared[step.name], key, value):
                raise StudyError(f"--set {key}: run '{step.name}': {wrong}")
            step.parameters = step.parameters | {key: value}


def _settings(study: Study, profile: str) -> dict[str, str]:
    """Digest what a notebook may look up in the study file: all variants, its profile, and ``OF_OTHERS`` of the
    profiles named in its ``beside`` and of those at whose sizes costs are counted."""
    parts = {f"variants.{name}": variant.model_dump(mode="json") for name, variant in study.variants.items()}
    parts |= {f"profile.{key}": part for key, part in study.profile(profile).model_dump(mode="json").items()}
    others = {*study.together(profile), PAPERS_SWIN_T, PAPERS_SWIN_B} & (study.profiles.keys() - {profile})
    for name in sorted(others):
        found = study.profile(name).model_dump(mode="json", include=set(OF_OTHERS))
        parts |= {f"profiles.{name}.{key}": part for key, part in found.items()}
    return {name: content_digest(part) for name, part in parts.items()}


def known(step: Step, modules: Modules | None = None) -> dict[str, Any]:
    """What a step depends on, as far as it is known before it runs: the head of its journal."""
    cells = code_cells(step.notebook)
    parameters = {key: value for key, value in step.parameters.items() if key not in PLACES}
    return {
        "parameters": json.loads(json.dumps(parameters, default=str)),
        "code_cells": content_digest([cell.source for cell in cells]),
        "modules": (modules or Modules()).used_by(cell.tree() for cell in cells),
        "settings": dict(step.settings),
    }


def _differences(
    step: Step, journal: Journal, modules: Modules, digest: Callable[[Path], str], root: Path
) -> list[str]:
    then, now = journal.head, known(step, modules)
    read, written = journal.read(), journal.written(step.results)
    outputs = {path: digest(path) for path in written}
    found = {
        "parameters changed": _unequal(then["parameters"], now["parameters"]),
        "notebook changed": [""] if then["code_cells"] != now["code_cells"] else [],
        "code changed": _unequal(then["modules"], now["modules"]),
        "study file changed": _unequal(then["settings"], now["settings"]),
        INPUT_CHANGED: [_short(path, root) for path in _unequal(read, {path: digest(path) for path in read})],
        "output missing": [_short(path, root) for path in (step.output, *outputs) if not path.exists()],
        "output changed": [_short(path, root) for path, there in outputs.items() if there and there != written[path]],
    }
    return [f"{what}: {_some(names)}".removesuffix(": ") for what, names in found.items() if names]


def _unequal(then: Mapping[Any, Any], now: Mapping[Any, Any]) -> list[Any]:
    missing = object()
    return sorted(key for key in then.keys() | now.keys() if then.get(key, missing) != now.get(key, missing))


def _short(path: Path, root: Path) -> str:
    path = path.resolve()
    return path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else str(path)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def show(steps: list[Step], console: Console) -> None:
    """Print the plan."""
    table = Table("run", "state", "reason", "estimate")
    for step in steps:
        table.add_row(step.name, step.state, step.reason, "" if step.estimate is None else f"{step.estimate:.0f} s")
    console.print(table, markup=False)
    estimates = [step.estimate for step in steps if step.state == "to run"]
    unknown, timed = estimates.count(None), ""
    if total := sum(filter(None, estimates)):
        timed = f", {total:.0f} s when they last ran" + (f", {unknown} never timed" if unknown else "")
    console.print(f"{len(estimates)} of {len(steps)} to run{timed}")


def show_trainings(study: Study, profile: str, console: Console, asked: bool) -> None:
    """Print which runs have no record and, unless it is ``asked`` to train them, the commands that do."""
    missing, every = without_record(study, profile), study.cases(profile)
    to_come = "; these are trained first" if missing and asked else ""
    records = f"{len(every) - len(missing)} with a run record, {len(missing)} without"
    console.print(f"trainings: {len(every)}, {records}{to_come}", soft_wrap=True)
    variants: dict[str, list[str]] = {}  # by the seeds that they lack
    for one in dict.fromkeys(variant for _, variant, _ in missing):
        lacked = " ".join(str(seed) for _, variant, seed in missing if variant == one)
        variants.setdefault(lacked, []).append(one)
    lines = [f"seed {seeds} of: {', '.join(names)}" for seeds, names in variants.items()]
    if missing and not asked:
        lines.append(f"train one with: {training_command(*missing[0])}")
        lines.append(f"or all of them with: refstudy train --profile {profile}")
    if lines:
        console.print("\n".join(lines), highlight=False, soft_wrap=True)
