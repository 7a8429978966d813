"""Counts of notebook 01: the four flavours of RefScenes, the benchmarks that they imitate, and a reader's own data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.analysis.data_names import DATA_NAMES
from refstudy.base.config import DataConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write, note
from refstudy.data.refer import find_below, load_leniently, load_refer
from refstudy.data.samples import THE, WHERE, box_shares, real_figures, referents_per_picture, speech
from refstudy.data.scenes import FLAVOURS
from refstudy.data.scenes.census import census
from refstudy.data.source import prepare_data
from refstudy.study.file import ProfileStudy

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
ONE_WORD, FIVE = "expressions of one word", "pictures with five referents or more"


@dataclass(frozen=True)
class Flavours:
    """Scenes of every flavour: the study, and for each flavour its root and ``load_refer``'s table."""

    study: ProfileStudy
    roots: dict[str, Path]
    tables: dict[str, pd.DataFrame]

    def pictures(self) -> pd.DataFrame:
        """The number of pictures by split (rows) and flavour."""
        counts = {DATA_NAMES[name]: table.groupby("split")["image_id"].nunique() for name, table in self.tables.items()}
        return pd.DataFrame(counts).fillna(0).astype(int)

    def keep(self, table: pd.DataFrame, name: str) -> None:
        """Write a table, with its index if that has a name, among those of the results."""
        with atomic_write(self.study.folder / "tables" / f"{name}.csv") as temporary:
            named = table.index.name is not None
            table.to_csv(temporary, index=named, float_format="%.3f", lineterminator="\n")


def make_flavours(study: ProfileStudy, scenes_per_split: int, seed: int) -> Flavours:
    """Make so many scenes of each split of each flavour, and read them."""
    roots, tables = {}, {}
    for name, flavour in FLAVOURS.items():
        scenes = dict.fromkeys(flavour.splits, scenes_per_split)
        config = DataConfig(dataset=name, scenes=scenes, scenes_seed=seed, scenes_version=flavour.version)
        roots[name] = prepare_data(config, study.file.data_root, progress=False)
        tables[name] = load_refer(roots[name], name, flavour.split_by[0])
    return Flavours(study, roots, tables)


def read_own(flavours: Flavours, folder: str) -> dict[str, pd.DataFrame]:
    """The data sets in a folder that `refstudy data check` accepts, by name: ``load_refer``'s tables without broken
    entries, whose number is printed. A relative path starts at the study file. No folder, no data.

    Raises StudyError where the folder holds no data set, or one that does not read.
    """
    root, tables = flavours.study.file.root / folder, {}
    for _, found in find_below(root) if folder else ():
        table, broken = load_leniently(found)
        note("read", found.path)
        name = f"{found.dataset} ({found.split_by})"
        tables[name] = table
        left_out = f", {len(broken)} broken entries left out: `refstudy data check {root}`" if broken else ""
        print(f"{name}: {found.form}, {len(table)} expressions{left_out}")
    if folder and not any(map(len, tables.values())):
        raise StudyError(f"{root}: no expressions there; `refstudy data check {root}` says why")
    return {name: table for name, table in tables.items() if len(table)}


def means(table: pd.DataFrame) -> dict[str, float]:
    """The means that papers publish about a data set."""
    pictures, referents = table["image_id"].nunique(), table["ref_id"].nunique()
    return {
        "words per expression": table["words"].mean(),
        "expressions per referent": len(table) / referents,
        "referents per image": referents / pictures,
    }


def shares(table: pd.DataFrame) -> dict[str, float]:
    """The shares of expressions by what they say, and of pictures with many referents, in percent."""
    found = speech(table["expression"]) | {
        ONE_WORD: float((table["words"] == 1).mean()),
        FIVE: float(referents_per_picture(table).loc[5:].sum()),
    }
    return {measure: 100 * share for measure, share in found.items()}


