"""Diagrams of boxes and arrows with the shapes of live tensors; ``diagrams.yaml`` says what stands where."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from refstudy.analysis.figures import PALETTE
from refstudy.base.yaml_files import read_yaml

FILE = Path(__file__).with_name("diagrams.yaml")
OVER = {"zorder": 5}  # a line over all others
BRIDGE = {"zorder": 4, "path_effects": [withStroke(linewidth=6, foreground="white")]}  # over an arrow that it crosses


def draw_diagram(name: str, **values: Any) -> Figure:
    """A diagram of ``diagrams.yaml``, its texts filled with ``values``: texts, numbers, or tensors for their shapes."""
    plan = read_yaml(FILE).content[name]
    texts = {key: shape_text(value) if isinstance(value, Tensor) else value for key, value in values.items()}
    figure, axes = diagram(*plan["size"])
    for part in plan["parts"]:
        text, colour, dashed = part.get("text", "").format(**texts), part.get("colour"), part.get("dashed", False)
        match part:
            case {"box": [x, y, *size]}:
                width, height = size or plan["box"]
                draw_box(axes, x, y, width, height, text, colour, dashed)
            case {"arrows": arrows}:
                for x, y, to_x, to_y in arrows:
                    draw_arrow(axes, (x, y), (to_x, to_y), dashed)
            case {"line": [x, y, to_x, to_y]}:
                look: dict[str, Any] = BRIDGE if "bridge" in part else OVER if "over" in part else {}
                axes.plot([x, to_x], [y, to_y], color="0.3", linewidth=1, **look)
            case {"times": [x, y]}:  # a multiplication
                axes.plot(x, y, "o", markersize=13, markerfacecolor="white", markeredgecolor="0.3")
                axes.text(x, y, "×", ha="center", va="center", fontsize=9)
            case {"note": [x, y]}:
                style: dict[str, Any] = {"color": {"grey": "0.3", **PALETTE}[colour]} if colour else {}
                axes.text(x, y, text, ha=part.get("align", "left"), fontsize=part["size"], **style)
    axes.set_ylim(plan.get("ylim", axes.get_ylim()))
    return figure


def shape_text(tensor: Tensor) -> str:
    """The shape of one example's tensor to read, e.g. "256 × 4 × 4"; the batch dimension is left out."""
    return " × ".join(map(str, tensor.shape[1:]))


def draw_box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, dashed: bool = False
) -> None:
    """A box of a diagram with its text, lower left corner at (x, y), tinted in a palette colour; dashed ones are
    white."""
    tint = PALETTE[colour]
    face, line = ("white", "--") if dashed else (f"{tint}30", "-")
    axes.add_patch(Rectangle((x, y), width, height, facecolor=face, edgecolor=tint, linestyle=line))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], dashed: bool = False) -> None:
    """An arrow of a diagram."""
    style = {"arrowstyle": "->", "color": "0.3", "shrinkA": 0, "shrinkB": 0, "linestyle": "--" if dashed else "-"}
    axes.annotate("", end, start, arrowprops=style)


def diagram(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty drawing of so many inches, both axes from 0 to 1."""
    figure, axes = plt.subplots(figsize=(width, height))
    axes.set(xlim=(-0.005, 1.005), ylim=(-0.01, 1.01))
    axes.set_axis_off()
    return figure, axes
