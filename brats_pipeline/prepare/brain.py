"""Where the brain lies: by HD-BET where it is installed, by a mask that is given, or by a fallback that says so.

Isensee et al., Automated brain extraction of multisequence MRI using artificial neural networks, Human Brain Mapping 40
(2019), is called as a program of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from brats_pipeline.errors import PipelineError
from brats_pipeline.prepare.fallback import fallback_mask
from brats_pipeline.prepare.grids import Grid
from brats_pipeline.prepare.images import array_of, like, nifti_of, read_image
from transforms.nifti import same_grid, write_nifti

METHODS = ("auto", "hd-bet", "classical", "none")
HD_BET = "hd-bet"
STRIPPED_ML = 2200.0
"""Less than this that is not exactly 0, and half of the field of view exactly 0: nothing but brain is left."""
PLAUSIBLE_ML = (600.0, 2200.0)

FALLBACK = (
    "brain extraction by the classical fallback (thresholds and morphology): look at the outline in preview.png; "
    "install HD-BET or give --brain-mask for better"
)


@dataclass(frozen=True)
class BrainMask:
    """A mask of the brain on the grid of the reference.

    Args:
        mask: uint8; None where none was wanted.
        method: ``"given"``, ``"already stripped"``, ``"hd-bet"``, ``"classical"`` or ``"none"``.
        volume_ml: of the mask; None without one.
    """

    mask: sitk.Image | None
    method: str
    volume_ml: float | None

    @property
    def trusted(self) -> bool:
        """Whether registration may look at this mask alone."""
        return self.mask is not None and self.method != "classical"


def extract_brain(
    image: sitk.Image, *, method: str = "auto", given: Path | None = None, device: str = "cpu"
) -> BrainMask:
    """Find the brain in the reference.

    Args:
        image: the reference.
        method: one of :data:`METHODS`; ``"auto"`` takes HD-BET where it is installed, else the fallback.
        given: a mask on the grid of ``image``; then ``method`` does not matter.
        device: for HD-BET.

    Raises:
        PipelineError: the mask lies on another grid or is empty, HD-BET is not there or fails, or the fallback finds
            nothing of the size of a brain.
    """
    if method not in METHODS:
        raise PipelineError(f"unknown brain extraction {method!r}; known are {', '.join(METHODS)}")
    if given is not None:
        return _measured(_read_mask(given, image), "given")
    if method == "none":
        return BrainMask(None, "none", None)
    if method == "hd-bet" or (method == "auto" and shutil.which(HD_BET) and not _stripped(image)):
        return _measured(_by_hd_bet(image, device), "hd-bet")
    if method == "auto" and _stripped(image):
        return _measured(sitk.Cast(sitk.NotEqual(image, 0.0), sitk.sitkUInt8), "already stripped")
    found = _measured(fallback_mask(image), "classical")
    least, most = PLAUSIBLE_ML
    if found.volume_ml is None or not least <= found.volume_ml <= most:
        raise PipelineError(
            f"the classical brain extraction found {found.volume_ml or 0:.0f} ml, which is no brain ({least:.0f} to "
            f"{most:.0f} ml); install HD-BET, give --brain-mask FILE, or keep the head with --no-brain-extraction"
        )
    return found


def _measured(mask: sitk.Image, method: str) -> BrainMask:
    voxel_ml = float(np.prod(mask.GetSpacing())) / 1000
    return BrainMask(mask, method, float(np.count_nonzero(sitk.GetArrayViewFromImage(mask))) * voxel_ml)


def _stripped(image: sitk.Image) -> bool:
    """Whether somebody took the brain out already: zeros all around, and no more than a brain left."""
    outside = float((sitk.GetArrayViewFromImage(image) == 0).mean())
    field_ml = float(np.prod(np.multiply(image.GetSize(), image.GetSpacing()))) / 1000
    return outside > 0.5 and (1 - outside) * field_ml < STRIPPED_ML


def _read_mask(path: Path, image: sitk.Image) -> sitk.Image:
    """A mask from a file, on the grid of the reference."""
    given = read_image(path)
    grid, wanted = Grid.of(given), Grid.of(image)
    if not same_grid(grid.size, grid.affine, wanted.size, wanted.affine):
        raise PipelineError(
            f"{path}: the brain mask lies on another grid ({grid.describe()}) than the reference "
            f"({wanted.describe()}); draw it on the reference, or resample it there"
        )
    return like(image, (array_of(given) > 0).astype(np.uint8))


def _by_hd_bet(image: sitk.Image, device: str) -> sitk.Image:
    """Ask HD-BET, which reads and writes files."""
    program = shutil.which(HD_BET)
    if program is None:
        raise PipelineError(f"{HD_BET} is not on the PATH; install HD-BET, or leave --brain-extraction out")
    with tempfile.TemporaryDirectory(prefix="brats-pipeline-") as folder:
        scan, out = Path(folder) / "scan.nii.gz", Path(folder) / "brain.nii.gz"
        write_nifti(scan, nifti_of(array_of(image), Grid.of(image)))
        call = [program, "-i", str(scan), "-o", str(out), "-device", device, "--save_bet_mask", "--no_bet_image"]
        if device == "cpu":
            call.append("--disable_tta")  # as its authors advise: eight times the work for little
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        mask = out.with_name("brain_bet.nii.gz")
        if done.returncode != 0 or not mask.is_file():
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise PipelineError(
                f"HD-BET ended with {done.returncode} and no mask ({last}); version 2 is needed. Or give --brain-mask "
                "FILE, or --brain-extraction classical"
            )
        return _read_mask(mask, image)
