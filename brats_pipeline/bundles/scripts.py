"""Our modules inside of a bundle, as a package of its own: made for an export, and known again when it comes back."""

from __future__ import annotations

import re
from pathlib import Path

import brats_pipeline
from brats_pipeline.bundles.vendoring import module_file, vendored
from brats_pipeline.errors import PipelineError

SUFFIX = "_scripts"


def package_name(bundle_name: str) -> str:
    """``"brats_glioma_3d"`` to ``"brats_glioma_3d_scripts"``: two bundles in one process must not share the name."""
    plain = re.sub(r"\W+", "_", bundle_name, flags=re.ASCII).strip("_").lower() or "bundle"
    return ("_" if plain[0].isdigit() else "") + plain + SUFFIX


def own_scripts(bundle: Path) -> str | None:
    """The package of a bundle whose every file is what this installation would put there; None where there is none."""
    packages = [path for path in bundle.iterdir() if path.is_dir() and path.name.endswith(SUFFIX)]
    if len(packages) != 1 or not packages[0].name.isidentifier():
        return None
    (folder,) = packages
    found = {path.relative_to(bundle).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    modules = [module for name in found if (module := _module(name)) is not None]
    try:
        expected = vendored(modules, folder.name, version=brats_pipeline.__version__)
        same = {name: path.read_text(encoding="utf-8") for name, path in found.items()} == expected
    except (OSError, ValueError, PipelineError):
        return None
    return folder.name if same else None


def _module(name: str) -> str | None:
    """The module of ours that a file of a bundle's package would be a copy of; None for those of the package itself."""
    parts = name.removesuffix(".py").removesuffix("/__init__").split("/")[1:]
    module = ".".join(parts)
    return module if len(parts) > 1 and module_file(module) is not None else None
