"""Trainings: one after the other, at once, or on Dask workers; they stop in time and go on with the same command."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, contextmanager
from math import inf
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from dask.system import CPU_COUNT

from refstudy.base.config import ModelConfig, record_name
from refstudy.base.errors import Busy, StudyError
from refstudy.base.locks import locked
from refstudy.base.provenance import forget_peak_memory
from refstudy.engine.model_card import write_model_card
from refstudy.engine.signals import UNFINISHED, Stop
from refstudy.models.build import build_model
from refstudy.study.file import Case, Study
from refstudy.study.load import load_study
from refstudy.training.loop import Remark, Unfinished, train
from refstudy.training.records import find_record
from refstudy.training.trainer import launched


def train_run(
    study: Study,
    profile: str,
    variant: str,
    seed: int,
    stop: Callable[[], bool] = lambda: False,
    remark: Remark | None = None,
) -> Path:
    """Train one run of a profile; return its record. Where the profile ships its weights, keep them; where it ships any
    seed of the variant, renew the card, which lists the results of the others. A run with ``Study.changes`` ships
    nothing.

    Raises Unfinished when ``stop`` says so: see ``refstudy.training.loop.train``.
    """
    config = study.run_config(profile, variant, seed)
    own, data = study.under(profile), study.data_root.absolute()
    shipped_seed = None if study.changes else own.settings.ships.get(variant)
    weights, encoders = own.weights(variant), study.encoders(profile, variant)
    ship = weights if shipped_seed == seed else None
    with _alone(own.work / record_name(config)), chdir(study.root):  # where relative paths of pretrained parts start
        records = own.folder / "records"
        record = train(config, records, own.work, data, encoders, stop=stop, ship=ship, remark=remark)
    if shipped_seed is not None and weights.exists() and launched().is_main_process:
        try:
            write_model_card(own)
        except StudyError as error:  # of another shipped file, maybe; the run is done all the same
            print(f"{record.name}: has its record, but the card of the shipped weights is the old one: {error}")
    return record


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Keep others from training the run of this folder. Raises Busy where another command trains it, in all processes
    that were launched together."""
    with ExitStack() as held:
        busy = ""
        if launched().is_main_process:
            try:
                held.enter_context(locked(work, f"{work.name}: is being trained", wait=False))
            except Busy as error:
                busy = str(error)
        if busy := broadcast_object_list([busy])[0]:
            raise Busy(busy)
        yield


