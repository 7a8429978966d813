"""What only a GPU tells, in under nine minutes, into one table; the tests run all of it on the CPU in a small form.

S²RM + CASG with Swin-B at 512 in bf16: training against a loop in the style of LAVT's public code, the share of the
card's matrix rate that its own multiply-adds make, memory with and without checkpointing, evaluation. The small models
of the built-in study compiled, with CUDA graphs, and all seeds of a row at once. Coparsing and CASG's convolution
compiled. Last, the authors' code, where there are clones of it. A part that fails, or for which no time is left, is
named at the end, and the others are written.
"""

import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bench_peers
import torch
import yaml
from bench_cluster import fresh
from bench_evaluation import random_weights, row_of
from bench_memory import WAYS, held
from bench_models import rows_of as rows_of_forms
from bench_training import our_rate, rows_of
from measure import DEVICE, compared, seconds, small_training, write

from refstudy.analysis.cost import cost
from refstudy.base.config import RunConfig
from refstudy.engine.signals import Stop
from refstudy.engine.trainings import train_all
from refstudy.models.decoders.casg import UpsampledConv
from refstudy.models.fusion.s2rm import S2RM
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import compiled

MINUTES, UPDATES = 8.5, 8
CEILINGS = {("plain", 32): 60, ("checkpointing, 4 parts", 32): 24}  # GB, for Swin-B at 512


@dataclass(frozen=True)
class Form:
    """How large everything is."""

    large: RunConfig  # the run whose training, memory and evaluation are measured
    scenes: int  # pictures of its data
    images: int  # in an update whose memory is measured, and in an evaluation
    matrix: int  # rows and columns of the product whose rate counts as the card's
    small: tuple[str, ...]  # variants of `scenes` that are compiled
    seeds: int  # of a row, at once
    epochs: int
    channels: int  # of the maps of coparsing and of CASG's convolution
    turns: int  # of the authors' code and ours


def full() -> Form:
    """The form for a card."""
    large = load_study().run_config("refcoco_swinb", "s2rm_casg", 0)
    large = large.model_copy(update={"model": random_weights("refcoco_swinb", "s2rm_casg")})
    return Form(large, 240, 32, 8192, ("s2rm_fpn", "s2rm_casg", "lavt", "slvit"), 3, 12, 768, 3)


def training(form: Form) -> Iterator[dict]:
    """Training against the usual loop; compiled; the share of the card's matrix rate."""
    data = load_study().run_config("smoke", "s2rm_casg", 0).data
    scenes = {"train": form.scenes, "val": 4}
    data = data.model_copy(update={"scenes": scenes, "image_size": form.large.data.image_size})
    config = form.large.model_copy(update={"data": data})
    name = f"s2rm_casg at {data.image_size}, {config.train.precision}"
    with tempfile.TemporaryDirectory() as folder:
        yield from rows_of(name, config, Path(folder), (3, 3))
        corpora, _ = load_corpora(data, config.model.text, ("train", "val"), Path(folder), progress=False)
        plain = our_rate(config, corpora)
        yield compared(f"matrix rate reached, {name}", "TFLOP/s", matrix_rate(form.matrix), reached(config, plain), 0.4)
        own = config.train.model_copy(update={"compile": True})
        faster = our_rate(config.model_copy(update={"train": own}), corpora)
        yield compared(f"torch.compile, {name}", "pairs/s", plain, faster)


def matrix_rate(side: int) -> float:
    """The bf16 multiply-adds a second, times two, in TFLOP/s, of a product of two matrices."""
    a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, repeats=20) / 1e12


def reached(config: RunConfig, pairs_per_second: float) -> float:
    """The model's own multiply-adds, forward and backward (three times two operations each), in TFLOP/s."""
    counted, grouped = cost(config.model), config.train.expressions_per_image
    return 6e-3 * pairs_per_second * (sum(counted.macs.values()) + (grouped - 1) * counted.further) / grouped


