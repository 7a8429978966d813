"""YAML files that people write: read safely, with the line of every mistake."""

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from refstudy.base.errors import StudyError
from refstudy.base.files import read_text

Location = tuple[Any, ...]  # keys and numbers of list items that lead to an entry
Model = TypeVar("Model", bound=BaseModel)


class YamlFile(NamedTuple):
    """A file that was read: content, tree of nodes (which know their lines), mistakes of form with their lines."""

    path: Path
    content: Any
    tree: yaml.Node | None
    mistakes: list[tuple[int, str]]

    def line(self, location: Location) -> int:
        """Return the line, from 1, of the deepest part of ``location`` that the file has."""
        node, line = self.tree, self.tree.start_mark.line if self.tree else 0
        for part in location:
            if isinstance(node, yaml.MappingNode):
                entries = {key.value: (key, value) for key, value in node.value}
                if str(part) not in entries:
                    break
                key, node = entries[str(part)]
                line = key.start_mark.line
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line
            else:
                break
        return line + 1

    def error(self, mistakes: list[tuple[int, str]]) -> StudyError:
        """Make the error that lists mistakes in the order of their lines, each with file and line number."""
        return StudyError("\n".join(f"{self.path}:{line}: {mistake}" for line, mistake in sorted(mistakes)))

    def checked(self, kind: type[Model]) -> Model:
        """Return the content as a model. Raises one StudyError that lists every mistake."""
        mistakes = list(self.mistakes)
        try:
            content = kind.model_validate(self.content)
        except ValidationError as error:
            mistakes += [(self.line(e["loc"]), said(e["loc"], e["msg"])) for e in error.errors()]
        if mistakes:
            raise self.error(mistakes)
        return content


def said(location: Location, message: str) -> str:
    """Say where pydantic found a mistake, and which."""
    return f"{'.'.join(map(str, location))}: {message}"


def read_yaml(path: Path) -> YamlFile:
    """Read a YAML file. Raises StudyError for one that is empty, not UTF-8 or not YAML."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(read_text(path))
        tree = loader.get_single_node()
        repeated = _repeated_keys(tree)  # before the document is made, which writes merged keys into the tree
        return YamlFile(path, loader.construct_document(tree) if tree else None, tree, repeated)
    except yaml.YAMLError as error:
        raise StudyError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def _repeated_keys(tree: yaml.Node | None) -> list[tuple[int, str]]:
    """Find keys that stand twice in one mapping (YAML would silently keep the last): (line, mistake)."""
    found: list[tuple[int, str]] = []
    waiting, seen = [tree], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    line = key.start_mark.line + 1
                    if key.value in lines:
                        found.append((line, f"key '{key.value}' is already given in line {lines[key.value]}"))
                    lines.setdefault(key.value, line)
    return found
