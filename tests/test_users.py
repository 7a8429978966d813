"""Files, names, shells and habits of real users, by kind: read rightly, or told in one plain line."""

import ast
import copy
import errno
import gzip
import io
import json
import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from refstudy.base.errors import Busy, StudyError
from refstudy.base.files import atomic_write
from refstudy.base.locks import locked
from refstudy.cli import app, main
from refstudy.data.check import check_root, summary
from refstudy.data.pictures import read_image
from refstudy.data.refer import load_refer
from refstudy.models.build import build_model, save_weights
from refstudy.prediction.predict import read_photo
from refstudy.study.load import load_study

from .conftest import tiny_model, tiny_profile
from .helpers import put
from .test_data_forms import (
    PICTURES,
    SQUARES,
    answer_rows,
    coco_name,
    instances,
    refer_ref,
    refer_rows,
    write_files,
    write_lists,
    write_parquet,
)
from .test_data_odd import EVERY, ref, refer_files

NAN = float("nan")


def problems_of(root):
    """What the check tells of the only data set under a root: kind -> messages."""
    ((_, _, found),) = check_root(root, images=True)
    of_files = found[~found["kind"].isin(["differs from published", "split missing", "no masks", "no images"])]
    return {kind: rows["message"].tolist() for kind, rows in of_files.groupby("kind")}


NO_TEXT = [None, NAN, "", " \u200b", "red \ud83d dog", True, ["red"], {"a": 1}, float("inf")]


@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
def test_what_is_no_text_is_a_problem_and_no_expression(tmp_path, value):
    sentences = [{"sent_id": 110, "sent": value, "raw": value}, {"sent_id": 111, "sent": "the box", "raw": "The box!"}]
    write_files(tmp_path, refer_files(ref(sentences=sentences)) | PICTURES)
    ((kind, (message,)),) = problems_of(tmp_path).items()
    assert kind in ("empty sentence", "broken sentence")
    assert "refs(unc).p: referent 111, sentence 110: sent is " in message and "it should be text" in message
    with pytest.raises(StudyError, match="sentence 110: sent is"):
        load_refer(tmp_path, "refcoco", "unc")
    with pytest.raises(StudyError, match="sentence 110: raw is"):
        load_refer(tmp_path, "refcoco", "unc", "raw")


def test_numbers_and_words_that_look_like_none_are_text(tmp_path):
    sentences = [{"sent_id": k, "sent": text} for k, text in enumerate([12, "None", "nan", " 3.5 ", "3️⃣", "?"])]
    write_files(tmp_path, refer_files(ref(sentences=sentences)) | PICTURES)
    assert load_refer(tmp_path, "refcoco", "unc")["expression"].tolist()[:6] == ["12", "None", "nan", "3.5", "3️⃣", "?"]


@pytest.mark.parametrize("answer", [["left box", None], None, "the dog", []], ids=repr)
def test_answers_of_an_export_that_are_no_texts_are_told(tmp_path, answer):
    rows = [row | {"answer": answer if k else row["answer"]} for k, row in enumerate(answer_rows("train"))]
    if isinstance(answer, str):
        rows = rows[1:]  # a column has one type
    write_parquet(tmp_path / "refcoco" / "train-00000-of-00001.parquet", rows)
    found = problems_of(tmp_path)
    assert len(found) == 1 and "refcoco: referent " in str(found) and "it should be" in str(found)


def test_a_text_in_place_of_a_list_of_queries_is_not_read_letter_by_letter(tmp_path):
    write_lists(tmp_path)
    (tmp_path / "referit_query_val.json").write_text(json.dumps({"8_1": "sky"}), encoding="utf-8")
    with pytest.raises(StudyError, match="referent 8_1: sentences is 'sky'; it should be a list"):
        load_refer(tmp_path, "refclef", "berkeley")


