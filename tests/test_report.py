"""The report: every link resolves, nothing is fetched, what is shown is escaped; and it opens in a browser."""

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from refstudy import figures
from refstudy.report import table_html, write_report
from refstudy.study import load_study
from refstudy.tables import build_table, write_table

ROOT = Path(__file__).resolve().parents[1]
STUDY = load_study(ROOT / "papermill_runs.yaml")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The report of a made-up results folder: one table of each kind, one figure, one executed notebook."""
    results = tmp_path_factory.mktemp("results")
    for stem in ("s2rm_table4", "slvit_table2d"):
        write_table(build_table(stem, STUDY, "scenes", str(results)), results / "tables", stem)
    words = pd.DataFrame({"expression": ["<script>alert(1)</script>", "left & right"], "share": [1.5, 22.25]})
    write_table(words, results / "tables", "words")
    write_table(pd.DataFrame({"claim": ["shifting helps"], "verdict": ["undecided"]}), results, "claims")
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    figures.save(figure, results / "figures", "line")
    plt.close(figure)
    cells = [nbformat.v4.new_markdown_cell("# A notebook\n\nwith $x^2$"), nbformat.v4.new_code_cell("1 + 1")]
    (results / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), results / "notebooks" / "06_ablations.ipynb")
    return write_report(STUDY, "scenes", str(results))


def test_every_link_and_picture_resolves_and_nothing_is_fetched(index):
    for page in index.parent.glob("*.html"):
        text = page.read_text()
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            if not link.startswith(("#", "data:", "https://arxiv.org")):
                assert (page.parent / link.split("#")[0]).exists(), link
        anchors = set(re.findall(r'href="#([^"]+)"', text))
        assert anchors <= set(re.findall(r'id="([^"]+)"', text))
        assert not re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(?:https?:)?//', text)
        assert not re.findall(r"@import|url\(['\"]?https?:", text)


def test_contents_are_shown_escaped_and_gaps_as_gaps(index):
    text = index.read_text()
    assert "&lt;script&gt;alert(1)" in text and "<script>alert(1)" not in text
    assert "left &amp; right" in text and "60.55" in text and "shifting helps" in text
    assert "refstudy train --profile scenes --variant tile_concat --seed 0" in text
    assert "<math" in (index.parent / "06_ablations.html").read_text()


def test_columns_of_numbers_are_known_as_such():
    made = table_html(pd.DataFrame({"row": ["a", "b"], "ours": ["39.5 [38.1, 41.0]", ""], "name": ["1", "one"]}))
    assert made.count('class="data row0 col1 number') == 1 and "col2 number" not in made


def test_an_earlier_report_stays_when_the_new_one_fails(index, monkeypatch):
    before = index.read_bytes()
    monkeypatch.setattr("refstudy.report.index_notebook", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(STUDY, "scenes", str(index.parents[1]))
    assert index.read_bytes() == before and not list(index.parents[1].glob(".report*"))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [380, 1400])
def test_it_opens_in_a_browser_without_errors_and_without_scrolling_sideways(index, tmp_path, width):
    probe = (
        "<script>addEventListener('load', () => {const d = document.documentElement; document.title = "
        "['PROBE', d.scrollWidth <= d.clientWidth + 1, [...document.images].every(i => i.naturalWidth > 0), "
        "document.querySelectorAll('table.sortable button').length > 0].join(' ')})</script>"
    )
    page = index.with_name(f"probe{width}.html")
    page.write_text(index.read_text().replace("</body>", probe + "</body>"))
    options = "--headless --no-sandbox --disable-gpu --disable-background-networking --allow-file-access-from-files"
    options += " --enable-logging=stderr --virtual-time-budget=5000 --dump-dom"
    done = subprocess.run(
        [BROWSER, *options.split(), f"--user-data-dir={tmp_path}", f"--window-size={width},900", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    page.unlink()
    assert "<title>PROBE true true true</title>" in done.stdout
    assert "CONSOLE" not in done.stderr
