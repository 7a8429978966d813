"""What is shown while notebooks run: lines as they start and end and, on a terminal, a view that moves."""

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from refstudy.engine.plan import Step


@dataclass
class _Running:
    start: float
    cell: int = 0
    cells: int = 0


class Progress:
    """Hears from the workers which notebook is at which cell, and shows it.

    ``running``: what runs at this moment, by the name of its step. ``slots``: how many can run at once.
    """

    def __init__(self, steps: list[Step], console: Console, slots: int = 1):
        self.running: dict[str, _Running] = {}
        self._steps = {step.name: step for step in steps}
        self._console, self._slots, self._start = console, slots, time.monotonic()
        self._live = Live(self, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take in a worker's news: see ``refstudy.engine.notebook.execute_notebook``."""
        name = event[1]["name"]
        if "ended" in event[1]:
            if run := self.running.pop(name, None):
                self._steps[name].seconds = time.monotonic() - run.start
        elif event[1]["cells"] == 0:
            self.running[name] = _Running(time.monotonic())
            self._console.print(f"started  {name}")
        elif name in self.running:
            self.running[name].cell, self.running[name].cells = event[1]["cell"], event[1]["cells"]

    def end(self, step: Step) -> None:
        """Show what became of a step."""
        self.running.pop(step.name, None)
        counts = f"({self._finished()} of {len(self._steps)})"
        self._console.print(f"{step.state:8} {step.name} after {step.seconds:.0f} s {counts}")
        if step.error:
            self._console.print(step.error, markup=False, highlight=False, soft_wrap=True)

    def _finished(self) -> int:
        return sum(step.state in ("done", "failed") for step in self._steps.values())

    def __rich__(self) -> Table:
        table, now = Table.grid(padding=(0, 2)), time.monotonic()
        for name, run in list(self.running.items()):
            left = self._left(self._steps[name], run, now)
            cells = f"cell {run.cell + 1}/{run.cells}" if run.cells else "starting"
            table.add_row(name, cells, _clock(now - run.start), f"{_clock(left)} left" if left is not None else "")
        lefts = [self._left(s, self.running.get(s.name), now) for s in self._steps.values() if s.state == "to run"]
        known = [left for left in lefts if left is not None]
        rest = f"about {_clock(sum(known) / self._slots)} left" if known and len(known) == len(lefts) else ""
        table.add_row("total", f"{self._finished()} of {len(self._steps)}", _clock(now - self._start), rest)
        return table

    def _left(self, step: Step, run: _Running | None, now: float) -> float | None:
        """Seconds, from the step's estimate or from how many of its cells are done; None when neither tells."""
        passed = now - run.start if run else 0.0
        if step.estimate is not None:
            return max(0.0, step.estimate - passed)
        return passed * (run.cells - run.cell) / run.cell if run and run.cell else None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
