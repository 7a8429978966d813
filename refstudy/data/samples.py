"""Small samples of the real benchmarks, where they lie beside the repository; nothing depends on them."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.data.refer import load_refer

# benchmark -> folder, data set and partition of a real validation split
SAMPLES = {
    "RefCOCO": ("refcoco_csv", "refcoco", "unc"),
    "RefCOCO+": ("refcoco_csv", "refcoco+", "unc"),
    "RefCOCOg": ("refcoco_csv", "refcocog", "umd"),
    "ReferIt": ("referit", "refclef", "berkeley"),
}


def sample_folder() -> Path | None:
    """The folder that REFSTUDY_REALDATA names, or ``shared/realdata`` beside the repository; None without either."""
    named = os.environ.get("REFSTUDY_REALDATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "realdata"
    return folder if folder.is_dir() else None


def sample_expressions(folder: Path) -> pd.DataFrame:
    """Real expressions of the validation splits: benchmark, image_id, ref_id, expression, area, words.

    ``area`` is the referent's box as a share of its image, known for ReferIt only (NaN elsewhere: the lists of RefCOCO
    do not hold image sizes).
    """
    frames = []
    for benchmark, (part, dataset, split_by) in SAMPLES.items():
        rows = load_refer(folder / part, dataset, split_by).query("split == 'val'")
        box = pd.DataFrame(rows["bbox"].tolist(), rows.index, ["x", "y", "width", "height"])
        frames.append(
            pd.DataFrame(
                {
                    "benchmark": benchmark,
                    "image_id": rows["image_id"].astype(str),
                    "ref_id": rows["ref_id"].astype(str),
                    "expression": rows["expression"],
                    "area": (box["width"] * box["height"] / (rows["height"] * rows["width"])).replace(np.inf, np.nan),
                    "words": rows["words"],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def sample_areas(folder: Path) -> dict[str, np.ndarray]:
    """Real shares of the image, by what was measured: masks of RefCOCO's referents and of COCO's things, ReferIt's
    boxes."""
    triples = json.loads((folder / "refcoco_triples" / "triples.json").read_text())
    coco = json.loads((folder / "coco_small" / "annotations" / "instances_train2017_128.json").read_text())
    pixels = {image["id"]: image["height"] * image["width"] for image in coco["images"]}
    things = [a["area"] / pixels[a["image_id"]] for a in coco["annotations"] if not a["iscrowd"]]
    boxes = sample_expressions(folder).drop_duplicates("ref_id")["area"].dropna()
    return {
        "RefCOCO val masks": np.array([t["mask_area"] / (t["width"] * t["height"]) for t in triples]),
        "COCO train masks": np.array(things),
        "ReferIt val boxes": boxes.to_numpy(),
    }
