"""The progress bar of long work."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

IN_A_LOG = 30.0  # seconds between two lines where what is written does not overwrite itself


def bar(items: Iterable | None = None, *, shown: bool = True, **about: Any) -> tqdm:
    """tqdm's bar, which in a log that is no terminal writes seldom; ``about`` is as in tqdm."""
    if not sys.stderr.isatty():
        about |= {"mininterval": IN_A_LOG, "maxinterval": IN_A_LOG}
    return tqdm(items, disable=not shown, **about)
