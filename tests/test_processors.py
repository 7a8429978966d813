"""The tests that compute, once more as other processors compute: with other instructions, with more threads, and with
noise of the size of rounding. Each setting is for processes of its own, in which PyTorch has not started yet."""

import os
import subprocess
import sys

import pytest

from .helpers import ROOT

SETTINGS = [
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"MKL_CBWR": "COMPATIBLE"},
    {"TEST_THREADS": "2"},
    {"TEST_THREADS": "4"},
    {"TEST_NOISE": "1"},
]


@pytest.mark.long
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "=".join(*setting.items()))
def test_what_computes_holds(setting):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "numeric and not long"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | setting, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
