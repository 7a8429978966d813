"""What a second worker of a Dask cluster over TCP gains, against what a second bare process gains on the same work.

The work is the smoke profile's: its trainings, and then four notebooks that take about the same time. Bare processes
run `refstudy train` and papermill, each for its half; on the cluster, `dask scheduler` and `dask worker` processes are
handed the same by ``train_all`` and ``execute``. ``gain`` is the seconds of one process or worker over the seconds of
two, and ``ratio`` the cluster's gain over that of bare processes. Every process is on one thread. The start of a bare
process is counted, and that of the command which hands the work out; the workers' is not: a cluster's are there before.
Pairs of one and two alternate, and the numbers are medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROFILE, SEEDS = "smoke", (0,)
NOTEBOOKS = ("07_length_buckets", "09_paper_audit", "06_ablations", "02_s2rm_walkthrough")
DASK = Path(sys.executable).with_name("dask")


def fresh(folder: Path) -> Path:
    """A copy of the study file and the notebooks in a folder without results; its study file."""
    from refstudy.study import FILE_NAME

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(ROOT / FILE_NAME, folder)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder / FILE_NAME


def cases(path: Path) -> list[tuple[str, str, int]]:
    from refstudy.study.load import load_study

    return [(PROFILE, variant, seed) for seed in SEEDS for variant in load_study(path).variant_names(PROFILE)]


def train_bare(path: Path, share: slice) -> list[list[str]]:
    """The commands of one bare process."""
    command = [sys.executable, "-m", "refstudy.cli", "train", "--profile", PROFILE, "--study", str(path)]
    return [[*command, "--variant", variant, "--seed", str(seed)] for _, variant, seed in cases(path)[share]]


def notebooks_bare(path: Path, share: slice) -> list[list[str]]:
    commands = []
    for name in NOTEBOOKS[share]:
        about = {"study": str(path), "profile": PROFILE, "results": str(path.parent / "results" / PROFILE)}
        settings = [part for key, value in about.items() for part in ("-p", key, value)]
        output = path.parent / f"{name}.ipynb"
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", str(path.parent)]
        commands.append([*command, str(path.parent / "notebooks" / f"{name}.ipynb"), str(output), *settings])
    return commands


def bare_seconds(kind: str, path: Path, processes: int) -> float:
    """So many bare processes at once, each with its share of the commands, one after the other."""
    shares = [
        {"train": train_bare, "notebooks": notebooks_bare}[kind](path, slice(k, None, processes))
        for k in range(processes)
    ]
    scripts = [" && ".join(" ".join(f"'{part}'" for part in command) for command in share) for share in shares]
    start = time.perf_counter()
    called = [
        subprocess.Popen(["sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for script in scripts
    ]
    assert not any(one.wait() for one in called)
    return time.perf_counter() - start


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """A scheduler and so many workers, processes of Dask's own command line; the scheduler's address."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    place = ["--scheduler-file", str(file), "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    with subprocess.Popen([DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", *place], **quiet) as scheduler:
        while not (file.exists() and file.read_text(encoding="utf-8").endswith("}")):
            time.sleep(0.05)
        own = ["--local-directory", str(folder), "--preload", "refstudy.engine.trainings"]  # as docs/cluster.md has it
        command = [DASK, "worker", "--nworkers", "1", "--nthreads", "1", *own, *place]
        started = [subprocess.Popen(command, **quiet) for _ in range(workers)]
        try:
            yield json.loads(file.read_text(encoding="utf-8"))["address"]
        finally:
            for one in (*started, scheduler):
                one.terminate()
            for one in started:
                one.wait()


def cluster_seconds(kind: str, path: Path, workers: int) -> float:
    """The same work, handed to so many workers that are there."""
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder), workers) as address:
        with Client(address) as client:
            client.wait_for_workers(workers)
        command = [sys.executable, __file__, "hand-out", kind, str(path), address]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def hand_out(kind: str, path: Path, scheduler: str) -> None:
    """What the process does that hands the work to the cluster."""
    from refstudy.study.load import load_study

    study = load_study(path)
    if kind == "train":
        from refstudy.engine.signals import Stop
        from refstudy.engine.trainings import train_all

        assert train_all(study, cases(path), Stop(None), scheduler=scheduler) == 0
        return
    from refstudy.engine.plan import plan
    from refstudy.engine.workers import execute

    assert execute(plan(study, PROFILE, only=NOTEBOOKS), study.root, scheduler=scheduler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2, help="times that one and two are measured")
    given = parser.parse_args()
    from measure import write

    from refstudy.study.load import load_study

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("REFSTUDY_DATA", str(ROOT / "data"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = fresh(Path(folder) / "made")
        bare_seconds("train", made, 1)  # draws the scenes; and the notebooks' records are these
        for kind in ("train", "notebooks"):
            gains = {}
            for way, seconds in (("bare", bare_seconds), ("cluster", cluster_seconds)):
                times: list[list[float]] = []
                for _ in range(given.pairs):
                    pair = []
                    for count in (1, 2):
                        path = fresh(Path(folder) / "study")
                        if kind == "notebooks":
                            shutil.copytree(load_study(made).results(PROFILE), load_study(path).results(PROFILE))
                        pair.append(seconds(kind, path, count))
                    times.append(pair)
                one, two = (statistics.median(column) for column in zip(*times, strict=True))
                gains[way] = statistics.median(first / second for first, second in times)
                rows.append(
                    {
                        "what": f"{kind}, {way}",
                        "one_s": round(one, 1),
                        "two_s": round(two, 1),
                        "gain": round(gains[way], 2),
                    }
                )
            ratio = gains["cluster"] / gains["bare"]
            rows[-1] |= {"ratio": round(ratio, 2), "floor": 0.9}
            rows[-2] |= {"ratio": "", "floor": ""}
    write("cluster", rows)


if __name__ == "__main__":
    hand_out(*sys.argv[2:4], sys.argv[4]) if sys.argv[1:2] == ["hand-out"] else main()
