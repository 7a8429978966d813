"""What a model costs: parameters and multiply-adds by component, counted in seconds on shapes, without weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from refstudy.config import ModelConfig
from refstudy.files import note
from refstudy.models.build import build_model
from refstudy.models.decoders import casg
from refstudy.models.segmenter import Segmenter
from refstudy.reported import load_reported
from refstudy.study import Study

WORDS = 20  # word pieces of an expression, as both papers clip them


@dataclass(frozen=True)
class Cost:
    """Parameters, in millions, and multiply-adds, in thousand millions, of one image with one expression.

    ``parameters`` and ``macs`` are by component: image_encoder, text_encoder, and what else the model consists of.
    ``written`` is all multiply-adds when every equation is computed as the paper writes it; ``further``, those of one
    more expression about the same image.
    """

    parameters: dict[str, float]
    macs: dict[str, float]
    written: float
    further: float


def cost(config: ModelConfig) -> Cost:
    """Count what the model of these settings costs. Multiply-adds are those of convolutions and matrix products.

    Raises StudyError as ``build_model`` does.
    """
    with torch.device("meta"):
        model = build_model(config.from_scratch()).eval()
        macs = count(model, config.image_size, expressions=1)
        written = macs
        if isinstance(getattr(model, "decoder", None), casg.CASG):
            with as_written():
                written = count(model, config.image_size, expressions=1)
        two = count(model, config.image_size, expressions=2)
    parameters = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    return Cost(
        {name: number for name, number in parameters.items() if number},
        macs,
        sum(written.values()),
        sum(two.values()) - sum(macs.values()),
    )


def count(model: Segmenter, image_size: int, expressions: int, words: int = WORDS) -> dict[str, float]:
    """Thousand millions of multiply-adds by component, for one image with so many expressions; a model on "meta"."""
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    ids = torch.empty(expressions, words, dtype=torch.long, device="meta")
    mask = torch.empty(expressions, words, dtype=torch.bool, device="meta")
    index = torch.empty(expressions, dtype=torch.long, device="meta")
    once, each = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        with once:
            features = model.encode_image(images)
        with each:
            Second(model)(features, ids, mask, index)
    flops = {name: sum(by_operation.values()) for name, by_operation in each.get_flop_counts().items()}
    parts = {name: 0 for name, _ in model.named_children()}
    calls = [name.removeprefix("Second.model.") for name in flops if name.startswith("Second.model.")]
    for name in calls:
        if not any(name.startswith(f"{other}.") for other in calls):  # not within another one
            parts[name.split(".")[0]] += flops[f"Second.model.{name}"]
    parts["rest"] = each.get_total_flops() - sum(parts.values())
    parts["image_encoder"] += once.get_total_flops()
    return {name: number / 2e9 for name, number in parts.items() if number}


class Second(nn.Module):
    """The second half of a segmenter, ``segment``, as a module: the counter names what is called within a module."""

    def __init__(self, model: Segmenter):
        super().__init__()
        self.model = model

    def forward(self, *arguments):
        return self.model.segment(*arguments)


@contextmanager
def as_written() -> Iterator[None]:
    """Compute CASG's wide convolutions and its lift as the paper writes them; everything else is so already."""

    def forward(self: casg.UpsampledConv, maps, size):
        return self.upsampled_first(maps, size)

    with (
        patch.object(casg.UpsampledConv, "forward", forward),
        patch.object(casg, "lifted_scores", casg.lifted_first),
    ):
        yield


# Printed costs: table and row, profile and variant of ours, and whether the printed number has the text encoder in it.
PRINTED = (
    ("s2rm_table2", "SwinT-Ours", "refcoco", "s2rm_casg", True),
    ("s2rm_table2", "SwinB-Ours", "refcoco_swinb", "s2rm_casg", True),
    ("s2rm_table2", "LAVT", "refcoco_swinb", "lavt", False),
)


def cost_table(study: Study, profile: str, variants: Sequence[str] = ()) -> pd.DataFrame:
    """What every variant of a profile (or these) costs at its size, a line each.

    Columns: variant, image_size (pixels); parameters (millions), macs, written, further (G, as in ``Cost``); the
    components' share of macs: image_encoder, text_encoder, fusion (what else meets the words), decoder.
    """
    lines = []
    for variant in tqdm(variants or study.variant_names(profile), desc="counting", disable=bool(variants)):
        config = study.run_config(profile, variant, seed=0).model
        found = cost(config)
        own = {name: found.macs.get(name, 0.0) for name in ("image_encoder", "text_encoder", "decoder")}
        total = sum(found.macs.values())
        line = {"variant": variant, "image_size": config.image_size, "parameters": sum(found.parameters.values())}
        line |= {"macs": total, "written": found.written, "further": found.further}
        lines.append(line | own | {"fusion": total - sum(own.values())})
    columns = "variant image_size parameters macs written further image_encoder text_encoder fusion decoder"
    return pd.DataFrame(lines, columns=columns.split())


def printed_costs(study: Study) -> pd.DataFrame:
    """Printed costs beside our count of the same model, every equation computed as the paper writes it.

    Columns: table, row, profile, variant, image_size, text_encoder (whether it is counted), printed, ours (G
    multiply-adds), difference_percent.
    """
    lines = []
    for table, row, profile, variant, with_text in PRINTED:
        printed = load_reported(table).loc[row, "Flops"]
        counted = cost_table(study, profile, [variant]).iloc[0]
        ours = counted["written"] - (0 if with_text else counted["text_encoder"])
        about = {"table": table, "row": row, "profile": profile, "variant": variant}
        about |= {"image_size": counted["image_size"], "text_encoder": "counted" if with_text else "left out"}
        lines.append(about | {"printed": printed, "ours": ours, "difference_percent": 100 * (ours / printed - 1)})
    return pd.DataFrame(lines)


GROWTH = ["model", "axis", "value", "seconds", "peak_MB", "machine"]


def measured_growth(study: Study) -> pd.DataFrame:
    """The rows that ``benchmarks/bench_growth.py`` wrote beside the study file, none where it was not run.

    Columns: model, axis (what grows), value, seconds and peak_MB of a forward pass, machine.
    """
    path = study.root / "benchmarks" / "results" / "growth.csv"
    if not path.exists():
        return pd.DataFrame(columns=GROWTH)
    note("read", path)
    return pd.read_csv(path)[GROWTH]


def slopes(measured: pd.DataFrame) -> pd.DataFrame:
    """How measured time and memory grow: the exponents of power laws, fitted on logarithms by least squares.

    ``measured`` is as ``measured_growth`` gives it. A line for each model and axis: model, axis, seconds, peak_MB; 1
    says that it grows as the axis does, 0 that it does not.
    """
    lines = []
    for (model, axis), some in measured.groupby(["model", "axis"], sort=False):
        fitted = {name: np.polyfit(np.log(some["value"]), np.log(some[name]), 1)[0] for name in ("seconds", "peak_MB")}
        lines.append({"model": model, "axis": axis} | {name: round(float(slope), 2) for name, slope in fitted.items()})
    return pd.DataFrame(lines)