FIELDS = {  # where, the field, what it is, and the line
    "bbox null": ("annotations", {"bbox": None}, "annotation 11: bbox is null; it should be four numbers"),
    "bbox of three": (
        "annotations",
        {"bbox": [1, 2, 3]},
        "annotation 11: bbox is [1, 2, 3]; it should be four numbers",
    ),
    "bbox with inf": ("annotations", {"bbox": [1, 2, 3, float("inf")]}, "annotation 11: bbox is [1, 2, 3, inf]"),
    "bbox of no size": ("annotations", {"bbox": [1, 2, -3, 4]}, "annotation 11: bbox is [1, 2, -3, 4]"),
    "area nan": ("annotations", {"area": NAN}, "annotation 11: area is nan; it should be a number of pixels"),
    "id null": ("annotations", {"id": None}, "annotation number 1: id is null; it should be one whole number or text"),
    "height null": ("images", {"height": None}, "image 1: height is null; it should be a whole number of pixels"),
    "width a text": ("images", {"width": "wide"}, "image 1: width is 'wide'; it should be a whole number of pixels"),
    "name null": ("images", {"file_name": None}, "image 1: file_name is null; it should be text"),
    "name broken": ("images", {"file_name": "a\ud83d.jpg"}, "image 1: file_name is 'a\\ud83d.jpg'; it should be text"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_broken_field_is_one_problem_that_names_file_entry_and_field(tmp_path, field):
    part, change, message = FIELDS[field]
    entries = instances()[part]
    entries[0] |= change
    write_files(tmp_path, refer_files(**{part: entries}) | PICTURES)
    ((_, (found,)),) = problems_of(tmp_path).items()  # not a second one for the referents that depend on it
    assert f"instances.json: {message}" in found


REFERENTS = {
    "several referents": ({"ann_id": [11, 12]}, "ann_id is [11, 12]; it should be one whole number or text (several"),
    "none": ({"ann_id": [-1]}, "ann_id is [-1]; it should be one whole number or text (several referents"),
    "a split of none": ({"split": NAN}, "split is nan; it should be text"),
    "sentences as texts": (
        {"sentences": ["left box"]},
        "sentence number 1: it is 'left box'; it should have the field",
    ),
    "sentences as one text": (
        {"sentences": "left box"},
        "sentences is 'left box'; it should be a list of at least one",
    ),
}


@pytest.mark.parametrize("odd", REFERENTS)
def test_a_broken_referent_is_one_problem_that_names_it(tmp_path, odd):
    change, message = REFERENTS[odd]
    write_files(tmp_path, refer_files(ref(**change)) | PICTURES)
    ((_, (found,)),) = problems_of(tmp_path).items()
    assert "refs(unc).p: referent 111" in found and message in found


@pytest.mark.parametrize("change", [str, float, lambda number: f"{number}.0"])
@pytest.mark.parametrize("where", ["refs", "instances"])
def test_ids_of_another_type_are_matched(tmp_path, change, where):
    if where == "refs":
        refs = [one | {key: change(one[key]) for key in ("ref_id", "image_id", "ann_id")} for one in ref()]
        files = refer_files(refs)
    else:
        parts = {
            part: [one | {key: change(one[key]) for key in ("id", "image_id") if key in one} for one in entries]
            for part, entries in instances().items()
        }
        files = refer_files(**parts)
    write_files(tmp_path, files | PICTURES)
    assert load_refer(tmp_path, "refcoco", "unc")["expression"].tolist() == EVERY and not problems_of(tmp_path)


def test_split_names_that_nothing_reads_are_noted(tmp_path):
    refs = [one | {"split": split} for one, split in zip(ref(), ["Train", "validation", "val"], strict=True)]
    write_files(tmp_path, refer_files(refs) | PICTURES)
    assert problems_of(tmp_path)["unknown split"] == [
        f"split '{split}': nothing reads its {n} expressions; known: train, val, test, testA, testB"
        for split, n in (("Train", 2), ("validation", 1))
    ]


TEXTS = {"utf-8-sig": "", "utf-16": "is UTF-16; save it as UTF-8", "latin-1": "not UTF-8 .*; save it as UTF-8"}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("form", ["instances", "list of boxes", "study file"])
def test_encodings_of_other_tools_are_read_or_named(tmp_path, encoding, form):
    if form == "instances":
        annotated = json.dumps(instances() | {"info": "Größe"}, ensure_ascii=False)
        write_files(tmp_path, refer_files() | PICTURES | {"refcoco/instances.json": annotated.encode(encoding)})
    elif form == "list of boxes":
        lines = 'ref_id,uid,img_id,sent_id,sent,bbox\n7,7_0,42,70,größer,"[1.0, 2.0, 3.5, 4.0]"\n'
        (tmp_path / "refcoco_unc_val.csv").write_bytes(lines.encode(encoding))
    else:
        (tmp_path / "study.yaml").write_bytes("# größer\nvariants: {}\nprofiles: {}\nruns: {}\n".encode(encoding))

    def read():
        if form != "study file":
            return load_refer(tmp_path, "refcoco", "unc")
        done = CliRunner().invoke(app, ["table", "--profile", "none", "--study", str(tmp_path / "study.yaml")])
        assert "unknown profile 'none'" in str(done.exception) or not isinstance(done.exception, StudyError) or True
        raise done.exception

    if TEXTS[encoding]:
        with pytest.raises(StudyError, match=TEXTS[encoding]):
            read()
    elif form == "study file":
        with pytest.raises(StudyError, match="unknown profile 'none'"):
            read()
    else:
        assert len(read())


@pytest.mark.parametrize("name", ["refcoco/instances.json", "refcoco/refs(unc).p"])
def test_an_empty_file_is_called_so(tmp_path, name):
    write_files(tmp_path, refer_files() | PICTURES | {name: b""})
    with pytest.raises(StudyError, match=r"instances.json: is empty|refs\(unc\).p: refused, Ran out of input"):
        load_refer(tmp_path, "refcoco", "unc")


HEADER = "uid,ref_id,img_id,sent_id,sent,bbox"
ROWS = [
    ["7_0", "7", "42", "70", "a cat, asleep", "[1.0, 2.0, 3.5, 4.0]"],
    ["8_0", "8.0", "43", "71.0", "b", "[1, 2, 3, 4]"],
]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_lists_of_boxes_as_spreadsheets_write_them(tmp_path, mark):
    quoted = [mark.join(f'"{cell}"' for cell in row) for row in ROWS]
    text = "\r\n".join([HEADER.replace(",", mark), *quoted])
    (tmp_path / "refcoco_unc_val.csv").write_bytes(text.encode("utf-8-sig"))
    table = load_refer(tmp_path, "refcoco", "unc")
    assert table["expression"].tolist() == ["a cat, asleep", "b"] and table["ref_id"].tolist() == [7, 8]


@pytest.mark.parametrize(
    "text, message",
    [
        ("ref;expression\n1;x\n", "lacks the columns bbox, img_id, ref_id, sent, sent_id; its first line is"),
        ("", "refcoco_unc_val.csv: is empty"),
        (
            f'{HEADER}\n7_0,7,42,70,x,"[NaN, 2, 3, 4]"\n',
            "annotation 7: bbox is .nan, 2, 3, 4.; it should be four numbers",
        ),
        (f"{HEADER}\n7_0,7,42,70,x,1 2 3 4\n", "row 7_0: bbox is '1 2 3 4'; it should be four numbers in brackets"),
        (f"{HEADER}\n7_0,7,x,70,x,[]\n", "row 7_0: img_id is 'x'; it should be a whole number"),
        (f"{HEADER}\n7_0,7\n", "row 7_0: img_id is null; it should be a whole number"),
    ],
)
def test_what_is_wrong_in_a_list_of_boxes_is_said(tmp_path, text, message):
    (tmp_path / "refcoco_unc_val.csv").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=message):
        load_refer(tmp_path, "refcoco", "unc")
    if text:
        assert len(problems_of(tmp_path)) <= 1 or "lacks" in message


def test_pictures_in_linked_folders_are_found_and_loops_end(tmp_path):
    write_files(tmp_path / "disk", {f"shard/{coco_name(k)}": PICTURES[f"train2014/{coco_name(k)}"] for k in (1, 2)})
    write_files(tmp_path / "root", refer_files())
    (tmp_path / "root" / "train2014").mkdir()
    (tmp_path / "root" / "train2014" / "more").symlink_to(tmp_path / "disk" / "shard")
    (tmp_path / "disk" / "shard" / "again").symlink_to(tmp_path / "root")
    assert not problems_of(tmp_path / "root")


def test_a_folder_whose_name_is_no_utf8_is_told(tmp_path):
    root = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(root)
    folder = type(tmp_path)(os.fsdecode(root))
    write_files(folder, refer_files() | PICTURES)
    assert "is no Unicode text" in str(problems_of(folder))


@pytest.mark.parametrize("values", [[[0, 1], [1, 0]], [[0, 60], [60, 0]]])
def test_a_mask_that_has_no_bright_pixel_is_told_with_the_threshold(tmp_path, values):
    triple = {"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "val", "bbox": [0, 0, 1, 1], "sents": ["x"]}
    triple |= {"sent_ids": [1], "height": 2, "width": 2, "image": "a.png", "mask": "m.png"}
    (tmp_path / "triples.json").write_text(json.dumps([triple]), encoding="utf-8")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.array(values, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(StudyError, match=f"row 0: .*m.png: no pixel of .* above 127, the most is {np.max(values)}"):
        load_refer(tmp_path, "refcoco_triples", "unc")


RAMP = np.array([0, 64, 128, 192]).repeat(4)[None].repeat(8, 0)  # of 255
RANGES = {
    "grey8.png": RAMP.astype(np.uint8),
    "grey16.png": (RAMP * 257).astype(np.uint16),
    "grey16.tif": (RAMP * 257).astype(np.uint16),
    "big.tif": (RAMP * 257).astype(">u2"),
    "12 bits in 16.png": np.rint(RAMP * 4095 / 255).astype(np.uint16),
    "8 bits in 16.png": RAMP.astype(np.uint16),
    "8 bits in 32.tif": RAMP.astype(np.int32),
    "16 bits in 32.tif": (RAMP * 257).astype(np.int32),
    "float to 1.tif": (RAMP / 255).astype(np.float32),
    "float to 255.tif": RAMP.astype(np.float32),
    "float to 65535.tif": (RAMP * 257).astype(np.float32),
}


@pytest.mark.parametrize("name", RANGES)
def test_training_and_photos_see_the_same_grey_whatever_its_range(tmp_path, name):
    Image.fromarray(RANGES[name]).save(tmp_path / name)
    for read in (read_image, read_photo):
        assert (read(tmp_path / name) == RAMP[..., None]).all()


@pytest.mark.parametrize("low, high", [(-1, 200), (0, 70000), (0, NAN), (0, float("inf"))])
def test_grey_of_no_known_range_is_refused(tmp_path, low, high):
    values = np.full((4, 4), low, np.float32)
    values[0] = high
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(StudyError, match="odd.tif: image does not decode .its values are from .* not from 0 to 65535"):
        read_image(tmp_path / "odd.tif")


def test_transparency_is_white_in_training_too(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, 2:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    assert read_image(tmp_path / "cut.png")[0, :, 0].tolist() == [255, 255, 0, 0]


def exif(*entries):
    """An EXIF block of big-endian TIFF with these entries: (tag, type, count, value or offset as four bytes)."""
    body = b"".join(struct.pack(">HHI4s", *entry) for entry in entries)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + body + bytes(4) + b"red\0" + bytes(32)


TURNED = (0x0112, 3, 1, b"\0\6\0\0")
EXIFS = {
    "sound": [TURNED],
    "a size as text": [(0x0100, 2, 4, b"wide"), TURNED],
    "a size as text that says nothing": [(0x0100, 2, 4, b"wide")],
    "a ratio of nothing": [TURNED, (0x011A, 5, 1, struct.pack(">I", 60))],
    "a double far off": [TURNED, (0x011A, 12, 1, b"\xff\xff\xff\xff")],
    "an orientation as text": [(0x0112, 2, 4, b"left")],
    "an orientation of nine": [(0x0112, 3, 1, b"\0\t\0\0")],
    "an orientation of many": [(0x0112, 3, 2, b"\0\6\0\6")],
    "a type that is none": [(0x0100, 99, 1, b"\0\0\0\0"), TURNED],
    "a count too large": [(0x0111, 4, 2**31, b"\0\0\0\0"), TURNED],
}


@pytest.mark.parametrize("kind", EXIFS)
def test_a_broken_exif_costs_no_pixel(tmp_path, kind):
    wide = np.zeros((8, 24, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "a.jpg", exif=exif(*EXIFS[kind]))
    assert read_photo(tmp_path / "a.jpg").shape in ((8, 24, 3), (24, 8, 3))
    with Image.open(tmp_path / "a.jpg") as picture:
        assert read_photo(picture).shape == read_photo(tmp_path / "a.jpg").shape
    if kind == "sound":
        assert read_photo(tmp_path / "a.jpg").shape == (24, 8, 3)
    for cut in (1, 7, 13, 20, 31):  # a header that ends too early
        Image.fromarray(wide).save(tmp_path / "b.jpg", exif=exif(*EXIFS[kind])[:-cut])
        assert read_photo(tmp_path / "b.jpg").size == wide.size


def test_a_number_that_is_none_in_exif_costs_no_pixel(tmp_path):
    about = Image.Exif()
    about[0x011A] = NAN
    about[0x0112] = 6
    Image.new("RGB", (24, 8)).save(tmp_path / "a.tif", tiffinfo={0x011A: 72.0})
    Image.new("RGB", (24, 8)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.tif").shape == read_photo(tmp_path / "a.png").shape == (8, 24, 3)


HOLD = """
import sys
from pathlib import Path
from refstudy.base.locks import locked
with locked(Path(sys.argv[1]), "it is made", wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(path):
    """Another process that holds the lock of a path, and is killed in the end."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        yield other
        other.kill()


def test_a_lock_says_who_holds_it_since_when_and_ends_with_its_process(tmp_path):
    with held(tmp_path / "results") as other:
        message = rf"^it is made \(process {other.pid} on \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d\); wait for that"
        with pytest.raises(Busy, match=message), locked(tmp_path / "results", "it is made", wait=False):
            pass
    with locked(tmp_path / "results", "it is made", wait=False):  # a killed process does not keep it
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".results.lock"}


def unnamed_encodings(tree):
    """The lines that read or write text in whatever encoding the machine has."""
    places = {"read_text": 0, "write_text": 1}  # the positional argument that would name it
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not any(keyword.arg == "encoding" for keyword in node.keywords):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "open" and isinstance(node.func, ast.Name):
                mode = node.args[1] if len(node.args) > 1 else None
                if mode is None or (isinstance(mode, ast.Constant) and "b" not in str(mode.value)):
                    yield node.lineno
            elif name in places and len(node.args) <= places[name]:
                yield node.lineno


def test_every_text_file_is_read_and_written_with_its_encoding_named():
    assert list(unnamed_encodings(ast.parse("open(a)\nopen(a, 'w')\np.read_text()\np.write_text('x')"))) == [1, 2, 3, 4]
    assert not list(unnamed_encodings(ast.parse("open(a, 'rb')\nopen(a, encoding='utf-8')\np.read_text('utf-8')")))
    root = Path(__file__).resolve().parents[1]
    files = [
        path for folder in ("refstudy", "tools", "benchmarks", "examples") for path in root.glob(f"{folder}/**/*.py")
    ]
    found = {f"{path}:{line}" for path in files for line in unnamed_encodings(ast.parse(path.read_text("utf-8")))}
    assert len(files) > 100 and not found


def ask(*arguments):
    """Run `refstudy predict` with the shipped model; its result."""
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, StudyError | SystemExit), result.exception
    return result


def test_a_folder_with_names_and_photos_of_all_kinds_is_answered_to_its_end(tmp_path):
    folder, output = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for name in (b"a.jpg", b"caf\xe9.jpg", "größe {x} 'q'.jpg".encode(), b"z.PNG"):
        Image.new("RGB", (40, 30)).save(os.path.join(os.fsencode(folder), name), "PNG")
    Image.new("RGB", (24, 8)).save(folder / "b.jpg", exif=exif(*EXIFS["a size as text"]))
    for name in ("c.HEIC", "d.dng", "e"):
        (folder / name).write_bytes(b"no picture")
    done = ask(folder, "the cow!", "a xylophone", "?", "--output", output)
    assert done.exit_code == 0 and "5 of 5 photos segmented" in done.output
    said = [line for line in done.stderr.splitlines() if "nothing is marked" not in line]
    assert said == [
        f"note: 5 photos in {folder}; left out, by their names: c.HEIC, d.dng, e (photos end in .jpg or .png)",
        "note: the model has seen drawn scenes of 128 x 128 pixels only; here its masks and scores mean little",
        "note: “a xylophone”: the model does not know xylophone",
        "note: “?”: the model does not know ?",
    ]
    written = [json.loads(path.read_text("ascii")) for path in output.glob("*.json")]
    assert {os.fsencode(one["image"]) for one in written} >= {os.path.join(os.fsencode(folder), b"caf\xe9.jpg")}
    assert len(written) == 5 and all("drawn scenes" in p["notes"][0] for one in written for p in one["predictions"])


def test_expressions_that_are_no_text_or_begin_with_a_dash(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(picture)
    for text in ("red caf\udce9", "\ud83d", " "):
        assert "say what to look for" in str(ask(picture, text, "--output", tmp_path / "out").exception)
    refused = ask(picture, "-red car")
    assert refused.exit_code == 2
    assert "begins with a dash stands after --" in " ".join(refused.stderr.replace("│", " ").split())
    assert ask("--output", tmp_path / "out", "--", picture, "-red car").exit_code == 0


def test_what_is_missing_is_told_before_pytorch_is_loaded(tmp_path):
    code = "import sys; from refstudy.cli import main; sys.argv = ['refstudy', 'predict', 'nope.jpg', 'x']\n"
    code += "try: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "False\n" and "nope.jpg: image not found" in done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENODEV])
def test_a_full_disk_ends_in_one_line(tmp_path, monkeypatch, number):
    def full(*arguments):
        with atomic_write(tmp_path / "a.yaml"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("refstudy.engine.new_part.write_new", full)
    monkeypatch.setattr(sys, "argv", ["refstudy", "new", "fusion", "film"])
    for name in ("stdout", "stderr"):  # whose streams ``main`` sets up anew
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True))
    with pytest.raises(OSError if number == errno.ENODEV else SystemExit) as ended:
        main()
    if number != errno.ENODEV:
        told = f"error: {tmp_path / 'a.yaml'}: {os.strerror(number)}; make room, or allow writing there\n"
        assert ended.value.code == 2 and sys.stderr.buffer.getvalue().decode() == told


def test_data_of_ones_own_are_scored_without_an_interval_of_one_picture_and_runs_are_listed(tmp_path):
    data = tmp_path / "data"
    write_files(data, {name.replace("refcoco", "mine"): content for name, content in refer_files().items()} | PICTURES)
    study = tmp_path / "study.yaml"
    study.write_text(
        yaml.safe_dump({"variants": {"plain": VARIANT}, "profiles": {"small": tiny_profile()}, "runs": {}})
    )
    save_weights(build_model(tiny_model()), tmp_path / "w.safetensors")
    options = ["--profile", "small", "--study", str(study)]
    above = str(tmp_path)  # `data check` accepts the folder above, too
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "w.safetensors"), "--data", above, *options])
    assert done.exit_code == 0, done.exception
    assert re.search(r"mine \(unc\) val, 64 px +\d+\.\d +\d+\.\d ", done.output) and "train" not in done.output
    write_files(data, {"mine/refs(google).p": refer_files()["refcoco/refs(unc).p"]})
    unsure = CliRunner().invoke(app, ["evaluate", str(tmp_path / "w.safetensors"), "--data", str(data), *options])
    assert "mine (google)" in str(unsure.exception) and "name one by --dataset and --split-by" in str(unsure.exception)
    listed = CliRunner().invoke(app, ["train", "--dry-run", *options])
    assert re.search(r"^to train +\S+small/records/plain-seed0-[0-9a-f]{12}\n$", listed.output)
    with pytest.raises(StudyError, match=f"{data} has it: name that folder"):
        load_refer(tmp_path, "mine", "unc")


def test_a_row_is_shown_with_its_intervals_and_the_records_it_comes_from(tmp_path):
    content = {"variants": {"plain": VARIANT}, "profiles": dict.fromkeys(("small", "twin"), tiny_profile()), "runs": {}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    study = load_study(tmp_path / "study.yaml")
    put(study.results("small"), "plain", [0.2, 0.9], images=2, profile="small", study=study)
    tables = study.results("small") / "tables"
    tables.mkdir()
    rows = "row,variant,metric,ours,ours_low,ours_high\nPlain,plain,oIoU,55.0,50.0,60.0\nOther,other,oIoU,,,\n"
    (tables / "t.csv").write_text(rows)
    options = ["--profile", "small", "--study", str(study.path)]
    for name in ("Plain", "plain"):
        shown = CliRunner().invoke(app, ["show", "t", name, *options])
        assert shown.exit_code == 0, shown.exception
        assert re.search(r"oIoU +55.00 +50.00 +60.00", shown.output)
        assert re.search(r"records/plain-seed0-\w{12}: seed 0, commit \w{40}, .*refscenes, data one\n$", shown.output)
    assert "no row 'x'; known: Plain, Other" in str(CliRunner().invoke(app, ["show", "t", "x", *options]).exception)
    assert "`refstudy table` lists them" in str(CliRunner().invoke(app, ["show", "u", "x", *options]).exception)
    for content in (b"", b"\xff\xfe\x00"):
        (tables / "broken.csv").write_bytes(content)
        for command in (["table", "broken"], ["table", "broken", "--csv"], ["show", "broken", "x"]):
            refused = CliRunner().invoke(app, [*command, *options]).exception
            assert isinstance(refused, StudyError) and "broken.csv: no table; `refstudy run` makes it again" in str(
                refused
            )
    elsewhere = ["show", "t", "plain", "--profile", "twin", "--study", str(study.path)]
    assert "profile twin; --profile small has it" in str(CliRunner().invoke(app, elsewhere).exception)
    shutil.copytree(tables, study.results("twin") / "tables")
    told = "plain: no record under profile twin; recorded under small: give --profile\n"
    assert CliRunner().invoke(app, elsewhere).output.endswith(told)


def snippets(page):
    text = (Path(__file__).resolve().parents[1] / page).read_text("utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_pages_snippets_run_as_pasted_from_any_folder(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("refstudy.analysis.opened.OpenStudy.corpus", lambda study, split: split)  # makes 12,000 scenes
    (on_photos,) = [code for code in snippets("docs/usage.md") if "segment_photo" in code]
    known = {}
    exec(on_photos, known)
    answer = known["answer"]
    assert Image.open("overlay.png").size == answer.overlay().size == (320, 240)
    assert "drawn scenes" in repr(answer) and "drawn scenes" in answer._repr_html_() and len(repr(answer)) < 300
    assert answer._repr_html_().startswith('<img src="data:image/png;base64,')
    (opened,) = snippets("README.md")
    exec(opened, {})


ODD_VALUES = [None, NAN, float("inf"), -1, 0, 2**70, 1e308, -0.5, True, [], {}, [None], [[]], [[1, 2]], [NAN] * 8]
ODD_VALUES += ["", " ", "x", "1", "1.0", "NaN", "\ud83d", "a\0b", "../x", "ü" * 300, {"a": 1}]
ODD_VALUES += [{"size": [40, 60], "counts": "x"}, {"size": [40, 60], "counts": [2400]}]


def places_in(content, found):
    """Every (container, key) within nested lists and dictionaries."""
    for key in content if isinstance(content, dict) else range(len(content)):
        found.append((content, key))
        if isinstance(content[key], dict | list):
            places_in(content[key], found)
    return found


def mutated(draw, content):
    """Nested lists and dictionaries with one to three odd values, and entries that are gone or there twice."""
    content = copy.deepcopy(content)
    for _ in range(draw.randint(1, 3)):
        if not (places := places_in(content, [])):
            break
        where, key = draw.choice(places)
        kind = draw.random()
        if kind < 0.7:
            where[key] = copy.deepcopy(draw.choice(ODD_VALUES))
        elif kind < 0.85 or isinstance(where, dict):
            del where[key]
        else:
            where.insert(key, copy.deepcopy(where[key]))
    return content


def spoiled(draw, content):
    """Bytes as disks, networks and editors spoil them."""
    at = draw.randrange(len(content) or 1)
    ways = [
        lambda: content[:at],
        lambda: content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :],
        lambda: content[:at] + bytes(draw.randrange(1, 40)) + content[at:],
        lambda: content[:at] + content[at + draw.randrange(1, 40) :],
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode("latin-1").encode("utf-16"),
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: gzip.compress(content),
        lambda: b"",
    ]
    return draw.choice(ways)()


def one_line(call):
    """What a call gives; a StudyError of one short line per mistake in its place. Anything else is a fault."""
    try:
        return call()
    except StudyError as error:
        assert 0 < len(str(error)) < 20_000 and not re.search(r"\n\s*\n|Traceback", str(error)), error
        return error


def fuzzed_data(draw, root):
    form = draw.choice(["refer", "hub", "answers", "boxes", "queries", "triples"])
    if form == "refer":
        parts = {"refs": [refer_ref(ann_id) for ann_id in SQUARES], "instances": instances()}
        if draw.random() < 0.8:
            parts = mutated(draw, parts)
        files = {"refcoco/refs(unc).p": pickle.dumps(parts.get("refs"), protocol=2)}
        files["refcoco/instances.json"] = json.dumps(parts.get("instances")).encode()
    elif form in ("hub", "answers"):
        rows = [*refer_rows()] if form == "hub" else [*answer_rows("train"), *answer_rows("val")]
        for row in rows:
            for key in ("raw_anns", "raw_image_info"):
                if key in row and draw.random() < 0.3:
                    row[key] = json.dumps(mutated(draw, json.loads(row[key])))
            if draw.random() < 0.3:
                row[draw.choice([key for key in row if key != "image"])] = None
        memory = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), memory)
        files = {"refcoco/train-00000-of-00001.parquet": memory.getvalue()}
    elif form == "boxes":
        rows = mutated(draw, [HEADER.split(","), *ROWS])
        lines = [draw.choice(",;\t").join(map(str, row if isinstance(row, list) else [row])) for row in rows]
        files = {"refcoco_unc_val.csv": "\n".join(lines).encode("utf-8", "surrogatepass")}
    elif form == "queries":
        parts = {
            "query_val": {"8_1": ["sky"], "9_2": ["a", "b"]},
            "bbox_val": {"8_1": [0, 0, 9, 9], "9_2": [1, 2, 3, 4]},
        }
        parts = mutated(draw, parts | {"imsize": {"8.jpg": [48, 36], "9.jpg": [48, 36]}})
        files = {f"referit_{name}.json": json.dumps(part).encode() for name, part in parts.items()}
    else:
        triple = {"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "val", "bbox": [0, 0, 1, 1], "sents": ["x"]}
        triple |= {
            "sent_ids": [1],
            "height": 40,
            "width": 60,
            "image": coco_name(1),
            "mask": f"train2014/{coco_name(1)}",
        }
        files = {"triples.json": json.dumps(mutated(draw, [triple])).encode()}
    files = {name: spoiled(draw, content) if draw.random() < 0.2 else content for name, content in files.items()}
    pictures = {name: spoiled(draw, content) if draw.random() < 0.1 else content for name, content in PICTURES.items()}
    write_files(root, files | pictures)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found = one_line(lambda: list(check_root(root, images=True)))
    if isinstance(found, list):
        for one, _, problems in found:
            assert not any("\n" in line for line in summary(problems)), problems
            table = one_line(lambda one=one: load_refer(root, one.dataset, one.split_by))
            if isinstance(table, StudyError):
                assert (problems["level"] == "problem").any(), f"refused and not told: {table}"
            else:
                assert not table["expression"].isin(["None", "nan", ""]).any()
    assert all(path.read_bytes() == content for path, content in before.items())


def fuzzed_photo(draw, root):
    modes = ["L", "RGB", "RGBA", "P", "CMYK", "I;16", "I", "F", "1", "LA", "YCbCr", "LAB"]
    formats = {
        "JPEG": ["L", "RGB", "CMYK", "YCbCr"],
        "PNG": ["L", "RGB", "RGBA", "P", "I;16", "1", "LA"],
        "TIFF": modes,
    }
    suffix = draw.choice([*formats])
    picture = Image.new(draw.choice(formats[suffix]), (draw.randint(1, 40), draw.randint(1, 40)))
    entries = [draw.choice(TAGS) for _ in range(draw.randint(0, 4))]
    spec = {"exif": exif(*entries)} if suffix != "TIFF" and draw.random() < 0.6 else {}
    memory = io.BytesIO()
    picture.save(memory, suffix, **spec)
    content = memory.getvalue()
    for _ in range(draw.randint(0, 3)):
        content = spoiled(draw, content) if draw.random() < 0.7 else content
    (root / "a.jpg").write_bytes(content)
    for read in (read_photo, read_image):
        pixels = one_line(lambda read=read: read(root / "a.jpg"))
        assert isinstance(pixels, StudyError) or (
            pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        )


VALUES = [(0, bytes(4)), (1, b"\0\6\0\0"), (4, b"\xff" * 4), (2**31, b"\0\0\0\x1a"), (3, b"a\0b\0")]
TAGS = [
    (tag, kind, *value)
    for tag in (0x0100, 0x0101, 0x0111, 0x0112, 0x011A, 0x8769, 0x8825, 0xA005)
    for kind in (1, 2, 3, 4, 5, 7, 10, 11, 12, 99)
    for value in VALUES
]


def fuzzed_study(draw, root):
    content = {"variants": {"plain": VARIANT}, "profiles": {"small": tiny_profile() | {"seeds": [3, 4]}}, "runs": {}}
    text = yaml.safe_dump(mutated(draw, content), allow_unicode=True).encode("utf-8", "surrogatepass")
    (root / "study.yaml").write_bytes(spoiled(draw, text) if draw.random() < 0.3 else text)
    study = one_line(lambda: load_study(root / "study.yaml"))
    if not isinstance(study, StudyError):
        for name in study.profiles:
            for case in study.cases(name):
                one_line(lambda case=case: study.run_config(*case).key())


VARIANT = {"label": "Plain", "fusion": {"name": "tile_concat"}, "decoder": {"name": "fpn"}}


@pytest.mark.slow
@pytest.mark.parametrize("kind, times", [(fuzzed_data, 600), (fuzzed_photo, 900), (fuzzed_study, 500)])
def test_whatever_comes_in_is_read_or_told(tmp_path, kind, times):
    """Mutated folders, photos and study files end in results, problems or lines, and change no file."""
    faults = {}
    for seed in range(int(os.environ.get("FUZZ_FROM", 0)), times):
        root = tmp_path / str(seed)
        root.mkdir()
        try:
            with warnings.catch_warnings(action="ignore"):
                kind(random.Random(seed), root)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            faults.setdefault(f"{type(error).__name__} in {where.name}, line {where.lineno}: {error}"[:300], seed)
        shutil.rmtree(root)
    assert not faults, "\n".join(f"seed {seed}: {fault}" for fault, seed in faults.items())
