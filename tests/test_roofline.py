"""The benchmark of rooflines: what it counts of known layers, and of small trainings, part by part."""

import pytest
import torch
from bench_roofline import REST, Parts, model_rows
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from refstudy.base.config import TextEncoderConfig
from refstudy.data.batches import grouped_batches
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import Trainer

from .conftest import tiny_data, tiny_run
from .test_evaluation import whole

WAYS = ("forward", "backward")
RATES = (1e11, 1e10)  # operations and bytes a second


class Branches(nn.Module):
    """Two branches from the cells of ``deep``: a depth-wise convolution, and a product; then their sum, doubled."""

    def __init__(self):
        super().__init__()
        self.deep, self.side = nn.Linear(4, 8), nn.Linear(8, 8, bias=False)
        self.wide = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)

    def forward(self, cells):
        deep = self.deep(cells)  # (25, 8)
        other = self.side(deep)
        return 2 * (self.wide(deep.T.reshape(1, 8, 5, 5)).reshape(8, 25).T + other)


def test_operations_and_bytes_of_known_layers():
    model, cells = Branches(), torch.randn(25, 4)
    parts = Parts(model, RATES)
    with parts:
        found = parts.of(lambda: model(cells).sum().backward())
    assert set(found) == {REST} | {f"{part}, {way}" for part in ("deep", "side", "wide") for way in WAYS}
    operations = {part: sums[1] for part, sums in found.items()}
    deep, side = 2 * 25 * 4 * 8, 2 * 25 * 8 * 8
    wide = 2 * 8 * 25 * 9  # each cell and channel has nine taps, padding counted
    assert operations == {
        "deep, forward": deep,
        "side, forward": side,
        "wide, forward": wide,
        "wide, backward": 2 * wide,  # of the map and of the weights
        "side, backward": 2 * side,
        "deep, backward": deep,  # nobody asks for the gradient of the cells
        REST: 0,
    }
    assert found["deep, forward"][2] == 4 * (25 * 4 + 4 * 8 + 8 + 25 * 8)  # cells, weights, bias, output
    assert found["wide, forward"][2] == 4 * (8 * 25 + 8 * 9 + 8 * 25)
    by_bytes = 4 * (25 * 8 + 8 * 8 + 25 * 8) / RATES[1]  # more than by its operations
    assert found["side, forward"][3] == pytest.approx(by_bytes)


@pytest.fixture(scope="module")
def corpora(data_root):
    return load_corpora(tiny_data(), TextEncoderConfig(), ("train", "val"), data_root, progress=False)[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["s2rm_casg", "lavt", "slvit"])
def test_parts_of_a_training_make_the_whole(corpora, monkeypatch, name, precision):
    monkeypatch.setattr("refstudy.training.evaluation.native_bfloat16", lambda: True)
    trainer = Trainer(tiny_run(precision=precision, clip_norm=1.0).model_copy(update={"model": whole(name)}), corpora)
    batch = next(grouped_batches(corpora["train"], 4, 3, 0, 0))
    with FlopCounterMode(display=False) as counter:
        trainer.step(batch)
    parts = Parts(trainer.model, RATES)
    with parts:
        found = parts.of(lambda: trainer.step(batch))
    children = [part for part, _ in trainer.model.named_children()]
    assert set(found) == {REST} | {f"{part}, {way}" for part in children for way in WAYS}
    if name != "slvit":  # the library's count of a depth-wise convolution's backward pass is too high
        assert sum(sums[1] for sums in found.values()) == counter.get_total_flops()
    assert found[REST][1] == 0 and found[REST][2] >= 4 * sum(p.numel() for p in trainer.model.parameters())
    for part, (taken, operations, moved, least, inside) in found.items():
        assert least >= max(operations / RATES[0], moved / RATES[1]) * (1 - 1e-9) and 0 <= inside <= taken, part
    rows = model_rows(name, trainer, batch, RATES, steps=1)
    assert [row["part"] for row in rows][-2:] == [REST, "whole update"] and len(rows) == len(found) + 1
    assert all(0 <= row["roof"] <= 1 and row["ms"] >= 0 for row in rows)
