"""How every figure of the study looks and is saved, and the drawings that several notebooks share."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import binary_erosion

from refstudy.files import atomic_write

# Okabe and Ito's colours, told apart by colour-blind readers too.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "black": "#000000",
}
STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "legend.frameon": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "refstudy",
    "svg.fonttype": "path",
}


def use_style() -> None:
    """Set the study's style for all figures that follow."""
    sns.set_theme(style="ticks", palette=list(PALETTE.values()))
    mpl.rcParams.update(STYLE)


def line_style(k: int) -> dict[str, str]:
    """Colour and dashes of the k-th line of a plot, told apart in black and white too from the ninth on."""
    colours = [colour for name, colour in PALETTE.items() if name != "yellow"]  # yellow lines vanish on white
    return {"color": colours[k % len(colours)], "linestyle": ("-", "--", ":", "-.")[k // len(colours) % 4]}


def save(figure: Figure, folder: Path | str, name: str) -> Path:
    """Write ``<name>.svg`` and ``<name>.png`` into ``folder``, without dates: the same figure, the same bytes."""
    folder = Path(folder)
    for suffix, metadata in (("svg", {"Date": None, "Creator": "refstudy"}), ("png", {"Software": "refstudy"})):
        with atomic_write(folder / f"{name}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, metadata=metadata, bbox_inches="tight")
    return folder / f"{name}.png"


def show_image(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """A picture without ticks, its title broken into lines that fit."""
    import textwrap

    axes.imshow(image, interpolation="nearest")
    axes.set_title("\n".join(textwrap.wrap(title, 26)))
    axes.set_axis_off()


def overlay(axes: Axes, image: np.ndarray, mask: np.ndarray, colour: str = "vermilion", title: str = "") -> None:
    """A picture uint8 (H, W, 3) with a bool mask (H, W): the rest is dimmed, the mask outlined in a palette colour."""
    show_image(axes, dimmed(image, mask), title)
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors=[PALETTE[colour]], linewidths=1.6)


def dimmed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture uint8 (H, W, 3), pale outside a bool mask (H, W)."""
    shown = image.astype(np.float32)
    shown[~mask] = 0.45 * shown[~mask] + 0.55 * 255 * 0.9
    return shown.astype(np.uint8)


def outlined(image: np.ndarray, mask: np.ndarray, colour: str = "vermilion") -> np.ndarray:
    """As ``overlay``, but pixel for pixel: uint8 (H, W, 3), with an outline of 1/200 of the shorter side inside the
    mask."""
    shown = dimmed(image, mask)
    width = max(1, round(min(mask.shape) / 200))
    inner = binary_erosion(mask, iterations=width, border_value=1)
    shown[mask & ~inner] = (255 * np.array(mpl.colors.to_rgb(PALETTE[colour]))).round()
    return shown


def grid(rows: int, columns: int, cell: float = 1.9, **options) -> tuple[Figure, np.ndarray]:
    """A figure of ``rows`` x ``columns`` pictures, each about ``cell`` inches; the axes as a 2-d array."""
    figure, axes = plt.subplots(rows, columns, figsize=(cell * columns, cell * 1.18 * rows), squeeze=False, **options)
    return figure, axes
