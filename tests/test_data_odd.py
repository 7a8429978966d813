"""Data as people really have them: odd names, places and entries. Read all the same, or refused in one clear line."""

import gzip
import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from refstudy.base.errors import StudyError
from refstudy.cli import app
from refstudy.data.batches import build_corpus
from refstudy.data.check import check_root
from refstudy.data.entries import Pictures
from refstudy.data.refer import find_data, load_refer
from refstudy.data.words import build_tokenizer

from .test_data_forms import (
    PICTURES,
    SENTENCES,
    SQUARES,
    answer_rows,
    as_refer_folder,
    coco_name,
    instances,
    refer_files,
    refer_ref,
    refer_rows,
    write_files,
    write_parquet,
    write_zip,
)

STUDY_FILE = str(Path(__file__).resolve().parents[1] / "papermill_runs.yaml")
EVERY = [text for sentences in SENTENCES.values() for text in sentences]


def named(change):
    """The images of the instances with other names."""
    return [image | {"file_name": change(image["file_name"])} for image in instances()["images"]]


def pictures_at(change):
    return {change(name.split("/")[-1]): content for name, content in PICTURES.items()}


PLACES = {  # where the pictures are, and how the annotations call them
    "known folder": (lambda name: f"images/mscoco/images/train2014/{name}", str),
    "a disk of COCO": (lambda name: f"coco/train2014/{name}", str),
    "deeper": (lambda name: f"my disk/Bilder é/train2014/{name}", str),
    "subfolders": (lambda name: f"train2014/{name[-5]}/{name}", str),
    "capital suffix": (lambda name: f"train2014/{name.replace('.jpg', '.JPG')}", str),
    "names with their folder": (lambda name: f"train2014/{name}", lambda name: f"train2014/{name}"),
    "Windows separators": (lambda name: f"train2014/{name}", lambda name: f"train2014\\{name}"),
    "Windows separators, deeper": (lambda name: f"images/a/{name}", lambda name: f"a\\{name}"),
    "COCO 2017": (lambda name: f"images/train2017/{name.removeprefix('COCO_train2014_')}", str),
    "unicode": (lambda name: f"refcoco/images/größe {name}", lambda name: f"größe {name}"),
}


@pytest.mark.parametrize("place", PLACES)
def test_pictures_are_found_where_people_put_them(tmp_path, place):
    lie, called = PLACES[place]
    write_files(tmp_path, refer_files(images=named(called)) | pictures_at(lie))
    ((_, _, problems),) = check_root(tmp_path, images=True)
    assert not problems["message"].str.contains("jpg|JPG|folder").any(), problems["message"].tolist()
    table = load_refer(tmp_path, "refcoco", "unc")
    assert [os.path.getsize(path) > 0 for path in table["image_path"]] == [True] * 6


@pytest.mark.parametrize("called", ["8.jpg", "00/images/8.jpg"])
@pytest.mark.parametrize("zipped", [False, True])
def test_saiapr_is_read_as_it_is_given(tmp_path, called, zipped):
    images = [image | {"file_name": called.replace("8", str(image["id"]))} for image in instances()["images"]]
    write_files(tmp_path, refer_files(dataset="refclef", images=images))
    pictures = {f"saiapr_tc-12/00/images/{k}.jpg": PICTURES[f"train2014/{coco_name(k)}"] for k in (1, 2)}
    pictures["saiapr_tc-12/00/segmentation_masks/1_1.mat"] = b""
    if zipped:
        write_zip(tmp_path / "saiapr_tc-12.zip", pictures)
    else:
        write_files(tmp_path / "images", pictures)
    table = load_refer(tmp_path, "refclef", "unc")
    assert all(os.path.isfile(path) for path in table["image_path"])


def test_of_pictures_with_one_name_the_least_deep_is_taken(tmp_path):
    write_files(tmp_path, {"a/b/x.jpg": b"deep", "c/X.JPG": b"near", "d/x.jpg": b"near, too"})
    assert Pictures(tmp_path).by_name["x.jpg"] == tmp_path / "c" / "X.JPG"


def test_a_link_to_a_folder_of_pictures_is_followed(tmp_path):
    write_files(tmp_path / "disk", PICTURES)
    write_files(tmp_path / "root", refer_files())
    (tmp_path / "root" / "train2014").symlink_to(tmp_path / "disk" / "train2014")
    assert all(os.path.isfile(path) for path in load_refer(tmp_path / "root", "refcoco", "unc")["image_path"])


