"""Figures as files that come out the same on every machine.

Two processors round differently, so a figure of what a model computes differs in its last digits. A file stays as it is
where the new drawing agrees with it: the same elements, texts and colours; coordinates within ``POINTS``; numbers in
texts, where they have decimals or a percent sign, within one unit of their last digit; the colours of pixels within
``LEVELS`` of 255, except for a share of ``TURNED``, since a pixel near the threshold of a mask may turn.
"""

import base64
import io
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from refstudy.base.files import atomic_write, note

POINTS, LEVELS, TURNED = 0.05, 5, 0.002  # LEVELS: one of the SHADES, where values differ by 3 of 255 or less
OUTLINE = "outline"  # the id of what follows a mask's pixels: compared as pixels
DRAWING = "drawing"  # the chunk of a PNG that holds its drawing as SVG, without the pictures
SHADES = [round(value * 63 / 255) * 255 // 63 for value in range(256)]  # 64 of each colour; black and white stay
PICTURE = re.compile(r'data:image/png;base64,\s*([^"]*)"')
LEFT_OUT = re.compile(  # glyphs, which the texts in comments name, and outlines
    r'<defs>\s*(<path id="\w+-[\da-f]+"[^>]*/>\s*)+</defs>|<use xlink:href="#\w+-[\da-f]+"[^>]*/>'
    rf'|<g id="{OUTLINE}[_\d]*">.*?</g>',
    re.DOTALL,
)
TEXT = re.compile(r"<!-- (.*?) -->", re.DOTALL)
IN_TEXT = re.compile(r"\d+\.\d+|\d+(?=\s?%)")
COORDINATE = re.compile(r"(?<![\w#.-])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])")
FINE = re.compile(r"(?<![\w#.-])(-?[1-9]\d*\.\d\d\d)\d+")
VOLATILE = re.compile(r'(?<=[#"])[a-z]+[\da-f]{10}(?=[")])')


def save(figure: Figure, folder: Path | str, name: str) -> Path:
    """Write ``<name>.png`` and, unless the figure shows pictures, ``<name>.svg`` into ``folder``; return the former.

    Files that agree with the drawing, as the module says, are left as they are.
    """
    folder = Path(folder)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the layout is found once, for both files
    drawing = _svg(figure)
    photographs = any(getattr(image.get_array(), "ndim", 0) == 3 for axes in figure.axes for image in axes.images)
    paths = [folder / f"{name}.{suffix}" for suffix in (("png",) if photographs else ("svg", "png"))]
    pixels = _png(figure, drawing) if photographs else b""
    if all(path.exists() for path in paths) and _agree(paths[0], drawing, pixels):
        for path in paths:
            note("wrote", path)
        return paths[-1]
    if photographs:
        (folder / f"{name}.svg").unlink(missing_ok=True)
    for path in paths:
        with atomic_write(path) as temporary:
            temporary.write_bytes(drawing.encode() if path.suffix == ".svg" else pixels or _png(figure))
    return paths[-1]


def _svg(figure: Figure) -> str:
    """The figure as SVG, without a date, coordinates to a thousandth of a point."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "refstudy"}, bbox_inches="tight")
    return FINE.sub(r"\1", out.getvalue())


def _png(figure: Figure, drawing: str = "") -> bytes:
    """The figure as PNG, which keeps its ``drawing`` without the pictures."""
    drawn, out, info = io.BytesIO(), io.BytesIO(), PngInfo()
    info.add_text("Software", "refstudy")
    if drawing:
        info.add_text(DRAWING, PICTURE.sub('"', drawing), zip=True)
    figure.savefig(drawn, format="png", bbox_inches="tight")
    image = Image.open(drawn)
    coarse = image.convert("RGB").point(SHADES * 3)  # 28 % smaller, by noise that nobody sees
    if colours := coarse.getcolors(256):  # few enough for a palette: the same pixels in half the bytes
        coarse = coarse.quantize(len(colours), dither=Image.Dither.NONE)
    coarse.save(out, format="png", pnginfo=info, dpi=image.info["dpi"], optimize=True)
    return out.getvalue()


def _agree(path: Path, drawing: str, pixels: bytes) -> bool:
    """Tell whether the SVG, or the PNG with its drawing, at ``path`` shows the same as a new one."""
    if path.suffix == ".svg":
        before = path.read_text(encoding="utf-8")
        old, new = ([_pixels(base64.b64decode(code)) for code in PICTURE.findall(text)] for text in (before, drawing))
    else:
        before = getattr(Image.open(path), "text", {}).get(DRAWING, "")
        old, new = [_pixels(path.read_bytes())], [_pixels(pixels)]
    return len(old) == len(new) and _drawings_agree(before, drawing) and all(map(_pictures_agree, old, new))


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def _pictures_agree(old: np.ndarray, new: np.ndarray) -> bool:
    return old.shape == new.shape and bool((np.abs(old.astype(int) - new).max(2) > LEVELS).mean() <= TURNED)


def _drawings_agree(old: str, new: str) -> bool:
    """Compare two SVG texts: the markup with its coordinates, and the texts with their numbers, which stand in turn."""
    parts = [TEXT.split(_plain(text)) for text in (old, new)]
    return len(parts[0]) == len(parts[1]) and all(
        _near(before, after, IN_TEXT) if k % 2 else _near(before, after, COORDINATE, POINTS)
        for k, (before, after) in enumerate(zip(*parts, strict=True))
    )


def _plain(svg: str) -> str:
    """An SVG without pictures, glyphs and outlines, its ids numbered in their order."""
    names: dict[str, str] = {}
    svg = LEFT_OUT.sub("", PICTURE.sub('"', svg))
    return VOLATILE.sub(lambda found: names.setdefault(found[0], f"id-{len(names)}"), svg)


def _near(old: str, new: str, number: re.Pattern[str], allowed: float = 0.0) -> bool:
    """Tell whether two texts are the same but for numbers that differ by at most ``allowed``, or, where that is 0, by
    one unit of their last digit."""
    before, after = number.findall(old), number.findall(new)
    if number.sub("", old) != number.sub("", new) or len(before) != len(after):
        return False
    return all(
        abs(float(a) - float(b)) <= (allowed or 1.01 * 10.0 ** -len(a.partition(".")[2]))
        for a, b in zip(before, after, strict=True)
    )
