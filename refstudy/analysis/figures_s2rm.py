"""The figures of the S²RM lesson (notebook 02): diagrams with the shapes of live tensors, shifts, maps, gates, mask."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from refstudy.analysis.diagrams import draw_diagram
from refstudy.analysis.figures import PALETTE, coparsed_cell, grid, number_grid, overlay, show_image, show_map
from refstudy.base.config import THRESHOLD
from refstudy.metrics import overlap
from refstudy.models.decoders.casg import CASGStage
from refstudy.models.decoders.casg import Steps as StageSteps
from refstudy.models.fusion.s2rm import DIRECTIONS


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
    return draw_diagram(
        "s2rm_fig1",
        **{f"V{k}": map_ for k, map_ in enumerate(maps, start=1)},
        **{f"F{3 - k}": made for k, made in enumerate(refined)},
        sentence=textwrap.fill(f"“{sentence}”", 22),
        image=images,
        words=words,
        mean=words.shape[-1],
        F4=fused,
        logits=logits,
    )


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


def cell_maps(image: np.ndarray, groups: Sequence[np.ndarray], cells: Sequence[tuple[int, int]]) -> Figure:
    """``coparsed_cell`` of several cells, one below the other, first l2v and then v2l; the groups are column and row
    map of l2v, then of v2l, each (H*W, H, W)."""
    shown = [(k, cell) for k in range(len(DIRECTIONS)) for cell in cells]
    figure, axes = plt.subplots(len(shown), 3, figsize=(8.4, 2.6 * len(shown)), squeeze=False)
    for axes_row, (k, cell) in zip(axes, shown, strict=True):
        coparsed_cell(axes_row, image, groups[2 * k], groups[2 * k + 1], cell)
        axes_row[0].set_title(f"{DIRECTIONS[k]}: cell {cell} asks")
    return figure


def gates(texts: Sequence[str], weights: np.ndarray, groups: Sequence[str]) -> Figure:
    """The weights (E, G) of the G groups of Eq. (9) for E expressions."""
    figure, axes = plt.subplots(figsize=(6.4, 0.5 * len(texts) + 1.0))
    drawn = number_grid(axes, weights, "{:.2f}")
    axes.set_xticks(range(len(groups)), [name.replace(" ", "\n") for name in groups])
    axes.set_yticks(range(len(texts)), [textwrap.fill(text, 30) for text in texts])
    figure.colorbar(drawn, label="gate")
    return figure


def coparsing(vision: Tensor, language: Tensor, column: Tensor, row: Tensor) -> Figure:
    """The paper's Fig. 2, direction l2v: V_4 and T^dist (1, C, H, W), column and row map (1, H*W, H, W)."""
    _, channels, height, width = vision.shape
    sizes = {"channels": channels, "height": height, "width": width, "cells": height * width}
    return draw_diagram("s2rm_fig2", V4=vision, language=language, column=column, row=row, **sizes)


def casg_stage(stage: CASGStage, own: Tensor, deeper: Sequence[Tensor], sentence: Tensor, steps: StageSteps) -> Figure:
    """The paper's Fig. 3, i = 1: V_1, the deeper features F_4, F_3, F_2, the mean word (1, D) and what the stage makes.
    Raises ValueError for a stage without one of its attentions."""
    if steps.channels is None or steps.places is None:
        raise ValueError("this stage lacks an attention; take one of the full model")
    coarser = {f"F{4 - k}": map_ for k, map_ in enumerate(deeper)}
    made = steps._asdict() | {"gate": stage.channel_gate.kind}
    return draw_diagram("s2rm_fig3", V1=own, sentence=sentence, **coarser, **made)


def answer(image: np.ndarray, sentence: str, probability: np.ndarray, truth: np.ndarray | None) -> Figure:
    """The picture, each pixel's probability (S, S), the mask at 0.5 and, where there is one, the true mask."""
    figure, axes = grid(1, 3 + (truth is not None), cell=2.2)
    show_image(axes[0, 0], image, f"“{sentence}”")
    show_map(axes[0, 1], probability, "probability (yellow: 1)", low=0, high=1, bar=False)
    mask = probability > THRESHOLD
    title = "mask" if truth is None else f"mask, IoU {100 * overlap(mask, truth):.1f} %"
    overlay(axes[0, 2], image, mask, title=title)
    if truth is not None:
        overlay(axes[0, 3], image, truth, "blue", "truth")
    return figure


def products(
    rows: Sequence[tuple[np.ndarray, Sequence[str], Sequence[np.ndarray], Sequence[Tensor], Sequence[Tensor]]],
) -> Figure:
    """A row for each pair of expressions about one picture (S, S, 3): the two texts, true masks (S, S), mean products
    (H, W) and coverages (H, W). The products of each, and how products and places differ, less the mean: in the colour
    of the first what the first has more of, in that of the second what the second has more of."""
    figure, axes = grid(len(rows), 5, cell=2.2)
    heads = ("picture", "products, first", "products, second", "first − second", "place: first − second")
    two = LinearSegmentedColormap.from_list("two", [PALETTE["blue"], "white", PALETTE["vermilion"]])
    for line, (image, texts, truths, maps, covered) in zip(axes, rows, strict=True):
        show_image(line[0], image)
        for truth, colour in zip(truths, ("vermilion", "blue"), strict=True):
            line[0].contour(truth.astype(float), levels=[0.5], colors=[PALETTE[colour]], linewidths=1.8)
        low, high = (float(end) for end in (min(map_.min() for map_ in maps), max(map_.max() for map_ in maps)))
        for axis, map_, bar in zip(line[1:], maps, (False, True), strict=False):
            show_map(axis, map_, low=low, high=high, bar=bar)
        for axis, (first, second) in zip(line[3:], (maps, covered), strict=True):
            difference = first - second - (first - second).mean()
            end = float(difference.abs().max())
            show_map(axis, difference, "", two, -end, end)
        for axis, which, text, colour in zip(line[1:], ("first", "second"), texts, ("vermilion", "blue"), strict=False):
            axis.set_title(textwrap.fill(f"{which}: “{text}”", 26), color=PALETTE[colour], fontsize=9)
    for axis, head in zip(axes[-1], heads, strict=True):
        axis.text(0.5, -0.06, head, transform=axis.transAxes, ha="center", va="top", fontsize=9)
    return figure
