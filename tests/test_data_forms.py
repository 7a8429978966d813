"""The forms in which people hold the data: the same small data set, in each of them, gives the same table."""

import errno
import functools
import io
import json
import os
import pickle
import shutil
import stat
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from refstudy.base.errors import StudyError
from refstudy.data.batches import build_corpus
from refstudy.data.check import check_root
from refstudy.data.entries import COLUMNS
from refstudy.data.forms.refer_files import read_pickle
from refstudy.data.masks import decode_mask
from refstudy.data.refer import find_data, load_refer
from refstudy.data.words import build_tokenizer
from refstudy.data.zips import unpack

SIDES = {"height": 40, "width": 60}
SQUARES = {11: [10, 10, 30, 10, 30, 30, 10, 30], 12: [5, 5, 25, 5, 25, 15, 5, 15], 21: [0, 0, 60, 0, 60, 20, 0, 20]}
BOXES = {11: [10.0, 10.0, 20.0, 20.0], 12: [5.0, 5.0, 20.0, 10.0], 21: [0.0, 0.0, 60.0, 20.0]}
SENTENCES = {11: ["left box", "the box"], 12: ["low thing"], 21: ["upper half", "sky", "the sky above"]}
SPLITS = {11: "train", 12: "train", 21: "val"}


def coco_name(image_id):
    return f"COCO_train2014_{image_id:012d}.jpg"


def jpeg(image_id):
    memory = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), image_id, np.uint8)).save(memory, "JPEG", quality=95)
    return memory.getvalue()


def image_info(image_id):
    return {"id": image_id, "file_name": coco_name(image_id)} | SIDES


