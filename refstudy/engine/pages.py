"""The blocks of numbers in README.md and docs/findings.md, filled from the tables of a results folder.

A block stands between ``<!-- NAME -->`` and ``<!-- end -->``; nobody writes into it by hand.
"""

import re
from pathlib import Path

import pandas as pd

from refstudy.analysis.tables import PAPER_TABLES, markdown, render_verdicts, with_interval
from refstudy.base.files import atomic_write
from refstudy.metrics import METRICS
from refstudy.study.file import ProfileStudy, Study

PAGES = (Path("README.md"), Path("docs/findings.md"))
NONE = "*No run is recorded yet.*"
BLOCK = re.compile(r"<!-- (rows|claims)((?: \w+)*) -->\n.*?<!-- end -->", re.DOTALL)


def fill_pages(study: ProfileStudy) -> list[Path]:
    """Fill the blocks of ``PAGES`` beside the study file; return the pages that changed."""
    changed = []
    for path in (study.file.root / page for page in PAGES):
        text = path.read_text(encoding="utf-8")
        if (now := filled(text, study.file, study.folder)) != text:
            with atomic_write(path) as temporary:
                temporary.write_text(now, encoding="utf-8")
            changed.append(path)
    return changed


def filled(text: str, study: Study, folder: Path) -> str:
    """A page's text with every block as the tables in ``folder`` have it.

    ``rows`` is a line for each variant that was trained, the lowest first, or for those that it names; ``claims`` is a
    line for each claim that was measured.
    """

    def block(found: re.Match[str]) -> str:
        name, variants = found[1], found[2].split()
        table = _claims(folder) if name == "claims" else _rows(study, folder, variants)
        return f"<!-- {name}{found[2]} -->\n{table}\n<!-- end -->"

    return BLOCK.sub(block, text)


def _rows(study: Study, folder: Path, variants: list[str]) -> str:
    paths = [path for stem in PAPER_TABLES if (path := folder / "tables" / f"{stem}.csv").exists()]
    tables = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    own = tables[(tables["metric"] == METRICS[0]) & (tables["runs"] > 0) & tables["variant"].isin(list(study.variants))]
    own = own.drop_duplicates("variant").sort_values("ours")
    if variants:
        own = own[own["variant"].isin(variants)]
    if own.empty:
        return NONE
    shown = pd.DataFrame({"": [study.variants[name].label for name in own["variant"]]})
    shown["overall IoU"] = with_interval(own, "ours").to_numpy()
    shown["runs"] = own["runs"].map("{:.0f}".format).to_numpy()
    shown["measured on"] = own["data"].to_numpy()
    return markdown(shown)


def _claims(folder: Path) -> str:
    table = pd.read_csv(folder / "claims.csv")
    measured = table[table["measured"].notna() & table["runs"].notna()]  # the others are counted, not trained
    if measured.empty:
        return NONE
    return markdown(render_verdicts(measured, "claim", "metric").astype(str))
