"""Fetching data from mirrors: resumed, verified, unpacked. The mirrors are in ``mirrors.yaml``."""

import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from refstudy.base.bar import bar
from refstudy.base.errors import StudyError
from refstudy.base.files import file_digest
from refstudy.base.locks import locked
from refstudy.base.yaml_files import read_yaml
from refstudy.data.zips import fault, filled, unpack

MIRRORS = Path(__file__).with_name("mirrors.yaml")
TRIES = 5  # of one mirror that breaks off, as long as each try adds bytes
TIMEOUT = 60  # seconds without an answer


class Mirror(BaseModel):
    """A file, where it can be had, and what is known about it; ``source`` says who states its size and SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    file: str
    unpack: str
    size: int | None
    sha256: str | None
    source: str | None
    urls: tuple[str, ...]


class _Failed(Exception):
    """A mirror did not give the file; the next one is tried."""


def load_mirrors() -> dict[str, Mirror]:
    """The files that can be fetched, by name."""
    return TypeAdapter(dict[str, Mirror]).validate_python(read_yaml(MIRRORS).content)


def fetch(mirror: Mirror, root: Path | str, progress: bool = True) -> str:
    """Fetch a file into ``root``, verify and unpack it; return a line that says what was done.

    What a broken connection left behind (``.part``) is taken up again; of several processes that fetch one file at
    once, one does and the others wait. Raises StudyError when no mirror gives the file, or ``root`` cannot be made.
    """
    root = Path(root)
    folder, archive = root / mirror.unpack, root / mirror.file
    if filled(folder):
        return f"{folder}: already there; refstudy data check {root} looks into it"
    with locked(archive, f"{root}: cannot hold data"):
        if not archive.exists():
            part = archive.with_name(f"{archive.name}.part")
            _from_mirrors(mirror, part, progress)
            os.replace(part, archive)
        elif reason := _wrong(mirror, archive):
            raise StudyError(f"{archive}: {reason}; remove it and fetch it again")
    verified = "SHA-256 as published"
    if not mirror.sha256:
        verified = f"unverified, {archive.stat().st_size} bytes, SHA-256 {file_digest(archive)}"
    return f"{unpack(archive, folder, progress)}: unpacked from {archive.name} ({verified})"


def _from_mirrors(mirror: Mirror, part: Path, progress: bool) -> None:
    """Leave the whole file at ``part``, from the first mirror that has it."""
    failures = []
    for url in mirror.urls:
        for _ in range(2):  # again from the first byte, where those that an earlier mirror left may be wrong
            resumed = part.exists()
            try:
                _complete(url, part, mirror.size, progress)
                if not (reason := _wrong(mirror, part)):
                    return
                part.unlink()
                raise _Failed(reason)
            except _Failed as error:
                if not resumed or part.exists():
                    failures.append(f"{url}: {error}")
                    break
        if not mirror.sha256:
            part.unlink(missing_ok=True)  # nothing would tell a file that two mirrors made together
    raise StudyError(f"{mirror.file}: no mirror gave it ({'; '.join(failures)}); fetch it by hand into {part.parent}")


def _wrong(mirror: Mirror, path: Path) -> str:
    """The reason why this is not the file; empty if it is."""
    size = path.stat().st_size
    if mirror.size and size != mirror.size:
        return f"has {size} bytes, not the published {mirror.size}"
    if mirror.sha256:
        return "" if file_digest(path) == mirror.sha256 else "has another SHA-256 than the published one"
    return fault(path)


def _complete(url: str, part: Path, size: int | None, progress: bool) -> None:
    """Go on with ``part`` until the server says that it is whole."""
    for _ in range(TRIES):
        before = part.stat().st_size if part.exists() else 0
        if _request(url, part, size, progress):
            return
        if part.stat().st_size <= before:
            break
    raise _Failed("the connection broke off")


def _request(url: str, part: Path, size: int | None, progress: bool) -> bool:
    """Append the bytes of one request, or start again if the server ignores ranges; return True when the file is
    whole."""
    start = part.stat().st_size if part.exists() else 0
    if size and start >= size:
        return True
    headers = {"User-Agent": "refstudy", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
            resumed = re.match(rf"bytes {start}-\d+/", answer.headers.get("Content-Range", ""))
            if answer.status == 206 and not resumed:
                raise _Failed("it answers with another range than was asked for")
            start = start if resumed else 0
            length = answer.headers.get("Content-Length")
            whole = start + int(length) if length else size
            if size and whole != size:
                raise _Failed(f"it has {whole} bytes, not the published {size}")
            if whole and (left := whole - start) > shutil.disk_usage(part.parent).free:
                raise StudyError(f"{part.parent}: no room for {left} bytes more; free some or give another folder")
            with (
                open(part, "ab" if resumed else "wb") as out,
                bar(total=whole, initial=start, unit="B", unit_scale=True, desc=part.stem, shown=progress) as done,
            ):
                while block := answer.read(2**20):
                    if whole and out.tell() + len(block) > whole:
                        raise _Failed("it sends more than it announced")
                    out.write(block)
                    done.update(len(block))
            return whole is None or part.stat().st_size == whole
    except urllib.error.HTTPError as error:
        if error.code == 416 and part.exists():
            part.unlink()  # longer than the file there: not its beginning
        raise _Failed(f"HTTP status {error.code}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if part.exists():
            return False
        raise _Failed(str(error)) from error
