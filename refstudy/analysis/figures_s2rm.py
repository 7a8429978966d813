"""The figures of the S²RM lesson (notebook 02): diagrams with the shapes of live tensors, shifts, maps, gates, mask."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from refstudy.analysis.figures import (
    PALETTE,
    coparsed_cell,
    diagram,
    draw_arrow,
    draw_box,
    grid,
    number_grid,
    overlay,
    shape_text,
    show_image,
    show_map,
)
from refstudy.metrics import overlap
from refstudy.models.decoders.casg import CASGStage
from refstudy.models.decoders.casg import Steps as StageSteps


def architecture(
    sentence: str,
    images: Tensor,
    maps: Sequence[Tensor],
    words: Tensor,
    fused: Tensor,
    refined: Sequence[Tensor],
    logits: Tensor,
) -> Figure:
    """The paper's Fig. 1: from images (1, 3, S, S) by V_1 ... V_4, words (1, L, D), F_4 and the stages' F_3, F_2, F_1
    to the logits (1, S, S)."""
    figure, axes = diagram(10.2, 4.4)
    wide, high = 0.135, 0.17
    columns = np.linspace(0, 1 - wide, 6)
    draw_box(axes, columns[0], 0.62, wide, high, f"image\n{shape_text(images)}", "black")
    for k, map_ in enumerate(maps, start=1):
        draw_box(axes, columns[k], 0.62, wide, high, f"V{'₁₂₃₄'[k - 1]}\n{shape_text(map_)}", "blue")
        draw_arrow(axes, (columns[k - 1] + wide, 0.705), (columns[k], 0.705))
    axes.text(columns[1], 0.83, "image encoder: Swin", color=PALETTE["blue"], fontsize=9)
    draw_box(axes, columns[3], 0.90, wide, 0.1, textwrap.fill(f"“{sentence}”", 22), "black")
    draw_box(axes, columns[5], 0.90, wide, 0.1, f"words T: {shape_text(words)}", "orange")
    axes.text(columns[4], 0.965, "text encoder: BERT", color="black", fontsize=9)
    draw_arrow(axes, (columns[3] + wide, 0.95), (columns[5], 0.95))
    draw_box(axes, columns[5], 0.62, wide, high, "S²RM", "purple")
    draw_arrow(axes, (columns[4] + wide, 0.705), (columns[5], 0.705))
    draw_arrow(axes, (columns[5] + wide / 2, 0.90), (columns[5] + wide / 2, 0.79))
    draw_box(axes, columns[5], 0.24, wide, high, f"F₄\n{shape_text(fused)}", "green")
    draw_arrow(axes, (columns[5] + wide / 2, 0.62), (columns[5] + wide / 2, 0.41))
    for k, made in enumerate(refined):
        column = columns[4 - k]
        draw_box(axes, column, 0.24, wide, high, f"stage D{k + 1}: F{'₃₂₁'[k]}\n{shape_text(made)}", "green")
        draw_arrow(axes, (columns[5 - k], 0.325), (column + wide, 0.325))
        draw_arrow(axes, (columns[3 - k] + wide / 2, 0.62), (column + wide / 2, 0.41))  # V of the same stride
        draw_arrow(axes, (column + 0.85 * wide, 0.19), (column + 0.85 * wide, 0.24))
    axes.plot([columns[5 - len(refined)] + 0.85 * wide, columns[4] + 0.85 * wide], [0.19, 0.19], color="0.3", lw=1)
    note = "decoder CASG: every stage also gets the mean word (arrows from below) and all deeper F"
    axes.text(columns[1], 0.12, note, fontsize=9, color=PALETTE["green"])
    draw_box(axes, columns[1], 0.24, wide, high, f"logits\n{shape_text(logits)}", "vermilion")
    draw_arrow(axes, (columns[2], 0.325), (columns[1] + wide, 0.325))
    draw_box(axes, columns[0], 0.24, wide, high, "mask", "black")
    draw_arrow(axes, (columns[1], 0.325), (columns[0] + wide, 0.325))
    axes.set_ylim(0.1, 1.01)
    return figure


def shifts(height: int, width: int) -> Figure:
    """The numbered cells of a grid, in the upper row rolled downwards, in the lower row rolled to the right."""
    numbers = np.arange(height * width).reshape(height, width)
    steps = max(height, width)
    figure, axes = grid(2, steps, cell=1.5)
    for axis, limit, name in ((0, height, "rows"), (1, width, "columns")):
        for k, drawn in enumerate(axes[axis]):
            drawn.set_axis_off()
            if k < limit:
                rolled = np.roll(numbers, k, axis=axis)
                drawn.imshow(rolled, cmap="viridis", vmin=0, vmax=numbers.max())
                for (i, j), value in np.ndenumerate(rolled):
                    colour = "white" if value < 0.6 * numbers.max() else "black"
                    drawn.text(j, i, str(value), ha="center", va="center", fontsize=7, color=colour)
                drawn.set_title(f"{name} rolled by {k}", fontsize=9)
    return figure


def cell_maps(image: np.ndarray, column: np.ndarray, row: np.ndarray, cells: Sequence[tuple[int, int]]) -> Figure:
    """``coparsed_cell`` of several cells, one below the other."""
    figure, axes = plt.subplots(len(cells), 3, figsize=(7.4, 2.5 * len(cells)), squeeze=False)
    for axes_row, cell in zip(axes, cells, strict=True):
        coparsed_cell(axes_row, image, column, row, cell)
    return figure


def gates(texts: Sequence[str], weights: np.ndarray, groups: Sequence[str]) -> Figure:
    """The weights (E, G) of the G groups of Eq. (9) for E expressions."""
    figure, axes = plt.subplots(figsize=(6.4, 0.5 * len(texts) + 1.0))
    drawn = number_grid(axes, weights, "{:.2f}")
    axes.set_xticks(range(len(groups)), [name.replace(" ", "\n") for name in groups])
    axes.set_yticks(range(len(texts)), [textwrap.fill(text, 30) for text in texts])
    axes.set_aspect("auto")
    figure.colorbar(drawn, label="gate")
    return figure


def coparsing(vision: Tensor, language: Tensor, column: Tensor, row: Tensor) -> Figure:
    """The paper's Fig. 2, direction l2v: V_4 and T^dist (1, C, H, W), column and row map (1, H*W, H, W)."""
    _, channels, height, width = vision.shape
    cells = height * width
    boxes = [
        (0.00, 0.68, f"V₄\nparsed context\n{shape_text(vision)}", "blue", False),
        (0.00, 0.02, f"T_dist\ngenerator context\n{shape_text(language)}", "orange", False),
        (0.27, 0.68, f"T_row, Eq. (5)\nrolled rows\n{channels} × {height} × {cells}", "black", True),
        (0.27, 0.35, f"Gram matrix\n⟨V₄[p], T_dist[q]⟩\n{cells} × {cells}", "green", False),
        (0.27, 0.02, f"T_col, Eq. (7)\nrolled columns\n{channels} × {cells} × {width}", "black", True),
        (0.54, 0.68, f"column map\nEq. (6)\n{shape_text(column)}", "sky", False),
        (0.54, 0.02, f"row map\nEq. (8)\n{shape_text(row)}", "sky", False),
        (0.81, 0.35, f"gates, compression\n+ V₄, Eqs. (9)-(10)\n{shape_text(vision)}", "purple", False),
    ]
    arrows = [  # from box to box, where each leaves and enters; dashed: the paper's way
        (0, 3, 0.10, 0.22, False), (1, 3, 0.20, 0.08, False), (3, 5, 0.22, 0.08, False), (3, 6, 0.08, 0.22, False),
        (5, 7, 0.15, 0.22, False), (6, 7, 0.15, 0.08, False),
        (1, 2, 0.27, 0.08, True), (1, 4, 0.10, 0.15, True), (2, 5, 0.20, 0.20, True), (4, 6, 0.10, 0.10, True),
    ]  # fmt: skip
    figure, axes = diagram(9.2, 3.6)
    for x, y, text, colour, dashed in boxes:
        draw_box(axes, x, y, 0.19, 0.3, text, colour, dashed)
    for start, end, leaves, enters, dashed in arrows:
        (x, y), (to_x, to_y) = boxes[start][:2], boxes[end][:2]
        draw_arrow(axes, (x + 0.19, y + leaves), (to_x, to_y + enters), dashed)
    for y in (0.90, 0.05):  # what the rolled copies are correlated with
        axes.text(0.5, y, "⊗ V₄", ha="center", fontsize=8)
    axes.text(0.81, 0.96, "- - -  as the paper writes it", fontsize=8, color="0.3")
    axes.text(0.81, 0.90, "——  one Gram matrix, the same maps", fontsize=8, color="0.3")
    return figure


