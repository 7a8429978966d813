"""The bytes of the tensors that are alive while something is computed; of an evaluation, counted on shapes alone."""

import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch._C import DispatchKey
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from refstudy.analysis.cost import WORDS
from refstudy.base.config import ModelConfig
from refstudy.data.batches import Corpus
from refstudy.models.build import build_model
from refstudy.training.evaluation import EXPRESSIONS_AT_ONCE, predictions


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make while it is entered, as long as anything holds them:
    ``live`` now, and ``most`` so far. Memory that a kernel takes for itself and gives back is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self._known = WeakIdKeyDictionary()  # storages, those of the operations' inputs included

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            self._known[storage] = True
        made = NotImplemented
        if DispatchKey.CompositeImplicitAutograd not in func.py_kernels:  # those in Python stand for a single kernel
            with self:
                made = func.decompose(*args, **kwargs)  # in inference mode an operation comes whole
        if made is NotImplemented:
            made = func(*args, **kwargs)
        for storage in _storages(made):
            if storage not in self._known:
                self._known[storage] = True
                weakref.finalize(storage, self._add, -storage.nbytes())
                self._add(storage.nbytes())
        return made

    def _add(self, size: int) -> None:
        self.live += size
        self.most = max(self.most, self.live)


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def evaluation_memory(
    config: ModelConfig, images: int, expressions: int, together: int = EXPRESSIONS_AT_ONCE
) -> tuple[int, int]:
    """Bytes of a model's weights, and the most that an evaluation in float32 makes beyond them, of so many ``images``
    in one batch and ``expressions`` in all, ``together`` of them at once. Fused attention is counted as unfused."""
    side = config.image_size
    corpus = Corpus(
        np.zeros((images, 3, side, side), np.uint8),
        np.zeros((images, -(-side * side // 8)), np.uint8),
        np.arange(images),
        np.ones((expressions, WORDS), np.int64),
        np.ones((expressions, WORDS), bool),
        np.sort(np.arange(expressions) % images),
        pd.DataFrame(index=range(expressions)),
    )
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        model = build_model(config.from_scratch())
        with LiveBytes() as bytes_:
            deque(predictions(model, corpus, images, together), maxlen=0)
    return sum(tensor.nbytes for tensor in model.state_dict().values()), bytes_.most
