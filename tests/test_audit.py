"""The audit: quotations that stand in the papers, slips that are found, claims that hold, and the rule."""

import numpy as np
import pandas as pd
import pytest

from refstudy.base.errors import StudyError
from refstudy.papers.audit import FILES, judge, paper_audit
from refstudy.papers.audit.cross_check import cross_check, same_methods
from refstudy.papers.audit.operations import OPERATIONS, Recomputed, ahead, compute, gain
from refstudy.papers.printed import load_printed

from .papers import paper_text, plain

PAPERS = {"s2rm": "S²RM", "slvit": "SLViT"}


@pytest.fixture(scope="module")
def claims():
    return paper_audit()


@pytest.fixture(scope="module")
def cells():
    return cross_check()


def find(claims, paper, place, claimed):
    """The claims of a place with the printed number."""
    found = claims.query("paper == @paper and place == @place and claimed == @claimed")
    assert len(found), (paper, place, claimed)
    return found


def squeezed(text):
    """``plain`` without hyphens, which the texts keep from line ends, and with l2v where they read 12v."""
    return plain(text).replace("-", "").replace("12v", "l2v")


@pytest.mark.parametrize("paper", PAPERS)
def test_quotations_stand_in_the_papers(paper, claims):
    text = squeezed(paper_text(paper))
    quotations = claims.loc[claims["paper"] == PAPERS[paper], "quotation"].unique()
    assert len(quotations) > 10
    assert [quotation for quotation in quotations if squeezed(quotation) not in text] == []


def test_a_claimed_number_stands_in_its_quotation(claims):
    for claim in claims[claims["kind"] != "statement"].itertuples():
        quotation = claim.quotation.replace(",", "") if claim.kind == "size" else claim.quotation
        assert claim.claimed in quotation
    statements = claims[claims["kind"] == "statement"]
    assert (statements["claimed"] == "0").all() and (statements["recomputed"] >= 0).all()


def test_claims_are_complete_and_distinct(claims):
    assert np.isfinite(claims["recomputed"]).all()
    assert not claims.duplicated(["paper", "place", "quotation", "claim"]).any()
    assert set(claims["kind"]) == {"gain", "cost", "size", "statement"}
    assert (claims.loc[~claims["agrees"], "note"] != "").all()  # each disagreement has a word on its cause
    assert (claims["agrees"] == (claims["verdict"] == "agrees")).all()
    assert ((claims["claimed"].astype(float) - claims["recomputed"] - claims["difference"]).abs() < 1e-8).all()


def test_the_rule_is_the_rounding_of_the_printed_digits():
    assert judge("8.64", Recomputed(8.644, "gain"))[1] == "agrees"
    assert judge("8.64", Recomputed(8.645, "gain"))[1] == "agrees"
    assert judge("8.64", Recomputed(8.646, "gain"))[1] == "differs"
    assert judge("8.64", Recomputed(8.646, "gain", 0.01))[1] == "last digit"
    assert judge("8.64", Recomputed(8.656, "gain", 0.01))[1] == "differs"
    assert judge("8.6", Recomputed(8.646, "gain"))[1] == "agrees"
    assert judge("50000", Recomputed(50001, "size"))[1] == "differs"
    assert judge("0", Recomputed(1, "statement")) == (-1, "differs")


def test_gains_average_what_both_rows_print():
    rows = ("s2rm_table1", "Overall IoU: SwinT-Ours", "Overall IoU: ReSTR₂₂")
    one, both = gain(*rows, "RefCOCOg val-G"), gain(*rows, ["RefCOCOg val-U", "RefCOCOg val-G"])
    assert one.value == both.value == pytest.approx(60.44 - 54.48)
    assert ahead("s2rm_table6", "-D1&2&3").value == 15 and ahead("s2rm_table6", "Full").value == 0


