"""RefScenes: the same bytes every time, expressions that are true of one thing, statistics like the benchmarks'."""

import colorsys
import errno
import hashlib
import json
import multiprocessing
import os
import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from refstudy.data.masks import decode_mask
from refstudy.data.refer import load_refer
from refstudy.data.scenes import FLAVOURS, make_refscenes, vocabulary
from refstudy.data.scenes.grammar import (
    LOCATION_WORDS,
    leading,
    long_expressions,
    noun_phrases,
    relation_words,
    short_expressions,
)
from refstudy.data.scenes.scene import make_scene
from refstudy.data.scenes.things import CATEGORIES, COLOURS
from refstudy.data.source import prepare_data
from refstudy.errors import StudyError
from tests.conftest import tiny_data

GOLDEN = {  # flavour and its version -> digest of the annotations of two scenes and of their pixels
    ("refscenes", "1"): "ca66a452d98e7a71",
    ("refscenes+", "2"): "52912c1b6218bb82",
    ("refscenesg", "2"): "31deb49e18c5d3d2",
    ("referscenes", "2"): "bbdf5230b9bdf111",
}
RECORDED = "24d41307170a15b7"  # of the annotations of 34 scenes of refscenes, on which the committed records rest
STANDS_ON = re.compile(r"(?:standing|that is) on the (\w+)")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A root with all flavours, 60 scenes a split (statistics need a few hundred referents)."""
    root = tmp_path_factory.mktemp("scenes")
    for flavour in FLAVOURS.values():
        make_refscenes(root, flavour.name, dict.fromkeys(flavour.splits, 60), progress=False)
    return root


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_bytes_again_and_with_more_workers(tmp_path):
    first = make_refscenes(tmp_path / "a", "refscenes", {"train": 40, "val": 3}, progress=False)
    second = make_refscenes(tmp_path / "b", "refscenes", {"train": 40, "val": 3}, workers=2, progress=False)
    assert contents(first) == contents(second)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(tmp_path):
    small = make_refscenes(tmp_path / "a", "refscenes+", {"val": 3}, progress=False)
    large = make_refscenes(tmp_path / "b", "refscenes+", {"train": 2, "val": 6}, progress=False)
    images, more = contents(small / "images"), contents(large / "images")
    assert len(images) == 3 and all(more[name] == data for name, data in images.items())
    few, many = (load_refer(folder.parent, "refscenes+", "unc").query("split == 'val'") for folder in (small, large))
    assert many["expression"].tolist()[: len(few)] == few["expression"].tolist()


def annotations_digest(folder, split_by):
    return hashlib.sha256((folder / "instances.json").read_bytes() + (folder / f"refs({split_by}).p").read_bytes())


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=lambda flavour: flavour.name)
def test_version_changes_whenever_bytes_do(tmp_path, flavour):
    folder = make_refscenes(tmp_path, flavour.name, {"val": 2}, progress=False)
    digest = annotations_digest(folder, flavour.split_by[0])
    for index in range(2):
        digest.update(make_scene(np.random.default_rng(index), 64).picture.tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[flavour.name, flavour.version]


def test_refscenes_stays_what_the_records_were_made_on(data_root):
    folder = prepare_data(tiny_data(), data_root, progress=False) / "refscenes"
    assert annotations_digest(folder, "unc").hexdigest()[:16] == RECORDED


def test_statistics_are_within_ten_percent_of_the_published(made):
    for flavour in FLAVOURS.values():
        table = load_refer(made, flavour.name, flavour.split_by[0])
        referents, images = table["ref_id"].nunique(), table["image_id"].nunique()
        target = flavour.target
        assert table["words"].mean() == pytest.approx(target.words_per_expression, rel=0.1)
        assert len(table) / referents == pytest.approx(target.expressions_per_referent, rel=0.1)
        assert referents / images == pytest.approx(target.referents_per_image, rel=0.1)


def test_refscenes_plus_never_says_where(made):
    words = set(" ".join(load_refer(made, "refscenes+", "unc")["expression"]).split())
    assert not words & LOCATION_WORDS


def test_every_word_is_in_the_vocabulary(made):
    words = set()
    for flavour in FLAVOURS.values():
        words |= set(" ".join(load_refer(made, flavour.name, flavour.split_by[0])["expression"]).split())
    assert len(words) > 100 and words <= set(vocabulary())


def test_colour_and_noun_single_out_one_thing(made):
    """An independent check from the annotations alone, for expressions of the form "<colour> <noun>"."""
    instances = json.loads((made / "refscenes" / "instances.json").read_text())
    by_image = {}
    for annotation in instances["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    names = {category["id"]: category["name"] for category in instances["categories"]}
    nouns = {category.name: category.nouns for category in CATEGORIES}
    checked = 0
    for row in load_refer(made, "refscenes", "unc").itertuples():
        parts = row.expression.split()
        if len(parts) == 2 and parts[0] in COLOURS and parts[1] not in ("shirt", "dress"):
            fitting = [
                a["id"]
                for a in by_image[row.image_id]
                if parts[1] in nouns.get(names[a["category_id"]], ()) and a["color"] == parts[0]
            ]
            assert fitting == [row.ann_id]
            checked += 1
    assert checked > 20


def test_left_and_right_lead_by_a_margin():
    """Another independent check: the thing called left is left of every other thing that could be meant."""
    checked = 0
    for seed in range(30):
        scene = make_scene(np.random.default_rng(seed), 64)
        for k, thing in enumerate(scene.things):
            for phrase in short_expressions(scene, k, location=True):
                if phrase.text == f"left {thing.category.name}":
                    same = [i for i, other in enumerate(scene.things) if thing.category.name in other.category.nouns]
                    xs = [scene.centres[i, 0] for i in same if i != k]
                    assert xs and scene.centres[k, 0] < min(xs) - 0.05
                    checked += 1
    assert checked > 5


def test_relations_exclude_all_that_could_be_meant():
    scene = make_scene(np.random.default_rng(4), 64)
    for first in range(len(scene.things)):
        for anchor in range(len(scene.things)):
            if first != anchor:
                for _, true_of in relation_words(scene, first, anchor):
                    assert first in true_of and anchor not in true_of


def test_what_a_thing_is_said_to_stand_on_lies_around_its_foot():
    """Checked in the pixels: a strip across the thing's lower end, without things, is all of the region named."""
    checked = Counter()
    for seed in range(36):
        scene = make_scene(np.random.default_rng(seed), 64)
        for k in range(len(scene.things)):
            rows, columns = np.nonzero(scene.numbers == k + 1)
            named = {match[1] for p in long_expressions(scene, k) if (match := STANDS_ON.search(p.text))}
            if named:
                strip = scene.numbers[rows.max() - 1 : rows.max() + 1, max(0, columns.min() - 4) : columns.max() + 5]
                under = {scene.stuff[number - 200].name.removesuffix(" top") for number in strip[strip >= 200].tolist()}
                assert named == under or not under
                checked.update(under)
    assert set(checked) >= {"grass", "road", "sand", "water", "floor", "table"}


