"""RefScenes: the same bytes every time, expressions that are true of one thing, statistics like the benchmarks', files
that the field's own code reads."""

import colorsys
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import pickle
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from random import Random

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from refstudy.base.errors import StudyError
from refstudy.data.masks import decode_mask, mask_polygons
from refstudy.data.refer import load_refer
from refstudy.data.samples import LONGEST, REAL_VAL, box_shares, real_figures, referents_per_picture, speech
from refstudy.data.scenes.census import census, sentences_of, things_of, told_apart
from refstudy.data.scenes.drawing import _numbers, _paint, _part, _points
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.data.scenes.grammar import LOCATION_WORDS, MOST_WORDS, Speaker, vocabulary
from refstudy.data.scenes.positions import leading, relations_of
from refstudy.data.scenes.scene import make_scene
from refstudy.data.scenes.write import make_refscenes
from refstudy.data.source import lay_out, prepare_data
from tests.conftest import tiny_data

GOLDEN = {  # flavour and its version -> digest of the annotations of two scenes and of their pixels
    ("refscenes", "3"): "f933ebf532a9e70b",
    ("refscenes+", "3"): "be24ec147074079e",
    ("refscenesg", "3"): "fe0ddbf58563bf06",
    ("referscenes", "3"): "0020244c75e33eb3",
}


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


def test_a_line_of_a_drawing_is_read_as_it_says():
    about = "oval 0.1 2*head -0.3 0x3c3430|wood*0.5@400 flat if=bag unless=patterned"
    part = _part(about, "0 0.5+0.1*lean, -neck -2; arc 0 0 1 1 4")
    assert (part.shape, part.paint, part.options) == ("oval", "0x3c3430|wood*0.5@400", {"edge": False})
    assert (part.needs, part.bars) == (["bag"], ["patterned"])
    values = {"": 1.0, "lean": 0.5, "neck": 0.8, "head": 0.25}
    assert _numbers(part.sizes, values) == [0.1, 0.5, -0.3]
    assert _points(part.groups[0], values) == [(0, 0.55), (-0.8, -2)]
    around = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    np.testing.assert_allclose(_points(part.groups[1], values), around, atol=1e-9)
    paints = {"colour": (200, 200, 1), "wood": (150, 104, 62)}
    assert _paint(part.paint, paints) == (0x3C, 0x34, 0x30)  # brighter than 400 in sum
    assert _paint(part.paint, paints | {"colour": (200, 200, 0)}) == (75, 52, 31) == _paint("wood*0.5", paints)
    assert _paint("colour", paints) == (200, 200, 1)
    with pytest.raises(StudyError, match="drawings.yaml: unknown shape 'ovel' in 'ovel 1 1 colour'; known: poly, "):
        _part("ovel 1 1 colour", "0 0")


