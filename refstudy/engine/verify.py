"""Check that the files of a results folder are what the code makes of its records."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from refstudy.analysis.table_files import table_path
from refstudy.base.errors import StudyError
from refstudy.base.files import file_digest
from refstudy.engine.manifest import FILE_NAME, read_manifest
from refstudy.study.file import ProfileStudy, Study

if TYPE_CHECKING:
    import pandas as pd


def verify(study: Study, folder: Path) -> "pd.DataFrame":
    """Compute the tables of a results folder again and compare them, byte for byte, with the files there.

    A row per table and figure; columns: file, and state: "same" as the code makes it now; "differs" or "missing"; for
    what only a notebook can make, since it needs data or weights, "as written" by the notebook that the manifest
    names, or "changed" since. Raises StudyError for a folder without a manifest, or with that of an unknown profile.
    """
    manifest = read_manifest(folder)
    if "profile" not in manifest:
        raise StudyError(f"{folder / FILE_NAME}: not found; name a results folder that `refstudy run` has written")
    study.profile(manifest["profile"])  # is it known?
    under = ProfileStudy(study, manifest["profile"], folder)
    import pandas as pd  # and PyTorch with the next: after what may be refused

    from refstudy.analysis.results import BUILDERS
    from refstudy.analysis.table_files import write_table

    states = {}
    with tempfile.TemporaryDirectory() as scratch:
        for stem, build in BUILDERS.items():
            path = table_path(folder, stem)
            made = write_table(build(under), scratch, stem)
            same = path.exists() and path.read_bytes() == made.read_bytes()
            states[path] = "same" if same else "differs" if path.exists() else "missing"
    for kind in ("tables", "figures"):
        for entry in manifest[kind].values():
            for name, digest in entry["files"].items():
                path = folder / kind / name
                as_written = path.exists() and file_digest(path) == digest
                states.setdefault(path, "as written" if as_written else "changed" if path.exists() else "missing")
    files = [path.relative_to(folder).as_posix() for path in states]
    return pd.DataFrame({"file": files, "state": list(states.values())})
