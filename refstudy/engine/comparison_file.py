"""The study file of a comparison: it names your own class, and is written before PyTorch is loaded."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from refstudy.base.config import PARTS, PartConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write, write_text
from refstudy.base.yaml_files import read_yaml
from refstudy.models.own_parts import is_own, source_of
from refstudy.study.file import ProfileStudy, Variant
from refstudy.study.load import load_study
from refstudy.study.parts import ARGUMENTS, named_part, needed_arguments

Sources = Mapping[Path, Path]  # the file from which a class is loaded -> the one that its author edits


class Written(NamedTuple):
    """A comparison's study file under its profile: the variant ``own``, the seeds ``planned`` for it, the variants to
    compare it ``against`` (none: the usual ones), and the ``sources`` of its classes."""

    study: ProfileStudy
    own: str
    planned: tuple[int, ...]
    against: tuple[str, ...]
    sources: Sources


def write_study(
    source: str,
    decoder: str,
    against: Sequence[str],
    seeds: int,
    flavour: str,
    profile: str,
    output: Path | None,
    study: Path | str,
) -> Written:
    """Write the study file of a comparison, and a copy of the class's file next to it.

    Args:
        source: ``file.py:Class``, a fusion module or a decoder; or a fusion module of the package, a variant of
            ``study``, or a study file that adds one variant.
        decoder: that of a fusion module: one of the package, or ``file.py:Class``. A decoder stands after S²RM.
        flavour: a data set; of ``profile`` and those named in its ``beside``, the first that has it is taken. Empty:
            ``profile`` itself.
        output: the comparison's folder; None: ``comparisons/NAME`` here.

    Raises StudyError for a class that is not there, and for unknown variants, profiles and flavours.
    """
    is_file = source.endswith((".yaml", ".yml"))
    base = load_study(source if is_file else study)
    content = read_yaml(base.path).content
    shared = load_study(base.path.parent / content["extends"]) if "extends" in content else base
    if is_file:
        if not (named := list(content.get("variants", ()))):
            raise StudyError(f"{base.path}: has no variant of its own to compare; add one under 'variants'")
        source, *others = named
        if others:
            raise StudyError(f"{base.path}: several variants; name one: refstudy compare {source} --study {base.path}")
    flavours = {name: shared.profile(name).data.dataset for name in shared.together(profile)}
    if not (names := [name for name, dataset in flavours.items() if flavour in ("", dataset)]):
        there = ", ".join(dict.fromkeys(flavours.values()))
        raise StudyError(f"--flavour {flavour}: no profile beside '{profile}' has these data; known: {there}")
    given = shared.under(names[0])
    for one in against:
        given.config(one)
    known = source in base.variants and not is_own(decoder)
    name, variant = (source, base.variants[source]) if known else _own_variant(source, decoder)
    name = f"{name}_own" if name in shared.variants else name
    folder = (output or Path("comparisons") / name).resolve()
    entry: dict[str, Any] = variant.model_dump(mode="json", exclude_defaults=True, exclude={"tables"})
    sources: dict[Path, Path] = {}
    for kind in PARTS:
        part: PartConfig | None = getattr(variant, kind)
        if part is not None and is_own(part.name):
            path, (place, _, own) = source_of(part.name, part.source).resolve(), part.name.rpartition(":")
            copied = place.endswith(".py")  # a module of a package may need others of it
            copy = folder / path.name if copied else path
            if sources.setdefault(copy, path) != path:
                raise StudyError(f"{sources[copy]} and {path}: two files are called {path.name}; rename one")
            entry[kind] = entry[kind] | {"name": f"{path.name}:{own}" if copied else part.name}
            entry[kind].pop("source")
    for copy, path in sources.items():
        if copy.resolve() != path:
            with atomic_write(copy) as temporary:
                shutil.copyfile(path, temporary)
    file = {"extends": str(shared.path), "home": ".", "variants": {name: entry}}
    write_text(folder / "study.yaml", yaml.safe_dump(file, sort_keys=False, allow_unicode=True))
    under = load_study(folder / "study.yaml").under(names[0], given.folder)
    further = (seed for seed in count(max(given.settings.seeds) + 1) if seed not in given.settings.pilot)
    planned = tuple(islice(chain(given.settings.seeds, further), seeds))
    return Written(under, name, planned, tuple(dict.fromkeys(against)), sources)


def _own_variant(source: str, decoder: str) -> tuple[str, Variant]:
    """A name and the variant of a fusion module and a decoder, either of which may be a class of your own."""
    if is_own(source) and needed_arguments(named_part(source)[0]) == ARGUMENTS["decoder"]:
        source, decoder = "s2rm", source
    parts = {}
    for kind, name in (("fusion", source), ("decoder", decoder)):
        if not is_own(name) and name not in PARTS[kind]:
            raise StudyError(f"'{name}': no {kind}; name a class as file.py:Class, or one of {', '.join(PARTS[kind])}")
        parts[kind] = named_part(name)[0]
    own, drawn = (name.rpartition(":")[2] for name in (source, decoder))
    label = " + ".join(last if is_own(name) else name.upper() for last, name in ((own, source), (drawn, decoder)))
    return own.lower() + ("" if decoder == "fpn" else f"_{drawn.lower()}"), Variant(label=label, **parts)
