"""Make batches of the table: decode pictures and masks once, then group expressions by image."""

import errno
import functools
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import BertTokenizerFast

from refstudy.base.bar import bar
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write
from refstudy.data.masks import decode_mask, has_masks
from refstudy.data.pictures import read_image
from refstudy.data.words import tokenize

if TYPE_CHECKING:  # the answer to a photo needs none of it
    import pandas as pd

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, as the encoders expect
EXPRESSIONS_AT_ONCE = 32  # segmented together: SLViT at 480 px makes hundreds of megabytes of maps for each
PIXELS_AT_ONCE = 32 * 128**2  # of their pictures, on a CPU, whose caches hold no larger maps (docs/performance.md)
PADDING = tuple(round(255 * value) for value in IMAGE_MEAN)


def expressions_at_once(most: int, side: int, device: torch.device) -> int:
    """How many expressions about pictures of ``side`` pixels a side go through a model together on this device: at most
    ``most``, and on a CPU as many as ``PIXELS_AT_ONCE`` allow, at least one."""
    return min(most, max(1, PIXELS_AT_ONCE // side**2)) if device.type == "cpu" else most


@dataclass
class Corpus:
    """One split, decoded and resized to S x S, stretched as in LAVT's protocol unless ``keep_aspect``.

    images: uint8 (N, 3, S, S); masks: packed bits (R, S*S/8); image_of_ref (R,); token_ids, token_mask (E, L);
    ref_of_expression (E,); table: the split's rows in the order of the expressions.
    """

    images: np.ndarray
    masks: np.ndarray
    image_of_ref: np.ndarray
    token_ids: np.ndarray
    token_mask: np.ndarray
    ref_of_expression: np.ndarray
    table: "pd.DataFrame"
    keep_aspect: bool = False

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]

    @property
    def image_of_expression(self) -> np.ndarray:
        """The image of each expression, (E,)."""
        return self.image_of_ref[self.ref_of_expression]

    def rows_about(self, image: int) -> np.ndarray:
        """The row numbers of the expressions about an image, by its number."""
        return np.flatnonzero(self.image_of_expression == image)

    def image(self, number: int) -> np.ndarray:
        """An image by its number, uint8 (S, S, 3)."""
        return self.images[number].transpose(1, 2, 0)

    def mask(self, refs: np.ndarray) -> np.ndarray:
        """bool (n, S, S) masks of the referents with these row numbers."""
        side = self.image_size
        bits = np.unpackbits(self.masks[refs], axis=1, count=side * side)
        return bits.reshape(len(refs), side, side).astype(bool)

    def picture(self, expression: int) -> np.ndarray:
        """The picture uint8 (S, S, 3) that an expression, by its row number, is about."""
        return self.image(self.image_of_ref[self.ref_of_expression[expression]])

    def truth(self, expression: int) -> np.ndarray:
        """The mask bool (S, S) of the referent of an expression, by its row number."""
        return self.mask(self.ref_of_expression[[expression]])[0]

    def subset(self, images: int) -> "Corpus":
        """The corpus of the first ``images`` images."""
        return self._of(slice(images))

    def share(self, number: int, of: int) -> "Corpus":
        """The corpus of every ``of``-th image, from image ``number`` on."""
        return self if of == 1 else self._of(slice(number, None, of))

    def _of(self, chosen: slice) -> "Corpus":
        images = np.arange(len(self.images))[chosen]
        refs = np.flatnonzero(np.isin(self.image_of_ref, images))
        kept = np.flatnonzero(np.isin(self.ref_of_expression, refs))
        return replace(
            self,
            images=self.images[chosen],
            masks=self.masks[refs],
            image_of_ref=np.searchsorted(images, self.image_of_ref[refs]),
            token_ids=self.token_ids[kept],
            token_mask=self.token_mask[kept],
            ref_of_expression=np.searchsorted(refs, self.ref_of_expression[kept]),
            table=self.table.iloc[kept].reset_index(drop=True),
        )


@dataclass
class Batch:
    """Pictures, their expressions and masks, as compact as the corpus has them until the moment of use.

    pixels: uint8 (B, 3, S, S); image_index (E,); tokens (E, L); inside: bool (E, S, S); the numbers of the expressions
    in the corpus (E,). ``of`` counts the expressions of the whole batch, of which this may be a share.
    """

    pixels: Tensor
    image_index: Tensor
    token_ids: Tensor
    token_mask: Tensor
    inside: Tensor
    expressions: np.ndarray
    of: int

    @property
    def images(self) -> Tensor:
        """float (B, 3, S, S), normalised, made on the batch's device at each call."""
        return normalise(self.pixels)

    @property
    def masks(self) -> Tensor:
        """float (E, S, S), made on the batch's device at each call."""
        return self.inside.float()

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device. From pinned memory, the copy does not wait."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The batch in memory from which a GPU copies by itself."""
        return self._with(Tensor.pin_memory)

    def parts(self, count: int) -> list["Batch"]:
        """The batch cut into ``count`` of as many images each; the parts of a pinned batch are pinned."""
        images = len(self.pixels) // count
        ends = torch.searchsorted(self.image_index, torch.arange(0, len(self.pixels) + 1, images)).tolist()
        parts = [self._part(slice(k * images, (k + 1) * images), slice(*some)) for k, some in enumerate(pairwise(ends))]
        return [part.pinned() for part in parts] if self.image_index.is_pinned() else parts

    def slices(self, expressions: int) -> Iterator[tuple[slice, "Batch"]]:
        """The batch cut by expressions, at most so many in each part. A part has the pictures that it needs, and comes
        with their places in the batch, which should be on a CPU."""
        for first in range(0, len(self.expressions), expressions):
            some = slice(first, first + expressions)
            index = self.image_index[some]
            pictures = slice(int(index[0]), int(index[-1]) + 1)
            yield pictures, self._part(pictures, some)

    def _part(self, pictures: slice, some: slice) -> "Batch":
        """Some of the pictures, and ``some`` of the expressions, all about these."""
        names = ("image_index", "token_ids", "token_mask", "inside", "expressions")
        part = replace(self, pixels=self.pixels[pictures], **{name: getattr(self, name)[some] for name in names})
        return replace(part, image_index=part.image_index - pictures.start)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Any] = {name: change(x) for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **changed)


