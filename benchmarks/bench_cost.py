"""What the papers leave out: seconds for the first and for a further expression of one image, and memory.

Models of the papers' sizes (profile refcoco) with random weights, in evaluation mode. ``ratio`` is how much cheaper a
further expression is than the first.
"""

import torch
from bench_evaluation import WORDS, random_weights
from measure import DEVICE, seconds, write

from refstudy.base.allocation import added_megabytes
from refstudy.models.build import build_model

VARIANTS = ("tile_concat", "s2rm_fpn", "s2rm_casg", "pwam_casg", "acm_casg", "lavt", "slvit")
REPEATS = 2 if DEVICE.type == "cpu" else 20


@torch.inference_mode()
def measure(variant: str) -> dict:
    """One row: both times, their ratio, and the memory that the forward pass adds to the loaded model."""
    config = random_weights("refcoco", variant)
    model = build_model(config).to(DEVICE, memory_format=torch.channels_last).eval()
    pixels = torch.randn(1, 3, config.image_size, config.image_size, device=DEVICE)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    ids = torch.randint(1000, (1, WORDS), device=DEVICE)
    mask = torch.ones(1, WORDS, dtype=torch.bool, device=DEVICE)
    added = added_megabytes(lambda: model(pixels, ids, mask))
    first = seconds(lambda: model(pixels, ids, mask), REPEATS, warm=True)
    features = model.encode_image(pixels)
    further = seconds(lambda: model.segment(features, ids, mask), REPEATS, warm=True)
    return {
        "what": f"{variant}, {config.image_size} px",
        "first_s": round(first, 3),
        "further_s": round(further, 3),
        "ratio": round(first / further, 2),
        "forward_adds_MB": round(added),
    }


def main() -> None:
    write("cost", [measure(variant) for variant in VARIANTS])


if __name__ == "__main__":
    main()
