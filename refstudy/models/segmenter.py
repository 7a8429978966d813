"""The base class of all models, and the model with late fusion that S²RM and its ablations are."""

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import BertTokenizerFast

from refstudy.base.config import ModelConfig
from refstudy.base.errors import StudyError
from refstudy.models.layers import mean_word, of_each


class ImageFeatures(NamedTuple):
    """The output of ``encode_image`` for B images: feature ``maps`` and the ``size`` (H, W) of the images."""

    maps: tuple[Tensor, ...]
    size: tuple[int, int]

    def of(self, images: slice) -> "ImageFeatures":
        """The features of some of the images."""
        return ImageFeatures(tuple(features[images] for features in self.maps), self.size)


class Segmenter(nn.Module, PyTorchModelHubMixin, library_name="refstudy", license="apache-2.0"):
    """A referring segmenter: images and expressions to mask logits, in two halves.

    ``encode_image`` computes what depends on the images alone, ``segment`` the rest, for any number of expressions. A
    model defines ``encode_image`` and ``logits``.

    ``build_model`` sets ``config``, which builds the model without any pretrained file, and ``tokenizer``, which makes
    its ids. ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` are those of Hugging Face.
    """

    config: ModelConfig
    tokenizer: BertTokenizerFast
    image_encoder: nn.Module
    text_encoder: nn.Module
    align_corners = False  # when logits are upsampled to the size of the images

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, H, W), normalised with ImageNet's mean and deviation, to the features of B images."""
        raise NotImplementedError

    def logits(self, features: ImageFeatures, token_ids: Tensor, token_mask: Tensor, image_index: Tensor) -> Tensor:
        """Mask logits (E, 1, h, w) at the decoder's size; arguments as for ``segment``."""
        raise NotImplementedError

    def segment(
        self, features: ImageFeatures, token_ids: Tensor, token_mask: Tensor, image_index: Tensor | None = None
    ) -> Tensor:
        """Mask logits (E, H, W) for E expressions: ids (E, L), bool mask (E, L).

        ``image_index`` (E,) names the image of each expression; without it, expression k belongs to image k.
        """
        if image_index is None:
            image_index = torch.arange(len(token_ids), device=token_ids.device)
        logits = self.logits(features, token_ids, token_mask, image_index)
        return interpolate(logits, size=features.size, mode="bilinear", align_corners=self.align_corners).squeeze(1)

    def forward(
        self, images: Tensor, token_ids: Tensor, token_mask: Tensor, image_index: Tensor | None = None
    ) -> Tensor:
        """Images (B, 3, H, W) and expressions to mask logits (E, H, W), as in ``segment``."""
        return self.segment(self.encode_image(images), token_ids, token_mask, image_index)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the files of ``save_pretrained``: model.safetensors, config.json and the tokenizer's two files."""
        super()._save_pretrained(save_directory)
        (save_directory / "config.json").write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Path | str, **options: Any) -> Self:
        """The model of a folder that ``save_pretrained`` made, or of a name on the hub, in evaluation mode.

        ``options`` are those of ``huggingface_hub.snapshot_download`` (revision, cache_dir, token, ...). Nothing that
        was downloaded is executed. Raises StudyError when nothing is there, or no model of this class.
        """
        load_model = import_module("refstudy.models.build").load_model  # late: that module builds on this one
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            try:
                name = str(pretrained_model_name_or_path)
                folder = Path(snapshot_download(name, allow_patterns=["*.json", "model.safetensors"], **options))
            except (OSError, ValueError) as error:  # no such model, no network, no possible name
                where = f"no such folder, and not found on the hub ({type(error).__name__})"
                remedy = "name a folder that save_pretrained made, or go online once"
                raise StudyError(f"{pretrained_model_name_or_path}: {where}; {remedy}") from error
        model = load_model(folder)
        if not isinstance(model, cls):
            raise StudyError(f"{folder}: is a {type(model).__name__}; use {type(model).__name__}.from_pretrained")
        return model


class ReferringSegmenter(Segmenter):
    """Image encoder, text encoder, a fusion module on the deepest map, and a decoder. Source: S²RM, Fig. 1.

    ``encode_image`` keeps V_1 ... V_4.
    """

    def __init__(self, image_encoder: nn.Module, text_encoder: nn.Module, fusion: nn.Module, decoder: nn.Module):
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.fusion, self.decoder = fusion, decoder

    def encode_image(self, images: Tensor) -> ImageFeatures:
        return ImageFeatures(self.image_encoder(images), (images.shape[-2], images.shape[-1]))

    def logits(self, features: ImageFeatures, token_ids: Tensor, token_mask: Tensor, image_index: Tensor) -> Tensor:
        words = self.text_encoder(token_ids, token_mask)
        fused = self.fusion(of_each(features.maps[3], image_index), words, token_mask)
        return self.decoder(features.maps[:3], fused, mean_word(words, token_mask), image_index)
