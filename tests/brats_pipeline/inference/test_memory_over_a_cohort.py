"""A cohort of hundreds of cases takes no more memory than a cohort of a few."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest

from brats_pipeline.inference.segment import segment

MIB = 2**20


@pytest.mark.slow
def test_memory_is_flat_over_500_cases(make_cohort: object, run: Path, tmp_path: Path) -> None:
    cohort = make_cohort(cases=2)  # type: ignore[operator]
    for number in range(500):
        name = f"BraTS2021_{number + 10000:05d}"
        source = sorted(cohort.iterdir())[number % 2]
        (tmp_path / "cohort" / name).mkdir(parents=True)
        for file in source.glob("*.nii.gz"):
            link = tmp_path / "cohort" / name / file.name.replace(source.name, name)
            shutil.copyfile(file, link)
    resident: list[float] = []
    process = psutil.Process()
    result = segment(
        [tmp_path / "cohort"],
        tmp_path / "out",
        bundle=run,
        device="cpu",
        on_case=lambda _: resident.append(process.memory_info().rss / MIB),
    )
    assert len(result.done) == 500
    early, late = max(resident[50:100]), max(resident[-50:])
    print(f"resident memory {early:.0f} MiB after 50 to 100 cases, {late:.0f} MiB after 450 to 500")
    assert late - early < 20, f"{early:.0f} MiB grew to {late:.0f} MiB"
