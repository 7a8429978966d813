"""Pretraining of both encoders on RefScenes.

The stand-in for ImageNet's and BERT's weights: the image encoder learns to name category and colour of every pixel,
the text encoder to tell which category, facts, places and relations its words state. Neither sees what the other sees.
It is done once; every variant starts from the same file.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate

from refstudy.base.bar import bar
from refstudy.base.config import DataConfig, ModelConfig, PartConfig, PretrainConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write
from refstudy.data.batches import Corpus, normalise
from refstudy.data.masks import decode_mask
from refstudy.data.scenes.census import sentences_of
from refstudy.data.source import prepare_data
from refstudy.models.build import build_model, default_device, halved
from refstudy.models.encoders import ImageEncoder, TextEncoder
from refstudy.models.mscan import MSCAN
from refstudy.training.loop import load_corpora
from refstudy.training.optim import parameter_groups

STRIDE = 4  # of the pixel labels and of V_1
OFTEN = 4500  # a step counts that is in one of so many training expressions
Corpora = dict[str, Corpus]  # by split
Labels = dict[str, np.ndarray]


def pretrain(
    data: DataConfig,
    model: ModelConfig,
    settings: PretrainConfig,
    path: Path | str,
    data_root: Path | str | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Pretrain the encoders, write them to ``path`` (safetensors, fp16) and return their accuracies on val, in
    percent.

    The file's tensors are named ``image.*`` and ``text.*``; its metadata hold the settings and the accuracies.
    """
    corpora, digest = load_corpora(data, model.text, ("train", "val"), data_root, progress)
    labels = {split: pixel_labels(data, corpus, data_root) for split, corpus in corpora.items()}
    torch.manual_seed(settings.seed)
    device = default_device()
    image_encoder = wordless_image_encoder(model)
    image_encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    reached = pretrain_image_encoder(image_encoder, corpora, labels, settings, progress)
    encoders: dict[str, nn.Module] = {"image": image_encoder}
    if settings.text_updates:
        torch.manual_seed(settings.seed)  # so the text encoder is the same with every image encoder
        text_encoder = TextEncoder(model.text).to(device)
        reached |= pretrain_text_encoder(text_encoder, corpora, said(data, corpora, data_root), settings, progress)
        encoders["text"] = text_encoder
    state = nn.ModuleDict(encoders).state_dict()
    tensors = {name: halved(tensor).cpu().contiguous() for name, tensor in state.items()}
    about = {
        "pretraining": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "data_fingerprint": digest,
        "reached": {name: round(value, 2) for name, value in reached.items()},
    }
    metadata = {name: json.dumps(value, sort_keys=True) for name, value in about.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))
    return reached


def wordless_image_encoder(model: ModelConfig) -> ImageEncoder | MSCAN:
    """The image encoder of these settings; SLViT's comes without its language branches."""
    if model.whole is None or model.whole.name != "slvit":
        return ImageEncoder(model.image, model.image_size)
    options = model.whole.options | {"cross": False, "urce": False}
    wordless = model.model_copy(update={"whole": PartConfig(name="slvit", options=options)})
    return cast(MSCAN, build_model(wordless).image_encoder)


