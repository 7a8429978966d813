"""Reading pictures: the whole of one, or its size alone."""

from pathlib import Path

import numpy as np
from PIL import Image

from refstudy.base.errors import StudyError


def read_image(path: Path | str, height: int | None = None, width: int | None = None) -> np.ndarray:
    """A picture as uint8 (height, width, 3).

    Raises StudyError when it is missing, does not decode, or is not of the size that the annotations give.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise StudyError(f"{path}: image not found; put the images of the data set there") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StudyError(f"{path}: image does not decode ({error}); fetch it again") from error
    if height is not None and pixels.shape[:2] != (height, width):
        raise StudyError(f"{path}: image is {pixels.shape[:2]}, its annotations say {(height, width)}; fetch it again")
    return pixels


def read_image_size(path: Path | str) -> tuple[int, int]:
    """Height and width, from the header of a picture alone. Raises StudyError when it has none."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StudyError(f"{path}: no image ({error}); fetch it again") from error
