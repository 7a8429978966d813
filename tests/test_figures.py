"""Figures: the same figure gives the same bytes, and masks are drawn where they are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from refstudy.analysis import figures
from refstudy.analysis.table_files import write_table
from refstudy.prediction.overlay import eroded, outlined

from .noise import noisy


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
    assert "<dc:date>" not in (tmp_path / "a" / "figure.svg").read_text()


def test_a_figure_that_cannot_be_drawn_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = figures.save(draw(), tmp_path, "figure")
    before = path.read_bytes()
    figure = draw()
    monkeypatch.setattr(figure, "savefig", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        figures.save(figure, tmp_path, "figure")
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def draw_numbers(values, colour="blue"):
    """A chart of these numbers: a line, a map, and texts with them."""
    figure, (line, shown) = plt.subplots(1, 2, figsize=(6, 3))
    line.plot(values[0], color=figures.PALETTE[colour], label=f"run 1 ends at {values[0, -1]:.1f} %")
    line.legend()
    figures.show_map(shown, values)
    figures.number_grid(line.inset_axes([0.6, 0.1, 0.3, 0.3]), values[:2, :2], "{:.2f}", high=100)
    return figure


def draw_masks(masks):
    """Pictures with these masks, bool (N, H, W)."""
    figure, grid = figures.grid(1, len(masks))
    for axes, mask in zip(grid[0], masks, strict=True):
        figures.overlay(axes, np.full((*mask.shape, 3), 90, np.uint8), mask, title=f"{100 * mask.mean():.1f} %")
    return figure


@pytest.fixture
def computed():
    """What a model computed on one processor and, with noise of 2^-20, on another: numbers (6, 8)."""
    numbers = torch.from_numpy(100 * np.random.default_rng(0).random((6, 8))).float()
    return numbers.numpy(), noisy(numbers, 1, 2.0**-20).numpy()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_stay_where_another_processor_rounds_differently(tmp_path, computed):
    one, other = computed
    assert (one != other).any()
    large = [np.kron(values, np.ones((9, 9))) for values in computed]
    turned = large[1] > 50
    turned[27, 27] ^= True  # a pixel at the threshold
    tables = [pd.DataFrame({"name": "abcdef", "mean": values.mean(1) + 0.004 * k}) for k, values in enumerate(computed)]
    for numbers, mask, table in ((one, large[0] > 50, tables[0]), (other, turned, tables[1])):
        before = files(tmp_path) if any(tmp_path.iterdir()) else None
        figures.save(draw_numbers(numbers), tmp_path, "chart")
        figures.save(draw_masks([mask]), tmp_path, "masks")
        write_table(table, tmp_path, "table", live=True)
    assert files(tmp_path) == before and set(before) == {"chart.svg", "chart.png", "masks.png", "table.csv"}
    write_table(tables[1], tmp_path, "table")
    assert files(tmp_path) != before  # it did round differently


@pytest.mark.parametrize(
    "change",
    [lambda values: draw_numbers(1.01 * values), lambda values: draw_numbers(values, "vermilion"),
     lambda values: draw_numbers(np.vstack([values, values[:1]])), lambda values: draw_masks([values > 51])],
    ids=["numbers", "colour", "size", "pictures"],
)  # fmt: skip
def test_files_of_another_figure_are_written(tmp_path, computed, change):
    figures.save(draw_numbers(computed[0]), tmp_path, "figure")
    before = files(tmp_path)
    figures.save(change(computed[0]), tmp_path, "figure")
    assert files(tmp_path)["figure.png"] != before["figure.png"]


def test_another_mask_or_title_is_written(tmp_path, computed):
    mask = np.kron(computed[0], np.ones((9, 9))) > 50
    figures.save(draw_masks([mask]), tmp_path, "figure")
    before, other = files(tmp_path), draw_masks([mask])
    other.axes[0].set_title("a title")
    for figure in (other, draw_masks([np.roll(mask, 2, 1)]), draw_masks([mask, mask])):
        figures.save(figure, tmp_path, "figure")
        assert files(tmp_path) != before
        (tmp_path / "figure.png").write_bytes(before["figure.png"])


def test_a_live_table_with_another_name_or_number_is_written(tmp_path):
    table = pd.DataFrame({"name": ["a", "b"], "count": [1, 2], "share": [0.5, np.nan]})
    path = write_table(table, tmp_path, "table", live=True)
    before = path.read_bytes()
    for change in ({"name": ["a", "c"]}, {"count": [1, 3]}, {"share": [0.53, np.nan]}, {"share": [0.5, 0.0]}):
        assert write_table(table.assign(**change), tmp_path, "table", live=True).read_bytes() != before
        write_table(table, tmp_path, "table")


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


def test_eroding_takes_off_what_touches_the_outside():
    mask = np.random.default_rng(0).random((20, 31)) < 0.9
    wide = np.pad(mask, 1, constant_values=True)
    once = mask & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    assert (eroded(mask, 1) == once).all() and (eroded(mask, 2) == eroded(once, 1)).all()


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


def test_a_chart_is_written_with_a_palette_and_the_same_pixels(tmp_path, monkeypatch):
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, 1], [0, 1])
    path = figures.save(figure, tmp_path, "small")
    monkeypatch.setattr("PIL.Image.Image.getcolors", lambda image, most: None)  # as with too many colours
    plain = figures.save(figure, tmp_path / "plain", "small")
    with Image.open(path) as few, Image.open(plain) as many:
        assert (few.mode, many.mode) == ("P", "RGB") and path.stat().st_size < plain.stat().st_size
        assert np.array_equal(np.asarray(few.convert("RGB")), np.asarray(many))
        assert few.info["dpi"] == many.info["dpi"]
