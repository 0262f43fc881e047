"""What a training may be told by ``--set``: no id that an option sets, and no value that would mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from transforms.labels import CONVENTIONS

INIT_WEIGHTS = "init_weights"
BY_OTHER_MEANS = {
    "ckpt_path": f"it names the weights that segment; give {INIT_WEIGHTS} to start a training from a file",
    "data_list_file_path": "give --datalist",
    "dataset_dir": "give --data",
    "fold": "give --fold",
    "folds": "give --folds",
    "resume": "give --resume",
    "seed": "give --seed",
}
"""Ids that belong to something else than ``--set``, and what to do."""
FIELDS_OF_VIEW = ("foreground", "full")
REGION_NAMES = tuple(dict.fromkeys(name for row in CONVENTIONS.values() for name in row.regions))


def checked_settings(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """The overrides of a training, with the path of the weights that it starts from made whole.

    Args:
        overrides: configuration id to value.

    Raises:
        PipelineError: an id that is not set in this way, or weights that are not there.
    """
    changes = dict(overrides or {})
    for name in sorted(BY_OTHER_MEANS.keys() & changes.keys()):
        raise PipelineError(f"--set {name} is not for a training: {BY_OTHER_MEANS[name]}")
    weights = changes.get(INIT_WEIGHTS)
    if weights is not None:
        path = Path(str(weights)).expanduser().resolve()
        if not path.is_file():
            raise PipelineError(
                f"{INIT_WEIGHTS}: there is no file {path}; give one of weights, such as models/model.pt of a run"
            )
        changes[INIT_WEIGHTS] = str(path)
    return changes


def check_values(
    *,
    regions: Any,
    field_of_view: Any,
    modality_dropout: Any,
    fields_of_view: Sequence[str] = FIELDS_OF_VIEW,
    **switches: Any,
) -> None:
    """Refuse values that no part of a training would look at as they are meant; to be named in a bundle's YAML.

    Args:
        regions: names of the regions to mark.
        field_of_view: what of an image is seen.
        modality_dropout: share of patches that lose some of their modalities.
        fields_of_view: those that the bundle knows.
        **switches: id to what must be true or false.

    Raises:
        PipelineError: names the id, the value and those that are known.
    """
    if not isinstance(regions, list) or not regions or len(set(map(str, regions)) & {*REGION_NAMES}) < len(regions):
        raise PipelineError(f"regions is {regions!r}; give a list of some of {', '.join(REGION_NAMES)}, each once")
    if field_of_view not in fields_of_view:
        raise PipelineError(f"field_of_view is {field_of_view!r}; known: {', '.join(fields_of_view)}")
    if not isinstance(modality_dropout, int | float) or not 0 <= modality_dropout <= 1:
        raise PipelineError(f"modality_dropout is {modality_dropout!r}; it must lie between 0 and 1")
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise PipelineError(f"{name} is {value!r}; known: true, false")
