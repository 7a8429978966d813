"""Draw docs/architecture.svg: the rooms of the package from the top down, and which imports which."""

import ast
from collections import Counter
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, PICTURE = ROOT / "refstudy", ROOT / "docs" / "architecture.svg"
ROOMS = {  # from the top down, with what a reader looks for there
    "cli": "the command line",
    "engine": "notebooks, trainings, report",
    "analysis": "tables, claims, statistics, figures",
    "prediction": "masks for pictures",
    "training": "the loop, evaluation, run records",
    "study": "the study file",
    "models": "S²RM, CASG, SLViT, LAVT, ...",
    "data": "RefScenes and real data, batches",
    "papers": "printed tables, claims",
    "metrics": "oIoU, mIoU, P@X",
    "base": "settings, files, errors",
}


def edges() -> Counter[tuple[str, str]]:
    """How many files of a room import something of another room."""
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        rooms = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("refstudy"):
                rooms |= {f"{node.module}.{alias.name}".split(".")[1] for alias in node.names}
        found.update((own, room) for room in sorted(rooms) if own in ROOMS and room in ROOMS and room != own)
    return found


def description() -> str:
    """The edges as text, which the picture carries along: a test compares it with the code."""
    return "; ".join(f"{one} -> {other}: {count}" for (one, other), count in sorted(edges().items()))


def draw() -> None:
    """Draw a square for each pair of rooms: how many files of the row's room import from the column's room."""
    mpl.rcParams.update({"svg.hashsalt": "refstudy", "font.size": 9})
    figure, axes = plt.subplots(figsize=(9.6, 5.0))
    places = {room: place for place, room in enumerate(ROOMS)}
    for (one, other), count in edges().items():
        row, column = places[one], places[other]
        shade = 0.25 + 0.75 * min(count, 12) / 12
        axes.add_patch(Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, facecolor="#0072B2", alpha=shade))
        axes.text(column, row, str(count), ha="center", va="center", color="white" if shade > 0.45 else "black")
    for room, place in places.items():
        axes.add_patch(Rectangle((place - 0.45, place - 0.45), 0.9, 0.9, facecolor="#DDDDDD"))
        axes.text(-7.6, place, room, va="center", weight="bold")
        axes.text(-5.2, place, ROOMS[room], va="center", fontsize=8)
    axes.set_xticks(list(places.values()), list(places), rotation=45, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(yticks=[], xlim=(-7.7, len(ROOMS) - 0.4), ylim=(len(ROOMS) - 0.4, -0.6), aspect="equal")
    axes.text(-7.6, -0.9, "room, which imports from ...", fontsize=8, style="italic")
    figure.savefig(PICTURE, bbox_inches="tight", metadata={"Date": None, "Description": description()})


if __name__ == "__main__":
    draw()
