"""The two encoders: Swin from timm for the image, BERT from transformers for the expression."""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import BertConfig, BertModel

from refstudy.base.config import BERT_NAMES, SWIN_NAMES, ImageEncoderConfig, TextEncoderConfig
from refstudy.base.errors import StudyError


class PaddedBlock(SwinTransformerBlock):
    """timm's block for maps whose sides are no multiple of the window: padded first, then shifted.

    timm shifts first and pads the shifted map, while its mask is that of a map padded first: cells of opposite borders
    then attend to one another (docs/swin_padding.md). Swin for dense tasks and LAVT pad first. Where the sides are
    multiples, both are one function. Source: Liu et al., Swin Transformer (ICCV 2021), Sec. 3.2 and their public code
    for detection.
    """

    def _attn(self, x: Tensor) -> Tensor:
        """Windowed attention: (B, H, W, C) to the same."""
        height, width = x.shape[1:3]
        lower, right = (-side % window for side, window in zip((height, width), self.window_size, strict=True))
        if not (lower or right):
            return super()._attn(x)
        return super()._attn(pad(x, (0, 0, 0, right, 0, lower)))[:, :height, :width]


class ImageEncoder(nn.Module):
    """Swin Transformer; its four stage outputs, each layer-normalised as detectors on Swin do.

    ``config`` becomes the settings that build the same encoder from scratch, wherever its weights came from.

    Source: S²RM, Sec. III-A (V_1 ... V_4 at strides 4, 8, 16, 32).
    """

    def __init__(self, config: ImageEncoderConfig, image_size: int):
        super().__init__()
        sizes: dict[str, Any] = {key: value for key in SWIN_NAMES if (value := getattr(config, key)) is not None}
        try:
            how = sizes | {"features_only": True, "img_size": image_size, "strict_img_size": False}
            how |= {"pretrained": config.pretrained, "drop_path_rate": config.drop_path_rate}
            backbone: Any = timm.create_model(config.name, **how)
        except (RuntimeError, OSError, TypeError, AssertionError, ValueError, KeyError, SafetensorError) as error:
            remedy = "name a Swin that timm knows, with sizes that fit together"
            if config.pretrained:
                name = "NAME" if ":" in config.name else config.name
                folder = f"download config.json and model.safetensors from huggingface.co/timm/{name} into a folder"
                remedy += f"; for its weights go online once, or {folder} and name it 'local-dir:FOLDER'"
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise StudyError(f"image encoder '{config.name}': {reason}; {remedy}") from error
        for module in backbone.modules():
            if isinstance(module, SwinTransformerBlock):
                module.__class__ = PaddedBlock  # the same weights under the same names
            if isinstance(module, WindowAttention):
                module.fused_attn = torch.cuda.is_available()  # type: ignore[misc]  # on a CPU it is the slower form
        self.backbone: nn.Module = backbone
        self.channels: list[int] = backbone.feature_info.channels()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)
        if ":" in config.name:  # a folder or a hub name, which brings sizes of its own
            stages = [module for name, module in backbone.named_children() if name.startswith("layers_")]
            depths = tuple(len(stage.blocks) for stage in stages)
            heads = tuple(stage.blocks[0].attn.num_heads for stage in stages)
            window = stages[0].blocks[0].attn.window_size[0]
            sizes = {"embed_dim": self.channels[0], "depths": depths, "num_heads": heads, "window_size": window}
        known = {"name": backbone.pretrained_cfg["architecture"], "pretrained": False, "weights": ""}
        self.config = config.model_copy(update=sizes | known)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to V_1 ... V_4, each (B, C_i, H / 2^(i+1), W / 2^(i+1))."""
        stages = zip(self.norms, self.backbone(images), strict=True)
        return tuple(norm(stage).permute(0, 3, 1, 2) for norm, stage in stages)  # a channels-last view


# This form of attention takes ``TextEncoder``'s bool mask as it is. The "eager" form would add it to the scores, and
# words would attend to padding.
ATTENTION = {"attn_implementation": "sdpa"}


class TextEncoder(nn.Module):
    """BERT; one vector per word piece. Source: S²RM, Sec. III-A.

    ``config`` becomes the settings that build the same encoder from scratch, wherever its weights came from.
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        if config.pretrained:
            self.bert = _pretrained_bert(config.name)
        else:
            named = {theirs: getattr(config, ours) for ours, theirs in BERT_NAMES.items()}
            try:
                settings = BertConfig(**named, attention_probs_dropout_prob=config.dropout, **ATTENTION)
                self.bert = BertModel(settings, add_pooling_layer=False)
            except (ValueError, RuntimeError, ArithmeticError) as error:
                raise StudyError(f"text encoder: {error}; give it sizes that fit together") from error
        made = self.bert.config
        self.width: int = made.hidden_size
        self.config = TextEncoderConfig(**{ours: getattr(made, theirs) for ours, theirs in BERT_NAMES.items()})

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Ids (E, L) and bool mask (E, L) to words (E, L, D)."""
        # transformers takes a four-dimensional mask as it is. A mask (E, L) it would read back from the device at every
        # call, to see if anything is masked.
        return self.bert(input_ids=token_ids, attention_mask=token_mask[:, None, None, :]).last_hidden_state


class _Words(BertModel):
    """BERT as ``TextEncoder`` reads it: that its file also has a pooler, and the heads of its pretraining, is expected
    and not reported."""

    _keys_to_ignore_on_load_unexpected = [r"(^|\.)pooler\.", r"(^|\.)cls\."]


def _pretrained_bert(name: str) -> BertModel:
    """The BERT of a folder or a hub name. Raises StudyError when it is missing, incomplete or no plain BERT."""
    files = "config.json, model.safetensors and vocab.txt, as huggingface.co has them for google-bert/bert-base-uncased"
    remedy = f"name a folder with {files}, or go online once"
    try:
        # without it, the model would have the dtype of the file, and be trained in it
        options = {"add_pooling_layer": False, "output_loading_info": True, "dtype": torch.float32, **ATTENTION}
        bert, loaded = _Words.from_pretrained(name, **options)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        where = "the folder lacks config.json or model.safetensors" if Path(name).is_dir() else "not found"
        if not isinstance(error, OSError):
            where = f"unusable weights ({str(error).splitlines()[0]})"
        raise StudyError(f"text encoder '{name}': {where}; {remedy}") from error
    if loaded["missing_keys"]:
        raise StudyError(f"text encoder '{name}': its weights lack '{min(loaded['missing_keys'])}'; {remedy}")
    plain = BertConfig()
    for key in ("hidden_act", "layer_norm_eps", "max_position_embeddings", "type_vocab_size"):
        if getattr(bert.config, key) != getattr(plain, key):
            raise StudyError(f"text encoder '{name}': {key} is not {getattr(plain, key)}, as in BERT; {remedy}")
    return bert