def casg_stage(stage: CASGStage, own: Tensor, deeper: Sequence[Tensor], sentence: Tensor, steps: StageSteps) -> Figure:
    """The paper's Fig. 3, i = 1: V_1, the deeper features F_4, F_3, F_2, the mean word (1, D) and what the stage makes.
    Raises ValueError for a stage without one of its attentions."""
    if steps.channels is None or steps.places is None:
        raise ValueError("this stage lacks an attention; take one of the full model")
    shape = {name: shape_text(map_) for name, map_ in steps._asdict().items() if map_ is not None}
    gate = stage.channel_gate.kind
    coarser = "\n".join(f"F{'₄₃₂'[k]}: {shape_text(map_)}" for k, map_ in enumerate(deeper))
    figure, axes = diagram(10.6, 4.4)
    wide, high, top, middle, bottom = 0.17, 0.22, 0.78, 0.39, 0.0
    x0, x1, x2, x3 = 0.0, 0.24, 0.50, 0.83
    line = top + high / 2
    boxes = [
        (x0, top, f"V₁\n{shape_text(own)}", "blue"),
        (x2, top, f"I₁,₂ = Conv[C₁ V₁, I₁,₁]\n{shape['detail']}", "sky"),
        (x3, top, f"F₁ = Conv[S₁ I₁,₂, I₁,₁]\n{shape['refined']}", "green"),
        (x1, middle, f"channels C₁, {gate}\n{shape['channels']}", "purple"),
        (0.66, middle, f"places S₁, {gate}\n{shape['places']}", "purple"),
        (0.45, middle, f"mean word\n{shape_text(sentence)}", "orange"),
        (x0, bottom, f"deeper features\n{coarser}", "green"),
        (x1, bottom, f"I₁,₁: upsampled,\njoined, convolved\n{shape['semantics']}", "green"),
    ]
    for x, y, text, colour in boxes:
        draw_box(axes, x, y, wide if "mean" not in text else 0.13, high, text, colour)
    times = ((x1 + wide / 2, line), (0.745, line))  # where an attention multiplies
    for x, y in times:
        axes.plot(x, y, "o", markersize=13, markerfacecolor="white", markeredgecolor="0.3")
        axes.text(x, y, "×", ha="center", va="center", fontsize=9)
    for start, end in (
        ((x0 + wide, line), (times[0][0] - 0.016, line)), ((times[0][0] + 0.016, line), (x2, line)),
        ((x2 + wide, line), (times[1][0] - 0.016, line)), ((times[1][0] + 0.016, line), (x3, line)),
        ((x1 + wide / 2, middle + high), (times[0][0], line - 0.035)),
        ((0.745, middle + high), (times[1][0], line - 0.035)),
        ((0.45, middle + high / 2), (x1 + wide, middle + high / 2)),
        ((0.58, middle + high / 2), (0.66, middle + high / 2)),
        ((x0 + wide, high / 2), (x1, high / 2)), ((x1 + wide / 2, high), (x1 + wide / 2, middle)),
    ):  # fmt: skip
        draw_arrow(axes, start, end)
    bridge = [withStroke(linewidth=6, foreground="white")]  # over the arrow that it crosses
    for x, to in ((0.62, top), (0.745, middle), (0.915, top)):  # I_11 goes on to three places
        axes.plot([x, x], [high / 2, to - 0.03], color="0.3", linewidth=1, path_effects=bridge, zorder=4)
        draw_arrow(axes, (x, to - 0.04), (x, to))
    axes.plot([x1 + wide, 0.915], [high / 2, high / 2], color="0.3", linewidth=1, zorder=5)
    return figure


