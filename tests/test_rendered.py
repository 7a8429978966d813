"""The rendered notebooks: those of today's sources, small, and made by ``tools/rendered.py`` as it says."""

import base64
import importlib.util
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("rendered", ROOT / "tools" / "rendered.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
NAMES = sorted(path.name for path in tool.SOURCES.glob("*.ipynb"))


def executed(notebook):
    """The notebook as papermill leaves it."""
    done = nbformat.from_dict(notebook)
    done.cells[-1].outputs = [
        new_output("stream", name="stdout", text="2\n"),
        new_output("display_data", {tool.WIDGET: {"model_id": "a"}, "text/plain": "slider"}),
        new_output("execute_result", {"text/plain": "3"}, metadata={"x": 1}, execution_count=9),
    ]
    done.cells[-1].metadata["papermill"] = {"duration": 1.5}
    done.cells.insert(1, new_code_cell("profile = 'other'", metadata={"tags": ["injected-parameters"]}))
    return done


def test_a_copy_is_the_source_with_outputs_and_nothing_that_changes():
    source = new_notebook(cells=[new_markdown_cell("# A"), new_code_cell("print(2); 3")])
    copy = tool.rendered(source, executed(source))
    assert [cell.source for cell in copy.cells] == ["# A", "print(2); 3"]
    assert copy.cells[1].metadata == {} and copy.metadata["refstudy_source"] == tool.source_digest(source)
    assert [(one.output_type, one.get("execution_count")) for one in copy.cells[1].outputs] == [
        ("stream", None),
        ("execute_result", 1),
    ]
    assert not source.cells[1].outputs
    nbformat.validate(copy)


def test_styled_tables_have_the_same_names_in_every_copy():
    source = new_notebook(cells=[new_code_cell("table.style")])
    copies = []
    for _ in range(2):
        styled, done = pd.DataFrame({"a": [1]}).style, nbformat.from_dict(source)
        data = {"text/html": styled.to_html(), "text/plain": repr(styled)}
        done.cells[0].outputs = [new_output("display_data", data), new_output("display_data", data)]
        copies.append(tool.rendered(source, done))
    assert copies[0] == copies[1]
    names = [set(re.findall(r'id="(T_[^"]+)"', output.data["text/html"])) for output in copies[0].cells[0].outputs]
    assert all(names) and not names[0] & names[1]


def test_links_to_pages_lead_there_from_the_copy():
    text = "[a](../docs/glossary.md), [b](../docs/decisions.md#conv-in-casg), [c](02_s2rm_walkthrough.ipynb)"
    source = new_notebook(cells=[new_markdown_cell(text), new_code_cell("print(2); 3")])
    copy = tool.rendered(source, executed(source)).cells[0].source
    assert copy.endswith("[c](02_s2rm_walkthrough.ipynb)") and source.cells[0].source == text
    assert all((tool.RENDERED / link.partition("#")[0]).exists() for link in re.findall(r"\]\(([^)]+)\)", copy))


def test_another_cell_is_another_source_and_its_execution_is_refused():
    source = new_notebook(cells=[new_markdown_cell("# A"), new_code_cell("print(2); 3")])
    other = nbformat.from_dict(source)
    other.cells[0].source = "# B"
    assert tool.source_digest(other) != tool.source_digest(source)
    with pytest.raises(ValueError, match="executed from other cells"):
        tool.rendered(other, executed(source))


def test_pictures_become_smaller_and_stay_the_pictures():
    noise = np.random.default_rng(0).integers(0, 40, (64, 64, 3)) + np.arange(64)[:, None, None] * 3
    before = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(before, "PNG")
    after = base64.b64decode(tool.small(base64.b64encode(before.getvalue()).decode()))
    image = Image.open(io.BytesIO(after)).convert("RGB")
    assert len(after) < len(before.getvalue()) and image.getcolors(256) and image.size == (64, 64)
    assert np.abs(np.asarray(image).astype(int) - noise).mean() < 16


needs_copies = pytest.mark.skipif(not tool.RENDERED.is_dir(), reason="no rendered notebooks yet: make rendered")


@needs_copies
@pytest.mark.parametrize("name", NAMES)
def test_every_copy_is_of_the_source_as_it_is_now(name):
    copy = nbformat.read(tool.RENDERED / name, as_version=4)
    source = nbformat.read(tool.SOURCES / name, as_version=4)
    assert copy.metadata["refstudy_source"] == tool.source_digest(source), f"{name} is stale: make rendered"


def test_every_link_of_a_source_leads_somewhere():
    for name in NAMES:
        for cell in nbformat.read(tool.SOURCES / name, as_version=4).cells:
            for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", cell.source if cell.cell_type == "markdown" else ""):
                assert (tool.SOURCES / link).exists(), f"{name}: {link}"


@needs_copies
def test_the_copies_are_small_and_none_is_left_over():
    copies = sorted(tool.RENDERED.glob("*.ipynb"))
    assert [path.name for path in copies] == NAMES
    assert sum(path.stat().st_size for path in copies) < 8_000_000


def test_the_sanitiser_hides_times_and_round_off_and_no_other_number():
    patterns = dict(get_sanitize_patterns((ROOT / "tests" / "nbval.cfg").read_text(encoding="utf-8")))

    def clean(text):
        for pattern, replacement in patterns.items():
            text = re.sub(pattern, replacement, text)
        return text

    assert clean("the Gram matrix is 30 times faster") == clean("the Gram matrix is 4 times faster")
    assert clean("off by 3.1e-07") == clean("off by 8e-8") and clean("<F at 0x7f3a>") == clean("<F at 0x7f3b>")
    assert clean("IoU 54.3, 8 times as many") == "IoU 54.3, 8 times as many"
