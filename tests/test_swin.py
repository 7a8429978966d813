"""Swin on maps whose sides are no multiple of its window: padded first, then shifted, as a literal block does."""

import json
import math

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformerBlock

from refstudy.base.config import ImageEncoderConfig
from refstudy.models.encoders import ImageEncoder, PaddedBlock

pytestmark = pytest.mark.numeric

HEADS, CHANNELS = 2, 4


def block(kind, side, window):
    """A shifted block in float64, with weights large enough for attention to differ from cell to cell."""
    torch.manual_seed(0)
    sizes = {"window_size": window, "shift_size": window // 2, "num_heads": HEADS, "dynamic_mask": True}
    made = SwinTransformerBlock(CHANNELS, (side, side), **sizes).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    made.__class__ = kind
    return made


def windows_of(side: int, window: int) -> list[list[tuple[int, int]]]:
    """The groups of cells of the padded map that attend to one another in a shifted block.

    The padded map is cut by lines at window // 2 + k * window; what the cyclic shift brings together from both ends
    stays apart.
    """
    padded, shift = math.ceil(side / window) * window, window // 2
    spans = [range(shift)] + [range(a, min(a + window, padded)) for a in range(shift, padded, window)]
    return [[(i, j) for i in rows for j in columns] for rows in spans for columns in spans]


def literal_attention(part, x):
    """(H, W, C) to the same: each cell asks the cells of its group, padded ones (zeros) among them; cell by cell."""
    side, window = x.shape[0], part.window_size[0]
    attention, width = part.attn, CHANNELS // HEADS
    weight, bias = attention.qkv.weight, attention.qkv.bias
    made = torch.zeros_like(x)
    for group in windows_of(side, window):
        present = [(i, j) for i, j in group if i < side and j < side]
        if not present:
            continue
        cells = [x[i, j] if i < side and j < side else x.new_zeros(CHANNELS) for i, j in group]
        query, key, value = (torch.stack(cells) @ weight.T + bias).unflatten(1, (3, HEADS, width)).unbind(1)
        for i, j in present:
            asking = query[group.index((i, j))]
            rows = [(i - k + window - 1) * (2 * window - 1) + (j - m + window - 1) for k, m in group]
            near = attention.relative_position_bias_table[rows]  # (cells, heads)
            heads = [
                (key[:, h] @ asking[h] / math.sqrt(width) + near[:, h]).softmax(0) @ value[:, h] for h in range(HEADS)
            ]
            made[i, j] = torch.cat(heads) @ attention.proj.weight.T + attention.proj.bias
    return made


# a grid no multiple of the window: those of stages 3 and 4 at 512 px with window 7, of stage 4 at 480 px with window 12
@pytest.mark.parametrize("side, window", [(16, 7), (32, 7), (15, 12), (8, 4), (5, 3)])
def test_a_shifted_block_is_the_literal_one(side, window):
    part = block(PaddedBlock, side, window)
    x = torch.randn(side, side, CHANNELS, dtype=torch.float64)
    with torch.no_grad():
        assert (part._attn(x[None])[0] - literal_attention(part, x)).abs().max() < 1e-10


@pytest.mark.parametrize("side, window", [(16, 7), (15, 12), (5, 3)])
def test_its_gradient_is_that_of_the_literal_one(side, window):
    part = block(PaddedBlock, side, window)
    x = torch.randn(side, side, CHANNELS, dtype=torch.float64, requires_grad=True)
    seed = torch.randn_like(x)
    (ours,) = torch.autograd.grad((part._attn(x[None])[0] * seed).sum(), x)
    (literal,) = torch.autograd.grad((literal_attention(part, x) * seed).sum(), x)
    assert (ours - literal).abs().max() < 1e-10


def heard(kind, side, window):
    """The rows of the map from which the last row of a shifted block's output gets a gradient.

    Swin's mask adds -100 to a score, so that e^-100 of a weight is left of what it masks.
    """
    x = torch.randn(1, side, side, CHANNELS, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(kind, side, window)(x)[0, -1].sum(), x)
    return {row for row in range(side) if gradient[0, row].abs().max() > 1e-12}


@pytest.mark.parametrize("side, window", [(16, 7), (32, 7), (15, 12)])
def test_a_border_does_not_hear_the_opposite_one(side, window):
    assert not heard(PaddedBlock, side, window) & set(range(window // 2))
    assert heard(SwinTransformerBlock, side, window) & set(range(window // 2)), "timm pads first now: drop PaddedBlock"


@pytest.mark.parametrize("side, window", [(8, 4), (32, 4), (14, 7), (60, 12)])
def test_on_multiples_of_the_window_it_is_timm_s_to_the_last_bit(side, window):
    x = torch.randn(2, side, side, CHANNELS)
    with torch.no_grad():
        ours, theirs = (block(kind, side, window).float()(x) for kind in (PaddedBlock, SwinTransformerBlock))
    assert torch.equal(ours, theirs)


def test_every_block_of_the_encoder_pads_first_and_keeps_timm_s_names():
    config = ImageEncoderConfig(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2), window_size=7)
    encoder = ImageEncoder(config, image_size=512)
    blocks = [module for module in encoder.modules() if isinstance(module, SwinTransformerBlock)]
    assert len(blocks) == 5 and all(type(part) is PaddedBlock for part in blocks)
    names = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 7}
    theirs = timm.create_model(config.name, features_only=True, img_size=512, strict_img_size=False, **names)
    encoder.backbone.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("tag", ["swin_tiny_patch4_window7_224.ms_in22k", "swin_base_patch4_window7_224.ms_in22k"])
def test_published_weights_fit_at_the_papers_size(tag, tmp_path):
    """A checkpoint of these names and shapes, as the hub has it, loads at 512 px and all of it is used."""
    with torch.device("meta"):
        made = timm.create_model(tag, pretrained=False)
    state = {name: torch.full(value.shape, 0.5) for name, value in made.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    about = {"architecture": tag.split(".")[0], "num_classes": made.num_classes, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    encoder = ImageEncoder(ImageEncoderConfig(name=f"local-dir:{tmp_path}", pretrained=True), image_size=512)
    assert all((value == 0.5).all() for value in encoder.backbone.state_dict().values())
