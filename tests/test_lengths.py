"""Buckets of length and kinds: known counts to known cells, empty buckets stay empty."""

import numpy as np
import pandas as pd
import pytest

from refstudy.analysis.inference import Estimate
from refstudy.analysis.lengths import (
    COLUMNS,
    Bucket,
    by_bucket,
    by_kind,
    by_kind_and_bucket,
    by_words,
    group_gap,
    grouped_oiou,
    judged,
    kind_table,
    kinds_by_run,
    length_curve,
    length_gaps,
    length_table,
    length_verdicts,
    measured_groups,
    printed_buckets,
)
from refstudy.analysis.measures import jackknifed_metrics
from refstudy.analysis.rows import variant_records
from refstudy.analysis.table_files import write_table
from refstudy.data.scenes.grammar import KINDS
from refstudy.papers.printed import load_printed

from .helpers import STUDY, put_counts


def put(
    results, words, kinds, intersection, union, variant="s2rm_casg", images=5, split="val", profile="scenes", seed=0
):
    """A run record whose expressions have these words, kinds and pixel counts, spread over ``images`` images."""
    n = len(words)
    counts = pd.DataFrame(
        {
            "sent_id": np.arange(n),
            "ref_id": np.arange(n),
            "image_id": np.arange(n) % images,
            "split": split,
            "words": words,
            "kind": kinds,
            "intersection": intersection,
            "union": union,
        }
    )
    put_counts(results, variant, counts, profile, seed)
    return variant_records(STUDY.under(profile, results), variant)


def test_the_buckets_are_those_that_the_paper_prints():
    buckets = printed_buckets()
    assert list(buckets) == list(COLUMNS)
    assert buckets["RefCOCO"] == buckets["RefCOCO+"] == (Bucket(1, 2), Bucket(3, 3), Bucket(4, 5), Bucket(6, 20))
    assert [str(bucket) for bucket in buckets["RefCOCOg (Google)"]] == ["1-5", "6-7", "8-10", "11-20"]
    assert [str(bucket) for bucket in buckets["ReferIt"]] == ["1", "2", "3-4", "5-20"]


@pytest.mark.parametrize("dataset", list(COLUMNS))
def test_every_number_of_words_is_in_exactly_one_bucket(dataset):
    buckets = printed_buckets()[dataset]
    for words in range(1, 21):
        assert sum(bucket.first <= words <= bucket.last for bucket in buckets) == 1
    names = by_bucket(buckets)(pd.DataFrame({"words": [1, 20, 21, 39]}))
    assert names.tolist() == [str(buckets[0])] + 3 * [str(buckets[-1])]


def test_known_counts_give_known_cells(tmp_path):
    put(tmp_path, [1, 2, 3, 4, 8, 9], ["location"] * 6, [10, 30, 50, 20, 30, 0], [100, 100, 100, 100, 100, 200])
    table = length_table(STUDY.under("scenes", tmp_path))
    ours = table[table["row"] == "SwinT-Ours"].set_index(["dataset", "bucket"])
    cells = ours.loc["RefCOCO"]
    assert cells["ours"].tolist() == pytest.approx([40 / 2, 50, 20, 30 / 3])  # summed, not averaged
    assert cells["expressions"].tolist() == [2, 1, 1, 2]
    assert cells["printed"].tolist() == [77.57, 75.15, 68.50, 60.20]
    assert set(cells["data"]) == {"RefScenes val, 128 px"}
    assert set(cells["runs"]) == {1} and set(cells["missing"]) == {
        "refstudy train --profile scenes --variant s2rm_casg"
    }
    assert cells["ours_low"].isna().all()  # one run, of a family of which no row has two
    put(tmp_path, [1, 2, 3, 4, 8, 9], ["location"] * 6, [12, 34, 50, 22, 30, 2], [100] * 5 + [200], seed=1)
    table = length_table(STUDY.under("scenes", tmp_path))
    cells = table[table["row"] == "SwinT-Ours"].set_index(["dataset", "bucket"]).loc["RefCOCO"]
    assert cells["ours_low"].notna().tolist() == [True, False, False, True]  # a group in one picture has none
    known = cells.dropna(subset="ours_low")
    assert (known["ours_low"] <= known["ours"]).all() and (known["ours"] <= known["ours_high"]).all()


