"""Whether what a file will take fits into memory, asked before it is read. Standard library only."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from brats_pipeline.errors import PipelineError

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def free_bytes() -> int | None:
    """What this process can still take of the machine or of its container (cgroup v2); None where nobody tells."""
    sizes = []
    with suppress(OSError, StopIteration, ValueError, IndexError):
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        sizes.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        sizes.append(max(0, limit - int((CGROUP / "memory.current").read_text(encoding="ascii"))))
    return min(sizes, default=None)


def check_room(needed: int, what: str) -> None:
    """Refuse what does not fit into memory.

    Args:
        needed: bytes.
        what: begins the message, such as the path of a file.

    Raises:
        PipelineError: says how much is needed and how much there is.
    """
    free = free_bytes()
    if free is not None and needed > free:
        raise PipelineError(
            f"{what}: needs {needed / 2**30:.2f} GiB of memory, {free / 2**30:.2f} GiB are free; check the shape in "
            "its header, or use a machine with more memory"
        )
