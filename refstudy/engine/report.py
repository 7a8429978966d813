"""The report of a profile: what was found, the claims, the executed notebooks, tables and figures, as web pages that
need no network.

nbconvert turns the cells of notebooks into HTML, with the template in ``templates/report``; ``templates/page.html.j2``
is the page around them, with its navigation. Nothing is computed for the report that is not in the results folder.
"""

import html
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import latex2mathml.converter
import nbformat
import numpy as np
import pandas as pd
from jinja2 import pass_context
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pandas.io.formats.style import Styler

from refstudy.analysis.inference import UNMEASURED
from refstudy.analysis.table_files import read_table
from refstudy.analysis.table_text import render, render_comparison, untrained
from refstudy.analysis.tables import COMPARISONS, PAPER_TABLES, TABLES
from refstudy.base.files import atomic_folder
from refstudy.base.yaml_files import read_yaml
from refstudy.engine.manifest import executed_notebooks, explained, write_manifest
from refstudy.engine.pages import findings
from refstudy.metrics import METRICS
from refstudy.study.file import ProfileStudy

TEMPLATES = Path(__file__).parent / "templates"
PAGES = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
WIDGET = "application/vnd.jupyter.widget-view+json"
NBVAL_MARK = re.compile(r"# NBVAL_\w+\n")
MARKS = {1: ("▲ ", "above"), -1: ("▼ ", "below"), 0: ("· ", "")}  # by the signs of both ends of an interval
NUMBER = re.compile(r"[▲▼·\s]*[+-]?\d[\d.]*(e[+-]?\d+)?( \[[^\]]*\])?")
LENGTHS, LONGEST = "s2rm_table3", 60  # tables of more rows are linked to, not shown
GAIN = f"gain in {METRICS[0]}\nours"
GROUPS = {  # of notebooks, by their names after the number; all others are lessons
    "Results": ("comparison", "ablations", "length_buckets", "failure_cases"),
    "Audit": ("paper_audit",),
}
HEADING = r'<h([1-4])(?: id="([^"]*)")?[^>]*>(.*?)</h\1>'
TITLES_FILE = read_yaml(Path(__file__).with_name("titles.yaml")).content
FIRST_FIGURES, PAPER_FIGURES = TITLES_FILE["first_figures"], TITLES_FILE["paper_figures"]
TITLES = PAPER_TABLES | PAPER_FIGURES | TITLES_FILE["others"]


class _Renderer(IPythonRenderer):
    """Markdown with its formulas as MathML, which browsers show without a script."""

    def inline_math(self, body: str) -> str:
        return latex2mathml.converter.convert(body)

    def block_math(self, body: str) -> str:
        return f'<div class="formula" tabindex="0">{latex2mathml.converter.convert(body, display="block")}</div>'


class CellExporter(HTMLExporter):
    """nbconvert's exporter of a notebook's cells, without a page around them, with the report's formulas."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return _html(source, context.get("cell", {}).get("attachments", {}))


def _html(markdown: str, attachments: Any = None) -> str:
    renderer = _Renderer(escape=False, attachments=attachments or {}, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(markdown)


def write_report(study: ProfileStudy) -> Path:
    """Write ``manifest.json`` and ``report/index.html`` into a profile's results; return the path of the latter.

    An earlier report is replaced when the new one is complete.
    """
    folder, manifest = study.folder, write_manifest(study)
    kept = [path for path in executed_notebooks(folder) if path.stem in study.file.runs]  # others: of an earlier study
    notebooks = [nbformat.read(path, as_version=4) for path in kept]
    pages = [_about(path, notebook) for path, notebook in zip(kept, notebooks, strict=True)]
    names, no_prompts = [path.stem for path in kept], {"exclude_input_prompt": True, "exclude_output_prompt": True}
    exporter = CellExporter(template_name="report", extra_template_basedirs=[str(TEMPLATES)], **no_prompts)
    with atomic_folder(folder / "report") as new:
        for notebook, about, before, after in zip(notebooks, pages, [None, *pages], [*pages[1:], None], strict=False):
            body = exporter.from_notebook_node(prepared(notebook, study.file.root, about["group"]))[0]
            body = relinked(body, names, study.file.root, folder / "report")
            page = whole_page(about["title"], body, before=before, after=after)
            (new / f"{about['name']}.html").write_text(page, encoding="utf-8")
        contents = PAGES.get_template("contents.html.j2").render(contents_of(study, manifest, pages))
        text = whole_page(f"refstudy report: {study.profile}", contents)
        (new / "index.html").write_text(text, encoding="utf-8")
    return folder / "report" / "index.html"


def relinked(body: str, pages: Sequence[str], root: Path, report: Path) -> str:
    """HTML of a notebook for the folder ``report``: links to other notebooks lead to their ``pages``, links to files
    of the study to these files; where a link leads nowhere, or the report lies outside the study, its text stays."""

    def link(found: re.Match[str]) -> str:
        path, anchor, text = found.groups(default="")
        target = root / "notebooks" / path
        if path.endswith(".ipynb") and Path(path).stem in pages:
            return f'<a href="{Path(path).stem}.html{anchor.lower()}">{text}</a>'
        if target.exists() and report.is_relative_to(root):
            return f'<a href="{os.path.relpath(target, report)}{anchor}">{text}</a>'
        return text

    return re.sub(r'<a href="(?![a-z]+:|#|/)([^"#]+)(#[^"]*)?"[^>]*>(.*?)</a>', link, body, flags=re.DOTALL)


def _about(path: Path, notebook: NotebookNode) -> dict[str, Any]:
    """A notebook's name, title, question, group and time."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    title = next((text.splitlines()[0].lstrip("# ") for text in texts if text.startswith("# ")), path.stem)
    question = next((part for text in texts for part in text.split("\n\n") if part.startswith("**Question.**")), "")
    own = path.stem.partition("_")[2]
    group = next((group for group, names in GROUPS.items() if own in names), "Lessons")
    seconds = notebook.metadata.get("refstudy", {}).get("seconds")
    return {
        "name": path.stem,
        "title": title,
        "question": Markup(_html(question.removeprefix("**Question.** "))),
        "group": group,
        "time": "" if seconds is None else f"{max(1, round(seconds / 60))} min",
    }


