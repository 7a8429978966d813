"""What a run of each variant of profile `scenes` costs on one core of this processor, in minutes.

A few updates at their true size are timed (process time, one thread) and an evaluation of some pictures; a run is its
updates, its validations and the evaluation of its splits. Reading pictures and starting up are not counted.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from measure import write

from refstudy.base.allocation import keep_freed_memory
from refstudy.data.batches import grouped_batches
from refstudy.data.refer import load_table
from refstudy.data.source import prepare_data
from refstudy.study.file import Study
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import Trainer

PROFILE, STEPS, PICTURES = "scenes", 3, 48


def process_seconds(action: Callable[[], object], repeats: int) -> float:
    """The median process time of an action, after one that warms up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return statistics.median(times)


def minutes(study: Study, variant: str, table: pd.DataFrame) -> float:
    """Core-minutes of one run on the data of ``table``."""
    config = study.run_config(PROFILE, variant, 0)
    small = config.data.model_copy(update={"scenes": {"train": 60, "val": PICTURES}})
    corpora, _ = load_corpora(small, config.model.text, ("train", "val"), study.data_root, progress=False)
    trainer = Trainer(config.model_copy(update={"data": small}), corpora, study.encoders(PROFILE, variant))
    grouping = (config.train.images_per_batch, config.train.expressions_per_image)
    batch = next(grouped_batches(corpora["train"], *grouping, 0, 0))
    update = process_seconds(lambda: trainer.step(batch), STEPS)
    evaluated = process_seconds(lambda: trainer.counts(corpora["val"]), 1) / len(corpora["val"].table)
    referents = table[table["split"] == "train"].groupby("image_id")["ref_id"].nunique()
    groups = np.ceil(referents / config.train.expressions_per_image).sum()
    updates = groups // config.train.images_per_batch * config.train.epochs
    counted = table["split"].value_counts()[["val"] * config.train.epochs + list(config.splits)].sum()
    return (updates * update + counted * evaluated) / 60


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    study, rows = load_study(), []
    data = study.profile(PROFILE).data
    table = load_table(data, prepare_data(data, study.data_root))
    for variant in study.variant_names(PROFILE):
        one = round(minutes(study, variant, table), 1)
        rows.append({"variant": variant, "core_minutes": one, "runs": len(study.seeds(PROFILE, variant))})
        print(f"{variant}: {one} core-minutes a run", flush=True)
    write("core_hours", rows)


if __name__ == "__main__":
    main()
