"""The card that lies beside shipped weights: what they are, what they reach, and what they are not made for."""

from pathlib import Path

from refstudy.analysis.tables import data_name, interval, sampled_metrics
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write, file_digest
from refstudy.data.scenes import FLAVOURS
from refstudy.models.build import build_model, count_parameters, load_model
from refstudy.models.segmenter import Segmenter
from refstudy.study.file import ProfileStudy
from refstudy.training.records import Record, find_record, find_records

FILE_NAME = "README.md"
SHOWN = ("oIoU", "mIoU", "P@0.5", "P@0.7", "P@0.9")


def write_model_card(study: ProfileStudy) -> Path:
    """Write the card of a profile into its folder of weights; see ``model_card``."""
    path = study.folder / "weights" / FILE_NAME
    text = model_card(study)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def model_card(study: ProfileStudy) -> str:
    """The card, Markdown, of the weights that a profile ships: from the files themselves and the records of the runs
    that they come from. Weights whose settings are not those of a record have no numbers.

    Raises StudyError when there are no weights to speak of.
    """
    ships = [name for name in study.settings.ships if study.weights(name).exists()]
    if not ships:
        raise StudyError(f"profile '{study.profile}' has no shipped weights to describe; train a variant that it ships")
    models = {name: load_model(study.weights(name)) for name in ships}
    records = {name: _record(study, name, models[name]) for name in ships}
    return "\n".join(
        [
            *_head(study, models),
            *_files(study, models, records),
            *_training(records),
            *_numbers(study, records),
            *_limits(study, models),
            *_end(study, ships[0]),
        ]
    )


def _record(study: ProfileStudy, variant: str, model: Segmenter) -> Record | None:
    """The record of the run that these weights come from, if it is there and builds this very model."""
    config = study.config(variant, study.settings.ships[variant])
    record = find_record(study.folder / "records", config)
    return record if record and build_model(config.model.from_scratch()).config == model.config else None


def _head(study: ProfileStudy, models: dict[str, Segmenter]) -> list[str]:
    labels = "; ".join(study.file.variants[name].label for name in models)
    return [
        "---",
        "license: apache-2.0",
        "library_name: refstudy",
        "pipeline_tag: image-segmentation",
        "---",
        "",
        f"# {labels}, profile `{study.profile}`",
        "",
        "Models of referring image segmentation: a picture and an expression in, the mask of what is meant out. They",
        "serve the notebooks and let anyone try the code.",
        "",
        f"This page is made from run records by `refstudy card --profile {study.profile}`; do not edit it.",
    ]


def _files(study: ProfileStudy, models: dict[str, Segmenter], records: dict[str, Record | None]) -> list[str]:
    lines = [
        "",
        "## Files",
        "",
        "| file | what | parameters | pixels | words | run record | SHA-256 |",
        "|" + "---|" * 7,
    ]
    for name, model in models.items():
        path, config, record = study.weights(name), model.config, records[name]
        about = f"{study.file.variants[name].label}, half precision"
        source = f"`{record.path.name}`" if record else "none of these settings"
        lines.append(
            f"| `{path.name}` | {about} | {count_parameters(model) / 1e6:.1f} M | {config.image_size} x "
            f"{config.image_size} | {config.text.vocab_size} | {source} | `{file_digest(path)[:16]}` |"
        )
    for start in dict.fromkeys(study.file.encoders(study.profile, name) for name in models):
        if start and start.exists():
            about = "pretrained encoder that training started from"
            lines.append(f"| `{start.name}` | {about} | | | | | `{file_digest(start)[:16]}` |")
    return [*lines, "", "SHA-256: the first 16 digits. Words: pieces of the vocabulary, single characters included."]


