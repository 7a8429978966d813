"""What the lessons measure, on numbers that are known."""

import pytest
import torch

from refstudy.analysis import lessons
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


def test_attention_spread_is_the_distance_from_the_mean():
    assert lessons.attention_spread(torch.tensor([[0.5, 0.5], [0.5, 0.5]])) == 0
    assert lessons.attention_spread(torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.5)


@pytest.mark.parametrize("sign", [1, -1])
def test_products_that_are_the_places_follow_them_whatever_their_sign(example, monkeypatch, sign):
    monkeypatch.setattr(lessons, "s2rm_steps", lambda one: one)
    monkeypatch.setattr(lessons, "mean_products", lambda one: sign * lessons.coverage(one, (2, 2)))
    clear, unclear = lessons.clear_and_unclear(example)
    for pair in (clear, unclear):
        assert lessons.follows(pair) == pytest.approx(sign, abs=1e-3)
        assert pair[0].scene == pair[1].scene and not (pair[0].truth == pair[1].truth).all()


def test_pictures_with_one_referent_have_no_pair(example, monkeypatch):
    monkeypatch.setattr(example.corpus, "ref_of_expression", 0 * example.corpus.ref_of_expression)
    with pytest.raises(StudyError, match="no picture of the lesson has two referents"):
        lessons.clear_and_unclear(example)


def test_the_gram_form_is_said_to_be_equal():
    assert lessons.same_as_rolled_copies().endswith("below 1e-12")
