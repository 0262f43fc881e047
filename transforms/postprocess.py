"""The last steps of a segmentation: probabilities, and a label map in the header of the scan it belongs to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils.misc import ImageMetaKey

from brats_pipeline.errors import CaseError, PipelineError
from transforms.nifti import label_image, write_nifti
from transforms.probabilities import SUFFIX, write_probabilities
from transforms.scans import read_scan_header


class SaveProbabilitiesd(MapTransform):
    """Write ``output_dir/<case_id>.npz``, atomically (see :mod:`transforms.probabilities`); the data stay as they are.

    Args:
        keys: the probabilities ``(R, x, y, z)`` on the grid of the input.
        output_dir: folder of the files; made when absent.
        regions: the region of each channel.
        like_key: the loaded image whose file lends its affine; None where scans have none.
        case_id_key: where the case says its name.

    Raises:
        CaseError: the first image has changed or gone since it was loaded.
        PipelineError: the folder cannot be written, or the disk is full.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_dir: str | Path,
        regions: Sequence[str],
        like_key: str | None = "image",
        case_id_key: str = "case_id",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.regions = tuple(regions)
        self.like_key = like_key
        self.case_id_key = case_id_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            case_id = str(result[self.case_id_key])
            values = np.asarray(result[key].half().cpu())
            affine = None
            if self.like_key is not None:
                try:
                    like = read_scan_header(result[self.like_key].meta[ImageMetaKey.FILENAME_OR_OBJ])
                except PipelineError as error:
                    raise CaseError(case_id, str(error)) from error
                affine = like.affine
            path = self.output_dir / f"{case_id}{SUFFIX}"
            write_probabilities(path, values, regions=self.regions, affine=affine)
        return result


class SaveLabelMapd(MapTransform):
    """Write ``output_dir/<case_id>.nii.gz``, atomically, with the header of the case's first image.

    Args:
        keys: the label map ``(1, x, y, z)`` on the grid of the input.
        output_dir: folder of the predictions; made when absent.
        like_key: the loaded image whose file lends its header.
        case_id_key: where the case says its name.

    Raises:
        CaseError: the first image has changed or gone since it was loaded.
        PipelineError: the folder cannot be written, or the disk is full.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_dir: str | Path,
        like_key: str = "image",
        case_id_key: str = "case_id",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.like_key = like_key
        self.case_id_key = case_id_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            case_id = str(result[self.case_id_key])
            labels = np.asarray(result[key][0].cpu(), dtype=np.uint8)
            try:
                image = label_image(labels, read_scan_header(result[self.like_key].meta[ImageMetaKey.FILENAME_OR_OBJ]))
            except (PipelineError, ValueError) as error:
                raise CaseError(case_id, str(error)) from error
            path = self.output_dir / f"{case_id}.nii.gz"
            write_nifti(path, image)
            result[f"{key}_path"] = str(path)
        return result
