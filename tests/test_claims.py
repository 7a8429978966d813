"""The claims ledger: printed gains from the printed tables, verdicts from records by rule."""

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from refstudy.claims import CLAIMS, cost_ledger, explanations, ledger
from refstudy.cost import cost
from refstudy.models.build import build_model
from refstudy.reported import load_reported
from refstudy.tables import TABLES

from .helpers import STUDY, fake_counts, put, put_counts


def test_every_claim_names_variants_and_printed_rows():
    for claim in CLAIMS:
        assert {claim.better, claim.worse} <= set(STUDY.variants)
        assert claim.printed == claim.printed  # a number: both rows are printed
    by_text = {claim.text: claim.printed for claim in CLAIMS}
    table = load_reported("s2rm_table4")["oIoU"]
    assert by_text["shifting helps"] == pytest.approx(table["W. S²RM (Full)"] - table["W. S²RM (-Shift)"])
    assert by_text["URCE sharpens borders (P@0.9)"] == pytest.approx(35.10 - 31.36)
    assert by_text["the full model beats LAVT"] == pytest.approx(74.35 - 72.73)
    assert by_text["S²RM beats ACM (FPN)"] == pytest.approx(2.98)  # as Sec. IV-D.4 says in words
    assert by_text["S²RM beats ACM (CASG)"] == pytest.approx(2.75)
    assert by_text["SLViT beats LAVT"] == pytest.approx(74.02 - 72.73)


def test_verdicts_follow_from_the_records(tmp_path):
    put(tmp_path, "tile_concat", [0.4] * 20)
    put(tmp_path, "s2rm_fpn", [0.5] * 20)
    put(tmp_path, "s2rm_no_shift", [0.6] * 20)
    put(tmp_path, "s2rm_no_balance", [0.3, 0.7] * 10)
    table = ledger(STUDY, "scenes", str(tmp_path)).set_index("claim")
    assert table.loc["S²RM beats Tile & Concat", "verdict"] == "held in one run"
    assert table.loc["S²RM beats Tile & Concat", "measured"] == pytest.approx(10)
    assert table.loc["shifting helps", "verdict"] == "failed in one run"
    assert table.loc["balancing the groups helps", "verdict"] == "undecided in one run"
    unmeasured = table.loc["CASG beats the FPN"]
    assert unmeasured["verdict"] == "not measured"
    assert unmeasured["missing"] == "refstudy train --profile scenes --variant s2rm_casg"


def test_a_claim_is_judged_by_its_own_metric(tmp_path):
    """More masks above 0.9 at a lower overall IoU: URCE sharpens borders, and does not help."""
    put(tmp_path, "slvit_no_urce", [0.8] * 40)
    put(tmp_path, "slvit", [0.95, 0.3] * 20)
    table = ledger(STUDY, "scenes", str(tmp_path)).set_index("claim")
    sharper, better = table.loc["URCE sharpens borders (P@0.9)"], table.loc["URCE helps"]
    assert (sharper["metric"], sharper["verdict"]) == ("P@0.9", "held in one run")
    assert sharper["measured"] == pytest.approx(50)
    assert (better["metric"], better["verdict"]) == ("oIoU", "failed in one run")


def test_a_claim_counts_the_seeds_that_both_sides_have(tmp_path):
    put(tmp_path, "tile_concat", [0.4] * 20, seed=0)
    put(tmp_path, "s2rm_fpn", [0.5] * 20, seed=1)
    line = ledger(STUDY, "scenes", str(tmp_path)).set_index("claim").loc["S²RM beats Tile & Concat"]
    assert line["verdict"] == "not measured"
    assert line["missing"] == "refstudy train --profile scenes --variant s2rm_fpn"  # which trains its seed 0
    put(tmp_path, "s2rm_fpn", [0.6] * 20, seed=0)
    line = ledger(STUDY, "scenes", str(tmp_path)).set_index("claim").loc["S²RM beats Tile & Concat"]
    assert line["runs"] == 1 and line["measured"] == pytest.approx(20)
    assert (line["variant"], line["reference"]) == ("s2rm_fpn", "tile_concat")
    assert line["verdict"] == "held in one run"
    put(tmp_path, "tile_concat", [0.4] * 20, seed=1)
    line = ledger(STUDY, "scenes", str(tmp_path)).set_index("claim").loc["S²RM beats Tile & Concat"]
    assert line["runs"] == 2 and line["measured"] == pytest.approx(15)
    assert line["verdict"] == "undecided"  # gains of 20 and 10 points: two runs may be chance
    put(tmp_path, "tile_concat", [0.4] * 20, seed=2)
    put(tmp_path, "s2rm_fpn", [0.56] * 20, seed=2)
    line = ledger(STUDY, "scenes", str(tmp_path)).set_index("claim").loc["S²RM beats Tile & Concat"]
    assert line["runs"] == 3 and line["low"] == pytest.approx(15.33 - 4.303 * 5.03 / 3**0.5, abs=0.1)
    assert line["verdict"] == "supported"


