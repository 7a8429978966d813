"""A training step on the CPU with freed memory kept, against a step without; each in a process of its own, in turns."""

import statistics
import subprocess
import sys

from measure import DEVICE, compared, seconds, write

from refstudy.base.allocation import keep_freed_memory
from refstudy.data.batches import grouped_batches
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import Trainer

VARIANTS, TURNS, STEPS = ("s2rm_fpn", "s2rm_casg", "slvit"), 3, 6


def step_seconds(variant: str, kept: bool) -> float:
    """Median seconds of an update at the size of profile `scenes`."""
    if kept and not keep_freed_memory():
        raise SystemExit("no glibc here: nothing to measure")
    study = load_study()
    config = study.run_config("scenes", variant, 0)
    small = config.data.model_copy(update={"scenes": {"train": 60, "val": 20}})
    config = config.model_copy(update={"data": small})
    corpora, _ = load_corpora(small, config.model.text, ("train", "val"), study.data_root, progress=False)
    trainer = Trainer(config, corpora, study.encoders("scenes", variant))
    batch = next(grouped_batches(corpora["train"], 14, 3, 0, 0))
    return seconds(lambda: trainer.step(batch), repeats=STEPS)


def main() -> None:
    if DEVICE.type != "cpu":
        raise SystemExit("of CPUs only: a GPU has an allocator of PyTorch's own")
    rows = []
    for variant in VARIANTS:
        times: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * TURNS):
            kept = bool(turn % 2)
            command = [sys.executable, __file__, variant, str(int(kept))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times[kept].append(float(done.stdout.split()[-1]))
        middle = {kept: statistics.median(of) for kept, of in times.items()}
        rows.append(compared(f"update of {variant} at 128 px, freed memory kept", "s", middle[False], middle[True], 1))
    write("allocation", rows)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(step_seconds(sys.argv[1], sys.argv[2] == "1"))
    else:
        main()