def memory(form: Form) -> Iterator[dict]:
    """What an update holds, against its ceiling, or without one against the plain way."""
    plain = 0.0
    for way, settings in WAYS.items():
        gigabytes = held(form.large, form.images, *settings) / 1024
        plain = plain or gigabytes
        ceiling = CEILINGS.get((way, form.images))
        what = f"memory, {way}, {form.images} images; baseline: {'the ceiling' if ceiling else 'plain'}"
        yield compared(what, "GB", ceiling or plain, gigabytes, ceiling and 1)


def evaluation(form: Form) -> Iterator[dict]:
    row = row_of("random weights", form.large.model, form.images, 2.2, warm=False)
    yield {name: row[name] for name in ("what", "unit", "baseline", "ours", "ratio", "floor")}


def small_models(form: Form) -> Iterator[dict]:
    """An update of the built-in study's models as it is, compiled, and with CUDA graphs."""
    for variant in form.small:
        trainer, batch = small_training(variant)

        def update_seconds() -> float:
            for _ in range(3):  # two compiled graphs serve every size of a batch
                trainer.step(batch)  # noqa: B023
            return seconds(lambda: trainer.step(batch), UPDATES)  # noqa: B023

        plain = update_seconds()
        trainer.learner = compiled(trainer.model)
        yield compared(f"torch.compile, update of {variant} at 128 px", "s", plain, update_seconds())
        torch.compiler.reset()
        trainer.learner = torch.compile(trainer.model, mode="reduce-overhead")  # type: ignore[assignment]
        yield compared(f"CUDA graphs, update of {variant} at 128 px", "s", plain, update_seconds())


def seeds_at_once(form: Form) -> Iterator[dict]:
    """`refstudy train` of a row's seeds, one after the other and at once, from start to end."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for at_once in (1, form.seeds):
            path = fresh(Path(folder) / str(at_once))
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            profile = content["profiles"]["smoke"]
            profile["data"]["scenes"], profile["train"]["epochs"] = {"train": form.scenes, "val": 4}, form.epochs
            path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
            study = load_study(path)
            config = study.run_config("smoke", "s2rm_fpn", 0)
            load_corpora(config.data, config.model.text, ("train", "val"), study.data_root, progress=False)
            start = time.perf_counter()
            status = train_all(study, [("smoke", "s2rm_fpn", seed) for seed in range(form.seeds)], Stop(), at_once)
            times.append(time.perf_counter() - start)
            if status:
                raise RuntimeError(f"a training ended with {status}")
    yield compared(f"{form.seeds} seeds of s2rm_fpn of smoke, one after the other against at once", "s", *times)


def fused(form: Form) -> Iterator[dict]:
    """Coparsing and CASG's convolution, compiled against as they are."""
    channels, grid, batch = form.channels, 16, 8
    maps = [torch.randn(batch, channels, grid, grid, device=DEVICE, requires_grad=True) for _ in range(2)]
    coparse = S2RM(channels, channels, (grid, grid)).coparse
    yield from rows_of_forms("coparsing, compiled", (coparse, torch.compile(coparse)), maps, maps)
    convolution = UpsampledConv((channels,), channels // 2).to(DEVICE)
    given, learned = (maps[:1], (2 * grid, 2 * grid)), (maps[0], convolution.weight)
    yield from rows_of_forms("CASG's convolution, compiled", (convolution, torch.compile(convolution)), given, learned)


def peers(form: Form) -> Iterator[dict]:
    for row in bench_peers.all_rows(form.turns):
        yield {name: row[name] for name in row if name != "interval"}


PARTS = (training, memory, evaluation, small_models, seeds_at_once, fused, peers)


def measure(form: Form, minutes: float = MINUTES) -> list[str]:
    """Write the rows, part by part; return the parts that are not whole."""
    end = time.monotonic() + 60 * minutes
    rows: list[dict] = []
    missing: list[str] = []
    for part in PARTS:
        if time.monotonic() > end:
            missing.append(f"{part.__name__}: no time was left")
            continue
        try:
            rows.extend(part(form))
        except Exception as error:
            traceback.print_exc()
            missing.append(f"{part.__name__}: {type(error).__name__}")
        if rows:
            write("gpu", rows)
    return missing


def main() -> None:
    if DEVICE.type != "cuda":
        print("no GPU is here: its table stays as it is")
        return
    sys.exit("\n".join(measure(full())) or None)


if __name__ == "__main__":
    main()
