"""From the study file to steps: what would run, in which order, and why.

Whether a notebook is up to date is decided by content, never by dates: what it depends on now is compared with what the
journal of its last execution says (``refstudy.engine.journal``). Edited prose, outputs or layout re-execute nothing.
"""

import graphlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console
from rich.table import Table

from refstudy.config import record_name
from refstudy.engine.cells import code_cells, declared_parameters, wrong_parameter
from refstudy.engine.journal import Journal, read_journal
from refstudy.errors import StudyError
from refstudy.files import JOURNAL_SUFFIX, content_digest, path_digest
from refstudy.modules import Modules
from refstudy.study import PAPERS_SWIN_B, PAPERS_SWIN_T, Study, output_name, step_name, training_command

State = Literal["to run", "recorded", "missing", "up to date", "done", "failed", "skipped"]
PLACES = ("study", "results")  # parameters that differ from machine to machine
COMMON = (*PLACES, "profile")  # parameters that every notebook is given
# What tables take from other profiles: which records fill which rows, and the models whose cost is counted.
OF_OTHERS = ("data", "model", "part_options", "special", "variants", "rows", "splits", "evaluation")


@dataclass
class Step:
    """One notebook execution of the plan.

    ``state`` starts as "to run", "up to date", "recorded" (a run record stands for it) or "missing" (it would have to
    be trained and nobody asked for that), and ends as "done", "failed" or "skipped" (something it needs failed).
    ``reason`` says why it runs or does not; ``command`` trains what has no record. ``run`` is its name in the study
    file, ``settings`` the digests of what it depends on there, ``sources`` the records and journals of what it needs.
    ``estimate``, ``timeout`` and ``seconds`` are seconds; ``timeout``, ``retries``, ``gpus`` (per execution) and
    ``data`` (whether it needs the profile's) are the study file's.
    """

    name: str
    notebook: Path
    output: Path
    parameters: dict[str, Any]
    needs: set[str]
    run: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()
    state: State = "to run"
    reason: str = ""
    command: str = ""
    estimate: float | None = None
    timeout: float | None = None
    retries: int = 0
    gpus: int = 0
    data: bool = True
    seconds: float = 0.0
    error: str = ""

    @property
    def journal(self) -> Path:
        """The journal of its last execution."""
        return self.output.with_suffix(JOURNAL_SUFFIX)

    @property
    def results(self) -> Path:
        """The folder of the profile's results."""
        return self.output.parent.parent


