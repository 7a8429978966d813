"""The steps of S²RM that the demo shows are the equations'."""

import numpy as np
import pytest
import torch

from refstudy.data.batches import normalise
from refstudy.data.words import tokenize
from refstudy.errors import StudyError
from refstudy.models.build import build_model
from refstudy.trace import trace

from .conftest import tiny_model


def test_attention_maps_and_gates_of_one_expression():
    torch.manual_seed(0)
    model = build_model(tiny_model()).eval()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    steps = trace(model, image, "the red car")
    assert steps.words == ("[CLS]", "the", "red", "car", "[SEP]")
    assert steps.attention.shape == (5, 2, 2)
    assert steps.attention.sum(0) == pytest.approx(np.ones((2, 2)), abs=1e-5)
    ids, mask = (torch.from_numpy(array) for array in tokenize(model.tokenizer, ["the red car"], 5))
    with torch.inference_mode():
        vision = model.encode_image(normalise(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])).maps[3]
        language, _ = model.fusion.distribute(vision, model.text_encoder(ids, mask), mask)
    for i, j, h, w in np.ndindex(2, 2, 2, 2):
        column = (vision[0, :, i, j] * language[0, :, (i - h) % 2, w]).sum().item()  # Eq. (6)
        row = (vision[0, :, i, j] * language[0, :, h, (j - w) % 2]).sum().item()  # Eq. (8)
        assert steps.column[h * 2 + w, i, j] == pytest.approx(column, abs=1e-4)
        assert steps.row[w * 2 + h, i, j] == pytest.approx(row, abs=1e-4)
    assert list(steps.gates) == ["l2v column", "l2v row", "v2l column", "v2l row"]
    assert all(0 < gate < 1 for gate in steps.gates.values())


def test_a_model_without_s2rm_is_refused():
    with pytest.raises(StudyError, match="no S²RM to look into"):
        trace(build_model(tiny_model("tile_concat")), np.zeros((64, 64, 3), np.uint8), "a dog")
