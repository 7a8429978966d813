"""The rehearsal of a profile, in miniature: what it reports, failures, interruptions."""

import math

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import refstudy.engine.rehearsal
from refstudy.base.errors import StudyError
from refstudy.cli import app
from refstudy.engine.rehearsal import COLUMNS, FINE, pictures, rehearse
from refstudy.training.records import circumstances
from refstudy.training.trainer import Trainer

from .test_refcoco_plan import miniature

CASES = [("refcoco", "s2rm_casg"), ("refcoco", "slvit_k4")]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return miniature(tmp_path_factory.mktemp("rehearsal"))


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Neither data nor samples at hand, and code as it was committed."""
    monkeypatch.setenv("REFSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REFSTUDY_REALDATA", str(tmp_path / "samples"))
    here = circumstances() | {"uncommitted_changes": False}
    monkeypatch.setattr(refstudy.engine.rehearsal, "circumstances", lambda: here)


def call(study, *variants):
    options = [option for variant in variants for option in ("--variant", variant)]
    return CliRunner().invoke(app, ["rehearse", "--profile", "refcoco", "--study", str(study.path), *options])


def counting(monkeypatch):
    """The variants whose trainer is made from now on."""
    made, names = Trainer.__init__, []

    def noted(self, config, corpora, encoders=None):
        names.append(config.variant)
        made(self, config, corpora, encoders)

    monkeypatch.setattr(Trainer, "__init__", noted)
    return names


def test_every_variant_is_measured_and_then_taken_over(study, monkeypatch):
    names = counting(monkeypatch)
    (study.root / "work" / "rehearsal.csv").unlink(missing_ok=True)
    first = call(study, "s2rm_casg", "slvit_k4")
    assert first.exit_code == 0, first.output
    found = pd.read_csv(study.root / "work" / "rehearsal.csv").set_index("variant")
    assert list(found.reset_index().columns.sort_values()) == sorted(COLUMNS)
    assert found["result"].eq(FINE).all() and found["image_size"].tolist() == [64, 96]
    assert found["photographs"].eq("RefScenes").all() and found["weights"].eq("random").all()
    assert (found[["update_s", "validation_s", "full_h"]] > 0).all(axis=None)
    assert (found["one_GB"] > 12e-3 * found["parameters"]).all() and (found["full_GB"] > found["two_GB"]).all()
    assert found.loc["s2rm_casg", "gates"].count("saturated") == 3 and pd.isna(found.loc["slvit_k4", "gates"])
    assert found["oIoU"].between(0, 100).all()
    assert "[2/2] slvit_k4 of refcoco, 96 px: finite" in first.output and "2 of 2 variants are sound" in first.output
    again = call(study, "s2rm_casg", "slvit_k4")
    assert names == ["s2rm_casg", "slvit_k4"] and again.output.count("; from an earlier call") == 2
    assert again.output.replace("; from an earlier call", "") == first.output
    rehearse(study, CASES[:1], 4, study.root / "work" / "rehearsal.csv", lambda text: None)  # other photographs
    assert names == ["s2rm_casg", "slvit_k4", CASES[0][1]]


def test_the_cell_of_a_second_encoder_is_read_from_its_own_row(study, tmp_path):
    row = rehearse(study, [("refcoco_swinb", "s2rm_casg")], 3, tmp_path / "r.csv", lambda text: None).iloc[0]
    assert row["result"] == FINE and 0 <= row["oIoU"] <= 100


def test_the_full_batch_is_extrapolated_from_that_of_two_photographs(study, monkeypatch, tmp_path):
    batches = []
    step = Trainer.step

    def noted(self, batch):
        batches.append((len(batch.pixels), len(batch.expressions)))
        step(self, batch)

    def held(action):
        action()
        return 1000.0 * len(batches)

    monkeypatch.setattr(Trainer, "step", noted)
    monkeypatch.setattr(refstudy.engine.rehearsal, "added_megabytes", held)
    row = rehearse(study, CASES[:1], 3, tmp_path / "r.csv", lambda text: None).iloc[0]
    train = study.run_config(*CASES[0], 0).train
    assert batches == [(2, 2 * train.expressions_per_image), (1, 3)]
    gained = 1000 * 2**20 / 1e9
    assert row["one_GB"] - row["two_GB"] == pytest.approx(gained, abs=2e-3)
    assert row["full_GB"] - row["two_GB"] == pytest.approx((train.images_per_batch / 2 - 1) * gained, abs=0.06)


def test_a_variant_that_fails_is_reported_and_the_others_go_on(study, monkeypatch):
    step = Trainer.step

    def failing(self, batch):
        if self.config.variant == "tile_concat":
            raise RuntimeError("not enough of it\nand more")
        step(self, batch)

    monkeypatch.setattr(Trainer, "step", failing)
    done = call(study, "tile_concat", "s2rm_fpn")
    assert done.exit_code == 1
    assert "[1/2] tile_concat of refcoco, 64 px: FAILED: RuntimeError: not enough of it\n" in done.output
    assert "[2/2] s2rm_fpn of refcoco, 64 px: finite" in done.output and "1 of 2 variants are sound" in done.output


def test_what_is_not_finite_is_named(study, monkeypatch, tmp_path):
    loss = refstudy.training.trainer.dice_loss
    monkeypatch.setattr(refstudy.training.trainer, "dice_loss", lambda *inputs: loss(*inputs) * math.nan)
    rows = rehearse(study, CASES[:1], 3, tmp_path / "r.csv", lambda text: None)
    assert rows["result"].tolist() == ["not finite: loss, gradients, masks"]
    assert call(study, "acm_fpn").exit_code == 1


def test_an_interruption_keeps_what_is_done(study, monkeypatch, tmp_path):
    path, step, calls = tmp_path / "r.csv", Trainer.step, []

    def interrupted(self, batch):
        calls.append(batch)
        if self.config.variant == "slvit_k4":
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rehearse(study, CASES, 3, path, lambda text: None)
    assert pd.read_csv(path)["variant"].tolist() == ["s2rm_casg"]
    monkeypatch.setattr(Trainer, "step", step)
    names = counting(monkeypatch)
    assert rehearse(study, CASES, 3, path, lambda text: None)["result"].eq(FINE).all()
    assert names == ["slvit_k4"] and pd.read_csv(path)["variant"].tolist() == ["s2rm_casg", "slvit_k4"]
    changed = circumstances() | {"uncommitted_changes": True}
    monkeypatch.setattr(refstudy.engine.rehearsal, "circumstances", lambda: changed)
    rehearse(study, CASES[:1], 3, path, lambda text: None)
    assert names == ["slvit_k4", "s2rm_casg"]


def test_photographs_are_the_samples_where_they_are(study, monkeypatch, tmp_path, real_sample):
    monkeypatch.setenv("REFSTUDY_REALDATA", str(real_sample))
    table, name = pictures(study, "refcoco", 4, tmp_path)
    assert name == "samples of RefCOCO" and table.groupby("split")["image_id"].nunique().to_dict() == {
        "train": 2,
        "val": 2,
    }
    assert table.groupby("image_id").size().eq(3).all()


def test_bad_calls_are_refused(study, tmp_path):
    with pytest.raises(StudyError, match="--images 2: 2 are trained on"):
        rehearse(study, CASES, 2, tmp_path / "r.csv")
    assert call(study, "no_such").exit_code == 2 or isinstance(call(study, "no_such").exception, StudyError)


def test_moments_change_no_weight(study, data_root):
    from .conftest import tiny_run  # the settings of a small training
    from .test_training import load_corpora

    config = tiny_run()
    corpora, _ = load_corpora(config.data, config.model.text, ("train", "val"), data_root, progress=False)
    trainer = Trainer(config, corpora)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    refstudy.engine.rehearsal._make_moments(trainer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    assert len(trainer.optimizer.state) == len(list(trainer.model.parameters()))
