"""`bundle list`, `info` and `path`: bundles on disk."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from brats_pipeline.cli.options import Json
from brats_pipeline.cli.printing import print_table


def bundle_list(as_json: Json = False) -> int:
    """The bundles that come with this installation."""
    from brats_pipeline.bundles import list_bundles, read_metadata, weights_path

    rows = [
        [path.name, read_metadata(path)["version"], "yes" if weights_path(path).is_file() else "no", str(path)]
        for path in list_bundles()
    ]
    header = ["bundle", "version", "weights", "path"]
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows]))  # noqa: T201
    else:
        print_table(header, rows)
    return 0


def bundle_info(name: Annotated[str, typer.Argument(help="Name or folder.")]) -> int:
    """What a bundle says of itself (metadata.json)."""
    from brats_pipeline.bundles import bundle_path, read_metadata

    print(json.dumps(read_metadata(bundle_path(name)), indent=2))  # noqa: T201
    return 0


def bundle_path_command(name: Annotated[str, typer.Argument(help="Name or folder.")]) -> int:
    """Where a bundle lies, for `--bundle_root`."""
    from brats_pipeline.bundles import bundle_path

    print(bundle_path(name))  # noqa: T201
    return 0
