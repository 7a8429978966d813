"""Read a study file and the file that it extends; report every mistake with its line."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from refstudy.base.config import PARTS, Settings
from refstudy.base.errors import StudyError
from refstudy.base.yaml_files import read_yaml, said
from refstudy.models.own_parts import is_own, register
from refstudy.study import FILE_NAME
from refstudy.study.check import Problem, mistakes
from refstudy.study.file import EARLIER_KEYS, Profile, Run, Study, StudyFile, Variant


def find_study(name: str | Path = FILE_NAME) -> Path:
    """The study file: ``name`` itself, or the nearest of that name here, above, or in this package's repository."""
    for folder in (Path(), *Path.cwd().resolve().parents, Path(__file__).resolve().parents[2]):
        path = folder / name
        if path.is_file():
            return path.resolve()
    raise StudyError(f"{name}: study file not found here or above; run from the repository or name the file")


def load_study(name: str | Path = FILE_NAME) -> Study:
    """Read and check a study file. Raises one StudyError that lists every mistake, each with its line number.

    A file with the key ``extends`` adds its variants, profiles and runs to those of the study file that it names. With
    the key ``home`` besides, it names the folder under which its runs are trained and recorded.
    """
    path = find_study(name)
    file = read_yaml(path)
    problems: list[Problem] = []
    root, home, raw = _extended(path, file.content, problems)
    try:
        content = StudyFile.model_validate(raw)
    except ValidationError as error:
        problems += [(e["loc"], _said(e["loc"], e["msg"])) for e in error.errors()]
        content = _sound_part(raw)
    problems += _find_own_parts(content, path.parent)
    study = Study(path, content, root, home)
    problems += mistakes(study)
    found = file.mistakes + [(file.line(where), problem) for where, problem in problems]
    if found:
        raise file.error(found)
    return study


def _extended(path: Path, raw: Any, problems: list[Problem]) -> tuple[Path, Path | None, Any]:
    """The root, the home and the content of a study file, joined with the file that it extends; mistakes are added to
    ``problems``. Raises StudyError for mistakes in the file that is extended."""
    if not isinstance(raw, dict) or "extends" not in raw:
        return path.parent, None, raw
    own = {key: part for key, part in raw.items() if key not in ("extends", "home")}
    home = (path.parent / str(raw["home"])).resolve() if "home" in raw else None
    base = path.parent / str(raw["extends"])
    content = read_yaml(base).content if base.is_file() else None
    if not isinstance(content, dict) or "extends" in content:
        problem = "extends itself another; name that one" if content else "is no study file; give its path from here"
        problems.append((("extends",), f"extends: {base} {problem}"))
        return path.parent, home, own
    root = load_study(base).root
    for section in content:
        added = own.get(section) or {}  # a section that is left empty adds nothing
        if isinstance(added, dict):
            problems += [
                ((section, name), f"{section}: '{name}' stands in {base.name} too; choose another name")
                for name in added.keys() & content[section].keys()
            ]
            own[section] = content[section] | added
    return root, home, own


def _find_own_parts(content: StudyFile, folder: Path) -> list[Problem]:
    """Give the variants' own classes the digest of their source; return mistakes."""
    found: list[Problem] = []
    for name, variant in content.variants.items():
        for kind in PARTS:
            part, where = getattr(variant, kind, None), ("variants", name, kind)
            if part is not None and part.source:
                found.append((where, f"variant '{name}': 'source' is found by itself; leave it out"))
            elif part is not None and is_own(part.name):
                try:
                    own = part.model_copy(update={"source": register(part.name, folder)})
                    variant = content.variants[name] = variant.model_copy(update={kind: own})
                except StudyError as error:
                    found.append((where, f"variant '{name}': {kind} {error}"))
    return found


def _said(where: tuple, message: str) -> str:
    """The mistake at a place of the file; for a key of an earlier study file, what to do about it."""
    known = EARLIER_KEYS.get(where[2], message) if len(where) == 3 and where[0] == "runs" else message
    return said(where, known)


def _sound_part(raw: Any) -> StudyFile:
    """Read the valid part of a file with mistakes, so that it can be checked too."""
    sections = {}
    for section, kind in (("variants", Variant), ("profiles", Profile), ("runs", Run)):
        entries = raw.get(section) if isinstance(raw, dict) else None
        entries = entries if isinstance(entries, dict) else {}
        sections[section] = {str(name): _sound_fields(kind, entry) for name, entry in entries.items()}
    return StudyFile.model_construct(**sections)  # type: ignore[arg-type]


def _sound_fields(kind: type[Settings], entry: Any) -> Settings:
    fields = {}
    for name, field in kind.model_fields.items():
        if isinstance(entry, dict) and name in entry:
            annotation: Any = field.annotation
            with suppress(ValidationError):
                fields[name] = TypeAdapter(annotation).validate_python(entry[name])
    return kind.model_construct(**fields)
