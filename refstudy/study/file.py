"""The study file: variants, profiles and runs, checked as a whole before anything is done with them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, StringConstraints, TypeAdapter, ValidationError, model_validator

from refstudy.base.config import (
    PARTS,
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
from refstudy.base.errors import StudyError
from refstudy.base.yaml_files import read_yaml, said
from refstudy.data.scenes import FLAVOURS
from refstudy.data.source import default_data_root
from refstudy.models.own_parts import is_own, register
from refstudy.papers.printed import row_names, stems
from refstudy.study.cells import declared_parameters, wrong_parameter

FILE_NAME = "papermill_runs.yaml"
# The papers' own setting by encoder, at whose sizes costs are counted whatever profile is executed.
PAPERS_SWIN_T, PAPERS_SWIN_B = "refcoco", "refcoco_swinb"
Case = tuple[str, str, int]  # profile, variant, seed: one training
Problem = tuple[tuple, str]  # where in the file, and what is wrong there


class Variant(Settings):
    """A fusion module and a decoder, or a whole model. ``tables``: stem of a table -> the row that it fills.

    ``longer``: how many times the profile's epochs it is trained. Rows of tables have equal budgets, so it is for
    variants in none.
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
        """The name that variants share whose runs are taken to scatter alike: one decoder or whole model, equally
        long."""
        name = (self.whole or self.decoder or self.fusion).name  # type: ignore[union-attr]
        return name if self.longer == 1 else f"{name}, {self.longer} times as long"


class Encoders(Settings):
    """The two encoders, which all variants of a profile share."""

    image: ImageEncoderConfig
    text: TextEncoderConfig


class Special(Settings):
    """The settings of a profile for one whole model alone: its data, its image encoder, its training, the pretraining
    of its encoder and the file of it."""

    data: dict[str, Any] = {}
    image: dict[str, Any] = {}
    train: dict[str, Any] = {}
    pretraining: dict[str, Any] = {}
    encoders: str = ""


class Live(Settings):
    """The small training that notebook 04 shows live: it never becomes a number of a table. ``scenes``: the pictures of
    each split, drawn ones or the first of released data."""

    variant: str
    scenes: dict[str, PositiveInt]
    epochs: int = Field(ge=1)


class Profile(Settings):
    """On which data, at which size, how long and how often the variants are trained.

    The first of ``splits`` is the one that ablations and notebooks speak of. ``beside`` are profiles with the other
    settings of the same study (other data, another encoder): tables take from their records what this one does not
    train. ``rows``: row as its variant names it -> the row that it fills under this profile. ``further_seeds``: what a
    variant is trained with besides ``seeds``, where these leave open what they were to decide. ``pilot``: seeds with
    which the regime was chosen; ``ships`` may name one of them.
    """

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
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    further_seeds: dict[str, tuple[Annotated[int, Field(ge=0)], ...]] = {}
    pilot: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="seeds of the pilot; no table counts them")
    splits: tuple[str, ...] = Field(("val",), min_length=1)
    beside: tuple[str, ...] = ()
    rows: dict[str, str] = {}
    training: Literal["always", "when asked"] = "when asked"
    live: Live | None = None
    ships: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {}, description="variants whose weights are kept in results, in half precision, each with the seed of its run"
    )


class Run(Settings):
    """A notebook with parameters. ``data``: whether it needs the profile's data, which are made before it starts."""

    notebook: str
    parameters: dict[str, Any] = {}
    data: bool = True


