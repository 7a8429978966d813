"""What a plan says would run, and why: each reason is given by exactly the change that it names."""

import json
import shutil
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from refstudy.analysis.ceilings import read_ceilings
from refstudy.base.config import record_name
from refstudy.base.errors import StudyError
from refstudy.base.files import JOURNAL, atomic_write, note
from refstudy.cli import app
from refstudy.engine import modules
from refstudy.engine.journal import end_journal, journal_head, read_journal
from refstudy.engine.plan import known, plan, without_record
from refstudy.models.build import load_or_build
from refstudy.study.changes import parse_changes
from refstudy.study.load import load_study
from refstudy.training.records import find_record

from .conftest import tiny_model
from .test_study import HEAD

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "papermill_runs.yaml"

FILE = HEAD.replace(
    "runs:\n",
    """\
  other:
    about: for tests, too
    data: {image_size: 96, scenes: {train: 2, val: 1}}
    model: {image: {}, text: {}}
    train: {epochs: 1}
runs:
  draw: {notebook: draw.ipynb}
  tell: {notebook: tell.ipynb, parameters: {number: 3}}
  alone: {notebook: alone.ipynb, data: false}
""",
)
SPREAD = "\n      image_size:   64\n      scenes:\n        train: 2\n        val: 1"  # HEAD's data
PARAMETERS = "study = ''\nprofile = ''\nresults = ''\n"
CODE = {
    "draw": "from refstudy import metrics",
    "tell": "number = 1\nrate = 0.5",
    "alone": "",
}


class Small:
    """A study of tiny notebooks in a folder, with its plan and stand-ins for executions."""

    def __init__(self, folder):
        self.folder, self.results = folder, folder / "results" / "small"
        self.file = folder / "papermill_runs.yaml"
        self.file.write_text(FILE)
        self.data = folder / "data" / "set"
        self.data.mkdir(parents=True)
        (self.data / "instances.json").write_text("{}")
        for name, code in CODE.items():
            self.write(name, PARAMETERS + code)

    def write(self, name, code, prose="Text."):
        cells = [new_markdown_cell(prose), new_code_cell(code, metadata={"tags": ["parameters"]})]
        nbformat.write(new_notebook(cells=cells), self.folder / f"{name}.ipynb")

    def plan(self, **options):
        return {step.name: step for step in plan(load_study(self.file), "small", **options)}

    def reasons(self, **options):
        return {name: s.reason for name, s in self.plan(**options).items() if s.state == "to run"}

    @property
    def record(self):
        config = load_study(self.file).run_config("small", "plain", 0)
        return self.results / "records" / record_name(config)

    def train(self, content="{}"):
        self.record.mkdir(parents=True, exist_ok=True)
        (self.record / "record.json").write_text(content)

    def execute(self, monkeypatch, name, **options):
        """Leave what an execution of ``name`` leaves: it reads the data, for draw the record as well, for tell
        draw's table, and writes one table."""
        step = self.plan(**options)[name]
        step.output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(step.notebook, step.output)
        step.journal.write_text(journal_head(f"{name}.ipynb", {"commit": ""}, known(step)))
        with monkeypatch.context() as patch:
            patch.setenv(JOURNAL, str(step.journal))
            note("read", self.data)
            if name == "draw":
                note("read" if self.record.exists() else "missed", self.record)
            if name == "tell":
                note("read", self.results / "tables" / "draw.csv")
            for folder in (self.results / "tables", self.folder / "scratch"):
                with atomic_write(folder / f"{name}.csv") as temporary:
                    temporary.write_text(name)
            note("read", self.folder / "scratch" / f"{name}.csv")
        (self.folder / "scratch" / f"{name}.csv").unlink()  # as a temporary folder would be
        end_journal(step.journal, 12.0)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small study of which everything was executed."""
    made = Small(tmp_path)
    made.train()
    for name in ("draw", "tell", "alone"):
        made.execute(monkeypatch, name)
    return made


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_was_executed_is_up_to_date_and_what_was_not_is_new(small, tmp_path):
    assert small.reasons() == {}
    steps = small.plan()
    assert {name: step.state for name, step in steps.items()} == dict.fromkeys(("draw", "tell", "alone"), "up to date")
    assert steps["draw"].estimate == 12.0
    shutil.rmtree(small.results / "notebooks")  # as in a fresh clone
    assert small.reasons() == {"draw": "new", "tell": "new", "alone": "new"}


def test_prose_outputs_layout_and_dates_re_execute_nothing(small):
    path = small.folder / "draw.ipynb"
    small.write("draw", PARAMETERS + CODE["draw"], prose="# Other words")
    book = json.loads(path.read_text())
    book["cells"][1] |= {"execution_count": 4, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["a"]}]}
    book["metadata"]["kernelspec"] = {"name": "other", "display_name": "", "language": "python"}
    path.write_text(json.dumps(book))
    edit(small.file, "  small:\n    about: for tests\n", "  small:  # a remark\n    about:   'for tests'\n")
    edit(small.file, "{image_size: 64, scenes: {train: 2, val: 1}}", SPREAD)
    for touched in small.folder.rglob("*"):
        touched.touch()
    assert small.reasons() == {}


def test_the_run_key_tells_what_was_executed_wherever_it_was(small, monkeypatch, tmp_path_factory):
    def keys(study):
        return {
            name: read_journal(study.plan()[name].journal).provenance()["key"] for name in ("draw", "tell", "alone")
        }

    twin = Small(tmp_path_factory.mktemp("elsewhere"))
    twin.train()
    for name in ("draw", "tell", "alone"):
        twin.execute(monkeypatch, name)
    before = keys(small)
    assert keys(twin) == before and len(set(before.values())) == 3
    small.execute(monkeypatch, "tell", changes=parse_changes(["number=7"]))
    after = keys(small)
    assert {name for name in before if after[name] != before[name]} == {"tell"}
    twin.train("another record")
    twin.execute(monkeypatch, "draw")
    assert keys(twin)["draw"] != before["draw"]


def test_another_profile_concerns_nobody(small):
    edit(small.file, "image_size: 96", "image_size: 128")
    assert small.reasons() == {}


@pytest.mark.parametrize("name, beside", [("other", "beside: [other]"), ("refcoco", "beside: []")])
def test_what_tables_take_from_other_profiles_is_told(small, monkeypatch, name, beside):
    """Rows are filled from profiles beside this one, and costs are counted at the papers' sizes."""
    edit(small.file, "    about: for tests\n", f"    about: for tests\n    {beside}\n")
    edit(small.file, "  other:\n", f"  {name}:\n")
    small.execute(monkeypatch, "alone")
    assert "alone" not in small.reasons()
    edit(small.file, "about: for tests, too", "about: for nothing")
    assert "alone" not in small.reasons()
    edit(small.file, "image_size: 96", "image_size: 128")
    assert small.reasons()["alone"] == f"study file changed: profiles.{name}.data"


