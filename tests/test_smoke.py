"""The smoke profile from nothing: it trains, it learns, its notebooks run, its tables and figures appear."""

import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook, new_output

from refstudy.data.source import default_data_root
from refstudy.engine.plan import plan
from refstudy.models.build import build_model
from refstudy.study import FILE_NAME
from refstudy.study.load import load_study
from refstudy.training.evaluation import evaluate, summarize_counts, whole_image_counts
from refstudy.training.loop import load_corpora
from refstudy.training.records import find_record, find_records

from .helpers import ROOT, copy_notebooks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study file and its notebooks in a folder without results; drawn scenes are kept where the study's own are."""
    root = tmp_path_factory.mktemp("study")
    shutil.copy(ROOT / FILE_NAME, root)
    copy_notebooks(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFSTUDY_DATA", str(default_data_root(ROOT).absolute()))
        yield load_study(root / FILE_NAME)


def run(study, *options):
    command = [sys.executable, "-m", "refstudy.cli", "run", "--profile", "smoke", *options]
    return subprocess.run(command, cwd=study.root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def smoke(study):
    """The results of ``refstudy run --profile smoke``, from nothing."""
    done = run(study)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return study.results("smoke")


def test_every_run_left_its_executed_notebook(smoke, study):
    for step in plan(study, "smoke"):
        assert step.output.exists()
    assert not list((smoke / "notebooks").glob("*.failed.ipynb"))


def test_tables_come_from_the_records_just_made(smoke, study):
    records = find_records(smoke / "records")
    assert {record.config.variant for record in records} == set(study.variant_names("smoke"))
    table = pd.read_csv(smoke / "tables" / "s2rm_table4.csv").query("metric == 'oIoU'").set_index("variant")
    for record in records:
        assert table.loc[record.config.variant, "ours"] == pytest.approx(record.metrics["val"]["oIoU"], abs=0.01)
    assert table["ours"].notna().sum() == len(records)


def test_the_figures_are_there_as_png_and_charts_as_svg_too(smoke):
    names = {path.stem for path in (smoke / "figures").glob("*.png")}
    assert {"s2rm_fig2", "s2rm_cell_maps", "s2rm_ablations", "data_gallery_refscenes"} <= names
    charts = {path.stem for path in (smoke / "figures").glob("*.svg")}
    assert "s2rm_ablations" in charts < names and "data_gallery_refscenes" not in charts  # a figure of pictures


def test_the_model_has_learned(smoke, study):
    """At least twice the untrained model's overall IoU, and above marking the whole picture."""
    config = study.run_config("smoke", "s2rm_fpn", 0)
    reached = find_record(smoke / "records", config).metrics["val"]["oIoU"]
    corpora, _ = load_corpora(config.data, config.model.text, ("val",), study.data_root, progress=False)
    torch.manual_seed(config.seed)
    untrained = summarize_counts(evaluate(build_model(config.model), corpora["val"]))["oIoU"]
    whole = summarize_counts(whole_image_counts(corpora["val"]))["oIoU"]
    assert reached > 2 * untrained
    assert reached > 1.5 * whole


def test_a_second_run_finds_the_records_and_changes_no_table(smoke, study):
    before = {path.name: path.read_bytes() for path in (smoke / "tables").iterdir()}
    done = run(study, "--only", "06_ablations")
    assert done.returncode == 0 and "2 with a run record, 0 without" in done.stdout
    assert before == {path.name: path.read_bytes() for path in (smoke / "tables").iterdir()}


def re_execute(*notebooks):
    """nbval on executed notebooks: each cell has to run, and to show the same if it is marked NBVAL_CHECK_OUTPUT."""
    options = ("-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-kernel-startup-timeout=300")
    command = [sys.executable, "-m", "pytest", *options, *map(str, notebooks)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_notebook_has_an_output_to_check(smoke):
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(smoke / "notebooks" / path.name, as_version=4).cells
        marked = [cell for cell in cells if cell.source.startswith("# NBVAL_CHECK_OUTPUT\n")]
        assert marked and all(cell.outputs for cell in marked), path.name


def test_nbval_finds_again_what_papermill_left(smoke):
    names = ("02_s2rm_walkthrough.ipynb", "06_ablations.ipynb", "09_paper_audit.ipynb")
    done = re_execute(*(smoke / "notebooks" / name for name in names))
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize("shown, code", [("1.4142", 0), ("1.4143", 1)])
def test_nbval_fails_for_a_wrong_number_in_a_checked_cell_alone(tmp_path, shown, code):
    checked = new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(f'root {2**0.5:.4f}')", execution_count=1)
    checked.outputs = [new_output("stream", name="stdout", text=f"root {shown}\n")]
    free = new_code_cell("print(1)", execution_count=2, outputs=[new_output("stream", name="stdout", text="2\n")])
    book = new_notebook(cells=[checked, free], metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nbformat.write(book, tmp_path / "small.ipynb")
    done = re_execute(tmp_path / "small.ipynb")
    assert done.returncode == code, done.stdout
    assert ("1 failed, 1 passed" if code else "2 passed") in done.stdout