def ref(**changes):
    """The referents, the first of them changed; None removes a key."""
    changed = {key: value for key, value in (refer_ref(11) | changes).items() if value is not None}
    return [changed, refer_ref(12), refer_ref(21)]


def test_a_referent_without_category_is_of_an_unknown_one(tmp_path):
    write_files(tmp_path, refer_files(ref(category_id=None)) | PICTURES)
    assert load_refer(tmp_path, "refcoco", "unc")["category"].tolist() == ["unknown"] * 2 + ["thing"] * 4


ODD = {
    "no sentences": (ref(sentences=[]), {}, "referent 111: sentences is []; it should be a list of at least one"),
    "sentences missing": (ref(sentences=None), {}, "referent 111: sentences is missing; it should be"),
    "sentence without text": (
        ref(sentences=[{"sent_id": 1}]),
        {},
        "referent 111, sentence 1: sent is missing; it should be text",
    ),
    "no referent": (["a text"], {}, "referent number 1: it is 'a text'; it should have the fields ref_id"),
    "a list for an id": (
        ref(ref_id=[1]),
        {},
        "referent number 1: ref_id is [1]; it should be one whole number or text",
    ),
    "no annotation": (ref(ann_id=99), {}, "referent 111 has no annotation 99"),
    "two images of one id": (
        None,
        {"images": [*instances()["images"], instances()["images"][0] | {"height": 41}]},
        "image 1 is there more than once, and differs",
    ),
    "a network name": (None, {"images": named(lambda name: f"\\\\host\\disk\\{name}")}, "leads out of"),
    "no name": (None, {"images": named(lambda name: "")}, "image 1: file_name is ''; it should be text"),
    "a name that is no text": (None, {"images": named(lambda name: 7)}, "image 1: file_name is 7; it should be text"),
    "no instances": (None, {"annotations": None}, "it is no COCO instances file"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_entries_are_said_in_one_line(tmp_path, odd):
    refs, parts, message = ODD[odd]
    write_files(tmp_path, refer_files(refs, **parts) | PICTURES)
    with pytest.raises(StudyError) as caught:
        load_refer(tmp_path, "refcoco", "unc")
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert result.exit_code == 1 and message in result.output, result.output


def test_an_image_listed_twice_alike_is_one(tmp_path):
    write_files(tmp_path, refer_files(images=instances()["images"] * 2) | PICTURES)
    assert load_refer(tmp_path, "refcoco", "unc")["expression"].tolist() == EVERY


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path, protocol):
    content = pickle.dumps([refer_ref(ann_id) for ann_id in SQUARES], protocol)
    write_files(tmp_path, refer_files() | PICTURES | {"refcoco/refs(unc).p": content})
    assert load_refer(tmp_path, "refcoco", "unc")["expression"].tolist() == EVERY


@pytest.mark.parametrize("name", ["refs(unc).p", "instances.json"])
def test_files_still_compressed_are_named_with_the_remedy(tmp_path, name):
    files = refer_files()
    write_files(tmp_path, files | {f"refcoco/{name}": gzip.compress(files[f"refcoco/{name}"])})
    with pytest.raises(StudyError, match=f"{name[:4]}.*unpack it if"):
        load_refer(tmp_path, "refcoco", "unc")


def test_an_archive_of_several_data_sets_is_not_taken_for_one(tmp_path):
    write_zip(tmp_path / "archive.zip", refer_files() | refer_files(dataset="refcoco+"))
    for dataset in ("refcoco", "refcoco+"):
        with pytest.raises(StudyError, match=r"archive\.zip: holds .*unpack it so that"):
            load_refer(tmp_path, dataset, "unc")
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert result.exit_code == 1 and result.output.count("does not read, 1: ") == 2


def test_a_root_that_is_the_data_set_itself_is_told_so(tmp_path):
    as_refer_folder(tmp_path)
    with pytest.raises(StudyError, match="name the folder above"):
        list(check_root(tmp_path / "refcoco"))
    with pytest.raises(StudyError, match="name the folder above"):
        load_refer(tmp_path / "refcoco", "refcoco", "unc")


def test_where_nothing_can_be_unpacked_it_is_said(tmp_path):
    write_zip(tmp_path / "refcoco.zip", refer_files())
    write_zip(tmp_path / "train2014.zip", PICTURES)
    (tmp_path / "images").write_text("a file where a folder should be")
    with pytest.raises(StudyError, match=r"train2014\.zip: cannot be unpacked to"):
        load_refer(tmp_path, "refcoco", "unc")


def test_where_decoded_pictures_cannot_be_kept_it_is_said(tmp_path):
    as_refer_folder(tmp_path)
    (tmp_path / "cache").write_text("a file where a folder should be")
    table = load_refer(tmp_path, "refcoco", "unc")
    with pytest.raises(StudyError, match="cache: cannot keep decoded pictures .*in REFSTUDY_DATA"):
        build_corpus(table, "val", 16, build_tokenizer(), cache=tmp_path / "cache", progress=False)


def test_a_full_disk_is_an_error_before_any_picture_is_kept(tmp_path, monkeypatch):
    as_refer_folder(tmp_path)
    table = load_refer(tmp_path, "refcoco", "unc")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(StudyError, match=r"cannot keep decoded pictures \(No space left on device\)"):
        build_corpus(table, "val", 16, build_tokenizer(), cache=tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_without_data_is_told_what_belongs_there(tmp_path):
    with pytest.raises(StudyError, match=r"there is none; put in e\.g\. refcoco/refs\(unc\)\.p"):
        list(check_root(tmp_path))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("data make --profile refcoco", "--profile refcoco: refcoco cannot be made; `refstudy data down"),
        ("cost --rate 0", "--rate 0: not above 0; give the TFLOP/s"),
        ("cost --rate -3", "--rate -3: not above 0; give the TFLOP/s"),
        ("cost --csv costs.txt", "--csv costs.txt: a table is written as CSV; give a name that ends in .csv"),
        ("cost --csv /dev/null/costs.csv", "costs.csv: its folder cannot be made (File exists); give another"),
        ("evaluate none.safetensors --csv /dev/null/c.csv", "c.csv: its folder cannot be made (File exists)"),
        ("evaluate none.safetensors", "none.safetensors: weights not found"),
    ],
)
def test_commands_that_could_only_mislead_are_refused(arguments, message):
    done = CliRunner().invoke(app, [*arguments.split(), "--study", STUDY_FILE])
    assert done.exit_code and isinstance(done.exception, StudyError) and message in str(done.exception)


