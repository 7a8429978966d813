"""The training of notebook 04: a small one that runs in the notebook, or one that has its record."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from refstudy.analysis.data_names import data_name
from refstudy.analysis.measures import jackknifed_counts, over_pictures
from refstudy.analysis.opened import OpenStudy
from refstudy.analysis.scene_things import scene_things
from refstudy.analysis.table_text import with_interval
from refstudy.analysis.word_use import mask_agreement
from refstudy.analysis.wordless import WORDLESS, best_wordless_counts, wordless_counts
from refstudy.base.config import RunConfig
from refstudy.data.batches import Corpus
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.data.source import prepare_data
from refstudy.models.segmenter import Segmenter
from refstudy.training.evaluation import predictions, summarize_counts, whole_image_counts
from refstudy.training.loop import load_corpora, train
from refstudy.training.records import Record, read_record

PICTURES = 2  # for each of which the masks of two things are kept


class Moment(NamedTuple):
    """The state of a training after so many updates: overall IoU, and the masks (S, S) of the expressions shown."""

    update: int
    oIoU: float
    masks: list[np.ndarray]


@dataclass(frozen=True)
class Training:
    """A training: its settings, what its record holds, the pictures ``val`` of its first split, the rows of the
    expressions ``shown``, and its moments, which only a live one has. ``counts`` are those of ``val`` by the best
    epoch; ``agreement`` is that of ``mask_agreement``."""

    study: OpenStudy
    config: RunConfig
    summary: dict[str, Any]
    curve: pd.DataFrame
    gates: pd.DataFrame
    counts: pd.DataFrame
    agreement: dict[str, Any]
    val: Corpus
    shown: list[int]
    moments: list[Moment]

    @property
    def name(self) -> str:
        """The label of the variant."""
        return self.study.label(self.config.variant)

    @property
    def measured_on(self) -> str:
        """The data of ``val``."""
        return data_name(self.config.data, self.config.splits[0], self.config.evaluation)


def train_live(study: OpenStudy) -> Training:
    """Train the profile's ``live`` run, which leaves nothing behind, and keep its moments: before the first update and
    after every epoch."""
    config = study.file.live_config(study.profile)
    val, moments = _val(study, config), list[Moment]()
    shown = two_things_each(val)

    def watch(model: Segmenter, update: int) -> None:
        masks = np.zeros((len(val.table), val.image_size, val.image_size), bool)
        with torch.inference_mode():
            for part, logits in predictions(model, val):
                masks[part.expressions] = (logits > 0).numpy(force=True)
        truths = val.mask(val.ref_of_expression)
        score = 100 * (masks & truths).sum() / (masks | truths).sum()
        moments.append(Moment(update, float(score), [masks[row] for row in shown]))

    with tempfile.TemporaryDirectory() as temporary:
        folders = (Path(temporary) / "records", Path(temporary) / "work", study.file.data_root)
        encoders = study.file.encoders(study.profile, config.variant)
        record = read_record(train(config, *folders, encoders, progress=False, watcher=watch))
        return _training(study, record, val, moments)


def recorded(study: OpenStudy, variant: str, seed: int) -> Training:
    """A run of the study from its record. Raises StudyError, with the command that makes it, where there is none."""
    return _training(study, study.record(variant, seed), _val(study, study.config(variant, seed)), [])


def _training(study: OpenStudy, record: Record, val: Corpus, moments: list[Moment]) -> Training:
    counts = record.counts(record.config.splits[0])
    read = (record.summary, record.curve(), record.gates(), counts, mask_agreement(record))
    return Training(study, record.config, *read, val, two_things_each(val), moments)


def _val(study: OpenStudy, config: RunConfig) -> Corpus:
    split = config.splits[0]
    corpora, _ = load_corpora(config.data, config.model.text, (split,), study.file.data_root, progress=False)
    return corpora[split]


def two_things_each(corpus: Corpus) -> list[int]:
    """Two expressions, for two things, about each of the first pictures that have them: rows of the corpus's table."""
    found: list[int] = []
    for image in range(len(corpus.images)):
        rows = corpus.rows_about(image)
        others = rows[corpus.ref_of_expression[rows] != corpus.ref_of_expression[rows[0]]]
        if len(others) and len(found) < 2 * PICTURES:
            found += [int(rows[0]), int(others[0])]
    return found


def floors(training: Training) -> dict[str, pd.DataFrame]:
    """The counts of masks that ignore the words, by name, the best of them last: of the whole picture, of every thing,
    where the data annotate all things, and of the best mask without words."""
    val, data = training.val, training.config.data
    found = {"marking the whole picture": whole_image_counts(val)}
    if data.dataset in FLAVOURS:
        root = prepare_data(data, training.study.file.data_root, progress=False)
        things = scene_things(root, data.dataset, val.table["image_id"].unique(), val.image_size)
        found[f"marking {WORDLESS['every']}"] = wordless_counts(val, things)
    return found | {WORDLESS["best"]: best_wordless_counts(val)}


def scores(training: Training, floors: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The metrics of the masks that ignore the words and of the training's best epoch, in percent."""
    rows = {name: summarize_counts(counts) for name, counts in floors.items()}
    if training.moments:
        rows[f"{training.name}, before training"] = {"oIoU": training.moments[0].oIoU}
    rows[f"{training.name}, best epoch ({training.summary['best_epoch']})"] = summarize_counts(training.counts)
    return pd.DataFrame(rows).T


def verdict(training: Training, floor: pd.DataFrame) -> list[str]:
    """Sentences that say whether the masks show that the model uses the words, against the counts of the best mask
    without words."""
    own = jackknifed_counts(training.counts)["oIoU"]
    gain, agreement = over_pictures(own - jackknifed_counts(floor)["oIoU"]), training.agreement
    low, high = gain.interval()
    if low > 0:
        answer = "Yes, it uses the words: no mask that ignores them can have so high an overall IoU."
    elif agreement and agreement["other_high"] < agreement["same_low"]:
        answer = "In part. The masks change with the words, though the score alone would not show it."
    else:
        answer = "No. Neither the score nor the masks show that the model uses the words."
    where = f"{training.measured_on}, {len(training.val.images)} pictures"
    reached = f"{own[0]:.1f} % overall IoU, {gain.points:+.1f} [{low:+.1f}, {high:+.1f}] points against"
    lines = [answer, f"It reaches {reached} the best mask without words ({where})."]
    scores, best = summarize_counts(training.counts), summarize_counts(floor)
    if behind := [name for name, score in scores.items() if score < best[name]]:
        lines.append(f"Its masks are still poor: the best mask without words scores higher in {', '.join(behind)}.")
    if agreement:
        other, same = (with_interval(pd.DataFrame([agreement]), pair, digits=0)[0] for pair in ("other", "same"))
        lines.append(
            f"Two expressions for different things: their masks overlap by {other} % (best: 0). Two expressions for "
            f"the same thing: by {same} % (best: 100). A model that ignores the words has 100 in both."
        )
    return lines
