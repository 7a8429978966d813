"""The figures of the SLViT lessons (notebooks 03a and 03b): diagrams, branches, maps."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from refstudy.analysis import figures
from refstudy.analysis.cost import cost
from refstudy.analysis.diagrams import diagram, draw_arrow, draw_box, draw_diagram, shape_text
from refstudy.analysis.figures import PALETTE
from refstudy.analysis.trace import SLViTTrace, decoder_maps
from refstudy.metrics import overlap
from refstudy.models.build import build_model
from refstudy.models.slvit import SLViT
from refstudy.models.urce import STAGES, patch_side
from refstudy.study.file import ProfileStudy

MARK = dict(zip(STAGES, "₁₂₃₄", strict=True))
DESIGNS = {  # variant -> where words and picture meet, decoder
    "s2rm_casg": ("(a) after the image encoder\n(the paper: VLT; here: S²RM)", "CASG"),
    "lavt": ("(b) after each stage\n(LAVT)", "LAVT's decoder"),
    "slvit": ("(c) inside every block\n(SLViT)", "Hamburger"),
}


def designs(study: ProfileStudy, model: SLViT, image: np.ndarray, sentence: str) -> Figure:
    """The paper's Fig. 1: ``DESIGNS`` with the shapes of a profile's models, and what a second sentence costs."""
    figure, axes = diagram(10.2, 5.4)
    left, step, wide, high = 0.23, 0.155, 0.13, 0.115
    end = left + 4 * step
    words_at = {  # one arrow a block of SLViT
        "s2rm_casg": [end + 0.005],
        "lavt": [left + step * k - 0.0125 for k in STAGES],
        "slvit": [
            left + step * k + wide * (block + 1) / (len(blocks) + 1)  # type: ignore[arg-type]
            for k, blocks in enumerate(model.image_encoder.blocks)
            for block in range(len(blocks))  # type: ignore[arg-type]
        ],
    }
    for y, (variant, (name, decoder)) in zip((0.79, 0.43, 0.07), DESIGNS.items(), strict=True):
        settings = study.config(variant).model
        design = build_model(settings.from_scratch()).eval()
        spent, middle = cost(settings), y + high / 2
        again = spent.further / sum(spent.macs.values())
        about = f"{name}\na 2nd sentence about an image\ncosts {again:.0%} of the 1st ({settings.image_size} px)"
        axes.text(0, middle, about, va="center", fontsize=8.5)
        for stage, map_ in zip(STAGES, decoder_maps(design, image, sentence), strict=True):
            x = left + step * (stage - 1)
            draw_box(axes, x, y, wide, high, f"stage {stage}\n{shape_text(map_)}", "blue")
            draw_arrow(axes, (x + wide, middle), (x + step + 0.035 * (stage == 4), middle))
        draw_box(axes, end + 0.035, y, 0.115, high, decoder, "vermilion")
        for x in words_at[variant]:
            draw_arrow(axes, (x, y + high + 0.06), (x, y + high if variant == "slvit" else middle))
        axes.plot([left, end + 0.03], [y + high + 0.06] * 2, color=PALETTE["orange"], linewidth=3)
        axes.text(left, y + high + 0.075, "words", color="black", fontsize=9)
    return figure


def architecture(model: SLViT, seen: SLViTTrace) -> Figure:
    """The paper's Fig. 3 with the shapes of a trace."""
    steps, blocks = seen.steps, [len(stage) for stage in model.image_encoder.blocks]  # type: ignore[arg-type, union-attr]
    return draw_diagram(
        "slvit_fig3",
        **{f"F{stage}": map_ for stage, map_ in zip(STAGES, steps.encoded, strict=True)},
        **{f"S{stage}": scores for stage, scores in zip(STAGES, steps.scores, strict=True)},  # type: ignore[arg-type]
        **{f"blocks{stage}": f"{n} block{'s'[: n > 1]}" for stage, n in zip(STAGES, blocks, strict=True)},
        pixels=seen.features.size[0],
        V1=seen.features.maps[0],
        words=seen.given[0][1],
        uncertainty=steps.uncertainty,
        K=steps.cells.shape[1],  # type: ignore[union-attr]
        tokens=sum(patch_side(stage) ** 2 for stage in STAGES),
        logits=steps.logits,
    )


def signed(axes: Axes, values: Tensor, title: str, limit: float, bar: bool = False) -> AxesImage:
    """A map with positive and negative values, white at zero."""
    return figures.show_map(axes, values, title, "PuOr", -limit, limit, bar=bar)


