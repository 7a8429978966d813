"""The study file: variants, profiles and runs, checked as a whole before anything is done with them."""

import ast
import graphlib
from pathlib import Path
from typing import Any, Literal

import nbformat
import yaml
from pydantic import Field, ValidationError, model_validator

from refstudy.config import (
    DataConfig,
    EvaluationConfig,
    ImageEncoderConfig,
    ModelConfig,
    PartConfig,
    PretrainConfig,
    RunConfig,
    Settings,
    TextEncoderConfig,
    TrainConfig,
)
from refstudy.data.source import default_data_root
from refstudy.errors import StudyError

FILE_NAME = "papermill_runs.yaml"


class Variant(Settings):
    """A fusion module and a decoder, or a whole model. ``tables``: stem of a table -> the row that it fills."""

    label: str
    fusion: PartConfig | None = None
    decoder: PartConfig | None = None
    whole: PartConfig | None = None
    tables: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "Variant":
        parts = (self.fusion is not None, self.decoder is not None)
        if parts != ((True, True) if self.whole is None else (False, False)):
            raise ValueError("give 'fusion' and 'decoder', or 'whole' alone")
        return self


class Encoders(Settings):
    """The two encoders, which all variants of a profile share."""

    image: ImageEncoderConfig
    text: TextEncoderConfig


class Special(Settings):
    """What a profile sets differently for one whole model: its data, its image encoder, its training, and the file of
    its pretrained encoder."""

    data: dict[str, Any] = {}
    image: dict[str, Any] = {}
    train: dict[str, Any] = {}
    encoders: str = ""


class Live(Settings):
    """The small training that notebook 04 shows live: it never becomes a number of a table."""

    variant: str
    scenes: dict[str, int]
    epochs: int = Field(ge=1)


class Profile(Settings):
    """On which data, at which size, how long and how often the variants are trained."""

    about: str
    data: DataConfig
    model: Encoders
    train: TrainConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    pretraining: PretrainConfig = PretrainConfig()
    part_options: dict[str, dict[str, Any]] = {}
    special: dict[str, Special] = Field({}, description="by the name of a whole model")
    encoders: str = ""
    variants: tuple[str, ...] | Literal["all"] = "all"
    seeds: tuple[int, ...] = (0,)
    splits: tuple[str, ...] = ("val",)
    training: Literal["always", "when asked"] = "when asked"
    live: Live | None = None
    ships: tuple[str, ...] = Field((), description="variants whose weights are kept in results, in half precision")


class Run(Settings):
    """A notebook with parameters. ``trains``: repeated for each variant and seed, and satisfied by a run record.

    ``data``: whether it needs the profile's data, which are made before the first notebook starts. ``timeout``
    (seconds) ends a run that takes longer; ``retries`` runs it again after a failure; ``gpus`` are what one execution
    needs of a cluster's.
    """

    notebook: str
    parameters: dict[str, Any] = {}
    needs: tuple[str, ...] = ()
    trains: bool = False
    data: bool = True
    timeout: float | None = Field(None, gt=0)
    retries: int = Field(0, ge=0)
    gpus: int = Field(0, ge=0)


class StudyFile(Settings):
    """What the file holds."""

    variants: dict[str, Variant]
    profiles: dict[str, Profile]
    runs: dict[str, Run]


