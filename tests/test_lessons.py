"""What the lessons measure, on numbers that are known."""

import matplotlib.pyplot as plt
import pytest
import torch

from refstudy.analysis import lessons
from refstudy.analysis.figures_slvit import before_and_after
from refstudy.analysis.opened import open_study
from refstudy.base.errors import StudyError


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFSTUDY_DATA", str(tmp_path_factory.mktemp("data")))
        yield lessons.start(open_study("smoke", results=str(tmp_path_factory.mktemp("results"))), "s2rm_casg", 2)


def test_an_example_is_an_expression_its_picture_and_its_mask(example):
    assert not example.trained and "UNTRAINED" in example.about and example.sentence == example.texts[0]
    assert example.truth.shape == example.image.shape[:2] and example.truth.any()
    other = example.of(0)
    assert other.scene == 0 and other.sentence == other.corpus.table.loc[0, "expression"]


@pytest.mark.parametrize("sign", [1, -1])
def test_products_that_are_the_places_follow_them_whatever_their_sign(example, monkeypatch, sign):
    monkeypatch.setattr(lessons, "s2rm_steps", lambda one: one)
    monkeypatch.setattr(lessons, "mean_products", lambda one: sign * lessons.coverage(one, (2, 2)))
    pairs, fits = lessons.pairs_by_fit(example, 2)
    assert len(pairs) == len(fits) > 1 and fits == pytest.approx(sign, abs=1e-3)
    for first, second in pairs:
        assert first.scene == second.scene == 2 and not (first.truth == second.truth).all()


def test_the_pair_that_follows_best_comes_first_by_the_sign_of_most(example, monkeypatch):
    monkeypatch.setattr(lessons, "s2rm_steps", lambda one: one)
    odd = example.corpus.rows_about(2)[0]
    monkeypatch.setattr(
        lessons, "mean_products", lambda one: (9 if one.row == odd else -1) * lessons.coverage(one, (2, 2))
    )
    pairs, fits = lessons.pairs_by_fit(example, 2)
    assert list(fits) == sorted(fits) and fits[0] == pytest.approx(-1, abs=1e-3) and fits[-1] > 0
    assert pairs[-1][0].row == odd


def test_pictures_with_one_referent_have_no_pair(example, monkeypatch):
    monkeypatch.setattr(example.corpus, "ref_of_expression", 0 * example.corpus.ref_of_expression)
    assert lessons.pairs_by_fit(example, 2)[0] == []
    monkeypatch.setattr(lessons, "start", lambda *given: example)
    with pytest.raises(StudyError, match="no picture of the lesson has two referents"):
        lessons.s2rm_example(example.study, 2)


def test_a_map_of_the_referent_is_above_its_mean_there(example):
    share = lessons.coverage(example, (4, 4))
    assert lessons.on_referent(example, share) > 0 and lessons.on_referent(example, -share) < 0
    assert lessons.on_referent(example, 3 * share + 7) == pytest.approx(lessons.on_referent(example, share), abs=1e-4)


def test_other_models_stand_beside_where_their_weights_are_kept(example, monkeypatch, capsys):
    monkeypatch.setattr(lessons, "exists", lambda path: path.stem == "lavt")
    monkeypatch.setattr(lessons, "load_model", lambda path: example.model)
    found = lessons.beside(example, ("lavt", "slvit_no_urce"))
    assert capsys.readouterr().out == "SLViT without URCE is left out: this profile keeps no weights of it\n"
    ((label, (mask, maps)),) = found.items()
    side = len(mask)
    assert label == "LAVT" and mask.shape == (side, side) and mask.dtype == bool
    assert [tuple(map_.shape) for map_ in maps] == [(side // s, side // s) for s in (4, 8, 16, 32)]
    assert all(lessons.on_referent(example, map_) >= 0 for map_ in maps)
    features = [torch.rand(1, 3, side // s, side // s) for s in (4, 8, 16, 32)]
    ways = [torch.ones(3)] * 4
    drawn = before_and_after("a dog", example.image, example.truth, mask, features, features, ways, [0], found)
    rows = [text.get_text() for axes in drawn.axes for text in axes.texts if text.get_rotation() == 90]
    named = ["LAVT\n(a scale for each map)", "SLViT\nbefore URCE: F", "SLViT\nafter URCE: F̃", "SLViT\nchange ‖F̃ − F‖"]
    assert rows == named and drawn.get_suptitle() == "“a dog”"
    assert [axes.get_title() for axes in drawn.axes].count(f"mask, IoU {example.iou(mask):.0%}") == 2
    plt.close(drawn)


def test_the_gram_form_is_said_to_be_equal():
    assert lessons.same_as_rolled_copies().endswith("below 1e-12")
