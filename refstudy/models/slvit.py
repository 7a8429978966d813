"""SLViT, Scale-Wise Language-Guided Vision Transformer (Ouyang et al., IJCAI 2023)."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from refstudy.base.errors import StudyError
from refstudy.models.decoders.hamburger import Hamburger
from refstudy.models.layers import of_each
from refstudy.models.mscan import MSCAN
from refstudy.models.segmenter import ImageFeatures, Segmenter
from refstudy.models.urce import STAGES, URCE


class Steps(NamedTuple):
    """All that SLViT computes on the way, in the paper's order.

    ``encoded`` F_1 ... F_4; ``scores`` S_1 ... S_4, raw, (E, L, h_i, w_i), a plane for padding words included (None
    without the cross-modal branch); ``uncertainty`` map_U (E, h_4, w_4) and the chosen ``cells`` (E, K), flat indices
    into it, most uncertain first (both None without URCE); ``enhanced`` F~_1 ... F~_4; ``logits`` (E, 1, h, w).
    """

    encoded: tuple[Tensor, ...]
    scores: tuple[Tensor | None, ...]
    uncertainty: Tensor | None
    cells: Tensor | None
    enhanced: tuple[Tensor, ...]
    logits: Tensor


class SLViT(Segmenter):
    """Words take part in every block of the image encoder; URCE refines across its stages; Hamburger decodes.

    Used like ``ReferringSegmenter``, but fusion is early: ``encode_image`` computes the stem's output alone, and the
    rest is computed for every expression.

    ``strips``, ``cross`` and ``gate`` are those of ``LMFA``, ``fresh_strips`` that of ``MSCAN``; ``regions``,
    ``urce_stages``, ``score_source`` and ``urce_skip`` those of ``URCE``, which ``urce`` False leaves out.
    ``predict_stages`` go to the head; those of them that are also in ``raw_stages`` go there as F_i, the others as URCE
    leaves them (Table 2e).

    ``text_encoder`` has a ``width`` D and maps ids (E, L) and bool mask (E, L) to words (E, L, D).
    """

    image_encoder: MSCAN

    def __init__(
        self,
        text_encoder: nn.Module,
        widths: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 3, 12, 3),
        mlp_ratios: Sequence[int] = (8, 8, 4, 4),
        drop_path_rate: float = 0.2,
        strips: Sequence[int] = (7, 11, 21),
        cross: bool = True,
        gate: bool = True,
        fresh_strips: bool = False,
        urce: bool = True,
        regions: int = 32,
        urce_stages: Sequence[int] = STAGES,
        score_source: str = "raw",
        urce_width: int = 256,
        urce_heads: int = 8,
        urce_skip: bool = False,
        predict_stages: Sequence[int] = STAGES,
        raw_stages: Sequence[int] = (),
        ham_width: int = 512,
        ham_rank: int = 64,
    ):
        super().__init__()
        if not predict_stages or sorted(set(predict_stages) & set(STAGES)) != list(predict_stages):
            raise StudyError(f"slvit: predict_stages {list(predict_stages)} must be of {list(STAGES)}, in this order")
        if set(raw_stages) - set(STAGES):
            raise StudyError(f"slvit: raw_stages {list(raw_stages)} must be of {list(STAGES)}")
        if urce and not cross:
            raise StudyError("slvit: urce reads the scores of the cross-modal branch; set cross, or unset urce")
        self.text_encoder = text_encoder
        text_width: int = text_encoder.width  # type: ignore[assignment]
        self.image_encoder = MSCAN(
            text_width, widths, depths, mlp_ratios, drop_path_rate, strips, cross, gate, fresh_strips
        )
        restored = [stage for stage in urce_stages if stage in predict_stages and stage not in raw_stages]
        sizes = (urce_width, urce_heads)
        self.urce = URCE(widths, regions, urce_stages, restored, score_source, *sizes, urce_skip) if urce else None
        self.predict_stages = tuple(predict_stages)
        self.decoder = Hamburger([widths[stage - 1] for stage in predict_stages], ham_width, ham_rank)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, H, W), normalised with ImageNet's mean and deviation, to V_1 of B images."""
        return ImageFeatures((self.image_encoder.embed(images),), (images.shape[-2], images.shape[-1]))

    def steps(
        self, features: ImageFeatures, token_ids: Tensor, token_mask: Tensor, image_index: Tensor | None = None
    ) -> Steps:
        """Everything up to the logits at the head's size; arguments as for ``segment``, which upsamples them."""
        vision = features.maps[0] if image_index is None else of_each(features.maps[0], image_index)
        words = self.text_encoder(token_ids, token_mask)
        encoded, scores = self.image_encoder(vision, words, token_mask)
        enhanced, uncertainty, cells = encoded, None, None
        if self.urce is not None:
            enhanced, uncertainty, cells = self.urce(encoded, scores, token_mask)
        logits = self.decoder([enhanced[stage - 1] for stage in self.predict_stages])
        return Steps(encoded, scores, uncertainty, cells, enhanced, logits)

    def logits(self, features: ImageFeatures, token_ids: Tensor, token_mask: Tensor, image_index: Tensor) -> Tensor:
        return self.steps(features, token_ids, token_mask, image_index).logits