class Study:
    """A checked study file at ``path``; relative paths in it start at its folder, ``root``."""

    def __init__(self, path: Path, content: StudyFile):
        self.path, self.root = path, path.parent
        self.variants, self.profiles, self.runs = content.variants, content.profiles, content.runs

    def profile(self, name: str) -> Profile:
        """The profile of that name. Raises StudyError for an unknown one."""
        return _known(self.path, "profile", name, self.profiles)

    def variant_names(self, profile: str) -> tuple[str, ...]:
        """The variants that a profile trains."""
        names = self.profile(profile).variants
        return tuple(self.variants) if names == "all" else names

    def results(self, profile: str, override: str = "") -> Path:
        """The folder of a profile's results."""
        return Path(override) if override else self.root / "results" / profile

    @property
    def data_root(self) -> Path:
        """Where data lie or are made: the folder REFSTUDY_DATA names, otherwise ``data`` beside the study file."""
        return default_data_root(self.root)

    def special(self, profile: str, variant: str) -> Special | None:
        """What the profile sets differently for the whole model of this variant; None for a composed one."""
        whole = self.variants[variant].whole
        return self.profile(profile).special.get(whole.name, Special()) if whole else None

    def encoders(self, profile: str, variant: str) -> Path | None:
        """The file of pretrained encoders that a variant starts from, if the profile has one."""
        special = self.special(profile, variant)
        name = special.encoders if special and special.encoders else self.profile(profile).encoders
        return self.root / name if name else None

    def weights(self, profile: str, variant: str, results: str = "") -> Path:
        """Where the weights of a shipped variant are kept."""
        return self.results(profile, results) / "weights" / f"{variant}.safetensors"

    def run_config(self, profile: str, variant: str, seed: int) -> RunConfig:
        """All settings of one training run. Raises StudyError for an unknown profile or variant."""
        settings, parts = self.profile(profile), _known(self.path, "variant", variant, self.variants)
        special = self.special(profile, variant) or Special()
        data = DataConfig.model_validate(settings.data.model_dump() | special.data)
        chosen = {
            kind: PartConfig(name=part.name, options=settings.part_options.get(part.name, {}) | part.options)
            for kind in ("fusion", "decoder", "whole")
            if (part := getattr(parts, kind)) is not None
        }
        return RunConfig(
            variant=variant,
            seed=seed,
            data=data,
            model=ModelConfig(
                image_size=data.image_size,
                image=ImageEncoderConfig.model_validate(settings.model.image.model_dump() | special.image),
                text=settings.model.text,
                **chosen,
            ),
            train=TrainConfig.model_validate(settings.train.model_dump() | special.train),
            splits=settings.splits,
            evaluation=settings.evaluation,
        )

    def live_config(self, profile: str) -> RunConfig:
        """The settings of notebook 04's live training. Raises StudyError when the profile has none."""
        live = self.profile(profile).live
        if live is None:
            raise StudyError(f"{self.path}: profile '{profile}' has no key 'live'; add it or choose another profile")
        run = self.run_config(profile, live.variant, seed=0)
        data = run.data.model_copy(update={"scenes": live.scenes})
        train = run.train.model_copy(update={"epochs": live.epochs, "evaluate_every": 1})
        return run.model_copy(update={"data": data, "train": train, "splits": ("val",)})


def training_command(profile: str, variant: str, seed: int) -> str:
    """The command that trains one run and leaves its record in the profile's results."""
    return f"refstudy train --profile {profile} --variant {variant} --seed {seed}"


def find_study(name: str | Path = FILE_NAME) -> Path:
    """The study file: ``name`` itself, or the nearest one of that name in this folder or above it."""
    for folder in ("", *Path.cwd().resolve().parents):
        path = Path(folder) / name
        if path.is_file():
            return path.resolve()
    raise StudyError(f"{name}: study file not found here or above; run from the repository or name the file")


def load_study(name: str | Path = FILE_NAME) -> Study:
    """Read and check a study file. Raises one StudyError that lists every mistake, each with its line number."""
    path = find_study(name)
    text = path.read_text()
    try:
        raw, tree = yaml.safe_load(text), yaml.compose(text)
    except yaml.YAMLError as error:
        raise StudyError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        content = StudyFile.model_validate(raw)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        lines = [_line(tree, e["loc"]) for e in error.errors()]
        raise StudyError("\n".join(f"{path}:{n}: {p}" for n, p in zip(lines, problems, strict=True))) from error
    found = [*_wrong_names(content), *_wrong_notebooks(content, path.parent)]
    if found:
        raise StudyError("\n".join(f"{path}:{_line(tree, where)}: {problem}" for where, problem in found))
    return Study(path, content)


