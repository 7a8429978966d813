"""Timing for the benchmark scripts: medians, ratios against a baseline of the same run, one CSV row each."""

import csv
import datetime
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """The processor and the number of threads torch uses on it (or the GPU's name)."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    name = models[0].split(":")[1].strip() if models else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Median wall-clock seconds of ``action`` over ``repeats`` calls, after one call to warm up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def write(name: str, rows: list[dict]) -> None:
    """Print the rows and write them, with machine, torch version and date, to ``benchmarks/results/<name>.csv``."""
    stamp = {"machine": machine(), "torch": torch.__version__, "date": datetime.date.today().isoformat()}
    rows = [row | stamp for row in rows]
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items() if key not in stamp))
    print(f"on {stamp['machine']}, torch {stamp['torch']}; written to {RESULTS / name}.csv")