def branches(
    image: np.ndarray, sentence: str, responses: Mapping[str, Tensor], later: Mapping[str, Tensor], channel: int
) -> Figure:
    """One channel of each branch of an LMFA, in one scale; below, the same channel of the maps made ``later``, each in
    its own scale. All are (1, C, H, W), by name."""
    figure, axes = figures.grid(2, len(responses) + 1, cell=1.5)
    for axis in axes.flat:
        axis.set_axis_off()
    figures.show_image(axes[0, 0], image, f"“{sentence}”")
    limit = max(float(map_[0, channel].abs().max()) for map_ in responses.values())
    for axis, (name, map_) in zip(axes[0, 1:], responses.items(), strict=True):
        drawn = signed(axis, map_[0, channel], name, limit)
    figure.colorbar(drawn, ax=axes[0], shrink=0.7, label=f"response, channel {channel}")
    for axis, (name, map_) in zip(axes[1, 1:], later.items(), strict=False):
        own = float(map_[0, channel].abs().max())
        signed(axis, map_[0, channel], f"{name}\n(scale ±{own:.2g})", own)
    return figure


def reach(shares: Mapping[str, np.ndarray]) -> Figure:
    """The share (H, W) of each branch's gradient that every cell of the input has, on a logarithmic scale."""
    figure, axes = figures.grid(1, len(shares), cell=1.7)
    for axis, (name, share) in zip(axes[0], shares.items(), strict=True):
        drawn = axis.imshow(share, cmap="cividis", norm=LogNorm(1e-5, 1), interpolation="nearest")
        touched = np.argwhere(share > 0)
        rows, across = touched.max(0) - touched.min(0) + 1
        axis.set(title=f"{name}\n{rows} × {across} cells", xticks=[], yticks=[])
        axis.spines[:].set_visible(True)
    figure.colorbar(drawn, ax=axes[0], shrink=0.7, label="share of the gradient")
    return figure


def loudness(shares: Mapping[str, Sequence[float]]) -> Figure:
    """The share of each branch, by name, in the root mean squares of the stages' branches."""
    figure, axes = plt.subplots(figsize=(5.4, 2.9))
    values = np.array(list(shares.values()))
    drawn = figures.number_grid(axes, values, high=values.max())
    axes.set_yticks(range(len(shares)), list(shares))
    axes.set_xticks(range(len(STAGES)), [f"stage {stage}" for stage in STAGES])
    axes.set_title("how loud each branch is")
    figure.colorbar(drawn, label="share of the stage's RMS")
    return figure


def correlations(image: np.ndarray, sentence: str, maps: Sequence[Tensor]) -> Figure:
    """The correlation maps R_1 ... R_4, each (1, h_i, w_i), each in a scale of its own."""
    figure, axes = figures.grid(1, len(STAGES) + 1, cell=2.0)
    figures.show_image(axes[0, 0], image, f"“{sentence}”")
    for axis, stage, map_ in zip(axes[0, 1:], STAGES, maps, strict=True):
        signed(axis, map_[0], f"R{MARK[stage]}, stage {stage}", float(map_.abs().max()), bar=True)
    return figure


def word_scores(image: np.ndarray, sentence: str, words: Sequence[str], scores: Tensor) -> Figure:
    """The scores (L, h, w) of a stage, a map for each word piece, in one scale."""
    figure, axes = figures.grid(1, len(words) + 1, cell=1.5)
    figures.show_image(axes[0, 0], image, f"“{sentence}”")
    limit = float(scores.abs().max())
    for axis, word, map_ in zip(axes[0, 1:], words, scores, strict=True):
        drawn = signed(axis, map_, word, limit)
    figure.colorbar(drawn, ax=axes[0, 1:], shrink=0.6, label="score", ticks=[-limit, 0, limit], format="{x:.0f}")
    return figure


def uncertainty(image: np.ndarray, terms: Mapping[str, Tensor], map_: Tensor, cells: Sequence[int]) -> Figure:
    """The terms of Eq. (8), by name, and their sum map_U, all (h_4, w_4), and the chosen cells."""
    figure, axes = figures.grid(1, len(terms) + 2, cell=2.0)
    for axis, (name, values) in zip(axes[0], {**terms, "their sum: map_U": map_}.items(), strict=False):
        figures.show_map(axis, values, name, "magma", low=0)
    figures.regions(axes[0, -1], image, cells, map_.shape, f"the {len(cells)} most uncertain")
    return figure


def sweep(
    image: np.ndarray, order: Sequence[int], grid: tuple[int, int], found: Mapping[int, tuple[np.ndarray, float]]
) -> Figure:
    """For each K the refined regions, the first K of ``order``, and the outline of the mask (S, S), with its IoU."""
    figure, axes = figures.grid(1, len(found), cell=1.6)
    for axis, (K, (mask, iou)) in zip(axes[0], found.items(), strict=True):
        figures.regions(axis, image, order[:K], grid)
        axis.set_title(f"K = {K}\nIoU {100 * iou:.1f} %")
        figures.outline(axis, mask, "blue")
    return figure