@pytest.mark.parametrize(
    ("place", "claimed", "recomputed"),
    [
        ("Sec. IV-D.1", "15.49", (83.37 + 71.49 + 23.07 - 70.21 - 52.93 - 12.34) / 3),
        ("Sec. IV-D.1", "5.26", (85.39 + 75.52 + 33.16 - 83.37 - 71.49 - 23.07) / 3),
        ("Sec. IV-D.2", "3.46", (80.41 + 65.35 + 19.53 - 76.97 - 61.26 - 17.05) / 3),
        ("Sec. IV-D.2", "3.59", (80.41 + 65.35 + 19.53 - 80.51 - 62.96 - 11.85) / 3),
        ("Sec. IV-D.2", "6.95", (83.37 + 71.49 + 23.07 - 78.03 - 62.74 - 18.15) / 3),
        ("Sec. IV-D.2", "2.80", (83.37 + 71.49 + 23.07 - 81.35 - 67.69 - 21.02) / 3),
        ("Sec. IV-D.2", "2.51", (83.37 + 71.49 + 23.07 - 76.14 - 67.90 - 21.40) / 3),
        ("Sec. IV-D.4", "3.30", (85.39 + 75.52 + 33.16 - 83.04 - 72.06 - 29.19) / 3),
        ("Sec. IV-C", "11.79", 94.73 / 8),
        ("Sec. IV-C", "2.31", 21.23 / 9),
        ("Sec. IV-A", "142209", 142210),
        ("Sec. IV-A", "130525", 120072),
        ("Sec. IV-A", "54822", 49822),
    ],
)
def test_slips_of_s2rm(claims, place, claimed, recomputed):
    claim = find(claims, "S²RM", place, claimed).iloc[0]
    assert claim["verdict"] == "differs" and claim["recomputed"] == pytest.approx(recomputed)


def test_sec_iv_d_3_exchanges_two_rows_and_names_another_table(claims):
    part = claims.query("paper == 'S²RM' and place == 'Sec. IV-D.3' and kind == 'gain'").set_index("claim")
    row = "W. CASG (Full) over W. CASG ({}), {}"
    for measure in ("overall IoU", "mean IoU"):
        spatial, channel = part.loc[row.format("-Spa.", measure)], part.loc[row.format("-Cha.", measure)]
        assert not spatial["agrees"] and not channel["agrees"]
        assert float(spatial["claimed"]) == pytest.approx(channel["recomputed"])
        assert float(channel["claimed"]) == pytest.approx(spatial["recomputed"])
    for first, second in (("-Spa.", "-Cha."), ("-Cha.", "-Spa.")):  # exchanging does not mend the means over P@X
        claimed = float(part.loc[row.format(first, "mean P@X"), "claimed"])
        assert abs(claimed - part.loc[row.format(second, "mean P@X"), "recomputed"]) > 0.015
    named = find(claims, "S²RM", "Sec. IV-D.3", "0").set_index("claim")["recomputed"]
    assert named["rows named here that Table VI does not have"] == 3
    assert named["cells of Table V in which a reduced CASG is ahead of the full one"] == 1


@pytest.mark.parametrize(
    ("paper", "words", "count"),
    [
        ("S²RM", "more validation than training", 1),
        ("S²RM", "cited by another number", 1),
        ("S²RM", "ahead of SwinB-Ours, overall IoU", 8),
        ("S²RM", "ahead of SwinB-Ours, mean IoU", 5),
        ("S²RM", "FSFI-R101 is ahead", 1),
        ("S²RM", "FSFINet is ahead", 1),
        ("S²RM", "RefTrans is ahead", 2),
        ("S²RM", "outside the range", 1),
        ("S²RM", "without their unit", 2),
        ("S²RM", "Table V does not have", 1),
        ("S²RM", "Tables I, II, VI and VII", 0),
        ("S²RM", "fewer stages are ahead", 0),
        ("SLViT", "but as mean IoU", 34),
        ("SLViT", "not between 2 and 3", 1),
        ("SLViT", "differ from those of the S²RM paper", 0),
        ("SLViT", "ahead of SLViT (w/o URCE)", 0),
        ("SLViT", "fewer stages are ahead", 1),
        ("SLViT", "of that without URCE", 0),
        ("SLViT", "mark the same stages", 1),
        ("SLViT", "name a feature twice", 2),
        ("SLViT", "5 is ahead of 7", 0),
    ],
)
def test_statements(claims, paper, words, count):
    found = claims[(claims["paper"] == paper) & claims["claim"].str.contains(words, regex=False)]
    assert len(found) == 1 and found["recomputed"].item() == count and found["agrees"].item() == (count == 0)


