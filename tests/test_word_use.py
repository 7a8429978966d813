"""Masks of one picture held against one another: a model without words gives one mask, whatever is asked."""

import numpy as np
import pandas as pd
import pytest

from refstudy.analysis.word_use import word_use
from refstudy.data.masks import encode_mask

from .helpers import STUDY, put_counts

SIDE, IMAGES = 8, 4
REFS = (0, 0, 1)  # of the expressions of each picture: two of one thing, one of another


def put(results, variant, columns, seed=0):
    """A record whose masks mark these columns (first, end), one for each expression of every picture."""
    counts = pd.DataFrame(
        [
            {"sent_id": 10 * image + k, "ref_id": 10 * image + ref, "image_id": image}
            for image in range(IMAGES)
            for k, ref in enumerate(REFS)
        ]
    ).assign(split="val", words=2, kind="location", intersection=1, union=2)
    masks = {}
    for sentence in counts["sent_id"]:
        mask = np.zeros((SIDE, SIDE), bool)
        mask[:, slice(*columns[sentence % 10])] = True
        masks[sentence] = encode_mask(mask)
    put_counts(results, variant, counts, seed=seed, masks=masks)


def test_masks_that_use_words_agree_on_one_thing_and_part_on_two(tmp_path):
    put(tmp_path, "s2rm_fpn", [(0, 4), (0, 4), (4, 8)])
    put(tmp_path, "pwam_fpn", [(0, 4)] * 3)  # one mask, whatever is asked
    put(tmp_path, "tile_concat", [(0, 4), (2, 6), (3, 7)])
    table = word_use(STUDY.under("scenes", tmp_path)).set_index("variant")
    assert list(table.index) == ["pwam_fpn", "tile_concat", "s2rm_fpn"]  # the least use for words first
    assert table["same"].to_dict() == pytest.approx({"pwam_fpn": 100, "tile_concat": 100 / 3, "s2rm_fpn": 100})
    assert table["other"].to_dict() == pytest.approx(
        {"pwam_fpn": 100, "tile_concat": 100 * (1 / 7 + 3 / 5) / 2, "s2rm_fpn": 0}
    )
    assert set(table["same_pairs"]) == {IMAGES} and set(table["other_pairs"]) == {2 * IMAGES}
    assert set(table["pictures"]) == {IMAGES} and set(table["data"]) == {"RefScenes val, 128 px"}


def test_two_empty_masks_are_one_answer(tmp_path):
    put(tmp_path, "s2rm_fpn", [(0, 0)] * 3)
    line = word_use(STUDY.under("scenes", tmp_path)).loc[0]
    assert line["same"] == line["other"] == 100


def test_intervals_are_over_pictures(tmp_path):
    put(tmp_path, "s2rm_fpn", [(0, 4), (0, 4), (4, 8)])
    line = word_use(STUDY.under("scenes", tmp_path)).loc[0]
    assert line[["same_low", "same_high", "other_low", "other_high"]].tolist() == [100, 100, 0, 0]  # all are alike


def test_a_pair_of_one_sort_in_one_picture_has_no_interval(tmp_path):
    """Of two pictures one has two expressions of one thing, the other has two of two things."""
    counts = pd.DataFrame({"sent_id": [0, 1, 2, 3], "ref_id": [0, 0, 1, 2], "image_id": [0, 0, 1, 1]})
    counts = counts.assign(split="val", words=2, kind="location", intersection=1, union=2)
    mask = encode_mask(np.eye(SIDE, dtype=bool))
    put_counts(tmp_path, "s2rm_fpn", counts, masks=dict.fromkeys(range(4), mask))
    line = word_use(STUDY.under("scenes", tmp_path)).loc[0]
    assert line[["same", "other"]].tolist() == 2 * [100]
    assert line[["same_low", "same_high", "other_low", "other_high"]].isna().all()
    assert line["same_pairs"] == line["other_pairs"] == 1


def test_a_run_without_masks_has_no_line(tmp_path):
    assert word_use(STUDY.under("scenes", tmp_path)).empty
    counts = pd.DataFrame({"sent_id": [0, 1], "ref_id": [0, 1], "image_id": [0, 0], "split": "val", "words": 2})
    counts = counts.assign(kind="location", intersection=1, union=2)
    put_counts(tmp_path, "s2rm_fpn", counts)
    assert word_use(STUDY.under("scenes", tmp_path)).empty
