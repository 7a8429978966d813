"""Mistakes in a study file that its schema does not show: names that refer to nothing, rows, splits, notebooks."""

from collections import Counter
from collections.abc import Collection

from pydantic import ValidationError

from refstudy.base.config import PARTS, DataConfig, ImageEncoderConfig, PretrainConfig, TrainConfig
from refstudy.base.errors import StudyError
from refstudy.data.scenes import FLAVOURS
from refstudy.models.own_parts import is_own
from refstudy.papers.printed import row_names, stems
from refstudy.study.cells import declared_parameters, wrong_parameter
from refstudy.study.file import Profile, Study

Problem = tuple[tuple, str]  # where in the file, and what is wrong there


def mistakes(study: Study) -> list[Problem]:
    """Find all of them, each with its place in the file."""
    found = [*_wrong_parts(study), *_wrong_rows(study), *_wrong_notebooks(study)]
    for name, profile in study.profiles.items():
        found += [*_wrong_variants(study, name, profile), *_wrong_seeds(name, profile), *_twice(name, profile)]
        found += [*_wrong_splits(name, profile), *_wrong_specials(name, profile)]
    return found


def _wrong_parts(study: Study) -> list[Problem]:
    """Find parts that are neither of the package nor of one's own, and options for parts that are none."""
    parts = [
        (name, kind, part)
        for name, variant in study.variants.items()
        for kind in PARTS
        if (part := getattr(variant, kind)) is not None
    ]
    found: list[Problem] = [
        (
            ("variants", name, kind),
            f"variant '{name}': unknown {kind} '{part.name}'; known: {', '.join(PARTS[kind])}",
        )
        for name, kind, part in parts
        if not is_own(part.name) and part.name not in PARTS[kind]
    ]
    own = sorted({part.name for _, _, part in parts if is_own(part.name)})
    known = [part for names in PARTS.values() for part in names] + own
    found += [
        (
            ("profiles", name, "part_options", part),
            f"profile '{name}': unknown part '{part}' in 'part_options'; known: {', '.join(known)}",
        )
        for name, profile in study.profiles.items()
        for part in profile.part_options
        if part not in known
    ]
    return found


def _wrong_variants(study: Study, name: str, profile: Profile) -> list[Problem]:
    """Find variants and profiles that a profile names and that are none."""
    listed = _listed(profile) | {
        "live": (profile.live.variant,) if profile.live else (),
        "ships": profile.ships,
        "further_seeds": profile.further_seeds,
    }
    found: list[Problem] = [
        (
            ("profiles", name, key),
            f"profile '{name}': unknown variant '{variant}' in '{key}'; known: {', '.join(study.variants)}",
        )
        for key, variants in listed.items()
        for variant in variants
        if variant not in study.variants
    ]
    found += [
        (
            ("profiles", name, "beside"),
            f"profile '{name}': unknown profile '{other}' in 'beside'; known: {', '.join(study.profiles)}",
        )
        for other in profile.beside
        if other not in study.profiles
    ]
    return found


def _listed(profile: Profile) -> dict[str, Collection[str]]:
    return {"variants": () if profile.variants == "all" else profile.variants}


def _wrong_seeds(name: str, profile: Profile) -> list[Problem]:
    """Find shipped seeds that are not trained, seeds that stand twice, and a pilot's that tables count."""
    where = ("profiles", name)
    seeds = {variant: (*profile.seeds, *further) for variant, further in profile.further_seeds.items()}
    found: list[Problem] = [
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
    return found


def _twice(name: str, profile: Profile) -> list[Problem]:
    """Find what stands twice in a list."""
    lists = {key: getattr(profile, key) for key in ("seeds", "splits", "beside")}
    return [
        (("profiles", name, key), f"profile '{name}': '{value}' stands {count} times in '{key}'; name it once")
        for key, values in (lists | _listed(profile)).items()
        for value, count in Counter(values).items()
        if count > 1
    ]


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
    if profile.live and profile.live.scenes:
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
