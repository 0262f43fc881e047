"""How much of the training masks each region fills; a weighted loss is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch

from brats_pipeline.errors import CaseError, PipelineError, root_cause


def tumour_shares(
    items: Sequence[Mapping[str, Any]],
    transforms: Sequence[Callable[[Any], Any]],
    *,
    workers: int = 2,
) -> list[float]:
    """Mean over the cases of the share of voxels that a region fills in the mask as it is on disk.

    Every case counts the same, whatever its size. Only the masks are read, not the images.

    Args:
        items: datalist items of the cases that train.
        transforms: the first steps of the preprocessing: the loader and :class:`transforms.regions.LabelsToRegionsd`.
        workers: threads.

    Returns:
        One share for each region.

    Raises:
        CaseError: a mask cannot be read.
        PipelineError: there is no case.
    """
    if not items:
        raise PipelineError("there is no case to train on; check the datalist, its folds, and the chosen fold")
    with ThreadPoolExecutor(workers) as pool:
        per_case = list(pool.map(partial(_share_of_case, transforms=transforms), items))
    shares: list[float] = torch.stack(per_case).mean(dim=0).tolist()
    return shares


def _share_of_case(item: Mapping[str, Any], transforms: Sequence[Callable[[Any], Any]]) -> torch.Tensor:
    data: Any = {key: value for key, value in item.items() if key != "image"}
    try:
        for transform in transforms:
            data = transform(data)
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, PipelineError):
            raise CaseError(str(item["case_id"]), str(cause)) from error
        raise
    mask = torch.as_tensor(data["label"])
    return mask.flatten(1).double().mean(dim=1)
