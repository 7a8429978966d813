"""The content of a study file: variants, profiles and runs; a study, and a study under one of its profiles."""

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from refstudy.base.config import (
    BERT_NAMES,
    SHARED,
    SWIN_NAMES,
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
    record_name,
)
from refstudy.base.errors import StudyError
from refstudy.base.files import file_digest, read_text
from refstudy.data.source import default_data_root
from refstudy.study.changes import with_changes

# The profiles with the papers' own settings, by encoder; costs are always counted at their sizes.
PAPERS_SWIN_T, PAPERS_SWIN_B = "refcoco", "refcoco_swinb"
Case = tuple[str, str, int]  # profile, variant, seed: one training
Seeds = tuple[NonNegativeInt, ...]
Encoder = TypeVar("Encoder", ImageEncoderConfig, TextEncoderConfig)


class Variant(Settings):
    """A fusion module and a decoder, or a whole model. ``tables``: stem of a table -> the row that it fills.

    ``longer``: it is trained so many times the profile's epochs. Rows of tables have equal budgets, so such a variant
    fills none.
    """

    label: str
    fusion: PartConfig | None = None
    decoder: PartConfig | None = None
    whole: PartConfig | None = None
    tables: dict[str, str] = {}
    longer: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "Variant":
        parts = (self.fusion is not None, self.decoder is not None)
        if parts != ((True, True) if self.whole is None else (False, False)):
            raise ValueError("give 'fusion' and 'decoder', or 'whole' alone")
        return self

    @property
    def family(self) -> str:
        """The name of variants whose runs are assumed to scatter alike: one decoder or whole model, equally long."""
        name = (self.whole or self.decoder or self.fusion).name  # type: ignore[union-attr]
        return name if self.longer == 1 else f"{name}, {self.longer} times as long"


class Encoders(Settings):
    """The two encoders, which all variants of a profile share."""

    image: ImageEncoderConfig
    text: TextEncoderConfig


class Special(Settings):
    """The settings of a profile for one whole model; ``encoders`` is the file with its pretrained encoder."""

    data: dict[str, Any] = {}
    image: dict[str, Any] = {}
    train: dict[str, Any] = {}
    pretraining: dict[str, Any] = {}
    encoders: str = ""


class Live(Settings):
    """The small training that notebook 04 shows live; no table contains it. ``scenes``: the number of pictures of each
    split, drawn ones or the first of released data; empty: those of the profile. ``kinds`` and ``referents`` are those
    of ``DataConfig``."""

    variant: str
    scenes: dict[str, PositiveInt] = {}
    epochs: int = Field(ge=1)
    kinds: tuple[str, ...] = ()
    referents: int = Field(1, ge=1)


class Profile(Settings):
    """The data, image size, length of training and seeds of the variants.

    ``without`` are variants that it does not train. Ablations and notebooks report the first of ``splits``. ``beside``
    are profiles of the same study with other data or another encoder: tables take from their records what this one does
    not train. ``rows``: row as its variant names it -> the row that it fills under this profile. ``further_seeds``:
    seeds of a variant besides ``seeds``, where these leave a claim undecided. ``pilot``: seeds with which the regime
    was chosen, and ``fresh_seeds``: seeds with which two variants are trained again when the verdicts are written; no
    table counts either. ``ships``: variants whose weights are kept in results, in half precision, each with the seed of
    its run.
    """

    about: str
    data: DataConfig
    model: Encoders
    train: TrainConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    pretraining: PretrainConfig = PretrainConfig()
    part_options: dict[str, dict[str, Any]] = {}
    special: dict[str, Special] = {}  # by the name of a whole model
    encoders: str = ""
    variants: tuple[str, ...] | Literal["all"] = "all"
    without: tuple[str, ...] = ()
    seeds: Seeds = Field((0,), min_length=1)
    further_seeds: dict[str, Seeds] = {}
    pilot: Seeds = ()
    fresh_seeds: dict[str, Seeds] = {}
    splits: tuple[str, ...] = Field(("val",), min_length=1)
    beside: tuple[str, ...] = ()
    rows: dict[str, str] = {}
    training: Literal["always", "when asked"] = "when asked"
    live: Live | None = None
    ships: dict[str, NonNegativeInt] = {}


class Run(Settings):
    """A notebook with parameters. ``data``: it needs the profile's data, which are made before it starts."""

    notebook: str
    parameters: dict[str, Any] = {}
    data: bool = True


# Keys of runs in earlier study files: what to do about each.
EARLIER_KEYS = {
    "needs": "every notebook runs by itself, after the trainings, and again when what it reads changes; delete the key",
    "trains": "`refstudy train` and `refstudy run --train` train without a notebook; delete the whole run",
    **dict.fromkeys(("timeout", "retries", "gpus"), "a run has no such setting any more; delete the key"),
}
Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*$")]  # they become those of files and folders