def train_all(
    study: Study,
    cases: Sequence[Case],
    stop: Stop,
    at_once: int = 1,
    again: bool = False,
    scheduler: str = "",
    remark: Remark | None = None,
) -> int:
    """Train those cases that have no record, or all of them ``again``; return an exit status.

    It is 0 when all have their record, ``UNFINISHED`` when ``stop`` came before, and 1 when one of several at once
    failed. Those at once are processes of their own, whose lines are passed on as they come; with a ``scheduler``, the
    workers of this Dask scheduler train them. ``remark`` is for runs in this process.

    Raises StudyError for an unknown profile or variant, for several cases ``again`` with a time at which to stop, and
    for bad input of a run that is not one of several at once.
    """
    for case in cases:
        study.run_config(*case)
    refuse_options(len(cases), stop.end < inf, at_once, again, scheduler)
    speaks = at_once > 1 or launched().is_main_process
    todo = []
    for case in cases:
        if again or not (record := _record(study, case)):
            todo.append(case)
        elif speaks:
            print(f"{record}: has its record")
    if len(todo) > 1:
        _refuse_unfit(study, todo)
    if at_once > 1 or scheduler:
        todo = list(dict.fromkeys(todo))  # what was named twice is not to be trained twice at once
    if scheduler:
        statuses = _on_workers(study, todo, stop, again, scheduler)
    elif at_once > 1:
        statuses = _in_processes(study, todo, stop, at_once, again)
    else:
        statuses = [_here(study, case, stop, again, remark) for case in todo]
        launched().end_training()
    failed = [f"{variant}:{seed}" for (_, variant, seed), s in zip(todo, statuses, strict=True) if s == 1]
    if UNFINISHED in statuses and len(cases) > 1 and speaks:
        rest = "go on with them alone, by --variant and --seed" if again else "the same command goes on"
        print(f"{statuses.count(UNFINISHED)} of {len(cases)} runs are unfinished; {rest}", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else UNFINISHED if UNFINISHED in statuses else 0


def refuse_options(cases: int, limited: bool, at_once: int, again: bool, scheduler: str) -> None:
    """Raises StudyError, which names an option and a remedy, for options of ``train_all`` that exclude each other."""
    if at_once > 1 and "LOCAL_RANK" in os.environ:
        raise StudyError("--at-once: not under torchrun or accelerate launch, whose processes train one run together")
    if scheduler and limited:
        raise StudyError("--time-budget: not with --scheduler; give the queue's own limit to the workers")
    if scheduler and at_once > 1:
        raise StudyError("--at-once: not with --scheduler; start as many workers as there are to be runs at once")
    if again and cases > 1 and limited:
        raise StudyError(
            "--again: not for several runs with --time-budget, as the same command would begin again with the first; "
            "name one --variant and --seed, or delete their records and leave out --again"
        )


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
    """Name the folder of a run's record; empty without one."""
    record = find_record(study.results(case[0]) / "records", study.run_config(*case))
    return str(record.path) if record else ""


def _here(study: Study, case: Case, stop: Callable[[], bool], again: bool, remark: Remark | None = None) -> int:
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
        status, message = 0, str(train_run(study, *case, stop=stop, remark=remark))
    except (Unfinished, Busy) as reached:
        status, message = UNFINISHED, str(reached)
    if accelerator.is_main_process:
        print(message, flush=True)
    return status


def _on_workers(study: Study, cases: Sequence[Case], stop: Stop, again: bool, scheduler: str) -> list[int]:
    """Hand the runs to the workers of a Dask scheduler, print a line when one ends; their exit statuses."""
    from refstudy.engine.workers import call, connect, in_turn

    statuses, about = dict.fromkeys(cases, UNFINISHED), (str(study.path), dict(study.changes))
    running: dict[Any, Case] = {}
    with connect(scheduler) as client:

        def submit(case: Case) -> Any:
            return client.submit(call, __name__, _on_a_worker.__name__, *about, case, again, pure=False)

        for case, future in in_turn(client, cases, submit, running, stop):
            error = future.exception()
            statuses[case] = 1 if error else future.result()
            print(f"{':'.join(map(str, case))}: {error or _record(study, case) or 'unfinished'}", flush=True)
        client.cancel(list(running))
    return [statuses[case] for case in cases]


_TURN = threading.Lock()  # one training at a time in a process: random numbers and the current folder are its own


def _on_a_worker(path: str, changes: dict[str, Any], case: Case, again: bool) -> int:
    """Train one run as a Dask task, until it is cancelled; return its exit status."""
    from refstudy.engine.notebook import cancellation

    cancelled = cancellation()
    with _TURN:
        return _here(load_study(path).changed(changes), case, cancelled, again)


def _in_processes(study: Study, cases: Sequence[Case], stop: Stop, at_once: int, again: bool) -> list[int]:
    """Train the runs at once, each in a process of its own; their exit statuses, 1 for each that failed."""
    own, places = threading.local(), iter(_places(at_once))
    with ThreadPoolExecutor(at_once, initializer=lambda: setattr(own, "place", next(places))) as pool:
        found = list(pool.map(lambda case: _in_a_process(study, case, stop, own.place, again), cases))
    return [status if status in (0, UNFINISHED) else 1 for status in found]


def _places(at_once: int) -> list[dict[str, str]]:
    """List the environments of the runs at once, which share the machine's cores and, of several, its GPUs."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = named.split(",")[:count] if named else [str(number) for number in range(count)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, CPU_COUNT // at_once))
    shared = [{"CUDA_VISIBLE_DEVICES": gpus[k % count]} if count > 1 else {} for k in range(at_once)]
    return [os.environ | {"OMP_NUM_THREADS": threads} | gpu for gpu in shared]


def _in_a_process(study: Study, case: Case, stop: Stop, place: dict[str, str], again: bool) -> int:
    """Train one run by the command line, in the environment ``place``; its exit status."""
    if stop():
        return UNFINISHED
    profile, variant, seed = case
    command = [sys.executable, "-m", "refstudy.cli", "train", "--profile", profile, "--study", str(study.path)]
    command += ["--variant", variant, "--seed", str(seed), *(["--again"] if again else [])]
    for key, value in study.changes.items():
        command += ["--set", f"{key}={json.dumps(value)}"]  # JSON is YAML
    if stop.end < inf:
        command += ["--time-budget", f"{max(0.0, stop.end - time.monotonic()) / 60:.3f}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=place, text=True, errors="replace", **pipes) as child:  # type: ignore[call-overload]
        stop.children.append(child)
        if stop.asked:  # between the question above and now
            child.terminate()
        for line in child.stdout or ():
            print(line, end="", flush=True)
    ended_by_signal = stop.asked and child.returncode in (-signal.SIGTERM, -signal.SIGINT, 130)
    return UNFINISHED if ended_by_signal else child.returncode
