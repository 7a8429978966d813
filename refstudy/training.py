"""Training: one plain loop that can stop anywhere and goes on exactly where it stopped."""

import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from refstudy.config import DataConfig, RunConfig, TextEncoderConfig, TrainConfig, record_name
from refstudy.data.batches import Corpus, batches_per_epoch, build_corpus, fingerprint, grouped_batches
from refstudy.data.refer import load_refer
from refstudy.data.source import prepare_data
from refstudy.data.words import build_tokenizer
from refstudy.errors import StudyError
from refstudy.evaluation import evaluate, sample_masks, summarize_counts
from refstudy.files import atomic_write, file_digest, note
from refstudy.losses import dice_loss
from refstudy.models.build import build_model, count_parameters, default_device, save_weights
from refstudy.models.segmenter import Segmenter
from refstudy.records import circumstances, write_record

CURVE_EVERY = 50  # updates between two points of the learning curve
SHOWN_IMAGES = 24  # the validation images whose predicted masks a record keeps
CURVE_COLUMNS = ("update", "pairs", "loss", "learning_rate", "val_oIoU")
CHECKPOINT_EVERY = 120  # seconds between two checkpoints
Watcher = Callable[[Segmenter, int], None]


def train(
    config: RunConfig,
    records: Path | str,
    work: Path | str = "work",
    data_root: Path | str | None = None,
    encoders: Path | str | None = None,
    progress: bool = True,
    watcher: Watcher | None = None,
) -> Path:
    """Train one run and write its record under ``records``; return the record's folder.

    ``work`` holds the run's checkpoint and, in the end, the best weights (``<run>/weights.safetensors``). A run that
    was interrupted is resumed from its checkpoint; on a CPU the record is the same, bit for bit, as without the
    interruption. ``encoders`` are pretrained encoders whose SHA-256 the settings name. ``watcher`` is called with
    model and update number at the start and after every validation.

    Raises StudyError for data, weights or checkpoints that do not fit the settings.
    """
    start, where = time.time(), circumstances()
    folder = Path(work) / record_name(config)
    corpora, digest = load_corpora(config.data, config.model.text, ("train", *_splits(config)), data_root, progress)
    trainer = Trainer(config, corpora, encoders)
    trainer.resume(folder / "checkpoint.pt")
    trainer.run(folder / "checkpoint.pt", progress, watcher)
    model = trainer.best_model()
    evaluation_start = time.time()
    counts = pd.concat([evaluate(model, corpora[split], progress=progress) for split in config.splits])
    masks = sample_masks(model, corpora["val"], SHOWN_IMAGES)
    now = time.time()
    summary = {
        "data_fingerprint": digest,
        "parameters": count_parameters(model),
        "updates": trainer.update,
        "pairs": trainer.pairs,
        "best_epoch": trainer.best_epoch,
        "val_oIoU_of_best": trainer.best,
    }
    provenance = where | {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
        "training_seconds": round(trainer.seconds, 1),
        "evaluation_seconds": round(now - evaluation_start, 1),
    }
    save_weights(model, folder / "weights.safetensors")
    curve = pd.DataFrame(trainer.curve, columns=list(CURVE_COLUMNS))
    path = write_record(records, config, summary, curve, counts, provenance, masks)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return path


def _splits(config: RunConfig) -> tuple[str, ...]:
    return config.splits if "val" in config.splits else ("val", *config.splits)


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
    table = load_refer(root, data.dataset, data.split_by)
    tokenizer = build_tokenizer(text.name if text.pretrained else None)
    cache = root / "cache"
    corpora = {
        split: build_corpus(table, split, data.image_size, tokenizer, data.max_words, cache, progress)
        for split in splits
    }
    return corpora, fingerprint(table)


