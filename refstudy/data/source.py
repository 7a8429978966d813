"""Where the data of a run are: released data in their folder, RefScenes made on demand."""

import os
from pathlib import Path

import pandas as pd

from refstudy.config import DataConfig
from refstudy.data.refer import load_refer
from refstudy.data.scenes import FLAVOURS, VERSION, make_refscenes
from refstudy.errors import StudyError


def default_data_root(root: Path | str = ".") -> Path:
    """The folder that REFSTUDY_DATA names, otherwise ``data`` under ``root``."""
    named = os.environ.get("REFSTUDY_DATA")
    return Path(named) if named else Path(root) / "data"


def prepare_data(
    config: DataConfig, data_root: Path | str | None = None, workers: int = 1, progress: bool = True
) -> Path:
    """The root that ``load_refer`` takes for these data; RefScenes is made first where it is not yet there.

    Each size, seed and number of scenes has a root of its own, so that sets do not mix. Raises StudyError when the
    settings ask for scenes of another version than this code makes.
    """
    data_root = Path(data_root or default_data_root())
    if config.dataset not in FLAVOURS:
        return data_root
    if config.scenes_version != VERSION:
        raise StudyError(f"data: scenes_version '{config.scenes_version}' cannot be made; this code makes '{VERSION}'")
    counts = "-".join(f"{split}{config.scenes[split]}" for split in sorted(config.scenes))
    root = data_root / f"refscenes-v{VERSION}-{config.image_size}px-seed{config.scenes_seed}-{counts}"
    make_refscenes(root, config.dataset, config.scenes, config.scenes_seed, config.image_size, workers, progress)
    return root


def load_table(config: DataConfig, root: Path) -> pd.DataFrame:
    """``load_refer``'s table of these data under ``root``; of released data, where ``scenes`` names splits, those splits
    with so many pictures each, the first ones."""
    table = load_refer(root, config.dataset, config.split_by)
    if config.dataset in FLAVOURS or not config.scenes:
        return table
    of_split = {split: rows["image_id"].unique() for split, rows in table.groupby("split")}
    chosen = [
        (table["split"] == split) & table["image_id"].isin(of_split.get(split, [])[:pictures])
        for split, pictures in config.scenes.items()
    ]
    return table[pd.concat(chosen, axis=1).any(axis=1)].reset_index(drop=True)
