"""CPU seconds, user and system, of the commands that somebody waits for at the prompt.

Commands without a model are held against a bare ``import pandas``; the answer about a photo against PyTorch,
transformers' BERT, and a pass through a BERT of the shipped model's sizes; both are child processes on one thread,
taken in turn, and each number is the median. ``times`` is ours over the baseline, and ``at_most`` what it may be;
verify and cost have no baseline, and their ``at_most`` is in seconds. The last rows say what a photo's answer is made
of.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import write

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5
PANDAS, TORCH = "import pandas", "import torch"
BERT = """
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast
sizes = {"vocab_size": 431, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
model = BertModel(BertConfig(intermediate_size=512, **sizes), add_pooling_layer=False).eval()
with torch.inference_mode():
    model(input_ids=torch.ones(1, 20, dtype=torch.long))
"""
AT_THE_PROMPT = (
    ("--help",),
    ("train", "--help"),
    ("--version",),
    ("run", "--dry-run"),
    ("train", "--dry-run"),
    ("table",),
    ("table", "s2rm_table4"),
    ("show", "s2rm_table4", "s2rm_casg"),
)
MISTAKES = (
    ("runn",),
    ("run", "--nope"),
    ("run", "--profile", "none"),
    ("train", "--profile", "none"),
    ("table", "none"),
    ("show", "s2rm_table4", "none"),
    ("verify", "none"),
    ("cost", "--profile", "none"),
    ("evaluate", "none.safetensors"),
    ("rehearse", "--profile", "none"),
    ("data", "check", "none"),
    ("predict", "none.jpg", "a dog"),
    ("predict", "examples/scene.jpg", " "),
    ("predict", "examples/scene.jpg", "a dog", "--weights", "README.md"),
)


def refstudy(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "refstudy.cli", *arguments]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a child process and of its own children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_turn(*commands: list[str], repeats: int = REPEATS) -> list[float]:
    """The median CPU seconds of each command, after one call of each."""
    for command in commands:
        cpu_seconds(command)
    passes = [[cpu_seconds(command) for command in commands] for _ in range(repeats)]
    return [statistics.median(times) for times in zip(*passes, strict=True)]


def row(what: str, against: str, times: list[float], at_most: float | str = "") -> dict:
    ours, *base = times
    shown = {"baseline_s": round(base[0], 2), "ours_s": round(ours, 2), "times": round(ours / base[0], 2)}
    return {"what": what, "baseline": against} | shown | {"at_most": at_most}


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    for arguments in AT_THE_PROMPT + MISTAKES:
        name = " ".join(repr(one) if " " in one else one for one in ("refstudy", *arguments))
        rows.append(row(name, PANDAS, in_turn(refstudy(*arguments), python(PANDAS)), 1.5))
    with tempfile.TemporaryDirectory() as folder:
        photo = refstudy("predict", "examples/scene.jpg", "gray stone", "--output", folder, "--overwrite")
        bert = python(BERT)
        rows.append(
            row("refstudy predict, one photo", "torch, transformers' BERT and a pass", in_turn(photo, bert), 1.3)
        )
        rows.append(row("refstudy predict, one photo", TORCH, in_turn(photo, python(TORCH))))
    for what in ("from transformers import BertModel", "import timm"):
        rows.append(row(f"{TORCH}; {what}", TORCH, in_turn(python(f"{TORCH}; {what}"), python(TORCH))))
    for name, most in (("verify", 20), ("cost", 15)):
        (ours,) = in_turn(refstudy(name), repeats=1)
        about = {"what": f"refstudy {name}", "baseline": "", "baseline_s": "", "ours_s": round(ours, 1), "times": ""}
        rows.append(about | {"at_most": f"{most} s"})
    write("prompt", rows)


if __name__ == "__main__":
    main()