class StudyFile(Settings):
    """The content of a study file."""

    variants: dict[Name, Variant]
    profiles: dict[Name, Profile]
    runs: dict[Name, Run]


class Study:
    """A checked study file at ``path``. Relative paths start at ``root``: its folder, or that of the file it extends.
    Paths of your own classes always start at its own folder. What is trained lies under ``home``: the root, unless the
    file says otherwise. ``changes`` replace settings of every run: see ``changed``."""

    changes: Mapping[str, Any] = {}

    def __init__(self, path: Path, content: StudyFile, root: Path, home: Path | None = None):
        self.path, self.root, self.home = path, root, home or root
        self.variants, self.profiles, self.runs = content.variants, content.profiles, content.runs

    def changed(self, changes: Mapping[str, Any]) -> "Study":
        """The same study, whose runs have other settings: see ``refstudy.study.changes.with_changes``."""
        study = copy(self)
        study.changes = changes
        return study

    def profile(self, name: str) -> Profile:
        """The profile of that name. Raises StudyError for an unknown one."""
        return _known(self.path, "profile", name, self.profiles)

    def variant_names(self, profile: str) -> tuple[str, ...]:
        """The variants that a profile trains."""
        settings = self.profile(profile)
        names = self.variants if settings.variants == "all" else settings.variants
        return tuple(name for name in names if name not in settings.without)

    def seeds(self, profile: str, variant: str) -> tuple[int, ...]:
        """The seeds with which a profile trains a variant."""
        settings = self.profile(profile)
        return settings.seeds + settings.further_seeds.get(variant, ())

    def together(self, profile: str) -> tuple[str, ...]:
        """A profile and those named in its ``beside``, itself first."""
        return (profile, *(name for name in self.profile(profile).beside if name != profile))

    def compared(self, profile: str) -> list[str]:
        """The profiles of ``together`` whose numbers may stand in one table: the same data, counted in the same way,
        and this one's first split."""
        own = self.profile(profile)
        others = {name: self.profile(name) for name in self.together(profile)}
        alike = {name: of for name, of in others.items() if (of.data, of.evaluation) == (own.data, own.evaluation)}
        return [name for name, of in alike.items() if own.splits[0] in of.splits]

    def rows(self, table: str, profiles: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Row of a printed table -> the profile and the variant that fill it.

        The profile is the first of ``profiles`` that trains such a variant; if none does, the first.
        """
        found: dict[str, tuple[str, str]] = {}
        for trained, names in ((True, profiles), (False, profiles[:1])):
            for profile in names:
                own, renamed = self.variant_names(profile), self.profile(profile).rows
                for name, variant in self.variants.items():
                    if table in variant.tables and (name in own) is trained:
                        row = variant.tables[table]
                        found.setdefault(renamed.get(row, row), (profile, name))
        return found

    def cases(
        self, profile: str, variants: Sequence[str] = (), seeds: Sequence[int] = (), beside: bool = False
    ) -> list[Case]:
        """List the trainings of a profile and, with ``beside``, of those that it names there, all variants with the
        lowest seed first. If variants or seeds are named, only theirs are listed."""
        found: list[Case] = []
        for name in self.together(profile) if beside else (profile,):
            trained = self.variant_names(name)
            own = [one for one in variants or trained if name == profile or one in trained]
            cases = [(name, one, seed) for one in own for seed in seeds or self.seeds(name, one)]
            found += sorted(cases, key=lambda case: case[2])
        return found

    def results(self, profile: str) -> Path:
        """The folder of a profile's results."""
        return self.home / "results" / profile

    def record(self, case: Case) -> Path:
        """The folder of a run's record, which may not be there. Raises StudyError for unknown profiles and variants."""
        return self.results(case[0]) / "records" / record_name(self.run_config(*case))

    def under(self, profile: str, results: Path | str = "") -> "ProfileStudy":
        """The study under a profile; ``results`` replaces its folder. Raises StudyError for an unknown profile."""
        self.profile(profile)
        return ProfileStudy(self, profile, Path(results) if results else self.results(profile))

    @property
    def data_root(self) -> Path:
        """The folder of the data: the one that REFSTUDY_DATA names, otherwise ``data`` next to the study file."""
        return default_data_root(self.root)

    def special(self, profile: str, variant: str) -> Special:
        """The settings of the profile for the whole model of this variant alone; none for a variant of parts."""
        whole = self.variants[variant].whole
        return self.profile(profile).special.get(whole.name if whole else "", Special())

    def encoders(self, profile: str, variant: str) -> Path | None:
        """The file of pretrained encoders that a variant starts from, if the profile has one."""
        name = self.special(profile, variant).encoders or self.profile(profile).encoders
        return self.root / name if name else None

    def run_config(self, profile: str, variant: str, seed: int) -> RunConfig:
        """All settings of one training run. Raises StudyError for an unknown profile or variant."""
        settings, parts = self.profile(profile), _known(self.path, "variant", variant, self.variants)
        special = self.special(profile, variant)
        data, train = settings.data.replaced(special.data), settings.train.replaced(special.train)
        chosen = {
            kind: part.model_copy(update={"options": settings.part_options.get(part.name, {}) | part.options})
            for kind in ("fusion", "decoder", "whole")
            if (part := getattr(parts, kind)) is not None
        }
        image = _from_folder(settings.model.image.replaced(special.image), self.root)
        encoders: dict[str, Any] = {"image": image, "text": _from_folder(settings.model.text, self.root)}
        model = ModelConfig(**{name: getattr(data, name) for name in SHARED}, **encoders, **chosen)
        train = train.model_copy(update={"epochs": train.epochs * parts.longer})
        about: dict[str, Any] = {"variant": variant, "seed": seed, "splits": settings.splits}
        config = RunConfig(**about, data=data, model=model, train=train, evaluation=settings.evaluation)
        return with_changes(config, self.changes) if self.changes else config

    def live_config(self, profile: str) -> RunConfig:
        """The settings of notebook 04's live training. Raises StudyError when the profile has none."""
        live = self.profile(profile).live
        if live is None:
            raise StudyError(f"{self.path}: profile '{profile}' has no key 'live'; add it or choose another profile")
        run = self.run_config(profile, live.variant, seed=0)
        chosen = {"scenes": live.scenes or run.data.scenes, "kinds": live.kinds, "referents": live.referents}
        data = run.data.model_copy(update=chosen)
        train = run.train.model_copy(update={"epochs": live.epochs, "evaluate_every": 1})
        return run.model_copy(update={"data": data, "train": train, "splits": ("val",)})


@dataclass(frozen=True)
class ProfileStudy:
    """A study ``file`` under the ``profile`` of that name; ``folder`` holds its results."""

    file: Study
    profile: str
    folder: Path

    @property
    def settings(self) -> Profile:
        """The settings of the profile."""
        return self.file.profile(self.profile)

    @property
    def variant_names(self) -> tuple[str, ...]:
        """The variants that the profile trains."""
        return self.file.variant_names(self.profile)

    def label(self, variant: str) -> str:
        """The variant's name in print."""
        return self.file.variants[variant].label

    def seeds(self, variant: str) -> tuple[int, ...]:
        """The seeds with which the profile trains a variant."""
        return self.file.seeds(self.profile, variant)

    def config(self, variant: str, seed: int = 0) -> RunConfig:
        """All settings of one run. Raises StudyError for an unknown variant."""
        return self.file.run_config(self.profile, variant, seed)

    def records_of(self, variant: str) -> Path:
        """The folder that holds a variant's run records."""
        return self.folder / "records"

    def weights(self, variant: str) -> Path:
        """The file of a shipped variant's weights."""
        return self.folder / "weights" / f"{variant}.safetensors"

    @property
    def work(self) -> Path:
        """The folder in which its runs keep their checkpoints and, when done, their best weights."""
        return self.file.home / "work" / self.profile

    def beside(self, profile: str) -> "ProfileStudy":
        """The same study under another profile, whose results lie next to these; for its own name, itself."""
        return self if profile == self.profile else ProfileStudy(self.file, profile, self.folder.parent / profile)


def _from_folder(encoder: Encoder, root: Path) -> Encoder:
    """Give a pretrained encoder whose name is that of a folder the folder's sizes and the SHA-256 of its weights. A
    folder that lacks something is reported when the model is built."""
    folder, is_text = root / encoder.name.removeprefix("local-dir:"), isinstance(encoder, TextEncoderConfig)
    if not (encoder.pretrained and encoder.name and folder.is_dir()):
        return encoder
    try:
        about = json.loads(read_text(folder / "config.json"))
        known, names = about.get("model_args", about), BERT_NAMES if is_text else SWIN_NAMES
        found = {ours: known[theirs] for ours, theirs in names.items() if theirs in known}
        status = (folder / "model.safetensors").stat()
        found["weights"] = _digest(folder / "model.safetensors", status.st_size, status.st_mtime_ns)
    except (OSError, ValueError, AttributeError, TypeError):
        return encoder
    given = {} if is_text else encoder.model_dump(exclude_none=True)  # timm takes sizes that differ from the folder's
    return encoder.replaced(found | given)


@cache
def _digest(path: Path, *_: int) -> str:
    return file_digest(path)


def training_command(profile: str, variant: str, seed: int | None = None) -> str:
    """The command that trains one run, or all runs of a variant without a record."""
    return f"refstudy train --profile {profile} --variant {variant}" + ("" if seed is None else f" --seed {seed}")


def _known(path: Path, kind: str, name: str, options: dict[str, Any]) -> Any:
    if name not in options:
        raise StudyError(f"{path}: unknown {kind} '{name}'; known: {', '.join(options)}")
    return options[name]
