"""After the study was run again, on a processor that rounds differently, `git status` is clean.

The other processor is this one with noise of 2^-20 on every output of every layer (tests/noise.py), in the kernels too.
"""

import os
import subprocess
import sys

import pytest

from refstudy.data.source import default_data_root

from .helpers import ROOT

STARTUP = f"""import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.noise import install
install(1, 2.0**-20)
"""


def git(folder, *arguments):
    name = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *name, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path):
    """The committed study in a repository of its own, with its results as this machine makes them."""
    git(ROOT, "clone", "--quiet", str(ROOT), str(tmp_path / "clone"))
    return tmp_path / "clone"


def run(clone, environment, *options):
    command = [sys.executable, "-m", "refstudy.cli", "run", "--profile", "scenes", "--fresh", *options]
    environment = os.environ | {"REFSTUDY_DATA": str(default_data_root(ROOT).absolute())} | environment
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.parametrize(
    "notebooks",
    [pytest.param(("02_s2rm_walkthrough",), marks=pytest.mark.slow), pytest.param((), marks=pytest.mark.long)],
    ids=["one notebook", "all"],
)
def test_the_tree_is_clean_after_the_study(clone, tmp_path, notebooks):
    """First without noise, since the committed results may be those of earlier code; then with it."""
    options = [part for name in notebooks for part in ("--only", name)]
    run(clone, {}, *options)
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "results of this machine")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-noise.py").write_text(STARTUP)
    run(clone, {"IPYTHONDIR": str(tmp_path / "ipython")}, *options)
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.parametrize(("folder", "megabytes"), [("figures", 10), ("rendered", 8)])
def test_the_clone_stays_small(folder, megabytes):
    files = git(ROOT, "ls-files", "-z", f"results/scenes/{folder}").split("\0")[:-1]
    assert files and sum((ROOT / name).stat().st_size for name in files) < megabytes * 10**6
