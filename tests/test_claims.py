"""The claims ledger: printed gains from the printed tables, verdicts from records by rule."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from refstudy.analysis.claims import CLAIMS, EXPLANATIONS, cost_ledger, explanations, ledger
from refstudy.analysis.cost import cost
from refstudy.analysis.inference import LOOKS
from refstudy.analysis.table_files import write_table
from refstudy.analysis.tables import TABLES
from refstudy.base.errors import StudyError
from refstudy.models.build import build_model
from refstudy.papers.claims import FILE, load_claims
from refstudy.papers.printed import load_printed
from refstudy.study.load import load_study

from .helpers import STUDY, fake_counts, put, put_counts


def test_every_claim_names_variants_and_printed_rows():
    for claim in CLAIMS:
        assert {claim.better, claim.worse} <= set(STUDY.variants)
        assert claim.printed == claim.printed  # a number: both rows are printed
    by_text = {claim.text: claim.printed for claim in CLAIMS}
    table = load_printed("s2rm_table4")["oIoU"]
    assert by_text["shifting helps"] == pytest.approx(table["W. S²RM (Full)"] - table["W. S²RM (-Shift)"])
    assert by_text["URCE sharpens borders (P@0.9)"] == pytest.approx(35.10 - 31.36)
    assert by_text["the full model beats LAVT"] == pytest.approx(74.35 - 72.73)
    assert by_text["S²RM beats ACM (FPN)"] == pytest.approx(2.98)  # as Sec. IV-D.4 says in words
    assert by_text["S²RM beats ACM (CASG)"] == pytest.approx(2.75)
    assert by_text["SLViT beats LAVT"] == pytest.approx(74.02 - 72.73)


def test_an_entry_in_the_file_is_all_that_another_claim_needs(tmp_path, monkeypatch):
    entry = """
- text: channel attention sharpens borders
  paper: S²RM
  better: s2rm_casg
  worse: casg_no_channel
  metric: P@0.9
  table: s2rm_table5
  rows: [W. CASG (Full), W. CASG (-Cha.)]