@pytest.mark.parametrize(
    "change, reasons",
    [
        (
            lambda s: s.write("tell", PARAMETERS + CODE["tell"] + "\nprint(1)"),
            {"tell": "notebook changed"},
        ),
        (lambda s: edit(s.file, "number: 3", "number: 4"), {"tell": "parameters changed: number"}),
        (
            lambda s: edit(s.file, "label: Plain", "label: Plainer"),
            {
                "draw": "study file changed: variants.plain",
                "tell": "study file changed: variants.plain",
                "alone": "study file changed: variants.plain",
            },
        ),
        (
            lambda s: edit(s.file, "about: for tests\n", "about: for fun\n"),
            {
                "draw": "study file changed: profile.about",
                "tell": "study file changed: profile.about",
                "alone": "study file changed: profile.about",
            },
        ),
        (
            lambda s: (s.data / "instances.json").write_text("[]"),
            {
                "draw": "input changed: data/set",
                "tell": "input changed: data/set",
                "alone": "input changed: data/set",
            },
        ),
        (
            lambda s: (s.results / "tables" / "alone.csv").unlink(),
            {"alone": "output missing: results/small/tables/alone.csv"},
        ),
        (
            lambda s: (s.results / "tables" / "alone.csv").write_text("by hand"),
            {"alone": "output changed: results/small/tables/alone.csv"},
        ),
        (
            lambda s: (s.results / "notebooks" / "alone.ipynb").unlink(),
            {"alone": "output missing: results/small/notebooks/alone.ipynb"},
        ),
    ],
)
def test_each_change_is_the_reason_that_is_named(small, change, reasons):
    change(small)
    assert small.reasons() == reasons


def test_a_record_that_changes_vanishes_or_appears_re_executes_what_reads_it(small, monkeypatch):
    name = small.record.relative_to(small.folder).as_posix()
    expected = {"draw": f"input changed: {name}"}
    small.train('{"better": 1}')
    assert small.reasons() == expected
    shutil.rmtree(small.record)
    assert small.reasons() == expected
    small.execute(monkeypatch, "draw")
    assert small.reasons() == {}
    small.train()
    assert small.reasons() == expected


