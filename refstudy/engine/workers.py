"""Notebooks on Dask workers: hand out those that are to run, show their progress, report how each ended."""

import logging
import os
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker
from rich import progress as rich_progress
from rich.console import Console

from refstudy.base.errors import StudyError
from refstudy.base.provenance import code_version
from refstudy.engine.journal import journal_head
from refstudy.engine.modules import Modules
from refstudy.engine.notebook import NotebookError, clear_away, execute_notebook
from refstudy.engine.plan import Step, known
from refstudy.engine.signals import exit_on_signals

PATIENCE = 20  # seconds that interrupted notebooks have to end
CLOSED = ("closing", "closed")  # a client that has lost its scheduler for good
Task = TypeVar("Task")


def execute(
    steps: list[Step], root: Path, workers: int = 0, console: Console | None = None, scheduler: str = ""
) -> bool:
    """Execute what is "to run" on Dask workers; True when nothing failed.

    ``workers``: notebooks at once on this machine (0: one per core), unless ``scheduler`` is the address of a Dask
    scheduler, whose workers share this folder. When a notebook fails, all others go on. SIGINT and SIGTERM end the
    running kernels, leave earlier outputs as they are and raise SystemExit. Raises StudyError when the scheduler does
    not answer.
    """
    console = console or Console()
    waiting = [step for step in steps if step.state == "to run"]
    if not waiting:
        return True
    with exit_on_signals(), connect(scheduler, min(workers or CPU_COUNT, len(waiting))) as client:
        machines = Counter[str]()
        for worker in client.scheduler_info()["workers"].values():
            machines[worker["host"]] += worker["nthreads"]
        if not machines:
            console.print(f"{scheduler} has no workers yet; the notebooks wait for some")
        progress = Progress(waiting, console)
        with progress.view:
            topic = f"refstudy-{uuid.uuid4()}"  # a scheduler may serve several calls
            client.subscribe_topic(topic, progress.hear)
            code, modules, share = code_version(), Modules(), max(machines.values(), default=1)
            running: dict[Future, Step] = {}
            about = {}
            for step in waiting:
                name = Path(os.path.relpath(step.notebook, root)).as_posix()
                about[step.name] = (root, journal_head(name, code, known(step, modules)), share, topic)

            def submit(step: Step) -> Future:
                return client.submit(execute_notebook, step, *about[step.name], key=f"{step.name}-{topic}")

            try:
                for step, future in in_turn(client, waiting, submit, running):
                    step.error = _error(future, step)
                    step.state = "failed" if step.error else "done"
                    progress.end(step)
            except SystemExit:
                client.cancel(list(running))
                end = time.monotonic() + PATIENCE
                while progress.running and time.monotonic() < end:
                    time.sleep(0.1)
                for step in running.values():
                    clear_away(step.output, keep=False)  # in case its worker could not
                done = sum(step.state == "done" for step in steps)
                console.print(f"interrupted: {done} of {len(steps)} are done; the same command goes on from there")
                raise
    return not any(step.state == "failed" for step in steps)


def in_turn(
    client: Client,
    tasks: Iterable[Task],
    submit: Callable[[Task], Future],
    running: dict[Future, Task],
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Task, Future]]:
    """Submit as many tasks as the workers have threads now, and the next one whenever one has ended; yield each that
    ended. ``running`` holds what is out, also when the caller is interrupted or ``stop`` has ended the loop. Given all
    at once, Dask would put tasks behind a long one while other workers are free: it moves no task whose duration it
    does not know.

    Raises StudyError when the scheduler is lost and tasks are left.
    """
    waiting = deque(tasks)
    while (waiting or running) and not stop():
        for future in [future for future in running if future.done()]:
            yield running.pop(future), future
            future.release()  # Dask would do it again if the worker that holds it died
        if client.status in CLOSED:
            if waiting and not running:
                raise StudyError(f"the scheduler was lost before {len(waiting)} were begun; the same command goes on")
        elif waiting:
            places = 0
            with suppress(OSError):  # being lost: what is out ends with an error of its own
                places = max(1, sum(client.nthreads().values()))
            while waiting and len(running) < places:
                running[submit(waiting[0])] = waiting[0]
                waiting.popleft()
        time.sleep(0.1)


def call(module: str, function: str, *arguments: Any) -> Any:
    """Call a module's function, as a task: the scheduler loads what a task names, and so need not load the module."""
    return getattr(import_module(module), function)(*arguments)


def _error(future: Future, step: Step) -> str:
    """Say why a finished task failed; empty when it did not."""
    if future.status == "finished":
        return ""
    error = future.exception() if future.status == "error" else None
    if isinstance(error, NotebookError):
        return str(error)
    if isinstance(error, KilledWorker):
        text = f"its worker died {error.allowed_failures + 1} times (killed, or out of memory); see the worker's log"
    else:
        text = f"{type(error).__name__}: {error}" if error else "the connection to the scheduler was lost"
    return f"{step.notebook.name}: {text}{clear_away(step.output, keep=True)}"


def connect(scheduler: str, threads: int = 1) -> Client:
    """A client of the scheduler or, without one, of a worker in this process, whose kernels are processes."""
    if not scheduler:
        quiet = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL, "memory_limit": None}
        return Client(n_workers=1, threads_per_worker=threads, processes=False, **quiet)
    try:
        return Client(scheduler)
    except (OSError, ValueError) as error:
        raise StudyError(f"--scheduler {scheduler}: no answer; start one with: dask scheduler") from error


class Progress:
    """Bars (``view``) from the news that workers send. ``running``: name -> bar and start of what runs now."""

    def __init__(self, steps: list[Step], console: Console):
        self.running: dict[str, tuple[rich_progress.TaskID, float]] = {}
        self._steps, self._console = {step.name: step for step in steps}, console
        times = rich_progress.TimeElapsedColumn(), rich_progress.TimeRemainingColumn()
        columns = ("{task.description}", rich_progress.BarColumn(), rich_progress.MofNCompleteColumn(), *times)
        self.view = rich_progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._total = self.view.add_task("notebooks", total=len(steps))

    def hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take a worker's news: see ``refstudy.engine.notebook.execute_notebook``."""
        name = event[1]["name"]
        if "ended" in event[1]:
            self._remove(name)
        elif event[1]["cells"] == 0:
            self.running[name] = (self.view.add_task(f"{name}, cells", total=None), time.monotonic())
            self._console.print(f"started  {name}")
        elif name in self.running:
            self.view.update(self.running[name][0], completed=event[1]["cell"], total=event[1]["cells"])

    def end(self, step: Step) -> None:
        """Print how a step ended."""
        self._remove(step.name)
        self.view.advance(self._total)
        ended = sum(one.state in ("done", "failed") for one in self._steps.values())
        self._console.print(f"{step.state:8} {step.name} after {step.seconds:.0f} s ({ended} of {len(self._steps)})")
        if step.error:
            self._console.print(step.error, markup=False, highlight=False, soft_wrap=True)

    def _remove(self, name: str) -> None:
        if found := self.running.pop(name, None):  # in one step, as Dask's thread and the main one both come here
            bar, start = found
            self._steps[name].seconds = time.monotonic() - start
            self.view.remove_task(bar)
