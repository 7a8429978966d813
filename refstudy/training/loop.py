"""Training: one plain loop, in one process or several, that can stop anywhere and goes on exactly where it stopped."""

import hashlib
import math
import pickle
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.swin_transformer import SwinTransformerStage
from torch import Tensor, nn

from refstudy.base.allocation import keep_freed_memory
from refstudy.base.bar import bar
from refstudy.base.config import (
    DataConfig,
    Precision,
    RunConfig,
    TextEncoderConfig,
    TrainConfig,
    record_name,
)
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write, file_digest, note
from refstudy.base.provenance import peak_memory
from refstudy.data.batches import (
    Batch,
    Corpus,
    batches_per_epoch,
    build_corpus,
    fingerprint,
    grouped_batches,
    made_ahead,
)
from refstudy.data.refer import load_table
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.models.build import build_model, count_parameters, save_weights
from refstudy.models.gates import gate_ranges, watched_gates
from refstudy.models.mscan import MSCAN, published_names
from refstudy.models.segmenter import Segmenter
from refstudy.training.evaluation import (
    EXPRESSIONS_AT_ONCE,
    IMAGES_AT_ONCE,
    evaluate,
    in_precision,
    precision_on,
    sample_masks,
    summarize_counts,
)
from refstudy.training.losses import dice_loss
from refstudy.training.records import GATE_COLUMNS, circumstances, write_record

CURVE_EVERY = 50  # updates between two points of the learning curve
SHOWN_IMAGES = 24  # the images of the first counted split whose predicted masks a record keeps
CURVE_COLUMNS = ("update", "pairs", "loss", "learning_rate", "val_oIoU")
STUCK = 0.95  # a gate more saturated than this is told at the validation
CHECKPOINT_EVERY = 120  # seconds between two checkpoints
AGREE_EVERY = 8  # updates after which several processes agree on stopping and saving, for which all wait
PATIENCE = timedelta(hours=2)  # how long processes wait for the main one, which may be making data or evaluating
Watcher = Callable[[Segmenter, int], None]


class Unfinished(Exception):
    """A training was asked to stop and has left its checkpoint."""


def launched() -> Accelerator:
    """This process among those that torchrun or ``accelerate launch`` started; alone where they did not."""
    waiting, unused = (
        InitProcessGroupKwargs(timeout=PATIENCE),
        DistributedDataParallelKwargs(find_unused_parameters=True),
    )
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[waiting, unused])