def _training(records: dict[str, Record | None]) -> list[str]:
    lines = ["", "## Trained on", ""]
    for record in filter(None, records.values()):
        data, train, made = record.config.data, record.config.train, record.provenance()
        pictures = f"{data.scenes['train']} drawn pictures of " if "train" in data.scenes else ""
        start = f"the pretrained encoder `{train.encoder_weights[:16]}`" if train.encoder_weights else "random weights"
        if record.config.model.text.pretrained:
            start = "the published weights of its encoders"
        lines.append(
            f"- `{record.config.variant}`: {pictures}{data_name(data, 'train')}; {train.epochs} epochs "
            f"(kept: epoch {record.summary['best_epoch']}, the best on {train.selection_split}), "
            f"{record.summary['pairs']} pairs of picture and expression, from {start}; seed {record.config.seed}, "
            f"{made['training_seconds'] / 60:.0f} minutes on {made['device']}, {made['threads']} thread(s)."
        )
    return lines


def _numbers(study: ProfileStudy, records: dict[str, Record | None]) -> list[str]:
    lines = ["", "## Numbers", "", f"| model | measured on | expressions | {' | '.join(SHOWN)} |"]
    lines.append("|" + "---|" * (3 + len(SHOWN)))
    for record in filter(None, records.values()):
        config, counts = record.config, record.counts()
        for split in config.splits:
            metrics = sampled_metrics(record, split)
            cells = []
            for metric in SHOWN:
                low, high = interval(metrics[metric])
                cells.append(f"{metrics[metric][0]:.1f} [{low:.1f}, {high:.1f}]")
            where = data_name(config.data, split, config.evaluation)
            expressions = int((counts["split"] == split).sum())
            lines.append(
                f"| {study.file.variants[config.variant].label} | {where} | {expressions} | {' | '.join(cells)} |"
            )
    return [
        *lines,
        "",
        "Percent, with 95 % intervals over pictures (bootstrap); one seed, so they do not speak of the spread between",
        "trainings. Measured before the weights were rounded to half precision.",
        *filter(None, (_other_seeds(study, record) for record in records.values() if record)),
    ]


def _other_seeds(study: ProfileStudy, record: Record) -> str:
    """The results of the same training with other seeds, where they are recorded; otherwise empty."""
    config, split = record.config, record.config.splits[0]
    found = [
        f"{other.metrics[split]['oIoU']:.1f} (seed {other.config.seed})"
        for other in find_records(record.path.parent)
        if other.config != config and other.config.model_copy(update={"seed": config.seed}) == config
    ]
    label = study.file.variants[config.variant].label
    return f"\nOther trainings of {label}, overall IoU on {split}: {', '.join(found)}." if found else ""


def _limits(study: ProfileStudy, models: dict[str, Segmenter]) -> list[str]:
    lines = ["", "## What they are not", ""]
    if study.settings.data.dataset in FLAVOURS:
        words = max(model.config.text.vocab_size for model in models.values())
        lines += [
            "- **Not for photographs in earnest.** They have seen drawn scenes only. On a photo they run; how well was",
            "  not measured, and nothing good is to be expected.",
            f"- **Not for free language.** They know {words} word pieces, the words of RefScenes' grammar and single",
            "  characters; other words are spelled in characters that no training showed. `refstudy predict` names",
            "  them.",
            "- **Not comparable to printed numbers.** RefScenes is a stand-in; no number above is one of RefCOCO.",
        ]
    return [
        *lines,
        "- **Not taught to say no.** Every expression of training has a referent; notebook 08 measures what is marked",
        "  when nothing is meant.",
        "- **Not calibrated.** The score, the mean probability inside the mask, is no probability of being right.",
    ]


def _end(study: ProfileStudy, variant: str) -> list[str]:
    file = f"results/{study.profile}/weights/{variant}.safetensors"
    return [
        "",
        "## Use",
        "",
        "```sh",
        f'refstudy predict photo.jpg "the dog on the left" --weights {file}',
        "```",
        "",
        "```python",
        "from refstudy.models.build import load_model",
        "from refstudy.prediction.predict import segment_photo",
        "",
        f'model = load_model("{file}")',
        '(answer,) = segment_photo(model, "photo.jpg", ["the dog on the left"])',
        "```",
        "",
        "## Licence",
        "",
        "Apache-2.0, as the project. No third party's pictures, texts or weights went into them."
        if study.settings.data.dataset in FLAVOURS
        else "Apache-2.0, as the project; the data have terms of their own.",
        "",
    ]