def _wrong_names(content: StudyFile) -> list[tuple[tuple, str]]:
    """Names that refer to nothing, and needs that go in a circle: (where, what)."""
    found: list[tuple[tuple, str]] = []
    for name, profile in content.profiles.items():
        variants = () if profile.variants == "all" else profile.variants
        live = (profile.live.variant,) if profile.live else ()
        found += _wrong_specials(name, profile)
        for variant in (*variants, *live):
            if variant not in content.variants:
                known = ", ".join(content.variants)
                found.append((("profiles", name), f"profile '{name}': unknown variant '{variant}'; known: {known}"))
    for name, run in content.runs.items():
        for need in run.needs:
            if need not in content.runs:
                known = ", ".join(content.runs)
                found.append((("runs", name, "needs"), f"run '{name}': needs unknown run '{need}'; known: {known}"))
    try:
        graphlib.TopologicalSorter({name: run.needs for name, run in content.runs.items()}).prepare()
    except graphlib.CycleError as error:
        found.append(
            (("runs", error.args[1][0], "needs"), f"runs need each other in a circle: {' -> '.join(error.args[1])}")
        )
    return found


def _wrong_specials(name: str, profile: Profile) -> list[tuple[tuple, str]]:
    """Settings for a whole model that are none: (where, what)."""
    found: list[tuple[tuple, str]] = []
    for whole, special in profile.special.items():
        settings = (
            ("data", DataConfig, profile.data, special.data),
            ("image", ImageEncoderConfig, profile.model.image, special.image),
            ("train", TrainConfig, profile.train, special.train),
        )
        for kind, config, usual, own in settings:
            try:
                config.model_validate(usual.model_dump() | own)
            except ValidationError as error:
                first = error.errors()[0]
                where = ("profiles", name, "special", whole, kind, *first["loc"])
                found.append((where, f"profile '{name}': {'.'.join(map(str, where[2:]))}: {first['msg']}"))
    return found


def _wrong_notebooks(content: StudyFile, root: Path) -> list[tuple[tuple, str]]:
    """Notebooks that are missing or broken, and parameters that they do not declare or of another type."""
    found: list[tuple[tuple, str]] = []
    for name, run in content.runs.items():
        where = ("runs", name)
        try:
            declared = declared_parameters(root / run.notebook)
        except StudyError as error:
            found.append(((*where, "notebook"), f"run '{name}': {error}"))
            continue
        for key, value in run.parameters.items():
            if key not in declared:
                known = ", ".join(declared)
                found.append(
                    (
                        (*where, "parameters", key),
                        f"run '{name}': {run.notebook} declares no parameter '{key}'; it has {known}",
                    )
                )
            elif declared[key] is not None and type(declared[key]) is not type(value):
                kind = type(declared[key]).__name__
                found.append(
                    ((*where, "parameters", key), f"run '{name}': parameter '{key}' must be {kind}, not {value!r}")
                )
    return found


def declared_parameters(notebook: Path) -> dict[str, Any]:
    """Names and default values in a notebook's cell tagged ``parameters`` (None where the default is no literal).

    Raises StudyError when the notebook is missing, is no notebook, or has no such cell.
    """
    if not notebook.is_file():
        raise StudyError(f"{notebook}: notebook not found; correct the key 'notebook'")
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except Exception as error:  # nbformat raises whatever its JSON and schema readers raise
        raise StudyError(f"{notebook}: no Jupyter notebook ({type(error).__name__}); restore it") from error
    for cell in cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            statements = [s for s in ast.parse(cell.source).body if isinstance(s, ast.Assign)]
            return {s.targets[0].id: _literal(s.value) for s in statements if isinstance(s.targets[0], ast.Name)}
    raise StudyError(f"{notebook}: has no cell tagged 'parameters'; add one")


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _line(tree: yaml.Node, location: tuple) -> int:
    """The line, from 1, of the deepest part of ``location`` that the file has."""
    node, line = tree, tree.start_mark.line
    for part in location:
        if isinstance(node, yaml.MappingNode):
            entries = {key.value: (key, value) for key, value in node.value}
            if str(part) not in entries:
                break
            key, node = entries[str(part)]
            line = key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1


def _known(path: Path, kind: str, name: str, options: dict[str, Any]) -> Any:
    if name not in options:
        raise StudyError(f"{path}: unknown {kind} '{name}'; known: {', '.join(options)}")
    return options[name]
