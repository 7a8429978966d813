"""The examination: sound modules are not blamed, and each broken one is by the check that is meant for it alone."""

import os
import random
import re

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from refstudy.analysis import seeds
from refstudy.analysis.examination import examine
from refstudy.analysis.examination.bench import FAULT, LOOK, Bench
from refstudy.analysis.examination.checks import CHECKS, meaning
from refstudy.analysis.examination.report import EXAMINED, cell, inspect
from refstudy.analysis.examination.subject import find
from refstudy.base.errors import StudyError
from refstudy.cli import app
from refstudy.models.build import build_model
from refstudy.study.load import load_study

from .helpers import ROOT, STUDY

SOUND = """
import torch
from torch import nn


class Part(nn.Module):
    def __init__(self, channels, text_width, grid):
        super().__init__()
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(text_width, channels, bias=False)
        self.value = nn.Linear(text_width, channels)
        self.gate = nn.Linear(text_width, channels)
        self.mix = nn.Sequential(nn.Conv2d(2 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, vision, words, word_mask):
        count, channels, height, width = vision.shape
        cells = vision.flatten(2).transpose(1, 2)
        scores = self.query(cells) @ self.key(words).transpose(1, 2) / channels**0.5
        scores = scores.masked_fill(~word_mask[:, None, :], -1e9)
        gathered = scores.softmax(2) @ self.value(words)
        weights = word_mask.to(words.dtype)[..., None]
        sentence = (words * weights).sum(1) / weights.sum(1)
        gathered = gathered * torch.sigmoid(self.gate(sentence))[:, None, :]
        gathered = gathered.transpose(1, 2).reshape(count, channels, height, width)
        return vision + self.mix(torch.cat([vision, gathered], 1))
"""
WEIGHTS = "weights = word_mask.to(words.dtype)[..., None]"
GATE, ADDED = "torch.sigmoid(self.gate(sentence))", "self.mix(torch.cat([vision, gathered], 1))"
CATCH = "super().__init__()"
# name -> text of ``SOUND``, what stands in its place, and the checks that have to find it
BROKEN = {
    "padding leak": (WEIGHTS, "weights = torch.ones_like(words[..., :1])", "padding"),
    "batch norm over words": (
        f"        {WEIGHTS}",
        "        words = self.norm(words.flatten(0, 1)).view(words.shape)\n        " + WEIGHTS,
        "padding",
    ),
    "the largest word": ("(words * weights).sum(1) / weights.sum(1)", "words.amax(1)", "padding"),
    "mean over padding": ("sum(1) / weights.sum(1)", "mean(1)", "padding"),
    "saturated gate": (GATE, "torch.sigmoid(50 * self.gate(sentence))", "gates"),
    "saturated gate by hand": (GATE, "(1 / (1 + torch.exp(-50 * self.gate(sentence))))", "gates precision"),
    "unscaled attention": ("/ channels**0.5", "* channels**0.5", "gates"),
    "deaf": ("[vision, gathered]", "[vision, 1e-6 * gathered]", "sentence"),
    "batch leak": (f"vision + {ADDED}", f"vision - vision.mean(0) + {ADDED}", "batch"),
    "sum over the batch": (f"vision + {ADDED}", f"(vision + {ADDED}).cumsum(0)", "batch"),
    "softmax over the batch": ("softmax(2)", "softmax(0)", "batch padding gates"),
    "softmax over cells": ("softmax(2)", "softmax(1)", "padding gates"),
    "fixed batch": ("reshape(count,", "reshape(4,", "batch"),
    "overflow in half precision": (
        "@ self.value(words)",
        "@ (1e4 * self.value(words)).half().to(words.dtype) / 1e4",
        "precision",
    ),
    "overflow of an exponential": (
        "scores.softmax(2)",
        "(scores.exp() / scores.exp().sum(2, keepdim=True))",
        "precision",
    ),
    "variance in bfloat16": (
        "@ self.value(words)",
        "@ ((v := self.value(words) + 20) / (v.square().mean(2, True) - v.mean(2, True).square()).sqrt())",
        "precision",
    ),
    "another type": (ADDED, f"{ADDED} * vision.new_ones(channels, 1, 1, dtype=torch.float64)", "precision"),
    "no gradient to the words": ("self.value(words)", "self.value(words).detach()", "gradients"),
    "no gradient to the query": ("self.query(cells)", "self.query(cells.detach())", "gradients"),
    "dead ReLU": (GATE, "torch.sigmoid(torch.relu(self.gate(sentence) - 9))", "gradients"),
    "an unused layer": (CATCH, f"{CATCH}; self.more = nn.Linear(channels, channels)", "gradients"),
    "a layer in a list": (
        "self.gate = nn.Linear(text_width, channels)",
        "self.l = [nn.Linear(text_width, channels)]",
        "repeats gradients device",
    ),
    "a roll": (ADDED, f"{ADDED}.roll(1, 2)", "border"),
    "a roll of columns": (ADDED, f"{ADDED}.roll(-1, 3)", "border"),
    "an input changed": (WEIGHTS, f"{WEIGHTS}; words.mul_(weights)", "repeats"),
    "a picture changed": ("cells =", "vision.add_(1); cells =", "repeats"),
    "chance in evaluation": ("softmax(2)", "softmax(2).mul(1 + torch.rand(()))", "repeats"),
    "dropout in evaluation": ("softmax(2)", "softmax(2).bernoulli().mul(1.0)", "repeats"),
    "chance of NumPy": (
        "softmax(2)",
        "softmax(2).mul(1 + __import__('numpy').random.default_rng().random())",
        "repeats",
    ),
    "an answer kept": (GATE, f"self.__dict__.setdefault('kept', {GATE})", "repeats"),
    "a circular padding": (
        "nn.Conv2d(2 * channels, channels, 1, bias=False)",
        "nn.Conv2d(2 * channels, channels, 3, padding=1, padding_mode='circular', bias=False)",
        "border",
    ),
    "a mean of the batch in training": (ADDED, f"{ADDED} - self.training * vision.mean(0)", "batch"),
    "no gradient to what was gathered": (
        "gathered = gathered.transpose",
        "gathered = gathered.data.transpose",
        "gradients",
    ),
    "fixed words": (
        "words, word_mask):",
        "words, word_mask):\n        words.shape[1] == 20 or words.view(0)",
        "padding",
    ),
    "an inverted mask": ("~word_mask", "word_mask", "padding"),
    "a count of calls": (
        GATE,
        f"(self.__dict__.setdefault('calls', []).append(1) or {GATE} * len(self.calls))",
        "repeats",
    ),
    "a fixed grid": ("channels, height, width)", "channels, 4, 4)", "sizes"),
    "rows for columns": (f"vision + {ADDED}", f"(vision + {ADDED}).transpose(2, 3)", "place sizes"),
    "scattered cells in the part that is added": (
        f"vision + {ADDED}",
        f"vision + {ADDED}.flatten(2).transpose(1, 2).reshape(vision.shape)",
        "place",
    ),
    "scattered cells": (f"vision + {ADDED}", f"{ADDED}.flatten(2).transpose(1, 2).reshape(vision.shape)", "place"),
    "a constant of the CPU": (ADDED, f"{ADDED} + torch.zeros(channels, 1, 1)", "device"),
    "a faint map": (f"vision + {ADDED}", f"0.01 * {ADDED}", "scale"),
}  # fmt: skip


