"""What the check finds: each kind of damage alone, counts against the published figures, and how the command ends."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from refstudy.cli import app
from refstudy.data.check import check_dataset, check_root, compare, counts, published, summary
from refstudy.data.refer import find_data, load_leniently, load_refer
from refstudy.papers.printed import load_printed

from .test_data_forms import (
    as_hub_parquet,
    as_refer_folder,
    as_untouched_zips,
    coco_name,
    instances,
    real_table,
    refer_files,
    refer_ref,
)
from .test_data_forms import write_files as write

PICTURES = "images/mscoco/images/train2014"


@pytest.fixture
def root(tmp_path):
    """A sound data set of a name that no paper has figures for."""
    as_refer_folder(tmp_path)
    (tmp_path / "refcoco").rename(tmp_path / "mine")
    return tmp_path


def change(root, refs=None, **parts):
    """Replace referents or parts of the instances."""
    write(root, refer_files(refs, dataset="mine", **parts))


def checked(root, **options):
    """kind -> (level, messages) of everything that is found."""
    ((_, _, problems),) = check_root(root, **options)
    return {kind: (rows["level"].iloc[0], rows["message"].tolist()) for kind, rows in problems.groupby("kind")}


def test_sound_data_have_no_problems(root):
    ((found, counted, problems),) = check_root(root, images=True)
    assert problems.empty and (found.dataset, found.split_by) == ("mine", "unc")
    assert counted.loc["all"].tolist() == [2, 3, 6, 2.0, 3]
    assert counted.loc["train", ["images", "referents", "expressions"]].tolist() == [1, 2, 3]


def test_missing_and_broken_images_are_found(root):
    (root / PICTURES / coco_name(1)).unlink()
    Image.fromarray(np.zeros((41, 60, 3), np.uint8)).save(root / PICTURES / coco_name(2))
    found = checked(root)
    assert found["missing image"][0] == "problem" and coco_name(1) in found["missing image"][1][0]
    assert "(41, 60)" in found["broken image"][1][0]


def test_a_picture_cut_short_is_found_when_all_are_decoded(root):
    picture = root / PICTURES / coco_name(2)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(picture)
    picture.write_bytes(picture.read_bytes()[:-400])
    assert not checked(root)
    assert "does not decode" in checked(root, images=True)["broken image"][1][0]


def test_no_folder_of_images_is_one_problem(root):
    (root / "images").rename(root / "elsewhere")
    assert [len(messages) for _, messages in checked(root).values()] == [1]


def with_segmentation(segmentation):
    annotations = instances()["annotations"]
    annotations[0]["segmentation"] = segmentation
    return annotations


@pytest.mark.parametrize(
    "segmentation, kind",
    [
        ([[10, 10, 70, 10, 70, 30]], "mask outside its image"),
        ([[10, -5, 20, 10, 5, 30]], "mask outside its image"),
        ({"size": [60, 40], "counts": [2400]}, "broken mask"),
        ({"size": [40, 60], "counts": [2400]}, "empty mask"),
        ([[1, 2]], "broken mask"),
        ("text", "broken mask"),
        ([], "broken mask"),
    ],
)
def test_bad_masks_are_found(root, segmentation, kind):
    change(root, annotations=with_segmentation(segmentation))
    found = checked(root)
    assert list(found) == [kind] and found[kind][0] == "problem" and "referent 111" in found[kind][1][0]


def test_polygons_on_the_outer_edge_are_inside(root):
    change(root, annotations=with_segmentation([[0, 0, 60.4, 0, 60.4, 40.4, 0, 40.4]]))
    assert not checked(root)


def test_every_broken_entry_is_found_at_once(root):
    refs = [refer_ref(11), refer_ref(12), refer_ref(21) | {"ann_id": 99}, {"ref_id": 5}]
    refs[0]["sentences"][1]["sent"] = "  "
    refs[1] |= {"image_id": 2}
    change(root, refs, images=[*instances()["images"], {"id": 7, "file_name": "../x", "height": 1, "width": 1}])
    found = checked(root)
    expected = ["annotation of another image", "broken referent", "empty sentence", "path outside its folder"]
    assert sorted(found) == sorted([*expected, "referent without annotation"])
    assert all(level == "problem" and len(messages) == 1 for level, messages in found.values())
    table, problems = load_leniently(find_data(root)[0])
    assert table["expression"].tolist() == ["left box"] and len(problems) == 5


def test_duplicates_are_found(root):
    again = refer_ref(11) | {"ref_id": 112}  # 112 is the number of another referent
    for sentence in again["sentences"]:
        sentence["sent"] = "the same"
    change(root, [refer_ref(11), refer_ref(12), again, refer_ref(21)])
    found = checked(root)
    assert found["duplicate sentence id"][0] == found["duplicate referent id"][0] == "problem"
    assert len(found["duplicate sentence id"][1]) == 2 and "referent 112" in found["duplicate referent id"][1][0]
    assert found["same expression twice"][0] == "note"  # RefCOCO itself has hundreds


def table_of(splits, dataset_words=("a",)):
    """A table that has, per split, (image, referent) pairs with one expression each."""
    pairs = [(split, image, ref) for split, pairs in splits.items() for image, ref in pairs]
    table = pd.DataFrame(pairs, columns=["split", "image_id", "ref_id"])
    table = table.assign(
        ann_id=table["ref_id"], sent_id=range(len(table)), expression="a b", words=2, height=0, width=0
    )
    return table.assign(segmentation=[[] for _ in pairs], image_path="nowhere/x.jpg")


@pytest.mark.parametrize("split_by, level", [("umd", "problem"), ("google", "note")])
def test_images_shared_by_training_and_evaluation_are_found(split_by, level):
    table = table_of({"train": [(1, 1), (2, 2)], "val": [(2, 3), (3, 4)], "test": [(4, 5)]})
    problems = check_dataset(table, "refcocog", split_by)
    shared = problems[problems["kind"] == "images in training and evaluation"]
    assert shared["level"].tolist() == [level]
    assert shared["message"].iloc[0].startswith("1 of 2 images of val are in train too, e.g. 2")
    assert ("divides referents, not images" in shared["message"].iloc[0]) == (level == "note")


def differing(found, dataset="refcoco", split_by="unc"):
    rows = compare(found, dataset, split_by)
    return rows[rows["difference"] != 0]


def released_counts(dataset, split_by):
    """Counts that hold every released figure."""
    figures = published().query("dataset == @dataset and split_by == @split_by and kind == 'released'")
    wide = figures.pivot(index="split", columns="measure", values="value").astype(float)
    return wide.reindex(columns=["images", "referents", "expressions", "mean_words", "max_words"])


def test_the_released_files_differ_from_print_where_print_is_wrong():
    found = released_counts("refcoco", "unc").fillna({"mean_words": 3.5})
    rows = differing(found).query("kind == 'printed'")
    assert rows[["measure", "value", "found", "difference"]].values.tolist() == [
        ["expressions", "142209", "142210", 1.0]
    ]
    referit = differing(released_counts("refclef", "berkeley"), "refclef", "berkeley").set_index(["split", "measure"])
    assert referit.loc[("val", "expressions"), "difference"] == 5842 - 60103
    assert "exchanges" in referit.loc[("val", "expressions"), "why"]


def test_totals_of_a_part_are_not_compared():
    part = released_counts("refcoco", "unc").loc[["val", "all"]]
    assert set(compare(part, "refcoco", "unc")["split"]) == {"val"}


def test_data_of_ones_own_may_have_the_name_of_released_ones(tmp_path):
    as_hub_parquet(tmp_path)
    found = checked(tmp_path)
    level, (message,) = found["differs from published"]
    assert level == "note" and "no count is a published one, e.g. train images: 1, published 16994" in message
    assert "split missing" in found


def test_a_copy_of_the_released_files_that_lacks_something_is_a_problem():
    table = table_of({"val": [(k % 1500, k) for k in range(3810)]})  # of 1,500 pictures and 3,811 referents
    problems = check_dataset(table, "refcoco", "unc")
    row = problems[problems["entry"] == "val referents"].iloc[0]
    assert row["level"] == "problem" and "val referents: 3810, published 3811 (-1)" in row["message"]


def test_an_export_that_joins_two_partitions_is_explained():
    table = table_of({"val": [(k % 1500, k) for k in range(8811)]})
    problems = check_dataset(table, "refcoco", "unc")
    row = problems[problems["entry"] == "val referents"].iloc[0]
    assert row["level"] == "note" and "5,000 of google" in row["message"] and "(+5000)" in row["message"]


def test_published_figures_agree_with_the_papers_as_transcribed():
    """Two transcriptions, made apart, and sums."""
    names = {"refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg", "refclef": "ReferIt"}
    figures = published()
    s2rm, slvit, cris = (load_printed(f"{name}_datasets") for name in ("s2rm", "slvit", "cris"))
    measures = {"images": "images", "regions": "referents", "expressions": "expressions", "words": "mean_words"}
    for dataset, name in names.items():
        rows = figures[(figures["dataset"] == dataset) & figures["kind"].isin(["printed", "released"])]

        def known(split, measure, rows=rows):
            return set(rows.loc[(rows["split"] == split) & (rows["measure"] == measure), "value"].astype(float))

        for column, measure in measures.items():
            if not np.isnan(printed := s2rm.loc[name, column]):
                assert printed in known("all", measure), (name, column)
        for split in ("train", "val", "testA", "testB", "test"):
            if not np.isnan(printed := s2rm.loc[name, split]):
                assert printed in known(split, "expressions"), (name, split)
    for name, partition in (
        ("RefCOCO", "unc"),
        ("RefCOCO+", "unc"),
        ("RefCOCOg (UMD)", "umd"),
        ("RefCOCOg (Google)", "google"),
    ):
        dataset = name.split(" ")[0].lower()
        found = released_counts(dataset, partition)["referents"]
        assert found.drop("all").to_dict() == cris.loc[name].dropna().to_dict()
        assert found["all"] == found.drop("all").sum()
    assert slvit.loc["G-Ref", "regions"] == 54822
    for dataset, partition in (("refcoco", "unc"), ("refcoco+", "unc"), ("refclef", "berkeley")):
        found = released_counts(dataset, partition)[["images", "referents", "expressions"]]
        assert (found.drop("all").sum() == found.loc["all"]).all()


def test_counts_are_ordered_and_complete(root):
    counted = counts(load_refer(root, "mine", "unc"))
    assert counted.index.tolist() == ["train", "val", "all"]
    assert list(counted.columns) == ["images", "referents", "expressions", "mean_words", "max_words"]


def test_the_summary_shows_problems_first_and_a_few_examples():
    rows = [("note", "b", "", "n")] + [("problem", "a", "", f"p{k}") for k in range(5)]
    lines = summary(pd.DataFrame(rows, columns=["level", "kind", "entry", "message"]))
    assert lines == ["problem a, 5: p0; p1; p2; and 2 more", "note    b, 1: n"]


def test_the_command_ends_with_1_for_problems_and_0_for_notes(root):
    runner = CliRunner()
    same = refer_ref(11)
    same["sentences"][1]["sent"] = same["sentences"][0]["sent"]
    change(root, [same, refer_ref(12), refer_ref(21)])
    fine = runner.invoke(app, ["data", "check", str(root)])
    assert fine.exit_code == 0 and "mine (unc): REFER files" in fine.output
    assert "note    same expression twice, 1: " in fine.output and "problem" not in fine.output
    (root / "more.zip").write_bytes(b"cut short")
    bad = runner.invoke(app, ["data", "check", str(root)])
    assert bad.exit_code == 1 and "problem does not read, 1: " in bad.output and "mine (unc)" in bad.output
    one = runner.invoke(app, ["data", "check", str(root), "--dataset", "mine", "--split-by", "unc", "--images"])
    assert one.exit_code == 0
    none = runner.invoke(app, ["data", "check", str(root), "--dataset", "refcoco"])
    assert none.exit_code != 0 and "there is mine (unc)" in str(none.exception)


def test_the_check_looks_one_folder_deeper_and_into_archives(tmp_path):
    (tmp_path / "downloads").mkdir()
    as_untouched_zips(tmp_path / "downloads")
    ((one, _, problems),) = check_root(tmp_path)
    assert (one.dataset, one.form) == ("refcoco", "REFER zip")
    (message,) = problems.loc[problems["kind"] == "one folder too high", "message"]
    assert message.startswith(f"the data root to name is {tmp_path / 'downloads'},")
    ((_, _, problems),) = check_root(tmp_path / "downloads")
    assert "one folder too high" not in set(problems["kind"])


def test_real_lists_differ_from_print_as_known(real_sample):
    for folder, *data in (("refcoco_csv", "refcocog", "umd"), ("referit", "refclef", "berkeley")):
        problems = check_dataset(real_table(real_sample / folder, *data), *data)
        assert not (problems["level"] == "problem").any(), problems
    message = problems.loc[problems["entry"] == "val expressions", "message"].iloc[0]
    assert "5842, published 60103" in message and "S²RM exchanges the sizes" in message


def test_the_page_lists_the_known_discrepancies_as_the_figures_do():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    section = page.split("## Known discrepancies")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    figures = published().query("why != ''")
    expected = [
        [f"{row.dataset} ({row.split_by})", row.split, row.measure.replace("_", " "), row.value, row.why, row.source]
        for row in figures.itertuples()
    ]
    assert cells[2:] == expected
    assert re.fullmatch(r"[\s|-]+", section.splitlines()[[line[:1] for line in section.splitlines()].index("|") + 1])
