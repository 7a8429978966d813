"""Parts of models by the names that commands give, checked without loading PyTorch or running a class's file."""

import ast
from pathlib import Path
from typing import Any

from refstudy.base.config import PARTS, PartConfig
from refstudy.base.errors import StudyError
from refstudy.models.own_parts import is_own, register, source_of
from refstudy.study.file import PAPERS_SWIN_T

PROFILES = {"scenes": "scenes", "papers": PAPERS_SWIN_T}  # of examined parts -> the profile that has them
ARGUMENTS = {"fusion": 3, "decoder": 4}  # that ``forward`` takes


def named_part(
    name: str, kind: str = "", options: dict[str, Any] | None = None, size: str = "scenes"
) -> tuple[PartConfig, str]:
    """A part of the package, or a class ``file.py:Class`` or ``module:Class`` (a path starts here), and its kind; of a
    class the kind that is given.

    Raises StudyError for an unknown name, kind or size, and for a file or class that is not there.
    """
    if size not in PROFILES:
        raise StudyError(f"size '{size}' is unknown; known: {', '.join(PROFILES)}")
    kind = {"model": "whole"}.get(kind, kind)
    if kind and kind not in PARTS:
        raise StudyError(f"kind '{kind}' is unknown; known: fusion, decoder, model")
    if is_own(name):
        return PartConfig(name=name, options=options or {}, source=register(name, Path.cwd())), kind
    for found, names in PARTS.items():
        if name in names:
            return PartConfig(name=name, options=options or {}), found
    known = ", ".join(name for names in PARTS.values() for name in names)
    raise StudyError(f"no part '{name}'; known: {known}; a class of your own is named film.py:FiLM")


def needed_arguments(part: PartConfig) -> int:
    """The number of arguments that ``forward`` of a class needs; 0 without a forward of its own."""
    tree, own = ast.parse(source_of(part.name, part.source).read_bytes()), part.name.rpartition(":")[2]
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == own)
    forwards = (one.args for one in ast.walk(found) if isinstance(one, ast.FunctionDef) and one.name == "forward")
    return next((len(args.args) - 1 - len(args.defaults) for args in forwards), 0)
