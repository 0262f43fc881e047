"""Slice stacks: patients whose axial slices are files, with a mask each (LGG MRI Segmentation set, Buda et al. 2019).

The number at the end of a name orders the slices; in the order of names, slice 10 would stand before slice 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from brats_pipeline.cases.case import Case, Source
from brats_pipeline.cases.layouts import is_barcode, parse_slice, patient_of
from transforms.labels import MODALITIES
from transforms.slices import CHANNELS

LAYOUT = "lgg"
SUFFIXES = (".tif", ".tiff")


def is_slice_name(name: str) -> bool:
    """Whether the name ends as a TIFF file does, in any case."""
    return name.lower().endswith(SUFFIXES)


def is_stack(source: Source) -> bool:
    """Whether a source is slices, be it a single one, and no volume file."""
    return is_slice_name(source.paths[0].name)


def stack_cases(folder: Path, names: Iterable[str]) -> list[Case]:
    """The patients whose slices lie in one folder.

    The files must be named by a barcode of The Cancer Genome Atlas or by their folder; other pictures make no case.

    Args:
        folder: where the files lie.
        names: of its TIFF files.
    """
    stacks: dict[str, tuple[list[tuple[int, Path]], list[tuple[int, Path]]]] = defaultdict(lambda: ([], []))
    for name in names:
        told = parse_slice(Path(name).stem)
        if told is None or not (is_barcode(told[0]) or told[0] == folder.name):
            continue
        case_id, number, is_mask = told
        stacks[case_id][is_mask].append((number, folder / name))
    cases = []
    for case_id, (images, masks) in stacks.items():
        paths, mask_paths = (tuple(path for _, path in sorted(numbered)) for numbered in (images, masks))
        present = [modality for modality in MODALITIES if images and modality in CHANNELS]
        cases.append(
            Case(
                case_id=case_id,
                patient_id=patient_of(case_id, LAYOUT),
                images={modality: Source(paths, CHANNELS[modality]) for modality in present},
                label=Source(mask_paths) if mask_paths else None,
                layout=LAYOUT,
            )
        )
    return cases


def _numbers(paths: Sequence[Path]) -> dict[int, str]:
    """Slice number to file name."""
    told = ((parse_slice(path.stem), path.name) for path in paths)
    return {parsed[1]: name for parsed, name in told if parsed is not None}


def _listed(numbers: Iterable[int]) -> str:
    every = sorted(numbers)
    shown = ", ".join(map(str, every[:5])) + (f" and {len(every) - 5} more" if len(every) > 5 else "")
    return f"slice{'s' if len(every) > 1 else ''} {shown}"


def twin_defect(source: Source, name: str) -> str | None:
    """Two files of a source that claim the same place: one modality of a case, or one slice of a stack.

    Args:
        source: of one image or label map.
        name: of that image, for the message.
    """
    seen: dict[int, Path] = {}
    stack = is_stack(source)
    for path in source.paths:
        parsed = parse_slice(path.stem) if stack else None
        number = parsed[1] if parsed else 0
        if number in seen:
            what = f"slice {number}" if parsed else name
            return f"two files for {what}: {seen[number]} and {path}; keep one of them"
        if parsed or not stack:
            seen[number] = path
    return None


def twin_defects(case: Case) -> list[str]:
    """One sentence for each image, or the label map, that has two files for one place."""
    sources = {**case.images, **({"label": case.label} if case.label else {})}
    found = (twin_defect(source, name) for name, source in sources.items())
    return list(dict.fromkeys(defect for defect in found if defect))


def stack_defects(case: Case) -> tuple[list[str], list[str]]:
    """What is wrong with the list of a patient's slices: defects of the slices, and defects of the masks.

    A gap in the numbers; a mask without a slice; a slice without a mask where other slices have one.
    """
    if not case.images or not is_stack(next(iter(case.images.values()))):
        return [], []
    images = _numbers(next(iter(case.images.values())).paths)
    masks = _numbers(case.label.paths) if case.label else {}
    defects, mask_defects = [], []
    if gap := set(range(min(images), max(images))) - set(images) - set(masks):
        defects.append(
            f"{_listed(gap)} missing between {min(images)} and {max(images)}; copy the whole patient again, or number "
            "the slices without gaps"
        )
    if lone := set(masks) - set(images):
        mask_defects.append(
            f"mask without a slice: {_listed(lone)} ({masks[min(lone)]}); add the slice or drop the mask"
        )
    if masks and (bare := set(images) - set(masks)):
        mask_defects.append(
            f"slice without a mask: {_listed(bare)} ({images[min(bare)]}); every slice of a marked patient needs a "
            "mask, one of zeros where there is no tumour"
        )
    return defects, mask_defects
