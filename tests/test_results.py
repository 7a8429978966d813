"""The committed results are what the code makes, and ``refstudy verify`` tells when they are not."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from refstudy.analysis.ceilings import ceilings, read_ceilings
from refstudy.analysis.figures import save
from refstudy.analysis.measures import jackknifed_counts, over_pictures
from refstudy.analysis.results import BUILDERS
from refstudy.analysis.scene_things import scene_things
from refstudy.analysis.table_files import write_table
from refstudy.analysis.tables import PAPER_TABLES
from refstudy.analysis.wordless import WORDLESS, best_wordless_counts, wordless_counts
from refstudy.base.config import DataConfig, record_name
from refstudy.base.errors import StudyError
from refstudy.cli import app
from refstudy.data.batches import build_corpus
from refstudy.data.refer import load_refer
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.engine.manifest import FILE_NAME, read_manifest, write_manifest
from refstudy.engine.report import PAPER_FIGURES
from refstudy.engine.verify import verify
from refstudy.study.load import load_study
from refstudy.training.loop import SHOWN_IMAGES
from refstudy.training.records import find_record, find_records

ROOT = Path(__file__).resolve().parents[1]
STUDY = load_study(ROOT / "papermill_runs.yaml")
SCENES = ROOT / "results" / "scenes"
# These count multiply-adds for a minute; tests/test_cost.py is theirs.
COUNTED = ("s2rm_table2", "claims", "costs", "printed_costs")


@pytest.mark.parametrize("stem", [stem for stem in BUILDERS if stem not in COUNTED])
def test_a_committed_table_is_what_the_records_give(stem, tmp_path):
    made = write_table(BUILDERS[stem](STUDY.under("scenes")), tmp_path, stem)
    assert made.read_bytes() == (SCENES / "tables" / f"{stem}.csv").read_bytes()


def test_the_study_file_gives_every_committed_record_its_key():
    """A setting that is new, or whose default is another now, must not orphan what was measured before."""
    found = [(name, record) for name in STUDY.profiles for record in find_records(STUDY.results(name) / "records")]
    assert found
    for profile, record in found:
        assert record.path.name == record_name(STUDY.run_config(profile, record.config.variant, record.config.seed))


def test_encoders_were_pretrained_as_the_study_file_says_and_equally_well():
    """So that rows of one table start alike; the mean of both accuracies is to differ by less than a point."""
    profile, reached, texts = STUDY.profile("scenes"), {}, []
    for variant, special in (("s2rm_casg", {}), ("slvit", profile.special["slvit"].pretraining)):
        with safe_open(STUDY.encoders("scenes", variant), "pt") as file:
            about = {name: json.loads(text) for name, text in file.metadata().items()}
            texts.append({name: file.get_tensor(name) for name in file.keys() if name.startswith("text.")})  # noqa: SIM118
        assert about["pretraining"] == profile.pretraining.model_dump(mode="json") | special
        assert DataConfig.model_validate(about["data"]) == profile.data
        reached[variant] = np.mean([about["reached"]["category_accuracy"], about["reached"]["colour_accuracy"]])
    assert abs(reached["s2rm_casg"] - reached["slvit"]) < 1
    assert texts[0] and all(torch.equal(tensor, texts[1][name]) for name, tensor in texts[0].items())


def test_every_table_and_figure_of_the_papers_is_there():
    assert set(PAPER_TABLES) <= {path.stem for path in (SCENES / "tables").glob("*.csv")}
    trained = find_record(SCENES / "records", STUDY.run_config("scenes", "slvit", 0))
    waiting = set() if trained else {"slvit_fig2", "slvit_fig5b"}  # they show what runs have reached
    assert set(PAPER_FIGURES) - waiting <= {path.stem for path in (SCENES / "figures").glob("*.png")}


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    """The corpus of val, and all things in its pictures."""
    config = STUDY.profile("scenes").data
    config = config.model_copy(update={"scenes": {"val": config.scenes["val"]}})  # the same as beside other splits
    root = prepare_data(config, tmp_path_factory.mktemp("val"), progress=False)
    table = load_refer(root, config.dataset, config.split_by)
    corpus = build_corpus(table, "val", config.image_size, build_tokenizer(), config.max_words, progress=False)
    things = scene_things(root, config.dataset, table["image_id"].unique(), config.image_size)
    return corpus, things


def test_the_committed_floors_are_those_of_the_data(val):
    floors = {"every": wordless_counts(*val), "best": best_wordless_counts(val[0])}
    written = pd.read_csv(SCENES / "tables" / "wordless.csv")[: len(floors)]
    for line, (floor, counts) in zip(written.itertuples(), floors.items(), strict=True):
        found = over_pictures(jackknifed_counts(counts)["oIoU"])
        assert line.label == WORDLESS[floor]
        assert [line.oIoU, line.oIoU_low, line.oIoU_high] == pytest.approx(
            [found.points, *found.interval()], abs=0.0051
        )


def test_the_committed_ceilings_are_those_of_the_data(val):
    written, found = read_ceilings(SCENES), ceilings(val[0]).set_index("stride")
    pd.testing.assert_frame_equal(written[found.columns], found, rtol=0, atol=0.0051)


def test_the_pages_quote_what_was_measured():
    page = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in page["PAGES"])
    assert page["filled"](text) == text, "python benchmarks/page.py renews it"
    measured = {path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")}
    found = measured & {path.stem for path in page["RESULTS"].glob("*.csv")}  # an experiment is quoted elsewhere
    quoted = {"slopes" if name == "growth" else name for name in found}
    assert quoted <= set(page["TABLE"].findall(text))


def test_the_page_begins_with_what_is_how_much_faster(tmp_path):
    page = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))
    page["filled"].__globals__["RESULTS"] = tmp_path
    assert page["filled"]("<!-- summary -->\nold\n<!-- end -->") == "<!-- summary -->\n\n<!-- end -->"
    stamp = "here,2.0,2026-01-01"
    head = "what,unit,baseline,ours,ratio,floor,machine,torch,date"
    rows = ["lavt at 480: a,s,1,2,0.5,1", "slvit at 480: b,s,3,2,1.5,", "cris at 416: c,s,9,1,9,", "lavt: d,MB,9,1,9,"]
    (tmp_path / "peers.csv").write_text("\n".join([head, *(f"{row},{stamp}" for row in rows)]))
    head = "what,baseline,baseline_s,ours_s,times,at_most,machine,torch,date"
    rows = ["refstudy --help,import pandas,1,1.2,1.2,1.5", "refstudy cost,,,9,,15 s"]
    (tmp_path / "prompt.csv").write_text("\n".join([head, *(f"{row},{stamp}" for row in rows)]))
    assert page["table"]("summary").splitlines() == [
        "- LAVT and SLViT are 0.5 to 1.5 times as fast as their authors' own code; least: lavt at 480: a; "
        "most: slvit at 480: b. *here, 2026-01-01.*",
        "- A command without a model takes 1.2 times the CPU time of importing pandas: refstudy --help. "
        "*here, 2026-01-01.*",
    ]


def test_benchmarks_go_on_after_one_that_fails_and_after_a_stop(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    shutil.copy(ROOT / "benchmarks" / "all.py", folder)
    for name, code in (("bad", "raise SystemExit(3)"), ("good", ""), ("cluster", ""), ("quick", "")):
        (folder / f"bench_{name}.py").write_text(f"print('ran {name}', flush=True); {code}")
    (folder / "page.py").write_text("print('ran page', flush=True)")

    def ran(status):
        command = [sys.executable, "benchmarks/all.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return re.findall(r"^ran (\w+)|(\w+)  failed", done.stdout, re.MULTILINE)

    def names(text):
        return [(name, "") for name in text.split()]

    assert ran(1) == [*names("bad good quick cluster page"), ("", "bad")]
    (folder / ".took.json").write_text(json.dumps([{"good": 9, "cluster": 2, "quick": 1, "bad": 0}, {"bad": 0}]))
    assert ran(0) == names("quick cluster good page")
    assert ran(1)[:4] == names("bad cluster good quick")


def test_committed_files_are_those_of_the_manifest():
    manifest = read_manifest(SCENES)
    for kind in ("tables", "figures"):
        listed = {name for entry in manifest[kind].values() for name in entry["files"]}
        assert listed == {path.name for path in (SCENES / kind).iterdir() if not path.name.startswith(".")}


def test_masks_that_records_keep_have_the_counts_of_the_records(tmp_path):
    """The first scenes of a split are the same in a smaller set, so only those are made here."""
    records = [record for record in find_records(SCENES / "records") if record.masks()]
    assert records
    for data in {json.dumps(record.config.data.model_dump(), sort_keys=True) for record in records}:
        own = [record for record in records if json.dumps(record.config.data.model_dump(), sort_keys=True) == data]
        config = own[0].config.data.model_copy(update={"scenes": {"val": SHOWN_IMAGES}})
        table = load_refer(prepare_data(config, tmp_path, progress=False), config.dataset, config.split_by)
        corpus = build_corpus(table, "val", config.image_size, build_tokenizer(), config.max_words)
        truth = corpus.mask(corpus.ref_of_expression)
        for record in own:
            counts = record.counts().query("split == 'val' and image_id in @corpus.table.image_id")
            kept = record.masks()
            masks = np.stack([kept[sentence] for sentence in counts["sent_id"]])
            assert (counts["intersection"] == (masks & truth).sum((1, 2))).all(), record.path.name
            assert (counts["union"] == (masks | truth).sum((1, 2))).all(), record.path.name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A results folder with one table that is recomputed, one of a notebook alone, and one figure."""
    builders = {"s2rm_table4": lambda study: pd.DataFrame({"ours": [1.5]})}
    monkeypatch.setattr("refstudy.analysis.results.BUILDERS", builders)
    write_table(pd.DataFrame({"ours": [1.5]}), tmp_path / "tables", "s2rm_table4")
    write_table(pd.DataFrame({"cause": ["leaked"]}), tmp_path / "tables", "failure_causes")
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    save(figure, tmp_path / "figures", "line")
    write_manifest(STUDY.under("scenes", tmp_path))
    return tmp_path