# Keys that runs had in earlier study files, and what to do about each.
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
    Only classes of one's own are looked for in its own folder."""

    def __init__(self, path: Path, content: StudyFile, root: Path | None = None):
        self.path, self.root = path, root or path.parent
        self.variants, self.profiles, self.runs = content.variants, content.profiles, content.runs

    def profile(self, name: str) -> Profile:
        """The profile of that name. Raises StudyError for an unknown one."""
        return _known(self.path, "profile", name, self.profiles)

    def variant_names(self, profile: str) -> tuple[str, ...]:
        """The variants that a profile trains."""
        names = self.profile(profile).variants
        return tuple(self.variants) if names == "all" else names

    def seeds(self, profile: str, variant: str) -> tuple[int, ...]:
        """The seeds with which a profile trains a variant."""
        settings = self.profile(profile)
        return settings.seeds + settings.further_seeds.get(variant, ())

    def together(self, profile: str) -> tuple[str, ...]:
        """A profile and those beside it, itself first."""
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

        That is the first of ``profiles`` that trains such a variant; a row that none trains is the first profile's.
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
        """List the trainings of a profile and, if asked, of those ``beside`` it, all variants with the lowest seed
        first; only those of these variants and seeds, where any are named."""
        found: list[Case] = []
        for name in self.together(profile) if beside else (profile,):
            trained = self.variant_names(name)
            own = [one for one in variants or trained if name == profile or one in trained]
            cases = [(name, one, seed) for one in own for seed in seeds or self.seeds(name, one)]
            found += sorted(cases, key=lambda case: case[2])
        return found

    def results(self, profile: str) -> Path:
        """The folder of a profile's results."""
        return self.root / "results" / profile

    def under(self, profile: str, results: Path | str = "") -> "ProfileStudy":
        """The study under one of its profiles, whose own folder ``results`` replaces. Raises StudyError for an unknown
        profile."""
        self.profile(profile)
        return ProfileStudy(self, profile, Path(results) if results else self.results(profile))

    @property
    def data_root(self) -> Path:
        """The folder of the data, found or made: the one that REFSTUDY_DATA names, otherwise ``data`` beside the study
        file."""
        return default_data_root(self.root)

    def special(self, profile: str, variant: str) -> Special | None:
        """The settings of the profile for the whole model of this variant alone; None for a composed one."""
        whole = self.variants[variant].whole
        return self.profile(profile).special.get(whole.name, Special()) if whole else None

    def encoders(self, profile: str, variant: str) -> Path | None:
        """The file of pretrained encoders that a variant starts from, if the profile has one."""
        special = self.special(profile, variant)
        name = special.encoders if special and special.encoders else self.profile(profile).encoders
        return self.root / name if name else None

    def run_config(self, profile: str, variant: str, seed: int) -> RunConfig:
        """All settings of one training run. Raises StudyError for an unknown profile or variant."""
        settings, parts = self.profile(profile), _known(self.path, "variant", variant, self.variants)
        special = self.special(profile, variant) or Special()
        data = DataConfig.model_validate(settings.data.model_dump() | special.data)
        train = TrainConfig.model_validate(settings.train.model_dump() | special.train)
        chosen = {
            kind: part.model_copy(update={"options": settings.part_options.get(part.name, {}) | part.options})
            for kind in ("fusion", "decoder", "whole")
            if (part := getattr(parts, kind)) is not None
        }
        return RunConfig(
            variant=variant,
            seed=seed,
            data=data,
            model=ModelConfig(
                image_size=data.image_size,
                keep_aspect=data.keep_aspect,
                max_words=data.max_words,
                image=ImageEncoderConfig.model_validate(settings.model.image.model_dump() | special.image),
                text=settings.model.text,
                **chosen,
            ),
            train=train.model_copy(update={"epochs": train.epochs * parts.longer}),
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

    def seeds(self, variant: str) -> tuple[int, ...]:
        """The seeds with which the profile trains a variant."""
        return self.file.seeds(self.profile, variant)

    def config(self, variant: str, seed: int = 0) -> RunConfig:
        """All settings of one run. Raises StudyError for an unknown variant."""
        return self.file.run_config(self.profile, variant, seed)

    def weights(self, variant: str) -> Path:
        """The file of a shipped variant's weights."""
        return self.folder / "weights" / f"{variant}.safetensors"

    def beside(self, profile: str) -> "ProfileStudy":
        """The same study under another profile, whose results lie beside these; for its own name, itself."""
        return self if profile == self.profile else ProfileStudy(self.file, profile, self.folder.parent / profile)


def training_command(profile: str, variant: str, seed: int | None = None) -> str:
    """The command that trains one run, or those of a variant that have no record, and leaves records in the profile's
    results."""
    return f"refstudy train --profile {profile} --variant {variant}" + ("" if seed is None else f" --seed {seed}")


def find_study(name: str | Path = FILE_NAME) -> Path:
    """The study file: ``name`` itself, or the nearest one of that name in this folder or above it."""
    for folder in (Path(), *Path.cwd().resolve().parents):
        path = folder / name
        if path.is_file():
            return path.resolve()
    raise StudyError(f"{name}: study file not found here or above; run from the repository or name the file")


def load_study(name: str | Path = FILE_NAME) -> Study:
    """Read and check a study file. Raises one StudyError that lists every mistake, each with its line number.

    A file with the key ``extends`` adds its variants, profiles and runs to those of the study file that it names.
    """
    path = find_study(name)
    file = read_yaml(path)
    problems: list[Problem] = []
    root, raw = _extended(path, file.content, problems)
    try:
        content = StudyFile.model_validate(raw)
    except ValidationError as error:
        problems += [(e["loc"], _said(e["loc"], e["msg"])) for e in error.errors()]
        content = _sound_part(raw)
    problems += _find_own_parts(content, path.parent)
    study = Study(path, content, root)
    problems += [*_wrong_names(study), *_wrong_rows(study), *_wrong_notebooks(study)]
    found = file.mistakes + [(file.line(where), problem) for where, problem in problems]
    if found:
        raise file.error(found)
    return study


def _extended(path: Path, raw: Any, problems: list[Problem]) -> tuple[Path, Any]:
    """The root and the content of a study file, together with what it extends; what is wrong goes to ``problems``.
    Raises StudyError for mistakes in the file that is extended."""
    if not isinstance(raw, dict) or "extends" not in raw:
        return path.parent, raw
    own = {key: part for key, part in raw.items() if key != "extends"}
    base = path.parent / str(raw["extends"])
    content = read_yaml(base).content if base.is_file() else None
    if not isinstance(content, dict) or "extends" in content:
        problem = "extends itself another; name that one" if content else "is no study file; give its path from here"
        problems.append((("extends",), f"extends: {base} {problem}"))
        return path.parent, own
    root = load_study(base).root
    for section in content:
        added = own.get(section, {})
        if isinstance(added, dict):
            problems += [
                ((section, name), f"{section}: '{name}' stands in {base.name} too; choose another name")
                for name in added.keys() & content[section].keys()
            ]
            own[section] = content[section] | added
    return root, own


def _find_own_parts(content: StudyFile, folder: Path) -> list[Problem]:
    """Give the variants' classes of one's own the digest of their source; what is wrong with them."""
    found: list[Problem] = []
    for name, variant in content.variants.items():
        for kind in PARTS:
            part = getattr(variant, kind, None)
            if part is None:
                continue
            where = ("variants", name, kind)
            if part.source:
                found.append((where, f"variant '{name}': 'source' is found by itself; leave it out"))
            elif is_own(part.name):
                try:
                    own = part.model_copy(update={"source": register(part.name, folder)})
                except StudyError as error:
                    found.append((where, f"variant '{name}': {kind} {error}"))
                    continue
                variant = content.variants[name] = variant.model_copy(update={kind: own})
    return found


def _said(where: tuple, message: str) -> str:
    """Say what is wrong at a place of the file, or what to do about a key of an earlier study file."""
    known = EARLIER_KEYS.get(where[2], message) if len(where) == 3 and where[0] == "runs" else message
    return said(where, known)


def _sound_part(raw: Any) -> StudyFile:
    """Read the sound part of a file with mistakes, so that it is checked all the same."""
    sections = {}
    for section, kind in (("variants", Variant), ("profiles", Profile), ("runs", Run)):
        entries = raw.get(section) if isinstance(raw, dict) else None
        entries = entries if isinstance(entries, dict) else {}
        sections[section] = {str(name): _sound_fields(kind, entry) for name, entry in entries.items()}
    return StudyFile.model_construct(**sections)  # type: ignore[arg-type]


def _sound_fields(kind: type[Settings], entry: Any) -> Settings:
    fields = {}
    for name, field in kind.model_fields.items():
        if isinstance(entry, dict) and name in entry:
            annotation: Any = field.annotation
            try:
                fields[name] = TypeAdapter(annotation).validate_python(entry[name])
            except ValidationError:
                continue
    return kind.model_construct(**fields)


def _wrong_names(study: Study) -> list[Problem]:
    """Find names that refer to nothing or stand twice."""
    found: list[Problem] = []
    own_parts = sorted(
        {p.name for v in study.variants.values() for kind in PARTS if (p := getattr(v, kind)) and is_own(p.name)}
    )
    for name, variant in study.variants.items():
        found += [
            (("variants", name, kind), f"variant '{name}': unknown {kind} '{part.name}'; known: {', '.join(names)}")
            for kind, names in PARTS.items()
            if (part := getattr(variant, kind)) is not None and not is_own(part.name) and part.name not in names
        ]
    for name, profile in study.profiles.items():
        where = ("profiles", name)
        listed = {
            "variants": () if profile.variants == "all" else profile.variants,
            "live": (profile.live.variant,) if profile.live else (),
            "ships": profile.ships,
            "further_seeds": profile.further_seeds,
        }
        known = ", ".join(study.variants)
        found += [
            ((*where, key), f"profile '{name}': unknown variant '{variant}' in '{key}'; known: {known}")
            for key, variants in listed.items()
            for variant in variants
            if variant not in study.variants
        ]
        others = ", ".join(study.profiles)
        found += [
            ((*where, "beside"), f"profile '{name}': unknown profile '{other}' in 'beside'; known: {others}")
            for other in profile.beside
            if other not in study.profiles
        ]
        seeds = {variant: (*profile.seeds, *further) for variant, further in profile.further_seeds.items()}
        found += [
            (
                (*where, "ships"),
                f"profile '{name}': 'ships' names seed {seed} of '{variant}'; its seeds: {', '.join(map(str, own))}",
            )
            for variant, seed in profile.ships.items()
            if seed not in (own := (*seeds.get(variant, profile.seeds), *profile.pilot))
        ]
        found += [
            (
                (*where, "further_seeds", variant),
                f"profile '{name}': seed {seed} of '{variant}' stands {count} times in 'seeds' and 'further_seeds'; "
                "name it once",
            )
            for variant, own in seeds.items()
            for seed, count in Counter(own).items()
            if count > 1 and seed in profile.further_seeds[variant]
        ]
        found += [
            ((*where, "pilot"), f"profile '{name}': seed {seed} of 'pilot' is one that tables count; name another")
            for seed in profile.pilot
            if seed in profile.seeds or any(seed in further for further in profile.further_seeds.values())
        ]
        lists = {key: getattr(profile, key) for key in ("seeds", "splits", "beside")}
        found += [
            ((*where, key), f"profile '{name}': '{value}' stands {count} times in '{key}'; name it once")
            for key, values in (lists | {"variants": listed["variants"]}).items()
            for value, count in Counter(values).items()
            if count > 1
        ]
        known_parts = [part for names in PARTS.values() for part in names] + own_parts
        parts = ", ".join(known_parts)
        found += [
            (
                (*where, "part_options", part),
                f"profile '{name}': unknown part '{part}' in 'part_options'; known: {parts}",
            )
            for part in profile.part_options
            if part not in known_parts
        ]
        found += _wrong_splits(name, profile)
        found += _wrong_specials(name, profile)
    return found


def _wrong_splits(name: str, profile: Profile) -> list[Problem]:
    """Splits that a flavour of RefScenes, or its partition, lacks, or of which no scenes are made; and a partition that
    the flavour lacks."""
    if not hasattr(profile, "data") or profile.data.dataset not in FLAVOURS:
        return []
    where, data, flavour = ("profiles", name), profile.data, FLAVOURS[profile.data.dataset]
    if data.split_by not in flavour.partitions:
        known = ", ".join(flavour.partitions)
        problem = f"profile '{name}': {data.dataset} has no partition '{data.split_by}'; known: {known}"
        return [((*where, "data", "split_by"), problem)]
    selects = profile.train.selection_split if hasattr(profile, "train") else "val"
    asked = [(("splits",), split) for split in profile.splits] + [(("train", "selection_split"), selects)]
    found: list[Problem] = []
    for key, split in asked:
        if split not in (splits := flavour.partitions[data.split_by]):
            problem = f"{data.dataset} has no split '{split}'; known: {', '.join(splits)}"
            found.append(((*where, *key), f"profile '{name}': {problem}"))
    made = [(("data", "scenes"), data.scenes, {"train", selects, *profile.splits})]
    if profile.live:
        made.append((("live", "scenes"), profile.live.scenes, {"train", "val", selects}))
    known = ", ".join(flavour.splits)
    for key, scenes, needed in made:
        unknown, lacking = sorted(set(scenes) - set(flavour.splits)), sorted(needed & set(flavour.splits) - set(scenes))
        problems = [f"{data.dataset} has no split '{split}'; known: {known}" for split in unknown]
        problems += [f"names no scenes of '{split}'; say how many" for split in lacking]
        found += [((*where, *key), f"profile '{name}': {'.'.join(key)}: {problem}") for problem in problems]
    return found


def _wrong_rows(study: Study) -> list[Problem]:
    """Rows that no printed table has, that two variants would fill, or that one would fill with a larger budget."""
    found: list[Problem] = []
    printed = {stem: row_names(stem) for stem in stems() if "_table" in stem}
    filled: dict[tuple[str, str], str] = {}
    for name, variant in study.variants.items():
        if variant.longer > 1 and variant.tables:
            problem = f"variant '{name}': rows of tables are trained equally long; drop 'longer' or 'tables'"
            found.append((("variants", name, "longer"), problem))
        for stem, row in variant.tables.items():
            where = ("variants", name, "tables", stem)
            if stem not in printed:
                found.append((where, f"variant '{name}': no printed table '{stem}'; known: {', '.join(printed)}"))
            elif row not in printed[stem]:
                known = ", ".join(printed[stem])
                found.append((where, f"variant '{name}': table '{stem}' has no row '{row}'; known: {known}"))
            elif (other := filled.setdefault((stem, row), name)) != name:
                found.append((where, f"variant '{name}': row '{row}' of '{stem}' is filled by '{other}'; drop one"))
    for name, profile in study.profiles.items():
        for row, own in profile.rows.items():
            tables = [stem for stem, filled_row in filled if filled_row == row]
            problem = "" if tables else f"no variant fills a row '{row}'"
            if tables and not any(own in printed[stem] for stem in tables):
                problem = f"no row '{own}' in {', '.join(tables)}"
            if problem:
                found.append((("profiles", name, "rows", row), f"profile '{name}': {problem}; correct 'rows'"))
    return found


def _wrong_specials(name: str, profile: Profile) -> list[Problem]:
    """Settings for a whole model that are none, or for no whole model."""
    known = ", ".join(PARTS["whole"])
    found: list[Problem] = [
        (("profiles", name, "special", whole), f"profile '{name}': unknown whole model '{whole}'; known: {known}")
        for whole in profile.special
        if whole not in PARTS["whole"]
    ]
    if not all(hasattr(profile, key) for key in ("data", "model", "train")):  # mistakes of their own, found before
        return found
    for whole, special in profile.special.items():
        settings = (
            ("data", DataConfig, profile.data, special.data),
            ("image", ImageEncoderConfig, profile.model.image, special.image),
            ("train", TrainConfig, profile.train, special.train),
            ("pretraining", PretrainConfig, profile.pretraining, special.pretraining),
        )
        for kind, config, usual, own in settings:
            try:
                config.model_validate(usual.model_dump() | own)
            except ValidationError as error:
                first = error.errors()[0]
                where = ("profiles", name, "special", whole, kind, *first["loc"])
                found.append((where, f"profile '{name}': {'.'.join(map(str, where[2:]))}: {first['msg']}"))
    return found


def _wrong_notebooks(study: Study) -> list[Problem]:
    """Notebooks that are missing or broken, and parameters that they do not declare or of another type."""
    found: list[Problem] = []
    for name, run in study.runs.items():
        if not hasattr(run, "notebook"):  # its own mistake, found before
            continue
        where, notebook = ("runs", name), study.root / run.notebook
        try:
            declared = declared_parameters(notebook)
        except StudyError as error:
            found.append(((*where, "notebook"), f"run '{name}': {error}"))
            continue
        for key, value in run.parameters.items():
            if wrong := wrong_parameter(notebook, declared, key, value):
                found.append(((*where, "parameters", key), f"run '{name}': {wrong}"))
    return found


def _known(path: Path, kind: str, name: str, options: dict[str, Any]) -> Any:
    if name not in options:
        raise StudyError(f"{path}: unknown {kind} '{name}'; known: {', '.join(options)}")
    return options[name]
