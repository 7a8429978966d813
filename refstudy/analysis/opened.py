"""A study under one profile, opened: its tables, run records, models and data by name.

This module loads nothing heavy; what a method needs is loaded when it is called.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refstudy.base.errors import StudyError
from refstudy.study import FILE_NAME
from refstudy.study.file import ProfileStudy, training_command
from refstudy.study.load import load_study

if TYPE_CHECKING:
    import pandas as pd

    from refstudy.data.batches import Corpus
    from refstudy.models.segmenter import Segmenter
    from refstudy.training.records import Record


@dataclass(frozen=True)
class OpenStudy(ProfileStudy):
    """A study file under one of its profiles, with the content of its ``folder`` of results."""

    def table(self, stem: str) -> "pd.DataFrame":
        """A table, e.g. "s2rm_table4" or "claims", computed from the records; the function of
        ``refstudy.analysis.results`` that makes it names its columns.

        Raises StudyError for an unknown table.
        """
        from refstudy.analysis.results import BUILDERS

        if stem not in BUILDERS:
            raise StudyError(f"no table '{stem}'; known: {', '.join(sorted(BUILDERS))}")
        return BUILDERS[stem](self)

    def records(self, variant: str) -> "list[Record]":
        """The run records of a variant, one per seed that has been run."""
        from refstudy.analysis.rows import variant_records

        self.config(variant)  # is the variant known?
        return variant_records(self, variant)

    def record(self, variant: str, seed: int = 0) -> "Record":
        """The record of one run. Raises StudyError when it has none."""
        from refstudy.training.records import find_record

        records = self.records_of(variant)
        found = find_record(records, self.config(variant, seed))
        if found is None:
            remedy = f"make it with `{training_command(self.profile, variant, seed)}`"
            raise StudyError(f"{records}: no record of {variant}, seed {seed}; {remedy}")
        return found

    def model(self, variant: str = "s2rm_casg") -> "Segmenter":
        """The trained model of a variant whose weights are kept. Raises StudyError for a variant without weights."""
        from refstudy.models.build import load_model

        self.config(variant)
        path = self.weights(variant)
        if not path.exists():
            ships = ", ".join(self.settings.ships) or "none"
            raise StudyError(f"{path}: no weights; profile '{self.profile}' keeps those of: {ships}")
        return load_model(path)

    def corpus(self, split: str = "val", variant: str = "s2rm_casg", scenes: int | None = None) -> "Corpus":
        """The pictures and expressions of a split, prepared as for a variant; with ``scenes`` only the first so many
        pictures. Where RefScenes is missing, this split of it is drawn. Raises StudyError for missing data and unknown
        splits."""
        from refstudy.data.batches import build_corpus
        from refstudy.data.refer import load_table
        from refstudy.data.scenes.flavours import FLAVOURS
        from refstudy.data.source import prepare_data, scenes_root
        from refstudy.data.words import build_tokenizer

        config, root = self.config(variant), self.file.data_root
        data, drawn = config.data, config.data.dataset in FLAVOURS
        if drawn and split not in data.scenes:
            raise StudyError(f"{data.dataset} has no split '{split}' here; it has {', '.join(data.scenes)}")
        if drawn and (scenes is not None or not (scenes_root(data, root) / data.dataset).exists()):
            data = data.model_copy(update={"scenes": {split: scenes or data.scenes[split]}})
        table = load_table(data, prepare_data(data, root, progress=False))
        tokenizer = build_tokenizer(config.model.text.vocabulary)
        return build_corpus(
            table, split, data.image_size, tokenizer, data.max_words, progress=False, keep_aspect=data.keep_aspect
        )


def open_study(profile: str = "scenes", study: str | Path = FILE_NAME, results: str = "") -> OpenStudy:
    """Open a study file under one of its profiles; ``results`` names another folder than the profile's own.

    Raises StudyError for mistakes in the file and for an unknown profile.
    """
    under = load_study(study).under(profile, results)
    return OpenStudy(under.file, under.profile, under.folder)
