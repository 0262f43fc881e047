"""The probabilities that several bundles or runs saved of one case, read back and pooled on the grid of the scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from brats_pipeline.errors import CaseError, PipelineError
from transforms.probabilities import SUFFIX, read_probabilities
from transforms.uncertainty import MemberPool

FOLDER = "probabilities"
"""Where a folder of predictions keeps them."""


class LoadMembersd(MapTransform):
    """Replace a scan by the logits of what members say of it, as :meth:`transforms.uncertainty.MemberPool.logits`.

    Args:
        keys: the scan ``(C, x, y, z)`` as its file has it; becomes ``(R, x, y, z)``, or ``(4 * R, x, y, z)``.
        folders: of each member, its folder of predictions; ``probabilities/<case_id>.npz`` in it is read.
        regions: the channels to make; a file's own order does not matter.
        weights: of each member, one number for all regions or one for each; by default all count alike.
        spread: also tell how far the members are apart.
        case_id_key: where the case says its name.

    Raises:
        ValueError: there is no member, or not one weight for each.
        CaseError: a file is missing or damaged, lacks a region, or is on another grid.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        folders: Sequence[str | Path],
        regions: Sequence[str],
        weights: Sequence[float | Sequence[float]] | None = None,
        spread: bool = False,
        case_id_key: str = "case_id",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not folders or (weights is not None and len(weights) != len(folders)):
            raise ValueError(
                f"{len(folders)} members and {'no' if weights is None else len(weights)} weights; give at least one "
                "member, and one weight for each or none"
            )
        self.folders = [Path(folder) for folder in folders]
        self.regions = tuple(regions)
        self.weights = [1.0] * len(folders) if weights is None else list(weights)
        self.spread = spread
        self.case_id_key = case_id_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            scan, case_id = item[key], str(item[self.case_id_key])
            pool = MemberPool(spread=self.spread)
            for folder, weight in zip(self.folders, self.weights, strict=True):
                path = folder / FOLDER / f"{case_id}{SUFFIX}"
                values = self._read(path, case_id, tuple(scan.shape[1:]))
                pool.add(values[None], weight)
            item[key] = MetaTensor(pool.logits()[0], meta=scan.meta)
        return item

    def _read(self, path: Path, case_id: str, shape: tuple[int, ...]) -> torch.Tensor:
        """One member's probabilities ``(R, x, y, z)``, float32."""
        try:
            found = read_probabilities(path)
        except PipelineError as error:
            raise CaseError(case_id, str(error)) from error
        absent = [region for region in self.regions if region not in found.regions]
        if absent or found.values.shape[1:] != shape:
            raise CaseError(
                case_id,
                f"{path}: holds {', '.join(found.regions)} on {found.values.shape[1:]} voxels; needed: "
                f"{', '.join(self.regions)} on {shape}, the grid of the scan",
            )
        order = [found.regions.index(region) for region in self.regions]
        return torch.from_numpy(found.values[order].astype(np.float32))
