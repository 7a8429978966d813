"""Evaluation in parts: the counts of whole batches, in the precision that is told, in bounded memory."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from live_bytes import LiveBytes, evaluation_memory
from torch import nn

from refstudy.base.config import PartConfig, TextEncoderConfig
from refstudy.data.batches import evaluation_batches, expressions_at_once
from refstudy.models.build import build_model
from refstudy.models.decoders.hamburger import Hamburger
from refstudy.prediction.predict import predict
from refstudy.study.load import load_study
from refstudy.training.evaluation import (
    EXPRESSIONS_AT_ONCE,
    evaluate,
    evaluation_batching,
    native_bfloat16,
    precision_on,
    predictions,
)
from refstudy.training.loop import load_corpora, train
from refstudy.training.records import read_record

from .conftest import tiny_data, tiny_model, tiny_run
from .test_slvit import TINY

STUDY = load_study(Path(__file__).resolve().parents[1] / "papermill_runs.yaml")
IMAGES, TOGETHER = 4, 7
LARGEST = 163  # expressions of 16 images of RefCOCO val that follow each other


@pytest.fixture(scope="module")
def corpora(data_root):
    return load_corpora(tiny_data(), TextEncoderConfig(), ("train", "val"), data_root, progress=False)[0]


def whole(name):
    """The settings of a small model whose words come early, by its name, or of S²RM + CASG."""
    options = {"lavt": {"width": 16}, "slvit": TINY}
    parts = {"whole": PartConfig(name=name, options=options[name])} if name in options else {}
    return tiny_model(decoder="casg").model_copy(update=parts)


def tiny(name):
    torch.manual_seed(0)
    return build_model(whole(name)).eval()


@torch.inference_mode()
def whole_batches(model, corpus):
    """Logits (N, S, S) of all expressions, the batches not cut."""
    logits = torch.empty(len(corpus.table), corpus.image_size, corpus.image_size, dtype=torch.float64)
    for batch in evaluation_batches(corpus, IMAGES):
        logits[batch.expressions] = model(batch.images, batch.token_ids, batch.token_mask, batch.image_index).double()
    return logits


@pytest.mark.parametrize("name", ["s2rm_casg", "lavt", "slvit"])
def test_counts_in_parts_are_those_of_whole_batches(corpora, monkeypatch, name):
    """In float64, where rounding moves no logit by more than ``margin``: 10^6 additions, of which no path has so many,
    of numbers no larger than the largest. A logit as near to the cut as that may be counted either way."""
    model, corpus = tiny(name).double(), corpora["val"]
    encode, segment, encoded, parts, pictures = model.encode_image, model.segment, [], [], []

    def segment_noting(features, *inputs):
        parts.append(inputs[2])
        pictures.append(len(features.maps[0]))
        return segment(features, *inputs)

    monkeypatch.setattr(model, "encode_image", lambda images: encoded.append(len(images)) or encode(images.double()))
    logits = whole_batches(model, corpus)
    margin = 1e6 * torch.finfo(torch.float64).eps * logits.abs().max().clamp(min=1)
    assert margin < 1e-6 and logits.std() > 100 * margin
    encoded.clear()
    monkeypatch.setattr(model, "segment", segment_noting)
    for part, found in predictions(model, corpus, IMAGES, TOGETHER):
        rounded = 2.0**-23 * logits.abs().max()  # predictions are float32
        torch.testing.assert_close(found.double(), logits[part.expressions], rtol=0, atol=float(rounded + margin))
    assert encoded == [4, 4, 2] and max(map(len, parts)) == TOGETHER and sum(map(len, parts)) == len(logits)
    assert [index.unique().tolist() for index in parts] == [list(range(count)) for count in pictures]
    assert sum(encoded) < sum(pictures)  # the expressions of one are cut
    for resolution in ("resized", "original"):
        counts = evaluate(model, corpus, IMAGES, resolution=resolution, expressions_per_batch=TOGETHER)
        truth = torch.from_numpy(corpus.mask(corpus.ref_of_expression))
        clear = ((logits.abs() > margin).all(2).all(1)).numpy()
        assert clear.sum() > len(counts) / 2
        marked = logits > 0
        expected = {"intersection": (marked & truth).sum((1, 2)), "union": (marked | truth).sum((1, 2))}
        for column, pixels in expected.items():
            assert np.array_equal(counts[column].to_numpy()[clear], pixels.numpy()[clear])


def test_a_prediction_about_one_picture_is_made_in_parts(corpora, monkeypatch):
    model, corpus, parts = tiny("s2rm_casg"), corpora["val"], []
    picture, texts = corpus.images[0].transpose(1, 2, 0), corpus.table["expression"].tolist()[:7]
    at_once, segment = predict(model, picture, texts), model.segment
    monkeypatch.setattr("refstudy.prediction.predict.EXPRESSIONS_AT_ONCE", 3)
    monkeypatch.setattr(model, "segment", lambda *inputs: parts.append(len(inputs[1])) or segment(*inputs))
    in_parts = predict(model, picture, texts)
    assert parts == [3, 3, 1] and in_parts.shape == (7, 64, 64)
    assert np.abs(in_parts - at_once).max() < 1e-4 < np.abs(in_parts[0] - in_parts[1:]).max()


def test_large_pictures_on_a_cpu_take_fewer_expressions_together(corpora, monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    together = {side: expressions_at_once(EXPRESSIONS_AT_ONCE, side, cpu) for side in (64, 128, 480, 512, 2048)}
    assert together == {64: 32, 128: 32, 480: 2, 512: 2, 2048: 1}
    assert expressions_at_once(EXPRESSIONS_AT_ONCE, 512, gpu) == 32 and expressions_at_once(1, 128, cpu) == 1
    model, corpus, parts = tiny("s2rm_casg"), corpora["val"], []
    segment = model.segment
    monkeypatch.setattr("refstudy.data.batches.PIXELS_AT_ONCE", 3 * 64**2)
    monkeypatch.setattr(model, "segment", lambda *inputs: parts.append(len(inputs[1])) or segment(*inputs))
    evaluate(model, corpus)
    predict(model, corpus.images[0].transpose(1, 2, 0), ["a dog"] * 7)
    assert parts[-3:] == [3, 3, 1] and max(parts) == 3


def test_an_evaluation_computes_in_its_precision_and_says_so(corpora):
    model, corpus, kinds = tiny("s2rm_casg"), corpora["val"], set()
    linear = next(module for module in model.image_encoder.modules() if isinstance(module, nn.Linear))
    linear.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    usual = evaluate(model, corpus)
    assert kinds == {torch.float32} and "precision" not in usual
    kinds.clear()
    half = evaluate(model, corpus, precision="bfloat16")
    assert kinds == {torch.bfloat16} and set(half["precision"]) == {"bfloat16"}
    for part, logits in predictions(model, corpus, IMAGES, TOGETHER, precision="bfloat16"):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            expected = model(part.images, part.token_ids, part.token_mask, part.image_index)
        assert logits.dtype == torch.float32
        assert (logits - expected.float()).abs().max() <= 2.0**-7 * expected.abs().max()  # the last bit of bfloat16


@pytest.mark.parametrize("computed", ["bfloat16", "float32"])
def test_a_record_is_counted_in_the_precision_that_it_names(data_root, tmp_path, monkeypatch, computed):
    """The CPU stands for a GPU here, where bfloat16 is asked for and computed; by itself it computes in float32."""
    if computed == "bfloat16":
        monkeypatch.setattr("refstudy.training.evaluation.native_bfloat16", lambda: True)
    config = tiny_run(epochs=1, precision="bfloat16")
    called = []
    monkeypatch.setattr(
        "refstudy.training.trainer.evaluate",
        lambda *inputs, **how: called.append(how["precision"]) or evaluate(*inputs, **how),
    )
    record = read_record(train(config, tmp_path, tmp_path / "work", data_root, progress=False))
    assert called == [computed, computed]  # to validate, and for the record
    assert record.provenance()["precision"] == computed == record.counts().get("precision", pd.Series(["float32"]))[0]


def test_a_training_that_is_cut_to_save_memory_evaluates_less_at_once():
    batching = evaluation_batching(tiny_run(accumulate=4).train, torch.device("cuda"))
    assert batching == {"images_per_batch": 4, "expressions_per_batch": 8, "precision": "float32"}
    half = tiny_run(precision="bfloat16", accumulate=64, images_per_batch=64).train
    assert evaluation_batching(half, torch.device("cuda")) == dict(zip(batching, (1, 1, "bfloat16"), strict=True))
    assert evaluation_batching(half, torch.device("cpu"))["precision"] == "float32"


@pytest.mark.parametrize(
    ("name", "flags", "native"),
    [
        ("INTEL(R) XEON(R) PLATINUM", {"amx": True, "avx": True}, True),
        ("INTEL(R) XEON(R) PLATINUM", {"amx": False, "avx": True}, False),
        ("AMD EPYC 9R14", {"amx": False, "avx": True}, True),
        ("AMD EPYC 7763", {"amx": False, "avx": False}, False),
    ],
)
def test_bfloat16_is_computed_where_the_processor_is_faster_in_it(name, flags, native, monkeypatch):
    monkeypatch.undo()  # of what holds for all tests
    monkeypatch.setattr("refstudy.training.evaluation.processor", lambda: name)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: flags["amx"])
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: flags["avx"])
    assert native_bfloat16() is native
    assert precision_on(torch.device("cpu"), "bfloat16") == ("bfloat16" if native else "float32")
    assert precision_on(torch.device("cpu"), "float32") == "float32"


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_live_bytes_are_those_of_the_tensors_that_are_held(device, context):
    x, weight = torch.ones(10, 100, device=device), torch.ones(50, 100, device=device)  # 4,000 and 20,000 bytes
    with context(), LiveBytes() as held:
        product = nn.functional.linear(x, weight)  # a view of the weight, and 2,000 bytes
        assert (held.live, held.most) == (2000, 2000)
        total = product + 1
        total += product
        view = total[2:].T
        del product, total
        assert (held.live, held.most) == (2000, 4000)
        del view
        assert (held.live, held.most) == (0, 4000)
        wide = nn.functional.interpolate(x.view(1, 1, 10, 100), scale_factor=2, mode="bilinear")  # one kernel
        assert (held.live, held.most) == (16000, 16000)
        del wide


def test_slvits_head_joins_its_maps_without_holding_all_of_them():
    with torch.device("meta"), torch.inference_mode():
        head = Hamburger((64, 128, 320, 512), 512, 64)
        maps = [torch.empty(2, count, 128 >> k, 128 >> k) for k, count in enumerate(head.channels)]
        with LiveBytes() as held:
            joined = head.join(maps)
    assert held.most <= 2.25 * joined.nbytes  # the sum, a map on its way into it, and that one before it is upsampled


@pytest.mark.parametrize(("profile", "variant"), [("refcoco", "slvit"), ("refcoco_swinb", "s2rm_casg")])
def test_the_largest_batch_of_an_evaluation_of_refcoco_leaves_room_on_24_gb(profile, variant):
    """With the gradients and AdamW's moments of the training that validates, all in float32."""
    config = STUDY.run_config(profile, variant, 0).model.model_copy(update={"image_size": 512})
    weights, made = evaluation_memory(config, 16, LARGEST)
    assert 4 * weights + made < 12e9  # half of it; docs/performance.md has the numbers


@pytest.mark.parametrize("variant", ["s2rm_casg", "slvit"])
def test_more_expressions_than_go_together_add_nothing(variant):
    config = STUDY.run_config("scenes", variant, 0).model
    counts = (1, 2 * EXPRESSIONS_AT_ONCE, LARGEST)
    one, some, more = (evaluation_memory(config, 1, count)[1] for count in counts)
    assert one < some == more
