"""The four flavours of RefScenes, each after one benchmark: its splits, its lengths, and the figures it aims at."""

from collections.abc import Callable
from dataclasses import dataclass

from .grammar import Phrase, long_expressions, short_expressions
from .scene import Scene


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
    """One flavour: which expressions it uses and how many.

    ``lengths``: weight of each number of words that is asked for. ``per_referent`` and ``per_image``: weights of
    1, 2, 3 ... expressions per referent and referents per image. ``partitions``: split_by -> its splits. ``version``
    changes whenever a byte of the flavour's data does.
    """

    name: str
    target: Target
    partitions: dict[str, tuple[str, ...]]
    expressions: Callable[[Scene, int], list[Phrase]]
    lengths: dict[int, float]
    per_referent: tuple[float, ...]
    per_image: tuple[float, ...]
    stuff: bool = False
    version: str = "2"

    @property
    def split_by(self) -> tuple[str, ...]:
        return tuple(self.partitions)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that scenes are made for: those of the first partition."""
        return next(iter(self.partitions.values()))


def _with_location(scene: Scene, target: int) -> list[Phrase]:
    return short_expressions(scene, target, location=True)


def _without_location(scene: Scene, target: int) -> list[Phrase]:
    return short_expressions(scene, target, location=False)


COCO_SPLITS = ("train", "val", "testA", "testB")
FLAVOURS: dict[str, Flavour] = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "refscenes",
            Target("RefCOCO", 3.5, 142209, 50000, 19994),
            {"unc": COCO_SPLITS},
            _with_location,
            {1: 0.07, 2: 0.27, 3: 0.25, 4: 0.15, 5: 0.11, 6: 0.08, 7: 0.04, 8: 0.03},
            (0.05, 0.2, 0.65, 0.1),
            (0.08, 0.4, 0.38, 0.14),
            version="1",  # records rest on it: scene.as_first_described
        ),
        Flavour(
            "refscenes+",
            Target("RefCOCO+", 3.5, 141564, 49856, 19992),
            {"unc": COCO_SPLITS},
            _without_location,
            {1: 0.04, 2: 0.15, 3: 0.25, 4: 0.29, 5: 0.2, 6: 0.07},
            (0.03, 0.17, 0.65, 0.15),
            (0.05, 0.33, 0.4, 0.22),
        ),
        Flavour(
            "refscenesg",
            Target("RefCOCOg", 8.4, 104560, 54822, 26711),
            {"umd": ("train", "val", "test"), "google": ("train", "val")},
            long_expressions,
            {4: 0.04, 5: 0.08, 6: 0.13, 7: 0.15, 8: 0.15, 9: 0.14, 10: 0.12, 11: 0.09, 12: 0.06, 13: 0.04},
            (0.17, 0.76, 0.07),
            (0.3, 0.42, 0.2, 0.08),
        ),
        Flavour(
            "referscenes",
            Target("ReferIt", 3.44, 130525, 96654, 19894),
            {"berkeley": ("train", "val", "test")},
            _with_location,
            {1: 0.12, 2: 0.23, 3: 0.2, 4: 0.17, 5: 0.12, 6: 0.09, 7: 0.05, 8: 0.02},
            (0.7, 0.25, 0.05),
            (0.01, 0.04, 0.1, 0.19, 0.25, 0.23, 0.18),
            stuff=True,
        ),
    )
}
