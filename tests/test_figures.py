"""Figures: the same figure gives the same bytes, and masks are drawn where they are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_erosion

from refstudy.analysis import figures
from refstudy.analysis.cost import slopes
from refstudy.prediction.overlay import eroded, outlined


@pytest.fixture(autouse=True)
def style():
    figures.use_style()
    yield
    plt.close("all")


def draw():
    figure, axes = plt.subplots()
    axes.plot([1, 3, 2], label="a line")
    axes.legend()
    return figure


def test_the_same_figure_has_the_same_bytes(tmp_path):
    for name in "ab":
        figures.save(draw(), tmp_path / name, "figure")
    for suffix in ("svg", "png"):
        first, second = ((tmp_path / name / f"figure.{suffix}").read_bytes() for name in "ab")
        assert first == second and len(first) > 1000
    assert not list(tmp_path.rglob("*.tmp*"))


def test_a_figure_that_cannot_be_drawn_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = figures.save(draw(), tmp_path, "figure")
    before = path.read_bytes()
    figure = draw()
    monkeypatch.setattr(figure, "savefig", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        figures.save(figure, tmp_path, "figure")
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_an_overlay_fades_what_is_not_meant_and_keeps_what_is():
    image = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    _, axes = plt.subplots()
    figures.overlay(axes, image, mask)
    shown = np.asarray(axes.images[0].get_array())
    assert (shown[mask] == 100).all() and (shown[~mask] > 140).all()


def test_a_map_has_the_scale_it_is_given_or_its_own():
    figure, (own, given) = plt.subplots(1, 2)
    values = np.array([[1.0, 2.0], [3.0, 5.0]])
    assert figures.show_map(own, values, "a map").get_clim() == (1, 5)
    assert figures.show_map(given, values, low=0, high=9, bar=False).get_clim() == (0, 9)
    assert len(figure.axes) == 3  # one colour bar
    assert own.get_title() == "a map"


def test_numbers_are_written_where_they_stand_and_can_be_read():
    _, axes = plt.subplots()
    figures.number_grid(axes, np.array([[0.1, 0.9], [0.25, 0.6]]))
    written = [(text.get_position(), text.get_text(), text.get_color()) for text in axes.texts]
    assert written == [
        ((0, 0), "10%", "white"),
        ((1, 0), "90%", "black"),
        ((0, 1), "25%", "white"),
        ((1, 1), "60%", "black"),
    ]


def test_regions_are_framed_where_their_cells_are():
    _, axes = plt.subplots()
    figures.regions(axes, np.zeros((40, 60, 3), np.uint8), [4, 0], (2, 3), "two")
    frames = [patch.get_bbox().extents.tolist() for patch in axes.patches]
    assert frames == [[19.5, 19.5, 39.5, 39.5], [-0.5, -0.5, 19.5, 19.5]]
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("1", (29.5, 29.5)), ("2", (9.5, 9.5))]


def test_grid_gives_axes_in_two_dimensions():
    assert figures.grid(1, 3)[1].shape == (1, 3)


def test_an_outline_lies_inside_the_mask_and_the_rest_is_pale():
    image = np.full((60, 80, 3), 40, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:60] = True
    drawn = outlined(image, mask)
    assert (drawn[11:39, 21:59] == 40).all()  # one pixel wide at this size
    assert (drawn[10, 20:60] == [0xD5, 0x5E, 0x00]).all() and (drawn[10:40, 59] == [0xD5, 0x5E, 0x00]).all()
    assert (drawn[~mask] > 100).all()
    assert (outlined(image, np.zeros_like(mask)) > 100).all()


def test_eroding_is_that_of_scipy():
    random = np.random.default_rng(0)
    for steps in (1, 2, 3):
        mask = random.random((20, 31)) < 0.9
        assert (eroded(mask, steps) == binary_erosion(mask, iterations=steps, border_value=1)).all()


def test_growth_draws_every_point_and_names_the_exponents():
    values = {"side": [32, 64], "words": [5, 10]}
    rows = [
        {"model": model, "axis": axis, "value": value, "seconds": value**2 * (1 + k), "peak_MB": float(value)}
        for k, model in enumerate("ab")
        for axis, some in values.items()
        for value in some
    ]
    measured = pd.DataFrame(rows)
    figure = figures.growth(measured, slopes(measured))
    assert [axes.get_xlabel() for axes in figure.axes[2:]] == ["side", "word pieces"]
    for axes, exponent in zip(figure.axes, ("2.00", "2.00", "1.00", "1.00"), strict=True):
        assert axes.get_legend().get_title().get_text() == "exponent"
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"a: {exponent}", f"b: {exponent}"]
    for k, line in enumerate(figure.axes[0].lines):
        assert np.allclose(line.get_xydata(), [[32, 1024 * (1 + k)], [64, 4096 * (1 + k)]])


def test_ranges_of_gates_have_a_panel_for_each_run_and_kind():
    names = ["fusion.balance: l2v column", "fusion.balance: l2v row", "decoder.stages.0.channel_gate"]
    rows = [
        (update, name, low, 0.1, 0.6) for update in (5, 10) for name, low in zip(names, (0, 0.05, -0.4), strict=True)
    ]
    gates = pd.DataFrame(rows, columns=["update", "gate", "low", "mean", "high"])
    left, right, other = figures.gate_ranges({"one": gates, "two": gates[gates["gate"] == names[2]]}).axes
    assert [axes.get_title().splitlines()[0] for axes in (left, right, other)] == ["one", "one", "two"]
    assert left.get_ylim() == (0, 1) and right.get_ylim() == other.get_ylim() == (-1, 1)
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["l2v column", "l2v row"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["stage 1"]
    lines = left.collections
    drawn = sorted(tuple(path.vertices[:, 1].tolist()) for line in lines for path in line.get_paths())
    assert drawn[:2] == [(0.0, 0.6), (0.0, 0.6)]
    assert (
        len({x for line in lines for path in line.get_paths() for x in path.vertices[:, 0]}) == 4
    )  # none hides another
