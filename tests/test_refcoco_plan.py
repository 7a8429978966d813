"""The plan of both papers on released data: what runs, what it needs, which cells it fills; and all of it in miniature,
on photographs of several sizes in REFER's own files."""

import json
import os
import pickle
import shutil
import signal
import time

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image
from typer.testing import CliRunner

from refstudy.analysis.cost import gpu_hours
from refstudy.analysis.data_names import measured_on
from refstudy.analysis.lengths import kind_table, length_curve, length_table
from refstudy.analysis.rows import benchmark_splits
from refstudy.analysis.tables import TABLES, build_comparison, build_table
from refstudy.base.config import EvaluationConfig
from refstudy.base.errors import StudyError
from refstudy.cli import app
from refstudy.engine.needs import refuse_without
from refstudy.engine.signals import UNFINISHED, Stop, ended_in_time
from refstudy.papers.printed import SPLITS, printed_rows
from refstudy.study.load import load_study
from refstudy.training.records import find_records

from .helpers import ROOT, STUDY, copy_notebooks, put_counts

PLAN = STUDY.together("refcoco")
COCO_SPLITS = ("val", "testA", "testB")
SIZES = ((96, 64), (64, 80), (72, 72), (120, 50))  # width, height
PICTURES = {"train": 12, "val": 8, "testA": 4, "testB": 4, "test": 6}
COLOURS = {"red": (200, 40, 30), "blue": (40, 60, 200), "yellow": (230, 210, 60)}


def test_every_cell_of_the_main_tables_has_its_run():
    """The columns as printed; rows with the encoder that the papers name."""
    columns = benchmark_splits(STUDY.under("refcoco"))
    assert set(columns) == set(SPLITS)
    encoders = {"SwinT-Ours": "swin_tiny_patch4_window7", "SwinB-Ours": "swin_base_patch4_window7"}
    encoders["LAVT₂₂"] = "swin_base_patch4_window12"
    for column, (_, profiles) in columns.items():
        rows = {row: source for row, source in STUDY.rows("s2rm_table1", profiles).items() if row in encoders}
        trained = {row for row, (name, variant) in rows.items() if variant in STUDY.variant_names(name)}
        assert trained == set(encoders) - ({"LAVT₂₂"} if "ReferIt" in column else set()), column
        for row in trained:
            assert STUDY.run_config(*rows[row], 0).model.image.name.startswith(encoders[row]), (column, row)
        rows = STUDY.rows("slvit_table1", profiles)
        if "ReferIt" not in column:
            assert all(rows[row][1] in STUDY.variant_names(rows[row][0]) for row in ("Ours", "Ours (w/o URCE)", "LAVT"))


def test_every_row_of_the_ablations_is_trained():
    """All rows of the tables that compare parts, by the profile with Swin-T; Table II's LAVT and Swin-B beside it."""
    for stem, spec in TABLES.items():
        rows = STUDY.rows(stem, ("refcoco", "refcoco_swinb"))
        for row in set(printed_rows(stem).index) - set(spec.unfilled) | (
            {"SwinB-Ours"} if stem == "s2rm_table2" else set()
        ):
            name, variant = rows[row]
            assert variant in STUDY.variant_names(name), (stem, row)


def test_what_is_counted_otherwise_does_not_stand_in_one_table():
    study = load_study(STUDY.path)
    assert study.compared("refcoco") == ["refcoco", "refcoco_swinb"]
    other = EvaluationConfig(resolution="original")
    study.profiles["refcoco_swinb"] = study.profile("refcoco_swinb").model_copy(update={"evaluation": other})
    assert study.compared("refcoco") == ["refcoco"]


