"""Load the files of a case: decoded in threads, checked to share one grid, stacked in the order of the modalities.

:class:`CaseReader` is a MONAI ``ImageReader``, so that any ``LoadImage`` can use it; :class:`LoadCased` is what
``LoadImaged`` does with that reader, but lets its messages through and leaves whole numbers and their order in memory
as the file has them: turning a volume over costs more than decoding it, and most of it is air.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, MetaTensor
from monai.transforms import MapTransform
from monai.utils.enums import MetaKeys, SpaceKeys
from monai.utils.misc import ImageMetaKey

from brats_pipeline.errors import PipelineError
from transforms.contrast import has_contrast, image_defects
from transforms.labels import MODALITIES
from transforms.nifti import describe_grid, is_volume_name, misplaced, same_grid, strip_suffix, voxels
from transforms.room import check_room
from transforms.scans import check_placed, read_scan, read_scan_header
from transforms.whole_numbers import whole_numbers

Paths = Sequence[str | PathLike[str]] | str | PathLike[str]


def check_same_grid(grids: Mapping[str, tuple[tuple[int, ...], npt.NDArray[Any]]]) -> None:
    """Refuse images that do not lie on one voxel grid.

    Args:
        grids: name of each image to its shape and ``(4, 4)`` affine.

    Raises:
        PipelineError: two grids differ; the message describes every one.
    """
    shape, affine = next(iter(grids.values()))
    if all(same_grid(shape, affine, *other) for other in grids.values()):
        return
    listed = "\n".join(f"  {name}: {describe_grid(*grid)}" for name, grid in grids.items())
    raise PipelineError(
        f"the images do not share one voxel grid:\n{listed}\nco-register and resample them to one grid first"
    )


class CaseReader(ImageReader):
    """Read one file (3D, or 4D with the channels last), or one per modality, into an array with channels first.

    NIfTI, ``.mha`` and ``.nrrd`` files (:mod:`transforms.scans`). The files of a case are decoded in threads (ISA-L
    releases the interpreter lock) and must share one grid.
    """

    def verify_suffix(self, filename: Paths) -> bool:
        """Whether every name ends in ``.nii``, ``.nii.gz``, ``.mha`` or ``.nrrd``."""
        return all(is_volume_name(str(name)) for name in _as_list(filename))

    def read(self, data: Paths, **kwargs: Any) -> list[nib.Nifti1Image]:
        """Decode the files.

        Raises:
            PipelineError: a file cannot be read, is not three-dimensional, has no usable affine, or lies on
                another grid; or memory is too small for all of them.
        """
        paths = _as_list(data)
        headers = list(map(read_scan_header, paths))
        sizes = [math.prod(image.shape) * min(image.get_data_dtype().itemsize, 4) for image in headers]
        check_room(2 * sum(sizes), f"{paths[0]}: the case")  # as decoded, and put together
        with ThreadPoolExecutor(max_workers=len(paths)) as pool:
            images = list(pool.map(partial(read_scan, narrow=True), paths))
        for path, image in zip(paths, images, strict=True):
            if len(image.shape) != 3 and (len(image.shape) != 4 or len(images) > 1):
                raise PipelineError(
                    f"{path}: shape {image.shape} has {len(image.shape)} axes; give one 3D file for each modality, or "
                    "one 4D file that holds all of them"
                )
            if np.linalg.det(image.affine[:3, :3]) == 0:
                raise PipelineError(misplaced(path, image.affine))
            check_placed(path, image)
        check_same_grid({str(path): (image.shape[:3], image.affine) for path, image in zip(paths, images, strict=True)})
        return images

    def get_data(self, img: Sequence[nib.Nifti1Image]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Stack the images to ``(C, x, y, z)`` with the metadata of the first: affine (RAS+ world) and channel axis."""
        first = img[0]
        meta: dict[str, Any] = {
            MetaKeys.AFFINE: np.array(first.affine, dtype=np.float64),
            MetaKeys.ORIGINAL_AFFINE: np.array(first.affine, dtype=np.float64),
            MetaKeys.SPATIAL_SHAPE: np.array(first.shape[:3]),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        }
        if len(first.shape) == 4:
            return np.moveaxis(voxels(first), -1, 0), meta
        with ThreadPoolExecutor(max_workers=len(img)) as pool:
            return np.stack(list(pool.map(voxels, img))), meta


def _as_list(paths: Paths) -> list[str | PathLike[str]]:
    return [paths] if isinstance(paths, str | PathLike) else list(paths)


