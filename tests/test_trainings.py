"""Several trainings by one command: within a time budget, until SIGTERM, at once; the same command goes on."""

import os
import signal
import subprocess
import time

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from refstudy.base.config import record_name
from refstudy.base.errors import StudyError
from refstudy.cli import app
from refstudy.engine import trainings
from refstudy.engine.run import run_profile
from refstudy.engine.signals import Stop
from refstudy.engine.trainings import _in_processes, _places
from refstudy.engine.workers import connect
from refstudy.models.build import load_model
from refstudy.study.load import load_study
from refstudy.training.evaluation import summarize_counts
from refstudy.training.loop import load_corpora, train
from refstudy.training.records import find_records
from refstudy.training.trainer import Trainer

from .conftest import assert_same_but_for_rounding, tiny_profile
from .test_users import held


@pytest.fixture
def study(data_root, tmp_path, monkeypatch):
    """A study with one variant, whose training takes a second or two."""
    monkeypatch.setenv("REFSTUDY_DATA", str(data_root))
    profile = tiny_profile(epochs=2) | {"seeds": [3, 4]}
    variant = {"label": "Plain", "fusion": {"name": "tile_concat"}, "decoder": {"name": "fpn"}}
    path = tmp_path / "papermill_runs.yaml"
    path.write_text(yaml.safe_dump({"variants": {"plain": variant}, "profiles": {"small": profile}, "runs": {}}))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield load_study(path)
    for number, handler in before.items():
        signal.signal(number, handler)


def call(study, *options):
    return CliRunner().invoke(app, ["train", "--profile", "small", "--study", str(study.path), *options])


def test_a_model_that_does_not_fit_is_told_before_the_first_training(study):
    settings = yaml.safe_load(study.path.read_text())
    odd = settings["variants"]["plain"] | {"label": "Odd", "fusion": {"name": "s2rm", "options": {"shfit": False}}}
    study.path.write_text(yaml.safe_dump(settings | {"variants": settings["variants"] | {"odd": odd}}))
    refused = call(study, "--seed", "3")
    assert refused.exit_code == 1 and "variant 'odd' under profile small" in str(refused.exception)
    assert "unknown option 'shfit'" in str(refused.exception)
    assert not (study.root / "work").exists()


def test_changed_settings_make_a_record_of_their_own(study):
    changes = ["--set", "train.epochs=1", "--set", "fusion=1"]
    listed = call(study, "--dry-run", *changes[:2])
    names = [record_name(study.changed({"train.epochs": 1}).run_config("small", "plain", seed)) for seed in (3, 4)]
    assert [line.split("/")[-1] for line in listed.output.split("\n")[:2]] == names
    assert names[0] != record_name(study.run_config("small", "plain", 3))
    assert call(study, "--at-once", "2", *changes[:2]).exit_code == 0
    found = find_records(study.results("small") / "records")
    assert sorted(record.path.name for record in found) == names
    assert {record.config.train.epochs for record in found} == {1}
    refused = call(study, "--dry-run", *changes)
    assert refused.exit_code == 1 and "--set fusion: no such setting of a run; known: variant" in str(refused.exception)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.epohcs=1", "no such setting of a run; known: epochs"),
        ("epochs=1", "no such setting of a run; known: train.epochs"),
        ("data=1", "--set data: is a whole section; name one of its keys"),
        ("data={}", "--set data: is a whole section; name one of its keys"),
        ("model=1", "--set model: is a whole section; name one of its keys"),
        ("splits=[]", "--set splits: Tuple should have at least 1 item"),
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1"),
        ("model.image_size=64", "give --set data.image_size in its place"),
        ("seed=4", "give --seed in its place"),
        ("train.epochs.more=1", "no such setting of a run"),
        ("train.epochs", "write key=value"),
    ],
)
def test_settings_that_a_run_cannot_have_are_told(study, setting, said):
    assert said in str(call(study, "--dry-run", "--set", setting).exception)


def test_a_seed_that_no_generator_takes_is_refused(study):
    assert call(study, "--dry-run", "--seed", str(2**32 - 1)).exit_code == 0
    refused = call(study, "--dry-run", "--seed", str(2**32))
    assert refused.exit_code == 2 and "4294967295" in refused.output


