"""Whole models: every variant of the study builds, learns, and treats expressions independently."""

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.overrides import TorchFunctionMode

from refstudy.base.config import ModelConfig, PartConfig, TextEncoderConfig
from refstudy.base.errors import StudyError
from refstudy.models.build import (
    FUSIONS,
    build_model,
    count_parameters,
    halve_weights,
    load_model,
    load_or_build,
    save_weights,
)
from refstudy.models.decoders.casg import CASG
from refstudy.models.decoders.fpn import FPN
from refstudy.models.fusion.lmfa import LMFA, CrossModalAttention
from refstudy.models.fusion.pwam import PWAM
from refstudy.models.fusion.s2rm import S2RM
from refstudy.models.segmenter import ReferringSegmenter
from refstudy.study.load import load_study

from .conftest import tiny_model

pytestmark = pytest.mark.numeric

STUDY = load_study(Path(__file__).resolve().parents[1] / "papermill_runs.yaml")
VARIANTS = list(STUDY.variants)
GOLDEN = json.loads((Path(__file__).parent / "golden_forward.json").read_text())
NEAR = {"rel": 1e-4, "abs": 1e-5}  # float32 is within 1e-6 of float64 here, in either memory layout

COMPOSED = [name for name, variant in STUDY.variants.items() if variant.whole is None]
TINY = {
    "acm": {"width": 16, "inner": 8},
    "lavt": {"width": 16},
    "slvit": {
        "widths": (8, 16, 24, 32),
        "depths": (1, 1, 1, 1),
        "mlp_ratios": (2, 2, 2, 2),
        "drop_path_rate": 0.0,
        "regions": 2,
        "urce_width": 16,
        "urce_heads": 2,
        "ham_width": 16,
        "ham_rank": 4,
    },
}


def variant_config(name: str) -> ModelConfig:
    parts = STUDY.variants[name]
    if parts.whole is not None:
        sized = PartConfig(name=parts.whole.name, options=TINY[parts.whole.name] | parts.whole.options)
        return tiny_model().model_copy(update={"whole": sized})
    options = TINY.get(parts.fusion.name, {}) | parts.fusion.options
    return tiny_model(parts.fusion.name, parts.decoder.name, 64, options, parts.decoder.options)


