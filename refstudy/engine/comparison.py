"""A module of one's own, trained as the study's baselines were, to be held against their records.

All lies in one folder: a copy of the class, a study file that names it, checkpoints, run records, tables and a page.
"""

import ast
import inspect
import math
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from refstudy.analysis.compared import Compared, epoch_scores, few, smallest_gains, usual_baselines
from refstudy.analysis.data_names import measured_on
from refstudy.analysis.inference import LOOKS
from refstudy.base.config import PARTS, PartConfig, record_name
from refstudy.base.errors import NoNumber, StudyError
from refstudy.base.files import atomic_write
from refstudy.base.yaml_files import read_yaml
from refstudy.data.batches import Corpus
from refstudy.engine.comparison_page import write_comparison
from refstudy.engine.needs import refuse_without
from refstudy.engine.trainings import UNFINISHED, Stop, train_all
from refstudy.models.build import build_model, default_device
from refstudy.models.first_bad import FirstBad
from refstudy.models.interfaces import Decoder
from refstudy.models.own_parts import is_own, last_line, register, source_of
from refstudy.study.file import Variant, training_command
from refstudy.study.load import load_study
from refstudy.training.checkpoint import BROKEN, resume
from refstudy.training.evaluation import precision_on
from refstudy.training.loop import load_corpora
from refstudy.training.records import find_record
from refstudy.training.trainer import Trainer

WARM, TIMED, EVALUATED = 2, 6, 16  # updates before those that are timed, these, and the pictures of a timed evaluation
DECODES = list(inspect.signature(Decoder.__call__).parameters)[1:]  # what the forward of a decoder takes
Sources = Mapping[Path, Path]  # the file from which a class is loaded -> the one that its author edits
Corpora = dict[str, Corpus]


