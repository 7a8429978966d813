"""LAVT: early fusion inside Swin, its decoder, and its printed cost."""

import pytest
import torch
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from refstudy.base.config import ImageEncoderConfig, TextEncoderConfig
from refstudy.models.encoders import ImageEncoder, TextEncoder
from refstudy.models.lavt import LAVT, LAVTDecoder

from .conftest import tiny_model
from .test_fusion import literal_pwam

pytestmark = pytest.mark.numeric


def build(width=0):
    torch.manual_seed(0)
    config = tiny_model()
    image = ImageEncoder(config.image, config.image_size)
    return LAVT(image, TextEncoder(config.text), width)


def inputs(height=64, width=64):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(2, 3, height, width, generator=generator)
    ids = torch.randint(5, 199, (3, 6), generator=generator)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[0, 4:] = False
    return images, ids, mask, torch.tensor([0, 0, 1])


def decoder_inputs(model, *arguments):
    """The logits, and the maps P_1 ... P_4 that the decoder was given."""
    seen = []
    handle = model.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    logits = model(*arguments)
    handle.remove()
    return logits, seen[0]


def test_words_enter_between_the_stages():
    """The stream through Swin's own stages, expression by expression, with PWAM and gate as their equations say."""
    model = build().double().eval()
    for gate in model.gates:  # far from the small weights that they start with
        torch.nn.init.normal_(gate.weigh[2].weight)
    images, ids, mask, index = inputs(32, 48)
    words, backbone = model.text_encoder(ids, mask), model.image_encoder.backbone
    _, maps = decoder_inputs(model, images.double(), ids, mask, index)
    for e in range(3):
        stream = backbone.patch_embed(images[index[e]][None].double())
        for k in range(4):
            stream = backbone[f"layers_{k}"](stream)
            cells = stream[0].flatten(0, 1)
            attended = literal_pwam(model.attentions[k], cells, words[e], mask[e])
            norm = model.image_encoder.norms[k]
            deviation = (attended.var(1, keepdim=True, correction=0) + norm.eps).sqrt()
            expected = (attended - attended.mean(1, keepdim=True)) / deviation * norm.weight + norm.bias
            assert (maps[k][e].flatten(1).T - expected).abs().max() < 1e-10
            if k < 3:
                first, second = model.gates[k].weigh[0].weight, model.gates[k].weigh[2].weight
                gate = torch.tanh((attended @ first.T).clamp(min=0) @ second.T)
                stream = (cells + gate * attended).view(stream.shape)


def test_with_closed_gates_the_stream_is_plain_swin():
    model, (images, ids, mask, _) = build().double().eval(), inputs()
    images = images.double()
    for gate in model.gates:
        torch.nn.init.zeros_(gate.weigh[2].weight)
    words = model.text_encoder(ids[:2], mask[:2])
    _, maps = decoder_inputs(model, images, ids[:2], mask[:2])
    for k, stage in enumerate(model.image_encoder.backbone(images)):
        attended = model.attentions[k](stage.flatten(1, 2), words, mask[:2])
        expected = model.image_encoder.norms[k](attended).transpose(1, 2).view_as(maps[k])
        assert (maps[k] - expected).abs().max() < 1e-10


def literal_upsampling(x, size):
    """Bilinear with aligned corners, (C, h, w) to (C, *size), cell by cell."""
    made = x.new_zeros(len(x), *size)
    for i in range(size[0]):
        for j in range(size[1]):
            row = i * (x.shape[1] - 1) / max(size[0] - 1, 1)
            column = j * (x.shape[2] - 1) / max(size[1] - 1, 1)
            top, left = int(row), int(column)
            bottom, right = min(top + 1, x.shape[1] - 1), min(left + 1, x.shape[2] - 1)
            upper = x[:, top, left] * (1 - column + left) + x[:, top, right] * (column - left)
            lower = x[:, bottom, left] * (1 - column + left) + x[:, bottom, right] * (column - left)
            made[:, i, j] = upper * (1 - row + top) + lower * (row - top)
    return made


