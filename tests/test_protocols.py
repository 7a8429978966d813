"""The switches of docs/protocols.md: each does what it says, and its default leaves every key as it was."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from refstudy.analysis.data_names import data_name
from refstudy.base.config import DataConfig, EvaluationConfig, RunConfig, TrainConfig
from refstudy.data.batches import IMAGE_MEAN, batches_per_epoch, build_corpus, grouped_batches, normalise
from refstudy.data.masks import decode_mask, encode_mask
from refstudy.data.refer import load_refer
from refstudy.data.words import build_tokenizer
from refstudy.models.build import build_model, load_model, save_weights
from refstudy.models.segmenter import ImageFeatures, Segmenter
from refstudy.prediction.predict import segment_photo
from refstudy.study.load import load_study
from refstudy.training.evaluation import evaluate
from refstudy.training.loop import load_corpora, train
from refstudy.training.records import read_record, record_name

from .conftest import assert_same_but_for_rounding, tiny_model, tiny_run, write_refer
from .helpers import ROOT, copy_notebooks

pytestmark = pytest.mark.numeric

SIDE = 32
WIDE, HIGH = (40, 80), (96, 48)  # (height, width) of two pictures that are no squares


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two pictures whose left half is red and is the referent; the first has three sentences, the second one."""
    root = tmp_path_factory.mktemp("halves")
    (root / "halves" / "images").mkdir(parents=True)
    images, annotations, refs = [], [], []
    for k, (height, width) in enumerate((WIDE, HIGH)):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[:, : width // 2, 0] = 255
        Image.fromarray(pixels).save(root / "halves" / "images" / f"{k}.png")
        images.append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
        annotation = {"id": k, "image_id": k, "category_id": 1, "bbox": [0, 0, width / 2, height], "area": 1.0}
        annotations.append(annotation | {"segmentation": encode_mask(pixels[..., 0] > 0)})
        sentences = [{"sent": "left red", "sent_id": 10 * k + s} for s in range(1 if k else 3)]
        refs.append({"ref_id": k, "ann_id": k, "image_id": k, "category_id": 1, "split": "val", "sentences": sentences})
    write_refer(root, "halves", "unc", refs, images, annotations)
    return load_refer(root, "halves", "unc")


class Red(Segmenter):
    """Marks what is red, with the probability ``sure``."""

    def __init__(self, sure=0.9):
        super().__init__()
        self.logit = torch.nn.Parameter(torch.logit(torch.tensor(sure)))

    def encode_image(self, images):
        return ImageFeatures((images[:, 0] > 1,), (SIDE, SIDE))

    def segment(self, features, token_ids, token_mask, image_index=None):
        return torch.where(features.maps[0], self.logit, -self.logit.abs())[image_index]


def corpus_of(table, **options):
    return build_corpus(table, "val", SIDE, build_tokenizer(), progress=False, **options)


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_counts_at_the_original_size_are_those_of_the_annotated_masks(table, keep_aspect):
    counts = evaluate(Red(), corpus_of(table, keep_aspect=keep_aspect), resolution="original")
    halves = [WIDE[0] * WIDE[1] // 2] * 3 + [HIGH[0] * HIGH[1] // 2]
    assert counts["intersection"].tolist() == counts["union"].tolist() == halves
    assert set(counts["resolution"]) == {"original"}


def test_counts_at_the_resized_size_weigh_every_picture_alike_and_name_no_resolution(table):
    counts = evaluate(Red(), corpus_of(table))
    assert counts["intersection"].tolist() == [SIDE * SIDE // 2] * 4
    assert "resolution" not in counts


@pytest.mark.parametrize("resolution", ["resized", "original"])
def test_counts_stand_beside_their_expression_in_whatever_order_the_table_lists_them(table, resolution):
    """The expression about the high picture comes second, and is the only one whose mask misses."""
    mixed = table.iloc[[1, 3, 0, 2]].reset_index(drop=True)
    right = np.zeros(HIGH, bool)
    right[:, HIGH[1] // 4 :] = True  # three of four quarters, of which one is red: a quarter is shared, all is marked
    mixed.at[1, "segmentation"] = encode_mask(right)
    counts = evaluate(Red(), corpus_of(mixed), images_per_batch=1, resolution=resolution)
    assert counts["sent_id"].tolist() == mixed["sent_id"].tolist()
    share = (counts["intersection"] / counts["union"]).round(3)
    assert share.tolist() == [1, 0.25, 1, 1]


@pytest.mark.parametrize("resolution", ["resized", "original"])
def test_a_pixel_is_marked_above_the_threshold(table, resolution):
    corpus = corpus_of(table)
    for sure, threshold, marked in ((0.45, 0.5, False), (0.45, 0.35, True), (0.6, 0.65, False), (0.6, 0.5, True)):
        counts = evaluate(Red(sure), corpus, resolution=resolution, threshold=threshold)
        assert (counts["intersection"] > 0).all() == marked


def test_a_kept_aspect_pads_with_the_mean_colour(table):
    corpus = corpus_of(table, keep_aspect=True)
    mean = np.round(255 * np.array(IMAGE_MEAN)).astype(int)
    wide, high = corpus.images
    assert (wide[:, :8] == mean[:, None, None]).all() and (wide[:, 24:] == mean[:, None, None]).all()
    assert wide[0, 8:24, :15].min() == 255 and wide[0, 8:24, 17:].max() == 0
    assert (high[:, :, :8] == mean[:, None, None]).all() and (high[:, :, 24:] == mean[:, None, None]).all()
    masks = corpus.mask(np.arange(2))
    assert masks[0].sum() == 16 * 16 and masks[0, 8:24, :16].all()
    assert masks[1].sum() == 32 * 8 and masks[1, :, 8:16].all()


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("saved", ["file", "folder"])
def test_a_saved_model_sees_photos_as_in_training_and_places_their_masks(
    table, tmp_path, monkeypatch, keep_aspect, saved
):
    model = build_model(tiny_model(image_size=SIDE).model_copy(update={"keep_aspect": keep_aspect}))
    path = tmp_path / "model"
    save_weights(model, path) if saved == "file" else model.save_pretrained(path)
    model, seen, red = load_model(path), [], Red()
    monkeypatch.setattr(model, "encode_image", lambda images: seen.append(images) or red.encode_image(images))
    monkeypatch.setattr(model, "segment", red.segment)
    corpus = corpus_of(table, keep_aspect=keep_aspect)
    for number, row in enumerate(table.drop_duplicates("image_id").itertuples()):
        (answer,) = segment_photo(model, row.image_path, [row.expression])
        assert torch.equal(seen.pop(), normalise(torch.from_numpy(corpus.images[[number]])))
        assert (answer.mask == decode_mask(row.segmentation, row.height, row.width)).all()


@pytest.mark.parametrize(("key", "value"), [("keep_aspect", True), ("max_words", 22)])
def test_the_model_prepares_what_it_sees_as_its_data_were(tmp_path, key, value):
    text = (ROOT / "papermill_runs.yaml").read_text()
    changed = f"image_size: 512, {key}: {json.dumps(value)}}}"
    (tmp_path / "study.yaml").write_text(text.replace("image_size: 512}", changed))
    copy_notebooks(tmp_path)
    config = load_study(tmp_path / "study.yaml").run_config("refcoco", "s2rm_casg", 0)
    assert getattr(config.data, key) == getattr(config.model, key) == value
    other = config.model_dump() | {"model": {"image_size": 512}}
    with pytest.raises(ValidationError, match=f"{key} and data.{key} differ"):
        RunConfig.model_validate(other)


def test_one_model_may_read_raw_sentences(tmp_path):
    text = (ROOT / "papermill_runs.yaml").read_text()
    special = re.compile(r"(?s)(  refcoco: .*?\n      lavt: \{)(data: \{)")
    changed, places = special.subn(r"\1data: {sentence_field: raw, ", text, count=1)
    assert places == 1
    (tmp_path / "study.yaml").write_text(changed)
    copy_notebooks(tmp_path)
    study = load_study(tmp_path / "study.yaml")
    fields = {name: study.run_config("refcoco", name, 0).data.sentence_field for name in ("lavt", "slvit", "s2rm_casg")}
    assert fields == {"lavt": "raw", "slvit": "sent", "s2rm_casg": "sent"}


def test_kept_and_stretched_pictures_share_no_cache(table, tmp_path):
    stretched = corpus_of(table, cache=tmp_path)
    kept = corpus_of(table, cache=tmp_path, keep_aspect=True)
    assert not np.array_equal(stretched.images, kept.images)
    assert np.array_equal(kept.images, corpus_of(table, cache=tmp_path, keep_aspect=True).images)


def test_an_epoch_shows_every_referent_or_every_sentence_once(table):
    corpus = corpus_of(table)
    for sampling, most, expected in (("referent", 3, [1, 1]), ("sentence", 3, [3, 1]), ("sentence", 1, [3, 1])):
        batches = list(grouped_batches(corpus, 1, most, seed=0, epoch=0, sampling=sampling))
        shown = np.concatenate([batch.expressions for batch in batches])
        assert len(set(shown)) == len(shown)
        assert np.bincount(corpus.ref_of_expression[shown]).tolist() == expected
        assert len(batches) == batches_per_epoch(corpus, 1, most, sampling)


def test_the_best_epoch_is_chosen_on_the_split_that_is_named_and_the_record_counts_as_told(data_root, tmp_path):
    config = tiny_run(selection_split="train", epochs=1).model_copy(
        update={"evaluation": EvaluationConfig(resolution="original", threshold=0.4)}
    )
    record = read_record(train(config, tmp_path, tmp_path / "work", data_root, progress=False))
    model = load_model(tmp_path / "work" / record_name(config) / "weights.safetensors")
    corpora, _ = load_corpora(config.data, config.model.text, ("train", "val"), data_root, progress=False)
    how = {"resolution": "original", "threshold": 0.4}
    chosen = evaluate(model, corpora["train"], **how)
    fewest, most = assert_same_but_for_rounding(chosen, model, corpora["train"], **how)
    low, high = (
        100 * one["intersection"].sum() / other["union"].sum() for one, other in ((fewest, most), (most, fewest))
    )
    assert low <= record.summary["val_oIoU_of_best"] <= high < low + 1
    assert_same_but_for_rounding(record.counts(), model, corpora["val"], **how)
    assert record.config.evaluation.resolution == "original"


def test_every_switch_changes_the_key():
    config = tiny_run()
    others = (
        config.model_copy(update={"evaluation": EvaluationConfig(threshold=0.35)}),
        config.model_copy(update={"evaluation": EvaluationConfig(resolution="original")}),
        config.model_copy(update={"data": config.data.model_copy(update={"keep_aspect": True})}),
        config.model_copy(update={"data": config.data.model_copy(update={"sentence_field": "raw"})}),
        config.model_copy(update={"train": config.train.model_copy(update={"sampling": "sentence"})}),
        config.model_copy(update={"train": config.train.model_copy(update={"selection_split": "train"})}),
    )
    assert len({config.key(), *(other.key() for other in others)}) == 1 + len(others)


def test_a_new_setting_leaves_earlier_keys_alone():
    class Grown(TrainConfig):
        newcomer: int = 3

    class Later(RunConfig):
        train: Grown

    config = tiny_run()
    later = Later.model_validate(config.model_dump())
    assert later.key() == config.key()
    assert later.model_copy(update={"train": later.train.model_copy(update={"newcomer": 4})}).key() != config.key()


@pytest.mark.parametrize(
    ("settings", "bad"),
    [
        (EvaluationConfig, {"threshold": 1.0}),
        (EvaluationConfig, {"resolution": "full"}),
        (TrainConfig, {"sampling": "x"}),
        (TrainConfig, {"precision": "float16"}),
        (DataConfig, {"sentence_field": "tokens"}),
    ],
)
def test_a_switch_takes_only_what_it_knows(settings, bad):
    with pytest.raises(ValidationError):
        settings(**bad)


def test_a_number_counted_in_another_way_says_so():
    data = DataConfig(scenes_version="1")
    assert data_name(data, "val") == data_name(data, "val", EvaluationConfig()) == "RefScenes val, 128 px"
    other = EvaluationConfig(resolution="original", threshold=0.35)
    assert data_name(data, "val", other) == "RefScenes val, 128 px, counted at the original size, threshold 0.35"
    raw = data.model_copy(update={"sentence_field": "raw"})
    assert data_name(raw, "val") == "RefScenes val, 128 px, raw sentences"
    parted = data.model_copy(update={"dataset": "refscenesg", "split_by": "google"})
    assert data_name(parted, "val") == "RefScenesG (google) val, 128 px"
