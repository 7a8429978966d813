"""Claims that the study judges and explanations that it tests, which are entries of ``claims.yaml``."""

from pathlib import Path

from refstudy.base.config import Settings
from refstudy.base.errors import StudyError
from refstudy.base.yaml_files import read_yaml
from refstudy.papers.printed import printed_cells

FILE = Path(__file__).with_name("claims.yaml")
MARGIN = 2.0  # points; a gain that is surely smaller counts as none


class Question(Settings):
    """A question to the runs: is the variant ``better`` above ``worse`` by ``metric``? With ``most``: by less than that
    many points? A gain that is surely below ``margin`` (points) counts as none."""

    better: str
    worse: str
    metric: str = "oIoU"
    margin: float = MARGIN
    most: float | None = None


class Claim(Question):
    """A claim that one variant is better than another, with the table whose two rows say so in print.

    ``worse_table`` is the table of the second row where the two stand in different ones; ``column`` is that of the
    printed numbers where they are not under the metric's name.
    """

    paper: str
    text: str
    table: str
    rows: tuple[str, str]
    worse_table: str = ""
    column: str = ""

    @property
    def printed(self) -> float:
        """Subtract the printed numbers of the two rows: the gain in points.

        Raises StudyError for a row or column that is not printed.
        """
        tables, column = (self.table, self.worse_table or self.table), self.column or self.metric
        try:
            cells = zip(tables, self.rows, strict=True)
            first, second = (printed_cells(table, [row], [column]).to_numpy().item() for table, row in cells)
        except StudyError as error:
            raise StudyError(f"{FILE}: claim '{self.text}': {error}") from error
        return float(first - second)


class Explanation(Question):
    """A sentence about an outcome that one more variant can contradict. ``seen``: it was written when its runs were
    known, so that its verdict is no prediction that came true."""

    outcome: str
    text: str
    seen: bool = False


class CostClaim(Settings):
    """A claim that ``first`` costs less than ``second``, each a profile and a variant of it; ``rows`` of ``table`` are
    the same in print. ``further``: of a further expression about the same image."""

    text: str
    paper: str
    first: tuple[str, str]
    second: tuple[str, str]
    size: int
    further: bool = False
    table: str = ""
    rows: tuple[str, ...] = ()


class Claims(Settings):
    """The content of the claims file."""

    claims: tuple[Claim, ...]
    explanations: tuple[Explanation, ...]
    costs: tuple[CostClaim, ...]


def load_claims(path: Path = FILE) -> Claims:
    """Load the claims file. Raises StudyError, with file and line, for an entry that cannot be read."""
    return read_yaml(path).checked(Claims)