def annotations_digest(folder, split_by):
    return hashlib.sha256((folder / "instances.json").read_bytes() + (folder / f"refs({split_by}).p").read_bytes())


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=lambda flavour: flavour.name)
def test_version_changes_whenever_bytes_do(tmp_path, flavour):
    folder = make_refscenes(tmp_path, flavour.name, {"val": 2}, progress=False)
    digest = annotations_digest(folder, flavour.split_by[0])
    for index in range(2):
        digest.update(make_scene(Random(index), 64).picture.tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[flavour.name, flavour.version]


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
    assert len(words) > 300 and words <= set(vocabulary())


def by_number(things):
    return {thing["id"]: thing for thing in things.to_dict("records")}


def first_of(among, value, margin, ratio=False):
    """The thing of the smallest value, if it leads all others; the rule is written out for every pair."""
    for one in among:
        others = [two for two in among if two["id"] != one["id"]]
        if others and all(
            value(two) > value(one) * margin if ratio else value(two) - value(one) > margin for two in others
        ):
            return one["id"]
    return None


def box_of(thing):
    x, y, width, height = thing["bbox"]
    return x / 128, y / 128, (x + width) / 128, (y + height) / 128


def gaps(one, two):
    a, b = box_of(one), box_of(two)
    return max(a[0], b[0]) - min(a[2], b[2]), max(a[1], b[1]) - min(a[3], b[3])


def place_of(word, among):
    """Which of these things is at a place, by the words' plain sense: its number, or None."""
    left, right = (first_of(among, lambda one, sign=sign: sign * one["x"], 0.07) for sign in (1, -1))
    top, bottom = (first_of(among, lambda one, sign=sign: sign * one["low"], 0.07) for sign in (1, -1))
    order = sorted(among, key=lambda one: one["x"])
    numbers = [one["id"] for one in order]
    if word in ("left", "left half", "far left"):
        return left
    if word in ("right", "right half", "far right"):
        return right
    if word in ("front", "back"):
        return first_of(among, lambda one: one["near"] * (-1 if word == "front" else 1), 0.119)
    if word == "middle":
        return numbers[1] if len(numbers) == 3 else None
    if word.split()[0] in ("second", "third"):
        place = 1 if word.startswith("second") else 2
        return numbers[place if word.endswith("left") else -1 - place]
    vertical, *side = word.split()
    found = top if vertical == "top" else bottom
    return found if not side or found == (left if side == ["left"] else right) else None


def size_of(word, among):
    key = "area" if word in ("big", "small") else "height"
    power = -1 if word in ("big", "tall") else 1
    return first_of(among, lambda one: one[key] ** power, 1.25 if key == "height" else 1.45, ratio=True)


def related_to(word, anchors, things):
    """All things of which a reader could say that they stand so to the anchors."""
    anchor = anchors[0]
    tests = {
        "near": lambda one: max(gaps(one, anchor)) < 0.24,
        "touching": lambda one: max(gaps(one, anchor)) < 0.04,
        "left of": lambda one: one["x"] < anchor["x"],
        "right of": lambda one: one["x"] > anchor["x"],
        "above": lambda one: one["low"] < anchor["low"],
        "below": lambda one: one["low"] > anchor["low"],
        "behind": lambda one: one["near"] < anchor["near"],
        "in front of": lambda one: one["near"] > anchor["near"],
        "on": lambda one: (
            one["on"] == anchor["id"] % 1000 or (max(gaps(one, anchor)) < 0 and one["low"] < anchor["low"])
        ),
        "between": lambda one: min(a["x"] for a in anchors) < one["x"] < max(a["x"] for a in anchors),
    }
    return [one for one in things if one["id"] not in {a["id"] for a in anchors} and tests[word](one)]


def meaning(program, things):
    """The numbers of the things that a program finds among the annotated things of a picture, step by step."""
    among = things
    for kind, word, *anchors in program:
        if kind == "fact":
            among = [one for one in among if word in one["facts"]]
        elif kind == "relation":
            found = [meaning(anchor, things) for anchor in anchors]
            assert all(len(numbers) == 1 for numbers in found)
            related = related_to(word, [one for numbers in found for one in things if one["id"] in numbers], things)
            among = [one for one in among if one in related]
        else:
            first = (place_of if kind == "location" else size_of)(word, among)
            among = [one for one in among if one["id"] == first]
    return {one["id"] for one in among}


def check_meanings(folder, split_by):
    """Evaluate every program on the annotations; the number of steps of each kind."""
    things = {image: by_number(rows) for image, rows in things_of(folder).groupby("image_id")}
    checked = Counter()
    for sentence in sentences_of(folder, split_by):
        program = sentence["program"]
        if program[0][0] != "stuff":
            there = things[sentence["image_id"]]
            assert meaning(program, list(there.values())) == {sentence["ann_id"]}, sentence
            assert all(there[sentence["ann_id"]]["facts"][fact] for kind, fact, *_ in program if kind == "fact"), (
                "said of a thing of which only a reader might say it"
            )
        checked.update(" ".join(step[:2]) if step[0] != "fact" else "fact" for step in program)
    return checked


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=lambda flavour: flavour.name)
def test_every_program_finds_its_referent_alone(made, flavour):
    checked = check_meanings(made / flavour.name, flavour.split_by[0])
    assert checked["fact"] > 300 and checked["superlative big"] > 5 and checked["relation near"] > 5
    if flavour.style.places:
        assert min(checked[f"location {word}"] for word in ("left", "front", "bottom", "top", "middle")) > 3


