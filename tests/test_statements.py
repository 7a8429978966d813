"""docs/statements.md names objects, settings and entries of other pages: all of them exist and are as it says."""

import functools
import importlib
import re
import unicodedata
from pathlib import Path

import pytest
import yaml

from refstudy.study.load import load_study

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "statements.md").read_text(encoding="utf-8")
STUDY = load_study(ROOT / "papermill_runs.yaml")
PARTS = dict(zip(("s2rm_casg", "slvit"), PAGE.split("\n## SLViT"), strict=True))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py:[\w.]+)`", PAGE))))
def test_the_object_exists(name):
    file, path = name.split(":")
    module = importlib.import_module(f"refstudy.{file.removesuffix('.py').replace('/', '.')}")
    assert functools.reduce(getattr, path.split("."), module)


def test_the_variants_exist():
    named = set(re.findall(r"variant `(\w+)`", PAGE))
    assert named and named <= set(STUDY.variants)


@pytest.mark.parametrize("variant", PARTS)
def test_the_settings_are_those_of_the_papers_profile(variant):
    config = STUDY.run_config("refcoco", variant, seed=0)
    named = re.findall(r"`((?:data|train|model)\.[\w.]+): ([^`]+)`", PARTS[variant])
    assert len(named) >= 5
    for path, value in named:
        assert functools.reduce(getattr, path.split("."), config) == yaml.safe_load(value), path


def slug(heading: str) -> str:
    """What GitHub makes of a heading's text: letters, digits, "-" and "_" stay, blanks become "-"."""
    kept = (c for c in heading.lower() if c in " -" or unicodedata.category(c)[0] in "LM" or c.isdecimal() or c == "_")
    return "".join(kept).replace(" ", "-")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)\s]+)\)", PAGE))))
def test_the_entry_exists(target):
    file, _, anchor = target.partition("#")
    text = (ROOT / "docs" / (file or "statements.md")).read_text(encoding="utf-8")
    assert not anchor or anchor in map(slug, re.findall(r"^#+ (.+)$", text, re.MULTILINE))
