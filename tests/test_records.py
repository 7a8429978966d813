"""Run records that were cut short, broken or left behind."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest

from refstudy.base.errors import StudyError
from refstudy.base.files import _beside, atomic_folder, atomic_write
from refstudy.training.records import find_records, read_record

from .helpers import ROOT, put


@pytest.fixture
def folder(tmp_path):
    put(tmp_path, "tile_concat", [0.5] * 20)
    (path,) = (tmp_path / "records").iterdir()
    return path


BROKEN = [
    ("provenance.json", None),
    ("provenance.json", "5"),
    ("curve.csv", None),
    ("curve.csv", ""),
    ("gates.csv", ""),
    ("gates.csv", "update,gate"),
    ("masks.json", "{"),
    ("masks.json", "5"),
    ("masks.json", '{"1": 5}'),
    ("counts.parquet", None),
]


@pytest.mark.parametrize("name, content", BROKEN)
def test_a_broken_file_is_named_with_the_remedy(folder, name, content):
    record = read_record(folder)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(StudyError, match=f"{name}: unreadable .*; restore it or train again") as caught:
        getattr(record, name.split(".")[0])()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["[]", "5", "null"])
def test_json_that_is_no_record_is_refused(folder, content):
    (folder / "record.json").write_text(content)
    with pytest.raises(StudyError, match="unreadable run record"):
        read_record(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda train: train | {"new_key": 1},
            r"\(config.train.new_key: .*\); a newer refstudy wrote it; update refstudy",
        ),
        (lambda train: train | {"epochs": 0}, r"\(config.train.epochs: .*\); restore it, or train it anew by"),
        (None, "train it anew by `refstudy train --profile small --variant tile_concat --seed 0 --again`"),
    ],
)
def test_what_is_wrong_in_a_record_is_named_with_its_remedy(folder, change, said):
    folder = shutil.copytree(folder, folder.parents[1] / "small" / "records" / folder.name)
    path = folder / "record.json"
    content = json.loads(path.read_text())
    if change:
        content["config"]["train"] = change(content["config"]["train"])
    path.write_text(json.dumps(content) if change else "")
    with pytest.raises(StudyError, match=said) as caught:
        read_record(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_what_a_killed_writer_left_is_no_record(folder):
    shutil.copytree(folder, folder.with_name(f".{folder.name}.123.tmp"))
    assert [record.path for record in find_records(folder.parent)] == [folder]


def test_another_last_bit_is_no_edit_but_another_number_is(folder):
    path = folder / "record.json"
    content = json.loads(path.read_text())
    metrics = content["metrics"]["val"]

    def read_with(changed):
        path.write_text(json.dumps(content | {"metrics": {"val": changed}}))
        return read_record(folder).metrics["val"]

    assert read_with({name: math.nextafter(value, 0) for name, value in metrics.items()}) == metrics
    fewer = {name: value for name, value in metrics.items() if name != "oIoU"}
    for changed in (metrics | {"oIoU": metrics["oIoU"] + 1e-4}, fewer, metrics | {"another": 1.0}):
        with pytest.raises(StudyError, match="metrics does not follow from its contents"):
            read_with(changed)
    with pytest.raises(StudyError, match="unreadable run record"):
        read_with(metrics | {"oIoU": "high"})


def test_a_record_that_cannot_be_replaced_stays(folder, monkeypatch):
    before, rename = read_record(folder), Path.rename

    def refuse_first(path, target):
        if target == folder:
            monkeypatch.setattr(Path, "rename", rename)
            raise OSError("the disk is gone for a moment")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_first)
    with pytest.raises(OSError, match="for a moment"):
        put(folder.parents[1], "tile_concat", [0.9] * 20)
    assert read_record(folder).metrics == before.metrics
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    put(folder.parents[1], "tile_concat", [0.9] * 20)
    assert read_record(folder).metrics != before.metrics
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_writers_of_one_path_never_meet_and_permissions_are_the_usual(tmp_path, monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: 7)  # as processes of two containers may both have
    with atomic_write(tmp_path / "a.txt") as one, atomic_write(tmp_path / "a.txt") as other:
        one.write_text("one")
        other.write_text("other")
        assert one.suffix == other.suffix == ".txt"
    with atomic_folder(tmp_path / "a") as one, atomic_folder(tmp_path / "a") as other:
        (one / "one").touch()
        (other / "other").touch()
    (tmp_path / "usual.txt").touch()
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "a.txt").read_text() == "one" and [path.name for path in (tmp_path / "a").iterdir()] == ["one"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.txt", "usual", "usual.txt"]
    for made, usual in (("a", "usual"), ("a.txt", "usual.txt")):
        assert (tmp_path / made).stat().st_mode == (tmp_path / usual).stat().st_mode


@pytest.mark.parametrize("name", ["table.csv", "plain-seed0-0123456789ab"])
def test_git_ignores_what_a_killed_writer_left(name):
    left = _beside(ROOT / "results" / "scenes" / "records" / name)
    assert subprocess.run(["git", "check-ignore", "--quiet", left], cwd=ROOT, check=False).returncode == 0
