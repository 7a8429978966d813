"""Run records that were cut short, broken or left behind."""

import shutil

import pytest

from refstudy.errors import StudyError
from refstudy.records import find_records, read_record

from .test_tables import put


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


def test_what_a_killed_writer_left_is_no_record(folder):
    shutil.copytree(folder, folder.with_name(f".{folder.name}.123.tmp"))
    assert [record.path for record in find_records(folder.parent)] == [folder]
