"""The study file and the command line."""

import os
import textwrap
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from refstudy.base.config import PARTS, TrainConfig
from refstudy.base.errors import StudyError
from refstudy.cli import app, main
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.study.cells import declared_parameters
from refstudy.study.load import load_study

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "papermill_runs.yaml"

HEAD = textwrap.dedent(
    """\
    variants:
      plain:
        label: Plain
        fusion: {name: tile_concat}
        decoder: {name: fpn}
    profiles:
      small:
        about: for tests
        data: {image_size: 64, scenes: {train: 2, val: 1}}
        model: {image: {}, text: {}}
        train: {epochs: 1}
    runs:
    """
)
PARAMETERS = 'study = "papermill_runs.yaml"\nprofile = ""\nresults = ""\nnumber = 1'


WRONG_ENTRY = """\
a:
  notebook: a.ipynb
  colour: red
  needs: [x]
  parameters:
    size: 1
    number: true
    rate: 1
"""


def notebook(path, *cells, parameters=PARAMETERS):
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    head = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book.cells = [head, *(nbformat.v4.new_code_cell(cell) for cell in cells)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)


def study_file(folder, runs):
    path = folder / "papermill_runs.yaml"
    path.write_text(HEAD + textwrap.indent(textwrap.dedent(runs), "  "))
    return path


def test_the_study_of_the_repository_is_sound():
    study = load_study(STUDY)
    assert {"smoke", "scenes", "refcoco"} <= set(study.profiles)
    keys = {study.run_config(p, v, 0).key() for p in study.profiles for v in study.variants}
    assert len(keys) == len(study.profiles) * len(study.variants)
    for profile in study.profiles:
        config = study.run_config(profile, "s2rm_casg", 0)
        assert config.model.image_size == config.data.image_size


def test_equal_settings_have_equal_keys_and_others_not():
    study = load_study(STUDY)
    config = study.run_config("scenes", "s2rm_fpn", 0)
    assert config.key() == load_study(STUDY).run_config("scenes", "s2rm_fpn", 0).key()
    assert config.key() != study.run_config("scenes", "s2rm_fpn", 1).key()
    assert config.key() != config.model_copy(update={"train": config.train.model_copy(update={"epochs": 9})}).key()


def test_a_variant_that_is_trained_longer_differs_in_nothing_else():
    study = load_study(STUDY)
    plain, longer = (study.run_config("scenes", name, 1) for name in ("s2rm_casg", "s2rm_casg_longer"))
    assert longer.train.epochs == 2 * plain.train.epochs
    train = longer.train.model_copy(update={"epochs": plain.train.epochs})
    assert longer.model_copy(update={"variant": "s2rm_casg", "train": train}) == plain


def test_the_vocabulary_size_is_that_of_the_tokenizer():
    from refstudy.data.words import build_tokenizer

    study = load_study(STUDY)
    for profile in ("smoke", "scenes"):
        assert study.profile(profile).model.text.vocab_size == len(build_tokenizer())


