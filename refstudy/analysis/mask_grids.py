"""Figures of pictures with masks: grids whose rows and columns are named once, the masks of recorded runs, borders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from refstudy.analysis.figures import PALETTE, outline
from refstudy.analysis.opened import OpenStudy
from refstudy.analysis.rows import variant_records
from refstudy.base.config import THRESHOLD
from refstudy.base.files import exists
from refstudy.data.batches import Corpus, resize_mask
from refstudy.data.masks import decode_mask
from refstudy.metrics import overlap
from refstudy.models.build import load_model
from refstudy.models.segmenter import Segmenter
from refstudy.prediction.overlay import dimmed, eroded
from refstudy.prediction.predict import predict
from refstudy.study.file import training_command
from refstudy.training.evaluation import sample_masks
from refstudy.training.loop import SHOWN_IMAGES

SMALLEST = 0.01  # share of the picture: smaller referents have hardly a border
WRONG = {"marked, not meant": "vermilion", "meant, not marked": "blue"}  # in ``border_grid``


def named_grid(rows: Sequence[str], columns: Sequence[str], cell: float = 1.5) -> tuple[Figure, np.ndarray]:
    """A figure of pictures, each ``cell`` inches wide, a row and a column for each name; the names stand once, at the
    left and on top."""
    size = (cell * len(columns) + 1.2, cell * len(rows) + 0.7)
    figure, grid = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, name in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(fill(name, 16), rotation=0, ha="right", va="center", fontsize=9)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(fill(name, max(12, round(11 * cell))), fontsize=9)
    return figure, grid


def draw(axes: Axes, image: np.ndarray, mask: np.ndarray, colour: str = "vermilion") -> None:
    """A picture uint8 (H, W, 3) of a ``named_grid``, pale outside a mask bool (H, W), which is outlined."""
    axes.imshow(dimmed(image, mask), interpolation="nearest")
    outline(axes, mask, colour)


def corner_text(axes: Axes, text: str) -> None:
    """A few words in the upper left corner of a picture."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
    axes.text(0.03, 0.97, text, transform=axes.transAxes, ha="left", va="top", fontsize=8, bbox=box)


