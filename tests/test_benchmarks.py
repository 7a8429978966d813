"""The benchmarks: each loads; the one for a GPU runs on the CPU in a small form, so that it works once there is one."""

import importlib
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from refstudy.study.load import load_study

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Import a script of the folder by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def gpu(script, monkeypatch, tmp_path):
    """The script, writing into a folder of the test; Dynamo traces, and nothing is compiled further."""
    script = script("bench_gpu")
    monkeypatch.setattr(importlib.import_module("measure"), "RESULTS", tmp_path)
    monkeypatch.setattr(script.bench_peers, "CLONES", tmp_path)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setenv("REFSTUDY_DATA", str(tmp_path / "data"))
    return script


def small(gpu):
    large = load_study().run_config("smoke", "s2rm_casg", 0)
    longer = large.train.model_copy(update={"epochs": 99})  # more updates than are timed
    sizes = {"scenes": 30, "images": 4, "matrix": 64, "small": ("s2rm_fpn",), "seeds": 2, "epochs": 1, "channels": 8}
    return gpu.Form(large.model_copy(update={"train": longer}), **sizes, turns=1)


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_every_script_loads(script, name):
    assert script(name).__doc__


def test_the_study_whose_planning_is_timed_is_valid(script, monkeypatch, tmp_path):
    module = script("bench_plan")
    monkeypatch.setattr(module, "RUNS", 3)
    study = load_study(module.make_study(tmp_path))
    module.pretend_executed(study.path)
    assert {step.state for step in module.plan(study, "timing")} == {"up to date"}


@pytest.mark.slow
def test_every_part_writes_its_rows(gpu, tmp_path):
    assert gpu.measure(small(gpu)) == []
    rows = pd.read_csv(tmp_path / "gpu.csv")
    kinds = {"training", "data alone against training", "matrix rate reached", "torch.compile", "memory", "evaluation"}
    kinds |= {"CUDA graphs", "2 seeds of s2rm_fpn of smoke", "coparsing", "CASG's convolution"}
    assert set(rows["what"].str.split(",").str[0]) == kinds
    assert rows[["baseline", "ours"]].gt(0).all(axis=None) and rows["machine"].notna().all()


def test_a_part_that_fails_or_comes_too_late_is_named_and_the_others_are_written(gpu, tmp_path, monkeypatch):
    def failing(form):
        yield {"what": "begun"}
        raise ValueError("no such card")

    def whole(form):
        yield {"what": form.matrix}

    monkeypatch.setattr(gpu, "PARTS", (failing, whole))
    assert gpu.measure(small(gpu)) == ["failing: ValueError"]
    assert list(pd.read_csv(tmp_path / "gpu.csv")["what"]) == ["begun", "64"]
    assert gpu.measure(small(gpu), minutes=0) == [f"{name}: no time was left" for name in ("failing", "whole")]