def annotation(ann_id):
    area = BOXES[ann_id][2] * BOXES[ann_id][3]
    about = {"id": ann_id, "image_id": ann_id // 10, "category_id": 1, "iscrowd": 0, "area": area}
    return about | {"bbox": BOXES[ann_id], "segmentation": [SQUARES[ann_id]]}


def refer_ref(ann_id):
    numbered = list(enumerate(SENTENCES[ann_id], 10 * ann_id))
    return {
        "ref_id": ann_id + 100,
        "ann_id": ann_id,
        "image_id": ann_id // 10,
        "category_id": 1,
        "split": SPLITS[ann_id],
        "file_name": f"COCO_train2014_{ann_id // 10:012d}_{ann_id}.jpg",
        "sent_ids": [number for number, _ in numbered],
        "sentences": [
            {"sent": s, "raw": f"{s.title()}!", "tokens": s.split(), "sent_id": number} for number, s in numbered
        ],
    }


def instances():
    categories = [{"id": 1, "name": "thing"}]
    images = [image_info(image_id) for image_id in (1, 2)]
    return {"images": images, "annotations": [annotation(ann_id) for ann_id in SQUARES], "categories": categories}


def refer_files(refs=None, dataset="refcoco", **parts):
    """The annotation files, with other referents or parts of the instances: name to bytes."""
    refs = [refer_ref(ann_id) for ann_id in SQUARES] if refs is None else refs
    return {
        f"{dataset}/refs(unc).p": pickle.dumps(refs, protocol=2),
        f"{dataset}/instances.json": json.dumps(instances() | parts).encode(),
    }


PICTURES = {f"train2014/{coco_name(image_id)}": jpeg(image_id) for image_id in (1, 2)}


def write_files(root, contents):
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def write_zip(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def refer_rows():
    """The rows of an export with REFER's own fields; its bbox holds corners."""
    for ann_id in SQUARES:
        x, y, width, height = BOXES[ann_id]
        about = {"raw_anns": json.dumps(annotation(ann_id)), "raw_image_info": json.dumps(image_info(ann_id // 10))}
        path = f"coco/train2014/{coco_name(ann_id // 10)}"
        yield refer_ref(ann_id) | about | {"bbox": [x, y, x + width, y + height], "image_path": path}


def answer_rows(split):
    """The rows of an export with one flat polygon and the picture inside."""
    for ann_id in SQUARES:
        if SPLITS[ann_id] == split:
            name = refer_ref(ann_id)["file_name"]
            picture = {"bytes": jpeg(ann_id // 10), "path": name}
            asked = {"question_id": str(ann_id), "question": "which?", "answer": SENTENCES[ann_id], "iscrowd": 0}
            yield asked | {"image": picture, "segmentation": SQUARES[ann_id], "bbox": BOXES[ann_id], "file_name": name}


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def as_refer_folder(root):
    write_files(root, refer_files() | {f"images/mscoco/images/{name}": data for name, data in PICTURES.items()})


def as_untouched_zips(root):
    write_zip(root / "refcoco.zip", refer_files() | {"__MACOSX/refcoco/._x": b"", "refcoco/": b""})
    write_zip(root / "train2014.zip", PICTURES)


def as_flat_zip(root):
    contents = {name.removeprefix("refcoco/"): data for name, data in refer_files().items()}
    write_zip(root / "refcoco.zip", contents)
    write_files(root, PICTURES)


def as_hub_parquet(root):
    rows = list(refer_rows())
    write_parquet(root / "refcoco/data/train-00000-of-00001.parquet", rows[:2])
    write_parquet(root / "refcoco/data/validation-00000-of-00001.parquet", rows[2:])
    write_files(root, PICTURES)


def as_hub_parquet_with_pictures(root):
    pictures = [{"image": {"bytes": jpeg(row["image_id"]), "path": None}} for row in refer_rows()]
    rows = [row | picture for row, picture in zip(refer_rows(), pictures, strict=True)]
    write_parquet(root / "refcoco/train-00000-of-00001.parquet", rows)


def as_arrow(root):
    for split, rows in (("train", list(refer_rows())[:2]), ("validation", list(refer_rows())[2:])):
        table = pa.Table.from_pylist(rows)
        path = root / "refcoco" / split / "data-00000-of-00001.arrow"
        path.parent.mkdir(parents=True)
        with pa.ipc.new_stream(path, table.schema) as out:
            out.write_table(table)
    write_files(root, PICTURES)


def as_answer_parquet(root):
    write_parquet(root / "RefCOCO/data/train-00000-of-00001.parquet", answer_rows("train"))
    write_parquet(root / "RefCOCO/data/val-00000-of-00001.parquet", answer_rows("val"))


WITH_MASKS = [
    as_refer_folder,
    as_untouched_zips,
    as_flat_zip,
    as_hub_parquet,
    as_hub_parquet_with_pictures,
    as_arrow,
    as_answer_parquet,
]


@pytest.mark.parametrize("make", WITH_MASKS)
def test_every_form_gives_the_same_table_and_can_be_trained_on(tmp_path, make):
    make(tmp_path)
    for _ in range(2):  # what was unpacked the first time is used the second
        table = load_refer(tmp_path, "refcoco", "unc")
        assert list(table.columns) == COLUMNS
        assert table["expression"].tolist() == [text for sentences in SENTENCES.values() for text in sentences]
        assert table["words"].tolist() == [2, 2, 2, 2, 1, 3]
        assert table["split"].tolist() == ["train"] * 3 + ["val"] * 3
        assert table["image_id"].tolist() == [1, 1, 1, 2, 2, 2]
        assert table["sent_id"].is_unique and table["ref_id"].nunique() == 3
        assert [tuple(box) for box in table["bbox"]] == [tuple(BOXES[ann]) for ann in (11, 11, 12, 21, 21, 21)]
        assert table["area"].tolist() == [400, 400, 200, 1200, 1200, 1200]
        masks = [decode_mask(row.segmentation, row.height, row.width) for row in table.itertuples()]
        assert [mask.sum() for mask in masks] == [400, 400, 200, 1200, 1200, 1200] and masks[3][:20].all()
    corpus = build_corpus(table, "val", 16, build_tokenizer(), progress=False)
    assert corpus.images.max() < 6 and corpus.mask(np.array([0]))[0, :8].all()
    assert not list(tmp_path.rglob("*.tmp")), "nothing half-made is left"


def test_forms_with_refer_numbers_keep_them(tmp_path):
    as_refer_folder(tmp_path / "a")
    as_hub_parquet(tmp_path / "b")
    refer, hub = (load_refer(tmp_path / name, "refcoco", "unc") for name in ("a", "b"))
    for column in ("sent_id", "ref_id", "ann_id", "image_id", "category_id", "height", "width"):
        assert refer[column].tolist() == hub[column].tolist()
    raw = [load_refer(tmp_path / name, "refcoco", "unc", "raw")["expression"].tolist() for name in ("a", "b")]
    assert raw[0] == raw[1] == [f"{text.title()}!" for text in refer["expression"]]


def test_a_folder_may_be_named_as_the_papers_write_it(tmp_path):
    as_refer_folder(tmp_path)
    expected = load_refer(tmp_path, "refcoco", "unc")
    (tmp_path / "refcoco").rename(tmp_path / "RefCOCO")
    assert load_refer(tmp_path, "refcoco", "unc").equals(expected)


def test_unpacked_files_are_preferred_and_other_datasets_pictures_do_not_hide_the_archive(tmp_path):
    as_untouched_zips(tmp_path)
    (tmp_path / "images" / "saiapr_tc-12").mkdir(parents=True)
    assert load_refer(tmp_path, "refcoco", "unc")["image_path"][0].endswith(f"images/train2014/{coco_name(1)}")
    (tmp_path / "refcoco.zip").write_bytes(b"no longer an archive")
    assert len(load_refer(tmp_path, "refcoco", "unc")) == 6
    assert [(one.dataset, one.form) for one in find_data(tmp_path)] == [("refcoco", "REFER files")]


def test_the_google_partition_of_an_export_is_not_made_up(tmp_path):
    as_hub_parquet(tmp_path)
    with pytest.raises(StudyError, match="split_by 'google' is not one of unc"):
        load_refer(tmp_path, "refcoco", "google")


def write_lists(root):
    lines = ["uid,ref_id,img_id,sent_id,sent,bbox"]
    lines += ['7_0,7,42,70,"a cat, asleep","[1.0, 2.0, 3.5, 4.0]"', '7_1,7,42,71,nan,"[1.0, 2.0, 3.5, 4.0]"']
    (root / "refcoco+_unc_val.csv").write_text("\n".join(lines) + "\n")
    (root / "referit_query_val.json").write_text(json.dumps({"8_1": ["sky", "the sky"]}))
    (root / "referit_bbox_trainval.json").write_text(json.dumps({"8_1": [0, 0, 479, 132]}))
    (root / "referit_imsize.json").write_text(json.dumps({"8.jpg": [480, 360]}))


def test_lists_without_masks_give_boxes_and_say_that_they_cannot_be_trained_on(tmp_path):
    write_lists(tmp_path)
    cats = load_refer(tmp_path, "refcoco+", "unc")
    assert cats["expression"].tolist() == ["a cat, asleep", "nan"]  # text, whatever it looks like
    assert cats.loc[0, "bbox"] == (1.0, 2.0, 3.5, 4.0) and cats.loc[0, "segmentation"] == []
    sky = load_refer(tmp_path, "refclef", "berkeley")
    assert sky.loc[1, ["ref_id", "image_id", "height", "width", "bbox"]].tolist() == [
        "8_1",
        8,
        360,
        480,
        (0, 0, 480, 133),
    ]
    for table in (cats, sky):
        with pytest.raises(StudyError, match="boxes but no masks"):
            build_corpus(table, "val", 16, build_tokenizer(), progress=False)


COUNTS = {  # images, referents, sentences, mean words, most words: counted elsewhere, from the released files
    ("refcoco_csv", "refcoco", "unc", "val"): (1500, 3811, 10834, 3.572, 21),
    ("refcoco_csv", "refcoco", "unc", "testA"): (750, 1975, 5657, 3.427, 23),
    ("refcoco_csv", "refcoco+", "unc", "val"): (1500, 3805, 10758, 3.586, 22),
    ("refcoco_csv", "refcoco+", "unc", "testA"): (750, 1975, 5726, 3.340, 16),
    ("refcoco_csv", "refcocog", "umd", "val"): (1300, 2573, 4896, 8.472, 37),
    ("referit", "refclef", "berkeley", "train"): (8995, 44649, 54134, 3.441, None),
    ("referit", "refclef", "berkeley", "val"): (1000, 4866, 5842, 3.352, None),
}


real_table = functools.cache(load_refer)  # reading ReferIt takes a second or two


@pytest.mark.parametrize("where", COUNTS)
def test_real_lists_have_the_verified_counts(real_sample, where):
    folder, dataset, split_by, split = where
    rows = real_table(real_sample / folder, dataset, split_by).query("split == @split")
    images, referents, sentences, mean, most = COUNTS[where]
    assert (rows["image_id"].nunique(), rows["ref_id"].nunique(), len(rows)) == (images, referents, sentences)
    assert round(rows["words"].mean(), 3) == mean and rows["words"].max() == (most or rows["words"].max())


def test_real_triples_have_masks_that_fill_their_boxes(real_sample):
    table = load_refer(real_sample / "refcoco_triples", "refcoco_triples", "unc").drop_duplicates("ref_id")
    assert len(table) == 51 and not find_data(real_sample / "coco_small")
    filled = 0
    for row in table.itertuples():
        mask = decode_mask(row.segmentation, row.height, row.width)
        x, y, width, height = row.bbox
        box = mask[int(y) : int(np.ceil(y + height)) + 1, int(x) : int(np.ceil(x + width)) + 1]
        filled += box.sum() >= 0.98 * mask.sum()
    assert filled >= 48  # three of them are known to be wrong


class PythonTwoPickler(pickle._Pickler):
    """Writes every second text as Python 2's str, in bytes, and the others as its unicode."""

    dispatch = pickle._Pickler.dispatch.copy()
    number = 0

    def save_text(self, text):
        self.number += 1
        data = text.encode()
        if self.number % 2:
            pickle._Pickler.save_str(self, text)
        elif self.proto == 0:
            self.write(b"S" + repr(data)[1:].encode() + b"\n")
        else:
            self.write(b"U" + bytes([len(data)]) + data)

    dispatch[str] = save_text


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_pickles_that_mix_str_and_unicode_are_read(tmp_path, protocol):
    refs = [refer_ref(ann_id) for ann_id in SQUARES] + [{"sent": "café"} for _ in range(4)]
    with open(tmp_path / "refs.p", "wb") as out:
        PythonTwoPickler(out, protocol).dump(refs)
    content = (tmp_path / "refs.p").read_bytes()
    assert (b"S'" if protocol == 0 else b"U\x05") in content and (b"V" if protocol == 0 else b"X") in content
    assert read_pickle(tmp_path / "refs.p") == refs


def link(archive):
    member = zipfile.ZipInfo("refcoco/link.json")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc/passwd")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda archive: archive.writestr("../out.txt", "x"), "leads out of its folder"),
        (lambda archive: archive.writestr("refcoco/../../out.txt", "x"), "leads out of its folder"),
        (lambda archive: archive.writestr("/tmp/out.txt", "x"), "leads out of its folder"),
        (lambda archive: archive.writestr("refcoco\\..\\..\\out.txt", "x"), "leads out of its folder"),
        (lambda archive: archive.writestr("C:/out.txt", "x"), "leads out of its folder"),
        (link, "is a link"),
        (lambda archive: archive.writestr("refcoco/zeros", bytes(80 * 2**20)), "more than 40 times its size"),
    ],
)
def test_hostile_archives_are_refused_and_leave_nothing(tmp_path, spoil, message):
    root = tmp_path / "data"
    root.mkdir()
    with zipfile.ZipFile(root / "refcoco.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in refer_files().items():
            archive.writestr(name, content)
        spoil(archive)
    with pytest.raises(StudyError, match=f"refcoco.zip.*{message}"):
        load_refer(root, "refcoco", "unc")
    assert {path.name for path in tmp_path.rglob("*")} <= {"data", "refcoco.zip", ".refcoco.lock"}


def test_a_broken_lzma_member_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("instances.json", bytes(range(256)) * 20)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[70:90] = b"\xff" * 20  # within the data of the member
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(StudyError, match="a.zip: does not unpack"):
        unpack(tmp_path / "a.zip", tmp_path / "a", progress=False)


def test_broken_archives_are_named(tmp_path):
    as_untouched_zips(tmp_path)
    content = bytearray((tmp_path / "refcoco.zip").read_bytes())
    content[60] ^= 255  # within the data of the first member
    (tmp_path / "refcoco.zip").write_bytes(content)
    with pytest.raises(StudyError, match="refcoco.zip: does not unpack"):
        unpack(tmp_path / "refcoco.zip", tmp_path / "refcoco", progress=False)
    assert not (tmp_path / "refcoco").exists()
    (tmp_path / "refcoco.zip").write_bytes(content[:200])
    with pytest.raises(StudyError, match="refcoco.zip: no zip archive"):
        load_refer(tmp_path, "refcoco", "unc")


@pytest.mark.parametrize(
    "name", ["../out.jpg", "/tmp/out.jpg", "a/../../out.jpg", "..\\out.jpg", "C:\\out.jpg", "a\0b"]
)
def test_pictures_named_by_the_data_stay_in_their_folder(tmp_path, name):
    write_files(tmp_path, refer_files(images=[image_info(1) | {"file_name": name}, image_info(2)]))
    with pytest.raises(StudyError, match="leads out of"):
        load_refer(tmp_path, "refcoco", "unc")


@pytest.mark.parametrize("name", ["../out.jpg", "/tmp/out.jpg", "deeper/out.jpg", "..\\out.jpg"])
def test_embedded_pictures_are_written_nowhere_else(tmp_path, name):
    row = next(iter(refer_rows())) | {"raw_image_info": json.dumps(image_info(1) | {"file_name": name})}
    row |= {"image": {"bytes": jpeg(1), "path": name}}
    write_parquet(tmp_path / "refcoco" / "train-00000-of-00001.parquet", [row])
    before = set(tmp_path.rglob("*"))
    with pytest.raises(StudyError, match="leads out of|not a plain file name"):
        load_refer(tmp_path, "refcoco", "unc")
    assert {path.suffix for path in set(tmp_path.rglob("*")) - before} <= {".lock"}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"raw_image_info": json.dumps(image_info(1) | {"file_name": 5})}, "a picture without a name"),
        ({"raw_image_info": json.dumps([])}, "a picture without a name"),
        ({"image": jpeg(1)}, "column 'image' is no struct of 'bytes' and 'path'"),
        ({"image": {"bytes": "text", "path": ""}}, "column 'image' is no struct of 'bytes' and 'path'"),
    ],
)
def test_embedded_pictures_that_are_none_are_named(tmp_path, changed, message):
    row = next(iter(refer_rows())) | {"image": {"bytes": jpeg(1), "path": ""}} | changed
    write_parquet(tmp_path / "refcoco" / "train-00000-of-00001.parquet", [row])
    with pytest.raises(StudyError, match=f"train-00000-of-00001.parquet: {message}.*; fetch it again"):
        load_refer(tmp_path, "refcoco", "unc")


def test_where_embedded_pictures_find_no_room_it_is_said(tmp_path, monkeypatch):
    as_answer_parquet(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(StudyError, match="cannot be unpacked to .*No space left on device.*; make room"):
        load_refer(tmp_path, "refcoco", "unc")
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_is_unpacked_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    as_answer_parquet(tmp_path / "export")
    write_zip(tmp_path / "a.zip", {"a/one.txt": b"one"})
    before = load_refer(tmp_path / "export", "refcoco", "unc"), unpack(tmp_path / "a.zip", tmp_path / "a", False)
    for module in ("forms.parquet", "zips"):
        monkeypatch.setattr(f"refstudy.data.{module}.locked", full_disk)
    pd.testing.assert_frame_equal(load_refer(tmp_path / "export", "refcoco", "unc"), before[0])
    assert unpack(tmp_path / "a.zip", tmp_path / "a", progress=False) == before[1]


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_killed_process_left_is_no_data_set(tmp_path):
    left = tmp_path / ".refcoco.0123.tmp"
    as_refer_folder(tmp_path)
    shutil.copytree(tmp_path / "refcoco", left)
    write_parquet(left / "train-00000-of-00001.parquet", refer_rows())
    assert [(one.dataset, one.form) for one in find_data(tmp_path)] == [("refcoco", "REFER files")]
    shutil.rmtree(tmp_path / "refcoco")
    with pytest.raises(StudyError, match="there is none; put in"):
        list(check_root(tmp_path))


def test_an_archive_without_files_is_named(tmp_path):
    write_zip(tmp_path / "a.zip", {"a/": b""})
    with pytest.raises(StudyError, match="a.zip: holds no files"):
        unpack(tmp_path / "a.zip", tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()


def test_an_image_of_absurd_size_is_refused(tmp_path):
    write_files(tmp_path, refer_files(images=[image_info(1) | {"height": 10**6, "width": 10**6}, image_info(2)]))
    with pytest.raises(StudyError, match="1000000 x 1000000 pixels is refused"):
        load_refer(tmp_path, "refcoco", "unc")


def test_broken_exports_and_lists_are_named(tmp_path):
    as_hub_parquet(tmp_path)
    path = tmp_path / "refcoco/data/train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StudyError, match="train-00000-of-00001.parquet: does not read"):
        load_refer(tmp_path, "refcoco", "unc")
    write_lists(tmp_path)
    assert len(load_refer(tmp_path, "refcoco+", "unc")) == 2, "what is broken does not hide what is not"
    (tmp_path / "referit_bbox_trainval.json").write_text("{}")
    with pytest.raises(StudyError, match="referit_query_val.json: row 8_1: box is null; it should be four numbers"):
        load_refer(tmp_path, "refclef", "berkeley")
