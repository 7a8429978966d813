"""Memory of training S²RM + CASG: weights, gradients, the optimizer's state and what is kept for the backward pass.

The most that PyTorch holds over two updates of ``Trainer``, by batch size (images, one expression each): Swin-B at 512
in bf16 on a GPU; without one, the model of the built-in study on the CPU, in fp32. Pictures and weights are random.
"""

import gc

import torch
from bench_evaluation import random_corpus, random_weights
from measure import DEVICE, write

from refstudy.base.allocation import added_megabytes
from refstudy.base.config import RunConfig
from refstudy.data.batches import grouped_batches
from refstudy.study.load import load_study
from refstudy.training.trainer import Trainer

SIZES = (8, 16, 32)
WAYS = {  # checkpointing, accumulate
    "plain": (False, 1),
    "checkpointing": (True, 1),
    "4 parts": (False, 4),
    "checkpointing, 4 parts": (True, 4),
}
CEILINGS = {("plain", 32): 60, ("checkpointing, 4 parts", 32): 24}  # GB, for Swin-B at 512


def held(config: RunConfig, images: int, checkpointing: bool, accumulate: int) -> float:
    """MiB at most."""
    own = {"images_per_batch": images, "expressions_per_image": 1, "encoder_weights": ""}
    own |= {"checkpointing": checkpointing, "accumulate": accumulate}
    config = config.model_copy(update={"train": config.train.model_copy(update=own)})
    corpus = random_corpus(images, config.model.image_size)
    corpus.token_ids %= config.model.text.vocab_size

    def two_updates() -> None:
        trainer = Trainer(config, {"train": corpus})
        for epoch in range(2):
            trainer.step(next(grouped_batches(corpus, images, 1, 0, epoch)))

    gc.collect()
    return added_megabytes(two_updates)


def main() -> None:
    study, large = load_study(), DEVICE.type == "cuda"
    config = study.run_config("refcoco_swinb" if large else "scenes", "s2rm_casg", 0)
    if large:
        config = config.model_copy(update={"model": random_weights("refcoco_swinb", "s2rm_casg")})
    name = "Swin-B at 512, bf16" if large else f"the built-in study's Swin at {config.model.image_size}, fp32"
    rows = []
    for way, settings in WAYS.items():
        for images in SIZES:
            try:
                gigabytes: float | str = round(held(config, images, *settings) / 1024, 3)
            except torch.cuda.OutOfMemoryError:
                gigabytes = "does not fit"
            ceiling = CEILINGS.get((way, images), "") if large else ""
            row = {"what": f"training, s2rm_casg with {name}", "way": way, "images": images}
            rows.append(row | {"GB": gigabytes, "ceiling_GB": ceiling})
    write("memory", rows)


if __name__ == "__main__":
    main()