def build(name: str):
    torch.manual_seed(0)
    return build_model(variant_config(name))


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """The same with block scales of 1, so that what blocks do is not hidden behind the 1e-2 of SLViT's start."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("scale1", "scale2")):
                parameter.fill_(1.0)
    return model


def inputs(expressions=3):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    ids = torch.randint(5, 199, (expressions, 6), generator=generator)
    mask = torch.ones(expressions, 6, dtype=torch.bool)
    mask[0, 4:] = mask[2:, 2:] = False
    return images, ids, mask, torch.tensor([0, 0, 1])[:expressions]


def summary(logits: torch.Tensor) -> list[float]:
    """A few numbers that change when the function changes."""
    return [logits.mean().item(), logits.std().item(), *logits[:, 7::24, 11::24].flatten().tolist()]


def golden(name: str) -> list[float]:
    """The summary of a model whose vocabulary has a size of its own, so that no new word moves it."""
    config = variant_config(name)
    torch.manual_seed(0)
    model = build_model(config.model_copy(update={"text": config.text.model_copy(update={"vocab_size": 199})}))
    with torch.inference_mode():
        return summary(lively(model).eval()(*inputs()))


@pytest.mark.parametrize("name", VARIANTS)
def test_golden_forward(name):
    """Numbers of a fixed model and input. If this fails on purpose, old run records no longer belong to the code."""
    assert golden(name) == pytest.approx(GOLDEN[name], **NEAR)


def silent(method):
    """The same method with zeros for the first of its two results."""

    def made(*arguments):
        first, second = method(*arguments)
        return torch.zeros_like(first), second

    return made


def unmasked(method):
    """The same method that takes padding for words."""
    return lambda part, vision, words, mask: method(part, vision, words, torch.ones_like(mask))


@pytest.mark.parametrize(
    "name, part, method, broken",
    [
        ("slvit", CrossModalAttention, "forward", silent),
        ("slvit", CrossModalAttention, "forward", unmasked),
        ("slvit_no_urce", LMFA, "forward", silent),
        ("pwam_casg", PWAM, "gather", unmasked),
    ],
)
def test_the_golden_forward_notices_a_broken_attention(name, part, method, broken, monkeypatch):
    monkeypatch.setattr(part, method, broken(getattr(part, method)))
    assert golden(name) != pytest.approx(GOLDEN[name], **NEAR)


def dead_parameters(model, images, *words):
    """The parameters that a training would not move, by name.

    What a norm or a softmax takes away again, as it does with some biases, has a gradient of nothing but rounding, zero
    on one processor and not on another. In float64 that is at most 2^16 terms (of 3 expressions times 64 x 96 pixels)
    times 2^-53, 1e-11, of the largest. A bias has to have a gradient, and any other parameter one above that.
    """
    model = model.double().train()
    model(images.double(), *words).square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    sizes = {name: gradient.abs().max().item() for name, gradient in gradients.items() if gradient is not None}
    noise = 1e-11 * max(sizes.values())
    return {name for name in gradients if name not in sizes or (sizes[name] <= noise and not name.endswith(".bias"))}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_gradient(name):
    dead = dead_parameters(build(name), *inputs())
    if name.startswith("casg_no_d"):  # the norms of stages that these variants do not decode
        dead -= {k for k in dead if k.startswith("image_encoder.norms.") and int(k.split(".")[2]) < 3}
    if name == "slvit_urce_123":  # F̃4 is F4, and URCE replaces no cell of it
        dead -= {k for k in dead if k.startswith("urce.reverse.4")}
    assert not dead


EACH_KIND = ["tile_concat", "s2rm_fpn", "s2rm_casg", "acm_fpn", "pwam_casg", "lavt", "slvit"]


@pytest.mark.parametrize("name", EACH_KIND)
def test_encoding_once_serves_every_expression(name):
    model, (images, ids, mask, index) = lively(build(name)).eval(), inputs()
    with torch.inference_mode():
        together = model(images, ids, mask, index)
        features = model.encode_image(images)
        alone = [model.segment(features, ids[k : k + 1], mask[k : k + 1], index[k : k + 1]) for k in range(3)]
        paired = model(images[index], ids, mask)
        assert torch.equal(model(images, ids, mask, index), together)
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    assert torch.allclose(together, paired, atol=1e-4)


def assert_padding_changes_nothing(model, images, ids, mask, index):
    """Neither what stands in padding nor how much of it there is; a word that is no padding does."""
    other = ids.clone()
    other[~mask] = 7
    longer = torch.cat([ids, torch.full((3, 4), 9)], 1), torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], 1)
    with torch.inference_mode():
        expected = model(images, ids, mask, index)
        assert torch.allclose(model(images, other, mask, index), expected, atol=1e-5)
        assert torch.allclose(model(images, *longer, index), expected, atol=1e-4)
        other[0, 0] += 1
        assert not torch.equal(model(images, other, mask, index), expected)


@pytest.mark.parametrize("name", EACH_KIND)
def test_padding_never_changes_a_result(name):
    assert_padding_changes_nothing(lively(build(name)).eval(), *inputs())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["s2rm_fpn", "s2rm_casg", "acm_fpn", "pwam_fpn", "lavt"])
def test_half_precision_stays_near_full_precision(name, precision):
    model, arguments = build(name).eval(), inputs()
    with torch.inference_mode():
        expected = model(*arguments)
        with torch.autocast("cpu", precision):
            made = model(*arguments).float()
    assert (made - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("decoder", [FPN, CASG])
@pytest.mark.parametrize("size", [(96, 160), (100, 72)])
def test_images_need_be_neither_square_nor_multiples_of_32(size, decoder):
    model, (_, ids, mask, index) = build("tile_concat").eval(), inputs()
    grid = (-(-size[0] // 32), -(-size[1] // 32))
    fusion = S2RM(model.image_encoder.channels[3], model.text_encoder.width, grid)
    part = decoder(model.image_encoder.channels, model.text_encoder.width)
    whole = ReferringSegmenter(model.image_encoder, model.text_encoder, fusion, part).eval()
    with torch.inference_mode():
        logits = whole(torch.randn(2, 3, *size), ids, mask, index)
    assert logits.shape == (3, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.skipif("TEST_NOISE" in os.environ, reason="Dynamo would count the noise, too")
def test_compiled_in_one_piece_whatever_a_batch_holds_without_changing_a_number():
    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")
    model, (images, ids, mask, index) = build("s2rm_casg").eval(), inputs()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # that it looks into functions that keep tensors
        for expressions, words in ((2, 6), (3, 5), (3, 4)):
            batch = (images, ids[:expressions, :words], mask[:expressions, :words], index[:expressions])
            assert torch.allclose(compiled(*batch), model(*batch), atol=1e-5)
    assert counter.frame_count == 2  # for the first sizes, and for all


class Calls(TorchFunctionMode):
    """Which of PyTorch's functions are called within it."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, arguments=(), named=None):
        self.names.append(getattr(function, "__name__", ""))
        return function(*arguments, **(named or {}))


def test_both_encoders_use_fused_attention_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model, (images, ids, mask, _) = build("tile_concat").train(), inputs()
    config = model.config
    for encoder, arguments, layers in (
        (model.image_encoder, (images,), sum(config.image.depths)),
        (model.text_encoder, (ids, mask), config.text.layers),
    ):
        with Calls() as calls:
            encoder(*arguments)
        assert calls.names.count("scaled_dot_product_attention") == layers and "softmax" not in calls.names