def test_a_training_to_come_re_executes_what_reads_its_record(small):
    cases = load_study(small.file).cases("small")
    assert small.reasons(trainings=cases) == {"draw": f"after training {small.record.name}"}
    assert small.reasons(trainings=[("small", "plain", 1)]) == {}


def test_what_was_looked_for_in_vain_is_an_input(small, monkeypatch, tmp_path):
    """A record, weights and ceilings: what did without them is executed again when they come."""
    config = load_study(small.file).run_config("small", "plain", 7)
    journal = small.plan()["alone"].journal
    *lines, _ = journal.read_text().splitlines(keepends=True)
    for look, path in (
        (lambda: find_record(small.results / "records", config), small.results / "records" / record_name(config)),
        (lambda: read_ceilings(small.results), small.results / "tables" / "ceilings.csv"),
        (lambda: load_or_build(tmp_path / "some.safetensors", tiny_model()), tmp_path / "some.safetensors"),
    ):
        journal.write_text("".join(lines))
        with monkeypatch.context() as patch:
            patch.setenv(JOURNAL, str(journal))
            look()
        end_journal(journal, 12.0)
        assert small.reasons() == {}
        path.write_text("here it is")
        assert small.reasons() == {"alone": f"input changed: {path.relative_to(tmp_path).as_posix()}"}
        assert read_journal(journal).provenance()["seeds"] == []  # it has read no record
        path.unlink()


def test_a_journal_of_an_earlier_version_is_read(small):
    """Their heads named the inputs, which the lines tell as well."""
    journal = small.plan()["draw"].journal
    head, *lines = journal.read_text().splitlines()
    journal.write_text("\n".join([json.dumps(json.loads(head) | {"inputs": {str(small.record): "0"}}), *lines]) + "\n")
    assert small.reasons() == {} and read_journal(journal).provenance()["key"]


def test_what_another_notebook_wrote_and_this_one_read_is_an_input(small, monkeypatch):
    small.write("draw", PARAMETERS + CODE["draw"] + "\nprint(1)")
    small.execute(monkeypatch, "draw")  # alone, and it writes the same table
    assert small.reasons() == {}
    (small.results / "tables" / "draw.csv").write_text("other")
    table = "results/small/tables/draw.csv"
    assert small.reasons() == {"draw": f"output changed: {table}", "tell": f"input changed: {table}"}


