"""The real samples, where they lie beside the repository: COCO's masks, BERT's words, ReferIt's lists of images."""

import json
from collections import Counter

import numpy as np

from refstudy.data.masks import decode_mask, mask_box
from refstudy.data.pictures import read_image
from refstudy.data.words import build_tokenizer, strange_words, tokenize

from .test_data_forms import real_table


def test_coco_annotations_decode_to_their_boxes_areas_and_pictures(real_sample):
    folder = real_sample / "coco_small"
    coco = json.loads((folder / "annotations" / "instances_train2017_128.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    assert len(images) == 128 and len(coco["annotations"]) == 900 and len(coco["categories"]) == 80
    forms = Counter(type(one["segmentation"]).__name__ for one in coco["annotations"])
    assert forms == {"list": 887, "dict": 13}
    within = []
    for one in coco["annotations"]:
        image = images[one["image_id"]]
        mask = decode_mask(one["segmentation"], image["height"], image["width"])
        if one["iscrowd"]:
            assert mask.sum() == sum(one["segmentation"]["counts"][1::2]) <= one["area"]  # less what is annotated alone
        else:  # a polygon's area is that of its lines, not of the pixels it covers
            x, y, width, height = one["bbox"]
            assert abs(mask.sum() - one["area"]) <= 2 * (width + height) + 4
            left, top, wide, high = mask_box(mask)
            within.append((left - x, top - y, x + width - left - wide, y + height - top - high))
    assert np.min(within) >= -1 and np.mean(np.abs(within)) < 0.5  # the tip of a polygon may cover no pixel
    for image in list(images.values())[:8]:
        (path,) = folder.glob(f"images/*{image['file_name']}")
        assert read_image(path, image["height"], image["width"]).dtype == np.uint8


def pieces_of(word, vocabulary):
    """WordPiece by its definition: the longest piece that is known, again and again."""
    pieces, start = [], 0
    while start < len(word):
        ends = (end for end in range(len(word), start, -1) if ("##" if start else "") + word[start:end] in vocabulary)
        end = next(ends, None)
        if end is None:
            return ["[UNK]"]
        pieces.append(("##" if start else "") + word[start:end])
        start = end
    return pieces


def test_real_expressions_in_berts_words(real_sample):
    path = real_sample / "bert" / "vocab.txt"
    vocabulary = path.read_text(encoding="utf-8").split("\n")[:30522]
    tokenizer = build_tokenizer(path)
    assert len(tokenizer) == 30522 and tokenizer.convert_ids_to_tokens([101, 102]) == ["[CLS]", "[SEP]"]
    table = real_table(real_sample / "refcoco_csv", "refcocog", "umd")
    plain = [text for text in table["expression"] if text.replace(" ", "").isalpha() and text.isascii()][:400]
    known, clipped = set(vocabulary), 0
    ids, mask = tokenize(tokenizer, plain, 20)
    for text, row, kept in zip(plain, ids, mask, strict=True):
        pieces = [piece for word in text.lower().split() for piece in pieces_of(word, known)]
        clipped += len(pieces) > 18
        assert tokenizer.convert_ids_to_tokens(row[kept]) == ["[CLS]", *pieces[:18], "[SEP]"]
    assert len(plain) == 400 and clipped > 0
    assert strange_words(tokenizer, "a fence") == [] and strange_words(build_tokenizer(), "a fence") == ["fence"]


def test_referit_queries_are_about_the_images_of_their_lists(real_sample):
    table = real_table(real_sample / "referit", "refclef", "berkeley")
    for split in ("train", "val"):
        listed = set(map(int, (real_sample / "referit" / f"referit_{split}_imlist.txt").read_text().split()))
        assert set(table.loc[table["split"] == split, "image_id"]) <= listed
    assert not set(table.query("split == 'train'")["image_id"]) & set(table.query("split == 'val'")["image_id"])
