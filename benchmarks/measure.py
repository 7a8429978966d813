"""What the benchmark scripts share: median times, peak memory, and CSV rows with machine, versions and date."""

import csv
import datetime
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from refstudy.base.config import Precision
from refstudy.base.provenance import processor
from refstudy.data.batches import Batch, grouped_batches
from refstudy.models.build import default_device
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"
DEVICE = default_device()


def machine() -> str:
    """The GPU's name, or the processor and the number of threads torch uses on it."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.get_num_threads()} threads"


def seconds(
    action: Callable[[], object],
    repeats: int = 5,
    warm: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median seconds of ``action`` by a clock over ``repeats`` calls, after one call unless it is ``warm``."""
    if not warm:
        action()
    times = []
    for _ in range(repeats):
        synchronise()
        start = clock()
        action()
        synchronise()
        times.append(clock() - start)
    return statistics.median(times)


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def small_training(variant: str, precision: Precision = "float32") -> tuple[Trainer, Batch]:
    """A training of a variant of `scenes` on a few scenes, for more updates than are timed, and a batch of it."""
    study = load_study()
    config = study.run_config("scenes", variant, 0)
    data = config.data.model_copy(update={"scenes": {"train": 60, "val": 20}})
    train = config.train.model_copy(update={"precision": precision, "epochs": 99})
    corpora, _ = load_corpora(data, config.model.text, ("train", "val"), study.data_root, progress=False)
    batch = next(grouped_batches(corpora["train"], train.images_per_batch, train.expressions_per_image, 0, 0))
    config = config.model_copy(update={"data": data, "train": train})
    return Trainer(config, corpora, study.encoders("scenes", variant)), batch


def compared(what: str, unit: str, baseline: float, ours: float, floor: float | None = None) -> dict:
    """A row: both numbers, how many times better ours is (seconds and MB: less; rates: more), and the least it must be.

    ``unit`` with a stroke is a rate.
    """
    ratio = ours / baseline if "/" in unit else baseline / ours
    shown = {name: float(f"{number:.3g}") for name, number in (("baseline", baseline), ("ours", ours))}
    return {"what": what, "unit": unit} | shown | {"ratio": round(ratio, 2), "floor": "" if floor is None else floor}


def write(name: str, rows: list[dict]) -> None:
    """Print the rows and write them, with machine, torch version and date, to ``benchmarks/results/<name>.csv``."""
    stamp = {"machine": machine(), "torch": torch.__version__, "date": datetime.date.today().isoformat()}
    rows = [row | stamp for row in rows]
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items() if key not in stamp))
    print(f"on {stamp['machine']}, torch {stamp['torch']}; written to {RESULTS / name}.csv")
