"""SLViT's vision-language encoder (IJCAI 2023, Sec. 3.2): MSCAN, the trunk of SegNeXt, with LMFA for its attention."""

import itertools
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from refstudy.base.errors import StudyError
from refstudy.base.files import note
from refstudy.models.fusion.lmfa import LMFA, depthwise


def halving(inputs: int, outputs: int) -> list[nn.Module]:
    """A 3x3 convolution of stride 2 and batch normalisation: ``Down`` of Eq. (1)."""
    return [nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    """One block: attention, then a feed-forward network, each normalised before and scaled per channel after.

    Around LMFA are two 1x1 convolutions, a GELU and an inner shortcut, as in SegNeXt.
    """

    def __init__(self, width: int, mlp_ratio: int, drop_path: float, attention: LMFA):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.enter = nn.Sequential(nn.Conv2d(width, width, kernel_size=1), nn.GELU())
        self.attention = attention
        self.leave = nn.Conv2d(width, width, kernel_size=1)
        hidden = width * mlp_ratio
        expand, reduce = nn.Conv2d(width, hidden, kernel_size=1), nn.Conv2d(hidden, width, kernel_size=1)
        self.ffn = nn.Sequential(expand, depthwise(hidden, 3, 3), nn.GELU(), reduce)
        self.scale1 = nn.Parameter(torch.full((width,), 1e-2))
        self.scale2 = nn.Parameter(torch.full((width,), 1e-2))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """(E, C, H, W) to the same shape, and the scores of the LMFA; the other arguments are those of ``LMFA``."""
        inner = self.norm1(x)
        attended, scores = self.attention(self.enter(inner), words, word_mask)
        x = x + self.drop_path(self.scale1[:, None, None] * (self.leave(attended) + inner))
        return x + self.drop_path(self.scale2[:, None, None] * self.ffn(self.norm2(x))), scores


def _first_and_again(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """The contexts of a checkpointed block's two computations."""
    return nullcontext(), _untracked(block)


@contextmanager
def _untracked(block: nn.Module) -> Iterator[None]:
    """A context in which batch normalisation leaves its running statistics as they are."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, torch.zeros_like(cast(Tensor, norm.num_batches_tracked))
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class MSCAN(nn.Module):
    """Four stages at strides 4, 8, 16, 32; the default sizes are MSCAN-B, which SLViT takes.

    ``strips``, ``cross`` and ``gate`` are the options of ``LMFA``; with ``cross`` False this is SegNeXt's own trunk.
    With ``fresh_strips`` all strip pairs start from random weights: pretrained ones exist for the sizes 7, 11 and 21
    alone, and where sizes are compared, all should start alike. With ``grad_checkpointing`` the backward pass computes
    the blocks again, instead of keeping their results in memory.
    """

    grad_checkpointing = False

    def __init__(
        self,
        text_width: int,
        widths: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 3, 12, 3),
        mlp_ratios: Sequence[int] = (8, 8, 4, 4),
        drop_path_rate: float = 0.2,
        strips: Sequence[int] = (7, 11, 21),
        cross: bool = True,
        gate: bool = True,
        fresh_strips: bool = False,
    ):
        super().__init__()
        if not len(widths) == len(depths) == len(mlp_ratios) == 4 or min(depths) < 1:
            given = f"widths {list(widths)}, depths {list(depths)}, mlp_ratios {list(mlp_ratios)}"
            raise StudyError(f"mscan: {given} must be four positive numbers each")
        self.channels, self.fresh_strips = list(widths), fresh_strips
        half = widths[0] // 2
        stem = nn.Sequential(*halving(3, half), nn.GELU(), *halving(half, widths[0]))
        later = (nn.Sequential(*halving(*pair)) for pair in itertools.pairwise(widths))
        self.downs = nn.ModuleList([stem, *later])
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                Block(width, ratio, next(rates), LMFA(width, text_width, strips, cross, gate)) for _ in range(depth)
            )
            for width, depth, ratio in zip(widths, depths, mlp_ratios, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)

    def pretrained_part(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those ``tensors`` of this trunk, by name, that pretrained weights may set."""
        return {name: tensor for name, tensor in tensors.items() if not (self.fresh_strips and ".strips." in name)}

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to V_1 (B, C_1, H/4, W/4): all that does not depend on the words."""
        return self.downs[0](images)

    def see(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) to F_1 ... F_4 with no words; only for a trunk without language (``cross`` False)."""
        absent = images.new_empty(0)
        return self(self.embed(images), absent, absent)[0]

    def forward(
        self, vision: Tensor, words: Tensor, word_mask: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        """V_1 (E, C_1, h, w), words (E, L, D), bool mask (E, L) to F_1 ... F_4 and S_1 ... S_4.

        F_i is (E, C_i, h_i, w_i), each stage's sides half of the last one's, rounded up. S_i (E, L, h_i, w_i) are the
        raw scores of the last block of its stage (None without ``cross``).
        """
        maps, all_scores = [], []
        for stage, (blocks, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            if stage > 0:
                vision = self.downs[stage](vision)
            for block in blocks:  # type: ignore[attr-defined]
                if self.grad_checkpointing and self.training:
                    again = partial(_first_and_again, block)
                    vision, scores = checkpoint(block, vision, words, word_mask, use_reentrant=False, context_fn=again)
                else:
                    vision, scores = block(vision, words, word_mask)
            vision = norm(vision.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # F_i, Eq. (1); a channels-last view
            maps.append(vision)
            all_scores.append(scores)
        return tuple(maps), tuple(all_scores)


# Patterns that turn our names of tensors into those of the published MSCAN weights, applied one after the other.
PUBLISHED_NAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^downs\.0\.", "patch_embed1.proj."),
    (r"^downs\.(\d)\.0\.", lambda match: f"patch_embed{int(match[1]) + 1}.proj."),
    (r"^downs\.(\d)\.1\.", lambda match: f"patch_embed{int(match[1]) + 1}.norm."),
    (r"^blocks\.(\d)\.", lambda match: f"block{int(match[1]) + 1}."),
    (r"^norms\.(\d)\.", lambda match: f"norm{int(match[1]) + 1}."),
    (r"\.enter\.0\.", ".attn.proj_1."),
    (r"\.leave\.", ".attn.proj_2."),
    (r"\.attention\.local\.", ".attn.spatial_gating_unit.conv0."),
    (
        r"\.attention\.strips\.(7|11|21)\.(\d)\.",
        lambda match: f".attn.spatial_gating_unit.conv{('7', '11', '21').index(match[1])}_{int(match[2]) + 1}.",
    ),
    (r"\.attention\.mix\.", ".attn.spatial_gating_unit.conv3."),
    (r"\.ffn\.0\.", ".mlp.fc1."),
    (r"\.ffn\.1\.", ".mlp.dwconv.dwconv."),
    (r"\.ffn\.3\.", ".mlp.fc2."),
    (r"\.scale([12])$", r".layer_scale_\1"),
]
# Tensors of a published file that are not used: the classifier, counters, strip pairs that an ablation leaves out.
NOT_NEEDED = re.compile(r"head\.|.*\.num_batches_tracked$|.*\.spatial_gating_unit\.conv[012]_[12]\.")


def published_names(trunk: MSCAN) -> dict[str, str]:
    """The trunk's tensors that published weights set: our name -> the published name."""
    own = trunk.pretrained_part(trunk.state_dict())
    return {name: source for name in own if (source := published_name(name)) is not None}


def published_name(name: str) -> str | None:
    """The name of the trunk's tensor ``name`` in a published file; None for what SegNeXt does not have."""
    for ours, theirs in PUBLISHED_NAMES:
        name = re.sub(ours, theirs, name)
    return None if ".attention." in name or name.endswith("num_batches_tracked") else name


def load_mscan(trunk: MSCAN, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Start ``trunk`` from published MSCAN weights: a classifier's, or a segmenter's with the prefix ``backbone.``.

    Returns the names of the tensors that keep their values: the language branch, strip pairs that are fresh or of other
    sizes than 7, 11 and 21, and counters. Raises StudyError, naming the tensor, when one is missing, does not fit, or
    has no place in the trunk.
    """
    if any(name.startswith("backbone.") for name in state_dict):
        state_dict = {name[9:]: tensor for name, tensor in state_dict.items() if name.startswith("backbone.")}
    own = trunk.state_dict()
    sources = published_names(trunk)
    remedy = "use the published MSCAN of the trunk's widths and depths"
    for name, source in sources.items():
        if source not in state_dict:
            raise StudyError(f"MSCAN weights: tensor '{source}' is missing; {remedy}")
        if state_dict[source].shape != own[name].shape:
            shapes = f"{tuple(state_dict[source].shape)}, not {tuple(own[name].shape)}"
            raise StudyError(f"MSCAN weights: tensor '{source}' is {shapes}; {remedy}")
    for source in sorted(set(state_dict) - set(sources.values())):
        if not NOT_NEEDED.match(source):
            raise StudyError(f"MSCAN weights: tensor '{source}' has no place in the trunk; {remedy}")
    trunk.load_state_dict({name: state_dict[source] for name, source in sources.items()}, strict=False)
    return sorted(set(own) - set(sources))


def load_mscan_file(trunk: MSCAN, path: Path | str) -> None:
    """Start ``trunk`` from a file of published MSCAN weights, or from the one named mscan_b* in a folder.

    The file is a .safetensors or a torch file, which holds the state dict itself or as its entry "state_dict". From a
    torch file only tensors and plain values are read. Raises StudyError, naming the file to get, when the file is
    missing, holds anything else, or does not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = min(path.glob("mscan_b*"), default=path / "mscan_b.pth")
    weights = "the ImageNet weights of MSCAN-B, mscan_b.pth, linked at github.com/Visual-Attention-Network/SegNeXt"
    remedy = f"get {weights}, and name the file or its folder in SLViT's option 'pretrained'"
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        state_dict: Any = content.get("state_dict", content)
        if not all(isinstance(tensor, Tensor) for tensor in state_dict.values()):
            raise TypeError("not all of it is tensors")
        load_mscan(trunk, state_dict)
        note("read", path)
    except StudyError as error:
        raise StudyError(f"{path}: {error}; {remedy}") from error
    except FileNotFoundError as error:
        raise StudyError(f"{path}: MSCAN weights not found; {remedy}") from error
    except pickle.UnpicklingError as error:
        raise StudyError(f"{path}: refused, since it is no torch file or holds more than tensors; {remedy}") from error
    except (OSError, SafetensorError, RuntimeError, EOFError, AttributeError, TypeError, KeyError) as error:
        raise StudyError(f"{path}: no MSCAN weights ({type(error).__name__}); {remedy}") from error
