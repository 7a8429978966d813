"""README.md and docs/findings.md hold numbers in blocks, which are what the committed tables say."""

import copy

import pandas as pd
import pytest

from refstudy.base.errors import StudyError
from refstudy.engine.pages import PAGES, fill_pages, filled
from refstudy.study.load import load_study

from .helpers import ROOT

STUDY = load_study(ROOT / "papermill_runs.yaml")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_blocks_are_those_of_the_committed_tables(page):
    text = (ROOT / page).read_text()
    assert "<!-- end -->" in text
    assert filled(text, STUDY, STUDY.results("scenes")) == text, "`refstudy pages` fills them anew"


@pytest.fixture
def folder(tmp_path):
    rows = [
        {"row": "W. S²RM (Full)", "variant": "s2rm_fpn", "metric": "oIoU", "ours": 43.0, "ours_low": 40.0, "runs": 3},
        {
            "row": "W. Tile & Concat.",
            "variant": "tile_concat",
            "metric": "oIoU",
            "ours": 40.0,
            "ours_low": 39.0,
            "runs": 5,
        },
        {
            "row": "W. Tile & Concat.",
            "variant": "tile_concat",
            "metric": "mIoU",
            "ours": 1.0,
            "ours_low": 0.0,
            "runs": 5,
        },
        {
            "row": "W. S²RM (-l2v)",
            "variant": "s2rm_no_l2v",
            "metric": "oIoU",
            "ours": None,
            "ours_low": None,
            "runs": 0,
        },
    ]
    table = pd.DataFrame(rows)
    (tmp_path / "tables").mkdir()
    table.assign(ours_high=table["ours"] + 1, data="RefScenes val").to_csv(tmp_path / "tables" / "s2rm_table4.csv")
    claims = {
        "paper": "S²RM",
        "claim": ["a", "b"],
        "metric": "oIoU",
        "printed": [9.02, 1.0],
        "measured": [3.4, None],
        "low": 1.8,
    }
    verdicts = {"high": 5.1, "runs": [3, None], "reference_runs": [5, None], "verdict": ["supported", "not judged yet"]}
    verdicts |= {"smallest": float("nan"), "ceiling": float("nan"), "p_own": [0.0512, float("nan")]}
    pd.DataFrame(claims | verdicts).to_csv(tmp_path / "claims.csv")
    return tmp_path


def test_a_block_has_the_trained_rows_the_lowest_first(folder):
    text = filled("a\n<!-- rows -->\nold\n<!-- end -->\nz", STUDY, folder)
    lines = text.splitlines()
    assert lines[0] == "a" and lines[-1] == "z" and "old" not in text
    assert lines[4:6] == [
        "| Tile & Concat | 40.0 [39.0, 41.0] | 5 | RefScenes val |",
        "| S²RM + FPN | 43.0 [40.0, 44.0] | 3 | RefScenes val |",
    ]
    assert filled(text, STUDY, folder) == text


def test_a_block_may_name_its_rows(folder):
    text = filled("<!-- rows tile_concat -->\n<!-- end -->", STUDY, folder)
    assert "Tile & Concat" in text and "FPN" not in text and text.startswith("<!-- rows tile_concat -->\n")


def test_findings_name_the_claims_that_were_judged(folder):
    text = filled("<!-- findings -->\n<!-- end -->", STUDY, folder)
    assert "- **Claims.** Of 2 claims about accuracy, 1 is supported, 1 is not judged yet.\n" in text
    gain = "+3.4 [+1.8, +5.1]; printed +9.0"
    assert f"**Supported so far:** a ({gain}).\n" in text and " b (" not in text
    assert "- **Size.** Of 1 measured gains, 0 have an interval that holds the printed gain.\n" in text


def test_findings_tell_counted_claims_apart_and_name_another_metric(folder):
    claims = pd.read_csv(folder / "claims.csv", index_col=0)
    claims = claims.assign(measured=[3.4, 58.1], printed=[4.0, None], verdict="supported", metric="P@0.9")
    claims.assign(paper=["S²RM", "this study"]).to_csv(folder / "claims.csv")
    text = filled("<!-- findings -->\n<!-- end -->", STUDY, folder)
    cost = "Of 1 claim about cost, 1 is supported (cost is counted, without a run; 1 of them is this study's own)."
    assert f"Of 1 claim about accuracy, 1 is supported. {cost}" in text
    assert "**Supported:** a (+3.4 [+1.8, +5.1] points of P@0.9; printed +4.0)." in text


def test_an_undecided_claim_says_which_gain_its_runs_find(folder):
    claims = pd.read_csv(folder / "claims.csv", index_col=0)
    claims.assign(verdict=["undecided", "not judged yet"], smallest=4.6).to_csv(folder / "claims.csv")
    text = filled("<!-- claims -->\n<!-- end -->", STUDY, folder)
    assert "| **undecided** (these runs find a gain of 4.6 in 4 of 5 cases) |" in text


def test_findings_count_the_runs(folder):
    runs = pd.DataFrame({"profile": "scenes", "variant": ["s2rm_fpn", "tile_concat"], "runs": [3, 5]})
    runs.to_csv(folder / "tables" / "all_runs.csv", index=False)
    text = filled("<!-- findings -->\n<!-- end -->", STUDY, folder)
    planned = sum(len(STUDY.seeds(p, v)) for p in STUDY.together("scenes") for v in STUDY.variant_names(p))
    assert f" 8 of {planned} runs are in.\n" in text


