"""Mistakes in a study file that its schema does not show: names that refer to nothing, rows, splits, notebooks."""

from collections import Counter
from collections.abc import Collection, Iterator

from pydantic import ValidationError

from refstudy.base.config import PARTS, Settings
from refstudy.base.errors import StudyError
from refstudy.base.yaml_files import said
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.models.own_parts import is_own
from refstudy.papers.printed import row_names, stems
from refstudy.study.cells import declared_parameters, wrong_parameter
from refstudy.study.file import Profile, Study

Problem = tuple[tuple, str]  # where in the file, and what is wrong there


def mistakes(study: Study) -> list[Problem]:
    """All of them, each with its place in the file."""
    found = [*_wrong_parts(study), *_wrong_rows(study), *_wrong_notebooks(study)]
    for name, profile in study.profiles.items():
        own = [*_wrong_names(study, profile), *_wrong_seeds(profile), *_twice(profile)]
        own += [*_wrong_splits(profile), *_wrong_specials(profile)]
        found += [(("profiles", name, *where), f"profile '{name}': {text}") for where, text in own]
    return found


def _unknown(kind: str, name: str, known: Collection[str], key: str = "") -> str:
    named = f" in '{key}'" if key else ""
    return f"unknown {kind} '{name}'{named}; known: {', '.join(known)}"


def _wrong_parts(study: Study) -> Iterator[Problem]:
    for name, variant in study.variants.items():
        for kind, known in PARTS.items():
            part = getattr(variant, kind)
            if part is not None and not is_own(part.name) and part.name not in known:
                yield ("variants", name, kind), f"variant '{name}': {_unknown(kind, part.name, known)}"


def _wrong_names(study: Study, profile: Profile) -> Iterator[Problem]:
    parts = (getattr(variant, kind) for variant in study.variants.values() for kind in PARTS)
    own = sorted({part.name for part in parts if part is not None and is_own(part.name)})
    variants, live = list(study.variants), (profile.live.variant,) if profile.live else ()
    for key, kind, names, known in (
        ("part_options", "part", profile.part_options, [*(part for of in PARTS.values() for part in of), *own]),
        ("variants", "variant", _listed(profile), variants),
        ("without", "variant", profile.without, variants),
        ("live", "variant", live, variants),
        ("ships", "variant", profile.ships, variants),
        ("further_seeds", "variant", profile.further_seeds, variants),
        ("fresh_seeds", "variant", profile.fresh_seeds, variants),
        ("beside", "profile", profile.beside, list(study.profiles)),
    ):
        for one in names:
            if one not in known:
                yield (key, one) if key == "part_options" else (key,), _unknown(kind, one, known, key)


def _listed(profile: Profile) -> Collection[str]:
    return () if profile.variants == "all" else profile.variants


def _wrong_seeds(profile: Profile) -> Iterator[Problem]:
    """Find shipped seeds that are not trained, repeated seeds, and seeds of the pilot, or fresh ones, that tables
    count."""
    seeds = {variant: (*profile.seeds, *further) for variant, further in profile.further_seeds.items()}
    for variant, seed in profile.ships.items():
        own = (*seeds.get(variant, profile.seeds), *profile.pilot)
        if seed not in own:
            yield ("ships",), f"'ships' names seed {seed} of '{variant}'; its seeds: {', '.join(map(str, own))}"
    for variant, trained in seeds.items():
        for seed, count in Counter(trained).items():
            if count > 1 and seed in profile.further_seeds[variant]:
                times = f"stands {count} times in 'seeds' and 'further_seeds'; name it once"
                yield ("further_seeds", variant), f"seed {seed} of '{variant}' {times}"
    for seed in profile.pilot:
        if seed in profile.seeds or any(seed in further for further in profile.further_seeds.values()):
            yield ("pilot",), f"seed {seed} of 'pilot' is one that tables count; name another"
    if profile.fresh_seeds and len(profile.fresh_seeds) != 2:
        yield ("fresh_seeds",), f"'fresh_seeds' names {len(profile.fresh_seeds)} variant(s); name the two to compare"
    for variant, fresh in profile.fresh_seeds.items():
        for seed in fresh:
            if seed in (*seeds.get(variant, profile.seeds), *profile.pilot):
                yield ("fresh_seeds", variant), f"seed {seed} of '{variant}' is not fresh: tables or the pilot have it"


def _twice(profile: Profile) -> Iterator[Problem]:
    lists = {key: getattr(profile, key) for key in ("seeds", "splits", "beside")} | {"variants": _listed(profile)}
    for key, values in lists.items():
        for value, count in Counter(values).items():
            if count > 1:
                yield (key,), f"'{value}' stands {count} times in '{key}'; name it once"


