"""Tables: known counts to known cells, gaps shown as gaps."""

import numpy as np
import pandas as pd
import pytest

from refstudy.analysis.inference import pooled
from refstudy.analysis.measures import (
    jackknifed_metrics,
    leave_out,
    metrics_of,
    over_pictures,
    own_ends,
    pictures_variance,
)
from refstudy.analysis.rows import variant_records
from refstudy.analysis.table_files import write_table
from refstudy.analysis.table_text import markdown, render, render_comparison, render_verdicts, untrained, with_interval
from refstudy.analysis.tables import TABLES, build_comparison, build_table
from refstudy.base.errors import StudyError
from refstudy.metrics import METRICS
from refstudy.papers.printed import load_printed, printed_rows
from refstudy.study.load import load_study

from .helpers import STUDY, fake_counts, put, put_counts


@pytest.mark.parametrize("stem", list(TABLES))
def test_every_printed_row_has_its_variant(stem):
    rows = {variant.tables[stem] for variant in STUDY.variants.values() if stem in variant.tables}
    assert rows | set(TABLES[stem].unfilled) == set(printed_rows(stem).index)
    assert not rows & set(TABLES[stem].unfilled)
    assert TABLES[stem].baseline in rows


def test_numbers_are_read_with_their_intervals():
    table = pd.DataFrame({"x": [43.64, -1.0, float("nan")], "x_low": [40.49, float("nan"), float("nan")]})
    table["x_high"] = [46.6, float("nan"), float("nan")]
    assert with_interval(table, "x").tolist() == ["43.6 [40.5, 46.6]", "-1.0", ""]
    assert with_interval(table, "x", digits=0, signed=True).tolist() == ["+44 [+40, +47]", "-1", ""]


def test_known_counts_give_known_cells(tmp_path):
    put(tmp_path, "tile_concat", [0.2] * 50 + [0.6] * 50)
    put(tmp_path, "s2rm_fpn", [0.4] * 50 + [0.8] * 50)
    table = build_table("s2rm_table4", STUDY.under("scenes", tmp_path)).set_index(["row", "metric"])
    full = table.loc["W. S²RM (Full)"]
    assert full.loc["oIoU", "ours"] == pytest.approx(60.0)
    assert full.loc["oIoU", "printed"] == 69.57
    assert full.loc["oIoU", "minus_printed"] == pytest.approx(60.0 - 69.57)
    assert full.loc["oIoU", "gain"] == pytest.approx(20.0)
    assert full.loc["oIoU", "printed_gain"] == pytest.approx(69.57 - 60.55)
    assert np.isnan(full.loc["oIoU", ["ours_low", "gain_low", "gain_high"]].astype(float)).all()  # of one run
    assert full.loc["P@0.7", "ours"] == pytest.approx(50.0)
    assert full.loc["oIoU", "runs"] == 1
    assert full.loc["oIoU", "data"] == "RefScenes val, 128 px"
    assert np.isnan(table.loc[("W. Tile & Concat.", "oIoU"), "gain"])


def test_a_row_without_a_record_is_empty_and_names_its_command(tmp_path):
    for seed in STUDY.seeds("scenes", "tile_concat"):
        put(tmp_path, "tile_concat", [0.5] * 10, images=5, seed=seed)
    table = build_table("s2rm_table4", STUDY.under("scenes", tmp_path)).set_index(["row", "metric"])
    line = table.loc[("W. S²RM (-Shift)", "oIoU")]
    assert np.isnan(line["ours"]) and np.isnan(line["gain"]) and line["runs"] == 0 and line["data"] == ""
    assert line["missing"] == "refstudy train --profile scenes --variant s2rm_no_shift"
    assert table.loc[("W. Tile & Concat.", "oIoU"), "missing"] == ""
    shown = render(build_table("s2rm_table4", STUDY.under("scenes", tmp_path)))
    assert shown.loc["W. S²RM (Full)", ("gain in oIoU", "printed")] == "+9.02"
    assert shown.loc["W. S²RM (Full)", ("gain in oIoU", "ours")] == ""
    assert shown["our data"].tolist() == ["RefScenes val, 128 px"] + [""] * (len(shown) - 1)


def test_without_any_record_all_of_ours_is_empty(tmp_path):
    for stem in TABLES:
        table = build_table(stem, STUDY.under("scenes", tmp_path))
        printed = load_printed(stem).filter(items=list(METRICS))
        assert table["ours"].isna().all() and table["printed"].notna().sum() == printed.notna().sum().sum()
        assert (render(table).xs("ours", axis=1, level=1) == "").all().all()


