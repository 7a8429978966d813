"""Execution: failures of every kind, a cluster whose workers die, interruption, and what is shown meanwhile."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import dask
import nbformat
import psutil
import pytest
from distributed import Client, LocalCluster
from rich.console import Console

from refstudy.base.errors import Busy, StudyError
from refstudy.base.files import path_digest
from refstudy.base.provenance import code_version
from refstudy.engine import workers
from refstudy.engine.journal import read_journal
from refstudy.engine.notebook import refuse_without_figures
from refstudy.engine.plan import Step, plan
from refstudy.engine.run import run_profile
from refstudy.engine.workers import Progress, execute, in_turn
from refstudy.study.load import load_study
from tests.test_study import notebook, study_file
from tests.test_users import held

ROOT = Path(__file__).resolve().parents[1]


def step(folder, name, **settings):
    """A step whose notebook and output lie in ``folder``, where an earlier result is."""
    output = folder / "results" / f"{name}.ipynb"
    output.parent.mkdir(exist_ok=True)
    output.write_text("an earlier result")
    return Step(name, folder / f"{name}.ipynb", output, {"number": 7}, {}, **settings)


def gone(processes):
    """Whether all of these processes end soon."""
    return not psutil.wait_procs([psutil.Process(pid) for pid in processes if psutil.pid_exists(pid)], timeout=30)[1]


MEET = """\
import os, time, pathlib
pathlib.Path(f'{NAME}.started').touch()
waited_from = time.time()
while PARTNER and not pathlib.Path(f'{PARTNER}.started').exists():  # only met by a notebook that runs meanwhile
    assert time.time() < waited_from + 120
    time.sleep(0.05)
