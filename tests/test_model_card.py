"""The card beside the shipped weights: made from the records, and renewed when weights are shipped."""

import re
import shutil
import textwrap
from pathlib import Path

import pytest

from refstudy.data.scenes import FLAVOURS
from refstudy.errors import StudyError
from refstudy.files import file_digest
from refstudy.model_card import model_card
from refstudy.records import find_records, read_record
from refstudy.runs import train_run
from refstudy.study import load_study
from refstudy.tables import build_table

from .conftest import SCENES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def study():
    return load_study(ROOT / "papermill_runs.yaml")


def test_the_committed_card_is_what_the_records_say(study):
    """After a change of records or weights: ``refstudy card``."""
    assert (study.results("scenes") / "weights" / "README.md").read_text(encoding="utf-8") == model_card(
        study, "scenes"
    )


def test_its_numbers_are_those_of_the_tables_and_records(study):
    card = model_card(study, "scenes")
    table = build_table("s2rm_table5", study, "scenes").query("variant == 's2rm_casg'").set_index("metric")
    (line,) = re.findall(r"\| S²RM \+ CASG \| RefScenes val.*", card)
    for metric in ("oIoU", "mIoU"):
        row = table.loc[metric]
        assert f"{row['ours']:.1f} [{row['ours_low']:.1f}, {row['ours_high']:.1f}]" in line
    for record in find_records(study.results("scenes") / "records"):
        if record.config.variant in study.profile("scenes").ships:
            for split, metrics in record.metrics.items():
                counts = record.counts()
                expressions = int((counts["split"] == split).sum())
                assert f"RefScenes {split}, 128 px | {expressions} | {metrics['oIoU']:.1f} [" in card
    for path in (study.results("scenes") / "weights").glob("*.safetensors"):
        assert f"| `{path.name}` |" in card and file_digest(path)[:16] in card


def test_a_training_that_ships_its_weights_renews_the_card(tmp_path, data_root, monkeypatch):
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
                  text: {{vocab_size: 199, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64}}
                train: {{epochs: 1, images_per_batch: 4}}
                ships: [tiny]
            runs: {{}}
            """)
    )
    small = load_study(tmp_path / "study.yaml")
    folder = small.results("small") / "weights"
    with pytest.raises(StudyError, match="no shipped weights"):
        model_card(small, "small")
    train_run(small, "small", "other", 0, progress=False)
    assert not folder.exists()
    record = train_run(small, "small", "tiny", 0, progress=False)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| {read_record(record).metrics['val']['oIoU']:.1f} [" in card
    assert record.name in card
    shutil.rmtree(record)  # numbers come from the record alone
    without = model_card(small, "small")
    assert "none of these settings" in without and record.name not in without
    assert not re.search(r"\d \[\d", without)
