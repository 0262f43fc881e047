"""Runs without a network: label maps drawn by hand, and the probabilities that a network might have given them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from brats_pipeline.bundles import bundle_path, freeze_bundle
from brats_pipeline.data.datalist import item_case, read_datalist
from brats_pipeline.files import file_sha256
from brats_pipeline.inference.inputs import states_of
from brats_pipeline.overlays import configuration_sha256
from transforms.probabilities import write_probabilities

Labels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float16]
Drawn = Mapping[str, tuple[Labels, Values]]
REGIONS = ("TC", "WT", "ET")


def head(shape: tuple[int, int, int] = (24, 22, 20), *, at: int = 8, enhancing: bool = True) -> Labels:
    """A tumour of the convention of 2023: edema around a core, and a rim that enhances."""
    labels = np.zeros(shape, np.uint8)
    labels[at - 4 : at + 4, 6:14, 6:14] = 2
    labels[at - 2 : at + 2, 8:12, 8:12] = 1
    if enhancing:
        labels[at - 2, 8:12, 8:12] = 3
    return labels


def sure(labels: Labels, *, inside: float = 0.9, outside: float = 0.05) -> Values:
    """Probabilities of TC, WT, ET that a threshold between the two turns into the very label map."""
    masks = np.stack([np.isin(labels, values) for values in ((1, 3), (1, 2, 3), (3,))])
    return np.where(masks, inside, outside).astype(np.float16)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A folder that a training could have left, with the probabilities of its validation fold."""

    def make(drawn: Drawn, *, spacing_mm: float = 1.0, patients: Mapping[str, str] | None = None) -> Path:
        run = tmp_path / "run"
        freeze_bundle(bundle_path("brats_glioma_3d"), run, {})
        (run / "models").mkdir()
        (run / "models" / "model.pt").write_bytes(b"weights that nothing here reads")
        affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
        items = []
        for case_id, (labels, values) in drawn.items():
            path = tmp_path / "cohort" / f"{case_id}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(labels, affine), path)
            item = {"case_id": case_id, "patient_id": (patients or {}).get(case_id, case_id), "fold": 0}
            items.append(item | {"convention": "brats2023", "image": [str(path)] * 4, "label": str(path)})
            file = run / "tuning" / "predictions" / "probabilities" / f"{case_id}.npz"
            write_probabilities(file, values, regions=REGIONS, affine=affine)
        (run / "datalist.json").write_text(json.dumps({"training": items}))
        (run / "run.json").write_text(json.dumps({"fold": 0}))
        vouch(run)
        return run

    return make


def vouch(run: Path, tuning: Path | None = None) -> None:
    """Say that the probabilities in a folder (by default the run's own) were made by the run as it is."""
    stamp = {
        "weights_sha256": file_sha256(run / "models" / "model.pt"),
        "inference_sha256": file_sha256(run / "configs" / "inference.yaml"),
        "configuration_sha256": configuration_sha256(run),
        "scans": states_of([replace(item_case(item), label=None) for item in read_datalist(run / "datalist.json")]),
    }
    ((tuning or run / "tuning") / "predictions.json").write_text(json.dumps(stamp))