def plan(
    study: Study,
    profile: str,
    train: bool = False,
    only: Sequence[str] = (),
    results: str = "",
    start: Sequence[str] = (),
    fresh: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> list[Step]:
    """The steps of a profile, each behind what it needs.

    A training is satisfied by the record of exactly its settings; without one it is "missing", unless ``train`` or the
    profile's own ``training: always`` asks for it. Every other step runs if it is not up to date, if ``fresh``, or if
    it is named in ``start`` or needs, directly or not, one that is. ``only`` keeps the named steps (a run's name names
    all of its trainings). ``changes`` replaces parameters of all kept steps that declare them; trainings keep theirs.
    Raises StudyError for an unknown name or parameter, and for a value of another type.
    """
    folder = study.results(profile, results)
    train = train or study.profile(profile).training == "always"
    common = {"study": str(study.path), "profile": profile, "results": str(folder)}
    settings, beside = _settings(study, profile), _records_beside(study, profile, results)
    steps: dict[str, Step] = {}
    expanded: dict[str, list[str]] = {}
    source: dict[str, Path] = {}
    for name in _ordered(study):
        run = study.runs[name]
        needs = {step for need in run.needs for step in expanded[need]}
        expanded[name] = []
        for case in study.cases(name, profile):
            full_name = step_name(name, case)
            output = folder / "notebooks" / output_name(full_name)
            step = Step(full_name, study.root / run.notebook, output, common | run.parameters | case, needs, name)
            step.timeout, step.retries, step.gpus, step.data = run.timeout, run.retries, run.gpus, run.data
            step.settings, step.sources = settings, tuple(source[need] for need in sorted(needs))
            if any(study.runs[need].trains for need in run.needs):
                step.sources += beside
            source[full_name] = step.journal
            if run.trains:
                record = folder / "records" / record_name(study.run_config(profile, **case))
                source[full_name] = record
                step.command = training_command(profile, case["variant"], case["seed"])
                if (record / "record.json").exists():
                    step.state, step.reason = "recorded", "it has its run record"
                elif train:
                    step.reason = "new"
                else:
                    step.state, step.reason = "missing", "no run record"
            steps[full_name] = step
            expanded[name].append(full_name)
    everything = list(steps.values())
    forced = (
        {step.name for step in everything} if fresh else _downstream(everything, _named("--from", everything, start))
    )
    kept = _selected(everything, only)
    _change(kept, study, changes or {})
    _decide([step for step in kept if not study.runs[step.run].trains], forced, steps, study.root)
    return kept


def _records_beside(study: Study, profile: str, results: str) -> tuple[Path, ...]:
    """The records of the profiles beside this one, which its tables show too: where they are, or will be."""
    return tuple(
        study.results_beside(profile, name, results) / "records" / record_name(study.run_config(name, variant, seed))
        for name in study.together(profile)[1:]
        for variant in study.variant_names(name)
        for seed in study.seeds(name, variant)
    )


def _ordered(study: Study) -> list[str]:
    return list(graphlib.TopologicalSorter({name: run.needs for name, run in study.runs.items()}).static_order())


def _named(option: str, steps: Iterable[Step], names: Sequence[str]) -> set[str]:
    """The steps that ``names`` name: step by step, or all of a run. Raises StudyError for an unknown name."""
    for name in names:
        if not any(name in (step.name, step.run) or step.name.startswith(f"{name}:") for step in steps):
            raise StudyError(f"{option} {name}: no such run; known: {', '.join(step.name for step in steps)}")
    return {s.name for s in steps if any(name in (s.name, s.run) or s.name.startswith(f"{name}:") for name in names)}


def _selected(steps: list[Step], only: Sequence[str]) -> list[Step]:
    if not only:
        return steps
    names = _named("--only", steps, only)
    kept = [step for step in steps if step.name in names]
    for step in kept:
        step.needs &= names
    return kept


def _downstream(steps: list[Step], names: set[str]) -> set[str]:
    """``names`` and all that needs them, directly or not."""
    found = set(names)
    for step in steps:  # each stands behind what it needs
        if step.needs & found:
            found.add(step.name)
    return found


def parse_changes(settings: Sequence[str]) -> dict[str, Any]:
    """Parameters from ``key=value`` texts, the value read as YAML. Raises StudyError for anything else."""
    changes = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            changes[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise StudyError(f"--set {setting}: the value is not YAML; write key=value") from error
        if not equals or not key:
            raise StudyError(f"--set {setting}: write key=value")
    return changes


def _change(steps: list[Step], study: Study, changes: Mapping[str, Any]) -> None:
    """Give the changed parameters to all steps that declare them. Raises StudyError where none does."""
    if not changes:
        return
    declared = {s.name: declared_parameters(s.notebook) for s in steps if not study.runs[s.run].trains}
    known_names = sorted({key for own in declared.values() for key in own} - set(COMMON))
    for key, value in changes.items():
        if key not in known_names:
            raise StudyError(f"--set {key}: no selected run has this parameter; known: {', '.join(known_names)}")
        for step in steps:
            own = declared.get(step.name, {})
            if key in own:
                if wrong := wrong_parameter(step.notebook, own, key, value):
                    raise StudyError(f"--set {key}: run '{step.name}': {wrong}")
                step.parameters = step.parameters | {key: value}


def _settings(study: Study, profile: str) -> dict[str, str]:
    """Digests of what a notebook may look up in the study file: all variants, its profile, and ``OF_OTHERS`` of the
    profiles beside it and of those at whose sizes costs are counted."""
    parts = {f"variants.{name}": variant.model_dump(mode="json") for name, variant in study.variants.items()}
    parts |= {f"profile.{key}": part for key, part in study.profile(profile).model_dump(mode="json").items()}
    others = {*study.together(profile), PAPERS_SWIN_T, PAPERS_SWIN_B} & (study.profiles.keys() - {profile})
    for name in sorted(others):
        found = study.profile(name).model_dump(mode="json", include=set(OF_OTHERS))
        parts |= {f"profiles.{name}.{key}": part for key, part in found.items()}
    return {name: content_digest(part) for name, part in parts.items()}


class Present:
    """What lies there now, each thing read once."""

    def __init__(self) -> None:
        self._digests: dict[Path, str] = {}
        self._code: dict[Path, tuple[str, dict[str, str]]] = {}
        self._journals: dict[Path, Journal | None] = {}
        self._modules = Modules()

    def digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = path_digest(path)
        return self._digests[path]

    def journal(self, path: Path) -> Journal | None:
        if path not in self._journals:
            self._journals[path] = read_journal(path)
        return self._journals[path]

    def code(self, notebook: Path) -> tuple[str, dict[str, str]]:
        """Digest of a notebook's code cells, and the digests of the modules that they use."""
        if notebook not in self._code:
            cells = code_cells(notebook)
            used = self._modules.used_by(cell.tree() for cell in cells)
            self._code[notebook] = content_digest([cell.source for cell in cells]), used
        return self._code[notebook]


def known(step: Step, present: Present | None = None) -> dict[str, Any]:
    """What a step depends on, as far as it is known before it runs: the head of its journal.

    ``inputs`` are what the steps that it needs leave: run records, where there are any, and the files they wrote.
    """
    present = present or Present()
    code, modules = present.code(step.notebook)
    inputs: dict[str, str] = {}
    for source in step.sources:
        if not source.name.endswith(JOURNAL_SUFFIX):
            inputs[str(source.resolve())] = present.digest(source.resolve())
        elif journal := present.journal(source):
            inputs |= {str(path): present.digest(path) for path in journal.written(step.results)}
    parameters = {key: value for key, value in step.parameters.items() if key not in PLACES}
    return {
        "parameters": json.loads(json.dumps(parameters, default=str)),
        "code_cells": code,
        "modules": modules,
        "settings": step.settings,
        "inputs": inputs,
    }


def _decide(steps: list[Step], forced: Collection[str], by_name: Mapping[str, Step], root: Path) -> None:
    """Set state, reason and estimate of each step; ``steps`` stand behind what they need."""
    present = Present()
    for step in steps:
        journal = present.journal(step.journal)
        before = [need for need in sorted(step.needs) if by_name[need].state == "to run"]
        if journal is None or "code_cells" not in journal.head:
            reasons = ["new"]
        else:
            step.estimate = journal.seconds
            reasons = _differences(step, journal, present, root)
        if step.name in forced:
            reasons.append("forced")
        if before:
            reasons.append(f"after {_some(before)}")
        step.state = "to run" if reasons else "up to date"
        step.reason = "; ".join(reasons) or "up to date"


def _differences(step: Step, journal: Journal, present: Present, root: Path) -> list[str]:
    """What is not as at the last execution."""
    then, now = journal.head, known(step, present)
    reasons = []
    if keys := _unequal(then["parameters"], now["parameters"]):
        reasons.append(f"parameters changed: {_some(keys)}")
    if then["code_cells"] != now["code_cells"]:
        reasons.append("notebook changed")
    if names := _unequal(then["modules"], now["modules"]):
        reasons.append(f"code changed: {_some(names)}")
    if names := _unequal(then["settings"], now["settings"]):
        reasons.append(f"study file changed: {_some(names)}")
    read = {str(path): digest for path, digest in journal.read().items()}
    there = {path: present.digest(Path(path)) for path in read}
    if paths := _unequal(then["inputs"] | read, now["inputs"] | there):
        reasons.append(f"input changed: {_some(_short(path, root) for path in paths)}")
    written = journal.written(step.results)
    outputs = {path: present.digest(path) for path in written}
    if missing := [path for path in (step.output, *outputs) if not path.exists()]:
        reasons.append(f"output missing: {_some(_short(path, root) for path in missing)}")
    if others := [path for path, digest in outputs.items() if digest and digest != written[path]]:
        reasons.append(f"output changed: {_some(_short(path, root) for path in others)}")
    return reasons


def _unequal(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    missing = object()
    return sorted(key for key in then.keys() | now.keys() if then.get(key, missing) != now.get(key, missing))


def _short(path: Path | str, root: Path) -> str:
    path = Path(path).resolve()
    return path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else str(path)


def _some(names: Iterable[str], shown: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def show(steps: list[Step], study: Study, console: Console | None = None) -> None:
    """Print the plan. The trainings of one run that are in one state share a line."""
    console = console or Console()
    table = Table("run", "state", "reason", "needs", "estimate")
    groups: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        trains = study.runs[step.run].trains
        groups.setdefault((step.run if trains else step.name, step.state if trains else ""), []).append(step)
    for same in groups.values():
        first, count = same[0], len(same)
        name = first.name if count == 1 else f"{first.run} ({count} trainings)"
        estimate = "" if first.estimate is None else f"{first.estimate:.0f} s"
        table.add_row(name, first.state, first.reason, ", ".join(study.runs[first.run].needs), estimate)
    console.print(table, markup=False)
    waiting = [step for step in steps if step.state == "to run"]
    total = sum(step.estimate or 0 for step in waiting)
    unknown = sum(step.estimate is None for step in waiting)
    last_time = f", {total:.0f} s when they last ran" if total else ""
    never = f", {unknown} never timed" if unknown and total else ""
    console.print(f"{len(waiting)} of {len(steps)} to run{last_time}{never}")
    show_trainings(steps, console)


def show_trainings(steps: list[Step], console: Console) -> None:
    """Print which trainings have no record, and how to train them."""
    recorded = sum(step.state == "recorded" for step in steps)
    missing = [step for step in steps if step.state == "missing"]
    if recorded or missing:
        console.print(f"trainings: {recorded} have their run record, {len(missing)} have none")
    if missing:
        seeds: dict[str, list[str]] = {}
        for step in missing:
            seeds.setdefault(step.parameters["variant"], []).append(str(step.parameters["seed"]))
        alike: dict[str, list[str]] = {}
        for variant, numbers in seeds.items():
            alike.setdefault(" ".join(numbers), []).append(variant)
        for some, variants in alike.items():
            console.print(f"seed {some} of: {', '.join(variants)}", highlight=False, soft_wrap=True)
        console.print(f"train one with: {missing[0].command}", highlight=False, soft_wrap=True)
        every = f"refstudy train --profile {missing[0].parameters['profile']}"
        console.print(f"or all of them with: {every}", highlight=False, soft_wrap=True)
