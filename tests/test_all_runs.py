"""Every trained variant has its line, with the names of its records; those of no table of the papers come first."""

import numpy as np
import pytest

from refstudy.analysis.all_runs import all_runs, render
from refstudy.base.config import record_name
from refstudy.study.load import load_study

from .helpers import ROOT, put

STUDY = load_study(ROOT / "examples" / "film.yaml")


def test_a_variant_of_ones_own_has_interval_gain_and_records(tmp_path):
    rng = np.random.default_rng(0)
    for variant, reached in (("tile_concat", 0.5), ("film", 0.6)):
        for seed in (0, 1):
            put(tmp_path, variant, rng.uniform(reached - 0.1, reached + 0.1, 60), seed=seed, study=STUDY)
    table = all_runs(STUDY.under("scenes", tmp_path)).set_index("variant")
    film, base = table.loc["film"], table.loc["tile_concat"]
    assert list(table.index) == ["tile_concat", "film"] and film["tables"] == "" and base["tables"] == "s2rm_table4"
    assert film["gain"] == pytest.approx(film["oIoU"] - base["oIoU"]) and np.isnan(base["gain"])
    assert film["gain_low"] < film["gain"] < film["gain_high"] and film["oIoU_low"] < film["oIoU"] < film["oIoU_high"]
    assert film["records"].split() == [record_name(STUDY.run_config("scenes", "film", seed)) for seed in (0, 1)]
    shown = render(table.reset_index())
    assert list(shown.index) == ["FiLM + FPN", "Tile & Concat"] and shown["tables"].tolist() == ["none", "s2rm_table4"]
    assert shown["gain over tile_concat"].iloc[0].startswith("+") and shown["gain over tile_concat"].iloc[1] == ""


def test_no_run_no_line(tmp_path):
    table = all_runs(STUDY.under("scenes", tmp_path))
    assert table.empty and render(table).empty