@pytest.mark.parametrize("profile", PLAN)
def test_settings_are_those_of_the_papers(profile):
    """S²RM, Sec. IV-B; SLViT, Sec. 4.2; LAVT's args.py."""
    for variant in STUDY.variant_names(profile):
        config = STUDY.run_config(profile, variant, 0)
        whole = config.model.whole.name if config.model.whole else "s2rm"
        side, rate, epochs, batch = {
            "s2rm": (512, 5e-5, 40, 32),
            "lavt": (480, 5e-5, 40, 32),
            "slvit": (480, 3e-5, 60, 16),
        }[whole]
        train = config.train
        assert (config.data.image_size, config.model.image_size, config.data.max_words) == (side, side, 20)
        assert (train.learning_rate, train.epochs, train.weight_decay, train.poly_power) == (rate, epochs, 0.01, 0.9)
        assert train.images_per_batch * train.expressions_per_image == batch
        assert train.precision == "bfloat16" and (train.warmup, train.clip_norm) == (0, None)
        assert config.model.text.name == "bert-base-uncased" and config.model.text.pretrained
        if whole == "slvit":
            assert config.model.whole.options["pretrained"].endswith("mscan_b.pth")
        else:
            assert config.model.image.pretrained and "22k" in config.model.image.name


def put(folder, profile, variant, share):
    """A record of a run of the real plan, in which every mask covers this share of its union."""
    config = STUDY.run_config(profile, variant, 0)
    rows = [(10 * k + n, k, s, 3) for n, s in enumerate(config.splits) for k in range(6)]
    counts = pd.DataFrame(rows, columns=["sent_id", "image_id", "split", "words"])
    counts = counts.assign(ref_id=counts["sent_id"], kind=None, intersection=int(1000 * share), union=1000)
    put_counts(folder / profile, variant, counts, profile)


def test_records_of_all_profiles_come_together_in_one_table(tmp_path):
    cells = {
        ("refcoco", "s2rm_casg"): ("SwinT-Ours", ["RefCOCO val", "RefCOCO testA", "RefCOCO testB"]),
        ("refcoco_swinb", "s2rm_casg"): ("SwinB-Ours", ["RefCOCO val", "RefCOCO testA", "RefCOCO testB"]),
        ("refcoco_swinb", "lavt"): ("LAVT₂₂", ["RefCOCO val", "RefCOCO testA", "RefCOCO testB"]),
        ("refcocop", "s2rm_casg"): ("SwinT-Ours", ["RefCOCO+ val", "RefCOCO+ testA", "RefCOCO+ testB"]),
        ("refcocog_umd", "s2rm_casg"): ("SwinT-Ours", ["RefCOCOg val-U", "RefCOCOg test-U"]),
        ("refcocog_google_swinb", "s2rm_casg"): ("SwinB-Ours", ["RefCOCOg val-G"]),
        ("referit", "s2rm_casg"): ("SwinT-Ours", ["ReferIt test"]),
    }
    expected = {}
    for number, ((profile, variant), (row, columns)) in enumerate(cells.items(), 1):
        put(tmp_path, profile, variant, number / 10)
        expected |= {(row, column): 10.0 * number for column in columns}
    for profile in ("refcoco", "referit_swinb"):  # the same table from wherever one looks
        table = build_comparison("s2rm_table1", STUDY.under(profile, tmp_path / profile))
        overall = table.query("metric == 'oIoU' and ours == ours").set_index(["row", "benchmark"])
        assert overall["ours"].astype(float).to_dict() == pytest.approx(expected)
        google = overall.loc[("SwinB-Ours", "RefCOCOg val-G"), "data"]
        assert google == "RefCOCOg (google) val, 512 px"
        assert overall.loc[("LAVT₂₂", "RefCOCO val"), "data"] == "RefCOCO (unc) val, 480 px"
        missing = table.query("row == 'SwinB-Ours' and benchmark == 'ReferIt test'")["missing"]
        assert set(missing) == {"refstudy train --profile referit_swinb --variant s2rm_casg"}
    two = build_table("s2rm_table2", STUDY.under("refcoco", tmp_path / "refcoco")).query("metric == 'oIoU'")
    assert two.set_index("row")["ours"].dropna().to_dict() == pytest.approx(
        {"SwinT-Ours": 10, "SwinB-Ours": 20, "LAVT": 30}
    )
    lengths = length_table(STUDY.under("refcoco", tmp_path / "refcoco")).query("ours == ours")
    assert set(zip(lengths["row"], lengths["dataset"], strict=True)) == {  # RefCOCOg: the partition of Google
        ("SwinT-Ours", "RefCOCO"),
        ("SwinB-Ours", "RefCOCO"),
        ("SwinT-Ours", "RefCOCO+"),
        ("SwinB-Ours", "RefCOCOg (Google)"),
        ("SwinT-Ours", "ReferIt"),
    }