def prepared(notebook: NotebookNode, root: Path, group: str) -> NotebookNode:
    """The notebook to be shown: without the cell of injected parameters, marks for tests and controls; pictures with
    their caption as alternative text; code folded, in ``Lessons`` that of set-up and of conclusions alone."""
    notebook.metadata.pop("widgets", None)
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for number, (cell, section, caption) in enumerate(explained(notebook.cells)):
        cell.source = NBVAL_MARK.sub("", cell.source).replace(f"{root}{os.sep}", "")
        cell.metadata["alt"] = plain(caption or section)
        tagged = "hide-input" in cell.metadata.get("tags", [])
        cell.metadata["folded"] = group != "Lessons" or number < 2 or section == "What was learned" or tagged
        for output in cell.get("outputs", []):
            if output.get("data", {}).pop(WIDGET, None):
                output["data"] = {"text/plain": "(a control that works where the notebook runs)"}
    return notebook


def plain(markdown: str) -> str:
    """A text without the marks of emphasis, code and formulas, in one line."""
    return " ".join(re.sub(r"[*`$]|\\(?=\w)|(?<=\w)[{}]", "", markdown).split())


def whole_page(title: str, body: str, **links: Any) -> str:
    """A whole page: the body made accessible, a table of contents of its headings, links to other pages."""
    body = accessible(body)
    contents = [
        {"level": int(level), "id": name, "text": re.sub(r"<math.*?</math>|<[^>]+>", "", text).strip()}
        for level, name, text in re.findall(HEADING, body, re.DOTALL)
        if level in "23" and name
    ]
    return PAGES.get_template("page.html.j2").render(title=title, body=Markup(body), contents=contents, **links)


def accessible(body: str) -> str:
    """HTML whose headings have ids, and whose tables have a caption, heads with their scope, and scroll by keyboard."""
    taken: set[str] = set()
    section, tables = "Table", Counter[str]()

    def heading(found: re.Match[str]) -> str:
        nonlocal section
        level, given, text = found.groups()
        section = re.sub(r"<[^>]+>", "", text).strip() or section
        name = given or re.sub(r"\W+", "-", section.lower()).strip("-") or "section"
        while name in taken:
            name += "-"
        taken.add(name)
        return f'<h{level} id="{name}">{text}</h{level}>'

    def table(found: re.Match[str]) -> str:
        text = re.sub(r"\(-(?=\w)", "(‑", found[0])  # a hyphen at which no line ends
        head, mark, rest = text.partition("</thead>")
        head = re.sub(r"<th(?=[ >])(?![^>]*scope=)(?=[^>]*colspan)", '<th scope="colgroup"', head)
        head = re.sub(r"<th(?=[ >])(?![^>]*scope=)", '<th scope="col"', head)
        rest = re.sub(r"<th(?=[ >])(?![^>]*scope=)", '<th scope="row"', rest)
        text = re.sub(r'<th(?: scope="\w+")?([^>]*)>\s*(?:&nbsp;)?</th>', r"<td\1></td>", head + mark + rest)
        caption = "" if "<caption" in text else f'<caption class="quiet">{section}</caption>'
        text = re.sub(r"(<table[^>]*>)", rf"\1{caption}", text, count=1).replace(' border="1"', "")
        tables[section] += 1
        number = f", table {tables[section]}" if tables[section] > 1 else ""
        name = html.escape(html.unescape(section)) + number
        return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{text}</div>'

    either = re.compile(rf"{HEADING}|<table.*?</table>", re.DOTALL)
    return either.sub(lambda found: table(found) if found[1] is None else heading(found), body)


