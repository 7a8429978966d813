"""Run every benchmark, the quickest first, and renew the pages: `make bench`.

One that fails does not stop the others. When this is cut off, the next call goes on with those that had not ended;
`.took.json` keeps what ended, and the seconds that each took the last time, which give the order.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from refstudy.base.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
TOOK = ROOT / "benchmarks" / ".took.json"
LONG = ("prompt", "runs", "core_hours", "cluster", "peers")  # last, where no time is known: many processes or trainings


def keep(last: dict[str, int], ended: dict[str, int]) -> None:
    with atomic_write(TOOK) as temporary:
        temporary.write_text(json.dumps([last, ended]), encoding="utf-8")


def main() -> None:
    last, ended = json.loads(TOOK.read_text(encoding="utf-8")) if TOOK.exists() else ({}, {})
    names = [path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")]
    for name in sorted(names, key=lambda name: (last.get(name, 1e6 if name in LONG else 0), name)):
        if name in ended:
            print(f"{name}: ended before this call; left as it is")
            continue
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        status = subprocess.run([sys.executable, f"benchmarks/bench_{name}.py"], cwd=ROOT, check=False).returncode
        last[name], ended[name] = round(time.monotonic() - start), status
        keep(last, ended)
    keep(last, {})
    page = subprocess.run([sys.executable, "benchmarks/page.py"], cwd=ROOT, check=False).returncode
    for name, status in ended.items():
        print(f"{last[name]:6} s  {name}" + f"  failed with status {status}" * bool(status))
    sys.exit(page or any(ended.values()))


if __name__ == "__main__":
    main()