def pixel_labels(data: DataConfig, corpus: Corpus, data_root: Path | str | None) -> np.ndarray:
    """Category and colour numbers (N, 2, S/4, S/4) of every image of the corpus, uint8; 0 where nothing is listed.

    They come from the annotations of all things and stuff in RefScenes' instances.json.
    """
    root = prepare_data(data, data_root, progress=False)
    instances = json.loads((root / data.dataset / "instances.json").read_text(encoding="utf-8"))
    categories = {category["id"]: k for k, category in enumerate(instances["categories"], start=1)}
    colours = {name: k for k, name in enumerate(sorted({a["color"] for a in instances["annotations"]}), start=1)}
    images = corpus.table["image_id"].drop_duplicates()
    rows = {image: k for k, image in enumerate(images)}
    side = corpus.image_size
    labels = np.zeros((len(images), 2, side // STRIDE, side // STRIDE), np.uint8)
    for annotation in instances["annotations"]:
        row = rows.get(annotation["image_id"])
        if row is not None:
            mask = decode_mask(annotation["segmentation"], side, side)[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
            labels[row, 0][mask] = categories[annotation["category_id"]]
            labels[row, 1][mask] = colours[annotation["color"]]
    return labels


class PixelNamer(nn.Module):
    """Category and colour of every pixel from V_1 ... V_4, at stride 4: laterals, top-down sum, one convolution."""

    def __init__(self, channels: list[int], categories: int, colours: int, width: int = 64):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, kernel_size=1) for count in channels)
        self.smooth = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.name = nn.ModuleList(nn.Conv2d(width, count, kernel_size=1) for count in (categories, colours))

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """V_1 ... V_4 to category logits (B, categories, h, w) and colour logits (B, colours, h, w)."""
        level = self.laterals[3](maps[3])
        for lateral, stage in zip(self.laterals[2::-1], maps[2::-1], strict=True):
            level = lateral(stage) + interpolate(level, size=stage.shape[-2:], mode="nearest")
        level = self.smooth(level).relu()
        category, colour = (name(level) for name in self.name)
        return category, colour


def pretrain_image_encoder(
    encoder: ImageEncoder | MSCAN, corpora: Corpora, labels: Labels, settings: PretrainConfig, progress: bool
) -> dict[str, float]:
    """Train the encoder to name pixels; return the percentages of val's pixels with the right category and colour."""
    see = encoder.see if isinstance(encoder, MSCAN) else encoder  # the function that makes V_1 ... V_4 of images
    device = next(encoder.parameters()).device
    counts = labels["train"].max(axis=(0, 2, 3)) + 1
    namer = PixelNamer(encoder.channels, *counts.tolist())
    namer.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if (there := len(labels["train"])) < settings.images_per_batch:
        wanted = f"pretraining.images_per_batch: {settings.images_per_batch}"
        raise StudyError(f"{wanted}, but there are only {there} pictures to train on; make it smaller")
    rng = np.random.default_rng(settings.seed)

    def loss() -> Tensor:
        rows = np.sort(rng.choice(len(labels["train"]), settings.images_per_batch, replace=False))
        images = normalise(torch.from_numpy(corpora["train"].images[rows]).to(device))
        truth = torch.from_numpy(labels["train"][rows]).long().to(device)
        named = namer(see(images))
        return torch.stack([cross_entropy(logits, truth[:, k]) for k, logits in enumerate(named)]).sum()

    minimise(loss, nn.ModuleList([encoder, namer]), settings, settings.image_updates, "naming pixels", progress)
    right = np.zeros(2)
    with torch.inference_mode():
        for first in range(0, len(labels["val"]), 64):
            some = slice(first, first + 64)
            named = namer(see(normalise(torch.tensor(corpora["val"].images[some]).to(device))))
            truth = torch.from_numpy(labels["val"][some]).to(device)
            right += [(logits.argmax(1) == truth[:, k]).sum().item() for k, logits in enumerate(named)]
    category, colour = 100 * right / labels["val"][:, 0].size
    return {"category_accuracy": float(category), "colour_accuracy": float(colour)}


def said(data: DataConfig, corpora: Corpora, data_root: Path | str | None) -> Labels:
    """The content of every expression, bool (n, K), by split: the category of its referent and the steps of its
    program; steps about other things count as steps of their own. Steps in fewer than one of ``OFTEN`` training
    expressions are left out."""
    folder = prepare_data(data, data_root, progress=False) / data.dataset
    programs = {sentence["sent_id"]: sentence["program"] for sentence in sentences_of(folder, data.split_by)}
    steps = {
        split: [
            {f"category {row.category}", *_flat(programs[row.sent_id])}
            for row in corpus.table[["sent_id", "category"]].itertuples()
        ]
        for split, corpus in corpora.items()
    }
    often = Counter(step for own in steps["train"] for step in own)
    known = sorted(step for step, count in often.items() if count * OFTEN >= len(steps["train"]))
    return {split: np.array([[step in own for step in known] for own in rows]) for split, rows in steps.items()}


def _flat(program: Sequence[Sequence[Any]], whose: str = "") -> Iterator[str]:
    """The steps of a program as texts, with those of the programs within it."""
    for kind, word, *others in program:
        yield f"{whose}{kind} {word}"
        for other in others:
            yield from _flat(other, "other ")


def pretrain_text_encoder(
    encoder: TextEncoder, corpora: Corpora, labels: Labels, settings: PretrainConfig, progress: bool
) -> dict[str, float]:
    """Train the encoder to tell the content of an expression from the mean of its words; return the percentage of val's
    expressions whose whole content is recognised."""
    device = next(encoder.parameters()).device
    tell = nn.Linear(encoder.width, labels["train"].shape[1], device=device)
    rng = np.random.default_rng(settings.seed)

    def told(corpus: Corpus, rows: np.ndarray) -> Tensor:
        ids, mask = (torch.from_numpy(a[rows]).to(device) for a in (corpus.token_ids, corpus.token_mask))
        words = encoder(ids, mask) * mask[..., None]
        return tell(words.sum(1) / mask.sum(1, keepdim=True))

    def loss() -> Tensor:
        rows = rng.integers(len(corpora["train"].token_ids), size=settings.expressions_per_batch)
        truth = torch.from_numpy(labels["train"][rows]).float().to(device)
        return binary_cross_entropy_with_logits(told(corpora["train"], rows), truth, reduction="sum") / len(rows)

    minimise(loss, nn.ModuleList([encoder, tell]), settings, settings.text_updates, "telling what is said", progress)
    with torch.inference_mode():
        found = told(corpora["val"], np.arange(len(labels["val"]))).cpu().numpy() > 0
    return {"said_accuracy": 100 * float((found == labels["val"]).all(axis=1).mean())}


def minimise(
    loss: Callable[[], Tensor], module: nn.Module, settings: PretrainConfig, updates: int, title: str, progress: bool
) -> None:
    """Minimise the loss of a batch, which every call of ``loss`` draws anew, by AdamW; leave the module in evaluation
    mode. The rate rises linearly over a twentieth of the updates and falls linearly to zero over all."""
    optimizer = torch.optim.AdamW(parameter_groups(module, settings.weight_decay), lr=settings.learning_rate)
    module.train()
    for update in bar(range(updates), desc=title, shown=progress):
        rate = settings.learning_rate * (min(1.0, 20 * (update + 1) / updates) * (1 - update / updates))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    module.eval()
