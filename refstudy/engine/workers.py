"""From steps to executed notebooks: run on Dask workers in the order of needs, and say what became of each."""

import logging
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from rich.console import Console
from rich.table import Table

from refstudy.config import RunConfig
from refstudy.engine.execution import Execution, NotebookError, clear_away
from refstudy.engine.journal import journal_head
from refstudy.engine.plan import Step, known, show_trainings
from refstudy.engine.progress import Progress
from refstudy.errors import StudyError
from refstudy.provenance import code_version
from refstudy.study import Study


def execute(
    steps: list[Step], root: Path, workers: int = 0, console: Console | None = None, scheduler: str = ""
) -> bool:
    """Execute what is "to run" on Dask workers; True when nothing failed.

    ``workers``: notebooks at once on this machine (0: one per core), unless ``scheduler`` is the address of a Dask
    scheduler, whose workers share this folder. A step starts when those it needs are done; when one fails, those that
    need it are skipped and all others go on. SIGINT and SIGTERM end the running kernels, leave earlier outputs as they
    are and raise SystemExit. Raises StudyError when the scheduler does not answer.
    """
    console = console or Console()
    waiting = [step for step in steps if step.state == "to run"]
    if not waiting:
        return True
    by_name, code = {step.name: step for step in steps}, code_version()
    topic = f"refstudy-{uuid.uuid4()}"  # a scheduler may serve several calls
    futures: dict[Future, Step] = {}

    def start_ready() -> None:
        for step in list(waiting):
            states = {by_name[need].state for need in step.needs}
            if states & {"failed", "skipped"}:
                step.state = "skipped"
                waiting.remove(step)
            elif "to run" not in states:
                waiting.remove(step)
                head = journal_head(Path(os.path.relpath(step.notebook, root)).as_posix(), code, known(step))
                execution = Execution(
                    step.name, step.notebook, step.output, step.parameters, root, head, step.timeout, share, topic
                )
                resources = {"GPU": step.gpus} if scheduler and step.gpus else None
                future = client.submit(
                    _execute_notebook, execution, key=f"{step.name}-{topic}", retries=step.retries, resources=resources
                )
                futures[future] = step
                completed.add(future)

    with _stopped_by_signals(), _connect(scheduler, workers or CPU_COUNT, len(waiting)) as client:
        machines = Counter[str]()
        for worker in client.scheduler_info()["workers"].values():
            machines[worker["host"]] += worker["nthreads"]
        share = max(machines.values(), default=1)
        if not machines:
            console.print(f"{scheduler} has no workers yet; the runs wait for some")
        with Progress(steps, console) as progress:
            progress.slots = max(1, machines.total())
            client.subscribe_topic(topic, progress.hear)
            completed = as_completed(loop=client.loop)
            try:
                start_ready()
                for future in completed:
                    step = futures.pop(future)
                    step.error = _error(future, step)
                    step.state = "failed" if step.error else "done"
                    future.release()  # Dask would execute it again if the worker that holds it died
                    progress.end(step)
                    start_ready()
            except SystemExit:
                client.cancel(list(futures))
                patience = time.monotonic() + 20
                while progress.running and time.monotonic() < patience:
                    time.sleep(0.1)
                for step in futures.values():
                    clear_away(step.output, keep=False)  # in case its worker could not
                done = sum(step.state == "done" for step in steps)
                console.print(f"interrupted: {done} of {len(by_name)} are done; the same command goes on from there")
                raise
    return not any(step.state in ("failed", "skipped") for step in steps)


def _execute_notebook(execution: Execution) -> None:
    """The Dask task: see ``refstudy.engine.notebook.execute_notebook``."""
    from refstudy.engine.notebook import execute_notebook  # Papermill takes seconds to import

    execute_notebook(execution)


def _error(future: Future, step: Step) -> str:
    """Why a finished task failed; empty when it did not."""
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


@contextmanager
def _connect(scheduler: str, workers: int, steps: int) -> Iterator[Client]:
    """A client of the scheduler, or of a worker within this process, that ends with it however it ends."""
    if scheduler:
        try:
            client = Client(scheduler)
        except (OSError, ValueError) as error:
            raise StudyError(f"--scheduler {scheduler}: no answer; start one with: dask scheduler") from error
        with client:
            yield client
        return
    import refstudy.engine.notebook  # noqa: F401  (here, and not while this thread parses: Python 3.11 cannot do both at once)

    with (
        LocalCluster(  # threads: the work is done by the kernels, which are processes
            n_workers=1,
            threads_per_worker=min(workers, steps),
            processes=False,
            dashboard_address=":0",
            memory_limit=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise SystemExit with the status that a shell expects, 130 and 143."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    earlier = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def report(steps: list[Step], console: Console | None = None) -> None:
    """Print what became of each step, and which trainings have no record."""
    console = console or Console()
    table = Table("run", "state", "seconds")
    for step in steps:
        if step.state not in ("recorded", "missing"):
            table.add_row(step.name, step.state, f"{step.seconds:.0f}" if step.seconds else "")
    console.print(table)
    show_trainings(steps, console)


def train_run(
    study: Study,
    profile: str,
    variant: str,
    seed: int,
    results: str = "",
    progress: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train one run of a profile; return its record. Where the profile ships its weights, keep them; where it ships any
    seed of the variant, renew the card, which tells how the others ended.

    Raises Unfinished when ``stop`` says so: see ``refstudy.training.train``.
    """
    from refstudy.model_card import write_model_card
    from refstudy.training import launched, train

    config: RunConfig = study.run_config(profile, variant, seed)
    work = study.root / "work" / profile
    records = study.results(profile, results) / "records"
    data = study.data_root.absolute()
    encoders, shipped_seed = study.encoders(profile, variant), study.profile(profile).ships.get(variant)
    weights = study.weights(profile, variant, results).absolute()
    ship = weights if shipped_seed == seed else None
    with chdir(study.root):  # where relative paths of pretrained parts start
        record = train(config, records.absolute(), work, data, encoders, progress, stop=stop, ship=ship)
    if shipped_seed is not None and weights.exists() and launched().is_main_process:
        try:
            write_model_card(study, profile, results)
        except StudyError as error:  # of another shipped file, maybe; the run is done all the same
            print(f"{record.name}: has its record, but the card of the shipped weights is the old one: {error}")
    return record
