"""The four flavours of RefScenes, each after one benchmark: its splits, its lengths, and the figures it aims at."""

from dataclasses import dataclass

from .grammar import Style


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


COCO_SPLITS = ("train", "val", "testA", "testB")
COCO_SIZES = (0.12, 0.14, 0.17, 0.21, 0.26, 0.32, 0.4, 0.5, 0.64)
FLAVOURS: dict[str, Flavour] = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "refscenes",
            Target("RefCOCO", 3.5, 142209, 50000, 19994),
            {"unc": COCO_SPLITS},
            Style({"attribute": 3, "location": 5, "superlative": 4, "relation": 4}),
            (22, 29, 22, 13, 8, 5, 3, 2, 1.2, 0.8, 0.6, 0.4, 0.3, 0.2, 0.2),
            (4, 18, 66, 12),
            (6, 32, 40, 22),
            COCO_SIZES,
        ),
        Flavour(
            "refscenes+",
            Target("RefCOCO+", 3.5, 141564, 49856, 19992),
            {"unc": COCO_SPLITS},
            Style({"attribute": 5, "superlative": 3, "relation": 3}, places=False),
            (22, 26, 20, 15, 9, 6, 3, 2, 1.2, 0.8, 0.6, 0.4, 0.3, 0.2, 0.2),
            (3, 17, 66, 14),
            (4, 30, 40, 26),
            COCO_SIZES,
        ),
        Flavour(
            "refscenesg",
            Target("RefCOCOg", 8.4, 104560, 54822, 26711),
            {"umd": ("train", "val", "test"), "google": ("train", "val")},
            Style({"attribute": 3, "location": 3, "superlative": 4, "relation": 4}, articles=0.92, sentences=True),
            (0, 2, 5, 6, 9, 11, 10, 12, 10, 9, 7, 6, 5, 4, 3.5, 3),
            (17, 76, 7),
            (22, 42, 25, 11),
            COCO_SIZES,
        ),
        Flavour(
            "referscenes",
            Target("ReferIt", 3.44, 130525, 96654, 19894),
            {"berkeley": ("train", "val", "test")},
            Style({"attribute": 3, "location": 5, "superlative": 4, "relation": 4}),
            (16, 20, 20, 15, 10, 7, 4, 3, 2, 1.2, 0.6, 0.4, 0.3, 0.2, 0.2),
            (70, 25, 5),
            (1, 4, 10, 19, 25, 23, 18),
            (0.02, 0.03, 0.04, 0.08, 0.14, 0.24),
            stuff=1.0,
        ),
    )
}
