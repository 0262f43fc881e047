"""What a prediction was made from: the files of a case, recognised by path, size and time of change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.cases import Case, Source
from brats_pipeline.cases.stacks import is_stack


def inputs_of(case: Case, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Modality to the origin and the state of its files, as JSON-able values.

    Args:
        case: what is segmented.
        wanted: the modalities that matter; those that the case lacks are left out.

    Returns:
        Of each modality ``path`` (the file, or the folder of slices), ``channel``, and ``listing_sha256`` (of the
        names, sizes and times of change of the files). No file is read.
    """
    return {name: _state(case.images[name]) for name in wanted if name in case.images}


def _state(source: Source) -> dict[str, Any]:
    first = source.paths[0].resolve()
    listing = "\n".join(map(_line, source.paths))
    return {
        "path": str(first.parent if is_stack(source) else first),
        "channel": source.channel,
        "listing_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def _line(path: Path) -> str:
    try:
        told = path.stat()
    except OSError:  # a file that is not there any more; whoever reads it says so
        return f"{path.name} absent"
    return f"{path.name} {told.st_size} {told.st_mtime_ns}"


def other_origin(recorded: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Where a recorded case came from, if that is another place than where it comes from now.

    Files that were replaced where they lie keep their origin.
    """
    for name in recorded.keys() & now.keys():
        if recorded[name]["path"] != now[name]["path"]:
            return str(recorded[name]["path"])
    return None
