"""Evaluation: one encoding per image, its expressions in parts of bounded size, pixels counted."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import logit
from torch import Tensor

from refstudy.base.bar import bar
from refstudy.base.config import THRESHOLD, Precision, Resolution, TrainConfig
from refstudy.base.provenance import processor
from refstudy.data.batches import (
    EXPRESSIONS_AT_ONCE,
    Batch,
    Corpus,
    build_corpus,
    evaluation_batches,
    expressions_at_once,
    normalise,
    unfit,
)
from refstudy.data.masks import decode_mask, encode_mask
from refstudy.metrics import summarize
from refstudy.models.segmenter import Segmenter

IMAGES_AT_ONCE = 16  # encoded together
ABOUT = ["sent_id", "ref_id", "image_id", "split", "words", "kind"]


def corpus_for(
    model: Segmenter, table: pd.DataFrame, split: str, cache: Path | None = None, progress: bool = True
) -> Corpus:
    """One split of ``load_refer``'s table, in the size, number of words and aspect that this model was trained with.

    ``cache`` and the errors are those of ``build_corpus``.
    """
    how, tokenizer = model.config, model.tokenizer
    return build_corpus(table, split, how.image_size, tokenizer, how.max_words, cache, progress, how.keep_aspect)


def precision_on(device: torch.device, wanted: Precision) -> Precision:
    """The precision in which a model computes on this device: the wanted one if it is native there, else float32."""
    return wanted if wanted == "float32" or device.type == "cuda" or native_bfloat16() else "float32"


def native_bfloat16() -> bool:
    """Tell if this processor multiplies bfloat16 faster than float32: with AMX, or one of AMD with AVX512-BF16. On
    Intel's, AVX512-BF16 alone is slower than float32 (docs/performance.md)."""
    return torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and "AMD" in processor())


def in_precision(device: torch.device, precision: Precision) -> AbstractContextManager:
    """The context in which a forward pass on this device has this precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def evaluation_batching(settings: TrainConfig, device: torch.device) -> dict[str, Any]:
    """The arguments of ``predictions`` for a model with these settings: its precision on this device, and smaller
    batches where training, too, is cut into parts to save memory."""
    return {
        "images_per_batch": max(1, IMAGES_AT_ONCE // settings.accumulate),
        "expressions_per_batch": max(1, EXPRESSIONS_AT_ONCE // settings.accumulate),
        "precision": precision_on(device, settings.precision),
    }


@torch.inference_mode()
def predictions(
    model: Segmenter,
    corpus: Corpus,
    images_per_batch: int = IMAGES_AT_ONCE,
    expressions_per_batch: int = EXPRESSIONS_AT_ONCE,
    precision: Precision = "float32",
) -> Iterator[tuple[Batch, Tensor]]:
    """Cut the corpus into parts of at most ``expressions_per_batch`` expressions, fewer where ``expressions_at_once``
    says so; yield each part, on the model's device, with its mask logits, float32 (N, S, S). ``images_per_batch``
    images are encoded together, each once."""
    model.eval()
    device = next(model.parameters()).device
    together = expressions_at_once(expressions_per_batch, corpus.image_size, device)
    for batch in evaluation_batches(corpus, images_per_batch):
        with in_precision(device, precision):
            features = model.encode_image(normalise(batch.pixels.to(device)))
        for pictures, part in batch.slices(together):
            part = part.to(device)
            with in_precision(device, precision):
                logits = model.segment(features.of(pictures), part.token_ids, part.token_mask, part.image_index)
            yield part, logits.float()


def evaluate(
    model: Segmenter,
    corpus: Corpus,
    images_per_batch: int = IMAGES_AT_ONCE,
    progress: bool = False,
    resolution: Resolution = "resized",
    threshold: float = THRESHOLD,
    expressions_per_batch: int = EXPRESSIONS_AT_ONCE,
    precision: Precision = "float32",
) -> pd.DataFrame:
    """Pixel counts per expression: the columns ``ABOUT``, intersection and union (integers), in the corpus' order.

    A pixel belongs to the prediction when its probability exceeds ``threshold``. Counts are made at the resized
    resolution S x S against the resized mask, as LAVT does, or, with ``resolution`` "original", at each image's own
    size: logits resized bilinearly, against the annotated mask. The frame then has a column ``resolution``, and with
    another ``precision`` than float32 a column ``precision``. The numbers per batch are those of ``predictions``: they
    bound the memory and change the logits by no more than rounding.
    """
    cut = logit(threshold)
    inter, union = np.zeros((2, len(corpus.table)), np.int64)
    with bar(total=len(corpus.table), desc="evaluating", unit="pair", shown=progress) as done:
        for batch, logits in predictions(model, corpus, images_per_batch, expressions_per_batch, precision):
            if resolution == "original":
                for number, own in zip(batch.expressions, logits, strict=True):
                    inter[number], union[number] = _original_counts(own, corpus, number, cut)
            else:
                marked, truth = logits > cut, batch.inside
                inter[batch.expressions] = (marked & truth).sum((1, 2)).cpu().numpy()
                union[batch.expressions] = (marked | truth).sum((1, 2)).cpu().numpy()
            done.update(len(batch.expressions))
    counts = corpus.table[ABOUT].assign(intersection=inter, union=union)
    if resolution == "original":
        counts = counts.assign(resolution=resolution)
    return counts.assign(precision=precision) if precision != "float32" else counts


def _original_counts(logits: Tensor, corpus: Corpus, expression: int, cut: float) -> tuple[int, int]:
    """Intersection and union at the image's own size, of one expression's logits (S, S)."""
    row = corpus.table.iloc[expression]
    predicted = (unfit(logits, row["height"], row["width"], corpus.keep_aspect) > cut).cpu().numpy()
    truth = decode_mask(row["segmentation"], row["height"], row["width"])
    return int((predicted & truth).sum()), int((predicted | truth).sum())


def sample_masks(
    model: Segmenter, corpus: Corpus, images: int, threshold: float = THRESHOLD, **batching: Any
) -> dict[int, dict[str, Any]]:
    """The predicted masks (S, S) of all expressions about the first ``images`` images, to be shown: sent_id -> RLE.

    ``batching`` are further arguments of ``predictions``.
    """
    sample = corpus.subset(images)
    sentences = sample.table["sent_id"].to_numpy()
    return {
        int(sentences[expression]): encode_mask(mask)
        for batch, logits in predictions(model, sample, **batching)
        for expression, mask in zip(batch.expressions, (logits > logit(threshold)).cpu().numpy(), strict=True)
    }


def whole_image_counts(corpus: Corpus) -> pd.DataFrame:
    """The counts of a model that marks every pixel; any model should do better."""
    area = np.bitwise_count(corpus.masks).sum(1, dtype=np.int64)[corpus.ref_of_expression]
    return corpus.table[ABOUT].assign(intersection=area, union=corpus.image_size**2)


def summarize_counts(counts: pd.DataFrame) -> dict[str, float]:
    """All metrics, in percent, of a frame that ``evaluate`` returned."""
    return summarize(counts["intersection"], counts["union"])