def check_places(folder, split_by):
    """Words of place stand where a person would say so; the number of each."""
    things = {image: by_number(rows) for image, rows in things_of(folder).groupby("image_id")}
    checked = Counter()
    for sentence in sentences_of(folder, split_by):
        there, words = things[sentence["image_id"]], sentence["sent"].split()
        referent = there.get(sentence["ann_id"])  # None for a region of background
        for number, (kind, word, *_) in enumerate(sentence["program"]):
            if kind != "location":
                continue
            checked[word] += 1
            x, y = referent["x"], referent["low"]
            if word == "top":
                among = meaning(sentence["program"][:number], list(there.values())) - {referent["id"]}
                assert y < 0.5 or all(box_of(referent)[3] < there[one]["low"] for one in among)
            if word == "middle":
                assert 1 / 3 < x < 2 / 3
            if word in ("far left", "far right"):
                assert (x if word == "far left" else 1 - x) < 0.2
            if word in ("left half", "right half"):
                assert (x if word == "left half" else 1 - x) < 0.5
            if word in ("front", "back"):
                assert not referent["airborne"]
        assert "far" not in words or {"far left", "far right", "back"} & {step[1] for step in sentence["program"]}
    return checked


def test_words_of_place_stand_where_a_person_would_say_them(made):
    checked = check_places(made / "refscenes", "unc")
    assert min(checked[word] for word in ("top", "middle", "far left", "far right", "left half", "front")) > 5


def test_clothes_alone_do_nothing(made):
    """Clothes stand for their wearer in terse expressions only, and without verbs, sizes or neighbours."""
    alone = Counter()
    for flavour in FLAVOURS.values():
        for sentence in sentences_of(made / flavour.name, flavour.split_by[0]):
            (kind, first, *_), *rest = sentence["program"]
            if kind == "fact" and not first.startswith("noun:"):
                assert not flavour.style.sentences and {step[0] for step in rest} <= {"location"}
                alone[flavour.name] += 1
    assert set(alone) == {flavour.name for flavour in FLAVOURS.values() if not flavour.style.sentences}


@pytest.mark.slow
@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=lambda flavour: flavour.name)
def test_a_thousand_scenes_are_like_photographs_and_speech(tmp_path, flavour):
    folder = make_refscenes(tmp_path, flavour.name, {"train": 1000}, progress=False)
    split_by = flavour.split_by[0]
    figures = census(folder, split_by)
    table = load_refer(tmp_path, flavour.name, split_by).drop_duplicates("ref_id")
    sizes = box_shares(table)
    real = real_figures("box over picture, quantile")[flavour.target.benchmark]
    for at in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert 1 / 1.5 < np.quantile(sizes, at) / real[at] < 1.5, at
    assert (figures["things per picture, fewest"], figures["things per picture, most"]) == (2, 8)
    assert figures["pictures with several things of a kind, %"] > 80
    assert 10 < figures["referents cut by the border, %"] < 45 and 20 < figures["referents partly hidden, %"] < 45
    assert figures["different words that are not rare"] >= 250
    assert figures["words of the longest expression"] == MOST_WORDS
    assert abs(figures["nearer things stand lower, correlation"]) < 0.7
    checked = check_meanings(folder, split_by)
    check_places(folder, split_by)
    assert checked["superlative big"] > 50
    apart = told_apart(folder, split_by).groupby("word").mean()
    assert apart.loc["big", "near"] < 0.9
    if flavour.style.places:
        assert min(checked[f"location {word}"] for word in ("front", "bottom")) > 50
        assert max(apart.loc["front", "low"], apart.loc["front", "area"], apart.loc["bottom", "near"]) < 0.9


LISTS = {  # benchmark -> folder of the sample, data set and partition
    "RefCOCO": ("refcoco_csv", "refcoco", "unc"),
    "RefCOCO+": ("refcoco_csv", "refcoco+", "unc"),
    "RefCOCOg": ("refcoco_csv", "refcocog", "umd"),
    "ReferIt": ("referit", "refclef", "berkeley"),
}


