"""A claim of a paper, the number that the printed tables give for it, and whether the two agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import pandas as pd

from refstudy.papers.printed import load_printed

EPSILON = 1e-9  # of floating point, far below any printed digit

Row = str | tuple[str, str]  # of a table without and with blocks


class Recomputed(NamedTuple):
    """A number from the printed tables.

    ``kind`` is "gain" (points), "cost" (G Flops), "size" (of a data set) or "statement": a sentence without a number,
    for which exceptions are counted. ``slack`` is how far the number can lie from one of unrounded cells.
    """

    value: float
    kind: str
    slack: float = 0.0


@dataclass(frozen=True)
class Claim:
    """One number of a sentence: what it is, as it is printed ("0" exceptions for a statement), how to recompute it."""

    what: str
    claimed: str
    recompute: Callable[[], Recomputed]
    note: str = ""


@dataclass(frozen=True)
class Sentence:
    """A quotation with its place in the paper, and the claims that it makes."""

    place: str
    quotation: str
    claims: tuple[Claim, ...]


@cache
def table(stem: str) -> pd.DataFrame:
    """``load_printed``, read once; not to be changed."""
    return load_printed(stem)


def gain(
    stem: str, row: Row, over: Row, columns: str | Sequence[str], over_stem: str = "", unit: float = 0.01
) -> Callable[[], Recomputed]:
    """Row minus row, averaged over those of the columns that are printed for both.

    ``over`` stands in ``over_stem``, or in the same table. ``unit`` is that of the last printed digit of a cell: each
    of the two means can be off by half of it.
    """

    def recompute() -> Recomputed:
        return Recomputed(float(_differences(stem, row, over, columns, over_stem).mean()), "gain", unit)

    return recompute


def largest_gain(stem: str, row: Row, over: Row, columns: Sequence[str]) -> Callable[[], Recomputed]:
    """The largest difference of two rows in the columns."""
    return lambda: Recomputed(float(_differences(stem, row, over, columns).max()), "gain", 0.01)


def _differences(stem: str, row: Row, over: Row, columns: str | Sequence[str], over_stem: str = "") -> pd.Series:
    chosen = [columns] if isinstance(columns, str) else list(columns)
    first, second = table(stem).loc[row, chosen], table(over_stem or stem).loc[over, chosen]
    return (first.astype(float) - second.astype(float)).dropna()


def ahead(stem: str, row: Row, others: Sequence[Row] | None = None, columns: Sequence[str] = ()) -> Recomputed:
    """How many cells of other rows lie above this row's cell in the same column.

    Without ``others`` all other rows of the table, of the same block where it has blocks; without ``columns`` all.
    """
    scores = table(stem).select_dtypes("number")
    scores = scores[list(columns)] if columns else scores
    if others is None:
        block = row[0] if isinstance(row, tuple) else None
        others = [key for key in scores.index if key != row and (block is None or key[0] == block)]
    own = scores.loc[row]
    return Recomputed(float(sum((scores.loc[other] > own).sum() for other in others)), "statement")


def exceptions(count: float) -> Recomputed:
    """A count of what contradicts a statement."""
    return Recomputed(float(count), "statement")


def missing_rows(stem: str, *rows: str) -> Recomputed:
    """How many of the rows that the text looks up in a table are not in it."""
    return exceptions(sum(row not in table(stem).index for row in rows))


def size(count: float) -> Recomputed:
    """A number of pictures, expressions or the like, exact."""
    return Recomputed(float(count), "size")


def judge(claimed: str, recomputed: Recomputed) -> tuple[float, str]:
    """The difference claimed - recomputed, and the verdict.

    "agrees": within half a unit of the last digit of the claim, that is what rounding explains. "last digit": more,
    but no more than the rounding of the cells could add, had the authors computed from unrounded ones. "differs".
    """
    digits = len(claimed.partition(".")[2])
    difference = float(claimed) - recomputed.value
    allowed = 0.5 * 10.0**-digits + EPSILON
    if abs(difference) <= allowed:
        return difference, "agrees"
    return difference, "last digit" if abs(difference) <= allowed + recomputed.slack else "differs"