explanations:
"""
    path = tmp_path / "claims.yaml"
    path.write_text(FILE.read_text(encoding="utf-8").replace("\nexplanations:\n", entry), encoding="utf-8")
    file = load_claims(path)
    assert file.claims[:-1] == CLAIMS and file.explanations == EXPLANATIONS
    monkeypatch.setattr("refstudy.analysis.claims.CLAIMS", file.claims)
    line = of_claims(tmp_path / "results").loc["channel attention sharpens borders"]
    assert line["printed"] == pytest.approx(33.16 - 31.90) and line["verdict"] == "not judged yet"


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("  worse: tile_concat", "  wrose: tile_concat", "claims.0.wrose: Extra inputs are not permitted"),
        ("W. S²RM (Full), W. Tile & Concat.", "W. S²RM (Full)", "claims.0.rows.1: Field required"),
        ("explanations:", "explanation:", "explanation: Extra inputs are not permitted"),
        ("paper: S²RM", "paper: [", "not YAML: "),
    ],
)
def test_a_wrong_entry_is_refused_in_a_line_that_names_it(tmp_path, right, wrong, message):
    path = tmp_path / "claims.yaml"
    path.write_text(FILE.read_text(encoding="utf-8").replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(StudyError, match=re.escape(message)) as error:
        load_claims(path)
    assert str(error.value).startswith(str(path))


def test_a_claim_with_a_row_that_is_not_printed_is_named():
    claim = CLAIMS[0].model_copy(update={"rows": ("W. S²RM (Full)", "W. Tile")})
    with pytest.raises(StudyError, match=r"claim 'S²RM beats Tile & Concat': .* has no row 'W. Tile'; known"):
        assert claim.printed


def put_runs(results, variant, *ends, **options):
    """A record a seed, each of 20 equal masks that reach this overall IoU (percent)."""
    for seed, end in enumerate(ends):
        put(results, variant, [end / 100 + 1e-9] * 20, seed=seed, **options)


def test_beside_the_pooled_spread_stands_welchs_test(tmp_path):
    """A row whose runs lie close together makes the spread of its family small, and a verdict sure."""
    wide, better = (40, 42, 44), (55, 57, 59)
    put_runs(tmp_path, "tile_concat", *wide)
    put_runs(tmp_path, "s2rm_fpn", *better)
    put_runs(tmp_path, "acm_fpn", *[57 + k / 100 for k in range(-6, 7)])
    table = of_claims(tmp_path)
    line, welch = table.loc["S²RM beats Tile & Concat"], stats.ttest_ind(better, wide, equal_var=False).pvalue
    assert line["verdict"] == "supported" and float(line["p"]) < 0.05
    assert float(line["p_own"]) == pytest.approx(min(1, len(LOOKS) * len(table) * welch), abs=1e-4)
    assert table.loc["shifting helps", "p_own"] == ""


def of_claims(results, profile="scenes"):
    return ledger(STUDY.under(profile, results)).set_index("claim")


def test_verdicts_follow_from_the_records(tmp_path):
    put_runs(tmp_path, "tile_concat", 40, 40.4, 40.2)
    put_runs(tmp_path, "s2rm_fpn", 50.2, 50.4, 50)
    put_runs(tmp_path, "s2rm_no_shift", 60, 60.4, 60.2)
    put_runs(tmp_path, "s2rm_no_balance", 50.1, 50.5, 50.1)
    put_runs(tmp_path, "s2rm_no_l2v", 10, 10.4)
    table = of_claims(tmp_path)
    assert table.loc["S²RM beats Tile & Concat", "verdict"] == "supported"
    assert table.loc["S²RM beats Tile & Concat", "measured"] == pytest.approx(10)
    assert float(table.loc["S²RM beats Tile & Concat", "p"]) < 0.01
    assert table.loc["shifting helps", "verdict"] == "contradicted"
    balance = table.loc["balancing the groups helps"]
    assert balance["verdict"] == "undecided" and 0 < balance["smallest"] < 2 and balance["p"] == "1.0000"
    assert (
        balance["runs_needed"] == "over 50" and (table.loc[table["verdict"] != "undecided", "runs_needed"] == "").all()
    )
    few = table.loc["parsing vision by language (l2v) helps"]
    assert few["verdict"] == "not judged yet" and few["measured"] == pytest.approx(40, abs=0.1)
    assert (few["runs"], few["reference_runs"], few["p"]) == (3, 2, "")
    train = "refstudy train --profile scenes --variant"
    assert few["missing"] == f"{train} s2rm_fpn && {train} s2rm_no_l2v"  # three runs of the first are not yet its five
    unmeasured = table.loc["CASG beats the FPN"]
    assert unmeasured["verdict"] == "not judged yet" and np.isnan(unmeasured["measured"])
    assert unmeasured["missing"] == f"{train} s2rm_casg && {train} s2rm_fpn"


def test_five_runs_a_side_can_show_that_nothing_is_gained(tmp_path):
    for variant in ("s2rm_fpn", "s2rm_no_balance"):
        put_runs(tmp_path, variant, 50, 50.4, 50.2)
    assert of_claims(tmp_path).loc["balancing the groups helps", "verdict"] == "undecided"
    further = STUDY.profiles["scenes"].model_copy(update={"seeds": (0, 1, 2, 3, 4), "further_seeds": {}})
    study = load_study(STUDY.path)
    study.profiles["scenes"] = further
    for variant in ("s2rm_fpn", "s2rm_no_balance"):
        put_runs(tmp_path, variant, 50, 50.4, 50.2, 50.1, 50.3)
    line = ledger(study.under("scenes", tmp_path)).set_index("claim").loc["balancing the groups helps"]
    assert line["verdict"] == "equivalent" and line["runs"] == 5 and np.isnan(line["smallest"])


def test_a_claim_is_judged_by_its_own_metric(tmp_path):
    """More masks above 0.9 at a lower overall IoU: URCE sharpens borders, and does not help."""
    for seed, off in enumerate((0, 0.004, 0.002)):
        put(tmp_path, "slvit_no_urce", [0.8 + off] * 39 + [0.95], seed=seed, images=5)
        put(tmp_path, "slvit", [0.95, 0.3 + off] * 20, seed=seed, images=5)
    table = of_claims(tmp_path)
    sharper, better = table.loc["URCE sharpens borders (P@0.9)"], table.loc["URCE helps"]
    assert (sharper["metric"], sharper["verdict"]) == ("P@0.9", "supported")
    assert sharper["measured"] == pytest.approx(47.5)
    assert (better["metric"], better["verdict"]) == ("oIoU", "contradicted")


def test_what_the_grid_decides_is_untestable(tmp_path):
    """And is none of the claims among which errors are counted."""
    put_runs(tmp_path, "s2rm_casg", 60, 60.4, 60.2)
    put_runs(tmp_path, "casg_no_d123", 30, 30.4, 30.2)
    put_runs(tmp_path, "casg_no_d3", 59.2, 59.6, 59.4)
    claims = [
        "the three decoding stages together help",
        "the last decoding stage helps",
        "URCE sharpens borders (P@0.9)",
    ]
    before = of_claims(tmp_path).loc[claims]
    assert before["verdict"].tolist() == ["supported", "undecided", "not judged yet"] and before["ceiling"].isna().all()
    ceilings = pd.DataFrame({"stride": [4, 8, 16, 32], "oIoU": [86, 75, 59, 35], "P@0.9": [29, 9, 0, 0]})
    write_table(ceilings, tmp_path / "tables", "ceilings")
    after = of_claims(tmp_path).loc[claims]
    assert after["verdict"].tolist() == ["untestable here", "undecided", "untestable here"]
    assert after["ceiling"].tolist() == [35, 75, 29]
    assert after["p"].tolist()[0] == "" and after["smallest"].iloc[1] < before["smallest"].iloc[1]


def test_looks_places_and_other_splits_have_gains_without_verdicts(tmp_path):
    gained = {"attribute": 0.1, "location": 0.0, "stuff": 0.3}
    for variant in ("tile_concat", "s2rm_fpn"):
        for seed, off in enumerate((0, 0.01)):
            counts = []
            for split in STUDY.profile("scenes").splits:
                for kind, gain in gained.items():
                    reached = 0.4 + off + (gain if variant == "s2rm_fpn" else 0) + 1e-9
                    pictures = (
                        20 if split == "val" else 10
                    )  # each part has pictures of its own, and no two equally many
                    some = fake_counts([reached] * (pictures + len(kind))).assign(split=split, kind=kind)
                    counts.append(some.assign(image_id=some["image_id"] % (pictures - len(kind) // 2)))
            put_counts(tmp_path, variant, pd.concat(counts), seed=seed)
    line = of_claims(tmp_path).loc["S²RM beats Tile & Concat"]
    assert line["looks"].startswith("+10.0 [+") and line["places"].startswith("+0.0 [-")
    shown = line["elsewhere"].split("; ")
    assert [part.split(" [")[0][:-1] for part in shown] == ["testA: +12.", "testB: +12."]
    assert all(re.search(r" \[[+-]\d+\.\d, \+\d+\.\d\]", text) for text in (line["looks"], line["places"], *shown))
    assert shown[0].removeprefix("testA") == shown[1].removeprefix("testB")


def test_an_explanation_is_contradicted_by_its_runs(tmp_path):
    put_runs(tmp_path, "pwam_residual_fpn", 40, 40.2, 40.4)
    untested = explanations(STUDY.under("scenes", tmp_path)).set_index("variant").loc["pwam_fpn"]
    assert untested["verdict"] == "not judged yet" and untested["missing"].endswith("--variant pwam_fpn")
    put_runs(tmp_path, "pwam_fpn", 30, 30.2, 30.4)
    tested = explanations(STUDY.under("scenes", tmp_path)).set_index("variant").loc["pwam_fpn"]
    assert tested["verdict"] == "contradicted" and tested["measured"] == pytest.approx(-10)


def test_sides_that_no_one_profile_trains_come_from_those_beside_it(tmp_path):
    small, large = tmp_path / "refcoco", tmp_path / "refcoco_swinb"  # as the results of profiles lie
    missing = ledger(STUDY.under("refcoco", small)).set_index("claim")["missing"]
    both = "refstudy train --profile refcoco_swinb --variant s2rm_casg && refstudy train --profile refcoco_swinb "
    assert missing["the full model beats LAVT"] == both + "--variant lavt"
    each = "refstudy train --profile refcoco --variant slvit && refstudy train --profile refcoco_swinb --variant lavt"
    assert missing["SLViT beats LAVT"] == each
    put(small, "slvit", [0.6] * 20, profile="refcoco")
    put(small, "s2rm_casg", [0.4] * 20, profile="refcoco")  # of Swin-T: not compared with LAVT, which has Swin-B
    put(large, "s2rm_casg", [0.7] * 20, profile="refcoco_swinb")
    put(large, "lavt", [0.5] * 20, profile="refcoco_swinb")
    for profile, folder in (("refcoco", small), ("refcoco_swinb", large)):
        found = of_claims(folder, profile)
        assert found.loc["SLViT beats LAVT", "measured"] == pytest.approx(10)
        assert found.loc["SLViT beats LAVT", "data"] == "RefCOCO (unc) val, 480 px"
        assert found.loc["the full model beats LAVT", "measured"] == pytest.approx(20)
        assert found.loc["the full model beats LAVT", "data"] == (
            "RefCOCO (unc) val, 512 px against RefCOCO (unc) val, 480 px"
        )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((50, 50.1, 50.2), "supported"),
        ((50.2, 50.3, 50.4), "supported"),
        ((51, 51.1, 51.2), "undecided"),
        ((52, 52.1, 52.2), "contradicted"),
        ((45, 50, 55), "undecided"),
    ],
)
def test_saturation_asks_for_less_than_a_point(more, expected, tmp_path):
    """This profile's K is 2, so the variant with twice as many regions is slvit_k4."""
    put_runs(tmp_path, "slvit", 50, 50.1, 50.2)
    put_runs(tmp_path, "slvit_k4", *more)
    line = of_claims(tmp_path).loc["twice as many regions bring no more"]
    assert line["verdict"] == expected and line["measured"] == pytest.approx(sum(more) / 3 - 50.1)


