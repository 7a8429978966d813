"""The public code of LAVT, SLViT, CRIS and ETRIS beside ours: training step, forward pass, evaluation of one image.

Their code is imported from the user's clones in ``benchmarks/peers`` (none is kept in this repository), with random
weights. What they import and this environment lacks (mmcv, mmseg, loguru, and the files that SLViT's repository does
not hold) is stood in for by the few functions below. Theirs and ours are two processes that take turns, at the same
sizes; ``ratio`` is the median of the turns' ratios, and ``interval`` the lowest and highest of the six, which hold the
median with 97 % confidence. CRIS and ETRIS are other models than ours: their rows tell what each costs.
"""

import argparse
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import yaml
from bench_evaluation import EXPRESSIONS, random_weights
from measure import DEVICE, compared, synchronise, write
from torch import Tensor, nn
from torch.nn import functional

from refstudy.data.batches import EXPRESSIONS_AT_ONCE, expressions_at_once
from refstudy.models.build import build_model
from refstudy.training.evaluation import native_bfloat16
from refstudy.training.losses import dice_loss

CLONES = Path(__file__).parent / "peers"
PEERS = {"lavt": "yz93/LAVT-RIS", "slvit": "NaturalKnight/SLViT"}
PEERS |= {"cris": "DerrickWang005/CRIS.pytorch", "etris": "kkakkkka/ETRIS"}
SAME = ("lavt", "slvit")  # the same model on both sides; else S²RM + CASG is ours
SIZES = {"lavt": (480, 20), "slvit": (480, 20), "cris": (416, 17), "etris": (416, 17)}  # pixels, words: their own
TRAINED = {"lavt": 1, "slvit": 1, "cris": 2, "etris": 2}  # pairs in a step: a batch norm of CRIS sees one value a pair
SETTINGS = {"cris": "config/refcoco/cris_r50.yaml", "etris": "config/refcoco/bridge_r50.yaml"}
RESNET_50 = (1024, 224, (3, 4, 6, 3), 64, None, 77, 17, 49408, 512, 8, 12)  # CLIP's sizes
TURNS = 6
LAVT_SWIN = "base" if DEVICE.type == "cuda" else "tiny"
Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # images, word ids, target (None: no loss, the masks)


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
    """All that the repositories import besides torch, timm and their own files."""
    from timm.layers import DropPath

    def unused(*arguments: Any, **named: Any) -> None:
        """Initialises weights or loads some; random ones serve here."""

    for name in (
        "mmcv",
        "mmcv.fileio",
        "mmcv.parallel",
        "mmcv.utils",
        "mmcv.cnn.utils",
        "mmseg",
        "mmseg.models",
        "thop",
    ):
        stand_in(name)
    stand_in("loguru", logger=None)
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


def their_model(peer: str) -> tuple[nn.Module, Loss]:
    """Their model, text encoder included, and its loss as they train it."""
    folder = CLONES / PEERS[peer].split("/")[1]
    sys.path.insert(0, str(folder))
    stand_ins(folder)
    if DEVICE.type == "cpu":
        torch.Tensor.cuda = lambda self, *arguments, **named: self  # type: ignore[method-assign]
    if peer not in SAME:
        from model import clip, segmenter  # type: ignore[import-not-found]

        torch.jit.load = lambda *arguments, **named: clip.CLIP(*RESNET_50)
        settings = yaml.safe_load((folder / SETTINGS[peer]).read_text(encoding="utf-8"))["TRAIN"]
        model = getattr(segmenter, peer.upper())(types.SimpleNamespace(**settings)).to(DEVICE)
        return (
            model,
            lambda images, ids, target: (
                model(images, ids) if target is None else model(images, ids, target[:, None].float())[2]
            ),
        )
    from bert.configuration_bert import BertConfig  # type: ignore[import-not-found]
    from bert.modeling_bert import BertModel  # type: ignore[import-not-found]
    from lib import segmentation  # type: ignore[import-not-found]

    BertModel.from_pretrained = classmethod(lambda cls, name: cls(BertConfig()))
    options = types.SimpleNamespace(swin_type=LAVT_SWIN, window12=False, mha="", fusion_drop=0.0, ck_bert="")
    model = (segmentation.lavt_one if peer == "lavt" else segmentation.slvit)(pretrained="", args=options).to(DEVICE)
    weights = torch.tensor([0.9, 1.1], device=DEVICE)

    def loss(images: Tensor, ids: Tensor, target: Tensor | None) -> Tensor:
        logits = model(images, ids, torch.ones_like(ids))
        return logits if target is None else functional.cross_entropy(logits, target, weights)

    return model, loss