def sizes(tables: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """The share of the picture that the box of each referent covers, by data set."""
    return {name: box_shares(table) for name, table in tables.items()}


def statistics(flavours: Flavours) -> pd.DataFrame:
    """The published statistics of every benchmark and ours: flavour, benchmark, statistic, ours, published,
    difference_percent."""
    rows = []
    for name, table in flavours.tables.items():
        target = FLAVOURS[name].target
        for (what, ours), published in zip(means(table).items(), _published(name), strict=True):
            rows.append((DATA_NAMES[name], target.benchmark, what, ours, published, 100 * (ours / published - 1)))
    columns = ["flavour", "benchmark", "statistic", "ours", "published", "difference_percent"]
    return pd.DataFrame(rows, columns=columns)


def _published(flavour: str) -> tuple[float, float, float]:
    """``means`` as published of the benchmark that a flavour imitates."""
    target = FLAVOURS[flavour].target
    return target.words_per_expression, target.expressions_per_referent, target.referents_per_image


def size_quantiles(of_flavours: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Quantiles of ``sizes`` in percent, ours and those of the real validation splits, by flavour and quantile."""
    real, lines = real_figures("box over picture, quantile"), {}
    for name, own in of_flavours.items():
        for at in QUANTILES:
            theirs = real[FLAVOURS[name].target.benchmark][at]
            lines[DATA_NAMES[name], f"{at:.0%}"] = (100 * np.quantile(own, at), 100 * theirs)
    return pd.DataFrame(lines, index=["ours", "real val"]).T


def shares_beside_real(flavours: Flavours) -> pd.DataFrame:
    """``shares``, ours and of the real validation splits, by measure and flavour."""
    lines: dict[tuple[str, str], tuple[float, float]] = {}
    for name, table in flavours.tables.items():
        own, theirs = shares(table), _real_shares(FLAVOURS[name].target.benchmark)
        lines |= {(measure, DATA_NAMES[name]): (own[measure], theirs[measure]) for measure in own}
    return pd.DataFrame(lines, index=["ours", "real val"]).T.sort_index(level=0, sort_remaining=False)


def _real_shares(benchmark: str) -> dict[str, float]:
    """``shares`` of the real validation split of a benchmark."""
    found = {measure: real_figures(measure)[benchmark].iloc[0] for measure in (WHERE, THE)}
    found[ONE_WORD] = real_figures("expressions by words")[benchmark].loc[1]
    found[FIVE] = real_figures("pictures by referents")[benchmark].loc[5:].sum()
    return {measure: 100 * float(share) for measure, share in found.items()}


def own_statistics(own: Mapping[str, pd.DataFrame], flavours: Flavours) -> pd.DataFrame:
    """``means``, ``shares`` and quantiles of ``sizes`` in percent: a column for each data set of the reader's own, each
    flavour, and each benchmark (published means; the others of its validation split)."""
    columns = {}
    for name, table in {**own, **{DATA_NAMES[name]: table for name, table in flavours.tables.items()}}.items():
        quantiles = 100 * np.quantile(box_shares(table), QUANTILES)
        columns[name] = [*means(table).values(), *shares(table).values(), *quantiles]
    real = real_figures("box over picture, quantile")
    for name, flavour in FLAVOURS.items():
        benchmark = flavour.target.benchmark
        quantiles = [100 * real[benchmark][at] for at in QUANTILES]
        columns[benchmark] = [*_published(name), *_real_shares(benchmark).values(), *quantiles]
    some = next(iter(flavours.tables.values()))
    names = [*means(some), *shares(some), *(f"box over picture, {at:.0%} quantile" for at in QUANTILES)]
    return pd.DataFrame(columns, index=names)


def held(flavours: Flavours) -> pd.DataFrame:
    """The ``census`` of every flavour, a column each."""
    counted = {
        DATA_NAMES[name]: census(root / name, FLAVOURS[name].split_by[0]) for name, root in flavours.roots.items()
    }
    return pd.DataFrame(counted).rename_axis("figure")