@pytest.mark.parametrize(
    "runs, line, message",
    [
        ("a: {notebook: a.ipynb, colour: red}", 13, "colour.*[Ee]xtra"),
        ("a: {notebook: [1]}", 13, "notebook.*string"),
        ("a: {notebook: none.ipynb}", 13, "none.ipynb: notebook not found"),
        ("a:\n  notebook: a.ipynb\n  needs: [b]", 15, "runs.a.needs: every notebook runs by itself.*delete the key"),
        ("a:\n  notebook: a.ipynb\n  trains: true", 15, "runs.a.trains: `refstudy train` .*delete the whole run"),
        ("a:\n  notebook: a.ipynb\n  retries: 2", 15, "runs.a.retries: a run has no such setting.*delete the key"),
        ("a:\n  notebook: a.ipynb\n  parameters:\n    size: 3", 16, "declares no parameter 'size'; it has .*number"),
        ("a:\n  notebook: a.ipynb\n  parameters:\n    number: many", 16, "parameter 'number' must be int"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, runs, line, message):
    notebook(tmp_path / "a.ipynb")
    with pytest.raises(StudyError, match=message) as caught:
        load_study(study_file(tmp_path, runs))
    assert f"papermill_runs.yaml:{line}:" in str(caught.value)


def test_mistakes_of_all_kinds_are_reported_together(tmp_path):
    """Each line of the file that has a mistake is named, whatever else is wrong with the same entry."""
    notebook(tmp_path / "a.ipynb", parameters=PARAMETERS + "\nrate = 0.5")
    others = """\
b:
  notebook: b.ipynb
  data: soon
c: {notebook: a.ipynb, needs: [d]}
'e:f': {notebook: a.ipynb}
a: {notebook: a.ipynb}
"""
    path = study_file(tmp_path, WRONG_ENTRY + others)
    mistaken = "{epochs: 1}\n    ships: {fancy: 0}\n    live: {epochs: 0}"
    path.write_text(path.read_text().replace("{epochs: 1}", mistaken))
    with pytest.raises(StudyError) as caught:
        load_study(path)
    lines = path.read_text().splitlines()
    named = {int(line.split(":")[1]) for line in str(caught.value).splitlines()}
    mistakes = ("ships", "live", "e:f", "b.ipynb", "soon", "[d]", "  a: {")
    assert named >= {number for number, line in enumerate(lines, 1) if any(text in line for text in mistakes)}
    for text in (
        "key 'a' is already given in line 15",
        "unknown variant 'fancy'",
        "b.ipynb: notebook not found",
        "runs.e:f",
        "runs.b.data",
        "runs.c.needs",
    ):
        assert text in str(caught.value)


TYPOS = [
    ("epochs: 1}", "epochs: 1}\n    seeds: [0, 0]", "'0' stands 2 times in 'seeds'; name it once"),
    ("epochs: 1}", "epochs: 1}\n    seeds: []", "seeds: .*at least 1"),
    ("epochs: 1}", "epochs: 1}\n    seeds: [1, -1]", "seeds.1: .*greater than or equal to 0"),
    ("epochs: 1}", "epochs: 1}\n    further_seeds: {plain: [1, 0]}", "seed 0 of 'plain' stands 2 times in 'seeds' and"),
    ("epochs: 1}", "epochs: 1}\n    further_seeds: {plain: [1, 1]}", "seed 1 of 'plain' stands 2 times in 'seeds' and"),
    ("epochs: 1}", "epochs: 1}\n    further_seeds: {fancy: [1]}", "unknown variant 'fancy' in 'further_seeds'"),
    ("val: 1}", "vall: 1, val: 1}", "data.scenes: refscenes has no split 'vall'; known: train, val, testA, testB"),
    ("{train: 2, val: 1}", "{train: 2}", "data.scenes: names no scenes of 'val'; say how many"),
    ("val: 1}", "val: 0}", "data.scenes.val: .*greater than 0"),
    ("epochs: 1}", "epochs: 1, selection_split: vall}", "refscenes has no split 'vall'; known: train"),
    (
        "epochs: 1}",
        "epochs: 1}\n    live: {variant: plain, epochs: 1, scenes: {val: 1}}",
        "live.scenes: names no scenes of 'train'; say how many",
    ),
    ("epochs: 1}", "epochs: 1}\n    variants: [plain, plain]", "'plain' stands 2 times in 'variants'"),
    ("epochs: 1}", "epochs: 1}\n    without: [fancy]", "unknown variant 'fancy' in 'without'"),
    ("epochs: 1}", "epochs: 1}\n    ships: {plain: 1}", "'ships' names seed 1 of 'plain'; its seeds: 0"),
    ("epochs: 1}", "epochs: 1}\n    ships: [plain]", "ships: .*dictionary"),
    ("epochs: 1}", "epochs: 1}\n    pilot: [7, 0]", "seed 0 of 'pilot' is one that tables count; name another"),
    ("epochs: 1}", "epochs: 1}\n    fresh_seeds: {plain: [7]}", "'fresh_seeds' names 1 variant.s.; name the two to"),
    ("epochs: 1}", "epochs: 1}\n    fresh_seeds: {plain: [7], fancy: [7]}", "unknown variant 'fancy' in 'fresh_seeds'"),
    ("epochs: 1}", "epochs: 1}\n    splits: [val, val]", "'val' stands 2 times in 'splits'"),
    ("epochs: 1}", "epochs: 1}\n    beside: [small, small]", "'small' stands 2 times in 'beside'"),
    (
        "epochs: 1}",
        "epochs: 1}\n    splits: [val, test]",
        "refscenes has no split 'test'; known: train, val, testA, testB",
    ),
    ("  plain:", '  "../plain":', "String should match pattern"),
    ("image_size: 64", "split_by: umd", "refscenes has no partition 'umd'; known: unc"),
    ("epochs: 1}", "epochs: 1}\n    part_options: {s2rmm: {scale: true}}", "unknown part 's2rmm' in 'part_options'"),
    (
        "epochs: 1}",
        "epochs: 1}\n    special: {slvit: {pretraining: {image_updates: 0}}}",
        "special.slvit.pretraining.image_updates: Input should be greater than or equal to 1",
    ),
    ("epochs: 1}", "epochs: 1}\n    special: {slvitt: {}}", "unknown whole model 'slvitt'; known: lavt, slvit"),
    ("epochs: 1}", "epochs: 1}\n    rows: {Full: Half}", "no variant fills a row 'Full'"),
    ("name: tile_concat", "name: tile", "unknown fusion 'tile'; known: s2rm"),
    (
        "name: fpn}",
        "name: fpn}\n    tables: {s2rm_table40: Full}",
        "no printed table 's2rm_table40'; known: .*s2rm_table4",
    ),
    ("name: fpn}", "name: fpn}\n    tables: {s2rm_table6: Full}\n    longer: 2", "trained equally long; drop 'longer'"),
    ("name: fpn}", "name: fpn}\n    tables: {s2rm_table6: Ful}", "table 's2rm_table6' has no row 'Ful'; known: Full"),
]


@pytest.mark.parametrize("right, wrong, message", TYPOS, ids=[message for *_, message in TYPOS])
def test_names_and_numbers_that_would_be_passed_over_are_refused(tmp_path, right, wrong, message):
    notebook(tmp_path / "a.ipynb")
    path = study_file(tmp_path, "a: {notebook: a.ipynb}")
    load_study(path)
    path.write_text(path.read_text().replace(right, wrong, 1))
    line = 1 + next(k for k, text in enumerate(path.read_text().splitlines()) if wrong.splitlines()[-1] in text)
    with pytest.raises(StudyError, match=f":{line}: .*{message}") as caught:
        load_study(path)
    assert len(str(caught.value).splitlines()) == 1


def test_no_row_has_two_variants_and_no_profile_renames_to_a_row_that_is_none(tmp_path):
    text = STUDY.read_text()
    doubled = text.replace("    tables: {s2rm_table6: -D3}", "    tables: {s2rm_table6: Full}")
    renamed = text.replace("{SwinT-Ours: SwinB-Ours}", "{SwinT-Ours: SwinL-Ours}")
    for content, message in (
        (doubled, "variant 'casg_no_d3': row 'Full' of 's2rm_table6' is filled by 's2rm_casg'; drop one"),
        (renamed, "profile 'refcoco_swinb': no row 'SwinL-Ours' in s2rm_table1"),
    ):
        (tmp_path / "papermill_runs.yaml").write_text(content)
        with pytest.raises(StudyError, match=message):
            load_study(tmp_path / "papermill_runs.yaml")


def test_the_names_of_parts_are_those_that_can_be_built():
    from refstudy.models.build import DECODERS, FUSIONS, WHOLE

    built = {"fusion": FUSIONS, "decoder": DECODERS, "whole": WHOLE}
    assert {kind: set(names) for kind, names in PARTS.items()} == {kind: set(table) for kind, table in built.items()}


@pytest.mark.parametrize(
    "settings",
    [{"clip_norm": 0}, {"clip_norm": float("inf")}, {"learning_rate": float("inf")}, {"validation_images": 0}],
)
def test_settings_that_train_nothing_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        TrainConfig(**settings)


def test_mistakes_of_one_entry_are_reported_together(tmp_path):
    notebook(tmp_path / "a.ipynb", parameters=PARAMETERS + "\nrate = 0.5")
    with pytest.raises(StudyError) as caught:
        load_study(study_file(tmp_path, WRONG_ENTRY))
    assert [int(line.split(":")[1]) for line in str(caught.value).splitlines()] == [15, 16, 18, 19]


def test_files_that_are_no_study_or_notebook_are_named(tmp_path):
    (tmp_path / "papermill_runs.yaml").write_bytes("runs: Läufe".encode("latin-1"))
    with pytest.raises(StudyError, match="papermill_runs.yaml: not UTF-8 .*save it as UTF-8"):
        load_study(tmp_path / "papermill_runs.yaml")
    (tmp_path / "papermill_runs.yaml").write_text("runs: [unclosed")
    with pytest.raises(StudyError, match="not YAML"):
        load_study(tmp_path / "papermill_runs.yaml")
    with pytest.raises(StudyError, match="study file not found"):
        load_study(tmp_path / "other.yaml")
    (tmp_path / "a.ipynb").write_text("no json")
    with pytest.raises(StudyError, match="no Jupyter notebook"):
        load_study(study_file(tmp_path, "a: {notebook: a.ipynb}"))
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "a.ipynb")
    with pytest.raises(StudyError, match="no cell tagged 'parameters'"):
        load_study(study_file(tmp_path, "a: {notebook: a.ipynb}"))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_notebook_declares_the_common_parameters_and_holds_no_output(path):
    assert {"study", "profile", "results"} <= set(declared_parameters(path))
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


def test_unknown_names_are_named():
    study = load_study(STUDY)
    with pytest.raises(StudyError, match="unknown profile 'big'; known: smoke"):
        study.profile("big")
    with pytest.raises(StudyError, match="unknown variant 'x'; known: tile_concat"):
        study.run_config("smoke", "x", 0)


def test_the_command_line_speaks_one_line_and_sets_the_exit_status(tmp_path, monkeypatch):
    runner = CliRunner()
    shown = runner.invoke(app, ["run", "--profile", "scenes", "--dry-run", "--study", str(STUDY)])
    assert shown.exit_code == 0 and "06_ablations" in shown.output
    assert runner.invoke(app, ["--help"]).exit_code == 0
    wrong = runner.invoke(app, ["train", "--variant", "nothing", "--study", str(STUDY)])
    assert isinstance(wrong.exception, StudyError) and "unknown variant" in str(wrong.exception)


@pytest.mark.parametrize(
    "whole, message",
    [
        ("slvitt", "--whole slvitt: no such whole model; known: lavt, slvit"),
        ("lavt", "profile 'scenes' has no key 'special.lavt.encoders'; add it or give --output"),
    ],
)
def test_pretraining_a_whole_model_never_replaces_the_shared_encoders(whole, message):
    wrong = CliRunner().invoke(app, ["pretrain", "--whole", whole, "--study", str(STUDY)])
    assert isinstance(wrong.exception, StudyError) and message in str(wrong.exception)


def test_each_encoder_is_pretrained_as_its_profile_says(tmp_path, monkeypatch):
    asked = []

    def pretrained(data, model, settings, path, data_root):
        asked.append(settings)
        path.write_bytes(b"")
        return {}

    monkeypatch.setattr("refstudy.training.pretraining.pretrain", pretrained)
    for whole in ([], ["--whole", "slvit"]):
        command = ["pretrain", *whole, "--output", str(tmp_path / "encoder"), "--study", str(STUDY)]
        assert CliRunner().invoke(app, command).exit_code == 0
    profile = load_study(STUDY).profile("scenes")
    assert asked[0] == profile.pretraining
    assert asked[1].model_dump() == profile.pretraining.model_dump() | profile.special["slvit"].pretraining


def test_data_are_laid_out_for_code_of_the_field(tmp_path, monkeypatch):
    monkeypatch.setenv("REFSTUDY_DATA", str(tmp_path / "data"))
    notebook(tmp_path / "a.ipynb")
    path = study_file(tmp_path, "a: {notebook: a.ipynb}")
    version = f'image_size: 64, scenes_version: "{FLAVOURS["refscenes"].version}"'
    path.write_text(path.read_text().replace("image_size: 64", version))
    command = ["data", "layout", "--profile", "small", "--to", str(tmp_path / "there"), "--study", str(path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "there" / "refcoco" / "refs(unc).p").is_file() and str(tmp_path / "there") in done.output


def test_pretraining_is_refused_where_things_have_no_colours():
    wrong = CliRunner().invoke(app, ["pretrain", "--profile", "refcoco", "--output", "x", "--study", str(STUDY)])
    assert isinstance(wrong.exception, StudyError) and "needs RefScenes, not refcoco" in str(wrong.exception)


def test_the_demo_needs_its_run(tmp_path):
    notebook(tmp_path / "a.ipynb")
    path = study_file(tmp_path, "a: {notebook: a.ipynb}")
    wrong = CliRunner().invoke(app, ["demo", "--study", str(path)])
    assert isinstance(wrong.exception, StudyError) and f"{path}: no run '10_demo'" in str(wrong.exception)


def test_folders_are_those_of_the_study_wherever_the_command_is_called(tmp_path, monkeypatch):
    monkeypatch.delenv("REFSTUDY_DATA", raising=False)
    monkeypatch.chdir(STUDY.parent / "notebooks")
    monkeypatch.setattr("refstudy.data.download.fetch", lambda mirror, folder: folder)
    done = CliRunner().invoke(app, ["data", "download", "refcoco"])
    assert done.exit_code == 0 and done.output.strip() == str(STUDY.parent / "data")
    monkeypatch.setattr(
        "refstudy.engine.verify.verify", lambda study, folder: pd.DataFrame({"file": [str(folder)], "state": "x"})
    )
    assert f"x: {STUDY.parent / 'results' / 'scenes'}" in CliRunner().invoke(app, ["verify"]).output


def test_data_are_relative_to_where_the_command_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REFSTUDY_DATA", "mine")
    monkeypatch.setattr("refstudy.cli.app", lambda: None)
    main()
    assert os.environ["REFSTUDY_DATA"] == str(tmp_path / "mine")


def test_profiles_are_compared_on_one_split(tmp_path):
    study = load_study(STUDY)
    study.profiles["tests"] = study.profile("scenes").model_copy(update={"splits": ("testA",)})
    study.profiles["scenes"] = study.profile("scenes").model_copy(update={"beside": ("tests", "scenes_large")})
    assert study.compared("scenes") == ["scenes"]
    assert "tests" in study.together("scenes")


def test_bad_input_on_the_command_line_ends_with_status_two(tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "refstudy.cli", "run", "--profile", "big", "--study", str(STUDY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.strip().splitlines()) == 1


def test_some_variants_have_further_seeds(tmp_path):
    path = study_file(tmp_path, "{}")
    other = "  other:\n    label: Other\n    fusion: {name: s2rm}\n    decoder: {name: fpn}\nprofiles:"
    text = (
        path.read_text()
        .replace("profiles:", other)
        .replace("epochs: 1}", "epochs: 1}\n    seeds: [0, 1]\n    further_seeds: {plain: [2]}\n    ships: {plain: 2}")
    )
    path.write_text(text)
    study = load_study(path)
    assert study.seeds("small", "plain") == (0, 1, 2) and study.seeds("small", "other") == (0, 1)
    cases = [case[1:] for case in study.cases("small")]
    assert cases == [("plain", 0), ("other", 0), ("plain", 1), ("other", 1), ("plain", 2)]
    path.write_text(text.replace("ships: {plain: 2}", "without: [other]"))
    assert load_study(path).variant_names("small") == ("plain",)
    fresh = "pilot: [3]\n    fresh_seeds: {plain: [9, 2], other: [3, 2]}"
    path.write_text(text.replace("ships: {plain: 2}", fresh))
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert [line.split("': ")[1] for line in str(caught.value).splitlines()] == [
        f"seed {seed} of '{name}' is not fresh: tables or the pilot have it"
        for seed, name in ((2, "plain"), (3, "other"))
    ]
    assert study.cases("small", ["plain"], [7, 5]) == [("small", "plain", 5), ("small", "plain", 7)]


def test_a_live_run_without_scenes_has_those_of_the_profile():
    study = load_study()
    config, live = study.live_config("scenes"), study.profile("scenes").live
    assert not live.scenes and config.data.scenes == study.profile("scenes").data.scenes
    assert (config.data.kinds, config.data.referents) == (live.kinds, live.referents) and live.referents > 1
    smoke = study.live_config("smoke").data
    assert smoke.scenes == study.profile("smoke").live.scenes != study.profile("smoke").data.scenes
