"""Charts of results: gains of parts, precision, learning, lengths and kinds of expressions, cost, claims of the papers.

Every chart draws numbers of tables or run records. A mark is hollow where it rests on fewer than ``LOOKS[0]`` runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from refstudy.analysis.figures import GREY, PALETTE, line_style, readable_on
from refstudy.analysis.inference import LOOKS, Estimate
from refstudy.analysis.tables import TABLES
from refstudy.base.config import THRESHOLD
from refstudy.training.records import Record

MARKS = "osD^vP*Xhd"
OURS = PALETTE["vermilion"]
HOLLOW = f"hollow: fewer than {LOOKS[0]} runs"
GROWTH_AXES = {"image size": "image side (px)", "batch": "images per batch", "words": "word pieces"}
FAMILIES = {"fpn": "with the FPN", "casg": "with CASG", "lavt": "LAVT", "slvit": "SLViT"}
AT_THE_RIGHT: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # of a legend
MAIN_VARIANTS = ("s2rm_fpn", "s2rm_casg", "lavt", "slvit", "tile_concat")  # one of each of FAMILIES, and the baseline
FEWEST = 20  # expressions: a point of fewer says little, and is not drawn


def gain_lines(tables: Mapping[str, pd.DataFrame], *stems: str) -> pd.DataFrame:
    """The lines of some of ``TABLES`` without those of the reference rows, with ``label``, the row in words; ``over``,
    the reference row; ``against``, its variant; ``of``, the table's number; ``fewer``, the number of runs of the row or
    of its reference, whichever has fewer."""
    parts = []
    for stem in stems:
        table, spec = tables[stem], TABLES[stem]
        own = table[table["row"] != spec.baseline]
        base = table[table["row"] == spec.baseline]
        own = own.assign(label=own["row"].replace(spec.labels), over=spec.reference, of=spec.title.split(":")[0])
        parts.append(own.assign(against=base["variant"].iloc[0], fewer=own["runs"].clip(upper=base["runs"].max())))
    return pd.concat(parts, ignore_index=True)


def mark(colour: str, runs: float, marker: str = "D") -> dict[str, Any]:
    """The style of a mark without a line: hollow where it rests on few ``runs``."""
    face = colour if runs >= LOOKS[0] else "white"
    return {"color": colour, "marker": marker, "markersize": 5.5, "markerfacecolor": face, "linestyle": ""}


def noted(text: str, runs: Iterable[float]) -> str:
    """A note with what a hollow mark means, if one of these numbers of ``runs`` makes a mark hollow."""
    return "; ".join(filter(None, (text, HOLLOW if min(runs, default=LOOKS[0]) < LOOKS[0] else "")))


def colour_of(variant: str) -> str:
    """The colour of one of the main variants, the same in every figure; grey for any other."""
    return line_style(MAIN_VARIANTS.index(variant))["color"] if variant in MAIN_VARIANTS else GREY


def family_colour(family: str) -> str:
    """The colour of a decoder or whole model: that of the main variant which has it."""
    return line_style([*FAMILIES, family].index(family))["color"]


def with_runs(label: str, runs: float) -> str:
    """A label with its number of runs in brackets."""
    return f"{label} ({runs:.0f} run{'s' if runs != 1 else ''})"


def small_grid(
    count: int, columns: int, width: float = 2.3, height: float = 1.9, sharey: bool = True
) -> tuple[Figure, np.ndarray]:
    """A figure of so many small panels, axes as a flat array; empty places are blank."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (width * columns, height * rows + 0.5)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=sharey)
    for k, axes in enumerate(grid.flat):
        axes.tick_params(labelbottom=k + columns >= count)
        axes.set_visible(k < count)
    return figure, grid.flat[:count]


