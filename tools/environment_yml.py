"""Write environment.yml from requirements.lock: the same pins, hashes left out, since pip allows no editable package
beside hashes."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# For conda users; others need only `make setup`. `make lock` writes it: all pins of requirements.lock.
name: refstudy
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def pins(lock: str) -> list[str]:
    """The requirements of a lock file, without hashes."""
    return [re.sub(r"\s*\\$", "", line) for line in lock.splitlines() if line and not line[0].isspace()]


def main() -> None:
    lines = [*pins((ROOT / "requirements.lock").read_text(encoding="utf-8")), "--editable ."]
    (ROOT / "environment.yml").write_text(HEAD + "".join(f"      - {line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
