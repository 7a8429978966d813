"""The titles of tables and figures (``titles.yaml``)."""

from pathlib import Path

from refstudy.analysis.tables import PAPER_TABLES
from refstudy.base.config import Settings
from refstudy.base.yaml_files import read_yaml


class Titles(Settings):
    """The content of ``titles.yaml``."""

    first_figures: tuple[str, ...]
    paper_figures: dict[str, str]
    others: dict[str, str]


FILE = read_yaml(Path(__file__).with_name("titles.yaml")).checked(Titles)
FIRST_FIGURES, PAPER_FIGURES = FILE.first_figures, FILE.paper_figures
TITLES = PAPER_TABLES | PAPER_FIGURES | FILE.others


def title_of(stem: str) -> str:
    """The title of a table or figure; of one that has none its name in words."""
    return TITLES.get(stem, stem.replace("_", " ").capitalize())
