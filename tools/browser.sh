#!/bin/sh
# Install what the browser tests of the report need: Debian's Chromium, Playwright's library and axe-core.
set -e
cd "$(dirname "$0")/.."
command -v chromium >/dev/null || apt-get install --yes --quiet --no-install-recommends chromium
.venv/bin/uv pip install --quiet --python .venv/bin/python --editable ".[browser]"
npm install --silent --no-save --no-audit --no-fund axe-core@4
