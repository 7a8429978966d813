"""The bar of long work, on a terminal and in a log."""

import sys
import time

import pytest

from refstudy.base.bar import bar


@pytest.mark.parametrize(("terminal", "fewest", "most"), [(True, 3, 62), (False, 1, 2)])
def test_a_log_gets_a_beginning_and_an_end(terminal, fewest, most, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    for _ in bar(range(60), desc="counting"):
        time.sleep(0.01)
    said = capsys.readouterr().err
    assert fewest <= said.count("\r") <= most and said.rstrip().splitlines()[-1].startswith(("counting", "\rcounting"))


def test_what_is_not_to_be_shown_is_silent(capsys):
    assert list(bar(range(3), shown=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
