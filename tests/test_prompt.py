"""The command line at the prompt: what it loads, what it says, and that the pages' lines are as it takes them."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from refstudy.base import provenance
from refstudy.base.errors import StudyError
from refstudy.cli import app

ROOT = Path(__file__).resolve().parents[1]
HEAVY = "torch transformers timm scipy seaborn matplotlib distributed nbconvert nbformat papermill".split()
HEAVY += ["refstudy.data.scenes.grammar"]  # and all that draws
LOADED = """
import contextlib, io, json, sys
from refstudy.cli import main
found = []
for line in json.loads(sys.argv[1]):
    sys.argv, told = ["refstudy", *line], io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    status = 0
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
    found.append((status, told.buffer.getvalue().decode(), sorted(sys.modules)))
print(json.dumps(found))
"""


def run_in_a_child(lines):
    """For each line, exit status, what was said, and the modules that a child process has after it: one runs them all,
    since loading costs seconds."""
    command = [sys.executable, "-c", LOADED, json.dumps([shlex.split(line) for line in lines])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FIRST = [(0, "Usage", "--help"), (0, "--seed N", "train --help"), (0, r"refstudy \d", "--version")]
FIRST += [(2, "No such command 'runn'", "runn"), (2, "No such option: --nope", "run --nope")]
NO_MODEL = [
    (0, "up to date|to run", "run --dry-run"),
    (0, "records/s2rm_casg-seed0", "train --dry-run"),
    (0, "s2rm_table4", "table"),
    (0, "S²RM", "table s2rm_table4"),
    (0, "records/s2rm_fpn-seed", "show s2rm_table4 s2rm_fpn"),
    (2, "unknown profile 'none'", "run --profile none"),
    (2, "unknown profile 'none'", "train --profile none"),
    (2, "unknown profile 'none'", "rehearse --profile none"),
    (2, "unknown profile 'none'", "pretrain --profile none"),
    (2, "unknown profile 'none'", "cost --profile none"),
    (2, "unknown variant 'none'", "cost --variant none"),
    (2, "unknown profile 'none'", "report --profile none"),
    (2, "unknown profile 'none'", "card --profile none"),
    (2, "unknown profile 'none'", "pages --profile none"),
    (2, "unknown profile 'none'", "data make --profile none"),
    (2, "no table 'none'", "table none"),
    (2, "no row 'none'", "show s2rm_table4 none"),
    (2, "in the results of profile refcoco; --profile scenes has it", "show s2rm_table4 s2rm_fpn --profile refcoco"),
    (2, "no part 'none'", "examine none"),
    (2, "no file .*none.py", "examine none.py:Class"),
    (2, "size 'none' is unknown", "examine s2rm --size none"),
    (2, "'none': no fusion", "compare none"),
    (2, "no file .*none.py", "compare none.py:Class"),
    (2, "unknown variant 'none'", "compare s2rm --against none"),
    (2, "--flavour none: no profile beside", "compare s2rm --flavour none"),
    (2, "none.*manifest.json: not found", "verify none"),
    (2, "--rate -1: not above 0", "cost --rate -1"),
    (2, "none.safetensors: weights not found", "evaluate none.safetensors"),
    (2, "--data none: no such folder", "evaluate results/scenes/weights/s2rm_casg.safetensors --data none"),
    (2, "none: no such folder", "data check none"),
    (2, "no data 'none'", "data download none"),
    (2, "none.jpg: image not found", "predict none.jpg dog"),
    (2, "say what to look for", "predict examples/scene.jpg ' '"),
    (2, "none: not found", "predict examples/scene.jpg dog --weights none"),
    (2, "no model weights of refstudy", "predict examples/scene.jpg dog --weights README.md"),
    (2, "cannot be written to", "predict examples/scene.jpg dog --output README.md"),
]


@pytest.mark.parametrize(
    "lines, unloaded",
    [(FIRST, [*HEAVY, "pandas", "numpy", "PIL", "rich"]), (NO_MODEL, HEAVY)],
    ids=["help and mistyped options", "what needs no model"],
)
def test_a_command_loads_what_it_needs(lines, unloaded):
    for (status, said, line), (found, told, modules) in zip(
        lines, run_in_a_child([line for _, _, line in lines]), strict=True
    ):
        assert found == status and re.search(said, told, re.DOTALL), (line, told)
        assert not set(modules).intersection(unloaded), line


def commands(command=None, path=()):
    """Every command of the command line: its names, and it."""
    command = command or get_command(app)
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*path, name))
    if path and not hasattr(command, "commands"):
        yield path, command


@pytest.mark.parametrize("path", [(), ("data",), *(path for path, _ in commands())], ids=" ".join)
def test_help_is_plain_text_of_at_most_80_columns_and_no_flag_shows_a_type(path):
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 80 and not re.search("[│╭─]|BOOLEAN", shown.output)
    about = shown.output.split("\n\n", 1)[1].partition("\nOptions:")[0].partition("\nArguments:")[0].splitlines()
    assert not any(line.endswith("...") for line in lines[1:])  # what a command does is said whole in a list of them
    for line, following in itertools.pairwise(about):  # a paragraph fills its lines: it was not wrapped twice
        assert not (line and following) or len(f"{line} {following.split()[0]}") > 78, line


def fenced(page):
    """The lines of the page's fenced blocks of shell, without comments, continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    lines = (line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
