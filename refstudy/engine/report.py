"""The report of a profile: its tables, figures, claims and executed notebooks as web pages that need no network.

nbconvert makes every page with the template in ``templates/report``. The contents page is a notebook too, put
together here from the files in the results folder; nothing is computed for it that is not in them.
"""

import html
import os
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
import nbformat
import numpy as np
import pandas as pd
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pandas.io.formats.style import Styler

from refstudy.analysis.figures import PAPER_FIGURES
from refstudy.analysis.tables import PAPER_TABLES, TABLES, render, untrained
from refstudy.base.files import atomic_folder
from refstudy.engine.manifest import executed_notebooks, write_manifest
from refstudy.metrics import METRICS
from refstudy.study.file import ProfileStudy

TEMPLATES = Path(__file__).parent / "templates"
WIDGET = "application/vnd.jupyter.widget-view+json"
MARKS = {1: ("▲ ", "above"), -1: ("▼ ", "below"), 0: ("· ", "")}  # by the signs of both ends of an interval
NUMBER = re.compile(r"[▲▼·\s]*[+-]?\d[\d.]*(e[+-]?\d+)?( \[[^\]]*\])?")


class _Renderer(IPythonRenderer):
    """Markdown with its formulas as MathML, which browsers show without a script."""

    def inline_math(self, body: str) -> str:
        return latex2mathml.converter.convert(body)

    def block_math(self, body: str) -> str:
        return latex2mathml.converter.convert(body, display="block")


class PageExporter(HTMLExporter):
    """nbconvert's exporter with the report's template and formulas."""

    def __init__(self, **options: Any):
        super().__init__(
            template_name="report",
            extra_template_basedirs=[str(TEMPLATES)],
            exclude_input_prompt=True,
            exclude_output_prompt=True,
            **options,
        )

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, attachments=attachments, exclude_anchor_links=True)
        return MarkdownWithMath(renderer=renderer).render(source)


def write_report(study: ProfileStudy) -> Path:
    """Write the manifest of a profile's results and ``report/index.html`` beside them; return the latter.

    An earlier report is replaced when the new one is complete.
    """
    folder = study.folder
    manifest = write_manifest(study)
    pages = executed_notebooks(folder)
    with atomic_folder(folder / "report") as new:
        for page in pages:
            executed = _without_root(nbformat.read(page, as_version=4), study.file.root)
            (new / f"{page.stem}.html").write_text(_page(executed, page.stem), encoding="utf-8")
        contents = index_notebook(study, manifest, pages)
        (new / "index.html").write_text(
            _page(contents, f"refstudy report: {study.profile}", exclude_input=True), encoding="utf-8"
        )
    return folder / "report" / "index.html"


def _without_root(notebook: NotebookNode, root: Path) -> NotebookNode:
    """The notebook with the parameters that it was executed with as they would be written in the study's folder."""
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace(f"{root}{os.sep}", "")
    return notebook


def _page(notebook: NotebookNode, title: str, **options: Any) -> str:
    notebook.metadata.pop("widgets", None)
    notebook.metadata["title"] = title
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("data", {}).pop(WIDGET, None):
                output["data"] = {"text/plain": "(a control that works where the notebook runs)"}
    return PageExporter(**options).from_notebook_node(notebook)[0]


def index_notebook(study: ProfileStudy, manifest: dict[str, Any], pages: list[Path]) -> NotebookNode:
    """The contents page: tables, figures, the claims ledger where there is one, notebooks, run records, what is
    missing."""
    names, folder, about = [page.stem for page in pages], study.folder, study.settings.about
    sections = {
        "Tables": _tables(folder, manifest, names),
        "Figures": _figures(manifest, names),
        "Claims": _ledger(folder / "claims.csv"),
        "Notebooks": _notebooks(study, pages),
        "Run records": _records(manifest),
        "Still to be trained": _missing(folder),
    }
    sections = {title: cells for title, cells in sections.items() if cells}
    head = (
        f"# Report of the profile *{study.profile}*\n\n{about[:1].upper()}{about[1:]}.\n\n"
        "Ours stand beside the printed numbers with their 95 % intervals. They are measured on other data and at "
        "another size than the printed ones, as each table says, so only differences within one column can be "
        "compared. A gain is marked ▲ where its whole interval lies above zero, ▼ where it lies below, · where it "
        "holds zero: each on its own; the claims have verdicts, which are judged together. A click on a column's head "
        "sorts a table.\n\n"
    )
    links = []
    for title, cells in sections.items():
        links.append(f"- [{title}](#{_anchor(title)})")
        links += [f"    - [{inner}](#{name})" for cell in cells for name, inner in re.findall(HEADING, cell.source)]
    cells = [new_markdown_cell(head + "## Contents\n\n" + "\n".join(links))]
    for title, content in sections.items():
        cells += [new_markdown_cell(f'<h2 id="{_anchor(title)}">{title}</h2>'), *content]
    return new_notebook(cells=cells, metadata={"refstudy_index": True})


