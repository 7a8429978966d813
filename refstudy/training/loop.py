"""Training: one plain loop, in one process or several, that can stop anywhere and goes on exactly where it stopped."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils import broadcast_object_list

from refstudy.base.allocation import keep_freed_memory
from refstudy.base.bar import bar
from refstudy.base.config import DataConfig, RunConfig, TextEncoderConfig, record_name
from refstudy.base.provenance import peak_memory
from refstudy.data.batches import Corpus, build_corpus, fingerprint
from refstudy.data.refer import load_table
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.models.build import count_parameters, halve_weights, save_weights
from refstudy.models.segmenter import Segmenter
from refstudy.training.checkpoint import resume, save
from refstudy.training.evaluation import evaluation_batching, sample_masks
from refstudy.training.records import GATE_COLUMNS, circumstances, write_record
from refstudy.training.trainer import CURVE_COLUMNS, Trainer, launched

BEST_WEIGHTS = "weights.safetensors"  # in a run's folder of work, once it is done
SHOWN_IMAGES = 24  # the images of the first counted split whose predicted masks a record keeps
STUCK = 0.95  # a gate more saturated than this is named in the line of the validation
CHECKPOINT_EVERY = 120  # seconds between two checkpoints
AGREE_EVERY = 8  # updates after which several processes agree on stopping and saving, for which all wait
Watcher = Callable[[Segmenter, int], None]
Stop = Callable[[], bool]
Remark = Callable[[int], str]  # what ``train`` adds to the line of a validation


class Unfinished(Exception):
    """A training was asked to stop and has left its checkpoint."""


def train(
    config: RunConfig,
    records: Path | str,
    work: Path | str = "work",
    data_root: Path | str | None = None,
    encoders: Path | str | None = None,
    progress: bool = True,
    watcher: Watcher | None = None,
    stop: Stop = lambda: False,
    ship: Path | str | None = None,
    remark: Remark | None = None,
) -> Path:
    """Train one run and write its record under ``records``; return the record's folder.

    ``work`` holds the run's checkpoint and, in the end, the best weights (``<run>/weights.safetensors``). A run that
    was interrupted is resumed from its checkpoint; on a CPU the record is the same, bit for bit, as without the
    interruption. ``encoders`` is the file of pretrained encoders whose SHA-256 the settings name. ``watcher`` is called
    with model and update number at the start and after every validation. ``progress`` shows bars on a terminal, and a
    line per validation elsewhere; ``remark`` adds to that line what it says of the epoch's number, and brings it to a
    terminal too. ``ship`` is a file for the best weights in half precision; it is written before the record, which says
    that the run is done.

    Under torchrun or ``accelerate launch``, all processes train this one run, each on its share of every batch and
    validation. The main process evaluates at the end and writes; the others return when it has. The updates are those
    of one process, up to rounding, except for what differs by process: random numbers (dropout, drop-path, SLViT's
    bases) and, on CPUs, the batches that batch normalisation sees.

    Raises StudyError for data, weights or checkpoints that do not fit the settings, and Unfinished once ``stop``,
    asked after every update, returns True: the same call goes on from there.
    """
    accelerator = launched()
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    name = record_name(config)
    checkpoint, weights = (Path(work) / name / file for file in ("checkpoint.pt", BEST_WEIGHTS))
    bars = progress and sys.stderr.isatty()
    with accelerator.main_process_first():
        corpora, digest = load_corpora(config.data, config.model.text, splits_of(config), data_root, bars)
    trainer = Trainer(config, corpora, encoders)
    resume(trainer, checkpoint)
    _begin_stretch(trainer, checkpoint, told=progress and accelerator.is_main_process)
    run_epochs(trainer, checkpoint, progress, watcher, stop, remark)
    if accelerator.is_main_process:
        trainer.seconds = trainer.elapsed()
        model = trainer.best_model()
        results = _results(trainer, digest, bars)
        save_weights(model, weights)
        if ship is not None:
            halve_weights(weights, ship)
        write_record(records, config, **results)
        checkpoint.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    return Path(records) / name


def _begin_stretch(trainer: Trainer, checkpoint: Path, told: bool) -> None:
    """Note the circumstances of this process; print, if ``told``, those that a user may not expect."""
    here, name, wanted = circumstances(), checkpoint.parent.name, trainer.settings.precision
    if trainer.update and told:
        line = f"{name}: goes on from update {trainer.update} of {trainer.total}"
        if (begun := trainer.stretches[-1]["commit"]) != here["commit"]:
            line += f", to which commit {begun[:7]} trained it; to begin again, delete {checkpoint}"
        print(line, flush=True)
    if trainer.precision != wanted and told:
        print(f"{name}: train.precision {wanted} is not native here; computes in {trainer.precision}")
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"precision": trainer.precision, "processes": trainer.processes, "started": started}
    trainer.stretches.append(here | about)


def _results(trainer: Trainer, data_fingerprint: str, bars: bool) -> dict[str, Any]:
    """Evaluate the best model; return what ``write_record`` takes besides the settings."""
    config, model, started = trainer.config, trainer.model, time.time()
    counts = pd.concat([trainer.counts(trainer.corpora[split], bars) for split in config.splits])
    batching = evaluation_batching(config.train, trainer.device)
    shown = trainer.corpora[config.splits[0]]
    masks = sample_masks(model, shown, SHOWN_IMAGES, config.evaluation.threshold, **batching)
    summary = {
        "data_fingerprint": data_fingerprint,
        "parameters": count_parameters(model),
        "updates": trainer.update,
        "pairs": trainer.pairs,
        "best_epoch": trainer.best_epoch,
        "val_oIoU_of_best": trainer.best,
    }
    if config.model.text.pretrained:
        summary["text_encoder"] = model.config.text.model_dump()  # its own sizes; the settings name only where it lies
    first, *resumed = trainer.stretches
    seconds = {"training_seconds": trainer.seconds, "evaluation_seconds": time.time() - started}
    provenance = first | {name: round(value, 1) for name, value in seconds.items()} | peak_memory()
    if resumed:
        provenance["resumed"] = resumed
    if trainer.published:
        provenance["published_weights"] = trainer.published
    return {
        "summary": summary,
        "curve": pd.DataFrame(trainer.curve, columns=list(CURVE_COLUMNS)),
        "counts": counts,
        "provenance": provenance,
        "masks": masks,
        "gates": pd.DataFrame(trainer.gates, columns=list(GATE_COLUMNS)),
    }


def splits_of(config: RunConfig) -> tuple[str, ...]:
    """The splits that a run needs: those for training, for the choice of the best epoch, and to be counted."""
    return tuple(dict.fromkeys(("train", config.train.selection_split, *config.splits)))


def load_corpora(
    data: DataConfig, text: TextEncoderConfig, splits: tuple[str, ...], data_root: Path | str | None, progress: bool
) -> tuple[dict[str, Corpus], str]:
    """The decoded splits of these data, made first where they can be, and the data's fingerprint.

    A pretrained text encoder brings its own vocabulary; one that starts from scratch has that of RefScenes.
    """
    root = prepare_data(data, data_root, progress=progress)
    table = load_table(data, root)
    tokenizer = build_tokenizer(text.vocabulary)
    how = (data.max_words, root / "cache", progress, data.keep_aspect)
    corpora = {split: build_corpus(table, split, data.image_size, tokenizer, *how) for split in splits}
    return corpora, fingerprint(table)


def run_epochs(
    trainer: Trainer, checkpoint: Path, progress: bool, watcher: Watcher | None, stop: Stop, remark: Remark | None
) -> None:
    """Train from where the run is to its end, leaving checkpoints on the way; raises as ``train_one_epoch``."""
    if watcher is not None and trainer.update == 0:
        watcher(trainer.model, 0)
    name = f"{trainer.config.variant}-seed{trainer.config.seed}"
    progress = progress and trainer.accelerator.is_main_process
    shown = progress and sys.stderr.isatty()
    with bar(total=trainer.total, initial=trainer.update, desc=name, shown=shown) as done:
        while trainer.update < trainer.total or trainer.awaits_validation():
            if not trainer.awaits_validation():
                train_one_epoch(trainer, checkpoint, stop, done.update)
            if trainer.awaits_validation():
                epoch = trainer.update // trainer.per_epoch
                score = f"{trainer.validate(epoch):.1f}"
                done.set_postfix(val_oIoU=score)
                if progress and (done.disable or remark):
                    measured = f"{trainer.settings.selection_split} oIoU {score}"
                    last = [row for row in trainer.gates if row["update"] == trainer.update]
                    if stuck := [row["gate"] for row in last if row["saturated"] > STUCK]:
                        measured += f"; gates at an end: {', '.join(stuck)}"
                    said = remark(epoch) if remark else ""
                    done.write(f"{name}: {trainer.update} of {trainer.total} updates, {measured}{said}")
                    sys.stdout.flush()
                if watcher is not None:
                    watcher(trainer.model, trainer.update)
            save(trainer, checkpoint)


def train_one_epoch(trainer: Trainer, checkpoint: Path, stop: Stop, updated: Callable[[], object]) -> None:
    """Train what the epoch has left, saving now and then. Raises Unfinished when ``stop`` ends it."""
    saved = time.time()
    for batch in trainer.rest_of_epoch():
        trainer.step(batch)
        updated()
        wanted = "stop" if stop() else "save" if time.time() - saved > CHECKPOINT_EVERY else ""
        if trainer.processes > 1:  # the main one says
            wanted = "" if trainer.update % AGREE_EVERY else broadcast_object_list([wanted])[0]
        if wanted:
            save(trainer, checkpoint)
            saved = time.time()
        if wanted == "stop":
            about = f"{record_name(trainer.config)}: stopped after {trainer.update} of {trainer.total} updates"
            raise Unfinished(f"{about}; the same command goes on")