pathlib.Path(f'{NAME}.txt').write_text(f'{waited_from} {time.time()} {os.environ["OMP_NUM_THREADS"]}')
"""


def test_notebooks_fail_alone_and_work_side_by_side(tmp_path, capsys):
    for name, partner in (("first", "second"), ("second", "first"), ("last", "")):
        held = (300 << 20) if name == "first" else 1
        notebook(tmp_path / f"{name}.ipynb", f"NAME, PARTNER = '{name}', '{partner}'", MEET, f"len(b'1' * {held})")
    reads = "import pathlib; from refstudy.base.files import note; note('read', pathlib.Path('data.txt'))"
    notebook(tmp_path / "broken.ipynb", reads, "raise ValueError('the reason')")
    (tmp_path / "data.txt").touch()
    path = study_file(
        tmp_path,
        """\
        first: {notebook: first.ipynb, parameters: {number: 7}}
        second: {notebook: second.ipynb}
        broken: {notebook: broken.ipynb}
        last: {notebook: last.ipynb}
        """,
    )
    study = load_study(path)
    results = study.results("small")
    (results / "notebooks").mkdir(parents=True)
    (results / "notebooks" / "broken.ipynb").write_text("an earlier result")
    steps = plan(study, "small")
    assert not execute(steps, study.root, workers=2)
    states = {step.name: step.state for step in steps}
    assert states == {"first": "done", "second": "done", "broken": "failed", "last": "done"}
    printed = capsys.readouterr().out
    assert "broken.ipynb, cell 3 (In [4]): ValueError: the reason" in printed  # cell 1 is the injected one
    assert "----> 1 raise ValueError('the reason')" in printed
    kept = results / "notebooks" / "broken.failed.journal.jsonl"
    assert f"kept as {kept.with_name('broken.failed.ipynb')}; what it had read and written: {kept.name}" in printed
    assert read_journal(kept).read() == {tmp_path / "data.txt": path_digest(tmp_path / "data.txt")}
    told = {n: list(map(float, (tmp_path / f"{n}.txt").read_text().split())) for n in ("first", "second", "last")}
    assert told["first"][2] == max(1, dask.system.CPU_COUNT // 2)
    assert (results / "notebooks" / "broken.ipynb").read_text() == "an earlier result"
    assert (results / "notebooks" / "broken.failed.ipynb").exists()
    executed = json.loads((results / "notebooks" / "first.ipynb").read_text())
    injected = [c for c in executed["cells"] if "injected-parameters" in c["metadata"].get("tags", [])]
    assert "number = 7" in "".join(injected[0]["source"])
    noted = {n: nbformat.read(results / "notebooks" / f"{n}.ipynb", 4).metadata["refstudy"] for n in told}
    assert noted["first"]["parameters"]["number"] == 7 and noted["first"]["notebook"] == "first.ipynb"
    assert noted["first"]["commit"] == code_version()["commit"]
    assert noted["first"]["versions"]["torch"] == metadata.version("torch") and noted["first"]["device"]
    assert 0 < noted["first"]["seconds"] < 600 and 0 < noted["first"]["cpu_seconds"] < 600
    peaks = [noted[name]["peak_memory_mb"] for name in ("first", "second")]
    assert 150 < peaks[0] - peaks[1] < 450  # each kernel's own: nearer to the 300 MiB of the first than to none or two
    assert len({entry["key"] for entry in noted.values()}) == 3 and all(len(e["key"]) == 12 for e in noted.values())
    assert not list((results / "notebooks").glob(".*"))


def test_a_dead_kernel_is_reported_and_the_kernel_is_that_of_this_python_whatever_a_notebook_names(tmp_path):
    notebook(tmp_path / "dead.ipynb", "print('seen')", "import os; os._exit(1)")
    notebook(tmp_path / "other.ipynb", "import sys\nprint(sys.executable)")
    book = nbformat.read(tmp_path / "other.ipynb", as_version=4)
    book.metadata.kernelspec.name = "nowhere"
    nbformat.write(book, tmp_path / "other.ipynb")
    steps = [step(tmp_path, "dead"), step(tmp_path, "other")]
    assert not execute(steps, tmp_path, workers=2)
    dead, other = steps
    assert dead.error.startswith("dead.ipynb, cell 3: the kernel died")
    assert "seen" in (tmp_path / "results" / "dead.failed.ipynb").read_text()
    assert read_journal(tmp_path / "results" / "dead.failed.journal.jsonl").head["notebook"] == "dead.ipynb"
    assert dead.state == "failed" and dead.output.read_text() == "an earlier result"
    assert other.state == "done" and sys.executable in other.output.read_text()
    assert not list((tmp_path / "results").glob(".*"))


def test_a_kernel_has_an_environment_of_its_own_wherever_the_folder_is(tmp_path, monkeypatch):
    """Braces in a path are no parameters; what the shell says of Jupyter, Matplotlib and Python does not arrive."""
    folder = tmp_path / "h{number} {} {x} ü 'q'"
    draws = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    asks = "import os, json, sys\nprint(json.dumps([sys.executable, sys.flags.utf8_mode, dict(os.environ)]))"
    notebook(folder / "a.ipynb", draws, asks)
    bad = tmp_path / "kernels" / "python3"
    bad.mkdir(parents=True)
    (bad / "kernel.json").write_text(
        json.dumps({"argv": ["/usr/bin/false"], "display_name": "no", "language": "python"})
    )
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("import os; os._exit(3)")
    shell = {
        "MPLBACKEND": "Agg",
        "JUPYTER_PATH": tmp_path,
        "IPYTHONDIR": tmp_path / "ipython",
        "LC_ALL": "de_DE.ISO-8859-1",
    }
    shell |= {"MATPLOTLIBRC": tmp_path, "PYTHONHASHSEED": "7", "PYTHONUTF8": "0", "OMP_NUM_THREADS": "64"}
    for name, value in shell.items():
        monkeypatch.setenv(name, str(value))
    (one,) = steps = [step(folder, "a")]
    assert execute(steps, folder, workers=1), one.error
    cells = nbformat.read(one.output, as_version=4).cells
    assert any("image/png" in output.get("data", {}) for output in cells[-2].outputs)
    executable, utf8, environment = json.loads(cells[-1].outputs[0].text)
    assert executable == sys.executable and utf8 == 1 and environment["PYTHONHASHSEED"] == "0"
    assert not {name for name, value in shell.items() if environment.get(name) == str(value)}
    assert environment["PATH"] == os.environ["PATH"] and not Path(environment["IPYTHONDIR"]).exists()
    assert not list((folder / "results").glob("*.failed.*"))


@pytest.mark.parametrize("shown", [True, False])
def test_a_notebook_whose_figures_are_missing_is_not_done(tmp_path, shown):
    journal = tmp_path / "a.journal.jsonl"
    journal.write_text('{"notebook": "a"}\n{"time": "", "action": "wrote", "path": "/f/x.png", "sha256": ""}\n')
    output = nbformat.v4.new_output("display_data", {"image/png": ""} if shown else {"text/plain": "<Figure>"})
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", outputs=[output])])
    if shown:
        refuse_without_figures(book, journal)
    else:
        with pytest.raises(ValueError, match="wrote figures but shows none"):
            refuse_without_figures(book, journal)


def test_two_commands_do_not_run_one_profile_at_once(tmp_path):
    notebook(tmp_path / "a.ipynb", "1")
    study = load_study(study_file(tmp_path, "a: {notebook: a.ipynb, data: false}"))
    with (
        held(study.results("small")) as other,
        pytest.raises(Busy, match=f"already runs for it .process {other.pid} on"),
    ):
        run_profile(study, "small")
    with held(study.results("small")):
        assert run_profile(study, "small", dry_run=True) == 0


DIE = "import os, signal, time\nopen('{}', 'a').write(f'{{os.getpid()}} ')"
KILL = "os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)"  # a kernel's parent is the worker


@pytest.mark.slow
def test_on_a_cluster_a_run_outlives_its_worker_but_not_each_of_them(tmp_path):
    notebook(tmp_path / "once.ipynb", DIE.format("once"), f"if len(open('once').read().split()) == 1: {KILL}")
    notebook(tmp_path / "always.ipynb", DIE.format("always"), KILL)
    steps = [step(tmp_path, "once"), step(tmp_path, "always")]
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
    ):
        for one in steps:
            assert execute([one], tmp_path, scheduler=cluster.scheduler_address) is (one is steps[0])
    assert [s.state for s in steps] == ["done", "failed"]
    assert steps[1].error.startswith("always.ipynb: its worker died 2 times")
    assert (tmp_path / "results" / "always.failed.ipynb").exists() and not list((tmp_path / "results").glob(".*"))
    kernels = {name: (tmp_path / name).read_text().split() for name in ("once", "always")}
    assert {name: len(pids) for name, pids in kernels.items()} == {"once": 2, "always": 2}
    assert gone(map(int, kernels["once"] + kernels["always"]))
    assert nbformat.read(steps[0].output, as_version=4).cells[-1].execution_count
    assert steps[1].output.read_text() == "an earlier result"


HANG_ONCE = """\
import os, pathlib, time
if not pathlib.Path('kernel').exists():
    pathlib.Path('written').write_text(str(os.getpid()))
    pathlib.Path('written').rename('kernel')
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_call_leaves_no_process_and_the_next_one_goes_on(tmp_path, number):
    notebook(tmp_path / "a.ipynb", HANG_ONCE)
    results = tmp_path / "results" / "small" / "notebooks"
    results.mkdir(parents=True)
    (results / "a.ipynb").write_text("an earlier result")
    path = study_file(tmp_path, "a: {notebook: a.ipynb, data: false}")
    command = [sys.executable, "-m", "refstudy.cli", "run", "--profile", "small", "--study", str(path)]
    called = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    while not (tmp_path / "kernel").exists():
        assert called.poll() is None
        time.sleep(0.1)
    family = [child.pid for child in psutil.Process(called.pid).children(recursive=True)]
    assert int((tmp_path / "kernel").read_text()) in family
    os.killpg(called.pid, number) if number == signal.SIGINT else called.send_signal(number)  # a terminal's goes to all
    printed = called.communicate(timeout=120)[0]
    assert gone(family)
    if number == signal.SIGKILL:
        assert called.returncode == -number
    else:
        assert called.returncode == 128 + number
        assert "interrupted: 0 of 1 are done" in printed
        assert not list(results.glob(".*"))
    assert (results / "a.ipynb").read_text() == "an earlier result" and not list(results.glob("*.failed.ipynb"))
    study = load_study(path)
    assert execute(plan(study, "small"), study.root)
    assert nbformat.read(results / "a.ipynb", as_version=4).cells[-1].execution_count
    assert not list(results.glob(".*"))


