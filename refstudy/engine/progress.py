"""The display while notebooks run: lines as they start and end and, on a terminal, a bar for each."""

import time
from typing import Any

from rich import progress as rich_progress
from rich.console import Console

from refstudy.engine.plan import Step


class Progress:
    """Bars (``view``) from the news that workers send. ``running``: name -> bar and start of what runs now."""

    def __init__(self, steps: list[Step], console: Console):
        self.running: dict[str, tuple[rich_progress.TaskID, float]] = {}
        self._steps, self._console = {step.name: step for step in steps}, console
        self.view = rich_progress.Progress(
            "{task.description}",
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._total = self.view.add_task("notebooks", total=len(steps))

    def hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take a worker's news: see ``refstudy.engine.notebook.execute_notebook``."""
        name = event[1]["name"]
        if "ended" in event[1]:
            self._remove(name)
        elif event[1]["cells"] == 0:
            self.running[name] = (self.view.add_task(f"{name}, cells", total=None), time.monotonic())
            self._console.print(f"started  {name}")
        elif name in self.running:
            self.view.update(self.running[name][0], completed=event[1]["cell"], total=event[1]["cells"])

    def end(self, step: Step) -> None:
        """Print how a step ended."""
        self._remove(step.name)
        self.view.advance(self._total)
        ended = sum(one.state in ("done", "failed") for one in self._steps.values())
        self._console.print(f"{step.state:8} {step.name} after {step.seconds:.0f} s ({ended} of {len(self._steps)})")
        if step.error:
            self._console.print(step.error, markup=False, highlight=False, soft_wrap=True)

    def _remove(self, name: str) -> None:
        if name in self.running:
            bar, start = self.running.pop(name)
            self._steps[name].seconds = time.monotonic() - start
            self.view.remove_task(bar)