def states(folder):
    return verify(STUDY, folder).set_index("file")["state"].to_dict()


def test_an_untouched_folder_is_verified(folder):
    found = states(folder)
    assert found.pop("tables/s2rm_table4.csv") == "same"
    assert found == dict.fromkeys(("tables/failure_causes.csv", "figures/line.svg", "figures/line.png"), "as written")


def test_every_edit_is_told(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    (folder / "tables" / "s2rm_table4.csv").write_text("ours\n1.60\n")
    (folder / "tables" / "failure_causes.csv").write_text("cause\nnone\n")
    (folder / "figures" / "line.png").unlink()
    found = states(folder)
    assert found["tables/s2rm_table4.csv"] == "differs"
    assert found["tables/failure_causes.csv"] == "changed"
    assert found["figures/line.png"] == "missing"
    done = CliRunner().invoke(app, ["verify", str(folder)])
    assert done.exit_code == 1 and "differs: " in done.output and "3 are not" in done.output


@pytest.mark.parametrize("content", ["{", "5", "[]", '{"profile": "scenes"}', '{"tables": {"a": {}}, "figures": {}}'])
def test_a_broken_manifest_is_named(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(StudyError, match=f"{FILE_NAME}: no manifest .*restore it, or delete it and run"):
        read_manifest(tmp_path)


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(StudyError, match=FILE_NAME):
        verify(STUDY, tmp_path)
