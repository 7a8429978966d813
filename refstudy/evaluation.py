"""Evaluation and prediction: one encoding per image, all of its expressions at once."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm
from transformers import BertTokenizerFast

from refstudy.data.batches import Corpus, evaluation_batches, normalise
from refstudy.data.words import tokenize
from refstudy.metrics import summarize

ABOUT = ["sent_id", "ref_id", "image_id", "split", "words", "kind"]


@torch.inference_mode()
def evaluate(model: nn.Module, corpus: Corpus, images_per_batch: int = 16, progress: bool = False) -> pd.DataFrame:
    """Pixel counts per expression: the columns ``ABOUT``, intersection and union (integers), in the corpus' order.

    A pixel belongs to the prediction when its probability exceeds 0.5. Counts are made at the resized resolution S x S
    against the resized mask, as LAVT does.
    """
    model.eval()
    device = next(model.parameters()).device
    inter = np.zeros(len(corpus.table), np.int64)
    union = np.zeros(len(corpus.table), np.int64)
    with tqdm(total=len(corpus.table), desc="evaluating", unit="pair", disable=not progress) as bar:
        for batch in evaluation_batches(corpus, images_per_batch):
            on_device = batch.to(device)
            logits = model(on_device.images, on_device.token_ids, on_device.token_mask, on_device.image_index)
            predicted, truth = logits > 0, on_device.masks > 0
            inter[batch.expressions] = (predicted & truth).sum((1, 2)).cpu().numpy()
            union[batch.expressions] = (predicted | truth).sum((1, 2)).cpu().numpy()
            bar.update(len(batch.expressions))
    return corpus.table[ABOUT].assign(intersection=inter, union=union)


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