@pytest.mark.parametrize("stem, variant", [("s2rm_table1", "s2rm_casg"), ("slvit_table1", "slvit")])
def test_ours_stands_beside_the_benchmark_it_is_modelled_on(stem, variant, tmp_path):
    empty = build_comparison(stem, STUDY.under("scenes", tmp_path))
    assert empty["ours"].isna().all() and (empty["data"] == "").all()
    needed = empty.query("variant == @variant and benchmark == 'RefCOCO val'")
    assert needed["missing"].tolist() == [f"refstudy train --profile scenes --variant {variant}"] * len(needed)
    put(tmp_path, variant, [0.5] * 10, images=5)
    config = STUDY.run_config("scenes", variant, 0)
    counts = pd.concat([fake_counts([0.5] * 10, 5).assign(split=split) for split in config.splits])
    put_counts(tmp_path, variant, counts)
    table = build_comparison(stem, STUDY.under("scenes", tmp_path))
    filled = table[table["ours"].notna()]
    assert set(filled["benchmark"]) == {"RefCOCO val", "RefCOCO testA", "RefCOCO testB"}
    assert set(filled["data"]) == {f"RefScenes {split}, 128 px" for split in ("val", "testA", "testB")}
    assert (filled["ours"] == 50).all() and set(filled["variant"]) == {variant}
    assert set(filled["missing"]) == {f"refstudy train --profile scenes --variant {variant}"}  # two more seeds
    reported = load_printed(stem).select_dtypes("number")
    assert table["printed"].notna().sum() == reported.notna().sum().sum()
    line = render_comparison(table).loc[("oIoU", filled["row"].iloc[0])]
    assert line["ours: RefScenes val, 128 px"] == "50.0" and float(line["RefCOCO val"]) > 60  # each under its data
    several = render_comparison(table.assign(runs=3)).loc[("oIoU", filled["row"].iloc[0])]
    assert several["ours: RefScenes val, 128 px"] == "50.0 (3 runs)" and several["RefCOCO val"] == line["RefCOCO val"]


def test_a_record_of_other_settings_is_not_used(tmp_path):
    put(tmp_path, "tile_concat", [0.5] * 10, profile="smoke", images=5)
    assert variant_records(STUDY.under("scenes", tmp_path), "tile_concat") == []


def test_seeds_are_averaged(tmp_path):
    profile = STUDY.profiles["scenes"].model_copy(update={"seeds": (0, 1)})
    study = load_study(STUDY.path)
    study.profiles["scenes"] = profile
    put(tmp_path, "tile_concat", [0.2] * 20, seed=0, study=study)
    half = build_table("s2rm_table4", study.under("scenes", tmp_path)).set_index(["row", "metric"])
    assert half.loc[("W. Tile & Concat.", "oIoU"), "missing"].endswith("--variant tile_concat")
    put(tmp_path, "tile_concat", [0.4] * 20, seed=1, study=study)
    line = build_table("s2rm_table4", study.under("scenes", tmp_path)).set_index(["row", "metric"])
    cell = line.loc[("W. Tile & Concat.", "oIoU")]
    assert cell["ours"] == pytest.approx(30.0) and cell["runs"] == 2


def test_gains_are_differences_of_means_and_seeds_are_pooled_by_decoder(tmp_path):
    """Seeds are not pairs: those that move both rows alike leave the gain as unsure as any."""
    ends = {"tile_concat": (20, 25, 31), "s2rm_fpn": (30, 35, 41), "s2rm_no_shift": (50,), "s2rm_casg": (60,)}
    for variant, reached in ends.items():
        for seed, end in enumerate(reached):
            put(tmp_path, variant, [end / 100] * 20, seed=seed)
    overall = build_table("s2rm_table4", STUDY.under("scenes", tmp_path)).query("metric == 'oIoU'").set_index("row")
    variance, freedom = pooled([ends["tile_concat"], ends["s2rm_fpn"]])
    assert freedom == 4
    t = 2.7764  # Student's, 97.5 %, four degrees of freedom
    for row, gain, share in (("W. S²RM (Full)", 10, 1 / 3 + 1 / 3), ("W. S²RM (-Shift)", 50 - 76 / 3, 1 + 1 / 3)):
        half = t * (share * variance) ** 0.5
        shown = overall.loc[row, ["gain", "gain_low", "gain_high"]].tolist()
        assert shown == pytest.approx([gain, gain - half, gain + half], rel=1e-4)
    one = overall.loc["W. S²RM (-Shift)"]  # a single run is shown with its seeds, too
    assert [one["ours_low"], one["ours_high"]] == pytest.approx(
        [50 - t * variance**0.5, 50 + t * variance**0.5], rel=1e-4
    )
    of_casg = build_table("s2rm_table5", STUDY.under("scenes", tmp_path)).query("metric == 'oIoU'").set_index("row")
    assert of_casg.loc["W. CASG (Full)", "ours"] == 60 and np.isnan(of_casg.loc["W. CASG (Full)", "ours_low"])
    assert with_interval(of_casg, "ours")["W. CASG (Full)"] == "60.0"


