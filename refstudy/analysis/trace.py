"""The steps of the models between an expression and its mask: S²RM's attention, maps and gates; SLViT's branches,
scores and regions."""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from refstudy.base.errors import StudyError
from refstudy.data.batches import Batch, Corpus, evaluation_batches, fit_image, normalise
from refstudy.data.words import tokenize
from refstudy.models.fusion.lmfa import LMFA
from refstudy.models.fusion.s2rm import S2RM, coparse
from refstudy.models.segmenter import ImageFeatures, Segmenter
from refstudy.models.slvit import SLViT, Steps
from refstudy.models.urce import URCE
from refstudy.training.evaluation import ABOUT


class Trace(NamedTuple):
    """The steps of S²RM for one expression with L word pieces, on the grid (H, W) of V_4: attention (L, H, W), which
    sums to 1 in every cell; column and row map of Eqs. (5)-(8), l2v and without scale, (H*W, H, W); gates of Eq. (9) by
    group, as in "l2v column"."""

    words: tuple[str, ...]
    attention: np.ndarray
    column: np.ndarray
    row: np.ndarray
    gates: dict[str, float]


@torch.inference_mode()
def trace(model: Segmenter, image: np.ndarray, expression: str) -> Trace:
    """The steps for one expression about an image uint8 (S, S, 3), as ``model_view`` makes it.

    Raises StudyError for a model without S²RM.
    """
    fusion = getattr(model, "fusion", None)
    if not isinstance(fusion, S2RM):
        raise StudyError("trace: this model has no S²RM to look into; use one whose fusion is s2rm")
    pixels, ids, mask = inputs(model, image, expression)
    vision = model.encode_image(pixels).maps[3]
    steps = fusion.steps(vision, model.text_encoder(ids, mask), mask)
    column, row = coparse(vision, steps.language)
    return Trace(
        tuple(model.tokenizer.convert_ids_to_tokens(ids[0])),
        steps.attention[0].T.unflatten(1, vision.shape[-2:]).numpy(),
        column[0].numpy(),
        row[0].numpy(),
        dict(zip(fusion.balance.parts, steps.weights[0].tolist(), strict=True)),
    )


def inputs(model: Segmenter, image: np.ndarray, expression: str) -> tuple[Tensor, Tensor, Tensor]:
    """An image uint8 (S, S, 3) and an expression as a model takes them: (1, 3, S, S), and ids and mask (1, L) without
    padding."""
    tokens = tokenize(model.tokenizer, [expression], model.config.max_words)
    ids, mask = (torch.from_numpy(array) for array in tokens)
    pixels = normalise(torch.tensor(image.transpose(2, 0, 1))[None])
    return pixels, ids[:, : mask.sum()], mask[:, : mask.sum()]


@torch.no_grad()
def decoder_maps(model: Segmenter, image: np.ndarray, expression: str) -> list[Tensor]:
    """The maps of the stages, (1, C_i, h_i, w_i), that the decoder of any model gets for one expression about an image
    uint8 (H, W, 3), the fused one in the last place; the image is brought to the model's own size."""
    given: list[tuple] = []
    decoder = cast(nn.Module, model.decoder)
    with decoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs)):
        model(*inputs(model, fit_image(image, model.config.image_size, model.config.keep_aspect), expression))
    maps, *fused = given[0][:2]  # with late fusion, three maps and the fused one
    return [*maps, *fused]


class SLViTTrace(NamedTuple):
    """The steps of SLViT for one expression with L word pieces: the ``words``; what the LMFA of each stage's last block
    was ``given`` (V_i (1, C_i, h_i, w_i), words (1, L, D), mask (1, L)) and ``made`` (the product of Eq. (7), like
    V_i); and, as the model makes them, the stem's output, ``features``, and all that follows, ``steps``."""

    words: tuple[str, ...]
    given: tuple[tuple[Tensor, Tensor, Tensor], ...]
    made: tuple[Tensor, ...]
    features: ImageFeatures
    steps: Steps


@torch.no_grad()
def trace_slvit(model: SLViT, image: np.ndarray, expression: str) -> SLViTTrace:
    """The steps for one expression about an image uint8 (S, S, 3), as ``model_view`` makes it.

    Raises StudyError for another model, and for one without URCE.
    """
    if getattr(model, "urce", None) is None:
        raise StudyError("trace: this model has no URCE to look into; use an slvit that has it")
    pixels, ids, mask = inputs(model, image, expression)
    given, made = [], []

    def keep(lmfa: nn.Module, inputs: tuple[Tensor, Tensor, Tensor], outputs: tuple[Tensor, Tensor]) -> None:
        given.append(inputs)
        made.append(outputs[0])

    hooks = [lmfa.register_forward_hook(keep) for lmfa in last_lmfas(model)]
    features = model.encode_image(pixels)
    steps = model.steps(features, ids, mask)
    for hook in hooks:
        hook.remove()
    words = tuple(model.tokenizer.convert_ids_to_tokens(ids[0]))
    return SLViTTrace(words, tuple(given), tuple(made), features, steps)


