#!/bin/sh
# Print the interpreter that is to make .venv: the one that is named, or else the first suitable one on the PATH, or else
# "uv", which fetches one. Without any of them: one line on standard error, and status 1.
# usage: find_python.sh [NAMED]

probe='
import sys
version = sys.version_info[:2]
if not (3, 11) <= version <= (3, 14):
    sys.exit("it is Python %d.%d" % version)
try:
    import ensurepip, venv
except ImportError:
    sys.exit("it lacks venv; on Debian and Ubuntu: apt install python%d.%d-venv" % version)
'

if [ -n "$1" ]; then
    why=$("$1" -c "$probe" 2>&1) && echo "$1" && exit
    case $why in "it "*) ;; *) why="it does not start" ;; esac
    echo "refstudy needs Python 3.11 to 3.14, and PYTHON=$1 does not suit: $why" >&2
    exit 1
fi
for python in python3 python3.13 python3.12 python3.11 python3.14; do
    "$python" -c "$probe" >/dev/null 2>&1 && echo "$python" && exit
done
uv --version >/dev/null 2>&1 && echo uv && exit
echo "refstudy needs Python 3.11 to 3.14 with venv, and found none." \
    "Debian, Ubuntu: apt install python3-venv (Ubuntu 22.04: python3.11-venv); macOS: brew install python@3.13;" \
    "anywhere: install uv, which fetches one. Then call make again, or name one: make PYTHON=/path/to/python3.12 setup" >&2
exit 1
