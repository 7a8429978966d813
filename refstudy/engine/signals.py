"""Ends of long work: after some minutes, on Ctrl-C, or on SIGTERM, which queues send some time before they kill."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import inf

UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h: not done, and no failure


class Stop:
    """Tells if training must stop: so many minutes after it was made (None: never), or after SIGTERM or Ctrl-C.

    SIGTERM is passed on to ``children``. A second Ctrl-C ends at once.
    """

    def __init__(self, minutes: float | None = None):
        self.end = inf if minutes is None else time.monotonic() + 60 * minutes
        self.asked = False
        self.children: list[subprocess.Popen] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self.asked or time.monotonic() >= self.end

    def _ask(self, number: int, _: object) -> None:
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            os.write(2, b"\nstops after this update, and saves; Ctrl-C again ends at once\n")
        for child in self.children:
            child.terminate()


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise SystemExit with the status that a shell expects, 130 and 143."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    earlier = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def ended_in_time(stop: Stop) -> Iterator[None]:
    """Exit with ``UNFINISHED`` when the time is over or on SIGTERM, within the block or before it: at the deadline the
    process sends itself SIGTERM, as queues do."""
    rest, thread = max(0.0, stop.end - time.monotonic()), threading.main_thread().ident
    timer = threading.Timer(min(rest, threading.TIMEOUT_MAX), signal.pthread_kill, [thread, signal.SIGTERM])
    timer.daemon = True
    try:
        with ExitStack() as held:
            held.enter_context(exit_on_signals())  # and not the handlers of ``stop``
            held.callback(timer.cancel)
            if stop():
                raise SystemExit(UNFINISHED)
            timer.start()
            yield
    except SystemExit as ended:
        raise SystemExit(UNFINISHED if ended.code == 128 + signal.SIGTERM else ended.code) from None