def contents_of(study: ProfileStudy, manifest: dict[str, Any], pages: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the first page: findings and their figure, claims, notebooks by group, tables, figures,
    provenance."""
    folder, about = study.folder, study.settings.about
    names = [page["name"] for page in pages]
    tables = [_table(stem, folder, manifest, names) for stem in sorted(manifest["tables"])]
    figures = [_figure(stem, manifest, names) for stem in sorted(manifest["figures"])]
    first = next((figure for name in FIRST_FIGURES for figure in figures if figure["stem"] == name), None)
    groups = {group: [page for page in pages if page["group"] == group] for group in ("Lessons", *GROUPS)}
    texts = [_plain(path) for path in sorted((folder / "tables").glob("[!.]*.csv"))]
    return {
        "profile": study.profile,
        "about": f"{about[:1].upper()}{about[1:]}",
        "findings": [Markup(_html(text)) for text in findings(study.file, folder)],
        "first": first,
        "claims": _claims(folder / "claims.csv"),
        "groups": {group: own for group, own in groups.items() if own},
        "absent": [name for name in study.file.runs if name not in names],
        "paper_tables": [one for one in tables if one["stem"] in PAPER_TABLES],
        "other_tables": [one for one in tables if one["stem"] not in PAPER_TABLES],
        "paper_figures": [one for one in figures if one["stem"] in PAPER_FIGURES],
        "other_figures": [one for one in figures if one["stem"] not in PAPER_FIGURES],
        "missing": [title_of(name) for name in PAPER_FIGURES if name not in manifest["figures"]],
        "records": _records(manifest),
        "untrained": Markup(_html(untrained(*(text for text in texts if "missing" in text)))),
    }


def title_of(stem: str) -> str:
    """The title of a table or figure; of one that has none its name in words."""
    return TITLES.get(stem, stem.replace("_", " ").capitalize())


def _table(stem: str, folder: Path, manifest: dict[str, Any], pages: list[str]) -> dict[str, Any]:
    """The part of the page for a table: title, where both sides were measured, the table, its origin."""
    path = folder / "tables" / f"{stem}.csv"
    table = _plain(path)
    own = table[table["metric"].isin(METRICS)] if "metric" in table else table  # costs are counted, not measured
    measured = [name for name in dict.fromkeys(own.get("data", ())) if name]
    note = f"Printed: {TABLES[stem].printed_on}." if stem in TABLES else ""
    note += f" Ours: {', '.join(measured)}." if stem in PAPER_TABLES and measured else ""
    if stem in TABLES:
        shown = _compared(path)
    elif stem in COMPARISONS:
        shown = table_html(render_comparison(read_table(path).fillna({"data": ""})).reset_index())
    elif stem == LENGTHS:
        shown = _buckets(path)
    else:
        shown = f"<p>{len(table)} rows, in the file below.</p>"
        if len(table) <= LONGEST:
            shown = table_html(table.drop(columns="records", errors="ignore"))
    origin = _origin({f"{stem}.csv": f"../tables/{stem}.csv"}, manifest["tables"][stem], manifest, pages)
    return {"stem": stem, "title": title_of(stem), "note": note, "table": Markup(shown), "origin": origin}


def _buckets(path: Path) -> str:
    """Table III as a web table: a line per method, as printed, then a line for each of ours, named with its data."""
    table = read_table(path)
    ours = table[table["ours"].notna()]
    ours = ours.assign(row="ours, on " + ours["data"].astype(str) + ", as " + ours["row"], printed=ours["ours"])
    cells = pd.concat([table, ours])
    cells["bucket"] = cells["dataset"] + "\n" + cells["bucket"] + " words"
    wide = cells.set_index(["row", "bucket"])["printed"].unstack(sort=False)
    return table_html(wide.map("{:.2f}".format).replace("nan", "").reset_index())


def _compared(path: Path) -> str:
    """One of ``TABLES`` as a web table, from its CSV file: printed and our numbers, the gains first, marked by where
    their intervals lie."""
    table = read_table(path).astype({"variant": object, "data": object, "missing": object})
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


def _plain(path: Path) -> pd.DataFrame:
    return read_table(path, dtype=str, keep_default_na=False)


def table_html(table: pd.DataFrame, classes: pd.DataFrame | None = None) -> str:
    """A table of strings as HTML that the page's script sorts; everything in it is escaped."""
    numeric = {name: all(not cell or NUMBER.fullmatch(cell) for cell in table[name]) for name in table}
    kinds = pd.DataFrame({name: "number" if numeric[name] else "text" for name in table}, index=table.index)
    if classes is not None:
        kinds[classes.columns] += " " + classes
    table = table.rename(columns=lambda name: html.escape(str(name)).replace("\n", "<br>"))
    kinds.columns = table.columns
    styler = Styler(table, uuid_len=0, cell_ids=False).hide(axis="index").format(escape="html").set_td_classes(kinds)
    return styler.to_html(table_attributes='class="sortable"')


def _claims(path: Path) -> dict[str, Any] | None:
    """The claims ledger to read: those with a verdict, the verdict coloured; and those that wait for their runs."""
    if not path.exists():
        return None
    columns = "paper claim verdict metric printed measured low high runs reference_runs".split()
    table = _plain(path).reindex(columns=columns, fill_value="")
    interval = "[" + table["low"] + ", " + table["high"] + "]"
    table["95 % interval"] = interval.where(table["low"] != "", "")
    both = zip(table["runs"], table["reference_runs"], strict=True)
    table["runs"] = [own if own == other else f"{own} / {other}" for own, other in both]
    shown = table[["paper", "claim", "verdict", "metric", "printed", "measured", "95 % interval", "runs"]]
    classes = pd.DataFrame("", shown.index, shown.columns)
    classes["verdict"] = "verdict " + shown["verdict"].str.replace(" ", "-")
    waiting = shown["verdict"] == UNMEASURED
    found: dict[str, Any] = {"count": int(waiting.sum())}
    for name, rows in (("judged", ~waiting), ("waiting", waiting)):
        if rows.any():
            found[name] = Markup(table_html(*(frame[rows].reset_index(drop=True) for frame in (shown, classes))))
    return found


def _figure(stem: str, manifest: dict[str, Any], pages: list[str]) -> dict[str, Any]:
    """The part of the page for a figure: title, file, alternative text, caption, origin."""
    entry = manifest["figures"][stem]
    caption = entry["caption"].strip("*")
    return {
        "stem": stem,
        "title": title_of(stem),
        "file": f"../figures/{next(iter(entry['files']))}",
        "alt": plain(caption) or title_of(stem),
        "caption": Markup(_html(re.sub(r"(?<!\w)\*+|\*+(?!\w)", "", caption))),
        "origin": _origin({name: f"../figures/{name}" for name in entry["files"]}, entry, manifest, pages),
    }


def _origin(files: dict[str, str], entry: dict[str, Any], manifest: dict[str, Any], pages: list[str]) -> dict[str, Any]:
    """The origin of a table or figure: files, notebook and section that made it, data, circumstances, records."""
    around = manifest.get("notebooks", {}).get(entry["notebook"])
    of_records = (manifest["records"][name]["data"] for name in entry["records"] if name in manifest["records"])
    data = [*entry["data"], *dict.fromkeys(of_records)]
    parts = [f"data: {', '.join(data)}"] if data else []
    if around:
        changes = " with uncommitted changes" if around["uncommitted_changes"] else ""
        parts.append(f"commit {around['commit'][:12] or 'unknown'}{changes}")
        parts.append(f"{around['time'][:16].replace('T', ' ')} UTC")
        if around["seconds"] is not None:
            device = f" on {around['device']}" if around["device"] else ""
            parts.append(f"the notebook took {around['seconds']:.0f} s{device}")
    name = Path(entry["notebook"]).stem if entry["notebook"] else ""
    return {
        "files": files,
        "notebook": name,
        "page": f"{name}.html" if name in pages else "",
        "section": plain(entry["section"]),
        "circumstances": "; ".join(parts),
        "records": ", ".join(entry["records"]),
    }


def _records(manifest: dict[str, Any]) -> Any:
    if not manifest["records"]:
        return ""
    table = pd.DataFrame.from_dict(manifest["records"], orient="index").drop(columns="sha256")
    table["commit"] = table["commit"].str[:12]
    return Markup(table_html(table.rename_axis("record").reset_index().fillna("").astype(str)))
