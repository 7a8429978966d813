"""A module of your own, trained as the study's baselines were, and compared with their records.

One folder holds all of it: a copy of the class, a study file that names it, checkpoints, run records, tables and a
page.
"""

import math
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refstudy.analysis.compared import Compared, epoch_scores, few, smallest_gains, usual_baselines
from refstudy.analysis.data_names import measured_on
from refstudy.analysis.inference import LOOKS
from refstudy.base.config import record_name
from refstudy.base.errors import NoNumber, StudyError
from refstudy.data.batches import Corpus
from refstudy.engine.comparison_file import Sources, Written
from refstudy.engine.comparison_page import write_comparison
from refstudy.engine.needs import refuse_without
from refstudy.engine.signals import UNFINISHED, Stop
from refstudy.engine.trainings import refuse_options, train_all
from refstudy.models.build import build_model, default_device
from refstudy.models.first_bad import FirstBad
from refstudy.models.own_parts import last_line
from refstudy.study.file import training_command
from refstudy.training.checkpoint import BROKEN, resume
from refstudy.training.evaluation import precision_on
from refstudy.training.loop import load_corpora, splits_of
from refstudy.training.records import find_record
from refstudy.training.trainer import Trainer

WARM, TIMED, EVALUATED = 2, 6, 16  # updates before those that are timed, these, and the pictures of a timed evaluation
Corpora = dict[str, Corpus]


def opened(written: Written) -> Compared:
    """Open a comparison, whose baselines are, if none are named, ``usual_baselines``."""
    under, own = written.study, written.own
    baselines = written.against or usual_baselines(under, own)
    return Compared(under.file, under.profile, under.folder, own, written.planned, baselines)


def compare(written: Written, minutes: float | None, at_once: int, scheduler: str) -> int:
    """Train the planned seeds that have no record; write tables and page of those that have; return an exit status.

    It is 0 when all are recorded, ``UNFINISHED`` when the rest waits for the same command, and 1 when a run failed.
    ``minutes``: no seed is begun that would not end by then. ``at_once`` and ``scheduler`` are those of ``train_all``.

    Raises StudyError, before anything is trained, where no seed would end in time, or the baselines have other data or
    another precision than runs here would have; and, with file and line, for errors of your own class.
    """
    refuse_options(len(written.planned), False, at_once, False, scheduler)
    study, sources = opened(written), written.sources
    end, stop, status = math.inf if minutes is None else time.monotonic() + 60 * minutes, Stop(), 0
    cases = {seed: (study.profile, study.own, seed) for seed in study.planned}
    records = study.records_of(study.own)
    todo = [seed for seed in cases if find_record(records, study.config(study.own, seed)) is None]
    corpora: Corpora = {}
    if todo:
        refuse_without(study.file, [study.profile], [cases[seed] for seed in todo])
        with _errors_told(study, sources, todo[0], corpora), torch.device("meta"):  # before data are made
            build_model(study.config(study.own).model.from_scratch())
        print("\n".join(_introduction(study)), flush=True)
        corpora |= _comparable_data(study)
        with _errors_told(study, sources, todo[0], corpora):
            seconds = _trial(study, sources, todo, corpora)
        size = len(todo) if scheduler else at_once
        groups = [todo[k : k + size] for k in range(0, len(todo), size)]
        together = max if torch.cuda.device_count() >= size else sum  # a GPU each; else they share what there is
        needed = [together(seconds[seed] for seed in group) for group in groups]
        times = f"a seed takes about {_minutes(max(seconds.values()))} here, seeds to train: {len(todo)}, in all"
        print(f"{times} {_minutes(sum(needed))}; Ctrl-C saves, and the same command goes on", flush=True)
        if time.monotonic() + needed[0] > end:
            raise StudyError(
                f"--minutes {minutes:g}: the first seed takes about {_minutes(needed[0])} here, and none is trained in "
                f"part; give --minutes {math.ceil(needed[0] / 60) + 5} or more, or leave it out"
            )
        scores = {study.label(name): epochs for name, epochs in epoch_scores(study).items()}
        of = study.config(study.own).train.epochs

        def remark(epoch: int) -> str:
            had = [f"{label} had {epochs[epoch]:.1f}" for label, epochs in scores.items() if epoch in epochs]
            return "; ".join([f"; epoch {epoch} of {of}", *had])

        for group, time_needed in zip(groups, needed, strict=True):
            if time.monotonic() + time_needed > end:
                print(f"no further seed would end within {minutes:g} minutes; the same command goes on", flush=True)
                status = UNFINISHED
                break
            with _errors_told(study, sources, group[0], corpora):
                how = (stop, min(at_once, len(group)), False, scheduler, remark)
                status = train_all(study.file, [cases[seed] for seed in group], *how)
            if status:
                break
    if study.records(study.own):
        print("\n".join(write_comparison(study, list(sources), corpora)), flush=True)
    return status


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds / 60)} min"


