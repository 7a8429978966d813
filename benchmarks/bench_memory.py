"""Memory of training S²RM + CASG: weights, gradients, the optimizer's state and what is kept for the backward pass.

The most that PyTorch holds over two updates of ``Trainer``, by batch size (images, one expression each), for the model
of the built-in study; `bench_gpu.py` has Swin-B at 512. Pictures and weights are random.
"""

import gc

from bench_evaluation import random_corpus
from measure import write

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


def held(config: RunConfig, images: int, checkpointing: bool, accumulate: int) -> float:
    """MiB at most, in a way of ``WAYS``."""
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
    config = load_study().run_config("scenes", "s2rm_casg", 0)
    what = f"training, s2rm_casg with the built-in study's Swin at {config.model.image_size}, fp32"
    rows = [
        {"what": what, "way": way, "images": images, "GB": round(held(config, images, *settings) / 1024, 3)}
        for way, settings in WAYS.items()
        for images in SIZES
    ]
    write("memory", rows)


if __name__ == "__main__":
    main()
