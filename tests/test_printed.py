"""Printed numbers: the transcription against the papers' texts, cell by cell, and by itself."""

import csv
import re
from collections import Counter
from importlib import resources
from itertools import chain, takewhile

import pytest

from refstudy.base.errors import StudyError
from refstudy.papers.printed import SPLITS, load_printed, printed_cells, stems

from .papers import paper_text, plain

ROWS = {
    "cris_datasets": 4,
    "s2rm_datasets": 4,
    "s2rm_table1": 32,
    "s2rm_table2": 9,
    "s2rm_table3": 7,
    "s2rm_table4": 8,
    "s2rm_table5": 5,
    "s2rm_table6": 4,
    "s2rm_table7": 6,
    "slvit_datasets": 3,
    "slvit_table1": 19,
    "slvit_table2a": 6,
    "slvit_table2b": 5,
    "slvit_table2c": 2,
    "slvit_table2d": 4,
    "slvit_table2e": 5,
}
ROMAN = dict(zip("1234567", "I II III IV V VI VII".split(), strict=True))
TABLES = [stem for stem in ROWS if "table" in stem]
NUMBER = re.compile(r"\d+\.\d+")
CELL = re.compile(r"(-|_|\d+\.\d+G?)(?:,| \d)?")  # a stray comma and a stray digit follow two of the cells
KEYS = ("block", "row", "citation", "language model")


