"""Planning a study of 200 runs, against only parsing its YAML and its notebooks as they are usually read."""

import json
import tempfile
from pathlib import Path

import nbformat
import yaml
from measure import seconds, write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from refstudy.base.files import path_digest
from refstudy.engine.journal import end_journal, journal_head
from refstudy.engine.modules import Modules
from refstudy.engine.plan import known, plan
from refstudy.study.load import load_study

RUNS, CELLS = 200, 12
PROFILE = {
    "about": "for timing",
    "data": {"image_size": 64, "scenes": {"train": 40, "val": 10}},
    "model": {"image": {}, "text": {}},
    "train": {"epochs": 1},
}


def make_study(folder: Path) -> Path:
    """A study file of RUNS runs, each with a notebook of its own."""
    runs = {}
    for number in range(RUNS):
        cells = [new_code_cell("study = ''\nprofile = ''\nresults = ''\nx = 0", metadata={"tags": ["parameters"]})]
        cells.append(new_code_cell("from refstudy.analysis import figures, tables"))
        for k in range(CELLS):
            cells.append(new_markdown_cell(f"## Part {k}\n\nWhat the next cell computes, in a sentence."))
            cells.append(new_code_cell(f"values = [x + {k} for x in range(10)]\nprint(sum(values), {number})"))
        nbformat.write(new_notebook(cells=cells), folder / f"n{number}.ipynb")
        runs[f"run{number}"] = {"notebook": f"n{number}.ipynb", "parameters": {"x": number}}
    plain = {"label": "Plain", "fusion": {"name": "tile_concat"}, "decoder": {"name": "fpn"}}
    content = {"variants": {"plain": plain}, "profiles": {"timing": PROFILE}, "runs": runs}
    path = folder / "papermill_runs.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def pretend_executed(path: Path) -> None:
    """Leave for every run what an execution leaves: a notebook, and a journal with one table written."""
    modules, study = Modules(), load_study(path)
    for step in plan(study, "timing"):
        step.output.parent.mkdir(parents=True, exist_ok=True)
        step.output.write_bytes(step.notebook.read_bytes())
        table = study.results("timing") / "tables" / f"{step.name}.csv"
        table.parent.mkdir(exist_ok=True)
        table.write_text(f"x\n{step.name}\n", encoding="utf-8")
        wrote = {"time": "", "action": "wrote", "path": str(table.resolve()), "sha256": path_digest(table)}
        step.journal.write_text(
            journal_head(step.notebook.name, {"commit": ""}, known(step, modules)) + json.dumps(wrote) + "\n",
            encoding="utf-8",
        )
        end_journal(step.journal, 1.0)


def read_as_usual(path: Path) -> None:
    yaml.safe_load(path.read_text(encoding="utf-8"))
    for number in range(RUNS):
        nbformat.read(path.parent / f"n{number}.ipynb", as_version=4)


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = make_study(Path(folder))
        usual = seconds(lambda: read_as_usual(path), repeats=1)
        for what in ("all new", "all up to date"):
            if what == "all up to date":
                pretend_executed(path)
                assert all(step.state == "up to date" for step in plan(load_study(path), "timing"))
            ours = seconds(lambda: plan(load_study(path), "timing"), repeats=3)
            rows.append(
                {
                    "what": f"seconds to check and plan {RUNS} runs, {what}, against reading file and notebooks",
                    "baseline": round(usual, 2),
                    "ours": round(ours, 2),
                    "ratio": round(usual / ours, 2),
                }
            )
    write("plan", rows)


if __name__ == "__main__":
    main()
