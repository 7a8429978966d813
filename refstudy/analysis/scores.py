"""Scores of a trained model on the data of a profile, or on your own data, with intervals."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from dask.system import CPU_COUNT

from refstudy.analysis.data_names import data_name
from refstudy.analysis.measures import jackknifed_counts, over_pictures
from refstudy.base.config import DataConfig
from refstudy.base.errors import StudyError
from refstudy.data.refer import find_below, load_table
from refstudy.data.source import prepare_data
from refstudy.models.build import default_device
from refstudy.models.segmenter import Segmenter
from refstudy.study.file import Profile
from refstudy.training.evaluation import corpus_for, evaluate, evaluation_batching


def own_data(folder: Path, dataset: str, split_by: str, settings: DataConfig) -> tuple[Path, DataConfig]:
    """Root and settings of the data set in a folder that ``data check`` accepts: of the only one, or of the one named.
    Raises StudyError for none and for several."""
    found = find_below(folder, dataset, split_by)
    if len(found) != 1:
        holds = ", ".join(f"{one.dataset} ({one.split_by}) in {root}" for root, one in found) or "no such data set"
        raise StudyError(f"--data {folder}: holds {holds}; name one by --dataset and --split-by, or its folder")
    root, one = found[0]
    return root, DataConfig(dataset=one.dataset, split_by=one.split_by, sentence_field=settings.sentence_field)


def scored(
    model: Segmenter,
    profile: Profile,
    root: Path,
    splits: Sequence[str] = (),
    own: tuple[Path, DataConfig] | None = None,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Score a model by the protocol of a profile on its data, which lie or are made under ``root``, or on ``own``,
    which ``own_data`` gives. Without ``splits`` on those of the profile or, of your own data, on all but train, where
    there are others.

    Returns the scores as text, "43.6 [40.5, 46.6]", a row per split with its data and a column per metric, in percent
    with 95 % intervals over pictures; the counts of every expression, as ``evaluate`` has them; and the
    precision of the computation.
    """
    folder, data = own or (prepare_data(profile.data, root, workers=CPU_COUNT), profile.data)
    table = load_table(data, folder)
    if not splits:
        others = [name for name in table["split"].unique() if name != "train"]
        splits = (others or ["train"]) if own else profile.splits
    how = evaluation_batching(profile.train, default_device()) | profile.evaluation.model_dump()
    cache = None if own else folder / "cache"
    corpora = {name: corpus_for(model, table, name, cache, progress) for name in splits}
    counts = {name: evaluate(model, corpus, progress=progress, **how) for name, corpus in corpora.items()}
    sized = data.model_copy(update={"image_size": model.config.image_size})
    scores = {}
    for name, some in counts.items():
        values = jackknifed_counts(some)
        scores[data_name(sized, name, profile.evaluation)] = {
            metric: over_pictures(values[metric]).percent() for metric in values
        }
    return pd.DataFrame(scores).T, pd.concat(counts.values()), how["precision"]