def test_scenes_stand_in_for_their_own_benchmark_and_row_alone(tmp_path):
    put(tmp_path, [1, 3, 5, 7], ["location"] * 4, [10] * 4, [20] * 4)
    table = length_table(STUDY.under("scenes", tmp_path))
    assert len(table) == 7 * 16 and table["printed"].notna().all()
    elsewhere = table[(table["row"] != "SwinT-Ours") | (table["dataset"] != "RefCOCO")]
    assert elsewhere["ours"].isna().all() and set(elsewhere["data"]) == {""} and (elsewhere["expressions"] == 0).all()
    printed = load_printed("s2rm_table3")
    for line in table.itertuples():
        assert line.printed == printed.loc[line.row, f"{line.dataset} {line.bucket}"]


def test_without_a_record_ours_is_empty_and_the_command_is_named(tmp_path):
    table = length_table(STUDY.under("scenes", tmp_path))
    assert table["ours"].isna().all() and (table["runs"] == 0).all()
    missing = table[(table["row"] == "SwinT-Ours") & (table["dataset"] == "RefCOCO")]["missing"]
    assert set(missing) == {"refstudy train --profile scenes --variant s2rm_casg"}
    assert length_curve(STUDY.under("scenes", tmp_path)).empty and kind_table(STUDY.under("scenes", tmp_path)).empty
    assert write_table(table, tmp_path, "t").read_text().count("\n") == 1 + 7 * 16


def test_empty_buckets_stay_empty(tmp_path):
    records = put(tmp_path, [1, 1, 3, 3], ["location"] * 4, [10] * 4, [20] * 4)
    measured = measured_groups(records, "val", by_bucket(printed_buckets()["RefCOCO"]), ["1-2", "3", "4-5", "6-20"])
    assert measured["expressions"].tolist() == [2, 2, 0, 0]
    assert measured.loc[["4-5", "6-20"], ["ours", "ours_low", "ours_high"]].isna().all(axis=None)
    assert measured.loc[["1-2", "3"], "ours"].eq(50).all(axis=None)
    assert np.isnan(group_gap(records, "val", by_words, 1, 2).points)


def test_a_bucket_in_one_image_has_no_interval(tmp_path):
    for seed in (0, 1):
        records = put(tmp_path, [1, 1, 1, 1, 9], ["location"] * 5, [10, 12, 8, 10, 15], [20] * 5, seed=seed)
    values = grouped_oiou(records, "val", by_words, [1, 9]).values
    assert values.isna().sum().tolist() == [0, 1]  # without its picture the second has no expression
    one, nine = measured_groups(records, "val", by_words, [1, 9]).to_numpy()
    assert nine[0] == 75 and np.isnan(nine[1:3]).all() and one[1] < one[0] < one[2]


def test_one_group_of_everything_is_the_tables_overall_iou(tmp_path):
    rng = np.random.default_rng(0)
    union = rng.integers(50, 100, 60)
    (record,) = put(tmp_path, rng.integers(1, 9, 60), ["location"] * 60, rng.integers(0, 50, 60), union, images=15)
    whole = grouped_oiou([record], "val", by_kind, ["location"]).values["location"]
    np.testing.assert_allclose(whole, jackknifed_metrics(record, "val")["oIoU"])


def test_seeds_are_averaged(tmp_path):
    first = put(tmp_path / "a", [1, 1], ["location"] * 2, [10, 10], [20, 20])
    second = put(tmp_path / "b", [1, 1], ["location"] * 2, [15, 15], [20, 20])
    assert measured_groups(first + second, "val", by_words, [1]).loc[1, "ours"] == pytest.approx(62.5)


def test_curve_and_kinds(tmp_path):
    kinds = ["location", "attribute", "attribute", "relation"]
    put(tmp_path, [1, 2, 2, 4], kinds, [10, 5, 15, 2], [20] * 4, variant="s2rm_fpn")
    put(tmp_path, [1, 2, 2, 4], kinds, [20, 5, 5, 0], [20] * 4)
    curve = length_curve(STUDY.under("scenes", tmp_path)).set_index(["variant", "words"])
    assert curve.loc["s2rm_fpn", "ours"].tolist() == pytest.approx([50, 50, np.nan, 10], nan_ok=True)
    assert curve.loc["s2rm_fpn", "expressions"].tolist() == [1, 2, 0, 1]
    table = kind_table(STUDY.under("scenes", tmp_path)).set_index(["variant", "kind"])
    assert list(table.loc["s2rm_casg"].index) == list(KINDS)
    assert table.loc[("s2rm_casg", "attribute"), "ours"] == 25
    assert table.loc[("s2rm_casg", "relation"), "ours"] == 0
    assert np.isnan(table.loc[("s2rm_casg", "stuff"), "ours"])
    assert set(table["data"]) == {"RefScenes val, 128 px"}


