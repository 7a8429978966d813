"""The journal of an executed notebook, ``<name>.journal.jsonl`` beside it: what it depended on, read and wrote.

The first line is written before the notebook starts: which notebook, at which commit, and what was known of its
dependencies (``refstudy.plan.known``). Each further line is noted by the package as it reads and writes
(``refstudy.files.note``). The last says that the notebook ran to its end, and how long it took.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refstudy.errors import StudyError


@dataclass(frozen=True)
class Journal:
    """A journal that was read. ``head``: its first line; ``lines``: what was noted, in order; ``seconds``: how long the
    notebook took, None when it did not end."""

    head: dict[str, Any]
    lines: list[dict[str, Any]]
    seconds: float | None

    def written(self, folder: Path) -> dict[Path, str]:
        """What was written under ``folder``: path -> digest."""
        found = {Path(line["path"]): line["sha256"] for line in self.lines if line["action"] == "wrote"}
        return {path: digest for path, digest in found.items() if path.is_relative_to(folder.resolve())}

    def read(self) -> dict[Path, str]:
        """What was read, except what the notebook itself had written: path -> digest."""
        own = {line["path"] for line in self.lines if line["action"] == "wrote"}
        read = (line for line in self.lines if line["action"] == "read" and line["path"] not in own)
        return {Path(line["path"]): line.get("sha256", "") for line in read}


def journal_head(notebook: str, code: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> str:
    """The first line of a notebook's journal: which notebook, the version of the code that executes it, and what it is
    known to depend on."""
    return json.dumps({"notebook": notebook} | dict(code) | dict(known or {}), default=str) + "\n"


def end_journal(path: Path, seconds: float) -> None:
    """Note that the notebook ran to its end, in ``seconds``."""
    with open(path, "a") as out:
        line = {"time": datetime.now(UTC).isoformat(), "action": "ended", "seconds": round(seconds, 1)}
        out.write(json.dumps(line) + "\n")


def read_journal(path: Path) -> Journal | None:
    """The journal at ``path``; None where there is none. Raises StudyError when it is broken."""
    try:
        head, *lines = (json.loads(line) for line in path.read_text().splitlines())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StudyError(f"{path}: no journal ({error}); delete it, and its notebook is executed again") from error
    seconds = lines.pop()["seconds"] if lines and lines[-1]["action"] == "ended" else None
    return Journal(head, lines, seconds)
