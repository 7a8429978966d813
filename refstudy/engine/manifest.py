"""The manifest of a profile's results: which notebook wrote each table and figure, from which run records and data;
and when, at which commit, on what and with which versions each notebook last changed one of them.

It joins the notebooks' journals (``refstudy.engine.journal``) with the files that lie there now. Equal results leave it
as it is: a file with the bytes of the earlier manifest keeps its origin, and a notebook that changed no file keeps its
circumstances. A file whose bytes no journal wrote has no notebook.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refstudy.base.errors import StudyError
from refstudy.base.files import JOURNAL_SUFFIX, file_digest, write_text
from refstudy.engine.journal import Journal, read_journal
from refstudy.study.file import ProfileStudy

if TYPE_CHECKING:
    from nbformat import NotebookNode

FILE_NAME = "manifest.json"
KINDS = {"tables": ("csv",), "figures": ("svg", "png")}
UNKNOWN: dict[str, Any] = {"notebook": None, "section": "", "caption": "", "records": [], "data": []}


def executed_notebooks(results: Path) -> list[Path]:
    """The notebooks of a results folder that ran to their end."""
    found = (results / "notebooks").glob("*.ipynb")
    return sorted(path for path in found if not path.name.startswith(".") and not path.stem.endswith(".failed"))


def read_manifest(results: Path) -> dict[str, Any]:
    """The manifest of a results folder; an empty one where there is none yet. Raises StudyError for a broken one."""
    path = results / FILE_NAME
    empty: dict[str, Any] = {kind: {} for kind in KINDS}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty
        entries = [entry for kind in KINDS for entry in manifest[kind].values()]
        if not all(isinstance(entry["files"], dict) for entry in entries):
            raise ValueError("files are named with their digests")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"{path}: no manifest ({error!r}); restore it, or delete it and run again") from error
    return manifest


def write_manifest(study: ProfileStudy) -> dict[str, Any]:
    """Write ``manifest.json`` into a profile's results and return it.

    ``tables`` and ``figures``: stem -> the SHA-256 of its files, their notebook, section and caption there, run records
    and data. ``notebooks``: notebook -> ``refstudy.engine.journal.PROVENANCE`` and the time of the execution that last
    changed one of its files. ``records``: name of a run record -> its data, commit and time.
    """
    from refstudy.training.records import find_records

    folder = study.folder
    earlier = read_manifest(folder)
    kept = ((path, read_journal(path.with_suffix(JOURNAL_SUFFIX))) for path in executed_notebooks(folder))
    journals = {path: journal for path, journal in kept if journal is not None}
    made: dict[str, Any] = {"profile": study.profile, "about": study.settings.about}
    circumstances = dict(earlier.get("notebooks", {}))
    for kind, suffixes in KINDS.items():
        made[kind] = {}
        for stem in sorted({path.stem for suffix in suffixes for path in (folder / kind).glob(f"[!.]*.{suffix}")}):
            files = [path for suffix in suffixes if (path := folder / kind / f"{stem}.{suffix}").exists()]
            digests = {path.name: file_digest(path) for path in files}
            old = earlier[kind].get(stem, {})
            known = old if old.get("files") == digests and old.get("notebook") else {}
            entry = known or UNKNOWN
            if found := _latest(journals, files, digests):
                entry, around = found
                if known:
                    entry |= {key: known[key] for key in ("records", "data")}  # it was made of these first
                else:
                    circumstances[entry["notebook"]] = around
            made[kind][stem] = {"files": digests} | {key: entry.get(key, unknown) for key, unknown in UNKNOWN.items()}
    named = {entry["notebook"] for kind in KINDS for entry in made[kind].values()}
    made["notebooks"] = {name: circumstances[name] for name in sorted(circumstances) if name in named}
    made["records"] = {
        record.path.name: {
            "data": f"{record.config.data.dataset}, {record.config.data.image_size} px",
            "data_fingerprint": record.summary.get("data_fingerprint", ""),
            "sha256": file_digest(record.path / "record.json"),
            **{key: record.provenance().get(key) for key in ("commit", "uncommitted_changes", "started")},
        }
        for record in find_records(folder / "records")
    }
    write_text(folder / FILE_NAME, _text(made))
    return made


def _text(manifest: dict[str, Any]) -> str:
    """JSON with a line for each file, notebook and record."""
    lines = []
    for key, value in manifest.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict) and value:
            inner = (f"  {json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in value.items())
            text = "{\n" + ",\n".join(inner) + "\n }"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _latest(
    journals: dict[Path, Journal], files: list[Path], digests: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The last notebook that wrote all files of a table or figure as they are now, and its circumstances."""
    found = []
    for executed, journal in journals.items():
        times = {
            Path(line["path"]).name: line["time"]
            for line in journal.lines
            if line["action"] == "wrote" and digests.get(Path(line["path"]).name) == line["sha256"]
        }
        if times.keys() == digests.keys():
            found.append((max(times.values()), executed))
    if not found:
        return None
    time, executed = max(found, key=lambda pair: pair[0])
    journal = journals[executed]
    read = [Path(line["path"]) for line in journal.lines if line["action"] == "read" and line["time"] <= time]
    records = sorted({path.name for path in read if path.parent.name == "records"})
    if files[0].suffix == ".csv":
        import pandas as pd

        table = pd.read_csv(files[0])
        if "variant" in table:  # it names its records, and the notebook may have read those of other tables too
            named = set(table["variant"]) | set(table.get("reference", ()))
            records = [name for name in records if name.rsplit("-", 2)[0] in named]
    data = sorted({"/".join(path.parts[-2:]) for path in read if path.parent.name != "records"})
    import nbformat  # reading a manifest needs none of it

    cells = explained(nbformat.read(executed, as_version=4).cells)
    texts = ((section, caption) for cell, section, caption in cells if _ran_at(cell, time))
    section, caption = next(texts, ("", ""))
    around = journal.provenance()
    own = {"notebook": around.pop("notebook"), "section": section, "caption": " ".join(caption.strip("*").split())}
    return own | {"records": records, "data": data}, around | {"time": time[:19]}


def explained(cells: "Sequence[NotebookNode]") -> "Iterator[tuple[NotebookNode, str, str]]":
    """Each code cell, the last heading above it, and the caption right below it; empty where there is none."""
    section = ""
    for cell, below in zip(cells, [*cells[1:], None], strict=True):
        if cell.cell_type == "markdown":
            headings = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            section = (headings or [section])[-1]
        else:
            first = below.source.split("\n\n")[0] if below is not None and below.cell_type == "markdown" else ""
            yield cell, section, first if first.startswith("*") and not first.startswith("**") else ""


def _ran_at(cell: "NotebookNode", time: str) -> bool:
    start, end = (cell.metadata.get("papermill", {}).get(name) for name in ("start_time", "end_time"))
    return bool(start and end) and _moment(start) <= _moment(time) <= _moment(end)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
