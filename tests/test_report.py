"""The report: every reference resolves without the network, nothing in a table is markup, origins are told truly."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from refstudy.analysis import figures
from refstudy.analysis.tables import build_table, write_table
from refstudy.base.errors import StudyError
from refstudy.base.files import JOURNAL, JOURNAL_SUFFIX, note
from refstudy.base.provenance import code_version
from refstudy.engine.journal import end_journal, journal_head, read_journal
from refstudy.engine.manifest import write_manifest
from refstudy.engine.report import WIDGET, write_report
from refstudy.training.records import circumstances, find_records

from .helpers import STUDY, fake_counts, put_counts

KNOWN = {"parameters": {"profile": "scenes"}, "code_cells": "c", "modules": {}, "settings": {}}
USAGE = {"versions": {"python": "3.11.7", "torch": "2.11.0"}, "device": "A <fast> one", "peak_memory_mb": 345}
EVIL = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def put_record(results, variant, intersection):
    put_counts(results, variant, fake_counts([0.0] * 20).assign(intersection=intersection))


def put_notebook(results, cell_times):
    start, end = (time.isoformat() for time in cell_times)
    drawing = new_code_cell("draw()", metadata={"papermill": {"start_time": start, "end_time": end}})
    drawing.outputs = [
        new_output("display_data", {WIDGET: {"model_id": "1"}, "text/plain": "interactive"}),
        new_output("display_data", {"text/html": "<p>drawn</p>"}),
    ]
    cells = [
        new_markdown_cell("# A notebook"),
        new_code_cell(f'study = "{STUDY.path}"', metadata={"tags": ["injected-parameters"]}),
        new_markdown_cell("## A picture of $x^2$\n\nText."),
        drawing,
        new_markdown_cell("*A caption,\nof two lines.*\n\nMore text."),
    ]
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}}
    nbformat.write(
        new_notebook(cells=cells, metadata={"widgets": widgets}), results / "notebooks" / "06_ablations.ipynb"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What ``refstudy run`` would leave: records, a table and a figure that a notebook made, and two it did not."""
    tmp_path = tmp_path_factory.mktemp("made")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv(JOURNAL, "")
    put_record(tmp_path, "tile_concat", 300)
    put_record(tmp_path, "s2rm_fpn", 500)
    put_record(tmp_path, "s2rm_casg", 600)
    (tmp_path / "notebooks").mkdir()
    journal = tmp_path / "notebooks" / f"06_ablations{JOURNAL_SUFFIX}"
    journal.write_text(journal_head("notebooks/06_ablations.ipynb", code_version(), KNOWN))
    monkeypatch.setenv(JOURNAL, str(journal))
    note("read", tmp_path / "data" / "refscenes")
    before = datetime.now(UTC)
    find_records(tmp_path / "records")
    write_table(build_table("s2rm_table4", STUDY.under("scenes", tmp_path)), tmp_path / "tables", "s2rm_table4")
    figure, axes = plt.subplots(figsize=(11, 3))
    axes.plot([1, 2])
    figures.save(figure, tmp_path / "figures", "a_line")
    put_notebook(tmp_path, (before, datetime.now(UTC)))
    end_journal(journal, 12.3, USAGE)
    monkeypatch.setenv(JOURNAL, "")
    write_table(pd.DataFrame({"expression": [EVIL, "dog"], "count": [10, 9]}), tmp_path / "tables", "expressions")
    figures.save(figure, tmp_path / "figures", "by_hand")
    plt.close(figure)
    (tmp_path / "claims.csv").write_text(f'claim,verdict\n"{EVIL}",undecided\n')
    monkeypatch.undo()
    return tmp_path


@pytest.fixture
def results(made, tmp_path):
    """A copy to write reports into."""
    return shutil.copytree(made, tmp_path / "results")