def looks(pixels):
    """Which of ``pixels`` (n, 3) a person could call by each name of background, by hue and chroma alone."""
    chroma = np.ptp(pixels, axis=1)
    hue = np.array([360 * colorsys.rgb_to_hsv(*pixel)[0] for pixel in (pixels / 255).tolist()])
    hues = {"brown": (8, 45), "orange": (15, 45), "yellow": (38, 60), "green": (80, 160), "blue": (190, 240)}
    named = {name: (chroma >= 26) & (low <= hue) & (hue <= high) for name, (low, high) in hues.items()}
    light = pixels.max(axis=1)
    return named | {
        "pink": (chroma >= 26) & ((hue <= 15) | (hue >= 330)),
        "white": (chroma < 26) & (light >= 185),
        "gray": (chroma < 26) & (light <= 200),
    }


def test_regions_look_as_their_colour_is_called_and_skies_hold_no_hills():
    """From the pixels: over a third of each fits (windows, clouds, trunks do not); next to no sky is green."""
    checked = Counter()
    for seed in range(60):
        scene = make_scene(np.random.default_rng(seed), 64)
        for number, region in enumerate(scene.stuff, start=200):
            pixels = scene.picture[scene.numbers == number].astype(int)
            if len(pixels) > 40:
                fits = looks(pixels)
                assert fits[region.colour].mean() > 0.35, (seed, region)
                assert region.name != "sky" or fits["green"].mean() < 0.03, (seed, region)
                checked[f"{region.colour} {region.name}"] += 1
    tops = {name for name in checked if name.endswith("table top")}
    assert tops == {"brown table top", "white table top", "blue table top"}
    assert {"brown floor", "gray floor", "brown buildings", "blue sky", "orange sky"} <= set(checked)


def test_noun_phrases_are_true_of_their_thing():
    for seed in range(10):
        scene = make_scene(np.random.default_rng(seed), 64)
        for k in range(len(scene.things)):
            assert all(k in phrase.true_of for phrase in noun_phrases(scene, k))


def test_nothing_leads_without_a_margin():
    values = np.array([0.1, 0.15, 0.6])
    assert leading(values, frozenset({0, 1, 2}), 0.07) is None
    assert leading(values, frozenset({1, 2}), 0.07) == 1
    assert leading(values, frozenset({1}), 0.07) is None