def test_gpu_hours_are_the_sum_of_their_parts():
    """SLViT on RefCOCO with round numbers: one expression an image, so each referent encodes its image."""
    config = STUDY.run_config("refcoco", "slvit", 0)
    training = 60 * 42404 * 3 * 2 * 50e9
    tests = [(1500, 10834), (1500, 10834), (750, 5657), (750, 5095)]  # val again at the end
    often = [60, 1, 1, 1]
    evaluations = sum(n * 2 * (10e9 * i + 40e9 * e) for n, (i, e) in zip(often, tests, strict=True))
    assert gpu_hours(config, 50, 40, rate=100) == pytest.approx((training + evaluations) / 100e12 / 3600)
    assert gpu_hours(config, 50, 40, rate=200) == pytest.approx(gpu_hours(config, 50, 40, rate=100) / 2)
    shared = STUDY.run_config("refcoco", "s2rm_casg", 0)
    alone = shared.model_copy(update={"train": shared.train.model_copy(update={"expressions_per_image": 1})})
    assert gpu_hours(shared, 50, 40) < gpu_hours(alone, 50, 40) < 1.3 * gpu_hours(shared, 50, 40)
    assert np.isnan(gpu_hours(STUDY.run_config("scenes", "s2rm_casg", 0), 50, 40))


def test_without_data_the_commands_say_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("REFSTUDY_DATA", str(tmp_path / "empty"))
    planned = call(STUDY, "run", "--profile", "refcoco", "--dry-run")
    assert planned.exit_code == 0
    lines = [line for line in planned.output.splitlines() if line.startswith("missing: ")]
    assert len(lines) == 5  # four data sets, RefCOCOg in two partitions
    assert lines[0].endswith(f"refstudy data download refcoco train2014 --to {tmp_path / 'empty'}")
    assert any("download refclef saiapr_tc-12" in line for line in lines)
    done = call(STUDY, "run", "--profile", "refcoco")
    assert isinstance(done.exception, StudyError) and "refstudy data download refcoco" in str(done.exception)


def test_what_is_there_but_does_not_serve_is_not_to_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("REFSTUDY_DATA", str(tmp_path))
    refer_folder(tmp_path, "refcoco", "google", ("train", "val"))
    lines = call(STUDY, "run", "--profile", "refcoco", "--dry-run").output.splitlines()
    (line,) = (line for line in lines if line.startswith(f"missing: {tmp_path / 'refcoco'}:"))
    assert line.endswith("split_by 'unc' is not one of google")


