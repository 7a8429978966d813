"""What a Dask worker is told of a notebook's execution, and what the execution leaves.

Papermill, which takes seconds to import, is the worker's matter (``refstudy.engine.notebook``): who hands out the work
does without it.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refstudy.files import JOURNAL_SUFFIX


class NotebookError(Exception):
    """A notebook did not run to its end; the text says where and why, and what was kept."""


@dataclass(frozen=True)
class Execution:
    """What a worker has to know: the notebook, its output and parameters, the kernel's folder ``root``, the first line
    of its journal, the seconds its cells may take in all (None: any), how many notebooks share its machine, and the
    topic of its progress."""

    name: str
    notebook: Path
    output: Path
    parameters: dict[str, Any]
    root: Path
    journal_head: str
    timeout: float | None
    share: int
    topic: str


def partial_files(output: Path) -> tuple[Path, Path, Path]:
    """The notebook being executed, its journal, and where it is kept when it fails."""
    unfinished = output.with_name(f".{output.stem}.unfinished.ipynb")
    return unfinished, unfinished.with_suffix(JOURNAL_SUFFIX), output.with_suffix(".failed.ipynb")


def clear_away(output: Path, keep: bool) -> str:
    """Remove what an execution left that did not end well; a line on where the notebook is if it is to be kept."""
    unfinished, journal, failed = partial_files(output)
    keep = keep and unfinished.exists()
    with suppress(OSError):
        journal.unlink(missing_ok=True)
        unfinished.replace(failed) if keep else unfinished.unlink(missing_ok=True)
    return f"\nkept as {failed}" if keep else ""
