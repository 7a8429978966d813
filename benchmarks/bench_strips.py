"""An update of SLViT on the CPU with its strips as they are computed, against plain convolutions; in turns."""

import statistics
from contextlib import nullcontext
from unittest.mock import patch

from measure import DEVICE, compared, seconds, small_training, write
from torch import nn

from refstudy.base.allocation import keep_freed_memory
from refstudy.models.fusion.lmfa import Strip

TURNS, STEPS = 3, 3


def main() -> None:
    if DEVICE.type != "cpu":
        raise SystemExit("of CPUs only: on a GPU the strips are plain convolutions")
    keep_freed_memory()
    rows = []
    for variant in ("slvit", "slvit_strip21"):
        trainer, batch = small_training(variant)
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        for turn in range(2 * TURNS):
            plain = turn % 2 == 0
            with patch.object(Strip, "forward", nn.Conv2d.forward) if plain else nullcontext():
                times["plain" if plain else "ours"].append(seconds(lambda: trainer.step(batch), STEPS))  # noqa: B023
        rows.append(compared(f"update of {variant} at 128 px", "s", *map(statistics.median, times.values()), 1))
    write("strips", rows)


if __name__ == "__main__":
    main()