def test_notes_give_the_numbers_of_the_tables(claims):
    """The numbers that a note adds to a claim, from the printed cells."""
    rows = {stem: load_printed(f"s2rm_table{stem}") for stem in (4, 5)}
    full, spatial, channel = (rows[5].loc[f"W. CASG ({name})", "P@0.5"] for name in ("Full", "-Spa.", "-Cha."))
    assert (full - spatial, full - channel) == (pytest.approx(1.03), pytest.approx(1.54))
    fsfi, swin = (load_printed("s2rm_table1").loc["Overall IoU"].loc[name] for name in ("FSFINet₂₃", "SwinT-Ours"))
    assert (fsfi.drop("citation") > swin.drop("citation")).sum() == 6
    apart = (rows[4].loc["W. S²RM (Full)"] - rows[4].loc["W. S²RM (-Balance)"])[["P@0.5", "P@0.7", "P@0.9"]]
    assert rows[4].loc["W. S²RM (Full)", "P@0.5"] - (3 * 2.51 - apart[1:].sum()) == pytest.approx(81.10)
    means = load_printed("s2rm_table1").loc["Mean IoU"].drop(columns="citation")
    behind = (means.loc["RefTrans₂₁"] - means.loc["SwinT-Ours"]).dropna()
    assert (len(behind), round(behind.mean(), 2)) == (8, 0.47)
    assert behind[["RefCOCOg val-U", "RefCOCOg test-U"]].mean() == pytest.approx(1.555)
    bare, without = (
        load_printed("slvit_table2b").loc["7B + 11B + 21B"],
        load_printed("slvit_table2c").loc["SLViT(w/o URCE)"],
    )
    assert ((without - bare).min(), (without - bare).max()) == (pytest.approx(0.03), pytest.approx(0.45))


def test_slips_of_slvit(claims):
    assert find(claims, "SLViT", "Sec. 4.1", "54822")["recomputed"].item() == 49822
    assert find(claims, "SLViT", "Sec. 4.3", "9")["recomputed"].item() == 4
    rounded = find(claims, "SLViT", "Sec. 4.4", "2.18").iloc[0]
    assert rounded["verdict"] == "last digit" and rounded["recomputed"] == pytest.approx((1.51 + 1.27 + 3.74) / 3)
    for place, claimed in (("Sec. 4.3", "1.58"), ("Sec. 4.3", "0.83"), ("Sec. 4.3", "0.93"), ("Sec. 4.4", "0.68")):
        assert find(claims, "SLViT", place, claimed)["agrees"].all()


def test_what_agrees_is_listed_too(claims):
    gains = claims[claims["kind"] == "gain"]
    single = gains[
        gains["claim"].str.endswith((", overall IoU", ", mean IoU")) & gains["place"].str.startswith("Sec. IV-D")
    ]
    wrong = single[~single["agrees"]]
    assert len(single) == 2 * 14 and set(wrong["place"]) == {"Sec. IV-D.3"} and len(wrong) == 4
    assert find(claims, "S²RM", "Sec. IV-C", "104.5").iloc[0][["agrees", "kind"]].tolist() == [True, "cost"]
    cut = gains[gains["verdict"] == "last digit"]["claimed"].tolist()
    assert cut == ["11.90", "1.17", "1.71", "2.18"]


