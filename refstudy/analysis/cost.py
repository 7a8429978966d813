"""The cost of a model: parameters, multiply-adds by component; counted in seconds on shapes, without weights."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from refstudy.base.bar import bar
from refstudy.base.config import ModelConfig, RunConfig
from refstudy.base.files import exists, note
from refstudy.data.check import published
from refstudy.models.build import build_model
from refstudy.models.encoders import ImageEncoder, TextEncoder
from refstudy.models.segmenter import ImageFeatures, Segmenter
from refstudy.papers.printed import load_printed
from refstudy.study.file import PAPERS_SWIN_B, PAPERS_SWIN_T, Study

IMAGE_ENCODER, TEXT_ENCODER = cache(ImageEncoder), cache(TextEncoder)  # each made once
WORDS = 20  # word pieces of an expression, as S²RM and the public code of SLViT clip them


class Cost(NamedTuple):
    """Parameters, in millions, and multiply-adds, in thousand millions, of one image with one expression.

    ``parameters`` and ``macs`` are by component: image_encoder, text_encoder, and what else the model consists of.
    ``further`` are the multiply-adds of one more expression about the same image. ``written`` and ``further_written``
    are the sum of ``macs``, and ``further``, when every equation is computed as the paper writes it, but for S²RM's
    products: one matrix stands for its four, which would add a fraction of 1 %.
    """

    parameters: dict[str, float]
    macs: dict[str, float]
    further: float
    written: float
    further_written: float


def cost(config: ModelConfig) -> Cost:
    """Count what the model of these settings costs, once. Multiply-adds are those of convolutions and matrix products.

    Raises StudyError as ``build_model`` does.
    """
    return _counted(config.from_scratch().model_dump_json())


@cache
def _counted(settings: str) -> Cost:
    config = ModelConfig.model_validate_json(settings)
    with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model = build_model(config, IMAGE_ENCODER, TEXT_ENCODER).eval()
        side = config.image_size
        encoding, features = Counting(model).run(partial(model.encode_image, torch.empty(1, 3, side, side)))
        macs, further = _one_and_further(model, features)
        written, further_written = macs, further
        if reordered := [part for part in model.modules() if hasattr(part, "as_written")]:
            for part in reordered:
                cast(Any, part).as_written = True
            written, further_written = _one_and_further(model, features)
    once = sum(encoding.values())
    in_all = sum(written.values()) + once
    macs["image_encoder"] = macs.get("image_encoder", 0.0) + once
    parameters = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    parameters = {name: number for name, number in parameters.items() if number}
    return Cost(parameters, macs, further, in_all, further_written)


def _one_and_further(model: Segmenter, features: ImageFeatures) -> tuple[dict[str, float], float]:
    """Thousand millions of multiply-adds, by component for one expression about one encoded image, and in all for a
    further one; on "meta"."""
    counting, found = Counting(model), []
    for expressions in (1, 2):
        ids = torch.empty(expressions, WORDS, dtype=torch.long)
        given = (features, ids, torch.empty_like(ids, dtype=torch.bool), torch.empty(expressions, dtype=torch.long))
        found.append(counting.run(partial(model.segment, *given))[0])
    return found[0], sum(found[1].values()) - sum(found[0].values())


class Counting:
    """Counts what the modules of a model do. A module that is like one which was called before, with inputs of the same
    shapes, is not called again: it does as much, and gives the same shapes."""

    known: dict[Any, tuple[int, Any, nn.Module]] = {}  # likeness and shapes of inputs -> operations, output, module

    def __init__(self, model: nn.Module):
        self._component = {id(part): name.split(".")[0] for name, part in model.named_modules() if name}
        self._likeness: dict[int, Any] = {}

    def run(self, action: Callable[[], Any]) -> tuple[dict[str, float], Any]:
        """Thousand millions of multiply-adds by component, "rest" for what no module does; what ``action`` gives."""
        self._parts = dict.fromkeys(self._component.values(), 0)
        self._counter, self._spared, self._within = FlopCounterMode(display=False), 0, False
        forward = nn.Module.__call__
        nn.Module.__call__ = lambda *given, **named: self._call(forward, *given, **named)  # type: ignore[method-assign]
        try:
            with self._counter:
                found = action()
                total = self._total()
        finally:
            nn.Module.__call__ = forward  # type: ignore[method-assign]
        parts = self._parts | {"rest": total - sum(self._parts.values())}
        return {name: number / 2e9 for name, number in parts.items() if number}, found

    def _total(self) -> int:
        return self._counter.get_total_flops() + self._spared

    def _call(self, forward: Callable, module: nn.Module, *given: Any, **named: Any) -> Any:
        before, outermost, self._within = self._total(), not self._within, True
        key = (self._like(module), _shape((given, named)))
        if key in self.known:
            operations, output, _ = self.known[key]
            self._spared += operations
        else:
            output = forward(module, *given, **named)
            self.known[key] = self._total() - before, output, module  # which is kept, and with it what it is known by
        if outermost:
            self._within = False
            if name := self._component.get(id(module)):
                self._parts[name] += self._total() - before
        return output

    def _like(self, module: nn.Module) -> Any:
        """The likeness of modules that do the same: class, attributes, sizes of parameters, and their parts."""
        found = self._likeness.get(id(module))
        if found is None and isinstance(module, TextEncoder | ImageEncoder):
            found = id(module)  # made once
        if found is None:
            own = {name: repr(value) for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
            tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            sizes = [(name, tensor.shape) for name, tensor in tensors]
            parts = [(name, self._like(part)) for name, part in module.named_children()]
            found = hash((type(module), *own.items(), *sizes, *parts))
        self._likeness[id(module)] = found
        return found


_OF_EVERY_MODULE = vars(nn.Module())


def _shape(value: Any) -> Any:
    """A value of a call with shapes in the place of tensors. What is not known is equal to nothing."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, tuple | list):
        return type(value), *map(_shape, value)
    if isinstance(value, dict):
        return tuple((name, _shape(part)) for name, part in value.items())
    return value if isinstance(value, int | float | str | None) else object()