def _wrong_splits(profile: Profile) -> Iterator[Problem]:
    """Find partitions and splits that the flavour of RefScenes lacks, and splits without scenes."""
    if not hasattr(profile, "data") or profile.data.dataset not in FLAVOURS:
        return
    data, flavour = profile.data, FLAVOURS[profile.data.dataset]
    if data.split_by not in flavour.partitions:
        known = ", ".join(flavour.partitions)
        yield ("data", "split_by"), f"{data.dataset} has no partition '{data.split_by}'; known: {known}"
        return
    selects, splits = profile.train.selection_split if hasattr(profile, "train") else "val", flavour.partitions
    for key, split in (*((("splits",), split) for split in profile.splits), (("train", "selection_split"), selects)):
        if split not in splits[data.split_by]:
            yield key, f"{data.dataset} has no split '{split}'; known: {', '.join(splits[data.split_by])}"
    made = [("data", data.scenes, {"train", selects, *profile.splits})]
    if profile.live and profile.live.scenes:
        made.append(("live", profile.live.scenes, {"train", "val", selects}))
    for section, scenes, needed in made:
        where, known = (section, "scenes"), ", ".join(flavour.splits)
        for split in sorted(set(scenes) - set(flavour.splits)):
            yield where, f"{section}.scenes: {data.dataset} has no split '{split}'; known: {known}"
        for split in sorted(needed & set(flavour.splits) - set(scenes)):
            yield where, f"{section}.scenes: names no scenes of '{split}'; say how many"


def _wrong_specials(profile: Profile) -> Iterator[Problem]:
    """Find settings under `special` that are invalid, or for no whole model."""
    for whole, special in profile.special.items():
        if whole not in PARTS["whole"]:
            yield ("special", whole), _unknown("whole model", whole, PARTS["whole"])
        if not all(hasattr(profile, key) for key in ("data", "model", "train")):  # mistakes of their own, found before
            continue
        usual: dict[str, Settings] = {"data": profile.data, "image": profile.model.image, "train": profile.train}
        for kind, settings in (usual | {"pretraining": profile.pretraining}).items():
            try:
                settings.replaced(getattr(special, kind))
            except ValidationError as error:
                first = error.errors()[0]
                where = ("special", whole, kind, *first["loc"])
                yield where, said(where, first["msg"])


def _wrong_rows(study: Study) -> Iterator[Problem]:
    """Find rows that no printed table has, that two variants fill, or one with a larger budget."""
    printed = {stem: row_names(stem) for stem in stems() if "_table" in stem}
    filled: dict[tuple[str, str], str] = {}
    for name, variant in study.variants.items():
        if variant.longer > 1 and variant.tables:
            problem = f"variant '{name}': rows of tables are trained equally long; drop 'longer' or 'tables'"
            yield ("variants", name, "longer"), problem
        for stem, row in variant.tables.items():
            problem = ""
            if stem not in printed:
                problem = f"no printed table '{stem}'; known: {', '.join(printed)}"
            elif row not in printed[stem]:
                problem = f"table '{stem}' has no row '{row}'; known: {', '.join(printed[stem])}"
            elif (other := filled.setdefault((stem, row), name)) != name:
                problem = f"row '{row}' of '{stem}' is filled by '{other}'; drop one"
            if problem:
                yield ("variants", name, "tables", stem), f"variant '{name}': {problem}"
    for name, profile in study.profiles.items():
        for row, own in profile.rows.items():
            tables = [stem for stem, filled_row in filled if filled_row == row]
            if not any(own in printed[stem] for stem in tables):
                problem = f"no row '{own}' in {', '.join(tables)}" if tables else f"no variant fills a row '{row}'"
                yield ("profiles", name, "rows", row), f"profile '{name}': {problem}; correct 'rows'"


def _wrong_notebooks(study: Study) -> Iterator[Problem]:
    """Find notebooks that are missing or broken, and parameters that they do not declare or of another type."""
    for name, run in study.runs.items():
        if not hasattr(run, "notebook"):  # its own mistake, found before
            continue
        notebook = study.root / run.notebook
        try:
            declared = declared_parameters(notebook)
        except StudyError as error:
            yield ("runs", name, "notebook"), f"run '{name}': {error}"
            continue
        for key, value in run.parameters.items():
            if wrong := wrong_parameter(notebook, declared, key, value):
                yield ("runs", name, "parameters", key), f"run '{name}': {wrong}"