def gains(panels: Sequence[tuple[str, str, pd.DataFrame, int]], printed_on: str, ours_on: str) -> Figure:
    """Gains in overall IoU as printed and as measured, a panel for each (title, label of the axis, lines, sign).

    Lines are ``gain_lines`` of one metric. With the sign -1 losses are drawn. A value of more than 15 points that is
    2.5 times as far from zero as all others is written at the border, with its interval.
    """
    heights = [len(lines) + 2.4 for _, _, lines, _ in panels]
    size = (8.2, 0.27 * sum(heights) + 0.4)
    figure, grid = plt.subplots(len(panels), 1, figsize=size, squeeze=False, height_ratios=heights)
    for axes, (title, label, lines, sign) in zip(grid[:, 0], panels, strict=True):
        shown = sign * lines[["printed_gain", "gain"]].to_numpy(float)
        sizes = np.sort(np.abs(shown[~np.isnan(shown)]))
        far = len(sizes) > 1 and sizes[-1] > max(15, 2.5 * sizes[-2])
        limit = sizes[-2 if far else -1]  # of what is to scale
        for y, (line, (printed, ours)) in enumerate(zip(lines.iloc[::-1].itertuples(), shown[::-1], strict=True)):
            axes.plot(printed, y, "o", markerfacecolor="white", markersize=6, color="black")
            ends = [sign * line.gain_low, sign * line.gain_high]
            side: dict[str, Any] = {"y": y, "va": "center", "fontsize": 8, "transform": axes.get_yaxis_transform()}
            if np.isnan(ours):
                axes.text(1.01, s="not trained", ha="left", color="0.4", **side)
            elif abs(ours) > limit:
                text = f"{ours:+.1f} [{', '.join(f'{end:.1f}' for end in sorted(ends))}]"
                x, text = (1.01, f"→ {text}") if ours > 0 else (0.01, f"← {text}")
                axes.text(x, s=text, ha="left", color=OURS, **side)
            else:
                axes.plot(ends, [y, y], color=OURS, linewidth=2)
                axes.plot(ours, y, **mark(OURS, line.fewer))
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_yticks(range(len(lines)), lines["label"].iloc[::-1])
        axes.set(xlabel=label, ylim=(-0.7, len(lines) - 0.3))
        axes.set_title(title, loc="left", fontweight="bold")
    style = {"marker": "o", "markerfacecolor": "white", "color": "black", "linestyle": ""}
    own = mark(OURS, LOOKS[0]) | {"linestyle": "-"}
    shown_runs = [runs for _, _, lines, _ in panels for runs in lines.loc[lines["gain"].notna(), "fewer"]]
    handles = axes.plot([], [], **style, label=f"printed ({printed_on})")
    handles += axes.plot([], [], **own, label=noted(f"ours ({ours_on}), 95 % interval", shown_runs))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def precision_gains(lines: pd.DataFrame) -> Figure:
    """Gains in the share of expressions above each IoU threshold, with their intervals, a small panel for each row of
    ``gain_lines`` that was measured, with the row that it is held against. Two variants have one panel, though several
    tables compare them. A panel has an axis of its own where its gains are 2.5 times those of the panel in the middle.
    """
    lines = lines[lines["metric"].str.startswith("P@")].dropna(subset=["gain"])
    sides = lines[["variant", "against"]].apply(frozenset, axis=1)
    first = lines.groupby(sides)["of"].transform("first")
    rows = list(lines[lines["of"] == first].groupby(["of", "label", "over"], sort=False))
    ends = [(line[["gain_low", "gain"]].min(axis=None), line[["gain", "gain_high"]].max(axis=None)) for _, line in rows]
    sizes = np.abs(ends).max(axis=1)
    alike = sizes <= max(5, 2.5 * np.median(sizes))
    low, high = (sign * max(0, *(sign * end for end in np.array(ends)[alike, k])) for k, sign in enumerate((-1, 1)))
    figure, panels = small_grid(len(rows), columns=4, width=2.5, height=2.1, sharey=False)
    for axes, ((of, label, over), line), common in zip(panels, rows, alike, strict=True):
        x = line["metric"].str.removeprefix("P@").astype(float)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.fill_between(x, line["gain_low"], line["gain_high"], color=OURS, alpha=0.2, linewidth=0)
        axes.plot(x, line["gain"], **mark(OURS, line["fewer"].iloc[0]) | {"linestyle": "-", "linewidth": 1.2})
        about = fill(f"{label} over {over}", 30)
        axes.set_title(f"{of}\n{about}\n{with_runs('', line['fewer'].iloc[0]).strip()}", fontsize=8)
        axes.set_xticks(x, [f"{value:g}" for value in x])
        if common:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        else:
            axes.set_ylabel("own axis", color=OURS)
    figure.supxlabel("IoU threshold X", fontsize=10)
    figure.supylabel("gain in P@X (points)", fontsize=10)
    return figure