def test_encoders_start_equal_in_every_variant_of_one_seed():
    states = [build(name).text_encoder.state_dict() for name in ("tile_concat", "s2rm_casg")]
    assert all(torch.equal(a, states[1][name]) for name, a in states[0].items())


def test_half_precision_keeps_what_it_does_not_reach(tmp_path):
    model = build("s2rm_casg")
    norm = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    norm.running_var.fill_(1e6)
    save_weights(model, tmp_path / "whole.safetensors")
    halve_weights(tmp_path / "whole.safetensors", tmp_path / "half.safetensors")
    loaded = load_model(tmp_path / "half.safetensors").state_dict()
    for name, tensor in model.state_dict().items():
        kept = tensor if (tensor == 1e6).any() or not tensor.is_floating_point() else tensor.half().float()
        assert torch.equal(loaded[name], kept), name


def test_a_part_of_ones_own_needs_no_type_hints(monkeypatch):
    class Mine(FUSIONS["tile_concat"]):
        def __init__(self, channels, text_width, grid, heads=4):
            super().__init__(channels, text_width, grid)
            self.heads = heads

    monkeypatch.setitem(FUSIONS, "mine", Mine)
    assert build_model(tiny_model(fusion="mine", fusion_options={"heads": 8})).fusion.heads == 8


def test_bad_parts_options_and_files_are_named(tmp_path):
    with pytest.raises(StudyError, match=r"unknown fusion 'glue'; known: .*s2rm"):
        build_model(tiny_model().model_copy(update={"fusion": PartConfig(name="glue")}))
    with pytest.raises(StudyError, match=r"decoder 'fpn': unknown option 'depth'; known: width$"):
        build_model(tiny_model(decoder_options={"depth": 3}))
    with pytest.raises(StudyError, match="decoder 'fpn': option width is 'wide'"):
        build_model(tiny_model(decoder_options={"width": "wide"}))
    with pytest.raises(StudyError, match="fusion 's2rm': option shift is 'false'; .*boolean"):  # which would be true
        build_model(tiny_model(fusion="s2rm", fusion_options={"shift": "false"}))
    with pytest.raises(StudyError, match="text encoder: .*multiple of the number of attention heads.*; give it sizes"):
        build_model(tiny_model().model_copy(update={"text": TextEncoderConfig(hidden_size=32, heads=5)}))
    with pytest.raises(StudyError, match="decoder 'fpn', options {'width': -1}: .*negative"):
        build_model(tiny_model(decoder_options={"width": -1}))
    slvit = PartConfig(name="slvit", options={"pretrained": True})  # as it is said of the other encoders
    with pytest.raises(StudyError, match="'slvit': option pretrained is True; name a file or a folder"):
        build_model(tiny_model().model_copy(update={"whole": slvit}))
    with pytest.raises(StudyError, match="weights not found"):
        load_model(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678 not safetensors")
    with pytest.raises(StudyError, match="no model weights"):
        load_model(tmp_path / "broken.safetensors")
    mixed = build("tile_concat")
    mixed.config = variant_config("s2rm_fpn")
    save_weights(mixed, tmp_path / "mixed.safetensors")
    with pytest.raises(StudyError, match="do not belong together"):
        load_model(tmp_path / "mixed.safetensors")


def test_without_a_weights_file_there_is_an_untrained_model_of_the_settings(tmp_path):
    config, path = variant_config("tile_concat"), tmp_path / "kept.safetensors"
    fresh, trained = load_or_build(path, config)
    assert not trained and not fresh.training and fresh.config.fusion == config.fusion
    torch.manual_seed(7)
    kept = build_model(config)
    save_weights(kept, path)
    found, trained = load_or_build(path, variant_config("s2rm_fpn"))  # what the file holds counts
    assert trained and not found.training
    name, expected = next((name, value) for name, value in kept.state_dict().items() if value.dim() > 1)
    assert torch.equal(found.state_dict()[name], expected) and not torch.equal(fresh.state_dict()[name], expected)


def test_the_papers_own_sizes_build_on_the_meta_device():
    config = STUDY.run_config("refcoco", "s2rm_casg", 0).model
    with torch.device("meta"):
        model = build_model(config.from_scratch()).eval()
        ids = torch.zeros(2, 20, dtype=torch.long)
        logits = model(torch.zeros(1, 3, 512, 512), ids, ids == 0, torch.zeros(2, dtype=torch.long))
    assert logits.shape == (2, 512, 512)  # no value is read on the way
    assert model.image_encoder.channels == [96, 192, 384, 768]
    assert model.fusion.compress[0].in_channels == 4 * 16 * 16
    assert count_parameters(model.fusion) == pytest.approx(3.2e6, rel=0.02)
    assert count_parameters(model.decoder) == pytest.approx(18.3e6, rel=0.02)
