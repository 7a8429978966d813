"""The public code of LAVT and SLViT beside ours, in one run: forward, training step, evaluation of one image.

    python benchmarks/bench_peers.py --lavt FOLDER --slvit FOLDER

FOLDER is a clone of github.com/yz93/LAVT-RIS or github.com/NaturalKnight/SLViT. Their code is imported from there, in a
process of its own, with random weights; what they import and this environment lacks (mmcv, mmseg, and the files that
SLViT's repository does not hold) is stood in for by the few functions below. Both sides get the same sizes, in fp32.
"""

import argparse
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_evaluation import EXPRESSIONS, WORDS, random_weights
from measure import DEVICE, compared, seconds, write
from torch import Tensor, nn
from torch.nn import functional

from refstudy.models.build import build_model
from refstudy.training.losses import dice_loss

SIDE = 480  # what both were made for
PEERS = {"lavt": "github.com/yz93/LAVT-RIS", "slvit": "github.com/NaturalKnight/SLViT"}
REPEATS = 3 if DEVICE.type == "cpu" else 10
Segment = Callable[[Tensor, Tensor, Tensor], Tensor]


def norm_layer(settings: dict[str, Any], width: int) -> tuple[str, nn.Module]:
    """mmcv's ``build_norm_layer``, of the two kinds that SLViT asks for."""
    group = settings["type"] == "GN"
    return "norm", nn.GroupNorm(settings["num_groups"], width) if group else nn.BatchNorm2d(width)


class ConvModule(nn.Sequential):
    """mmcv's: convolution, norm where asked, ReLU unless none is wanted."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm_cfg: Any = None, act_cfg: Any = True):
        parts: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, bias=norm_cfg is None)]
        parts += [norm_layer(norm_cfg, outputs)[1]] if norm_cfg else []
        super().__init__(*parts, *([nn.ReLU(inplace=True)] if act_cfg else []))


class BaseModule(nn.Module):
    """mmcv's, without its ways to initialise."""

    def __init__(self, init_cfg: Any = None):
        super().__init__()


def stand_in(name: str, **members: Any) -> None:
    """Put a module of this name where Python finds it; what it is not given is None."""
    module = types.ModuleType(name)
    module.__path__ = []
    module.__getattr__ = lambda member: None if not member.startswith("__") else _missing(member)  # type: ignore
    for member, value in members.items():
        setattr(module, member, value)
    sys.modules[name] = module


def _missing(member: str) -> None:
    raise AttributeError(member)


def stand_ins(folder: Path) -> None:
    """All that the two repositories import besides torch, timm and their own files."""
    from timm.layers import DropPath

    def unused(*arguments: Any, **named: Any) -> None:
        """Initialises weights or loads some; random ones serve here."""

    for name in (
        "mmcv",
        "mmcv.fileio",
        "mmcv.parallel",
        "mmcv.utils",
        "mmseg",
        "mmseg.models",
        "mmcv.cnn.utils",
        "thop",
    ):
        stand_in(name)
    stand_in("mmcv.runner", BaseModule=BaseModule)
    inits = dict.fromkeys(("constant_init", "normal_init", "trunc_normal_init", "kaiming_init"), unused)
    stand_in("mmcv.cnn", ConvModule=ConvModule, build_norm_layer=norm_layer, **inits)
    stand_in("mmcv.cnn.bricks", DropPath=DropPath)
    stand_in("mmcv.cnn.utils.weight_init", **inits)
    stand_in("mmseg.utils", get_root_logger=unused)
    stand_in("mmseg.ops", resize=functional.interpolate)
    stand_in("mmseg.models.builder", BACKBONES=types.SimpleNamespace(register_module=lambda: lambda made: made))
    for name in ("mmcv_custom", "involution_cuda"):
        if not (folder / "lib" / name).exists():
            stand_in(f"lib.{name}")


