"""Build a model from its settings, save and load it; the only place where parts are chosen."""

import inspect
import json
import sys
import tempfile
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, cast, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn
from transformers import BertTokenizerFast

from refstudy.base.config import ImageEncoderConfig, ModelConfig, PartConfig, TextEncoderConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write, exists, note
from refstudy.data.words import build_tokenizer
from refstudy.models.decoders.casg import CASG
from refstudy.models.decoders.fpn import FPN
from refstudy.models.encoders import ImageEncoder, TextEncoder
from refstudy.models.fusion.acm import ACM
from refstudy.models.fusion.pwam import PWAMFusion
from refstudy.models.fusion.s2rm import S2RM
from refstudy.models.fusion.tile_concat import TileConcat
from refstudy.models.lavt import LAVT
from refstudy.models.mscan import load_mscan_file
from refstudy.models.own_parts import is_own, place_of, source_of
from refstudy.models.saved import UNREADABLE, not_ours, saved_settings, shipped_weights
from refstudy.models.segmenter import ReferringSegmenter, Segmenter
from refstudy.models.slvit import SLViT

# Every import stands written out: what a notebook depends on is read from the imports.
FUSIONS: dict[str, type[nn.Module]] = {"s2rm": S2RM, "tile_concat": TileConcat, "acm": ACM, "pwam": PWAMFusion}
DECODERS: dict[str, type[nn.Module]] = {"fpn": FPN, "casg": CASG}
WHOLE: dict[str, type[nn.Module]] = {"lavt": LAVT, "slvit": SLViT}
KINDS = {"fusion": FUSIONS, "decoder": DECODERS, "whole model": WHOLE}
STRIDE = 32
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def build_model(
    config: ModelConfig,
    image_encoder_of: Callable[[ImageEncoderConfig, int], ImageEncoder] = ImageEncoder,
    text_encoder_of: Callable[[TextEncoderConfig], TextEncoder] = TextEncoder,
) -> Segmenter:
    """The model that ``config`` describes. Encoders are built first: with one seed, they start equal in every variant
    of late fusion and in LAVT; SLViT builds its own. The two functions make the encoders.

    SLViT has one option more than its class, ``pretrained``: the file of MSCAN weights that its trunk starts from, or a
    folder that holds it. Raises StudyError for an unknown part or option, and for pretrained weights that are missing
    or do not fit.
    """
    scratch = config.from_scratch()
    if config.whole is not None and config.whole.name == "slvit":  # its image encoder is its own
        text_encoder = text_encoder_of(config.text)
        model = build_part("whole model", cast(PartConfig, scratch.whole), text_encoder)
        if "pretrained" in config.whole.options:
            file = config.whole.options["pretrained"]
            if not isinstance(file, str):
                raise StudyError(f"whole model 'slvit': option pretrained is {file!r}; name a file or a folder")
            load_mscan_file(model.image_encoder, file)
        image = ImageEncoderConfig()  # unused
    else:
        image_encoder = image_encoder_of(config.image, config.image_size)
        text_encoder = text_encoder_of(config.text)
        image = image_encoder.config
        if config.whole is not None:
            model = build_part("whole model", config.whole, image_encoder, text_encoder)
        else:
            channels, width = image_encoder.channels, text_encoder.width
            side = -(-config.image_size // STRIDE)
            fusion = build_part("fusion", config.fusion, channels[3], width, (side, side))
            decoder = build_part("decoder", config.decoder, channels, width)
            model = ReferringSegmenter(image_encoder, text_encoder, fusion, decoder)
    model.config = scratch.model_copy(update={"image": image, "text": text_encoder.config})
    model.tokenizer = build_tokenizer(config.text.vocabulary)
    return model


def mask_stride(config: ModelConfig) -> int:
    """Pixels a side of one cell of the map on which a model draws its mask, before that map is upsampled."""
    if config.whole is not None:
        finest = min(config.whole.options.get("predict_stages", [1])) if config.whole.name == "slvit" else 1
        return 2 ** (finest + 1)
    stages = config.decoder.options.get("stages", 3) if config.decoder.name == "casg" else 3
    return STRIDE >> stages


def _own_class(config: PartConfig) -> type[nn.Module]:
    """Your own class that a study file has named. Raises StudyError where its code fails or it is no module."""
    path, name = source_of(config.name, config.source), config.name.rpartition(":")[2]
    module_name = f"refstudy_own_{path.stem}_{config.source[:12]}"  # an edited file is another module
    module = sys.modules.get(module_name)
    if module is None:
        spec = cast(ModuleSpec, spec_from_file_location(module_name, path))
        module = sys.modules[module_name] = module_from_spec(spec)
        try:
            cast(Loader, spec.loader).exec_module(module)
        except Exception as error:  # any error of that code
            del sys.modules[module_name]
            place = place_of(error, path)
            raise StudyError(f"'{config.name}': {place} fails: {type(error).__name__}: {error}") from error
    found = getattr(module, name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise StudyError(f"'{config.name}': is no torch.nn.Module; derive it from one")
    return found


def part_class(kind: str, config: PartConfig) -> type[nn.Module]:
    """The class of a part, of ``KINDS`` or of your own. Raises StudyError where there is none, or its code fails."""
    if not is_own(config.name) and config.name not in KINDS[kind]:
        raise StudyError(f"unknown {kind} '{config.name}'; known: {', '.join(sorted(KINDS[kind]))}")
    return _own_class(config) if is_own(config.name) else KINDS[kind][config.name]


def build_part(kind: str, config: PartConfig, *sizes) -> Any:
    """One part of a model, with what its class takes before its options (``refstudy.models.interfaces``).

    Raises StudyError for an unknown part or option, and where the class refuses what it is given.
    """
    part, about = part_class(kind, config), f"{kind} '{config.name}'"
    options = list(inspect.signature(part).parameters)[len(sizes) :]
    if unknown := sorted(set(config.options) - set(options)):
        raise StudyError(f"{about}: unknown option '{unknown[0]}'; known: {', '.join(options) or 'none'}")
    kinds = get_type_hints(part.__init__)
    for name, value in config.options.items():
        try:
            # strictly, since the text "false" is true; as JSON, since a study file has lists for tuples
            TypeAdapter(kinds.get(name, Any)).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            raise StudyError(f"{about}: option {name} is {value!r}; {error.errors()[0]['msg']}") from None
    try:
        return part(*sizes, **config.options)
    except StudyError:
        raise
    except Exception as error:  # options of the wrong kind or size, or any error of a class of your own
        if is_own(config.name):
            place = place_of(error, source_of(config.name, config.source))
            raise StudyError(f"{about}: {place} fails: {type(error).__name__}: {error}") from error
        if not isinstance(error, TypeError | ValueError | RuntimeError | ArithmeticError):
            raise
        raise StudyError(f"{about}, options {config.options}: {error}") from error


def save_weights(model: Segmenter, path: Path | str) -> None:
    """Write the whole model as one safetensors file.

    The metadata hold what ``save_pretrained`` writes next to the weights, the settings and the tokenizer's files, as
    one text: safetensors writes several in no fixed order, and equal models should be equal files.
    """
    tensors = {name: x.detach().cpu().contiguous() for name, x in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        model.tokenizer.save_pretrained(folder)
        about = {name: (Path(folder) / name).read_text(encoding="utf-8") for name in TOKENIZER_FILES}
    saved = json.dumps({"model": model.config.model_dump_json()} | about, sort_keys=True)
    _write(path, tensors, {"saved": saved})


def halve_weights(source: Path | str, path: Path | str) -> None:
    """Write a file of ``save_weights`` once more, with its tensors as ``halved`` makes them."""
    with safe_open(source, framework="pt") as file:
        about = file.metadata()
    _write(path, {name: halved(tensor) for name, tensor in load_file(source).items()}, about)


def _write(path: Path | str, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, about))  # ``save_file`` makes it readable to its owner only


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in fp16, unless it holds no floats or some beyond fp16's range (variances of batch normalisation)."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if half.isfinite().all() else tensor


def load_model(path: Path | str | None = None) -> Segmenter:
    """The model of a file that ``save_weights`` wrote, or of a folder that ``save_pretrained`` made; without a path,
    that of ``shipped_weights``.

    It is in float32 and evaluation mode. A file without a tokenizer has the words of RefScenes.

    Raises StudyError when it is missing, broken, not one of ours, or does not fit its own settings.
    """
    path = Path(path or shipped_weights())
    config, about = saved_settings(path)
    try:
        tensors = load_file(path / "model.safetensors" if path.is_dir() else path)
        tokenizer = build_tokenizer(path) if path.is_dir() else _unpacked_tokenizer(about)
    except UNREADABLE as error:
        raise not_ours(path, error) from error
    note("read", path)
    model = build_model(config.from_scratch())
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise StudyError(f"{path}: tensors and settings do not belong together; train or fetch it again") from error
    model.tokenizer = tokenizer
    return model.eval()


def load_or_build(path: Path | str, config: ModelConfig) -> tuple[Segmenter, bool]:
    """The model of a weights file, as ``load_model``, and True; where there is no such file an untrained one of these
    settings, from seed 0, and False."""
    if exists(path):
        return load_model(path), True
    torch.manual_seed(0)
    return build_model(config.from_scratch()).eval(), False


def _unpacked_tokenizer(about: dict[str, str]) -> BertTokenizerFast:
    if TOKENIZER_FILES[0] not in about:
        return build_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        for name in TOKENIZER_FILES:
            (Path(folder) / name).write_text(about[name], encoding="utf-8")
        return build_tokenizer(folder)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def default_device() -> torch.device:
    """The GPU when there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
