"""Write results/scenes/rendered/: the executed notebooks of the last `refstudy run` with their outputs.

`make rendered` calls it after the run. What changes from one execution to the next is left out: papermill's times and
its cell of parameters, widgets, provenance, the names that pandas draws for styled tables. Pictures have 256 colours, a
third of the bytes. Links to the study's pages lead there from the copy's folder. A copy carries the digest of the cells
of its source (``source_digest``).
"""

import base64
import hashlib
import io
import json
import os
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SOURCES, RENDERED = ROOT / "notebooks", ROOT / "results" / "scenes" / "rendered"
EXECUTED = RENDERED.parent / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


def source_digest(notebook: NotebookNode) -> str:
    """The SHA-256 of the kinds, texts and tags of a notebook's cells."""
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, ensure_ascii=False).encode()).hexdigest()


def small(picture: str) -> str:
    """A PNG in base64 with 256 colours."""
    out = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def steady(outputs: list[NotebookNode], cell: int) -> None:
    """Name the styled tables of a cell by its number, where pandas draws a name by chance."""
    for number, data in enumerate(output["data"] for output in outputs if "text/html" in output.get("data", {})):
        data["text/html"] = re.sub(r"\bT_[0-9a-f]{5}(?=[\W_])", f"T_{cell}_{number}", data["text/html"])
        data["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", data.get("text/plain", ""))


def rendered(source: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The source with the outputs of its execution. Raises ValueError when that is an execution of other cells."""
    cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in cells] != [cell.source for cell in source.cells]:
        raise ValueError("executed from other cells")
    copy = nbformat.from_dict(source)
    count = 0
    for cell, done in zip(copy.cells, cells, strict=True):
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", f"]({os.path.relpath(ROOT, RENDERED)}/")
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [output for output in done.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = count
                if "metadata" in output:
                    output["metadata"] = {}
                if "image/png" in output.get("data", {}):
                    output["data"]["image/png"] = small(output["data"]["image/png"])
            steady(cell.outputs, count)
    copy.metadata["refstudy_source"] = source_digest(source)
    return copy


def main() -> str | None:
    RENDERED.mkdir(exist_ok=True)
    names = {path.name for path in SOURCES.glob("*.ipynb")}
    for path in RENDERED.glob("*.ipynb"):
        if path.name not in names:
            path.unlink()
    for name in sorted(names):
        source, executed = (nbformat.read(folder / name, as_version=4) for folder in (SOURCES, EXECUTED))
        try:
            copy = rendered(source, executed)
        except ValueError as error:
            # --fresh: a run does not execute a notebook again for another text alone
            again = f"refstudy run --profile scenes --fresh --only {name.removesuffix('.ipynb')}"
            return f"{EXECUTED / name}: {error}; run `{again}`"
        temporary = RENDERED / f".{name}"
        nbformat.write(copy, temporary)
        temporary.replace(RENDERED / name)
    megabytes = sum(path.stat().st_size for path in RENDERED.glob("*.ipynb")) / 1e6
    print(f"{RENDERED}: {len(names)} notebooks, {megabytes:.1f} MB")
    return None


if __name__ == "__main__":
    sys.exit(main())
