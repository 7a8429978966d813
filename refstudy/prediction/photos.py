"""A user's photographs: masks, overlays and JSON files for a picture or a folder of pictures."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from refstudy.base.bar import bar
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write, write_text
from refstudy.data.schema import plain_expressions

if TYPE_CHECKING:  # with PyTorch, which takes seconds
    from refstudy.models.segmenter import Segmenter
    from refstudy.prediction.predict import Prediction

SLUG = 40  # characters of an expression in a file name


def planned_files(
    photos: Sequence[Path], expressions: Sequence[str], output: Path, overwrite: bool
) -> dict[Path, list[Path]]:
    """The files that ``segment_files`` writes for each photo; the folder is made.

    Raises StudyError for expressions without words, for an output that is no folder to write to and, unless
    ``overwrite``, for files that exist already.
    """
    plain_expressions(expressions)
    short = len({photo.stem for photo in photos}) == len(photos)  # without the suffix they are all different, too
    planned = {photo: _outputs(output, photo.stem if short else photo.name, expressions) for photo in photos}
    if taken := [] if overwrite else [p for files in planned.values() for p in files if os.path.exists(p)]:
        more = f", and {len(taken) - 1} more of these files" if len(taken) > 1 else ""
        raise StudyError(f"{taken[0]}: exists{more}; give --overwrite or another --output")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=output):  # is there room, and may we?
            pass
    except OSError as error:
        raise StudyError(f"{output}: cannot be written to ({error.strerror}); give another --output") from error
    return planned


def segment_files(
    model: "Segmenter", name: str, planned: Mapping[Path, Sequence[Path]], expressions: Sequence[str]
) -> Iterator[tuple[Literal["error", "note"], str]]:
    """Segment every photo of ``planned_files`` and write, for expression k, ``<photo>_<k>-<words>-mask.png`` (0 and
    255, of the photo's own size) and ``-overlay.png``, and ``<photo>.json`` with all answers. ``name`` is what the JSON
    calls the model.

    Yields a line, an "error", for each photo that could not be read or written; the others are written all the same. A
    "note" is a line that tells, once, what the model does not know, or an expression for which nothing is marked.
    Raises StudyError for bad expressions.
    """
    from refstudy.prediction.predict import read_expressions, read_photo, segment_photo

    read_expressions(model, expressions)
    told = set[str]()
    done = bar(planned.items(), desc="photos", shown=len(planned) > 1 and sys.stderr.isatty())
    for photo, (about, *pictures) in done:
        try:
            pixels = read_photo(photo)
            answers = segment_photo(model, pixels, expressions)
            _write(photo, pixels, answers, name, about, pictures)
        except (OSError, ValueError) as error:
            done.clear()  # what failed gets a line of its own
            remedy = f"cannot be written to {about.parent}; shorten its name or make room"
            reason = error.strerror if isinstance(error, OSError) else error
            yield "error", str(error) if isinstance(error, StudyError) else f"{photo}: {remedy} ({reason})"
            continue
        lines = [f"{photo}: {answer.nothing}" for answer in answers if answer.box is None]
        for line in dict.fromkeys([*(note for answer in answers for note in answer.notes), *lines]):
            if line not in told:
                done.clear()
                told.add(line)
                yield "note", line


def _write(
    photo: Path, pixels: np.ndarray, answers: "list[Prediction]", name: str, about: Path, pictures: list[Path]
) -> None:
    """Write the files of one photo. In the JSON a box is (x, y, width, height) or null, and a mask is COCO's RLE."""
    described = []
    for answer, mask, overlay in zip(answers, pictures[::2], pictures[1::2], strict=True):
        with atomic_write(mask) as temporary:
            Image.fromarray(answer.mask.astype(np.uint8) * 255).save(temporary)
        answer.save(overlay)
        plain = {key: getattr(answer, key) for key in ("expression", "score", "box", "rle", "notes")}
        read = {"clipped": answer.reading.clipped, "unknown_words": list(answer.reading.strange)}
        described.append(plain | read | {"mask": mask.name, "overlay": overlay.name})
    content = {"image": str(photo), "size": list(pixels.shape[:2]), "model": name, "predictions": described}
    write_text(about, json.dumps(content, indent=1) + "\n", encoding="ascii")  # a name may be no UTF-8


def _outputs(output: Path, stem: str, expressions: Sequence[str]) -> list[Path]:
    """The files of one photo: the JSON, then mask and overlay of each expression. Of an expression, only letters a to z
    and digits go into a name."""
    files = [output / f"{stem}.json"]
    for k, text in enumerate(expressions, 1):
        words = re.findall("[a-z0-9]+", text.lower())
        name = f"{stem}_{'-'.join([str(k), *words])[:SLUG].rstrip('-')}"  # the last "_" ends the stem: no two are equal
        files += [output / f"{name}-mask.png", output / f"{name}-overlay.png"]
    return files