def regions_curve(swept: pd.DataFrame, paper_size: Mapping[int, float], title: str) -> Figure:
    """After the paper's Fig. 5(a), of one model whose K is changed. Left: overall IoU against K, from a table with K,
    oIoU, gain, gain_low, gain_high; right: thousand million multiply-adds at the paper's size against K."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.2))
    none = swept["oIoU"][0]
    bounds = {"ymin": none + swept["gain_low"], "ymax": none + swept["gain_high"]}
    left.vlines(swept["K"], **bounds, color=PALETTE["sky"], linewidth=4, label="95 % interval of the change from K = 0")
    left.plot(swept["K"], swept["oIoU"], "o-", color=PALETTE["blue"], markersize=4)
    left.axhline(none, color=figures.GREY, linestyle="--", linewidth=1, label="no change")
    left.set(xlabel="K, regions refined", ylabel="overall IoU (%)", title=title)
    low, high = left.get_ylim()
    low, high = min(low, (low + high - 5) / 2), max(high, (low + high + 5) / 2)  # small changes look small
    left.set_ylim(low, high + (high - low) / 4)  # the legend is above the intervals
    left.legend()
    right.plot(list(paper_size), list(paper_size.values()), "o-", color=PALETTE["green"])
    right.set(xlabel="K, regions refined", ylabel="G multiply-adds", title="cost at the paper's 480 px (225 cells)")
    right.set_ylim(0, 1.1 * max(paper_size.values()))
    return figure


def enhancement(model: SLViT, seen: SLViTTrace, sequences: Tensor) -> Figure:
    """The paper's Fig. 4 with the shapes of a trace and of the regions' sequences (regions, tokens, width)."""
    steps, urce = seen.steps, model.urce
    return draw_diagram(
        "slvit_fig4",
        scores="\n".join(map(shape_text, steps.scores)),  # type: ignore[arg-type]
        features="\n".join(map(shape_text, steps.encoded)),
        maps="\n".join(shape_text(scores[:, 0]) for scores in steps.scores),  # type: ignore[index, union-attr]
        uncertainty=steps.uncertainty,
        K=steps.cells.shape[1],  # type: ignore[union-attr]
        tokens=" + ".join(str(patch_side(stage) ** 2) for stage in urce.stages),  # type: ignore[union-attr]
        sequences=" × ".join(map(str, sequences.shape)),
        heads=urce.heads,  # type: ignore[union-attr]
    )


def tokens(image: np.ndarray, cell: int, columns: int) -> Figure:
    """One region, a cell of stage 4 in a grid of so many columns, and its cells in the four stages."""
    side = patch_side(1) * 4  # of a region, in pixels
    top, left = (number * side for number in divmod(cell, columns))
    crop = image[top : top + side, left : left + side]
    figure, axes = figures.grid(1, len(STAGES) + 1, cell=2.0)
    rows = -(-len(image) // side)
    figures.regions(axes[0, 0], image, [cell], (rows, columns), "the region")
    for axis, stage in zip(axes[0, 1:], reversed(STAGES), strict=True):
        cells = patch_side(stage)
        figures.show_image(axis, crop, f"stage {stage}: {cells} × {cells}")
        for line in np.linspace(0, side, cells + 1) - 0.5:
            for ends in (([-0.5, side - 0.5], [line, line]), ([line, line], [-0.5, side - 0.5])):
                axis.plot(*ends, color=PALETTE["vermilion"], linewidth=1.2, clip_on=False)
    return figure


def cross_scale(attention: np.ndarray, stages: Sequence[int]) -> Figure:
    """The share of its attention that a token of one stage (row) gives to each stage (column), and the shares if it
    attended to all tokens equally; attention (T, T) of a region, its tokens stage by stage."""
    lengths = np.array([patch_side(stage) ** 2 for stage in stages])
    starts = np.cumsum(lengths) - lengths
    between = np.add.reduceat(np.add.reduceat(attention, starts, axis=1), starts, axis=0) / lengths[:, None]
    figure, axes = plt.subplots(figsize=(5.2, 3.4))
    figures.number_grid(axes, np.vstack([between, lengths / lengths.sum()]), "{:.1%}")
    names = [f"stage {stage}" for stage in stages]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names) + 1), [*names, "if all tokens\nwere equal"])
    axes.axhline(len(between) - 0.5, color="white", linewidth=3)
    axes.set_title("attention that a token gives to each stage")
    return figure


def before_and_after(
    sentence: str,
    image: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    directions: Sequence[Tensor],
    cells: Sequence[int],
    others: Mapping[str, tuple[np.ndarray, Sequence[Tensor]]],
) -> Figure:
    """The paper's Fig. 6: a column a stage. First a row for each of ``others``, label -> its mask, bool (S, S), and
    maps (h_i, w_i), each map in a scale of its own. Then F_i and F~_i, (1, C_i, h_i, w_i), along a direction (C_i,) of
    channels each; in the last row, how far all channels together moved. The first column has the picture uint8
    (S, S, 3) with the masks and their IoU, with the ``cells`` of stage 4 that URCE enhances, framed in all, and with
    the truth."""
    figure, axes = figures.grid(3 + len(others), 1 + len(STAGES), cell=1.9)
    figure.set_size_inches(10.2, 2 * len(axes) + 0.4)
    figure.suptitle(f"“{sentence}”")
    for row, (found, maps) in zip(axes, others.values(), strict=False):
        figures.overlay(row[0], image, found, title=f"mask, IoU {overlap(found, truth):.0%}")
        for axis, map_ in zip(row[1:], maps, strict=True):
            figures.show_map(axis, map_, bar=False)
    own = axes[len(others) :]
    grid = before[-1].shape[-2:]
    moved = [(new - old)[0].norm(dim=0) for old, new in zip(before, after, strict=True)]
    farthest = max(float(map_.max()) for map_ in moved)
    figures.overlay(own[0, 0], image, mask, title=f"mask, IoU {overlap(mask, truth):.0%}")
    figures.regions(own[1, 0], image, cells, grid, "regions")
    figures.overlay(own[2, 0], image, truth, "blue", "truth")
    for old, new, way, far, column in zip(before, after, directions, moved, own.T[1:], strict=True):
        both = [torch.einsum("c,chw->hw", way, map_[0]) for map_ in (old, new)]
        low, high = float(min(map_.min() for map_ in both)), float(max(map_.max() for map_ in both))
        figures.show_map(column[0], both[0], low=low, high=high, bar=False)
        drawn = figures.show_map(column[1], both[1], low=low, high=high, bar=False)
        figure.colorbar(drawn, ax=column[:2], shrink=0.6)
        figures.show_map(column[2], far, "", "magma", 0, farthest)
        for axis in column[:2]:
            figures.frames(axis, cells, grid, old.shape[-2:])
    for axis, stage in zip(axes[0, 1:], STAGES, strict=True):
        axis.set_title(f"stage {stage}")
    of_others = (f"{fill(name, 16)}\n(a scale for each map)" for name in others)
    names = (*of_others, "SLViT\nbefore URCE: F", "SLViT\nafter URCE: F̃", "SLViT\nchange ‖F̃ − F‖")
    for axis, name in zip(axes[:, 1], names, strict=True):
        axis.text(-0.08, 0.5, name, transform=axis.transAxes, rotation=90, ha="right", va="center", fontsize=9)
    return figure


def softmax_order(image: np.ndarray, raw: Tensor, after: Tensor, cells: Sequence[int]) -> Figure:
    """map_U (h_4, w_4) of raw scores with its choice, and of scores after the softmax, in the same scale."""
    limit = float(raw.max())
    figure, axes = figures.grid(1, 3, cell=2.2)
    figures.show_map(axes[0, 0], raw, "map_U of raw scores", "magma", 0, limit)
    figures.regions(axes[0, 1], image, cells, raw.shape, f"K = {len(cells)}")
    figures.show_map(axes[0, 2], after, "map_U after the softmax", "magma", 0, limit)
    return figure


def round_off(map_: Tensor) -> Figure:
    """The rest of map_U (h_4, w_4) after the softmax, magnified; it differs from machine to machine."""
    figure, axes = figures.grid(1, 1, cell=2.2)
    figures.show_map(axes[0, 0], map_, "the same, magnified", "magma", 0)
    return figure


def choices(chosen: Tensor, borders: Tensor) -> Figure:
    """The share of the expressions that choose each region of the grid, and for which a border of the referent crosses
    it, both (h_4, w_4)."""
    figure, axes = figures.grid(1, 2, cell=2.5)
    high = float(max(chosen.max(), borders.max()))
    titles = ("region chosen", "border of the referent inside")
    for axis, title, share in zip(axes[0], titles, (chosen, borders), strict=True):
        drawn = figures.number_grid(axis, share.numpy(), high=high)
        axis.set(title=title, aspect="equal")
        axis.set_axis_off()
    figure.colorbar(drawn, ax=axes[0], shrink=0.7, label="share of the expressions", format="{x:.0%}")
    return figure
