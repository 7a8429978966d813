"""FiLM runs through the examination without a fault, is what its paper's equation says, and was compared."""

from pathlib import Path
from statistics import mean

import pandas as pd
import pytest
import torch
from film import FiLM

from refstudy.analysis.examination import examine
from refstudy.study.load import load_study
from refstudy.training.records import find_records

HERE = Path(__file__).parent


def test_the_examination_finds_no_fault():
    made = examine(f"{HERE / 'film.py'}:FiLM")
    assert made.sound, str(made)


def test_it_is_its_equation_cell_by_cell():
    """FiLM(F_c) = gamma_c F_c + beta_c (Perez et al., Eq. 2), with gamma around 1, in float64."""
    torch.manual_seed(0)
    module = FiLM(6, 5, (2, 3)).double().eval()
    vision, words = torch.randn(2, 6, 2, 3).double(), torch.randn(2, 4, 5).double()
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    with torch.no_grad():
        made, mixed = module(vision, words, mask), module.mix(vision)
    weight, bias = module.film.weight, module.film.bias
    for e in range(2):
        there = [words[e, k] for k in range(4) if mask[e, k]]
        sentence = sum(there) / len(there)
        for c in range(6):
            gamma = 1 + weight[c] @ sentence + bias[c]
            beta = weight[6 + c] @ sentence + bias[6 + c]
            for i in range(2):
                for j in range(3):
                    wanted = vision[e, c, i, j] + gamma * mixed[e, c, i, j] + beta
                    assert abs(made[e, c, i, j] - wanted) < 1e-12


def test_the_committed_comparison_is_of_this_class():
    records = find_records(HERE / "compared" / "film" / "records")
    own = load_study(HERE / "film.yaml").run_config("scenes", "film", 0)
    assert [record.config.model.fusion.source for record in records] == [own.model.fusion.source] * 3
    level = pd.read_csv(HERE / "compared" / "film" / "levels.csv", index_col="variant").loc["film", "oIoU"]
    assert mean(record.metrics["val"]["oIoU"] for record in records) == pytest.approx(level, abs=0.005)
