"""One notebook, executed in its own kernel by a Dask worker. It is killed when its task is cancelled, and replaces the
earlier output only when it ran to its end.
"""

import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import papermill
from dask.system import CPU_COUNT
from distributed import get_worker
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from refstudy.base.files import JOURNAL, JOURNAL_SUFFIX
from refstudy.engine.journal import end_journal, read_journal
from refstudy.engine.plan import Step

PATIENCE = 300  # seconds for what is slow on a busy machine: a kernel's start, its last outputs
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PAPERMILL = {"engine_name": "refstudy", "kernel_name": NATIVE_KERNEL_NAME, "language": "python", "progress_bar": False}
# Environment variables that a kernel does not inherit, by their first letters, and the exceptions.
OF_A_SHELL = ("MPL", "MATPLOTLIB", "JUPYTER", "JPY_", "IPYTHON", "LC_", "LANG", "PYTHON")
KEPT = ("MPLCONFIGDIR", "PYTHONPATH")


class NotebookError(Exception):
    """A notebook did not run to its end; the text says where and why, and what was kept."""


def unfinished_files(output: Path) -> dict[Path, Path]:
    """The files of a notebook that is being executed -> the paths that keep them after a failure."""
    unfinished = output.with_name(f".{output.stem}.unfinished.ipynb")
    return {
        unfinished: output.with_suffix(".failed.ipynb"),
        unfinished.with_suffix(JOURNAL_SUFFIX): output.with_suffix(f".failed{JOURNAL_SUFFIX}"),
    }


def clear_away(output: Path, keep: bool) -> str:
    """Remove the files of an execution that failed or, to ``keep`` them, rename them; return a line that says where."""
    files = unfinished_files(output)
    notebook, journal = files.values()
    keep = keep and next(iter(files)).exists()
    with suppress(OSError):
        for part, kept in files.items():
            part.replace(kept) if keep else part.unlink(missing_ok=True)
    return f"\nkept as {notebook}; what it had read and written: {journal.name}" if keep else ""


def execute_notebook(step: Step, root: Path, journal_head: str, share: int, topic: str) -> None:
    """Execute one notebook within a Dask task. Raises NotebookError.

    The kernel's folder is ``root``; ``share`` notebooks at once share the machine's cores. Progress is sent under
    ``topic``: {name, cell, cells} as it starts and at every cell, {name, ended}.
    """
    watch, start, output = _Watch(step.name, topic), time.monotonic(), step.output
    unfinished, journal = unfinished_files(output)
    threads = str(max(1, CPU_COUNT // share))
    own = tempfile.TemporaryDirectory(prefix="refstudy-ipython-")
    environment = kernel_environment(threads, own.name) | {JOURNAL: str(journal)}
    watch.tell(cell=0, cells=0)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text(journal_head, encoding="utf-8")
        with open(output.with_suffix(".log"), "w", encoding="utf-8") as log, watch:  # what the kernel says of itself
            kernel = {"cwd": str(root), "env": environment, "stderr": log}
            paths = _literal(step.notebook), _literal(unfinished)
            book = papermill.execute_notebook(*paths, step.parameters, watch=watch, kernel=kernel, **PAPERMILL)
        refuse_without_figures(book, journal)
        end_journal(journal, time.monotonic() - start, watch.client and watch.client.usage)
        if noted := read_journal(journal):
            book.metadata["refstudy"] = noted.provenance()
        nbformat.write(book, unfinished)
        unfinished.replace(output)
        journal.replace(output.with_suffix(JOURNAL_SUFFIX))
        for failed in unfinished_files(output).values():
            failed.unlink(missing_ok=True)
    except Exception as error:
        broken = isinstance(error, OSError) and not isinstance(error, TimeoutError)  # half a file, on a full disk
        kept = clear_away(output, keep=not (broken or watch.unwanted))
        raise NotebookError(_explain(error, step, watch) + kept) from None
    finally:
        own.cleanup()
        watch.tell(ended=True)


def kernel_environment(threads: str, ipython: str) -> dict[str, str]:
    """The environment of a kernel. A shell's settings of Matplotlib, Jupyter, IPython, Python and the locale do not
    reach it, nor do a user's matplotlibrc and start-up files; ``ipython`` is the folder for what IPython keeps."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_SHELL) or name in KEPT}
    set_here = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0", "IPYTHONDIR": ipython}
    set_here |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    set_here |= {"MATPLOTLIBRC": str(Path(matplotlib.get_data_path(), "matplotlibrc"))}
    return inherited | set_here | dict.fromkeys(THREADS, threads)


def _literal(path: Path) -> str:
    """A path for papermill, its braces escaped, since papermill replaces names in braces by parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def refuse_without_figures(book: NotebookNode, journal: Path) -> None:
    """Raise ValueError where a notebook wrote figures and shows none."""
    noted = read_journal(journal)
    wrote = noted and any(line["action"] == "wrote" and line["path"].endswith(".png") for line in noted.lines)
    shows = any("image/png" in output.get("data", {}) for cell in book.cells for output in cell.get("outputs", ()))
    if wrote and not shows:
        raise ValueError("it wrote figures but shows none; its kernel draws with another backend than Jupyter's")


def _explain(error: Exception, step: Step, watch: "_Watch") -> str:
    """Say where a notebook failed, and why, with the last lines of the error of its cell."""
    name = step.notebook.name
    where = f"{name}, cell {watch.cell}"
    if watch.unwanted:
        return f"{where}: interrupted"
    if isinstance(error, PapermillExecutionError):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))  # without a terminal's colours
        tail = "\n".join(plain.splitlines()[-12:])
        return f"{name}, cell {error.cell_index} (In [{error.exec_count}]): {error.ename}: {error.evalue}\n{tail}"
    if isinstance(error, DeadKernelError):
        return f"{where}: the kernel died (out of memory, or ended by the cell); see {step.output.stem}.log"
    if isinstance(error, OSError) and error.strerror:
        path = error.filename or step.output.parent
        return f"{name}: {error.strerror}: {path}; correct that and run again"
    return f"{where}: {type(error).__name__}: {error}"


