"""A volume of 512 x 512 x 512 voxels and four channels goes through in less than 8 GiB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_pipeline.bundles import bundle_path, freeze_bundle, weights_path
from networks import UNet
from transforms.labels import MODALITIES

SIDE = 512
CAP_GIB = 8
SEGMENT = """
import json, resource, sys
from brats_pipeline.inference.segment import segment
files, out, bundle, cap = json.loads(sys.argv[1])
done = segment(files, out, bundle=bundle, device="cpu", overrides={"max_memory": cap})
assert done.done and not done.failed, done
print(json.dumps({"peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "seconds": done.seconds}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("network_mm", [1.0, 2.0], ids=["as it is", "resampled"])
def test_a_volume_of_512_voxels_a_side_goes_through_in_less_than_8_gib(network_mm: float, tmp_path: Path) -> None:
    coordinates = np.ogrid[[slice(-1, 1, SIDE * 1j)] * 3]
    brain = sum(axis.astype(np.float32) ** 2 for axis in coordinates) <= 1.01  # it touches every face
    texture = np.random.default_rng(0).integers(100, 1000, SIDE, dtype=np.int16)
    files = {}
    for number, name in enumerate(MODALITIES):
        scan = np.where(brain, np.roll(texture, number), np.int16(0))
        files[name] = str(tmp_path / f"case_{name}.nii")
        nib.save(nib.Nifti1Image(scan, np.diag([-1.0, -1.0, 1.0, 1.0])), files[name])
    del scan, brain
    bundle = tmp_path / "bundle"
    changes = {"network_def::features": 8, "network_def::depth": 2, "presence_flags": False}
    changes |= {"spacing": [network_mm] * 3, "roi_size": [128] * 3, "overlap": 0.25}
    freeze_bundle(bundle_path("brats_glioma_3d"), bundle, changes)
    weights_path(bundle).parent.mkdir()
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=4, out_channels=3, depth=2, features=8)
    torch.save(network.state_dict(), weights_path(bundle))
    arguments = json.dumps([files, str(tmp_path / "out"), str(bundle), f"{CAP_GIB}GiB"])
    done = subprocess.run([sys.executable, "-c", SEGMENT, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"peak {told['peak'] / 2**30:.2f} GiB, {told['seconds']}")
    assert nib.load(tmp_path / "out" / "case.nii.gz").shape == (SIDE,) * 3
    assert told["peak"] < CAP_GIB * 2**30
