"""What running notebooks through Dask costs over papermill in a loop, and what a second worker gains.

Independent notebooks of pure computation, each on one thread. ``ratio`` is seconds of the baseline over ours: at least
0.95 with one worker (what starts the workers included), at least 1.7 with two on two free cores. How much of a second
core there is, the first row says.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from rich.console import Console

NOTEBOOKS, STEPS = 4, 60_000_000
WORK = f"total = 0\nfor number in range({STEPS}):\n    total += number"


def steps(folder: Path) -> list:
    """The notebooks' steps, in a folder of their own."""
    from refstudy.plan import Step

    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    book.cells = [nbformat.v4.new_code_cell(WORK)]
    nbformat.write(book, folder / "work.ipynb")
    names = [f"work{number}" for number in range(NOTEBOOKS)]
    return [Step(name, folder / "work.ipynb", folder / f"{name}-executed.ipynb", {}, set()) for name in names]


def papermill_seconds() -> float:
    """One after the other, as a loop over papermill does it."""
    with tempfile.TemporaryDirectory() as folder:
        todo, start = steps(Path(folder)), time.perf_counter()
        import papermill

        for step in todo:
            papermill.execute_notebook(step.notebook, step.output, progress_bar=False)
        return time.perf_counter() - start


def our_seconds(workers: int) -> float:
    """Through ``refstudy.runs``, from before the workers start until after they ended."""
    from refstudy.runs import execute

    with tempfile.TemporaryDirectory() as folder:
        todo, start = steps(Path(folder)), time.perf_counter()
        assert execute(todo, Path(folder), workers, Console(quiet=True))
        return time.perf_counter() - start


def plain_seconds(at_once: int) -> float:
    """The same work in bare Python processes, so many at once: what the machine itself gives."""
    start = time.perf_counter()
    for _ in range(0, NOTEBOOKS, at_once):
        processes = [subprocess.Popen([sys.executable, "-c", WORK]) for _ in range(at_once)]
        assert not any(process.wait() for process in processes)
    return time.perf_counter() - start


def main() -> None:
    from measure import write  # the workers import this file too, and need no torch

    os.environ["OMP_NUM_THREADS"] = "1"
    loop, one, two = papermill_seconds(), our_seconds(1), our_seconds(2)
    rows = [
        ("two bare processes at once against one after the other", plain_seconds(1), plain_seconds(2)),
        ("one worker against a loop over papermill", loop, one),
        ("two workers against one", one, two),
    ]
    write(
        "runs",
        [
            {"what": f"{NOTEBOOKS} notebooks: {what}, seconds", "baseline": round(a, 1), "ours": round(b, 1)}
            | {"ratio": round(a / b, 2)}
            for what, a, b in rows
        ],
    )


if __name__ == "__main__":
    main()