def test_what_model_and_data_share_is_changed_in_both(study):
    config = study.changed({"data.image_size": 96, "model.decoder.options.width": 8}).run_config("small", "plain", 3)
    assert config.model.image_size == config.data.image_size == 96 and config.model.decoder.options == {"width": 8}


@pytest.mark.numeric
def test_trained_weights_are_scored_as_their_record_says(study, tmp_path):
    assert call(study, "--seed", "3").exit_code == 0
    (record,) = find_records(study.results("small") / "records")
    weights = study.root / "work" / "small" / record.path.name / "weights.safetensors"
    options = ["--profile", "small", "--study", str(study.path)]
    done = CliRunner().invoke(app, ["evaluate", str(weights), *options, "--csv", str(tmp_path / "counts.csv")])
    assert done.exit_code == 0 and "RefScenes val, 64 px" in done.output
    counts, config = pd.read_csv(tmp_path / "counts.csv"), record.config
    assert f"{summarize_counts(counts)['oIoU']:.1f}" in done.output
    corpora, _ = load_corpora(config.data, config.model.text, config.splits, study.data_root, progress=False)
    for found in (counts, record.counts()):
        assert_same_but_for_rounding(found, load_model(weights), corpora["val"])
    odd = CliRunner().invoke(app, ["evaluate", str(weights), *options, "--split", "val", "--split", "best"])
    assert "unknown split 'best'" in str(odd.exception)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_with_a_checkpoint_and_the_same_command_goes_on(study, tmp_path, monkeypatch, number, capfd):
    step, records = Trainer.step, study.results("small") / "records"

    def interrupted(self, batch):
        step(self, batch)
        if self.update == 4:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Trainer, "step", interrupted)
    stopped = call(study, "--seed", "3")
    assert ("stops after this update" in capfd.readouterr().err) == (number == signal.SIGINT)
    assert stopped.exit_code == 75 and "plain-seed3" in stopped.output and "after 4 of 12 updates" in stopped.output
    assert not records.exists() and list((study.root / "work").rglob("checkpoint.pt"))
    monkeypatch.setattr(Trainer, "step", step)
    done = call(study, "--seed", "3")
    assert done.exit_code == 0
    (record,) = find_records(records)
    (resumed,) = record.provenance()["resumed"]
    assert resumed["started"] >= record.provenance()["started"] and resumed["commit"] == record.provenance()["commit"]
    config = study.run_config("small", "plain", 3)
    whole = train(config, tmp_path / "whole", tmp_path / "work_of_whole", study.data_root, progress=False)
    for name in ("record.json", "curve.csv", "counts.parquet"):
        assert (records / whole.name / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_that_another_command_trains_is_left_to_it(study):
    config = study.run_config("small", "plain", 3)
    work = study.root / "work" / "small" / record_name(config)
    with held(work) as other:
        left = call(study, "--seed", "3")
        assert left.exit_code == 75 and f"{work.name}: is being trained (process {other.pid} on" in left.output
    assert not work.exists() and not study.results("small").exists()


@pytest.mark.slow
def test_two_runs_at_once_then_none_then_one_again(study):
    spent = call(study, "--at-once", "2", "--time-budget", "0")
    assert spent.exit_code == 75 and "2 of 2 runs are unfinished; the same command goes on" in spent.output
    done = call(study, "--at-once", "2", "--time-budget", "30")
    records = study.results("small") / "records"
    assert done.exit_code == 0, done.output
    assert {(r.config.variant, r.config.seed) for r in find_records(records)} == {("plain", 3), ("plain", 4)}
    for seed in (3, 4):
        assert f"plain-seed{seed}: 12 of 12 updates, val oIoU" in done.output
    times = {path: path.stat().st_mtime_ns for path in records.rglob("*")}
    second = call(study, "--at-once", "2")
    assert second.exit_code == 0 and second.output.count("has its record") == 2
    assert times == {path: path.stat().st_mtime_ns for path in records.rglob("*")}
    endless = call(study, "--again", "--time-budget", "30")  # would begin with the first at every call
    assert isinstance(endless.exception, StudyError) and "--again: not for several runs" in str(endless.exception)
    assert times == {path: path.stat().st_mtime_ns for path in records.rglob("*")}
    assert call(study, "--seed", "4", "--again").exit_code == 0
    changed = {path.name[:11] for path, then in times.items() if path.is_dir() and path.stat().st_mtime_ns != then}
    assert changed == {"plain-seed4"}


def test_runs_that_cannot_be_started_keep_nothing_waiting(study, monkeypatch):
    asked = []

    def refused(command, **options):
        asked.append(command)
        raise OSError("no process")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(OSError, match="no process"):
        _in_processes(study, [("small", "plain", seed) for seed in (3, 4)], Stop(None), 1, False)
    assert asked


@pytest.mark.slow
def test_what_is_named_twice_is_trained_once_at_once(study):
    done = call(study, "--at-once", "2", "--seed", "3", "--seed", "3")
    assert done.exit_code == 0 and done.output.count("12 of 12 updates") == 1


def test_what_another_command_has_trained_meanwhile_is_not_trained_again(study):
    done = call(study, "--seed", "3", "--seed", "3")
    assert done.exit_code == 0 and done.output.count("12 of 12 updates") == 1 and "has its record" in done.output


@pytest.mark.parametrize("named, expected", [("", ["0", "1", "0"]), ("4,7", ["4", "7", "4"])])
def test_runs_at_once_share_the_gpus(monkeypatch, named, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in _places(3)] == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert {place["CUDA_VISIBLE_DEVICES"] for place in _places(3)} == {named}


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(study, monkeypatch):
    records = study.results("small") / "records"
    checkpoint = study.root / "work" / "small"
    config = study.run_config("small", "plain", 3)
    folder = checkpoint / f"plain-seed3-{config.key()}"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"half")
    done = call(study, "--at-once", "2")
    assert done.exit_code == 1 and "unusable checkpoint" in done.output and "failed: plain:3" in done.output
    assert [record.config.seed for record in find_records(records)] == [4]