def test_a_claim_is_about_the_variants_that_fill_its_rows():
    for claim in CLAIMS:
        sides = (
            (claim.better, claim.rows[0], claim.table),
            (claim.worse, claim.rows[1], claim.worse_table or claim.table),
        )
        for variant, row, table in sides:
            if table in TABLES:
                own = variant.removesuffix("_pretrained")  # the row's strips start at random, the claim's do not
                assert STUDY.variants[own].tables[table] == row, claim.text


def test_cost_claims_are_counted_at_one_size():
    table = cost_ledger(STUDY).set_index("claim")
    sizes = (512, 480, 512, 480, 512)
    assert table["data"].tolist() == [f"counted at {size} px, BERT included" for size in sizes]
    assert set(table["verdict"]) == {"supported"}
    assert table["paper"].tolist() == ["S²RM", "SLViT", "this study", "this study", "this study"]
    assert table["printed"].notna().tolist() == [True, False, False, False, False]
    own = table.loc["SwinT-Ours costs less than LAVT with Swin-B"]
    assert own["printed"] == pytest.approx(100 * (1 - 92.9 / 197.4))
    config = STUDY.run_config("refcoco_swinb", "lavt", 0).model.model_copy(update={"image_size": 512})
    first, second = cost(STUDY.run_config("refcoco", "s2rm_casg", 0).model), cost(config)
    assert own["measured"] == pytest.approx(100 * (1 - first.written / second.written))
    alike = STUDY.run_config("refcoco", "lavt", 0).model  # at 480 px, with Swin-T
    saved = 100 * (1 - cost(STUDY.run_config("refcoco", "slvit", 0).model).written / cost(alike).written)
    assert table.loc["SLViT costs less than LAVT with Swin-T", "measured"] == pytest.approx(saved)
    # Of a further expression LAVT computes all but its first stage anew; S²RM + CASG all but its image encoder.
    with torch.device("meta"), FlopCounterMode(display=False) as first_stage:
        build_model(config.from_scratch()).eval().encode_image(torch.empty(1, 3, 512, 512))
    large = cost(STUDY.run_config("refcoco_swinb", "s2rm_casg", 0).model)
    anew = sum(second.macs.values()) - first_stage.get_total_flops() / 2e9
    saved = 100 * (1 - (large.written - large.macs["image_encoder"]) / anew)
    assert table["measured"].iloc[-1] == pytest.approx(saved)
