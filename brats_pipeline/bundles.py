"""Bundles: where they lie, and how their configuration runs."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brats_pipeline.errors import PipelineError, root_cause
from brats_pipeline.files import write_atomically
from brats_pipeline.overlays import (
    LABEL_MAP_CONFIGS,
    POST_PROCESSING,
    check_post_processing,
    post_processing,
    read_post_processing,
)
from transforms.labels import MODALITIES

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

HERE = Path(__file__).resolve().parent
SET_BY_COMMANDS = frozenset(["data_list_file_path", "output_dir", "resume"])
"""Ids that the commands themselves set for every run."""
CHANGED_CONFIGS = ("train.yaml", "inference.yaml")
"""Configurations that a run has in its own version; the others are overlays and copied as they are."""


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


@contextmanager
def plain_errors(changed: Collection[str] = ()) -> Iterator[None]:
    """Turn an error that MONAI's layers have wrapped back into the message it started as.

    Args:
        changed: configuration ids that the caller gave values to. A ``ValueError`` deep in there refuses an argument,
            which may be one of them; where there are none, it is an error like all others.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, PipelineError):
            raise cause from error
        if isinstance(cause, ValueError) and changed:
            raise PipelineError(
                f"{_first_line(cause)} ({type(cause).__name__}); if this comes from what was changed with --set "
                f"({', '.join(sorted(changed))}), correct that; else run `brats-pipeline --debug ...` to see where it "
                "happened, and report it"
            ) from error
        raise


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def open_workflow(
    bundle: Path,
    config_files: Sequence[str],
    *,
    workflow_type: str,
    overrides: Mapping[str, Any],
    changed: Collection[str] = (),
) -> ConfigWorkflow:
    """The bundle's configuration as ``python -m monai.bundle run`` would run it, initialised.

    Args:
        bundle: its folder; becomes ``bundle_root``.
        config_files: names below ``configs/``, later ones laid over earlier ones.
        workflow_type: ``train`` or ``infer``.
        overrides: id to value, as ``--id value`` on MONAI's command line.
        changed: further ids that a person gave values to, which the configuration holds already.

    The bundle's ``postprocessing.yaml``, if any, lies between the overrides and a configuration that makes label maps.
    Cases that fail do not make the run of an ``infer`` workflow raise: its evaluator lists them.

    Raises:
        PipelineError: a file is missing, or the configuration refuses to start.
    """
    from monai.bundle import ConfigParser, ConfigWorkflow

    paths = [bundle / "configs" / name for name in config_files]
    more = post_processing(bundle) if set(config_files) & set(LABEL_MAP_CONFIGS) else None
    for path in paths:
        if not path.is_file():
            raise PipelineError(f"{path}: the bundle lacks this configuration; restore it")
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it warns that it logs nothing
    given = {*changed, *overrides} - SET_BY_COMMANDS
    with warnings.catch_warnings(), plain_errors(given):
        warnings.filterwarnings("ignore", category=UserWarning, module="monai")
        files = [str(path) for path in paths]
        settings = ConfigParser()
        settings.read_config(files)
        refuse_unknown_ids(bundle, [key for key in overrides if not _holds(settings, key)])
        if more is not None:
            content = read_post_processing(more)
            refuse_unknown_ids(bundle, [key for key in content if not _holds(settings, key)])
            check_post_processing(more, content, settings["regions"])
            files.append(str(more))
        if workflow_type == "infer" and "raise_failures" not in overrides and _holds(settings, "raise_failures"):
            overrides = {**overrides, "raise_failures": False}
        try:
            workflow = ConfigWorkflow(
                config_file=files,
                logging_file=False,
                workflow_type=workflow_type,
                bundle_root=str(bundle),
                **overrides,
            )
            workflow.initialize()
        except Exception as error:
            cause = root_cause(error)
            if isinstance(cause, PipelineError):
                raise
            hint = f"correct what was changed with --set or --device ({', '.join(sorted(given))})"
            raise PipelineError(
                f"{bundle.name} cannot start with this configuration: {_first_line(cause)} ({type(cause).__name__}); "
                + (hint if given else "run `brats-pipeline --debug ...` to see where, and report it")
            ) from error
    return workflow


def freeze_bundle(bundle: Path, out: Path, overrides: Mapping[str, Any]) -> None:
    """Copy a bundle's configuration to ``out`` with some values changed, so that ``out`` is a bundle of its own.

    Args:
        bundle: the bundle to copy.
        out: folder of the run.
        overrides: id to value; applied to every configuration that has the id.

    Raises:
        PipelineError: no configuration has one of the ids, and then nothing is written; or the folder cannot be
            written.
    """
    import yaml
    from monai.bundle import ConfigParser

    changed: dict[str, str] = {}
    applied: set[str] = set()
    for name in CHANGED_CONFIGS:
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / name))
        fitting = {key: value for key, value in overrides.items() if _holds(parser, key)}
        applied |= set(fitting)
        parser.update(fitting)
        content = {key: value for key, value in parser.get().items() if key != "_meta_"}
        changed[name] = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    refuse_unknown_ids(bundle, set(overrides) - applied)
    for name, text in changed.items():
        write_atomically(out / "configs" / name, text)
    if bundle.resolve() == out.resolve():
        return
    for folder in ("configs", "docs"):
        for source in sorted((bundle / folder).rglob("*")):
            # What suits the weights of a bundle says nothing of those that the run is going to have.
            if source.is_file() and source.name not in changed and source.name != POST_PROCESSING:
                write_atomically(out / source.relative_to(bundle), source.read_bytes())
    if (bundle / "LICENSE").is_file():
        write_atomically(out / "LICENSE", (bundle / "LICENSE").read_bytes())


def refuse_unknown_ids(bundle: Path, ids: Collection[str]) -> None:
    """Say no to ids that no configuration has: MONAI would add them and never look at them.

    Raises:
        PipelineError: there are some.
    """
    if ids:
        raise PipelineError(
            f"no configuration of {bundle.name} has the id {', '.join(sorted(ids))}; see {bundle}/configs"
        )


def _holds(parser: Any, key: str) -> bool:
    """Whether the configuration has a place for this id: its parent exists, and it exists or its parent is a dict."""
    parent, _, last = key.replace("#", "::").rpartition("::")
    try:
        container = parser.get(parent) if parent else parser.config
    except (KeyError, ValueError, IndexError):
        return False
    if not isinstance(container, dict):
        return isinstance(container, list) and last.isdigit() and int(last) < len(container)
    return last in container or "_target_" in container