def last_lmfas(model: SLViT) -> list[LMFA]:
    """The LMFA of each stage's last block: its scores are those that URCE gets."""
    return [blocks[-1].attention for blocks in model.image_encoder.blocks]  # type: ignore[index]


def lmfa_branches(lmfa: LMFA, vision: Tensor, words: Tensor, word_mask: Tensor) -> dict[str, Tensor]:
    """The outputs of the branches of an LMFA, the terms of Eq. (7), each (E, C, H, W), by name; arguments as for its
    ``forward``."""
    local = lmfa.local(vision)
    strips = {f"1×{size}, {size}×1": pair(local) for size, pair in lmfa.strips.items()}
    cross = {"words": lmfa.cross(vision, words, word_mask)[0]} if lmfa.cross is not None else {}
    return {"5×5": local} | strips | cross


def reach(lmfa: LMFA, given: tuple[Tensor, Tensor, Tensor]) -> dict[str, np.ndarray]:
    """The sources of the response of the middle cell, for each branch of an LMFA and for their sum: the share (H, W) of
    the gradient that each cell of its input has."""
    with torch.enable_grad():
        source = given[0].detach().clone().requires_grad_()
        responses = lmfa_branches(lmfa, source, *given[1:])
        responses["their sum"] = torch.stack(list(responses.values())).sum(0)
        shares = {}
        for name, response in responses.items():
            middle = response[0, :, response.shape[2] // 2, response.shape[3] // 2].sum()
            spread = torch.autograd.grad(middle, source, retain_graph=True)[0][0].abs().sum(0)
            shares[name] = (spread / spread.sum()).numpy()
    return shares


@torch.no_grad()
def loudness(model: SLViT, given: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, np.ndarray]:
    """The root mean square of each branch of the stages' last LMFAs, (4,), as a share of the sum of its stage."""
    stages = [lmfa_branches(lmfa, *its) for lmfa, its in zip(last_lmfas(model), given, strict=True)]
    loud = {name: np.array([its[name].square().mean().sqrt().item() for its in stages]) for name in stages[0]}
    return {name: values / sum(loud.values()) for name, values in loud.items()}


def main_direction(map_: Tensor, mask: np.ndarray) -> Tensor:
    """The unit vector (C,) along which the cells of a map (C, H, W) vary most, pointing to what the cells of a mask,
    bool (S, S), have more of than the others."""
    cells = map_.flatten(1).T - map_.mean((1, 2))
    direction = torch.linalg.svd(cells, full_matrices=False).Vh[0]
    share = adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), (map_.shape[1], map_.shape[2])).flatten()
    return direction * torch.sign(share @ cells @ direction)


@torch.no_grad()
def refined(model: SLViT, steps: Steps, regions: int, size: tuple[int, int]) -> Tensor:
    """Mask logits (E, *size) from the ``steps`` of E expressions if URCE refines the K = ``regions`` most uncertain
    regions, whatever number the model was made for; none with 0."""
    maps = steps.encoded
    if regions:
        urce = copy.copy(cast(URCE, model.urce))  # the same weights
        urce.regions = regions
        maps = urce.enhance(maps, urce.choose(cast(Tensor, steps.uncertainty)))
    logits = model.decoder([maps[stage - 1] for stage in model.predict_stages])
    return interpolate(logits, size=size, mode="bilinear", align_corners=False).squeeze(1)


@torch.no_grad()
def corpus_steps(model: SLViT, corpus: Corpus) -> Iterator[tuple[Batch, Steps]]:
    """Batch by batch of the corpus: the batch, and SLViT's ``Steps`` for its expressions."""
    model.eval()
    for batch in evaluation_batches(corpus, images_per_batch=5):
        yield batch, model.steps(model.encode_image(batch.images), batch.token_ids, batch.token_mask, batch.image_index)


def region_counts(model: SLViT, corpus: Corpus, numbers: Sequence[int]) -> pd.DataFrame:
    """Count as ``evaluate`` does if URCE refines the K most uncertain regions, with a column ``K``: first all
    expressions of the corpus with the first of ``numbers``, then with the next. The encoder runs once for all of
    them."""
    frames: dict[int, list[pd.DataFrame]] = {K: [] for K in numbers}
    for batch, steps in corpus_steps(model, corpus):
        for K, parts in frames.items():
            found, truth = refined(model, steps, K, (corpus.image_size, corpus.image_size)) > 0, batch.inside
            pixels = {"intersection": (found & truth).sum((1, 2)).numpy(), "union": (found | truth).sum((1, 2)).numpy()}
            parts.append(corpus.table.loc[batch.expressions, ABOUT].assign(K=K, **pixels))
    return pd.concat([pd.concat(parts).sort_index() for parts in frames.values()], ignore_index=True)
