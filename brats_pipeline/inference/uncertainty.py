"""Writing beside a label map how far it can be trusted: maps of doubt, intervals of volumes, expected Dice.

``OUT/uncertainty/`` holds for each case ``<case_id>_entropy.nii.gz`` and ``<case_id>_mutual_information.nii.gz``
(definitions in :mod:`transforms.uncertainty`) and the figures of :mod:`brats_pipeline.inference.doubt`.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils.misc import ImageMetaKey

from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.inference.doubt import region_doubt, write_case
from brats_pipeline.inference.expected_dice import ExpectedDice, makers, read_expected_dice
from brats_pipeline.predictions import uncertainty_files
from transforms.labels import convention
from transforms.nifti import write_nifti
from transforms.scans import read_scan_header

logger = logging.getLogger(__name__)

MAPS = ("entropy", "mutual_information")
"""Entries that become files, in the order of :data:`brats_pipeline.predictions.TOLD`."""
FULL = np.log(2.0)
"""Largest value of a map, in nats."""
STEPS = 32767
"""Levels of a map in its file, int16: NIfTI knows no 16-bit floats."""


class SaveUncertaintyd(MapTransform):
    """Write the maps of a case and ``<case_id>.json``; the data stay as they are.

    Args:
        keys: the label map ``(1, x, y, z)`` on the grid of the scan. The entries that
            :class:`transforms.uncertainty.RestoreSpreadd` leaves are expected beside it.
        output_dir: folder of the predictions.
        regions: the region of each channel of those entries.
        calibration: path of what validation says about expected Dice; nothing is expected where there is no such file,
            or where it was made with other weights or mirror images.
        checkpoints: files of the weights that are used.
        tta: axes of mirror images that are used.
        like_key: the loaded image whose file lends its grid; None where scans have none, and volumes are in voxels.
        case_id_key: where the case says its name.
        convention_key: where it names the label convention of the label map.

    Raises:
        CaseError: the first image has changed or gone since it was loaded.
        PipelineError: the folder cannot be written, or the calibration is damaged.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_dir: str | Path,
        regions: Sequence[str],
        calibration: str | Path | None = None,
        checkpoints: str | Path | Sequence[str | Path] = (),
        tta: str | Sequence[int] = (),
        like_key: str | None = "image",
        case_id_key: str = "case_id",
        convention_key: str = "convention",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.out = Path(output_dir)
        self.regions = tuple(regions)
        self.calibration = None if calibration is None else calibration_for(calibration, checkpoints, tta=tta)
        self.like_key = like_key
        self.case_id_key = case_id_key
        self.convention_key = convention_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            case_id = str(item[self.case_id_key])
            like = None if self.like_key is None else self._header(case_id, item)
            affine = np.eye(4) if like is None else like.affine
            voxel_ml = None if like is None else float(abs(np.linalg.det(affine[:3, :3]))) / 1000
            for name, path in zip(MAPS, uncertainty_files(self.out, case_id)[1:], strict=True):
                values = np.asarray(item[name].cpu(), dtype=np.float32)
                write_nifti(path, map_image(values, affine, like))
            labels = np.asarray(item[key][0].cpu())
            rule = convention(str(item[self.convention_key]))
            mean, lowest, highest = (np.asarray(item[name].cpu()) for name in ("mean", "lowest", "highest"))
            rows = [
                region_doubt(
                    region,
                    mask=np.isin(labels, list(rule.regions[region])),
                    lowest=lowest[number] != 0,
                    highest=highest[number] != 0,
                    mean=mean[number],
                    voxel_ml=voxel_ml,
                    calibration=self.calibration,
                )
                for number, region in enumerate(self.regions)
            ]
            differ = bool((lowest != highest).any())
            write_case(self.out, case_id, rows, unit="voxels" if voxel_ml is None else "ml", members_differ=differ)
        return item

    def _header(self, case_id: str, item: Mapping[Hashable, Any]) -> nib.Nifti1Image:
        try:
            return read_scan_header(item[self.like_key].meta[ImageMetaKey.FILENAME_OR_OBJ])
        except PipelineError as error:
            raise CaseError(case_id, str(error)) from error


def map_image(
    values: npt.NDArray[np.float32], affine: npt.NDArray[Any], like: nib.Nifti1Image | None
) -> nib.Nifti1Image:
    """A map as an image in steps of ln 2 / 32767 nats.

    Args:
        values: ``(R, x, y, z)``, from 0 to ln 2.
        affine: of the grid.
        like: the scan, whose codes of the axes are kept.

    Returns:
        ``(x, y, z, R)``, or ``(x, y, z)`` for one region.
    """
    steps = np.rint(np.clip(values, 0, FULL) / FULL * STEPS).astype(np.int16)
    steps = np.moveaxis(steps, 0, -1) if len(steps) > 1 else steps[0]
    image = nib.Nifti1Image(steps, affine)
    if like is not None:
        image.set_sform(affine, code=int(like.header["sform_code"]) or 1)
        image.set_qform(affine, code=int(like.header["qform_code"]))
        image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(float(FULL / STEPS), 0)
    image.header["descrip"] = b"nats, by brats-pipeline, research use only"
    return image


def calibration_for(
    path: str | Path, checkpoints: str | Path | Sequence[str | Path], *, tta: str | Sequence[int] = ()
) -> ExpectedDice | None:
    """A calibration, if it was made by these weights and mirror images; else a word about it and None."""
    known = read_expected_dice(path)
    if known is None:
        return None
    now = makers(checkpoints, tta=tta)
    if differing := sorted(key for key in now if known.made_by.get(key) != now[key]):
        logger.warning(
            "%s was made with another %s; no Dice is expected of these label maps", path, " and ".join(differing)
        )
        return None
    return known
