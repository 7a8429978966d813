"""Your own data in notebook 01: read as the check reads them, counted and drawn with RefScenes and the benchmarks."""

import matplotlib.pyplot as plt
import pytest

import refstudy
from refstudy.analysis import exploration, figures_data
from refstudy.base.errors import StudyError

from .helpers import ROOT
from .test_data_forms import PICTURES, write_files
from .test_data_odd import ref, refer_files

STUDY = str(ROOT / "papermill_runs.yaml")


@pytest.fixture(scope="module")
def flavours(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFSTUDY_DATA", str(tmp_path_factory.mktemp("data")))
        return exploration.make_flavours(refstudy.open("scenes", STUDY), 3, 0)


def test_no_folder_no_data(flavours):
    assert exploration.read_own(flavours, "") == {}


def test_own_data_stand_beside_flavours_and_benchmarks(flavours, tmp_path, capsys):
    sentences = [{"sent_id": 1, "sent": "the left box", "raw": "-"}, {"sent_id": 2, "sent": "box", "raw": "-"}]
    broken = {"sent_id": 3, "sent": None, "raw": "-"}
    write_files(tmp_path / "deeper", refer_files(ref(sentences=[*sentences, broken])) | PICTURES)
    (name, table), *others = exploration.read_own(flavours, str(tmp_path)).items()
    said = capsys.readouterr().out
    assert name == "refcoco (unc)" and not others
    table = table.iloc[:2]
    assert table["expression"].tolist() == ["the left box", "box"]
    assert "refcoco (unc): REFER files, 6 expressions, 1 broken entries left out: `refstudy data check" in said
    found = exploration.own_statistics({name: table}, flavours)
    assert list(found)[:2] == [name, "RefScenes"] and list(found)[-1] == "ReferIt" and found.notna().all(axis=None)
    own = found[name]
    assert own["words per expression"] == 2 and own["expressions per referent"] == 2
    assert own["expressions of one word"] == 50 and own["words that are “the”"] == 25
    _, _, width, height = table["bbox"].iloc[0]
    share = width * height / (table["height"].iloc[0] * table["width"].iloc[0])
    assert own["box over picture, 50% quantile"] == pytest.approx(100 * share)
    for figure in (
        figures_data.gallery(name, table),
        figures_data.own_data({name: table}, flavours.tables["refscenes"]),
    ):
        figure.canvas.draw()
    boxes = table.assign(segmentation=[[]] * len(table))
    assert len(figures_data.gallery(name, boxes).axes) == 2
    assert figures_data.gallery(name, table.assign(image_path="/none.jpg")) is None
    plt.close("all")


def test_a_folder_without_data_is_told(flavours, tmp_path):
    with pytest.raises(StudyError, match="no expressions there; `refstudy data check .*` says why"):
        exploration.read_own(flavours, str(tmp_path))