def test_a_verdict_is_told_of_the_other_splits_too(tmp_path):
    measured = {"tile_concat": (0.4, 0.4, 0.4), "s2rm_fpn": (0.5, 0.3, 0.4)}
    for variant, ious in measured.items():
        config = STUDY.run_config("scenes", variant, 0)
        counts = [fake_counts([of] * 20).assign(split=split) for of, split in zip(ious, config.splits, strict=True)]
        put_counts(tmp_path, variant, pd.concat(counts))
    line = ledger(STUDY, "scenes", str(tmp_path)).set_index("claim").loc["S²RM beats Tile & Concat"]
    assert line["verdict"] == "held in one run" and line["measured"] == pytest.approx(10)
    assert line["elsewhere"] == (
        "testA: failed in one run -10.0 [-10.0, -10.0]; testB: undecided in one run +0.0 [+0.0, +0.0]"
    )


def test_an_explanation_is_contradicted_by_its_run(tmp_path):
    put(tmp_path, "pwam_residual_fpn", [0.4] * 20)
    untested = explanations(STUDY, "scenes", str(tmp_path)).set_index("variant").loc["pwam_fpn"]
    assert untested["verdict"] == "not measured" and untested["missing"].endswith("--variant pwam_fpn")
    put(tmp_path, "pwam_fpn", [0.3] * 20)
    tested = explanations(STUDY, "scenes", str(tmp_path)).set_index("variant").loc["pwam_fpn"]
    assert tested["verdict"] == "failed in one run" and tested["measured"] == pytest.approx(-10)


def test_an_explanation_may_hold_one_seed_against_another(tmp_path):
    """Whether the longer training of seed 1 ends above the plain one of seed 0."""

    def tested() -> pd.Series:
        by_sides = explanations(STUDY, "scenes", str(tmp_path)).set_index(["variant", "reference"])
        return by_sides.loc["s2rm_casg_longer", "s2rm_casg"]

    found = tested()
    commands = [
        f"refstudy train --profile scenes --variant {run}"
        for run in ("s2rm_casg_longer --seed 1", "s2rm_casg --seed 0")
    ]
    assert found["missing"] == " && ".join(commands)
    put(tmp_path, "s2rm_casg", [0.5] * 20, seed=0)
    put(tmp_path, "s2rm_casg", [0.4] * 20, seed=1)
    put(tmp_path, "s2rm_casg_longer", [0.9] * 20, seed=0)  # another question
    assert tested()["missing"] == commands[0]
    put(tmp_path, "s2rm_casg_longer", [0.45] * 20, seed=1)  # better than its own seed, and yet not enough
    found = tested()
    assert found["measured"] == pytest.approx(-5) and found["verdict"] == "failed in one run"


def test_sides_that_no_one_profile_trains_come_from_those_beside_it(tmp_path):
    small, large = tmp_path / "refcoco", tmp_path / "refcoco_swinb"  # as the results of profiles lie
    missing = ledger(STUDY, "refcoco", str(small)).set_index("claim")["missing"]
    both = "refstudy train --profile refcoco_swinb --variant s2rm_casg && refstudy train --profile refcoco_swinb "
    assert missing["the full model beats LAVT"] == both + "--variant lavt"
    each = "refstudy train --profile refcoco --variant slvit && refstudy train --profile refcoco_swinb --variant lavt"
    assert missing["SLViT beats LAVT"] == each
    put(small, "slvit", [0.6] * 20, profile="refcoco")
    put(small, "s2rm_casg", [0.4] * 20, profile="refcoco")  # of Swin-T: not compared with LAVT, which has Swin-B
    put(large, "s2rm_casg", [0.7] * 20, profile="refcoco_swinb")
    put(large, "lavt", [0.5] * 20, profile="refcoco_swinb")
    for profile, folder in (("refcoco", small), ("refcoco_swinb", large)):
        found = ledger(STUDY, profile, str(folder)).set_index("claim")
        assert found.loc["SLViT beats LAVT", "measured"] == pytest.approx(10)
        assert found.loc["SLViT beats LAVT", "data"] == "RefCOCO (unc) val, 480 px"
        assert found.loc["the full model beats LAVT", "measured"] == pytest.approx(20)
        assert found.loc["the full model beats LAVT", "data"] == (
            "RefCOCO (unc) val, 512 px against RefCOCO (unc) val, 480 px"
        )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([0.5] * 20, "held"),
        ([0.508] * 20, "held"),
        ([0.512] * 20, "failed"),
        ([0.6] * 20, "failed"),
        ([0.2, 0.82] * 10, "undecided"),
    ],
)
def test_saturation_asks_for_less_than_a_point(more, expected, tmp_path):
    """This profile's K is 2, so the variant with twice as many regions is slvit_k4."""
    put(tmp_path, "slvit", [0.5] * 20)
    put(tmp_path, "slvit_k4", more)
    table = ledger(STUDY, "scenes", str(tmp_path)).set_index("claim")
    assert table.loc["twice as many regions bring no more", "verdict"] == f"{expected} in one run"


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
