"""The style of every figure, and the drawings that several notebooks share: pictures, maps, masks.

``save`` is in ``refstudy.analysis.figure_files``; charts are in ``plots``, grids of masks in ``mask_grids``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from refstudy.analysis.figure_files import OUTLINE
from refstudy.analysis.figure_files import save as save
from refstudy.models.fusion.s2rm import coparse_indices
from refstudy.models.gates import NEAR
from refstudy.prediction.overlay import dimmed
from refstudy.study.file import ProfileStudy

# Okabe and Ito's colours, told apart by colour-blind readers too.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "black": "#000000",
}
GREY = "#8C8C8C"
GATE_KINDS = {  # in a gate's name -> which it is
    "balance": "S²RM: weights of the groups, Eq. (9)",
    "channel_gate": "CASG: channel attention C$_i$",
    "spatial_gate": "CASG: spatial attention S$_i$",
    "weigh": "language gates",
}


def use_style() -> None:
    """Set the study's style (``style.mplstyle``) for all figures that follow."""
    sns.set_theme(style="ticks", palette=list(PALETTE.values()))
    plt.style.use(Path(__file__).with_name("style.mplstyle"))


def show(study: ProfileStudy, figure: Figure, name: str = "") -> None:
    """Show a figure below the cell and, if it has a name, save it among the figures of the results."""
    if name:
        save(figure, study.folder / "figures", name)
    plt.show()