# Printed costs: table and row, our profile and variant, and whether the printed number includes the text encoder.
PRINTED = (
    ("s2rm_table2", "SwinT-Ours", PAPERS_SWIN_T, "s2rm_casg", True),
    ("s2rm_table2", "SwinB-Ours", PAPERS_SWIN_B, "s2rm_casg", True),
    ("s2rm_table2", "LAVT", PAPERS_SWIN_B, "lavt", False),
)


def cost_table(study: Study, profile: str, variants: Sequence[str] = ()) -> pd.DataFrame:
    """The cost of every variant of a profile (or of these) at its size, a row each.

    Columns: variant, image_size (pixels); parameters (millions), macs, further, written, further_written (G, as in
    ``Cost``); the components' share of macs: image_encoder, text_encoder, fusion (what else meets the words), decoder.
    """
    lines = []
    for variant in bar(variants or study.variant_names(profile), desc="counting", shown=not variants):
        config = study.run_config(profile, variant, seed=0).model
        found = cost(config)
        own = {name: found.macs.get(name, 0.0) for name in ("image_encoder", "text_encoder", "decoder")}
        total = sum(found.macs.values())
        line = {"variant": variant, "image_size": config.image_size, "parameters": sum(found.parameters.values())}
        line |= {name: getattr(found, name) for name in ("further", "written", "further_written")}
        lines.append(line | own | {"macs": total, "fusion": total - sum(own.values())})
    columns = "variant image_size parameters macs further written further_written image_encoder text_encoder fusion"
    return pd.DataFrame(lines, columns=[*columns.split(), "decoder"])


# TFLOP/s that an estimate assumes: 40 % of 790, about the rate of a recent data-centre GPU for a product of two large
# bfloat16 matrices. ``benchmarks/bench_training.py`` measures both on the machine at hand.
RATE = 0.4 * 790


