"""What S²RM computes between an expression and its mask: word attention, coparsing maps, gates."""

from dataclasses import dataclass

import numpy as np
import torch

from refstudy.data.batches import normalise
from refstudy.data.words import tokenize
from refstudy.errors import StudyError
from refstudy.models.fusion.s2rm import S2RM, coparse
from refstudy.models.segmenter import Segmenter


@dataclass(frozen=True)
class Trace:
    """Of one expression with L word pieces, on the grid (H, W) of V_4: attention (L, H, W), which sums to 1 in every
    cell; column and row map of Eqs. (5)-(8), l2v and without scale, (H*W, H, W); gates of Eq. (9) by group, as in
    "l2v column"."""

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
    tokens = tokenize(model.tokenizer, [expression], model.config.max_words)
    ids, mask = (torch.from_numpy(array) for array in tokens)
    ids, mask = ids[:, : mask.sum()], mask[:, : mask.sum()]
    vision = model.encode_image(normalise(torch.tensor(image.transpose(2, 0, 1))[None])).maps[3]
    language, attention = fusion.distribute(vision, model.text_encoder(ids, mask), mask)
    column, row = coparse(vision, language)
    names = [f"{direction} {kind}" for direction in fusion.directions for kind in ("column", "row")]
    gates = fusion.weights(fusion.coparse(vision, language))[0].tolist()
    return Trace(
        tuple(model.tokenizer.convert_ids_to_tokens(ids[0])),
        attention[0].T.unflatten(1, vision.shape[-2:]).numpy(),
        column[0].numpy(),
        row[0].numpy(),
        dict(zip(names, gates, strict=True)),
    )
