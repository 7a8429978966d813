"""The figures of the lessons on training (notebooks 04, 11): schedule, curve, masks, and what seeds alone do."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from refstudy.analysis.figures import PALETTE, grid, overlay, show_image
from refstudy.analysis.live import Training
from refstudy.analysis.seeds import chance_of_gain, seed_spread
from refstudy.base.config import TrainConfig
from refstudy.training.evaluation import summarize_counts
from refstudy.training.optim import learning_rate


def schedule(settings: TrainConfig, total: int) -> Figure:
    """The learning rate of each of ``total`` updates."""
    figure, axes = plt.subplots(figsize=(4.6, 2.4))
    axes.plot(range(total), [1000 * learning_rate(settings, update, total) for update in range(total)])
    axes.set(xlabel="update", ylabel="learning rate (10⁻³)", title="warm-up, then polynomial decay")
    return figure


def curve(training: Training, floors: Mapping[str, pd.DataFrame]) -> Figure:
    """Left the training loss, right overall IoU at each validation, with the scores of masks that ignore the words."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.9), sharex=True)
    loss = training.curve.dropna(subset=["loss"])
    left.plot(loss["update"], loss["loss"], "o-", markersize=3, color=PALETTE["blue"])
    left.set(xlabel="update", ylabel="dice loss (training)", title="the loss falls")
    validated = training.curve.dropna(subset=["val_oIoU"])
    score = list(zip(validated["update"], validated["val_oIoU"], strict=True))
    score = [(0, training.moments[0].oIoU), *score] if training.moments else score
    right.plot(*zip(*score, strict=True), "o-", color=PALETTE["vermilion"], clip_on=False)
    heights = {name: summarize_counts(counts)["oIoU"] for name, counts in floors.items()}
    for name, height in heights.items():
        right.axhline(height, color="grey", linestyle="--", linewidth=1)
        side = right.get_yaxis_transform()
        right.text(1.02, height, textwrap.fill(name, 21), va="center", fontsize=8, transform=side)
    top = 1.15 * max(*(value for _, value in score), *heights.values())
    right.set(xlabel="update", ylabel="overall IoU (%)", title=training.measured_on, ylim=(0, top))
    return figure


def masks(training: Training) -> Figure:
    """A row for each expression shown: picture, the mask at every moment, the truth."""
    val, moments = training.val, training.moments
    figure, axes = grid(len(training.shown), len(moments) + 2, cell=1.6)
    for number, (line, row) in enumerate(zip(axes, training.shown, strict=True)):
        image = val.picture(row)
        show_image(line[0], image, f"“{val.table.loc[row, 'expression']}”")
        for axis, moment in zip(line[1:], moments, strict=False):
            overlay(axis, image, moment.masks[number])
        overlay(line[-1], image, val.truth(row), "blue")
    scores = [f"update {moment.update}\nval: {moment.oIoU:.0f} % overall IoU" for moment in moments]
    for axis, name in zip(axes[-1], ["picture", *scores, "truth"], strict=True):
        axis.text(0.5, -0.05, name, transform=axis.transAxes, ha="center", va="top", fontsize=9)
    return figure


def seed_chances(runs: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Left the runs of each variant that has several (``runs_by_seed``), right the chance that a module without a gain
    looks better by 1, 2 or 3 points, for 1 to 8 seeds a side."""
    several = runs[runs.groupby("variant")["seed"].transform("count") > 1]
    names = list(several["variant"].unique())
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 0.45 * len(names) + 2.6), width_ratios=(1.2, 1))
    for place, name in enumerate(names):
        own = several.loc[several["variant"] == name, "oIoU"]
        left.plot(own, [place] * len(own), "o", color=PALETTE["blue"], alpha=0.7)
    left.set_yticks(range(len(names)), [textwrap.fill(labels.get(name, name), 18) for name in names])
    left.set(xlabel="overall IoU (%) of each seed", title="equal runs, but for the seed", ylim=(len(names) - 0.4, -0.6))
    seeds = range(1, 9)
    for gain, colour in ((1, "vermilion"), (2, "orange"), (3, "green")):
        chances = [100 * chance_of_gain(seed_spread(runs), count, gain) for count in seeds]
        right.plot(seeds, chances, "o-", color=PALETTE[colour], label=f"{gain} point{'s' * (gain > 1)} or more")
    right.axvline(3, color="grey", linestyle="--", linewidth=1)
    right.set(xlabel="seeds a side", ylabel="chance (%)", title="a gain where there is none", ylim=(0, None))
    right.legend(title="looks better by", frameon=False)
    return figure
