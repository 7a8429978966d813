"""Operations that recompute a claimed number from the printed tables.

An entry of a sentences file names one of them (``OPERATIONS``) and gives its arguments. A row or column that a table
does not have is an error.
"""

import re
from collections.abc import Callable, Mapping
from inspect import signature
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from pydantic import BeforeValidator, Field, ValidationError, validate_call

from refstudy.base.config import Settings
from refstudy.base.errors import StudyError
from refstudy.base.yaml_files import said
from refstudy.papers.audit.cross_check import cross_check
from refstudy.papers.printed import load_printed, printed_cells, printed_rows

Kind = Literal["gain", "cost", "size", "statement"]


def _listed(given: Any) -> Any:
    if not isinstance(given, str | list | tuple):
        raise ValueError("give a name or a list of names")
    return (given,) if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Recomputed(NamedTuple):
    """A number from the printed tables.

    ``kind`` is "gain" (points), "cost" (G Flops), "size" (of a data set) or "statement": a sentence without a number,
    for which exceptions are counted. ``slack`` is the largest error that the rounding of the cells can cause.
    """

    value: float
    kind: Kind
    slack: float = 0.0


def _exceptions(count: float) -> Recomputed:
    return Recomputed(float(count), "statement")


class Cells(Settings):
    """Cells of one row of a printed table."""

    table: str
    row: str
    columns: Names = ()


OPERATIONS: dict[str, Callable[..., Recomputed]] = {}


def operation(function: Callable[..., Recomputed]) -> Callable[..., Recomputed]:
    """Enter a function in ``OPERATIONS``, under its name; it validates its arguments."""
    OPERATIONS[function.__name__] = validate_call(function)
    return OPERATIONS[function.__name__]


@operation
def gain(
    table: str,
    row: str,
    over: str,
    columns: Names,
    over_table: str = "",
    kind: Literal["gain", "cost"] = "gain",
    unit: float = 0.01,
    how: Literal["mean", "max"] = "mean",
) -> Recomputed:
    """Subtract the row ``over`` from a row: mean or largest over those of the columns that are printed for both.

    ``over`` stands in ``over_table``, or in the same table. ``unit`` is that of the last printed digit of a cell: each
    of the two means can be off by half of it.
    """
    first = printed_cells(table, [row], columns).loc[row]
    second = printed_cells(over_table or table, [over], columns).loc[over]
    return Recomputed(float((first.astype(float) - second.astype(float)).agg(how)), kind, unit)


@operation
def gain_not_larger(first: dict[str, Any], second: dict[str, Any]) -> Recomputed:
    """Count one exception where the first of two gains, each given by the arguments of ``gain``, is not the larger."""
    return _exceptions(gain(**first).value <= gain(**second).value)


@operation
def total(table: str, row: str, columns: Names = ()) -> Recomputed:
    """Add up the cells of a row, all its numbers where no columns are named."""
    return Recomputed(float(printed_cells(table, [row], columns).loc[row].astype(float).sum()), "size")


@operation
def ahead(
    table: str, row: Names, others: Names = (), but_not: Names = (), columns: Names = (), by: float = 0.0
) -> Recomputed:
    """Count the cells of other rows that lie above the cell of ``row`` in the same column, by more than ``by``; of
    several rows, all counts.

    Without ``others`` all other rows of the table, of the same block where it has blocks, except ``but_not``; without
    ``columns`` all columns of numbers.
    """
    scores = printed_cells(table, (), columns)
    printed_cells(table, (*row, *others, *but_not))  # are they known?
    count = 0
    for own in row:
        block = own.rpartition(": ")[0]
        same = [key for key in scores.index if key.rpartition(": ")[0] == block and key not in (own, *but_not)]
        count += (scores.loc[list(others) or same] > scores.loc[own] + by).to_numpy().sum()
    return _exceptions(count)