def transcribed(stem):
    """The rows of the CSV as dictionaries of the very strings that stand in it."""
    with resources.files("refstudy.papers.printed").joinpath(f"{stem}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_lines(stem):
    """The lines of the paper's text that make up a table."""
    paper, table = stem.split("_table")
    lines = paper_text(paper).splitlines()

    def at(start):
        return next(k for k, line in enumerate(lines) if line.startswith(start))

    if paper == "slvit" or table == "1":  # their captions stand below
        caption = at(f"Table {table[0]}:" if paper == "slvit" else "TABLE I:")
        above = (line for line in reversed(lines[:caption]) if line.strip())
        found = list(takewhile(lambda line: "\t" in line, above))[::-1]
    else:
        found = list(takewhile(lambda line: "\t" in line, lines[at(f"TABLE {ROMAN[table]}:") + 2 :]))
    if len(table) == 2:
        start = next(k for k, line in enumerate(found) if line.startswith(f"({table[1]})"))
        found = [found[start], *takewhile(lambda line: not re.match(r"\([a-e]\)", line), found[start + 1 :])]
    return found


def printed(stem):
    """(the cells before the numbers, the numbers) of each line of the paper's text that holds numbers."""
    rows = []
    for line in table_lines(stem):
        cells = [cell.strip() for cell in line.split("\t")]
        found = [CELL.fullmatch(cell) for cell in cells]
        first = next((k for k, match in enumerate(found) if match), None)
        if first is not None and NUMBER.search(line):
            rows.append((cells[:first], ["" if m[1] in "-_" else m[1] for m in found[first:] if m]))
    return rows


def expected(stem):
    """What the CSV says the paper prints: (name, numbers) of each line, in order."""
    rows = transcribed(stem)
    numbers = [column for column in rows[0] if column not in (*KEYS, "Flops unit")]
    parts = [numbers]
    if stem == "s2rm_table3":  # printed under each other, transcribed side by side
        parts = [
            [c for c in numbers if c.split()[0] == data] for data in ("RefCOCO", "RefCOCO+", "RefCOCOg", "ReferIt")
        ]
    lines = []
    for part in parts:
        for row in rows:
            values = [row[column] + (row["Flops unit"] if column == "Flops" else "") for column in part]
            lines.append((row, values))
    return lines


@pytest.mark.parametrize("stem", TABLES)
def test_every_cell_stands_in_its_row_of_the_paper(stem):
    found, ours = printed(stem), expected(stem)
    assert len(found) == len(ours)
    marks = [cell.strip() for line in table_lines(stem)[1:2] for cell in line.split("\t")]
    block = ""
    for (before, values), (row, cells) in zip(found, ours, strict=True):
        names = [cell for cell in before if cell]
        if stem in ("slvit_table2b", "slvit_table2d"):
            name = " + ".join(mark for mark, cell in zip(marks, before, strict=False) if cell)
            assert set(names) == {"✓"}
        elif stem == "slvit_table1":
            name, model = names
            assert model == row["language model"]
        else:
            name = names[-1]
            block = names[0] if len(names) == 2 else block
        assert plain(name) == plain(row["row"] + row.get("citation", "")), row
        assert values == cells, row
        if stem == "slvit_table2a" or (stem == "s2rm_table1" and names[0] in ("Mean IoU", "Overall IoU")):
            assert row["block"] == block
    if stem == "slvit_table2d":
        assert [row["block"] for row, _ in ours] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("stem", TABLES)
def test_no_number_of_the_paper_is_missing(stem):
    text = "\n".join(table_lines(stem))
    ours = " ".join(cell for row in transcribed(stem) for key, cell in row.items() if key not in KEYS)
    assert Counter(NUMBER.findall(re.sub(r"P@0\.\d", "", text))) == Counter(NUMBER.findall(ours))


def test_columns_are_those_of_the_papers():
    heads = {stem: [line.split("\t") for line in table_lines(stem)[:2]] for stem in ("s2rm_table1", "slvit_table1")}
    short = [split.split()[1] for split in SPLITS]
    assert [plain(cell) for cell in heads["s2rm_table1"][1] if cell.strip()] == short
    slvit = [re.sub(r"\((\w)\)", r"-\1", plain(cell)) for cell in heads["slvit_table1"][1] if cell.strip()]
    assert slvit == short[:9]
    lengths = [line.split("\t")[2:6] for line in table_lines("s2rm_table3") if "Length" in line]
    assert [c.split()[-1] for c in load_printed("s2rm_table3").columns[1:]] == list(chain(*lengths))
    for stem in TABLES:
        if stem not in (*heads, "s2rm_table3"):
            columns = [c for c in load_printed(stem).columns if c not in ("citation", "Flops unit")]
            text = plain(table_lines("slvit_table2")[0] if "slvit" in stem else table_lines(stem)[0])
            text = text.replace("MeanIoU", "mIoU").replace("OverallIoU", "oIoU").removeprefix("Method")
            assert re.sub("[↑↓]", "", text) == "".join(columns)


S2RM_DATA = {
    "RefCOCO": r"It totally contains (?P<images>\d+) images and (?P<expressions>\d+) language expressions, which, to "
    r"sum up, have average length of (?P<words>[\d.]+) words and describe (?P<regions>\d+) regions. In general, the "
    r"dataset uses (?P<train>\d+), (?P<val>\d+), (?P<testA>\d+), and (?P<testB>\d+) image-language pairs in training, "
    r"validating, testing in set A, and testing in set B",
    "RefCOCO+": r"with (?P<expressions>\d+) expressions describing (?P<regions>\d+) regions in (?P<images>\d+) images"
    r".*The dataset divides (?P<train>\d+), (?P<val>\d+), (?P<testA>\d+), and (?P<testB>\d+) image-expression pairs "
    r"into training part, validation part, A part, and B part",
    "RefCOCOg": r"The dataset has (?P<expressions>\d+) language expressions to refer to (?P<regions>\d+) regions in "
    r"(?P<images>\d+) images.*with average length of (?P<words>[\d.]+) words",
    "ReferIt": r"containing (?P<expressions>\d+) expressions referring to (?P<regions>\d+) regions across "
    r"(?P<images>\d+) images.*training set of (?P<train>\d+) pairs, testing set of (?P<test>\d+) pairs, and "
    r"validation set of (?P<val>\d+) pairs",
}


def test_sizes_of_the_data_sets_are_those_of_the_running_text():
    text = paper_text("s2rm")
    cited = plain(text)
    for row, (name, pattern) in zip(transcribed("s2rm_datasets"), S2RM_DATA.items(), strict=True):
        assert row["row"] == name
        found = [match for line in text.splitlines() if (match := re.search(pattern, line))]
        filled = {key: value for key, value in row.items() if value and key not in KEYS}
        assert len(found) == 1 and found[0].groupdict() == filled
        assert re.search(re.escape(name) + r"(\(UNC\+?\))?" + re.escape(row["citation"]), cited.replace("Ref-", "Ref"))
    rows = transcribed("slvit_datasets")
    text = re.search(r"We perform experiments on three.*\n?.*\n?.*", paper_text("slvit"))[0]
    numbers = [int(n.replace(",", "")) for n in re.findall(r"\d+,\d{3}", text)]
    assert numbers == [int(row[key]) for key in ("images", "regions", "expressions") for row in rows]
    cited = plain(text).replace("Ref-COCO", "RefCOCO")
    assert all(plain(row["row"] + row["citation"]) in cited for row in rows)


def test_every_table_is_known_with_its_number_of_rows():
    assert set(stems()) == set(ROWS)
    assert {stem: len(load_printed(stem)) for stem in stems()} == ROWS


@pytest.mark.parametrize("stem", stems())
def test_rows_are_unique_and_scores_are_percent(stem):
    table = load_printed(stem)
    assert table.index.is_unique and table.index.names[-1] == "row"
    assert table.notna().any(axis=1).all() and table.columns.is_unique
    scores = table.select_dtypes("number").drop(columns="Flops", errors="ignore")
    assert not scores.empty
    if "table" in stem:
        assert scores.stack().dropna().between(0, 100, inclusive="neither").all()
    else:
        assert (scores.stack().dropna() > 0).all()


def test_a_dash_is_nan_and_the_word_none_is_a_word():
    table = load_printed("slvit_table1")
    assert table["RefCOCOg val-G"].isna().sum() == 5 and table.loc["CMSA", "language model"] == "None"
    assert table.loc["Ours", "citation"] == ""
    assert load_printed("s2rm_table1").loc[("Overall IoU", "LAVT₂₂"), "RefCOCO val"] == 72.73


def test_an_unknown_printed_table_is_named():
    with pytest.raises(StudyError, match="known: .*s2rm_table4"):
        load_printed("s2rm_table99")


def test_cells_are_named_by_row_and_column():
    assert printed_cells("slvit_table2a", ["small: 5 B"], ["oIoU"]).to_numpy().tolist() == [[69.91]]
    assert printed_cells("slvit_table1").shape == (19, 9)  # all rows, and of the columns those of numbers
    for rows, columns, message in (
        (["small: 5B"], [], "'slvit_table2a' has no row 'small: 5B'; known: small: 5 B, small: 7 B"),
        ([], ["oIou"], "'slvit_table2a' has no column 'oIou'; known: P@0.5, P@0.7"),
    ):
        with pytest.raises(StudyError, match=message):
            printed_cells("slvit_table2a", rows, columns)