def our_model(peer: str) -> tuple[nn.Module, Loss]:
    """Ours: the same model, or S²RM + CASG with a Swin-T, at the peer's image size."""
    large = DEVICE.type == "cuda" and peer == "lavt"
    config = random_weights("refcoco_swinb" if large else "refcoco", peer if peer in SAME else "s2rm_casg")
    image = config.image.model_copy(
        update={"name": config.image.name.replace("patch4_window12_384", "patch4_window7_224")}
    )
    made = build_model(config.model_copy(update={"image_size": SIZES[peer][0], "image": image}))
    model = made.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(images: Tensor, ids: Tensor, target: Tensor | None) -> Tensor:
        """The image encoded once, its expressions in parts, as ``predictions`` and ``predict`` have them."""
        images = images.contiguous(memory_format=torch.channels_last)
        index = torch.arange(len(images), device=DEVICE).expand(len(ids))  # one image, or as many as expressions
        mask = torch.ones_like(ids, dtype=torch.bool)
        if target is not None:
            return dice_loss(model(images, ids, mask, index).float(), target.float())
        features = model.encode_image(images)
        together = expressions_at_once(EXPRESSIONS_AT_ONCE, images.shape[-1], DEVICE)
        parts = zip(*(whole.split(together) for whole in (ids, mask, index)), strict=True)
        return torch.cat([model.segment(features, *part) for part in parts])

    return model, loss


def serve(side: str, peer: str, precision: str) -> None:
    """Do the actions that come by standard input, one a line, and answer each with its seconds."""
    pixels, words = SIZES[peer]
    with redirect_stdout(sys.stderr):
        model, loss = (their_model if side == "theirs" else our_model)(peer)
    pairs = TRAINED[peer]
    images = torch.randn(pairs, 3, pixels, pixels, device=DEVICE)
    ids = torch.randint(1000, 2000, (EXPRESSIONS, words), device=DEVICE)
    target = torch.randint(2, (pairs, pixels, pixels), device=DEVICE)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, fused=DEVICE.type == "cuda" and side == "ours")
    cast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16")

    def step() -> None:
        optimizer.zero_grad()
        with cast:
            found = loss(images, ids[:pairs], target)
        found.backward()
        optimizer.step()

    @torch.inference_mode()
    def forward(several: int = 1) -> None:
        """Theirs take the image anew for every expression, as their test scripts do."""
        with cast:
            for one in ids[:several].split(1 if side == "theirs" else several):
                loss(images[:1], one, None)

    actions = {"training step": step, "forward": forward}
    actions[f"evaluation of an image with {EXPRESSIONS} expressions"] = lambda: forward(EXPRESSIONS)
    print(*actions, sep="\t", flush=True)
    for line in sys.stdin:
        model.train(line.strip() == "training step")
        start = time.perf_counter()
        actions[line.strip()]()
        synchronise()
        print(time.perf_counter() - start, flush=True)


def rows_of(peer: str, precision: str, turns: int = TURNS) -> list[dict]:
    """The rows of a peer: two processes, whose import paths are their own, in turns."""
    command = [sys.executable, "-W", "ignore", __file__, "--serve"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, side, peer, precision], **pipes) for side in ("theirs", "ours")]

    def answer(process: subprocess.Popen, line: str = "") -> str:
        if line:
            print(line, file=process.stdin, flush=True)
        if not (answered := process.stdout.readline()):
            sys.exit(f"{peer}: did not run; the lines above say why")
        return answered.strip()

    try:
        actions, _ = (answer(process).split("\t") for process in both)
        ours = "" if peer in SAME else ", beside our S²RM + CASG"
        rows = []
        for what in actions:
            pairs = [[float(answer(process, what)) for process in both] for _ in range(turns + 1)][1:]
            middle = [statistics.median(times) for times in zip(*pairs, strict=True)]
            name = f"{peer} at {SIZES[peer][0]}{ours}, {precision}: {what}"
            ratios = sorted(theirs / ours for theirs, ours in pairs)
            row = compared(name, "s", *middle, floor=1 if peer in SAME else None)
            row["ratio"] = round(statistics.median(ratios), 2)
            rows.append(row | {"interval": f"{ratios[0]:.2f} to {ratios[-1]:.2f}"})
        return rows
    finally:
        for process in both:
            process.kill()


def all_rows(turns: int = TURNS) -> list[dict]:
    """The rows of every peer whose clone is there."""
    precisions = ["float32", *(["bfloat16"] if DEVICE.type == "cuda" or native_bfloat16() else [])]
    rows = []
    for peer, name in PEERS.items():
        if not (folder := CLONES / name.split("/")[1]).exists():
            print(f"{peer}: skipped; git clone https://github.com/{name} {folder}")
            continue
        for precision in precisions:
            rows += rows_of(peer, precision, turns)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=TURNS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
    elif rows := all_rows(given.turns):
        write("peers", rows)


if __name__ == "__main__":
    main()
