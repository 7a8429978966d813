"""The card beside the shipped weights: made from the records, and renewed when weights are shipped."""

import re
import shutil
import textwrap
from operator import and_, or_
from pathlib import Path
from unittest.mock import Mock

import pytest

from refstudy.analysis.measures import jackknifed_metrics, over_pictures
from refstudy.base.errors import StudyError
from refstudy.base.files import file_digest
from refstudy.data.batches import build_corpus
from refstudy.data.masks import decode_mask
from refstudy.data.refer import load_refer
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.engine.model_card import model_card, ship
from refstudy.engine.trainings import train_run
from refstudy.models.build import load_model
from refstudy.models.saved import SHIPPED_WEIGHTS, shipped_weights
from refstudy.study.load import load_study
from refstudy.training.evaluation import sample_masks
from refstudy.training.loop import SHOWN_IMAGES
from refstudy.training.records import find_record, find_records, read_record

from .conftest import SCENES

WORDS = len(build_tokenizer())

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def study():
    return load_study(ROOT / "papermill_runs.yaml")


def test_the_committed_card_is_what_the_records_say(study):
    """After a change of records or weights: ``refstudy card``."""
    assert (study.results("scenes") / "weights" / "README.md").read_text(encoding="utf-8") == model_card(
        study.under("scenes")
    )


def test_photos_are_answered_by_the_first_that_ships(study):
    assert (
        study.under("scenes").weights(next(iter(study.profile("scenes").ships))) == SHIPPED_WEIGHTS == shipped_weights()
    )


def test_its_numbers_are_those_of_the_tables_and_records(study):
    card = model_card(study.under("scenes"))
    profile = study.profile("scenes")
    shipped = [
        record
        for record in find_records(study.results("scenes") / "records")
        if profile.ships.get(record.config.variant) == record.config.seed
    ]
    assert {record.config.variant for record in shipped} == set(profile.ships)
    for record in shipped:
        label = re.escape(study.variants[record.config.variant].label)
        (line,) = re.findall(rf"\| {label} \| RefScenes val.*", card)
        values = jackknifed_metrics(record, "val")
        for metric in ("oIoU", "mIoU"):
            low, high = over_pictures(values[metric]).interval()
            assert f"{values[metric][0]:.1f} [{low:.1f}, {high:.1f}]" in line
        for split, metrics in record.metrics.items():
            counts = record.counts()
            expressions = int((counts["split"] == split).sum())
            assert f"RefScenes {split}, 128 px | {expressions} | {metrics['oIoU']:.1f} [" in card
    for record in find_records(study.results("scenes") / "records"):
        if record.config.variant in profile.ships and record not in shipped:
            assert f"{record.metrics['val']['oIoU']:.1f} (seed {record.config.seed})" in card
    encoders = {study.encoders("scenes", variant) for variant in profile.ships}
    for path in [*encoders, *(study.under("scenes").weights(variant) for variant in profile.ships)]:
        assert f"| `{path.name}` |" in card and file_digest(path)[:16] in card


def test_shipped_weights_predict_the_masks_of_their_records(study, tmp_path):
    """The masks of two seeds in these records have an IoU of 0.73 to 0.79 (S²RM + CASG, SLViT, LAVT)."""
    under = study.under("scenes")
    for variant, seed in under.settings.ships.items():
        record = find_record(under.folder / "records", under.config(variant, seed))
        config = record.config.data.model_copy(update={"scenes": {"val": SHOWN_IMAGES}})  # the first are always equal
        table = load_refer(prepare_data(config, tmp_path, progress=False), config.dataset, config.split_by)
        corpus = build_corpus(table, "val", config.image_size, build_tokenizer(), config.max_words)
        found = sample_masks(load_model(under.weights(variant)), corpus, SHOWN_IMAGES)
        kept = record.masks()
        assert found.keys() == kept.keys()
        masks = {sentence: decode_mask(rle, *rle["size"]) for sentence, rle in found.items()}
        both, either = (
            sum(int(joined(masks[sentence], mask).sum()) for sentence, mask in kept.items()) for joined in (and_, or_)
        )
        assert both > 0.98 * either, (variant, seed, both / either)  # rounding to half moves some borders


def test_a_training_that_ships_its_weights_renews_the_card(tmp_path, data_root, monkeypatch, capsys):
    monkeypatch.setenv("REFSTUDY_DATA", str(data_root))
    (tmp_path / "study.yaml").write_text(
        textwrap.dedent(f"""\
            variants:
              tiny: {{label: Tiny, fusion: {{name: tile_concat}}, decoder: {{name: fpn, options: {{width: 16}}}}}}
              other: {{label: Other, fusion: {{name: tile_concat}}, decoder: {{name: fpn, options: {{width: 16}}}}}}
            profiles:
              small:
                about: tiny
                data: {{image_size: 64, scenes_version: "{FLAVOURS["refscenes"].version}", scenes: {SCENES}}}
                model:
                  image: {{embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], window_size: 4}}
                  text: {{vocab_size: {WORDS}, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64}}
                train: {{epochs: 1, images_per_batch: 4}}
                ships: {{tiny: 0}}
            runs: {{}}
            """)
    )
    small = load_study(tmp_path / "study.yaml")
    folder = small.results("small") / "weights"
    with pytest.raises(StudyError, match="no shipped weights"):
        model_card(small.under("small"))
    train_run(small, "small", "other", 0)
    assert not folder.exists()
    with monkeypatch.context() as full, pytest.raises(OSError, match="full"):  # ends before the record is written
        full.setattr("refstudy.training.loop.write_record", Mock(side_effect=OSError("full")))
        train_run(small, "small", "tiny", 0)
    (shipped,) = folder.iterdir()  # what has its record has shipped
    record = train_run(small, "small", "tiny", 0)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| {read_record(record).metrics['val']['oIoU']:.1f} [" in card
    assert record.name in card and file_digest(shipped)[:16] in card
    kept = shipped.read_bytes()
    shipped.write_bytes(b"of another run")
    assert ship(small.under("small")) == [shipped] and shipped.read_bytes() == kept
    other_seed = train_run(small, "small", "tiny", 1)  # is not shipped, and yet told of
    renewed = (folder / "README.md").read_text(encoding="utf-8")
    assert renewed == model_card(small.under("small")) != card and set(folder.iterdir()) == {
        shipped,
        folder / "README.md",
    }
    with monkeypatch.context() as broken:  # as one of other weights, which fit no more
        broken.setattr(
            "refstudy.engine.trainings.write_model_card", Mock(side_effect=StudyError("other.safetensors: unfit"))
        )
        shutil.rmtree(other_seed)
        assert train_run(small, "small", "tiny", 1) == other_seed
    assert "the card of the shipped weights is the old one: other.safetensors: unfit" in capsys.readouterr().out
    shutil.rmtree(other_seed)
    shutil.rmtree(record)  # numbers come from the record alone
    assert ship(small.under("small")) == []
    without = model_card(small.under("small"))
    assert "none of these settings" in without and record.name not in without
    assert not re.search(r"\d \[\d", without)
