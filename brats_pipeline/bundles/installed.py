"""Where bundles lie, and what they say of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from transforms.labels import MODALITIES

WEIGHTS = "weights"
"""Key of the metadata of a bundle that comes with weights: their ``sha256`` and ``licence``."""
HERE = Path(__file__).resolve().parent.parent


def bundles_folder() -> Path:
    """The folder of the bundles that come with this distribution: inside a wheel, else beside the package."""
    packed = HERE / "_bundles"
    return packed if packed.is_dir() else HERE.parent / "bundles"


def list_bundles() -> list[Path]:
    """The bundles that come with this distribution, by name."""
    return sorted(path.parent.parent for path in bundles_folder().glob("*/configs/metadata.json"))


def bundle_path(name: str | Path) -> Path:
    """Folder of a bundle or run.

    Args:
        name: a bundle that comes with this distribution, or the path of a folder that holds one.

    Raises:
        PipelineError: neither; the message lists the known names.
    """
    known = {path.name: path for path in list_bundles()}
    if str(name) in known:
        return known[str(name)]
    path = Path(name)
    if (path / "configs" / "metadata.json").is_file():
        return path.resolve()
    raise PipelineError(
        f"unknown bundle {str(name)!r}: it is neither a folder with configs/metadata.json nor one of "
        f"{', '.join(known) or 'the installed bundles (none found)'}"
    )


def weights_path(bundle: Path) -> Path:
    """Where a bundle keeps its weights, present or not."""
    return bundle / "models" / "model.pt"


def read_metadata(bundle: Path) -> dict[str, Any]:
    """The bundle's ``metadata.json``.

    Raises:
        PipelineError: it is no JSON object.
    """
    path = bundle / "configs" / "metadata.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path}: cannot be read as JSON ({error}); restore the bundle") from error
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: holds a {type(content).__name__}, a JSON object is needed; restore the bundle")
    return content


def weights_licence(bundle: Path) -> str | None:
    """Under what terms the weights of a bundle stand; None where it does not say, as in a run of one's own."""
    told = read_metadata(bundle).get(WEIGHTS)
    licence = told.get("licence") if isinstance(told, dict) else None
    return licence if isinstance(licence, str) else None


def bundle_for(layouts: Sequence[str]) -> Path:
    """The bundle with weights that segments these layouts.

    Raises:
        PipelineError: none has weights; the message says how to get some.
    """
    fitting = [path for path in list_bundles() if set(layouts) <= set(read_metadata(path).get("layouts", ()))]
    for path in fitting:
        if weights_path(path).is_file():
            return path
    names = ", ".join(path.name for path in fitting) or "none"
    left_out = [path for path in fitting if WEIGHTS in read_metadata(path)]
    if left_out:
        first = left_out[0]
        told = read_metadata(first)[WEIGHTS]
        raise PipelineError(
            f"the weights of {first.name} are not part of this installation ({weights_path(first)} is not there): they "
            f"come with the source code, in bundles/{first.name}/models/model.pt "
            f"(sha256 {told.get('sha256', 'unknown')}, {told.get('licence', 'terms unknown')}); get the repository and "
            f"give --bundle REPOSITORY/bundles/{first.name}, or train with `brats-pipeline train` and give --bundle RUN"
        )
    raise PipelineError(
        f"no bundle with weights segments the layout {', '.join(layouts)} (bundles for it: {names}); train one with "
        "`brats-pipeline train BUNDLE --data DATA -o RUN`, then give --bundle RUN"
    )


def network_overlay(bundle: Path, name: str) -> dict[str, Any]:
    """What ``configs/networks/<name>.yaml`` of a bundle puts in the place of its network.

    Raises:
        PipelineError: the bundle has no such network; the message lists those it has.
    """
    import yaml

    folder = bundle / "configs" / "networks"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise PipelineError(f"{bundle.name} has no network {name!r}; known: {', '.join(known) or 'none'} ({folder})")
    content: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def wanted_modalities(bundle: Path, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """The modalities that a bundle's network is fed, in the order of its channels.

    Raises:
        PipelineError: the configuration does not say, or names a modality that does not exist.
    """
    import yaml

    path = bundle / "configs" / "inference.yaml"
    try:
        names = overrides.get("modalities", yaml.safe_load(path.read_text(encoding="utf-8"))["modalities"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise PipelineError(f"{path}: does not list the modalities ({error}); restore the bundle") from error
    if not isinstance(names, list) or not names or not set(names) <= set(MODALITIES) or len(set(names)) < len(names):
        raise PipelineError(f"modalities are {names!r}; name some of {', '.join(MODALITIES)}, each once")
    return tuple(names)


def written_regions(bundle: Path, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """The regions that a bundle's network marks.

    Raises:
        PipelineError: the configuration does not say.
    """
    import yaml

    path = bundle / "configs" / "inference.yaml"
    try:
        names = overrides.get("regions", yaml.safe_load(path.read_text(encoding="utf-8"))["regions"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise PipelineError(f"{path}: does not list the regions ({error}); restore the bundle") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PipelineError(f"regions are {names!r}; give a list of names such as [TC, WT, ET]")
    return tuple(names)
