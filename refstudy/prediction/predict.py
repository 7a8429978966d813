"""Masks for pictures of the model's own size, and for photographs at theirs."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image

from refstudy.base.config import THRESHOLD
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write
from refstudy.data.batches import EXPRESSIONS_AT_ONCE, expressions_at_once, fit_image, normalise, unfit
from refstudy.data.masks import encode_mask, mask_box
from refstudy.data.pictures import Source, opened, pixels_of
from refstudy.data.schema import plain_expressions
from refstudy.data.words import strange_words, tokenize
from refstudy.models.segmenter import Segmenter
from refstudy.prediction.overlay import outlined

MANY_WORDS = 5000  # a vocabulary this large is BERT's; that of RefScenes has some hundred words
SEEN = 320  # pixels that the longer side of an overlay has at least
# The turns that undo EXIF's orientations 2 to 8.
TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90".split()


@dataclass(frozen=True)
class Reading:
    """An expression as a model reads it: the ``text`` of its word pieces, whether they are ``clipped``, and the words
    that are ``strange`` to its vocabulary. ``notes`` says the last two in words."""

    text: str
    clipped: bool
    strange: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """The answer of a model to one expression about a ``picture`` uint8 (H, W, 3): bool mask (H, W), the score of
    ``confidence``, and ``notes`` on what the model does not know. A notebook shows it as a picture."""

    expression: str
    reading: Reading = field(repr=False)
    mask: np.ndarray = field(repr=False)
    score: float
    notes: tuple[str, ...]
    picture: np.ndarray = field(repr=False)

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """(x, y, width, height) in pixels of the smallest box around the mask; None when nothing is marked."""
        return mask_box(self.mask)

    @property
    def nothing(self) -> str:
        """The line for an empty mask."""
        return f"nothing is marked for “{self.expression}”; no pixel is more probable than {self.score:.2f}"

    def overlay(self) -> Image.Image:
        """The picture with the mask outlined and the rest pale; a small one is enlarged by a whole number."""
        drawn = Image.fromarray(outlined(self.picture, self.mask))
        times = -(-SEEN // max(drawn.size))
        return drawn.resize((times * drawn.width, times * drawn.height), Image.Resampling.NEAREST)

    def save(self, path: Path | str) -> None:
        """Write the overlay as a picture, in the format that the suffix names."""
        with atomic_write(path) as temporary:
            self.overlay().save(temporary)

    def _repr_html_(self) -> str:
        self.overlay().save(memory := io.BytesIO(), "PNG")
        content = base64.b64encode(memory.getvalue()).decode()
        about = [f"“{self.expression}”, score {self.score:.2f}", *self.notes]
        lines = [html.escape(line) for line in (about if self.box else [*about, self.nothing])]
        return "<br>".join([f'<img src="data:image/png;base64,{content}" style="max-height: 30em">', *lines])

    @property
    def rle(self) -> dict[str, Any]:
        """The mask as COCO's compressed RLE."""
        return encode_mask(self.mask)


@torch.inference_mode()
def predict(model: Segmenter, image: np.ndarray, expressions: Sequence[str]) -> np.ndarray:
    """Mask probabilities float32 (E, S, S) for expressions about one uint8 image (S, S, 3), encoded once.

    At most ``EXPRESSIONS_AT_ONCE`` expressions go through the model together, fewer where ``expressions_at_once`` says
    so, which bounds its memory.
    """
    model.eval()
    device = next(model.parameters()).device
    together = expressions_at_once(EXPRESSIONS_AT_ONCE, len(image), device)
    tokens = tokenize(model.tokenizer, expressions, model.config.max_words)
    ids, mask = (torch.from_numpy(array).to(device).split(together) for array in tokens)
    pixels = torch.tensor(image.transpose(2, 0, 1), device=device)[None]
    features = model.encode_image(normalise(pixels))
    index = torch.zeros(len(expressions), dtype=torch.long, device=device).split(together)
    parts = zip(ids, mask, index, strict=True)
    return np.concatenate([model.segment(features, *part).sigmoid().float().cpu().numpy() for part in parts])


