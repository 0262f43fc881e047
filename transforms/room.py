"""Whether what a file will take fits into memory, asked before it is read. Standard library only."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from brats_pipeline.errors import PipelineError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
GROUPS = (
    ("", "memory.max", "memory.current", ""),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Of cgroup v2 and v1: folder, files with the limit and with what is used, and how names in ``memory.stat`` begin."""


def free_bytes() -> int | None:
    """What this process can still take without swapping; None where nobody tells.

    That is what the machine has, or the limit of a container or a batch job less what is used there. Files that were
    read stay in memory until it is wanted for something else, so they do not count as used.
    """
    sizes = []
    with suppress(OSError, StopIteration, ValueError, IndexError):
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        sizes.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    for folder, limit, used, prefix in GROUPS:
        with suppress(OSError, ValueError):
            most, taken = (int((CGROUP / folder / name).read_text(encoding="ascii")) for name in (limit, used))
            taken -= _held_of_files(CGROUP / folder / "memory.stat", prefix)
            sizes.append(max(0, most - max(0, taken)))
    return min(sizes, default=None)


def _held_of_files(stat: Path, prefix: str) -> int:
    """Bytes of files that a group keeps in memory; 0 where nobody tells."""
    with suppress(OSError, ValueError):
        sizes = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines())
        return sum(int(sizes.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
    return 0


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
