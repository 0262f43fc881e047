"""``volumes.json``: how large each region and each tissue of the label maps of a folder is."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.locking import taking_turns
from transforms.labels import TABLE_ORDER, convention

VOLUMES = "volumes.json"
SCHEMA_VERSION = 1


def volumes_of(
    labels: npt.NDArray[Any],
    affine: npt.NDArray[Any] | None,
    *,
    convention_name: str,
    doubt: Mapping[str, Any] | None = None,
    missing: Collection[str] = (),
    unlike: Collection[str] = (),
) -> dict[str, Any]:
    """What ``volumes.json`` says of one case.

    Args:
        labels: the label map, ``(x, y, z)``.
        affine: ``(4, 4)``, voxels to millimetres; its determinant is the volume of a voxel. None where voxels have no
            size: they are counted then.
        convention_name: what the labels mean.
        doubt: what was told of the case's doubt (:mod:`brats_pipeline.inference.doubt`); gives ``intervals`` where
            it :func:`has_spread`.
        missing: modalities that it was segmented without.
        unlike: in what the scan differs from the training.
    """
    rule = convention(convention_name)
    values, counts = np.unique(labels, return_counts=True)
    number = dict(zip(values.tolist(), counts.tolist(), strict=True))
    voxel_ml = (
        None if affine is None else abs(float(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3]))) / 1000
    )
    unit, size = ("voxels", 1.0) if voxel_ml is None else ("ml", voxel_ml)

    def sized(wanted: Collection[int]) -> float | int:
        count = int(sum(number.get(value, 0) for value in wanted))
        return count if voxel_ml is None else round(count * size, 6)

    order = [*(name for name in TABLE_ORDER if name in rule.regions), *sorted(set(rule.regions) - set(TABLE_ORDER))]
    told: dict[str, Any] = {
        "unit": unit,
        "voxel_ml": None if voxel_ml is None else round(voxel_ml, 9),
        "convention": rule.name,
        "tumour_found": any(number.get(value, 0) for value in rule.tissues),
        "regions": {name: sized(rule.regions[name]) for name in order},
        "labels": {str(value): {"tissue": tissue, unit: sized([value])} for value, tissue in rule.tissues.items()},
    }
    if doubt is not None and has_spread(doubt):
        rows = doubt["regions"]
        told["intervals"] = {
            name: [round(float(rows[name][end]), 6) for end in ("volume_low", "volume_high")]
            for name in order
            if name in rows
        }
    return {**told, **({"missing": list(missing)} if missing else {}), **({"unlike": list(unlike)} if unlike else {})}


def has_spread(doubt: Mapping[str, Any]) -> bool:
    """Whether members disagree anywhere; a lone network cannot, and its volume is no interval."""
    return bool(doubt.get("members_differ", True))


def read_volumes_file(out: Path) -> dict[str, dict[str, Any]]:
    """Case to what the file of a folder says of it; nothing where there is none.

    Raises:
        PipelineError: it is of another kind or version.
    """
    path = out / VOLUMES
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] == SCHEMA_VERSION:
            return dict(content["cases"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise PipelineError(f"{path}: holds no volumes of predictions and would be replaced; choose another folder")


def update_volumes(
    out: Path, new: Mapping[str, Mapping[str, Any]], *, without: Collection[str] = (), shared: bool = False
) -> None:
    """Add cases to the file of a folder, and take others out of it; the file goes with its last case.

    Args:
        out: folder of the predictions.
        new: case to what is said of it.
        without: cases that have no label map any more, or another one.
        shared: other processes work at other cases in this folder.
    """
    with taking_turns(out) if shared else nullcontext():
        there = read_volumes_file(out)
        cases = {name: told for name, told in there.items() if name not in without} | dict(new)
        if cases == there:
            return
        if cases:
            document = {"schema_version": SCHEMA_VERSION, "cases": dict(sorted(cases.items()))}
            write_atomically(out / VOLUMES, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        else:
            (out / VOLUMES).unlink(missing_ok=True)