def confidence(probability: np.ndarray) -> float:
    """The confidence of a model in its mask: the mean probability (H, W) over the marked pixels, or the largest one
    where nothing is marked. It is not calibrated: notebook 08 measures how well it predicts the IoU."""
    marked = probability[probability > THRESHOLD]
    return float(marked.mean() if marked.size else probability.max())


def segment_photo(
    model: Segmenter, photo: np.ndarray | Image.Image | Path | str, expressions: Sequence[str]
) -> list[Prediction]:
    """The masks of all expressions at the photo's own size, in their order; the photo is encoded once.

    ``photo`` is uint8 (H, W, 3), a picture of Pillow, or a file that ``read_photo`` reads. The model gets what
    ``model_view`` makes of it; probabilities are resized bilinearly to H x W, without what was padding, and those above
    0.5 are the mask.

    Raises StudyError for an expression without words, for none at all, for an array of another type or shape, and for
    whatever ``read_photo`` refuses.
    """
    readings = read_expressions(model, expressions)
    pixels = photo if isinstance(photo, np.ndarray) else read_photo(photo)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise StudyError(f"the photo is {pixels.dtype} {pixels.shape}; give uint8 (H, W, 3), or a file")
    squares = predict(model, model_view(model, pixels), expressions)
    answers = []
    for text, reading, square in zip(expressions, readings, squares, strict=True):
        whole = unfit(torch.from_numpy(square), pixels.shape[0], pixels.shape[1], model.config.keep_aspect).numpy()
        notes = (*scope(model, pixels), *reading.notes)
        answers.append(Prediction(text, reading, whole > THRESHOLD, confidence(whole), notes, pixels))
    return answers


def scope(model: Segmenter, pixels: np.ndarray) -> tuple[str, ...]:
    """Say of a model whose words are those of RefScenes that it has seen drawn scenes only and, where a picture uint8
    (H, W, 3) is of another size than these are, that it is unlike them."""
    if model.tokenizer.vocab_size >= MANY_WORDS:
        return ()
    side = model.config.image_size
    unlike = "" if pixels.shape[:2] == (side, side) else "; here its masks and scores mean little"
    return (f"the model has seen drawn scenes of {side} x {side} pixels only{unlike}",)


def model_view(model: Segmenter, pixels: np.ndarray) -> np.ndarray:
    """A picture uint8 (H, W, 3) as this model sees it, (S, S, 3): stretched, or padded, as in its training."""
    return fit_image(pixels, model.config.image_size, model.config.keep_aspect)


def read_expressions(model: Segmenter, expressions: Sequence[str]) -> list[Reading]:
    """Read expressions as a model does. Raises StudyError for none, one without words, or a bare text."""
    tokenizer, readings = model.tokenizer, []
    for text, plain in zip(expressions, plain_expressions(expressions), strict=False):
        pieces = tokenizer.tokenize(plain)
        if not pieces:
            raise StudyError(f"expression {text!r} has no words; say what to look for")
        kept = pieces[: model.config.max_words - 2]
        strange, read = tuple(strange_words(tokenizer, text)), tokenizer.convert_tokens_to_string(kept)
        notes = []
        if clipped := len(kept) < len(pieces):
            notes.append(f"“{text}” is clipped to {model.config.max_words} word pieces and read as “{read}”")
        if strange:
            notes.append(f"“{text}”: the model does not know {', '.join(strange)}")
        readings.append(Reading(read, clipped, strange, tuple(notes)))
    return readings


def read_photo(source: Source, name: str = "") -> np.ndarray:
    """A photograph as it is meant to be seen, uint8 (H, W, 3): turned as its EXIF says, where that can be read, and
    then as ``data.pictures.pixels_of`` has it. ``name`` is what messages call it, by default its path.

    Raises StudyError when it is missing, does not decode, or has more pixels than Pillow takes for safe.
    """
    with opened(source, name, "save it as JPEG or PNG") as picture:
        try:
            turn = dict(enumerate(TURNS, 2)).get(picture.getexif().get(ExifTags.Base.Orientation, 1))
        except Exception:  # a broken EXIF can make Pillow raise almost anything, and the pixels are none the worse
            turn = None
        return pixels_of(picture if turn is None else picture.transpose(Image.Transpose[turn]))
