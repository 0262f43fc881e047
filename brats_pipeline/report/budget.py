"""How much of a large cohort a report can show and still open: scans are heavy, tables are not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

LARGEST_BYTES = 20_000_000
"""A report stays below this size, whatever the cohort, unless its tables alone exceed it."""
ROW_BYTES = 700
"""What a region of a case takes in the tables, tags included."""
PAGE_BYTES = 100_000
"""What the page takes beside tables, figures, scans and the viewer."""


class Shown(Protocol):
    """What is asked of a case's page."""

    @property
    def case_id(self) -> str: ...
    @property
    def size(self) -> int: ...


Page = TypeVar("Page", bound=Shown)


def encoded(size: int) -> int:
    """Characters of base64 that so many bytes take."""
    return 4 * -(-size // 3)


def within_budget(pages: Sequence[Page], notable: Collection[str], *, room: int) -> list[Page]:
    """The cases whose scans fit, in their order: the notable ones always, then the first of the others.

    Args:
        pages: of the cases, the most interesting first.
        notable: ids of those that are shown whatever they take.
        room: bytes that there are for scans.
    """
    room -= sum(page.size for page in pages if page.case_id in notable)
    chosen = []
    for page in pages:
        if page.case_id not in notable:
            if page.size > room:
                room = 0  # the first that does not fit is the last: no easier case slips in for being smaller
                continue
            room -= page.size
        chosen.append(page)
    return chosen
