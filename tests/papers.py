"""The papers' texts, where they lie beside the repository."""

import os
import re
import unicodedata
from pathlib import Path

import pytest

PAPERS = Path(os.environ.get("REFSTUDY_PAPERS") or Path(__file__).resolve().parents[2] / "shared" / "papers")
FILES = {"s2rm": "s2rm_casg.txt", "slvit": "slvit.txt"}


def paper_text(paper):
    """The text of ``s2rm`` or ``slvit``; skips the test where it is absent."""
    path = PAPERS / FILES[paper]
    if not path.exists():
        pytest.skip("the papers' texts do not lie beside the repository")
    return path.read_text(encoding="utf-8")


def plain(text):
    """Letters, digits and signs alone: no spaces, no marks of LaTeX, HTML or Markdown, S² as S2."""
    text = re.sub(r"<.*?>", "", text).replace(r"\tilde{F}", "F\u0303")
    return re.sub(r"[\s$^{}_*]", "", unicodedata.normalize("NFKC", text))
