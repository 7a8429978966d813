"""The figures of the lesson on data (notebook 01): scenes of every flavour, lengths, sizes; data of the reader."""

import textwrap
from collections.abc import Mapping
from os.path import exists

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from refstudy.analysis.data_names import DATA_NAMES
from refstudy.analysis.figures import GREY, PALETTE, grid, line_style, overlay, show_image
from refstudy.data.masks import decode_mask
from refstudy.data.pictures import read_image
from refstudy.data.samples import LONGEST, MOST_REFERENTS, box_shares, real_figures, referents_per_picture
from refstudy.data.scenes.flavours import FLAVOURS

OURS, REAL = PALETTE["blue"], PALETTE["vermilion"]


def gallery(name: str, table: pd.DataFrame) -> Figure | None:
    """One picture as it is, then one referent each of six pictures of the validation split, or of all data without
    one: outlined, by its box where there is no mask. None where no picture is at hand."""
    own = table[table["split"] == "val"] if (table["split"] == "val").any() else table
    images = own.drop_duplicates("image_id").iloc[3 if name in FLAVOURS else 0 :]
    images = images[images["image_path"].map(exists)].iloc[:6]
    if images.empty:
        return None
    figure, axes = grid(1, len(images) + 1, cell=1.7)
    for axis, row in zip(axes[0, 1:], images.itertuples(), strict=True):
        picture = read_image(row.image_path, row.height or None, row.width or None)
        if axis is axes[0, 1]:
            show_image(axes[0, 0], picture, "as it is")
        x, y, wide, high = row.bbox
        corners = [x, y, x + wide, y, x + wide, y + high, x, y + high]
        mask = decode_mask(row.segmentation or [corners], *picture.shape[:2])
        overlay(axis, picture, mask)
        axis.set_title(textwrap.fill(f"“{row.expression}”", 20))
    title = f"{DATA_NAMES[name]} (after {FLAVOURS[name].target.benchmark})" if name in FLAVOURS else name
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


def sizes(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The sizes of referents, as shares of the picture that their boxes cover, and their number in pictures of
    RefScenes and RefCOCO; ours and the real validation splits."""
    real = real_figures("box over picture, quantile")
    figure, axes = plt.subplots(1, len(tables) + 1, figsize=(12, 2.5), width_ratios=(*[1.0] * len(tables), 1.2))
    for axis, (name, table) in zip(axes, tables.items(), strict=False):
        benchmark, own = FLAVOURS[name].target.benchmark, box_shares(table)
        axis.plot(np.sort(own), np.linspace(0, 100, len(own)), color=OURS, label="ours")
        axis.plot(real[benchmark], 100 * real[benchmark].index, "--", color=REAL, label="real val")
        title = f"{DATA_NAMES[name]}\nafter {benchmark}"
        axis.set(xscale="log", xlim=(0.005, 1), title=title, xlabel="box over picture")
    axes[0].set_ylabel("referents up to this size (%)")
    axes[0].legend(loc="upper left")
    own, coco = referents_per_picture(tables["refscenes"]), real_figures("pictures by referents")["RefCOCO"]
    axes[-1].bar(own.index - 0.2, 100 * own, 0.38, label="ours", color=PALETTE["sky"])
    axes[-1].bar(coco.index + 0.2, 100 * coco, 0.38, label="real val", color=REAL)
    axes[-1].set(xlabel=f"referents per picture ({MOST_REFERENTS}: or more)", ylabel="pictures (%)")
    axes[-1].set(title="RefScenes\nand RefCOCO", xticks=range(1, MOST_REFERENTS + 1))
    axes[-1].legend()
    return figure


def own_data(own: Mapping[str, pd.DataFrame], refscenes: pd.DataFrame) -> Figure:
    """Words per expression, and how large referents are, of a reader's own data, of RefScenes and of RefCOCO's real
    validation split."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.0))
    for k, (name, table) in enumerate({**own, "RefScenes": refscenes}.items()):
        words = table["words"].clip(upper=LONGEST).value_counts(normalize=True).sort_index()
        boxes = np.sort(box_shares(table))
        left.plot(words.index, 100 * words, **line_style(k), label=name)
        right.plot(boxes, np.linspace(0, 100, len(boxes)), **line_style(k))
    words, boxes = (real_figures(name)["RefCOCO"] for name in ("expressions by words", "box over picture, quantile"))
    left.plot(words.index, 100 * words, color=GREY, linestyle="--", label="RefCOCO, real val")
    right.plot(boxes, 100 * boxes.index, color=GREY, linestyle="--")
    left.set(xlabel=f"words ({LONGEST}: or more)", ylabel="expressions (%)")
    right.set(xscale="log", xlim=(0.002, 1), xlabel="box over picture", ylabel="referents up to this size (%)")
    left.legend()
    return figure
