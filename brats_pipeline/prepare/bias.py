"""Slow changes of brightness across the head, taken out.

Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 29 (2010).
"""

from __future__ import annotations

import SimpleITK as sitk

from brats_pipeline.prepare.heads import coarser, head_mask, one_thread

SIDE_MM = 4.0
STEPS = (50, 50, 50, 50)


def without_bias(image: sitk.Image) -> sitk.Image:
    """Divide a scan by its bias field, estimated over the head on voxels of 4 mm; the grid stays."""
    with one_thread():
        lowest = float(sitk.GetArrayViewFromImage(image).min())
        coarse = coarser(sitk.Cast(image - min(lowest, 0.0), sitk.sitkFloat32), SIDE_MM)
        method = sitk.N4BiasFieldCorrectionImageFilter()
        method.SetMaximumNumberOfIterations(list(STEPS))
        method.Execute(coarse, head_mask(coarse))
        field = sitk.Exp(method.GetLogBiasFieldAsImage(image))
    flat: sitk.Image = sitk.Cast(image / sitk.Cast(field, sitk.sitkFloat32), sitk.sitkFloat32)
    return flat
