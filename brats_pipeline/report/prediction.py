"""The page of one label map without a reference: volumes, a picture, slices to scroll through; one file, offline."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from brats_pipeline.report.casepage import embedded, view_of
from brats_pipeline.report.faces import shows_head
from brats_pipeline.report.overlay import overlay_figure
from brats_pipeline.report.viewer import Viewer, find_viewer
from brats_pipeline.report.volumes import case_volume

Mask = npt.NDArray[np.bool_]

MM = 1.0
"""Side of the voxels in the viewer; larger ones of the scan stay as they are."""
HANGING = "Radiological view: the patient's right is on the left."
RESEARCH = "Research software, not a medical device."
WIDTH = 130
"""Letters in a line under a picture."""


def preview_figure(
    images: Mapping[str, npt.NDArray[Any]],
    masks: Mapping[str, Mask],
    *,
    affine: npt.NDArray[Any],
    case_id: str,
    warnings: Sequence[str] = (),
) -> bytes:
    """Draw a label map as contours in three planes through the slices that hold most of it.

    Args:
        images: modality to ``(x, y, z)``; one row each.
        masks: region to mask, the widest first.
        affine: ``(4, 4)``, of their grid.
        case_id: stands under the picture.
        warnings: sentences that stand there too.

    Returns:
        A PNG.
    """
    found = any(mask.any() for mask in masks.values())
    below = [f"{case_id}. {HANGING} {RESEARCH}", *(line for each in warnings for line in textwrap.wrap(each, WIDTH))]
    if not found:
        below = ["NO TUMOUR FOUND", *below]
    return overlay_figure(images, None, masks, affine=affine, below=below, kind="png")


def prediction_page(
    images: Mapping[str, npt.NDArray[Any]],
    masks: Mapping[str, Mask],
    *,
    affine: npt.NDArray[Any],
    case_id: str,
    bundle: str,
    table: Sequence[Sequence[str]],
    warnings: Sequence[str] = (),
    versions: Mapping[str, str],
) -> str:
    """The page of one case.

    Args:
        images: modality to ``(x, y, z)``; the first is scrolled until another is chosen.
        masks: region to mask, the widest first.
        affine: ``(4, 4)``, of their grid.
        case_id: the heading.
        bundle: what segmented.
        table: volumes, a row of headings first.
        warnings: what a reader should know, a sentence each.
        versions: software name to version.

    Returns:
        HTML that needs no other file and no network.
    """
    viewer = find_viewer()
    able = isinstance(viewer, Viewer)
    voxel_ml = float(abs(np.linalg.det(np.asarray(affine)[:3, :3]))) / 1000
    volume = case_volume(
        images, {name: np.zeros_like(mask) for name, mask in masks.items()}, masks, affine=affine, mm=MM
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("brats_pipeline.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    script, _, _ = environment.loader.get_source(environment, "viewer.js") if environment.loader else ("", None, None)
    return environment.get_template("prediction.html.j2").render(
        case_id=case_id,
        bundle=bundle,
        face=any(shows_head(image, voxel_ml=voxel_ml) for image in images.values()),
        warnings=warnings,
        found=any(mask.any() for mask in masks.values()),
        header=table[0],
        rows=table[1:],
        picture=embedded(overlay_figure(images, None, masks, affine=affine), "jpeg"),
        view=view_of(0, volume, referenced=False),
        viewer=viewer if able else None,
        no_viewer=viewer if isinstance(viewer, str) else None,
        script=script,
        versions={**versions, **({"ipyniivue": viewer.version} if isinstance(viewer, Viewer) else {})},
    )
