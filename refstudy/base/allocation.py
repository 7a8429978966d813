"""Memory: measure how much an action takes; keep freed memory for the next tensors; make many objects at once."""

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

os.environ.setdefault("KINETO_LOG_LEVEL", "7")  # the profiler would write a line at each start and end

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
NEVER, LARGEST = 2**31 - 1, 32 << 20  # bytes; LARGEST is the most that glibc takes for the second


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 32 MiB for the next tensors; return False without glibc.

    Otherwise glibc returns them to the system, which clears every page before it gives it out again, at each training
    step. Results do not change. ``benchmarks/bench_allocation.py`` measures what it saves.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, NEVER))


@contextmanager
def without_collecting() -> Iterator[None]:
    """Do not look for garbage within the block: reading annotations makes millions of objects, and Python would go
    through them again and again, a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def added_megabytes(action: Callable[[], object]) -> float:
    """The most memory, in MiB, that PyTorch holds during ``action`` beyond what it held before.

    On a GPU the allocator counts it; on a CPU the profiler lists every allocation and its end.
    """
    import torch  # here, since reading data needs none of it
    from torch.profiler import ProfilerActivity, profile

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    held = most = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20
