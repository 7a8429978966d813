"""One notebook, executed in a kernel of its own: watched while it runs, ended when nobody wants it or its time is over,
and in the place of the earlier one only when it ran to its end.

This is what a Dask worker does, on whichever machine. ``refstudy.engine.execution`` says what it is told and what it
leaves.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import nbformat
import papermill
from dask.system import CPU_COUNT
from distributed import get_worker
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from refstudy.engine.execution import Execution, NotebookError, clear_away, partial_files
from refstudy.engine.journal import end_journal, read_journal
from refstudy.files import JOURNAL, JOURNAL_SUFFIX

PATIENCE = 300  # seconds for what is slow on a busy machine: a kernel's start, its last outputs
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def execute_notebook(execution: Execution) -> None:
    """Execute one notebook within a Dask task. Raises NotebookError.

    Progress is told under the execution's topic: {name, cell, cells} as it starts and at every cell, {name, ended}.
    """
    watch = _Watch(execution)
    watch.tell(cell=0, cells=0)
    try:
        _execute(execution, watch)
    finally:
        watch.tell(ended=True)


def _execute(execution: Execution, watch: "_Watch") -> None:
    start, output = time.monotonic(), execution.output
    unfinished, journal, failed = partial_files(output)
    threads = str(max(1, CPU_COUNT // execution.share))
    environment = os.environ | dict.fromkeys(THREADS, threads) | {JOURNAL: str(journal)}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text(execution.journal_head)
        with open(output.with_suffix(".log"), "w") as log, watch:  # the log: what the kernel says of itself
            book = papermill.execute_notebook(
                execution.notebook,
                unfinished,
                execution.parameters,
                engine_name=_Engine.__name__,
                progress_bar=False,
                start_timeout=PATIENCE,
                watch=watch,
                kernel={"cwd": str(execution.root), "env": environment, "stderr": log},
            )
        end_journal(journal, time.monotonic() - start, watch.client and watch.client.usage)
        if noted := read_journal(journal):
            book.metadata["refstudy"] = noted.provenance()
        nbformat.write(book, unfinished)
        unfinished.replace(output)
        journal.replace(output.with_suffix(JOURNAL_SUFFIX))
        failed.unlink(missing_ok=True)
    except Exception as error:
        broken = isinstance(error, OSError) and not isinstance(error, TimeoutError)  # half a file, on a full disk
        kept = clear_away(output, keep=not (broken or watch.unwanted))
        raise NotebookError(_explain(error, execution, watch) + kept) from None


def _explain(error: Exception, execution: Execution, watch: "_Watch") -> str:
    name = execution.notebook.name
    where = f"{name}, cell {watch.cell}"
    if watch.reason:
        return f"{where}: {watch.reason}"
    if isinstance(error, PapermillExecutionError):
        tail = "\n".join(plain_text(error.traceback).splitlines()[-12:])
        return f"{name}, cell {error.cell_index} (In [{error.exec_count}]): {error.ename}: {error.evalue}\n{tail}"
    if isinstance(error, DeadKernelError):
        return f"{where}: the kernel died (out of memory, or ended by the cell); see {execution.output.stem}.log"
    if isinstance(error, NoSuchKernel):
        install = f"python -m ipykernel install --sys-prefix --name {error.name}"
        return f"{name}: no kernel named '{error.name}' is installed; choose python3 in the notebook, or {install}"
    if isinstance(error, OSError) and error.strerror:
        path = error.filename or execution.output.parent
        return f"{name}: {error.strerror}: {path}; put that right and run again"
    return f"{where}: {type(error).__name__}: {error}"


class _Watch:
    """Looks at a running notebook twice a second, and kills its kernel when there is a reason to stop it.

    ``cell``: the one being executed, from 0. ``reason``: why it was stopped. ``unwanted``: whether the task was
    cancelled, as it is when ``refstudy run`` is interrupted or dies.
    """

    def __init__(self, execution: Execution):
        self.cell, self.reason, self.unwanted = 0, "", False
        self.client: _Client | None = None
        self._execution, self._worker = execution, get_worker()
        self._task = self._worker.get_current_task()
        self._end = float("inf")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def begin(self) -> None:
        """Start the clock of the timeout: the kernel is there."""
        self._end = time.monotonic() + (self._execution.timeout or float("inf"))

    def tell(self, **what: Any) -> None:
        """Send news to whoever shows the progress."""
        self._worker.log_event(self._execution.topic, {"name": self._execution.name} | what)

    def _look(self) -> None:
        while not self._over.wait(0.5):
            task = self._worker.state.tasks.get(self._task)
            if task is None or task.state != "executing":
                self.reason, self.unwanted = "interrupted", True
            elif time.monotonic() > self._end:
                self.reason = f"stopped after its timeout of {self._execution.timeout:g} s"
            if self.reason:
                self._kill()

    def _kill(self) -> None:
        manager = self.client and self.client.km
        process = manager and manager.provisioner and manager.provisioner.process
        if process and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a kernel leads a process group: its own children end too


USAGE = "__import__('IPython.display').display.JSON(__import__('refstudy.provenance').provenance.usage())"


class _Client(PapermillNotebookClient):
    """Papermill's client of a kernel. ``usage``: what the kernel said, after its last cell, that it ran on and used
    (``refstudy.provenance.usage``); empty where it cannot say."""

    usage: Mapping[str, Any] = {}

    def papermill_execute_cells(self) -> None:
        super().papermill_execute_cells()
        asked = self.kc.execute("", silent=True, user_expressions={"usage": USAGE})
        said = self.wait_for_reply(asked)["content"].get("user_expressions", {}).get("usage", {})
        if said.get("status") == "ok":
            self.usage = said["data"]["application/json"]


class _Engine(NBClientEngine):
    """Papermill's engine, with a kernel whose folder, environment and log are its own instead of the process's (one
    worker may execute several notebooks at once)."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, watch, kernel, start_timeout, **_):  # type: ignore[override]
        def on_cell_start(cell: Any, cell_index: int) -> None:
            if cell_index == 0:
                watch.begin()
            watch.cell = cell_index
            watch.tell(cell=cell_index, cells=len(nb_man.nb.cells))

        watch.client = _Client(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            iopub_timeout=PATIENCE,
            on_cell_start=on_cell_start,
        )
        watch.client.execute(**kernel)


papermill_engines.register(_Engine.__name__, _Engine)


def plain_text(lines: Iterable[str] | str) -> str:
    """A traceback without its terminal colours."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