def learning(
    panels: Mapping[str, Mapping[str, Sequence[Record]]],
    split: str,
    columns: int = 4,
    reference: str = "the table's reference row",
) -> Figure:
    """Overall IoU after each epoch, a line a run, a panel for each title: label -> its runs, each label in one colour,
    the first one grey. More than two columns share one legend, in which grey is the ``reference``."""
    figure, grid = small_grid(len(panels), columns, *((2.3, 1.9) if columns > 2 else (4.2, 2.8)))
    for axes, (title, groups) in zip(grid, panels.items(), strict=True):
        for k, (label, records) in enumerate(groups.items()):
            colour = line_style(k - 1)["color"] if k else GREY
            for number, record in enumerate(records):
                curve = record.curve().dropna(subset=[f"{split}_oIoU"])
                x, y = curve["pairs"] * record.config.train.epochs / curve["pairs"].max(), curve[f"{split}_oIoU"]
                axes.plot(x, y, color=colour, linewidth=1.2, label=None if number else label)
        parts = title.split(": ", 1) if columns > 2 else [title]
        heading = "\n".join(fill(part, 32 if columns > 2 else 62) for part in parts)
        axes.set_title(heading, fontsize=8 if columns > 2 else 9)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if columns <= 2:
            axes.legend(loc="upper left", fontsize=8)
    if columns <= 2:
        low, high = grid[0].get_ylim()
        grid[0].set_ylim(low, high + 0.35 * (high - low))  # the legends stand above the lines
    else:
        lines = [Line2D([], [], color=colour) for colour in (GREY, line_style(0)["color"])]
        about = (f"{reference}, a line a run", "what the title names, a line a run")
        figure.legend(lines, about, loc="outside upper center", ncols=2, fontsize=8)
    figure.supxlabel("epochs", fontsize=10)
    figure.supylabel("overall IoU (%)", fontsize=10)
    return figure


def trained_regions(levels: Mapping[int, Estimate], runs: Mapping[int, int], ours_on: str) -> Figure:
    """Overall IoU of SLViT trained with K regions, a mark a K, 0 without URCE; three or more are joined by a line."""
    figure, axes = plt.subplots(figsize=(5.2, 2.8))
    for k, level in levels.items():
        axes.vlines(k, *np.round(level.interval(), 2), color=OURS)
        axes.plot(k, round(float(level.points), 2), **mark(OURS, runs[k]))
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
        axes.annotate(with_runs("", runs[k]).strip(), (k, float(level.points)), (6, 0), **style)
    if len(levels) > 2:
        axes.plot(list(levels), [round(float(level.points), 2) for level in levels.values()], color=OURS, zorder=0)
    axes.set_xticks(list(levels))
    axes.set(xlabel="regions K (0: without URCE)", ylabel=f"overall IoU (%)\n{ours_on}")
    axes.set_title(noted("bars: 95 % intervals", runs.values()), loc="left", fontsize=9)
    return figure


