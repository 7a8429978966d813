"""The two encoders: Swin from timm for the image, BERT from transformers for the expression."""

from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from refstudy.config import ImageEncoderConfig, TextEncoderConfig
from refstudy.errors import StudyError


class ImageEncoder(nn.Module):
    """Swin Transformer; its four stage outputs, each layer-normalised as detectors on Swin do.

    Source: S²RM, Sec. III-A (V_1 ... V_4 at strides 4, 8, 16, 32).
    """

    def __init__(self, config: ImageEncoderConfig, image_size: int):
        super().__init__()
        sizes = {
            key: value
            for key in ("embed_dim", "depths", "num_heads", "window_size")
            if (value := getattr(config, key)) is not None
        }
        try:
            backbone: Any = timm.create_model(
                config.name,
                pretrained=config.pretrained,
                features_only=True,
                img_size=image_size,
                strict_img_size=False,
                drop_path_rate=config.drop_path_rate,
                **sizes,
            )
        except (RuntimeError, OSError, TypeError, AssertionError) as error:
            remedy = "name a Swin that timm knows, with sizes that fit together"
            if config.pretrained:
                remedy += "; for its weights go online once, or name 'local-dir:FOLDER' with config.json and weights"
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise StudyError(f"image encoder '{config.name}': {reason}; {remedy}") from error
        self.backbone: nn.Module = backbone
        self.channels: list[int] = backbone.feature_info.channels()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to V_1 ... V_4, each (B, C_i, H / 2^(i+1), W / 2^(i+1))."""
        stages = zip(self.norms, self.backbone(images), strict=True)
        return tuple(norm(stage).permute(0, 3, 1, 2) for norm, stage in stages)  # a channels-last view


class TextEncoder(nn.Module):
    """BERT; one vector per word piece. Source: S²RM, Sec. III-A."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        if config.pretrained:
            try:
                self.bert = BertModel.from_pretrained(config.name, add_pooling_layer=False)
            except OSError as error:
                where = (
                    "the folder lacks config.json or model.safetensors" if Path(config.name).is_dir() else "not found"
                )
                raise StudyError(
                    f"text encoder '{config.name}': {where}; name a folder with both files, or go online once"
                ) from error
        else:
            settings = BertConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.intermediate_size,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
            )
            self.bert = BertModel(settings, add_pooling_layer=False)
        self.width: int = self.bert.config.hidden_size

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Ids (E, L) and bool mask (E, L) to words (E, L, D)."""
        # As an attention mask of its own shape it is used as it is; a mask (E, L) would be read back from the device
        # at every call, to see whether anything is masked at all.
        return self.bert(input_ids=token_ids, attention_mask=token_mask[:, None, None, :]).last_hidden_state
