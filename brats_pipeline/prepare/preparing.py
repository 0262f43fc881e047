"""Raw exam in, case out: what :func:`prepare_case` does, step by step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.prepare.bias import without_bias
from brats_pipeline.prepare.brain import FALLBACK, BrainMask, extract_brain
from brats_pipeline.prepare.exam import Exam, Scan, file_notes, find_exam, read_exam
from brats_pipeline.prepare.grids import Grid, isotropic_grid, lps_grid
from brats_pipeline.prepare.images import nifti_of, read_image, whole_numbers
from brats_pipeline.prepare.keeping import PREVIEW, RECORD, whole_folder
from brats_pipeline.prepare.matching import BARELY, Match, Model, match
from brats_pipeline.prepare.picture import checkerboards
from brats_pipeline.prepare.recording import header_of, match_record, record_of
from brats_pipeline.prepare.resampling import INTERPOLATORS, chained, sample, sample_mask
from transforms.nifti import write_nifti

GRIDS = ("1mm", "reference")
WORDS = {"t1c": "t1c", "t1": "t1n", "t2": "t2w", "flair": "t2f"}
"""How the files of a prepared case end, as in BraTS 2023."""
BRAIN_FILE = "prepared_brain_mask.nii.gz"
MARGIN_MM = 10.0
"""Around a brain mask, registration looks at this much of what surrounds it: the edge of the brain tells most."""
PARTLY = 0.9


@dataclass(frozen=True)
class Prepared:
    """A prepared case.

    Args:
        folder: where it lies.
        case_id: names its files.
        record: what ``prepare.json`` holds.
    """

    folder: Path
    case_id: str
    record: Mapping[str, Any]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know, a sentence each."""
        return tuple(self.record["notes"])


