"""How the configuration of a bundle runs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brats_pipeline.errors import PipelineError, root_cause
from brats_pipeline.overlays import LABEL_MAP_CONFIGS, check_post_processing, post_processing, read_post_processing

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

SET_BY_COMMANDS = frozenset(["data_list_file_path", "output_dir", "resume"])
"""Ids that the commands themselves set for every run."""


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
    root: Path | None = None,
) -> ConfigWorkflow:
    """The bundle's configuration as ``python -m monai.bundle run`` would run it, initialised.

    Args:
        bundle: its folder.
        config_files: names below ``configs/``, later ones laid over earlier ones.
        workflow_type: ``train`` or ``infer``.
        overrides: id to value, as ``--id value`` on MONAI's command line.
        changed: further ids that a person gave values to, which the configuration holds already.
        root: becomes ``bundle_root``; by default the bundle's folder.

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
        refuse_unknown_ids(bundle, [key for key in overrides if not holds(settings, key)])
        if more is not None:
            content = read_post_processing(more)
            refuse_unknown_ids(bundle, [key for key in content if not holds(settings, key)])
            check_post_processing(more, content, settings["regions"])
            files.append(str(more))
        if workflow_type == "infer" and "raise_failures" not in overrides and holds(settings, "raise_failures"):
            overrides = {**overrides, "raise_failures": False}
        try:
            workflow = ConfigWorkflow(
                config_file=files,
                logging_file=False,
                workflow_type=workflow_type,
                bundle_root=str(root or bundle),
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


def refuse_unknown_ids(bundle: Path, ids: Collection[str]) -> None:
    """Say no to ids that no configuration has: MONAI would add them and never look at them.

    Raises:
        PipelineError: there are some.
    """
    if ids:
        raise PipelineError(
            f"no configuration of {bundle.name} has the id {', '.join(sorted(ids))}; see {bundle}/configs"
        )


def holds(parser: Any, key: str) -> bool:
    """Whether the configuration has a place for this id: its parent exists, and it exists or its parent is a dict."""
    parent, _, last = key.replace("#", "::").rpartition("::")
    try:
        container = parser.get(parent) if parent else parser.config
    except (KeyError, ValueError, IndexError):
        return False
    if not isinstance(container, dict):
        return isinstance(container, list) and last.isdigit() and int(last) < len(container)
    return last in container or "_target_" in container
