"""Writing files so that an earlier result stays whole until the new one is complete, and noting who wrote them."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

JOURNAL = "REFSTUDY_JOURNAL"  # the environment variable that names the journal of the notebook being executed
JOURNAL_SUFFIX = ".journal.jsonl"  # of an executed notebook's journal, beside it


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` when the block ends well, remove it otherwise.

    The parent folder is made when missing. The temporary name keeps the suffix, so that writers which choose a format
    by suffix work on it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
        note("wrote", path)
    finally:
        temporary.unlink(missing_ok=True)


def note(action: Literal["read", "wrote"], path: Path | str) -> None:
    """Add a line to the journal of the notebook being executed; nothing happens where none is kept.

    A line is {time, action, path}, with the SHA-256 of what was written: see ``refstudy.manifest``.
    """
    if journal := os.environ.get(JOURNAL):
        line = {"time": datetime.now(UTC).isoformat(), "action": action, "path": str(Path(path).resolve())}
        if action == "wrote":
            line["sha256"] = file_digest(path)
        with open(journal, "a") as out:
            out.write(json.dumps(line) + "\n")


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
