"""The study, a copy of its notebooks, and run records made up for tests: counts of expressions, the record's folder."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.study.load import load_study
from refstudy.training.records import circumstances, write_record

ROOT = Path(__file__).resolve().parents[1]
STUDY = load_study(ROOT / "papermill_runs.yaml")


def copy_notebooks(folder):
    """The notebooks with the files that they name, for a study file in ``folder``."""
    for name in ("notebooks", "examples"):
        shutil.copytree(ROOT / name, folder / name)


def fake_counts(ious, images=20):
    """Counts of an expression per IoU over ``images`` images, with unions of 1000 pixels."""
    ious = np.asarray(ious)
    n = len(ious)
    return pd.DataFrame(
        {
            "sent_id": np.arange(n),
            "ref_id": np.arange(n),
            "image_id": np.arange(n) % images,
            "split": "val",
            "words": 3,
            "kind": "location",
            "intersection": (1000 * ious).astype(int),
            "union": 1000,
        }
    )


def put_counts(
    results, variant, counts, profile="scenes", seed=0, study=STUDY, data="one", masks=None, precision="float32"
):
    """Write the record of a run that has these counts, and these masks by ``sent_id``, under ``results``."""
    config = study.run_config(profile, variant, seed)
    curve = pd.DataFrame({"update": [1], "pairs": [1], "loss": [0.5], "val_oIoU": [1.0]})
    summary = {"updates": 1, "data_fingerprint": data}
    write_record(results / "records", config, summary, curve, counts, circumstances() | {"precision": precision}, masks)


def put(results, variant, ious, images=20, **run):
    """Write the record of a run whose expressions have these IoUs on val."""
    put_counts(results, variant, fake_counts(ious, images), **run)
