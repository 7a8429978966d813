"""The numbers that the papers print, one CSV per table, and how to read them."""

from importlib import resources

import pandas as pd

from refstudy.errors import StudyError

PAPERS = {"s2rm": "S²RM + CASG, arXiv 2405.09006", "slvit": "SLViT, IJCAI 2023"}


def stems() -> list[str]:
    """The tables that are transcribed, e.g. ``s2rm_table4``."""
    names = (entry.name for entry in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv"))


def load_reported(stem: str) -> pd.DataFrame:
    """A printed table: index ``row`` as printed, one column per metric, in percent.

    Raises StudyError for a table that is not transcribed.
    """
    if stem not in stems():
        raise StudyError(f"no printed table '{stem}'; known: {', '.join(stems())}")
    with resources.files(__name__).joinpath(f"{stem}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, index_col="row")
