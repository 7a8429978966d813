"""From steps to executed notebooks: run in the order of needs, keep what was executed."""

import multiprocessing
import os
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from rich.console import Console
from rich.table import Table

from refstudy.config import RunConfig, record_name
from refstudy.files import JOURNAL, JOURNAL_SUFFIX
from refstudy.journal import end_journal, journal_head
from refstudy.plan import Step, known, show_trainings
from refstudy.records import code_version
from refstudy.study import Study


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
                    running[pool.submit(_run_notebook, step, root, threads)] = step
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


def _run_notebook(step: Step, root: Path, threads: int) -> tuple[float, str]:
    """Execute one notebook in this process's kernel; seconds taken and, if it failed, where and why."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import papermill
    from papermill.exceptions import PapermillExecutionError

    start = time.time()
    step.output.parent.mkdir(parents=True, exist_ok=True)
    with open(step.output.with_suffix(".log"), "w") as log:
        os.dup2(log.fileno(), 2)  # what the kernel says of itself; this process runs nothing else
    unfinished = step.output.with_name(f".{step.output.stem}.unfinished.ipynb")
    journal = unfinished.with_suffix(JOURNAL_SUFFIX)
    notebook = Path(os.path.relpath(step.notebook, root)).as_posix()
    journal.write_text(journal_head(notebook, code_version(), known(step)))
    os.environ[JOURNAL] = str(journal)
    failed = step.output.with_suffix(".failed.ipynb")
    try:
        papermill.execute_notebook(
            step.notebook, unfinished, step.parameters, cwd=root, progress_bar=False, log_output=False
        )
    except PapermillExecutionError as error:
        journal.unlink()
        unfinished.replace(failed)
        journal.unlink()
        tail = "\n".join(plain_text(error.traceback).splitlines()[-12:])
        where = f"{step.notebook.name}, cell {error.cell_index} (In [{error.exec_count}])"
        return time.time() - start, f"{where}: {error.ename}: {error.evalue}\n{tail}\nkept as {failed}"
    except Exception as error:  # a dead kernel, a full disk: named, and no reason to stop the other runs
        journal.unlink()
        kept = unfinished.replace(failed) if unfinished.exists() else None
        journal.unlink(missing_ok=True)
        where = f"; kept as {kept}" if kept else ""
        return time.time() - start, f"{step.notebook.name}: {type(error).__name__}: {error}{where}"
    end_journal(journal, time.time() - start)
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
    """Print what became of each step, and which trainings have no record."""
    console = console or Console()
    table = Table("run", "state", "seconds")
    for step in steps:
        if step.state not in ("recorded", "missing"):
            table.add_row(step.name, step.state, f"{step.seconds:.0f}" if step.seconds else "")
    console.print(table)
    show_trainings(steps, console)


def train_run(study: Study, profile: str, variant: str, seed: int, results: str = "", progress: bool = True) -> Path:
    """Train one run of a profile; return its record, and keep its weights where the profile ships them."""
    from refstudy.models.build import load_model, save_weights
    from refstudy.training import train

    config: RunConfig = study.run_config(profile, variant, seed)
    work = study.root / "work" / profile
    records = study.results(profile, results) / "records"
    record = train(config, records, work, study.data_root, study.encoders(profile, variant), progress)
    if variant in study.profile(profile).ships and seed == study.profile(profile).seeds[0]:
        model = load_model(work / record_name(config) / "weights.safetensors")
        save_weights(model, study.weights(profile, variant, results), half=True)
    return record
