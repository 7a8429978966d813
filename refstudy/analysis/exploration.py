"""Counts of notebook 01: the four flavours of RefScenes, the benchmarks that they imitate, and data of the reader."""

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
from refstudy.data.scenes.census import census
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.data.source import prepare_data
from refstudy.study.file import ProfileStudy

MEANS = ("words per expression", "expressions per referent", "referents per image")
ONE_WORD, FIVE = "expressions of one word", "pictures with five referents or more"
SHARES = (WHERE, THE, ONE_WORD, FIVE)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
SIZES = tuple(f"box over picture, {at:.0%} quantile" for at in QUANTILES)


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
            table.to_csv(temporary, index=table.index.name is not None, float_format="%.3f", lineterminator="\n")


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


def measures(table: pd.DataFrame) -> dict[str, float]:
    """Figures of a data set: ``MEANS``, which papers publish; in percent, ``SHARES`` of expressions and pictures, and
    ``SIZES``, quantiles of the share of the picture that a referent's box covers."""
    referents = table["ref_id"].nunique()
    found = speech(table["expression"])
    found |= {ONE_WORD: (table["words"] == 1).mean(), FIVE: referents_per_picture(table).loc[5:].sum()}
    found |= dict(zip(SIZES, np.quantile(box_shares(table), QUANTILES), strict=True))
    means = (table["words"].mean(), len(table) / referents, referents / table["image_id"].nunique())
    return dict(zip(MEANS, means, strict=True)) | {name: 100 * float(share) for name, share in found.items()}


def real_measures(flavour: str) -> dict[str, float]:
    """``measures`` of the benchmark that a flavour imitates: the means as published, the others of its validation
    split."""
    target = FLAVOURS[flavour].target
    names = (WHERE, THE, "expressions by words", "pictures by referents", "box over picture, quantile")
    where, the, words, referents, sizes = (real_figures(name)[target.benchmark] for name in names)
    found = {WHERE: where.iloc[0], THE: the.iloc[0], ONE_WORD: words.loc[1], FIVE: referents.loc[5:].sum()}
    found |= {name: sizes[at] for name, at in zip(SIZES, QUANTILES, strict=True)}
    means = (target.words_per_expression, target.expressions_per_referent, target.referents_per_image)
    return dict(zip(MEANS, means, strict=True)) | {name: 100 * float(share) for name, share in found.items()}


def beside_real(flavours: Flavours) -> pd.DataFrame:
    """``measures`` of every flavour and of its benchmark: columns ours and real, by measure and flavour."""
    lines: dict[tuple[str, str], tuple[float, float]] = {}
    for name, table in flavours.tables.items():
        real = real_measures(name)
        lines |= {(measure, DATA_NAMES[name]): (ours, real[measure]) for measure, ours in measures(table).items()}
    return pd.DataFrame(lines, index=["ours", "real"]).T


def statistics(both: pd.DataFrame) -> pd.DataFrame:
    """The published ``MEANS`` and ours, from ``beside_real``: flavour, benchmark, statistic, ours, published,
    difference_percent."""
    lines = [
        (DATA_NAMES[name], flavour.target.benchmark, mean, *both.loc[(mean, DATA_NAMES[name])])
        for name, flavour in FLAVOURS.items()
        for mean in MEANS
    ]
    table = pd.DataFrame(lines, columns="flavour benchmark statistic ours published".split())
    return table.assign(difference_percent=100 * (table["ours"] / table["published"] - 1))


def own_statistics(own: Mapping[str, pd.DataFrame], flavours: Flavours) -> pd.DataFrame:
    """``measures``: a column for each data set of the reader's own, each flavour, and each benchmark."""
    ours = {DATA_NAMES[name]: measures(table) for name, table in flavours.tables.items()}
    real = {FLAVOURS[name].target.benchmark: real_measures(name) for name in flavours.tables}
    return pd.DataFrame({name: measures(table) for name, table in own.items()} | ours | real)


def held(flavours: Flavours) -> pd.DataFrame:
    """The ``census`` of every flavour, a column each."""
    counted = {name: census(root / name, FLAVOURS[name].split_by[0]) for name, root in flavours.roots.items()}
    return pd.DataFrame(counted).rename(columns=DATA_NAMES).rename_axis("figure")
