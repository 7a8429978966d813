"""A rehearsal at true size: every variant of a profile through two updates, one validation and one cell of a table.

It runs what a training runs (``Trainer.step`` and ``validate``, ``write_record``, ``build_table``) on a few
photographs, before days are spent on the whole, and measures memory and time on the way.
"""

import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import chdir
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from refstudy.analysis.cost import cost, gpu_hours
from refstudy.analysis.measures import jackknifed_metrics
from refstudy.analysis.table_files import write_table
from refstudy.analysis.tables import TABLES, build_table
from refstudy.base.allocation import added_megabytes, keep_freed_memory
from refstudy.base.config import DataConfig, ModelConfig, RunConfig
from refstudy.base.errors import DataMissing, StudyError
from refstudy.base.files import write_text
from refstudy.data.batches import Corpus, build_corpus, grouped_batches
from refstudy.data.refer import choose, find_data, load_leniently, load_refer
from refstudy.data.samples import sample_folder
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.engine.needs import missing_weights, offline
from refstudy.models.build import count_parameters
from refstudy.study.file import ProfileStudy, Study
from refstudy.training.records import GATE_COLUMNS, circumstances, find_record, write_record
from refstudy.training.trainer import CURVE_COLUMNS, Trainer

TRAINED_ON = 2  # photographs; the others are for the validation
EXPRESSIONS = 3  # of each photograph
COLUMNS = (
    "profile variant image_size images result update_s validation_s one_GB two_GB full_GB full_h oIoU gates seconds "
    "cpu_seconds parameters precision weights photographs device commit key"
).split()
FINE = "finite"
SAME = ["profile", "key", "images", "photographs", "weights"]  # in common with a row that is taken over


def rehearse(
    study: Study, cases: Sequence[tuple[str, str]], images: int, path: Path, say: Callable[[str], None] = print
) -> pd.DataFrame:
    """Rehearse these (profile, variant) with ``images`` photographs, and return a row for each, with ``COLUMNS``.

    ``result`` is "finite" where loss, gradients, masks and the table's cell are; otherwise it says what is not, or
    gives the first line of an error. update_s is of one photograph with three expressions, GB (10^9 bytes) the most
    that PyTorch held in it, and in an update of two photographs with as many expressions each as a batch of the profile
    has at most. full_GB extrapolates the second to the full batch, what it holds beyond weights and moments by
    photographs: an upper bound. full_h is about what a training takes at the rate of the timed update.

    Every row is kept in the CSV at ``path`` once it is there. A later call takes over the rows of equal settings,
    photographs, weights, code and device that were finite, unless their code was not committed.

    Raises StudyError for an unknown profile or variant, and for more photographs than there are.
    """
    if images <= TRAINED_ON:
        raise StudyError(f"--images {images}: {TRAINED_ON} are trained on, the others evaluated; give more")
    keep_freed_memory()
    here = circumstances()
    made_here = {"device": here["device"], "commit": here["commit"] + "+" * here["uncommitted_changes"]}
    rows: dict[tuple, dict[str, Any]] = {}
    if path.exists() and not here["uncommitted_changes"]:
        done = pd.read_csv(path, dtype={"key": str, "commit": str}).reindex(columns=COLUMNS)
        done = done[(done[list(made_here)] == pd.Series(made_here)).all(axis=1) & (done["result"] == FINE)]
        rows = {tuple(row[name] for name in SAME): dict(row) for _, row in done.iterrows()}
    shown = []
    runs = [(name, study.run_config(name, variant, study.seeds(name, variant)[0])) for name, variant in cases]
    with offline(), tempfile.TemporaryDirectory() as folder:
        for number, (profile, config) in enumerate(runs, 1):
            about = {"profile": profile, "variant": config.variant, "image_size": config.data.image_size}
            table, photographs = pictures(study, profile, images, Path(folder))
            under = study.under(profile, Path(folder) / profile)
            model, encoders, weights = _start(under, config)
            about |= {"key": config.key(), "images": images, "photographs": photographs, "weights": weights}
            same = tuple(about[name] for name in SAME)
            kept = same in rows
            if not kept:
                start, used = time.perf_counter(), time.process_time()
                try:
                    found = _rehearsed(under, config, table, model, encoders)
                except Exception as error:  # whatever it is, the others go on
                    found = {"result": f"{type(error).__name__}: {error}".splitlines()[0]}
                gc.collect()
                torch.cuda.empty_cache()
                found["seconds"] = round(time.perf_counter() - start, 1)
                found["cpu_seconds"] = round(time.process_time() - used, 1)
                rows[same] = about | made_here | found
                write_text(path, pd.DataFrame(rows.values(), columns=COLUMNS).to_csv(index=False))
            shown.append(rows[same])
            say(f"[{number}/{len(runs)}] {line(rows[same])}" + ("; from an earlier call" if kept else ""))
    return pd.DataFrame(shown, columns=COLUMNS)


