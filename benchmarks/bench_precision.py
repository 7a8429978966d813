"""An update in bfloat16 against one in float32, by model, in turns: where a processor is faster in bfloat16.

``refstudy.training.evaluation.native_bfloat16`` rests on these figures.
"""

import statistics
from unittest.mock import patch

from measure import compared, seconds, small_training, write

from refstudy.base.allocation import keep_freed_memory

TURNS, STEPS = 3, 3
KINDS = ("float32", "bfloat16")


def main() -> None:
    keep_freed_memory()
    rows = []
    for variant in ("s2rm_fpn", "s2rm_casg", "lavt", "slvit"):
        with patch("refstudy.training.evaluation.native_bfloat16", lambda: True):
            trainings = {kind: small_training(variant, kind) for kind in KINDS}
            times: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for turn in range(TURNS * len(KINDS)):
                kind = KINDS[turn % len(KINDS)]
                trainer, batch = trainings[kind]
                times[kind].append(seconds(lambda: trainer.step(batch), STEPS))  # noqa: B023
        middle = [statistics.median(times[kind]) for kind in KINDS]
        rows.append(compared(f"update of {variant} at 128 px: float32 (baseline) and bfloat16", "s", *middle))
    write("precision", rows)


if __name__ == "__main__":
    main()