def open_comparison(
    source: str,
    decoder: str,
    against: Sequence[str],
    seeds: int,
    flavour: str,
    profile: str,
    output: Path | None,
    study: Path | str,
) -> tuple[Compared, Sources]:
    """Write the study file of a comparison, with a copy of the class's file beside it, and open it.

    Args:
        source: ``file.py:Class``, a fusion module or a decoder; or a fusion module of the package, a variant of
            ``study``, or a study file that adds one variant.
        decoder: that of a fusion module: one of the package, or ``file.py:Class``. A decoder stands after S²RM.
        against: variants of the study; none: ``usual_baselines``.
        flavour: a data set; the first profile beside ``profile`` that has it is taken. Empty: ``profile`` itself.
        output: the comparison's folder; None: ``comparisons/NAME`` here.

    Raises StudyError for a class that is not there, and for unknown variants, profiles and flavours.
    """
    is_file = source.endswith((".yaml", ".yml"))
    base = load_study(source if is_file else study)
    content = read_yaml(base.path).content
    shared = load_study(base.path.parent / content["extends"]) if "extends" in content else base
    if is_file:
        source, *others = content["variants"]
        if others:
            raise StudyError(f"{base.path}: several variants; name one: refstudy compare {source} --study {base.path}")
    flavours = {name: shared.profile(name).data.dataset for name in shared.together(profile)}
    if not (names := [name for name, dataset in flavours.items() if flavour in ("", dataset)]):
        there = ", ".join(dict.fromkeys(flavours.values()))
        raise StudyError(f"--flavour {flavour}: no profile beside '{profile}' has it; known: {there}")
    given = shared.under(names[0])
    for one in against:
        given.config(one)
    known = source in base.variants and not is_own(decoder)
    name, variant = (source, base.variants[source]) if known else _own_variant(source, decoder)
    name = f"{name}_own" if name in shared.variants else name
    folder = (output or Path("comparisons") / name).resolve()
    entry: dict[str, Any] = variant.model_dump(mode="json", exclude_defaults=True, exclude={"tables"})
    sources = {}
    for kind in PARTS:
        part: PartConfig | None = getattr(variant, kind)
        if part is not None and is_own(part.name):
            path, (place, _, own) = source_of(part.name, part.source).resolve(), part.name.rpartition(":")
            copied = place.endswith(".py")  # a module of a package may need others of it
            sources[folder / path.name if copied else path] = path
            entry[kind] = entry[kind] | {"name": f"{path.name}:{own}" if copied else part.name}
            entry[kind].pop("source")
    for copy, path in sources.items():
        if copy.resolve() != path:
            with atomic_write(copy) as temporary:
                shutil.copyfile(path, temporary)
    file = {"extends": str(shared.path), "home": ".", "variants": {name: entry}}
    with atomic_write(folder / "study.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(file, sort_keys=False, allow_unicode=True), encoding="utf-8")
    under = load_study(folder / "study.yaml").under(names[0], given.folder)
    further = (seed for seed in count(max(given.settings.seeds) + 1) if seed not in given.settings.pilot)
    planned = tuple(islice(chain(given.settings.seeds, further), seeds))
    baselines = tuple(dict.fromkeys(against)) or usual_baselines(under, name)
    return Compared(under.file, under.profile, under.folder, name, planned, baselines), sources


def _own_variant(source: str, decoder: str) -> tuple[str, Variant]:
    """A name and the variant of a fusion module and a decoder, either of which may be a class of one's own."""
    parts = {}
    if is_own(source) and _arguments(source_of(source, register(source, Path.cwd())), source) == len(DECODES):
        source, decoder = "s2rm", source
    for kind, name in (("fusion", source), ("decoder", decoder)):
        if not is_own(name) and name not in PARTS[kind]:
            raise StudyError(f"'{name}': no {kind}; name a class as file.py:Class, or one of {', '.join(PARTS[kind])}")
        parts[kind] = PartConfig(name=name, source=register(name, Path.cwd()) if is_own(name) else "")
    own, drawn = (name.rpartition(":")[2] for name in (source, decoder))
    label = " + ".join(last if is_own(name) else name.upper() for last, name in ((own, source), (drawn, decoder)))
    return own.lower() + ("" if decoder == "fpn" else f"_{drawn.lower()}"), Variant(label=label, **parts)


def _arguments(path: Path, name: str) -> int:
    """The number of arguments that ``forward`` of a class needs, read without running the file; 0 without a forward."""
    (own,) = (one for one in ast.parse(path.read_bytes()).body if getattr(one, "name", "") == name.rpartition(":")[2])
    forwards = (one.args for one in ast.walk(own) if isinstance(one, ast.FunctionDef) and one.name == "forward")
    return next((len(args.args) - 1 - len(args.defaults) for args in forwards), 0)


def compare(study: Compared, sources: Sources, minutes: float | None, at_once: int, scheduler: str) -> int:
    """Train the planned seeds that have no record; write tables and page of those that have; return an exit status.

    It is 0 when all are recorded, ``UNFINISHED`` when the rest waits for the same command, and 1 when a run failed.
    ``minutes``: no seed is begun that would not end by then. ``at_once`` and ``scheduler`` are those of ``train_all``.

    Raises StudyError, before anything is trained, where no seed would end in time, or the baselines have other data or
    another precision than runs here would have; and, with file and line, for errors of one's own class.
    """
    if scheduler and minutes is not None:
        raise StudyError("--minutes: not with --scheduler; give the queue's own limit to the workers")
    end, stop, status = math.inf if minutes is None else time.monotonic() + 60 * minutes, Stop(), 0
    cases = {seed: (study.profile, study.own, seed) for seed in study.planned}
    records = study.records_of(study.own)
    todo = [seed for seed in cases if find_record(records, study.config(study.own, seed)) is None]
    corpora: Corpora = {}
    if todo:
        refuse_without(study.file, [study.profile], [cases[seed] for seed in todo])
        with _errors_told(study, sources, todo[0], corpora), torch.device("meta"):  # before data are made
            build_model(study.config(study.own).model.from_scratch())
        print("\n".join(_setting(study)), flush=True)
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


def _setting(study: Compared) -> Iterator[str]:
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
    splits = tuple(dict.fromkeys(("train", config.train.selection_split, *config.splits)))
    corpora, digest = load_corpora(config.data, config.model.text, splits, study.file.data_root, sys.stderr.isatty())
    for record in firsts:
        if record.summary.get("data_fingerprint") != digest:
            raise StudyError(
                f"{record.path}: measured on other data than those in {study.file.data_root} (data_fingerprint); bring "
                "the same data, or name other baselines by --against"
            )
    return corpora


def _trainer(study: Compared, seed: int, corpora: Corpora) -> Trainer:
    """A run as it begins."""
    with chdir(study.file.root):
        return Trainer(study.config(study.own, seed), corpora, study.file.encoders(study.profile, study.own))


def _checkpoint(study: Compared, seed: int) -> Path:
    run = record_name(study.config(study.own, seed))
    return study.file.home / "work" / study.profile / run / "checkpoint.pt"


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
    """A hook that holds the result of a fusion module or decoder against ``refstudy.models.interfaces``."""

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
    """Turn errors of one's own code, wherever they show in the block, into a line with file, line and remedy."""
    try:
        yield
    except NoNumber as error:
        if not (place := _where_no_number(study, sources, seed, corpora)):
            raise
        remedy = "keep divisors, and what is under a root or in a logarithm, away from 0, and exponents small"
        raise StudyError(f"{place}; {remedy}") from error
    except Exception as error:
        place, causes = _place(error, sources), _causes(error)
        text = str(causes[-1]).strip() or "no message"
        said = f"{type(causes[-1]).__name__}: {text.splitlines()[0]}"
        if isinstance(causes[-1], MemoryError | torch.OutOfMemoryError) or "allocate memory" in text:
            place = place or study.label(study.own)
            raise StudyError(
                f"{place}: out of memory ({said}); make its maps smaller or use a larger machine"
            ) from error
        if not place:
            raise
        raise StudyError(f"{place}: {said}; correct that line, and give the same command again") from error


def _causes(error: BaseException) -> list[BaseException]:
    """An error, what caused it, and so on."""
    return [error, *(_causes(error.__cause__) if error.__cause__ else [])]


def _place(error: BaseException, sources: Sources) -> str:
    """File and line of one's own code where an error, or what caused it, was raised; empty if it was elsewhere."""
    found = last_line(error, sources)
    return f"{sources[found[0]]}:{found[1]}" if found else ""


def _where_no_number(study: Compared, sources: Sources, seed: int, corpora: Corpora) -> str:
    """Repeat a run that lost its numbers, from its checkpoint on; say in which line of one's own code, and in which
    update, NaN came up, forwards or backwards; empty if it was elsewhere."""
    trainer, place = _trainer(study, seed, corpora), ""
    resume(trainer, _checkpoint(study, seed))
    torch.autograd.set_detect_anomaly(True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with FirstBad():
                while trainer.update < trainer.total:
                    for batch in trainer.rest_of_epoch():
                        trainer.step(batch)
        except (FloatingPointError, NoNumber, RuntimeError) as error:
            place = _place(error, sources)
        finally:
            torch.autograd.set_detect_anomaly(False)
    for file, line in re.findall(r'File "([^"]+)", line (\d+)', "".join(str(one.message) for one in told)):
        if Path(file) in sources:  # the line whose gradient it is
            place = place or f"{sources[Path(file)]}:{line}"
    return f"{place}: gives what is no number in update {trainer.update + 1} of seed {seed}" if place else ""
