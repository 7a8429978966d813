"""From the study file to steps: what would run, in which order, and why."""

import graphlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from refstudy.errors import StudyError
from refstudy.records import find_record
from refstudy.study import Study, training_command

State = Literal["to run", "recorded", "missing", "done", "failed", "skipped"]


@dataclass
class Step:
    """One notebook execution of the plan.

    ``state`` starts as "to run", "recorded" (a run record stands for it) or "missing" (it would have to be trained and
    nobody asked for that), and ends as "done", "failed" or "skipped" (something it needs failed). ``reason`` says why
    it runs or does not; ``command`` trains what has no record. ``estimate``, ``timeout`` and ``seconds`` are seconds;
    ``timeout``, ``retries``, ``gpus`` (per execution) and ``data`` (whether it needs the profile's) are the study
    file's.
    """

    name: str
    notebook: Path
    output: Path
    parameters: dict[str, Any]
    needs: set[str]
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


def plan(study: Study, profile: str, train: bool = False, only: Sequence[str] = (), results: str = "") -> list[Step]:
    """The steps of a profile, each behind what it needs.

    A training is satisfied by the record of exactly its settings; without one it is "missing", unless ``train`` or the
    profile's own ``training: always`` asks for it. ``only`` keeps the named steps (a run's name names all of its
    trainings). Raises StudyError for an unknown name.
    """
    folder = study.results(profile, results)
    train = train or study.profile(profile).training == "always"
    common = {"study": str(study.path), "profile": profile, "results": str(folder)}
    steps: dict[str, Step] = {}
    expanded: dict[str, list[str]] = {}
    for name in _ordered(study):
        run = study.runs[name]
        needs = {step for need in run.needs for step in expanded[need]}
        cases: list[dict[str, Any]] = [{}]
        if run.trains:
            variants, seeds = study.variant_names(profile), study.profile(profile).seeds
            cases = [{"variant": variant, "seed": seed} for seed in seeds for variant in variants]
        expanded[name] = []
        for case in cases:
            step_name = ":".join([name, *map(str, case.values())])
            output = folder / "notebooks" / f"{step_name.replace(':', '-')}.ipynb"
            step = Step(step_name, study.root / run.notebook, output, common | run.parameters | case, needs)
            step.timeout, step.retries, step.gpus, step.data = run.timeout, run.retries, run.gpus, run.data
            if run.trains:
                step.command = training_command(profile, case["variant"], case["seed"])
                recorded = find_record(folder / "records", study.run_config(profile, **case)) is not None
                step.state = "recorded" if recorded else "to run" if train else "missing"
            steps[step_name] = step
            expanded[name].append(step_name)
    return _selected(list(steps.values()), only)


def _ordered(study: Study) -> list[str]:
    return list(graphlib.TopologicalSorter({name: run.needs for name, run in study.runs.items()}).static_order())


def _selected(steps: list[Step], only: Sequence[str]) -> list[Step]:
    if not only:
        return steps
    for name in only:
        if not any(step.name == name or step.name.startswith(f"{name}:") for step in steps):
            raise StudyError(f"--only {name}: no such run; known: {', '.join(step.name for step in steps)}")
    kept = [s for s in steps if any(s.name == name or s.name.startswith(f"{name}:") for name in only)]
    names = {step.name for step in kept}
    for step in kept:
        step.needs &= names
    return kept
