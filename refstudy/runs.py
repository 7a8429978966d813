"""From the study file to executed notebooks: plan, run in the order of needs, keep what was executed."""

import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from refstudy.config import RunConfig
from refstudy.errors import StudyError
from refstudy.manifest import JOURNAL_SUFFIX, start_journal
from refstudy.study import Study, training_command

State = Literal["to run", "recorded", "missing", "done", "failed", "skipped"]


@dataclass
class Step:
    """One notebook execution of the plan.

    ``state`` starts as "to run", "recorded" (a run record stands for it) or "missing" (it would have to be trained and
    nobody asked for that), and ends as "done", "failed" or "skipped" (something it needs failed).
    """

    name: str
    notebook: Path
    output: Path
    parameters: dict[str, Any]
    needs: set[str]
    state: State = "to run"
    command: str = ""
    seconds: float = 0.0
    error: str = ""
    threads: int = field(default=1)


def plan(study: Study, profile: str, train: bool = False, only: Sequence[str] = (), results: str = "") -> list[Step]:
    """The steps of a profile, each behind what it needs.

    A training is satisfied by the record of exactly its settings; without one it is "missing", unless ``train`` or the
    profile's own ``training: always`` asks for it. ``only`` keeps the named steps (a run's name names all of its
    trainings). Raises StudyError for an unknown name.
    """
    from refstudy.records import find_record

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
            if run.trains:
                step.command = training_command(profile, case["variant"], case["seed"])
                recorded = find_record(folder / "records", study.run_config(profile, **case)) is not None
                step.state = "recorded" if recorded else "to run" if train else "missing"
            steps[step_name] = step
            expanded[name].append(step_name)
    return _selected(list(steps.values()), only)


def _ordered(study: Study) -> list[str]:
    import graphlib

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


def execute(steps: list[Step], root: Path, workers: int = 0, console: Console | None = None) -> bool:
    """Execute what is "to run", as much at once as ``workers`` says (0: one per core); True when nothing failed.

    A step waits for those it needs. When one fails, those that need it are skipped and all others go on.
    """
    console = console or Console()
    cores = os.cpu_count() or 1
    workers = workers or cores
    waiting = [step for step in steps if step.state == "to run"]
    threads = max(1, cores // max(1, min(workers, len(waiting))))
    by_name = {step.name: step for step in steps}
    running: dict[Future, Step] = {}
    total, finished = len(waiting), 0
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    try:
        while waiting or running:
            for step in list(waiting):
                states = {by_name[need].state for need in step.needs}
                if states & {"failed", "skipped"}:
                    step.state = "skipped"
                    waiting.remove(step)
                elif "to run" not in states and len(running) < workers:
                    waiting.remove(step)
                    step.threads = threads
                    running[pool.submit(_run_notebook, step, root)] = step
                    console.print(f"started  {step.name}")
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                step.seconds, step.error = future.result()
                step.state = "failed" if step.error else "done"
                finished += 1
                console.print(f"{step.state:8} {step.name} after {step.seconds:.0f} s ({finished} of {total})")
                if step.error:
                    console.print(step.error, markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        for process in list(getattr(pool, "_processes", {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return not any(step.state in ("failed", "skipped") for step in steps)


def _run_notebook(step: Step, root: Path) -> tuple[float, str]:
    """Execute one notebook in this process's kernel; seconds taken and, if it failed, where and why."""
    os.environ["OMP_NUM_THREADS"] = str(step.threads)
    import papermill
    from papermill.exceptions import PapermillExecutionError

    start = time.time()
    step.output.parent.mkdir(parents=True, exist_ok=True)
    with open(step.output.with_suffix(".log"), "w") as log:
        os.dup2(log.fileno(), 2)  # what the kernel says of itself; this process runs nothing else
    unfinished = step.output.with_name(f".{step.output.stem}.unfinished.ipynb")
    journal = unfinished.with_suffix(JOURNAL_SUFFIX)
    start_journal(journal, Path(os.path.relpath(step.notebook, root)).as_posix())
    failed = step.output.with_suffix(".failed.ipynb")
    try:
        papermill.execute_notebook(
            step.notebook, unfinished, step.parameters, cwd=root, progress_bar=False, log_output=False
        )
    except PapermillExecutionError as error:
        unfinished.replace(failed)
        journal.unlink()
        tail = "\n".join(plain_text(error.traceback).splitlines()[-12:])
        where = f"{step.notebook.name}, cell {error.cell_index} (In [{error.exec_count}])"
        return time.time() - start, f"{where}: {error.ename}: {error.evalue}\n{tail}\nkept as {failed}"
    except Exception as error:  # a dead kernel, a full disk: named, and no reason to stop the other runs
        kept = unfinished.replace(failed) if unfinished.exists() else None
        journal.unlink(missing_ok=True)
        where = f"; kept as {kept}" if kept else ""
        return time.time() - start, f"{step.notebook.name}: {type(error).__name__}: {error}{where}"
    unfinished.replace(step.output)
    journal.replace(step.output.with_suffix(JOURNAL_SUFFIX))
    failed.unlink(missing_ok=True)
    return time.time() - start, ""


def plain_text(lines: Iterable[str] | str) -> str:
    """A traceback without its terminal colours."""
    import re

    text = lines if isinstance(lines, str) else "\n".join(lines)
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def report(steps: list[Step], console: Console | None = None) -> None:
    """Print what became of each step, which trainings have no record, and how to train them."""
    console = console or Console()
    table = Table("run", "state", "seconds")
    for step in steps:
        if step.state not in ("recorded", "missing"):
            table.add_row(step.name, step.state, f"{step.seconds:.0f}" if step.seconds else "")
    console.print(table)
    recorded = sum(step.state == "recorded" for step in steps)
    missing = [step for step in steps if step.state == "missing"]
    if recorded or missing:
        console.print(f"trainings: {recorded} have their run record, {len(missing)} have none")
    if missing:
        names = ", ".join(step.name.removeprefix("train:") for step in missing)
        console.print(f"missing (variant:seed): {names}", highlight=False, soft_wrap=True)
        console.print(f"train one with: {missing[0].command}", highlight=False, soft_wrap=True)
        console.print("or all of them with: make study ARGS=--train", highlight=False)


def train_run(study: Study, profile: str, variant: str, seed: int, results: str = "", progress: bool = True) -> Path:
    """Train one run of a profile; return its record, and keep its weights where the profile ships them."""
    from refstudy.models.build import load_model, save_weights
    from refstudy.records import record_name
    from refstudy.training import train

    config: RunConfig = study.run_config(profile, variant, seed)
    work = study.root / "work" / profile
    records = study.results(profile, results) / "records"
    record = train(config, records, work, study.data_root, study.encoders(profile, variant), progress)
    if variant in study.profile(profile).ships and seed == study.profile(profile).seeds[0]:
        model = load_model(work / record_name(config) / "weights.safetensors")
        save_weights(model, study.weights(profile, variant, results), half=True)
    return record
