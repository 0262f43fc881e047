"""What a training may be told by ``--set``: no id that an option sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.values import refuse_ids

INIT_WEIGHTS = "init_weights"
BY_OTHER_MEANS = {
    "bundle_root": "the run in -o becomes it",
    "ckpt_path": f"it names the weights that segment; give {INIT_WEIGHTS} to start a training from a file",
    "data_list_file_path": "give --datalist",
    "dataset_dir": "give --data",
    "device": "give --device",
    "fold": "give --fold",
    "folds": "give --folds",
    "resume": "give --resume",
    "seed": "give --seed",
}
"""Ids that belong to something else than ``--set``, and what to do."""


def checked_settings(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """The overrides of a training, with the path of the weights that it starts from made whole.

    Args:
        overrides: configuration id to value.

    Raises:
        PipelineError: an id that is not set in this way, or weights that are not there.
    """
    changes = dict(overrides or {})
    refuse_ids(changes, BY_OTHER_MEANS, "a training")
    weights = changes.get(INIT_WEIGHTS)
    if weights is not None:
        path = Path(str(weights)).expanduser().resolve()
        if not path.is_file():
            raise PipelineError(
                f"{INIT_WEIGHTS}: there is no file {path}; give one of weights, such as models/model.pt of a run"
            )
        changes[INIT_WEIGHTS] = str(path)
    return changes
