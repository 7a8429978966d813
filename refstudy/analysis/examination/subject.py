"""The subject of an examination: a fusion module, decoder or whole model, made at any size, with drawn inputs."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm
from transformers import set_seed

from refstudy.base.config import ImageEncoderConfig, ModelConfig, PartConfig
from refstudy.base.errors import StudyError
from refstudy.models.build import STRIDE, build_model, build_part, part_class
from refstudy.models.encoders import ImageEncoder
from refstudy.models.fusion.tile_concat import TileConcat
from refstudy.models.layers import mean_word, of_each
from refstudy.models.own_parts import is_own, place_of, source_of
from refstudy.models.segmenter import Segmenter
from refstudy.study.file import Study, StudyFile, Variant
from refstudy.study.parts import ARGUMENTS, PROFILES, named_part

KINDS = {"fusion": "fusion module", "decoder": "decoder", "whole": "whole model"}  # ours -> as a message says it
COUNTS = (4, 9, 20, 13)  # words of the expressions
IMAGE_OF = (0, 1, 1, 2)  # of each expression


@dataclass(frozen=True)
class Inputs:
    """The inputs of a part: ``pictures`` (B, ...) of each image, ``language`` (E, ...) of each expression, by name; the
    bool mask (E, L), and the image of each expression (E,)."""

    pictures: dict[str, Tensor]
    language: dict[str, Tensor]
    mask: Tensor
    image_index: Tensor

    @property
    def floats(self) -> dict[str, Tensor]:
        """Those that a gradient reaches."""
        return {name: x for name, x in (self.pictures | self.language).items() if x.is_floating_point()}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """The same with every tensor changed."""
        changed = [{name: change(x) for name, x in group.items()} for group in (self.pictures, self.language)]
        return Inputs(changed[0], changed[1], change(self.mask), change(self.image_index))

    def of(self, chosen: list[int]) -> "Inputs":
        """These expressions, each with its own copy of its image."""
        pictures = {name: x[self.image_index[chosen]] for name, x in self.pictures.items()}
        language = {name: x[chosen] for name, x in self.language.items()}
        return Inputs(pictures, language, self.mask[chosen], torch.arange(len(chosen)))


@dataclass(frozen=True)
class Subject:
    """A part named as in a study file, examined at the size of a ``profile``. ``kind``: fusion, decoder or whole."""

    study: Study
    part: PartConfig
    kind: str
    profile: str

    @property
    def source(self) -> Path | None:
        """The file of a new class; None for a part of the study."""
        return source_of(self.part.name, self.part.source) if is_own(self.part.name) else None

    def config(self) -> ModelConfig:
        """The settings of the model it stands in: a fusion module before an FPN, a decoder behind Tile & Concat."""
        others = {"fusion": {"decoder": PartConfig(name="fpn")}, "decoder": {"fusion": PartConfig(name="tile_concat")}}
        variant = Variant(label=self.part.name, **others.get(self.kind, {}), **{self.kind: self.part})
        content = StudyFile(variants={"examined": variant}, profiles=self.study.profiles, runs={})
        study = Study(self.study.path, content, self.study.root)
        return study.run_config(self.profile, "examined", 0).model.from_scratch()

    def make(self, size: tuple[int, int] | None = None, seed: int = 0) -> nn.Module:
        """The module with random weights, for pictures of ``size`` (H, W), by default the profile's.

        Raises StudyError where its class fails.
        """
        config = self.config()
        height, width = size or (config.image_size, config.image_size)
        channels, text = channels_of(config.image.model_dump_json()), config.text.hidden_size
        set_seed(seed)
        if self.kind == "whole":
            return build_model(config.model_copy(update={"image_size": height}))
        own = getattr(config, self.kind)
        if self.kind == "fusion":
            return build_part("fusion", own, channels[3], text, (-(-height // STRIDE), -(-width // STRIDE)))
        return build_part("decoder", own, channels, text)

    def draw(self, size: tuple[int, int] | None = None, pictures: int = 0, words: int = 0) -> Inputs:
        """Made-up inputs of the size and layout of real ones, by seeds for pictures and words: ``made_up`` maps and
        layer-normed words; for a whole model pictures of unit deviation, and ids of words."""
        config = self.config()
        random, spoken = (torch.Generator().manual_seed(seed) for seed in (pictures, 1000 + words))
        height, width = size or (config.image_size, config.image_size)
        images, longest = max(IMAGE_OF) + 1, config.max_words
        mask = torch.arange(longest) < torch.tensor(COUNTS)[:, None].clamp(max=longest)
        index = torch.tensor(IMAGE_OF)
        if self.kind == "whole":
            drawn = torch.randn(images, 3, height, width, generator=random)
            ids = torch.randint(5, config.text.vocab_size, mask.shape, generator=spoken)
            return Inputs({"picture": drawn.to(memory_format=torch.channels_last)}, {"words": ids}, mask, index)
        maps = made_up_maps(images, channels_of(config.image.model_dump_json()), height, width, pictures)
        text = normed(torch.randn(*mask.shape, config.text.hidden_size, generator=spoken))
        if self.kind == "fusion":
            return Inputs({"V_4": maps[3]}, {"words": text}, mask, index)
        finer = dict(zip(("V_1", "V_2", "V_3"), maps, strict=False))
        return Inputs(finer, self._fused(maps[3], text, mask, index), mask, index)

    @torch.no_grad()
    def _fused(self, deepest: Tensor, words: Tensor, mask: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The fused map of Tile & Concat and the mean word, which a decoder gets."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            fusion = TileConcat(deepest.shape[1], words.shape[2], (deepest.shape[2], deepest.shape[3]))
        return {"fused": fusion(of_each(deepest, index), words, mask), "sentence": mean_word(words, mask)}

    def arguments(self, inputs: Inputs) -> tuple:
        """The arguments of the module, as a model of the study gives them."""
        language = inputs.language.values()
        if self.kind == "fusion":
            return of_each(inputs.pictures["V_4"], inputs.image_index), *language, inputs.mask
        if self.kind == "decoder":
            return tuple(inputs.pictures.values()), *language, inputs.image_index
        return *inputs.pictures.values(), *language, inputs.mask, inputs.image_index

    def run(self, module: nn.Module, inputs: Inputs, seed: int = 0) -> Tensor:
        """The output: a fused map (E, C, H, W), mask logits (E, 1, h, w) of a decoder, or (E, H, W) of a whole model.
        It is computed from copies of the inputs, and all random generators start from ``seed``. Raises StudyError, in
        one line with the place in the class's file, where it fails."""
        set_seed(seed)
        try:
            return module(*self.arguments(inputs.map(torch.clone)))
        except Exception as error:  # any error of that code
            memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
            reason = "too much memory; make it narrower, or choose a smaller --size" if memory else str(error)[:300]
            place = place_of(error, self.source) if self.source else self.part.name
            raise StudyError(f"{place} fails: {type(error).__name__}: {' '.join(reason.split())}") from error

    def right_shape(self, inputs: Inputs, output: Any) -> str:
        """The shape that the output should have had, where it has another; empty where it is right."""
        E, (_, C, H, W) = len(inputs.mask), next(iter(inputs.pictures.values())).shape
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        allowed: list[tuple] = [(E, C, H, W) if self.kind == "fusion" else (E, H, W)]
        if self.kind == "decoder":  # the study's own may predict from coarser maps
            allowed = [(E, 1, -(-H // scale), -(-W // scale)) for scale in (1, 2, 4, 8)]
        return "" if shape in allowed else f"gives {shape} in place of {allowed[0]}"


@lru_cache(maxsize=8)
def made_up_maps(count: int, channels: tuple[int, ...], height: int, width: int, seed: int) -> list[Tensor]:
    """V_1 ... V_4 of made-up pictures of this size; kept, so whoever changes one has to copy it."""
    random = torch.Generator().manual_seed(seed)
    strides = zip(channels, (4, 8, 16, 32), strict=True)
    return [made_up(count, C, -(-height // stride), -(-width // stride), random) for C, stride in strides]


def made_up(count: int, channels: int, height: int, width: int, random: torch.Generator) -> Tensor:
    """Maps (count, C, H, W), a channels-last view: a vector for the picture, smooth noise and noise of each cell, of
    equal size, then normed. Cells of one picture resemble each other; without that, means over cells would vanish."""
    levels = [torch.randn(count, channels, *size, generator=random) for size in ((1, 1), (4, 4), (height, width))]
    total = torch.stack([interpolate(x, size=(height, width), mode="bilinear") for x in levels]).sum(0)
    return normed(total.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def normed(vectors: Tensor) -> Tensor:
    """Vectors (..., C) to mean 0 and variance 1, as the encoders' last norms leave them."""
    return layer_norm(vectors, vectors.shape[-1:])


@cache
def channels_of(image: str) -> tuple[int, ...]:
    """The channels of V_1 ... V_4 of an image encoder with these settings, as JSON."""
    with torch.device("meta"):
        return tuple(ImageEncoder(ImageEncoderConfig.model_validate_json(image), 8 * STRIDE).channels)


def find(
    name: str, study: Study, kind: str = "", options: dict[str, Any] | None = None, size: str = "scenes"
) -> Subject:
    """The part of this name: one of the study's, or a class ``file.py:Class`` or ``module:Class`` (a path starts here).

    ``kind`` is needed where the class does not tell it; ``size`` is one of ``PROFILES``. Raises StudyError for an
    unknown name, kind or size, and for a class that does not load.
    """
    part, kind = named_part(name, kind, options, size)
    return Subject(study, part, kind or _kind(name, part_class("fusion", part)), PROFILES[size])


def _kind(name: str, own: type[nn.Module]) -> str:
    """The kind of a class, by the number of arguments that its ``forward`` needs."""
    if issubclass(own, Segmenter):
        return "whole"
    parameters = list(inspect.signature(own.forward).parameters.values())[1:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if all(one.default is one.empty and one.kind in positional for one in parameters):
        for kind, count in ARGUMENTS.items():
            if len(parameters) == count:
                return kind
    known = "a fusion module takes 3 (vision, words, word_mask), a decoder 4 (maps, fused, sentence, image_index)"
    raise StudyError(f"'{name}': its forward takes {len(parameters)} arguments; {known}; name its kind by --kind")
