"""The cost of a run of each variant of `scenes` and of the profiles beside it, in minutes of one core.

A few updates at their true size are timed (process time, one thread) and an evaluation of some pictures; a run is its
updates, its validations and the evaluation of its splits. Reading pictures and starting up are not counted.
"""

import time

import numpy as np
import pandas as pd
import torch
from measure import seconds, write

from refstudy.base.allocation import keep_freed_memory
from refstudy.data.batches import grouped_batches
from refstudy.data.refer import load_table
from refstudy.data.source import prepare_data
from refstudy.study.file import Study
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import Trainer

PROFILE, STEPS, PICTURES = "scenes", 3, 48


def minutes(study: Study, profile: str, variant: str, table: pd.DataFrame) -> float:
    """Core-minutes of one run on the data of ``table``."""
    config = study.run_config(profile, variant, 0)
    checked = config.train.selection_split
    small = config.data.model_copy(update={"scenes": {"train": 60, checked: PICTURES}})
    corpora, _ = load_corpora(small, config.model.text, ("train", checked), study.data_root, progress=False)
    trainer = Trainer(config.model_copy(update={"data": small}), corpora, study.encoders(profile, variant))
    grouping = (config.train.images_per_batch, config.train.expressions_per_image)
    batch = next(grouped_batches(corpora["train"], *grouping, 0, 0))
    update = seconds(lambda: trainer.step(batch), STEPS, clock=time.process_time)
    evaluated = seconds(lambda: trainer.counts(corpora[checked]), 1, clock=time.process_time)
    referents = table[table["split"] == "train"].groupby("image_id")["ref_id"].nunique()
    groups = np.ceil(referents / config.train.expressions_per_image).sum()
    updates = groups // config.train.images_per_batch * config.train.epochs
    counted = table["split"].value_counts()[[checked] * config.train.epochs + list(config.splits)].sum()
    return (updates * update + counted * evaluated / len(corpora[checked].table)) / 60


def block(study: Study, profile: str, variant: str) -> str:
    """The part of the study that a variant's runs belong to."""
    if profile != PROFILE:
        return f"whole models, {profile}"
    if len(study.seeds(profile, variant)) > len(study.profile(profile).seeds):
        return "headline rows"
    papers = {table.split("_")[0] for table in study.variants[variant].tables}
    if papers:
        return f"other rows of {' and '.join(sorted(papers))}'s tables"
    whole = study.variants[variant].whole
    return "Fig. 5(a) of slvit" if whole and "regions" in whole.options else "readings and causes, in no table"


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    study, rows = load_study(), []
    for profile in study.together(PROFILE):
        data = study.profile(profile).data
        table = load_table(data, prepare_data(data, study.data_root))
        for variant in study.variant_names(profile):
            named = {"block": block(study, profile, variant), "profile": profile, "variant": variant}
            cost = {"core_minutes": round(minutes(study, profile, variant, table), 1)}
            rows.append(named | cost | {"runs": len(study.seeds(profile, variant))})
            print("  ".join(map(str, rows[-1].values())), flush=True)
    write("core_hours", rows)


if __name__ == "__main__":
    main()
