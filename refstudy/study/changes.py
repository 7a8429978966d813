"""Settings that a command line changes by ``--set KEY=VALUE``."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from refstudy.base.config import SHARED, RunConfig
from refstudy.base.errors import StudyError
from refstudy.base.yaml_files import said

ELSEWHERE = {"variant": "--variant", "seed": "--seed"} | {f"model.{name}": f"--set data.{name}" for name in SHARED}


def parse_changes(settings: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Read ``key=value`` texts of an option, the value as YAML. Raises StudyError for anything else."""
    changes = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            changes[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise StudyError(f"{option} {setting}: the value is not YAML; write key=value") from error
        if not equals or not key:
            raise StudyError(f"{option} {setting}: write key=value")
    return changes


def with_changes(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The settings of a run with some replaced: key as in the ``config`` of a record, e.g. "train.epochs" -> value.
    What the model shares with the data follows the data. Raises StudyError for a key or a value that no run can have.
    """
    settings = config.model_dump()
    for key, value in changes.items():
        if key in ELSEWHERE:
            raise StudyError(f"--set {key}: give {ELSEWHERE[key]} in its place")
        *sections, name = key.split(".")
        part: Any = settings
        for section in sections:
            part = part.get(section) if isinstance(part, dict) else None
        new = sections and sections[-1] in ("options", "scenes")  # a part has more options than a variant names
        if not isinstance(part, dict) or (name not in part and not new):
            meant = [f"{section}.{name}" for section in ("train", "data") if name in settings[section]]
            known = ", ".join(meant or (part if isinstance(part, dict) else settings))
            raise StudyError(f"--set {key}: no such setting of a run; known: {known}")
        if not sections and isinstance(part[name], dict):
            raise StudyError(f"--set {key}: is a whole section; name one of its keys, as in data.image_size=64")
        part[name] = value
    settings["model"] |= {name: settings["data"][name] for name in SHARED}
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise StudyError("\n".join(f"--set {said(e['loc'], e['msg'])}" for e in error.errors())) from error
