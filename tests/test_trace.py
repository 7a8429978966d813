"""The steps of S²RM and SLViT that notebooks and demo show are the equations', and the models' own."""

import numpy as np
import pytest
import torch

from refstudy.analysis.trace import (
    decoder_maps,
    last_lmfas,
    lmfa_branches,
    refined,
    region_counts,
    trace,
    trace_slvit,
)
from refstudy.base.config import PartConfig
from refstudy.base.errors import StudyError
from refstudy.data.batches import build_corpus, normalise
from refstudy.data.refer import load_table
from refstudy.data.source import prepare_data
from refstudy.data.words import tokenize
from refstudy.models.build import build_model
from refstudy.models.urce import STAGES
from refstudy.training.evaluation import evaluate

from .conftest import tiny_data, tiny_model

pytestmark = pytest.mark.numeric

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def test_attention_maps_and_gates_of_one_expression():
    torch.manual_seed(0)
    model = build_model(tiny_model()).eval()
    steps = trace(model, IMAGE, "the red car")
    assert steps.words == ("[CLS]", "the", "red", "car", "[SEP]")
    assert steps.attention.shape == (5, 2, 2)
    assert steps.attention.sum(0) == pytest.approx(np.ones((2, 2)), abs=1e-5)
    ids, mask = (torch.from_numpy(array) for array in tokenize(model.tokenizer, ["the red car"], 5))
    with torch.inference_mode():
        vision = model.encode_image(normalise(torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None])).maps[3]
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
        trace(build_model(tiny_model("tile_concat")), IMAGE, "a dog")


@pytest.fixture(scope="module")
def slvit():
    """A small SLViT, K = 1 of 4 regions, whose blocks already do something."""
    torch.manual_seed(0)
    options = {"widths": (8, 12, 16, 20), "depths": (1, 1, 2, 1), "mlp_ratios": (2, 2, 2, 2), "regions": 1}
    options |= {"urce_width": 16, "urce_heads": 2, "ham_width": 24, "ham_rank": 4}
    model = build_model(tiny_model().model_copy(update={"whole": PartConfig(name="slvit", options=options)})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("scale1", "scale2")):
            parameter.data.fill_(1.0)
    return model


def forward(model):
    """The model's own mask logits."""
    ids, mask = (torch.from_numpy(array) for array in tokenize(model.tokenizer, ["the red car"], 5))
    pixels = normalise(torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None])
    with torch.no_grad():
        return model(pixels, ids, mask)


def test_the_steps_of_slvit_are_those_of_its_own_forward(slvit):
    seen = trace_slvit(slvit, IMAGE, "the red car")
    assert seen.words == ("[CLS]", "the", "red", "car", "[SEP]")
    own = refined(slvit, seen.steps, slvit.urce.regions, seen.features.size)
    torch.testing.assert_close(own, forward(slvit))
    for stage, given, made in zip(STAGES, seen.given, seen.made, strict=True):
        assert made.shape == given[0].shape == seen.steps.encoded[stage - 1].shape
    assert not any(lmfa._forward_hooks for lmfa in last_lmfas(slvit))


def test_the_branches_of_lmfa_add_up_to_its_output(slvit):
    seen = trace_slvit(slvit, IMAGE, "the red car")
    for lmfa, given, made in zip(last_lmfas(slvit), seen.given, seen.made, strict=True):
        with torch.no_grad():
            branches = lmfa_branches(lmfa, *given)
            assert list(branches) == ["5×5", "1×7, 7×1", "1×11, 11×1", "1×21, 21×1", "words"]
            product = lmfa.mix(sum(branches.values())) * given[0]  # Eq. (7)
        torch.testing.assert_close(product, made)


@pytest.mark.parametrize("regions", [0, 3, 4])
def test_another_number_of_regions_is_that_of_a_model_made_for_it(slvit, regions):
    options = slvit.config.whole.options | ({"regions": regions} if regions else {"urce": False})
    other = build_model(slvit.config.model_copy(update={"whole": PartConfig(name="slvit", options=options)})).eval()
    other.load_state_dict(slvit.state_dict(), strict=bool(regions))
    steps = trace_slvit(slvit, IMAGE, "the red car").steps
    torch.testing.assert_close(refined(slvit, steps, regions, (64, 64)), forward(other))
    assert slvit.urce.regions == 1


def test_pixels_are_counted_for_each_number_of_regions_as_evaluate_does(slvit, data_root):
    table = load_table(tiny_data(), prepare_data(tiny_data(), data_root, progress=False))
    corpus = build_corpus(table, "val", 64, slvit.tokenizer)
    counts = region_counts(slvit, corpus, (0, 1, 4))
    assert counts["K"].tolist() == [K for K in (0, 1, 4) for _ in range(len(corpus.table))]
    own = counts.query("K == 1").drop(columns="K").reset_index(drop=True)
    assert own.equals(evaluate(slvit, corpus, images_per_batch=5)[own.columns])


def test_what_a_decoder_gets_depends_on_where_words_come_in(slvit):
    late = build_model(tiny_model()).eval()
    assert [tuple(map_.shape[1:]) for map_ in decoder_maps(late, IMAGE, "a dog")] == [
        (16, 16, 16),
        (32, 8, 8),
        (64, 4, 4),
        (128, 2, 2),
    ]
    maps = decoder_maps(slvit, np.repeat(IMAGE, 2, axis=0), "the red car")  # brought to the model's own size
    assert [tuple(map_.shape[1:]) for map_ in maps] == [(8, 16, 16), (12, 8, 8), (16, 4, 4), (20, 2, 2)]
    with torch.no_grad():
        logits = slvit.decoder(decoder_maps(slvit, IMAGE, "the red car"))
    torch.testing.assert_close(logits, trace_slvit(slvit, IMAGE, "the red car").steps.logits)


def test_a_model_without_urce_is_refused():
    with pytest.raises(StudyError, match="no URCE to look into"):
        trace_slvit(build_model(tiny_model()), IMAGE, "a dog")