@pytest.mark.slow
def test_workers_of_a_dask_scheduler_train_the_runs(study):
    """One at a time in each process, by `refstudy train` and by `refstudy run`; a run that fails stops no other."""
    folder = study.root / "work" / "small" / f"plain-seed3-{study.run_config('small', 'plain', 3).key()}"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"half")
    with connect("", threads=2) as client:
        address = client.scheduler_info()["address"]
        failed = call(study, "--scheduler", address)
        assert failed.exit_code == 1 and "failed: plain:3" in failed.output and "unusable checkpoint" in failed.output
        (record,) = find_records(study.results("small") / "records")
        assert record.config.seed == 4 and f"small:plain:4: {record.path}" in failed.output
        (folder / "checkpoint.pt").unlink()
        assert run_profile(study, "small", train=True, scheduler=address) == 0
        assert {r.config.seed for r in find_records(study.results("small") / "records")} == {3, 4}
        assert (study.results("small") / "report" / "index.html").exists()


def test_options_that_exclude_each_other_are_refused(study):
    for options, message in (
        (("--time-budget", "1"), "--time-budget: not with --scheduler"),
        (("--at-once", "2"), "--at-once: not with --scheduler; start as many workers"),
    ):
        refused = call(study, "--scheduler", "tcp://127.0.0.1:1", *options)
        assert isinstance(refused.exception, StudyError) and message in str(refused.exception)


def test_nobody_trains_on_for_a_command_that_was_stopped(study, monkeypatch):
    """The worker saves what it has, and the same command goes on from there."""
    step = Trainer.step

    def slow(self, batch):
        step(self, batch)
        if self.update == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5 if self.update >= 4 else 0)

    monkeypatch.setattr(Trainer, "step", slow)
    with connect("") as client:
        stopped = call(study, "--seed", "3", "--scheduler", client.scheduler_info()["address"])
        assert stopped.exit_code == 75
        with trainings._TURN:  # when the worker has ended it
            assert list((study.root / "work").rglob("checkpoint.pt"))
    assert not find_records(study.results("small") / "records")
    monkeypatch.setattr(Trainer, "step", step)
    done = call(study, "--seed", "3")
    assert done.exit_code == 0 and "goes on from update" in done.output


def test_a_run_with_an_empty_record_is_trained_again(study):
    broken = study.record(("small", "plain", 3)) / "record.json"
    broken.parent.mkdir(parents=True)
    broken.touch()
    assert call(study, "--variant", "plain", "--seed", "3", "--again").exit_code == 0
    assert [record.config.seed for record in find_records(broken.parents[1])] == [3]