def test_every_run_has_its_own_kinds(tmp_path):
    put(tmp_path, [1, 2], ["location", "attribute"], [10, 5], [20] * 2)
    put(tmp_path, [1, 2], ["location", "attribute"], [2, 5], [20] * 2, seed=1)
    table = kinds_by_run(STUDY.under("scenes", tmp_path)).set_index(["variant", "seed", "kind"])
    assert table.loc["s2rm_casg", "ours"].dropna().to_dict() == pytest.approx(
        {(0, "location"): 50, (0, "attribute"): 25, (1, "location"): 10, (1, "attribute"): 25}
    )
    assert table.loc["s2rm_casg", "expressions"].sum() == 4
    assert set(table["data"]) == {"RefScenes val, 128 px"}
    assert kinds_by_run(STUDY.under("scenes", tmp_path / "none")).empty


def test_gaps_are_within_a_run_and_its_pictures(tmp_path):
    """Two groups that rise and fall together, from picture to picture and from run to run: their gap is surer than
    either of them."""
    rng = np.random.default_rng(1)
    easy = rng.integers(20, 70, 40)
    words = np.repeat([1, 5], 40)
    for seed, off in enumerate((0, 8, 3)):
        inter = np.concatenate([easy + off + 10, easy + off])
        records = put(tmp_path, words, ["location"] * 80, inter, [100] * 80, images=40, seed=seed)
    gap = group_gap(records, "val", by_words, 1, 5)
    assert (gap.points, *gap.interval()) == pytest.approx((10, 10, 10))
    one = measured_groups(records, "val", by_words, [1]).loc[1]
    assert one["ours_high"] - one["ours_low"] > 5


def test_groups_have_the_spread_of_their_family(tmp_path):
    """A row of one run gets the interval that the runs of another row with its decoder allow."""
    for seed, reached in enumerate((30, 34)):
        put(tmp_path, [1, 2], ["location"] * 2, [reached] * 2, [100] * 2, variant="tile_concat", seed=seed)
    put(tmp_path, [1, 2], ["location"] * 2, [40] * 2, [100] * 2, variant="s2rm_fpn")
    line = kind_table(STUDY.under("scenes", tmp_path)).set_index(["variant", "kind"]).loc[("s2rm_fpn", "location")]
    half = 12.7062 * 8**0.5  # Student's t, one degree of freedom; the variance of 30 and 34 is 8
    assert [line["ours"], line["ours_low"], line["ours_high"]] == pytest.approx([40, 40 - half, 40 + half], rel=1e-4)


def test_another_split_is_not_shown_as_the_printed_one(tmp_path):
    put(tmp_path, [1, 3], ["location"] * 2, [10] * 2, [20] * 2, split="testA")
    table = length_table(STUDY.under("scenes", tmp_path))
    assert table["ours"].isna().all()


def test_refcocog_is_googles_partition(tmp_path):
    """As the paper prints it; UMD's, which is beside it, has a val too."""
    for profile, inter in (("scenes_g_umd", 5), ("scenes_g_google", 10)):
        for seed in STUDY.seeds(profile, "s2rm_casg"):
            put(tmp_path / profile, [4, 7, 9, 12], ["relation"] * 4, [inter] * 4, [20] * 4, profile=profile, seed=seed)
    for profile in ("scenes", "scenes_g_umd"):
        table = length_table(STUDY.under(profile, tmp_path / profile))
        ours = table[table["row"] == "SwinT-Ours"].set_index("dataset").loc["RefCOCOg (Google)"]
        assert (ours["ours"] == 50).all() and ours["missing"].eq("").all()
        assert len(table) == 7 * 16 and table["ours"].notna().sum() == 4


def points(records):
    """Those of ``length_gaps`` between one word and five."""
    return {name: gap.points for name, gap in length_gaps(records, "val", by_words, 1, 5).items()}


def test_one_mix_of_kinds_tells_length_from_kind(tmp_path):
    """Short ones are mostly easy, long ones mostly hard; first only the kind matters, then only the length."""
    words = [1] * 8 + [5] * 8
    kinds = ["attribute"] * 6 + ["relation"] * 2 + ["attribute"] * 2 + ["relation"] * 6
    by_kind_alone = put(tmp_path, words, kinds, [80 if kind == "attribute" else 40 for kind in kinds], [100] * 16)
    gaps = points(by_kind_alone)
    assert gaps == pytest.approx({"as they are": 70 - 50, "one mix of kinds": 0, "owed to kinds": 20})
    by_length_alone = put(tmp_path, words, kinds, [80] * 8 + [50] * 8, [100] * 16)
    assert points(by_length_alone) == pytest.approx({"as they are": 30, "one mix of kinds": 30, "owed to kinds": 0})


