"""One set of versions: pyproject.toml's ranges, requirements.lock's pins and environment.yml's pins agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what everybody installs; the extras for clusters are pinned nowhere
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def locked() -> dict[str, set[str]]:
    """Package name -> versions pinned in the lock (more than one where Python versions need different ones)."""
    pins: dict[str, set[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[.*\])?==([^\s;]+)", line):
            pins.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return pins


def conda() -> dict[str, str]:
    """Package name -> version that environment.yml has pip install."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip_lines,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    pins = [Requirement(line) for line in pip_lines if not line.startswith("--")]
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") for pin in pins)
    return {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_each_direct_dependency_has_one_pin_within_its_range(requirement):
    (version,) = locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


def test_environment_yml_pins_exactly_the_direct_dependencies_as_the_lock_does():
    lock = locked()
    assert conda() == {canonicalize_name(r.name): next(iter(lock[canonicalize_name(r.name)])) for r in DIRECT}


def test_the_lock_names_no_registry():
    assert not re.search(r"https?://|--(?:extra-)?index-url|--find-links", (ROOT / "requirements.lock").read_text())
