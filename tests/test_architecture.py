"""The rooms of the package: how many there are, and that imports point down only."""

import ast
import importlib.util
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "refstudy"
# From the top down: a room imports only from rooms that stand after it.
ROOMS = "cli engine analysis prediction training study models data papers metrics base".split()


def imported(path):
    """The modules of the package that a file imports, inside functions too: names below refstudy, with dots."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ("refstudy", *path.relative_to(PACKAGE).parts[: -node.level]) if node.level else ()
            names = [".".join(filter(None, (*package, node.module, alias.name))) for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("refstudy.") for name in names if name.startswith("refstudy."))


def test_the_root_holds_these_rooms_and_no_others():
    entries = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix in ("", ".py") and path.stem not in ("__init__", "__pycache__")
    }
    assert entries == set(ROOMS) and len(ROOMS) <= 11


def test_imports_point_down_only():
    upward = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own.startswith("_"):
            continue  # ``refstudy.open`` loads the room that it returns something of
        upward += [
            f"{path.relative_to(PACKAGE)} imports {name}"
            for name in imported(path)
            if (room := name.split(".")[0]) != own and ROOMS.index(room) < ROOMS.index(own)
        ]
    assert not upward


def test_no_module_imports_itself_through_others():
    modules = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    needs = {
        name: {part for one in imported(path) for part in (one, one.rpartition(".")[0]) if part in modules} - {name}
        for name, path in modules.items()
    }
    needs["__init__"] = set()
    for start in needs:
        seen, waiting = set(), set(needs[start])
        while waiting:
            seen |= waiting
            waiting = {further for name in waiting for further in needs[name]} - seen
        assert start not in seen, start


def test_every_room_says_what_lives_there_and_what_it_may_use():
    for room in PACKAGE.iterdir():
        if room.is_dir() and not room.name.startswith("_"):
            text = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or ""
            assert text and len(text.splitlines()) <= 12, room.name
            assert "It may use" in text, room.name


def test_the_picture_and_the_page_are_those_of_the_code():
    """After a change of imports: ``python tools/import_graph.py``."""
    spec = importlib.util.spec_from_file_location("import_graph", PACKAGE.parent / "tools" / "import_graph.py")
    graph = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(graph)
    assert list(graph.ROOMS) == ROOMS
    assert graph.description().replace(">", "&gt;") in graph.PICTURE.read_text("utf-8")
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w/]*(?:\.\w+)?)`", page)
    assert len(named) > 20 and all((PACKAGE / name).exists() for name in named if name != "data/")