def length_buckets(table: pd.DataFrame, own: str) -> Figure:
    """Overall IoU by number of words, from Table III: a panel of printed lines for each data set, and one for ours, on
    the data that it names (``own`` is our model)."""
    datasets, measured = list(table["dataset"].unique()), table[table["ours"].notna()]
    figure, grid = plt.subplots(1, len(datasets) + 1, figsize=(10.4, 3.3), sharey=True)
    styles = {name: line_style(k) for k, name in enumerate(table["row"].unique())}
    for axes, dataset in zip(grid, datasets, strict=False):
        for name, line in table[table["dataset"] == dataset].groupby("row", sort=False):
            axes.plot(line["bucket"], line["printed"], **styles[name], marker="o", markersize=3, label=name)
        axes.set_title(f"{dataset}\nprinted")
    for k, ((name, data), line) in enumerate(measured.groupby(["row", "data"], sort=False)):
        ends = [line["ours"] - line["ours_low"], line["ours_high"] - line["ours"]]
        runs = line["runs"].max()
        style = mark(styles[name]["color"], runs, MARKS[2 + k]) | styles[name] | {"capsize": 3}
        grid[-1].errorbar(line["bucket"], line["ours"], ends, **style, label=noted(f"{own}, as {name}", [runs]))
        grid[-1].set_title(f"{data}\nours")
    if measured.empty:
        grid[-1].set_title("ours\nnot trained")
        grid[-1].set_xticks([])
    for axes in grid:
        axes.set(xlabel="words", ylim=(0, None))
        axes.margins(x=0.12)
    grid[0].set_ylabel("overall IoU (%)")
    handles = {text: handle for axes in grid for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def length_curve(lines: pd.DataFrame, labels: Mapping[str, str], ours_on: str) -> Figure:
    """Overall IoU by the exact number of words, a line a variant, and below it how many expressions have that length;
    lengths of fewer than ``FEWEST`` expressions are left out, and the axis ends at the last that is drawn."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.6, 4.6), sharex=True, height_ratios=[3, 1])
    drawn = lines[(lines["expressions"] >= FEWEST) & lines["ours"].notna()]
    for k, (name, line) in enumerate(drawn.groupby("variant", sort=False)):
        runs = line["runs"].max()
        style = mark(colour_of(name), runs, MARKS[k % len(MARKS)]) | {"linestyle": "-"}
        above.plot(line["words"], line["ours"], **style, label=with_runs(labels[name], runs))
    counts = lines.groupby("words")["expressions"].max().loc[: drawn["words"].max()]
    below.bar(counts.index, counts, width=0.6, color="lightgrey")
    above.set(ylabel="overall IoU (%)", title=ours_on)
    above.legend(**AT_THE_RIGHT, title=noted("", drawn["runs"]))
    below.set(xlabel="words in the expression", ylabel="expressions", xticks=counts.index)
    return figure


def kinds(lines: pd.DataFrame, labels: Mapping[str, str], ours_on: str) -> Figure:
    """Overall IoU by kind of expression with 95 % intervals, a mark a variant."""
    order, variants = list(lines["kind"].unique()), list(lines["variant"].unique())
    figure, axes = plt.subplots(figsize=(7.6, 3.6))
    for k, name in enumerate(variants):
        line = lines[lines["variant"] == name].set_index("kind").reindex(order)
        ends, runs = [line["ours"] - line["ours_low"], line["ours_high"] - line["ours"]], line["runs"].max()
        style = mark(colour_of(name), runs, MARKS[k % len(MARKS)]) | {"label": with_runs(labels[name], runs)}
        axes.errorbar(_next_to(order, k, len(variants)), line["ours"], ends, **style)
    counts = lines.groupby("kind")["expressions"].max()
    axes.set_xticks(range(len(order)), [f"{kind}\n({counts[kind]})" for kind in order])
    axes.set(ylabel="overall IoU (%)", title=ours_on)
    axes.legend(**AT_THE_RIGHT, title=noted("", lines["runs"]))
    return figure


def _next_to(order: Sequence[str], k: int, count: int) -> np.ndarray:
    """The places of the k-th of ``count`` marks in each group."""
    return np.arange(len(order)) + 0.7 / count * (k - (count - 1) / 2)


def seed_kinds(lines: pd.DataFrame, labels: Mapping[str, str], ours_on: str) -> Figure:
    """Overall IoU by kind of expression, a mark a training: a colour a variant, the seed written in the mark."""
    order, runs = list(lines["kind"].unique()), list(lines.groupby(["variant", "seed"], sort=False))
    figure, axes = plt.subplots(figsize=(7.6, 3.4))
    for k, ((name, seed), line) in enumerate(runs):
        x, y = _next_to(order, k, len(runs)), line.set_index("kind").reindex(order)["ours"]
        label = None if name in [earlier for (earlier, _), _ in runs[:k]] else labels[name]
        axes.plot(x, y, "o", markersize=11, color=colour_of(name), label=label)
        for at in zip(x, y, strict=True):
            axes.annotate(str(seed), at, ha="center", va="center", fontsize=7, color="white")
    axes.set_xticks(range(len(order)), order)
    axes.set(ylabel="overall IoU (%)", title=f"one mark a training, its seed in it; {ours_on}")
    axes.margins(y=0.12)
    axes.legend(**AT_THE_RIGHT)
    return figure


def cost_bars(costs: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Multiply-adds of one image with one expression, spent once per image and again per expression, a bar a line of
    ``refstudy.analysis.cost.cost_table``."""
    figure, axes = plt.subplots(figsize=(7.4, 3.4))
    rows = np.arange(len(costs))[::-1]
    first, further = costs["macs"] - costs["further"], costs["further"]
    bars = [
        axes.barh(rows, first, color=PALETTE["sky"], label="once per image"),
        axes.barh(rows, further, left=first, color=OURS, hatch="//", label="per expression"),
    ]
    written = axes.plot(costs["written"], rows, "k|", markersize=11, markeredgewidth=2, label="as the paper writes it")
    axes.set_yticks(rows, [f"{label}, {size} px" for label, size in zip(labels, costs["image_size"], strict=True)])
    axes.set_xlabel("G multiply-adds")
    axes.legend(handles=[*bars, *written], **AT_THE_RIGHT)
    return figure


def rank_pairs(pairs: pd.DataFrame, least: float, printed_on: str, ours_on: str) -> Figure:
    """``refstudy.analysis.agreement.row_pairs``: by how much one row is better than another, printed and measured, a
    colour and mark for each paper, bars of two standard errors; pairs that are turned round have numbers, and names at
    the right. Pairs nearer than ``least`` points in print are in the grey zone, and their names say so."""
    figure, axes = plt.subplots(figsize=(7.8, 4.4))
    axes.axhline(0, color=GREY, linewidth=1)
    for k, (paper, stem) in enumerate({"S²RM": "s2rm", "SLViT": "slvit"}.items()):
        some = pairs[pairs["table"].str.startswith(stem)]
        style: dict[str, Any] = {"color": line_style(k)["color"], "marker": MARKS[k], "linestyle": "", "elinewidth": 1}
        axes.errorbar(
            some["printed"], some["measured"], 2 * some["error"].fillna(0), **style, label=f"tables of {paper}"
        )
    axes.axvspan(0, least, color=GREY, alpha=0.3, linewidth=0, label=f"printed difference below {least:g}")
    axes.set_xlabel(f"printed difference of two rows ({printed_on}), points of overall IoU")
    axes.set_ylabel(f"difference of the same rows here\n({ours_on})")
    axes.set_xlim(0, 1.06 * pairs["printed"].max())
    turned = pairs[pairs["measured"] < 0].sort_values("measured", ascending=False)
    listed = ["turned round here:"]
    for k, pair in enumerate(turned.itertuples(), 1):
        listed.append(f"{k} {pair.better} over {pair.worse}{' (grey)' * (pair.printed < least)}")
        axes.annotate(str(k), (pair.printed, pair.measured), (5, -3), textcoords="offset points", va="top", fontsize=8)
    if len(turned):
        axes.text(1.02, 0.5, "\n".join(listed), transform=axes.transAxes, va="center", fontsize=8, linespacing=1.6)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.5)
    return figure


