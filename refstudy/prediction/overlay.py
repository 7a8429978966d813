"""A picture with a mask drawn on it, pixel by pixel."""

import numpy as np
from scipy.ndimage import binary_erosion

VERMILION = (0xD5, 0x5E, 0x00)  # of Okabe and Ito's colours


def dimmed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture uint8 (H, W, 3), pale outside a bool mask (H, W)."""
    shown = image.astype(np.float32)
    shown[~mask] = 0.45 * shown[~mask] + 0.55 * 255 * 0.9
    return shown.astype(np.uint8)


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The ``dimmed`` picture with an outline of 1/200 of the shorter side within the mask."""
    shown = dimmed(image, mask)
    shown[mask & ~eroded(mask, max(1, round(min(mask.shape) / 200)))] = VERMILION
    return shown


def eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """A bool mask (H, W) less so many layers of pixels that have a neighbour outside it; the border is no outside."""
    return binary_erosion(mask, iterations=steps, border_value=1)
