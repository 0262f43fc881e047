"""Our modules inside of a bundle, as a package of its own."""

from __future__ import annotations

from pathlib import Path

SUFFIX = "_scripts"


def own_scripts(bundle: Path) -> str | None:
    """The package of a bundle whose files are what this installation would put there; None where there is none."""
    del bundle
    return None
