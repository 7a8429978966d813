"""Audit of what the papers' texts derive from their printed tables, without data and without a model.

The sentences are data: ``sentences_s2rm.yaml`` and ``sentences_slvit.yaml``, an entry a sentence.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from refstudy.base.config import Settings
from refstudy.base.errors import StudyError
from refstudy.base.yaml_files import read_yaml
from refstudy.papers.audit.cross_check import EPSILON
from refstudy.papers.audit.operations import OPERATIONS, Names, Recomputed, compute

FILES = tuple(Path(__file__).with_name(f"sentences_{paper}.yaml") for paper in ("s2rm", "slvit"))
COLUMNS = "paper place quotation claim kind claimed recomputed difference agrees verdict note"


def _as_printed(given: Any) -> Any:
    if not (isinstance(given, str) and re.fullmatch(r"\d+(\.\d+)?", given)):
        raise ValueError('give the number as it is printed, in quotation marks: "2.80"')
    return given


Printed = Annotated[str, BeforeValidator(_as_printed)]


class Part(Settings):
    """One of several numbers that a sentence gives for the same two rows, each for other columns."""

    claimed: Printed
    columns: Names
    note: str = ""


class Claim(BaseModel):
    """One number of a sentence, or one for each of its ``parts``; the one further key names the operation that
    recomputes it, with the arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    claim: str
    claimed: Printed | None = None
    parts: dict[str, Part] = {}
    note: str = ""

    @model_validator(mode="after")
    def _one_operation(self) -> "Claim":
        extra = self.model_extra or {}
        for key, arguments in extra.items():
            if key not in OPERATIONS:
                raise ValueError(f"unknown key or operation '{key}'; operations are {', '.join(OPERATIONS)}")
            if not isinstance(arguments, dict) or not all(isinstance(name, str) for name in arguments):
                raise ValueError(f"'{key}' needs its arguments by name, as in {key}: {{table: s2rm_table4}}")
        if len(extra) != 1:
            raise ValueError(f"give one operation, not {len(extra)}; operations are {', '.join(OPERATIONS)}")
        if (self.claimed is None) == (not self.parts):
            raise ValueError("give 'claimed' or 'parts'")
        return self

    def numbers(self) -> Iterator[tuple[str, str, Recomputed, str]]:
        """Yield for each number its text, the number as claimed and as recomputed, and the note."""
        ((operation, arguments),) = (self.model_extra or {}).items()
        if self.claimed is not None:
            yield self.claim, self.claimed, compute(operation, arguments), self.note
        for name, part in self.parts.items():
            recomputed = compute(operation, arguments | {"columns": part.columns})
            yield f"{self.claim}, {name}", part.claimed, recomputed, part.note or self.note


class Sentence(Settings):
    """A quotation with its place in the paper, and the claims that it makes."""

    place: str
    quotation: str
    claims: tuple[Claim, ...]


class Sentences(Settings):
    """The audited sentences of a paper. ``names`` serves aliases of YAML alone."""

    paper: str
    names: dict[str, Any] = {}
    sentences: tuple[Sentence, ...]


def paper_audit(files: Sequence[Path] = FILES) -> pd.DataFrame:
    """Judge every claim of both papers that their printed tables can confirm or contradict, in the order of the papers.

    Columns: paper, place, quotation; claim (what it is about), kind; claimed (as printed), recomputed, difference;
    agrees (by the rounding of the printed digits), verdict (``judge``), note (on the cause). Raises StudyError, with
    file and line, for an entry that cannot be read or computed.
    """
    return pd.DataFrame([line for file in files for line in _audited(file)], columns=COLUMNS.split())


def _audited(path: Path) -> Iterator[tuple[Any, ...]]:
    file = read_yaml(path)
    content = file.checked(Sentences)
    for at, sentence in enumerate(content.sentences):
        for number, claim in enumerate(sentence.claims):
            try:
                for text, claimed, recomputed, note in claim.numbers():
                    difference, verdict = judge(claimed, recomputed)
                    where = (content.paper, sentence.place, sentence.quotation, text, recomputed.kind)
                    numbers = (claimed, round(recomputed.value, 9), round(difference, 9))
                    yield (*where, *numbers, verdict == "agrees", verdict, note)
            except StudyError as error:
                line = file.line(("sentences", at, "claims", number))
                raise file.error([(line, f"claim '{claim.claim}': {error}")]) from error


def judge(claimed: str, recomputed: Recomputed) -> tuple[float, str]:
    """Compare a claimed number with the recomputed one: claimed - recomputed, and the verdict.

    "agrees": the difference is at most half a unit of the last digit of the claim, which rounding explains. "last
    digit": it is larger, but the rounding of the cells explains it, if the authors computed from unrounded ones.
    "differs".
    """
    digits = len(claimed.partition(".")[2])
    difference = float(claimed) - recomputed.value
    allowed = 0.5 * 10.0**-digits + EPSILON
    if abs(difference) <= allowed:
        return difference, "agrees"
    return difference, "last digit" if abs(difference) <= allowed + recomputed.slack else "differs"
