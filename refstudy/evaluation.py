"""Evaluation and prediction: one encoding per image, all of its expressions at once."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertTokenizerFast

from refstudy.data.batches import Batch, Corpus, evaluation_batches, normalise
from refstudy.data.masks import encode_mask
from refstudy.data.words import tokenize
from refstudy.metrics import summarize

ABOUT = ["sent_id", "ref_id", "image_id", "split", "words", "kind"]


@torch.inference_mode()
def predicted_masks(model: nn.Module, corpus: Corpus, images_per_batch: int = 16) -> Iterator[tuple[Batch, Tensor]]:
    """Batch by batch of the corpus, on the model's device: the batch and its predicted masks, bool (N, S, S).

    A pixel belongs to the prediction when its probability exceeds 0.5.
    """
    model.eval()
    device = next(model.parameters()).device
    for batch in evaluation_batches(corpus, images_per_batch):
        batch = batch.to(device)
        yield batch, model(batch.images, batch.token_ids, batch.token_mask, batch.image_index) > 0


def evaluate(model: nn.Module, corpus: Corpus, images_per_batch: int = 16, progress: bool = False) -> pd.DataFrame:
    """Pixel counts per expression: the columns ``ABOUT``, intersection and union (integers), in the corpus' order.

    Counts are made at the resized resolution S x S against the resized mask, as LAVT does.
    """
    inter = np.zeros(len(corpus.table), np.int64)
    union = np.zeros(len(corpus.table), np.int64)
    with tqdm(total=len(corpus.table), desc="evaluating", unit="pair", disable=not progress) as bar:
        for batch, predicted in predicted_masks(model, corpus, images_per_batch):
            truth = batch.masks > 0
            inter[batch.expressions] = (predicted & truth).sum((1, 2)).cpu().numpy()
            union[batch.expressions] = (predicted | truth).sum((1, 2)).cpu().numpy()
            bar.update(len(batch.expressions))
    return corpus.table[ABOUT].assign(intersection=inter, union=union)


def sample_masks(model: nn.Module, corpus: Corpus, images: int) -> dict[int, dict[str, Any]]:
    """The predicted masks of all expressions about the first ``images`` images, to be shown: sent_id -> RLE."""
    sample = corpus.subset(images)
    sentences = sample.table["sent_id"].to_numpy()
    return {
        int(sentences[expression]): encode_mask(mask)
        for batch, predicted in predicted_masks(model, sample)
        for expression, mask in zip(batch.expressions, predicted.cpu().numpy(), strict=True)
    }


def whole_image_counts(corpus: Corpus) -> pd.DataFrame:
    """The counts of a model that predicts every pixel: the floor that any model has to pass."""
    area = corpus.mask(np.arange(len(corpus.image_of_ref))).sum((1, 2))[corpus.ref_of_expression]
    return corpus.table[ABOUT].assign(intersection=area, union=corpus.image_size**2)


def summarize_counts(counts: pd.DataFrame) -> dict[str, float]:
    """All metrics, in percent, of a frame that ``evaluate`` returned."""
    return summarize(counts["intersection"], counts["union"])


@torch.inference_mode()
def predict(
    model: nn.Module, image: np.ndarray, expressions: Sequence[str], tokenizer: BertTokenizerFast, max_words: int = 20
) -> np.ndarray:
    """Mask probabilities float32 (E, S, S) for expressions about one uint8 image (S, S, 3), encoded once."""
    model.eval()
    device = next(model.parameters()).device
    ids, mask = (torch.from_numpy(array).to(device) for array in tokenize(tokenizer, expressions, max_words))
    pixels = torch.tensor(image.transpose(2, 0, 1), device=device)[None]
    features = model.encode_image(normalise(pixels))
    index = torch.zeros(len(ids), dtype=torch.long, device=device)
    return model.segment(features, ids, mask, index).sigmoid().float().cpu().numpy()
