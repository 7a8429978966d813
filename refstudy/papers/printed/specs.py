"""The printed tables that the study fills (``specs.yaml``): titles, baselines, and the column of each split."""

from pathlib import Path

from refstudy.base.config import Settings
from refstudy.base.yaml_files import read_yaml


class TableSpec(Settings):
    """A table with a line per variant: its place in the paper, the row that the others are compared to, what the
    printed numbers were measured on, rows that no variant can fill, with the reason, ``labels``, rows in words, and
    ``over``, the baseline in words where it has others."""

    title: str
    baseline: str
    printed_on: str
    unfilled: dict[str, str] = {}
    labels: dict[str, str] = {}
    over: str = ""

    @property
    def reference(self) -> str:
        """The baseline in words."""
        return self.over or self.baseline


class Specs(Settings):
    """The content of ``specs.yaml``: ``titles`` of other tables by stem, ``tables`` by stem, and ``columns``: data set
    and partition -> split -> column of the tables over benchmarks."""

    titles: dict[str, str]
    tables: dict[str, TableSpec]
    columns: dict[str, dict[str, str]]


SPECS = read_yaml(Path(__file__).with_name("specs.yaml")).checked(Specs)