def train(
    config: RunConfig,
    records: Path | str,
    work: Path | str = "work",
    data_root: Path | str | None = None,
    encoders: Path | str | None = None,
    progress: bool = True,
    watcher: Watcher | None = None,
    stop: Callable[[], bool] = lambda: False,
    ship: Path | str | None = None,
) -> Path:
    """Train one run and write its record under ``records``; return the record's folder.

    ``work`` holds the run's checkpoint and, in the end, the best weights (``<run>/weights.safetensors``). A run that
    was interrupted is resumed from its checkpoint; on a CPU the record is the same, bit for bit, as without the
    interruption. ``encoders`` are pretrained encoders whose SHA-256 the settings name. ``watcher`` is called with
    model and update number at the start and after every validation. ``progress`` shows bars on a terminal, and a line
    per validation elsewhere. ``ship`` is where the best weights go in half precision too, before there is a record that
    says the run is done.

    Under torchrun or ``accelerate launch``, all processes train this one run, each on its share of every batch, and
    the main one evaluates and writes; the others return when it has. Updates are then those of one process, up to
    rounding, but for what differs by process: random numbers (dropout, drop-path, SLViT's bases) and, on CPUs, the
    batches that batch normalisation sees.

    Raises StudyError for data, weights or checkpoints that do not fit the settings, and Unfinished once ``stop``,
    asked after every update, says so: the same call goes on from there.
    """
    accelerator = launched()
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    folder, done = Path(work) / record_name(config), Path(records) / record_name(config)
    bars = progress and sys.stderr.isatty()
    with accelerator.main_process_first():
        corpora, digest = load_corpora(config.data, config.model.text, ("train", *_splits(config)), data_root, bars)
    trainer = Trainer(config, corpora, encoders)
    trainer.resume(folder / "checkpoint.pt")
    started, here = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), circumstances()
    if trainer.update and progress and accelerator.is_main_process:
        begun = trainer.stretches[-1]["commit"]
        line = f"{folder.name}: goes on from update {trainer.update} of {trainer.total}"
        if begun != here["commit"]:
            line += f", to which commit {begun[:7]} trained it; to begin again, delete {folder / 'checkpoint.pt'}"
        print(line, flush=True)
    if trainer.precision != config.train.precision and progress and accelerator.is_main_process:
        wanted = config.train.precision
        print(f"{folder.name}: train.precision {wanted} is not native here; computes in {trainer.precision}")
    about = {"precision": trainer.precision, "processes": accelerator.num_processes, "started": started}
    trainer.stretches.append(here | about)
    if not trainer.run(folder / "checkpoint.pt", progress, watcher, stop):
        raise Unfinished(
            f"{folder.name}: stopped after {trainer.update} of {trainer.total} updates; the same command goes on"
        )
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        return done
    model = trainer.best_model()
    evaluation_start = time.time()
    counts = pd.concat([trainer.counts(corpora[split], bars) for split in config.splits])
    batching = evaluation_batching(config.train, trainer.device)
    masks = sample_masks(model, corpora[config.splits[0]], SHOWN_IMAGES, config.evaluation.threshold, **batching)
    now = time.time()
    summary = {
        "data_fingerprint": digest,
        "parameters": count_parameters(model),
        "updates": trainer.update,
        "pairs": trainer.pairs,
        "best_epoch": trainer.best_epoch,
        "val_oIoU_of_best": trainer.best,
    }
    if config.model.text.pretrained:
        summary["text_encoder"] = model.config.text.model_dump()  # its own sizes; the settings name only where it lies
    first, *resumed = trainer.stretches
    provenance = first | {
        **({"resumed": resumed} if resumed else {}),
        **({"published_weights": trainer.published} if trainer.published else {}),
        "training_seconds": round(trainer.seconds, 1),
        "evaluation_seconds": round(now - evaluation_start, 1),
        **peak_memory(),
    }
    save_weights(model, folder / "weights.safetensors")
    if ship is not None:
        save_weights(model, ship, half=True)
    curve = pd.DataFrame(trainer.curve, columns=list(CURVE_COLUMNS))
    gates = pd.DataFrame(trainer.gates, columns=list(GATE_COLUMNS))
    write_record(records, config, summary, curve, counts, provenance, masks, gates)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    return done


def _splits(config: RunConfig) -> tuple[str, ...]:
    selection = config.train.selection_split
    return config.splits if selection in config.splits else (selection, *config.splits)


def load_corpora(
    data: DataConfig,
    text: TextEncoderConfig,
    splits: tuple[str, ...],
    data_root: Path | str | None = None,
    progress: bool = True,
) -> tuple[dict[str, Corpus], str]:
    """The decoded splits of these data, made first where they can be, and the data's fingerprint.

    A pretrained text encoder brings its own vocabulary; one that starts from scratch has that of RefScenes.
    """
    root = prepare_data(data, data_root, progress=progress)
    table = load_table(data, root)
    tokenizer = build_tokenizer(text.vocabulary)
    cache = root / "cache"
    corpora = {
        split: build_corpus(table, split, data.image_size, tokenizer, data.max_words, cache, progress, data.keep_aspect)
        for split in splits
    }
    return corpora, fingerprint(table)


