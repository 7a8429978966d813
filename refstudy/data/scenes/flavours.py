"""The four flavours of RefScenes (`flavours.yaml`), each made after one benchmark."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from refstudy.base.yaml_files import read_yaml


@dataclass(frozen=True)
class Style:
    """The way in which a flavour speaks. ``kinds``: the weight of each kind of expression; ``articles`` and
    ``generic``: the chances of an article and of a name such as person; ``clothes``: the chance that a person is named
    by clothes alone; ``places``: words of place are allowed; ``sentences``: it speaks in sentences."""

    kinds: dict[str, int]
    articles: float = 0.12
    generic: float = 0.2
    clothes: float = 0.15
    places: bool = True
    sentences: bool = False


@dataclass(frozen=True)
class Target:
    """Published figures of a benchmark (S²RM, Sec. IV-A; words per expression of ReferIt from its released files)."""

    benchmark: str
    words_per_expression: float
    expressions: int
    referents: int
    images: int

    @property
    def expressions_per_referent(self) -> float:
        return self.expressions / self.referents

    @property
    def referents_per_image(self) -> float:
        return self.referents / self.images


@dataclass(frozen=True)
class Flavour:
    """One flavour: how it speaks, how much, and how large things are.

    ``lengths``: weight of each number of words that is asked for, from one word on. ``per_referent`` and ``per_image``:
    weights of 1, 2, 3 ... expressions per referent and referents per image. ``sizes``: shares of the picture, of which
    each scene draws one for the box of the thing it is about. ``partitions``: split_by -> its splits. ``version``
    changes whenever a byte of the flavour's data does.
    """

    name: str
    target: Target
    partitions: dict[str, tuple[str, ...]]
    style: Style
    lengths: tuple[float, ...]
    per_referent: tuple[float, ...]
    per_image: tuple[float, ...]
    sizes: tuple[float, ...]
    stuff: float = 0.0  # chance that a region of background is a referent
    version: str = "3"

    @property
    def stands_for(self) -> str:
        """The name that code which reads the benchmark's files has for it: refcoco, refcoco+, refcocog or refclef."""
        return "refclef" if self.target.benchmark == "ReferIt" else self.target.benchmark.lower()

    @property
    def split_by(self) -> tuple[str, ...]:
        return tuple(self.partitions)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that scenes are made for: those of the first partition."""
        return next(iter(self.partitions.values()))


_SAID = read_yaml(Path(__file__).with_name("flavours.yaml")).content
FLAVOURS = {name: TypeAdapter(Flavour).validate_python({"name": name} | about) for name, about in _SAID.items()}
