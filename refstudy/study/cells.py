"""The code cells of a notebook and the parameters that they declare, read without a kernel."""

import ast
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from refstudy.base.errors import StudyError


class CodeCell(NamedTuple):
    """A code cell: its text and its tags."""

    source: str
    tags: tuple[str, ...]

    def tree(self) -> ast.Module:
        """Parse the cell as Python, without the lines for IPython; empty when it is in another language."""
        try:
            return ast.parse(re.sub(r"^(\s*)[%!?].*$", r"\1pass", self.source, flags=re.MULTILINE))
        except SyntaxError:
            return ast.Module([], [])


def code_cells(notebook: Path) -> list[CodeCell]:
    """Read the code cells of a notebook, without outputs. Raises StudyError when it is missing or is no notebook.

    Only the structure is checked: nbformat's own validation takes longer than planning a whole study.
    """
    try:
        content = json.loads(notebook.read_bytes())
        if content["nbformat"] != 4:
            raise ValueError(f"its format is {content['nbformat']}, not 4")
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        return [CodeCell("".join(cell["source"]), tuple(cell["metadata"].get("tags", ()))) for cell in code]
    except FileNotFoundError as error:
        raise StudyError(f"{notebook}: notebook not found; correct the key 'notebook'") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StudyError(f"{notebook}: no Jupyter notebook ({reason}); restore it") from error


def declared_parameters(notebook: Path) -> dict[str, Any]:
    """Read names and defaults from a notebook's cell tagged ``parameters`` (None where the default is no literal).

    Raises StudyError when the notebook is missing, is no notebook, or has no such cell.
    """
    for cell in code_cells(notebook):
        if "parameters" in cell.tags:
            declared: dict[str, Any] = {}
            for statement in cell.tree().body:
                match statement:
                    case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                        declared[name] = None
                        with suppress(ValueError):
                            declared[name] = ast.literal_eval(value)
            return declared
    raise StudyError(f"{notebook}: has no cell tagged 'parameters'; add one")


def wrong_parameter(notebook: Path, declared: dict[str, Any], key: str, value: Any) -> str:
    """Say why parameter ``key`` of a notebook cannot be ``value``; empty when it can."""
    if key not in declared:
        return f"{notebook.name} declares no parameter '{key}'; it has {', '.join(declared)}"
    kind = type(declared[key])
    fits = type(value) is kind or (kind is float and type(value) is int) or (kind is tuple and type(value) is list)
    return "" if declared[key] is None or fits else f"parameter '{key}' must be {kind.__name__}, not {value!r}"