def test_a_kind_of_one_length_alone_is_in_no_mix(tmp_path):
    kinds = ["category"] * 4 + ["attribute"] * 4 + ["attribute"] * 4
    records = put(tmp_path, [1] * 8 + [5] * 4, kinds, [90] * 4 + [60] * 4 + [50] * 4, [100] * 12, images=4)
    assert points(records) == pytest.approx({"as they are": 25, "one mix of kinds": 10, "owed to kinds": 15})
    apart = put(tmp_path, [1, 5], ["category", "relation"], [10, 10], [20, 20])
    assert np.isnan(points(apart)["one mix of kinds"])
    unnamed = put(tmp_path, [1, 5], [None, None], [15, 10], [20, 20])  # as in released data
    assert points(unnamed)["as they are"] == 25 and np.isnan(points(unnamed)["one mix of kinds"])


def test_groups_of_kind_and_bucket():
    counts = pd.DataFrame({"kind": ["location", "relation", None], "words": [2, 25, 1]})
    names = by_kind_and_bucket(printed_buckets()["RefCOCO"])(counts)
    assert names[:2].tolist() == ["location, 1-2", "relation, 6-20"] and pd.isna(names[2])


def test_gaps_are_judged_together():
    claims = pd.DataFrame({"claim": ["up", "down", "open", "empty"]})
    gaps = [Estimate(points, 0.1, 4) for points in (5, -5, 0.05)] + [Estimate(np.nan, np.nan, np.nan)]
    table = judged(claims, gaps, 3).set_index("claim")
    assert table["verdict"].tolist() == ["supported", "contradicted", "undecided", "untestable here"]
    assert table["measured"].tolist()[:3] == [5, -5, 0.05] and table["smallest"].notna().tolist() == [0, 0, 1, 0]
    assert (table["low"] < table["measured"]).tolist() == [True, True, True, False]
    assert judged(claims, gaps, 1)["verdict"].tolist() == ["not judged yet"] * 3 + ["untestable here"]


def test_verdicts_name_what_the_kinds_turn_round(tmp_path):
    """Long expressions look harder, since most are relations; of either kind the longer ones are the easier ones."""
    words = [1] * 8 + [5] * 8
    kinds = ["attribute"] * 6 + ["relation"] * 2 + ["attribute"] * 2 + ["relation"] * 6
    easy = {("attribute", 1): 80, ("attribute", 5): 90, ("relation", 1): 30, ("relation", 5): 40}
    inter = [easy[pair] for pair in zip(kinds, words, strict=True)]
    for seed in range(3):
        records = put(tmp_path, words, kinds, inter, [100] * 16, images=2, seed=seed)  # each has the same of all
    table = length_verdicts(records, "val", printed_buckets()["RefCOCO"]).set_index(["compared", "longer"])
    assert table.loc[("as they are", "4-5"), "measured"] == pytest.approx(15)
    assert table["verdict"].to_dict() == {
        ("as they are", "3"): "untestable here",  # no expression has so many words
        ("as they are", "4-5"): "supported",
        ("one mix of kinds", "4-5"): "contradicted",
        ("owed to kinds", "4-5"): "supported",
        ("as they are", "6-20"): "untestable here",
        ("one kind", "4-5"): "contradicted",
        ("two kinds", ""): "supported",
    }
    mixed, alone = table.loc["one mix of kinds"].iloc[0], table.loc["one kind"]
    assert mixed["measured"] == pytest.approx(-10) and mixed["kinds"] == ("attribute", "relation")
    assert alone["kinds"].tolist() == [("attribute",), ("relation",)] and alone["measured"].tolist() == [-10, -10]
    assert "among expressions of kind *relation*, 1-2 words are easier than 4-5" in alone["claim"].tolist()


def test_without_kinds_lengths_are_compared_as_they_are(tmp_path):
    records = put(tmp_path, [1, 5], [None, None], [15, 10], [20, 20])
    table = length_verdicts(records, "val", printed_buckets()["RefCOCO"])
    assert table["compared"].eq("as they are").all() and table["longer"].tolist() == ["3", "4-5", "6-20"]