def test_runs_on_other_data_are_neither_compared_nor_averaged(tmp_path):
    put(tmp_path, "tile_concat", [0.2] * 20)
    put(tmp_path, "s2rm_fpn", [0.3] * 20, data="other")
    refused = "{0}-seed.* and .*{1}-seed.*: measured on different data .*train one of them again"
    with pytest.raises(StudyError, match=refused.format("s2rm_fpn", "tile_concat")):
        gain(tmp_path, "s2rm_fpn", "tile_concat")
    put(tmp_path, "pwam_fpn", [0.3] * 20)
    put(tmp_path, "pwam_fpn", [0.3] * 20, seed=1, data="other")
    with pytest.raises(StudyError, match=refused.format("pwam_fpn", "pwam_fpn")):
        variant_records(STUDY.under("scenes", tmp_path), "pwam_fpn")


def test_what_is_compared_is_computed_in_one_precision(tmp_path):
    put(tmp_path, "pwam_fpn", [0.3] * 20, precision="bfloat16")
    put(tmp_path, "tile_concat", [0.3] * 20)
    assert len(variant_records(STUDY.under("scenes", tmp_path), "pwam_fpn")) == 1
    refused = "pwam_fpn-seed0-.* in bfloat16 and .*{0}-.* in float32: runs that are compared.*train one of them again"
    with pytest.raises(StudyError, match=refused.format("tile_concat-seed0")):
        gain(tmp_path, "pwam_fpn", "tile_concat")
    put(tmp_path, "pwam_fpn", [0.3] * 20, seed=1)
    with pytest.raises(StudyError, match=refused.format("pwam_fpn-seed1")):
        variant_records(STUDY.under("scenes", tmp_path), "pwam_fpn")


def test_the_bytes_of_a_table_are_the_same_twice(tmp_path):
    rng = np.random.default_rng(0)
    put(tmp_path, "tile_concat", rng.random(100))
    put(tmp_path, "s2rm_fpn", rng.random(100))
    written = [
        write_table(build_table("s2rm_table4", STUDY.under("scenes", tmp_path)), tmp_path / k, "t").read_bytes()
        for k in "ab"
    ]
    assert written[0] == written[1] and written[0].count(b"\n") == 1 + 8 * 7
    near_zero = write_table(pd.DataFrame({"row": ["a"], "gain": [-0.001]}), tmp_path, "t").read_text()
    assert near_zero == "row,gain\na,0.00\n"


def test_intervals_cover_as_often_as_they_say(tmp_path):
    """The mean IoU of many images from a known distribution: about 95 of 100 intervals hold its mean."""
    rng = np.random.default_rng(1)
    covered = 0
    for k in range(60):
        folder = tmp_path / str(k)
        put(folder, "tile_concat", rng.beta(2, 3, size=150), images=150)
        (record,) = variant_records(STUDY.under("scenes", folder), "tile_concat")
        low, high = over_pictures(jackknifed_metrics(record, "val")["mIoU"]).interval()
        covered += low < 100 * 2 / 5 < high
    assert 51 <= covered <= 60


@pytest.mark.parametrize("pictures", [0, 1])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_intervals_over_few_runs_cover_as_often_as_they_say(runs, pictures):
    """Trainings end normally about 50 points, and pictures may add what all trainings have in common. Three standard
    errors of the trials are allowed, and with pictures what Satterthwaite's approximation costs: docs/statistics.md."""
    rng, covered, trials = np.random.default_rng(runs), 0, 400
    for _ in range(trials):
        each = 50 + pictures * 20 * rng.normal(size=400)  # the mean of 400 pictures is off by an SD of 0 or 1
        values = leave_out(np.column_stack([each, np.ones(400)]))
        off = values[:, 0] / values[:, 1]
        ends = own_ends([pd.DataFrame({"oIoU": off + end}) for end in rng.normal(0, 2, runs)])
        low, high = ends.level()["oIoU"].interval()
        covered += low < 50 < high
    chance, cost = 3 * (0.95 * 0.05 / trials) ** 0.5, pictures * {2: 0.07, 3: 0.03, 5: 0.01}[runs]
    assert 0.95 - chance - cost < covered / trials < 0.95 + chance


