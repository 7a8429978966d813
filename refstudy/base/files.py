"""Writing files so that an earlier result stays whole until the new one is complete; notes for the journal."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from refstudy.base.errors import StudyError

JOURNAL = "REFSTUDY_JOURNAL"  # the environment variable that names the journal of the notebook being executed
JOURNAL_SUFFIX = ".journal.jsonl"  # of the journal next to an executed notebook


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path next to ``path``, with its suffix, by which writers choose a format; rename it over
    ``path`` when the block ends well, remove it otherwise. The parent folder is made when missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
        note("wrote", path)
    except OSError as error:
        _name(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """Give a new folder next to ``folder``; put it in its place when the block ends well, remove it otherwise.

    An earlier folder is renamed aside, removed last, and renamed back where the new one cannot take its place.
    """
    folder = Path(folder)
    new, old = _beside(folder), _beside(folder)
    try:
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        _name(error, folder)
        raise
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for rest in (new, old):
            shutil.rmtree(rest, ignore_errors=True)


def write_text(path: Path | str, text: str, encoding: str = "utf-8") -> None:
    """Write a text file whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding=encoding)


def _name(error: OSError, path: Path) -> None:
    """Let an error of the system that names no file, as that of a full disk, name this one."""
    if error.errno and not error.filename:
        error.filename = str(path)


def _beside(path: Path) -> Path:
    """A hidden name next to ``path``, with its suffix, that no other process uses, on any machine."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}")


def exists(path: Path | str) -> bool:
    """Tell if something is there; if not, note it, so that the notebook is executed again when it has come."""
    if Path(path).exists():
        return True
    note("missed", path)
    return False


def note(action: Literal["read", "missed", "wrote"], path: Path | str) -> None:
    """Add a line to the journal of the notebook being executed, if there is one: {time, action, path, sha256}, with the
    digest of what lies there; see ``refstudy.engine.journal``."""
    if journal := os.environ.get(JOURNAL):
        path = Path(path).resolve()
        line = {"time": datetime.now(UTC).isoformat(), "action": action, "path": str(path)}
        with open(journal, "a", encoding="utf-8") as out:
            out.write(json.dumps(line | {"sha256": path_digest(path)}) + "\n")


def read_text(path: Path) -> str:
    """The text of a file that somebody wrote, with or without a byte-order mark. Raises StudyError for one that is not
    UTF-8 or is empty."""
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise StudyError(f"{path}: is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = "save it as UTF-8, or unpack it if it is compressed"
        raise StudyError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); {remedy}") from error
    if not text or text.isspace():
        raise StudyError(f"{path}: is empty; write it, or fetch it again")
    return text


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the visible files directly in a folder (a run record, the
    annotations of a data set); empty if nothing is there."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        return content_digest([[file.name, file_digest(file)] for file in files])
    return file_digest(path) if path.exists() else ""


def content_digest(content: Any) -> str:
    """SHA-256 of plain data; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