def test_a_changed_module_re_executes_the_notebooks_that_use_it(small, monkeypatch, tmp_path_factory):
    """draw imports refstudy.metrics, and that imports refstudy.base.errors; nobody imports refstudy.training.losses."""
    copy = tmp_path_factory.mktemp("code") / "refstudy"
    shutil.copytree(ROOT / "refstudy", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(modules, "PACKAGE", copy)
    assert small.reasons() == {}
    for name, changed in (
        ("training/losses", []),
        ("metrics", ["metrics"]),
        ("base/errors", ["base.errors", "metrics"]),
    ):
        assert (copy / f"{name}.py").exists()
        with open(copy / f"{name}.py", "a") as file:
            file.write("\nX = 1\n")
        code = ", ".join(f"refstudy.{module}" for module in changed)
        assert small.reasons() == ({"draw": f"code changed: {code}"} if changed else {})


def test_imports_are_followed_through_functions_packages_and_data():
    import ast

    used = modules.Modules().used_by([ast.parse("def f():\n    from refstudy.data.words import tokenizer as t\n    t")])
    assert {"refstudy", "refstudy.data", "refstudy.data.scenes", "refstudy.data.scenes.grammar"} <= set(used)
    assert "refstudy.base.errors" in used and "refstudy.models" not in used
    opened = modules.Modules().used_by([ast.parse("import refstudy\nstudy = refstudy.open('scenes')")])
    assert {"refstudy.analysis.tables", "refstudy.models.build"} <= set(opened)
    assert list(modules.Modules().used_by([ast.parse("import refstudy")])) == ["refstudy"]
    whole = modules.Modules().used_by([ast.parse("import refstudy.training.loop")])
    assert {"refstudy.models.build", "refstudy.models.fusion.s2rm", "refstudy.base.config"} <= set(whole)


def test_fresh_executes_all(small):
    (small.plan()["tell"].journal).unlink()
    assert small.reasons(fresh=True) == {"draw": "forced", "tell": "new; forced", "alone": "forced"}
    assert small.reasons(fresh=True, only=["draw"]) == {"draw": "forced"}


def test_changed_parameters(small, monkeypatch):
    reason = {"tell": "parameters changed: number"}
    changes = parse_changes(["number=7"])
    assert small.reasons(changes=changes) == reason
    assert small.plan(changes=changes)["tell"].parameters["number"] == 7
    small.execute(monkeypatch, "tell", changes=changes)
    assert small.reasons(changes=changes) == {}
    assert small.reasons() == reason
    assert small.plan(changes=parse_changes(["rate=1"]))["tell"].parameters["rate"] == 1  # a whole number is one, too


@pytest.mark.parametrize(
    "setting, only, message",
    [
        ("number=many", (), "number: run 'tell': parameter 'number' must be int, not 'many'"),
        ("number=true", (), "must be int, not True"),
        ("size=1", (), "size: no selected run has this parameter; known: number, rate"),
        ("number=1", ("draw",), "number: no selected run has this parameter"),
        ("results=x", (), "results: no selected run has this parameter"),
        ("seed=1", (), "seed: no selected run has this parameter"),
        ("number", (), "write key=value"),
        ("number=[", (), "not YAML"),
    ],
)
def test_wrong_changes_are_named(small, setting, only, message):
    with pytest.raises(StudyError, match=message):
        small.plan(only=only, changes=parse_changes([setting]))


def test_only_keeps_the_named_steps(small):
    assert list(small.plan(only=["tell", "draw"])) == ["draw", "tell"]
    with pytest.raises(StudyError, match="--only dra: no such run; known: draw, tell, alone"):
        small.plan(only=["dra"])


def test_runs_without_a_record_are_named_with_the_commands_that_train_them(small, tmp_path):
    def shown(*options, study=small.file, profile="small"):
        command = ["run", "--profile", profile, "--dry-run", "--study", str(study), *options]
        return CliRunner().invoke(app, command).output

    assert "trainings: 1, 1 with a run record, 0 without\n" in shown()
    shutil.rmtree(small.record)
    assert without_record(load_study(small.file), "small") == [("small", "plain", 0)]
    missing = shown()
    assert "trainings: 1, 0 with a run record, 1 without\nseed 0 of: plain\n" in missing
    assert "train one with: refstudy train --profile small --variant plain --seed 0\n" in missing
    assert "or all of them with: refstudy train --profile small\n" in missing
    assert "these are trained first\nseed 0 of: plain\n" in shown("--train") and "train one" not in shown("--train")
    edit(small.file, "    about: for tests\n", "    about: for tests\n    training: always\n")
    assert "these are trained first" in shown()
    assert "train one with" in shown("--only", "draw")


def test_all_variants_are_trained_with_the_lowest_seed_first(tmp_path):
    study = load_study(STUDY)
    study.home = tmp_path
    cases = without_record(study, "scenes")
    assert cases[0] == ("scenes", "tile_concat", 0) and [case[2] for case in cases] == sorted(c[2] for c in cases)
    assert [case[2] for case in cases if case[1] == "tile_concat"] == [0, 1, 2, 3, 4]


def test_nothing_to_run_starts_no_kernel_and_keeps_the_report(small, monkeypatch):
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a notebook was executed"))
    page = small.results / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("the earlier report")
    done = CliRunner().invoke(app, ["run", "--profile", "small", "--study", str(small.file)])
    assert done.exit_code == 0, done.output
    assert page.read_text() == "the earlier report"


def test_a_dry_run_shows_states_reasons_and_times(small):
    small.write("tell", PARAMETERS + CODE["tell"] + "\nprint(1)")
    shown = CliRunner().invoke(app, ["run", "--profile", "small", "--dry-run", "--study", str(small.file)])
    assert shown.exit_code == 0
    rows = {line.split()[1]: " ".join(line.split()) for line in shown.output.splitlines() if line.startswith("│")}
    assert rows["tell"] == "│ tell │ to run │ notebook changed │ 12 s │"
    assert rows["draw"] == "│ draw │ up to date │ up to date │ 12 s │"
    assert "1 of 3 to run, 12 s when they last ran" in shown.output


@pytest.mark.parametrize(
    "content", ["{", "3", "[1]", "{}\n3", '{}\n{"kind": "read"}', '{"time": "", "action": "wrote"}']
)
def test_a_broken_journal_is_named(tmp_path, content):
    (tmp_path / "a.journal.jsonl").write_text(content)
    with pytest.raises(StudyError, match=r"a\.journal\.jsonl: no journal .*delete it"):
        read_journal(tmp_path / "a.journal.jsonl")
