"""Run records: the settings and results of a training run, small enough to commit.

A record is a folder ``<variant>-seed<seed>-<key>`` with ``record.json`` (settings, data, metrics: equal for equal runs
on one machine), ``curve.csv`` (the learning curve), ``gates.csv`` (the ranges of the gates at each validation, if there
are gates), ``counts.parquet`` (pixel counts per expression), ``masks.json`` (a few predicted masks, for figures) and
``provenance.json`` (when, where, how long, with which versions, in how much memory).
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import ValidationError

from refstudy.base.config import RunConfig, record_name
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_folder, note
from refstudy.base.provenance import code_version, processor, versions
from refstudy.base.yaml_files import said
from refstudy.data.masks import decode_mask
from refstudy.metrics import summarize

Content = TypeVar("Content")
GATE_COLUMNS = ("update", "gate", "low", "mean", "high", "saturated")  # of ``refstudy.models.gates.gate_ranges``
BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what reading a missing or broken file raises


@dataclass(frozen=True)
class Record:
    """A record that was read. ``metrics``: split -> metric -> percent, recomputed from the counts.

    Its methods raise StudyError for a file that is missing or broken.
    """

    path: Path
    config: RunConfig
    summary: dict[str, Any]
    metrics: dict[str, dict[str, float]]

    def counts(self, split: str = "") -> pd.DataFrame:
        """Pixel counts, a row per expression, of one split or of all; see ``refstudy.training.evaluation.evaluate``."""
        counts = self._content("counts.parquet", pd.read_parquet)
        return counts[counts["split"] == split] if split else counts

    def curve(self) -> pd.DataFrame:
        """The learning curve: update, pairs, loss, learning_rate, val_oIoU (empty between validations)."""
        return self._content("curve.csv", pd.read_csv)

    def gates(self) -> pd.DataFrame:
        """The ranges of the gates at each validation: ``GATE_COLUMNS``; empty without gates and in old records."""
        columns = list(GATE_COLUMNS)
        return self._content("gates.csv", lambda path: pd.read_csv(path)[columns], pd.DataFrame(columns=columns))

    def masks(self) -> dict[int, np.ndarray]:
        """The predicted masks in the record: sent_id -> bool (S, S); empty for a record without masks."""

        def read(path: Path) -> dict[int, np.ndarray]:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return {int(sentence): decode_mask(rle, *rle["size"]) for sentence, rle in kept.items()}

        return self._content("masks.json", read, {})

    def provenance(self) -> dict[str, Any]:
        """When, where, how long, with which versions, in how much memory."""
        return self._content("provenance.json", lambda path: dict(json.loads(path.read_text(encoding="utf-8"))))

    def _content(self, name: str, read: Callable[[Path], Content], absent: Content | None = None) -> Content:
        path = self.path / name
        if absent is not None and not path.exists():
            return absent
        try:
            return read(path)
        except BROKEN as error:
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            raise StudyError(f"{path}: unreadable ({first}); restore it or train again") from error


def write_record(
    records: Path | str,
    config: RunConfig,
    summary: dict[str, Any],
    curve: pd.DataFrame,
    counts: pd.DataFrame,
    provenance: dict[str, Any],
    masks: dict[int, dict[str, Any]] | None = None,
    gates: pd.DataFrame | None = None,
) -> Path:
    """Write a record folder under ``records``, whole or not at all; an older one of the same name is replaced."""
    folder = Path(records) / record_name(config)
    content = {"key": config.key(), "config": config.model_dump(mode="json"), "metrics": _metrics(counts)} | summary
    with atomic_folder(folder) as new:
        (new / "record.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (new / "provenance.json").write_text(json.dumps(provenance, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        curve.to_csv(new / "curve.csv", index=False, float_format="%.6g", lineterminator="\n")
        counts.reset_index(drop=True).to_parquet(new / "counts.parquet", compression="zstd", index=False)
        if gates is not None and len(gates):
            gates.to_csv(new / "gates.csv", index=False, float_format="%.6g", lineterminator="\n")
        if masks:
            (new / "masks.json").write_text(json.dumps(masks, indent=0) + "\n", encoding="utf-8")
    note("wrote", folder)
    return folder


def read_record(folder: Path | str) -> Record:
    """Read and check one record folder. Raises StudyError when a file is missing, broken, or was edited by hand."""
    folder = Path(folder)
    try:
        record = _checked(folder, *((folder / name).read_bytes() for name in ("record.json", "counts.parquet")))
    except StudyError:
        raise
    except BROKEN as error:
        first, remedy = str(error).partition("\n")[0], f"restore it, or train it anew by `{_again(folder)}`"
        if isinstance(error, ValidationError):
            fault = error.errors()[0]
            first = said(("config", *fault["loc"]), fault["msg"])
            if fault["type"] == "extra_forbidden":
                remedy = "a newer refstudy wrote it; update refstudy"
        raise StudyError(f"{folder}: unreadable run record ({first}); {remedy}") from error
    note("read", folder)
    return record


def _again(folder: Path) -> str:
    """The command that trains the run of a record folder again, by the folder's name and place."""
    variant, _, rest = folder.name.rpartition("-seed")
    profile, seed = folder.absolute().parents[1].name, rest.partition("-")[0]
    return f"refstudy train --profile {profile} --variant {variant} --seed {seed} --again"


@lru_cache(maxsize=1024)  # pooling seeds reads every record, for every table
def _checked(folder: Path, about: bytes, pixels: bytes) -> Record:
    """``read_record`` of a folder whose record.json and counts.parquet hold these bytes."""
    content = json.loads(about)
    config = RunConfig.model_validate(content.pop("config"))
    metrics = _metrics(pd.read_parquet(BytesIO(pixels)))
    follows, key = _alike(content.pop("metrics"), metrics), content.pop("key")
    if key != config.key() or not follows:
        what, path = "key" if key != config.key() else "metrics", folder / "record.json"
        raise StudyError(f"{path}: {what} does not follow from its contents; restore it or train again")
    return Record(folder, config, content, metrics)


def _metrics(counts: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Split -> metric -> percent, of pixel counts."""
    splits = counts.groupby("split", sort=True)
    return {str(split): summarize(rows["intersection"], rows["union"]) for split, rows in splits}


def _alike(stated: dict[str, dict[str, float]], found: dict[str, dict[str, float]]) -> bool:
    """Tell if these metrics are equal up to the last bits: another NumPy may sum differently."""
    one, other = ({(split, name): of[name] for split, of in each.items() for name in of} for each in (stated, found))
    return one.keys() == other.keys() and all(math.isclose(one[key], other[key], rel_tol=1e-9) for key in one)


def find_records(records: Path | str) -> list[Record]:
    """All records under a folder, by name; none when there is no such folder."""
    found = (path.parent for path in sorted(Path(records).glob("*/record.json")))
    return [read_record(folder) for folder in found if not folder.name.startswith(".")]  # of a writer that was ended


def find_record(records: Path | str, config: RunConfig) -> Record | None:
    """Find the record of exactly these settings, if there is one."""
    folder = Path(records) / record_name(config)
    if (folder / "record.json").exists():
        return read_record(folder)
    note("missed", folder)
    return None


def circumstances() -> dict[str, Any]:
    """The circumstances of a run: commit, versions, machine."""
    import torch  # reading a record needs none of it

    return code_version() | {
        "versions": versions(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        "threads": torch.get_num_threads(),
    }
