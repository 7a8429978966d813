"""The circumstances of a result: commit, versions, device, and the memory that was used.

Nothing heavy is imported: of torch only what its process has loaded already is asked.
"""

import ctypes
import os
import platform
import re
import resource
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "timm", "transformers", "numpy", "pillow", "pycocotools")


def code_version() -> dict[str, Any]:
    """The commit, and ``uncommitted_changes`` to files other than results; empty and False outside the package's own
    repository: one around an installed package is another's."""
    if Path(_git("rev-parse", "--show-toplevel")) != Path(__file__).resolve().parents[2]:
        return {"commit": "", "uncommitted_changes": False}
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")
    return {"commit": _git("rev-parse", "HEAD"), "uncommitted_changes": bool(changes)}


def _git(*arguments: str) -> str:
    try:
        command, here = ("git", *arguments), Path(__file__).parent
        return subprocess.check_output(command, cwd=here, stderr=subprocess.DEVNULL).decode(errors="replace").strip()
    except (OSError, subprocess.CalledProcessError):
        return ""  # an installed package has no repository around it


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that numbers depend on."""
    return {name: metadata.version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def processor() -> str:
    """The name of this machine's processor."""
    return _stated("/proc/cpuinfo", r"model name\s*: *(.+)") or platform.processor() or platform.machine()


def _stated(path: str, line: str) -> str:
    """The group of a regular expression in the first line of a file that it matches; empty without file or line."""
    with suppress(OSError):
        found = re.search(f"^{line}$", Path(path).read_text(encoding="utf-8"), re.MULTILINE)
        return found[1].strip() if found else ""
    return ""


def peak_memory() -> dict[str, int]:
    """The most memory that this process has held so far, in MiB: ``peak_memory_mb`` and, where it has used a GPU,
    ``peak_gpu_memory_mb``, of PyTorch's tensors there. Processes that it started are not counted."""
    # ru_maxrss is the last resort: it includes the parent process
    peak = int(_stated("/proc/self/status", r"VmHWM:\s*(\d+) kB") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    cuda = _used_cuda()
    return {"peak_memory_mb": peak >> 10} | ({"peak_gpu_memory_mb": cuda.max_memory_allocated() >> 20} if cuda else {})


def forget_peak_memory() -> None:
    """Let ``peak_memory`` count from now on, if the system allows it; freed memory is returned first."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps freed blocks
        trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM: proc(5)
    if cuda := _used_cuda():
        cuda.reset_peak_memory_stats()


def usage() -> dict[str, Any]:
    """The machine and the use of this process so far: versions, device (a GPU, if it has used one), CPU seconds, those
    of processes that it started and that have ended among them, and peak memory."""
    cuda = _used_cuda()
    about = {"versions": versions(), "device": cuda.get_device_name() if cuda else processor()}
    return about | {"cpu_seconds": round(sum(os.times()[:4]), 1)} | peak_memory()


def _used_cuda() -> Any:
    """``torch.cuda``, where this process has used it."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda and cuda.is_initialized() else None
