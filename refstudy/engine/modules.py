"""Find the modules of refstudy that some code uses, followed from import to import, and their digests.

They are read from the sources, not from a kernel: an import inside a function counts whether or not it was reached, and
a module that is edited while a notebook runs never passes for the one that the notebook loaded.
"""

import ast
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

from refstudy.base.files import content_digest, path_digest

PACKAGE = Path(__file__).parents[1]


class Modules:
    """The modules of the package, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, set[str]]] = {}  # module -> SHA-256 and what it imports

    def used_by(self, trees: Iterable[ast.Module]) -> dict[str, str]:
        """Module -> SHA-256, for all that these sources import, directly or not."""
        used: dict[str, str] = {}
        waiting = {name for tree in trees for name in _imported(tree, "")}
        while waiting:
            module = waiting.pop()
            used[module], imported = self._read(module)
            waiting |= imported - used.keys()
        return dict(sorted(used.items()))

    def _read(self, module: str) -> tuple[str, set[str]]:
        if module not in self._known:
            path = _file(module)
            assert path is not None
            package, digest = module if path.name == "__init__.py" else module.rpartition(".")[0], path_digest(path)
            # the package itself loads nothing before ``refstudy.open`` is called, which ``_imported`` finds
            own = _imported(ast.parse(path.read_bytes()), package) if module != PACKAGE.name else ()
            if package == module:  # with the data that it holds, such as the printed tables
                data = sorted(p for p in path.parent.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc"))
                digest = content_digest([digest, *map(path_digest, data)])
            self._known[module] = digest, set(own)
        return self._known[module]


def _file(module: str) -> Path | None:
    """The file of a module of the package; None when there is no such module."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    files = (path / "__init__.py", path.with_suffix(".py")) if path.is_relative_to(PACKAGE) else ()
    return next((file for file in files if file.is_file()), None)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """The modules of the package that this source imports; ``package`` is the one that relative imports start from."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "refstudy.open":
            names = ["refstudy.analysis.opened"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            whole = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
            yield from (module for module in whole if _file(module))