def answer(image: np.ndarray, sentence: str, probability: np.ndarray, truth: np.ndarray | None) -> Figure:
    """The picture, each pixel's probability (S, S), the mask at 0.5 and, where there is one, the true mask."""
    figure, axes = grid(1, 3 + (truth is not None), cell=2.2)
    show_image(axes[0, 0], image, f"“{sentence}”")
    show_map(axes[0, 1], probability, "probability (yellow: 1)", low=0, high=1, bar=False)
    mask = probability > 0.5
    title = "mask" if truth is None else f"mask, IoU {100 * overlap(mask, truth):.1f} %"
    overlay(axes[0, 2], image, mask, title=title)
    if truth is not None:
        overlay(axes[0, 3], image, truth, "blue", "truth")
    return figure


def products(
    rows: Sequence[tuple[np.ndarray, Sequence[str], Sequence[np.ndarray], Sequence[Tensor], Sequence[Tensor]]],
) -> Figure:
    """A row for each pair of expressions about one picture (S, S, 3): the two texts, true masks (S, S), mean products
    (H, W) and coverages (H, W). The products of each, and how products and places differ, less the mean."""
    figure, axes = grid(len(rows), 5, cell=1.95)
    heads = ("picture", "products, first", "products, second", "first − second", "place: first − second")
    for line, (image, texts, truths, maps, covered) in zip(axes, rows, strict=True):
        show_image(line[0], image)
        for truth, colour in zip(truths, ("vermilion", "blue"), strict=True):
            line[0].contour(truth.astype(float), levels=[0.5], colors=[PALETTE[colour]], linewidths=1.8)
        low, high = (float(end) for end in (min(map_.min() for map_ in maps), max(map_.max() for map_ in maps)))
        for axis, map_ in zip(line[1:], maps, strict=False):
            show_map(axis, map_, low=low, high=high, bar=False)
        for axis, (first, second) in zip(line[3:], (maps, covered), strict=True):
            difference = first - second - (first - second).mean()
            end = float(difference.abs().max())
            show_map(axis, difference, "", "PuOr", -end, end, bar=False)
        for axis, which, text, colour in zip(line[1:], ("first", "second"), texts, ("vermilion", "blue"), strict=False):
            axis.set_title(textwrap.fill(f"{which}: “{text}”", 26), color=PALETTE[colour], fontsize=9)
    for axis, head in zip(axes[-1], heads, strict=True):
        axis.text(0.5, -0.06, head, transform=axis.transAxes, ha="center", va="top", fontsize=9)
    return figure
