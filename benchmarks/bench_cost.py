"""What the papers leave out: seconds for the first and for a further expression of one image, and peak memory.

Models of the papers' sizes (profile refcoco) with random weights, in evaluation mode. ``ratio`` is how much cheaper a
further expression is than the first. Each model runs in a process of its own, so that its peak memory is its own.
"""

import multiprocessing
import resource

import torch
from measure import seconds, write

from refstudy.models.build import build_model, default_device
from refstudy.study import load_study

VARIANTS = ("tile_concat", "s2rm_fpn", "s2rm_casg", "pwam_casg", "acm_casg", "lavt", "slvit")
WORDS = 20


def peak_megabytes(device: torch.device) -> float:
    """The most memory this process has held so far: of the GPU, or its resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


@torch.inference_mode()
def measure(variant: str) -> dict:
    """One row: both times, their ratio, and the memory that the forward pass adds to the loaded model."""
    config = load_study().run_config("refcoco", variant, seed=0).model
    image = config.image.model_copy(update={"pretrained": False})
    text = config.text.model_copy(update={"pretrained": False})
    device = default_device()
    model = build_model(config.model_copy(update={"image": image, "text": text})).to(device).eval()
    pixels = torch.randn(1, 3, config.image_size, config.image_size, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    ids = torch.randint(1000, (1, WORDS), device=device)
    mask = torch.ones(1, WORDS, dtype=torch.bool, device=device)

    def synchronised(action):
        def run():
            made = action()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return made

        return run

    loaded = peak_megabytes(device)
    first = seconds(synchronised(lambda: model(pixels, ids, mask)), repeats=3)
    added = peak_megabytes(device) - loaded
    features = model.encode_image(pixels)
    further = seconds(synchronised(lambda: model.segment(features, ids, mask)), repeats=3)
    return {
        "what": f"{variant}, {config.image_size} px",
        "first_s": round(first, 3),
        "further_s": round(further, 3),
        "ratio": round(first / further, 2),
        "forward_adds_MB": round(added),
    }


def main() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        write("cost", pool.map(measure, VARIANTS, chunksize=1))


if __name__ == "__main__":
    main()
