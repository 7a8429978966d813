"""Evaluation of a whole split: each image encoded once for its seven expressions, against one pair at a time.

The model is the same and so are its numbers, up to pixels whose logit is zero up to rounding: ``counted_otherwise`` of
all ``pixels``. Pictures and weights are random.
"""

import numpy as np
import pandas as pd
import torch
from measure import DEVICE, compared, seconds, write

from refstudy.base.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from refstudy.data.batches import Batch, Corpus, evaluation_batches
from refstudy.models.build import build_model
from refstudy.study.load import load_study
from refstudy.training.evaluation import ABOUT, evaluate

EXPRESSIONS, WORDS = 7, 20  # an image of RefCOCO has about seven expressions


def random_corpus(images: int, side: int) -> Corpus:
    """A split of random pictures with EXPRESSIONS expressions each, all about one referent of random pixels."""
    rng = np.random.default_rng(0)
    count = images * EXPRESSIONS
    return Corpus(
        rng.integers(256, size=(images, 3, side, side), dtype=np.uint8),
        rng.integers(256, size=(images, side * side // 8), dtype=np.uint8),
        np.arange(images),
        rng.integers(1000, 2000, (count, WORDS)),
        np.ones((count, WORDS), bool),
        np.repeat(np.arange(images), EXPRESSIONS),
        pd.DataFrame(0, range(count), ABOUT),
    )


def random_weights(profile: str, variant: str) -> ModelConfig:
    """The model of a profile, its encoders not pretrained."""
    config = load_study().run_config(profile, variant, seed=0).model
    return config.from_scratch().model_copy(
        update={
            "image": ImageEncoderConfig(name=config.image.name.split(".")[0]),
            "text": TextEncoderConfig(),
        }
    )


@torch.inference_mode()
def one_by_one(model: torch.nn.Module, corpus: Corpus) -> pd.DataFrame:
    """The counts of ``evaluate``, each expression with its image encoded anew."""
    inter, union = (np.zeros(len(corpus.table), np.int64) for _ in range(2))
    for batch in evaluation_batches(corpus, 1):
        batch = batch.to(DEVICE)
        for k, number in enumerate(batch.expressions):
            single = slice(k, k + 1)
            pair = Batch(
                batch.pixels,
                batch.image_index[single],
                batch.token_ids[single],
                batch.token_mask[single],
                batch.inside[single],
                batch.expressions[single],
                1,
            )
            predicted = model(pair.images, pair.token_ids, pair.token_mask, pair.image_index) > 0
            inter[number], union[number] = (predicted & pair.inside).sum(), (predicted | pair.inside).sum()
    return corpus.table[ABOUT].assign(intersection=inter, union=union)


def row_of(name: str, config: ModelConfig, images: int, floor: float | None, warm: bool) -> dict:
    """The row of a model on so many random images; ``warm`` leaves out a first evaluation that is not timed."""
    model = build_model(config).to(DEVICE, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    corpus = random_corpus(images, config.image_size)
    corpus.token_ids %= config.text.vocab_size
    counts = {}

    def single():
        counts["single"] = one_by_one(model, corpus)

    def grouped():
        counts["grouped"] = evaluate(model, corpus, images_per_batch=16)

    times = [seconds(way, repeats=1, warm=warm) for way in (single, grouped)]
    numbers = ["intersection", "union"]
    otherwise = int((counts["single"][numbers] - counts["grouped"][numbers]).abs().to_numpy().sum())
    pixels = len(corpus.table) * config.image_size**2
    rates = [len(corpus.table) / time for time in times]
    what = f"evaluation, s2rm_casg with {name} at {config.image_size}, {EXPRESSIONS} expressions an image"
    return compared(what, "pairs/s", *rates, floor) | {"pixels": pixels, "counted_otherwise": otherwise}


def main() -> None:
    small = load_study().run_config("scenes", "s2rm_casg", 0).model
    rows = [
        row_of("Swin-B", random_weights("refcoco_swinb", "s2rm_casg"), images=2, floor=2.2, warm=True),
        row_of("the built-in study's Swin", small, images=32, floor=None, warm=False),
    ]
    write("evaluation", rows)


if __name__ == "__main__":
    main()
