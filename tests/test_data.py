"""The REFER loader, masks, words and batches: what they read, what they refuse, what they yield."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from refstudy.base.config import DataConfig, TextEncoderConfig
from refstudy.base.errors import StudyError
from refstudy.data.batches import (
    batches_per_epoch,
    build_corpus,
    evaluation_batches,
    fingerprint,
    fit_image,
    grouped_batches,
    resize_mask,
)
from refstudy.data.forms.refer_files import read_pickle
from refstudy.data.masks import decode_mask, encode_mask
from refstudy.data.pictures import read_image
from refstudy.data.refer import load_refer, load_table
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer, tokenize
from refstudy.training.loop import load_corpora

from .conftest import tiny_data, write_refer


def small_refer(root, refs=None, annotations=None, images=None):
    """A REFER folder with two images, two referents, three expressions; parts can be replaced."""
    folder = root / "mini" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(folder / name)
    square = encode_mask(np.eye(4, 6, dtype=bool))
    images = images or [{"id": k, "file_name": f"{'ab'[k]}.png", "height": 4, "width": 6} for k in range(2)]
    shared, box = {"category_id": 1, "iscrowd": 0}, [[1, 1, 4, 1, 4, 3, 1, 3]]
    annotations = annotations or [
        shared | {"id": 10, "image_id": 0, "bbox": [0, 0, 2, 2], "area": 4, "segmentation": square},
        shared | {"id": 11, "image_id": 1, "bbox": [1, 1, 3, 2], "area": 6, "segmentation": box},
    ]
    refs = refs or [ref(1, 10, 0, ["left one", "the one"], "train"), ref(2, 11, 1, ["box"], "val")]
    write_refer(root, "mini", "unc", refs, images, annotations)
    return root


def ref(ref_id, ann_id, image_id, sentences, split="val"):
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": 1,
        "split": split,
        "file_name": "suffix_on_purpose_7.jpg",
        "sent_ids": [ref_id * 10 + k for k in range(len(sentences))],
        "sentences": [
            {"sent": s, "raw": f"{s.title()}!", "tokens": s.split(), "sent_id": ref_id * 10 + k}
            for k, s in enumerate(sentences)
        ],
    }


def test_one_row_per_expression(tmp_path):
    table = load_refer(small_refer(tmp_path), "mini", "unc")
    assert table["expression"].tolist() == ["left one", "the one", "box"]
    assert table["words"].tolist() == [2, 2, 1]
    assert table["image_path"].map(lambda p: p.rsplit("/", 1)[1]).tolist() == ["a.png", "a.png", "b.png"]
    assert table["category"].unique().tolist() == ["thing"]
    assert decode_mask(table.loc[2, "segmentation"], 4, 6).sum() == 6


def test_raw_sentences_are_read_where_the_settings_say_so(tmp_path):
    """As they were typed, "Left One!": other word pieces, other data; the rest of the table is the same."""
    root = small_refer(tmp_path)
    as_typed = DataConfig(dataset="mini", image_size=32, sentence_field="raw")
    cleaned, raw = (load_table(data, root) for data in (DataConfig(dataset="mini", image_size=32), as_typed))
    assert raw["expression"].tolist() == ["Left One!", "The One!", "Box!"]
    assert raw.drop(columns="expression").equals(cleaned.drop(columns="expression"))
    assert fingerprint(raw) != fingerprint(cleaned)
    corpora, _ = load_corpora(as_typed, TextEncoderConfig(), ("train",), root, progress=False)
    pieces, plain = (tokenize(build_tokenizer(), some["expression"].tolist()[:2])[0] for some in (raw, cleaned))
    assert np.array_equal(corpora["train"].token_ids, pieces[:, : corpora["train"].token_ids.shape[1]])
    assert (pieces != plain).any()  # BERT's uncased pieces differ by the exclamation mark


@pytest.mark.parametrize("raw", [None, "absent"])
def test_a_sentence_without_raw_text_is_named(tmp_path, raw):
    refs = [ref(1, 10, 0, ["left one"], "train"), ref(2, 11, 1, ["box"], "val")]
    refs[1]["sentences"][0]["raw"] = raw
    if raw == "absent":
        del refs[1]["sentences"][0]["raw"]
    root = small_refer(tmp_path, refs=refs)
    assert len(load_refer(root, "mini", "unc")) == 2
    with pytest.raises(
        StudyError, match=r"refs\(unc\).p: .*sentence 20: raw is (null|missing); .* set data.sentence_field to sent"
    ):
        load_refer(root, "mini", "unc", "raw")


def test_pickles_of_python_two_are_read(tmp_path):
    root = small_refer(tmp_path)
    old = b"(lp0\n(dp1\nS'ref_id'\np2\nS'caf\\xc3\\xa9'\nsa."  # UTF-8 text as Python 2 wrote it
    (root / "old.p").write_bytes(old)
    assert read_pickle(root / "old.p") == [{"ref_id": "café"}]
    (root / "mini" / "refs(unc).p").write_bytes(old)
    with pytest.raises(StudyError, match="referent café: image_id is missing"):
        load_refer(root, "mini", "unc")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_names_a_global_is_refused_and_nothing_runs(tmp_path):
    root = small_refer(tmp_path)
    (root / "mini" / "refs(unc).p").write_bytes(pickle.dumps([Trap(tmp_path / "ran")]))
    with pytest.raises(StudyError, match=r"refs\(unc\).p: refused, it names the global .*open"):
        load_refer(root, "mini", "unc")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"Pobject 7\n.", "outside the file"),  # a persistent id
        (b"\x80\x02]q\x00(K\x01K\x02u.", "refused"),  # items set on a list
        (b"\x80\x02}q\x00(]K\x02u.", "refused"),  # a list as a key
        (b"\x80\x02\x8c\x08posix", "refused"),  # cut short
    ],
)
def test_malformed_pickles_are_refused(tmp_path, content, reason):
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(StudyError, match=f"refs.p: refused, .*{reason.removeprefix('refused')}"):
        read_pickle(tmp_path / "refs.p")


def test_referit_is_read_with_its_own_names_and_folder(tmp_path):
    """refclef: annotation numbers are text, masks are lists of RLE, and its pictures lie beside those of COCO."""
    halves = [encode_mask(np.arange(24).reshape(4, 6) < 3), encode_mask(np.arange(24).reshape(4, 6) > 20)]
    annotation = {"id": "8_1", "image_id": 8, "category_id": 1, "bbox": [0, 0, 6, 4], "area": 6, "segmentation": halves}
    write_refer(
        tmp_path,
        "refclef",
        "berkeley",
        [ref(1, "8_1", 8, ["sky"])],
        [{"id": 8, "file_name": "8.jpg", "height": 4, "width": 6}],
        [annotation],
    )
    for folder in ("mscoco/images/train2014", "saiapr_tc-12"):
        (tmp_path / "images" / folder).mkdir(parents=True)
    row = load_refer(tmp_path, "refclef", "berkeley").iloc[0]
    assert row.image_path == str(tmp_path / "images" / "saiapr_tc-12" / "8.jpg")
    assert row.ann_id == "8_1" and decode_mask(row.segmentation, 4, 6).sum() == 6


def test_bad_folders_and_files_are_named(tmp_path):
    root = small_refer(tmp_path)
    with pytest.raises(StudyError, match="under .* there is mini"):
        load_refer(root, "refcoco", "unc")
    with pytest.raises(StudyError, match="split_by 'google' is not one of unc"):
        load_refer(root, "mini", "google")
    (root / "mini" / "refs(unc).p").write_bytes(b"no pickle")
    with pytest.raises(StudyError, match="refused"):
        load_refer(root, "mini", "unc")


@pytest.mark.parametrize(
    "broken, message",
    [
        ({"refs": [ref(1, 10, 7, ["x"])]}, "referent 1 has no image 7"),
        ({"refs": [ref(1, 10, 0, ["  "])]}, "sentence 10: sent is '  '; it should be text"),
        ({"refs": [ref(1, 11, 0, ["x"])]}, "referent 1 is in image 0, its annotation 11 in 1"),
        ({"images": [{"id": 0, "height": 4, "width": 6}]}, "instances.json: image 0: file_name is missing"),
        (
            {"annotations": [{"id": 10, "image_id": 0, "segmentation": []}]},
            "instances.json: annotation 10: bbox is missing",
        ),
    ],
)
def test_bad_entries_are_named(tmp_path, broken, message):
    with pytest.raises(StudyError, match=message):
        load_refer(small_refer(tmp_path, **broken), "mini", "unc")


def test_bad_images_are_named(tmp_path):
    root = small_refer(tmp_path)
    picture = root / "mini" / "images" / "a.png"
    with pytest.raises(StudyError, match="annotations say"):
        read_image(picture, 5, 6)
    picture.write_bytes(picture.read_bytes()[:40])
    with pytest.raises(StudyError, match="does not decode"):
        read_image(picture)
    picture.unlink()
    with pytest.raises(StudyError, match="image not found"):
        build_corpus(load_refer(root, "mini", "unc"), "train", 8, build_tokenizer(), progress=False)


def test_an_unknown_split_is_named(tmp_path):
    table = load_refer(small_refer(tmp_path), "mini", "unc")
    with pytest.raises(StudyError, match="unknown split 'testC'; the data have train, val"):
        build_corpus(table, "testC", 8, build_tokenizer(), progress=False)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_masks_survive_encoding(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    assert np.array_equal(decode_mask(encode_mask(mask), height, width), mask)


def test_overlapping_polygons_count_once_and_plain_rle_is_read():
    square = [[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]]
    mask = decode_mask(square, 8, 8)
    assert mask.dtype == bool and mask.sum() == 16 + 16 - 4
    column_major = {"size": [2, 3], "counts": [1, 2, 3]}
    assert decode_mask(column_major, 2, 3).T.ravel().tolist() == [False, True, True, False, False, False]


def test_lists_of_rle_are_united():
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.random((6, 8)) < 0.3, np.ones((40, 30))).astype(bool) for _ in range(3)]
    masks[2][:] = False
    assert np.array_equal(decode_mask([encode_mask(mask) for mask in masks], 240, 240), np.any(masks, axis=0))
    packed = encode_mask(masks[0])
    assert np.array_equal(decode_mask(packed | {"counts": packed["counts"].encode()}, 240, 240), masks[0])


def test_a_list_of_malformed_rle_is_named_and_does_not_hang():
    parts = [{"size": [20, 30], "counts": "8P?o"}, {"size": [20, 30], "counts": "o?P8"}]
    code = f"from refstudy.data.masks import decode_mask; decode_mask({parts}, 20, 30)"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=300)
    assert "StudyError: segmentation: does not decode" in done.stderr


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ({"size": [2, 3], "counts": "8P?o"}, "not compressed as COCO does"),
        ({"size": [2, 3], "counts": ""}, "not compressed as COCO does"),
        ({"size": [2, 3], "counts": "é"}, "not compressed as COCO does"),
        ({"size": [2, 3], "counts": "11"}, "counts sum to 2"),
        ({"size": [2, 3], "counts": "O7"}, "does not decode"),
        ({"size": [2, 3], "counts": [-1, 7]}, "does not decode"),
        ({"size": [2, 3], "counts": 6}, "does not decode"),
        ({"size": [4, 4], "counts": [16]}, "RLE is of size"),
        ({"size": [2, 3], "counts": [5]}, "counts sum to 5"),
        ({"size": [2, 3], "counts": ["a"]}, "does not decode"),
        ([{"size": [2, 3], "counts": [6]}, {"size": [4, 4], "counts": [16]}], "RLE is of size"),
        ([[1, 2, 3]], "three points"),
        ([[0, 0, 1e30, 0, 0, 1]], "far outside its image"),
        ([[0, 0, float("nan"), 0, 0, 1]], "is no number"),
        ([[0, 0, None, 0, 0, 1]], "is no number"),
        ([], "neither polygons nor RLE"),
        ("text", "neither polygons nor RLE"),
    ],
)
def test_bad_segmentations_are_named(segmentation, message):
    with pytest.raises(StudyError, match=message):
        decode_mask(segmentation, 2, 3)


def test_words_are_clipped_with_their_end_kept():
    tokenizer = build_tokenizer()
    ids, mask = tokenize(tokenizer, ["red car", "the dog left of the big red car behind the man"], 6)
    assert ids.shape == mask.shape == (2, 6)
    assert mask.sum(1).tolist() == [4, 6]
    assert ids[1, 0] == tokenizer.cls_token_id and ids[1, -1] == tokenizer.sep_token_id
    assert tokenizer.unk_token_id not in tokenize(tokenizer, ["zebra crossing 42"], 20)[0]


@pytest.fixture(scope="module")
def corpus(data_root):
    data = tiny_data()
    table = load_refer(prepare_data(data, data_root), data.dataset, data.split_by)
    return build_corpus(table, "train", 64, build_tokenizer(), progress=False)


def test_an_epoch_shows_every_referent_once_grouped_by_image(corpus):
    seen = []
    for batch in grouped_batches(corpus, 1, 3, seed=0, epoch=0):
        refs = corpus.ref_of_expression[batch.expressions]
        assert len(batch.images) == 1 and len(set(corpus.image_of_ref[refs])) == 1 and len(refs) <= 3
        seen += refs.tolist()
    assert sorted(seen) == list(range(len(corpus.image_of_ref)))


def test_batches_depend_on_seed_and_epoch_alone(corpus):
    def order(**options):
        return np.concatenate([b.expressions for b in grouped_batches(corpus, 4, 3, **options)])

    first = order(seed=0, epoch=0)
    assert np.array_equal(first, order(seed=0, epoch=0))
    assert not np.array_equal(first, order(seed=0, epoch=1))
    assert not np.array_equal(first, order(seed=1, epoch=0))
    whole = [b.expressions for b in grouped_batches(corpus, 4, 3, 0, 0)]
    rest = [b.expressions for b in grouped_batches(corpus, 4, 3, 0, 0, start=2)]
    assert len(whole) == batches_per_epoch(corpus, 4, 3) and len(rest) == len(whole) - 2
    assert all(np.array_equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_sentences_are_drawn_and_pictures_shuffled_anew_in_every_epoch(corpus):
    """S²RM, Sec. IV-B: one of its sentences at random, each as likely; pictures never in turn."""
    seen, orders = np.zeros(len(corpus.ref_of_expression), int), []
    for epoch in range(60):
        shown = [batch.expressions for batch in grouped_batches(corpus, 1, 3, 0, epoch)]
        np.add.at(seen, np.concatenate(shown), 1)
        orders.append(corpus.image_of_ref[corpus.ref_of_expression[[first[0] for first in shown]]].tolist())
    sentences = np.bincount(corpus.ref_of_expression)[corpus.ref_of_expression]
    assert (seen[sentences == 1] == 60).all() and (sentences > 1).sum() > 20
    spread = np.sqrt(60 * (1 - 1 / sentences) / sentences)  # of a binomial count
    assert (np.abs(seen - 60 / sentences) <= 5 * spread).all()
    assert all(order != sorted(order) for order in orders) and len({tuple(order) for order in orders}) == 60


def test_a_crowded_picture_is_cut_elsewhere_in_every_epoch(corpus):
    """Of three or more referents, two to a batch, all meet each other sooner or later."""
    referents = np.bincount(corpus.image_of_ref)
    crowded = int(referents.argmax())
    met = set()
    for epoch in range(60):
        for batch in grouped_batches(corpus, 1, 2, 0, epoch):
            company = corpus.ref_of_expression[batch.expressions]
            if len(company) == 2 and corpus.image_of_ref[company[0]] == crowded:
                met.add(frozenset(company.tolist()))
    assert referents.max() > 2 and len(met) == referents.max() * (referents.max() - 1) // 2


def test_every_expression_is_evaluated_once(corpus):
    rows = np.concatenate([b.expressions for b in evaluation_batches(corpus, 5)])
    assert sorted(rows) == list(range(len(corpus.table)))


def test_a_batch_belongs_together(corpus):
    batch = next(grouped_batches(corpus, 4, 3, 0, 0))
    for k, expression in enumerate(batch.expressions):
        row = corpus.table.iloc[expression]
        assert np.array_equal(batch.masks[k].numpy() > 0, decode_mask(row.segmentation, 64, 64))
        pixels = batch.images[batch.image_index[k]].numpy() * np.array([0.229, 0.224, 0.225])[:, None, None]
        pixels = (pixels + np.array([0.485, 0.456, 0.406])[:, None, None]) * 255
        assert np.abs(pixels - read_image(row.image_path).transpose(2, 0, 1)).max() < 0.01


def test_the_cache_gives_the_same_corpus(corpus, data_root, tmp_path):
    data = tiny_data()
    table = load_refer(prepare_data(data, data_root), data.dataset, data.split_by)
    for _ in range(2):
        cached = build_corpus(table, "train", 64, build_tokenizer(), cache=tmp_path, progress=False)
        assert np.array_equal(cached.images, corpus.images) and np.array_equal(cached.masks, corpus.masks)
    kept = list(tmp_path.glob("*.npy"))
    assert len(kept) == 2
    for path, left in zip(kept, (200, 0), strict=True):
        short = path.read_bytes()[:left]
        path.unlink()
        path.write_bytes(short)
    again = build_corpus(table, "train", 64, build_tokenizer(), cache=tmp_path, progress=False)
    assert np.array_equal(again.images, corpus.images) and np.array_equal(again.masks, corpus.masks)


def test_a_folder_that_cannot_be_written_to_is_read(corpus, data_root, tmp_path, monkeypatch):
    """Decoded pictures are kept in the user's own cache then, unless they lie beside the data already."""
    monkeypatch.setattr("refstudy.data.batches.os.access", lambda path, mode: not Path(path).is_relative_to(data_root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = sorted(data_root.rglob("*"))
    table = load_table(tiny_data(), prepare_data(tiny_data(), data_root))
    made = build_corpus(table, "train", 64, build_tokenizer(), cache=data_root / "new" / "cache", progress=False)
    assert np.array_equal(made.images, corpus.images) and np.array_equal(made.masks, corpus.masks)
    assert len(list((tmp_path / "refstudy").iterdir())) == 2 and sorted(data_root.rglob("*")) == before
    shutil.move(tmp_path / "refstudy", data_root / "ready")
    again = build_corpus(table, "train", 64, build_tokenizer(), cache=data_root / "ready", progress=False)
    assert np.array_equal(again.images, corpus.images) and not (tmp_path / "refstudy").exists()
    shutil.rmtree(data_root / "ready")


def test_the_cache_notices_changed_pictures_and_sizes(tmp_path):
    root = small_refer(tmp_path)

    def picture_and_mask():
        corpus = build_corpus(load_refer(root, "mini", "unc"), "train", 8, build_tokenizer(), cache=root / "cache")
        return corpus.images[0, 0, 0, 0], corpus.mask(np.array([0])).sum()

    before = picture_and_mask()
    Image.fromarray(np.full((4, 6, 3), 30, np.uint8)).save(root / "mini" / "images" / "a.png")
    assert before[0] == 90 and picture_and_mask() == (30, before[1])


def test_kinds_and_referents_leave_out_expressions_and_then_pictures(data_root):
    config = tiny_data()
    root = prepare_data(config, data_root, progress=False)
    every, kinds = load_table(config, root), ("location", "relation")
    some = load_table(config.model_copy(update={"kinds": kinds}), root)
    assert some["sent_id"].tolist() == every.loc[every["kind"].isin(kinds), "sent_id"].tolist()
    assert 0 < len(some) < len(every) and some.index.tolist() == list(range(len(some)))
    referents = some.groupby("image_id")["ref_id"].nunique()
    crowded = load_table(config.model_copy(update={"kinds": kinds, "referents": 2}), root)
    assert set(crowded["image_id"]) == set(referents.index[referents >= 2]) != set(referents.index)


def test_a_subset_is_the_beginning(corpus):
    part = corpus.subset(5)
    assert len(part.images) == 5
    assert part.table["sent_id"].tolist() == corpus.table["sent_id"].tolist()[: len(part.table)]
    whole = corpus.mask(corpus.ref_of_expression[: len(part.table)])
    assert np.array_equal(part.mask(part.ref_of_expression), whole)


def test_pictures_are_resized_bilinearly():
    black_and_white = np.zeros((2, 2, 3), np.uint8)
    black_and_white[:, 1] = 255
    row = fit_image(black_and_white, 8, keep_aspect=False)[0, :, 0].astype(int)
    assert np.abs(row - 255 * np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)).max() <= 1


def test_masks_are_resized_by_nearest_neighbour():
    mask = np.array([[True, False], [False, True]])
    assert resize_mask(mask, 4, 4).sum() == 8


def test_the_fingerprint_notices_text_and_pixels(tmp_path):
    root = small_refer(tmp_path)
    before = fingerprint(load_refer(root, "mini", "unc"))
    assert before == fingerprint(load_refer(root, "mini", "unc"))
    Image.fromarray(np.full((4, 6, 3), 91, np.uint8)).save(root / "mini" / "images" / "a.png")
    after = fingerprint(load_refer(root, "mini", "unc"))
    assert before != after
    small_refer(tmp_path, refs=[ref(1, 10, 0, ["left one", "this one"], "train"), ref(2, 11, 1, ["box"], "val")])
    assert fingerprint(load_refer(root, "mini", "unc")) not in (before, after)
    (root / "mini" / "images" / "a.png").unlink()
    with pytest.raises(StudyError, match="image not found"):
        fingerprint(load_refer(root, "mini", "unc"))


def test_scenes_of_another_version_are_refused(tmp_path):
    old = tiny_data().model_copy(update={"scenes_version": "0"})
    with pytest.raises(StudyError, match="scenes_version '0' of refscenes cannot be made"):
        prepare_data(old, tmp_path)
    assert not list(tmp_path.iterdir())