def _introduction(study: Compared) -> Iterator[str]:
    """Say what is compared, which baselines have no run, and which gains the seeds can show."""
    recorded, seeds = study.recorded(), len(study.planned)
    yield f"{study.label(study.own)}, seeds {', '.join(map(str, study.planned))}, on {measured_on(study)}"
    if seeds < LOOKS[0]:
        yield few(seeds)
    for name, gain in smallest_gains(study).items():
        runs = len(recorded[name])
        said = [few(runs, " of it")] if runs < LOOKS[0] else []
        if gain == gain and seeds >= LOOKS[0]:
            said.append(f"a gain of {gain:.1f} points will be found with a chance of 80 %")
        yield ": ".join(filter(None, [f"over {study.label(name)} ({runs} recorded)", "; then ".join(said)]))
    for name in study.baselines:
        if name not in recorded:
            yield f"left out: {study.label(name)}, no run recorded; `{training_command(study.profile, name)}`"


def _comparable_data(study: Compared) -> Corpora:
    """The data of the runs. Raises StudyError where a baseline was computed in another precision, or on other data."""
    config = study.config(study.own)
    firsts = [records[0] for records in study.recorded().values()]
    precision = precision_on(default_device(), config.train.precision)
    for record in firsts:
        theirs = record.provenance().get("precision", "float32")
        if theirs != precision:
            raise StudyError(
                f"{record.path}: computed in {theirs}, and a run here would be in {precision}; these are not compared "
                "(docs/decisions.md, precision): use a machine like that one, or name other baselines by --against"
            )
    root, shown = study.file.data_root, sys.stderr.isatty()
    corpora, digest = load_corpora(config.data, config.model.text, splits_of(config), root, shown)
    for record in firsts:
        if record.summary.get("data_fingerprint") != digest:
            remedy = "bring the same data, or name other baselines by --against"
            raise StudyError(f"{record.path}: measured on other data than those in {root} (data_fingerprint); {remedy}")
    return corpora


def _trainer(study: Compared, seed: int, corpora: Corpora) -> Trainer:
    """A run as it begins."""
    with chdir(study.file.root):
        return Trainer(study.config(study.own, seed), corpora, study.file.encoders(study.profile, study.own))


def _checkpoint(study: Compared, seed: int) -> Path:
    run = record_name(study.config(study.own, seed))
    return study.work / run / "checkpoint.pt"