def test_what_cannot_be_written_is_named_and_the_earlier_result_stays(tmp_path):
    notebook(tmp_path / "large.ipynb", "print('x' * 2_000_000)")
    notebook(tmp_path / "nowhere.ipynb", "1")
    (tmp_path / "file").touch()
    steps = [step(tmp_path, "large"), step(tmp_path, "nowhere")]
    steps[1].output = tmp_path / "file" / "nowhere.ipynb"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # the workers inherit it
    try:
        assert not execute(steps, tmp_path, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps[0].error == f"large.ipynb: File too large: {tmp_path / 'results'}; correct that and run again"
    assert steps[0].output.read_text() == "an earlier result"
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"large.ipynb", "large.log", "nowhere.ipynb"}
    assert steps[1].error.startswith("nowhere.ipynb: ") and str(tmp_path / "file") in steps[1].error


WRITES = """\
from pathlib import Path
from refstudy.base.files import atomic_write, exists
folder = Path(results) / 'tables'
with atomic_write(folder / 'made.csv') as temporary:
    temporary.write_text('made')
"""
READS = """\
from pathlib import Path
from refstudy.base.files import exists
print('found' if exists(Path(results) / 'tables' / 'made.csv') else 'missed')
"""


def test_what_reads_a_file_that_another_notebook_writes_meanwhile_is_executed_again(tmp_path):
    notebook(tmp_path / "reads.ipynb", READS)
    notebook(tmp_path / "writes.ipynb", WRITES)
    runs = "\n".join(f"{name}: {{notebook: {name}.ipynb, data: false}}" for name in ("reads", "writes"))
    study = load_study(study_file(tmp_path, runs))
    assert run_profile(study, "small", workers=1) == 0
    executed = study.results("small") / "notebooks" / "reads.ipynb"
    assert "found" in executed.read_text() and "missed" in executed.read_text()
    assert {step.state for step in plan(study, "small")} == {"up to date"}