LINES = [(page, line) for page in PAGES for line in fenced(page)]


def test_the_pages_have_lines():
    assert {page for page, _ in LINES} >= {"README.md", "docs/usage.md"} and len(LINES) > 20


@pytest.mark.parametrize("page, line", LINES)
def test_a_line_of_a_page_is_one_that_its_program_takes(page, line):
    """Options and arguments are parsed as the command line parses them; nothing runs."""
    words = shlex.split(line, comments=True)
    if words[0] == "refstudy":
        arguments = words[1:]
        command, context = get_command(app), None
        while hasattr(command, "commands"):
            name = arguments.pop(0)
            assert name in command.commands, f"{page}: no command '{name}'"
            command = command.commands[name]
        command.make_context("refstudy", arguments)
        assert context is None
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets for word in words[1:] if "=" not in word), line
    else:
        assert words[0] in (".", "export", "python", "conda", "sh", "git", "cd", "pip"), line


CHEAP = ("table", "show", "run --dry-run", "train --dry-run", "verify --help")


def test_cheap_lines_of_the_pages_run_as_pasted():
    lines = [line for _, line in LINES if line.startswith(tuple(f"refstudy {cheap}" for cheap in CHEAP))]
    assert len(lines) > 3
    found = run_in_a_child([shlex.join(shlex.split(line, comments=True)[1:]) for line in lines])
    for line, (status, told, _) in zip(lines, found, strict=True):
        assert status == 0 and told and "error" not in told, (line, told)


def test_a_profile_without_tables_is_told():
    bare = CliRunner().invoke(app, ["table", "--profile", "scenes_g_google"])
    assert isinstance(bare.exception, StudyError) and "`refstudy run --profile scenes_g_google` makes them" in str(
        bare.exception
    )


def test_the_version_is_told_with_the_commit():
    told = CliRunner().invoke(app, ["--version"]).output
    assert re.fullmatch(r"refstudy \d+\.\d+\.\d+(, commit [0-9a-f]{40})?\n", told)


def test_the_commit_of_a_repository_around_an_installed_package_is_not_told(tmp_path, monkeypatch):
    for command in ("init --quiet", "-c user.name=a -c user.email=a@b.org commit --quiet --allow-empty --message a"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    for root, known in ((tmp_path, True), (tmp_path / "site-packages", False)):
        (root / "refstudy" / "base").mkdir(parents=True)
        monkeypatch.setattr(provenance, "__file__", str(root / "refstudy" / "base" / "provenance.py"))
        assert bool(provenance.code_version()["commit"]) is known


@pytest.fixture
def ctrl_c():
    """Children are ended by Ctrl-C, also where whoever started the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_in_one_line(tmp_path):
    """While a command loads what it needs: a module of that name waits for the signal."""
    (tmp_path / "yaml.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('here').touch()\ntime.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "refstudy.cli", "table"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as called:
        while not (tmp_path / "here").exists():
            assert called.poll() is None
            time.sleep(0.05)
        called.send_signal(signal.SIGINT)
        assert called.stderr.read().strip() == "interrupted"
    assert called.returncode == 130
