"""What a written page states, read back: the lines of its Markdown and the cells of its tables."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class _Cells(HTMLParser):
    """Collects the text of every cell of every table."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("td", "th"):
            self.cells.append("")
            self._inside = True
        elif tag in ("tr", "table"):
            self._inside = False

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "table"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def stated(page: Path) -> list[str]:
    """What a page says in figures, piece by piece; nothing where there is no such page.

    Args:
        page: ``.md``: its lines but the last one, which holds versions; ``.html``: the cells of its tables.
    """
    if not page.is_file():
        return []
    text = page.read_text(encoding="utf-8", errors="replace")
    if page.suffix == ".md":
        return text.rstrip().splitlines()[:-1]
    parser = _Cells()
    parser.feed(text)
    return [" ".join(cell.split()) for cell in parser.cells]