def gpu_hours(config: RunConfig, macs: float, further: float, rate: float = RATE) -> float:
    """Estimate the hours that one GPU with ``rate`` TFLOP/s takes for a training with its validations.

    ``macs`` and ``further`` are G multiply-adds as ``cost_table`` has them, two operations each; a backward pass is
    two forward passes. The data's sizes are the published ones (for RefCOCOg's training split those of all pictures,
    since its own are unpublished), NaN for other data. Expressions share an image as in ``grouped_batches``, assuming
    that every remainder of an image's referents is equally frequent; evaluation encodes every image once. Time spent
    waiting for data is not counted.
    """
    train, once, power = config.train, macs - further, 2e9 / (rate * 1e12) / 3600
    rows = "dataset == @config.data.dataset and split_by == @config.data.split_by and kind == 'released'"
    sizes = published().query(rows).drop_duplicates(["split", "measure"]).set_index(["split", "measure"])["value"]

    def size(split: str, measure: str) -> float:
        return float(sizes.get((split, measure), sizes.get(("all", measure), "nan")))

    def evaluation(split: str) -> float:
        return once * size(split, "images") + further * size(split, "expressions")

    shown = size("train", "referents" if train.sampling == "referent" else "expressions")
    spare = (train.expressions_per_image - 1) / 2 * size("train", "images")  # places in groups that are not full
    encoded = min(shown, (shown + spare) / train.expressions_per_image)
    training = 3 * train.epochs * (once * encoded + further * shown)
    validations = -(-train.epochs // train.evaluate_every) * evaluation(train.selection_split)
    return power * (training + validations + sum(map(evaluation, config.splits)))


def printed_costs(study: Study) -> pd.DataFrame:
    """Printed costs and our count of the same model, every equation computed as the paper writes it.

    Columns: table, row, profile, variant, image_size, text_encoder (whether it is counted), printed, ours (G
    multiply-adds), difference_percent.
    """
    lines = []
    for table, row, profile, variant, with_text in PRINTED:
        printed = load_printed(table).loc[row, "Flops"]
        counted = cost_table(study, profile, [variant]).iloc[0]
        ours = counted["written"] - (0 if with_text else counted["text_encoder"])
        about = {"table": table, "row": row, "profile": profile, "variant": variant}
        about |= {"image_size": counted["image_size"], "text_encoder": "counted" if with_text else "left out"}
        lines.append(about | {"printed": printed, "ours": ours, "difference_percent": 100 * (ours / printed - 1)})
    return pd.DataFrame(lines)


def measured_growth(study: Study) -> pd.DataFrame:
    """The rows of ``benchmarks/bench_growth.py``: model, axis (what grows), value, seconds and peak_MB of a forward
    pass, machine."""
    return _measured(study, "growth", "model axis value seconds peak_MB machine")


def core_minutes(study: Study) -> pd.DataFrame:
    """The rows of ``benchmarks/bench_core_hours.py``: profile, variant, core_minutes of a training, machine."""
    return _measured(study, "core_hours", "profile variant core_minutes machine")


def _measured(study: Study, name: str, columns: str) -> pd.DataFrame:
    """The numbers that a benchmark wrote in the folder of the study file; no rows if it has not run."""
    path = study.root / "benchmarks" / "results" / f"{name}.csv"
    if not exists(path):
        return pd.DataFrame(columns=columns.split())
    note("read", path)
    return pd.read_csv(path)[columns.split()]


def slopes(measured: pd.DataFrame) -> pd.DataFrame:
    """The growth of measured time and memory: exponents of power laws, fitted on logarithms by least squares.

    ``measured`` comes from ``measured_growth``. A line for each model and axis: model, axis, seconds, peak_MB; an
    exponent of 1 is growth in proportion, 0 is none.
    """
    lines = []
    for (model, axis), some in measured.groupby(["model", "axis"], sort=False):
        fitted = {name: np.polyfit(np.log(some["value"]), np.log(some[name]), 1)[0] for name in ("seconds", "peak_MB")}
        lines.append({"model": model, "axis": axis} | {name: round(float(slope), 2) for name, slope in fitted.items()})
    return pd.DataFrame(lines)
