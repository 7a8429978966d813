"""One set of versions: pyproject.toml's ranges, requirements.lock's pins and environment.yml's pins agree; and the
interpreter that `make` sets up with is one of them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what everybody installs; the extras for clusters are pinned nowhere
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOCK_LINES = [line.removesuffix("\\").strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
LOCK = [Requirement(line) for line in LOCK_LINES if not line.startswith("--hash=")]


def locked(python: str) -> dict[str, str]:
    """Package name -> version pinned in the lock for this Python (Linux, or whatever runs the test)."""
    environment = default_environment() | {"python_version": python, "python_full_version": f"{python}.0"}
    pins = [pin for pin in LOCK if pin.marker is None or pin.marker.evaluate(environment)]
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(set(names)) == len(names)
    return {name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, pins, strict=True)}


def conda() -> list[str]:
    """What environment.yml has pip install, the project itself left out."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip_lines,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    return [line for line in pip_lines if not line.startswith("--")]


@pytest.mark.parametrize("python", PYTHONS)
def test_each_direct_dependency_has_one_pin_within_its_range(python):
    lock = locked(python)
    for requirement in DIRECT:
        assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)]), requirement.name


def test_environment_yml_pins_what_the_lock_pins():
    assert conda() == [line for line in LOCK_LINES if not line.startswith("--hash=")]


def test_every_pin_of_the_lock_has_its_hashes():
    text = (ROOT / "requirements.lock").read_text()
    assert all(re.search(rf"^{re.escape(str(pin.name))}==[^\n]*\\\n +--hash=sha256:", text, re.M) for pin in LOCK)


def test_running_needs_no_tool_of_tests_or_development():
    names = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert not names & {"pytest", "pytest-xdist", "nbval", "hypothesis", "ruff", "mypy", "pre-commit"}


def test_every_direct_dependency_has_its_reason():
    page = (ROOT / "docs" / "decisions.md").read_text().partition("## What is installed, and why")[2]
    named = {canonicalize_name(name) for name in re.findall(r"`([\w-]+)`", page)}
    assert named >= {canonicalize_name(requirement.name) for requirement in DIRECT}


def test_every_file_names_the_same_pythons(tmp_path):
    for minor in range(8, 20):
        python = f"3.{minor}"
        meant = python in PYTHONS
        assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.1") == meant
        stand_in(tmp_path, python, f"exec {sys.executable} -c 'import sys; sys.version_info = (3, {minor}); '\"$2\"")
        assert (find_python(tmp_path, str(tmp_path / python)).returncode == 0) == meant
    (conda_python,) = re.findall(r"- python=(.*)", (ROOT / "environment.yml").read_text())
    assert conda_python in PYTHONS
    for name in ("README.md", "Makefile", "tools/find_python.sh"):
        assert "3.11 to 3.14" in (ROOT / name).read_text(), name


def stand_in(folder, name, code):
    """An executable of this name that runs this line of shell."""
    (folder / name).write_text(f"#!/bin/sh\n{code}\n")
    (folder / name).chmod(0o755)


def find_python(path, *named):
    command = ["/bin/sh", str(ROOT / "tools" / "find_python.sh"), *named]
    return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True)


SHIM = "echo 'pyenv: command not found' >&2; exit 127"  # what pyenv leaves where a version is not activated
TOO_OLD = f"exec {sys.executable} -c 'import sys; sys.version_info = (3, 9); '\"$2\""
NO_VENV = (
    f'exec {sys.executable} -c \'import sys; sys.modules["ensurepip"] = None; \'"$2"'  # Debian's without python3-venv
)
GOOD = f'exec {sys.executable} "$@"'


@pytest.mark.parametrize(
    "there, found",
    [
        ({"python3": GOOD, "python3.13": GOOD}, "python3"),
        ({"python3": TOO_OLD, "python3.13": SHIM, "python3.12": GOOD}, "python3.12"),
        ({"python3": NO_VENV, "python3.14": GOOD, "uv": "exit 0"}, "python3.14"),
        ({"python3": NO_VENV, "uv": "exit 0"}, "uv"),
    ],
)
def test_the_first_suitable_interpreter_is_found(tmp_path, there, found):
    for name, code in there.items():
        stand_in(tmp_path, name, code)
    done = find_python(tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (f"{found}\n", "", 0)


def test_without_a_suitable_interpreter_one_line_has_the_remedy(tmp_path):
    stand_in(tmp_path, "python3", TOO_OLD)
    stand_in(tmp_path, "uv", SHIM)
    done = find_python(tmp_path)
    assert done.returncode and not done.stdout and done.stderr.count("\n") == 1
    assert "apt install python3-venv" in done.stderr and "brew install" in done.stderr and "install uv" in done.stderr


@pytest.mark.parametrize(
    "code, why",
    [(TOO_OLD, "it is Python 3.9"), (SHIM, "it does not start"), (NO_VENV, "it lacks venv; on Debian and Ubuntu: apt")],
)
def test_an_interpreter_named_by_hand_is_taken_or_refused(tmp_path, code, why):
    stand_in(tmp_path, "mine", code)
    stand_in(tmp_path, "python3", GOOD)
    done = find_python(tmp_path, "mine")
    assert done.returncode and not done.stdout and done.stderr.count("\n") == 1
    assert f"PYTHON=mine does not suit: {why}" in done.stderr
    stand_in(tmp_path, "mine", GOOD)
    assert find_python(tmp_path, "mine").stdout == "mine\n"


def test_the_lock_names_no_registry():
    assert not re.search(r"https?://|--(?:extra-)?index-url|--find-links", (ROOT / "requirements.lock").read_text())
