"""A configuration that runs without this distribution: its names lead into the bundle's own package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brats_pipeline.bundles.vendoring import OWN, home_of, modules_behind
from brats_pipeline.errors import PipelineError
from brats_pipeline.overlays import post_processing, read_post_processing

SCRIPTS = "scripts"
"""Id of the bundle's own package, whose making puts the bundle on Python's path."""
PATH_EXPRESSION = "$sys.path.insert(0, @bundle_root)"
OWN_NAME = re.compile(rf"(?<![\w.@:'\"/])(?:{'|'.join(OWN)})(?:\.\w+)*")
DROPPED = "require_own_packages"
"""Says that the three packages are those of this distribution; a bundle with its own needs no such check."""


def resolved(bundle: Path, config: str = "inference.yaml") -> dict[str, Any]:
    """A configuration of a bundle with its overlay of post-processing in it.

    Raises:
        PipelineError: it cannot be read.
    """
    import yaml

    path = bundle / "configs" / config
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PipelineError(f"{path}: cannot be read as YAML ({error}); restore the bundle") from error
    more = post_processing(bundle)
    return {**content, **(read_post_processing(more) if more is not None else {})}


def own_names(content: Any) -> Iterator[str]:
    """Every dotted name of ours in the targets and expressions of a configuration."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "_target_" and isinstance(value, str):
                yield from OWN_NAME.findall(value)
            yield from own_names(value)
    elif isinstance(content, list):
        for value in content:
            yield from own_names(value)
    elif isinstance(content, str) and content.startswith("$") and DROPPED not in content:
        yield from (name for name in OWN_NAME.findall(content) if "." in name)


def modules_needed(content: Mapping[str, Any]) -> list[str]:
    """Our modules that a configuration needs."""
    return modules_behind(set(own_names(content)))


def detached(content: Mapping[str, Any], package: str) -> dict[str, Any]:
    """The configuration with every name of ours within ``package``, found from whatever folder it runs.

    MONAI imports before it evaluates anything, so the package, which the bundle's folder has to be on the path for, is
    no import but an id: whatever names something of ours refers to it, or requires it.
    """
    kept: dict[str, Any] = {key: _moved(value, package) for key, value in content.items()}
    imports = [text for text in kept.pop("imports", []) if not OWN_NAME.search(text.removeprefix("$import "))]
    root = kept.pop("bundle_root", ".")
    if "initialize" in kept:
        kept["initialize"] = [text for text in kept["initialize"] if DROPPED not in text]
    return {
        "imports": ["$import sys", *imports],
        "bundle_root": root,
        "_path": PATH_EXPRESSION,
        SCRIPTS: {"_target_": "importlib.import_module", "_requires_": "@_path", "name": package},
        **kept,
    }


def _moved(value: Any, package: str) -> Any:
    if isinstance(value, list):
        return [_moved(one, package) for one in value]
    if isinstance(value, str):
        moves = value.startswith("$") and not value.startswith("$import ") and DROPPED not in value
        return OWN_NAME.sub(lambda name: f"@{SCRIPTS}.{home_of(name[0])}", value) if moves else value
    if not isinstance(value, dict):
        return value
    target = value.get("_target_")
    if not isinstance(target, str) or target.partition(".")[0] not in OWN:
        return {key: _moved(one, package) for key, one in value.items()}
    rest = {key: _moved(one, package) for key, one in value.items() if key not in ("_target_", "_requires_")}
    required = value.get("_requires_", [])
    required = [*required, f"@{SCRIPTS}"] if required else f"@{SCRIPTS}"
    return {"_target_": f"{package}.{home_of(target)}", "_requires_": required, **rest}