def their_model(peer: str, folder: Path) -> tuple[nn.Module, Segment]:
    """Their model, text encoder included, and how it is called for masks (E, S, S)."""
    sys.path.insert(0, str(folder))
    stand_ins(folder)
    from bert.configuration_bert import BertConfig  # type: ignore[import-not-found]
    from bert.modeling_bert import BertModel  # type: ignore[import-not-found]

    BertModel.from_pretrained = classmethod(lambda cls, name: cls(BertConfig()))
    if DEVICE.type == "cpu":
        torch.Tensor.cuda = lambda self, *arguments, **named: self  # type: ignore[method-assign]
    from lib import segmentation  # type: ignore[import-not-found]

    swin = "base" if DEVICE.type == "cuda" else "tiny"
    settings = types.SimpleNamespace(swin_type=swin, window12=False, mha="", fusion_drop=0.0, ck_bert="")
    make = segmentation.lavt_one if peer == "lavt" else segmentation.slvit
    model = make(pretrained="", args=settings).to(DEVICE)
    return model, lambda images, ids, mask: model(images, ids, mask.long())


def our_model(peer: str) -> tuple[nn.Module, Segment]:
    """Ours of the same sizes."""
    config = random_weights("refcoco_swinb" if DEVICE.type == "cuda" and peer == "lavt" else "refcoco", peer)
    image = config.image.model_copy(
        update={"name": config.image.name.replace("patch4_window12_384", "patch4_window7_224")}
    )
    model = build_model(config.model_copy(update={"image_size": SIDE, "image": image}))
    model = model.to(DEVICE, memory_format=torch.channels_last)
    return model, model


def times(peer: str, folder: Path | None) -> dict[str, float]:
    """Seconds of one forward pass, one training step, and the evaluation of one image's expressions.

    Theirs take the image anew for every expression, as their test scripts do.
    """
    model, segment = their_model(peer, folder) if folder else our_model(peer)
    images = torch.randn(1, 3, SIDE, SIDE, device=DEVICE)
    images = images if folder else images.contiguous(memory_format=torch.channels_last)
    ids = torch.randint(1000, 2000, (EXPRESSIONS, WORDS), device=DEVICE)
    mask, target = torch.ones_like(ids, dtype=torch.bool), torch.randint(2, (1, SIDE, SIDE), device=DEVICE)
    weights = torch.tensor([0.9, 1.1], device=DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=DEVICE.type == "cuda" and not folder)

    def step() -> None:
        optimizer.zero_grad()
        logits = segment(images, ids[:1], mask[:1])
        loss = functional.cross_entropy(logits, target, weights) if folder else dice_loss(logits, target.float())
        loss.backward()
        optimizer.step()

    def evaluation() -> None:
        if folder:
            for k in range(EXPRESSIONS):
                segment(images, ids[k : k + 1], mask[k : k + 1])
        else:
            index = torch.zeros(EXPRESSIONS, dtype=torch.long, device=DEVICE)
            model(images, ids, mask, index)

    model.train()
    found = {"training step": seconds(step, REPEATS)}
    model.eval()
    with torch.inference_mode():
        found["forward"] = seconds(lambda: segment(images, ids[:1], mask[:1]), REPEATS)
        found[f"evaluation of an image with {EXPRESSIONS} expressions"] = seconds(evaluation, REPEATS)
    return found


def alone(peer: str, folder: Path | None) -> dict[str, float]:
    """``times`` in a process of its own, whose import path is its own."""
    arguments = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--times",
        peer,
        *([f"--{peer}", str(folder)] if folder else []),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{peer}: {folder or 'ours'} did not run: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for peer, address in PEERS.items():
        parser.add_argument(f"--{peer}", type=Path, metavar="FOLDER", help=f"a clone of {address}")
    parser.add_argument("--times", choices=PEERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.times:
        print(json.dumps(times(given.times, getattr(given, given.times))))
        return
    rows = []
    for peer, address in PEERS.items():
        folder = getattr(given, peer)
        if folder is None:
            print(f"{peer}: skipped; give a clone of {address} with --{peer} FOLDER")
            continue
        if not (folder / "lib" / "segmentation.py").exists():
            sys.exit(f"{folder}: has no lib/segmentation.py; give a clone of {address}")
        theirs, ours = alone(peer, folder.resolve()), alone(peer, None)
        swin = (", Swin-B" if DEVICE.type == "cuda" else ", Swin-T") if peer == "lavt" else ""
        rows += [compared(f"{peer}{swin} at {SIDE}: {what}", "s", theirs[what], ours[what]) for what in theirs]
    if rows:
        write("peers", rows)


if __name__ == "__main__":
    main()