def accuracy_and_cost(points: pd.DataFrame, ours_on: str) -> Figure:
    """Overall IoU against the cost of the models that were measured (above) and of their designs at the papers' sizes
    (below). Columns of ``points``: label, family, own_macs, own_parameters (NaN: this design is drawn below alone),
    design (what it is called below), macs, image_size, parameters, runs, ours, ours_low, ours_high. A colour and mark
    for each decoder or whole model; labels stand at the right."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(8.4, 7.8))
    points, families = points.sort_values("ours"), list(points["family"].str.partition(",")[0].unique())
    sizes = points["image_size"].map(", {:.0f} px".format) + points["parameters"].map(", {:.0f} M parameters".format)
    runs = pd.Series([with_runs(point.label, point.runs) for point in points.itertuples()], points.index)
    runs += points["own_parameters"].map(", {:.1f} M parameters".format)
    for axes, column, names in ((above, "own_macs", runs), (below, "macs", points["design"] + sizes)):
        drawn = points.dropna(subset=column)
        for point in drawn.itertuples():
            marked = MARKS[families.index(point.family.partition(",")[0])]
            style = mark(family_colour(point.family), point.runs, marked) | {"markersize": 7, "capsize": 4}
            ends = [[point.ours - point.ours_low], [point.ours_high - point.ours]]
            axes.errorbar(getattr(point, column), point.ours, ends, **style, elinewidth=1)
        right = 1.12 * drawn[column].max()
        _names_at_the_right(axes, drawn.assign(name=names, x=drawn[column]), right)
        axes.set(ylabel=f"overall IoU (%)\n{ours_on}", xlim=(0, right))
    above.set_xlabel("cost of the models that were measured (G multiply-adds)")
    below.set_xlabel("cost of these designs at the papers' sizes (G multiply-adds)")
    above.set_title(noted("bars: 95 % intervals", points["runs"]), loc="left", fontsize=9)
    return figure


def _names_at_the_right(axes: Axes, points: pd.DataFrame, right: float) -> None:
    """Write each ``name`` at the height of its point (``x``, ours), or above the one below it, with a line to it."""
    points, (low, high) = points.sort_values("ours"), axes.get_ylim()
    heights = points["ours"].to_numpy(float).copy()
    for k in range(1, len(heights)):
        heights[k] = max(heights[k], heights[k - 1] + 0.055 * max(high - low, 1))
    heights -= (heights - points["ours"]).mean()
    for point, height in zip(points.itertuples(), heights, strict=True):
        axes.plot([point.x, right], [point.ours, height], color=GREY, linewidth=0.5, zorder=0, clip_on=False)
        axes.text(right, height, f" {point.name}", va="center", fontsize=8)


def accuracy_and_minutes(points: pd.DataFrame, ours_on: str) -> Figure:
    """Overall IoU against the time of a training. Columns of ``points``: label, family, core_minutes, runs, ours,
    ours_low, ours_high. A colour and mark for each decoder or whole model, names at the right; the line joins the
    variants that no faster one reaches."""
    figure, axes = plt.subplots(figsize=(8.4, max(4.4, 0.4 * len(points))))
    for k, (family, some) in enumerate(points.groupby(points["family"].str.partition(",")[0], sort=False)):
        colour = family_colour(family)
        axes.vlines(some["core_minutes"], some["ours_low"], some["ours_high"], color=colour, linewidth=1)
        for point in some.itertuples():
            axes.plot(point.core_minutes, point.ours, **mark(colour, point.runs, MARKS[k]))
        axes.plot([], [], **mark(colour, LOOKS[0], MARKS[k]), label=FAMILIES.get(family, family))
    rising = points.sort_values(["core_minutes", "ours"], ascending=[True, False])
    best = rising[rising["ours"] > rising["ours"].cummax().shift(fill_value=-1)]
    last = {"core_minutes": points["core_minutes"].max(), "ours": best["ours"].max()}
    reached = pd.concat([best, pd.DataFrame([last])])
    right = 1.12 * points["core_minutes"].max()
    style: dict[str, Any] = {"color": GREY, "linewidth": 1.6, "linestyle": ":", "zorder": 0, "where": "post"}
    axes.step(reached["core_minutes"], reached["ours"], label="best whole training of at most so long", **style)
    _names_at_the_right(axes, points.assign(name=points["label"], x=points["core_minutes"]), right)
    axes.set(
        xlabel="estimated training time (minutes of one quiet core)",
        ylabel=f"overall IoU (%)\n{ours_on}",
        xlim=(0, right),
    )
    axes.set_title(noted("", points["runs"]), loc="left", fontsize=9)
    axes.legend(loc="upper left")
    return figure


def growth(measured: pd.DataFrame, slopes: pd.DataFrame) -> Figure:
    """Time above and memory below against each axis of ``benchmarks/bench_growth.py``, on logarithms, a line a model;
    the numbers at the right are exponents, as ``refstudy.analysis.cost.slopes`` fits them."""
    grown, models = measured["axis"].unique(), list(measured["model"].unique())
    fitted = slopes.set_index(["model", "axis"])
    size = (2.5 * len(grown), 5.4)
    figure, axes = plt.subplots(2, len(grown), figsize=size, squeeze=False, sharex="col", sharey="row")
    for column, axis in enumerate(grown):
        for row, (name, label) in enumerate({"seconds": "seconds", "peak_MB": "memory added (MiB)"}.items()):
            drawn = axes[row, column]
            drawn.set(xscale="log", yscale="log", ylabel="" if column else label)
            for k, model in enumerate(models):
                some = measured[(measured["axis"] == axis) & (measured["model"] == model)]
                style = line_style(k) | {"marker": MARKS[k], "markersize": 5, "fillstyle": "none"}
                drawn.plot(some["value"], some[name], **style, label=model)
            ends = {line.get_label(): line.get_ydata()[-1] for line in drawn.lines}
            for place, model in enumerate(sorted(models, key=lambda model: ends[model])):  # as the lines end
                at: dict[str, Any] = {"xycoords": "axes fraction", "va": "bottom", "fontsize": 8}
                at["color"] = line_style(models.index(model))["color"]
                drawn.annotate(f"{fitted.loc[(model, axis), name] + 0.0:.2f}", (1.01, 0.3 + 0.13 * place), **at)
            drawn.set_xticks(sorted(set(some["value"])), [str(value) for value in sorted(set(some["value"]))])
            drawn.minorticks_off()
            drawn.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            drawn.yaxis.set_major_formatter("{x:g}")
        axes[1, column].set_xlabel(GROWTH_AXES.get(axis, axis))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models))
    return figure


def audit(gains: pd.DataFrame) -> Figure:
    """Those gains of ``paper_audit`` that do not agree with the papers' tables, by section and, in each, by the size of
    the difference; two claims each of which has the other's recomputed number are marked as exchanged."""
    wrong = gains[~gains["agrees"]].assign(number=gains["claimed"].astype(float), size=gains["difference"].abs())
    wrong = wrong.sort_values(["paper", "place", "size"], ascending=[True, True, False]).reset_index(drop=True)
    sections = (wrong["paper"] + ", " + wrong["place"]).tolist()
    figure, axes = plt.subplots(figsize=(9.2, 0.25 * (len(wrong) + len(set(sections))) + 0.9))
    y, ticks = 0.0, []
    looks = {"last digit": (PALETTE["orange"], "s"), "differs": (OURS, "D")}  # a colour and a shape each
    for k, line in wrong.iterrows():
        if k == 0 or sections[k] != sections[k - 1]:
            style: dict[str, Any] = {"ha": "right", "va": "center", "fontweight": "bold", "fontsize": 8}
            axes.text(-0.01, y, sections[k], transform=axes.get_yaxis_transform(), **style)
            y -= 1
        colour, marker = looks[line["verdict"]]
        axes.plot([0, line["difference"]], [y, y], color=colour, linewidth=1.5)
        label = None if (line["verdict"] == wrong["verdict"][:k]).any() else line["verdict"]
        axes.plot(line["difference"], y, marker, color=colour, markersize=5, markeredgecolor="black", label=label)
        twin = wrong[(wrong["place"] == line["place"]) & (wrong["number"] - line["recomputed"]).abs().lt(0.005)]
        twin = twin[(twin["recomputed"] - line["number"]).abs().lt(0.005)].drop(index=k, errors="ignore")
        swapped = "   (exchanged)" if len(twin) else ""
        at = (max(line["difference"], 0), y)
        text = f"{line['claimed']} for {line['recomputed']:.2f}{swapped}"
        axes.annotate(text, at, (8, 0), textcoords="offset points", va="center", fontsize=8)
        ticks.append(y)
        y -= 1
    axes.set_yticks(ticks, wrong["claim"].str.replace(r"W\. | \[\d+\]", "", regex=True), fontsize=8)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set(xlabel="claimed minus recomputed, points", xlim=(-1.9, 2.4), ylim=(y + 0.3, 0.7))
    axes.legend(loc="lower right")
    return figure


