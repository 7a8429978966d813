"""``refstudy run`` from beginning to end: trainings that are asked for, notebooks that are not up to date, a report."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from refstudy.base.errors import StudyError
from refstudy.base.locks import locked
from refstudy.engine.plan import INPUT_CHANGED, Step, plan, released, show, show_trainings, without_record
from refstudy.engine.signals import Stop, ended_in_time
from refstudy.study.file import Study


def run_profile(
    study: Study,
    profile: str,
    train: bool = False,
    only: Sequence[str] = (),
    fresh: bool = False,
    changes: Mapping[str, Any] | None = None,
    workers: int = 0,
    scheduler: str = "",
    minutes: float | None = None,
    dry_run: bool = False,
) -> int:
    """Train the runs of a profile that have no record, where ``train`` or the profile asks for it; execute the
    notebooks that are not up to date; write the report; return an exit status.

    It is 1 when a training or a notebook failed, and 75 when SIGTERM came while runs were trained or when ``minutes``
    were over before all was done. The options are those of ``refstudy run``.
    """
    if minutes is not None and scheduler:
        raise StudyError("--time-budget: not with --scheduler; give the queue's own limit to the workers")
    folder = study.results(profile)
    with nullcontext() if dry_run else locked(folder, f"{folder}: refstudy already runs for it", wait=False):
        console, planned = Console(), partial(plan, study, profile, only, changes=changes)
        asked = train or (study.profile(profile).training == "always" and not only)
        cases = without_record(study, profile) if asked else []
        steps = planned(fresh=fresh, trainings=cases)
        waiting = [step for step in steps if step.state == "to run"]
        if dry_run or not (waiting or cases):
            show(steps, console)
            show_trainings(study, profile, console, asked)
        if dry_run:
            _show_missing_data(study, profile, console)
            return 0
        stop = Stop(minutes) if cases or minutes is not None else None
        if cases or any(step.data for step in waiting):
            from dask.system import CPU_COUNT

            from refstudy.data.source import prepare_data
            from refstudy.engine.needs import refuse_without

            refuse_without(study, (profile,), cases)
            prepare_data(study.profile(profile).data, study.data_root, workers=CPU_COUNT)
        if stop and cases:
            from refstudy.engine.trainings import train_all  # PyTorch takes seconds to import

            if status := train_all(study, cases, stop, 1 if scheduler else workers or 1, scheduler=scheduler):
                return status
        with ended_in_time(stop) if stop and (minutes is not None or stop()) else nullcontext():
            executed = _execute(study.root, planned(fresh=fresh) if cases else steps, workers, console, scheduler)
            if executed and all(step.state == "done" for step in executed):
                again = [step for step in planned() if INPUT_CHANGED in step.reason]  # another one wrote it meanwhile
                executed += _execute(study.root, again, workers, console, scheduler)
        if any(step.state == "failed" for step in executed):
            return 1
        page = folder / "report" / "index.html"
        if cases or executed or not page.exists():
            from refstudy.engine.report import write_report

            page = write_report(study.under(profile))
        console.print(f"results are in {folder}; read {page}", highlight=False, soft_wrap=True)
        return 0


def _show_missing_data(study: Study, profile: str, console: Console) -> None:
    """Print, for a profile of released data, what to fetch, and the command that estimates its cost."""
    if released(study, profile):
        from refstudy.engine.needs import missing_data

        lines = [f"missing: {line}" for line in missing_data(study, study.together(profile))]
        lines.append(f"GPU-hours: refstudy cost --profile {profile}; several GPUs, queues: docs/cluster.md")
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _execute(root: Path, steps: list[Step], workers: int, console: Console, scheduler: str) -> list[Step]:
    """Execute those of the steps that are to run, and return them."""
    waiting = [step for step in steps if step.state == "to run"]
    if waiting:
        from refstudy.engine.workers import execute  # Papermill takes seconds, too

        execute(waiting, root, workers, console, scheduler)
    return waiting
