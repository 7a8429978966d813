"""Locks between processes; the system frees them when their process ends in any way."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from refstudy.base.errors import Busy, StudyError


@contextmanager
def locked(path: Path, failure: str, wait: bool = True) -> Iterator[None]:
    """Keep other processes from making ``path`` at once; files next to it, ``.NAME.lock`` and ``.NAME.holder``, say so.

    Raises StudyError, which begins with ``failure``, where nothing can be written and, as Busy, where it is not to
    ``wait`` and another process holds the lock: it says which, and since when.
    """
    lock, holder = (path.with_name(f".{path.name}.{suffix}") for suffix in ("lock", "holder"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        held.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        who = ""
        with suppress(OSError):  # it may be about to write this
            who = holder.read_text(encoding="utf-8")
        raise Busy(f"{failure} ({who or 'another process'}); wait for that, or end it") from error
    except OSError as error:
        raise StudyError(f"{failure} ({error.strerror}); allow to write there") from error
    try:
        since = datetime.now().strftime("%Y-%m-%d %H:%M")
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()
