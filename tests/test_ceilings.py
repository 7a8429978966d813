"""What a grid can reach: against a loop over shares, and the grids against those of the built models."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from refstudy.analysis.table_files import write_table
from refstudy.data.batches import Corpus
from refstudy.metrics import METRICS, summarize
from refstudy.models.build import build_model, mask_stride
from refstudy.study.load import load_study
from refstudy.training.evaluation import SHARES, STRIDES, ceilings, read_ceilings

ROOT = Path(__file__).resolve().parents[1]
STUDY = load_study(ROOT / "papermill_runs.yaml")


def corpus_of(masks, expressions):
    """Masks bool (R, S, S), and which of them each expression means."""
    refs, side = masks.shape[:2]
    none = np.zeros((len(expressions), 1), int)
    packed = np.packbits(masks.reshape(refs, -1), axis=1)
    pictures = np.zeros((refs, 3, side, side), np.uint8)
    return Corpus(pictures, packed, np.arange(refs), none, none, np.array(expressions), pd.DataFrame())


def test_ceilings_are_those_of_a_loop():
    """Of more referents than are averaged at once, with unequal numbers of expressions."""
    random = np.random.default_rng(0)
    masks = np.zeros((70, 64, 64), bool)
    for mask in masks:
        y, x, height, width = random.integers(4, 30, 4)
        mask[y : y + height, x : x + width] = True
    expressions = random.integers(0, 70, 100)
    found = ceilings(corpus_of(masks, expressions)).set_index("stride")
    assert list(found.index) == list(STRIDES) and list(found.columns) == list(METRICS)
    for stride in STRIDES:
        cells = avg_pool2d(torch.from_numpy(masks)[:, None].double(), stride)
        averaged = interpolate(cells, scale_factor=stride, mode="bilinear", align_corners=False)[:, 0].numpy()
        best = dict.fromkeys(METRICS, 0.0)
        for share in range(1, SHARES):
            marked = SHARES * averaged >= share
            inter, union = ((part[expressions]).sum((1, 2)) for part in (marked & masks, marked | masks))
            best = {name: max(best[name], value) for name, value in summarize(inter, union).items()}
        assert found.loc[stride].to_dict() == pytest.approx(best)


def test_a_mask_of_whole_cells_is_blunted_by_coarser_ones_alone():
    masks = np.zeros((1, 128, 128), bool)
    masks[0, 32:64, 64:96] = True
    found = ceilings(corpus_of(masks, [0])).set_index("stride")["oIoU"]
    assert found[4] > 98 and found.is_monotonic_decreasing and found[32] < 80


@pytest.mark.parametrize(
    "variant",
    ["tile_concat", "s2rm_casg", "casg_no_d3", "casg_no_d23", "casg_no_d123", "lavt", "slvit", "slvit_predict_234"],
)
def test_the_stride_is_that_of_the_decoders_map(variant):
    config = STUDY.run_config("smoke", variant, 0).model
    sizes = []
    with torch.device("meta"):
        model = build_model(config.from_scratch()).eval()
        model.decoder.register_forward_hook(lambda module, given, logits: sizes.append(logits.shape[-1]))
        side, words = config.image_size, torch.ones(1, 5, dtype=torch.long)
        model(torch.empty(1, 3, side, side), words, words.bool())
    assert [side // size for size in sizes] == [mask_stride(config)]


def test_ceilings_are_read_where_they_were_written(tmp_path):
    assert read_ceilings(tmp_path) is None
    write_table(pd.DataFrame({"stride": [4, 8], "oIoU": [86.31, 75.4]}), tmp_path / "tables", "ceilings")
    assert read_ceilings(tmp_path).loc[4, "oIoU"] == 86.31
