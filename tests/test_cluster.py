"""A Dask cluster of processes over TCP, as docs/cluster.md has it: a worker that is killed and one that joins late."""

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from refstudy.base.config import record_name
from refstudy.study.load import load_study
from refstudy.training.loop import train
from refstudy.training.records import find_records

from .conftest import tiny_profile
from .test_runs import gone
from .test_study import notebook

pytestmark = pytest.mark.long
DASK = Path(sys.executable).with_name("dask")
VARIANT = {"label": "Plain", "fusion": {"name": "tile_concat"}, "decoder": {"name": "fpn"}}
SEEDS = [3, 4, 5, 6]
MEET = """\
import os, pathlib, time
pathlib.Path("{}.started").touch()
end = time.time() + 600
while not pathlib.Path("{}.started").exists():
    assert time.time() < end
    time.sleep(0.05)
print(os.getppid())  # the worker, whose child a kernel is
"""


@contextmanager
def dask(folder, *arguments):
    """A process of Dask's own command line; in the end it is killed with all that it started."""
    with open(folder / f"{len(list(folder.glob('*.log')))}.log", "w") as log:
        command = [str(DASK), *arguments, "--scheduler-file", str(folder / "scheduler.json"), "--no-dashboard"]
        called = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield called
    finally:
        kill(called)


def kill(called):
    """Kill a process and its children at once, as when their machine goes down."""
    family = family_of(called)
    for process in family:
        process.kill()
    called.wait()
    assert gone(process.pid for process in family)


def family_of(called):
    if called.poll() is not None:
        return []
    parent = psutil.Process(called.pid)
    return [parent, *parent.children(recursive=True)]


def worker(folder):
    return dask(folder, "worker", "--nworkers", "1", "--nthreads", "1", "--local-directory", str(folder / "space"))


def within(seconds, condition):
    """What the condition gives as soon as that is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "in vain"
        time.sleep(0.05)
    return found


@pytest.fixture
def study(data_root, tmp_path, monkeypatch):
    """Four trainings of some seconds, and two notebooks that wait for each other, so that they need two workers."""
    monkeypatch.setenv("REFSTUDY_DATA", str(data_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, partner in ("ab", "ba"):
        notebook(tmp_path / f"{name}.ipynb", MEET.format(name, partner))
    runs = {name: {"notebook": f"{name}.ipynb", "data": False} for name in "ab"}
    profile = tiny_profile(epochs=12) | {"seeds": SEEDS}
    path = tmp_path / "papermill_runs.yaml"
    path.write_text(yaml.safe_dump({"variants": {"plain": VARIANT}, "profiles": {"small": profile}, "runs": runs}))
    return load_study(path)


def test_a_worker_that_is_killed_and_one_that_joins_late_lose_nothing(study, tmp_path_factory, tmp_path):
    folder, work, records = tmp_path_factory.mktemp("cluster"), study.root / "work" / "small", study.results("small")
    command = [sys.executable, "-m", "refstudy.cli", "run", "--train", "--profile", "small", "--study", str(study.path)]

    def trained_by(called):
        """The folder of the run that a process of this worker has trained for an epoch at least."""
        pids = {process.pid for process in family_of(called)}
        for holder in work.glob(".*.holder"):
            text = holder.read_text()
            run = work / holder.name.removesuffix(".holder")[1:]
            if text and int(re.match(r"process (\d+)", text)[1]) in pids and (run / "checkpoint.pt").exists():
                return run

    with dask(folder, "scheduler", "--host", "127.0.0.1", "--port", "0"):
        address = within(60, lambda: (folder / "scheduler.json").exists() and read(folder / "scheduler.json"))
        with worker(folder) as first, worker(folder) as second:
            with open(tmp_path / "out.txt", "w") as out:
                asked = subprocess.Popen([*command, "--scheduler", address], stdout=out, stderr=out)
            cut_short = within(600, lambda: trained_by(first))
            kill(first)
            with worker(folder) as late:
                assert asked.wait(timeout=900) == 0, (tmp_path / "out.txt").read_text()
                for one in (second, late):  # both execute a notebook
                    assert {process.pid for process in family_of(one)} & {int(printed(study, name)) for name in "ab"}
    found = {record.path.name: record for record in find_records(records / "records")}
    assert sorted(record.config.seed for record in found.values()) == SEEDS
    resumed = [name for name, record in found.items() if "resumed" in record.provenance()]
    assert resumed == [cut_short.name]
    config = found[cut_short.name].config
    alone = train(config, tmp_path / "alone", tmp_path / "work_alone", study.data_root, progress=False)
    assert alone.name == record_name(config) == cut_short.name
    for name in ("record.json", "curve.csv", "counts.parquet"):
        assert (alone / name).read_bytes() == (found[cut_short.name].path / name).read_bytes()


def read(path):
    text = path.read_text()
    return json.loads(text)["address"] if text.endswith("}") else ""


def printed(study, name):
    """What the executed notebook printed."""
    book = json.loads((study.results("small") / "notebooks" / f"{name}.ipynb").read_text())
    return "".join(book["cells"][-1]["outputs"][0]["text"])
