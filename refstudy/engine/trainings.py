"""Several trainings, one after the other or at once, which stop in time and go on with the same command."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from queue import SimpleQueue

import torch
from accelerate.utils import broadcast_object_list
from dask.system import CPU_COUNT

from refstudy.config import ModelConfig
from refstudy.engine.workers import train_run
from refstudy.errors import StudyError
from refstudy.models.build import build_model
from refstudy.provenance import forget_peak_memory
from refstudy.records import find_record
from refstudy.study import Study
from refstudy.training import Unfinished, launched

UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h: not done, and no failure
Case = tuple[str, str, int]  # profile, variant, seed


class Stop:
    """Whether to stop: so many minutes after it was made (None: never), or once SIGTERM has come.

    Queues send SIGTERM some time before they kill; it is passed on to ``children``.
    """

    def __init__(self, minutes: float | None = None):
        self.end = inf if minutes is None else time.monotonic() + 60 * minutes
        self.asked = False
        self.children: list[subprocess.Popen] = []
        signal.signal(signal.SIGTERM, self._ask)

    def __call__(self) -> bool:
        return self.asked or time.monotonic() >= self.end

    def _ask(self, *_: object) -> None:
        self.asked = True
        for child in self.children:
            child.terminate()


@contextmanager
def ended_in_time(stop: Stop) -> Iterator[None]:
    """Send this process SIGTERM when the time is over, as queues do; what SIGTERM ends, or has ended before, ends with
    ``UNFINISHED``."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    rest, thread = max(0.0, stop.end - time.monotonic()), threading.main_thread().ident
    timer = threading.Timer(min(rest, threading.TIMEOUT_MAX), signal.pthread_kill, [thread, signal.SIGTERM])
    timer.daemon = True
    earlier = signal.signal(signal.SIGTERM, end)  # that of ``stop`` would only note it
    try:
        if stop():
            raise SystemExit(UNFINISHED)
        timer.start()
        yield
    except SystemExit as ended:
        raise SystemExit(UNFINISHED if ended.code == 128 + signal.SIGTERM else ended.code) from None
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, earlier)


def train_all(study: Study, cases: Sequence[Case], stop: Stop, at_once: int = 1, again: bool = False) -> int:
    """Train those cases that have no record, or all of them ``again``; return an exit status.

    It is 0 when all have their record, ``UNFINISHED`` when ``stop`` came before, and 1 when one of several at once
    failed. Those at once are processes of their own, whose lines are passed on as they come.

    Raises StudyError for an unknown profile or variant, for several cases ``again`` with a time at which to stop, and
    for bad input of a run that is not one of several at once.
    """
    for case in cases:
        study.run_config(*case)
    if at_once > 1 and "LOCAL_RANK" in os.environ:
        raise StudyError("--at-once: not under torchrun or accelerate launch, whose processes train one run together")
    if again and len(cases) > 1 and stop.end < inf:
        raise StudyError(
            "--again: not for several runs with --time-budget, since the same command would begin with the first anew; "
            "name one --variant and --seed, or delete their records and leave out --again"
        )
    speaks = at_once > 1 or launched().is_main_process
    todo = []
    for case in cases:
        if again or not (record := _record(study, case)):
            todo.append(case)
        elif speaks:
            print(f"{record}: has its record")
    if len(todo) > 1:
        _refuse_unfit(study, todo)
    if at_once > 1:
        todo = list(dict.fromkeys(todo))  # what was named twice is not to be trained twice at once
        places = SimpleQueue[dict[str, str]]()
        for place in _places(at_once):
            places.put(place)
        with ThreadPoolExecutor(at_once) as pool:
            statuses = list(pool.map(lambda case: _in_a_process(study, case, stop, places, again), todo))
    else:
        statuses = [_here(study, case, stop, again) for case in todo]
        launched().end_training()
    failed = [
        f"{variant}:{seed}" for (_, variant, seed), s in zip(todo, statuses, strict=True) if s not in (0, UNFINISHED)
    ]
    if UNFINISHED in statuses and len(cases) > 1 and speaks:
        rest = "go on with them alone, by --variant and --seed" if again else "the same command goes on"
        print(f"{statuses.count(UNFINISHED)} of {len(cases)} runs are unfinished; {rest}", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else UNFINISHED if UNFINISHED in statuses else 0


def _refuse_unfit(study: Study, cases: Sequence[Case]) -> None:
    """Build each model once, of shapes alone. Raises StudyError for options that do not fit it: now, and not when its
    turn comes after hours of others."""
    models = {study.run_config(*case).model.from_scratch().model_dump_json(): case for case in cases}
    for settings, (profile, variant, _) in models.items():
        try:
            with torch.device("meta"):
                build_model(ModelConfig.model_validate_json(settings))
        except StudyError as error:
            raise StudyError(f"{study.path.name}: variant '{variant}' under profile {profile}: {error}") from error


def _record(study: Study, case: Case) -> str:
    """The folder of a run's record; empty without one."""
    record = find_record(study.results(case[0]) / "records", study.run_config(*case))
    return str(record.path) if record else ""


def _here(study: Study, case: Case, stop: Stop, again: bool) -> int:
    """Train one run in this process, and in those launched with it, unless another command has trained it meanwhile;
    its exit status."""
    accelerator = launched()
    stopped, record = broadcast_object_list([stop(), "" if again else _record(study, case)])  # the main process says
    if stopped:
        return UNFINISHED
    if record:
        if accelerator.is_main_process:
            print(f"{record}: has its record", flush=True)
        return 0
    forget_peak_memory()  # of the runs before it
    try:
        status, message = 0, str(train_run(study, *case, stop=stop))
    except Unfinished as reached:
        status, message = UNFINISHED, str(reached)
    if accelerator.is_main_process:
        print(message, flush=True)
    return status


def _places(at_once: int) -> list[dict[str, str]]:
    """The environment of each of the runs at once, which share the machine's cores and, of several, its GPUs."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = named.split(",")[:count] if named else [str(number) for number in range(count)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, CPU_COUNT // at_once))
    shared = [{"CUDA_VISIBLE_DEVICES": gpus[k % count]} if count > 1 else {} for k in range(at_once)]
    return [os.environ | {"OMP_NUM_THREADS": threads} | gpu for gpu in shared]


def _in_a_process(study: Study, case: Case, stop: Stop, places: "SimpleQueue[dict[str, str]]", again: bool) -> int:
    """Train one run by the command line, in one of the ``places`` that is free; its exit status."""
    if stop():
        return UNFINISHED
    profile, variant, seed = case
    command = [sys.executable, "-m", "refstudy.cli", "train", "--profile", profile, "--study", str(study.path)]
    command += ["--variant", variant, "--seed", str(seed), *(["--again"] if again else [])]
    if stop.end < inf:
        command += ["--time-budget", f"{max(0.0, stop.end - time.monotonic()) / 60:.3f}"]
    place = places.get()
    try:
        with subprocess.Popen(command, env=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            stop.children.append(child)
            if stop.asked:  # between the question above and now
                child.terminate()
            for line in child.stdout or ():
                print(line, end="", flush=True)
    finally:
        places.put(place)
    return UNFINISHED if child.returncode == -signal.SIGTERM and stop.asked else child.returncode