def cancellation() -> Callable[[], bool]:
    """Return a function that tells if Dask has cancelled the task that calls this: its command ended early."""
    worker = get_worker()
    key = worker.get_current_task()

    def cancelled() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state != "executing"

    return cancelled


class _Watch:
    """Looks twice a second if the task was cancelled (``unwanted``), and kills the kernel then. ``cell``: from 0."""

    def __init__(self, name: str, topic: str):
        self.cell, self.unwanted = 0, False
        self.client: _Client | None = None
        self._name, self._topic, self._worker, self._cancelled = name, topic, get_worker(), cancellation()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def tell(self, **what: Any) -> None:
        """Send news for the progress display."""
        self._worker.log_event(self._topic, {"name": self._name} | what)

    def _look(self) -> None:
        while not self._over.wait(0.5):
            self.unwanted = self.unwanted or self._cancelled()
            manager = self.unwanted and self.client and self.client.km
            process = manager and manager.provisioner and manager.provisioner.process
            if process and process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # a kernel leads a process group: its own children end too


USAGE = "__import__('IPython.display').display.JSON(__import__('refstudy.base.provenance').base.provenance.usage())"


class _Client(PapermillNotebookClient):
    """Papermill's client of a kernel. ``usage``: machine and memory, as the kernel tells after its last cell."""

    usage: Mapping[str, Any] = {}

    def create_kernel_manager(self) -> KernelManager:
        """Manage the kernel of this very Python, whatever kernels the user has installed or JUPYTER_PATH names."""
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
        return manager

    def papermill_execute_cells(self) -> None:
        super().papermill_execute_cells()
        asked = self.kc.execute("", silent=True, user_expressions={"usage": USAGE})
        said = self.wait_for_reply(asked)["content"].get("user_expressions", {}).get("usage", {})
        if said.get("status") == "ok":
            self.usage = said["data"]["application/json"]


class _Engine(NBClientEngine):
    """Papermill's engine, with a folder, an environment and a log for each kernel, since a worker has several."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, watch, kernel, **_):  # type: ignore[override]
        def on_cell_start(cell: Any, cell_index: int) -> None:
            watch.cell = cell_index
            watch.tell(cell=cell_index, cells=len(nb_man.nb.cells))

        waits = {"startup_timeout": PATIENCE, "iopub_timeout": PATIENCE}
        watch.client = _Client(nb_man, kernel_name=kernel_name, on_cell_start=on_cell_start, **waits)
        watch.client.execute(**kernel)


papermill_engines.register(PAPERMILL["engine_name"], _Engine)
