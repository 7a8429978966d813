"""Failures: hand-made masks of known cause, known reliability, expressions that are true of nothing."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from refstudy.analysis.absent import PROBES, probe_corpus, probe_table, probes, separability
from refstudy.analysis.failures import (
    CAUSES,
    RESPONSE,
    SMALL,
    cause_table,
    diagnose,
    diagnose_corpus,
    most_covered,
    reliability,
)
from refstudy.analysis.scene_things import Thing, scene_things, true_of
from refstudy.analysis.wordless import WORDLESS, best_wordless_counts, wordless_counts, wordless_table
from refstudy.data.scenes.grammar import vocabulary
from refstudy.data.scenes.things import BY_NAME
from refstudy.data.words import build_tokenizer
from refstudy.training.evaluation import summarize_counts, whole_image_counts
from refstudy.training.loop import load_corpora
from tests.conftest import tiny_data, tiny_model
from tests.helpers import STUDY, fake_counts, put

SIDE = 40
NOTHING = np.zeros((SIDE, SIDE), bool)
NO_OTHERS = np.zeros((0, SIDE, SIDE), bool)


def box(top, left, height, width):
    mask = NOTHING.copy()
    mask[top : top + height, left : left + width] = True
    return mask


TRUTH = box(10, 10, 10, 10)  # 100 of 1600 pixels
OTHERS = np.stack([box(10, 25, 10, 10), box(30, 0, 6, 6)])
SMALL_TRUTH = box(0, 0, 5, 5)  # 25 of 1600 pixels
CASES = {  # name -> prediction, truth, cause, rival
    "exact": (TRUTH, TRUTH, "hit", -1),
    "above a half": (box(10, 10, 10, 6), TRUTH, "hit", -1),
    "exactly a half is no hit": (box(10, 10, 10, 5), TRUTH, "partial", -1),
    "on the other thing": (OTHERS[0], TRUTH, "wrong thing", 0),
    "half of it, most of the other": (box(10, 15, 10, 18), TRUTH, "several things", 0),  # 50 and 80 of 100
    "half of it, half of the other": (box(10, 15, 10, 15), TRUTH, "several things", 0),  # 50 and 50 of 100
    "half of it, less of the other": (box(10, 15, 10, 14), TRUTH, "leaked", 0),  # 50 and 40 of 100
    "less than half found, more on the other": (box(10, 16, 10, 17), TRUTH, "wrong thing", 0),
    "less than half found, more on background": (box(8, 17, 14, 9), TRUTH, "leaked", 0),  # 30 of 126, 10 on the other
    "a part of it": (box(10, 10, 4, 10), TRUTH, "partial", -1),
    "it and all around": (box(5, 5, 20, 20), TRUTH, "leaked", -1),
    "everything": (~NOTHING, TRUTH, "several things", 0),
    "nothing": (NOTHING, TRUTH, "missed", -1),
    "background": (box(0, 20, 5, 5), TRUTH, "missed", -1),
    "nothing, and small": (NOTHING, SMALL_TRUTH, "missed small", -1),
    "background, and small": (box(20, 20, 3, 3), SMALL_TRUTH, "missed small", -1),
    "the other thing, and small": (OTHERS[1], SMALL_TRUTH, "wrong thing", 1),
    "there is none, nothing marked": (NOTHING, NOTHING, "hit", -1),
    "there is none, hardly anything marked": (box(0, 0, 1, 3), NOTHING, "hit", -1),
    "there is none, another marked": (OTHERS[1], NOTHING, "absent referent", 1),
    "there is none, background marked": (box(0, 0, 2, 2), NOTHING, "absent referent", -1),
}


@pytest.mark.parametrize("name", list(CASES))
def test_every_cause_by_hand(name):
    predicted, truth, cause, rival = CASES[name]
    found = diagnose(predicted, truth, OTHERS)
    assert (found.cause, found.rival) == (cause, rival)
    alone = diagnose(predicted, truth, NO_OTHERS)
    assert alone.rival == -1 and alone.cause not in ("wrong thing", "several things")


def test_the_cases_cover_all_causes_and_lie_around_the_thresholds():
    assert {case[2] for case in CASES.values()} == set(CAUSES)
    assert SMALL_TRUTH.mean() < SMALL < TRUTH.mean()
    assert 3 / 1600 < RESPONSE <= 4 / 1600


def test_numbers_of_a_diagnosis():
    found = diagnose(box(10, 10, 5, 20), TRUTH, OTHERS)  # 50 on the referent, 25 on the other thing
    assert (found.recall, found.precision) == (0.5, 0.5)
    assert found.iou == pytest.approx(50 / 150)
    assert most_covered(box(10, 10, 5, 20), OTHERS) == (0, 25)
    assert most_covered(NOTHING, OTHERS) == most_covered(TRUTH, NO_OTHERS) == (-1, 0)


def test_reliability_by_hand():
    masks = {
        "confidence": [0.1, 0.2, 0.9, 1.0],  # the first two mark nothing
        "precision": [0.0, 0.0, 0.7, 0.9],
        "iou": [0.0, 0.5, 0.5, 0.7],
    }
    table, distances = reliability(pd.DataFrame(masks, index=[7, 3, 5, 1]), bins=5)
    assert table["expressions"].tolist() == [2, 0, 0, 0, 2]  # an upper edge belongs to its bin
    assert table.loc[0, ["confidence", "iou"]].tolist() == pytest.approx([0.15, 0.25])
    assert table.loc[4, ["confidence", "precision", "iou"]].tolist() == pytest.approx([0.95, 0.8, 0.6])
    assert np.isnan(table.loc[0, "precision"])
    assert table.loc[1:3, ["confidence", "precision", "iou"]].isna().all(axis=None)
    assert distances == pytest.approx({"precision": 0.15, "iou": (2 * 0.10 + 2 * 0.35) / 4})


def test_a_calibrated_model_has_no_calibration_error_whatever_its_recall():
    """Of two masks of confidence 0.8, 70 and 90 % of the pixels are right; their IoU is lower for what they lack."""
    masks = pd.DataFrame({"confidence": [0.8, 0.8], "precision": [0.7, 0.9], "iou": [0.1, 0.3]})
    assert reliability(masks)[1] == pytest.approx({"precision": 0, "iou": 0.6})


def test_separability_is_the_area_under_the_curve():
    assert separability([0.9, 0.8], [0.1, 0.2]) == 1
    assert separability([0.1], [0.2]) == 0
    assert separability([0.5, 0.5], [0.5]) == 0.5
    assert separability([0.3, 0.7], [0.5, 0.2]) == 0.75


def thing(number, category, colour, mask=TRUTH, group="animal"):
    return Thing(number, category, group, colour, mask)


ROOM = [
    thing(1, "dog", "brown"),
    thing(2, "dog", "white"),
    thing(3, "man", "red", group="person"),
    thing(4, "table top", "brown", group="stuff"),
]


def test_what_an_expression_is_true_of():
    assert true_of(ROOM, "dog", "brown") == [0]
    assert true_of(ROOM, "animal", "white") == [1]
    assert true_of(ROOM, "dog", "black") == [] == true_of(ROOM, "cat", "white")
    assert true_of(ROOM, "person", "red") == [2]
    assert (
        true_of(ROOM, "table", "black") == [3] == true_of(ROOM, "desk", "white")
    )  # a table top shows a table, whatever its colour


def test_probes_mean_what_their_kind_says():
    words = set(vocabulary())
    seen = {kind: set() for kind in PROBES}
    for seed in range(300):
        for probe in probes(ROOM, np.random.default_rng(seed)):
            meant = [k for k, t in enumerate(ROOM) if probe.noun in t.nouns and probe.colour == t.colour]
            named = [t for t in ROOM if probe.noun in t.nouns]
            seen[probe.kind].add(probe.text)
            assert set(probe.text.split()) <= words
            assert probe.noun not in ("table", "desk")
            if probe.kind == "present":
                assert meant == [probe.target]
            else:
                assert not meant and probe.target == -1
                assert bool(named) == (probe.kind == "colour absent")
    brown_and_white = {f"{colour} {noun}" for colour in ("brown", "white") for noun in BY_NAME["dog"].nouns}
    assert seen["present"] == brown_and_white | {f"{noun} in red" for noun in BY_NAME["man"].nouns}
    assert {"black dog", "black hound"} & seen["colour absent"]
    assert {f"{noun} in blue" for noun in BY_NAME["man"].nouns} & seen["colour absent"]
    assert "red car" in seen["category absent"] and "cat" in {t.split()[-1] for t in seen["category absent"]}


def test_a_small_thing_is_not_asked_for():
    found = probes([thing(1, "dog", "brown", SMALL_TRUTH)], np.random.default_rng(0))
    assert {probe.kind for probe in found} == {"colour absent", "category absent"}


class Marks(nn.Module):
    """A model that marks all of every picture, or nothing."""

    config, tokenizer = tiny_model(), build_tokenizer()

    def __init__(self, logit):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(float(logit)))

    def encode_image(self, images):
        return images

    def segment(self, features, ids, mask, index):
        return self.logit.expand(len(ids), *features.shape[2:])


@pytest.fixture(scope="module")
def scenes(data_root):
    data = tiny_data()
    corpora, _ = load_corpora(data, tiny_model().text, ("val",), data_root, progress=False)
    root = next(path for path in data_root.iterdir() if path.name.startswith("refscenes"))
    corpus = corpora["val"]
    return corpus, scene_things(root, "refscenes", corpus.table["image_id"].unique(), corpus.image_size)


def test_the_things_of_a_scene_are_all_there(scenes):
    corpus, things = scenes
    for row, ref in zip(corpus.table.itertuples(), corpus.ref_of_expression, strict=True):
        (meant,) = (thing for thing in things[row.image_id] if thing.ann_id == row.ann_id)
        assert meant.category == row.category
        np.testing.assert_array_equal(meant.mask, corpus.mask(np.array([ref]))[0])
    for around in things.values():
        assert np.sum([thing.mask for thing in around], axis=0).max() == 1  # no pixel belongs to two
        assert any(thing.group == "stuff" for thing in around)


def test_a_mask_of_every_thing_ignores_the_words(scenes):
    corpus, things = scenes
    counts = wordless_counts(corpus, things)
    truths = corpus.mask(corpus.ref_of_expression)
    assert counts["intersection"].tolist() == truths.sum((1, 2)).tolist()  # a referent is one of the things
    for image, rows in counts.groupby("image_id"):
        areas = [int(thing.mask.sum()) for thing in things[image] if thing.group != "stuff"]  # none overlaps another
        assert set(rows["union"]) == {sum(areas)}
    whole = whole_image_counts(corpus)
    assert whole["intersection"].tolist() == truths.sum((1, 2)).tolist() and set(whole["union"]) == {truths[0].size}
    assert summarize_counts(counts)["oIoU"] > 2 * summarize_counts(whole)["oIoU"]


def test_no_mask_that_ignores_the_words_is_better_than_the_best(scenes):
    """Against every choice of things in each picture: their sums are tried for all ratios that a choice may reach."""
    corpus, things = scenes
    best = best_wordless_counts(corpus)
    ratio = best["intersection"].sum() / best["union"].sum()
    gained = 0.0
    for image, rows in corpus.table.groupby("image_id").indices.items():
        truths = corpus.mask(corpus.ref_of_expression[rows])
        choices = itertools.product((False, True), repeat=len(things[image]))
        masks = [
            np.logical_or.reduce([thing.mask for thing, taken in zip(things[image], chosen, strict=True) if taken])
            for chosen in choices
            if any(chosen)
        ]
        own = best.iloc[rows]
        # a ratio of sums is the highest where no part has a higher intersection minus ratio times union
        most = max((truths & mask).sum() - ratio * (truths | mask).sum() for mask in masks)
        gained += own["intersection"].sum() - ratio * own["union"].sum()
        assert own["intersection"].sum() - ratio * own["union"].sum() >= most - 1e-6
    assert gained == pytest.approx(0, abs=1e-6)
    assert ratio > summarize_counts(wordless_counts(corpus, things))["oIoU"] / 100


def test_recorded_variants_are_set_against_masks_that_ignore_the_words(tmp_path):
    for seed, level in enumerate((0.58, 0.60, 0.62)):
        put(tmp_path, "s2rm_fpn", [level] * 20, seed=seed)
    put(tmp_path, "pwam_fpn", [0.2, 0.4] * 10)
    floors = {"every": fake_counts([0.4, 0.2] * 10), "best": fake_counts([0.5] * 20)}
    table = wordless_table(STUDY.under("scenes", tmp_path), floors).set_index("variant")
    assert table.index.tolist() == ["", "", "pwam_fpn", "s2rm_fpn"]
    assert table["label"].tolist()[:2] == list(WORDLESS.values())
    assert table["oIoU"].tolist() == pytest.approx([30, 50, 30, 60])
    above = table.loc["s2rm_fpn"]
    assert above["runs"] == 3 and above[["above_every", "above_best"]].tolist() == pytest.approx([30, 10])
    assert table.loc["pwam_fpn", "above_every_low"] < 0 < table.loc["pwam_fpn", "above_every_high"]
    assert table.loc["pwam_fpn", "above_best_high"] < 0
    assert above["above_every_low"] > 15 and table.loc["", ["above_every", "above_best"]].isna().all(axis=None)


def test_a_model_that_marks_everything_leaks_and_answers_every_probe(scenes):
    corpus, things = scenes
    table = diagnose_corpus(Marks(5), corpus, things)
    assert {"several things"} <= set(table["cause"]) <= {"several things", "leaked"} and (table["recall"] == 1).all()
    np.testing.assert_allclose(table["iou"], table["area"])
    assert table["sent_id"].tolist() == corpus.table["sent_id"].tolist() and (table["rival_category"] != "").any()
    probed = probe_corpus(Marks(5), corpus, things)
    assert probed["responds"].all() and (probed["marked"] == 1).all()
    assert set(probed.loc[probed["kind"] != "present", "cause"]) == {"absent referent"}


def test_a_model_that_marks_nothing_misses_and_is_right_about_what_is_absent(scenes):
    corpus, things = scenes
    table = diagnose_corpus(Marks(-5), corpus, things)
    small = table["area"] < SMALL
    assert set(table.loc[small, "cause"]) <= {"missed small"} and set(table.loc[~small, "cause"]) == {"missed"}
    assert set(table["rival_category"]) == {""} and not table["same_category"].any()
    probed = probe_table(probe_corpus(Marks(-5), corpus, things)).set_index("kind")
    assert probed["hits"].drop("present").eq(100).all() and probed["share"].eq(0).all()
    assert probed[["on_noun", "on_colour"]].isna().all(axis=None)


def test_probes_of_a_seed_are_the_same_again(scenes):
    corpus, things = scenes
    first, again, other = (probe_corpus(Marks(5), corpus, things, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["expression"].tolist() != other["expression"].tolist()


def test_known_diagnoses_give_known_cells():
    rows = {
        "image_id": [1, 1, 2, 2],
        "kind": ["location", "attribute", "location", "location"],
        "cause": ["hit", "leaked", "hit", "wrong thing"],
        "iou": [0.8, 0.4, 0.6, 0.0],
        "confidence": [0.9, 0.8, 0.7, 1.0],
    }
    table = cause_table(pd.DataFrame(rows)).set_index(["kind", "cause"])
    assert list(table.loc["all"].index) == list(CAUSES) and set(table.index.levels[0]) == {
        "all",
        "location",
        "attribute",
    }
    hits = table.loc[("all", "hit")]
    assert (hits["expressions"], hits["share"], hits["iou"], hits["confidence"]) == pytest.approx((2, 50, 0.7, 0.8))
    assert (hits["share_low"], hits["share_high"]) == (50, 50)  # one of two in either image
    assert table.loc[("location", "wrong thing"), "share"] == pytest.approx(100 / 3)
    empty = table.loc[("all", "missed")]
    assert empty["expressions"] == 0 == empty["share"] and np.isnan(empty["iou"])
    assert table.loc["all", "share"].sum() == pytest.approx(100)