def test_without_the_hub_the_commands_say_which_weights_to_put_where(tmp_path, monkeypatch):
    """Before any data are read."""
    monkeypatch.setenv("REFSTUDY_DATA", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refer_folder(tmp_path, "refcoco", "unc", ("train", "val", "testA", "testB"))
    done = call(STUDY, "train", "--profile", "refcoco", "--variant", "s2rm_casg", "--variant", "slvit")
    assert isinstance(done.exception, StudyError)
    bert, swin, mscan = lines = str(done.exception).splitlines()
    keys = ("model.text.name", "model.image.name", "part_options.slvit.pretrained")
    assert all(f"(key {key} of the study file)" in line for key, line in zip(keys, lines, strict=True))
    assert "bert-base-uncased" in bert and "model.safetensors" in bert
    assert "huggingface.co/timm/swin_tiny_patch4_window7_224.ms_in22k" in swin and "local-dir:FOLDER" in swin
    assert "data/mscan_b.pth" in mscan and "github.com/Visual-Attention-Network/SegNeXt" in mscan


def test_weights_beside_the_study_file_are_found_from_below_it(tmp_path, monkeypatch):
    copy_notebooks(tmp_path)
    shutil.copy(ROOT / "papermill_runs.yaml", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mscan_b.pth").write_text("found, but no weights")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path / "notebooks")
    with pytest.raises(StudyError, match=r"data/mscan_b\.pth: refused"):
        refuse_without(load_study(), (), [("refcoco", "slvit", 0)])


def test_a_caption_says_how_it_was_counted():
    study = load_study(ROOT / "papermill_runs.yaml")
    other = EvaluationConfig(resolution="original", threshold=0.35)
    study.profiles["referit"] = study.profile("referit").model_copy(update={"evaluation": other})
    said = "ReferIt (berkeley) test, 512 px, counted at the original size, threshold 0.35"
    assert measured_on(study.under("referit")) == said


def test_what_the_time_ends_says_that_the_same_command_goes_on():
    """As `refstudy run` while notebooks execute: it turns SIGTERM into status 143."""
    before = signal.getsignal(signal.SIGTERM)

    def stopped(number, frame):
        raise SystemExit(128 + number)

    try:
        stop = Stop(0.002)
        signal.signal(signal.SIGTERM, stopped)
        with pytest.raises(SystemExit) as ended, ended_in_time(stop):
            time.sleep(20)
        assert ended.value.code == UNFINISHED
        with ended_in_time(Stop()):
            pass
        for over, signalled in ((Stop(0), False), (Stop(), True)):  # over, or asked to stop, before it began
            if signalled:
                os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(SystemExit) as ended, ended_in_time(over):
                pytest.fail("began all the same")
            assert ended.value.code == UNFINISHED
        with pytest.raises(SystemExit) as ended, ended_in_time(Stop()):  # before the notebooks handle it themselves
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        assert ended.value.code == UNFINISHED
    finally:
        signal.signal(signal.SIGTERM, before)


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
    copy_notebooks(folder)
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


@pytest.mark.slow
def test_every_notebook_runs_and_the_tables_say_what_they_were_measured_on(study):
    done = call(study, "run", "--profile", "refcoco", "--set", "scenes_per_split=10", "--workers", "1")
    assert done.exit_code == 0, done.output + repr(done.exception)
    folder = study.results("refcoco")
    executed = {path.stem for path in (folder / "notebooks").glob("*.ipynb")}
    assert executed == set(study.runs)
    table = pd.read_csv(folder / "tables" / "s2rm_table7.csv").query("metric == 'oIoU'").set_index("row")
    assert table.loc["S²RM + CASG", "data"] == "RefCOCO (unc) val, 64 px"
    strips = pd.read_csv(folder / "tables" / "slvit_table2b.csv").query("ours == ours")
    assert set(strips["data"]) == {"RefCOCO (unc) val, 96 px"}  # SLViT's own size
    main = pd.read_csv(folder / "tables" / "s2rm_table1.csv").query("metric == 'oIoU' and ours == ours")
    assert set(zip(main["row"], main["data"], strict=True)) == {
        *((row, f"RefCOCO (unc) {split}, 64 px") for row in ("SwinT-Ours", "SwinB-Ours") for split in COCO_SPLITS),
        *(("LAVT₂₂", f"RefCOCO (unc) {split}, 96 px") for split in COCO_SPLITS),
        *(("SwinT-Ours", f"RefCOCOg (umd) {split}, 64 px") for split in ("val", "test")),
        ("SwinT-Ours", "ReferIt (berkeley) test, 64 px"),
    }
    for path in (folder / "notebooks").glob("0[5-8]*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert any("RefCOCO (unc) val" in str(cell.get("outputs")) for cell in cells) or path.stem.startswith("08")


@pytest.mark.slow
def test_a_spent_budget_ends_before_the_notebooks(study):
    done = call(study, "run", "--profile", "referit_swinb", "--train", "--time-budget", "0")
    assert done.exit_code == UNFINISHED and not find_records(study.results("referit_swinb") / "records")
    with pytest.raises(StudyError, match="--time-budget: not with --scheduler"):
        raise call(study, "run", "--time-budget", "1", "--scheduler", "tcp://127.0.0.1:1").exception


def test_data_without_kinds_have_lengths_all_the_same(tmp_path):
    put(tmp_path, "refcocog_google", "s2rm_casg", 0.5)
    folder = str(tmp_path / "refcocog_google")
    kinds = kind_table(STUDY.under("refcocog_google", folder))
    assert kinds["ours"].isna().all() and (kinds["expressions"] == 0).all()
    curve = length_curve(STUDY.under("refcocog_google", folder)).set_index("words")
    assert curve["ours"].dropna().to_dict() == {3: 50.0} and curve.loc[3, "expressions"] == 6