class Trainer:
    """The state of a run: model, optimiser, schedule, where in the data it is, and the best weights so far.

    Of several processes, each has all of it, and they stay equal. ``learner`` is the model as it is trained: its
    gradients are the mean over the processes, and it may be compiled.
    """

    def __init__(self, config: RunConfig, corpora: dict[str, Corpus], encoders: Path | str | None = None):
        self.config, self.settings, self.corpora = config, config.train, corpora
        self.accelerator = launched()
        self.device, self.processes = self.accelerator.device, self.accelerator.num_processes
        if config.train.images_per_batch % (self.processes * config.train.accumulate):
            raise StudyError(
                f"train.images_per_batch: {config.train.images_per_batch} images are not equally many for "
                f"{self.processes} processes and train.accumulate {config.train.accumulate}; change one of them"
            )
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        self.published = published_weights(model, config.model.published)
        fresh = load_encoders(model, config.train, encoders)
        if config.train.checkpointing:
            recompute_blocks(model.image_encoder)
        if self.processes > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learner = self.accelerator.prepare_model(self.model)
        if config.train.compile:
            torch.compiler.reset()  # Dynamo compiles one forward for so many models only, however many runs there are
            self.learner = torch.compile(self.learner)
        if not self.accelerator.is_main_process:
            torch.manual_seed(config.seed + 10**6 * self.accelerator.process_index)
        rates = {model.image_encoder: config.train.image_rate, model.text_encoder: config.train.text_rate}
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, config.train.weight_decay, rates, fresh),
            lr=config.train.learning_rate,
            fused=self.device.type == "cuda",
        )
        grouping = (config.train.images_per_batch, config.train.expressions_per_image)
        self.per_epoch = batches_per_epoch(corpora["train"], *grouping, config.train.sampling)
        if not self.per_epoch:
            raise StudyError(f"train: {grouping[0]} images per batch, but the train split has fewer; lower it")
        self.total = self.per_epoch * config.train.epochs
        self.update = self.pairs = 0
        self.seconds = 0.0
        self.best, self.best_epoch = -1.0, 0
        self.best_weights: dict[str, Tensor] = {}
        self.curve: list[dict[str, Any]] = []
        self.gates: list[dict[str, Any]] = []  # their ranges at every validation
        self.stretches: list[dict[str, Any]] = []  # the circumstances of each process that has trained it
        self.loss_sum = torch.zeros((), device=self.device)

    def run(
        self,
        checkpoint: Path,
        progress: bool = True,
        watcher: Watcher | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train from where the run is to its end, leaving checkpoints on the way; False when ``stop`` ended it."""
        if watcher is not None and self.update == 0:
            watcher(self.model, 0)
        name, progress = record_name(self.config)[:-13], progress and self.accelerator.is_main_process
        done = bar(total=self.total, initial=self.update, desc=name, shown=progress and sys.stderr.isatty())
        saved = began = time.time()
        with done:
            while self.update < self.total or self._unvalidated():
                if not self._unvalidated():
                    for batch in self._rest_of_epoch():
                        self.step(batch)
                        done.update()
                        if wanted := self._wanted(stop, saved):
                            self.save(checkpoint, time.time() - began)
                            saved = time.time()
                        if wanted == "stop":
                            return False
                if self._unvalidated():
                    score = f"{self.validate(self.update // self.per_epoch):.1f}"
                    done.set_postfix(val_oIoU=score)
                    if progress and done.disable:
                        stuck = [
                            str(row["gate"])
                            for row in self.gates
                            if row["update"] == self.update and row["saturated"] > STUCK
                        ]
                        print(
                            f"{name}: {self.update} of {self.total} updates, "
                            f"{self.settings.selection_split} oIoU {score}"
                            + (f"; gates at an end: {', '.join(stuck)}" if stuck else ""),
                            flush=True,
                        )
                    if watcher is not None:
                        watcher(self.model, self.update)
                self.save(checkpoint, time.time() - began)
                saved = time.time()
        self.seconds += time.time() - began
        return True

    def _unvalidated(self) -> bool:
        """Tell if an epoch has just ended that asks for a validation and has none."""
        epoch, rest = divmod(self.update, self.per_epoch)
        if rest or not epoch or (epoch % self.settings.evaluate_every and self.update < self.total):
            return False
        last = self.curve[-1] if self.curve else {}
        return last.get("update") != self.update or "val_oIoU" not in last

    def _rest_of_epoch(self) -> Iterator[Batch]:
        """This process' share of the batches that the epoch has left."""
        epoch, first = divmod(self.update, self.per_epoch)
        batches = grouped_batches(
            self.corpora["train"],
            self.settings.images_per_batch,
            self.settings.expressions_per_image,
            self.config.seed,
            epoch,
            start=first,
            sampling=self.settings.sampling,
            share=self.accelerator.process_index,
            shares=self.processes,
        )
        return made_ahead(batches, pinned=self.device.type == "cuda")

    def _wanted(self, stop: Callable[[], bool], saved: float) -> str:
        """The task after an update: "stop", "save" or nothing; of several processes, the main one says."""
        wanted = "stop" if stop() else "save" if time.time() - saved > CHECKPOINT_EVERY else ""
        if self.processes > 1:
            wanted = "" if self.update % AGREE_EVERY else broadcast_object_list([wanted])[0]
        return wanted

    def step(self, batch: Batch) -> None:
        """One update by this process' share of a batch.

        Nothing here waits for the device, but at the points of the learning curve. Every expression of the whole batch
        has the same weight, in whatever part and process it is.
        """
        rate = learning_rate(self.settings, self.update, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = batch.parts(self.settings.accumulate)
        shared = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            with self.accelerator.no_sync(self.learner) if number < len(parts) else nullcontext():
                loss = self._loss(part.to(self.device)) * (len(part.expressions) / batch.of)
                (loss * self.processes).backward()  # the mean over processes follows
            shared += loss.detach()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.update += 1
        self.pairs += batch.of
        self.loss_sum += self.accelerator.reduce(shared, "sum")
        if self.update % CURVE_EVERY == 0:
            mean = self.loss_sum.item() / CURVE_EVERY
            if not math.isfinite(mean):
                raise StudyError(
                    f"{record_name(self.config)}: the loss is no number any more after {self.update} updates; lower "
                    "train.learning_rate or set train.clip_norm"
                )
            self.curve.append({"update": self.update, "pairs": self.pairs, "loss": mean, "learning_rate": rate})
            self.loss_sum.zero_()

    @property
    def precision(self) -> Precision:
        """The precision of the forward pass, in training and in evaluation."""
        return precision_on(self.device, self.settings.precision)

    def _loss(self, part: Batch) -> Tensor:
        with in_precision(self.device, self.precision):
            logits = self.learner(part.images, part.token_ids, part.token_mask, part.image_index)
        return dice_loss(logits, part.masks)

    def validate(self, epoch: int) -> float:
        """oIoU on the split that selects; the weights are kept when it is the best yet. The earlier of two equal
        epochs stays. Each of several processes evaluates its share of the images."""
        corpus = self.corpora[self.settings.selection_split]
        if self.settings.validation_images is not None:
            corpus = corpus.subset(self.settings.validation_images)
        share = corpus.share(self.accelerator.process_index, self.processes)
        if self.processes > 1:  # of batch normalisation, whose statistics differ by process on CPUs
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)
        with watched_gates(self.model) as gates:
            counts = self.counts(share)
        ranges = gate_ranges(pd.concat(gather_object([gates.totals()])))
        self.gates += [{"update": self.update} | row for row in ranges.to_dict("records")]
        score = summarize_counts(pd.concat(gather_object([counts])))["oIoU"]
        self.curve.append({"update": self.update, "pairs": self.pairs, "val_oIoU": score})
        if score > self.best:
            self.best, self.best_epoch = score, epoch
            self.best_weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        return score

    def counts(self, corpus: Corpus, progress: bool = False) -> pd.DataFrame:
        """The pixel counts of ``evaluate``, with the model as it is now and in the way of the settings."""
        how = evaluation_batching(self.settings, self.device) | self.config.evaluation.model_dump()
        return evaluate(self.model, corpus, progress=progress, **how)

    def best_model(self) -> Segmenter:
        """The model with the weights that did best on val."""
        self.model.load_state_dict(self.best_weights)
        return self.model.eval()

    def save(self, path: Path, more_seconds: float) -> None:
        """Write the checkpoint; an earlier one stays whole until this one is complete. The main process writes it."""
        random = gather_object([random_state(self.device)])
        if not self.accelerator.is_main_process:
            return
        state = {name: getattr(self, name) for name in STATE} | {
            "key": self.config.key(),
            "precision": self.precision,
            "seconds": self.seconds + more_seconds,
            "stretches": self.stretches,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random,
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one, by whatever number of processes it was written.

        Raises StudyError for one that is broken, of another run, or computed in another precision.
        """
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["key"] != self.config.key():
                raise StudyError(f"{path}: is the checkpoint of another run; remove it to train afresh")
            if state["precision"] != self.precision:
                raise StudyError(
                    f"{path}: this run began in {state['precision']}, and here it would go on in {self.precision}; go "
                    "on with it on a machine like the first, or remove it to train afresh"
                )
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name in (*STATE, "seconds"):
                setattr(self, name, state[name])
            self.stretches = state["stretches"]
            self.loss_sum = self.loss_sum.to(self.device)
            if self.accelerator.process_index < len(state["random"]):
                set_random_state(state["random"][self.accelerator.process_index])
        except StudyError:
            raise
        except (
            pickle.UnpicklingError,
            RuntimeError,
            LookupError,
            ValueError,
            EOFError,
            OSError,
            TypeError,
            AttributeError,
        ) as error:
            raise StudyError(
                f"{path}: unusable checkpoint ({type(error).__name__}); remove it to train afresh"
            ) from error


NOT_PRETRAINED = re.compile(r"^blocks\..*\.attention\.(cross|strips)\.")  # in SLViT's image encoder
STATE = ("update", "pairs", "best", "best_epoch", "best_weights", "curve", "gates", "loss_sum")


def random_state(device: torch.device) -> list[Tensor]:
    """The state of torch's generators: that of the CPU and, for a GPU, its own."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device.type == "cuda" else [])]


def set_random_state(states: list[Tensor]) -> None:
    """Put generators back into a state that ``random_state`` gave."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)


def published_weights(model: Segmenter, encoders: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of what these encoders ("image", "text") were given by published weights: a name does not tell, since
    what it names can change."""
    digests = {}
    for kind in encoders:
        encoder = getattr(model, f"{kind}_encoder")
        given = encoder.state_dict()
        if isinstance(encoder, MSCAN):  # the rest of it starts from random numbers
            given = {name: given[name] for name in published_names(encoder)}
        digest = hashlib.sha256()
        for name, tensor in given.items():
            digest.update(name.encode())
            digest.update(tensor.numpy(force=True).tobytes())
        digests[kind] = digest.hexdigest()
    return digests


def recompute_blocks(image_encoder: nn.Module) -> None:
    """Let the blocks of a Swin or MSCAN be computed again in the backward pass: less memory, the same gradients."""
    for module in image_encoder.modules():
        if isinstance(module, SwinTransformerStage | MSCAN):
            module.grad_checkpointing = True


def evaluation_batching(settings: TrainConfig, device: torch.device) -> dict[str, Any]:
    """The arguments of ``predictions`` for a model of this training: its precision on this device, and smaller batches
    where a training step, too, is cut into parts to save memory."""
    return {
        "images_per_batch": max(1, IMAGES_AT_ONCE // settings.accumulate),
        "expressions_per_batch": max(1, EXPRESSIONS_AT_ONCE // settings.accumulate),
        "precision": precision_on(device, settings.precision),
    }


def learning_rate(settings: TrainConfig, update: int, total: int) -> float:
    """The rate of an update: a linear rise over the warm-up, times polynomial decay to zero (LAVT: power 0.9)."""
    rise = min(1.0, (update + 1) / max(1.0, settings.warmup * total))
    return settings.learning_rate * rise * (1 - update / total) ** settings.poly_power


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    rates: dict[nn.Module, float] | None = None,
    fresh: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The optimiser's groups. Weight decay is for matrices and kernels only: not for norms, biases, embeddings and
    position tables. ``rates`` gives some submodules a factor on the learning rate, kept as the group's ``rate``; their
    parameters that are ``fresh``, by name in the model, learn at 1.0 all the same.
    """
    factor = {id(p): rate for module, rate in (rates or {}).items() for p in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim < 2 or "embeddings" in name or "relative_position_bias_table" in name
        rate = 1.0 if name in fresh else factor.get(id(parameter), 1.0)
        groups.setdefault((0.0 if exempt else weight_decay, rate), []).append(parameter)
    return [{"params": some, "weight_decay": decay, "rate": rate} for (decay, rate), some in groups.items()]


def load_encoders(model: Segmenter, settings: TrainConfig, path: Path | str | None) -> set[str]:
    """Start the encoders from pretrained weights, if the settings name any by their SHA-256; return the names of what
    starts from random weights within pretrained encoders: SLViT's language branches, and strip pairs that are fresh or
    of other sizes.

    The file may hold the image encoder alone.
    """
    fresh: set[str] = set()
    if not settings.encoder_weights:
        return fresh
    if path is None or not Path(path).exists():
        raise StudyError(f"{path}: pretrained encoders not found; restore the file or run `refstudy pretrain`")
    if file_digest(path) != settings.encoder_weights:
        raise StudyError(
            f"{path}: its SHA-256 is not train.encoder_weights of the settings; restore the file or set it"
        )
    note("read", path)
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        for prefix, encoder in (("image.", model.image_encoder), ("text.", model.text_encoder)):
            state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            if isinstance(encoder, MSCAN):
                state = encoder.pretrained_part(state)
            if state or prefix == "image.":
                strange = encoder.load_state_dict(state, strict=False)
                names = (*strange.missing_keys, *strange.unexpected_keys)
                if unfit := [name for name in names if not NOT_PRETRAINED.search(name)]:
                    raise RuntimeError(f"{unfit[0]} is on one side only")
                fresh |= {f"{prefix[:-1]}_encoder.{name}" for name in strange.missing_keys}
    except (SafetensorError, RuntimeError) as error:
        raise StudyError(f"{path}: does not fit the encoders of the settings; run `refstudy pretrain`") from error
    return fresh
