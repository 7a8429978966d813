"""A module of your own compared with recorded baselines: trained as they were, judged by their rules, told in full."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from refstudy.analysis.compared import by_length, gains, smallest_gains
from refstudy.base.errors import StudyError
from refstudy.base.files import path_digest
from refstudy.cli import app
from refstudy.engine import comparison
from refstudy.engine.comparison_file import write_study
from refstudy.engine.trainings import train_run
from refstudy.engine.workers import connect
from refstudy.models import own_parts
from refstudy.study.load import load_study
from refstudy.training.loop import train
from refstudy.training.records import find_records, read_record, write_record
from refstudy.training.trainer import Trainer

from .conftest import tiny_profile
from .helpers import STUDY, put

FILM = Path(__file__).resolve().parents[1] / "examples" / "film.py"
DECODER = """
from torch import nn

class Draw(nn.Module):
    def forward(self, maps, fused, sentence, image_index, sharp=False):
        return fused
"""
PLAIN = {"label": "Tile <b>&</b> Concat", "fusion": {"name": "tile_concat"}, "decoder": {"name": "fpn"}}
ACM = {"label": "ACM + FPN", "fusion": {"name": "acm"}, "decoder": {"name": "fpn"}}


@pytest.fixture(scope="module")
def recorded(data_root, tmp_path_factory):
    """A study with three runs of one variant, the last two of which are made from the first, and none of another."""
    root = tmp_path_factory.mktemp("recorded")
    profile = tiny_profile(epochs=2) | {"seeds": [0, 1, 2]}
    settings = {"variants": {"plain": PLAIN, "acm": ACM}, "profiles": {"small": profile}, "runs": {}}
    (root / "papermill_runs.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    study = load_study(root / "papermill_runs.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFSTUDY_DATA", str(data_root))
        first = read_record(train_run(study, "small", "plain", 0))
    for seed in (1, 2):
        counts = first.counts()
        counts["intersection"] = (counts["intersection"] * (1 - 0.02 * seed)).astype(int)
        config = study.run_config("small", "plain", seed)
        write_record(first.path.parent, config, first.summary, first.curve(), counts, first.provenance())
    return root


@pytest.fixture
def here(recorded, data_root, tmp_path, monkeypatch):
    """A user's folder with FiLM in it, and the study elsewhere."""
    monkeypatch.setenv("REFSTUDY_DATA", str(data_root))
    monkeypatch.setattr(own_parts, "_files", {})
    shutil.copytree(recorded, tmp_path / "study")
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(FILM, folder)
    monkeypatch.chdir(folder)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield folder
    for number, handler in before.items():
        signal.signal(number, handler)


def options(here):
    return ["--profile", "small", "--study", str(here.parent / "study" / "papermill_runs.yaml")]


def call(here, *further, source="film.py:FiLM"):
    return CliRunner().invoke(app, ["compare", source, *options(here), *further])


def opened(here, *against, seeds=3, source="film.py:FiLM", **how):
    study = here.parent / "study" / "papermill_runs.yaml"
    about = {"decoder": "fpn", "flavour": "", "profile": "small", "output": None, "study": study} | how
    return comparison.opened(write_study(source, against=against, seeds=seeds, **about))


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_module_is_trained_and_told_and_the_study_stays_as_it_is(here):
    study = here.parent / "study"
    before = files(study)
    done = call(here, "--seeds", "1")
    assert done.exit_code == 0, done.output
    assert files(study) == before
    folder = here / "comparisons" / "film" / "results" / "small"
    assert "left out: ACM + FPN, no run recorded; `refstudy train --profile small --variant acm`" in done.output
    assert re.search(r"epoch 1 of 2; Tile <b>&</b> Concat had \d+\.\d", done.output)
    assert re.search(r"a seed takes about \d+ min here, seeds to train: 1, in all \d+ min; Ctrl-C saves", done.output)
    assert "no verdict: one run, 3 are needed" in done.output
    summary = done.output[done.output.index("FiLM + FPN: ") :].strip().splitlines()
    assert len(summary) <= 10 and "overall IoU on RefScenes val, 64 px, 1 of 1 seeds" in summary[0]
    assert "not told: pictures are drawn" in done.output and "in print is not known yet (0 of 8 rows" in done.output
    page = (folder / "comparison.html").read_text("utf-8")
    assert "Tile &lt;b&gt;&amp;&lt;/b&gt; Concat" in page and "<b>&" not in page
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) <= {"data:", *re.findall(r'href="(#[^"]{4})', page)}
    assert not re.search(r'(?:src|href)="(?!#|data:)', page) and page.count("data:image/png;base64,") >= 2
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))
    assert "class FiLM(nn.Module)" in page and "is not known yet" in page
    (record,) = find_records(folder / "records")
    level = pd.read_csv(folder / "levels.csv").iloc[0]
    assert level["oIoU"] == pytest.approx(record.metrics["val"]["oIoU"], abs=0.005) and level["parameters"] > 0.1
    after = files(here / "comparisons")
    again = call(here, "--seeds", "1")
    assert again.exit_code == 0 and files(here / "comparisons") == after and "epoch" not in again.output
    assert summary == again.output.strip().splitlines()[-len(summary) :]