class Trainer:
    """The state of a run: model, optimiser, schedule, where in the data it is, and the best weights so far."""

    def __init__(self, config: RunConfig, corpora: dict[str, Corpus], encoders: Path | str | None = None):
        self.config, self.settings, self.corpora = config, config.train, corpora
        self.device = default_device()
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        load_encoders(model, config.train, encoders)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        rates = {model.image_encoder: config.train.image_rate, model.text_encoder: config.train.text_rate}
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, config.train.weight_decay, rates),
            lr=config.train.learning_rate,
            fused=self.device.type == "cuda",
        )
        grouping = (config.train.images_per_batch, config.train.expressions_per_image)
        self.per_epoch = batches_per_epoch(corpora["train"], *grouping)
        if not self.per_epoch:
            raise StudyError(f"train: {grouping[0]} images per batch, but the train split has fewer; lower it")
        self.total = self.per_epoch * config.train.epochs
        self.update = self.pairs = 0
        self.seconds = 0.0
        self.best, self.best_epoch = -1.0, 0
        self.best_weights: dict[str, Tensor] = {}
        self.curve: list[dict[str, Any]] = []
        self.loss_sum = torch.zeros((), device=self.device)

    def run(self, checkpoint: Path, progress: bool = True, watcher: Watcher | None = None) -> None:
        """Train from where the run is to its end, leaving checkpoints on the way."""
        if watcher is not None and self.update == 0:
            watcher(self.model, 0)
        bar = tqdm(total=self.total, initial=self.update, desc=record_name(self.config)[:-13], disable=not progress)
        saved = began = time.time()
        with bar:
            while self.update < self.total:
                epoch, first = divmod(self.update, self.per_epoch)
                grouping = (self.settings.images_per_batch, self.settings.expressions_per_image)
                for batch in grouped_batches(self.corpora["train"], *grouping, self.config.seed, epoch, first):
                    self.step(batch)
                    bar.update()
                    if time.time() - saved > CHECKPOINT_EVERY and self.update % self.per_epoch:
                        self.save(checkpoint, time.time() - began)
                        saved = time.time()
                if (epoch + 1) % self.settings.evaluate_every == 0 or self.update == self.total:
                    bar.set_postfix(val_oIoU=f"{self.validate(epoch + 1):.1f}")
                    if watcher is not None:
                        watcher(self.model, self.update)
                self.save(checkpoint, time.time() - began)
                saved = time.time()
        self.seconds += time.time() - began

    def step(self, batch) -> None:
        """One update. Nothing here waits for the device, but at the points of the learning curve."""
        rate = learning_rate(self.settings, self.update, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.model.train()
        batch = batch.to(self.device)
        half = self.settings.precision == "bfloat16" and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits = self.model(batch.images, batch.token_ids, batch.token_mask, batch.image_index)
        loss = dice_loss(logits, batch.masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.update += 1
        self.pairs += len(batch.masks)
        self.loss_sum += loss.detach()
        if self.update % CURVE_EVERY == 0:
            mean = self.loss_sum.item() / CURVE_EVERY
            self.curve.append({"update": self.update, "pairs": self.pairs, "loss": mean, "learning_rate": rate})
            self.loss_sum.zero_()

    def validate(self, epoch: int) -> float:
        """oIoU on val; the weights are kept when it is the best yet. The earlier of two equal epochs stays."""
        corpus = self.corpora["val"]
        if self.settings.validation_images is not None:
            corpus = corpus.subset(self.settings.validation_images)
        score = summarize_counts(evaluate(self.model, corpus))["oIoU"]
        self.curve.append({"update": self.update, "pairs": self.pairs, "val_oIoU": score})
        if score > self.best:
            self.best, self.best_epoch = score, epoch
            self.best_weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        return score

    def best_model(self) -> Segmenter:
        """The model with the weights that did best on val."""
        self.model.load_state_dict(self.best_weights)
        return self.model.eval()

    def save(self, path: Path, more_seconds: float) -> None:
        """Write the checkpoint; an earlier one stays whole until this one is complete."""
        state = {name: getattr(self, name) for name in STATE} | {
            "key": self.config.key(),
            "seconds": self.seconds + more_seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one. Raises StudyError for one that is broken or of another run."""
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["key"] != self.config.key():
                raise StudyError(f"{path}: is the checkpoint of another run; remove it to train afresh")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name in (*STATE, "seconds"):
                setattr(self, name, state[name])
            self.loss_sum = self.loss_sum.to(self.device)
            torch.set_rng_state(state["rng"])
        except StudyError:
            raise
        except (pickle.UnpicklingError, RuntimeError, KeyError, ValueError, EOFError, OSError, TypeError) as error:
            raise StudyError(
                f"{path}: unusable checkpoint ({type(error).__name__}); remove it to train afresh"
            ) from error


NOT_PRETRAINED = re.compile(r"^blocks\..*\.attention\.(cross|strips)\.")  # in SLViT's image encoder
STATE = ("update", "pairs", "best", "best_epoch", "best_weights", "curve", "loss_sum")


def learning_rate(settings: TrainConfig, update: int, total: int) -> float:
    """The rate of an update: a linear rise over the warm-up, times polynomial decay to zero (LAVT: power 0.9)."""
    rise = min(1.0, (update + 1) / max(1.0, settings.warmup * total))
    return settings.learning_rate * rise * (1 - update / total) ** settings.poly_power


def parameter_groups(
    model: nn.Module, weight_decay: float, rates: dict[nn.Module, float] | None = None
) -> list[dict[str, Any]]:
    """The optimiser's groups. Weight decay is for matrices and kernels only: not for norms, biases, embeddings and
    position tables. ``rates`` gives some submodules a factor on the learning rate, kept as the group's ``rate``.
    """
    factor = {id(p): rate for module, rate in (rates or {}).items() for p in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim < 2 or "embeddings" in name or "relative_position_bias_table" in name
        groups.setdefault((0.0 if exempt else weight_decay, factor.get(id(parameter), 1.0)), []).append(parameter)
    return [{"params": some, "weight_decay": decay, "rate": rate} for (decay, rate), some in groups.items()]


def load_encoders(model: Segmenter, settings: TrainConfig, path: Path | str | None) -> None:
    """Start the encoders from pretrained weights, if the settings name any by their SHA-256.

    The file may hold the image encoder alone; the text encoder then starts from random weights, and so do SLViT's
    language branches and strip pairs of other sizes.
    """
    if not settings.encoder_weights:
        return
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
            if state or prefix == "image.":
                strange = encoder.load_state_dict(state, strict=False)
                names = (*strange.missing_keys, *strange.unexpected_keys)
                if unfit := [name for name in names if not NOT_PRETRAINED.search(name)]:
                    raise RuntimeError(f"{unfit[0]} is on one side only")
    except (SafetensorError, RuntimeError) as error:
        raise StudyError(f"{path}: does not fit the encoders of the settings; run `refstudy pretrain`") from error
