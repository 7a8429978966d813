"""Reading pictures: the whole of one, for training and for the answer to a photo alike, or its size alone."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from refstudy.base.errors import StudyError

with suppress(ImportError):  # where it is installed, photos of telephones (HEIC) are read too
    from pillow_heif import register_heif_opener

    register_heif_opener()

Source = Image.Image | Path | str | BinaryIO
TOPS = (255, 4095, 65535)  # the white of 8, 12 and 16 bits


@contextmanager
def opened(source: Source, name: str = "", remedy: str = "fetch it again") -> Iterator[Image.Image]:
    """An open picture, whose decoding may go on within the block. ``name`` is what messages call it.

    Raises StudyError when it is missing, has more pixels than Pillow takes for safe, or for whatever Pillow raises.
    """
    path = name or source
    try:
        bombs = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
        with bombs, nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image:
            yield image
    except StudyError:
        raise
    except FileNotFoundError as error:
        raise StudyError(f"{path}: image not found; put it there or name another") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise StudyError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller first") from error
    except Exception as error:  # a broken file can make Pillow raise almost anything
        empty = isinstance(source, str | Path) and os.path.isfile(source) and not os.path.getsize(source)
        reason = "the file is empty" if empty else f"image does not decode ({error})"
        raise StudyError(f"{path}: {reason}; {remedy}") from error


def pixels_of(image: Image.Image) -> np.ndarray:
    """A picture of any mode as uint8 (H, W, 3): grey and CMYK made RGB, transparency put on white, grey of more than 8
    bits, or of floats, scaled by the least range that holds it: 0 to 1 (floats), 255, 4095 or 65535.

    Raises ValueError for values outside of these.
    """
    if image.mode[0] in "IF":
        values = np.asarray(image, np.float64)
        tops = (1, *TOPS) if image.mode == "F" else TOPS
        top = next((top for top in tops if values.min() >= 0 and values.max() <= top), None)
        if top is None:
            raise ValueError(f"its values are from {values.min():g} to {values.max():g}, and not from 0 to 65535")
        image = Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def read_image(path: Path | str, height: int | None = None, width: int | None = None) -> np.ndarray:
    """A picture as uint8 (height, width, 3), not turned: annotations belong to the pixels as they are stored.

    Raises StudyError when it is missing, does not decode, or is not of the size that the annotations give.
    """
    with opened(path) as image:
        pixels = pixels_of(image)
    if height is not None and pixels.shape[:2] != (height, width):
        raise StudyError(f"{path}: image is {pixels.shape[:2]}, its annotations say {(height, width)}; fetch it again")
    return pixels


def find_photos(path: Path | str) -> tuple[list[Path], list[Path]]:
    """The picture itself, or all files of a folder that have the suffix of a picture, by name, and the others there.

    Raises StudyError when there is nothing there.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise StudyError(f"{path}: image not found; name a picture or a folder of pictures")
        return [path], []
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    photos = [file for file in files if file.suffix.lower() in suffixes]
    others = [file for file in files if file not in photos]
    if not photos:
        raise StudyError(f"{path}: no pictures in this folder{unread(others)}; name another, or one picture")
    return photos, others


def unread(others: Sequence[Path], shown: int = 3) -> str:
    """Say which files have no picture's name, by what Pillow knows; nothing where there are none."""
    more = f" and {len(others) - shown} more" if len(others) > shown else ""
    names = ", ".join(file.name for file in others[:shown]) + more
    return f"; left out, by their names: {names} (photos end in .jpg or .png)" if others else ""


def read_image_size(path: Path | str) -> tuple[int, int]:
    """Height and width, from the header of a picture alone. Raises StudyError when it has none."""
    with opened(path) as image:
        return image.height, image.width