HEADING = r'<h3 id="([^"]+)">([^<]+)</h3>'


def _title(stem: str) -> str:
    """The heading of a table or figure that no paper numbers."""
    words = stem.replace("_", " ").replace("s2rm", "S²RM").replace("slvit", "SLViT")
    return words[:1].upper() + words[1:]


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _tables(folder: Path, manifest: dict[str, Any], pages: list[str]) -> list[NotebookNode]:
    """The papers' tables by number, then the others."""
    cells = []
    for stem, entry in sorted(manifest["tables"].items(), key=lambda item: (item[0] not in PAPER_TABLES, item[0])):
        path = folder / "tables" / f"{stem}.csv"
        title = PAPER_TABLES.get(stem, _title(stem))
        measured = [name for name in _plain(path).get("data", pd.Series(dtype=str)).unique() if name]
        note = f"\n\nPrinted: {TABLES[stem].printed_on}. " if stem in TABLES else ""
        note += f"Ours: {', '.join(map(html.escape, measured))}." if note and measured else ""
        file = f'<a href="../tables/{stem}.csv">{stem}.csv</a>'
        heading = f'<h3 id="table-{stem}">{html.escape(title)}</h3>'
        cells += [
            new_markdown_cell(heading + note),
            _output(_compared(path) if stem in TABLES else table_html(_plain(path))),
            new_markdown_cell(_origin(file, entry, manifest, pages)),
        ]
    return cells


def _compared(path: Path) -> str:
    """One of ``TABLES`` as a web table, from its CSV file: printed beside ours, first the gains, marked by where
    their intervals lie."""
    table = pd.read_csv(path).astype({"variant": object, "data": object, "missing": object})
    table = table.fillna({"variant": "", "data": "", "missing": ""})
    shown = render(table).drop(columns="our data", level=0)
    shown.columns = pd.Index(["\n".join(filter(None, column)) for column in shown.columns])
    gains = [name for name in shown.columns if name.startswith("gain")]
    shown = shown[[*gains, *shown.columns.drop(gains)]]
    classes = pd.DataFrame("", shown.index, shown.columns)
    for line in table.query("metric == @METRICS[0]").dropna(subset=["gain_low"]).itertuples():
        mark, colour = MARKS[int((np.sign(line.gain_low) + np.sign(line.gain_high)) / 2)]
        shown.loc[line.row, GAIN] = mark + shown.loc[line.row, GAIN]
        classes.loc[line.row, GAIN] = colour
    return table_html(shown.astype(str).reset_index(), classes.reset_index(drop=True))


SORTABLE = 'class="sortable"'
GAIN = f"gain in {METRICS[0]}\nours"


