"""The figures of the lesson on data (notebook 01): scenes of every flavour, lengths, sizes."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from refstudy.analysis.figures import PALETTE, grid, overlay, show_image
from refstudy.analysis.tables import DATA_NAMES
from refstudy.data.masks import decode_mask
from refstudy.data.refer import read_image
from refstudy.data.samples import LONGEST, MOST_REFERENTS, real_figures, referents_per_picture
from refstudy.data.scenes import FLAVOURS

OURS, REAL = PALETTE["blue"], PALETTE["vermilion"]


def gallery(name: str, table: pd.DataFrame, columns: int = 6, start: int = 3) -> Figure:
    """One picture as it is, then one referent each of several pictures of a flavour's validation split, outlined."""
    images = table[table["split"] == "val"].drop_duplicates("image_id").iloc[start : start + columns]
    figure, axes = grid(1, columns + 1, cell=1.7)
    first = next(images.itertuples())
    show_image(axes[0, 0], read_image(first.image_path, first.height, first.width), "as it is")
    for axis, row in zip(axes[0, 1:], images.itertuples(), strict=True):
        mask = decode_mask(row.segmentation, row.height, row.width)
        overlay(
            axis,
            read_image(row.image_path, row.height, row.width),
            mask,
            title=textwrap.fill(f"“{row.expression}”", 20),
        )
    title = f"{DATA_NAMES[name]} (after {FLAVOURS[name].target.benchmark})"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def lengths(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The shares of expressions by number of words, ours and of the real validation splits."""
    real = real_figures("expressions by words")
    figure, axes = plt.subplots(1, len(tables), figsize=(9.6, 2.5), sharey=True)
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        bins, benchmark = np.arange(0.5, LONGEST + 1), FLAVOURS[name].target.benchmark
        own = table["words"].clip(upper=LONGEST).value_counts(normalize=True)
        axis.bar(own.index, 100 * own, 1.0, color=PALETTE["sky"], label="ours")
        axis.stairs(100 * real[benchmark], bins, linewidth=1.6, color=REAL, label="real val")
        axis.set(title=f"{DATA_NAMES[name]}\nafter {benchmark}", xlabel=f"words ({LONGEST}: or more)")
    axes[0].set_ylabel("expressions (%)")
    axes[-1].legend(loc="upper right")
    return figure


def sizes(shares: Mapping[str, np.ndarray], refscenes: pd.DataFrame) -> Figure:
    """How large referents are, as shares of the picture that their boxes cover, and how many of them RefScenes and
    RefCOCO have in a picture; ours and the real validation splits."""
    real = real_figures("box over picture, quantile")
    figure, axes = plt.subplots(1, len(shares) + 1, figsize=(12, 2.5), width_ratios=(*[1.0] * len(shares), 1.2))
    for axis, (name, own) in zip(axes, shares.items(), strict=False):
        benchmark = FLAVOURS[name].target.benchmark
        axis.plot(np.sort(own), np.linspace(0, 100, len(own)), color=OURS, label="ours")
        axis.plot(real[benchmark], 100 * real[benchmark].index, "--", color=REAL, label="real val")
        title = f"{DATA_NAMES[name]}\nafter {benchmark}"
        axis.set(xscale="log", xlim=(0.005, 1), title=title, xlabel="box over picture")
    axes[0].set_ylabel("referents up to this size (%)")
    axes[0].legend(loc="upper left")
    both = {"ours": referents_per_picture(refscenes), "real val": real_figures("pictures by referents")["RefCOCO"]}
    for k, (label, counts) in enumerate(both.items()):
        axes[-1].bar(counts.index + 0.4 * k - 0.2, 100 * counts, 0.38, label=label, color=(PALETTE["sky"], REAL)[k])
    axes[-1].set(xlabel=f"referents per picture ({MOST_REFERENTS}: or more)", ylabel="pictures (%)")
    axes[-1].set(title="RefScenes\nand RefCOCO", xticks=range(1, MOST_REFERENTS + 1))
    axes[-1].legend()
    return figure