def test_an_interval_over_runs_is_that_of_student():
    """Of 39, 41 and 46 on pictures that all agree: 42, give or take 4.303 standard errors."""
    ends = own_ends([pd.DataFrame({"oIoU": np.full(401, end)}) for end in (39.0, 41.0, 46.0)])
    half = 4.3027 * np.sqrt((9 + 1 + 16) / 2 / 3)
    level = ends.level()["oIoU"]
    assert level.points == 42 and level.interval() == pytest.approx((42 - half, 42 + half), rel=1e-4)


def test_a_level_does_not_leave_0_to_100(tmp_path):
    for seed, end in enumerate((0.2, 0.9)):
        put(tmp_path, "tile_concat", [end] * 20, seed=seed)
    table = build_table("s2rm_table4", STUDY.under("scenes", tmp_path)).set_index(["row", "metric"])
    assert table.loc[("W. Tile & Concat.", "oIoU"), ["ours_low", "ours_high"]].tolist() == [0, 100]


def test_both_sides_of_a_gain_are_on_the_same_pictures(tmp_path):
    """Rows that rise and fall together from picture to picture differ by the same on any pictures."""
    rng = np.random.default_rng(3)
    base = rng.integers(10, 60, 100) / 100
    for seed in (0, 1):
        put(tmp_path, "tile_concat", base + 1e-9, seed=seed)
        put(tmp_path, "s2rm_fpn", base + 0.1 + 1e-9, seed=seed)
    found = gain(tmp_path, "s2rm_fpn", "tile_concat")
    assert found.points == pytest.approx(10) and found.interval() == pytest.approx((10, 10), abs=1e-6)
    ends = metrics_of(STUDY.under("scenes", tmp_path), "val")
    records = variant_records(STUDY.under("scenes", tmp_path), "s2rm_fpn")
    low, high = ends("scenes", "s2rm_fpn", records).level()["oIoU"].interval()
    assert high - low > 3


def test_images_count_as_wholes(tmp_path):
    """Ten equal expressions per image are worth one: the interval is as wide as with one each."""
    rng = np.random.default_rng(2)
    values = rng.random(30)
    put(tmp_path / "one", "tile_concat", values, images=30)
    put(tmp_path / "ten", "tile_concat", np.tile(values, 10), images=30)
    widths = []
    for name in ("one", "ten"):
        (record,) = variant_records(STUDY.under("scenes", tmp_path / name), "tile_concat")
        low, high = over_pictures(jackknifed_metrics(record, "val")["mIoU"]).interval()
        widths.append(high - low)
    assert widths[0] == pytest.approx(widths[1], rel=1e-6)


def gain(results, *variants):
    """In overall IoU of the first variant over the second."""
    measure = metrics_of(STUDY.under("scenes", results), "val")
    one, other = (measure("scenes", name, variant_records(STUDY.under("scenes", results), name)) for name in variants)
    return one.above(other)["oIoU"]


def test_runs_that_are_missing_are_told_from_seeds_that_are(tmp_path):
    put(tmp_path, "s2rm_fpn", [0.5] * 10, images=5)
    for seed in STUDY.seeds("scenes", "tile_concat"):
        put(tmp_path, "tile_concat", [0.5] * 10, images=5, seed=seed)
    tables = [build_table(stem, STUDY.under("scenes", tmp_path)) for stem in ("s2rm_table4", "s2rm_table7")]
    tables.append(build_comparison("slvit_table1", STUDY.under("scenes", tmp_path)))
    never, seeds = untrained(*tables).split("Recorded; further seeds missing:")
    command = "refstudy train --profile scenes --variant "
    assert [line.strip() for line in seeds.splitlines() if line] == [f"{command}s2rm_fpn"]
    assert never.startswith("No run yet:\n\n    ") and f"{command}slvit\n" in never
    assert never.count(f"    {command}s2rm_no_shift\n") == 1 and never.count(f"    {command}acm_fpn\n") == 1
    assert "s2rm_fpn\n" not in never and "tile_concat" not in never + seeds
    read_back = [pd.read_csv(write_table(t, tmp_path, "t"), dtype=str, keep_default_na=False) for t in tables]
    assert untrained(*read_back) == untrained(*tables)
    whole = tables[0].query("variant == 'tile_concat'")
    assert untrained(whole) == ""


