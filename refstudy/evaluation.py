"""Evaluation: one encoding per image, all of its expressions at once, pixels counted."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from refstudy.bar import bar
from refstudy.config import THRESHOLD, Resolution
from refstudy.data.batches import Batch, Corpus, build_corpus, evaluation_batches, unfit
from refstudy.data.masks import decode_mask, encode_mask
from refstudy.metrics import summarize
from refstudy.models.segmenter import Segmenter

ABOUT = ["sent_id", "ref_id", "image_id", "split", "words", "kind"]


def corpus_for(
    model: Segmenter, table: pd.DataFrame, split: str, cache: Path | None = None, progress: bool = True
) -> Corpus:
    """One split of ``load_refer``'s table as this model takes it: of the size, words and aspect of its training.

    ``cache``, and what it raises, are as in ``build_corpus``.
    """
    how = model.config
    return build_corpus(
        table, split, how.image_size, model.tokenizer, how.max_words, cache, progress, keep_aspect=how.keep_aspect
    )


@torch.inference_mode()
def predictions(model: nn.Module, corpus: Corpus, images_per_batch: int = 16) -> Iterator[tuple[Batch, Tensor]]:
    """Batch by batch of the corpus, on the model's device: the batch and its mask logits (N, S, S)."""
    model.eval()
    device = next(model.parameters()).device
    for batch in evaluation_batches(corpus, images_per_batch):
        batch = batch.to(device)
        yield batch, model(batch.images, batch.token_ids, batch.token_mask, batch.image_index)


def evaluate(
    model: nn.Module,
    corpus: Corpus,
    images_per_batch: int = 16,
    progress: bool = False,
    resolution: Resolution = "resized",
    threshold: float = THRESHOLD,
) -> pd.DataFrame:
    """Pixel counts per expression: the columns ``ABOUT``, intersection and union (integers), in the corpus' order.

    A pixel belongs to the prediction when its probability exceeds ``threshold``. Counts are made at the resized
    resolution S x S against the resized mask, as LAVT does, or, with ``resolution`` "original", at each image's own
    size: logits resized bilinearly, against the mask as it is annotated. The frame then has a column ``resolution``.
    """
    cut = _logit(threshold)
    inter = np.zeros(len(corpus.table), np.int64)
    union = np.zeros(len(corpus.table), np.int64)
    with bar(total=len(corpus.table), desc="evaluating", unit="pair", shown=progress) as done:
        for batch, logits in predictions(model, corpus, images_per_batch):
            if resolution == "original":
                for number, logit in zip(batch.expressions, logits, strict=True):
                    inter[number], union[number] = _original_counts(logit, corpus, number, cut)
            else:
                predicted, truth = logits > cut, batch.inside
                inter[batch.expressions] = (predicted & truth).sum((1, 2)).cpu().numpy()
                union[batch.expressions] = (predicted | truth).sum((1, 2)).cpu().numpy()
            done.update(len(batch.expressions))
    counts = corpus.table[ABOUT].assign(intersection=inter, union=union)
    return counts.assign(resolution=resolution) if resolution == "original" else counts


def _logit(threshold: float) -> float:
    """The logit of a probability: 0 for one half."""
    return math.log(threshold / (1 - threshold))


def _original_counts(logits: Tensor, corpus: Corpus, expression: int, cut: float) -> tuple[int, int]:
    """Intersection and union at the image's own size, of one expression's logits (S, S)."""
    row = corpus.table.iloc[expression]
    predicted = (unfit(logits, row["height"], row["width"], corpus.keep_aspect) > cut).cpu().numpy()
    truth = decode_mask(row["segmentation"], row["height"], row["width"])
    return int((predicted & truth).sum()), int((predicted | truth).sum())


def sample_masks(
    model: nn.Module, corpus: Corpus, images: int, threshold: float = THRESHOLD
) -> dict[int, dict[str, Any]]:
    """The predicted masks (S, S) of all expressions about the first ``images`` images, to be shown: sent_id -> RLE."""
    sample = corpus.subset(images)
    sentences = sample.table["sent_id"].to_numpy()
    return {
        int(sentences[expression]): encode_mask(mask)
        for batch, logits in predictions(model, sample)
        for expression, mask in zip(batch.expressions, (logits > _logit(threshold)).cpu().numpy(), strict=True)
    }


def whole_image_counts(corpus: Corpus) -> pd.DataFrame:
    """The counts of a model that predicts every pixel: the floor that any model has to pass."""
    area = np.bitwise_count(corpus.masks).sum(1, dtype=np.int64)[corpus.ref_of_expression]
    return corpus.table[ABOUT].assign(intersection=area, union=corpus.image_size**2)


def summarize_counts(counts: pd.DataFrame) -> dict[str, float]:
    """All metrics, in percent, of a frame that ``evaluate`` returned."""
    return summarize(counts["intersection"], counts["union"])
