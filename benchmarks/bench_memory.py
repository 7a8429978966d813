"""Memory of training Swin-B at 512 (S²RM + CASG): weights, gradients, optimizer and what is kept for the backward pass.

On a GPU: the allocator's peak over two updates in bf16. Without one, computed and not measured: the same updates on
tensors without storage ("fake"), counting what would be held at the same time; what an operation needs for itself is
not in it. The first rows hold that count against the profiler's on a small model in fp32.
"""

import gc
import multiprocessing
import weakref
from collections.abc import Callable
from typing import Any

import torch
from bench_evaluation import random_corpus, random_weights
from measure import DEVICE, added_megabytes, write
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from refstudy.config import ModelConfig
from refstudy.data.batches import grouped_batches
from refstudy.losses import dice_loss
from refstudy.models.build import build_model
from refstudy.study import load_study
from refstudy.training import Trainer, parameter_groups, recompute_blocks

SIZES, WORDS = (8, 16, 32), 20
WAYS = {"plain": (False, 1), "checkpointing": (True, 1), "checkpointing, 4 parts": (True, 4)}
CEILINGS = {("plain", 32): 60, ("checkpointing, 4 parts", 32): 24}


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, from those that are made within it, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0
        self.seen: dict[int, Any] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        return made

    def count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return

        def gone() -> None:
            self.bytes -= size
            del self.seen[key]

        self.seen[key] = weakref.finalize(storage, gone)
        self.bytes += size
        self.most = max(self.most, self.bytes)


def update(config: ModelConfig, images: int, parts: int, again: bool, device: str, half: bool) -> Callable[[], None]:
    """What ``Trainer`` does in two updates by a batch of so many images, one expression each; the model included."""

    def action() -> None:
        model: nn.Module = build_model(config).to(device, memory_format=torch.channels_last).train()
        if again:
            recompute_blocks(model.image_encoder)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=5e-5, foreach=False)
        side, some = config.image_size, images // parts
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            for _ in range(parts):
                pixels = torch.zeros(some, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
                masks = torch.zeros(some, side, side, device=device)
                ids = torch.ones(some, WORDS, dtype=torch.long, device=device)
                with torch.autocast(device, torch.bfloat16, enabled=half):
                    logits = model(pixels, ids, ids > 0)
                dice_loss(logits, masks).backward()
            optimizer.step()

    return action


def computed(action: Callable[[], None]) -> float:
    """MiB that would be held at most."""
    gc.collect()
    with FakeTensorMode(), Held() as held:
        action()
    return held.most / 2**20


def measured(config: ModelConfig, images: int, parts: int, again: bool) -> float:
    """MiB that a GPU held at most over two updates of ``Trainer``."""
    study = load_study().run_config("refcoco_swinb", "s2rm_casg", 0)
    train = study.train.model_copy(
        update={"images_per_batch": images, "expressions_per_image": 1, "accumulate": parts, "checkpointing": again}
    )
    data = random_corpus(images, config.image_size)
    torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(study.model_copy(update={"model": config, "train": train}), {"train": data})
    for epoch in range(2):
        trainer.step(next(grouped_batches(data, images, 1, 0, epoch)))
    return torch.cuda.max_memory_allocated() / 2**20


def row(what: str, images: int, way: str, megabytes: float, how: str) -> dict:
    ceiling = CEILINGS.get((way, images), "")
    return {
        "what": what,
        "images": images,
        "way": way,
        "GB": round(megabytes / 1024, 2),
        "ceiling_GB": ceiling,
        "how": how,
    }


def computed_alone(arguments: tuple) -> float:
    """``computed`` in a process of its own: what modules keep for later is fake there."""
    config, *how = arguments
    return computed(update(config, *how))


def main() -> None:
    config = random_weights("refcoco_swinb", "s2rm_casg")
    what = f"training, s2rm_casg with Swin-B at {config.image_size}, bf16"
    ways = [(name, *settings, images) for name, settings in WAYS.items() for images in SIZES]
    rows = []
    if DEVICE.type == "cuda":
        for name, again, parts, images in ways:
            gc.collect()
            torch.cuda.empty_cache()
            try:
                rows.append(row(what, images, name, measured(config, images, parts, again), "measured"))
            except torch.cuda.OutOfMemoryError:
                rows.append(row(what, images, name, float("nan"), "does not fit"))
    else:
        small = load_study().run_config("smoke", "s2rm_casg", 0).model
        jobs = [(small, 8, 1, False, "cpu", False)]
        jobs += [(config, images, parts, again, "cpu", True) for _, again, parts, images in ways]
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            check, *found = pool.map(computed_alone, jobs, chunksize=1)
        check_what = f"training, s2rm_casg of smoke at {small.image_size}, fp32"
        rows.append(row(check_what, 8, "plain", added_megabytes(update(*jobs[0])), "measured"))
        rows.append(row(check_what, 8, "plain", check, "computed"))
        rows += [
            row(what, images, name, size, "computed") for (name, *_, images), size in zip(ways, found, strict=True)
        ]
    write("memory", rows)


if __name__ == "__main__":
    main()