def line(row: dict[str, Any]) -> str:
    """A row of ``rehearse`` to read."""
    name = f"{row['variant']} of {row['profile']}, {row['image_size']} px"
    if "update_s" not in row:
        return f"{name}: FAILED: {row['result']}"
    gates = f"; gates: {row['gates']}" if isinstance(row["gates"], str) and row["gates"] else ""
    hours = f", {row['full_h']:.0f} h" if math.isfinite(row["full_h"]) else ""
    return (
        f"{name}: {row['result']} ({row['weights']} weights, {row['photographs']}, {row['precision']}); an update "
        f"{row['update_s']:.1f} s, {row['one_GB']:.1f} GB (two photographs {row['two_GB']:.1f} GB); a validation "
        f"{row['validation_s']:.1f} s; extrapolated to the full batch at most about {row['full_GB']:.0f} GB"
        f"{hours}{gates}"
    )


def _rehearsed(
    study: ProfileStudy, config: RunConfig, table: pd.DataFrame, model: ModelConfig, encoders: Path | None
) -> dict[str, Any]:
    own: dict[str, Any] = {"images_per_batch": 1, "expressions_per_image": EXPRESSIONS, "sampling": "sentence"}
    own |= {"accumulate": 1, "compile": False}
    if not encoders:
        own["encoder_weights"] = ""
    small = config.model_copy(update={"model": model, "train": config.train.model_copy(update=own)})
    corpora = _corpora(table, small)
    with chdir(study.file.root):  # where relative paths of pretrained parts start
        trainer = Trainer(small, corpora, encoders)
    full = config.train.images_per_batch // config.train.accumulate
    fewer = table.groupby("image_id", sort=False).head(config.train.expressions_per_image)
    finite = _Finite(trainer)
    _make_moments(trainer)
    two, _ = _update(trainer, finite, _corpora(fewer, small)["train"], TRAINED_ON)  # it warms up the next one
    one, update = _update(trainer, finite, corpora["train"], 1)
    states = trainer.optimizer.state_dict()["state"].values()
    kept = [*trainer.model.state_dict().values(), *(value for state in states for value in state.values())]
    held = sum(tensor.nbytes for tensor in kept if isinstance(tensor, torch.Tensor))
    trainer.loss_sum.zero_()  # noted; a validation refuses what is no number
    start = time.perf_counter()
    trainer.validate(1)
    validation = time.perf_counter() - start
    cell = _cell(study, config, trainer, corpora[config.splits[0]])
    if not math.isfinite(cell):
        finite.wrong.append("the table's cell")
    counted = cost(small.model)
    macs = sum(counted.macs.values())
    rate = 6e-3 * (macs + (EXPRESSIONS - 1) * counted.further) / update  # three passes of two operations, in TFLOP/s
    return {
        "result": f"not finite: {', '.join(finite.wrong)}" if finite.wrong else FINE,
        "update_s": round(update, 2),
        "validation_s": round(validation, 2),
        "one_GB": round((held + one) / 1e9, 3),
        "two_GB": round((held + two) / 1e9, 3),
        "full_GB": round((held + two * full / TRAINED_ON) / 1e9, 1),
        "full_h": round(gpu_hours(config, macs, counted.further, rate), 1),
        "oIoU": round(cell, 2),
        "gates": _gates_to_read(trainer),
        "parameters": round(count_parameters(trainer.model) / 1e6, 1),
        "precision": trainer.precision,
    }


def _start(study: ProfileStudy, config: RunConfig) -> tuple[ModelConfig, Path | None, str]:
    """The start of a rehearsal on this machine: the model, the file of encoders that refstudy has pretrained, and
    which weights these give: "published", "pretrained" or "random"."""
    model, weights = config.model, "published"
    with chdir(study.file.root):
        if not model.published or missing_weights([model], fetch=False):
            model, weights = model.from_scratch(), "random"
    encoders = study.file.encoders(study.profile, config.variant)
    if encoders is None or not encoders.exists():
        return model, None, weights
    return model, encoders, "pretrained" if config.train.encoder_weights else weights


class _Finite:
    """Collects in ``wrong`` the values that are no finite number in the updates and evaluations of a trainer."""

    def __init__(self, trainer: Trainer):
        self.wrong: list[str] = []
        segment = trainer.model.segment

        def watched(*arguments: Any, **named: Any) -> torch.Tensor:
            logits = segment(*arguments, **named)
            self.note("masks", [logits])
            return logits

        trainer.model.segment = watched  # type: ignore[method-assign]

    def note(self, what: str, tensors: Iterable[torch.Tensor]) -> None:
        """Add ``what`` to those that are wrong unless all these are finite."""
        if what not in self.wrong and not all(bool(tensor.isfinite().all()) for tensor in tensors):
            self.wrong.append(what)


def _make_moments(trainer: Trainer) -> None:
    """Let AdamW make its moments, so that the first update holds what every later one does: a step at rate 0."""
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    trainer.optimizer.step()