def write_arrow(path, rows, split=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(path, table.schema) as out:
        out.write_table(table)
    if split:
        path.with_name("state.json").write_text(json.dumps({"_split": split, "_data_files": [{"filename": path.name}]}))
        path.with_name("dataset_info.json").write_text("{}")


def saved_dict(root):
    """``DatasetDict.save_to_disk``"""
    write_arrow(root / "RefCOCO/train/data-00000-of-00001.arrow", answer_rows("train"), "train")
    write_arrow(root / "RefCOCO/validation/data-00000-of-00001.arrow", answer_rows("val"), "validation")
    (root / "RefCOCO/dataset_dict.json").write_text('{"splits": ["train", "validation"]}')


def saved_one(root):
    """``Dataset.save_to_disk`` of one split."""
    write_arrow(root / "RefCOCO/data-00000-of-00001.arrow", answer_rows("val"), "validation")


def converted(root):
    """The Hub's own conversion to Parquet."""
    write_parquet(root / "RefCOCO/train/0000.parquet", answer_rows("train"))
    write_parquet(root / "RefCOCO/validation/0000.parquet", answer_rows("val"))


@pytest.mark.parametrize("make", [saved_dict, saved_one, converted])
def test_exports_as_datasets_saves_them(tmp_path, make):
    make(tmp_path)
    table = load_refer(tmp_path, "refcoco", "unc")
    val = table[table["split"] == "val"]
    assert val["expression"].tolist() == SENTENCES[21]
    assert set(table["split"]) == ({"val"} if make is saved_one else {"train", "val"})
    assert all(os.path.getsize(path) for path in table["image_path"])


def test_an_export_beside_the_pictures_of_another_form(tmp_path):
    write_parquet(tmp_path / "refcoco/train-00000-of-00001.parquet", refer_rows())
    write_files(tmp_path, pictures_at(lambda name: f"coco/images/train2014/{name}"))
    shutil.copytree(tmp_path / "refcoco", tmp_path / "refcocoplus")
    assert {one.dataset for one in find_data(tmp_path)} == {"refcoco", "refcoco+"}
    for dataset in ("refcoco", "refcoco+"):
        assert all(os.path.isfile(path) for path in load_refer(tmp_path, dataset, "unc")["image_path"])