def not_sound(found):
    return {check: one for check, one in found.items() if one.verdict in (FAULT, LOOK)}


def blamed(path, text, **how):
    path.write_text(text)
    return not_sound(inspect(Bench(find(f"{path}:Part", STUDY, **how))))


def test_what_the_broken_ones_were_made_of_is_sound(tmp_path):
    assert not blamed(tmp_path / "part.py", SOUND)


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_found_by_its_own_check_and_by_no_other(name, tmp_path):
    old, new, checks = BROKEN[name]
    text = SOUND.replace(old, new)
    if name == "a layer in a list":
        text = text.replace("self.gate(", "self.l[0](")
    if name == "batch norm over words":
        text = text.replace(CATCH, f"{CATCH}; self.norm = nn.BatchNorm1d(text_width)")
    assert text != SOUND
    found = blamed(tmp_path / "part.py", text)
    assert set(found) == set(checks.split()), found
    assert all(one.detail for one in found.values())


@pytest.mark.parametrize(
    "old, new, check",
    [
        ("image_index)\n", "0 * image_index)\n", "batch"),
        ("self.laterals[3](fused)", "0 * self.laterals[3](fused)", "gradients"),
        ("(level * self.weigh", "(level.roll(2, 3) * self.weigh", "border"),
    ],
)
def test_faults_of_decoders_are_found(old, new, check, tmp_path):
    text = (ROOT / "refstudy" / "engine" / "templates" / "new_decoder.py.txt").read_text().replace("$class", "Part")
    assert old in text
    assert set(blamed(tmp_path / "part.py", text.replace(old, new))) == {check}


