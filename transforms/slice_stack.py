"""Patients whose axial slices are files: from the slices to a tensor, and from the answer to one mask per slice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils.misc import ImageMetaKey

from brats_pipeline.errors import PipelineError
from transforms.nifti import write_nifti
from transforms.reader import check_contrast
from transforms.slices import copied_sequences, read_mask, read_slices, write_masks

SEPARATOR = "\n"


class LoadSlicesd(MapTransform):
    """Load the slices of a patient as one volume ``(C, x, y, z)``, and the masks as a label map ``(1, x, y, z)``.

    Two more entries come with the image: ``slices``, the names of the slice files without suffix, joined by line
    breaks; ``present``, a float tensor ``(C,)`` with 1 for a sequence that was acquired and 0 for one that is a copy of
    another. The slices carry no voxel size.

    Args:
        keys: ``image`` (paths of the slices, in order) and, where there is one, ``label`` (paths of the masks).
        modalities: channels to make, in this order.
        label_key: this key holds masks.
        channels_key: where the case says which channel of a file is which modality.
        allow_missing: a modality that is not in the files is zeros, and not present; one of them must be there.
        allow_missing_keys: whether a patient may come without masks.

    Raises:
        PipelineError: a file cannot be used, a modality is not in the files, or one has no contrast.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        modalities: Sequence[str],
        label_key: str = "label",
        channels_key: str = "channels",
        allow_missing: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modalities = tuple(modalities)
        self.label_key = label_key
        self.channels_key = channels_key
        self.allow_missing = allow_missing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        shapes: set[tuple[int, ...]] = set()
        for key in self.key_iterator(result):
            paths = result[key]
            if key == self.label_key:
                volume = read_mask(paths)[None]
            else:
                channels = result[self.channels_key]
                held = [name for name in self.modalities if name in channels]
                absent = [name for name in self.modalities if name not in channels]
                if absent and not (self.allow_missing and held):
                    raise PipelineError(
                        f"{', '.join(absent)} is not in these slices, which hold {', '.join(channels)}; "
                        "choose modalities that they have"
                    )
                every = read_slices(paths)
                copied = copied_sequences(every)
                check_contrast(every[[channels[name] for name in held]], held)
                volume = np.stack(
                    [every[channels[n]] if n in held else np.zeros_like(every[0]) for n in self.modalities]
                )
                result["slices"] = SEPARATOR.join(Path(path).stem for path in paths)
                result["present"] = torch.tensor([float(n in held and n not in copied) for n in self.modalities])
            shapes.add(volume.shape[1:])
            meta = {ImageMetaKey.FILENAME_OR_OBJ: str(paths[0])}
            result[key] = MetaTensor(volume, affine=torch.eye(4, dtype=torch.float64), meta=meta).float()
        if len(shapes) > 1:
            raise PipelineError(f"image and mask differ in size: {' and '.join(map(str, sorted(shapes)))}")
        return result


class SliceMajord(MapTransform):
    """Keep each axial slice of a volume in one piece of memory, so that slices are quick to cut; nothing else changes.

    Args:
        keys: tensors ``(C, x, y, z)``; their shape and values stay.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = result[key].permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)  # in memory (z, C, x, y)
        return result


class SaveSliceMasksd(MapTransform):
    """Write ``output_dir/<case_id>/<slice>_mask.tif`` with 0 and 255, one file per slice.

    Args:
        keys: the label map ``(1, x, y, z)``.
        output_dir: folder of the predictions; made when absent.
        stacked: also write ``output_dir/<case_id>.nii.gz``, one volume of 0 and 1 without a voxel size.
        case_id_key: where the case says its name.
        slices_key: the names of the slices, as :class:`LoadSlicesd` leaves them.

    Raises:
        PipelineError: the folder cannot be written, or the disk is full.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_dir: str | Path,
        stacked: bool = False,
        case_id_key: str = "case_id",
        slices_key: str = "slices",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.stacked = stacked
        self.case_id_key = case_id_key
        self.slices_key = slices_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            labels = np.asarray(result[key][0].cpu(), dtype=np.uint8)
            folder = self.output_dir / str(result[self.case_id_key])
            write_masks(folder, str(result[self.slices_key]).split(SEPARATOR), labels)
            if self.stacked:
                write_nifti(folder.with_name(f"{folder.name}.nii.gz"), nib.Nifti1Image(labels, np.eye(4)))
        return result
