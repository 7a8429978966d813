"""Updates of a training on one CPU core, now and at an earlier commit: ``bench_since.py [COMMIT]``.

The earlier code is unpacked from git and run in a process of its own, in turns with ours, on the same scenes.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "934e6a7"  # the last commit before the issue that asked for fast training
FLOORS = {"s2rm_casg": 1.5, "lavt": 1.5, "slvit": 1.2}  # that issue's, for a processor with AVX512-BF16
ROUNDS, UPDATES = 2, 12


def rate(root: str, variant: str) -> float:
    """Median expressions/s, of process time, over updates of ``variant`` with the code and study file in ``root``."""
    from refstudy.data.batches import grouped_batches  # the names and places of both commits

    if (Path(root) / "refstudy/study.py").exists():
        from refstudy.allocation import keep_freed_memory

        from refstudy.study import load_study
        from refstudy.training import Trainer, load_corpora
    else:
        from refstudy.base.allocation import keep_freed_memory
        from refstudy.study.load import load_study
        from refstudy.training.loop import load_corpora
        from refstudy.training.trainer import Trainer

    torch.set_num_threads(1)
    keep_freed_memory()
    study = load_study(f"{root}/papermill_runs.yaml")
    config = study.run_config("scenes", variant, 0)
    small = config.data.model_copy(update={"scenes": {"train": 300, "val": 20}})
    corpora = load_corpora(small, config.model.text, ("train", "val"), study.data_root, progress=False)
    corpora = corpora[0] if isinstance(corpora, tuple) else corpora
    trainer = Trainer(config.model_copy(update={"data": small}), corpora, study.encoders("scenes", variant))
    batches = itertools.cycle(itertools.islice(grouped_batches(corpora["train"], 14, 3, 0, 0), 6))
    rates = []
    for batch in itertools.islice(batches, UPDATES + 2):
        start = time.process_time()
        trainer.step(batch)
        rates.append(len(batch.image_index) / (time.process_time() - start))
    return statistics.median(rates[2:])


def main(commit: str = BEFORE) -> None:
    from measure import DEVICE, compared, write  # here, since it imports today's names

    if DEVICE.type != "cpu":
        raise SystemExit("of CPUs only: it counts the time of the process")
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        (Path(folder) / "data").symlink_to(ROOT / "data")
        rows = []
        for variant, floor in FLOORS.items():
            rates: dict[str, list[float]] = {folder: [], str(ROOT): []}
            for root in [folder, str(ROOT)] * ROUNDS:
                command = [sys.executable, __file__, "--rate", root, variant]
                variables = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
                output = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
                rates[root].append(float(output.stdout.split()[-1]))
            what = f"updates of {variant} at 128 px, one core; baseline: commit {commit}"
            rows.append(compared(what, "pairs/s", *(statistics.median(both) for both in rates.values()), floor))
    write("since", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rate"]:
        print(rate(*sys.argv[2:]))
    else:
        main(*sys.argv[1:])