def _plain(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def table_html(table: pd.DataFrame, classes: pd.DataFrame | None = None) -> str:
    """A table of strings as HTML that the page's script sorts; everything in it is escaped."""
    numeric = {name: all(not cell or NUMBER.fullmatch(cell) for cell in table[name]) for name in table}
    kinds = pd.DataFrame({name: "number" if numeric[name] else "" for name in table}, index=table.index)
    if classes is not None:
        kinds[classes.columns] += " " + classes
    table = table.rename(columns=lambda name: html.escape(str(name)).replace("\n", "<br>"))
    kinds.columns = table.columns
    styler = Styler(table, uuid_len=0, cell_ids=False).hide(axis="index").format(escape="html").set_td_classes(kinds)
    return f'<div class="scroll">{styler.to_html(table_attributes=SORTABLE)}</div>'


def _output(content: str) -> NotebookNode:
    return new_code_cell(outputs=[new_output("display_data", {"text/html": content})])


def _figures(manifest: dict[str, Any], pages: list[str]) -> list[NotebookNode]:
    """The papers' figures by number, then the others; a figure of the papers that was not made is named."""
    cells = []
    ours = {stem: _title(stem) for stem in manifest["figures"] if stem not in PAPER_FIGURES}
    for stem, name in (PAPER_FIGURES | ours).items():
        title = html.escape(name)
        if stem not in manifest["figures"]:
            cells.append(
                new_markdown_cell(f'<h3 id="figure-{stem}">{title}</h3>\n\nNot made yet; its notebook says why.')
            )
            continue
        entry = manifest["figures"][stem]
        shown, *others = entry["files"]
        plain = re.sub(r"[*`$]", "", entry["caption"]) or title
        files = ", ".join(f'<a href="../figures/{name}">{name}</a>' for name in (shown, *others))
        cells.append(
            new_markdown_cell(
                f'<h3 id="figure-{stem}">{title}</h3>\n'
                f'<div class="figure"><img src="../figures/{shown}" alt="{html.escape(plain)}"></div>\n\n'
                + (f"{entry['caption']}\n\n" if entry["caption"] else "")
                + _origin(files, entry, manifest, pages)
            )
        )
    return cells


def _origin(files: str, entry: dict[str, Any], manifest: dict[str, Any], pages: list[str]) -> str:
    """The origin of a table or figure, in a line of HTML."""
    if entry["notebook"] is None:
        return f'<p class="origin">{files}. No notebook is known to have written these bytes.</p>'
    name = Path(entry["notebook"]).stem
    link = f'<a href="{name}.html">{name}</a>' if name in pages else name
    parts = [f"{files}. Made by {link}" + (f", “{html.escape(entry['section'])}”" if entry["section"] else "")]
    data = [
        *entry["data"],
        *dict.fromkeys(manifest["records"][r]["data"] for r in entry["records"] if r in manifest["records"]),
    ]
    if data:
        parts.append("data: " + html.escape(", ".join(data)))
    changes = " with uncommitted changes" if entry["uncommitted_changes"] else ""
    parts.append(f"commit {entry['commit'][:12] or 'unknown'}{changes}")
    parts.append(f"{entry['time'][:16].replace('T', ' ')} UTC")
    if entry["seconds"] is not None:
        device = f" on {html.escape(entry['device'])}" if entry["device"] else ""
        parts.append(f"the notebook took {entry['seconds']:.0f} s{device}")
    records = ""
    if entry["records"]:
        listed = ", ".join(html.escape(record) for record in entry["records"])
        count = len(entry["records"])
        records = f"<details><summary>{count} run record{'s'[: count > 1]}</summary>{listed}</details>"
    return f'<div class="origin">{"; ".join(parts)}.{records}</div>'


def _ledger(path: Path) -> list[NotebookNode]:
    return [_output(table_html(_plain(path)))] if path.exists() else []


def _notebooks(study: ProfileStudy, pages: list[Path]) -> list[NotebookNode]:
    lines = []
    for page in pages:
        cells = nbformat.read(page, as_version=4).cells
        titles = (cell.source.splitlines()[0].lstrip("# ") for cell in cells if cell.source.startswith("# "))
        lines.append(f"- [{page.stem}]({page.stem}.html): {next(titles, '')}")
    absent = [name for name in study.file.runs if name not in {page.stem for page in pages}]
    lines += [f"- {name}: not executed here; `refstudy run --profile {study.profile} --only {name}`" for name in absent]
    return [new_markdown_cell("\n".join(lines))]


def _records(manifest: dict[str, Any]) -> list[NotebookNode]:
    if not manifest["records"]:
        return []
    table = pd.DataFrame.from_dict(manifest["records"], orient="index").drop(columns="sha256")
    table["commit"] = table["commit"].str[:12]
    return [_output(table_html(table.rename_axis("record").reset_index().fillna("").astype(str)))]


def _missing(folder: Path) -> list[NotebookNode]:
    tables = [table for path in sorted((folder / "tables").glob("[!.]*.csv")) if "missing" in (table := _plain(path))]
    text = untrained(*tables)
    after = "A command trains what is missing; the next `refstudy run` fills its rows.\n\n"
    return [new_markdown_cell(after + text)] if text else []