def _trial(study: Compared, sources: Sources, seeds: Sequence[int], corpora: Corpora) -> dict[int, float]:
    """The seconds that each of these seeds still takes here, from a few updates and evaluated pictures that are timed.

    Raises StudyError for a class whose result has another shape than its interface says.
    """
    trainer = _trainer(study, seeds[0], corpora)
    for kind in ("fusion", "decoder"):
        part = getattr(trainer.model, kind, None)
        if part is not None and Path(type(part).forward.__code__.co_filename) in sources:
            part.register_forward_hook(_shape_check(kind, sources))
    began, steps = time.monotonic(), 0
    for steps, batch in enumerate(islice(trainer.rest_of_epoch(), WARM + TIMED), 1):
        trainer.step(batch)
        if steps == WARM:
            trainer.finite_loss()  # waits for the device
            began = time.monotonic()
    trainer.finite_loss()
    update = (time.monotonic() - began) / (steps - WARM if steps > WARM else max(steps, 1))
    train, selection = trainer.settings, corpora[trainer.settings.selection_split]
    some, began = selection.subset(EVALUATED), time.monotonic()
    trainer.counts(some)
    picture = (time.monotonic() - began) / len(some.images)
    validated = min(train.validation_images or math.inf, len(selection.images))
    pictures = validated * math.ceil(train.epochs / train.evaluate_every)
    pictures += sum(len(corpora[split].images) for split in trainer.config.splits)
    done = dict.fromkeys(seeds, 0)
    for seed in seeds:
        path = _checkpoint(study, seed)
        with suppress(*BROKEN):  # the training will say what is wrong with it
            done[seed] = torch.load(path, mmap=True, weights_only=True)["update"] if path.exists() else 0
    return {seed: (trainer.total - done[seed]) * update + pictures * picture for seed in seeds}


def _shape_check(kind: str, sources: Sources):
    """A hook that checks the shape of a result against ``refstudy.models.interfaces``."""

    def check(part: nn.Module, given: tuple, result: Any) -> None:
        expected = tuple(given[0].shape) if kind == "fusion" else (len(given[1]), 1)
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        if found[: len(expected)] != expected:
            code = type(part).forward.__code__
            place = f"{sources[Path(code.co_filename)]}:{code.co_firstlineno}"
            raise StudyError(f"{place}: forward returns {found}; return {expected} (refstudy/models/interfaces.py)")

    return check


@contextmanager
def _errors_told(study: Compared, sources: Sources, seed: int, corpora: Corpora) -> Iterator[None]:
    """Turn errors of the compared class, wherever they show in the block, into a line with file, line and remedy."""
    try:
        yield
    except NoNumber as error:
        if not (place := _where_no_number(study, sources, seed, corpora)):
            raise
        remedy = "keep divisors, and what is under a root or in a logarithm, away from 0, and exponents small"
        raise StudyError(f"{place}; {remedy}") from error
    except Exception as error:
        place, first = _place(error, sources), error
        while isinstance(first.__cause__, Exception):
            first = first.__cause__
        text = str(first).strip() or "no message"
        said = f"{type(first).__name__}: {text.splitlines()[0]}"
        if isinstance(first, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text:
            remedy = f"out of memory ({said}); make its maps smaller or use a larger machine"
            raise StudyError(f"{place or study.label(study.own)}: {remedy}") from error
        if not place:
            raise
        raise StudyError(f"{place}: {said}; correct that line, and give the same command again") from error


def _place(error: BaseException, sources: Sources) -> str:
    """File and line of the compared class where an error, or its cause, was raised; empty if it was elsewhere."""
    found = last_line(error, sources)
    return f"{sources[found[0]]}:{found[1]}" if found else ""


def _where_no_number(study: Compared, sources: Sources, seed: int, corpora: Corpora) -> str:
    """Repeat a run whose loss became NaN from its checkpoint; name the line and update of the first NaN, or nothing."""
    trainer, place = _trainer(study, seed, corpora), ""
    resume(trainer, _checkpoint(study, seed))
    with warnings.catch_warnings(record=True) as told, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            with FirstBad():
                while trainer.update < trainer.total:
                    for batch in trainer.rest_of_epoch():
                        trainer.step(batch)
        except (FloatingPointError, NoNumber, RuntimeError) as error:
            place = _place(error, sources)
    for file, line in re.findall(r'File "([^"]+)", line (\d+)', "".join(str(one.message) for one in told)):
        if Path(file) in sources:  # the line whose gradient it is
            place = place or f"{sources[Path(file)]}:{line}"
    return f"{place}: gives what is no number in update {trainer.update + 1} of seed {seed}" if place else ""
