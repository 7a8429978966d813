"""How time and memory of a forward pass grow with image size, expressions an image, batch and words.

Models of the papers' ablations (Swin-T, or SLViT's own encoder; random weights), in evaluation mode. One size changes
at a time; the others stay at 256 px, one image, one expression, 20 words: measured once, a point of every axis.
"""

import pandas as pd
import torch
from bench_evaluation import random_weights
from measure import DEVICE, seconds, write

from refstudy.analysis.cost import slopes
from refstudy.base.allocation import added_megabytes
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
def measured(model: torch.nn.Module, at: dict[str, int]) -> dict[str, float]:
    """Time and memory of a pass at these sizes; the one whose memory is measured warms up those that are timed."""
    side, pairs = at["image size"], at["batch"] * at["expressions"]
    pixels = torch.randn(at["batch"], 3, side, side, device=DEVICE).contiguous(memory_format=torch.channels_last)
    ids = torch.randint(1000, (pairs, at["words"]), device=DEVICE)
    mask = torch.ones_like(ids, dtype=torch.bool)
    index = torch.arange(at["batch"], device=DEVICE).repeat_interleave(at["expressions"])

    def forward() -> None:
        model(pixels, ids, mask, index)

    memory = added_megabytes(forward)
    time = seconds(forward, repeats=3 if DEVICE.type == "cpu" else 5, warm=True)
    return {"seconds": round(time, 4), "peak_MB": round(memory, 1)}


def main() -> None:
    rows = []
    for variant in MODELS:
        config = random_weights("refcoco", variant)
        for side in SIZES["image size"]:
            model = build_model(config.model_copy(update={"image_size": side}))
            model = model.to(DEVICE, memory_format=torch.channels_last).eval()
            at = USUAL | {"image size": side}
            usual = measured(model, at)
            rows.append({"model": variant, "axis": "image size", "value": side} | usual)
            for axis in list(SIZES)[1:] if at == USUAL else ():
                for value in SIZES[axis]:
                    found = usual if value == USUAL[axis] else measured(model, at | {axis: value})
                    rows.append({"model": variant, "axis": axis, "value": value} | found)
    write("growth", rows)
    print(slopes(pd.DataFrame(rows)).to_string(index=False))


if __name__ == "__main__":
    main()
