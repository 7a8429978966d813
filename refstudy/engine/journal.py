"""The journal of an executed notebook, ``<name>.journal.jsonl`` in its folder: what it depended on, read and wrote.

The first line is written before the notebook starts: which notebook, at which commit, and what was known of its
dependencies (``refstudy.engine.plan.known``). Each further line is noted by the package as it reads, looks for and
writes files (``refstudy.base.files.note``). The last says that the notebook ran to its end, how long it took, and what
its kernel ran on and used (``refstudy.base.provenance.usage``).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refstudy.base.errors import StudyError
from refstudy.base.files import content_digest

EXECUTED_FROM = ("notebook", "parameters", "code_cells", "modules", "settings")
PROVENANCE: dict[str, Any] = {  # with what stands for the unknown; ``key``: a digest of EXECUTED_FROM and what was read
    "notebook": None,
    "key": "",
    "commit": "",
    "uncommitted_changes": False,
    "parameters": {},
    "seeds": [],
    "versions": {},
    "device": "",
    **dict.fromkeys(("seconds", "cpu_seconds", "peak_memory_mb", "peak_gpu_memory_mb")),
}


@dataclass(frozen=True)
class Journal:
    """``head`` is a journal's first line, ``lines`` what was noted, ``end`` its last, empty without an end."""

    head: dict[str, Any]
    lines: list[dict[str, Any]]
    end: dict[str, Any]

    def provenance(self) -> dict[str, Any]:
        """The provenance of what the notebook made: ``PROVENANCE``, as far as the journal has it."""
        known = self.head | self.end
        if "code_cells" in known:  # paths differ from machine to machine, what lies there does not
            inputs = sorted(set(self.read().values()))
            known["key"] = content_digest([[known[name] for name in EXECUTED_FROM], inputs])[:12]
        paths = (line["path"] for line in self.lines if line["action"] != "missed")
        found = (re.search(r"-seed(\d+)-[0-9a-f]+$", path) for path in paths)  # of run records
        known["seeds"] = sorted({int(match[1]) for match in found if match})
        return {name: known.get(name, default) for name, default in PROVENANCE.items()}

    def written(self, folder: Path) -> dict[Path, str]:
        """List what was written under ``folder``: path -> digest."""
        found = {Path(line["path"]): line["sha256"] for line in self.lines if line["action"] == "wrote"}
        return {path: digest for path, digest in found.items() if path.is_relative_to(folder.resolve())}

    def read(self) -> dict[Path, str]:
        """What was read or looked for, except what the notebook wrote: path -> digest, empty where nothing was."""
        own = {line["path"] for line in self.lines if line["action"] == "wrote"}
        read = (line for line in self.lines if line["action"] in ("read", "missed") and line["path"] not in own)
        return {Path(line["path"]): line.get("sha256", "") for line in read}


def journal_head(notebook: str, code: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> str:
    """The first line of a journal: the notebook, the version of the code, what it is known to depend on."""
    return json.dumps({"notebook": notebook} | dict(code) | dict(known or {}), default=str) + "\n"


def end_journal(path: Path, seconds: float, usage: Mapping[str, Any] | None = None) -> None:
    """Note that the notebook ran to its end, in ``seconds``, and what its kernel ran on and used."""
    line = {"time": datetime.now(UTC).isoformat(), "action": "ended", "seconds": round(seconds, 1)}
    with open(path, "a", encoding="utf-8") as out:
        out.write(json.dumps(line | dict(usage or {})) + "\n")


def read_journal(path: Path) -> Journal | None:
    """Read the journal at ``path``; None where there is none. Raises StudyError when it is broken."""
    try:
        head, *lines = (dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
        if head.keys() & {"time", "action"}:
            raise ValueError("its first line is lost")
        end = lines.pop() if lines and lines[-1]["action"] == "ended" else {}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: no journal ({error}); delete it, and its notebook is executed again") from error
    return Journal(head, lines, end)