def test_every_check_has_a_meaning_and_finds_something():
    assert meaning("padding") == "padded words have no say" and all(map(meaning, CHECKS))
    assert {check for *_, checks in BROKEN.values() for check in checks.split()} == set(CHECKS)
    assert all(function.__doc__ for function in CHECKS.values())


# What the study's own modules have stays as it is, since papers and code have it (docs/examine.md says why).
OWN = {
    "S²RM, products not scaled": "gates",
    "PWAM, V₄ plus gated cells": "sentence",
    "CASG, S_i not scaled": "gates",
    "SLViT": "gradients",
}


@pytest.mark.parametrize("size", ["scenes", pytest.param("papers", marks=pytest.mark.long)])
@pytest.mark.parametrize("label", EXAMINED)
def test_the_modules_of_the_study(label, size):
    name, options = EXAMINED[label]
    bench = Bench(find(name, STUDY, options=options, size=size))
    found = not_sound(inspect(bench))
    assert set(found) == set(OWN.get(label, "").split()), found
    if size == "scenes":  # of the report
        committed = pd.read_csv(
            ROOT / "results" / "scenes" / "tables" / "examinations.csv", index_col="module", dtype=str
        )
        assert {check: cell(check, one) for check, one in bench.found.items()} == committed.loc[label].to_dict()
        assert list(committed.index) == list(EXAMINED)


# what stands in place of which text of ``SOUND``, and the line that tells it
WRONG = [
    ("import torch\n", "import nothing_of_this_name\n", r"part.py:2 fails: ModuleNotFoundError"),
    ("class Part", "class Other", "has no class 'Part'; it has Other"),
    ("(nn.Module):", "(nn.Module:", "is not Python"),
    ("(channels, channels, bias=False)", "(channels, -1)", r"part.py:9 fails: RuntimeError"),
    ("channels, height, width)", "channels, 7, 7)", r"part.py:24 fails: RuntimeError: shape"),
    (f"vision + {ADDED}", f"{ADDED}.mean(1)", r"Part gives \(4, 4, 4\) in place of \(4, 256, 4, 4\)"),
    (WEIGHTS, f"{WEIGHTS} / 0", r"part.py:\d+: first NaN or infinity"),
    ("words, word_mask)", "words, word_mask, more, yet)", "forward takes 5 arguments; .* by --kind"),
    ("cells =", "torch.empty(1 << 60); cells =", r"part.py:17 fails: RuntimeError: too much memory; make it narrower"),
]


@pytest.mark.parametrize("old, new, message", WRONG)
def test_what_cannot_be_examined_is_told_in_one_line_with_its_place(old, new, message, tmp_path):
    path = tmp_path / "part.py"
    path.write_text(SOUND.replace(old, new))
    random.seed(5)
    chance = random.getstate()
    with pytest.raises(StudyError, match=message) as told:
        examine(f"{path}:Part", study=STUDY)
    assert "\n" not in str(told.value) and random.getstate() == chance


def test_wrong_names_are_told():
    for name, how, message in (
        ("film", {}, "no part 'film'; known: s2rm, .*; a class of your own is named film.py:FiLM"),
        ("none.py:FiLM", {}, "no file .*none.py"),
        ("s2rm", {"size": "large"}, "size 'large' is unknown; known: scenes, papers"),
        ("s2rm", {"kind": "encoder"}, "kind 'encoder' is unknown"),
        ("s2rm", {"options": {"scales": True}}, "unknown option 'scales'"),
    ):
        with pytest.raises(StudyError, match=message):
            examine(name, study=STUDY, **how)