def interrupted(here, update, number):
    """Go on in a process of its own that ends itself by this signal once it has made this update."""
    code = f"""
import os, sys
from refstudy.engine import comparison
from refstudy.training import loop
from refstudy.training.trainer import Trainer
from refstudy.cli import main
step = Trainer.step
comparison._trial = lambda study, sources, seeds, corpora: dict.fromkeys(seeds, 1.0)
loop.CHECKPOINT_EVERY = 0
def stepped(self, batch):
    step(self, batch)
    if self.update == {update}:
        os.kill(os.getpid(), {int(number)})
Trainer.step = stepped
sys.argv = ["refstudy", "compare", "film.py:FiLM", "--seeds", "1", *{options(here)!r}]
main()
"""
    return subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True).returncode


@pytest.mark.slow
def test_ten_interruptions_leave_the_records_of_none(here, monkeypatch, tmp_path):
    step = Trainer.step
    monkeypatch.setattr(comparison, "_trial", lambda study, sources, seeds, corpora: dict.fromkeys(seeds, 1.0))
    for update in (1, 2, 4, 6, 7, 9, 11):

        def stepped(self, batch, last=update):
            step(self, batch)
            if self.update == last:
                os.kill(os.getpid(), signal.SIGTERM)

        if update in (2, 7, 11):
            assert interrupted(here, update, signal.SIGKILL) == -signal.SIGKILL
        monkeypatch.setattr(Trainer, "step", stepped)
        stopped = call(here, "--seeds", "1")
        assert stopped.exit_code == 75 and f"after {update} of 12 updates" in stopped.output
        assert not (here / "comparisons" / "film" / "results").exists()
    monkeypatch.setattr(Trainer, "step", step)
    assert call(here, "--seeds", "1").exit_code == 0
    study = opened(here)
    (record,) = find_records(study.records_of("film"))
    assert len(record.provenance()["resumed"]) >= 7
    config = study.config("film", 0)
    whole = train(config, tmp_path / "whole", tmp_path / "work", study.file.data_root, progress=False)
    for name in ("record.json", "curve.csv", "counts.parquet", "masks.json"):
        assert (record.path / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_seeds_at_once_and_on_a_cluster(here):
    done = call(here, "--seeds", "2", "--at-once", "2")
    assert done.exit_code == 0 and "2 of 2 seeds" in done.output, done.output
    with connect("", threads=1) as client:
        address = client.scheduler_info()["address"]
        assert call(here, "--scheduler", address, "--minutes", "3").exit_code == 1
        spread = call(here, "--scheduler", address)
    assert spread.exit_code == 0 and "3 of 3 seeds" in spread.output
    assert len(find_records(opened(here).records_of("film"))) == 3


def test_seeds_at_once_are_refused_for_a_cluster_before_data_are_made(here, monkeypatch):
    monkeypatch.setattr("refstudy.engine.comparison.load_corpora", Mock(side_effect=AssertionError))
    refused = call(here, "--scheduler", "tcp://nowhere:1", "--at-once", "2")
    assert str(refused.exception).startswith("--at-once: not with --scheduler")


def test_minutes_end_between_seeds(here, monkeypatch):
    times = {0: 20.0, 1: 3000.0, 2: 1.0}
    monkeypatch.setattr(comparison, "_trial", lambda study, sources, seeds, corpora: {s: times[s] for s in seeds})
    short = call(here, "--minutes", "0.2")
    assert "--minutes 0.2: the first seed takes about 1 min here" in str(short.exception)
    assert "give --minutes 6 or more" in str(short.exception)
    assert not (here / "comparisons" / "film" / "results").exists()
    trained = []
    monkeypatch.setattr(comparison, "train_all", lambda study, cases, *how: trained.extend(cases) or 0)
    some = call(here, "--minutes", "5")
    assert (
        some.exit_code == 75 and "no further seed would end within 5 minutes; the same command goes on" in some.output
    )
    assert trained == [("small", "film", 0)]


@pytest.fixture
def made_up(here, tmp_path):
    """The real study's rules on made-up records: a function that writes runs of IoU around a level."""
    study = replace(opened(here, study=STUDY.path, profile="scenes"), folder=tmp_path / "results")

    def runs(variant, level, seeds=(0, 1, 2), spread=0.01):
        own = variant == study.own
        for seed in seeds:
            ious = np.clip(level + spread * (seed - 1) + 0.2 * np.sin(np.arange(200)), 0, 1)
            folder = study.file.results("scenes") if own else study.folder
            put(folder, variant, ious, seed=seed, study=study.file if own else STUDY)

    return study, runs


def test_a_copy_of_a_baseline_is_never_better(made_up):
    study, runs = made_up
    for variant in ("s2rm_fpn", study.own):
        runs(variant, 0.5)
    runs("tile_concat", 0.49)
    table = gains(study).set_index("reference")
    assert table.loc["s2rm_fpn", "measured"] == 0
    assert table["said"].str.startswith("undecided").all() and set(table.index) == {"tile_concat", "s2rm_fpn"}


def test_verdicts_need_three_runs_a_side_and_every_planned_seed(made_up):
    study, runs = made_up
    runs("s2rm_fpn", 0.5)
    runs("tile_concat", 0.4, seeds=(0,))
    runs("acm_fpn", 0.8)
    runs(study.own, 0.6, seeds=(0, 1))
    assert gains(study)["said"].tolist() == ["no verdict: 2 runs of 3 seeds"] * 3
    runs(study.own, 0.6)
    table = gains(study).set_index("reference")
    said = table["said"].to_dict()
    assert said == {"s2rm_fpn": "better", "acm_fpn": "worse", "tile_concat": "no verdict: one run of it, 3 are needed"}
    assert table.loc["s2rm_fpn", "measured"] == pytest.approx(10, abs=0.2)
    assert gains(replace(study, planned=(0, 1, 2, 3, 4)))["said"].tolist() == ["no verdict: 3 runs of 5 seeds"] * 3
    lengths = by_length(study)
    assert set(lengths["baseline"]) == set(table.index) and lengths["expressions"].unique().tolist() == [200]


def test_the_smallest_gain_is_that_of_the_design(made_up):
    """Of one family with an SD of 1 point and no spread over pictures, as the noncentral t distribution has it."""
    from scipy.special import nctdtrinc
    from scipy.stats import t

    study, runs = made_up
    assert smallest_gains(study) == {}
    runs("s2rm_fpn", 0.5, seeds=(0,))
    assert np.isnan(smallest_gains(study)["s2rm_fpn"])
    runs("s2rm_fpn", 0.5)
    found = smallest_gains(study)["s2rm_fpn"]
    assert found == pytest.approx(nctdtrinc(4, 0.2, t.isf(0.0125, 4)) * (2 / 3) ** 0.5, rel=0.02)
    assert smallest_gains(replace(study, planned=(0, 1, 2, 3, 4)))["s2rm_fpn"] < found


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("import nothing_of_this_name", 1, "ModuleNotFoundError: No module named 'nothing_of_this_name'; correct"),
        ("return vision[:, :3]", 15, r"forward returns \(\d+, 3, 2, 2\); return \(\d+, 128, 2, 2\)"),
        ("return vision @ words", 16, "RuntimeError: .*; correct that line"),
        ("return vision * (0 / (vision.sum() * 0) if self.late() else 1)", 16, "no number in update 9 of seed 0; keep"),
        ("return vision + (self.mix.mean() * (0 if self.late() else 1)).abs().sqrt()", 16, "update 9 of seed 0"),
        ("return vision + vision.new_empty(10**9, 10**6).sum()", 16, "out of memory .*; make its maps smaller"),
        ("raise ValueError('no <such> thing')", 16, "ValueError: no <such> thing; correct that line"),
    ],
)
def test_errors_of_ones_own_code_name_its_line(here, code, line, message):
    head = "" if line > 1 else code
    body = code if line > 1 else "return vision"
    (here / "odd.py").write_text(f"""{head}
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, channels: int, text_width: int, grid: tuple[int, int]):
        super().__init__()
        self.mix = nn.Parameter(torch.ones(channels))
        self.register_buffer("calls", torch.zeros(()))

    def late(self):
        self.calls += self.training
        return self.calls.item() > 8

    def forward(self, vision, words, word_mask):
        {body}
""")
    before = files(here.parent / "study")
    failed = call(here, "--seeds", "1", source="odd.py:Odd")
    assert isinstance(failed.exception, StudyError), failed.output
    text = str(failed.exception)
    assert len(text.splitlines()) == 1 and text.startswith(f"{here / 'odd.py'}:{line}: ") and re.search(message, text)
    assert files(here.parent / "study") == before and not (here / "comparisons" / "odd" / "results").exists()