def test_findings_have_kendalls_tau_once_it_has_an_interval(folder):
    ranked = pd.DataFrame(
        {"least": [0.0, 0.5], "tau": [0.58, 0.67], "low": [0.0, 0.17], "high": 1.0, "pairs": [19, 18]}
    )
    for low, said in ((ranked["low"], True), (float("nan"), False)):
        ranked.assign(low=low).to_csv(folder / "tables" / "rank_agreement.csv", index=False)
        text = filled("<!-- findings -->\n<!-- end -->", STUDY, folder)
        assert (
            "Of 19 pairs of rows of one table of ablations, 79 % stand in the printed order: Kendall's tau" in text
        ) is said
        assert (
            "tau 0.58 [0.00, 1.00]; without the one that differs by less than 0.5 points in print, 0.67" in text
        ) is said
        assert ("the study is not shown to order modules like the papers better than chance." in text) is said
    ranked.assign(low=[0.1, 0.17]).to_csv(folder / "tables" / "rank_agreement.csv", index=False)
    assert "the study orders modules like the papers better than" in filled(
        "<!-- findings -->\n<!-- end -->", STUDY, folder
    )


def test_findings_have_the_causes_that_were_decided(folder):
    tested = {"explanation": ["a", "b", "c"], "measured": [1.0, 6.3, 0.1], "low": 0.5, "high": 7.9}
    decided = pd.DataFrame(tested).assign(verdict=["supported", "supported", "undecided"], seen=["yes", None, None])
    decided.to_csv(folder / "tables" / "explanations.csv", index=False)
    text = filled("<!-- findings -->\n<!-- end -->", STUDY, folder)
    assert "- **Put to the test, supported:** b (+6.3 [+0.5, +7.9]).\n" in text
    assert "- **Seen, then judged, supported:** a (+1.0 [+0.5, +7.9]).\n" in text
    assert "test, contradicted" not in text


def test_findings_say_whether_fresh_seeds_gave_what_was_foretold(folder):
    line = {"variant": "s2rm_fpn", "reference": "tile_concat", "gain": 1.1, "low": -0.9, "high": 3.0, "fresh_runs": 5}
    for fresh, inside, said in ((None, None, ""), (2.0, "yes", ", which holds it."), (4.0, "no", "which does **not**")):
        again = pd.DataFrame([line | {"fresh": fresh, "inside": inside}])
        again.to_csv(folder / "tables" / "replication.csv", index=False)
        text = filled("<!-- findings -->\n<!-- end -->", STUDY, folder)
        assert (
            "**Done again.** With 5 fresh seeds a side, the gain of S²RM + FPN over Tile & Concat is" in text
        ) is bool(said)
        assert said in text


def test_claims_that_were_not_measured_are_left_out(folder):
    text = filled("<!-- claims -->\n<!-- end -->", STUDY, folder)
    assert "| a | oIoU | +9.02 | +3.4 |" in text and "| 3 / 5 | **supported** |" in text and "| b |" not in text
    notes = text.split("\n\n")[1:]
    assert notes[0] == "The others: of 1 claim about accuracy, 1 is not judged yet."
    own = "Decided, but undecided if each row's spread over seeds is that of its own runs alone: a (*p* = 0.051)."
    assert notes[1] == f"{own}\n<!-- end -->"
    assert f"- **Close.** {own}\n" in filled("<!-- findings -->\n<!-- end -->", STUDY, folder)


def test_blocks_say_so_where_nothing_is_recorded(folder):
    for path in (folder / "tables" / "s2rm_table4.csv", folder / "claims.csv"):
        table = pd.read_csv(path, index_col=0)
        table.assign(runs=None if path.name == "claims.csv" else 0).to_csv(path)
    text = filled("<!-- rows -->\n<!-- end -->\n<!-- claims -->\n<!-- end -->", STUDY, folder)
    assert text.count("*No run is recorded yet.*") == 2 and "|" not in text


def test_pages_that_are_up_to_date_stay_untouched(folder):
    study = copy.copy(STUDY)
    study.root = study.home = folder
    (folder / "docs").mkdir()
    for page in PAGES:
        (folder / page).write_text("<!-- claims -->\n<!-- end -->\n")
    assert fill_pages(study.under("scenes", folder)) == [folder / page for page in PAGES]
    assert fill_pages(study.under("scenes", folder)) == []


@pytest.fixture
def pages(folder):
    """A study whose pages lie in ``folder``: the last one names a comparison that is not there."""
    study = copy.copy(STUDY)
    study.root = study.home = folder
    (folder / "docs").mkdir()
    for page, block in zip(PAGES, ("findings", "claims", "compared none"), strict=True):
        (folder / page).write_text(f"<!-- {block} -->\n<!-- end -->\n")
    before = [(folder / page).read_text() for page in PAGES]
    yield study
    assert [(folder / page).read_text() for page in PAGES] == before


def test_no_page_is_written_where_one_cannot_be_filled(pages, folder):
    with pytest.raises(StudyError, match="gains.csv: no table; `refstudy compare` makes it again"):
        fill_pages(pages.under("scenes", folder))
    (folder / "claims.csv").unlink()
    with pytest.raises(StudyError, match="claims.csv: missing, .*; `refstudy run --profile smoke` makes it"):
        fill_pages(pages.under("smoke", folder))


def test_the_pages_of_another_home_are_refused(pages, folder):
    pages.home = folder / "own"
    with pytest.raises(StudyError, match="its results lie under .*own, .*; leave out --study"):
        fill_pages(pages.under("scenes", folder))
