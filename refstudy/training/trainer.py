"""The state of a training in one process: one update, one validation."""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, gather_object
from timm.models.swin_transformer import SwinTransformerStage
from torch import Tensor, nn

from refstudy.base.config import Precision, RunConfig, TrainConfig, record_name
from refstudy.base.errors import NoNumber, StudyError
from refstudy.data.batches import Batch, Corpus, batches_per_epoch, grouped_batches, made_ahead
from refstudy.models.build import build_model
from refstudy.models.gates import gate_ranges, watched_gates
from refstudy.models.mscan import MSCAN
from refstudy.models.segmenter import Segmenter
from refstudy.training.evaluation import evaluate, evaluation_batching, in_precision, precision_on, summarize_counts
from refstudy.training.losses import dice_loss
from refstudy.training.optim import learning_rate, parameter_groups
from refstudy.training.weights import load_encoders, published_weights

CURVE_EVERY = 50  # updates between two points of the learning curve
CURVE_COLUMNS = ("update", "pairs", "loss", "learning_rate", "val_oIoU")
PATIENCE = timedelta(hours=2)  # how long processes wait for the main one, which may be making data or evaluating


def launched() -> Accelerator:
    """This process among those that torchrun or ``accelerate launch`` started; alone where they did not."""
    how = [InitProcessGroupKwargs(timeout=PATIENCE), DistributedDataParallelKwargs(find_unused_parameters=True)]
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=how)


