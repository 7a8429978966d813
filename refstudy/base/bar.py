"""The progress bar of long work."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

IN_A_LOG = 30.0  # seconds between two lines in a log, where a line does not overwrite the one before


def bar(items: Iterable | None = None, *, shown: bool = True, **about: Any) -> "tqdm":
    """tqdm's bar; if stderr is no terminal, it writes seldom. ``about`` are further arguments of tqdm."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        about |= {"mininterval": IN_A_LOG, "maxinterval": IN_A_LOG}
    return tqdm(items, disable=not shown, **about)
