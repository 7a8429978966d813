"""Unpacking archives that come from elsewhere: once, whole or not at all, and never outside their folder."""

import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from refstudy.base.bar import bar
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_folder
from refstudy.base.locks import locked

# An archive of annotations unpacks to about ten times its size; a bomb to a thousand times and more.
MOST_EXPANSION, ALWAYS_ALLOWED = 40, 64 * 2**20
JUNK = {"__MACOSX", ".DS_Store"}
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)  # what a broken archive raises


def filled(folder: Path) -> bool:
    """Tell if there is anything under this name, other than an empty folder."""
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def unpack(archive: Path, folder: Path, progress: bool = True) -> Path:
    """Unpack ``archive`` as ``folder``, unless that is filled; a top folder of that name in the archive is not doubled.

    Raises StudyError, and leaves nothing behind, for members that lead out of the folder, links, encrypted members,
    archives that unpack to far more than their size, and broken ones.
    """
    if filled(folder):  # where nothing may be written, either
        return folder
    with locked(folder, f"{archive}: cannot be unpacked to {folder}"):
        if filled(folder):
            return folder
        try:
            with zipfile.ZipFile(archive) as source, atomic_folder(folder) as temporary:
                members = _members(source, archive, folder.name)
                for member, name in bar(members, desc=f"unpacking {archive.name}", shown=progress):
                    target = temporary / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with source.open(member) as packed, open(target, "xb") as out:
                        shutil.copyfileobj(packed, out, 2**20)
        except FileExistsError as error:
            raise StudyError(f"{archive}: holds {error.filename} twice; refused, fetch it again") from error
        except OSError as error:
            raise StudyError(f"{archive}: cannot be unpacked to {folder} ({error})") from error
        except BROKEN as error:
            raise StudyError(f"{archive}: does not unpack ({error}); fetch it again") from error
    return folder


def member_names(archive: Path) -> list[str]:
    """The files in an archive, by name. Raises StudyError when it is none."""
    try:
        with zipfile.ZipFile(archive) as source:
            return source.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise StudyError(f"{archive}: no zip archive ({error}); fetch it again or remove it") from error


def fault(archive: Path) -> str:
    """The reason why this is no whole archive, empty if it is one; every member is read."""
    try:
        with zipfile.ZipFile(archive) as source:
            broken = source.testzip()
    except (OSError, RuntimeError, *BROKEN) as error:  # RuntimeError: a member is encrypted
        return f"is no whole zip archive ({error})"
    return f"is no whole zip archive (its member {broken!r} is broken)" if broken else ""


def _members(source: zipfile.ZipFile, archive: Path, top: str) -> list[tuple[zipfile.ZipInfo, Path]]:
    """The files to unpack with their names below the folder, all of them checked before the first is written."""
    files = []
    for member in source.infolist():
        name, windows = PurePosixPath(member.filename), PureWindowsPath(member.filename)
        if name.is_absolute() or windows.anchor or ".." in windows.parts:
            raise StudyError(f"{archive}: member {member.filename!r} leads out of its folder; refused, do not use it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise StudyError(f"{archive}: member {member.filename!r} is a link; refused, do not use it")
        if member.flag_bits & 1:
            raise StudyError(f"{archive}: member {member.filename!r} is encrypted; unpack it yourself")
        if not member.is_dir() and not JUNK & set(name.parts):
            files.append((member, name))
    if not files:
        raise StudyError(f"{archive}: holds no files; fetch it again")
    most = ALWAYS_ALLOWED + MOST_EXPANSION * archive.stat().st_size
    if sum(member.file_size for member, _ in files) > most:
        raise StudyError(f"{archive}: unpacks to more than {MOST_EXPANSION} times its size; refused, do not use it")
    nested = all(len(name.parts) > 1 and name.parts[0] == top for _, name in files)
    return [(member, Path(*name.parts[nested:])) for member, name in files]
