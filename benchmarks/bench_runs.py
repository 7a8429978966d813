"""What running notebooks through Dask costs over papermill in a loop, and what a second worker gains.

Independent notebooks of pure computation, each on one thread; the study's own take longer (a minute and a half on
average). Every time is of a fresh process, from before its imports until it has ended. ``ratio`` is seconds of the
baseline over ours: at least 0.95 with one worker, at least 1.7 with two on two free cores. How much of a second core
there is, the first row says; what is paid once a call, whatever the notebooks, the last.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NOTEBOOKS, STEPS = 4, 150_000_000
WORK = "total = 0\nfor number in range({}):\n    total += number"


def write_notebook(folder: Path, steps: int) -> None:
    """A notebook of that much work."""
    import nbformat

    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    book.cells = [nbformat.v4.new_code_cell(WORK.format(steps))]
    nbformat.write(book, folder / "work.ipynb")


def run_papermill(todo: list[tuple[Path, Path]]) -> None:
    """One after the other, as a loop over papermill does it."""
    import papermill

    for notebook, output in todo:
        papermill.execute_notebook(notebook, output, progress_bar=False)


def run_ours(todo: list[tuple[Path, Path]], workers: int) -> None:
    """Through ``refstudy.engine.workers``."""
    from rich.console import Console

    from refstudy.engine.plan import Step
    from refstudy.engine.workers import execute

    steps = [Step(output.stem, notebook, output, {}, {}) for notebook, output in todo]
    assert execute(steps, todo[0][0].parent, workers, Console(quiet=True))


def process_seconds(way: str, count: int = NOTEBOOKS, steps: int = STEPS) -> float:
    """A fresh process that executes the notebooks in this way: "papermill", or so many workers of ours."""
    with tempfile.TemporaryDirectory() as folder:
        write_notebook(Path(folder), steps)
        start = time.perf_counter()
        subprocess.run([sys.executable, __file__, way, folder, str(count)], check=True)
        return time.perf_counter() - start


def plain_seconds(at_once: int) -> float:
    """The same work in bare Python processes, so many at once: what the machine itself gives."""
    start = time.perf_counter()
    for _ in range(0, 2, at_once):
        processes = [subprocess.Popen([sys.executable, "-c", WORK.format(STEPS)]) for _ in range(at_once)]
        assert not any(process.wait() for process in processes)
    return time.perf_counter() - start


def execute_in(folder: Path, way: str, count: int) -> None:
    """What the fresh process does."""
    todo = [(folder / "work.ipynb", folder / f"work{number}-executed.ipynb") for number in range(count)]
    run_papermill(todo) if way == "papermill" else run_ours(todo, int(way))


def main() -> None:
    from measure import write

    os.environ["OMP_NUM_THREADS"] = "1"
    loop, one, two = (process_seconds(way) for way in ("papermill", "1", "2"))
    rows = [
        ("two bare processes at once against one after the other", plain_seconds(1), plain_seconds(2)),
        (f"{NOTEBOOKS} notebooks: one worker against a loop over papermill, seconds", loop, one),
        (f"{NOTEBOOKS} notebooks: two workers against one, seconds", one, two),
        (
            "1 notebook of nothing: one worker against papermill, seconds",
            process_seconds("papermill", 1, 0),
            process_seconds("1", 1, 0),
        ),
    ]
    write(
        "runs",
        [{"what": what, "baseline": round(a, 1), "ours": round(b, 1), "ratio": round(a / b, 2)} for what, a, b in rows],
    )


if __name__ == "__main__":
    execute_in(Path(sys.argv[2]), sys.argv[1], int(sys.argv[3])) if len(sys.argv) == 4 else main()
