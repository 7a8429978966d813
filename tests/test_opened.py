"""The study opened in one line: tables, records, models and data by name; the same tables from the shell."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import refstudy
from refstudy.analysis.table_files import readable
from refstudy.base.errors import StudyError
from refstudy.cli import app

ROOT = Path(__file__).resolve().parents[1]
STUDY = str(ROOT / "papermill_runs.yaml")


def test_importing_refstudy_loads_nothing_but_itself():
    code = "import refstudy, sys; print(*{'numpy', 'pandas', 'pydantic', 'torch', 'yaml'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


def test_a_table_is_what_the_results_hold():
    study = refstudy.open("scenes", STUDY)
    made = study.table("s2rm_table4")
    kept = pd.read_csv(study.folder / "tables" / "s2rm_table4.csv", keep_default_na=False, na_values=[""])
    assert list(made) == list(kept) and made["row"].tolist() == kept["row"].tolist()
    with pytest.raises(StudyError, match="no table 's2rm_table9'; known: .*s2rm_table4"):
        study.table("s2rm_table9")


def test_models_records_and_pictures_by_name(data_root, monkeypatch):
    study = refstudy.open("scenes", STUDY)
    shipped, seed = next(iter(study.settings.ships.items()))
    model, record = study.model(shipped), study.record(shipped, seed)
    assert record.config.model.fusion == study.config(shipped, seed).model.fusion and not model.training
    assert all(one.config.variant == "tile_concat" for one in study.records("tile_concat"))
    with pytest.raises(StudyError, match="casg_sigmoid.safetensors: no weights; profile 'scenes' keeps those of"):
        study.model("casg_sigmoid")
    with pytest.raises(StudyError, match="no record of slvit, seed 99; make it with `refstudy train .*--seed 99`"):
        study.record("slvit", 99)
    with pytest.raises(StudyError, match="unknown variant 'slwit'"):
        study.records("slwit")
    monkeypatch.setenv("REFSTUDY_DATA", str(data_root))
    corpus = study.corpus("val", scenes=3)
    assert len(corpus.images) == 3 and corpus.image_size == study.config("s2rm_casg").data.image_size


def test_only_the_split_that_is_asked_for_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("REFSTUDY_DATA", str(tmp_path))
    study = refstudy.open("smoke", STUDY)
    with pytest.raises(StudyError, match="refscenes has no split 'test' here; it has train, val"):
        study.corpus("test")
    assert not any(tmp_path.iterdir())
    pictures = study.corpus("val").images
    assert [folder.name.rsplit("-", 1)[1] for folder in tmp_path.iterdir()] == [f"val{len(pictures)}"]
    assert len(pictures) == study.config("s2rm_casg").data.scenes["val"]


def test_tables_from_the_shell(monkeypatch):
    monkeypatch.chdir(ROOT)

    def shell(*arguments):
        return CliRunner().invoke(app, ["table", *arguments])

    assert {"s2rm_table4", "claims"} <= set(shell().output.split())
    lines = shell("s2rm_table4").output.splitlines()
    assert lines[0].split()[:3] == ["metric", "oIoU", "mIoU"]
    assert any(line.startswith("W. Tile & Concat.") and "60.55" in line for line in lines)
    whole = (ROOT / "results" / "scenes" / "tables" / "s2rm_table4.csv").read_text()
    assert shell("s2rm_table4", "--csv").output == whole
    assert "known: " in str(shell("s2rm_tabel4").exception)
    for stem in shell().output.split():
        assert shell(stem).exit_code == 0, stem


def test_our_numbers_stand_in_brackets():
    table = pd.DataFrame(
        {"row": ["a", "b"], "metric": ["oIoU"] * 2, "printed": [60.55, float("nan")], "ours": [51.234, 40.0]}
    )
    assert readable(table)["oIoU"].tolist() == ["60.55 (51.23)", "(40.00)"]
