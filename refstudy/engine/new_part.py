"""A new module of your own: its file, a test and a study file, which work at once."""

import keyword
import os
import re
import sys
from pathlib import Path
from string import Template

from refstudy.base.errors import StudyError
from refstudy.base.files import read_text, write_text
from refstudy.study.load import load_study

TEMPLATES = Path(__file__).parent / "templates"
OTHER_PART = {"fusion": ("decoder", "FPN", "fpn"), "decoder": ("fusion", "Tile & Concat", "tile_concat")}


def write_new(kind: str, name: str, folder: Path, study: str) -> tuple[list[Path], str]:
    """Write the three files for a "fusion" or "decoder" of this name; return them, and the class as commands name it.

    A name in small letters, as film, makes film.py with class Film; capitals, as in FiLM, stay in the class's name.
    Raises StudyError for another kind, a name that is no name of Python, that the study has already or that hides a
    module, and files that exist: then none is written.
    """
    if kind not in OTHER_PART:
        raise StudyError(f"no kind '{kind}' can be made new; known: {', '.join(OTHER_PART)}")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise StudyError(f"'{name}' is no name for a class; take letters, digits and _, a letter first")
    file, own = name.lower(), name if name != name.lower() else "".join(part.title() for part in name.split("_"))
    if keyword.iskeyword(file) or keyword.iskeyword(own) or file in {*sys.stdlib_module_names, "refstudy", "torch"}:
        raise StudyError(f"'{name}' is a word of Python, or a module that {file}.py would hide; take another name")
    base = load_study(study)
    if file in base.variants:
        raise StudyError(f"'{name}': {base.path} has a variant '{file}'; take another name")
    other, label, part = OTHER_PART[kind]
    labels = {kind: own, other: label}
    parts = {kind: f'{{name: "{file}.py:{own}"}}', other: f"{{name: {part}}}"}
    texts = {"file": file, "class": own, "variant": file, "label": f"{labels['fusion']} + {labels['decoder']}", **parts}
    texts["extends"] = Path(os.path.relpath(base.path, folder.resolve())).as_posix()
    made = {f"{file}.py": f"new_{kind}.py.txt", f"test_{file}.py": "new_test.py.txt"}
    made[f"{file}.yaml"] = "new_study.yaml.txt"
    if there := [path for path in made if (folder / path).exists()]:
        raise StudyError(f"{folder / there[0]}: exists; nothing was written; take another name, or move it away")
    for path, template in made.items():
        write_text(folder / path, Template(read_text(TEMPLATES / template)).substitute(texts))
    return [folder / path for path in made], f"{file}.py:{own}"