def build_corpus(
    table: "pd.DataFrame",
    split: str,
    image_size: int,
    tokenizer: BertTokenizerFast,
    max_words: int = 20,
    cache: Path | None = None,
    progress: bool = True,
    keep_aspect: bool = False,
) -> Corpus:
    """Decode one split of ``load_refer``'s table. Images are resized bilinearly, masks by nearest neighbour.

    ``keep_aspect`` centres each on a square of ImageNet's mean colour, where it is otherwise stretched to the square.
    Decoded arrays are kept in the folder ``cache`` or, where nothing can be written there, in the user's own cache,
    and opened memory-mapped the next time. Raises StudyError for an unknown split, data without masks, and whatever
    reading images and masks raises.
    """
    import pandas as pd

    rows = table[table["split"] == split].reset_index(drop=True)
    if rows.empty:
        raise StudyError(f"unknown split '{split}'; the data have {', '.join(sorted(table['split'].unique()))}")
    if not has_masks(rows):
        raise StudyError(f"split '{split}' has boxes but no masks: good for statistics; training needs the REFER files")
    refs = rows.drop_duplicates("ref_id").reset_index(drop=True)
    pictures = refs.drop_duplicates("image_id").reset_index(drop=True)
    kept = ("keep_aspect",) if keep_aspect else ()
    about: tuple = (pictures["image_path"], pictures["image_path"].map(_file_stamp), image_size, *kept)
    shape: tuple[int, ...] = (len(pictures), 3, image_size, image_size)
    images = _array(cache, "images", about, shape, lambda array: _fill_images(array, pictures, progress, keep_aspect))
    about = (refs["ann_id"], refs["height"], refs["width"], refs["segmentation"], image_size, *kept)
    shape = (len(refs), -(-image_size * image_size // 8))
    masks = _array(cache, "masks", about, shape, lambda array: _fill_masks(array, refs, image_size, keep_aspect))
    token_ids, token_mask = tokenize(tokenizer, rows["expression"].tolist(), max_words)
    image_of_ref, ref_of_expression = (pd.factorize(ids)[0] for ids in (refs["image_id"], rows["ref_id"]))
    return Corpus(images, masks, image_of_ref, token_ids, token_mask, ref_of_expression, rows, keep_aspect)


def placement(height: int, width: int, side: int, keep_aspect: bool) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a picture of ``height`` x ``width`` on its square of ``side`` pixels."""
    if not keep_aspect:
        return 0, 0, side, side
    high, wide = (max(1, round(length * side / max(height, width))) for length in (height, width))
    return (side - high) // 2, (side - wide) // 2, high, wide


def fit_image(pixels: np.ndarray, side: int, keep_aspect: bool) -> np.ndarray:
    """A picture uint8 (H, W, 3) as a model of ``side`` S sees it, (S, S, 3): resized bilinearly to its placement."""
    top, left, height, width = placement(pixels.shape[0], pixels.shape[1], side, keep_aspect)
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    square = np.full((side, side, 3), PADDING, np.uint8)
    square[top : top + height, left : left + width] = pixels
    return square


def fit_mask(mask: np.ndarray, side: int, keep_aspect: bool) -> np.ndarray:
    """A bool mask (H, W) of a picture on the model's square (S, S): resized by nearest neighbour."""
    top, left, height, width = placement(mask.shape[0], mask.shape[1], side, keep_aspect)
    square = np.zeros((side, side), bool)
    square[top : top + height, left : left + width] = resize_mask(mask, height, width)
    return square


def unfit(square: Tensor, height: int, width: int, keep_aspect: bool) -> Tensor:
    """Undo ``fit_image``: resize a float map (S, S) bilinearly to the picture's own size (height, width)."""
    top, left, high, wide = placement(height, width, square.shape[-1], keep_aspect)
    picture = square[None, None, top : top + high, left : left + wide]
    return interpolate(picture, size=(height, width), mode="bilinear", align_corners=False)[0, 0]


def _fill_images(images: np.ndarray, pictures: "pd.DataFrame", progress: bool, keep_aspect: bool) -> None:
    side = images.shape[-1]
    shown = progress and len(pictures) >= 500
    for k, row in enumerate(bar(pictures.itertuples(), desc="decoding images", total=len(pictures), shown=shown)):
        images[k] = fit_image(read_image(row.image_path, row.height, row.width), side, keep_aspect).transpose(2, 0, 1)


def _fill_masks(masks: np.ndarray, refs: "pd.DataFrame", side: int, keep_aspect: bool) -> None:
    for k, row in enumerate(refs.itertuples()):
        try:
            mask = decode_mask(row.segmentation, row.height, row.width)
        except StudyError as error:
            raise StudyError(f"referent {row.ref_id}, annotation {row.ann_id}: {error}") from error
        masks[k] = np.packbits(fit_mask(mask, side, keep_aspect))


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A bool mask resized by nearest neighbour."""
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def _file_stamp(path: str) -> str:
    """Size and time of change of a file: they tell a changed file without reading it."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise StudyError(f"{path}: image not found; put the images of the data set there") from error
    return f"{status.st_size} {status.st_mtime_ns}"


def _array(folder: Path | None, name: str, about: tuple, shape: tuple[int, ...], fill: Callable) -> np.ndarray:
    """A uint8 array that ``fill`` has filled; with a folder, a memory-mapped file named by a digest of ``about``, which
    is filled again where it was cut short. Where the folder lacks it and cannot be written to, the file is in the
    user's own cache, ``~/.cache/refstudy``."""
    if folder is None:
        array = np.empty(shape, np.uint8)
        fill(array)
        return array
    parts = [str(part) if isinstance(part, str | int) else json.dumps(list(part), default=str) for part in about]
    name += f"-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.npy"
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (_sound(folder / name, shape) or os.access(nearest, os.W_OK)):
        folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "refstudy"
    path = folder / name
    if not _sound(path, shape):
        try:
            with atomic_write(path) as temporary:
                if shutil.disk_usage(temporary.parent).free < math.prod(shape):  # a mapped file would end in a signal
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                made = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
                fill(made)
                made.flush()
                del made
        except OSError as error:
            remedy = "make room or allow to write; or name your own folder, with links to the data, in REFSTUDY_DATA"
            raise StudyError(f"{path.parent}: cannot keep decoded pictures ({error.strerror}); {remedy}") from error
    return np.load(path, mmap_mode="r")


def _sound(path: Path, shape: tuple[int, ...]) -> bool:
    """Tell if a whole array of this shape lies there."""
    try:
        return np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError, EOFError):
        return False


def grouped_batches(
    corpus: Corpus,
    images_per_batch: int,
    expressions_per_image: int,
    seed: int,
    epoch: int,
    start: int = 0,
    sampling: str = "referent",
    share: int = 0,
    shares: int = 1,
) -> Iterator[Batch]:
    """One epoch of training: every referent once, with one of its sentences drawn at random (S²RM, Sec. IV-B); with
    ``sampling`` "sentence", every sentence once.

    Those of one image come together, at most ``expressions_per_image`` in a batch, so that the image is encoded
    once for them. The order depends on ``seed`` and ``epoch`` alone. A short last batch is dropped.
    ``start`` skips that many batches, to go on within an epoch. Of each batch, which holds ``images_per_batch`` images,
    only the given one of ``shares`` equal shares is made.
    """
    rng = np.random.default_rng([seed, epoch])
    chosen = _one_sentence_each(corpus, rng) if sampling == "referent" else np.arange(len(corpus.ref_of_expression))
    groups = _groups(corpus.image_of_expression[chosen], rng, expressions_per_image)
    mine = images_per_batch // shares
    for first in range(start * images_per_batch, len(groups) - images_per_batch + 1, images_per_batch):
        whole = groups[first : first + images_per_batch]
        own = whole[share * mine : (share + 1) * mine]
        yield _batch(corpus, [chosen[group] for group in own], sum(map(len, whole)))


def made_ahead(batches: Iterator[Batch], pinned: bool) -> Iterator[Batch]:
    """The same batches; a thread makes each, and pins it where asked, while the one before it is in use."""

    def following() -> Batch | None:
        batch = next(batches, None)
        return batch.pinned() if batch is not None and pinned else batch

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(following)
        while (batch := coming.result()) is not None:
            coming = thread.submit(following)
            yield batch


def batches_per_epoch(
    corpus: Corpus, images_per_batch: int, expressions_per_image: int, sampling: str = "referent"
) -> int:
    """The number of batches that ``grouped_batches`` yields in an epoch."""
    counts = np.bincount(corpus.image_of_ref if sampling == "referent" else corpus.image_of_expression)
    return int(np.ceil(counts / expressions_per_image).sum()) // images_per_batch


def _one_sentence_each(corpus: Corpus, rng: np.random.Generator) -> np.ndarray:
    """For each referent, the number of one of its expressions."""
    shuffled = rng.permutation(len(corpus.ref_of_expression))
    sentence = np.empty(len(corpus.image_of_ref), np.int64)
    sentence[corpus.ref_of_expression[shuffled]] = shuffled  # the last one written stays
    return sentence


def _groups(images: np.ndarray, rng: np.random.Generator, most: int) -> list[np.ndarray]:
    """Numbers by image, shuffled within the image, cut into pieces of at most ``most``, the pieces shuffled."""
    shuffled = rng.permutation(len(images))
    by_image = np.split(shuffled[np.argsort(images[shuffled], kind="stable")], np.cumsum(np.bincount(images))[:-1])
    pieces = [some[first : first + most] for some in by_image for first in range(0, len(some), most)]
    return [pieces[k] for k in rng.permutation(len(pieces))]


def evaluation_batches(corpus: Corpus, images_per_batch: int) -> Iterator[Batch]:
    """Every expression once, grouped by image, in the order of the images."""
    order = np.argsort(corpus.image_of_expression, kind="stable")
    ends = np.cumsum(np.bincount(corpus.image_of_expression, minlength=len(corpus.images)))
    groups = np.split(order, ends[:-1])
    for first in range(0, len(corpus.images), images_per_batch):
        some = groups[first : first + images_per_batch]
        yield _batch(corpus, some, sum(map(len, some)))


def _batch(corpus: Corpus, groups: list[np.ndarray], of: int) -> Batch:
    """A batch of these groups of expressions, one image each; ``of`` as in ``Batch``."""
    expressions = np.concatenate(groups)
    images = corpus.image_of_ref[corpus.ref_of_expression[[group[0] for group in groups]]]
    token_mask = corpus.token_mask[expressions]
    length = int(token_mask.sum(1).max())  # no batch carries more padding than its longest expression needs
    return Batch(
        torch.from_numpy(corpus.images[images]),
        torch.from_numpy(np.repeat(np.arange(len(groups)), [len(group) for group in groups])),
        torch.from_numpy(corpus.token_ids[expressions][:, :length]),
        torch.from_numpy(token_mask[:, :length]),
        torch.from_numpy(corpus.mask(corpus.ref_of_expression[expressions])),
        expressions,
        of,
    )


def normalise(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32 with ImageNet's mean and deviation, channels last in memory."""
    mean, std = _mean_and_deviation(images.device)
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept for training too, even if the first call comes from inference
def _mean_and_deviation(device: torch.device) -> tuple[Tensor, ...]:
    """ImageNet's, each (1, 3, 1, 1)."""
    return tuple(torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))


def fingerprint(table: "pd.DataFrame") -> str:
    """16 hexadecimal digits of the SHA-256 over expressions, splits, segmentations and the bytes of the images.

    Raises StudyError for a missing image.
    """
    digest = hashlib.sha256()
    for row in table.itertuples():
        about = [row.sent_id, row.ref_id, row.split, row.expression, row.segmentation]
        digest.update(json.dumps(about, sort_keys=True).encode())
    for path in table["image_path"].drop_duplicates():
        try:
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except OSError as error:
            raise StudyError(f"{path}: image not found; put the images of the data set there") from error
    return digest.hexdigest()[:16]