def test_the_decoder_joins_finer_maps_after_upsampling():
    torch.manual_seed(0)
    decoder = LAVTDecoder((2, 3, 4, 5), 3).double()
    sizes = [(7, 9), (4, 5), (2, 3), (1, 2)]
    maps = [torch.randn(2, c, *size).double() for c, size in zip((2, 3, 4, 5), sizes, strict=True)]
    for _ in range(3):
        decoder.train()(maps)  # moves the running means and variances
    decoder.eval()
    made = decoder(maps)
    assert made.shape == (2, 1, 7, 9)
    for e in range(2):
        level = maps[3][e]
        for finer, stage in zip((maps[2][e], maps[1][e], maps[0][e]), decoder.stages, strict=True):
            level = torch.cat([literal_upsampling(level, finer.shape[1:]), finer])
            for convolution, norm, _ in stage:
                level = conv2d(level[None], convolution.weight, padding=1)[0]
                scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                level = (level - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
                level = level.clamp(min=0)
        expected = torch.einsum("c,chw->hw", decoder.predict.weight[0, :, 0, 0], level) + decoder.predict.bias
        assert (made[e, 0] - expected).abs().max() < 1e-10


def test_the_first_stage_runs_once_per_image_and_the_others_once_per_expression():
    model, counts = build().eval(), {}
    for k in range(4):
        model.image_encoder.backbone[f"layers_{k}"].register_forward_hook(
            lambda _, given, __, k=k: counts.update({k: len(given[0])})
        )
    with torch.inference_mode():
        model(*inputs())
        features = model.encode_image(inputs()[0])
    assert counts == {0: 2, 1: 3, 2: 3, 3: 3}
    assert [tuple(x.shape) for x in features.maps] == [(2, 16, 16, 16)] and features.size == (64, 64)


@pytest.mark.parametrize("size", [(32, 32), (100, 72), (36, 92)])
def test_images_need_be_neither_square_nor_multiples_of_32(size):
    model = build()
    logits = model.train()(*inputs(*size))  # at 32 pixels, the last stage is a single cell
    logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.inference_mode():
        logits = model.eval()(*inputs(*size))
    assert logits.shape == (3, *size)
    assert torch.isfinite(logits).all()


def test_the_decoder_s_width_is_half_of_the_last_stage_unless_it_is_given():
    assert build().decoder.predict.in_channels == 64
    assert build(width=24).decoder.predict.in_channels == 24


def test_cost_is_the_one_that_the_papers_print():
    """197.4 G in S²RM's Table II: multiply-adds at 480x480, matrix products included, without the text encoder."""
    with torch.device("meta"):
        image = ImageEncoder(ImageEncoderConfig(name="swin_base_patch4_window12_384"), 480)
        model = LAVT(image, TextEncoder(TextEncoderConfig(layers=1))).eval()
        ids = torch.zeros(1, 20, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            logits = model(torch.zeros(1, 3, 480, 480), ids, ids == 0)
    assert logits.shape == (1, 480, 480)
    giga = {name: sum(counts.values()) / 2e9 for name, counts in counter.get_flop_counts().items()}
    total = giga["LAVT"] - giga["LAVT.text_encoder"]
    attentions = sum(giga[f"LAVT.attentions.{k}"] for k in range(4))
    gates = sum(giga[f"LAVT.gates.{k}"] for k in range(3))
    assert total == pytest.approx(197.4, rel=0.005)
    assert giga["LAVT.decoder"] == pytest.approx(106.2, rel=0.001)
    assert total - giga["LAVT.decoder"] - attentions - gates == pytest.approx(85.24, rel=0.001)  # Swin-B alone
    assert attentions + gates + 225 * 2 * 1024**2 / 1e9 == pytest.approx(5.86, rel=0.001)  # with a fourth, idle gate
