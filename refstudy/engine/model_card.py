"""The card of shipped weights: what they are, what they reach, and what they are not made for."""

from collections.abc import Iterator
from pathlib import Path

import jinja2

from refstudy.analysis.data_names import data_name
from refstudy.analysis.measures import jackknifed_metrics, over_pictures
from refstudy.base.errors import StudyError
from refstudy.base.files import file_digest, write_text
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.models.build import build_model, count_parameters, halve_weights, load_model
from refstudy.models.segmenter import Segmenter
from refstudy.study.file import ProfileStudy
from refstudy.training.loop import BEST_WEIGHTS
from refstudy.training.records import Record, find_record, find_records

FILE_NAME = "README.md"
TEMPLATES = Path(__file__).parent / "templates"
SHOWN = ("oIoU", "mIoU", "P@0.5", "P@0.7", "P@0.9")


def ship(study: ProfileStudy) -> list[Path]:
    """Write the weights of the runs that a profile ships, in half precision, from the folders in which these runs were
    trained; return the files. A run that was not trained here, or has no record, leaves its file as it is.

    So a profile can name the best of several seeds after they have been trained.
    """
    written = []
    for variant, seed in study.settings.ships.items():
        record = find_record(study.folder / "records", study.config(variant, seed))
        if record and (best := study.work / record.path.name / BEST_WEIGHTS).exists():
            halve_weights(best, study.weights(variant))
            written.append(study.weights(variant))
    return written


def write_model_card(study: ProfileStudy) -> Path:
    """Write the card of a profile into its folder of weights; see ``model_card``."""
    path = study.folder / "weights" / FILE_NAME
    write_text(path, model_card(study))
    return path


def model_card(study: ProfileStudy) -> str:
    """The card, Markdown, of the weights that a profile ships: from the files themselves and the records of the runs
    that they come from. Weights whose settings are not those of a record have no numbers.

    Raises StudyError when there are no weights.
    """
    ships = [name for name in study.settings.ships if study.weights(name).exists()]
    if not ships:
        raise StudyError(f"profile '{study.profile}' has no shipped weights to describe; train a variant that it ships")
    models = {name: load_model(study.weights(name)) for name in ships}
    records = {name: _record(study, name, models[name]) for name in ships}
    starts = dict.fromkeys(study.file.encoders(study.profile, name) for name in ships)
    loader = jinja2.FileSystemLoader(TEMPLATES)
    page = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    page.filters |= {
        "label": study.label,
        "digest": lambda path: file_digest(path)[:16],
        "parameters": count_parameters,
        "named": data_name,
        "numbers": lambda record: _numbers(study, record),
        "other_seeds": _other_seeds,
    }
    return page.get_template("card.md.j2").render(
        study=study,
        models=models,
        records=records,
        trained=[record for record in records.values() if record],
        encoders=[start for start in starts if start and start.exists()],
        shown=SHOWN,
        drawn=study.settings.data.dataset in FLAVOURS,
    )


def _record(study: ProfileStudy, variant: str, model: Segmenter) -> Record | None:
    """The record of the run that these weights come from, if it is there and builds this very model."""
    config = study.config(variant, study.settings.ships[variant])
    record = find_record(study.folder / "records", config)
    return record if record and build_model(config.model.from_scratch()).config == model.config else None


def _numbers(study: ProfileStudy, record: Record) -> Iterator[list[str]]:
    """The cells of a row for each split: model, data, expressions, ``SHOWN`` with their intervals."""
    config = record.config
    for split in config.splits:
        metrics = jackknifed_metrics(record, split)
        cells = [over_pictures(metrics[name]).percent() for name in SHOWN]
        about = (study.label(config.variant), data_name(config.data, split, config.evaluation))
        yield [*about, str(len(record.counts(split))), *cells]


def _other_seeds(record: Record) -> str:
    """The results of the same training with other seeds, where they are recorded; otherwise empty."""
    config, split = record.config, record.config.splits[0]
    return ", ".join(
        f"{other.metrics[split]['oIoU']:.1f} (seed {other.config.seed})"
        for other in sorted(find_records(record.path.parent), key=lambda one: one.config.seed)
        if other.config != config and other.config.model_copy(update={"seed": config.seed}) == config
    )
