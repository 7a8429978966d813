"""How time and memory of a forward pass grow with image size, expressions an image, batch and words.

Models of the papers' ablations (Swin-T, or SLViT's own encoder; random weights), in evaluation mode. One size changes
at a time; the others stay at 256 px, one image, one expression, 20 words.
"""

import pandas as pd
import torch
from bench_evaluation import random_weights
from measure import DEVICE, added_megabytes, seconds, write

from refstudy.cost import slopes
from refstudy.models.build import build_model

MODELS = ("s2rm_fpn", "s2rm_casg", "lavt", "slvit")
USUAL = {"image size": 256, "expressions": 1, "batch": 1, "words": 20}
SIZES = {
    "image size": (256, 384, 512, 768, 1024),
    "expressions": (1, 2, 4, 8),
    "batch": (1, 2, 4, 8),
    "words": (5, 10, 20, 40),
}


@torch.inference_mode()
def measured(variant: str, axis: str, value: int, model: torch.nn.Module, side: int) -> dict:
    """One row; the run whose memory is measured warms up the one that is timed."""
    at = USUAL | {axis: value, "image size": side}
    pairs = at["batch"] * at["expressions"]
    pixels = torch.randn(at["batch"], 3, side, side, device=DEVICE).contiguous(memory_format=torch.channels_last)
    ids = torch.randint(1000, (pairs, at["words"]), device=DEVICE)
    mask = torch.ones_like(ids, dtype=torch.bool)
    index = torch.arange(at["batch"], device=DEVICE).repeat_interleave(at["expressions"])

    def forward() -> None:
        model(pixels, ids, mask, index)

    memory = added_megabytes(forward)
    time = seconds(forward, repeats=1 if DEVICE.type == "cpu" else 5, warm=True)
    return {"model": variant, "axis": axis, "value": value, "seconds": round(time, 4), "peak_MB": round(memory, 1)}


def main() -> None:
    rows = []
    for variant in MODELS:
        config = random_weights("refcoco", variant)
        for side in SIZES["image size"]:
            model = build_model(config.model_copy(update={"image_size": side}))
            model = model.to(DEVICE, memory_format=torch.channels_last).eval()
            axes = SIZES if side == USUAL["image size"] else {"image size": ()}
            for axis, values in axes.items():
                for value in (side,) if axis == "image size" else values:
                    rows.append(measured(variant, axis, value, model, side))
    write("growth", rows)
    print(slopes(pd.DataFrame(rows)).to_string(index=False))


if __name__ == "__main__":
    main()