def test_rows_of_an_ablation_have_one_encoder(tmp_path):
    """Seen from Swin-B, which trains the full model alone, too."""
    small, large = tmp_path / "refcoco", tmp_path / "refcoco_swinb"
    put(small, "s2rm_casg", [0.74] * 10, profile="refcoco")
    put(small, "casg_no_language", [0.72] * 10, profile="refcoco")
    put(large, "s2rm_casg", [0.80] * 10, profile="refcoco_swinb")
    for profile, folder in (("refcoco", small), ("refcoco_swinb", large)):
        table = build_table("s2rm_table5", STUDY.under(profile, folder)).query("metric == 'oIoU'").set_index("row")
        assert table["ours"].dropna().tolist() == pytest.approx([72, 74])
        assert table["gain"].dropna().tolist() == pytest.approx([-2])


def test_verdicts_in_markdown():
    table = pd.DataFrame(
        {
            "claim": ["a | b", "c"], "printed": [1.234, np.nan], "measured": [-2.0, np.nan], "low": [-3.0, np.nan],
            "high": [0.26, np.nan], "verdict": ["undecided", "not judged yet"], "smallest": [3.456, np.nan],
        }
    )  # fmt: skip
    head, rule, *lines = markdown(render_verdicts(table, "claim")).splitlines()
    assert head == "| claim | printed | measured | 95 % interval | verdict |" and rule.count("---") == 5
    assert lines == [
        r"| a \| b | +1.23 | -2.0 | -3.0 to +0.3 | "
        "**undecided** (these runs find a gain of 3.5 in 4 of 5 cases) |",
        "| c |  |  |  | **not judged yet** |",
    ]
    few = render_verdicts(table.assign(smallest=[130.1, np.nan]), "claim")["verdict"].tolist()
    assert few == ["**undecided** (these runs find no gain)", "**not judged yet**"]
    further = render_verdicts(table.assign(runs_needed=["12", ""]), "claim")["verdict"].tolist()
    assert further[0].endswith("in 4 of 5 cases; one as measured needs 12 a side)") and further[1] == few[1]
    unmeasured = render_verdicts(table.iloc[1:], "claim")
    assert unmeasured.iloc[0].tolist() == ["c", "", "", "", "**not judged yet**"]
    counted = table.assign(runs=pd.array([5, 3], "Int64"), reference_runs=pd.array([3, 3], "Int64"))
    head, _, *lines = markdown(render_verdicts(counted, "claim")).splitlines()
    assert head == "| claim | printed | measured | 95 % interval | runs | verdict |"
    assert [line.split(" | ")[-2] for line in lines] == ["5 / 3", "3"]
    bound = render_verdicts(table.assign(verdict="untestable here", smallest=np.nan, ceiling=[28.94, 35.0]), "claim")
    assert bound["verdict"].tolist() == ["**untestable here** (ceiling 28.9 %)", "**untestable here** (ceiling 35.0 %)"]


def test_the_jackknife_of_a_mean_is_the_textbooks_and_of_a_ratio_what_a_bootstrap_finds():
    rng = np.random.default_rng(5)
    inter, more = rng.gamma(2, 10, (2, 300))
    sums = np.column_stack([inter, inter + more, np.ones(300)])
    left = leave_out(sums)
    assert np.allclose(left[1:], [np.delete(sums, k, 0).sum(0) for k in range(300)])
    assert pictures_variance(pd.Series(left[:, 0] / left[:, 2])) == pytest.approx(inter.var(ddof=1) / 300)
    drawn = rng.multinomial(300, np.full(300, 1 / 300), size=20_000) @ sums
    found = pictures_variance(pd.Series(left[:, 0] / left[:, 1]))
    assert found == pytest.approx((drawn[:, 0] / drawn[:, 1]).var(), rel=0.05)


def test_what_one_picture_alone_decides_has_no_interval():
    left = leave_out(np.array([[5.0, 10.0], [0.0, 0.0], [0.0, 0.0]]))
    with np.errstate(invalid="ignore"):
        assert np.isnan(over_pictures(pd.Series(left[:, 0] / left[:, 1])).interval()).all()


def test_the_estimate_is_what_the_metrics_say_of_that_split(tmp_path):
    random, n = np.random.default_rng(0), 60
    union = random.integers(10, 2000, n)
    inter = (union * random.random(n)).astype(int)
    union[:5], inter[:5] = 1000, [500, 600, 700, 800, 900]  # exactly on the thresholds
    split = np.where(np.arange(n) < 40, "val", "testA")
    image = random.integers(0, 9, n)
    counts = fake_counts([0.5] * n).assign(image_id=image, intersection=inter, union=union, split=split)
    put_counts(tmp_path, "tile_concat", counts)
    (record,) = variant_records(STUDY.under("scenes", tmp_path), "tile_concat")
    for name in ("val", "testA"):
        assert jackknifed_metrics(record, name).iloc[0].to_dict() == pytest.approx(record.metrics[name])
