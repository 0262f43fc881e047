"""A report can be made again from its predictions, and whatever was changed since is named."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import evaluate
from brats_pipeline.evaluation.verification import verify_report
from brats_pipeline.files import file_sha256
from brats_pipeline.phantom import write_cohort

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of references, predictions (eroded references) and their report; must not be changed."""
    root = tmp_path_factory.mktemp("made")
    write_cohort(root / "cohort", cases=2, shape=(40, 40, 30), spacing_mm=5.0, seed=3)
    (root / "predictions").mkdir()
    for folder in sorted((root / "cohort").iterdir()):
        image = nib.load(folder / f"{folder.name}_seg.nii.gz")
        labels = np.asanyarray(image.dataobj).astype(np.uint8)
        labels[:, ::2] = 0
        nib.save(nib.Nifti1Image(labels, image.affine, image.header), root / "predictions" / f"{folder.name}.nii.gz")
    evaluate(root / "predictions", root / "cohort", root / "report", images=False)
    return root


@pytest.fixture
def tree(made: Path, tmp_path: Path) -> Path:
    """A copy that was moved elsewhere as a whole."""
    return Path(shutil.copytree(made, tmp_path / "moved"))


def test_an_untouched_report_holds_wherever_the_tree_lies(tree: Path) -> None:
    found = verify_report(tree / "report")
    assert (found.files, found.figures, found.versions) == ((), (), ())
    assert found.holds


def test_a_flipped_voxel_is_found_in_its_file_and_its_figures(tree: Path) -> None:
    path = min((tree / "predictions").iterdir())
    case_id = path.name.removesuffix(".nii.gz")
    image = nib.load(path)
    labels = np.asanyarray(image.dataobj).copy()
    place = tuple(np.argwhere(labels == 2)[0])
    labels[place] = 0
    nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)
    found = verify_report(tree / "report")
    assert found.files == (
        f"{case_id}: prediction ../predictions/{path.name} was changed after manifest.json was written",
    )
    assert any(sentence.startswith(f"cases.csv, {case_id} WT: dice is ") for sentence in found.figures)
    assert not found.holds


def test_an_edited_cell_is_named_with_what_it_should_be(tree: Path) -> None:
    path = tree / "report" / "cases.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    case_id, region, true = cells[0], cells[1], cells[2]
    cells[2] = "0.999"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    found = verify_report(tree / "report")
    assert "cases.csv was changed after manifest.json was written" in found.files
    assert found.figures == (f"cases.csv, {case_id} {region}: dice is 0.999, the predictions give {true}",)


def test_a_row_too_few_and_a_row_too_many_are_named(tree: Path) -> None:
    path = tree / "report" / "cases.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:], "Nobody" + lines[1][lines[1].index(",") :]]) + "\n")
    figures = verify_report(tree / "report").figures
    assert len(figures) == 2
    assert any("the row is missing" in sentence for sentence in figures)
    assert any("Nobody" in sentence and "give no such row" in sentence for sentence in figures)


def test_an_edited_summary_is_named(tree: Path) -> None:
    path = tree / "report" / "summary.json"
    summary = json.loads(path.read_text())
    summary["regions"]["WT"]["metrics"]["dice"]["mean"] += 0.1
    path.write_text(json.dumps(summary))
    assert any("regions.WT.metrics.dice.mean" in sentence for sentence in verify_report(tree / "report").figures)


def test_a_reference_that_was_replaced_or_is_gone_is_named(tree: Path) -> None:
    first, second = sorted((tree / "cohort").iterdir())
    reference = first / f"{first.name}_seg.nii.gz"
    reference.write_bytes(gzip.compress(gzip.decompress(reference.read_bytes()), 1))
    (tree / "predictions" / f"{second.name}.nii.gz").unlink()
    found = verify_report(tree / "report")
    assert any(sentence.startswith(f"{first.name}: reference ") and "changed" in sentence for sentence in found.files)
    assert any(sentence.endswith(f"{second.name}.nii.gz is gone") for sentence in found.files)
    assert any(second.name in sentence for sentence in found.figures), "a case without a prediction is a miss"


def test_the_manifest_tells_what_another_person_needs(made: Path) -> None:
    manifest = json.loads((made / "report" / "manifest.json").read_text())
    assert {"call", "versions", "hardware", "seeds", "dataset_sha256", "predictions", "references"} <= manifest.keys()
    machine = manifest["hardware"]
    assert machine["cores"] == os.cpu_count()
    if Path("/proc/cpuinfo").is_file() and "model name" in Path("/proc/cpuinfo").read_text():
        assert machine["processor"] in Path("/proc/cpuinfo").read_text()
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        assert machine["memory_gib"] == pytest.approx(pages * size / 2**30, rel=0.02)
    assert {"cases.csv", "summary.json", "report.html"} <= manifest["outputs"].keys()
    assert manifest["call"]["rules"] == "brats2023-gli"
    assert str(made) not in json.dumps(manifest), "no path of this machine"


def test_the_command_says_what_holds_and_exits_by_it(tree: Path, command: Command) -> None:
    fine = command("report", "verify", tree / "report")
    assert fine.code == 0
    assert "holds" in fine.out
    (tree / "report" / "report.html").write_text("<p>99 %</p>")
    changed = command("report", "verify", tree / "report")
    assert changed.code == 1
    assert "report.html was changed" in changed.err


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"holds no manifest\.json"):
        verify_report(tmp_path)


def test_a_report_of_predictions_that_cannot_be_used_holds(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sorted((tree / "predictions").iterdir())
    first.write_bytes(first.read_bytes()[:200])
    image = nib.load(second)
    half = np.asanyarray(image.dataobj).astype(np.float32)
    half[0, 0, 0] = 0.5
    nib.save(nib.Nifti1Image(half, image.affine), second)
    monkeypatch.chdir(tree)
    failed = evaluate("predictions", "cohort", "other", images=False).failed
    assert len(failed) == 2
    assert not any(str(tree) in reason or "predictions/" in reason for reason in failed.values())
    assert verify_report("other").figures == ()


def test_falsified_pages_and_second_rows_are_found_though_the_manifest_was_falsified_too(tree: Path) -> None:
    report = tree / "report"
    lines = (report / "cases.csv").read_text().splitlines()
    cells = lines[1].split(",")
    true = f"{float(cells[2]):.3f}"
    cells[2] = "0.999"
    (report / "cases.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[1:]]) + "\n")
    for name in ("report.html", "report.md"):
        text = (report / name).read_text()
        assert true in text
        (report / name).write_text(text.replace(true, "0.999"))
    manifest = json.loads((report / "manifest.json").read_text())
    manifest["outputs"] |= {name: file_sha256(report / name) for name in ("cases.csv", "report.html")}
    del manifest["outputs"]["report.md"]
    (report / "manifest.json").write_text(json.dumps(manifest))
    found = verify_report(report)
    assert found.files == ("report.md is not listed in manifest.json",)
    assert any("the row stands 2 times" in sentence for sentence in found.figures)
    for name in ("report.html", "report.md"):
        assert any(sentence.startswith(f"{name}: says “") and "0.999" in sentence for sentence in found.figures)
