"""Small samples of the real benchmarks, where they lie beside the repository; nothing depends on them."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

# benchmark -> the file of a real evaluation split, in the folder refcoco_csv
CSV_FILES = {
    "RefCOCO": "refcoco_unc_val.csv",
    "RefCOCO+": "refcoco+_unc_val.csv",
    "RefCOCOg": "refcocog_umd_val.csv",
}


def sample_folder() -> Path | None:
    """The folder that REFSTUDY_REALDATA names, or ``shared/realdata`` beside the repository; None without either."""
    named = os.environ.get("REFSTUDY_REALDATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "realdata"
    return folder if folder.is_dir() else None


def sample_expressions(folder: Path) -> pd.DataFrame:
    """Real expressions of the validation splits: benchmark, image_id, ref_id, expression, words, area.

    ``area`` is the referent's box as a share of its image, known for ReferIt only (NaN elsewhere: the lists of RefCOCO
    do not hold image sizes).
    """
    frames = []
    for benchmark, name in CSV_FILES.items():
        rows = pd.read_csv(folder / "refcoco_csv" / name)
        frames.append(
            pd.DataFrame(
                {"benchmark": benchmark, "image_id": rows["img_id"].astype(str), "ref_id": rows["ref_id"].astype(str)}
            ).assign(expression=rows["sent"].astype(str))
        )
    frames.append(_referit(folder / "referit"))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(words=table["expression"].str.split().str.len())


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


def _referit(folder: Path) -> pd.DataFrame:
    queries = json.loads((folder / "referit_query_val.json").read_text())
    boxes = json.loads((folder / "referit_bbox_trainval.json").read_text())
    sizes = json.loads((folder / "referit_imsize.json").read_text())
    rows = []
    for region, expressions in queries.items():
        image = region.split("_")[0]
        left, top, right, bottom = boxes[region]
        width, height = sizes[f"{image}.jpg"]
        area = (right - left + 1) * (bottom - top + 1) / (width * height)
        rows += [("ReferIt", image, region, text, area) for text in expressions]
    return pd.DataFrame(rows, columns=["benchmark", "image_id", "ref_id", "expression", "area"])
