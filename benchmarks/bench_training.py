"""Training throughput, against a loop in the style of LAVT's public code: in fp32, each expression with its image anew,
every sample decoded from its JPEG and polygons and resized, attention written out, the loss read back every update.

Both train the same model on the same pairs: those of the smoke profile; `bench_gpu.py` has Swin-B at 512.
"""

import gc
import itertools
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import DEVICE, compared, synchronise, write
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from refstudy.base.config import RunConfig
from refstudy.data.batches import Batch, Corpus, grouped_batches, made_ahead, normalise, resize_mask
from refstudy.data.masks import decode_mask
from refstudy.data.pictures import read_image
from refstudy.data.refer import load_refer
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer, tokenize
from refstudy.models.build import build_model
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.losses import dice_loss
from refstudy.training.optim import parameter_groups
from refstudy.training.trainer import Trainer

SCENES, WARM, UPDATES = 240, 2, 8


class DecodedAnew(Dataset):
    """A referent with one random sentence, from the files at every visit."""

    def __init__(self, table: pd.DataFrame, config: RunConfig):
        self.rows = [group for _, group in table[table["split"] == "train"].groupby("ref_id", sort=False)]
        self.side, self.words = config.data.image_size, config.data.max_words
        self.tokenizer = build_tokenizer()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        row = self.rows[number].sample(1).iloc[0]
        picture = Image.fromarray(read_image(row["image_path"], row["height"], row["width"]))
        pixels = np.asarray(picture.resize((self.side, self.side), Image.Resampling.BILINEAR))
        mask = resize_mask(decode_mask(row["segmentation"], row["height"], row["width"]), self.side, self.side)
        ids, words = tokenize(self.tokenizer, [row["expression"]], self.words)
        image = normalise(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])[0].contiguous()
        return image, torch.from_numpy(ids[0]), torch.from_numpy(words[0]), torch.from_numpy(mask.astype(np.float32))


def usual_rate(config: RunConfig, table: pd.DataFrame, pairs: int) -> float:
    """Pairs a second of the usual loop, ``pairs`` in a batch."""
    model = build_model(config.model).to(DEVICE).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, config.train.weight_decay), config.train.learning_rate)
    loader = DataLoader(
        DecodedAnew(table, config),
        batch_size=pairs,
        shuffle=True,
        drop_last=True,
        num_workers=8 if DEVICE.type == "cuda" else 0,
    )

    def batches() -> Iterable[Any]:
        while True:
            yield from loader

    with sdpa_kernel(SDPBackend.MATH):
        for update, batch in enumerate(batches()):
            if update == WARM:
                synchronise()
                start = time.perf_counter()
            images, ids, words, masks = (tensor.to(DEVICE) for tensor in batch)
            loss = dice_loss(model(images, ids, words), masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            gc.collect()
            if update == WARM + UPDATES - 1:
                return UPDATES * pairs / (time.perf_counter() - start)
    raise AssertionError("no batch")


def our_batches(config: RunConfig, corpus: Corpus) -> Iterable[Batch]:
    """Those of a training, epoch after epoch."""
    train = config.train
    epoch = 0
    while True:
        batches = grouped_batches(corpus, train.images_per_batch, train.expressions_per_image, 0, epoch)
        yield from made_ahead(batches, pinned=DEVICE.type == "cuda")
        epoch += 1


def our_rate(config: RunConfig, corpora: dict[str, Corpus]) -> float:
    """Pairs a second of ``Trainer``, data included."""
    trainer = Trainer(config, corpora)
    warm = WARM + (8 if config.train.compile else 0)
    for update, batch in enumerate(our_batches(config, corpora["train"])):
        if update == warm:
            synchronise()
            start, before = time.perf_counter(), trainer.pairs
        trainer.step(batch)
        if update == warm + UPDATES - 1:
            synchronise()
            return (trainer.pairs - before) / (time.perf_counter() - start)
    raise AssertionError("no batch")


def loading_rate(config: RunConfig, corpus: Corpus) -> float:
    """Pairs a second of the data alone, over one epoch."""
    train = config.train
    start, pairs = time.perf_counter(), 0
    for batch in grouped_batches(corpus, train.images_per_batch, train.expressions_per_image, 0, 0):
        pairs += batch.of
    return pairs / (time.perf_counter() - start)


def rows_of(name: str, config: RunConfig, root: Path, floors: tuple[float | None, float | None]) -> list[dict]:
    """The model's rows: training against the usual loop, and the data alone against what the model takes."""
    table = load_refer(prepare_data(config.data, root, progress=False), config.data.dataset, config.data.split_by)
    corpora, _ = load_corpora(config.data, config.model.text, ("train", "val"), root, progress=False)
    loading_rate(config, corpora["train"])  # the memory-mapped files come into memory
    ours = our_rate(config, corpora)
    several = itertools.islice(our_batches(config, corpora["train"]), 4)
    pairs = round(np.mean([len(batch.expressions) for batch in several]))
    usual, loading = usual_rate(config, table, pairs), loading_rate(config, corpora["train"])
    return [
        compared(f"training, {name}", "pairs/s", usual, ours, floors[0]),
        compared(f"data alone against training, {name}", "pairs/s", ours, loading, floors[1]),
    ]


def main() -> None:
    study, rows = load_study(), []
    with tempfile.TemporaryDirectory() as folder:
        for variant, floor in (("s2rm_fpn", 2), ("s2rm_casg", None)):
            config = study.run_config("smoke", variant, 0)
            data = config.data.model_copy(update={"scenes": {"train": SCENES, "val": 20}})
            config = config.model_copy(update={"data": data})
            rows += rows_of(f"{variant} of smoke at {data.image_size}", config, Path(folder), (floor, 3))
    write("training", rows)


if __name__ == "__main__":
    main()
