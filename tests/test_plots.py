"""Charts and grids of masks: each number stands where it belongs, marks of few runs are hollow, names stand once."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from refstudy.analysis import figures, mask_grids, plots
from refstudy.analysis.cost import slopes
from refstudy.analysis.inference import LOOKS, Estimate
from refstudy.papers.printed import printed_rows
from refstudy.papers.printed.specs import SPECS


@pytest.fixture(autouse=True)
def style():
    figures.use_style()
    yield
    plt.close("all")


def test_rows_of_ablations_are_spelled_out():
    for stem in ("s2rm_table4", "s2rm_table5", "s2rm_table6"):
        spec = SPECS.tables[stem]
        assert set(spec.labels) == set(printed_rows(stem).index) - {spec.baseline}


def ablation():
    nan = float("nan")
    lines = [  # row, metric, printed_gain, gain, gain_low, gain_high, runs
        ("W. CASG (Full)", "oIoU", nan, nan, nan, nan, 5),
        ("W. CASG (-Spa.)", "oIoU", -1.0, -2.0, -3.0, -1.0, 1),
        ("W. CASG (-Cha.)", "oIoU", -1.1, 4.0, 2.0, 6.0, LOOKS[0]),
        ("W. CASG (-Lang.)", "oIoU", -0.4, nan, nan, nan, 0),
        ("W. CASG (Sig.)", "oIoU", -1.0, -40.0, -42.0, -38.0, 3),
        ("W. CASG (-Spa.)", "P@0.5", -1.0, -5.0, -6.0, -4.0, 1),
        ("W. CASG (-Spa.)", "P@0.9", nan, 2.0, 1.0, 3.0, 1),
    ]
    columns = ["row", "metric", "printed_gain", "gain", "gain_low", "gain_high", "runs"]
    table = pd.DataFrame(lines, columns=columns)
    return plots.gain_lines({"s2rm_table5": table.assign(variant=table["row"])}, "s2rm_table5")


def test_a_panel_of_losses_has_their_sign_and_says_what_was_not_trained():
    lines = ablation()
    assert "W. CASG (Full)" not in set(lines["row"]) and set(lines["of"]) == {"S²RM, Table V"}
    figure = plots.gains([("t", "points lost", lines.query("metric == 'oIoU'"), -1)], "print", "here")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "without spatial attention"
    marks = {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() == "D" and len(line.get_xdata())}
    assert marks[3].get_xdata()[0] == 2.0 and marks[3].get_markerfacecolor() == "white"  # one run
    assert marks[2].get_xdata()[0] == -4.0 and marks[2].get_markerfacecolor() == plots.OURS
    assert figure.legends[0].get_texts()[1].get_text() == f"ours (here), 95 % interval; {plots.HOLLOW}"
    alone = plots.gains([("t", "points lost", lines.query("runs >= 3 and metric == 'oIoU'"), -1)], "print", "here")
    assert alone.legends[0].get_texts()[1].get_text() == "ours (here), 95 % interval"
    written = {text.get_position()[1]: text.get_text() for text in axes.texts}
    assert written == {1: "not trained", 0: "→ +40.0 [38.0, 42.0]"} and axes.get_xlim()[1] < 10


def test_gains_in_precision_have_a_panel_a_row():
    (axes,) = [axes for axes in plots.precision_gains(ablation()).axes if axes.get_visible()]
    assert axes.get_title() == "S²RM, Table V\nwithout spatial attention over\nall parts\n(1 run)"
    assert np.allclose(axes.lines[-1].get_xydata(), [[0.5, -5.0], [0.9, 2.0]])


def test_panels_of_precision_share_an_axis_unless_one_would_flatten_the_others():
    lines = pd.DataFrame(
        [("A", 4.0, "b"), ("B", -6.0, "b"), ("C", -40.0, "b"), ("b", -4.0, "A")],
        columns=["variant", "gain", "against"],
    ).assign(metric="P@0.5", of=["1", "1", "1", "2"], over="b", fewer=3)
    lines = lines.assign(label=lines["variant"], gain_low=lines["gain"] - 1, gain_high=lines["gain"] + 1)
    small, other, large = (axes for axes in plots.precision_gains(lines).axes if axes.get_visible())  # A and b: once
    assert small.get_ylim() == other.get_ylim() and -10 < small.get_ylim()[0] < -7
    assert large.get_ylim()[0] < -40 and large.get_ylabel() == "own axis"


def test_our_numbers_by_length_have_a_panel_of_their_own():
    lines = [("RefCOCO", "SwinT-Ours", bucket, 70.0 - k, 50.0 + k) for k, bucket in enumerate(("1-2", "3"))]
    table = pd.DataFrame(lines, columns=["dataset", "row", "bucket", "printed", "ours"])
    table = table.assign(ours_low=table["ours"] - 1, ours_high=table["ours"] + 1, runs=1, data="RefScenes val")
    printed, own = plots.length_buckets(table, "S²RM").axes
    assert printed.get_title() == "RefCOCO\nprinted" and own.get_title() == "RefScenes val\nours"
    assert [line.get_ydata().tolist() for line in printed.lines] == [[70.0, 69.0]]
    assert own.lines[0].get_ydata().tolist() == [50.0, 51.0]


def test_the_curve_over_lengths_ends_with_its_last_number():
    lines = pd.DataFrame({"variant": "slvit", "words": range(1, 6), "ours": 50.0, "expressions": [90, 40, 30, 3, 1]})
    above, below = plots.length_curve(lines.assign(runs=3), {"slvit": "SLViT"}, "here").axes
    assert above.lines[0].get_xdata().tolist() == [1, 2, 3] == below.get_xticks().tolist() and len(below.patches) == 3
    assert not above.get_legend().get_title().get_text()


def test_two_values_of_k_are_points_and_more_are_a_line():
    levels = {k: Estimate(50.0 + k, 1.0, 6) for k in (0, 1, 2)}
    for count, joined in ((2, 0), (3, 1)):
        some = {k: levels[k] for k in range(count)}
        (axes,) = plots.trained_regions(some, dict.fromkeys(some, 3), "here").axes
        assert len([line for line in axes.lines if len(line.get_xdata()) > 1]) == joined
        assert len(axes.lines) == count + joined and axes.get_title("left") == "bars: 95 % intervals"


def test_a_main_variant_has_the_colour_of_its_decoder_or_whole_model():
    pairs = {"s2rm_fpn": "fpn", "s2rm_casg": "casg", "lavt": "lavt", "slvit": "slvit"}
    assert [plots.colour_of(name) for name in pairs] == [plots.family_colour(family) for family in pairs.values()]


def test_seeds_stand_in_their_marks():
    lines = pd.DataFrame(
        [("full", seed, kind, 10.0 * seed) for seed in (0, 7) for kind in ("category", "location")],
        columns=["variant", "seed", "kind", "ours"],
    )
    (axes,) = plots.seed_kinds(lines, {"full": "S²RM + CASG"}, "here").axes
    assert {(text.get_text(), float(text.xy[1])) for text in axes.texts} == {("0", 0.0), ("7", 70.0)}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["S²RM + CASG"]


def test_pairs_that_are_turned_round_are_named_also_where_print_hardly_tells_them_apart():
    pairs = pd.DataFrame(
        [
            ("s2rm_table4", "a", "b", 3.0, 2.0, 0.5),
            ("s2rm_table4", "c", "d", 2.0, -1.0, float("nan")),  # of one run: no bar
            ("slvit_table1", "e", "f", 0.3, -4.0, 0.5),
        ],
        columns="table better worse printed measured error".split(),
    )
    (axes,) = plots.rank_pairs(pairs, 0.5, "print", "here").axes
    drawn = [marks.lines[0].get_xydata().tolist() for marks in axes.containers]
    assert drawn == [[[3.0, 2.0], [2.0, -1.0]], [[0.3, -4.0]]]
    bars = [np.ptp(ends[:, 1]) for ends in axes.containers[0].lines[2][0].get_segments()]
    assert bars == [2.0, 0.0]
    *numbers, names = axes.texts
    assert [(number.get_text(), number.xy) for number in numbers] == [("1", (2.0, -1.0)), ("2", (0.3, -4.0))]
    assert names.get_text() == "turned round here:\n1 c over d\n2 e over f (grey)"
    assert "printed difference below 0.5" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_growth_draws_every_point_and_names_the_exponents():
    values = {"side": [32, 64], "words": [5, 10]}
    rows = [
        {"model": model, "axis": axis, "value": value, "seconds": value**2 * (1 + k), "peak_MB": float(value)}
        for k, model in enumerate("ab")
        for axis, some in values.items()
        for value in some
    ]
    measured = pd.DataFrame(rows)
    figure = plots.growth(measured, slopes(measured))
    assert [axes.get_xlabel() for axes in figure.axes[2:]] == ["side", "word pieces"]
    for axes, exponent in zip(figure.axes, ("2.00", "2.00", "1.00", "1.00"), strict=True):
        assert [text.get_text() for text in axes.texts] == [exponent, exponent]
    for k, line in enumerate(figure.axes[0].lines):
        assert np.allclose(line.get_xydata(), [[32, 1024 * (1 + k)], [64, 4096 * (1 + k)]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_every_training_has_its_name_beside_the_line_of_the_best():
    points = pd.DataFrame(
        [
            ("slow", 30, 60.0),
            ("fast", 10, 50.0),
            ("beaten", 20, 45.0),
            ("as fast, worse", 10, 48.0),
            ("best", 40, 61.0),
        ],
        columns=["label", "core_minutes", "ours"],
    ).assign(family=["casg", "fpn", "casg, 2 times as long", "fpn", "lavt"], runs=3, ours_low=40.0, ours_high=65.0)
    axes = plots.accuracy_and_minutes(points, "RefScenes").axes[0]
    assert {text.get_text().strip() for text in axes.texts} == set(points["label"])
    (best,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert best.get_xydata().tolist() == [[10, 50], [30, 60], [40, 61], [40, 61]]
    named = ["with CASG", "with the FPN", "LAVT", "best whole training of at most so long"]
    assert [text.get_text() for text in axes.get_legend().texts] == named and not axes.get_title("left")
    few = plots.accuracy_and_minutes(points.assign(runs=[3, 3, 3, 3, 1]), "RefScenes").axes[0]
    assert few.get_title("left") == plots.HOLLOW


def test_accuracy_stands_against_the_cost_of_the_models_measured_and_of_the_papers():
    points = pd.DataFrame(
        {
            "label": ["A", "B", "B"],
            "family": ["fpn", "lavt", "lavt"],
            "design": ["A", "B with Swin-T", "B with Swin-B"],
            "own_macs": [0.2, 0.3, np.nan],
            "own_parameters": [3.21, 4.0, np.nan],
            "macs": [40.0, 90.0, 200.0],
            "image_size": [512, 480, 480],
            "parameters": [140.4, 153.8, 225.6],
            "runs": [1, 3, 3],
            "ours": [50.0, 55.0, 55.0],
            "ours_low": [45.0, 50.0, 50.0],
            "ours_high": [55.0, 60.0, 60.0],
        }
    )
    above, below = plots.accuracy_and_cost(points, "RefScenes").axes
    written = [" A (1 run), 3.2 M parameters", " B (3 runs), 4.0 M parameters"]
    assert [text.get_text() for text in above.texts] == written
    assert [text.get_text() for text in below.texts] == [
        " A, 512 px, 140 M parameters",
        " B with Swin-T, 480 px, 154 M parameters",
        " B with Swin-B, 480 px, 226 M parameters",
    ]
    for axes, cost in ((above, "own_macs"), (below, "macs")):
        drawn = [bars.lines[0].get_xydata()[0] for bars in axes.containers]
        assert np.allclose(drawn, points[[cost, "ours"]].dropna())


def test_an_exchange_of_two_claims_is_named():
    lines = [("a", "1.41", 0.80), ("b", "0.80", 1.41), ("c", "1.54", 1.38)]
    gains = pd.DataFrame(lines, columns=["claim", "claimed", "recomputed"]).assign(
        paper="S²RM", place="Sec. IV", agrees=False, verdict="differs"
    )
    gains["difference"] = gains["claimed"].astype(float) - gains["recomputed"]
    texts = [text.get_text() for text in plots.audit(gains).axes[0].texts]
    assert texts == ["S²RM, Sec. IV", "1.41 for 0.80   (exchanged)", "0.80 for 1.41   (exchanged)", "1.54 for 1.38"]


def test_confidence_is_drawn_in_groups_of_equally_many():
    confidence = [0.2, 0.6, 0.7, 0.8, 0.9]
    diagnosed = pd.DataFrame({"confidence": confidence, "precision": [np.nan, 0.5, 0.7, 0.8, 1.0], "iou": 0.25})
    left, _ = plots.reliability(diagnosed.assign(cause="hit"), 0.1, "a model", groups=2).axes
    _, precision, iou = (line.get_xydata() for line in left.lines)
    assert np.allclose(precision, [[0.65, 0.6], [0.85, 0.9]]) and np.allclose(iou[:, 1], 0.25)


@pytest.fixture
def shown(data_root):
    """Masks of two variants on a small RefScenes: the truth, and nothing."""
    from refstudy.data.batches import build_corpus
    from refstudy.data.refer import load_table
    from refstudy.data.source import prepare_data
    from refstudy.data.words import build_tokenizer

    from .conftest import tiny_data

    data = tiny_data()
    table = load_table(data, prepare_data(data, data_root, progress=False))
    corpus = build_corpus(table, "val", data.image_size, build_tokenizer(), data.max_words, progress=False)
    truths = {line["sent_id"]: corpus.truth(k) for k, line in corpus.table.iterrows()}
    masks = {"good": truths, "empty": {sentence: np.zeros_like(mask) for sentence, mask in truths.items()}}
    return mask_grids.ShownMasks(corpus, masks, {"good": "A", "empty": "B"}, {})


def test_grids_of_masks_name_rows_and_columns_once(shown):
    rows = mask_grids.hard_cases(shown.corpus)
    said = [f"“{shown.corpus.table.loc[k, 'expression']}”" for k in rows]
    outlined, coloured = ["mask of the model", "the referent (truth)"], [*mask_grids.WRONG, "border of the referent"]
    for figure, columns, names, legend in (
        (mask_grids.compared_masks(shown, rows, ["good", "empty"]), ["truth", "A", "B"], said, outlined),
        (mask_grids.border_grid(shown, rows, ["good", "empty"]), said, ["A", "B"], coloured),
    ):
        grid = np.array(figure.axes).reshape(len(names), len(columns))
        assert [axes.get_title().replace("\n", " ") for axes in grid[0]] == columns
        assert [axes.get_ylabel().replace("\n", " ") for axes in grid[:, 0]] == names
        assert not [axes for axes in (*grid[1:].flat, *grid[:, 1:].flat) if axes in grid[1:] and axes.get_title()]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == legend
        said_fits = {text.get_text() for axes in grid.flat for text in axes.texts}
        assert said_fits == {"100 %", "0 %"}


def test_what_is_wrong_with_a_mask_is_coloured(shown):
    (k,) = rows = mask_grids.hard_cases(shown.corpus)[:1]
    good, empty = mask_grids.border_grid(shown, rows, ["good", "empty"]).axes
    coloured = [[image.get_array()[..., 3] > 0 for image in axes.images[1:]] for axes in (good, empty)]
    assert not np.any(coloured[0]) and not coloured[1][0].any()
    assert np.array_equal(coloured[1][1], shown.corpus.truth(k))


def test_hard_cases_are_chosen_by_the_truth_one_a_picture(shown):
    corpus = shown.corpus
    rows = mask_grids.hard_cases(corpus)
    assert corpus.table.loc[rows, "image_id"].is_unique and len(rows) == 4
    assert set(corpus.table.loc[rows[:2], "kind"]) <= {"location", "relation"}
    assert rows == mask_grids.hard_cases(corpus)


def test_misses_show_mask_and_referent(shown):
    cases = {
        "missed": [(0, np.zeros((64, 64), bool)), (3, shown.corpus.truth(3))],
        "leaked": [(5, shown.corpus.truth(5))],
    }
    grid = np.array(mask_grids.misses_grid(shown.corpus, cases).axes).reshape(2, 4)
    assert [axes.get_title() for axes in grid[0]] == ["mask", "referent"] * 2
    assert [text.get_text() for text in grid[0, 0].texts] == ["nothing marked"] and not grid[0, 2].texts
    assert [axes.get_visible() for axes in grid[1]] == [True, True, False, False]


def test_a_variant_without_masks_is_named(shown, monkeypatch):
    study = SimpleNamespace(label={"lavt": "LAVT"}.get, weights=lambda name: "nothing.safetensors", profile="scenes")
    monkeypatch.setattr(mask_grids, "variant_records", lambda study, name: [])
    found = mask_grids.shown_masks(study, ["lavt"], shown.corpus)
    assert not found.masks and found.absent["lavt"].startswith("LAVT is left out, no run yet: refstudy train")
