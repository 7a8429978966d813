"""What a grid can reach: against a loop over masks, averaged truth and logits fitted by descent; and the grids
themselves against those of the built models."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from refstudy.analysis.ceilings import LEVELS, PROJECTIONS, STRIDES, ceilings, read_ceilings
from refstudy.analysis.table_files import write_table
from refstudy.data.batches import Corpus
from refstudy.metrics import METRICS, summarize
from refstudy.models.build import build_model, mask_stride
from refstudy.study.load import load_study

ROOT = Path(__file__).resolve().parents[1]
STUDY = load_study(ROOT / "papermill_runs.yaml")


def corpus_of(masks, expressions):
    """Masks bool (R, S, S), and which of them each expression means."""
    refs, side = masks.shape[:2]
    none = np.zeros((len(expressions), 1), int)
    packed = np.packbits(masks.reshape(refs, -1), axis=1)
    pictures = np.zeros((refs, 3, side, side), np.uint8)
    return Corpus(pictures, packed, np.arange(refs), none, none, np.array(expressions), pd.DataFrame())


def dice(probabilities, truth):
    """The overlap that the loss of the study is made of, for every mask."""
    return 2 * (probabilities * truth).sum((1, 2)) / (probabilities.sum((1, 2)) + truth.sum((1, 2)))


def rectangles(count, side):
    """Random masks of ``side`` pixels a side, and of which ones a hundred expressions are true."""
    random = np.random.default_rng(0)
    masks = np.zeros((count, side, side), bool)
    for mask in masks:
        y, x, height, width = random.integers(2, side // 2 - 2, 4)
        mask[y : y + height, x : x + width] = True
    return masks, random.integers(0, count, 100)


def best_cuts(values, masks, expressions):
    """Every metric, each mask being compared to the pixels that have at least the value that is best for it."""
    best = []
    for value, mask in zip(values, masks, strict=True):
        marked = [value >= level / LEVELS for level in range(1, LEVELS)]
        best.append(
            max(((one & mask).sum() / (one | mask).sum(), (one & mask).sum(), (one | mask).sum()) for one in marked)
        )
    return summarize(*np.array(best)[expressions, 1:].T)


def test_ceilings_are_those_of_a_loop():
    """Of more referents than are fitted at once, with unequal numbers of expressions; the fit by least squares over all
    pixels of one mask and all cells, whose upsampled maps are the columns."""
    masks, expressions = rectangles(70, 40)
    found = ceilings(corpus_of(masks, expressions)).set_index("stride")
    assert list(found.index) == list(STRIDES) and list(found.columns) == list(METRICS)
    for stride in STRIDES:
        side = -(-40 // stride)
        cells = torch.eye(side**2, dtype=torch.float64).view(-1, 1, side, side)
        columns = interpolate(cells, size=(40, 40), mode="bilinear", align_corners=False).flatten(1).T.numpy()
        fitted = []
        for mask in masks.reshape(len(masks), -1):
            values, missing = np.zeros(mask.size), mask.astype(float)
            for _ in range(1 + PROJECTIONS):
                values = values + columns @ np.linalg.lstsq(columns, missing)[0]
                missing = np.where(mask, np.maximum(1 - values, 0), -np.maximum(values, 0))
            fitted.append(values.reshape(40, 40))
        assert found.loc[stride].to_dict() == pytest.approx(best_cuts(fitted, masks, expressions))


def test_no_way_of_drawing_on_a_grid_that_is_tried_here_is_much_better():
    """Truth averaged over the cells is worse, and so are logits fitted by descent, but on the coarsest cells."""
    masks, expressions = rectangles(40, 64)
    found, truth = ceilings(corpus_of(masks, expressions)).set_index("stride"), torch.from_numpy(masks)
    for stride in STRIDES:
        averaged = avg_pool2d(truth[:, None].double(), stride)
        upsampled = interpolate(averaged, size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
        assert found.loc[stride, "oIoU"] > best_cuts(upsampled.numpy(), masks, expressions)["oIoU"]
        logits = (4 * averaged - 2).requires_grad_()
        descent = torch.optim.Adam([logits], lr=0.3)
        for _ in range(60):
            drawn = interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
            loss = -dice(drawn.sigmoid(), truth).sum()
            descent.zero_grad()
            loss.backward()
            descent.step()
        marked = drawn.detach().numpy() > 0
        inter, union = ((part[expressions]).sum((1, 2)) for part in (marked & masks, marked | masks))
        assert found.loc[stride, "oIoU"] > summarize(inter, union)["oIoU"] - 2


def test_a_mask_of_whole_cells_is_blunted_by_coarser_ones_alone():
    masks = np.zeros((1, 128, 128), bool)
    masks[0, 32:64, 64:96] = True
    found = ceilings(corpus_of(masks, [0])).set_index("stride")["oIoU"]
    assert found[4] > 98 and found.is_monotonic_decreasing and found[32] < 90


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