class LoadCased(MapTransform):
    """Load the images and the label map of a case by :class:`CaseReader` and refuse what cannot be used.

    One more entry comes with the image: ``present``, a float tensor ``(C,)`` with 1 for a modality that the case has.

    Args:
        keys: ``image`` (one path per modality, or that of a 4D file) and, where there is one, ``label``. A lone path in
            no list, as MONAI Label gives it, is a 4D file with the modalities in this order, and names the case.
        modalities: channels to make, in this order. A case lists what it has under ``modalities`` (by default just
            these), a 4D file the channel of each under ``channels``.
        image_key: this key holds the images.
        label_key: this key holds a label map: it must hold whole numbers and share the grid of the images.
        allow_missing: a modality that the case lacks is zeros, and not present; one of them must be there.
        allow_missing_keys: whether a case may come without a label map.

    Raises:
        PipelineError: an unreadable file, differing grids, NaN or infinity, or an image without contrast.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        modalities: Sequence[str] = MODALITIES,
        image_key: str = "image",
        label_key: str = "label",
        allow_missing: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reader = CaseReader()
        self.modalities = tuple(modalities)
        self.image_key = image_key
        self.label_key = label_key
        self.allow_missing = allow_missing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the paths under each key by a tensor ``(C, x, y, z)``: uint8 and int16 stay, others are float32."""
        data = self._spelled_out(data)
        loaded = dict(data)
        held = self._held(data)
        grids: dict[str, tuple[tuple[int, ...], npt.NDArray[Any]]] = {}
        for key in self.key_iterator(loaded):
            paths = _as_list(self._paths(data, held) if key == self.image_key else data[key])
            array, meta = self.reader.get_data(self.reader.read(paths))
            if key == self.image_key and (channels := data.get("channels")) is not None:
                if max(channels.values()) >= len(array):
                    raise PipelineError(f"the 4D file has {len(array)} channels, but its list names {channels}")
                array = array[[channels[name] for name in held]]
            name = str(paths[0])
            grids[name] = (array.shape[1:], meta[MetaKeys.AFFINE])
            if key == self.label_key:
                array = whole_numbers(array, f"{name}: the label map")
            else:
                check_contrast(array, held)
            meta[ImageMetaKey.FILENAME_OR_OBJ] = name
            loaded[key] = MetaTensor(torch.from_numpy(plain_numbers(array)), meta=meta)
        check_same_grid(grids)
        if self.image_key in loaded:
            loaded["present"] = torch.tensor([float(name in held) for name in self.modalities])
            if len(held) < len(self.modalities):
                image = loaded[self.image_key]
                filled = torch.zeros(len(self.modalities), *image.shape[1:], dtype=image.dtype)
                filled[loaded["present"].bool()] = image.as_tensor()
                loaded[self.image_key] = MetaTensor(filled, meta=image.meta)
        return loaded

    def _spelled_out(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """The same case with what a caller without a datalist leaves out."""
        lone = data.get(self.image_key)
        if not isinstance(lone, str | PathLike):
            return data
        channels = {name: channel for channel, name in enumerate(self.modalities)}
        return {"channels": channels, "case_id": strip_suffix(Path(lone).name), **data}

    def _held(self, data: Mapping[Hashable, Any]) -> list[str]:
        """The wanted modalities that the case has, in their order."""
        have = data.get("channels", data.get("modalities", self.modalities))
        absent = [name for name in self.modalities if name not in have]
        if absent and not (self.allow_missing and len(absent) < len(self.modalities)):
            raise PipelineError(f"{', '.join(absent)} is missing; this case has {', '.join(have)}")
        return [name for name in self.modalities if name in have]

    def _paths(self, data: Mapping[Hashable, Any], held: Sequence[str]) -> Any:
        """The files of the modalities held, or the one file that holds them all."""
        have = data.get("channels", data.get("modalities", self.modalities))
        paths = data[self.image_key]
        if "channels" in data:
            return paths
        if len(paths) != len(have):
            raise PipelineError(f"{len(paths)} images came, {len(have)} are needed: {', '.join(have)}")
        return [paths[list(have).index(name)] for name in held]


def plain_numbers(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values in a type that every tensor operation knows: uint8 and int16 as they are, anything else as float32."""
    native = array.dtype.newbyteorder("=")
    array = array.astype(native if native in (np.uint8, np.int16) else np.float32, order="K", copy=False)
    return array if array.flags.writeable else array.copy(order="K")


def check_contrast(image: npt.NDArray[Any], names: Sequence[str]) -> None:
    """Refuse channels without contrast, as :func:`transforms.contrast.image_defects` tells them.

    Args:
        image: ``(C, *spatial)``.
        names: one name per channel.

    Raises:
        PipelineError: names each such channel and what is wrong with it.
    """
    if len(image) != len(names):
        raise PipelineError(f"{len(image)} images came, {len(names)} are needed: {', '.join(names)}")
    defects = [
        defect
        for channel, name in zip(image, names, strict=True)
        if not has_contrast(channel)
        for defect in image_defects(name, channel)[0]
    ]
    if defects:
        raise PipelineError(f"{'; '.join(defects)}; repair or export the scan again, or give the right file")