def test_masks_are_the_visible_pixels_and_do_not_overlap(made):
    instances = json.loads((made / "referscenes" / "instances.json").read_text())
    by_image = {}
    for annotation in instances["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for annotations in list(by_image.values())[:20]:
        masks = [decode_mask(a["segmentation"], 128, 128) for a in annotations]
        assert np.sum(masks, axis=0).max() == 1
        for annotation, mask in zip(annotations, masks, strict=True):
            assert mask.sum() == annotation["area"]
            rows, columns = np.nonzero(mask)
            x, y, width, height = annotation["bbox"]
            assert (columns.min(), rows.min()) == (x, y)
            assert (columns.max() + 1 - x, rows.max() + 1 - y) == (width, height)


def test_test_a_holds_people_and_test_b_other_things(made):
    table = load_refer(made, "refscenes", "unc")
    people = {"man", "woman", "boy", "girl"}
    assert set(table.query("split == 'testA'")["category"]) <= people
    assert not set(table.query("split == 'testB'")["category"]) & people


def test_the_google_partition_splits_referents_not_images(made):
    umd, google = (load_refer(made, "refscenesg", name) for name in ("umd", "google"))
    assert umd.groupby("image_id")["split"].nunique().max() == 1
    assert google.groupby("image_id")["split"].nunique().max() == 2
    assert umd["sent_id"].tolist() == google["sent_id"].tolist()


def test_a_finished_folder_is_reused_and_a_foreign_one_refused(tmp_path):
    folder = make_refscenes(tmp_path, "refscenes", {"val": 2}, progress=False)
    before = (folder / "instances.json").stat().st_mtime_ns
    make_refscenes(tmp_path, "refscenes", {"val": 2}, progress=False)
    assert (folder / "instances.json").stat().st_mtime_ns == before
    with pytest.raises(StudyError, match="other scenes than asked for"):
        make_refscenes(tmp_path, "refscenes", {"val": 3}, progress=False)
    (folder / "refscenes.json").write_text("{")
    with pytest.raises(StudyError, match="refscenes.json: not JSON; remove .*refscenes, and it is made anew"):
        make_refscenes(tmp_path, "refscenes", {"val": 2}, progress=False)
    (folder / "refscenes.json").unlink()
    with pytest.raises(StudyError, match="no finished RefScenes"):
        make_refscenes(tmp_path, "refscenes", {"val": 2}, progress=False)


def test_where_scenes_cannot_be_kept_it_is_said(tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(StudyError, match="cannot hold data .*name another in REFSTUDY_DATA"):
        prepare_data(tiny_data(), tmp_path / "data", progress=False)
    (tmp_path / ".refscenes.lock").mkdir()  # nothing can be opened there for writing, not even by root
    with pytest.raises(StudyError, match=r"cannot hold data \(Is a directory\); make room, allow to write there"):
        make_refscenes(tmp_path, "refscenes", {"val": 1}, progress=False)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(StudyError, match=r"cannot hold data \(No space left on device\); make room"):
        make_refscenes(tmp_path, "refscenes", {"val": 1}, progress=False)
    monkeypatch.undo()
    assert len(list((make_refscenes(tmp_path, "refscenes", {"val": 1}, progress=False) / "images").iterdir())) == 1


def test_several_processes_may_ask_for_the_same_scenes_at_once(tmp_path):
    alone = make_refscenes(tmp_path / "alone", "refscenes", {"val": 6}, size=64, progress=False)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        asked = [
            pool.submit(make_refscenes, tmp_path / "shared", "refscenes", {"val": 6}, size=64, progress=False)
            for _ in range(3)
        ]
        (shared,) = {future.result() for future in asked}
    assert contents(shared) == contents(alone)


def test_an_interrupted_making_is_made_again(tmp_path):
    leftover = tmp_path / ".refscenes.unfinished" / "images"
    leftover.mkdir(parents=True)
    (leftover / "half.jpg").write_bytes(b"half")
    folder = make_refscenes(tmp_path, "refscenes", {"val": 2}, progress=False)
    assert len(list((folder / "images").iterdir())) == 2


@pytest.mark.parametrize(
    "flavour, scenes, message",
    [
        ("refscenesx", {"val": 1}, "unknown flavour"),
        ("refscenes", {"test": 1}, "train, val, testA, testB"),
        ("refscenes", {"val": -1}, "is not a count"),
    ],
)
def test_bad_orders_are_named(tmp_path, flavour, scenes, message):
    with pytest.raises(StudyError, match=message):
        make_refscenes(tmp_path, flavour, scenes)