class References(HTMLParser):
    """What a page loads, what it links to, its ids and its elements."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.links, self.ids, self.elements = [], [], set(), []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.elements.append((tag, given))
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif address := given.get("src") or given.get("href"):
            self.loaded.append(address)


def test_every_reference_resolves_and_nothing_is_loaded_from_the_net(results):
    index = write_report(STUDY.under("scenes", results))
    assert index == results / "report" / "index.html"
    pages = sorted(index.parent.iterdir())
    assert {page.name for page in pages} == {"index.html", "06_ablations.html"}
    for page in pages:
        found = References(page)
        assert found.links
        for address in found.loaded:
            assert address.startswith("data:") or (page.parent / address).exists(), address
        for address in found.links:
            file, _, anchor = address.partition("#")
            target = page.parent / file if file else page
            assert target.exists() and target.resolve().is_relative_to(results.resolve()), address
            assert not anchor or anchor in References(target).ids, address
        text = page.read_text()
        assert not re.search(r"(url\(|import\(?|src=)\s*['\"]?(https?:)?//", text)
        assert "mathjax" not in text.lower() and "require.js" not in text


def test_tables_are_sortable_and_escaped(results):
    index = write_report(STUDY.under("scenes", results))
    found, text = References(index), index.read_text()
    sortable = [given for tag, given in found.elements if tag == "table" and given.get("class") == "sortable"]
    assert len(sortable) == 4  # two tables, the claims, the run records
    assert 'querySelectorAll("table.sortable")' in text
    assert text.count("&lt;script&gt;alert(") == 2 and "<script>alert(" not in text
    assert not [given for tag, given in found.elements if "onerror" in given]


def test_gains_carry_a_mark_beside_their_colour(results):
    put_counts(results, "s2rm_fpn", fake_counts([0.5] * 20), seed=1)  # with one run a row, nothing is known of seeds
    write_table(build_table("s2rm_table4", STUDY.under("scenes", results)), results / "tables", "s2rm_table4")
    text = write_report(STUDY.under("scenes", results)).read_text()
    cells = re.findall(r'<td class="[^"]*\babove\b[^"]*"\s*>([^<]*)</td>', text)
    assert cells == ["▲ +20.0 [+20.0, +20.0]"]
    assert "refstudy train --profile scenes --variant s2rm_no_shift" in text


def test_the_manifest_ties_each_file_to_what_made_it(results):
    write_report(STUDY.under("scenes", results))
    manifest = json.loads((results / "manifest.json").read_text())
    table, figure = manifest["tables"]["s2rm_table4"], manifest["figures"]["a_line"]
    for entry in (table, figure):
        assert entry["notebook"] == "notebooks/06_ablations.ipynb"
        assert entry["commit"] == circumstances()["commit"] and entry["time"]
        assert entry["data"] == ["data/refscenes"]
        assert entry["parameters"] == {"profile": "scenes"} and entry["seeds"] == [0] and len(entry["key"]) == 12
        assert entry["seconds"] == 12.3 and {name: entry[name] for name in USAGE} == USAGE
    assert {name.split("-")[0] for name in table["records"]} == {"tile_concat", "s2rm_fpn"}  # not the other table's
    assert len(figure["records"]) == 3
    assert set(figure["files"]) == {"a_line.svg", "a_line.png"}
    assert figure["section"] == "A picture of $x^2$" and figure["caption"] == "A caption, of two lines."
    assert manifest["figures"]["by_hand"]["notebook"] is None
    assert manifest["records"][table["records"][0]]["data_fingerprint"] == "one"


def test_a_table_of_gains_names_the_records_of_both_sides(results, monkeypatch):
    journal = results / "notebooks" / f"06_ablations{JOURNAL_SUFFIX}"
    *lines, end = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines))
    monkeypatch.setenv(JOURNAL, str(journal))
    gains = pd.DataFrame({"variant": ["s2rm_casg"], "reference": ["tile_concat"]})
    write_table(gains, results / "tables", "gains")
    monkeypatch.setenv(JOURNAL, "")
    with open(journal, "a") as out:
        out.write(end)
    entry = write_manifest(STUDY.under("scenes", results))["tables"]["gains"]
    assert {name.split("-")[0] for name in entry["records"]} == {"s2rm_casg", "tile_concat"}


def test_origins_outlive_the_executed_notebooks_but_not_a_change(results):
    first = write_manifest(STUDY.under("scenes", results))
    shutil.rmtree(results / "notebooks")
    assert write_manifest(STUDY.under("scenes", results)) == first
    with open(results / "tables" / "s2rm_table4.csv", "a") as out:
        out.write("\n")
    changed = write_manifest(STUDY.under("scenes", results))
    assert changed["tables"]["s2rm_table4"]["notebook"] is None
    assert changed["figures"] == first["figures"]


def test_pages_name_no_folder_of_the_machine(results):
    page = (write_report(STUDY.under("scenes", results)).parent / "06_ablations.html").read_text()
    assert "papermill_runs.yaml" in page and f"{STUDY.root}/" not in page


def test_the_report_says_how_long_it_took_on_what(results):
    text = write_report(STUDY.under("scenes", results)).read_text()
    assert text.count("the notebook took 12 s on A &lt;fast&gt; one") == 2  # the table and the figure of the notebook


def test_an_earlier_manifest_without_circumstances_is_taken_over(results):
    first = write_manifest(STUDY.under("scenes", results))
    shutil.rmtree(results / "notebooks")
    old = json.loads((results / "manifest.json").read_text())
    added = ("key", "parameters", "seeds", "versions", "device", "seconds", "peak_memory_mb", "peak_gpu_memory_mb")
    for entry in (*old["tables"].values(), *old["figures"].values()):
        for name in added:
            del entry[name]
    (results / "manifest.json").write_text(json.dumps(old))
    text = write_report(STUDY.under("scenes", results)).read_text()
    assert "Made by 06_ablations" in text and "the notebook took" not in text
    entry = json.loads((results / "manifest.json").read_text())["tables"]["s2rm_table4"]
    assert entry["commit"] == first["tables"]["s2rm_table4"]["commit"]
    assert entry["seconds"] is None and entry["device"] == "" and entry["versions"] == {}


def test_a_failed_report_leaves_the_earlier_one(results, monkeypatch):
    index = write_report(STUDY.under("scenes", results))
    before = index.read_text()
    monkeypatch.setattr("refstudy.engine.report.index_notebook", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(STUDY.under("scenes", results))
    assert index.read_text() == before
    assert not list(results.glob(".report*"))


def test_a_report_that_cannot_be_replaced_stays(results, monkeypatch):
    index, rename = write_report(STUDY.under("scenes", results)), Path.rename

    def refuse_first(path, target):
        if target == index.parent:
            monkeypatch.setattr(Path, "rename", rename)
            raise OSError("the disk is gone for a moment")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_first)
    with pytest.raises(OSError, match="for a moment"):
        write_report(STUDY.under("scenes", results))
    assert index.exists() and not list(results.glob(".report*"))


def test_a_report_of_nothing_says_how_to_make_something(tmp_path):
    text = write_report(STUDY.under("scenes", tmp_path)).read_text()
    assert "refstudy run --profile scenes --only 06_ablations" in text


def test_a_broken_manifest_is_named(results):
    (results / "manifest.json").write_text("{")
    with pytest.raises(StudyError, match="manifest.json: no manifest .*delete it"):
        write_manifest(STUDY.under("scenes", results))


def test_formulas_need_no_script_and_controls_say_what_they_are(results):
    write_report(STUDY.under("scenes", results))
    page = (results / "report" / "06_ablations.html").read_text()
    assert "<msup>" in page and "x^2" not in page
    assert "a control that works where the notebook runs" in page and "widget-state" not in page


PROBE = """<!doctype html><iframe src="report/{page}" style="width: {width}px; height: 900px; border: 0"></iframe>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const table = page.querySelector("#table-expressions")?.closest(".jp-Cell").nextElementSibling.querySelector("table");
  const counts = () => table && [...table.tBodies[0].rows].map((row) => row.cells[1].textContent.trim());
  const sorted = [0, 1].map(() => (table?.tHead.rows[0].cells[1].querySelector("button").click(), counts()));
  document.title = JSON.stringify({{
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth, sorted,
    pictures: [...page.images].map((image) => image.naturalWidth > 0),
    smallest: Math.min(...[...page.querySelectorAll("p, td, li")].map((e) => parseFloat(getComputedStyle(e).fontSize))),
  }});
}});
</script>"""


@pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed")
@pytest.mark.parametrize("width", [380, 1400])
def test_pages_fit_in_chromium_without_errors(results, width, tmp_path_factory):
    write_report(STUDY.under("scenes", results))
    for page in ("index.html", "06_ablations.html"):
        probe = results / "probe.html"
        probe.write_text(PROBE.format(page=page, width=width))
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
            "--window-size=1500,1000", "--virtual-time-budget=5000", "--dump-dom", probe.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr
        seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
        assert seen["width"] in (width, width - 15) and seen["overflow"] <= 0  # 15: a scroll bar
        assert all(seen["pictures"]) and seen["smallest"] >= 12
        if page == "index.html":
            assert len(seen["pictures"]) == 2 and seen["sorted"] == [["9", "10"], ["10", "9"]]


def test_a_record_that_a_notebook_made_itself_is_nothing_it_read(tmp_path, monkeypatch):
    journal = tmp_path / f"04_training{JOURNAL_SUFFIX}"
    journal.write_text(journal_head("notebooks/04_training.ipynb", code_version()))
    monkeypatch.setenv(JOURNAL, str(journal))
    put_record(tmp_path / "own", "s2rm_fpn", 500)
    with monkeypatch.context() as outside:
        outside.delenv(JOURNAL)
        put_record(tmp_path / "other", "s2rm_fpn", 500)
    (other,) = find_records(tmp_path / "other" / "records")
    find_records(tmp_path / "own" / "records")
    assert list(read_journal(journal).read()) == [other.path]
