"""The titles of tables and figures (``titles.yaml``)."""

from pathlib import Path

from refstudy.analysis.tables import PAPER_TABLES
from refstudy.base.yaml_files import read_yaml

CONTENT = read_yaml(Path(__file__).with_name("titles.yaml")).content
FIRST_FIGURES, PAPER_FIGURES = CONTENT["first_figures"], CONTENT["paper_figures"]
TITLES = PAPER_TABLES | PAPER_FIGURES | CONTENT["others"]


def title_of(stem: str) -> str:
    """The title of a table or figure; of one that has none its name in words."""
    return TITLES.get(stem, stem.replace("_", " ").capitalize())
