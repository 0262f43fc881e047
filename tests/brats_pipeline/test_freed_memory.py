"""The kernel is the oracle: pages that it has to hand out are counted as faults of the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from brats_pipeline.freed_memory import keep_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
BLOCK = 64 * 2**20
IN_A_PROCESS = f"""
import ctypes, resource
from pathlib import Path
from brats_pipeline.freed_memory import keep_freed_memory, kept_bytes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc({BLOCK})
    ctypes.memset(block, 1, {BLOCK})
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
faults()
given_back = faults()
kept = keep_freed_memory()
faults()
start = resident()
print(given_back, kept, faults(), kept_bytes(), keep_freed_memory(False), start - resident(), faults())
"""


@glibc
def test_a_block_that_was_freed_is_there_for_the_next_one() -> None:
    run = subprocess.run([sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, check=True)
    pages = BLOCK // 4096
    by_default, kept, while_kept, kept_bytes, still, given_back, afterwards = run.stdout.split()
    assert (kept, still) == ("True", "False")
    # Where the kernel hands out large pages, faults are fewer than pages of 4 KiB, and still none while kept.
    assert int(by_default) > pages // 600
    assert int(while_kept) < int(by_default) / 10
    assert int(afterwards) > int(by_default) / 2
    assert int(kept_bytes) >= BLOCK
    assert int(given_back) >= BLOCK * 0.9


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from brats_pipeline import freed_memory

    freed_memory._glibc.cache_clear()
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    try:
        assert keep_freed_memory() is False
        assert freed_memory.kept_bytes() == 0
    finally:
        freed_memory._glibc.cache_clear()
