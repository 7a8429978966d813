"""How time and memory of a forward pass grow with image size, expressions an image, batch and words.

Models of the papers' ablations (Swin-T, or SLViT's own encoder; random weights), in evaluation mode. One size changes
at a time; the others stay at 256 px, one image, one expression, 20 words. A time is the median of rounds through all
points of a model, so that what disturbs the machine for a while is in one of them.
"""

import statistics
from collections.abc import Callable

import pandas as pd
import torch
from bench_evaluation import random_weights
from measure import DEVICE, seconds, write

from refstudy.analysis.cost import slopes
from refstudy.base.allocation import added_megabytes
from refstudy.models.build import build_model

ROUNDS = 3
MODELS = ("s2rm_fpn", "s2rm_casg", "lavt", "slvit")
USUAL = {"image size": 256, "expressions": 1, "batch": 1, "words": 20}
SIZES = {
    "image size": (256, 384, 512, 768, 1024),
    "expressions": (1, 2, 4, 8),
    "batch": (1, 2, 4, 8),
    "words": (5, 10, 20, 40),
}


def forward(model: torch.nn.Module, at: dict[str, int]) -> Callable[[], None]:
    """A pass at these sizes."""
    side, pairs = at["image size"], at["batch"] * at["expressions"]
    pixels = torch.randn(at["batch"], 3, side, side, device=DEVICE).contiguous(memory_format=torch.channels_last)
    ids = torch.randint(1000, (pairs, at["words"]), device=DEVICE)
    mask = torch.ones_like(ids, dtype=torch.bool)
    index = torch.arange(at["batch"], device=DEVICE).repeat_interleave(at["expressions"])

    @torch.inference_mode()
    def action() -> None:
        model(pixels, ids, mask, index)

    return action


def passes(variant: str) -> dict[tuple[str, int], Callable[[], None]]:
    """A pass for every point of a model, by axis and value."""
    config, found = random_weights("refcoco", variant), {}
    for side in SIZES["image size"]:
        model = build_model(config.model_copy(update={"image_size": side}))
        model = model.to(DEVICE, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        at = USUAL | {"image size": side}
        found["image size", side] = forward(model, at)
        if at == USUAL:
            others = ((axis, value) for axis in list(SIZES)[1:] for value in SIZES[axis])
            found |= {(axis, value): forward(model, at | {axis: value}) for axis, value in others}
    return found


def main() -> None:
    rows = []
    for variant in MODELS:
        actions = passes(variant)
        memory = [added_megabytes(action) for action in actions.values()]  # and a first pass, which is not timed
        rounds = [[seconds(action, 1, warm=True) for action in actions.values()] for _ in range(ROUNDS)]
        for (axis, value), *times, most in zip(actions, *rounds, memory, strict=True):
            point = {"seconds": round(statistics.median(times), 4), "peak_MB": round(most, 1)}
            rows.append({"model": variant, "axis": axis, "value": value} | point)
    write("growth", rows)
    print(slopes(pd.DataFrame(rows)).to_string(index=False))


if __name__ == "__main__":
    main()
