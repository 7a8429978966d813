"""The pipeline at the size of the `scenes` profile: drawing scenes, training grouped by image against one by one."""

import tempfile
import time
from pathlib import Path

from measure import compared, seconds, write

from refstudy.data.batches import grouped_batches
from refstudy.data.scenes.write import make_refscenes
from refstudy.study.load import load_study
from refstudy.training.loop import load_corpora
from refstudy.training.trainer import Trainer

SCENES = 200


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make_refscenes(Path(folder), "refscenes", {"train": SCENES}, progress=False)
        rate = 60 * SCENES / (time.perf_counter() - start)
    what = "scenes of 128 px, one core; the baseline is what was asked for"
    rows.append(compared(what, "scenes/min", 1500, rate))
    study = load_study()
    run = study.run_config("scenes", "s2rm_fpn", 0)
    small = run.data.model_copy(update={"scenes": {"train": SCENES, "val": 20}})
    corpora, _ = load_corpora(small, run.model.text, ("train", "val"), study.data_root, progress=False)
    for variant in ("s2rm_fpn", "s2rm_casg"):
        config = study.run_config("scenes", variant, 0).model_copy(update={"data": small})
        rates = []
        for images, expressions in ((36, 1), (14, 3)):
            trainer = Trainer(config, corpora, study.encoders("scenes", variant))
            batch = next(grouped_batches(corpora["train"], images, expressions, 0, 0))
            rates.append(len(batch.expressions) / seconds(lambda: trainer.step(batch), repeats=4))  # noqa: B023
        what = f"{variant}: training grouped by image against one expression an image"
        rows.append(compared(what, "pairs/s", *rates))
    write("pipeline", rows)


if __name__ == "__main__":
    main()