@pytest.mark.parametrize("benchmark", LISTS)
def test_figures_of_the_real_splits_are_those_of_the_sample(real_sample, benchmark):
    folder, dataset, split_by = LISTS[benchmark]
    rows = load_refer(real_sample / folder, dataset, split_by).query("split == 'val'")
    lengths = rows["words"].clip(upper=LONGEST).value_counts(normalize=True)
    expected = {
        "box over picture, quantile": np.quantile(box_shares(rows), np.arange(0, 41) / 40),
        "expressions by words": lengths.reindex(range(1, LONGEST + 1), fill_value=0.0),
        "pictures by referents": referents_per_picture(rows),
        **{measure: [share] for measure, share in speech(rows["expression"]).items()},
    }
    for measure, values in expected.items():
        found = real_figures(measure)[benchmark]
        assert found.to_numpy() == pytest.approx(np.array(values), rel=5e-5, abs=1e-5), measure  # as rounded there
    assert set(pd.read_csv(REAL_VAL)["measure"]) == set(expected)
    assert "source" in REAL_VAL.read_text().splitlines()[0]


def refer_mask(annotation, image):
    """What REFER's own class makes of an annotation (github.com/lichengunc/refer, refer.py, getMask), step for step."""
    if type(annotation["segmentation"][0]) == list:  # noqa: E721, as it stands there
        rle = coco_mask.frPyObjects(annotation["segmentation"], image["height"], image["width"])
    else:
        rle = annotation["segmentation"]
    return np.sum(coco_mask.decode(rle), axis=2).astype(np.uint8)


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=lambda flavour: flavour.name)
def test_the_fields_own_readers_find_every_mask(made, tmp_path, flavour):
    """REFER's class at its own paths, and pycocotools' annToMask: equal masks of 0 and 1, as large as annotated."""
    folder = lay_out(made, flavour.name, tmp_path)
    name = {"refscenes": "refcoco", "refscenes+": "refcoco+", "refscenesg": "refcocog"}.get(flavour.name, "refclef")
    assert folder == tmp_path / name and lay_out(made, flavour.name, tmp_path) == folder
    images = tmp_path / ("images/saiapr_tc-12" if name == "refclef" else "images/mscoco/images/train2014")
    coco = COCO(str(tmp_path / name / "instances.json"))
    refs = pickle.loads((tmp_path / name / f"refs({flavour.split_by[0]}).p").read_bytes())
    for ref in refs[:150]:
        annotation, image = coco.anns[ref["ann_id"]], coco.imgs[ref["image_id"]]
        assert (images / image["file_name"]).is_file()
        mask = refer_mask(annotation, image)
        assert mask.max() == 1 and mask.sum() == annotation["area"]
        assert (coco.annToMask(annotation) == mask).all()
        assert (decode_mask(annotation["segmentation"], image["height"], image["width"]) == mask).all()
        assert ref["sent_ids"] == [sent["sent_id"] for sent in ref["sentences"]]


def test_data_are_not_linked_over_others(made, tmp_path):
    (tmp_path / "refcoco").mkdir()
    with pytest.raises(StudyError, match="refcoco: cannot be linked to .*give another --to"):
        lay_out(made, "refscenes", tmp_path)


def masks_with_holes():
    rng = np.random.default_rng(0)
    for number in range(400):
        mask = rng.random(rng.integers(1, 24, 2)) < rng.random()
        yield ndimage.median_filter(mask, 3) if number % 2 else mask
    for seed in range(8):
        scene = make_scene(Random(seed), 64)
        yield from (scene.numbers == number for number in np.unique(scene.numbers) if number)


def test_polygons_decode_to_their_mask_and_no_pixel_is_in_two():
    parts = 0
    for mask in masks_with_holes():
        polygons = mask_polygons(mask)
        if not mask.any():
            assert polygons == []
            continue
        decoded = coco_mask.decode(coco_mask.frPyObjects(polygons, *mask.shape))
        assert (decoded.sum(axis=2) == mask).all()
        assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in polygons)
        parts += len(polygons)
    assert parts > 2000
    ring = np.pad(np.zeros((1, 1), bool), 1, constant_values=True)
    assert mask_polygons(ring) == [[0, 0, 1, 0, 1, 3, 0, 3], [1, 0, 3, 0, 3, 3, 1, 3, 1, 2, 2, 2, 2, 1, 1, 1]]


