"""The ranges of gates: what is counted, what a record keeps of it, and what a training says of gates at their ends."""

import itertools

import pandas as pd
import pytest
import torch

from refstudy.models.build import build_model
from refstudy.models.gates import NEAR, RANGES, gate_ranges, watched_gates
from refstudy.models.layers import Gate
from refstudy.training.loop import load_corpora, train
from refstudy.training.records import GATE_COLUMNS, read_record
from refstudy.training.trainer import Trainer

from .conftest import tiny_data, tiny_model, tiny_run
from .helpers import put


class Two(torch.nn.Module):
    """A gate without parts and one with two."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = Gate("tanh"), Gate("sigmoid", ["left", "right"])

    def forward(self, logits):
        return self.wide(logits), self.narrow(logits[:, :2])


@pytest.mark.parametrize("autocast", [False, True])
def test_ranges_are_those_of_all_weights_of_all_calls(autocast):
    model, random = Two(), torch.Generator().manual_seed(0)
    calls = [3 * torch.randn(count, 5, generator=random) for count in (4, 7)]
    with watched_gates(model) as seen, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for logits in calls:
            model(logits.requires_grad_())
    after = seen.totals()
    model(torch.full((3, 5), 1e3))  # nobody looks any more
    pd.testing.assert_frame_equal(seen.totals(), after)
    found = gate_ranges(after).set_index("gate")
    logits = torch.cat(calls).detach()
    weights = {"wide": logits.tanh(), "narrow: left": logits[:, 0].sigmoid(), "narrow: right": logits[:, 1].sigmoid()}
    assert found.index.tolist() == list(weights)
    for name, some in weights.items():
        low = -1 if name == "wide" else 0
        saturated = ((some < low + NEAR) | (some > 1 - NEAR)).double().mean()
        expected = [some.min(), some.mean(), some.max(), saturated]
        assert found.loc[name, list(RANGES[1:])].tolist() == pytest.approx([float(x) for x in expected], abs=1e-6)
        assert 0 < saturated < 1


def test_what_is_no_number_shows():
    model = Two()
    with watched_gates(model) as seen:
        model(torch.zeros(2, 5))
        model(torch.tensor([[float("nan"), 0, 0, 0, 0]]))
    found = gate_ranges(seen.totals()).set_index("gate")
    assert found.loc["narrow: left", ["low", "mean", "high"]].isna().all()
    assert found.loc["narrow: right", ["low", "mean", "high"]].tolist() == [0.5, 0.5, 0.5]


def test_processes_are_added_up():
    model, frames = Two(), []
    for logits in (torch.zeros(1, 5), torch.full((3, 5), 9.0)):
        with watched_gates(model) as seen:
            model(logits)
        frames.append(seen.totals())
    found = gate_ranges(pd.concat(frames)).set_index("gate")
    assert found.loc["narrow: left", "saturated"] == 0.75 and found.loc["wide", "low"] == 0


@pytest.mark.parametrize(
    "options, groups",
    [
        ({}, ["l2v column", "l2v row", "v2l column", "v2l row"]),
        ({"directions": ["v2l"]}, ["v2l column", "v2l row"]),
        ({"balance": False}, []),
    ],
)
def test_the_groups_of_s2rm_are_told_apart(options, groups):
    model = build_model(tiny_model(decoder="casg", fusion_options=options)).eval()
    with watched_gates(model) as seen, torch.inference_mode():
        model(torch.randn(2, 3, 64, 64), torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool))
    names = gate_ranges(seen.totals())["gate"].tolist()
    kinds = ("channel_gate", "spatial_gate")
    stages = [f"decoder.stages.{stage}.{kind}" for stage, kind in itertools.product(range(3), kinds)]
    assert names == [f"fusion.balance: {group}" for group in groups] + stages


def test_a_record_keeps_them_for_every_validation(data_root, tmp_path):
    record = read_record(train(tiny_run(), tmp_path / "r", tmp_path, data_root, progress=False))
    gates, curve = record.gates(), record.curve()
    assert tuple(gates.columns) == GATE_COLUMNS
    assert gates["update"].unique().tolist() == curve["update"][curve["val_oIoU"].notna()].tolist() == [6, 12]
    assert gates.groupby("update")["gate"].nunique().tolist() == [4, 4]
    assert (gates["low"].between(0, 1) & (gates["low"] <= gates["mean"]) & (gates["mean"] <= gates["high"])).all()
    put(tmp_path, "tile_concat", [0.5])  # one as they were before
    (old,) = (tmp_path / "records").iterdir()
    assert read_record(old).gates().empty and tuple(read_record(old).gates().columns) == GATE_COLUMNS


def test_gates_at_an_end_are_told(data_root, tmp_path, monkeypatch, capsys):
    run = tiny_run(epochs=1, learning_rate=1e-5).model_copy(
        update={"model": tiny_model(fusion_options={"scale": True})}
    )
    train(run, tmp_path / "a", tmp_path / "a", data_root)
    assert "gates at an end" not in capsys.readouterr().out

    def pushed(self, config, corpora, encoders=None):
        made(self, config, corpora, encoders)
        self.model.fusion.gate.bias.data[2] = 50.0

    made = Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", pushed)
    train(run, tmp_path / "b", tmp_path / "b", data_root)
    assert "oIoU" in (out := capsys.readouterr().out) and "gates at an end: fusion.balance: v2l column\n" in out


def test_they_are_kept_where_the_training_is_compiled(data_root, monkeypatch):
    """``torch.compile`` makes another module of the model; evaluation, and with it the ranges, is of the model."""

    class Compiled(torch.nn.Module):
        def __init__(self, model, fullgraph):
            super().__init__()
            self.forward = lambda *inputs: model.segment(model.encode_image(inputs[0]), *inputs[1:])

    monkeypatch.setattr(torch, "compile", Compiled)
    data, model = tiny_data(), tiny_model()
    corpora, _ = load_corpora(data, model.text, ("train", "val"), data_root, progress=False)
    trainer = Trainer(tiny_run(compile=True), corpora)
    assert isinstance(trainer.learner, Compiled)
    trainer.validate(1)
    assert len(trainer.gates) == 4