class Trainer:
    """The state of a run: model, optimiser, schedule, place in the data, and the best weights so far.

    Each of several processes has all of it, and they stay equal. ``learner`` is the model as it is trained: its
    gradients are the mean over the processes, and it may be compiled.
    """

    def __init__(self, config: RunConfig, corpora: dict[str, Corpus], encoders: Path | str | None = None):
        self.config, self.settings, self.corpora = config, config.train, corpora
        self.accelerator = launched()
        self.device, self.processes = self.accelerator.device, self.accelerator.num_processes
        self.per_epoch = count_batches(config.train, corpora["train"], self.processes)
        self.total = self.per_epoch * config.train.epochs
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        self.published = published_weights(model, config.model.published)
        fresh = load_encoders(model, config.train, encoders)
        self.model, self.learner = prepare(model, config.train, self.accelerator)
        if not self.accelerator.is_main_process:
            torch.manual_seed(config.seed + 10**6 * self.accelerator.process_index)
        rates = {self.model.image_encoder: config.train.image_rate, self.model.text_encoder: config.train.text_rate}
        groups = parameter_groups(self.model, config.train.weight_decay, rates, fresh)
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, lr=config.train.learning_rate, fused=on_gpu)
        self.update = self.pairs = 0
        self.seconds, self.began = 0.0, time.time()  # of earlier stretches; of this one
        self.best, self.best_epoch = -1.0, 0
        self.best_weights: dict[str, Tensor] = {}
        self.curve: list[dict[str, Any]] = []
        self.gates: list[dict[str, Any]] = []  # their ranges at every validation
        self.stretches: list[dict[str, Any]] = []  # the circumstances of each process that has trained it
        self.loss_sum = torch.zeros((), device=self.device)

    @property
    def precision(self) -> Precision:
        """The precision of the forward pass, in training and in evaluation."""
        return precision_on(self.device, self.settings.precision)

    def rest_of_epoch(self) -> Iterator[Batch]:
        """This process' share of the batches that the epoch has left."""
        epoch, first = divmod(self.update, self.per_epoch)
        how = self.settings
        batches = grouped_batches(
            self.corpora["train"],
            how.images_per_batch,
            how.expressions_per_image,
            self.config.seed,
            epoch,
            start=first,
            sampling=how.sampling,
            share=self.accelerator.process_index,
            shares=self.processes,
        )
        return made_ahead(batches, pinned=self.device.type == "cuda")

    def step(self, batch: Batch) -> None:
        """One update by this process' share of a batch.

        Nothing here waits for the device, except at the points of the learning curve. Every expression of the whole
        batch has the same weight, in any part and process. Raises NoNumber, at such a point, when the loss is not
        finite.
        """
        rate = learning_rate(self.settings, self.update, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = batch.parts(self.settings.accumulate)
        shared = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            part = part.to(self.device)
            with self.accelerator.no_sync(self.learner) if number < len(parts) else nullcontext():
                with in_precision(self.device, self.precision):
                    logits = self.learner(part.images, part.token_ids, part.token_mask, part.image_index)
                loss = dice_loss(logits, part.masks) * (len(part.expressions) / batch.of)
                (loss * self.processes).backward()  # the mean over processes follows
            shared += loss.detach()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.update += 1
        self.pairs += batch.of
        self.loss_sum += self.accelerator.reduce(shared, "sum")
        if self.update % CURVE_EVERY == 0:
            mean = self.finite_loss() / CURVE_EVERY
            self.curve.append({"update": self.update, "pairs": self.pairs, "loss": mean, "learning_rate": rate})
            self.loss_sum.zero_()

    def finite_loss(self) -> float:
        """The sum of the losses since the last point of the curve. Raises NoNumber when it is not finite."""
        found = self.loss_sum.item()
        if not math.isfinite(found):
            about = f"{record_name(self.config)}: the loss is no number any more after {self.update} updates"
            raise NoNumber(f"{about}; lower train.learning_rate or set train.clip_norm")
        return found

    def awaits_validation(self) -> bool:
        """Tell if an epoch has just ended that asks for a validation and has none."""
        epoch, rest = divmod(self.update, self.per_epoch)
        if rest or not epoch or (epoch % self.settings.evaluate_every and self.update < self.total):
            return False
        last = self.curve[-1] if self.curve else {}
        return last.get("update") != self.update or "val_oIoU" not in last

    def validate(self, epoch: int) -> float:
        """Evaluate on the split that selects, return the oIoU, and keep the weights when it is the best so far; of two
        equal epochs, the earlier stays. Each of several processes evaluates its share of the images. Raises NoNumber
        when the loss since the last point of the curve is none."""
        self.finite_loss()
        corpus = self.corpora[self.settings.selection_split]
        if self.settings.validation_images is not None:
            corpus = corpus.subset(self.settings.validation_images)
        share = corpus.share(self.accelerator.process_index, self.processes)
        if self.processes > 1:  # the statistics of batch normalisation differ by process on CPUs
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
        """The pixel counts of ``evaluate``, of the model as it is now, with the settings of the run."""
        how = evaluation_batching(self.settings, self.device) | self.config.evaluation.model_dump()
        return evaluate(self.model, corpus, progress=progress, **how)

    def best_model(self) -> Segmenter:
        """The model with the weights that did best at a validation."""
        self.model.load_state_dict(self.best_weights)
        return self.model.eval()

    def elapsed(self) -> float:
        """Seconds of training so far, in all stretches."""
        return self.seconds + time.time() - self.began


def count_batches(settings: TrainConfig, corpus: Corpus, processes: int) -> int:
    """Batches in an epoch. Raises StudyError where processes cannot share one, or the data do not fill one."""
    images, parts = settings.images_per_batch, settings.accumulate
    if images % (processes * parts):
        wrong = f"train.images_per_batch: {images} images are not equally many for"
        raise StudyError(f"{wrong} {processes} processes and train.accumulate {parts}; change one of them")
    count = batches_per_epoch(corpus, images, settings.expressions_per_image, settings.sampling)
    if not count:
        raise StudyError(f"train: {images} images per batch, but the train split has fewer; lower it")
    return count


def prepare(model: Segmenter, settings: TrainConfig, accelerator: Accelerator) -> tuple[Segmenter, nn.Module]:
    """Bring a model to the device; return it, and the form of it that is trained (see ``Trainer.learner``)."""
    if settings.checkpointing:  # blocks are computed again in the backward pass: less memory, the same gradients
        for module in model.image_encoder.modules():
            if isinstance(module, SwinTransformerStage | MSCAN):
                module.grad_checkpointing = True
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = accelerator.prepare_model(model)
    return model, compiled(learner) if settings.compile else learner


def compiled(module: nn.Module, fullgraph: bool = False) -> nn.Module:
    """``torch.compile``, anew for each run, with code that was kept on disk by an equal processor alone.

    PyTorch's key of kept code leaves out how wide the processor's vectors are (docs/compiled_code.md).
    """
    torch.compiler.reset()  # Dynamo compiles one forward for so many models only, however many runs there are
    torch.compiler.config.cache_key_tag = torch.backends.cpu.get_cpu_capability()
    return torch.compile(module, fullgraph=fullgraph)  # type: ignore[return-value]
