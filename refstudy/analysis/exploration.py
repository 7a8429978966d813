"""What notebook 01 counts: the four flavours of RefScenes beside the benchmarks that they imitate."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.analysis.tables import DATA_NAMES
from refstudy.base.config import DataConfig
from refstudy.base.files import atomic_write
from refstudy.data.refer import load_refer
from refstudy.data.samples import real_figures, referents_per_picture, speech
from refstudy.data.scenes import FLAVOURS
from refstudy.data.scenes.census import census
from refstudy.data.source import prepare_data
from refstudy.study.file import ProfileStudy

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


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


def statistics(flavours: Flavours) -> pd.DataFrame:
    """The published statistics of every benchmark and ours: flavour, benchmark, statistic, ours, published,
    difference_percent."""
    rows = []
    for name, table in flavours.tables.items():
        target, pictures = FLAVOURS[name].target, table["image_id"].nunique()
        measured = {
            "words per expression": (table["words"].mean(), target.words_per_expression),
            "expressions per referent": (len(table) / table["ref_id"].nunique(), target.expressions_per_referent),
            "referents per image": (table["ref_id"].nunique() / pictures, target.referents_per_image),
        }
        for what, (ours, published) in measured.items():
            rows.append((DATA_NAMES[name], target.benchmark, what, ours, published, 100 * (ours / published - 1)))
    columns = ["flavour", "benchmark", "statistic", "ours", "published", "difference_percent"]
    return pd.DataFrame(rows, columns=columns)


def sizes(flavours: Flavours) -> dict[str, np.ndarray]:
    """The share of the picture that the box of each referent covers, by flavour."""
    found = {}
    for name, table in flavours.tables.items():
        referents = table.drop_duplicates("ref_id")
        boxes = np.array(referents["bbox"].tolist())
        found[name] = boxes[:, 2] * boxes[:, 3] / (referents["height"] * referents["width"]).to_numpy()
    return found


def size_quantiles(shares: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Quantiles of ``sizes`` in percent, ours and those of the real validation splits, by flavour and quantile."""
    real, lines = real_figures("box over picture, quantile"), {}
    for name, own in shares.items():
        for at in QUANTILES:
            theirs = real[FLAVOURS[name].target.benchmark][at]
            lines[DATA_NAMES[name], f"{at:.0%}"] = (100 * np.quantile(own, at), 100 * theirs)
    return pd.DataFrame(lines, index=["ours", "real val"]).T


def shares_beside_real(flavours: Flavours) -> pd.DataFrame:
    """What is said, and about how many referents, in percent: ours and the real validation splits, by flavour."""
    lines = {}
    for name, table in flavours.tables.items():
        own = speech(table["expression"]) | {
            "expressions of one word": float((table["words"] == 1).mean()),
            "pictures with five referents or more": float(referents_per_picture(table).loc[5:].sum()),
        }
        benchmark = FLAVOURS[name].target.benchmark
        theirs = {
            **{measure: real_figures(measure)[benchmark].iloc[0] for measure in speech(table["expression"])},
            "expressions of one word": real_figures("expressions by words")[benchmark].loc[1],
            "pictures with five referents or more": real_figures("pictures by referents")[benchmark].loc[5:].sum(),
        }
        for measure, share in own.items():
            lines[measure, DATA_NAMES[name]] = (100 * share, 100 * theirs[measure])
    return pd.DataFrame(lines, index=["ours", "real val"]).T.sort_index(level=0, sort_remaining=False)


def held(flavours: Flavours) -> pd.DataFrame:
    """The ``census`` of every flavour, a column each."""
    counted = {
        DATA_NAMES[name]: census(root / name, FLAVOURS[name].split_by[0]) for name, root in flavours.roots.items()
    }
    return pd.DataFrame(counted).rename_axis("figure")
