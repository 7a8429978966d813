"""The plan of both papers on released data: what runs, what it needs, which cells it fills; and all of it in miniature,
on photographs of several sizes in REFER's own files."""

import json
import pickle
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from refstudy.cli import app
from refstudy.study import load_study

ROOT = Path(__file__).resolve().parents[1]
STUDY = load_study(ROOT / "papermill_runs.yaml")
PLAN = STUDY.together("refcoco")
SIZES = ((96, 64), (64, 80), (72, 72), (120, 50))  # width, height
PICTURES = {"train": 12, "val": 8, "testA": 4, "testB": 4, "test": 6}
COLOURS = {"red": (200, 40, 30), "blue": (40, 60, 200), "yellow": (230, 210, 60)}


def draw(path, number, spots):
    """A picture with coloured boxes on grey; every fourth is a grey JPEG, as some of COCO are."""
    width, height = SIZES[number % len(SIZES)]
    pixels = np.random.default_rng(number).integers(90, 150, (height, width, 3), dtype=np.uint8)
    for (x, y, w, h), colour in spots:
        pixels[y : y + h, x : x + w] = COLOURS[colour]
    picture = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture.convert("L") if number % 4 == 3 else picture).save(path, "JPEG")


def refer_folder(root, dataset, split_by, splits, pictures="images/mscoco/images/train2014"):
    """A data set in REFER's files: COCO's names, polygons in one or two parts, nothing that RefScenes adds."""
    images, annotations, refs = [], [], []
    order = [split for split in splits for _ in range(PICTURES[split])]
    for number, split in enumerate(order):
        width, height = SIZES[number % len(SIZES)]
        image_id = 100 + 7 * number
        name = f"COCO_train2014_{image_id:012d}.jpg"
        boxes = [(2, 4, width // 3, height // 2), (width // 2, height // 4, width // 3, height // 2)]
        spots = list(zip(boxes, (list(COLOURS)[(number + k) % 3] for k in (0, 1)), strict=True))
        draw(root / pictures / name, number, spots)
        images.append({"id": image_id, "file_name": name, "width": width, "height": height, "license": 1})
        for k, ((x, y, w, h), colour) in enumerate(spots):
            ann_id = 10 * image_id + k
            parts = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            if k:  # a thing in two parts
                parts = [
                    [x, y, x + w, y, x + w, y + h // 3, x, y + h // 3],
                    [x, y + h // 2, x + w, y + h // 2, x + w, y + h],
                ]
            about = {"id": ann_id, "image_id": image_id, "category_id": 1 + k, "iscrowd": 0, "area": float(w * h)}
            annotations.append(about | {"bbox": [x, y, w, h], "segmentation": parts})
            side = ("left", "right")[k]
            texts = [f"{colour} box", f"the thing on the {side}", f"{side} {colour} one, next to the kids' frisbee"]
            sentences = [
                {"sent": t, "raw": t, "tokens": t.split(), "sent_id": 10 * ann_id + j} for j, t in enumerate(texts)
            ]
            ref = {"ref_id": ann_id + 5, "ann_id": ann_id, "image_id": image_id, "category_id": 1 + k, "split": split}
            ref |= {"file_name": name.replace(".jpg", f"_{ann_id}.jpg"), "sent_ids": [s["sent_id"] for s in sentences]}
            refs.append(ref | {"sentences": sentences})
    categories = [{"id": k, "name": name, "supercategory": "thing"} for k, name in ((1, "box"), (2, "frisbee"))]
    folder = root / dataset
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    instances = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(instances))


def miniature(folder):
    """The study file with all profiles of the plan narrow, small and short, and nothing pretrained; its notebooks."""
    content = yaml.safe_load((ROOT / "papermill_runs.yaml").read_text())
    small = content["profiles"]["smoke"]
    for name in PLAN:
        profile = content["profiles"][name]
        profile["data"]["image_size"] = 64
        profile["model"], profile["part_options"] = small["model"], small["part_options"]
        profile["train"] |= {"epochs": 1, "images_per_batch": 4, "learning_rate": 1e-3}
        for special in profile["special"].values():
            special.pop("image", None)
            special["data"]["image_size"] = 96
        profile["special"]["slvit"]["train"] |= {"epochs": 1, "images_per_batch": 4}
        profile["live"] |= {"scenes": {"train": 8, "val": 4}, "epochs": 1}
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    path = folder / "papermill_runs.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return load_study(path)


def call(study, command, *options):
    return CliRunner().invoke(app, [command, "--study", str(study.path), *options])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The plan in miniature, with three data sets and a few runs trained."""
    folder = tmp_path_factory.mktemp("released")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFSTUDY_DATA", str(folder / "photos"))
        refer_folder(folder / "photos", "refcoco", "unc", ("train", "val", "testA", "testB"))
        refer_folder(folder / "photos", "refcocog", "umd", ("train", "val", "test"))
        refer_folder(folder / "photos", "refclef", "berkeley", ("train", "val", "test"), "images/saiapr_tc-12")
        study = miniature(folder)
        for profile, variants in TRAINED.items():
            chosen = [option for name in variants for option in ("--variant", name)]
            done = call(study, "train", "--profile", profile, *chosen)
            assert done.exit_code == 0, done.output + repr(done.exception)
        yield study


TRAINED = {
    "refcoco": ("s2rm_casg", "slvit"),
    "refcoco_swinb": ("s2rm_casg", "lavt"),
    "refcocog_umd": ("s2rm_casg",),
    "referit": ("s2rm_casg",),
}


def test_every_notebook_runs_and_the_tables_say_what_they_were_measured_on(study):
    done = call(study, "run", "--profile", "refcoco", "--set", "scenes_per_split=10", "--workers", "1")
    assert done.exit_code == 0, done.output + repr(done.exception)
    folder = study.results("refcoco")
    executed = {path.stem for path in (folder / "notebooks").glob("*.ipynb")}
    assert executed == {name for name, run in study.runs.items() if not run.trains}
    table = pd.read_csv(folder / "tables" / "s2rm_table7.csv").query("metric == 'oIoU'").set_index("row")
    assert table.loc["S²RM + CASG", "data"] == "RefCOCO (unc) val, 64 px"
    strips = pd.read_csv(folder / "tables" / "slvit_table2b.csv").query("ours == ours")
    assert set(strips["data"]) == {"RefCOCO (unc) val, 96 px"}  # SLViT's own size
    for path in (folder / "notebooks").glob("0[5-8]*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert any("RefCOCO (unc) val" in str(cell.get("outputs")) for cell in cells) or path.stem.startswith("08")