def test_an_examination_shows_itself_beside_the_studys_own_and_leaves_chance_and_threads_alone():
    torch.manual_seed(5)
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    steps = []
    made = examine(
        f"{ROOT / 'examples' / 'film.py'}:FiLM", study=STUDY, progress=lambda _: steps.append(torch.get_num_threads())
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    assert set(steps) == {1} and threads == 2
    assert torch.equal(torch.get_rng_state(), before)
    table = made.table.set_index("check")
    assert list(table) == ["meaning", "measured", "Tile & Concat", "S²RM", "verdict", "where"]
    assert made.name == "film.py:FiLM" and "gates" not in table.index and made.sound  # it has no gates
    assert table.loc["M parameters", "measured"] == "0.132" and float(table.loc["ms", "S²RM"]) > 0
    assert {"sentence", "precision"} < set(table.index) and len(steps) == len(CHECKS) + 1
    assert "No fault among" in str(made) and "Nothing was trained" in str(made) and "<table" in made._repr_html_()
    assert re.search(r"sentence +0\.\d+ +0\.\d+ +0\.\d+ +sound", str(made))


@pytest.mark.parametrize(
    "kind, name, own", [("fusion", "film", "film.py:Film"), ("decoder", "FiLM_2", "film_2.py:FiLM_2")]
)
def test_a_new_module_works_at_once(kind, name, own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["new", kind, name, "--study", str(STUDY.path)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-2:] == [f"next: refstudy examine {own}", f"      refstudy compare {own}"]
    file = own.partition(".")[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{file}.py", f"{file}.yaml", f"test_{file}.py"])
    assert len((tmp_path / f"{file}.py").read_text().splitlines()) <= 32
    study = load_study(tmp_path / f"{file}.yaml")
    model = build_model(study.run_config("smoke", file, 0).model)
    assert type(getattr(model, kind)).__name__ == own.partition(":")[2]
    assert not not_sound(inspect(Bench(find(own, STUDY))))
    before = (tmp_path / f"{file}.py").read_text()
    (tmp_path / f"{file}.yaml").unlink()
    again = CliRunner().invoke(app, ["new", kind, name, "--study", str(STUDY.path)])
    assert isinstance(again.exception, StudyError) and f"{file}.py: exists; nothing was written" in str(again.exception)
    assert not (tmp_path / f"{file}.yaml").exists() and (tmp_path / f"{file}.py").read_text() == before


TAKEN = ("None", "true", "Class", "LAVT", "s2rm_casg", "refstudy", "random")


@pytest.mark.parametrize(
    "kind, name", [("encoder", "film"), ("fusion", "2film"), ("fusion", "a/b"), *(("fusion", name) for name in TAKEN)]
)
def test_what_cannot_be_made_new_is_told(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["new", kind, name, "--study", str(STUDY.path)])
    assert isinstance(done.exception, StudyError) and not list(tmp_path.iterdir())


def test_the_command_tells_a_fault_by_its_status(tmp_path):
    (tmp_path / "part.py").write_text(SOUND.replace("sum(1) / weights.sum(1)", "mean(1)"))
    done = CliRunner().invoke(app, ["examine", f"{tmp_path / 'part.py'}:Part", "--study", str(STUDY.path)])
    assert done.exit_code == 1 and "fault: padding. Wanted: padded words have no say." in done.output
    wrong = CliRunner().invoke(app, ["examine", "s2rm", "--option", "scale"])
    assert isinstance(wrong.exception, StudyError) and "--option scale: write key=value" in str(wrong.exception)


def test_seeds_alone_make_gains():
    runs = pd.DataFrame({"variant": ["a", "a", "a", "b"], "seed": [0, 1, 2, 0], "oIoU": [50.0, 52.0, 51.0, 60.0]})
    pairs = seeds.seed_pairs(runs)
    assert len(pairs) == 6 and sorted(pairs["gain"]) == [-2, -1, -1, 1, 1, 2]
    assert seeds.seed_spread(runs) == pytest.approx(1)
    assert seeds.chance_of_gain(1.0, 1, 2**0.5) == pytest.approx(0.158655, abs=1e-6)  # one deviation of a difference
    assert seeds.chance_of_gain(1.0, 4, 2**0.5) == pytest.approx(0.02275, abs=1e-5)  # two
    own = STUDY.under("scenes")
    found = seeds.runs_by_seed(own)
    assert set(own.settings.pilot) <= set(found.query("variant == 's2rm_casg'")["seed"])
