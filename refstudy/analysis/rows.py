"""The run records behind the rows of tables: which variant fills a row, and which of its runs are recorded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refstudy.base.errors import StudyError
from refstudy.papers.printed.specs import SPECS
from refstudy.study.file import ProfileStudy, training_command
from refstudy.training.records import Record, find_record


def seed_records(study: ProfileStudy, variant: str, seeds: Iterable[int]) -> list[Record]:
    """The records of a variant with exactly the profile's settings, of these seeds as far as they have been run."""
    found = (find_record(study.records_of(variant), study.config(variant, seed)) for seed in seeds)
    return [record for record in found if record is not None]


def variant_records(study: ProfileStudy, variant: str) -> list[Record]:
    """``seed_records`` of the seeds that count for the variant. Raises StudyError when two were measured on different
    data or computed in different precisions."""
    records = seed_records(study, variant, study.seeds(variant))
    refuse_unlike(records)
    return records


def recorded(study: ProfileStudy) -> dict[str, list[Record]]:
    """The records of every variant of the profile that has any."""
    return {variant: records for variant in study.variant_names if (records := variant_records(study, variant))}


def missing_runs(study: ProfileStudy, variant: str, records: list[Record]) -> str:
    """The command that trains the seeds of a variant that are not among its ``records``; empty when none is missing."""
    unseen = set(study.seeds(variant)) - {record.config.seed for record in records}
    return training_command(study.profile, variant) if unseen else ""


def refuse_unlike(records: list[Record]) -> None:
    """Raise StudyError for runs of different data or precisions, whether of one row or of two that are compared."""
    for record in records[1:]:
        if record.summary.get("data_fingerprint") != records[0].summary.get("data_fingerprint"):
            raise StudyError(
                f"{records[0].path} and {record.path}: measured on different data (data_fingerprint); "
                "train one of them again"
            )
    kinds = {record.provenance().get("precision", "float32"): record.path for record in records}
    if len(kinds) > 1:
        names = " and ".join(f"{path} in {kind}" for kind, path in sorted(kinds.items()))
        raise StudyError(f"{names}: runs that are compared are computed in one precision; train one of them again")


@dataclass(frozen=True)
class Row:
    """The variant that fills a printed row under a profile, and its records with exactly that profile's settings, one
    per seed that has been run. ``missing``: the command that trains the other seeds. By default no variant does."""

    profile: str = ""
    variant: str = ""
    records: list[Record] | tuple[Record, ...] = ()
    missing: str = ""


def table_rows(stem: str, study: ProfileStudy, profiles: Sequence[str] | None = None) -> dict[str, Row]:
    """Row as printed -> the ``Row`` that fills it, from ``profiles``. By default these are this profile and those named
    in its ``beside`` with the same data, first the one that trains most of the table, so that compared rows have one
    encoder."""
    if profiles is None:
        near = study.file.compared(study.profile)
        of_table = {name for name, variant in study.file.variants.items() if stem in variant.tables}
        profiles = sorted(near, key=lambda name: -len(of_table.intersection(study.file.variant_names(name))))
    found = {}
    for row, (name, variant) in study.file.rows(stem, profiles).items():
        trainer = study.beside(name)
        records = variant_records(trainer, variant)
        found[row] = Row(name, variant, records, missing_runs(trainer, variant, records))
    return found


def benchmark_splits(study: ProfileStudy) -> dict[str, tuple[str, list[str]]]:
    """Column of the tables over benchmarks, e.g. "RefCOCOg val-U" -> the split, and the profiles that have it, among
    this one and those named in its ``beside``."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name in study.file.together(study.profile):
        settings = study.file.profile(name)
        columns = SPECS.columns.get(f"{settings.data.dataset} {settings.data.split_by}", {})
        for split in settings.splits:
            if split in columns:
                found.setdefault(columns[split], (split, []))[1].append(name)
    return found
