"""Classes of your own: named in a study file that extends another, trained, edited, and never run by weights alone."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from refstudy.base.errors import StudyError
from refstudy.cli import app
from refstudy.models import own_parts
from refstudy.models.build import build_model, load_model, save_weights
from refstudy.study.load import load_study
from refstudy.training.records import find_records

from .conftest import tiny_profile

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "film.yaml"


@pytest.fixture
def own(data_root, tmp_path, monkeypatch):
    """The example beside a study of one small profile, in a folder of its own."""
    monkeypatch.setenv("REFSTUDY_DATA", str(data_root))
    monkeypatch.setattr(own_parts, "_files", {})
    plain = {"label": "Plain", "fusion": {"name": "tile_concat"}, "decoder": {"name": "fpn"}}
    base = {"variants": {"plain": plain}, "profiles": {"small": tiny_profile(epochs=1)}, "runs": {}}
    (tmp_path / "papermill_runs.yaml").write_text(yaml.safe_dump(base))
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in (EXAMPLE, EXAMPLE.with_suffix(".py")):
        shutil.copy(path, folder)
    return folder / "film.yaml"


def changed(path, **parts):
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | parts, sort_keys=False))
    return path


def film(name):
    return {"film": {"label": "FiLM", "fusion": {"name": name}, "decoder": {"name": "fpn"}}}


def test_the_example_extends_the_shipped_study_and_hears_the_words():
    study = load_study(EXAMPLE)
    assert study.root == EXAMPLE.parents[1] and "s2rm_casg" in study.variants
    config = study.run_config("smoke", "film", 0)
    torch.manual_seed(0)
    fusion = build_model(config.model).fusion.eval()
    vision, mask = torch.randn(1, 256, 2, 2), torch.ones(1, 5, dtype=torch.bool)
    one, other = (fusion(vision, torch.randn(1, 5, 128), mask) for _ in range(2))
    assert type(fusion).__name__ == "FiLM" and one.shape == vision.shape and not torch.allclose(one, other, atol=1e-3)


def test_it_is_trained_and_used_as_any_other_variant_through_its_study_file(own, monkeypatch, tmp_path):
    options = ["--profile", "small", "--study", str(own)]
    done = CliRunner().invoke(app, ["train", *options, "--variant", "film", "--seed", "0"])
    assert done.exit_code == 0, done.output
    (record,) = find_records(own.parents[1] / "results" / "small" / "records")
    assert record.config.model.fusion.name == "film.py:FiLM" and record.config.model.fusion.source
    weights = own.parents[1] / "work" / "small" / record.path.name / "weights.safetensors"
    scored = CliRunner().invoke(app, ["evaluate", str(weights), *options])
    assert scored.exit_code == 0 and "64 px" in scored.output
    monkeypatch.setattr(own_parts, "_files", {})  # as in a fresh process
    with pytest.raises(StudyError, match=r"'film.py:FiLM' is a class of your own.*--study"):
        load_model(weights)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "green").save(photo)
    ask = ["predict", str(photo), "dog", "--weights", str(weights), "--output", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*ask, "--study", str(own)]).exit_code == 0


def test_edited_code_is_another_run(own):
    study = load_study(own)
    config = study.run_config("small", "film", 0)
    model = build_model(config.model)
    save_weights(model, own.with_name("weights.safetensors"))
    source = own.with_name("film.py")
    source.write_text(source.read_text().replace("1 + gamma", "2 + gamma"))
    with pytest.raises(StudyError, match="film.py was edited after the study file was read; start again"):
        build_model(config.model)
    edited = load_study(own).run_config("small", "film", 0)
    assert edited.key() != config.key()
    assert edited.model_copy(update={"model": config.model}).key() == config.key()
    with pytest.raises(StudyError, match="was edited"):  # these weights were trained with other code
        load_model(own.with_name("weights.safetensors"))
    build_model(edited.model)


def test_a_class_of_an_installed_module(own, monkeypatch):
    package = own.parent / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    shutil.copy(own.with_name("film.py"), package / "modules.py")
    monkeypatch.syspath_prepend(own.parent)
    study = load_study(changed(own, variants=film("my_package.modules:FiLM")))
    assert type(build_model(study.run_config("small", "film", 0).model).fusion).__name__ == "FiLM"


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (film("films.py:FiLM"), r"film.yaml:\d+: variant 'film': fusion 'films.py:FiLM': no file .*films.py"),
        (film("film.py:Film"), r"film.yaml:\d+: .*film.py has no class 'Film'; it has FiLM"),
        (film("no_such_package.x:FiLM"), "no module 'no_such_package.x' can be imported"),
        ({"plain": film("film.py:FiLM")["film"]}, "'plain' stands in papermill_runs.yaml too; choose another name"),
        ({"film": film("film.py:FiLM")["film"] | {"fusion": {"name": "s2rm", "source": "0"}}}, "leave it out"),
    ],
)
def test_wrong_names_are_told_with_their_line(own, variants, message):
    with pytest.raises(StudyError, match=message):
        load_study(changed(own, variants=variants))


def test_a_section_that_is_left_empty_adds_nothing(own):
    assert list(load_study(changed(own, variants=None)).variants) == ["plain"]


def test_wrong_files_to_extend(own):
    with pytest.raises(StudyError, match=r"film.yaml:1: extends: .*none.yaml is no study file"):
        load_study(changed(own, extends="none.yaml"))
    with pytest.raises(StudyError, match="film.yaml:1: extends: .*film.yaml extends itself another"):
        load_study(changed(own, extends="film.yaml"))
    base = own.parents[1] / "papermill_runs.yaml"
    base.write_text(base.read_text().replace("tile_concat", "tile_cat"))
    with pytest.raises(StudyError, match=r"papermill_runs.yaml:\d+: variant 'plain': unknown fusion 'tile_cat'"):
        load_study(changed(own, extends="../papermill_runs.yaml"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class FiLM:\n    pass\n", "is no torch.nn.Module"),
        ("import nothing_of_this_name\nclass FiLM:\n    pass\n", "film.py:1 fails: ModuleNotFoundError"),
        ("class FiLM(:\n", "is not Python"),
        ("import torch\nclass FiLM(torch.nn.Module):\n    def __init__(self, channels): ...\n", "'film.py:FiLM'"),
    ],
)
def test_code_that_is_no_module(own, code, message):
    own.with_name("film.py").write_text(code)
    with pytest.raises(StudyError, match=message):
        build_model(load_study(changed(own, variants=film("film.py:FiLM"))).run_config("small", "film", 0).model)