def explain_outlines(figure: Figure) -> None:
    """A legend below: vermilion is a mask, blue the truth."""
    lines = [
        Line2D([], [], color=PALETTE["vermilion"], label="mask of the model"),
        Line2D([], [], color=PALETTE["blue"], label="the referent (truth)"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2)


@dataclass(frozen=True)
class ShownMasks:
    """Masks of variants on a ``corpus`` of a few pictures. ``masks``: variant -> sent_id -> bool (H, W). ``labels``:
    with the seed where it is not the first one. ``absent``: variant -> a line that says why it is not shown."""

    corpus: Corpus
    masks: dict[str, dict[int, np.ndarray]]
    labels: dict[str, str]
    absent: dict[str, str]

    def fit(self, variant: str, expression: int) -> float:
        """The IoU of a variant's mask, from 0 to 1."""
        return overlap(self.mask(variant, expression), self.corpus.truth(expression))

    def mask(self, variant: str, expression: int) -> np.ndarray:
        """A variant's mask for an expression, a row of the corpus."""
        return self.masks[variant][self.corpus.table.loc[expression, "sent_id"]]


def shown_masks(study: OpenStudy, variants: Sequence[str], whole: Corpus) -> ShownMasks:
    """The masks that run records keep: of the first seed; else those of the kept weights; else of another seed."""
    corpus, size = whole.subset(SHOWN_IMAGES), (whole.image_size, whole.image_size)
    masks: dict[str, dict[int, np.ndarray]] = {}
    labels, absent = {}, {}
    for name in variants:
        label, weights, records = study.label(name), study.weights(name), variant_records(study, name)
        kept = {record.config.seed: found for record in records if (found := record.masks())}
        first = records[0].config.seed if records else None
        if first not in kept and exists(weights):
            made = sample_masks(load_model(weights), corpus, SHOWN_IMAGES)
            seed = study.settings.ships.get(name, 0)
            kept = {seed: {sentence: decode_mask(rle, *rle["size"]) for sentence, rle in made.items()}}
        if kept:
            seed, own = next(iter(kept.items()))
            labels[name] = label if seed == first else f"{label}, seed {seed}"
            masks[name] = {sentence: resize_mask(mask, *size) for sentence, mask in own.items()}
        else:
            why, again = ("its record keeps no masks", " --again") if records else ("no run yet", "")
            absent[name] = f"{label} is left out, {why}: {training_command(study.profile, name, 0)}{again}"
    return ShownMasks(corpus, masks, labels, absent)


def compared_masks(shown: ShownMasks, rows: Sequence[int], names: Sequence[str]) -> Figure:
    """The truth and the masks of some variants with their IoU, a row an expression, a column a variant."""
    said = [f"“{shown.corpus.table.loc[k, 'expression']}”" for k in rows]
    figure, grid = named_grid(said, ["truth", *(shown.labels[name] for name in names)])
    for axes, k in zip(grid, rows, strict=True):
        draw(axes[0], shown.corpus.picture(k), shown.corpus.truth(k), "blue")
        for axis, name in zip(axes[1:], names, strict=True):
            draw(axis, shown.corpus.picture(k), shown.mask(name, k))
            corner_text(axis, f"{100 * shown.fit(name, k):.0f} %")
    explain_outlines(figure)
    return figure


def hard_cases(corpus: Corpus) -> list[int]:
    """Four expressions that are hard whatever the model is: first two with words of place about a picture with several
    referents, then those whose referents have the longest borders for their size; one per picture."""
    table = corpus.table.assign(referents=corpus.table.groupby("image_id")["ref_id"].transform("nunique"))
    placed = table[table["kind"].isin(["location", "relation"])]
    placed = placed.sort_values("referents", ascending=False, kind="stable").drop_duplicates("image_id")
    first = list(placed.index[:2])
    others = table[~table["image_id"].isin(table.loc[first, "image_id"])].drop_duplicates("image_id").index
    masks = {k: mask for k in others if (mask := corpus.truth(k)).mean() >= SMALLEST}
    borders = {k: (mask & ~eroded(mask, 1)).sum() / mask.sum() ** 0.5 for k, mask in masks.items()}
    return first + sorted(borders, key=lambda k: -borders[k])[: 4 - len(first)]


def border_grid(shown: ShownMasks, rows: Sequence[int], names: Sequence[str], title: str = "") -> Figure:
    """What is wrong with the masks of some expressions, on grey pictures, and their IoU: a row a variant, a column an
    expression; a ``title`` above all."""
    said = [f"“{shown.corpus.table.loc[k, 'expression']}”" for k in rows]
    figure, grid = named_grid([shown.labels[name] for name in names], said, cell=1.9)
    for axes_row, name in zip(grid, names, strict=True):
        for axes, k in zip(axes_row, rows, strict=True):
            mask, own = shown.mask(name, k), shown.corpus.truth(k)
            axes.imshow(shown.corpus.picture(k).mean(-1), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            for wrong, colour in zip((mask & ~own, own & ~mask), WRONG.values(), strict=True):
                axes.imshow(wrong[..., None] * np.array(to_rgba(PALETTE[colour], 0.75)), interpolation="nearest")
            outline(axes, own, "black", dashed=True)
            corner_text(axes, f"{100 * shown.fit(name, k):.0f} %")
    if title:
        figure.suptitle(title, fontsize=10)
    areas = [Patch(facecolor=PALETTE[colour], label=text) for text, colour in WRONG.items()]
    border = Line2D([], [], color=PALETTE["black"], linestyle="--", label="border of the referent")
    figure.legend(handles=[*areas, border], loc="outside lower center", ncols=3)
    return figure


def misses_grid(corpus: Corpus, cases: Mapping[str, Sequence[tuple[int, np.ndarray]]]) -> Figure:
    """For each cause at most two expressions (row of the corpus, mask bool (H, W)): mask and referent side by side."""
    figure, grid = named_grid(list(cases), ["mask", "referent"] * 2, cell=1.7)
    for axes, shown in zip(grid, cases.values(), strict=True):
        for axis in axes[2 * len(shown) :]:
            axis.set_visible(False)
        for (k, mask), left, right in zip(shown, axes[::2], axes[1::2], strict=False):
            draw(left, corpus.picture(k), mask)
            draw(right, corpus.picture(k), corpus.truth(k), "blue")
            left.set_xlabel(fill(f"“{corpus.table.loc[k, 'expression']}”", 40), fontsize=8, loc="left")
            if not mask.any():
                corner_text(left, "nothing marked")
    explain_outlines(figure)
    return figure


def absent_answers(corpus: Corpus, probes: Mapping[str, pd.DataFrame], model: Segmenter, title: str) -> Figure:
    """The masks of a model for expressions that are true of nothing, a row a kind of probe
    (``refstudy.analysis.absent.probe_corpus``), with its confidence."""
    figure, grid = named_grid(list(probes), [""] * max(map(len, probes.values())), cell=1.9)
    for axes, some in zip(grid, probes.values(), strict=True):
        for axis in axes[len(some) :]:
            axis.set_visible(False)
        for axis, probe in zip(axes, some.itertuples(), strict=False):
            picture = corpus.image(probe.image)
            draw(axis, picture, predict(model, picture, [probe.expression])[0] > THRESHOLD)
            axis.set_title(fill(f"“{probe.expression}”", 24), fontsize=9)
            corner_text(axis, f"confidence {probe.confidence:.2f}")
    figure.suptitle(title, fontsize=10)
    return figure