ENTRY = """\
paper: S²RM
sentences:
- place: Sec. IV-D.2
  quotation: has 9.02 points more
  claims:
  - claim: the whole module over none
    claimed: "9.02"
    gain: {table: s2rm_table4, row: W. S²RM (Full), over: W. Tile & Concat., columns: oIoU}
"""


def audited(folder, text):
    path = folder / "sentences.yaml"
    path.write_text(text, encoding="utf-8")
    return paper_audit([path])


def test_an_entry_in_the_file_is_all_that_another_slip_needs(tmp_path, claims):
    """Here three: two numbers for the same rows, and a count."""
    before = FILES[0].read_text(encoding="utf-8")
    added = """
- place: Sec. IV-D.2
  quotation: has 9.02 and 10.4 points more and is better throughout
  claims:
  - claim: the whole module over none
    gain: {table: s2rm_table4, row: W. S²RM (Full), over: W. Tile & Concat.}
    parts:
      overall IoU: {claimed: "9.12", columns: oIoU, note: A slip.}
      mean IoU: {claimed: "10.4", columns: mIoU}
  - claim: cells in which one of two others is ahead of -Balance
    claimed: "0"
    ahead: {table: s2rm_table4, row: W. S²RM (-Balance), others: [W. S²RM (Full), W. S²RM (-v2l)]}
"""
    table = audited(tmp_path, before + added)
    pd.testing.assert_frame_equal(table[:-3], claims[claims["paper"] == "S²RM"])
    new = table[-3:].set_index("claim")
    assert new.index[:2].tolist() == ["the whole module over none, overall IoU", "the whole module over none, mean IoU"]
    assert new["verdict"].tolist() == ["differs", "agrees", "differs"]
    assert new["recomputed"].tolist() == pytest.approx([9.02, 10.41, 5 + 1])
    assert new["note"].tolist() == ["A slip.", "", ""]


@pytest.mark.parametrize(
    ("right", "wrong", "line", "message"),
    [
        ("gain:", "gian:", 6, "unknown key or operation 'gian'; operations are gain, gain_not_larger"),
        ("gain: {", "note: none\n    #", 6, "give one operation, not 0; operations are gain"),
        (
            "over:",
            "ovr:",
            6,
            "gain: over: Missing required argument; ovr: Unexpected .*; it takes table, row, over,",
        ),
        ("columns: oIoU", "columns: 3", 6, "gain: columns: .*give a name or a list of names; it takes"),
        ("s2rm_table4", "s2rm_table44", 6, "gain: no printed table 's2rm_table44'; known: .*s2rm_table4"),
        (
            "(Full)",
            "(Ful)",
            6,
            "gain: printed table 's2rm_table4' has no row 'W. S²RM .Ful.'; known: W. Tile",
        ),
        ("oIoU", "oIou", 6, "gain: printed table 's2rm_table4' has no column 'oIou'; known: oIoU, mIoU"),
        ('"9.02"', "9.02", 7, 'claimed: .*give the number as it is printed, in quotation marks: "2.80"'),
        ('"9.02"', '"9.02 points"', 7, "claimed: .*give the number as it is printed"),
        ("    claimed:", "    parts:", 7, "parts: Input should be a valid dictionary"),
        ("quotation:", "quote:", 3, "quotation: Field required"),
        ("  - claim:", "  - claim: twice\n    claim:", 7, "key 'claim' is already given in line 6"),
    ],
)
def test_a_wrong_entry_is_refused_in_a_line_that_names_it(tmp_path, right, wrong, line, message):
    assert audited(tmp_path, ENTRY)["verdict"].tolist() == ["agrees"]
    with pytest.raises(StudyError, match=message) as error:
        audited(tmp_path, ENTRY.replace(right, wrong, 1))
    assert f"{tmp_path / 'sentences.yaml'}:{line}: " in str(error.value)


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        ("rows_where", {"table": "s2rm_datasets", "condition": "val > trian"}, "'val > trian' cannot be .*'trian'"),
        ("rows_where", {"table": "s2rm_datasets", "condition": "val + train"}, "cannot be used"),
        ("ahead", {"table": "s2rm_table4", "row": "W. S²RM (Full)", "others": "none"}, "has no row 'none'"),
        ("total", {"table": "s2rm_table2", "row": "VLT", "columns": ["P@0.5", "P"]}, "has no column 'P'"),
        (
            "gain",
            {"table": "s2rm_table2", "row": "LAVT", "over": "VLT", "columns": "P@0.6"},
            "no cell that it needs is printed",
        ),
        ("gain_not_larger", {"first": {}, "second": {}}, "table: Missing required argument"),
        (
            "unequal_cells",
            {"groups": [[{"table": "s2rm_table6", "row": "Full"}]]},
            "groups.0: List should have at least",
        ),
        (
            "unequal_cells",
            {
                "groups": [
                    [
                        {"table": "s2rm_table6", "row": "Full", "columns": ["oIoU", "mIoU"]},
                        {"table": "s2rm_table1", "row": "Mean IoU: SwinT-Ours", "columns": "RefCOCO val"},
                    ]
                ]
            },
            "row 'Mean IoU: SwinT-Ours' of 's2rm_table1': name 2 columns",
        ),
    ],
)
def test_an_operation_refuses_what_it_cannot_compute(operation, arguments, message):
    with pytest.raises(StudyError, match=message) as error:
        compute(operation, arguments)
    assert str(error.value).startswith(f"{operation}: ") and "\n" not in str(error.value)


