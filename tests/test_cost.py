"""Counted costs: against sums by hand, the papers' printed numbers, and what late fusion saves."""

import copy
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from refstudy.analysis.cost import WORDS, cost, cost_table, measured_growth, printed_costs, slopes
from refstudy.analysis.results import BUILDERS
from refstudy.analysis.table_text import render
from refstudy.cli import app
from refstudy.models.build import build_model, count_parameters
from refstudy.models.decoders.casg import CASGStage, UpsampledConv
from refstudy.models.decoders.hamburger import Hamburger
from refstudy.papers.printed import load_printed
from refstudy.study.load import load_study

from .test_models import variant_config

STUDY = load_study(Path(__file__).resolve().parents[1] / "papermill_runs.yaml")


def test_a_cost_is_the_sum_of_its_convolutions_and_products():
    """Tile & Concat with an FPN of width 16 on a 64 px image: the parts after the encoders, by hand."""
    config = variant_config("tile_concat")
    found = cost(config)
    channels, text, width = (16, 32, 64, 128), 32, 16
    cells = (16 * 16, 8 * 8, 4 * 4, 2 * 2)
    fusion = cells[3] * (channels[3] + text + 8) * channels[3]
    laterals = sum(n * c * width for n, c in zip(cells, channels, strict=True))
    decoder = laterals + cells[0] * 9 * width * (width + 1)
    assert found.macs["fusion"] == pytest.approx(fusion / 1e9)
    assert found.macs["decoder"] == pytest.approx(decoder / 1e9)
    assert sum(found.parameters.values()) * 1e6 == pytest.approx(count_parameters(build_model(config)))


@pytest.mark.parametrize("variant", ["s2rm_casg", "casg_no_d3", "acm_fpn", "lavt", "slvit", "slvit_strips_7_21"])
def test_parts_that_are_counted_once_change_no_sum(variant):
    """``Counting`` skips modules that are like one it has counted; PyTorch's counter skips none."""
    cost(STUDY.run_config("scenes", "slvit_urce_234", 0).model)  # leaves much to be skipped
    config = STUDY.run_config("scenes", variant, 0).model
    with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model = build_model(config.from_scratch()).eval()
        ids = torch.empty(1, WORDS, dtype=torch.long)
        picture = torch.empty(1, 3, config.image_size, config.image_size)
        with FlopCounterMode(display=False) as counter:
            model(picture, ids, torch.empty_like(ids, dtype=torch.bool), torch.empty(1, dtype=torch.long))
    assert sum(cost(config).macs.values()) == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-9)


def test_printed_costs_are_reached():
    """Within 5 % for S²RM + CASG and within 10 % for LAVT, as the papers count."""
    table = printed_costs(STUDY).set_index("row")
    assert table.loc[["SwinT-Ours", "SwinB-Ours"], "difference_percent"].abs().max() < 5
    assert abs(table.loc["LAVT", "difference_percent"]) < 10


def test_table_two_has_its_column_of_costs(tmp_path):
    table = BUILDERS["s2rm_table2"](STUDY.under("scenes", tmp_path))
    costs = table[table["metric"] == "G multiply-adds"].set_index("row")
    assert costs["printed"].dropna().to_dict() == load_printed("s2rm_table2")["Flops"].dropna().to_dict()
    assert set(costs["ours"].dropna().index) == {"SwinT-Ours", "SwinB-Ours", "LAVT"}
    assert costs.loc["LAVT", "data"] == "480 px, text encoder left out"
    shown = render(table)
    assert shown.loc["LAVT", ("G multiply-adds", "ours")] == f"{costs.loc['LAVT', 'ours']:.1f}"
    assert shown.loc["VLT", ("G multiply-adds", "printed")] == "142.60"
    assert not [column for column in shown if column[0].startswith("gain")]  # Table II prints no overall IoU


def test_a_further_expression_costs_least_with_late_fusion():
    table = cost_table(STUDY, "refcoco", ["s2rm_casg", "lavt", "slvit"]).set_index("variant")
    share = table["further"] / table["macs"]
    assert share["s2rm_casg"] < 0.5 < 0.9 < share["lavt"] and share["slvit"] > 0.9
    assert table.loc["s2rm_casg", "written"] > 1.5 * table.loc["s2rm_casg", "macs"]
    assert table.loc["lavt", "written"] == table.loc["lavt", "macs"]
    slvit = STUDY.run_config("refcoco", "slvit", 0).model
    with torch.device("meta"):
        head = build_model(slvit.from_scratch()).decoder  # mixes the four maps at their own sizes, not at the first's
    cells = [(slvit.image_size // stride) ** 2 for stride in (4, 8, 16, 32)]
    spared = sum(count * (cells[0] - own) for count, own in zip(head.channels, cells, strict=True))
    apart = spared * head.squeeze.out_channels
    assert table.loc["slvit", "written"] - table.loc["slvit", "macs"] == pytest.approx(apart / 1e9)
    saved = table["written"] - table["macs"]  # the shortcuts are all in what each expression takes
    assert (table["further_written"] - table["further"]).tolist() == pytest.approx(saved.tolist())


def test_the_command_prints_and_writes_its_table(tmp_path, monkeypatch):
    monkeypatch.chdir(STUDY.root)
    arguments = ["cost", "--profile", "scenes", "--variant", "tile_concat", "--csv", str(tmp_path / "cost.csv")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "tile_concat" in done.output
    assert (tmp_path / "cost.csv").read_text().splitlines()[1].startswith("tile_concat,128,")


def test_the_papers_own_order_is_of_the_counted_model_alone():
    for name, parts in (("s2rm_casg", (UpsampledConv, CASGStage)), ("slvit", (Hamburger,))):
        found = cost(variant_config(name))
        assert found.written > sum(found.macs.values())
        built = [part for part in build_model(variant_config(name)).modules() if isinstance(part, parts)]
        assert built and not any(part.as_written for part in built)


def test_slopes_are_the_exponents_of_power_laws():
    measured = pd.DataFrame({"model": "m", "axis": "side", "value": [1, 2, 4, 8]})
    measured = measured.assign(seconds=3 * measured["value"] ** 2.0, peak_MB=5.0)
    assert slopes(measured).to_dict("records") == [{"model": "m", "axis": "side", "seconds": 2.0, "peak_MB": 0.0}]


def test_growth_is_read_from_beside_the_study_file(tmp_path):
    study = copy.copy(STUDY)
    study.root = tmp_path
    assert measured_growth(study).empty
    path = tmp_path / "benchmarks" / "results" / "growth.csv"
    path.parent.mkdir(parents=True)
    path.write_text("model,axis,value,seconds,peak_MB,machine,torch,date\na,side,64,0.5,12.0,this,2,today\n")
    assert measured_growth(study).to_dict("records") == [
        {"model": "a", "axis": "side", "value": 64, "seconds": 0.5, "peak_MB": 12.0, "machine": "this"}
    ]
