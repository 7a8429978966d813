"""The fields of a data set's entries: one schema for what comes in from outside, in whatever form it lies. Other fields
are of no interest."""

import math
import re
import reprlib
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, Json, PlainValidator, ValidationError

from refstudy.base.errors import StudyError


def plain_text(value: Any) -> str:
    """Text without the blanks around it; a number counts as its digits. Raises ValueError for text without a visible
    character or that is no Unicode (half a surrogate pair), and for whatever is neither."""
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str) and value.isascii() and value.isprintable() and (plain := value.strip()):
        return plain  # of nearly all; what follows takes ten times as long
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (isinstance(value, str) or number):
        raise ValueError(f"{shown(value)} is no text")
    text = str(value).strip()
    if re.search(r"[\ud800-\udfff]", text):
        raise ValueError(f"{text!r} is no Unicode text")
    if not any(character.isprintable() and character != " " for character in text):
        raise ValueError(f"{text!r} has no visible character")
    return text


def plain_expressions(expressions: Sequence[str]) -> list[str]:
    """What somebody asks for, without the blanks around it. Raises StudyError for a text in place of a list, for an
    empty list, and for an expression that is no text or has no visible character."""
    if isinstance(expressions, str):
        raise StudyError(f"expressions are one text, {expressions!r}; give a list of texts")
    if not expressions:
        raise StudyError('no expression; say what to look for, e.g. "the dog on the left"')
    try:
        return [plain_text(text) for text in expressions]
    except ValueError as error:
        raise StudyError(f"expression {error}; say what to look for") from error


def identity(value: Any) -> int | str:
    """An id as a number where it is one, so that 1, 1.0 and "1" are the same; other text stays. Raises ValueError."""
    if type(value) is int and abs(value) < 10**18:
        return value
    text = plain_text(value)
    if number := re.fullmatch(r"([+-]?\d{1,18})(\.0*)?", text):
        return int(number[1])
    if isinstance(value, int | float):
        raise ValueError(f"{value} is no whole number, or a very large one")
    return text


Id = Annotated[int | str, PlainValidator(identity), Field(description="one whole number or text")]
Text = Annotated[str, PlainValidator(plain_text), Field(description="text with a visible character")]
Side = Annotated[int, Field(ge=0, description="a whole number of pixels")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[float, Field(allow_inf_nan=False, ge=0)]


class Image(BaseModel):
    id: Id
    file_name: str = Field(min_length=1, description="text")
    height: Side
    width: Side


class Annotation(BaseModel):
    id: Id
    image_id: Id
    bbox: tuple[Number, Number, Length, Length] = Field(description="four numbers: x, y, width and height")
    segmentation: Any = Field(description="polygons or RLE")
    area: Number = Field(math.nan, description="a number of pixels")  # left out by a form without areas


class Category(BaseModel):
    id: Id
    name: Text


class Referent(BaseModel):
    ref_id: Id
    image_id: Id
    ann_id: Id = Field(
        description="one whole number or text (several referents for an expression, as in gRefCOCO, are not supported)"
    )
    split: Text
    category_id: Id | None = None
    sentences: list[Any] = Field(min_length=1, description="a list of at least one sentence")


class Sentence(BaseModel):
    sent_id: Id
    sent: Text
    kind: Any = None


class RawSentence(BaseModel):
    sent_id: Id
    raw: Text = Field(description="text as it was typed; for data without it set data.sentence_field to sent")
    kind: Any = None


class Triple(BaseModel):  # a referent with its picture and its mask as files; the rest is that of the other entries
    image: Text
    mask: Text
    sents: list[Any] = Field(description="a list of texts")
    sent_ids: list[Any] = Field(description="a list of numbers")


class BoxRow(BaseModel):  # a row of a list of boxes
    ref_id: Id
    img_id: int = Field(description="a whole number")
    bbox: Json[Any] = Field(description="four numbers in brackets")


class Region(BaseModel):  # a region in ReferIt's lists
    image: int = Field(description="a whole number, before the first _ of the region's name")
    box: tuple[Number, Number, Number, Number] = Field(description="four numbers: left, top, right and bottom")
    size: tuple[Side, Side] = Field(description="the image's width and height")


class ReferRow(BaseModel):  # a row of a Hub export with REFER's fields
    raw_image_info: Json[dict[str, Any]] = Field(description="a JSON object")
    raw_anns: Json[dict[str, Any]] = Field(description="a JSON object")


class AnswerRow(BaseModel):  # a row of a Hub export with answers
    file_name: str = Field(pattern=r"^([^_]+_){0,2}\d+(_[^.]*)?\.\w+$", description="COCO's name of a picture")
    segmentation: list[Number] | None = Field(description="one flat polygon")


SENTENCES: dict[str, type[Sentence | RawSentence]] = {"sent": Sentence, "raw": RawSentence}
Kind = TypeVar("Kind", bound=BaseModel)


def checked(kind: type[Kind], entry: Any) -> Kind:
    """The entry as one of this kind. Raises ValueError that says in plain words which field is not as it should be."""
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        if not isinstance(entry, dict):
            fields = ", ".join(kind.model_fields)
            raise ValueError(f"it is {shown(entry)}; it should have the fields {fields}") from error
        field = str(error.errors()[0]["loc"][0])
        found = shown(entry[field]) if field in entry else "missing"
        raise ValueError(f"{field} is {found}; it should be {kind.model_fields[field].description}") from error


def shown(value: Any) -> str:
    """A value as messages show it, in one short line."""
    return "null" if value is None else reprlib.repr(value)


def identity_of(entry: Any, field: str) -> int | str | None:
    """The id of an entry; None where it has none."""
    try:
        return identity(entry[field])
    except (LookupError, TypeError, ValueError):
        return None


def name_of(what: str, entry: Any, field: str, number: int) -> str:
    """The name of an entry in messages: its id or, without one, its number in the file."""
    key = identity_of(entry, field)
    return f"{what} number {number}" if key is None else f"{what} {key}"
