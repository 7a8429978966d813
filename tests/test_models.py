"""Whole models: every variant of the study builds, learns, and treats expressions independently."""

import json
from pathlib import Path

import pytest
import torch

from refstudy.config import ModelConfig, PartConfig
from refstudy.errors import StudyError
from refstudy.models.build import build_model, load_model, save_weights
from refstudy.study import load_study

from .conftest import tiny_model

STUDY = load_study(Path(__file__).resolve().parents[1] / "papermill_runs.yaml")
VARIANTS = list(STUDY.variants)
GOLDEN = json.loads((Path(__file__).parent / "golden_forward.json").read_text())


def variant_config(name: str) -> ModelConfig:
    parts = STUDY.variants[name]
    return tiny_model(parts.fusion.name, parts.decoder.name, 64, parts.fusion.options, parts.decoder.options)


def build(name: str):
    torch.manual_seed(0)
    return build_model(variant_config(name))


def inputs(expressions=3):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    ids = torch.randint(5, 199, (expressions, 6), generator=generator)
    mask = torch.ones(expressions, 6, dtype=torch.bool)
    mask[0, 4:] = False
    return images, ids, mask, torch.tensor([0, 0, 1])[:expressions]


def summary(logits: torch.Tensor) -> list[float]:
    """A few numbers that change when the function changes."""
    return [logits.mean().item(), logits.std().item(), *logits[:, 7::24, 11::24].flatten().tolist()]


@pytest.mark.parametrize("name", VARIANTS)
def test_golden_forward(name):
    """Numbers of a fixed model and input. If this fails on purpose, old run records no longer belong to the code."""
    with torch.inference_mode():
        made = summary(build(name).eval()(*inputs()))
    assert made == pytest.approx(GOLDEN[name], rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_gradient(name):
    model = build(name).train()
    model(*inputs()).square().mean().backward()
    dead = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    unused_at_this_depth = [
        k for k in dead if k.startswith("image_encoder.norms.") and int(k.split(".")[2]) < 3 and "casg_no_d" in name
    ]
    # a softmax over words ignores what is added to all scores; nothing else may be dead
    assert set(dead) - set(unused_at_this_depth) <= {"text_encoder.bert.encoder.layer.0.attention.self.key.bias"}


@pytest.mark.parametrize("name", ["tile_concat", "s2rm_fpn", "s2rm_casg"])
def test_encoding_once_serves_every_expression(name):
    model, (images, ids, mask, index) = build(name).eval(), inputs()
    with torch.inference_mode():
        together = model(images, ids, mask, index)
        features = model.encode_image(images)
        alone = [model.segment(features, ids[k : k + 1], mask[k : k + 1], index[k : k + 1]) for k in range(3)]
        paired = model(images[index], ids, mask)
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    assert torch.allclose(together, paired, atol=1e-4)


@pytest.mark.parametrize("name", ["tile_concat", "s2rm_fpn", "s2rm_casg"])
def test_padding_never_changes_a_result(name):
    model, (images, ids, mask, index) = build(name).eval(), inputs()
    other = ids.clone()
    other[~mask] = 7
    longer = torch.cat([ids, torch.full((3, 4), 9)], 1), torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], 1)
    with torch.inference_mode():
        expected = model(images, ids, mask, index)
        assert torch.allclose(model(images, other, mask, index), expected, atol=1e-5)
        assert torch.allclose(model(images, *longer, index), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["s2rm_fpn", "s2rm_casg"])
def test_half_precision_stays_finite(name):
    model, arguments = build(name).eval(), inputs()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model(*arguments)).all()


def test_odd_image_sizes():
    model, (_, ids, mask, index) = build("tile_concat").eval(), inputs()
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, 96, 160), ids, mask, index)
    assert logits.shape == (3, 96, 160)


def test_encoders_start_equal_in_every_variant_of_one_seed():
    states = [build(name).text_encoder.state_dict() for name in ("tile_concat", "s2rm_casg")]
    assert all(torch.equal(a, states[1][name]) for name, a in states[0].items())


def test_weights_survive_a_round_trip(tmp_path):
    model = build("s2rm_casg").eval()
    save_weights(model, variant_config("s2rm_casg"), tmp_path / "w.safetensors")
    loaded = load_model(tmp_path / "w.safetensors")
    assert all(torch.equal(a, loaded.state_dict()[name]) for name, a in model.state_dict().items())


def test_bad_parts_options_and_files_are_named(tmp_path):
    with pytest.raises(StudyError, match="unknown fusion 'glue'; known: .*s2rm"):
        build_model(tiny_model().model_copy(update={"fusion": PartConfig(name="glue")}))
    with pytest.raises(StudyError, match="decoder 'fpn'.*depth"):
        build_model(tiny_model(decoder_options={"depth": 3}))
    with pytest.raises(StudyError, match="no model weights"):
        load_model(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678 not safetensors")
    with pytest.raises(StudyError, match="no model weights"):
        load_model(tmp_path / "broken.safetensors")


def test_the_papers_own_sizes_build_on_the_meta_device():
    config = STUDY.run_config("refcoco", "s2rm_casg", 0).model
    offline = config.model_copy(
        update={
            "image": config.image.model_copy(update={"pretrained": False}),
            "text": config.text.model_copy(update={"pretrained": False}),
        }
    )
    with torch.device("meta"):
        model = build_model(offline)
    assert model.image_encoder.channels == [96, 192, 384, 768]
    assert model.fusion.compress[0].in_channels == 4 * 16 * 16
