"""Memory of tensors on the CPU: what is freed is kept for the next ones, until it is returned."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 32 << 20  # bytes; the most that glibc takes for the second
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 32 MiB for what comes next; whether there is a glibc to do so.

    By itself it returns them to the system, which clears every page when it hands it out again; the maps of a training
    step come and go. Nothing that is computed changes. ``benchmarks/bench_allocation.py`` measures what it saves.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(parameter, value) for parameter, value in ((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, NEVER))
    )


def return_freed_memory() -> None:
    """Return what glibc keeps of freed blocks to the system, where there is a glibc."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