def _update(trainer: Trainer, finite: _Finite, corpus: Corpus, images: int) -> tuple[float, float]:
    """An update of so many photographs with all their expressions: the bytes that it held beyond weights and what the
    optimiser keeps, and its seconds."""
    batch = next(grouped_batches(corpus, images, EXPRESSIONS, 0, 0, sampling="sentence"))
    trainer.optimizer.zero_grad(set_to_none=True)
    seconds = 0.0

    def action() -> None:
        nonlocal seconds
        start = time.perf_counter()
        trainer.step(batch)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start

    added = added_megabytes(action) * 2**20
    finite.note("loss", [trainer.loss_sum])
    finite.note("gradients", [p.grad for p in trainer.model.parameters() if p.grad is not None])
    return added, seconds


def _cell(study: ProfileStudy, config: RunConfig, trainer: Trainer, corpus: Corpus) -> float:
    """Overall IoU, in percent, as it stands in the variant's table, or would where it is in none: written as a record
    under the true settings, and read from there."""
    records = study.folder / "records"
    curve = pd.DataFrame(trainer.curve, columns=list(CURVE_COLUMNS))
    gates = pd.DataFrame(trainer.gates, columns=list(GATE_COLUMNS))
    summary = {"updates": trainer.update, "pairs": trainer.pairs, "best_epoch": trainer.best_epoch}
    write_record(records, config, summary, curve, trainer.counts(corpus), circumstances(), gates=gates)
    stem = next((stem for stem in study.file.variants[config.variant].tables if stem in TABLES), None)
    if stem is None:
        record = find_record(records, config)
        return float(jackknifed_metrics(record, config.splits[0])["oIoU"].iloc[0]) if record else math.nan
    table = pd.read_csv(write_table(build_table(stem, study), study.folder / "tables", stem))
    found = table.loc[(table["variant"] == config.variant) & (table["metric"] == "oIoU"), "ours"].dropna()
    return float(found.iloc[0]) if len(found) else math.nan  # rows of other encoders have no record here


def _gates_to_read(trainer: Trainer) -> str:
    """The ranges of the gates at the validation, those of equal modules together."""
    gates = pd.DataFrame(trainer.gates, columns=list(GATE_COLUMNS))
    kind = gates["gate"].str.replace(r": .*|\.\d+", "", regex=True)
    return ", ".join(
        f"{name} {some['low'].min():.2f} to {some['high'].max():.2f} ({some['saturated'].max():.0%} saturated)"
        for name, some in gates.groupby(kind, sort=False)
    )


@lru_cache(maxsize=4)
def pictures(study: Study, profile: str, count: int, folder: Path) -> tuple[pd.DataFrame, str]:
    """``load_refer``'s table of ``count`` pictures with three expressions each, and what they are: the profile's own
    data where they are at hand, else the samples next to the repository, else pictures of RefScenes, drawn in
    ``folder`` at the profile's size. Two are of the split train, the others of the profile's first one."""
    settings = study.profile(profile)
    data, samples = settings.data, sample_folder()
    try:
        if data.dataset in FLAVOURS:
            raise DataMissing
        choose(study.data_root, data.dataset, data.split_by)
        table, name = load_refer(study.data_root, data.dataset, data.split_by), data.dataset
    except DataMissing:
        if data.dataset not in FLAVOURS and samples and (samples / "refcoco_triples" / "triples.json").is_file():
            table, name = load_leniently(find_data(samples / "refcoco_triples")[0])[0], "samples of RefCOCO"
        else:
            scenes, version = {"train": 4 * count}, FLAVOURS["refscenes"].version
            drawn = DataConfig(image_size=data.image_size, scenes=scenes, scenes_version=version)
            table, name = load_refer(prepare_data(drawn, folder, progress=False), "refscenes", "unc"), "RefScenes"
    table = table.groupby("image_id", sort=False).head(EXPRESSIONS)
    table = table[table.groupby("image_id")["sent_id"].transform("size") == EXPRESSIONS]
    names = table["image_id"].unique()[:count]
    if len(names) < count:
        there = f"{name} has {len(names)} pictures with {EXPRESSIONS} expressions"
        raise StudyError(f"--images {count}: {there}; ask for fewer")
    table = table[table["image_id"].isin(names)]
    trained = table["image_id"].isin(names[:TRAINED_ON])
    return table.assign(split=np.where(trained, "train", settings.splits[0])).reset_index(drop=True), name


def _corpora(table: pd.DataFrame, config: RunConfig) -> dict[str, Corpus]:
    data, tokenizer = config.data, build_tokenizer(config.model.text.vocabulary)
    train, counted = (
        build_corpus(table, split, data.image_size, tokenizer, data.max_words, None, False, data.keep_aspect)
        for split in ("train", config.splits[0])
    )
    return {"train": train, config.splits[0]: counted, config.train.selection_split: counted}