@dataclass
class _Work:
    """What is known so far."""

    exam: Exam
    images: dict[str, sitk.Image]
    on_step: Callable[[str], None]
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)

    def done(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = round(now - self.since, 2)
        self.since = now
        self.on_step(step)


def prepare_case(
    exam: Path | Mapping[str, Scan],
    out: Path,
    *,
    grid: str = "1mm",
    atlas: Path | None = None,
    atlas_transform: Model = "rigid",
    n4: bool = False,
    brain: str = "auto",
    brain_mask: Path | None = None,
    interpolation: str = "bspline",
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
) -> Prepared:
    """Bring the scans of one exam to one grid, match them to its T1c, and take the brain out.

    Args:
        exam: folder of NIfTI files whose names tell the modality, folder of DICOM files, or modality to a file or a
            DICOM series. The first of T1c, T1, T2, FLAIR that it has is the reference.
        out: the case's folder; its name is that of the case where the files do not tell one. Whole or absent.
        grid: ``"1mm"`` (cubes over the reference's field of view) or ``"reference"`` (its own voxels); both along the
            reference's axes in LPS order. With an atlas, its grid is used.
        atlas: a scan to whose space everything is brought.
        atlas_transform: ``"rigid"`` or ``"affine"``.
        n4: take slow changes of brightness out.
        brain: ``"auto"`` (HD-BET where it is installed, else the fallback), ``"hd-bet"``, ``"classical"``, ``"none"``.
        brain_mask: a mask on the reference's own grid, instead.
        interpolation: ``"bspline"`` or ``"linear"``.
        seed: of the points that registration compares.
        device: for HD-BET.
        overwrite: replace a prepared case that is there.
        on_step: called with the name of each finished step.

    Raises:
        PipelineError: the exam, the mask, the atlas or ``out`` cannot be used.
        CaseError: a scan cannot be used, or cannot be brought to the reference.
        ValueError: an argument is none of those named.
    """
    if grid not in GRIDS or interpolation not in INTERPOLATORS or atlas_transform not in ("rigid", "affine"):
        raise ValueError(
            f"grid is one of {', '.join(GRIDS)}, interpolation one of {', '.join(INTERPOLATORS)}, "
            f"atlas_transform one of rigid, affine; got {grid!r}, {interpolation!r}, {atlas_transform!r}"
        )
    begun = time.perf_counter()
    out = Path(out).absolute()
    found = find_exam(exam, out.name)
    with whole_folder(out, overwrite=overwrite) as part:
        work = _Work(found, read_exam(found), on_step, since=begun)
        work.notes += file_notes(found, links=not isinstance(exam, Mapping), atlas=atlas)
        if "t1c" not in found.files:
            work.notes.append(f"there is no T1c: {found.reference} is the reference that the others are brought to")
        work.done("read")
        reference = work.images[found.reference]
        target = lps_grid(reference) if grid == "reference" else isotropic_grid(reference, 1.0)
        if n4:
            work.images = {name: without_bias(image) for name, image in work.images.items()}
            work.done("n4")
        extracted = extract_brain(work.images[found.reference], method=brain, given=brain_mask, device=device)
        if extracted.method == "classical":
            work.notes.append(FALLBACK)
        elif extracted.method == "none":
            work.notes.append("the head was kept: a face can be drawn from these scans")
        work.done("brain")
        matches = _match_all(work, extracted, seed)
        to_atlas, atlas_record = None, None
        if atlas is not None:
            target, to_atlas, atlas_record = _to_atlas(work, extracted, Path(atlas), atlas_transform, seed)
        written = _write(part, work, matches, to_atlas, target, extracted, interpolation)
        record = record_of(
            found.case_id,
            found.files,
            {name: Grid.of(image) for name, image in work.images.items()},
            grid=target,
            header=header_of(found.files[found.reference], reference),
            settings={"grid": grid, "n4": n4, "interpolation": interpolation, "seed": seed},
            matches=matches,
        )
        record |= {
            "atlas": atlas_record,
            "brain": {"method": extracted.method, "volume_ml": extracted.volume_ml},
            "outputs": written,
            "notes": work.notes,
            "seconds": {**work.seconds, "total": round(time.perf_counter() - begun, 2)},
        }
        write_atomically(part / RECORD, json.dumps(record, indent=2) + "\n")
    return Prepared(out, found.case_id, record)


def _match_all(work: _Work, extracted: BrainMask, seed: int) -> dict[str, Match]:
    """Bring every other scan to the reference."""
    first = work.exam.reference
    mask = None
    if extracted.mask is not None and extracted.trusted:
        steps = extracted.mask.GetSpacing()
        mask = sitk.BinaryDilate(extracted.mask, [max(1, round(MARGIN_MM / step)) for step in steps])
    matches = {}
    for name, image in work.images.items():
        if name == first:
            continue
        matches[name] = found = match(work.images[first], image, mask=mask, seed=seed)
        if found.after.covered < BARELY or found.after.information <= 0:
            raise CaseError(
                work.exam.case_id,
                f"{name} cannot be brought to {first}: they share {found.after.covered:.0%} of the head, "
                f"{BARELY:.0%} is needed; check that both are scans of one head, or leave {name} out",
            )
        work.notes += _match_notes(name, first, found)
        work.done(f"match {name}")
    return matches


def _match_notes(name: str, first: str, found: Match) -> list[str]:
    """What a person should know about a match."""
    notes = []
    if found.kept:
        notes.append(f"{name}: registration found nothing better than the headers, which were kept")
    elif found.before.covered < BARELY:
        notes.append(f"{name} and {first} lie apart by their headers; they were brought together by their contents")
    if found.after.covered < PARTLY:
        notes.append(f"{name} covers {found.after.covered:.0%} of the head that {first} shows; 0 is written elsewhere")
    return notes


def _to_atlas(
    work: _Work, extracted: BrainMask, path: Path, model: Model, seed: int
) -> tuple[Grid, sitk.Transform, dict[str, Any]]:
    """The grid of the atlas, the transform from its points to those of the reference, and what to write down."""
    atlas = read_image(path)
    moving = work.images[work.exam.reference]
    brain_only = float((sitk.GetArrayViewFromImage(atlas) == 0).mean()) > 0.5
    if brain_only and extracted.mask is not None:
        moving = sitk.Mask(moving, extracted.mask)
    found = match(atlas, moving, model=model, seed=seed)
    if found.after.covered < BARELY or found.kept:
        raise PipelineError(
            f"{path}: the reference could not be brought to this atlas (mutual information "
            f"{found.before.information:.2f} before, nothing better found); check that it shows a head, or leave it out"
        )
    work.done("match atlas")
    record = {
        "path": str(path.absolute()),
        "sha256": file_sha256(path),
        "model": model,
        **match_record("atlas", found),
    }
    return Grid.of(atlas), found.transform, record


def _write(
    part: Path,
    work: _Work,
    matches: Mapping[str, Match],
    to_atlas: sitk.Transform | None,
    target: Grid,
    extracted: BrainMask,
    interpolation: str,
) -> dict[str, str]:
    """Sample every scan once, and write what the folder holds; returns file names and their hashes."""
    (part / "transforms").mkdir()
    first = [] if to_atlas is None else [to_atlas]
    if to_atlas is not None:
        sitk.WriteTransform(to_atlas, str(part / "transforms" / "atlas.tfm"))
    inside = None if extracted.mask is None else sample_mask(extracted.mask, target, chained(first))
    seen: dict[str, npt.NDArray[np.float32]] = {}
    names = []
    for name, image in work.images.items():
        way = list(first)
        if name in matches:
            sitk.WriteTransform(matches[name].transform, str(part / "transforms" / f"{name}.tfm"))
            way.append(matches[name].transform)
        seen[name] = values = sample(image, target, chained(way), interpolation)
        if inside is not None:
            values = np.where(inside, values, np.float32(0))
        rounded = whole_numbers(sitk.GetArrayViewFromImage(image))
        kept = np.rint(values).astype(np.int16) if rounded else values
        names.append(f"{work.exam.case_id}-{WORDS[name]}.nii.gz")
        write_nifti(part / names[-1], nifti_of(kept, target))
    if inside is not None:
        names.append(BRAIN_FILE)
        write_nifti(part / BRAIN_FILE, nifti_of(inside.astype(np.uint8), target))
    work.done("resample")
    picture = checkerboards(work.exam.reference, seen, inside, spacing_mm=target.spacing_mm)
    write_atomically(part / PREVIEW, picture)
    work.done("preview")
    return {name: file_sha256(part / name) for name in names}