def reliability(diagnosed: pd.DataFrame, error: float, title: str, groups: int = 10) -> Figure:
    """Left: mean precision and mean IoU of masks by their confidence, a mark for each of so many groups of equally many
    masks that mark something. Right: the confidence of hits and of misses. Of the table of
    ``refstudy.analysis.failures.diagnose_corpus``."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.2))
    marked = diagnosed[diagnosed["confidence"] > THRESHOLD].sort_values("confidence", kind="stable")
    means = marked.groupby(np.arange(len(marked)) * groups // len(marked))[["confidence", "precision", "iou"]].mean()
    ends = [means["confidence"].min(), means["confidence"].max()]
    left.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="equal to confidence")
    for name, label, colour, marker in (("precision", "precision", "green", "o"), ("iou", "IoU", "purple", "D")):
        left.plot(means["confidence"], means[name], marker, color=PALETTE[colour], label=label)
    left.set(xlabel="confidence", ylabel="mean over the group", title=f"calibration error {error:.2f}")
    left.legend(loc="best")
    figure.suptitle(title, fontsize=10)
    bins = np.linspace(diagnosed["confidence"].quantile(0.02), 1, 25)
    hits = diagnosed["cause"] == "hit"
    for chosen, name, colour in ((hits, "hits", "blue"), (~hits, "misses", "vermilion")):
        style = {"histtype": "step", "linewidth": 1.6, "color": PALETTE[colour], "label": name}
        right.hist(diagnosed.loc[chosen, "confidence"], bins, **style)
    right.set(xlabel="confidence", ylabel="expressions", title="confidence of hits and misses")
    right.legend(loc="upper left")
    return figure


def cause_shares(causes: pd.DataFrame, names: Sequence[str], title: str) -> Figure:
    """Share of each cause of ``refstudy.analysis.failures.cause_table``, a bar a kind; those above 5 % have numbers."""
    shares = causes.pivot(index="kind", columns="cause", values="share").loc[causes["kind"].unique()[::-1], list(names)]
    figure, axes = plt.subplots(figsize=(7.6, 3.0))
    looks = ("sky", "orange", "vermilion", "blue", "purple", "green", "black")
    colours = {"hit": "lightgrey"} | dict(zip([n for n in names if n != "hit"], map(PALETTE.get, looks), strict=False))
    left = np.zeros(len(shares))
    for name in names:
        bars = axes.barh(shares.index, shares[name], left=left, color=colours[name], label=name, edgecolor="white")
        numbers = [f"{width:.0f}" if width > 5 else "" for width in shares[name]]
        axes.bar_label(bars, numbers, label_type="center", fontsize=8, color=readable_on(colours[name]))
        left += shares[name]
    axes.set(xlabel="share of the expressions (%)", xlim=(0, 100), title=title)
    axes.legend(**AT_THE_RIGHT)
    return figure