@operation
def missing_rows(table: str, rows: Names) -> Recomputed:
    """Count the rows that the text looks up in a table and that are not in it."""
    return _exceptions(sum(row not in printed_rows(table).index for row in rows))


@operation
def unequal_cells(groups: list[Annotated[list[Cells], Field(min_length=2)]]) -> Recomputed:
    """Count the cells that differ from those of the first row of their group, which names the same thing.

    Without columns a row has those of its group's first, and this one all that are numbers.
    """
    count = 0
    for first, *others in groups:
        own = printed_cells(first.table, [first.row], first.columns)
        for other in others:
            columns = other.columns or tuple(own.columns)
            if len(columns) != own.shape[1]:
                expected = f"name {own.shape[1]} columns, as many as the first row of the group has"
                raise StudyError(f"row '{other.row}' of '{other.table}': {expected}")
            count += (printed_cells(other.table, [other.row], columns).to_numpy() != own.to_numpy()).sum()
    return _exceptions(count)


@operation
def outside_range(table: str, parts_table: str, rows: dict[str, str], columns: dict[str, Names]) -> Recomputed:
    """Count the cells of a table that lie outside the range of those of ``parts_table`` that they sum up.

    ``rows``: row -> its row of ``parts_table``; ``columns``: column -> its columns there.
    """
    count = 0
    for (row, parts_row), (column, parts) in product(rows.items(), columns.items()):
        whole = printed_cells(table, [row], [column]).to_numpy().item()
        by_part = printed_cells(parts_table, [parts_row], parts).to_numpy()
        count += whole < by_part.min() or whole > by_part.max()
    return _exceptions(count)


@operation
def rows_where(table: str, condition: str) -> Recomputed:
    """Count the rows for which a condition on their columns holds, ``row`` and ``block`` among them, in the words of
    ``pandas.DataFrame.query``; of a printed table, or of ``cross_check``."""
    rows = cross_check() if table == "cross_check" else load_printed(table).reset_index()
    try:
        return _exceptions(len(rows.query(condition, engine="python")))
    except Exception as error:  # pandas has one for each kind of mistake
        reason = " ".join(str(error).split())
        raise StudyError(f"condition '{condition}' cannot be used on the columns of '{table}': {reason}") from error


@operation
def columns_with(table: str, text: str) -> Recomputed:
    """Count the columns whose name holds a text."""
    return Recomputed(float(sum(text in column for column in printed_rows(table).columns)), "size")


@operation
def repeated_parts(table: str, separator: str) -> Recomputed:
    """Count the rows whose name, split at a separator, holds a part twice."""
    parts = [row.split(separator) for row in printed_rows(table).index]
    return _exceptions(sum(len(set(names)) < len(names) for names in parts))


@operation
def other_citations(table: str, text: str) -> Recomputed:
    """Count the names in a list "A [1], B [2]" of the text that the table cites by another number."""
    rows = printed_rows(table)
    names = [re.sub(r"(\+DCRF)?[₀-₉]*(\^Joint)?$", "", row.rpartition(": ")[2]).lower() for row in rows.index]
    cited = dict(zip(names, rows["citation"], strict=True))
    listed = re.findall(r"([A-Z]\w+) (\[\d+\])", text)
    return _exceptions(sum(cited.get(name.lower(), number) != number for name, number in listed))


def compute(operation: str, arguments: Mapping[str, Any]) -> Recomputed:
    """Carry out one of ``OPERATIONS``. Raises StudyError for arguments that it does not take or cannot use."""
    function = OPERATIONS[operation]
    try:
        recomputed = function(**arguments)
    except ValidationError as error:
        found = "; ".join(said(e["loc"], e["msg"]) for e in error.errors())
        raise StudyError(f"{operation}: {found}; it takes {', '.join(signature(function).parameters)}") from error
    except StudyError as error:
        raise StudyError(f"{operation}: {error}") from error
    if pd.isna(recomputed.value):
        raise StudyError(f"{operation}: no cell that it needs is printed; name other rows or columns")
    return recomputed
