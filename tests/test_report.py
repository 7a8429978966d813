"""The report: every reference resolves without the network, nothing in a table is markup, origins are told truly."""

import base64
import hashlib
import importlib
import json
import os
import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from refstudy.analysis import figures
from refstudy.analysis.table_files import write_table
from refstudy.analysis.tables import build_table
from refstudy.base.errors import StudyError
from refstudy.base.files import JOURNAL, JOURNAL_SUFFIX, file_digest, note
from refstudy.base.provenance import code_version
from refstudy.engine.journal import end_journal, journal_head, read_journal
from refstudy.engine.manifest import write_manifest
from refstudy.engine.report import TITLES, WIDGET, relinked, write_report
from refstudy.training.records import circumstances, find_records

from .helpers import ROOT, STUDY, fake_counts, put_counts

KNOWN = {"parameters": {"profile": "scenes"}, "code_cells": "c", "modules": {}, "settings": {}}
USAGE = {"versions": {"python": "3.11.7", "torch": "2.11.0"}, "device": "A <fast> one", "peak_memory_mb": 345}
EVIL = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def put_record(results, variant, intersection):
    put_counts(results, variant, fake_counts([0.0] * 20).assign(intersection=intersection))


def put_notebook(results, cell_times):
    start, end = (time.isoformat() for time in cell_times)
    picture = BytesIO()
    Image.new("RGB", (30, 20), "red").save(picture, "png")
    drawing = new_code_cell(
        "# NBVAL_CHECK_OUTPUT\n# NBVAL_IGNORE_OUTPUT\ndraw()",
        metadata={"papermill": {"start_time": start, "end_time": end}},
    )
    drawing.outputs = [
        new_output("display_data", {WIDGET: {"model_id": "1"}, "text/plain": "interactive"}),
        new_output("display_data", {"text/html": "<p>drawn</p>"}),
        new_output("display_data", {"image/png": base64.b64encode(picture.getvalue()).decode()}),
    ]
    cells = [
        new_markdown_cell("# A notebook"),
        new_code_cell(f'study = "{STUDY.path}"', metadata={"tags": ["injected-parameters"]}),
        new_markdown_cell("## A picture of $x^2$\n\nText."),
        drawing,
        new_markdown_cell(
            "*A caption,\nof two lines.*\n\nMore text: [this](06_ablations.ipynb), [a page](../README.md)."
        ),
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
    (tmp_path / "claims.csv").write_text(f'paper,claim,measured,printed,runs,verdict\nS²RM,"{EVIL}",,,,undecided\n')
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


def test_links_of_a_notebook_lead_to_pages_and_files(tmp_path):
    for folder in ("docs", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs" / "a.md").write_text("")
    page, file, web = (
        '<a href="06_x.ipynb#One">a</a>',
        '<a href="../docs/a.md#b">b</a>',
        '<a href="https://x.org">c</a>',
    )
    body = f'{page} {file} {web} <a href="gone.md">d</a>'
    inside = relinked(body, ["06_x"], tmp_path, tmp_path / "results" / "scenes" / "report")
    assert inside == f'<a href="06_x.html#one">a</a> <a href="../../../docs/a.md#b">b</a> {web} d'
    assert relinked(body, [], tmp_path, tmp_path.parent / "report") == f"a b {web} d"


def test_tables_are_sortable_named_and_escaped(results):
    index = write_report(STUDY.under("scenes", results))
    found, text = References(index), index.read_text()
    assert text.count("<caption") == text.count("<table") and "<th>" not in text
    assert all(given.get("scope") for tag, given in found.elements if tag == "th")
    sortable = [given for tag, given in found.elements if tag == "table" and given.get("class") == "sortable"]
    assert len(sortable) == 4  # two tables, the claims, the run records
    assert 'querySelectorAll("table.sortable")' in text
    assert text.count("&lt;script&gt;alert(") == 2 and "<script>alert(" not in text
    assert not [given for tag, given in found.elements if "onerror" in given]


def test_the_report_opens_with_what_was_found(results):
    text = write_report(STUDY.under("scenes", results)).read_text()
    parts = ("What was found", "Claims", "Notebooks", "The papers' tables", "The papers' figures", "Further tables")
    places = [text.index(f">{title}", text.index("<main")) for title in parts]
    assert places == sorted(places) and len(text.encode()) < 1_000_000
    found = text[places[0] : places[1]]
    assert (
        "<strong>Models.</strong> Of 2 trained models of the papers' tables, S²RM + FPN (50.0 %, 1 run) has the highest"
        in found
    )
    assert text.count('loading="lazy"') == text.count("<img") > 0  # no figure of the first page is there yet
    assert re.search(r'<td class="[^"]*verdict undecided"', text)


def test_a_page_shows_what_is_read_and_folds_the_rest(results):
    write_report(STUDY.under("scenes", results))
    page = (results / "report" / "06_ablations.html").read_text()
    assert 'alt="A caption, of two lines."' in page and 'loading="lazy"' in page
    assert '<details class="code">' in page and "injected" not in page and "NBVAL" not in page
    assert '<li class="level2"><a href="#a-picture' in page


def test_titles_are_for_readers():
    stems = {path.stem for folder in ("tables", "figures") for path in (STUDY.results("scenes") / folder).iterdir()}
    assert not {stem for stem in stems if stem not in TITLES}


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
        assert entry["data"] == ["data/refscenes"]
    around = manifest["notebooks"].pop("notebooks/06_ablations.ipynb")
    assert around["commit"] == circumstances()["commit"] and around["time"] and not manifest["notebooks"]
    assert around["parameters"] == {"profile": "scenes"} and around["seeds"] == [0] and len(around["key"]) == 12
    assert around["seconds"] == 12.3 and {name: around[name] for name in USAGE} == USAGE
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


def test_a_study_that_gives_the_same_again_leaves_the_manifest(results):
    write_manifest(STUDY.under("scenes", results))
    before, journal = (results / "manifest.json").read_bytes(), results / "notebooks" / f"06_ablations{JOURNAL_SUFFIX}"
    text = journal.read_text()
    journal.write_text(
        text.replace("A <fast> one", "A slow one").replace("12.3", "99.9").replace("data/ref", "disk/ref")
    )
    write_manifest(STUDY.under("scenes", results))
    assert (results / "manifest.json").read_bytes() == before
    table = results / "tables" / "s2rm_table4.csv"
    journal.write_text(journal.read_text().replace(file_digest(table), hashlib.sha256(b"other").hexdigest()))
    table.write_bytes(b"other")
    changed = write_manifest(STUDY.under("scenes", results))
    assert changed["notebooks"]["notebooks/06_ablations.ipynb"]["device"] == "A slow one"
    assert len(before.splitlines()) < 30  # a line for each file


def test_pages_name_no_folder_of_the_machine(results):
    page = (write_report(STUDY.under("scenes", results)).parent / "06_ablations.html").read_text()
    assert "A notebook" in page and f"{STUDY.root}/" not in page


def test_the_report_says_how_long_it_took_on_what(results):
    text = write_report(STUDY.under("scenes", results)).read_text()
    assert text.count("the notebook took 12 s on A &lt;fast&gt; one") == 2  # the table and the figure of the notebook


def test_an_earlier_manifest_without_circumstances_is_taken_over(results):
    first = write_manifest(STUDY.under("scenes", results))
    shutil.rmtree(results / "notebooks")
    old = json.loads((results / "manifest.json").read_text())
    del old["notebooks"]
    (results / "manifest.json").write_text(json.dumps(old))
    text = write_report(STUDY.under("scenes", results)).read_text()
    assert "Made by 06_ablations" in text and "the notebook took" not in text
    manifest = json.loads((results / "manifest.json").read_text())
    assert manifest["tables"] == first["tables"] and manifest["notebooks"] == {}


def test_a_failed_report_leaves_the_earlier_one(results, monkeypatch):
    index = write_report(STUDY.under("scenes", results))
    before = index.read_text()
    monkeypatch.setattr("refstudy.engine.report.contents_of", lambda *_: 1 / 0)
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


# tools/browser.sh installs Playwright, Chromium and axe-core
AXE = Path(os.environ.get("AXE_CORE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
SEEN = """() => ({
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  pictures: [...document.images].map((image) => image.naturalWidth > 0),
  smallest: Math.min(...[...document.querySelectorAll("p, td, li")]
    .map((e) => parseFloat(getComputedStyle(e).fontSize))),
  cut: [...document.querySelectorAll(".scroll")].filter((e) => e.scrollHeight > e.clientHeight + 1).length,
})"""
COUNTS = """() => [...document.querySelectorAll("#table-expressions ~ .scroll tbody tr")]
  .map((row) => row.cells[1].innerText)"""


@pytest.fixture(scope="module")
def browser(made):
    """Chromium, and the address of a report; skipped without it, unless the variable BROWSER says that it must be
    there."""
    try:
        playwright = importlib.import_module("playwright.sync_api")
        assert CHROMIUM and AXE.exists()
    except (ImportError, AssertionError):
        if os.environ.get("BROWSER") == "required":
            raise
        pytest.skip("no Playwright, Chromium or axe-core: sh tools/browser.sh installs them")
    write_report(STUDY.under("scenes", made))
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]), (made / "report").as_uri()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1400])
def test_pages_fit_the_browser_and_serve_everybody(browser, width, scheme):
    chromium, address = browser
    compared = (ROOT / "examples" / "compared" / "film" / "comparison.html").as_uri()
    for name in (f"{address}/index.html", f"{address}/06_ablations.html", compared):
        page, errors = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
        page.on("console", lambda message, errors=errors: errors.append(message.text))
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        page.goto(name)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        page.evaluate("document.querySelectorAll('img').forEach((one) => { one.loading = 'eager' })")
        page.wait_for_function("[...document.images].every((image) => image.complete)")
        seen = page.evaluate(SEEN)
        assert not errors and seen["overflow"] <= 0 and seen["smallest"] >= 12 and all(seen["pictures"])
        page.add_script_tag(path=AXE)
        found = page.evaluate("axe.run().then((result) => result.violations)")
        assert not [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        if name.endswith("index.html"):
            assert len(seen["pictures"]) == 2
            head = page.locator("#table-expressions ~ .scroll th button").nth(1)
            head.click()
            assert page.evaluate(COUNTS) == ["9", "10"]
            head.click()
            assert page.evaluate(COUNTS) == ["10", "9"]
        page.emulate_media(media="print")
        assert page.evaluate(SEEN)["cut"] == 0 and page.locator("nav.contents").is_hidden()
        page.close()


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
