"""Classes of your own, named in a study file as ``module:Class`` or ``file.py:Class``: where their source is.

Their code runs only in a process that has read a study file which names them; loading weights alone runs no code.
"""

import ast
import importlib.util
import traceback
from collections.abc import Iterable
from pathlib import Path

from refstudy.base.errors import StudyError
from refstudy.base.files import path_digest

_files: dict[tuple[str, str], Path] = {}  # name and SHA-256 of the source, as study files gave them -> the source


def is_own(name: str) -> bool:
    """Tell a class of your own from a part of the package."""
    return ":" in name


def register(name: str, folder: Path) -> str:
    """Find the class ``name``, let ``source_of`` return its file, and return the SHA-256 of that file.

    A path starts at ``folder``, that of the study file. The digest is of this file alone, not of what it imports. The
    file does not run; for ``package.module:Class`` the package is imported, since it says where its modules are.

    Raises StudyError when there is no such file or module, or no such class in it.
    """
    place, _, class_name = name.rpartition(":")
    path = folder / place if place.endswith(".py") else _module_file(place)
    if path is None or not path.is_file():
        raise StudyError(f"'{name}': no file {path}" if path else f"'{name}': no module '{place}' can be imported")
    try:
        classes = [node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError) as error:
        raise StudyError(f"'{name}': {path} is not Python ({error}); correct it") from error
    if class_name not in classes:
        raise StudyError(f"'{name}': {path} has no class '{class_name}'; it has {', '.join(classes) or 'none'}")
    digest = path_digest(path)
    _files[name, digest] = path
    return digest


def source_of(name: str, digest: str) -> Path:
    """The file of a class that a study file named. Raises StudyError when none did, or the file was edited since."""
    path = _files.get((name, digest))
    if path is None:
        about = f"'{name}' is a class of your own, and no study file that was read names it with this source"
        remedy = "give that study file by --study, or load_study, and leave the source as it was in training"
        raise StudyError(f"{about}; {remedy}")
    if not path.is_file() or path_digest(path) != digest:
        raise StudyError(f"'{name}': {path} was edited after the study file was read; start again")
    return path


def place_of(error: BaseException, path: Path) -> str:
    """``file.py:12``, the last line of a file among those that an error came through; the file where it is none."""
    found = last_line(error, [path])
    return f"{path}:{found[1]}" if found else str(path)


def last_line(error: BaseException, paths: Iterable[Path]) -> tuple[Path, int] | None:
    """The last line in some files among those that an error, or what caused it, came through: file and number."""
    known, found = {path.resolve(): path for path in paths}, None
    cause: BaseException | None = error
    while cause is not None:
        for frame in traceback.extract_tb(cause.__traceback__):
            if path := known.get(Path(frame.filename).resolve()):
                found = (path, frame.lineno or 0)
        cause = cause.__cause__
    return found


def _module_file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # any error of that package
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