def pairs(scenes, side):
    """Every two visible things of so many scenes, in both orders, with their scene."""
    for seed in range(scenes):
        scene = make_scene(Random(seed), side)
        seen = [k for k, area in enumerate(scene.areas) if area > 0]
        yield from ((scene, *pair) for pair in itertools.permutations(seen, 2))


def test_relations_exclude_all_that_could_be_meant():
    checked = Counter()
    for scene, first, anchor in pairs(12, 64):
        for relation, true_of in relations_of(scene, first, anchor):
            assert first in true_of and anchor not in true_of, relation
            checked[relation] += 1
    assert len(checked) == 10


def test_things_that_touch_do_so_in_the_pixels():
    """By the distance of every pixel of the one to the other: at most two rows lie between them."""
    found = Counter()
    for scene, one, other in pairs(40, 128):
        away = ndimage.distance_transform_cdt(scene.numbers != other + 1, "chessboard")
        near = bool(away[scene.numbers == one + 1].min() <= 2)
        found[near] += 1
        assert near == scene.touch(one, other) == scene.touch(other, one)
        assert near or "touching" not in {relation for relation, _ in relations_of(scene, one, other)}
    assert min(found.values()) > 100


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=lambda flavour: flavour.name)
def test_comparisons_without_a_superlative_are_of_two(made, flavour):
    """Among three dogs, a reader of "big dog" or "dog in front" would ask which."""
    folder, compared = made / flavour.name, Counter()
    things = {image: by_number(rows) for image, rows in things_of(folder).groupby("image_id")}
    plain = set("big bigger large larger huge little tiny small smaller tall taller short shorter distance".split())
    for sentence in sentences_of(folder, flavour.split_by[0]):
        program, there = sentence["program"], things[sentence["image_id"]]
        compares = [k for k, step in enumerate(program) if step[0] == "superlative" or step[1] in ("front", "back")]
        if compares and program[-1][0] != "relation":  # of the thing itself, not of another that it stands next to
            among = len(meaning(program[: compares[0]], list(there.values())))
            compared[among == 2] += 1
            assert among == 2 or not plain & set(sentence["sent"].split()), sentence["sent"]
    assert min(compared.values()) > 3


def test_what_a_thing_is_said_to_stand_on_lies_around_its_foot():
    """Checked in the pixels: below the middle of the thing's lower end is the region named, or another thing."""
    checked = Counter()
    for seed in range(120):
        scene = make_scene(Random(seed), 64)
        facts = Speaker(scene, Random(0), FLAVOURS["refscenes"].style).facts
        for k, thing in enumerate(scene.things):
            rows, columns = np.nonzero(scene.numbers == k + 1)
            named = [fact.partition(":")[2] for fact in facts[k] if fact.startswith("ground:")]
            if named and len(rows) > 40 and thing.y < 0.98 and scene.shown[k] > 0.9:
                middle, foot = int(np.median(columns)), rows.max()
                below = scene.numbers[foot + 1 : foot + 3, max(0, middle - 3) : middle + 4]
                under = {scene.stuff[number - 200].name for number in below[below >= 200].tolist()}
                assert under <= set(named), (seed, thing.category.name, named, under)
                checked.update(under)
    assert set(checked) >= {"grass", "road", "sand", "water", "floor", "table top", "snow"}


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
        scene = make_scene(Random(seed), 64)
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


def test_what_is_said_first_is_true_of_its_thing():
    for seed in range(10):
        scene = make_scene(Random(seed), 64)
        for flavour in FLAVOURS.values():
            speaker = Speaker(scene, Random(seed), flavour.style)
            for k in range(len(scene.things)):
                if scene.areas[k] > 0:
                    assert all(k in speaker._named(k, parts).true_of for parts in range(4))


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
    assert not any(path.is_dir() for path in tmp_path.iterdir())  # nothing half made is left
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


def test_what_a_killed_making_left_is_removed(tmp_path):
    (tmp_path / ".refscenes.0123456789abcdef.tmp" / "images").mkdir(parents=True)
    folder = make_refscenes(tmp_path, "refscenes", {"val": 2}, progress=False)
    assert len(list((folder / "images").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["refscenes"]


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
