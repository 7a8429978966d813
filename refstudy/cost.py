"""What a model costs: parameters and multiply-adds by component, counted in seconds on shapes, without weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from refstudy.config import ModelConfig
from refstudy.models.build import build_model
from refstudy.models.decoders import casg
from refstudy.models.segmenter import Segmenter

WORDS = 20  # word pieces of an expression, as both papers clip them


@dataclass(frozen=True)
class Cost:
    """Parameters, in millions, and multiply-adds, in thousand millions, of one image with one expression.

    ``parameters`` and ``macs`` are by component: image_encoder, text_encoder, and what else the model consists of.
    ``written`` is all multiply-adds when every equation is computed as the paper writes it; ``further``, those of one
    more expression about the same image.
    """

    parameters: dict[str, float]
    macs: dict[str, float]
    written: float
    further: float


def cost(config: ModelConfig) -> Cost:
    """Count what the model of these settings costs. Multiply-adds are those of convolutions and matrix products.

    Raises StudyError as ``build_model`` does.
    """
    image = config.image.model_copy(update={"pretrained": False})
    text = config.text.model_copy(update={"pretrained": False})
    with torch.device("meta"):
        model = build_model(config.model_copy(update={"image": image, "text": text})).eval()
        macs = count(model, config.image_size, expressions=1)
        with as_written():
            written = count(model, config.image_size, expressions=1)
        two = count(model, config.image_size, expressions=2)
    parameters = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    return Cost(
        {name: number for name, number in parameters.items() if number},
        macs,
        sum(written.values()),
        sum(two.values()) - sum(macs.values()),
    )


def count(model: Segmenter, image_size: int, expressions: int, words: int = WORDS) -> dict[str, float]:
    """Thousand millions of multiply-adds by component, for one image with so many expressions; a model on "meta"."""
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    ids = torch.empty(expressions, words, dtype=torch.long, device="meta")
    mask = torch.empty(expressions, words, dtype=torch.bool, device="meta")
    index = torch.empty(expressions, dtype=torch.long, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(images, ids, mask, index)
    flops = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    root = type(model).__name__
    outermost = [name for name in flops if not any(name.startswith(f"{other}.") for other in flops if other != root)]
    parts = {
        part: sum(flops[name] for name in outermost if f"{name}.".startswith(f"{root}.{part}."))
        for part, _ in model.named_children()
    }
    parts["rest"] = flops["Global"] - sum(parts.values())
    return {name: number / 2e9 for name, number in parts.items() if number}


@contextmanager
def as_written() -> Iterator[None]:
    """Compute CASG's wide convolutions and its lift as the paper writes them; everything else is so already."""

    def forward(self: casg.UpsampledConv, maps, size):
        return self.upsampled_first(maps, size)

    with (
        patch.object(casg.UpsampledConv, "forward", forward),
        patch.object(casg, "lifted_scores", casg.lifted_first),
    ):
        yield