def test_every_operation_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in FILES)
    assert [name for name in OPERATIONS if f"    {name}:" not in text] == []


def test_cross_check_finds_the_cells_that_differ(cells):
    at = cells.set_index(["method", "split"])
    lscm = at.loc[("LSCM", "RefCOCO+ testA")]
    assert (lscm["slvit"], lscm["s2rm"], lscm["verdict"]) == (42.12, 53.12, "differs")
    differing = cells[cells["verdict"] == "differs"]
    assert set(differing["method"]) == {"BRINet", "LSCM", "ISFP"}
    shifted = cells[cells["s2rm_split_of_slvit"] != ""]
    assert shifted[["method", "split", "s2rm_split_of_slvit"]].to_numpy().tolist() == [
        ["BRINet", "RefCOCOg val-G", "RefCOCOg val-U"],
        ["ISFP", "RefCOCOg test-U", "RefCOCOg val-U"],
        ["ISFP", "RefCOCOg val-G", "RefCOCOg test-U"],
        ["ReSTR", "RefCOCOg val-U", "RefCOCOg val-G"],
    ]
    assert set(cells.loc[cells["s2rm_measure"] == "Mean IoU", "method"]) == {"MCN", "CGAN", "LTS", "VLT"}


def test_cross_check_covers_every_method_that_both_papers_list(cells):
    """By the first author and year of the citation: what is not matched is not in the other paper, or another work."""
    ours = load_printed("slvit_table1")
    assert set(cells["method"]) == set(same_methods()) < set(ours.index)
    assert set(ours.index) - set(same_methods()) == {"CAC", "CMPC+", "BUSNet", "Ours (w/o URCE)", "Ours"}
    same = cells[cells["verdict"] == "same"]
    assert (same["slvit"] == same["s2rm"]).all() and pd.isna(cells["difference"]).sum() == 4
    for method, row in same_methods().items():
        printed = ours.loc[method].drop(["citation", "language model"]).notna()
        theirs = load_printed("s2rm_table1").xs(row, level="row").iloc[-1][printed.index].notna()
        assert (cells["method"] == method).sum() == (printed | theirs).sum()
