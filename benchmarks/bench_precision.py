"""An update in bfloat16 against one in float32, by model, in turns: where a processor is faster in bfloat16.

``refstudy.training.evaluation.native_bfloat16`` rests on these figures.
"""

import statistics
from unittest.mock import patch

from measure import compared, seconds, write

from refstudy.base.allocation import keep_freed_memory
from refstudy.data.batches import grouped_batches
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import Trainer

TURNS, STEPS = 3, 3
KINDS = ("float32", "bfloat16")


def main() -> None:
    keep_freed_memory()
    study, rows = load_study(), []
    for variant in ("s2rm_fpn", "s2rm_casg", "lavt", "slvit"):
        config = study.run_config("scenes", variant, 0)
        small = config.data.model_copy(update={"scenes": {"train": 60, "val": 20}})
        corpora, _ = load_corpora(small, config.model.text, ("train", "val"), study.data_root, progress=False)
        grouping = (config.train.images_per_batch, config.train.expressions_per_image)
        batch = next(grouped_batches(corpora["train"], *grouping, 0, 0))
        with patch("refstudy.training.evaluation.native_bfloat16", lambda: True):
            trainers = {}
            for kind in KINDS:
                train = config.train.model_copy(update={"precision": kind, "epochs": 99})
                its = config.model_copy(update={"data": small, "train": train})
                trainers[kind] = Trainer(its, corpora, study.encoders("scenes", variant))
            times: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for turn in range(TURNS * len(KINDS)):
                kind = KINDS[turn % len(KINDS)]
                trainer = trainers[kind]
                times[kind].append(seconds(lambda: trainer.step(batch), STEPS))  # noqa: B023
        middle = [statistics.median(times[kind]) for kind in KINDS]
        rows.append(compared(f"update of {variant} at 128 px: float32 (baseline) and bfloat16", "s", *middle))
    write("precision", rows)


if __name__ == "__main__":
    main()