def test_what_cannot_be_compared_is_told_before_training(here):
    records = here.parent / "study" / "results" / "small" / "records"
    for one in find_records(records)[1:]:
        shutil.rmtree(one.path)
    (first,) = find_records(records)
    config, summary, curve, counts, made = (
        first.config,
        first.summary,
        first.curve(),
        first.counts(),
        first.provenance(),
    )
    write_record(records, config, summary, curve, counts, made | {"precision": "bfloat16"})
    refused = str(call(here, "--seeds", "1").exception)
    assert re.search(r"plain-seed0-\w+: computed in bfloat16, and a run here would be in float32", refused)
    write_record(records, config, summary | {"data_fingerprint": "other"}, curve, counts, made)
    assert "measured on other data than those in" in str(call(here, "--seeds", "1").exception)
    assert not (here / "comparisons" / "film" / "work").exists()


def test_what_is_named_is_found_or_refused(here):
    study, path = opened(here), here.parent / "study" / "papermill_runs.yaml"
    assert study.baselines == ("plain", "acm") and study.planned == (0, 1, 2)
    assert opened(here, seeds=5).planned == (0, 1, 2, 3, 4)
    digest = path_digest(here / "film.py")
    assert study.config("film").model.fusion.source == digest == path_digest(here / "comparisons" / "film" / "film.py")
    entry = {
        "label": "FiLM of 3",
        "fusion": {"name": "film.py:FiLM", "options": {"kernel": 3}},
        "decoder": {"name": "fpn"},
    }
    (here / "wide.yaml").write_text(yaml.safe_dump({"extends": str(path), "variants": {"wide": entry}}))
    for how in ({"source": "wide.yaml"}, {"source": "wide", "study": here / "wide.yaml"}):
        wide = opened(here, **how)
        assert wide.config("wide").model.fusion.options == {"kernel": 3} and wide.label("wide") == "FiLM of 3"
    assert opened(here, source="plain").own == "plain_own"
    (here / "draw.py").write_text(DECODER)
    drawn = opened(here, source="draw.py:Draw", study=STUDY.path, profile="scenes")
    assert drawn.label(drawn.own) == "S2RM + Draw" and drawn.baselines == ("s2rm_fpn", "s2rm_casg")
    assert opened(here, source="acm", decoder="draw.py:Draw").baselines == ("acm",)
    assert opened(here, decoder="casg").own == "film_casg" and opened(here, decoder="casg").baselines == ()
    for name, content in (("c/film.py", DECODER), ("none.yaml", f"extends: {path}\n")):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(content)
    for how, message in (
        ({"decoder": "c/film.py:Draw"}, "mine/film.py and .*c/film.py: two files are called film.py; rename one"),
        ({"source": "none.yaml"}, "none.yaml: has no variant of its own to compare; add one"),
        ({"source": "film.py:Film"}, "has no class 'Film'; it has FiLM"),
        ({"source": "none.py:Film"}, "no file .*none.py"),
        ({"source": "films"}, "'films': no fusion; name a class as file.py:Class, or one of s2rm"),
        ({"decoder": "fnp"}, "'fnp': no decoder"),
        (
            {"flavour": "refscenes+"},
            r"--flavour refscenes\+: no profile beside 'small' has these data; known: refscenes",
        ),
        ({"profile": "smoke"}, "unknown profile 'smoke'"),
    ):
        with pytest.raises(StudyError, match=message):
            opened(here, **how)
    with pytest.raises(StudyError, match="unknown variant 'plane'"):
        opened(here, "plane")
    plus = opened(here, study=STUDY.path, profile="scenes", flavour="refscenes+")
    assert plus.profile == "scenes_plus" and plus.own in plus.variant_names and plus.baselines == ("s2rm_casg",)
