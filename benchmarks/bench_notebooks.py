"""What each notebook of the study cost when it was last executed here: from the journals that `make study` leaves.

``cpu_s`` is what its kernel used, loading PyTorch and the libraries included, ``seconds`` the clock, with as many
notebooks at once as the machine has cores.
"""

from pathlib import Path

from measure import write

from refstudy.base.files import JOURNAL_SUFFIX
from refstudy.base.provenance import processor
from refstudy.engine.journal import read_journal

NOTEBOOKS = Path(__file__).resolve().parents[1] / "results" / "scenes" / "notebooks"


def main() -> None:
    rows = []
    for path in sorted(NOTEBOOKS.glob(f"*{JOURNAL_SUFFIX}")):
        noted = read_journal(path)
        if noted and (found := noted.provenance())["cpu_seconds"] and found["device"] == processor():
            about = {"notebook": path.name.removesuffix(JOURNAL_SUFFIX), "cpu_s": round(found["cpu_seconds"])}
            rows.append(about | {"seconds": round(found["seconds"]), "peak_MB": found["peak_memory_mb"]})
    if rows:
        rows.append({"notebook": "all", "cpu_s": sum(row["cpu_s"] for row in rows), "seconds": "", "peak_MB": ""})
        write("notebooks", rows)
    else:
        print("no notebook was executed on this machine; `make study` does that")


if __name__ == "__main__":
    main()