QUIET = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50, "processes": False}


def test_what_waits_goes_to_the_worker_that_is_free(tmp_path):
    """The long task ends when all others have; shared out beforehand, every second one would wait behind it."""

    def work(name):
        (tmp_path / name).touch()
        end = time.time() + 120
        while name == "long" and len(list(tmp_path.iterdir())) < 5 and time.time() < end:
            time.sleep(0.02)
        return len(list(tmp_path.iterdir()))

    def submit(name):
        most.append(len(running))
        return client.submit(work, name, pure=False)

    most, running = [], {}
    with LocalCluster(n_workers=2, **QUIET) as cluster, Client(cluster) as client:
        names = ["long", "a", "b", "c", "d"]
        seen = {name: future.result() for name, future in in_turn(client, names, submit, running)}
    assert set(seen) == set(names) and seen["long"] == 5 and max(most) == 1 and not running


def test_a_scheduler_that_is_lost_ends_what_runs_and_names_what_was_not_begun():
    running, ended = {}, []
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        LocalCluster(n_workers=1, **QUIET) as cluster,
        Client(cluster, timeout=1) as client,
        pytest.raises(StudyError, match="the scheduler was lost before 2 were begun"),
    ):
        for name, future in in_turn(client, "abc", lambda name: client.submit(time.sleep, 2, pure=False), running):
            ended.append((name, future.status))
            cluster.close()
    assert ended == [("a", "finished")] and not running


def test_a_scheduler_reads_a_task_without_pytorch():
    """It loads the module of ``call``, by which trainings are handed out."""
    assert workers.call.__module__ == "refstudy.engine.workers" and workers.call("math", "sqrt", 4.0) == 2
    command = "import sys, refstudy.engine.workers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=False).returncode == 0


def test_without_anything_to_run_no_cluster_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Client", None)
    assert execute([step(tmp_path, "a", state="up to date")], tmp_path)


def test_a_scheduler_that_does_not_answer_is_named(tmp_path):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(StudyError, match="--scheduler tcp://127.0.0.1:1: no answer; start one with: dask scheduler"),
    ):
        execute([step(tmp_path, "a")], tmp_path, scheduler="tcp://127.0.0.1:1")


def test_the_view_shows_cells_and_how_a_step_ended(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    steps = [step(tmp_path, "one"), step(tmp_path, "two"), step(tmp_path, "later")]
    console = Console(force_terminal=True, width=100, record=True, file=io.StringIO())
    progress = Progress(steps, console)
    for name in ("one", "two"):
        progress.hear((0.0, {"name": name, "cell": 0, "cells": 0}))
        progress.hear((0.0, {"name": name, "cell": 2, "cells": 6}))

    def shown():
        return {task.description: (task.completed, task.total) for task in progress.view.tasks}

    assert shown() == {"notebooks": (0, 3), "one, cells": (2, 6), "two, cells": (2, 6)}
    now += 40
    progress.hear((0.0, {"name": "two", "ended": True}))
    steps[1].state = "done"
    progress.end(steps[1])
    assert steps[1].seconds == 40 and list(progress.running) == ["one"]
    assert shown() == {"notebooks": (1, 3), "one, cells": (2, 6)}
    assert "started  two" in (said := console.export_text()) and "done     two after 40 s (1 of 3)" in said
