"""The names of data, as tables and figures state what a number was measured on."""

from refstudy.base.config import THRESHOLD, DataConfig, EvaluationConfig
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.study.file import ProfileStudy
from refstudy.training.records import Record

USUAL = EvaluationConfig()
DATA_NAMES = {
    "refscenes": "RefScenes",
    "refscenes+": "RefScenes+",
    "refscenesg": "RefScenesG",
    "referscenes": "ReferScenes",
    "refcoco": "RefCOCO",
    "refcoco+": "RefCOCO+",
    "refcocog": "RefCOCOg",
    "refclef": "ReferIt",
}


def data_name(data: DataConfig, split: str, evaluation: EvaluationConfig = USUAL) -> str:
    """The data that a number was measured on, e.g. "RefScenes val, 128 px" or "RefCOCO (unc) val, 512 px"; and the way
    of measuring, where it is not the usual one."""
    drawn = FLAVOURS.get(data.dataset)
    partition = f" ({data.split_by})" if drawn is None or len(drawn.partitions) > 1 else ""
    name = DATA_NAMES.get(data.dataset, data.dataset) + partition
    kinds = f" ({' and '.join(data.kinds)})" if data.kinds else ""
    raw = ", raw sentences" if data.sentence_field == "raw" else ""
    original = ", counted at the original size" if evaluation.resolution == "original" else ""
    threshold = f", threshold {evaluation.threshold:g}" if evaluation.threshold != THRESHOLD else ""
    return f"{name} {split}{kinds}, {data.image_size} px{raw}{original}{threshold}"


def measured_on(study: ProfileStudy) -> str:
    """The usual data of a profile's numbers: ``data_name`` of its first split."""
    settings = study.settings
    return data_name(settings.data, settings.splits[0], settings.evaluation)


def measured_by(records: list[Record] | tuple[Record, ...], split: str) -> str:
    """The data that these records of one variant were measured on, ``data_name`` of a split; empty without records."""
    config = records[0].config if records else None
    return data_name(config.data, split, config.evaluation) if config else ""
