"""An update of SLViT on the CPU with its strips as they are computed, against plain convolutions; in turns."""

import statistics
from contextlib import nullcontext
from unittest.mock import patch

from measure import DEVICE, compared, seconds, write
from torch import nn

from refstudy.base.allocation import keep_freed_memory
from refstudy.data.batches import grouped_batches
from refstudy.models.fusion.lmfa import Strip
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import Trainer

TURNS, STEPS = 3, 3


def main() -> None:
    if DEVICE.type != "cpu":
        raise SystemExit("of CPUs only: on a GPU the strips are plain convolutions")
    keep_freed_memory()
    study, rows = load_study(), []
    for variant in ("slvit", "slvit_strip21"):
        config = study.run_config("scenes", variant, 0)
        small = config.data.model_copy(update={"scenes": {"train": 60, "val": 20}})
        longer = config.train.model_copy(update={"epochs": 99})  # more updates than are timed
        config = config.model_copy(update={"data": small, "train": longer})
        corpora, _ = load_corpora(small, config.model.text, ("train", "val"), study.data_root, progress=False)
        trainer = Trainer(config, corpora, study.encoders("scenes", variant))
        batch = next(grouped_batches(corpora["train"], 14, 3, 0, 0))
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        for turn in range(2 * TURNS):
            plain = turn % 2 == 0
            with patch.object(Strip, "forward", nn.Conv2d.forward) if plain else nullcontext():
                times["plain" if plain else "ours"].append(seconds(lambda: trainer.step(batch), STEPS))  # noqa: B023
        rows.append(compared(f"update of {variant} at 128 px", "s", *map(statistics.median, times.values()), 1))
    write("strips", rows)


if __name__ == "__main__":
    main()
