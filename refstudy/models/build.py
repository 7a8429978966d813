"""From settings to model: the only place where parts are chosen and put together."""

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from refstudy.config import ModelConfig, PartConfig
from refstudy.errors import StudyError
from refstudy.files import atomic_write
from refstudy.models.decoders.casg import CASG
from refstudy.models.decoders.fpn import FPN
from refstudy.models.encoders import ImageEncoder, TextEncoder
from refstudy.models.fusion.acm import ACM
from refstudy.models.fusion.pwam import PWAMFusion
from refstudy.models.fusion.s2rm import S2RM
from refstudy.models.fusion.tile_concat import TileConcat
from refstudy.models.lavt import LAVT
from refstudy.models.segmenter import ReferringSegmenter, Segmenter
from refstudy.models.slvit import SLViT

FUSIONS: dict[str, type[nn.Module]] = {"s2rm": S2RM, "tile_concat": TileConcat, "acm": ACM, "pwam": PWAMFusion}
DECODERS: dict[str, type[nn.Module]] = {"fpn": FPN, "casg": CASG}
WHOLE: dict[str, type[nn.Module]] = {"lavt": LAVT, "slvit": SLViT}
STRIDE = 32


def build_model(config: ModelConfig) -> Segmenter:
    """The model that ``config`` describes. Encoders are built first: with one seed, they start equal in every variant.

    Raises StudyError for an unknown part or option.
    """
    if config.whole is not None and config.whole.name == "slvit":  # its image encoder is its own
        return _part("whole model", WHOLE, config.whole, TextEncoder(config.text))
    image_encoder = ImageEncoder(config.image, config.image_size)
    text_encoder = TextEncoder(config.text)
    if config.whole is not None:
        return _part("whole model", WHOLE, config.whole, image_encoder, text_encoder)
    channels, width = image_encoder.channels, text_encoder.width
    side = -(-config.image_size // STRIDE)
    fusion = _part("fusion", FUSIONS, config.fusion, channels[3], width, (side, side))
    decoder = _part("decoder", DECODERS, config.decoder, channels, width)
    return ReferringSegmenter(image_encoder, text_encoder, fusion, decoder)


def _part(kind: str, known: dict[str, type[nn.Module]], config: PartConfig, *sizes) -> Any:
    if config.name not in known:
        raise StudyError(f"unknown {kind} '{config.name}'; known: {', '.join(sorted(known))}")
    part = known[config.name]
    options = list(inspect.signature(part).parameters)[len(sizes) :]
    if unknown := sorted(set(config.options) - set(options)):
        raise StudyError(
            f"{kind} '{config.name}': unknown option '{unknown[0]}'; known: {', '.join(options) or 'none'}"
        )
    try:
        return part(*sizes, **config.options)
    except TypeError as error:  # an option of the wrong kind
        raise StudyError(f"{kind} '{config.name}', options {config.options}: {error}") from error


def save_weights(model: nn.Module, config: ModelConfig, path: Path | str, half: bool = False) -> None:
    """Write the weights as safetensors with the settings in the file's metadata; ``half`` stores floats in fp16."""
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"model": json.dumps(config.model_dump(mode="json"), sort_keys=True)})


def load_model(path: Path | str) -> Segmenter:
    """The model saved by ``save_weights``, in float32 and evaluation mode.

    Raises StudyError when the file is missing, broken, not one of ours, or does not fit its own settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = ModelConfig.model_validate_json((file.metadata() or {})["model"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StudyError(
            f"{path}: no model weights of refstudy ({type(error).__name__}); train them or fetch them again"
        ) from error
    image = config.image.model_copy(update={"pretrained": False})
    text = config.text.model_copy(update={"pretrained": False})
    model = build_model(config.model_copy(update={"image": image, "text": text}))
    try:
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except RuntimeError as error:
        raise StudyError(f"{path}: tensors and settings do not belong together; train or fetch it again") from error
    return model.eval()


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def default_device() -> torch.device:
    """The GPU when there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