def line_style(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line of a plot: colours that are dark enough on white, solid first, then dashed."""
    colours = [PALETTE[name] for name in ("blue", "vermilion", "green", "black", "purple")]
    return {"color": colours[k % len(colours)], "linestyle": ("-", "--", ":", "-.")[k // len(colours) % 4]}


def readable_on(colour: Any) -> str:
    """Black or white, which has the higher contrast on a colour (WCAG 2.2, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return "black" if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.179 else "white"


def show_image(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """A picture without ticks, its title broken into lines that fit."""
    axes.imshow(image, interpolation="nearest")
    axes.set_title(fill(title, 26))
    axes.set_axis_off()


def show_map(
    axes: Axes,
    values: np.ndarray | Tensor,
    title: str = "",
    cmap: str | Colormap = "viridis",
    low: float | None = None,
    high: float | None = None,
    bar: bool = True,
) -> AxesImage:
    """A map (H, W) of numbers, cell by cell, from ``low`` to ``high``, by default its own extremes; without ticks, and
    with a colour bar next to it unless ``bar`` is False."""
    drawn = axes.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title)
    axes.set_axis_off()
    if bar:
        axes.figure.colorbar(drawn, ax=axes, shrink=0.6)
    return drawn


def number_grid(axes: Axes, values: np.ndarray, form: str = "{:.0%}", high: float = 1.0) -> AxesImage:
    """Numbers (R, C) from 0 to ``high``, each written into a field of its colour."""
    drawn = axes.imshow(values, cmap="cividis", vmin=0, vmax=high, aspect="auto")
    for (a, b), number in np.ndenumerate(values):
        colour = readable_on(drawn.to_rgba(number))
        axes.text(b, a, form.format(number), ha="center", va="center", fontsize=8, color=colour)
    return drawn


def regions(axes: Axes, image: np.ndarray, cells: Sequence[int], grid: Sequence[int], title: str = "") -> None:
    """A picture uint8 (H, W, 3) with some ``cells``, flat indices into a ``grid`` (rows, columns) laid over it, framed
    and numbered from 1 in their order; not numbered if they are all, since numbers would hide the picture."""
    show_image(axes, image, title)
    label = {"facecolor": "white", "edgecolor": PALETTE["vermilion"], "pad": 1.5}
    middles = frames(axes, cells, grid, image.shape[:2])
    for number, middle in enumerate(middles if len(cells) < grid[0] * grid[1] else [], start=1):
        axes.text(*middle, str(number), ha="center", va="center", fontsize=8, bbox=label)


def frames(axes: Axes, cells: Sequence[int], grid: Sequence[int], size: Sequence[int]) -> list[tuple[float, float]]:
    """Frame ``cells``, flat indices into a ``grid`` (rows, columns), over what has ``size`` (height, width) pixels; the
    middles (x, y) of the frames."""
    high, wide = size[0] / grid[0], size[1] / grid[1]
    corners = [(cell % grid[1] * wide - 0.5, cell // grid[1] * high - 0.5) for cell in map(int, cells)]
    for corner in corners:
        axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=PALETTE["vermilion"], linewidth=2))
    return [(x + wide / 2, y + high / 2) for x, y in corners]


def overlay(axes: Axes, image: np.ndarray, mask: np.ndarray, colour: str = "vermilion", title: str = "") -> None:
    """A picture uint8 (H, W, 3) with a bool mask (H, W): the rest is dimmed, the mask outlined in a palette colour."""
    show_image(axes, dimmed(image, mask), title)
    outline(axes, mask, colour)


def outline(axes: Axes, mask: np.ndarray, colour: str = "vermilion", dashed: bool = False) -> None:
    """The outline of a bool mask (H, W) in a palette colour."""
    if mask.any() and not mask.all():
        style: dict[str, Any] = {"linestyles": "--" if dashed else "-", "linewidths": 1.6}
        axes.contour(mask.astype(float), levels=[0.5], colors=[PALETTE[colour]], **style).set_gid(OUTLINE)


def gate_ranges(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """The ranges of gates at every validation (``Record.gates``), a panel for each run and kind: a mark at the mean and
    a line from the lowest to the highest weight, a colour and mark a gate. Weights in the grey zones are saturated."""
    panels = [
        (label, kind, some)
        for label, gates in runs.items()
        for part, kind in GATE_KINDS.items()
        if len(some := gates[gates["gate"].str.contains(part)])
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.3 * len(panels), 3.1), squeeze=False)
    for axis, (label, kind, gates) in zip(axes[0], panels, strict=True):
        names, updates = gates["gate"].unique(), gates["update"].unique()
        apart = (updates[-1] - updates[0] or 1) / len(updates) / (len(names) + 2)  # so that no line hides another
        ends = (0, 1) if gates["low"].min() >= 0 else (-1, 1)  # of a sigmoid or of tanh
        for end, inward in zip(ends, (NEAR, -NEAR), strict=True):
            axis.axhspan(end, end + inward, color=GREY, alpha=0.3, linewidth=0)
        for k, name in enumerate(names):
            gate = gates[gates["gate"] == name]
            x = gate["update"] + (k - (len(names) - 1) / 2) * apart
            style, colour = {"marker": "osD^v"[k % 5], "markersize": 4, "linestyle": ""}, line_style(k)["color"]
            number = re.search(r"\.(\d)\.", name)
            of = name.split(": ")[1] if ": " in name else f"stage {int(number[1]) + 1}" if number else name
            axis.vlines(x, gate["low"], gate["high"], color=colour, linewidth=1.2)
            axis.plot(x, gate["mean"], color=colour, label=of, **style)
        axis.set(title=f"{label}\n{kind}", xlabel="update", ylim=ends, xticks=updates[:: -(-len(updates) // 5)])
        axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    axes[0, 0].set_ylabel("weight: lowest, mean, highest")
    return figure


def word_attention(
    image: np.ndarray, expression: str, words: Sequence[str], attention: np.ndarray, truth: np.ndarray | None = None
) -> Figure:
    """The picture uint8 (S, S, 3) with the grid of cells and, where there is one, the outline of the true mask (S, S);
    then for each word piece how much each cell takes from it: attention (L, H, W)."""
    figure, axes = grid(1, len(words) + 1, cell=1.45)
    show_image(axes[0, 0], image, f"“{expression}”")
    lines = (axes[0, 0].axhline, axes[0, 0].axvline)
    for line, side, cells in zip(lines, image.shape, attention.shape[1:], strict=False):
        for place in np.linspace(0, side, cells + 1)[1:-1] - 0.5:
            line(place, color="white", linewidth=0.6)
    if truth is not None:
        outline(axes[0, 0], truth)
    for axis, word, weight in zip(axes[0, 1:], words, attention, strict=True):
        shown = show_map(axis, weight, word, low=0, high=attention.max(), bar=False)
    figure.colorbar(shown, ax=axes[0, 1:], shrink=0.6, label="attention", ticks=[0, attention.max()], format="{x:.2f}")
    return figure


def coparsed_cell(
    axes: Sequence[Axes], image: np.ndarray, column: np.ndarray, row: np.ndarray, cell: tuple[int, int]
) -> None:
    """On three axes: the picture with one cell (i, j) framed, its column map and its row map (both (H*W, H, W)), each
    entry with the number of the cell that it comes from. The scale is that of all cells' maps, so that a map of one
    colour has entries that hardly differ; titles have each map's own extremes."""
    (i, j), (height, width) = cell, column.shape[1:]
    show_image(axes[0], image, f"cell ({i}, {j}) asks")
    down, right = image.shape[0] / height, image.shape[1] / width
    corner = (j * right, i * down)
    axes[0].add_patch(Rectangle(corner, right, down, fill=False, edgecolor=PALETTE["vermilion"], linewidth=2.5))
    column_from, row_from = coparse_indices(height, width, True, torch.device("cpu"))
    for axis, values, sources, shape, labels in (
        (axes[1], column, column_from, (height, width), ("roll h", "column w", "column map")),
        (axes[2], row, row_from, (width, height), ("roll w", "row k", "row map")),
    ):
        entries = values[:, i, j].reshape(shape)
        drawn = axis.imshow(entries, cmap="cividis", vmin=column.min(), vmax=column.max())
        for (a, b), number in np.ndenumerate(sources[i * width + j].reshape(shape).numpy()):
            colour = readable_on(drawn.to_rgba(entries[a, b]))
            axis.text(b, a, f"{number}", ha="center", va="center", fontsize=7, color=colour)
        axis.set(ylabel=labels[0], xlabel=labels[1], xticks=range(shape[1]), yticks=range(shape[0]))
        axis.set_title(f"{labels[2]}\n{entries.min():.3f} to {entries.max():.3f}")
        axes[0].figure.colorbar(drawn, ax=axis, shrink=0.7)


def grid(rows: int, columns: int, cell: float = 1.9) -> tuple[Figure, np.ndarray]:
    """A figure of ``rows`` x ``columns`` pictures, each about ``cell`` inches; the axes as a 2-d array."""
    return plt.subplots(rows, columns, figsize=(cell * columns, cell * 1.18 * rows), squeeze=False)
